/*
 * What the tests of images share: a temporary folder, and tar archives written byte by byte, so
 * that they can say what no honest tool would write.
 */
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "test.h"

static char fixture_dir[64];

/* cmocka set-up and tear-down: every test has an empty folder of its own. */
static inline int fixture_setup(void **state)
{
	(void)state;
	snprintf(fixture_dir, sizeof(fixture_dir), "/tmp/kiln-test-XXXXXX");
	return mkdtemp(fixture_dir) ? 0 : -1;
}

static inline int fixture_teardown(void **state)
{
	(void)state;
	return kn_remove_tree(AT_FDCWD, fixture_dir, NULL);
}

/* "<folder>/name"; the last few calls' results stay valid. */
static inline const char *fixture_path(const char *name)
{
	static char paths[8][512];
	static unsigned next;
	char *p = paths[next++ % 8];

	snprintf(p, sizeof(paths[0]), "%s/%s", fixture_dir, name);
	return p;
}

static inline void fixture_write(const char *name, const void *ptr, size_t len)
{
	struct kn_err err = KN_ERR_INIT;

	assert_ok(kn_write_file(AT_FDCWD, fixture_path(name), ptr, len, 0600, &err), &err);
}

/* A descriptor at the start of a file in memory that holds these bytes. */
static inline int fixture_fd(const void *ptr, size_t len)
{
	int fd = memfd_create("fixture", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(kn_write_all(fd, ptr, len), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

/* How many entries a folder has, "." and ".." aside; -1 when there is none. */
static inline int fixture_count(const char *path)
{
	char command[640];
	int n = -1;

	snprintf(command, sizeof(command), "ls -A '%s' 2>/dev/null | wc -l", path);
	FILE *f = popen(command, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &n), 1);
	pclose(f);
	return n;
}

/* ---- tar ----------------------------------------------------------------------------------- */

struct tar_entry {
	const char *name;
	char type;              /* '0' file, '1' hard link, '2' link, '3' '4' device, '5' folder, '6' fifo */
	const char *link;
	const void *data;
	size_t len;
	unsigned mode;          /* 0: 0644, or 0755 for folders */
	unsigned uid, gid;
	unsigned long long mtime;
	const char *size;       /* the size field as it stands, instead of len */
};

static inline void tar_octal(char *field, size_t width, unsigned long long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%0*llo", (int)width - 1, value);
	memcpy(field, text, width - 1);
}

static inline void tar_checksum(char *block)
{
	unsigned sum = 0;
	char text[16];

	memset(block + 148, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += (unsigned char)block[i];
	snprintf(text, sizeof(text), "%06o", sum);
	memcpy(block + 148, text, 7);
}

static inline void tar_pad(struct kn_buf *b)
{
	static const char zero[512];

	kn_buf_add(b, zero, (512 - b->len % 512) % 512);
}

static inline void tar_header(struct kn_buf *b, const struct tar_entry *e)
{
	char block[512] = { 0 };
	unsigned mode = e->mode ? e->mode : e->type == '5' ? 0755 : 0644;

	memcpy(block, e->name, kn_min(strlen(e->name), (size_t)100));
	tar_octal(block + 100, 8, mode);
	tar_octal(block + 108, 8, e->uid);
	tar_octal(block + 116, 8, e->gid);
	tar_octal(block + 124, 12, e->len);
	if (e->size)
		memcpy(block + 124, e->size, 12);
	tar_octal(block + 136, 12, e->mtime);
	block[156] = e->type ? e->type : '0';
	if (e->link)
		memcpy(block + 157, e->link, kn_min(strlen(e->link), (size_t)100));
	memcpy(block + 257, "ustar\0" "00", 8);
	tar_checksum(block);
	kn_buf_add(b, block, sizeof(block));
}

/* GNU's way to say what does not fit: an entry 'L' (name) or 'K' (link) before the real one. */
static inline void tar_long(struct kn_buf *b, char type, const char *text)
{
	struct tar_entry e = { .name = "././@LongLink", .type = type, .len = strlen(text) + 1 };

	tar_header(b, &e);
	kn_buf_add(b, text, strlen(text) + 1);
	tar_pad(b);
}

static inline void tar_add(struct kn_buf *b, const struct tar_entry *e)
{
	if (strlen(e->name) > 100)
		tar_long(b, 'L', e->name);
	if (e->link && strlen(e->link) > 100)
		tar_long(b, 'K', e->link);
	tar_header(b, e);
	if (e->data)
		kn_buf_add(b, e->data, e->len);
	tar_pad(b);
}

static inline void tar_end(struct kn_buf *b)
{
	static const char zero[1024];

	kn_buf_add(b, zero, sizeof(zero));
}
