#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "cmd/hosting.h"
#include "cmd/kiln/kiln.h"
#include "cmd/kiln/print.h"

static const char *text(const json_t *obj, const char *key)
{
	const char *v = json_string_value(json_object_get(obj, key));

	return v ? v : "";
}

static double number(const json_t *obj, const char *key)
{
	return json_number_value(json_object_get(obj, key));
}

/* Colour only for a person: escape codes in a file help nobody. */
static void mark(const char *word)
{
	static const struct {
		const char *word, *colour;
	} colours[] = {
		{ "works", "32" },	{ "good", "32" },    { "limited", "33" },
		{ "incomplete", "31" }, { "missing", "31" }, { "impossible", "31" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(colours); i++) {
		if (strcmp(word, colours[i].word) != 0 || !isatty(STDOUT_FILENO))
			continue;
		printf("\033[%sm%-12s\033[0m", colours[i].colour, word);
		return;
	}
	printf("%-12s", word);
}

enum { WIDTH = 100, TEXT_COLUMN = 25, PART_COLUMN = 31 };

/* Words from column on, wrapped; the cursor stands at column already. */
static void wrapped(size_t column, const char *words)
{
	struct kn_view rest = kn_view_of(words);
	struct kn_view word;
	size_t at = column;

	while (kn_view_split(&rest, ' ', &word)) {
		if (at > column && at + 1 + word.len > WIDTH) {
			printf("\n%*s", (int)column, "");
			at = column;
		} else if (at > column) {
			putchar(' ');
			at++;
		}
		kn_show_text(stdout, word);
		at += word.len;
	}
	putchar('\n');
}

static void show_host(const json_t *report)
{
	const json_t *host = json_object_get(report, "host");
	char memory[KN_SHORT];

	kn_show_bytes((uint64_t)number(host, "memory_bytes"), memory);
	printf("This machine: Linux %s, %s, %.0f cores, %s of memory; kiln %s\n",
	       text(host, "kernel"), text(host, "arch"), number(host, "cpus"), memory,
	       text(report, "version"));
}

static void show_kvm(const json_t *kvm)
{
	char create[KN_SHORT], leave[KN_SHORT];

	printf("\nKVM, measured on %s: %s\n", text(kvm, "device"), text(kvm, "verdict"));
	printf("  ");
	wrapped(2, text(kvm, "reason"));
	if (strcmp(text(kvm, "verdict"), "none") == 0)
		return;
	kn_show_ns((uint64_t)number(kvm, "create_ns"), create);
	kn_show_ns((uint64_t)number(kvm, "exit_ns"), leave);
	printf("  a VM made and run to its first exit: %s; one exit: %s\n", create, leave);
	printf("  an instruction in ring 3: %.2f ns; in ring 0: %.2f ns\n",
	       number(kvm, "ring3_ns_per_instruction"), number(kvm, "ring0_ns_per_instruction"));
}

static void show_class(const json_t *c)
{
	char line[1024];
	bool on = *text(c, "hypervisor");

	printf("  %-10s ", text(c, "class"));
	mark(text(c, "state"));
	snprintf(line, sizeof(line), "%s%s%s%s", on ? "on " : "", text(c, "hypervisor"),
		 on ? ": " : "", text(c, "why"));
	wrapped(TEXT_COLUMN, line);
	printf("%*s", TEXT_COLUMN, "");
	snprintf(line, sizeof(line), "isolation: %s", text(c, "security"));
	wrapped(TEXT_COLUMN, line);
}

static void show_part(const json_t *p)
{
	char line[1024];

	printf("  %-16s ", text(p, "name"));
	mark(text(p, "state"));
	wrapped(PART_COLUMN, text(p, "found"));
	if (!*text(p, "fix"))
		return;
	printf("%*s", PART_COLUMN, "");
	snprintf(line, sizeof(line), "needed for %s; to get it: %s", text(p, "needed_for"),
		 text(p, "fix"));
	wrapped(PART_COLUMN, line);
}

static void show(const json_t *report)
{
	size_t i;
	json_t *one;

	show_host(report);
	show_kvm(json_object_get(report, "kvm"));
	printf("\nClasses of functions\n");
	json_array_foreach (json_object_get(report, "classes"), i, one) {
		show_class(one);
	}
	printf("\nParts\n");
	json_array_foreach (json_object_get(report, "parts"), i, one) {
		show_part(one);
	}
	printf("\n%s: %s.\n", json_is_true(json_object_get(report, "ok")) ? "Ready" : "Not ready",
	       text(report, "verdict"));
}

static int run(const struct kn_command *cmd, const struct kn_hosting_config *config, bool as_json)
{
	kn_auto(kn_hosting_free) struct kn_hosting *hosting = NULL;
	kn_auto(json_decref) json_t *report = NULL;
	struct kn_err err = KN_ERR_INIT;

	int r = kn_hosting_find(config, &hosting, &err);
	if (r == 0)
		report = kn_hosting_report(hosting);
	if (r == 0 && !report)
		r = kn_fail(&err, ENOMEM, "out of memory");
	if (r < 0)
		return kn_cli_failed(cmd, &err);
	bool ok = json_is_true(json_object_get(report, "ok"));
	if (as_json)
		kn_show_json(report);
	else
		show(report);
	r = kn_cli_done(cmd);
	return ok ? r : KN_EXIT_FAILED;
}

int kn_verb_doctor(int argc, char **argv)
{
	struct kn_hosting_config config = { .lib_dir = NULL };
	bool as_json = false;
	const struct kn_arg args[] = {
		{ "lib", 0, KN_ARG_STR, &config.lib_dir, "DIR", NULL,
		  "folder with kiln-vmm and guest/ (default: this program's, or ../lib/kiln)" },
		{ "kvm", 0, KN_ARG_STR, &config.kvm_device, "DEVICE", NULL,
		  "KVM device to measure (default: /dev/kvm)" },
		{ "json", 0, KN_ARG_FLAG, &as_json, NULL, NULL, "print JSON for scripts" },
	};
	const struct kn_command cmd = {
		.name = "kiln doctor",
		.summary =
			"Measure this machine: which classes of functions it runs, on what, and what "
			"is missing.",
		.usage = "[OPTION]...",
		.more = "Needs no node. Exits 0 when every class that this machine can run is ready, 1 when\n"
			"a part is missing; the command that brings it is told.\n"
			"\n"
			"Example:\n"
			"  kiln doctor --json | jq '.classes[] | {class, state, hypervisor}'\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	const char **operands;
	size_t n;

	int r = kn_cli_parse(&cmd, argc, argv, &operands, &n);
	return r == KN_CLI_RUN ? run(&cmd, &config, as_json) : r;
}
