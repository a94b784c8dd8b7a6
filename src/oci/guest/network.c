/*
 * The one interface of a guest that has a network. Its driver is loaded here and not at boot, so that
 * a guest can be kept booted before it is known whether its function has a network.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "oci/guest.h"
#include "oci/guest/guest.h"

#define INTERFACE "eth0"

static struct sockaddr to_sockaddr(struct in_addr a)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = a };
	struct sockaddr out;

	memcpy(&out, &in, sizeof(out));
	return out;
}

static int parse(struct kn_view v, struct in_addr *ret, struct kn_err *err)
{
	char text[INET_ADDRSTRLEN] = "";

	memcpy(text, v.ptr, kn_min(v.len, sizeof(text) - 1));
	if (v.len < sizeof(text) && inet_pton(AF_INET, text, ret) == 1)
		return 0;
	return kn_fail(err, EINVAL, "'" KN_VIEW_FMT "' is not an IPv4 address", KN_VIEW_ARG(v));
}

static int parse_prefixed(struct kn_view v, struct in_addr *ret, struct in_addr *ret_mask,
                          struct kn_err *err)
{
	struct kn_view rest = v, address;
	uint64_t prefix = 32;

	(void)!kn_view_split(&rest, '/', &address);
	int r = rest.ptr ? kn_parse_u64(rest, 32, &prefix, err) : 0;
	ret_mask->s_addr = htonl(prefix == 0 ? 0 : UINT32_MAX << (32 - prefix));
	return r < 0 ? r : parse(address, ret, err);
}

static int ask(int fd, unsigned long request, void *arg, const char *what, struct kn_err *err)
{
	if (ioctl(fd, request, arg) < 0)
		return kn_fail(err, errno, "interface " INTERFACE ", %s: %s", what, strerror(errno));
	return 0;
}

static int set_up(int fd, struct in_addr address, struct in_addr mask, struct in_addr gateway,
                  struct kn_err *err)
{
	struct ifreq r = { .ifr_name = INTERFACE, .ifr_addr = to_sockaddr(address) };
	struct rtentry route = { .rt_dst = to_sockaddr((struct in_addr){ 0 }),
		                 .rt_genmask = to_sockaddr((struct in_addr){ 0 }),
		                 .rt_gateway = to_sockaddr(gateway),
		                 .rt_flags = RTF_UP | RTF_GATEWAY };

	int code = ask(fd, SIOCSIFADDR, &r, "address", err);
	r.ifr_netmask = to_sockaddr(mask);
	if (code == 0)
		code = ask(fd, SIOCSIFNETMASK, &r, "network mask", err);
	r.ifr_flags = IFF_UP;
	if (code == 0)
		code = ask(fd, SIOCSIFFLAGS, &r, "up", err);
	return code < 0 ? code : ask(fd, SIOCADDRT, &route, "default route", err);
}

int kn_guest_network(struct kn_view address, struct kn_view gateway, struct kn_err *err)
{
	struct in_addr own, mask, via;

	int r = parse_prefixed(address, &own, &mask, err);
	if (r == 0)
		r = parse(gateway, &via, err);
	if (r == 0)
		r = guest_load_modules("network", err);
	if (r < 0)
		return kn_while(err, "the function's network");
	kn_auto(kn_close) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return kn_fail(err, errno, "a socket: %s", strerror(errno));
	r = set_up(fd, own, mask, via, err);
	return r < 0 ? kn_while(err, "the function's network") : 0;
}

/* An image may have a link here that leads nowhere: what it has is replaced. */
int kn_guest_resolver(struct kn_view dns, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	kn_buf_printf(&text, "nameserver " KN_VIEW_FMT "\n", KN_VIEW_ARG(dns));
	if (text.failed)
		return kn_fail(err, ENOMEM, "memory for /etc/resolv.conf");
	(void)!mkdir("/etc", 0755);
	(void)!unlink("/etc/resolv.conf");
	kn_auto(kn_close) int fd = open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
	                                0644);
	if (fd < 0)
		return kn_fail(err, errno, "make /etc/resolv.conf: %s", strerror(errno));
	int r = kn_write_all(fd, text.ptr, text.len);
	return r < 0 ? kn_fail(err, -r, "write /etc/resolv.conf: %s", strerror(-r)) : 0;
}
