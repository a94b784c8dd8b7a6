#include "packet/fixture.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "packet/port.h"

static const char DATAGRAM[] = ETH4 IP4("0020", "11") UDP("000c") "deadbeef";

static struct kn_pool *new_pool(uint32_t frames, uint32_t bytes)
{
	struct kn_pool_config config = { .frames = frames, .frame_bytes = bytes };
	struct kn_pool *pool = NULL;
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_pool_new(&config, &pool, &err), &err);
	return pool;
}

static struct kn_frame *datagram(struct kn_pool *pool)
{
	uint8_t bytes[FIXTURE_MAX];
	struct kn_frame *f;
	uint32_t n = (uint32_t)bytes_of(DATAGRAM, bytes);

	assert_int_equal(kn_pool_take(pool, 1, &f), 1);
	assert_true(kn_frame_fill(f, bytes, n));
	return f;
}

/* A file that goes away with the test; name has room for 32. */
static void scratch(char *name)
{
	strcpy(name, "/tmp/kiln-port.XXXXXX");
	int fd = mkstemp(name);
	assert_true(fd >= 0);
	close(fd);
}

static void write_file(const char *name, const char *hex)
{
	uint8_t bytes[FIXTURE_MAX];
	size_t n = bytes_of(hex, bytes);
	int fd = open(name, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

static void memory_keeps_order_and_refuses_what_does_not_fit(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = new_pool(64, 128);
	kn_auto(kn_port_close) struct kn_port *port = NULL;
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	struct kn_frame *in[40], *out[40];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	batch_init(&b, drops);
	assert_ok(kn_port_memory_new(35, &port, &err), &err);
	for (int i = 0; i < 40; i++)
		in[i] = datagram(pool);
	assert_int_equal(kn_port_memory_push(port, in, 40), 35);
	assert_int_equal(kn_port_rx(port, &b), 32);
	assert_int_equal(b.live, 0xffffffff);
	assert_ptr_equal(b.frame[31], in[31]);
	assert_int_equal(port->rx.frames, 32);
	assert_int_equal(port->rx.bytes, 32 * 46);

	/* 3 inside, 35 fit: all 32 go in again, then only 3 more are out to make room for. */
	b.live = 0xfffffffe;
	kn_port_tx(port, &b);
	assert_int_equal(b.sent, 0xfffffffe);
	assert_int_equal(b.live, 0);
	assert_int_equal(port->tx.frames, 31);
	b.live = 1;
	b.n = 3;
	b.frame[1] = in[35];
	b.frame[2] = in[36];
	b.live = 7;
	kn_port_tx(port, &b);
	assert_int_equal(b.live, 6);
	assert_int_equal(port->tx.frames, 32);
	assert_int_equal(kn_port_memory_pull(port, out, 40), 35);
	assert_ptr_equal(out[0], in[32]);
	assert_ptr_equal(out[3], in[1]);
	assert_ptr_equal(out[34], in[0]);
	kn_frames_put(out, 35);
	kn_frames_put(in + 35, 5);
}

static void memory_ends_when_empty_and_returns_what_is_left(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = new_pool(8, 128);
	struct kn_port *port = NULL;
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	batch_init(&b, drops);
	assert_ok(kn_port_memory_new(4, &port, &err), &err);
	assert_int_equal(kn_port_rx(port, &b), 0);
	assert_true(port->ended);
	struct kn_frame *f = datagram(pool);
	assert_int_equal(kn_port_memory_push(port, &f, 1), 1);
	assert_false(port->ended);
	kn_port_close(port);
	assert_int_equal(kn_pool_available(pool), 8);
	assert_fails(kn_port_memory_new(0, &port, &err), EINVAL, &err, "holds");
}

static void null_swallows_and_counts(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = new_pool(8, 128);
	kn_auto(kn_port_close) struct kn_port *port = NULL;
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	batch_init(&b, drops);
	assert_ok(kn_port_null_new(&port, &err), &err);
	assert_int_equal(kn_port_rx(port, &b), 0);
	assert_true(port->ended);
	b.frame[0] = datagram(pool);
	b.frame[1] = datagram(pool);
	b.n = 2;
	b.live = 2;
	kn_port_tx(port, &b);
	assert_int_equal(port->tx.bytes, 46);
	assert_int_equal(kn_pool_available(pool), 7);
	kn_batch_release(&b, 1);
	assert_ok(kn_port_flush(port, &err), &err);
}

static void a_capture_comes_back_as_it_was_written(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = new_pool(64, 128);
	struct kn_port *port = NULL;
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	struct kn_err err = KN_ERR_INIT;
	char name[32];

	(void)state;
	scratch(name);
	batch_init(&b, drops);
	assert_ok(kn_port_pcap_write(name, &port, &err), &err);
	for (b.n = 0; b.n < 5; b.n++) {
		b.frame[b.n] = datagram(pool);
		b.frame[b.n]->ts_ns = UINT64_C(1700000000123456789) + b.n;
		b.frame[b.n]->data[0] = (uint8_t)b.n;
	}
	b.frame[4]->wire_len = 1500;
	b.live = 0x1f;
	kn_port_tx(port, &b);
	assert_int_equal(b.live, 0);
	assert_int_equal(kn_pool_available(pool), 64);
	assert_ok(kn_port_flush(port, &err), &err);
	kn_port_close(port);

	assert_ok(kn_port_pcap_read(name, pool, &port, &err), &err);
	assert_int_equal(kn_port_rx(port, &b), 5);
	assert_true(port->ended);
	assert_int_equal(b.live, 0x1f);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(b.frame[i]->len, 46);
		assert_int_equal(b.frame[i]->data[0], i);
		assert_true(b.frame[i]->ts_ns == UINT64_C(1700000000123456789) + i);
	}
	assert_int_equal(b.frame[4]->wire_len, 1500);
	assert_int_equal(port->rx.bytes, 4 * 46 + 1500);
	kn_batch_release(&b, 0x1f);
	assert_int_equal(kn_port_rx(port, &b), 0);
	kn_port_close(port);
	assert_int_equal(kn_pool_available(pool), 64);
	unlink(name);
}

#define PCAP_HEAD "d4c3b2a1 0200 0400 00000000 00000000 00000400 "
#define RECORD_3  "01000000 02000000 03000000 03000000 aabbcc "

static void what_is_no_capture_is_refused(void **state)
{
	static const struct {
		const char *bytes, *says;
	} cases[] = {
		{ "", "no capture file" },
		{ "d4c3b2", "no capture file" },
		{ "23212f62 696e2f73 680a2320 68656c6c 6f0a0a0a 0a0a0a0a", "no capture file" },
		{ PCAP_HEAD "71000000", "link type LINUX_SLL" },
		{ PCAP_HEAD "93010000", "only Ethernet" },
	};
	kn_auto(kn_pool_free) struct kn_pool *pool = new_pool(8, 128);
	struct kn_port *port = NULL;
	char name[32];

	(void)state;
	scratch(name);
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		write_file(name, cases[i].bytes);
		assert_fails(kn_port_pcap_read(name, pool, &port, &err), EINVAL, &err,
			     cases[i].says);
		assert_non_null(strstr(err.text, name));
	}
	unlink(name);
	struct kn_err err = KN_ERR_INIT;
	assert_fails(kn_port_pcap_read(name, pool, &port, &err), ENOENT, &err, "No such file");
	assert_fails(kn_port_pcap_read("/tmp", pool, &port, &err), EISDIR, &err, "folder");
	assert_fails(kn_port_pcap_write("/no/such/folder/x", &port, &err), ENOENT, &err, "No such");
}

/* Cut at every byte: whole frames come through, then an error that tells where, unless it is even. */
static void a_cut_capture_gives_its_whole_frames_then_an_error(void **state)
{
	static const char whole[] = PCAP_HEAD "01000000 " RECORD_3 RECORD_3;
	kn_auto(kn_pool_free) struct kn_pool *pool = new_pool(64, 128);
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	uint8_t bytes[FIXTURE_MAX];
	size_t n = bytes_of(whole, bytes);
	char name[32];

	(void)state;
	scratch(name);
	batch_init(&b, drops);
	for (size_t len = 24; len <= n; len++) {
		struct kn_port *port = NULL;
		struct kn_err err = KN_ERR_INIT;
		int fd = open(name, O_WRONLY | O_TRUNC);
		assert_int_equal(write(fd, bytes, len), len);
		close(fd);
		assert_ok(kn_port_pcap_read(name, pool, &port, &err), &err);
		int frames = (int)(len - 24) / 19;
		bool even = (len - 24) % 19 == 0;
		if (frames > 0) {
			assert_int_equal(kn_port_rx(port, &b), frames);
			kn_batch_release(&b, kn_lanes_first(b.n));
		}
		int r = kn_port_rx(port, &b);
		assert_int_equal(r, even ? 0 : -EILSEQ);
		assert_int_equal(port->ended, even);
		if (!even)
			assert_non_null(strstr(port->err.text, "cut or damaged after frame"));
		kn_port_close(port);
		assert_int_equal(kn_pool_available(pool), 64);
	}
	unlink(name);
}

static void a_frame_too_long_for_the_pool_is_dropped_and_counted(void **state)
{
	static const char head[] = PCAP_HEAD "01000000 01000000 02000000 81000000 81000000";
	kn_auto(kn_pool_free) struct kn_pool *pool = new_pool(8, 128);
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	uint8_t bytes[FIXTURE_MAX] = { 0 }, more[FIXTURE_MAX];
	struct kn_port *port = NULL;
	struct kn_err err = KN_ERR_INIT;
	char name[32];

	(void)state;
	scratch(name);
	batch_init(&b, drops);
	size_t n = bytes_of(head, bytes) + 129;
	memset(bytes + n - 129, 0xee, 129);
	size_t m = bytes_of(RECORD_3, more);
	memcpy(bytes + n, more, m);
	int fd = open(name, O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, bytes, n + m), n + m);
	close(fd);
	assert_ok(kn_port_pcap_read(name, pool, &port, &err), &err);
	assert_int_equal(kn_port_rx(port, &b), 2);
	assert_int_equal(b.live, 2);
	assert_int_equal(drops[KN_DROP_TOO_LONG], 1);
	assert_int_equal(port->rx.bytes, 129 + 3);
	kn_batch_release(&b, 3);
	kn_port_close(port);
	unlink(name);
}

static void a_full_disk_is_told(void **state)
{
	kn_auto(kn_pool_free) struct kn_pool *pool = new_pool(64, 128);
	kn_auto(kn_port_close) struct kn_port *port = NULL;
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	batch_init(&b, drops);
	assert_ok(kn_port_pcap_write("/dev/full", &port, &err), &err);
	b.frame[0] = datagram(pool);
	b.n = 1;
	b.live = 1;
	kn_port_tx(port, &b);
	kn_batch_release(&b, b.live);
	assert_fails(kn_port_flush(port, &err), ENOSPC, &err, "/dev/full");
	b.frame[0] = datagram(pool);
	b.live = 1;
	kn_port_tx(port, &b);
	assert_int_equal(b.live, 1);
	kn_batch_release(&b, 1);
}

static void a_port_without_the_direction_says_so(void **state)
{
	kn_auto(kn_port_close) struct kn_port *port = NULL;
	static struct kn_batch b;
	uint64_t drops[KN_REASON_COUNT];
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	batch_init(&b, drops);
	assert_ok(kn_port_pcap_write("/dev/null", &port, &err), &err);
	assert_int_equal(kn_port_rx(port, &b), -ENOTSUP);
	kn_port_rename(port, "a name that is longer than thirty-one characters");
	assert_string_equal(port->name, "a name that is longer than thir");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_keeps_order_and_refuses_what_does_not_fit),
		cmocka_unit_test(memory_ends_when_empty_and_returns_what_is_left),
		cmocka_unit_test(null_swallows_and_counts),
		cmocka_unit_test(a_capture_comes_back_as_it_was_written),
		cmocka_unit_test(what_is_no_capture_is_refused),
		cmocka_unit_test(a_cut_capture_gives_its_whole_frames_then_an_error),
		cmocka_unit_test(a_frame_too_long_for_the_pool_is_dropped_and_counted),
		cmocka_unit_test(a_full_disk_is_told),
		cmocka_unit_test(a_port_without_the_direction_says_so),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
