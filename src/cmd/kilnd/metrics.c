#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include "base/metric.h"
#include "cmd/kilnd/node.h"

static void gauge(struct kn_buf *b, const char *name, const char *help, uint64_t value)
{
	kn_metric_family(b, name, KN_GAUGE, help);
	kn_metric_u64(b, name, NULL, 0, value);
}

static void print_build(struct kn_buf *b)
{
	struct utsname host;
	const struct kn_label labels[] = {
		KN_LABEL("version", KN_VERSION),
		KN_LABEL("compiler", __VERSION__),
		KN_LABEL("arch", uname(&host) == 0 ? host.machine : "unknown"),
	};

	kn_metric_family(b, "kiln_build_info", KN_GAUGE, "This program; always 1.");
	kn_metric_u64(b, "kiln_build_info", labels, KN_ARRAY_LEN(labels), 1);
}

/* A class that this host refuses is 0, so that an alert can tell. */
static void print_classes(const struct kn_node *n, struct kn_buf *b)
{
	kn_metric_family(b, "kiln_class_runs", KN_GAUGE, "Can this host run the class of functions?");
	for (enum kn_class c = 0; c < KN_CLASSES; c++) {
		const struct kn_engine_class *row = kn_engine_class(n->engine, c);
		const struct kn_label labels[] = {
			KN_LABEL("class", kn_class_name(c)),
			KN_LABEL("hypervisor", row->hypervisor ? row->hypervisor : ""),
		};
		kn_metric_u64(b, "kiln_class_runs", labels, KN_ARRAY_LEN(labels), row->ops != NULL);
	}
}

/* Monitors that wait for a function; a class whose driver prepares nothing has no line. */
static void print_prepared(const struct kn_node *n, struct kn_buf *b)
{
	if (!n->shells)
		return;
	kn_metric_family(b, "kiln_pool_prepared", KN_GAUGE, "Monitors that wait for a function.");
	kn_metric_u64(b, "kiln_pool_prepared", &KN_LABEL("class", "bare"), 1,
		      kn_shells_ready(n->shells));
	kn_metric_family(b, "kiln_pool_wanted", KN_GAUGE, "Monitors that are kept waiting.");
	kn_metric_u64(b, "kiln_pool_wanted", &KN_LABEL("class", "bare"), 1, n->options->bare_shells);
}

static void print_disk(const struct kn_node *n, struct kn_buf *b)
{
	struct statvfs fs;
	struct stat file;

	if (fstatvfs(n->state_fd, &fs) == 0) {
		gauge(b, "kiln_disk_size_bytes", "The file system of the state folder.",
		      (uint64_t)fs.f_blocks * fs.f_frsize);
		gauge(b, "kiln_disk_free_bytes", "What is free of it.",
		      (uint64_t)fs.f_bavail * fs.f_frsize);
	}
	if (fstatat(n->state_fd, "kiln.db", &file, 0) == 0)
		gauge(b, "kiln_store_bytes", "The store's database, without its log.",
		      (uint64_t)file.st_size);
}

void kn_node_metrics(struct kn_buf *page, void *node)
{
	const struct kn_node *n = node;

	gauge(page, "kiln_http_busy", "Connections with a request under way.",
	      n->gateway ? kn_gateway_busy(n->gateway) : 0);
	kn_async_metrics(n->async, page);
	print_classes(n, page);
	print_prepared(n, page);
	print_disk(n, page);
	print_build(page);
	kn_metric_process(page);
}
