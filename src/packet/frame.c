#include "packet/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64 };

struct kn_pool {
	uint32_t size, available;
	uint32_t frame_bytes;
	size_t stride; /* bytes between buffers; an odd number of lines */
	uint8_t *buffers;
	struct kn_frame *frames;
	struct kn_offload *offloads; /* one a frame, or NULL */
	struct kn_frame **free; /* a stack: the warmest frame is on top */
};

static size_t buffer_stride(uint32_t frame_bytes)
{
	size_t lines = (KN_FRAME_HEADROOM + (size_t)frame_bytes) / LINE;

	return (lines | 1) * LINE;
}

static uint8_t *buffer_of(const struct kn_pool *pool, const struct kn_frame *frame)
{
	return pool->buffers + (size_t)(frame - pool->frames) * pool->stride;
}

static void stock(struct kn_pool *pool)
{
	for (uint32_t i = 0; i < pool->size; i++) {
		pool->frames[i].pool = pool;
		/* Highest last: the first frames taken are neighbours in rising order. */
		pool->free[i] = &pool->frames[pool->size - 1 - i];
	}
	pool->available = pool->size;
}

static int check(const struct kn_pool_config *config, struct kn_err *err)
{
	if (config->frames == 0 || config->frames > KN_POOL_FRAMES_MAX)
		return kn_fail(err, EINVAL, "a pool holds 1 to %d frames, not %u",
			       KN_POOL_FRAMES_MAX, config->frames);
	if (config->frame_bytes < KN_FRAME_BYTES_MIN || config->frame_bytes > KN_FRAME_BYTES_MAX)
		return kn_fail(err, EINVAL, "a frame's buffer has %d to %d bytes, not %u",
			       KN_FRAME_BYTES_MIN, KN_FRAME_BYTES_MAX, config->frame_bytes);
	return 0;
}

int kn_pool_new(const struct kn_pool_config *config, struct kn_pool **ret, struct kn_err *err)
{
	int r = check(config, err);
	if (r < 0)
		return r;

	kn_auto(kn_pool_free) struct kn_pool *pool = calloc(1, sizeof(*pool));
	if (!pool)
		return kn_fail(err, ENOMEM, "no memory for a frame pool");
	pool->size = config->frames;
	pool->frame_bytes = (config->frame_bytes + LINE - 1) / LINE * LINE;
	pool->stride = buffer_stride(pool->frame_bytes);
	pool->frames = aligned_alloc(LINE, (sizeof(struct kn_frame) * pool->size + LINE - 1) /
						   LINE * LINE);
	pool->free = calloc(pool->size, sizeof(*pool->free));
	pool->buffers = aligned_alloc(LINE, pool->stride * pool->size);
	if (config->offload)
		pool->offloads = calloc(pool->size, sizeof(*pool->offloads));
	if (!pool->frames || !pool->free || !pool->buffers || (config->offload && !pool->offloads))
		return kn_fail(err, ENOMEM, "no memory for %u frames of %u bytes", pool->size,
			       pool->frame_bytes);
	memset(pool->frames, 0, sizeof(struct kn_frame) * pool->size);
	memset(pool->buffers, 0, pool->stride * pool->size);
	stock(pool);
	*ret = kn_take_ptr(pool);
	return 0;
}

void kn_pool_free(struct kn_pool *pool)
{
	if (!pool)
		return;
	free(pool->offloads);
	free(pool->buffers);
	free(pool->free);
	free(pool->frames);
	free(pool);
}

uint32_t kn_pool_frame_bytes(const struct kn_pool *pool)
{
	return pool->frame_bytes;
}

uint32_t kn_pool_available(const struct kn_pool *pool)
{
	return pool->available;
}

uint32_t kn_pool_size(const struct kn_pool *pool)
{
	return pool->size;
}

uint32_t kn_pool_take(struct kn_pool *pool, uint32_t n, struct kn_frame **ret)
{
	n = kn_min(n, pool->available);
	for (uint32_t i = 0; i < n; i++) {
		struct kn_frame *frame = pool->free[--pool->available];
		*frame = (struct kn_frame){ .data = buffer_of(pool, frame) + KN_FRAME_HEADROOM,
					    .pool = pool };
		ret[i] = frame;
	}
	return n;
}

void kn_frames_put(struct kn_frame *const *frames, uint32_t n)
{
	for (uint32_t i = 0; i < n;) {
		/* A run from one pool, which is nearly always all of them. */
		struct kn_pool *pool = frames[i]->pool;
		struct kn_frame **top = pool->free + pool->available;
		do
			*top++ = frames[i++];
		while (i < n && frames[i]->pool == pool);
		pool->available = (uint32_t)(top - pool->free);
	}
}

uint32_t kn_frame_room(const struct kn_frame *frame)
{
	const struct kn_pool *pool = frame->pool;
	const uint8_t *end = buffer_of(pool, frame) + KN_FRAME_HEADROOM + pool->frame_bytes;

	return (uint32_t)(end - frame->data);
}

struct kn_offload *kn_frame_offload(const struct kn_frame *frame)
{
	const struct kn_pool *pool = frame->pool;

	return pool->offloads ? &pool->offloads[frame - pool->frames] : NULL;
}

bool kn_frame_fill(struct kn_frame *frame, const void *ptr, uint32_t len)
{
	if (len > kn_frame_room(frame))
		return false;
	if (len)
		memcpy(frame->data, ptr, len);
	frame->len = frame->wire_len = len;
	struct kn_offload *offload = kn_frame_offload(frame);
	if (offload)
		*offload = (struct kn_offload){ 0 };
	return true;
}
