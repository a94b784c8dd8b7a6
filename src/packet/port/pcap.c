/*
 * Capture files through libpcap, which reads pcap and pcapng and writes pcap. Files are opened
 * here, not by libpcap, so that descriptors are close-on-exec and errors are told our way.
 *
 * syscalls: openat read write fstat close lseek
 */
#include <errno.h>
#include <fcntl.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "packet/port/kinds.h"

struct capture {
	struct kn_port port;
	pcap_t *pcap;
	pcap_dumper_t *dumper; /* writing only */
	struct kn_pool *pool;  /* reading only */
	uint64_t number;       /* of the frame last read, from 1 */
	char *path;
};

static struct capture *capture_of(struct kn_port *port)
{
	return kn_container_of(port, struct capture, port);
}

static void capture_close(struct kn_port *port)
{
	struct capture *c = capture_of(port);

	if (c->dumper)
		pcap_dump_close(c->dumper);
	if (c->pcap)
		pcap_close(c->pcap);
	free(c->path);
	free(c);
}

static void capture_free(struct capture *c)
{
	if (c)
		capture_close(&c->port);
}
KN_AUTO(capture_free, struct capture *);

/* A stdio stream that libpcap's handle will own. */
static int open_stream(const char *path, int flags, const char *mode, FILE **ret,
		       struct kn_err *err)
{
	kn_auto(kn_close) int fd = -1;
	struct stat st;

	if (strcmp(path, "-") == 0)
		fd = fcntl(flags & O_WRONLY ? STDOUT_FILENO : STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	else
		fd = open(path, flags | O_CLOEXEC, 0666);
	if (fd < 0)
		return kn_fail(err, errno, "open capture '%s': %s", path, strerror(errno));
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
		return kn_fail(err, EISDIR, "open capture '%s': it is a folder", path);
	*ret = fdopen(fd, mode);
	if (!*ret)
		return kn_fail(err, errno, "open capture '%s': %s", path, strerror(errno));
	(void)kn_take_fd(fd);
	return 0;
}

/* An end of file and a damaged file need the same words from libpcap: say which frame it was. */
static int read_failed(struct capture *c)
{
	return kn_fail(&c->port.err, EILSEQ, "capture '%s' is cut or damaged after frame %llu: %s",
		       c->path, (unsigned long long)c->number, pcap_geterr(c->pcap));
}

/* The next frame into lane, or 0 at the end. */
static int read_frame(struct capture *c, struct kn_batch *b, uint32_t lane)
{
	struct pcap_pkthdr *h;
	const u_char *bytes;
	int r = pcap_next_ex(c->pcap, &h, &bytes);

	if (r == PCAP_ERROR_BREAK)
		return 0;
	if (r != 1)
		return read_failed(c);
	c->number++;
	struct kn_frame *f = b->frame[lane];
	if (kn_frame_fill(f, bytes, h->caplen))
		b->live |= kn_lane(lane);
	else
		kn_batch_drop(b, kn_lane(lane), KN_DROP_TOO_LONG);
	f->wire_len = kn_max(h->len, h->caplen);
	/* With nanosecond precision tv_usec holds nanoseconds. */
	f->ts_ns = (uint64_t)h->ts.tv_sec * 1000000000 + (uint64_t)h->ts.tv_usec;
	kn_traffic_add(&c->port.rx, f);
	return 1;
}

static int capture_rx(struct kn_port *port, struct kn_batch *b)
{
	struct capture *c = capture_of(port);
	int r = 1;

	if (port->err.code)
		return -port->err.code;
	uint32_t got = kn_pool_take(c->pool, KN_BATCH, b->frame);

	if (got == 0)
		return kn_fail(&port->err, ENOBUFS, "port '%s': the frame pool is empty",
			       port->name);
	/* What was read before a failure still goes through; the failure is told next time. */
	while (b->n < got && (r = read_frame(c, b, b->n)) > 0)
		b->n++;
	kn_frames_put(b->frame + b->n, got - b->n);
	port->ended = r == 0;
	return b->n ? (int)b->n : r;
}

static const struct kn_port_ops read_ops = {
	.kind = "pcap",
	.rx = capture_rx,
	.close = capture_close,
};

static int capture_new(const char *path, const struct kn_port_ops *ops, struct capture **ret,
		       struct kn_err *err)
{
	struct capture *c = calloc(1, sizeof(*c));
	char *copy = strdup(path);

	if (!c || !copy) {
		free(c);
		free(copy);
		return kn_fail(err, ENOMEM, "no memory for capture '%s'", path);
	}
	c->path = copy;
	kn_port_setup(&c->port, ops);
	*ret = c;
	return 0;
}

static int check_link_type(struct capture *c, struct kn_err *err)
{
	int type = pcap_datalink(c->pcap);
	const char *name = pcap_datalink_val_to_name(type);

	if (type == DLT_EN10MB)
		return 0;
	return kn_fail(err, EINVAL,
		       "capture '%s' holds frames of link type %s (%d); only Ethernet (EN10MB) is "
		       "understood: capture on one interface, not on 'any'",
		       c->path, name ? name : "?", type);
}

int kn_port_pcap_read(const char *path, struct kn_pool *pool, struct kn_port **ret,
		      struct kn_err *err)
{
	kn_auto(capture_free) struct capture *c = NULL;
	char why[PCAP_ERRBUF_SIZE] = "";
	FILE *stream;

	int r = capture_new(path, &read_ops, &c, err);
	if (r < 0)
		return r;
	r = open_stream(path, O_RDONLY, "rb", &stream, err);
	if (r < 0)
		return r;
	c->pool = pool;
	c->pcap = pcap_fopen_offline_with_tstamp_precision(stream, PCAP_TSTAMP_PRECISION_NANO, why);
	if (!c->pcap) {
		fclose(stream);
		return kn_fail(err, EINVAL, "'%s' is no capture file (pcap or pcapng): %s", path,
			       why);
	}
	r = check_link_type(c, err);
	if (r < 0)
		return r;
	*ret = &kn_take_ptr(c)->port;
	return 0;
}

static void write_frame(struct capture *c, const struct kn_frame *f)
{
	struct pcap_pkthdr h = { .caplen = f->len, .len = f->wire_len };

	h.ts.tv_sec = (time_t)(f->ts_ns / 1000000000);
	h.ts.tv_usec = (suseconds_t)(f->ts_ns % 1000000000);
	pcap_dump((u_char *)c->dumper, &h, f->data);
}

static int write_failed(struct capture *c)
{
	int code = errno ? errno : EIO;

	return kn_fail(&c->port.err, code, "write capture '%s': %s", c->path, strerror(code));
}

static kn_lanes capture_tx(struct kn_port *port, struct kn_batch *b, kn_lanes lanes)
{
	struct capture *c = capture_of(port);

	if (port->err.code)
		return 0;
	errno = 0;
	kn_each_lane(i, lanes)
	{
		write_frame(c, b->frame[i]);
	}
	if (ferror(pcap_dump_file(c->dumper))) {
		write_failed(c);
		return 0;
	}
	kn_each_lane(k, lanes)
	{
		kn_traffic_add(&port->tx, b->frame[k]);
	}
	kn_batch_release(b, lanes);
	return lanes;
}

static int capture_flush(struct kn_port *port)
{
	struct capture *c = capture_of(port);

	if (port->err.code)
		return -port->err.code;
	errno = 0;
	if (pcap_dump_flush(c->dumper) != 0)
		return write_failed(c);
	return 0;
}

static const struct kn_port_ops write_ops = {
	.kind = "pcap",
	.tx = capture_tx,
	.flush = capture_flush,
	.close = capture_close,
};

int kn_port_pcap_write(const char *path, struct kn_port **ret, struct kn_err *err)
{
	kn_auto(capture_free) struct capture *c = NULL;
	FILE *stream;

	int r = capture_new(path, &write_ops, &c, err);
	if (r < 0)
		return r;
	c->pcap = pcap_open_dead_with_tstamp_precision(DLT_EN10MB, KN_FRAME_BYTES_MAX,
						       PCAP_TSTAMP_PRECISION_NANO);
	if (!c->pcap)
		return kn_fail(err, ENOMEM, "no memory for capture '%s'", path);
	r = open_stream(path, O_WRONLY | O_CREAT | O_TRUNC, "wb", &stream, err);
	if (r < 0)
		return r;
	c->dumper = pcap_dump_fopen(c->pcap, stream);
	if (!c->dumper) {
		fclose(stream);
		return kn_fail(err, EIO, "write capture '%s': %s", path, pcap_geterr(c->pcap));
	}
	*ret = &kn_take_ptr(c)->port;
	return 0;
}
