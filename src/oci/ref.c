#include "oci/ref.h"

#include <errno.h>
#include <stdio.h>

static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
	return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

/* One separator between letters: ".", "_", "__" or any number of "-". Returns its length or 0. */
static size_t separator_len(struct kn_view v, size_t at)
{
	size_t n = 0;

	if (v.ptr[at] == '.')
		return 1;
	if (v.ptr[at] == '_')
		return at + 1 < v.len && v.ptr[at + 1] == '_' ? 2 : 1;
	while (at + n < v.len && v.ptr[at + n] == '-')
		n++;
	return n;
}

static bool component_ok(struct kn_view v)
{
	size_t i = 0;

	while (i < v.len) {
		size_t start = i;
		while (i < v.len && is_lower_alnum(v.ptr[i]))
			i++;
		if (i == start)
			return false;
		if (i == v.len)
			return true;
		size_t sep = separator_len(v, i);
		if (sep == 0)
			return false;
		i += sep;
	}
	return false;
}

/* One part of a host name between dots: letters and digits, "-" between them. */
static bool label_ok(struct kn_view v)
{
	for (size_t i = 0; i < v.len; i++) {
		bool edge = i == 0 || i + 1 == v.len;
		if (!is_alnum(v.ptr[i]) && (edge || v.ptr[i] != '-'))
			return false;
	}
	return v.len > 0;
}

/* "localhost", "host.example:5000", "10.0.0.1:80" */
static bool registry_ok(struct kn_view v)
{
	struct kn_view port = v, labels, label;
	uint64_t number;

	kn_view_split(&port, ':', &labels);
	while (kn_view_split(&labels, '.', &label))
		if (!label_ok(label))
			return false;
	return !port.ptr || (kn_parse_u64(port, UINT16_MAX, &number, NULL) == 0 && number > 0);
}

static bool looks_like_registry(struct kn_view first)
{
	return memchr(first.ptr, '.', first.len) || memchr(first.ptr, ':', first.len) ||
	       kn_view_is(first, KN_VIEW("localhost"));
}

static int name_parse(struct kn_view name, struct kn_ref *ret, struct kn_err *err)
{
	struct kn_view rest = name, part;
	bool first = true;

	if (name.len == 0)
		return kn_fail(err, EINVAL, "an image reference needs a name");
	if (name.len >= sizeof(ret->name))
		return kn_fail(err, EINVAL, "image name is longer than %zu bytes",
		               sizeof(ret->name) - 1);
	while (kn_view_split(&rest, '/', &part)) {
		bool registry = first && rest.ptr && part.len > 0 && looks_like_registry(part);
		if (registry ? !registry_ok(part) : !component_ok(part))
			return kn_fail(err, EINVAL,
			               "image name '%.*s': '%.*s' is not a %s (lower-case letters, digits, "
			               "'.', '_' and '-' between them)",
			               (int)name.len, name.ptr, (int)part.len, part.len ? part.ptr : "",
			               registry ? "registry" : "name");
		first = false;
	}
	memcpy(ret->name, name.ptr, name.len);
	return 0;
}

static int tag_parse(struct kn_view tag, struct kn_ref *ret, struct kn_err *err)
{
	bool ok = tag.len > 0 && tag.len < sizeof(ret->tag) &&
	          (is_alnum(tag.ptr[0]) || tag.ptr[0] == '_');

	for (size_t i = 1; ok && i < tag.len; i++)
		ok = is_alnum(tag.ptr[i]) || strchr("_.-", tag.ptr[i]);
	if (!ok || memchr(tag.ptr, '\0', tag.len))
		return kn_fail(err, EINVAL,
		               "tag '%.*s' must be 1 to 128 letters, digits, '_', '.' and '-'",
		               (int)kn_min(tag.len, (size_t)128), tag.len ? tag.ptr : "");
	memcpy(ret->tag, tag.ptr, tag.len);
	return 0;
}

/* The tag stands after the last colon, when no slash follows: "localhost:5000/a" has none. */
static bool split_tag(struct kn_view *name, struct kn_view *ret_tag)
{
	const char *colon = name->len ? memrchr(name->ptr, ':', name->len) : NULL;

	if (!colon || memchr(colon, '/', (size_t)(name->ptr + name->len - colon)))
		return false;
	*ret_tag = (struct kn_view){ colon + 1, (size_t)(name->ptr + name->len - colon) - 1 };
	name->len = (size_t)(colon - name->ptr);
	return true;
}

int kn_ref_parse(struct kn_view text, struct kn_ref *ret, struct kn_err *err)
{
	struct kn_ref ref = { .name = "" };
	struct kn_view name, tag, digest = text;
	int r;

	if (!kn_view_split(&digest, '@', &name))
		return kn_fail(err, EINVAL, "an image reference needs a name");
	if (digest.ptr) {
		r = kn_digest_parse(digest, &ref.digest, err);
		if (r < 0)
			return r;
	}
	if (split_tag(&name, &tag)) {
		r = tag_parse(tag, &ref, err);
		if (r < 0)
			return r;
	} else if (!digest.ptr) {
		memcpy(ref.tag, "latest", sizeof("latest"));
	}
	r = name_parse(name, &ref, err);
	if (r < 0)
		return r;
	*ret = ref;
	return 0;
}

bool kn_ref_registry(const struct kn_ref *ref, struct kn_view *ret_host,
                     struct kn_view *ret_repository)
{
	struct kn_view rest = kn_view_of(ref->name), first;

	if (!kn_view_split(&rest, '/', &first) || !rest.ptr || !looks_like_registry(first))
		return false;
	*ret_host = first;
	*ret_repository = rest;
	return true;
}

void kn_ref_text(const struct kn_ref *ref, char ret[KN_REF_MAX])
{
	if (ref->tag[0])
		snprintf(ret, KN_REF_MAX, "%s:%s", ref->name, ref->tag);
	else
		snprintf(ret, KN_REF_MAX, "%s@%s", ref->name, ref->digest.text);
}
