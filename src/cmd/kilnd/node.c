/*
 * Theory of operation. The listening socket is bound first, so that a port in use is told before
 * anything else happens; nobody is accepted until the loop runs, when everything behind it is ready.
 * The state folder is locked for the life of the process: store, images and run folders below it
 * have one owner.
 */
#include "cmd/kilnd/node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/kilnd/notify.h"

/* Longest path below the run folder: an instance's id and a socket's name; see unix(7), sun_path. */
enum { SUN_PATH = 107, BELOW_RUN_DIR = 48 + 16 };

/* Descriptors for everything but clients: instances, images, the store. */
enum { OTHER_FILES = 512 };

static const char LOCK_FILE[] = "kilnd.lock";

/* How often a draining node looks whether it is done. */
enum { TICK_MS = 10 };

/* How long a start waits for functions of an earlier life. */
enum { SETTLE_MS = 700 };

/* ---- folders ---------------------------------------------------------------------------------- */

/* Hold a lock file for the life of the process. */
static int take_lock(int dir, const char *name, const char *what, int *ret_fd, struct kn_err *err)
{
	char pid[24] = "";

	kn_auto(kn_close) int fd =
		openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return kn_fail(err, errno, "open '%s/%s': %s", what, name, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		ssize_t len = pread(fd, pid, sizeof(pid) - 1, 0);
		while (len > 0 && (pid[len - 1] < '0' || pid[len - 1] > '9'))
			pid[--len] = '\0';
		return kn_fail(
			err, EBUSY,
			"the folder '%s' is in use by another kilnd%s%s: stop that one, or give "
			"another folder",
			what, pid[0] ? ", process " : "", pid);
	}
	int len = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)len, 0) != len)
		return kn_fail(err, errno, "write '%s/%s': %s", what, name, strerror(errno));
	*ret_fd = kn_take_fd(fd);
	return 0;
}

/* Folders below the state folder are emptied at a start: it must be ours, not /var by mistake. */
static int check_ours(int dir, const char *path, struct kn_err *err)
{
	bool empty = true;
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		kn_close(fd);
		return kn_fail(err, errno, "read '%s': %s", path, strerror(errno));
	}
	for (struct dirent *e; empty && (e = readdir(d));)
		empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			strcmp(e->d_name, "kilnd.log") == 0; /* kiln up begins with it */
	closedir(d);
	if (empty || faccessat(dir, LOCK_FILE, F_OK, 0) == 0)
		return 0;
	return kn_fail(err, ENOTEMPTY, "'%s' holds files of something else: give a new folder",
		       path);
}

static int absolute(const char *path, char **ret, struct kn_err *err)
{
	*ret = realpath(path, NULL);
	return *ret ? 0 : kn_fail(err, errno, "'%s': %s", path, strerror(errno));
}

/* A folder of the operator's own choice may hold other things: ours is a folder in it. */
static int use_run_dir(struct kn_node *n, const char *given, struct kn_err *err)
{
	kn_auto(kn_free) char *path = NULL;
	int r = kn_mkdirs(AT_FDCWD, given, 0711, err);

	if (r < 0)
		return r;
	r = absolute(given, &path, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return kn_fail(err, errno, "'%s': %s", path, strerror(errno));
	r = take_lock(dir, LOCK_FILE, path, &n->run_lock_fd, err);
	if (r == 0 && asprintf(&n->run_dir, "%s/kiln", path) < 0) {
		n->run_dir = NULL;
		r = kn_fail(err, ENOMEM, "out of memory");
	}
	return r;
}

static int make_run_dir(struct kn_node *n, const char *state, struct kn_err *err)
{
	int r = 0;

	if (n->options->run_dir) {
		r = use_run_dir(n, n->options->run_dir, err);
	} else if (asprintf(&n->run_dir, "%s/run", state) < 0) {
		n->run_dir = NULL;
		r = kn_fail(err, ENOMEM, "out of memory");
	}
	if (r == 0 && strlen(n->run_dir) + BELOW_RUN_DIR > SUN_PATH)
		r = kn_fail(err, ENAMETOOLONG,
			    "the run folder '%s' is too deep for paths of sockets: give a shorter "
			    "--run-dir, such as /run/kiln",
			    n->run_dir);
	return r;
}

static int open_state(struct kn_node *n, struct kn_err *err)
{
	const char *path = n->options->state;
	kn_auto(kn_free) char *state = NULL;
	/* 0711: jailed monitors, each its own user, must reach their folders below it */
	int r = kn_mkdirs(AT_FDCWD, path, 0711, err);

	if (r == 0)
		n->state_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r == 0 && n->state_fd < 0)
		r = kn_fail(err, errno, "'%s': %s", path, strerror(errno));
	if (r == 0 && faccessat(n->state_fd, ".", W_OK, AT_EACCESS) < 0)
		r = kn_fail(err, errno, "write to '%s': %s", path, strerror(errno));
	if (r < 0)
		return kn_while(err, "state folder");
	r = check_ours(n->state_fd, path, err);
	if (r == 0)
		r = take_lock(n->state_fd, LOCK_FILE, path, &n->lock_fd, err);
	if (r == 0)
		r = absolute(path, &state, err);
	if (r == 0)
		r = make_run_dir(n, state, err);
	if (r == 0 && asprintf(&n->tmp_dir, "%s/tmp", state) < 0) {
		n->tmp_dir = NULL;
		r = kn_fail(err, ENOMEM, "out of memory");
	}
	if (r == 0)
		r = kn_remove_tree(AT_FDCWD, n->tmp_dir, err);
	return r < 0 ? r : kn_mkdirs(AT_FDCWD, n->tmp_dir, 0700, err);
}

/* ---- parts ------------------------------------------------------------------------------------ */

static void tell_classes(const struct kn_node *n)
{
	for (enum kn_class c = 0; c < KN_CLASSES; c++) {
		const struct kn_engine_class *row = kn_engine_class(n->engine, c);
		if (row->ops)
			kn_log(KN_INFO, "class runs", KN_S("class", kn_class_name(c)),
			       KN_S("hypervisor", row->hypervisor), KN_S("why", row->why));
		else if (c != KN_CLASS_NF && c != KN_CLASS_UNIX)
			kn_log(KN_WARN, "class is refused", KN_S("class", kn_class_name(c)),
			       KN_S("why", row->why));
	}
}

/* Nothing of this host is changed yet: that waits for the first function that has a network. */
static int open_network(struct kn_node *n, struct kn_err *err)
{
	struct kn_network_config config = { .loop = n->loop,
					    .owner = n->run_dir,
					    .range = n->options->egress_range };

	if (!kn_hosting_has_network(n->hosting))
		return 0;
	int r = kn_network_new(&config, &n->network, err);
	if (r < 0)
		return kn_while(err, "networks of functions");
	size_t swept = kn_network_sweep(n->network);
	if (swept > 0)
		kn_log(KN_WARN, "an earlier daemon was killed; its functions' networks are removed",
		       KN_U("removed", swept));
	kn_hosting_use_network(n->hosting, n->network);
	return 0;
}

static int open_snapshots(struct kn_node *n, const struct kn_sandbox_qemu_config *qemu,
			  const char *version, struct kn_err *err)
{
	const struct kn_kilnd_options *o = n->options;
	struct kn_snapshot_fact facts[KN_SNAPSHOT_FACTS];
	struct kn_snapshots_config snapshots = { .loop = n->loop,
						 .max_bytes = o->snapshot_space,
						 .facts = facts };
	struct kn_restores_config restores = KN_RESTORES_DEFAULTS;
	kn_auto(kn_free) char *dir = NULL;
	kn_auto(kn_free) char *guests = NULL;

	if (asprintf(&dir, "%s/snapshots", o->state) < 0)
		dir = NULL;
	if (asprintf(&guests, "%s/guests", n->tmp_dir) < 0)
		guests = NULL;
	if (!dir || !guests)
		return kn_fail(err, ENOMEM, "out of memory");
	snapshots.dir = dir;
	snapshots.n_facts = kn_restores_facts(qemu, version, facts, KN_ARRAY_LEN(facts));
	int r = kn_snapshots_open(&snapshots, &n->snapshots, err);
	if (r < 0)
		return r;
	restores.snapshots = n->snapshots;
	restores.run_dir = guests;
	restores.prepared = (uint32_t)o->prepared;
	restores.prepared_ms = o->prepared_ms;
	r = kn_restores_new(n->loop, qemu, &restores, &n->restores, err);
	if (r == 0)
		kn_hosting_use_restores(n->hosting, n->restores);
	return r;
}

/* Without snapshots functions start all the same. */
static void try_snapshots(struct kn_node *n)
{
	struct kn_err err = KN_ERR_INIT;
	const char *version;
	const struct kn_sandbox_qemu_config *qemu = kn_hosting_qemu(n->hosting, &version);

	if (qemu && n->options->snapshot_space > 0 && open_snapshots(n, qemu, version, &err) < 0)
		kn_log(KN_WARN, "Linux functions start without snapshots", KN_E(&err));
}

static int open_hosting(struct kn_node *n, struct kn_err *err)
{
	const struct kn_kilnd_options *o = n->options;
	struct kn_hosting_config config = { .lib_dir = o->lib_dir,
					    .kvm_device = o->kvm_device,
					    .qemu = o->qemu,
					    .cgroup = o->cgroup,
					    .unix_functions = o->allow_unix_functions };
	int r = kn_hosting_find(&config, &n->hosting, err);

	if (r < 0)
		return r;
	r = open_network(n, err);
	if (r < 0)
		return r;
	size_t swept = kn_hosting_sweep(n->hosting);
	if (swept > 0)
		kn_log(KN_WARN, "an earlier daemon was killed; its cgroups are removed",
		       KN_U("cgroups", swept));
	n->report = kn_hosting_report(n->hosting);
	if (!n->report)
		return kn_fail(err, ENOMEM, "out of memory for the node's report");
	try_snapshots(n);
	if (o->bare_shells == 0 || !kn_hosting_class(n->hosting, KN_CLASS_BARE)->ops)
		return 0;
	r = kn_shells_new(n->loop, kn_hosting_vmm(n->hosting), kn_hosting_kvm_device(n->hosting),
			  o->bare_shells, &n->shells, err);
	if (r == 0)
		kn_hosting_use_shells(n->hosting, n->shells);
	return r;
}

static int open_auth(struct kn_node *n, struct kn_err *err)
{
	struct kn_auth_config config = KN_AUTH_DEFAULTS;
	bool given = n->options->issuer != NULL;

	if (asprintf(&n->issuer, "%s%s", given ? n->options->issuer : "http://",
		     given ? "" : n->addr) < 0) {
		n->issuer = NULL;
		return kn_fail(err, ENOMEM, "out of memory");
	}
	config.store = n->store;
	config.work = n->work;
	config.dir = n->state_fd;
	config.issuer = n->issuer;
	config.token_s = (uint32_t)(n->options->token_ms / 1000);
	return kn_auth_new(&config, &n->auth, err);
}

static int open_state_parts(struct kn_node *n, struct kn_err *err)
{
	struct kn_work_config work = KN_WORK_DEFAULTS;
	struct kn_store_config store = { .dir = n->state_fd,
					 .dir_name = n->options->state,
					 .loop = n->loop };
	struct kn_images_config images = KN_IMAGES_DEFAULTS;
	kn_auto(kn_free) char *images_dir = NULL;

	if (asprintf(&images_dir, "%s/images", n->options->state) < 0) {
		images_dir = NULL;
		return kn_fail(err, ENOMEM, "out of memory");
	}
	work.threads = (unsigned)n->options->workers;
	images.dir = images_dir;
	int r = kn_work_new(n->loop, &work, &n->work, err);
	if (r == 0)
		r = kn_store_open(&store, &n->store, err);
	if (r == 0)
		r = open_auth(n, err);
	if (r == 0)
		r = kn_secrets_open(n->store, n->state_fd, &n->secrets, err);
	if (r == 0)
		r = kn_images_open(&images, &n->images, err);
	if (r == 0 && kn_images_trouble(n->images))
		kn_log(KN_WARN, "images are left out", KN_S("why", kn_images_trouble(n->images)));
	return r;
}

static int open_engine(struct kn_node *n, struct kn_err *err)
{
	const struct kn_kilnd_options *o = n->options;
	struct kn_engine_config config = KN_ENGINE_DEFAULTS;

	config.run_dir = n->run_dir;
	config.max_instances = (uint32_t)o->max_instances;
	config.memory_bytes = o->memory;
	config.idle_ms = o->idle_ms;
	config.max_body_bytes = o->max_body;
	config.max_reply_bytes = o->max_reply;
	config.log_bytes = (size_t)o->log_bytes;
	config.drain_ms = o->drain_ms;
	for (enum kn_class c = 0; c < KN_CLASSES; c++)
		config.classes[c] = *kn_hosting_class(n->hosting, c);
	return kn_engine_new(n->loop, &config, &n->engine, err);
}

static int open_control(struct kn_node *n, struct kn_err *err)
{
	struct kn_control_config config = KN_CONTROL_DEFAULTS;

	config.loop = n->loop;
	config.store = n->store;
	config.auth = n->auth;
	config.secrets = n->secrets;
	config.work = n->work;
	config.engine = n->engine;
	config.images = n->images;
	config.listen = n->addr;
	config.registry_auth = n->options->registry_auth;
	config.plain_http = n->options->plain_http;
	config.public_url = n->options->issuer;
	config.node = n->report;
	config.tmp_dir = n->tmp_dir;
	config.metrics = kn_node_metrics;
	config.metrics_arg = n;
	return kn_control_new(&config, &n->control, err);
}

static void allow(struct kn_http_exchange *x, uint32_t scope, kn_auth_done done, void *done_arg,
		  void *arg)
{
	kn_auth_request(((struct kn_node *)arg)->auth, x, scope, done, done_arg);
}

static bool why_not(struct kn_view name, const char **ret_why, void *arg)
{
	return kn_control_why_not(((struct kn_node *)arg)->control, name, ret_why);
}

static void other(struct kn_http_exchange *x, void *arg)
{
	kn_control_request(((struct kn_node *)arg)->control, x);
}

/*
 * A client needs two descriptors, its own and one to the function. An accept that fails for want of
 * a descriptor would be tried again and again, so the limit on connections keeps away from there.
 */
static uint64_t fit_connections(uint64_t wanted)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return wanted;
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		kn_log(KN_WARN, "limit on open files stays", KN_S("error", strerror(errno)));
	(void)getrlimit(RLIMIT_NOFILE, &files);
	uint64_t room = files.rlim_cur > OTHER_FILES ? (files.rlim_cur - OTHER_FILES) / 2 : 1;
	if (files.rlim_cur == RLIM_INFINITY || room >= wanted)
		return wanted;
	kn_log(KN_WARN, "fewer connections than asked for: the limit on open files is too low",
	       KN_U("connections", room), KN_U("open_files", files.rlim_cur));
	return kn_max(room, UINT64_C(1));
}

/*
 * Asynchronous calls are made through a gateway of their own, so that they are what all calls are.
 * Its socket has mode 0600: who may connect there could do anything anyway.
 */
static int open_async(struct kn_node *n, struct kn_err *err)
{
	struct kn_async_config config = KN_ASYNC_DEFAULTS;
	struct kn_gateway_config inner = { .loop = n->loop,
					   .engine = n->engine,
					   .http = KN_HTTP_SERVER_DEFAULTS,
					   .other = other,
					   .why_not = why_not,
					   .arg = n };

	/* By the folder's descriptor: a socket's path is short, a state folder's may not be. */
	if (asprintf(&n->calls_socket, "/proc/self/fd/%d/tmp/calls.sock", n->state_fd) < 0) {
		n->calls_socket = NULL;
		return kn_fail(err, ENOMEM, "out of memory");
	}
	config.loop = n->loop;
	config.store = n->store;
	config.socket = n->calls_socket;
	inner.http.max_body = n->options->max_body;
	int fd = kn_unix_listen(n->calls_socket, err);
	if (fd < 0)
		return kn_while(err, "socket for asynchronous calls");
	int r = kn_gateway_new(&inner, fd, &n->inner, err);
	return r < 0 ? r : kn_async_new(&config, &n->async, err);
}

static int open_gateway(struct kn_node *n, int listen_fd, struct kn_err *err)
{
	const struct kn_kilnd_options *o = n->options;
	struct kn_gateway_config config = { .loop = n->loop,
					    .engine = n->engine,
					    .http = KN_HTTP_SERVER_DEFAULTS,
					    .functions_need_token = o->functions_need_token,
					    .async = n->async,
					    .allow = allow,
					    .other = other,
					    .why_not = why_not,
					    .arg = n };

	config.http.max_connections = (size_t)fit_connections(o->max_connections);
	config.http.max_body = o->max_body;
	config.http.head_timeout_ms = o->head_timeout_ms;
	config.http.idle_timeout_ms = o->idle_timeout_ms;
	return kn_gateway_new(&config, listen_fd, &n->gateway, err);
}

/* ---- signals ---------------------------------------------------------------------------------- */

static void on_engine_drained(void *arg)
{
	((struct kn_node *)arg)->engine_drained = true;
}

static void on_tick(struct kn_timer *t)
{
	struct kn_node *n = kn_container_of(t, struct kn_node, tick);
	size_t busy = kn_gateway_busy(n->gateway) + kn_async_busy(n->async);
	bool done = n->engine_drained && busy == 0;
	uint64_t now = kn_now_ns();

	if (!done && now >= n->give_up_ns)
		kn_log(KN_WARN, "not everything has finished in time; leaving",
		       KN_U("requests", busy));
	if (done || now >= n->give_up_ns ||
	    kn_timer_start(n->loop, t, now + TICK_MS * KN_NS_PER_MS, NULL) < 0)
		kn_loop_stop(n->loop);
}

static void tell_manager(const char *state)
{
	struct kn_err err = KN_ERR_INIT;

	if (kn_notify(state, &err) < 0)
		kn_log(KN_WARN, "service manager not told", KN_E(&err));
}

static void on_signal(const struct signalfd_siginfo *si, void *arg)
{
	struct kn_node *n = arg;

	if (!n->gateway) {
		n->draining = true; /* it has not served yet: kn_node_run() returns at once */
		return;
	}
	if (n->draining) {
		kn_log(KN_WARN, "second signal: leaving at once", KN_U("signal", si->ssi_signo));
		kn_loop_stop(n->loop);
		return;
	}
	kn_log(KN_INFO, "draining", KN_U("signal", si->ssi_signo),
	       KN_U("requests", kn_gateway_busy(n->gateway)));
	tell_manager("STOPPING=1\nSTATUS=finishing what is under way");
	n->draining = true;
	/* a moment more than the engine's own patience, so that its instances are stopped first */
	n->give_up_ns = kn_now_ns() + (n->options->drain_ms + 5000) * KN_NS_PER_MS;
	n->tick.call = on_tick;
	kn_async_drain(n->async);
	kn_gateway_drain(n->gateway);
	kn_engine_drain(n->engine, on_engine_drained, n);
	on_tick(&n->tick);
}

static int watch_signals(struct kn_node *n, struct kn_err *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	return kn_loop_signals(n->loop, &set, on_signal, n, err);
}

/* ---- functions of an earlier life -------------------------------------------------------------- */

/*
 * Images are checked before their functions start, which may take longer than one wants to wait for
 * a node: after SETTLE_MS it serves, and functions that are not there yet answer 503 until they are.
 */
static int settle(struct kn_node *n, struct kn_err *err)
{
	const uint64_t until = kn_now_ns() + SETTLE_MS * KN_NS_PER_MS;
	int r = 0;

	while (r >= 0 && !n->draining && kn_control_restoring(n->control) && kn_now_ns() < until)
		r = kn_loop_once(n->loop, TICK_MS);
	return r < 0 ? kn_fail(err, -r, "event loop: %s", strerror(-r)) : 0;
}

/* ---- a node's life ---------------------------------------------------------------------------- */

static int listen_on(struct kn_node *n, int *ret_fd, struct kn_err *err)
{
	int fd = kn_tcp_listen(n->options->listen, err);

	if (fd == -EADDRINUSE)
		return kn_while(err,
				"port in use: stop what listens there, or give another --listen "
				"(port 0 takes a free one)");
	if (fd < 0)
		return fd;
	int r = kn_tcp_name(fd, n->addr, sizeof(n->addr));
	if (r < 0) {
		kn_close(fd);
		return kn_fail(err, -r, "address of the listener: %s", strerror(-r));
	}
	*ret_fd = fd;
	return 0;
}

int kn_node_open(struct kn_node *n, const struct kn_kilnd_options *options, struct kn_err *err)
{
	int listen_fd = -1;

	*n = (struct kn_node){
		.options = options, .state_fd = -1, .lock_fd = -1, .run_lock_fd = -1
	};
	int r = kn_loop_new(&n->loop, err);
	if (r == 0)
		r = watch_signals(n, err); /* before the first thread: it inherits the mask */
	if (r == 0)
		r = listen_on(n, &listen_fd, err);
	if (r == 0)
		r = open_state(n, err);
	if (r == 0)
		r = open_hosting(n, err);
	if (r == 0)
		r = open_state_parts(n, err);
	if (r == 0)
		r = open_engine(n, err);
	if (r == 0)
		r = open_control(n, err);
	if (r == 0)
		r = open_async(n, err);
	if (r < 0) {
		kn_close(listen_fd);
		return r;
	}
	tell_classes(n);
	r = settle(n, err);
	if (r < 0) {
		kn_close(listen_fd);
		return r;
	}
	return open_gateway(n, listen_fd, err);
}

int kn_node_run(struct kn_node *n, struct kn_err *err)
{
	if (n->draining)
		return 0;
	printf("ready http://%s\n", n->addr);
	if (fflush(stdout) != 0)
		kn_log(KN_WARN, "nobody reads standard output");
	kn_log(KN_INFO, "ready", KN_S("listen", n->addr), KN_S("state", n->options->state),
	       KN_U("functions", kn_engine_count(n->engine)));
	char ready[sizeof(n->addr) + 64];
	snprintf(ready, sizeof(ready), "READY=1\nSTATUS=serving at http://%s", n->addr);
	tell_manager(ready);
	int r = kn_loop_run(n->loop);
	return r < 0 ? kn_fail(err, -r, "event loop: %s", strerror(-r)) : 0;
}

void kn_node_close(struct kn_node *n)
{
	kn_timer_stop(&n->tick);
	kn_gateway_free(n->gateway);
	kn_gateway_free(n->inner);
	if (n->calls_socket)
		unlink(n->calls_socket);
	/* Threads end before what their jobs come back to: an import may be under way. */
	kn_work_free(n->work);
	kn_store_close(n->store);
	kn_async_free(n->async);
	kn_control_free(n->control);
	kn_secrets_free(n->secrets);
	kn_auth_free(n->auth);
	kn_engine_free(n->engine);
	kn_images_close(n->images);
	if (n->shells) {
		kn_hosting_use_shells(n->hosting, NULL);
		kn_shells_free(n->shells);
	}
	if (n->restores) {
		kn_hosting_use_restores(n->hosting, NULL);
		kn_restores_free(n->restores);
	}
	kn_snapshots_close(n->snapshots);
	json_decref(n->report);
	kn_hosting_free(n->hosting);
	kn_network_free(n->network);
	kn_loop_free(n->loop);
	free(n->calls_socket);
	free(n->run_dir);
	free(n->tmp_dir);
	free(n->issuer);
	kn_close(n->run_lock_fd);
	kn_close(n->lock_fd);
	kn_close(n->state_fd);
}
