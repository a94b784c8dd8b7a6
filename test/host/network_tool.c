/*
 * Networks of functions without a node: reads lines from standard input, says one line for each.
 *
 *     network-tool OWNER [RANGE]
 *
 *     new NAME POLICY...      a gateway               ok MICROSECONDS
 *     join NAME PID           the container's eth0    ok MICROSECONDS
 *     tap NAME                a TAP, kept open        ok MICROSECONDS
 *     free NAME                                       ok MICROSECONDS
 *     sweep                                           ok COUNT
 *     check                                           ok MICROSECONDS
 *
 * Failures are "no REASON"; what is refused to a function comes as "refused NAME TEXT".
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "host/network.h"

enum { MAX_NETIFS = 64, MAX_LINE = 4096 };

static struct netif {
	char name[32];
	struct kn_netif *netif;
	int tap;
} netifs[MAX_NETIFS];

static struct kn_loop *loop;
static struct kn_network *network;

static struct netif *find(const char *name)
{
	for (size_t i = 0; i < MAX_NETIFS; i++)
		if (strcmp(netifs[i].name, name) == 0 && (netifs[i].netif || !*name))
			return &netifs[i];
	return NULL;
}

static void refused(const char *text, void *arg)
{
	printf("refused %s %s\n", ((struct netif *)arg)->name, text);
	fflush(stdout);
}

static int make(const char *name, const char *policy, struct kn_err *err)
{
	struct netif *n = find("");
	struct kn_netif_events events = { .refused = refused, .arg = n };
	const struct kn_egress *e = NULL;
	struct kn_arena arena;

	if (!n)
		return kn_fail(err, EUSERS, "too many");
	kn_arena_init(&arena);
	int r = kn_egress_parse(kn_view_of(policy), &arena, &e, err);
	if (r == 0)
		r = kn_netif_new(network, e, &events, &n->netif, err);
	if (r == 0)
		snprintf(n->name, sizeof(n->name), "%s", name);
	kn_arena_fini(&arena);
	return r;
}

static int join(struct netif *n, const char *pid, struct kn_err *err)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%s/ns/net", pid);
	kn_auto(kn_close) int ns = open(path, O_RDONLY | O_CLOEXEC);
	return ns < 0 ? kn_fail(err, errno, "open %s", path) : kn_netif_join(n->netif, ns, err);
}

static int tap(struct netif *n, struct kn_err *err)
{
	n->tap = kn_netif_open_tap(n->netif, err);
	return kn_min(n->tap, 0);
}

static int drop(struct netif *n)
{
	kn_netif_free(n->netif);
	if (n->tap > 0)
		close(n->tap);
	*n = (struct netif){ .tap = 0 };
	return 0;
}

static int act(const char *verb, const char *name, const char *rest, struct kn_err *err)
{
	struct netif *n = find(name);

	if (strcmp(verb, "check") == 0)
		return kn_network_check(err);
	if (strcmp(verb, "new") == 0)
		return make(name, rest, err);
	if (!*name || !n)
		return kn_fail(err, ENOENT, "no such network");
	if (strcmp(verb, "join") == 0)
		return join(n, rest, err);
	if (strcmp(verb, "tap") == 0)
		return tap(n, err);
	return strcmp(verb, "free") == 0 ? drop(n) : kn_fail(err, EINVAL, "no such verb");
}

static void obey(char *line)
{
	struct kn_err err = KN_ERR_INIT;
	char *rest = line;
	char *verb = strsep(&rest, " ");
	char *name = rest ? strsep(&rest, " ") : verb + strlen(verb);
	uint64_t began = kn_now_ns();

	if (strcmp(verb, "sweep") == 0)
		printf("ok %zu\n", kn_network_sweep(network));
	else if (act(verb, name, rest ? rest : "", &err) < 0)
		printf("no %s\n", kn_err_text(&err));
	else
		printf("ok %llu\n", (unsigned long long)((kn_now_ns() - began) / 1000));
	fflush(stdout);
}

static void on_input(struct kn_watch *w, uint32_t events)
{
	static char bytes[MAX_LINE];
	static size_t len;
	char *end;

	(void)events;
	ssize_t n = read(w->fd, bytes + len, sizeof(bytes) - 1 - len);
	if (n <= 0) {
		kn_loop_stop(loop);
		return;
	}
	len += (size_t)n;
	bytes[len] = '\0';
	while ((end = strchr(bytes, '\n'))) {
		*end = '\0';
		obey(bytes);
		len -= (size_t)(end + 1 - bytes);
		memmove(bytes, end + 1, len + 1);
	}
}

int main(int argc, char **argv)
{
	struct kn_watch input = { .fd = 0, .events = EPOLLIN, .call = on_input };
	struct kn_err err = KN_ERR_INIT;

	if (argc < 2)
		return 2;
	int r = kn_loop_new(&loop, &err);
	struct kn_network_config config = { .loop = loop, .owner = argv[1], .range = argv[2] };
	if (r == 0)
		r = kn_network_new(&config, &network, &err);
	if (r == 0)
		r = kn_watch_start(loop, &input, &err);
	if (r == 0)
		r = kn_loop_run(loop);
	if (r < 0)
		fprintf(stderr, "network-tool: %s\n", kn_err_text(&err));
	for (size_t i = 0; i < MAX_NETIFS; i++)
		if (netifs[i].netif)
			drop(&netifs[i]);
	kn_network_free(network);
	kn_loop_free(loop);
	return r < 0;
}
