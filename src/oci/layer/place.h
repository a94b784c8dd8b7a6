/* Private to oci/layer: one tar entry put into the tree. */
#pragma once

#include "oci/layer/tree.h"

struct archive;
struct archive_entry;

struct place {
	struct tree tree;
	struct archive *tar;
	struct kn_layer_stats *stats;
	struct kn_err stream_err;    /* what the stream below libarchive said, when it failed */
	struct kn_buf path;
};

/** Put the entry into the tree, with its data and attributes. Errors: those of kn_layer_apply() */
int place_entry(struct place *p, struct archive_entry *e, struct kn_err *err);
