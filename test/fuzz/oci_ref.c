/* Image references and digests: what parses prints, and parses again to the same. */
#include "fuzz.h"

#include "oci/ref.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_view text = fuzz_view(data, size);
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest digest;
	struct kn_ref ref, again;
	char printed[KN_REF_MAX], twice[KN_REF_MAX];

	if (kn_digest_parse(text, &digest, NULL) == 0)
		must(strlen(digest.text) == size && memcmp(digest.text, data, size) == 0);
	if (kn_ref_parse(text, &ref, &err) < 0) {
		must(err.code && err.text[0]);
		return 0;
	}
	must(ref.name[0] && (ref.tag[0] || ref.digest.text[0]));
	must(!strstr(ref.name, "..") && ref.name[0] != '/');
	kn_ref_text(&ref, printed);
	must(kn_ref_parse(kn_view_of(printed), &again, &err) == 0);
	kn_ref_text(&again, twice);
	must(strcmp(printed, twice) == 0);
	return 0;
}
