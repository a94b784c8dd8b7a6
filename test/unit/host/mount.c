/* Images as mounts. Needs root, a kernel with erofs and mkfs.erofs; what is missing skips. */
#include "host/mount.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/process.h"
#include "host/userns.h"
#include "test.h"
#include "users.h"

enum { FIRST = 300000000, COUNT = 65536 };

static char folder[] = "/tmp/kn-mount-XXXXXX", image[64], at[64];

static bool run(const char *const *argv)
{
	struct kn_spawn_config c = { .path = argv[0], .argv = argv };
	pid_t pid;
	int status;

	if (kn_spawn(&c, &pid, NULL, NULL) < 0)
		return false;
	return waitpid(pid, &status, 0) == pid && status == 0;
}

/* An image with one file of user 7 in it. */
static int make_image(void **state)
{
	char tree[64], file[64];

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(image, sizeof(image), "%s/image", folder);
	snprintf(at, sizeof(at), "%s/at", folder);
	snprintf(tree, sizeof(tree), "%s/tree", folder);
	snprintf(file, sizeof(file), "%s/tree/seven", folder);
	if (geteuid() != 0)
		return 0;
	if (mkdir(at, 0755) < 0 || mkdir(tree, 0755) < 0 ||
	    kn_write_file(AT_FDCWD, file, "7\n", 2, 0640, NULL) < 0 || chown(file, 7, 7) < 0)
		return -1;
	const char *argv[] = { "/usr/bin/mkfs.erofs", image, tree, NULL };
	return run(argv) && unshare(CLONE_NEWNS) == 0 && kn_mount_private(NULL) == 0 ? 0 : -1;
}

static int remove_image(void **state)
{
	(void)state;
	return kn_remove_tree(AT_FDCWD, folder, NULL);
}

static int open_image(const char *source)
{
	struct kn_err err = KN_ERR_INIT;

	if (geteuid() != 0)
		skip();
	int fd = kn_mount_open(source, "erofs", &err);
	if (fd == -ENODEV)
		skip();
	assert_ok(fd, &err);
	return fd;
}

static uid_t owner_at_place(int fd)
{
	struct kn_err err = KN_ERR_INIT;
	char path[80];
	struct stat st;

	assert_ok(kn_mount_place(fd, at, &err), &err);
	snprintf(path, sizeof(path), "%s/seven", at);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(open(path, O_WRONLY), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(umount2(at, MNT_DETACH), 0);
	return st.st_uid;
}

static void an_image_file_is_mounted_where_it_is_placed(void **state)
{
	(void)state;
	kn_auto(kn_close) int fd = open_image(image);
	assert_int_equal(owner_at_place(fd), 7);
}

static void a_loop_device_goes_with_its_mount(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	char device[32];

	(void)state;
	if (geteuid() != 0 || access("/dev/loop-control", R_OK | W_OK) < 0)
		skip();
	kn_auto(kn_close) int loop = kn_loop_device(image, device, &err);
	assert_ok(loop, &err);
	kn_auto(kn_close) int fd = open_image(device);
	kn_close(kn_take_fd(loop));
	assert_int_equal(owner_at_place(fd), 7);
}

static void owners_are_shifted_by_a_user_namespace(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	if (!has_users())
		skip();
	kn_auto(kn_close) int fd = open_image(image);
	kn_auto(kn_close) int userns = kn_userns_new(FIRST, COUNT, &err);
	assert_ok(userns, &err);
	kn_auto(kn_close) int copy = kn_mount_copy(fd, &err);
	if (copy == -EINVAL)
		skip();   /* before Linux 6.15 */
	assert_ok(copy, &err);
	assert_ok(kn_mount_shift(copy, userns, &err), &err);
	assert_int_equal(owner_at_place(copy), FIRST + 7);
	assert_int_equal(owner_at_place(fd), 7);
}

static void the_kernels_reason_is_told(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(kn_mount_open("/bin/sh", "nosuchfs", &err), -ENODEV);
	assert_non_null(strstr(err.text, "this kernel does not have it"));
	err = KN_ERR_INIT;
	int fd = kn_mount_open("/bin/sh", "erofs", &err);
	assert_true(fd < 0);
	assert_non_null(strstr(err.text, "/bin/sh"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_image_file_is_mounted_where_it_is_placed),
		cmocka_unit_test(a_loop_device_goes_with_its_mount),
		cmocka_unit_test(owners_are_shifted_by_a_user_namespace),
		cmocka_unit_test(the_kernels_reason_is_told),
	};
	return cmocka_run_group_tests(tests, make_image, remove_image);
}
