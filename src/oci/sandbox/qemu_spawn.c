/* QEMU's command line and its jail. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/time.h"
#include "host/jail.h"
#include "oci/sandbox/qemu.h"

enum { AGENT_FD = 3, IMAGE_FD, CONTROL_FD, MEMORY_FD, STATE_FD, TAP_FD, MAX_ARGS = 64,
       MAX_FDS = 8 };

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

#define MACHINE "microvm,acpi=on,pit=on,pic=on,rtc=on"

/*
 * A guest that is saved has its memory in a file that is mapped shared; one that is restored maps that
 * file privately, so that all of them share the pages that none has written to. The file comes as a
 * descriptor that can only be read: see sandbox/preload.c.
 */
static void add_memory(struct arguments *a, uint64_t mib, const struct qemu_files *f)
{
	if (f->memory < 0) {
		add(a, "-M", MACHINE);
	} else {
		add(a, "-M", MACHINE ",memory-backend=ram");
		add(a, "-object",
		    kn_arena_printf(&a->arena, "memory-backend-file,id=ram,size=%lluM,"
		                    "mem-path=/kiln/fd/%d,share=%s", (unsigned long long)mib,
		                    MEMORY_FD, f->shared ? "on" : "off"));
	}
	add(a, "-m", kn_arena_printf(&a->arena, "%lluM", (unsigned long long)mib));
}

/*
 * A restored guest has its kernel in memory already: without the options QEMU need not read 53 MB
 * into its own, for firmware that will not run.
 */
static void add_kernel(struct arguments *a, const struct qemu_files *f, bool kvm)
{
	if (f->state >= 0) {
		add(a, "-incoming", "defer");
		return;
	}
	add(a, "-kernel", "/guest/kernel");
	add(a, "-initrd", "/guest/initramfs");
	add(a, "-append", command_line(a, kvm));
}

static void add_machine(struct arguments *a, const struct qemu *q, const struct qemu_files *f)
{
	bool kvm = q->config->accel == KN_QEMU_KVM;
	uint32_t vcpus = q->wish->c.vcpus;

	add_memory(a, q->wish->c.memory_bytes >> 20, f);
	add(a, "-accel", kvm ? "kvm" : "tcg,thread=multi");
	/* Without these two flags memset and memcpy are loops of wide moves: 12 times faster here. */
	add(a, "-cpu", kvm ? "host" : "max,-erms,-fsrm");
	add(a, "-smp", kn_arena_printf(&a->arena, "%u", vcpus ? vcpus : 1));
	add(a, "-L", QEMU_DATA);
	add(a, "-nodefaults", NULL);
	add(a, "-no-user-config", NULL);
	add(a, "-no-reboot", NULL);
	add(a, "-display", "none");
	add(a, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add_kernel(a, f, kvm);
}

/* The image comes as a descriptor, so that its folder may be closed to the jail's user. */
static void add_devices(struct arguments *a, const struct qemu_files *f)
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
	if (f->tap >= 0) {
		add(a, "-netdev", "tap,id=net,fd=8");
		add(a, "-device", "virtio-net-device,netdev=net,mac=" KN_NETIF_MAC);
	}
	if (f->control >= 0) {
		add(a, "-chardev", "socket,id=control,fd=5");
		add(a, "-mon", "chardev=control,mode=control");
	}
}

int qemu_make_cgroup(struct qemu *q, const char *id, struct kn_err *err)
{
	struct kn_cgroup_limits limits = { .memory_bytes = q->wish->c.memory_bytes +
		                                           q->config->overhead_bytes,
		                           .cpu_millis = q->wish->c.cpu_milli,
		                           .pids = q->config->max_pids };
	struct kn_cgroup_host host;

	int r = kn_cgroup_find("/proc/self/mountinfo", &host, err);
	return r < 0 ? r : kn_cgroup_new(&host, q->config->cgroup, id, &limits, &q->cgroup, err);
}

#define PRELOAD "/kiln/preload.so"

static int spawn(struct qemu *q, const char *const *argv, const struct kn_fd_map *fds, size_t n_fds,
                 bool preload, struct kn_err *err)
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
		{ .source = preload ? q->config->preload : "/", .target = PRELOAD },
	};
	static const char *const env[] = { "LD_PRELOAD=" PRELOAD, NULL };
	struct kn_jail_config jail = { .root_dir = q->root_dir,
		                       .binds = binds,
		                       .n_binds = KN_ARRAY_LEN(binds) - (preload ? 0 : 1),
		                       .devices = q->config->accel == KN_QEMU_KVM ? kvm : NULL,
		                       .uid = q->uid,
		                       .gid = (gid_t)q->uid,
		                       .cgroup = q->cgroup };
	struct kn_spawn_config s = { .path = q->config->qemu,
		                     .argv = argv,
		                     .env = preload ? env : NULL,
		                     .fds = fds,
		                     .n_fds = n_fds,
		                     .rlimits = limits,
		                     .n_rlimits = KN_ARRAY_LEN(limits) };
	return kn_jail_spawn(&jail, &s, &q->child.pid, NULL, err);
}

static size_t map_fds(const struct qemu_files *f, struct kn_fd_map fds[MAX_FDS])
{
	const struct kn_fd_map all[] = { { f->console, 1 },          { f->monitor, 2 },
		                         { f->agent, AGENT_FD },     { f->image, IMAGE_FD },
		                         { f->control, CONTROL_FD }, { f->memory, MEMORY_FD },
		                         { f->state, STATE_FD },     { f->tap, TAP_FD } };
	size_t n = 0;

	for (size_t i = 0; i < KN_ARRAY_LEN(all); i++)
		if (all[i].from >= 0)
			fds[n++] = all[i];
	return n;
}

int qemu_spawn(struct qemu *q, const struct qemu_files *files, struct kn_err *err)
{
	struct arguments a = { .n = 0 };
	struct kn_fd_map fds[MAX_FDS];

	kn_arena_init(&a.arena);
	add(&a, "qemu", NULL);
	add_machine(&a, q, files);
	add_devices(&a, files);
	size_t n = map_fds(files, fds);
	int r = spawn(q, a.at, fds, n, files->memory >= 0, err);
	kn_arena_fini(&a.arena);
	return r;
}
