/*
 * The memory port: a ring of frame pointers whose capacity is a power of two. head and tail only
 * grow; their difference is what is inside.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "packet/port/kinds.h"

struct memory {
	struct kn_port port;
	struct kn_frame **ring;
	uint32_t mask;	     /* slots - 1 */
	uint32_t capacity;   /* at most slots */
	uint32_t head, tail; /* next to come out; next free */
};

static struct memory *memory_of(struct kn_port *port)
{
	return kn_container_of(port, struct memory, port);
}

uint32_t kn_port_memory_push(struct kn_port *port, struct kn_frame *const *frames, uint32_t n)
{
	struct memory *m = memory_of(port);

	n = kn_min(n, m->capacity - (m->tail - m->head));
	for (uint32_t i = 0; i < n; i++)
		m->ring[m->tail++ & m->mask] = frames[i];
	if (n)
		port->ended = false;
	return n;
}

uint32_t kn_port_memory_pull(struct kn_port *port, struct kn_frame **ret, uint32_t n)
{
	struct memory *m = memory_of(port);

	n = kn_min(n, m->tail - m->head);
	for (uint32_t i = 0; i < n; i++)
		ret[i] = m->ring[m->head++ & m->mask];
	return n;
}

static int memory_rx(struct kn_port *port, struct kn_batch *b)
{
	struct memory *m = memory_of(port);
	struct kn_frame *const *ring = m->ring;
	uint32_t n = kn_min((uint32_t)KN_BATCH, m->tail - m->head), head = m->head, mask = m->mask;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct kn_frame *f = ring[head++ & mask];
		b->frame[i] = f;
		bytes += f->wire_len;
	}
	m->head = head;
	b->n = n;
	b->live = kn_lanes_first(n);
	port->rx.frames += n;
	port->rx.bytes += bytes;
	port->ended = n == 0;
	return (int)n;
}

static kn_lanes memory_tx(struct kn_port *port, struct kn_batch *b, kn_lanes lanes)
{
	struct memory *m = memory_of(port);
	struct kn_frame **ring = m->ring;
	uint32_t room = m->capacity - (m->tail - m->head), tail = m->tail, mask = m->mask;
	uint64_t bytes = 0;

	while (__builtin_expect(kn_lanes_count(lanes) > room, 0))
		lanes &= ~kn_lane(31 - (uint32_t)__builtin_clz(lanes));
	kn_each_lane(i, lanes)
	{
		struct kn_frame *f = b->frame[i];
		ring[tail++ & mask] = f;
		bytes += f->wire_len;
	}
	port->tx.frames += tail - m->tail;
	port->tx.bytes += bytes;
	m->tail = tail;
	port->ended = false;
	return lanes;
}

static void memory_close(struct kn_port *port)
{
	struct memory *m = memory_of(port);

	for (; m->head != m->tail; m->head++)
		kn_frames_put(&m->ring[m->head & m->mask], 1);
	free(m->ring);
	free(m);
}

static const struct kn_port_ops memory_ops = {
	.kind = "memory",
	.rx = memory_rx,
	.tx = memory_tx,
	.close = memory_close,
};

int kn_port_memory_new(uint32_t capacity, struct kn_port **ret, struct kn_err *err)
{
	uint32_t slots = 1;

	if (capacity == 0 || capacity > KN_POOL_FRAMES_MAX)
		return kn_fail(err, EINVAL, "a memory port holds 1 to %d frames, not %u",
			       KN_POOL_FRAMES_MAX, capacity);
	while (slots < capacity)
		slots *= 2;
	struct memory *m = calloc(1, sizeof(*m));
	struct kn_frame **ring = calloc(slots, sizeof(*ring));
	if (!m || !ring) {
		free(m);
		free(ring);
		return kn_fail(err, ENOMEM, "no memory for a memory port");
	}
	*m = (struct memory){ .ring = ring, .mask = slots - 1, .capacity = capacity };
	kn_port_setup(&m->port, &memory_ops);
	*ret = &m->port;
	return 0;
}
