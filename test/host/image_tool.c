/*
 * An image store from the command line, for the host tests: no daemon in the way.
 *
 *     image-tool STORE import FILE [NAME]    reference and digest
 *     image-tool STORE list                  one image a line
 *     image-tool STORE show NAME             what a sandbox would be given
 *     image-tool STORE rootfs NAME           path of the root file system
 *     image-tool STORE remove NAME
 *     image-tool - unpack LAYER FOLDER       counts
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "oci/image.h"

static int do_import(struct kn_images *images, int argc, char **argv, struct kn_err *err)
{
	struct kn_images_import what = { .path = argv[0], .name = argc > 1 ? argv[1] : NULL };
	kn_auto(kn_image_unref) struct kn_image *image = NULL;

	int r = kn_images_import(images, &what, &image, err);
	if (r == 0)
		printf("%s %s\n", image->reference, image->digest.text);
	return r;
}

static int do_list(struct kn_images *images, struct kn_err *err)
{
	__attribute__((cleanup(kn_image_list_fini_auto))) struct kn_image_list l = { .n = 0 };

	int r = kn_images_list(images, &l, err);
	for (size_t i = 0; r == 0 && i < l.n; i++)
		printf("%s %s %s %llu\n", l.at[i]->reference, l.at[i]->digest.text,
		       kn_image_kind_name(l.at[i]->kind), (unsigned long long)l.at[i]->bytes);
	return r;
}

static int do_show(struct kn_images *images, const char *name, struct kn_err *err)
{
	kn_auto(kn_image_unref) struct kn_image *i = NULL;

	int r = kn_images_find(images, kn_view_of(name), &i, err);
	if (r < 0)
		return r;
	for (size_t k = 0; i->argv[k]; k++)
		printf("argv %s\n", i->argv[k]);
	for (size_t k = 0; i->env[k]; k++)
		printf("env %s\n", i->env[k]);
	for (size_t k = 0; k < i->n_ports; k++)
		printf("port %u\n", i->ports[k]);
	printf("cwd %s\nuser %s\nstop %s\n", i->cwd, i->user, i->stop_signal);
	return 0;
}

static int do_rootfs(struct kn_images *images, const char *name, struct kn_err *err)
{
	kn_auto(kn_image_unref) struct kn_image *image = NULL;
	kn_auto(kn_free) char *path = NULL;

	int r = kn_images_find(images, kn_view_of(name), &image, err);
	if (r == 0)
		r = kn_images_rootfs(images, image, NULL, &path, err);
	if (r == 0)
		puts(path);
	return r;
}

/* Not ru_maxrss: that remembers the program that started this one. */
static unsigned long peak_kib(void)
{
	unsigned long kib = 0;
	char line[256];
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmHWM: %lu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

static int do_unpack(const char *layer, const char *folder, struct kn_err *err)
{
	static const struct kn_layer_limits limits = KN_LAYER_LIMITS;
	struct kn_layer_stats s = { 0 };
	struct stat st;

	kn_auto(kn_close) int fd = open(layer, O_RDONLY | O_CLOEXEC);
	kn_auto(kn_close) int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || root < 0 || fstat(fd, &st) < 0)
		return kn_fail(err, errno, "open: %s", strerror(errno));
	struct kn_layer_config config = { .fd = fd, .bytes = (uint64_t)st.st_size,
		                          .limits = &limits };
	int r = kn_layer_apply(root, &config, &s, err);
	printf("entries %llu bytes %llu devices %llu max_rss_kib %lu\n",
	       (unsigned long long)s.entries, (unsigned long long)s.bytes,
	       (unsigned long long)s.skipped_devices, peak_kib());
	return r;
}

static int run(struct kn_images *images, int argc, char **argv, struct kn_err *err)
{
	const char *verb = argv[0];

	if (strcmp(verb, "list") == 0)
		return do_list(images, err);
	if (argc > 1 && strcmp(verb, "import") == 0)
		return do_import(images, argc - 1, argv + 1, err);
	if (argc > 1 && strcmp(verb, "show") == 0)
		return do_show(images, argv[1], err);
	if (argc > 1 && strcmp(verb, "rootfs") == 0)
		return do_rootfs(images, argv[1], err);
	if (argc > 1 && strcmp(verb, "remove") == 0)
		return kn_images_remove(images, kn_view_of(argv[1]), NULL, NULL, err);
	return kn_fail(err, EINVAL, "'%s' is no verb of this program", verb);
}

int main(int argc, char **argv)
{
	struct kn_images_config config = KN_IMAGES_DEFAULTS;
	kn_auto(kn_images_close) struct kn_images *images = NULL;
	struct kn_err err = KN_ERR_INIT;
	int r;

	if (argc < 3) {
		fprintf(stderr, "image-tool STORE VERB [ARGUMENT]...\n");
		return 2;
	}
	if (argc == 5 && strcmp(argv[2], "unpack") == 0) {
		r = do_unpack(argv[3], argv[4], &err);
	} else {
		config.dir = argv[1];
		r = kn_images_open(&config, &images, &err);
		if (r == 0 && kn_images_trouble(images))
			fprintf(stderr, "left out: %s\n", kn_images_trouble(images));
		if (r == 0)
			r = run(images, argc - 2, argv + 2, &err);
	}
	if (r < 0)
		fprintf(stderr, "%s (%s)\n", err.text, strerrorname_np(err.code));
	return r < 0;
}
