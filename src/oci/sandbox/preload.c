/*
 * Loaded into a QEMU whose guest's memory comes from a file: opens "/kiln/fd/7" as a copy of
 * descriptor 7.
 *
 * QEMU 7.2 opens the file of a memory backend for reading and writing even when it maps it privately,
 * and by its name. The file of a snapshot is shared by all who start from it: a QEMU that was taken
 * over must not be able to write to it, nor see the folder that it lies in. A descriptor that was
 * opened for reading serves a private mapping just as well. (QEMU 8.2 falls back to opening for
 * reading, but still by name.)
 */
#undef _FILE_OFFSET_BITS   /* both names of the call are wanted, not one renamed */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>

static const char PREFIX[] = "/kiln/fd/";

typedef int (*open_fn)(const char *path, int flags, ...);

/* The number after the prefix; -1: another path. */
static int descriptor_of(const char *path)
{
	int fd = 0;
	size_t i;

	for (i = 0; i < sizeof(PREFIX) - 1; i++)
		if (path[i] != PREFIX[i])
			return -1;
	if (path[i] == '\0')
		return -1;
	for (; path[i] >= '0' && path[i] <= '9' && fd < 1000; i++)
		fd = fd * 10 + path[i] - '0';
	return path[i] == '\0' ? fd : -1;
}

static int open_as(const char *name, const char *path, int flags, mode_t mode)
{
	int fd = descriptor_of(path);

	if (fd >= 0)
		return fcntl(fd, F_DUPFD_CLOEXEC, 0);
	open_fn next = (open_fn)dlsym(RTLD_NEXT, name);
	if (!next) {
		errno = ENOSYS;
		return -1;
	}
	return next(path, flags, mode);
}

static mode_t mode_of(int flags, va_list list)
{
	return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(list, unsigned) : 0;
}

int open(const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	mode_t mode = mode_of(flags, list);
	va_end(list);
	return open_as("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list list;

	va_start(list, flags);
	mode_t mode = mode_of(flags, list);
	va_end(list);
	return open_as("open64", path, flags, mode);
}
