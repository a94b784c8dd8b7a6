#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "oci/digest.h"
#include "oci/snapshot/store.h"

enum { MAX_MANIFEST = 64 * 1024 };

static const char MANIFEST[] = "manifest.json";

/* ---- entries ------------------------------------------------------------------------------- */

static struct entry *find(const struct kn_snapshots *s, const char *key)
{
	for (struct entry *e = s->entries; e; e = e->next)
		if (strcmp(e->key, key) == 0)
			return e;
	return NULL;
}

static void unlink_entry(struct entry *e)
{
	if (!e->prev)
		return;   /* removed already */
	*e->prev = e->next;
	if (e->next)
		e->next->prev = e->prev;
	e->prev = NULL;
	e->store->bytes -= e->disk_bytes;
	if (!e->checking)   /* else the check's end frees it */
		free(e);
}

static struct entry *link_entry(struct kn_snapshots *s, const char *key,
                                const struct kn_snapshot_manifest *m, uint64_t disk_bytes,
                                uint64_t used_ns)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->store = s;
	snprintf(e->key, sizeof(e->key), "%s", key);
	e->manifest = *m;
	e->disk_bytes = disk_bytes;
	e->used_ns = used_ns;
	e->next = s->entries;
	e->prev = &s->entries;
	if (e->next)
		e->next->prev = &e->next;
	s->entries = e;
	s->bytes += disk_bytes;
	return e;
}

static void remove_folder(struct kn_snapshots *s, const char *name)
{
	struct kn_err err = KN_ERR_INIT;

	if (kn_remove_tree(s->dir, name, &err) < 0)
		kn_log(KN_WARN, "snapshot's files stay", KN_S("name", name), KN_E(&err));
}

static void remove_entry(struct entry *e, const struct kn_err *why)
{
	struct kn_snapshots *s = e->store;
	char key[sizeof(e->key)];

	kn_log(KN_WARN, "snapshot removed, it is made anew when it is needed",
	       KN_S("about", e->manifest.about), KN_S("key", e->key), KN_E(why));
	memcpy(key, e->key, sizeof(key));
	unlink_entry(e);
	remove_folder(s, key);
}

/* The least recently used go first; what was just made stays. */
void store_bound(struct kn_snapshots *s, const char *keep)
{
	while (s->bytes > s->max_bytes) {
		struct entry *oldest = NULL;
		for (struct entry *e = s->entries; e; e = e->next)
			if (strcmp(e->key, keep) != 0 && (!oldest || e->used_ns < oldest->used_ns))
				oldest = e;
		if (!oldest)
			return;
		kn_log(KN_INFO, "snapshot removed for space", KN_S("about", oldest->manifest.about),
		       KN_U("bytes", s->bytes), KN_U("max_bytes", s->max_bytes));
		char key[sizeof(oldest->key)];
		memcpy(key, oldest->key, sizeof(key));
		unlink_entry(oldest);
		remove_folder(s, key);
	}
}

uint64_t store_disk_bytes(int dir, struct kn_err *err)
{
	struct stat st;
	uint64_t bytes = 0;

	static const char *const names[] = { "memory", "state" };
	for (size_t i = 0; i < KN_ARRAY_LEN(names); i++) {
		if (fstatat(dir, names[i], &st, AT_SYMLINK_NOFOLLOW) < 0) {
			kn_fail(err, errno, "file '%s': %s", names[i], strerror(errno));
			return 0;
		}
		bytes += (uint64_t)st.st_blocks * 512;
	}
	return bytes;
}

struct entry *store_add(struct kn_snapshots *s, const char *key, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct kn_snapshot_manifest m;
	struct kn_err none = KN_ERR_INIT;
	struct stat st;

	kn_auto(kn_close) int dir = openat(s->dir, key, O_RDONLY | O_DIRECTORY | O_NOFOLLOW |
	                                                O_CLOEXEC);
	if (dir < 0) {
		kn_fail(err, errno, "open: %s", strerror(errno));
		return NULL;
	}
	if (kn_read_file(dir, MANIFEST, MAX_MANIFEST, &text, err) < 0 ||
	    kn_snapshot_manifest_parse(kn_buf_view(&text), &m, err) < 0) {
		kn_while(err, "its %s", MANIFEST);
		return NULL;
	}
	uint64_t bytes = store_disk_bytes(dir, &none);
	if (none.code || fstatat(dir, MANIFEST, &st, 0) < 0) {
		*err = none;
		return NULL;
	}
	uint64_t used = (uint64_t)st.st_mtim.tv_sec * KN_NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
	struct entry *e = link_entry(s, key, &m, bytes, used);
	if (!e)
		kn_fail(err, ENOMEM, "memory for a snapshot");
	return e;
}

/* ---- checks -------------------------------------------------------------------------------- */

static const char *fact(const struct kn_snapshot_fact *facts, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(facts[i].name, name) == 0)
			return facts[i].value;
	return "";
}

static int check_facts(const struct kn_snapshots *s, const struct kn_snapshot_manifest *m,
                       struct kn_err *err)
{
	for (size_t i = 0; i < s->n_facts; i++) {
		const char *is = s->facts[i].value;
		const char *was = fact(m->facts, m->n_facts, s->facts[i].name);
		if (strcmp(is, was) != 0)
			return kn_fail(err, ESTALE, "stale: made with another %s (%s, now %s)",
			               s->facts[i].name, was[0] ? was : "not told", is);
	}
	return 0;
}

int store_open_file(const struct kn_snapshots *s, const char *key, const char *name,
                    const struct kn_snapshot_file *expect, struct kn_err *err)
{
	struct kn_snapshot_file is;
	char path[KN_SNAPSHOT_KEY + 32];

	snprintf(path, sizeof(path), "%s/%s", key, name);
	kn_auto(kn_close) int fd = openat(s->dir, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "file '%s': %s", name, strerror(errno));
	int r = file_identity(fd, &is, err);
	if (r == 0 && is.bytes != expect->bytes)
		r = kn_fail(err, EBADMSG, "corrupt: file '%s' has %llu bytes, not %llu", name,
		            (unsigned long long)is.bytes, (unsigned long long)expect->bytes);
	else if (r == 0 && !file_is(&is, expect))
		r = kn_fail(err, EBADMSG, "corrupt: file '%s' was changed or replaced", name);
	return r < 0 ? r : kn_take_fd(fd);
}

static int check_digest(const struct kn_snapshots *s, const char *key, const char *name,
                        const struct kn_snapshot_file *expect, struct kn_err *err)
{
	char is[65];

	kn_auto(kn_close) int fd = store_open_file(s, key, name, expect, err);
	if (fd < 0)
		return fd;
	int r = file_digest(fd, false, is, err);
	if (r == 0 && strcmp(is, expect->sha256) != 0)
		r = kn_fail(err, EBADMSG, "corrupt: the digest of file '%s' is not the one of its "
		            "making", name);
	return r;
}

/* In the worker. The entry's key and manifest do not change, and it lives until the end is told. */
static void run_check(struct kn_job *job)
{
	struct entry *e = kn_container_of(job, struct entry, check);

	e->result = (struct kn_err)KN_ERR_INIT;
	if (check_digest(e->store, e->key, "state", &e->manifest.state, &e->result) == 0)
		(void)!check_digest(e->store, e->key, "memory", &e->manifest.memory, &e->result);
}

static void on_checked(struct kn_job *job, bool cancelled)
{
	struct entry *e = kn_container_of(job, struct entry, check);
	struct kn_snapshots *s = e->store;

	e->checking = false;
	if (!e->prev)
		free(e);   /* removed meanwhile */
	else if (!cancelled && e->result.code)
		remove_entry(e, &e->result);
	else
		e->checked = !cancelled;
	if (!cancelled)
		store_check_next(s);
}

/* One at a time, the most recently used first. */
void store_check_next(struct kn_snapshots *s)
{
	struct entry *next = NULL;

	for (struct entry *e = s->entries; e && !s->closing; e = e->next) {
		if (e->checking)
			return;
		if (!e->checked && (!next || e->used_ns > next->used_ns))
			next = e;
	}
	if (!next)
		return;
	next->check = (struct kn_job){ .run = run_check, .done = on_checked };
	next->checking = kn_work_submit(s->work, &next->check, NULL) == 0;
}

/* ---- use ----------------------------------------------------------------------------------- */

int kn_snapshot_key_of(struct kn_view parts, char ret[KN_SNAPSHOT_KEY + 1], struct kn_err *err)
{
	struct kn_digest d;

	int r = kn_digest_of(KN_SHA256, parts.ptr, parts.len, &d, err);
	if (r == 0)
		snprintf(ret, KN_SNAPSHOT_KEY + 1, "%s", kn_digest_hex(&d));
	return r;
}

bool kn_snapshots_has(const struct kn_snapshots *s, const char *key)
{
	return find(s, key) != NULL;
}

uint64_t kn_snapshots_bytes(const struct kn_snapshots *s)
{
	return s->bytes;
}

/* When it was used last is its manifest's time: it survives a restart. */
static void touch(struct kn_snapshots *s, struct entry *e)
{
	char path[KN_SNAPSHOT_KEY + 32];

	e->used_ns = kn_wall_ns();
	snprintf(path, sizeof(path), "%s/%s", e->key, MANIFEST);
	(void)!utimensat(s->dir, path, NULL, AT_SYMLINK_NOFOLLOW);
}

int kn_snapshots_get(struct kn_snapshots *s, const char *key, struct kn_snapshot *ret,
                     struct kn_err *err)
{
	struct entry *e = find(s, key);
	struct kn_err why = KN_ERR_INIT;

	if (!e)
		return kn_fail(err, ENOENT, "no snapshot");
	if (!e->checked) {
		e->used_ns = kn_wall_ns();   /* the next to be checked */
		return kn_fail(err, EAGAIN, "its snapshot is not checked yet");
	}
	kn_auto(kn_close) int state =
		store_open_file(s, key, "state", &e->manifest.state, &why);
	kn_auto(kn_close) int memory =
		state < 0 ? -1 : store_open_file(s, key, "memory", &e->manifest.memory, &why);
	if (memory < 0) {
		remove_entry(e, &why);
		return kn_fail(err, EBADMSG, "its snapshot was not as it should be: %s", why.text);
	}
	touch(s, e);
	*ret = (struct kn_snapshot){ .memory_fd = kn_take_fd(memory),
		                     .state_fd = kn_take_fd(state),
		                     .memory_bytes = e->manifest.memory.bytes };
	return 0;
}

void kn_snapshot_fini(struct kn_snapshot *snap)
{
	kn_close(snap->memory_fd);
	kn_close(snap->state_fd);
	*snap = (struct kn_snapshot){ .memory_fd = -1, .state_fd = -1 };
}

void kn_snapshots_spoil(struct kn_snapshots *s, const char *key, const struct kn_err *why)
{
	struct entry *e = find(s, key);

	if (e)
		remove_entry(e, why);
}

/* ---- life ---------------------------------------------------------------------------------- */

static bool is_key(const char *name)
{
	return strlen(name) == KN_SNAPSHOT_KEY && strspn(name, "0123456789abcdef") == KN_SNAPSHOT_KEY;
}

static void look_at(struct kn_snapshots *s, const char *name)
{
	struct kn_err why = KN_ERR_INIT;

	if (!is_key(name)) {
		remove_folder(s, name);   /* a draft of a daemon that was killed */
		return;
	}
	struct entry *e = store_add(s, name, &why);
	if (e && check_facts(s, &e->manifest, &why) < 0) {
		remove_entry(e, &why);
	} else if (!e) {
		kn_log(KN_WARN, "snapshot removed, it is made anew when it is needed",
		       KN_S("key", name), KN_E(&why));
		remove_folder(s, name);
	}
}

static int look_at_all(struct kn_snapshots *s, struct kn_err *err)
{
	int fd = openat(s->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		kn_close(fd);
		return kn_fail(err, errno, "read the folder of snapshots: %s", strerror(errno));
	}
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.')
			look_at(s, e->d_name);
	closedir(d);
	store_bound(s, "");
	return 0;
}

int kn_snapshots_open(const struct kn_snapshots_config *config, struct kn_snapshots **ret,
                      struct kn_err *err)
{
	struct kn_work_config work = { .threads = 1, .max_waiting = 64 };
	kn_auto(kn_snapshots_close) struct kn_snapshots *s = calloc(1, sizeof(*s));

	if (!s)
		return kn_fail(err, ENOMEM, "memory for a store of snapshots");
	s->dir = -1;
	s->max_bytes = config->max_bytes;
	s->n_facts = kn_min(config->n_facts, (size_t)KN_SNAPSHOT_FACTS);
	memcpy(s->facts, config->facts, s->n_facts * sizeof(s->facts[0]));
	int r = kn_mkdirs(AT_FDCWD, config->dir, 0700, err);
	if (r < 0)
		return r;
	s->dir = open(config->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir < 0)
		return kn_fail(err, errno, "open '%s': %s", config->dir, strerror(errno));
	r = kn_work_new(config->loop, &work, &s->work, err);
	if (r == 0)
		r = look_at_all(s, err);
	if (r < 0)
		return r;
	store_check_next(s);
	*ret = kn_take_ptr(s);
	return 0;
}

void kn_snapshots_close(struct kn_snapshots *s)
{
	if (!s)
		return;
	s->closing = true;
	kn_work_free(s->work);
	while (s->drafts)
		kn_draft_drop(s->drafts);
	for (struct entry *e = s->entries, *next; e; e = next) {
		next = e->next;
		free(e);
	}
	kn_close(s->dir);
	free(s);
}
