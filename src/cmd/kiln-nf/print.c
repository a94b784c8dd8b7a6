/*
 * A report for people: totals, then what was dropped and why, then what stages counted.
 */
#include <stdio.h>
#include <string.h>

#include "cmd/kiln-nf/nf.h"
#include "packet/reason.h"

static long long number(const json_t *obj, const char *key)
{
	return (long long)json_integer_value(json_object_get(obj, key));
}

static const char *text(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return s ? s : "";
}

static void print_total(const char *what, const json_t *traffic)
{
	printf("%-9s %10lld frames %12lld bytes\n", what, number(traffic, "frames"),
	       number(traffic, "bytes"));
}

static const char *reason_text(const char *name)
{
	for (unsigned i = 0; i < KN_REASON_COUNT; i++)
		if (strcmp(kn_reason_name((enum kn_reason)i), name) == 0)
			return kn_reason_text((enum kn_reason)i);
	return "";
}

static void print_drops(const json_t *dropped)
{
	const char *name;
	json_t *count;

	printf("%-9s %10lld frames\n", "dropped", number(dropped, "frames"));
	json_object_foreach (json_object_get(dropped, "by_reason"), name, count)
		printf("  %10lld  %-16s %s\n", (long long)json_integer_value(count), name,
		       reason_text(name));
}

static void print_stage(const json_t *stage)
{
	const json_t *rules = json_object_get(stage, "rules"), *rule;
	size_t i;

	if (strcmp(text(stage, "stage"), "count") == 0)
		printf("\ncount %s\n  %10lld frames %12lld bytes\n", text(stage, "name"),
		       number(stage, "frames"), number(stage, "bytes"));
	if (!rules)
		return;
	printf("\n%s %s\n", text(stage, "stage"), text(stage, "name"));
	json_array_foreach (rules, i, rule)
		printf("  %10lld  %-4s  %s\n", number(rule, "frames"), text(rule, "action"),
		       text(rule, "name"));
}

static void print_chain(const json_t *report)
{
	const json_t *stages = json_object_get(report, "stages"), *stage;
	size_t i;

	print_total("received", json_object_get(report, "received"));
	print_total("sent", json_object_get(report, "sent"));
	print_drops(json_object_get(report, "dropped"));
	json_array_foreach (stages, i, stage)
		print_stage(stage);
}

static void print_port(const char *name, const json_t *port)
{
	const json_t *rx = json_object_get(port, "rx"), *tx = json_object_get(port, "tx");

	printf("port %-10s %s by %s, %s\n", name, text(port, "interface"), text(port, "kind"),
	       json_is_true(json_object_get(port, "up")) ? "up" : "down");
	printf("  received %10lld frames %12lld bytes, %lld missed\n  sent     %10lld frames %12lld "
	       "bytes\n",
	       number(rx, "frames"), number(rx, "bytes"), number(port, "missed"),
	       number(tx, "frames"), number(tx, "bytes"));
}

void kn_nf_print_report(const json_t *report)
{
	const json_t *chains = json_object_get(report, "chains");
	json_t *ports = json_object_get(report, "ports"), *one;
	const char *name;

	json_object_foreach (ports, name, one)
		print_port(name, one);
	if (!chains)
		print_chain(report);
	json_object_foreach ((json_t *)(uintptr_t)chains, name, one) {
		printf("\nchain %s\n", name);
		print_chain(one);
	}
}
