/* Unix and TCP sockets, and descriptors passed over the former. */
#include "base/fd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST_FDS = 8, BACKLOG = 1024 };

union fd_control {
	char bytes[CMSG_SPACE(MOST_FDS * sizeof(int))];
	struct cmsghdr align;
};

int kn_send_fds(int sock, const void *ptr, size_t len, const int *fds, size_t nfds)
{
	union fd_control control = { .bytes = { 0 } };
	struct iovec iov = { (void *)(uintptr_t)ptr, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds > MOST_FDS || len == 0)
		return -EINVAL;
	if (nfds) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	ssize_t n;
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	/* The descriptors went with the first byte; the rest is ordinary data. */
	return kn_write_all(sock, (const char *)ptr + n, len - (size_t)n);
}

static void keep_fds(const struct cmsghdr *c, int *fds, size_t max, size_t *n)
{
	size_t got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < got; i++) {
		int fd;
		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
		if (*n < max)
			fds[(*n)++] = fd;
		else
			kn_close(fd);
	}
}

ssize_t kn_recv_fds(int sock, void *ptr, size_t len, int *ret_fds, size_t max_fds, size_t *ret_nfds)
{
	union fd_control control;
	struct iovec iov = { ptr, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
		              .msg_controllen = sizeof(control.bytes) };
	ssize_t n;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*ret_nfds = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			keep_fds(c, ret_fds, max_fds, ret_nfds);
	return n;
}

/* ---- Unix ---- */

static int unix_address(const char *path, struct sockaddr_un *ret, struct kn_err *err)
{
	size_t len = strlen(path);

	if (len == 0 || len >= sizeof(ret->sun_path))
		return kn_fail(err, ENAMETOOLONG,
		               "socket path '%s' must have 1 to %zu bytes", path,
		               sizeof(ret->sun_path) - 1);
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path, path, len + 1);
	return 0;
}

static int unix_socket(struct kn_err *err)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? kn_fail(err, errno, "socket: %s", strerror(errno)) : fd;
}

int kn_unix_connect(const char *path, struct kn_err *err)
{
	struct sockaddr_un a;

	int r = unix_address(path, &a, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int fd = unix_socket(err);
	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return kn_fail(err, errno, "connect to '%s': %s", path, strerror(errno));
	return kn_take_fd(fd);
}

/* A socket that nobody answers on is left from a process that died: remove it. */
static int clear_old_socket(const char *path, struct kn_err *err)
{
	struct stat st;

	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return 0;
	kn_auto(kn_close) int alive = kn_unix_connect(path, NULL);
	if (alive >= 0 || alive == -EAGAIN)
		return kn_fail(err, EADDRINUSE, "'%s' is in use by another process", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return kn_fail(err, errno, "remove '%s': %s", path, strerror(errno));
	return 0;
}

int kn_unix_listen(const char *path, struct kn_err *err)
{
	struct sockaddr_un a;

	int r = unix_address(path, &a, err);
	if (r == 0)
		r = clear_old_socket(path, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int fd = unix_socket(err);
	if (fd < 0)
		return fd;
	/* Nobody can connect before listen(), so that the mode counts from the first moment. */
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return kn_fail(err, errno, "bind '%s': %s", path, strerror(errno));
	if (chmod(path, 0600) < 0 || listen(fd, BACKLOG) < 0) {
		r = kn_fail(err, errno, "listen on '%s': %s", path, strerror(errno));
		unlink(path);
		return r;
	}
	return kn_take_fd(fd);
}

/* ---- TCP ---- */

union tcp_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static socklen_t address_len(const union tcp_address *a)
{
	return a->any.sa_family == AF_INET6 ? sizeof(a->v6) : sizeof(a->v4);
}

static bool set_host(const char *host, bool bracketed, uint16_t port, union tcp_address *a)
{
	*a = (union tcp_address){ .v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) } };
	if (bracketed)
		return inet_pton(AF_INET6, host, &a->v6.sin6_addr) == 1;
	*a = (union tcp_address){ .v4 = { .sin_family = AF_INET, .sin_port = htons(port) } };
	if (strcmp(host, "localhost") == 0)
		host = "127.0.0.1";
	return inet_pton(AF_INET, host, &a->v4.sin_addr) == 1;
}

/*
 * Numeric on purpose: getaddrinfo() needs shared libraries at run time even in a static program.
 */
static int tcp_address(const char *text, union tcp_address *ret, struct kn_err *err)
{
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 1];
	uint64_t port;

	if (!colon || kn_parse_u64(kn_view_of(colon + 1), UINT16_MAX, &port, NULL) < 0)
		return kn_fail(err, EINVAL, "'%s' is not ADDR:PORT, like 127.0.0.1:8080", text);
	struct kn_view name = { text, (size_t)(colon - text) };
	bool bracketed = name.len > 2 && name.ptr[0] == '[' && name.ptr[name.len - 1] == ']';
	if (bracketed)
		name = (struct kn_view){ name.ptr + 1, name.len - 2 };
	if (name.len >= sizeof(host))
		return kn_fail(err, EINVAL, "'%s': the address is too long", text);
	memcpy(host, name.ptr, name.len);
	host[name.len] = '\0';
	if (!set_host(host, bracketed, (uint16_t)port, ret))
		return kn_fail(err, EINVAL,
		               "'%s': the address must be numeric (127.0.0.1, [::1]) or localhost",
		               text);
	return 0;
}

static int tcp_socket(const union tcp_address *a, int flags, struct kn_err *err)
{
	int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	return fd < 0 ? kn_fail(err, errno, "socket: %s", strerror(errno)) : fd;
}

int kn_tcp_listen(const char *addr_port, struct kn_err *err)
{
	union tcp_address a;
	const int on = 1;

	int r = tcp_address(addr_port, &a, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int fd = tcp_socket(&a, SOCK_NONBLOCK, err);
	if (fd < 0)
		return fd;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, &a.any, address_len(&a)) < 0 || listen(fd, BACKLOG) < 0)
		return kn_fail(err, errno, "listen on %s: %s", addr_port, strerror(errno));
	return kn_take_fd(fd);
}

int kn_tcp_connect(const char *addr_port, struct kn_err *err)
{
	union tcp_address a;
	const int on = 1;

	int r = tcp_address(addr_port, &a, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int fd = tcp_socket(&a, 0, err);
	if (fd < 0)
		return fd;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
	    connect(fd, &a.any, address_len(&a)) < 0)
		return kn_fail(err, errno, "connect to %s: %s", addr_port, strerror(errno));
	return kn_take_fd(fd);
}

int kn_tcp_name(int fd, char *out, size_t out_len)
{
	union tcp_address a = { .any = { .sa_family = AF_UNSPEC } };
	socklen_t len = sizeof(a);
	char host[INET6_ADDRSTRLEN];
	int n;

	if (getsockname(fd, &a.any, &len) < 0)
		return -errno;
	if (a.any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a.v6.sin6_addr, host, sizeof(host));
		n = snprintf(out, out_len, "[%s]:%u", host, ntohs(a.v6.sin6_port));
	} else if (a.any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a.v4.sin_addr, host, sizeof(host));
		n = snprintf(out, out_len, "%s:%u", host, ntohs(a.v4.sin_port));
	} else {
		return -EAFNOSUPPORT;
	}
	return n < 0 || (size_t)n >= out_len ? -ENOSPC : 0;
}
