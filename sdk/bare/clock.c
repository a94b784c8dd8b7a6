/*
 * Time without asking anybody: the monitor writes both clocks whenever it lets the guest in after
 * waiting, and the time stamp counter tells what passed since.
 */
#include "bare_internal.h"

static uint64_t base_tsc, base_mono, base_wall, last;
static uint64_t ns_per_tick;               /* scaled by 2^32 */
static uint32_t seen;

static uint64_t ticks(void)
{
	uint32_t low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

void kiln_clock_entered(void)
{
	const volatile struct kn_bare_info *info = kiln_info;

	if (info->entries == seen)
		return;
	seen = info->entries;
	base_tsc = ticks();
	base_mono = info->mono_ns;
	base_wall = info->wall_ns;
	if (!ns_per_tick && info->tsc_khz)
		ns_per_tick = (UINT64_C(1000000) << 32) / info->tsc_khz;
}

static uint64_t since_entry(void)
{
	return (uint64_t)((unsigned __int128)(ticks() - base_tsc) * ns_per_tick >> 32);
}

uint64_t kiln_now_ns(void)
{
	uint64_t now = base_mono + since_entry();
	if (now > last)
		last = now;
	return last;
}

uint64_t kiln_wall_ns(void)
{
	return base_wall + since_entry();
}
