/* Egress policies: what is read keeps its promises, whatever the text was. */
#include "fuzz.h"

#include "host/egress.h"

static void check_rule(const struct kn_egress_rule *r)
{
	uint32_t below = r->prefix == 0 ? UINT32_MAX : UINT32_MAX >> 1 >> (r->prefix - 1);

	must(r->protocols >= KN_EGRESS_TCP && r->protocols <= KN_EGRESS_BOTH);
	must(r->port_first <= r->port_last);
	if (r->name) {
		must(kn_egress_name_ok(kn_view_of(r->name)));
		must(r->below != kn_egress_names(r, kn_view_of(r->name)));
	} else {
		must(r->prefix <= 32 && (r->address & below) == 0);
		must(!kn_egress_names(r, KN_VIEW("example.org")));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct kn_egress *e = NULL;
	struct kn_err err = KN_ERR_INIT;
	struct kn_arena arena;

	kn_arena_init(&arena);
	if (kn_egress_parse(fuzz_view(data, size), &arena, &e, &err) < 0) {
		must(err.code && err.text[0]);
	} else if (e) {
		must(e->n_rules > 0 && e->n_rules <= KN_EGRESS_MAX_RULES);
		for (size_t i = 0; i < e->n_rules; i++)
			check_rule(&e->rules[i]);
	}
	kn_arena_fini(&arena);
	return 0;
}
