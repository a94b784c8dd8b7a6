#include "oci/image/store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/json.h"

#define REF_NAME "org.opencontainers.image.ref.name"

/* A list under construction, which takes the place of the store's when it is on disk. */
struct list {
	struct kn_image **at;
	size_t n;
};

static void list_fini(struct list *l)
{
	for (size_t i = 0; i < l->n; i++)
		kn_image_unref(l->at[i]);
	free(l->at);
	*l = (struct list){ .at = NULL };
}
static void list_fini_auto(struct list *l)
{
	list_fini(l);
}

/* Room for one more than the store has. Called by writers: the list cannot change meanwhile. */
static int list_copy(const struct kn_images *images, struct list *ret, struct kn_err *err)
{
	struct kn_image **at = calloc(images->n + 1, sizeof(*at));

	if (!at)
		return images_no_memory(err);
	for (size_t i = 0; i < images->n; i++)
		at[i] = kn_image_ref(images->at[i]);
	*ret = (struct list){ at, images->n };
	return 0;
}

/* Put image in its place, instead of the one of that name. Takes over the reference. */
static void list_put(struct list *l, struct kn_image *image)
{
	size_t i = 0;

	while (i < l->n && strcmp(l->at[i]->reference, image->reference) < 0)
		i++;
	if (i < l->n && strcmp(l->at[i]->reference, image->reference) == 0) {
		kn_image_unref(l->at[i]);
	} else {
		memmove(l->at + i + 1, l->at + i, (l->n - i) * sizeof(*l->at));
		l->n++;
	}
	l->at[i] = image;
}

static void list_remove(struct list *l, const struct kn_image *image)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->at[i] != image)
			continue;
		kn_image_unref(l->at[i]);
		memmove(l->at + i, l->at + i + 1, (l->n - i - 1) * sizeof(*l->at));
		l->n--;
		return;
	}
}

/* ---- index.json ---------------------------------------------------------------------------- */

static json_t *index_entry(const struct kn_image *image)
{
	struct kn_descriptor d = held_of(image)->descriptor;
	struct kn_spec_pair name = { REF_NAME, image->reference };

	d.artifact_type = held_of(image)->manifest.artifact_type;
	d.annotations = (struct kn_spec_pairs){ &name, 1 };
	return kn_spec_descriptor_json(&d);
}

static int index_write(struct kn_images *images, const struct list *l, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(json_decref) json_t *manifests = json_array();

	for (size_t i = 0; i < l->n; i++)
		if (json_array_append_new(manifests, index_entry(l->at[i])) < 0)
			return images_no_memory(err);
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

static void add_trouble(struct kn_images *images, const struct kn_err *err)
{
	char *text;

	if (asprintf(&text, "%s%s%s", images->trouble ? images->trouble : "",
	             images->trouble ? "; " : "", err->text) < 0)
		return;
	free(images->trouble);
	images->trouble = text;
}

/* An image whose blobs are spoiled is left out, and told: the others must not suffer. */
static int index_take(struct kn_images *images, const struct kn_index *index, struct kn_err *err)
{
	struct list l = { .at = calloc(index->n_manifests + 1, sizeof(*l.at)) };

	if (!l.at)
		return images_no_memory(err);
	for (size_t i = 0; i < index->n_manifests; i++) {
		const struct kn_descriptor *d = &index->manifests[i];
		const char *name = kn_spec_pair(&d->annotations, REF_NAME);
		struct kn_err why = KN_ERR_INIT;
		struct held *h = NULL;
		if (name && held_load(images->blobs, name, d, &h, &why) == 0)
			list_put(&l, &h->image);
		else if (name)
			add_trouble(images, &why);
	}
	images->at = l.at;
	images->n = l.n;
	return 0;
}

static int index_read(struct kn_images *images, struct kn_err *err)
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
		r = index_take(images, &index, err);
	kn_arena_fini(&arena);
	return r;
}

static int layout_write(struct kn_images *images, struct kn_err *err)
{
	static const char text[] = "{\"imageLayoutVersion\":\"1.0.0\"}";

	return kn_write_file(kn_blobs_root(images->blobs), "oci-layout", text, sizeof(text) - 1,
	                     0600, err);
}

/* ---- collection ---------------------------------------------------------------------------- */

struct used {
	struct kn_digest *at;
	size_t n;
};

static int compare_digests(const void *a, const void *b)
{
	return strcmp(((const struct kn_digest *)a)->text, ((const struct kn_digest *)b)->text);
}

static bool is_used(const struct kn_digest *d, void *arg)
{
	const struct used *u = arg;

	return u->n && bsearch(d, u->at, u->n, sizeof(*d), compare_digests);
}

static int used_make(const struct kn_images *images, struct used *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < images->n; i++)
		n += 2 + held_of(images->at[i])->manifest.n_layers;
	struct used u = { .at = calloc(n + 1, sizeof(*u.at)) };
	if (!u.at)
		return -ENOMEM;
	for (size_t i = 0; i < images->n; i++) {
		const struct held *h = held_of(images->at[i]);
		u.at[u.n++] = h->descriptor.digest;
		u.at[u.n++] = h->manifest.config.digest;
		for (size_t k = 0; k < h->manifest.n_layers; k++)
			u.at[u.n++] = h->manifest.layers[k].digest;
	}
	qsort(u.at, u.n, sizeof(*u.at), compare_digests);
	*ret = u;
	return 0;
}

/*
 * Remove what no image needs. Not while anything is being imported: its blobs have no name yet; the
 * import's end comes here again. What could not be removed stays for the next time.
 */
static void collect(struct kn_images *images)
{
	struct used u;

	if (images->importing > 0 || used_make(images, &u) < 0)
		return;
	(void)!kn_blobs_collect(images->blobs, is_used, &u, NULL, NULL);
	free(u.at);
	images_collect_rootfs(images);
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
		r = index_read(images, err);
	if (r == 0)
		r = layout_write(images, err);
	if (r < 0)
		return r;
	/* Spoiled images keep their blobs until somebody has looked: only a clean store is swept. */
	if (!images->trouble)
		collect(images);
	*ret = kn_take_ptr(images);
	return 0;
}

void kn_images_close(struct kn_images *images)
{
	if (!images)
		return;
	for (size_t i = 0; i < images->n; i++)
		kn_image_unref(images->at[i]);
	free(images->at);
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

/* Make l the store's list, on disk first. l holds the old list afterwards. */
static int commit(struct kn_images *images, struct list *l, struct kn_err *err)
{
	int r = index_write(images, l, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&images->lock);
	struct list old = { images->at, images->n };
	images->at = l->at;
	images->n = l->n;
	pthread_mutex_unlock(&images->lock);
	*l = old;
	return 0;
}

/* The name to store under: what the caller says, else what the archive says, if that is a name. */
static int choose_name(const char *wanted, const char *archive, char ret[KN_REF_MAX],
                       struct kn_err *err)
{
	const char *name = wanted ? wanted : archive;
	struct kn_ref ref;

	if (!name)
		return kn_fail(err, EINVAL, "the archive gives the image no name; choose one");
	/* umoci and buildah write the tag alone: that names no image. */
	if (!wanted && !strpbrk(name, ":/"))
		return kn_fail(err, EINVAL, "the archive calls the image only '%.128s'; choose a name",
		               name);
	int r = kn_ref_parse(kn_view_of(name), &ref, err);
	if (r < 0)
		return r;
	if (!ref.tag[0])
		return kn_fail(err, EINVAL, "an image is stored under a name and a tag, not a digest");
	kn_ref_text(&ref, ret);
	return 0;
}

static int import_read(struct kn_images *images, const struct kn_images_import *what,
                       struct held **ret, struct kn_err *err)
{
	struct kn_archive_config config = KN_ARCHIVE_DEFAULTS;
	struct kn_archive_image got;
	struct kn_arena arena;
	char name[KN_REF_MAX];

	config.path = what->path;
	config.fd = what->fd;
	config.pick = what->name;
	config.max_bytes = images->max_archive_bytes;
	config.progress = what->progress;
	kn_arena_init(&arena);
	int r = kn_archive_read(images->blobs, &config, &arena, &got, err);
	if (r == 0)
		r = choose_name(what->name, got.name, name, err);
	if (r == 0)
		r = held_load(images->blobs, name, &got.manifest, ret, err);
	kn_arena_fini(&arena);
	return r;
}

static int import_add(struct kn_images *images, struct held *h, struct kn_err *err)
{
	__attribute__((cleanup(list_fini_auto))) struct list l = { .at = NULL };

	int r = list_copy(images, &l, err);
	if (r < 0)
		return r;
	list_put(&l, kn_image_ref(&h->image));
	return commit(images, &l, err);
}

int kn_images_import(struct kn_images *images, const struct kn_images_import *what,
                     struct kn_image **ret, struct kn_err *err)
{
	struct held *h = NULL;
	char name[KN_REF_MAX];

	/* A bad name is told before a large archive is read. */
	int bad = what->name ? choose_name(what->name, NULL, name, err) : 0;
	if (bad < 0)
		return bad;
	pthread_mutex_lock(&images->writing);
	images->importing++;
	pthread_mutex_unlock(&images->writing);

	int r = import_read(images, what, &h, err);

	pthread_mutex_lock(&images->writing);
	if (r == 0)
		r = import_add(images, h, err);
	images->importing--;
	collect(images);
	pthread_mutex_unlock(&images->writing);
	if (r == 0)
		*ret = &h->image;
	else if (h)
		kn_image_unref(&h->image);
	return r;
}

/* ---- finding ------------------------------------------------------------------------------- */

static bool matches(const struct kn_image *image, const struct kn_ref *ref)
{
	struct kn_ref own;

	if (ref->digest.text[0] && !kn_digest_is(&ref->digest, &image->digest))
		return false;
	if (kn_ref_parse(kn_view_of(image->reference), &own, NULL) < 0 ||
	    strcmp(own.name, ref->name) != 0)
		return false;
	return !ref->tag[0] || strcmp(own.tag, ref->tag) == 0;
}

static struct kn_image *find_digest(const struct kn_images *images, const struct kn_digest *d)
{
	for (size_t i = 0; i < images->n; i++)
		if (kn_digest_is(&images->at[i]->digest, d))
			return images->at[i];
	return NULL;
}

static struct kn_image *find_ref(const struct kn_images *images, const struct kn_ref *ref)
{
	for (size_t i = 0; i < images->n; i++)
		if (matches(images->at[i], ref))
			return images->at[i];
	return NULL;
}

bool images_has(struct kn_images *images, const struct kn_digest *digest)
{
	pthread_mutex_lock(&images->lock);
	bool has = find_digest(images, digest) != NULL;
	pthread_mutex_unlock(&images->lock);
	return has;
}

static int not_found(const struct kn_images *images, const char *reference, struct kn_err *err)
{
	kn_auto(kn_free) const char **names = calloc(images->n + 1, sizeof(*names));
	const char *close = NULL;

	for (size_t i = 0; names && i < images->n; i++)
		names[i] = images->at[i]->reference;
	if (names)
		close = kn_closest(kn_view_of(reference), names, images->n);
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
		image = find_digest(images, &digest);
	} else {
		int r = kn_ref_parse(reference, &ref, err);
		if (r < 0)
			return r;
		kn_ref_text(&ref, text);
		image = find_ref(images, &ref);
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
	if (r == 0)
		*ret = kn_image_ref(image);
	pthread_mutex_unlock(&images->lock);
	return r;
}

int kn_images_list(struct kn_images *images, struct kn_image_list *ret, struct kn_err *err)
{
	struct list l = { .n = 0 }; /* gcc's -O3 does not see that list_copy() fills it */

	pthread_mutex_lock(&images->lock);
	int r = list_copy(images, &l, err);
	pthread_mutex_unlock(&images->lock);
	if (r == 0)
		*ret = (struct kn_image_list){ l.at, l.n };
	return r;
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
	for (size_t i = 0; i < images->n; i++)
		if (images->at[i] != image && kn_digest_is(&images->at[i]->digest, &image->digest))
			return false;
	return true;
}

static int remove_named(struct kn_images *images, struct kn_view reference,
                        const char *(*user)(const struct kn_image *image, void *arg), void *arg,
                        struct kn_err *err)
{
	__attribute__((cleanup(list_fini_auto))) struct list l = { .at = NULL };
	struct kn_image *image = NULL;

	int r = lookup(images, reference, &image, err);
	if (r < 0)
		return r;
	assert(image);
	const char *who = user && last_name(images, image) ? user(image, arg) : NULL;
	if (who)
		return kn_fail(err, EBUSY, "image '%.150s' is used by function '%.100s'; remove that "
		               "first", image->reference, who);
	r = list_copy(images, &l, err);
	if (r < 0)
		return r;
	list_remove(&l, image);
	r = commit(images, &l, err);
	if (r == 0)
		collect(images);
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
