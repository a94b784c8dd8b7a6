/*
 * Private to oci/layer: the folder that a layer is applied to. Every operation is relative to a
 * descriptor that openat2 confined to the folder, and never follows a link in the last component.
 *
 * Two things are remembered about the layer under way: which names it made (a whiteout hides lower
 * layers only, wherever it stands in the stream), and which time each folder that was touched must
 * have in the end (adding a file changes its folder's time, and the same layers must give the same
 * image).
 */
#pragma once

#include <stdint.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/str.h"
#include "oci/layer.h"

struct tree {
	int rootfd;                  /* borrowed */
	const struct kn_layer_limits *limits;
	struct kn_arena arena;       /* names, folder paths */
	struct kn_buf root_path;     /* where rootfd is, to measure real depths */
	struct kn_buf cached_path;   /* the parent folder last asked for ... */
	int cached_fd;               /* ... and its descriptor, or -1 */
	void *made;                  /* tsearch tree of struct made */
	void *folders;               /* tsearch tree of struct folder */
	bool lowest;                 /* nothing lies below: whiteouts hide nothing */
};

int tree_init(struct tree *t, int rootfd, const struct kn_layer_limits *limits, bool lowest,
              struct kn_err *err);

/** Give every touched folder its time back, as far as it is still there. */
int tree_finish(struct tree *t, struct kn_err *err);
void tree_fini(struct tree *t);

/**
 * A clean relative name of a tar entry or link target: no leading slash, no "." components.
 *
 * Returns its number of components; 0 is the root itself.
 * Errors  EBADMSG a ".." component, or nothing; EFBIG too long or too deep
 */
int tree_clean(const struct tree *t, const char *name, struct kn_buf *ret, struct kn_err *err);

/**
 * The folder path (clean, "" for the root), links followed inside the root. Borrowed until the next
 * call, or until tree_forget(). What is missing is made, 0755 and owned by root.
 */
int tree_folder(struct tree *t, struct kn_view path, struct kn_err *err);

/** Something was removed or replaced: the cached folder may not be what its path says any more. */
void tree_forget(struct tree *t);

/** The layer made this name. */
int tree_made(struct tree *t, int parent, const char *name, struct kn_err *err);

/** The time that a folder must have in the end. */
int tree_folder_time(struct tree *t, int fd, const struct timespec *mtime, struct kn_err *err);

/** Make way for a new entry: remove what has the name. */
int tree_clear(struct tree *t, int parent, const char *name, struct kn_err *err);

/** Remove what lower layers put under the name; what this layer made stays. */
int tree_hide(struct tree *t, int parent, const char *name, struct kn_err *err);

/** The same for everything in the folder. */
int tree_hide_all(struct tree *t, int folder, struct kn_err *err);

/** ENOSPC and the rest, told for people. */
int tree_fail(int code, const char *what, const char *name, struct kn_err *err);

/** A name from a layer as it may be shown: control characters and what is too long replaced. */
const char *tree_show(const char *name, char ret[static 128]);
