#include "machine/channel.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/fd.h"

/* syscalls: sendmsg recvmsg poll close */

int kn_hello_send(int sock, const struct kn_hello *hello, int program, const struct kn_channel *ch)
{
	const int fds[] = { program, ch->memory, ch->bell, ch->note };
	struct kn_hello h = *hello;

	h.magic = KN_HELLO_MAGIC;
	h.version = 1;
	return kn_send_fds(sock, &h, sizeof(h), fds, KN_ARRAY_LEN(fds));
}

int kn_hello_stop(int sock)
{
	const uint32_t stop = 0;
	ssize_t n = send(sock, &stop, sizeof(stop), MSG_NOSIGNAL | MSG_DONTWAIT);
	return n < 0 ? -errno : 0;
}

static int check_hello(const struct kn_hello *h, ssize_t len, size_t nfds, struct kn_err *err)
{
	if ((size_t)len != sizeof(*h) || h->magic != KN_HELLO_MAGIC || h->version != 1)
		return kn_fail(err, EPROTO, "the other end of the channel's socket says no hello");
	if (nfds != 4)
		return kn_fail(err, EPROTO, "hello with %zu descriptors instead of 4", nfds);
	if (memchr(h->id, 0, sizeof(h->id)) == NULL)
		return kn_fail(err, EPROTO, "hello with an endless id");
	return 0;
}

static ssize_t receive(int sock, bool wait, struct kn_hello *h, int fds[4], size_t *nfds)
{
	for (;;) {
		ssize_t n = kn_recv_fds(sock, h, sizeof(*h), fds, 4, nfds);
		if (n != -EAGAIN || !wait)
			return n;
		struct pollfd p = { .fd = sock, .events = POLLIN };
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return -errno;
	}
}

int kn_hello_take(int sock, bool wait, struct kn_hello *ret, struct kn_hello_fds *ret_fds,
                  struct kn_err *err)
{
	struct kn_hello h;
	int fds[4];
	size_t nfds = 0;

	ssize_t n = receive(sock, wait, &h, fds, &nfds);
	if (n == -EAGAIN)
		return -EAGAIN;
	if (n < 0)
		return kn_fail(err, (int)-n, "receive hello: %s", strerror((int)-n));
	int r = n == 0 ? 0 : check_hello(&h, n, nfds, err);
	if (n == 0 || r < 0) {
		for (size_t i = 0; i < nfds; i++)
			kn_close(fds[i]);
		return r;
	}
	*ret = h;
	*ret_fds = (struct kn_hello_fds){ fds[0], fds[1], fds[2], fds[3] };
	return 1;
}

int kn_report_send(int sock, const struct kn_report *report)
{
	ssize_t n = send(sock, report, sizeof(*report), MSG_NOSIGNAL | MSG_DONTWAIT);
	return n < 0 ? -errno : 0;
}

int kn_report_take(int sock, struct kn_report *ret)
{
	struct kn_report r;
	ssize_t n;

	do
		n = recv(sock, &r, sizeof(r), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	if (n == 0)
		return 0;
	if (n != sizeof(r) || r.kind < KN_REPORT_READY || r.kind > KN_REPORT_PREPARED)
		return -EPROTO;
	r.story[sizeof(r.story) - 1] = '\0';
	r.json[sizeof(r.json) - 1] = '\0';
	*ret = r;
	return 1;
}

/* ---- grants --------------------------------------------------------------------------------- */

struct grant {
	uint32_t magic, version;
	uint32_t slots;
	uint32_t busy;               /* 1: another client has the channel; no descriptors */
	uint64_t max_request_bytes, max_reply_bytes;
};

static int unix_address(const char *path, struct sockaddr_un *ret, struct kn_err *err)
{
	size_t len = strlen(path);
	if (len == 0 || len >= sizeof(ret->sun_path))
		return kn_fail(err, ENAMETOOLONG, "socket path '%s' must have 1 to %zu bytes", path,
		               sizeof(ret->sun_path) - 1);
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path, path, len + 1);
	return 0;
}

int kn_grant_listen(const char *path, struct kn_err *err)
{
	struct sockaddr_un a;

	int r = unix_address(path, &a, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return kn_fail(err, errno, "socket: %s", strerror(errno));
	mode_t mask = umask(0177);
	r = bind(fd, (const struct sockaddr *)&a, sizeof(a));
	int code = errno;
	umask(mask);
	if (r < 0)
		return kn_fail(err, code, "listen at '%s': %s", path, strerror(code));
	if (listen(fd, 16) < 0)
		return kn_fail(err, errno, "listen at '%s': %s", path, strerror(errno));
	return kn_take_fd(fd);
}

int kn_grant_send(int sock, const struct kn_channel_config *config, const struct kn_channel *ch)
{
	const struct grant g = {
		.magic = KN_GRANT_MAGIC,
		.version = 1,
		.slots = config->slots,
		.busy = ch ? 0 : 1,
		.max_request_bytes = config->max_request_bytes,
		.max_reply_bytes = config->max_reply_bytes,
	};
	if (!ch)
		return send(sock, &g, sizeof(g), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
	const int fds[] = { ch->memory, ch->bell, ch->note };
	return kn_send_fds(sock, &g, sizeof(g), fds, KN_ARRAY_LEN(fds));
}

static int attach_grant(const struct grant *g, ssize_t n, const int *fds, size_t nfds,
                        struct kn_channel *ret, struct kn_err *err)
{
	if (n != sizeof(*g) || g->magic != KN_GRANT_MAGIC || g->version != 1)
		return kn_fail(err, EPROTO, "the monitor grants no channel");
	if (g->busy)
		return kn_fail(err, EBUSY, "another client has the channel");
	if (nfds != 3)
		return kn_fail(err, EPROTO, "grant with %zu descriptors instead of 3", nfds);
	const struct kn_channel_config c = {
		.slots = g->slots,
		.max_request_bytes = g->max_request_bytes,
		.max_reply_bytes = g->max_reply_bytes,
	};
	return kn_channel_attach(&c, fds[0], fds[1], fds[2], ret, err);
}

int kn_grant_take(const char *path, struct kn_channel *ret, int *ret_sock, struct kn_err *err)
{
	struct sockaddr_un a;
	struct grant g;
	int fds[3];
	size_t nfds = 0;

	int r = unix_address(path, &a, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0 || connect(sock, (const struct sockaddr *)&a, sizeof(a)) < 0)
		return kn_fail(err, errno, "connect to '%s': %s", path, strerror(errno));
	ssize_t n = kn_recv_fds(sock, &g, sizeof(g), fds, KN_ARRAY_LEN(fds), &nfds);
	if (n < 0)
		return kn_fail(err, (int)-n, "receive the grant: %s", strerror((int)-n));
	r = attach_grant(&g, n, fds, nfds, ret, err);
	if (r < 0) {
		for (size_t i = 0; i < nfds; i++)
			kn_close(fds[i]);
		return r;
	}
	*ret_sock = kn_take_fd(sock);
	return 0;
}
