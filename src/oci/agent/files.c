/* Files that the host puts into the function's root before it starts: secrets. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "oci/agent/agent.h"
#include "oci/container.h"

enum { MAX_PATH = 512 };

/* "0440" */
static int parse_mode(struct kn_view text, mode_t *ret, struct kn_err *err)
{
	mode_t mode = 0;

	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] < '0' || text.ptr[i] > '7' || text.len > 5)
			return kn_fail(err, EINVAL, "a file's mode is '" KN_VIEW_FMT "'",
			               KN_VIEW_ARG(text));
		mode = mode * 8 + (mode_t)(text.ptr[i] - '0');
	}
	*ret = mode & 0777;
	return 0;
}

static int make_folder_of(const char *path, uid_t id_first, struct kn_err *err)
{
	char folder[MAX_PATH];

	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
	return folder[0] ? kn_container_mkdirs(folder, id_first, err) : 0;
}

/* Never readable by others than the function's user, not even while it is written. */
static int put_file(const struct function *f, const char *path, mode_t mode, struct kn_view bytes,
                    uid_t id_first, struct kn_err *err)
{
	int r = make_folder_of(path, id_first, err);

	if (r < 0)
		return r;
	if (unlink(path) < 0 && errno != ENOENT)
		return kn_fail(err, errno, "replace file %s: %s", path, strerror(errno));
	kn_auto(kn_close) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
	                                0600);
	if (fd < 0)
		return kn_fail(err, errno, "make file %s: %s", path, strerror(errno));
	r = kn_write_all(fd, bytes.ptr, bytes.len);
	if (r < 0)
		return kn_fail(err, -r, "write file %s: %s", path, strerror(-r));
	if (fchmod(fd, mode) < 0 ||
	    (geteuid() == 0 && fchown(fd, f->user.uid + id_first, f->user.gid + id_first) < 0))
		return kn_fail(err, errno, "give file %s to the function's user: %s", path,
		               strerror(errno));
	return 0;
}

int files_put(const struct function *f, const struct kn_agent_message *m, uid_t id_first,
              struct kn_err *err)
{
	int r = 0;

	if (m->n_file_paths != m->n_file_modes || m->n_file_paths != m->n_file_bytes)
		return kn_fail(err, EBADMSG, "%zu files with %zu modes and %zu contents",
		               m->n_file_paths, m->n_file_modes, m->n_file_bytes);
	for (size_t i = 0; i < m->n_file_paths && r == 0; i++) {
		struct kn_view at = m->file_paths[i];
		char path[MAX_PATH];
		mode_t mode = 0;
		if (at.len < 2 || at.len >= sizeof(path) || at.ptr[0] != '/' ||
		    memchr(at.ptr, '\0', at.len))
			return kn_fail(err, EINVAL, "a file's path is '" KN_VIEW_FMT "'",
			               KN_VIEW_ARG(at));
		memcpy(path, at.ptr, at.len);
		path[at.len] = '\0';
		r = parse_mode(m->file_modes[i], &mode, err);
		if (r == 0)
			r = put_file(f, path, mode, m->file_bytes[i], id_first, err);
	}
	return r;
}
