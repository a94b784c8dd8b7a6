/*
 * The function of bench/container and bench/neighbours: an HTTP server on port 8080 that answers every
 * request with the same few bytes and does nothing else, so that what remains is what Kiln costs.
 * Static; a process a connection.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char REPLY[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\n"
			    "Hello, World\n";

static int listen_on(unsigned short port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 128) < 0)
		return -1;
	return fd;
}

/* Requests have no body here, and come in one piece. */
static void serve(int fd)
{
	char in[4096];
	ssize_t n;

	while ((n = read(fd, in, sizeof(in) - 1)) > 0) {
		in[n] = '\0';
		if (write(fd, REPLY, sizeof(REPLY) - 1) < 0 || strcasestr(in, "connection: close"))
			return;
	}
}

int main(void)
{
	int listener = listen_on(8080);

	if (listener < 0)
		return 1;
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			continue;
		if (fork() == 0) {
			serve(fd);
			_exit(0);
		}
		close(fd);
	}
}
