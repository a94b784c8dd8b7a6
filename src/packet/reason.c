#include "packet/reason.h"

static const struct {
	const char *name, *text;
} table[KN_REASON_COUNT] = {
#define ROW(id, name, text) [id] = { name, text },
	KN_REASONS(ROW)
#undef ROW
};

const char *kn_reason_name(enum kn_reason reason)
{
	return reason < KN_REASON_COUNT ? table[reason].name : "none";
}

const char *kn_reason_text(enum kn_reason reason)
{
	return reason < KN_REASON_COUNT ? table[reason].text : "not dropped";
}
