/*
 * The answer of a call is posted to the URL that its caller gave. In a thread: a name may take long
 * to resolve, and TLS is libcurl's business. Redirects are not followed: the caller named the place.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>

#include "base/time.h"
#include "faas/async/private.h"

enum { CONNECT_MS = 5 * 1000, ALL_MS = 15 * 1000 };

static size_t ignore(char *ptr, size_t size, size_t n, void *arg)
{
	(void)ptr;
	(void)arg;
	return size * n;
}

/* The node is leaving: not for the sake of this. */
static int is_over(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	const struct kn_async *queue = arg;

	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return atomic_load(&queue->stop);
}

static struct curl_slist *make_fields(const struct async_call *c)
{
	struct curl_slist *list = NULL;
	char line[MAX_URL];

	snprintf(line, sizeof(line), "X-Call-Id: %s", c->id);
	list = curl_slist_append(list, line);
	snprintf(line, sizeof(line), "X-Function-Name: %s", c->function);
	list = curl_slist_append(list, line);
	snprintf(line, sizeof(line), "X-Function-Status: %d", c->status);
	list = curl_slist_append(list, line);
	snprintf(line, sizeof(line), "X-Duration-Seconds: %.6f", (double)c->took_ns / 1e9);
	list = curl_slist_append(list, line);
	snprintf(line, sizeof(line), "Content-Type: %s",
	         c->content_type ? c->content_type : "application/octet-stream");
	list = curl_slist_append(list, line);
	return curl_slist_append(list, "Expect:");
}

static void set_options(CURL *curl, const struct async_call *c, struct curl_slist *fields)
{
	curl_easy_setopt(curl, CURLOPT_URL, c->callback);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "kiln/" KN_VERSION);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)ALL_MS);
	curl_easy_setopt(curl, CURLOPT_POST, 1L);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->answer.len);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDS, c->answer.len ? c->answer.ptr : "");
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, fields);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, ignore);
	curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, is_over);
	curl_easy_setopt(curl, CURLOPT_XFERINFODATA, c->queue);
}

void callback_send(struct kn_job *job)
{
	struct async_call *c = kn_container_of(job, struct async_call, job);
	struct curl_slist *fields = make_fields(c);
	CURL *curl = curl_easy_init();
	long status = 0;

	c->callback_err = KN_ERR_INIT;
	if (!curl) {
		kn_fail(&c->callback_err, ENOMEM, "no memory for a callback");
	} else {
		set_options(curl, c, fields);
		CURLcode code = curl_easy_perform(curl);
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
		if (code != CURLE_OK)
			kn_fail(&c->callback_err, EIO, "%s", curl_easy_strerror(code));
		else if (status < 200 || status > 299)
			kn_fail(&c->callback_err, EIO, "answered with the status %ld", status);
	}
	curl_slist_free_all(fields);
	curl_easy_cleanup(curl);
}
