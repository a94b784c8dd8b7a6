/*
 * What the files of faas/function share.
 */
#pragma once

#include "faas/function.h"

enum {
	MAX_PAIRS = 256,           /* entries of env, labels, annotations */
	MAX_STRINGS = 64,          /* constraints, secrets */
	MAX_TEXT = 32 * 1024,      /* bytes of one value */
	MAX_IMAGE = 512,           /* bytes of an image reference */
	MAX_STACK = 256,           /* functions in one file */
};

/** Read the annotations kiln.* and the scale labels of fn into its fields. Errors: EINVAL; ENOMEM */
kn_must_use int extras_read(struct kn_function *fn, struct kn_err *err);

/** The value of a name in pairs, or NULL. */
const char *pairs_get(const struct kn_pairs *pairs, const char *name);

/** The whole of kn_function_parse(); stored forms may have the field "kiln". */
kn_must_use int function_read(const json_t *o, bool stored, struct kn_function **ret,
                              struct kn_err *err);
