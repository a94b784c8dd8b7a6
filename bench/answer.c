/*
 * The function of bench/container: an HTTP server on port 8080 that answers every request with the
 * same few bytes and does nothing else, so that what remains is the start's cost. Static, one thread.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
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

int main(void)
{
	char in[4096];
	int listener = listen_on(8080);

	if (listener < 0)
		return 1;
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			continue;
		if (read(fd, in, sizeof(in)) > 0)
			(void)!write(fd, REPLY, sizeof(REPLY) - 1);
		close(fd);
	}
}
