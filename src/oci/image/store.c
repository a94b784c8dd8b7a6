#include "oci/image/store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/time.h"

static int layout_write(struct kn_images *images, struct kn_err *err)
{
	static const char text[] = "{\"imageLayoutVersion\":\"1.0.0\"}";

	return kn_write_file(kn_blobs_root(images->blobs), "oci-layout", text, sizeof(text) - 1,
	                     0600, err);
}

/* ---- open and close ------------------------------------------------------------------------ */

static struct kn_images *images_new(const struct kn_images_config *config)
{
	struct kn_images *images = calloc(1, sizeof(*images));

	if (!images)
		return NULL;
	images->limits = config->limits;
	images->max_archive_bytes = config->max_archive_bytes;
	pthread_mutex_init(&images->writing, NULL);
	pthread_mutex_init(&images->lock, NULL);
	pthread_cond_init(&images->built, NULL);
	images->mkfs = config->mkfs ? strdup(config->mkfs) : NULL;
	if (config->mkfs && !images->mkfs) {
		kn_images_close(images);
		return NULL;
	}
	return images;
}

int kn_images_open(const struct kn_images_config *config, struct kn_images **ret,
                   struct kn_err *err)
{
	kn_auto(kn_images_close) struct kn_images *images = images_new(config);

	if (!images)
		return images_no_memory(err);
	int r = kn_blobs_open(config->dir, &images->blobs, err);
	if (r == 0)
		r = kn_mkdirs(kn_blobs_root(images->blobs), "rootfs", 0700, err);
	if (r == 0)
		r = table_read(images, err);
	if (r == 0)
		r = layout_write(images, err);
	if (r < 0)
		return r;
	/* Spoiled images keep their blobs until somebody has looked: only a clean store is swept. */
	if (!images->trouble)
		images_collect(images);
	*ret = kn_take_ptr(images);
	return 0;
}

void kn_images_close(struct kn_images *images)
{
	if (!images)
		return;
	table_fini(&images->table);
	for (size_t i = 0; i < images->n_retired; i++)
		kn_image_unref(images->retired[i].image);
	free(images->retired);
	for (size_t i = 0; i < images->n_pins; i++)
		free(images->pins[i].repository);
	free(images->pins);
	kn_blobs_close(images->blobs);
	pthread_cond_destroy(&images->built);
	pthread_mutex_destroy(&images->lock);
	pthread_mutex_destroy(&images->writing);
	free(images->trouble);
	free(images->mkfs);
	free(images);
}

const char *kn_images_trouble(const struct kn_images *images)
{
	return images->trouble;
}

/* ---- change -------------------------------------------------------------------------------- */

/* The name to store under: what the caller says, else what the archive says, if that is a name. */
static int choose_name(const char *wanted, const char *archive, struct kn_ref *ret,
                       struct kn_err *err)
{
	const char *name = wanted ? wanted : archive;

	if (!name)
		return kn_fail(err, EINVAL, "the archive gives the image no name; choose one");
	/* umoci and buildah write the tag alone: that names no image. */
	if (!wanted && !strpbrk(name, ":/"))
		return kn_fail(err, EINVAL, "the archive calls the image only '%.128s'; choose a name",
		               name);
	int r = kn_ref_parse(kn_view_of(name), ret, err);
	if (r == 0 && !ret->tag[0])
		r = kn_fail(err, EINVAL, "an image is stored under a name and a tag, not a digest");
	return r;
}

/* What is imported is meant to run here. */
static int import_load(struct kn_images *images, const struct kn_ref *ref,
                       const struct kn_digest *digest, struct held **ret, struct kn_err *err)
{
	const struct held_source from = { .blobs = images->blobs,
		                          .repository = kn_view_of(ref->name),
		                          .tag = kn_view_of(ref->tag),
		                          .digest = *digest };
	struct held *h = NULL;

	int r = held_load(&from, &h, err);
	if (r < 0)
		return r;
	r = held_check(h, err);
	if (r < 0)
		kn_image_unref(&h->image);
	else
		*ret = h;
	return r;
}

static int import_read(struct kn_images *images, const struct kn_images_import *what,
                       struct held **ret, struct kn_err *err)
{
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;
	struct kn_archive_image got;
	struct kn_arena arena;
	struct kn_ref ref = { .tag = "" };

	config.path = what->path;
	config.fd = what->fd;
	config.pick = what->name;
	config.max_bytes = images->max_archive_bytes;
	config.progress = what->progress;
	kn_arena_init(&arena);
	int r = kn_archive_read(images->blobs, &config, &arena, &got, err);
	if (r == 0)
		r = choose_name(what->name, got.name, &ref, err);
	if (r == 0)
		r = import_load(images, &ref, &got.manifest.digest, ret, err);
	kn_arena_fini(&arena);
	return r;
}

static int import_add(struct kn_images *images, struct held *h, struct kn_err *err)
{
	kn_auto(table_fini) struct table t = { .at = NULL };

	int r = table_copy(images, &t, err);
	if (r < 0)
		return r;
	table_put(&t, (struct row){ .image = kn_image_ref(&h->image) });
	table_settle(&t, kn_now_ns());
	return table_commit(images, &t, err);
}

int kn_images_import(struct kn_images *images, const struct kn_images_import *what,
                     struct kn_image **ret, struct kn_err *err)
{
	struct held *h = NULL;
	struct kn_ref ref;

	/* A bad name is told before a large archive is read. */
	int bad = what->name ? choose_name(what->name, NULL, &ref, err) : 0;
	if (bad < 0)
		return bad;
	kn_images_hold(images);
	int r = import_read(images, what, &h, err);
	if (r == 0) {
		pthread_mutex_lock(&images->writing);
		r = import_add(images, h, err);
		pthread_mutex_unlock(&images->writing);
	}
	kn_images_release(images);
	if (r == 0)
		*ret = &h->image;
	else if (h)
		kn_image_unref(&h->image);
	return r;
}

/* ---- finding ------------------------------------------------------------------------------- */

static bool matches(const struct kn_image *image, const struct kn_ref *ref)
{
	if (ref->digest.text[0] && !kn_digest_is(&ref->digest, &image->digest) &&
	    !kn_digest_is(&ref->digest, &image->top))
		return false;
	if (strcmp(image->repository, ref->name) != 0)
		return false;
	return !ref->tag[0] || strcmp(image->tag, ref->tag) == 0;
}

/* What runs is preferred: an index and a part of it may both fit a digest. */
static struct kn_image *find_first(const struct kn_images *images,
                                   bool (*fits)(const struct kn_image *image, const void *arg),
                                   const void *arg)
{
	struct kn_image *other = NULL;

	for (size_t i = 0; i < images->table.n; i++) {
		struct kn_image *image = images->table.at[i].image;
		if (!fits(image, arg))
			continue;
		if (image->kind != KN_IMAGE_OTHER)
			return image;
		other = other ? other : image;
	}
	return other;
}

static bool fits_digest(const struct kn_image *image, const void *arg)
{
	return kn_digest_is(&image->digest, arg) || kn_digest_is(&image->top, arg);
}

static bool fits_ref(const struct kn_image *image, const void *arg)
{
	return matches(image, arg);
}

bool images_has(struct kn_images *images, const struct kn_digest *digest)
{
	pthread_mutex_lock(&images->lock);
	bool has = find_first(images, fits_digest, digest) != NULL;
	for (size_t i = 0; i < images->n_retired && !has; i++)
		has = fits_digest(images->retired[i].image, digest);
	pthread_mutex_unlock(&images->lock);
	return has;
}

static int not_found(const struct kn_images *images, const char *reference, struct kn_err *err)
{
	const size_t n = images->table.n;
	kn_auto(kn_free) const char **names = calloc(n + 1, sizeof(*names));
	const char *close = NULL;

	for (size_t i = 0; names && i < n; i++)
		names[i] = images->table.at[i].image->reference;
	if (names)
		close = kn_closest(kn_view_of(reference), names, n);
	return kn_fail(err, ENOENT, "no image '%.150s' on this node%s%s%s; `kiln image import` brings "
	               "one, `kiln image list` shows what is here", reference, close ? "; did you mean '" : "", close ? close : "", close ? "'" : "");
}

/* Called with the lock, or by a writer. Borrowed. */
static int lookup(struct kn_images *images, struct kn_view reference, struct kn_image **ret,
                  struct kn_err *err)
{
	struct kn_digest digest;
	struct kn_ref ref;
	struct kn_image *image;
	char text[KN_REF_MAX];

	if (kn_digest_parse(reference, &digest, NULL) == 0) {
		memcpy(text, digest.text, sizeof(digest.text));
		image = find_first(images, fits_digest, &digest);
	} else {
		int r = kn_ref_parse(reference, &ref, err);
		if (r < 0)
			return r;
		kn_ref_text(&ref, text);
		image = find_first(images, fits_ref, &ref);
	}
	if (!image)
		return not_found(images, text, err);
	*ret = image;
	return 0;
}

int kn_images_find(struct kn_images *images, struct kn_view reference, struct kn_image **ret,
                   struct kn_err *err)
{
	struct kn_image *image = NULL;

	pthread_mutex_lock(&images->lock);
	int r = lookup(images, reference, &image, err);
	if (image && image->kind == KN_IMAGE_OTHER)
		r = kn_fail(err, ENOEXEC, "image '%.150s': %s", image->reference, image->why_not);
	if (image && r == 0)
		*ret = kn_image_ref(image);
	pthread_mutex_unlock(&images->lock);
	return r;
}

int kn_images_list(struct kn_images *images, struct kn_image_list *ret, struct kn_err *err)
{
	struct kn_image_list l = { .n = 0 };
	size_t tagged = 0;

	int r = kn_images_in(images, KN_VIEW_NULL, &l, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < l.n; i++) {
		if (l.at[i]->tag[0])
			l.at[tagged++] = l.at[i];
		else
			kn_image_unref(l.at[i]);
	}
	l.n = tagged;
	*ret = l;
	return 0;
}

void kn_image_list_fini(struct kn_image_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		kn_image_unref(list->at[i]);
	free(list->at);
	*list = (struct kn_image_list){ .at = NULL };
}

/* ---- removing ------------------------------------------------------------------------------ */

static bool last_name(const struct kn_images *images, const struct kn_image *image)
{
	for (size_t i = 0; i < images->table.n; i++) {
		const struct kn_image *other = images->table.at[i].image;
		if (other != image && other->tag[0] && kn_digest_is(&other->digest, &image->digest))
			return false;
	}
	return true;
}

/* A manifest without its tag goes with the last one: it is not what a push sent by digest. */
static void remove_row(struct table *t, const struct kn_image *image)
{
	for (size_t i = t->n; i-- > 0;) {
		const struct row *row = &t->at[i];
		if (row->image == image ||
		    (row->until_ns && kn_digest_is(&row->image->top, &image->top)))
			table_remove(t, i);
	}
}

static int remove_named(struct kn_images *images, struct kn_view reference,
                        const char *(*user)(const struct kn_image *image, void *arg), void *arg,
                        struct kn_err *err)
{
	kn_auto(table_fini) struct table t = { .at = NULL };
	struct kn_image *image = NULL;

	int r = lookup(images, reference, &image, err);
	if (r < 0)
		return r;
	assert(image);
	const char *who = user && last_name(images, image) ? user(image, arg) : NULL;
	if (who)
		return kn_fail(err, EBUSY, "image '%.150s' is used by function '%.100s'; remove that "
		               "first", image->reference, who);
	r = table_copy(images, &t, err);
	if (r < 0)
		return r;
	remove_row(&t, image);
	table_settle(&t, kn_now_ns());
	r = table_commit(images, &t, err);
	if (r == 0)
		images_collect(images);
	return r;
}

int kn_images_remove(struct kn_images *images, struct kn_view reference,
                     const char *(*user)(const struct kn_image *image, void *arg), void *arg,
                     struct kn_err *err)
{
	pthread_mutex_lock(&images->writing);
	int r = remove_named(images, reference, user, arg, err);
	pthread_mutex_unlock(&images->writing);
	return r;
}
