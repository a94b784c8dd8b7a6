#include "guest.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/http.h"
#include "host/cgroup.h"
#include "host/process.h"
#include "test.h"

struct kn_loop *guest_loop;
struct kn_sandbox_qemu_config guest_driver;
const struct kn_sandbox_ops *guest_ops;
char guest_folder[64], guest_cgroup[64];

static char kernel[512], initramfs[512], preload[512];
static const void *driver;
static unsigned number;

/*
 * What a case began, apart from the variables of its own: when a check fails, those are gone with its
 * stack, and what still runs must not be told about.
 */
static struct live {
	struct kn_sandbox *sb; /* NULL: it has ended */
	struct guest *guest;   /* NULL: nobody listens any more */
	char run_dir[128];
} lives[32];

static struct ask {
	struct kn_http_client *client; /* NULL: this place is free */
	struct reply *reply;
} asks[16];

/* ---- image --------------------------------------------------------------------------------- */

static void put(const char *name, const char *text, mode_t mode)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/root/%s", guest_folder, name);
	assert_int_equal(kn_write_file(AT_FDCWD, path, text, strlen(text), mode, NULL), 0);
}

static void run(const char *const *argv)
{
	char program[256];
	struct kn_err err = KN_ERR_INIT;
	pid_t pid;
	int status;

	assert_ok(kn_find_program(argv[0], "/usr/bin:/bin:/usr/sbin:/sbin", program,
				  sizeof(program), &err),
		  &err);
	struct kn_spawn_config c = { .path = program, .argv = argv };
	assert_ok(kn_spawn(&c, &pid, NULL, &err), &err);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("%s ended with status %d", argv[0], status);
}

static void add_program(const char *build, const char *name, const char *as)
{
	char from[512], to[160];

	snprintf(from, sizeof(from), "%s/test/host/%s", build, name);
	snprintf(to, sizeof(to), "%s/root/%s", guest_folder, as);
	run((const char *[]){ "cp", from, to, NULL });
}

static void make_image(const char *build, const char *const *programs)
{
	char root[96], image[96];

	snprintf(root, sizeof(root), "%s/root", guest_folder);
	snprintf(image, sizeof(image), "%s/image.erofs", guest_folder);
	mkdir(root, 0755);
	add_program(build, "payload", "app");
	for (; programs && *programs; programs++)
		add_program(build, *programs, *programs);
	char etc[160];
	snprintf(etc, sizeof(etc), "%s/etc", root);
	mkdir(etc, 0755);
	put("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n", 0644);
	put("etc/group", "root:x:0:\napp:x:1001:\nstaff:x:50:app\n", 0644);
	put("text", "echo no first line\n", 0755);
	put("script", "#!/bin/python9\n", 0755);
	put("data", "not a program\n", 0644);
	run((const char *[]){ "mkfs.erofs", "--quiet", image, root, NULL });
	/* Nobody but root may read it: the driver hands QEMU a descriptor. */
	assert_int_equal(chmod(image, 0600), 0);
}

_Noreturn void guest_skip(const char *thing, const char *why)
{
	const char *declared = getenv("KN_DECLARED");

	printf("1..0 # SKIP %s\n", why);
	exit(declared && strstr(declared, thing));
}

int guest_setup_with(const char *build, const struct kn_sandbox_ops *ops, const void *with,
		     const char *const *programs)
{
	struct kn_err err = KN_ERR_INIT;

	guest_ops = ops;
	driver = with;
	snprintf(guest_folder, sizeof(guest_folder), "/tmp/kn-guest-XXXXXX");
	if (ops->check(driver, &err) < 0)
		guest_skip("qemu", err.text);
	if (!mkdtemp(guest_folder) || kn_loop_new(&guest_loop, NULL) < 0)
		return 1;
	make_image(build, programs);
	return 0;
}

int guest_setup(const char *build)
{
	snprintf(kernel, sizeof(kernel), "%s/" KN_GUEST_KERNEL, build);
	snprintf(initramfs, sizeof(initramfs), "%s/" KN_GUEST_INITRAMFS, build);
	snprintf(guest_cgroup, sizeof(guest_cgroup), "kiln-test-%d", getpid());
	guest_driver = KN_SANDBOX_QEMU_DEFAULTS;
	guest_driver.kernel = kernel;
	guest_driver.initramfs = initramfs;
	snprintf(preload, sizeof(preload), "%s/" KN_QEMU_PRELOAD, build);
	guest_driver.preload = preload;
	guest_driver.cgroup = guest_cgroup;
	static const char *const programs[] = { "hostile", NULL };
	return guest_setup_with(build, &kn_sandbox_qemu, &guest_driver, programs);
}

void guest_teardown(void)
{
	kn_loop_free(guest_loop);
	(void)!kn_remove_tree(AT_FDCWD, guest_folder, NULL);
}

/* ---- events -------------------------------------------------------------------------------- */

static void on_ready(struct kn_sandbox *sb, void *arg)
{
	(void)sb;
	if (((struct live *)arg)->guest)
		((struct live *)arg)->guest->ready = true;
}

static void on_log(struct kn_sandbox *sb, enum kn_stream stream, struct kn_view line, void *arg)
{
	struct guest *g = ((struct live *)arg)->guest;

	(void)sb;
	if (!g)
		return;
	assert_true(line.len <= 4096);
	kn_buf_add_view(&g->log[stream], line);
	kn_buf_adds(&g->log[stream], "\n");
}

static void on_ended(struct kn_sandbox *sb, const struct kn_err *why, void *arg)
{
	struct live *l = arg;
	struct guest *g = l->guest;

	assert_ptr_equal(sb, l->sb);
	l->sb = NULL;
	if (!g)
		return;
	assert_false(g->ended);
	g->ended = true;
	g->why = *why;
}

struct kn_sandbox_config guest_config(const char *const *argv)
{
	static char image[96];

	snprintf(image, sizeof(image), "%s/image.erofs", guest_folder);
	return (struct kn_sandbox_config){ .image = image,
					   .argv = argv,
					   .contract = KN_CONTRACT_HTTP,
					   .port = 8080,
					   .memory_bytes = UINT64_C(128) << 20,
					   .vcpus = 1,
					   .boot_timeout_ms = GUEST_SECONDS * 1000,
					   .ready_timeout_ms = GUEST_SECONDS * 1000,
					   .max_reply_bytes = UINT64_C(64) << 20 };
}

void guest_wait(const bool *flag)
{
	uint64_t end = kn_now_ns() + GUEST_SECONDS * KN_NS_PER_S;

	while (!*flag) {
		assert_true(kn_loop_once(guest_loop, 1000) >= 0);
		if (kn_now_ns() > end)
			fail_msg("nothing happened for %d s", GUEST_SECONDS);
	}
}

static struct live *free_place(void)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(lives); i++)
		if (!lives[i].sb)
			return &lives[i];
	fail_msg("more than %zu guests at once", KN_ARRAY_LEN(lives));
	return NULL;
}

void guest_start(struct guest *g, struct kn_sandbox_config *config)
{
	struct live *l = free_place();
	struct kn_sandbox_events events = {
		.ready = on_ready, .log = on_log, .ended = on_ended, .arg = l
	};
	struct kn_err err = KN_ERR_INIT;
	char id[32];

	*g = (struct guest){ .sb = NULL };
	snprintf(id, sizeof(id), "test-%u", ++number);
	snprintf(g->run_dir, sizeof(g->run_dir), "%s/%s", guest_folder, id);
	assert_int_equal(mkdir(g->run_dir, 0700), 0);
	config->id = id;
	config->run_dir = g->run_dir;
	*l = (struct live){ .guest = g };
	memcpy(l->run_dir, g->run_dir, sizeof(l->run_dir));
	assert_ok(guest_ops->start(guest_loop, driver, config, &events, &l->sb, &err), &err);
	g->sb = l->sb;
	uint64_t end = kn_now_ns() + GUEST_SECONDS * KN_NS_PER_S;
	while (!g->ready && !g->ended && kn_now_ns() < end)
		assert_true(kn_loop_once(guest_loop, 1000) >= 0);
}

static bool any_alive(void)
{
	bool alive = false;

	for (size_t i = 0; i < KN_ARRAY_LEN(lives); i++)
		alive = alive || lives[i].sb;
	return alive;
}

int guest_clean(void **state)
{
	uint64_t end = kn_now_ns() + GUEST_SECONDS * KN_NS_PER_S;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(asks); i++)
		kn_http_client_free(asks[i].client);
	memset(asks, 0, sizeof(asks));
	for (size_t i = 0; i < KN_ARRAY_LEN(lives); i++) {
		lives[i].guest = NULL;
		if (lives[i].sb)
			guest_ops->stop(lives[i].sb, 0);
	}
	while (any_alive() && kn_now_ns() < end)
		(void)kn_loop_once(guest_loop, 100);
	for (size_t i = 0; i < KN_ARRAY_LEN(lives); i++)
		if (lives[i].run_dir[0] && !lives[i].sb)
			(void)!kn_remove_tree(AT_FDCWD, lives[i].run_dir, NULL);
	return any_alive() ? -1 : 0;
}

/* ---- nothing left -------------------------------------------------------------------------- */

static size_t children(void)
{
	char path[64], text[4096];

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text));
	kn_close(fd);
	return n > 0 ? (size_t)n : 0;
}

void guest_check_nothing(void)
{
	struct kn_buf mounts = KN_BUF_INIT;
	struct kn_cgroup_host host;
	char path[256];

	assert_int_equal(children(), 0);
	assert_int_equal(kn_read_file(AT_FDCWD, "/proc/self/mounts", 1 << 20, &mounts, NULL), 0);
	assert_null(strstr(mounts.ptr, guest_folder));
	kn_buf_fini(&mounts);
	assert_int_equal(kn_cgroup_find("/proc/self/mountinfo", &host, NULL), 0);
	snprintf(path, sizeof(path), "%s/%s", host.memory, guest_cgroup);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof(path), "%s/%s", host.pids, guest_cgroup);
	assert_int_equal(access(path, F_OK), -1);
}

void guest_check_gone(struct guest *g)
{
	assert_true(g->ended);
	/* the run folder is empty again: rmdir is the check */
	assert_int_equal(rmdir(g->run_dir), 0);
	guest_check_nothing();
	for (size_t i = 0; i < 4; i++)
		kn_buf_fini(&g->log[i]);
}

void guest_stop(struct guest *g, uint64_t grace_ms)
{
	if (!g->ended)
		guest_ops->stop(g->sb, grace_ms);
	guest_wait(&g->ended);
	assert_int_equal(g->why.code, 0);
	assert_string_equal(g->why.text, "");
}

bool log_has(const struct guest *g, enum kn_stream stream, const char *text)
{
	return g->log[stream].ptr && strstr(g->log[stream].ptr, text);
}

/* ---- HTTP ---------------------------------------------------------------------------------- */

static void on_head(struct kn_http_client *c, const struct kn_http_head *head, void *arg)
{
	(void)c;
	((struct ask *)arg)->reply->status = head->status;
}

static void on_data(struct kn_http_client *c, struct kn_view data, void *arg)
{
	(void)c;
	kn_buf_add_view(&((struct ask *)arg)->reply->body, data);
}

static void on_end(struct kn_http_client *c, bool reusable, void *arg)
{
	struct ask *a = arg;

	(void)reusable;
	a->reply->complete = a->reply->done = true;
	*a = (struct ask){ NULL, NULL };
	kn_http_client_free(c);
}

static void on_failed(struct kn_http_client *c, const struct kn_err *err, void *arg)
{
	struct ask *a = arg;

	a->reply->err = *err;
	a->reply->done = true;
	*a = (struct ask){ NULL, NULL };
	kn_http_client_free(c);
}

static struct ask *free_ask(void)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(asks); i++)
		if (!asks[i].client)
			return &asks[i];
	fail_msg("more than %zu requests at once", KN_ARRAY_LEN(asks));
	return NULL;
}

struct kn_http_client *guest_begin(struct guest *g, const char *method, const char *path,
				   int64_t length, struct reply *ret)
{
	static const struct kn_header headers[] = { { KN_VIEW("Host"), KN_VIEW("guest") },
						    { KN_VIEW("X-Test"), KN_VIEW("a b") } };
	struct ask *a = free_ask();
	struct kn_http_client_hooks hooks = {
		.head = on_head, .data = on_data, .end = on_end, .failed = on_failed, .arg = a
	};
	struct kn_http_client *c;
	struct kn_err err = KN_ERR_INIT;
	int fd;

	*ret = (struct reply){ .status = 0 };
	assert_ok(guest_ops->connect(g->sb, &fd, &err), &err);
	assert_ok(kn_http_client_new(guest_loop, fd, &c, &err), &err);
	*a = (struct ask){ c, ret };
	kn_http_client_begin(c, kn_view_of(method), kn_view_of(path), headers, 2, length, &hooks);
	return c;
}

void guest_ask(struct guest *g, const char *method, const char *path, const void *body, size_t len,
	       struct reply *ret)
{
	struct kn_http_client *c = guest_begin(g, method, path, (int64_t)len, ret);

	if (len > 0)
		kn_http_client_write(c, (struct kn_view){ body, len });
	kn_http_client_finish(c);
	guest_wait(&ret->done);
}

void reply_fini(struct reply *r)
{
	kn_buf_fini(&r->body);
}
