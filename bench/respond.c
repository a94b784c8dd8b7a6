/*
 * The function of the gateway's benchmark: answers every request on a Unix socket with the same few
 * bytes, and does nothing else, so that what remains is the gateway's cost. One thread, epoll.
 *
 * Usage: respond SOCKET
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char REPLY[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n"
			    "Connection: keep-alive\r\n\r\nHello, World\n";

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || strlen(path) >= sizeof(addr.sun_path))
		return -1;
	memcpy(addr.sun_path, path, strlen(path));
	unlink(path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1024) < 0)
		return -1;
	return fd;
}

static void watch(int ep, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0)
		close(fd);
}

/* Requests have no body here: each ends with an empty line, and comes in one piece. */
static void answer(int fd)
{
	static char in[16384];
	ssize_t n = read(fd, in, sizeof(in));

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			close(fd);
		return;
	}
	for (char *at = in; (at = memmem(at, (size_t)(in + n - at), "\r\n\r\n", 4)); at += 4) {
		if (write(fd, REPLY, sizeof(REPLY) - 1) < 0)
			return;
	}
}

int main(int argc, char **argv)
{
	struct epoll_event events[256];
	int ep = epoll_create1(EPOLL_CLOEXEC);
	int listener = argc == 2 ? listen_at(argv[1]) : -1;

	if (ep < 0 || listener < 0) {
		fprintf(stderr, "respond: cannot listen: %s\n", strerror(errno));
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	watch(ep, listener);
	for (;;) {
		int n = epoll_wait(ep, events, 256, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd != listener) {
				answer(events[i].data.fd);
				continue;
			}
			int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
			if (fd >= 0)
				watch(ep, fd);
		}
	}
}
