#include "oci/sandbox_kvm/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "machine/kvm.h"

/* Where the monitor finds its socket. */
#define CHANNEL_FD 3

/*
 * No signal blocked or ignored, whatever the daemon does with them: the monitor is kicked by signals.
 * A process group of its own: Ctrl-C at a terminal is for the daemon, which then ends us in order.
 */
static int set_attributes(posix_spawnattr_t *a)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	int r = posix_spawnattr_setsigmask(a, &none);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(a, &all);
	if (r == 0)
		r = posix_spawnattr_setpgroup(a, 0);
	if (r == 0)
		r = posix_spawnattr_setflags(a, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
		                                        POSIX_SPAWN_SETPGROUP);
	return r;
}

static int set_descriptors(posix_spawn_file_actions_t *f, int sock)
{
	int r = posix_spawn_file_actions_addopen(f, 0, "/dev/null", O_RDWR, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(f, 0, 1);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(f, sock, CHANNEL_FD);
	return r;
}

static int spawn(const char *vmm, const char *device, int sock, pid_t *ret)
{
	char name[] = "kiln-vmm", option[] = "--channel-fd", fd[] = "3", device_option[] = "--device";
	char *argv[] = { name, option, fd, NULL, NULL, NULL };
	char *env[] = { NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;

	if (strcmp(device, KN_KVM_DEVICE) != 0) {
		argv[3] = device_option;
		argv[4] = (char *)(uintptr_t)device;
	}
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attributes);
	int r = set_attributes(&attributes);
	if (r == 0)
		r = set_descriptors(&files, sock);
	if (r == 0)
		r = posix_spawn(ret, vmm, &files, &attributes, argv, env);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	return r;
}

int kvm_monitor_spawn(const char *vmm, const char *device,
                      int (*hello)(int sock, void *arg, struct kn_err *err), void *arg,
                      struct kvm_monitor *ret, struct kn_err *err)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return kn_fail(err, errno, "socketpair: %s", strerror(errno));
	kn_auto(kn_close) int ours = pair[0];
	kn_auto(kn_close) int theirs = pair[1];

	int r = hello ? hello(ours, arg, err) : 0;
	if (r < 0)
		return r;
	r = spawn(vmm, device, theirs, &pid);
	if (r)
		return kn_fail(err, r, "start '%s': %s", vmm, strerror(r));
	*ret = (struct kvm_monitor){ .pid = pid, .sock = kn_take_fd(ours) };
	return 0;
}
