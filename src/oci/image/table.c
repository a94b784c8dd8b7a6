/*
 * The table of names, in memory and as index.json. A row has a tag, or its digest names it. Writers
 * work on a copy, which takes the table's place when it is on disk; so whoever finds an image never
 * waits for the disk, and a failed write changes nothing.
 */
#include "oci/image/store.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/time.h"

#define REF_NAME "org.opencontainers.image.ref.name"
#define REPOSITORY "kiln.repository"   /* of what has no tag */

void table_fini(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		kn_image_unref(t->at[i].image);
	free(t->at);
	*t = (struct table){ .at = NULL };
}

int table_copy(const struct kn_images *images, struct table *ret, struct kn_err *err)
{
	const struct table *from = &images->table;
	struct row *at = calloc(from->n + 2, sizeof(*at));

	if (!at)
		return images_no_memory(err);
	for (size_t i = 0; i < from->n; i++) {
		at[i] = from->at[i];
		kn_image_ref(at[i].image);
	}
	*ret = (struct table){ at, from->n };
	return 0;
}

void table_put(struct table *t, struct row row)
{
	size_t i = 0;

	while (i < t->n && strcmp(t->at[i].image->reference, row.image->reference) < 0)
		i++;
	if (i < t->n && strcmp(t->at[i].image->reference, row.image->reference) == 0) {
		kn_image_unref(t->at[i].image);
	} else {
		memmove(t->at + i + 1, t->at + i, (t->n - i) * sizeof(*t->at));
		t->n++;
	}
	t->at[i] = row;
}

void table_remove(struct table *t, size_t i)
{
	kn_image_unref(t->at[i].image);
	memmove(t->at + i, t->at + i + 1, (t->n - i - 1) * sizeof(*t->at));
	t->n--;
}

/* ---- what keeps a row without a tag ---------------------------------------------------------- */

static bool needs(const struct held *h, const struct kn_digest *d)
{
	for (size_t i = 0; i < h->n_needs; i++)
		if (kn_digest_is(&h->needs[i], d))
			return true;
	return false;
}

static bool indexed(const struct table *t, const struct kn_image *image)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct kn_image *other = t->at[i].image;
		if (held_of(other)->index && other != image &&
		    strcmp(other->repository, image->repository) == 0 &&
		    needs(held_of(other), &image->top))
			return true;
	}
	return false;
}

static bool has_subject(const struct table *t, const struct kn_image *image)
{
	for (size_t i = 0; i < t->n; i++)
		if (kn_digest_is(&t->at[i].image->top, &image->subject) &&
		    strcmp(t->at[i].image->repository, image->repository) == 0)
			return true;
	return false;
}

static bool row_stays(const struct table *t, struct row *row, uint64_t now)
{
	const bool in_index = indexed(t, row->image);
	const bool about = row->image->subject.text[0] && has_subject(t, row->image);

	row->owned |= in_index;
	row->attached |= about;
	if (in_index || row->until_ns > now)
		return true;
	return row->until_ns == 0 && !row->owned && (about || !row->attached);
}

bool table_settle(struct table *t, uint64_t now)
{
	bool any = false, again = true;

	while (again) {   /* an index that goes may free another */
		again = false;
		for (size_t i = t->n; i-- > 0;) {
			if (t->at[i].image->tag[0] || row_stays(t, &t->at[i], now))
				continue;
			table_remove(t, i);
			again = any = true;
		}
	}
	return any;
}

/* ---- index.json ------------------------------------------------------------------------------ */

static json_t *index_entry(const struct kn_image *image)
{
	struct kn_spec_pair name = { image->tag[0] ? REF_NAME : REPOSITORY,
		                     image->tag[0] ? image->reference : image->repository };
	struct kn_descriptor d = {
		.media_type = image->media_type,
		.digest = image->top,
		.bytes = image->top_bytes,
		.artifact_type = image->artifact_type[0] ? image->artifact_type : NULL,
		.annotations = { &name, 1 },
	};

	return kn_spec_descriptor_json(&d);
}

static int index_write(struct kn_images *images, const struct table *t, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(json_decref) json_t *manifests = json_array();

	for (size_t i = 0; i < t->n; i++)
		if (t->at[i].until_ns == 0 &&
		    json_array_append_new(manifests, index_entry(t->at[i].image)) < 0)
			return images_no_memory(err);
	if (json_array_size(manifests) > MAX_NAMES)
		return kn_fail(err, ENOSPC, "the image store '%s' has %d names, as many as it takes: "
		               "remove images", kn_blobs_path(images->blobs), MAX_NAMES);
	kn_auto(json_decref) json_t *doc = json_pack("{s:i, s:s, s:O}", "schemaVersion", 2,
	                                             "mediaType", KN_TYPE_INDEX, "manifests",
	                                             manifests);
	if (!doc)
		return images_no_memory(err);
	kn_json_print(&text, doc, JSON_SORT_KEYS);
	if (text.failed)
		return images_no_memory(err);
	int r = kn_write_file(kn_blobs_root(images->blobs), "index.json", text.ptr, text.len, 0600,
	                      err);
	return r < 0 ? kn_while(err, "image store '%s'", kn_blobs_path(images->blobs)) : 0;
}

int table_commit(struct kn_images *images, struct table *t, struct kn_err *err)
{
	int r = index_write(images, t, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&images->lock);
	struct table old = images->table;
	images->table = *t;
	pthread_mutex_unlock(&images->lock);
	*t = old;
	images_retire(images, t);
	return 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void add_trouble(struct kn_images *images, const struct kn_err *err)
{
	char *text;

	if (asprintf(&text, "%s%s%s", images->trouble ? images->trouble : "",
	             images->trouble ? "; " : "", err->text) < 0)
		return;
	free(images->trouble);
	images->trouble = text;
}

static int entry_load(struct kn_images *images, const struct kn_descriptor *d, struct held **ret,
                      struct kn_err *err)
{
	const char *name = kn_spec_pair(&d->annotations, REF_NAME);
	const char *repository = kn_spec_pair(&d->annotations, REPOSITORY);
	struct kn_ref ref = { .tag = "" };

	if (!name && !repository)
		return -ENOENT;   /* somebody else's entry */
	int r = kn_ref_parse(kn_view_of(name ? name : repository), &ref, err);
	if (r < 0)
		return r;
	const struct held_source from = {
		.blobs = images->blobs,
		.repository = kn_view_of(ref.name),
		.tag = name ? kn_view_of(ref.tag) : KN_VIEW_NULL,
		.media_type = d->media_type,
		.digest = d->digest,
	};
	return held_load(&from, ret, err);
}

/* An image whose blobs are spoiled is left out, and told: the others must not suffer. */
static int table_fill(struct kn_images *images, const struct kn_index *index, struct kn_err *err)
{
	struct table t = { .at = calloc(index->n_manifests + 1, sizeof(*t.at)) };

	if (!t.at)
		return images_no_memory(err);
	for (size_t i = 0; i < index->n_manifests; i++) {
		struct kn_err why = KN_ERR_INIT;
		struct held *h = NULL;
		if (entry_load(images, &index->manifests[i], &h, &why) == 0)
			table_put(&t, (struct row){ .image = &h->image });
		else if (why.code)
			add_trouble(images, &why);
	}
	table_settle(&t, kn_now_ns());
	images->table = t;
	return 0;
}

int table_read(struct kn_images *images, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_arena arena;
	struct kn_index index = { .n_manifests = 0 };

	int r = kn_read_file(kn_blobs_root(images->blobs), "index.json", KN_SPEC_MAX_BYTES, &text,
	                     NULL);
	if (r == -ENOENT)
		return 0;
	kn_arena_init(&arena);
	if (r == 0)
		r = kn_spec_index(kn_buf_view(&text), &arena, &index, err);
	if (r < 0)
		r = kn_fail(err, EUCLEAN,
		            "the index of the image store '%s' cannot be read; move the folder away "
		            "and import the images again", kn_blobs_path(images->blobs));
	else
		r = table_fill(images, &index, err);
	kn_arena_fini(&arena);
	return r;
}
