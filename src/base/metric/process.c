#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/metric.h"
#include "base/time.h"

/* Fields of /proc/self/stat by their numbers in proc_pid_stat(5). */
enum { THREADS = 20, START_TIME = 22, VIRTUAL_BYTES = 23, RESIDENT_PAGES = 24, FIELDS };

static bool read_stat(uint64_t ret[FIELDS])
{
	kn_auto(kn_close) int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	char text[1024];

	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (len <= 0)
		return false;
	text[len] = '\0';
	char *at = strrchr(text, ')');   /* a program's name may hold blanks */
	for (size_t i = 3; at && i < FIELDS; i++) {
		at = strchr(at + 1, ' ');
		ret[i] = at ? strtoull(at + 1, NULL, 10) : 0;
	}
	return at != NULL;
}

static size_t open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	size_t n = 0;

	if (!d)
		return 0;
	for (const struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n - 1;   /* not the one that reads the folder */
}

static void one(struct kn_buf *b, const char *name, const char *help, uint64_t value)
{
	kn_metric_family(b, name, KN_GAUGE, help);
	kn_metric_u64(b, name, NULL, 0, value);
}

static void print_cpu(struct kn_buf *b)
{
	static const char name[] = "process_cpu_seconds_total";
	struct rusage used;

	if (getrusage(RUSAGE_SELF, &used) < 0)
		return;
	uint64_t us = (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 +
	              (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
	kn_metric_family(b, name, KN_COUNTER, "CPU time of this process.");
	kn_metric_seconds(b, name, NULL, 0, us * KN_NS_PER_US);
}

/* The start is told in ticks since the machine booted. */
static void print_start(struct kn_buf *b, uint64_t ticks)
{
	static const char name[] = "process_start_time_seconds";
	struct timespec up;

	if (clock_gettime(CLOCK_BOOTTIME, &up) < 0)
		return;
	uint64_t boot = (uint64_t)up.tv_sec * KN_NS_PER_S + (uint64_t)up.tv_nsec;
	uint64_t began = ticks * (KN_NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
	uint64_t age = boot > began ? boot - began : 0;
	kn_metric_family(b, name, KN_GAUGE, "When this process started, since 1970.");
	kn_metric_seconds(b, name, NULL, 0, kn_wall_ns() - age);
}

void kn_metric_process(struct kn_buf *b)
{
	uint64_t stat[FIELDS];
	struct rlimit files;

	print_cpu(b);
	one(b, "process_open_fds", "Open file descriptors.", open_files());
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
		one(b, "process_max_fds", "Most open file descriptors.", files.rlim_cur);
	if (!read_stat(stat))
		return;
	one(b, "process_resident_memory_bytes", "Resident memory.",
	    stat[RESIDENT_PAGES] * (uint64_t)sysconf(_SC_PAGESIZE));
	one(b, "process_virtual_memory_bytes", "Virtual memory.", stat[VIRTUAL_BYTES]);
	one(b, "process_threads", "Threads.", stat[THREADS]);
	print_start(b, stat[START_TIME]);
}
