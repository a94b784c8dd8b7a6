/* A chain's file of any content is refused with a reason, or makes a chain. */
#include "fuzz.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "packet/chain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	kn_auto(kn_close) int fd = memfd_create("chain", MFD_CLOEXEC);
	kn_auto(kn_chain_free) struct kn_chain *chain = NULL;
	struct kn_err err = KN_ERR_INIT;
	char path[32];

	must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	const struct kn_chain_config config = { .path = path, .dry = true };
	if (kn_chain_load(&config, &chain, &err) < 0)
		must(!chain && err.code && strstr(err.text, path));
	else
		must(kn_chain_stages(chain) > 0);
	return 0;
}
