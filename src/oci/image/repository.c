/* Repositories: what the registry puts in, looks up and takes away. */
#include "oci/image/store.h"

#include <errno.h>
#include <stdlib.h>

#include "base/time.h"

/* How long a manifest whose tag a push gave to another can still be pulled by its digest. */
#define LOST_TAG_NS (600 * KN_NS_PER_S)

struct kn_blobs *kn_images_blobs(struct kn_images *images)
{
	return images->blobs;
}

/* ---- looking up ------------------------------------------------------------------------------- */

static bool in_repository(const struct kn_image *image, struct kn_view repository)
{
	return kn_view_is(kn_view_of(image->repository), repository);
}

/* Row of a tag or a digest, from `at` on; images->table.n when there is none. With the lock, or by
 * a writer. */
static size_t row_find(const struct table *t, struct kn_view repository, struct kn_view key, size_t at)
{
	const bool digest = kn_digest_parse(key, &(struct kn_digest){ .text = "" }, NULL) == 0;

	for (; at < t->n; at++) {
		const struct kn_image *image = t->at[at].image;
		const char *is = digest ? image->top.text : image->tag;
		if (in_repository(image, repository) && kn_view_is(kn_view_of(is), key))
			break;
	}
	return at;
}

static int not_there(struct kn_view repository, struct kn_view key, struct kn_err *err)
{
	return kn_fail(err, ENOENT, "'%.*s' has no manifest '%.*s'",
	               (int)kn_min(repository.len, (size_t)100), repository.ptr,
	               (int)kn_min(key.len, (size_t)140), key.ptr);
}

int kn_images_get(struct kn_images *images, struct kn_view repository, struct kn_view key,
                  struct kn_image **ret, struct kn_err *err)
{
	struct kn_image *image = NULL;

	pthread_mutex_lock(&images->lock);
	size_t i = key.len ? row_find(&images->table, repository, key, 0) : images->table.n;
	if (i < images->table.n)
		image = kn_image_ref(images->table.at[i].image);
	pthread_mutex_unlock(&images->lock);
	if (!image)
		return not_there(repository, key, err);
	*ret = image;
	return 0;
}

int kn_images_in(struct kn_images *images, struct kn_view repository, struct kn_image_list *ret,
                 struct kn_err *err)
{
	struct kn_image_list l = { .n = 0 };

	pthread_mutex_lock(&images->lock);
	const struct table *t = &images->table;
	l.at = calloc(t->n + 1, sizeof(struct kn_image *));
	for (size_t i = 0; l.at && i < t->n; i++)
		if (!repository.ptr || in_repository(t->at[i].image, repository))
			l.at[l.n++] = kn_image_ref(t->at[i].image);
	pthread_mutex_unlock(&images->lock);
	if (!l.at)
		return images_no_memory(err);
	*ret = l;
	return 0;
}

static bool named_in(const struct kn_image *image, const struct kn_digest *d)
{
	const struct held *h = held_of(image);

	if (kn_digest_is(&image->top, d))
		return true;
	for (size_t i = 0; i < h->n_needs; i++)
		if (kn_digest_is(&h->needs[i], d))
			return true;
	return false;
}

bool kn_images_blob_in(struct kn_images *images, struct kn_view repository,
                       const struct kn_digest *d)
{
	bool known = false;

	pthread_mutex_lock(&images->lock);
	for (size_t i = 0; i < images->n_pins && !known; i++)
		known = kn_digest_is(&images->pins[i].digest, d) &&
		        kn_view_is(kn_view_of(images->pins[i].repository), repository);
	for (size_t i = 0; i < images->table.n && !known; i++)
		known = in_repository(images->table.at[i].image, repository) &&
		        named_in(images->table.at[i].image, d);
	pthread_mutex_unlock(&images->lock);
	return known && kn_blob_has(images->blobs, d);
}

/* ---- putting ---------------------------------------------------------------------------------- */

/* A manifest may name only what its repository shows: else a push would open others' blobs. */
static int shown_check(struct kn_images *images, const struct held *h, struct kn_err *err)
{
	for (size_t i = 0; i < h->n_needs; i++)
		if (!kn_images_blob_in(images, kn_view_of(h->image.repository), &h->needs[i]))
			return kn_fail(err, ENOENT, "blob %s is not in repository '%.100s'",
			               h->needs[i].text, h->image.repository);
	return 0;
}

static int put_make(struct kn_images *images, const struct kn_images_put *put, struct held **ret,
                    struct kn_err *err)
{
	struct held_source from = { .blobs = images->blobs,
		                    .repository = put->repository,
		                    .tag = put->tag,
		                    .media_type = put->media_type,
		                    .document = put->content,
		                    .partial = put->partial };

	int r = kn_digest_of(put->expect ? kn_digest_kind(put->expect) : KN_SHA256, put->content.ptr,
	                     put->content.len, &from.digest, err);
	if (r < 0)
		return r;
	if (put->expect && !kn_digest_is(put->expect, &from.digest))
		return kn_fail(err, EBADMSG, "the manifest has the digest %s, not %s", from.digest.text,
		               put->expect->text);
	return held_make(&from, ret, err);
}

static int document_keep(struct kn_images *images, const struct kn_images_put *put,
                         const struct kn_digest *d, struct kn_err *err)
{
	kn_auto(kn_blob_writer_free) struct kn_blob_writer *w = NULL;
	struct kn_digest is;

	int r = kn_blob_writer_new(images->blobs, d, put->content.len, &w, err);
	if (r == 0)
		r = kn_blob_write(w, put->content.ptr, put->content.len, err);
	return r < 0 ? r : kn_blob_commit(w, &is, NULL, err);
}

/* Who loses the tag stays for a while under its digest, unless it is there under that anyway. */
static int lost_tag(struct kn_images *images, struct table *t, const struct kn_image *winner,
                    struct kn_err *err)
{
	struct held *h = NULL;

	size_t i = row_find(t, kn_view_of(winner->repository), kn_view_of(winner->tag), 0);
	if (i == t->n || kn_digest_is(&t->at[i].image->top, &winner->top))
		return 0;
	const struct kn_image *loser = t->at[i].image;
	const struct kn_view repository = kn_view_of(loser->repository);
	const struct kn_view digest = kn_view_of(loser->top.text);
	size_t other = row_find(t, repository, digest, 0);
	if (other == i)
		other = row_find(t, repository, digest, i + 1);
	if (other < t->n)
		return 0;
	const struct held_source from = { .blobs = images->blobs,
		                          .repository = repository,
		                          .media_type = loser->media_type,
		                          .digest = loser->top };
	if (held_load(&from, &h, err) < 0)
		return 0;   /* spoiled: no loss */
	table_put(t, (struct row){ &h->image, .until_ns = kn_now_ns() + LOST_TAG_NS });
	return 0;
}

static int put_row(struct kn_images *images, const struct kn_images_put *put, struct held *h,
                   struct kn_err *err)
{
	kn_auto(table_fini) struct table t = { .at = NULL };

	int r = table_copy(images, &t, err);
	if (r == 0 && put->pushed && put->tag.ptr)
		r = lost_tag(images, &t, &h->image, err);
	if (r < 0)
		return r;
	const size_t before = t.n;
	table_put(&t, (struct row){ .image = kn_image_ref(&h->image) });
	const bool replaced = t.n == before;
	const bool gone = table_settle(&t, kn_now_ns());
	r = table_commit(images, &t, err);
	if (r < 0)
		return r;
	images_unpin_all(images, h);
	if (replaced || gone)
		images_collect(images);
	return 0;
}

int kn_images_put(struct kn_images *images, const struct kn_images_put *put, struct kn_image **ret,
                  struct kn_err *err)
{
	struct held *h = NULL;

	int r = put_make(images, put, &h, err);
	if (r < 0)
		return r;
	if (put->must_run)
		r = held_check(h, err);
	pthread_mutex_lock(&images->writing);
	if (r == 0 && put->pushed)
		r = shown_check(images, h, err);
	if (r == 0)
		r = document_keep(images, put, &h->image.top, err);
	if (r == 0)
		r = put_row(images, put, h, err);
	pthread_mutex_unlock(&images->writing);
	if (r == 0)
		*ret = &h->image;
	else
		kn_image_unref(&h->image);
	return r;
}

/* ---- taking away ------------------------------------------------------------------------------ */

/* A manifest that loses its last tag this way can still be asked for, as after a push. */
static int drop_tag(struct kn_images *images, struct table *t, size_t i, struct kn_err *err)
{
	const struct kn_view repository = kn_view_of(t->at[i].image->repository);
	const struct held_source from = { .blobs = images->blobs,
		                          .repository = repository,
		                          .media_type = t->at[i].image->media_type,
		                          .digest = t->at[i].image->top };
	struct held *h = NULL;

	if (held_load(&from, &h, err) < 0)
		h = NULL;
	table_remove(t, i);
	if (!h)
		return 0;
	if (row_find(t, kn_view_of(h->image.repository), kn_view_of(h->image.top.text), 0) < t->n)
		kn_image_unref(&h->image);
	else
		table_put(t, (struct row){ &h->image, .until_ns = kn_now_ns() + LOST_TAG_NS });
	return 0;
}

static int drop(struct kn_images *images, struct kn_view repository, struct kn_view key,
                struct kn_err *err)
{
	kn_auto(table_fini) struct table t = { .at = NULL };

	int r = table_copy(images, &t, err);
	if (r < 0)
		return r;
	size_t i = row_find(&t, repository, key, 0);
	if (i == t.n)
		return not_there(repository, key, err);
	if (kn_view_is(kn_view_of(t.at[i].image->tag), key))
		r = drop_tag(images, &t, i, err);
	else
		for (; i < t.n; i = row_find(&t, repository, key, i))
			table_remove(&t, i);
	if (r < 0)
		return r;
	table_settle(&t, kn_now_ns());
	r = table_commit(images, &t, err);
	if (r == 0)
		images_collect(images);
	return r;
}

int kn_images_drop(struct kn_images *images, struct kn_view repository, struct kn_view key,
                   struct kn_err *err)
{
	pthread_mutex_lock(&images->writing);
	int r = drop(images, repository, key, err);
	pthread_mutex_unlock(&images->writing);
	return r;
}
