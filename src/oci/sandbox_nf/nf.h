/*
 * What the files of the driver `nf` share.
 */
#pragma once

#include "base/json.h"
#include "host/cgroup.h"
#include "oci/sandbox_nf.h"

enum { NF_PORTS_MAX = 8 };

/* An interface by what it is, whatever path its namespace was named by. */
struct claim {
	dev_t dev; /* of the network namespace */
	ino_t ino;
	char interface[16];
};

struct kn_nf {
	struct kn_nf_config config;
	char *program, *cgroup;
	struct box *boxes; /* all that have not ended */
};

/** Visit the counters in a report of kiln-nf, which is not trusted; NULL is fine. */
void nf_counters(const json_t *report, kn_counter_visit each, void *arg);
