/*
 * Matches and lists of rules.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "packet/chain/read.h"

static const char *const match_keys[] = {
	"family",   "src",	 "dst",	      "proto", "src_port",
	"dst_port", "icmp_type", "icmp_code", "vlan",  "fragment"
};

enum { MATCH_KEYS = KN_ARRAY_LEN(match_keys), KEYS_MAX = MATCH_KEYS + 4 };

static int read_prefix(const struct place *p, struct kn_prefix *ret, struct kn_err *err)
{
	char scratch[24];
	struct kn_view text;

	if (!p->value)
		return 0;
	int r = kn_scalar(p, scratch, &text, err);
	if (r < 0)
		return r;
	r = kn_parse_prefix(text, ret, err);
	return r < 0 ? kn_wrong_inside(p, err) : 0;
}

static int read_range(const struct place *p, uint16_t max, bool *ret_has, struct kn_range *ret,
		      struct kn_err *err)
{
	char scratch[24];
	struct kn_view text;

	if (!p->value)
		return 0;
	int r = kn_scalar(p, scratch, &text, err);
	if (r < 0)
		return r;
	r = kn_parse_range(text, max, ret, err);
	if (r < 0)
		return kn_wrong_inside(p, err);
	*ret_has = true;
	return 0;
}

static int read_proto(const struct place *p, struct kn_match *ret, struct kn_err *err)
{
	char scratch[24];
	struct kn_view text;

	if (!p->value)
		return 0;
	int r = kn_scalar(p, scratch, &text, err);
	if (r < 0)
		return r;
	r = kn_parse_proto(text, &ret->proto, err);
	if (r < 0)
		return kn_wrong_inside(p, err);
	ret->has_proto = true;
	return 0;
}

static int read_family(const struct place *p, struct kn_match *ret, struct kn_err *err)
{
	static const char *const words[] = { "ipv4", "ipv6", "arp", "other" };
	static const uint32_t bits[] = { KN_META_IPV4, KN_META_IPV6, KN_META_ARP, KN_META_OTHER };

	if (!p->value)
		return 0;
	int r = kn_word(p, words, KN_ARRAY_LEN(words), err);
	if (r < 0)
		return r;
	ret->family = bits[r];
	return 0;
}

static int read_vlan(const struct place *p, struct kn_match *ret, struct kn_err *err)
{
	static const char *const words[] = { "tagged", "untagged" };
	uint32_t id;

	if (!p->value)
		return 0;
	if (json_is_integer(p->value)) {
		int r = kn_number(p, 0, 4095, &id, err);
		if (r == 0)
			ret->vlan = (int)id;
		return r;
	}
	int r = kn_word(p, words, KN_ARRAY_LEN(words), err);
	if (r < 0)
		return kn_wrong(p, err, "must be a VLAN id, 'tagged' or 'untagged'");
	ret->vlan = r ? KN_VLAN_UNTAGGED : KN_VLAN_TAGGED;
	return 0;
}

static int read_fragment(const struct place *p, struct kn_match *ret, struct kn_err *err)
{
	if (!p->value)
		return 0;
	if (!json_is_boolean(p->value))
		return kn_wrong(p, err, "must be true or false");
	ret->fragment = json_is_true(p->value);
	return 0;
}

static int read_fields(const struct place *p, struct kn_match *m, struct kn_err *err)
{
	struct place family = kn_member(p, "family"), proto = kn_member(p, "proto");
	struct place src = kn_member(p, "src"), dst = kn_member(p, "dst");
	struct place src_port = kn_member(p, "src_port"), dst_port = kn_member(p, "dst_port");
	struct place type = kn_member(p, "icmp_type"), code = kn_member(p, "icmp_code");
	struct place vlan = kn_member(p, "vlan"), fragment = kn_member(p, "fragment");
	int r;

	if ((r = read_family(&family, m, err)) < 0 || (r = read_proto(&proto, m, err)) < 0 ||
	    (r = read_prefix(&src, &m->src, err)) < 0 ||
	    (r = read_prefix(&dst, &m->dst, err)) < 0 ||
	    (r = read_range(&src_port, 65535, &m->has_src_port, &m->src_port, err)) < 0 ||
	    (r = read_range(&dst_port, 65535, &m->has_dst_port, &m->dst_port, err)) < 0 ||
	    (r = read_range(&type, 255, &m->has_icmp_type, &m->icmp_type, err)) < 0 ||
	    (r = read_range(&code, 255, &m->has_icmp_code, &m->icmp_code, err)) < 0 ||
	    (r = read_vlan(&vlan, m, err)) < 0)
		return r;
	return read_fragment(&fragment, m, err);
}

int kn_read_match(const struct place *p, const char *const *extra, size_t n_extra,
		  struct kn_match *ret, struct kn_err *err)
{
	const char *keys[KEYS_MAX];
	struct kn_match m = KN_MATCH_ANY;

	memcpy(keys, match_keys, sizeof(match_keys));
	for (size_t i = 0; i < n_extra; i++)
		keys[MATCH_KEYS + i] = extra[i];
	int r = kn_known_keys(p, keys, MATCH_KEYS + n_extra, err);
	if (r < 0)
		return r;
	r = read_fields(p, &m, err);
	if (r == 0)
		*ret = m;
	return r;
}

static int read_action(const struct place *p, enum kn_action *ret, struct kn_err *err)
{
	static const char *const words[] = { "pass", "drop" };
	int r = kn_word(p, words, KN_ARRAY_LEN(words), err);

	if (r >= 0)
		*ret = r ? KN_DROP : KN_PASS;
	return r < 0 ? r : 0;
}

static int read_rule(const struct place *p, struct kn_rule *ret, struct kn_err *err)
{
	static const char *const extra[] = { "name", "action" };
	struct kn_rule rule = { .action = KN_DROP };
	kn_auto(kn_acl_free) struct kn_acl *alone = NULL;

	int r = kn_read_match(p, extra, KN_ARRAY_LEN(extra), &rule.match, err);
	if (r < 0)
		return r;
	struct place name = kn_member(p, "name"), action = kn_member(p, "action");
	rule.name = json_string_value(name.value);
	if (!rule.name || !*rule.name)
		return kn_wrong(&name, err, "every rule needs a name: reports count under it");
	r = read_action(&action, &rule.action, err);
	if (r < 0)
		return r;
	/* Compiled alone first: a contradiction is told where it stands. */
	r = kn_acl_new(&rule, 1, KN_DROP, &alone, err);
	if (r < 0)
		return kn_wrong_inside(p, err);
	*ret = rule;
	return 0;
}

static int check_unique(const struct place *list, const struct kn_rule *rules, size_t i,
			struct kn_err *err)
{
	for (size_t k = 0; k < i; k++) {
		if (strcmp(rules[k].name, rules[i].name) != 0)
			continue;
		struct place p = kn_item(list, i);
		return kn_wrong(&p, err, "there is a rule '%s' already", rules[i].name);
	}
	return 0;
}

int kn_read_acl(const struct place *p, struct kn_acl **ret, struct kn_err *err)
{
	static const char *const keys[] = { "name", "default", "rules" };
	enum kn_action fallback = KN_DROP;

	int r = kn_known_keys(p, keys, KN_ARRAY_LEN(keys), err);
	if (r < 0)
		return r;
	struct place list = kn_member(p, "rules"), last = kn_member(p, "default");
	size_t n = json_array_size(list.value);
	if (!json_is_array(list.value) || n > KN_ACL_RULES_MAX)
		return kn_wrong(&list, err, "must be a list of at most %d rules", KN_ACL_RULES_MAX);
	r = read_action(&last, &fallback, err);
	if (r < 0)
		return r;
	kn_auto(kn_free) struct kn_rule *rules = calloc(n + 1, sizeof(*rules));
	if (!rules)
		return kn_fail(err, ENOMEM, "no memory for %zu rules", n);
	for (size_t i = 0; i < n; i++) {
		struct place item = kn_item(&list, i);
		if ((r = read_rule(&item, &rules[i], err)) < 0 ||
		    (r = check_unique(&list, rules, i, err)) < 0)
			return r;
	}
	return kn_acl_new(rules, (uint32_t)n, fallback, ret, err);
}

int kn_read_single(const struct place *p, struct kn_acl **ret, struct kn_err *err)
{
	static const char *const extra[] = { "name" };
	struct kn_rule rule = { .name = "match", .action = KN_PASS };

	int r = kn_read_match(p, extra, KN_ARRAY_LEN(extra), &rule.match, err);
	if (r < 0)
		return r;
	r = kn_acl_new(&rule, 1, KN_DROP, ret, err);
	return r < 0 ? kn_wrong_inside(p, err) : 0;
}
