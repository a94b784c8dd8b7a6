/* DNS queries of a guest: what is read can be answered, within its bounds. */
#include "fuzz.h"

#include "host/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t addresses[KN_DNS_MAX_ADDRESSES + 1] = { 0xc0000201 };
	struct kn_dns_query q, again;
	struct kn_err err = KN_ERR_INIT;
	unsigned char out[KN_DNS_BYTES];

	if (kn_dns_parse(fuzz_view(data, size), &q, &err) < 0) {
		must(err.code == EBADMSG && err.text[0]);
		return 0;
	}
	must(strlen(q.name) < KN_DNS_NAME && q.n_question <= sizeof(q.question));
	must(q.code == KN_DNS_OK || (!q.name[0] && q.n_question == 0));
	size_t n = kn_dns_answer(&q, q.code, addresses, KN_ARRAY_LEN(addresses), 60, out);
	must(n >= 12 && n <= sizeof(out));
	must(kn_dns_parse(fuzz_view(out, n), &again, NULL) == -EBADMSG);   /* an answer is no query */
	if (q.code != KN_DNS_OK)
		return 0;
	out[2] &= 0x01;   /* made a query, it asks the same */
	must(kn_dns_parse(fuzz_view(out, n), &again, NULL) == 0);
	must(strcmp(q.name, again.name) == 0 && q.type == again.type && q.class == again.class);
	return 0;
}
