#include "machine/elf.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>

#include "machine/abi.h"

static uint64_t page_up(uint64_t v)
{
	return (v + KN_BARE_PAGE - 1) & ~(uint64_t)(KN_BARE_PAGE - 1);
}

/* Headers are copied out, so that the view needs no alignment. */
static bool copy_out(struct kn_view head, uint64_t offset, void *to, size_t bytes)
{
	if (offset > head.len || bytes > head.len - offset)
		return false;
	memcpy(to, head.ptr + offset, bytes);
	return true;
}

static int check_header(struct kn_view head, Elf64_Ehdr *ret, struct kn_err *err)
{
	if (!copy_out(head, 0, ret, sizeof(*ret)) || memcmp(ret->e_ident, ELFMAG, SELFMAG) != 0)
		return kn_fail(err, ENOEXEC, "not an ELF file");
	if (ret->e_ident[EI_CLASS] != ELFCLASS64 || ret->e_ident[EI_DATA] != ELFDATA2LSB ||
	    ret->e_machine != EM_X86_64)
		return kn_fail(err, ENOEXEC, "not a program for x86-64");
	if (ret->e_type == ET_DYN)
		return kn_fail(err, ENOEXEC,
		               "position-independent or shared; link with -static -no-pie");
	if (ret->e_type != ET_EXEC || ret->e_version != EV_CURRENT)
		return kn_fail(err, ENOEXEC, "not an executable (ELF type %u)", ret->e_type);
	if (ret->e_phentsize != sizeof(Elf64_Phdr) || ret->e_phnum == 0)
		return kn_fail(err, ENOEXEC, "program headers of %u bytes, %u of them",
		               ret->e_phentsize, ret->e_phnum);
	uint64_t bytes = (uint64_t)ret->e_phnum * sizeof(Elf64_Phdr);
	if (ret->e_phoff > head.len || bytes > head.len - ret->e_phoff)
		return kn_fail(err, ENOEXEC, "program headers lie outside the first %d bytes",
		               KN_ELF_HEAD);
	return 0;
}

static Elf64_Phdr phdr_at(struct kn_view head, const Elf64_Ehdr *eh, unsigned i)
{
	Elf64_Phdr ph;
	memcpy(&ph, head.ptr + eh->e_phoff + i * sizeof(ph), sizeof(ph));
	return ph;
}

/* Search one PT_NOTE for ours. Notes are 4-byte aligned: name size, descriptor size, type. */
static bool find_note(struct kn_view head, const Elf64_Phdr *ph, struct kn_bare_note *ret)
{
	uint64_t at = ph->p_offset;
	uint64_t end = ph->p_offset + ph->p_filesz;
	if (end < at || end > head.len)
		return false;

	Elf64_Nhdr nh;
	while (end - at >= sizeof(nh)) {
		memcpy(&nh, head.ptr + at, sizeof(nh));
		at += sizeof(nh);
		uint64_t name = at, name_room = ((uint64_t)nh.n_namesz + 3) & ~UINT64_C(3);
		uint64_t desc_room = ((uint64_t)nh.n_descsz + 3) & ~UINT64_C(3);
		if (name_room > end - at || desc_room > end - at - name_room)
			return false;
		at += name_room + desc_room;
		if (nh.n_type == KN_BARE_NOTE_TYPE && nh.n_namesz == sizeof(KN_BARE_NOTE_NAME) &&
		    nh.n_descsz == sizeof(*ret) &&
		    memcmp(head.ptr + name, KN_BARE_NOTE_NAME, sizeof(KN_BARE_NOTE_NAME)) == 0) {
			memcpy(ret, head.ptr + name + name_room, sizeof(*ret));
			return true;
		}
	}
	return false;
}

static bool find_bare_note(struct kn_view head, const Elf64_Ehdr *eh, struct kn_bare_note *ret)
{
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		Elf64_Phdr ph = phdr_at(head, eh, i);
		if (ph.p_type == PT_NOTE && find_note(head, &ph, ret))
			return true;
	}
	return false;
}

bool kn_elf_is_bare(struct kn_view head)
{
	Elf64_Ehdr eh;
	struct kn_bare_note note;
	return check_header(head, &eh, NULL) == 0 && find_bare_note(head, &eh, &note);
}

static int check_note(struct kn_view head, const Elf64_Ehdr *eh, struct kn_elf *elf,
                      struct kn_err *err)
{
	struct kn_bare_note note;
	if (!find_bare_note(head, eh, &note))
		return kn_fail(err, ENOEXEC,
		               "no Kiln note: not a bare function; build it with `kiln build`");
	if (note.abi != KN_BARE_ABI || note.flags != 0)
		return kn_fail(err, ENOEXEC,
		               "built for another SDK (ABI %u, flags 0x%x; this is ABI %d)", note.abi,
		               note.flags, KN_BARE_ABI);
	if (note.stack_bytes == 0 || note.stack_bytes > KN_ELF_MAX_STACK)
		return kn_fail(err, ENOEXEC, "stack of %" PRIu64 " bytes; 1 to %" PRIu64 " are possible",
		               note.stack_bytes, KN_ELF_MAX_STACK);
	elf->stack_bytes = page_up(note.stack_bytes);
	return 0;
}

static int check_load(const Elf64_Phdr *ph, uint64_t file_bytes, struct kn_elf *elf,
                      struct kn_err *err)
{
	const uint64_t limit = KN_BARE_PROGRAM + KN_ELF_MAX_PROGRAM;

	if (ph->p_memsz == 0)
		return 0;
	if (elf->n == KN_ELF_SEGMENTS)
		return kn_fail(err, ENOEXEC, "more than %d segments", KN_ELF_SEGMENTS);
	if (ph->p_filesz > ph->p_memsz)
		return kn_fail(err, ENOEXEC, "segment %zu is larger in the file than in memory", elf->n);
	if (ph->p_offset > file_bytes || ph->p_filesz > file_bytes - ph->p_offset)
		return kn_fail(err, ENOEXEC, "segment %zu ends behind the end of the file", elf->n);
	if (ph->p_vaddr < KN_BARE_PROGRAM || ph->p_vaddr >= limit ||
	    ph->p_memsz > limit - ph->p_vaddr)
		return kn_fail(err, ENOEXEC,
		               "segment %zu at 0x%" PRIx64 " (%" PRIu64
		               " bytes) lies outside 0x%" PRIx64 "-0x%" PRIx64,
		               elf->n, ph->p_vaddr, ph->p_memsz, KN_BARE_PROGRAM, limit);
	if ((ph->p_flags & PF_W) && (ph->p_flags & PF_X))
		return kn_fail(err, ENOEXEC, "segment %zu is both writable and executable", elf->n);
	if (ph->p_vaddr < elf->end)
		return kn_fail(err, ENOEXEC,
		               "segment %zu at 0x%" PRIx64
		               " shares a page with the one before it, or stands out of order",
		               elf->n, ph->p_vaddr);

	elf->segment[elf->n++] = (struct kn_elf_segment){
		.va = ph->p_vaddr,
		.mem_bytes = ph->p_memsz,
		.file_offset = ph->p_offset,
		.file_bytes = ph->p_filesz,
		.write = ph->p_flags & PF_W,
		.exec = ph->p_flags & PF_X,
	};
	elf->end = page_up(ph->p_vaddr + ph->p_memsz);
	return 0;
}

static int check_phdr(const Elf64_Phdr *ph, uint64_t file_bytes, struct kn_elf *elf,
                      struct kn_err *err)
{
	switch (ph->p_type) {
	case PT_LOAD:
		return check_load(ph, file_bytes, elf, err);
	case PT_INTERP:
	case PT_DYNAMIC:
		return kn_fail(err, ENOEXEC, "dynamically linked; link with -static -no-pie");
	case PT_TLS:
		return kn_fail(err, ENOEXEC, "has thread-local variables; bare functions have none");
	case PT_GNU_STACK:
		if (ph->p_flags & PF_X)
			return kn_fail(err, ENOEXEC, "wants an executable stack");
		return 0;
	default:
		return 0;
	}
}

static int check_entry(const Elf64_Ehdr *eh, struct kn_elf *elf, struct kn_err *err)
{
	for (size_t i = 0; i < elf->n; i++) {
		const struct kn_elf_segment *s = &elf->segment[i];
		if (s->exec && eh->e_entry >= s->va && eh->e_entry - s->va < s->file_bytes) {
			elf->entry = eh->e_entry;
			return 0;
		}
	}
	return kn_fail(err, ENOEXEC, "entry 0x%" PRIx64 " lies in no executable segment",
	               (uint64_t)eh->e_entry);
}

int kn_elf_check(struct kn_view head, uint64_t file_bytes, struct kn_elf *ret, struct kn_err *err)
{
	Elf64_Ehdr eh;
	struct kn_elf elf = { .end = KN_BARE_PROGRAM };

	int r = check_header(head, &eh, err);
	for (unsigned i = 0; r == 0 && i < eh.e_phnum; i++) {
		Elf64_Phdr ph = phdr_at(head, &eh, i);
		r = check_phdr(&ph, file_bytes, &elf, err);
	}
	if (r == 0)
		r = check_note(head, &eh, &elf, err);
	if (r == 0)
		r = check_entry(&eh, &elf, err);
	if (r == 0)
		*ret = elf;
	return r;
}
