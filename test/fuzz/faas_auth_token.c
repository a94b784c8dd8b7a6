/*
 * Tokens from outside. No input can be a right signature by a key that was made a moment ago, so
 * nothing may ever count; the second half puts the input behind a right signature, where the
 * payload's parser meets it.
 */
#include "fuzz.h"

#include "faas/auth/private.h"

static struct jws_key key;

static void as_payload(const uint8_t *data, size_t size)
{
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;
	kn_auto(json_decref) json_t *claims = NULL;

	must(jws_sign(&key, fuzz_view(data, size), &token, NULL) == 0);
	enum kn_token_fault fault = jws_verify(&key, kn_buf_view(&token), &claims);
	must(fault == KN_TOKEN_GOOD ? json_is_object(claims) : claims == NULL);
	must(fault == KN_TOKEN_GOOD || fault == KN_TOKEN_MALFORMED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *claims = NULL;

	if (!key.pkey)
		must(jws_key_make(&key, NULL) == 0);
	must(jws_verify(&key, fuzz_view(data, size), &claims) != KN_TOKEN_GOOD && !claims);
	if (size < 512)
		as_payload(data, size);
	return 0;
}
