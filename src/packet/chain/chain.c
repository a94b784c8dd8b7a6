/*
 * From a file to pipelines: the pools, then chain by chain, stage by stage. A port is opened when the
 * first stage that uses it is read, since that says in which direction. An interface goes both ways;
 * whoever loads the chain has opened it.
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

enum {
	CONFIG_MAX = 1 << 20,
	/* Joined segments have up to 64 KiB behind their headers; a batch of them is in flight. */
	LARGE_FRAMES = 2 * KN_BATCH,
	LARGE_BYTES = 65536 + 256,
};

struct slot {
	struct kn_port *port;
	char name[KN_PORT_NAME_MAX + 1];
	bool receives, sends;
};

struct line {
	struct kn_pipeline *pipeline;
	char name[KN_CHAIN_NAME_MAX + 1];
};

struct kn_chain {
	struct line lines[KN_CHAIN_LINES_MAX];
	size_t n_lines;
	bool named; /* the file says `chains` */
	struct kn_pool *pool, *large;
	struct slot slots[KN_CHAIN_PORTS_MAX];
	size_t n_slots;
	uint32_t rules;
	size_t stages;
};

/* One load. */
struct load {
	const struct kn_chain_config *config;
	struct kn_chain *chain;
	struct kn_pipeline *pipeline; /* that is being built */
	struct place root;
};

void kn_chain_free(struct kn_chain *chain)
{
	if (!chain)
		return;
	for (size_t i = 0; i < chain->n_lines; i++)
		kn_pipeline_free(chain->lines[i].pipeline);
	for (size_t i = 0; i < chain->n_slots; i++)
		kn_port_close(chain->slots[i].port);
	kn_pool_free(chain->pool);
	kn_pool_free(chain->large);
	free(chain);
}

size_t kn_chain_lines(const struct kn_chain *chain)
{
	return chain->n_lines;
}

struct kn_pipeline *kn_chain_pipeline(struct kn_chain *chain, size_t line)
{
	return chain->lines[line].pipeline;
}

const char *kn_chain_name(const struct kn_chain *chain, size_t line)
{
	return chain->lines[line].name;
}

bool kn_chain_named(const struct kn_chain *chain)
{
	return chain->named;
}

struct kn_port *kn_chain_port_at(struct kn_chain *chain, size_t i)
{
	return i < chain->n_slots ? chain->slots[i].port : NULL;
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
		return kn_fail(err, EINVAL, "'%s' is no port: write NAME=pcap:FILE, NAME=null or "
			       "NAME=INTERFACE",
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

static const struct kn_chain_port *given_port(const struct load *l, const char *name)
{
	for (size_t i = 0; i < l->config->n_ports; i++)
		if (kn_view_is(l->config->ports[i].name, kn_view_of(name)))
			return &l->config->ports[i];
	return NULL;
}

/* What the port is today: the command line's word, then the file's. */
static int port_spec(const struct place *p, const struct kn_chain_port *given, struct kn_view *ret,
		     struct kn_err *err)
{
	if (given) {
		*ret = given->spec;
		return 0;
	}
	if (!json_is_string(p->value) && !json_is_null(p->value))
		return kn_wrong(p, err, "must be pcap:FILE, null or interface");
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

/* The file says which port is an interface, whoever runs it which interface that is. */
static int use_interface(struct load *l, const struct place *p, const char *name,
			 const struct kn_chain_port *given, struct kn_port **ret, struct kn_err *err)
{
	if (l->config->dry)
		return kn_port_null_new(ret, err);
	if (!given || !given->opened)
		return kn_wrong(p, err,
				"is an interface: say which, with --port %s=INTERFACE (deployed: "
				"annotation kiln.ports)",
				name);
	*ret = given->opened;
	kn_port_use(*ret, l->chain->pool, l->chain->large);
	return 0;
}

static int open_port(struct load *l, const struct place *p, const char *name, bool receives,
		     struct kn_port **ret, struct kn_err *err)
{
	const struct kn_chain_port *given = given_port(l, name);
	struct kn_view spec, kind;

	int r = port_spec(p, given, &spec, err);
	if (r < 0)
		return r;
	if ((given && given->opened) || kn_view_is(spec, KN_VIEW("interface")))
		return use_interface(l, p, name, given, ret, err);
	struct kn_view file = spec;
	bool is_pcap = kn_view_split(&file, ':', &kind) && kn_view_is(kind, KN_VIEW("pcap")) &&
		       file.ptr && file.len;
	if (!is_pcap && !kn_view_is(spec, KN_VIEW("null")))
		return kn_wrong(p, err, "'%.*s' is no port: pcap:FILE, null or interface",
				(int)spec.len, spec.ptr);
	if (is_pcap && !l->config->dry)
		r = open_pcap(l, file, given != NULL, receives, ret, err);
	else
		r = kn_port_null_new(ret, err);
	if (r < 0 && !given)
		return kn_wrong_inside(p, err);
	if (r == 0)
		kn_port_rename(*ret, name);
	return r;
}

static struct slot *find_slot(struct load *l, const char *name)
{
	for (size_t i = 0; i < l->chain->n_slots; i++)
		if (strcmp(l->chain->slots[i].name, name) == 0)
			return &l->chain->slots[i];
	return NULL;
}

/* One chain receives from a port, since frames come once; sending to an interface is for all. */
static int use_again(const struct place *stage, struct slot *s, bool receives, const char *spec,
		     struct kn_err *err)
{
	bool both = strcmp(spec, "interface") == 0 || s->port->live;

	if (receives && s->receives)
		return kn_wrong(stage, err, "another chain receives from port '%s'", s->name);
	if (!both && !(receives ? s->receives : s->sends))
		return kn_wrong(stage, err, "port '%s' goes one way only", s->name);
	s->receives |= receives;
	s->sends |= !receives;
	return 0;
}

/* The port that a receive or send stage names. */
static int named_port(struct load *l, const struct place *stage, bool receives,
		      struct kn_port **ret, struct kn_err *err)
{
	const char *name = json_string_value(stage->value);
	struct place ports = kn_member(&l->root, "ports");

	if (!name)
		return kn_wrong(stage, err, "must be the name of a port");
	struct place p = kn_member(&ports, name);
	if (!p.value)
		return kn_wrong(stage, err, "there is no port '%s' under 'ports'", name);
	if (receives ? kn_pipeline_in(l->pipeline) : kn_pipeline_out(l->pipeline))
		return kn_wrong(stage, err, "a chain %s once",
				receives ? "receives from one port," : "sends to one port,");
	const char *spec = json_string_value(p.value);
	struct slot *s = find_slot(l, name);
	int r = 0;
	if (s) {
		r = use_again(stage, s, receives, spec ? spec : "", err);
	} else if (l->chain->n_slots == KN_CHAIN_PORTS_MAX || strlen(name) > KN_PORT_NAME_MAX) {
		r = kn_wrong(stage, err, "at most %d ports, with names of at most %d bytes",
			     KN_CHAIN_PORTS_MAX, KN_PORT_NAME_MAX);
	} else {
		s = &l->chain->slots[l->chain->n_slots];
		*s = (struct slot){ .receives = receives, .sends = !receives };
		r = open_port(l, &p, name, receives, &s->port, err);
		if (r == 0) {
			memcpy(s->name, name, strlen(name) + 1);
			l->chain->n_slots++;
		}
	}
	if (r == 0)
		*ret = s->port;
	return r;
}

/* A stage was made, if made is 0: put it in, or tell where it stands wrong. */
static int add(struct load *l, const struct place *p, int made, struct kn_stage **stage,
	       struct kn_err *err)
{
	int r = made < 0 ? made : kn_pipeline_add(l->pipeline, *stage, err);

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

static bool has_interfaces(const struct load *l)
{
	struct place ports = kn_member(&l->root, "ports");
	const char *name;
	json_t *spec;

	json_object_foreach ((json_t *)(uintptr_t)ports.value, name, spec) {
		const struct kn_chain_port *given = given_port(l, name);
		const char *text = json_string_value(spec);
		if ((given && given->opened) || (text && strcmp(text, "interface") == 0))
			return true;
	}
	return false;
}

static int make_pools(struct load *l, struct kn_pool_config *config, struct kn_err *err)
{
	struct kn_pool_config large = { .frames = LARGE_FRAMES,
					.frame_bytes = LARGE_BYTES,
					.offload = true };

	config->offload = !l->config->dry && has_interfaces(l);
	int r = kn_pool_new(config, &l->chain->pool, err);
	if (r == 0 && config->offload)
		r = kn_pool_new(&large, &l->chain->large, err);
	return r;
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
	return make_pools(l, &config, err);
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

static int read_line(struct load *l, const struct place *list, const char *name,
		     struct kn_err *err)
{
	struct kn_chain *chain = l->chain;

	if (!json_is_array(list->value) || json_array_size(list->value) == 0)
		return kn_wrong(list, err, "must be a list of stages, 'receive' first");
	if (chain->n_lines == KN_CHAIN_LINES_MAX || !*name || strlen(name) > KN_CHAIN_NAME_MAX)
		return kn_wrong(list, err, "at most %d chains, with names of 1 to %d bytes",
				KN_CHAIN_LINES_MAX, KN_CHAIN_NAME_MAX);
	struct line *line = &chain->lines[chain->n_lines];
	int r = kn_pipeline_new(&line->pipeline, err);
	if (r < 0)
		return r;
	chain->n_lines++;
	memcpy(line->name, name, strlen(name) + 1);
	l->pipeline = line->pipeline;
	for (size_t i = 0; r == 0 && i < json_array_size(list->value); i++) {
		struct place stage = kn_item(list, i);
		r = read_stage(l, &stage, err);
	}
	return r;
}

static int read_lines(struct load *l, const struct place *chains, struct kn_err *err)
{
	const char *name;
	json_t *value;

	if (!json_is_object(chains->value) || json_object_size(chains->value) == 0)
		return kn_wrong(chains, err, "must be a mapping from names to lists of stages");
	l->chain->named = true;
	json_object_foreach ((json_t *)(uintptr_t)chains->value, name, value) {
		struct place list = kn_member(chains, name);
		int r = read_line(l, &list, name, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_root(struct load *l, struct kn_err *err)
{
	static const char *const keys[] = { "pool", "ports", "chain", "chains" };
	struct place chain = kn_member(&l->root, "chain"), chains = kn_member(&l->root, "chains");

	int r = kn_known_keys(&l->root, keys, KN_ARRAY_LEN(keys), err);
	if (r == 0)
		r = check_ports(l, err);
	if (r == 0)
		r = read_pool(l, err);
	if (r < 0)
		return r;
	if (chain.value && chains.value)
		return kn_wrong(&chains, err, "either 'chain' or 'chains', not both");
	return chains.value ? read_lines(l, &chains, err) : read_line(l, &chain, "chain", err);
}

/* Ports that were handed in are the caller's until the load has succeeded. */
static void keep_given_ports(const struct kn_chain_config *config, struct kn_chain *chain)
{
	for (size_t i = 0; i < chain->n_slots; i++)
		for (size_t k = 0; k < config->n_ports; k++)
			if (chain->slots[i].port == config->ports[k].opened)
				chain->slots[i].port = NULL;
}

/* An interface that was opened for nothing would swallow frames, or look as if it were guarded. */
static int check_given(const struct kn_chain_config *config, const struct kn_chain *chain,
		       struct kn_err *err)
{
	for (size_t k = 0; k < config->n_ports && !config->dry; k++) {
		const struct kn_chain_port *given = &config->ports[k];
		size_t i = 0;
		while (i < chain->n_slots && chain->slots[i].port != given->opened)
			i++;
		if (given->opened && i == chain->n_slots)
			return kn_fail(err, EINVAL, "%s: port '%.*s' is an interface now, but no "
				       "chain uses it", config->path, (int)given->name.len,
				       given->name.ptr);
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
	if (r == 0)
		r = check_given(config, chain, err);
	if (r < 0) {
		keep_given_ports(config, chain);
		return r;
	}
	*ret = kn_take_ptr(chain);
	return 0;
}

int kn_chain_load(const struct kn_chain_config *config, struct kn_chain **ret, struct kn_err *err)
{
	kn_auto(kn_buf_fini) struct kn_buf read = KN_BUF_INIT;
	kn_auto(json_decref) json_t *json = NULL;
	kn_auto(kn_chain_free) struct kn_chain *rehearsal = NULL;
	struct kn_chain_config dry = *config;

	int r = config->text ? 0 : kn_read_file(AT_FDCWD, config->path, CONFIG_MAX, &read, err);
	struct kn_view text = config->text ? *config->text : kn_buf_view(&read);
	if (r == 0)
		r = kn_yaml_parse(text, config->path, &json, err);
	if (r < 0)
		return r;
	struct source source = { .file = config->path, .text = text };
	struct place root = { .source = &source, .value = json };
	/* Dry first: a file that is wrong further down must not have emptied an output file. */
	dry.dry = true;
	r = build(&dry, &root, config->dry ? ret : &rehearsal, err);
	return r < 0 || config->dry ? r : build(config, &root, ret, err);
}
