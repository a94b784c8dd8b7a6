/* Control messages between host and agent: decoded, encoded and decoded again they say the same. */
#include "fuzz.h"

#include "oci/agent_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_view in = { (const char *)data, size };
	struct kn_buf b = KN_BUF_INIT;
	struct kn_agent_message m, again;
	struct kn_arena a;

	kn_arena_init(&a);
	if (kn_agent_decode(in, &a, &m, NULL) == 0) {
		must(a.total <= 64 * 1024 + 32 * KN_AGENT_MAX_LIST * 2);
		kn_agent_encode(&m, &b);
		must(!b.failed);
		must(kn_agent_decode(kn_buf_view(&b), &a, &again, NULL) == 0);
		must(again.type == m.type && again.n_argv == m.n_argv && again.n_env == m.n_env);
		must(kn_view_is(again.text, m.text) && again.status == m.status);
	}
	kn_buf_fini(&b);
	kn_arena_fini(&a);
	return 0;
}
