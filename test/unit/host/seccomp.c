/*
 * The short filter, in a child: it cannot be taken back.
 */
#include "test.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/seccomp.h"

/* 0 as it should be; else what was wrong. */
static int inside(void)
{
	static const long calls[] = { SYS_write, SYS_getppid, SYS_exit_group };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    kn_seccomp_allow(calls, KN_ARRAY_LEN(calls), NULL) < 0)
		return 1;
	if (syscall(SYS_write, 1, "", 0) != 0 || syscall(SYS_getppid) <= 0)
		return 2;
	if (syscall(SYS_getpid) != -1 || errno != EPERM)
		return 3;
	if (syscall(SYS_socket, 2, 1, 0) != -1 || errno != EPERM)
		return 4;
	return 0;
}

static void only_what_is_listed_passes(void **state)
{
	int status;

	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		syscall(SYS_exit_group, inside());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void too_long_a_list_is_refused(void **state)
{
	long calls[KN_SECCOMP_LIST_MAX + 1] = { 0 };
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_fails(kn_seccomp_allow(calls, KN_ARRAY_LEN(calls), &err), EINVAL, &err, "at most");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_what_is_listed_passes),
		cmocka_unit_test(too_long_a_list_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
