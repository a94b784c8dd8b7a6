#include "cmd/kilnd/options.h"

#include <errno.h>
#include <unistd.h>

#include "base/conf.h"

enum { ROWS = 32 };

static const struct kn_kilnd_options DEFAULTS = {
	.listen = "127.0.0.1:8080",
	.log_level_text = "info",
	.log_format = "text",
	.function_auth = "open",
	.max_instances = 64,
	.idle_ms = 5 * 60 * 1000,
	.memory = UINT64_MAX,
	.max_connections = 4096,
	.max_body = UINT64_C(64) << 20,
	.max_reply = UINT64_C(64) << 20,
	.log_bytes = 256 * 1024,
	.head_timeout_ms = 10 * 1000,
	.idle_timeout_ms = 60 * 1000,
	.drain_ms = 30 * 1000,
	.token_ms = 3600 * 1000,
	.workers = 2,
	.snapshot_space = UINT64_C(8) << 30,
	.prepared = 1,
	.prepared_ms = 60 * 1000,
};

/* One row an option; the names are also the keys of the configuration file. */
static void fill_rows(struct kn_kilnd_options *o, struct kn_arg rows[ROWS])
{
	const struct kn_arg all[] = {
		{ "state", 0, KN_ARG_STR, &o->state, "DIR", "KILN_STATE",
		  "folder for everything that must survive a restart; made when it is missing" },
		{ "listen", 0, KN_ARG_STR, &o->listen, "ADDR:PORT", "KILN_LISTEN",
		  "where to serve HTTP (default 127.0.0.1:8080; port 0 takes a free one)" },
		{ "config", 0, KN_ARG_STR, &o->config, "FILE", "KILND_CONFIG",
		  "YAML file with these options as keys" },
		{ "function-auth", 0, KN_ARG_STR, &o->function_auth, "open|token", NULL,
		  "may anybody call functions, or only who has a token (default open)" },
		{ "issuer", 0, KN_ARG_STR, &o->issuer, "URL", NULL,
		  "the name of this node in tokens (default http://ADDR:PORT)" },
		{ "token-life", 0, KN_ARG_DURATION, &o->token_ms, "TIME", NULL,
		  "how long a token counts (default 1h)" },
		{ "max-instances", 0, KN_ARG_U64, &o->max_instances, "N", NULL,
		  "instances at once on this node (default 64)" },
		{ "memory", 0, KN_ARG_BYTES, &o->memory, "SIZE", NULL,
		  "memory that instances may have together; no start goes beyond it (default three "
		  "quarters of this machine's, 0: no limit)" },
		{ "idle", 0, KN_ARG_DURATION, &o->idle_ms, "TIME", NULL,
		  "stop instances that had no request for so long (default 5m, 0: never)" },
		{ "max-connections", 0, KN_ARG_U64, &o->max_connections, "N", NULL,
		  "clients at once; more wait to be accepted (default 4096)" },
		{ "max-body", 0, KN_ARG_BYTES, &o->max_body, "SIZE", NULL,
		  "largest request body of a function (default 64Mi)" },
		{ "max-reply", 0, KN_ARG_BYTES, &o->max_reply, "SIZE", NULL,
		  "largest reply body of a function (default 64Mi)" },
		{ "head-timeout", 0, KN_ARG_DURATION, &o->head_timeout_ms, "TIME", NULL,
		  "from a request's first byte to the end of its head (default 10s)" },
		{ "idle-timeout", 0, KN_ARG_DURATION, &o->idle_timeout_ms, "TIME", NULL,
		  "between requests of a connection, and without progress in a body (default 60s)" },
		{ "drain-timeout", 0, KN_ARG_DURATION, &o->drain_ms, "TIME", NULL,
		  "how long SIGTERM waits for requests under way (default 30s)" },
		{ "log-bytes", 0, KN_ARG_BYTES, &o->log_bytes, "SIZE", NULL,
		  "remembered output of each function (default 256Ki)" },
		{ "workers", 0, KN_ARG_U64, &o->workers, "N", NULL,
		  "threads for image imports and password hashes (default 2)" },
		{ "bare-shells", 0, KN_ARG_U64, &o->bare_shells, "N", NULL,
		  "monitors kept prepared for bare functions (default 0)" },
		{ "snapshot-space", 0, KN_ARG_BYTES, &o->snapshot_space, "SIZE", NULL,
		  "for snapshots that Linux functions start from; 0: they boot (default 8Gi)" },
		{ "prepared", 0, KN_ARG_U64, &o->prepared, "N", NULL,
		  "guests kept restored for Linux functions that were started last (default 1)" },
		{ "prepared-time", 0, KN_ARG_DURATION, &o->prepared_ms, "TIME", NULL,
		  "how long one is kept (default 60s)" },
		{ "run-dir", 0, KN_ARG_STR, &o->run_dir, "DIR", NULL,
		  "folder for sockets of running instances (default STATE/run)" },
		{ "lib-dir", 0, KN_ARG_STR, &o->lib_dir, "DIR", "KILN_LIB",
		  "folder with kiln-vmm and guest/ (default: beside this program)" },
		{ "qemu", 0, KN_ARG_STR, &o->qemu, "FILE", NULL,
		  "qemu-system-x86_64 to use (default: from the search path)" },
		{ "kvm-device", 0, KN_ARG_STR, &o->kvm_device, "FILE", NULL,
		  "KVM device (default /dev/kvm)" },
		{ "cgroup", 0, KN_ARG_STR, &o->cgroup, "NAME", NULL,
		  "parent cgroup of instances (default kiln)" },
		{ "egress-range", 0, KN_ARG_STR, &o->egress_range, "CIDR", NULL,
		  "addresses between functions' networks and this host (default: a free /16)" },
		{ "registry-auth", 0, KN_ARG_STR, &o->registry_auth, "FILE", NULL,
		  "names and passwords for other registries, as Docker's config.json keeps them" },
		{ "plain-http", 0, KN_ARG_STR, &o->plain_http, "HOST:PORT,...", NULL,
		  "registries to pull from without TLS (loopback addresses need not be named)" },
		{ "log-level", 0, KN_ARG_STR, &o->log_level_text, "LEVEL", "KILN_LOG",
		  "error, warn, info or debug (default info)" },
		{ "log-format", 0, KN_ARG_STR, &o->log_format, "text|logfmt|json", NULL,
		  "lines on standard error (default text)" },
		{ "allow-unix-functions", 0, KN_ARG_FLAG, &o->allow_unix_functions, NULL, NULL,
		  "take class unix: functions that somebody else runs behind a Unix socket; they "
		  "are not isolated" },
	};
	_Static_assert(KN_ARRAY_LEN(all) == ROWS, "count the rows");
	memcpy(rows, all, sizeof(all));
}

static struct kn_command command(const struct kn_arg *rows)
{
	return (struct kn_command){
		.name = "kilnd",
		.summary = "run functions on this node",
		.usage = "--state DIR [OPTION]...",
		.more = "Prints one line, \"ready http://ADDR:PORT\", on standard output when it "
			"serves. The first\nadministrator's credentials are in DIR/credentials. "
			"SIGTERM finishes what is under way\nand exits; a second one does not wait.\n\n"
			"  kilnd --state /var/lib/kiln\n"
			"  kilnd --config /etc/kiln/kilnd.yaml --log-format json\n",
		.args = rows,
		.n_args = ROWS,
	};
}

/* ---- the configuration file ------------------------------------------------------------------- */

/* A bare number is fine where a size or a time is wanted: 65536, 30. */
static int scalar_text(const json_t *file, const char *key, const char **ret, char room[32],
		       struct kn_err *err)
{
	const json_t *v = json_object_get(file, key);

	if (json_is_integer(v)) {
		snprintf(room, 32, "%lld", (long long)json_integer_value(v));
		*ret = room;
		return 0;
	}
	return kn_json_str(file, key, ret, err);
}

static int read_scalar(const json_t *file, const struct kn_arg *row, struct kn_err *err)
{
	const char *text = NULL;
	char room[32];
	int r = scalar_text(file, row->name, &text, room, err);

	if (r < 0 || !text)
		return r;
	if (row->kind == KN_ARG_BYTES)
		r = kn_parse_bytes(kn_view_of(text), row->ret, err);
	else
		r = kn_parse_duration(kn_view_of(text), row->ret, err);
	return r < 0 ? kn_while(err, "key '%s'", row->name) : 0;
}

static int read_row(const json_t *file, const struct kn_arg *row, struct kn_err *err)
{
	switch (row->kind) {
	case KN_ARG_FLAG:
		return kn_json_bool(file, row->name, row->ret, err);
	case KN_ARG_STR:
		return kn_json_str(file, row->name, row->ret, err);
	case KN_ARG_U64:
		return kn_json_u64(file, row->name, UINT32_MAX, row->ret, err);
	case KN_ARG_BYTES:
	case KN_ARG_DURATION:
		return read_scalar(file, row, err);
	case KN_ARG_LIST:
		break;
	}
	return kn_fail(err, ENOTSUP, "'%s' cannot be in the file", row->name);
}

static int read_file(const char *path, const struct kn_arg *rows, json_t **ret, struct kn_err *err)
{
	const char *names[ROWS];
	kn_auto(json_decref) json_t *file = NULL;
	int r = kn_yaml_load(path, &file, err);

	if (r == 0 && json_is_null(file)) /* an empty file says nothing, which is fine */
		return 0;
	if (r == 0 && !json_is_object(file))
		r = kn_fail(err, EINVAL, "it must be a list of keys and values");
	for (size_t i = 0; i < ROWS; i++)
		names[i] = rows[i].name;
	if (r == 0)
		r = kn_json_known(file, names, ROWS, err);
	for (size_t i = 0; r == 0 && i < ROWS; i++)
		r = read_row(file, &rows[i], err);
	if (r < 0)
		return kn_while(err, "configuration '%s'", path);
	*ret = kn_take_ptr(file);
	return 0;
}

/* ---- checks ----------------------------------------------------------------------------------- */

static int one_of_two(const char *option, const char *value, const char *no, const char *yes,
		      bool *ret, struct kn_err *err)
{
	*ret = strcmp(value, yes) == 0;
	if (*ret || strcmp(value, no) == 0)
		return 0;
	return kn_fail(err, EINVAL, "--%s is '%s' or '%s', not '%s'", option, no, yes, value);
}

static int read_format(struct kn_kilnd_options *o, struct kn_err *err)
{
	o->log_json = strcmp(o->log_format, "json") == 0;
	o->log_logfmt = strcmp(o->log_format, "logfmt") == 0;
	if (o->log_json || o->log_logfmt || strcmp(o->log_format, "text") == 0)
		return 0;
	return kn_fail(err, EINVAL, "--log-format is 'text', 'logfmt' or 'json', not '%s'",
		       o->log_format);
}

static int in_range(const char *option, uint64_t value, uint64_t min, uint64_t max,
		    struct kn_err *err)
{
	if (value >= min && value <= max)
		return 0;
	return kn_fail(err, EINVAL, "--%s must be from %llu to %llu", option,
		       (unsigned long long)min, (unsigned long long)max);
}

static int check(struct kn_kilnd_options *o, struct kn_err *err)
{
	int r;

	if (!o->state)
		return kn_fail(err, EINVAL,
			       "where may I keep my state? Give --state DIR (or KILN_STATE)");
	r = kn_parse_level(kn_view_of(o->log_level_text), &o->log_level, err);
	if (r == 0)
		r = read_format(o, err);
	if (r == 0)
		r = one_of_two("function-auth", o->function_auth, "open", "token",
			       &o->functions_need_token, err);
	if (r == 0)
		r = in_range("workers", o->workers, 1, 64, err);
	if (r == 0)
		r = in_range("max-instances", o->max_instances, 1, 4096, err);
	if (r == 0)
		r = in_range("max-connections", o->max_connections, 1, 65536, err);
	if (r == 0)
		r = in_range("bare-shells", o->bare_shells, 0, 256, err);
	if (r == 0)
		r = in_range("prepared", o->prepared, 0, 256, err);
	if (r == 0)
		r = in_range("token-life", o->token_ms / 1000, 1, 365 * 24 * 3600, err);
	return r;
}

/* What is left is for the node itself, and for the host's page cache. */
static uint64_t default_memory(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	return pages > 0 && size > 0 ? (uint64_t)pages / 4 * 3 * (uint64_t)size : 0;
}

/* ---- reading ---------------------------------------------------------------------------------- */

int kn_kilnd_options_read(int argc, char **argv, struct kn_kilnd_options *ret, struct kn_err *err)
{
	struct kn_kilnd_options o = DEFAULTS;
	struct kn_arg rows[ROWS];
	const char **operands;
	size_t n;

	fill_rows(&o, rows);
	struct kn_command cmd = command(rows);
	int r = kn_args_parse(&cmd, argc, argv, &operands, &n, err);
	if (r != KN_ARGS_RUN)
		return r;
	if (o.config) { /* the file comes before environment and flags: read those once more */
		const char *path = o.config;
		o = DEFAULTS;
		r = read_file(path, rows, &o.file, err);
		if (r == 0)
			r = kn_args_parse(&cmd, argc, argv, &operands, &n, err);
	}
	if (r == 0)
		r = check(&o, err);
	if (r < 0) {
		kn_kilnd_options_fini(&o);
		return r;
	}
	if (o.memory == UINT64_MAX)
		o.memory = default_memory();
	*ret = o;
	return KN_ARGS_RUN;
}

void kn_kilnd_options_fini(struct kn_kilnd_options *o)
{
	json_decref(o->file);
	o->file = NULL;
}

void kn_kilnd_help(struct kn_buf *ret)
{
	struct kn_kilnd_options o = DEFAULTS;
	struct kn_arg rows[ROWS];

	fill_rows(&o, rows);
	struct kn_command cmd = command(rows);
	kn_args_help(&cmd, ret);
}
