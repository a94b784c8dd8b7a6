/*
 * From rules to compared words, and the choice of an engine. The engines are in acl/engine.c, the
 * text forms of prefixes and ranges in acl/text.c.
 */
#include "packet/acl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "packet/acl/compiled.h"
#include "packet/header.h"

static const struct {
	const char *name;
	engine_fn *judge;
} engines[] = {
#if defined(__x86_64__)
	{ "avx512", kn_acl_avx512 },
	{ "avx2", kn_acl_avx2 },
#endif
	{ "portable", kn_acl_portable },
};

static size_t chosen = SIZE_MAX; /* index into engines; SIZE_MAX until first asked */

static bool runs_here(const char *name)
{
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (strcmp(name, "avx512") == 0)
		return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		       __builtin_cpu_supports("avx512vl");
	if (strcmp(name, "avx2") == 0)
		return __builtin_cpu_supports("avx2");
#endif
	return strcmp(name, "portable") == 0;
}

static size_t engine(void)
{
	for (size_t i = 0; chosen == SIZE_MAX; i++)
		if (runs_here(engines[i].name))
			chosen = i;
	return chosen;
}

const char *kn_acl_engine(void)
{
	return engines[engine()].name;
}

int kn_acl_use_engine(const char *name, struct kn_err *err)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(engines); i++) {
		if (strcmp(name, engines[i].name) != 0)
			continue;
		if (!runs_here(name))
			return kn_fail(err, ENOTSUP, "this processor has no %s", name);
		chosen = i;
		return 0;
	}
	return kn_fail(err, EINVAL, "no ACL engine is called '%s'", name);
}

static uint32_t family_of(const struct kn_prefix *p)
{
	return p->family == 4 ? KN_META_IPV4 : p->family == 6 ? KN_META_IPV6 : 0;
}

/* A bit that must be as given, or a contradiction with what was asked before. */
static bool require(struct code *c, uint32_t mask, uint32_t value)
{
	bool contradicts = c->meta_mask & mask & (c->meta_value ^ value);

	c->meta_mask |= mask;
	c->meta_value |= value;
	return !contradicts;
}

static bool compile_families(const struct kn_match *m, struct code *c)
{
	uint32_t wanted[] = { m->family, family_of(&m->src), family_of(&m->dst) };
	bool fine = true;

	for (size_t i = 0; i < KN_ARRAY_LEN(wanted); i++)
		if (wanted[i])
			fine &= require(c, KN_META_FAMILY, wanted[i]);
	return fine;
}

static bool compile_vlan(const struct kn_match *m, struct code *c)
{
	if (m->vlan == KN_VLAN_ANY)
		return true;
	if (m->vlan == KN_VLAN_UNTAGGED)
		return require(c, KN_META_TAGGED, 0);
	if (m->vlan == KN_VLAN_TAGGED)
		return require(c, KN_META_TAGGED, KN_META_TAGGED);
	if (m->vlan < 0 || m->vlan > KN_VLAN_ID_MASK)
		return false;
	return require(c, KN_META_TAGGED | KN_META_VLAN,
		       KN_META_TAGGED | (uint32_t)m->vlan << KN_META_VLAN_SHIFT);
}

static bool has_ports(uint8_t proto)
{
	return proto == KN_PROTO_TCP || proto == KN_PROTO_UDP;
}

static bool compile_proto(const struct kn_match *m, struct code *c)
{
	bool ports = m->has_src_port || m->has_dst_port;
	bool icmp = m->has_icmp_type || m->has_icmp_code;

	/* Protocol 0 is what ARP has in its place: ask for IP. */
	if (m->has_proto && !require(c, KN_META_PROTO | KN_META_ARP | KN_META_OTHER, m->proto))
		return false;
	if (ports && !require(c, KN_META_PORTS | KN_META_ICMP, KN_META_PORTS))
		return false;
	if (icmp && !require(c, KN_META_PORTS | KN_META_ICMP, KN_META_ICMP))
		return false;
	return !(ports && m->has_proto && !has_ports(m->proto));
}

static void compile_ranges(const struct kn_match *m, struct code *c)
{
	bool icmp = m->has_icmp_type || m->has_icmp_code;
	struct kn_range upper = icmp ? m->icmp_type : m->src_port;
	struct kn_range lower = icmp ? m->icmp_code : m->dst_port;

	c->low = (uint32_t)upper.low << 16 | lower.low;
	c->high = (uint32_t)upper.high << 16 | lower.high;
}

/* The first `bits` bits of an address set, as machine words of its bytes. */
static void prefix_words(const struct kn_prefix *p, size_t bytes, uint8_t *ret_value,
			 uint8_t *ret_mask)
{
	for (size_t i = 0; i < bytes; i++) {
		size_t bits = p->bits > i * 8 ? kn_min((size_t)p->bits - i * 8, (size_t)8) : 0;
		ret_mask[i] = (uint8_t)(0xff00 >> bits);
		ret_value[i] = p->addr[i] & ret_mask[i];
	}
}

static void compile_prefix4(const struct kn_prefix *p, uint32_t *ret_value, uint32_t *ret_mask)
{
	if (p->family == 4)
		prefix_words(p, 4, (uint8_t *)ret_value, (uint8_t *)ret_mask);
}

static void compile_prefix6(const struct kn_prefix *p, uint64_t *ret_value, uint64_t *ret_mask)
{
	if (p->family == 6)
		prefix_words(p, 16, (uint8_t *)ret_value, (uint8_t *)ret_mask);
}

static void compile_six(const struct kn_match *m, struct kn_acl *acl, struct code *c)
{
	if (m->src.family != 6 && m->dst.family != 6)
		return;
	struct six *six = &acl->six[acl->n_six++];
	compile_prefix6(&m->src, six->src_value, six->src_mask);
	compile_prefix6(&m->dst, six->dst_value, six->dst_mask);
	c->six = acl->n_six;
}

static int compile(const struct kn_rule *rule, struct kn_acl *acl, uint32_t i, struct kn_err *err)
{
	const struct kn_match *m = &rule->match;
	struct code *c = &acl->codes[i];

	if (strlen(rule->name) > KN_RULE_NAME_MAX)
		return kn_fail(err, EINVAL, "rule '%s': a name has at most %d characters",
			       rule->name, KN_RULE_NAME_MAX);
	memcpy(acl->names[i], rule->name, strlen(rule->name));
	if (!compile_families(m, c))
		return kn_fail(err, EINVAL,
			       "rule '%s' can never match: it asks for two address families",
			       rule->name);
	if (!compile_proto(m, c))
		return kn_fail(
			err, EINVAL,
			"rule '%s' can never match: ports are TCP's and UDP's, types are ICMP's",
			rule->name);
	if (!compile_vlan(m, c))
		return kn_fail(err, EINVAL, "rule '%s': VLAN ids are 0 to %d", rule->name,
			       KN_VLAN_ID_MASK);
	if (m->fragment >= 0)
		(void)require(c, KN_META_FRAGMENT, m->fragment ? (uint32_t)KN_META_FRAGMENT : 0);
	compile_prefix4(&m->src, &c->src_value, &c->src_mask);
	compile_prefix4(&m->dst, &c->dst_value, &c->dst_mask);
	compile_ranges(m, c);
	compile_six(m, acl, c);
	c->drop = rule->action == KN_DROP ? ~(kn_lanes)0 : 0;
	return 0;
}

static int allocate(struct kn_acl *acl, uint32_t n)
{
	acl->codes = calloc(n + 1, sizeof(*acl->codes));
	acl->six = calloc(n + 1, sizeof(*acl->six));
	acl->names = calloc(n + 1, sizeof(*acl->names));
	acl->counts = calloc((size_t)n + 1, sizeof(*acl->counts));
	return acl->codes && acl->six && acl->names && acl->counts ? 0 : -ENOMEM;
}

int kn_acl_new(const struct kn_rule *rules, uint32_t n, enum kn_action fallback,
	       struct kn_acl **ret, struct kn_err *err)
{
	if (n > KN_ACL_RULES_MAX)
		return kn_fail(err, EINVAL, "%u rules: at most %d are possible", n,
			       KN_ACL_RULES_MAX);
	kn_auto(kn_acl_free) struct kn_acl *acl = calloc(1, sizeof(*acl));
	if (!acl || allocate(acl, n) < 0)
		return kn_fail(err, ENOMEM, "no memory for %u rules", n);

	acl->n = n;
	acl->fallback_drop = fallback == KN_DROP ? ~(kn_lanes)0 : 0;
	for (uint32_t i = 0; i < n; i++) {
		int r = compile(&rules[i], acl, i, err);
		if (r < 0)
			return r;
	}
	*ret = kn_take_ptr(acl);
	return 0;
}

void kn_acl_free(struct kn_acl *acl)
{
	if (!acl)
		return;
	free(acl->codes);
	free(acl->six);
	free(acl->names);
	free(acl->counts);
	free(acl);
}

static struct verdict judge(struct kn_acl *acl, struct kn_batch *b)
{
	const char **names = b->observed ? b->rule : NULL;
	struct verdict v = engines[engine()].judge(acl, b, b->live, acl->counts, names);

	acl->counts[acl->n] += kn_lanes_count(v.unmatched);
	return v;
}

void kn_acl_run(struct kn_acl *acl, struct kn_batch *b)
{
	struct verdict v = judge(acl, b);

	kn_batch_drop(b, v.dropped, KN_DROP_ACL_RULE);
	kn_batch_drop(b, v.unmatched & acl->fallback_drop, KN_DROP_ACL_DEFAULT);
}

kn_lanes kn_acl_passes(struct kn_acl *acl, struct kn_batch *b)
{
	struct verdict v = judge(acl, b);

	return v.passed | (v.unmatched & ~acl->fallback_drop);
}

uint32_t kn_acl_size(const struct kn_acl *acl)
{
	return acl->n;
}

const char *kn_acl_name(const struct kn_acl *acl, uint32_t i)
{
	return i < acl->n ? acl->names[i] : "default";
}

enum kn_action kn_acl_action(const struct kn_acl *acl, uint32_t i)
{
	return (i < acl->n ? acl->codes[i].drop : acl->fallback_drop) ? KN_DROP : KN_PASS;
}

uint64_t kn_acl_count(const struct kn_acl *acl, uint32_t i)
{
	return acl->counts[kn_min(i, acl->n)];
}
