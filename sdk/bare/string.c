/* What compilers call by themselves, and the rest of <string.h> that programs expect. */
#include "bare_internal.h"

typedef long long words __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t word __attribute__((aligned(1), may_alias));

/* From this size on the processor's own loop is as fast as any. */
#define REP_BYTES 512

/* Up to 16 bytes as two pieces that may overlap; every byte is read before one is written. */
static void move_small(char *to, const char *from, size_t n)
{
	if (n >= 8) {
		word a = *(const word *)from, b = *(const word *)(from + n - 8);
		*(word *)to = a;
		*(word *)(to + n - 8) = b;
		return;
	}
	if (n >= 4) {
		typedef uint32_t half __attribute__((aligned(1), may_alias));
		half a = *(const half *)from, b = *(const half *)(from + n - 4);
		*(half *)to = a;
		*(half *)(to + n - 4) = b;
		return;
	}
	if (n) {
		char a = from[0], b = from[n / 2], c = from[n - 1];
		to[0] = a;
		to[n / 2] = b;
		to[n - 1] = c;
	}
}

static void move_up(char *to, const char *from, size_t n)
{
	words last = *(const words *)(from + n - 16);
	char *last_to = to + n - 16;

	for (; n > 16; n -= 16, to += 16, from += 16)
		*(words *)to = *(const words *)from;
	*(words *)last_to = last;
}

static void move_down(char *to, const char *from, size_t n)
{
	words first = *(const words *)from;

	for (; n > 16; n -= 16)
		*(words *)(to + n - 16) = *(const words *)(from + n - 16);
	*(words *)to = first;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	void *ret = to;

	if (n < 16)
		move_small(to, from, n);
	else if (n < REP_BYTES)
		move_up(to, from, n);
	else
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return ret;
}

void *memmove(void *to, const void *from, size_t n)
{
	if (n < 16)
		move_small(to, from, n);
	else if ((uintptr_t)to - (uintptr_t)from >= n)
		memcpy(to, from, n);
	else
		move_down(to, from, n);
	return to;
}

void *memset(void *to, int byte, size_t n)
{
	void *ret = to;
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
	return ret;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const unsigned char *x = a, *y = b;

	for (; n >= 8 && *(const word *)x == *(const word *)y; n -= 8, x += 8, y += 8)
		;
	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x < *y ? -1 : 1;
	return 0;
}

void *memchr(const void *p, int byte, size_t n)
{
	const unsigned char *c = p;

	for (; n; n--, c++)
		if (*c == (unsigned char)byte)
			return (void *)(uintptr_t)c;
	return NULL;
}

size_t strnlen(const char *s, size_t max)
{
	const char *nul = memchr(s, 0, max);
	return nul ? (size_t)(nul - s) : max;
}

size_t strlen(const char *s)
{
	const char *p = s;
	while (*p)
		p++;
	return (size_t)(p - s);
}

int strncmp(const char *a, const char *b, size_t n)
{
	for (; n; n--, a++, b++)
		if (*a != *b || !*a)
			return (unsigned char)*a - (unsigned char)*b;
	return 0;
}

int strcmp(const char *a, const char *b)
{
	return strncmp(a, b, SIZE_MAX);
}

char *strchr(const char *s, int c)
{
	for (;; s++) {
		if (*s == (char)c)
			return (char *)(uintptr_t)s;
		if (!*s)
			return NULL;
	}
}
