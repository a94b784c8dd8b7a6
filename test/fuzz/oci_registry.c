/* What a registry's client writes: paths, names, ranges, and manifests read as one and as index. */
#include "fuzz.h"

#include "oci/registry/private.h"

static void try_path(struct kn_view text)
{
	struct registry_path p;

	registry_path_parse(text, &p);
	must(p.kind == PATH_NONE || kn_view_starts(text, KN_VIEW("/v2")));
	if (!registry_name_ok(p.name))
		return;
	/* A name that is taken can be a path of a file without leading anywhere else. */
	must(p.name.len <= 255 && p.name.ptr[0] != '/' && p.name.ptr[0] != '.');
	must(!memmem(p.name.ptr, p.name.len, "..", 2) && !memchr(p.name.ptr, 0, p.name.len));
}

static void try_range(struct kn_view text, uint64_t total)
{
	uint64_t first = 0, last = 0;

	if (registry_range_parse(text, total, &first, &last) == RANGE_PART)
		must(first <= last && last < total);
	if (registry_chunk_parse(text, &first, &last))
		must(first <= last && last <= INT64_MAX);
}

static void try_manifest(struct kn_view text)
{
	struct kn_manifest manifest;
	struct kn_index index;
	struct kn_arena arena;

	kn_arena_init(&arena);
	const bool one = kn_spec_manifest(text, &arena, &manifest, NULL) == 0;
	const bool other = kn_spec_index(text, &arena, &index, NULL) == 0;
	must(!(one && other));
	kn_arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_view text = fuzz_view(data, size);

	try_path(text);
	(void)registry_tag_ok(text);
	try_range(text, 0);
	try_range(text, 1);
	try_range(text, 1000);
	try_range(text, UINT64_C(1) << 40);
	try_manifest(text);
	return 0;
}
