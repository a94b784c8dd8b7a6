#include "host/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Version 1 has a folder per controller, of which some may be the same one (cpu,cpuacct); version 2
 * has one. Folders are kept as descriptors, so that joining from a jail needs no path.
 */
enum { MEMORY, CPU, CPUACCT, PIDS, N_DIRS, PATH_BYTES = 512 };

struct kn_cgroup {
	enum kn_cgroup_version version;
	unsigned parents;              /* folders between the hierarchy's root and this cgroup */
	int dir[N_DIRS];               /* -1 where it is the same as an earlier one, or missing */
	char path[N_DIRS][PATH_BYTES];
	char name[N_DIRS][64];         /* of the hierarchy's mount point */
};

static const char *controller_name(int which)
{
	static const char *const names[N_DIRS] = { "memory", "cpu", "cpuacct", "pids" };
	return names[which];
}

static char *mount_of(struct kn_cgroup_host *h, int which)
{
	char *at[N_DIRS] = { h->memory, h->cpu, h->cpuacct, h->pids };
	return at[which];
}

/* Is name one of the comma-separated words of list? */
static bool has_word(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = list; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, name, len) == 0 && (at[len] == ',' || at[len] == '\0'))
			return true;
	}
	return false;
}

/* One line of mountinfo: "... MOUNTPOINT OPTIONS [TAGS] - TYPE SOURCE SUPEROPTIONS". */
static void take_mount(const char *line, struct kn_cgroup_host *h, char v2[128])
{
	char point[128], type[32], options[256];
	const char *dash = strstr(line, " - ");

	if (!dash || sscanf(line, "%*s %*s %*s %*s %127s", point) != 1 ||
	    sscanf(dash + 3, "%31s %*s %255s", type, options) != 2)
		return;
	if (strcmp(type, "cgroup2") == 0 && !v2[0])
		memcpy(v2, point, sizeof(point));
	if (strcmp(type, "cgroup") != 0)
		return;
	for (int i = 0; i < N_DIRS; i++) {
		char *to = mount_of(h, i);
		if (!to[0] && has_word(options, controller_name(i)))
			memcpy(to, point, sizeof(point));
	}
}

int kn_cgroup_find(const char *mountinfo, struct kn_cgroup_host *ret, struct kn_err *err)
{
	struct kn_cgroup_host h = { .version = KN_CGROUP_V1 };
	char v2[128] = "", line[1024];

	FILE *f = fopen(mountinfo, "re");
	if (!f)
		return kn_fail(err, errno, "open %s: %s", mountinfo, strerror(errno));
	while (fgets(line, sizeof(line), f))
		take_mount(line, &h, v2);
	fclose(f);

	if (!h.memory[0] && v2[0]) {
		h.version = KN_CGROUP_V2;
		for (int i = 0; i < N_DIRS; i++)
			memcpy(mount_of(&h, i), v2, sizeof(v2));
	}
	if (!h.memory[0] || !h.pids[0])
		return kn_fail(err, ENOENT, "no cgroup %s controller is mounted: mount cgroup2 on "
		               "/sys/fs/cgroup (a container needs --cgroupns=private and a writable "
		               "/sys/fs/cgroup)", h.memory[0] ? "pids" : "memory");
	*ret = h;
	return 0;
}

/* ---- files of one cgroup ------------------------------------------------------------------- */

static int write_at(int dir, const char *file, const char *text, struct kn_err *err)
{
	kn_auto(kn_close) int fd = openat(dir, file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "open cgroup file %s: %s", file, strerror(errno));
	if (write(fd, text, strlen(text)) < 0)
		return kn_fail(err, errno, "write '%s' to cgroup file %s: %s", text, file,
		               strerror(errno));
	return 0;
}

static int write_number(int dir, const char *file, uint64_t value, struct kn_err *err)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return write_at(dir, file, text, err);
}

/* The file's content, cut at len - 1, as a string. */
static int read_at(int dir, const char *file, char *ret, size_t len, struct kn_err *err)
{
	kn_auto(kn_close) int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "open cgroup file %s: %s", file, strerror(errno));
	ssize_t n = read(fd, ret, len - 1);
	if (n < 0)
		return kn_fail(err, errno, "read cgroup file %s: %s", file, strerror(errno));
	ret[n] = '\0';
	return 0;
}

/* The number after "key " at the start of a line; 0 when there is none. */
static uint64_t number_after(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *at = text; at; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, key, len) == 0 && at[len] == ' ')
			return strtoull(at + len + 1, NULL, 10);
	}
	return 0;
}

/* ---- make ---------------------------------------------------------------------------------- */

static int hand_out_controllers(const char *folder, struct kn_err *err)
{
	kn_auto(kn_close) int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return kn_fail(err, errno, "open cgroup %s: %s", folder, strerror(errno));
	int r = write_at(dir, "cgroup.subtree_control", "+memory +pids +cpu", err);
	if (r == -EBUSY)
		return kn_fail(err, EBUSY, "cgroup %s holds processes and so cannot hand out "
		               "controllers: run under systemd with Delegate=yes, or name an empty "
		               "parent cgroup", folder);
	return r;
}

/* Every folder of root/path that is missing; on version 2 each but the last hands out controllers. */
static int make_folders_once(char *full, size_t root_len, bool v2, struct kn_err *err)
{
	for (char *at = full + root_len + 1; (at = strchr(at, '/')); at++) {
		*at = '\0';
		if (mkdir(full, 0755) < 0 && errno != EEXIST)
			return kn_fail(err, errno, "make cgroup %s: %s", full, strerror(errno));
		int r = v2 ? hand_out_controllers(full, err) : 0;
		*at = '/';
		if (r < 0)
			return r;
	}
	if (mkdir(full, 0755) < 0)
		return kn_fail(err, errno, "make cgroup %s: %s", full, strerror(errno));
	return 0;
}

/* Whoever removes the last cgroup of a parent removes the parent (drop_empty_parents): try again. */
static int make_folders(const char *root, const char *path, bool v2, struct kn_err *err)
{
	char full[PATH_BYTES];
	int n = snprintf(full, sizeof(full), "%s/%s", root, path), r = -ENOENT;

	if (n < 0 || n >= (int)sizeof(full))
		return kn_fail(err, ENAMETOOLONG, "cgroup path too long: %.64s...", path);
	for (int tries = 0; r == -ENOENT && tries < 4; tries++)
		r = make_folders_once(full, strlen(root), v2, err);
	return r;
}

static int limit_v1(const struct kn_cgroup *cg, const struct kn_cgroup_limits *l,
                    struct kn_err *err)
{
	int r = 0;

	if (l->memory_bytes)
		r = write_number(cg->dir[MEMORY], "memory.limit_in_bytes", l->memory_bytes, err);
	/* Missing where swap is not accounted: then there is no swap to keep out. */
	if (r == 0 && l->memory_bytes &&
	    faccessat(cg->dir[MEMORY], "memory.memsw.limit_in_bytes", F_OK, 0) == 0)
		r = write_number(cg->dir[MEMORY], "memory.memsw.limit_in_bytes", l->memory_bytes,
		                 err);
	if (r == 0 && l->pids)
		r = write_number(cg->dir[PIDS], "pids.max", l->pids, err);
	if (r == 0 && l->cpu_millis && cg->dir[CPU] >= 0)
		r = write_number(cg->dir[CPU], "cpu.cfs_quota_us", l->cpu_millis * 100, err);
	return r;
}

static int limit_v2(const struct kn_cgroup *cg, const struct kn_cgroup_limits *l,
                    struct kn_err *err)
{
	int dir = cg->dir[MEMORY], r = 0;

	if (l->memory_bytes)
		r = write_number(dir, "memory.max", l->memory_bytes, err);
	if (r == 0 && l->memory_bytes && faccessat(dir, "memory.swap.max", F_OK, 0) == 0)
		r = write_at(dir, "memory.swap.max", "0", err);
	if (r == 0 && l->pids)
		r = write_number(dir, "pids.max", l->pids, err);
	if (r == 0 && l->cpu_millis) {
		char text[48];
		snprintf(text, sizeof(text), "%llu 100000",
		         (unsigned long long)l->cpu_millis * 100);
		r = write_at(dir, "cpu.max", text, err);
	}
	return r;
}

int kn_cgroup_limit(const struct kn_cgroup *cg, const struct kn_cgroup_limits *limits,
                    struct kn_err *err)
{
	return cg->version == KN_CGROUP_V2 ? limit_v2(cg, limits, err) : limit_v1(cg, limits, err);
}

/* Version 1 may mount two controllers together, and version 2 has one folder for all. */
static bool seen_before(const struct kn_cgroup *cg, int which)
{
	for (int i = 0; i < which; i++)
		if (strcmp(cg->path[i], cg->path[which]) == 0)
			return true;
	return false;
}

static int open_folder(struct kn_cgroup *cg, const char *root, int which, const char *path,
                       struct kn_err *err)
{
	if (!root[0])
		return 0;   /* this controller is not mounted */
	snprintf(cg->path[which], PATH_BYTES, "%.127s/%.380s", root, path);
	if (seen_before(cg, which)) {
		cg->path[which][0] = '\0';
		return 0;
	}
	const char *name = strrchr(root, '/');
	snprintf(cg->name[which], sizeof(cg->name[which]), "%.63s", name ? name + 1 : root);
	int r = make_folders(root, path, cg->version == KN_CGROUP_V2, err);
	if (r < 0) {
		cg->path[which][0] = '\0';   /* not ours: kn_cgroup_remove leaves it */
		return r;
	}
	cg->dir[which] = open(cg->path[which], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cg->dir[which] < 0)
		return kn_fail(err, errno, "open cgroup %s: %s", cg->path[which], strerror(errno));
	return 0;
}

static int build(struct kn_cgroup *cg, const struct kn_cgroup_host *host, const char *path,
                 const struct kn_cgroup_limits *limits, struct kn_err *err)
{
	struct kn_cgroup_host h = *host;
	int r = 0;

	for (int i = 0; i < N_DIRS && r == 0; i++)
		r = open_folder(cg, mount_of(&h, i), i, path, err);
	if (r < 0)
		return r;
	return kn_cgroup_limit(cg, limits, err);
}

int kn_cgroup_new(const struct kn_cgroup_host *host, const char *parent, const char *name,
                  const struct kn_cgroup_limits *limits, struct kn_cgroup **ret,
                  struct kn_err *err)
{
	char path[PATH_BYTES / 2];

	if (snprintf(path, sizeof(path), "%s/%s", parent, name) >= (int)sizeof(path))
		return kn_fail(err, ENAMETOOLONG, "cgroup name too long: %.64s...", name);
	kn_auto(kn_cgroup_free) struct kn_cgroup *cg = calloc(1, sizeof(*cg));
	if (!cg)
		return kn_fail(err, ENOMEM, "memory for a cgroup");
	cg->version = host->version;
	for (int i = 0; i < N_DIRS; i++)
		cg->dir[i] = -1;
	for (const char *at = path; (at = strchr(at, '/')); at++)
		cg->parents++;
	int r = build(cg, host, path, limits, err);
	if (r < 0) {
		(void)!kn_cgroup_remove(cg, NULL);
		return r;
	}
	*ret = kn_take_ptr(cg);
	return 0;
}

void kn_cgroup_free(struct kn_cgroup *cg)
{
	if (!cg)
		return;
	for (int i = 0; i < N_DIRS; i++)
		kn_close(cg->dir[i]);
	free(cg);
}

/* ---- use ----------------------------------------------------------------------------------- */

int kn_cgroup_add(const struct kn_cgroup *cg, pid_t pid, struct kn_err *err)
{
	for (int i = 0; i < N_DIRS; i++) {
		if (cg->dir[i] < 0)
			continue;
		int r = write_number(cg->dir[i], "cgroup.procs", (uint64_t)pid, err);
		if (r < 0)
			return kn_while(err, "join the cgroup");
	}
	return 0;
}

size_t kn_cgroup_dirs(const struct kn_cgroup *cg, struct kn_cgroup_dir ret[KN_CGROUP_MAX_DIRS])
{
	size_t n = 0;

	_Static_assert((int)N_DIRS == (int)KN_CGROUP_MAX_DIRS, "one number for both");
	for (int i = 0; i < N_DIRS; i++)
		if (cg->dir[i] >= 0)
			ret[n++] = (struct kn_cgroup_dir){ cg->dir[i], cg->name[i] };
	return n;
}

bool kn_cgroup_unified(const struct kn_cgroup *cg)
{
	return cg->version == KN_CGROUP_V2;
}

int kn_cgroup_join(int dir_fd, struct kn_err *err)
{
	return write_number(dir_fd, "cgroup.procs", 0, err) < 0 ? kn_while(err, "join the cgroup") : 0;
}

int kn_cgroup_open_events(int memory_dir_fd)
{
	int fd = openat(memory_dir_fd, "memory.events", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fd = openat(memory_dir_fd, "memory.oom_control", O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

uint64_t kn_oom_kills(int fd)
{
	char text[16 * 1024];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return number_after(text, "oom_kill");
}

static int kill_members(int dir)
{
	int found = 0, pid;

	kn_auto(kn_close) int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	FILE *f = fdopen(fd, "r");
	if (!f)
		return -errno;
	(void)kn_take_fd(fd);
	while (fscanf(f, "%d", &pid) == 1 && pid > 0) {
		kill(pid, SIGKILL);
		found++;
	}
	fclose(f);
	return found;
}

int kn_cgroup_kill(const struct kn_cgroup *cg, struct kn_err *err)
{
	/* Since Linux 5.14; complete, also against fork bombs. */
	if (cg->version == KN_CGROUP_V2 &&
	    faccessat(cg->dir[MEMORY], "cgroup.kill", W_OK, 0) == 0)
		return write_at(cg->dir[MEMORY], "cgroup.kill", "1", err);
	/* Version 1: until a look finds nobody; pids.max = 0 keeps new ones from appearing. */
	if (cg->dir[PIDS] >= 0)
		(void)!write_at(cg->dir[PIDS], "pids.max", "0", NULL);
	for (int round = 0; round < 16; round++) {
		int n = kill_members(cg->dir[MEMORY]);
		if (n <= 0)
			return n < 0 ? kn_fail(err, -n, "list a cgroup: %s", strerror(-n)) : 0;
		usleep(500);
	}
	return 0;
}

/* The parents that kn_cgroup_new made go with their last child; one in use refuses. */
static void drop_empty_parents(const char *path, unsigned levels)
{
	char at[PATH_BYTES];

	memcpy(at, path, sizeof(at));
	for (; levels > 0; levels--) {
		char *slash = strrchr(at, '/');
		if (!slash || slash == at)
			return;
		*slash = '\0';
		if (rmdir(at) < 0)
			return;
	}
}

int kn_cgroup_remove(const struct kn_cgroup *cg, struct kn_err *err)
{
	int r = 0;

	for (int i = 0; i < N_DIRS; i++) {
		if (!cg->path[i][0])
			continue;
		if (rmdir(cg->path[i]) < 0 && errno != ENOENT)
			r = kn_fail(err, errno, "remove cgroup %s: %s", cg->path[i],
			            strerror(errno));
		else
			drop_empty_parents(cg->path[i], cg->parents);
	}
	return r;
}

static int stats_v1(const struct kn_cgroup *cg, struct kn_cgroup_stats *ret, struct kn_err *err)
{
	char text[512];

	int r = read_at(cg->dir[MEMORY], "memory.usage_in_bytes", text, sizeof(text), err);
	if (r < 0)
		return r;
	ret->memory_bytes = strtoull(text, NULL, 10);
	r = read_at(cg->dir[MEMORY], "memory.oom_control", text, sizeof(text), err);
	if (r < 0)
		return r;
	ret->oom_kills = number_after(text, "oom_kill");
	int acct = cg->dir[CPUACCT] >= 0 ? cg->dir[CPUACCT] : cg->dir[CPU];
	if (acct < 0)
		return 0;
	r = read_at(acct, "cpuacct.usage", text, sizeof(text), err);
	if (r == 0)
		ret->cpu_ns = strtoull(text, NULL, 10);
	return r;
}

static int stats_v2(const struct kn_cgroup *cg, struct kn_cgroup_stats *ret, struct kn_err *err)
{
	char text[1024];

	int r = read_at(cg->dir[MEMORY], "memory.current", text, sizeof(text), err);
	if (r < 0)
		return r;
	ret->memory_bytes = strtoull(text, NULL, 10);
	r = read_at(cg->dir[MEMORY], "memory.events", text, sizeof(text), err);
	if (r < 0)
		return r;
	ret->oom_kills = number_after(text, "oom_kill");
	r = read_at(cg->dir[MEMORY], "cpu.stat", text, sizeof(text), err);
	if (r == 0)
		ret->cpu_ns = number_after(text, "usage_usec") * 1000;
	return r;
}

int kn_cgroup_stats(const struct kn_cgroup *cg, struct kn_cgroup_stats *ret, struct kn_err *err)
{
	struct kn_cgroup_stats s = { .memory_bytes = 0 };

	int r = cg->version == KN_CGROUP_V2 ? stats_v2(cg, &s, err) : stats_v1(cg, &s, err);
	if (r == 0)
		*ret = s;
	return r;
}

/* ---- sweep --------------------------------------------------------------------------------- */

static size_t sweep_folder(const char *folder)
{
	size_t n = 0;
	struct dirent *e;

	DIR *d = opendir(folder);
	if (!d)
		return 0;
	while ((e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.' &&
		    unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) == 0)
			n++;
	closedir(d);
	rmdir(folder);
	return n;
}

size_t kn_cgroup_sweep(const struct kn_cgroup_host *host, const char *parent)
{
	struct kn_cgroup_host h = *host;
	size_t n = 0;

	for (int i = 0; i < N_DIRS; i++) {
		char folder[PATH_BYTES];
		if (mount_of(&h, i)[0] && snprintf(folder, sizeof(folder), "%s/%s", mount_of(&h, i),
		                                   parent) < (int)sizeof(folder))
			n = kn_max(n, sweep_folder(folder));
	}
	return n;
}
