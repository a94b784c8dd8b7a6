#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/time.h"
#include "faas/control/private.h"

/* ---- reading ------------------------------------------------------------------------------- */

static bool namespace_is_ours(const struct call *c)
{
	struct kn_view ns;

	if (!query_text(c->x, "namespace", &ns))
		return false;
	if (ns.len == 0 || kn_view_is(ns, KN_VIEW(KN_NAMESPACE)))
		return true;
	kn_reply_error(c->x, 404, "there is no such namespace", "this node has " KN_NAMESPACE);
	return false;
}

void list_functions(const struct call *c)
{
	if (!namespace_is_ours(c))
		return;
	json_t *list = json_array();
	for (size_t i = 0; i < c->ctl->n_entries && list; i++) {
		json_t *one = entry_status(c->ctl, &c->ctl->entries[i], false);
		if (json_array_append_new(list, one) < 0) {
			json_decref(list);
			list = NULL;
		}
	}
	kn_reply_json(c->x, 200, list);
}

/* The entry that a path or body names; NULL after answering. */
static struct entry *find_or_answer(const struct call *c, struct kn_view text)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_view name = KN_VIEW_NULL;

	if (kn_function_split(text, &name, &err) < 0) {
		kn_reply_fail(c->x, &err, NULL);
		return NULL;
	}
	struct entry *e = entry_find(c->ctl, name);
	if (!e) {
		kn_fail(&err, ENOENT, "there is no function '%.*s'", (int)name.len, name.ptr);
		kn_reply_fail(c->x, &err, "see what there is with: kiln list");
	}
	return e;
}

void describe_function(const struct call *c)
{
	if (!namespace_is_ours(c))
		return;
	const struct entry *e = find_or_answer(c, c->rest);
	if (e)
		kn_reply_json(c->x, 200, entry_status(c->ctl, e, query_is_true(c->x, "usage")));
}

static void add_instance(const struct kn_engine_instance *i, void *arg)
{
	char started[KN_RFC3339_LEN];

	kn_rfc3339(i->started_wall_ns, started);
	json_array_append_new(arg, json_pack("{s:s, s:s, s:s, s:I, s:I, s:f, s:I, s:f}", "id", i->id, "state",
	                                     i->state, "started", started, "served",
	                                     (json_int_t)i->served, "inFlight",
	                                     (json_int_t)i->in_flight, "startMs",
	                                     (double)i->start_ns / 1e6, "memoryBytes",
	                                     (json_int_t)i->memory_bytes, "cpuSeconds",
	                                     (double)i->cpu_ns / 1e9));
}

static void add_counter(const char *counter, const char *labels, uint64_t value, void *arg)
{
	json_array_append_new(arg, json_pack("{s:s, s:s, s:I}", "name", counter, "labels", labels,
	                                     "value", (json_int_t)value));
}

/* GET /kiln/v1/functions/NAME: the status, every instance, and the deployment to deploy it again. */
void describe_instances(const struct call *c)
{
	const struct entry *e = find_or_answer(c, c->rest);

	if (!e)
		return;
	json_t *o = entry_status(c->ctl, e, true);
	json_t *instances = json_array();
	/* One that is not in the engine has none. */
	(void)!kn_engine_instances(c->ctl->config.engine, kn_view_of(e->fn->name), add_instance,
	                           instances, NULL);
	json_object_set_new(o, "instances", instances);
	json_t *counters = json_array();
	(void)!kn_engine_counters(c->ctl->config.engine, kn_view_of(e->fn->name), add_counter, counters,
	                          NULL);
	if (json_array_size(counters))
		json_object_set(o, "counters", counters);
	json_decref(counters);
	json_object_set_new(o, "deployment", kn_function_deployment(e->fn));
	if (e->image)
		json_object_set_new(o, "imageDigest", json_string(e->image->digest.text));
	kn_reply_json(c->x, 200, o);
}

/* ---- changing ------------------------------------------------------------------------------ */

static struct kn_function *parse_or_answer(const struct call *c, const json_t *body)
{
	struct kn_function *fn = NULL;
	struct kn_err err = KN_ERR_INIT;

	if (kn_function_parse(body, &fn, &err) < 0)
		kn_reply_fail(c->x, &err, NULL);
	else
		fn->image = own_reference(c->ctl, c->x, fn->image);
	return fn;
}

static void create_parsed(const struct call *c, const json_t *body)
{
	kn_auto(kn_function_unref) struct kn_function *fn = parse_or_answer(c, body);

	if (!fn)
		return;
	if (entry_find(c->ctl, kn_view_of(fn->name)))
		kn_reply_error(c->x, 409, "a function of this name is there already",
		               "PUT updates it: kiln deploy, or faas-cli deploy --update");
	else if (c->ctl->n_entries >= MAX_FUNCTIONS)
		kn_reply_error(c->x, 507, "this node has as many functions as it can hold",
		               "remove one first");
	else
		change_start(c->ctl, c->x, kn_take_ptr(fn), CHANGE_CREATE);
}

static void update_parsed(const struct call *c, const json_t *body)
{
	kn_auto(kn_function_unref) struct kn_function *fn = parse_or_answer(c, body);

	if (!fn)
		return;
	const struct entry *e = entry_find(c->ctl, kn_view_of(fn->name));
	if (!e) {
		kn_reply_error(c->x, 404, "there is no function of this name to update",
		               "POST creates it");
		return;
	}
	fn->created_ns = e->fn->created_ns;
	change_start(c->ctl, c->x, kn_take_ptr(fn), CHANGE_UPDATE);
}

static void delete_parsed(const struct call *c, const json_t *body)
{
	static const char *const known[] = { "functionName", "namespace" };
	static const char *const needed[] = { "functionName", NULL };
	const char *name = "", *ns = "";
	struct kn_err err = KN_ERR_INIT;

	if (kn_json_require(body, needed, &err) < 0 ||
	    kn_json_known(body, known, KN_ARRAY_LEN(known), &err) < 0 ||
	    kn_json_str(body, "functionName", &name, &err) < 0 ||
	    kn_json_str(body, "namespace", &ns, &err) < 0) {
		kn_reply_fail(c->x, &err, "send {\"functionName\": \"NAME\"}");
		return;
	}
	if (ns[0] && strcmp(ns, KN_NAMESPACE) != 0) {
		kn_reply_error(c->x, 404, "there is no such namespace", "this node has " KN_NAMESPACE);
		return;
	}
	const struct entry *e = find_or_answer(c, kn_view_of(name));
	if (e)
		change_delete(c->ctl, c->x, kn_view_of(e->fn->name));
}

/* ---- scaling ------------------------------------------------------------------------------- */

static int read_scale(const json_t *body, uint64_t *ret_replicas, struct kn_err *err)
{
	static const char *const known[] = { "serviceName", "service", "replicas", "namespace" };
	static const char *const needed[] = { "replicas", NULL };
	const char *ignored = "";

	if (kn_json_require(body, needed, err) < 0 ||
	    kn_json_known(body, known, KN_ARRAY_LEN(known), err) < 0 ||
	    kn_json_str(body, "serviceName", &ignored, err) < 0 ||
	    kn_json_str(body, "service", &ignored, err) < 0 ||
	    kn_json_str(body, "namespace", &ignored, err) < 0)
		return -err->code;
	return kn_json_u64(body, "replicas", 1000, ret_replicas, err);
}

static void scale_parsed(const struct call *c, const json_t *body)
{
	struct kn_err err = KN_ERR_INIT;
	uint64_t replicas = 0;

	if (read_scale(body, &replicas, &err) < 0) {
		kn_reply_fail(c->x, &err, "send {\"serviceName\": \"NAME\", \"replicas\": N}");
		return;
	}
	const struct entry *e = find_or_answer(c, c->rest);
	if (!e)
		return;
	if (e->fn->class == KN_CLASS_NF && replicas != 1) {
		kn_reply_error(c->x, 400, "a packet function has exactly one instance",
		               "remove it to stop it");
		return;
	}
	if (kn_engine_scale(c->ctl->config.engine, kn_view_of(e->fn->name), (uint32_t)replicas,
	                    &err) < 0)
		kn_reply_error(c->x, 409, e->why ? e->why : kn_err_text(&err),
		               "a function that cannot run cannot be scaled");
	else
		kn_reply_json(c->x, 202, entry_status(c->ctl, e, false));
}

void create_function(const struct call *c)
{
	with_body(c, create_parsed);
}

void update_function(const struct call *c)
{
	with_body(c, update_parsed);
}

void delete_function(const struct call *c)
{
	with_body(c, delete_parsed);
}

void scale_function(const struct call *c)
{
	with_body(c, scale_parsed);
}
