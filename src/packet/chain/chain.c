/*
 * From a file to a pipeline: the pool, then stage by stage. A port is opened when the stage that
 * uses it is read, since that says in which direction.
 */
#include "packet/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/conf.h"
#include "base/fd.h"
#include "packet/chain/read.h"

enum { CONFIG_MAX = 1 << 20, PORTS_MAX = 2 };

struct kn_chain {
	struct kn_pipeline *pipeline;
	struct kn_pool *pool;
	struct kn_port *ports[PORTS_MAX]; /* the receiving and the sending one */
	uint32_t rules;
	size_t stages;
};

/* One load. */
struct load {
	const struct kn_chain_config *config;
	struct kn_chain *chain;
	struct place root;
};

void kn_chain_free(struct kn_chain *chain)
{
	if (!chain)
		return;
	kn_pipeline_free(chain->pipeline);
	for (int i = 0; i < PORTS_MAX; i++)
		kn_port_close(chain->ports[i]);
	kn_pool_free(chain->pool);
	free(chain);
}

struct kn_pipeline *kn_chain_pipeline(struct kn_chain *chain)
{
	return chain->pipeline;
}

uint32_t kn_chain_rules(const struct kn_chain *chain)
{
	return chain->rules;
}

size_t kn_chain_stages(const struct kn_chain *chain)
{
	return chain->stages;
}

int kn_chain_port_parse(const char *text, struct kn_chain_port *ret, struct kn_err *err)
{
	struct kn_view spec = kn_view_of(text), name;

	if (!kn_view_split(&spec, '=', &name) || !spec.ptr || !name.len || !spec.len)
		return kn_fail(err, EINVAL, "'%s' is no port: write NAME=pcap:FILE or NAME=null",
			       text);
	*ret = (struct kn_chain_port){ .name = name, .spec = spec };
	return 0;
}

/* A file name of the configuration, as seen from where we run. */
static char *beside_config(const struct load *l, struct kn_view file)
{
	char *path = NULL, *copy = strdup(l->config->path);

	if (!copy)
		return NULL;
	bool absolute = file.len && (file.ptr[0] == '/' || kn_view_is(file, KN_VIEW("-")));
	if (asprintf(&path, "%s%s%.*s", absolute ? "" : dirname(copy), absolute ? "" : "/",
		     (int)file.len, file.ptr) < 0)
		path = NULL;
	free(copy);
	return path;
}

/* What the port is today: the command line's word, then the file's. */
static int port_spec(const struct load *l, const struct place *p, const char *name,
		     struct kn_view *ret, bool *ret_given, struct kn_err *err)
{
	for (size_t i = 0; i < l->config->n_ports; i++) {
		if (kn_view_is(l->config->ports[i].name, kn_view_of(name))) {
			*ret = l->config->ports[i].spec;
			*ret_given = true;
			return 0;
		}
	}
	*ret_given = false;
	if (!json_is_string(p->value) && !json_is_null(p->value))
		return kn_wrong(p, err, "must be pcap:FILE or null");
	*ret = kn_view_of(json_is_null(p->value) ? "null" : json_string_value(p->value));
	return 0;
}

static int open_pcap(struct load *l, struct kn_view file, bool given, bool receives,
		     struct kn_port **ret, struct kn_err *err)
{
	kn_auto(kn_free) char *path = given ? strndup(file.ptr, file.len) : beside_config(l, file);

	if (!path)
		return kn_fail(err, ENOMEM, "no memory for a file name");
	return receives ? kn_port_pcap_read(path, l->chain->pool, ret, err)
			: kn_port_pcap_write(path, ret, err);
}

static int open_port(struct load *l, const struct place *p, const char *name, bool receives,
		     struct kn_port **ret, struct kn_err *err)
{
	struct kn_view spec, kind;
	bool given;

	int r = port_spec(l, p, name, &spec, &given, err);
	if (r < 0)
		return r;
	struct kn_view file = spec;
	bool is_pcap = kn_view_split(&file, ':', &kind) && kn_view_is(kind, KN_VIEW("pcap")) &&
		       file.ptr && file.len;
	if (!is_pcap && !kn_view_is(spec, KN_VIEW("null")))
		return kn_wrong(p, err, "'%.*s' is no port: pcap:FILE, or null", (int)spec.len,
				spec.ptr);
	if (is_pcap && !l->config->dry)
		r = open_pcap(l, file, given, receives, ret, err);
	else
		r = kn_port_null_new(ret, err);
	if (r < 0 && !given)
		return kn_wrong_inside(p, err);
	if (r < 0)
		return r;
	kn_port_rename(*ret, name);
	return 0;
}

/* The port that a receive or send stage names. */
static int named_port(struct load *l, const struct place *stage, bool receives,
		      struct kn_port **ret, struct kn_err *err)
{
	const char *name = json_string_value(stage->value);
	struct place ports = kn_member(&l->root, "ports");
	struct kn_port **slot = &l->chain->ports[receives ? 0 : 1];

	if (!name)
		return kn_wrong(stage, err, "must be the name of a port");
	struct place p = kn_member(&ports, name);
	if (!p.value)
		return kn_wrong(stage, err, "there is no port '%s' under 'ports'", name);
	if (*slot)
		return kn_wrong(stage, err, "a chain %s once",
				receives ? "receives from one port," : "sends to one port,");
	int r = open_port(l, &p, name, receives, slot, err);
	if (r == 0)
		*ret = *slot;
	return r;
}

/* A stage was made, if made is 0: put it in, or tell where it stands wrong. */
static int add(struct load *l, const struct place *p, int made, struct kn_stage **stage,
	       struct kn_err *err)
{
	int r = made < 0 ? made : kn_pipeline_add(l->chain->pipeline, *stage, err);

	if (made == 0 && r < 0)
		kn_stage_free(*stage);
	if (r < 0)
		return kn_wrong_inside(p, err);
	l->chain->stages++;
	return 0;
}

static int receive(struct load *l, const struct place *p, struct kn_err *err)
{
	struct kn_stage *stage;
	struct kn_port *port = NULL;

	int r = named_port(l, p, true, &port, err);
	return r < 0 ? r : add(l, p, kn_stage_receive(port, &stage, err), &stage, err);
}

static int send(struct load *l, const struct place *p, struct kn_err *err)
{
	struct kn_stage *stage;
	struct kn_port *port = NULL;

	int r = named_port(l, p, false, &port, err);
	return r < 0 ? r : add(l, p, kn_stage_send(port, &stage, err), &stage, err);
}

static int parse(struct load *l, const struct place *p, struct kn_err *err)
{
	static const char *const keys[] = { "verify_checksum" };
	struct kn_parse_options options = { .verify_ipv4_checksum = false };
	struct kn_stage *stage;

	if (!json_is_null(p->value)) {
		int r = kn_known_keys(p, keys, KN_ARRAY_LEN(keys), err);
		if (r < 0)
			return r;
		struct place verify = kn_member(p, keys[0]);
		if (verify.value && !json_is_boolean(verify.value))
			return kn_wrong(&verify, err, "must be true or false");
		options.verify_ipv4_checksum = json_is_true(verify.value);
	}
	return add(l, p, kn_stage_parse(&options, &stage, err), &stage, err);
}

/* What a stage is called in reports: its `name`, which may be missing. */
static int stage_name(const struct place *p, const char **ret, struct kn_err *err)
{
	struct place name = kn_member(p, "name");

	*ret = json_string_value(name.value);
	if (name.value && (!*ret || !**ret || strlen(*ret) > KN_STAGE_NAME_MAX))
		return kn_wrong(&name, err, "must be a name of 1 to %d characters",
				KN_STAGE_NAME_MAX);
	return 0;
}

/* Own acl until the stage does. */
static int add_listed(struct load *l, const struct place *p, const char *name, struct kn_acl *acl,
		      int (*make)(const char *, struct kn_acl *, struct kn_stage **,
				  struct kn_err *),
		      struct kn_err *err)
{
	struct kn_stage *stage;
	int r = make(name, acl, &stage, err);

	if (r < 0)
		kn_acl_free(acl);
	return add(l, p, r, &stage, err);
}

static int acl(struct load *l, const struct place *p, struct kn_err *err)
{
	struct kn_acl *list = NULL;
	const char *name = NULL;

	int r = kn_read_acl(p, &list, err);
	if (r == 0)
		l->chain->rules += kn_acl_size(list);
	if (r == 0 && (r = stage_name(p, &name, err)) < 0)
		kn_acl_free(list);
	return r < 0 ? r : add_listed(l, p, name, list, kn_stage_acl, err);
}

static int filter(struct load *l, const struct place *p, struct kn_err *err)
{
	struct kn_acl *one = NULL;
	const char *name = NULL;

	int r = kn_read_single(p, &one, err);
	if (r == 0 && (r = stage_name(p, &name, err)) < 0)
		kn_acl_free(one);
	return r < 0 ? r : add_listed(l, p, name, one, kn_stage_filter, err);
}

/* `count: NAME` counts all, `count: { name: NAME, proto: udp }` what matches. */
static int count(struct load *l, const struct place *p, struct kn_err *err)
{
	const char *name = json_string_value(p->value);
	struct kn_acl *one = NULL;

	if (name)
		return add_listed(l, p, name, NULL, kn_stage_count, err);
	int r = kn_read_single(p, &one, err);
	if (r == 0 && (r = stage_name(p, &name, err)) < 0)
		kn_acl_free(one);
	return r < 0 ? r : add_listed(l, p, name, one, kn_stage_count, err);
}

static int map(struct load *l, const struct place *p, struct kn_err *err)
{
	const char *const *names = kn_map_names();
	struct kn_stage *stage;
	size_t n = 0;

	while (names[n])
		n++;
	int r = kn_word(p, names, n, err);
	if (r < 0)
		return r;
	r = kn_stage_call(names[r], kn_map_find(names[r]), NULL, &stage, err);
	return add(l, p, r, &stage, err);
}

static const char *const stage_keys[] = { "receive", "parse", "acl", "filter",
					  "count",   "map",   "send" };
static int (*const stage_readers[])(struct load *, const struct place *, struct kn_err *) = {
	receive, parse, acl, filter, count, map, send,
};
_Static_assert(KN_ARRAY_LEN(stage_keys) == KN_ARRAY_LEN(stage_readers), "one reader a key");

/* `- parse` alone is `- parse: null`. */
static int read_stage(struct load *l, const struct place *p, struct kn_err *err)
{
	const size_t n = KN_ARRAY_LEN(stage_keys);

	if (json_is_string(p->value)) {
		int r = kn_word(p, stage_keys, n, err);
		struct place bare = *p;
		bare.value = json_null();
		return r < 0 ? r : stage_readers[r](l, &bare, err);
	}
	int r = kn_known_keys(p, stage_keys, n, err);
	if (r < 0)
		return r;
	if (json_object_size(p->value) != 1)
		return kn_wrong(p, err, "must be one stage: begin each with '-'");
	for (size_t i = 0; i < n; i++) {
		struct place body = kn_member(p, stage_keys[i]);
		if (body.value)
			return stage_readers[i](l, &body, err);
	}
	return kn_wrong(p, err, "must be one stage");
}

static int read_pool(struct load *l, struct kn_err *err)
{
	static const char *const keys[] = { "frames", "frame_bytes" };
	struct kn_pool_config config = KN_POOL_DEFAULTS;
	struct place pool = kn_member(&l->root, "pool");

	if (pool.value) {
		struct place frames = kn_member(&pool, keys[0]), bytes = kn_member(&pool, keys[1]);
		int r = kn_known_keys(&pool, keys, KN_ARRAY_LEN(keys), err);
		if (r == 0 && frames.value)
			r = kn_number(&frames, KN_BATCH, KN_POOL_FRAMES_MAX, &config.frames, err);
		if (r == 0 && bytes.value)
			r = kn_number(&bytes, KN_FRAME_BYTES_MIN, KN_FRAME_BYTES_MAX,
				      &config.frame_bytes, err);
		if (r < 0)
			return r;
	}
	return kn_pool_new(&config, &l->chain->pool, err);
}

static int check_ports(struct load *l, struct kn_err *err)
{
	struct place ports = kn_member(&l->root, "ports");

	if (!json_is_object(ports.value) || json_object_size(ports.value) == 0)
		return kn_wrong(&ports, err, "must name at least one port, like in: pcap:FILE");
	for (size_t i = 0; i < l->config->n_ports; i++) {
		struct kn_view name = l->config->ports[i].name;
		if (!json_object_getn(ports.value, name.ptr, name.len))
			return kn_fail(err, EINVAL, "%s has no port '%.*s' to replace",
				       l->config->path, (int)name.len, name.ptr);
	}
	return 0;
}

static int read_root(struct load *l, struct kn_err *err)
{
	static const char *const keys[] = { "pool", "ports", "chain" };
	struct place chain = kn_member(&l->root, "chain");

	int r = kn_known_keys(&l->root, keys, KN_ARRAY_LEN(keys), err);
	if (r == 0)
		r = check_ports(l, err);
	if (r == 0)
		r = read_pool(l, err);
	if (r == 0)
		r = kn_pipeline_new(&l->chain->pipeline, err);
	if (r < 0)
		return r;
	if (!json_is_array(chain.value) || json_array_size(chain.value) == 0)
		return kn_wrong(&chain, err, "must be a list of stages, 'receive' first");
	for (size_t i = 0; i < json_array_size(chain.value); i++) {
		struct place stage = kn_item(&chain, i);
		r = read_stage(l, &stage, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Read the root with ports as the configuration says, or with none opened. */
static int build(const struct kn_chain_config *config, const struct place *root,
		 struct kn_chain **ret, struct kn_err *err)
{
	kn_auto(kn_chain_free) struct kn_chain *chain = calloc(1, sizeof(*chain));

	if (!chain)
		return kn_fail(err, ENOMEM, "no memory for a chain");
	struct load load = { .config = config, .chain = chain, .root = *root };
	int r = read_root(&load, err);
	if (r < 0)
		return r;
	*ret = kn_take_ptr(chain);
	return 0;
}

int kn_chain_load(const struct kn_chain_config *config, struct kn_chain **ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;
	kn_auto(json_decref) json_t *json = NULL;
	kn_auto(kn_chain_free) struct kn_chain *rehearsal = NULL;
	struct kn_chain_config dry = *config;

	int r = kn_read_file(AT_FDCWD, config->path, CONFIG_MAX, &text, err);
	if (r == 0)
		r = kn_yaml_parse(kn_buf_view(&text), config->path, &json, err);
	if (r < 0)
		return r;
	struct source source = { .file = config->path, .text = kn_buf_view(&text) };
	struct place root = { .source = &source, .value = json };
	/* Dry first: a file that is wrong further down must not have emptied an output file. */
	dry.dry = true;
	r = build(&dry, &root, config->dry ? ret : &rehearsal, err);
	return r < 0 || config->dry ? r : build(config, &root, ret, err);
}
