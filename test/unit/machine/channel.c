#include "test.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "machine/channel.h"

/* A guest of the test's own, in the same process: it holds the other end of the rings. */
struct guest {
	struct kn_ring requests, replies, logs;
	char *at;
};

static struct guest guest_of(const struct kn_channel *ch)
{
	return (struct guest){
		.requests = kn_ring_at(ch->at + KN_BARE_REQUEST_RING, KN_BARE_REQUESTS),
		.replies = kn_ring_at(ch->at + KN_BARE_REPLY_RING, KN_BARE_REPLIES),
		.logs = kn_ring_at(ch->at + KN_BARE_LOG_RING, KN_BARE_LOGS),
		.at = ch->at,
	};
}

static struct kn_ring_desc guest_take(struct guest *g, struct kn_bare_head *ret)
{
	struct kn_ring_desc d = { 0 };
	assert_int_equal(kn_ring_take(&g->requests, &d), KN_RING_OK);
	memcpy(ret, g->at + d.offset, sizeof(*ret));
	return d;
}

/* Reply with body and type; the head may be spoiled by the test before. */
static void guest_put(struct guest *g, const struct kn_bare_head *in, uint32_t slot,
                      struct kn_bare_head out, const char *body, const char *type)
{
	char *frame = g->at + in->reply_offset;
	memcpy(frame, &out, sizeof(out));
	memcpy(frame + sizeof(out), body, strlen(body));
	memcpy(frame + sizeof(out) + strlen(body), type, strlen(type));
	struct kn_ring_desc d = { in->reply_offset,
		                  (uint32_t)(sizeof(out) + strlen(body) + strlen(type)), slot };
	assert_int_equal(kn_ring_put(&g->replies, d), KN_RING_OK);
}

static struct kn_bare_head head_of(const char *body, const char *type)
{
	return (struct kn_bare_head){ .body_len = (uint32_t)strlen(body),
		                      .type_len = (uint16_t)strlen(type), .status = 200 };
}

static const struct kn_bare_message ask = {
	.method = { "POST", 4 }, .path = { "/a?b=1", 6 }, .call_id = { "id7", 3 },
	.content_type = { "text/plain", 10 }, .body = { "hello", 5 },
};

static struct kn_channel make(uint32_t slots)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_channel_config c = KN_CHANNEL_DEFAULTS;
	struct kn_channel ch;

	c.slots = slots;
	c.max_request_bytes = 1000;
	c.max_reply_bytes = 2000;
	assert_ok(kn_channel_new(&c, &ch, &err), &err);
	assert_int_equal(ch.bytes, kn_channel_bytes(&c));
	return ch;
}

static void request_and_reply_arrive_whole(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_channel ch = make(1);
	struct guest g = guest_of(&ch);
	struct kn_buf buf = KN_BUF_INIT;
	struct kn_bare_message reply;
	struct kn_bare_head in;
	uint64_t tag = 0;

	for (int i = 0; i < 200; i++) {
		assert_ok(kn_channel_call(&ch, &ask, 70u + (unsigned)i, &err), &err);
		assert_int_equal(kn_channel_busy(&ch), 1);
		assert_int_equal(kn_channel_take(&ch, &buf, &reply, &tag, &err), 0);
		struct kn_ring_desc d = guest_take(&g, &in);
		assert_memory_equal(g.at + d.offset + sizeof(in), "POST/a?b=1text/plainid7hello", 28);
		assert_int_equal(d.len, sizeof(in) + 28);
		guest_put(&g, &in, d.tag, head_of("world!", "a/b"), "world!", "a/b");
		assert_int_equal(kn_channel_take(&ch, &buf, &reply, &tag, &err), 1);
		assert_int_equal(tag, 70 + i);
		assert_int_equal(reply.status, 200);
		assert_view(reply.body, "world!");
		assert_view(reply.content_type, "a/b");
		assert_int_equal(kn_channel_busy(&ch), 0);
	}
	kn_buf_fini(&buf);
	kn_channel_fini(&ch);
}

static void bell_rings_only_for_a_sleeper(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_channel ch = make(2);
	struct guest g = guest_of(&ch);
	struct pollfd p = { .fd = ch.bell, .events = POLLIN };

	assert_ok(kn_channel_call(&ch, &ask, 1, &err), &err);
	assert_int_equal(poll(&p, 1, 0), 0);
	struct kn_bare_head in;
	guest_take(&g, &in);
	assert_true(kn_ring_sleep(&g.requests));
	assert_ok(kn_channel_call(&ch, &ask, 2, &err), &err);
	assert_int_equal(poll(&p, 1, 0), 1);
	kn_channel_fini(&ch);
}

static void calls_and_sizes_are_bounded(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_channel ch = make(2);
	static char large[KN_CHANNEL_MAX_STRINGS + 1];
	struct kn_bare_message m = ask;

	m.body = (struct kn_view){ large, 1001 };
	assert_fails(kn_channel_call(&ch, &m, 1, &err), EMSGSIZE, &err, "at most 1000");
	m = ask;
	m.path = (struct kn_view){ large, sizeof(large) };
	assert_fails(kn_channel_call(&ch, &m, 1, &err), EMSGSIZE, &err, "longer than 16 KiB");
	assert_ok(kn_channel_call(&ch, &ask, 1, &err), &err);
	assert_ok(kn_channel_call(&ch, &ask, 2, &err), &err);
	assert_fails(kn_channel_call(&ch, &ask, 3, &err), EAGAIN, &err, "2 calls");
	kn_channel_fini(&ch);

	struct kn_channel_config c = KN_CHANNEL_DEFAULTS;
	c.slots = 0;
	assert_fails(kn_channel_new(&c, &ch, &err), EINVAL, &err, "0 calls");
	c.slots = 64;
	c.max_reply_bytes = 1 << 30;
	assert_fails(kn_channel_new(&c, &ch, &err), EINVAL, &err, "larger than");
}

/* What a lying guest can write as a reply, and what is said then. */
static void lies_in_replies_are_found(void **state)
{
	(void)state;
	static const struct {
		uint32_t tag;
		int64_t offset;
		int64_t len;
		struct kn_bare_head head;
		const char *type, *why;
	} lies[] = {
		{ 1, 0, 0, { .status = 200 }, "", "call 1, which is not under way" },
		{ 64, 0, 0, { .status = 200 }, "", "not under way" },
		{ UINT32_MAX, 0, 0, { .status = 200 }, "", "not under way" },
		{ 0, 8, 0, { .status = 200 }, "", "outside its place" },
		{ 0, -4096, 0, { .status = 200 }, "", "outside its place" },
		{ 0, 0, -1, { .status = 200 }, "", "outside its place" },
		{ 0, 0, 100000, { .status = 200 }, "", "outside its place" },
		{ 0, 0, 0, { .status = 99 }, "", "status 99" },
		{ 0, 0, 0, { .status = 600 }, "", "status 600" },
		{ 0, 0, 0, { .status = 200, .body_len = 1 }, "", "do not add up" },
		{ 0, 0, 0, { .status = 200, .body_len = UINT32_MAX }, "", "do not add up" },
		{ 0, 0, 0, { .status = 200, .type_len = UINT16_MAX }, "", "do not add up" },
		{ 0, 0, 0, { .status = 200, .type_len = 3 }, "a\nb", "control characters" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(lies); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_channel ch = make(1);
		struct guest g = guest_of(&ch);
		struct kn_buf buf = KN_BUF_INIT;
		struct kn_bare_message reply;
		struct kn_bare_head in;
		uint64_t tag;

		assert_ok(kn_channel_call(&ch, &ask, 1, &err), &err);
		guest_take(&g, &in);
		memcpy(g.at + in.reply_offset, &lies[i].head, sizeof(lies[i].head));
		memcpy(g.at + in.reply_offset + sizeof(in), lies[i].type, strlen(lies[i].type));
		struct kn_ring_desc d = {
			in.reply_offset + (uint64_t)lies[i].offset,
			(uint32_t)((int64_t)(sizeof(in) + strlen(lies[i].type)) + lies[i].len),
			lies[i].tag,
		};
		assert_int_equal(kn_ring_put(&g.replies, d), KN_RING_OK);
		assert_fails(kn_channel_take(&ch, &buf, &reply, &tag, &err), EPROTO, &err, lies[i].why);
		kn_buf_fini(&buf);
		kn_channel_fini(&ch);
	}
}

static void counters_that_jump_break_the_channel(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_channel ch = make(1);
	struct kn_buf buf = KN_BUF_INIT;
	struct kn_bare_message reply;
	char line[KN_BARE_LOG_SLOT];
	uint64_t tag;

	atomic_store(&ch.replies.shared->head, 1000);
	assert_fails(kn_channel_take(&ch, &buf, &reply, &tag, &err), EPROTO, &err, "reply ring");
	atomic_store(&ch.logs.shared->head, 33);
	assert_fails(kn_channel_log(&ch, line, &err), EPROTO, &err, "log ring");
	kn_channel_fini(&ch);
}

static void log_lines_lose_control_characters(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_channel ch = make(1);
	struct guest g = guest_of(&ch);
	uint64_t area = ch.bytes - KN_BARE_LOG_BYTES;
	char line[KN_BARE_LOG_SLOT];

	memcpy(g.at + area, "a\tb\x1b[0m\n", 8);
	assert_int_equal(kn_ring_put(&g.logs, (struct kn_ring_desc){ area, 8, 0 }), KN_RING_OK);
	assert_int_equal(kn_channel_log(&ch, line, &err), 8);
	assert_string_equal(line, "a b?[0m?");
	assert_int_equal(kn_channel_log(&ch, line, &err), 0);

	static const struct kn_ring_desc lies[] = {
		{ 0, 10, 0 }, { UINT64_MAX, 10, 0 }, { 0, 0, 0 }, { 0, 256, 0 },
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(lies); i++) {
		struct kn_ring_desc d = lies[i];
		if (i >= 2)
			d.offset = area;
		assert_int_equal(kn_ring_put(&g.logs, d), KN_RING_OK);
		assert_fails(kn_channel_log(&ch, line, &err), EPROTO, &err, "log's place");
	}
	kn_channel_fini(&ch);
}

static void second_client_goes_on_where_the_first_left(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_channel_config c = { 1, 1000, 2000 };
	struct kn_channel first = make(1), second;
	struct guest g = guest_of(&first);
	struct kn_buf buf = KN_BUF_INIT;
	struct kn_bare_message reply;
	struct kn_bare_head in;
	uint64_t tag;

	assert_ok(kn_channel_call(&first, &ask, 1, &err), &err);
	assert_ok(kn_channel_attach(&c, dup(first.memory), dup(first.bell), dup(first.note), &second,
	                            &err), &err);
	assert_fails(kn_channel_call(&second, &ask, 2, &err), EAGAIN, &err, "earlier client");
	struct kn_ring_desc d = guest_take(&g, &in);
	guest_put(&g, &in, d.tag, head_of("old", ""), "old", "");
	assert_int_equal(kn_channel_take(&second, &buf, &reply, &tag, &err), 0);
	assert_ok(kn_channel_call(&second, &ask, 2, &err), &err);
	d = guest_take(&g, &in);
	guest_put(&g, &in, d.tag, head_of("new", ""), "new", "");
	assert_int_equal(kn_channel_take(&second, &buf, &reply, &tag, &err), 1);
	assert_view(reply.body, "new");
	assert_int_equal(tag, 2);

	c.max_reply_bytes = 1 << 20;
	assert_fails(kn_channel_attach(&c, first.memory, -1, -1, &second, &err), EINVAL, &err,
	             "not a channel's memory");
	kn_buf_fini(&buf);
	kn_channel_fini(&second);
	kn_channel_fini(&first);
}

static void hello_and_reports_pass_the_socket(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_channel ch = make(1);
	struct kn_hello sent = { .memory_bytes = 5, .id = "x" }, got;
	struct kn_hello_fds fds;
	struct kn_report report = { .kind = KN_REPORT_ENDED }, taken;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sv), 0);
	assert_int_equal(kn_hello_take(sv[1], false, &got, &fds, &err), -EAGAIN);
	assert_int_equal(kn_hello_send(sv[0], &sent, ch.memory, &ch), 0);
	assert_int_equal(kn_hello_take(sv[1], true, &got, &fds, &err), 1);
	assert_int_equal(got.memory_bytes, 5);
	close(fds.program), close(fds.memory), close(fds.bell), close(fds.note);

	memset(report.story, 'a', sizeof(report.story));
	assert_int_equal(kn_report_take(sv[0], &taken), -EAGAIN);
	assert_int_equal(kn_report_send(sv[1], &report), 0);
	assert_int_equal(kn_report_take(sv[0], &taken), 1);
	assert_int_equal(strlen(taken.story), sizeof(taken.story) - 1);

	assert_int_equal(send(sv[0], "bad", 3, 0), 3);
	assert_fails(kn_hello_take(sv[1], true, &got, &fds, &err), EPROTO, &err, "no hello");
	assert_int_equal(send(sv[1], "bad", 3, 0), 3);
	assert_int_equal(kn_report_take(sv[0], &taken), -EPROTO);
	close(sv[0]);
	assert_int_equal(kn_hello_take(sv[1], true, &got, &fds, &err), 0);
	close(sv[1]);
	kn_channel_fini(&ch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(request_and_reply_arrive_whole),
		cmocka_unit_test(bell_rings_only_for_a_sleeper),
		cmocka_unit_test(calls_and_sizes_are_bounded),
		cmocka_unit_test(lies_in_replies_are_found),
		cmocka_unit_test(counters_that_jump_break_the_channel),
		cmocka_unit_test(log_lines_lose_control_characters),
		cmocka_unit_test(second_client_goes_on_where_the_first_left),
		cmocka_unit_test(hello_and_reports_pass_the_socket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
