#include "cmd/kilnd/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"

/* "/run/x/notify", or "@name" for one that is in no folder. */
static int make_address(const char *name, struct sockaddr_un *ret, socklen_t *ret_len,
			struct kn_err *err)
{
	size_t len = strlen(name);

	if (name[0] != '/' && name[0] != '@')
		return kn_fail(err, EINVAL, "NOTIFY_SOCKET '%s' is neither a path nor @name", name);
	if (len >= sizeof(ret->sun_path))
		return kn_fail(err, ENAMETOOLONG, "NOTIFY_SOCKET '%s' is too long", name);
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path, name, len);
	if (name[0] == '@')
		ret->sun_path[0] = '\0';
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	return 0;
}

int kn_notify(const char *state, struct kn_err *err)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address;
	socklen_t len;

	if (!name || !name[0])
		return 0;
	int r = make_address(name, &address, &len, err);
	if (r < 0)
		return r;
	kn_auto(kn_close) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL,
			     (const struct sockaddr *)&address, len) < 0)
		return kn_fail(err, errno, "tell the service manager at '%s': %s", name,
			       strerror(errno));
	return 1;
}
