/*
 * A slot of a receive ring, in memory of exactly its size, and a binding in words. First byte: which
 * of the two, and whether the slot has offloads.
 */
#include "fuzz.h"

#include <stdio.h>
#include <string.h>

#include "packet/binding.h"
#include "packet/tpacket.h"

static void read_slot(const uint8_t *data, size_t size, bool offload)
{
	struct kn_tpacket t;
	unsigned sum = 0;

	if (kn_tpacket_read(data, size, offload, &t) != 0)
		return;
	must(t.data >= data && t.len <= size && t.data + t.len <= data + size);
	must(t.len <= t.wire_len);
	for (uint32_t i = 0; i < t.len; i++)
		sum += t.data[i];
	must(sum <= 255 * size);
}

static void read_binding(struct kn_view text)
{
	struct kn_binding b, again;
	char back[300];

	if (kn_binding_parse(text, &b, NULL) < 0)
		return;
	snprintf(back, sizeof(back), "%s=%s:%s%s%s", b.port, kn_port_kind_name(b.kind), b.interface,
		 b.netns[0] ? "@" : "", b.netns);
	must(kn_binding_parse(kn_view_of(back), &again, NULL) == 0);
	must(kn_binding_same(&b, &again) && strcmp(b.port, again.port) == 0 && b.kind == again.kind);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	/* Exactly as large as it says, and aligned as a ring is. */
	uint8_t *copy = malloc(size);
	must(copy != NULL);
	memcpy(copy, data + 1, size - 1);
	if (data[0] & 1)
		read_binding((struct kn_view){ (const char *)copy, size - 1 });
	else
		read_slot(copy, size - 1, data[0] & 2);
	free(copy);
	return 0;
}
