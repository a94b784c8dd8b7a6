#include "cmd/kiln/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/fd.h"

enum { CONFIG_MAX = 1024 * 1024 };

static const char *env(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

int kn_config_path(char out[KN_CONFIG_PATH], struct kn_err *err)
{
	const char *file = env("KILN_CONFIG");
	const char *xdg = env("XDG_CONFIG_HOME");
	const char *home = env("HOME");
	int n;

	if (file)
		n = snprintf(out, KN_CONFIG_PATH, "%s", file);
	else if (xdg)
		n = snprintf(out, KN_CONFIG_PATH, "%s/kiln/config.json", xdg);
	else if (home)
		n = snprintf(out, KN_CONFIG_PATH, "%s/.config/kiln/config.json", home);
	else
		return kn_fail(err, ENOENT, "no place for the login: set HOME or KILN_CONFIG");
	if (n < 0 || n >= KN_CONFIG_PATH)
		return kn_fail(err, ENAMETOOLONG, "the path of the login file is too long");
	return 0;
}

static int check_private(const char *path, struct kn_err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno == ENOENT
			       ? 0
			       : kn_fail(err, errno, "stat '%s': %s", path, strerror(errno));
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return kn_fail(err, EPERM,
			       "'%s' holds a secret and is open to others: chmod 600 '%s'", path,
			       path);
	return 1;
}

int kn_config_load(json_t **ret, struct kn_err *err)
{
	char path[KN_CONFIG_PATH];

	int r = kn_config_path(path, err);
	if (r < 0)
		return r;
	r = check_private(path, err);
	if (r < 0)
		return r;

	kn_auto(json_decref) json_t *config = NULL;
	if (r == 0) {
		config = json_object();
		if (!config)
			return kn_fail(err, ENOMEM, "out of memory");
	} else {
		kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
		r = kn_read_file(AT_FDCWD, path, CONFIG_MAX, &text, err);
		if (r == 0)
			r = kn_json_parse(kn_buf_view(&text), &config, err);
		if (r == 0)
			r = kn_json_require(config, (const char *const[]){ NULL }, err);
		if (r < 0)
			return kn_while(err, "read '%s' (remove it and log in again)", path);
	}
	*ret = kn_take_ptr(config);
	return 0;
}

static int make_folder(const char *path, struct kn_err *err)
{
	const char *slash = strrchr(path, '/');
	char folder[KN_CONFIG_PATH];

	if (!slash || slash == path)
		return 0;
	snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
	return kn_mkdirs(AT_FDCWD, folder, 0700, err);
}

int kn_config_save(const json_t *config, struct kn_err *err)
{
	char path[KN_CONFIG_PATH];
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	int r = kn_config_path(path, err);
	if (r < 0)
		return r;
	kn_json_print(&text, config, 0);
	kn_buf_adds(&text, "\n");
	if (text.failed)
		return kn_fail(err, ENOMEM, "out of memory");
	r = make_folder(path, err);
	if (r == 0)
		r = kn_write_file(AT_FDCWD, path, text.ptr, text.len, 0600, err);
	return r < 0 ? kn_while(err, "keep the login") : 0;
}

json_t *kn_config_node(const json_t *config, const char *gateway)
{
	json_t *node = json_object_get(json_object_get(config, "nodes"), gateway);

	return json_is_object(node) ? node : NULL;
}

json_t *kn_config_node_make(json_t *config, const char *gateway)
{
	json_t *nodes = json_object_get(config, "nodes");

	if (!json_is_object(nodes)) {
		nodes = json_object();
		if (json_object_set_new(config, "nodes", nodes) < 0)
			return NULL;
	}
	json_t *node = kn_config_node(config, gateway);
	if (!node) {
		node = json_object();
		if (json_object_set_new(nodes, gateway, node) < 0)
			return NULL;
	}
	return node;
}
