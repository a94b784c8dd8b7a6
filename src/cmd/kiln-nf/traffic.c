#include "cmd/kiln-nf/traffic.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The rules that byhand.c has as code. An empty prefix is any. */
static const struct row {
	const char *name, *src, *dst;
	uint8_t proto; /* 0: any */
	uint16_t low, high;
	enum kn_action action;
} table[KN_BENCH_RULES] = {
	{ "private", "192.168.0.0/16", "", 0, 0, 65535, KN_DROP },
	{ "lab", "172.16.5.0/24", "10.9.0.0/16", 0, 0, 65535, KN_DROP },
	{ "ssh", "", "10.1.2.3/32", 6, 22, 22, KN_DROP },
	{ "netbios", "", "", 0, 135, 139, KN_DROP },
	{ "memcached", "", "", 17, 11211, 11211, KN_DROP },
	{ "ssdp", "100.64.0.0/10", "", 17, 1900, 1900, KN_DROP },
	{ "multicast", "", "224.0.0.0/4", 0, 0, 65535, KN_DROP },
	{ "inside", "10.0.0.0/8", "10.0.0.0/8", 0, 1, 65535, KN_PASS },
};

uint64_t kn_bench_random(struct kn_bench_traffic *t)
{
	t->state ^= t->state >> 12;
	t->state ^= t->state << 25;
	t->state ^= t->state >> 27;
	return t->state * UINT64_C(0x2545f4914f6cdd1d);
}

static uint32_t below(struct kn_bench_traffic *t, uint32_t n)
{
	return (uint32_t)((kn_bench_random(t) >> 32) * n >> 32);
}

/* "10.0.0.0/8": its address, and a mask of the bits behind the prefix. */
static uint32_t split(const char *prefix, uint32_t *ret_behind)
{
	struct in_addr base = { .s_addr = 0 };
	char text[32];

	memcpy(text, prefix, strlen(prefix) + 1);
	char *slash = strchr(text, '/');
	assert(slash); /* the prefixes are those of this file */
	*slash = 0;
	inet_pton(AF_INET, text, &base);
	unsigned long bits = strtoul(slash + 1, NULL, 10);
	*ret_behind = bits < 32 ? UINT32_MAX >> bits : 0;
	return ntohl(base.s_addr);
}

static uint32_t inside(struct kn_bench_traffic *t, const char *prefix)
{
	uint32_t behind, base = split(prefix, &behind);

	return base | ((uint32_t)kn_bench_random(t) & behind);
}

static bool is_inside(uint32_t address, const char *prefix)
{
	uint32_t behind;

	if (!*prefix)
		return true;
	uint32_t base = split(prefix, &behind);
	return (address & ~behind) == base;
}

static uint32_t deciding_rule(const struct kn_bench_frame *f)
{
	uint32_t i = 0;

	for (; i < KN_BENCH_RULES; i++) {
		const struct row *r = &table[i];
		if (is_inside(f->src, r->src) && is_inside(f->dst, r->dst) &&
		    (!r->proto || r->proto == f->proto) && f->dst_port >= r->low &&
		    f->dst_port <= r->high)
			break;
	}
	return i;
}

/* Most frames go from 10/8 to 10/8; the others are made for one of the rules, or for none. */
static void draw_one(struct kn_bench_traffic *t, struct kn_bench_frame *f, bool ordinary)
{
	*f = (struct kn_bench_frame){
		.src = inside(t, "10.0.0.0/8"),
		.dst = inside(t, "10.0.0.0/8"),
		.src_port = (uint16_t)(1024 + below(t, 60000)),
		.dst_port = (uint16_t)(3000 + below(t, 5000)),
		.proto = below(t, 2) ? 6 : 17,
		.len = (uint16_t)(64 + below(t, 1451)),
		.tag = kn_bench_random(t),
	};
	uint32_t pick = below(t, KN_BENCH_RULES);
	if (ordinary)
		return;
	if (pick == KN_BENCH_RULES - 1) {
		f->src = inside(t, "8.0.0.0/8");
		return;
	}
	const struct row *r = &table[pick];
	if (*r->src)
		f->src = inside(t, r->src);
	if (*r->dst)
		f->dst = inside(t, r->dst);
	if (r->proto)
		f->proto = r->proto;
	if (r->high != 65535)
		f->dst_port = (uint16_t)(r->low + below(t, (uint32_t)(r->high - r->low) + 1));
}

void kn_bench_draw(struct kn_bench_traffic *t, uint64_t seed, unsigned pass_percent)
{
	t->state = seed | 1;
	t->passing = 0;
	memset(t->by_rule, 0, sizeof(t->by_rule));
	for (size_t i = 0; i < KN_BENCH_FRAMES; i++) {
		struct kn_bench_frame *f = &t->want[i];
		draw_one(t, f, below(t, 100) < pass_percent);
		f->rule = deciding_rule(f);
		f->passes = f->rule < KN_BENCH_RULES && table[f->rule].action == KN_PASS;
		t->by_rule[f->rule]++;
		t->passing += f->passes;
	}
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

/* RFC 1071 in its plainest form: big-endian words added, carries folded in, complement. */
static unsigned header_checksum(const uint8_t *ip)
{
	unsigned long sum = 0;

	for (int i = 0; i < 20; i += 2)
		sum += (unsigned long)ip[i] * 256 + ip[i + 1];
	while (sum > 0xffff)
		sum = sum % 0x10000 + sum / 0x10000;
	return (unsigned)(0xffff - sum);
}

/* The frame as it must be after so many passes. */
static void compose(const struct kn_bench_frame *f, unsigned passes, uint8_t *out)
{
	const uint8_t macs[2][6] = { { 2, 0, 0, 0, 0, 1 }, { 2, 0, 0, 0, 0, 2 } };
	unsigned total = f->len - 14u;

	for (size_t i = 0; i < f->len; i++)
		out[i] = (uint8_t)(f->tag >> i % 8 * 8 ^ i);
	memcpy(out, macs[passes % 2], 6);
	memcpy(out + 6, macs[1 - passes % 2], 6);
	put16(out + 12, 0x0800);
	put16(out + 14, 0x4500);
	put16(out + 16, total);
	put16(out + 20, 0x4000);
	out[22] = (uint8_t)(KN_BENCH_TTL - passes);
	out[23] = f->proto;
	put16(out + 24, 0);
	put32(out + 26, f->src);
	put32(out + 30, f->dst);
	put16(out + 34, f->src_port);
	put16(out + 36, f->dst_port);
	if (f->proto == 17)
		put16(out + 38, total - 20);
	else
		out[46] = 0x50;
	put16(out + 24, header_checksum(out + 14));
}

void kn_bench_fill(struct kn_bench_traffic *t)
{
	for (size_t i = 0; i < KN_BENCH_FRAMES; i++) {
		compose(&t->want[i], 0, t->frames[i]->data);
		t->frames[i]->len = t->frames[i]->wire_len = t->want[i].len;
	}
}

int kn_bench_check(const struct kn_bench_traffic *t, unsigned rounds, struct kn_err *err)
{
	uint8_t expected[2048];

	for (size_t i = 0; i < KN_BENCH_FRAMES; i++) {
		const struct kn_bench_frame *f = &t->want[i];
		compose(f, f->passes ? rounds : 0, expected);
		for (size_t k = 0; k < f->len; k++)
			if (t->frames[i]->data[k] != expected[k])
				return kn_fail(err, EBADMSG,
					       "frame %zu (rule %u) has %02x at byte %zu after %u "
					       "rounds, must have %02x",
					       i, f->rule, t->frames[i]->data[k], k, rounds,
					       expected[k]);
	}
	return 0;
}

static int read_row(const struct row *r, struct kn_rule *ret, struct kn_err *err)
{
	struct kn_match m = KN_MATCH_ANY;
	int e = 0;

	if (*r->src)
		e = kn_parse_prefix(kn_view_of(r->src), &m.src, err);
	if (e == 0 && *r->dst)
		e = kn_parse_prefix(kn_view_of(r->dst), &m.dst, err);
	m.has_proto = r->proto != 0;
	m.proto = r->proto;
	m.has_dst_port = r->low > 0 || r->high < 65535;
	m.dst_port = (struct kn_range){ r->low, r->high };
	*ret = (struct kn_rule){ r->name, m, r->action };
	return e;
}

int kn_bench_acl(struct kn_acl **ret, struct kn_err *err)
{
	struct kn_rule rules[KN_BENCH_RULES];

	for (size_t i = 0; i < KN_BENCH_RULES; i++) {
		int r = read_row(&table[i], &rules[i], err);
		if (r < 0)
			return r;
	}
	return kn_acl_new(rules, KN_BENCH_RULES, KN_DROP, ret, err);
}
