/*
 * What the files of faas/control share: the table of functions that are deployed, the changes that
 * are under way, and the shape of a handler.
 *
 * Thread  the loop's
 */
#pragma once

#include "faas/control.h"
#include "faas/engine.h"
#include "faas/reply.h"
#include "oci/image.h"
#include "oci/registry.h"
#include "oci/remote.h"

enum {
	MAX_FUNCTIONS = 4096,
	MAX_UPLOADS = 4,               /* image archives being received or imported */
	MAX_LOG_UNSENT = 1024 * 1024,  /* bytes; a reader that is slower is cut off */
};

/* A function as it is stored. */
struct entry {
	struct kn_function *fn;
	struct kn_image *image;        /* NULL for classes without one, and while it is missing */
	char *why;                     /* why the engine does not have it; NULL: it has */
	struct kn_function *old_fn;    /* an update is under way: what serves until it is ready, */
	struct kn_image *old_image;    /* and from then on if it never is; NULL: none is */
	bool unsaved;                  /* the store has an update that came to nothing */
};

struct change;

struct kn_control {
	struct kn_control_config config;
	struct entry *entries;         /* by name */
	size_t n_entries;
	struct change *changes;        /* under way */
	struct kn_registry *registry;
	struct pulls *pulls;
	unsigned n_uploads;
	bool turn_taken;               /* an import or a build has a worker */
	struct kn_job *in_line;        /* those that wait for it */
};

/** One request that passed its check. rest: the path behind a route that ends with '*', decoded. */
struct call {
	struct kn_control *ctl;
	struct kn_http_exchange *x;
	struct kn_view rest;
};

typedef void (*handler)(const struct call *c);

/** What a query says, decoded into the exchange's arena; false and answered when it is malformed. */
bool query_text(struct kn_http_exchange *x, const char *key, struct kn_view *ret);

/** "1" or "true". */
bool query_is_true(struct kn_http_exchange *x, const char *key);

/** Collect the body, at most max_body_bytes, and hand it on as JSON; answers when it is none. */
void with_body(const struct call *c, void (*parsed)(const struct call *c, const json_t *body));

/* ---- the table (table.c) ------------------------------------------------------------------- */

/** NULL when there is none. Valid until the table changes. */
struct entry *entry_find(const struct kn_control *ctl, struct kn_view name);

/** Put a function into the table, or replace it. Takes the references; why is copied. -ENOMEM */
int entry_put(struct kn_control *ctl, struct kn_function *fn, struct kn_image *image,
              const char *why);
/** The same for an update under way: the entry keeps what it had, for entry_rolled(). */
int entry_roll(struct kn_control *ctl, struct kn_function *fn, struct kn_image *image);

/** The update under way has an end: the entry is what it was updated to, or what it was before. */
void entry_rolled(struct entry *e, bool done);
void entry_remove(struct kn_control *ctl, struct kn_view name);
void entries_free(struct kn_control *ctl);

/** Describe one function; NULL when memory is out. */
json_t *entry_status(const struct kn_control *ctl, const struct entry *e, bool usage);

/* ---- changes (change.c) -------------------------------------------------------------------- */

enum change_kind {
	CHANGE_CREATE,
	CHANGE_UPDATE,
	CHANGE_RESTORE,        /* as it is stored, at a start */
	CHANGE_REFRESH,        /* to the image that now has its image's name, or a secret set anew */
};

/** Carry a change out, from its check to its answer. Takes fn over. x is NULL when restoring. */
void change_start(struct kn_control *ctl, struct kn_http_exchange *x, struct kn_function *fn,
                  enum change_kind kind);
void change_delete(struct kn_control *ctl, struct kn_http_exchange *x, struct kn_view name);

/** The engine's word on an update; arg is the control. */
void change_rolled(struct kn_function *fn, const struct kn_err *why, void *arg);

/** Move functions that use, or wait for, another image of this name to this one. */
void change_refresh(struct kn_control *ctl, const struct kn_image *image);

/** Roll out the functions that name a secret, which was set. */
void change_reload(struct kn_control *ctl, const char *secret);

/** The name of a function that names the secret, or is about to; NULL: none. */
const char *secret_user(const struct kn_control *ctl, const char *secret);

/** The name of a function that uses the image, or is about to; NULL: none. arg is the control. */
const char *image_user(const struct kn_image *image, void *arg);

/* ---- the registry (registry.c) ------------------------------------------------------------- */

kn_must_use int registry_open(struct kn_control *ctl, struct kn_err *err);

/** Answer a request below /v2/. */
void registry_request(struct kn_control *ctl, struct kn_http_exchange *x);

/* ---- other registries (pull.c) -------------------------------------------------------------- */

struct pull_request {
	const char *reference;                  /* with its registry */
	bool plain_http;
	const struct kn_remote_login *login;    /* NULL: what the node has for that registry */
};

/** image is borrowed; NULL: err says why. */
typedef void (*pull_done)(struct kn_image *image, const struct kn_err *err, void *arg);

kn_must_use int pulls_open(struct kn_control *ctl, struct kn_err *err);

/** Cancels what is under way: every done that is due runs in this call. */
void pulls_close(struct kn_control *ctl);

/** Pull in a thread of its own; done runs once, later. Strings are copied. Errors: EAGAIN, ENOMEM */
kn_must_use int pull_start(struct kn_control *ctl, const struct pull_request *what, pull_done done,
                           void *arg, struct kn_err *err);

/** Answer why a pull failed. */
void pull_reply_fail(struct kn_http_exchange *x, const struct kn_err *err);

/** Does it name a registry? */
bool can_be_pulled(const char *reference);

/** The part behind HOST:PORT/ where that is this node; else the whole. Points into reference. */
const char *own_reference(const struct kn_control *ctl, struct kn_http_exchange *x,
                          const char *reference);

/* ---- long jobs, one at a time (turn.c) ----------------------------------------------------- */

/**
 * Run job in a worker when its turn comes; its done calls turn_over().
 * must    however many wait: a function that is stored has no client who could try again
 * Errors  EAGAIN
 */
kn_must_use int turn_submit(struct kn_control *ctl, struct kn_job *job, bool must,
                            struct kn_err *err);
void turn_over(struct kn_control *ctl);

/* ---- what is started (launch.c) ------------------------------------------------------------ */

/**
 * Image configuration and deployment merged into what a driver starts; into the arena.
 * path is borrowed. image NULL: a class without images.
 *
 * Errors  EINVAL the image names no program; ENOMEM
 */
kn_must_use int launch_make(struct kn_arena *arena, const struct kn_function *fn,
                            const struct kn_image *image, const char *path,
                            struct kn_engine_image *ret, struct kn_err *err);

/**
 * The secrets that fn names, as files, into ret. launch_wipe() them, whatever this returns.
 *
 * Errors  EINVAL there is none of that name, the class has no files, or they are too large
 */
kn_must_use int launch_secrets(struct kn_arena *arena, const struct kn_function *fn,
                               const struct kn_secrets *secrets, struct kn_engine_image *ret,
                               struct kn_err *err);
void launch_wipe(struct kn_engine_image *image);

/* ---- a reply that waits for the store (wait.c) --------------------------------------------- */

struct waiting {
	struct kn_control *ctl;
	struct kn_http_exchange *x;    /* NULL: the client left */
	char name[KN_SECRET_NAME_MAX + 1];   /* the caller's */
};

/** NULL after answering. */
struct waiting *wait_new(struct kn_control *ctl, struct kn_http_exchange *x);

/** Frees it; the exchange to answer, or NULL. */
struct kn_http_exchange *wait_end(struct waiting *w);

/* ---- handlers ------------------------------------------------------------------------------ */

void list_functions(const struct call *c);
void describe_function(const struct call *c);
void describe_instances(const struct call *c);
void create_function(const struct call *c);
void update_function(const struct call *c);
void delete_function(const struct call *c);
void scale_function(const struct call *c);

void list_images(const struct call *c);
void import_image(const struct call *c);
void pull_image(const struct call *c);
json_t *image_json(const struct kn_image *image);
void remove_image(const struct call *c);

void list_secrets(const struct call *c);
void create_secret(const struct call *c);
void update_secret(const struct call *c);
void remove_secret(const struct call *c);

void read_logs(const struct call *c);

void show_health(const struct call *c);
void show_info(const struct call *c);
void show_namespaces(const struct call *c);
void show_namespace(const struct call *c);
void refuse_namespace(const struct call *c);
void show_node(const struct call *c);
void show_metrics(const struct call *c);

/* doc/api/openapi.json, built in. */
extern const char control_openapi[];
extern const size_t control_openapi_len;
void show_openapi(const struct call *c);

void list_clients(const struct call *c);
void add_client(const struct call *c);
void remove_client(const struct call *c);
