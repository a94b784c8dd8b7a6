#include "packet/fixture.h"

#include "packet/parse.h"

#define V4	   KN_META_IPV4
#define V6	   KN_META_IPV6
#define PORTS	   KN_META_PORTS
#define FRAG	   KN_META_FRAGMENT
#define OPTS	   KN_META_OPTIONS
#define TAG(id)	   ((uint32_t)KN_META_TAGGED | (uint32_t)(id) << KN_META_VLAN_SHIFT)
#define PAIR(a, b) ((uint32_t)(a) << 16 | (b))
#define DNS	   PAIR(5000, 53)
#define WEB	   PAIR(49152, 443)

struct good {
	const char *what, *bytes;
	uint32_t meta, ports;
	uint16_t l3, l4, payload, payload_len;
	uint16_t padding; /* bytes at the end that no header promises */
};

static const struct good goods[] = {
	{ "UDP", ETH4 IP4("0020", "11") UDP("000c") "deadbeef", V4 | PORTS | 17, DNS, 14, 34, 42,
	  4 },
	{ "UDP, long enough for the plain parser",
	  ETH4 IP4("0030", "11") UDP("001c") "00112233445566778899 aabbccddeeff 00112233",
	  V4 | PORTS | 17, DNS, 14, 34, 42, 20 },
	{ "UDP with bytes of the IP packet behind it",
	  ETH4 IP4("0020", "11") UDP("0008") "deadbeef", V4 | PORTS | 17, DNS, 14, 34, 42, 4 },
	{ "UDP padded to 60 bytes",
	  ETH4 IP4("001d", "11") UDP("0009") "aa 0000000000000000 000000000000000000",
	  V4 | PORTS | 17, DNS, 14, 34, 42, 1, .padding = 17 },
	{ "TCP", ETH4 IP4("002a", "06") TCP "aabb", V4 | PORTS | 6, WEB, 14, 34, 54, 2 },
	{ "TCP with options",
	  ETH4 IP4("002d", "06") "c000 01bb 00000001 00000002 60 18 ffff 0000 0000 02040550 aa",
	  V4 | PORTS | 6, WEB, 14, 34, 58, 1 },
	{ "TCP that ends with its header", ETH4 IP4("0028", "06") TCP, V4 | PORTS | 6, WEB, 14, 34,
	  54, 0 },
	{ "ICMP echo", ETH4 IP4("001c", "01") ECHO, V4 | KN_META_ICMP | 1, PAIR(8, 0), 14, 34, 38,
	  4 },
	{ "IPv4 with options",
	  ETH4 "46 00 0024 0001 0000 40 11 0000 " FROM4 TO4 "94040000 " UDP("000c") "deadbeef",
	  V4 | PORTS | OPTS | 17, DNS, 14, 38, 46, 4 },
	{ "a first fragment",
	  ETH4 IP4_FRAGMENT("0024", "11", "2000") UDP("0100") "0011223344556677",
	  V4 | PORTS | FRAG | 17, DNS, 14, 34, 42, 8 },
	{ "a later fragment", ETH4 IP4_FRAGMENT("001c", "11", "0002") "1388003500080000",
	  V4 | FRAG | 17, 0, 14, 0, 0, 0 },
	{ "a protocol that nobody knows", ETH4 IP4("0018", "fd") "deadbeef", V4 | 0xfd, 0, 14, 0, 0,
	  0 },
	{ "don't-fragment is no fragment",
	  ETH4 IP4_FRAGMENT("0030", "11", "4000")
		  UDP("001c") "00112233445566778899 aabbccddeeff 00112233",
	  V4 | PORTS | 17, DNS, 14, 34, 42, 20 },
	{ "one VLAN tag", MACS "8100 602a 0800 " IP4("0020", "11") UDP("000c") "deadbeef",
	  V4 | PORTS | TAG(42) | 17, DNS, 18, 38, 46, 4 },
	{ "QinQ: the outer tag counts",
	  MACS "88a8 0007 8100 002a 86dd " IP6("000c", "11") UDP("000c") "deadbeef",
	  V6 | PORTS | TAG(7) | KN_META_QINQ | 17, DNS, 22, 62, 70, 4 },
	{ "IPv6 UDP", ETH6 IP6("000c", "11") UDP("000c") "deadbeef", V6 | PORTS | 17, DNS, 14, 54,
	  62, 4 },
	{ "IPv6 TCP", ETH6 IP6("0016", "06") TCP "aabb", V6 | PORTS | 6, WEB, 14, 54, 74, 2 },
	{ "ICMPv6 echo", ETH6 IP6("0008", "3a") "80 00 0000 0001 0002", V6 | KN_META_ICMP | 58,
	  PAIR(128, 0), 14, 54, 58, 4 },
	{ "IPv6 with hop-by-hop, routing and destination options",
	  ETH6 IP6("0020", "00") "2b 00 010400000000 "
				 "3c 00 000000000000 "
				 "11 00 010400000000 " UDP("0008"),
	  V6 | PORTS | OPTS | 17, DNS, 14, 78, 86, 0 },
	{ "IPv6 with an authentication header of 24 bytes",
	  ETH6 IP6("0020",
		   "33") "11 04 0000 00000001 00000001 000000000000000000000000 " UDP("0008"),
	  V6 | PORTS | OPTS | 17, DNS, 14, 78, 86, 0 },
	{ "a first IPv6 fragment",
	  ETH6 IP6("0018", "2c") "11 00 0001 00000007 " UDP("0100") "0011223344556677",
	  V6 | PORTS | FRAG | OPTS | 17, DNS, 14, 62, 70, 8 },
	{ "a first IPv6 fragment with options behind the fragment header",
	  ETH6 IP6("0020", "2c") "3c 00 0001 00000007 "
				 "11 00 010400000000 " UDP("0100") "0011223344556677",
	  V6 | PORTS | FRAG | OPTS | 17, DNS, 14, 70, 78, 8 },
	{ "a later IPv6 fragment", ETH6 IP6("0010", "2c") "11 00 0010 00000007 0011223344556677",
	  V6 | FRAG | OPTS | 17, 0, 14, 0, 0, 0 },
	{ "an atomic IPv6 fragment is complete",
	  ETH6 IP6("0010", "2c") "11 00 0000 00000007 " UDP("0008"), V6 | PORTS | FRAG | OPTS | 17,
	  DNS, 14, 62, 70, 0 },
	{ "IPv6 with nothing in it", ETH6 IP6("0000", "3b"), V6 | 59, 0, 14, 0, 0, 0 },
	{ "IPv6 ESP stays closed", ETH6 IP6("0008", "32") "0000000100000001", V6 | 50, 0, 14, 0, 0,
	  0 },
	{ "ARP", MACS "0806 0001 0800 06 04 0001 020000000002 0a000001 000000000000 0a000102",
	  KN_META_ARP, 0, 14, 0, 0, 0 },
	{ "LLDP is other", MACS "88cc 0207", KN_META_OTHER, 0, 14, 0, 0, 0, .padding = 2 },
	{ "an 802.3 length is other", MACS "0003 424203", KN_META_OTHER, 0, 14, 0, 0, 0,
	  .padding = 3 },
};

struct bad {
	const char *what, *bytes;
	enum kn_reason why;
};

static const struct bad bads[] = {
	{ "nothing", "", KN_DROP_ETH_SHORT },
	{ "half an Ethernet header", "020000000001 02", KN_DROP_ETH_SHORT },
	{ "half a tag", MACS "8100 60", KN_DROP_VLAN_SHORT },
	{ "three tags", MACS "88a8 0001 8100 0002 8100 0003 0800 " IP4("0014", "fd"),
	  KN_DROP_VLAN_DEEP },
	{ "half an ARP packet", MACS "0806 0001 0800 06 04 0001", KN_DROP_ARP_SHORT },
	{ "half an IPv4 header", ETH4 "4500 0020 0001", KN_DROP_IPV4_SHORT },
	{ "IPv4 that is version 5", ETH4 "55 00 0014 0001 0000 40 fd 0000 " FROM4 TO4,
	  KN_DROP_IPV4_VERSION },
	{ "an IPv4 header of 16 bytes", ETH4 "44 00 0014 0001 0000 40 fd 0000 " FROM4 TO4,
	  KN_DROP_IPV4_IHL },
	{ "an IPv4 header longer than its packet",
	  ETH4 "4f 00 0014 0001 0000 40 fd 0000 " FROM4 TO4, KN_DROP_IPV4_IHL },
	{ "a total length past the frame", ETH4 IP4("0021", "11") UDP("000c") "deadbeef",
	  KN_DROP_IPV4_LENGTH },
	{ "a total length of 0", ETH4 IP4("0000", "11") UDP("0008"), KN_DROP_IPV4_IHL },
	{ "options past the frame", ETH4 "4f 00 003c 0001 0000 40 fd 0000 " FROM4 TO4,
	  KN_DROP_IPV4_LENGTH },
	{ "half a UDP header", ETH4 IP4("0018", "11") "1388 0035", KN_DROP_UDP_SHORT },
	{ "half a UDP header, rest is padding", ETH4 IP4("0018", "11") UDP("0008"),
	  KN_DROP_UDP_SHORT },
	{ "a UDP length of 7", ETH4 IP4("0020", "11") UDP("0007") "deadbeef", KN_DROP_UDP_LENGTH },
	{ "a UDP length past the packet", ETH4 IP4("0020", "11") UDP("000d") "deadbeef",
	  KN_DROP_UDP_LENGTH },
	{ "half a TCP header", ETH4 IP4("001c", "06") "c000 01bb 00000001", KN_DROP_TCP_SHORT },
	{ "a TCP offset of 4",
	  ETH4 IP4("0028", "06") "c000 01bb 00000001 00000002 40 18 ffff 0000 0000",
	  KN_DROP_TCP_OFFSET },
	{ "a TCP offset past the segment",
	  ETH4 IP4("0028", "06") "c000 01bb 00000001 00000002 60 18 ffff 0000 0000",
	  KN_DROP_TCP_OFFSET },
	{ "a first fragment that splits the TCP options",
	  ETH4 IP4_FRAGMENT("0028", "06",
			    "2000") "c000 01bb 00000001 00000002 60 02 ffff 0000 0000",
	  KN_DROP_TINY_FRAGMENT },
	{ "a fragment at offset 8 of TCP",
	  ETH4 IP4_FRAGMENT("001c", "06", "0001") "5002ffff00000000", KN_DROP_TINY_FRAGMENT },
	{ "a fragment past 65535 bytes", ETH4 IP4_FRAGMENT("001c", "11", "1fff") "0011223344556677",
	  KN_DROP_FRAGMENT_LENGTH },
	{ "half an ICMP header", ETH4 IP4("0016", "01") "0800", KN_DROP_ICMP_SHORT },
	{ "half an IPv6 header", ETH6 "6000 0000 0000 3b 40 20010db8", KN_DROP_IPV6_SHORT },
	{ "IPv6 that is version 4", ETH6 "4000 0000 0000 3b 40 " FROM6 TO6, KN_DROP_IPV6_VERSION },
	{ "a payload length past the frame", ETH6 IP6("0009", "11") UDP("0008"),
	  KN_DROP_IPV6_LENGTH },
	{ "half an extension header", ETH6 IP6("0004", "3c") "11 00 0104", KN_DROP_IPV6_EXT_SHORT },
	{ "an extension header that claims 2048 bytes",
	  ETH6 IP6("0010", "3c") "11 ff 010400000000 " UDP("0008"), KN_DROP_IPV6_EXT_SHORT },
	{ "half a fragment header", ETH6 IP6("0004", "2c") "11 00 0001", KN_DROP_IPV6_EXT_SHORT },
	{ "hop-by-hop options in the second place",
	  ETH6 IP6("0018", "3c") "00 00 010400000000 "
				 "11 00 010400000000 " UDP("0008"),
	  KN_DROP_IPV6_EXT_ORDER },
	{ "nine extension headers",
	  ETH6 IP6(
		  "0050",
		  "3c") "3c 00 010400000000 3c 00 010400000000 3c 00 010400000000 "
			"3c 00 010400000000 3c 00 010400000000 3c 00 010400000000 3c 00 010400000000 "
			"3c 00 010400000000 11 00 010400000000 " UDP("0008"),
	  KN_DROP_IPV6_EXT_MANY },
	{ "an IPv6 fragment at offset 8 of TCP",
	  ETH6 IP6("0010", "2c") "06 00 0008 00000007 5002ffff00000000", KN_DROP_TINY_FRAGMENT },
	{ "an IPv6 fragment past 65535 bytes",
	  ETH6 IP6("0010", "2c") "11 00 fff8 00000007 0011223344556677", KN_DROP_FRAGMENT_LENGTH },
	{ "half an IPv6 UDP header", ETH6 IP6("0004", "11") "1388 0035", KN_DROP_UDP_SHORT },
};

static void good_frames_give_their_fields(void **state)
{
	uint8_t bytes[FIXTURE_MAX];

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(goods); i++) {
		const struct good *g = &goods[i];
		size_t n = bytes_of(g->bytes, bytes);
		struct kn_frame f = heap_frame(bytes, n);
		struct kn_parsed p;

		enum kn_reason why = kn_parse_frame(f.data, f.len, f.wire_len, NULL, &p);
		if (why != KN_REASON_NONE)
			fail_msg("%s: refused as %s", g->what, kn_reason_name(why));
		if (p.meta != g->meta || p.ports != g->ports)
			fail_msg("%s: meta %08x ports %08x", g->what, p.meta, p.ports);
		if (p.l3 != g->l3 || p.l4 != g->l4 || p.payload != g->payload ||
		    p.payload_len != g->payload_len)
			fail_msg("%s: at %u %u %u, %u bytes", g->what, p.l3, p.l4, p.payload,
				 p.payload_len);
		bool v4 = p.meta & V4;
		assert_int_equal(p.src4, v4 ? 0x0100000a : 0);
		assert_int_equal(p.dst4, v4 ? 0x0201000a : 0);
		free(f.data);
	}
}

static void bad_frames_are_refused_for_the_right_reason(void **state)
{
	uint8_t bytes[FIXTURE_MAX];

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(bads); i++) {
		size_t n = bytes_of(bads[i].bytes, bytes);
		struct kn_frame f = heap_frame(bytes, n);
		struct kn_parsed p;

		enum kn_reason why = kn_parse_frame(f.data, f.len, f.wire_len, NULL, &p);
		if (why != bads[i].why)
			fail_msg("%s: %s, expected %s", bads[i].what, kn_reason_name(why),
				 kn_reason_name(bads[i].why));
		free(f.data);
	}
}

/* What the sender cut is always refused; of what the capture cut, what is there is understood. */
static void frames_cut_at_every_byte(void **state)
{
	uint8_t bytes[FIXTURE_MAX];

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(goods); i++) {
		size_t n = bytes_of(goods[i].bytes, bytes);
		for (size_t len = 0; len < n; len++) {
			struct kn_frame f = heap_frame(bytes, len);
			struct kn_parsed p = { .meta = 0 };

			enum kn_reason why = kn_parse_frame(f.data, f.len, f.wire_len, NULL, &p);
			assert_int_equal(why == KN_REASON_NONE, len + goods[i].padding >= n);
			assert_int_not_equal(why, KN_DROP_CAPTURE_CUT);

			why = kn_parse_frame(f.data, f.len, (uint32_t)n, NULL, &p);
			if (why != KN_DROP_CAPTURE_CUT) {
				assert_int_equal(why, KN_REASON_NONE);
				assert_int_equal(p.meta, goods[i].meta);
				assert_true((size_t)p.payload + p.payload_len <= len);
			}
			free(f.data);
		}
	}
}

static void the_ipv4_checksum_is_checked_when_asked(void **state)
{
	const struct kn_parse_options verify = { .verify_ipv4_checksum = true };
	/* 4500+001c+0001+40fd+0a00+0001+0a00+0102 = 9b1d; its complement is 64e2 */
	const char *right = ETH4 "4500 001c 0001 0000 40 fd 64e2 " FROM4 TO4 "deadbeefdeadbeef";
	uint8_t bytes[FIXTURE_MAX];
	struct kn_parsed p;

	(void)state;
	uint32_t n = (uint32_t)bytes_of(right, bytes);
	assert_int_equal(kn_parse_frame(bytes, n, n, &verify, &p), KN_REASON_NONE);
	bytes[24] ^= 1;
	assert_int_equal(kn_parse_frame(bytes, n, n, &verify, &p), KN_DROP_IPV4_CHECKSUM);
	assert_int_equal(kn_parse_frame(bytes, n, n, NULL, &p), KN_REASON_NONE);
}

/* The batch form must say what the single form says, for each of n frames. */
static void check_batch(struct kn_frame *frames, uint32_t n)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT], expected[KN_REASON_COUNT] = { 0 };

	batch_init(&b, drops);
	for (uint32_t i = 0; i < n; i++)
		b.frame[i] = &frames[i];
	b.n = n;
	b.live = kn_lanes_first(n);
	kn_parse_batch(&b, NULL);
	for (uint32_t i = 0; i < n; i++) {
		const struct kn_frame *f = &frames[i];
		struct kn_parsed p;
		enum kn_reason why = kn_parse_frame(f->data, f->len, f->wire_len, NULL, &p);

		assert_int_equal(b.live >> i & 1, why == KN_REASON_NONE);
		if (why != KN_REASON_NONE) {
			expected[why]++;
			continue;
		}
		assert_int_equal(b.meta[i], p.meta);
		assert_int_equal(b.src4[i], p.src4);
		assert_int_equal(b.dst4[i], p.dst4);
		assert_int_equal(b.ports[i], p.ports);
		assert_int_equal(b.l3[i], p.l3);
		assert_int_equal(b.l4[i], p.l4);
		assert_int_equal(b.payload[i], p.payload);
		assert_int_equal(b.payload_len[i], p.payload_len);
		assert_int_equal((b.live & b.ipv4) >> i & 1, (p.meta & V4) != 0);
		assert_int_equal((b.live & b.ipv6) >> i & 1, (p.meta & V6) != 0);
	}
	assert_memory_equal(drops, expected, sizeof(expected));
}

/* Frames of all kinds, some with a few bytes changed, some cut by sender or capture. */
static struct kn_frame any_frame(void)
{
	uint8_t bytes[FIXTURE_MAX];
	size_t n_goods = KN_ARRAY_LEN(goods),
	       pick = (size_t)rand() % (n_goods + KN_ARRAY_LEN(bads));
	size_t n = bytes_of(pick < n_goods ? goods[pick].bytes : bads[pick - n_goods].bytes, bytes);

	for (int changes = rand() % 4; n && changes > 0; changes--)
		bytes[(size_t)rand() % n] = (uint8_t)rand();
	/* Some with bytes behind them: only then is a small datagram plain. */
	for (int more = rand() % 2 ? rand() % 40 : 0; more > 0; more--)
		bytes[n++] = (uint8_t)rand();
	size_t cut = rand() % 4 == 0 && n ? (size_t)rand() % n : 0;
	struct kn_frame f = heap_frame(bytes, n - cut);
	f.wire_len += (uint32_t)(rand() % 2 ? cut : 0);
	return f;
}

static void batches_say_what_single_frames_say(void **state)
{
	(void)state;
	srand(791);
	for (int vectors = 1; vectors >= 0; vectors--) {
		kn_parse_use_vectors(vectors);
		for (int round = 0; round < 3000; round++) {
			struct kn_frame frames[KN_BATCH];
			uint32_t n = (uint32_t)rand() % (KN_BATCH + 1);
			for (uint32_t i = 0; i < n; i++)
				frames[i] = any_frame();
			check_batch(frames, n);
			for (uint32_t i = 0; i < n; i++)
				free(frames[i].data);
		}
	}
	kn_parse_use_vectors(true);
}

static void lanes_dropped_before_stay_dropped(void **state)
{
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	uint8_t bytes[FIXTURE_MAX];
	size_t n = bytes_of(goods[1].bytes, bytes);
	struct kn_frame f = { .data = bytes, .len = (uint32_t)n, .wire_len = (uint32_t)n };

	(void)state;
	batch_init(&b, drops);
	for (b.n = 0; b.n < 11; b.n++)
		b.frame[b.n] = &f;
	b.live = 0x505;
	kn_parse_batch(&b, NULL);
	assert_int_equal(b.live, 0x505);
	assert_int_equal(b.ipv4, 0x505);
	assert_int_equal(b.ports[10], DNS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_frames_give_their_fields),
		cmocka_unit_test(bad_frames_are_refused_for_the_right_reason),
		cmocka_unit_test(frames_cut_at_every_byte),
		cmocka_unit_test(the_ipv4_checksum_is_checked_when_asked),
		cmocka_unit_test(batches_say_what_single_frames_say),
		cmocka_unit_test(lanes_dropped_before_stay_dropped),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
