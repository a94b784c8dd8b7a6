#include "host/dns.h"

#include "test.h"

#define HEAD "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
#define A_IN "\x00\x01\x00\x01"

static int parse(const char *bytes, size_t len, struct kn_dns_query *q, struct kn_err *err)
{
	return kn_dns_parse((struct kn_view){ bytes, len }, q, err);
}

#define PARSE(literal, q, err) parse(literal, sizeof(literal) - 1, q, err)

static void a_question_is_read(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_dns_query q;

	(void)state;
	assert_ok(PARSE(HEAD "\x03Web\x07" "example\x00" A_IN "\x00\x00\x29\x10\x00", &q, &err), &err);
	assert_int_equal(q.code, KN_DNS_OK);
	assert_int_equal(q.id, 0x1234);
	assert_true(q.wants_recursion);
	assert_string_equal(q.name, "web.example");
	assert_int_equal(q.type, KN_DNS_A);
	assert_int_equal(q.class, KN_DNS_IN);
	assert_int_equal(q.n_question, 17);
}

static void what_is_no_host_name_has_no_name(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_dns_query q;

	(void)state;
	assert_ok(PARSE(HEAD "\x00" A_IN, &q, &err), &err);
	assert_string_equal(q.name, "");
	assert_ok(PARSE(HEAD "\x05" "a.b-c\x00" A_IN, &q, &err), &err);   /* a dot in a label */
	assert_int_equal(q.code, KN_DNS_OK);
	assert_string_equal(q.name, "");
	assert_ok(PARSE(HEAD "\x03" "a\0b\x00" A_IN, &q, &err), &err);
	assert_string_equal(q.name, "");
	assert_ok(PARSE(HEAD "\x02\xc3\xbc\x00" A_IN, &q, &err), &err);
	assert_string_equal(q.name, "");
}

static void what_is_no_question_is_told(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		enum kn_dns_code code;
	} cases[] = {
#define CASE(literal, code) { literal, sizeof(literal) - 1, code }
		CASE("\x12\x34\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00", KN_DNS_FORMAT),
		CASE("\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00" A_IN, KN_DNS_FORMAT),
		CASE("\x12\x34\x28\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00" A_IN, KN_DNS_NOT_DONE),
		CASE(HEAD, KN_DNS_FORMAT),
		CASE(HEAD "\x03web", KN_DNS_FORMAT),
		CASE(HEAD "\x3fweb\x00" A_IN, KN_DNS_FORMAT),
		CASE(HEAD "\xc0\x0c" A_IN, KN_DNS_FORMAT),
		CASE(HEAD "\x40" A_IN, KN_DNS_FORMAT),
		CASE(HEAD "\x03web\x00\x00\x01\x00", KN_DNS_FORMAT),
#undef CASE
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_dns_query q;
		assert_ok(parse(cases[i].bytes, cases[i].len, &q, &err), &err);
		assert_int_equal(q.code, cases[i].code);
		assert_string_equal(q.name, "");
	}
}

static void what_deserves_no_answer_gets_none(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_dns_query q;

	(void)state;
	assert_fails(PARSE("", &q, &err), EBADMSG, &err, "shorter");
	assert_fails(PARSE("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00", &q, &err), EBADMSG, &err,
	             "shorter");
	assert_fails(PARSE("\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00", &q, &err), EBADMSG, &err,
	             "an answer");
}

static void the_longest_name_fits(void **state)
{
	char bytes[12 + 255 + 4];
	struct kn_err err = KN_ERR_INIT;
	struct kn_dns_query q;
	unsigned char out[KN_DNS_BYTES];
	uint32_t addresses[20] = { 0 };

	(void)state;
	memcpy(bytes, HEAD, 12);
	memset(bytes + 12, 'a', sizeof(bytes) - 12);
	for (size_t at = 12; at < 12 + 254; at += 64)
		bytes[at] = at + 64 < 12 + 254 ? 63 : 61;
	bytes[12 + 254] = '\0';
	memcpy(bytes + 12 + 255, A_IN, 4);
	assert_ok(parse(bytes, sizeof(bytes), &q, &err), &err);
	assert_int_equal(q.code, KN_DNS_OK);
	assert_int_equal(strlen(q.name), 253);
	assert_int_equal(kn_dns_answer(&q, KN_DNS_OK, addresses, 20, 60, out),
	                 sizeof(bytes) + KN_DNS_MAX_ADDRESSES * 16);
	bytes[12 + 192] = 62;   /* one more byte than a name may have */
	assert_ok(parse(bytes, sizeof(bytes), &q, &err), &err);
	assert_int_equal(q.code, KN_DNS_FORMAT);
}

static void an_answer_is_written(void **state)
{
	static const unsigned char expected[] = HEAD "\x03web\x00" A_IN
		"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"
		"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x02";
	static const uint32_t addresses[] = { 0xc0000201, 0xc0000202 };
	struct kn_err err = KN_ERR_INIT;
	struct kn_dns_query q;
	unsigned char out[KN_DNS_BYTES];

	(void)state;
	assert_ok(PARSE(HEAD "\x03web\x00" A_IN, &q, &err), &err);
	size_t n = kn_dns_answer(&q, KN_DNS_OK, addresses, 2, 60, out);
	assert_int_equal(n, sizeof(expected) - 1);
	assert_int_equal(out[2], 0x81);   /* an answer, to a question that wanted recursion */
	assert_int_equal(out[3], 0x80);
	assert_int_equal(out[7], 2);
	assert_memory_equal(out + 12, expected + 12, n - 12);
	n = kn_dns_answer(&q, KN_DNS_NO_NAME, NULL, 0, 0, out);
	assert_int_equal(n, 12 + 9);
	assert_int_equal(out[3], 0x83);
	assert_int_equal(out[7], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_question_is_read),
		cmocka_unit_test(what_is_no_host_name_has_no_name),
		cmocka_unit_test(what_is_no_question_is_told),
		cmocka_unit_test(what_deserves_no_answer_gets_none),
		cmocka_unit_test(the_longest_name_fits),
		cmocka_unit_test(an_answer_is_written),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
