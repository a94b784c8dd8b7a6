/* Private to oci/guest: what its parts share. */
#pragma once

#include "base/err.h"

/**
 * Load the drivers that /modules/LIST names, a file a line, each after those that it needs. A kernel
 * that has all built in has no such folder.
 */
int guest_load_modules(const char *list, struct kn_err *err);
