#include "base/time.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

/* Only single-threaded tests write these. */
static bool fake;
static uint64_t fake_mono_ns, fake_wall_ns;

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * KN_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t kn_now_ns(void)
{
	return fake ? fake_mono_ns : read_clock(CLOCK_MONOTONIC);
}

uint64_t kn_wall_ns(void)
{
	return fake ? fake_wall_ns : read_clock(CLOCK_REALTIME);
}

uint64_t kn_cpu_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

#if defined(__x86_64__)

struct tsc_sample {
	uint64_t ns, ticks;
};

/* Both clocks at one moment: of several pairs the one that took least, so that nothing came between. */
static struct tsc_sample read_both(void)
{
	struct tsc_sample best = { 0 };
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 32; i++) {
		uint64_t before = __rdtsc();
		uint64_t ns = read_clock(CLOCK_MONOTONIC_RAW);
		uint64_t took = __rdtsc() - before;
		if (took >= least)
			continue;
		least = took;
		best = (struct tsc_sample){ .ns = ns, .ticks = before + took / 2 };
	}
	return best;
}

uint64_t kn_tsc_khz(void)
{
	static const struct timespec pause = { .tv_nsec = 20 * (long)KN_NS_PER_MS };
	static _Atomic uint64_t known;
	uint64_t khz = atomic_load(&known);

	if (khz)
		return khz;
	struct tsc_sample from = read_both();
	nanosleep(&pause, NULL);
	struct tsc_sample to = read_both();
	if (to.ns > from.ns)
		khz = (to.ticks - from.ticks) * KN_NS_PER_MS / (to.ns - from.ns);
	atomic_store(&known, khz);
	return khz;
}

#else

uint64_t kn_tsc_khz(void)
{
	return 0;
}

#endif

void kn_fake_clock(uint64_t mono_ns, uint64_t wall_ns)
{
	fake = true;
	fake_mono_ns = mono_ns;
	fake_wall_ns = wall_ns;
}

void kn_fake_advance(uint64_t ns)
{
	fake_mono_ns += ns;
	fake_wall_ns += ns;
}

void kn_real_clock(void)
{
	fake = false;
}
