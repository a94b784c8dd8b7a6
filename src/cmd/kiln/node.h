/*
 * The node's HTTP API as the verbs of `kiln` see it: which node, with which token, one request at a
 * time, and errors that say what to do. Gets a token by itself when the one of the last login has
 * expired. First step of the event flow for a person at a terminal.
 *
 * A token goes to the node that it was got from and nowhere else; redirects are not followed, and
 * proxies are not used for loopback addresses.
 *
 * Thread  one
 */
#pragma once

#include <sys/types.h>

#include "base/json.h"
#include "cmd/kiln/kiln.h"

#define KN_GATEWAY_DEFAULT "http://127.0.0.1:8080"

struct kn_node;

/**
 * Choose the node and find the login to it. Does not connect yet.
 *
 * Errors  EINVAL the URL; EPERM, EINVAL the login file; ENOMEM
 */
kn_must_use int kn_node_open(const struct kn_node_args *args, struct kn_node **ret,
			     struct kn_err *err);
void kn_node_close(struct kn_node *c);
KN_AUTO(kn_node_close, struct kn_node *);

/** The node's address without a slash at its end; borrowed. */
const char *kn_node_gateway(const struct kn_node *c);

/** The token that requests go out with, or NULL: there was none yet. Borrowed. */
const char *kn_node_token(const struct kn_node *c);

struct kn_node_request {
	const char *method; /* NULL: GET */
	const char *path;   /* "/system/functions?namespace=x", encoded */
	struct kn_view body;
	const char *content_type;   /* of the body; NULL: application/json */
	const char *const *headers; /* more fields, "Name: value" */
	size_t n_headers;
	bool basic; /* HTTP basic with the two below, in place of a token */
	const char *user, *password;
	uint64_t timeout_ms; /* for the whole exchange; 0: none */

	/** In place of body: the next bytes; 0 at the end, -errno to give up (told to the user). */
	ssize_t (*upload)(void *ptr, size_t len, void *arg);
	uint64_t upload_bytes; /* 0: not known before the end */
	/** In place of reply.body, when the status is below 400. -errno gives up. */
	int (*download)(const void *ptr, size_t len, void *arg);
	void *arg;
};

struct kn_node_reply {
	int status;
	struct kn_buf head; /* the fields, one a line: "Name: value\r\n" */
	struct kn_buf body;
};

#define KN_NODE_REPLY_INIT ((struct kn_node_reply){ .status = 0 })

void kn_node_reply_fini(struct kn_node_reply *r);
static inline void kn_node_reply_fini_auto(struct kn_node_reply *r)
{
	kn_node_reply_fini(r);
}

/** The value of a reply's field, or KN_VIEW_NULL. */
struct kn_view kn_node_reply_header(const struct kn_node_reply *r, const char *name);

/**
 * Make one request. A reply with any status is a success of this call; see kn_node_check().
 *
 * ret     filled on success; kn_node_reply_fini() it in any case
 * Errors  ECONNREFUSED no node there; EHOSTUNREACH; ETIMEDOUT; EPROTO; what upload or download
 *         returned
 */
kn_must_use int kn_node_send(struct kn_node *c, const struct kn_node_request *req,
			     struct kn_node_reply *ret, struct kn_err *err);

/**
 * Turn a status of 400 or more into an error: the node's reason, its hint, and what to do.
 * Errors  EINVAL, EACCES (log in), EPERM, ENOENT, EEXIST, EAGAIN, EIO
 */
kn_must_use int kn_node_check(const struct kn_node *c, const struct kn_node_reply *r,
			      struct kn_err *err);

/** Send, check, and parse the reply as JSON. ret may be NULL when the body does not matter. */
kn_must_use int kn_node_json(struct kn_node *c, const struct kn_node_request *req, json_t **ret,
			     struct kn_err *err);

/** Percent-encode text for a path segment or a query value, appended to b. RFC 3986. */
void kn_url_encode(struct kn_buf *b, struct kn_view text);

/**
 * Get a token for this client at /oauth/token and keep both under the node's name.
 * Errors  EACCES wrong id or secret; as kn_node_send()
 */
kn_must_use int kn_node_login(struct kn_node *c, const char *client_id, const char *secret,
			      struct kn_err *err);
