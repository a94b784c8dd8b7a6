/*
 * Writing an OCI archive: oci-layout, the blobs, then index.json, as a plain tar whose entries say
 * nothing of the machine or the hour, so that the same input gives the same bytes.
 */
#include "oci/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "oci/ref.h"
#include "oci/stream.h"

enum { CHUNK = 256 * 1024 };

static void free_tar(struct archive *a)
{
	if (a)
		archive_write_free(a);
}
KN_AUTO(free_tar, struct archive *);

static void free_entry(struct archive_entry *e)
{
	archive_entry_free(e);
}
KN_AUTO(free_entry, struct archive_entry *);

static int no_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "write archive: out of memory");
}

static int tar_fail(struct archive *tar, struct kn_err *err)
{
	const char *why = archive_error_string(tar);
	int code = archive_errno(tar);

	return kn_fail(err, code > 0 ? code : EIO, "write archive: %s", why ? why : "I/O error");
}

static int tar_header(struct archive *tar, const char *name, uint64_t bytes, struct kn_err *err)
{
	kn_auto(free_entry) struct archive_entry *e = archive_entry_new();
	if (!e)
		return no_memory(err);

	archive_entry_set_pathname(e, name);
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, 0644);
	archive_entry_set_mtime(e, 0, 0);
	archive_entry_set_size(e, (la_int64_t)bytes);
	return archive_write_header(tar, e) == ARCHIVE_OK ? 0 : tar_fail(tar, err);
}

static int tar_text(struct archive *tar, const char *name, struct kn_view text, struct kn_err *err)
{
	int r = tar_header(tar, name, text.len, err);

	if (r < 0)
		return r;
	if (archive_write_data(tar, text.ptr, text.len) != (la_ssize_t)text.len)
		return tar_fail(tar, err);
	return 0;
}

static void blob_name(const struct kn_digest *d, char ret[static KN_DIGEST_TEXT + 16])
{
	snprintf(ret, KN_DIGEST_TEXT + 16, "blobs/%s/%s", kn_digest_algorithm(d), kn_digest_hex(d));
}

static int tar_blob_text(struct archive *tar, const struct kn_digest *d, struct kn_view text,
                         struct kn_err *err)
{
	char name[KN_DIGEST_TEXT + 16];

	blob_name(d, name);
	return tar_text(tar, name, text, err);
}

/* The second reading of a layer: it must still be as long as when its digest was taken. */
static int tar_layer(struct archive *tar, int fd, const struct kn_descriptor *d, struct kn_err *err)
{
	kn_auto(kn_free) char *chunk = malloc(CHUNK);
	char name[KN_DIGEST_TEXT + 16];

	if (!chunk)
		return no_memory(err);
	blob_name(&d->digest, name);
	int r = tar_header(tar, name, d->bytes, err);
	if (r < 0)
		return r;
	for (uint64_t at = 0; at < d->bytes;) {
		size_t want = (size_t)kn_min(d->bytes - at, (uint64_t)CHUNK);
		ssize_t n = pread(fd, chunk, want, (off_t)at);
		if (n <= 0)
			return kn_fail(err, n < 0 ? errno : EBADMSG, "read layer: %s",
			               n < 0 ? strerror(errno) : "it became shorter");
		if (archive_write_data(tar, chunk, (size_t)n) != n)
			return tar_fail(tar, err);
		at += (uint64_t)n;
	}
	return 0;
}

/* ---- what is written ----------------------------------------------------------------------- */

struct plan {
	const struct kn_pack *pack;
	char reference[KN_REF_MAX];      /* "" when the image has none */
	struct kn_descriptor *layers;
	struct kn_buf config, manifest, index;
	struct kn_descriptor config_desc, manifest_desc;
};

static int layer_digest(int fd, struct kn_descriptor *ret, struct kn_err *err)
{
	kn_auto(kn_hasher_free) struct kn_hasher *h = NULL;
	kn_auto(kn_free) char *chunk = malloc(CHUNK);

	if (!chunk)
		return no_memory(err);
	int r = kn_hasher_new(KN_SHA256, &h, err);
	if (r < 0)
		return r;
	for (ssize_t n; (n = pread(fd, chunk, CHUNK, (off_t)ret->bytes)) != 0;) {
		if (n < 0)
			return kn_fail(err, errno, "read layer: %s", strerror(errno));
		kn_hasher_add(h, chunk, (size_t)n);
		ret->bytes += (uint64_t)n;
	}
	kn_hasher_take(h, &ret->digest);
	return 0;
}

static int diff_id(int fd, struct kn_digest *ret, struct kn_err *err)
{
	struct kn_stream_config config = { .fd = fd, .max_bytes = KN_SPEC_MAX_BLOB };
	kn_auto(kn_stream_free) struct kn_stream *s = NULL;
	const void *block;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return kn_fail(err, errno, "read layer: %s", strerror(errno));
	int r = kn_stream_new(&config, &s, err);
	if (r < 0)
		return r;
	ssize_t n;
	while ((n = kn_stream_read(s, &block, err)) > 0)
		;
	if (n < 0)
		return (int)n;
	kn_stream_digest(s, ret);
	return 0;
}

static int plan_layers(struct plan *p, json_t *diff_ids, struct kn_err *err)
{
	for (size_t i = 0; i < p->pack->n_layers; i++) {
		const struct kn_pack_layer *layer = &p->pack->layers[i];
		struct kn_digest id;

		p->layers[i].media_type = layer->media_type;
		int r = layer_digest(layer->fd, &p->layers[i], err);
		if (r == 0 && kn_media_of(layer->media_type) == KN_MEDIA_LAYER) {
			r = diff_id(layer->fd, &id, err);
			if (r == 0 && json_array_append_new(diff_ids, json_string(id.text)) < 0)
				r = no_memory(err);
		}
		if (r < 0)
			return kn_while(err, "layer %zu", i + 1);
	}
	return 0;
}

static int plan_config(struct plan *p, json_t *diff_ids, struct kn_err *err)
{
	kn_auto(json_decref) json_t *config = json_copy(p->pack->config);

	if (!config)
		return no_memory(err);
	if (!p->pack->artifact_type &&
	    json_object_set_new(config, "rootfs",
	                        json_pack("{s:s, s:O}", "type", "layers", "diff_ids", diff_ids)) < 0)
		return no_memory(err);
	kn_json_print(&p->config, config, JSON_SORT_KEYS);
	if (p->config.failed)
		return no_memory(err);
	p->config_desc = (struct kn_descriptor){ .media_type = p->pack->config_type,
		                                 .bytes = p->config.len };
	return kn_digest_of(KN_SHA256, p->config.ptr, p->config.len, &p->config_desc.digest, err);
}

static json_t *layers_json(const struct plan *p)
{
	json_t *arr = json_array();

	for (size_t i = 0; arr && i < p->pack->n_layers; i++)
		if (json_array_append_new(arr, kn_spec_descriptor_json(&p->layers[i])) < 0) {
			json_decref(arr);
			return NULL;
		}
	return arr;
}

static int plan_manifest(struct plan *p, struct kn_err *err)
{
	const char *artifact = p->pack->artifact_type;
	kn_auto(json_decref) json_t *doc =
		json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType", KN_TYPE_MANIFEST,
	                  "config", kn_spec_descriptor_json(&p->config_desc), "layers",
	                  layers_json(p));

	if (!doc || (artifact &&
	             json_object_set_new(doc, "artifactType", json_string(artifact)) < 0))
		return no_memory(err);
	kn_json_print(&p->manifest, doc, JSON_SORT_KEYS);
	if (p->manifest.failed)
		return no_memory(err);
	p->manifest_desc = (struct kn_descriptor){ .media_type = KN_TYPE_MANIFEST,
		                                   .artifact_type = artifact,
		                                   .bytes = p->manifest.len };
	return kn_digest_of(KN_SHA256, p->manifest.ptr, p->manifest.len, &p->manifest_desc.digest,
	                    err);
}

static int plan_index(struct plan *p, struct kn_err *err)
{
	struct kn_spec_pair name = { "org.opencontainers.image.ref.name", p->reference };
	struct kn_descriptor d = p->manifest_desc;

	if (p->reference[0])
		d.annotations = (struct kn_spec_pairs){ &name, 1 };
	kn_auto(json_decref) json_t *doc =
		json_pack("{s:i, s:s, s:[o]}", "schemaVersion", 2, "mediaType", KN_TYPE_INDEX,
	                  "manifests", kn_spec_descriptor_json(&d));
	if (!doc)
		return no_memory(err);
	kn_json_print(&p->index, doc, JSON_SORT_KEYS);
	return p->index.failed ? no_memory(err) : 0;
}

static int plan_make(struct plan *p, struct kn_err *err)
{
	kn_auto(json_decref) json_t *diff_ids = json_array();

	p->layers = calloc(p->pack->n_layers + 1, sizeof(*p->layers));
	if (!p->layers || !diff_ids)
		return no_memory(err);
	int r = plan_layers(p, diff_ids, err);
	if (r == 0)
		r = plan_config(p, diff_ids, err);
	if (r == 0)
		r = plan_manifest(p, err);
	if (r == 0)
		r = plan_index(p, err);
	return r;
}

static void plan_fini(struct plan *p)
{
	kn_buf_fini(&p->config);
	kn_buf_fini(&p->manifest);
	kn_buf_fini(&p->index);
	free(p->layers);
}

/* ---- writing it ---------------------------------------------------------------------------- */

static bool written_before(const struct plan *p, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (kn_digest_is(&p->layers[k].digest, &p->layers[i].digest))
			return true;
	return false;
}

static int write_all(struct archive *tar, const struct plan *p, struct kn_err *err)
{
	int r = tar_text(tar, "oci-layout", KN_VIEW("{\"imageLayoutVersion\":\"1.0.0\"}"), err);

	for (size_t i = 0; r == 0 && i < p->pack->n_layers; i++)
		if (!written_before(p, i))
			r = tar_layer(tar, p->pack->layers[i].fd, &p->layers[i], err);
	if (r == 0)
		r = tar_blob_text(tar, &p->config_desc.digest, kn_buf_view(&p->config), err);
	if (r == 0)
		r = tar_blob_text(tar, &p->manifest_desc.digest, kn_buf_view(&p->manifest), err);
	if (r == 0)
		r = tar_text(tar, "index.json", kn_buf_view(&p->index), err);
	if (r == 0 && archive_write_close(tar) != ARCHIVE_OK)
		r = tar_fail(tar, err);
	return r;
}

static int write_tar(int out_fd, const struct plan *p, struct kn_err *err)
{
	kn_auto(free_tar) struct archive *tar = archive_write_new();

	/* pax "restricted" is ustar until a layer is larger than ustar can say (8 GiB). */
	if (!tar || archive_write_set_format_pax_restricted(tar) != ARCHIVE_OK)
		return no_memory(err);
	if (archive_write_open_fd(tar, out_fd) != ARCHIVE_OK)
		return tar_fail(tar, err);
	return write_all(tar, p, err);
}

int kn_archive_write(int out_fd, const struct kn_pack *pack, struct kn_digest *ret,
                     struct kn_err *err)
{
	struct plan p = { .pack = pack };
	struct kn_ref ref;

	if (!json_is_object(pack->config) || !pack->config_type)
		return kn_fail(err, EINVAL, "an image needs a config and its media type");
	if (pack->reference) {
		int bad = kn_ref_parse(kn_view_of(pack->reference), &ref, err);
		if (bad < 0)
			return bad;
		kn_ref_text(&ref, p.reference);
	}
	int r = plan_make(&p, err);
	if (r == 0)
		r = write_tar(out_fd, &p, err);
	if (r == 0)
		*ret = p.manifest_desc.digest;
	plan_fini(&p);
	return r;
}

/* A function in one file that is no container image: config and one layer. */
static int write_single(int out_fd, const char *reference, const char *artifact_type,
                        const char *config_type, struct kn_pack_layer layer, const json_t *labels,
                        struct kn_digest *ret, struct kn_err *err)
{
	kn_auto(json_decref) json_t *none = json_object();
	kn_auto(json_decref) json_t *config =
		json_pack("{s:s, s:s, s:{s:O}}", "architecture", "amd64", "os", "none", "config",
	                  "Labels", labels ? labels : none);
	if (!config)
		return no_memory(err);
	struct kn_pack pack = {
		.reference = reference,
		.artifact_type = artifact_type,
		.config_type = config_type,
		.config = config,
		.layers = &layer,
		.n_layers = 1,
	};
	return kn_archive_write(out_fd, &pack, ret, err);
}

int kn_archive_write_bare(int out_fd, const char *reference, int elf_fd, const json_t *labels,
                          struct kn_digest *ret, struct kn_err *err)
{
	struct kn_pack_layer layer = { .media_type = KN_TYPE_BARE_ELF, .fd = elf_fd };

	return write_single(out_fd, reference, KN_TYPE_BARE, KN_TYPE_BARE_CONFIG, layer, labels, ret,
	                    err);
}

int kn_archive_write_nf(int out_fd, const char *reference, int yaml_fd, const json_t *labels,
                        struct kn_digest *ret, struct kn_err *err)
{
	struct kn_pack_layer layer = { .media_type = KN_TYPE_NF_CHAIN, .fd = yaml_fd };

	return write_single(out_fd, reference, KN_TYPE_NF, KN_TYPE_NF_CONFIG, layer, labels, ret, err);
}
