/* The loop of a bare function: take a request, let the author's code answer it, sleep. */
#include "bare_internal.h"

const struct kn_bare_info *kiln_info;

static struct kn_ring requests, replies, logs;
static uint32_t log_slot, logs_lost;

void kiln_main(const struct kn_bare_info *info);

static char *channel_at(uint64_t offset)
{
	return (char *)(uintptr_t)(kiln_info->channel + offset);
}

__attribute__((weak)) void kiln_start(void)
{
}

void kiln_exit(int code)
{
	for (;;)
		kiln_doorbell(KN_BARE_EXIT, (unsigned)code & 0xff);
}

/* ---- log ------------------------------------------------------------------------------------ */

static bool put_log(const char *line, size_t len)
{
	uint64_t area = kiln_info->channel_bytes - KN_BARE_LOG_BYTES;
	uint64_t at = area + (uint64_t)(log_slot % KN_BARE_LOG_SLOTS) * KN_BARE_LOG_SLOT;

	if (logs.mine - logs.theirs == logs.size) {
		/* Full as far as we know; look again before writing into a slot that may be read. */
		logs.theirs = atomic_load_explicit(&logs.shared->tail, memory_order_acquire);
		if (logs.mine - logs.theirs >= logs.size)
			return false;
	}
	memcpy(channel_at(at), line, len);
	if (kn_ring_put(&logs, (struct kn_ring_desc){ at, (uint32_t)len, 0 }) != KN_RING_OK)
		return false;
	log_slot++;
	/* A burst between two calls: have it fetched before it is lost. */
	if (logs.mine - logs.theirs == logs.size / 2)
		kiln_doorbell(KN_BARE_NOTIFY, 0);
	return true;
}

void kiln_log(const char *fmt, ...)
{
	char line[KN_BARE_LOG_SLOT - 15];
	va_list ap;

	if (!kiln_info->channel_bytes)
		return;
	if (logs_lost) {
		char lost[64];
		int n = kiln_snprintf(lost, sizeof(lost), "%u lines of log were lost", logs_lost);
		if (!put_log(lost, (size_t)n)) {
			logs_lost++;
			return;
		}
		logs_lost = 0;
	}
	va_start(ap, fmt);
	int n = kiln_vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	size_t len = (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1;
	if (len && !put_log(line, len))
		logs_lost++;
}

/* ---- one request ---------------------------------------------------------------------------- */

static struct kiln_bytes take_bytes(const char **p, size_t len)
{
	struct kiln_bytes b = { *p, len };
	*p += len;
	return b;
}

static void finish(struct kiln_reply *r)
{
	static const char too_large[] = "the reply is larger than this instance may send\n";

	if (!r->overflow)
		return;
	r->status = 500;
	r->len = 0;
	r->type_len = 0;
	r->overflow = false;
	kiln_reply_type(r, "text/plain");
	kiln_reply_add(r, too_large, sizeof(too_large) - 1);
	r->overflow = false;
}

static void send_reply(const struct kn_bare_head *in, uint32_t slot, const struct kiln_reply *r)
{
	struct kn_bare_head out = {
		.body_len = (uint32_t)r->len,
		.type_len = r->type_len,
		.status = (uint32_t)r->status,
	};
	char *frame = channel_at(in->reply_offset);

	memcpy(frame, &out, sizeof(out));
	memcpy(frame + sizeof(out) + r->len, r->type, r->type_len);
	struct kn_ring_desc d = { in->reply_offset,
		                  (uint32_t)(sizeof(out) + r->len + r->type_len), slot };
	if (kn_ring_put(&replies, d) != KN_RING_OK)
		kiln_exit(71);           /* never full: the host has as many slots as the ring */
}

static void serve(struct kn_ring_desc d)
{
	const char *p = channel_at(d.offset);
	struct kn_bare_head head;
	struct kiln_request q;

	memcpy(&head, p, sizeof(head));
	p += sizeof(head);
	q.method = take_bytes(&p, head.method_len);
	q.path = take_bytes(&p, head.path_len);
	q.content_type = take_bytes(&p, head.type_len);
	q.call_id = take_bytes(&p, head.call_id_len);
	q.body = take_bytes(&p, head.body_len);

	struct kiln_reply r = {
		.body = channel_at(head.reply_offset) + sizeof(struct kn_bare_head),
		.room = head.reply_bytes - sizeof(struct kn_bare_head) - 255,
		.status = 200,
	};
	kiln_reply_type(&r, "application/octet-stream");
	kiln_handle(&q, &r);
	finish(&r);
	send_reply(&head, d.tag, &r);
	kiln_heap_end_request();
}

static bool more_requests(void)
{
	return atomic_load_explicit(&requests.shared->head, memory_order_acquire) != requests.mine;
}

void kiln_main(const struct kn_bare_info *info)
{
	struct kn_ring_desc d;

	kiln_info = info;
	kiln_clock_entered();
	kiln_heap_init((void *)(uintptr_t)info->heap, info->heap_bytes);
	if (info->channel_bytes) {
		requests = kn_ring_at(channel_at(KN_BARE_REQUEST_RING), KN_BARE_REQUESTS);
		replies = kn_ring_at(channel_at(KN_BARE_REPLY_RING), KN_BARE_REPLIES);
		logs = kn_ring_at(channel_at(KN_BARE_LOG_RING), KN_BARE_LOGS);
	}
	kiln_start();
	if (!info->channel_bytes)
		kiln_exit(0);

	for (;;) {
		int got = kn_ring_take(&requests, &d);
		if (got == KN_RING_OK) {
			serve(d);
			/* Waiting tells the host, too: only a reply before more work needs this. */
			if (more_requests() && kn_ring_must_wake(&replies))
				kiln_doorbell(KN_BARE_NOTIFY, 0);
		} else if (got == KN_RING_BROKEN) {
			kiln_exit(70);
		} else if (kn_ring_sleep(&requests)) {
			kiln_doorbell(KN_BARE_WAIT, 0);
			kn_ring_awake(&requests);
			kiln_clock_entered();
		}
	}
}
