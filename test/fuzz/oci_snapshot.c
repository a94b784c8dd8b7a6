/* The manifest of a snapshot: what can be printed again reads the same. */
#include "fuzz.h"

#include "oci/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_snapshot_manifest m, again;
	struct kn_buf text = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	if (kn_snapshot_manifest_parse(fuzz_view(data, size), &m, &err) < 0) {
		must(err.code > 0 && err.text[0]);
		return 0;
	}
	kn_snapshot_manifest_print(&m, &text);
	if (!text.failed) {
		must(kn_snapshot_manifest_parse(kn_buf_view(&text), &again, &err) == 0);
		must(strcmp(m.memory.sha256, again.memory.sha256) == 0);
		must(m.n_facts == again.n_facts && m.state.bytes == again.state.bytes);
	}
	kn_buf_fini(&text);
	return 0;
}
