/* Shared by the tests that run guests: an image, a sandbox, its events, and a small HTTP client. */
#pragma once

#include <sys/types.h>

#include "base/loop.h"
#include "oci/sandbox_qemu.h"

enum { GUEST_SECONDS = 120 };   /* for anything in a guest: TCG on a busy machine is slow */

struct guest {
	struct kn_sandbox *sb;
	bool ready, ended;
	struct kn_err why;
	struct kn_buf log[4];           /* by stream; lines end with newline */
	char run_dir[128];
};

extern struct kn_loop *guest_loop;
extern struct kn_sandbox_qemu_config guest_driver;
extern const struct kn_sandbox_ops *guest_ops;   /* kn_sandbox_qemu with guest_driver, unless ... */
extern char guest_cgroup[64];           /* the parent of the instances' */
extern char guest_folder[64];           /* temporary; image.erofs is in it */

/* This machine lacks a thing: the test ends, as a failure where .ci/run has declared it. */
_Noreturn void guest_skip(const char *thing, const char *why);

/** Make folder, loop and image out of build/... ; argv[1] is the build folder. 0, or exit code. */
int guest_setup(const char *build);
/** ... the test brings another driver, and its own programs: names of build/test/host, or NULL. */
int guest_setup_with(const char *build, const struct kn_sandbox_ops *ops, const void *driver,
                     const char *const *programs);
void guest_teardown(void);

/** A configuration of the given command, contract HTTP on port 8080. */
struct kn_sandbox_config guest_config(const char *const *argv);

/** Start and run the loop until it is ready or has ended. */
void guest_start(struct guest *g, struct kn_sandbox_config *config);

/** Run the loop until *flag. Fails the test after GUEST_SECONDS. */
void guest_wait(const bool *flag);

/** Stop it and check that nothing is left behind. */
void guest_stop(struct guest *g, uint64_t grace_ms);
/**
 * Teardown of every case: end what it left running. After a failed check this is what keeps the next
 * cases from stumbling over its guest.
 */
int guest_clean(void **state);
/** A case that cleans up. */
#define guest_test(f) cmocka_unit_test_teardown(f, guest_clean)


/** No process, mount or cgroup of any guest is left. */
void guest_check_nothing(void);
/** The same for one that ended already, and its run folder. */
void guest_check_gone(struct guest *g);

struct reply {
	int status;                     /* 0: none came */
	struct kn_buf body;
	bool complete, done;
	struct kn_err err;
};

/** One request over a new stream; body may be NULL. */
void guest_ask(struct guest *g, const char *method, const char *path, const void *body, size_t len,
               struct reply *ret);
/** Begin one; wait for ret->done. */
struct kn_http_client *guest_begin(struct guest *g, const char *method, const char *path,
                                   int64_t length, struct reply *ret);
void reply_fini(struct reply *r);

bool log_has(const struct guest *g, enum kn_stream stream, const char *text);
