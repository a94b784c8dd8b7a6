#include "oci/sandbox_kvm/monitor.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "base/log.h"
#include "machine/channel.h"

/* A new one is made this long after one was taken: the start itself comes first. */
#define REFILL_NS (5 * KN_NS_PER_MS)

/* After a monitor that ended before it was used. */
#define RETRY_NS KN_NS_PER_S

struct shell {
	struct kn_shells *pool;
	struct kn_child child;
	struct kn_watch watch;
	int sock;                   /* -1: this place is empty */
	bool prepared;
};

struct kn_shells {
	struct kn_loop *loop;
	char *vmm, *device;
	struct kn_timer refill;
	size_t count;
	struct shell shell[];
};

static void refill_at(struct kn_shells *s, uint64_t after_ns)
{
	if (kn_timer_start(s->loop, &s->refill, kn_now_ns() + after_ns, NULL) < 0)
		kn_log(KN_WARN, "prepared monitors are not refilled", KN_S("why", "no memory"));
}

/* Forget a shell; its process lives on. */
static void leave(struct shell *h)
{
	kn_watch_stop(&h->watch);
	kn_child_stop(&h->child);
	h->sock = -1;
	h->prepared = false;
}

static void on_end(struct kn_child *c, int wait_status)
{
	struct shell *h = kn_container_of(c, struct shell, child);

	kn_log(KN_WARN, "prepared monitor ended, trying again", KN_I("wait_status", wait_status));
	int sock = h->sock;
	leave(h);
	kn_close(sock);
	refill_at(h->pool, RETRY_NS);
}

static void on_report(struct kn_watch *w, uint32_t events)
{
	struct shell *h = kn_container_of(w, struct shell, watch);
	struct kn_report report;

	(void)events;
	int got = kn_report_take(h->sock, &report);
	if (got == 1 && report.kind == KN_REPORT_PREPARED) {
		h->prepared = true;
		refill_at(h->pool, REFILL_NS);
	} else if (got == 1) {
		kn_log(KN_WARN, "monitor cannot be prepared", KN_S("why", report.story));
	} else if (got != -EAGAIN) {
		kn_watch_stop(w);     /* its end follows by the child */
	}
}

static int add_shell(struct kn_shells *s, struct shell *h, struct kn_err *err)
{
	struct kvm_monitor m;

	int r = kvm_monitor_spawn(s->vmm, s->device, NULL, NULL, &m, err);
	if (r < 0)
		return r;
	h->pool = s;
	h->sock = m.sock;
	h->child.pid = m.pid;
	h->child.done = on_end;
	h->watch.fd = m.sock;
	h->watch.events = EPOLLIN;
	h->watch.call = on_report;
	r = kn_child_start(s->loop, &h->child, err);
	if (r == 0)
		r = kn_watch_start(s->loop, &h->watch, err);
	if (r < 0) {
		leave(h);
		kn_close(m.sock);      /* that ends it */
		waitpid(m.pid, NULL, 0);
	}
	return r;
}

/* One at a time: the next one follows when this one is prepared. */
static void on_refill(struct kn_timer *t)
{
	struct kn_shells *s = kn_container_of(t, struct kn_shells, refill);
	struct kn_err err = KN_ERR_INIT;

	for (size_t i = 0; i < s->count; i++) {
		if (s->shell[i].sock >= 0 && !s->shell[i].prepared)
			return;
		if (s->shell[i].sock >= 0)
			continue;
		if (add_shell(s, &s->shell[i], &err) < 0) {
			kn_log(KN_WARN, "monitor cannot be prepared, trying again", KN_E(&err));
			refill_at(s, RETRY_NS);
		}
		return;
	}
}

int kn_shells_new(struct kn_loop *loop, const char *vmm, const char *device, size_t count,
                  struct kn_shells **ret, struct kn_err *err)
{
	struct kn_shells *s = calloc(1, sizeof(*s) + count * sizeof(s->shell[0]));
	if (!s)
		return kn_fail(err, ENOMEM, "out of memory");
	s->loop = loop;
	s->count = count;
	s->vmm = strdup(vmm);
	s->device = strdup(device);
	s->refill.call = on_refill;
	for (size_t i = 0; i < count; i++)
		s->shell[i].sock = -1;
	if (!s->vmm || !s->device) {
		kn_shells_free(s);
		return kn_fail(err, ENOMEM, "out of memory");
	}
	refill_at(s, 0);
	*ret = s;
	return 0;
}

size_t kn_shells_ready(const struct kn_shells *s)
{
	size_t n = 0;
	for (size_t i = 0; i < s->count; i++)
		n += s->shell[i].prepared;
	return n;
}

bool kvm_shells_take(struct kn_shells *s, struct kvm_monitor *ret)
{
	for (size_t i = 0; i < s->count; i++) {
		struct shell *h = &s->shell[i];
		if (!h->prepared)
			continue;
		*ret = (struct kvm_monitor){ .pid = h->child.pid, .sock = h->sock };
		leave(h);
		refill_at(s, REFILL_NS);
		return true;
	}
	return false;
}

void kn_shells_free(struct kn_shells *s)
{
	if (!s)
		return;
	kn_timer_stop(&s->refill);
	for (size_t i = 0; i < s->count; i++) {
		struct shell *h = &s->shell[i];
		if (h->sock < 0)
			continue;
		pid_t pid = h->child.pid;
		int sock = h->sock;
		leave(h);
		kn_close(sock);        /* a shell that waits for its hello ends at once */
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	kn_free(s->vmm);
	kn_free(s->device);
	kn_free(s);
}
