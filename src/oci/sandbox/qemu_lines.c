/* What the guest's kernel prints on its serial port, and QEMU on its standard error. */
#include <errno.h>
#include <unistd.h>

#include "oci/sandbox/qemu.h"

static const char PANIC[] = "Kernel panic - not syncing: ";

static void keep(char to[REASON_BYTES], const char *text, size_t len)
{
	len = kn_min(len, (size_t)REASON_BYTES - 1);
	memcpy(to, text, len);
	to[len] = '\0';
}

static void look_for_panic(struct lines *l)
{
	const char *at = memmem(l->line, l->len, PANIC, sizeof(PANIC) - 1);

	if (at && !l->q->panic[0] && l->stream == KN_CONSOLE) {
		at += sizeof(PANIC) - 1;
		keep(l->q->panic, at, (size_t)(l->line + l->len - at));
	}
}

static void tell(struct lines *l)
{
	struct qemu *q = l->q;

	while (l->len > 0 && l->line[l->len - 1] == '\r')
		l->len--;
	if (l->len > 0)
		keep(l->last, l->line, l->len);
	look_for_panic(l);
	if (q->events.log)
		q->events.log(&q->sb, l->stream, (struct kn_view){ l->line, l->len },
		              q->events.arg);
	l->len = 0;
}

/* One read; false when there is nothing more, now or ever. */
static bool step(struct lines *l)
{
	char bytes[LINE_BYTES];

	ssize_t n = read(l->watch.fd, bytes, sizeof(bytes));
	if (n < 0)
		return errno == EINTR;
	for (ssize_t i = 0; i < n; i++) {
		if (bytes[i] == '\n' || l->len == sizeof(l->line))
			tell(l);
		if (bytes[i] != '\n')
			l->line[l->len++] = bytes[i];
	}
	return n > 0;
}

static void on_output(struct kn_watch *w, uint32_t events)
{
	struct lines *l = kn_container_of(w, struct lines, watch);

	(void)events;
	errno = 0;
	if (!step(l) && errno != EAGAIN)
		kn_watch_stop(w);
}

int lines_start(struct qemu *q, struct lines *l, int fd, enum kn_stream stream, struct kn_err *err)
{
	l->q = q;
	l->stream = stream;
	l->watch = (struct kn_watch){ .fd = fd, .events = EPOLLIN, .call = on_output };
	return kn_watch_start(q->loop, &l->watch, err);
}

void lines_finish(struct lines *l)
{
	if (l->watch.fd < 0)
		return;
	while (step(l))
		;
	if (l->len > 0)
		tell(l);
	kn_watch_stop(&l->watch);
	kn_close(kn_take_fd(l->watch.fd));
}
