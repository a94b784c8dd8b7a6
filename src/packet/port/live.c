/*
 * Opening network interfaces: their namespace, what they are, and which kind of port takes them.
 *
 * syscalls: openat setns socket ioctl close
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "packet/port/live.h"

/* ---- the interface ------------------------------------------------------------------------- */

static int ask(int sock, const struct kn_binding *b, unsigned long what, struct ifreq *r,
	       struct kn_err *err)
{
	*r = (struct ifreq){ .ifr_ifindex = 0 };
	memcpy(r->ifr_name, b->interface, sizeof(r->ifr_name));
	if (ioctl(sock, what, r) == 0)
		return 0;
	return kn_fail(err, errno, errno == ENODEV ? "there is no interface '%s'%s%s" :
						     "ask about interface '%s'%s%s",
		       b->interface, b->netns[0] ? " in " : "", b->netns);
}

static int find_interface(const struct kn_binding *b, struct interface *ret, struct kn_err *err)
{
	struct ifreq r;

	kn_auto(kn_close) int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return kn_fail(err, errno, "socket: %s", strerror(errno));
	int n = ask(sock, b, SIOCGIFHWADDR, &r, err);
	if (n < 0)
		return n;
	if (r.ifr_hwaddr.sa_family != ARPHRD_ETHER)
		return kn_fail(err, EOPNOTSUPP, "interface '%s' carries no Ethernet", b->interface);
	memcpy(ret->mac, r.ifr_hwaddr.sa_data, sizeof(ret->mac));
	n = ask(sock, b, SIOCGIFMTU, &r, err);
	if (n < 0)
		return n;
	ret->mtu = (uint32_t)r.ifr_mtu;
	n = ask(sock, b, SIOCGIFINDEX, &r, err);
	if (n == 0)
		ret->index = r.ifr_ifindex;
	return n;
}

int kn_interface_state(int sock, const struct kn_binding *b, int index, bool *ret_up,
		       struct kn_err *err)
{
	struct ifreq r = { .ifr_ifindex = index };

	/* By number, not by name: one that was made anew under the same name is another one. */
	if (ioctl(sock, SIOCGIFNAME, &r) < 0)
		return kn_fail(err, ENODEV, "the interface '%s'%s%s is gone", b->interface,
			       b->netns[0] ? " in " : "", b->netns);
	if (ioctl(sock, SIOCGIFFLAGS, &r) < 0)
		return kn_fail(err, ENODEV, "the interface '%s' is gone", b->interface);
	*ret_up = (r.ifr_flags & IFF_UP) && (r.ifr_flags & IFF_RUNNING);
	return 0;
}

void kn_live_setup(struct kn_live *live, const struct kn_binding *b, int fd)
{
	*live = (struct kn_live){ .binding = *b, .why = "", .fd = fd };
}

/* ---- the namespace ------------------------------------------------------------------------- */

int kn_netns_enter(const struct kn_binding *b, int *ret_home, struct kn_err *err)
{
	*ret_home = -1;
	if (!b->netns[0])
		return 0;
	kn_auto(kn_close) int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	kn_auto(kn_close) int there = open(b->netns, O_RDONLY | O_CLOEXEC);
	if (home < 0 || there < 0)
		return kn_fail(err, errno, "open network namespace '%s': %s", b->netns,
			       strerror(errno));
	if (setns(there, CLONE_NEWNET) < 0)
		return kn_fail(err, errno, "enter network namespace '%s': %s", b->netns,
			       strerror(errno));
	*ret_home = kn_take_fd(home);
	return 0;
}

int kn_netns_leave(int home, struct kn_err *err)
{
	if (home < 0)
		return 0;
	int r = setns(home, CLONE_NEWNET) < 0
			? kn_fail(err, errno, "leave a network namespace: %s", strerror(errno))
			: 0;
	kn_close(home);
	return r;
}

/* ---- the kind ------------------------------------------------------------------------------ */

/*
 * AF_PACKET takes and gives frames of many segments whole, with the checksum left to the interface:
 * that is what a veth, a TAP or a bridge carries, and why a TCP stream through it is several times
 * faster. AF_XDP takes more frames a second, and takes them away from the host's own stack; who wants
 * that asks for it. What cannot be had is told, and AF_PACKET taken.
 */
static int open_xdp(const struct kn_binding *b, const struct interface *i, struct kn_port **ret,
		    struct kn_err *err)
{
	struct kn_err refused = KN_ERR_INIT;
	int r = kn_af_xdp_open(b, i, ret, &refused);

	if (r == 0)
		return 0;
	r = kn_af_packet_open(b, i, ret, err);
	if (r < 0)
		return r;
	(*ret)->live->why = "af_xdp was asked for and could not be had";
	snprintf((*ret)->live->refused, sizeof((*ret)->live->refused), "%.*s",
		 (int)sizeof((*ret)->live->refused) - 1, kn_err_text(&refused));
	return 0;
}

static int open_kind(const struct kn_binding *b, const struct interface *i, struct kn_port **ret,
		     struct kn_err *err)
{
	int r;

	if (b->kind == KN_PORT_AF_XDP)
		return open_xdp(b, i, ret, err);
	r = kn_af_packet_open(b, i, ret, err);
	if (r == 0)
		(*ret)->live->why = b->kind == KN_PORT_AF_PACKET
					    ? "it was asked for"
					    : "joined segments and unfinished checksums pass through it";
	return r;
}

int kn_port_open(const struct kn_binding *binding, struct kn_port **ret, struct kn_err *err)
{
	struct kn_port *port = NULL;
	struct interface i;
	int home;

	int r = kn_netns_enter(binding, &home, err);
	if (r < 0)
		return r;
	r = find_interface(binding, &i, err);
	if (r == 0)
		r = open_kind(binding, &i, &port, err);
	int back = kn_netns_leave(home, r < 0 ? NULL : err);
	if (r == 0 && back < 0) {
		kn_port_close(port);
		return back;
	}
	if (r < 0)
		return kn_while(err, "port '%s'", binding->port);
	kn_port_rename(port, binding->port);
	*ret = port;
	return 0;
}

void kn_port_use(struct kn_port *port, struct kn_pool *pool, struct kn_pool *large)
{
	if (!port->live)
		return;
	port->live->pool = pool;
	port->live->large = large;
}

int kn_port_arm(struct kn_port *port, bool yes, struct kn_err *err)
{
	return port->ops->arm ? port->ops->arm(port, yes, err) : 0;
}

void kn_port_look(struct kn_port *port)
{
	if (port->ops->look)
		port->ops->look(port);
}
