/*
 * A disk that fails when a test says so: an SQLite VFS that passes everything on to the real one and
 * fails the write or sync that the test names, so that failures can come at every place in turn.
 * install_faulty_vfs() before the first store is opened.
 */
#pragma once

#include <sqlite3.h>

enum fault_kind { FAULT_NONE, FAULT_WRITE, FAULT_SYNC };

static struct {
	enum fault_kind kind;
	int code;             /* what SQLite is told */
	long after;           /* so many calls of that kind still work */
	long calls;
	bool lasting;         /* fails from then on; else once */
} fault;

struct faulty_file {
	sqlite3_file base;
	sqlite3_file *real;   /* behind this struct */
};

static sqlite3_vfs *real_vfs;

static int maybe_fail(enum fault_kind kind)
{
	if (fault.kind != kind)
		return SQLITE_OK;
	long call = fault.calls++;
	return call == fault.after || (fault.lasting && call > fault.after) ? fault.code : SQLITE_OK;
}

#define REAL(f) (((struct faulty_file *)(void *)(f))->real)

static int f_close(sqlite3_file *f)
{
	return REAL(f)->pMethods ? REAL(f)->pMethods->xClose(REAL(f)) : SQLITE_OK;
}
static int f_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
	return REAL(f)->pMethods->xRead(REAL(f), p, n, at);
}
static int f_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
	int code = maybe_fail(FAULT_WRITE);
	return code ? code : REAL(f)->pMethods->xWrite(REAL(f), p, n, at);
}
static int f_truncate(sqlite3_file *f, sqlite3_int64 n)
{
	return REAL(f)->pMethods->xTruncate(REAL(f), n);
}
static int f_sync(sqlite3_file *f, int flags)
{
	int code = maybe_fail(FAULT_SYNC);
	return code ? code : REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int f_size(sqlite3_file *f, sqlite3_int64 *n)
{
	return REAL(f)->pMethods->xFileSize(REAL(f), n);
}
static int f_lock(sqlite3_file *f, int level)
{
	return REAL(f)->pMethods->xLock(REAL(f), level);
}
static int f_unlock(sqlite3_file *f, int level)
{
	return REAL(f)->pMethods->xUnlock(REAL(f), level);
}
static int f_check_lock(sqlite3_file *f, int *ret)
{
	return REAL(f)->pMethods->xCheckReservedLock(REAL(f), ret);
}
static int f_control(sqlite3_file *f, int op, void *arg)
{
	return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}
static int f_sector(sqlite3_file *f)
{
	return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int f_device(sqlite3_file *f)
{
	return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}

static int f_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
	/* Version 1: no shared memory, which a store that locks exclusively must not need. */
	static const sqlite3_io_methods methods = {
		1,         f_close,  f_read,       f_write,   f_truncate, f_sync,   f_size,
		f_lock,    f_unlock, f_check_lock, f_control, f_sector,   f_device,
	};
	struct faulty_file *ff = (struct faulty_file *)(void *)f;

	(void)vfs;
	ff->real = (sqlite3_file *)(void *)(ff + 1);
	int code = real_vfs->xOpen(real_vfs, name, ff->real, flags, ret_flags);
	ff->base.pMethods = code == SQLITE_OK ? &methods : NULL;
	return code;
}

static void install_faulty_vfs(void)
{
	static sqlite3_vfs vfs;

	real_vfs = sqlite3_vfs_find(NULL);
	vfs = *real_vfs;
	vfs.zName = "faulty";
	vfs.szOsFile = (int)sizeof(struct faulty_file) + real_vfs->szOsFile;
	vfs.xOpen = f_open;
	assert_int_equal(sqlite3_vfs_register(&vfs, 1), SQLITE_OK);
}
