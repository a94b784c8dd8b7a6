/*
 * QEMU's machine protocol (QMP) over a connected socket: commands with their replies, in order. Used
 * by the driver `qemu` to save and restore guests; nobody else talks to QEMU. Serves the event flow.
 *
 * QEMU is not trusted: what it says is bounded, parsed and checked. Commands may be given before
 * QEMU runs; they wait in the socket.
 *
 * Thread  the loop's
 * Source  QEMU, docs/interop/qmp-spec
 */
#pragma once

#include "base/json.h"
#include "base/loop.h"

enum { KN_QMP_MAX_LINE = 64 * 1024 };

enum kn_qmp_kind { KN_QMP_GREETING, KN_QMP_RETURN, KN_QMP_ERROR, KN_QMP_EVENT };

/** One line of QEMU's. */
struct kn_qmp_line {
	enum kn_qmp_kind kind;
	json_t *value;       /* the whole line; owned */
	const json_t *reply; /* RETURN: what was returned; borrowed from value */
	const char *text;    /* ERROR: its description. EVENT: its name. Borrowed from value */
};

/**
 * Parse one line, without its newline.
 *
 * ret     json_decref() ret->value
 * Errors  EBADMSG; ENOMEM
 */
kn_must_use int kn_qmp_parse(struct kn_view line, struct kn_qmp_line *ret, struct kn_err *err);

struct kn_qmp;

/** reply is borrowed, NULL with err: what QEMU refused, or that it is gone (EPIPE). */
typedef void (*kn_qmp_done)(const json_t *reply, const struct kn_err *err, void *arg);

/**
 * Speak with the QEMU at the other end of fd (a connected non-blocking Unix stream socket, owned
 * from now on). Its capabilities are negotiated.
 *
 * failed  the socket is of no use any more; after the last command's done(). May be NULL
 *
 * Errors  ENOMEM; what epoll and sendmsg said
 */
kn_must_use int kn_qmp_new(struct kn_loop *loop, int fd,
                           void (*failed)(const struct kn_err *why, void *arg), void *arg,
                           struct kn_qmp **ret, struct kn_err *err);

/** Forget it; commands without a reply are not told. Fine inside a callback. NULL is fine. */
void kn_qmp_free(struct kn_qmp *q);

/**
 * Give a command.
 *
 * arguments  an object, taken over even on failure; NULL: none
 * pass_fd    a descriptor that goes with the command, borrowed; -1: none
 * done       called once with the reply; NULL: nobody asks. It is not called when this fails
 *
 * Errors  ENOMEM; EBUSY: too many without a reply; EPIPE; what sendmsg said
 */
kn_must_use int kn_qmp_execute(struct kn_qmp *q, const char *command, json_t *arguments, int pass_fd,
                               kn_qmp_done done, void *arg, struct kn_err *err);
