/* The filter is compiled, loaded in a child with no_new_privs, and asked by real system calls. */
#include "host/seccomp_profile.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/caps.h"
#include "host/seccomp.h"
#include "test.h"

#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif

static struct kn_buf filter;

static int compile(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(kn_seccomp_compile(KN_CAPS_CONTAINER, &filter, &err), &err);
	return 0;
}

static int release(void **state)
{
	(void)state;
	kn_buf_fini(&filter);
	return 0;
}

/* The errno that a call fails with under the filter; 0 when it succeeds. */
static int under(const struct kn_buf *program, long (*call)(void))
{
	int status;

	pid_t pid = fork();
	if (pid == 0) {
		if (kn_no_new_privs(NULL) < 0 || kn_seccomp_load(kn_buf_view(program), NULL) < 0)
			_exit(255);
		errno = 0;
		_exit(call() < 0 ? errno : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#define CALL(name, expression)                                                                     \
	static long name(void)                                                                     \
	{                                                                                          \
		return (long)(expression);                                                         \
	}

CALL(mount_something, mount("none", "/tmp", "tmpfs", 0, NULL))
CALL(new_user_namespace, unshare(CLONE_NEWUSER))
CALL(enter_namespace, setns(-1, 0))
CALL(add_a_key, syscall(SYS_add_key, "user", "a", "b", 1, -2))
CALL(keyring, syscall(SYS_keyctl, 0, -3, 0))
CALL(load_module, syscall(SYS_finit_module, -1, "", 0))
CALL(run_bpf, syscall(SYS_bpf, 0, NULL, 0))
CALL(user_faults, syscall(SYS_userfaultfd, 0))
CALL(io_ring, syscall(SYS_io_uring_setup, 1, NULL))
CALL(restart_machine, syscall(SYS_reboot, 0, 0, 0, NULL))
CALL(open_by_handle, syscall(SYS_open_by_handle_at, -1, NULL, 0))
CALL(read_kernel_log, syscall(SYS_syslog, 10, NULL, 0))
CALL(swap, syscall(SYS_swapon, "/dev/null", 0))
CALL(vsock, socket(AF_VSOCK, SOCK_STREAM, 0))
CALL(no_address_randomization, personality(ADDR_NO_RANDOMIZE))
CALL(clone_with_namespace, syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0))
CALL(clone3, syscall(SYS_clone3, NULL, 0))
CALL(future_call, syscall(500, 0))
CALL(x32_call, syscall(0x40000000 + 39))

CALL(what_personality, personality(0xffffffff))
CALL(unix_socket, socket(AF_UNIX, SOCK_STREAM, 0))
CALL(plain_fork, fork() < 0 ? -1 : 0)
CALL(open_null, open("/dev/null", O_RDWR))
CALL(who_am_i, syscall(SYS_getuid) < 0 ? -1 : 0)

static long name_of_machine(void)
{
	struct utsname u;

	return uname(&u);
}

static void what_is_dangerous_is_not_permitted(void **state)
{
	static long (*const calls[])(void) = {
		mount_something, new_user_namespace, enter_namespace, add_a_key, keyring, load_module,
		run_bpf, user_faults, io_ring, restart_machine, open_by_handle, read_kernel_log, swap,
		vsock, no_address_randomization, clone_with_namespace,
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(calls); i++)
		if (under(&filter, calls[i]) != EPERM)
			fail_msg("call %zu failed with %d", i, under(&filter, calls[i]));
}

static void what_is_unknown_is_not_implemented(void **state)
{
	static long (*const calls[])(void) = { clone3, future_call, x32_call };

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(calls); i++)
		assert_int_equal(under(&filter, calls[i]), ENOSYS);
}

static void what_programs_need_works(void **state)
{
	static long (*const calls[])(void) = { what_personality, unix_socket, plain_fork, open_null,
		                               who_am_i, name_of_machine };

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(calls); i++)
		assert_int_equal(under(&filter, calls[i]), 0);
}

static void capabilities_bring_their_calls(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_buf more = KN_BUF_INIT;

	(void)state;
	assert_ok(kn_seccomp_compile(UINT64_C(1) << CAP_SYS_ADMIN, &more, &err), &err);
	/* Permitted by the filter, refused by the kernel for its arguments. */
	assert_int_equal(under(&more, enter_namespace), EBADF);
	assert_int_equal(under(&more, clone3), EINVAL);
	assert_int_equal(under(&more, load_module), EPERM);
	kn_buf_fini(&more);
}

static void a_filter_that_is_none_is_refused(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_fails(kn_seccomp_load(KN_VIEW("1234567"), &err), EINVAL, &err, "filter of 7 bytes");
	assert_fails(kn_seccomp_load(KN_VIEW_NULL, &err), EINVAL, &err, "filter of 0 bytes");
	assert_true(filter.len > 1000 && filter.len % sizeof(struct sock_filter) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_dangerous_is_not_permitted),
		cmocka_unit_test(what_is_unknown_is_not_implemented),
		cmocka_unit_test(what_programs_need_works),
		cmocka_unit_test(capabilities_bring_their_calls),
		cmocka_unit_test(a_filter_that_is_none_is_refused),
	};
	return cmocka_run_group_tests(tests, compile, release);
}
