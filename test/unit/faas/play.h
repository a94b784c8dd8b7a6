/*
 * What the tests of pool, engine and gateway share: a loop on a fake clock, a scripted driver, a
 * folder for run folders, and functions made by hand.
 */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "test.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/time.h"
#include "faas/function.h"
#include "oci/sandbox_fake.h"

struct play {
	struct kn_loop *loop;
	struct kn_fake fake;
	struct kn_fake_driver driver;
	char dir[64];
};

static struct play play;

/* Time stands still unless a test moves it. */
enum { PLAY_BEGAN = 1000 };

static int play_setup(void **state)
{
	(void)state;
	play = (struct play){ .dir = "/tmp/kiln-play-XXXXXX" };
	play.driver.fake = &play.fake;
	play.fake.boot_ns = 5 * KN_NS_PER_MS;
	assert_non_null(mkdtemp(play.dir));
	kn_log_setup(
		&(struct kn_log_config){ .level = KN_ERROR, .fd = open("/dev/null", O_WRONLY) });
	kn_fake_clock(PLAY_BEGAN * KN_NS_PER_S, 1700000000 * KN_NS_PER_S);
	struct kn_err err = KN_ERR_INIT;
	assert_ok(kn_loop_new(&play.loop, &err), &err);
	return 0;
}

static int play_teardown(void **state)
{
	(void)state;
	kn_loop_free(play.loop);
	assert_ok(kn_remove_tree(AT_FDCWD, play.dir, NULL), NULL);
	kn_real_clock();
	return 0;
}

/* Let everything happen that needs no time. */
static inline void play_settle(void)
{
	for (int i = 0; i < 12; i++)
		assert_true(kn_loop_once(play.loop, 0) >= 0);
}

static inline void play_pass(uint64_t ms)
{
	kn_fake_advance(ms * KN_NS_PER_MS);
	play_settle();
}

/* One reference. Fields may be changed before it is deployed. */
static inline struct kn_function *play_function(const char *name)
{
	struct kn_function *fn = calloc(1, sizeof(*fn));

	assert_non_null(fn);
	kn_arena_init(&fn->arena);
	*fn = (struct kn_function){
		.name = name,
		.ns = KN_NAMESPACE,
		.image = "image",
		.env_process = "",
		.class = KN_CLASS_MICROVM,
		.contract = KN_CONTRACT_HTTP,
		.port = 8080,
		.concurrency = 4,
		.queue = 100,
		.scale_max = 1,
		.timeout_ms = 10 * 1000,
		.boot_timeout_ms = 10 * 1000,
		.memory_bytes = UINT64_C(64) << 20,
		.vcpus = 1,
		.refs = 1,
	};
	return fn;
}

/* Entries of the folder for run folders. */
static inline int play_folders(void)
{
	int n = 0;
	DIR *d = opendir(play.dir);

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}
