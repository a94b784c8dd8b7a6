/*
 * The two helpers of bench/live, which runs them in network namespaces:
 *
 *     frames blast INTERFACE SECONDS   send 60-byte TCP frames as fast as sendmmsg takes them
 *     frames forward FROM TO SECONDS   the floor: a TPACKET_V2 ring in, sendmmsg out, nothing else
 *
 * Both print what they did as JSON: frames, and the CPU time of the process.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, SLOT = 2048, BLOCK = 1 << 18, BLOCKS = 16, SLOTS = BLOCK / SLOT * BLOCKS };

/* 10.9.0.1 to 10.9.0.2, to a MAC address that nobody there has: the receiving host drops it early. */
static const uint8_t FRAME[60] = {
	2,    0,    0, 0, 9,  9,   2, 0, 0, 0,  9, 1, 8,    0,    0x45, 0,   0, 40, 0, 7, 0, 0,  64, 6,
	0x66, 0xbd, 10, 9, 0, 1, 10, 9, 0, 2, 0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2,
	4,
};

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "frames: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_packet(const char *interface, int protocol)
{
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
				  .sll_protocol = htons((uint16_t)protocol),
				  .sll_ifindex = (int)if_nametoindex(interface) };

	if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die(interface);
	return fd;
}

static void report(uint64_t frames, uint64_t began)
{
	printf("{\"frames\": %llu, \"cpu_ns\": %llu, \"wall_ns\": %llu}\n", (unsigned long long)frames,
	       (unsigned long long)now_ns(CLOCK_PROCESS_CPUTIME_ID),
	       (unsigned long long)(now_ns(CLOCK_MONOTONIC) - began));
}

static void blast(const char *interface, uint64_t ns)
{
	struct iovec part = { (void *)(uintptr_t)FRAME, sizeof(FRAME) };
	struct mmsghdr m[BATCH] = { 0 };
	int fd = open_packet(interface, 0);
	uint64_t frames = 0, began = now_ns(CLOCK_MONOTONIC);

	for (int i = 0; i < BATCH; i++)
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &part, .msg_iovlen = 1 };
	while (now_ns(CLOCK_MONOTONIC) - began < ns) {
		int r = sendmmsg(fd, m, BATCH, 0);
		frames += r > 0 ? (uint64_t)r : 0;
	}
	report(frames, began);
}

static uint8_t *make_ring(int fd)
{
	struct tpacket_req want = { BLOCK, BLOCKS, SLOT, SLOTS };
	int version = TPACKET_V2, one = 1;

	if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &want, sizeof(want)) < 0)
		die("ring");
	void *ring = mmap(NULL, (size_t)BLOCK * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring == MAP_FAILED)
		die("map the ring");
	return ring;
}

static bool filled(const struct tpacket2_hdr *h)
{
	return __atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER;
}

static void forward(const char *from, const char *to, uint64_t ns)
{
	int in = open_packet(from, ETH_P_ALL), out = open_packet(to, 0);
	uint8_t *ring = make_ring(in);
	struct mmsghdr m[BATCH] = { 0 };
	struct iovec parts[BATCH];
	uint64_t frames = 0, began = now_ns(CLOCK_MONOTONIC);

	for (uint32_t next = 0; now_ns(CLOCK_MONOTONIC) - began < ns;) {
		struct tpacket2_hdr *h[BATCH];
		uint32_t n = 0;
		for (; n < BATCH; n++) {
			h[n] = (void *)(ring + (size_t)((next + n) % SLOTS) * SLOT);
			if (!filled(h[n]))
				break;
			parts[n] = (struct iovec){ (uint8_t *)h[n] + h[n]->tp_mac, h[n]->tp_snaplen };
			m[n].msg_hdr = (struct msghdr){ .msg_iov = &parts[n], .msg_iovlen = 1 };
		}
		if (n == 0) {
			struct pollfd p = { .fd = in, .events = POLLIN };
			(void)poll(&p, 1, 100);
			continue;
		}
		int sent = sendmmsg(out, m, n, MSG_DONTWAIT);
		frames += sent > 0 ? (uint64_t)sent : 0;
		for (uint32_t i = 0; i < n; i++)
			__atomic_store_n(&h[i]->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		next = (next + n) % SLOTS;
	}
	report(frames, began);
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "blast") == 0)
		blast(argv[2], (uint64_t)(atof(argv[3]) * 1e9));
	else if (argc == 5 && strcmp(argv[1], "forward") == 0)
		forward(argv[2], argv[3], (uint64_t)(atof(argv[4]) * 1e9));
	else
		return fprintf(stderr, "frames blast INTERFACE SECONDS | forward FROM TO SECONDS\n"), 2;
	return 0;
}
