/* JSON from outside: what parses prints, and parses again to the same value. */
#include "fuzz.h"

#include "base/json.h"

static void read_fields(const json_t *value)
{
	static const char *const names[] = { "image", "env" };
	const char *s;
	bool b;
	uint64_t n;
	json_t *j;

	if (kn_json_str(value, "image", &s, NULL) < 0 || kn_json_bool(value, "b", &b, NULL) < 0 ||
	    kn_json_u64(value, "n", 100, &n, NULL) < 0 || kn_json_obj(value, "o", &j, NULL) < 0 ||
	    kn_json_arr(value, "a", &j, NULL) < 0)
		return;
	must(kn_json_known(value, names, 2, NULL) <= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	kn_auto(json_decref) json_t *value = NULL, *again = NULL;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	if (kn_json_parse(fuzz_view(data, size), &value, &err) < 0) {
		must(!value && err.code && err.text[0]);
		return 0;
	}
	read_fields(value);
	kn_json_print(&text, value, 0);
	must(!text.failed);
	must(kn_json_parse(kn_buf_view(&text), &again, &err) == 0);
	must(json_equal(value, again));
	return 0;
}
