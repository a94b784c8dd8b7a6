/*
 * Pulling from other registries: for a deployment whose image is not here and whose reference names
 * a registry, and for POST /kiln/v1/images/pull. A slow registry may take minutes, so pulls have
 * threads of their own; what builds and imports need is never behind one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "faas/control/private.h"
#include "oci/remote.h"

enum { PULL_THREADS = 2, MAX_PULLS = 32, MAX_AUTH_FILE = 1 << 20 };

struct pull {
	struct kn_job job;
	struct pulls *pulls;
	char *reference;
	bool plain_http;
	bool given;                   /* login is the caller's */
	struct kn_remote_login login;
	pull_done done;
	void *arg;
	struct kn_image *image;
	struct kn_err err;
};

struct pulls {
	struct kn_control *ctl;
	struct kn_work *work;
	atomic_bool stopping;
};

/* ---- a worker --------------------------------------------------------------------------------- */

static bool go_on(const char *phase, uint64_t bytes, uint64_t total, void *arg)
{
	const struct pulls *pulls = arg;

	(void)phase, (void)bytes, (void)total;
	return !atomic_load_explicit(&pulls->stopping, memory_order_relaxed);
}

/* Read at each pull: who changes a password need not start the node again. */
static int find_login(struct pull *p, const struct kn_ref *ref, struct kn_err *err)
{
	const char *path = p->pulls->ctl->config.registry_auth;
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	if (p->given || !path)
		return 0;
	int r = kn_read_file(AT_FDCWD, path, MAX_AUTH_FILE, &text, err);
	if (r == 0)
		r = kn_remote_login_find(kn_buf_view(&text), kn_view_of(ref->name), &p->login, err);
	return r < 0 ? kn_while(err, "credentials for registries, '%s'", path) : 0;
}

static bool listed(const char *hosts, struct kn_view host)
{
	struct kn_view rest = kn_view_of(hosts), one;

	while (rest.ptr && kn_view_split(&rest, ',', &one))
		if (kn_view_is_nocase(kn_view_trim(one), host))
			return true;
	return false;
}

static int pull_it(struct pull *p, struct kn_err *err)
{
	const struct kn_control_config *config = &p->pulls->ctl->config;
	const struct kn_progress progress = { .step = go_on, .arg = p->pulls };
	kn_auto(kn_remote_close) struct kn_remote *remote = NULL;
	struct kn_view host = KN_VIEW_NULL, repository;
	struct kn_ref ref;

	int r = kn_ref_parse(kn_view_of(p->reference), &ref, err);
	if (r == 0 && !kn_ref_registry(&ref, &host, &repository))
		r = kn_fail(err, EINVAL, "'%.150s' names no registry to pull from", p->reference);
	if (r == 0)
		r = find_login(p, &ref, err);
	if (r < 0)
		return r;
	const struct kn_remote_config from = {
		.host = host,
		.plain_http = p->plain_http || listed(config->plain_http, host),
		.user = p->login.user,
		.password = p->login.password,
		.progress = &progress,
	};
	r = kn_remote_open(&from, &remote, err);
	if (r == 0)
		r = kn_remote_pull(remote, config->images, &ref, config->max_image_bytes, &p->image, err);
	return r;
}

static void pull_run(struct kn_job *job)
{
	struct pull *p = kn_container_of(job, struct pull, job);

	(void)!pull_it(p, &p->err);
	explicit_bzero(&p->login, sizeof(p->login));
}

/* ---- the loop --------------------------------------------------------------------------------- */

static void pull_free(struct pull *p)
{
	explicit_bzero(&p->login, sizeof(p->login));
	kn_image_unref(p->image);
	free(p->reference);
	free(p);
}

static void pull_finished(struct kn_job *job, bool cancelled)
{
	struct pull *p = kn_container_of(job, struct pull, job);
	struct kn_control *ctl = p->pulls->ctl;

	if (cancelled || atomic_load(&p->pulls->stopping)) {
		p->err = KN_ERR_INIT;
		kn_fail(&p->err, EAGAIN, "kilnd is stopping");
	}
	if (p->err.code == 0) {
		kn_log(KN_INFO, "image pulled", KN_S("image", p->image->reference),
		       KN_S("digest", p->image->top.text), KN_U("bytes", p->image->bytes));
		change_refresh(ctl, p->image);
	}
	p->done(p->err.code ? NULL : p->image, p->err.code ? &p->err : NULL, p->arg);
	pull_free(p);
}

int pull_start(struct kn_control *ctl, const struct pull_request *what, pull_done done, void *arg,
               struct kn_err *err)
{
	struct pull *p = calloc(1, sizeof(*p));

	if (p)
		p->reference = strdup(what->reference);
	if (!p || !p->reference) {
		free(p);
		return kn_fail(err, ENOMEM, "no memory for a pull");
	}
	p->job = (struct kn_job){ .run = pull_run, .done = pull_finished };
	p->pulls = ctl->pulls;
	p->plain_http = what->plain_http;
	p->given = what->login != NULL;
	if (what->login)
		p->login = *what->login;
	p->done = done;
	p->arg = arg;
	int r = kn_work_submit(ctl->pulls->work, &p->job, err);
	if (r < 0)
		pull_free(p);
	return r;
}

/* ---- POST /kiln/v1/images/pull ---------------------------------------------------------------- */

static void on_pulled(struct kn_image *image, const struct kn_err *err, void *arg)
{
	struct kn_http_exchange *x = wait_end(arg);

	if (!x)
		return;   /* the client left: the image is here all the same */
	if (image)
		kn_reply_json(x, 201, image_json(image));
	else
		pull_reply_fail(x, err);
}

/* What the other registry did is not this node's failure, and not always the caller's. */
void pull_reply_fail(struct kn_http_exchange *x, const struct kn_err *err)
{
	switch (err->code) {
	case ENOEXEC:
	case ENOENT:
		kn_reply_error(x, 422, kn_err_text(err), NULL);
		break;
	case EACCES:
		kn_reply_error(x, 422, kn_err_text(err),
		               "credentials come from kilnd --registry-auth FILE, or from kiln image "
		               "pull --creds USER:PASSWORD");
		break;
	case ECONNREFUSED:
	case EHOSTUNREACH:
	case EPROTO:
	case EBADMSG:
		kn_reply_error(x, 502, kn_err_text(err), NULL);
		break;
	default:
		kn_reply_fail(x, err, NULL);
		break;
	}
}

static int read_request(const json_t *body, struct pull_request *what,
                        struct kn_remote_login *login, struct kn_err *err)
{
	static const char *const known[] = { "reference", "username", "password", "plainHttp" };
	static const char *const needed[] = { "reference", NULL };
	const char *user = "", *password = "";

	if (kn_json_require(body, needed, err) < 0 ||
	    kn_json_known(body, known, KN_ARRAY_LEN(known), err) < 0 ||
	    kn_json_str(body, "reference", &what->reference, err) < 0 ||
	    kn_json_str(body, "username", &user, err) < 0 ||
	    kn_json_str(body, "password", &password, err) < 0 ||
	    kn_json_bool(body, "plainHttp", &what->plain_http, err) < 0)
		return -err->code;
	if (strlen(user) >= sizeof(login->user) || strlen(password) >= sizeof(login->password))
		return kn_fail(err, EINVAL, "the credentials are too long");
	memcpy(login->user, user, strlen(user) + 1);
	memcpy(login->password, password, strlen(password) + 1);
	what->login = user[0] ? login : NULL;
	return 0;
}

static void pull_parsed(const struct call *c, const json_t *body)
{
	struct pull_request what = { .reference = "" };
	struct kn_remote_login login;
	struct kn_err err = KN_ERR_INIT;

	if (read_request(body, &what, &login, &err) < 0) {
		kn_reply_fail(c->x, &err, "send {\"reference\": \"REGISTRY/NAME:TAG\"}");
		return;
	}
	struct waiting *w = wait_new(c->ctl, c->x);
	if (!w)
		return;
	int r = pull_start(c->ctl, &what, on_pulled, w, &err);
	explicit_bzero(&login, sizeof(login));
	if (r < 0) {
		wait_end(w);
		kn_reply_fail(c->x, &err, NULL);
	}
}

void pull_image(const struct call *c)
{
	with_body(c, pull_parsed);
}

/* ---- references ------------------------------------------------------------------------------- */

/* "HOST:PORT/name" where HOST:PORT is this node, as it listens or as its client calls it. */
static bool is_own(const struct kn_control *ctl, struct kn_http_exchange *x, struct kn_view host)
{
	const struct kn_view called = x ? kn_http_header(kn_http_head(x), "host") : KN_VIEW_NULL;
	const char *listen = ctl->config.listen ? ctl->config.listen : "";
	const char *port = strrchr(listen, ':');
	char local[32];

	snprintf(local, sizeof(local), "localhost%.8s", port ? port : "");
	return (called.len && kn_view_is_nocase(host, called)) ||
	       kn_view_is(host, kn_view_of(listen)) || kn_view_is(host, kn_view_of(local));
}

const char *own_reference(const struct kn_control *ctl, struct kn_http_exchange *x,
                          const char *reference)
{
	struct kn_view host, repository;
	struct kn_ref ref;

	if (kn_ref_parse(kn_view_of(reference), &ref, NULL) < 0 ||
	    !kn_ref_registry(&ref, &host, &repository) || !is_own(ctl, x, host))
		return reference;
	return reference + host.len + 1;
}

bool can_be_pulled(const char *reference)
{
	struct kn_view host, repository;
	struct kn_ref ref;

	return kn_ref_parse(kn_view_of(reference), &ref, NULL) == 0 &&
	       kn_ref_registry(&ref, &host, &repository);
}

/* ---- life ------------------------------------------------------------------------------------- */

int pulls_open(struct kn_control *ctl, struct kn_err *err)
{
	const struct kn_work_config config = { .threads = PULL_THREADS, .max_waiting = MAX_PULLS };
	struct pulls *pulls = calloc(1, sizeof(*pulls));

	if (!pulls)
		return kn_fail(err, ENOMEM, "no memory for pulls");
	pulls->ctl = ctl;
	int r = kn_work_new(ctl->config.loop, &config, &pulls->work, err);
	if (r < 0) {
		free(pulls);
		return r;
	}
	ctl->pulls = pulls;
	return 0;
}

void pulls_close(struct kn_control *ctl)
{
	if (!ctl->pulls)
		return;
	atomic_store(&ctl->pulls->stopping, true);
	kn_work_free(ctl->pulls->work);
	free(ctl->pulls);
	ctl->pulls = NULL;
}
