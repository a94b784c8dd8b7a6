/* Private to oci/snapshot: the store, and what drafts need of it. */
#pragma once

#include "base/work.h"
#include "oci/snapshot/snapshot.h"

struct entry {
	struct kn_snapshots *store;
	struct entry *next, **prev;      /* prev NULL: removed while it is checked */
	char key[KN_SNAPSHOT_KEY + 1];
	struct kn_snapshot_manifest manifest;
	uint64_t disk_bytes, used_ns;    /* used_ns: wall time, it is compared across restarts */
	bool checked;                    /* its digests are right */
	bool checking;                   /* a job of the worker */
	struct kn_job check;
	struct kn_err result;            /* of the check */
};

struct kn_snapshots {
	int dir;
	struct kn_work *work;
	uint64_t max_bytes, bytes;
	struct kn_snapshot_fact facts[KN_SNAPSHOT_FACTS];
	size_t n_facts;
	struct entry *entries;
	struct kn_draft *drafts;
	unsigned serial;                 /* of drafts */
	bool closing;
};

/** Blocks of a snapshot's files; err is told when one is missing. */
uint64_t store_disk_bytes(int dir, struct kn_err *err);

/** Take DIR/key into the table, as its manifest says; NULL with err told. */
struct entry *store_add(struct kn_snapshots *s, const char *key, struct kn_err *err);

/** Keep to max_bytes; `keep` stays. */
void store_bound(struct kn_snapshots *s, const char *keep);

void store_check_next(struct kn_snapshots *s);

/** A file of a snapshot, read-only, if it is the one that the manifest tells of. */
int store_open_file(const struct kn_snapshots *s, const char *key, const char *name,
                    const struct kn_snapshot_file *expect, struct kn_err *err);
