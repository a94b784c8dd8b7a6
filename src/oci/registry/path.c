#include <errno.h>

#include "oci/registry/private.h"

/* ---- paths ------------------------------------------------------------------------------------ */

/* Take the last component off; false when there is none before it. */
static bool last_component(struct kn_view *path, struct kn_view *ret)
{
	const char *slash = path->len ? memrchr(path->ptr, '/', path->len) : NULL;

	if (!slash)
		return false;
	*ret = (struct kn_view){ slash + 1, (size_t)(path->ptr + path->len - slash) - 1 };
	path->len = (size_t)(slash - path->ptr);
	return true;
}

static enum path_kind kind_of(struct kn_view before, struct kn_view last)
{
	if (kn_view_is(before, KN_VIEW("blobs")))
		return kn_view_is(last, KN_VIEW("uploads")) ? PATH_UPLOADS : PATH_BLOB;
	if (kn_view_is(before, KN_VIEW("manifests")))
		return PATH_MANIFEST;
	if (kn_view_is(before, KN_VIEW("tags")) && kn_view_is(last, KN_VIEW("list")))
		return PATH_TAGS;
	if (kn_view_is(before, KN_VIEW("referrers")))
		return PATH_REFERRERS;
	return PATH_NONE;
}

/* "/blobs/uploads/ID" and "/blobs/uploads/" */
static bool is_upload(struct kn_view *name, struct kn_view before)
{
	struct kn_view rest = *name, blobs;

	if (!kn_view_is(before, KN_VIEW("uploads")) || !last_component(&rest, &blobs) ||
	    !kn_view_is(blobs, KN_VIEW("blobs")))
		return false;
	*name = rest;
	return true;
}

void registry_path_parse(struct kn_view path, struct registry_path *ret)
{
	struct kn_view name = path, last, before;

	*ret = (struct registry_path){ .kind = PATH_NONE };
	if (kn_view_is(path, KN_VIEW("/v2/")) || kn_view_is(path, KN_VIEW("/v2")))
		ret->kind = PATH_BASE;
	if (kn_view_is(path, KN_VIEW("/v2/_catalog")))
		ret->kind = PATH_CATALOG;
	if (ret->kind != PATH_NONE || !kn_view_starts(path, KN_VIEW("/v2/")))
		return;
	name.ptr += 4;
	name.len -= 4;
	if (!last_component(&name, &last) || !last_component(&name, &before))
		return;
	if (is_upload(&name, before))
		ret->kind = last.len ? PATH_UPLOAD : PATH_UPLOADS;
	else
		ret->kind = kind_of(before, last);
	ret->name = name;
	ret->rest = last;
}

/* A reference's host may have capital letters, a repository's first component may not. */
static bool has_capital(struct kn_view v)
{
	for (size_t i = 0; i < v.len; i++)
		if (v.ptr[i] >= 'A' && v.ptr[i] <= 'Z')
			return true;
	return false;
}

/* The grammar is that of a reference, less what stands for a port, a tag or a digest there. */
bool registry_name_ok(struct kn_view name)
{
	struct kn_ref ref;

	return name.len > 0 && !memchr(name.ptr, ':', name.len) && !memchr(name.ptr, '@', name.len) &&
	       !has_capital(name) && kn_ref_parse(name, &ref, NULL) == 0;
}

bool registry_tag_ok(struct kn_view tag)
{
	char text[2 + 128 + 1];
	struct kn_ref ref;

	if (tag.len == 0 || tag.len > 128)
		return false;
	memcpy(text, "a:", 2);
	memcpy(text + 2, tag.ptr, tag.len);
	return !memchr(tag.ptr, '/', tag.len) && !memchr(tag.ptr, '@', tag.len) &&
	       kn_ref_parse((struct kn_view){ text, tag.len + 2 }, &ref, NULL) == 0 &&
	       kn_view_is(tag, kn_view_of(ref.tag));
}

/* ---- ranges ----------------------------------------------------------------------------------- */

bool registry_chunk_parse(struct kn_view v, uint64_t *ret_first, uint64_t *ret_last)
{
	struct kn_view rest = v, first;

	return kn_view_split(&rest, '-', &first) && rest.ptr &&
	       kn_parse_u64(first, INT64_MAX, ret_first, NULL) == 0 &&
	       kn_parse_u64(rest, INT64_MAX, ret_last, NULL) == 0 && *ret_first <= *ret_last;
}

static enum range suffix_range(struct kn_view count, uint64_t total, uint64_t *ret_first,
                               uint64_t *ret_last)
{
	uint64_t n;

	if (kn_parse_u64(count, INT64_MAX, &n, NULL) < 0)
		return RANGE_WHOLE;
	if (n == 0 || total == 0)
		return RANGE_NONE;
	*ret_first = total - kn_min(n, total);
	*ret_last = total - 1;
	return RANGE_PART;
}

enum range registry_range_parse(struct kn_view v, uint64_t total, uint64_t *ret_first,
                                uint64_t *ret_last)
{
	struct kn_view rest = v, unit, first;
	uint64_t a, b = INT64_MAX;

	if (!kn_view_split(&rest, '=', &unit) || !rest.ptr || !kn_view_is(unit, KN_VIEW("bytes")) ||
	    memchr(rest.ptr, ',', rest.len) || !kn_view_split(&rest, '-', &first) || !rest.ptr)
		return RANGE_WHOLE;
	if (first.len == 0)
		return suffix_range(rest, total, ret_first, ret_last);
	if (kn_parse_u64(first, INT64_MAX, &a, NULL) < 0 ||
	    (rest.len && kn_parse_u64(rest, INT64_MAX, &b, NULL) < 0) || a > b)
		return RANGE_WHOLE;
	if (a >= total)
		return RANGE_NONE;
	*ret_first = a;
	*ret_last = kn_min(b, total - 1);
	return RANGE_PART;
}
