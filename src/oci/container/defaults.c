/* What a container has when nobody says otherwise: config-linux.md, and what engines agree on. */
#include <sys/mount.h>

#include "base/mem.h"
#include "oci/container.h"

#define KERNEL_FS (MS_NOSUID | MS_NODEV | MS_NOEXEC)

const struct kn_container_mount kn_container_mounts[] = {
	{ "/proc", "proc", NULL, KERNEL_FS, NULL, false },
	{ "/sys", "sysfs", NULL, KERNEL_FS | MS_RDONLY, NULL, false },
	{ "/dev", "tmpfs", NULL, MS_NOSUID | MS_NOEXEC | MS_STRICTATIME, "mode=0755,size=64k", false },
	{ "/dev/pts", "devpts", NULL, MS_NOSUID | MS_NOEXEC,
	  "newinstance,ptmxmode=0666,mode=0620", false },
	{ "/dev/shm", "tmpfs", NULL, KERNEL_FS, "mode=1777,size=64m", false },
	{ "/dev/mqueue", "mqueue", NULL, KERNEL_FS, NULL, true },
};
const size_t kn_container_n_mounts = KN_ARRAY_LEN(kn_container_mounts);

/* No disk, no kernel memory, no port to the host. */
const struct kn_container_device kn_container_devices[] = {
	{ "/dev/null", 1, 3, 0666 },   { "/dev/zero", 1, 5, 0666 },
	{ "/dev/full", 1, 7, 0666 },   { "/dev/random", 1, 8, 0666 },
	{ "/dev/urandom", 1, 9, 0666 }, { "/dev/tty", 5, 0, 0666 },
};
const size_t kn_container_n_devices = KN_ARRAY_LEN(kn_container_devices);

/* Files of /proc and /sys that tell of the host, or change it. */
const char *const kn_container_masked[] = {
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
	"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
	"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware", NULL,
};

const char *const kn_container_read_only[] = {
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL,
};
