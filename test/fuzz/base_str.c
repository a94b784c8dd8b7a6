/* Numbers, sizes, durations, times, hex and base64: nothing is read past the view; what decodes
 * encodes to the same again. */
#include "fuzz.h"

#include "base/time.h"

static void decode(struct kn_view v)
{
	kn_auto(kn_buf_fini) struct kn_buf plain = KN_BUF_INIT, again = KN_BUF_INIT;

	if (kn_unbase64url(v, &plain, NULL) == 0) {
		kn_base64url(&again, plain.ptr, plain.len);
		must(kn_view_is(kn_buf_view(&again), v));
	}
	kn_buf_clear(&plain);
	kn_buf_clear(&again);
	if (kn_unbase64(v, &plain, NULL) == 0) {
		kn_base64(&again, plain.ptr, plain.len);
		must(kn_view_is(kn_buf_view(&again), v));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "deploy", "describe", "list" };
	struct kn_view v = fuzz_view(data, size), rest = v, part;
	struct kn_err err = KN_ERR_INIT;
	uint64_t n;
	char bytes[8], text[KN_RFC3339_LEN];

	if (kn_parse_u64(v, 1000, &n, &err) == 0)
		must(n <= 1000);
	if (kn_parse_bytes(v, &n, &err) < 0)
		must(err.code == EINVAL || err.code == ERANGE);
	if (kn_parse_duration(v, &n, &err) < 0)
		must(err.code == EINVAL || err.code == ERANGE);
	if (kn_parse_millicores(v, &n, &err) < 0)
		must(err.code == EINVAL || err.code == ERANGE);
	if (kn_parse_rfc3339(v, &n, &err) == 0)
		kn_rfc3339(n, text);
	if (kn_unhex(v, bytes, sizeof(bytes), &err) == 0)
		must(size == 16);
	decode(v);
	size_t total = 0, parts = 0;
	for (; kn_view_split(&rest, ',', &part); parts++)
		total += part.len;
	must(!v.ptr || total + parts == size + 1);
	kn_closest(v, names, KN_ARRAY_LEN(names));
	must(kn_view_trim(v).len <= size);
	return 0;
}
