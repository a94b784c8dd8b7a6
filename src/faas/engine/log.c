#include <stdio.h>
#include <stdlib.h>

#include "base/time.h"
#include "faas/engine/service.h"

/* Longer lines than drivers promise are cut, so that one line never eats the ring. */
enum { MAX_LINE = 4096 };

struct kn_log_entry {
	struct kn_log_entry *next;
	uint64_t wall_ns;
	enum kn_stream stream;
	char instance[KN_INSTANCE_ID + 1];
	size_t len;
	char text[];
};

static void on_window(struct kn_timer *t);

void kn_log_ring_init(struct kn_log_ring *r, struct kn_loop *loop, size_t max_bytes)
{
	*r = (struct kn_log_ring){ .max_bytes = max_bytes, .loop = loop };
	r->last = &r->first;
	r->window.call = on_window;
}

static void drop_oldest(struct kn_log_ring *r)
{
	struct kn_log_entry *e = r->first;

	r->first = e->next;
	if (!r->first)
		r->last = &r->first;
	r->bytes -= sizeof(*e) + e->len;
	free(e);
}

static void remember(struct kn_log_ring *r, const struct kn_log_line *line)
{
	size_t bytes = sizeof(struct kn_log_entry) + line->text.len;

	if (bytes > r->max_bytes)
		return;
	while (r->first && r->bytes + bytes > r->max_bytes)
		drop_oldest(r);
	struct kn_log_entry *e = malloc(bytes);
	if (!e)
		return;
	*e = (struct kn_log_entry){ .wall_ns = line->wall_ns,
				    .stream = line->stream,
				    .len = line->text.len };
	size_t id_len = kn_min(strlen(line->instance), (size_t)KN_INSTANCE_ID);
	memcpy(e->instance, line->instance, id_len);
	if (line->text.len)
		memcpy(e->text, line->text.ptr, line->text.len);
	*r->last = e;
	r->last = &e->next;
	r->bytes += bytes;
}

void kn_log_ring_add(struct kn_log_ring *r, const char *instance, enum kn_stream stream,
		     struct kn_view text)
{
	struct kn_log_follow *next;

	text.len = kn_min(text.len, (size_t)MAX_LINE);
	struct kn_log_line line = {
		.wall_ns = kn_wall_ns(), .instance = instance, .stream = stream, .text = text
	};
	remember(r, &line);
	for (struct kn_log_follow *f = r->followers; f; f = next) {
		next = f->next;
		f->line(f, &line);
	}
}

/* ---- floods --------------------------------------------------------------------------------- */

static void tell_dropped(struct kn_log_ring *r)
{
	char text[96];

	snprintf(text, sizeof(text), "%llu lines dropped: at most %d lines and %d KiB a second",
		 (unsigned long long)r->dropped, KN_LOG_LINES_PER_S, KN_LOG_BYTES_PER_S >> 10);
	r->dropped = 0;
	kn_log_ring_add(r, r->dropped_by, KN_MONITOR, kn_view_of(text));
}

static void on_window(struct kn_timer *t)
{
	tell_dropped(kn_container_of(t, struct kn_log_ring, window));
}

static bool is_too_much(struct kn_log_ring *r, size_t bytes)
{
	uint64_t now = kn_now_ns();

	if (now - r->window_ns >= KN_NS_PER_S) {
		r->window_ns = now;
		r->lines = r->line_bytes = 0;
	}
	if (r->lines >= KN_LOG_LINES_PER_S || r->line_bytes + bytes > KN_LOG_BYTES_PER_S)
		return true;
	r->lines++;
	r->line_bytes += (uint32_t)bytes;
	return false;
}

void kn_log_ring_offer(struct kn_log_ring *r, const char *instance, enum kn_stream stream,
		       struct kn_view text)
{
	if (!is_too_much(r, kn_min(text.len, (size_t)MAX_LINE))) {
		kn_log_ring_add(r, instance, stream, text);
		return;
	}
	r->dropped++;
	snprintf(r->dropped_by, sizeof(r->dropped_by), "%s", instance);
	/* Without memory for the timer the next flood tells. */
	if (!r->window.loop)
		(void)!kn_timer_start(r->loop, &r->window, r->window_ns + KN_NS_PER_S, NULL);
}

/* ---- reading -------------------------------------------------------------------------------- */

static bool wanted(const struct kn_log_entry *e, uint64_t since_ns, const char *instance)
{
	return e->wall_ns >= since_ns && (!instance || strcmp(e->instance, instance) == 0);
}

void kn_log_ring_each(const struct kn_log_ring *r, size_t tail, uint64_t since_ns,
		      const char *instance, void (*each)(const struct kn_log_line *line, void *arg),
		      void *arg)
{
	size_t n = 0;

	for (const struct kn_log_entry *e = r->first; e; e = e->next)
		n += wanted(e, since_ns, instance);
	size_t skip = tail && n > tail ? n - tail : 0;
	for (const struct kn_log_entry *e = r->first; e; e = e->next) {
		if (!wanted(e, since_ns, instance))
			continue;
		if (skip > 0) {
			skip--;
			continue;
		}
		struct kn_log_line line = { .wall_ns = e->wall_ns,
					    .instance = e->instance,
					    .stream = e->stream,
					    .text = { e->text, e->len } };
		each(&line, arg);
	}
}

void kn_log_ring_follow(struct kn_log_ring *r, struct kn_log_follow *f)
{
	f->next = r->followers;
	f->prev = &r->followers;
	if (f->next)
		f->next->prev = &f->next;
	r->followers = f;
}

void kn_engine_unfollow(struct kn_log_follow *f)
{
	if (!f->prev)
		return;
	*f->prev = f->next;
	if (f->next)
		f->next->prev = f->prev;
	f->next = NULL;
	f->prev = NULL;
}

void kn_log_ring_fini(struct kn_log_ring *r)
{
	kn_timer_stop(&r->window);
	while (r->followers) {
		struct kn_log_follow *f = r->followers;
		kn_engine_unfollow(f);
		if (f->gone)
			f->gone(f);
	}
	while (r->first)
		drop_oldest(r);
}
