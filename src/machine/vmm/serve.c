#include "machine/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/time.h"

/* syscalls: fcntl recvfrom sendto getpid */

struct serve {
	int sock;
	struct kn_report report;        /* times are filled as they pass */
};

static void serve_ready(struct kn_vmm *v, void *arg)
{
	(void)v;
	struct serve *s = arg;
	s->report.ready_ns = kn_now_ns();
	s->report.kind = KN_REPORT_READY;
	(void)kn_report_send(s->sock, &s->report);
}

/* Something came over the socket: any message, and its end, mean stop. */
static bool serve_look(struct kn_vmm *v, void *arg)
{
	(void)v;
	struct serve *s = arg;
	char byte[4];
	ssize_t n = recv(s->sock, byte, sizeof(byte), MSG_DONTWAIT);
	return n >= 0 || (errno != EAGAIN && errno != EINTR);
}

static void report_end(struct serve *s, const struct kn_end *end)
{
	struct kn_report *r = &s->report;
	bool clean = end->kind == KN_END_STOPPED || (end->kind == KN_END_EXIT && !end->exit_code);

	r->kind = KN_REPORT_ENDED;
	r->kind_of_end = (uint32_t)end->kind;
	r->exit_code = clean ? 0 : 1;
	r->code = end->err.code;
	snprintf(r->story, sizeof(r->story), "%.*s", (int)sizeof(r->story) - 1, end->err.text);
	memcpy(r->json, end->json, sizeof(r->json));
	(void)kn_report_send(s->sock, r);
}

/* Signals must find the socket's end while the guest runs: it may never come back by itself. */
static int watch_socket(int sock, struct kn_err *err)
{
	int flags = fcntl(sock, F_GETFL);
	if (flags < 0 || fcntl(sock, F_SETOWN, getpid()) < 0 ||
	    fcntl(sock, F_SETFL, flags | O_ASYNC | O_NONBLOCK) < 0)
		return kn_fail(err, errno, "watch the channel's socket: %s", strerror(errno));
	return 0;
}

static int load(struct kn_vmm *v, struct serve *s, const struct kn_hello *h,
                const struct kn_hello_fds *fds, struct kn_err *err)
{
	struct kn_vmm_config c = KN_VMM_DEFAULTS;

	c.image = fds->program;
	c.memory_bytes = h->memory_bytes;
	c.channel = fds->memory;
	c.channel_bytes = h->channel_bytes;
	c.bell = fds->bell;
	c.note = fds->note;
	c.time_limit_ns = h->time_limit_ns;
	c.boot_limit_ns = h->boot_limit_ns;
	c.ready = serve_ready;
	c.arg = s;
	v->look = serve_look;
	int r = kn_vmm_load(v, &c, err);
	if (r == 0)
		r = watch_socket(s->sock, err);
	s->report.loaded_ns = kn_now_ns();
	return r;
}

/* From the hello to the end. */
static void run_hello(struct kn_vmm *v, struct serve *s, const struct kn_hello *h,
                      const struct kn_hello_fds *fds, struct kn_end *end)
{
	if (load(v, s, h, fds, &end->err) < 0) {
		end->kind = KN_END_FAILED;
		return;
	}
	/* What came before signals were on raised none. */
	if (serve_look(v, s))
		end->kind = KN_END_STOPPED;
	else
		kn_vmm_run(v, end);
}

int kn_vmm_serve(const char *device, int sock, uint64_t started_ns)
{
	struct serve s = { .sock = sock, .report = { .started_ns = started_ns } };
	struct kn_end end = { .kind = KN_END_FAILED };
	struct kn_hello hello;
	struct kn_hello_fds fds;
	struct kn_vmm v;

	int got = kn_hello_take(sock, false, &hello, &fds, &end.err);
	bool shell = got == -EAGAIN;
	int r = got == 0 || (got < 0 && !shell) ? -1 : kn_vmm_init(&v, device, shell, &end.err);
	if (r == 0 && shell) {
		s.report.kind = KN_REPORT_PREPARED;
		(void)kn_report_send(sock, &s.report);
		got = kn_hello_take(sock, true, &hello, &fds, &end.err);
	}
	if (r == 0 && got == 1) {
		kn_vmm_signals();
		run_hello(&v, &s, &hello, &fds, &end);
	} else if (got == 0) {
		return 0;            /* nobody wants us any more */
	}
	report_end(&s, &end);
	/* The process ends now; closing the VM by hand would take as long again. */
	return s.report.exit_code;
}
