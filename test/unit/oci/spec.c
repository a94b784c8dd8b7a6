#include "oci/spec.h"

#include "test.h"

#define A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define DESC(type, digest) "{\"mediaType\":\"" type "\",\"digest\":\"" digest "\",\"size\":7}"

static struct kn_arena arena;

static int setup(void **state)
{
	(void)state;
	kn_arena_init(&arena);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kn_arena_fini(&arena);
	return 0;
}

static void index_lists_platforms_and_names(void **state)
{
	static const char json[] =
		"{\"schemaVersion\":2,\"mediaType\":\"" KN_TYPE_INDEX "\",\"later\":{\"x\":[1]},"
		"\"manifests\":[{\"mediaType\":\"" KN_TYPE_MANIFEST "\",\"digest\":\"" A "\","
		"\"size\":12,\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\","
		"\"variant\":\"v8\",\"os.version\":\"1\"},\"annotations\":{"
		"\"org.opencontainers.image.ref.name\":\"x:1\"},\"data\":\"aGk=\"},"
		"{\"mediaType\":\"" KN_TYPE_DOCKER_LIST "\",\"digest\":\"" B "\",\"size\":0}]}";
	struct kn_err err = KN_ERR_INIT;
	struct kn_index index;

	(void)state;
	assert_ok(kn_spec_index(KN_VIEW(json), &arena, &index, &err), &err);
	assert_int_equal(index.n_manifests, 2);
	const struct kn_descriptor *d = &index.manifests[0];
	assert_string_equal(d->digest.text, A);
	assert_int_equal(d->bytes, 12);
	assert_string_equal(d->platform.os, "linux");
	assert_string_equal(d->platform.architecture, "arm64");
	assert_string_equal(d->platform.variant, "v8");
	assert_string_equal(kn_spec_pair(&d->annotations, "org.opencontainers.image.ref.name"),
	                    "x:1");
	assert_null(kn_spec_pair(&d->annotations, "other"));
	assert_int_equal(kn_media_of(index.manifests[1].media_type), KN_MEDIA_INDEX);
	assert_null(index.manifests[1].platform.os);
}

static void manifest_of_oci_and_of_docker_read_alike(void **state)
{
	static const char *const jsons[] = {
		"{\"schemaVersion\":2,\"mediaType\":\"" KN_TYPE_MANIFEST "\",\"config\":"
		DESC(KN_TYPE_CONFIG, A) ",\"layers\":[" DESC(KN_TYPE_LAYER_ZSTD, B) "]}",
		"{\"schemaVersion\":2,\"mediaType\":\"" KN_TYPE_DOCKER_MANIFEST "\",\"config\":"
		DESC(KN_TYPE_DOCKER_CONFIG, A) ",\"layers\":[" DESC(KN_TYPE_DOCKER_LAYER, B) "]}",
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(jsons); i++) {
		struct kn_err err = KN_ERR_INIT;
		struct kn_manifest m;
		assert_ok(kn_spec_manifest(kn_view_of(jsons[i]), &arena, &m, &err), &err);
		assert_int_equal(kn_media_of(m.config.media_type), KN_MEDIA_CONFIG);
		assert_int_equal(m.n_layers, 1);
		assert_int_equal(kn_media_of(m.layers[0].media_type), KN_MEDIA_LAYER);
		assert_false(kn_manifest_is_bare(&m));
	}
}

static void bare_artifacts_are_known_by_type(void **state)
{
	static const char json[] =
		"{\"schemaVersion\":2,\"artifactType\":\"" KN_TYPE_BARE "\",\"config\":"
		DESC("application/vnd.oci.empty.v1+json", A) ",\"layers\":[" DESC(KN_TYPE_BARE_ELF, B)
		"]}";
	struct kn_err err = KN_ERR_INIT;
	struct kn_manifest m;

	(void)state;
	assert_ok(kn_spec_manifest(KN_VIEW(json), &arena, &m, &err), &err);
	assert_true(kn_manifest_is_bare(&m));
	assert_int_equal(kn_media_of(m.layers[0].media_type), KN_MEDIA_BARE_ELF);
}

static void config_gives_what_the_runtime_needs(void **state)
{
	static const char json[] =
		"{\"architecture\":\"amd64\",\"os\":\"linux\",\"created\":\"2026-01-01T00:00:00Z\","
		"\"history\":[{\"created_by\":\"x\"}],\"config\":{\"User\":\"app:app\","
		"\"Env\":[\"PATH=/bin\",\"A=\"],\"Entrypoint\":[\"/bin/x\"],\"Cmd\":[\"-y\",\"z\"],"
		"\"WorkingDir\":\"/w\",\"StopSignal\":\"SIGINT\",\"Volumes\":{\"/v\":{}},"
		"\"ExposedPorts\":{\"8080/tcp\":{},\"53/udp\":{}},\"Labels\":{\"a\":\"b\"}},"
		"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" A "\",\"" B "\"]}}";
	struct kn_err err = KN_ERR_INIT;
	struct kn_image_config c;

	(void)state;
	assert_ok(kn_spec_config(KN_VIEW(json), &arena, &c, &err), &err);
	assert_string_equal(c.platform.architecture, "amd64");
	assert_string_equal(c.user, "app:app");
	assert_string_equal(c.cwd, "/w");
	assert_string_equal(c.stop_signal, "SIGINT");
	assert_int_equal(c.env.n, 2);
	assert_string_equal(c.env.at[1], "A=");
	assert_null(c.env.at[2]);
	assert_string_equal(c.entrypoint.at[0], "/bin/x");
	assert_int_equal(c.cmd.n, 2);
	assert_null(c.cmd.at[2]);
	assert_int_equal(c.exposed_ports.n, 2);
	assert_string_equal(kn_spec_pair(&c.labels, "a"), "b");
	assert_int_equal(c.n_diff_ids, 2);
	assert_string_equal(c.diff_ids[1].text, B);
}

static void nulls_and_absence_mean_nothing(void **state)
{
	static const char json[] =
		"{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":null,"
		"\"Entrypoint\":null,\"Labels\":null,\"User\":null,\"ExposedPorts\":null}}";
	struct kn_err err = KN_ERR_INIT;
	struct kn_image_config c;

	(void)state;
	assert_ok(kn_spec_config(KN_VIEW(json), &arena, &c, &err), &err);
	assert_int_equal(c.env.n, 0);
	assert_null(c.env.at[0]);
	assert_null(c.user);
	assert_ok(kn_spec_config(KN_VIEW("{}"), &arena, &c, &err), &err);
	assert_int_equal(c.entrypoint.n, 0);
	assert_int_equal(c.n_diff_ids, 0);
}

enum document { INDEX, MANIFEST, CONFIG };

static int parse(enum document kind, struct kn_view json, struct kn_err *err)
{
	struct kn_index index;
	struct kn_manifest manifest;
	struct kn_image_config config;

	switch (kind) {
	case INDEX:
		return kn_spec_index(json, &arena, &index, err);
	case MANIFEST:
		return kn_spec_manifest(json, &arena, &manifest, err);
	case CONFIG:
		return kn_spec_config(json, &arena, &config, err);
	}
	return -EINVAL;
}

static void wrong_documents_are_refused(void **state)
{
	static const struct {
		enum document kind;
		const char *json, *says;
	} cases[] = {
		{ INDEX, "", "image index" },
		{ INDEX, "[]", "must be a JSON object" },
		{ INDEX, "{\"schemaVersion\":2}", "manifests" },
		{ INDEX, "{\"schemaVersion\":1,\"manifests\":[]}", "schemaVersion must be 2" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":{}}", "manifests" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[7]}", "manifests" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[],\"layers\":[]}", "index or manifest" },
		{ INDEX, "{\"schemaVersion\":2,\"mediaType\":\"" KN_TYPE_MANIFEST
		         "\",\"manifests\":[]}", "does not fit" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[{\"size\":1}]}", "digest" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"" A "\"}]}", "size" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"" A "\",\"size\":-1}]}",
		  "size" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"" A
		         "\",\"size\":9223372036854775807}]}", "size" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"" A "\",\"size\":1.5}]}",
		  "size" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"x\",\"size\":1}]}",
		  "not a digest" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"" A
		         "\",\"size\":1,\"annotations\":{\"a\":1}}]}", "must be a string" },
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"" A
		         "\",\"size\":1,\"platform\":\"linux\"}]}", "platform" },
		{ MANIFEST, "{\"schemaVersion\":2,\"layers\":[]}", "config" },
		{ MANIFEST, "{\"schemaVersion\":2,\"config\":7,\"layers\":[]}", "config" },
		{ MANIFEST, "{\"schemaVersion\":2,\"config\":" DESC("", A) "}", "layers" },
		{ MANIFEST, "{\"schemaVersion\":2,\"config\":" DESC("", A)
		            ",\"layers\":[],\"manifests\":[]}", "index or manifest" },
		{ MANIFEST, "{\"schemaVersion\":1,\"name\":\"x\",\"config\":{},\"layers\":[]}",
		  "schemaVersion" },
		{ CONFIG, "{\"config\":[]}", "config" },
		{ CONFIG, "{\"config\":{\"Env\":\"A=1\"}}", "Env" },
		{ CONFIG, "{\"config\":{\"Env\":[1]}}", "strings only" },
		{ CONFIG, "{\"config\":{\"Labels\":[]}}", "Labels" },
		{ CONFIG, "{\"config\":{\"User\":7}}", "User" },
		{ CONFIG, "{\"config\":{\"User\":\"a\\u0000b\"}}", "image config" },
		{ CONFIG, "{\"rootfs\":{\"type\":\"disk\"}}", "must be 'layers'" },
		{ CONFIG, "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[1]}}", "diff_ids" },
		{ CONFIG, "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"md5:0\"]}}", "diff_ids" },
		{ CONFIG, "{\"os\":[]}", "os" },
		{ CONFIG, "{} trailing", "image config" },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		struct kn_err err = KN_ERR_INIT;
		int r = parse(cases[i].kind, kn_view_of(cases[i].json), &err);
		if (r >= 0)
			fail_msg("taken: %s", cases[i].json);
		if (!strstr(err.text, cases[i].says))
			fail_msg("%s: '%s' does not say '%s'", cases[i].json, err.text,
			         cases[i].says);
	}
}

static void add_many(struct kn_buf *b, const char *before, const char *one, size_t n,
                     const char *after)
{
	kn_buf_adds(b, before);
	for (size_t i = 0; i < n; i++)
		kn_buf_printf(b, "%s%s", i ? "," : "", one);
	kn_buf_adds(b, after);
}

static void sizes_have_limits(void **state)
{
	static const struct {
		enum document kind;
		const char *before, *one, *after;
		size_t n;
	} cases[] = {
		{ INDEX, "{\"schemaVersion\":2,\"manifests\":[", DESC("", A), "]}",
		  KN_SPEC_MAX_MANIFESTS },
		{ MANIFEST, "{\"schemaVersion\":2,\"config\":" DESC("", A) ",\"layers\":[",
		  DESC("", A), "]}", KN_SPEC_MAX_LAYERS },
		{ CONFIG, "{\"config\":{\"Env\":[", "\"A=1\"", "]}}", KN_SPEC_MAX_STRINGS },
		{ CONFIG, "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[", "\"" A "\"", "]}}",
		  KN_SPEC_MAX_LAYERS },
	};

	(void)state;
	for (size_t i = 0; i < KN_ARRAY_LEN(cases); i++) {
		for (size_t over = 0; over < 2; over++) {
			struct kn_err err = KN_ERR_INIT;
			kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
			add_many(&b, cases[i].before, cases[i].one, cases[i].n + over,
			         cases[i].after);
			int r = parse(cases[i].kind, kn_buf_view(&b), &err);
			if (over)
				assert_fails(r, EINVAL, &err, "at most");
			else
				assert_ok(r, &err);
		}
	}
}

static void long_texts_are_refused(void **state)
{
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	struct kn_err err = KN_ERR_INIT;

	(void)state;
	kn_buf_adds(&b, "{\"config\":{\"WorkingDir\":\"/");
	for (int i = 0; i < KN_SPEC_MAX_TEXT; i++)
		kn_buf_adds(&b, "a");
	kn_buf_adds(&b, "\"}}");
	assert_fails(parse(CONFIG, kn_buf_view(&b), &err), EINVAL, &err, "longer than");
}

static void descriptor_survives_writing(void **state)
{
	struct kn_spec_pair note = { "n", "v" };
	struct kn_descriptor d = { .media_type = KN_TYPE_MANIFEST,
		                   .digest = { A },
		                   .bytes = 99,
		                   .artifact_type = KN_TYPE_BARE,
		                   .platform = { "linux", "amd64", NULL },
		                   .annotations = { &note, 1 } };
	struct kn_err err = KN_ERR_INIT;
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;
	kn_auto(json_decref) json_t *json = kn_spec_descriptor_json(&d);
	struct kn_index index;

	(void)state;
	kn_buf_adds(&b, "{\"schemaVersion\":2,\"manifests\":[");
	kn_json_print(&b, json, 0);
	kn_buf_adds(&b, "]}");
	assert_ok(kn_spec_index(kn_buf_view(&b), &arena, &index, &err), &err);
	assert_string_equal(index.manifests[0].artifact_type, KN_TYPE_BARE);
	assert_string_equal(index.manifests[0].platform.architecture, "amd64");
	assert_string_equal(kn_spec_pair(&index.manifests[0].annotations, "n"), "v");
	assert_int_equal(index.manifests[0].bytes, 99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(index_lists_platforms_and_names),
		cmocka_unit_test(manifest_of_oci_and_of_docker_read_alike),
		cmocka_unit_test(bare_artifacts_are_known_by_type),
		cmocka_unit_test(config_gives_what_the_runtime_needs),
		cmocka_unit_test(nulls_and_absence_mean_nothing),
		cmocka_unit_test(wrong_documents_are_refused),
		cmocka_unit_test(sizes_have_limits),
		cmocka_unit_test(long_texts_are_refused),
		cmocka_unit_test(descriptor_survives_writing),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
