#include "machine/fcapi.h"

#include <errno.h>
#include <stdlib.h>

/* Firecracker's other resources, by the first part of their path, and why they are not here. */
static const struct {
	const char *path, *why;   /* without the slash: the key in a configuration file */
} absent[] = {
	{ "/drives", "bare programs have no block devices" },
	{ "/pmem", "bare programs have no persistent memory" },
	{ "/network-interfaces", "bare programs have no network device; frames come over rings" },
	{ "/vsock", "bare programs have no vsock; use PUT /kiln/channel" },
	{ "/entropy", "bare programs have no entropy device" },
	{ "/serial", "bare programs have no serial port; their log comes over the channel" },
	{ "/balloon", "bare programs have no balloon" },
	{ "/hotplug", "memory cannot be added to a bare program" },
	{ "/mmds-config", "there is no network device that could serve metadata" },
	{ "/mmds", "there is no network device that could serve metadata" },
	{ "/metrics", "this monitor keeps no metrics" },
	{ "/snapshot", "bare programs cannot be saved; they start faster than a snapshot loads" },
	{ "/cpu-config", "bare programs see no CPUID that could be changed" },
};

/* ---- settings ------------------------------------------------------------------------------- */

void kn_fcapi_init(struct kn_fcapi *api, const char *id, const struct kn_fcapi_hooks *hooks)
{
	const struct kn_channel_config c = KN_CHANNEL_DEFAULTS;

	*api = (struct kn_fcapi){
		.id = id,
		.hooks = *hooks,
		.settings = {
			.vcpu_count = 1,
			.mem_size_mib = 128,
			.slots = c.slots,
			.max_request_bytes = c.max_request_bytes,
			.max_reply_bytes = c.max_reply_bytes,
		},
	};
}

void kn_fcapi_fini(struct kn_fcapi *api)
{
	kn_free(api->settings.kernel_image_path);
	kn_free(api->settings.boot_args);
	kn_free(api->settings.channel_path);
	api->settings = (struct kn_fcapi_settings){ .vcpu_count = 0 };
}

int kn_fcapi_check_id(const char *id, struct kn_err *err)
{
	size_t n = strlen(id);

	if (n == 0 || n > 64)
		return kn_fail(err, EINVAL, "an id has 1 to 64 characters, not %zu", n);
	for (size_t i = 0; i < n; i++) {
		char c = id[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		if (!letter && !(c >= '0' && c <= '9') && c != '-')
			return kn_fail(err, EINVAL,
			               "an id has letters, digits and '-' only; character %zu is none",
			               i + 1);
	}
	return 0;
}

/* Replace an owned string; v NULL clears it. */
static int set_string(char **to, const char *v, struct kn_err *err)
{
	char *copy = v ? strdup(v) : NULL;
	if (v && !copy)
		return kn_fail(err, ENOMEM, "out of memory");
	kn_free(*to);
	*to = copy;
	return 0;
}

/* ---- parts of the configuration ------------------------------------------------------------- */

#define REQUIRE(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define KNOWN(...)                                                                                 \
	((const char *const[]){ __VA_ARGS__ }), KN_ARRAY_LEN(((const char *const[]){ __VA_ARGS__ }))

static int put_boot_source(struct kn_fcapi *api, const json_t *o, struct kn_err *err)
{
	const char *path = NULL, *args = NULL, *initrd = NULL;

	int r = kn_json_require(o, REQUIRE("kernel_image_path"), err);
	if (r == 0)
		r = kn_json_known(o, KNOWN("kernel_image_path", "boot_args", "initrd_path"), err);
	if (r == 0)
		r = kn_json_str(o, "kernel_image_path", &path, err);
	if (r == 0)
		r = kn_json_str(o, "boot_args", &args, err);
	if (r == 0)
		r = kn_json_str(o, "initrd_path", &initrd, err);
	if (r < 0)
		return r;
	if (initrd)
		return kn_fail(err, EINVAL, "initrd_path: a bare program has no initial RAM disk");
	if (!path)
		return kn_fail(err, EINVAL, "kernel_image_path must be a string");
	r = api->hooks.check_image(path, api->hooks.arg, err);
	if (r == 0)
		r = set_string(&api->settings.kernel_image_path, path, err);
	if (r == 0)
		r = set_string(&api->settings.boot_args, args, err);
	return r;
}

/* What Firecracker offers beside size: only the value that means "without" can be kept. */
static int refuse_extras(const json_t *o, struct kn_err *err)
{
	const char *template = NULL, *pages = NULL;
	bool smt = false, dirty = false;

	int r = kn_json_bool(o, "smt", &smt, err);
	if (r == 0)
		r = kn_json_bool(o, "track_dirty_pages", &dirty, err);
	if (r == 0)
		r = kn_json_str(o, "cpu_template", &template, err);
	if (r == 0)
		r = kn_json_str(o, "huge_pages", &pages, err);
	if (r < 0)
		return r;
	if (smt)
		return kn_fail(err, EINVAL, "smt: one vCPU has no sibling");
	if (dirty)
		return kn_fail(err, EINVAL, "track_dirty_pages: there are no snapshots yet");
	if (template && strcmp(template, "None") != 0)
		return kn_fail(err, EINVAL, "cpu_template: only None; bare programs see no CPUID");
	if (pages && strcmp(pages, "None") != 0)
		return kn_fail(err, EINVAL, "huge_pages: only None");
	return 0;
}

static int set_machine(struct kn_fcapi *api, const json_t *o, struct kn_err *err)
{
	uint64_t vcpus = api->settings.vcpu_count, mib = api->settings.mem_size_mib;

	int r = kn_json_known(o, KNOWN("vcpu_count", "mem_size_mib", "smt", "cpu_template",
	                               "track_dirty_pages", "huge_pages"), err);
	if (r == 0)
		r = kn_json_u64(o, "vcpu_count", 32, &vcpus, err);
	if (r == 0)
		r = kn_json_u64(o, "mem_size_mib", 64 << 10, &mib, err);
	if (r == 0)
		r = refuse_extras(o, err);
	if (r < 0)
		return r;
	if (vcpus != 1)
		return kn_fail(err, EINVAL, "vcpu_count: a bare program runs on 1 vCPU");
	if (mib == 0)
		return kn_fail(err, EINVAL, "mem_size_mib must be at least 1");
	api->settings.vcpu_count = vcpus;
	api->settings.mem_size_mib = mib;
	return 0;
}

static int put_machine(struct kn_fcapi *api, const json_t *o, struct kn_err *err)
{
	int r = kn_json_require(o, REQUIRE("vcpu_count", "mem_size_mib"), err);
	return r < 0 ? r : set_machine(api, o, err);
}

static int put_logger(struct kn_fcapi *api, const json_t *o, struct kn_err *err)
{
	struct kn_fcapi_log log = { NULL, NULL };
	bool show = false;

	int r = kn_json_known(o, KNOWN("log_path", "level", "show_level", "show_log_origin", "module"),
	                      err);
	if (r == 0)
		r = kn_json_str(o, "log_path", &log.path, err);
	if (r == 0)
		r = kn_json_str(o, "level", &log.level, err);
	if (r == 0)   /* every line has its level, and none an origin: taken and not needed */
		r = kn_json_bool(o, "show_level", &show, err);
	if (r == 0)
		r = kn_json_bool(o, "show_log_origin", &show, err);
	if (r == 0 && json_object_get(o, "module"))
		return kn_fail(err, EINVAL, "module: lines cannot be filtered by module");
	return r < 0 ? r : api->hooks.log(&log, api->hooks.arg, err);
}

static int put_channel(struct kn_fcapi *api, const json_t *o, struct kn_err *err)
{
	struct kn_fcapi_settings s = api->settings;
	const char *path = NULL;

	int r = kn_json_require(o, REQUIRE("uds_path"), err);
	if (r == 0)
		r = kn_json_known(o, KNOWN("uds_path", "max_request_bytes", "max_reply_bytes", "slots",
		                           "time_limit_ms"), err);
	if (r == 0)
		r = kn_json_str(o, "uds_path", &path, err);
	if (r == 0)
		r = kn_json_u64(o, "max_request_bytes", KN_CHANNEL_MAX_BYTES, &s.max_request_bytes, err);
	if (r == 0)
		r = kn_json_u64(o, "max_reply_bytes", KN_CHANNEL_MAX_BYTES, &s.max_reply_bytes, err);
	if (r == 0)
		r = kn_json_u64(o, "slots", KN_BARE_REQUESTS, &s.slots, err);
	if (r == 0)
		r = kn_json_u64(o, "time_limit_ms", UINT32_MAX, &s.time_limit_ms, err);
	if (r < 0)
		return r;
	const struct kn_channel_config c = { (uint32_t)s.slots, s.max_request_bytes, s.max_reply_bytes };
	if (!path || kn_channel_bytes(&c) == 0)
		return kn_fail(err, EINVAL, "uds_path and sizes: 1 to %d slots, all of them at most %d "
		                            "MiB together", KN_BARE_REQUESTS, KN_CHANNEL_MAX_BYTES >> 20);
	s.channel_path = NULL;
	r = set_string(&s.channel_path, path, err);
	if (r < 0)
		return r;
	kn_free(api->settings.channel_path);
	api->settings = s;
	return 0;
}

/* ---- actions -------------------------------------------------------------------------------- */

static int instance_start(struct kn_fcapi *api, struct kn_err *err)
{
	if (!api->settings.kernel_image_path)
		return kn_fail(err, EINVAL, "Cannot start microvm without kernel configuration: "
		                            "PUT /boot-source first");
	return api->hooks.start(&api->settings, api->hooks.arg, err);
}

static int put_action(struct kn_fcapi *api, const json_t *o, struct kn_err *err)
{
	const char *type = NULL;

	int r = kn_json_require(o, REQUIRE("action_type"), err);
	if (r == 0)
		r = kn_json_known(o, KNOWN("action_type"), err);
	if (r == 0)
		r = kn_json_str(o, "action_type", &type, err);
	if (r < 0)
		return r;
	if (!type)
		return kn_fail(err, EINVAL, "action_type must be a string");
	if (strcmp(type, "InstanceStart") == 0)
		return api->hooks.state(api->hooks.arg) == KN_VMM_NOT_STARTED
		               ? instance_start(api, err)
		               : kn_fail(err, EINVAL, "The requested operation is not supported after "
		                                      "starting the microVM.");
	if (strcmp(type, "FlushMetrics") == 0)
		return kn_fail(err, EINVAL, "FlushMetrics: this monitor keeps no metrics");
	if (strcmp(type, "SendCtrlAltDel") == 0)
		return kn_fail(err, EINVAL, "SendCtrlAltDel: a bare program has no keyboard");
	return kn_fail(err, EINVAL, "unknown action_type: InstanceStart is the one that there is");
}

static int patch_vm(struct kn_fcapi *api, const json_t *o, struct kn_err *err)
{
	const char *state = NULL;

	int r = kn_json_require(o, REQUIRE("state"), err);
	if (r == 0)
		r = kn_json_known(o, KNOWN("state"), err);
	if (r == 0)
		r = kn_json_str(o, "state", &state, err);
	if (r < 0)
		return r;
	if (state && strcmp(state, "Paused") == 0)
		return api->hooks.pause(api->hooks.arg, err);
	if (state && strcmp(state, "Resumed") == 0)
		return api->hooks.resume(api->hooks.arg, err);
	return kn_fail(err, EINVAL, "state must be Paused or Resumed");
}

/* ---- views ---------------------------------------------------------------------------------- */

static json_t *show_machine(const struct kn_fcapi *api)
{
	return json_pack("{s:I, s:I, s:b, s:b, s:s}", "vcpu_count",
	                 (json_int_t)api->settings.vcpu_count, "mem_size_mib",
	                 (json_int_t)api->settings.mem_size_mib, "smt", 0, "track_dirty_pages", 0,
	                 "huge_pages", "None");
}

static json_t *show_instance(const struct kn_fcapi *api)
{
	return json_pack("{s:s, s:s, s:s, s:s}", "id", api->id, "state",
	                 kn_vmm_state_name(api->hooks.state(api->hooks.arg)), "vmm_version", KN_VERSION,
	                 "app_name", "kiln-vmm");
}

static json_t *show_version(const struct kn_fcapi *api)
{
	(void)api;
	return json_pack("{s:s}", "firecracker_version", KN_VERSION);
}

static json_t *show_config(const struct kn_fcapi *api)
{
	const struct kn_fcapi_settings *s = &api->settings;
	json_t *o = json_object();

	json_object_set_new(o, "machine-config", show_machine(api));
	if (s->kernel_image_path)
		json_object_set_new(o, "boot-source",
		                    json_pack("{s:s, s:s*}", "kernel_image_path", s->kernel_image_path,
		                              "boot_args", s->boot_args));
	if (s->channel_path)
		json_object_set_new(o, "kiln-channel",
		                    json_pack("{s:s, s:I, s:I, s:I, s:I}", "uds_path", s->channel_path,
		                              "max_request_bytes", (json_int_t)s->max_request_bytes,
		                              "max_reply_bytes", (json_int_t)s->max_reply_bytes,
		                              "slots", (json_int_t)s->slots, "time_limit_ms",
		                              (json_int_t)s->time_limit_ms));
	return o;
}

/* ---- the table of operations ---------------------------------------------------------------- */

enum { ANY_TIME, BEFORE_START, AFTER_START };

static const struct operation {
	const char *method, *path;
	int when;
	json_t *(*show)(const struct kn_fcapi *api);
	int (*change)(struct kn_fcapi *api, const json_t *o, struct kn_err *err);
} operations[] = {
	{ "GET", "/", ANY_TIME, show_instance, NULL },
	{ "GET", "/version", ANY_TIME, show_version, NULL },
	{ "GET", "/vm/config", ANY_TIME, show_config, NULL },
	{ "GET", "/machine-config", ANY_TIME, show_machine, NULL },
	{ "PUT", "/machine-config", BEFORE_START, NULL, put_machine },
	{ "PATCH", "/machine-config", BEFORE_START, NULL, set_machine },
	{ "PUT", "/boot-source", BEFORE_START, NULL, put_boot_source },
	{ "PUT", "/kiln/channel", BEFORE_START, NULL, put_channel },
	{ "PUT", "/logger", ANY_TIME, NULL, put_logger },
	{ "PUT", "/actions", ANY_TIME, NULL, put_action },
	{ "PATCH", "/vm", AFTER_START, NULL, patch_vm },
};

static const struct operation *find(struct kn_view method, struct kn_view path)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(operations); i++)
		if (kn_view_is(method, kn_view_of(operations[i].method)) &&
		    kn_view_is(path, kn_view_of(operations[i].path)))
			return &operations[i];
	return NULL;
}

static int tell_unknown(struct kn_view method, struct kn_view path, struct kn_err *err)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(absent); i++) {
		struct kn_view p = kn_view_of(absent[i].path);
		if (kn_view_starts(path, p) && (path.len == p.len || path.ptr[p.len] == '/'))
			return kn_fail(err, EINVAL, "%s: %s", absent[i].path, absent[i].why);
	}
	return kn_fail(err, EINVAL, "Invalid request method and/or path: %.*s %.*s.",
	               (int)kn_min(method.len, (size_t)16), method.ptr,
	               (int)kn_min(path.len, (size_t)128), path.ptr);
}

static int check_time(const struct kn_fcapi *api, const struct operation *op, struct kn_err *err)
{
	bool started = api->hooks.state(api->hooks.arg) != KN_VMM_NOT_STARTED;

	if (op->when == BEFORE_START && started)
		return kn_fail(err, EINVAL,
		               "The requested operation is not supported after starting the microVM.");
	if (op->when == AFTER_START && !started)
		return kn_fail(err, EINVAL,
		               "The requested operation is not supported before starting the microVM.");
	return 0;
}

static int change(struct kn_fcapi *api, const struct operation *op, struct kn_view body,
                  struct kn_err *err)
{
	kn_auto(json_decref) json_t *o = NULL;

	int r = kn_json_parse(body, &o, err);
	if (r == 0 && !json_is_object(o))
		r = kn_fail(err, EINVAL, "it must be an object");
	if (r < 0)
		return kn_while(err, "the request's body");
	return op->change(api, o, err);
}

static int fault(struct kn_buf *reply, const struct kn_err *err)
{
	kn_auto(json_decref) json_t *o = json_pack("{s:s}", "fault_message", kn_err_text(err));
	kn_buf_clear(reply);
	if (o)
		kn_json_print(reply, o, 0);
	return 400;
}

int kn_fcapi_answer(struct kn_fcapi *api, struct kn_view method, struct kn_view path,
                    struct kn_view body, struct kn_buf *reply)
{
	struct kn_err err = KN_ERR_INIT;
	const struct operation *op = find(method, path);

	kn_buf_clear(reply);
	int r = op ? check_time(api, op, &err) : kn_negative(tell_unknown(method, path, &err));
	if (r == 0 && op->change)
		r = change(api, op, body, &err);
	if (r < 0)
		return fault(reply, &err);
	if (!op->show)
		return 204;
	kn_auto(json_decref) json_t *o = op->show(api);
	if (!o) {
		kn_fail(&err, ENOMEM, "out of memory");
		return fault(reply, &err);
	}
	kn_json_print(reply, o, 0);
	return 200;
}

/* ---- the configuration file ----------------------------------------------------------------- */

/* Files written for Firecracker name what they do not use: empty and null are fine. */
static bool is_empty(const json_t *v)
{
	return json_is_null(v) || (json_is_array(v) && json_array_size(v) == 0) ||
	       (json_is_object(v) && json_object_size(v) == 0);
}

static int check_keys(const json_t *o, struct kn_err *err)
{
	kn_auto(json_decref) json_t *rest = json_copy((json_t *)(uintptr_t)o);
	const char *key;
	json_t *value;
	void *next;

	json_object_foreach_safe(rest, next, key, value) {
		for (size_t i = 0; i < KN_ARRAY_LEN(absent); i++) {
			const char *name = absent[i].path + 1;
			if (strcmp(key, name) != 0)
				continue;
			if (!is_empty(value))
				return kn_fail(err, EINVAL, "%s: %s", name, absent[i].why);
			json_object_del(rest, key);
			break;
		}
	}
	return kn_json_known(rest, KNOWN("logger", "machine-config", "boot-source", "kiln-channel"), err);
}

static int configure(struct kn_fcapi *api, const json_t *o, struct kn_err *err)
{
	static const struct {
		const char *key;
		int (*put)(struct kn_fcapi *api, const json_t *o, struct kn_err *err);
	} parts[] = {
		{ "logger", put_logger },
		{ "machine-config", put_machine },
		{ "boot-source", put_boot_source },
		{ "kiln-channel", put_channel },
	};

	int r = check_keys(o, err);
	for (size_t i = 0; r == 0 && i < KN_ARRAY_LEN(parts); i++) {
		json_t *part = NULL;
		r = kn_json_obj(o, parts[i].key, &part, err);
		if (r == 0 && part)
			r = parts[i].put(api, part, err);
		if (r < 0)
			return kn_while(err, "%s", parts[i].key);
	}
	return r;
}

int kn_fcapi_configure(struct kn_fcapi *api, struct kn_view text, struct kn_err *err)
{
	kn_auto(json_decref) json_t *o = NULL;

	int r = kn_json_parse(text, &o, err);
	if (r == 0 && !json_is_object(o))
		r = kn_fail(err, EINVAL, "it must be an object");
	if (r == 0)
		r = configure(api, o, err);
	return r < 0 ? kn_while(err, "configuration") : 0;
}
