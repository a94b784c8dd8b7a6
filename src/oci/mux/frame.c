/* Frames as bytes: no state, no socket; the unit that is fuzzed. */
#include <endian.h>
#include <errno.h>

#include "oci/mux/mux.h"

static const char MAGIC[12] = "kiln-mux 1\r\n";

static uint32_t get_u32(const char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint16_t get_u16(const char *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static void put_header(char out[HEADER_BYTES], enum kn_mux_frame_type type, uint8_t flags,
                       uint32_t stream, size_t len)
{
	uint16_t len_le = htole16((uint16_t)len);
	uint32_t stream_le = htole32(stream);

	out[0] = (char)type;
	out[1] = (char)flags;
	memcpy(out + 2, &len_le, sizeof(len_le));
	memcpy(out + 4, &stream_le, sizeof(stream_le));
}

void kn_mux_put(struct kn_buf *out, enum kn_mux_frame_type type, uint8_t flags, uint32_t stream,
                struct kn_view payload)
{
	char header[HEADER_BYTES];

	if (!kn_buf_reserve(out, HEADER_BYTES + payload.len))
		return;
	put_header(header, type, flags, stream, payload.len);
	kn_buf_add(out, header, sizeof(header));
	kn_buf_add_view(out, payload);
}

void mux_hello_bytes(uint32_t generation, char out[HEADER_BYTES + HELLO_BYTES])
{
	uint32_t le = htole32(generation);

	put_header(out, KN_MUX_HELLO, 0, 0, HELLO_BYTES);
	memcpy(out + HEADER_BYTES, MAGIC, sizeof(MAGIC));
	memcpy(out + HEADER_BYTES + sizeof(MAGIC), &le, sizeof(le));
}

/* What each type must look like: on a stream or not, and how long. */
static const struct rule {
	bool on_stream;
	uint8_t flags;               /* that may be set */
	uint16_t min, max;
} rules[] = {
	[KN_MUX_HELLO] = { false, 0, HELLO_BYTES, HELLO_BYTES },
	[KN_MUX_CONTROL] = { false, KN_MUX_MORE, 1, KN_MUX_MAX_PAYLOAD },
	[KN_MUX_OPEN] = { true, 0, 0, 0 },
	[KN_MUX_DATA] = { true, 0, 1, KN_MUX_MAX_PAYLOAD },
	[KN_MUX_END] = { true, 0, 0, 0 },
	[KN_MUX_RESET] = { true, 0, 4, 4 },
	[KN_MUX_CREDIT] = { true, 0, 4, 4 },
};

static int check_header(const struct kn_mux_frame *f, size_t len, struct kn_err *err)
{
	unsigned type = (unsigned)f->type;

	if (type == 0 || type >= KN_ARRAY_LEN(rules))
		return kn_fail(err, EBADMSG, "frame of unknown type %u", type);
	const struct rule *r = &rules[type];
	if (f->flags & ~r->flags)
		return kn_fail(err, EBADMSG, "frame of type %u with flags 0x%x", type, f->flags);
	if ((f->stream != 0) != r->on_stream)
		return kn_fail(err, EBADMSG, "frame of type %u on stream %u", type, f->stream);
	if (len < r->min || len > r->max)
		return kn_fail(err, EBADMSG, "frame of type %u with %zu bytes", type, len);
	return 0;
}

ssize_t kn_mux_parse(struct kn_view in, struct kn_mux_frame *ret, struct kn_err *err)
{
	if (in.len < HEADER_BYTES)
		return 0;
	size_t len = get_u16(in.ptr + 2);
	struct kn_mux_frame f = { .type = (enum kn_mux_frame_type)(unsigned char)in.ptr[0],
		                  .flags = (uint8_t)in.ptr[1],
		                  .stream = get_u32(in.ptr + 4) };
	int r = check_header(&f, len, err);
	if (r < 0)
		return r;
	if (in.len < HEADER_BYTES + len)
		return 0;
	f.payload = (struct kn_view){ in.ptr + HEADER_BYTES, len };
	if (f.type == KN_MUX_HELLO && memcmp(f.payload.ptr, MAGIC, sizeof(MAGIC)) != 0)
		return kn_fail(err, EBADMSG, "a greeting of another protocol or version");
	*ret = f;
	return (ssize_t)(HEADER_BYTES + len);
}
