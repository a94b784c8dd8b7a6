/* An image below, memory above. */
#include <errno.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/mount.h"
#include "oci/container.h"

enum { PATH_BYTES = 512 };

static int make_folders(const char *dir, struct kn_err *err)
{
	static const char *const names[] = { "image", "upper", "work", "root" };
	char path[PATH_BYTES];

	for (size_t i = 0; i < KN_ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%.400s/%s", dir, names[i]);
		if (mkdir(path, 0755) < 0)
			return kn_fail(err, errno, "make folder %s: %s", path, strerror(errno));
	}
	return 0;
}

/* The upper layer's root decides mode and owner of "/": as the image has them. */
static void copy_mode(const char *dir)
{
	char image[PATH_BYTES], upper[PATH_BYTES];
	struct stat st;

	snprintf(image, sizeof(image), "%.400s/image", dir);
	snprintf(upper, sizeof(upper), "%.400s/upper", dir);
	if (stat(image, &st) < 0)
		return;
	(void)!chown(upper, st.st_uid, st.st_gid);
	(void)!chmod(upper, st.st_mode & 07777);
}

static int place_image(const struct kn_container_overlay *o, struct kn_err *err)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%.400s/image", o->dir);
	if (o->image_fd >= 0)
		return kn_mount_place(o->image_fd, path, err);
	int r = kn_mount(o->device, path, "erofs", MS_RDONLY | MS_NODEV, NULL, err);
	return r < 0 ? kn_while(err, "the image (is it an erofs image?)") : 0;
}

int kn_container_overlay(const struct kn_container_overlay *o, struct kn_err *err)
{
	char options[3 * PATH_BYTES] = "mode=0755", root[PATH_BYTES];

	if (strlen(o->dir) > 400 || strpbrk(o->dir, ",:\\"))
		return kn_fail(err, EINVAL, "folder '%.100s' cannot hold an overlay: its name is too "
		               "long, or holds , : or \\", o->dir);
	if (o->bytes)
		snprintf(options, sizeof(options), "mode=0755,size=%llu",
		         (unsigned long long)o->bytes);
	int r = kn_mount("layers", o->dir, "tmpfs", MS_NODEV, options, err);
	if (r == 0)
		r = make_folders(o->dir, err);
	if (r == 0)
		r = place_image(o, err);
	if (r < 0)
		return r;
	copy_mode(o->dir);
	snprintf(root, sizeof(root), "%.400s/root", o->dir);
	snprintf(options, sizeof(options),
	         "lowerdir=%.400s/image,upperdir=%.400s/upper,workdir=%.400s/work", o->dir, o->dir,
	         o->dir);
	return kn_mount("overlay", root, "overlay", MS_NODEV, options, err);
}
