/*
 * Files and descriptors: whole reads and writes, files replaced atomically, folders made and
 * removed, descriptors passed over Unix sockets. Every descriptor made here is close-on-exec.
 * Paths are relative to a directory descriptor (AT_FDCWD where the caller owns the place).
 *
 * Thread  any; keeps no state.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/str.h"

/** Read until len bytes or end of file. Returns the count, or -errno. */
ssize_t kn_read_all(int fd, void *ptr, size_t len);

/** Write everything. Returns 0 or -errno. */
int kn_write_all(int fd, const void *ptr, size_t len);

/** A whole file, at most max bytes, appended to ret. Errors: EFBIG when it is larger. */
kn_must_use int kn_read_file(int dirfd, const char *path, size_t max, struct kn_buf *ret,
                             struct kn_err *err);

/**
 * Replace a file so that a crash leaves the old or the new content, never a part: written beside
 * it, synced, renamed, folder synced.
 */
kn_must_use int kn_write_file(int dirfd, const char *path, const void *ptr, size_t len, mode_t mode,
                              struct kn_err *err);

/** mkdir -p with this mode for what is missing. */
kn_must_use int kn_mkdirs(int dirfd, const char *path, mode_t mode, struct kn_err *err);

/** rm -rf without following links or leaving the file system; a missing path is fine. */
kn_must_use int kn_remove_tree(int dirfd, const char *path, struct kn_err *err);

/**
 * openat2 confined to dirfd: no "..", link or mount leads out (RESOLVE_IN_ROOT).
 * Returns the descriptor or -errno with err told.
 */
kn_must_use int kn_open_in(int dirfd, const char *path, int flags, mode_t mode, struct kn_err *err);

/** Pass up to 8 descriptors with len bytes (at least 1) over a Unix socket. 0 or -errno. */
int kn_send_fds(int sock, const void *ptr, size_t len, const int *fds, size_t nfds);

/**
 * The inverse. Fills ret_fds (close-on-exec) and *ret_nfds; what does not fit is closed.
 * Returns bytes read, 0 at end, or -errno (-EAGAIN on a non-blocking socket with nothing).
 */
ssize_t kn_recv_fds(int sock, void *ptr, size_t len, int *ret_fds, size_t max_fds, size_t *ret_nfds);

/** A connected non-blocking Unix stream socket. Errors: ENAMETOOLONG, else what connect said. */
kn_must_use int kn_unix_connect(const char *path, struct kn_err *err);

/** A listening non-blocking Unix stream socket at path (mode 0600); an old socket is replaced. */
kn_must_use int kn_unix_listen(const char *path, struct kn_err *err);

/** A listening non-blocking TCP socket; "127.0.0.1:0" takes a free port. IPv6 as "[::1]:80". */
kn_must_use int kn_tcp_listen(const char *addr_port, struct kn_err *err);

/** A connected blocking TCP socket to "ADDR:PORT" (numeric or "localhost"), TCP_NODELAY set. */
kn_must_use int kn_tcp_connect(const char *addr_port, struct kn_err *err);

/** "127.0.0.1:8080" of a socket's own end into out. 0 or -errno. */
int kn_tcp_name(int fd, char *out, size_t out_len);
