/*
 * Frames and the pools they live in. A pool is one block of memory: a dense array of small
 * descriptors, and the buffers apart from them. A frame never moves while the pool lives; stages
 * hand pointers on. Pools are small on purpose, so that the buffers in flight stay in the second
 * level cache: measured on a shared EPYC (2026-11), the same function costs 4.8 ns a frame over 2k
 * buffers and 14.7 ns over 64k.
 *
 * Two details of the layout are there for the cache. The distance between buffers is an odd number
 * of cache lines: with a power of two all headers would fall into the same few cache sets.
 * Descriptors are 32 bytes side by side, so that walking them is what the prefetcher likes.
 *
 * Thread  a pool and its frames belong to one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

struct kn_pool;

struct kn_frame {
	uint8_t *data;	      /* first byte of the Ethernet header; inside the frame's own buffer */
	uint32_t len;	      /* bytes at data; at most the pool's frame_bytes */
	uint32_t wire_len;    /* bytes that were on the wire; more than len in a cut capture */
	uint64_t ts_ns;	      /* when it was received, CLOCK_REALTIME; 0 when unknown */
	struct kn_pool *pool; /* where kn_frames_put() brings it */
};

/*
 * What the sender left to the interface to do: finish a checksum, cut a frame of many segments
 * apart. Frames of hosts beside us (veth, TAP, a NIC that joins segments) come so, and may go on so.
 * All zero: nothing. Laid out as the kernel's struct virtio_net_hdr.
 */
struct kn_offload {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size;
	uint16_t csum_start, csum_offset; /* from data; from csum_start */
};

enum {
	KN_FRAME_HEADROOM = 128, /* bytes in front of data for headers put on later */
	KN_FRAME_BYTES = 2048,	 /* default room for data */
	KN_FRAME_BYTES_MIN = 64,
	KN_FRAME_BYTES_MAX = 262144, /* what libpcap calls the largest snapshot */
	KN_POOL_FRAMES = 2048,	     /* default count */
	KN_POOL_FRAMES_MAX = 1 << 20,
};

struct kn_pool_config {
	uint32_t frames;      /* 1 to KN_POOL_FRAMES_MAX */
	uint32_t frame_bytes; /* KN_FRAME_BYTES_MIN to KN_FRAME_BYTES_MAX; rounded up to a line */
	bool offload;	      /* frames can carry a kn_offload */
};

#define KN_POOL_DEFAULTS                                                                           \
	((struct kn_pool_config){ .frames = KN_POOL_FRAMES, .frame_bytes = KN_FRAME_BYTES })

/**
 * Make a pool with all frames free.
 *
 * ret     a pool; kn_pool_free() it after every port and pipeline that holds its frames
 *
 * Errors  EINVAL outside the bounds above; ENOMEM
 */
kn_must_use int kn_pool_new(const struct kn_pool_config *config, struct kn_pool **ret,
			    struct kn_err *err);

/** Release the memory, frames that are still out included. NULL is fine. */
void kn_pool_free(struct kn_pool *pool);
KN_AUTO(kn_pool_free, struct kn_pool *);

/** Room for data in each frame, headroom not counted. */
uint32_t kn_pool_frame_bytes(const struct kn_pool *pool);

/** Frames that are free now; all of them when nothing is lost. */
uint32_t kn_pool_available(const struct kn_pool *pool);

/** Frames that the pool was made with. */
uint32_t kn_pool_size(const struct kn_pool *pool);

/**
 * Take up to n free frames. Their data starts behind the headroom, their lengths are 0; the bytes
 * are whatever the last owner left there.
 *
 * Returns how many were taken; the caller owns them: kn_frames_put() or a port's tx.
 */
uint32_t kn_pool_take(struct kn_pool *pool, uint32_t n, struct kn_frame **ret);

/** Give n frames back, each to its own pool. The last one given is the next one out. */
void kn_frames_put(struct kn_frame *const *frames, uint32_t n);

/** Bytes that fit between data and the end of the frame's buffer. */
uint32_t kn_frame_room(const struct kn_frame *frame);

/**
 * What is left to do to the frame; the receiving port writes it for every frame. NULL when the pool
 * keeps none, which means: nothing.
 */
struct kn_offload *kn_frame_offload(const struct kn_frame *frame);

/**
 * Copy bytes into a frame, as received: len and wire_len are set, nothing is left to do to it.
 *
 * Returns false, and leaves the frame alone, when len is more than kn_frame_room().
 */
bool kn_frame_fill(struct kn_frame *frame, const void *ptr, uint32_t len);
