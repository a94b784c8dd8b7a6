/*
 * `kiln top`: what the functions of a node do now. Everything comes from /metrics and from the list
 * of functions, so that it works against a node anywhere; rates are differences of two pages.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/time.h"
#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"
#include "cmd/kiln/samples.h"

enum { NAME_LEN = 64, BOUNDS = 24, STATES = 5, MIN_INTERVAL_MS = 100 };

static const char *const STATE_NAMES[STATES] = { "starting", "ready", "busy", "draining",
						 "stopping" };

/* A function on one page. */
struct row {
	char name[NAME_LEN];
	double states[STATES], calls, waiting, cold, prewarmed, warm, memory, cpu_s;
	double bounds[BOUNDS], buckets[BOUNDS]; /* cumulative, over all status codes */
	size_t n_bounds;
};

struct page {
	struct row *rows;
	size_t n;
	uint64_t at_ns;
	double instances, max_instances, node_cpu_s, node_memory;
	bool failed;
};

struct top {
	struct kn_node_args args;
	uint64_t interval_ms;
	bool once;
	struct kn_node *node;
	struct page before, now;
	json_t *functions; /* for their classes */
};

static volatile sig_atomic_t interrupted;

/* ---- a page ----------------------------------------------------------------------------------- */

static struct row *row_of(struct page *p, struct kn_view label)
{
	struct kn_view name = label;

	for (size_t i = 0; i < label.len; i++) /* NAME.NAMESPACE */
		if (label.ptr[i] == '.') {
			name.len = i;
			break;
		}
	if (name.len == 0 || name.len >= NAME_LEN)
		return NULL;
	for (size_t i = 0; i < p->n; i++)
		if (kn_view_is(kn_view_of(p->rows[i].name), name))
			return &p->rows[i];
	struct row *grown = realloc(p->rows, (p->n + 1) * sizeof(*grown));
	if (!grown) {
		p->failed = true;
		return NULL;
	}
	p->rows = grown;
	grown += p->n++;
	*grown = (struct row){ .n_bounds = 0 };
	memcpy(grown->name, name.ptr, name.len);
	return grown;
}

static void add_bucket(struct row *r, const struct kn_sample *s)
{
	struct kn_view le = kn_sample_label(s, "le");
	char text[32];
	size_t i = 0;

	if (le.len == 0 || le.len >= sizeof(text))
		return;
	memcpy(text, le.ptr, le.len);
	text[le.len] = '\0';
	double bound = strtod(text, NULL); /* knows +Inf */
	while (i < r->n_bounds && r->bounds[i] != bound)
		i++;
	if (i == BOUNDS)
		return;
	if (i == r->n_bounds)
		r->bounds[r->n_bounds++] = bound;
	r->buckets[i] += s->value;
}

static void add_state(struct row *r, const struct kn_sample *s)
{
	struct kn_view state = kn_sample_label(s, "state");

	for (size_t i = 0; i < STATES; i++)
		if (kn_view_is(state, kn_view_of(STATE_NAMES[i])))
			r->states[i] += s->value;
}

static void add_start(struct row *r, const struct kn_sample *s)
{
	struct kn_view start = kn_sample_label(s, "start");

	if (kn_view_is(start, KN_VIEW("cold")))
		r->cold += s->value;
	else if (kn_view_is(start, KN_VIEW("prewarmed")))
		r->prewarmed += s->value;
	else
		r->warm += s->value;
}

static void add_to_row(struct row *r, const struct kn_sample *s)
{
	if (kn_view_is(s->name, KN_VIEW("gateway_function_invocation_started")))
		r->calls += s->value;
	else if (kn_view_is(s->name, KN_VIEW("gateway_functions_seconds_bucket")))
		add_bucket(r, s);
	else if (kn_view_is(s->name, KN_VIEW("kiln_instances")))
		add_state(r, s);
	else if (kn_view_is(s->name, KN_VIEW("kiln_calls_total")))
		add_start(r, s);
	else if (kn_view_is(s->name, KN_VIEW("kiln_queue_length")))
		r->waiting += s->value;
	else if (kn_view_is(s->name, KN_VIEW("kiln_memory_bytes")))
		r->memory += s->value;
	else if (kn_view_is(s->name, KN_VIEW("kiln_cpu_seconds_total")))
		r->cpu_s += s->value;
}

static void on_sample(const struct kn_sample *s, void *arg)
{
	struct page *p = arg;
	struct kn_view function = kn_sample_label(s, "function_name");
	struct row *r = function.len ? row_of(p, function) : NULL;

	if (r)
		add_to_row(r, s);
	else if (kn_view_is(s->name, KN_VIEW("kiln_node_instances")))
		p->instances = s->value;
	else if (kn_view_is(s->name, KN_VIEW("kiln_node_max_instances")))
		p->max_instances = s->value;
	else if (kn_view_is(s->name, KN_VIEW("process_cpu_seconds_total")))
		p->node_cpu_s = s->value;
	else if (kn_view_is(s->name, KN_VIEW("process_resident_memory_bytes")))
		p->node_memory = s->value;
}

static int fetch(struct top *t, struct kn_err *err)
{
	kn_auto(kn_node_reply_fini) struct kn_node_reply reply = KN_NODE_REPLY_INIT;
	const struct kn_node_request metrics = { .path = "/metrics" };
	const struct kn_node_request list = { .path = "/system/functions" };
	json_t *functions = NULL;

	int r = kn_node_send(t->node, &metrics, &reply, err);
	if (r == 0)
		r = kn_node_check(t->node, &reply, err);
	if (r == 0)
		r = kn_node_json(t->node, &list, &functions, err);
	if (r < 0)
		return r;
	json_decref(t->functions);
	t->functions = functions;
	free(t->before.rows);
	t->before = t->now;
	t->now = (struct page){ .at_ns = kn_now_ns() };
	kn_samples_each(kn_buf_view(&reply.body), on_sample, &t->now);
	return t->now.failed ? kn_fail(err, ENOMEM, "out of memory") : 0;
}

/* ---- what it means ---------------------------------------------------------------------------- */

static const struct row *earlier(const struct top *t, const struct row *r)
{
	for (size_t i = 0; i < t->before.n; i++)
		if (strcmp(t->before.rows[i].name, r->name) == 0)
			return &t->before.rows[i];
	return NULL;
}

static double seconds_between(const struct top *t)
{
	return t->before.at_ns ? (double)(t->now.at_ns - t->before.at_ns) / 1e9 : 0;
}

/* A node that began again counts from zero. */
static double rate(const struct top *t, double now, double before)
{
	double s = seconds_between(t);

	return s > 0 && now >= before ? (now - before) / s : 0;
}

static double in_bucket(const struct row *r, const struct row *before, size_t i)
{
	return r->buckets[i] - (before && before->n_bounds == r->n_bounds ? before->buckets[i] : 0);
}

/* As Prometheus' histogram_quantile(): calls are spread evenly within a bucket. */
static double quantile(const struct row *r, const struct row *before, double q)
{
	double all = r->n_bounds ? in_bucket(r, before, r->n_bounds - 1) : 0;
	double low = 0, below = 0;

	if (all <= 0)
		return -1;
	for (size_t i = 0; i < r->n_bounds; i++) {
		double n = in_bucket(r, before, i);
		if (n >= q * all) {
			if (isinf(r->bounds[i]))
				return low;
			return n > below ? low + (r->bounds[i] - low) * (q * all - below) / (n - below)
					 : r->bounds[i];
		}
		low = r->bounds[i];
		below = n;
	}
	return low;
}

struct shown {
	const char *class;
	double rps, p50_s, p99_s, cpu_percent;
};

static const char *class_of(const struct top *t, const char *name)
{
	const json_t *fn;
	size_t i;

	json_array_foreach (t->functions, i, fn) {
		const char *here = json_string_value(json_object_get(fn, "name"));
		const json_t *kiln = json_object_get(fn, "kiln");
		const char *class = json_string_value(json_object_get(kiln, "class"));
		if (here && class && strcmp(here, name) == 0)
			return class;
	}
	return "-";
}

static struct shown work_out(const struct top *t, const struct row *r)
{
	const struct row *before = earlier(t, r);
	struct shown s = { .class = class_of(t, r->name) };

	s.rps = before ? rate(t, r->calls, before->calls) : 0;
	s.cpu_percent = before ? 100 * rate(t, r->cpu_s, before->cpu_s) : 0;
	if (quantile(r, before, 0.5) < 0)
		before = NULL; /* no call since: those of the node's life */
	s.p50_s = quantile(r, before, 0.5);
	s.p99_s = quantile(r, before, 0.99);
	return s;
}

/* ---- showing ---------------------------------------------------------------------------------- */

static void add_time(struct kn_grid *grid, double s)
{
	char text[KN_SHORT] = "-";

	if (s >= 0)
		kn_show_ns((uint64_t)(s * 1e9), text);
	kn_grid_add(grid, "%s", text);
}

static void add_row(struct kn_grid *grid, const struct top *t, const struct row *r)
{
	struct shown s = work_out(t, r);
	char memory[KN_SHORT];

	kn_show_bytes((uint64_t)r->memory, memory);
	kn_grid_add(grid, "%s", r->name);
	kn_grid_add(grid, "%s", s.class);
	kn_grid_add(grid, "%.0f", r->states[0]);
	kn_grid_add(grid, "%.0f", r->states[1]);
	kn_grid_add(grid, "%.0f", r->states[2]);
	kn_grid_add(grid, "%.0f", r->states[3] + r->states[4]);
	kn_grid_add(grid, "%.0f", r->waiting);
	kn_grid_add(grid, "%.1f", s.rps);
	add_time(grid, s.p50_s);
	add_time(grid, s.p99_s);
	kn_grid_add(grid, "%.0f", r->cold);
	kn_grid_add(grid, "%.0f", r->prewarmed + r->warm);
	kn_grid_add(grid, "%.1f", s.cpu_percent);
	kn_grid_add(grid, "%s", memory);
}

static int show(const struct top *t, struct kn_err *err)
{
	static const char *const heads[] = { "NAME",  "CLASS", "START", "READY", "BUSY",
					     "LEAVE", "QUEUE", "RPS",	"P50",	 "P99",
					     "COLD",  "WARM",  "CPU%",	"MEMORY" };
	kn_auto(kn_grid_fini) struct kn_grid grid;
	char memory[KN_SHORT];

	kn_show_bytes((uint64_t)t->now.node_memory, memory);
	printf("%s: %zu functions, %.0f of %.0f instances; kilnd takes %.1f %% of a core and %s\n\n",
	       kn_node_gateway(t->node), t->now.n, t->now.instances, t->now.max_instances,
	       100 * rate(t, t->now.node_cpu_s, t->before.node_cpu_s), memory);
	kn_grid_init(&grid, KN_ARRAY_LEN(heads));
	for (size_t i = 0; i < KN_ARRAY_LEN(heads); i++)
		kn_grid_add(&grid, "%s", heads[i]);
	for (size_t i = 0; i < t->now.n; i++)
		add_row(&grid, t, &t->now.rows[i]);
	return kn_grid_print(&grid, stdout, err);
}

static json_t *row_json(const struct top *t, const struct row *r)
{
	struct shown s = work_out(t, r);
	json_t *states = json_object();
	json_t *o = json_pack("{s:s, s:s, s:o, s:I, s:f, s:I, s:I, s:I, s:f, s:I}", "name", r->name,
			      "class", s.class, "instances", states, "waiting",
			      (json_int_t)r->waiting, "rps", s.rps, "cold", (json_int_t)r->cold,
			      "prewarmed", (json_int_t)r->prewarmed, "warm", (json_int_t)r->warm,
			      "cpuPercent", s.cpu_percent, "memoryBytes", (json_int_t)r->memory);

	for (size_t i = 0; o && i < STATES; i++)
		json_object_set_new(states, STATE_NAMES[i],
				    json_integer((json_int_t)r->states[i]));
	if (o && s.p50_s >= 0) {
		json_object_set_new(o, "p50Ms", json_real(s.p50_s * 1e3));
		json_object_set_new(o, "p99Ms", json_real(s.p99_s * 1e3));
	}
	return o;
}

static void show_json(const struct top *t)
{
	json_t *functions = json_array();
	kn_auto(json_decref) json_t *o = json_pack(
		"{s:s, s:{s:I, s:I, s:f, s:I}, s:o}", "gateway", kn_node_gateway(t->node), "node",
		"instances", (json_int_t)t->now.instances, "maxInstances",
		(json_int_t)t->now.max_instances, "cpuPercent",
		100 * rate(t, t->now.node_cpu_s, t->before.node_cpu_s), "memoryBytes",
		(json_int_t)t->now.node_memory, "functions", functions);

	for (size_t i = 0; i < t->now.n; i++)
		json_array_append_new(functions, row_json(t, &t->now.rows[i]));
	kn_show_json(o);
}

/* ---- the terminal ----------------------------------------------------------------------------- */

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* Keys come at once and unseen. False: no terminal, and nothing was changed. */
static bool enter_terminal(struct termios *ret_before)
{
	struct sigaction action = { .sa_handler = on_signal };

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) ||
	    tcgetattr(STDIN_FILENO, ret_before) < 0)
		return false;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	struct termios raw = *ret_before;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	return tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

/* Wait for the next page; true when the user wants to go. */
static bool wait_or_quit(const struct top *t, bool keys)
{
	struct pollfd p = { .fd = keys ? STDIN_FILENO : -1, .events = POLLIN };
	uint64_t until = kn_now_ns() + t->interval_ms * KN_NS_PER_MS;

	for (uint64_t now; !interrupted && (now = kn_now_ns()) < until;) {
		char key = 0;
		if (poll(&p, 1, (int)((until - now) / KN_NS_PER_MS) + 1) <= 0 || !p.revents)
			continue;
		if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q')
			return true;
	}
	return interrupted;
}

static int watch(struct top *t, struct kn_err *err)
{
	struct termios before;
	bool terminal = !t->args.json && enter_terminal(&before);
	int r = 0;

	do {
		r = fetch(t, err);
		if (r < 0)
			break;
		if (t->args.json) {
			show_json(t);
		} else {
			fputs(terminal ? "\033[H\033[2J" : "", stdout);
			r = show(t, err);
			fputs(terminal ? "\nq ends this\n" : "\n", stdout);
		}
		if (fflush(stdout) != 0)
			break;
	} while (r == 0 && !wait_or_quit(t, terminal));
	if (terminal)
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
	return r;
}

static int show_once(struct top *t, struct kn_err *err)
{
	int r = fetch(t, err);

	if (r == 0 && !wait_or_quit(t, false))
		r = fetch(t, err);
	if (r == 0 && t->args.json)
		show_json(t);
	else if (r == 0)
		r = show(t, err);
	return r;
}

static int run(const struct kn_command *cmd, struct top *t)
{
	struct kn_err err = KN_ERR_INIT;
	int r = kn_node_open(&t->args, &t->node, &err);

	if (r == 0)
		r = t->once ? show_once(t, &err) : watch(t, &err);
	int code = r < 0 ? kn_cli_failed(cmd, &err) : kn_cli_done(cmd);
	kn_node_close(t->node);
	json_decref(t->functions);
	free(t->before.rows);
	free(t->now.rows);
	return code;
}

int kn_verb_top(int argc, char **argv)
{
	struct top t = { .interval_ms = 1000 };
	const struct kn_arg args[] = {
		{ "interval", 'i', KN_ARG_DURATION, &t.interval_ms, "TIME", NULL,
		  "between two looks (default 1s)" },
		{ "once", 0, KN_ARG_FLAG, &t.once, NULL, NULL,
		  "look twice, print once, and end: for scripts, with --json" },
		KN_NODE_ARGS(t.args),
	};
	const struct kn_command cmd = {
		.name = "kiln top",
		.summary = "Watch what the functions of a node do.",
		.usage = "[OPTION]...",
		.more = "START, READY, BUSY, LEAVE count instances, QUEUE requests that wait for one. RPS and\n"
			"CPU% are of the time since the last look; so are P50 and P99, or of the node's life\n"
			"when there was no call since. COLD and WARM count requests. q ends it.\n"
			"\n"
			"Example:\n"
			"  kiln top --once --json | jq '.functions[] | {name, rps, p99Ms}'\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r != KN_CLI_RUN)
		return r;
	if (t.interval_ms < MIN_INTERVAL_MS || t.interval_ms > 3600 * 1000)
		return kn_cli_misused(&cmd, "--interval is from 100ms to 1h");
	return run(&cmd, &t);
}
