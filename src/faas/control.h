/*
 * The control API over HTTP: OpenFaaS' /system paths, tokens, images, health, the node. The gateway
 * hands every request here that is not the call of a function. It checks the caller, reads bodies
 * within limits, keeps the store and the engine in step (a change is durable before it is answered)
 * and answers errors as JSON: {"error": "...", "hint": "..."}.
 *
 * Paths: /healthz, /oauth/token, /.well-known/..., /system/..., /kiln/v1/..., /openapi.json, and /v2/
 * (oci/registry.h); any other is answered 404.
 *
 * Thread  the loop's
 */
#pragma once

#include "base/http.h"
#include "base/work.h"
#include "faas/auth.h"
#include "faas/function.h"
#include "faas/secret.h"
#include "faas/store.h"

struct kn_control;
struct kn_engine;
struct kn_images;

/** Everything is borrowed for the control's life. */
struct kn_control_config {
	struct kn_loop *loop;
	struct kn_store *store;
	struct kn_auth *auth;
	struct kn_secrets *secrets;
	struct kn_work *work;
	struct kn_engine *engine;
	struct kn_images *images;     /* oci/image.h */
	const char *listen;           /* "127.0.0.1:8080": this node's name in references to images */
	const char *registry_auth;    /* file of credentials for other registries; or NULL */
	const char *plain_http;       /* registries without TLS, "a:1,b:2"; or NULL */
	const char *public_url;       /* how clients reach this node; NULL: as each of them says */
	const json_t *node;           /* what `kiln doctor` found: answers /kiln/v1/node */
	/** Append families of what the control does not know (base/metric.h); NULL: there are none. */
	void (*metrics)(struct kn_buf *page, void *arg);
	void *metrics_arg;
	const char *tmp_dir;          /* on the image store's file system: archives under way */
	uint64_t max_image_bytes;     /* largest archive that may be imported */
	uint64_t max_body_bytes;      /* largest JSON body */
};

#define KN_CONTROL_DEFAULTS                                                                        \
	((struct kn_control_config){ .max_image_bytes = UINT64_C(16) << 30,                        \
	                             .max_body_bytes = 256 * 1024 })

/**
 * Make the control and deploy every stored function to the engine. One that cannot be deployed
 * (its image or its driver is gone) stays stored, is logged, and says why when it is described.
 *
 * Errors  EUCLEAN a stored function cannot be read; ENOMEM
 */
kn_must_use int kn_control_new(const struct kn_control_config *config, struct kn_control **ret,
                               struct kn_err *err);

/**
 * Nothing may be under way: free the HTTP server first, then the worker threads, then close the
 * store; the engine, the images and the auth after this. NULL is fine.
 */
void kn_control_free(struct kn_control *ctl);
KN_AUTO(kn_control_free, struct kn_control *);

/** Are functions of an earlier life still on their way to the engine? */
bool kn_control_restoring(const struct kn_control *ctl);

/**
 * Why is a function not in the engine, although it is deployed?
 *
 * ret_why  the reason, borrowed until the loop's round ends; NULL: it is being made ready
 * Returns  false when there is no function of this name
 */
bool kn_control_why_not(const struct kn_control *ctl, struct kn_view name, const char **ret_why);

/** Answer a request, now or later. */
void kn_control_request(struct kn_control *ctl, struct kn_http_exchange *x);
