/* What instances share: agent, filter, ids, images. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/caps.h"
#include "host/mount.h"
#include "host/seccomp_profile.h"
#include "host/userns.h"
#include "oci/sandbox_ns/ns.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U   /* Linux 6.3; asked for where the sysctl vm.memfd_noexec refuses silence */
#endif

/* ---- files in memory ----------------------------------------------------------------------- */

static int seal(int fd)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
}

static int new_program_file(void)
{
	int fd = memfd_create("kiln-agent", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("kiln-agent", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

static int load_agent(const char *path, struct kn_err *err)
{
	struct stat st;

	kn_auto(kn_close) int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &st) < 0)
		return kn_fail(err, errno, "kiln-agent at %s: %s", path, strerror(errno));
	kn_auto(kn_close) int fd = new_program_file();
	if (fd < 0)
		return kn_fail(err, errno, "memory for kiln-agent: %s", strerror(errno));
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(fd, file, NULL, (size_t)left);
		if (n <= 0)
			return kn_fail(err, n < 0 ? errno : EIO, "read %s", path);
		left -= n;
	}
	return seal(fd) < 0 ? kn_fail(err, errno, "seal kiln-agent: %s", strerror(errno))
	                    : kn_take_fd(fd);
}

static int make_filter(struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf filter = KN_BUF_INIT;

	int r = kn_seccomp_compile(KN_CAPS_CONTAINER, &filter, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int fd = memfd_create("kiln-filter", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return kn_fail(err, errno, "memory for a filter: %s", strerror(errno));
	r = kn_write_all(fd, filter.ptr, filter.len);
	if (r == 0 && seal(fd) < 0)
		r = -errno;
	return r < 0 ? kn_fail(err, -r, "keep the filter: %s", strerror(-r)) : kn_take_fd(fd);
}

/* ---- ids ----------------------------------------------------------------------------------- */

static int ids_make(struct kn_ns *ns, struct ids **ret, struct kn_err *err)
{
	if (ns->next_range >= ns->config.id_ranges)
		return kn_fail(err, EUSERS, "all %u ranges of user ids for containers are in use",
		               ns->config.id_ranges);
	uid_t first = ns->config.id_first + ns->next_range * IDS;
	struct ids *ids = calloc(1, sizeof(*ids));
	if (!ids)
		return kn_fail(err, ENOMEM, "memory for a range of ids");
	int fd = kn_userns_new(first, IDS, err);
	if (fd < 0) {
		free(ids);
		return fd;
	}
	*ids = (struct ids){ .first = first, .userns_fd = fd };
	ns->next_range++;
	*ret = ids;
	return 0;
}

int ids_take(struct kn_ns *ns, struct ids **ret, struct kn_err *err)
{
	struct ids *ids = ns->idle;

	if (!ids)
		return ids_make(ns, ret, err);
	if (ids->userns_fd < 0) {
		int fd = kn_userns_new(ids->first, IDS, err);
		if (fd < 0)
			return fd;
		ids->userns_fd = fd;
	} else {
		ns->n_idle--;
	}
	ns->idle = ids->next;
	*ret = ids;
	return 0;
}

/* The last one given back is the next one taken; of those that rest, few keep their namespace. */
void ids_give(struct kn_ns *ns, struct ids *ids)
{
	if (!ids)
		return;
	if (ns->n_idle < MAX_KEPT)
		ns->n_idle++;
	else
		kn_close(kn_take_fd(ids->userns_fd));
	ids->next = ns->idle;
	ns->idle = ids;
}

/* ---- images -------------------------------------------------------------------------------- */

int image_take(struct kn_ns *ns, const char *path, struct image **ret, struct kn_err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return kn_fail(err, errno, "image %s: %s", path, strerror(errno));
	for (struct image *i = ns->images; i; i = i->next)
		if (i->dev == st.st_dev && i->ino == st.st_ino) {
			i->refs++;
			*ret = i;
			return 0;
		}
	struct image *image = calloc(1, sizeof(*image));
	if (!image)
		return kn_fail(err, ENOMEM, "memory for an image");
	int fd = kn_mount_open(path, "erofs", err);
	if (fd < 0) {
		free(image);
		return fd;
	}
	*image = (struct image){ .dev = st.st_dev, .ino = st.st_ino, .mount_fd = fd, .refs = 1,
		                 .next = ns->images };
	ns->images = image;
	*ret = image;
	return 0;
}

void image_give(struct kn_ns *ns, struct image *image)
{
	if (!image || --image->refs > 0)
		return;
	for (struct image **at = &ns->images; *at; at = &(*at)->next)
		if (*at == image) {
			*at = image->next;
			break;
		}
	kn_close(image->mount_fd);
	free(image);
}

int image_mount(const struct image *image, const char *path, const struct ids *ids,
                struct kn_err *err)
{
	struct kn_err old = KN_ERR_INIT;
	int r;

	kn_auto(kn_close) int fd = kn_mount_copy(image->mount_fd, &old);
	if (fd < 0)
		fd = kn_mount_open(path, "erofs", err);
	if (fd < 0)
		return fd;
	r = kn_mount_shift(fd, ids->userns_fd, err);
	return r < 0 ? r : kn_take_fd(fd);
}

/* ---- connections --------------------------------------------------------------------------- */

/*
 * A socket belongs for good to the network namespace that its thread was in when it was made. So the
 * thread is there for one system call, about two microseconds.
 */
static int socket_inside(const struct kn_ns *ns, int netns_fd)
{
	if (setns(netns_fd, CLONE_NEWNET) < 0)
		return -errno;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int saved = errno;
	/* A node whose thread stays in a container must not go on. */
	if (setns(ns->own_netns_fd, CLONE_NEWNET) < 0)
		abort();
	return fd < 0 ? -saved : fd;
}

int connect_inside(const struct kn_ns *ns, int netns_fd, uint16_t port, struct kn_err *err)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		                  .sin_port = htons(port),
		                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int on = 1;

	kn_auto(kn_close) int fd = socket_inside(ns, netns_fd);
	if (fd < 0)
		return kn_fail(err, -fd, "a socket in the container: %s", strerror(-fd));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		return kn_fail(err, errno, "connect to the function's port %u: %s", port,
		               strerror(errno));
	return kn_take_fd(fd);
}

/* ---- life ---------------------------------------------------------------------------------- */

static int open_all(struct kn_ns *ns, struct kn_err *err)
{
	ns->agent_fd = load_agent(ns->agent, err);
	if (ns->agent_fd < 0)
		return ns->agent_fd;
	ns->filter_fd = make_filter(err);
	if (ns->filter_fd < 0)
		return ns->filter_fd;
	ns->own_netns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (ns->own_netns_fd < 0)
		return kn_fail(err, errno, "open /proc/thread-self/ns/net: %s", strerror(errno));
	return 0;
}

int kn_ns_new(const struct kn_ns_config *config, struct kn_ns **ret, struct kn_err *err)
{
	kn_auto(kn_ns_free) struct kn_ns *ns = calloc(1, sizeof(*ns));

	if (!ns)
		return kn_fail(err, ENOMEM, "memory for containers");
	ns->config = *config;
	ns->agent_fd = ns->filter_fd = ns->own_netns_fd = -1;
	ns->agent = strdup(config->agent);
	ns->cgroup = strdup(config->cgroup);
	if (!ns->agent || !ns->cgroup)
		return kn_fail(err, ENOMEM, "memory for containers");
	int r = open_all(ns, err);
	if (r < 0)
		return r;
	*ret = kn_take_ptr(ns);
	return 0;
}

void kn_ns_use_network(struct kn_ns *ns, struct kn_network *network)
{
	ns->network = network;
}

void kn_ns_free(struct kn_ns *ns)
{
	if (!ns)
		return;
	while (ns->idle) {
		struct ids *ids = ns->idle;
		ns->idle = ids->next;
		kn_close(ids->userns_fd);
		free(ids);
	}
	while (ns->images) {
		struct image *image = ns->images;
		image->refs = 1;
		image_give(ns, image);
	}
	kn_close(ns->agent_fd);
	kn_close(ns->filter_fd);
	kn_close(ns->own_netns_fd);
	free(ns->agent);
	free(ns->cgroup);
	free(ns);
}
