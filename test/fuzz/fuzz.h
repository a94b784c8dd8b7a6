/* What every fuzz target includes. A target must return 0 and leave no memory behind. */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/str.h"

/** libFuzzer's entry: one input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Checks what must hold whatever the input is; unlike assert it cannot be compiled out. */
#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

static inline struct kn_view fuzz_view(const uint8_t *data, size_t size)
{
	return (struct kn_view){ (const char *)data, size };
}
