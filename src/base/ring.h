/*
 * Single-producer single-consumer rings in memory that two parties share who do not trust each
 * other: host, monitor and bare guest (the SDK includes this header without libc). A ring is an
 * array of fixed-size descriptors with two free-running 32-bit counters, each on its own cache
 * line; data stays in a frame area that descriptors point into. The shape is AF_XDP's.
 *
 * Nothing that the peer writes is believed: counters are read once, and a distance larger than the
 * ring is reported as broken instead of used.
 *
 * Thread  one producer and one consumer, each on any CPU; acquire and release order the data.
 * Source  Linux Documentation/networking/af_xdp.rst for the shape
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct kn_ring_desc {
	uint64_t offset;      /* of the data inside the frame area, bytes */
	uint32_t len;         /* bytes */
	uint32_t tag;         /* meaning belongs to the user of the ring */
};

/** Lies in shared memory: fixed layout, no pointers. */
struct kn_ring_shared {
	_Alignas(64) _Atomic uint32_t head;   /* written by the producer */
	_Alignas(64) _Atomic uint32_t tail;   /* written by the consumer */
	_Alignas(64) _Atomic uint32_t sleeping; /* consumer waits for a doorbell: 1 */
	_Alignas(64) struct kn_ring_desc desc[];
};

/** One side's private handle. size is a power of two and never read from shared memory. */
struct kn_ring {
	struct kn_ring_shared *shared;
	uint32_t size;
	uint32_t mine;        /* my counter, private copy */
	uint32_t theirs;      /* last value seen of the peer's */
};

static inline uint64_t kn_ring_bytes(uint32_t size)
{
	return sizeof(struct kn_ring_shared) + (uint64_t)size * sizeof(struct kn_ring_desc);
}

/** Attach to a zeroed or live ring as one of its sides. */
static inline struct kn_ring kn_ring_at(void *shared, uint32_t size)
{
	return (struct kn_ring){ .shared = (struct kn_ring_shared *)shared, .size = size };
}

enum { KN_RING_BROKEN = -1, KN_RING_EMPTY = 0, KN_RING_OK = 1 };

/** Producer: put one descriptor. KN_RING_OK, KN_RING_EMPTY when full, KN_RING_BROKEN. */
static inline int kn_ring_put(struct kn_ring *r, struct kn_ring_desc d)
{
	if (r->mine - r->theirs == r->size) {
		uint32_t tail = atomic_load_explicit(&r->shared->tail, memory_order_acquire);
		if (r->mine - tail > r->size)
			return KN_RING_BROKEN;
		r->theirs = tail;
		if (r->mine - tail == r->size)
			return KN_RING_EMPTY;
	}
	r->shared->desc[r->mine & (r->size - 1)] = d;
	atomic_store_explicit(&r->shared->head, ++r->mine, memory_order_release);
	return KN_RING_OK;
}

/** Consumer: take one descriptor, copied out before it is looked at. */
static inline int kn_ring_take(struct kn_ring *r, struct kn_ring_desc *ret)
{
	if (r->mine == r->theirs) {
		uint32_t head = atomic_load_explicit(&r->shared->head, memory_order_acquire);
		if (head - r->mine > r->size)
			return KN_RING_BROKEN;
		r->theirs = head;
		if (head == r->mine)
			return KN_RING_EMPTY;
	}
	volatile const struct kn_ring_desc *d = &r->shared->desc[r->mine & (r->size - 1)];
	ret->offset = d->offset;
	ret->len = d->len;
	ret->tag = d->tag;
	atomic_store_explicit(&r->shared->tail, ++r->mine, memory_order_release);
	return KN_RING_OK;
}

/**
 * Producer, after putting: must the peer be woken? Full barrier between head and sleeping, the
 * other half of which is in kn_ring_sleep().
 */
static inline bool kn_ring_must_wake(struct kn_ring *r)
{
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&r->shared->sleeping, memory_order_relaxed) != 0;
}

/** Consumer: announce sleep. True when the ring is still empty, so that sleeping is right. */
static inline bool kn_ring_sleep(struct kn_ring *r)
{
	atomic_store_explicit(&r->shared->sleeping, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&r->shared->head, memory_order_acquire) == r->mine)
		return true;
	atomic_store_explicit(&r->shared->sleeping, 0, memory_order_relaxed);
	return false;
}

static inline void kn_ring_awake(struct kn_ring *r)
{
	atomic_store_explicit(&r->shared->sleeping, 0, memory_order_relaxed);
}
