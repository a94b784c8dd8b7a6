#include <errno.h>
#include <stdio.h>

#include "faas/auth.h"

/* In the order of enum kn_scope's bits. */
static const char *const NAMES[] = {
	"function:read", "function:write", "function:invoke", "image:read", "image:write",
	"node:read",     "secret:read",    "secret:write",    "admin",
};

void kn_scope_text(uint32_t scopes, char out[KN_SCOPE_TEXT])
{
	size_t len = 0;

	out[0] = 0;
	for (size_t i = 0; i < KN_ARRAY_LEN(NAMES); i++) {
		if (!(scopes & (1U << i)))
			continue;
		int n = snprintf(out + len, KN_SCOPE_TEXT - len, "%s%s", len ? " " : "", NAMES[i]);
		if (n > 0)
			len += (size_t)n;
	}
}

static int bit_of(struct kn_view name, uint32_t *bits, struct kn_err *err)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(NAMES); i++) {
		if (kn_view_is(name, kn_view_of(NAMES[i]))) {
			*bits |= 1U << i;
			return 0;
		}
	}
	const char *close = kn_closest(name, NAMES, KN_ARRAY_LEN(NAMES));
	char all[KN_SCOPE_TEXT];
	kn_scope_text(KN_SCOPE_ALL, all);
	if (close)
		return kn_fail(err, EINVAL, "unknown scope '%.*s': did you mean '%s'?",
		               (int)kn_min(name.len, (size_t)64), name.ptr, close);
	return kn_fail(err, EINVAL, "unknown scope '%.*s': Kiln has %s",
	               (int)kn_min(name.len, (size_t)64), name.ptr, all);
}

int kn_scope_parse(struct kn_view text, uint32_t *ret, struct kn_err *err)
{
	uint32_t bits = 0;
	struct kn_view name;

	while (kn_view_split(&text, ' ', &name)) {
		if (name.len == 0)
			continue;
		int r = bit_of(name, &bits, err);
		if (r < 0)
			return r;
	}
	*ret = bits;
	return 0;
}
