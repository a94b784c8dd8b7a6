/*
 * The monitor: one process, one microVM. It takes Firecracker's command line. The way of an inherited
 * channel to the first instruction of the guest is short on purpose: no thread, no event loop, and
 * nothing parsed but this command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/time.h"
#include "machine/fcapi.h"
#include "machine/vmm.h"

enum { NO_FD = 0x7fffffff, MAX_CONFIG = 1 << 20 };

struct options {
	const char *device, *api_sock, *id, *config_file, *log_path, *level;
	uint64_t channel_fd, max_payload;
	bool no_api, version;
};

static int usage_error(const struct kn_err *err)
{
	fprintf(stderr, "kiln-vmm: %s\n", kn_err_text(err));
	return 2;
}

static int help(const struct kn_command *cmd)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	kn_args_help(cmd, &b);
	fwrite(b.ptr, 1, b.len, stdout);
	return 0;
}

static int check(const struct options *o, struct kn_err *err)
{
	int r = kn_fcapi_check_id(o->id, err);
	if (r < 0)
		return kn_while(err, "--id");
	if (o->no_api && !o->config_file)
		return kn_fail(err, EINVAL, "--no-api needs --config-file: nothing would say what to run");
	return 0;
}

static int set_log(const struct options *o, struct kn_err *err)
{
	struct kn_log_config c = KN_LOG_DEFAULTS;

	if (o->level) {
		int r = kn_parse_level(kn_view_of(o->level), &c.level, err);
		if (r < 0)
			return kn_while(err, "--level");
	}
	if (o->log_path) {
		c.fd = open(o->log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
		if (c.fd < 0)
			return kn_fail(err, errno, "--log-path '%s': %s", o->log_path, strerror(errno));
	}
	kn_log_setup(&c);
	return 0;
}

static int serve(const struct options *o)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf config = KN_BUF_INIT;

	int r = check(o, &err);
	if (r == 0)
		r = set_log(o, &err);
	if (r == 0 && o->config_file)
		r = kn_read_file(AT_FDCWD, o->config_file, MAX_CONFIG, &config, &err);
	if (r == 0 && o->config_file && config.len && strlen(config.ptr) != config.len)
		r = kn_fail(&err, EINVAL, "'%s' is no text", o->config_file);
	if (r < 0)
		return usage_error(&err);
	const struct kn_fcapi_serve s = {
		.device = o->device,
		.api_sock = o->no_api ? NULL : o->api_sock,
		.config = !o->config_file ? NULL : config.len ? config.ptr : "",
		.id = o->id,
		.max_body = o->max_payload,
	};
	return kn_fcapi_run(&s);
}

static int run(const struct options *o, uint64_t started_ns)
{
	if (o->version) {
		printf("kiln-vmm v%s\n", KN_VERSION);
		return 0;
	}
	if (o->channel_fd != NO_FD)
		return kn_vmm_serve(o->device, (int)kn_min(o->channel_fd, (uint64_t)NO_FD), started_ns);
	return serve(o);
}

int main(int argc, char **argv)
{
	uint64_t started_ns = kn_now_ns();
	struct options o = {
		.device = KN_KVM_DEVICE,
		.api_sock = "/run/kiln-vmm.socket",
		.id = "anonymous-instance",
		.channel_fd = NO_FD,
		.max_payload = KN_FCAPI_MAX_BODY,
	};
	const struct kn_arg args[] = {
		{ "api-sock", 0, KN_ARG_STR, &o.api_sock, "PATH", NULL,
		  "socket of the API; /run/kiln-vmm.socket by default" },
		{ "id", 0, KN_ARG_STR, &o.id, "ID", NULL, "name of the microVM: letters, digits, '-'" },
		{ "config-file", 0, KN_ARG_STR, &o.config_file, "FILE", NULL,
		  "configure from this JSON file and start at once" },
		{ "no-api", 0, KN_ARG_FLAG, &o.no_api, NULL, NULL, "no API; needs --config-file" },
		{ "log-path", 0, KN_ARG_STR, &o.log_path, "FILE", NULL,
		  "append the log here; standard error by default" },
		{ "level", 0, KN_ARG_STR, &o.level, "LEVEL", NULL,
		  "error, warn, info (default) or debug" },
		{ "http-api-max-payload-size", 0, KN_ARG_U64, &o.max_payload, "BYTES", NULL,
		  "largest body of a request; 51200 by default" },
		{ "channel-fd", 0, KN_ARG_U64, &o.channel_fd, "N", NULL,
		  "inherited socket that says what to run; its end ends the microVM" },
		{ "device", 0, KN_ARG_STR, &o.device, "PATH", "KILN_KVM_DEVICE",
		  "KVM device; /dev/kvm by default" },
		{ "version", 0, KN_ARG_FLAG, &o.version, NULL, NULL, "print the version" },
	};
	const struct kn_command cmd = {
		.name = "kiln-vmm",
		.summary = "Run one microVM.",
		.usage = "[OPTION]...",
		.more = "Example, with a program made by `kiln build --elf hello.elf`:\n"
			"  kiln-vmm --api-sock /tmp/vm.sock &\n"
			"  curl --unix-socket /tmp/vm.sock -X PUT http://vm/boot-source \\\n"
			"    -d '{\"kernel_image_path\": \"hello.elf\"}'\n"
			"  curl --unix-socket /tmp/vm.sock -X PUT http://vm/actions \\\n"
			"    -d '{\"action_type\": \"InstanceStart\"}'\n"
			"\n"
			"Exit codes: 0 the program ended itself, or was ended; 1 it failed; 2 used wrongly.\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
	};
	struct kn_err err = KN_ERR_INIT;
	const char **operands;
	size_t n;

	int r = kn_args_parse(&cmd, argc, argv, &operands, &n, &err);
	if (r < 0)
		return usage_error(&err);
	return r == KN_ARGS_HELP ? help(&cmd) : run(&o, started_ns);
}
