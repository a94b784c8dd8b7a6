/* Private to oci/agent: what its parts share. */
#pragma once

#include "base/http.h"
#include "base/loop.h"
#include "oci/agent.h"
#include "oci/agent_user.h"
#include "oci/mux.h"
#include "oci/sandbox.h"

enum {
	MAX_LINES_A_SECOND = 2000,  /* of the function's output; the host takes no more either */
	MAX_BYTES_A_SECOND = 1024 * 1024,
	TAIL_BYTES = 1024,          /* of standard error, for the reason of an end */
	OUTPUT_LIMIT = KN_MUX_DRAINED,  /* unsent bytes of the pipe above which output waits */
};

/* What was printed in the second that began at began_ns, by all outputs. */
struct flood {
	uint64_t began_ns;
	uint32_t lines, bytes;
	uint64_t dropped;
	struct kn_timer timer;          /* when to tell what was dropped */
};

/* One of a process's outputs, cut into lines. */
struct output {
	struct kn_agent *agent;
	struct output *next, **prev;    /* of all that are open, to go on when the pipe drains */
	struct kn_watch watch;
	enum kn_stream stream;
	char line[KN_AGENT_MAX_LINE];
	size_t len;
	char *tail;                     /* TAIL_BYTES of the last output, or NULL */
	size_t *tail_len;
};

/* What is known of the function: from CONFIGURE, for as long as the agent lives. */
struct function {
	struct kn_arena arena;
	const char **argv, **env;
	const char *cwd, *ready_path;
	char *program;                  /* argv[0], found */
	struct kn_user user;
	enum kn_contract contract;
	uint16_t port;
	uint64_t ready_timeout_ms, time_limit_ms, max_reply_bytes;
};

/* A process of the function: leader of its own session. */
struct process {
	struct process *next, **prev;
	struct kn_child child;
	struct output err;
	char tail[TAIL_BYTES];
	size_t tail_len;
	void (*ended)(struct process *p, int wait_status);
};

enum agent_state { WAITING, STARTING, PROBING, SERVING, ENDED };

struct kn_agent {
	struct kn_loop *loop;
	struct kn_agent_config config;
	struct kn_mux *mux;
	enum agent_state state;
	bool stopping;
	struct function fn;
	struct process *processes;
	struct output *outputs;
	struct flood flood;

	/* contract HTTP */
	struct process *main;
	struct output main_out;
	struct probe *probe;

	/* contract STDIO */
	struct kn_http_server *server;
	char server_name[108];          /* abstract address; its first byte is 0 */
	size_t server_name_len;
	struct call *calls;
	struct {                        /* see agent.c; .watch.fd -1: none */
		struct kn_watch watch;
		char *program;
		const char **argv;
	} rehearsal;

	struct kn_timer kill_timer;     /* after STOP: SIGKILL */
	uint64_t oom_kills;             /* those that were told already */
};

/* agent.c */
void agent_say(struct kn_agent *a, const struct kn_agent_message *msg);
/** The function never ran, or cannot be used: say why, once, and kill what is there. */
void agent_failed(struct kn_agent *a, const struct kn_err *why);
void agent_ready(struct kn_agent *a);
void agent_check_stopped(struct kn_agent *a);
/** How a process of the function ended, in words: the kernel's killing for memory is told as that. */
void agent_how(struct kn_agent *a, int wait_status, char *out, size_t len);

/* function.c */
int function_configure(struct function *f, const struct kn_agent_message *m, uid_t id_first,
                       struct kn_err *err);
void function_fini(struct function *f);

/**
 * Start the program. in and out are the child's standard input and output; env adds to the
 * function's. p->ended must be set; p is the caller's memory and joins a's processes.
 */
int process_start(struct kn_agent *a, struct process *p, int in, int out, const char *const *env,
                  struct kn_err *err);
void process_signal(struct process *p, int sig);

/* files.c */
/** Put the message's files into the root, for the function's user. Errors: told by name. */
int files_put(const struct function *f, const struct kn_agent_message *m, uid_t id_first,
              struct kn_err *err);

/* output.c */
/** Cut fd (owned from now on) into log lines. */
int output_start(struct kn_agent *a, struct output *o, int fd, enum kn_stream stream,
                 struct kn_err *err);
/** Take what is there now, say the last line, close. Fine when not started. */
void output_finish(struct output *o);
void outputs_resume(struct kn_agent *a);
/** Tell what was dropped, if anything was. */
void outputs_told(struct kn_agent *a);
void on_flood_time(struct kn_timer *t);
/** The last lines as one printable text: "a / b". */
void tail_text(const char *tail, size_t len, char *out, size_t out_len);

/* probe.c */
/** lightly: an accepting port is enough, whatever the ready path. */
int probe_start(struct kn_agent *a, bool lightly, struct kn_err *err);
void probe_stop(struct kn_agent *a);
/** A non-blocking connection to the function's port. Returns it or -errno. */
int function_connect(const struct kn_agent *a);

/* stdio.c */
int stdio_start(struct kn_agent *a, struct kn_err *err);
int stdio_connect(const struct kn_agent *a);
void stdio_stop(struct kn_agent *a);
