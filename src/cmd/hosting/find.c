#include "cmd/hosting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd/hosting/private.h"
#include "oci/sandbox_fake.h"

/* ---- paths --------------------------------------------------------------------------------- */

static const char *text(struct kn_hosting *h, const char *a, const char *b)
{
	char *t = kn_arena_printf(&h->arena, "%s%s", a, b);

	h->failed = h->failed || !t;
	return t ? t : "";
}

/* Beside this program (the build folder), or where an installed one keeps its parts. */
static const char *find_lib_dir(struct kn_hosting *h, const char *given)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (given)
		return text(h, given, "");
	if (n <= 0)
		return ".";
	self[n] = '\0';
	char *slash = strrchr(self, '/');
	if (slash)
		*slash = '\0';
	const char *installed = text(h, self, "/../lib/kiln");
	const char *beside = text(h, self, "");
	return access(text(h, installed, "/guest"), F_OK) == 0 ? installed : beside;
}

/* Programs lie beside the parts in the build folder, and in bin/ when they are installed. */
static const char *find_program(struct kn_hosting *h, const char *name)
{
	const char *in_lib = text(h, text(h, h->lib_dir, "/"), name);

	if (access(in_lib, X_OK) == 0)
		return in_lib;
	const char *installed = text(h, text(h, h->lib_dir, "/../../bin/"), name);
	return access(installed, X_OK) == 0 ? installed : in_lib;
}

static const char *find_qemu(struct kn_hosting *h, const char *given)
{
	static const char *const places[] = { "/usr/local/bin/qemu-system-x86_64",
					      "/usr/bin/qemu-system-x86_64" };

	if (given)
		return text(h, given, "");
	for (size_t i = 0; i < KN_ARRAY_LEN(places); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return places[1];
}

static void find_paths(struct kn_hosting *h, const struct kn_hosting_config *c)
{
	h->kvm_device = text(h, c->kvm_device ? c->kvm_device : "/dev/kvm", "");
	h->lib_dir = find_lib_dir(h, c->lib_dir);
	h->vmm = find_program(h, "kiln-vmm");
	h->nf = find_program(h, "kiln-nf");
	h->agent = find_program(h, "kiln-agent");
	h->qemu = KN_SANDBOX_QEMU_DEFAULTS;
	h->qemu.qemu = find_qemu(h, c->qemu);
	h->qemu.kernel = text(h, h->lib_dir, "/" KN_GUEST_KERNEL);
	h->qemu.initramfs = text(h, h->lib_dir, "/" KN_GUEST_INITRAMFS);
	h->qemu.preload = text(h, h->lib_dir, "/" KN_QEMU_PRELOAD);
	if (c->cgroup)
		h->qemu.cgroup = text(h, c->cgroup, "");
	h->ns_config = KN_NS_DEFAULTS;
	h->ns_config.agent = h->agent;
	h->ns_config.cgroup = h->qemu.cgroup;
	h->kvm = KN_SANDBOX_KVM_DEFAULTS;
	h->kvm.vmm = h->vmm;
	h->kvm.device = h->kvm_device;
}

/* ---- choices ------------------------------------------------------------------------------- */

static void refuse(struct kn_hosting *h, enum kn_class c, enum kn_class_state state,
		   const char *why)
{
	h->states[c] = state;
	h->classes[c] = (struct kn_engine_class){ .why = text(h, why, "") };
}

/* Every part of this list is there; else the class is refused with what brings the first one. */
static bool has_parts(struct kn_hosting *h, enum kn_class c, const char *const *names)
{
	for (; *names; names++) {
		const struct kn_part *p = kn_hosting_part(h, *names);
		if (!p || p->state != KN_PART_MISSING)
			continue;
		char *why = kn_arena_printf(&h->arena, "%s: %s; to get it: %s", p->name, p->found,
					    p->fix);
		refuse(h, c, KN_CLASS_LACKS, why ? why : p->fix);
		return false;
	}
	return true;
}

static void choose_microvm(struct kn_hosting *h)
{
	static const char *const parts[] = { "QEMU", "guest kernel", "guest initramfs", "mkfs.erofs",
					     NULL };
	struct kn_err err = KN_ERR_INIT;
	bool kvm = h->probe.verdict == KN_PROBE_FULL;

	h->qemu.accel = kvm ? KN_QEMU_KVM : KN_QEMU_TCG;
	h->security[KN_CLASS_MICROVM] = "guest kernel, QEMU, and a jail around QEMU";
	if (!has_parts(h, KN_CLASS_MICROVM, parts))
		return;
	if (kn_sandbox_qemu.check(&h->qemu, &err) < 0) {
		refuse(h, KN_CLASS_MICROVM, KN_CLASS_LACKS, kn_err_text(&err));
		return;
	}
	h->classes[KN_CLASS_MICROVM] = (struct kn_engine_class){
		.ops = &kn_sandbox_qemu,
		.driver = &h->qemu,
		.hypervisor = kvm ? "QEMU with KVM" : "QEMU with TCG",
		.overhead_bytes = h->qemu.overhead_bytes,
		.why = kvm ? "/dev/kvm runs kernels at full speed"
			   : "/dev/kvm cannot run a kernel here, so QEMU emulates the processor; "
			     "QEMU gives no security promise for TCG",
	};
}

static void choose_bare(struct kn_hosting *h)
{
	static const char *const parts[] = { "kiln-vmm", NULL };
	struct kn_err err = KN_ERR_INIT;
	bool fixable = h->probe.present && !h->probe.permitted;

	h->security[KN_CLASS_BARE] =
		"a microVM without a kernel: the guest reaches nothing but its "
		"own memory and one ring";
	if (h->probe.verdict == KN_PROBE_NONE) {
		refuse(h, KN_CLASS_BARE, fixable ? KN_CLASS_LACKS : KN_CLASS_REFUSED,
		       h->probe.reason);
		return;
	}
	if (!has_parts(h, KN_CLASS_BARE, parts))
		return;
	if (kn_sandbox_kvm.check(&h->kvm, &err) < 0) {
		refuse(h, KN_CLASS_BARE, KN_CLASS_LACKS, kn_err_text(&err));
		return;
	}
	h->classes[KN_CLASS_BARE] = (struct kn_engine_class){
		.ops = &kn_sandbox_kvm,
		.driver = &h->kvm,
		.hypervisor = "kiln-vmm",
		.why = "ring 3 runs at native speed, and a bare guest needs no other",
	};
}

static void choose_container(struct kn_hosting *h)
{
	static const char *const parts[] = { "root", "cgroups", "kiln-agent", "erofs", "mkfs.erofs",
					     NULL };
	struct kn_err err = KN_ERR_INIT;

	h->security[KN_CLASS_CONTAINER] =
		"the host's own kernel, shared: for trusted code. Around it namespaces, user ids of its "
		"own for each instance (its root is nobody here), a filter of system calls, few "
		"capabilities, a cgroup";
	if (!has_parts(h, KN_CLASS_CONTAINER, parts))
		return;
	if (kn_ns_new(&h->ns_config, &h->ns, &err) < 0 ||
	    kn_sandbox_ns.check(h->ns, &err) < 0) {
		refuse(h, KN_CLASS_CONTAINER, KN_CLASS_LACKS, kn_err_text(&err));
		return;
	}
	h->classes[KN_CLASS_CONTAINER] = (struct kn_engine_class){
		.ops = &kn_sandbox_ns,
		.driver = h->ns,
		.hypervisor = "the host's kernel",
		.why = "the root is the image's erofs file, with a writable layer in memory",
	};
}

static void choose_unix(struct kn_hosting *h, bool allowed)
{
	h->security[KN_CLASS_UNIX] = "none by Kiln: somebody else runs the server";
	if (!allowed) {
		refuse(h, KN_CLASS_UNIX, KN_CLASS_PLANNED,
		       "for benchmarks and development: start kilnd with --allow-unix-functions");
		return;
	}
	h->classes[KN_CLASS_UNIX] = (struct kn_engine_class){
		.ops = &kn_sandbox_unix,
		.hypervisor = "none",
		.why = "--allow-unix-functions was given",
		.raw_image = true,
	};
}

static void choose_nf(struct kn_hosting *h)
{
	static const char *const parts[] = { "root", "cgroups", "kiln-nf", NULL };
	struct kn_nf_config config = KN_NF_DEFAULTS;
	struct kn_err err = KN_ERR_INIT;

	h->security[KN_CLASS_NF] =
		"trusted C in a process of its own, jailed once its interfaces are open: user, empty "
		"root, no capabilities, a cgroup";
	if (!has_parts(h, KN_CLASS_NF, parts))
		return;
	config.program = h->nf;
	config.cgroup = h->qemu.cgroup;
	config.uid_first = h->qemu.uid_first;
	config.uid_count = h->qemu.uid_count;
	if (kn_nf_new(&config, &h->chains, &err) < 0 || kn_sandbox_nf.check(h->chains, &err) < 0) {
		refuse(h, KN_CLASS_NF, KN_CLASS_LACKS, kn_err_text(&err));
		return;
	}
	h->classes[KN_CLASS_NF] = (struct kn_engine_class){
		.ops = &kn_sandbox_nf,
		.driver = h->chains,
		.hypervisor = "kiln-nf",
		.why = "chains run in a process of their own, between network interfaces",
	};
}

/* Deploying a function with egress is refused with these words. */
static void choose_network(struct kn_hosting *h)
{
	const struct kn_part *p = kn_hosting_part(h, "network");
	char *why = NULL;

	h->network = p && p->state == KN_PART_GOOD;
	if (p && !h->network)
		why = kn_arena_printf(&h->arena, "functions have no network on this node: %s; to get "
				      "it: %s", p->found, p->fix);
	h->failed = h->failed || (!h->network && !why);
	h->classes[KN_CLASS_MICROVM].no_network = why;
	h->classes[KN_CLASS_CONTAINER].no_network = why;
	h->classes[KN_CLASS_BARE].no_network = "a bare function has no network";
	h->classes[KN_CLASS_NF].no_network = "packet functions have ports, not a network of their own";
	h->classes[KN_CLASS_UNIX].no_network = "the network of a class unix function is its server's";
}

int kn_hosting_find(const struct kn_hosting_config *config, struct kn_hosting **ret,
		    struct kn_err *err)
{
	const struct kn_hosting_config none = { .lib_dir = NULL };
	kn_auto(kn_hosting_free) struct kn_hosting *h = calloc(1, sizeof(*h));

	if (!h)
		return kn_fail(err, ENOMEM, "out of memory");
	if (!config)
		config = &none;
	kn_arena_init(&h->arena);
	find_paths(h, config);
	kn_probe_run(h->kvm_device, &h->probe);
	kn_hosting_look(h);
	choose_microvm(h);
	choose_bare(h);
	choose_container(h);
	choose_unix(h, config->unix_functions);
	choose_nf(h);
	choose_network(h);
	if (h->failed)
		return kn_fail(err, ENOMEM, "out of memory");
	*ret = kn_take_ptr(h);
	return 0;
}

void kn_hosting_free(struct kn_hosting *h)
{
	if (!h)
		return;
	kn_ns_free(h->ns);
	kn_nf_free(h->chains);
	kn_arena_fini(&h->arena);
	kn_free(h);
}

const struct kn_engine_class *kn_hosting_class(const struct kn_hosting *h, enum kn_class c)
{
	return &h->classes[c];
}

const char *kn_hosting_vmm(const struct kn_hosting *h)
{
	return h->vmm;
}

const char *kn_hosting_kvm_device(const struct kn_hosting *h)
{
	return h->kvm_device;
}

void kn_hosting_use_shells(struct kn_hosting *h, struct kn_shells *shells)
{
	h->kvm.shells = shells;
}

bool kn_hosting_has_network(const struct kn_hosting *h)
{
	return h->network;
}

void kn_hosting_use_network(struct kn_hosting *h, struct kn_network *network)
{
	h->qemu.network = network;
	if (h->ns)
		kn_ns_use_network(h->ns, network);
}

const struct kn_sandbox_qemu_config *kn_hosting_qemu(const struct kn_hosting *h,
						     const char **ret_version)
{
	const struct kn_part *version = kn_hosting_part(h, "QEMU");

	*ret_version = version ? version->found : NULL;
	return h->classes[KN_CLASS_MICROVM].ops ? &h->qemu : NULL;
}

void kn_hosting_use_restores(struct kn_hosting *h, struct kn_restores *restores)
{
	h->qemu.restores = restores;
}

size_t kn_hosting_sweep(const struct kn_hosting *h)
{
	size_t n = h->classes[KN_CLASS_MICROVM].ops ? kn_sandbox_qemu_sweep(&h->qemu) : 0;

	if (h->classes[KN_CLASS_CONTAINER].ops)
		n += kn_sandbox_ns_sweep(h->ns);
	return h->classes[KN_CLASS_NF].ops ? n + kn_sandbox_nf_sweep(h->chains) : n;
}
