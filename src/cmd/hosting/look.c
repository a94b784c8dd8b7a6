#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "cmd/hosting/private.h"
#include "host/cgroup.h"
#include "host/jail.h"
#include "host/network.h"
#include "host/process.h"

#define SEARCH_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const struct kn_part *kn_hosting_part(const struct kn_hosting *h, const char *name)
{
	for (size_t i = 0; i < h->n_parts; i++)
		if (strcmp(h->parts[i].name, name) == 0)
			return &h->parts[i];
	return NULL;
}

static const char *keep(struct kn_hosting *h, const char *text)
{
	char *copy = kn_arena_copy(&h->arena, text, strlen(text));

	h->failed = h->failed || !copy;
	return copy ? copy : "";
}

static void add(struct kn_hosting *h, struct kn_part part)
{
	if (h->n_parts == KN_MAX_PARTS) {
		h->failed = true;
		return;
	}
	part.found = keep(h, part.found);
	part.fix = part.state == KN_PART_GOOD ? NULL : part.fix;
	h->parts[h->n_parts++] = part;
}

/* ---- programs ------------------------------------------------------------------------------ */

/* The first line that a program prints, at most len - 1 bytes; "" when it could not be asked. */
static void first_line_of(const char *path, const char *option, char *ret, size_t len)
{
	const char *const argv[] = { path, option, NULL };
	int pipe_fds[2];
	pid_t pid;

	ret[0] = '\0';
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return;
	kn_auto(kn_close) int out = pipe_fds[0];
	kn_auto(kn_close) int in = pipe_fds[1];
	const struct kn_fd_map map = { .from = in, .to = STDOUT_FILENO };
	const struct kn_spawn_config config = {
		.path = path, .argv = argv, .fds = &map, .n_fds = 1, .die_with_us = true
	};
	if (kn_spawn(&config, &pid, NULL, NULL) < 0)
		return;
	kn_close(kn_take_fd(in));
	ssize_t n = kn_read_all(out, ret, len - 1);
	kn_close(kn_take_fd(out)); /* what it still has to say meets a closed pipe */
	waitpid(pid, NULL, 0);
	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

static void look_qemu(struct kn_hosting *h)
{
	struct kn_part part = { .name = "QEMU",
				.needed_for = "Linux guests (class microvm)",
				.fix = "apt-get install qemu-system-x86" };
	char line[256];

	if (access(h->qemu.qemu, X_OK) < 0) {
		part.state = KN_PART_MISSING;
		part.found = "no qemu-system-x86_64";
		add(h, part);
		return;
	}
	first_line_of(h->qemu.qemu, "--version", line, sizeof(line));
	part.state = line[0] ? KN_PART_GOOD : KN_PART_MISSING;
	part.found = line[0] ? line : "qemu-system-x86_64 does not tell its version";
	add(h, part);
}

static void look_program(struct kn_hosting *h, const char *program, const char *needed_for,
			 const char *fix)
{
	char path[4096];
	bool found = kn_find_program(program, SEARCH_PATH, path, sizeof(path), NULL) == 0;

	add(h, (struct kn_part){ .name = program,
				 .state = found ? KN_PART_GOOD : KN_PART_MISSING,
				 .found = found ? path : "not on the search path",
				 .needed_for = needed_for,
				 .fix = fix });
}

static void look_file(struct kn_hosting *h, const char *name, const char *path, int mode,
		      const char *needed_for)
{
	bool found = access(path, mode) == 0;
	char text[4200];

	snprintf(text, sizeof(text), "%s%s", found ? "" : "no file ", path);
	add(h, (struct kn_part){ .name = name,
				 .state = found ? KN_PART_GOOD : KN_PART_MISSING,
				 .found = text,
				 .needed_for = needed_for,
				 .fix = "make (in Kiln's source folder)" });
}

/* ---- the kernel ---------------------------------------------------------------------------- */

static void look_kvm(struct kn_hosting *h)
{
	struct kn_part part = { .name = h->kvm_device,
				.needed_for = "bare functions, fast guests",
				.found = h->probe.reason };
	bool runs = h->probe.verdict != KN_PROBE_NONE;

	part.state = h->probe.verdict == KN_PROBE_FULL ? KN_PART_GOOD
		     : runs			       ? KN_PART_LIMITED
						       : KN_PART_MISSING;
	part.fix =
		runs ? "a host with hardware virtualization, for Linux guests at full speed"
		: h->probe.present && !h->probe.permitted
			? "run as root, or: usermod -aG kvm USER"
			: "a machine with virtualization switched on (firmware, or nested by the cloud)";
	add(h, part);
}

static void look_root(struct kn_hosting *h)
{
	struct kn_err err = KN_ERR_INIT;
	bool good = kn_jail_check(&err) == 0;

	add(h, (struct kn_part){ .name = "root",
				 .state = good ? KN_PART_GOOD : KN_PART_MISSING,
				 .found = good ? "may jail monitors" : kn_err_text(&err),
				 .needed_for = "jails: users, namespaces, cgroups",
				 .fix = "sudo kiln doctor (and kilnd as root)" });
}

static void look_cgroups(struct kn_hosting *h)
{
	struct kn_cgroup_host host;
	struct kn_err err = KN_ERR_INIT;
	char text[512];
	bool good = kn_cgroup_find("/proc/self/mountinfo", &host, &err) == 0;

	if (good)
		snprintf(text, sizeof(text), "version %d, memory at %s", (int)host.version,
			 host.memory);
	add(h, (struct kn_part){ .name = "cgroups",
				 .state = good ? KN_PART_GOOD : KN_PART_MISSING,
				 .found = good ? text : kn_err_text(&err),
				 .needed_for = "limits on memory, time and processes",
				 .fix = "mount -t cgroup2 none /sys/fs/cgroup" });
}

/*
 * Known to the kernel, or (for a module that is not loaded yet) it becomes known when it is asked
 * for. Since Linux 6.12 an image is mounted as the file that it is, before through a loop device.
 */
static void look_erofs(struct kn_hosting *h)
{
	int fd = fsopen("erofs", FSOPEN_CLOEXEC);
	bool known = fd >= 0 || errno != ENODEV;
	bool loops = access("/dev/loop-control", R_OK | W_OK) == 0;

	kn_close(fd);
	add(h, (struct kn_part){ .name = "erofs",
				 .state = known ? KN_PART_GOOD : KN_PART_MISSING,
				 .found = !known ? "this kernel has no erofs file system"
					  : loops ? "in this kernel, and loop devices"
						  : "in this kernel; no loop devices",
				 .needed_for = "roots of class container",
				 .fix = "a kernel with CONFIG_EROFS_FS (Debian's: modprobe erofs)" });
}

static void look_network(struct kn_hosting *h)
{
	struct kn_err err = KN_ERR_INIT;
	bool good = kn_network_check(&err) == 0;

	add(h, (struct kn_part){ .name = "network",
				 .state = good ? KN_PART_GOOD : KN_PART_MISSING,
				 .found = good ? "TAP, veth and nftables work" : kn_err_text(&err),
				 .needed_for = "functions that reach something (kiln.egress)",
				 .fix = "root, and a kernel with nftables, NAT, veth and TUN/TAP" });
}

void kn_hosting_look(struct kn_hosting *h)
{
	look_kvm(h);
	look_file(h, "kiln-vmm", h->vmm, X_OK, "bare functions");
	look_qemu(h);
	look_file(h, "guest kernel", h->qemu.kernel, R_OK, "Linux guests (class microvm)");
	look_file(h, "guest initramfs", h->qemu.initramfs, R_OK, "Linux guests (class microvm)");
	look_program(h, "mkfs.erofs", "root file systems of container images",
		     "apt-get install erofs-utils");
	look_file(h, "kiln-agent", h->agent, X_OK, "containers (class container)");
	look_erofs(h);
	look_file(h, "kiln-nf", h->nf, X_OK, "packet functions");
	look_root(h);
	look_cgroups(h);
	look_network(h);
}
