#include <stdio.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cmd/hosting/private.h"

const char *kn_class_state_name(enum kn_class_state s)
{
	static const char *const names[] = { "works", "incomplete", "impossible", "planned" };

	return names[s];
}

const char *kn_part_state_name(enum kn_part_state s)
{
	static const char *const names[] = { "good", "limited", "missing" };

	return names[s];
}

static json_t *host_object(void)
{
	struct utsname u;
	struct sysinfo s;

	if (uname(&u) < 0 || sysinfo(&s) < 0)
		return json_object();
	uint64_t memory_bytes = (uint64_t)s.totalram * s.mem_unit;
	return json_pack("{s:s,s:s,s:I,s:I}", "kernel", u.release, "arch", u.machine, "cpus",
			 (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "memory_bytes",
			 (json_int_t)memory_bytes);
}

static json_t *kvm_object(const struct kn_hosting *h)
{
	const struct kn_probe *p = &h->probe;

	return json_pack(
		"{s:s,s:s,s:b,s:b,s:i,s:I,s:I,s:f,s:f,s:s}", "device", h->kvm_device, "verdict",
		kn_probe_verdict_name(p->verdict), "present", p->present, "permitted", p->permitted,
		"api_version", p->api_version, "create_ns", (json_int_t)p->create_ns, "exit_ns",
		(json_int_t)p->exit_ns, "ring3_ns_per_instruction", (double)p->ring3_ps / 1000,
		"ring0_ns_per_instruction", (double)p->ring0_ps / 1000, "reason", p->reason);
}

static json_t *classes_array(const struct kn_hosting *h)
{
	json_t *list = json_array();

	for (int c = 0; c < KN_CLASSES; c++) {
		if (c == KN_CLASS_UNIX && !h->classes[c].ops)
			continue; /* of no interest to who does not develop functions */
		const struct kn_engine_class *k = &h->classes[c];
		json_array_append_new(list, json_pack("{s:s,s:s,s:s?,s:s,s:s}", "class",
						      kn_class_name((enum kn_class)c), "state",
						      kn_class_state_name(h->states[c]),
						      "hypervisor", k->hypervisor, "why", k->why,
						      "security", h->security[c]));
	}
	return list;
}

static json_t *parts_array(const struct kn_hosting *h)
{
	json_t *list = json_array();

	for (size_t i = 0; i < h->n_parts; i++) {
		const struct kn_part *p = &h->parts[i];
		json_array_append_new(list,
				      json_pack("{s:s,s:s,s:s,s:s,s:s?}", "name", p->name, "state",
						kn_part_state_name(p->state), "found", p->found,
						"needed_for", p->needed_for, "fix", p->fix));
	}
	return list;
}

/* "Classes microvm, bare and nf work here." and what is missing. */
static void make_verdict(const struct kn_hosting *h, bool *ret_ok, struct kn_buf *text)
{
	static const char *const says[] = { "works", "lacks a part", "is impossible here",
					    "is planned" };
	const char *between = "";

	*ret_ok = true;
	for (int c = 0; c < KN_CLASSES; c++) {
		if (h->states[c] == KN_CLASS_PLANNED)
			continue;
		kn_buf_printf(text, "%s%s %s", between, kn_class_name((enum kn_class)c),
			      says[h->states[c]]);
		between = ", ";
		*ret_ok = *ret_ok && h->states[c] != KN_CLASS_LACKS;
	}
}

json_t *kn_hosting_report(const struct kn_hosting *h)
{
	kn_auto(kn_buf_fini) struct kn_buf verdict = KN_BUF_INIT;
	bool ok;

	make_verdict(h, &ok, &verdict);
	if (verdict.failed)
		return NULL;
	return json_pack("{s:s,s:o,s:o,s:o,s:o,s:b,s:s}", "version", KN_VERSION, "host",
			 host_object(), "kvm", kvm_object(h), "classes", classes_array(h), "parts",
			 parts_array(h), "ok", ok, "verdict", verdict.ptr);
}
