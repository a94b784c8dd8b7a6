#include "machine/vmm.h"

#include <errno.h>
#include <unistd.h>

#include "machine/bare.h"

/* Every boot protocol, in the order in which an image is offered to them. */
static const struct kn_boot_ops *const protocols[] = {
	&kn_boot_bare,
};

const struct kn_boot_ops *kn_vmm_protocol(struct kn_view head)
{
	for (size_t i = 0; i < KN_ARRAY_LEN(protocols); i++)
		if (protocols[i]->match(head))
			return protocols[i];
	return NULL;
}

const char *kn_vmm_protocols(void)
{
	return protocols[0]->name;
}

int kn_vmm_init(struct kn_vmm *v, const char *device, bool prepare, struct kn_err *err)
{
	*v = (struct kn_vmm){ .config = KN_VMM_DEFAULTS, .machine = KN_MACHINE_NULL };
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->changed, NULL);

	int r = kn_kvm_open(device, &v->machine.kvm, err);
	if (r == 0)
		r = kn_vcpu_open(&v->machine.kvm, &v->machine.vcpu, err);
	if (r == 0 && prepare)
		r = kn_boot_bare.prepare(&v->machine, err);
	if (r < 0)
		kn_vmm_fini(v);
	return r;
}

void kn_vmm_fini(struct kn_vmm *v)
{
	if (v->threaded)
		pthread_join(v->thread, NULL);
	v->threaded = false;
	kn_machine_fini(&v->machine);
	pthread_cond_destroy(&v->changed);
	pthread_mutex_destroy(&v->lock);
}

int kn_vmm_load(struct kn_vmm *v, const struct kn_vmm_config *config, struct kn_err *err)
{
	char head[KN_ELF_HEAD];

	if (v->machine.boot)
		return kn_fail(err, EBUSY, "a program is loaded already");
	ssize_t n = pread(config->image, head, sizeof(head), 0);
	if (n < 0)
		return kn_fail(err, errno, "read program: %s", strerror(errno));
	const struct kn_boot_ops *boot = kn_vmm_protocol((struct kn_view){ head, (size_t)n });
	if (!boot)
		/* The bare protocol's judgement is the most helpful one. */
		boot = &kn_boot_bare;

	const struct kn_boot_config c = {
		.image = config->image,
		.memory_bytes = config->memory_bytes,
		.channel = config->channel,
		.channel_bytes = config->channel >= 0 ? config->channel_bytes : 0,
	};
	int r = boot->load(&v->machine, &c, err);
	if (r < 0)
		return r;
	v->machine.boot = boot;
	v->config = *config;
	return 0;
}

static void *vcpu_thread(void *arg)
{
	struct kn_vmm *v = arg;
	struct kn_end end;

	kn_vmm_run(v, &end);
	if (v->config.ended)
		v->config.ended(v, &end, v->config.arg);
	return NULL;
}

int kn_vmm_start(struct kn_vmm *v, struct kn_err *err)
{
	atomic_store(&v->state, KN_VMM_RUNNING);
	int r = pthread_create(&v->thread, NULL, vcpu_thread, v);
	if (r) {
		atomic_store(&v->state, KN_VMM_NOT_STARTED);
		return kn_fail(err, r, "start the vCPU's thread: %s", strerror(r));
	}
	v->threaded = true;
	return 0;
}

const char *kn_vmm_state_name(enum kn_vmm_state s)
{
	switch (s) {
	case KN_VMM_NOT_STARTED:
		return "Not started";
	case KN_VMM_PAUSED:
		return "Paused";
	case KN_VMM_RUNNING:
	case KN_VMM_ENDED:
		break;
	}
	return "Running";
}
