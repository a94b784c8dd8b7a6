/*
 * Ports: where frames come from and where they go. A pipeline receives batches from one and sends
 * what is left to another; what is behind a port is the business of its operations. Here: memory
 * (a ring of frames), pcap (a capture file), null (a sink), and network interfaces: af_packet (a
 * ring of AF_PACKET) and af_xdp (AF_XDP sockets, one a queue).
 *
 * Thread  a port belongs to the thread of its pipeline.
 */
#pragma once

#include "base/err.h"
#include "packet/binding.h"
#include "packet/batch.h"

struct kn_port;

struct kn_port_ops {
	const char *kind; /* "pcap" */

	/*
	 * Receive: fill b->frame[0..] with up to KN_BATCH frames that the batch then owns, set
	 * b->n and b->live, and count them in port->rx. A frame that must not go on (too long for
	 * the pool) is a lane already dropped. Returns the count; 0 with port->ended when no more
	 * will ever come; or -errno with port->err told. NULL: the port only sends.
	 */
	int (*rx)(struct kn_port *port, struct kn_batch *b);

	/*
	 * Send these lanes in order, count them in port->tx, and own their frames from then on.
	 * Returns the lanes taken; the others stay the batch's. A lasting failure is told in
	 * port->err. NULL: the port only receives.
	 */
	kn_lanes (*tx)(struct kn_port *port, struct kn_batch *b, kn_lanes lanes);

	/* Everything sent is where it belongs, or -errno with port->err told. NULL: nothing to do. */
	int (*flush)(struct kn_port *port);

	/* Interfaces: take frames from now on, or no more; what was taken can still be received. */
	int (*arm)(struct kn_port *port, bool yes, struct kn_err *err);

	/*
	 * Interfaces: ask the kernel how it stands: port->live is brought up to date, and port->err
	 * told when the interface is gone.
	 */
	void (*look)(struct kn_port *port);

	/* Release what the port holds; frames go back to their pools. */
	void (*close)(struct kn_port *port);
};

struct kn_traffic {
	uint64_t frames, bytes; /* bytes as on the wire, Ethernet header included, FCS not */
};

enum { KN_PORT_NAME_MAX = 31 };

/* What a port on a network interface has beside that. */
struct kn_live {
	struct kn_binding binding;
	const char *why;       /* of the kind that was chosen; static */
	char refused[160];     /* why a better kind could not be had; "": there is none */
	bool up;	       /* the interface is up and has a carrier */
	uint64_t missed;       /* frames that the kernel dropped because we were too slow */
	int fd;		       /* readable when frames wait, in error when the interface changed */
	struct kn_pool *pool;  /* where frames come from */
	struct kn_pool *large; /* and those that do not fit into it: segments joined, jumbo frames */
};

/* What every port has; implementations put it first into their own struct. */
struct kn_port {
	const struct kn_port_ops *ops;
	char name[KN_PORT_NAME_MAX + 1]; /* as the configuration calls it; the kind by default */
	bool ended;			 /* rx will give no more */
	struct kn_err err;		 /* the story when an operation failed */
	struct kn_traffic rx, tx;
	struct kn_live *live; /* NULL: no interface */
};

/** Release a port; NULL is fine. What was sent but not flushed may be lost: kn_port_flush(). */
void kn_port_close(struct kn_port *port);
KN_AUTO(kn_port_close, struct kn_port *);

/** Call the port something else; cut at KN_PORT_NAME_MAX. */
void kn_port_rename(struct kn_port *port, const char *name);

/**
 * Fill a batch. The batch must be empty: every frame of the last round given away.
 *
 * Returns as ops->rx.
 */
int kn_port_rx(struct kn_port *port, struct kn_batch *b);

/** Send all live lanes: those taken go from live to sent. */
void kn_port_tx(struct kn_port *port, struct kn_batch *b);

/** Bring everything sent to where it belongs. Errors: what the kind says. */
kn_must_use int kn_port_flush(struct kn_port *port, struct kn_err *err);

/**
 * A port that takes everything, counts it and gives the frames back to their pools. As a source it
 * ends at once.
 *
 * Errors  ENOMEM
 */
kn_must_use int kn_port_null_new(struct kn_port **ret, struct kn_err *err);

/**
 * A first-in first-out ring of frames: what is sent into it, or pushed, comes out when received.
 * Ends, until more is pushed, when it is empty. Nothing is copied.
 *
 * capacity  frames that fit, 1 to KN_POOL_FRAMES_MAX
 *
 * Errors  EINVAL, ENOMEM
 */
kn_must_use int kn_port_memory_new(uint32_t capacity, struct kn_port **ret, struct kn_err *err);

/** Put frames into a memory port by hand; it owns those it took. Returns how many fitted. */
uint32_t kn_port_memory_push(struct kn_port *port, struct kn_frame *const *frames, uint32_t n);

/** Take up to n frames out of a memory port by hand, oldest first. The caller owns them. */
uint32_t kn_port_memory_pull(struct kn_port *port, struct kn_frame **ret, uint32_t n);

/**
 * Receive the Ethernet frames of a capture file, pcap or pcapng, with their time stamps. Frames
 * longer than the pool's buffers are dropped as KN_DROP_TOO_LONG.
 *
 * path  "-" is standard input
 * pool  where frames come from; must outlive the port
 *
 * Errors  what open says; EINVAL: no capture file, or not of Ethernet; reading: EILSEQ where the
 *         file is cut or damaged, with the frame's number
 */
kn_must_use int kn_port_pcap_read(const char *path, struct kn_pool *pool, struct kn_port **ret,
				  struct kn_err *err);

/**
 * Send into a new capture file: pcap with nanoseconds. An existing file is replaced.
 *
 * path  "-" is standard output
 *
 * Errors  what open says; ENOMEM; sending and flushing: EIO, ENOSPC
 */
kn_must_use int kn_port_pcap_write(const char *path, struct kn_port **ret, struct kn_err *err);

/**
 * Open a network interface, both ways: the kind that its binding names, or the best one. Nothing is
 * received before kn_port_arm(). Needs CAP_NET_RAW in the interface's namespace (and, for af_xdp,
 * CAP_NET_ADMIN and CAP_BPF); what comes after the opening needs no rights at all, so that a process
 * can give them up in between.
 *
 * The host's own stack still sees what af_packet receives; it should have no address there. af_xdp
 * takes frames away from it.
 *
 * ret     named as the binding's port; needs its pools (kn_port_use) before it receives
 *
 * Errors  ENODEV: no such interface; EPERM: the rights; ENOENT: no such namespace; EOPNOTSUPP: not
 *         Ethernet, or the kind that was asked for cannot be had, with the reason
 * Source  packet(7); Documentation/networking/packet_mmap.rst, af_xdp.rst
 */
kn_must_use int kn_port_open(const struct kn_binding *binding, struct kn_port **ret,
			     struct kn_err *err);

/** Where an interface's frames come from; both pools borrowed, must outlive the port. */
void kn_port_use(struct kn_port *port, struct kn_pool *pool, struct kn_pool *large);

/**
 * Take frames from now on, or take no more: those that were taken can still be received. Fine for
 * all kinds. Errors: what the kernel said; ENODEV when the interface went away.
 */
kn_must_use int kn_port_arm(struct kn_port *port, bool yes, struct kn_err *err);

/** Bring port->live up to date; port->err tells when the interface is gone. Fine for all kinds. */
void kn_port_look(struct kn_port *port);
