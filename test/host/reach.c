/*
 * A function that says what it reaches: a line "HOST PORT" on standard input, HOST an IPv4 address or
 * a name, gives a line "HOST PORT: " and "open", or what went wrong. "6 ADDRESS PORT" tries IPv6.
 */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 3000 };

/* Not getaddrinfo(): in a static program it needs libraries that the image does not have. */
static const char *look_up(const char *name, struct in_addr *ret)
{
	unsigned char answer[512];
	ns_msg msg;
	ns_rr rr;

	if (inet_pton(AF_INET, name, ret) == 1)
		return NULL;
	int n = res_query(name, ns_c_in, ns_t_a, answer, sizeof(answer));
	if (n < 0)
		return h_errno == HOST_NOT_FOUND ? "no such name" : "no answer about the name";
	if (ns_initparse(answer, n, &msg) < 0 || ns_msg_count(msg, ns_s_an) == 0 ||
	    ns_parserr(&msg, ns_s_an, 0, &rr) < 0 || ns_rr_rdlen(rr) != 4)
		return "no address";
	memcpy(ret, ns_rr_rdata(rr), 4);
	return NULL;
}

static const char *reach(struct sockaddr *to, socklen_t len)
{
	int code = 0, fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t n = sizeof(code);

	if (fd < 0)
		return strerror(errno);
	if (connect(fd, to, len) < 0 && errno != EINPROGRESS)
		code = errno;
	else if (poll(&p, 1, WAIT_MS) == 0)
		code = ETIMEDOUT;
	else
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &n);
	close(fd);
	return code ? strerror(code) : "open";
}

static const char *reach4(const char *host, int port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((unsigned short)port) };
	const char *why = look_up(host, &in.sin_addr);

	return why ? why : reach((struct sockaddr *)&in, sizeof(in));
}

static const char *reach6(const char *host, int port)
{
	struct sockaddr_in6 in = { .sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port),
		                   .sin6_scope_id = 2 };

	if (inet_pton(AF_INET6, host, &in.sin6_addr) != 1)
		return "not an address";
	return reach((struct sockaddr *)&in, sizeof(in));
}

int main(void)
{
	char line[512], host[256];
	int port;

	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "6 %255s %d", host, &port) == 2)
			printf("%s %d: %s\n", host, port, reach6(host, port));
		else if (sscanf(line, "%255s %d", host, &port) == 2)
			printf("%s %d: %s\n", host, port, reach4(host, port));
	}
	return 0;
}
