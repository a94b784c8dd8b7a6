#include "test.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

/* Each test works in a folder of its own, which its end removes. */
struct place {
	char path[64];
	int fd;
};

static int enter(void **state)
{
	struct place *p = malloc(sizeof(*p));

	if (!p)
		return -1;
	strcpy(p->path, "/tmp/kn-unit-fd.XXXXXX");
	if (!mkdtemp(p->path))
		return -1;
	p->fd = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = p;
	return p->fd < 0 ? -1 : 0;
}

static int leave(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;
	int r = kn_remove_tree(AT_FDCWD, p->path, &err);

	if (r < 0)
		fprintf(stderr, "%s\n", kn_err_text(&err));
	close(p->fd);
	free(p);
	return r;
}

static bool exists(int dirfd, const char *path)
{
	return faccessat(dirfd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int put_file(int dirfd, const char *path, const char *text)
{
	struct kn_err err = KN_ERR_INIT;
	int r = kn_write_file(dirfd, path, text, strlen(text), 0644, &err);

	assert_ok(r, &err);
	return r;
}

static void files_are_replaced_whole(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	struct stat st;

	put_file(p->fd, "a", "one");
	assert_ok(kn_write_file(p->fd, "a", "two\0", 4, 0600, &err), &err);
	assert_int_equal(fstatat(p->fd, "a", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	kn_buf_adds(&b, "before ");
	assert_ok(kn_read_file(p->fd, "a", 4, &b, &err), &err);
	assert_int_equal(b.len, 11);
	assert_memory_equal(b.ptr, "before two\0", 12);
}

static void failed_write_leaves_the_old_file_and_no_other(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;

	assert_fails(kn_write_file(p->fd, "none/a", "x", 1, 0600, &err), ENOENT, &err, "none/a");
	assert_int_equal(mkdirat(p->fd, "folder", 0700), 0);
	assert_fails(kn_write_file(p->fd, "folder", "x", 1, 0600, &err), EISDIR, &err, "folder");
	assert_int_equal(unlinkat(p->fd, "folder", AT_REMOVEDIR), 0);
	/* Nothing but the two dots is left. */
	assert_int_equal(rmdir(p->path), 0);
	assert_int_equal(mkdir(p->path, 0700), 0);
}

static void too_large_files_are_refused(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	put_file(p->fd, "a", "12345");
	assert_fails(kn_read_file(p->fd, "a", 4, &b, &err), EFBIG, &err, "larger than 4");
	assert_int_equal(b.len, 0);
	assert_fails(kn_read_file(p->fd, "b", 4, &b, &err), ENOENT, &err, "open 'b'");
	assert_fails(kn_read_file(p->fd, ".", 4, &b, &err), EISDIR, &err, "read '.'");
	assert_ok(kn_read_file(AT_FDCWD, "/proc/self/stat", 1 << 20, &b, &err), &err);
	assert_true(b.len > 10);
}

static void large_files_come_whole(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf out = KN_BUF_INIT, in = KN_BUF_INIT;

	for (unsigned i = 0; i < 20000; i++)
		kn_buf_printf(&out, "%05u", i);
	assert_ok(kn_write_file(p->fd, "a", out.ptr, out.len, 0600, &err), &err);
	assert_ok(kn_read_file(p->fd, "a", out.len, &in, &err), &err);
	assert_int_equal(in.len, out.len);
	assert_memory_equal(in.ptr, out.ptr, out.len);
}

static void folders_are_made_on_the_way(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;
	struct stat st;

	assert_ok(kn_mkdirs(p->fd, "a/b//c/", 0700, &err), &err);
	assert_ok(kn_mkdirs(p->fd, "a/b/c", 0700, &err), &err);
	assert_int_equal(fstatat(p->fd, "a/b/c", &st, 0), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0700);
	put_file(p->fd, "a/file", "");
	assert_fails(kn_mkdirs(p->fd, "a/file", 0700, &err), ENOTDIR, &err, "a/file");
	assert_fails(kn_mkdirs(p->fd, "a/file/x", 0700, &err), ENOTDIR, &err, "a/file");

	char absolute[128];
	snprintf(absolute, sizeof(absolute), "%s/x/y", p->path);
	assert_ok(kn_mkdirs(AT_FDCWD, absolute, 0755, &err), &err);
	assert_true(exists(p->fd, "x/y"));
}

static void trees_go_but_not_what_links_name(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_mkdirs(p->fd, "keep", 0700, &err), &err);
	put_file(p->fd, "keep/file", "kept");
	assert_ok(kn_mkdirs(p->fd, "tree/a/b", 0700, &err), &err);
	put_file(p->fd, "tree/a/b/file", "");
	put_file(p->fd, "tree/file", "");
	assert_int_equal(symlinkat("../keep", p->fd, "tree/link"), 0);
	assert_int_equal(symlinkat("/nowhere", p->fd, "tree/a/dangling"), 0);
	assert_int_equal(mkfifoat(p->fd, "tree/fifo", 0600), 0);
	assert_ok(kn_remove_tree(p->fd, "tree", &err), &err);
	assert_false(exists(p->fd, "tree"));
	assert_true(exists(p->fd, "keep/file"));

	assert_ok(kn_remove_tree(p->fd, "tree", &err), &err);      /* missing is fine */
	assert_int_equal(symlinkat("keep", p->fd, "link"), 0);
	assert_ok(kn_remove_tree(p->fd, "link", &err), &err);      /* the link, not its target */
	assert_true(exists(p->fd, "keep/file"));
	assert_ok(kn_remove_tree(p->fd, "keep/file", &err), &err);
	assert_false(exists(p->fd, "keep/file"));
}

/* Deeper than PATH_MAX and than the descriptors that a recursion would need. */
static void very_deep_trees_go(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;
	int at = dup(p->fd);

	for (int i = 0; i < 3000; i++) {
		assert_int_equal(mkdirat(at, "a-folder", 0700), 0);
		int next = openat(at, "a-folder", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(at);
		at = next;
		if (i % 100 == 0)
			put_file(at, "file", "");
	}
	close(at);
	assert_ok(kn_remove_tree(p->fd, "a-folder", &err), &err);
	assert_false(exists(p->fd, "a-folder"));
}

/* Exit code 0: a bind mount of the same file system, inside the tree, was refused and kept. */
static int remove_around_a_mount(const struct place *p)
{
	struct kn_err err = KN_ERR_INIT;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	if (chdir(p->path) < 0 || mount("keep", "tree/mounted", NULL, MS_BIND, NULL) < 0)
		return 1;
	if (kn_remove_tree(AT_FDCWD, "tree", &err) != -EXDEV || !strstr(err.text, "unmount it first"))
		return 2;
	return exists(AT_FDCWD, "keep/file") && exists(AT_FDCWD, "tree/mounted/file") ? 0 : 3;
}

static void what_is_mounted_inside_is_never_removed(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;
	int status = 0;

	assert_ok(kn_mkdirs(p->fd, "keep", 0700, &err), &err);
	assert_ok(kn_mkdirs(p->fd, "tree/mounted", 0700, &err), &err);
	put_file(p->fd, "keep/file", "kept");
	pid_t child = fork();
	if (child == 0)
		_exit(remove_around_a_mount(p));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();   /* not root */
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void paths_stay_inside_their_root(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_mkdirs(p->fd, "root/etc", 0700, &err), &err);
	put_file(p->fd, "outside", "secret");
	put_file(p->fd, "root/etc/inside", "");
	assert_int_equal(symlinkat("../../outside", p->fd, "root/up"), 0);
	assert_int_equal(symlinkat("/etc", p->fd, "root/absolute"), 0);
	assert_int_equal(symlinkat("/proc/self/root", p->fd, "root/magic"), 0);
	kn_auto(kn_close) int root = openat(p->fd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	kn_auto(kn_close) int in = kn_open_in(root, "absolute/inside", O_RDONLY, 0, &err);
	assert_ok(in, &err);
	assert_true(fcntl(in, F_GETFD) & FD_CLOEXEC);
	kn_auto(kn_close) int same = kn_open_in(root, "../../etc/inside", O_RDONLY, 0, &err);
	assert_ok(same, &err);
	kn_auto(kn_close) int made = kn_open_in(root, "/new", O_RDWR | O_CREAT, 0600, &err);
	assert_ok(made, &err);
	assert_true(exists(p->fd, "root/new"));
	assert_fails(kn_open_in(root, "up", O_RDONLY, 0, &err), ENOENT, &err, "open 'up'");
	assert_fails(kn_open_in(root, "../outside", O_RDONLY, 0, &err), ENOENT, &err, "outside");
	assert_fails(kn_open_in(root, "magic/etc", O_RDONLY, 0, &err), ENOENT, &err, "magic");
}

static void descriptors_travel_with_bytes(void **state)
{
	struct place *p = *state;
	int pair[2], got[8];
	size_t n = 99;
	char text[8];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	const int sent[] = { p->fd, pair[0] };
	assert_int_equal(kn_send_fds(pair[0], "abc", 3, sent, 2), 0);
	assert_int_equal(kn_recv_fds(pair[1], text, sizeof(text), got, 8, &n), 3);
	assert_memory_equal(text, "abc", 3);
	assert_int_equal(n, 2);
	struct stat a, b;
	assert_int_equal(fstat(p->fd, &a), 0);
	assert_int_equal(fstat(got[0], &b), 0);
	assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
	for (size_t i = 0; i < n; i++) {
		assert_true(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
		close(got[i]);
	}

	assert_int_equal(kn_send_fds(pair[0], "", 0, NULL, 0), -EINVAL);
	assert_int_equal(kn_send_fds(pair[0], "x", 1, sent, 9), -EINVAL);
	assert_int_equal(kn_send_fds(pair[0], "x", 1, NULL, 0), 0);
	assert_int_equal(kn_recv_fds(pair[1], text, sizeof(text), got, 8, &n), 1);
	assert_int_equal(n, 0);
	close(pair[0]);
	assert_int_equal(kn_recv_fds(pair[1], text, sizeof(text), got, 8, &n), 0);
	close(pair[1]);
}

/* The lowest free descriptor number tells whether one leaked. */
static int lowest_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(fd);
	return fd;
}

static void descriptors_without_a_place_are_closed(void **state)
{
	(void)state;
	int pair[2], got[2];
	size_t n;
	char c;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	int before = lowest_fd();
	const int sent[] = { 0, 1, 2, pair[0] };
	assert_int_equal(kn_send_fds(pair[0], "x", 1, sent, 4), 0);
	assert_int_equal(kn_recv_fds(pair[1], &c, 1, got, 2, &n), 1);
	assert_int_equal(n, 2);
	close(got[0]);
	close(got[1]);
	assert_int_equal(lowest_fd(), before);
	assert_int_equal(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(kn_recv_fds(pair[1], &c, 1, got, 2, &n), -EAGAIN);
	close(pair[0]);
	close(pair[1]);
}

static void unix_sockets_listen_once(void **state)
{
	struct place *p = *state;
	struct kn_err err = KN_ERR_INIT;
	char path[128], longest[200];
	struct stat st;

	snprintf(path, sizeof(path), "%s/s", p->path);
	assert_fails(kn_unix_connect(path, &err), ENOENT, &err, path);
	int first = kn_unix_listen(path, &err);
	assert_ok(first, &err);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	kn_auto(kn_close) int client = kn_unix_connect(path, &err);
	assert_ok(client, &err);
	assert_true(fcntl(client, F_GETFL) & O_NONBLOCK);
	assert_fails(kn_unix_listen(path, &err), EADDRINUSE, &err, "in use");
	close(first);

	kn_auto(kn_close) int second = kn_unix_listen(path, &err);   /* replaces the old socket */
	assert_ok(second, &err);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_fails(kn_unix_listen(longest, &err), ENAMETOOLONG, &err, "107");
	assert_fails(kn_unix_connect("", &err), ENAMETOOLONG, &err, "107");
	put_file(p->fd, "file", "precious");
	snprintf(path, sizeof(path), "%s/file", p->path);
	assert_fails(kn_unix_listen(path, &err), EADDRINUSE, &err, "bind");
	assert_true(exists(p->fd, "file"));
}

static void tcp_takes_a_free_port_and_names_it(void **state)
{
	(void)state;
	static const char *const anywhere[] = { "127.0.0.1:0", "localhost:0", "[::1]:0" };

	for (size_t i = 0; i < KN_ARRAY_LEN(anywhere); i++) {
		struct kn_err err = KN_ERR_INIT;
		char name[64], tiny[4];
		kn_auto(kn_close) int server = kn_tcp_listen(anywhere[i], &err);
		if (server == -EADDRNOTAVAIL || server == -EAFNOSUPPORT)
			continue;   /* no IPv6 on this machine */
		assert_ok(server, &err);
		assert_int_equal(kn_tcp_name(server, name, sizeof(name)), 0);
		assert_int_equal(kn_tcp_name(server, tiny, sizeof(tiny)), -ENOSPC);
		kn_auto(kn_close) int client = kn_tcp_connect(name, &err);
		assert_ok(client, &err);
		assert_fails(kn_tcp_listen(name, &err), EADDRINUSE, &err, name);
	}
}

static void bad_addresses_are_refused(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x",
		"example.org:80", "::1:80", "[::1:80", "[]:80", "256.0.0.1:80", "[127.0.0.1]:80",
		"127.0.0.1 :80", ":8080",
		"[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd]:80",
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		assert_fails(kn_tcp_listen(cases[i], &err), EINVAL, &err, cases[i]);
		assert_fails(kn_tcp_connect(cases[i], &err), EINVAL, &err, cases[i]);
	}
}

static void reading_stops_at_the_end(void **state)
{
	(void)state;
	int pipe_fds[2];
	char text[8] = "";

	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	assert_int_equal(kn_write_all(pipe_fds[1], "abcdef", 6), 0);
	close(pipe_fds[1]);
	assert_int_equal(kn_read_all(pipe_fds[0], text, 4), 4);
	assert_int_equal(kn_read_all(pipe_fds[0], text, sizeof(text)), 2);
	assert_memory_equal(text, "ef", 2);
	assert_int_equal(kn_read_all(pipe_fds[0], text, sizeof(text)), 0);
	close(pipe_fds[0]);
	assert_int_equal(kn_read_all(-1, text, 1), -EBADF);
	assert_int_equal(kn_write_all(-1, text, 1), -EBADF);
}

#define IN_PLACE(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_PLACE(files_are_replaced_whole),
		IN_PLACE(failed_write_leaves_the_old_file_and_no_other),
		IN_PLACE(too_large_files_are_refused),
		IN_PLACE(large_files_come_whole),
		IN_PLACE(folders_are_made_on_the_way),
		IN_PLACE(trees_go_but_not_what_links_name),
		IN_PLACE(very_deep_trees_go),
		IN_PLACE(what_is_mounted_inside_is_never_removed),
		IN_PLACE(paths_stay_inside_their_root),
		IN_PLACE(descriptors_travel_with_bytes),
		cmocka_unit_test(descriptors_without_a_place_are_closed),
		IN_PLACE(unix_sockets_listen_once),
		cmocka_unit_test(tcp_takes_a_free_port_and_names_it),
		cmocka_unit_test(bad_addresses_are_refused),
		cmocka_unit_test(reading_stops_at_the_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
