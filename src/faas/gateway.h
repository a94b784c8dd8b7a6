/*
 * The gateway: the node's one HTTP listener. Requests to /function/NAME go through the engine to an
 * instance and the reply comes back, both streamed with back-pressure and under one deadline;
 * calls for later, to /async-function/NAME, go to the queue (faas/async.h) under the same rules of who
 * may; everything else goes to the control API. First and last step of the event flow.
 *
 * Fields that the gateway adds, to the request and to the reply: X-Call-Id (the client's own when
 * it is a plain token of at most 64 characters), X-Start-Time (wall nanoseconds). To the reply:
 * X-Kiln-Start (cold, prewarmed or warm) and Server-Timing (phases in milliseconds; the last one, "function",
 * ends with the reply's head). Its own errors are JSON: {"error": ..., "hint": ...}.
 *
 * Thread  the loop's
 */
#pragma once

#include "base/http.h"
#include "faas/async.h"
#include "faas/auth.h"
#include "faas/engine.h"

struct kn_gateway;

/** Everything is borrowed for the gateway's life. */
struct kn_gateway_config {
	struct kn_loop *loop;
	struct kn_engine *engine;
	struct kn_http_server_config http; /* its limits; request and arg are the gateway's */
	bool functions_need_token;	   /* unless the function says kiln.auth=open */
	/** Let a request in (then done runs) or answer it: kn_auth_request(). NULL: nobody is asked. */
	void (*allow)(struct kn_http_exchange *x, uint32_t scope, kn_auth_done done, void *done_arg,
		      void *arg);
	struct kn_async *async; /* takes /async-function/NAME; NULL: there is no such path */
	/** Answer what is not for a function: kn_control_request(). */
	void (*other)(struct kn_http_exchange *x, void *arg);
	/**
	 * The engine does not know the name: false when nobody does, else ret_why says why it cannot
	 * be called (NULL: not yet). kn_control_why_not(); a NULL slot: nobody does.
	 */
	bool (*why_not)(struct kn_view name, const char **ret_why, void *arg);
	void *arg;
};

/**
 * Serve on a listening socket, which the gateway owns from now on, even when this fails.
 * Errors  ENOMEM; what epoll said
 */
kn_must_use int kn_gateway_new(const struct kn_gateway_config *config, int listen_fd,
			       struct kn_gateway **ret, struct kn_err *err);

/** Accept no more, answer new requests 503; those under way finish. */
void kn_gateway_drain(struct kn_gateway *g);

/** Requests under way. */
size_t kn_gateway_busy(const struct kn_gateway *g);

/** Cut what is under way. Before kn_engine_free(). */
void kn_gateway_free(struct kn_gateway *g);
KN_AUTO(kn_gateway_free, struct kn_gateway *);
