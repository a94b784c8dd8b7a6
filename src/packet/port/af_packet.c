/*
 * Interfaces through AF_PACKET.
 *
 * Receiving: a TPACKET_V2 ring. Not V3: a V3 block reaches us when it is full or when its timer runs
 * out, so that a lone frame waits for one to two periods of it (1 ms at least, 4 ms where the kernel
 * ticks at 250 Hz), and the timer runs while nothing happens; a V2 slot is there at once, and a ping
 * through the firewall takes some 20 us more than through a bridge (bench/live, 2026-11-28). A frame
 * that is longer than a slot waits whole in the socket's queue (PACKET_COPY_THRESH), the slot says so,
 * and it is read from there: those are frames of up to 64 KiB of joined segments, which are worth a
 * system call.
 *
 * PACKET_VNET_HDR tells what a sender left to the interface (an unfinished checksum, segments to cut
 * apart), and takes it back when we send. So a TCP stream between two veth pairs passes in frames of
 * 64 KiB, whose checksums nobody ever computes.
 *
 * Sending: sendmmsg. When the socket's buffer is full we wait a moment, then drop.
 *
 * syscalls: socket setsockopt getsockopt mmap munmap bind recvmsg sendmmsg poll ioctl close
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "packet/port/live.h"
#include "packet/tpacket.h"

enum {
	SLOT = 2048, /* holds a frame of an MTU of 1500 with everything around it */
	BLOCK = 1 << 18,
	BLOCKS = 16, /* 4 MiB, 2048 slots: 20 ms of a hundred thousand frames a second */
	SLOTS = BLOCK / SLOT * BLOCKS,
	QUEUE_BYTES = 8 << 20, /* long frames that wait; sent ones under way */
	PATIENCE_MS = 2,       /* with a full sending buffer, a batch */
	MACS = 12,	       /* a VLAN tag stands behind the two addresses */
	TAG = 4,
	/* A sender's checksum begins behind what we put in: linux/virtio_net.h. */
	NEEDS_CSUM = 1,
};

struct packet {
	struct kn_port port;
	struct kn_live live;
	int index;
	uint8_t *ring;
	uint32_t next; /* slot that the kernel fills next, or has filled */
	struct mmsghdr messages[KN_BATCH];
	struct iovec parts[KN_BATCH][2];
	struct kn_offload offloads[KN_BATCH];
};

static struct packet *packet_of(struct kn_port *port)
{
	return kn_container_of(port, struct packet, port);
}

static void packet_close(struct kn_port *port)
{
	struct packet *p = packet_of(port);

	if (p->ring)
		munmap(p->ring, (size_t)BLOCK * BLOCKS);
	kn_close(p->live.fd);
	free(p);
}

static void packet_free(struct packet *p)
{
	if (p)
		packet_close(&p->port);
}
KN_AUTO(packet_free, struct packet *);

/* ---- receiving ----------------------------------------------------------------------------- */

static void put_tag(struct kn_frame *f, const struct kn_tpacket *t)
{
	const uint8_t tag[TAG] = { (uint8_t)(t->tpid >> 8), (uint8_t)t->tpid,
				   (uint8_t)(t->tci >> 8), (uint8_t)t->tci };

	memcpy(f->data + MACS, tag, TAG);
}

static void set_offload(struct kn_frame *f, struct kn_offload offload, bool tagged)
{
	struct kn_offload *to = kn_frame_offload(f);

	if (tagged && (offload.flags & NEEDS_CSUM))
		offload.csum_start = (uint16_t)(offload.csum_start + TAG);
	if (tagged && offload.hdr_len)
		offload.hdr_len = (uint16_t)(offload.hdr_len + TAG);
	if (to)
		*to = offload;
}

/* The frame is in the slot. Its tag goes back to where the kernel took it from. */
static enum kn_reason copy_slot(struct kn_frame *f, const struct kn_tpacket *t)
{
	uint32_t tag = t->tagged ? TAG : 0, macs = kn_min(t->len, (uint32_t)MACS);

	if (t->len < t->wire_len)
		return KN_DROP_RX_CUT;
	if (t->len + tag > kn_frame_room(f))
		return KN_DROP_TOO_LONG;
	memcpy(f->data, t->data, macs);
	memcpy(f->data + macs + tag, t->data + macs, t->len - macs);
	if (tag)
		put_tag(f, t);
	f->len = t->len + tag;
	set_offload(f, t->offload, t->tagged);
	return KN_REASON_NONE;
}

/* Read the frame that waits whole; false when it is not there, or not of that length. */
static bool read_queued(const struct packet *p, struct kn_frame *f, const struct kn_tpacket *t)
{
	uint32_t tag = t->tagged ? TAG : 0;
	struct kn_offload offload = { 0 };
	uint8_t nothing;
	bool fits = f && t->wire_len >= MACS && t->wire_len + tag <= kn_frame_room(f);
	struct iovec parts[3] = {
		{ &offload, sizeof(offload) },
		{ fits ? f->data : &nothing, fits ? MACS : 1 },
		{ fits ? f->data + MACS + tag : NULL, fits ? t->wire_len - MACS : 0 },
	};
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = fits ? 3 : 2 };

	ssize_t n = recvmsg(p->live.fd, &m, MSG_DONTWAIT);
	if (!fits || n != (ssize_t)(sizeof(offload) + t->wire_len))
		return false;
	if (tag)
		put_tag(f, t);
	f->len = t->wire_len + tag;
	set_offload(f, offload, t->tagged);
	return true;
}

/* A long frame needs a large buffer in its lane, when there is one. */
static enum kn_reason take_queued(const struct packet *p, struct kn_frame **lane,
				  const struct kn_tpacket *t)
{
	struct kn_frame *large;

	if (t->wire_len + TAG > kn_frame_room(*lane) && p->live.large &&
	    kn_pool_take(p->live.large, 1, &large) == 1) {
		kn_frames_put(lane, 1);
		*lane = large;
	}
	if (read_queued(p, *lane, t))
		return KN_REASON_NONE;
	return t->wire_len + TAG > kn_frame_room(*lane) ? KN_DROP_TOO_LONG : KN_DROP_RX_CUT;
}

static void take_slot(struct packet *p, const uint8_t *slot, struct kn_batch *b, uint32_t lane)
{
	struct kn_tpacket t = { .wire_len = 0 };
	enum kn_reason why = KN_DROP_RX_CUT;

	if (kn_tpacket_read(slot, SLOT, true, &t) == 0)
		why = t.queued ? take_queued(p, &b->frame[lane], &t) : copy_slot(b->frame[lane], &t);
	struct kn_frame *f = b->frame[lane];
	f->wire_len = kn_max(f->len, t.wire_len + (t.tagged ? TAG : 0));
	f->ts_ns = t.ts_ns;
	kn_traffic_add(&p->port.rx, f);
	b->live |= kn_lane(lane);
	if (why != KN_REASON_NONE)
		kn_batch_drop(b, kn_lane(lane), why);
}

static int packet_rx(struct kn_port *port, struct kn_batch *b)
{
	struct packet *p = packet_of(port);

	if (port->err.code)
		return -port->err.code;
	if (!kn_tpacket_filled(p->ring + (size_t)p->next * SLOT))
		return 0;
	uint32_t room = kn_pool_take(p->live.pool, KN_BATCH, b->frame);
	for (uint8_t *slot; b->n < room; b->n++) {
		slot = p->ring + (size_t)p->next * SLOT;
		if (!kn_tpacket_filled(slot))
			break;
		take_slot(p, slot, b, b->n);
		kn_tpacket_release(slot);
		p->next = (p->next + 1) % SLOTS;
	}
	kn_frames_put(b->frame + b->n, room - b->n);
	return (int)b->n;
}

/* ---- sending ------------------------------------------------------------------------------- */

/* Put the batch's lanes into messages; returns how many. */
static uint32_t prepare(struct packet *p, const struct kn_batch *b, kn_lanes lanes,
			uint8_t lane_of[KN_BATCH])
{
	uint32_t n = 0;

	kn_each_lane(i, lanes)
	{
		const struct kn_frame *f = b->frame[i];
		const struct kn_offload *offload = kn_frame_offload(f);
		p->offloads[n] = offload ? *offload : (struct kn_offload){ 0 };
		p->parts[n][1] = (struct iovec){ f->data, f->len };
		lane_of[n++] = (uint8_t)i;
	}
	return n;
}

static void await_room(const struct packet *p)
{
	struct pollfd fd = { .fd = p->live.fd, .events = POLLOUT };

	(void)poll(&fd, 1, PATIENCE_MS);
}

static enum kn_reason refusal(int code)
{
	switch (code) {
	case EMSGSIZE:
		return KN_DROP_TX_MTU;
	case ENETDOWN:
	case ENXIO:
	case ENODEV:
		return KN_DROP_TX_DOWN;
	default:
		return KN_DROP_TX_REFUSED;
	}
}

static kn_lanes packet_tx(struct kn_port *port, struct kn_batch *b, kn_lanes lanes)
{
	struct packet *p = packet_of(port);
	uint8_t lane_of[KN_BATCH];
	uint32_t n = prepare(p, b, lanes, lane_of), done = 0;
	kn_lanes sent = 0;
	bool waited = false;

	while (done < n) {
		int r = sendmmsg(p->live.fd, p->messages + done, n - done, MSG_DONTWAIT);
		for (int i = 0; i < r && done < n; i++)
			sent |= kn_lane(lane_of[done++]);
		if (r > 0 || (r < 0 && errno == EINTR))
			continue;
		if (errno != EAGAIN && errno != ENOBUFS) {
			kn_batch_drop(b, kn_lane(lane_of[done++]), refusal(errno));
			continue;
		}
		if (waited)
			break;
		await_room(p);
		waited = true;
	}
	kn_each_lane(i, sent)
	{
		kn_traffic_add(&port->tx, b->frame[i]);
	}
	kn_batch_release(b, sent);
	return sent;
}

/* ---- its state ----------------------------------------------------------------------------- */

static void packet_look(struct kn_port *port)
{
	struct packet *p = packet_of(port);
	struct tpacket_stats stats;
	socklen_t len = sizeof(stats);
	int error;

	/* Reading it sets it back to zero. */
	if (getsockopt(p->live.fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) == 0)
		p->live.missed += stats.tp_drops;
	len = sizeof(error);
	(void)getsockopt(p->live.fd, SOL_SOCKET, SO_ERROR, &error, &len);
	(void)kn_interface_state(p->live.fd, &p->live.binding, p->index, &p->live.up, &port->err);
}

/* ---- opening ------------------------------------------------------------------------------- */

static int set(int fd, int level, int option, int value, const char *what, struct kn_err *err)
{
	if (setsockopt(fd, level, option, &value, sizeof(value)) == 0)
		return 0;
	return kn_fail(err, errno, "AF_PACKET: %s: %s", what, strerror(errno));
}

static int attach(const struct packet *p, struct kn_err *err)
{
	const struct sockaddr_ll to = { .sll_family = AF_PACKET,
					.sll_protocol = htons(ETH_P_ALL),
					.sll_ifindex = p->index };

	if (bind(p->live.fd, (const struct sockaddr *)&to, sizeof(to)) == 0)
		return 0;
	return kn_fail(err, errno, "listen on interface '%s': %s", p->live.binding.interface,
		       strerror(errno));
}

/* A filter that takes nothing stands before the ring until we want frames, and when we do not. */
static int packet_arm(struct kn_port *port, bool yes, struct kn_err *err)
{
	static struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	const struct sock_fprog filter = { .len = 1, .filter = &nothing };
	struct packet *p = packet_of(port);
	int r = setsockopt(p->live.fd, SOL_SOCKET, yes ? SO_DETACH_FILTER : SO_ATTACH_FILTER,
			   &filter, sizeof(filter));

	if (r < 0)
		return kn_fail(err, errno, "AF_PACKET: filter: %s", strerror(errno));
	if (yes)
		packet_look(port);
	if (port->err.code) {
		if (err)
			*err = port->err;
		r = -port->err.code;
	}
	return r;
}

static int set_options(const struct packet *p, struct kn_err *err)
{
	const struct packet_mreq all = { .mr_ifindex = p->index, .mr_type = PACKET_MR_PROMISC };
	int fd = p->live.fd;

	int r = set(fd, SOL_PACKET, PACKET_VERSION, TPACKET_V2, "version of the ring", err);
	if (r == 0)
		r = set(fd, SOL_PACKET, PACKET_VNET_HDR, 1, "offloads", err);
	if (r == 0)
		r = set(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1, "own frames", err);
	if (r == 0)
		r = set(fd, SOL_PACKET, PACKET_COPY_THRESH, SLOT, "long frames", err);
	/* More than the host allows, where we may: a burst of long frames must fit. */
	if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){ QUEUE_BYTES },
				 sizeof(int)) < 0)
		r = set(fd, SOL_SOCKET, SO_RCVBUF, QUEUE_BYTES, "receiving buffer", err);
	if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &(int){ QUEUE_BYTES },
				 sizeof(int)) < 0)
		r = set(fd, SOL_SOCKET, SO_SNDBUF, QUEUE_BYTES, "sending buffer", err);
	if (r == 0 && setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) < 0)
		r = kn_fail(err, errno, "take all frames of '%s': %s", p->live.binding.interface,
			    strerror(errno));
	return r;
}

static int make_ring(struct packet *p, struct kn_err *err)
{
	const struct tpacket_req want = { .tp_block_size = BLOCK,
					  .tp_block_nr = BLOCKS,
					  .tp_frame_size = SLOT,
					  .tp_frame_nr = SLOTS };

	if (setsockopt(p->live.fd, SOL_PACKET, PACKET_RX_RING, &want, sizeof(want)) < 0)
		return kn_fail(err, errno, "AF_PACKET: a ring of %d slots: %s", SLOTS,
			       strerror(errno));
	void *ring = mmap(NULL, (size_t)BLOCK * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED,
			  p->live.fd, 0);
	if (ring == MAP_FAILED)
		return kn_fail(err, errno, "AF_PACKET: map the ring: %s", strerror(errno));
	p->ring = ring;
	return 0;
}

static const struct kn_port_ops packet_ops = {
	.kind = "af_packet",
	.rx = packet_rx,
	.tx = packet_tx,
	.arm = packet_arm,
	.look = packet_look,
	.close = packet_close,
};

static void setup_messages(struct packet *p)
{
	for (int i = 0; i < KN_BATCH; i++) {
		p->parts[i][0] = (struct iovec){ &p->offloads[i], sizeof(p->offloads[i]) };
		p->messages[i].msg_hdr =
			(struct msghdr){ .msg_iov = p->parts[i], .msg_iovlen = 2 };
	}
}

int kn_af_packet_open(const struct kn_binding *b, const struct interface *i, struct kn_port **ret,
		      struct kn_err *err)
{
	kn_auto(packet_free) struct packet *p = calloc(1, sizeof(*p));

	if (!p)
		return kn_fail(err, ENOMEM, "no memory for a port");
	kn_port_setup(&p->port, &packet_ops);
	kn_live_setup(&p->live, b, -1);
	p->port.live = &p->live;
	p->index = i->index;
	setup_messages(p);
	p->live.fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (p->live.fd < 0)
		return kn_fail(err, errno, "AF_PACKET socket: %s%s", strerror(errno),
			       errno == EPERM ? " (it needs root, or CAP_NET_RAW)" : "");
	int r = set_options(p, err);
	if (r == 0)
		r = make_ring(p, err);
	if (r == 0)
		r = packet_arm(&p->port, false, err);
	if (r == 0)
		r = attach(p, err);
	if (r < 0)
		return r;
	*ret = &kn_take_ptr(p)->port;
	return 0;
}
