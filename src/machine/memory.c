#include "machine/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* syscalls: mmap munmap madvise ioctl */

#define PAGE_MASK UINT64_C(4095)

static bool overlaps(const struct kn_memory *m, uint64_t gpa, uint64_t bytes)
{
	for (unsigned i = 0; i < m->n; i++)
		if (gpa < m->region[i].gpa + m->region[i].bytes && m->region[i].gpa < gpa + bytes)
			return true;
	return false;
}

int kn_memory_add(struct kn_memory *m, const struct kn_kvm *k, uint64_t gpa, uint64_t bytes,
                  struct kn_err *err)
{
	if (m->n == KN_MEMORY_REGIONS)
		return kn_fail(err, ENOSPC, "guest memory has %u regions already", m->n);
	if ((gpa | bytes) & PAGE_MASK || bytes == 0 || gpa + bytes < gpa || overlaps(m, gpa, bytes))
		return kn_fail(err, EINVAL, "guest memory of %" PRIu64 " bytes at 0x%" PRIx64, bytes,
		               gpa);

	void *hva = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (hva == MAP_FAILED)
		return kn_fail(err, errno, "guest memory of %" PRIu64 " bytes: %s", bytes,
		               strerror(errno));

	struct kvm_userspace_memory_region r = {
		.slot = m->n,
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)hva,
	};
	if (ioctl(k->vm, KVM_SET_USER_MEMORY_REGION, &r) < 0) {
		int code = errno;
		munmap(hva, bytes);
		return kn_fail(err, code, "give KVM %" PRIu64 " bytes of memory: %s", bytes,
		               strerror(code));
	}
	m->region[m->n].gpa = gpa;
	m->region[m->n].bytes = bytes;
	m->region[m->n].hva = hva;
	m->n++;
	return 0;
}

int kn_memory_share(struct kn_memory *m, uint64_t gpa, uint64_t bytes, int fd, struct kn_err *err)
{
	void *at = kn_memory_at(m, gpa, bytes);
	if (!at || (gpa | bytes) & PAGE_MASK)
		return kn_fail(err, EINVAL, "shared memory at 0x%" PRIx64 " outside guest memory", gpa);
	/* One region of KVM may span several mappings: no second slot, which would cost 40 us. */
	if (mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		return kn_fail(err, errno, "map shared memory: %s", strerror(errno));
	return 0;
}

void *kn_memory_at(const struct kn_memory *m, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < m->n; i++) {
		uint64_t start = m->region[i].gpa, bytes = m->region[i].bytes;
		if (gpa >= start && gpa - start < bytes && len <= bytes - (gpa - start))
			return m->region[i].hva + (gpa - start);
	}
	return NULL;
}

void kn_memory_populate(const struct kn_memory *m, uint64_t gpa, uint64_t bytes)
{
	void *at = kn_memory_at(m, gpa, bytes);
	if (at)
		(void)madvise(at, bytes, MADV_POPULATE_WRITE);   /* only saves time */
}

void kn_memory_fini(struct kn_memory *m)
{
	while (m->n > 0) {
		m->n--;
		munmap(m->region[m->n].hva, m->region[m->n].bytes);
	}
}
