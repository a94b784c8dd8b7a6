/*
 * kiln-agent: the first process of a Linux guest, or of a container. In a guest it boots what the
 * kernel leaves to do, then serves the host until that takes the machine away; a container it builds
 * around itself, and ends with its host. Everything that it must know comes from the host.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oci/agent.h"
#include "oci/contained.h"
#include "oci/guest.h"

/* Of a function that names no limit: a fork bomb ends here, a Java program does not. */
enum { MAX_PIDS = 1024 };

static struct {
	struct kn_loop *loop;
	struct kn_agent *agent;
	struct kn_defer reap;
	bool guest;
	struct kn_container_config guest_root;
	int processes;   /* where those of the function are counted */
	struct kn_contained contained;
} self;

/* The console is the only way out before the port is there, and when it breaks. */
static _Noreturn void die(const struct kn_err *err)
{
	fprintf(stderr, "kiln-agent: %s\n", kn_err_text(err));
	fflush(stderr);
	if (self.guest)
		kn_guest_power_off();
	_exit(1);   /* and with the first process, all of the container */
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
	self.guest_root.read_only_root = configure->read_only_root;
	self.processes = r = kn_guest_processes(
		configure->max_pids ? configure->max_pids : MAX_PIDS, err);
	if (r >= 0 && configure->address.len > 0)
		r = kn_guest_network(configure->address, configure->gateway, err);
	if (r >= 0)
		r = kn_guest_root(configure->hostname, err);
	if (r == 0 && configure->dns.len > 0)
		r = kn_guest_resolver(configure->dns, err);
	return r;
}

static int enter(void *arg, struct kn_err *err)
{
	(void)arg;
	return kn_guest_enter(self.processes, err);
}

static int resume(const struct kn_agent_message *resume, void *arg, struct kn_err *err)
{
	(void)arg;
	return kn_guest_name(resume->hostname, err);
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

static int seal(void *arg, struct kn_err *err)
{
	(void)arg;
	return kn_container_close(&self.guest_root, err);
}

static uint64_t oom_kills(void *arg)
{
	(void)arg;
	kn_auto(kn_close) int fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	return fd < 0 ? 0 : kn_oom_kills(fd);
}

static int prepare_container(const struct kn_agent_message *configure, void *arg,
                             struct kn_err *err)
{
	int r = kn_contained_prepare(arg, configure, err);

	return r == 0 && configure->dns.len > 0 ? kn_guest_resolver(configure->dns, err) : r;
}

static int seal_container(void *arg, struct kn_err *err)
{
	return kn_contained_seal(arg, err);
}

static uint64_t oom_kills_in_container(void *arg)
{
	return kn_contained_oom_kills(arg);
}

static const struct kn_agent_config guest_config = { .prepare = prepare,
	                                             .seal = seal,
	                                             .oom_kills = oom_kills,
	                                             .enter = enter,
	                                             .greet = greet,
	                                             .resume = resume,
	                                             .failed = failed };

static struct kn_agent_config container_config(void)
{
	return (struct kn_agent_config){ .prepare = prepare_container,
		                         .seal = seal_container,
		                         .oom_kills = oom_kills_in_container,
		                         .failed = failed,
		                         .id_first = self.contained.id_first,
		                         .final_pipe = true,
		                         .arg = &self.contained };
}

static int serve(struct kn_err *err)
{
	struct kn_agent_config config = self.guest ? guest_config : container_config();
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
	int port = self.guest ? kn_guest_port("kiln.agent", err) : KN_CONTAINED_PIPE_FD;
	if (port < 0)
		return port;
	r = kn_agent_new(self.loop, port, &config, &self.agent, err);
	return r < 0 ? r : kn_loop_run(self.loop);
}

int main(int argc, char **argv)
{
	struct kn_err err = KN_ERR_INIT;

	if (getpid() != 1) {
		fprintf(stderr, "kiln-agent is the first process of a guest or of a container; it is "
		                "not run by hand\n");
		return 2;
	}
	self.guest = argc < 2 || strcmp(argv[KN_CONTAINED_MODE], KN_CONTAINED) != 0;
	int r = self.guest ? kn_guest_boot(&err)
	                   : kn_contained_init(&self.contained, argc, argv, &err);
	if (r == 0)
		(void)!serve(&err);
	die(&err);
}
