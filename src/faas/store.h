/*
 * What the node remembers across restarts and power cuts: functions, clients, settings,
 * secrets; each a name and a text, in SQLite. Changes are acknowledged after they are on the disk, and many share
 * one sync (group commit in a thread of the store), so the loop never waits for a disk. Written by
 * control and auth, read at start. Serves the event flow.
 *
 * A store that could not sync once takes no more changes until it is opened again: nobody knows
 * what the disk holds then. A full disk is an ordinary error; the store works on when there is room.
 *
 * Thread  the loop's
 */
#pragma once

#include "base/loop.h"
#include "base/str.h"

struct kn_store;

enum kn_table { KN_TABLE_FUNCTION, KN_TABLE_CLIENT, KN_TABLE_SETTING, KN_TABLE_SECRET,
                KN_TABLE_CALL };

enum {
	KN_STORE_MAX_NAME = 255,          /* bytes */
	KN_STORE_MAX_VALUE = 1024 * 1024, /* bytes */
	KN_STORE_MAX_WAITING = 4096,      /* changes not yet on the disk */
};

struct kn_store_config {
	int dir;                /* folder that holds kiln.db; borrowed until kn_store_open() returns */
	const char *dir_name;   /* its path, for messages and for SQLite; borrowed likewise */
	struct kn_loop *loop;
};

/**
 * Open DIR/kiln.db (mode 0600), making it when it is missing and bringing an older one up to date.
 *
 * Errors  EBUSY another process has it open; EUCLEAN damaged, or no Kiln database; EPROTO written
 *         by a newer Kiln; ENOSPC; what open said
 */
kn_must_use int kn_store_open(const struct kn_store_config *config, struct kn_store **ret,
                              struct kn_err *err);

/** Write what was submitted, call every `done` that is due, close. NULL is fine. */
void kn_store_close(struct kn_store *s);
KN_AUTO(kn_store_close, struct kn_store *);

/** err is NULL when the change is durable; else nothing of it happened (ENOSPC, EIO ...). */
typedef void (*kn_store_done)(const struct kn_err *err, void *arg);

/**
 * Put a value under a name, or replace it. Both are copied. `done` runs later in the loop's thread;
 * changes become durable, and are answered, in the order of submission.
 *
 * Errors  EINVAL name or value too long; EAGAIN too many changes wait; ENOMEM; EIO the store has
 *         failed before: open it again
 */
kn_must_use int kn_store_put(struct kn_store *s, enum kn_table table, struct kn_view name,
                             struct kn_view value, kn_store_done done, void *arg,
                             struct kn_err *err);

/** Remove a name; a missing one is fine. Otherwise like kn_store_put(). */
kn_must_use int kn_store_delete(struct kn_store *s, enum kn_table table, struct kn_view name,
                                kn_store_done done, void *arg, struct kn_err *err);

/**
 * Wait until everything submitted so far is durable and answered. For start-up and tests.
 * Returns the first failure among what it waited for.
 */
kn_must_use int kn_store_sync(struct kn_store *s, struct kn_err *err);

/** One row; name and value are valid during the call. Less than 0 stops and is handed up. */
typedef int (*kn_store_row)(struct kn_view name, struct kn_view value, void *arg,
                            struct kn_err *err);

/** Every durable row of a table by name. Waits for a running commit: for start-up only. */
kn_must_use int kn_store_each(struct kn_store *s, enum kn_table table, kn_store_row row, void *arg,
                              struct kn_err *err);

/** One durable value appended to ret. Waits likewise. Errors: ENOENT; EIO, EUCLEAN */
kn_must_use int kn_store_get(struct kn_store *s, enum kn_table table, struct kn_view name,
                             struct kn_buf *ret, struct kn_err *err);
