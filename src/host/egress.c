#include "host/egress.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>

/* Source: RFC 6890. The text and the table say the same. */
#define NEVER "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3"

static const struct {
	uint32_t first, last;
	bool exactly;              /* a rule with exactly such an address opens it */
	const char *what;
} never[] = {
	{ 0x00000000, 0x00ffffff, false, "not an address that can be reached" },
	{ 0x7f000000, 0x7fffffff, false, "loopback, which is inside the function itself" },
	{ 0xa9fe0000, 0xa9feffff, true, "link-local: give each address that is meant" },
	{ 0xe0000000, 0xffffffff, false, "multicast or reserved" },
};

static int find_never(uint32_t address)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(never); i++)
		if (address >= never[i].first && address <= never[i].last)
			return (int)i;
	return -1;
}

bool kn_egress_never(uint32_t address)
{
	return find_never(address) >= 0;
}

const char *kn_egress_never_text(void)
{
	return NEVER;
}

/* ---- addresses ----------------------------------------------------------------------------- */

static bool parse_address(struct kn_view v, uint32_t *ret)
{
	char text[INET_ADDRSTRLEN];
	struct in_addr a;

	if (v.len >= sizeof(text))
		return false;
	memcpy(text, v.ptr, v.len);
	text[v.len] = '\0';
	if (memchr(v.ptr, '\0', v.len) || inet_pton(AF_INET, text, &a) != 1)
		return false;
	*ret = ntohl(a.s_addr);
	return true;
}

static int check_address(const struct kn_egress_rule *r, struct kn_view host, struct kn_err *err)
{
	uint32_t last = r->prefix == 0 ? UINT32_MAX : r->address | (UINT32_MAX >> 1 >> (r->prefix - 1));
	int at = find_never(r->address);

	if (at < 0 || (r->prefix == 32 && never[at].exactly))
		return 0;
	if (last > never[at].last)   /* 0.0.0.0/0 begins there, and means the others */
		return 0;
	return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is %s", KN_VIEW_ARG(host), never[at].what);
}

/* Is host an address or a range? 1: it is, 0: it is a name, or an error. */
static int read_address(struct kn_view host, struct kn_egress_rule *r, struct kn_err *err)
{
	struct kn_view rest = host, address;
	uint64_t prefix = 32;

	(void)!kn_view_split(&rest, '/', &address);
	if (!parse_address(address, &r->address)) {
		if (!rest.ptr)
			return 0;
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "': before the '/' of a range stands an "
		               "IPv4 address, and a protocol is tcp or udp", KN_VIEW_ARG(host));
	}
	if (rest.ptr && kn_parse_u64(rest, 32, &prefix, NULL) < 0)
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "': the '/' of a range is followed by a "
		               "number from 0 to 32", KN_VIEW_ARG(host));
	r->prefix = (uint8_t)prefix;
	uint32_t mask = prefix == 0 ? 0 : UINT32_MAX << (32 - prefix);
	if (r->address & ~mask) {
		char base[INET_ADDRSTRLEN];
		struct in_addr a = { .s_addr = htonl(r->address & mask) };
		inet_ntop(AF_INET, &a, base, sizeof(base));
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' has bits behind its prefix: did you mean "
		               "'%s/%u'?", KN_VIEW_ARG(host), base, r->prefix);
	}
	int code = check_address(r, host, err);
	return code < 0 ? code : 1;
}

/* ---- names --------------------------------------------------------------------------------- */

static bool label_ok(struct kn_view l)
{
	if (l.len == 0 || l.len > 63 || l.ptr[0] == '-' || l.ptr[l.len - 1] == '-')
		return false;
	for (size_t i = 0; i < l.len; i++)
		if (!isascii(l.ptr[i]) || (!isalnum((unsigned char)l.ptr[i]) && l.ptr[i] != '-'))
			return false;
	return true;
}

static struct kn_view without_dot(struct kn_view name)
{
	if (name.len > 0 && name.ptr[name.len - 1] == '.')
		name.len--;
	return name;
}

bool kn_egress_name_ok(struct kn_view name)
{
	struct kn_view rest = without_dot(name), label = KN_VIEW_NULL;

	if (rest.len == 0 || rest.len > KN_DNS_MAX_NAME)
		return false;
	while (kn_view_split(&rest, '.', &label))
		if (!label_ok(label))
			return false;
	return true;
}

/* The last label of a name is never a number (RFC 1123, 2.1): "10.0.0" is a mistyped address. */
static bool ends_in_number(struct kn_view name)
{
	while (name.len > 0 && isdigit((unsigned char)name.ptr[name.len - 1]))
		name.len--;
	return name.len == 0 || name.ptr[name.len - 1] == '.';
}

static int read_name(struct kn_view host, struct kn_arena *arena, struct kn_egress_rule *r,
                     struct kn_err *err)
{
	struct kn_view name = host;

	r->below = kn_view_starts(host, KN_VIEW("*."));
	if (r->below)
		name = (struct kn_view){ host.ptr + 2, host.len - 2 };
	name = without_dot(name);
	if (ends_in_number(name))
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is neither an IPv4 address nor a name",
		               KN_VIEW_ARG(host));
	if (!kn_egress_name_ok(name))
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is not a host: use an IPv4 address, a "
		               "range such as 10.0.0.0/8, a name, or *.NAME", KN_VIEW_ARG(host));
	if (kn_view_is_nocase(name, KN_VIEW("localhost")) ||
	    (name.len > 10 && kn_view_is_nocase((struct kn_view){ name.ptr + name.len - 10, 10 },
	                                        KN_VIEW(".localhost"))))
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is the function itself; the node is named "
		               "by its address", KN_VIEW_ARG(host));
	char *copy = kn_arena_copy(arena, name.ptr, name.len);
	if (!copy)
		return kn_fail(err, ENOMEM, "memory for an egress policy");
	for (char *c = copy; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	r->name = copy;
	return 0;
}

bool kn_egress_names(const struct kn_egress_rule *rule, struct kn_view name)
{
	struct kn_view own = kn_view_of(rule->name);

	name = without_dot(name);
	if (!rule->name)
		return false;
	if (!rule->below)
		return kn_view_is_nocase(name, own);
	if (name.len < own.len + 2)
		return false;
	struct kn_view tail = { name.ptr + name.len - own.len, own.len };
	return tail.ptr[-1] == '.' && kn_view_is_nocase(tail, own);
}

/* ---- a rule -------------------------------------------------------------------------------- */

static int read_ports(struct kn_view text, struct kn_egress_rule *r, struct kn_err *err)
{
	struct kn_view rest = text, first;
	uint64_t from = 0, to;

	(void)!kn_view_split(&rest, '-', &first);
	if (kn_parse_u64(first, 65535, &from, NULL) < 0 || from == 0)
		return kn_fail(err, EINVAL, "port '" KN_VIEW_FMT "' is not a number from 1 to 65535, or "
		               "two of them: 8000-8099", KN_VIEW_ARG(text));
	to = from;
	if (rest.ptr && (kn_parse_u64(rest, 65535, &to, NULL) < 0 || to < from))
		return kn_fail(err, EINVAL, "ports '" KN_VIEW_FMT "' are not a range from a lower to a "
		               "higher number, at most 65535", KN_VIEW_ARG(text));
	r->port_first = (uint16_t)from;
	r->port_last = (uint16_t)to;
	return 0;
}

/* "/tcp" or "/udp" at the end; a number there belongs to a range of addresses. */
static int take_protocol(struct kn_view *rule, struct kn_egress_rule *r, struct kn_err *err)
{
	static const char *const names[] = { "tcp", "udp" };
	const char *slash = memrchr(rule->ptr, '/', rule->len);

	if (!slash || slash + 1 == rule->ptr + rule->len || isdigit((unsigned char)slash[1]))
		return 0;
	struct kn_view word = { slash + 1, (size_t)(rule->ptr + rule->len - slash - 1) };
	rule->len = (size_t)(slash - rule->ptr);
	for (size_t i = 0; i < KN_ARRAY_LEN(names); i++) {
		if (kn_view_is_nocase(word, kn_view_of(names[i]))) {
			r->protocols = (uint8_t)(1u << i);
			return 0;
		}
	}
	const char *close = kn_closest(word, names, KN_ARRAY_LEN(names));
	return kn_fail(err, EINVAL, "protocol '" KN_VIEW_FMT "' is not tcp or udp%s%s%s",
	               KN_VIEW_ARG(word), close ? ": did you mean '" : "", close ? close : "",
	               close ? "'?" : "");
}

/* What people write instead of a rule. */
static int check_habits(struct kn_view rule, struct kn_err *err)
{
	if (memmem(rule.ptr, rule.len, "://", 3))
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is a URL: write its host and port, as in "
		               "api.example.org:443", KN_VIEW_ARG(rule));
	if (kn_view_is(rule, KN_VIEW("*")) || kn_view_is_nocase(rule, KN_VIEW("any")) ||
	    kn_view_is_nocase(rule, KN_VIEW("all")))
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "': every address is 0.0.0.0/0, every name "
		               "below one is *.NAME", KN_VIEW_ARG(rule));
	if (kn_view_is_nocase(rule, KN_VIEW("none")))
		return kn_fail(err, EINVAL, "'none' stands alone, not beside rules");
	const char *colon = memchr(rule.ptr, ':', rule.len);
	if (rule.ptr[0] == '[' ||
	    (colon && memchr(colon + 1, ':', (size_t)(rule.ptr + rule.len - colon - 1))))
		return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "': functions have no IPv6: use an IPv4 "
		               "address, or a name that has one", KN_VIEW_ARG(rule));
	return 0;
}

static int read_rule(struct kn_view text, struct kn_arena *arena, struct kn_egress_rule *r,
                     struct kn_err *err)
{
	struct kn_view rest = text, host;

	*r = (struct kn_egress_rule){ .protocols = KN_EGRESS_BOTH, .port_last = 65535 };
	int code = check_habits(text, err);
	if (code == 0)
		code = take_protocol(&rest, r, err);
	if (code < 0)
		return code;
	(void)!kn_view_split(&rest, ':', &host);
	if (rest.ptr)
		code = read_ports(rest, r, err);
	if (code == 0)
		code = read_address(host, r, err);
	return code == 0 ? read_name(host, arena, r, err) : kn_min(code, 0);
}

/* ---- a policy ------------------------------------------------------------------------------ */

static bool next_word(struct kn_view *rest, struct kn_view *ret)
{
	static const char between[] = ", \t\r\n";
	size_t n = 0;

	while (rest->len > 0 && strchr(between, *rest->ptr) && *rest->ptr) {
		rest->ptr++;
		rest->len--;
	}
	while (n < rest->len && !(rest->ptr[n] && strchr(between, rest->ptr[n])))
		n++;
	*ret = (struct kn_view){ rest->ptr, n };
	rest->ptr += n;
	rest->len -= n;
	return n > 0;
}

static int read_rules(struct kn_view text, struct kn_arena *arena, struct kn_egress *e,
                      struct kn_err *err)
{
	struct kn_egress_rule *rules = kn_arena_alloc(arena, KN_EGRESS_MAX_RULES * sizeof(*rules));
	struct kn_view word;

	if (!rules)
		return kn_fail(err, ENOMEM, "memory for an egress policy");
	e->rules = rules;
	while (next_word(&text, &word)) {
		if (e->n_rules == KN_EGRESS_MAX_RULES)
			return kn_fail(err, E2BIG, "more than %d rules: use ranges or *.NAME",
			               KN_EGRESS_MAX_RULES);
		int r = read_rule(word, arena, &rules[e->n_rules++], err);
		if (r < 0)
			return r;
	}
	if (e->n_rules == 0)
		return kn_fail(err, EINVAL, "no rule in it: write HOST:PORT, or 'none' for no network");
	return 0;
}

int kn_egress_parse(struct kn_view text, struct kn_arena *arena, const struct kn_egress **ret,
                    struct kn_err *err)
{
	if (text.len > KN_EGRESS_MAX_TEXT)
		return kn_fail(err, E2BIG, "an egress policy of more than %d bytes", KN_EGRESS_MAX_TEXT);
	if (kn_view_is_nocase(kn_view_trim(text), KN_VIEW("none"))) {
		*ret = NULL;
		return 0;
	}
	struct kn_egress *e = kn_arena_alloc(arena, sizeof(*e));
	if (!e)
		return kn_fail(err, ENOMEM, "memory for an egress policy");
	int r = read_rules(text, arena, e, err);
	if (r == 0)
		*ret = e;
	return r;
}

const struct kn_egress *kn_egress_copy(const struct kn_egress *e, struct kn_arena *arena)
{
	struct kn_egress *copy = kn_arena_alloc(arena, sizeof(*copy));
	struct kn_egress_rule *rules = kn_arena_alloc(arena, e->n_rules * sizeof(*rules));

	if (!copy || !rules)
		return NULL;
	for (size_t i = 0; i < e->n_rules; i++) {
		rules[i] = e->rules[i];
		if (!rules[i].name)
			continue;
		rules[i].name = kn_arena_copy(arena, rules[i].name, strlen(rules[i].name));
		if (!rules[i].name)
			return NULL;
	}
	*copy = (struct kn_egress){ .rules = rules, .n_rules = e->n_rules };
	return copy;
}
