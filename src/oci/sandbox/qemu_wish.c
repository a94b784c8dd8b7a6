/* What a start was asked for, as a copy, and the keys of the snapshots that it can be started from. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "oci/sandbox/qemu.h"

/* Of what a key is made; another way of saving has other keys. */
static const char FORMAT[] = "kiln-snapshot 1";

static const char *copy(struct wish *w, const char *s, bool *failed)
{
	char *c = s ? kn_arena_copy(&w->arena, s, strlen(s)) : NULL;

	*failed |= s && !c;
	return c;
}

static const char *const *copy_list(struct wish *w, const char *const *list, bool *failed)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	const char **to = kn_arena_alloc(&w->arena, (n + 1) * sizeof(*to));
	*failed |= !to;
	for (size_t i = 0; to && i < n; i++)
		to[i] = copy(w, list[i], failed);
	return to;
}

static void copy_files(struct wish *w, bool *failed)
{
	size_t n = w->c.n_files;
	struct kn_sandbox_file *to = kn_arena_alloc(&w->arena, (n + 1) * sizeof(*to));

	*failed |= !to;
	for (size_t i = 0; to && i < n; i++) {
		const struct kn_sandbox_file *f = &w->c.files[i];
		to[i] = (struct kn_sandbox_file){ .path = copy(w, f->path, failed), .mode = f->mode };
		to[i].bytes.ptr = kn_arena_copy(&w->arena, f->bytes.ptr, f->bytes.len);
		to[i].bytes.len = f->bytes.len;
		*failed |= !to[i].bytes.ptr;
	}
	w->c.files = to;
}

static void copy_egress(struct wish *w, bool *failed)
{
	if (!w->c.egress)
		return;
	w->c.egress = kn_egress_copy(w->c.egress, &w->arena);
	*failed |= !w->c.egress;
}

/* ---- keys ---------------------------------------------------------------------------------- */

static void add_bytes(struct kn_buf *b, const char *name, const void *ptr, size_t len)
{
	kn_buf_printf(b, "%s %zu ", name, len);
	kn_buf_add(b, ptr, len);
}

static void add_text(struct kn_buf *b, const char *name, const char *text)
{
	add_bytes(b, text ? name : "-", text, text ? strlen(text) : 0);
}

static void add_number(struct kn_buf *b, const char *name, uint64_t value)
{
	kn_buf_printf(b, "%s=%llu ", name, (unsigned long long)value);
}

static void add_list(struct kn_buf *b, const char *name, const char *const *list)
{
	for (; *list; list++)
		add_text(b, name, *list);
}

/* The image is what its file is: a path may come to mean another one. */
static void add_image(struct kn_buf *b, const char *path)
{
	struct stat st = { .st_size = 0 };

	add_text(b, "image", path);
	if (stat(path, &st) == 0) {
		add_number(b, "inode", st.st_ino);
		add_number(b, "bytes", (uint64_t)st.st_size);
		add_number(b, "mtime_s", (uint64_t)st.st_mtim.tv_sec);
		add_number(b, "mtime_ns", (uint64_t)st.st_mtim.tv_nsec);
	}
}

/* The shape of the machine. Kernel, agent, QEMU and processor are facts of the whole store. */
static void add_machine(struct kn_buf *b, const struct kn_sandbox_qemu_config *config,
                        const struct kn_sandbox_config *c)
{
	add_text(b, "format", FORMAT);
	add_number(b, "accel", config->accel);
	add_number(b, "memory", c->memory_bytes);
	add_number(b, "vcpus", c->vcpus);
	add_number(b, "network", c->egress != NULL);
}

static void add_function(struct kn_buf *b, const struct kn_sandbox_config *c)
{
	add_image(b, c->image);
	add_list(b, "argv", c->argv);
	add_list(b, "env", c->env);
	add_text(b, "cwd", c->cwd);
	add_text(b, "user", c->user);
	add_text(b, "ready_path", c->ready_path);
	add_number(b, "contract", c->contract);
	add_number(b, "port", c->port);
	add_number(b, "read_only_root", c->read_only_root);
	add_number(b, "cpu_milli", c->cpu_milli);
	add_number(b, "max_pids", c->max_pids);
	add_number(b, "max_reply", c->max_reply_bytes);
	add_number(b, "time_limit", c->time_limit_ms);
	for (size_t i = 0; i < c->n_files; i++) {
		add_text(b, "file", c->files[i].path);
		add_number(b, "mode", c->files[i].mode);
		add_bytes(b, "bytes", c->files[i].bytes.ptr, c->files[i].bytes.len);
	}
}

static int make_keys(struct wish *w, const struct kn_sandbox_qemu_config *config, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	add_machine(&b, config, &w->c);
	int r = b.failed ? kn_fail(err, ENOMEM, "memory for a key")
	                 : kn_snapshot_key_of(kn_buf_view(&b), w->template_key, err);
	add_function(&b, &w->c);
	if (r == 0 && b.failed)
		r = kn_fail(err, ENOMEM, "memory for a key");
	return r < 0 ? r : kn_snapshot_key_of(kn_buf_view(&b), w->function_key, err);
}

/* ---- life ---------------------------------------------------------------------------------- */

int wish_new(const struct kn_sandbox_qemu_config *config, const struct kn_sandbox_config *c,
             struct wish **ret, struct kn_err *err)
{
	struct wish *w = calloc(1, sizeof(*w));
	bool failed = false;

	if (!w)
		return kn_fail(err, ENOMEM, "memory for a sandbox");
	w->refs = 1;
	kn_arena_init(&w->arena);
	w->c = *c;
	w->c.snapshot = c->snapshot && c->n_files == 0; /* secrets must not come to the disk */
	w->c.id = copy(w, c->id, &failed);
	w->c.function = copy(w, c->function, &failed);
	w->c.ports = NULL;
	w->c.run_dir = copy(w, c->run_dir, &failed);
	w->c.image = copy(w, c->image, &failed);
	w->c.argv = copy_list(w, c->argv, &failed);
	w->c.env = copy_list(w, c->env, &failed);
	w->c.cwd = copy(w, c->cwd, &failed);
	w->c.user = copy(w, c->user, &failed);
	w->c.ready_path = copy(w, c->ready_path, &failed);
	copy_files(w, &failed);
	copy_egress(w, &failed);
	int r = failed ? kn_fail(err, ENOMEM, "memory for a sandbox") : 0;
	if (r == 0 && config->restores)
		r = make_keys(w, config, err);
	if (r < 0) {
		wish_unref(w);
		return r;
	}
	*ret = w;
	return 0;
}

struct wish *wish_ref(struct wish *w)
{
	w->refs++;
	return w;
}

void wish_unref(struct wish *w)
{
	if (!w || --w->refs > 0)
		return;
	for (size_t i = 0; i < w->c.n_files && w->c.files; i++)
		if (w->c.files[i].bytes.ptr)
			explicit_bzero((char *)(uintptr_t)w->c.files[i].bytes.ptr,
			               w->c.files[i].bytes.len);
	kn_arena_fini(&w->arena);
	free(w);
}
