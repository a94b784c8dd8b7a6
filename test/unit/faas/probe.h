/*
 * A raw HTTP client for tests of handlers: one request as text, one reply as text, with the loop
 * turning meanwhile. Connection: close ends the reply.
 */
#pragma once

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/http.h"
#include "base/json.h"

struct probe {
	struct kn_loop *loop;
	char addr[64];
	struct kn_buf reply;       /* of the last request, head and body */
	int status;
	const char *body;          /* inside reply */
};

static int probe_send(struct probe *p, const char *text, size_t len)
{
	struct kn_err err = KN_ERR_INIT;
	int fd = kn_tcp_connect(p->addr, &err);

	assert_ok(fd, &err);
	assert_int_equal(kn_write_all(fd, text, len), 0);
	return fd;
}

static int probe_receive(struct probe *p, int fd)
{
	char part[16384];

	kn_buf_clear(&p->reply);
	p->status = 0;
	p->body = "";
	for (int i = 0; i < 20000; i++) {
		kn_loop_once(p->loop, 1);
		ssize_t n = recv(fd, part, sizeof(part), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		if (n > 0)
			kn_buf_add(&p->reply, part, (size_t)n);
	}
	close(fd);
	if (p->reply.len > 12) {
		p->status = (int)strtol(p->reply.ptr + 9, NULL, 10);
		char *end = strstr(p->reply.ptr, "\r\n\r\n");
		p->body = end ? end + 4 : "";
	}
	return p->status;
}

/*
 * head: start line and fields as text, lines ended by \n, without Host, Connection, Content-Length.
 */
static int probe_call(struct probe *p, const char *head, const char *body)
{
	kn_auto(kn_buf_fini) struct kn_buf text = KN_BUF_INIT;

	for (const char *at = head; *at; at++) {
		if (*at == '\n')
			kn_buf_adds(&text, "\r\n");
		else
			kn_buf_add(&text, at, 1);
	}
	if (text.len < 2 || text.ptr[text.len - 1] != '\n')
		kn_buf_adds(&text, "\r\n");
	kn_buf_printf(&text, "Host: x\r\nConnection: close\r\n");
	if (body)
		kn_buf_printf(&text, "Content-Length: %zu\r\n", strlen(body));
	kn_buf_adds(&text, "\r\n");
	if (body)
		kn_buf_adds(&text, body);
	return probe_receive(p, probe_send(p, text.ptr, text.len));
}

/* The reply's body as JSON, which the caller owns; the test fails when it is none. */
static inline json_t *probe_json(const struct probe *p)
{
	struct kn_err err = KN_ERR_INIT;
	json_t *value = NULL;

	assert_ok(kn_json_parse(kn_view_trim(kn_view_of(p->body)), &value, &err), &err);
	return value;
}

/* The reply as a whole holds this text. */
#define assert_reply_has(p, part)                                                                  \
	do {                                                                                       \
		if (!strstr((p)->reply.ptr ? (p)->reply.ptr : "", (part)))                         \
			fail_msg("'%s' is not in:\n%s", (part),                                    \
			         (p)->reply.ptr ? (p)->reply.ptr : "(nothing)");                   \
	} while (0)
#define assert_status(p, expected)                                                                 \
	do {                                                                                       \
		if ((p)->status != (expected))                                                     \
			fail_msg("status %d, expected %d:\n%s", (p)->status, (expected),           \
			         (p)->reply.ptr ? (p)->reply.ptr : "(nothing)");                   \
	} while (0)
