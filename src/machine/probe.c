#include "machine/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "machine/memory.h"
#include "machine/pages.h"

/*
 * The guest counts down and then writes to a port, for ever. It is measured in a child process: KVM
 * may never come back on a host that is broken in a way nobody thought of, and a child can be killed.
 */
enum {
	TIME_LIMIT_MS = 250,
	EXITS = 20,
	FEW = 500,                  /* rounds of two instructions: 0.7 ms where ring 0 is emulated */
	MANY = 500 * 1000,
	TOO_SLOW = 20,              /* times slower than ring 3: no kernel finishes booting so */
};

#define RAM_GPA   UINT64_C(0x100000)
#define RAM_BYTES UINT64_C(0x100000)
#define CODE_VA   UINT64_C(0x400000)
#define CODE_GPA  (RAM_GPA + 0x80000)
#define TSS_VA    (CODE_VA + 0x1000)
#define TABLES    16

static const uint8_t code[] = {
	0xff, 0xc9,                 /* dec %ecx */
	0x75, 0xfc,                 /* jnz -4 */
	0xe6, 0x10,                 /* out %al, $0x10 */
	0xb9, 0x01, 0x00, 0x00, 0x00,   /* mov $1, %ecx */
	0xeb, 0xf3,                 /* jmp to the beginning */
};

struct lab {
	struct kn_kvm kvm;
	struct kn_vcpu vcpu;
	struct kn_memory memory;
};

/* Code in a page of its own; a TSS whose permission map, being zero, allows every port. */
static int furnish(struct lab *l, unsigned ring, struct kn_err *err)
{
	const unsigned user = ring ? KN_PAGE_USER : 0;

	int r = kn_memory_add(&l->memory, &l->kvm, RAM_GPA, RAM_BYTES, err);
	if (r < 0)
		return r;
	struct kn_pages p = kn_pages_init(kn_memory_at(&l->memory, RAM_GPA, TABLES * 4096), RAM_GPA,
	                                  TABLES);
	r = kn_pages_map(&p, CODE_VA, CODE_GPA, 4096, KN_PAGE_EXEC | user, err);
	if (r == 0)
		r = kn_pages_map(&p, TSS_VA, CODE_GPA + 4096, 4096, KN_PAGE_WRITE, err);
	if (r == 0)
		memcpy(kn_memory_at(&l->memory, CODE_GPA, sizeof(code)), code, sizeof(code));
	return r;
}

static int enter_at_start(struct lab *l, unsigned ring, uint64_t rounds, struct kn_err *err)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	kn_vcpu_long_mode(ring, RAM_GPA, CODE_VA, 0, &regs, &sregs);
	regs.rcx = rounds;
	sregs.tr.base = TSS_VA;
	sregs.tr.selector = 0x28;
	return kn_vcpu_set(&l->kvm, &l->vcpu, &regs, &sregs, err);
}

static int run_to_exit(struct lab *l, struct kn_err *err)
{
	while (ioctl(l->vcpu.fd, KVM_RUN, 0) < 0)
		if (errno != EINTR && errno != EAGAIN)
			return kn_fail(err, errno, "run a guest: %s", strerror(errno));
	if (l->vcpu.run->exit_reason != KVM_EXIT_IO)
		return kn_fail(err, ENOTSUP, "a guest left for reason %u instead of its output",
		               l->vcpu.run->exit_reason);
	return 0;
}

static int make_lab(const char *device, unsigned ring, struct lab *l, struct kn_err *err)
{
	*l = (struct lab){ .kvm = KN_KVM_NULL, .vcpu = KN_VCPU_NULL };
	int r = kn_kvm_open(device, &l->kvm, err);
	if (r == 0)
		r = kn_vcpu_open(&l->kvm, &l->vcpu, err);
	if (r == 0)
		r = furnish(l, ring, err);
	if (r == 0)
		r = enter_at_start(l, ring, 1, err);
	return r == 0 ? run_to_exit(l, err) : r;
}

/* Picoseconds per instruction; a fast guest is measured again over more of them. */
static int time_code(struct lab *l, unsigned ring, uint64_t exit_ns, uint64_t *ret_ps,
                     struct kn_err *err)
{
	static const uint64_t rounds[] = { FEW, MANY };
	uint64_t ns = 0;

	for (unsigned i = 0; i < 2; i++) {
		int r = enter_at_start(l, ring, rounds[i], err);
		if (r < 0)
			return r;
		uint64_t start = kn_now_ns();
		r = run_to_exit(l, err);
		if (r < 0)
			return r;
		ns = kn_now_ns() - start;
		ns -= kn_min(ns, exit_ns);
		*ret_ps = ns * 1000 / (2 * rounds[i]);
		if (ns > 200 * KN_NS_PER_US)
			break;
	}
	return 0;
}

static int time_exits(struct lab *l, uint64_t *ret_ns, struct kn_err *err)
{
	uint64_t start = kn_now_ns();
	for (int i = 0; i < EXITS; i++) {
		int r = run_to_exit(l, err);
		if (r < 0)
			return r;
	}
	*ret_ns = (kn_now_ns() - start) / EXITS;
	return 0;
}

struct findings {
	uint64_t create_ns, exit_ns, ring3_ps, ring0_ps;
	struct kn_err err3, err0;       /* what ring 3 and ring 0 could not do */
};

/* The child's work. Its end closes everything. */
static void measure(const char *device, struct findings *f)
{
	struct lab l;
	uint64_t start = kn_now_ns();

	int r = make_lab(device, 3, &l, &f->err3);
	f->create_ns = kn_now_ns() - start;
	if (r == 0)
		r = time_exits(&l, &f->exit_ns, &f->err3);
	if (r == 0)
		r = time_code(&l, 3, f->exit_ns, &f->ring3_ps, &f->err3);
	if (r < 0)
		return;
	r = make_lab(device, 0, &l, &f->err0);
	if (r == 0)
		(void)time_code(&l, 0, f->exit_ns, &f->ring0_ps, &f->err0);
}

/* Run measure() in a child and wait for its answer. False when none came in time. */
static bool measure_apart(const char *device, struct findings *ret)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		struct findings f = { 0 };
		measure(device, &f);
		_exit(kn_write_all(fd[1], &f, sizeof(f)) < 0);
	}
	kn_close(fd[1]);
	struct pollfd p = { .fd = fd[0], .events = POLLIN };
	bool answered = pid > 0 && poll(&p, 1, TIME_LIMIT_MS) == 1 &&
	                kn_read_all(fd[0], ret, sizeof(*ret)) == (ssize_t)sizeof(*ret);
	kn_close(fd[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);     /* what it has not said by now it need not say */
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	return answered;
}

static void say(struct kn_probe *p, enum kn_probe_verdict verdict, const char *fmt, ...)
	kn_printf(3, 4);

static void say(struct kn_probe *p, enum kn_probe_verdict verdict, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(p->reason, sizeof(p->reason), fmt, ap);
	va_end(ap);
	p->verdict = verdict;
}

static bool ask_device(const char *device, struct kn_probe *p)
{
	struct kn_err err = KN_ERR_INIT;
	struct stat st;
	struct kn_kvm k;

	p->present = stat(device, &st) == 0;
	if (kn_kvm_open(device, &k, &err) < 0) {
		say(p, KN_PROBE_NONE, "%.250s", kn_err_text(&err));
		return false;
	}
	p->permitted = true;
	p->api_version = KVM_API_VERSION;
	kn_kvm_close(&k);
	return true;
}

void kn_probe_run(const char *device, struct kn_probe *ret)
{
	struct findings f = { 0 };

	*ret = (struct kn_probe){ .verdict = KN_PROBE_NONE };
	if (!ask_device(device, ret))
		return;
	if (!measure_apart(device, &f)) {
		say(ret, KN_PROBE_NONE, "a tiny guest on %s did not finish within %d ms", device,
		    TIME_LIMIT_MS);
		return;
	}
	ret->create_ns = f.create_ns;
	ret->exit_ns = f.exit_ns;
	ret->ring3_ps = f.ring3_ps;
	ret->ring0_ps = f.ring0_ps;
	if (f.err3.code)
		say(ret, KN_PROBE_NONE, "%.250s", f.err3.text);
	else if (f.err0.code)
		say(ret, KN_PROBE_RING3, "ring 0 does not run: %.200s", f.err0.text);
	else if (f.ring0_ps > TOO_SLOW * kn_max(f.ring3_ps, UINT64_C(1000)))
		say(ret, KN_PROBE_RING3,
		    "ring 0 is emulated (%.0f ns an instruction, ring 3: %.2f ns), so a kernel would "
		    "not finish booting; bare functions run at native speed",
		    (double)f.ring0_ps / 1000, (double)f.ring3_ps / 1000);
	else
		say(ret, KN_PROBE_FULL, "guests run natively in ring 0 and ring 3");
}

const char *kn_probe_verdict_name(enum kn_probe_verdict v)
{
	switch (v) {
	case KN_PROBE_NONE:
		return "none";
	case KN_PROBE_RING3:
		return "bare only";
	case KN_PROBE_FULL:
		break;
	}
	return "full";
}
