#include "oci/spec.h"

#include <errno.h>
#include <string.h>

static const struct {
	const char *type;
	enum kn_media media;
} media_types[] = {
	{ KN_TYPE_INDEX, KN_MEDIA_INDEX },
	{ KN_TYPE_DOCKER_LIST, KN_MEDIA_INDEX },
	{ KN_TYPE_MANIFEST, KN_MEDIA_MANIFEST },
	{ KN_TYPE_DOCKER_MANIFEST, KN_MEDIA_MANIFEST },
	{ KN_TYPE_CONFIG, KN_MEDIA_CONFIG },
	{ KN_TYPE_DOCKER_CONFIG, KN_MEDIA_CONFIG },
	{ KN_TYPE_LAYER, KN_MEDIA_LAYER },
	{ KN_TYPE_LAYER_GZIP, KN_MEDIA_LAYER },
	{ KN_TYPE_LAYER_ZSTD, KN_MEDIA_LAYER },
	{ KN_TYPE_DOCKER_LAYER, KN_MEDIA_LAYER },
	{ "application/vnd.docker.image.rootfs.diff.tar", KN_MEDIA_LAYER },
	{ "application/vnd.docker.image.rootfs.diff.tar.zstd", KN_MEDIA_LAYER },
	/* Deprecated since 1.1, still in older images: how to hand the layer on, not what it is. */
	{ "application/vnd.oci.image.layer.nondistributable.v1.tar", KN_MEDIA_LAYER },
	{ "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", KN_MEDIA_LAYER },
	{ "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", KN_MEDIA_LAYER },
	{ KN_TYPE_BARE_CONFIG, KN_MEDIA_BARE_CONFIG },
	{ KN_TYPE_BARE_ELF, KN_MEDIA_BARE_ELF },
	{ KN_TYPE_NF_CONFIG, KN_MEDIA_NF_CONFIG },
	{ KN_TYPE_NF_CHAIN, KN_MEDIA_NF_CHAIN },
};

enum kn_media kn_media_of(const char *type)
{
	for (size_t i = 0; type && i < KN_ARRAY_LEN(media_types); i++)
		if (strcmp(type, media_types[i].type) == 0)
			return media_types[i].media;
	return KN_MEDIA_OTHER;
}

const char *kn_spec_pair(const struct kn_spec_pairs *pairs, const char *name)
{
	for (size_t i = 0; i < pairs->n; i++)
		if (strcmp(pairs->at[i].name, name) == 0)
			return pairs->at[i].value;
	return NULL;
}

/* ---- fields -------------------------------------------------------------------------------- */

static int no_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "image document: out of memory");
}

static int keep_text(const char *s, const char *what, struct kn_arena *a, const char **ret,
                     struct kn_err *err)
{
	size_t len = strlen(s);

	if (len > KN_SPEC_MAX_TEXT)
		return kn_fail(err, EINVAL, "a text of '%s' is longer than %d bytes", what,
		               KN_SPEC_MAX_TEXT);
	const char *copy = kn_arena_copy(a, s, len);
	if (!copy)
		return no_memory(err);
	*ret = copy;
	return 0;
}

static int text_field(const json_t *obj, const char *key, struct kn_arena *a, const char **ret,
                      struct kn_err *err)
{
	const char *s = NULL;

	int r = kn_json_str(obj, key, &s, err);
	if (r < 0 || !s)
		return r;
	return keep_text(s, key, a, ret, err);
}

static int count_ok(size_t n, size_t max, const char *key, struct kn_err *err)
{
	if (n > max)
		return kn_fail(err, EINVAL, "'%s' has %zu entries; at most %zu are taken", key, n,
		               max);
	return 0;
}

/* Room for n strings and the NULL behind them. */
static const char **string_room(struct kn_arena *a, size_t n)
{
	return kn_arena_alloc(a, (n + 1) * sizeof(const char *));
}

static int strings_field(const json_t *obj, const char *key, struct kn_arena *a,
                         struct kn_spec_strings *ret, struct kn_err *err)
{
	json_t *arr = NULL, *it;
	size_t i;

	int r = kn_json_arr(obj, key, &arr, err);
	if (r < 0)
		return r;
	r = count_ok(json_array_size(arr), KN_SPEC_MAX_STRINGS, key, err);
	if (r < 0)
		return r;
	const char **at = string_room(a, json_array_size(arr));
	if (!at)
		return no_memory(err);
	json_array_foreach(arr, i, it) {
		if (!json_is_string(it))
			return kn_fail(err, EINVAL, "'%s' must hold strings only", key);
		r = keep_text(json_string_value(it), key, a, &at[i], err);
		if (r < 0)
			return r;
	}
	*ret = (struct kn_spec_strings){ at, json_array_size(arr) };
	return 0;
}

/* The keys of an object whose values say nothing: ExposedPorts, Volumes. */
static int keys_field(const json_t *obj, const char *key, struct kn_arena *a,
                      struct kn_spec_strings *ret, struct kn_err *err)
{
	json_t *map = NULL, *it;
	const char *name;
	size_t n = 0;

	int r = kn_json_obj(obj, key, &map, err);
	if (r < 0)
		return r;
	r = count_ok(json_object_size(map), KN_SPEC_MAX_STRINGS, key, err);
	if (r < 0)
		return r;
	const char **at = string_room(a, json_object_size(map));
	if (!at)
		return no_memory(err);
	json_object_foreach(map, name, it) {
		(void)it;
		r = keep_text(name, key, a, &at[n++], err);
		if (r < 0)
			return r;
	}
	*ret = (struct kn_spec_strings){ at, n };
	return 0;
}

static int pair_keep(const char *name, const json_t *value, const char *key, struct kn_arena *a,
                     struct kn_spec_pair *ret, struct kn_err *err)
{
	if (!json_is_string(value))
		return kn_fail(err, EINVAL, "'%s': the value of '%s' must be a string", key, name);
	int r = keep_text(name, key, a, &ret->name, err);
	if (r < 0)
		return r;
	return keep_text(json_string_value(value), key, a, &ret->value, err);
}

static int pairs_field(const json_t *obj, const char *key, struct kn_arena *a,
                       struct kn_spec_pairs *ret, struct kn_err *err)
{
	json_t *map = NULL, *it;
	const char *name;
	size_t n = 0;

	int r = kn_json_obj(obj, key, &map, err);
	if (r < 0)
		return r;
	r = count_ok(json_object_size(map), KN_SPEC_MAX_STRINGS, key, err);
	if (r < 0)
		return r;
	struct kn_spec_pair *at = kn_arena_alloc(a, json_object_size(map) * sizeof(*at));
	if (!at)
		return no_memory(err);
	json_object_foreach(map, name, it) {
		r = pair_keep(name, it, key, a, &at[n++], err);
		if (r < 0)
			return r;
	}
	*ret = (struct kn_spec_pairs){ at, n };
	return 0;
}

static int digest_of(const json_t *value, const char *what, struct kn_digest *ret,
                     struct kn_err *err)
{
	if (!json_is_string(value))
		return kn_fail(err, EINVAL, "%s: a digest must be a string", what);
	int r = kn_digest_parse(kn_view_of(json_string_value(value)), ret, err);
	return r < 0 ? kn_while(err, "%s", what) : 0;
}

static int platform_fields(const json_t *obj, struct kn_arena *a, struct kn_platform *ret,
                           struct kn_err *err)
{
	int r = text_field(obj, "os", a, &ret->os, err);

	if (r == 0)
		r = text_field(obj, "architecture", a, &ret->architecture, err);
	if (r == 0)
		r = text_field(obj, "variant", a, &ret->variant, err);
	return r;
}

/* ---- descriptors --------------------------------------------------------------------------- */

static int descriptor_optional(const json_t *obj, struct kn_arena *a, struct kn_descriptor *d,
                               struct kn_err *err)
{
	json_t *platform = NULL;

	int r = text_field(obj, "artifactType", a, &d->artifact_type, err);
	if (r == 0)
		r = kn_json_obj(obj, "platform", &platform, err);
	if (r == 0 && platform)
		r = platform_fields(platform, a, &d->platform, err);
	if (r == 0)
		r = pairs_field(obj, "annotations", a, &d->annotations, err);
	return r;
}

static int descriptor_parse(const json_t *obj, const char *what, struct kn_arena *a,
                            struct kn_descriptor *ret, struct kn_err *err)
{
	static const char *const required[] = { "digest", "size", NULL };
	struct kn_descriptor d = { .media_type = "" };

	int r = kn_json_require(obj, required, err);
	if (r == 0)
		r = digest_of(json_object_get(obj, "digest"), "digest", &d.digest, err);
	if (r == 0)
		r = kn_json_u64(obj, "size", KN_SPEC_MAX_BLOB, &d.bytes, err);
	if (r == 0)
		r = text_field(obj, "mediaType", a, &d.media_type, err);
	if (r == 0)
		r = descriptor_optional(obj, a, &d, err);
	if (r < 0)
		return kn_while(err, "%s", what);
	*ret = d;
	return 0;
}

static int subject_field(const json_t *doc, struct kn_arena *a, struct kn_digest *ret,
                         struct kn_err *err)
{
	struct kn_descriptor d;
	json_t *subject = NULL;

	int r = kn_json_obj(doc, "subject", &subject, err);
	if (r < 0 || !subject)
		return r;
	r = descriptor_parse(subject, "subject", a, &d, err);
	if (r == 0)
		*ret = d.digest;
	return r;
}

static int descriptors_field(const json_t *obj, const char *key, size_t max, struct kn_arena *a,
                             struct kn_descriptor **ret, size_t *ret_n, struct kn_err *err)
{
	json_t *arr = NULL, *it;
	size_t i;

	int r = kn_json_arr(obj, key, &arr, err);
	if (r < 0)
		return r;
	r = count_ok(json_array_size(arr), max, key, err);
	if (r < 0)
		return r;
	struct kn_descriptor *at = kn_arena_alloc(a, json_array_size(arr) * sizeof(*at));
	if (!at)
		return no_memory(err);
	json_array_foreach(arr, i, it) {
		r = descriptor_parse(it, key, a, &at[i], err);
		if (r < 0)
			return r;
	}
	*ret = at;
	*ret_n = json_array_size(arr);
	return 0;
}

/* ---- documents ----------------------------------------------------------------------------- */

static int document_parse(struct kn_view json, const char *what, json_t **ret, struct kn_err *err)
{
	if (json.len > KN_SPEC_MAX_BYTES)
		return kn_fail(err, EINVAL, "%s has %zu bytes; at most %d are read", what, json.len,
		               KN_SPEC_MAX_BYTES);
	int r = kn_json_parse(json, ret, err);
	if (r < 0)
		return kn_while(err, "%s", what);
	if (json_is_object(*ret))
		return 0;
	json_decref(*ret);
	*ret = NULL;
	return kn_fail(err, EINVAL, "%s must be a JSON object", what);
}

/*
 * A document that could be read both as an index and as a manifest would mean one image to us and
 * another to the next tool that reads it by the same digest (CVE-2021-41190).
 */
static int kind_check(const json_t *doc, enum kn_media want, const char *other_field,
                      struct kn_err *err)
{
	const char *type = NULL;
	uint64_t version = 0;

	int r = kn_json_u64(doc, "schemaVersion", UINT64_MAX >> 1, &version, err);
	if (r == 0)
		r = kn_json_str(doc, "mediaType", &type, err);
	if (r < 0)
		return r;
	if (version != 2)
		return kn_fail(err, EINVAL, "schemaVersion must be 2");
	if (type && kn_media_of(type) != want)
		return kn_fail(err, EINVAL, "mediaType '%.100s' does not fit its place", type);
	if (json_object_get(doc, other_field))
		return kn_fail(err, EINVAL, "the document has '%s' too: is it index or manifest?",
		               other_field);
	return 0;
}

int kn_spec_index(struct kn_view json, struct kn_arena *a, struct kn_index *ret, struct kn_err *err)
{
	static const char *const required[] = { "schemaVersion", "manifests", NULL };
	kn_auto(json_decref) json_t *doc = NULL;
	struct kn_index index = { .manifests = NULL };

	int r = document_parse(json, "image index", &doc, err);
	if (r < 0)
		return r;
	r = kn_json_require(doc, required, err);
	if (r == 0)
		r = kind_check(doc, KN_MEDIA_INDEX, "layers", err);
	if (r == 0)
		r = text_field(doc, "artifactType", a, &index.artifact_type, err);
	if (r == 0)
		r = descriptors_field(doc, "manifests", KN_SPEC_MAX_MANIFESTS, a, &index.manifests,
		                      &index.n_manifests, err);
	if (r == 0)
		r = subject_field(doc, a, &index.subject, err);
	if (r == 0)
		r = pairs_field(doc, "annotations", a, &index.annotations, err);
	if (r < 0)
		return kn_while(err, "image index");
	*ret = index;
	return 0;
}

int kn_spec_manifest(struct kn_view json, struct kn_arena *a, struct kn_manifest *ret,
                     struct kn_err *err)
{
	static const char *const required[] = { "schemaVersion", "config", "layers", NULL };
	kn_auto(json_decref) json_t *doc = NULL;
	struct kn_manifest m = { .artifact_type = NULL };

	int r = document_parse(json, "image manifest", &doc, err);
	if (r < 0)
		return r;
	r = kn_json_require(doc, required, err);
	if (r == 0)
		r = kind_check(doc, KN_MEDIA_MANIFEST, "manifests", err);
	if (r == 0)
		r = text_field(doc, "artifactType", a, &m.artifact_type, err);
	if (r == 0)
		r = descriptor_parse(json_object_get(doc, "config"), "config", a, &m.config, err);
	if (r == 0)
		r = descriptors_field(doc, "layers", KN_SPEC_MAX_LAYERS, a, &m.layers, &m.n_layers,
		                      err);
	if (r == 0)
		r = subject_field(doc, a, &m.subject, err);
	if (r == 0)
		r = pairs_field(doc, "annotations", a, &m.annotations, err);
	if (r < 0)
		return kn_while(err, "image manifest");
	*ret = m;
	return 0;
}

bool kn_media_is_elsewhere(const char *type)
{
	static const char oci[] = "application/vnd.oci.image.layer.nondistributable.";
	static const char docker[] = "application/vnd.docker.image.rootfs.foreign.";

	return strncmp(type, oci, sizeof(oci) - 1) == 0 ||
	       strncmp(type, docker, sizeof(docker) - 1) == 0;
}

bool kn_manifest_is_bare(const struct kn_manifest *m)
{
	return (m->artifact_type && strcmp(m->artifact_type, KN_TYPE_BARE) == 0) ||
	       kn_media_of(m->config.media_type) == KN_MEDIA_BARE_CONFIG;
}

bool kn_manifest_is_nf(const struct kn_manifest *m)
{
	return (m->artifact_type && strcmp(m->artifact_type, KN_TYPE_NF) == 0) ||
	       kn_media_of(m->config.media_type) == KN_MEDIA_NF_CONFIG;
}

static int execution_fields(const json_t *doc, struct kn_arena *a, struct kn_image_config *c,
                            struct kn_err *err)
{
	json_t *obj = NULL;

	int r = kn_json_obj(doc, "config", &obj, err);
	if (r < 0)
		return r;
	kn_auto(json_decref) json_t *none = obj ? NULL : json_object();
	if (!obj && !none)
		return no_memory(err);
	obj = obj ? obj : none;

	r = text_field(obj, "User", a, &c->user, err);
	if (r == 0)
		r = text_field(obj, "WorkingDir", a, &c->cwd, err);
	if (r == 0)
		r = text_field(obj, "StopSignal", a, &c->stop_signal, err);
	if (r == 0)
		r = strings_field(obj, "Entrypoint", a, &c->entrypoint, err);
	if (r == 0)
		r = strings_field(obj, "Cmd", a, &c->cmd, err);
	if (r == 0)
		r = strings_field(obj, "Env", a, &c->env, err);
	if (r == 0)
		r = keys_field(obj, "ExposedPorts", a, &c->exposed_ports, err);
	if (r == 0)
		r = pairs_field(obj, "Labels", a, &c->labels, err);
	return r;
}

static int rootfs_fields(const json_t *doc, struct kn_arena *a, struct kn_image_config *c,
                         struct kn_err *err)
{
	json_t *rootfs = NULL, *ids = NULL, *it;
	const char *type = "layers";
	size_t i;

	int r = kn_json_obj(doc, "rootfs", &rootfs, err);
	if (r < 0 || !rootfs)
		return r;
	r = kn_json_str(rootfs, "type", &type, err);
	if (r == 0)
		r = kn_json_arr(rootfs, "diff_ids", &ids, err);
	if (r == 0)
		r = count_ok(json_array_size(ids), KN_SPEC_MAX_LAYERS, "rootfs.diff_ids", err);
	if (r < 0)
		return r;
	if (strcmp(type, "layers") != 0)
		return kn_fail(err, EINVAL, "rootfs.type '%.40s' must be 'layers'", type);
	c->diff_ids = kn_arena_alloc(a, json_array_size(ids) * sizeof(*c->diff_ids));
	if (!c->diff_ids)
		return no_memory(err);
	json_array_foreach(ids, i, it) {
		r = digest_of(it, "rootfs.diff_ids", &c->diff_ids[i], err);
		if (r < 0)
			return r;
	}
	c->n_diff_ids = json_array_size(ids);
	return 0;
}

int kn_spec_config(struct kn_view json, struct kn_arena *a, struct kn_image_config *ret,
                   struct kn_err *err)
{
	kn_auto(json_decref) json_t *doc = NULL;
	struct kn_image_config c = { .created = NULL };

	int r = document_parse(json, "image config", &doc, err);
	if (r < 0)
		return r;
	r = platform_fields(doc, a, &c.platform, err);
	if (r == 0)
		r = text_field(doc, "created", a, &c.created, err);
	if (r == 0)
		r = execution_fields(doc, a, &c, err);
	if (r == 0)
		r = rootfs_fields(doc, a, &c, err);
	if (r < 0)
		return kn_while(err, "image config");
	*ret = c;
	return 0;
}

/* ---- writing ------------------------------------------------------------------------------- */

static bool set_text(json_t *obj, const char *key, const char *value)
{
	return !value || json_object_set_new(obj, key, json_string(value)) == 0;
}

static bool set_platform(json_t *obj, const struct kn_platform *p)
{
	if (!p->os && !p->architecture)
		return true;
	json_t *platform = json_object();
	bool ok = set_text(platform, "architecture", p->architecture) &&
	          set_text(platform, "os", p->os) && set_text(platform, "variant", p->variant);
	return json_object_set_new(obj, "platform", platform) == 0 && ok;
}

static bool set_annotations(json_t *obj, const struct kn_spec_pairs *pairs)
{
	bool ok = true;

	if (pairs->n == 0)
		return true;
	json_t *map = json_object();
	for (size_t i = 0; ok && i < pairs->n; i++)
		ok = set_text(map, pairs->at[i].name, pairs->at[i].value);
	return json_object_set_new(obj, "annotations", map) == 0 && ok;
}

json_t *kn_spec_descriptor_json(const struct kn_descriptor *d)
{
	kn_auto(json_decref) json_t *obj = json_object();

	if (!obj || !set_text(obj, "mediaType", d->media_type) ||
	    !set_text(obj, "digest", d->digest.text) ||
	    json_object_set_new(obj, "size", json_integer((json_int_t)d->bytes)) < 0 ||
	    !set_text(obj, "artifactType", d->artifact_type) || !set_platform(obj, &d->platform) ||
	    !set_annotations(obj, &d->annotations))
		return NULL;
	return kn_take_ptr(obj);
}
