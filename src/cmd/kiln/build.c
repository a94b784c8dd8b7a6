/*
 * kiln build: C files to a bare function's image, or a chain in YAML to a packet function's. Of C the
 * system's compiler does the work, with the SDK's header, library and linker script; the loader's own
 * checker judges what came out. A chain is judged by kiln-nf.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "cmd/kiln/kiln.h"
#include "cmd/kiln/print.h"
#include "machine/bare.h"
#include "oci/archive.h"
#include "oci/ref.h"

extern char **environ;

enum { MAX_WORDS = 256 };

struct build {
	const struct kn_command *cmd;
	const char *output, *name, *elf, *sdk, *cc;
	struct kn_arg_list flags;
	uint64_t memory, stack;
	bool json;
	const char **files;
	size_t n_files;
	struct kn_arena arena;
	char folder[PATH_MAX];       /* temporary; "" while there is none */
	const char *program;         /* the ELF file in it, or the chain's file */
	bool chain;
};

/* ---- the SDK -------------------------------------------------------------------------------- */

static bool has_sdk(const char *lib, const char *include)
{
	static const char *const files[] = { "libkiln-bare.a", "bare.ld" };
	char path[PATH_MAX];

	for (size_t i = 0; i < KN_ARRAY_LEN(files); i++)
		if (snprintf(path, sizeof(path), "%s/%s", lib, files[i]) >= (int)sizeof(path) ||
		    access(path, R_OK) < 0)
			return false;
	return snprintf(path, sizeof(path), "%s/kiln/bare.h", include) < (int)sizeof(path) &&
	       access(path, R_OK) == 0;
}

struct sdk {
	const char *lib, *include;
};

/* Beside this program in a build folder, or where `make install` puts it: PREFIX/lib.../kiln. */
static int find_sdk(struct build *b, struct sdk *ret, struct kn_err *err)
{
	static const char *const places[][2] = {
		{ "sdk", "sdk" },
		{ "../lib/x86_64-linux-gnu/kiln", "../include" },
		{ "../lib/kiln", "../include" },
		{ "../lib64/kiln", "../include" },
	};
	char self[PATH_MAX];

	if (b->sdk) {
		*ret = (struct sdk){ b->sdk, b->sdk };
		return has_sdk(b->sdk, b->sdk)
		               ? 0
		               : kn_fail(err, ENOENT,
		                         "'%s' has no libkiln-bare.a, bare.ld and kiln/bare.h", b->sdk);
	}
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0)
		return kn_fail(err, errno, "where this program lies: %s", strerror(errno));
	self[n] = '\0';
	char *slash = strrchr(self, '/');
	*slash = '\0';
	for (size_t i = 0; i < KN_ARRAY_LEN(places); i++) {
		ret->lib = kn_arena_printf(&b->arena, "%s/%s", self, places[i][0]);
		ret->include = kn_arena_printf(&b->arena, "%s/%s", self, places[i][1]);
		if (!ret->lib || !ret->include)
			return kn_fail(err, ENOMEM, "out of memory");
		if (has_sdk(ret->lib, ret->include))
			return 0;
	}
	return kn_fail(err, ENOENT, "the SDK is not beside this program: name its folder with --sdk");
}

/* ---- the compiler --------------------------------------------------------------------------- */

struct words {
	const char *at[MAX_WORDS + 1];
	size_t n;
};

static void add(struct words *w, const char *word)
{
	if (w->n < MAX_WORDS)
		w->at[w->n] = word;
	w->n++;              /* counts on: too many are found at the end */
}

static void add_all(struct words *w, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		add(w, words[i]);
}

/* The user's flags come after ours, so that -O3 or -Wno-... work; the library comes last. */
static int compiler_words(struct build *b, const struct sdk *sdk, struct words *w, struct kn_err *err)
{
	static const char *const fixed[] = {
		"-std=gnu17", "-O2", "-g", "-Wall", "-ffreestanding", "-fno-stack-protector", "-fno-pic",
		"-fno-pie", "-no-pie", "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
		"-fstack-clash-protection", "-march=x86-64", "-mtune=generic", "-ffunction-sections",
		"-fdata-sections", "-U_FORTIFY_SOURCE", "-static", "-nostdlib",
	};
	static const char *const link[] = { "-Wl,--build-id=none", "-Wl,--gc-sections",
		                            "-Wl,-z,max-page-size=4096", "-Wl,-z,noexecstack",
		                            "-Wl,--strip-debug" };

	add(w, b->cc);
	add_all(w, fixed, KN_ARRAY_LEN(fixed));
	add(w, kn_arena_printf(&b->arena, "-I%s", sdk->include));
	add_all(w, b->flags.at, b->flags.n);
	add_all(w, b->files, b->n_files);
	add(w, "-o");
	add(w, b->program);
	add_all(w, link, KN_ARRAY_LEN(link));
	if (b->stack)
		add(w, kn_arena_printf(&b->arena, "-Wl,--defsym=kiln_stack_bytes=%llu",
		                       (unsigned long long)b->stack));
	add(w, kn_arena_printf(&b->arena, "-Wl,-T,%s/bare.ld", sdk->lib));
	add(w, kn_arena_printf(&b->arena, "%s/libkiln-bare.a", sdk->lib));
	if (w->n > MAX_WORDS)
		return kn_fail(err, E2BIG, "more than %d files and flags", MAX_WORDS);
	for (size_t i = 0; i < w->n; i++)
		if (!w->at[i])
			return kn_fail(err, ENOMEM, "out of memory");
	return 0;
}

/* Run a program to its end; its messages go where ours go. words end with NULL. */
static int run_program(const char *const *words, const char *missing, const char *refused,
                       struct kn_err *err)
{
	pid_t pid;
	int status;

	/* posix_spawnp() takes its words as it takes the environment: it changes neither. */
	int r = posix_spawnp(&pid, words[0], NULL, NULL, (char **)(uintptr_t)words, environ);
	if (r == ENOENT)
		return kn_fail(err, r, "%s", missing);
	if (r)
		return kn_fail(err, r, "run '%s': %s", words[0], strerror(r));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return kn_fail(err, errno, "wait for '%s': %s", words[0], strerror(errno));
	return status ? kn_fail(err, EINVAL, "%s; its messages stand above", refused) : 0;
}

static int compile(struct build *b, struct kn_err *err)
{
	struct sdk sdk = { NULL, NULL };
	struct words w = { .n = 0 };

	int r = find_sdk(b, &sdk, err);
	if (r == 0)
		r = compiler_words(b, &sdk, &w, err);
	if (r < 0)
		return r;
	const char *missing = kn_arena_printf(
		&b->arena, "no C compiler '%s': install gcc, or name another with --cc", b->cc);
	const char *refused = kn_arena_printf(&b->arena, "'%s' refused the program", b->cc);
	if (!missing || !refused)
		return kn_fail(err, ENOMEM, "out of memory");
	return run_program(w.at, missing, refused, err);
}

/* ---- a chain -------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n > m && strcmp(text + n - m, end) == 0;
}

static bool is_chain(const char *file)
{
	return ends_with(file, ".yaml") || ends_with(file, ".yml");
}

/* kiln-nf beside this program, as in the build folder and where both are installed. */
static int check_chain(struct build *b, struct kn_err *err)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return kn_fail(err, errno, "where this program lies: %s", strerror(errno));
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	const char *const words[] = { kn_arena_printf(&b->arena, "%s/kiln-nf", self), "check",
		                      "--quiet", b->program, NULL };
	if (!words[0])
		return kn_fail(err, ENOMEM, "out of memory");
	return run_program(words, "there is no kiln-nf beside this program: it checks chains",
	                   "kiln-nf refused the chain", err);
}

/* ---- the result ----------------------------------------------------------------------------- */

/* What the monitor would say to it. */
static int judge(struct build *b, int fd, struct kn_err *err)
{
	char head[KN_ELF_HEAD];
	struct kn_bare_layout layout;
	struct kn_elf elf;
	struct stat st;

	ssize_t n = pread(fd, head, sizeof(head), 0);
	if (n < 0 || fstat(fd, &st) < 0)
		return kn_fail(err, errno, "read the program: %s", strerror(errno));
	int r = kn_elf_check((struct kn_view){ head, (size_t)n }, (uint64_t)st.st_size, &elf, err);
	if (r == 0 && b->memory)
		r = kn_bare_layout(&elf, b->memory, 0, &layout, err);
	return r < 0 ? kn_while(err, "the program that came out") : 0;
}

static int copy_elf(const struct build *b, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf buf = KN_BUF_INIT;

	int r = kn_read_file(AT_FDCWD, b->program, 256 << 20, &buf, err);
	return r < 0 ? r : kn_write_file(AT_FDCWD, b->elf, buf.ptr, buf.len, 0755, err);
}

static json_t *labels_of(const struct build *b)
{
	json_t *labels = json_object();
	if (b->memory)
		json_object_set_new(labels, "kiln.memory", json_sprintf("%llu", (unsigned long long)b->memory));
	return labels;
}

/* Written beside the output and renamed, so that a failure leaves what was there. */
static int write_archive(const struct build *b, int elf_fd, struct kn_digest *ret, struct kn_err *err)
{
	kn_auto(json_decref) json_t *labels = labels_of(b);
	kn_auto(kn_free) char *part = NULL;

	if (!labels || asprintf(&part, "%s.part", b->output) < 0)
		return kn_fail(err, ENOMEM, "out of memory");
	kn_auto(kn_close) int fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return kn_fail(err, errno, "write '%s': %s", part, strerror(errno));
	int r = b->chain ? kn_archive_write_nf(fd, b->name, elf_fd, labels, ret, err)
	                 : kn_archive_write_bare(fd, b->name, elf_fd, labels, ret, err);
	if (r == 0 && rename(part, b->output) < 0)
		r = kn_fail(err, errno, "rename '%s': %s", part, strerror(errno));
	if (r < 0)
		unlink(part);
	return r;
}

static void tell(const struct build *b, int elf_fd, const struct kn_digest *digest)
{
	char size[KN_SHORT];
	struct stat st = { .st_size = 0 };

	(void)fstat(elf_fd, &st);
	if (b->json) {
		kn_auto(json_decref) json_t *o = json_pack(
			"{s:s, s:s, s:s, s:I}", "name", b->name, "archive", b->output, "digest", digest->text,
			"program_bytes", (json_int_t)st.st_size);
		if (o)
			kn_show_json(o);
		return;
	}
	kn_show_bytes((uint64_t)st.st_size, size);
	printf("%s: %s, a %s of %s, %s\n", b->output, b->name, b->chain ? "chain" : "program", size,
	       digest->text);
}

static int finish(struct build *b, struct kn_err *err)
{
	struct kn_digest digest;

	kn_auto(kn_close) int fd = open(b->program, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kn_fail(err, errno, "open the program: %s", strerror(errno));
	int r = b->chain ? 0 : judge(b, fd, err);
	if (r == 0 && b->elf)
		r = copy_elf(b, err);
	if (r == 0 && b->output) {
		r = write_archive(b, fd, &digest, err);
		if (r == 0)
			tell(b, fd, &digest);
	}
	return r;
}

static int run(struct build *b, struct kn_err *err)
{
	const char *tmp = getenv("TMPDIR");

	if (b->chain) {
		b->program = b->files[0];
		int r = check_chain(b, err);
		return r < 0 ? r : finish(b, err);
	}

	snprintf(b->folder, sizeof(b->folder), "%s/kiln-build-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(b->folder)) {
		int code = errno;
		b->folder[0] = '\0';
		return kn_fail(err, code, "make a temporary folder: %s", strerror(code));
	}
	b->program = kn_arena_printf(&b->arena, "%s/program.elf", b->folder);
	if (!b->program)
		return kn_fail(err, ENOMEM, "out of memory");
	int r = compile(b, err);
	return r < 0 ? r : finish(b, err);
}

static int check(struct build *b)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_ref ref;

	for (size_t i = 0; i < b->n_files; i++)
		b->chain |= is_chain(b->files[i]);
	if (b->chain && b->n_files > 1)
		return kn_cli_misused(b->cmd, "a packet function is one chain in one file");
	if (b->chain && (b->elf || b->memory || b->stack || b->flags.n))
		return kn_cli_misused(b->cmd, "a chain is not compiled: only --output and --name fit");
	if (!b->output && !b->elf)
		return kn_cli_misused(b->cmd, "say where the result goes: --output ARCHIVE");
	if (b->output && !b->name)
		return kn_cli_misused(b->cmd, "name the image: --name denoise:1");
	if (b->name && kn_ref_parse(kn_view_of(b->name), &ref, &err) < 0)
		return kn_cli_misused(b->cmd, "--name: %s", kn_err_text(&err));
	if (b->stack > KN_ELF_MAX_STACK)
		return kn_cli_misused(b->cmd, "--stack: at most 8Mi");
	return KN_CLI_RUN;
}

static int build(struct build *b)
{
	struct kn_err err = KN_ERR_INIT;

	int code = check(b);
	if (code != KN_CLI_RUN)
		return code;
	kn_arena_init(&b->arena);
	int r = run(b, &err);
	if (b->folder[0])
		(void)!kn_remove_tree(AT_FDCWD, b->folder, NULL);
	kn_arena_fini(&b->arena);
	return r < 0 ? kn_cli_failed(b->cmd, &err) : kn_cli_done(b->cmd);
}

int kn_verb_build(int argc, char **argv)
{
	struct build b = { .cc = "cc" };
	const struct kn_arg args[] = {
		{ "output", 'o', KN_ARG_STR, &b.output, "ARCHIVE", NULL,
		  "the image, as an OCI archive" },
		{ "name", 'n', KN_ARG_STR, &b.name, "REF", NULL, "the image's name: denoise:1" },
		{ "memory", 0, KN_ARG_BYTES, &b.memory, "SIZE", NULL,
		  "refuse a program that does not fit into this much; kept in the label kiln.memory" },
		{ "stack", 0, KN_ARG_BYTES, &b.stack, "SIZE", NULL, "stack; 64Ki by default" },
		{ "cflag", 0, KN_ARG_LIST, &b.flags, "FLAG", NULL,
		  "a flag for the compiler, as --cflag=-O3; may be repeated" },
		{ "elf", 0, KN_ARG_STR, &b.elf, "FILE", NULL, "keep the program itself, too" },
		{ "cc", 0, KN_ARG_STR, &b.cc, "COMPILER", "CC", "C compiler; cc by default" },
		{ "sdk", 0, KN_ARG_STR, &b.sdk, "FOLDER", "KILN_SDK",
		  "folder of the SDK; found beside this program by default" },
		{ "json", 0, KN_ARG_FLAG, &b.json, NULL, NULL, "print JSON for scripts" },
	};
	const struct kn_command cmd = {
		.name = "kiln build",
		.summary = "Turn C files, or a chain of packet operators, into an image.",
		.usage = "[OPTION]... FILE.c... | FILE.yaml",
		.more = "The program includes <kiln/bare.h> and defines kiln_handle(). It runs in a\n"
			"microVM without a kernel: no C library, no system calls.\n"
			"A FILE.yaml is a chain for kiln-nf, as doc/packets.md describes it, whose ports\n"
			"are interfaces: a packet function.\n"
			"\n"
			"Examples:\n"
			"  kiln build denoise.c -o denoise.oci.tar --name denoise:1\n"
			"  kiln image import denoise.oci.tar\n"
			"  kiln deploy denoise --image denoise:1\n"
			"  kiln build firewall.yaml -o firewall.oci.tar --name firewall:1\n"
			"  kiln image import firewall.oci.tar\n"
			"  kiln deploy firewall --image firewall:1 \\\n"
			"    --annotation kiln.ports=lan=eth1,wan=eth2\n",
		.args = args,
		.n_args = KN_ARRAY_LEN(args),
		.min_operands = 1,
		.max_operands = 128,
	};

	b.cmd = &cmd;
	int r = kn_cli_parse(&cmd, argc, argv, &b.files, &b.n_files);
	if (r == KN_CLI_RUN)
		r = build(&b);
	kn_free(b.flags.at);
	return r;
}
