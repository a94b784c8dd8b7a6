/*
 * Interfaces through AF_XDP: frames are taken away before the kernel makes anything of them. A tiny
 * XDP program redirects every frame of the interface's one queue into our socket; it is attached by
 * a link, which goes with the process however that ends. In the driver where it can be, else in the
 * kernel's generic hook; copied, since veth and TAP know nothing else.
 *
 * A veth's peer still leaves checksums to "hardware", and says it in the skb, which XDP does not see:
 * such a frame is recognised (packet/offload) and finished when it is sent.
 *
 * Frames are copied between the socket's memory and the pool's: some ten nanoseconds beside several
 * hundred that the kernel's copy mode takes a frame, and no frame is tied to a port.
 *
 * The interface can have one such socket, so that it is bound and attached by arm(), where the rights
 * are still needed. What can be tried before is tried when the port is opened.
 *
 * syscalls: socket setsockopt getsockopt mmap munmap bind bpf sendto poll setns close
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <xdp/xsk.h>

#include "base/mem.h"
#include "packet/offload.h"
#include "packet/port/live.h"

enum {
	CHUNK = 4096, /* the longest frame is 256 bytes shorter */
	RX = 2048,
	TX = 2048,
	AREA = (RX + TX) * CHUNK,
	PATIENCE_MS = 2,
	BIND_TRIES = 100, /* the one before us is on its way out */
	BIND_WAIT_MS = 2,
};

struct xdp {
	struct kn_port port;
	struct kn_live live;
	int index;
	uint8_t *area;
	struct xsk_umem *umem;
	struct xsk_socket *socket;
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons rx, done;
	int map, program, link;
	int query; /* a socket of its namespace: AF_XDP's answers no questions about interfaces */
	uint64_t free[TX]; /* chunks to send from */
	uint32_t n_free;
	const char *mode;
};

static struct xdp *xdp_of(struct kn_port *port)
{
	return kn_container_of(port, struct xdp, port);
}

static void detach(struct xdp *x)
{
	kn_close(x->link);
	x->link = -1;
}

static void unbind(struct xdp *x)
{
	detach(x);
	if (x->socket)
		xsk_socket__delete(x->socket);
	if (x->umem)
		xsk_umem__delete(x->umem);
	x->socket = NULL;
	x->umem = NULL;
	x->live.fd = -1;
}

static void xdp_close(struct kn_port *port)
{
	struct xdp *x = xdp_of(port);

	unbind(x);
	kn_close(x->query);
	kn_close(x->program);
	kn_close(x->map);
	if (x->area)
		munmap(x->area, AREA);
	free(x);
}

static void xdp_free(struct xdp *x)
{
	if (x)
		xdp_close(&x->port);
}
KN_AUTO(xdp_free, struct xdp *);

/* ---- receiving ----------------------------------------------------------------------------- */

static void take_frame(struct xdp *x, const struct xdp_desc *d, struct kn_batch *b, uint32_t lane,
		       uint64_t now_ns)
{
	struct kn_frame *f = b->frame[lane];
	bool fits = d->addr < AREA && d->len <= AREA - d->addr &&
		    kn_frame_fill(f, x->area + d->addr, d->len);

	b->live |= kn_lane(lane);
	f->ts_ns = now_ns;
	f->wire_len = d->len;
	if (fits && kn_frame_offload(f))
		(void)kn_offload_find(f->data, f->len, kn_frame_offload(f));
	kn_traffic_add(&x->port.rx, f);
	if (!fits)
		kn_batch_drop(b, kn_lane(lane), KN_DROP_TOO_LONG);
}

/* Give the kernel its chunks back, by their first bytes. */
static void refill(struct xdp *x, const uint64_t *chunks, uint32_t n)
{
	uint32_t at;

	if (xsk_ring_prod__reserve(&x->fill, n, &at) != n)
		return; /* it has room for all that there are */
	for (uint32_t i = 0; i < n; i++)
		*xsk_ring_prod__fill_addr(&x->fill, at + i) = chunks[i];
	xsk_ring_prod__submit(&x->fill, n);
	if (xsk_ring_prod__needs_wakeup(&x->fill))
		(void)recvfrom(x->live.fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

static int xdp_rx(struct kn_port *port, struct kn_batch *b)
{
	struct xdp *x = xdp_of(port);
	uint64_t chunks[KN_BATCH];
	struct timespec now;
	uint32_t at;

	if (port->err.code)
		return -port->err.code;
	if (!x->socket || xsk_cons_nb_avail(&x->rx, KN_BATCH) == 0)
		return 0;
	uint32_t room = kn_pool_take(x->live.pool, KN_BATCH, b->frame);
	uint32_t n = xsk_ring_cons__peek(&x->rx, room, &at);
	clock_gettime(CLOCK_REALTIME, &now);
	for (; b->n < n; b->n++) {
		const struct xdp_desc d = *xsk_ring_cons__rx_desc(&x->rx, at + b->n);
		chunks[b->n] = d.addr / CHUNK * CHUNK;
		take_frame(x, &d, b, b->n,
			   (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
	}
	xsk_ring_cons__release(&x->rx, n);
	refill(x, chunks, n);
	kn_frames_put(b->frame + n, room - n);
	return (int)n;
}

/* ---- sending ------------------------------------------------------------------------------- */

static void reclaim(struct xdp *x)
{
	uint32_t at, n = xsk_ring_cons__peek(&x->done, TX - x->n_free, &at);

	for (uint32_t i = 0; i < n; i++)
		x->free[x->n_free++] = *xsk_ring_cons__comp_addr(&x->done, at + i) / CHUNK * CHUNK;
	xsk_ring_cons__release(&x->done, n);
}

/* Returns 0 or the errno of a kick that failed for good. In copy mode one sends 32 frames. */
static int kick(const struct xdp *x)
{
	if (sendto(x->live.fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0 || errno == EAGAIN ||
	    errno == EBUSY || errno == ENOBUFS || errno == EINTR)
		return 0;
	return errno;
}

static enum kn_reason put_frame(struct xdp *x, const struct kn_frame *f)
{
	const struct kn_offload *offload = kn_frame_offload(f);
	uint32_t at;

	if (f->len > CHUNK)
		return KN_DROP_TX_MTU;
	uint8_t *to = x->area + x->free[x->n_free - 1];
	memcpy(to, f->data, f->len);
	if (offload && !kn_offload_finish(to, f->len, offload))
		return KN_DROP_TX_REFUSED;
	if (xsk_ring_prod__reserve(&x->tx, 1, &at) != 1)
		return KN_DROP_TX_FULL;
	*xsk_ring_prod__tx_desc(&x->tx, at) =
		(struct xdp_desc){ .addr = x->free[--x->n_free], .len = f->len };
	xsk_ring_prod__submit(&x->tx, 1);
	return KN_REASON_NONE;
}

static void await_room(struct xdp *x)
{
	struct pollfd fd = { .fd = x->live.fd, .events = POLLOUT };

	(void)kick(x);
	reclaim(x);
	if (x->n_free < KN_BATCH) {
		(void)poll(&fd, 1, PATIENCE_MS);
		reclaim(x);
	}
}

static kn_lanes xdp_tx(struct kn_port *port, struct kn_batch *b, kn_lanes lanes)
{
	struct xdp *x = xdp_of(port);
	kn_lanes sent = 0;

	if (!x->socket)
		return 0;
	reclaim(x);
	if (x->n_free < KN_BATCH)
		await_room(x);
	kn_each_lane(i, lanes)
	{
		enum kn_reason why = x->n_free ? put_frame(x, b->frame[i]) : KN_DROP_TX_FULL;
		if (why == KN_REASON_NONE)
			sent |= kn_lane(i);
		else
			kn_batch_drop(b, kn_lane(i), why);
	}
	int code = sent ? kick(x) : 0;
	kn_each_lane(k, sent)
	{
		kn_traffic_add(&port->tx, b->frame[k]);
	}
	kn_batch_release(b, sent);
	if (code == ENETDOWN || code == ENXIO)
		kn_port_look(port);
	return sent;
}

/* ---- its state ----------------------------------------------------------------------------- */

static void xdp_look(struct kn_port *port)
{
	struct xdp *x = xdp_of(port);
	struct xdp_statistics stats = { .rx_dropped = 0 };
	socklen_t len = sizeof(stats);

	if (!x->socket)
		return;
	if (getsockopt(x->live.fd, SOL_XDP, XDP_STATISTICS, &stats, &len) == 0)
		x->live.missed = stats.rx_dropped + stats.rx_ring_full +
				 stats.rx_fill_ring_empty_descs;
	(void)kn_interface_state(x->query, &x->live.binding, x->index, &x->live.up, &port->err);
}

/* ---- attaching ----------------------------------------------------------------------------- */

static int bind_socket(struct xdp *x, struct kn_err *err)
{
	const struct xsk_umem_config u = { .fill_size = RX,
					   .comp_size = TX,
					   .frame_size = CHUNK };
	const struct xsk_socket_config s = {
		.rx_size = RX,
		.tx_size = TX,
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP,
	};
	/* The library takes places in the rings over from what stood there before. */
	memset(&x->fill, 0, sizeof(x->fill));
	memset(&x->tx, 0, sizeof(x->tx));
	memset(&x->rx, 0, sizeof(x->rx));
	memset(&x->done, 0, sizeof(x->done));
	int r = xsk_umem__create(&x->umem, x->area, AREA, &x->fill, &x->done, &u);

	if (r < 0) {
		x->umem = NULL;
		return kn_fail(err, -r, "AF_XDP: memory of frames: %s", strerror(-r));
	}
	r = xsk_socket__create(&x->socket, x->live.binding.interface, 0, x->umem, &x->rx, &x->tx,
			       &s);
	if (r < 0) {
		x->socket = NULL;
		return kn_fail(err, -r, "AF_XDP: bind to '%s': %s", x->live.binding.interface,
			       strerror(-r));
	}
	x->live.fd = xsk_socket__fd(x->socket);
	return 0;
}

static void give_chunks(struct xdp *x)
{
	uint64_t chunk = 0;

	for (uint32_t i = 0; i < RX; i += KN_BATCH) {
		uint64_t some[KN_BATCH];
		for (int k = 0; k < KN_BATCH; k++, chunk += CHUNK)
			some[k] = chunk;
		refill(x, some, KN_BATCH);
	}
	for (x->n_free = 0; x->n_free < TX; chunk += CHUNK)
		x->free[x->n_free++] = chunk;
}

static int attach_in(struct xdp *x, uint32_t flags)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = flags);
	int fd = bpf_link_create(x->program, x->index, BPF_XDP, &opts);

	if (fd < 0)
		return fd;
	x->link = fd;
	return 0;
}

static int attach(struct xdp *x, struct kn_err *err)
{
	uint32_t queue = 0;
	int fd = x->live.fd;

	if (bpf_map_update_elem(x->map, &queue, &fd, 0) < 0)
		return kn_fail(err, errno, "AF_XDP: map of sockets: %s", strerror(errno));
	x->mode = "in the driver, copied";
	int r = attach_in(x, XDP_FLAGS_DRV_MODE);
	if (r < 0 && r != -EBUSY && r != -EPERM) {
		x->mode = "in the kernel's generic hook, copied";
		r = attach_in(x, XDP_FLAGS_SKB_MODE);
	}
	x->live.why = x->mode;
	return r < 0 ? kn_fail(err, -r, "AF_XDP: attach to '%s': %s", x->live.binding.interface,
			       strerror(-r))
		     : 0;
}

static int bind_and_attach(struct xdp *x, struct kn_err *err)
{
	int r = bind_socket(x, err);

	if (r == 0) {
		give_chunks(x);
		r = attach(x, err);
	}
	if (r < 0)
		unbind(x);
	return r;
}

static int begin(struct xdp *x, int tries, struct kn_err *err)
{
	const struct timespec wait = { .tv_nsec = BIND_WAIT_MS * 1000000L };
	struct kn_err told = KN_ERR_INIT;
	int home;

	int r = kn_netns_enter(&x->live.binding, &home, err);
	if (r < 0)
		return r;
	while ((r = bind_and_attach(x, &told)) == -EBUSY && tries-- > 1)
		nanosleep(&wait, NULL);
	int back = kn_netns_leave(home, err);
	if (r < 0 && err)
		*err = told;
	return r < 0 ? r : back;
}

static int xdp_arm(struct kn_port *port, bool yes, struct kn_err *err)
{
	struct xdp *x = xdp_of(port);

	if (!yes) {
		detach(x);
		return 0;
	}
	int r = x->socket ? 0 : begin(x, BIND_TRIES, err);
	if (r == 0)
		xdp_look(port);
	return r;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* Frames of other queues would pass us by. */
static int check_queues(const struct kn_binding *b, struct kn_err *err)
{
	struct ethtool_channels c = { .cmd = ETHTOOL_GCHANNELS };
	struct ifreq r = { .ifr_data = (void *)&c };

	kn_auto(kn_close) int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(r.ifr_name, b->interface, sizeof(r.ifr_name));
	if (sock < 0 || ioctl(sock, SIOCETHTOOL, &r) < 0)
		return 0; /* an interface that has no channels has one queue */
	uint32_t queues = kn_max(c.rx_count + c.combined_count, 1u);
	return queues == 1 ? 0
			   : kn_fail(err, EOPNOTSUPP, "'%s' has %u receive queues and af_xdp takes "
				     "one: ethtool -L %s combined 1", b->interface, queues,
				     b->interface);
}

/* return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS); */
static int load_program(struct xdp *x, struct kn_err *err)
{
	enum { QUEUES = 64, RX_QUEUE_INDEX = 16 };

	x->map = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "kiln_sockets", sizeof(uint32_t),
				sizeof(uint32_t), QUEUES, NULL);
	if (x->map < 0)
		return kn_fail(err, errno, "AF_XDP: a map of sockets: %s", strerror(errno));
	const struct bpf_insn code[] = {
		{ .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 2, .src_reg = 1, .off = RX_QUEUE_INDEX },
		/* BPF_LD and BPF_IMM are both 0. NOLINTNEXTLINE(misc-redundant-expression) */
		{ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD,
		  .imm = x->map },
		{ .code = 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	x->program = bpf_prog_load(BPF_PROG_TYPE_XDP, "kiln_redirect", "Apache-2.0", code,
				   KN_ARRAY_LEN(code), NULL);
	if (x->program < 0)
		return kn_fail(err, errno, "AF_XDP: load the program: %s", strerror(errno));
	return 0;
}

static const struct kn_port_ops xdp_ops = {
	.kind = "af_xdp",
	.rx = xdp_rx,
	.tx = xdp_tx,
	.arm = xdp_arm,
	.look = xdp_look,
	.close = xdp_close,
};

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

int kn_af_xdp_open(const struct kn_binding *b, const struct interface *i, struct kn_port **ret,
		   struct kn_err *err)
{
	kn_auto(xdp_free) struct xdp *x = calloc(1, sizeof(*x));

	if (!x)
		return kn_fail(err, ENOMEM, "no memory for a port");
	kn_port_setup(&x->port, &xdp_ops);
	kn_live_setup(&x->live, b, -1);
	x->port.live = &x->live;
	x->index = i->index;
	x->map = x->program = x->link = -1;
	x->query = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (x->query < 0)
		return kn_fail(err, errno, "socket: %s", strerror(errno));
	libbpf_set_print(quiet);
	int r = check_queues(b, err);
	if (r < 0)
		return r;
	void *area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		return kn_fail(err, errno, "AF_XDP: memory of frames: %s", strerror(errno));
	x->area = area;
	r = load_program(x, err);
	/* Tried once, so that what cannot be is known now; busy: the one before us still has it. */
	if (r == 0)
		r = bind_and_attach(x, err);
	unbind(x);
	if (r < 0 && r != -EBUSY)
		return r;
	*ret = &kn_take_ptr(x)->port;
	return 0;
}
