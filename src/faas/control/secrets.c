/*
 * /system/secrets, as OpenFaaS' clients use it: names go out, values never do. A secret that is set
 * anew makes a new revision of each function that names it, which is rolled out like any update.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "faas/control/private.h"

static const char HINT[] = "send {\"name\": \"NAME\", \"value\": \"TEXT\"}, or \"rawValue\" in base64";

void list_secrets(const struct call *c)
{
	const struct kn_secrets *s = c->ctl->config.secrets;
	json_t *list = json_array();

	for (size_t i = 0; i < kn_secrets_count(s); i++)
		json_array_append_new(list, json_pack("{s:s, s:s}", "name", kn_secrets_name(s, i),
		                                      "namespace", KN_NAMESPACE));
	kn_reply_json(c->x, 200, list);
}

/* ---- bodies -------------------------------------------------------------------------------- */

/* faas-cli sends both fields, one of them empty. */
static int read_value(const json_t *body, struct kn_buf *ret, struct kn_err *err)
{
	const char *raw = "";
	const json_t *value = json_object_get(body, "value");

	if (value && !json_is_string(value) && !json_is_null(value))
		return kn_fail(err, EINVAL, "field 'value' must be a string");
	int r = kn_json_str(body, "rawValue", &raw, err);
	if (r < 0)
		return r;
	if (raw[0] && json_string_length(value) > 0)
		return kn_fail(err, EINVAL, "give 'value' or 'rawValue', not both");
	if (raw[0])
		return kn_unbase64(kn_view_of(raw), ret, err) < 0
		               ? kn_fail(err, EINVAL, "field 'rawValue' is not base64")
		               : 0;
	if (!value && !json_object_get(body, "rawValue"))
		return kn_fail(err, EINVAL, "there is neither 'value' nor 'rawValue'");
	kn_buf_add(ret, value ? json_string_value(value) : "", json_string_length(value));
	return ret->failed ? kn_fail(err, ENOMEM, "no memory for a secret") : 0;
}

static int read_name(const json_t *body, const char **ret, struct kn_err *err)
{
	static const char *const known[] = { "name", "namespace", "value", "rawValue" };
	static const char *const needed[] = { "name", NULL };
	const char *ns = "";

	if (kn_json_require(body, needed, err) < 0 ||
	    kn_json_known(body, known, KN_ARRAY_LEN(known), err) < 0 ||
	    kn_json_str(body, "name", ret, err) < 0 || kn_json_str(body, "namespace", &ns, err) < 0)
		return -err->code;
	if (ns[0] && strcmp(ns, KN_NAMESPACE) != 0)
		return kn_fail(err, EINVAL, "there is no namespace '%.80s': this node has '%s'", ns,
		               KN_NAMESPACE);
	return 0;
}

/* ---- setting ------------------------------------------------------------------------------- */

static void set_end(const struct kn_err *err, void *arg, int status)
{
	struct waiting *w = arg;
	struct kn_control *ctl = w->ctl;
	char name[KN_SECRET_NAME_MAX + 1];

	memcpy(name, w->name, sizeof(name));
	struct kn_http_exchange *x = wait_end(w);
	if (!err) {
		kn_log(KN_INFO, "secret set", KN_S("secret", name));
		change_reload(ctl, name);
	}
	if (x && err)
		kn_reply_fail(x, err, "nothing was changed");
	else if (x)
		kn_http_reply(x, status, NULL, 0, KN_VIEW_NULL);
}

static void on_created(const struct kn_err *err, void *arg)
{
	set_end(err, arg, 201);
}

static void on_updated(const struct kn_err *err, void *arg)
{
	set_end(err, arg, 200);
}

static void set(const struct call *c, const json_t *body, bool fresh)
{
	kn_auto(kn_buf_fini) struct kn_buf value = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;
	const char *name = "";
	struct waiting *w = NULL;

	int r = read_name(body, &name, &err);
	if (r == 0)
		r = read_value(body, &value, &err);
	if (r == 0 && !(w = wait_new(c->ctl, c->x))) {
		explicit_bzero(value.ptr, value.len);
		return;
	}
	if (r == 0) {
		snprintf(w->name, sizeof(w->name), "%s", name);
		r = kn_secrets_put(c->ctl->config.secrets, kn_view_of(name), kn_buf_view(&value),
		                   fresh, fresh ? on_created : on_updated, w, &err);
	}
	if (value.ptr)
		explicit_bzero(value.ptr, value.len);
	if (r == 0)
		return;
	if (w)
		wait_end(w);
	kn_reply_fail(c->x, &err,
	              r == -EEXIST   ? "PUT changes it: kiln secret update, or faas-cli secret update"
	              : r == -ENOENT ? "POST makes it: kiln secret create"
	                             : HINT);
}

static void create_parsed(const struct call *c, const json_t *body)
{
	set(c, body, true);
}

static void update_parsed(const struct call *c, const json_t *body)
{
	set(c, body, false);
}

void create_secret(const struct call *c)
{
	with_body(c, create_parsed);
}

void update_secret(const struct call *c)
{
	with_body(c, update_parsed);
}

/* ---- removing ------------------------------------------------------------------------------ */

static void on_removed(const struct kn_err *err, void *arg)
{
	struct kn_http_exchange *x = wait_end(arg);

	if (x && err)
		kn_reply_fail(x, err, "nothing was changed");
	else if (x)
		kn_http_reply(x, 202, NULL, 0, KN_VIEW_NULL);
}

static void remove_parsed(const struct call *c, const json_t *body)
{
	struct kn_err err = KN_ERR_INIT;
	const char *name = "";

	if (read_name(body, &name, &err) < 0) {
		kn_reply_fail(c->x, &err, "send {\"name\": \"NAME\"}");
		return;
	}
	const char *user = secret_user(c->ctl, name);
	if (user) {
		kn_fail(&err, EBUSY, "function '%s' uses secret '%s'", user, name);
		kn_reply_fail(c->x, &err, "deploy the function without it, or remove it first");
		return;
	}
	struct waiting *w = wait_new(c->ctl, c->x);
	if (w && kn_secrets_remove(c->ctl->config.secrets, kn_view_of(name), on_removed, w, &err) < 0) {
		wait_end(w);
		kn_reply_fail(c->x, &err, "see what there is with: kiln secret list");
	}
}

void remove_secret(const struct call *c)
{
	with_body(c, remove_parsed);
}
