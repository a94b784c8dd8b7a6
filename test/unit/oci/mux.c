/* Two ends over a socket pair in one loop; or one end against bytes written by hand. */
#include "oci/mux.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "test.h"

struct end {
	struct kn_mux *mux;
	uint32_t hello;             /* generation of the last greeting seen */
	unsigned hellos;
	struct kn_buf control;      /* all control messages, each followed by a bar */
	int opened[8];              /* guest: our ends of opened streams */
	size_t n_opened;
	int refuse;                 /* guest: errno for open */
	int drains;
	struct kn_err failed;
};

static struct kn_loop *loop;

static void on_hello(struct kn_mux *m, uint32_t generation, void *arg)
{
	struct end *e = arg;

	(void)m;
	e->hello = generation;
	e->hellos++;
}

static void on_control(struct kn_mux *m, struct kn_view message, void *arg)
{
	struct end *e = arg;

	(void)m;
	kn_buf_add_view(&e->control, message);
	kn_buf_adds(&e->control, "|");
}

static int on_open(struct kn_mux *m, void *arg)
{
	struct end *e = arg;
	int p[2];

	(void)m;
	if (e->refuse)
		return -e->refuse;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p), 0);
	e->opened[e->n_opened++] = p[0];
	return p[1];
}

static void on_drain(struct kn_mux *m, void *arg)
{
	struct end *e = arg;

	assert_true(kn_mux_unsent(m) <= KN_MUX_DRAINED);
	e->drains++;
}

static void on_failed(struct kn_mux *m, const struct kn_err *err, void *arg)
{
	struct end *e = arg;

	(void)m;
	e->failed = *err;
}

static void make(struct end *e, int fd, bool host, uint32_t generation)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_mux_config c = { .host = host,
		                   .generation = generation,
		                   .events = { .hello = on_hello, .control = on_control,
		                               .open = on_open, .drain = on_drain,
		                               .failed = on_failed, .arg = e } };

	assert_ok(kn_mux_new(loop, fd, &c, &e->mux, &err), &err);
}

static void fini(struct end *e)
{
	kn_mux_free(e->mux);
	kn_buf_fini(&e->control);
	for (size_t i = 0; i < e->n_opened; i++)
		kn_close(e->opened[i]);
}

static void turn(int rounds)
{
	while (rounds-- > 0)
		assert_int_equal(kn_loop_once(loop, 0) < 0, 0);
}

static void pair(int p[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p), 0);
}

static void both(struct end *host, struct end *guest)
{
	int p[2];

	pair(p);
	*host = *guest = (struct end){ .mux = NULL };
	make(host, p[0], true, 7);
	make(guest, p[1], false, 0);
}

/* Open a stream; our end of it on the host. */
static int open_stream(struct end *host)
{
	struct kn_err err = KN_ERR_INIT;
	int p[2];

	pair(p);
	assert_ok(kn_mux_open(host->mux, p[1], &err), &err);
	return p[0];
}

static void greeting_goes_both_ways(void **state)
{
	struct end host, guest;

	(void)state;
	both(&host, &guest);
	turn(5);
	assert_int_equal(guest.hello, 7);
	assert_int_equal(host.hello, 7);
	fini(&host);
	fini(&guest);
}

static void control_messages_keep_their_bounds(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct end host, guest;

	(void)state;
	both(&host, &guest);
	size_t big = 3 * KN_MUX_MAX_PAYLOAD + 1;
	char *text = malloc(KN_MUX_MAX_CONTROL + 1);
	memset(text, 'x', KN_MUX_MAX_CONTROL + 1);
	assert_ok(kn_mux_control(host.mux, KN_VIEW("one"), &err), &err);
	assert_ok(kn_mux_control(host.mux, (struct kn_view){ text, big }, &err), &err);
	assert_ok(kn_mux_control(host.mux, KN_VIEW("two"), &err), &err);
	turn(20);
	assert_int_equal(guest.control.len, 4 + big + 1 + 4);
	assert_memory_equal(guest.control.ptr, "one|xxx", 7);
	assert_memory_equal(guest.control.ptr + guest.control.len - 6, "x|two|", 6);
	assert_fails(kn_mux_control(host.mux, (struct kn_view){ text, KN_MUX_MAX_CONTROL + 1 }, &err),
	             EMSGSIZE, &err, "524289 bytes");
	free(text);
	fini(&host);
	fini(&guest);
}

/* Whoever stopped because of what was unsent must be woken, also when the queue was never full. */
static void who_queued_much_hears_when_it_is_sent(void **state)
{
	struct end host, guest;
	char text[4000];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	both(&host, &guest);
	turn(5);
	memset(text, 'x', sizeof(text));
	for (int round = 1; round <= 3; round++) {
		while (kn_mux_unsent(guest.mux) <= KN_MUX_DRAINED)
			assert_ok(kn_mux_control(guest.mux, (struct kn_view){ text, sizeof(text) },
			                         &err),
			          &err);
		turn(50);
		assert_int_equal(guest.drains, round);
		assert_int_equal(kn_mux_unsent(guest.mux), 0);
	}
	fini(&host);
	fini(&guest);
}

static void streams_carry_bytes_and_half_closes(void **state)
{
	struct end host, guest;
	char text[16];

	(void)state;
	both(&host, &guest);
	int a = open_stream(&host);
	assert_int_equal(write(a, "ask", 3), 3);
	shutdown(a, SHUT_WR);
	turn(10);
	assert_int_equal(guest.n_opened, 1);
	int b = guest.opened[0];
	assert_int_equal(read(b, text, sizeof(text)), 3);
	assert_int_equal(read(b, text, sizeof(text)), 0);
	assert_int_equal(write(b, "answer", 6), 6);
	turn(10);
	assert_int_equal(read(a, text, sizeof(text)), 6);
	assert_int_equal(read(a, text, sizeof(text)), -1);
	assert_int_equal(errno, EAGAIN);
	shutdown(b, SHUT_WR);
	turn(10);
	assert_int_equal(read(a, text, sizeof(text)), 0);
	assert_int_equal(kn_mux_streams(host.mux), 0);
	assert_int_equal(kn_mux_streams(guest.mux), 0);
	close(a);
	fini(&host);
	fini(&guest);
}

static void a_client_that_leaves_resets_the_other_end(void **state)
{
	struct end host, guest;
	char text[16];

	(void)state;
	both(&host, &guest);
	int a = open_stream(&host);
	turn(5);
	close(a);
	turn(10);
	assert_int_equal(read(guest.opened[0], text, sizeof(text)), 0);
	assert_int_equal(send(guest.opened[0], "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(kn_mux_streams(host.mux), 0);
	assert_int_equal(kn_mux_streams(guest.mux), 0);
	fini(&host);
	fini(&guest);
}

static void a_refused_stream_is_closed(void **state)
{
	struct end host, guest;
	char text[16];

	(void)state;
	both(&host, &guest);
	guest.refuse = ECONNREFUSED;
	int a = open_stream(&host);
	assert_int_equal(write(a, "ask", 3), 3);
	turn(10);
	assert_true(read(a, text, sizeof(text)) <= 0);
	assert_int_equal(kn_mux_streams(host.mux), 0);
	assert_int_equal(host.failed.code, 0);
	close(a);
	fini(&host);
	fini(&guest);
}

/* Feed from until total bytes went in; take at most step bytes a round at to. Checks the content. */
static void transfer(int from, int to, size_t total, size_t step, struct end *host,
                     struct end *guest)
{
	size_t sent = 0, got = 0;
	char chunk[65536];

	for (int rounds = 0; got < total && rounds < 2000000; rounds++) {
		while (sent < total) {
			size_t n = kn_min(sizeof(chunk), total - sent);
			for (size_t i = 0; i < n; i++)
				chunk[i] = (char)((sent + i) * 31 >> 3);
			ssize_t w = write(from, chunk, n);
			if (w <= 0)
				break;
			sent += (size_t)w;
		}
		turn(1);
		ssize_t r = read(to, chunk, step);
		for (ssize_t i = 0; i < r; i++)
			if (chunk[i] != (char)((got + (size_t)i) * 31 >> 3))
				fail_msg("byte %zu differs", got + (size_t)i);
		got += r > 0 ? (size_t)r : 0;
		assert_true(kn_mux_unsent(host->mux) < 1 << 20);
		assert_true(kn_mux_unsent(guest->mux) < 1 << 20);
	}
	assert_int_equal(got, total);
}

static void a_slow_reader_holds_its_own_stream_only(void **state)
{
	struct end host, guest;

	(void)state;
	both(&host, &guest);
	int stuck = open_stream(&host), a = open_stream(&host);
	turn(10);
	assert_int_equal(guest.n_opened, 2);
	char fill[4096] = { 0 };
	/* Nobody reads `stuck` at the guest: it takes what sockets and window hold, then stops. */
	size_t held = 0;
	for (int i = 0; i < 5000; i++) {
		ssize_t n = write(stuck, fill, sizeof(fill));
		held += n > 0 ? (size_t)n : 0;
		turn(1);
	}
	assert_true(held < 2 << 20);
	transfer(a, guest.opened[1], 4 << 20, 65536, &host, &guest);
	transfer(guest.opened[1], a, 4 << 20, 1000, &host, &guest);
	assert_int_equal(host.failed.code, 0);
	assert_int_equal(guest.failed.code, 0);
	close(stuck);
	close(a);
	fini(&host);
	fini(&guest);
}

static void what_came_before_a_reset_is_still_delivered(void **state)
{
	struct end host, guest;
	char text[70000];

	(void)state;
	both(&host, &guest);
	int a = open_stream(&host);
	turn(5);
	int b = guest.opened[0];
	memset(text, 'y', sizeof(text));
	assert_int_equal(write(b, text, 65000), 65000);
	close(b);                     /* both directions: a reset follows the data */
	guest.n_opened = 0;
	turn(20);
	size_t got = 0;
	for (ssize_t n; (n = read(a, text, sizeof(text))) > 0;)
		got += (size_t)n;
	assert_int_equal(got, 65000);
	assert_int_equal(kn_mux_streams(host.mux), 0);
	close(a);
	fini(&host);
	fini(&guest);
}

/* As a server does that refuses a body: it answers, and does not wait for the rest. */
static void an_answer_before_the_end_of_the_request_is_delivered(void **state)
{
	struct end host, guest;
	char text[70000] = { 0 };

	(void)state;
	both(&host, &guest);
	int a = open_stream(&host);
	turn(5);
	int b = guest.opened[0];
	size_t sent = 0;
	for (ssize_t n; (n = write(a, text, sizeof(text))) > 0 && sent < 4 << 20; turn(1))
		sent += (size_t)n;
	memset(text, 'y', sizeof(text));
	assert_int_equal(write(b, text, 60000), 60000);
	close(b);
	guest.n_opened = 0;
	size_t got = 0;
	ssize_t n = 1;
	for (int i = 0; i < 1000 && n != 0 && !(n < 0 && errno != EAGAIN); i++) {
		(void)!send(a, text, 1000, MSG_NOSIGNAL);   /* it goes on, not knowing */
		turn(1);
		n = read(a, text, sizeof(text));
		got += n > 0 ? (size_t)n : 0;
	}
	assert_int_equal(got, 60000);
	close(a);
	turn(20);
	assert_int_equal(kn_mux_streams(host.mux), 0);
	assert_int_equal(kn_mux_streams(guest.mux), 0);
	fini(&host);
	fini(&guest);
}

/* ---- drawn at random ------------------------------------------------------------------------ */

/* The pipe in two halves with a hand in the middle that lets as many bytes through as it likes. */
struct narrow {
	int to_host, to_guest;
	uint64_t seed;
};

/* Never the same twice, always the same for a seed (splitmix64). */
static uint64_t draw(struct narrow *w, uint64_t below)
{
	uint64_t z = w->seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (z ^ z >> 31) % below;
}

static void let_through(struct narrow *w, int from, int to)
{
	static char text[1 << 16];
	size_t most = draw(w, 4) ? 1 + draw(w, sizeof(text)) : draw(w, 20);
	ssize_t n = most ? recv(from, text, most, MSG_PEEK) : 0;

	if (n <= 0)
		return;
	ssize_t m = write(to, text, (size_t)n);
	if (m > 0)
		assert_int_equal(read(from, text, (size_t)m), m);
}

static void both_narrow(struct end *host, struct end *guest, struct narrow *w, uint64_t seed)
{
	int p[2], q[2], bytes = 4096;

	pair(p);
	pair(q);
	for (size_t i = 0; i < 2; i++) {
		setsockopt(p[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
		setsockopt(q[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	}
	*host = *guest = (struct end){ .mux = NULL };
	make(host, p[0], true, 7);
	make(guest, q[0], false, 0);
	*w = (struct narrow){ .to_host = p[1], .to_guest = q[1], .seed = seed };
}

/* One direction of a stream: what its writer has written, its reader has read. */
struct flow {
	int from, to;
	size_t total, sent, got;
	bool closed, ended;
};

static char byte_at(const struct flow *f, size_t at)
{
	return (char)((at ^ f->total) * 2654435761u >> 13);
}

static void feed(struct flow *f, struct narrow *w)
{
	static char text[1 << 15];
	size_t n = kn_min((size_t)draw(w, sizeof(text)), f->total - f->sent);

	if (f->closed)
		return;
	for (size_t i = 0; i < n; i++)
		text[i] = byte_at(f, f->sent + i);
	ssize_t wrote = n ? write(f->from, text, n) : 0;
	f->sent += wrote > 0 ? (size_t)wrote : 0;
	if (f->sent < f->total)
		return;
	assert_int_equal(shutdown(f->from, SHUT_WR), 0);
	f->closed = true;
}

static void drink(struct flow *f, struct narrow *w)
{
	static char text[1 << 15];

	if (f->ended)
		return;
	ssize_t n = read(f->to, text, 1 + (size_t)draw(w, sizeof(text)));
	f->ended = n == 0;
	for (ssize_t i = 0; i < n; i++)
		if (text[i] != byte_at(f, f->got + (size_t)i))
			fail_msg("byte %zu of %zu differs", f->got + (size_t)i, f->total);
	f->got += n > 0 ? (size_t)n : 0;
}

enum { FLOWS = 8 };

/* Every flow is fed and drunk, by a writer and a reader that may each be lazy. */
static void run_flows(struct flow flows[FLOWS], struct narrow *w)
{
	uint64_t lazy = draw(w, 1 << 2 * FLOWS);
	size_t ended = 0;

	for (int round = 0; ended < FLOWS && round < 200000; round++) {
		ended = 0;
		for (unsigned i = 0; i < FLOWS; i++) {
			if (draw(w, lazy >> i & 1 ? 30 : 2) == 0)
				feed(&flows[i], w);
			if (draw(w, lazy >> (FLOWS + i) & 1 ? 30 : 2) == 0)
				drink(&flows[i], w);
			ended += flows[i].ended;
		}
		let_through(w, w->to_host, w->to_guest);
		let_through(w, w->to_guest, w->to_host);
		turn(1);
	}
	for (size_t i = 0; i < FLOWS; i++)
		if (!flows[i].ended || flows[i].got != flows[i].total)
			fail_msg("flow %zu: %zu bytes of %zu, %zu sent, end %d", i, flows[i].got,
			         flows[i].total, flows[i].sent, flows[i].ended);
}

static void nothing_is_lost_however_the_pipe_is_cut(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct end host, guest;
		struct narrow w;
		struct flow flows[FLOWS] = { 0 };

		both_narrow(&host, &guest, &w, seed);
		for (size_t i = 0; i < FLOWS; i += 2) {
			int a = open_stream(&host);
			for (int k = 0; k < 2000 && guest.n_opened <= i / 2; k++) {
				let_through(&w, w.to_host, w.to_guest);
				let_through(&w, w.to_guest, w.to_host);
				turn(1);
			}
			assert_int_equal(guest.n_opened, i / 2 + 1);
			int b = guest.opened[i / 2];
			size_t most = draw(&w, 3) ? 400000 : 3;
			flows[i] = (struct flow){ .from = a, .to = b, .total = draw(&w, most) };
			flows[i + 1] = (struct flow){ .from = b, .to = a, .total = draw(&w, most) };
		}
		run_flows(flows, &w);
		assert_int_equal(host.failed.code, 0);
		assert_int_equal(guest.failed.code, 0);
		for (int k = 0; k < 200; k++) {   /* the last ends and credits */
			let_through(&w, w.to_host, w.to_guest);
			let_through(&w, w.to_guest, w.to_host);
			turn(1);
		}
		assert_int_equal(kn_mux_streams(host.mux), 0);
		assert_int_equal(kn_mux_streams(guest.mux), 0);
		for (size_t i = 0; i < FLOWS; i += 2)
			close(flows[i].from);
		fini(&host);
		fini(&guest);
		close(w.to_host);
		close(w.to_guest);
	}
}

static void number_of_streams_is_bounded(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct end host, guest;
	int ours[KN_MUX_MAX_STREAMS], p[2];

	(void)state;
	both(&host, &guest);
	guest.refuse = 0;
	for (size_t i = 0; i < KN_MUX_MAX_STREAMS; i++)
		ours[i] = open_stream(&host);
	pair(p);
	assert_fails(kn_mux_open(host.mux, p[1], &err), EMFILE, &err, "256 streams");
	close(p[0]);
	for (size_t i = 0; i < KN_MUX_MAX_STREAMS; i++)
		close(ours[i]);
	kn_mux_free(guest.mux);
	guest.mux = NULL;
	fini(&host);
	fini(&guest);
}

/* ---- one end against bytes ----------------------------------------------------------------- */

static void raw(int fd, enum kn_mux_frame_type type, uint8_t flags, uint32_t stream,
                struct kn_view payload)
{
	struct kn_buf b = KN_BUF_INIT;

	kn_mux_put(&b, type, flags, stream, payload);
	assert_int_equal(kn_write_all(fd, b.ptr, b.len), 0);
	kn_buf_fini(&b);
}

#define HELLO_OF(g) ((struct kn_view){ "kiln-mux 1\r\n" g "\0\0\0", 16 })

static void a_new_generation_drops_everything(void **state)
{
	struct end guest = { .mux = NULL };
	char text[256];
	int p[2];

	(void)state;
	pair(p);
	make(&guest, p[1], false, 0);
	raw(p[0], KN_MUX_HELLO, 0, 0, HELLO_OF("\1"));
	raw(p[0], KN_MUX_OPEN, 0, 5, KN_VIEW_NULL);
	raw(p[0], KN_MUX_CONTROL, KN_MUX_MORE, 0, KN_VIEW("half of "));
	turn(10);
	assert_int_equal(kn_mux_streams(guest.mux), 1);
	raw(p[0], KN_MUX_HELLO, 0, 0, HELLO_OF("\2"));
	raw(p[0], KN_MUX_CONTROL, 0, 0, KN_VIEW("whole"));
	turn(10);
	assert_int_equal(guest.hello, 2);
	assert_int_equal(guest.hellos, 2);
	assert_int_equal(kn_mux_streams(guest.mux), 0);
	assert_int_equal(read(guest.opened[0], text, sizeof(text)), 0);
	assert_view(kn_buf_view(&guest.control), "whole|");
	/* both greetings were answered, and nothing else was said */
	assert_int_equal(read(p[0], text, sizeof(text)), 48);
	assert_memory_equal(text + 24 + 8, "kiln-mux 1\r\n\2\0\0\0", 16);
	close(p[0]);
	fini(&guest);
}

static void host_skips_what_an_earlier_life_left(void **state)
{
	struct end host = { .mux = NULL };
	int p[2];

	(void)state;
	pair(p);
	make(&host, p[1], true, 9);
	turn(2);
	/* the tail of a frame, an old greeting, and ours byte by byte */
	assert_int_equal(kn_write_all(p[0], "\xff\xff\xff half a frame", 16), 0);
	raw(p[0], KN_MUX_HELLO, 0, 0, HELLO_OF("\10"));
	raw(p[0], KN_MUX_CONTROL, 0, 0, KN_VIEW("old"));
	struct kn_buf b = KN_BUF_INIT;
	kn_mux_put(&b, KN_MUX_HELLO, 0, 0, HELLO_OF("\11"));
	kn_mux_put(&b, KN_MUX_CONTROL, 0, 0, KN_VIEW("new"));
	for (size_t i = 0; i < b.len; i++) {
		assert_int_equal(write(p[0], b.ptr + i, 1), 1);
		turn(1);
	}
	kn_buf_fini(&b);
	turn(5);
	assert_int_equal(host.hellos, 1);
	assert_view(kn_buf_view(&host.control), "new|");
	assert_int_equal(host.failed.code, 0);
	close(p[0]);
	turn(5);
	assert_int_not_equal(host.failed.code, 0);
	fini(&host);
}

/* What the peer may not do: each ends the mux with a reason. */
static void broken_rules_end_the_mux(void **state)
{
	static char window[KN_MUX_MAX_PAYLOAD];
	static const struct {
		enum kn_mux_frame_type type;
		uint8_t flags;
		uint32_t stream;
		struct kn_view payload;
		int times;
		const char *says;
	} cases[] = {
		{ (enum kn_mux_frame_type)9, 0, 0, { NULL, 0 }, 1, "unknown type 9" },
		{ KN_MUX_OPEN, 0, 5, { NULL, 0 }, 1, "opened by the wrong end or twice" },
		{ KN_MUX_OPEN, 0, 0, { NULL, 0 }, 1, "on stream 0" },
		{ KN_MUX_OPEN, 2, 6, { NULL, 0 }, 1, "flags 0x2" },
		{ KN_MUX_DATA, 0, 5, { window, sizeof(window) }, 9, "more data on stream 5" },
		{ KN_MUX_DATA, 0, 5, { NULL, 0 }, 1, "with 0 bytes" },
		{ KN_MUX_END, 0, 5, { NULL, 0 }, 2, "second end of stream 5" },
		{ KN_MUX_CREDIT, 0, 5, { "\1\0\0\0", 4 }, 1, "more than the window" },
		{ KN_MUX_CREDIT, 0, 5, { "\1\0\0", 3 }, 1, "with 3 bytes" },
		{ KN_MUX_CONTROL, KN_MUX_MORE, 0, { window, sizeof(window) }, 33, "longer than" },
		{ KN_MUX_HELLO, 0, 0, { "kiln-mux 2\r\n\1\0\0\0", 16 }, 1, "another protocol" },
	};
	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct end guest = { .mux = NULL };
		int p[2];

		pair(p);
		make(&guest, p[1], false, 0);
		raw(p[0], KN_MUX_HELLO, 0, 0, HELLO_OF("\1"));
		raw(p[0], KN_MUX_OPEN, 0, 5, KN_VIEW_NULL);
		turn(5);
		/* Keep the stream's socket full, so that the window alone takes what comes. */
		char fill[4096] = { 0 };
		int small = 1;
		setsockopt(guest.opened[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		(void)fill;
		for (int n = 0; n < cases[i].times * 4 && guest.failed.code == 0; n++) {
			raw(p[0], cases[i].type, cases[i].flags, cases[i].stream,
			    cases[i].payload);
			turn(3);
			if (n + 1 >= cases[i].times && cases[i].type != KN_MUX_DATA)
				break;
		}
		turn(3);
		if (guest.failed.code != EBADMSG || !strstr(guest.failed.text, cases[i].says))
			fail_msg("case %zu: %d '%s' does not say '%s'", i, guest.failed.code,
			         guest.failed.text, cases[i].says);
		close(p[0]);
		fini(&guest);
	}
}

static void frames_of_unknown_streams_are_dropped(void **state)
{
	struct end guest = { .mux = NULL };
	int p[2];

	(void)state;
	pair(p);
	make(&guest, p[1], false, 0);
	raw(p[0], KN_MUX_HELLO, 0, 0, HELLO_OF("\1"));
	raw(p[0], KN_MUX_DATA, 0, 77, KN_VIEW("late"));
	raw(p[0], KN_MUX_RESET, 0, 77, (struct kn_view){ "\1\0\0\0", 4 });
	raw(p[0], KN_MUX_CONTROL, 0, 0, KN_VIEW("alive"));
	turn(5);
	assert_int_equal(guest.failed.code, 0);
	assert_view(kn_buf_view(&guest.control), "alive|");
	close(p[0]);
	fini(&guest);
}

static int setup(void **state)
{
	(void)state;
	return kn_loop_new(&loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	kn_loop_free(loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(greeting_goes_both_ways),
		cmocka_unit_test(control_messages_keep_their_bounds),
		cmocka_unit_test(who_queued_much_hears_when_it_is_sent),
		cmocka_unit_test(streams_carry_bytes_and_half_closes),
		cmocka_unit_test(a_client_that_leaves_resets_the_other_end),
		cmocka_unit_test(a_refused_stream_is_closed),
		cmocka_unit_test(a_slow_reader_holds_its_own_stream_only),
		cmocka_unit_test(what_came_before_a_reset_is_still_delivered),
		cmocka_unit_test(an_answer_before_the_end_of_the_request_is_delivered),
		cmocka_unit_test(nothing_is_lost_however_the_pipe_is_cut),
		cmocka_unit_test(number_of_streams_is_bounded),
		cmocka_unit_test(a_new_generation_drops_everything),
		cmocka_unit_test(host_skips_what_an_earlier_life_left),
		cmocka_unit_test(broken_rules_end_the_mux),
		cmocka_unit_test(frames_of_unknown_streams_are_dropped),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
