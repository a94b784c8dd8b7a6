/*
 * Layers onto a real folder, beside one that stands for the host: whatever the stream holds, nothing
 * outside the root may change, and what was unpacked can be removed again. The first byte decides
 * how many layers the input is cut into, so that whiteouts and links meet lower layers.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "oci/layer.h"

static char dir[64];
static int dirfd = -1, outside = -1;
static struct stat secret, host;

static void clean_up(void)
{
	(void)!kn_remove_tree(AT_FDCWD, dir, NULL);
}

static void set_up(void)
{
	snprintf(dir, sizeof(dir), "%s/kiln-fuzz-XXXXXX",
	         access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	must(mkdtemp(dir) != NULL);
	atexit(clean_up);
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(dirfd >= 0 && mkdirat(dirfd, "outside", 0755) == 0);
	outside = openat(dirfd, "outside", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(outside >= 0);
	kn_close(openat(outside, "secret", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
	must(fstatat(outside, "secret", &secret, 0) == 0 && fstat(outside, &host) == 0);
}

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_nlink == b->st_nlink && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void check_outside(void)
{
	struct stat now;

	must(fstatat(outside, "secret", &now, AT_SYMLINK_NOFOLLOW) == 0 && same(&now, &secret));
	must(fstat(outside, &now) == 0 && same(&now, &host));
}

static int apply(int root, const uint8_t *data, size_t size, struct kn_layer_stats *stats)
{
	struct kn_layer_limits limits = KN_LAYER_LIMITS;
	struct kn_err err = KN_ERR_INIT;

	limits.max_bytes = 1 << 20;
	limits.max_stream = 4 << 20;
	limits.max_entries = 200;
	limits.max_depth = 20;
	kn_auto(kn_close) int fd = memfd_create("layer", MFD_CLOEXEC);
	must(fd >= 0 && kn_write_all(fd, data, size) == 0 && lseek(fd, 0, SEEK_SET) == 0);
	struct kn_layer_config config = { .fd = fd, .bytes = size, .limits = &limits };
	int r = kn_layer_apply(root, &config, stats, &err);
	must(r == 0 || (err.code == -r && err.text[0]));
	must(stats->bytes <= limits.max_bytes && stats->entries <= limits.max_entries + 1);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_layer_stats stats = { 0 };

	if (dirfd < 0)
		set_up();
	if (size < 1)
		return 0;
	size_t layers = 1 + data[0] % 3, part = (size - 1) / layers;
	part -= part % 512;           /* tar's block */
	must(mkdirat(dirfd, "root", 0755) == 0);
	kn_auto(kn_close) int root = openat(dirfd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < layers; i++) {
		size_t from = 1 + i * part, to = i + 1 == layers ? size : from + part;
		if (apply(root, data + from, to - from, &stats) < 0)
			break;
	}
	check_outside();
	must(kn_remove_tree(dirfd, "root", NULL) == 0);
	check_outside();
	return 0;
}
