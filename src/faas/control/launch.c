#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "faas/control/private.h"

enum {
	MAX_WORDS = 64,
	MAX_SECRETS = 128 * 1024,   /* bytes; they reach a guest in one message */
};

/* Where OpenFaaS puts them. */
static const char SECRETS_DIR[] = "/var/openfaas/secrets";

static int no_memory(struct kn_err *err)
{
	return kn_fail(err, ENOMEM, "no memory to launch a function");
}

static size_t count(const char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

/* ---- environment --------------------------------------------------------------------------- */

struct environment {
	struct kn_arena *arena;
	const char **at;
	size_t n;
	bool failed;
};

/* Later values win, as in every shell; the place of the first stays. */
static void env_set(struct environment *e, const char *name, const char *value)
{
	char *text = kn_arena_printf(e->arena, "%s=%s", name, value);
	size_t len = strlen(name);
	size_t i = 0;

	if (!text) {
		e->failed = true;
		return;
	}
	while (i < e->n && !(strncmp(e->at[i], name, len) == 0 && e->at[i][len] == '='))
		i++;
	e->at[i] = text;
	if (i == e->n)
		e->n++;
}

/*
 * The image's, then PORT (the one variable that Knative's contract names) and fprocess (OpenFaaS'
 * watchdogs start that), then the user's.
 */
static const char *const *make_env(struct kn_arena *arena, const struct kn_function *fn,
                                   const struct kn_image *image)
{
	size_t from_image = image ? count(image->env) : 0;
	struct environment e = { .arena = arena };
	char port[8];

	e.at = kn_arena_alloc(arena, (from_image + fn->env.n + 3) * sizeof(*e.at));
	if (!e.at)
		return NULL;
	for (size_t i = 0; i < from_image; i++)
		e.at[e.n++] = image->env[i];
	if (fn->contract == KN_CONTRACT_HTTP) {
		snprintf(port, sizeof(port), "%u", (unsigned)fn->port);
		env_set(&e, "PORT", port);
	}
	if (fn->env_process[0])
		env_set(&e, "fprocess", fn->env_process);
	for (size_t i = 0; i < fn->env.n; i++)
		env_set(&e, fn->env.at[i].name, fn->env.at[i].value);
	return e.failed ? NULL : e.at;
}

/* ---- program ------------------------------------------------------------------------------- */

/* As OpenFaaS' classic watchdog reads fprocess: words between blanks, no quoting. */
static int split_words(struct kn_arena *arena, const char *text, const char *const **ret,
                       struct kn_err *err)
{
	const char **words = kn_arena_alloc(arena, (MAX_WORDS + 1) * sizeof(*words));
	struct kn_view rest = kn_view_of(text), word;
	size_t n = 0;

	if (!words)
		return no_memory(err);
	while (kn_view_split(&rest, ' ', &word)) {
		if (word.len == 0)
			continue;
		if (n == MAX_WORDS)
			return kn_fail(err, EINVAL, "fprocess has more than %d words", MAX_WORDS);
		words[n] = kn_arena_copy(arena, word.ptr, word.len);
		if (!words[n++])
			return no_memory(err);
	}
	*ret = words;
	return n > 0 ? 0 : kn_fail(err, EINVAL, "fprocess names no program");
}

/*
 * A stdio function has no watchdog of its own in the image, so fprocess is the program; an image
 * with a server gets it as an environment variable and starts what it always starts.
 */
static int make_argv(struct kn_arena *arena, const struct kn_function *fn,
                     const struct kn_image *image, const char *const **ret, struct kn_err *err)
{
	if (fn->contract == KN_CONTRACT_STDIO && fn->env_process[0])
		return split_words(arena, fn->env_process, ret, err);
	if (count(image->argv) == 0)
		return kn_fail(err, EINVAL,
		               "image '%s' names no program (neither Entrypoint nor Cmd): set "
		               "fprocess with kiln.contract=stdio, or build the image with one",
		               fn->image);
	*ret = image->argv;
	return 0;
}

int launch_make(struct kn_arena *arena, const struct kn_function *fn, const struct kn_image *image,
                const char *path, struct kn_engine_image *ret, struct kn_err *err)
{
	struct kn_engine_image out = { .path = path };

	out.env = make_env(arena, fn, image);
	if (!out.env)
		return no_memory(err);
	if (image && image->kind == KN_IMAGE_CONTAINER) {
		int r = make_argv(arena, fn, image, &out.argv, err);
		if (r < 0)
			return r;
		out.cwd = image->cwd;
		out.user = image->user;
	}
	*ret = out;
	return 0;
}

/* ---- secrets ------------------------------------------------------------------------------- */

static int check_files(const struct kn_function *fn, struct kn_err *err)
{
	if (fn->secrets.n == 0 || fn->class == KN_CLASS_MICROVM || fn->class == KN_CLASS_CONTAINER)
		return 0;
	return kn_fail(err, EINVAL, "secret '%s': a function of class %s has no files, where "
	                            "secrets would be; deploy it without",
	               fn->secrets.at[0], kn_class_name(fn->class));
}

static int read_secret(struct kn_arena *arena, const struct kn_secrets *secrets, const char *name,
                       struct kn_sandbox_file *ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf value = KN_BUF_INIT;

	int r = kn_secrets_read(secrets, kn_view_of(name), &value, err);
	if (r == -ENOENT)
		r = -(err->code = EINVAL);   /* 404 would say that the function is unknown */
	if (r < 0)
		return r;
	ret->path = kn_arena_printf(arena, "%s/%s", SECRETS_DIR, name);
	ret->bytes.ptr = kn_arena_copy(arena, value.ptr, value.len);
	ret->bytes.len = ret->bytes.ptr ? value.len : 0;
	ret->mode = 0440;
	if (value.ptr)
		explicit_bzero(value.ptr, value.len);
	return ret->path && ret->bytes.ptr ? 0 : no_memory(err);
}

int launch_secrets(struct kn_arena *arena, const struct kn_function *fn,
                   const struct kn_secrets *secrets, struct kn_engine_image *ret,
                   struct kn_err *err)
{
	struct kn_err unheard = KN_ERR_INIT;
	size_t bytes = 0;

	if (!err)
		err = &unheard;
	int r = check_files(fn, err);
	if (r < 0 || fn->secrets.n == 0)
		return r;
	struct kn_sandbox_file *files = kn_arena_alloc(arena, fn->secrets.n * sizeof(*files));
	if (!files)
		return no_memory(err);
	ret->files = files;
	for (size_t i = 0; i < fn->secrets.n; i++) {
		r = read_secret(arena, secrets, fn->secrets.at[i], &files[i], err);
		if (r < 0)
			return r;
		ret->n_files = i + 1;
		bytes += files[i].bytes.len;
	}
	if (bytes > MAX_SECRETS)
		return kn_fail(err, EINVAL, "the secrets of '%s' have %zu bytes together, at most %d "
		                            "fit into one function",
		               fn->name, bytes, MAX_SECRETS);
	return 0;
}

void launch_wipe(struct kn_engine_image *image)
{
	for (size_t i = 0; i < image->n_files; i++)
		explicit_bzero((char *)(uintptr_t)image->files[i].bytes.ptr,
		               image->files[i].bytes.len);
}
