/*
 * A pipeline: stages in a straight line, run to completion. One batch goes through all of them
 * before the next is received, in one thread, without queues. What comes in is counted where it
 * goes out: received = sent + dropped, by reason, after every batch.
 *
 * Thread  a pipeline, its stages, ports and pools belong to one thread.
 */
#pragma once

#include <signal.h>

#include "packet/operator.h"

struct kn_pipeline;

enum { KN_STAGES_MAX = 64 };

/** An empty pipeline; kn_pipeline_free() it before its ports and pools. Errors: ENOMEM. */
kn_must_use int kn_pipeline_new(struct kn_pipeline **ret, struct kn_err *err);

/** Release a pipeline and its stages, not its ports; NULL is fine. */
void kn_pipeline_free(struct kn_pipeline *p);
KN_AUTO(kn_pipeline_free, struct kn_pipeline *);

/**
 * Put a stage at the end, and own it on success.
 *
 * Errors  EINVAL: the first stage must receive, no later one may; nothing comes behind a send;
 *         an operator that reads headers needs a parse before it; too many stages
 */
kn_must_use int kn_pipeline_add(struct kn_pipeline *p, struct kn_stage *stage, struct kn_err *err);

/**
 * One batch from end to end.
 *
 * Returns how many frames were received: 0 when there is nothing now; see kn_pipeline_ended().
 * Errors  what the receiving or sending port met
 */
kn_must_use int kn_pipeline_step(struct kn_pipeline *p, struct kn_err *err);

/** True when the receiving port will give no more. */
bool kn_pipeline_ended(const struct kn_pipeline *p);

/**
 * Run until the receiving port ends, or *stop is not 0 (a signal handler may set it), then flush
 * the sending port.
 *
 * Errors  as kn_pipeline_step(); all counters stay right
 */
kn_must_use int kn_pipeline_run(struct kn_pipeline *p, const volatile sig_atomic_t *stop,
				struct kn_err *err);

/**
 * Look at every frame's fate: called after each batch, before dropped frames are given back. The
 * batch's sent, why[] and rule[] are filled; frames that were sent must not be touched.
 *
 * call  NULL: nobody looks any more
 */
void kn_pipeline_observe(struct kn_pipeline *p,
			 void (*call)(void *context, const struct kn_batch *), void *context);

/** The port that it receives from, or sends to; borrowed. NULL: there is none. */
struct kn_port *kn_pipeline_in(const struct kn_pipeline *p);
struct kn_port *kn_pipeline_out(const struct kn_pipeline *p);

/** What was received. */
struct kn_traffic kn_pipeline_received(const struct kn_pipeline *p);

/** What was sent. */
struct kn_traffic kn_pipeline_sent(const struct kn_pipeline *p);

/** Frames dropped for this reason. */
uint64_t kn_pipeline_drops(const struct kn_pipeline *p, enum kn_reason reason);

/**
 * Everything counted, as JSON: received, sent, dropped (total and by reason, reasons that occurred
 * only) and one entry per stage.
 *
 * Returns a new reference, or NULL when memory is out.
 */
json_t *kn_pipeline_report(const struct kn_pipeline *p);
