#include "packet/binding.h"

#include <errno.h>
#include <string.h>

static const char *const KINDS[] = { "interface", "af_packet", "af_xdp" }; /* enum kn_port_kind */

const char *kn_port_kind_name(enum kn_port_kind kind)
{
	return (size_t)kind < KN_ARRAY_LEN(KINDS) ? KINDS[kind] : "unknown";
}

static bool word_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_' || c == '.';
}

/* What the kernel takes as an interface's name (dev_valid_name), and no comma: lists have those. */
static bool interface_char(char c)
{
	return c > ' ' && c != 0x7f && c != '/' && c != ':' && c != ',' && (unsigned char)c < 0x80;
}

static bool path_char(char c)
{
	return c > ' ' && c != 0x7f && c != ',';
}

static bool copy(struct kn_view v, bool (*fits)(char), char *out, size_t room)
{
	if (v.len == 0 || v.len > room)
		return false;
	for (size_t i = 0; i < v.len; i++)
		if (!fits(v.ptr[i]))
			return false;
	memcpy(out, v.ptr, v.len);
	out[v.len] = '\0';
	return true;
}

/* "@/" parts interface and namespace: the name of an interface may hold '@', never '/'. */
static struct kn_view cut_netns(struct kn_view *v)
{
	struct kn_view netns = KN_VIEW_NULL;

	for (size_t i = 0; i + 1 < v->len; i++) {
		if (v->ptr[i] != '@' || v->ptr[i + 1] != '/')
			continue;
		netns = (struct kn_view){ v->ptr + i + 1, v->len - i - 1 };
		v->len = i;
		break;
	}
	return netns;
}

/* "KIND:" in front, which may be missing. */
static int cut_kind(struct kn_view *v, enum kn_port_kind *ret, struct kn_err *err)
{
	struct kn_view rest = *v, word;

	*ret = KN_PORT_INTERFACE;
	if (!kn_view_split(&rest, ':', &word) || !rest.ptr)
		return 0;
	for (size_t i = 0; i < KN_ARRAY_LEN(KINDS); i++) {
		if (kn_view_is(word, kn_view_of(KINDS[i]))) {
			*ret = (enum kn_port_kind)i;
			*v = rest;
			return 0;
		}
	}
	return kn_fail(err, EINVAL, "'%.*s' is no kind of port: interface, af_packet or af_xdp",
		       (int)kn_min(word.len, (size_t)32), word.ptr);
}

int kn_binding_parse(struct kn_view text, struct kn_binding *ret, struct kn_err *err)
{
	struct kn_view rest = text, port;
	struct kn_binding b = { .kind = KN_PORT_INTERFACE };
	int shown = (int)kn_min(text.len, (size_t)64);

	if (!kn_view_split(&rest, '=', &port) || !rest.ptr)
		return kn_fail(err, EINVAL, "'%.*s' binds no port: write PORT=INTERFACE", shown,
			       text.ptr);
	if (!copy(port, word_char, b.port, KN_BINDING_PORT))
		return kn_fail(err, EINVAL,
			       "'%.*s': a port's name has 1 to %d letters, digits, '-', '_' or '.'",
			       shown, text.ptr, KN_BINDING_PORT);
	struct kn_view netns = cut_netns(&rest);
	if (netns.ptr && !copy(netns, path_char, b.netns, KN_BINDING_NETNS))
		return kn_fail(err, EINVAL, "'%.*s': a namespace is a path of at most %d bytes",
			       shown, text.ptr, KN_BINDING_NETNS);
	int r = cut_kind(&rest, &b.kind, err);
	if (r < 0)
		return r;
	if (!copy(rest, interface_char, b.interface, KN_BINDING_INTERFACE))
		return kn_fail(err, EINVAL, "'%.*s': an interface's name has 1 to %d bytes", shown,
			       text.ptr, KN_BINDING_INTERFACE);
	*ret = b;
	return 0;
}

bool kn_binding_same(const struct kn_binding *a, const struct kn_binding *b)
{
	return strcmp(a->interface, b->interface) == 0 && strcmp(a->netns, b->netns) == 0;
}
