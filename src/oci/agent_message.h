/*
 * What host and agent tell each other on the mux's control channel: one structure, one type a
 * message, fields that a type does not use stay zero. Serves the event flow.
 *
 *     host    GREET (clock and entropy, again after a restore)  CONFIGURE  SIGNAL  STOP
 *             RESUME (after a restore, in place of CONFIGURE: what is this instance's own; READY
 *             or FAILED answers it)
 *     agent   STARTED  READY  LOG ...  then EXITED (the function ended) or FAILED (it never ran)
 *
 * On the wire: u8 type, then fields u8 tag, u32 length, bytes; little endian; numbers have eight
 * bytes, lists repeat their tag. A tag that is not known is skipped, so that an agent in an old
 * snapshot and a newer host still understand each other.
 *
 * Thread  keeps no state
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/str.h"

enum kn_agent_message_type {
	KN_AGENT_GREET = 1,
	KN_AGENT_CONFIGURE,
	KN_AGENT_SIGNAL,
	KN_AGENT_STOP,
	KN_AGENT_RESUME,
	KN_AGENT_STARTED = 16,
	KN_AGENT_READY,
	KN_AGENT_LOG,
	KN_AGENT_EXITED,
	KN_AGENT_FAILED,
};

enum { KN_AGENT_MAX_LIST = 1024, KN_AGENT_MAX_LINE = 4096 };

struct kn_agent_message {
	enum kn_agent_message_type type;
	uint64_t wall_ns;            /* GREET */
	struct kn_view entropy;      /* GREET */
	struct kn_view *argv;        /* CONFIGURE; encoding borrows, decoding puts it into the arena */
	size_t n_argv;
	struct kn_view *env;
	size_t n_env;
	struct kn_view *file_paths;  /* files to make, beside their modes ("0440") and contents; */
	size_t n_file_paths;         /* the three lists have one length */
	struct kn_view *file_modes;
	size_t n_file_modes;
	struct kn_view *file_bytes;
	size_t n_file_bytes;
	struct kn_view hostname;     /* RESUME, too; as address, gateway, dns */
	struct kn_view cwd, user, ready_path;
	struct kn_view address;      /* of the guest's interface, "10.0.0.2/30"; empty: no network */
	struct kn_view gateway, dns; /* IPv4 addresses */
	uint64_t read_only_root;     /* 1: the root cannot be written to */
	uint64_t max_pids;           /* of the function; 0: no limit */
	uint64_t rehearse;           /* RESUME: 1: nobody waits yet, see kn_agent_link_resume() */
	uint64_t contract;           /* enum kn_contract */
	uint64_t port;
	uint64_t ready_timeout_ms, time_limit_ms, max_reply_bytes;
	uint64_t signal;             /* SIGNAL */
	uint64_t grace_ms;           /* STOP */
	uint64_t stream;             /* LOG: enum kn_stream */
	uint64_t status;             /* EXITED: wait status. FAILED: errno */
	struct kn_view text;         /* LOG: the line. EXITED, FAILED: the reason in words */
};

/** Append the message's bytes to out. What failed shows in out->failed. */
void kn_agent_encode(const struct kn_agent_message *msg, struct kn_buf *out);

/**
 * Parse one message.
 *
 * a       lists go there
 * ret     strings are views into bytes
 *
 * Errors  EBADMSG; ENOMEM
 */
kn_must_use int kn_agent_decode(struct kn_view bytes, struct kn_arena *a,
                                struct kn_agent_message *ret, struct kn_err *err);
