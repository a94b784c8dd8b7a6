/* stack.yaml from its text to deployments. */
#include "fuzz.h"

#include "base/conf.h"
#include "faas/function.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	kn_auto(json_decref) json_t *o = NULL;
	struct kn_err err = KN_ERR_INIT;
	struct kn_stack s = { .n = 0 };

	if (kn_yaml_parse(fuzz_view(data, size), "stack.yaml", &o, NULL) < 0)
		return 0;
	if (kn_stack_parse(o, &s, &err) < 0) {
		must(s.n == 0 && err.code && err.text[0]);
		return 0;
	}
	must(s.n > 0);
	for (size_t i = 0; i < s.n; i++)
		must(kn_function_name_ok(kn_view_of(s.at[i]->name)));
	kn_stack_fini(&s);
	return 0;
}
