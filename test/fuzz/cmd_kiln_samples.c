/* A page of metrics: whatever it says, what is read lies inside it. */
#include "fuzz.h"

#include "cmd/kiln/samples.h"

static void on_sample(const struct kn_sample *s, void *arg)
{
	struct kn_view page = *(struct kn_view *)arg;
	struct kn_view value = kn_sample_label(s, "le");

	must(s->name.ptr >= page.ptr && s->name.ptr + s->name.len <= page.ptr + page.len);
	must(!value.ptr ||
	     (value.ptr >= page.ptr && value.ptr + value.len <= page.ptr + page.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_view page = fuzz_view(data, size);

	kn_samples_each(page, on_sample, &page);
	return 0;
}
