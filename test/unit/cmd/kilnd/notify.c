#include "test.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmd/kilnd/notify.h"

/* The service manager's end, bound to name ('@': in no folder). */
static int listen_at(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, name, strlen(name));
	if (name[0] == '@')
		address.sun_path[0] = '\0';
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

static void assert_hears(int fd, const char *what)
{
	char text[128];
	ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	assert_true(n > 0);
	text[n] = '\0';
	assert_string_equal(text, what);
}

static void manager_hears_at_a_path(void **state)
{
	char dir[] = "/tmp/kn-notify-XXXXXX", path[64];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	int fd = listen_at(path);
	assert_int_equal(kn_notify("READY=1\nSTATUS=serves", &err), 1);
	assert_hears(fd, "READY=1\nSTATUS=serves");
	close(fd);
	unlink(path);
	rmdir(dir);
	assert_int_equal(kn_notify("READY=1", &err), -ENOENT);
}

static void manager_hears_without_a_path(void **state)
{
	char name[64];

	(void)state;
	snprintf(name, sizeof(name), "@kn-notify-%d", (int)getpid());
	int fd = listen_at(name);
	assert_int_equal(kn_notify("STOPPING=1", NULL), 1);
	assert_hears(fd, "STOPPING=1");
	close(fd);
}

static void nobody_asked(void **state)
{
	(void)state;
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(kn_notify("READY=1", NULL), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	assert_int_equal(kn_notify("READY=1", NULL), 0);
}

static void wrong_names_are_refused(void **state)
{
	char name[200];

	(void)state;
	setenv("NOTIFY_SOCKET", "relative", 1);
	assert_int_equal(kn_notify("READY=1", NULL), -EINVAL);
	memset(name, 'x', sizeof(name) - 1);
	name[0] = '/';
	name[sizeof(name) - 1] = '\0';
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(kn_notify("READY=1", NULL), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(manager_hears_at_a_path),
		cmocka_unit_test(manager_hears_without_a_path),
		cmocka_unit_test(nobody_asked),
		cmocka_unit_test(wrong_names_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
