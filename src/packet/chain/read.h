/*
 * Reading one configuration: where we are in it, and how failures are told. Private to packet/chain.
 */
#pragma once

#include "base/json.h"
#include "packet/chain.h"

/* The file that is read. */
struct source {
	const char *file;
	struct kn_view text;
};

/* A node of it: the way up to the root. Lives on the stack of who reads it. */
struct place {
	const struct source *source;
	const struct place *up; /* NULL at the root */
	const char *key;	/* in a mapping; NULL in a sequence */
	size_t index;
	const json_t *value; /* NULL when the key is missing */
};

/* The member of a mapping, or an item of a sequence. */
struct place kn_member(const struct place *p, const char *key);
struct place kn_item(const struct place *p, size_t index);

/* Say what is wrong at a place, with its line. Returns -EINVAL. */
int kn_wrong(const struct place *p, struct kn_err *err, const char *fmt, ...) kn_printf(3, 4);

/* Put the place before a story that somebody else told. Returns -err->code. */
int kn_wrong_inside(const struct place *p, struct kn_err *err);

#define kn_wrong(...) kn_negative((kn_wrong)(__VA_ARGS__))
#define kn_wrong_inside(p, err) kn_negative((kn_wrong_inside)((p), (err)))

/* The line of a place ("chain[2].acl.rules") in YAML text, from 1; 0 when it cannot be found. */
unsigned kn_yaml_line(struct kn_view text, const char *path);

/* EINVAL unless the place holds a mapping with none but these keys. */
int kn_known_keys(const struct place *p, const char *const *keys, size_t n, struct kn_err *err);

/* The index of the word that the place holds, in words (n of them). Errors: EINVAL with the list. */
int kn_word(const struct place *p, const char *const *words, size_t n, struct kn_err *err);

/* Text, or a whole number written as text into scratch. Errors: EINVAL. */
int kn_scalar(const struct place *p, char scratch[24], struct kn_view *ret, struct kn_err *err);

/* A number from least to most. */
int kn_number(const struct place *p, uint32_t least, uint32_t most, uint32_t *ret,
	      struct kn_err *err);

/* A match: the keys of a rule except name and action. extra: keys that are somebody else's. */
int kn_read_match(const struct place *p, const char *const *extra, size_t n_extra,
		  struct kn_match *ret, struct kn_err *err);

/* A list of rules: { rules: [...], default: drop, name: ... }. */
int kn_read_acl(const struct place *p, struct kn_acl **ret, struct kn_err *err);

/* A list of one rule that passes what matches; the fallback drops. */
int kn_read_single(const struct place *p, struct kn_acl **ret, struct kn_err *err);
