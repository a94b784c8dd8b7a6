/*
 * Theory of operation. start() makes a cgroup, takes a range of ids and a mount of the image, and
 * starts kiln-agent in namespaces of its own; everything that the agent must know waits in its pipe.
 * The agent builds the container around itself and tells how far it is. Every end takes one way:
 * end() notes the reason and kills the first process, and the kernel everything else in its PID
 * namespace; when that is reaped the cgroup is removed (the kernel may need some milliseconds until
 * it is free), and `ended` is called.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/jail.h"
#include "host/network.h"
#include "oci/agent_link.h"
#include "oci/contained.h"
#include "oci/sandbox_ns/ns.h"

enum {
	STOP_EXTRA_MS = 500,       /* beyond the grace, for the agent to tell that it is done */
	READY_EXTRA_MS = 2000,     /* the agent keeps the time itself; this is for one that hangs */
	CLEAN_MS = 2, CLEAN_TRIES = 2500,
	MIN_MEMORY = 8 << 20,
	AGENT_PIDS = 1,
};

enum state {
	BOOTING,                   /* the agent has not greeted */
	STARTING,                  /* it has, and the function is not ready */
	SERVING,
	STOPPING,                  /* the agent was asked to stop the function */
	DYING,                     /* the first process was killed */
	CLEANING,                  /* it is reaped; what remains is being removed */
};

struct box {
	struct kn_sandbox sb;      /* first: the pool sees this part */
	struct kn_loop *loop;
	struct kn_ns *ns;
	struct kn_sandbox_events events;
	enum state state;
	bool was_ready;

	uint64_t memory_bytes, boot_timeout_ms, ready_timeout_ms;
	enum kn_contract contract;
	uint16_t port;
	char *dir;                 /* run_dir/root: made and removed here */
	struct kn_cgroup *cgroup;
	struct ids *ids;
	struct image *image;
	struct kn_child child;     /* .pid 0: not started */
	int netns_fd;
	struct kn_netif *netif;    /* NULL: the function has no network */
	struct kn_agent_link *link;

	struct kn_timer timer;     /* of the state: boot, ready, stop, another try to clean up */
	unsigned tries;
	struct kn_err why;         /* the reason of the end; the first one counts */
	bool stopped;              /* by the caller: no reason then */
	uint64_t phase_ns;         /* when the phase under way began */
};

/* ---- the end ------------------------------------------------------------------------------- */

static void clean_up(struct box *b);

static void on_clean_time(struct kn_timer *t)
{
	clean_up(kn_container_of(t, struct box, timer));
}

static void release(struct box *b)
{
	kn_timer_stop(&b->timer);
	kn_agent_link_free(b->link);
	kn_close(b->netns_fd);
	kn_netif_free(b->netif);
	if (b->dir)
		rmdir(b->dir);
	image_give(b->ns, b->image);
	ids_give(b->ns, b->ids);
	kn_cgroup_free(b->cgroup);
	free(b->dir);
	free(b);
}

/* Errors other than EBUSY are for the daemon's log: the sweep at its next start tries again. */
static void clean_up(struct box *b)
{
	struct kn_err err = KN_ERR_INIT, none = KN_ERR_INIT;

	int r = kn_cgroup_remove(b->cgroup, &err);
	if (r == -EBUSY && b->tries++ < CLEAN_TRIES) {
		b->timer.call = on_clean_time;
		if (kn_timer_start(b->loop, &b->timer, kn_now_ns() + CLEAN_MS * KN_NS_PER_MS,
		                   NULL) == 0)
			return;
	}
	if (r < 0 && b->events.log)
		b->events.log(&b->sb, KN_MONITOR, kn_view_of(kn_err_text(&err)), b->events.arg);
	if (b->events.ended)
		b->events.ended(&b->sb, b->stopped ? &none : &b->why, b->events.arg);
	release(b);
}

static bool out_of_memory(const struct box *b)
{
	struct kn_cgroup_stats s;

	return b->cgroup && kn_cgroup_stats(b->cgroup, &s, NULL) == 0 && s.oom_kills > 0;
}

static int tell_memory(const struct box *b, struct kn_err *why)
{
	const char *when = b->was_ready ? "" : " before it was ready";

	if (b->memory_bytes % (1 << 20))
		return kn_fail(why, ENOMEM, "killed%s: out of its memory limit of %llu bytes", when,
		               (unsigned long long)b->memory_bytes);
	return kn_fail(why, ENOMEM, "killed%s: out of its memory limit of %lluMi", when,
	               (unsigned long long)b->memory_bytes >> 20);
}

/* The first process ended by itself: what can be found out about the reason. */
static void explain(struct box *b, int wait_status)
{
	char how[96];

	if (b->why.code)
		return;
	if (out_of_memory(b)) {
		tell_memory(b, &b->why);
		return;
	}
	kn_wait_status_text(wait_status, how, sizeof(how));
	kn_fail(&b->why, EIO, "the container's agent %s%s", how,
	        b->was_ready ? "" : " before the function was ready");
}

static void on_reaped(struct kn_child *child, int wait_status)
{
	struct box *b = kn_container_of(child, struct box, child);

	explain(b, wait_status);
	b->state = CLEANING;
	b->tries = 0;
	b->child.pid = 0;
	kn_agent_link_free(kn_take_ptr(b->link));
	kn_close(kn_take_fd(b->netns_fd));
	kn_netif_free(kn_take_ptr(b->netif));
	clean_up(b);
}

/* Kill it; why is noted if it is the first reason. NULL: the caller wanted it so. */
static void end(struct box *b, const struct kn_err *why)
{
	if (why && !b->why.code)
		b->why = *why;
	if (b->state >= DYING)
		return;
	b->state = DYING;
	kn_timer_stop(&b->timer);
	kn_child_kill(&b->child, SIGKILL);
}

/* ---- how far it is ------------------------------------------------------------------------- */

static void note_phase(struct box *b, const char *name)
{
	uint64_t now = kn_now_ns();

	if (b->sb.n_phases < KN_MAX_PHASES)
		b->sb.phases[b->sb.n_phases++] = (struct kn_phase){ name, now - b->phase_ns };
	b->phase_ns = now;
}

static int arm(struct box *b, void (*call)(struct kn_timer *t), uint64_t ms, struct kn_err *err)
{
	b->timer.call = call;
	return kn_timer_start(b->loop, &b->timer, kn_now_ns() + ms * KN_NS_PER_MS, err);
}

static void on_boot_time(struct kn_timer *t)
{
	struct box *b = kn_container_of(t, struct box, timer);
	struct kn_err why = KN_ERR_INIT;

	kn_fail(&why, ETIMEDOUT, "the container's agent did not answer within %llu ms",
	        (unsigned long long)b->boot_timeout_ms);
	end(b, &why);
}

static void on_ready_time(struct kn_timer *t)
{
	struct box *b = kn_container_of(t, struct box, timer);
	struct kn_err why = KN_ERR_INIT;

	kn_fail(&why, ETIMEDOUT, "the container's agent hangs: the function was not ready within "
	        "%llu ms", (unsigned long long)(b->ready_timeout_ms + READY_EXTRA_MS));
	end(b, &why);
}

static void on_stop_time(struct kn_timer *t)
{
	end(kn_container_of(t, struct box, timer), NULL);
}

static void on_hello(void *arg)
{
	struct box *b = arg;
	struct kn_err err = KN_ERR_INIT;

	if (b->state != BOOTING)
		return;
	b->state = STARTING;
	if (arm(b, on_ready_time, b->ready_timeout_ms + READY_EXTRA_MS, &err) < 0)
		end(b, &err);
}

static void on_started(void *arg)
{
	note_phase(arg, "start");
}

static void on_ready(void *arg)
{
	struct box *b = arg;

	if (b->state != STARTING)
		return;
	note_phase(b, "ready");
	b->state = SERVING;
	b->was_ready = true;
	kn_timer_stop(&b->timer);
	if (b->events.ready)
		b->events.ready(&b->sb, b->events.arg);
}

static void on_log(enum kn_stream stream, struct kn_view line, void *arg)
{
	struct box *b = arg;

	if (b->events.log)
		b->events.log(&b->sb, stream, line, b->events.arg);
}

/* The kernel's killing for memory looks like anybody's from inside. */
static void on_function_ended(const struct kn_err *why, int wait_status, void *arg)
{
	struct box *b = arg;
	struct kn_err memory = KN_ERR_INIT;

	if (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL && out_of_memory(b)) {
		tell_memory(b, &memory);
		why = &memory;
	}
	end(b, why);
}

/* A first process that ended closes its pipe before it is reaped: its status knows the reason. */
static void on_pipe_failed(const struct kn_err *why, bool broken, void *arg)
{
	struct box *b = arg;

	if (broken)
		end(b, why);
	else if (b->state < DYING)
		(void)!arm(b, on_stop_time, STOP_EXTRA_MS, NULL);   /* if it does not end */
}

/* ---- start --------------------------------------------------------------------------------- */

static int check_config(const struct kn_sandbox_config *c, struct kn_err *err)
{
	if (c->contract == KN_CONTRACT_MESSAGE)
		return kn_fail(err, EINVAL, "a container runs images with the contract http or stdio");
	if (c->memory_bytes < MIN_MEMORY)
		return kn_fail(err, EINVAL, "%llu bytes of memory for a container; at least %d MiB",
		               (unsigned long long)c->memory_bytes, MIN_MEMORY >> 20);
	return 0;
}

static int make_cgroup(struct box *b, const struct kn_sandbox_config *c, struct kn_err *err)
{
	uint32_t pids = c->max_pids ? c->max_pids : b->ns->config.max_pids;
	struct kn_cgroup_limits limits = { .memory_bytes = c->memory_bytes,
		                           .cpu_millis = c->cpu_milli ? c->cpu_milli
		                                                      : c->vcpus * 1000u,
		                           .pids = pids + AGENT_PIDS };
	struct kn_cgroup_host host;

	int r = kn_cgroup_find("/proc/self/mountinfo", &host, err);
	return r < 0 ? r : kn_cgroup_new(&host, b->ns->cgroup, c->id, &limits, &b->cgroup, err);
}

static int start_link(struct box *b, int fd, struct kn_err *err)
{
	struct kn_agent_link_events events = { .hello = on_hello, .started = on_started,
		                               .ready = on_ready, .log = on_log,
		                               .ended = on_function_ended,
		                               .failed = on_pipe_failed, .arg = b };

	return kn_agent_link_new(b->loop, fd, &events, &b->link, err);
}

/* Half of the memory may be files: who fills the disk meets its end before that of the memory. */
static int spawn(struct box *b, int pipe_fd, int image_fd, struct kn_err *err)
{
	static const struct kn_rlimit no_core = { RLIMIT_CORE, 0, 0 };
	char id[16], bytes[24], names[KN_CGROUP_MAX_DIRS * 64] = "";
	const char *const argv[] = { "kiln-agent", KN_CONTAINED, b->dir, id, bytes, names, NULL };
	struct kn_fd_map fds[KN_CONTAINED_CGROUP_FD + KN_CGROUP_MAX_DIRS] = {
		{ pipe_fd, KN_CONTAINED_PIPE_FD },
		{ image_fd, KN_CONTAINED_IMAGE_FD },
		{ b->ids->userns_fd, KN_CONTAINED_USERNS_FD },
		{ b->ns->filter_fd, KN_CONTAINED_SECCOMP_FD },
	};
	struct kn_cgroup_dir dirs[KN_CGROUP_MAX_DIRS];
	size_t n = kn_cgroup_dirs(b->cgroup, dirs), n_fds = 4, at = 0;
	bool unified = kn_cgroup_unified(b->cgroup);

	for (size_t i = 0; i < n; i++) {
		fds[n_fds++] = (struct kn_fd_map){ dirs[i].fd, KN_CONTAINED_CGROUP_FD + (int)i };
		at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%s", i > 0 ? ":" : "",
		                       unified ? KN_CONTAINED_UNIFIED : dirs[i].name);
	}
	snprintf(id, sizeof(id), "%u", b->ids->first);
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)b->memory_bytes / 2);
	struct kn_spawn_config s = { .path = "kiln-agent",
		                     .program_fd = b->ns->agent_fd,
		                     .argv = argv,
		                     .fds = fds,
		                     .n_fds = n_fds,
		                     .rlimits = &no_core,
		                     .n_rlimits = 1,
		                     .cgroup_fd = unified ? dirs[0].fd : 0,
		                     .namespaces = KN_CONTAINED_NAMESPACES,
		                     .new_session = true,
		                     .die_with_us = true };
	return kn_spawn(&s, &b->child.pid, NULL, err);
}

static int open_netns(struct box *b, struct kn_err *err)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", b->child.pid);
	b->netns_fd = open(path, O_RDONLY | O_CLOEXEC);
	return b->netns_fd < 0 ? kn_fail(err, errno, "open %s: %s", path, strerror(errno)) : 0;
}

static int start_process(struct box *b, const struct kn_sandbox_config *c, struct kn_err *err)
{
	int pair[2];

	kn_auto(kn_close) int image_fd = image_mount(b->image, c->image, b->ids, err);
	if (image_fd < 0)
		return image_fd;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return kn_fail(err, errno, "a socket pair: %s", strerror(errno));
	kn_auto(kn_close) int agent = pair[1];
	int r = start_link(b, pair[0], err);
	return r < 0 ? r : spawn(b, agent, image_fd, err);
}

/* Everything until the first process runs. */
static int build(struct box *b, const struct kn_sandbox_config *c, struct kn_err *err)
{
	if (asprintf(&b->dir, "%s/root", c->run_dir) < 0) {
		b->dir = NULL;
		return kn_fail(err, ENOMEM, "memory for a sandbox");
	}
	if (mkdir(b->dir, 0700) < 0)
		return kn_fail(err, errno, "make folder %s: %s", b->dir, strerror(errno));
	int r = make_cgroup(b, c, err);
	if (r == 0)
		r = ids_take(b->ns, &b->ids, err);
	if (r == 0)
		r = image_take(b->ns, c->image, &b->image, err);
	return r < 0 ? r : start_process(b, c, err);
}

static void on_refused(const char *text, void *arg)
{
	struct box *b = arg;

	if (b->events.log)
		b->events.log(&b->sb, KN_MONITOR, kn_view_of(text), b->events.arg);
}

static int make_netif(struct box *b, const struct kn_sandbox_config *c, struct kn_err *err)
{
	struct kn_netif_events events = { .refused = on_refused, .arg = b };

	if (!c->egress)
		return 0;
	if (!b->ns->network)
		return kn_fail(err, ENOTSUP, "this node gives functions no network; see kiln doctor");
	int r = kn_netif_new(b->ns->network, c->egress, &events, &b->netif, err);
	return r < 0 ? r : kn_netif_join(b->netif, b->netns_fd, err);
}

/* The agent waits for what it is told; so the network is there before the function runs. */
static int watch(struct box *b, const struct kn_sandbox_config *c, struct kn_err *err)
{
	int r = open_netns(b, err);

	b->child.done = on_reaped;
	if (r == 0)
		r = make_netif(b, c, err);
	if (r == 0)
		r = kn_agent_link_configure(b->link, c, err);
	if (r == 0)
		r = kn_child_start(b->loop, &b->child, err);
	if (r == 0)
		r = arm(b, on_boot_time, b->boot_timeout_ms, err);
	if (r == 0)
		return 0;
	kill(b->child.pid, SIGKILL);
	kn_child_stop(&b->child);
	waitpid(b->child.pid, NULL, 0);
	return r;
}

static int ns_start(struct kn_loop *loop, const void *driver, const struct kn_sandbox_config *config,
                    const struct kn_sandbox_events *events, struct kn_sandbox **ret,
                    struct kn_err *err)
{
	int r = check_config(config, err);

	if (r < 0)
		return r;
	struct box *b = calloc(1, sizeof(*b));
	if (!b)
		return kn_fail(err, ENOMEM, "memory for a sandbox");
	b->sb.ops = &kn_sandbox_ns;
	b->loop = loop;
	b->ns = (struct kn_ns *)(uintptr_t)driver;
	b->memory_bytes = config->memory_bytes;
	b->boot_timeout_ms = config->boot_timeout_ms;
	b->ready_timeout_ms = config->ready_timeout_ms;
	b->contract = config->contract;
	b->port = config->port;
	b->netns_fd = -1;
	b->phase_ns = kn_now_ns();
	r = build(b, config, err);
	if (r == 0)
		r = watch(b, config, err);
	if (r < 0) {
		if (b->cgroup)
			(void)!kn_cgroup_remove(b->cgroup, NULL);
		release(b);
		return kn_while(err, "start a container");
	}
	note_phase(b, "spawn");
	b->events = *events;
	*ret = &b->sb;
	return 0;
}

/* ---- operations ---------------------------------------------------------------------------- */

static int ns_connect(struct kn_sandbox *sb, int *ret_fd, struct kn_err *err)
{
	struct box *b = kn_container_of(sb, struct box, sb);

	if (b->state != SERVING)
		return kn_fail(err, ENOTCONN, "the function is %s",
		               b->state < SERVING ? "not ready" : "ending");
	if (b->contract != KN_CONTRACT_HTTP)
		return kn_agent_link_connect(b->link, ret_fd, err);
	int fd = connect_inside(b->ns, b->netns_fd, b->port, err);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

static void ns_stop(struct kn_sandbox *sb, uint64_t grace_ms)
{
	struct box *b = kn_container_of(sb, struct box, sb);

	if (b->state >= DYING)
		return;
	b->stopped = true;
	if (b->state == STOPPING && grace_ms > 0)
		return;
	if (b->state == BOOTING || grace_ms == 0 ||
	    kn_agent_link_stop(b->link, grace_ms, NULL) < 0 ||
	    arm(b, on_stop_time, grace_ms + STOP_EXTRA_MS, NULL) < 0) {
		end(b, NULL);
		return;
	}
	b->state = STOPPING;
}

static int ns_stats(struct kn_sandbox *sb, struct kn_sandbox_stats *ret, struct kn_err *err)
{
	struct box *b = kn_container_of(sb, struct box, sb);
	struct kn_cgroup_stats cg;

	if (!b->child.pid)
		return kn_fail(err, ESRCH, "the container has ended");
	int r = kn_cgroup_stats(b->cgroup, &cg, err);
	if (r < 0)
		return r;
	*ret = (struct kn_sandbox_stats){ .memory_bytes = cg.memory_bytes, .cpu_ns = cg.cpu_ns,
		                          .pid = b->child.pid };
	return 0;
}

static int ns_check(const void *driver, struct kn_err *err)
{
	struct kn_ns *ns = (struct kn_ns *)(uintptr_t)driver;
	struct kn_cgroup_host host;
	struct ids *ids;

	int r = kn_jail_check(err);
	if (r == 0)
		r = kn_cgroup_find("/proc/self/mountinfo", &host, err);
	if (r == 0)
		r = ids_take(ns, &ids, err);
	if (r == 0)
		ids_give(ns, ids);
	return r;
}

size_t kn_sandbox_ns_sweep(const struct kn_ns *ns)
{
	struct kn_cgroup_host host;

	if (kn_cgroup_find("/proc/self/mountinfo", &host, NULL) < 0)
		return 0;
	return kn_cgroup_sweep(&host, ns->cgroup);
}

const struct kn_sandbox_ops kn_sandbox_ns = {
	.name = "ns",
	.check = ns_check,
	.start = ns_start,
	.connect = ns_connect,
	.stop = ns_stop,
	.stats = ns_stats,
};
