/* What there is: tags, referrers, repositories. */
#include <errno.h>
#include <stdlib.h>

#include "base/json.h"
#include "oci/registry/private.h"

/* ---- pages ------------------------------------------------------------------------------------ */

/* How a client asks for a part of a sorted list. */
struct page {
	uint64_t n;               /* UINT64_MAX: all */
	struct kn_view last;      /* begin behind this; ptr NULL: at the start */
	json_t *list;
	const char *end;          /* the last one in list; borrowed */
	bool more;
};

static bool page_or_answer(const struct request *rq, struct page *ret)
{
	const struct kn_view n = query_value(rq, "n");
	struct kn_err err = KN_ERR_INIT;

	*ret = (struct page){ .n = UINT64_MAX, .last = query_value(rq, "last") };
	if (n.ptr && kn_parse_u64(n, UINT32_MAX, &ret->n, &err) < 0) {
		refuse(rq->x, 400, "PAGINATION_NUMBER_INVALID", "n: %s", kn_err_text(&err));
		return false;
	}
	ret->list = json_array();
	return true;
}

static void page_add(struct page *p, const char *text)
{
	if (p->last.ptr && kn_view_order(kn_view_of(text), p->last) <= 0)
		return;
	if (json_array_size(p->list) >= p->n) {
		p->more = true;
		return;
	}
	json_array_append_new(p->list, json_string(text));
	p->end = text;
}

/* RFC 8288. Names and tags need no escapes in a query. */
static void page_link(const struct page *p, struct fields *f, const char *path)
{
	if (p->more && p->end)
		fields_add(f, "Link", "<%s?n=%llu&last=%s>; rel=\"next\"", path,
		           (unsigned long long)p->n, p->end);
}

/* ---- tags ------------------------------------------------------------------------------------- */

static int compare_tags(const void *a, const void *b)
{
	const struct kn_image *const *x = a, *const *y = b;

	return strcmp((*x)->tag, (*y)->tag);
}

void list_tags(const struct request *rq)
{
	__attribute__((cleanup(kn_image_list_fini_auto))) struct kn_image_list l = { .n = 0 };
	struct kn_err err = KN_ERR_INIT;
	char path[320];
	struct page page;

	if (kn_images_in(rq->reg->config.images, rq->path.name, &l, &err) < 0) {
		answer_err(rq->x, &err, "UNKNOWN");
		return;
	}
	if (l.n == 0) {
		refuse(rq->x, 404, "NAME_UNKNOWN", "there is no repository '" KN_VIEW_FMT "'",
		       KN_VIEW_ARG(rq->path.name));
		return;
	}
	if (!page_or_answer(rq, &page))
		return;
	qsort(l.at, l.n, sizeof(struct kn_image *), compare_tags);
	for (size_t i = 0; i < l.n; i++)
		if (l.at[i]->tag[0])
			page_add(&page, l.at[i]->tag);
	struct fields f = fields_new(rq->x);
	snprintf(path, sizeof(path), "/v2/%s/tags/list", l.at[0]->repository);
	page_link(&page, &f, path);
	reply_json(&f, KN_HTTP_JSON, json_pack("{s:s, s:o}", "name", l.at[0]->repository, "tags",
	                                       page.list));
}

/* ---- repositories ----------------------------------------------------------------------------- */

static int compare_repositories(const void *a, const void *b)
{
	const struct kn_image *const *x = a, *const *y = b;

	return strcmp((*x)->repository, (*y)->repository);
}

void list_repositories(const struct request *rq)
{
	__attribute__((cleanup(kn_image_list_fini_auto))) struct kn_image_list l = { .n = 0 };
	struct kn_err err = KN_ERR_INIT;
	const char *before = "";
	struct page page;

	if (kn_images_in(rq->reg->config.images, KN_VIEW_NULL, &l, &err) < 0) {
		answer_err(rq->x, &err, "UNKNOWN");
		return;
	}
	if (!page_or_answer(rq, &page))
		return;
	qsort(l.at, l.n, sizeof(struct kn_image *), compare_repositories);
	for (size_t i = 0; i < l.n; i++) {
		const char *name = l.at[i]->repository;
		/* One that was pulled from a registry with a port cannot be asked for here. */
		if (strcmp(name, before) != 0 && registry_name_ok(kn_view_of(name)))
			page_add(&page, name);
		before = name;
	}
	struct fields f = fields_new(rq->x);
	page_link(&page, &f, "/v2/_catalog");
	reply_json(&f, KN_HTTP_JSON, json_pack("{s:o}", "repositories", page.list));
}

/* ---- referrers -------------------------------------------------------------------------------- */

static json_t *referrer_json(const struct kn_image *image)
{
	const struct kn_descriptor d = {
		.media_type = image->media_type,
		.digest = image->top,
		.bytes = image->top_bytes,
		.artifact_type = image->artifact_type[0] ? image->artifact_type : NULL,
		.annotations = image->annotations,
	};

	return kn_spec_descriptor_json(&d);
}

/* The same manifest may be there under several tags. */
static bool seen(const struct kn_image_list *l, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (kn_digest_is(&l->at[k]->top, &l->at[i]->top))
			return true;
	return false;
}

void list_referrers(const struct request *rq)
{
	__attribute__((cleanup(kn_image_list_fini_auto))) struct kn_image_list l = { .n = 0 };
	const struct kn_view type = query_value(rq, "artifactType");
	struct kn_digest subject;
	struct kn_err err = KN_ERR_INIT;

	if (kn_digest_parse(rq->path.rest, &subject, &err) < 0) {
		refuse(rq->x, 400, "DIGEST_INVALID", "%s", kn_err_text(&err));
		return;
	}
	if (kn_images_in(rq->reg->config.images, rq->path.name, &l, &err) < 0) {
		answer_err(rq->x, &err, "UNKNOWN");
		return;
	}
	json_t *list = json_array();
	for (size_t i = 0; i < l.n; i++)
		if (kn_digest_is(&l.at[i]->subject, &subject) && !seen(&l, i) &&
		    (!type.ptr || kn_view_is(type, kn_view_of(l.at[i]->artifact_type))))
			json_array_append_new(list, referrer_json(l.at[i]));
	struct fields f = fields_new(rq->x);
	if (type.ptr)
		fields_add(&f, "OCI-Filters-Applied", "artifactType");
	reply_json(&f, KN_TYPE_INDEX, json_pack("{s:i, s:s, s:o}", "schemaVersion", 2, "mediaType",
	                                        KN_TYPE_INDEX, "manifests", list));
}
