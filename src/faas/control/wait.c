#include <stdlib.h>

#include "faas/control/private.h"

static void on_gone(struct kn_http_exchange *x, void *arg)
{
	struct waiting *w = arg;

	(void)x;
	w->x = NULL;
}

struct waiting *wait_new(struct kn_control *ctl, struct kn_http_exchange *x)
{
	struct waiting *w = calloc(1, sizeof(*w));

	if (!w) {
		kn_reply_error(x, 503, "out of memory", "try again soon");
		return NULL;
	}
	w->ctl = ctl;
	w->x = x;
	kn_http_set_hooks(x, &(struct kn_http_hooks){ .gone = on_gone, .arg = w });
	return w;
}

struct kn_http_exchange *wait_end(struct waiting *w)
{
	static const struct kn_http_hooks none;
	struct kn_http_exchange *x = w->x;

	free(w);
	if (x)
		kn_http_set_hooks(x, &none);
	return x;
}
