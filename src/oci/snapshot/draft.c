/*
 * A snapshot in the making: open (files are made, space is reserved, memory copied), written by
 * somebody else, kept (synced, digested, named). The worker does both ends; the files are its own
 * while it does.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "oci/snapshot/store.h"

struct kn_draft {
	struct kn_snapshots *store;
	struct kn_draft *next, **prev;
	char name[32];                  /* DIR/new-7 */
	char key[KN_SNAPSHOT_KEY + 1];
	struct kn_snapshot_manifest manifest;
	uint64_t memory_bytes;
	int base_fd, dir, memory_fd, state_fd;
	struct kn_job job;
	bool working;                   /* the worker has it */
	bool dropped;                   /* freed when the worker gives it back */
	struct kn_err result;
	void (*opened)(struct kn_draft *d, int memory_fd, int state_fd, const struct kn_err *err,
	               void *arg);
	void *opened_arg;
	void (*done)(const struct kn_err *err, void *arg);
	void *done_arg;
};

static void release(struct kn_draft *d)
{
	*d->prev = d->next;
	if (d->next)
		d->next->prev = d->prev;
	kn_close(d->base_fd);
	kn_close(d->memory_fd);
	kn_close(d->state_fd);
	kn_close(d->dir);
	if (d->name[0])
		(void)!kn_remove_tree(d->store->dir, d->name, NULL);
	free(d);
}

/* ---- opening ------------------------------------------------------------------------------- */

static int make_file(struct kn_draft *d, const char *name, int *ret, struct kn_err *err)
{
	*ret = openat(d->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return *ret < 0 ? kn_fail(err, errno, "make '%s': %s", name, strerror(errno)) : 0;
}

static int make_files(struct kn_draft *d, struct kn_err *err)
{
	if (mkdirat(d->store->dir, d->name, 0700) < 0)
		return kn_fail(err, errno, "make a folder: %s", strerror(errno));
	d->dir = openat(d->store->dir, d->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->dir < 0)
		return kn_fail(err, errno, "open a folder: %s", strerror(errno));
	int r = make_file(d, "state", &d->state_fd, err);
	if (r == 0)
		r = make_file(d, "memory", &d->memory_fd, err);
	if (r == 0)
		r = file_reserve(d->memory_fd, d->memory_bytes, err);
	if (r == 0 && d->base_fd >= 0)
		r = file_copy(d->base_fd, d->memory_fd, d->memory_bytes, err);
	return r;
}

static void run_open(struct kn_job *job)
{
	struct kn_draft *d = kn_container_of(job, struct kn_draft, job);

	(void)!make_files(d, &d->result);
}

static void on_opened(struct kn_job *job, bool cancelled)
{
	struct kn_draft *d = kn_container_of(job, struct kn_draft, job);

	d->working = false;
	if (d->dropped || cancelled) {
		release(d);
		return;
	}
	if (!d->result.code) {
		d->opened(d, d->memory_fd, d->state_fd, NULL, d->opened_arg);
		return;
	}
	kn_while(&d->result, "save a snapshot");
	d->opened(d, -1, -1, &d->result, d->opened_arg);
	release(d);
}

static int submit(struct kn_draft *d, void (*run)(struct kn_job *job),
                  void (*done)(struct kn_job *job, bool cancelled), struct kn_err *err)
{
	d->result = (struct kn_err)KN_ERR_INIT;
	d->job = (struct kn_job){ .run = run, .done = done };
	int r = kn_work_submit(d->store->work, &d->job, err);
	d->working = r == 0;
	return r;
}

int kn_draft_new(struct kn_snapshots *s, const struct kn_draft_config *config,
                 struct kn_draft **ret, struct kn_err *err)
{
	struct kn_draft *d = calloc(1, sizeof(*d));

	if (!d)
		return kn_fail(err, ENOMEM, "memory for a snapshot");
	d->store = s;
	d->base_fd = d->dir = d->memory_fd = d->state_fd = -1;
	d->memory_bytes = config->memory_bytes;
	d->opened = config->opened;
	d->opened_arg = config->arg;
	snprintf(d->name, sizeof(d->name), "new-%u", ++s->serial);
	snprintf(d->key, sizeof(d->key), "%s", config->key);
	snprintf(d->manifest.about, sizeof(d->manifest.about), "%s", config->about);
	memcpy(d->manifest.facts, s->facts, sizeof(s->facts));
	d->manifest.n_facts = s->n_facts;
	d->next = s->drafts;
	d->prev = &s->drafts;
	if (d->next)
		d->next->prev = &d->next;
	s->drafts = d;
	int r = 0;
	if (config->base) {
		d->base_fd = fcntl(config->base->memory_fd, F_DUPFD_CLOEXEC, 3);
		if (d->base_fd < 0)
			r = kn_fail(err, errno, "dup: %s", strerror(errno));
	}
	if (r == 0)
		r = submit(d, run_open, on_opened, err);
	if (r < 0) {
		release(d);
		return r;
	}
	*ret = d;
	return 0;
}

/* ---- keeping ------------------------------------------------------------------------------- */

static int seal(int fd, bool punch, struct kn_snapshot_file *ret, struct kn_err *err)
{
	int r = file_digest(fd, punch, ret->sha256, err);

	if (r == 0 && fsync(fd) < 0)
		r = kn_fail(err, errno, "sync: %s", strerror(errno));
	return r < 0 ? r : file_identity(fd, ret, err);
}

static int keep(struct kn_draft *d, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	int r = seal(d->memory_fd, true, &d->manifest.memory, err);
	if (r == 0)
		r = seal(d->state_fd, false, &d->manifest.state, err);
	if (r < 0)
		return r;
	if (d->manifest.state.bytes == 0)
		return kn_fail(err, EIO, "QEMU wrote no state");
	kn_snapshot_manifest_print(&d->manifest, &text);
	if (text.failed)
		return kn_fail(err, ENOMEM, "memory for a manifest");
	return kn_write_file(d->dir, "manifest.json", text.ptr, text.len, 0600, err);
}

static void run_keep(struct kn_job *job)
{
	struct kn_draft *d = kn_container_of(job, struct kn_draft, job);

	(void)!keep(d, &d->result);
}

/* An older one of this key goes: its files may have been what was wrong. */
static int give_name(struct kn_draft *d, struct kn_err *err)
{
	struct kn_snapshots *s = d->store;
	struct kn_err replaced = KN_ERR_INIT;

	kn_fail(&replaced, EEXIST, "replaced by a newer one");
	kn_snapshots_spoil(s, d->key, &replaced);
	(void)!kn_remove_tree(s->dir, d->key, NULL);
	if (renameat(s->dir, d->name, s->dir, d->key) < 0)
		return kn_fail(err, errno, "rename: %s", strerror(errno));
	d->name[0] = '\0';
	struct entry *e = store_add(s, d->key, err);
	if (!e)
		return -err->code;
	e->checked = true;   /* digested just now */
	store_bound(s, d->key);
	return 0;
}

static void on_kept(struct kn_job *job, bool cancelled)
{
	struct kn_draft *d = kn_container_of(job, struct kn_draft, job);
	struct kn_err err = d->result;
	void (*done)(const struct kn_err *, void *) = d->done;
	void *arg = d->done_arg;
	bool tell = !d->dropped && !cancelled;

	d->working = false;
	if (tell && !err.code)
		(void)!give_name(d, &err);
	release(d);
	if (!tell)
		return;
	if (err.code)
		kn_while(&err, "save a snapshot");
	done(err.code ? &err : NULL, arg);
}

void kn_draft_keep(struct kn_draft *d, void (*done)(const struct kn_err *err, void *arg), void *arg)
{
	struct kn_err err = KN_ERR_INIT;

	d->done = done;
	d->done_arg = arg;
	if (submit(d, run_keep, on_kept, &err) < 0) {
		release(d);
		done(&err, arg);
	}
}

void kn_draft_drop(struct kn_draft *d)
{
	if (!d)
		return;
	if (d->working)
		d->dropped = true;
	else
		release(d);
}
