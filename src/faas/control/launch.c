#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "faas/control/private.h"

enum { MAX_WORDS = 64 };

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
