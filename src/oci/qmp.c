#include "oci/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_WAITING = 16, READ_BYTES = 4096 };

struct waiting {
	kn_qmp_done done;
	void *arg;
};

struct kn_qmp {
	struct kn_loop *loop;
	struct kn_watch watch;                  /* .fd is the socket; owned */
	void (*failed)(const struct kn_err *why, void *arg);
	void *arg;
	struct waiting waiting[MAX_WAITING];    /* commands without a reply, oldest first */
	size_t n_waiting;
	struct kn_buf in;
	bool broken;
	unsigned busy;                          /* frames of this module on the stack */
	bool dying;                             /* freed while busy */
};

/* ---- lines --------------------------------------------------------------------------------- */

static int classify(struct kn_qmp_line *l, struct kn_err *err)
{
	const json_t *refused = json_object_get(l->value, "error");

	if (json_object_get(l->value, "QMP")) {
		l->kind = KN_QMP_GREETING;
		return 0;
	}
	if ((l->reply = json_object_get(l->value, "return"))) {
		l->kind = KN_QMP_RETURN;
		return 0;
	}
	l->kind = refused ? KN_QMP_ERROR : KN_QMP_EVENT;
	l->text = json_string_value(refused ? json_object_get(refused, "desc")
	                                    : json_object_get(l->value, "event"));
	return l->text ? 0 : kn_fail(err, EBADMSG, "QEMU said neither reply nor error nor event");
}

int kn_qmp_parse(struct kn_view line, struct kn_qmp_line *ret, struct kn_err *err)
{
	struct kn_qmp_line l = { .text = NULL };

	int r = kn_json_parse(kn_view_trim(line), &l.value, err);
	if (r == -ENOMEM)
		return r;
	if (r == 0 && !json_is_object(l.value))
		r = kn_fail(err, EBADMSG, "QEMU said something that is no object");
	else if (r == 0)
		r = classify(&l, err);
	else if (err)
		err->code = EBADMSG;
	if (r < 0) {
		json_decref(l.value);
		return r == -EINVAL ? -EBADMSG : r;
	}
	*ret = l;
	return 0;
}

/* ---- life ---------------------------------------------------------------------------------- */

static void release(struct kn_qmp *q)
{
	kn_buf_fini(&q->in);
	free(q);
}

void kn_qmp_free(struct kn_qmp *q)
{
	if (!q)
		return;
	q->broken = true;
	kn_watch_stop(&q->watch);
	kn_close(kn_take_fd(q->watch.fd));
	if (q->busy)
		q->dying = true;
	else
		release(q);
}

static void answer(struct kn_qmp *q, const json_t *reply, const struct kn_err *err)
{
	struct waiting w = q->waiting[0];

	memmove(&q->waiting[0], &q->waiting[1], --q->n_waiting * sizeof(w));
	if (w.done)
		w.done(reply, err, w.arg);
}

static void fail(struct kn_qmp *q, const struct kn_err *why)
{
	if (q->broken)
		return;
	q->broken = true;
	kn_watch_stop(&q->watch);
	while (!q->dying && q->n_waiting > 0)
		answer(q, NULL, why);
	if (!q->dying && q->failed)
		q->failed(why, q->arg);
}

/* ---- in ------------------------------------------------------------------------------------ */

static void on_line(struct kn_qmp *q, struct kn_view line)
{
	struct kn_qmp_line l;
	struct kn_err err = KN_ERR_INIT;

	if (kn_qmp_parse(line, &l, &err) < 0) {
		fail(q, &err);
		return;
	}
	if ((l.kind == KN_QMP_RETURN || l.kind == KN_QMP_ERROR) && q->n_waiting == 0) {
		kn_fail(&err, EBADMSG, "QEMU answered a command that was not given");
		fail(q, &err);
	} else if (l.kind == KN_QMP_RETURN) {
		answer(q, l.reply, NULL);
	} else if (l.kind == KN_QMP_ERROR) {
		kn_fail(&err, EIO, "QEMU refused: %.200s", l.text);
		answer(q, NULL, &err);
	}
	json_decref(l.value);
}

static void take_lines(struct kn_qmp *q)
{
	struct kn_err err = KN_ERR_INIT;
	char *end;

	while (!q->broken && q->in.len > 0 && (end = memchr(q->in.ptr, '\n', q->in.len))) {
		size_t len = (size_t)(end - q->in.ptr);
		on_line(q, (struct kn_view){ q->in.ptr, len });
		kn_buf_drop(&q->in, len + 1);
	}
	if (q->in.failed) {
		kn_fail(&err, ENOMEM, "memory for what QEMU says");
		fail(q, &err);
	} else if (q->in.len > KN_QMP_MAX_LINE) {
		kn_fail(&err, EBADMSG, "QEMU said a line longer than %d bytes", KN_QMP_MAX_LINE);
		fail(q, &err);
	}
}

static void on_input(struct kn_watch *w, uint32_t events)
{
	struct kn_qmp *q = kn_container_of(w, struct kn_qmp, watch);
	struct kn_err err = KN_ERR_INIT;
	char bytes[READ_BYTES];

	(void)events;
	ssize_t n = read(w->fd, bytes, sizeof(bytes));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	q->busy++;
	if (n > 0) {
		kn_buf_add(&q->in, bytes, (size_t)n);
		take_lines(q);
	} else {
		kn_fail(&err, EPIPE, "QEMU closed its control socket");
		fail(q, &err);
	}
	if (--q->busy == 0 && q->dying)
		release(q);
}

/* ---- out ----------------------------------------------------------------------------------- */

int kn_qmp_execute(struct kn_qmp *q, const char *command, json_t *arguments, int pass_fd,
                   kn_qmp_done done, void *arg, struct kn_err *err)
{
	kn_auto(json_decref) json_t *message = json_pack("{s:s}", "execute", command);
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	if (arguments && (!message || json_object_set(message, "arguments", arguments) < 0))
		b.failed = true;
	json_decref(arguments);
	if (message)
		kn_json_print(&b, message, 0);
	kn_buf_adds(&b, "\n");
	if (!message || b.failed)
		return kn_fail(err, ENOMEM, "memory for a command to QEMU");
	if (q->broken)
		return kn_fail(err, EPIPE, "QEMU is gone");
	if (q->n_waiting == MAX_WAITING)
		return kn_fail(err, EBUSY, "QEMU does not answer");
	int r = kn_send_fds(q->watch.fd, b.ptr, b.len, &pass_fd, pass_fd >= 0 ? 1 : 0);
	if (r < 0)
		return kn_fail(err, -r, "command '%s' to QEMU: %s", command, strerror(-r));
	q->waiting[q->n_waiting++] = (struct waiting){ done, arg };
	return 0;
}

int kn_qmp_new(struct kn_loop *loop, int fd, void (*failed)(const struct kn_err *why, void *arg),
               void *arg, struct kn_qmp **ret, struct kn_err *err)
{
	struct kn_qmp *q = calloc(1, sizeof(*q));

	if (!q) {
		kn_close(fd);
		return kn_fail(err, ENOMEM, "memory for a control socket");
	}
	q->loop = loop;
	q->failed = failed;
	q->arg = arg;
	q->watch = (struct kn_watch){ .fd = fd, .events = EPOLLIN, .call = on_input };
	int r = kn_watch_start(loop, &q->watch, err);
	if (r == 0)
		r = kn_qmp_execute(q, "qmp_capabilities", NULL, -1, NULL, NULL, err);
	if (r < 0) {
		kn_qmp_free(q);
		return r;
	}
	*ret = q;
	return 0;
}
