/*
 * Batches of frames: the vector parser says what the step-by-step one says, every classifier says
 * what plain words say, and operators stay inside frames. Input: per frame a byte of flags and
 * length high, a byte of length low, then its bytes; the first flag says that the capture cut it.
 */
#include "fuzz.h"

#include <string.h>

#include "packet/header.h"
#include "packet/offload.h"
#include "packet/operator.h"

static struct kn_rule rules[4];
static struct kn_acl *acl;

static int prepare(void)
{
	struct kn_match *m;

	for (size_t i = 0; i < KN_ARRAY_LEN(rules); i++)
		rules[i] = (struct kn_rule){ "rule", KN_MATCH_ANY, i % 2 ? KN_PASS : KN_DROP };
	m = &rules[0].match;
	must(kn_parse_prefix(KN_VIEW("2001:db8::/32"), &m->src, NULL) == 0);
	m->fragment = 0;
	m = &rules[1].match;
	must(kn_parse_prefix(KN_VIEW("10.0.0.0/8"), &m->dst, NULL) == 0);
	m->has_dst_port = true;
	m->dst_port = (struct kn_range){ 1, 1023 };
	m = &rules[2].match;
	m->has_icmp_type = true;
	m->icmp_type = (struct kn_range){ 8, 135 };
	m->vlan = KN_VLAN_UNTAGGED;
	rules[3].match.family = KN_META_OTHER;
	return kn_acl_new(rules, KN_ARRAY_LEN(rules), KN_DROP, &acl, NULL);
}

static uint32_t deciding(const struct kn_batch *b, uint32_t lane)
{
	uint32_t i = 0;

	while (i < KN_ARRAY_LEN(rules) && !kn_match_lane(&rules[i].match, b, lane))
		i++;
	return i;
}

static void check_parse(const struct kn_batch *b, uint32_t i)
{
	const struct kn_frame *f = b->frame[i];
	struct kn_parsed p;
	enum kn_reason why = kn_parse_frame(f->data, f->len, f->wire_len, NULL, &p);

	must((why == KN_REASON_NONE) == (b->live >> i & 1));
	if (why != KN_REASON_NONE)
		return;
	must(b->meta[i] == p.meta && b->src4[i] == p.src4 && b->dst4[i] == p.dst4);
	must(b->ports[i] == p.ports && b->l3[i] == p.l3 && b->l4[i] == p.l4);
	must(b->payload[i] == p.payload && b->payload_len[i] == p.payload_len);
	must((uint32_t)p.payload + p.payload_len <= f->len && p.l3 <= f->len && p.l4 <= f->len);
}

static void check_rules(struct kn_batch *b)
{
	static const char *const engines[] = { "portable", "avx2", "avx512" };

	for (size_t e = 0; e < KN_ARRAY_LEN(engines); e++) {
		if (kn_acl_use_engine(engines[e], NULL) < 0)
			continue;
		kn_lanes passes = kn_acl_passes(acl, b), expected = 0;
		kn_each_lane(i, b->live)
		{
			uint32_t rule = deciding(b, i);
			if (rule < KN_ARRAY_LEN(rules) && rules[rule].action == KN_PASS)
				expected |= kn_lane(i);
		}
		must(passes == expected);
	}
}

/* An unfinished checksum that is found can be finished, in the frame. */
static void finish_checksum(struct kn_frame *f)
{
	struct kn_offload o;

	if (kn_offload_find(f->data, f->len, &o))
		must(kn_offload_finish(f->data, f->len, &o));
}

/* The frames of an input, each on the heap by itself so that every byte behind it is forbidden. */
static uint32_t split(const uint8_t *data, size_t size, struct kn_frame frames[KN_BATCH])
{
	uint32_t n = 0;

	while (n < KN_BATCH && size >= 2) {
		size_t len = kn_min((size_t)(data[0] & 7) << 8 | data[1], size - 2);
		bool cut = data[0] & 0x80;
		uint8_t *copy = malloc(len ? len : 1);
		must(copy != NULL);
		memcpy(copy, data + 2, len);
		frames[n++] = (struct kn_frame){ .data = copy,
						 .len = (uint32_t)len,
						 .wire_len = (uint32_t)len + (cut ? 1000 : 0) };
		data += len + 2;
		size -= len + 2;
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct kn_batch b;
	struct kn_frame frames[KN_BATCH];
	uint64_t drops[KN_REASON_COUNT] = { 0 }, dropped = 0;

	if (!acl)
		must(prepare() == 0);
	memset(&b, 0, sizeof(b));
	b.drops = drops;
	b.n = split(data, size, frames);
	for (uint32_t i = 0; i < b.n; i++)
		b.frame[i] = &frames[i];
	b.live = kn_lanes_first(b.n);
	kn_parse_batch(&b, NULL);
	for (uint32_t i = 0; i < b.n; i++)
		check_parse(&b, i);
	check_rules(&b);
	kn_map_ttl(&b, NULL);
	kn_map_mac_swap(&b, NULL);
	for (size_t i = 0; i < KN_REASON_COUNT; i++)
		dropped += drops[i];
	must(dropped + kn_lanes_count(b.live) == b.n);
	for (uint32_t i = 0; i < b.n; i++) {
		finish_checksum(&frames[i]);
		free(frames[i].data);
	}
	return 0;
}
