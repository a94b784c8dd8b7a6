#include <errno.h>

#include "faas/control/private.h"

/*
 * Imports and builds take seconds of a worker each. They take turns, so that the other workers stay
 * free for what is short: the check of a secret must not wait behind an archive.
 */
enum { MAX_IN_LINE = 64 };

int turn_submit(struct kn_control *ctl, struct kn_job *job, bool must, struct kn_err *err)
{
	struct kn_job **last = &ctl->in_line;
	unsigned n = 0;

	if (!ctl->turn_taken) {
		int r = kn_work_submit(ctl->config.work, job, err);
		ctl->turn_taken = r == 0;
		return r;
	}
	for (; *last; last = &(*last)->next)
		n++;
	if (n >= MAX_IN_LINE && !must)
		return kn_fail(err, EAGAIN, "%d images are waited for: try again soon", MAX_IN_LINE);
	job->next = NULL;
	*last = job;
	return 0;
}

/* A job that cannot even be submitted ends here, which gives its turn to the next. */
void turn_over(struct kn_control *ctl)
{
	struct kn_job *job = ctl->in_line;

	ctl->turn_taken = false;
	if (!job)
		return;
	ctl->in_line = job->next;
	if (kn_work_submit(ctl->config.work, job, NULL) == 0)
		ctl->turn_taken = true;
	else
		job->done(job, true);
}
