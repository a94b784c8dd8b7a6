/*
 * How a function gets from a request into the engine, each step only after the one before:
 *
 *     check -> (pull the image) -> (build the root file system in a worker) -> store, durably -> engine -> answer
 *
 * Restoring at start, and after an image got a new content, is the same without the store. Deleting
 * is store -> engine -> answer. The store answers in the order of submission, so that two changes of
 * one function reach the engine in the order in which they reached the disk.
 *
 * An update is answered when the engine has it, while the revision before still serves. When the new
 * one does not get ready, the engine drops it, and table and store go back to the one before.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "faas/control/private.h"

struct change {
	struct kn_job job;
	struct change *next, **prev;
	struct kn_control *ctl;
	struct kn_http_exchange *x;   /* NULL: nobody waits, or the client left */
	enum change_kind kind;
	struct kn_function *fn;       /* NULL when deleting */
	struct kn_image *image;
	bool missing;                 /* the image is not here, but its name says where it is */
	char *path;
	struct kn_err err;
	char name[64];                /* when deleting */
};

/* ---- life ---------------------------------------------------------------------------------- */

static void on_gone(struct kn_http_exchange *x, void *arg)
{
	struct change *ch = arg;

	(void)x;
	ch->x = NULL;   /* the change goes on: half of it may be done */
}

static struct change *change_new(struct kn_control *ctl, struct kn_http_exchange *x)
{
	struct change *ch = calloc(1, sizeof(*ch));

	if (!ch)
		return NULL;
	ch->ctl = ctl;
	ch->x = x;
	ch->next = ctl->changes;
	ch->prev = &ctl->changes;
	if (ch->next)
		ch->next->prev = &ch->next;
	ctl->changes = ch;
	if (x)
		kn_http_set_hooks(x, &(struct kn_http_hooks){ .gone = on_gone, .arg = ch });
	return ch;
}

static const char *name_of(const struct change *ch)
{
	return ch->fn ? ch->fn->name : ch->name;
}

static void on_saved(const struct kn_err *err, void *arg)
{
	(void)arg;
	if (err)
		kn_log(KN_ERROR, "the store keeps an update that was dropped", KN_E(err));
}

/*
 * An update that came to nothing is in the store, and must not be what a restart finds. A change of
 * the same function that is under way may be written after this, or not at all: its end looks again.
 */
static void save_again(struct kn_control *ctl, struct kn_view name)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	struct entry *e = entry_find(ctl, name);
	struct kn_err err = KN_ERR_INIT;

	if (!e || !e->unsaved)
		return;
	for (const struct change *ch = ctl->changes; ch; ch = ch->next) {
		if (kn_view_is(name, kn_view_of(name_of(ch))))
			return;
	}
	e->unsaved = false;
	if (kn_function_save(e->fn, &text, &err) < 0 ||
	    kn_store_put(ctl->config.store, KN_TABLE_FUNCTION, name, kn_buf_view(&text), on_saved,
	                 NULL, &err) < 0)
		on_saved(&err, NULL);
}

static void change_free(struct change *ch)
{
	static const struct kn_http_hooks none;
	kn_auto(kn_function_unref) struct kn_function *fn = ch->fn;

	*ch->prev = ch->next;
	if (ch->next)
		ch->next->prev = ch->prev;
	if (ch->x)
		kn_http_set_hooks(ch->x, &none);
	save_again(ch->ctl, kn_view_of(name_of(ch)));
	kn_image_unref(ch->image);
	free(ch->path);
	free(ch);
}

/* Answer with the error and end. A function that was to be restored stays, and says why not. */
static void change_fail(struct change *ch, const char *hint)
{
	struct kn_http_exchange *x = ch->x;
	struct kn_err err = ch->err;

	if (ch->kind == CHANGE_REFRESH) {   /* whatever is wrong with the new image: the old one runs */
		kn_log(KN_WARN, "function stays with its earlier image", KN_S("fn", ch->fn->name),
		       KN_E(&err));
	} else if (ch->kind == CHANGE_RESTORE && ch->fn) {
		kn_log(KN_WARN, "stored function cannot run", KN_S("fn", ch->fn->name), KN_E(&err));
		if (entry_put(ch->ctl, kn_function_ref(ch->fn), NULL, kn_err_text(&err)) < 0)
			kn_log(KN_ERROR, "no memory to list a stored function",
			       KN_S("fn", ch->fn->name));
	}
	change_free(ch);
	if (x)
		kn_reply_fail(x, &err, hint);
}

const char *image_user(const struct kn_image *image, void *arg)
{
	const struct kn_control *ctl = arg;

	for (size_t i = 0; i < ctl->n_entries; i++) {
		const struct entry *e = &ctl->entries[i];
		if ((e->image && kn_digest_is(&e->image->digest, &image->digest)) ||
		    (e->old_image && kn_digest_is(&e->old_image->digest, &image->digest)))
			return e->fn->name;
	}
	for (const struct change *ch = ctl->changes; ch; ch = ch->next) {
		if (ch->image && kn_digest_is(&ch->image->digest, &image->digest))
			return ch->fn->name;
	}
	return NULL;
}

/* ---- the engine, and the answer ------------------------------------------------------------ */

static int hand_over(struct change *ch, struct kn_err *err)
{
	struct kn_engine_image launch = { .path = NULL };
	struct kn_arena arena;

	kn_arena_init(&arena);
	int r = launch_make(&arena, ch->fn, ch->image, ch->path, &launch, err);
	if (r == 0)
		r = launch_secrets(&arena, ch->fn, ch->ctl->config.secrets, &launch, err);
	if (r == 0)
		r = kn_engine_put(ch->ctl->config.engine, ch->fn, &launch, err);
	launch_wipe(&launch);
	kn_arena_fini(&arena);
	return r;
}

static int to_table(struct change *ch)
{
	struct kn_control *ctl = ch->ctl;
	struct kn_function *fn = kn_function_ref(ch->fn);
	struct kn_image *image = ch->image ? kn_image_ref(ch->image) : NULL;

	if (kn_engine_rolling(ctl->config.engine, kn_view_of(fn->name)))
		return entry_roll(ctl, fn, image);
	return entry_put(ctl, fn, image, NULL);
}

static void to_engine(struct change *ch)
{
	struct kn_control *ctl = ch->ctl;
	struct kn_http_exchange *x = ch->x;

	if (hand_over(ch, &ch->err) < 0) {
		change_fail(ch, NULL);
		return;
	}
	if (to_table(ch) < 0) {
		kn_fail(&ch->err, ENOMEM, "out of memory");
		change_fail(ch, NULL);
		return;
	}
	kn_log(KN_INFO, ch->kind >= CHANGE_RESTORE ? "function restored" : "function deployed",
	       KN_S("fn", ch->fn->name), KN_S("class", kn_class_name(ch->fn->class)),
	       KN_S("image", ch->fn->image));
	const struct entry *e = entry_find(ctl, kn_view_of(ch->fn->name));
	json_t *status = x && e ? entry_status(ctl, e, false) : NULL;
	change_free(ch);
	if (x)
		kn_reply_json(x, 202, status);
}

void change_rolled(struct kn_function *fn, const struct kn_err *why, void *arg)
{
	struct kn_control *ctl = arg;
	struct entry *e = entry_find(ctl, kn_view_of(fn->name));

	if (!e)
		return;
	entry_rolled(e, why == NULL);
	save_again(ctl, kn_view_of(fn->name));
}

/* ---- the store ----------------------------------------------------------------------------- */

static void on_stored(const struct kn_err *err, void *arg)
{
	struct change *ch = arg;

	if (err) {
		ch->err = *err;
		change_fail(ch, "nothing was changed");
	} else {
		to_engine(ch);
	}
}

static void to_store(struct change *ch)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	if (ch->kind >= CHANGE_RESTORE) {
		to_engine(ch);
		return;
	}
	if (kn_function_save(ch->fn, &text, &ch->err) < 0 ||
	    kn_store_put(ch->ctl->config.store, KN_TABLE_FUNCTION, kn_view_of(ch->fn->name),
	                 kn_buf_view(&text), on_stored, ch, &ch->err) < 0)
		change_fail(ch, "nothing was changed");
}

/* ---- the image ----------------------------------------------------------------------------- */

static void build(struct kn_job *job)
{
	struct change *ch = kn_container_of(job, struct change, job);

	(void)!kn_images_rootfs(ch->ctl->config.images, ch->image, NULL, &ch->path, &ch->err);
}

static void built(struct kn_job *job, bool cancelled)
{
	struct change *ch = kn_container_of(job, struct change, job);

	turn_over(ch->ctl);
	if (cancelled)
		kn_fail(&ch->err, EAGAIN, "kilnd is stopping");
	if (ch->err.code)
		change_fail(ch, NULL);
	else
		to_store(ch);
}

static void with_image(struct change *ch)
{
	ch->path = kn_images_rootfs_cached(ch->ctl->config.images, ch->image);
	if (ch->path) {
		to_store(ch);
		return;
	}
	ch->job = (struct kn_job){ .run = build, .done = built };
	if (turn_submit(ch->ctl, &ch->job, ch->kind == CHANGE_RESTORE, &ch->err) < 0)
		change_fail(ch, NULL);
}

static int check_program(const struct change *ch, struct kn_err *err)
{
	struct kn_engine_image launch = { .path = NULL };
	struct kn_arena arena;

	kn_arena_init(&arena);
	int r = launch_make(&arena, ch->fn, ch->image, "", &launch, err);
	if (r == 0)
		r = launch_secrets(&arena, ch->fn, ch->ctl->config.secrets, &launch, err);
	launch_wipe(&launch);
	kn_arena_fini(&arena);
	return r;
}

/* An interface has one packet function: two would both pass on what comes in. */
static int check_ports(const struct change *ch, struct kn_err *err)
{
	const struct kn_control *ctl = ch->ctl;
	const struct kn_function *other = NULL;
	const char *shared = NULL;

	for (size_t i = 0; i < ctl->n_entries && !shared; i++) {
		other = ctl->entries[i].fn;
		if (strcmp(other->name, ch->fn->name) != 0)
			shared = kn_function_shared_port(ch->fn, other);
	}
	for (const struct change *c = ctl->changes; c && !shared; c = c->next) {
		other = c->fn;
		if (c != ch && other && strcmp(other->name, ch->fn->name) != 0)
			shared = kn_function_shared_port(ch->fn, other);
	}
	return shared ? kn_fail(err, EEXIST, "'%s': the packet function '%s' has this interface already",
	                        shared, other->name)
	              : 0;
}

/* Everything that can be known at once: secrets, image, class, hypervisor, program. */
static int check(struct change *ch, bool *ret_raw, struct kn_err *err)
{
	struct kn_control *ctl = ch->ctl;

	const struct kn_engine_class *class = kn_engine_class(ctl->config.engine, ch->fn->class);
	if (ch->fn->class_given && !class->ops)   /* before the image: it would not help */
		return kn_engine_check(ctl->config.engine, ch->fn, err);
	*ret_raw = ch->fn->class_given && class->raw_image;
	if (!*ret_raw && kn_images_find(ctl->config.images, kn_view_of(ch->fn->image), &ch->image,
	                                err) < 0) {
		if (err->code != ENOENT)
			return kn_while(err, "image '%s'", ch->fn->image);
		ch->missing = !ch->missing && ch->kind <= CHANGE_UPDATE && can_be_pulled(ch->fn->image);
		err->code = EINVAL;   /* 404 would say that the function is unknown */
		return -EINVAL;
	}
	int r = kn_function_resolve(ch->fn, ch->image ? ch->image->kind : KN_IMAGE_CONTAINER, err);
	if (r == 0)
		r = kn_engine_check(ctl->config.engine, ch->fn, err);
	if (r == 0)
		r = check_ports(ch, err);
	return r < 0 ? r : check_program(ch, err);
}

static void begin(struct change *ch);

static void on_pulled(struct kn_image *image, const struct kn_err *err, void *arg)
{
	struct change *ch = arg;
	struct kn_http_exchange *x = ch->x;

	if (image) {
		ch->err = KN_ERR_INIT;
		begin(ch);
		return;
	}
	change_free(ch);
	if (x)
		pull_reply_fail(x, err);
}

static void pull(struct change *ch)
{
	const struct pull_request what = { .reference = ch->fn->image };

	if (pull_start(ch->ctl, &what, on_pulled, ch, &ch->err) < 0)
		change_fail(ch, NULL);
}

static void begin(struct change *ch)
{
	const bool pulled = ch->missing;
	bool raw = false;

	if (check(ch, &raw, &ch->err) == 0 && raw)
		to_store(ch);
	else if (ch->err.code == 0)
		with_image(ch);
	else if (ch->missing && !pulled)
		pull(ch);
	else
		change_fail(ch, NULL);
}

void change_start(struct kn_control *ctl, struct kn_http_exchange *x, struct kn_function *fn,
                  enum change_kind kind)
{
	struct change *ch = change_new(ctl, x);

	if (!ch) {
		kn_function_unref(fn);
		if (x)
			kn_reply_error(x, 503, "out of memory", "try again soon");
		return;
	}
	ch->fn = fn;
	ch->kind = kind;
	begin(ch);
}

/* ---- another image under the same name ------------------------------------------------------ */

static struct kn_function *parsed_again(const struct kn_function *fn)
{
	kn_auto(json_decref) json_t *deployment = kn_function_deployment(fn);
	struct kn_function *again = NULL;

	if (!deployment || kn_function_parse(deployment, &again, NULL) < 0)
		return NULL;
	again->created_ns = fn->created_ns;
	return again;
}

/* A function that has no image yet waits for one under the name that it was deployed with. */
static bool waits_for(const struct kn_control *ctl, const struct entry *e,
                      const struct kn_image *image)
{
	kn_auto(kn_image_unref) struct kn_image *found = NULL;

	return !e->image && e->why &&
	       kn_images_find(ctl->config.images, kn_view_of(e->fn->image), &found, NULL) == 0 &&
	       kn_digest_is(&found->digest, &image->digest);
}

static bool has_older(const struct entry *e, const struct kn_image *image)
{
	return e->image && strcmp(e->image->reference, image->reference) == 0 &&
	       !kn_digest_is(&e->image->digest, &image->digest);
}

/*
 * Functions go on with the new one, as after a deploy; until then, and when they cannot, the old one
 * keeps its files, since the table holds it. Starting a change may move the table: one at a time.
 */
void change_refresh(struct kn_control *ctl, const struct kn_image *image)
{
	for (size_t i = 0; i < ctl->n_entries; i++) {
		const struct entry *e = &ctl->entries[i];
		if (image->kind == KN_IMAGE_OTHER ||
		    (!has_older(e, image) && !waits_for(ctl, e, image)))
			continue;
		const enum change_kind kind = e->why ? CHANGE_RESTORE : CHANGE_REFRESH;
		struct kn_function *fn = parsed_again(e->fn);
		if (fn)
			change_start(ctl, NULL, fn, kind);
	}
}

/* ---- secrets -------------------------------------------------------------------------------- */

static bool names(const struct kn_function *fn, const char *secret)
{
	for (size_t i = 0; fn && i < fn->secrets.n; i++) {
		if (strcmp(fn->secrets.at[i], secret) == 0)
			return true;
	}
	return false;
}

void change_reload(struct kn_control *ctl, const char *secret)
{
	for (size_t i = 0; i < ctl->n_entries; i++) {
		const struct entry *e = &ctl->entries[i];
		if (!names(e->fn, secret))
			continue;
		const enum change_kind kind = e->why ? CHANGE_RESTORE : CHANGE_REFRESH;
		struct kn_function *fn = parsed_again(e->fn);
		if (fn)
			change_start(ctl, NULL, fn, kind);
	}
}

const char *secret_user(const struct kn_control *ctl, const char *secret)
{
	for (size_t i = 0; i < ctl->n_entries; i++) {
		const struct entry *e = &ctl->entries[i];
		if (names(e->fn, secret) || names(e->old_fn, secret))
			return e->fn->name;
	}
	for (const struct change *ch = ctl->changes; ch; ch = ch->next) {
		if (names(ch->fn, secret))
			return ch->fn->name;
	}
	return NULL;
}

/* ---- what cannot be called ------------------------------------------------------------------ */

bool kn_control_restoring(const struct kn_control *ctl)
{
	const struct change *ch = ctl->changes;

	while (ch && ch->kind != CHANGE_RESTORE)
		ch = ch->next;
	return ch != NULL;
}

bool kn_control_why_not(const struct kn_control *ctl, struct kn_view name, const char **ret_why)
{
	for (const struct change *ch = ctl->changes; ch; ch = ch->next)
		if (ch->kind == CHANGE_RESTORE && ch->fn &&
		    kn_view_is(name, kn_view_of(ch->fn->name))) {
			*ret_why = NULL;
			return true;
		}
	const struct entry *e = entry_find(ctl, name);
	if (e)
		*ret_why = e->why;
	return e != NULL;
}

/* ---- deleting ------------------------------------------------------------------------------ */

static void on_deleted(const struct kn_err *err, void *arg)
{
	struct change *ch = arg;
	struct kn_http_exchange *x = ch->x;

	if (err) {
		ch->err = *err;
		change_fail(ch, "nothing was changed");
		return;
	}
	/* A function that could not run is not in the engine: that it is missing there is fine. */
	(void)!kn_engine_remove(ch->ctl->config.engine, kn_view_of(ch->name), NULL, NULL, NULL);
	entry_remove(ch->ctl, kn_view_of(ch->name));
	kn_log(KN_INFO, "function removed", KN_S("fn", ch->name));
	change_free(ch);
	if (x)
		kn_http_reply(x, 202, NULL, 0, KN_VIEW_NULL);
}

void change_delete(struct kn_control *ctl, struct kn_http_exchange *x, struct kn_view name)
{
	struct change *ch = change_new(ctl, x);

	if (!ch) {
		kn_reply_error(x, 503, "out of memory", "try again soon");
		return;
	}
	memcpy(ch->name, name.ptr, kn_min(name.len, sizeof(ch->name) - 1));
	if (kn_store_delete(ctl->config.store, KN_TABLE_FUNCTION, name, on_deleted, ch, &ch->err) < 0)
		change_fail(ch, "nothing was changed");
}
