/* Bodies of the token endpoint, and Authorization values. */
#include "fuzz.h"

#include "faas/auth/private.h"

static void read_form(struct kn_arena *a, struct kn_view body)
{
	static const char *const keys[] = { "grant_type", "client_id", "client_secret", "scope" };
	struct kn_view value;
	uint32_t scopes;

	for (size_t i = 0; i < KN_ARRAY_LEN(keys); i++) {
		if (kn_form_value(a, body, keys[i], &value, NULL) < 0)
			continue;
		must(value.len <= body.len);
		must(!value.ptr || !memchr(value.ptr, 0, value.len));
		if (i == 3 && value.ptr)
			must(kn_scope_parse(value, &scopes, NULL) < 0 ||
			     !(scopes & ~(uint32_t)KN_SCOPE_ALL));
	}
}

static void read_authorization(struct kn_arena *a, struct kn_view text)
{
	struct kn_view scheme, rest, id, secret;

	if (authorization_split(text, &scheme, &rest) &&
	    basic_parse(a, rest, &id, &secret, NULL) == 0)
		must(!memchr(id.ptr, ':', id.len) && id.len + secret.len < rest.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_arena a;

	kn_arena_init(&a);
	read_form(&a, fuzz_view(data, size));
	read_authorization(&a, fuzz_view(data, size));
	kn_arena_fini(&a);
	return 0;
}
