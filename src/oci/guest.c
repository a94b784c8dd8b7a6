#include "oci/guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/mount.h"
#include "oci/guest/guest.h"

/* ---- boot ---------------------------------------------------------------------------------- */

static int mount_at(const char *type, const char *target, unsigned long flags, const char *options,
                    struct kn_err *err)
{
	if (mkdir(target, 0755) < 0 && errno != EEXIST)
		return kn_fail(err, errno, "make folder %s: %s", target, strerror(errno));
	return kn_mount(type, target, type, flags, options, err);
}

static int load_module(int dir, struct kn_view name, struct kn_err *err)
{
	char file[64];

	snprintf(file, sizeof(file), "%.*s", (int)name.len, name.ptr);
	kn_auto(kn_close) int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "open module %s: %s", file, strerror(errno));
	/* syscalls: finit_module */
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		return kn_fail(err, errno, "load module %s: %s", file, strerror(errno));
	return 0;
}

/* A file a line, each after those that it needs. A kernel that has all built in has no list. */
int guest_load_modules(const char *list, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf order = KN_BUF_INIT;
	struct kn_view rest, line;

	kn_auto(kn_close) int dir = open("/modules", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return errno == ENOENT ? 0 : kn_fail(err, errno, "open /modules: %s",
		                                     strerror(errno));
	int r = kn_read_file(dir, list, 4096, &order, err);
	if (r < 0)
		return r;
	rest = kn_buf_view(&order);
	while (r == 0 && kn_view_split(&rest, '\n', &line))
		if (line.len > 0)
			r = load_module(dir, line, err);
	return r;
}

static int loopback_up(struct kn_err *err)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

	kn_auto(kn_close) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		return kn_fail(err, errno, "loopback interface: %s", strerror(errno));
	return 0;
}

/* An initramfs made without root has no /dev/console for the kernel to give us. */
static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	for (int i = 0; i < 3 && fd >= 0; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

int kn_guest_boot(struct kn_err *err)
{
	int r = mount_at("devtmpfs", "/dev", MS_NOSUID, "mode=0755", err);
	if (r == -EBUSY)
		r = 0;   /* the kernel mounted it itself */
	open_console();
	if (r == 0)
		r = mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, err);
	if (r == 0)
		r = mount_at("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, err);
	if (r == 0)
		r = guest_load_modules("order", err);
	return r < 0 ? r : loopback_up(err);
}

/* ---- the port ------------------------------------------------------------------------------ */

/* The control message with a port's name may arrive after the driver was loaded. */
static bool port_is(const char *entry, const char *name)
{
	char path[320], text[64] = "";

	snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry);
	kn_auto(kn_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return false;
	return strncmp(text, name, strlen(name)) == 0 && text[strlen(name)] == '\n';
}

static int find_port(const char *name)
{
	struct dirent *e;
	int fd = -ENODEV;

	DIR *d = opendir("/sys/class/virtio-ports");
	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		char path[280];
		if (e->d_name[0] == '.' || !port_is(e->d_name, name))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", e->d_name);
		fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		fd = fd < 0 ? -errno : fd;
		break;
	}
	closedir(d);
	return fd;
}

int kn_guest_port(const char *name, struct kn_err *err)
{
	int fd = -ENODEV;

	for (int tries = 0; tries < 5000 && fd < 0; tries++) {
		fd = find_port(name);
		if (fd < 0)
			usleep(1000);
	}
	return fd < 0 ? kn_fail(err, -fd, "port '%s' to the host: %s", name, strerror(-fd)) : fd;
}

/* ---- root ---------------------------------------------------------------------------------- */

static int mount_image(struct kn_err *err)
{
	int r = mount_at("tmpfs", "/layers", MS_NODEV, "mode=0755", err);
	if (r < 0)
		return r;
	if (mkdir("/layers/image", 0755) < 0 || mkdir("/layers/upper", 0755) < 0 ||
	    mkdir("/layers/work", 0755) < 0 || mkdir("/new", 0755) < 0)
		return kn_fail(err, errno, "make folders for the root: %s", strerror(errno));
	r = kn_mount("/dev/vda", "/layers/image", "erofs", MS_RDONLY | MS_NODEV, NULL, err);
	if (r < 0)
		return kn_while(err, "the image (is it an erofs image?)");
	/* The upper layer's root decides the mode of "/": as the image has it. */
	struct stat st;
	if (stat("/layers/image", &st) == 0) {
		(void)!chown("/layers/upper", st.st_uid, st.st_gid);
		(void)!chmod("/layers/upper", st.st_mode & 07777);
	}
	return kn_mount("overlay", "/new", "overlay", MS_NODEV,
	                "lowerdir=/layers/image,upperdir=/layers/upper,workdir=/layers/work", err);
}

static const struct device {
	const char *name;
	unsigned major, minor;
} devices[] = { { "null", 1, 3 },   { "zero", 1, 5 },    { "full", 1, 7 },
	        { "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 } };

/* As a container's /dev: no disk, no port to the host, no kernel memory. */
static int make_dev(struct kn_err *err)
{
	static const char *const links[][2] = { { "/proc/self/fd", "/new/dev/fd" },
		                                { "/proc/self/fd/0", "/new/dev/stdin" },
		                                { "/proc/self/fd/1", "/new/dev/stdout" },
		                                { "/proc/self/fd/2", "/new/dev/stderr" },
		                                { "pts/ptmx", "/new/dev/ptmx" } };
	char path[64];

	int r = mount_at("tmpfs", "/new/dev", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k", err);
	for (size_t i = 0; i < KN_ARRAY_LEN(devices) && r == 0; i++) {
		const struct device *d = &devices[i];
		snprintf(path, sizeof(path), "/new/dev/%s", d->name);
		if (mknod(path, S_IFCHR | 0666, makedev(d->major, d->minor)) < 0 ||
		    chmod(path, 0666) < 0)
			r = kn_fail(err, errno, "make %s: %s", path, strerror(errno));
	}
	for (size_t i = 0; i < KN_ARRAY_LEN(links) && r == 0; i++)
		if (symlink(links[i][0], links[i][1]) < 0)
			r = kn_fail(err, errno, "make %s: %s", links[i][1], strerror(errno));
	if (r == 0)
		r = mount_at("devpts", "/new/dev/pts", MS_NOSUID | MS_NOEXEC,
		             "newinstance,ptmxmode=0666,mode=0620", err);
	return r < 0 ? r : mount_at("tmpfs", "/new/dev/shm", MS_NOSUID | MS_NODEV,
	                            "mode=1777", err);
}

static int mount_kernel(struct kn_err *err)
{
	static const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	int r = mount_at("proc", "/new/proc", flags, NULL, err);
	if (r == 0)
		r = mount_at("sysfs", "/new/sys", flags | MS_RDONLY, NULL, err);
	return r < 0 ? r : make_dev(err);
}

/* What programs look for and images need not have. */
static void add_missing(void)
{
	static const char hosts[] = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";

	if (mkdir("/tmp", 01777) == 0)
		(void)!chmod("/tmp", 01777);
	(void)!mkdir("/etc", 0755);
	struct stat st;
	if (stat("/etc/hosts", &st) < 0 || st.st_size == 0) {
		kn_auto(kn_close) int fd = open("/etc/hosts", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd >= 0)
			(void)!kn_write_all(fd, hosts, sizeof(hosts) - 1);
	}
}

/* An initramfs cannot be pivoted away from: the new root is moved over it (switch_root(8)). */
static int enter_root(struct kn_err *err)
{
	int r = kn_remove_tree(AT_FDCWD, "/modules", err);
	if (r < 0)
		return r;
	(void)!unlink("/init");
	if (chdir("/new") < 0)
		return kn_fail(err, errno, "enter the root: %s", strerror(errno));
	r = kn_mount(".", "/", NULL, MS_MOVE, NULL, err);
	if (r < 0)
		return r;
	if (chroot(".") < 0 || chdir("/") < 0)
		return kn_fail(err, errno, "change the root: %s", strerror(errno));
	return 0;
}

/*
 * What tells one machine from another, at the paths where programs look for it: a file of our own
 * over each, so that a guest restored from a snapshot can be told another one than its twins have.
 * The kernel's own boot id cannot be set.
 */
static const struct identifier {
	const char *path;
	bool is_uuid;
} identifiers[] = { { "/proc/sys/kernel/random/boot_id", true }, { "/etc/machine-id", false } };

static void make_identifiers(void)
{
	static const char file[] = "/dev/.identifier";

	for (size_t i = 0; i < KN_ARRAY_LEN(identifiers); i++) {
		if (access(identifiers[i].path, F_OK) < 0)
			continue;
		kn_auto(kn_close) int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
		if (fd >= 0)
			(void)!kn_mount(file, identifiers[i].path, NULL, MS_BIND, NULL, NULL);
		unlink(file);
	}
}

/* RFC 9562, version 4. A file that is not there, or not ours to change, stays as it is. */
static void set_identifiers(void)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(identifiers); i++) {
		uint8_t b[16];
		char hex[33], text[40];
		if (getrandom(b, sizeof(b), GRND_NONBLOCK) != sizeof(b))
			return;
		b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
		b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
		kn_hex(b, sizeof(b), hex);
		int n = identifiers[i].is_uuid
			? snprintf(text, sizeof(text), "%.8s-%.4s-%.4s-%.4s-%s\n", hex, hex + 8,
			           hex + 12, hex + 16, hex + 20)
			: snprintf(text, sizeof(text), "%s\n", hex);
		kn_auto(kn_close) int fd = open(identifiers[i].path, O_WRONLY | O_TRUNC | O_CLOEXEC);
		if (fd >= 0)
			(void)!kn_write_all(fd, text, (size_t)n);
	}
}

int kn_guest_name(struct kn_view hostname, struct kn_err *err)
{
	if (hostname.len == 0)
		hostname = KN_VIEW("kiln");
	set_identifiers();
	if (sethostname(hostname.ptr, hostname.len) < 0)
		return kn_fail(err, errno, "host name: %s", strerror(errno));
	return 0;
}

int kn_guest_root(struct kn_view hostname, struct kn_err *err)
{
	int r = guest_load_modules("late", err);
	if (r == 0)
		r = mount_image(err);
	if (r == 0)
		r = mount_kernel(err);
	if (r == 0)
		r = enter_root(err);
	if (r < 0)
		return kn_while(err, "the function's root");
	add_missing();
	make_identifiers();
	return kn_guest_name(hostname, err);
}

/* ---- processes ----------------------------------------------------------------------------- */

static int write_text(const char *path, const char *text, struct kn_err *err)
{
	kn_auto(kn_close) int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return kn_fail(err, errno, "write %s: %s", path, strerror(errno));
	return 0;
}

/* The agent stays outside: it must answer the host when the function has taken all that it may. */
static int make_group(uint64_t max, struct kn_err *err)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)max);
	int r = write_text("/groups/cgroup.subtree_control", "+pids", err);
	if (r == 0 && mkdir("/groups/function", 0755) < 0)
		r = kn_fail(err, errno, "make a cgroup: %s", strerror(errno));
	if (r == 0)
		r = write_text("/groups/function/pids.max", text, err);
	if (r < 0)
		return r;
	int fd = open("/groups/function/cgroup.procs", O_WRONLY | O_CLOEXEC);
	return fd < 0 ? kn_fail(err, errno, "open a cgroup: %s", strerror(errno)) : fd;
}

int kn_guest_processes(uint64_t max, struct kn_err *err)
{
	int r = mount_at("cgroup2", "/groups", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, err);

	if (r == 0)
		r = make_group(max, err);
	/* The descriptor goes on; the folder must be in no function's sight. */
	(void)!umount2("/groups", MNT_DETACH);
	(void)!rmdir("/groups");
	return r < 0 ? kn_while(err, "the limit of the function's processes") : r;
}

int kn_guest_enter(int processes, struct kn_err *err)
{
	return write(processes, "0", 1) == 1 ? 0 : kn_fail(err, errno, "join the function's cgroup: %s",
	                                                   strerror(errno));
}

/* ---- clock, entropy, end ------------------------------------------------------------------- */

void kn_guest_greet(uint64_t wall_ns, struct kn_view entropy)
{
	struct {
		struct rand_pool_info head;
		uint32_t bytes[16];
	} pool = { .head.entropy_count = 0 };
	struct timespec t = { .tv_sec = (time_t)(wall_ns / 1000000000u),
		              .tv_nsec = (long)(wall_ns % 1000000000u) };

	if (wall_ns)
		clock_settime(CLOCK_REALTIME, &t);
	size_t n = kn_min(entropy.len, sizeof(pool.bytes));
	if (n == 0)
		return;
	pool.head.entropy_count = (int)n * 8;
	pool.head.buf_size = (int)n;
	memcpy(pool.bytes, entropy.ptr, n);
	kn_auto(kn_close) int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	/* A restored guest must not go on with the numbers that its twin draws: seed at once. */
	if (fd >= 0 && ioctl(fd, RNDADDENTROPY, &pool) == 0)
		ioctl(fd, RNDRESEEDCRNG);
}

_Noreturn void kn_guest_power_off(void)
{
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
