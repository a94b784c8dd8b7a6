#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <spawn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"

int floor_spawn(const char *const *argv, uint64_t *ret_ns, struct kn_err *err)
{
	posix_spawn_file_actions_t files;
	char *env[] = { NULL };
	int status;
	pid_t pid;

	posix_spawn_file_actions_init(&files);
	uint64_t start = kn_now_ns();
	int r = posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	if (r == 0)
		r = posix_spawn(&pid, argv[0], &files, NULL, (char **)(uintptr_t)argv, env);
	posix_spawn_file_actions_destroy(&files);
	if (r)
		return kn_fail(err, r, "spawn '%s': %s", argv[0], strerror(r));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return kn_fail(err, errno, "wait for '%s': %s", argv[0], strerror(errno));
	*ret_ns = kn_now_ns() - start;
	return status ? kn_fail(err, ECHILD, "'%s' failed", argv[0]) : 0;
}

/* ---- a VM by hand ---------------------------------------------------------------------------- */

/* Guest-physical; virtual addresses are the same. One large page holds everything. */
enum { MEMORY = 2 << 20, ROOT = 0x1000, UPPER = 0x2000, LOWER = 0x3000, CODE = 0x4000 };

struct vm {
	int vm, vcpu;
	char *memory;
	struct kvm_run *run;
	size_t run_bytes;
};

static int failed(const char *what, struct kn_err *err)
{
	return kn_fail(err, errno, "floor: %s: %s", what, strerror(errno));
}

/* Tables of one 2 MiB page, and `out %al, $16` in it. */
static void furnish(char *memory)
{
	static const uint8_t code[] = { 0xe6, 0x10 };
	const uint64_t user_write_present = 7, large = 0x80;

	*(uint64_t *)(void *)(memory + ROOT) = UPPER | user_write_present;
	*(uint64_t *)(void *)(memory + UPPER) = LOWER | user_write_present;
	*(uint64_t *)(void *)(memory + LOWER) = large | user_write_present;
	memcpy(memory + CODE, code, sizeof(code));
}

static int make(int kvm, struct vm *v, struct kn_err *err)
{
	v->vm = ioctl(kvm, KVM_CREATE_VM, 0UL);
	if (v->vm < 0)
		return failed("KVM_CREATE_VM", err);
	v->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (v->memory == MAP_FAILED)
		return failed("mmap", err);
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY,
						      .userspace_addr = (uintptr_t)v->memory };
	if (ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return failed("KVM_SET_USER_MEMORY_REGION", err);
	v->vcpu = ioctl(v->vm, KVM_CREATE_VCPU, 0UL);
	if (v->vcpu < 0)
		return failed("KVM_CREATE_VCPU", err);
	v->run = mmap(NULL, v->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->vcpu, 0);
	return v->run == MAP_FAILED ? failed("mmap of the vCPU", err) : 0;
}

/* Ring 3 may use ports by its I/O privilege level: no task's permission map is needed. */
static int enter_ring_3(const struct vm *v, struct kn_err *err)
{
	const struct kvm_segment code = { .limit = 0xffffffff,
					  .selector = 0x23,
					  .type = 11,
					  .present = 1,
					  .dpl = 3,
					  .s = 1,
					  .l = 1,
					  .g = 1 };
	const struct kvm_segment data = { .limit = 0xffffffff,
					  .selector = 0x1b,
					  .type = 3,
					  .present = 1,
					  .dpl = 3,
					  .s = 1,
					  .db = 1,
					  .g = 1 };
	const struct kvm_regs regs = { .rip = CODE, .rsp = MEMORY, .rflags = 0x3002 };
	struct kvm_sregs s;

	if (ioctl(v->vcpu, KVM_GET_SREGS, &s) < 0)
		return failed("KVM_GET_SREGS", err);
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.tr = (struct kvm_segment){ .limit = 0x67, .selector = 0x28, .type = 11, .present = 1 };
	s.cr3 = ROOT;
	s.cr4 = 0x20;	    /* PAE */
	s.cr0 = 0x80000011; /* paging, protected mode */
	s.efer = 0x500;	    /* long mode */
	if (ioctl(v->vcpu, KVM_SET_SREGS, &s) < 0 || ioctl(v->vcpu, KVM_SET_REGS, &regs) < 0)
		return failed("set registers", err);
	return 0;
}

static int run(const struct vm *v, struct kn_err *err)
{
	while (ioctl(v->vcpu, KVM_RUN, 0) < 0)
		if (errno != EINTR && errno != EAGAIN)
			return failed("KVM_RUN", err);
	if (v->run->exit_reason != KVM_EXIT_IO || v->run->io.port != 0x10)
		return kn_fail(err, EIO, "floor: the guest left for reason %u",
			       v->run->exit_reason);
	return 0;
}

static void destroy(struct vm *v)
{
	if (v->run && v->run != MAP_FAILED)
		munmap(v->run, v->run_bytes);
	kn_close(v->vcpu);
	kn_close(v->vm);
	if (v->memory && v->memory != MAP_FAILED)
		munmap(v->memory, MEMORY);
}

int floor_vm(int kvm, struct floor_vm *ret, struct kn_err *err)
{
	int run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (run_bytes < 0)
		return failed("KVM_GET_VCPU_MMAP_SIZE", err);
	struct vm v = { .vm = -1, .vcpu = -1, .run_bytes = (size_t)run_bytes };

	uint64_t start = kn_now_ns();
	int r = make(kvm, &v, err);
	if (r == 0) {
		furnish(v.memory);
		r = enter_ring_3(&v, err);
	}
	if (r == 0)
		r = run(&v, err);
	uint64_t left = kn_now_ns();
	destroy(&v);
	if (r == 0)
		*ret = (struct floor_vm){ left - start, kn_now_ns() - left };
	return r;
}
