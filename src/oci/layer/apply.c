/*
 * Two archives on top of each other: the lower one only uncompresses (oci/stream, which counts and
 * hashes), the upper one reads tar out of what the lower one gives. After tar's own end the rest of
 * the stream is read too: the DiffID covers it.
 */
#include "oci/layer.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>

#include "oci/layer/place.h"
#include "oci/stream.h"

struct apply {
	const struct kn_layer_config *config;
	struct kn_stream *stream;
	struct place place;
};

static void free_tar(struct archive *a)
{
	if (a)
		archive_read_free(a);
}
KN_AUTO(free_tar, struct archive *);

/* The next block, with a look at the progress. */
static ssize_t next_block(struct apply *a, const void **ret, struct kn_err *err)
{
	const struct kn_layer_config *c = a->config;

	if (!kn_progress_step(c->progress, "unpack", kn_stream_used(a->stream), c->bytes))
		return kn_fail(err, ECANCELED, "unpacking was cancelled");
	return kn_stream_read(a->stream, ret, err);
}

static la_ssize_t feed(struct archive *tar, void *arg, const void **ret)
{
	struct apply *a = arg;

	ssize_t n = next_block(a, ret, &a->place.stream_err);
	if (n < 0)
		archive_set_error(tar, EIO, "%s", a->place.stream_err.text);
	return n;
}

static int tar_fail(struct apply *a, struct archive *tar, struct kn_err *err)
{
	const char *why = archive_error_string(tar);

	if (a->place.stream_err.code) {
		*err = a->place.stream_err;
		return -err->code;
	}
	return kn_fail(err, EBADMSG, "not a whole tar stream: %s", why ? why : "unknown reason");
}

static int read_entries(struct apply *a, struct archive *tar, struct kn_err *err)
{
	struct archive_entry *e;

	for (;;) {
		int r = archive_read_next_header(tar, &e);
		if (r == ARCHIVE_EOF)
			return a->place.stream_err.code ? tar_fail(a, tar, err) : 0;
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
			return tar_fail(a, tar, err);
		r = place_entry(&a->place, e, err);
		if (r < 0)
			return r;
	}
}

static int read_rest(struct apply *a, struct kn_err *err)
{
	const void *block;
	ssize_t n;

	while ((n = next_block(a, &block, err)) > 0)
		;
	return (int)n;
}

static int diff_id_check(struct apply *a, struct kn_err *err)
{
	const struct kn_digest *expect = a->config->diff_id;
	struct kn_digest is;

	if (!expect)
		return 0;
	kn_stream_digest(a->stream, &is);
	if (!kn_digest_is(&is, expect))
		return kn_fail(err, EBADMSG, "its DiffID is %s, but the image's config says %s",
		               is.text, expect->text);
	return 0;
}

static int apply_stream(struct apply *a, struct kn_err *err)
{
	kn_auto(free_tar) struct archive *tar = archive_read_new();

	/* An empty stream is a layer that changes nothing. */
	if (!tar || archive_read_support_format_tar(tar) != ARCHIVE_OK ||
	    archive_read_support_format_empty(tar) != ARCHIVE_OK)
		return kn_fail(err, ENOMEM, "libarchive cannot be set up for tar");
	a->place.tar = tar;
	if (archive_read_open(tar, a, NULL, feed, NULL) != ARCHIVE_OK)
		return tar_fail(a, tar, err);
	int r = read_entries(a, tar, err);
	if (r == 0)
		r = read_rest(a, err);
	if (r == 0)
		r = diff_id_check(a, err);
	if (r == 0)
		r = tree_finish(&a->place.tree, err);
	return r;
}

static int apply_open(struct apply *a, int rootfd, struct kn_layer_stats *stats, struct kn_err *err)
{
	const struct kn_layer_config *c = a->config;
	const struct kn_layer_limits *l = c->limits;
	struct kn_stream_config sc = {
		.fd = c->fd,
		.kind = c->diff_id ? kn_digest_kind(c->diff_id) : KN_SHA256,
		.max_bytes = l->max_stream,
		.max_ratio = l->max_ratio,
		.ratio_from = l->ratio_from,
	};

	a->place.stats = stats;
	int r = tree_init(&a->place.tree, rootfd, l, stats->entries == 0, err);
	if (r == 0)
		r = kn_stream_new(&sc, &a->stream, err);
	if (r == 0)
		r = apply_stream(a, err);
	return r;
}

int kn_layer_apply(int rootfd, const struct kn_layer_config *config, struct kn_layer_stats *stats,
                   struct kn_err *err)
{
	struct apply a = { .config = config };
	struct kn_err local = KN_ERR_INIT;

	/*
	 * libarchive turns the UTF-8 names of pax headers into the locale's encoding, and daemons run
	 * in the C locale, where that fails. This thread gets UTF-8, which leaves names as they are.
	 */
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	if (!utf8)
		return kn_fail(err, ENOENT, "the locale C.UTF-8 is missing");
	locale_t before = uselocale(utf8);
	int r = apply_open(&a, rootfd, stats, err ? err : &local);
	kn_stream_free(a.stream);
	tree_fini(&a.place.tree);
	kn_buf_fini(&a.place.path);
	uselocale(before);
	freelocale(utf8);
	return r;
}
