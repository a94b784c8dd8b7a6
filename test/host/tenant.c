/*
 * A function that takes what it can get, one request a process: what it is to do comes on standard
 * input. Static, so that an image is this one file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The file, its mode and owner, and on what it lies. */
static int show(const char *path)
{
	char text[256];
	struct stat st;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &st) < 0) {
		printf("%s: %s\n", path, strerror(errno));
		return 0;
	}
	ssize_t n = read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	printf("%s %04o %s\n", text, st.st_mode & 07777,
	       st.st_uid == getuid() ? "mine" : "another's");
	return 0;
}

/* Children stay until all of them have been made. */
static int fork_all(void)
{
	int n = 0, hold[2];
	char byte;

	if (pipe(hold) < 0)
		return 1;
	for (;; n++) {
		pid_t pid = fork();
		if (pid < 0)
			break;
		if (pid == 0) {
			close(hold[1]);
			_exit((int)read(hold[0], &byte, 1));
		}
	}
	printf("%d children, then %s\n", n, strerror(errno));
	close(hold[1]);
	while (wait(NULL) > 0)
		;
	return 0;
}

static int fill(const char *path)
{
	static char block[1 << 16];
	long long bytes = 0;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0) {
		printf("%s: %s\n", path, strerror(errno));
		return 0;
	}
	for (ssize_t n; (n = write(fd, block, sizeof(block))) > 0;)
		bytes += n;
	printf("%lld MiB, then %s\n", bytes >> 20, strerror(errno));
	unlink(path);
	return 0;
}

static int chatter(long lines)
{
	for (long i = 0; i < lines; i++)
		fprintf(stderr, "line %ld of a flood of words that nobody wants to read\n", i);
	printf("printed\n");
	return 0;
}

static int pour(void)
{
	static char block[1 << 16];

	memset(block, 'x', sizeof(block));
	while (write(1, block, sizeof(block)) > 0)
		;
	return 1;
}

int main(void)
{
	char what[64] = "", value[256] = "";

	if (scanf("%63s %255s", what, value) < 1)
		return 2;
	if (strcmp(what, "show") == 0)
		return show(value);
	if (strcmp(what, "fork") == 0)
		return fork_all();
	if (strcmp(what, "fill") == 0)
		return fill(value);
	if (strcmp(what, "chatter") == 0)
		return chatter(strtol(value, NULL, 10));
	if (strcmp(what, "pour") == 0)
		return pour();
	printf("hello\n");
	return 0;
}
