/* What the files of oci/remote share: one HTTP exchange with a registry, and its challenge. */
#pragma once

#include <curl/curl.h>

#include "oci/remote.h"

struct kn_remote {
	CURL *curl;
	char *base;                    /* "https://host:port" */
	char *host;
	bool plain;
	char *user, *password;         /* or NULL */
	char *token;                   /* of the last challenge; or NULL */
	bool basic;                    /* the registry asked for user and password themselves */
	const struct kn_progress *progress;
	const char *phase;             /* what the progress is told */
	uint64_t told, total;          /* bytes of what went before, and of everything */
	char why[CURL_ERROR_SIZE];
};

struct remote_call {
	const char *method;            /* NULL: GET */
	const char *path;              /* "/v2/..." or a whole URL, as a Location may be */
	const char *accept;            /* media types, or NULL */
	const char *content_type;      /* of the body */
	struct kn_view body;
	int body_fd;                   /* in place of body: from its start; -1: none */
	uint64_t body_bytes;
	/** Takes the reply's body when the status is 2xx; else it is kept for the error. May be NULL. */
	int (*sink)(const void *ptr, size_t len, void *arg, struct kn_err *err);
	void *arg;
};

#define REMOTE_CALL ((struct remote_call){ .body_fd = -1 })

struct remote_reply {
	int status;
	struct kn_buf body;            /* at most KN_SPEC_MAX_BYTES */
	char location[2048], type[128], challenge[2048];
};

#define REMOTE_REPLY ((struct remote_reply){ .status = 0 })

void remote_reply_fini(struct remote_reply *r);
static inline void remote_reply_fini_auto(struct remote_reply *r)
{
	remote_reply_fini(r);
}

/**
 * One request, with what the registry asks for to let it in (a second one then). Any status is a
 * success of this call; see remote_check().
 */
kn_must_use int remote_send(struct kn_remote *r, const struct remote_call *call,
                            struct remote_reply *ret, struct kn_err *err);

/** A status that is not 2xx, as an error that says what the registry says. what: "manifest x" */
kn_must_use int remote_check(const struct kn_remote *r, const struct remote_reply *reply,
                             const char *what, struct kn_err *err);

struct challenge {
	bool bearer;                   /* else basic */
	char realm[1024], service[256], scope[1024];
};

/** A WWW-Authenticate field. Errors: EINVAL. */
kn_must_use int challenge_parse(struct kn_view v, struct challenge *ret, struct kn_err *err);
