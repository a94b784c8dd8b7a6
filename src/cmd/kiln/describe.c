#include <errno.h>
#include <stdio.h>

#include "cmd/kiln/node.h"
#include "cmd/kiln/print.h"

static const char *text(const json_t *obj, const char *key)
{
	const char *v = json_string_value(json_object_get(obj, key));

	return v ? v : "";
}

static long long number(const json_t *obj, const char *key)
{
	return (long long)json_integer_value(json_object_get(obj, key));
}

static void show_ms(const json_t *obj, const char *key, char out[KN_SHORT])
{
	double ms = json_number_value(json_object_get(obj, key));

	kn_show_ns((uint64_t)(kn_max(ms, 0.0) * 1e6), out);
}

/* "label:     text"; nothing for an empty text. */
static void line(const char *label, const char *value)
{
	if (!*value)
		return;
	printf("%-18s", label);
	kn_show_text(stdout, kn_view_of(value));
	putchar('\n');
}

static void show_map(const char *heading, const json_t *map)
{
	const char *label = heading;
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)map, name, value) {
		printf("%-18s", label);
		kn_show_text(stdout, kn_view_of(name));
		putchar('=');
		kn_show_text(stdout, kn_view_of(json_string_value(value)));
		putchar('\n');
		label = "";
	}
}

static void show_isolation(const json_t *kiln)
{
	printf("%-18s%s", "Class:", text(kiln, "class"));
	if (*text(kiln, "hypervisor"))
		printf(" on %s", text(kiln, "hypervisor"));
	if (*text(kiln, "hypervisorReason"))
		printf(" (%s)", text(kiln, "hypervisorReason"));
	printf("\n%-18s%s", "Contract:", text(kiln, "contract"));
	if (number(kiln, "port"))
		printf(", port %lld", number(kiln, "port"));
	if (*text(kiln, "readyPath"))
		printf(", ready when GET %s answers 2xx", text(kiln, "readyPath"));
	putchar('\n');
}

/* "1 request", "64 requests" */
static const char *count(const json_t *obj, const char *key, const char *what, char out[KN_SHORT])
{
	long long n = number(obj, key);

	snprintf(out, KN_SHORT, "%lld %s%s", n, what, n == 1 ? "" : "s");
	return out;
}

static void show_limits(const json_t *kiln)
{
	const json_t *scale = json_object_get(kiln, "scale");
	char memory[KN_SHORT], vcpus[KN_SHORT], requests[KN_SHORT];

	kn_show_bytes((uint64_t)kn_max(number(kiln, "memoryBytes"), 0LL), memory);
	printf("%-18s%s of memory, %s, %s at once", "Instance:", memory,
	       count(kiln, "vcpus", "vCPU", vcpus),
	       count(kiln, "concurrency", "request", requests));
	if (number(kiln, "cpuMilli"))
		printf(", %lld thousandths of a core", number(kiln, "cpuMilli"));
	if (number(kiln, "maxPids"))
		printf(", %lld processes", number(kiln, "maxPids"));
	putchar('\n');
	printf("%-18s%s for an invocation, start and wait included; %s for a start\n",
	       "Deadlines:", text(kiln, "timeout"), text(kiln, "bootTimeout"));
	printf("%-18s%lld to %s", "Scale:", number(scale, "min"),
	       count(scale, "max", "instance", vcpus));
	if (json_object_get(scale, "wanted") && number(scale, "wanted") != number(scale, "min"))
		printf(", %lld kept for now", number(scale, "wanted"));
	printf("; %s may wait\n", count(kiln, "queue", "request", requests));
}

static void show_life(const json_t *fn, const json_t *kiln)
{
	const json_t *instances = json_object_get(kiln, "instances");
	const json_t *calls = json_object_get(kiln, "invocations");
	const json_t *usage = json_object_get(fn, "usage");
	char memory[KN_SHORT];

	printf("%-18s%lld (%lld ready, %lld busy); %lld requests wait\n",
	       "Instances:", number(instances, "total"), number(instances, "ready"),
	       number(instances, "busy"), number(kiln, "waiting"));
	if (number(usage, "totalMemoryBytes") > 0) {
		kn_show_bytes((uint64_t)number(usage, "totalMemoryBytes"), memory);
		printf("%-18s%s of memory, %.0f thousandths of a core on average\n", "Use:", memory,
		       json_number_value(json_object_get(usage, "cpu")));
	}
	printf("%-18s%lld: %lld cold, %lld prewarmed, %lld warm, %lld failed\n",
	       "Invocations:", number(calls, "total"), number(calls, "cold"),
	       number(calls, "prewarmed"), number(calls, "warm"), number(calls, "failed"));
}

static void show_times(const json_t *kiln)
{
	const json_t *cold = json_object_get(kiln, "lastColdStart");
	char took[KN_SHORT];
	size_t i;
	json_t *phase;

	if (cold) {
		char age[KN_SHORT];
		show_ms(cold, "ms", took);
		kn_show_age(text(cold, "at"), age);
		printf("%-18s%s, %s: ", "Last cold start:", took, age);
		json_array_foreach (json_object_get(cold, "phases"), i, phase) {
			show_ms(phase, "ms", took);
			printf("%s%s %s", i ? ", " : "", text(phase, "name"), took);
		}
		putchar('\n');
	}
	if (json_object_get(kiln, "warmP50Ms")) {
		show_ms(kiln, "warmP50Ms", took);
		printf("%-18s%s (median)\n", "Warm invocation:", took);
	}
}

static void show_instances(const json_t *instances)
{
	const char *label = "";
	size_t i;
	json_t *one;

	json_array_foreach (instances, i, one) {
		char took[KN_SHORT], age[KN_SHORT];
		show_ms(one, "startMs", took);
		kn_show_age(text(one, "started"), age);
		printf("%-18s%s %s, %lld served, started in %s, %s", label, text(one, "id"),
		       text(one, "state"), number(one, "served"), took, age);
		if (number(one, "memoryBytes")) {
			kn_show_bytes((uint64_t)kn_max(number(one, "memoryBytes"), 0LL), took);
			printf("; uses %s", took);
		}
		putchar('\n');
	}
}

/* "kiln_nf_drops_total{chain="inbound",reason="acl_default"} 3", zeros left out. */
static void show_counters(const json_t *counters)
{
	const char *label = "Counters:";
	size_t i;
	json_t *one;

	json_array_foreach (counters, i, one) {
		if (number(one, "value") == 0)
			continue;
		printf("%-18s%s{", label, text(one, "name"));
		kn_show_text(stdout, kn_view_of(text(one, "labels")));
		printf("} %lld\n", number(one, "value"));
		label = "";
	}
}

static const char *who_may_call(const char *auth)
{
	if (strcmp(auth, "open") == 0)
		return "open to everybody";
	return strcmp(auth, "token") == 0 ? "callers need a token"
					  : "callers need a token if the node says so";
}

static void show_update(const json_t *update)
{
	if (strcmp(text(update, "state"), "running") == 0)
		printf("%-18s%s%s\n", "Update:", "the new revision is not ready yet",
		       *text(update, "error") ? "; its last start:" : "");
	else if (update)
		printf("%-18s%s\n", "Update:", "did not get ready, the revision before it goes on:");
	line("", text(update, "error"));
}

static void show(const struct kn_node *node, const json_t *fn)
{
	const json_t *kiln = json_object_get(fn, "kiln");
	char created[KN_SHORT];

	line("Name:", text(fn, "name"));
	line("Image:", text(fn, "image"));
	printf("%-18s%s/function/%s (%s)\n", "URL:", kn_node_gateway(node), text(fn, "name"),
	       who_may_call(text(kiln, "auth")));
	kn_show_age(text(fn, "createdAt"), created);
	line("Deployed:", created);
	line("Process:", text(fn, "envProcess"));
	show_isolation(kiln);
	show_limits(kiln);
	show_life(fn, kiln);
	show_instances(json_object_get(fn, "instances"));
	show_times(kiln);
	show_counters(json_object_get(fn, "counters"));
	line("Last error:", text(kiln, "lastError"));
	show_update(json_object_get(kiln, "update"));
	show_map("Environment:", json_object_get(fn, "envVars"));
	show_map("Labels:", json_object_get(fn, "labels"));
	show_map("Annotations:", json_object_get(fn, "annotations"));
}

static int run(const struct kn_command *cmd, const struct kn_node_args *args, const char *name)
{
	kn_auto(kn_node_close) struct kn_node *node = NULL;
	kn_auto(json_decref) json_t *fn = NULL;
	kn_auto(kn_buf_fini) struct kn_buf path = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	kn_buf_adds(&path, "/kiln/v1/functions/");
	kn_url_encode(&path, kn_view_of(name));
	int r = path.failed ? kn_fail(&err, ENOMEM, "out of memory")
			    : kn_node_open(args, &node, &err);
	if (r == 0) {
		const struct kn_node_request req = { .path = path.ptr };
		r = kn_node_json(node, &req, &fn, &err);
	}
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	if (args->json)
		kn_show_json(fn);
	else
		show(node, fn);
	return kn_cli_done(cmd);
}

int kn_verb_describe(int argc, char **argv)
{
	struct kn_node_args node = { .json = false };
	const struct kn_arg args[] = { KN_NODE_ARGS(node) };
	const struct kn_command cmd = {
		.name = "kiln describe",
		.summary = "Tell everything about one function.",
		.usage = "[OPTION]... FUNCTION",
		.more = "Its class and the hypervisor that runs it, its limits, its instances, what was\n"
			"invoked cold and warm, where the time of the last cold start went, and why the\n"
			"last instance ended badly, if one did.\n"
			"\n"
			"Example:\n"
			"  kiln describe telemetry --json | jq .kiln.lastColdStart\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.min_operands = 1,
		.max_operands = 1,
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	return r == KN_CLI_RUN ? run(&cmd, &node, operands[0]) : r;
}
