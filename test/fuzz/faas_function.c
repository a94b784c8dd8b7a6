/* Deployments and stored forms: what is taken saves, loads and saves again to the same bytes. */
#include "fuzz.h"

#include "faas/function.h"

static void there_and_back(const struct kn_function *fn)
{
	kn_auto(kn_buf_fini) struct kn_buf first = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf second = KN_BUF_INIT;
	kn_auto(kn_function_unref) struct kn_function *again = NULL;
	const struct kn_function_live live = { .invocations = 1 };

	must(kn_function_save(fn, &first, NULL) == 0);
	must(kn_function_load(kn_buf_view(&first), &again, NULL) == 0);
	must(kn_function_save(again, &second, NULL) == 0);
	must(kn_view_is(kn_buf_view(&first), kn_buf_view(&second)));
	kn_auto(json_decref) json_t *status = kn_function_status(fn, &live, true);
	must(status != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	kn_auto(json_decref) json_t *o = NULL;
	kn_auto(kn_function_unref) struct kn_function *fn = NULL;
	kn_auto(kn_function_unref) struct kn_function *stored = NULL;
	struct kn_err err = KN_ERR_INIT;

	if (kn_function_load(fuzz_view(data, size), &stored, &err) < 0)
		must(!stored && err.text[0]);
	if (kn_json_parse(fuzz_view(data, size), &o, NULL) < 0)
		return 0;
	if (kn_function_parse(o, &fn, &err) < 0) {
		must(!fn && err.code && err.text[0]);
		return 0;
	}
	must(kn_function_name_ok(kn_view_of(fn->name)));
	there_and_back(fn);
	if (kn_function_resolve(fn, size & 1, &err) == 0)
		must(fn->memory_bytes && fn->concurrency && fn->vcpus && fn->scale_max);
	return 0;
}
