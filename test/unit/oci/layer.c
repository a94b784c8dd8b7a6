#include "oci/layer.h"

#include <sys/wait.h>
#include <sys/xattr.h>
#include <zlib.h>

#include "oci/fixture.h"

/*
 * Every test has a folder "root", which layers are applied to, and a folder "outside" with a file
 * "secret", which stands for the host: the tear-down checks that nothing there has changed.
 */
static struct kn_layer_stats stats;
static struct kn_layer_limits limits;
static struct stat secret_before, outside_before;

static int setup(void **state)
{
	if (fixture_setup(state) < 0)
		return -1;
	if (mkdir(fixture_path("root"), 0755) < 0 || mkdir(fixture_path("outside"), 0755) < 0)
		return -1;
	fixture_write("outside/secret", "secret", 6);
	if (stat(fixture_path("outside/secret"), &secret_before) < 0 ||
	    stat(fixture_path("outside"), &outside_before) < 0)
		return -1;
	stats = (struct kn_layer_stats){ 0 };
	limits = KN_LAYER_LIMITS;
	return 0;
}

static void outside_is_untouched(void)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct stat st;

	assert_int_equal(kn_read_file(AT_FDCWD, fixture_path("outside/secret"), 100, &text, NULL), 0);
	assert_view(kn_buf_view(&text), "secret");
	assert_int_equal(stat(fixture_path("outside/secret"), &st), 0);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(st.st_mode, secret_before.st_mode);
	assert_int_equal(st.st_uid, secret_before.st_uid);
	assert_memory_equal(&st.st_ctim, &secret_before.st_ctim, sizeof(st.st_ctim));
	assert_int_equal(stat(fixture_path("outside"), &st), 0);
	assert_memory_equal(&st.st_ctim, &outside_before.st_ctim, sizeof(st.st_ctim));
	assert_int_equal(fixture_count(fixture_path("outside")), 1);
	/* Nothing beside root and outside either. */
	assert_int_equal(fixture_count(fixture_dir), 2);
}

static int teardown(void **state)
{
	outside_is_untouched();
	return fixture_teardown(state);
}

/* ---- applying ------------------------------------------------------------------------------ */

static int apply_bytes(struct kn_view blob, const struct kn_digest *diff_id,
                       const struct kn_progress *progress, struct kn_err *err)
{
	kn_auto(kn_close) int fd = fixture_fd(blob.ptr, blob.len);
	kn_auto(kn_close) int root = open(fixture_path("root"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct kn_layer_config config = { .fd = fd,
		                          .bytes = blob.len,
		                          .diff_id = diff_id,
		                          .limits = &limits,
		                          .progress = progress };

	assert_true(root >= 0);
	return kn_layer_apply(root, &config, &stats, err);
}

static int apply_entries(const struct tar_entry *entries, size_t n, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;

	for (size_t i = 0; i < n; i++)
		tar_add(&tar, &entries[i]);
	tar_end(&tar);
	assert_false(tar.failed);
	return apply_bytes(kn_buf_view(&tar), NULL, NULL, err);
}

#define apply(err, ...)                                                                            \
	({                                                                                         \
		const struct tar_entry kn_entries[] = { __VA_ARGS__ };                             \
		apply_entries(kn_entries, KN_ARRAY_LEN(kn_entries), (err));                        \
	})

#define FILE_(path, text)      { .name = (path), .data = (text), .len = sizeof(text) - 1 }
#define DIR_(path)             { .name = (path), .type = '5' }
#define LINK_(path, target)    { .name = (path), .type = '2', .link = (target) }
#define HARD_(path, target)    { .name = (path), .type = '1', .link = (target) }

static bool exists(const char *path)
{
	struct stat st;
	char full[256];

	snprintf(full, sizeof(full), "root/%s", path);
	return lstat(fixture_path(full), &st) == 0;
}

static void assert_content(const char *path, const char *text)
{
	kn_auto(kn_buf_fini) struct kn_buf got = KN_BUF_INIT;
	char full[256];

	snprintf(full, sizeof(full), "root/%s", path);
	if (kn_read_file(AT_FDCWD, fixture_path(full), 1 << 20, &got, NULL) < 0)
		fail_msg("'%s' is missing", path);
	assert_view(kn_buf_view(&got), text);
}

static struct stat stat_of(const char *path)
{
	struct stat st;
	char full[256];

	snprintf(full, sizeof(full), "root/%s", path);
	if (lstat(fixture_path(full), &st) < 0)
		fail_msg("'%s' is missing", path);
	return st;
}

/* ---- ordinary layers ----------------------------------------------------------------------- */

static void entries_become_what_they_say(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(apply(&err, { .name = "./", .type = '5', .mode = 0711, .mtime = 5 },
	                { .name = "./bin/", .type = '5', .mode = 0750, .mtime = 1000 },
	                { .name = "./bin/su", .data = "elf", .len = 3, .mode = 04755, .mtime = 2000 },
	                LINK_("./bin/sh", "su"), HARD_("./bin/su2", "bin/su"),
	                { .name = "./run/pipe", .type = '6', .mode = 0600, .mtime = 9 }),
	          &err);
	assert_content("bin/su", "elf");
	assert_content("bin/sh", "elf");
	struct stat su = stat_of("bin/su"), bin = stat_of("bin"), run = stat_of("run");
	assert_int_equal(su.st_mode & 07777, 04755);
	assert_int_equal(su.st_mtim.tv_sec, 2000);
	assert_int_equal(su.st_nlink, 2);
	assert_int_equal(stat_of("bin/su2").st_ino, su.st_ino);
	assert_int_equal(bin.st_mode & 07777, 0750);
	assert_int_equal(bin.st_mtim.tv_sec, 1000);
	assert_int_equal(run.st_mode & 07777, 0755);      /* never named: made on the way */
	assert_int_equal(run.st_mtim.tv_sec, 0);
	assert_true(S_ISFIFO(stat_of("run/pipe").st_mode));
	assert_int_equal(stat_of(".").st_mode & 07777, 0711);
	assert_int_equal(stat_of(".").st_mtim.tv_sec, 5);
	assert_int_equal(stats.entries, 6);
	assert_int_equal(stats.bytes, 3);
}

static void owners_are_kept(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_ok(apply(&err, { .name = "a", .uid = 1234, .gid = 5678, .mode = 06755 },
	                { .name = "l", .type = '2', .link = "a", .uid = 7, .gid = 8 },
	                { .name = "d", .type = '5', .uid = 9, .gid = 10 }),
	          &err);
	assert_int_equal(stat_of("a").st_uid, 1234);
	assert_int_equal(stat_of("a").st_gid, 5678);
	assert_int_equal(stat_of("a").st_mode & 07777, 06755);
	assert_int_equal(stat_of("l").st_uid, 7);
	assert_int_equal(stat_of("d").st_gid, 10);
	assert_int_equal(stats.skipped_owners, 0);
}

static void later_layers_win(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(apply(&err, DIR_("d"), FILE_("d/a", "old"), FILE_("f", "file"), LINK_("l", "d"),
	                DIR_("e"), FILE_("e/x", "x")),
	          &err);
	assert_ok(apply(&err, { .name = "d", .type = '5', .mode = 0700 }, FILE_("d/a", "new"),
	                DIR_("f"), FILE_("f/in", "in"), DIR_("l"), FILE_("l/own", "own"),
	                FILE_("e", "now a file")),
	          &err);
	assert_content("d/a", "new");
	assert_int_equal(stat_of("d").st_mode & 07777, 0700);
	assert_content("f/in", "in");
	assert_true(S_ISDIR(stat_of("l").st_mode));       /* a folder takes the place of a link */
	assert_false(exists("d/own"));
	assert_content("e", "now a file");
}

/* usr-merge: /lib is a link in the base layer, later layers write through it. */
static void links_inside_the_image_are_followed(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(apply(&err, DIR_("usr"), DIR_("usr/lib"), LINK_("lib", "usr/lib"),
	                LINK_("abs", "/usr/lib")),
	          &err);
	assert_ok(apply(&err, FILE_("lib/a.so", "a"), FILE_("abs/b.so", "b")), &err);
	assert_content("usr/lib/a.so", "a");
	assert_content("usr/lib/b.so", "b");
}

static void times_of_touched_folders_come_back(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(apply(&err, { .name = "etc", .type = '5', .mtime = 77 }, FILE_("etc/a", "1"),
	                { .name = "etc/sub", .type = '5', .mtime = 88 }, FILE_("etc/sub/b", "2")),
	          &err);
	assert_ok(apply(&err, FILE_("etc/sub/c", "3"), FILE_("etc/.wh.a", "")), &err);
	assert_false(exists("etc/a"));
	assert_int_equal(stat_of("etc").st_mtim.tv_sec, 77);
	assert_int_equal(stat_of("etc/sub").st_mtim.tv_sec, 88);
}

static void whiteouts_hide_lower_layers(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(apply(&err, FILE_("a", "a"), DIR_("d"), FILE_("d/x", "x"), DIR_("d/sub"),
	                FILE_("d/sub/y", "y"), FILE_("keep", "k"), DIR_("o"), FILE_("o/low", "l"),
	                LINK_("ln", "keep")),
	          &err);
	assert_ok(apply(&err, FILE_(".wh.a", ""), FILE_(".wh.d", ""), FILE_(".wh.ln", ""),
	                FILE_(".wh.never-there", ""), FILE_("o/new", "n"),
	                FILE_("o/.wh..wh..opq", ""), FILE_(".wh..wh.plnk", "")),
	          &err);
	assert_false(exists("a"));
	assert_false(exists("d"));
	assert_false(exists("ln"));
	assert_content("keep", "k");
	assert_false(exists("o/low"));
	assert_content("o/new", "n");
	assert_false(exists(".wh..wh.plnk"));
	assert_int_equal(stats.whiteouts, 6);
}

/* The order inside a layer says nothing: what the layer itself brings is never hidden by it. */
static void whiteouts_spare_their_own_layer(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(apply(&err, DIR_("d"), FILE_("d/old", "o"), DIR_("d/sub"), FILE_("d/sub/old", "o"),
	                FILE_("f", "old")),
	          &err);
	assert_ok(apply(&err, FILE_("d/sub/new", "n"), FILE_("f", "new"), FILE_(".wh.d", ""),
	                FILE_(".wh.f", "")),
	          &err);
	assert_content("d/sub/new", "n");
	assert_false(exists("d/old"));
	assert_false(exists("d/sub/old"));
	assert_content("f", "new");
}

static void sparse_and_attributed_files_are_taken(void **state)
{
	/* As bsdtar writes it: a pax header with an attribute that is kept and one that is not. */
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	static const char pax[] = "32 SCHILY.xattr.user.color=blue\n"
				  "34 SCHILY.xattr.trusted.evil=true\n"
				  "18 path=n\xc3\xa4me.txt\n";

	(void)state;
	tar_add(&tar, &(struct tar_entry){ .name = "pax", .type = 'x', .data = pax,
	                                   .len = sizeof(pax) - 1 });
	tar_add(&tar, &(struct tar_entry)FILE_("short", "hi"));
	tar_end(&tar);
	assert_ok(apply_bytes(kn_buf_view(&tar), NULL, NULL, &err), &err);
	assert_content("n\xc3\xa4me.txt", "hi");
	char value[16];
	ssize_t n = getxattr(fixture_path("root/n\xc3\xa4me.txt"), "user.color", value, sizeof(value));
	if (n < 0)
		assert_int_equal(stats.skipped_xattrs, 2);    /* this file system has none */
	else
		assert_memory_equal(value, "blue", 4);
	assert_true(getxattr(fixture_path("root/n\xc3\xa4me.txt"), "trusted.evil", value,
	                     sizeof(value)) < 0);
	assert_true(stats.skipped_xattrs >= 1);
}

static void devices_are_left_out_and_counted(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_ok(apply(&err, DIR_("dev"), { .name = "dev/null", .type = '3' },
	                { .name = "dev/sda", .type = '4' }, FILE_("after", "a")),
	          &err);
	assert_false(exists("dev/null"));
	assert_false(exists("dev/sda"));
	assert_content("after", "a");
	assert_int_equal(stats.skipped_devices, 2);
}

/* ---- hostile layers: refused --------------------------------------------------------------- */

static void hostile_entries_are_refused(void **state)
{
	static const struct {
		struct tar_entry at[3];
		int code;
		const char *says;
	} cases[] = {
		{ { FILE_("../outside/secret", "x") }, EBADMSG, "climbs out" },
		{ { FILE_("a/../../outside/secret", "x") }, EBADMSG, "climbs out" },
		{ { FILE_("..", "x") }, EBADMSG, "climbs out" },
		{ { HARD_("h", "../outside/secret") }, EBADMSG, "climbs out" },
		{ { HARD_("h", "/etc/passwd") }, EBADMSG, "not in the image" },
		{ { HARD_("h", "missing") }, EBADMSG, "not in the image" },
		{ { DIR_("d"), HARD_("h", "d") }, EBADMSG, "hard link to the folder" },
		{ { HARD_("h", "/") }, EBADMSG, "hard link to '/'" },
		{ { LINK_("l", "../outside"), HARD_("h", "l/secret") }, EBADMSG, "not in the image" },
		{ { LINK_("l", "/proc/self/root/etc"), HARD_("h", "l/passwd") }, EBADMSG,
		  "not in the image" },
		{ { LINK_("l", "l"), FILE_("l/x", "x") }, EBADMSG, "symbolic links" },
		{ { LINK_("l", "gone"), FILE_("l/x", "x") }, EBADMSG, "make folder 'l'" },
		{ { FILE_("f", "x"), FILE_("f/y", "y") }, EBADMSG, "Not a directory" },
		{ { FILE_(".wh.", "") }, EBADMSG, "hides no name" },
		{ { FILE_(".wh..", "") }, EBADMSG, "hides no name" },
		{ { DIR_("d"), FILE_("d/.wh...", "") }, EBADMSG, "hides no name" },
		{ { { .name = "l", .type = '2', .link = "" } }, EBADMSG, "leads nowhere" },
		{ { FILE_(".", "x") }, EBADMSG, "root must be a folder" },
		{ { { .name = "big", .size = "77777777777\0" } }, EBADMSG, "cut short" },
		{ { { .name = "big", .size = "\x80\0\0\0\x7f\0\0\0\0\0\0\0" } }, EFBIG, "past" },
		{ { { .name = "neg", .size = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0" } },
		  EBADMSG, "" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		size_t n = cases[i].at[1].name ? cases[i].at[2].name ? 3 : 2 : 1;
		assert_int_equal(teardown(state), 0);
		assert_int_equal(setup(state), 0);
		int r = apply_entries(cases[i].at, n, &err);
		if (r != -cases[i].code || err.code != cases[i].code ||
		    !strstr(err.text, cases[i].says))
			fail_msg("case %zu (%s): %d, '%s', expected %d and '%s'", i,
			         cases[i].at[0].name, r, err.text, -cases[i].code, cases[i].says);
	}
}

/* ---- hostile layers: contained ------------------------------------------------------------- */

static void absolute_names_land_inside(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	char path[256];

	(void)state;
	snprintf(path, sizeof(path), "%s/outside/secret", fixture_dir);
	assert_ok(apply(&err, FILE_(path, "changed"), FILE_("//etc///passwd", "x")), &err);
	assert_content(path + 1, "changed");
	assert_content("etc/passwd", "x");
}

static void symlinked_ancestors_end_inside(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	char absolute[256];

	(void)state;
	snprintf(absolute, sizeof(absolute), "%s/outside", fixture_dir);
	/* In the image's root that path is made first, so that the links have somewhere to lead. */
	assert_ok(apply(&err, DIR_(absolute), DIR_("outside"), LINK_("up", "../../../../outside"),
	                LINK_("abs", absolute), FILE_("up/secret", "up"), FILE_("abs/secret", "abs"),
	                LINK_("root", "/"), FILE_("root/root/root/top", "top")),
	          &err);
	assert_content("outside/secret", "up");
	assert_content(fixture_path("outside/secret") + 1, "abs");
	assert_content("top", "top");
}

static void proc_links_lead_nowhere(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_fails(apply(&err, LINK_("p", "/proc/self/cwd"), FILE_("p/x", "x")), EBADMSG, &err, "'p");
	assert_false(exists("proc"));
}

static void last_component_is_never_followed(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	char secret[256];

	(void)state;
	snprintf(secret, sizeof(secret), "%s/outside/secret", fixture_dir);
	/* File, mode, owner and time of what a link leads to: all must hit the link's place. */
	assert_ok(apply(&err, LINK_("l", secret), { .name = "l", .data = "new", .len = 3, .mode = 0777,
	                                           .uid = 1, .mtime = 3 },
	                LINK_("m", secret), { .name = "m", .type = '6', .mode = 0777 },
	                LINK_("n", secret), { .name = "n", .type = '5', .mode = 0777 },
	                LINK_("h", secret), HARD_("h2", "h")),
	          &err);
	assert_content("l", "new");
	assert_true(S_ISFIFO(stat_of("m").st_mode));
	assert_true(S_ISDIR(stat_of("n").st_mode));
	assert_true(S_ISLNK(stat_of("h2").st_mode));      /* the link itself, not its target */
}

static void whiteouts_through_links_stay_inside(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	char outside[256];

	(void)state;
	snprintf(outside, sizeof(outside), "%s/outside", fixture_dir);
	assert_ok(apply(&err, LINK_("l", outside), LINK_("m", "../outside"), DIR_("outside"),
	                FILE_("outside/secret", "inner"), LINK_("s", outside)),
	          &err);
	assert_ok(apply(&err, FILE_("m/.wh.secret", ""), FILE_(".wh.s", "")), &err);
	assert_false(exists("outside/secret"));
	assert_false(exists("s"));
	assert_fails(apply(&err, FILE_("l/.wh.secret", "")), EBADMSG, &err, "'l");
	assert_fails(apply(&err, FILE_("l/.wh..wh..opq", "")), EBADMSG, &err, "'l");
}

static void duplicates_and_swaps_stay_inside(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	char outside[256];

	(void)state;
	snprintf(outside, sizeof(outside), "%s/outside", fixture_dir);
	/* A folder is used, then swapped for a link outwards, then used again under its old name. */
	assert_ok(apply(&err, DIR_("d"), FILE_("d/a", "1"), FILE_("d/a", "2"), DIR_("d/sub"),
	                FILE_("d/sub/x", "x")),
	          &err);
	assert_fails(apply(&err, FILE_("d/sub/y", "y"), LINK_("d", outside), FILE_("d/sub/secret", "z")),
	             EBADMSG, &err, "'d");
	assert_true(S_ISLNK(stat_of("d").st_mode));
}

static void links_cannot_build_endless_depth(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	/* Each round goes ten folders deeper through the link of the round before. */
	for (int i = 0; i < 40; i++) {
		char link[32], target[80], folder[80];
		snprintf(folder, sizeof(folder), "%s%.0d/1/2/3/4/5/6/7/8/9", i ? "l" : "start", i);
		tar_add(&tar, &(struct tar_entry)DIR_(folder));
		snprintf(link, sizeof(link), "l%d", i + 1);
		snprintf(target, sizeof(target), "%s", folder);
		tar_add(&tar, &(struct tar_entry)LINK_(link, target));
	}
	tar_end(&tar);
	assert_fails(apply_bytes(kn_buf_view(&tar), NULL, NULL, &err), EFBIG, &err, "too deep");
}

/* ---- limits -------------------------------------------------------------------------------- */

static void names_and_depths_have_limits(void **state)
{
	char name[300], deep[600] = "", path[2400] = "";
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	memset(name, 'n', 256);
	name[256] = '\0';
	assert_fails(apply(&err, FILE_(name, "x")), EFBIG, &err, "too long");
	for (int i = 0; i < 110; i++)
		strncat(deep, "d/", sizeof(deep) - strlen(deep) - 1);
	assert_fails(apply(&err, DIR_(deep)), EFBIG, &err, "more than 100 folders deep");
	name[200] = '/';
	name[201] = '\0';
	for (int i = 0; i < 11; i++)
		strncat(path, name, sizeof(path) - strlen(path) - 1);
	assert_fails(apply(&err, DIR_(path)), EFBIG, &err, "too long");
}

static void bytes_and_entries_have_limits(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	limits.max_bytes = 10;
	assert_ok(apply(&err, FILE_("a", "123456")), &err);
	assert_fails(apply(&err, FILE_("b", "123456")), EFBIG, &err, "past 10");
	limits = KN_LAYER_LIMITS;
	limits.max_entries = stats.entries + 2;
	assert_fails(apply(&err, FILE_("c", ""), FILE_("d", ""), FILE_("e", "")), EFBIG, &err,
	             "entries");
	limits = KN_LAYER_LIMITS;
	limits.max_stream = 1000;
	assert_fails(apply(&err, FILE_("f", "")), EFBIG, &err, "more than 1000 bytes");
}

/* A gzip stream of zeros: 1000 to 1, as dense as deflate gets. */
static void gzip_zeros(struct kn_buf *out, size_t bytes)
{
	static const char zeros[64 * 1024];
	z_stream z = { 0 };

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_true(kn_buf_reserve(out, bytes / 500 + 4096));
	z.next_out = (unsigned char *)out->ptr;
	z.avail_out = (unsigned)(bytes / 500 + 4096);
	kn_auto(kn_buf_fini) struct kn_buf head = KN_BUF_INIT;
	char size[12];
	snprintf(size, sizeof(size), "%011zo", bytes);
	tar_header(&head, &(struct tar_entry){ .name = "zeros", .size = size });
	z.next_in = (unsigned char *)head.ptr;
	z.avail_in = (unsigned)head.len;
	assert_int_equal(deflate(&z, Z_NO_FLUSH), Z_OK);
	for (size_t done = 0; done < bytes; done += sizeof(zeros)) {
		z.next_in = (unsigned char *)(uintptr_t)zeros;
		z.avail_in = sizeof(zeros);
		assert_int_equal(deflate(&z, Z_NO_FLUSH), Z_OK);
	}
	z.avail_in = 0;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	out->len = z.total_out;
	deflateEnd(&z);
}

static void compression_bombs_are_stopped(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf bomb = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	limits.ratio_from = 1 << 20;
	gzip_zeros(&bomb, 8 << 20);
	assert_fails(apply_bytes(kn_buf_view(&bomb), NULL, NULL, &err), EFBIG, &err,
	             "decompression bomb");
	assert_true(stat_of("zeros").st_size <= 2 << 20);
	/* The same stream is fine below the threshold: zeros alone are no crime. */
	limits.ratio_from = 16 << 20;
	assert_ok(apply_bytes(kn_buf_view(&bomb), NULL, NULL, &err), &err);
	assert_int_equal(stat_of("zeros").st_size, 8 << 20);
}

/* Zeros behind the end of the tar are read for the DiffID: they count too. */
static void bomb_behind_the_end_is_stopped(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf bomb = KN_BUF_INIT, tar = KN_BUF_INIT, gz = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	tar_end(&tar);
	gzip_zeros(&bomb, 8 << 20);
	z_stream z = { 0 };
	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_true(kn_buf_reserve(&gz, 4096));
	z.next_in = (unsigned char *)tar.ptr;
	z.avail_in = (unsigned)tar.len;
	z.next_out = (unsigned char *)gz.ptr;
	z.avail_out = 4096;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	gz.len = z.total_out;
	deflateEnd(&z);
	kn_buf_add(&gz, bomb.ptr, bomb.len);              /* a second gzip member */
	limits.ratio_from = 1 << 20;
	assert_fails(apply_bytes(kn_buf_view(&gz), NULL, NULL, &err), EFBIG, &err, "bomb");
}

/* ---- damaged streams ----------------------------------------------------------------------- */

static void diff_id_is_checked(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest right, wrong, long_one;

	(void)state;
	tar_add(&tar, &(struct tar_entry)FILE_("a", "a"));
	tar_end(&tar);
	assert_ok(kn_digest_of(KN_SHA256, tar.ptr, tar.len, &right, &err), &err);
	assert_ok(kn_digest_of(KN_SHA512, tar.ptr, tar.len, &long_one, &err), &err);
	assert_ok(kn_digest_of(KN_SHA256, tar.ptr, 10, &wrong, &err), &err);
	assert_ok(apply_bytes(kn_buf_view(&tar), &right, NULL, &err), &err);
	assert_ok(apply_bytes(kn_buf_view(&tar), &long_one, NULL, &err), &err);
	assert_fails(apply_bytes(kn_buf_view(&tar), &wrong, NULL, &err), EBADMSG, &err, "DiffID");
}

static void what_is_no_tar_is_refused(void **state)
{
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	assert_fails(apply_bytes(KN_VIEW("this is not a tar stream, not at all"), NULL, NULL, &err),
	             EBADMSG, &err, "not a whole tar stream");
	assert_fails(apply_bytes(KN_VIEW("\x1f\x8b\x08\0\0\0\0\0\0\x03garbage"), NULL, NULL, &err),
	             EBADMSG, &err, "");
	assert_ok(apply_bytes(KN_VIEW(""), NULL, NULL, &err), &err);
}

static void truncated_files_are_refused(void **state)
{
	static char data[3000];
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;

	(void)state;
	memset(data, 'd', sizeof(data));
	tar_add(&tar, &(struct tar_entry){ .name = "f", .data = data, .len = sizeof(data) });
	tar_end(&tar);
	for (size_t len = 1; len < 512 + sizeof(data); len += 111) {
		struct kn_err err = KN_ERR_INIT;
		assert_fails(apply_bytes((struct kn_view){ tar.ptr, len }, NULL, NULL, &err),
		             EBADMSG, &err, "");
	}
}

static bool go_on_twice(const char *phase, uint64_t bytes, uint64_t total, void *arg)
{
	assert_string_equal(phase, "unpack");
	assert_true(bytes <= total);
	return ++*(int *)arg <= 2;
}

static void unpacking_can_be_cancelled(void **state)
{
	static char data[1 << 20];
	kn_auto(kn_buf_fini) struct kn_buf tar = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	int asked = 0;
	struct kn_progress progress = { go_on_twice, &asked };

	(void)state;
	tar_add(&tar, &(struct tar_entry){ .name = "f", .data = data, .len = sizeof(data) });
	tar_end(&tar);
	assert_fails(apply_bytes(kn_buf_view(&tar), NULL, &progress, &err), ECANCELED, &err,
	             "cancelled");
	assert_int_equal(asked, 3);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(entries_become_what_they_say),
		test(owners_are_kept),
		test(later_layers_win),
		test(links_inside_the_image_are_followed),
		test(times_of_touched_folders_come_back),
		test(whiteouts_hide_lower_layers),
		test(whiteouts_spare_their_own_layer),
		test(sparse_and_attributed_files_are_taken),
		test(devices_are_left_out_and_counted),
		test(hostile_entries_are_refused),
		test(absolute_names_land_inside),
		test(symlinked_ancestors_end_inside),
		test(proc_links_lead_nowhere),
		test(last_component_is_never_followed),
		test(whiteouts_through_links_stay_inside),
		test(duplicates_and_swaps_stay_inside),
		test(links_cannot_build_endless_depth),
		test(names_and_depths_have_limits),
		test(bytes_and_entries_have_limits),
		test(compression_bombs_are_stopped),
		test(bomb_behind_the_end_is_stopped),
		test(diff_id_is_checked),
		test(what_is_no_tar_is_refused),
		test(truncated_files_are_refused),
		test(unpacking_can_be_cancelled),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
