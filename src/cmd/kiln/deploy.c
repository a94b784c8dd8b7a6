#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/conf.h"
#include "base/time.h"
#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"
#include "faas/function.h"

enum { WAIT_STEP_MS = 100, WAIT_MAX_S = 120 };

struct deployment {
	struct kn_node_args node;
	const char *file, *filter;
	const char *image, *class, *contract, *process, *timeout, *memory, *cpu;
	struct kn_arg_list env, annotations, labels, secrets;
	bool wait;
	json_t *done; /* names, for --json */
};

/* ---- from the command line ----------------------------------------------------------------- */

static int add_pairs(json_t *to, const struct kn_arg_list *list, const char *option,
		     struct kn_err *err)
{
	for (size_t i = 0; i < list->n; i++) {
		struct kn_view value = kn_view_of(list->at[i]);
		struct kn_view key;
		char name[256];
		kn_view_split(&value, '=', &key);
		if (key.len == 0 || key.len >= sizeof(name) || !value.ptr)
			return kn_fail(err, EINVAL, "--%s '%s' must look like name=value", option,
				       list->at[i]);
		snprintf(name, sizeof(name), "%.*s", (int)key.len, key.ptr);
		json_t *text = json_stringn(value.ptr, value.len);
		if (json_object_set_new(to, name, text) < 0)
			return kn_fail(err, EINVAL, "--%s '%s' is not UTF-8 text", option,
				       list->at[i]);
	}
	return 0;
}

static void add_text(json_t *to, const char *key, const char *value)
{
	if (value)
		json_object_set_new(to, key, json_string(value));
}

static int from_options(const struct deployment *d, const char *name, json_t **ret,
			struct kn_err *err)
{
	json_t *env = json_object();
	json_t *annotations = json_object();
	json_t *labels = json_object();
	json_t *limits = json_object();

	int r = add_pairs(env, &d->env, "env", err);
	if (r == 0)
		r = add_pairs(annotations, &d->annotations, "annotation", err);
	if (r == 0)
		r = add_pairs(labels, &d->labels, "label", err);
	add_text(annotations, "kiln.class", d->class);
	add_text(annotations, "kiln.contract", d->contract);
	add_text(annotations, "kiln.timeout", d->timeout);
	add_text(limits, "memory", d->memory);
	add_text(limits, "cpu", d->cpu);

	kn_auto(json_decref) json_t *fn = json_pack(
		"{s:s,s:s,s:o,s:o,s:o,s:o}", "service", name, "image", d->image, "envVars", env,
		"annotations", annotations, "labels", labels, "limits", limits);
	if (r == 0 && !fn)
		r = kn_fail(err, EINVAL, "name and image must be UTF-8 text");
	if (r < 0)
		return r;
	add_text(fn, "envProcess", d->process);
	json_t *secrets = d->secrets.n ? json_array() : NULL;
	for (size_t i = 0; i < d->secrets.n; i++)
		json_array_append_new(secrets, json_string(d->secrets.at[i]));
	if (secrets)
		json_object_set_new(fn, "secrets", secrets);
	*ret = kn_take_ptr(fn);
	return 0;
}

/* ---- sending ------------------------------------------------------------------------------- */

static int put(struct kn_node *node, const json_t *fn, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	kn_json_print(&text, fn, 0);
	if (text.failed)
		return kn_fail(err, ENOMEM, "out of memory");
	struct kn_node_request req = { .method = "PUT",
				       .path = "/system/functions",
				       .body = kn_buf_view(&text) };
	struct kn_err refused = KN_ERR_INIT;
	int r = kn_node_json(node, &req, NULL, &refused);
	if (r == -ENOENT) { /* other OpenFaaS gateways only update what exists */
		req.method = "POST";
		return kn_node_json(node, &req, NULL, err);
	}
	if (r < 0 && err)
		*err = refused;
	return r;
}

/* An update that is under way is one instance that is not ready yet. */
static int check_update(const json_t *kiln, uint64_t *wanted, uint64_t *ready, struct kn_err *err)
{
	const json_t *update = json_object_get(kiln, "update");
	const char *state = json_string_value(json_object_get(update, "state"));
	const char *why = json_string_value(json_object_get(update, "error"));

	if (!state)
		return 0;
	if (strcmp(state, "failed") == 0)
		return kn_fail(err, EIO, "the update did not get ready, and the revision before it "
					 "goes on: %s", why ? why : "no reason was given");
	*wanted = kn_max(*wanted, UINT64_C(1));
	*ready = 0;
	return 0;
}

/* How many instances there are to be, and how many are ready. */
static int count_instances(struct kn_node *node, const char *path, uint64_t *ret_wanted,
			   uint64_t *ret_ready, struct kn_err *err)
{
	const struct kn_node_request req = { .path = path };
	kn_auto(json_decref) json_t *status = NULL;

	int r = kn_node_json(node, &req, &status, err);
	const json_t *kiln = json_object_get(status, "kiln");
	const char *bad = json_string_value(json_object_get(kiln, "lastError"));
	if (r == 0 && bad)
		return kn_fail(err, EIO, "%s", bad);
	if (r == 0)
		r = kn_json_u64(json_object_get(kiln, "scale"), "min", UINT32_MAX, ret_wanted, err);
	if (r == 0)
		r = kn_json_u64(status, "availableReplicas", UINT32_MAX, ret_ready, err);
	if (r == 0)
		r = check_update(kiln, ret_wanted, ret_ready, err);
	return r;
}

static int wait_ready(struct kn_node *node, const char *name, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf path = KN_BUF_INIT;
	const struct timespec step = { .tv_nsec = WAIT_STEP_MS * (long)KN_NS_PER_MS };
	uint64_t until_ns = kn_now_ns() + WAIT_MAX_S * KN_NS_PER_S;
	uint64_t wanted = 0, ready = 0;

	kn_buf_adds(&path, "/system/function/");
	kn_url_encode(&path, kn_view_of(name));
	if (path.failed)
		return kn_fail(err, ENOMEM, "out of memory");
	int r = count_instances(node, path.ptr, &wanted, &ready, err);
	while (r == 0 && ready < wanted) {
		if (kn_now_ns() > until_ns)
			return kn_fail(
				err, ETIMEDOUT,
				"%llu of %llu instances are ready after %d s: see 'kiln logs %s'",
				(unsigned long long)ready, (unsigned long long)wanted, WAIT_MAX_S,
				name);
		nanosleep(&step, NULL);
		r = count_instances(node, path.ptr, &wanted, &ready, err);
	}
	return r;
}

static int deploy_one(struct deployment *d, struct kn_node *node, const json_t *fn,
		      struct kn_err *err)
{
	const char *name = json_string_value(json_object_get(fn, "service"));

	int r = put(node, fn, err);
	if (r == 0 && d->wait)
		r = wait_ready(node, name, err);
	if (r < 0)
		return kn_while(err, "function '%s'", name);
	if (d->node.json)
		json_array_append_new(d->done, json_string(name));
	else
		printf("Deployed %s: %s/function/%s\n", name, kn_node_gateway(node), name);
	fflush(stdout);
	return 0;
}

/* ---- from a stack.yaml --------------------------------------------------------------------- */

static int deploy_stack(struct deployment *d, struct kn_err *err)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(json_decref) json_t *yaml = NULL;
	struct kn_stack stack = { .n = 0 };
	size_t taken = 0;

	int r = kn_yaml_load(d->file, &yaml, err);
	if (r == 0)
		r = kn_stack_parse(yaml, &stack, err);
	if (r < 0)
		return r == -EINVAL ? kn_while(err, "%s", d->file) : r;
	r = kn_node_open(&d->node, &node, err);
	for (size_t i = 0; i < stack.n && r == 0; i++) {
		if (d->filter && strcmp(d->filter, stack.at[i]->name) != 0)
			continue;
		kn_auto(json_decref) json_t *fn = kn_function_deployment(stack.at[i]);
		r = fn ? deploy_one(d, node, fn, err) : kn_fail(err, ENOMEM, "out of memory");
		taken++;
	}
	if (r == 0 && taken == 0)
		r = kn_fail(err, ENOENT, "'%s' has no function '%s'", d->file,
			    d->filter ? d->filter : "");
	kn_stack_fini(&stack);
	return r;
}

static int deploy_named(struct deployment *d, const char *name, struct kn_err *err)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(json_decref) json_t *fn = NULL;

	int r = from_options(d, name, &fn, err);
	if (r == 0)
		r = kn_node_open(&d->node, &node, err);
	return r == 0 ? deploy_one(d, node, fn, err) : r;
}

static int run(const struct kn_command *cmd, struct deployment *d, const char *name)
{
	struct kn_err err = KN_ERR_INIT;

	int r = d->file ? deploy_stack(d, &err) : deploy_named(d, name, &err);
	if (d->node.json && r == 0)
		kn_show_json(d->done);
	return r < 0 ? kn_cli_failed(cmd, &err) : kn_cli_done(cmd);
}

static int check_usage(const struct kn_command *cmd, const struct deployment *d, size_t n)
{
	if (d->file && n > 0)
		return kn_cli_misused(cmd,
				      "give either a stack.yaml (-f) or one function; --filter "
				      "NAME takes one out of the file");
	if (!d->file && n == 0)
		return kn_cli_misused(cmd, "give a stack.yaml with -f, or a name and --image");
	if (!d->file && !d->image)
		return kn_cli_misused(cmd, "--image is missing: what shall the function run?");
	if (d->filter && !d->file)
		return kn_cli_misused(
			cmd, "--filter takes a function out of a stack.yaml: give -f FILE");
	return KN_CLI_RUN;
}

int kn_verb_deploy(int argc, char **argv)
{
	struct deployment d = { .file = NULL };
	const struct kn_arg args[] = {
		{ "file", 'f', KN_ARG_STR, &d.file, "FILE", NULL, "stack.yaml with functions" },
		{ "filter", 0, KN_ARG_STR, &d.filter, "NAME", NULL, "only this one of the file" },
		{ "image", 0, KN_ARG_STR, &d.image, "REF", NULL, "image in the node's store" },
		{ "class", 0, KN_ARG_STR, &d.class, "CLASS", NULL,
		  "microvm, bare or container (default: what the image needs)" },
		{ "contract", 0, KN_ARG_STR, &d.contract, "CONTRACT", NULL,
		  "http: it serves HTTP on port 8080 (default); stdio: a process a request, body on "
		  "standard input, reply on standard output" },
		{ "fprocess", 0, KN_ARG_STR, &d.process, "COMMAND", NULL,
		  "environment variable fprocess, for images that bring OpenFaaS' watchdog" },
		{ "env", 'e', KN_ARG_LIST, &d.env, "NAME=VALUE", NULL, "environment variable" },
		{ "annotation", 0, KN_ARG_LIST, &d.annotations, "NAME=VALUE", NULL,
		  "annotation; kiln.concurrency, kiln.queue, kiln.port ... are Kiln's own" },
		{ "secret", 0, KN_ARG_LIST, &d.secrets, "NAME", NULL,
		  "a secret of the node, as file /var/openfaas/secrets/NAME" },
		{ "label", 0, KN_ARG_LIST, &d.labels, "NAME=VALUE", NULL,
		  "label; com.openfaas.scale.min and .max bound the instances" },
		{ "limit-memory", 0, KN_ARG_STR, &d.memory, "SIZE", NULL,
		  "memory of an instance: 256Mi" },
		{ "limit-cpu", 0, KN_ARG_STR, &d.cpu, "CORES", NULL,
		  "cores of an instance: 1, 500m" },
		{ "timeout", 0, KN_ARG_STR, &d.timeout, "TIME", NULL,
		  "deadline of one invocation, waiting and cold start included: 30s" },
		{ "wait", 'w', KN_ARG_FLAG, &d.wait, NULL, NULL,
		  "wait until as many instances are ready as label com.openfaas.scale.min wants" },
		KN_NODE_ARGS(d.node),
	};
	const struct kn_command cmd = {
		.name = "kiln deploy",
		.summary = "Make functions known to the node, or change them.",
		.usage = "-f FILE [--filter NAME] | NAME --image REF [OPTION]...",
		.more = "The file is OpenFaaS' stack.yaml; Kiln's extras are annotations 'kiln.*'. A changed\n"
			"function gets new instances; requests in the old ones finish.\n"
			"\n"
			"Examples:\n"
			"  kiln deploy -f stack.yaml\n"
			"  kiln deploy telemetry --image telemetry:latest -e LIMIT=80 --limit-memory 256Mi\n"
			"  kiln deploy hot --image hot:1 --label com.openfaas.scale.min=2 --wait\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.max_operands = 1,
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	if (r == KN_CLI_RUN)
		r = check_usage(&cmd, &d, n);
	if (r == KN_CLI_RUN) {
		d.done = json_array();
		r = run(&cmd, &d, n > 0 ? operands[0] : NULL);
		json_decref(d.done);
	}
	kn_free(d.env.at);
	kn_free(d.annotations.at);
	kn_free(d.labels.at);
	kn_free(d.secrets.at);
	return r;
}
