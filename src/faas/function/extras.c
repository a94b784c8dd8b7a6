/*
 * What OpenFaaS' deployment has no field for: annotations "kiln.NAME", one row each, and the
 * scale labels that Kiln follows. Here also the defaults, which must work for a function that says
 * nothing but its image.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "faas/function/private.h"
#include "host/egress.h"
#include "packet/binding.h"

enum {
	DEFAULT_PORT = 8080,
	DEFAULT_QUEUE = 1024,
	DEFAULT_SCALE_MAX = 1,
	MAX_CONCURRENCY = 4096,
	MAX_QUEUE = 65536,
	MAX_SCALE = 1000,
	MAX_VCPUS = 32,
	MAX_PORTS = 8,
	MAX_PIDS = 65536,
	DEFAULT_TIMEOUT_MS = 60 * 1000,
	DEFAULT_BOOT_TIMEOUT_MS = 60 * 1000,
	MAX_TIMEOUT_MS = 24 * 3600 * 1000,
};

#define MIB                 (UINT64_C(1) << 20)
#define BARE_MEMORY         (16 * MIB)
#define BARE_MEMORY_STEP    (2 * MIB)
#define LINUX_MEMORY        (256 * MIB)
#define NF_MEMORY           (128 * MIB)
#define NF_MEMORY_LEAST     (64 * MIB)
#define LINUX_MEMORY_LEAST  (64 * MIB)
#define MEMORY_MOST         (UINT64_C(1) << 40)

/* enum kn_class; "unix" is for development and is not offered in messages. */
static const char *const CLASSES[] = { "microvm", "bare", "container", "nf", "unix" };
static const char *const CONTRACTS[] = { "http", "stdio", "message", "frames" };   /* enum kn_contract */

const char *kn_class_name(enum kn_class c)
{
	return (size_t)c < KN_ARRAY_LEN(CLASSES) ? CLASSES[c] : "unknown";
}

const char *pairs_get(const struct kn_pairs *pairs, const char *name)
{
	for (size_t i = 0; i < pairs->n; i++) {
		if (strcmp(pairs->at[i].name, name) == 0)
			return pairs->at[i].value;
	}
	return NULL;
}

/* ---- one reader per annotation ------------------------------------------------------------- */

static int one_of(const char *value, const char *const *names, size_t n, const char *all,
                  size_t *ret, struct kn_err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(value, names[i]) == 0) {
			*ret = i;
			return 0;
		}
	}
	const char *close = kn_closest(kn_view_of(value), names, n);
	return kn_fail(err, EINVAL, "'%.64s' is not one of %s%s%s%s", value, all,
	               close ? "; did you mean '" : "", close ? close : "", close ? "'?" : "");
}

static int read_number(const char *value, uint64_t least, uint64_t most, uint64_t *ret,
                       struct kn_err *err)
{
	uint64_t v = 0;

	if (kn_parse_u64(kn_view_of(value), most, &v, NULL) < 0 || v < least)
		return kn_fail(err, EINVAL, "'%.64s' is not a number from %" PRIu64 " to %" PRIu64,
		               value, least, most);
	*ret = v;
	return 0;
}

static int read_duration(const char *value, uint64_t *ret_ms, struct kn_err *err)
{
	uint64_t ms = 0;

	if (kn_parse_duration(kn_view_of(value), &ms, NULL) < 0 || ms == 0 || ms > MAX_TIMEOUT_MS)
		return kn_fail(err, EINVAL, "'%.64s' is not a duration of 1ms to 24h, such as 30s",
		               value);
	*ret_ms = ms;
	return 0;
}

static int read_class(struct kn_function *fn, const char *value, struct kn_err *err)
{
	size_t i = 0;

	int r = one_of(value, CLASSES, KN_ARRAY_LEN(CLASSES), "microvm, bare, container, nf", &i, err);
	if (r == 0) {
		fn->class = (enum kn_class)i;
		fn->class_given = true;
	}
	return r;
}

static int read_contract(struct kn_function *fn, const char *value, struct kn_err *err)
{
	size_t i = 0;

	int r = one_of(value, CONTRACTS, KN_ARRAY_LEN(CONTRACTS),
	               "http, stdio (and message, of bare functions; frames, of class nf)", &i, err);
	if (r == 0) {
		fn->contract = (enum kn_contract)i;
		fn->contract_given = true;
	}
	return r;
}

static int read_port(struct kn_function *fn, const char *value, struct kn_err *err)
{
	uint64_t port = 0;

	int r = read_number(value, 1, 65535, &port, err);
	if (r == 0)
		fn->port = (uint16_t)port;
	return r;
}

static int read_ready_path(struct kn_function *fn, const char *value, struct kn_err *err)
{
	bool good = value[0] == '/' && strlen(value) <= 256;

	for (const char *c = value; *c && good; c++)
		good = (unsigned char)*c > ' ' && *c != 0x7f && *c != '#';
	if (!good)
		return kn_fail(err, EINVAL, "'%.64s' is not a path that begins with '/'", value);
	fn->ready_path = value;   /* in fn's arena already */
	return 0;
}

static int read_auth(struct kn_function *fn, const char *value, struct kn_err *err)
{
	static const char *const names[] = { "token", "open" };
	size_t i = 0;

	int r = one_of(value, names, KN_ARRAY_LEN(names), "token, open", &i, err);
	if (r == 0) {
		fn->needs_token = i == 0;
		fn->open = i == 1;
	}
	return r;
}

static int read_concurrency(struct kn_function *fn, const char *value, struct kn_err *err)
{
	uint64_t v = 0;

	int r = read_number(value, 1, MAX_CONCURRENCY, &v, err);
	if (r == 0)
		fn->concurrency = (uint32_t)v;
	return r;
}

static int read_queue(struct kn_function *fn, const char *value, struct kn_err *err)
{
	uint64_t v = 0;

	int r = read_number(value, 0, MAX_QUEUE, &v, err);
	if (r == 0)
		fn->queue = (uint32_t)v;
	return r;
}

static int read_pids(struct kn_function *fn, const char *value, struct kn_err *err)
{
	uint64_t v = 0;

	int r = read_number(value, 1, MAX_PIDS, &v, err);
	if (r == 0)
		fn->max_pids = (uint32_t)v;
	return r;
}

static int read_egress(struct kn_function *fn, const char *value, struct kn_err *err)
{
	return kn_egress_parse(kn_view_of(value), &fn->arena, &fn->egress, err);
}

static int read_snapshot(struct kn_function *fn, const char *value, struct kn_err *err)
{
	static const char *const names[] = { "on", "off" };
	size_t which = 0;

	int r = one_of(value, names, KN_ARRAY_LEN(names), "on, off", &which, err);
	if (r == 0)
		fn->snapshot_off = which == 1;
	return r;
}

static int read_timeout(struct kn_function *fn, const char *value, struct kn_err *err)
{
	return read_duration(value, &fn->timeout_ms, err);
}

static int read_boot_timeout(struct kn_function *fn, const char *value, struct kn_err *err)
{
	return read_duration(value, &fn->boot_timeout_ms, err);
}

/* An interface that stands twice would send its own frames back to itself. */
static int add_port(struct kn_function *fn, struct kn_view text, struct kn_err *err)
{
	struct kn_binding b, other;

	int r = kn_binding_parse(text, &b, err);
	for (size_t i = 0; r == 0 && i < fn->ports.n; i++) {
		r = kn_binding_parse(kn_view_of(fn->ports.at[i]), &other, err);
		if (r == 0 && strcmp(b.port, other.port) == 0)
			return kn_fail(err, EINVAL, "port '%s' is bound twice", b.port);
		if (r == 0 && kn_binding_same(&b, &other))
			return kn_fail(err, EINVAL, "interface '%s' stands for two ports", b.interface);
	}
	if (r < 0)
		return r;
	fn->ports.at[fn->ports.n] = kn_arena_copy(&fn->arena, text.ptr, text.len);
	return fn->ports.at[fn->ports.n++] ? 0 : kn_fail(err, ENOMEM, "no memory for a function");
}

static int read_ports(struct kn_function *fn, const char *value, struct kn_err *err)
{
	struct kn_view rest = kn_view_of(value), one;
	int r = 0;

	fn->ports = (struct kn_strings){ .at = kn_arena_alloc(&fn->arena, (MAX_PORTS + 1) *
	                                                      sizeof(*fn->ports.at)) };
	if (!fn->ports.at)
		return kn_fail(err, ENOMEM, "no memory for a function");
	while (r == 0 && kn_view_split(&rest, ',', &one)) {
		while (one.len && one.ptr[0] == ' ')
			one = (struct kn_view){ one.ptr + 1, one.len - 1 };
		r = fn->ports.n < MAX_PORTS
		            ? add_port(fn, one, err)
		            : kn_fail(err, EINVAL, "at most %d ports can be bound", MAX_PORTS);
	}
	return r;
}

const char *kn_function_shared_port(const struct kn_function *a, const struct kn_function *b)
{
	struct kn_binding x, y;

	for (size_t i = 0; i < a->ports.n; i++) {
		for (size_t k = 0; k < b->ports.n; k++) {
			if (kn_binding_parse(kn_view_of(a->ports.at[i]), &x, NULL) == 0 &&
			    kn_binding_parse(kn_view_of(b->ports.at[k]), &y, NULL) == 0 &&
			    kn_binding_same(&x, &y))
				return a->ports.at[i];
		}
	}
	return NULL;
}

static const struct {
	const char *name;
	int (*read)(struct kn_function *fn, const char *value, struct kn_err *err);
} EXTRAS[] = {
	{ "kiln.class", read_class },
	{ "kiln.contract", read_contract },
	{ "kiln.port", read_port },
	{ "kiln.ports", read_ports },
	{ "kiln.ready-path", read_ready_path },
	{ "kiln.auth", read_auth },
	{ "kiln.concurrency", read_concurrency },
	{ "kiln.queue", read_queue },
	{ "kiln.pids", read_pids },
	{ "kiln.egress", read_egress },
	{ "kiln.snapshot", read_snapshot },
	{ "kiln.timeout", read_timeout },
	{ "kiln.boot-timeout", read_boot_timeout },
};

static int read_annotation(struct kn_function *fn, const struct kn_pair *p, struct kn_err *err)
{
	const char *names[KN_ARRAY_LEN(EXTRAS)];

	for (size_t i = 0; i < KN_ARRAY_LEN(EXTRAS); i++) {
		names[i] = EXTRAS[i].name;
		if (strcmp(p->name, EXTRAS[i].name) != 0)
			continue;
		int r = EXTRAS[i].read(fn, p->value, err);
		return r < 0 ? kn_while(err, "annotation '%s'", p->name) : 0;
	}
	if (strcmp(p->name, "kiln.memory") == 0)
		return kn_fail(err, EINVAL, "annotation 'kiln.memory': memory is limits.memory");
	const char *close = kn_closest(kn_view_of(p->name), names, KN_ARRAY_LEN(EXTRAS));
	return kn_fail(err, EINVAL, "unknown annotation '%.80s'%s%s%s", p->name,
	               close ? ": did you mean '" : "", close ? close : "", close ? "'?" : "");
}

/* ---- labels and limits --------------------------------------------------------------------- */

static int read_scale(struct kn_function *fn, struct kn_err *err)
{
	static const char MIN[] = "com.openfaas.scale.min", MAX[] = "com.openfaas.scale.max";
	const char *min = pairs_get(&fn->labels, MIN), *max = pairs_get(&fn->labels, MAX);
	uint64_t least = 0, most = DEFAULT_SCALE_MAX;

	if (max && read_number(max, 1, MAX_SCALE, &most, err) < 0)
		return kn_while(err, "label '%s'", MAX);
	if (min && read_number(min, 0, MAX_SCALE, &least, err) < 0)
		return kn_while(err, "label '%s'", MIN);
	if (!max && least > most)
		most = least;
	if (least > most)
		return kn_fail(err, EINVAL, "label '%s' is %" PRIu64 ", more than '%s', which is %" PRIu64,
		               MIN, least, MAX, most);
	fn->scale_min = (uint32_t)least;
	fn->scale_max = (uint32_t)most;
	return 0;
}

/*
 * "true": none is kept when it idles, whatever the minimum says. "false": one is kept. Without it
 * an idle function goes down to its minimum, which is zero by itself.
 */
static int read_zero(struct kn_function *fn, struct kn_err *err)
{
	static const char ZERO[] = "com.openfaas.scale.zero";
	const char *zero = pairs_get(&fn->labels, ZERO);

	if (!zero)
		return 0;
	fn->scale_zero = strcmp(zero, "true") == 0;
	if (!fn->scale_zero && strcmp(zero, "false") != 0)
		return kn_fail(err, EINVAL, "label '%s' is \"true\" or \"false\", not '%.64s'", ZERO,
		               zero);
	if (!fn->scale_zero)
		fn->scale_min = kn_max(fn->scale_min, 1u);
	return 0;
}

/* Of OpenFaaS' three types only "capacity" is by concurrency; the others change nothing here. */
static int read_target(struct kn_function *fn, struct kn_err *err)
{
	static const char TARGET[] = "com.openfaas.scale.target";
	const char *target = pairs_get(&fn->labels, TARGET);
	const char *type = pairs_get(&fn->labels, "com.openfaas.scale.type");
	uint64_t v = 0;

	if (!target || !type || strcmp(type, "capacity") != 0)
		return 0;
	if (read_number(target, 1, MAX_CONCURRENCY, &v, err) < 0)
		return kn_while(err, "label '%s'", TARGET);
	fn->scale_target = (uint32_t)v;
	return 0;
}

static int read_idle(struct kn_function *fn, struct kn_err *err)
{
	static const char IDLE[] = "com.openfaas.scale.zero-duration";
	const char *idle = pairs_get(&fn->labels, IDLE);

	if (idle && read_duration(idle, &fn->idle_ms, err) < 0)
		return kn_while(err, "label '%s'", IDLE);
	return 0;
}

static int read_limits(struct kn_function *fn, struct kn_err *err)
{
	uint64_t millicores = 1000;

	if (fn->limits.memory) {
		if (kn_parse_bytes(kn_view_of(fn->limits.memory), &fn->memory_bytes, err) < 0)
			return kn_while(err, "limits.memory");
		if (fn->memory_bytes == 0 || fn->memory_bytes > MEMORY_MOST)
			return kn_fail(err, EINVAL, "limits.memory: '%.64s' is not between 1 byte and "
			                            "1Ti",
			               fn->limits.memory);
	}
	if (fn->limits.cpu && kn_parse_millicores(kn_view_of(fn->limits.cpu), &millicores, err) < 0)
		return kn_while(err, "limits.cpu");
	if (millicores == 0 || millicores > MAX_VCPUS * 1000)
		return kn_fail(err, EINVAL, "limits.cpu: '%.64s' is not above 0 and at most %d cores",
		               fn->limits.cpu, MAX_VCPUS);
	fn->vcpus = (uint32_t)((millicores + 999) / 1000);
	fn->cpu_milli = fn->limits.cpu ? (uint32_t)millicores : 0;
	return 0;
}

int extras_read(struct kn_function *fn, struct kn_err *err)
{
	fn->port = DEFAULT_PORT;
	fn->queue = DEFAULT_QUEUE;
	fn->timeout_ms = DEFAULT_TIMEOUT_MS;
	fn->boot_timeout_ms = DEFAULT_BOOT_TIMEOUT_MS;
	for (size_t i = 0; i < fn->annotations.n; i++) {
		const struct kn_pair *p = &fn->annotations.at[i];
		if (strncmp(p->name, "kiln.", 5) != 0)
			continue;
		int r = read_annotation(fn, p, err);
		if (r < 0)
			return r;
	}
	int r = read_scale(fn, err);
	if (r == 0)
		r = read_zero(fn, err);
	if (r == 0)
		r = read_target(fn, err);
	if (r == 0)
		r = read_idle(fn, err);
	return r < 0 ? r : read_limits(fn, err);
}

/* ---- what depends on the class ------------------------------------------------------------- */

static int fit_bare(struct kn_function *fn, struct kn_err *err)
{
	if (fn->class_given && fn->class != KN_CLASS_BARE)
		return kn_fail(err, EINVAL, "image '%.128s' is a bare program, which runs as class bare "
		                            "only, not as %s: leave kiln.class out",
		               fn->image, kn_class_name(fn->class));
	if (fn->contract_given && fn->contract != KN_CONTRACT_MESSAGE)
		return kn_fail(err, EINVAL, "a bare function takes messages: leave kiln.contract out");
	fn->class = KN_CLASS_BARE;
	fn->contract = KN_CONTRACT_MESSAGE;
	if (!fn->memory_bytes)
		fn->memory_bytes = BARE_MEMORY;
	fn->memory_bytes = (fn->memory_bytes + BARE_MEMORY_STEP - 1) / BARE_MEMORY_STEP *
	                   BARE_MEMORY_STEP;
	if (fn->egress)
		return kn_fail(err, EINVAL, "kiln.egress: a bare function has no network");
	if (fn->vcpus > 1)
		return kn_fail(err, EINVAL, "limits.cpu: a bare function has one vCPU");
	return 0;
}

static int fit_image(struct kn_function *fn, struct kn_err *err)
{
	if (fn->class == KN_CLASS_BARE)
		return kn_fail(err, EINVAL, "image '%.128s' is a container image, class bare needs a "
		                            "program made by: kiln build; leave kiln.class out to run it "
		                            "in a microVM",
		               fn->image);
	if (fn->class == KN_CLASS_NF)
		return kn_fail(err, EINVAL, "image '%.128s' is a container image, class nf needs a chain "
		                            "made by: kiln build FILE.yaml",
		               fn->image);
	if (fn->contract == KN_CONTRACT_MESSAGE || fn->contract == KN_CONTRACT_FRAMES)
		return kn_fail(err, EINVAL, "kiln.contract: only bare functions take messages and only "
		                            "packet functions frames; use http or stdio");
	if (!fn->memory_bytes)
		fn->memory_bytes = LINUX_MEMORY;
	if (fn->class == KN_CLASS_MICROVM && fn->memory_bytes < LINUX_MEMORY_LEAST)
		return kn_fail(err, EINVAL, "limits.memory: '%.64s' is too little for a Linux guest, "
		                            "which needs 64Mi",
		               fn->limits.memory);
	return 0;
}

/*
 * Exactly one instance: two would send every frame twice. It is there from the deployment on, since
 * no request could wake it.
 */
static int fit_nf(struct kn_function *fn, struct kn_err *err)
{
	const char *least = pairs_get(&fn->labels, "com.openfaas.scale.min");

	if (fn->class_given && fn->class != KN_CLASS_NF)
		return kn_fail(err, EINVAL, "image '%.128s' is a chain of packet operators, which runs "
		                            "as class nf only, not as %s: leave kiln.class out",
		               fn->image, kn_class_name(fn->class));
	if (fn->contract_given && fn->contract != KN_CONTRACT_FRAMES)
		return kn_fail(err, EINVAL, "a packet function takes frames: leave kiln.contract out");
	if (fn->ports.n == 0)
		return kn_fail(err, EINVAL, "say which interfaces the chain's ports are, with the "
		                            "annotation kiln.ports=\"lan=eth1,wan=eth2\"");
	if (fn->scale_max > 1 || (least && fn->scale_min == 0))
		return kn_fail(err, EINVAL, "a packet function has exactly one instance: two would send "
		                            "each frame twice, and none would stop the traffic; remove "
		                            "the function instead");
	fn->class = KN_CLASS_NF;
	fn->contract = KN_CONTRACT_FRAMES;
	fn->scale_min = 1;
	fn->concurrency = 1;
	if (!fn->memory_bytes)
		fn->memory_bytes = NF_MEMORY;
	if (fn->memory_bytes < NF_MEMORY_LEAST)
		return kn_fail(err, EINVAL, "limits.memory: '%.64s' is too little for rings and frames, "
		                            "which need 64Mi",
		               fn->limits.memory);
	return 0;
}

/*
 * A stdio request is a process in the guest, so a few at once; an HTTP server has its own ideas, so
 * many; a bare program answers one message at a time.
 */
static uint32_t default_concurrency(enum kn_contract contract)
{
	switch (contract) {
	case KN_CONTRACT_HTTP:
		return 64;
	case KN_CONTRACT_STDIO:
		return 4;
	case KN_CONTRACT_MESSAGE:
	case KN_CONTRACT_FRAMES:
		return 1;
	}
	return 1;
}

static int fit(struct kn_function *fn, enum kn_image_kind kind, struct kn_err *err)
{
	switch (kind) {
	case KN_IMAGE_BARE:
		return fit_bare(fn, err);
	case KN_IMAGE_NF:
		return fit_nf(fn, err);
	case KN_IMAGE_CONTAINER:
	case KN_IMAGE_OTHER:   /* kn_images_find() gives none */
		break;
	}
	return fit_image(fn, err);
}

int kn_function_resolve(struct kn_function *fn, enum kn_image_kind kind, struct kn_err *err)
{
	int r = kind != KN_IMAGE_NF && fn->ports.n
	                ? kn_fail(err, EINVAL, "kiln.ports binds the ports of a packet function; image "
	                                       "'%.128s' is none",
	                          fn->image)
	                : fit(fn, kind, err);

	if (r == 0 && !fn->concurrency)
		fn->concurrency = default_concurrency(fn->contract);
	return r;
}
