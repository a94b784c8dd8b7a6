/*
 * The contract between a bare program, the monitor and the host that calls it: the ELF note, the
 * information page, the doorbell, the rings and the head of a message. Fixed layout, no libc: the
 * SDK compiles it into the guest.
 *
 * The channel is one block of shared memory. Its first page holds three rings (base/ring.h):
 * requests (host to guest), replies (guest to host), log lines (guest to host). Behind it lies the
 * frame area, which the host divides as it likes: a request's descriptor says where its frame is,
 * and the frame's head says where the reply goes. The guest owns only the log slots at the end.
 *
 * Nothing in the channel is trusted by the host; what the host writes there is trusted by the
 * guest, since the host could stop it anyway.
 */
#pragma once

#include <stdint.h>

#include "base/ring.h"

#define KN_BARE_NOTE_NAME "Kiln"

enum {
	KN_BARE_ABI = 1,
	KN_BARE_NOTE_TYPE = 1,
	KN_BARE_PAGE = 4096,
};

/** Descriptor of the ELF note that makes a program a bare function. */
struct kn_bare_note {
	uint32_t abi;             /* KN_BARE_ABI */
	uint32_t flags;           /* 0 */
	uint64_t stack_bytes;     /* what it asks for */
};

/*
 * The guest's address space. Identical virtual and physical addresses; what is not named here is
 * not mapped.
 *
 *   SYSTEM      tables that the processor reads, supervisor only
 *   PROGRAM     segments, each with its own rights; then a hole, the stack, the information page
 *               (read only), the channel, a hole, the heap, a hole
 */
#define KN_BARE_SYSTEM  UINT64_C(0x400000)
#define KN_BARE_PROGRAM UINT64_C(0x410000)

/* The doorbell: OUT to this port, the call in the low byte of EAX, its argument above it. */
#define KN_BARE_PORT 0x6b
enum kn_bare_call {
	KN_BARE_WAIT = 1,         /* nothing to do: wake me when a request is there */
	KN_BARE_NOTIFY = 2,       /* the host should look at the rings; go on at once */
	KN_BARE_EXIT = 3,         /* the program has ended; argument: exit code */
};

enum {
	KN_BARE_REQUESTS = 64,    /* ring sizes */
	KN_BARE_REPLIES = 64,
	KN_BARE_LOGS = 32,
	KN_BARE_LOG_SLOT = 256,
	/* Twice the ring: a slot is not written again before the host has copied it (channel.h). */
	KN_BARE_LOG_SLOTS = 2 * KN_BARE_LOGS,
	KN_BARE_REQUEST_RING = 0, /* offsets in the channel's first page */
	KN_BARE_REPLY_RING = 1280,
	KN_BARE_LOG_RING = 2560,
	KN_BARE_FRAMES = KN_BARE_PAGE,
	KN_BARE_LOG_BYTES = KN_BARE_LOG_SLOTS * KN_BARE_LOG_SLOT,   /* the channel's end */
};

/** What the program's entry gets in RDI; rewritten by the monitor while the guest is outside. */
struct kn_bare_info {
	uint32_t abi;
	uint32_t bytes;           /* of this structure */
	uint64_t channel;         /* address */
	uint64_t channel_bytes;
	uint64_t heap;            /* address, aligned to 2 MiB or to a page */
	uint64_t heap_bytes;
	uint64_t mono_ns;         /* clocks as the guest was last entered after waiting */
	uint64_t wall_ns;
	uint32_t tsc_khz;         /* rate of RDTSC */
	uint32_t entries;         /* how often the clocks were set */
};

/**
 * Head of a request frame and of a reply frame. Requests: then the strings in the order of their
 * lengths, without separators, then the body. Replies: then the body, then the content type, so that
 * a body can be written before its type is known. Offsets count from the channel's start.
 */
struct kn_bare_head {
	uint32_t body_len;
	uint16_t method_len;      /* requests */
	uint16_t path_len;        /* requests */
	uint16_t type_len;
	uint16_t call_id_len;     /* requests */
	uint32_t status;          /* replies */
	uint64_t reply_offset;    /* requests: where the reply's frame goes, aligned to 8 */
	uint64_t reply_bytes;     /* requests: room there, head included */
};
