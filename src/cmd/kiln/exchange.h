/*
 * One HTTP exchange of the client with libcurl, and what a client is made of. Private to node.c and
 * exchange.c: verbs see cmd/kiln/node.h.
 *
 * Thread  one
 */
#pragma once

#include <curl/curl.h>

#include "cmd/kiln/node.h"

struct kn_node {
	CURL *curl;
	char *gateway;
	char *token; /* NULL: none */
	bool given;  /* the token was given by the user: not renewed */
	json_t *config;
	char curl_err[CURL_ERROR_SIZE];
};

/** Errors: ENOMEM. */
kn_must_use int kn_exchange_init(struct kn_node *c, struct kn_err *err);
void kn_exchange_fini(struct kn_node *c);

/** Send with the token that c has now. As kn_node_send() otherwise. */
kn_must_use int kn_exchange(struct kn_node *c, const struct kn_node_request *req,
                            struct kn_node_reply *ret, struct kn_err *err);
