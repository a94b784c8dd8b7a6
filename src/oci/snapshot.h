/*
 * The snapshots of a node: saved guests, each a file with the guest's memory and one with the state of
 * its devices, from which instances start in place of booting. The store keeps them apart by key,
 * checks them, bounds their space and removes what is stale. The driver `qemu` fills it and starts
 * from it. Serves the event flow.
 *
 *     DIR/<key>/manifest.json   what it was made with, sizes and digests
 *     DIR/<key>/memory          mapped privately by every instance that starts from it
 *     DIR/<key>/state
 *     DIR/new-<n>/              a draft: being made, removed at the next open
 *
 * A snapshot is a cache: it can be made anew from what it was made of. So whatever is wrong with one
 * (another kernel, agent, QEMU or processor; a file that changed; a digest that does not match) is
 * named in the log, and the snapshot is removed. Nothing starts from one that was not checked: a
 * worker compares the digests of all of them after open, most recently used first, and from then on
 * a file must be the same, unchanged one (inode, size, times) at every start.
 *
 * Thread  the loop's; a worker thread of its own copies and digests
 */
#pragma once

#include "base/loop.h"
#include "base/str.h"

enum { KN_SNAPSHOT_KEY = 64, KN_SNAPSHOT_FACTS = 8 };

/** What made a snapshot and must be the same to start from it: {"kernel", "53243444:17..."}. */
struct kn_snapshot_fact {
	char name[32], value[160];
};

struct kn_snapshot_file {
	uint64_t bytes, inode, mtime_ns, ctime_ns;
	char sha256[65];
};

/** manifest.json. */
struct kn_snapshot_manifest {
	char about[128];             /* for people: "function hello", "template of 128 MiB" */
	struct kn_snapshot_fact facts[KN_SNAPSHOT_FACTS];
	size_t n_facts;
	struct kn_snapshot_file memory, state;
};

/** Errors: EINVAL with what is wrong; ENOMEM. */
kn_must_use int kn_snapshot_manifest_parse(struct kn_view text, struct kn_snapshot_manifest *ret,
                                           struct kn_err *err);
/** The inverse, appended to ret. */
void kn_snapshot_manifest_print(const struct kn_snapshot_manifest *m, struct kn_buf *ret);

struct kn_snapshots_config {
	struct kn_loop *loop;
	const char *dir;             /* made when it is missing; mode 0700 */
	uint64_t max_bytes;          /* of all of them on the disk; the least recently used go first */
	const struct kn_snapshot_fact *facts;   /* of this node; copied */
	size_t n_facts;
};

struct kn_snapshots;

/** Open the store; what is stale or half made is removed. Errors: what the file system said; ENOMEM. */
kn_must_use int kn_snapshots_open(const struct kn_snapshots_config *config,
                                  struct kn_snapshots **ret, struct kn_err *err);

/** Waits for what the worker does; drafts under way are dropped. NULL is fine. */
void kn_snapshots_close(struct kn_snapshots *s);
KN_AUTO(kn_snapshots_close, struct kn_snapshots *);

/** The key of these bytes, which name everything that goes into a start. Errors: ENOMEM. */
kn_must_use int kn_snapshot_key_of(struct kn_view parts, char ret[KN_SNAPSHOT_KEY + 1],
                                   struct kn_err *err);

/** Is there one, checked or not? */
bool kn_snapshots_has(const struct kn_snapshots *s, const char *key);

/** Bytes on the disk, of all. */
uint64_t kn_snapshots_bytes(const struct kn_snapshots *s);

struct kn_snapshot {
	int memory_fd, state_fd;     /* read-only; the caller's */
	uint64_t memory_bytes;
};

/**
 * Open a snapshot to start from it; it counts as used.
 *
 * Errors  ENOENT: there is none; EAGAIN: it is not checked yet; EBADMSG: it was not as it should be,
 *         and is removed
 */
kn_must_use int kn_snapshots_get(struct kn_snapshots *s, const char *key, struct kn_snapshot *ret,
                                 struct kn_err *err);
void kn_snapshot_fini(struct kn_snapshot *snap);

/** Remove one: it could not be started from. why goes into the log. */
void kn_snapshots_spoil(struct kn_snapshots *s, const char *key, const struct kn_err *why);

/* One that is being made. */
struct kn_draft;

struct kn_draft_config {
	const char *key, *about;
	uint64_t memory_bytes;
	const struct kn_snapshot *base;   /* memory to begin with, borrowed until `opened`; NULL: zeros */
	/**
	 * The files are there, their space is reserved; or err: ENOSPC ... and the draft is gone.
	 * Descriptors are the draft's: memory for reading and writing, state for writing.
	 */
	void (*opened)(struct kn_draft *d, int memory_fd, int state_fd, const struct kn_err *err,
	               void *arg);
	void *arg;
};

/** Begin one. Errors: ENOMEM, EAGAIN; opened is not called then. */
kn_must_use int kn_draft_new(struct kn_snapshots *s, const struct kn_draft_config *config,
                             struct kn_draft **ret, struct kn_err *err);

/**
 * Both files are written and nobody writes any more: make it a snapshot. done is told in the loop,
 * when it can be started from, or why not; the draft is gone then.
 */
void kn_draft_keep(struct kn_draft *d, void (*done)(const struct kn_err *err, void *arg), void *arg);

/** Remove it; neither opened nor done is called any more. NULL is fine. */
void kn_draft_drop(struct kn_draft *d);
