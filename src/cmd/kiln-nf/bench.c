/*
 * The firewall chain on memory ports against the same function as a loop written by hand. Both
 * work on the same frames in the same pool, in turns (hand, chain, chain, hand, ...); after every
 * turn every byte of every frame is held against what it must be. A round (2048 frames, about 10 us)
 * in which the kernel took the processor away is thrown away and counted.
 *
 * Two orders of frames. "anew": drawn anew for every round, so that nobody knows what comes next,
 * as in a network. "same": the same 2048 frames in the same order over and over; the processor's
 * branch predictor then knows them by heart, which flatters the loop, whose every rule is a branch.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/time.h"
#include "cmd/kiln-nf/byhand.h"
#include "cmd/kiln-nf/nf.h"
#include "cmd/kiln-nf/traffic.h"
#include "packet/pipeline.h"

#define NAME "kiln-nf bench"

enum {
	ROUNDS_LEAST = 20,
	ROUNDS_MOST = 40, /* below KN_BENCH_TTL, which each round takes one off */
	AWAY_NS = 3000,
	TURNS_MOST = 1000,
	TRIES = 5, /* turns tried for each that is wanted */
};

struct options {
	bool json;
	const char *engine;
	uint64_t turns, seed, pass_percent;
};

struct bench {
	struct kn_bench_traffic traffic;
	struct kn_frame *order[KN_BENCH_FRAMES], *scratch[KN_BENCH_FRAMES];
	struct kn_frame
		saved[KN_BENCH_FRAMES]; /* descriptors: the pool clears those it gives out */
	struct kn_pool *pool;
	struct kn_port *in, *out;
	struct kn_acl *acl; /* borrowed from its stage */
	struct kn_pipeline *pipeline;
	uint64_t clock_ns; /* what reading the CPU clock costs */
};

/* Nanoseconds a frame of one turn. */
struct cost {
	double wall, cpu;
	unsigned thrown; /* rounds */
	bool usable;	 /* most rounds were not interrupted */
};

struct turn {
	struct cost hand, chain;
};

struct spread {
	double low, median, high; /* 10th, 50th and 90th of a hundred */
};

struct result {
	const char *order;
	unsigned turns, thrown; /* thrown: rounds */
	struct spread hand, chain, ratio, hand_cpu, chain_cpu, ratio_cpu;
};

static void bench_free(struct bench *b)
{
	if (!b)
		return;
	kn_pipeline_free(b->pipeline);
	kn_port_close(b->in);
	kn_port_close(b->out);
	kn_pool_free(b->pool);
	free(b);
}
KN_AUTO(bench_free, struct bench *);

/* A stage was made, if made is 0: put it in, or release it. */
static int add(struct bench *b, int made, struct kn_stage **stage, struct kn_err *err)
{
	int r = made < 0 ? made : kn_pipeline_add(b->pipeline, *stage, err);

	if (made == 0 && r < 0)
		kn_stage_free(*stage);
	return r;
}

static int build_chain(struct bench *b, struct kn_err *err)
{
	struct kn_stage *s = NULL;
	int r;

	if ((r = kn_port_memory_new(KN_BENCH_FRAMES, &b->in, err)) < 0 ||
	    (r = kn_port_memory_new(KN_BENCH_FRAMES, &b->out, err)) < 0 ||
	    (r = kn_pipeline_new(&b->pipeline, err)) < 0 ||
	    (r = add(b, kn_stage_receive(b->in, &s, err), &s, err)) < 0 ||
	    (r = add(b, kn_stage_parse(NULL, &s, err), &s, err)) < 0 ||
	    (r = kn_bench_acl(&b->acl, err)) < 0)
		return r;
	r = kn_stage_acl("firewall", b->acl, &s, err);
	if (r < 0)
		kn_acl_free(b->acl);
	if ((r = add(b, r, &s, err)) < 0 ||
	    (r = add(b, kn_stage_call("ttl", kn_map_ttl, NULL, &s, err), &s, err)) < 0 ||
	    (r = add(b, kn_stage_call("mac_swap", kn_map_mac_swap, NULL, &s, err), &s, err)) < 0)
		return r;
	return add(b, kn_stage_send(b->out, &s, err), &s, err);
}

static uint64_t cost_of_clock(void)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 1000; i++) {
		uint64_t before = kn_cpu_ns();
		least = kn_min(least, kn_cpu_ns() - before);
	}
	return least;
}

static int prepare(const struct options *o, struct bench **ret, struct kn_err *err)
{
	kn_auto(bench_free) struct bench *b = calloc(1, sizeof(*b));

	if (!b)
		return kn_fail(err, ENOMEM, "no memory");
	int r = kn_pool_new(&KN_POOL_DEFAULTS, &b->pool, err);
	if (r == 0)
		r = build_chain(b, err);
	if (r < 0)
		return r;
	(void)kn_pool_take(b->pool, KN_BENCH_FRAMES, b->traffic.frames);
	kn_bench_draw(&b->traffic, o->seed, (unsigned)o->pass_percent);
	kn_bench_fill(&b->traffic);
	memcpy(b->order, b->traffic.frames, sizeof(b->order));
	for (size_t i = 0; i < KN_BENCH_FRAMES; i++)
		b->saved[i] = *b->traffic.frames[i];
	b->clock_ns = cost_of_clock();
	*ret = kn_take_ptr(b);
	return 0;
}

static void shuffle(struct bench *b)
{
	for (uint32_t i = KN_BENCH_FRAMES - 1; i > 0; i--) {
		uint32_t k = (uint32_t)(kn_bench_random(&b->traffic) % (i + 1));
		struct kn_frame *f = b->order[i];
		b->order[i] = b->order[k];
		b->order[k] = f;
	}
}

static void stand_in_line(struct bench *b)
{
	memcpy(b->order, b->traffic.frames, sizeof(b->order));
}

/* Everything is taken back out of the ports and the pool, as it was. */
static void refill(struct bench *b)
{
	uint32_t n = kn_port_memory_pull(b->out, b->scratch, KN_BENCH_FRAMES);

	(void)kn_pool_take(b->pool, KN_BENCH_FRAMES - n, b->scratch);
	for (size_t i = 0; i < KN_BENCH_FRAMES; i++)
		*b->traffic.frames[i] = b->saved[i];
	(void)kn_port_memory_push(b->in, b->order, KN_BENCH_FRAMES);
}

struct watch {
	uint64_t wall, cpu;
};

/* Rounds that were measured, and those that were interrupted. */
struct tally {
	struct watch sum;
	unsigned rounds, thrown;
};

static struct watch watch_start(void)
{
	uint64_t cpu = kn_cpu_ns();

	return (struct watch){ .cpu = cpu, .wall = kn_now_ns() };
}

/* The processor was away when more time passed than this thread used. */
static void watch_stop(const struct bench *b, struct watch w, struct tally *tally)
{
	uint64_t wall = kn_now_ns() - w.wall;
	uint64_t cpu = kn_cpu_ns() - w.cpu;

	cpu -= kn_min(cpu, b->clock_ns);
	if (wall > cpu + AWAY_NS) {
		tally->thrown++;
		return;
	}
	tally->rounds++;
	tally->sum.wall += wall;
	tally->sum.cpu += cpu;
}

static struct cost per_frame(const struct tally *t)
{
	double frames = (double)t->rounds * KN_BENCH_FRAMES;

	return (struct cost){ .wall = (double)t->sum.wall / frames,
			      .cpu = (double)t->sum.cpu / frames,
			      .thrown = t->thrown,
			      .usable = t->rounds > t->thrown };
}

static int hand_rounds(struct bench *b, unsigned rounds, bool anew, struct cost *ret,
		       struct kn_err *err)
{
	struct tally tally = { .rounds = 0 };

	for (unsigned i = 0; i < rounds; i++) {
		if (anew)
			shuffle(b);
		struct watch w = watch_start();
		uint64_t passed = kn_by_hand(b->order, KN_BENCH_FRAMES);
		watch_stop(b, w, &tally);
		if (passed != b->traffic.passing)
			return kn_fail(err, EBADMSG, "the loop passed %llu frames, not %u",
				       (unsigned long long)passed, b->traffic.passing);
	}
	*ret = per_frame(&tally);
	int r = kn_bench_check(&b->traffic, rounds, err);
	kn_bench_fill(&b->traffic);
	return r < 0 ? kn_while(err, "the loop by hand") : 0;
}

static int check_counters(const struct bench *b, const uint64_t *before, unsigned rounds,
			  uint64_t sent, struct kn_err *err)
{
	if (sent != (uint64_t)rounds * b->traffic.passing)
		return kn_fail(err, EBADMSG, "%llu frames sent in %u rounds of %u",
			       (unsigned long long)sent, rounds, b->traffic.passing);
	for (uint32_t i = 0; i <= KN_BENCH_RULES; i++) {
		uint64_t counted = kn_acl_count(b->acl, i) - before[i];
		if (counted != rounds * b->traffic.by_rule[i])
			return kn_fail(err, EBADMSG,
				       "rule %s counted %llu frames in %u rounds of %llu",
				       kn_acl_name(b->acl, i), (unsigned long long)counted, rounds,
				       (unsigned long long)b->traffic.by_rule[i]);
	}
	return 0;
}

static int chain_rounds(struct bench *b, unsigned rounds, bool anew, struct cost *ret,
			struct kn_err *err)
{
	uint64_t before[KN_BENCH_RULES + 1], sent = kn_pipeline_sent(b->pipeline).frames;
	struct tally tally = { .rounds = 0 };
	int r = 1;

	for (uint32_t i = 0; i <= KN_BENCH_RULES; i++)
		before[i] = kn_acl_count(b->acl, i);
	for (unsigned i = 0; i < rounds; i++) {
		if (anew)
			shuffle(b);
		refill(b);
		struct watch w = watch_start();
		while ((r = kn_pipeline_step(b->pipeline, err)) > 0)
			;
		watch_stop(b, w, &tally);
		if (r < 0)
			return r;
	}
	*ret = per_frame(&tally);
	r = check_counters(b, before, rounds, kn_pipeline_sent(b->pipeline).frames - sent, err);
	refill(b);
	(void)kn_port_memory_pull(b->in, b->scratch, KN_BENCH_FRAMES);
	if (r == 0)
		r = kn_bench_check(&b->traffic, rounds, err);
	kn_bench_fill(&b->traffic);
	return r < 0 ? kn_while(err, "the chain") : 0;
}

/* One turn of each. Returns 1 when it counts, 0 when it was interrupted too often. */
static int take_turn(struct bench *b, bool anew, bool chain_first, struct turn *ret,
		     struct kn_err *err)
{
	unsigned rounds = ROUNDS_LEAST + (unsigned)(kn_bench_random(&b->traffic) %
						    (ROUNDS_MOST - ROUNDS_LEAST + 1));
	int r = 0;

	if (!anew)
		stand_in_line(b);
	if (chain_first)
		r = chain_rounds(b, rounds, anew, &ret->chain, err);
	if (r == 0)
		r = hand_rounds(b, rounds, anew, &ret->hand, err);
	if (r == 0 && !chain_first)
		r = chain_rounds(b, rounds, anew, &ret->chain, err);
	return r < 0 ? r : ret->hand.usable && ret->chain.usable;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* One column of the turns. */
static struct spread spread_of(const struct turn *turns, unsigned n,
			       double (*value)(const struct turn *t))
{
	double values[TURNS_MOST];

	for (unsigned i = 0; i < n; i++)
		values[i] = value(&turns[i]);
	qsort(values, n, sizeof(*values), by_size);
	return (struct spread){ .low = values[n / 10],
				.median = values[n / 2],
				.high = values[n - 1 - n / 10] };
}

static double hand_wall(const struct turn *t)
{
	return t->hand.wall;
}

static double chain_wall(const struct turn *t)
{
	return t->chain.wall;
}

static double wall_ratio(const struct turn *t)
{
	return t->chain.wall / t->hand.wall;
}

static double hand_cpu(const struct turn *t)
{
	return t->hand.cpu;
}

static double chain_cpu(const struct turn *t)
{
	return t->chain.cpu;
}

static double cpu_ratio(const struct turn *t)
{
	return t->chain.cpu / t->hand.cpu;
}

static int measure(struct bench *b, const char *order, unsigned wanted, struct result *ret,
		   struct kn_err *err)
{
	struct turn turns[TURNS_MOST];
	bool anew = strcmp(order, "anew") == 0;
	unsigned n = 0, tries = 0, thrown = 0;

	for (; n < wanted && tries < wanted * TRIES; tries++) {
		int r = take_turn(b, anew, tries % 2, &turns[n], err);
		if (r < 0)
			return r;
		thrown += turns[n].hand.thrown + turns[n].chain.thrown;
		n += r == 1 && tries > 0; /* the first one warms up */
	}
	if (n == 0)
		return kn_fail(err, EBUSY, "the machine is too busy: every turn was interrupted");
	*ret = (struct result){ .order = order,
				.turns = n,
				.thrown = thrown,
				.hand = spread_of(turns, n, hand_wall),
				.chain = spread_of(turns, n, chain_wall),
				.ratio = spread_of(turns, n, wall_ratio),
				.hand_cpu = spread_of(turns, n, hand_cpu),
				.chain_cpu = spread_of(turns, n, chain_cpu),
				.ratio_cpu = spread_of(turns, n, cpu_ratio) };
	return 0;
}

static json_t *spread_json(struct spread s)
{
	return json_pack("{s:f, s:f, s:f}", "p10", s.low, "p50", s.median, "p90", s.high);
}

static json_t *result_json(const struct result *r)
{
	return json_pack("{s:s, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "order", r->order,
			 "turns", (int)r->turns, "thrown_rounds", (int)r->thrown, "hand_ns",
			 spread_json(r->hand), "chain_ns", spread_json(r->chain), "ratio",
			 spread_json(r->ratio), "hand_cpu_ns", spread_json(r->hand_cpu),
			 "chain_cpu_ns", spread_json(r->chain_cpu), "ratio_cpu",
			 spread_json(r->ratio_cpu));
}

static void print_row(const char *what, struct spread wall, struct spread cpu)
{
	printf("  %-14s %7.2f  (%6.2f .. %6.2f) %9.2f  (%6.2f .. %6.2f)\n", what, wall.median,
	       wall.low, wall.high, cpu.median, cpu.low, cpu.high);
}

static void print_results(const struct options *o, const struct result *results, size_t n)
{
	printf("%d rules, %d frames of 64 to 1514 bytes, %llu %% made to pass; ACL by %s; seed %llu\n",
	       KN_BENCH_RULES, KN_BENCH_FRAMES, (unsigned long long)o->pass_percent,
	       kn_acl_engine(), (unsigned long long)o->seed);
	for (size_t i = 0; i < n; i++) {
		const struct result *r = &results[i];
		printf("\norder of frames: %s; %u turns, %u rounds thrown away\n", r->order,
		       r->turns, r->thrown);
		printf("  ns a frame        wall  (   p10 ..    p90)       CPU  (   p10 ..    p90)\n");
		print_row("loop by hand", r->hand, r->hand_cpu);
		print_row("chain", r->chain, r->chain_cpu);
		print_row("ratio", r->ratio, r->ratio_cpu);
	}
}

static int show(const struct options *o, const struct result *results, size_t n)
{
	kn_auto(json_decref) json_t *rows = json_array();

	if (!o->json) {
		print_results(o, results, n);
		return kn_nf_printed(NAME);
	}
	for (size_t i = 0; i < n; i++)
		json_array_append_new(rows, result_json(&results[i]));
	kn_auto(json_decref) json_t *all =
		json_pack("{s:i, s:i, s:I, s:s, s:I, s:O}", "rules", KN_BENCH_RULES, "frames",
			  KN_BENCH_FRAMES, "pass_percent", (json_int_t)o->pass_percent, "engine",
			  kn_acl_engine(), "seed", (json_int_t)o->seed, "results", rows);
	if (json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(5)) == 0)
		putchar('\n');
	return kn_nf_printed(NAME);
}

static int bench(const struct options *o)
{
	static const char *const orders[] = { "anew", "same" };
	kn_auto(bench_free) struct bench *b = NULL;
	struct result results[KN_ARRAY_LEN(orders)] = { { .order = NULL } };
	struct kn_err err = KN_ERR_INIT;

	if (o->engine && kn_acl_use_engine(o->engine, &err) < 0) {
		kn_nf_failed(NAME, &err);
		return 2;
	}
	int r = prepare(o, &b, &err);
	for (size_t i = 0; r == 0 && i < KN_ARRAY_LEN(orders); i++)
		r = measure(b, orders[i], (unsigned)o->turns, &results[i], &err);
	return r < 0 ? kn_nf_failed(NAME, &err) : show(o, results, KN_ARRAY_LEN(orders));
}

static int check_options(const struct options *o)
{
	if (o->turns >= 1 && o->turns <= TURNS_MOST && o->pass_percent <= 100 &&
	    o->seed <= INT64_MAX)
		return KN_NF_GO;
	fprintf(stderr, "%s: --turns is 1 to %d, --pass-percent 0 to 100, --seed below 2^63\n",
		NAME, TURNS_MOST);
	return 2;
}

int kn_nf_bench(int argc, char **argv)
{
	struct options o = { .turns = 101, .pass_percent = 70 };
	const struct kn_arg args[] = {
		{ "json", 0, KN_ARG_FLAG, &o.json, NULL, NULL, "show the figures as JSON" },
		{ "turns", 0, KN_ARG_U64, &o.turns, "N", NULL, "turns of each that count (101)" },
		{ "pass-percent", 0, KN_ARG_U64, &o.pass_percent, "N", NULL,
		  "how many of a hundred frames shall pass (70)" },
		{ "seed", 0, KN_ARG_U64, &o.seed, "N", NULL,
		  "draw the traffic of this number again (random)" },
		{ "engine", 0, KN_ARG_STR, &o.engine, "NAME", NULL,
		  "match rules with avx512, avx2 or portable (the best of this processor)" },
	};
	const struct kn_command cmd = {
		.name = NAME,
		.summary =
			"Measure the firewall chain against the same function as a loop by hand.",
		.usage = "[OPTION]...",
		.more = "The chain is receive, parse, eight rules with counters, TTL less one, MAC\n"
			"addresses swapped, send, from one memory port to another. The loop does the\n"
			"same to the same frames with its rules compiled in, without counters or ports.\n"
			"They take turns. Traffic is drawn at run time; after each turn all bytes of\n"
			"all frames and all counters are checked, and a wrong one fails the run.\n"
			"\n"
			"Order 'anew' shuffles frames before each round, as a network does; 'same'\n"
			"repeats one order, which a branch predictor learns by heart.\n"
			"\n"
			"Example:\n"
			"  kiln-nf bench --turns 31\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	const char **operands;
	size_t n;

	if (getrandom(&o.seed, sizeof(o.seed), 0) < 0)
		o.seed = kn_wall_ns();
	o.seed >>= 32;
	int code = kn_nf_parse(&cmd, argc, argv, &operands, &n);
	if (code == KN_NF_GO)
		code = check_options(&o);
	return code == KN_NF_GO ? bench(&o) : code;
}
