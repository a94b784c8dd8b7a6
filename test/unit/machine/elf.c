#include "test.h"

#include <elf.h>

#include "machine/abi.h"
#include "machine/elf.h"

/* A program that passes: headers, note, one segment of each kind. Tests spoil one thing at a time. */
struct image {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[6];
	struct __attribute__((packed, aligned(4))) {
		Elf64_Nhdr nh;
		char name[8];
		struct kn_bare_note desc;
	} note;
};

enum { TEXT, NOTE, RODATA, DATA, STACK, SPARE };

static struct image good(void)
{
	struct image i = {
		.eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		        .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
		        .e_entry = KN_BARE_PROGRAM + 0x180, .e_phoff = offsetof(struct image, ph),
		        .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 6 },
		.ph = {
			[TEXT] = { PT_LOAD, PF_R | PF_X, 0, KN_BARE_PROGRAM, 0, 0x2000, 0x2000, 4096 },
			[NOTE] = { PT_NOTE, PF_R, offsetof(struct image, note), 0, 0,
			           sizeof(i.note), sizeof(i.note), 4 },
			[RODATA] = { PT_LOAD, PF_R, 0x2000, KN_BARE_PROGRAM + 0x2000, 0, 0x100, 0x100,
			             4096 },
			[DATA] = { PT_LOAD, PF_R | PF_W, 0x3000, KN_BARE_PROGRAM + 0x3000, 0, 0x10,
			           0x5000, 4096 },
			[STACK] = { PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 0, 8 },
			[SPARE] = { PT_NULL, 0, 0, 0, 0, 0, 0, 0 },
		},
		.note = { .nh = { 5, sizeof(struct kn_bare_note), KN_BARE_NOTE_TYPE },
		          .name = "Kiln",
		          .desc = { KN_BARE_ABI, 0, 65536 } },
	};
	return i;
}

enum { FILE_BYTES = 0x4000 };

static struct kn_view view_of(const struct image *i)
{
	return (struct kn_view){ (const char *)i, sizeof(*i) };
}

static void refuses(const struct image *i, const char *why)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_elf elf = { .entry = 42 };

	assert_fails(kn_elf_check(view_of(i), FILE_BYTES, &elf, &err), ENOEXEC, &err, why);
	assert_int_equal(elf.entry, 42);
}

static void good_program_passes(void **state)
{
	(void)state;
	struct kn_err err = KN_ERR_INIT;
	struct image i = good();
	struct kn_elf elf;

	assert_true(kn_elf_is_bare(view_of(&i)));
	assert_ok(kn_elf_check(view_of(&i), FILE_BYTES, &elf, &err), &err);
	assert_int_equal(elf.entry, KN_BARE_PROGRAM + 0x180);
	assert_int_equal(elf.end, KN_BARE_PROGRAM + 0x8000);
	assert_int_equal(elf.stack_bytes, 65536);
	assert_int_equal(elf.n, 3);
	assert_true(elf.segment[0].exec && !elf.segment[0].write);
	assert_true(!elf.segment[1].exec && !elf.segment[1].write);
	assert_true(elf.segment[2].write && !elf.segment[2].exec);
	assert_int_equal(elf.segment[2].mem_bytes, 0x5000);
}

static void foreign_files_are_refused_with_a_hint(void **state)
{
	(void)state;
	struct image i = good();
	i.eh.e_ident[0] = 'x';
	refuses(&i, "not an ELF file");
	i = good();
	i.eh.e_machine = EM_AARCH64;
	refuses(&i, "not a program for x86-64");
	i = good();
	i.eh.e_ident[EI_CLASS] = ELFCLASS32;
	refuses(&i, "not a program for x86-64");
	i = good();
	i.eh.e_type = ET_DYN;
	refuses(&i, "-no-pie");
	i = good();
	i.eh.e_type = ET_REL;
	refuses(&i, "not an executable");
	i = good();
	i.ph[SPARE].p_type = PT_INTERP;
	refuses(&i, "dynamically linked");
	i = good();
	i.ph[SPARE].p_type = PT_TLS;
	refuses(&i, "thread-local");
	i = good();
	i.ph[STACK].p_flags |= PF_X;
	refuses(&i, "executable stack");
}

static void headers_outside_the_head_are_refused(void **state)
{
	(void)state;
	struct image i = good();
	i.eh.e_phoff = sizeof(i) - 8;
	refuses(&i, "program headers");
	i = good();
	i.eh.e_phoff = UINT64_MAX - 8;
	refuses(&i, "program headers");
	i = good();
	i.eh.e_phnum = UINT16_MAX;
	refuses(&i, "program headers");
	i = good();
	i.eh.e_phentsize = 8;
	refuses(&i, "program headers");
}

static void note_decides_what_is_bare(void **state)
{
	(void)state;
	struct image i = good();
	i.ph[NOTE].p_type = PT_NULL;
	assert_false(kn_elf_is_bare(view_of(&i)));
	refuses(&i, "kiln build");
	i = good();
	i.note.nh.n_namesz = UINT32_MAX;
	refuses(&i, "no Kiln note");
	i = good();
	i.note.nh.n_descsz = UINT32_MAX - 2;
	refuses(&i, "no Kiln note");
	i = good();
	i.ph[NOTE].p_offset = UINT64_MAX - 4;
	refuses(&i, "no Kiln note");
	i = good();
	i.note.desc.abi = 99;
	refuses(&i, "another SDK (ABI 99");
	i = good();
	i.note.desc.stack_bytes = 0;
	refuses(&i, "stack of 0 bytes");
	i = good();
	i.note.desc.stack_bytes = UINT64_MAX;
	refuses(&i, "stack of");
}

static void segments_must_be_in_bounds_and_apart(void **state)
{
	(void)state;
	struct image i = good();
	i.ph[DATA].p_flags |= PF_X;
	refuses(&i, "both writable and executable");
	i = good();
	i.ph[DATA].p_vaddr = KN_BARE_PROGRAM + 0x20f8;
	refuses(&i, "shares a page");
	i = good();
	i.ph[DATA].p_vaddr = KN_BARE_PROGRAM;
	refuses(&i, "out of order");
	i = good();
	i.ph[TEXT].p_vaddr = KN_BARE_PROGRAM - 4096;
	refuses(&i, "lies outside");
	i = good();
	i.ph[DATA].p_memsz = UINT64_MAX;
	refuses(&i, "lies outside");
	i = good();
	i.ph[DATA].p_vaddr = UINT64_MAX - 4096;
	refuses(&i, "lies outside");
	i = good();
	i.ph[DATA].p_filesz = 0x6000;
	refuses(&i, "larger in the file");
	i = good();
	i.ph[TEXT].p_offset = FILE_BYTES;
	refuses(&i, "behind the end of the file");
	i = good();
	i.ph[TEXT].p_offset = UINT64_MAX;
	refuses(&i, "behind the end of the file");
}

static void entry_must_be_code_from_the_file(void **state)
{
	(void)state;
	struct image i = good();
	i.eh.e_entry = KN_BARE_PROGRAM + 0x3000;
	refuses(&i, "entry 0x413000");
	i = good();
	i.eh.e_entry = 0;
	refuses(&i, "entry 0x0");
	i = good();
	i.ph[TEXT].p_filesz = 0x100;
	refuses(&i, "entry");
}

/* Every prefix of a good file is refused or, from the note on, judged the same. */
static void cut_files_never_pass_by_accident(void **state)
{
	(void)state;
	struct image i = good();
	struct kn_elf elf;

	for (size_t len = 0; len < offsetof(struct image, note) + sizeof(i.note); len++)
		assert_int_equal(kn_elf_check((struct kn_view){ (const char *)&i, len }, FILE_BYTES,
		                              &elf, NULL),
		                 -ENOEXEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_program_passes),
		cmocka_unit_test(foreign_files_are_refused_with_a_hint),
		cmocka_unit_test(headers_outside_the_head_are_refused),
		cmocka_unit_test(note_decides_what_is_bare),
		cmocka_unit_test(segments_must_be_in_bounds_and_apart),
		cmocka_unit_test(entry_must_be_code_from_the_file),
		cmocka_unit_test(cut_files_never_pass_by_accident),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
