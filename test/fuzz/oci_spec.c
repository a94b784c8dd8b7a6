/* The documents of an image: each parser on each input; limits hold for what they give. */
#include "fuzz.h"

#include "oci/spec.h"

static void check_strings(const struct kn_spec_strings *s)
{
	must(s->n <= KN_SPEC_MAX_STRINGS);
	for (size_t i = 0; i < s->n; i++)
		must(s->at[i] && strlen(s->at[i]) <= KN_SPEC_MAX_TEXT);
	must(!s->at || !s->at[s->n]);
}

static void check_descriptor(const struct kn_descriptor *d)
{
	struct kn_digest again;

	must(d->media_type && d->bytes <= KN_SPEC_MAX_BLOB);
	must(kn_digest_parse(kn_view_of(d->digest.text), &again, NULL) == 0);
	kn_auto(json_decref) json_t *json = kn_spec_descriptor_json(d);
	must(json_is_object(json));
}

static void read_index(struct kn_view text, struct kn_arena *a)
{
	struct kn_index index;

	if (kn_spec_index(text, a, &index, NULL) < 0)
		return;
	must(index.n_manifests <= KN_SPEC_MAX_MANIFESTS);
	for (size_t i = 0; i < index.n_manifests; i++)
		check_descriptor(&index.manifests[i]);
}

static void read_manifest(struct kn_view text, struct kn_arena *a)
{
	struct kn_manifest m;

	if (kn_spec_manifest(text, a, &m, NULL) < 0)
		return;
	must(m.n_layers <= KN_SPEC_MAX_LAYERS);
	check_descriptor(&m.config);
	for (size_t i = 0; i < m.n_layers; i++)
		check_descriptor(&m.layers[i]);
	must(kn_manifest_is_bare(&m) == kn_manifest_is_bare(&m));
}

static void read_config(struct kn_view text, struct kn_arena *a)
{
	struct kn_image_config c;

	if (kn_spec_config(text, a, &c, NULL) < 0)
		return;
	check_strings(&c.entrypoint);
	check_strings(&c.cmd);
	check_strings(&c.env);
	check_strings(&c.exposed_ports);
	must(c.n_diff_ids <= KN_SPEC_MAX_LAYERS && c.labels.n <= KN_SPEC_MAX_STRINGS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_arena a;

	kn_arena_init(&a);
	read_index(fuzz_view(data, size), &a);
	read_manifest(fuzz_view(data, size), &a);
	read_config(fuzz_view(data, size), &a);
	kn_arena_fini(&a);
	return 0;
}
