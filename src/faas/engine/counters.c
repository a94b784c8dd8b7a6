/*
 * What drivers count beside what the engine counts (kn_sandbox_ops.counters). An instance's numbers
 * end with it, so they are added to those of its service then: a counter of a function rises across
 * restarts and updates, as Prometheus expects. A gauge is only that of living instances.
 */
#include <errno.h>
#include <stdlib.h>

#include "faas/engine/service.h"

/* Longest name, help and labels of a series that are kept. */
enum { SERIES_MAX = 512 };

struct kn_series {
	const struct kn_service *service;
	char *name, *help, *labels; /* one allocation, at name; labels as in the exposition format */
	bool gauge;
	uint64_t value;
};

struct gather {
	struct kn_series_list *list;
	const struct kn_service *service;
	bool ended; /* gauges are left out */
};

static void print_labels(struct kn_buf *b, const struct kn_counter *c)
{
	for (size_t i = 0; i < KN_COUNTER_LABELS && c->labels[i].name; i++) {
		kn_buf_printf(b, ",%s=\"", c->labels[i].name);
		kn_metric_escape(b, c->labels[i].value);
		kn_buf_adds(b, "\"");
	}
}

static struct kn_series *find(const struct kn_series_list *l, const struct kn_service *s,
			      const char *name, const char *labels)
{
	for (size_t i = 0; i < l->n; i++) {
		struct kn_series *one = &l->at[i];
		if (one->service == s && strcmp(one->name, name) == 0 &&
		    strcmp(one->labels, labels) == 0)
			return one;
	}
	return NULL;
}

static struct kn_series *append(struct kn_series_list *l, const struct kn_series *like,
				uint64_t value)
{
	size_t name = strlen(like->name) + 1, help = strlen(like->help) + 1;
	size_t labels = strlen(like->labels) + 1;
	struct kn_series *grown = realloc(l->at, (l->n + 1) * sizeof(*grown));

	if (grown)
		l->at = grown;
	char *text = grown ? malloc(name + help + labels) : NULL;
	if (!text)
		return NULL; /* this number is missing from the page, the others are not */
	struct kn_series *one = &l->at[l->n++];
	*one = (struct kn_series){ .service = like->service,
				   .name = text,
				   .help = text + name,
				   .labels = text + name + help,
				   .gauge = like->gauge,
				   .value = value };
	memcpy(one->name, like->name, name);
	memcpy(one->help, like->help, help);
	memcpy(one->labels, like->labels, labels);
	return one;
}

static void add(struct kn_series_list *l, const struct kn_series *like)
{
	struct kn_series *one = find(l, like->service, like->name, like->labels);

	if (one)
		one->value += like->value;
	else
		(void)append(l, like, like->value);
}

static void on_counter(const struct kn_counter *c, void *arg)
{
	const struct gather *g = arg;
	kn_auto(kn_buf_fini) struct kn_buf labels = KN_BUF_INIT;

	if (c->gauge && g->ended)
		return;
	kn_buf_adds(&labels, "");
	print_labels(&labels, c);
	if (labels.failed || labels.len > SERIES_MAX)
		return;
	char name[SERIES_MAX], help[SERIES_MAX], none[] = "";
	snprintf(name, sizeof(name), "%s", c->name);
	snprintf(help, sizeof(help), "%s", c->help);
	add(g->list, &(struct kn_series){ .service = g->service,
					  .name = name,
					  .help = help,
					  .labels = labels.ptr ? labels.ptr : none,
					  .gauge = c->gauge,
					  .value = c->value });
}

static void gather_pool(const struct kn_pool *p, const struct gather *g)
{
	for (const struct kn_instance *i = kn_pool_first(p); i; i = i->next)
		if (i->sandbox && i->sandbox->ops->counters)
			i->sandbox->ops->counters(i->sandbox, on_counter, (void *)(uintptr_t)g);
}

static void gather_service(const struct kn_service *s, struct kn_series_list *l)
{
	const struct gather g = { .list = l, .service = s };

	for (size_t i = 0; i < s->ended.n; i++)
		add(l, &s->ended.at[i]);
	gather_pool(s->pool, &g);
	for (size_t n = 0; n < s->n_old; n++)
		gather_pool(s->old[n], &g);
}

void kn_series_keep(struct kn_service *s, struct kn_sandbox *sb)
{
	const struct gather g = { .list = &s->ended, .service = s, .ended = true };

	if (sb && sb->ops->counters)
		sb->ops->counters(sb, on_counter, (void *)(uintptr_t)&g);
}

void kn_series_fini(struct kn_series_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->at[i].name);
	free(l->at);
	*l = (struct kn_series_list){ .n = 0 };
}

/* All series of one name must stand together. */
static int by_name(const void *a, const void *b)
{
	const struct kn_series *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	if (order == 0)
		order = strcmp(x->service->fn->name, y->service->fn->name);
	return order ? order : strcmp(x->labels, y->labels);
}

void kn_series_print(const struct kn_service *services, struct kn_buf *ret)
{
	struct kn_series_list l = { .n = 0 };
	const char *last = "";

	for (const struct kn_service *s = services; s; s = s->next)
		gather_service(s, &l);
	if (l.n)
		qsort(l.at, l.n, sizeof(l.at[0]), by_name);
	for (size_t i = 0; i < l.n; i++) {
		const struct kn_series *one = &l.at[i];
		if (strcmp(last, one->name) != 0)
			kn_metric_family(ret, one->name, one->gauge ? KN_GAUGE : KN_COUNTER,
					 one->help);
		last = one->name;
		kn_buf_printf(ret, "%s{function_name=\"%s.%s\"%s} %llu\n", one->name,
			      one->service->fn->name, one->service->fn->ns, one->labels,
			      (unsigned long long)one->value);
	}
	kn_series_fini(&l);
}

int kn_engine_counters(const struct kn_engine *e, struct kn_view name,
		       void (*each)(const char *counter, const char *labels, uint64_t value,
				    void *arg),
		       void *arg, struct kn_err *err)
{
	struct kn_series_list l = { .n = 0 };
	const struct kn_service *s = kn_engine_find((struct kn_engine *)(uintptr_t)e, name);

	if (!s)
		return kn_fail(err, ENOENT, "there is no function '%.*s'", (int)name.len, name.ptr);
	gather_service(s, &l);
	if (l.n)
		qsort(l.at, l.n, sizeof(l.at[0]), by_name);
	for (size_t i = 0; i < l.n; i++)
		each(l.at[i].name, l.at[i].labels[0] ? l.at[i].labels + 1 : "", l.at[i].value, arg);
	kn_series_fini(&l);
	return 0;
}
