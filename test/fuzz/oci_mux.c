/*
 * What a guest can send to the host, and a host to the agent: frames through a whole end of the mux.
 * The first byte chooses the end. Every stream that is opened is one side of a socket pair whose
 * other side is never read, so that windows fill up.
 */
#include "fuzz.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "oci/mux.h"

static struct kn_loop *loop;
static int peers[KN_MUX_MAX_STREAMS * 2];
static size_t n_peers;
static bool failed;

static int on_open(struct kn_mux *m, void *arg)
{
	int p[2];

	(void)m;
	(void)arg;
	if (n_peers == KN_ARRAY_LEN(peers) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p) < 0)
		return -EMFILE;
	peers[n_peers++] = p[0];
	return p[1];
}

static void on_failed(struct kn_mux *m, const struct kn_err *err, void *arg)
{
	(void)m;
	(void)arg;
	must(err->code > 0 && err->text[0] != '\0');
	must(!failed);
	failed = true;
}

static void parse_all(struct kn_view rest)
{
	struct kn_mux_frame f;
	ssize_t n;

	while ((n = kn_mux_parse(rest, &f, NULL)) > 0) {
		must((size_t)n <= rest.len && f.payload.len <= KN_MUX_MAX_PAYLOAD);
		must(f.payload.ptr >= rest.ptr && f.payload.ptr + f.payload.len <= rest.ptr + n);
		rest = (struct kn_view){ rest.ptr + n, rest.len - (size_t)n };
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_mux *m = NULL;
	int p[2];

	if (size < 1 || size > 200000)
		return 0;
	parse_all((struct kn_view){ (const char *)data + 1, size - 1 });
	if (!loop && kn_loop_new(&loop, NULL) < 0)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p) < 0)
		return 0;
	failed = false;
	struct kn_mux_config c = { .host = data[0] & 1,
		                   .generation = 1,
		                   .events = { .open = on_open, .failed = on_failed } };
	if (kn_mux_new(loop, p[1], &c, &m, NULL) == 0) {
		(void)kn_write_all(p[0], data + 1, size - 1);
		for (int i = 0; i < 8 && !failed; i++)
			must(kn_loop_once(loop, 0) >= 0);
		must(kn_mux_streams(m) <= KN_MUX_MAX_STREAMS);
		kn_mux_free(m);
	}
	close(p[0]);
	while (n_peers > 0)
		close(peers[--n_peers]);
	return 0;
}
