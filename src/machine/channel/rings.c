#include "machine/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* syscalls: memfd_create ftruncate fcntl eventfd2 mmap munmap fallocate read write close */

/* Above this, a finished call's pages are given back to the host. */
#define KEEP_BYTES (UINT64_C(256) << 10)

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

_Static_assert(KN_BARE_REQUEST_RING + sizeof(struct kn_ring_shared) +
                       KN_BARE_REQUESTS * sizeof(struct kn_ring_desc) <= KN_BARE_REPLY_RING,
               "request ring reaches into the reply ring");
_Static_assert(KN_BARE_REPLY_RING + sizeof(struct kn_ring_shared) +
                       KN_BARE_REPLIES * sizeof(struct kn_ring_desc) <= KN_BARE_LOG_RING,
               "reply ring reaches into the log ring");
_Static_assert(KN_BARE_LOG_RING + sizeof(struct kn_ring_shared) +
                       KN_BARE_LOGS * sizeof(struct kn_ring_desc) <= KN_BARE_PAGE,
               "log ring leaves the first page");

static uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) & ~(to - 1);
}

static uint64_t reply_room(uint64_t max_reply_bytes)
{
	return sizeof(struct kn_bare_head) + KN_CHANNEL_MAX_TYPE + max_reply_bytes;
}

static uint64_t slot_bytes(const struct kn_channel_config *c)
{
	uint64_t request = sizeof(struct kn_bare_head) + KN_CHANNEL_MAX_STRINGS +
	                   c->max_request_bytes;
	return align_up(align_up(request, 8) + reply_room(c->max_reply_bytes), KN_BARE_PAGE);
}

uint64_t kn_channel_bytes(const struct kn_channel_config *c)
{
	if (c->slots == 0 || c->slots > KN_BARE_REQUESTS ||
	    c->max_request_bytes > KN_CHANNEL_MAX_BYTES || c->max_reply_bytes > KN_CHANNEL_MAX_BYTES)
		return 0;
	uint64_t bytes = KN_BARE_FRAMES + c->slots * slot_bytes(c) + KN_BARE_LOG_BYTES;
	return bytes > KN_CHANNEL_MAX_BYTES ? 0 : bytes;
}

/* Map the memory and take positions from it, which are 0 when it is new. */
static int map_channel(struct kn_channel *ch, struct kn_err *err)
{
	void *at = mmap(NULL, ch->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ch->memory, 0);
	if (at == MAP_FAILED)
		return kn_fail(err, errno, "map a channel of %" PRIu64 " bytes: %s", ch->bytes,
		               strerror(errno));
	ch->at = at;
	ch->requests = kn_ring_at(ch->at + KN_BARE_REQUEST_RING, KN_BARE_REQUESTS);
	ch->replies = kn_ring_at(ch->at + KN_BARE_REPLY_RING, KN_BARE_REPLIES);
	ch->logs = kn_ring_at(ch->at + KN_BARE_LOG_RING, KN_BARE_LOGS);
	/* The host always wants to be told: it never polls for long. */
	atomic_store_explicit(&ch->replies.shared->sleeping, 1, memory_order_relaxed);
	return 0;
}

static int check_config(const struct kn_channel_config *config, struct kn_channel *ret,
                        struct kn_err *err)
{
	uint64_t bytes = kn_channel_bytes(config);
	if (bytes == 0)
		return kn_fail(err, EINVAL,
		               "a channel with %u calls of %" PRIu64 " bytes in and %" PRIu64
		               " bytes out is larger than %d MiB",
		               config->slots, config->max_request_bytes, config->max_reply_bytes,
		               KN_CHANNEL_MAX_BYTES >> 20);
	*ret = (struct kn_channel){
		.memory = -1, .bell = -1, .note = -1,
		.bytes = bytes,
		.slot_bytes = slot_bytes(config),
		.max_request_bytes = config->max_request_bytes,
		.max_reply_bytes = config->max_reply_bytes,
		.slots = config->slots,
	};
	return 0;
}

int kn_channel_new(const struct kn_channel_config *config, struct kn_channel *ret,
                   struct kn_err *err)
{
	struct kn_channel ch;

	int r = check_config(config, &ch, err);
	if (r < 0)
		return r;
	ch.memory = memfd_create("kiln-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ch.bell = eventfd(0, EFD_CLOEXEC);
	ch.note = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ch.memory < 0 || ch.bell < 0 || ch.note < 0)
		r = kn_fail(err, errno, "make a channel: %s", strerror(errno));
	/* Sealed: else whoever holds the other end could shrink it and kill us with SIGBUS. */
	else if (ftruncate(ch.memory, (off_t)ch.bytes) < 0 || fcntl(ch.memory, F_ADD_SEALS, SEALS) < 0)
		r = kn_fail(err, errno, "a channel of %" PRIu64 " bytes: %s", ch.bytes,
		            strerror(errno));
	else
		r = map_channel(&ch, err);

	if (r < 0)
		kn_channel_fini(&ch);
	else
		*ret = ch;
	return r;
}

int kn_channel_attach(const struct kn_channel_config *config, int memory, int bell, int note,
                      struct kn_channel *ret, struct kn_err *err)
{
	struct kn_channel ch;
	struct stat st;

	int r = check_config(config, &ch, err);
	if (r < 0)
		return r;
	int seals = fcntl(memory, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS || fstat(memory, &st) < 0 ||
	    (uint64_t)st.st_size != ch.bytes)
		return kn_fail(err, EINVAL, "not a channel's memory, or not of this size");

	ch.memory = memory;
	r = map_channel(&ch, err);
	if (r < 0)
		return r;
	ch.bell = bell;
	ch.note = note;
	ch.requests.mine = atomic_load(&ch.requests.shared->head);
	ch.requests.theirs = atomic_load(&ch.requests.shared->tail);
	ch.replies.mine = ch.replies.theirs = atomic_load(&ch.replies.shared->tail);
	ch.logs.mine = ch.logs.theirs = atomic_load(&ch.logs.shared->tail);
	ch.stale = kn_min(ch.requests.mine - ch.replies.mine, (uint32_t)KN_BARE_REQUESTS);
	*ret = ch;
	return 0;
}

void kn_channel_fini(struct kn_channel *ch)
{
	if (ch->at)
		munmap(ch->at, ch->bytes);
	kn_close(ch->note);
	kn_close(ch->bell);
	kn_close(ch->memory);
	*ch = (struct kn_channel){ .memory = -1, .bell = -1, .note = -1 };
}

/* ---- requests ------------------------------------------------------------------------------- */

static uint64_t slot_at(const struct kn_channel *ch, unsigned slot)
{
	return KN_BARE_FRAMES + slot * ch->slot_bytes;
}

static int check_request(const struct kn_channel *ch, const struct kn_bare_message *m,
                         struct kn_err *err)
{
	if (m->body.len > ch->max_request_bytes)
		return kn_fail(err, EMSGSIZE,
		               "a request body of %zu bytes; at most %" PRIu64 " are possible",
		               m->body.len, ch->max_request_bytes);
	const struct kn_view s[] = { m->method, m->path, m->content_type, m->call_id };
	size_t sum = 0;
	for (size_t i = 0; i < KN_ARRAY_LEN(s); i++) {
		if (s[i].len > KN_CHANNEL_MAX_STRINGS)
			sum = SIZE_MAX / 2;
		sum += kn_min(s[i].len, (size_t)KN_CHANNEL_MAX_STRINGS);
	}
	if (sum > KN_CHANNEL_MAX_STRINGS)
		return kn_fail(err, EMSGSIZE,
		               "path and content type are longer than %d KiB together",
		               KN_CHANNEL_MAX_STRINGS >> 10);
	return 0;
}

static char *put_bytes(char *to, struct kn_view v)
{
	if (v.len)
		memcpy(to, v.ptr, v.len);
	return to + v.len;
}

/* Write the frame into a slot. Returns its length. */
static uint32_t fill_frame(struct kn_channel *ch, unsigned slot, const struct kn_bare_message *m)
{
	uint64_t start = slot_at(ch, slot);
	uint64_t len = sizeof(struct kn_bare_head) + m->method.len + m->path.len +
	               m->content_type.len + m->call_id.len + m->body.len;

	ch->call[slot].reply_at = align_up(start + len, 64);
	ch->call[slot].reply_room = reply_room(ch->max_reply_bytes);
	const struct kn_bare_head head = {
		.body_len = (uint32_t)m->body.len,
		.method_len = (uint16_t)m->method.len,
		.path_len = (uint16_t)m->path.len,
		.type_len = (uint16_t)m->content_type.len,
		.call_id_len = (uint16_t)m->call_id.len,
		.reply_offset = ch->call[slot].reply_at,
		.reply_bytes = ch->call[slot].reply_room,
	};
	memcpy(ch->at + start, &head, sizeof(head));
	char *to = ch->at + start + sizeof(head);
	to = put_bytes(to, m->method);
	to = put_bytes(to, m->path);
	to = put_bytes(to, m->content_type);
	to = put_bytes(to, m->call_id);
	put_bytes(to, m->body);
	return (uint32_t)len;
}

static int ring_broken(const char *which, struct kn_err *err)
{
	return kn_fail(err, EPROTO, "the program broke the %s ring", which);
}

int kn_channel_call(struct kn_channel *ch, const struct kn_bare_message *request, uint64_t tag,
                    struct kn_err *err)
{
	int r = check_request(ch, request, err);
	if (r < 0)
		return r;
	if (ch->stale)
		return kn_fail(err, EAGAIN, "%u calls of an earlier client are under way", ch->stale);
	uint64_t all = ch->slots == 64 ? UINT64_MAX : (UINT64_C(1) << ch->slots) - 1;
	uint64_t free_slots = ~ch->busy & all;
	if (!free_slots)
		return kn_fail(err, EAGAIN, "%u calls are under way, as many as possible", ch->slots);

	unsigned slot = (unsigned)__builtin_ctzll(free_slots);
	uint32_t len = fill_frame(ch, slot, request);
	/* The ring has room for every slot, so that "full" means a broken counter, too. */
	if (kn_ring_put(&ch->requests, (struct kn_ring_desc){ slot_at(ch, slot), len, slot }) !=
	    KN_RING_OK)
		return ring_broken("request", err);
	ch->busy |= UINT64_C(1) << slot;
	ch->call[slot].tag = tag;
	if (kn_ring_must_wake(&ch->requests)) {
		const uint64_t one = 1;
		if (write(ch->bell, &one, sizeof(one)) < 0)
			return kn_fail(err, errno, "ring the bell: %s", strerror(errno));
	}
	return 0;
}

/* ---- replies -------------------------------------------------------------------------------- */

static bool is_field_text(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7f)
			return false;
	return true;
}

static int check_desc(const struct kn_channel *ch, const struct kn_ring_desc *d, struct kn_err *err)
{
	if (d->tag >= ch->slots || !(ch->busy >> d->tag & 1))
		return kn_fail(err, EPROTO, "the program replied to call %u, which is not under way",
		               d->tag);
	if (d->offset != ch->call[d->tag].reply_at || d->len < sizeof(struct kn_bare_head) ||
	    d->len > ch->call[d->tag].reply_room)
		return kn_fail(err, EPROTO,
		               "the program's reply of %u bytes at %" PRIu64 " lies outside its place",
		               d->len, d->offset);
	return 0;
}

static int check_head(const struct kn_channel *ch, const struct kn_bare_head *h, uint32_t len,
                      struct kn_err *err)
{
	if (h->status < 200 || h->status > 599)
		return kn_fail(err, EPROTO, "the program replied with status %u", h->status);
	if (h->type_len > KN_CHANNEL_MAX_TYPE || h->body_len > ch->max_reply_bytes ||
	    sizeof(*h) + h->type_len + (uint64_t)h->body_len != len)
		return kn_fail(err, EPROTO, "the lengths in the program's reply do not add up");
	return 0;
}

static void release_slot(struct kn_channel *ch, unsigned slot, uint32_t reply_len)
{
	uint64_t start = slot_at(ch, slot);
	uint64_t end = ch->call[slot].reply_at + reply_len;

	ch->busy &= ~(UINT64_C(1) << slot);
	if (end - start > KEEP_BYTES) {
		uint64_t from = align_up(start + 1, KN_BARE_PAGE);
		uint64_t to = start + ch->slot_bytes;
		/* Only saves memory: failure is fine. */
		(void)fallocate(ch->memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
		                (off_t)(to - from));
	}
}

int kn_channel_take(struct kn_channel *ch, struct kn_buf *buf, struct kn_bare_message *ret,
                    uint64_t *ret_tag, struct kn_err *err)
{
	struct kn_ring_desc d;
	struct kn_bare_head head;

	int got = kn_ring_take(&ch->replies, &d);
	for (; got == KN_RING_OK && ch->stale; ch->stale--)
		got = kn_ring_take(&ch->replies, &d);
	if (got == KN_RING_EMPTY)
		return 0;
	if (got == KN_RING_BROKEN)
		return ring_broken("reply", err);
	int r = check_desc(ch, &d, err);
	if (r < 0)
		return r;

	/* One copy of everything; from here on nobody else can change what is looked at. */
	kn_buf_clear(buf);
	kn_buf_add(buf, ch->at + d.offset, d.len);
	if (buf->failed)
		return kn_fail(err, ENOMEM, "no memory for a reply of %u bytes", d.len);
	memcpy(&head, buf->ptr, sizeof(head));
	r = check_head(ch, &head, d.len, err);
	if (r < 0)
		return r;
	const char *body = buf->ptr + sizeof(head), *type = body + head.body_len;
	if (!is_field_text(type, head.type_len))
		return kn_fail(err, EPROTO, "the program's content type has control characters");

	*ret = (struct kn_bare_message){
		.content_type = { type, head.type_len },
		.body = { body, head.body_len },
		.status = (int)head.status,
	};
	*ret_tag = ch->call[d.tag].tag;
	release_slot(ch, d.tag, d.len);
	return 1;
}

/* ---- log lines ------------------------------------------------------------------------------ */

int kn_channel_log(struct kn_channel *ch, char line[KN_BARE_LOG_SLOT], struct kn_err *err)
{
	struct kn_ring_desc d;

	int got = kn_ring_take(&ch->logs, &d);
	if (got == KN_RING_EMPTY)
		return 0;
	if (got == KN_RING_BROKEN)
		return ring_broken("log", err);
	uint64_t area = ch->bytes - KN_BARE_LOG_BYTES;
	if (d.len == 0 || d.len >= KN_BARE_LOG_SLOT || d.offset < area || d.offset > ch->bytes ||
	    d.len > ch->bytes - d.offset)
		return kn_fail(err, EPROTO, "the program's log line lies outside the log's place");

	memcpy(line, ch->at + d.offset, d.len);
	line[d.len] = '\0';
	for (uint32_t i = 0; i < d.len; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = line[i] == '\t' ? ' ' : '?';
	return (int)d.len;
}

uint32_t kn_channel_busy(const struct kn_channel *ch)
{
	return (uint32_t)__builtin_popcountll(ch->busy);
}

bool kn_channel_sleep(struct kn_channel *ch)
{
	return kn_ring_sleep(&ch->replies);
}

void kn_channel_awake(struct kn_channel *ch)
{
	uint64_t count;
	(void)!read(ch->note, &count, sizeof(count));
	kn_ring_awake(&ch->replies);
}
