/*
 * Chains between network interfaces.
 *
 * Theory of operation. First everything is opened that needs root: the interfaces. Then the rights
 * are given up (own user, empty root, no capabilities, few system calls), and only then anything is read that others
 * have written: the chain's file, and frames.
 *
 * Under kilnd there is a socket to it (--control). We say "prepared" there when all is ready but for
 * the traffic, and wait for "go": an older revision of the function may still have it. Then come
 * "running", "counters" now and then, and in the end "stopped", each with all counters. "stop", or
 * the socket's end, stops us: no more frames are taken, those that were taken are handled.
 *
 * An AF_XDP port needs its rights until it is attached, and the interface cannot have two: there
 * "go" comes first, and the jail behind it. So that a wrong chain is found before, a child of ours
 * reads it in a jail of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "cmd/kiln-nf/nf.h"
#include "host/jail.h"
#include "host/seccomp.h"
#include "packet/chain.h"
#include "packet/runner.h"

enum {
	FILE_MAX = 1 << 20,
	DRAIN_ROUNDS = 4096, /* a ring and some more, in batches */
	RULES_TOLD = 64,     /* of each list of rules: a message to kilnd has its limits */
};

struct live {
	const struct kn_nf_live *o;
	struct kn_chain_port ports[KN_CHAIN_PORTS_MAX];
	size_t n;
	bool xdp;
	struct kn_chain *chain;
	struct kn_pipeline *pipelines[KN_RUNNER_MAX];
};

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	stop = number;
}

static bool is_file(const char *spec)
{
	return !spec || strncmp(spec, "pcap:", 5) == 0 || strcmp(spec, "null") == 0;
}

bool kn_nf_is_live(const struct kn_arg_list *ports)
{
	for (size_t i = 0; i < ports->n; i++) {
		const char *equals = strchr(ports->at[i], '=');
		if (equals && !is_file(equals + 1))
			return true;
	}
	return false;
}

/* ---- opening ------------------------------------------------------------------------------- */

static int open_port(struct live *l, const char *text, struct kn_err *err)
{
	struct kn_chain_port *p = &l->ports[l->n];
	struct kn_binding b;

	int r = kn_chain_port_parse(text, p, err);
	if (r < 0)
		return r;
	l->n++;
	if (is_file(p->spec.ptr))
		return 0;
	r = kn_binding_parse(kn_view_of(text), &b, err);
	if (r == 0)
		r = kn_port_open(&b, &p->opened, err);
	if (r == 0)
		l->xdp |= strcmp(p->opened->ops->kind, "af_xdp") == 0;
	return r;
}

static int open_ports(struct live *l, struct kn_err *err)
{
	int r = 0;

	if (l->o->ports->n > KN_CHAIN_PORTS_MAX)
		return kn_fail(err, EINVAL, "at most %d ports", KN_CHAIN_PORTS_MAX);
	for (size_t i = 0; r == 0 && i < l->o->ports->n; i++)
		r = open_port(l, l->o->ports->at[i], err);
	return r;
}

static int arm(struct live *l, bool yes, struct kn_err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < l->n; i++)
		if (l->ports[i].opened)
			r = kn_port_arm(l->ports[i].opened, yes, err);
	return r;
}

static int load(struct live *l, struct kn_view text, bool dry, struct kn_err *err)
{
	const struct kn_chain_config config = {
		.path = l->o->path, .text = &text, .ports = l->ports, .n_ports = l->n, .dry = dry
	};
	int r = kn_chain_load(&config, &l->chain, err);

	if (r == 0 && kn_chain_lines(l->chain) > KN_RUNNER_MAX)
		r = kn_fail(err, EINVAL, "%s: at most %d chains run together", l->o->path,
			    KN_RUNNER_MAX);
	for (size_t i = 0; r == 0 && i < kn_chain_lines(l->chain); i++)
		l->pipelines[i] = kn_chain_pipeline(l->chain, i);
	return r;
}

/* A change of user takes the death signal away that the supervisor gave us. */
static int jail(const struct live *l, struct kn_err *err)
{
	if (l->o->keep_root || geteuid() != 0)
		return 0;
	int r = kn_jail_self((uid_t)l->o->uid, (gid_t)l->o->uid, err);
	if (r == 0 && l->o->control >= 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		r = kn_fail(err, errno, "PR_SET_PDEATHSIG: %s", strerror(errno));
	return r;
}

/* Would the chain load? Its file is read by a child without rights, which tells the reason. */
static int rehearse(struct live *l, struct kn_view text, struct kn_err *err)
{
	char why[KN_ERR_TEXT];
	int lines[2], status;

	if (pipe2(lines, O_CLOEXEC) < 0)
		return kn_fail(err, errno, "pipe: %s", strerror(errno));
	kn_auto(kn_close) int in = lines[0], out = lines[1];
	pid_t pid = fork();
	if (pid < 0)
		return kn_fail(err, errno, "fork: %s", strerror(errno));
	if (pid == 0) {
		struct kn_err wrong = KN_ERR_INIT;
		if (jail(l, &wrong) == 0 && load(l, text, true, &wrong) == 0)
			_exit(0);
		(void)!kn_write_all(out, wrong.text, strlen(wrong.text));
		_exit(1);
	}
	kn_close(kn_take_fd(out));
	ssize_t n = kn_read_all(in, why, sizeof(why) - 1);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	why[n > 0 ? n : 0] = '\0';
	return status ? kn_fail(err, EINVAL, "%s", why) : 0;
}

/*
 * What is called from here on, by us and by libc: frames, memory, time, the end. No call that makes a
 * socket, opens a file or starts a process is among them.
 */
static int limit_calls(const struct live *l, struct kn_err *err)
{
	static const long calls[] = {
		SYS_sendmmsg, SYS_recvmsg, SYS_ppoll, SYS_poll, SYS_sched_yield, SYS_rt_sigprocmask,
		SYS_clock_gettime, SYS_getsockopt, SYS_setsockopt, SYS_ioctl, SYS_sendto,
		SYS_recvfrom, SYS_sendmsg, SYS_read, SYS_write, SYS_writev, SYS_close, SYS_lseek,
		SYS_newfstatat, SYS_fstat, SYS_mmap, SYS_munmap, SYS_mremap, SYS_madvise,
		SYS_mprotect, SYS_brk, SYS_futex, SYS_getrandom, SYS_rt_sigreturn,
		SYS_rt_sigaction, SYS_restart_syscall, SYS_getpid, SYS_gettid, SYS_tgkill,
		SYS_exit, SYS_exit_group,
	};

	if (l->o->keep_root || geteuid() == 0)
		return 0;
	return kn_seccomp_allow(calls, KN_ARRAY_LEN(calls), err);
}

/* ---- talking to the supervisor ------------------------------------------------------------- */

static void shorten_rules(json_t *report)
{
	json_t *stages = json_object_get(report, "stages"), *stage;
	size_t i;

	json_array_foreach (stages, i, stage) {
		json_t *rules = json_object_get(stage, "rules");
		while (json_array_size(rules) > RULES_TOLD)
			json_array_remove(rules, json_array_size(rules) - 2); /* default stays */
	}
}

static json_t *message(const struct live *l, const char *event)
{
	json_t *o = l->chain ? kn_chain_report(l->chain) : json_object();
	json_t *chains = json_object_get(o, "chains"), *one;
	const char *name;

	json_object_set_new(o, "event", json_string(event));
	shorten_rules(o);
	json_object_foreach (chains, name, one)
		shorten_rules(one);
	return o;
}

/* Counters that find no room wait for the next time; a supervisor that is gone ends us. */
static int tell(const struct live *l, const char *event, struct kn_err *err)
{
	if (l->o->control < 0)
		return 0;
	kn_auto(json_decref) json_t *o = message(l, event);
	kn_auto(kn_free) char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	int flags = MSG_NOSIGNAL | (strcmp(event, "counters") == 0 ? MSG_DONTWAIT : 0);

	if (!text)
		return kn_fail(err, ENOMEM, "no memory for a report");
	if (send(l->o->control, text, strlen(text), flags) >= 0 || errno == EAGAIN)
		return 0;
	return kn_fail(err, errno, "tell the supervisor '%s': %s", event, strerror(errno));
}

/* The supervisor's next word; false: it is gone. */
static bool hear(const struct live *l, char word[16])
{
	ssize_t n;

	do
		n = recv(l->o->control, word, 15, 0);
	while (n < 0 && errno == EINTR && !stop);
	word[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static int await_go(const struct live *l, struct kn_err *err)
{
	char word[16];

	if (l->o->control < 0)
		return 0;
	int r = tell(l, "prepared", err);
	if (r == 0 && (!hear(l, word) || strcmp(word, "go") != 0))
		stop = SIGTERM;
	return r;
}

static int on_tick(void *arg, struct kn_err *err)
{
	return tell(arg, "counters", err);
}

static int on_word(void *arg, struct kn_err *err)
{
	char word[16];

	(void)err;
	return !hear(arg, word) || strcmp(word, "stop") == 0;
}

/* ---- running ------------------------------------------------------------------------------- */

/* What is in the rings when nothing more may come in. */
static void drain(struct live *l)
{
	if (arm(l, false, NULL) < 0)
		return;
	for (int frames = 1, i = 0; frames > 0 && i < DRAIN_ROUNDS; i++) {
		frames = 0;
		for (size_t k = 0; k < kn_chain_lines(l->chain); k++)
			frames += kn_max(kn_pipeline_step(l->pipelines[k], NULL), 0);
	}
	for (size_t i = 0; i < l->n; i++)
		if (l->ports[i].opened)
			kn_port_look(l->ports[i].opened);
}

static int run_chains(struct live *l, struct kn_err *err)
{
	struct kn_runner_config config = KN_RUNNER_DEFAULTS;

	config.pipelines = l->pipelines;
	config.n = kn_chain_lines(l->chain);
	config.stop = &stop;
	config.tick = on_tick;
	config.woken = on_word;
	config.wake = l->o->control;
	config.arg = l;
	int r = stop ? 0 : kn_runner_run(&config, err);
	drain(l);
	return r;
}

static void announce(const struct live *l)
{
	if (l->o->control >= 0)
		return; /* kilnd says it */
	for (size_t i = 0; i < l->n; i++) {
		const struct kn_port *p = l->ports[i].opened;
		if (p)
			fprintf(stderr, "port %s: %s by %s: %s%s%s%s\n", p->name,
				p->live->binding.interface, p->ops->kind, p->live->why,
				p->live->refused[0] ? " (" : "", p->live->refused,
				p->live->refused[0] ? ")" : "");
	}
}

static int live_run(struct live *l, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	int r = kn_read_file(AT_FDCWD, l->o->path, FILE_MAX, &text, err);
	if (r == 0)
		r = open_ports(l, err);
	if (r == 0 && l->xdp)
		r = rehearse(l, kn_buf_view(&text), err);
	if (r == 0 && l->xdp)
		r = await_go(l, err);
	if (r == 0 && l->xdp && !stop)
		r = arm(l, true, err);
	if (r == 0)
		r = jail(l, err);
	if (r == 0)
		r = limit_calls(l, err);
	if (r == 0)
		r = load(l, kn_buf_view(&text), false, err);
	if (r == 0 && !l->xdp)
		r = await_go(l, err);
	if (r == 0 && !l->xdp && !stop)
		r = arm(l, true, err);
	if (r == 0)
		r = tell(l, "running", err);
	if (r < 0)
		return r;
	announce(l);
	r = run_chains(l, err);
	int t = tell(l, "stopped", r < 0 ? NULL : err);
	return r < 0 ? r : t;
}

static void catch_signals(void)
{
	const struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static int show(const struct live *l)
{
	kn_auto(json_decref) json_t *report = kn_chain_report(l->chain);

	if (l->o->json && report)
		json_dumpf(report, stdout, JSON_INDENT(2)), putchar('\n');
	else if (report)
		kn_nf_print_report(report);
	return kn_nf_printed(l->o->name);
}

int kn_nf_live(const struct kn_nf_live *o)
{
	struct live l = { .o = o };
	struct kn_err err = KN_ERR_INIT;

	catch_signals();
	int r = live_run(&l, &err), code = 0;
	if (l.chain && o->control < 0)
		code = show(&l);
	if (!l.chain)
		for (size_t i = 0; i < l.n; i++)
			kn_port_close(l.ports[i].opened);
	kn_chain_free(l.chain);
	return r < 0 ? kn_nf_failed(o->name, &err) : code;
}
