/*
 * The traffic of `kiln-nf bench`: frames drawn at run time, the eight rules as a table, and what
 * each frame must look like afterwards, worked out from what was drawn and not from what any
 * parser or classifier says. Private to kiln-nf.
 */
#pragma once

#include "packet/acl.h"

enum { KN_BENCH_FRAMES = 2048, KN_BENCH_RULES = 8, KN_BENCH_TTL = 255 };

/* What was drawn for one frame; addresses and ports in the machine's order. */
struct kn_bench_frame {
	uint32_t src, dst;
	uint16_t src_port, dst_port;
	uint8_t proto;
	uint16_t len;
	uint64_t tag;  /* fills the payload */
	uint32_t rule; /* that decides, by the table */
	bool passes;
};

struct kn_bench_traffic {
	struct kn_bench_frame want[KN_BENCH_FRAMES];
	struct kn_frame *frames[KN_BENCH_FRAMES];
	uint64_t state; /* of the generator */
	uint64_t by_rule[KN_BENCH_RULES + 1];
	uint32_t passing;
};

/* A number from the generator (xorshift64*). */
uint64_t kn_bench_random(struct kn_bench_traffic *t);

/* Draw what frames shall be: about pass_percent of them pass. frames must be set before filling. */
void kn_bench_draw(struct kn_bench_traffic *t, uint64_t seed, unsigned pass_percent);

/* Write all frames as they are before the first pass. */
void kn_bench_fill(struct kn_bench_traffic *t);

/*
 * Hold every byte of every frame against what `rounds` passes must have made of it.
 * Errors: EBADMSG, which frame and where.
 */
int kn_bench_check(const struct kn_bench_traffic *t, unsigned rounds, struct kn_err *err);

/* The eight rules as an ACL. */
int kn_bench_acl(struct kn_acl **ret, struct kn_err *err);
