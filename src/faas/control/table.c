#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "faas/control/private.h"

/* Where name stands, or would stand. */
static size_t place_of(const struct kn_control *ctl, struct kn_view name, bool *ret_there)
{
	size_t low = 0, high = ctl->n_entries;

	*ret_there = false;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = kn_view_order(kn_view_of(ctl->entries[mid].fn->name), name);
		if (order == 0) {
			*ret_there = true;
			return mid;
		}
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct entry *entry_find(const struct kn_control *ctl, struct kn_view name)
{
	bool there;
	size_t i = place_of(ctl, name, &there);

	return there ? &ctl->entries[i] : NULL;
}

static void entry_fini(struct entry *e)
{
	kn_function_unref(e->fn);
	kn_image_unref(e->image);
	kn_function_unref(e->old_fn);
	kn_image_unref(e->old_image);
	free(e->why);
}

static int make_room(struct kn_control *ctl, size_t at)
{
	struct entry *grown = realloc(ctl->entries, (ctl->n_entries + 1) * sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	ctl->entries = grown;
	memmove(grown + at + 1, grown + at, (ctl->n_entries - at) * sizeof(*grown));
	ctl->n_entries++;
	return 0;
}

int entry_put(struct kn_control *ctl, struct kn_function *fn, struct kn_image *image,
              const char *why)
{
	struct entry e = { .fn = fn, .image = image, .why = why ? strdup(why) : NULL };
	bool there;
	size_t i = place_of(ctl, kn_view_of(fn->name), &there);

	if ((why && !e.why) || (!there && make_room(ctl, i) < 0)) {
		entry_fini(&e);
		return -ENOMEM;
	}
	assert(ctl->entries); /* there is one, or room for one was made */
	if (there)
		entry_fini(&ctl->entries[i]);
	ctl->entries[i] = e;
	return 0;
}

int entry_roll(struct kn_control *ctl, struct kn_function *fn, struct kn_image *image)
{
	struct entry *e = entry_find(ctl, kn_view_of(fn->name));

	if (!e)
		return entry_put(ctl, fn, image, NULL);
	if (e->old_fn) {   /* a second update before the first was ready: that one never served */
		kn_function_unref(e->fn);
		kn_image_unref(e->image);
	} else {
		e->old_fn = e->fn;
		e->old_image = e->image;
	}
	e->fn = fn;
	e->image = image;
	free(e->why);
	e->why = NULL;
	e->unsaved = false;
	return 0;
}

void entry_rolled(struct entry *e, bool done)
{
	struct kn_function *fn = done ? e->old_fn : e->fn;
	struct kn_image *image = done ? e->old_image : e->image;

	if (!e->old_fn)
		return;
	if (!done) {
		e->fn = e->old_fn;
		e->image = e->old_image;
	}
	e->old_fn = NULL;
	e->old_image = NULL;
	e->unsaved = !done;
	kn_function_unref(fn);
	kn_image_unref(image);
}

void entry_remove(struct kn_control *ctl, struct kn_view name)
{
	bool there;
	size_t i = place_of(ctl, name, &there);

	if (!there)
		return;
	entry_fini(&ctl->entries[i]);
	ctl->n_entries--;
	memmove(ctl->entries + i, ctl->entries + i + 1,
	        (ctl->n_entries - i) * sizeof(*ctl->entries));
}

void entries_free(struct kn_control *ctl)
{
	for (size_t i = 0; i < ctl->n_entries; i++)
		entry_fini(&ctl->entries[i]);
	free(ctl->entries);
}

json_t *entry_status(const struct kn_control *ctl, const struct entry *e, bool usage)
{
	struct kn_function_live live = { .invocations = 0 };

	if (e->why || kn_engine_live(ctl->config.engine, kn_view_of(e->fn->name), usage, &live,
	                             NULL) < 0)
		live.last_error = e->why;
	return kn_function_status(e->fn, &live, usage);
}
