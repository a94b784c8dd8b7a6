/*
 * The monitor: one process, one microVM. The way to the first instruction of the guest is short on
 * purpose: without an API there is no thread, no event loop and nothing parsed but this command line.
 */
#include <errno.h>
#include <stdio.h>

#include "base/args.h"
#include "base/time.h"
#include "machine/vmm.h"

enum { NO_FD = 0x7fffffff };

struct options {
	const char *device;
	uint64_t channel_fd;
	bool version;
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

static int run(const struct options *o, uint64_t started_ns)
{
	struct kn_err err = KN_ERR_INIT;

	if (o->version) {
		printf("kiln-vmm %s\n", KN_VERSION);
		return 0;
	}
	if (o->channel_fd == NO_FD) {
		kn_fail(&err, EINVAL, "nothing to do: give --channel-fd; --help explains");
		return usage_error(&err);
	}
	return kn_vmm_serve(o->device, (int)o->channel_fd, started_ns);
}

int main(int argc, char **argv)
{
	uint64_t started_ns = kn_now_ns();
	struct options o = { .device = KN_KVM_DEVICE, .channel_fd = NO_FD };
	const struct kn_arg args[] = {
		{ "channel-fd", 0, KN_ARG_U64, &o.channel_fd, "N", NULL,
		  "Inherited socket that says what to run; the end of it ends the microVM." },
		{ "device", 0, KN_ARG_STR, &o.device, "PATH", "KILN_KVM_DEVICE",
		  "KVM device; /dev/kvm by default." },
		{ "version", 0, KN_ARG_FLAG, &o.version, NULL, NULL, "Print the version." },
	};
	const struct kn_command cmd = {
		.name = "kiln-vmm",
		.summary = "Run one microVM.",
		.usage = "[OPTION]...",
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
