/* QEMU's command line and its jail. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/time.h"
#include "host/jail.h"
#include "oci/sandbox/qemu.h"

enum { AGENT_FD = 3, IMAGE_FD = 4, MAX_ARGS = 64 };

#define QEMU_DATA "/usr/share/qemu"

/*
 * tsc=reliable, lpj: no calibration against emulated clocks. cryptomgr.notests: self-tests of
 * ciphers cost 0.17 s of emulated code (2026-11-23). panic=-1 with -no-reboot: QEMU ends when the
 * guest's kernel gives up.
 */
static const char CMDLINE[] =
	"console=ttyS0 quiet tsc=reliable lpj=4000000 no_timer_check reboot=t panic=-1 "
	"cryptomgr.notests random.trust_cpu=on 8250.nr_uarts=1";

struct arguments {
	const char *at[MAX_ARGS];
	size_t n;
	struct kn_arena arena;
};

static void add(struct arguments *a, const char *option, const char *value)
{
	if (a->n + 2 < MAX_ARGS) {
		a->at[a->n++] = option;
		if (value)
			a->at[a->n++] = value;
	}
}

/*
 * Under TCG the guest's time stamp counter is the host's, and the kernel measures it against an
 * emulated PIT. When the host is busy that measurement fails ("Unable to calibrate against PIT"),
 * and the kernel then waits forever for a tick to calibrate the local APIC's timer with: 3 of 12
 * boots hung beside two busy loops on two cores, 0 of 20 with the rate given (2026-11-28).
 */
static const char *command_line(struct arguments *a, bool kvm)
{
	uint64_t khz = kvm ? 0 : kn_tsc_khz();

	if (!khz)
		return CMDLINE;
	return kn_arena_printf(&a->arena, "%s tsc_early_khz=%llu", CMDLINE, (unsigned long long)khz);
}

static void add_machine(struct arguments *a, const struct qemu *q, uint32_t vcpus)
{
	bool kvm = q->config->accel == KN_QEMU_KVM;

	add(a, "-M", "microvm,acpi=on,pit=on,pic=on,rtc=on");
	add(a, "-accel", kvm ? "kvm" : "tcg,thread=multi");
	/* Without these two flags memset and memcpy are loops of wide moves: 12 times faster here. */
	add(a, "-cpu", kvm ? "host" : "max,-erms,-fsrm");
	add(a, "-smp", kn_arena_printf(&a->arena, "%u", vcpus ? vcpus : 1));
	add(a, "-m", kn_arena_printf(&a->arena, "%lluM",
	                             (unsigned long long)(q->memory_bytes >> 20)));
	add(a, "-L", QEMU_DATA);
	add(a, "-nodefaults", NULL);
	add(a, "-no-user-config", NULL);
	add(a, "-no-reboot", NULL);
	add(a, "-display", "none");
	add(a, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add(a, "-kernel", "/guest/kernel");
	add(a, "-initrd", "/guest/initramfs");
	add(a, "-append", command_line(a, kvm));
}

/* The image comes as a descriptor, so that its folder may be closed to the jail's user. */
static void add_devices(struct arguments *a)
{
	add(a, "-chardev", "stdio,id=console,signal=off");
	add(a, "-serial", "chardev:console");
	add(a, "-add-fd", "fd=4,set=1");
	add(a, "-blockdev", "driver=file,node-name=file,filename=/dev/fdset/1,read-only=on,"
	                    "auto-read-only=off,locking=off");
	add(a, "-blockdev", "driver=raw,node-name=image,file=file,read-only=on");
	add(a, "-device", "virtio-blk-device,drive=image");
	add(a, "-device", "virtio-serial-device,max_ports=2");
	add(a, "-chardev", "socket,id=agent,fd=3");
	add(a, "-device", "virtserialport,chardev=agent,name=kiln.agent");
}

static int make_cgroup(struct qemu *q, const struct kn_sandbox_config *c, struct kn_err *err)
{
	struct kn_cgroup_limits limits = { .memory_bytes = q->memory_bytes +
		                                           q->config->overhead_bytes,
		                           .pids = q->config->max_pids };
	struct kn_cgroup_host host;

	int r = kn_cgroup_find("/proc/self/mountinfo", &host, err);
	return r < 0 ? r : kn_cgroup_new(&host, q->config->cgroup, c->id, &limits, &q->cgroup, err);
}

static int spawn(struct qemu *q, const char *const *argv, const struct kn_fd_map *fds, size_t n_fds,
                 struct kn_err *err)
{
	static const char *const kvm[] = { "/dev/kvm", NULL };
	static const struct kn_rlimit limits[] = { { RLIMIT_CORE, 0, 0 },
		                                   { RLIMIT_NOFILE, 256, 256 } };
	const struct kn_bind binds[] = {
		{ .source = q->config->qemu },
		{ .source = "/lib64/ld-linux-x86-64.so.2" },
		{ .source = "/usr/lib/x86_64-linux-gnu" },
		{ .source = QEMU_DATA },
		{ .source = "/usr/share/seabios", .optional = true },   /* QEMU_DATA links there */
		{ .source = q->config->kernel, .target = "/guest/kernel" },
		{ .source = q->config->initramfs, .target = "/guest/initramfs" },
	};
	struct kn_jail_config jail = { .root_dir = q->root_dir,
		                       .binds = binds,
		                       .n_binds = KN_ARRAY_LEN(binds),
		                       .devices = q->config->accel == KN_QEMU_KVM ? kvm : NULL,
		                       .uid = q->uid,
		                       .gid = (gid_t)q->uid,
		                       .cgroup = q->cgroup };
	struct kn_spawn_config s = { .path = q->config->qemu,
		                     .argv = argv,
		                     .fds = fds,
		                     .n_fds = n_fds,
		                     .rlimits = limits,
		                     .n_rlimits = KN_ARRAY_LEN(limits) };
	return kn_jail_spawn(&jail, &s, &q->child.pid, NULL, err);
}

static int open_image(const char *path, struct kn_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return kn_fail(err, errno, "open image %s: %s", path, strerror(errno));
	return fd;
}

int qemu_spawn(struct qemu *q, const struct kn_sandbox_config *c, int agent_fd, int console_fd,
               int monitor_fd, struct kn_err *err)
{
	struct arguments a = { .n = 0 };

	kn_auto(kn_close) int image = open_image(c->image, err);
	if (image < 0)
		return image;
	int r = make_cgroup(q, c, err);
	if (r == 0)
		r = kn_jail_take_uid(q->config->uid_first, q->config->uid_count, &q->uid, err);
	if (r < 0)
		return r;
	kn_arena_init(&a.arena);
	add(&a, "qemu", NULL);
	add_machine(&a, q, c->vcpus);
	add_devices(&a);
	const struct kn_fd_map fds[] = { { console_fd, 1 }, { monitor_fd, 2 },
		                         { agent_fd, AGENT_FD }, { image, IMAGE_FD } };
	r = spawn(q, a.at, fds, KN_ARRAY_LEN(fds), err);
	kn_arena_fini(&a.arena);
	return r;
}
