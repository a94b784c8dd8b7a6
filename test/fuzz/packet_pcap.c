/* A capture file of any content: every frame is sent or counted, and the pool gets all back. */
#include "fuzz.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "packet/pipeline.h"

static void add(struct kn_pipeline *p, int made, struct kn_stage **stage)
{
	must(made == 0 && kn_pipeline_add(p, *stage, NULL) == 0);
}

static void run(struct kn_port *in, struct kn_port *out)
{
	static const volatile sig_atomic_t never;
	kn_auto(kn_pipeline_free) struct kn_pipeline *p = NULL;
	struct kn_stage *s;
	uint64_t dropped = 0;

	must(kn_pipeline_new(&p, NULL) == 0);
	add(p, kn_stage_receive(in, &s, NULL), &s);
	add(p, kn_stage_parse(NULL, &s, NULL), &s);
	add(p, kn_stage_call("ttl", kn_map_ttl, NULL, &s, NULL), &s);
	add(p, kn_stage_send(out, &s, NULL), &s);
	struct kn_err err = KN_ERR_INIT;
	int r = kn_pipeline_run(p, &never, &err);
	must(r == 0 || (r == -EILSEQ && err.text[0]));
	for (unsigned i = 0; i < KN_REASON_COUNT; i++)
		dropped += kn_pipeline_drops(p, (enum kn_reason)i);
	must(kn_pipeline_received(p).frames == kn_pipeline_sent(p).frames + dropped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct kn_pool_config config = { .frames = 64, .frame_bytes = 512 };
	kn_auto(kn_pool_free) struct kn_pool *pool = NULL;
	kn_auto(kn_close) int fd = memfd_create("capture", MFD_CLOEXEC);
	struct kn_port *in = NULL, *out = NULL;
	struct kn_err err = KN_ERR_INIT;
	char path[32];

	must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	must(kn_pool_new(&config, &pool, NULL) == 0);
	if (kn_port_pcap_read(path, pool, &in, &err) < 0) {
		must(!in && err.code && err.text[0]);
		return 0;
	}
	must(kn_port_pcap_write("/dev/null", &out, NULL) == 0);
	run(in, out);
	kn_port_close(in);
	kn_port_close(out);
	must(kn_pool_available(pool) == kn_pool_size(pool));
	return 0;
}
