#include "faas/function.h"
#include "test.h"

#include "base/conf.h"
#include "base/time.h"

#include <stdlib.h>

static int parse(const char *text, struct kn_function **ret, struct kn_err *err)
{
	kn_auto(json_decref) json_t *o = NULL;

	assert_ok(kn_json_parse(kn_view_of(text), &o, err), err);
	return kn_function_parse(o, ret, err);
}

static struct kn_function *parsed(const char *text)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_function *fn = NULL;

	assert_ok(parse(text, &fn, &err), &err);
	return fn;
}

/* What faas-cli sends for a function with everything in it. */
static const char FULL[] =
	"{\"service\":\"telemetry\",\"image\":\"telemetry:latest\",\"namespace\":\"\","
	"\"envProcess\":\"python3 app.py\",\"envVars\":{\"LIMIT\":\"42\",\"EMPTY\":\"\"},"
	"\"constraints\":[\"node.platform.os == linux\"],\"secrets\":[\"key\"],"
	"\"labels\":{\"com.openfaas.scale.min\":\"1\",\"com.openfaas.scale.max\":\"8\",\"tier\":\"a\","
	"\"com.openfaas.scale.zero\":\"true\",\"com.openfaas.scale.zero-duration\":\"15m\","
	"\"com.openfaas.scale.type\":\"capacity\",\"com.openfaas.scale.target\":\"5\"},"
	"\"annotations\":{\"topic\":\"readings\",\"kiln.class\":\"microvm\",\"kiln.contract\":\"http\","
	"\"kiln.port\":\"9000\",\"kiln.ready-path\":\"/_/ready\",\"kiln.concurrency\":\"7\","
	"\"kiln.queue\":\"9\",\"kiln.pids\":\"50\",\"kiln.snapshot\":\"off\",\"kiln.timeout\":\"2m30s\",\"kiln.boot-timeout\":\"5s\","
	"\"kiln.auth\":\"open\"},"
	"\"limits\":{\"memory\":\"128Mi\",\"cpu\":\"1500m\"},\"requests\":{\"memory\":\"64Mi\"},"
	"\"readOnlyRootFilesystem\":true}";

static void everything_is_read(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_function_unref) struct kn_function *fn = parsed(FULL);

	assert_ok(kn_function_resolve(fn, false, &err), &err);
	assert_string_equal(fn->name, "telemetry");
	assert_string_equal(fn->ns, KN_NAMESPACE);
	assert_string_equal(fn->image, "telemetry:latest");
	assert_string_equal(fn->env_process, "python3 app.py");
	assert_int_equal(fn->env.n, 2);
	assert_string_equal(fn->env.at[0].name, "LIMIT");
	assert_string_equal(fn->env.at[0].value, "42");
	assert_int_equal(fn->constraints.n, 1);
	assert_string_equal(fn->secrets.at[0], "key");
	assert_true(fn->read_only_root && fn->class_given && fn->contract_given && fn->open);
	assert_int_equal(fn->class, KN_CLASS_MICROVM);
	assert_int_equal(fn->contract, KN_CONTRACT_HTTP);
	assert_int_equal(fn->port, 9000);
	assert_string_equal(fn->ready_path, "/_/ready");
	assert_int_equal(fn->concurrency, 7);
	assert_int_equal(fn->queue, 9);
	assert_int_equal(fn->scale_min, 1);
	assert_int_equal(fn->scale_max, 8);
	assert_true(fn->scale_zero);
	assert_int_equal(fn->idle_ms, 15 * 60 * 1000);
	assert_int_equal(fn->scale_target, 5);
	assert_int_equal(fn->timeout_ms, 150000);
	assert_int_equal(fn->boot_timeout_ms, 5000);
	assert_int_equal(fn->memory_bytes, 128 << 20);
	assert_int_equal(fn->vcpus, 2);
	assert_int_equal(fn->cpu_milli, 1500);
	assert_int_equal(fn->max_pids, 50);
	assert_true(fn->snapshot_off);
}

static void image_alone_is_enough(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_function_unref) struct kn_function *fn =
		parsed("{\"service\":\"f\",\"image\":\"f\"}");

	assert_ok(kn_function_resolve(fn, false, &err), &err);
	assert_int_equal(fn->class, KN_CLASS_MICROVM);
	assert_int_equal(fn->contract, KN_CONTRACT_HTTP);
	assert_int_equal(fn->port, 8080);
	assert_null(fn->ready_path);
	assert_false(fn->open || fn->needs_token); /* the node decides */
	assert_int_equal(fn->scale_min, 0);
	assert_int_equal(fn->scale_max, 1); /* a burst makes one instance unless asked for more */
	assert_true(fn->concurrency >= 1 && fn->queue >= 1);
	assert_true(fn->timeout_ms >= 30000 && fn->boot_timeout_ms >= 10000);
	assert_true(fn->memory_bytes >= 64 << 20);
	assert_int_equal(fn->vcpus, 1);
}

static void auth_is_open_token_or_the_nodes(void **state)
{
	(void)state;
	kn_auto(kn_function_unref) struct kn_function *token = parsed(
		"{\"service\":\"a\",\"image\":\"b\",\"annotations\":{\"kiln.auth\":\"token\"}}");
	kn_auto(kn_function_unref) struct kn_function *open = parsed(
		"{\"service\":\"a\",\"image\":\"b\",\"annotations\":{\"kiln.auth\":\"open\"}}");

	assert_true(token->needs_token && !token->open);
	assert_true(open->open && !open->needs_token);
}

static void nulls_and_empty_limits_mean_nothing_was_said(void **state)
{
	(void)state;
	kn_auto(kn_function_unref) struct kn_function *fn = parsed(
		"{\"service\":\"f\",\"image\":\"f\",\"envVars\":null,\"labels\":null,\"limits\":null,"
		"\"requests\":{\"memory\":\"\",\"cpu\":\"\"},\"constraints\":null,\"secrets\":[],"
		"\"network\":\"\",\"registryAuth\":\"\"}");

	assert_null(fn->requests.memory);
	assert_null(fn->limits.cpu);
	assert_int_equal(fn->env.n, 0);
}

/* Each row is what stands after service and image; the error must say so much. */
static void bad_deployments_are_refused_with_a_reason(void **state)
{
	(void)state;
#define F(more) "{\"service\":\"f\",\"image\":\"i\"," more "}"
#define A(name, value) F("\"annotations\":{\"" name "\":\"" value "\"}")
#define L(name, value) F("\"labels\":{\"" name "\":\"" value "\"}")
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "[]", "expected an object" },
		{ "{\"image\":\"i\"}", "service" },
		{ "{\"service\":\"f\"}", "image" },
		{ "{\"service\":5,\"image\":\"i\"}", "'service' must be a string" },
		{ "{\"service\":null,\"image\":\"i\"}", "service" },
		{ "{\"service\":\"\",\"image\":\"i\"}", "1 to 63" },
		{ "{\"service\":\"Telemetry\",\"image\":\"i\"}", "lower-case" },
		{ "{\"service\":\"-f\",\"image\":\"i\"}", "both ends" },
		{ "{\"service\":\"f-\",\"image\":\"i\"}", "both ends" },
		{ "{\"service\":\"a.b\",\"image\":\"i\"}", "function name" },
		{ "{\"service\":\"a/../b\",\"image\":\"i\"}", "function name" },
		{ "{\"service\":\"f\",\"image\":\"\"}", "'image' has 1 to" },
		{ "{\"service\":\"f\",\"image\":\"a b\"}", "blank" },
		{ "{\"service\":\"f\",\"image\":\"a\\nb\"}", "control" },
		{ F("\"lables\":{}"), "did you mean 'labels'" },
		{ F("\"kiln\":{}"), "kiln" },
		{ F("\"namespace\":\"prod\""), "this node has" },
		{ F("\"network\":\"func_functions\""), "not supported" },
		{ F("\"envVars\":[]"), "'envVars' must be an object" },
		{ F("\"envVars\":{\"A\":1}"), "put quotes around it" },
		{ F("\"envVars\":{\"A=B\":\"1\"}"), "no '='" },
		{ F("\"envVars\":{\"\":\"1\"}"), "1 to 255" },
		{ F("\"secrets\":\"key\""), "'secrets' must be an array" },
		{ F("\"secrets\":[1]"), "list of strings" },
		{ F("\"readOnlyRootFilesystem\":\"yes\""), "must be true or false" },
		{ F("\"limits\":{\"memroy\":\"1\"}"), "did you mean 'memory'" },
		{ F("\"limits\":{\"memory\":128}"), "must be a string" },
		{ F("\"limits\":{\"memory\":\"lots\"}"), "limits.memory" },
		{ F("\"limits\":{\"memory\":\"0\"}"), "limits.memory" },
		{ F("\"limits\":{\"memory\":\"4Ti\"}"), "limits.memory" },
		{ F("\"limits\":{\"cpu\":\"many\"}"), "limits.cpu" },
		{ F("\"limits\":{\"cpu\":\"0\"}"), "limits.cpu" },
		{ F("\"limits\":{\"cpu\":\"64\"}"), "at most 32 cores" },
		{ A("kiln.clas", "bare"), "did you mean 'kiln.class'" },
		{ A("kiln.memory", "1Gi"), "limits.memory" },
		{ A("kiln.zzzzzzzz", "1"), "unknown annotation" },
		{ A("kiln.class", "microVM"), "microvm, bare, container, nf" },
		{ A("kiln.contract", "htp"), "did you mean 'http'" },
		{ A("kiln.port", "0"), "1 to 65535" },
		{ A("kiln.port", "65536"), "1 to 65535" },
		{ A("kiln.port", "80x"), "1 to 65535" },
		{ A("kiln.port", ""), "1 to 65535" },
		{ A("kiln.ready-path", "ready"), "begins with '/'" },
		{ A("kiln.ready-path", "/a b"), "begins with '/'" },
		{ A("kiln.ready-path", "/a\\r\\nX: y"), "begins with '/'" },
		{ A("kiln.auth", "none"), "token, open" },
		{ A("kiln.concurrency", "0"), "1 to 4096" },
		{ A("kiln.egress", "http://a.example"), "annotation 'kiln.egress': 'http://a.example' is" },
		{ A("kiln.queue", "-1"), "0 to 65536" },
		{ A("kiln.pids", "0"), "1 to 65536" },
		{ A("kiln.snapshot", "never"), "on, off" },
		{ A("kiln.timeout", "0"), "duration" },
		{ A("kiln.timeout", "25h"), "24h" },
		{ A("kiln.timeout", "soon"), "such as 30s" },
		{ A("kiln.boot-timeout", "1 s"), "duration" },
		{ L("com.openfaas.scale.min", "x"), "com.openfaas.scale.min" },
		{ L("com.openfaas.scale.max", "0"), "1 to 1000" },
		{ L("com.openfaas.scale.zero", "yes"), "\"true\" or \"false\"" },
		{ L("com.openfaas.scale.zero-duration", "0"), "duration" },
		{ F("\"labels\":{\"com.openfaas.scale.type\":\"capacity\","
		    "\"com.openfaas.scale.target\":\"0\"}"), "1 to 4096" },
		{ F("\"labels\":{\"com.openfaas.scale.min\":\"3\",\"com.openfaas.scale.max\":\"2\"}"),
		  "more than" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_function *fn = NULL;
		int r = parse(cases[i].text, &fn, &err);
		if (r != -EINVAL || fn || !strstr(err.text, cases[i].says))
			fail_msg("%s: result %d, '%s' does not say '%s'", cases[i].text, r, err.text,
			         cases[i].says);
	}
}

static void counts_and_lengths_are_bounded(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct kn_function *fn = NULL;
	kn_auto(json_decref) json_t *o = json_pack("{s:s, s:s}", "service", "f", "image", "i");
	json_t *env = json_object();
	char *big = malloc(40000);

	for (int i = 0; i < 257; i++) {
		char name[8];
		snprintf(name, sizeof(name), "N%d", i);
		json_object_set_new(env, name, json_string("v"));
	}
	json_object_set_new(o, "envVars", env);
	assert_fails(kn_function_parse(o, &fn, &err), EINVAL, &err, "at most 256");
	memset(big, 'x', 39999);
	big[39999] = 0;
	json_object_set_new(o, "envVars", json_pack("{s:s}", "A", big));
	assert_fails(kn_function_parse(o, &fn, &err), EINVAL, &err, "32768 bytes");
	json_object_set_new(o, "envVars", json_null());
	json_object_set_new(o, "envProcess", json_string(big));
	assert_fails(kn_function_parse(o, &fn, &err), EINVAL, &err, "32768 bytes");
	free(big);
}

/* ---- class and image ----------------------------------------------------------------------- */

static void class_follows_the_image(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_function_unref) struct kn_function *fn =
		parsed("{\"service\":\"f\",\"image\":\"f\",\"limits\":{\"memory\":\"3M\"}}");

	assert_ok(kn_function_resolve(fn, true, &err), &err);
	assert_int_equal(fn->class, KN_CLASS_BARE);
	assert_int_equal(fn->contract, KN_CONTRACT_MESSAGE);
	assert_int_equal(fn->concurrency, 1);
	assert_int_equal(fn->memory_bytes, 4 << 20);   /* up to whole large pages */
}

static void class_that_does_not_fit_the_image_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		enum kn_image_kind kind;
		const char *says;
	} cases[] = {
		{ A("kiln.class", "microvm"), KN_IMAGE_NF, "class nf only" },
		{ A("kiln.contract", "http"), KN_IMAGE_NF, "takes frames" },
		{ F("\"limits\":{}"), KN_IMAGE_NF, "kiln.ports" },
		{ A("kiln.ports", "a=eth0"), KN_IMAGE_BARE, "is none" },
		{ A("kiln.class", "nf"), KN_IMAGE_CONTAINER, "kiln build FILE.yaml" },
		{ A("kiln.contract", "frames"), KN_IMAGE_CONTAINER, "only packet" },
		{ "{\"service\":\"f\",\"image\":\"f\",\"annotations\":{\"kiln.ports\":\"a=eth0\"},"
		  "\"labels\":{\"com.openfaas.scale.max\":\"2\"}}", KN_IMAGE_NF, "exactly one instance" },
		{ "{\"service\":\"f\",\"image\":\"f\",\"annotations\":{\"kiln.ports\":\"a=eth0\"},"
		  "\"labels\":{\"com.openfaas.scale.min\":\"0\"}}", KN_IMAGE_NF, "exactly one instance" },
		{ A("kiln.class", "microvm"), true, "is a bare program" },
		{ A("kiln.class", "container"), true, "is a bare program" },
		{ A("kiln.contract", "http"), true, "takes messages" },
		{ A("kiln.class", "bare"), false, "kiln build" },
		{ A("kiln.contract", "message"), false, "only bare functions" },
		{ F("\"limits\":{\"memory\":\"16Mi\"}"), false, "needs 64Mi" },
		{ F("\"limits\":{\"cpu\":\"2\"}"), true, "one vCPU" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		kn_auto(kn_function_unref) struct kn_function *fn = parsed(cases[i].text);
		assert_fails(kn_function_resolve(fn, cases[i].kind, &err), EINVAL, &err,
		             cases[i].says);
	}
}

static struct kn_function *with_ports(const char *ports)
{
	char text[256];

	snprintf(text, sizeof(text), A("kiln.ports", "%s"), ports);
	return parsed(text);
}

static void a_chain_has_one_instance_and_its_ports(void **state)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_function_unref) struct kn_function *fn = with_ports("lan=eth1, wan=eth2@/run/n");

	(void)state;
	assert_ok(kn_function_resolve(fn, KN_IMAGE_NF, &err), &err);
	assert_int_equal(fn->class, KN_CLASS_NF);
	assert_int_equal(fn->contract, KN_CONTRACT_FRAMES);
	assert_int_equal(fn->scale_min, 1);
	assert_int_equal(fn->scale_max, 1);
	assert_int_equal(fn->ports.n, 2);
	assert_string_equal(fn->ports.at[0], "lan=eth1");
	assert_string_equal(fn->ports.at[1], "wan=eth2@/run/n");
	assert_null(fn->ports.at[2]);
}

static void an_interface_that_two_functions_want_is_found(void **state)
{
	kn_auto(kn_function_unref) struct kn_function *a = with_ports("lan=eth1,wan=eth2@/run/n");
	kn_auto(kn_function_unref) struct kn_function *b = with_ports("in=eth2,out=eth3");
	kn_auto(kn_function_unref) struct kn_function *c = with_ports("x=af_xdp:eth2@/run/n");

	(void)state;
	assert_null(kn_function_shared_port(a, b));
	assert_string_equal(kn_function_shared_port(a, c), "wan=eth2@/run/n");
}

static void minimum_alone_raises_the_maximum(void **state)
{
	(void)state;
	kn_auto(kn_function_unref) struct kn_function *fn = parsed(L("com.openfaas.scale.min", "20"));

	assert_int_equal(fn->scale_min, 20);
	assert_int_equal(fn->scale_max, 20);
}

/* ---- there and back ------------------------------------------------------------------------ */

static void stored_form_gives_the_same_function(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf first = KN_BUF_INIT;
	kn_auto(kn_buf_fini) struct kn_buf second = KN_BUF_INIT;
	kn_auto(kn_function_unref) struct kn_function *fn = parsed(FULL);
	kn_auto(kn_function_unref) struct kn_function *again = NULL;

	fn->created_ns = 1234567890123456789;
	assert_ok(kn_function_save(fn, &first, &err), &err);
	assert_ok(kn_function_load(kn_buf_view(&first), &again, &err), &err);
	assert_ok(kn_function_save(again, &second, &err), &err);
	assert_view(kn_buf_view(&second), first.ptr);
	assert_int_equal(again->created_ns, 1234567890123456789);
	assert_int_equal(again->timeout_ms, fn->timeout_ms);
	assert_true(again->open);
}

static void damaged_stored_form_is_told(void **state)
{
	(void)state;
	static const char *const texts[] = { "", "{", "[]", "{}", "{\"service\":\"f\"}",
		                             "{\"service\":\"f\",\"image\":\"i\",\"kiln\":5}" };

	for (size_t i = 0; i < KN_ARRAY_LEN(texts); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_function *fn = NULL;
		assert_fails(kn_function_load(kn_view_of(texts[i]), &fn, &err), EUCLEAN, &err,
		             "stored function");
		assert_null(fn);
	}
}

static void deployment_can_be_deployed_again(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_function_unref) struct kn_function *fn = parsed(FULL);
	kn_auto(kn_function_unref) struct kn_function *again = NULL;
	kn_auto(json_decref) json_t *o = kn_function_deployment(fn);

	assert_ok(kn_function_parse(o, &again, &err), &err);
	kn_auto(json_decref) json_t *twice = kn_function_deployment(again);
	assert_true(json_equal(o, twice));
}

static const char *text_at(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	assert_non_null(text);
	return text;
}

static void status_has_what_openfaas_clients_read(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_function_unref) struct kn_function *fn = parsed(FULL);
	const struct kn_function_live live = { .invocations = 11,
		                               .cold = 1,
		                               .warm = 10,
		                               .instances = 2,
		                               .ready = 1,
		                               .hypervisor = "qemu",
		                               .cpu_ns = 5,
		                               .memory_bytes = 77,
		                               .phases = { { "spawn", 1500000 }, { "boot", 500000 } },
		                               .n_phases = 2,
		                               .last_cold_ns = 1700000000000000000,
		                               .last_error = "page fault" };

	assert_ok(kn_function_resolve(fn, false, &err), &err);
	fn->created_ns = 1700000000000000000;
	kn_auto(json_decref) json_t *o = kn_function_status(fn, &live, true);
	assert_string_equal(text_at(o, "name"), "telemetry");
	assert_string_equal(text_at(o, "image"), "telemetry:latest");
	assert_string_equal(text_at(o, "namespace"), KN_NAMESPACE);
	assert_string_equal(text_at(o, "envProcess"), "python3 app.py");
	assert_string_equal(text_at(o, "createdAt"), "2023-11-14T22:13:20.000Z");
	assert_int_equal(json_integer_value(json_object_get(o, "invocationCount")), 11);
	assert_int_equal(json_integer_value(json_object_get(o, "replicas")), 2);
	assert_int_equal(json_integer_value(json_object_get(o, "availableReplicas")), 1);
	assert_string_equal(text_at(json_object_get(o, "labels"), "tier"), "a");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(o, "usage"),
	                                                    "totalMemoryBytes")),
	                 77);
	const json_t *kiln = json_object_get(o, "kiln");
	assert_string_equal(text_at(kiln, "class"), "microvm");
	assert_string_equal(text_at(kiln, "hypervisor"), "qemu");
	assert_string_equal(text_at(kiln, "timeout"), "150s");
	assert_string_equal(text_at(kiln, "lastError"), "page fault");
	const json_t *cold = json_object_get(kiln, "lastColdStart");
	assert_true(json_real_value(json_object_get(cold, "ms")) == 2.0);
	assert_string_equal(text_at(json_array_get(json_object_get(cold, "phases"), 1), "name"),
	                    "boot");
}

static void quiet_function_has_no_empty_promises(void **state)
{
	(void)state;
	const struct kn_function_live live = { .invocations = 0 };
	kn_auto(kn_function_unref) struct kn_function *fn =
		parsed("{\"service\":\"f\",\"image\":\"f\"}");
	kn_auto(json_decref) json_t *o = kn_function_status(fn, &live, false);
	const json_t *kiln = json_object_get(o, "kiln");

	assert_null(json_object_get(o, "usage"));
	assert_null(json_object_get(kiln, "lastColdStart"));
	assert_null(json_object_get(kiln, "hypervisor"));
	assert_null(json_object_get(kiln, "lastError"));
}

/* ---- names --------------------------------------------------------------------------------- */

static void names_may_carry_the_namespace(void **state)
{
	(void)state;
	static const struct {
		const char *text, *name;
		int code;
	} cases[] = {
		{ "f", "f", 0 },
		{ "f." KN_NAMESPACE, "f", 0 },
		{ "f.", "f", 0 },
		{ "f.other", NULL, ENOENT },
		{ "f.a.b", NULL, ENOENT },
		{ ".f", NULL, EINVAL },
		{ "", NULL, EINVAL },
		{ "F", NULL, EINVAL },
		{ "a/b", NULL, EINVAL },
		{ "0123456789012345678901234567890123456789012345678901234567890123", NULL, EINVAL },
		{ "012345678901234567890123456789012345678901234567890123456789012",
		  "012345678901234567890123456789012345678901234567890123456789012", 0 },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_view name = KN_VIEW_NULL;
		int r = kn_function_split(kn_view_of(cases[i].text), &name, &err);
		if (r != -cases[i].code)
			fail_msg("'%s' gives %d", cases[i].text, r);
		if (r == 0)
			assert_view(name, cases[i].name);
	}
}

/* ---- stack.yaml ---------------------------------------------------------------------------- */

static int stack(const char *yaml, struct kn_stack *ret, struct kn_err *err)
{
	kn_auto(json_decref) json_t *o = NULL;

	assert_ok(kn_yaml_parse(kn_view_of(yaml), "stack.yaml", &o, err), err);
	return kn_stack_parse(o, ret, err);
}

static void stack_gives_deployments_in_order(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_stack_fini) struct kn_stack s = { .n = 0 };

	assert_ok(stack("version: 1.0\n"
	                "provider:\n"
	                "  name: openfaas\n"
	                "  gateway: http://127.0.0.1:8080\n"
	                "functions:\n"
	                "  telemetry:\n"
	                "    lang: dockerfile\n"
	                "    handler: ./telemetry\n"
	                "    image: telemetry:latest\n"
	                "    environment:\n"
	                "      LIMIT: 42\n"
	                "      DEBUG: true\n"
	                "      NOTHING:\n"
	                "    labels:\n"
	                "      com.openfaas.scale.max: 3\n"
	                "    annotations:\n"
	                "      kiln.port: 9000\n"
	                "    limits:\n"
	                "      memory: 128Mi\n"
	                "      cpu: 0.5\n"
	                "    secrets: [key]\n"
	                "    readonly_root_filesystem: true\n"
	                "  checksum:\n"
	                "    image: checksum\n"
	                "    fprocess: sum\n"
	                "    annotations: {kiln.contract: stdio}\n",
	                &s, &err),
	          &err);
	assert_string_equal(s.gateway, "http://127.0.0.1:8080");
	assert_int_equal(s.n, 2);
	const struct kn_function *t = s.at[0], *c = s.at[1];
	assert_string_equal(t->name, "telemetry");
	assert_string_equal(t->env.at[0].value, "42");
	assert_string_equal(t->env.at[1].value, "true");
	assert_string_equal(t->env.at[2].value, "");
	assert_int_equal(t->scale_max, 3);
	assert_int_equal(t->port, 9000);
	assert_int_equal(t->vcpus, 1);
	assert_string_equal(t->limits.cpu, "0.5");
	assert_string_equal(t->secrets.at[0], "key");
	assert_true(t->read_only_root);
	assert_string_equal(c->env_process, "sum");
	assert_int_equal(c->contract, KN_CONTRACT_STDIO);
}

static void bad_stacks_are_refused_with_a_reason(void **state)
{
	(void)state;
#define ONE(more) "functions:\n  f:\n    image: i\n" more
	static const struct {
		const char *yaml, *says;
	} cases[] = {
		{ "[]", "expected an object" },
		{ "version: 1.0\n", "functions" },
		{ "functions: {}\n", "1 to 256" },
		{ "functions: [f]\n", "functions" },
		{ "version: 2.0\n" ONE(""), "'version' must be 1.0" },
		{ "function:\n  f: {image: i}\n" ONE(""), "did you mean 'functions'" },
		{ "provider: {name: lambda}\n" ONE(""), "provider 'lambda'" },
		{ "provider: {gatway: x}\n" ONE(""), "did you mean 'gateway'" },
		{ "functions:\n  f:\n", "must be a map with 'image'" },
		{ "functions:\n  f: {lang: go, handler: ./f}\n", "build an image" },
		{ "functions:\n  f: {lang: go}\n", "'image' is missing" },
		{ "functions:\n  F: {image: i}\n", "function 'F'" },
		{ ONE("    enviroment: {}\n"), "did you mean 'environment'" },
		{ ONE("    environment_file: [a]\n"), "under 'environment'" },
		{ ONE("    environment: [a]\n"), "must be a map" },
		{ ONE("    environment: {V: 1.10}\n"), "put quotes" },
		{ ONE("    environment: {V: [1]}\n"), "put quotes" },
		{ ONE("    annotations: {kiln.prot: 1}\n"), "did you mean 'kiln.port'" },
		{ ONE("    limits: {memory: [1]}\n"), "put quotes" },
		{ ONE("    readonly_root_filesystem: maybe\n"), "must be true or false" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_stack s = { .n = 7 };
		int r = stack(cases[i].yaml, &s, &err);
		if (r != -EINVAL || s.n != 7 || !strstr(err.text, cases[i].says))
			fail_msg("%s: result %d, '%s' does not say '%s'", cases[i].yaml, r, err.text,
			         cases[i].says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_is_read),
		cmocka_unit_test(image_alone_is_enough),
		cmocka_unit_test(auth_is_open_token_or_the_nodes),
		cmocka_unit_test(nulls_and_empty_limits_mean_nothing_was_said),
		cmocka_unit_test(bad_deployments_are_refused_with_a_reason),
		cmocka_unit_test(counts_and_lengths_are_bounded),
		cmocka_unit_test(class_follows_the_image),
		cmocka_unit_test(class_that_does_not_fit_the_image_is_refused),
		cmocka_unit_test(minimum_alone_raises_the_maximum),
		cmocka_unit_test(stored_form_gives_the_same_function),
		cmocka_unit_test(damaged_stored_form_is_told),
		cmocka_unit_test(deployment_can_be_deployed_again),
		cmocka_unit_test(status_has_what_openfaas_clients_read),
		cmocka_unit_test(quiet_function_has_no_empty_promises),
		cmocka_unit_test(a_chain_has_one_instance_and_its_ports),
		cmocka_unit_test(an_interface_that_two_functions_want_is_found),
		cmocka_unit_test(names_may_carry_the_namespace),
		cmocka_unit_test(stack_gives_deployments_in_order),
		cmocka_unit_test(bad_stacks_are_refused_with_a_reason),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
