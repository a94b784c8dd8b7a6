/* A namespace is entered by a child, which looks at itself. Needs root. */
#include "host/userns.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "test.h"
#include "users.h"

enum { FIRST = 300000000, COUNT = 1000 };

static void is_root_inside_and_nobody_outside(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	int status;

	(void)state;
	if (!has_users())
		skip();
	kn_auto(kn_close) int fd = kn_userns_new(FIRST, COUNT, &err);
	assert_ok(fd, &err);
	pid_t pid = fork();
	if (pid == 0) {
		struct kn_buf map = KN_BUF_INIT;
		if (kn_userns_enter(fd, NULL) < 0)
			_exit(1);
		if (kn_read_file(AT_FDCWD, "/proc/self/uid_map", 100, &map, NULL) < 0 ||
		    !strstr(map.ptr, "300000000") || !strstr(map.ptr, "1000"))
			_exit(2);
		if (geteuid() != 0 || getegid() != 0 || getgroups(0, NULL) != 0)
			_exit(3);
		_exit(open("/etc/shadow", O_RDONLY) < 0 && errno == EACCES ? 0 : 4);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void a_range_that_does_not_exist_is_refused(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	if (!has_users())
		skip();
	assert_int_equal(kn_userns_new(UINT32_MAX - 10, 1000, &err), -EINVAL);
	assert_non_null(strstr(err.text, "map 1000 ids"));
	assert_int_equal(waitpid(-1, NULL, __WALL | WNOHANG), -1);   /* no child is left */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_root_inside_and_nobody_outside),
		cmocka_unit_test(a_range_that_does_not_exist_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
