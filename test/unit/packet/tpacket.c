/*
 * Slots as the kernel would fill them, and slots as it never would, in memory of exactly their size.
 */
#include "test.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdlib.h>

#include "packet/tpacket.h"

enum { SLOT = 256, MAC = 80, LEN = 60 };

static uint8_t *new_slot(void)
{
	uint8_t *slot = calloc(1, SLOT);
	assert_non_null(slot);
	const struct kn_offload offload = { .flags = 1, .csum_start = 34, .csum_offset = 16 };
	const struct tpacket2_hdr h = {
		.tp_status = TP_STATUS_USER, .tp_len = LEN, .tp_snaplen = LEN, .tp_mac = MAC,
		.tp_net = MAC + 14, .tp_sec = 2, .tp_nsec = 5, .tp_vlan_tci = 42, .tp_vlan_tpid = 0x88a8,
	};

	memcpy(slot, &h, sizeof(h));
	memcpy(slot + MAC - sizeof(offload), &offload, sizeof(offload));
	memset(slot + MAC, 0xab, LEN);
	return slot;
}

static void a_slot_gives_frame_time_and_offload(void **state)
{
	kn_auto(kn_free) uint8_t *slot = new_slot();
	struct kn_tpacket t;

	(void)state;
	assert_true(kn_tpacket_filled(slot));
	assert_int_equal(kn_tpacket_read(slot, SLOT, true, &t), 0);
	assert_ptr_equal(t.data, slot + MAC);
	assert_int_equal(t.len, LEN);
	assert_int_equal(t.wire_len, LEN);
	assert_int_equal(t.ts_ns, 2000000005);
	assert_int_equal(t.offload.csum_start, 34);
	assert_false(t.tagged);
	assert_false(t.queued);
	assert_int_equal(kn_tpacket_read(slot, SLOT, false, &t), 0);
	assert_int_equal(t.offload.flags, 0);
	kn_tpacket_release(slot);
	assert_false(kn_tpacket_filled(slot));
}

static void the_kernel_tells_tags_and_long_frames(void **state)
{
	kn_auto(kn_free) uint8_t *slot = new_slot();
	struct tpacket2_hdr *h = (void *)slot;
	struct kn_tpacket t;

	(void)state;
	h->tp_status |= TP_STATUS_VLAN_VALID;
	assert_int_equal(kn_tpacket_read(slot, SLOT, true, &t), 0);
	assert_true(t.tagged);
	assert_int_equal(t.tpid, ETH_P_8021Q);
	assert_int_equal(t.tci, 42);
	h->tp_status |= TP_STATUS_VLAN_TPID_VALID | TP_STATUS_COPY;
	h->tp_len = 64000;
	assert_int_equal(kn_tpacket_read(slot, SLOT, true, &t), 0);
	assert_int_equal(t.tpid, 0x88a8);
	assert_true(t.queued);
	assert_int_equal(t.wire_len, 64000);
}

static void no_number_leads_out_of_the_slot(void **state)
{
	static const struct {
		uint32_t len, snaplen;
		uint16_t mac;
	} cases[] = {
		{ LEN, LEN, 0 },
		{ LEN, LEN, sizeof(struct tpacket2_hdr) },     /* the offload would lie in the header */
		{ LEN, LEN, SLOT - LEN + 1 },
		{ LEN, LEN, SLOT + 1 },
		{ LEN, LEN, 0xffff },
		{ LEN - 1, LEN, MAC },
		{ 0xffffffff, SLOT - MAC + 1, MAC },
		{ 0xffffffff, 0xffffffff, MAC },
	};
	struct kn_tpacket t;

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		kn_auto(kn_free) uint8_t *slot = new_slot();
		struct tpacket2_hdr *h = (void *)slot;
		h->tp_len = cases[i].len;
		h->tp_snaplen = cases[i].snaplen;
		h->tp_mac = cases[i].mac;
		assert_int_equal(kn_tpacket_read(slot, SLOT, true, &t), -EBADMSG);
	}
	kn_auto(kn_free) uint8_t *small = new_slot();
	assert_int_equal(kn_tpacket_read(small, sizeof(struct tpacket2_hdr) - 1, true, &t), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_slot_gives_frame_time_and_offload),
		cmocka_unit_test(the_kernel_tells_tags_and_long_frames),
		cmocka_unit_test(no_number_leads_out_of_the_slot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
