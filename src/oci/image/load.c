/* From blobs to a struct kn_image. */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "oci/image/store.h"

const char *kn_image_kind_name(enum kn_image_kind kind)
{
	switch (kind) {
	case KN_IMAGE_CONTAINER:
		return "container";
	case KN_IMAGE_BARE:
		return "bare";
	case KN_IMAGE_NF:
		return "nf";
	}
	return "unknown";
}

struct kn_image *kn_image_ref(struct kn_image *image)
{
	atomic_fetch_add(&held_of(image)->refs, 1);
	return image;
}

void kn_image_unref(struct kn_image *image)
{
	if (!image || atomic_fetch_sub(&held_of(image)->refs, 1) > 1)
		return;
	struct held *h = held_of(image);
	kn_arena_fini(&h->arena);
	free(h);
}

int images_no_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "image store: out of memory");
}

/* ---- what the config says ------------------------------------------------------------------ */

static int argv_make(struct held *h, struct kn_err *err)
{
	const struct kn_spec_strings *entrypoint = &h->config.entrypoint, *cmd = &h->config.cmd;
	const char **argv = kn_arena_alloc(&h->arena, (entrypoint->n + cmd->n + 1) * sizeof(*argv));

	if (!argv)
		return images_no_memory(err);
	for (size_t i = 0; i < entrypoint->n; i++)
		argv[i] = entrypoint->at[i];
	for (size_t i = 0; i < cmd->n; i++)
		argv[entrypoint->n + i] = cmd->at[i];
	h->image.argv = argv;
	return 0;
}

/* config.md: "Entries are in the format of VARNAME=VARVALUE"; others say nothing to execve. */
static int env_make(struct held *h, struct kn_err *err)
{
	const struct kn_spec_strings *from = &h->config.env;
	const char **env = kn_arena_alloc(&h->arena, (from->n + 1) * sizeof(*env));
	size_t n = 0;

	if (!env)
		return images_no_memory(err);
	for (size_t i = 0; i < from->n; i++)
		if (from->at[i][0] != '=' && strchr(from->at[i], '='))
			env[n++] = from->at[i];
	h->image.env = env;
	return 0;
}

static int compare_ports(const void *a, const void *b)
{
	return *(const uint16_t *)a - *(const uint16_t *)b;
}

/* "8080", "8080/tcp"; UDP ports are no way to call a function. */
static int ports_make(struct held *h, struct kn_err *err)
{
	const struct kn_spec_strings *from = &h->config.exposed_ports;
	uint16_t *ports = kn_arena_alloc(&h->arena, (from->n + 1) * sizeof(*ports));

	if (!ports)
		return images_no_memory(err);
	for (size_t i = 0; i < from->n; i++) {
		struct kn_view rest = kn_view_of(from->at[i]), number;
		uint64_t port;
		if (!kn_view_split(&rest, '/', &number) ||
		    (rest.ptr && !kn_view_is(rest, KN_VIEW("tcp"))) ||
		    kn_parse_u64(number, UINT16_MAX, &port, NULL) < 0 || port == 0)
			continue;
		ports[h->image.n_ports++] = (uint16_t)port;
	}
	qsort(ports, h->image.n_ports, sizeof(*ports), compare_ports);
	h->image.ports = ports;
	return 0;
}

static const char *or_default(const char *text, const char *otherwise)
{
	return text && text[0] ? text : otherwise;
}

static int image_make(struct held *h, const char *reference, struct kn_err *err)
{
	const struct kn_image_config *c = &h->config;
	struct kn_image *image = &h->image;

	image->reference = kn_arena_copy(&h->arena, reference, strlen(reference));
	image->digest = h->descriptor.digest;
	image->kind = kn_manifest_is_bare(&h->manifest) ? KN_IMAGE_BARE
	              : kn_manifest_is_nf(&h->manifest) ? KN_IMAGE_NF
	                                                : KN_IMAGE_CONTAINER;
	image->bytes = h->manifest.config.bytes;
	for (size_t i = 0; i < h->manifest.n_layers; i++)
		image->bytes += h->manifest.layers[i].bytes;
	/* A relative working directory is one below the root, as other runtimes read it. */
	image->cwd = or_default(c->cwd, "/");
	if (image->cwd[0] != '/')
		image->cwd = kn_arena_printf(&h->arena, "/%s", c->cwd);
	image->user = or_default(c->user, "");
	image->stop_signal = or_default(c->stop_signal, "SIGTERM");
	image->created = or_default(c->created, "");
	image->labels = c->labels;
	if (!image->reference || !image->cwd)
		return images_no_memory(err);
	int r = argv_make(h, err);
	if (r == 0)
		r = env_make(h, err);
	if (r == 0)
		r = ports_make(h, err);
	return r;
}

/* ---- can it run here? ---------------------------------------------------------------------- */

static int layers_check(const struct held *h, struct kn_err *err)
{
	const struct kn_manifest *m = &h->manifest;

	for (size_t i = 0; i < m->n_layers; i++)
		if (kn_media_of(m->layers[i].media_type) != KN_MEDIA_LAYER)
			return kn_fail(err, EINVAL, "layer %zu is of type '%.100s', which is no layer "
			               "of files", i + 1, m->layers[i].media_type);
	if (m->n_layers != h->config.n_diff_ids)
		return kn_fail(err, EBADMSG, "the image has %zu layers, but its config names %zu",
		               m->n_layers, h->config.n_diff_ids);
	return 0;
}

static int elf_check(struct kn_blobs *blobs, const struct kn_descriptor *d, struct kn_err *err)
{
	Elf64_Ehdr e;

	kn_auto(kn_close) int fd = kn_blob_open(blobs, &d->digest, NULL, err);
	if (fd < 0)
		return fd;
	if (kn_read_all(fd, &e, sizeof(e)) != (ssize_t)sizeof(e) ||
	    memcmp(e.e_ident, ELFMAG, SELFMAG) != 0)
		return kn_fail(err, ENOEXEC, "the bare function is not an ELF file");
	if (e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_ident[EI_DATA] != ELFDATA2LSB ||
	    e.e_machine != EM_X86_64)
		return kn_fail(err, ENOEXEC, "the bare function is for ELF machine %u; this node runs "
		               "x86-64 (%u)", e.e_machine, EM_X86_64);
	if (e.e_type != ET_EXEC && e.e_type != ET_DYN)
		return kn_fail(err, ENOEXEC, "the bare function is an ELF file of type %u, not a "
		               "program", e.e_type);
	return 0;
}

static int bare_check(struct kn_blobs *blobs, const struct held *h, struct kn_err *err)
{
	const struct kn_manifest *m = &h->manifest;

	if (m->n_layers != 1 || kn_media_of(m->layers[0].media_type) != KN_MEDIA_BARE_ELF)
		return kn_fail(err, EINVAL, "a bare function has one layer of type %s",
		               KN_TYPE_BARE_ELF);
	return elf_check(blobs, &m->layers[0], err);
}

/* The chain itself is judged by kiln-nf, when it is built and when it starts. */
static int nf_check(const struct held *h, struct kn_err *err)
{
	const struct kn_manifest *m = &h->manifest;

	if (m->n_layers != 1 || kn_media_of(m->layers[0].media_type) != KN_MEDIA_NF_CHAIN)
		return kn_fail(err, EINVAL, "a packet function has one layer of type %s",
		               KN_TYPE_NF_CHAIN);
	if (m->layers[0].bytes > KN_NF_CHAIN_MAX)
		return kn_fail(err, EFBIG, "the chain has %llu bytes, at most %d are read",
		               (unsigned long long)m->layers[0].bytes, KN_NF_CHAIN_MAX);
	return 0;
}

static int kind_check(struct kn_blobs *blobs, const struct held *h, struct kn_err *err)
{
	switch (h->image.kind) {
	case KN_IMAGE_BARE:
		return bare_check(blobs, h, err);
	case KN_IMAGE_NF:
		return nf_check(h, err);
	case KN_IMAGE_CONTAINER:
		break;
	}
	return layers_check(h, err);
}

static int complete_check(struct kn_blobs *blobs, const struct held *h, struct kn_err *err)
{
	for (size_t i = 0; i < h->manifest.n_layers; i++)
		if (!kn_blob_has(blobs, &h->manifest.layers[i].digest))
			return kn_fail(err, ENOENT, "blob %s is not here",
			               h->manifest.layers[i].digest.text);
	return 0;
}

/* ---- reading ------------------------------------------------------------------------------- */

static int documents_read(struct kn_blobs *blobs, struct held *h, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf manifest = KN_BUF_INIT, config = KN_BUF_INIT;

	int r = kn_blob_read(blobs, &h->descriptor.digest, KN_SPEC_MAX_BYTES, &manifest, err);
	if (r == 0)
		r = kn_spec_manifest(kn_buf_view(&manifest), &h->arena, &h->manifest, err);
	if (r == 0)
		r = kn_blob_read(blobs, &h->manifest.config.digest, KN_SPEC_MAX_BYTES, &config, err);
	if (r == 0)
		r = kn_spec_config(kn_buf_view(&config), &h->arena, &h->config, err);
	return r;
}

static void free_held(struct held *h)
{
	if (h)
		kn_image_unref(&h->image);
}
KN_AUTO(free_held, struct held *);

int held_load(struct kn_blobs *blobs, const char *reference, const struct kn_descriptor *d,
              struct held **ret, struct kn_err *err)
{
	kn_auto(free_held) struct held *h = calloc(1, sizeof(*h));

	if (!h)
		return images_no_memory(err);
	atomic_init(&h->refs, 1);
	kn_arena_init(&h->arena);
	h->descriptor = (struct kn_descriptor){ .media_type = KN_TYPE_MANIFEST,
		                                .digest = d->digest,
		                                .bytes = d->bytes };
	int r = documents_read(blobs, h, err);
	if (r == 0)
		r = complete_check(blobs, h, err);
	if (r == 0)
		r = image_make(h, reference, err);
	if (r == 0)
		r = kind_check(blobs, h, err);
	if (r < 0)
		return kn_while(err, "image '%.150s'", reference);
	*ret = kn_take_ptr(h);
	return 0;
}
