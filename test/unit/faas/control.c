/* The control API over HTTP, with the real store, engine and image store, and a driver that plays. */
#include "faas/control.h"
#include "test.h"

#include "base/log.h"
#include "faas/control/private.h"
#include "faas/engine.h"
#include "oci/image.h"
#include "oci/sandbox_fake.h"
#include "faulty_disk.h"
#include "probe.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

struct fixture {
	char path[64];
	int dir;
	struct probe probe;
	struct kn_http_server *server;
	struct kn_store *store;
	struct kn_work *work;
	struct kn_auth *auth;
	struct kn_secrets *secrets;
	struct kn_images *images;
	struct kn_engine *engine;
	struct kn_control *ctl;
	struct kn_fake fake;
	struct kn_fake_driver driver;
	json_t *node;
	char id[64], secret[128];
	char authorization[2048];      /* what call() sends; "" for none */
};

/* ---- a node in a folder -------------------------------------------------------------------- */

static void on_request(struct kn_http_exchange *x, void *arg)
{
	struct fixture *f = arg;

	kn_control_request(f->ctl, x);
}

static void start_server(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_http_server_config config = KN_HTTP_SERVER_DEFAULTS;

	config.request = on_request;
	config.arg = f;
	int fd = kn_tcp_listen("127.0.0.1:0", &err);
	assert_ok(fd, &err);
	assert_int_equal(kn_tcp_name(fd, f->probe.addr, sizeof(f->probe.addr)), 0);
	assert_ok(kn_http_server_new(f->probe.loop, fd, &config, &f->server, &err), &err);
}

static void start_engine(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_engine_config config = KN_ENGINE_DEFAULTS;
	static char run_dir[96];

	snprintf(run_dir, sizeof(run_dir), "%s/run", f->path);
	f->fake = (struct kn_fake){ .boot_ns = 0 };
	f->driver = (struct kn_fake_driver){ .fake = &f->fake };
	for (int i = 0; i < KN_CLASSES; i++)
		config.classes[i] = (struct kn_engine_class){ .why = "no driver in this test" };
	config.classes[KN_CLASS_BARE] = (struct kn_engine_class){ .ops = &kn_sandbox_fake_message,
		                                                  .driver = &f->driver,
		                                                  .hypervisor = "pretence",
		                                                  .why = "it is a test" };
	config.classes[KN_CLASS_MICROVM] = config.classes[KN_CLASS_BARE];
	config.classes[KN_CLASS_MICROVM].ops = &kn_sandbox_fake;
	config.run_dir = run_dir;
	config.stop_grace_ms = 10;
	config.drain_ms = 10;
	assert_ok(kn_engine_new(f->probe.loop, &config, &f->engine, &err), &err);
}

static void start_auth(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_auth_config config = KN_AUTH_DEFAULTS;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	config.store = f->store;
	config.work = f->work;
	config.dir = f->dir;
	config.issuer = "http://127.0.0.1:8080";
	config.pbkdf2_rounds = 1000;
	assert_ok(kn_auth_new(&config, &f->auth, &err), &err);
	assert_ok(kn_read_file(f->dir, "credentials", 4096, &b, &err), &err);
	assert_int_equal(sscanf(b.ptr, "client_id=%63s\nclient_secret=%127s\n", f->id, f->secret), 2);
}

static void open_images(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_images_config config = KN_IMAGES_DEFAULTS;
	char dir[96];

	snprintf(dir, sizeof(dir), "%s/images", f->path);
	config.dir = dir;
	assert_ok(kn_images_open(&config, &f->images, &err), &err);
}

static int try_control(struct fixture *f, struct kn_err *err)
{
	struct kn_control_config config = KN_CONTROL_DEFAULTS;

	config.loop = f->probe.loop;
	config.store = f->store;
	config.auth = f->auth;
	config.secrets = f->secrets;
	config.work = f->work;
	config.engine = f->engine;
	config.images = f->images;
	config.node = f->node;
	config.tmp_dir = f->path;
	config.max_image_bytes = 1 << 20;
	config.max_body_bytes = 64 * 1024;
	return kn_control_new(&config, &f->ctl, err);
}

static void start_node(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	const struct kn_store_config store = { .dir = f->dir,
		                               .dir_name = f->path,
		                               .loop = f->probe.loop };

	assert_ok(kn_store_open(&store, &f->store, &err), &err);
	assert_ok(kn_work_new(f->probe.loop, &KN_WORK_DEFAULTS, &f->work, &err), &err);
	start_auth(f);
	assert_ok(kn_secrets_open(f->store, f->dir, &f->secrets, &err), &err);
	open_images(f);
	start_engine(f);
	assert_ok(try_control(f, &err), &err);
	while (kn_control_restoring(f->ctl))
		assert_true(kn_loop_once(f->probe.loop, 100) >= 0);
	start_server(f);
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

static void stop_node(struct fixture *f)
{
	bool drained = false;

	kn_http_server_free(f->server);
	kn_engine_drain(f->engine, set_true, &drained);
	while (!drained)
		kn_loop_once(f->probe.loop, 10);
	kn_work_free(f->work);
	kn_store_close(f->store);
	kn_control_free(f->ctl);
	kn_secrets_free(f->secrets);
	kn_auth_free(f->auth);
	kn_engine_free(f->engine);
	kn_images_close(f->images);
	f->ctl = NULL;
}

static void as_administrator(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;

	assert_ok(kn_auth_issue(f->auth, f->id, KN_SCOPE_ALL, &token, &err), &err);
	snprintf(f->authorization, sizeof(f->authorization), "Bearer %s", token.ptr);
}

static void with_scopes(struct fixture *f, uint32_t scopes)
{
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf token = KN_BUF_INIT;

	assert_ok(kn_auth_issue(f->auth, f->id, scopes, &token, &err), &err);
	snprintf(f->authorization, sizeof(f->authorization), "Bearer %s", token.ptr);
}

static int setup(void **state)
{
	static struct fixture f;
	struct kn_err err = KN_ERR_INIT;

	memset(&fault, 0, sizeof(fault));
	f = (struct fixture){ .path = "/tmp/kn-control-XXXXXX" };
	assert_non_null(mkdtemp(f.path));
	f.dir = open(f.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	f.node = json_pack("{s:s}", "verdict", "fit for tests");
	assert_ok(kn_loop_new(&f.probe.loop, &err), &err);
	start_node(&f);
	as_administrator(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	stop_node(f);
	kn_loop_free(f->probe.loop);
	kn_buf_fini(&f->probe.reply);
	json_decref(f->node);
	close(f->dir);
	assert_ok(kn_remove_tree(AT_FDCWD, f->path, &err), &err);
	return 0;
}

/* ---- requests ------------------------------------------------------------------------------ */

static int call(struct fixture *f, const char *method, const char *target, const char *body)
{
	kn_auto(kn_buf_fini) struct kn_buf head = KN_BUF_INIT;

	kn_buf_printf(&head, "%s %s HTTP/1.1", method, target);
	if (f->authorization[0])
		kn_buf_printf(&head, "\nAuthorization: %s", f->authorization);
	return probe_call(&f->probe, head.ptr, body);
}

static int send_bytes(struct fixture *f, const char *target, struct kn_view body, size_t announced)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	kn_buf_printf(&text,
	              "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: %s\r\n"
	              "Content-Length: %zu\r\n\r\n",
	              target, f->authorization, announced);
	kn_buf_add_view(&text, body);
	return probe_send(&f->probe, text.ptr, text.len);
}

/* An archive with a bare function of this name; salt makes another program of it. */
static void bare_archive(struct fixture *f, const char *name, char salt, struct kn_buf *ret)
{
	struct kn_err err = KN_ERR_INIT;
	Elf64_Ehdr e = { .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = EV_CURRENT };
	struct kn_digest digest;

	memcpy(e.e_ident, ELFMAG, SELFMAG);
	e.e_ident[EI_CLASS] = ELFCLASS64;
	e.e_ident[EI_DATA] = ELFDATA2LSB;
	assert_ok(kn_write_file(f->dir, "elf", &e, sizeof(e), 0600, &err), &err);
	int elf = openat(f->dir, "elf", O_RDWR | O_APPEND | O_CLOEXEC);
	assert_int_equal(kn_write_all(elf, &salt, 1), 0);
	assert_int_equal(lseek(elf, 0, SEEK_SET), 0);
	int out = openat(f->dir, "archive", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_ok(kn_archive_write_bare(out, name, elf, NULL, &digest, &err), &err);
	close(elf);
	close(out);
	kn_buf_clear(ret);
	assert_ok(kn_read_file(f->dir, "archive", 1 << 20, ret, &err), &err);
}

static void import(struct fixture *f, const char *name, char salt)
{
	kn_auto(kn_buf_fini) struct kn_buf archive = KN_BUF_INIT;

	bare_archive(f, name, salt, &archive);
	probe_receive(&f->probe, send_bytes(f, "/kiln/v1/images", kn_buf_view(&archive), archive.len));
	assert_status(&f->probe, 201);
}

static void deploy(struct fixture *f)
{
	import(f, "denoise:1", 'a');
	call(f, "POST", "/system/functions", "{\"service\":\"denoise\",\"image\":\"denoise:1\"}");
	assert_status(&f->probe, 202);
}

static const char *member(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

/* ---- doors --------------------------------------------------------------------------------- */

static void only_open_paths_need_no_caller(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *method, *path;
	} closed[] = {
		{ "GET", "/system/functions" },
		{ "POST", "/system/functions" },
		{ "PUT", "/system/functions" },
		{ "DELETE", "/system/functions" },
		{ "GET", "/system/function/x" },
		{ "POST", "/system/scale-function/x" },
		{ "GET", "/system/secrets" },
		{ "POST", "/system/secrets" },
		{ "PUT", "/system/secrets" },
		{ "DELETE", "/system/secrets" },
		{ "GET", "/system/logs?name=x" },
		{ "GET", "/system/info" },
		{ "GET", "/system/namespaces" },
		{ "GET", "/metrics" },
		{ "GET", "/kiln/v1/functions/x" },
		{ "GET", "/kiln/v1/images" },
		{ "POST", "/kiln/v1/images" },
		{ "DELETE", "/kiln/v1/images?name=x" },
		{ "DELETE", "/kiln/v1/images/x" },
		{ "GET", "/kiln/v1/node" },
		{ "GET", "/kiln/v1/doctor" },
		{ "GET", "/kiln/v1/clients" },
		{ "POST", "/kiln/v1/clients" },
		{ "DELETE", "/kiln/v1/clients/x" },
	};

	f->authorization[0] = 0;
	for (size_t i = 0; i < KN_ARRAY_LEN(closed); i++) {
		if (call(f, closed[i].method, closed[i].path, NULL) != 401)
			fail_msg("%s %s: %s", closed[i].method, closed[i].path, f->probe.reply.ptr);
	}
	call(f, "GET", "/healthz", NULL);
	assert_status(&f->probe, 200);
	call(f, "GET", "/.well-known/jwks.json", NULL);
	assert_status(&f->probe, 200);
	call(f, "GET", "/.well-known/openid-configuration", NULL);
	assert_status(&f->probe, 200);
	call(f, "GET", "/oauth/token", NULL);
	assert_status(&f->probe, 405);
}

static void each_path_has_its_scope(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *method, *path;
		uint32_t scope;
	} cases[] = {
		{ "GET", "/system/functions", KN_SCOPE_FUNCTION_READ },
		{ "POST", "/system/functions", KN_SCOPE_FUNCTION_WRITE },
		{ "DELETE", "/system/functions", KN_SCOPE_FUNCTION_WRITE },
		{ "GET", "/system/function/x", KN_SCOPE_FUNCTION_READ },
		{ "POST", "/system/scale-function/x", KN_SCOPE_FUNCTION_WRITE },
		{ "GET", "/system/secrets", KN_SCOPE_SECRET_READ },
		{ "POST", "/system/secrets", KN_SCOPE_SECRET_WRITE },
		{ "PUT", "/system/secrets", KN_SCOPE_SECRET_WRITE },
		{ "DELETE", "/system/secrets", KN_SCOPE_SECRET_WRITE },
		{ "GET", "/system/logs?name=x", KN_SCOPE_FUNCTION_READ },
		{ "GET", "/kiln/v1/images", KN_SCOPE_IMAGE_READ },
		{ "DELETE", "/kiln/v1/images?name=x", KN_SCOPE_IMAGE_WRITE },
		{ "GET", "/kiln/v1/node", KN_SCOPE_NODE_READ },
		{ "GET", "/metrics", KN_SCOPE_NODE_READ },
		{ "GET", "/kiln/v1/clients", KN_SCOPE_ADMIN },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		with_scopes(f, KN_SCOPE_ALL & ~(cases[i].scope | KN_SCOPE_ADMIN));
		if (call(f, cases[i].method, cases[i].path, NULL) != 403)
			fail_msg("without: %s %s: %s", cases[i].method, cases[i].path,
			         f->probe.reply.ptr);
		with_scopes(f, cases[i].scope);
		call(f, cases[i].method, cases[i].path, NULL);
		if (f->probe.status == 401 || f->probe.status == 403)
			fail_msg("with: %s %s: %s", cases[i].method, cases[i].path, f->probe.reply.ptr);
	}
}

static void paths_and_methods_are_checked(void **state)
{
	struct fixture *f = *state;

	call(f, "GET", "/nowhere", NULL);
	assert_status(&f->probe, 404);
	assert_reply_has(&f->probe, "\"hint\"");
	call(f, "GET", "/system/function/", NULL);
	assert_status(&f->probe, 404);
	call(f, "PATCH", "/system/functions", NULL);
	assert_status(&f->probe, 405);
	assert_reply_has(&f->probe, "Allow: GET, POST, PUT, DELETE");
	call(f, "GET", "/system/function/%zz", NULL);
	assert_status(&f->probe, 400);
	call(f, "GET", "/system/function/a%2fb", NULL);
	assert_status(&f->probe, 400);
}

/* Upper-case method and a path with "x" for each parameter. */
static void operation(const char *path, const char *method, char target[256], char upper[16])
{
	size_t n = 0;

	for (const char *c = path; *c && n < 250; c++) {
		if (*c == '{') {
			target[n++] = 'x';
			c = strchr(c, '}');
		} else {
			target[n++] = *c;
		}
	}
	target[n] = 0;
	for (n = 0; method[n] && n < 15; n++)
		upper[n] = (char)(method[n] - 'a' + 'A');
	upper[n] = 0;
}

/* The document lists what there is, and says of each operation whether it is open. */
static void document_agrees_with_the_routes(void **state)
{
	struct fixture *f = *state;
	const char *path, *method;
	json_t *methods, *op;
	int operations = 0;

	f->authorization[0] = 0;
	call(f, "GET", "/openapi.json", NULL);
	assert_status(&f->probe, 200);
	kn_auto(json_decref) json_t *doc = probe_json(&f->probe);
	json_object_foreach(json_object_get(doc, "paths"), path, methods) {
		json_object_foreach(methods, method, op) {
			char target[256], upper[16];
			bool open = json_array_size(json_object_get(op, "security")) == 0;
			operation(path, method, target, upper);
			call(f, upper, target, NULL);
			bool is_open = f->probe.status != 401;
			if (f->probe.status == 404 || f->probe.status == 405 || open != is_open)
				fail_msg("%s %s: %d", upper, target, f->probe.status);
			operations++;
		}
	}
	assert_int_equal(operations, 32);   /* as many as route.c has, but for what it always refuses */
}

/* ---- functions ----------------------------------------------------------------------------- */

static void function_lives_from_deploy_to_remove(void **state)
{
	struct fixture *f = *state;

	deploy(f);
	call(f, "GET", "/system/functions", NULL);
	assert_status(&f->probe, 200);
	kn_auto(json_decref) json_t *list = probe_json(&f->probe);
	assert_int_equal(json_array_size(list), 1);
	assert_string_equal(member(json_array_get(list, 0), "name"), "denoise");

	call(f, "GET", "/system/function/denoise.openfaas-fn?usage=1", NULL);
	assert_status(&f->probe, 200);
	kn_auto(json_decref) json_t *one = probe_json(&f->probe);
	const json_t *kiln = json_object_get(one, "kiln");
	assert_string_equal(member(kiln, "class"), "bare");
	assert_string_equal(member(kiln, "contract"), "message");
	assert_string_equal(member(kiln, "hypervisor"), "pretence");
	assert_non_null(json_object_get(one, "usage"));

	call(f, "PUT", "/system/functions",
	     "{\"service\":\"denoise\",\"image\":\"denoise:1\",\"envVars\":{\"A\":\"b\"}}");
	assert_status(&f->probe, 202);
	call(f, "GET", "/kiln/v1/functions/denoise", NULL);
	assert_status(&f->probe, 200);
	assert_reply_has(&f->probe, "\"envVars\":{\"A\":\"b\"}");
	assert_reply_has(&f->probe, "\"imageDigest\":\"sha256:");
	assert_reply_has(&f->probe, "\"instances\":[]");

	call(f, "DELETE", "/system/functions", "{\"functionName\":\"denoise\",\"namespace\":\"\"}");
	assert_status(&f->probe, 202);
	call(f, "GET", "/system/function/denoise", NULL);
	assert_status(&f->probe, 404);
	assert_null(kn_engine_find(f->engine, KN_VIEW("denoise")));
	call(f, "DELETE", "/system/functions", "{\"functionName\":\"denoise\"}");
	assert_status(&f->probe, 404);
}

static void create_and_update_know_what_exists(void **state)
{
	struct fixture *f = *state;

	call(f, "PUT", "/system/functions", "{\"service\":\"denoise\",\"image\":\"denoise:1\"}");
	assert_status(&f->probe, 404);
	deploy(f);
	call(f, "POST", "/system/functions", "{\"service\":\"denoise\",\"image\":\"denoise:1\"}");
	assert_status(&f->probe, 409);
	assert_reply_has(&f->probe, "PUT updates it");
}

static void bad_deployments_say_what_to_do(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *body;
		int status;
		const char *says;
	} cases[] = {
		{ "", 400, "request body" },
		{ "{", 400, "request body" },
		{ "[]", 400, "expected an object" },
		{ "{\"service\":\"x\"}", 400, "image" },
		{ "{\"service\":\"X\",\"image\":\"denoise:1\"}", 400, "lower-case" },
		{ "{\"service\":\"x\",\"image\":\"denoise:1\",\"lables\":{}}", 400, "did you mean" },
		{ "{\"service\":\"x\",\"image\":\"nothing:1\"}", 400, "import" },
		{ "{\"service\":\"x\",\"image\":\"de noise\"}", 400, "blank" },
		{ "{\"service\":\"x\",\"image\":\"Denoise:::\"}", 400, "Denoise" },
		{ "{\"service\":\"x\",\"image\":\"denoise:1\",\"secrets\":[\"key\"]}", 400,
		  "secret 'key': a function of class bare has no files" },
		{ "{\"service\":\"x\",\"image\":\"denoise:1\",\"namespace\":\"other\"}", 400,
		  "no namespace" },
		{ "{\"service\":\"x\",\"image\":\"denoise:1\",\"annotations\":{\"kiln.class\":"
		  "\"microvm\"}}",
		  400, "bare program" },
		{ "{\"service\":\"x\",\"image\":\"denoise:1\",\"annotations\":{\"kiln.clas\":"
		  "\"bare\"}}",
		  400, "did you mean 'kiln.class'" },
	};

	import(f, "denoise:1", 'a');
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		call(f, "POST", "/system/functions", cases[i].body);
		if (f->probe.status != cases[i].status || !strstr(f->probe.body, cases[i].says) ||
		    !strstr(f->probe.body, "\"error\""))
			fail_msg("%s: %s", cases[i].body, f->probe.reply.ptr);
	}
	assert_int_equal(kn_engine_count(f->engine), 0);
	char *big = malloc(70000);
	memset(big, ' ', 69999);
	big[69999] = 0;
	call(f, "POST", "/system/functions", big);
	assert_status(&f->probe, 413);
	free(big);
}

static void bad_removals_say_what_to_send(void **state)
{
	struct fixture *f = *state;

	call(f, "DELETE", "/system/functions", "{}");
	assert_status(&f->probe, 400);
	assert_reply_has(&f->probe, "functionName");
	call(f, "DELETE", "/system/functions", "{\"functionName\":\"x\",\"namespace\":\"y\"}");
	assert_status(&f->probe, 404);
	call(f, "DELETE", "/system/functions", "{\"functionName\":\"a/b\"}");
	assert_status(&f->probe, 400);
	call(f, "DELETE", "/system/functions", "{\"functionName\":5}");
	assert_status(&f->probe, 400);
}

static void other_namespaces_are_unknown(void **state)
{
	struct fixture *f = *state;

	call(f, "GET", "/system/functions?namespace=openfaas-fn", NULL);
	assert_status(&f->probe, 200);
	call(f, "GET", "/system/functions?namespace=other", NULL);
	assert_status(&f->probe, 404);
	call(f, "GET", "/system/function/x.other", NULL);
	assert_status(&f->probe, 404);
	call(f, "GET", "/system/namespaces", NULL);
	assert_string_equal(kn_view_trim(kn_view_of(f->probe.body)).ptr, "[\"openfaas-fn\"]\n");
}

static void class_without_a_driver_is_refused_with_its_reason(void **state)
{
	struct fixture *f = *state;

	stop_node(f);
	start_node(f);
	as_administrator(f);
	import(f, "denoise:1", 'a');
	/* This node cannot run bare programs. */
	kn_http_server_free(f->server);
	kn_control_free(f->ctl);
	kn_engine_free(f->engine);
	start_engine(f);
	*(struct kn_engine_class *)(uintptr_t)kn_engine_class(f->engine, KN_CLASS_BARE) =
		(struct kn_engine_class){ .why = "there is no /dev/kvm" };
	struct kn_err err = KN_ERR_INIT;
	assert_ok(try_control(f, &err), &err);
	start_server(f);
	call(f, "POST", "/system/functions", "{\"service\":\"denoise\",\"image\":\"denoise:1\"}");
	assert_status(&f->probe, 422);
	assert_reply_has(&f->probe, "there is no /dev/kvm");
}

static void scaling_keeps_instances(void **state)
{
	struct fixture *f = *state;

	deploy(f);
	call(f, "POST", "/system/scale-function/denoise",
	     "{\"serviceName\":\"denoise\",\"replicas\":2}");
	assert_status(&f->probe, 202);
	for (int i = 0; i < 100 && f->fake.starts < 2; i++)
		kn_loop_once(f->probe.loop, 10);
	assert_int_equal(f->fake.starts, 2);
	call(f, "GET", "/system/function/denoise", NULL);
	assert_reply_has(&f->probe, "\"replicas\":2");
	assert_reply_has(&f->probe, "\"wanted\":2");
	call(f, "POST", "/system/scale-function/denoise", "{\"service\":\"denoise\",\"replicas\":0}");
	assert_status(&f->probe, 202);
	call(f, "POST", "/system/scale-function/denoise", "{\"replicas\":-1}");
	assert_status(&f->probe, 400);
	call(f, "POST", "/system/scale-function/nobody", "{\"replicas\":1}");
	assert_status(&f->probe, 404);
}

/* ---- container images ---------------------------------------------------------------------- */

/* One layer with one file, and a configuration as docker build would write it. */
static void import_container(struct fixture *f)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_digest digest;
	char command[256];
	kn_auto(kn_buf_fini) struct kn_buf archive = KN_BUF_INIT;

	snprintf(command, sizeof(command), "cd '%s' && echo x > app && tar -cf layer.tar app", f->path);
	FILE *p = popen(command, "re");
	assert_int_equal(pclose(p), 0);
	struct kn_pack_layer layer = { KN_TYPE_LAYER,
		                       openat(f->dir, "layer.tar", O_RDONLY | O_CLOEXEC) };
	kn_auto(json_decref) json_t *config =
		json_pack("{s:s, s:s, s:{s:[s], s:[s]}, s:{s:s, s:[]}}", "architecture", "amd64", "os",
	                  "linux", "config", "Cmd", "/app", "Env", "A=1", "rootfs", "type", "layers",
	                  "diff_ids");
	const struct kn_pack pack = { .reference = "web:1",
		                      .config_type = KN_TYPE_CONFIG,
		                      .config = config,
		                      .layers = &layer,
		                      .n_layers = 1 };
	int out = openat(f->dir, "archive", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_ok(kn_archive_write(out, &pack, &digest, &err), &err);
	close(layer.fd);
	close(out);
	assert_ok(kn_read_file(f->dir, "archive", 1 << 20, &archive, &err), &err);
	probe_receive(&f->probe, send_bytes(f, "/kiln/v1/images", kn_buf_view(&archive), archive.len));
	assert_status(&f->probe, 201);
}

static void container_image_gets_its_root_file_system_at_deploy(void **state)
{
	struct fixture *f = *state;

	import_container(f);
	call(f, "GET", "/kiln/v1/images", NULL);
	assert_reply_has(&f->probe, "\"kind\":\"container\"");
	assert_null(strstr(f->probe.body, "rootfsBytes"));
	call(f, "POST", "/system/functions",
	     "{\"service\":\"web\",\"image\":\"web:1\",\"annotations\":{\"kiln.class\":\"bare\"}}");
	assert_status(&f->probe, 400);
	assert_reply_has(&f->probe, "kiln build");
	call(f, "POST", "/system/functions", "{\"service\":\"web\",\"image\":\"web:1\"}");
	assert_status(&f->probe, 202);
	assert_reply_has(&f->probe, "\"class\":\"microvm\"");
	call(f, "GET", "/kiln/v1/images", NULL);
	assert_reply_has(&f->probe, "rootfsBytes");
	stop_node(f);
	start_node(f);
	assert_int_equal(kn_engine_count(f->engine), 1);
}

/* ---- secrets ------------------------------------------------------------------------------- */

static struct {
	char path[64], text[64];
	unsigned mode;
	size_t n;
} file;

static void note_file(const struct kn_sandbox_config *c, void *arg)
{
	(void)arg;
	file.n = c->n_files;
	if (file.n == 0)
		return;
	file.mode = c->files[0].mode;
	snprintf(file.path, sizeof(file.path), "%s", c->files[0].path);
	snprintf(file.text, sizeof(file.text), "%.*s", (int)c->files[0].bytes.len,
	         c->files[0].bytes.ptr);
}

static void secrets_are_set_listed_and_removed(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *method, *body;
		int status;
		const char *says;
	} cases[] = {
		{ "POST", "{\"name\":\"key\",\"namespace\":\"openfaas-fn\",\"value\":\"hunter2\"}", 201, "" },
		{ "POST", "{\"name\":\"key\",\"value\":\"x\"}", 409, "kiln secret update" },
		{ "PUT", "{\"name\":\"key\",\"value\":\"\",\"rawValue\":\"aHVudGVyMw==\"}", 200, "" },
		{ "PUT", "{\"name\":\"none\",\"value\":\"x\"}", 404, "kiln secret create" },
		{ "POST", "{\"name\":\"b\",\"rawValue\":\"AAEC\"}", 201, "" },
		{ "POST", "{\"name\":\"c\",\"rawValue\":\"A=A\"}", 400, "not base64" },
		{ "POST", "{\"name\":\"c\",\"rawValue\":\"AAEC\",\"value\":\"x\"}", 400, "not both" },
		{ "POST", "{\"name\":\"c\"}", 400, "neither" },
		{ "POST", "{\"name\":\"c\",\"value\":1}", 400, "string" },
		{ "POST", "{\"value\":\"x\"}", 400, "name" },
		{ "POST", "{\"name\":\"C\",\"value\":\"x\"}", 400, "lower-case" },
		{ "POST", "{\"name\":\"c\",\"value\":\"x\",\"namespace\":\"other\"}", 400, "namespace" },
		{ "DELETE", "{\"name\":\"none\"}", 404, "kiln secret list" },
		{ "DELETE", "{\"name\":\"b\"}", 202, "" },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		call(f, cases[i].method, "/system/secrets", cases[i].body);
		if (f->probe.status != cases[i].status || !strstr(f->probe.body, cases[i].says))
			fail_msg("%s %s: %s", cases[i].method, cases[i].body, f->probe.reply.ptr);
	}
	stop_node(f);
	start_node(f);
	as_administrator(f);
	call(f, "GET", "/system/secrets", NULL);
	assert_status(&f->probe, 200);
	assert_string_equal(f->probe.body,
	                    "[{\"name\":\"key\",\"namespace\":\"openfaas-fn\"}]\n");
}

static const char WEB[] = "{\"service\":\"web\",\"image\":\"web:1\",\"secrets\":[\"key\"],"
			  "\"labels\":{\"com.openfaas.scale.min\":\"1\"}}";

static void function_gets_its_secrets_as_files(void **state)
{
	struct fixture *f = *state;

	import_container(f);
	call(f, "POST", "/system/functions", WEB);
	assert_status(&f->probe, 400);
	assert_reply_has(&f->probe, "make it with: kiln secret create key");
	call(f, "POST", "/system/secrets", "{\"name\":\"key\",\"value\":\"hunter2\"}");
	f->fake.started = note_file;
	call(f, "POST", "/system/functions", WEB);
	assert_status(&f->probe, 202);
	assert_string_equal(file.path, "/var/openfaas/secrets/key");
	assert_string_equal(file.text, "hunter2");
	assert_int_equal(file.mode, 0440);
	call(f, "DELETE", "/system/secrets", "{\"name\":\"key\"}");
	assert_status(&f->probe, 409);
	assert_reply_has(&f->probe, "function 'web' uses secret 'key'");
	call(f, "GET", "/kiln/v1/functions/web", NULL);
	assert_null(strstr(f->probe.body, "hunter2"));
}

static void secret_that_is_set_anew_reaches_new_instances(void **state)
{
	struct fixture *f = *state;

	import_container(f);
	call(f, "POST", "/system/secrets", "{\"name\":\"key\",\"value\":\"hunter2\"}");
	call(f, "POST", "/system/functions", WEB);
	for (int i = 0; i < 20; i++)
		kn_loop_once(f->probe.loop, 1);
	f->fake.started = note_file;
	call(f, "PUT", "/system/secrets", "{\"name\":\"key\",\"value\":\"hunter3\"}");
	assert_status(&f->probe, 200);
	for (int i = 0; i < 200 && f->fake.starts < 2; i++)
		kn_loop_once(f->probe.loop, 10);
	assert_int_equal(f->fake.starts, 2);
	assert_string_equal(file.text, "hunter3");
	for (int i = 0; i < 200 && f->fake.ends < 1; i++)
		kn_loop_once(f->probe.loop, 10);
	assert_int_equal(f->fake.ends, 1);
}

static void function_whose_secret_is_lost_comes_back_with_it(void **state)
{
	struct fixture *f = *state;

	import_container(f);
	call(f, "POST", "/system/secrets", "{\"name\":\"key\",\"value\":\"hunter2\"}");
	call(f, "POST", "/system/functions", WEB);
	assert_status(&f->probe, 202);
	stop_node(f);
	assert_int_equal(unlinkat(f->dir, "secret-key", 0), 0);
	start_node(f);
	as_administrator(f);
	call(f, "GET", "/system/function/web", NULL);
	assert_reply_has(&f->probe, "set it again with: kiln secret update key");
	call(f, "PUT", "/system/secrets", "{\"name\":\"key\",\"value\":\"hunter2\"}");
	assert_status(&f->probe, 200);
	for (int i = 0; i < 200 && kn_engine_count(f->engine) < 1; i++)
		kn_loop_once(f->probe.loop, 10);
	assert_int_equal(kn_engine_count(f->engine), 1);
}

/* ---- what is started ----------------------------------------------------------------------- */

static struct kn_function *function_of(const char *text)
{
	struct kn_err err = KN_ERR_INIT;
	struct kn_function *fn = NULL;
	kn_auto(json_decref) json_t *o = NULL;

	assert_ok(kn_json_parse(kn_view_of(text), &o, &err), &err);
	assert_ok(kn_function_parse(o, &fn, &err), &err);
	assert_ok(kn_function_resolve(fn, false, &err), &err);
	return fn;
}

static void joined(const char *const *list, struct kn_buf *ret)
{
	kn_buf_clear(ret);
	for (size_t i = 0; list && list[i]; i++)
		kn_buf_printf(ret, "%s%s", i ? "|" : "", list[i]);
}

static void image_and_deployment_are_merged(void **state)
{
	(void)state;
	static const char *const argv[] = { "/app", "-v", NULL };
	static const char *const none[] = { NULL };
	static const char *const env[] = { "PATH=/bin", "A=1", "AB=2", NULL };
	static const struct {
		const char *more;
		bool no_argv;
		const char *argv, *env;   /* NULL: refused */
	} cases[] = {
		{ "", false, "/app|-v", "PATH=/bin|A=1|AB=2|PORT=8080" },
		{ ",\"envVars\":{\"A\":\"9\",\"NEW\":\"x=y\"}", false, "/app|-v",
		  "PATH=/bin|A=9|AB=2|PORT=8080|NEW=x=y" },
		{ ",\"envVars\":{\"PORT\":\"1\"}", false, "/app|-v", "PATH=/bin|A=1|AB=2|PORT=1" },
		{ ",\"annotations\":{\"kiln.port\":\"9000\"},\"envProcess\":\"run me\"", false, "/app|-v",
		  "PATH=/bin|A=1|AB=2|PORT=9000|fprocess=run me" },
		{ ",\"annotations\":{\"kiln.contract\":\"stdio\"}", false, "/app|-v",
		  "PATH=/bin|A=1|AB=2" },
		{ ",\"annotations\":{\"kiln.contract\":\"stdio\"},\"envProcess\":\" wc  -l \"", true,
		  "wc|-l", "PATH=/bin|A=1|AB=2|fprocess= wc  -l " },
		{ ",\"annotations\":{\"kiln.contract\":\"stdio\"},\"envProcess\":\"  \"", false, NULL, NULL },
		{ "", true, NULL, NULL },
		{ ",\"envProcess\":\"wc\"", true, NULL, NULL },
	};

	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_engine_image launch = { .path = NULL };
		const struct kn_image image = { .kind = KN_IMAGE_CONTAINER,
			                        .argv = cases[i].no_argv ? none : argv,
			                        .env = env,
			                        .cwd = "/srv",
			                        .user = "app" };
		char text[512];
		struct kn_arena arena;
		kn_auto(kn_buf_fini) struct kn_buf got = KN_BUF_INIT;

		snprintf(text, sizeof(text), "{\"service\":\"f\",\"image\":\"i\"%s}", cases[i].more);
		kn_auto(kn_function_unref) struct kn_function *fn = function_of(text);
		kn_arena_init(&arena);
		int r = launch_make(&arena, fn, &image, "/root.erofs", &launch, &err);
		if (!cases[i].argv) {
			assert_fails(r, EINVAL, &err, "names no program");
		} else {
			assert_ok(r, &err);
			joined(launch.argv, &got);
			assert_string_equal(got.ptr, cases[i].argv);
			joined(launch.env, &got);
			assert_string_equal(got.ptr, cases[i].env);
			assert_string_equal(launch.cwd, "/srv");
			assert_string_equal(launch.user, "app");
			assert_string_equal(launch.path, "/root.erofs");
		}
		kn_arena_fini(&arena);
	}
}

/* ---- restarts ------------------------------------------------------------------------------ */

static void functions_come_back_after_a_restart(void **state)
{
	struct fixture *f = *state;

	deploy(f);
	call(f, "GET", "/system/function/denoise", NULL);
	kn_auto(json_decref) json_t *before = probe_json(&f->probe);
	stop_node(f);
	start_node(f);
	as_administrator(f);
	assert_int_equal(kn_engine_count(f->engine), 1);
	call(f, "GET", "/system/function/denoise", NULL);
	assert_status(&f->probe, 200);
	kn_auto(json_decref) json_t *after = probe_json(&f->probe);
	assert_string_equal(member(before, "createdAt"), member(after, "createdAt"));
}

static void wait_ready(struct fixture *f, uint32_t n)
{
	struct kn_function_live live = { .ready = 0 };
	struct kn_err err = KN_ERR_INIT;

	for (int i = 0; i < 200 && live.ready != n; i++) {
		kn_loop_once(f->probe.loop, 10);
		assert_ok(kn_engine_live(f->engine, KN_VIEW("denoise"), false, &live, &err), &err);
	}
	assert_int_equal(live.ready, n);
}

static void update_that_never_gets_ready_is_taken_back(void **state)
{
	struct fixture *f = *state;

	deploy(f);
	import(f, "denoise:2", 'b');
	call(f, "POST", "/system/scale-function/denoise", "{\"replicas\":1}");
	wait_ready(f, 1);
	f->fake.boot_ns = 5 * KN_NS_PER_MS;
	f->fake.end_before_ready = "exited with code 3 before it was ready";
	call(f, "PUT", "/system/functions",
	     "{\"service\":\"denoise\",\"image\":\"denoise:2\","
	     "\"annotations\":{\"kiln.boot-timeout\":\"1ms\"}}");
	assert_status(&f->probe, 202);
	assert_reply_has(&f->probe, "\"image\":\"denoise:2\"");
	assert_reply_has(&f->probe, "\"update\":{\"state\":\"running\"}");
	call(f, "DELETE", "/kiln/v1/images?name=denoise:1", NULL);
	assert_status(&f->probe, 409); /* it serves */
	for (int i = 0; i < 200 && kn_engine_rolling(f->engine, KN_VIEW("denoise")); i++)
		kn_loop_once(f->probe.loop, 10);
	call(f, "GET", "/system/function/denoise", NULL);
	assert_reply_has(&f->probe, "\"image\":\"denoise:1\"");
	assert_reply_has(&f->probe, "\"state\":\"failed\"");
	assert_reply_has(&f->probe, "exited with code 3");
	assert_reply_has(&f->probe, "\"availableReplicas\":1");
	f->fake.end_before_ready = NULL;
	stop_node(f);
	start_node(f);
	as_administrator(f);
	call(f, "GET", "/system/function/denoise", NULL);
	assert_reply_has(&f->probe, "\"image\":\"denoise:1\"");
}

static void update_that_gets_ready_frees_the_image_before_it(void **state)
{
	struct fixture *f = *state;

	deploy(f);
	import(f, "denoise:2", 'b');
	call(f, "POST", "/system/scale-function/denoise", "{\"replicas\":1}");
	wait_ready(f, 1);
	call(f, "PUT", "/system/functions", "{\"service\":\"denoise\",\"image\":\"denoise:2\"}");
	assert_status(&f->probe, 202);
	for (int i = 0; i < 200 && kn_engine_rolling(f->engine, KN_VIEW("denoise")); i++)
		kn_loop_once(f->probe.loop, 10);
	call(f, "DELETE", "/kiln/v1/images?name=denoise:1", NULL);
	assert_int_equal(f->probe.status / 100, 2);
	call(f, "GET", "/system/function/denoise", NULL);
	assert_reply_has(&f->probe, "\"image\":\"denoise:2\"");
}

static void function_without_its_image_stays_and_says_why(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	deploy(f);
	stop_node(f);
	assert_ok(kn_remove_tree(f->dir, "images", &err), &err);
	start_node(f);
	as_administrator(f);
	assert_int_equal(kn_engine_count(f->engine), 0);
	call(f, "GET", "/system/function/denoise", NULL);
	assert_status(&f->probe, 200);
	assert_reply_has(&f->probe, "\"lastError\":");
	assert_reply_has(&f->probe, "denoise:1");
	const char *why = NULL;
	assert_true(kn_control_why_not(f->ctl, KN_VIEW("denoise"), &why));
	assert_non_null(strstr(why, "denoise:1"));
	assert_false(kn_control_why_not(f->ctl, KN_VIEW("denoise2"), &why));
	/* What was missing comes back: the function does, too. */
	import(f, "denoise:1", 'a');
	while (kn_control_restoring(f->ctl))
		assert_true(kn_loop_once(f->probe.loop, 100) >= 0);
	assert_int_equal(kn_engine_count(f->engine), 1);
	call(f, "DELETE", "/system/functions", "{\"functionName\":\"denoise\"}");
	assert_status(&f->probe, 202);
}

/* Neither the engine nor a restart knows of what was refused. */
static void full_disk_refuses_changes_and_nothing_changes(void **state)
{
	struct fixture *f = *state;
	static const struct {
		int code, status;
	} kinds[] = { { SQLITE_FULL, 507 }, { SQLITE_IOERR_WRITE, 503 } };

	deploy(f);
	for (size_t i = 0; i < KN_ARRAY_LEN(kinds); i++) {
		fault = (typeof(fault)){ .kind = FAULT_WRITE, .code = kinds[i].code, .lasting = true };
		call(f, "POST", "/system/functions", "{\"service\":\"two\",\"image\":\"denoise:1\"}");
		assert_status(&f->probe, kinds[i].status);
		assert_reply_has(&f->probe, "nothing was changed");
		call(f, "PUT", "/system/functions",
		     "{\"service\":\"denoise\",\"image\":\"denoise:1\",\"envVars\":{\"A\":\"b\"}}");
		assert_status(&f->probe, kinds[i].status);
		call(f, "DELETE", "/system/functions", "{\"functionName\":\"denoise\"}");
		assert_status(&f->probe, kinds[i].status);
		fault.kind = FAULT_NONE;
		for (int restarted = 0; restarted < 2; restarted++) {
			call(f, "GET", "/system/functions", NULL);
			kn_auto(json_decref) json_t *list = probe_json(&f->probe);
			assert_int_equal(json_array_size(list), 1);
			assert_null(strstr(f->probe.body, "\"A\""));
			assert_int_equal(kn_engine_count(f->engine), 1);
			stop_node(f);
			start_node(f);
			as_administrator(f);
		}
	}
	call(f, "POST", "/system/functions", "{\"service\":\"two\",\"image\":\"denoise:1\"}");
	assert_status(&f->probe, 202);
}

static void damaged_stored_function_stops_the_start(void **state)
{
	struct fixture *f = *state;
	struct kn_err err = KN_ERR_INIT;

	deploy(f);
	assert_ok(kn_store_put(f->store, KN_TABLE_FUNCTION, KN_VIEW("zz"), KN_VIEW("{"), NULL, NULL,
	                       &err),
	          &err);
	assert_ok(kn_store_sync(f->store, &err), &err);
	kn_http_server_free(f->server);
	kn_control_free(f->ctl);
	f->ctl = NULL;
	assert_fails(try_control(f, &err), EUCLEAN, &err, "function 'zz'");
	assert_ok(kn_store_delete(f->store, KN_TABLE_FUNCTION, KN_VIEW("zz"), NULL, NULL, &err), &err);
	assert_ok(kn_store_sync(f->store, &err), &err);
	assert_ok(try_control(f, &err), &err);
	start_server(f);
}

/* ---- images -------------------------------------------------------------------------------- */

static void image_lives_from_import_to_remove(void **state)
{
	struct fixture *f = *state;

	import(f, "denoise:1", 'a');
	kn_auto(json_decref) json_t *made = probe_json(&f->probe);
	assert_string_equal(member(made, "name"), "denoise:1");
	assert_string_equal(member(made, "kind"), "bare");
	call(f, "GET", "/kiln/v1/images", NULL);
	kn_auto(json_decref) json_t *list = probe_json(&f->probe);
	assert_int_equal(json_array_size(list), 1);
	assert_string_equal(member(json_array_get(list, 0), "digest"), member(made, "digest"));
	call(f, "DELETE", "/kiln/v1/images?name=denoise%3A1", NULL);
	assert_status(&f->probe, 204);
	call(f, "DELETE", "/kiln/v1/images/denoise:1", NULL);
	assert_status(&f->probe, 404);
	call(f, "DELETE", "/kiln/v1/images", NULL);
	assert_status(&f->probe, 400);
}

static void import_may_give_another_name(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf archive = KN_BUF_INIT;

	bare_archive(f, "denoise:1", 'a', &archive);
	probe_receive(&f->probe, send_bytes(f, "/kiln/v1/images?name=edge%2Fdenoise%3A2",
	                                    kn_buf_view(&archive), archive.len));
	assert_status(&f->probe, 201);
	assert_reply_has(&f->probe, "\"edge/denoise:2\"");
	call(f, "DELETE", "/kiln/v1/images/edge%2Fdenoise:2", NULL);
	assert_status(&f->probe, 204);
}

static void image_in_use_stays(void **state)
{
	struct fixture *f = *state;

	deploy(f);
	call(f, "DELETE", "/kiln/v1/images?name=denoise:1", NULL);
	assert_status(&f->probe, 409);
	assert_reply_has(&f->probe, "denoise");
	assert_reply_has(&f->probe, "kiln remove");
	call(f, "GET", "/kiln/v1/images", NULL);
	assert_reply_has(&f->probe, "\"usedBy\":\"denoise\"");
	call(f, "DELETE", "/system/functions", "{\"functionName\":\"denoise\"}");
	call(f, "DELETE", "/kiln/v1/images?name=denoise:1", NULL);
	assert_status(&f->probe, 204);
}

static void functions_follow_their_image(void **state)
{
	struct fixture *f = *state;

	deploy(f);
	call(f, "GET", "/kiln/v1/functions/denoise", NULL);
	kn_auto(json_decref) json_t *before = probe_json(&f->probe);
	import(f, "denoise:1", 'b');
	kn_auto(json_decref) json_t *image = probe_json(&f->probe);
	/* A worker looks at the program first: the import is answered before the function follows. */
	kn_auto(json_decref) json_t *after = NULL;
	for (int i = 0; i < 1000; i++) {
		json_decref(after);
		call(f, "GET", "/kiln/v1/functions/denoise", NULL);
		after = probe_json(&f->probe);
		if (strcmp(member(after, "imageDigest"), member(image, "digest")) == 0)
			break;
	}
	assert_string_not_equal(member(before, "imageDigest"), member(after, "imageDigest"));
	assert_string_equal(member(after, "imageDigest"), member(image, "digest"));
	assert_string_equal(member(before, "createdAt"), member(after, "createdAt"));
}

static int count_files(const char *path)
{
	char command[160];
	int n = -1;

	snprintf(command, sizeof(command), "find '%s' -type f | wc -l", path);
	FILE *p = popen(command, "re");
	assert_non_null(p);
	assert_int_equal(fscanf(p, "%d", &n), 1);
	pclose(p);
	return n;
}

static void bad_archives_are_refused_and_leave_nothing(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf archive = KN_BUF_INIT;

	bare_archive(f, "denoise:1", 'a', &archive);
	int before = count_files(f->path);
	static char noise[4096];
	memset(noise, 'n', sizeof(noise));
	const struct {
		struct kn_view body;
		const char *target;
		int status;
	} cases[] = {
		{ { noise, sizeof(noise) }, "/kiln/v1/images", 400 },
		{ { "", 0 }, "/kiln/v1/images", 400 },
		{ { archive.ptr, archive.len / 2 }, "/kiln/v1/images", 400 },
		{ kn_buf_view(&archive), "/kiln/v1/images?name=..%2F..%2Fx", 400 },
		{ kn_buf_view(&archive), "/kiln/v1/images?name=A%00", 400 },
		{ kn_buf_view(&archive), "/kiln/v1/images?name=", 400 },
	};
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		probe_receive(&f->probe, send_bytes(f, cases[i].target, cases[i].body,
		                                    cases[i].body.len));
		if (f->probe.status != cases[i].status)
			fail_msg("case %zu: %s", i, f->probe.reply.ptr);
		assert_reply_has(&f->probe, "\"error\"");
	}
	assert_int_equal(count_files(f->path), before);
	call(f, "GET", "/kiln/v1/images", NULL);
	assert_reply_has(&f->probe, "[]");
}

static void archive_that_is_too_large_is_refused_unread(void **state)
{
	struct fixture *f = *state;

	probe_receive(&f->probe, send_bytes(f, "/kiln/v1/images", KN_VIEW("x"), 2 << 20));
	assert_status(&f->probe, 413);
	/* Room on a disk is limited, too; this much nobody has. */
	probe_receive(&f->probe,
	              send_bytes(f, "/kiln/v1/images", KN_VIEW("x"), (size_t)1 << 60));
	assert_status(&f->probe, 413);
}

static void uploads_that_break_off_free_their_place(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 12; i++) {
		int fd = send_bytes(f, "/kiln/v1/images", KN_VIEW("half of"), 1000);
		for (int k = 0; k < 3; k++)
			kn_loop_once(f->probe.loop, 1);
		close(fd);
		for (int k = 0; k < 3; k++)
			kn_loop_once(f->probe.loop, 1);
	}
	import(f, "denoise:1", 'a');
}

static void uploads_at_once_are_bounded(void **state)
{
	struct fixture *f = *state;
	enum { N = 4 };
	int fds[N];

	for (int i = 0; i < N; i++) {
		fds[i] = send_bytes(f, "/kiln/v1/images", KN_VIEW("half of"), 1000);
		for (int k = 0; k < 3; k++)
			kn_loop_once(f->probe.loop, 1);
	}
	probe_receive(&f->probe, send_bytes(f, "/kiln/v1/images", KN_VIEW("x"), 1));
	assert_status(&f->probe, 429);
	for (int i = 0; i < N; i++)
		close(fds[i]);
	for (int k = 0; k < 10; k++)
		kn_loop_once(f->probe.loop, 1);
	import(f, "denoise:1", 'a');
}

static void imports_at_once_take_turns(void **state)
{
	struct fixture *f = *state;
	enum { N = 4 };
	static struct kn_buf archives[N];
	char name[16];
	int fds[N];

	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "image%d:1", i);
		bare_archive(f, name, (char)('a' + i), &archives[i]);
	}
	for (int i = 0; i < N; i++)
		fds[i] = send_bytes(f, "/kiln/v1/images", kn_buf_view(&archives[i]), archives[i].len);
	for (int i = 0; i < N; i++) {
		probe_receive(&f->probe, fds[i]);
		assert_status(&f->probe, 201);
		kn_buf_fini(&archives[i]);
	}
	call(f, "GET", "/kiln/v1/images", NULL);
	kn_auto(json_decref) json_t *list = probe_json(&f->probe);
	assert_int_equal(json_array_size(list), N);
}

/* The node ends while imports run and wait: each gives up, nothing is left behind. */
static void ending_node_gives_up_imports(void **state)
{
	struct fixture *f = *state;
	kn_auto(kn_buf_fini) struct kn_buf archive = KN_BUF_INIT;
	enum { N = 3 };
	int fds[N];

	bare_archive(f, "denoise:1", 'a', &archive);
	for (int i = 0; i < N; i++)
		fds[i] = send_bytes(f, "/kiln/v1/images", kn_buf_view(&archive), archive.len);
	for (int i = 0; i < 3; i++)
		kn_loop_once(f->probe.loop, 0);
	stop_node(f);
	for (int i = 0; i < N; i++)
		close(fds[i]);
	start_node(f);
	as_administrator(f);
	import(f, "denoise:1", 'a');
}

/* ---- logs ---------------------------------------------------------------------------------- */

static void start_instance(struct fixture *f)
{
	import(f, "denoise:1", 'a');
	call(f, "POST", "/system/functions",
	     "{\"service\":\"denoise\",\"image\":\"denoise:1\","
	     "\"labels\":{\"com.openfaas.scale.min\":\"1\"}}");
	assert_status(&f->probe, 202);
	for (int i = 0; i < 100 && !f->fake.newest; i++)
		kn_loop_once(f->probe.loop, 10);
	assert_non_null(f->fake.newest);
}

static void logs_are_lines_of_json(void **state)
{
	struct fixture *f = *state;

	start_instance(f);
	kn_fake_print(f->fake.newest, KN_STDOUT, "one");
	kn_fake_print(f->fake.newest, KN_STDERR, "two \"quoted\"");
	kn_fake_print(f->fake.newest, KN_STDOUT, "not \xff text");
	call(f, "GET", "/system/logs?name=denoise", NULL);
	assert_status(&f->probe, 200);
	assert_reply_has(&f->probe, "application/x-ndjson");
	assert_reply_has(&f->probe, "\"text\":\"one\"");
	assert_reply_has(&f->probe, "\"text\":\"two \\\"quoted\\\"\"");
	assert_reply_has(&f->probe, "not UTF-8");
	call(f, "GET", "/system/logs?name=denoise&tail=2", NULL);
	assert_null(strstr(f->probe.body, "\"one\""));
	call(f, "GET", "/system/logs?name=denoise&tail=-1&since=2099-01-01T00:00:00Z", NULL);
	assert_status(&f->probe, 200);
	assert_string_equal(f->probe.body, "");
	call(f, "GET", "/system/logs?name=denoise&instance=none", NULL);
	assert_string_equal(f->probe.body, "");
}

static void bad_log_requests_are_refused(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *target;
		int status;
	} cases[] = {
		{ "/system/logs", 400 },
		{ "/system/logs?name=", 400 },
		{ "/system/logs?name=nobody", 404 },
		{ "/system/logs?name=denoise&tail=x", 400 },
		{ "/system/logs?name=denoise&since=yesterday", 400 },
		{ "/system/logs?name=denoise&instance=%zz", 400 },
		{ "/system/logs?name=denoise&instance="
		  "0123456789012345678901234567890123456789012345678901234567890123456789",
		  400 },
	};

	deploy(f);
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		if (call(f, "GET", cases[i].target, NULL) != cases[i].status)
			fail_msg("%s: %s", cases[i].target, f->probe.reply.ptr);
	}
}

static int follow(struct fixture *f)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	kn_buf_printf(&text,
	              "GET /system/logs?name=denoise&follow=1 HTTP/1.1\r\nHost: x\r\n"
	              "Connection: close\r\nAuthorization: %s\r\n\r\n",
	              f->authorization);
	int fd = probe_send(&f->probe, text.ptr, text.len);
	for (int i = 0; i < 5; i++)
		kn_loop_once(f->probe.loop, 1);
	return fd;
}

static void followed_logs_go_on_until_the_function_ends(void **state)
{
	struct fixture *f = *state;

	start_instance(f);
	kn_fake_print(f->fake.newest, KN_STDOUT, "before");
	int fd = follow(f);
	kn_fake_print(f->fake.newest, KN_STDOUT, "after");
	call(f, "DELETE", "/system/functions", "{\"functionName\":\"denoise\"}");
	assert_status(&f->probe, 202);
	probe_receive(&f->probe, fd);
	assert_status(&f->probe, 200);
	assert_reply_has(&f->probe, "\"before\"");
	assert_reply_has(&f->probe, "\"after\"");
}

static void reader_that_leaves_is_forgotten(void **state)
{
	struct fixture *f = *state;

	start_instance(f);
	int fd = follow(f);
	close(fd);
	for (int i = 0; i < 5; i++)
		kn_loop_once(f->probe.loop, 1);
	kn_fake_print(f->fake.newest, KN_STDOUT, "to nobody");
	call(f, "GET", "/system/logs?name=denoise", NULL);
	assert_reply_has(&f->probe, "to nobody");
}

static void reader_that_does_not_read_is_cut_off(void **state)
{
	struct fixture *f = *state;
	char line[4000];

	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = 0;
	start_instance(f);
	int fd = follow(f);
	for (int i = 0; i < 3000; i++) {
		kn_fake_print(f->fake.newest, KN_STDOUT, line);
		kn_loop_once(f->probe.loop, 0);
	}
	probe_receive(&f->probe, fd);
	assert_true(f->probe.reply.len < 3000 * sizeof(line));
	call(f, "GET", "/healthz", NULL);
	assert_status(&f->probe, 200);
}

/* ---- the node ------------------------------------------------------------------------------ */

static void node_tells_about_itself(void **state)
{
	struct fixture *f = *state;

	call(f, "GET", "/system/info", NULL);
	kn_auto(json_decref) json_t *info = probe_json(&f->probe);
	assert_string_equal(member(json_object_get(info, "provider"), "provider"), "kiln");
	assert_non_null(json_object_get(info, "arch"));
	call(f, "GET", "/kiln/v1/doctor", NULL);
	assert_reply_has(&f->probe, "fit for tests");
	deploy(f);
	call(f, "GET", "/metrics", NULL);
	assert_status(&f->probe, 200);
	assert_reply_has(&f->probe, "gateway_service_count");
}

static void clients_are_the_administrators_business(void **state)
{
	struct fixture *f = *state;
	char target[128], text[256];

	call(f, "POST", "/kiln/v1/clients",
	     "{\"description\":\"field gateway\",\"scope\":\"function:invoke function:read\"}");
	assert_status(&f->probe, 201);
	kn_auto(json_decref) json_t *made = probe_json(&f->probe);
	call(f, "GET", "/kiln/v1/clients", NULL);
	assert_reply_has(&f->probe, "field gateway");
	assert_null(strstr(f->probe.body, member(made, "client_secret")));

	kn_auto(kn_buf_fini) struct kn_buf basic = KN_BUF_INIT;
	int n = snprintf(text, sizeof(text), "%s:%s", member(made, "client_id"),
	                 member(made, "client_secret"));
	kn_base64(&basic, text, (size_t)n);
	snprintf(f->authorization, sizeof(f->authorization), "Basic %s", basic.ptr);
	call(f, "GET", "/system/functions", NULL);
	assert_status(&f->probe, 200);
	call(f, "GET", "/kiln/v1/clients", NULL);
	assert_status(&f->probe, 403);

	as_administrator(f);
	snprintf(target, sizeof(target), "/kiln/v1/clients/%s", member(made, "client_id"));
	call(f, "DELETE", target, NULL);
	assert_status(&f->probe, 204);
	call(f, "DELETE", target, NULL);
	assert_status(&f->probe, 404);
	call(f, "DELETE", "/kiln/v1/clients/admin", NULL);
	assert_status(&f->probe, 409);
	call(f, "POST", "/kiln/v1/clients", "{\"scope\":\"function:reed\"}");
	assert_status(&f->probe, 400);
	call(f, "POST", "/kiln/v1/clients", "{\"scope\":\"\"}");
	assert_status(&f->probe, 400);
	call(f, "POST", "/kiln/v1/clients", "{}");
	assert_status(&f->probe, 400);
}

int main(void)
{
	struct kn_log_config quiet = KN_LOG_DEFAULTS;
	quiet.level = KN_ERROR;
	kn_log_setup(&quiet);
	install_faulty_vfs();
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(only_open_paths_need_no_caller),
		CASE(each_path_has_its_scope),
		CASE(paths_and_methods_are_checked),
		CASE(document_agrees_with_the_routes),
		CASE(function_lives_from_deploy_to_remove),
		CASE(create_and_update_know_what_exists),
		CASE(bad_deployments_say_what_to_do),
		CASE(bad_removals_say_what_to_send),
		CASE(other_namespaces_are_unknown),
		CASE(class_without_a_driver_is_refused_with_its_reason),
		CASE(scaling_keeps_instances),
		CASE(container_image_gets_its_root_file_system_at_deploy),
		cmocka_unit_test(image_and_deployment_are_merged),
		CASE(secrets_are_set_listed_and_removed),
		CASE(function_gets_its_secrets_as_files),
		CASE(secret_that_is_set_anew_reaches_new_instances),
		CASE(function_whose_secret_is_lost_comes_back_with_it),
		CASE(functions_come_back_after_a_restart),
		CASE(update_that_never_gets_ready_is_taken_back),
		CASE(update_that_gets_ready_frees_the_image_before_it),
		CASE(function_without_its_image_stays_and_says_why),
		CASE(full_disk_refuses_changes_and_nothing_changes),
		CASE(damaged_stored_function_stops_the_start),
		CASE(image_lives_from_import_to_remove),
		CASE(import_may_give_another_name),
		CASE(image_in_use_stays),
		CASE(functions_follow_their_image),
		CASE(bad_archives_are_refused_and_leave_nothing),
		CASE(archive_that_is_too_large_is_refused_unread),
		CASE(uploads_that_break_off_free_their_place),
		CASE(uploads_at_once_are_bounded),
		CASE(imports_at_once_take_turns),
		CASE(ending_node_gives_up_imports),
		CASE(logs_are_lines_of_json),
		CASE(bad_log_requests_are_refused),
		CASE(followed_logs_go_on_until_the_function_ends),
		CASE(reader_that_leaves_is_forgotten),
		CASE(reader_that_does_not_read_is_cut_off),
		CASE(node_tells_about_itself),
		CASE(clients_are_the_administrators_business),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
