/*
 * The host's end of a bare instance: makes the shared memory and the two doorbells, puts requests,
 * takes replies and log lines, and talks to the monitor that holds the other end. Called by the
 * sandbox driver `kvm`, by the monitor itself when clients reach it through its API, by benchmarks
 * and tests. Serves the event flow.
 *
 * The frame area is divided into slots, one call each. A request lies at the start of its slot and
 * its reply goes behind it, so that a small call touches one page; the guest allocates nothing.
 * What a guest writes is copied out once and checked then: a counter that jumped, a descriptor
 * outside its slot or lengths that do not add up are EPROTO, after which the channel is of no
 * further use. Log slots are twice as many as log descriptors, so that a slot is never written
 * while it is copied.
 *
 * Thread  one at a time
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "machine/abi.h"

/** A request or a reply; borrowed views. */
struct kn_bare_message {
	struct kn_view method, path, call_id;   /* requests */
	struct kn_view content_type;
	struct kn_view body;
	int status;                             /* replies: 200 to 599 */
};

struct kn_channel_config {
	uint32_t slots;              /* calls that may be under way at once, 1 to KN_BARE_REQUESTS */
	uint64_t max_request_bytes;  /* largest request body */
	uint64_t max_reply_bytes;    /* largest reply body */
};

#define KN_CHANNEL_DEFAULTS                                                                        \
	((struct kn_channel_config){ .slots = 1,                                                   \
	                             .max_request_bytes = UINT64_C(1) << 20,                       \
	                             .max_reply_bytes = UINT64_C(1) << 20 })

enum {
	KN_CHANNEL_MAX_BYTES = 1 << 30,
	KN_CHANNEL_MAX_STRINGS = 16 << 10,      /* method, path, content type, call id together */
	KN_CHANNEL_MAX_TYPE = 255,              /* content type of a reply */
};

struct kn_channel {
	int memory;                  /* memfd, sealed: nobody can shrink it under us */
	int bell;                    /* eventfd that wakes the guest */
	int note;                    /* eventfd that wakes the host; non-blocking */
	uint64_t bytes;
	char *at;                    /* mapping; the guest writes here at any time */
	uint64_t slot_bytes;
	uint64_t max_request_bytes, max_reply_bytes;
	uint32_t slots;
	uint64_t busy;               /* bit per slot with a call under way */
	uint32_t stale;              /* replies still to come that an earlier client asked for */
	struct {
		uint64_t tag;
		uint64_t reply_at, reply_room;  /* where its reply may lie */
	} call[KN_BARE_REQUESTS];
	struct kn_ring requests, replies, logs;
};

/**
 * Make a channel. Memory is used only as far as it is touched.
 *
 * Errors  EINVAL config; ENOMEM; EMFILE
 */
kn_must_use int kn_channel_new(const struct kn_channel_config *config, struct kn_channel *ret,
                               struct kn_err *err);

/**
 * Take over the host's end of a live channel that another process made: descriptors from a monitor's
 * grant. Counters go on where they are; replies to an earlier client's calls are dropped, and calls
 * are EAGAIN until they have come.
 *
 * memory, bell, note  owned by ret on success
 * Errors              EINVAL not a channel, or not sealed; ENOMEM
 */
kn_must_use int kn_channel_attach(const struct kn_channel_config *config, int memory, int bell,
                                  int note, struct kn_channel *ret, struct kn_err *err);

/** Unmap and close. Fine on a channel whose new() or attach() failed half-way, and twice. */
void kn_channel_fini(struct kn_channel *ch);

/** Size of the shared memory that a channel of this config has; 0 when the config is invalid. */
uint64_t kn_channel_bytes(const struct kn_channel_config *config);

/**
 * Send a request; rings the bell when the guest sleeps.
 *
 * tag     comes back with the reply
 * Errors  EMSGSIZE larger than max_request_bytes, or a string longer than 64 KiB; EAGAIN every slot
 *         is taken; EPROTO the guest broke the ring
 */
kn_must_use int kn_channel_call(struct kn_channel *ch, const struct kn_bare_message *request,
                                uint64_t tag, struct kn_err *err);

/**
 * Take one reply, copied out of shared memory into buf (emptied first); ret's views point there.
 *
 * Returns 1, 0 when there is none, or EPROTO (what was wrong), ENOMEM
 */
kn_must_use int kn_channel_take(struct kn_channel *ch, struct kn_buf *buf,
                                struct kn_bare_message *ret, uint64_t *ret_tag,
                                struct kn_err *err);

/** Take one log line (without newline) into line. Returns its length, 0 for none, or -EPROTO. */
kn_must_use int kn_channel_log(struct kn_channel *ch, char line[KN_BARE_LOG_SLOT],
                               struct kn_err *err);

/** Calls under way. */
uint32_t kn_channel_busy(const struct kn_channel *ch);

/**
 * The host is going to sleep until the note: true when it may, false when there is something to take
 * already. Call after taking everything, before waiting on ch->note.
 */
bool kn_channel_sleep(struct kn_channel *ch);

/** The note came: forget it, before looking for replies. */
void kn_channel_awake(struct kn_channel *ch);

/* ---- the monitor's socket ------------------------------------------------------------------ */

/*
 * Whoever spawns a monitor gives it one end of a SOCK_SEQPACKET pair (--channel-fd). It sends one
 * hello with four descriptors: program, memory, bell, note, in this order. The monitor answers with
 * reports. Closing the socket ends the monitor.
 */
enum { KN_HELLO_MAGIC = 0x6b6e6831 };

struct kn_hello {
	uint32_t magic;
	uint32_t version;            /* 1 */
	uint64_t memory_bytes;       /* program, stack and heap together */
	uint64_t channel_bytes;
	uint64_t time_limit_ns;      /* of one call; 0: none */
	uint64_t boot_limit_ns;      /* from the program's start to its first doorbell; 0: none */
	char id[64];                 /* NUL-terminated */
};

enum kn_report_kind {
	KN_REPORT_READY = 1,         /* the program waits for its first request, or has replied */
	KN_REPORT_ENDED = 2,         /* last message; says why */
	KN_REPORT_PREPARED = 3,      /* no hello yet: the VM is there and waits for one */
};

struct kn_report {
	uint32_t kind;
	int32_t exit_code;           /* ENDED: the monitor's; 0 when the program ended itself with 0 */
	int32_t code;                /* ENDED: errno of the story; 0 when nothing failed */
	uint32_t kind_of_end;        /* ENDED: enum kn_end_kind of machine/boot.h */
	uint64_t started_ns;         /* monotonic: the monitor's first instruction of its own */
	uint64_t loaded_ns;          /* VM made, program loaded */
	uint64_t ready_ns;           /* first doorbell */
	char story[256];             /* ENDED: for people; NUL-terminated */
	char json[1536];             /* ENDED: one JSON object with address and registers, or "" */
};

/** Send the hello (magic and version are filled in). Returns 0 or -errno. */
int kn_hello_send(int sock, const struct kn_hello *hello, int program, const struct kn_channel *ch);

/** Descriptors that came with a hello; close them. */
struct kn_hello_fds {
	int program, memory, bell, note;
};

/**
 * The monitor's side: take the hello, checked. Returns 1, 0 when the other end was closed, or
 * -errno (EAGAIN: none yet, when wait is false).
 */
kn_must_use int kn_hello_take(int sock, bool wait, struct kn_hello *ret, struct kn_hello_fds *ret_fds,
                              struct kn_err *err);

/** The monitor's side: send a report. Returns 0 or -errno. */
int kn_report_send(int sock, const struct kn_report *report);

/*
 * A monitor with an API makes the channel itself and grants it to whoever connects to the socket
 * named by PUT /kiln/channel (SOCK_SEQPACKET, one client at a time): one message with the
 * descriptors memory, bell, note; then reports as above.
 */
enum { KN_GRANT_MAGIC = 0x6b6e6731 };

/** The monitor's side: listen at path (mode 0600). Returns a non-blocking descriptor or -errno. */
kn_must_use int kn_grant_listen(const char *path, struct kn_err *err);

/** The monitor's side: hand ch out. Returns 0 or -errno. */
int kn_grant_send(int sock, const struct kn_channel_config *config, const struct kn_channel *ch);

/**
 * The client's side: connect to path, take the grant and attach. ret_sock gets the socket, on which
 * reports come.
 *
 * Errors  what connect said; EBUSY another client has it; EPROTO
 */
kn_must_use int kn_grant_take(const char *path, struct kn_channel *ret, int *ret_sock,
                              struct kn_err *err);

/** Ask the monitor to end. Returns 0 or -errno. */
int kn_hello_stop(int sock);

/**
 * Take a report off the socket, checked. Returns 1, 0 at the end (the monitor is gone), -EAGAIN, or
 * -EPROTO.
 */
kn_must_use int kn_report_take(int sock, struct kn_report *ret);
