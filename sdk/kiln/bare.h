/*
 * Kiln's SDK for bare functions: a C program that runs in a microVM of its own with no kernel
 * below it and no C library beside it. Include this header, write kiln_handle(), and build with
 *
 *     kiln build function.c -o function.oci.tar --name function:1
 *
 * The program starts in some hundred microseconds, keeps its global variables between requests, and
 * serves one request at a time. A crash, an endless loop or use of more memory than granted ends
 * this instance alone; the report names address and registers.
 *
 * Rules of the place: no system calls, no threads, no files. Floating point with SSE2 is there
 * (AVX is not). The stack has 64 KiB unless `kiln build --stack` says otherwise.
 */
#ifndef KILN_BARE_H
#define KILN_BARE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- requests and replies ------------------------------------------------------------------ */

/** Bytes that somebody else owns; not NUL-terminated. */
struct kiln_bytes {
	const char *ptr;
	size_t len;
};

/** One request. Everything is valid until kiln_handle() returns. */
struct kiln_request {
	struct kiln_bytes method;        /* "POST" */
	struct kiln_bytes path;          /* what follows the function's name, with the query: "/a?b=1" */
	struct kiln_bytes content_type;  /* empty when the caller gave none */
	struct kiln_bytes call_id;       /* names this invocation in logs */
	struct kiln_bytes body;
};

struct kiln_reply;

/** You write this one. What it puts into the reply is sent when it returns. */
void kiln_handle(const struct kiln_request *request, struct kiln_reply *reply);

/** Runs once before the first request. Optional: the library's own does nothing. */
void kiln_start(void);

/** HTTP status of the reply, 200 to 599; 200 when never called. */
void kiln_reply_status(struct kiln_reply *r, int status);

/** Content type, copied; "application/octet-stream" when never called. */
void kiln_reply_type(struct kiln_reply *r, const char *content_type);

/**
 * Append to the body. Returns false when the reply is full (the instance's limit); what did not
 * fit is not sent, and the reply becomes 500 with a message that says so.
 */
bool kiln_reply_add(struct kiln_reply *r, const void *ptr, size_t len);

/** The same with text, and with printf's conversions as kiln_snprintf() knows them. */
bool kiln_reply_adds(struct kiln_reply *r, const char *text);
bool kiln_reply_printf(struct kiln_reply *r, const char *fmt, ...)
        __attribute__((format(printf, 2, 3)));

/**
 * Write the body in place: room for up to *ret_len bytes right behind what was added so far.
 * kiln_reply_grow() then says how many of them were used.
 */
void *kiln_reply_room(struct kiln_reply *r, size_t *ret_len);
bool kiln_reply_grow(struct kiln_reply *r, size_t used);

/**
 * The value of key in the path's query ("/x?key=value"), undecoded. False when it is not there.
 */
bool kiln_query(const struct kiln_request *request, const char *key, struct kiln_bytes *ret);

/* ---- log and clock ------------------------------------------------------------------------- */

/** One line of log; at most 240 bytes, longer lines are cut. Never blocks: lines may be lost. */
void kiln_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** Monotonic time in nanoseconds; never goes back. */
uint64_t kiln_now_ns(void);

/** Wall-clock time in nanoseconds since 1970, as of the host. */
uint64_t kiln_wall_ns(void);

/** End the instance: 0 is a clean end, anything else a failure that is reported. */
_Noreturn void kiln_exit(int code);

/* ---- memory -------------------------------------------------------------------------------- */

/** Zeroed memory, aligned to 16, that is given back when kiln_handle() returns. NULL: none left. */
void *kiln_alloc(size_t bytes);

/** Memory that lives until kiln_free(), across requests; aligned to 16. NULL: none left. */
void *kiln_malloc(size_t bytes);
void *kiln_realloc(void *ptr, size_t bytes);
void kiln_free(void *ptr);

/** Bytes of heap that nobody uses, in one piece. */
size_t kiln_memory_left(void);

/* ---- what a C program expects -------------------------------------------------------------- */

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *memchr(const void *p, int byte, size_t n);
size_t strlen(const char *s);
size_t strnlen(const char *s, size_t max);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strchr(const char *s, int c);

/**
 * printf into a buffer: %d %i %u %x %X %o %c %s %p %f %g %e %% with flags, width, precision and
 * the length marks hh h l ll z j t. Always NUL-terminated when n > 0. Returns the length that the
 * whole text has.
 */
int kiln_snprintf(char *buf, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int kiln_vsnprintf(char *buf, size_t n, const char *fmt, va_list ap);

/**
 * Read a decimal number ("-12.5e3") at the start of [*p, end). Moves *p past it.
 * False, and *p stays, when there is none or it is not finite.
 */
bool kiln_parse_double(const char **p, const char *end, double *ret);

/** The same for whole numbers without a sign; false on overflow. */
bool kiln_parse_u64(const char **p, const char *end, uint64_t *ret);

#endif
