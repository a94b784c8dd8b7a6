#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/time.h"
#include "faas/function/private.h"

/* ---- building ------------------------------------------------------------------------------ */

static json_t *pairs_json(const struct kn_pairs *pairs)
{
	json_t *o = json_object();

	for (size_t i = 0; i < pairs->n; i++)
		json_object_set_new(o, pairs->at[i].name, json_string(pairs->at[i].value));
	return o;
}

static json_t *strings_json(const struct kn_strings *list)
{
	json_t *a = json_array();

	for (size_t i = 0; i < list->n; i++)
		json_array_append_new(a, json_string(list->at[i]));
	return a;
}

static void add_resources(json_t *o, const char *key, const struct kn_resources *r)
{
	if (r->memory || r->cpu)
		json_object_set_new(o, key, json_pack("{s:s*, s:s*}", "memory", r->memory, "cpu",
		                                      r->cpu));
}

/* What deployment and status have in common; json_pack gives NULL when memory is out. */
static json_t *common_json(const struct kn_function *fn, const char *name_key)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:b}", name_key, fn->name,
	                      "image", fn->image, "namespace", fn->ns, "envProcess", fn->env_process,
	                      "labels", pairs_json(&fn->labels), "annotations",
	                      pairs_json(&fn->annotations), "constraints",
	                      strings_json(&fn->constraints), "secrets", strings_json(&fn->secrets),
	                      "readOnlyRootFilesystem", (int)fn->read_only_root);

	if (o) {
		add_resources(o, "limits", &fn->limits);
		add_resources(o, "requests", &fn->requests);
	}
	return o;
}

json_t *kn_function_deployment(const struct kn_function *fn)
{
	json_t *o = common_json(fn, "service");

	if (o)
		json_object_set_new(o, "envVars", pairs_json(&fn->env));
	return o;
}

/* ---- the stored form ----------------------------------------------------------------------- */

int kn_function_save(const struct kn_function *fn, struct kn_buf *ret, struct kn_err *err)
{
	kn_auto(json_decref) json_t *o = kn_function_deployment(fn);

	if (!o || json_object_set_new(o, "kiln",
	                              json_pack("{s:I}", "created",
	                                        (json_int_t)fn->created_ns)) < 0)
		return kn_fail(err, ENOMEM, "no memory to store function '%s'", fn->name);
	kn_json_print(ret, o, 0);
	return ret->failed ? kn_fail(err, ENOMEM, "no memory to store function '%s'", fn->name) : 0;
}

static int read_created(const json_t *o, uint64_t *ret, struct kn_err *err)
{
	json_t *kiln = NULL;

	int r = kn_json_obj(o, "kiln", &kiln, err);
	return r < 0 || !kiln ? r : kn_json_u64(kiln, "created", INT64_MAX, ret, err);
}

int kn_function_load(struct kn_view text, struct kn_function **ret, struct kn_err *err)
{
	kn_auto(json_decref) json_t *o = NULL;
	kn_auto(kn_function_unref) struct kn_function *fn = NULL;
	struct kn_err why = KN_ERR_INIT;

	if (kn_json_parse(text, &o, &why) < 0 || function_read(o, true, &fn, &why) < 0 ||
	    read_created(o, &fn->created_ns, &why) < 0)
		return kn_fail(err, why.code == ENOMEM ? ENOMEM : EUCLEAN, "stored function: %s",
		               why.text);
	*ret = kn_take_ptr(fn);
	return 0;
}

/* ---- the status ---------------------------------------------------------------------------- */

static const char *contract_name(enum kn_contract c)
{
	switch (c) {
	case KN_CONTRACT_HTTP:
		return "http";
	case KN_CONTRACT_STDIO:
		return "stdio";
	case KN_CONTRACT_MESSAGE:
		return "message";
	case KN_CONTRACT_FRAMES:
		return "frames";
	}
	return "unknown";
}

static json_t *duration_json(uint64_t ms)
{
	if (ms % 1000 == 0)
		return json_sprintf("%" PRIu64 "s", ms / 1000);
	return json_sprintf("%" PRIu64 "ms", ms);
}

static json_t *cold_start_json(const struct kn_function_live *live)
{
	json_t *phases = json_array();
	char at[KN_RFC3339_LEN];
	uint64_t total = 0;

	for (size_t i = 0; i < live->n_phases && i < KN_MAX_PHASES; i++) {
		const struct kn_phase *p = &live->phases[i];
		total += p->ns;
		json_array_append_new(phases, json_pack("{s:s, s:f}", "name", p->name, "ms",
		                                        (double)p->ns / 1e6));
	}
	kn_rfc3339(live->last_cold_ns, at);
	return json_pack("{s:s, s:f, s:o}", "at", at, "ms", (double)total / 1e6, "phases", phases);
}

static json_t *kiln_json(const struct kn_function *fn, const struct kn_function_live *live)
{
	json_t *o = json_pack(
		"{s:s, s:s, s:s*, s:s*, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:b}}",
		"class",
		kn_class_name(fn->class), "contract", contract_name(fn->contract), "hypervisor",
		live->hypervisor, "hypervisorReason", live->hypervisor_why, "auth",
		fn->open ? "open" : fn->needs_token ? "token" : "node", "timeout", duration_json(fn->timeout_ms), "bootTimeout",
		duration_json(fn->boot_timeout_ms), "concurrency", (json_int_t)fn->concurrency,
		"queue", (json_int_t)fn->queue, "memoryBytes", (json_int_t)fn->memory_bytes, "vcpus",
		(json_int_t)fn->vcpus, "scale", "min", (json_int_t)fn->scale_min, "max",
		(json_int_t)fn->scale_max, "wanted", (json_int_t)live->wanted, "zero",
		(int)fn->scale_zero);
	if (!o)
		return NULL;
	if (fn->contract == KN_CONTRACT_HTTP)
		json_object_set_new(o, "port", json_integer(fn->port));
	if (fn->ready_path)
		json_object_set_new(o, "readyPath", json_string(fn->ready_path));
	json_object_set_new(o, "instances",
	                    json_pack("{s:I, s:I, s:I}", "total", (json_int_t)live->instances,
	                              "ready", (json_int_t)live->ready, "busy",
	                              (json_int_t)live->busy));
	json_object_set_new(o, "waiting", json_integer(live->waiting));
	json_object_set_new(o, "invocations",
	                    json_pack("{s:I, s:I, s:I, s:I, s:I}", "total",
	                              (json_int_t)live->invocations, "failed",
	                              (json_int_t)live->failed, "cold", (json_int_t)live->cold,
	                              "prewarmed", (json_int_t)live->prewarmed, "warm",
	                              (json_int_t)live->warm));
	if (live->last_cold_ns)
		json_object_set_new(o, "lastColdStart", cold_start_json(live));
	if (live->warm_p50_ns)
		json_object_set_new(o, "warmP50Ms", json_real((double)live->warm_p50_ns / 1e6));
	if (fn->idle_ms)
		json_object_set_new(o, "idle", duration_json(fn->idle_ms));
	if (fn->cpu_milli)
		json_object_set_new(o, "cpuMilli", json_integer(fn->cpu_milli));
	if (fn->max_pids)
		json_object_set_new(o, "maxPids", json_integer(fn->max_pids));
	if (live->update)
		json_object_set_new(o, "update", json_pack("{s:s, s:s*}", "state", live->update,
		                                           "error", live->update_error));
	if (live->last_error && live->last_error[0])
		json_object_set_new(o, "lastError", json_string(live->last_error));
	return o;
}

/* OpenFaaS counts cpu in thousandths of a core: here the mean since the function was deployed. */
static json_t *usage_json(const struct kn_function *fn, const struct kn_function_live *live)
{
	uint64_t now = kn_wall_ns();
	uint64_t age = now > fn->created_ns ? now - fn->created_ns : 1;

	return json_pack("{s:f, s:I}", "cpu", (double)live->cpu_ns * 1000 / (double)age,
	                 "totalMemoryBytes", (json_int_t)live->memory_bytes);
}

json_t *kn_function_status(const struct kn_function *fn, const struct kn_function_live *live,
                           bool usage)
{
	json_t *o = common_json(fn, "name");
	char created[KN_RFC3339_LEN];

	if (!o)
		return NULL;
	kn_rfc3339(fn->created_ns, created);
	json_object_set_new(o, "envVars", pairs_json(&fn->env));
	json_object_set_new(o, "invocationCount", json_integer((json_int_t)live->invocations));
	json_object_set_new(o, "replicas", json_integer(live->instances));
	json_object_set_new(o, "availableReplicas", json_integer(live->ready));
	json_object_set_new(o, "createdAt", json_string(created));
	if (usage)
		json_object_set_new(o, "usage", usage_json(fn, live));
	json_object_set_new(o, "kiln", kiln_json(fn, live));
	return o;
}
