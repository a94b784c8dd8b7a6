/*
 * YAML configuration as JSON values, so that one set of readers (base/json.h) checks both. Takes
 * the YAML 1.2 core schema; refuses aliases (a bomb otherwise), tags, duplicate keys, several
 * documents and more than KN_JSON_DEPTH levels. Used by kilnd, kiln and kiln-nf; never linked into
 * the monitor or the agent.
 *
 * Thread  keeps no state.
 */
#pragma once

#include "base/json.h"

/**
 * Parse YAML text. Plain scalars become null, booleans, integers or reals; quoted ones stay strings.
 *
 * name    what to call the text in errors: "stack.yaml:12:3: ..."
 * ret     a new reference
 * Errors  EINVAL with line and column; ENOMEM
 */
kn_must_use int kn_yaml_parse(struct kn_view text, const char *name, json_t **ret,
                              struct kn_err *err);

/** The same of a file of at most 1 MiB. Errors: what open and read said, too. */
kn_must_use int kn_yaml_load(const char *path, json_t **ret, struct kn_err *err);
