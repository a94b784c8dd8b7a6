/* manifest.json: written when everything else is on the disk, read at open. */
#include <errno.h>
#include <stdio.h>

#include "base/json.h"
#include "oci/snapshot/snapshot.h"

enum { VERSION = 1 };

static int take_text(const json_t *obj, const char *key, char *ret, size_t len, struct kn_err *err)
{
	const char *text = NULL;

	int r = kn_json_str(obj, key, &text, err);
	if (r < 0)
		return r;
	if (!text || strlen(text) >= len)
		return kn_fail(err, EINVAL, "field '%s' must be a text of less than %zu bytes", key,
		               len);
	snprintf(ret, len, "%s", text);
	return 0;
}

static int take_number(const json_t *obj, const char *key, uint64_t *ret, struct kn_err *err)
{
	uint64_t value = UINT64_MAX;

	int r = kn_json_u64(obj, key, INT64_MAX, &value, err);
	if (r < 0)
		return r;
	if (value == UINT64_MAX)
		return kn_fail(err, EINVAL, "field '%s' is missing", key);
	*ret = value;
	return 0;
}

static int take_file(const json_t *obj, const char *key, struct kn_snapshot_file *ret,
                     struct kn_err *err)
{
	uint8_t raw[32];
	json_t *f = NULL;

	int r = kn_json_obj(obj, key, &f, err);
	if (r == 0 && !f)
		return kn_fail(err, EINVAL, "field '%s' is missing", key);
	if (r == 0)
		r = take_number(f, "bytes", &ret->bytes, err);
	if (r == 0)
		r = take_number(f, "inode", &ret->inode, err);
	if (r == 0)
		r = take_number(f, "mtime_ns", &ret->mtime_ns, err);
	if (r == 0)
		r = take_number(f, "ctime_ns", &ret->ctime_ns, err);
	if (r == 0)
		r = take_text(f, "sha256", ret->sha256, sizeof(ret->sha256), err);
	if (r == 0)
		r = kn_unhex(kn_view_of(ret->sha256), raw, sizeof(raw), err);
	return r < 0 ? kn_while(err, "file '%s'", key) : 0;
}

static int take_facts(const json_t *obj, struct kn_snapshot_manifest *m, struct kn_err *err)
{
	const char *name;
	json_t *facts = NULL, *value;

	int r = kn_json_obj(obj, "facts", &facts, err);
	if (r < 0)
		return r;
	json_object_foreach(facts, name, value) {
		struct kn_snapshot_fact *f = &m->facts[m->n_facts];
		if (m->n_facts == KN_SNAPSHOT_FACTS || strlen(name) >= sizeof(f->name))
			return kn_fail(err, EINVAL, "more facts, or longer ones, than there can be");
		snprintf(f->name, sizeof(f->name), "%s", name);
		r = take_text(facts, name, f->value, sizeof(f->value), err);
		if (r < 0)
			return r;
		m->n_facts++;
	}
	return 0;
}

int kn_snapshot_manifest_parse(struct kn_view text, struct kn_snapshot_manifest *ret,
                               struct kn_err *err)
{
	kn_auto(json_decref) json_t *obj = NULL;
	struct kn_snapshot_manifest m = { .n_facts = 0 };
	uint64_t version = 0;

	int r = kn_json_parse(text, &obj, err);
	if (r == 0 && !json_is_object(obj))
		r = kn_fail(err, EINVAL, "not an object");
	if (r == 0)
		r = take_number(obj, "version", &version, err);
	if (r == 0 && version != VERSION)
		r = kn_fail(err, EINVAL, "version %llu, not %d", (unsigned long long)version,
		            VERSION);
	if (r == 0)
		r = take_text(obj, "about", m.about, sizeof(m.about), err);
	if (r == 0)
		r = take_facts(obj, &m, err);
	if (r == 0)
		r = take_file(obj, "memory", &m.memory, err);
	if (r == 0)
		r = take_file(obj, "state", &m.state, err);
	if (r == 0)
		*ret = m;
	return r;
}

static json_t *file_object(const struct kn_snapshot_file *f)
{
	return json_pack("{s:I,s:I,s:I,s:I,s:s}", "bytes", (json_int_t)f->bytes, "inode",
	                 (json_int_t)f->inode, "mtime_ns", (json_int_t)f->mtime_ns, "ctime_ns",
	                 (json_int_t)f->ctime_ns, "sha256", f->sha256);
}

void kn_snapshot_manifest_print(const struct kn_snapshot_manifest *m, struct kn_buf *ret)
{
	json_t *facts = json_object();

	for (size_t i = 0; facts && i < m->n_facts; i++)
		json_object_set_new(facts, m->facts[i].name, json_string(m->facts[i].value));
	kn_auto(json_decref) json_t *obj =
		json_pack("{s:i,s:s,s:o,s:o,s:o}", "version", VERSION, "about", m->about, "facts",
		          facts, "memory", file_object(&m->memory), "state", file_object(&m->state));
	if (obj)
		kn_json_print(ret, obj, 0);
	else
		ret->failed = true;
}
