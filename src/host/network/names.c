/*
 * The name server of a gateway: UDP, on the gateway's address. It answers names that the policy has a
 * rule for with their IPv4 addresses, after those were opened, and every other name as one that does
 * not exist. Not as refused: resolvers take that for a passing trouble of one server, and ask again.
 *
 * Addresses that a name may never open are left out of the answer, so that whoever owns an allowed
 * name gains nothing by pointing it at this host's neighbours on the link or at a metadata service.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/network/network.h"

enum {
	PORT = 53,
	TTL_LEAST_S = 60,          /* an address stays open that long, and so does the answer hold */
	TTL_MOST_S = 3600,
	TTL_MARGIN_S = 30,         /* between the end of an answer and that of the opening */
	TELL_EVERY_S = 5,
	PACKETS_A_ROUND = 16,
	LOOKUPS_OF_NODE = 512,
};

/* ---- answering ----------------------------------------------------------------------------- */

/* A lost answer is asked for again. */
static void answer(const struct kn_netif *i, const struct kn_dns_query *q, enum kn_dns_code code,
                   const uint32_t *addresses, size_t n, uint32_t ttl_s, const uint8_t *peer)
{
	unsigned char bytes[KN_DNS_BYTES];
	struct sockaddr_in to;

	memcpy(&to, peer, sizeof(to));
	size_t len = kn_dns_answer(q, code, addresses, n, ttl_s, bytes);
	(void)!sendto(i->dns.fd, bytes, len, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to));
}

static void tell_refused(struct kn_netif *i, const char *name)
{
	uint64_t now = kn_now_ns();
	char text[KN_DNS_NAME + 96];

	if (!i->events.refused || (i->told_ns && now - i->told_ns < TELL_EVERY_S * KN_NS_PER_S))
		return;
	i->told_ns = now;
	snprintf(text, sizeof(text), "network: the name '%s' is not in the function's kiln.egress", name);
	i->events.refused(text, i->events.arg);
}

static size_t keep_allowed(uint32_t *addresses, size_t n)
{
	size_t kept = 0;

	for (size_t a = 0; a < n && kept < KN_DNS_MAX_ADDRESSES; a++)
		if (!kn_egress_never(addresses[a]))
			addresses[kept++] = addresses[a];
	return kept;
}

/* In every rule that has this name. */
static int open_addresses(struct kn_netif *i, const char *name, const uint32_t *addresses, size_t n,
                          uint32_t seconds)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	for (size_t rule = 0; rule < i->policy->n_rules; rule++)
		if (kn_egress_names(&i->policy->rules[rule], kn_view_of(name)))
			rules_names(&text, rule, addresses, n, seconds);
	if (text.failed || space_enter(i->ns, NULL) < 0)
		return -ENOMEM;
	int r = rules_keep(&i->nft, text.ptr, NULL);
	space_leave(i->network->home);
	return r;
}

static void free_question(struct question *q)
{
	*q->prev = q->next;
	if (q->next)
		q->next->prev = q->prev;
	q->netif->n_questions--;
	q->netif->network->n_lookups--;
	free(q);
}

static void on_found(const struct kn_lookup_result *r, void *arg)
{
	struct question *q = arg;
	struct kn_netif *i = q->netif;
	struct kn_lookup_result found = *r;
	uint32_t at_least = kn_max(r->ttl_s, (uint32_t)TTL_LEAST_S);
	uint32_t ttl = kn_min(at_least, (uint32_t)TTL_MOST_S);
	enum kn_dns_code code = KN_DNS_OK;

	found.n = keep_allowed(found.addresses, found.n);
	if (r->status == -ENOENT)
		code = KN_DNS_NO_NAME;
	else if (r->status < 0 && r->status != -ENODATA)
		code = KN_DNS_SERVER;
	else if (found.n > 0 && open_addresses(i, q->query.name, found.addresses, found.n,
	                                       ttl + TTL_MARGIN_S) < 0)
		code = KN_DNS_SERVER;
	answer(i, &q->query, code, found.addresses, code == KN_DNS_OK ? found.n : 0, ttl, q->peer);
	free_question(q);
}

/* ---- asking -------------------------------------------------------------------------------- */

static bool is_allowed(const struct kn_netif *i, const char *name)
{
	for (size_t rule = 0; rule < i->policy->n_rules; rule++)
		if (kn_egress_names(&i->policy->rules[rule], kn_view_of(name)))
			return true;
	return false;
}

static int look_up(struct kn_netif *i, const struct kn_dns_query *query, const uint8_t *peer)
{
	struct kn_network *n = i->network;

	if (i->n_questions == MAX_LOOKUPS || n->n_lookups >= LOOKUPS_OF_NODE)
		return -EAGAIN;
	struct question *q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	*q = (struct question){ .netif = i, .query = *query, .next = i->questions,
		                .prev = &i->questions };
	memcpy(q->peer, peer, sizeof(q->peer));
	int r = kn_lookup_start(n->loop, query->name, on_found, q, &q->lookup, NULL);
	if (r < 0) {
		free(q);
		return r;
	}
	if (q->next)
		q->next->prev = &q->next;
	i->questions = q;
	i->n_questions++;
	n->n_lookups++;
	return 0;
}

/* Of an allowed name, what is not an IPv4 address does not exist here. */
static void on_query(struct kn_netif *i, struct kn_view packet, const uint8_t *peer)
{
	struct kn_dns_query q;
	enum kn_dns_code code;

	if (kn_dns_parse(packet, &q, NULL) < 0)
		return;
	code = q.code;
	if (code == KN_DNS_OK && q.class != KN_DNS_IN)
		code = KN_DNS_REFUSED;
	if (code == KN_DNS_OK && !is_allowed(i, q.name)) {
		code = KN_DNS_NO_NAME;
		if (q.name[0])
			tell_refused(i, q.name);
	} else if (code == KN_DNS_OK && q.type == KN_DNS_A) {
		if (look_up(i, &q, peer) == 0)
			return;
		code = KN_DNS_SERVER;
	}
	answer(i, &q, code, NULL, 0, 0, peer);
}

/* A bucket of QUERIES_BURST, filled with QUERIES_PER_S; kept as the time at which it is full. */
static bool may_ask(struct kn_netif *i)
{
	static const uint64_t each = KN_NS_PER_S / QUERIES_PER_S;
	uint64_t now = kn_now_ns();

	if (i->tokens_ns < now)
		i->tokens_ns = now;
	if (i->tokens_ns - now > (QUERIES_BURST - 1) * each)
		return false;
	i->tokens_ns += each;
	return true;
}

static void on_packet(struct kn_watch *w, uint32_t events)
{
	struct kn_netif *i = kn_container_of(w, struct kn_netif, dns);
	char bytes[KN_DNS_BYTES];

	(void)events;
	for (int round = 0; round < PACKETS_A_ROUND; round++) {
		uint8_t peer[sizeof(((struct question *)0)->peer)] = { 0 };
		socklen_t len = sizeof(peer);
		ssize_t n = recvfrom(w->fd, bytes, sizeof(bytes), MSG_DONTWAIT,
		                     (struct sockaddr *)(void *)peer, &len);
		if (n < 0)
			return;
		if (may_ask(i))
			on_query(i, (struct kn_view){ bytes, (size_t)n }, peer);
	}
}

/* ---- life ---------------------------------------------------------------------------------- */

/* Bound before the interface has its address, so that a guest's first question finds it. */
int names_start(struct kn_netif *i, struct kn_err *err)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(PORT),
		                  .sin_addr.s_addr = htonl(GATEWAY_ADDRESS) };
	int on = 1;

	kn_auto(kn_close) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return kn_fail(err, errno, "the function's name server: %s", strerror(errno));
	i->dns = (struct kn_watch){ .fd = fd, .events = EPOLLIN, .call = on_packet };
	int r = kn_watch_start(i->network->loop, &i->dns, err);
	if (r < 0) {
		i->dns.fd = -1;
		return r;
	}
	(void)kn_take_fd(fd);
	return 0;
}

void names_stop(struct kn_netif *i)
{
	while (i->questions) {
		struct question *q = i->questions;
		kn_lookup_cancel(q->lookup);
		free_question(q);
	}
	if (i->dns.fd < 0)
		return;
	kn_watch_stop(&i->dns);
	kn_close(i->dns.fd);
	i->dns.fd = -1;
}
