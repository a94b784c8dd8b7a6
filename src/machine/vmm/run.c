#include "machine/vmm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"

/* syscalls: ioctl read write poll timer_create timer_settime timer_delete gettid tgkill */

#define KICK SIGUSR1

/* The vCPU that this thread runs; read by the signal handler. */
static _Thread_local struct kn_vmm *mine;

static void ring(int bell)
{
	const uint64_t one = 1;
	(void)!write(bell, &one, sizeof(one));
}

/*
 * KVM_RUN returns at once when immediate_exit is set, also when the signal comes just before it.
 * The same for the bell: a sleep about to begin ends by the write.
 */
static void on_signal(int sig)
{
	struct kn_vmm *v = mine;
	int saved = errno;

	if (v) {
		unsigned ask = sig == SIGALRM ? KN_ASK_TICK : sig == SIGIO ? KN_ASK_LOOK : 0u;
		atomic_fetch_or(&v->asked, ask);
		if (v->machine.vcpu.run)
			v->machine.vcpu.run->immediate_exit = 1;
		if (atomic_load(&v->waiting) && v->config.bell >= 0 && sig != SIGALRM)
			ring(v->config.bell);
	}
	errno = saved;
}

void kn_vmm_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };   /* no SA_RESTART: calls must return */
	sigemptyset(&sa.sa_mask);
	sigaction(KICK, &sa, NULL);
	sigaction(SIGIO, &sa, NULL);
	sigaction(SIGALRM, &sa, NULL);
}

static void kick(struct kn_vmm *v)
{
	int tid = atomic_load(&v->tid);
	if (tid)
		syscall(SYS_tgkill, getpid(), tid, KICK);
}

/* ---- time limit ----------------------------------------------------------------------------- */

/* Until the first doorbell the start is limited, unless a call has begun already. */
static bool is_call(const struct kn_vmm *v)
{
	return v->rang || v->machine.boot->called(&v->machine);
}

static uint64_t limit_of(const struct kn_vmm *v)
{
	return is_call(v) ? v->config.time_limit_ns : v->config.boot_limit_ns;
}

/* When to look next: 0 never. */
static uint64_t first_look(const struct kn_vmm *v)
{
	uint64_t call = v->config.time_limit_ns, boot = v->config.boot_limit_ns;
	if (v->rang || !boot)
		return call;
	return call ? kn_min(call, boot) : boot;
}

static void arm(struct kn_vmm *v, uint64_t ns)
{
	const struct itimerspec t = { .it_value = { .tv_sec = (time_t)(ns / KN_NS_PER_S),
		                                    .tv_nsec = (long)(ns % KN_NS_PER_S) } };
	if (v->timed)
		timer_settime(v->timer, 0, &t, NULL);
}

/* A timer of this thread's own, so that its signal never interrupts another one. */
static int make_timer(struct kn_vmm *v, struct kn_err *err)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };

	if (!v->config.time_limit_ns && !v->config.boot_limit_ns)
		return 0;
	ev._sigev_un._tid = atomic_load(&v->tid);
	if (timer_create(CLOCK_MONOTONIC, &ev, &v->timer) < 0)
		return kn_fail(err, errno, "make a timer: %s", strerror(errno));
	v->timed = true;
	return 0;
}

static void begin_limit(struct kn_vmm *v)
{
	if (!v->timed)
		return;
	v->since_ns = kn_now_ns();
	v->progress = v->machine.boot->progress(&v->machine);
	arm(v, first_look(v));     /* 0 disarms */
}

/* The timer fired: true when nothing was finished for as long as the limit. */
static bool limit_passed(struct kn_vmm *v)
{
	uint64_t limit = limit_of(v), now = kn_now_ns();
	uint64_t progress = v->machine.boot->progress(&v->machine);

	if (!limit)
		return false;
	if (progress != v->progress) {
		/* It works; from now on look more often, so that a hang is found in time. */
		v->progress = progress;
		v->since_ns = now;
		arm(v, kn_max(limit / 8, KN_NS_PER_MS));
		return false;
	}
	if (now - v->since_ns >= limit)
		return true;
	uint64_t rest = limit - (now - v->since_ns);
	arm(v, kn_max(rest, KN_NS_PER_US * 100));
	return false;
}

static void end_by_limit(struct kn_vmm *v, struct kn_end *end)
{
	end->kind = KN_END_LIMIT;
	kn_fail(&end->err, ETIMEDOUT, "%stime limit of %llu ms passed", is_call(v) ? "" : "start's ",
	        (unsigned long long)(limit_of(v) / KN_NS_PER_MS));
	v->machine.boot->describe(&v->machine, end);
}

/* ---- pausing and being asked ---------------------------------------------------------------- */

static void set_state(struct kn_vmm *v, enum kn_vmm_state s)
{
	pthread_mutex_lock(&v->lock);
	atomic_store(&v->state, (int)s);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

/* Stand still until resumed or stopped. */
static void pause_here(struct kn_vmm *v)
{
	set_state(v, KN_VMM_PAUSED);
	pthread_mutex_lock(&v->lock);
	while ((atomic_load(&v->asked) & (KN_ASK_PAUSE | KN_ASK_STOP)) == KN_ASK_PAUSE)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
	set_state(v, KN_VMM_RUNNING);
	begin_limit(v);
}

/* Do what was asked. False ends the guest; *end says how. */
static bool attend(struct kn_vmm *v, struct kn_end *end)
{
	unsigned asked = atomic_fetch_and(&v->asked, ~(unsigned)(KN_ASK_TICK | KN_ASK_LOOK));

	if (asked & KN_ASK_LOOK && v->look && v->look(v, v->config.arg))
		asked |= KN_ASK_STOP;
	if (asked & KN_ASK_STOP) {
		end->kind = KN_END_STOPPED;
		return false;
	}
	if (asked & KN_ASK_PAUSE)
		pause_here(v);
	if (asked & KN_ASK_TICK && !atomic_load(&v->waiting) && limit_passed(v)) {
		end_by_limit(v, end);
		return false;
	}
	return true;
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void tell_host(struct kn_vmm *v)
{
	if (v->config.note >= 0)
		ring(v->config.note);
}

/* Sleep until the bell. False ends the guest. */
static bool wait_for_bell(struct kn_vmm *v, struct kn_end *end)
{
	bool go_on = true;
	uint64_t count;

	if (v->config.bell < 0) {
		end->kind = KN_END_EXIT;   /* nobody will ever call: it has done all that it can */
		return false;
	}
	for (bool rung = false; go_on && !rung;) {
		atomic_store(&v->waiting, true);
		ssize_t n = atomic_load(&v->asked) & ~(unsigned)KN_ASK_TICK
		                    ? 0
		                    : read(v->config.bell, &count, sizeof(count));
		atomic_store(&v->waiting, false);
		rung = n == (ssize_t)sizeof(count);
		if (n < 0 && errno == EAGAIN) {
			/* Somebody made the shared description non-blocking. */
			struct pollfd p = { .fd = v->config.bell, .events = POLLIN };
			(void)poll(&p, 1, 1000);
		}
		if (atomic_load(&v->asked)) {
			atomic_fetch_and(&v->asked, ~(unsigned)KN_ASK_TICK);
			go_on = attend(v, end);
		}
	}
	if (go_on) {
		v->machine.boot->enter(&v->machine);
		begin_limit(v);
	}
	return go_on;
}

static void first_doorbell(struct kn_vmm *v)
{
	if (v->rang)
		return;
	v->rang = true;
	begin_limit(v);   /* from now on a call's, no more the start's */
	if (v->config.ready)
		v->config.ready(v, v->config.arg);
}

/* One leaving of the guest by KVM. False: it has ended. */
static bool handle_exit(struct kn_vmm *v, struct kn_end *end)
{
	bool note = false;

	switch (v->machine.boot->exit(&v->machine, &note, end)) {
	case KN_STEP_RUN:
		first_doorbell(v);
		return true;
	case KN_STEP_NOTIFY:
		first_doorbell(v);   /* the host hears that it is ready before the first reply */
		tell_host(v);
		return true;
	case KN_STEP_WAIT:
		first_doorbell(v);
		if (note)
			tell_host(v);
		return wait_for_bell(v, end);
	case KN_STEP_END:
		if (note)
			tell_host(v);
		return false;
	}
	return false;
}

static bool run_once(struct kn_vmm *v, struct kn_end *end)
{
	struct kvm_run *run = v->machine.vcpu.run;

	if (ioctl(v->machine.vcpu.fd, KVM_RUN, 0) == 0)
		return handle_exit(v, end);
	if (errno == EINTR) {
		run->immediate_exit = 0;
		return attend(v, end);
	}
	if (errno == EAGAIN)
		return true;
	end->kind = KN_END_FAILED;
	kn_fail(&end->err, errno, "run the guest: %s", strerror(errno));
	if (v->machine.boot->describe && errno == EFAULT)
		v->machine.boot->describe(&v->machine, end);
	return false;
}

void kn_vmm_run(struct kn_vmm *v, struct kn_end *ret)
{
	struct kn_end end = { .kind = KN_END_FAILED };

	atomic_store(&v->tid, (int)gettid());
	mine = v;
	if (make_timer(v, &end.err) == 0) {
		v->machine.boot->enter(&v->machine);
		begin_limit(v);
		while (run_once(v, &end))
			;
	}
	mine = NULL;
	atomic_store(&v->tid, 0);
	if (v->timed)
		timer_delete(v->timer);
	v->timed = false;
	*ret = end;
	set_state(v, KN_VMM_ENDED);
}

/* ---- from other threads --------------------------------------------------------------------- */

static void ask(struct kn_vmm *v, unsigned what)
{
	pthread_mutex_lock(&v->lock);
	atomic_fetch_or(&v->asked, what);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	kick(v);
}

void kn_vmm_stop(struct kn_vmm *v)
{
	ask(v, KN_ASK_STOP);
}

int kn_vmm_pause(struct kn_vmm *v, struct kn_err *err)
{
	int state = atomic_load(&v->state);
	if (state == KN_VMM_PAUSED)
		return 0;
	if (state != KN_VMM_RUNNING)
		return kn_fail(err, EINVAL, "the microVM is not running");
	ask(v, KN_ASK_PAUSE);
	pthread_mutex_lock(&v->lock);
	while (atomic_load(&v->state) == KN_VMM_RUNNING)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
	return 0;
}

int kn_vmm_resume(struct kn_vmm *v, struct kn_err *err)
{
	int state = atomic_load(&v->state);
	if (state == KN_VMM_RUNNING)
		return 0;
	if (state != KN_VMM_PAUSED)
		return kn_fail(err, EINVAL, "the microVM is not paused");
	pthread_mutex_lock(&v->lock);
	atomic_fetch_and(&v->asked, ~(unsigned)KN_ASK_PAUSE);
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
	return 0;
}
