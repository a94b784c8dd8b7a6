/*
 * What `kiln login` keeps: the node that was used last and, per node, the client and its token, in
 * $KILN_CONFIG or $XDG_CONFIG_HOME/kiln/config.json (mode 0600). A token is only ever sent to the
 * node that it was got from.
 *
 * Thread  one
 */
#pragma once

#include "base/json.h"

/**
 * Where the file is, into out.
 * Errors  ENOENT neither KILN_CONFIG, XDG_CONFIG_HOME nor HOME is set; ENAMETOOLONG
 */
enum { KN_CONFIG_PATH = 4096 };
kn_must_use int kn_config_path(char out[KN_CONFIG_PATH], struct kn_err *err);

/**
 * Read it; a missing file gives an empty object.
 *
 * ret     a new reference
 * Errors  EPERM others may read it; EINVAL it is damaged; what open and read said
 */
kn_must_use int kn_config_load(json_t **ret, struct kn_err *err);

/** Replace it, making its folder. Errors: what the file system said. */
kn_must_use int kn_config_save(const json_t *config, struct kn_err *err);

/** The record of a node, borrowed; NULL when there was no login to it. */
json_t *kn_config_node(const json_t *config, const char *gateway);

/** The record of a node, made when it is missing; NULL when memory is out. Borrowed. */
json_t *kn_config_node_make(json_t *config, const char *gateway);
