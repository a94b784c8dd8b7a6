/*
 * From blobs to a struct kn_image, in two steps: what the document names (a manifest, or an index of
 * manifests), all of which must be here; then whether it is something that can run on this node,
 * which is no error when it is not, but an image of the kind "other" with the reason.
 */
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
	case KN_IMAGE_OTHER:
		return "other";
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

static int image_make(struct held *h, struct kn_err *err)
{
	const struct kn_image_config *c = &h->config;
	struct kn_image *image = &h->image;

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
	if (!image->cwd)
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

static int platform_check(const struct kn_platform *p, struct kn_err *err)
{
	const char *os = or_default(p->os, "linux");
	const char *architecture = or_default(p->architecture, "amd64");

	if (strcmp(os, "linux") == 0 && strcmp(architecture, "amd64") == 0)
		return 0;
	return kn_fail(err, ENOEXEC, "the image is for %.40s/%.40s; this node runs linux/amd64", os,
	               architecture);
}

static int config_check(const struct held *h, struct kn_err *err)
{
	const char *type = h->manifest.config.media_type;

	if (type[0] && kn_media_of(type) != KN_MEDIA_CONFIG)
		return kn_fail(err, ENOEXEC, "its config is of type '%.100s', which is not that of an "
		               "image", type);
	return platform_check(&h->config.platform, err);
}

static int layers_here(struct kn_blobs *blobs, const struct held *h, struct kn_err *err)
{
	for (size_t i = 0; i < h->manifest.n_layers; i++)
		if (!kn_blob_has(blobs, &h->manifest.layers[i].digest))
			return kn_fail(err, ENOENT, "blob %s is not here",
			               h->manifest.layers[i].digest.text);
	return 0;
}

static int run_check(struct kn_blobs *blobs, const struct held *h, struct kn_err *err)
{
	int r = layers_here(blobs, h, err);

	if (r < 0)
		return r;
	if (h->image.kind == KN_IMAGE_BARE)
		return bare_check(blobs, h, err);
	if (h->image.kind == KN_IMAGE_NF)
		return nf_check(h, err);
	r = config_check(h, err);
	return r < 0 ? r : layers_check(h, err);
}

/* Everything that running asks for; any failure is the reason why this cannot run. */
static int run_make(struct kn_blobs *blobs, struct held *h, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf config = KN_BUF_INIT;

	int r = kn_blob_read(blobs, &h->manifest.config.digest, KN_SPEC_MAX_BYTES, &config, err);
	if (r == 0)
		r = kn_spec_config(kn_buf_view(&config), &h->arena, &h->config, err);
	if (r == 0)
		r = image_make(h, err);
	return r < 0 ? r : run_check(blobs, h, err);
}

/* ---- what the document names --------------------------------------------------------------- */

static int needs_init(struct held *h, size_t max, struct kn_err *err)
{
	h->needs = kn_arena_alloc(&h->arena, (max + 1) * sizeof(*h->needs));
	return h->needs ? 0 : images_no_memory(err);
}

static int needs_check(struct kn_blobs *blobs, const struct held *h, struct kn_err *err)
{
	for (size_t i = 0; i < h->n_needs; i++)
		if (!kn_blob_has(blobs, &h->needs[i]))
			return kn_fail(err, ENOENT, "blob %s is not here", h->needs[i].text);
	return 0;
}

static int manifest_make(const struct held_source *from, struct held *h, struct kn_err *err)
{
	struct kn_manifest *m = &h->manifest;

	int r = kn_spec_manifest(from->document, &h->arena, m, err);
	if (r == 0)
		r = needs_init(h, m->n_layers + 1, err);
	if (r < 0)
		return r;
	h->needs[h->n_needs++] = m->config.digest;
	for (size_t i = 0; i < m->n_layers; i++)
		if (!kn_media_is_elsewhere(m->layers[i].media_type))
			h->needs[h->n_needs++] = m->layers[i].digest;
	h->image.subject = m->subject;
	h->image.annotations = m->annotations;
	h->image.artifact_type = or_default(m->artifact_type, m->config.media_type);
	h->image.digest = from->digest;
	r = needs_check(from->blobs, h, err);
	if (r == 0)
		run_make(from->blobs, h, &h->why);
	return r;
}

static const struct kn_descriptor *for_this_node(const struct kn_index *index, struct kn_err *err)
{
	for (size_t i = 0; i < index->n_manifests; i++) {
		const struct kn_platform *p = &index->manifests[i].platform;
		const char *os = or_default(p->os, ""), *arch = or_default(p->architecture, "");
		if (kn_media_of(index->manifests[i].media_type) == KN_MEDIA_MANIFEST &&
		    strcmp(os, "linux") == 0 && strcmp(arch, "amd64") == 0)
			return &index->manifests[i];
	}
	kn_fail(err, ENOEXEC, "the index has no image for linux/amd64, which this node runs");
	return NULL;
}

static int run_make_index(const struct held_source *from, const struct kn_index *index,
                          struct held *h, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	const struct kn_descriptor *d = for_this_node(index, err);
	if (!d)
		return -ENOEXEC;
	int r = kn_blob_read(from->blobs, &d->digest, KN_SPEC_MAX_BYTES, &text, err);
	if (r == 0)
		r = kn_spec_manifest(kn_buf_view(&text), &h->arena, &h->manifest, err);
	if (r == 0)
		r = run_make(from->blobs, h, err);
	if (r == 0)
		h->image.digest = d->digest;
	return r;
}

static int index_make(const struct held_source *from, struct held *h, struct kn_err *err)
{
	struct kn_index index = { .n_manifests = 0 };

	int r = kn_spec_index(from->document, &h->arena, &index, err);
	if (r == 0)
		r = needs_init(h, index.n_manifests, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < index.n_manifests; i++)
		if (!from->partial || kn_blob_has(from->blobs, &index.manifests[i].digest))
			h->needs[h->n_needs++] = index.manifests[i].digest;
	h->index = true;
	h->image.subject = index.subject;
	h->image.annotations = index.annotations;
	h->image.artifact_type = or_default(index.artifact_type, "");
	h->image.digest = from->digest;
	r = needs_check(from->blobs, h, err);
	if (r == 0)
		run_make_index(from, &index, h, &h->why);
	return r;
}

/*
 * What the document is: what its sender says, what it says of itself, else by its shape. The first
 * two may not differ, or the next reader would take it for something else.
 */
static int type_find(const struct held_source *from, struct held *h, struct kn_err *err)
{
	kn_auto(json_decref) json_t *doc = NULL;
	const char *own = NULL;

	int r = kn_json_parse(from->document, &doc, err);
	if (r == 0)
		r = kn_json_str(doc, "mediaType", &own, err);
	if (r < 0)
		return kn_while(err, "manifest");
	const char *told = or_default(from->media_type, NULL);
	if (own && told && strcmp(own, told) != 0)
		return kn_fail(err, EINVAL, "the manifest is sent as '%.100s', but calls itself '%.100s'",
		               told, own);
	const char *shape = json_object_get(doc, "manifests") ? KN_TYPE_INDEX : KN_TYPE_MANIFEST;
	const char *type = or_default(told, or_default(own, shape));
	h->image.media_type = kn_arena_copy(&h->arena, type, strlen(type));
	return h->image.media_type ? 0 : images_no_memory(err);
}

static int document_make(const struct held_source *from, struct held *h, struct kn_err *err)
{
	int r = type_find(from, h, err);
	if (r < 0)
		return r;
	switch ((int)kn_media_of(h->image.media_type)) {
	case KN_MEDIA_MANIFEST:
		return manifest_make(from, h, err);
	case KN_MEDIA_INDEX:
		return index_make(from, h, err);
	default:
		return kn_fail(err, EINVAL, "'%.100s' is the type of no manifest and of no index",
		               h->image.media_type);
	}
}

/* ---- names --------------------------------------------------------------------------------- */

static int name_make(const struct held_source *from, struct held *h, struct kn_err *err)
{
	struct kn_image *image = &h->image;

	image->top = from->digest;
	image->top_bytes = from->document.len;
	image->repository = kn_arena_copy(&h->arena, from->repository.ptr, from->repository.len);
	image->tag = kn_arena_copy(&h->arena, from->tag.ptr ? from->tag.ptr : "", from->tag.len);
	if (!image->repository || !image->tag)
		return images_no_memory(err);
	image->reference = kn_arena_printf(&h->arena, "%s%s%s", image->repository,
	                                   image->tag[0] ? ":" : "@",
	                                   image->tag[0] ? image->tag : image->top.text);
	return image->reference ? 0 : images_no_memory(err);
}

/* An image that cannot run has no program, and counts what it names. */
static int other_make(struct held *h, struct kn_err *err)
{
	struct kn_image *image = &h->image;
	static const char *const none[] = { NULL };

	if (h->why.code == ENOMEM)   /* that says nothing about the image */
		return kn_fail(err, ENOMEM, "%s", h->why.text);
	image->kind = KN_IMAGE_OTHER;
	image->digest = image->top;
	image->argv = image->env = none;
	image->cwd = "/";
	image->user = image->created = "";
	image->stop_signal = "SIGTERM";
	image->n_ports = 0;
	image->why_not = h->why.text;
	if (h->index)
		return 0;
	image->bytes = h->manifest.config.bytes;
	for (size_t i = 0; i < h->manifest.n_layers; i++)
		image->bytes += h->manifest.layers[i].bytes;
	return 0;
}

static void free_held(struct held *h)
{
	if (h)
		kn_image_unref(&h->image);
}
KN_AUTO(free_held, struct held *);

int held_make(const struct held_source *from, struct held **ret, struct kn_err *err)
{
	kn_auto(free_held) struct held *h = calloc(1, sizeof(*h));

	if (!h)
		return images_no_memory(err);
	atomic_init(&h->refs, 1);
	kn_arena_init(&h->arena);
	int r = name_make(from, h, err);
	if (r < 0)
		return r;
	r = document_make(from, h, err);
	if (r == 0 && h->why.code)
		r = other_make(h, err);
	if (r < 0)
		return kn_while(err, "image '%.150s'", h->image.reference);
	*ret = kn_take_ptr(h);
	return 0;
}

int held_check(const struct held *h, struct kn_err *err)
{
	if (h->why.code == 0)
		return 0;
	return kn_fail(err, h->why.code, "image '%.150s': %s", h->image.reference, h->why.text);
}

int held_load(const struct held_source *from, struct held **ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct held_source with = *from;

	int r = kn_blob_read(from->blobs, &from->digest, KN_SPEC_MAX_BYTES, &text, err);
	if (r < 0)
		return kn_while(err, "image '%.*s%s%.*s'", (int)kn_min(from->repository.len, (size_t)100),
		                from->repository.ptr, from->tag.ptr ? ":" : "",
		                (int)kn_min(from->tag.len, (size_t)50),
		                from->tag.ptr ? from->tag.ptr : "");
	with.document = kn_buf_view(&text);
	with.partial = true;   /* it was checked when it came */
	return held_make(&with, ret, err);
}
