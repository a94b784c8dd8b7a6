/*
 * Bare functions against what a process and a VM cost on this machine. The driver is called as the
 * pool calls it; the function is examples/denoise, and every reply is compared with the right one.
 * What is compared takes turns, so that what else the machine does falls on all of it.
 *
 * Usage: bare BUILD_DIR
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/loop.h"
#include "floor.h"
#include "oci/sandbox_kvm.h"

enum {
	STARTS = 400, /* of each kind; the first tenth warms up and does not count */
	WARM_UP = STARTS / 10,
	SLICES = 25,
	SLICE = 40, /* creations on one core */
	IDLE = 8,   /* instances side by side */
	PATIENCE_MS = 10000,
};

#define PATH  "/?window=3"
#define BODY  "[20.1, 20.2, 85.0, 20.3, 20.2]"
#define RIGHT "[20.1,20.2,20.3,20.3,20.2]\n"

struct bench {
	struct kn_loop *loop;
	struct kn_sandbox_kvm_config driver;
	char vmm[512], program[512];
	int kvm;
};

/* One instance, from start() to its end. */
struct instance {
	struct bench *bench;
	struct kn_sandbox *sb;
	bool replied, ended;
	uint64_t began_ns, replied_ns;
	struct kn_err failed;
};

/* ---- samples -------------------------------------------------------------------------------- */

struct samples {
	double v[STARTS];
	size_t n;
};

static void add(struct samples *s, double v)
{
	if (s->n < STARTS)
		s->v[s->n++] = v;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* The value below which a tenth (1), half (5) or nine tenths (9) of them lie. */
static double tenth(struct samples *s, size_t tenths)
{
	qsort(s->v, s->n, sizeof(s->v[0]), by_value);
	return s->v[(s->n - 1) * tenths / 10];
}

static double ms(uint64_t ns)
{
	return (double)ns / (double)KN_NS_PER_MS;
}

/* CPU time of this process and of the children that have ended. */
static double cpu_ms(void)
{
	double sum = 0;
	static const int who[] = { RUSAGE_SELF, RUSAGE_CHILDREN };

	for (size_t i = 0; i < KN_ARRAY_LEN(who); i++) {
		struct rusage u;
		getrusage(who[i], &u);
		sum += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
		       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
	}
	return sum;
}

/* ---- one instance --------------------------------------------------------------------------- */

static void on_ready(struct kn_sandbox *sb, void *arg)
{
	(void)sb;
	(void)arg;
}

static void on_ended(struct kn_sandbox *sb, const struct kn_err *why, void *arg)
{
	struct instance *it = arg;

	(void)sb;
	it->ended = true;
	if (why->code)
		it->failed = *why;
}

static void on_reply(const struct kn_message *reply, const struct kn_err *err, void *arg)
{
	struct instance *it = arg;

	it->replied_ns = kn_now_ns();
	it->replied = true;
	if (!reply)
		it->failed = *err;
	else if (reply->status != 200 || !kn_view_is(reply->body, KN_VIEW(RIGHT)))
		kn_fail(&it->failed, EBADMSG, "denoise answered %d '%.*s'", reply->status,
			(int)kn_min(reply->body.len, (size_t)100), reply->body.ptr);
}

static int wait_for(struct instance *it, const bool *flag, struct kn_err *err)
{
	uint64_t until = kn_now_ns() + PATIENCE_MS * KN_NS_PER_MS;

	while (!*flag && !it->ended) {
		int r = kn_loop_once(it->bench->loop, PATIENCE_MS);
		if (r < 0)
			return kn_fail(err, -r, "event loop: %s", strerror(-r));
		if (kn_now_ns() > until)
			return kn_fail(err, ETIMEDOUT, "nothing for %d ms", PATIENCE_MS);
	}
	if (it->failed.code) {
		*err = it->failed;
		return -it->failed.code;
	}
	return *flag ? 0 : kn_fail(err, ECHILD, "the instance ended too early");
}

/* Start it and have its first reply. */
static int begin(struct bench *b, struct instance *it, struct kn_err *err)
{
	const struct kn_sandbox_config config = {
		.id = "bench",
		.run_dir = "/nonexistent",
		.image = b->program,
		.contract = KN_CONTRACT_MESSAGE,
		.memory_bytes = 16 << 20,
		.vcpus = 1,
		.boot_timeout_ms = 5000,
		.max_reply_bytes = 1 << 20,
		.time_limit_ms = 30000,
	};
	const struct kn_message m = {
		.method = KN_VIEW("POST"),
		.path = KN_VIEW(PATH),
		.call_id = KN_VIEW("bench"),
		.content_type = KN_VIEW("application/json"),
		.body = KN_VIEW(BODY),
	};
	const struct kn_sandbox_events events = { on_ready, NULL, on_ended, it };

	*it = (struct instance){ .bench = b, .began_ns = kn_now_ns() };
	int r = kn_sandbox_kvm.start(b->loop, &b->driver, &config, &events, &it->sb, err);
	if (r == 0)
		r = kn_sandbox_kvm.invoke(it->sb, &m, on_reply, it, err);
	return r < 0 ? r : wait_for(it, &it->replied, err);
}

static int end(struct instance *it, struct kn_err *err)
{
	kn_sandbox_kvm.stop(it->sb, 0);
	return wait_for(it, &it->ended, err);
}

/* ---- starts --------------------------------------------------------------------------------- */

struct figures {
	struct samples wall, cpu;
};

struct starts {
	struct figures bare, shell, spawn, vm;
};

static int one_start(struct bench *b, struct figures *f, struct kn_err *err)
{
	struct instance it;
	double before = cpu_ms();

	int r = begin(b, &it, err);
	if (r == 0)
		r = end(&it, err);
	add(&f->cpu, cpu_ms() - before);
	add(&f->wall, ms(it.replied_ns - it.began_ns));
	return r;
}

/* Its CPU time is left out: a shell's is spent before anybody asks for it. */
static int one_shell_start(struct bench *b, struct figures *f, struct kn_err *err)
{
	struct kn_shells *shells;
	struct instance it;

	int r = kn_shells_new(b->loop, b->vmm, b->driver.device, 1, &shells, err);
	if (r < 0)
		return r;
	uint64_t until = kn_now_ns() + PATIENCE_MS * KN_NS_PER_MS;
	while (kn_shells_ready(shells) == 0 && kn_now_ns() < until)
		(void)kn_loop_once(b->loop, 100);
	if (kn_shells_ready(shells) == 0)
		return kn_fail(err, ETIMEDOUT, "no shell was prepared");
	/* What its refilling does comes 5 ms later. */
	b->driver.shells = shells;
	r = begin(b, &it, err);
	b->driver.shells = NULL;
	if (r == 0)
		r = end(&it, err);
	kn_shells_free(shells);
	add(&f->wall, ms(it.replied_ns - it.began_ns));
	return r;
}

static int one_spawn(struct bench *b, struct figures *f, struct kn_err *err)
{
	const char *const argv[] = { b->vmm, "--version", NULL };
	double before = cpu_ms();
	uint64_t ns = 0;

	int r = floor_spawn(argv, &ns, err);
	add(&f->cpu, cpu_ms() - before);
	add(&f->wall, ms(ns));
	return r;
}

static int one_vm(struct bench *b, struct figures *f, struct kn_err *err)
{
	double before = cpu_ms();
	struct floor_vm vm = { 0, 0 };

	int r = floor_vm(b->kvm, &vm, err);
	add(&f->cpu, cpu_ms() - before);
	add(&f->wall, ms(vm.exit_ns));
	return r;
}

static void print_spread(const char *what, struct samples *s)
{
	printf("{\"what\": \"%s\", \"value\": %.4f, \"unit\": \"ms\", \"low\": %.4f, \"high\": %.4f, "
	       "\"n\": %zu",
	       what, tenth(s, 5), tenth(s, 1), tenth(s, 9), s->n);
}

static void print_starts(struct starts *s)
{
	double spawn = tenth(&s->spawn.wall, 5), vm = tenth(&s->vm.wall, 5);

	print_spread("bare function, spawn to first reply, p50", &s->bare.wall);
	printf(", \"cpu\": %.4f, \"base\": %.4f, \"base_cpu\": %.4f, \"base_what\": \"spawn + "
	       "create-run-exit\", \"goal\": 1.3, \"of\": \"ratio\", \"better\": \"less\", \"note\": "
	       "\"spawn %.3f (%.3f..%.3f), create-run-exit %.3f (%.3f..%.3f); CPU times with the "
	       "end\"}\n",
	       tenth(&s->bare.cpu, 5), spawn + vm, tenth(&s->spawn.cpu, 5) + tenth(&s->vm.cpu, 5),
	       spawn, tenth(&s->spawn.wall, 1), tenth(&s->spawn.wall, 9), vm, tenth(&s->vm.wall, 1),
	       tenth(&s->vm.wall, 9));
	double shell = tenth(&s->shell.wall, 5);
	print_spread("bare function from a prepared shell, p50", &s->shell.wall);
	printf(", \"base\": %.4f, \"base_what\": \"spawn\", \"goal\": 0.8, \"of\": \"ratio\", "
	       "\"better\": \"less\", \"note\": \"the other goal, 0.35 ms, is %s\"}\n",
	       spawn, shell <= 0.35 ? "met as well" : "missed");
	fflush(stdout);
}

static int measure_starts(struct bench *b, struct kn_err *err)
{
	static struct starts s;
	int r = 0;

	for (int i = 0; r == 0 && i < STARTS + WARM_UP; i++) {
		if (i == WARM_UP)
			s = (struct starts){ 0 };
		r = one_start(b, &s.bare, err);
		if (r == 0)
			r = one_spawn(b, &s.spawn, err);
		if (r == 0)
			r = one_vm(b, &s.vm, err);
		if (r == 0)
			r = one_shell_start(b, &s.shell, err);
	}
	if (r == 0)
		print_starts(&s);
	return r;
}

/* ---- creations on one core ------------------------------------------------------------------ */

/* Milliseconds that each takes, from beginning to end. */
struct slice {
	double creation, creation_cpu, spawn, vm;
};

static int time_slice(struct bench *b, struct slice *ret, struct kn_err *err)
{
	const char *const argv[] = { b->vmm, "--version", NULL };
	uint64_t spawn_ns = 0, vm_ns = 0, began = kn_now_ns();
	double cpu = cpu_ms();
	int r = 0;

	for (int i = 0; r == 0 && i < SLICE; i++) {
		struct instance it;
		r = begin(b, &it, err);
		if (r == 0)
			r = end(&it, err);
	}
	uint64_t creation_ns = kn_now_ns() - began;
	cpu = cpu_ms() - cpu;
	for (int i = 0; r == 0 && i < SLICE; i++) {
		struct floor_vm vm = { 0, 0 };
		uint64_t ns = 0;
		r = floor_spawn(argv, &ns, err);
		if (r == 0)
			r = floor_vm(b->kvm, &vm, err);
		spawn_ns += ns;
		vm_ns += vm.exit_ns + vm.destroy_ns;
	}
	*ret = (struct slice){ ms(creation_ns) / SLICE, cpu / SLICE, ms(spawn_ns) / SLICE,
			       ms(vm_ns) / SLICE };
	return r;
}

static void print_creations(struct samples *rate, struct samples *floor, double cpu,
			    struct samples *spawn, struct samples *vm)
{
	printf("{\"what\": \"bare functions created on one core, one process and one VM each\", "
	       "\"value\": %.1f, \"unit\": \"/s\", \"low\": %.1f, \"high\": %.1f, \"n\": %d, "
	       "\"base\": %.1f, \"base_what\": \"spawn + create-run-exit + destroy\", \"goal\": 0.8, "
	       "\"of\": \"ratio\", \"better\": \"more\", \"note\": \"from start() to the first reply to "
	       "the reaped process; %.3f ms of CPU each; floor: spawn %.3f ms, VM %.3f ms\"}\n",
	       tenth(rate, 5), tenth(rate, 1), tenth(rate, 9), SLICES * SLICE, tenth(floor, 5), cpu,
	       tenth(spawn, 5), tenth(vm, 5));
	fflush(stdout);
}

static int measure_slices(struct bench *b, struct kn_err *err)
{
	struct samples rate = { .n = 0 }, floor = { .n = 0 }, spawn = { .n = 0 }, vm = { .n = 0 };
	struct samples cpu = { .n = 0 };
	int r = 0;

	for (int i = -1; r == 0 && i < SLICES; i++) {
		struct slice s;
		r = time_slice(b, &s, err);
		if (r < 0 || i < 0)
			continue; /* the first one warms up */
		add(&rate, 1e3 / s.creation);
		add(&floor, 1e3 / (s.spawn + s.vm));
		add(&spawn, s.spawn);
		add(&vm, s.vm);
		add(&cpu, s.creation_cpu);
	}
	if (r == 0)
		print_creations(&rate, &floor, tenth(&cpu, 5), &spawn, &vm);
	return r;
}

/* This process and all that it starts stay on the core that it runs on now. */
static int measure_creations(struct bench *b, struct kn_err *err)
{
	cpu_set_t all, one;
	int here = sched_getcpu();

	CPU_ZERO(&one);
	CPU_SET((size_t)kn_max(here, 0), &one);
	if (here < 0 || sched_getaffinity(0, sizeof(all), &all) < 0 ||
	    sched_setaffinity(0, sizeof(one), &one) < 0)
		return kn_fail(err, errno, "stay on one core: %s", strerror(errno));
	int r = measure_slices(b, err);
	if (sched_setaffinity(0, sizeof(all), &all) < 0 && r == 0)
		return kn_fail(err, errno, "leave the core: %s", strerror(errno));
	return r;
}

/* ---- memory --------------------------------------------------------------------------------- */

static int pss_kib(struct instance *it, double *ret, struct kn_err *err)
{
	struct kn_sandbox_stats s;
	int r = kn_sandbox_kvm.stats(it->sb, &s, err);
	if (r == 0 && s.memory_bytes == 0)
		return kn_fail(err, ENODATA, "no smaps_rollup for the monitor");
	*ret = (double)s.memory_bytes / 1024;
	return r;
}

/* Alone, it bears the monitor's program text too: the worst case. */
static int measure_memory(struct bench *b, struct kn_err *err)
{
	struct instance it[IDLE];
	double alone = 0, beside = 0;
	int n = 0, r = 0;

	for (; r == 0 && n < IDLE; n += r == 0) {
		r = begin(b, &it[n], err);
		if (r == 0 && n == 0)
			r = pss_kib(&it[0], &alone, err);
	}
	if (r == 0)
		r = pss_kib(&it[0], &beside, err);
	for (int i = 0; i < n; i++) {
		int e = end(&it[i], r == 0 ? err : &(struct kn_err)KN_ERR_INIT);
		r = r == 0 ? e : r;
	}
	if (r == 0)
		printf("{\"what\": \"bare function, idle after its first reply, PSS\", \"value\": %.1f, "
		       "\"unit\": \"KiB\", \"n\": 1, \"goal\": 1024, \"of\": \"value\", \"better\": "
		       "\"less\", \"note\": \"alone on the machine; %.1f KiB beside %d others\"}\n",
		       alone, beside, IDLE - 1);
	fflush(stdout);
	return r;
}

/* ---- all ------------------------------------------------------------------------------------ */

static int prepare(struct bench *b, const char *build, struct kn_err *err)
{
	snprintf(b->vmm, sizeof(b->vmm), "%s/kiln-vmm", build);
	snprintf(b->program, sizeof(b->program), "%s/test/host/denoise.elf", build);
	b->driver = KN_SANDBOX_KVM_DEFAULTS;
	b->driver.vmm = b->vmm;
	int r = kn_sandbox_kvm.check(&b->driver, err);
	if (r < 0)
		return r;
	b->kvm = open(b->driver.device, O_RDWR | O_CLOEXEC);
	if (b->kvm < 0)
		return kn_fail(err, errno, "open %s: %s", b->driver.device, strerror(errno));
	return kn_loop_new(&b->loop, err);
}

int main(int argc, char **argv)
{
	static int (*const parts[])(struct bench *, struct kn_err *) = {
		measure_starts,
		measure_creations,
		measure_memory,
	};
	struct bench b = { .kvm = -1 };
	struct kn_err err = KN_ERR_INIT;

	if (argc != 2)
		return 2;
	int r = prepare(&b, argv[1], &err);
	if (r < 0 && !b.loop && b.kvm < 0) {
		/* This machine runs no bare functions. */
		printf("{\"what\": \"bare functions\", \"skip\": \"%s\"}\n", kn_err_text(&err));
		return 0;
	}
	for (size_t i = 0; r == 0 && i < KN_ARRAY_LEN(parts); i++)
		r = parts[i](&b, &err);
	kn_loop_free(b.loop);
	kn_close(b.kvm);
	if (r < 0)
		fprintf(stderr, "bench/bare: %s\n", kn_err_text(&err));
	return r < 0;
}
