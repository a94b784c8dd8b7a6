/*
 * What is kept, and the removal of the rest. Kept is what a row of the table names, what a holder of
 * an image without a name may still need, and what is pinned. A pin is looked up again for each
 * blob, under the lock: it is set before its blob has a name, so no blob is ever seen without it.
 */
#include "oci/image/store.h"

#include <errno.h>
#include <stdlib.h>

#include "base/time.h"

enum { MAX_PINS = 4096 };

#define PIN_NS     (3600 * KN_NS_PER_S)
#define RETIRED_NS (60 * KN_NS_PER_S)

/* ---- images without a name -------------------------------------------------------------------- */

static bool in_table(const struct table *t, const struct kn_image *image)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->at[i].image == image)
			return true;
	return false;
}

static bool has_holder(const struct kn_image *image)
{
	return atomic_load(&held_of(image)->refs) > 1;
}

void images_retire(struct kn_images *images, struct table *old)
{
	for (size_t i = 0; i < old->n; i++) {
		struct kn_image *image = old->at[i].image;
		if (in_table(&images->table, image) || !has_holder(image))
			continue;
		struct retired *grown = realloc(images->retired,
		                                (images->n_retired + 1) * sizeof(*grown));
		if (!grown)
			continue;   /* its files go at once */
		pthread_mutex_lock(&images->lock);
		images->retired = grown;
		grown[images->n_retired++] = (struct retired){ .image = kn_image_ref(image) };
		pthread_mutex_unlock(&images->lock);
	}
	table_fini(old);
}

/* Nobody can get a reference any more who has none: "only ours" stays so. */
static void retired_prune(struct kn_images *images, uint64_t now)
{
	size_t kept = 0;

	pthread_mutex_lock(&images->lock);
	for (size_t i = 0; i < images->n_retired; i++) {
		struct retired r = images->retired[i];
		if (has_holder(r.image))
			r.free_ns = 0;
		else if (r.free_ns == 0)
			r.free_ns = now;
		if (r.free_ns && now - r.free_ns >= RETIRED_NS)
			kn_image_unref(r.image);
		else
			images->retired[kept++] = r;
	}
	images->n_retired = kept;
	pthread_mutex_unlock(&images->lock);
}

/* ---- pins ------------------------------------------------------------------------------------- */

/* Called with the lock. */
static struct pin *pin_find(const struct kn_images *images, struct kn_view repository,
                            const struct kn_digest *d)
{
	for (size_t i = 0; i < images->n_pins; i++)
		if (kn_digest_is(&images->pins[i].digest, d) &&
		    kn_view_is(kn_view_of(images->pins[i].repository), repository))
			return &images->pins[i];
	return NULL;
}

/* Called with the lock. */
static void pin_remove(struct kn_images *images, struct pin *pin)
{
	struct pin *last = &images->pins[images->n_pins - 1];

	free(pin->repository);
	memmove(pin, pin + 1, (size_t)((char *)last - (char *)pin));
	images->n_pins--;
}

static int pin_add(struct kn_images *images, struct kn_view repository, const struct kn_digest *d,
                   struct kn_err *err)
{
	struct pin *at = pin_find(images, repository, d);

	if (!at) {
		if (images->n_pins == MAX_PINS)   /* the oldest makes room */
			pin_remove(images, images->pins);
		struct pin *grown = realloc(images->pins, (images->n_pins + 1) * sizeof(*grown));
		if (!grown)
			return images_no_memory(err);
		images->pins = grown;
		at = &grown[images->n_pins];
		*at = (struct pin){ .repository = strndup(repository.ptr, repository.len), .digest = *d };
		if (!at->repository)
			return images_no_memory(err);
		images->n_pins++;
	}
	at->until_ns = kn_now_ns() + PIN_NS;
	return 0;
}

int kn_images_pin(struct kn_images *images, struct kn_view repository, const struct kn_digest *d,
                  struct kn_err *err)
{
	pthread_mutex_lock(&images->lock);
	int r = pin_add(images, repository, d, err);
	pthread_mutex_unlock(&images->lock);
	return r;
}

bool kn_images_unpin(struct kn_images *images, struct kn_view repository, const struct kn_digest *d)
{
	pthread_mutex_lock(&images->lock);
	struct pin *pin = pin_find(images, repository, d);
	if (pin)
		pin_remove(images, pin);
	pthread_mutex_unlock(&images->lock);
	return pin != NULL;
}

void images_unpin_all(struct kn_images *images, const struct held *h)
{
	for (size_t i = 0; i < h->n_needs; i++)
		(void)kn_images_unpin(images, kn_view_of(h->image.repository), &h->needs[i]);
}

static void pins_prune(struct kn_images *images, uint64_t now)
{
	pthread_mutex_lock(&images->lock);
	for (size_t i = images->n_pins; i-- > 0;)
		if (images->pins[i].until_ns <= now)
			pin_remove(images, &images->pins[i]);
	pthread_mutex_unlock(&images->lock);
}

/* ---- what is used ----------------------------------------------------------------------------- */

struct used {
	struct kn_images *images;
	struct kn_digest *at;
	size_t n;
};

static int compare_digests(const void *a, const void *b)
{
	return strcmp(((const struct kn_digest *)a)->text, ((const struct kn_digest *)b)->text);
}

static bool is_pinned(struct kn_images *images, const struct kn_digest *d)
{
	bool pinned = false;

	pthread_mutex_lock(&images->lock);
	for (size_t i = 0; i < images->n_pins && !pinned; i++)
		pinned = kn_digest_is(&images->pins[i].digest, d);
	pthread_mutex_unlock(&images->lock);
	return pinned;
}

static bool is_used(const struct kn_digest *d, void *arg)
{
	const struct used *u = arg;

	return (u->n && bsearch(d, u->at, u->n, sizeof(*d), compare_digests)) ||
	       is_pinned(u->images, d);
}

static size_t used_count(const struct held *h)
{
	return 3 + h->n_needs + h->manifest.n_layers;
}

static void used_add(struct used *u, const struct held *h)
{
	u->at[u->n++] = h->image.top;
	for (size_t i = 0; i < h->n_needs; i++)
		u->at[u->n++] = h->needs[i];
	if (h->why.code)
		return;
	u->at[u->n++] = h->image.digest;
	u->at[u->n++] = h->manifest.config.digest;
	for (size_t i = 0; i < h->manifest.n_layers; i++)
		u->at[u->n++] = h->manifest.layers[i].digest;
}

static int used_make(struct kn_images *images, struct used *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < images->table.n; i++)
		n += used_count(held_of(images->table.at[i].image));
	for (size_t i = 0; i < images->n_retired; i++)
		n += used_count(held_of(images->retired[i].image));
	struct used u = { .images = images, .at = calloc(n + 1, sizeof(*u.at)) };
	if (!u.at)
		return -ENOMEM;
	for (size_t i = 0; i < images->table.n; i++)
		used_add(&u, held_of(images->table.at[i].image));
	for (size_t i = 0; i < images->n_retired; i++)
		used_add(&u, held_of(images->retired[i].image));
	qsort(u.at, u.n, sizeof(*u.at), compare_digests);
	*ret = u;
	return 0;
}

/*
 * Not while somebody holds: there are blobs that nothing names yet, and kn_images_release() comes
 * here again. What could not be removed stays for the next time.
 */
void images_collect(struct kn_images *images)
{
	const uint64_t now = kn_now_ns();
	struct used u;

	pins_prune(images, now);
	retired_prune(images, now);
	if (images->held > 0 || used_make(images, &u) < 0)
		return;
	(void)!kn_blobs_collect(images->blobs, is_used, &u, NULL, NULL);
	free(u.at);
	images_collect_rootfs(images);
}

/* ---- time passes ------------------------------------------------------------------------------ */

bool kn_images_untidy(struct kn_images *images)
{
	const uint64_t now = kn_now_ns();

	pthread_mutex_lock(&images->lock);
	bool untidy = images->n_retired > 0;
	for (size_t i = 0; i < images->n_pins && !untidy; i++)
		untidy = images->pins[i].until_ns <= now;
	for (size_t i = 0; i < images->table.n && !untidy; i++)
		untidy = images->table.at[i].until_ns && images->table.at[i].until_ns <= now;
	pthread_mutex_unlock(&images->lock);
	return untidy;
}

void kn_images_sweep(struct kn_images *images)
{
	kn_auto(table_fini) struct table t = { .at = NULL };

	pthread_mutex_lock(&images->writing);
	if (table_copy(images, &t, NULL) == 0 && table_settle(&t, kn_now_ns()))
		(void)!table_commit(images, &t, NULL);
	images_collect(images);
	pthread_mutex_unlock(&images->writing);
}

void kn_images_hold(struct kn_images *images)
{
	pthread_mutex_lock(&images->writing);
	images->held++;
	pthread_mutex_unlock(&images->writing);
}

void kn_images_release(struct kn_images *images)
{
	pthread_mutex_lock(&images->writing);
	images->held--;
	images_collect(images);
	pthread_mutex_unlock(&images->writing);
}
