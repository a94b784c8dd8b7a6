#include "host/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

/* Interfaces are asked for by name in each request, since other threads change namespaces too. */
struct kn_netlink {
	struct mnl_socket *socket;
	uint32_t sequence;
	char bytes[32768];         /* a request, then its answers */
};

int kn_netlink_open(struct kn_netlink **ret, struct kn_err *err)
{
	struct kn_netlink *nl = calloc(1, sizeof(*nl));

	if (!nl)
		return kn_fail(err, ENOMEM, "memory for rtnetlink");
	nl->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!nl->socket || mnl_socket_bind(nl->socket, 0, MNL_SOCKET_AUTOPID) < 0) {
		int code = errno;
		kn_netlink_close(nl);
		return kn_fail(err, code, "rtnetlink: %s", strerror(code));
	}
	*ret = nl;
	return 0;
}

void kn_netlink_close(struct kn_netlink *nl)
{
	if (!nl)
		return;
	if (nl->socket)
		mnl_socket_close(nl->socket);
	free(nl);
}

/* ---- asking -------------------------------------------------------------------------------- */

/* The message stands at the buffer's begin; attributes fit, since all are of bounded size. */
static struct nlmsghdr *begin(struct kn_netlink *nl, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(nl->bytes);

	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	h->nlmsg_seq = ++nl->sequence;
	return h;
}

/* Send, then read answers until the last one. Returns 0 or -errno; each may be NULL. */
static int talk(struct kn_netlink *nl, struct nlmsghdr *h, mnl_cb_t each, void *arg)
{
	unsigned port = mnl_socket_get_portid(nl->socket);
	uint32_t sequence = h->nlmsg_seq;
	int r = 1;

	if (mnl_socket_sendto(nl->socket, h, h->nlmsg_len) < 0)
		return -errno;
	while (r > 0) {
		ssize_t n = mnl_socket_recvfrom(nl->socket, nl->bytes, sizeof(nl->bytes));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		r = mnl_cb_run(nl->bytes, (size_t)n, sequence, port, each, arg);
		if (r < 0)
			return -errno;
	}
	return 0;
}

static int command(struct kn_netlink *nl, struct nlmsghdr *h)
{
	h->nlmsg_flags |= NLM_F_ACK;
	return talk(nl, h, NULL, NULL);
}

static void put_name(struct nlmsghdr *h, uint16_t type, const char *name)
{
	mnl_attr_put_str(h, type, name);
}

/* The index of an interface in the socket's namespace: if_nametoindex() would ask the thread's. */
static int on_index(const struct nlmsghdr *h, void *arg)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(h);

	*(int *)arg = info->ifi_index;
	return MNL_CB_OK;
}

static int find_index(struct kn_netlink *nl, const char *name, struct kn_err *err)
{
	int index = 0;
	struct nlmsghdr *h = begin(nl, RTM_GETLINK, NLM_F_ACK);

	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	put_name(h, IFLA_IFNAME, name);
	int r = talk(nl, h, on_index, &index);
	if (r == 0 && index == 0)
		r = -ENODEV;
	return r < 0 ? kn_fail(err, -r, "interface %s: %s", name, strerror(-r)) : index;
}

/* ---- interfaces ---------------------------------------------------------------------------- */

int kn_netlink_add_veth(struct kn_netlink *nl, const char *name, const uint8_t *mac,
                        const char *peer, const uint8_t *peer_mac, int peer_ns, struct kn_err *err)
{
	struct nlmsghdr *h = begin(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);

	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	put_name(h, IFLA_IFNAME, name);
	if (mac)
		mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
	struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);
	mnl_attr_put_str(h, IFLA_INFO_KIND, "veth");
	struct nlattr *data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	struct nlattr *other = mnl_attr_nest_start(h, VETH_INFO_PEER);
	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	put_name(h, IFLA_IFNAME, peer);
	mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)peer_ns);
	if (peer_mac)
		mnl_attr_put(h, IFLA_ADDRESS, 6, peer_mac);
	mnl_attr_nest_end(h, other);
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	int r = command(nl, h);
	if (r == -EOPNOTSUPP)
		return kn_fail(err, ENOTSUP, "this kernel has no veth interfaces (CONFIG_VETH)");
	return r < 0 ? kn_fail(err, -r, "make the interface %s: %s", name, strerror(-r)) : 0;
}

int kn_netlink_up(struct kn_netlink *nl, const char *name, struct kn_err *err)
{
	struct nlmsghdr *h = begin(nl, RTM_NEWLINK, 0);
	struct ifinfomsg *info = mnl_nlmsg_put_extra_header(h, sizeof(*info));

	info->ifi_flags = IFF_UP;
	info->ifi_change = IFF_UP;
	put_name(h, IFLA_IFNAME, name);
	int r = command(nl, h);
	return r < 0 ? kn_fail(err, -r, "set %s up: %s", name, strerror(-r)) : 0;
}

int kn_netlink_remove(struct kn_netlink *nl, const char *name, struct kn_err *err)
{
	struct nlmsghdr *h = begin(nl, RTM_DELLINK, 0);

	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	put_name(h, IFLA_IFNAME, name);
	int r = command(nl, h);
	return r < 0 && r != -ENODEV ? kn_fail(err, -r, "remove %s: %s", name, strerror(-r)) : 0;
}

/* ---- addresses and routes ------------------------------------------------------------------ */

int kn_netlink_add_address(struct kn_netlink *nl, const char *name, uint32_t address, uint8_t prefix,
                           struct kn_err *err)
{
	int index = find_index(nl, name, err);
	if (index < 0)
		return index;
	struct nlmsghdr *h = begin(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
	struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifa_family = AF_INET;
	m->ifa_prefixlen = prefix;
	m->ifa_index = (uint32_t)index;
	mnl_attr_put_u32(h, IFA_LOCAL, htonl(address));
	mnl_attr_put_u32(h, IFA_ADDRESS, htonl(address));
	int r = command(nl, h);
	return r < 0 ? kn_fail(err, -r, "address of %s: %s", name, strerror(-r)) : 0;
}

int kn_netlink_add_default(struct kn_netlink *nl, uint32_t gateway, struct kn_err *err)
{
	struct nlmsghdr *h = begin(nl, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->rtm_family = AF_INET;
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_protocol = RTPROT_STATIC;
	m->rtm_scope = RT_SCOPE_UNIVERSE;
	m->rtm_type = RTN_UNICAST;
	mnl_attr_put_u32(h, RTA_GATEWAY, htonl(gateway));
	int r = command(nl, h);
	return r < 0 ? kn_fail(err, -r, "default route: %s", strerror(-r)) : 0;
}

int kn_netlink_add_neighbour(struct kn_netlink *nl, const char *name, uint32_t address,
                             const uint8_t mac[6], struct kn_err *err)
{
	int index = find_index(nl, name, err);
	if (index < 0)
		return index;
	struct nlmsghdr *h = begin(nl, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
	struct ndmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ndm_family = AF_INET;
	m->ndm_ifindex = index;
	m->ndm_state = NUD_PERMANENT;
	mnl_attr_put_u32(h, NDA_DST, htonl(address));
	mnl_attr_put(h, NDA_LLADDR, 6, mac);
	int r = command(nl, h);
	return r < 0 ? kn_fail(err, -r, "neighbour on %s: %s", name, strerror(-r)) : 0;
}

/* ---- lists --------------------------------------------------------------------------------- */

struct link_list {
	void (*each)(const char *name, void *arg);
	void *arg;
};

static int on_link_attribute(const struct nlattr *a, void *arg)
{
	const struct link_list *l = arg;

	if (mnl_attr_get_type(a) == IFLA_IFNAME && mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0)
		l->each(mnl_attr_get_str(a), l->arg);
	return MNL_CB_OK;
}

static int on_link(const struct nlmsghdr *h, void *arg)
{
	return mnl_attr_parse(h, sizeof(struct ifinfomsg), on_link_attribute, arg);
}

int kn_netlink_links(struct kn_netlink *nl, void (*each)(const char *name, void *arg), void *arg,
                     struct kn_err *err)
{
	struct link_list l = { each, arg };
	struct nlmsghdr *h = begin(nl, RTM_GETLINK, NLM_F_DUMP);

	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	int r = talk(nl, h, on_link, &l);
	return r < 0 ? kn_fail(err, -r, "list of interfaces: %s", strerror(-r)) : 0;
}

struct route_list {
	void (*each)(uint32_t address, uint8_t prefix, void *arg);
	void *arg;
};

static int on_route_attribute(const struct nlattr *a, void *arg)
{
	if (mnl_attr_get_type(a) == RTA_DST && mnl_attr_validate(a, MNL_TYPE_U32) >= 0)
		*(uint32_t *)arg = ntohl(mnl_attr_get_u32(a));
	return MNL_CB_OK;
}

static int on_route(const struct nlmsghdr *h, void *arg)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	const struct route_list *l = arg;
	uint32_t address = 0;

	if (m->rtm_family != AF_INET || m->rtm_type == RTN_UNREACHABLE)
		return MNL_CB_OK;
	int r = mnl_attr_parse(h, sizeof(*m), on_route_attribute, &address);
	if (r == MNL_CB_OK)
		l->each(address, m->rtm_dst_len, l->arg);
	return r;
}

int kn_netlink_routes(struct kn_netlink *nl,
                      void (*each)(uint32_t address, uint8_t prefix, void *arg), void *arg,
                      struct kn_err *err)
{
	struct route_list l = { each, arg };
	struct nlmsghdr *h = begin(nl, RTM_GETROUTE, NLM_F_DUMP);
	struct rtmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->rtm_family = AF_INET;
	int r = talk(nl, h, on_route, &l);
	return r < 0 ? kn_fail(err, -r, "list of routes: %s", strerror(-r)) : 0;
}
