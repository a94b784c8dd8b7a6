/*
 * What `docker save` wrote before it wrote OCI layouts, and what skopeo and podman still write as
 * docker-archive: manifest.json lists the config and the layers by file name. An OCI manifest is
 * made of it.
 */
#include "oci/archive/source.h"

#include <errno.h>

#include "base/fd.h"

struct entry {
	const json_t *obj;
	const char *name;            /* of RepoTags, or NULL */
};

static int entry_name(const json_t *obj, const char *wanted, const char **ret, bool *ret_match,
                      struct kn_err *err)
{
	json_t *tags = NULL, *it;
	size_t i;

	int r = kn_json_arr(obj, "RepoTags", &tags, err);
	if (r < 0)
		return r;
	*ret = NULL;
	*ret_match = false;
	json_array_foreach(tags, i, it) {
		const char *tag = json_string_value(it);
		bool match = tag && wanted && name_matches(tag, wanted);
		if (tag && (!*ret || match))
			*ret = tag;
		*ret_match = *ret_match || match;
	}
	return 0;
}

static int pick_entry(const json_t *list, const char *wanted, struct entry *ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf names = KN_BUF_INIT;
	const json_t *it;
	size_t i;

	json_array_foreach(list, i, it) {
		const char *name;
		bool match;
		int r = entry_name(it, wanted, &name, &match, err);
		if (r < 0)
			return r;
		if (match || json_array_size(list) == 1) {
			*ret = (struct entry){ it, name };
			return 0;
		}
		kn_buf_printf(&names, "%s%.100s", names.len ? ", " : "", name ? name : "(no name)");
	}
	return kn_fail(err, EINVAL, "the archive holds %.300s; name the one to import",
	               names.len ? names.ptr : "no image");
}

static int file_descriptor(struct source *src, const json_t *name, const char *type,
                           struct kn_descriptor *ret, struct kn_err *err)
{
	const char *text = json_string_value(name);
	struct kn_digest d;

	if (!text)
		return kn_fail(err, EINVAL, "manifest.json: a file name must be a string");
	*ret = (struct kn_descriptor){ .media_type = type };
	/* Newer archives keep their files as blobs, under both manifest.json and index.json. */
	const char *hex = strrchr(text, '/');
	char digest[KN_DIGEST_TEXT + 16];
	snprintf(digest, sizeof(digest), "sha256:%.*s", 64, hex ? hex + 1 : "");
	if (strncmp(text, "blobs/sha256/", 13) == 0 &&
	    kn_digest_parse(kn_view_of(digest), &d, NULL) == 0) {
		ret->digest = d;
		kn_auto(kn_close) int fd = kn_blob_open(src->blobs, &d, &ret->bytes, err);
		return fd < 0 ? kn_while(err, "manifest.json") : 0;
	}
	const struct source_file *f = source_file(src, text);
	if (!f)
		return kn_fail(err, EBADMSG, "'%.150s' of manifest.json is missing in the archive",
		               text);
	ret->digest = f->digest;
	ret->bytes = f->bytes;
	return 0;
}

/* manifest.json does not say how a layer is compressed; its first bytes do. */
static int layer_type(struct source *src, struct kn_descriptor *d, struct kn_err *err)
{
	unsigned char magic[4] = { 0 };

	kn_auto(kn_close) int fd = kn_blob_open(src->blobs, &d->digest, NULL, err);
	if (fd < 0)
		return fd;
	ssize_t n = kn_read_all(fd, magic, sizeof(magic));
	if (n < 0)
		return kn_fail(err, (int)-n, "read layer: %s", strerror((int)-n));
	d->media_type = memcmp(magic, "\x1f\x8b", 2) == 0           ? KN_TYPE_LAYER_GZIP
	                : memcmp(magic, "\x28\xb5\x2f\xfd", 4) == 0 ? KN_TYPE_LAYER_ZSTD
	                                                            : KN_TYPE_LAYER;
	return 0;
}

static int layers_json(struct source *src, const json_t *obj, json_t *ret, struct kn_err *err)
{
	json_t *names = NULL, *it;
	size_t i;

	int r = kn_json_arr(obj, "Layers", &names, err);
	if (r < 0)
		return r;
	if (json_array_size(names) > KN_SPEC_MAX_LAYERS)
		return kn_fail(err, EINVAL, "manifest.json names more than %d layers",
		               KN_SPEC_MAX_LAYERS);
	json_array_foreach(names, i, it) {
		struct kn_descriptor d;
		r = file_descriptor(src, it, KN_TYPE_LAYER, &d, err);
		if (r == 0)
			r = layer_type(src, &d, err);
		if (r < 0)
			return r;
		if (json_array_append_new(ret, kn_spec_descriptor_json(&d)) < 0)
			return kn_fail(err, ENOMEM, "import: out of memory");
	}
	return 0;
}

static int put_manifest(struct source *src, const json_t *obj, const struct kn_descriptor *config,
                        struct kn_descriptor *ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(json_decref) json_t *layers = json_array();

	int r = layers_json(src, obj, layers, err);
	if (r < 0)
		return r;
	kn_auto(json_decref) json_t *doc =
		json_pack("{s:i, s:s, s:o, s:O}", "schemaVersion", 2, "mediaType", KN_TYPE_MANIFEST,
	                  "config", kn_spec_descriptor_json(config), "layers", layers);
	if (!doc)
		return kn_fail(err, ENOMEM, "import: out of memory");
	kn_json_print(&text, doc, JSON_SORT_KEYS);
	if (text.failed)
		return kn_fail(err, ENOMEM, "import: out of memory");
	*ret = (struct kn_descriptor){ .media_type = KN_TYPE_MANIFEST, .bytes = text.len };
	return kn_blob_put(src->blobs, text.ptr, text.len, &ret->digest, err);
}

static int config_check(struct source *src, const struct kn_descriptor *d, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf others = KN_BUF_INIT;
	struct kn_image_config config;

	int r = kn_blob_read(src->blobs, &d->digest, KN_SPEC_MAX_BYTES, &text, err);
	if (r == 0)
		r = kn_spec_config(kn_buf_view(&text), src->arena, &config, err);
	if (r == 0 && !platform_fits(&config.platform, &others))
		r = platform_fail(&others, err);
	return r;
}

int docker_select(struct source *src, struct kn_archive_image *ret, struct kn_err *err)
{
	kn_auto(json_decref) json_t *list = NULL;
	struct kn_descriptor config, manifest;
	const char *name = NULL;
	struct entry e = { .obj = NULL };

	int r = kn_json_parse(kn_buf_view(&src->docker), &list, err);
	if (r < 0)
		return kn_while(err, "manifest.json");
	if (!json_is_array(list))
		return kn_fail(err, EINVAL, "manifest.json must be an array");
	r = pick_entry(list, src->config->pick, &e, err);
	if (r == 0)
		r = file_descriptor(src, json_object_get(e.obj, "Config"), KN_TYPE_CONFIG, &config,
		                    err);
	if (r == 0)
		r = config_check(src, &config, err);
	if (r == 0)
		r = put_manifest(src, e.obj, &config, &manifest, err);
	if (r < 0)
		return r;
	if (e.name && !(name = kn_arena_copy(src->arena, e.name, strlen(e.name))))
		return kn_fail(err, ENOMEM, "import: out of memory");
	*ret = (struct kn_archive_image){ .manifest = manifest, .name = name };
	return 0;
}
