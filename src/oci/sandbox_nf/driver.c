/*
 * Theory of operation. start() spawns kiln-nf with a socket to it and looks who has the interfaces.
 *
 *     STARTING --"prepared"--> WAITING   another instance of the function still has an interface
 *              \                  | that one said "stopped", or its process ended: "go"
 *               ------ "go" ------+--> GOING --"running"--> RUNNING --stop()--> STOPPING --> ended
 *
 * `ready` is told when it runs, or when it waits for its predecessor: the pool then stops that one.
 * Every end takes one way: the process is reaped, its cgroup removed, `ended` told.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "host/jail.h"
#include "host/process.h"
#include "oci/sandbox_nf/nf.h"
#include "packet/binding.h"

enum {
	CONTROL_FD = 3,
	MESSAGE_MAX = 256 * 1024,
	LINE_MAX = 1024,
	MAX_WORDS = 16 + 2 * NF_PORTS_MAX,
	MAX_PIDS = 8,
	CLEAN_MS = 2,
	CLEAN_TRIES = 2500,
};

enum state { STARTING, WAITING, GOING, RUNNING, STOPPING };

struct box {
	struct kn_sandbox sb; /* first: the pool sees this part */
	struct kn_loop *loop;
	struct kn_nf *nf;
	struct kn_sandbox_events events;
	struct box *next, **prev;
	enum state state;
	bool released; /* it takes no frames any more, or never did */
	bool told_ready, stopped;

	char *function;
	struct claim claims[NF_PORTS_MAX];
	size_t n_claims;
	json_t *report; /* the last one; NULL before the first */
	struct kn_cgroup *cgroup;
	uid_t uid; /* 0: none taken */
	struct kn_child child;
	int control, output;
	struct kn_watch control_watch, output_watch;
	char line[LINE_MAX]; /* of its standard error; the last one tells why it ended */
	size_t line_len;
	char last[LINE_MAX];
	struct kn_timer timer; /* start, stop, another try to clean up */
	unsigned tries;
	uint64_t phase_ns;
	struct kn_err why;
};

static struct box *box_of(struct kn_sandbox *sb)
{
	return kn_container_of(sb, struct box, sb);
}

/* ---- interfaces ---------------------------------------------------------------------------- */

static int claim_of(const struct kn_binding *b, struct claim *ret, struct kn_err *err)
{
	const char *path = b->netns[0] ? b->netns : "/proc/self/ns/net";
	struct stat st;

	if (stat(path, &st) < 0)
		return kn_fail(err, errno, "network namespace '%s': %s", path, strerror(errno));
	*ret = (struct claim){ .dev = st.st_dev, .ino = st.st_ino };
	memcpy(ret->interface, b->interface, sizeof(ret->interface));
	return 0;
}

static bool share_interface(const struct box *a, const struct box *b)
{
	for (size_t i = 0; i < a->n_claims; i++) {
		for (size_t k = 0; k < b->n_claims; k++) {
			const struct claim *x = &a->claims[i], *y = &b->claims[k];
			if (x->dev == y->dev && x->ino == y->ino &&
			    strcmp(x->interface, y->interface) == 0)
				return true;
		}
	}
	return false;
}

/* Another instance that takes frames from one of this one's interfaces, or is about to. */
static struct box *holder(const struct box *b)
{
	for (struct box *o = b->nf->boxes; o; o = o->next)
		if (o != b && o->state >= GOING && !o->released && share_interface(o, b))
			return o;
	return NULL;
}

static int read_claims(struct box *b, const char *const *ports, struct kn_err *err)
{
	struct kn_binding binding;
	int r = 0;

	for (size_t i = 0; r == 0 && ports && ports[i]; i++) {
		if (i == NF_PORTS_MAX)
			return kn_fail(err, EINVAL, "at most %d ports", NF_PORTS_MAX);
		r = kn_binding_parse(kn_view_of(ports[i]), &binding, err);
		if (r == 0)
			r = claim_of(&binding, &b->claims[b->n_claims++], err);
	}
	return r;
}

/* By name and path the control API has refused it; by what they are, it may still be one. */
static int check_claims(const struct box *b, struct kn_err *err)
{
	for (const struct box *o = b->nf->boxes; o; o = o->next)
		if (o != b && share_interface(o, b) && strcmp(o->function, b->function) != 0)
			return kn_fail(err, EBUSY, "the packet function '%s' has one of these "
				       "interfaces already", o->function);
	return 0;
}

/* ---- the end ------------------------------------------------------------------------------- */

static void hand_over(struct kn_nf *nf);

static void unlink_box(struct box *b)
{
	if (b->prev)
		*b->prev = b->next;
	if (b->next)
		b->next->prev = b->prev;
	b->prev = NULL;
}

static void box_free(struct box *b)
{
	kn_timer_stop(&b->timer);
	kn_watch_stop(&b->control_watch);
	kn_watch_stop(&b->output_watch);
	kn_close(b->control);
	kn_close(b->output);
	unlink_box(b);
	if (b->uid)
		kn_jail_give_uid(b->uid);
	kn_cgroup_free(b->cgroup);
	json_decref(b->report);
	free(b->function);
	free(b);
}

static void clean_up(struct box *b);

static void on_clean_time(struct kn_timer *t)
{
	clean_up(kn_container_of(t, struct box, timer));
}

static void clean_up(struct box *b)
{
	struct kn_err err = KN_ERR_INIT, none = KN_ERR_INIT;

	int r = b->cgroup ? kn_cgroup_remove(b->cgroup, &err) : 0;
	if (r == -EBUSY && b->tries++ < CLEAN_TRIES) {
		b->timer.call = on_clean_time;
		if (kn_timer_start(b->loop, &b->timer, kn_now_ns() + CLEAN_MS * KN_NS_PER_MS,
				   NULL) == 0)
			return;
	}
	if (r < 0)
		kn_log(KN_WARN, "a cgroup stays", KN_S("fn", b->function), KN_E(&err));
	b->events.ended(&b->sb, b->stopped ? &none : &b->why, b->events.arg);
	box_free(b);
}

static void box_kill(struct box *b)
{
	if (b->child.pid)
		kn_child_kill(&b->child, SIGKILL);
}

/* End it for a reason; the first one counts. */
static void box_fail(struct box *b, const struct kn_err *why)
{
	if (!b->why.code)
		b->why = *why;
	box_kill(b);
}

static void take_output(struct box *b);
static void take_messages(struct box *b);

static void on_child(struct kn_child *c, int status)
{
	struct box *b = kn_container_of(c, struct box, child);
	char how[96];

	b->child.pid = 0;
	/* What it said last may still be in the socket and the pipe. */
	take_messages(b);
	take_output(b);
	kn_watch_stop(&b->control_watch);
	kn_watch_stop(&b->output_watch);
	kn_timer_stop(&b->timer);
	kn_wait_status_text(status, how, sizeof(how));
	if (!b->why.code && b->last[0])
		kn_fail(&b->why, EIO, "%s", b->last);
	else if (!b->why.code)
		kn_fail(&b->why, EIO, "kiln-nf %s", how);
	b->released = true;
	hand_over(b->nf);
	clean_up(b);
}

/* ---- its words ----------------------------------------------------------------------------- */

static void say(struct box *b, const char *word)
{
	if (send(b->control, word, strlen(word), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		box_kill(b);
}

static void add_phase(struct box *b, const char *name)
{
	uint64_t now = kn_now_ns();

	b->sb.phases[b->sb.n_phases++] = (struct kn_phase){ name, now - b->phase_ns };
	b->phase_ns = now;
}

static void become_ready(struct box *b)
{
	if (b->told_ready || b->stopped)
		return;
	b->told_ready = true;
	add_phase(b, "open");
	kn_timer_stop(&b->timer);
	b->events.ready(&b->sb, b->events.arg);
}

/* Whoever waits for an interface that is free now gets it. */
static void hand_over(struct kn_nf *nf)
{
	for (struct box *b = nf->boxes; b; b = b->next) {
		if (b->state != WAITING || holder(b))
			continue;
		b->state = GOING;
		say(b, "go");
	}
}

/* Which kind each port got is told once, where it is decided. */
static void tell_ports(const struct box *b)
{
	json_t *ports = json_object_get(b->report, "ports"), *p;
	const char *name;

	json_object_foreach (ports, name, p)
		kn_log(KN_INFO, "port opened", KN_S("fn", b->function), KN_S("port", name),
		       KN_S("interface", json_string_value(json_object_get(p, "interface"))),
		       KN_S("kind", json_string_value(json_object_get(p, "kind"))),
		       KN_S("why", json_string_value(json_object_get(p, "why"))),
		       KN_S("refused", json_string_value(json_object_get(p, "refused"))));
}

static void on_event(struct box *b, const char *event)
{
	if (strcmp(event, "prepared") == 0 && b->state == STARTING) {
		b->state = WAITING;
		hand_over(b->nf);
		if (b->state == WAITING)
			become_ready(b);
	} else if (strcmp(event, "running") == 0 && b->state == GOING) {
		b->state = RUNNING;
		tell_ports(b);
		become_ready(b);
	} else if (strcmp(event, "stopped") == 0 && b->state >= GOING) {
		b->released = true;
		hand_over(b->nf);
	}
}

static void on_message(struct box *b, struct kn_view text)
{
	kn_auto(json_decref) json_t *o = NULL;
	struct kn_err err = KN_ERR_INIT;

	if (kn_json_parse(text, &o, &err) < 0 || !json_is_object(o)) {
		kn_while(&err, "kiln-nf broke its protocol");
		box_fail(b, &err);
		return;
	}
	const char *event = json_string_value(json_object_get(o, "event"));
	if (json_object_get(o, "ports")) {
		json_decref(b->report);
		b->report = json_incref(o);
	}
	on_event(b, event ? event : "");
}

static void take_messages(struct box *b)
{
	kn_auto(kn_free) char *text = malloc(MESSAGE_MAX);
	ssize_t n;

	while (text && (n = recv(b->control, text, MESSAGE_MAX, MSG_DONTWAIT)) > 0)
		on_message(b, (struct kn_view){ text, (size_t)n });
	if (!text || n == 0)
		kn_watch_stop(&b->control_watch); /* its end follows by the child */
}

static void on_control(struct kn_watch *w, uint32_t events)
{
	(void)events;
	take_messages(kn_container_of(w, struct box, control_watch));
}

static void tell_line(struct box *b)
{
	if (b->line_len == 0)
		return;
	b->line[b->line_len] = '\0';
	/* "kiln-nf run: " in front says nothing to who deployed a function. */
	const char *colon = strncmp(b->line, "kiln-nf", 7) == 0 ? strstr(b->line, ": ") : NULL;
	snprintf(b->last, sizeof(b->last), "%s", colon ? colon + 2 : b->line);
	if (b->events.log)
		b->events.log(&b->sb, KN_STDERR, kn_view_of(b->line), b->events.arg);
	b->line_len = 0;
}

static void take_output(struct box *b)
{
	char bytes[LINE_MAX];
	ssize_t n;

	while ((n = read(b->output, bytes, sizeof(bytes))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (bytes[i] == '\n' || b->line_len == sizeof(b->line) - 1)
				tell_line(b);
			if (bytes[i] != '\n')
				b->line[b->line_len++] = bytes[i];
		}
	}
	if (n == 0) {
		tell_line(b);
		kn_watch_stop(&b->output_watch);
	}
}

static void on_output(struct kn_watch *w, uint32_t events)
{
	(void)events;
	take_output(kn_container_of(w, struct box, output_watch));
}

static void on_timer(struct kn_timer *t)
{
	struct box *b = kn_container_of(t, struct box, timer);
	struct kn_err err = KN_ERR_INIT;

	if (b->stopped) {
		box_kill(b);
		return;
	}
	kn_fail(&err, ETIMEDOUT, "the ports were not open in time (annotation kiln.boot-timeout)");
	box_fail(b, &err);
}

/* ---- the start ----------------------------------------------------------------------------- */

struct words {
	const char *at[MAX_WORDS];
	size_t n;
	char uid[16], fd[8];
};

static void make_words(struct words *w, const struct box *b, const struct kn_sandbox_config *c)
{
	static const char *const first[] = { "kiln-nf", "run", "--control" };

	snprintf(w->uid, sizeof(w->uid), "%u", (unsigned)b->uid);
	snprintf(w->fd, sizeof(w->fd), "%d", CONTROL_FD);
	for (size_t i = 0; i < KN_ARRAY_LEN(first); i++)
		w->at[w->n++] = first[i];
	w->at[w->n++] = w->fd;
	w->at[w->n++] = "--uid";
	w->at[w->n++] = w->uid;
	for (size_t i = 0; i < NF_PORTS_MAX && c->ports && c->ports[i]; i++) {
		w->at[w->n++] = "--port";
		w->at[w->n++] = c->ports[i];
	}
	w->at[w->n++] = c->image;
	w->at[w->n] = NULL;
}

static int join_cgroup(void *arg, struct kn_err *err)
{
	return kn_cgroup_add(arg, 0, err);
}

static int make_cgroup(struct box *b, const struct kn_sandbox_config *c, struct kn_err *err)
{
	const struct kn_cgroup_limits limits = { .memory_bytes = c->memory_bytes,
						 .cpu_millis = c->cpu_milli,
						 .pids = MAX_PIDS };
	struct kn_cgroup_host host;

	int r = kn_cgroup_find("/proc/self/mountinfo", &host, err);
	return r < 0 ? r : kn_cgroup_new(&host, b->nf->cgroup, c->id, &limits, &b->cgroup, err);
}

static int spawn(struct box *b, const struct kn_sandbox_config *c, int control, int output,
		 struct kn_err *err)
{
	static const struct kn_rlimit limits[] = { { RLIMIT_CORE, 0, 0 } };
	const struct kn_fd_map fds[] = { { output, 1 }, { output, 2 }, { control, CONTROL_FD } };
	struct words w = { .n = 0 };

	make_words(&w, b, c);
	/* Its other namespaces it makes itself, when the interfaces are open. */
	const struct kn_spawn_config s = { .path = b->nf->program,
					   .argv = w.at,
					   .fds = fds,
					   .n_fds = KN_ARRAY_LEN(fds),
					   .rlimits = limits,
					   .n_rlimits = KN_ARRAY_LEN(limits),
					   .namespaces = CLONE_NEWPID,
					   .new_session = true,
					   .die_with_us = true,
					   .setup = join_cgroup,
					   .arg = b->cgroup };
	return kn_spawn(&s, &b->child.pid, NULL, err);
}

static int spawn_with_channels(struct box *b, const struct kn_sandbox_config *c, struct kn_err *err)
{
	int pair[2], lines[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return kn_fail(err, errno, "socketpair: %s", strerror(errno));
	b->control = pair[0];
	kn_auto(kn_close) int theirs = pair[1];
	(void)setsockopt(theirs, SOL_SOCKET, SO_SNDBUF, &(int){ MESSAGE_MAX }, sizeof(int));
	if (pipe2(lines, O_CLOEXEC | O_NONBLOCK) < 0)
		return kn_fail(err, errno, "pipe: %s", strerror(errno));
	b->output = lines[0];
	kn_auto(kn_close) int write_end = lines[1];
	return spawn(b, c, theirs, write_end, err);
}

static int watch(struct box *b, uint64_t timeout_ms, struct kn_err *err)
{
	b->child.done = on_child;
	b->timer.call = on_timer;
	b->control_watch =
		(struct kn_watch){ .fd = b->control, .events = EPOLLIN, .call = on_control };
	b->output_watch =
		(struct kn_watch){ .fd = b->output, .events = EPOLLIN, .call = on_output };
	int r = kn_watch_start(b->loop, &b->control_watch, err);
	if (r == 0)
		r = kn_watch_start(b->loop, &b->output_watch, err);
	if (r == 0 && timeout_ms)
		r = kn_timer_start(b->loop, &b->timer, kn_now_ns() + timeout_ms * KN_NS_PER_MS, err);
	if (r == 0)
		r = kn_child_start(b->loop, &b->child, err);
	return r;
}

static void link_box(struct box *b)
{
	b->next = b->nf->boxes;
	b->prev = &b->nf->boxes;
	if (b->next)
		b->next->prev = &b->next;
	b->nf->boxes = b;
}

static int begin(struct box *b, const struct kn_sandbox_config *c, struct kn_err *err)
{
	b->function = strdup(c->function ? c->function : c->id);
	if (!b->function)
		return kn_fail(err, ENOMEM, "out of memory");
	int r = read_claims(b, c->ports, err);
	if (r == 0)
		r = check_claims(b, err);
	if (r == 0)
		r = make_cgroup(b, c, err);
	if (r == 0)
		r = kn_jail_take_uid(b->nf->config.uid_first, b->nf->config.uid_count, &b->uid, err);
	if (r == 0)
		r = spawn_with_channels(b, c, err);
	if (r < 0)
		return r;
	add_phase(b, "spawn");
	r = watch(b, c->boot_timeout_ms, err);
	if (r < 0) {
		kill(b->child.pid, SIGKILL);
		while (waitpid(b->child.pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	return r;
}

static int nf_start(struct kn_loop *loop, const void *driver, const struct kn_sandbox_config *config,
		    const struct kn_sandbox_events *events, struct kn_sandbox **ret,
		    struct kn_err *err)
{
	struct box *b = calloc(1, sizeof(*b));

	if (!b)
		return kn_fail(err, ENOMEM, "out of memory");
	b->sb.ops = &kn_sandbox_nf;
	b->loop = loop;
	b->nf = (struct kn_nf *)(uintptr_t)driver;
	b->events = *events;
	b->control = b->output = -1;
	b->phase_ns = kn_now_ns();
	int r = begin(b, config, err);
	if (r < 0) {
		if (b->cgroup)
			(void)!kn_cgroup_remove(b->cgroup, NULL);
		box_free(b);
		return kn_while(err, "start packet function");
	}
	link_box(b);
	*ret = &b->sb;
	return 0;
}

/* ---- operations ---------------------------------------------------------------------------- */

static int nf_check(const void *driver, struct kn_err *err)
{
	const struct kn_nf *nf = driver;

	if (access(nf->program, X_OK) < 0)
		return kn_fail(err, errno, "'%s' cannot be run: %s", nf->program, strerror(errno));
	return kn_jail_check(err);
}

static void nf_stop(struct kn_sandbox *sb, uint64_t grace_ms)
{
	struct box *b = box_of(sb);

	if (b->stopped)
		return;
	b->stopped = true;
	if (b->child.pid == 0)
		return; /* its end is on the way */
	if (b->state == RUNNING)
		b->state = STOPPING;
	if (grace_ms == 0 || b->state < RUNNING) {
		box_kill(b);
		return;
	}
	say(b, "stop");
	if (kn_timer_start(b->loop, &b->timer, kn_now_ns() + grace_ms * KN_NS_PER_MS, NULL) < 0)
		box_kill(b);
}

static int nf_stats(struct kn_sandbox *sb, struct kn_sandbox_stats *ret, struct kn_err *err)
{
	const struct box *b = box_of(sb);
	struct kn_cgroup_stats s;

	int r = kn_cgroup_stats(b->cgroup, &s, err);
	if (r == 0)
		*ret = (struct kn_sandbox_stats){ .memory_bytes = s.memory_bytes,
						  .cpu_ns = s.cpu_ns,
						  .pid = b->child.pid };
	return r;
}

static void nf_visit(struct kn_sandbox *sb, kn_counter_visit each, void *arg)
{
	const struct box *b = box_of(sb);

	if (b->report)
		nf_counters(b->report, each, arg);
}

const struct kn_sandbox_ops kn_sandbox_nf = {
	.name = "nf",
	.check = nf_check,
	.start = nf_start,
	.stop = nf_stop,
	.stats = nf_stats,
	.counters = nf_visit,
};

int kn_nf_new(const struct kn_nf_config *config, struct kn_nf **ret, struct kn_err *err)
{
	kn_auto(kn_nf_free) struct kn_nf *nf = calloc(1, sizeof(*nf));

	if (!nf)
		return kn_fail(err, ENOMEM, "out of memory");
	nf->config = *config;
	nf->program = strdup(config->program);
	nf->cgroup = strdup(config->cgroup);
	if (!nf->program || !nf->cgroup)
		return kn_fail(err, ENOMEM, "out of memory");
	*ret = kn_take_ptr(nf);
	return 0;
}

void kn_nf_free(struct kn_nf *nf)
{
	if (!nf)
		return;
	free(nf->program);
	free(nf->cgroup);
	free(nf);
}

size_t kn_sandbox_nf_sweep(const struct kn_nf *nf)
{
	struct kn_cgroup_host host;

	if (kn_cgroup_find("/proc/self/mountinfo", &host, NULL) < 0)
		return 0;
	return kn_cgroup_sweep(&host, nf->cgroup);
}
