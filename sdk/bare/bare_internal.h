/* What the files of the library share. */
#pragma once

#include "kiln/bare.h"
#include "machine/abi.h"

struct kiln_reply {
	char *body;
	size_t room, len;          /* of the body */
	int status;
	uint16_t type_len;
	bool overflow;
	char type[256];
};

extern const struct kn_bare_info *kiln_info;

/* Take the clocks over; call right after the monitor wrote them. */
void kiln_clock_entered(void);

/* Heap over [at, at + bytes); both aligned to 16. */
void kiln_heap_init(void *at, size_t bytes);

/* Give back what kiln_alloc() handed out. */
void kiln_heap_end_request(void);

static inline void kiln_doorbell(enum kn_bare_call call, unsigned argument)
{
	__asm__ volatile("outl %%eax, %1"
	                 :
	                 : "a"((uint32_t)call | argument << 8), "i"(KN_BARE_PORT)
	                 : "memory");
}
