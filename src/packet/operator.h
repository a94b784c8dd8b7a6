/*
 * Operators: the stages that a pipeline is made of. A stage is called once per batch and works on
 * its live lanes; the loop over frames is inside, so that a call through a pointer costs a
 * thirty-second of itself per frame. Here: receive, parse, acl, filter, count, map, send.
 *
 * Authors of network functions write what happens to one frame as an inline function and let
 * KN_OPERATOR_MAP or KN_OPERATOR_FILTER make the loop:
 *
 *     static inline bool is_small(const struct kn_batch *b, uint32_t lane, void *context)
 *     {
 *             return b->frame[lane]->len < 128;
 *     }
 *     KN_OPERATOR_FILTER(keep_small, is_small)
 *     ...
 *     kn_stage_call("keep small", keep_small, NULL, &stage, err);
 *
 * Thread  a stage belongs to the thread of its pipeline.
 */
#pragma once

#include <jansson.h>

#include "packet/acl.h"
#include "packet/parse.h"
#include "packet/port.h"

struct kn_stage;

struct kn_stage_ops {
	const char *kind; /* "acl" */

	/* Handle the live lanes of a batch. Drops with kn_batch_drop(). */
	void (*run)(struct kn_stage *stage, struct kn_batch *b);

	/* Add what the stage counted to a report's object. NULL: nothing. */
	void (*report)(const struct kn_stage *stage, json_t *into);

	/* Release the stage. */
	void (*free)(struct kn_stage *stage);
};

enum { KN_STAGE_NAME_MAX = 63 };

/* What every stage has; implementations put it first into their own struct. */
struct kn_stage {
	const struct kn_stage_ops *ops;
	char name[KN_STAGE_NAME_MAX + 1]; /* the kind by default */
};

/* Something done to a batch's live lanes. */
typedef void kn_operator(struct kn_batch *b, void *context);

/** Define operator `name`, which does `one(b, lane, context)` for each live frame. */
#define KN_OPERATOR_MAP(name, one)                                                                 \
	static void name(struct kn_batch *kn_b, void *context)                                     \
	{                                                                                          \
		kn_each_lane(lane, kn_b->live)                                                     \
		{                                                                                  \
			one(kn_b, lane, context);                                                  \
		}                                                                                  \
	}

/** Define operator `name`, which keeps the live frames for which `keep(b, lane, context)` holds. */
#define KN_OPERATOR_FILTER(name, keep)                                                             \
	static void name(struct kn_batch *kn_b, void *context)                                     \
	{                                                                                          \
		kn_lanes unwanted = 0;                                                             \
		kn_each_lane(lane, kn_b->live)                                                     \
		{                                                                                  \
			unwanted |= (kn_lanes)!keep(kn_b, lane, context) << lane;                  \
		}                                                                                  \
		kn_batch_drop(kn_b, unwanted, KN_DROP_FILTER);                                     \
	}

/** Release a stage; NULL is fine. */
void kn_stage_free(struct kn_stage *stage);
KN_AUTO(kn_stage_free, struct kn_stage *);

/**
 * Receive a batch from a port: the first stage of a pipeline, and only there.
 *
 * port  borrowed; must outlive the stage
 *
 * Errors  ENOMEM, as every function that makes a stage
 */
kn_must_use int kn_stage_receive(struct kn_port *port, struct kn_stage **ret, struct kn_err *err);

/** Parse; stages behind it see the columns. options are copied, NULL takes the defaults. */
kn_must_use int kn_stage_parse(const struct kn_parse_options *options, struct kn_stage **ret,
			       struct kn_err *err);

/** Judge by rules. Owns acl on success. */
kn_must_use int kn_stage_acl(const char *name, struct kn_acl *acl, struct kn_stage **ret,
			     struct kn_err *err);

/** Keep what a list of rules passes; the rest is dropped as "filter". Owns acl on success. */
kn_must_use int kn_stage_filter(const char *name, struct kn_acl *acl, struct kn_stage **ret,
				struct kn_err *err);

/** Count frames and bytes that come by, or those that acl passes. Owns acl (may be NULL). */
kn_must_use int kn_stage_count(const char *name, struct kn_acl *acl, struct kn_stage **ret,
			       struct kn_err *err);

/** Call an operator. context is borrowed and must outlive the stage. */
kn_must_use int kn_stage_call(const char *name, kn_operator *call, void *context,
			      struct kn_stage **ret, struct kn_err *err);

/** Send what is left: the last stage. What the port does not take is dropped as "tx_full". */
kn_must_use int kn_stage_send(struct kn_port *port, struct kn_stage **ret, struct kn_err *err);

/** The port that a receive or send stage works on; NULL for others. */
struct kn_port *kn_stage_port(const struct kn_stage *stage);

/** Operator: exchange source and destination MAC addresses. Needs the parser before it. */
void kn_map_mac_swap(struct kn_batch *b, void *unused);

/**
 * Operator: take one off the TTL (IPv4, its checksum kept right) or hop limit (IPv6); drop what has
 * none left. Frames that are not IP pass unchanged. Source  RFC 1812, 5.3.1; RFC 8200, 3; RFC 1624
 */
void kn_map_ttl(struct kn_batch *b, void *unused);

/** The operator that a configuration's `map` calls by this name ("mac_swap", "ttl"), or NULL. */
kn_operator *kn_map_find(const char *name);

/** The names that kn_map_find() knows; NULL-terminated. */
const char *const *kn_map_names(void);
