/* YAML from users: whatever parses is a value that JSON can carry. */
#include "fuzz.h"

#include "base/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	kn_auto(json_decref) json_t *value = NULL, *again = NULL;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	if (kn_yaml_parse(fuzz_view(data, size), "fuzz.yaml", &value, &err) < 0) {
		must(!value && err.code && err.text[0]);
		return 0;
	}
	kn_json_print(&text, value, 0);
	must(!text.failed);
	must(kn_json_parse(kn_buf_view(&text), &again, &err) == 0);
	return 0;
}
