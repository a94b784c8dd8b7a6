/* Who we are: the challenge of a registry, and where names and passwords are kept. */
#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "oci/remote/private.h"

/* ---- the challenge ---------------------------------------------------------------------------- */

/* name=value or name="value"; the inside of quotes may have \-escapes. False at the end. */
static bool parameter(struct kn_view *rest, struct kn_view *ret_name, char *value, size_t room)
{
	size_t i = 0, n = 0;

	while (i < rest->len && (rest->ptr[i] == ',' || rest->ptr[i] == ' ' || rest->ptr[i] == '\t'))
		i++;
	size_t begin = i;
	while (i < rest->len && rest->ptr[i] != '=')
		i++;
	if (i >= rest->len)
		return false;
	*ret_name = kn_view_trim((struct kn_view){ rest->ptr + begin, i - begin });
	i++;
	const bool quoted = i < rest->len && rest->ptr[i] == '"';
	i += quoted;
	for (; i < rest->len && rest->ptr[i] != (quoted ? '"' : ','); i++) {
		if (quoted && rest->ptr[i] == '\\' && i + 1 < rest->len)
			i++;
		if (n + 1 < room && rest->ptr[i] != '\0')
			value[n++] = rest->ptr[i];
	}
	value[n] = '\0';
	i += quoted && i < rest->len;
	*rest = (struct kn_view){ rest->ptr + i, rest->len - i };
	return true;
}

int challenge_parse(struct kn_view v, struct challenge *ret, struct kn_err *err)
{
	struct kn_view rest = v, scheme = KN_VIEW_NULL, name;
	char value[sizeof(ret->realm)];

	*ret = (struct challenge){ .bearer = false };
	kn_view_split(&rest, ' ', &scheme);
	if (kn_view_is_nocase(scheme, KN_VIEW("basic")))
		return 0;
	if (!kn_view_is_nocase(scheme, KN_VIEW("bearer")) || !rest.ptr)
		return kn_fail(err, EINVAL, "the registry asks for '" KN_VIEW_FMT "', which is neither "
		               "Bearer nor Basic", KN_VIEW_ARG(v));
	ret->bearer = true;
	while (parameter(&rest, &name, value, sizeof(value))) {
		if (kn_view_is_nocase(name, KN_VIEW("realm")))
			memcpy(ret->realm, value, sizeof(ret->realm));
		else if (kn_view_is_nocase(name, KN_VIEW("service")) && strlen(value) < sizeof(ret->service))
			memcpy(ret->service, value, sizeof(ret->service));
		else if (kn_view_is_nocase(name, KN_VIEW("scope")))
			memcpy(ret->scope, value, sizeof(ret->scope));
	}
	if (!ret->realm[0])
		return kn_fail(err, EINVAL, "the registry's challenge names no realm: '" KN_VIEW_FMT "'",
		               KN_VIEW_ARG(v));
	return 0;
}

/* ---- names and passwords ---------------------------------------------------------------------- */

int kn_remote_login_parse(struct kn_view text, struct kn_remote_login *ret, struct kn_err *err)
{
	struct kn_view rest = text, user = KN_VIEW_NULL;

	if (!kn_view_split(&rest, ':', &user) || !rest.ptr || user.len == 0 ||
	    user.len >= sizeof(ret->user) || rest.len >= sizeof(ret->password) ||
	    memchr(text.ptr, '\0', text.len))
		return kn_fail(err, EINVAL, "credentials have the form USER:PASSWORD");
	*ret = (struct kn_remote_login){ .user = "" };
	memcpy(ret->user, user.ptr, user.len);
	memcpy(ret->password, rest.ptr, rest.len);
	return 0;
}

/* Docker wrote keys as "https://host/v1/" once. */
static struct kn_view bare_key(const char *key)
{
	struct kn_view v = kn_view_of(key);
	const char *scheme = strstr(key, "://");

	if (scheme) {
		v = kn_view_of(scheme + 3);
		const char *slash = memchr(v.ptr, '/', v.len);
		v.len = slash ? (size_t)(slash - v.ptr) : v.len;
	}
	while (v.len && v.ptr[v.len - 1] == '/')
		v.len--;
	return v;
}

/* "host" and "host/team" fit "host/team/app"; "host/te" does not. */
static bool key_fits(struct kn_view key, struct kn_view name)
{
	return key.len > 0 && kn_view_starts(name, key) &&
	       (name.len == key.len || name.ptr[key.len] == '/');
}

static int entry_read(const json_t *entry, const char *key, struct kn_remote_login *ret,
                      struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	const char *auth = NULL;

	int r = kn_json_str(entry, "auth", &auth, err);
	if (r == 0 && auth)
		r = kn_unbase64(kn_view_of(auth), &text, err);
	if (r == 0 && auth)
		r = kn_remote_login_parse(kn_buf_view(&text), ret, err);
	return r < 0 ? kn_while(err, "credentials of '%.100s'", key) : 0;
}

int kn_remote_login_find(struct kn_view json, struct kn_view name, struct kn_remote_login *ret,
                         struct kn_err *err)
{
	kn_auto(json_decref) json_t *doc = NULL;
	json_t *auths = NULL, *entry, *best = NULL;
	const char *key, *best_key = "";
	size_t longest = 0;

	*ret = (struct kn_remote_login){ .user = "" };
	int r = kn_json_parse(json, &doc, err);
	if (r == 0)
		r = kn_json_obj(doc, "auths", &auths, err);
	if (r < 0)
		return r;
	json_object_foreach(auths, key, entry) {
		const struct kn_view v = bare_key(key);
		if (v.len <= longest || !key_fits(v, name))
			continue;
		longest = v.len;
		best = entry;
		best_key = key;
	}
	return best ? entry_read(best, best_key, ret, err) : 0;
}
