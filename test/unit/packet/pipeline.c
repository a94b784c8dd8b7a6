#include "packet/fixture.h"

#include "base/json.h"
#include "packet/header.h"
#include "packet/pipeline.h"

static const char *const mixed[] = {
	ETH4 IP4("0020", "11") UDP("000c") "deadbeef",
	ETH4 IP4("0028", "06") TCP,
	ETH4 IP4("0020", "11") UDP("00ff") "deadbeef",
	"0200",
	ETH6 IP6("0014", "06") TCP,
	ETH6 IP6("000c", "11") UDP("000c") "deadbeef",
};

struct rig {
	struct kn_pool *pool;
	struct kn_port *in, *out;
	struct kn_pipeline *p;
};

static void add(struct kn_pipeline *p, struct kn_stage *stage)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_pipeline_add(p, stage, &err), &err);
}

/* receive, parse, a rule that drops TCP, send into a port of this capacity */
static void build(struct rig *r, uint32_t out_capacity)
{
	struct kn_rule rule = { "no tcp", KN_MATCH_ANY, KN_DROP };
	struct kn_acl *acl;
	struct kn_stage *s;

	rule.match.has_proto = true;
	rule.match.proto = KN_PROTO_TCP;
	assert_int_equal(kn_pool_new(&KN_POOL_DEFAULTS, &r->pool, NULL), 0);
	assert_int_equal(kn_port_memory_new(KN_POOL_FRAMES, &r->in, NULL), 0);
	assert_int_equal(kn_port_memory_new(out_capacity, &r->out, NULL), 0);
	assert_int_equal(kn_pipeline_new(&r->p, NULL), 0);
	assert_int_equal(kn_acl_new(&rule, 1, KN_PASS, &acl, NULL), 0);
	assert_int_equal(kn_stage_receive(r->in, &s, NULL), 0);
	add(r->p, s);
	assert_int_equal(kn_stage_parse(NULL, &s, NULL), 0);
	add(r->p, s);
	assert_int_equal(kn_stage_acl("firewall", acl, &s, NULL), 0);
	add(r->p, s);
	assert_int_equal(kn_stage_send(r->out, &s, NULL), 0);
	add(r->p, s);
}

static void tear_down(struct rig *r)
{
	kn_pipeline_free(r->p);
	kn_port_close(r->in);
	kn_port_close(r->out);
	assert_int_equal(kn_pool_available(r->pool), KN_POOL_FRAMES);
	kn_pool_free(r->pool);
}

static void feed(struct rig *r, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint8_t bytes[FIXTURE_MAX];
		struct kn_frame *f;
		uint32_t len = (uint32_t)bytes_of(mixed[i % KN_ARRAY_LEN(mixed)], bytes);
		assert_int_equal(kn_pool_take(r->pool, 1, &f), 1);
		assert_true(kn_frame_fill(f, bytes, len));
		f->ts_ns = i;
		assert_int_equal(kn_port_memory_push(r->in, &f, 1), 1);
	}
}

static uint64_t dropped(const struct kn_pipeline *p)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < KN_REASON_COUNT; i++)
		sum += kn_pipeline_drops(p, (enum kn_reason)i);
	return sum;
}

static const volatile sig_atomic_t never;

static void every_frame_is_sent_or_counted(void **state)
{
	struct rig r;
	struct kn_err err = KN_ERR_INIT;
	struct kn_frame *f;
	uint64_t last = 0;

	(void)state;
	build(&r, KN_POOL_FRAMES);
	feed(&r, 600);
	assert_ok(kn_pipeline_run(r.p, &never, &err), &err);
	assert_true(kn_pipeline_ended(r.p));
	assert_int_equal(kn_pipeline_received(r.p).frames, 600);
	assert_int_equal(kn_pipeline_sent(r.p).frames, 200);
	assert_int_equal(kn_pipeline_sent(r.p).bytes, 100 * 46 + 100 * 66);
	assert_int_equal(kn_pipeline_drops(r.p, KN_DROP_ACL_RULE), 200);
	assert_int_equal(kn_pipeline_drops(r.p, KN_DROP_UDP_LENGTH), 100);
	assert_int_equal(kn_pipeline_drops(r.p, KN_DROP_ETH_SHORT), 100);
	assert_int_equal(dropped(r.p), 400);
	while (kn_port_memory_pull(r.out, &f, 1)) {
		assert_true(f->ts_ns >= last);
		last = f->ts_ns;
		kn_frames_put(&f, 1);
	}
	assert_int_equal(last, 599);
	tear_down(&r);
}

static void what_the_port_refuses_is_counted(void **state)
{
	struct rig r;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	build(&r, 5);
	feed(&r, 60);
	assert_ok(kn_pipeline_run(r.p, &never, &err), &err);
	assert_int_equal(kn_pipeline_sent(r.p).frames, 5);
	assert_int_equal(kn_pipeline_drops(r.p, KN_DROP_TX_FULL), 15);
	assert_int_equal(dropped(r.p), 55);
	tear_down(&r);
}

static void a_chain_without_send_counts_what_is_left(void **state)
{
	struct rig r;
	struct kn_stage *s;
	struct kn_pipeline *p;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	build(&r, 5);
	feed(&r, 60);
	assert_ok(kn_pipeline_new(&p, &err), &err);
	assert_ok(kn_stage_receive(r.in, &s, &err), &err);
	add(p, s);
	assert_ok(kn_pipeline_run(p, &never, &err), &err);
	assert_int_equal(kn_pipeline_drops(p, KN_DROP_NOT_SENT), 60);
	kn_pipeline_free(p);
	tear_down(&r);
}

struct seen {
	uint32_t batches, frames, sent, by_rule;
};

static void watch(void *context, const struct kn_batch *b)
{
	struct seen *s = context;

	s->batches++;
	s->frames += b->n;
	s->sent += kn_lanes_count(b->sent);
	for (uint32_t i = 0; i < b->n; i++) {
		bool was_sent = b->sent >> i & 1;
		assert_int_equal(was_sent, b->why[i] == KN_REASON_NONE);
		if (b->why[i] == KN_DROP_ACL_RULE) {
			assert_string_equal(b->rule[i], "no tcp");
			s->by_rule++;
		}
	}
}

static void an_observer_sees_each_fate(void **state)
{
	struct rig r;
	struct seen seen = { 0 };
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	build(&r, KN_POOL_FRAMES);
	feed(&r, 70);
	kn_pipeline_observe(r.p, watch, &seen);
	assert_ok(kn_pipeline_run(r.p, &never, &err), &err);
	assert_int_equal(seen.batches, 3);
	assert_int_equal(seen.frames, 70);
	assert_int_equal(seen.sent, kn_pipeline_sent(r.p).frames);
	assert_int_equal(seen.by_rule, kn_pipeline_drops(r.p, KN_DROP_ACL_RULE));
	tear_down(&r);
}

static void a_stop_ends_after_the_batch(void **state)
{
	static const volatile sig_atomic_t now = 1;
	struct rig r;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	build(&r, KN_POOL_FRAMES);
	feed(&r, 100);
	assert_int_equal(kn_pipeline_step(r.p, &err), 32);
	assert_ok(kn_pipeline_run(r.p, &now, &err), &err);
	assert_int_equal(kn_pipeline_received(r.p).frames, 32);
	tear_down(&r);
}

static void a_broken_output_stops_the_run_and_counts(void **state)
{
	struct rig r;
	struct kn_port *full;
	struct kn_pipeline *p;
	struct kn_stage *s;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	build(&r, 5);
	feed(&r, 2000);
	assert_ok(kn_port_pcap_write("/dev/full", &full, &err), &err);
	assert_ok(kn_pipeline_new(&p, &err), &err);
	assert_ok(kn_stage_receive(r.in, &s, &err), &err);
	add(p, s);
	assert_ok(kn_stage_send(full, &s, &err), &err);
	add(p, s);
	assert_fails(kn_pipeline_run(p, &never, &err), ENOSPC, &err, "/dev/full");
	assert_int_equal(kn_pipeline_received(p).frames, kn_pipeline_sent(p).frames + dropped(p));
	assert_true(kn_pipeline_received(p).frames < 2000);
	kn_pipeline_free(p);
	kn_port_close(full);
	tear_down(&r);
}

static void the_report_has_every_counter(void **state)
{
	struct rig r;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	build(&r, KN_POOL_FRAMES);
	feed(&r, 6);
	assert_ok(kn_pipeline_run(r.p, &never, &err), &err);
	kn_auto(json_decref) json_t *report = kn_pipeline_report(r.p);
	kn_auto(kn_free) char *text = json_dumps(report, JSON_COMPACT);
	assert_string_equal(
		text,
		"{\"received\":{\"frames\":6,\"bytes\":288},"
		"\"sent\":{\"frames\":2,\"bytes\":112},"
		"\"dropped\":{\"frames\":4,\"by_reason\":"
		"{\"eth_short\":1,\"udp_length\":1,\"acl_rule\":2}},"
		"\"stages\":[{\"stage\":\"receive\",\"name\":\"receive\",\"port\":\"memory\"},"
		"{\"stage\":\"parse\",\"name\":\"parse\"},"
		"{\"stage\":\"acl\",\"name\":\"firewall\",\"rules\":["
		"{\"name\":\"no tcp\",\"action\":\"drop\",\"frames\":2},"
		"{\"name\":\"default\",\"action\":\"pass\",\"frames\":2}]},"
		"{\"stage\":\"send\",\"name\":\"send\",\"port\":\"memory\"}]}");
	tear_down(&r);
}

static void stages_have_their_places(void **state)
{
	struct rig r;
	struct kn_pipeline *p;
	struct kn_stage *receive, *parse, *map, *send;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	build(&r, 5);
	assert_ok(kn_pipeline_new(&p, &err), &err);
	assert_ok(kn_stage_receive(r.in, &receive, &err), &err);
	assert_ok(kn_stage_parse(NULL, &parse, &err), &err);
	assert_ok(kn_stage_call("ttl", kn_map_ttl, NULL, &map, &err), &err);
	assert_ok(kn_stage_send(r.out, &send, &err), &err);
	assert_fails(kn_pipeline_step(p, &err), EINVAL, &err, "empty");
	assert_fails(kn_pipeline_add(p, parse, &err), EINVAL, &err, "begins with 'receive'");
	add(p, receive);
	assert_fails(kn_pipeline_add(p, map, &err), EINVAL, &err, "needs 'parse'");
	add(p, parse);
	add(p, send);
	assert_fails(kn_pipeline_add(p, map, &err), EINVAL, &err, "behind 'send'");
	kn_stage_free(map);
	kn_pipeline_free(p);
	tear_down(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_frame_is_sent_or_counted),
		cmocka_unit_test(what_the_port_refuses_is_counted),
		cmocka_unit_test(a_chain_without_send_counts_what_is_left),
		cmocka_unit_test(an_observer_sees_each_fate),
		cmocka_unit_test(a_stop_ends_after_the_batch),
		cmocka_unit_test(a_broken_output_stops_the_run_and_counts),
		cmocka_unit_test(the_report_has_every_counter),
		cmocka_unit_test(stages_have_their_places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
