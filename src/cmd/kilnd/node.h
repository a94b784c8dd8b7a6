/*
 * A node from its parts: opened in order, closed in reverse. Private to cmd/kilnd.
 */
#pragma once

#include "base/work.h"
#include "cmd/hosting.h"
#include "cmd/kilnd/options.h"
#include "faas/async.h"
#include "faas/auth.h"
#include "faas/control.h"
#include "faas/engine.h"
#include "faas/gateway.h"
#include "faas/store.h"
#include "host/network.h"
#include "oci/image.h"
#include "oci/sandbox_kvm.h"
#include "oci/sandbox_qemu.h"
#include "oci/snapshot.h"

struct kn_node {
	const struct kn_kilnd_options *options;
	int state_fd, lock_fd, run_lock_fd;
	char addr[96];
	char *run_dir, *tmp_dir, *calls_socket, *issuer;
	struct kn_loop *loop;
	struct kn_hosting *hosting;
	json_t *report;
	struct kn_shells *shells;
	struct kn_network *network;  /* NULL: functions get none here */
	struct kn_snapshots *snapshots;
	struct kn_restores *restores;
	struct kn_work *work;
	struct kn_store *store;
	struct kn_auth *auth;
	struct kn_secrets *secrets;
	struct kn_images *images;
	struct kn_engine *engine;
	struct kn_control *control;
	struct kn_gateway *gateway;
	struct kn_async *async;
	struct kn_gateway *inner; /* where asynchronous calls come in: a socket of ours, no tokens */

	/* shutting down */
	struct kn_timer tick;
	uint64_t give_up_ns;
	bool draining, engine_drained;
};

/**
 * Make everything up to the listener, which accepts when kn_node_run() runs.
 *
 * Errors  told so that the operator knows what to do; what was made is undone by kn_node_close()
 */
kn_must_use int kn_node_open(struct kn_node *n, const struct kn_kilnd_options *options,
			     struct kn_err *err);

/** The families of /metrics that are the node's: the process, the disk, what is prepared. */
void kn_node_metrics(struct kn_buf *page, void *node);

/** Serve until a signal has drained the node. */
kn_must_use int kn_node_run(struct kn_node *n, struct kn_err *err);

/** Also of a node that is half open. */
void kn_node_close(struct kn_node *n);
