/* Output of a process as log lines, with back-pressure from the pipe to the host. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/time.h"
#include "oci/agent/agent.h"

static void say(struct kn_agent *a, enum kn_stream stream, const char *text, size_t len)
{
	struct kn_agent_message m = { .type = KN_AGENT_LOG,
		                      .stream = (uint64_t)stream,
		                      .text = { text, len } };

	agent_say(a, &m);
}

/* ---- floods -------------------------------------------------------------------------------- */

/*
 * Who floods pays: a line that is dropped here costs the host nothing. The host has the same limit,
 * for guests that do not keep it.
 */
static bool is_too_much(struct flood *f, size_t bytes)
{
	uint64_t now = kn_now_ns();

	if (now - f->began_ns >= KN_NS_PER_S) {
		f->began_ns = now;
		f->lines = f->bytes = 0;
	}
	if (f->lines >= MAX_LINES_A_SECOND || f->bytes + bytes > MAX_BYTES_A_SECOND)
		return true;
	f->lines++;
	f->bytes += (uint32_t)bytes;
	return false;
}

void outputs_told(struct kn_agent *a)
{
	char text[96];

	if (a->flood.dropped == 0)
		return;
	int n = snprintf(text, sizeof(text), "%llu lines dropped: at most %d lines and %d KiB a second",
	                 (unsigned long long)a->flood.dropped, MAX_LINES_A_SECOND,
	                 MAX_BYTES_A_SECOND >> 10);
	a->flood.dropped = 0;
	kn_timer_stop(&a->flood.timer);
	say(a, KN_STDERR, text, (size_t)n);
}

void on_flood_time(struct kn_timer *t)
{
	outputs_told(kn_container_of(t, struct kn_agent, flood.timer));
}

static void say_line(struct output *o)
{
	struct kn_agent *a = o->agent;

	if (!is_too_much(&a->flood, o->len)) {
		say(a, o->stream, o->line, o->len);
	} else {
		a->flood.dropped++;
		/* Without memory for a timer the function's end tells. */
		if (!a->flood.timer.loop)
			(void)!kn_timer_start(a->loop, &a->flood.timer,
			                      a->flood.began_ns + KN_NS_PER_S, NULL);
	}
	o->len = 0;
}

/* ---- lines --------------------------------------------------------------------------------- */

/* Longer lines come in pieces. */
static void take(struct output *o, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == '\n') {
			say_line(o);
			continue;
		}
		if (o->len == sizeof(o->line))
			say_line(o);
		o->line[o->len++] = bytes[i];
	}
}

static void keep_tail(struct output *o, const char *bytes, size_t n)
{
	if (!o->tail)
		return;
	if (n > TAIL_BYTES) {
		bytes += n - TAIL_BYTES;
		n = TAIL_BYTES;
	}
	size_t keep = kn_min(*o->tail_len, TAIL_BYTES - n);
	memmove(o->tail, o->tail + *o->tail_len - keep, keep);
	memcpy(o->tail + keep, bytes, n);
	*o->tail_len = keep + n;
}

static void stop(struct output *o)
{
	kn_watch_stop(&o->watch);
	kn_close(kn_take_fd(o->watch.fd));
	*o->prev = o->next;
	if (o->next)
		o->next->prev = o->prev;
	o->prev = NULL;
}

/* One read; false at the end. */
static bool step(struct output *o)
{
	char bytes[8192];

	ssize_t n = read(o->watch.fd, bytes, sizeof(bytes));
	if (n < 0)
		return errno == EINTR;
	if (n == 0)
		return false;
	keep_tail(o, bytes, (size_t)n);
	take(o, bytes, (size_t)n);
	return true;
}

static void on_output(struct kn_watch *w, uint32_t events)
{
	struct output *o = kn_container_of(w, struct output, watch);

	(void)events;
	if (kn_mux_unsent(o->agent->mux) > OUTPUT_LIMIT) {
		kn_watch_stop(w);   /* outputs_resume() goes on: a hang-up would be reported forever */
		return;
	}
	errno = 0;
	if (!step(o) && errno != EAGAIN) {
		if (o->len > 0)
			say_line(o);
		stop(o);
	}
}

int output_start(struct kn_agent *a, struct output *o, int fd, enum kn_stream stream,
                 struct kn_err *err)
{
	o->agent = a;
	o->stream = stream;
	o->len = 0;
	o->watch = (struct kn_watch){ .fd = fd, .events = EPOLLIN, .call = on_output };
	int r = kn_watch_start(a->loop, &o->watch, err);
	if (r < 0) {
		kn_close(fd);
		return r;
	}
	o->next = a->outputs;
	o->prev = &a->outputs;
	if (o->next)
		o->next->prev = &o->next;
	a->outputs = o;
	return 0;
}

/*
 * What a process wrote before it ended is in the pipe by now. Its children may still hold it open:
 * they are not waited for, and no more than a pipe holds (1 MiB at most) is taken.
 */
void output_finish(struct output *o)
{
	if (!o->prev)
		return;
	for (int i = 0; i < 128 && step(o); i++)
		;
	if (o->len > 0)
		say_line(o);
	stop(o);
}

void outputs_resume(struct kn_agent *a)
{
	for (struct output *o = a->outputs; o; o = o->next)
		if (!o->watch.loop)
			(void)!kn_watch_start(a->loop, &o->watch, NULL);
}

void tail_text(const char *tail, size_t len, char *out, size_t out_len)
{
	size_t n = 0;

	while (len > 0 && isspace((unsigned char)tail[len - 1]))
		len--;
	/* The end says more than the beginning: at most what fits, from a line's start if possible. */
	size_t room = (out_len - 1) / 2;
	if (len > room) {
		const char *from = tail + len - room;
		const char *line = memchr(from, '\n', room / 2);
		from = line ? line + 1 : from;
		len -= (size_t)(from - tail);
		tail = from;
	}
	for (size_t i = 0; i < len && n + 4 < out_len; i++) {
		unsigned char c = (unsigned char)tail[i];
		if (c == '\n')
			n += (size_t)snprintf(out + n, out_len - n, " / ");
		else if (c >= 0x20 && c != 0x7f)
			out[n++] = (char)c;
	}
	out[n] = '\0';
}
