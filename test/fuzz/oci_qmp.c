/* What a QEMU can say on its control socket, line by line. */
#include "fuzz.h"

#include "oci/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_view rest = fuzz_view(data, size), line;
	struct kn_qmp_line l;

	while (kn_view_split(&rest, '\n', &line)) {
		struct kn_err err = KN_ERR_INIT;
		int r = kn_qmp_parse(line, &l, &err);
		if (r < 0) {
			must(r == -EBADMSG || r == -ENOMEM);
			must(err.code == -r);
			continue;
		}
		must(l.kind != KN_QMP_RETURN || l.reply);
		must((l.kind != KN_QMP_ERROR && l.kind != KN_QMP_EVENT) || l.text);
		json_decref(l.value);
	}
	return 0;
}
