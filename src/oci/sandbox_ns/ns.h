/* Private to oci/sandbox_ns: what instances share. */
#pragma once

#include "host/cgroup.h"
#include "oci/sandbox_ns.h"

enum { IDS = 65536, MAX_KEPT = 64 };

/* A range of user ids, and the namespace that maps it. Made at first use, kept for the next. */
struct ids {
	uid_t first;
	int userns_fd;
	struct ids *next;
};

/* An image that instances have as their root: mounted once, so that they share its cached pages. */
struct image {
	dev_t dev;
	ino_t ino;
	int mount_fd;
	unsigned refs;
	struct image *next;
};

struct kn_ns {
	struct kn_ns_config config;
	struct kn_network *network;  /* or NULL */
	char *agent, *cgroup;
	int agent_fd;                /* sealed copy: no container can change what others run */
	int filter_fd;               /* the compiled filter */
	int own_netns_fd;
	struct ids *idle;
	size_t n_idle;
	uint32_t next_range;
	struct image *images;
};

/** Take a range. Errors: EUSERS; what making a user namespace said. */
int ids_take(struct kn_ns *ns, struct ids **ret, struct kn_err *err);
/** Give it back, when no process has it any more. NULL is fine. */
void ids_give(struct kn_ns *ns, struct ids *ids);

/** Errors: what mounting said. */
int image_take(struct kn_ns *ns, const char *path, struct image **ret, struct kn_err *err);
void image_give(struct kn_ns *ns, struct image *image);
/** A mount of its own for one instance, owned by its user namespace's root. */
int image_mount(const struct image *image, const char *path, const struct ids *ids,
                struct kn_err *err);

/** A TCP connection to 127.0.0.1:port of a network namespace, non-blocking. */
int connect_inside(const struct kn_ns *ns, int netns_fd, uint16_t port, struct kn_err *err);
