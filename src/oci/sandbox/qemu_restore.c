/* How a start is made quick: what there is to start from, and what is made for the next one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "oci/sandbox/qemu.h"

enum {
	MAX_WANTED = 32,
	BUILD_AFTER_MS = 200,        /* a function came to serve: its first requests come first */
	RETRY_MS = 60 * 1000,        /* after a build that failed */
	PREPARE_AFTER_MS = 50,
	END_SECONDS = 10,
};

struct wanted {
	struct wish *wish;
	bool template;
};

/* A restored guest whose function waits for somebody to be started for. */
struct prepared {
	struct kn_restores *r;
	struct prepared *next, **prev;
	struct qemu *q;
	struct kn_timer expiry;
	bool ready;
};

int restores_name(struct kn_restores *r, const char *what, char id[64], char **ret_dir,
                  struct kn_err *err)
{
	snprintf(id, 64, "%s-%d-%u", what, (int)getpid(), ++r->serial);
	if (asprintf(ret_dir, "%s/%s", r->run_dir, id) < 0) {
		*ret_dir = NULL;
		return kn_fail(err, ENOMEM, "memory for a name");
	}
	if (mkdir(*ret_dir, 0700) == 0)
		return 0;
	int code = kn_fail(err, errno, "make folder %s: %s", *ret_dir, strerror(errno));
	free(kn_take_ptr(*ret_dir));
	return code;
}

/* ---- builds -------------------------------------------------------------------------------- */

static void build_next_at(struct kn_restores *r, uint64_t after_ms)
{
	uint64_t due = kn_now_ns() + after_ms * KN_NS_PER_MS;

	if (r->n_wanted > 0 && !r->closing)
		(void)!kn_timer_start(r->loop, &r->next_build, kn_max(due, r->not_before_ns), NULL);
}

/* An error that stays the same is told once. */
static void note_failure(struct kn_restores *r, const struct kn_err *err)
{
	r->not_before_ns = kn_now_ns() + RETRY_MS * KN_NS_PER_MS;
	if (strcmp(r->told, err->text) == 0)
		return;
	snprintf(r->told, sizeof(r->told), "%s", err->text);
	kn_log(KN_WARN, "no snapshot is made, functions start without; trying again later", KN_E(err));
}

void restores_built(struct kn_restores *r, const struct kn_err *err)
{
	r->build = NULL;
	if (err)
		note_failure(r, err);
	else
		r->told[0] = '\0';
	build_next_at(r, BUILD_AFTER_MS);
}

static const char *key_of(const struct wish *w, bool template)
{
	return template ? w->template_key : w->function_key;
}

static void on_next_build(struct kn_timer *t)
{
	struct kn_restores *r = kn_container_of(t, struct kn_restores, next_build);
	struct kn_err err = KN_ERR_INIT;

	if (r->build || r->n_wanted == 0)
		return;
	struct wanted w = r->wanted[0];
	memmove(&r->wanted[0], &r->wanted[1], --r->n_wanted * sizeof(w));
	if (kn_snapshots_has(r->snapshots, key_of(w.wish, w.template)))
		build_next_at(r, 0);
	else if (build_start(r, w.wish, w.template, &r->build, &err) < 0)
		restores_built(r, &err);
	wish_unref(w.wish);
}

static void want(struct kn_restores *r, struct wish *wish, bool template)
{
	const char *key = key_of(wish, template);

	if (r->closing || r->n_wanted == MAX_WANTED || kn_snapshots_has(r->snapshots, key))
		return;
	for (size_t i = 0; i < r->n_wanted; i++)
		if (strcmp(key_of(r->wanted[i].wish, r->wanted[i].template), key) == 0)
			return;
	r->wanted[r->n_wanted++] = (struct wanted){ wish_ref(wish), template };
	if (!r->next_build.loop)
		build_next_at(r, BUILD_AFTER_MS);
}

/* ---- prepared guests ----------------------------------------------------------------------- */

static void forget(struct prepared *p)
{
	*p->prev = p->next;
	if (p->next)
		p->next->prev = p->prev;
	p->r->n_prepared--;
	kn_timer_stop(&p->expiry);
	free(p);
}

static void on_prepared_ready(struct kn_sandbox *sb, void *arg)
{
	struct prepared *p = arg;

	(void)sb;
	p->ready = true;
}

static void on_prepared_ended(struct kn_sandbox *sb, const struct kn_err *why, void *arg)
{
	struct prepared *p = arg;

	(void)sb;
	if (why->code)
		kn_log(KN_WARN, "prepared guest ended", KN_E(why));
	forget(p);
}

static void on_expiry(struct kn_timer *t)
{
	struct prepared *p = kn_container_of(t, struct prepared, expiry);

	p->ready = false;
	p->q->sb.ops->stop(&p->q->sb, 0);
}

static int prepare(struct kn_restores *r, struct wish *wish, struct prepared *p, struct kn_err *err)
{
	struct kn_sandbox_events events = { .ready = on_prepared_ready, .ended = on_prepared_ended,
		                            .arg = p };
	struct qemu_how how = QEMU_HOW_BOOT;
	char id[64];

	int r_ = kn_snapshots_get(r->snapshots, wish->function_key, &how.from, err);
	if (r_ < 0)
		return r_;
	how.source = FROM_FUNCTION;
	r_ = restores_name(r, "prepared", id, &how.own_dir, err);
	if (r_ == 0)
		r_ = qemu_begin(r->loop, r->driver, wish, id, how.own_dir, &events, &how, &p->q, err);
	kn_snapshot_fini(&how.from);
	return r_;
}

static void on_prepare(struct kn_timer *t)
{
	struct kn_restores *r = kn_container_of(t, struct kn_restores, prepare);
	struct wish *wish = kn_take_ptr(r->last);
	struct kn_err err = KN_ERR_INIT;

	struct prepared *p = r->n_prepared < r->max_prepared && !r->closing ? calloc(1, sizeof(*p))
	                                                                    : NULL;
	if (p) {
		p->r = r;
		p->expiry.call = on_expiry;
		p->next = r->prepared;
		p->prev = &r->prepared;
		if (p->next)
			p->next->prev = &p->next;
		r->prepared = p;
		r->n_prepared++;
		uint64_t due = kn_now_ns() + r->prepared_ns;
		if (prepare(r, wish, p, &err) < 0 ||
		    kn_timer_start(r->loop, &p->expiry, due, &err) < 0) {
			kn_log(KN_DEBUG, "no guest is prepared", KN_E(&err));
			if (p->q)
				p->q->sb.ops->stop(&p->q->sb, 0);
			else
				forget(p);
		}
	}
	wish_unref(wish);
}

/* The place of one that waits for another function is needed. */
static void make_room(struct kn_restores *r, const struct wish *wish)
{
	for (struct prepared *p = r->prepared; p; p = p->next) {
		if (strcmp(p->q->wish->function_key, wish->function_key) == 0)
			return;
		if (r->n_prepared >= r->max_prepared && !p->next)
			on_expiry(&p->expiry);   /* the oldest is the last */
	}
}

static void prepare_soon(struct kn_restores *r, struct wish *wish)
{
	if (r->max_prepared == 0 || r->closing)
		return;
	make_room(r, wish);
	wish_unref(r->last);
	r->last = wish_ref(wish);
	(void)!kn_timer_start(r->loop, &r->prepare,
	                      kn_now_ns() + PREPARE_AFTER_MS * KN_NS_PER_MS, NULL);
}

static bool take_prepared(struct kn_restores *r, const struct wish *wish,
                          const struct kn_sandbox_events *events, struct qemu **ret)
{
	for (struct prepared *p = r->prepared; p; p = p->next) {
		struct qemu *q = p->q;
		if (!p->ready || q->state != SERVING ||
		    strcmp(q->wish->function_key, wish->function_key) != 0)
			continue;
		if (qemu_hand_over(q, wish->c.id, events, NULL) < 0) {
			on_expiry(&p->expiry);
			continue;
		}
		forget(p);
		*ret = q;
		return true;
	}
	return false;
}

/* ---- a start ------------------------------------------------------------------------------- */

static void find_source(struct kn_restores *r, const struct wish *wish, struct qemu_how *how)
{
	struct kn_err err = KN_ERR_INIT;

	if (wish->c.snapshot &&
	    kn_snapshots_get(r->snapshots, wish->function_key, &how->from, &err) == 0)
		how->source = FROM_FUNCTION;
	else if (kn_snapshots_get(r->snapshots, wish->template_key, &how->from, &err) == 0)
		how->source = FROM_TEMPLATE;
}

int restores_start(struct kn_restores *r, struct wish *wish, const struct kn_sandbox_events *events,
                   struct qemu **ret, struct kn_err *err)
{
	struct qemu_how how = QEMU_HOW_BOOT;

	if (wish->c.snapshot && take_prepared(r, wish, events, ret))
		return 0;
	find_source(r, wish, &how);
	int r_ = qemu_begin(r->loop, r->driver, wish, wish->c.id, wish->c.run_dir, events, &how, ret,
	                    err);
	kn_snapshot_fini(&how.from);
	return r_;
}

void restores_served(struct kn_restores *r, struct qemu *q)
{
	if (q->save_fd >= 0)
		return;
	want(r, q->wish, true);
	if (q->wish->c.snapshot)
		want(r, q->wish, false);
	/* One that is prepared itself, and still is, asks for no other. */
	bool waits = false;
	for (struct prepared *p = r->prepared; p; p = p->next)
		waits |= p->q == q;
	if (q->source == FROM_FUNCTION && !waits)
		prepare_soon(r, q->wish);
}

void restores_spoiled(struct kn_restores *r, const struct qemu *q, const struct kn_err *why)
{
	kn_snapshots_spoil(r->snapshots, key_of(q->wish, q->source == FROM_TEMPLATE), why);
}

/* ---- facts --------------------------------------------------------------------------------- */

static void add_fact(struct kn_snapshot_fact *ret, size_t max, size_t *n, const char *name,
                     const char *value)
{
	if (*n == max)
		return;
	snprintf(ret[*n].name, sizeof(ret[*n].name), "%s", name);
	snprintf(ret[*n].value, sizeof(ret[*n].value), "%s", value);
	(*n)++;
}

static void add_file_fact(struct kn_snapshot_fact *ret, size_t max, size_t *n, const char *name,
                          const char *path)
{
	struct stat st = { .st_size = 0 };
	char text[64];

	if (stat(path, &st) < 0)
		return;
	snprintf(text, sizeof(text), "%lld:%lld.%09ld", (long long)st.st_size,
	         (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	add_fact(ret, max, n, name, text);
}

/* Model and flags of the first processor; two lines of a file that is long on large machines. */
static void add_processor(struct kn_snapshot_fact *ret, size_t max, size_t *n)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	struct kn_view rest, line, model = KN_VIEW("unknown");
	uint64_t flags = 0;
	char text[160];

	(void)!kn_read_file(AT_FDCWD, "/proc/cpuinfo", 16 << 20, &b, NULL);
	rest = kn_buf_view(&b);
	while (kn_view_split(&rest, '\n', &line) && line.len > 0) {
		const char *colon = memchr(line.ptr, ':', line.len);
		struct kn_view value = { colon, colon ? line.len - (size_t)(colon - line.ptr) : 0 };
		if (kn_view_starts(line, KN_VIEW("model name")))
			model = value;
		if (kn_view_starts(line, KN_VIEW("flags")))
			flags = kn_hash(value.ptr, value.len);
	}
	/* The guest was told the rate of its clock; measured again it differs in the last digits. */
	snprintf(text, sizeof(text), "%.*s, flags %016llx, %.1f GHz", (int)kn_min(model.len, (size_t)80),
	         model.ptr, (unsigned long long)flags, (double)kn_tsc_khz() / 1e6);
	add_fact(ret, max, n, "processor", text);
}

size_t kn_restores_facts(const struct kn_sandbox_qemu_config *driver, const char *qemu_version,
                         struct kn_snapshot_fact *ret, size_t max)
{
	size_t n = 0;

	add_file_fact(ret, max, &n, "kernel", driver->kernel);
	add_file_fact(ret, max, &n, "agent", driver->initramfs);
	add_file_fact(ret, max, &n, "QEMU's program", driver->qemu);
	add_fact(ret, max, &n, "QEMU", qemu_version ? qemu_version : "");
	add_processor(ret, max, &n);
	return n;
}

/* ---- life ---------------------------------------------------------------------------------- */

uint32_t kn_restores_prepared(const struct kn_restores *r)
{
	uint32_t n = 0;

	for (const struct prepared *p = r->prepared; p; p = p->next)
		n += p->ready;
	return n;
}

bool kn_restores_busy(const struct kn_restores *r)
{
	return r->build || r->n_wanted > 0;
}

int kn_restores_new(struct kn_loop *loop, const struct kn_sandbox_qemu_config *driver,
                    const struct kn_restores_config *config, struct kn_restores **ret,
                    struct kn_err *err)
{
	struct kn_restores *r;

	if (!driver->preload || access(driver->preload, R_OK) < 0)
		return kn_fail(err, ENOENT, "no file %s: run make",
		               driver->preload ? driver->preload : KN_QEMU_PRELOAD);
	r = calloc(1, sizeof(*r));
	if (!r)
		return kn_fail(err, ENOMEM, "out of memory");
	r->loop = loop;
	r->driver = driver;
	r->snapshots = config->snapshots;
	r->max_prepared = config->prepared;
	r->prepared_ns = config->prepared_ms * KN_NS_PER_MS;
	r->next_build.call = on_next_build;
	r->prepare.call = on_prepare;
	r->run_dir = strdup(config->run_dir);
	r->wanted = calloc(MAX_WANTED, sizeof(r->wanted[0]));
	int r_ = r->run_dir && r->wanted ? kn_mkdirs(AT_FDCWD, config->run_dir, 0711, err)
	                                 : kn_fail(err, ENOMEM, "out of memory");
	if (r_ < 0) {
		kn_restores_free(r);
		return r_;
	}
	*ret = r;
	return 0;
}

void kn_restores_free(struct kn_restores *r)
{
	if (!r)
		return;
	r->closing = true;
	kn_timer_stop(&r->next_build);
	kn_timer_stop(&r->prepare);
	while (r->n_wanted > 0)
		wish_unref(r->wanted[--r->n_wanted].wish);
	wish_unref(r->last);
	for (struct prepared *p = r->prepared; p; p = p->next)
		on_expiry(&p->expiry);
	if (r->build)
		build_stop(r->build);
	uint64_t end = kn_now_ns() + END_SECONDS * KN_NS_PER_S;
	while ((r->build || r->prepared) && kn_now_ns() < end && kn_loop_once(r->loop, 100) >= 0)
		;
	if (r->run_dir)
		rmdir(r->run_dir);
	free(r->wanted);
	free(r->run_dir);
	free(r);
}
