/*
 * One microVM from configuration to its end: the state machine, the loop that runs the vCPU, limits
 * and reports. Called by kiln-vmm: from the API (the vCPU gets a thread of its own) or, without an
 * API, in the caller's thread, which is the fastest start.
 *
 * Not started -> Running <-> Paused -> ended. Whoever wants something of a running vCPU sets a flag
 * and kicks it: a signal makes KVM_RUN return, and a write to the bell ends its sleep.
 *
 * Time limit: a call may take that long; the clock starts whenever the guest is entered after
 * waiting or has finished a call. A guest that neither finishes a call nor waits is ended. What
 * counts as finished is the guest's word, so a hostile one can keep running; its host gives up on
 * the call after the same time and kills the process.
 *
 * Thread  kn_vmm_stop(), kn_vmm_pause() and kn_vmm_resume() from any thread; the rest by the owner
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <pthread.h>

#include "machine/boot.h"
#include "machine/channel.h"

enum kn_vmm_state { KN_VMM_NOT_STARTED, KN_VMM_RUNNING, KN_VMM_PAUSED, KN_VMM_ENDED };

struct kn_vmm;

struct kn_vmm_config {
	const char *device;             /* KN_KVM_DEVICE */
	int image;                      /* program; borrowed */
	uint64_t memory_bytes;
	int channel, bell, note;        /* borrowed; -1: the guest cannot be called */
	uint64_t channel_bytes;
	uint64_t time_limit_ns;         /* of one call; 0: none */
	uint64_t boot_limit_ns;         /* from the first entry to the first doorbell; 0: none */
	/** First doorbell; in the vCPU's thread. Optional. */
	void (*ready)(struct kn_vmm *v, void *arg);
	/** It has ended; in the vCPU's thread, last call. Optional. */
	void (*ended)(struct kn_vmm *v, const struct kn_end *end, void *arg);
	void *arg;
};

#define KN_VMM_DEFAULTS                                                                            \
	((struct kn_vmm_config){ .device = KN_KVM_DEVICE,                                          \
	                         .image = -1,                                                      \
	                         .memory_bytes = UINT64_C(128) << 20,                              \
	                         .channel = -1, .bell = -1, .note = -1 })

/** Which ways of asking a running vCPU there are; bits. */
enum { KN_ASK_STOP = 1, KN_ASK_PAUSE = 2, KN_ASK_TICK = 4, KN_ASK_LOOK = 8 };

struct kn_vmm {
	struct kn_vmm_config config;
	struct kn_machine machine;
	atomic_int state;               /* enum kn_vmm_state */
	atomic_uint asked;              /* KN_ASK_ bits */
	atomic_bool waiting;            /* the vCPU's thread sleeps on the bell */
	atomic_int tid;                 /* of the vCPU's thread, 0 while there is none */
	bool rang;                      /* first doorbell is behind us */
	/* Time limit */
	bool timed;                     /* timer exists */
	timer_t timer;
	uint64_t since_ns, progress;
	/** Called for KN_ASK_LOOK, in the vCPU's thread: true ends the guest. Optional. */
	bool (*look)(struct kn_vmm *v, void *arg);
	/* Thread */
	bool threaded;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;         /* state */
};

/** The protocol that recognises an image's first bytes; NULL: none. */
const struct kn_boot_ops *kn_vmm_protocol(struct kn_view head);

/** Names of the protocols that there are, for errors: "bare". */
const char *kn_vmm_protocols(void);

/**
 * Make the VM of an empty microVM.
 *
 * prepare  also spend what time can be spent before the image is known (a prepared shell)
 * Errors   ENOENT, EACCES, ENOTSUP of the device; ENOMEM; KVM's own
 */
kn_must_use int kn_vmm_init(struct kn_vmm *v, const char *device, bool prepare, struct kn_err *err);

/** Not started: close it. Ended: join its thread first. Running: kn_vmm_stop() first. */
void kn_vmm_fini(struct kn_vmm *v);

/** Load config's image. Errors: ENOEXEC what is wrong with it; ENOMEM; EBUSY loaded already. */
kn_must_use int kn_vmm_load(struct kn_vmm *v, const struct kn_vmm_config *config,
                            struct kn_err *err);

/** Run in the calling thread until the end. The state must be Not started and loaded. */
void kn_vmm_run(struct kn_vmm *v, struct kn_end *ret);

/** Run in a thread of its own; config.ended tells the end. Errors: what pthread_create said. */
kn_must_use int kn_vmm_start(struct kn_vmm *v, struct kn_err *err);

/** Ask the guest to end; `ended` follows. */
void kn_vmm_stop(struct kn_vmm *v);

/** Leave the guest until resumed; returns when it has been left. Errors: EINVAL not running. */
kn_must_use int kn_vmm_pause(struct kn_vmm *v, struct kn_err *err);
kn_must_use int kn_vmm_resume(struct kn_vmm *v, struct kn_err *err);

/** Signals KN_VMM_SIGNAL and SIGIO kick the calling thread's vCPU from now on. */
void kn_vmm_signals(void);

/** "Not started", "Running" or "Paused". */
const char *kn_vmm_state_name(enum kn_vmm_state s);

/**
 * A monitor without an API: take the hello from sock, run its program, report, and return when all
 * is over. Without a hello waiting it becomes a prepared shell first.
 *
 * started_ns  when the process began, for the report
 * Returns the exit code for main: 0 the program ended itself with 0 or was asked to end; 1 else.
 */
int kn_vmm_serve(const char *device, int sock, uint64_t started_ns);
