#include "machine/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* syscalls: openat ioctl mmap munmap close */

static int tell_open(const char *device, int code, struct kn_err *err)
{
	switch (code) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
		return kn_fail(err, ENOENT,
		               "%s is not there: this host offers no virtualization (enable it in the "
		               "firmware, load kvm_intel or kvm_amd, or choose a host that has it)",
		               device);
	case EACCES:
	case EPERM:
		return kn_fail(err, EACCES,
		               "%s may not be opened: run as root or add the user to the group kvm",
		               device);
	default:
		return kn_fail(err, code, "open %s: %s", device, strerror(code));
	}
}

static int open_device(const char *device, struct kn_err *err)
{
	kn_auto(kn_close) int fd = open(device, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return tell_open(device, errno, err);

	int version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version < 0)
		return kn_fail(err, ENOTSUP, "%s is no KVM device: %s", device, strerror(errno));
	if (version != KVM_API_VERSION)
		return kn_fail(err, ENOTSUP, "%s speaks KVM API %d, not %d", device, version,
		               KVM_API_VERSION);
	return kn_take_fd(fd);
}

int kn_kvm_check(const char *device, struct kn_err *err)
{
	int fd = open_device(device, err);
	kn_close(fd);
	return kn_min(fd, 0);
}

int kn_kvm_open(const char *device, struct kn_kvm *ret, struct kn_err *err)
{
	kn_auto(kn_close) int fd = open_device(device, err);
	if (fd < 0)
		return fd;

	int run_bytes = ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (run_bytes < (int)sizeof(struct kvm_run))
		return kn_fail(err, ENOTSUP, "%s: vCPU page of %d bytes", device, run_bytes);
	int sync = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);
	const int wanted = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;

	int vm;
	do {
		vm = ioctl(fd, KVM_CREATE_VM, 0UL);
	} while (vm < 0 && errno == EINTR);
	if (vm < 0)
		return kn_fail(err, errno, "make a VM on %s: %s", device, strerror(errno));

	*ret = (struct kn_kvm){
		.device = kn_take_fd(fd),
		.vm = vm,
		.run_bytes = (size_t)run_bytes,
		.sync_regs = sync > 0 && (sync & wanted) == wanted,
	};
	return 0;
}

void kn_kvm_close(struct kn_kvm *k)
{
	kn_close(k->vm);
	kn_close(k->device);
	*k = KN_KVM_NULL;
}

int kn_vcpu_open(const struct kn_kvm *k, struct kn_vcpu *ret, struct kn_err *err)
{
	kn_auto(kn_close) int fd = ioctl(k->vm, KVM_CREATE_VCPU, 0UL);
	if (fd < 0)
		return kn_fail(err, errno, "make a vCPU: %s", strerror(errno));

	void *run = mmap(NULL, k->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run == MAP_FAILED)
		return kn_fail(err, errno, "map the vCPU's page: %s", strerror(errno));

	*ret = (struct kn_vcpu){ .fd = kn_take_fd(fd), .run_bytes = k->run_bytes, .run = run };
	return 0;
}

void kn_vcpu_close(struct kn_vcpu *v)
{
	if (v->run)
		munmap(v->run, v->run_bytes);
	kn_close(v->fd);
	*v = KN_VCPU_NULL;
}

/*
 * Ring 3 leaves the guest by output to a port. Hardware and PVM look into the TSS for the permission;
 * QEMU's emulation of SVM, which the lab runs on, finds no TSS there that it would read (it wants
 * type 9, a loaded one has 11), and PVM loses the privilege level at the first leaving: so both.
 */
#define IOPL_3 (UINT64_C(3) << 12)

void kn_vcpu_long_mode(unsigned ring, uint64_t cr3, uint64_t entry, uint64_t stack,
                       struct kvm_regs *regs, struct kvm_sregs *sregs)
{
	const uint8_t dpl = ring ? 3 : 0;
	const struct kvm_segment code = { .limit = 0xffffffff, .selector = ring ? 0x23 : 0x08,
		                          .type = 11, .present = 1, .s = 1, .l = 1, .g = 1,
		                          .dpl = dpl };
	const struct kvm_segment data = { .limit = 0xffffffff, .selector = ring ? 0x1b : 0x10,
		                          .type = 3, .present = 1, .s = 1, .db = 1, .g = 1,
		                          .dpl = dpl };

	*regs = (struct kvm_regs){ .rip = entry, .rsp = stack, .rflags = ring ? IOPL_3 | 2 : 2 };
	*sregs = (struct kvm_sregs){
		.cs = code, .ds = data, .es = data, .fs = data, .gs = data, .ss = data,
		.tr = { .limit = 0x67, .type = 11, .present = 1 },
		.ldt = { .limit = 0xffff, .type = 2, .present = 1 },
		.cr0 = 0x80010033,              /* PG WP NE ET MP PE */
		.cr3 = cr3,
		.cr4 = 0x620,                   /* PAE OSFXSR OSXMMEXCPT */
		.efer = 0xd00,                  /* LME LMA NXE; no SCE: no system calls */
		.apic_base = 0xfee00900,        /* as KVM has it at reset; must be given */
	};
}

int kn_vcpu_set(const struct kn_kvm *k, struct kn_vcpu *v, const struct kvm_regs *regs,
                const struct kvm_sregs *sregs, struct kn_err *err)
{
	if (k->sync_regs) {
		/* Taken over by the next KVM_RUN, whose failure then tells what was wrong. */
		v->run->s.regs.regs = *regs;
		v->run->s.regs.sregs = *sregs;
		v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
		return 0;
	}
	if (ioctl(v->fd, KVM_SET_SREGS, sregs) < 0 || ioctl(v->fd, KVM_SET_REGS, regs) < 0)
		return kn_fail(err, errno, "set the vCPU's registers: %s", strerror(errno));
	return 0;
}

int kn_vcpu_get(struct kn_vcpu *v, struct kvm_regs *regs, struct kvm_sregs *sregs,
                struct kn_err *err)
{
	if (ioctl(v->fd, KVM_GET_REGS, regs) < 0 || ioctl(v->fd, KVM_GET_SREGS, sregs) < 0)
		return kn_fail(err, errno, "read the vCPU's registers: %s", strerror(errno));
	return 0;
}

unsigned kn_vcpu_tsc_khz(const struct kn_vcpu *v)
{
	int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
	return khz > 0 ? (unsigned)khz : 0;
}
