/*
 * Image references as people type them: [registry/]repository[:tag][@digest]. No registry and no
 * "library/" are made up: a name means what it says, on this node. The tag is "latest" where
 * neither tag nor digest is given.
 *
 * Thread  keeps no state.
 * Source  OCI distribution-spec, "Pulling manifests"; the registry part as the tools read it: the
 *         first component, when it has a dot, a colon, or is "localhost"
 */
#pragma once

#include <stdbool.h>

#include "oci/digest.h"

enum { KN_REF_MAX = 255 + 1 + 128 + 1 + KN_DIGEST_TEXT };

struct kn_ref {
	char name[256];             /* registry and repository: "localhost:5000/a/b" */
	char tag[129];              /* "" when only a digest is given */
	struct kn_digest digest;    /* none when not given */
};

/** Errors: EINVAL says which part is wrong. */
kn_must_use int kn_ref_parse(struct kn_view text, struct kn_ref *ret, struct kn_err *err);

/**
 * The registry and the repository in a reference's name: "localhost:5000" and "a/b".
 *
 * ret     views into ref
 * Returns false when the name has no registry
 */
bool kn_ref_registry(const struct kn_ref *ref, struct kn_view *ret_host,
                     struct kn_view *ret_repository);

/** "name:tag", the form under which the store keeps it; "name@digest" when there is no tag. */
void kn_ref_text(const struct kn_ref *ref, char ret[KN_REF_MAX]);
