/* syscalls: recvfrom sendto close epoll_ctl */
#include "base/http/io.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SMALL_READ = 4096, BIG_READ = 64 * 1024, KEEP_BUFFER = 16 * 1024 };

ssize_t kn_http_io_fill(struct kn_http_io *io)
{
	kn_buf_drop(&io->in, io->in_at);
	io->in_at = 0;
	if (!kn_buf_reserve(&io->in, io->streaming ? BIG_READ : SMALL_READ))
		return -ENOMEM;

	size_t room = io->in.cap - io->in.len - 1;
	ssize_t n = recv(io->watch.fd, io->in.ptr + io->in.len, room, MSG_DONTWAIT);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	io->in.len += (size_t)n;
	io->streaming = (size_t)n == room;
	return n;
}

void kn_http_io_used(struct kn_http_io *io, size_t n)
{
	io->in_at += n;
	if (io->in_at < io->in.len)
		return;
	io->in_at = 0;
	if (io->in.cap > KEEP_BUFFER && !io->streaming)
		kn_buf_fini(&io->in);
	else
		kn_buf_clear(&io->in);
}

int kn_http_io_flush(struct kn_http_io *io)
{
	if (io->out.failed)
		return -ENOMEM;
	kn_http_io_full(io);
	while (io->out_at < io->out.len) {
		ssize_t n = send(io->watch.fd, io->out.ptr + io->out_at, io->out.len - io->out_at,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			kn_watch_want(&io->watch, io->watch.events | EPOLLOUT);
			if (io->out_at >= BIG_READ) {
				kn_buf_drop(&io->out, io->out_at);
				io->out_at = 0;
			}
			return 0;
		}
		if (n < 0)
			return -errno;
		io->out_at += (size_t)n;
	}
	io->out_at = 0;
	if (io->out.cap > KEEP_BUFFER)
		kn_buf_fini(&io->out);
	else
		kn_buf_clear(&io->out);
	kn_watch_want(&io->watch, io->watch.events & ~(uint32_t)EPOLLOUT);
	return 0;
}

bool kn_http_io_full(struct kn_http_io *io)
{
	bool full = kn_http_io_unsent(io) > KN_HTTP_HIGH_WATER;

	io->was_full |= full;
	return full;
}

bool kn_http_io_drained(struct kn_http_io *io)
{
	if (!io->was_full || kn_http_io_unsent(io) > KN_HTTP_HIGH_WATER / 2)
		return false;
	io->was_full = false;
	return true;
}

void kn_http_io_want_input(struct kn_http_io *io, bool wanted)
{
	uint32_t keep = io->watch.events & EPOLLOUT;

	kn_watch_want(&io->watch, keep | (wanted ? EPOLLIN | EPOLLRDHUP : 0U));
}

void kn_http_io_fini(struct kn_http_io *io)
{
	kn_watch_stop(&io->watch);
	kn_close(kn_take_fd(io->watch.fd));
	kn_buf_fini(&io->in);
	kn_buf_fini(&io->out);
}

static bool is_hop_by_hop(struct kn_view name)
{
	static const struct kn_view HOP[] = {
		KN_VIEW("connection"),
		KN_VIEW("content-length"),
		KN_VIEW("transfer-encoding"),
		KN_VIEW("keep-alive"),
		KN_VIEW("te"),
		KN_VIEW("trailer"),
		KN_VIEW("upgrade"),
		KN_VIEW("proxy-connection"),
		KN_VIEW("proxy-authenticate"),
		KN_VIEW("proxy-authorization"),
		KN_VIEW("expect"),
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(HOP); i++) {
		if (name.len == HOP[i].len && kn_view_is_nocase(name, HOP[i]))
			return true;
	}
	return false;
}

void kn_http_put_headers(struct kn_buf *out, const struct kn_header *headers, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (is_hop_by_hop(headers[i].name))
			continue;
		kn_buf_add_view(out, headers[i].name);
		kn_buf_add(out, ": ", 2);
		kn_buf_add_view(out, headers[i].value);
		kn_buf_add(out, "\r\n", 2);
	}
}

void kn_http_put_body(struct kn_buf *out, struct kn_view data, bool chunked)
{
	if (data.len == 0)
		return;
	if (chunked)
		kn_buf_printf(out, "%zx\r\n", data.len);
	kn_buf_add_view(out, data);
	if (chunked)
		kn_buf_add(out, "\r\n", 2);
}

void kn_http_put_u64(struct kn_buf *out, uint64_t n)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	kn_buf_add(out, digits + at, sizeof(digits) - at);
}
