#include <sys/utsname.h>

#include "faas/control/private.h"

/* Alive, and able to remember: what a load balancer and `faas-cli ready` ask. */
void show_health(const struct call *c)
{
	kn_http_reply_text(c->x, 200, "text/plain", "OK");
}

void show_info(const struct call *c)
{
	struct utsname host;
	const char *arch = uname(&host) == 0 ? host.machine : "unknown";

	kn_reply_json(c->x, 200,
	              json_pack("{s:{s:s, s:s, s:{s:s, s:s}}, s:{s:s, s:s}, s:s}", "provider",
	                        "provider", "kiln", "orchestration", "kiln", "version", "release",
	                        KN_VERSION, "sha", "", "version", "release", KN_VERSION, "sha", "",
	                        "arch", arch));
}

void show_namespaces(const struct call *c)
{
	kn_reply_json(c->x, 200, json_pack("[s]", KN_NAMESPACE));
}

void show_namespace(const struct call *c)
{
	if (kn_view_is(c->rest, KN_VIEW(KN_NAMESPACE)))
		kn_reply_json(c->x, 200, json_pack("{s:s, s:{s:s}, s:{s:s}}", "name", KN_NAMESPACE,
		                                   "labels", "openfaas", "1", "annotations",
		                                   "openfaas", "1"));
	else
		kn_reply_error(c->x, 404, "there is no such namespace", "this node has " KN_NAMESPACE);
}

/* OpenFaaS' own answer where its edition has one namespace. */
void refuse_namespace(const struct call *c)
{
	kn_reply_error(c->x, 501, "a node has one namespace, " KN_NAMESPACE,
	               "keep tenants apart by nodes, and functions by their names");
}

void show_node(const struct call *c)
{
	const json_t *node = c->ctl->config.node;

	kn_reply_json(c->x, 200, node ? json_deep_copy(node) : json_object());
}

void show_openapi(const struct call *c)
{
	const struct kn_header type = { KN_VIEW("Content-Type"), KN_VIEW(KN_HTTP_JSON) };

	kn_http_reply(c->x, 200, &type, 1,
	              (struct kn_view){ control_openapi, control_openapi_len });
}

void show_metrics(const struct call *c)
{
	const struct kn_header type = { KN_VIEW("Content-Type"),
		                        KN_VIEW("text/plain; version=0.0.4; charset=utf-8") };
	kn_auto(kn_buf_fini) struct kn_buf b = KN_BUF_INIT;

	kn_engine_metrics(c->ctl->config.engine, &b);
	if (c->ctl->config.metrics)
		c->ctl->config.metrics(&b, c->ctl->config.metrics_arg);
	if (b.failed)
		kn_reply_error(c->x, 503, "out of memory", "try again soon");
	else
		kn_http_reply(c->x, 200, &type, 1, kn_buf_view(&b));
}
