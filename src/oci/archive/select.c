/*
 * Which image of an index is meant: nested indexes are walked, names compared, then the platform
 * decides. Only what was chosen is checked to be complete; other platforms may be left out of an
 * archive, as the specification allows.
 */
#include "oci/archive/source.h"

#include <errno.h>
#include <stdlib.h>

#include "oci/ref.h"

enum { MAX_NESTED = 3 };

struct candidate {
	struct kn_descriptor descriptor;
	const char *name;              /* or NULL */
};

struct selection {
	struct source *src;
	struct candidate at[KN_SPEC_MAX_MANIFESTS];
	size_t n;
	struct kn_buf others;          /* platforms that were passed over */
};

/* ---- platforms and names ------------------------------------------------------------------- */

bool platform_fits(const struct kn_platform *p, struct kn_buf *others)
{
	const char *os = p->os ? p->os : "unknown";
	const char *architecture = p->architecture ? p->architecture : "unknown";

	if (strcmp(os, "linux") == 0 && strcmp(architecture, "amd64") == 0)
		return true;
	kn_buf_printf(others, "%s%.40s/%.40s%s%.40s", others->len ? ", " : "", os, architecture,
	              p->variant ? "/" : "", p->variant ? p->variant : "");
	return false;
}

int platform_fail(const struct kn_buf *others, struct kn_err *err)
{
	return kn_fail(err, ENOEXEC, "the image is for %.200s; this node runs linux/amd64",
	               others->len ? others->ptr : "no platform");
}

bool name_matches(const char *name, const char *wanted)
{
	struct kn_ref a, b;

	if (strcmp(name, wanted) == 0)
		return true;
	if (kn_ref_parse(kn_view_of(wanted), &b, NULL) < 0)
		return false;
	if (strcmp(name, b.tag) == 0)
		return true;
	return kn_ref_parse(kn_view_of(name), &a, NULL) == 0 && strcmp(a.name, b.name) == 0 &&
	       strcmp(a.tag, b.tag) == 0;
}

static const char *name_of(const struct kn_descriptor *d, const char *inherited)
{
	const char *name = kn_spec_pair(&d->annotations, "io.containerd.image.name");

	if (!name)
		name = kn_spec_pair(&d->annotations, "org.opencontainers.image.ref.name");
	return name ? name : inherited;
}

/* ---- candidates ---------------------------------------------------------------------------- */

static int collect(struct selection *s, const struct kn_index *index, const char *inherited,
                   int depth, struct kn_err *err);

static int collect_nested(struct selection *s, const struct kn_descriptor *d, const char *name,
                          int depth, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_index nested = { .n_manifests = 0 };

	if (depth == MAX_NESTED)
		return kn_fail(err, EINVAL, "indexes are nested more than %d deep", MAX_NESTED);
	int r = source_document(s->src, d, &text, err);
	if (r == 0)
		r = kn_spec_index(kn_buf_view(&text), s->src->arena, &nested, err);
	if (r == 0)
		r = collect(s, &nested, name, depth + 1, err);
	return r;
}

static int collect(struct selection *s, const struct kn_index *index, const char *inherited,
                   int depth, struct kn_err *err)
{
	for (size_t i = 0; i < index->n_manifests; i++) {
		const struct kn_descriptor *d = &index->manifests[i];
		const char *name = name_of(d, inherited);
		enum kn_media media = kn_media_of(d->media_type);
		int r = 0;

		if (media == KN_MEDIA_INDEX) {
			r = collect_nested(s, d, name, depth, err);
		} else if (media == KN_MEDIA_MANIFEST || !d->media_type[0]) {
			if (s->n == KN_ARRAY_LEN(s->at))
				return kn_fail(err, EFBIG, "more than %zu manifests", s->n);
			s->at[s->n++] = (struct candidate){ *d, name };
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static bool same_name(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static int several_fail(const struct selection *s, const char *wanted, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf names = KN_BUF_INIT;

	for (size_t i = 0; i < s->n; i++)
		if (s->at[i].name && (i == 0 || !same_name(s->at[i].name, s->at[i - 1].name)))
			kn_buf_printf(&names, "%s%.100s", names.len ? ", " : "", s->at[i].name);
	return kn_fail(err, EINVAL, "%s%.100s%sthe archive holds %.250s; %s",
	               wanted ? "no image '" : "", wanted ? wanted : "", wanted ? "': " : "",
	               names.len ? names.ptr : "several images without names",
	               "name the one to import");
}

/* Several names mean several images: keep those of the wanted one. */
static int keep_wanted(struct selection *s, const char *wanted, struct kn_err *err)
{
	size_t kept = 0;
	bool one = true;

	for (size_t i = 1; i < s->n; i++)
		one = one && same_name(s->at[i].name, s->at[0].name);
	if (one)
		return 0;
	if (!wanted)
		return several_fail(s, NULL, err);
	struct candidate *at = s->at;
	for (size_t i = 0; i < s->n; i++)
		if (at[i].name && name_matches(at[i].name, wanted))
			at[kept++] = at[i];
	if (kept == 0)
		return several_fail(s, wanted, err);
	s->n = kept;
	return 0;
}

/* ---- the choice ---------------------------------------------------------------------------- */

static int layers_fetch(struct source *src, const struct kn_manifest *m, struct kn_err *err)
{
	for (size_t i = 0; i < m->n_layers; i++) {
		int r = source_fetch(src, &m->layers[i], err);
		if (r < 0)
			return kn_while(err, "layer %zu of %zu", i + 1, m->n_layers);
	}
	return 0;
}

/* Returns 1 when this is the image for us, now complete; 0 for another platform. */
static int try_candidate(struct selection *s, const struct candidate *c, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf config_text = KN_BUF_INIT;
	struct kn_manifest m = { .n_layers = 0 };
	struct kn_image_config config = { .n_diff_ids = 0 };
	const struct kn_platform *p = &c->descriptor.platform;

	/* BuildKit keeps its attestations in the index as images of platform unknown/unknown. */
	if (p->os && strcmp(p->os, "unknown") == 0)
		return 0;
	if ((p->os || p->architecture) && !platform_fits(p, &s->others))
		return 0;
	int r = source_document(s->src, &c->descriptor, &text, err);
	if (r == 0)
		r = kn_spec_manifest(kn_buf_view(&text), s->src->arena, &m, err);
	if (r == 0)
		r = source_document(s->src, &m.config, &config_text, err);
	if (r == 0)
		r = kn_spec_config(kn_buf_view(&config_text), s->src->arena, &config, err);
	if (r < 0)
		return r;
	/* A bare function runs on no system: the processor is all that it asks for. Rules ask nothing. */
	if (kn_manifest_is_bare(&m) || kn_manifest_is_nf(&m))
		config.platform = (struct kn_platform){ "linux", config.platform.architecture };
	if (!platform_fits(&config.platform, &s->others))
		return 0;
	r = layers_fetch(s->src, &m, err);
	return r < 0 ? r : 1;
}

static int choose(struct selection *s, struct kn_archive_image *ret, struct kn_err *err)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct candidate *c = &s->at[i];
		int r = try_candidate(s, c, err);
		if (r < 0)
			return kn_while(err, "image %s", c->name ? c->name : c->descriptor.digest.text);
		if (r == 1) {
			*ret = (struct kn_archive_image){ .manifest = c->descriptor, .name = c->name };
			return 0;
		}
	}
	if (s->n == 0)
		return kn_fail(err, EINVAL, "the index names no image");
	return platform_fail(&s->others, err);
}

static int index_select(struct source *src, struct kn_archive_image *ret, struct kn_err *err)
{
	kn_auto(kn_free) struct selection *s = calloc(1, sizeof(*s));
	struct kn_index index = { .n_manifests = 0 };

	if (!s)
		return kn_fail(err, ENOMEM, "import: out of memory");
	s->src = src;
	int r = kn_spec_index(kn_buf_view(&src->index), src->arena, &index, err);
	if (r == 0)
		r = collect(s, &index, NULL, 0, err);
	if (r == 0)
		r = keep_wanted(s, src->config->pick, err);
	if (r == 0)
		r = choose(s, ret, err);
	kn_buf_fini(&s->others);
	return r;
}

int kn_archive_read(struct kn_blobs *blobs, const struct kn_archive_config *config,
                    struct kn_arena *a, struct kn_archive_image *ret, struct kn_err *err)
{
	struct source src;

	int r = source_init(&src, blobs, a, config, err);
	if (r == 0 && src.index.len > 0)
		r = index_select(&src, ret, err);
	else if (r == 0 && src.docker.len > 0)
		r = docker_select(&src, ret, err);
	else if (r == 0)
		r = kn_fail(err, EINVAL,
		            "not an image: the archive has neither index.json (OCI) nor "
		            "manifest.json (docker save)");
	source_fini(&src);
	return r;
}
