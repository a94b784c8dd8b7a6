/* Network namespaces: entering them, and what is made inside. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/network/network.h"

int space_enter(int ns, struct kn_err *err)
{
	if (setns(ns, CLONE_NEWNET) < 0)
		return kn_fail(err, errno, "enter a network namespace: %s", strerror(errno));
	return 0;
}

int space_new(struct kn_err *err)
{
	if (unshare(CLONE_NEWNET) < 0)
		return kn_fail(err, errno, "make a network namespace: %s%s", strerror(errno),
		               errno == EPERM ? ": start kilnd as root, or with CAP_SYS_ADMIN and "
		                                "CAP_NET_ADMIN" : "");
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "open a network namespace: %s", strerror(errno));
	return fd;
}

void space_leave(int home)
{
	if (setns(home, CLONE_NEWNET) < 0)
		abort();
}

int space_set(const char *name, const char *value, struct kn_err *err)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	kn_auto(kn_close) int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : kn_write_all(fd, value, strlen(value));
	return r < 0 ? kn_fail(err, -r, "set %s: %s", path, strerror(-r)) : 0;
}

int space_tap(const char *name, const uint8_t mac[6], struct kn_err *err)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

	kn_auto(kn_close) int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "open /dev/net/tun: %s%s", strerror(errno),
		               errno == ENOENT ? ": load the module tun" : "");
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &r) < 0)
		return kn_fail(err, errno, "make a TAP interface: %s", strerror(errno));
	r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(r.ifr_hwaddr.sa_data, mac, 6);
	if (ioctl(fd, SIOCSIFHWADDR, &r) < 0)
		return kn_fail(err, errno, "hardware address of a TAP interface: %s",
		               strerror(errno));
	return kn_take_fd(fd);
}
