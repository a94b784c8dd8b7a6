/*
 * kiln-agent: the first process of a Linux guest. Boots what the kernel leaves to do, then serves the
 * host until that takes the machine away. Knows no options: everything comes from the host.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oci/agent.h"
#include "oci/guest.h"

static struct {
	struct kn_loop *loop;
	struct kn_agent *agent;
	struct kn_defer reap;
} self;

/* The console is the only way out before the port is there, and when it breaks. */
static _Noreturn void die(const struct kn_err *err)
{
	fprintf(stderr, "kiln-agent: %s\n", kn_err_text(err));
	fflush(stderr);
	kn_guest_power_off();
}

/*
 * Orphans become children of the first process. The agent's own children are reaped through their
 * pidfds; while one of those is next in the queue, look again in the next round.
 */
static void reap_orphans(struct kn_defer *d)
{
	siginfo_t si = { .si_pid = 0 };

	while (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid) {
		if (kn_agent_owns(self.agent, si.si_pid)) {
			kn_defer_start(self.loop, d);
			return;
		}
		waitpid(si.si_pid, NULL, 0);
		si.si_pid = 0;
	}
}

static void on_signal(const struct signalfd_siginfo *si, void *arg)
{
	(void)si;
	(void)arg;
	kn_defer_start(self.loop, &self.reap);
}

static int prepare(const struct kn_agent_message *configure, void *arg, struct kn_err *err)
{
	int r = 0;

	(void)arg;
	if (configure->address.len > 0)
		r = kn_guest_network(configure->address, configure->gateway, err);
	if (r == 0)
		r = kn_guest_root(configure->hostname, err);
	if (r == 0 && configure->dns.len > 0)
		r = kn_guest_resolver(configure->dns, err);
	return r;
}

static void greet(const struct kn_agent_message *greeting, void *arg)
{
	(void)arg;
	kn_guest_greet(greeting->wall_ns, greeting->entropy);
}

static void failed(const struct kn_err *err, void *arg)
{
	(void)arg;
	die(err);
}

static int serve(struct kn_err *err)
{
	struct kn_agent_config config = { .prepare = prepare, .greet = greet, .failed = failed };
	sigset_t signals;

	int r = kn_loop_new(&self.loop, err);
	if (r < 0)
		return r;
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	self.reap.call = reap_orphans;
	r = kn_loop_signals(self.loop, &signals, on_signal, NULL, err);
	if (r < 0)
		return r;
	int port = kn_guest_port("kiln.agent", err);
	if (port < 0)
		return port;
	r = kn_agent_new(self.loop, port, &config, &self.agent, err);
	return r < 0 ? r : kn_loop_run(self.loop);
}

int main(void)
{
	struct kn_err err = KN_ERR_INIT;

	if (getpid() != 1) {
		fprintf(stderr, "kiln-agent is the first process of a guest; it is not run by hand\n");
		return 2;
	}
	if (kn_guest_boot(&err) == 0)
		(void)!serve(&err);
	die(&err);
}
