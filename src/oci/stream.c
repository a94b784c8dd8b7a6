#include "oci/stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>

enum { BLOCK = 64 * 1024 };

struct kn_stream {
	struct kn_stream_config config;
	struct archive *raw;         /* libarchive's "raw" format: filters only */
	struct kn_hasher *hasher;
	uint64_t bytes;
	bool ended;
};

static int damaged(struct kn_stream *s, struct kn_err *err)
{
	const char *why = archive_error_string(s->raw);

	return kn_fail(err, EBADMSG, "damaged or cut short: %s", why ? why : "unknown reason");
}

static int open_raw(struct kn_stream *s, struct kn_err *err)
{
	struct archive_entry *e;

	s->raw = archive_read_new();
	if (!s->raw || archive_read_support_format_raw(s->raw) != ARCHIVE_OK ||
	    archive_read_support_format_empty(s->raw) != ARCHIVE_OK ||
	    archive_read_support_filter_gzip(s->raw) != ARCHIVE_OK ||
	    archive_read_support_filter_zstd(s->raw) != ARCHIVE_OK)
		return kn_fail(err, ENOMEM, "libarchive cannot be set up for gzip and zstd");
	if (archive_read_open_fd(s->raw, s->config.fd, BLOCK) != ARCHIVE_OK)
		return damaged(s, err);
	int r = archive_read_next_header(s->raw, &e);
	if (r != ARCHIVE_OK && r != ARCHIVE_EOF)
		return damaged(s, err);
	s->ended = r == ARCHIVE_EOF;
	return 0;
}

int kn_stream_new(const struct kn_stream_config *config, struct kn_stream **ret,
                  struct kn_err *err)
{
	kn_auto(kn_stream_free) struct kn_stream *s = calloc(1, sizeof(*s));

	if (!s)
		return kn_fail(err, ENOMEM, "out of memory");
	s->config = *config;
	int r = kn_hasher_new(config->kind, &s->hasher, err);
	if (r == 0)
		r = open_raw(s, err);
	if (r < 0)
		return r;
	*ret = kn_take_ptr(s);
	return 0;
}

void kn_stream_free(struct kn_stream *s)
{
	if (!s)
		return;
	if (s->raw)
		archive_read_free(s->raw);
	kn_hasher_free(s->hasher);
	free(s);
}

uint64_t kn_stream_used(const struct kn_stream *s)
{
	la_int64_t n = archive_filter_bytes(s->raw, -1);

	return n < 0 ? 0 : (uint64_t)n;
}

static int limits_check(struct kn_stream *s, struct kn_err *err)
{
	const struct kn_stream_config *c = &s->config;
	uint64_t used = kn_stream_used(s);

	if (s->bytes > c->max_bytes)
		return kn_fail(err, EFBIG, "it unpacks to more than %llu bytes",
		               (unsigned long long)c->max_bytes);
	if (c->max_ratio && s->bytes > c->ratio_from && s->bytes / c->max_ratio > used)
		return kn_fail(err, EFBIG,
		               "%llu compressed bytes unpack to more than %llu: a ratio above %u is "
		               "taken for a decompression bomb",
		               (unsigned long long)used, (unsigned long long)s->bytes,
		               c->max_ratio);
	return 0;
}

ssize_t kn_stream_read(struct kn_stream *s, const void **ret, struct kn_err *err)
{
	const void *block;
	size_t len = 0;
	la_int64_t offset;

	while (!s->ended && len == 0) {
		int r = archive_read_data_block(s->raw, &block, &len, &offset);
		if (r == ARCHIVE_EOF) {
			s->ended = true;
			len = 0;
		} else if (r != ARCHIVE_OK) {
			return damaged(s, err);
		}
	}
	if (s->ended)
		return 0;
	s->bytes += len;
	int r = limits_check(s, err);
	if (r < 0)
		return r;
	kn_hasher_add(s->hasher, block, len);
	*ret = block;
	return (ssize_t)len;
}

void kn_stream_digest(struct kn_stream *s, struct kn_digest *ret)
{
	kn_hasher_take(s->hasher, ret);
}
