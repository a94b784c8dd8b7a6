#include "machine/fcapi.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/http.h"
#include "base/log.h"
#include "base/loop.h"
#include "machine/elf.h"

/*
 * The API's thread is the caller's and runs the event loop; the vCPU has a thread of its own, which
 * tells by kn_loop_post() that it is ready and that it has ended.
 */
struct app {
	const struct kn_fcapi_serve *serve;
	struct kn_loop *loop;
	struct kn_fcapi api;
	struct kn_http_server *server;
	struct kn_vmm vmm;
	bool has_vmm;
	int image;
	int log_fd;
	enum kn_level level;
	/* The channel, when there is one. */
	struct kn_channel_config channel_config;
	struct kn_channel channel;
	bool has_channel;
	struct kn_watch listener, client;
	struct kn_report report;
	/* The end. */
	struct kn_end end;
	int exit_code;
};

/* ---- the channel's clients ------------------------------------------------------------------ */

static void drop_client(struct app *a)
{
	int fd = a->client.loop ? a->client.fd : -1;
	kn_watch_stop(&a->client);
	kn_close(fd);
}

static void tell_client(struct app *a)
{
	if (a->client.loop)
		(void)kn_report_send(a->client.fd, &a->report);
}

/* A client never says anything: whatever comes is its end. */
static void on_client(struct kn_watch *w, uint32_t events)
{
	(void)events;
	drop_client(kn_container_of(w, struct app, client));
}

static void on_connect(struct kn_watch *w, uint32_t events)
{
	struct app *a = kn_container_of(w, struct app, listener);

	(void)events;
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	bool taken = a->client.loop != NULL;
	if (kn_grant_send(fd, &a->channel_config, taken ? NULL : &a->channel) < 0 || taken) {
		kn_close(fd);
		return;
	}
	a->client = (struct kn_watch){ .fd = fd, .events = EPOLLIN, .call = on_client };
	if (kn_watch_start(a->loop, &a->client, NULL) < 0)
		kn_close(fd);
	else if (a->report.kind)
		tell_client(a);     /* ready, and it came too late to hear it */
}

static void close_channel(struct app *a)
{
	drop_client(a);
	if (a->listener.loop) {
		kn_watch_stop(&a->listener);
		kn_close(a->listener.fd);
		unlink(a->api.settings.channel_path);
	}
	if (a->has_channel)
		kn_channel_fini(&a->channel);
	a->has_channel = false;
}

static int open_channel(struct app *a, const struct kn_fcapi_settings *s, struct kn_err *err)
{
	a->channel_config = (struct kn_channel_config){
		.slots = (uint32_t)s->slots,
		.max_request_bytes = s->max_request_bytes,
		.max_reply_bytes = s->max_reply_bytes,
	};
	int r = kn_channel_new(&a->channel_config, &a->channel, err);
	if (r < 0)
		return r;
	a->has_channel = true;
	int fd = kn_grant_listen(s->channel_path, err);
	if (fd < 0)
		return fd;
	a->listener = (struct kn_watch){ .fd = fd, .events = EPOLLIN, .call = on_connect };
	r = kn_watch_start(a->loop, &a->listener, err);
	if (r < 0) {
		kn_close(fd);
		unlink(s->channel_path);
	}
	return r;
}

/* Lines that no client took: the only place where they can still be seen. */
static void log_rest(struct app *a)
{
	char line[KN_BARE_LOG_SLOT];
	int n = 0;

	if (!a->has_channel || a->client.loop)
		return;
	a->channel.logs.mine = a->channel.logs.theirs = atomic_load(&a->channel.logs.shared->tail);
	for (int i = 0; i < KN_BARE_LOGS && (n = kn_channel_log(&a->channel, line, NULL)) > 0; i++)
		kn_log(KN_INFO, "program", KN_V("line", ((struct kn_view){ line, (size_t)n })));
}

/* ---- the microVM ---------------------------------------------------------------------------- */

static void on_ready(void *arg)
{
	struct app *a = arg;
	a->report.kind = KN_REPORT_READY;
	tell_client(a);
	kn_log(KN_INFO, "program is ready");
}

static void vcpu_ready(struct kn_vmm *v, void *arg)
{
	struct app *a = arg;
	(void)v;
	a->report.ready_ns = kn_now_ns();
	(void)kn_loop_post(a->loop, on_ready, a);
}

static void on_ended(void *arg)
{
	struct app *a = arg;
	const struct kn_end *end = &a->end;
	bool clean = end->kind == KN_END_STOPPED || (end->kind == KN_END_EXIT && !end->exit_code);

	a->exit_code = clean ? 0 : 1;
	a->report.kind = KN_REPORT_ENDED;
	a->report.kind_of_end = (uint32_t)end->kind;
	a->report.exit_code = a->exit_code;
	a->report.code = end->err.code;
	snprintf(a->report.story, sizeof(a->report.story), "%.*s",
	         (int)sizeof(a->report.story) - 1, end->err.text);
	memcpy(a->report.json, end->json, sizeof(a->report.json));
	log_rest(a);
	if (clean)
		kn_log(KN_INFO, "microVM ended");
	else
		kn_log(KN_ERROR, "microVM ended", KN_E(&end->err), KN_S("report", end->json));
	tell_client(a);
	kn_loop_stop(a->loop);
}

static void vcpu_ended(struct kn_vmm *v, const struct kn_end *end, void *arg)
{
	struct app *a = arg;
	(void)v;
	a->end = *end;
	(void)kn_loop_post(a->loop, on_ended, a);
}

static int load(struct app *a, const struct kn_fcapi_settings *s, struct kn_err *err)
{
	struct kn_vmm_config c = KN_VMM_DEFAULTS;

	int r = s->channel_path ? open_channel(a, s, err) : 0;
	if (r == 0)
		r = kn_vmm_init(&a->vmm, a->serve->device, false, err);
	if (r < 0)
		return r;
	a->has_vmm = true;
	c.image = a->image;
	c.memory_bytes = s->mem_size_mib << 20;
	if (a->has_channel) {
		c.channel = a->channel.memory;
		c.channel_bytes = a->channel.bytes;
		c.bell = a->channel.bell;
		c.note = a->channel.note;
	}
	c.time_limit_ns = s->time_limit_ms * KN_NS_PER_MS;
	c.ready = vcpu_ready;
	c.ended = vcpu_ended;
	c.arg = a;
	r = kn_vmm_load(&a->vmm, &c, err);
	a->report.loaded_ns = kn_now_ns();
	return r < 0 ? r : kn_vmm_start(&a->vmm, err);
}

static void unload(struct app *a)
{
	if (a->has_vmm)
		kn_vmm_fini(&a->vmm);
	a->has_vmm = false;
	close_channel(a);
	kn_close(a->image);
	a->image = -1;
}

static int hook_start(const struct kn_fcapi_settings *s, void *arg, struct kn_err *err)
{
	struct app *a = arg;

	a->image = open(s->kernel_image_path, O_RDONLY | O_CLOEXEC);
	if (a->image < 0)
		return kn_fail(err, errno, "open '%s': %s", s->kernel_image_path, strerror(errno));
	a->report = (struct kn_report){ .started_ns = kn_now_ns() };
	int r = load(a, s, err);
	if (r < 0)
		unload(a);
	return r < 0 ? kn_while(err, "start the microVM") : 0;
}

/* ---- the other hooks ------------------------------------------------------------------------ */

static enum kn_vmm_state hook_state(void *arg)
{
	struct app *a = arg;
	return a->has_vmm ? (enum kn_vmm_state)atomic_load(&a->vmm.state) : KN_VMM_NOT_STARTED;
}

static int hook_check_image(const char *path, void *arg, struct kn_err *err)
{
	char head[KN_ELF_HEAD];

	(void)arg;
	kn_auto(kn_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return kn_fail(err, errno, "The kernel file cannot be opened: '%s': %s", path,
		               strerror(errno));
	ssize_t n = pread(fd, head, sizeof(head), 0);
	if (n < 0)
		return kn_fail(err, errno, "read '%s': %s", path, strerror(errno));
	if (!kn_vmm_protocol((struct kn_view){ head, (size_t)n }))
		return kn_fail(err, EINVAL,
		               "'%s' is nothing that this monitor can boot (it knows: %s); make a bare "
		               "program with `kiln build`", path, kn_vmm_protocols());
	return 0;
}

static int hook_pause(void *arg, struct kn_err *err)
{
	return kn_vmm_pause(&((struct app *)arg)->vmm, err);
}

static int hook_resume(void *arg, struct kn_err *err)
{
	return kn_vmm_resume(&((struct app *)arg)->vmm, err);
}

static int level_of(const char *name, enum kn_level *ret, struct kn_err *err)
{
	static const struct {
		const char *name;
		enum kn_level level;
	} names[] = {
		{ "Error", KN_ERROR }, { "Warning", KN_WARN }, { "Warn", KN_WARN }, { "Info", KN_INFO },
		{ "Debug", KN_DEBUG }, { "Trace", KN_DEBUG }, { "Off", KN_ERROR },
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(names); i++)
		if (kn_view_is_nocase(kn_view_of(name), kn_view_of(names[i].name))) {
			*ret = names[i].level;
			return 0;
		}
	return kn_fail(err, EINVAL, "level must be Error, Warning, Info, Debug, Trace or Off");
}

static int hook_log(const struct kn_fcapi_log *log, void *arg, struct kn_err *err)
{
	struct app *a = arg;
	struct kn_log_config c = KN_LOG_DEFAULTS;

	if (log->level) {
		int r = level_of(log->level, &a->level, err);
		if (r < 0)
			return r;
	}
	if (log->path) {
		/* A pipe without a reader must not stop us, nor one that goes away end us. */
		int fd = open(log->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
		if (fd < 0)
			return kn_fail(err, errno, "log_path: open '%s': %s", log->path,
			               strerror(errno));
		kn_close(a->log_fd);
		a->log_fd = fd;
	}
	c.level = a->level;
	c.fd = a->log_fd >= 0 ? a->log_fd : 2;
	kn_log_setup(&c);
	return 0;
}

/* ---- the API -------------------------------------------------------------------------------- */

static void on_body(struct kn_http_exchange *x, struct kn_view body, void *arg)
{
	static const struct kn_header json = { { "Content-Type", 12 }, { KN_HTTP_JSON, 16 } };
	struct app *a = arg;
	const struct kn_http_head *h = kn_http_head(x);
	kn_auto(kn_buf_fini) struct kn_buf reply = KN_BUF_INIT;

	int status = kn_fcapi_answer(&a->api, h->method, h->path, body, &reply);
	if (status >= 400)
		kn_log(KN_WARN, "request refused", KN_V("method", h->method), KN_V("path", h->path),
		       KN_V("reply", kn_buf_view(&reply)));
	kn_http_reply(x, status, &json, reply.len ? 1 : 0, kn_buf_view(&reply));
}

static void on_request(struct kn_http_exchange *x, void *arg)
{
	struct app *a = arg;
	kn_http_collect(x, a->serve->max_body, on_body, a);
}

static int open_api(struct app *a, struct kn_err *err)
{
	struct kn_http_server_config c = KN_HTTP_SERVER_DEFAULTS;

	c.max_body = a->serve->max_body;
	c.max_connections = 64;
	c.idle_timeout_ms = 24 * 3600 * 1000;   /* clients keep their connection as long as the VM */
	c.server = "kiln-vmm";
	c.request = on_request;
	c.arg = a;
	int fd = kn_unix_listen(a->serve->api_sock, err);
	if (fd < 0)
		return fd;
	int r = kn_http_server_new(a->loop, fd, &c, &a->server, err);
	if (r < 0)
		kn_close(fd);
	return r;
}

static void on_signal(const struct signalfd_siginfo *si, void *arg)
{
	struct app *a = arg;

	(void)si;
	if (hook_state(a) == KN_VMM_NOT_STARTED)
		kn_loop_stop(a->loop);
	else
		kn_vmm_stop(&a->vmm);     /* on_ended() stops the loop */
}

/* ---- all together --------------------------------------------------------------------------- */

static int begin(struct app *a, struct kn_err *err)
{
	const struct kn_fcapi_hooks hooks = { hook_state, hook_check_image, hook_start, hook_pause,
		                              hook_resume, hook_log, a };
	sigset_t stop;

	kn_fcapi_init(&a->api, a->serve->id, &hooks);
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	signal(SIGPIPE, SIG_IGN);
	kn_vmm_signals();
	int r = kn_loop_new(&a->loop, err);
	if (r == 0)
		r = kn_loop_signals(a->loop, &stop, on_signal, a, err);
	if (r == 0 && a->serve->api_sock)
		r = open_api(a, err);
	if (r == 0 && a->serve->config) {
		r = kn_fcapi_configure(&a->api, kn_view_of(a->serve->config), err);
		if (r == 0 && a->api.settings.kernel_image_path)
			r = hook_start(&a->api.settings, a, err);
		else if (r == 0)
			r = kn_fail(err, EINVAL, "configuration: boot-source is missing");
	}
	return r;
}

int kn_fcapi_run(const struct kn_fcapi_serve *serve)
{
	struct kn_err err = KN_ERR_INIT;
	struct app a = { .serve = serve, .image = -1, .log_fd = -1 };

	for (enum kn_level l = KN_ERROR; l <= KN_DEBUG && kn_log_wants(l); l++)
		a.level = l;           /* what the command line chose, until PUT /logger */

	if (begin(&a, &err) < 0) {
		kn_log(KN_ERROR, "cannot start", KN_E(&err));
		a.exit_code = 1;
	} else if (kn_loop_run(a.loop) < 0) {
		a.exit_code = 1;
	}
	unload(&a);
	if (a.server) {
		kn_http_server_free(a.server);
		unlink(serve->api_sock);
	}
	kn_loop_free(a.loop);
	kn_fcapi_fini(&a.api);
	kn_close(a.log_fd);
	return a.exit_code;
}
