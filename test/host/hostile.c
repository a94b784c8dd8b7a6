/*
 * A function that tries what it must not: one order on standard input (contract stdio), one line of
 * answer. What fails is answered "denied: REASON". Static, so that an image needs nothing else.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void tell(long r)
{
	if (r < 0)
		printf("denied: %s\n", strerror(errno));
	else
		printf("ok\n");
}

static void read_file(const char *path)
{
	char text[256];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

	if (n < 0)
		tell(-1);
	else
		printf("%.*s\n", n > 0 ? (int)n : 7, n > 0 ? text : "nothing");
}

static void write_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0644);

	tell(fd < 0 ? fd : write(fd, "1\n", 2));
}

static void tell_owner(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		tell(-1);
	else
		printf("uid %u gid %u mode %o\n", st.st_uid, st.st_gid, st.st_mode & 07777);
}

static void list(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	if (!d) {
		tell(-1);
		return;
	}
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.')
			n += printf("%s\n", e->d_name);
	closedir(d);
	if (n == 0)
		printf("nothing\n");
}

static void fill(const char *path)
{
	static char block[1 << 16];
	int fd = open(path, O_WRONLY | O_CREAT, 0644);

	while (fd >= 0 && write(fd, block, sizeof(block)) > 0)
		;
	tell(-1);
	unlink(path);
}

static int pids(void)
{
	DIR *d = opendir("/proc");
	int n = 0;

	for (struct dirent *e; d && (e = readdir(d));)
		n += atoi(e->d_name) > 0;
	closedir(d);
	return n;
}

static void kill_all(void)
{
	int n = 0;

	for (pid_t pid = 1; pid < 40000; pid++)
		n += pid != getpid() && kill(pid, SIGKILL) == 0 && pid != 1;
	printf("killed %d others\n", n);
}

/* How many processes there may be besides this one. */
static void forks(void)
{
	int n = 0;

	for (pid_t pid; (pid = fork()) >= 0; n++)
		if (pid == 0)
			for (;;)
				pause();
	printf("%d more\n", n);
}

static void bomb(void)
{
	for (;;)
		fork();
}

static void eat(void)
{
	for (;;) {
		char *at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (at != MAP_FAILED)
			memset(at, 1, 1 << 20);
	}
}

/* A reply, or a log, without end. */
static void talk(int fd)
{
	static char line[4096];

	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	while (write(fd, line, sizeof(line)) > 0)
		;
}

/* As many connections as there may be, over and over. */
static void dial(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(9),
		                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(s, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(s, 4096) < 0)
		exit(1);
	for (;;) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0)
			closefrom(s + 1);
		else
			(void)!connect(fd, (struct sockaddr *)&at, sizeof(at));
	}
}

static void spin(int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	double until = (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6 + ms;
	do {
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while ((double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6 < until);
	printf("spun\n");
}

static void tell_status(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "Cap", 3) == 0 || strncmp(line, "NoNew", 5) == 0 ||
		    strncmp(line, "Seccomp:", 8) == 0)
			fputs(line, stdout);
}

static void tell_interfaces(void)
{
	struct if_nameindex *list = if_nameindex();

	for (struct if_nameindex *i = list; i && i->if_index; i++)
		printf("%s\n", i->if_name);
}

static void tell_descriptors(void)
{
	for (int fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			printf("%d ", fd);
	printf("\n");
}

static long connect_out(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80),
		                  .sin_addr.s_addr = htonl(0xc0000201) };   /* 192.0.2.1 */

	return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof(to));
}

static long raise_limit(void)
{
	struct rlimit l;

	getrlimit(RLIMIT_NOFILE, &l);
	l.rlim_max++;
	return setrlimit(RLIMIT_NOFILE, &l);
}

static long make_device(void)
{
	return mknod("/disk", S_IFBLK | 0600, makedev(254, 0)) < 0
	               ? mknod("/dev/disk", S_IFBLK | 0600, makedev(254, 0)) : 0;
}

static long chroot_mount(void)
{
	return chroot("/tmp") < 0 ? -1 : mount("x", "/", "tmpfs", 0, NULL);
}

static const struct {
	const char *order;
	long (*try)(void);
} own[] = { { "connect-out", connect_out }, { "raise-limit", raise_limit },
	    { "mknod", make_device }, { "chroot-mount", chroot_mount } };

static long attempt(const char *what)
{
	struct timeval now = { .tv_sec = 1 };

	if (strcmp(what, "mount") == 0)
		return mount("none", "/tmp", "tmpfs", 0, NULL);
	if (strcmp(what, "umount /proc") == 0)
		return umount2("/proc", MNT_DETACH);
	if (strcmp(what, "unshare") == 0)
		return unshare(CLONE_NEWUSER);
	if (strcmp(what, "setns") == 0)
		return setns(open("/proc/1/ns/net", O_RDONLY), 0);
	if (strcmp(what, "keyctl") == 0)
		return syscall(SYS_keyctl, 0, -3, 1);
	if (strcmp(what, "bpf") == 0)
		return syscall(SYS_bpf, 0, NULL, 0);
	if (strcmp(what, "module") == 0)
		return syscall(SYS_finit_module, 0, "", 0);
	if (strcmp(what, "swap") == 0)
		return swapon("/app", 0);
	if (strcmp(what, "reboot") == 0)
		return syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL);
	if (strcmp(what, "settime") == 0)
		return settimeofday(&now, NULL);
	if (strcmp(what, "hostname") == 0)
		return sethostname("owned", 5);
	if (strcmp(what, "ptrace 1") == 0)
		return ptrace(PTRACE_ATTACH, 1, NULL, NULL);
	if (strcmp(what, "iouring") == 0)
		return syscall(SYS_io_uring_setup, 1, NULL);
	if (strcmp(what, "open-by-handle") == 0)
		return syscall(SYS_open_by_handle_at, 0, NULL, 0);
	if (strcmp(what, "nice -20") == 0)
		return setpriority(PRIO_PROCESS, 0, -20);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (strcmp(what, own[i].order) == 0)
			return own[i].try();
	errno = ENOSYS;
	return -1;
}

static const char *argument(const char *order, const char *verb)
{
	size_t n = strlen(verb);

	return strncmp(order, verb, n) == 0 && order[n] == ' ' ? order + n + 1 : NULL;
}

static void obey(const char *order)
{
	const char *a;

	if ((a = argument(order, "read")))
		read_file(a);
	else if ((a = argument(order, "write")))
		write_file(a);
	else if ((a = argument(order, "stat")))
		tell_owner(a);
	else if ((a = argument(order, "list")))
		list(a);
	else if ((a = argument(order, "fill")))
		fill(a);
	else if ((a = argument(order, "spin")))
		spin(atoi(a));
	else if (strcmp(order, "whoami") == 0)
		printf("uid %u pids %d\n", getuid(), pids());
	else if (strcmp(order, "caps") == 0)
		tell_status();
	else if (strcmp(order, "interfaces") == 0)
		tell_interfaces();
	else if (strcmp(order, "open-descriptors") == 0)
		tell_descriptors();
	else if (strcmp(order, "kill-all") == 0)
		kill_all();
	else if (strcmp(order, "forks") == 0)
		forks();
	else if (strcmp(order, "bomb") == 0)
		bomb();
	else if (strcmp(order, "eat") == 0)
		eat();
	else if (strcmp(order, "babble") == 0)
		talk(1);
	else if (strcmp(order, "shout") == 0)
		talk(2);
	else if (strcmp(order, "dial") == 0)
		dial();
	else
		tell(attempt(order));
}

/* A server that writes to its log without end beside its work. */
static int flood(void)
{
	static char line[4096];
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(8080) };
	static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
	int s = socket(AF_INET, SOCK_STREAM, 0);

	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	if (fork() == 0)
		while (write(1, line, sizeof(line)) > 0)
			;
	if (bind(s, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(s, 16) < 0)
		return 1;
	for (;;) {
		char head[4096];
		int fd = accept(s, NULL, NULL);
		if (read(fd, head, sizeof(head)) > 0)
			(void)!write(fd, reply, sizeof(reply) - 1);
		close(fd);
	}
}

int main(int argc, char **argv)
{
	char order[256];
	ssize_t n;

	if (argc > 1 && strcmp(argv[1], "flood") == 0)
		return flood();
	if (argc > 1) {
		obey(argv[1]);
		return 0;
	}
	n = read(0, order, sizeof(order) - 1);
	order[n > 0 ? n : 0] = '\0';
	obey(order);
	fflush(stdout);
	return 0;
}
