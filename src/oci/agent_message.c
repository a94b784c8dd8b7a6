#include "oci/agent_message.h"

#include <endian.h>
#include <errno.h>

enum { FIELD_BYTES = 5 };   /* tag and length */

enum kind { NUMBER, TEXT, LIST };

/* A tag is never used again for something else: agents live on in snapshots. */
static const struct field {
	uint8_t tag;
	enum kind kind;
	size_t offset;
	size_t count;             /* LIST: offset of the number of elements */
} fields[] = {
#define NUMBER_FIELD(tag, name) { tag, NUMBER, offsetof(struct kn_agent_message, name), 0 }
#define TEXT_FIELD(tag, name)   { tag, TEXT, offsetof(struct kn_agent_message, name), 0 }
#define LIST_FIELD(tag, name)                                                                      \
	{ tag, LIST, offsetof(struct kn_agent_message, name),                                      \
	  offsetof(struct kn_agent_message, n_##name) }
	NUMBER_FIELD(1, wall_ns),      TEXT_FIELD(2, entropy),
	LIST_FIELD(3, argv),           LIST_FIELD(4, env),
	TEXT_FIELD(5, hostname),       TEXT_FIELD(6, cwd),
	TEXT_FIELD(7, user),           TEXT_FIELD(8, ready_path),
	NUMBER_FIELD(9, contract),     NUMBER_FIELD(10, port),
	NUMBER_FIELD(11, ready_timeout_ms), NUMBER_FIELD(12, time_limit_ms),
	NUMBER_FIELD(13, max_reply_bytes),  NUMBER_FIELD(14, signal),
	NUMBER_FIELD(15, grace_ms),    NUMBER_FIELD(16, stream),
	NUMBER_FIELD(17, status),      TEXT_FIELD(18, text),
	LIST_FIELD(19, file_paths),    LIST_FIELD(20, file_modes),
	LIST_FIELD(21, file_bytes),    TEXT_FIELD(22, address),
	TEXT_FIELD(23, gateway),       TEXT_FIELD(24, dns),
	NUMBER_FIELD(25, read_only_root), NUMBER_FIELD(26, max_pids),
	NUMBER_FIELD(27, rehearse),
#undef NUMBER_FIELD
#undef TEXT_FIELD
#undef LIST_FIELD
};

static const struct field *find(uint8_t tag)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(fields); i++)
		if (fields[i].tag == tag)
			return &fields[i];
	return NULL;
}

static void *member(const struct kn_agent_message *m, size_t offset)
{
	return (char *)(uintptr_t)m + offset;
}

static void put(struct kn_buf *out, uint8_t tag, const void *ptr, size_t len)
{
	char head[FIELD_BYTES] = { (char)tag };
	uint32_t le = htole32((uint32_t)len);

	memcpy(head + 1, &le, sizeof(le));
	kn_buf_add(out, head, sizeof(head));
	kn_buf_add(out, ptr, len);
}

static void put_number(struct kn_buf *out, uint8_t tag, uint64_t value)
{
	uint64_t le = htole64(value);

	if (value)
		put(out, tag, &le, sizeof(le));
}

static void put_list(struct kn_buf *out, const struct field *f, const struct kn_agent_message *m)
{
	const struct kn_view *at = *(struct kn_view **)member(m, f->offset);
	size_t n = *(size_t *)member(m, f->count);

	for (size_t i = 0; i < n; i++)
		put(out, f->tag, at[i].ptr, at[i].len);
}

void kn_agent_encode(const struct kn_agent_message *msg, struct kn_buf *out)
{
	char type = (char)msg->type;

	kn_buf_add(out, &type, 1);
	for (size_t i = 0; i < KN_ARRAY_LEN(fields); i++) {
		const struct field *f = &fields[i];
		const struct kn_view *text = member(msg, f->offset);
		switch (f->kind) {
		case NUMBER:
			put_number(out, f->tag, *(uint64_t *)member(msg, f->offset));
			break;
		case TEXT:
			if (text->ptr)
				put(out, f->tag, text->ptr, text->len);
			break;
		case LIST:
			put_list(out, f, msg);
			break;
		}
	}
}

/* ---- decoding ------------------------------------------------------------------------------ */

static int next_field(struct kn_view *rest, uint8_t *tag, struct kn_view *ret, struct kn_err *err)
{
	uint32_t le;

	if (rest->len < FIELD_BYTES)
		return kn_fail(err, EBADMSG, "a message that ends inside a field");
	*tag = (uint8_t)rest->ptr[0];
	memcpy(&le, rest->ptr + 1, sizeof(le));
	size_t len = le32toh(le);
	if (len > rest->len - FIELD_BYTES)
		return kn_fail(err, EBADMSG, "field %u is longer than its message", *tag);
	*ret = (struct kn_view){ rest->ptr + FIELD_BYTES, len };
	rest->ptr += FIELD_BYTES + len;
	rest->len -= FIELD_BYTES + len;
	return 0;
}

/* Lists are counted first, so that their memory is asked for once and is what the bytes can need. */
static int make_lists(struct kn_view rest, struct kn_arena *a, struct kn_agent_message *m,
                      struct kn_err *err)
{
	size_t n[KN_ARRAY_LEN(fields)] = { 0 };
	struct kn_view value;
	uint8_t tag;

	while (rest.len > 0) {
		int r = next_field(&rest, &tag, &value, err);
		if (r < 0)
			return r;
		const struct field *f = find(tag);
		if (f && f->kind == LIST && ++n[f - fields] > KN_AGENT_MAX_LIST)
			return kn_fail(err, EBADMSG, "more than %d elements in field %u",
			               KN_AGENT_MAX_LIST, tag);
	}
	for (size_t i = 0; i < KN_ARRAY_LEN(fields); i++) {
		if (n[i] == 0)
			continue;
		struct kn_view *list = kn_arena_alloc(a, n[i] * sizeof(*list));
		if (!list)
			return kn_fail(err, ENOMEM, "memory for a message");
		*(struct kn_view **)member(m, fields[i].offset) = list;
	}
	return 0;
}

static int take(const struct field *f, struct kn_view value, struct kn_agent_message *m,
                struct kn_err *err)
{
	uint64_t le;

	switch (f->kind) {
	case NUMBER:
		if (value.len != sizeof(le))
			return kn_fail(err, EBADMSG, "field %u is not a number", f->tag);
		memcpy(&le, value.ptr, sizeof(le));
		*(uint64_t *)member(m, f->offset) = le64toh(le);
		break;
	case TEXT:
		*(struct kn_view *)member(m, f->offset) = value;
		break;
	case LIST: {
		size_t *count = member(m, f->count);
		(*(struct kn_view **)member(m, f->offset))[(*count)++] = value;
		break;
	}
	}
	return 0;
}

int kn_agent_decode(struct kn_view bytes, struct kn_arena *a, struct kn_agent_message *ret,
                    struct kn_err *err)
{
	struct kn_view value;
	uint8_t tag;

	if (bytes.len == 0)
		return kn_fail(err, EBADMSG, "an empty message");
	struct kn_agent_message m = { .type = (enum kn_agent_message_type)(uint8_t)bytes.ptr[0] };
	struct kn_view rest = { bytes.ptr + 1, bytes.len - 1 };
	int r = make_lists(rest, a, &m, err);
	while (r == 0 && rest.len > 0) {
		r = next_field(&rest, &tag, &value, err);
		const struct field *f = r == 0 ? find(tag) : NULL;
		if (f)
			r = take(f, value, &m, err);
	}
	if (r == 0)
		*ret = m;
	return r;
}
