#include "test.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/ring.h"

enum { SIZE = 8 };

static struct kn_ring_shared *new_ring(uint32_t size)
{
	struct kn_ring_shared *shared = aligned_alloc(64, (kn_ring_bytes(size) + 63) & ~63ull);

	assert_non_null(shared);
	memset(shared, 0, kn_ring_bytes(size));
	return shared;
}

static struct kn_ring_desc desc(uint64_t i)
{
	return (struct kn_ring_desc){ .offset = i * 3, .len = (uint32_t)i, .tag = (uint32_t)~i };
}

static void what_is_put_comes_out_in_order(void **state)
{
	(void)state;
	kn_auto(kn_free) struct kn_ring_shared *shared = new_ring(SIZE);
	struct kn_ring in = kn_ring_at(shared, SIZE), out = kn_ring_at(shared, SIZE);
	struct kn_ring_desc d;

	assert_int_equal(kn_ring_take(&out, &d), KN_RING_EMPTY);
	for (uint64_t i = 0; i < SIZE; i++)
		assert_int_equal(kn_ring_put(&in, desc(i)), KN_RING_OK);
	assert_int_equal(kn_ring_put(&in, desc(99)), KN_RING_EMPTY);
	for (uint64_t i = 0; i < SIZE; i++) {
		assert_int_equal(kn_ring_take(&out, &d), KN_RING_OK);
		assert_int_equal(d.offset, i * 3);
		assert_int_equal(d.len, i);
		assert_int_equal(d.tag, (uint32_t)~i);
	}
	assert_int_equal(kn_ring_take(&out, &d), KN_RING_EMPTY);
	assert_int_equal(kn_ring_put(&in, desc(99)), KN_RING_OK);
}

/* The counters run freely and wrap at 2^32. */
static void counters_wrap(void **state)
{
	(void)state;
	kn_auto(kn_free) struct kn_ring_shared *shared = new_ring(SIZE);
	struct kn_ring in = kn_ring_at(shared, SIZE), out = kn_ring_at(shared, SIZE);
	struct kn_ring_desc d;

	in.mine = in.theirs = out.mine = out.theirs = UINT32_MAX - 3;
	atomic_store(&shared->head, UINT32_MAX - 3);
	atomic_store(&shared->tail, UINT32_MAX - 3);
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < SIZE; i++)
			assert_int_equal(kn_ring_put(&in, desc(i)), KN_RING_OK);
		assert_int_equal(kn_ring_put(&in, desc(0)), KN_RING_EMPTY);
		for (uint64_t i = 0; i < SIZE; i++) {
			assert_int_equal(kn_ring_take(&out, &d), KN_RING_OK);
			assert_int_equal(d.len, i);
		}
		assert_int_equal(kn_ring_take(&out, &d), KN_RING_EMPTY);
	}
	assert_true(in.mine < 64);
}

/* A peer that writes nonsense is found out, and never makes us touch memory outside the ring. */
static void hostile_head_is_broken(void **state)
{
	(void)state;
	static const uint32_t heads[] = { SIZE + 1, 1000, 1u << 31, UINT32_MAX };
	kn_auto(kn_free) struct kn_ring_shared *shared = new_ring(SIZE);

	for (size_t i = 0; i < KN_ARRAY_LEN(heads); i++) {
		struct kn_ring out = kn_ring_at(shared, SIZE);
		struct kn_ring_desc d;
		atomic_store(&shared->head, heads[i]);
		for (int again = 0; again < 3; again++)
			assert_int_equal(kn_ring_take(&out, &d), KN_RING_BROKEN);
		assert_int_equal(atomic_load(&shared->tail), 0);
	}
}

static void hostile_tail_is_broken(void **state)
{
	(void)state;
	static const uint32_t tails[] = { SIZE + 1, 1u << 31, UINT32_MAX };

	for (size_t i = 0; i < KN_ARRAY_LEN(tails); i++) {
		kn_auto(kn_free) struct kn_ring_shared *shared = new_ring(SIZE);
		struct kn_ring in = kn_ring_at(shared, SIZE);
		for (uint64_t k = 0; k < SIZE; k++)
			assert_int_equal(kn_ring_put(&in, desc(k)), KN_RING_OK);
		atomic_store(&shared->tail, tails[i]);
		for (int again = 0; again < 3; again++)
			assert_int_equal(kn_ring_put(&in, desc(9)), KN_RING_BROKEN);
		assert_int_equal(atomic_load(&shared->head), SIZE);
	}
}

/* Entries that were taken cannot be taken back. */
static void hostile_head_that_jumps_back_is_broken(void **state)
{
	(void)state;
	kn_auto(kn_free) struct kn_ring_shared *shared = new_ring(SIZE);
	struct kn_ring out = kn_ring_at(shared, SIZE);
	struct kn_ring_desc d;

	atomic_store(&shared->head, 2);
	assert_int_equal(kn_ring_take(&out, &d), KN_RING_OK);
	assert_int_equal(kn_ring_take(&out, &d), KN_RING_OK);
	atomic_store(&shared->head, 1);
	assert_int_equal(kn_ring_take(&out, &d), KN_RING_BROKEN);
}

static void sleeper_is_seen_and_work_is_not_slept_over(void **state)
{
	(void)state;
	kn_auto(kn_free) struct kn_ring_shared *shared = new_ring(SIZE);
	struct kn_ring in = kn_ring_at(shared, SIZE), out = kn_ring_at(shared, SIZE);

	assert_false(kn_ring_must_wake(&in));
	assert_true(kn_ring_sleep(&out));
	assert_int_equal(kn_ring_put(&in, desc(1)), KN_RING_OK);
	assert_true(kn_ring_must_wake(&in));
	kn_ring_awake(&out);
	assert_false(kn_ring_must_wake(&in));
	assert_false(kn_ring_sleep(&out));       /* something is there */
	assert_false(kn_ring_must_wake(&in));    /* and the flag was taken back */
}

enum { MANY = 200000 };

struct side {
	struct kn_ring ring;
	uint64_t wrong;
};

static void *produce(void *arg)
{
	struct side *s = arg;

	for (uint64_t i = 0; i < MANY; i++)
		while (kn_ring_put(&s->ring, desc(i)) != KN_RING_OK)
			sched_yield();
	return NULL;
}

static void *consume(void *arg)
{
	struct side *s = arg;

	for (uint64_t i = 0; i < MANY; i++) {
		struct kn_ring_desc d;
		while (kn_ring_take(&s->ring, &d) != KN_RING_OK)
			sched_yield();
		s->wrong += d.offset != i * 3 || d.len != (uint32_t)i || d.tag != (uint32_t)~i;
	}
	return NULL;
}

static void two_threads_lose_and_invent_nothing(void **state)
{
	(void)state;
	kn_auto(kn_free) struct kn_ring_shared *shared = new_ring(SIZE);
	struct side in = { kn_ring_at(shared, SIZE), 0 }, out = in;
	pthread_t producer, consumer;

	assert_int_equal(pthread_create(&producer, NULL, produce, &in), 0);
	assert_int_equal(pthread_create(&consumer, NULL, consume, &out), 0);
	pthread_join(producer, NULL);
	pthread_join(consumer, NULL);
	assert_int_equal(out.wrong, 0);
	assert_int_equal(atomic_load(&shared->head), MANY);
	assert_int_equal(atomic_load(&shared->tail), MANY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_put_comes_out_in_order),
		cmocka_unit_test(counters_wrap),
		cmocka_unit_test(hostile_head_is_broken),
		cmocka_unit_test(hostile_tail_is_broken),
		cmocka_unit_test(hostile_head_that_jumps_back_is_broken),
		cmocka_unit_test(sleeper_is_seen_and_work_is_not_slept_over),
		cmocka_unit_test(two_threads_lose_and_invent_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
