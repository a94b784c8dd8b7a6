/*
 * The cache of root file systems: rootfs/<algorithm>-<hex>.erofs, one for each image digest. It is
 * built by the first who needs it, while others that need the same one wait for its result, good or
 * bad. A build works in a folder of its own under tmp and is renamed into place when it is whole.
 */
#include "oci/image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "oci/rootfs.h"

static void rootfs_name(const struct kn_digest *d, char ret[ROOTFS_NAME])
{
	snprintf(ret, ROOTFS_NAME, "rootfs/%s-%s" ROOTFS_SUFFIX, kn_digest_algorithm(d), kn_digest_hex(d));
}

static char *absolute(const struct kn_images *images, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", kn_blobs_path(images->blobs), name) < 0 ? NULL : path;
}

/* ---- what is there ------------------------------------------------------------------------- */

static bool rootfs_there(struct kn_images *images, const struct kn_digest *d, uint64_t *ret_bytes)
{
	char name[ROOTFS_NAME];
	struct stat st;

	rootfs_name(d, name);
	if (fstatat(kn_blobs_root(images->blobs), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	*ret_bytes = (uint64_t)st.st_size;
	return true;
}

static char *path_of(struct kn_images *images, const struct kn_image *image)
{
	char name[ROOTFS_NAME];

	if (image->kind != KN_IMAGE_CONTAINER)
		return kn_blob_path(images->blobs, &held_of(image)->manifest.layers[0].digest);
	rootfs_name(&image->digest, name);
	return absolute(images, name);
}

uint64_t kn_images_rootfs_bytes(struct kn_images *images, const struct kn_image *image)
{
	uint64_t bytes = 0;

	if (image->kind == KN_IMAGE_OTHER)
		return 0;
	if (image->kind != KN_IMAGE_CONTAINER)
		return held_of(image)->manifest.layers[0].bytes;
	return rootfs_there(images, &image->digest, &bytes) ? bytes : 0;
}

char *kn_images_rootfs_cached(struct kn_images *images, const struct kn_image *image)
{
	const bool there = kn_images_rootfs_bytes(images, image) > 0;

	return there && atomic_load(&held_of(image)->checked) ? path_of(images, image) : NULL;
}

/* ---- building ------------------------------------------------------------------------------ */

static int build_in(struct kn_images *images, const struct kn_image *image, const char *work_name,
                    const struct kn_progress *progress, struct kn_err *err)
{
	const struct held *h = held_of(image);
	kn_auto(kn_free) char *work = absolute(images, work_name);
	kn_auto(kn_free) char *path = path_of(images, image);

	if (!work || !path)
		return images_no_memory(err);
	struct kn_rootfs_config config = {
		.blobs = images->blobs,
		.manifest = &h->manifest,
		.image = &h->config,
		.work_dir = work,
		.path = path,
		.mkfs = images->mkfs,
		.limits = &images->limits,
		.progress = progress,
	};
	return kn_rootfs_build(&config, NULL, err);
}

/* Make sure that it is there and whole; what was spoiled is built again. */
static int ready(struct kn_images *images, const struct kn_image *image, const char *work,
                 const struct kn_progress *progress, struct kn_err *err)
{
	char name[ROOTFS_NAME];
	uint64_t bytes;

	if (image->kind != KN_IMAGE_CONTAINER)
		return image_check_layer(images, held_of(image), err);
	rootfs_name(&image->digest, name);
	if (rootfs_there(images, &image->digest, &bytes) && rootfs_is_whole(images, name))
		return 0;
	int r = build_in(images, image, work, progress, err);
	return r < 0 ? r : rootfs_note_sum(images, name, err);
}

static int build_run(struct kn_images *images, const struct kn_image *image,
                     const struct kn_progress *progress, struct kn_err *err)
{
	int root = kn_blobs_root(images->blobs);
	char work[32];

	if (!images_has(images, &image->digest))
		return kn_fail(err, ENOENT, "image '%.150s' was removed", image->reference);
	snprintf(work, sizeof(work), "tmp/build-%u", atomic_fetch_add(&images->next_build, 1));
	if (mkdirat(root, work, 0700) < 0)
		return kn_fail(err, errno, "make '%s': %s", work, strerror(errno));
	int r = ready(images, image, work, progress, err);
	/* What cannot be removed now goes when the store is opened next. */
	(void)!kn_remove_tree(root, work, NULL);
	if (r < 0)
		return kn_while(err, "image '%.150s'", image->reference);
	/* Removed meanwhile: its collection came too early to see this file. */
	if (!images_has(images, &image->digest)) {
		images_collect_rootfs(images);
		return kn_fail(err, ENOENT, "image '%.150s' was removed", image->reference);
	}
	atomic_store(&held_of(image)->checked, true);
	return 0;
}

/* ---- one builder, the others wait ---------------------------------------------------------- */

static void unlink_build(struct kn_images *images, const struct build *b)
{
	for (struct build **at = &images->builds; *at; at = &(*at)->next)
		if (*at == b) {
			*at = b->next;
			return;
		}
}

/* Join the build of a digest, or begin it. Called with the lock. */
static struct build *build_join(struct kn_images *images, const struct kn_digest *d, bool *ret_begun)
{
	for (struct build *b = images->builds; b; b = b->next)
		if (kn_digest_is(&b->digest, d)) {
			b->refs++;
			*ret_begun = false;
			return b;
		}
	struct build *b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	*b = (struct build){ .digest = *d, .refs = 1, .next = images->builds };
	images->builds = b;
	*ret_begun = true;
	return b;
}

/* Called with the lock. Asks several times a second whether the caller still wants it. */
static int build_wait(struct kn_images *images, struct build *b, const struct kn_progress *progress,
                      struct kn_err *err)
{
	while (!b->done) {
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 100 * 1000 * 1000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&images->built, &images->lock, &until);
		if (!b->done && !kn_progress_step(progress, "wait", 0, 0))
			return kn_fail(err, ECANCELED, "waiting for the root file system was cancelled");
	}
	if (b->err.code && err)
		*err = b->err;
	return -b->err.code;
}

static void build_leave(struct build *b)
{
	if (--b->refs == 0)
		free(b);
}

/* Called with the lock, which it gives away while it builds. */
static int build_lead(struct kn_images *images, struct build *b, const struct kn_image *image,
                      const struct kn_progress *progress, struct kn_err *err)
{
	pthread_mutex_unlock(&images->lock);
	build_run(images, image, progress, &b->err);
	pthread_mutex_lock(&images->lock);
	b->done = true;
	unlink_build(images, b);
	pthread_cond_broadcast(&images->built);
	if (b->err.code && err)
		*err = b->err;
	return -b->err.code;
}

/* A builder that was cancelled must not cancel those who wait: they begin again. */
static int build_once(struct kn_images *images, const struct kn_image *image,
                      const struct kn_progress *progress, bool *ret_again, struct kn_err *err)
{
	uint64_t bytes;
	bool begun;
	int r;

	*ret_again = false;
	pthread_mutex_lock(&images->lock);
	if (atomic_load(&held_of(image)->checked) &&
	    (image->kind != KN_IMAGE_CONTAINER || rootfs_there(images, &image->digest, &bytes))) {
		pthread_mutex_unlock(&images->lock);
		return 0;
	}
	struct build *b = build_join(images, &image->digest, &begun);
	if (!b) {
		r = images_no_memory(err);
	} else {
		r = begun ? build_lead(images, b, image, progress, err)
		          : build_wait(images, b, progress, err);
		*ret_again = !begun && b->done && b->err.code == ECANCELED;
		build_leave(b);
	}
	pthread_mutex_unlock(&images->lock);
	return r;
}

int kn_images_rootfs(struct kn_images *images, const struct kn_image *image,
                     const struct kn_progress *progress, char **ret, struct kn_err *err)
{
	bool again = true;
	int r = 0;

	while (again) {
		struct kn_err why = KN_ERR_INIT;
		r = build_once(images, image, progress, &again, &why);
		if (r < 0 && !again && err)
			*err = why;
	}
	if (r < 0)
		return r;
	char *path = path_of(images, image);
	if (!path)
		return images_no_memory(err);
	*ret = path;
	return 0;
}

/* ---- collection ---------------------------------------------------------------------------- */

static bool rootfs_wanted(struct kn_images *images, const char *name)
{
	char text[KN_DIGEST_TEXT];
	const char *suffix = strrchr(name, '.');
	struct kn_digest d;

	if (!suffix || suffix - name >= (ptrdiff_t)sizeof(text) ||
	    (strcmp(suffix, ROOTFS_SUFFIX) != 0 && strcmp(suffix, ROOTFS_SUM_SUFFIX) != 0))
		return true;             /* not ours */
	snprintf(text, sizeof(text), "%.*s", (int)(suffix - name), name);
	char *dash = strchr(text, '-');
	if (dash)
		*dash = ':';
	return kn_digest_parse(kn_view_of(text), &d, NULL) < 0 || images_has(images, &d);
}

void images_collect_rootfs(struct kn_images *images)
{
	int fd = openat(kn_blobs_root(images->blobs), "rootfs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir) {
		kn_close(fd);
		return;
	}
	for (const struct dirent *e; (e = readdir(dir));)
		if (!rootfs_wanted(images, e->d_name))
			unlinkat(fd, e->d_name, 0);
	closedir(dir);
}
