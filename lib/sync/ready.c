/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/ready.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/log.h"

enum { BODY_BYTES = 64 << 10, CONNECT_MS = 1000, ANSWER_MS = 5000 };

struct warm_ready {
	const char *url;
	bool has_pattern;
	regex_t pattern;
	int told_fd;
	CURL *curl;
	char body[BODY_BYTES + 1];
	size_t body_bytes;
	pthread_mutex_t lock;
	char last[160], shown[160]; /* under the lock; what warm_ready_last() gave */
};

/* What is over the limit is not looked at, and ends the transfer. */
static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
	struct warm_ready *r = arg;
	size_t bytes = size * n, room = BODY_BYTES - r->body_bytes;
	size_t taken = bytes < room ? bytes : room;

	memcpy(r->body + r->body_bytes, data, taken);
	r->body_bytes += taken;
	return taken == bytes ? bytes : 0;
}

static void set_last(struct warm_ready *r, const char *text)
{
	pthread_mutex_lock(&r->lock);
	snprintf(r->last, sizeof(r->last), "%s", text);
	pthread_mutex_unlock(&r->lock);
}

static bool ask(struct warm_ready *r)
{
	long code = 0;
	char text[64];

	r->body_bytes = 0;
	CURLcode rc = curl_easy_perform(r->curl);
	curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &code);
	/* A long body that was cut has begun at least. */
	if (rc != CURLE_OK && !(rc == CURLE_WRITE_ERROR && r->body_bytes == BODY_BYTES)) {
		set_last(r, curl_easy_strerror(rc));
		return false;
	}
	r->body[r->body_bytes] = '\0';
	snprintf(text, sizeof(text), "HTTP %ld", code);
	if (code / 100 == 2 && r->has_pattern && regexec(&r->pattern, r->body, 0, NULL, 0) != 0)
		snprintf(text, sizeof(text), "HTTP %ld with a body that doesn't match", code);
	else if (code / 100 == 2)
		return true;
	set_last(r, text);
	return false;
}

static void *probe(void *arg)
{
	struct warm_ready *r = arg;
	struct timespec second = { .tv_sec = 1 };
	uint64_t one = 1;

	while (!ask(r))
		nanosleep(&second, NULL);
	curl_easy_cleanup(r->curl);
	r->curl = NULL;
	if (write(r->told_fd, &one, sizeof(one)) < 0)
		warm_log(WARM_LOG_ERROR, "eventfd", "%s", strerror(errno));
	return NULL;
}

static int prepare(struct warm_ready *r, struct warm_error *err)
{
	CURL *c = r->curl = curl_easy_init();

	if (c == NULL)
		return warm_error_nomem(err, 0);
	bool bad = curl_easy_setopt(c, CURLOPT_URL, r->url) != CURLE_OK ||
		   curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK ||
		   curl_easy_setopt(c, CURLOPT_PROXY, "") != CURLE_OK ||
		   curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) != CURLE_OK ||
		   curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L) != CURLE_OK ||
		   curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS) != CURLE_OK ||
		   curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)ANSWER_MS) != CURLE_OK ||
		   /* The model's own container: its certificate says nothing that we need. */
		   curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L) != CURLE_OK ||
		   curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L) != CURLE_OK ||
		   curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body) != CURLE_OK ||
		   curl_easy_setopt(c, CURLOPT_WRITEDATA, r) != CURLE_OK;
	return bad ? warm_error_nomem(err, 0) : 0;
}

int warm_ready_start(const char *url, const char *pattern, int told_fd,
		     struct warm_ready **ret_ready, struct warm_error *err)
{
	pthread_t thread;
	CURLU *parsed = curl_url();

	if (parsed == NULL)
		return warm_error_nomem(err, 0);
	bool is_http = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
	bool valid = is_http && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK;
	curl_url_cleanup(parsed);
	if (!valid)
		return warm_error_set(err, WARM_INVALID,
				      "--ready-url: '%.200s' is no http:// or https:// URL", url);
	struct warm_ready *r = calloc(1, sizeof(*r));
	if (r == NULL)
		return warm_error_nomem(err, sizeof(*r));
	r->url = url;
	r->told_fd = told_fd;
	pthread_mutex_init(&r->lock, NULL);
	snprintf(r->last, sizeof(r->last), "not asked yet");
	int rc = 0;
	if (pattern != NULL && pattern[0] != '\0') {
		int bad = regcomp(&r->pattern, pattern, REG_EXTENDED | REG_NOSUB);
		char why[120];
		if (bad != 0) {
			regerror(bad, &r->pattern, why, sizeof(why));
			rc = warm_error_set(err, WARM_INVALID, "--ready-match: '%.200s': %s",
					    pattern, why);
		}
		r->has_pattern = bad == 0;
	}
	if (rc == 0)
		rc = prepare(r, err);
	if (rc == 0 && pthread_create(&thread, NULL, probe, r) != 0)
		rc = warm_error_set(err, WARM_NO_MEMORY, "can't start a thread");
	if (rc != 0) {
		if (r->curl != NULL)
			curl_easy_cleanup(r->curl);
		if (r->has_pattern)
			regfree(&r->pattern);
		free(r);
		return rc;
	}
	pthread_detach(thread);
	*ret_ready = r;
	return 0;
}

const char *warm_ready_last(struct warm_ready *ready)
{
	pthread_mutex_lock(&ready->lock);
	snprintf(ready->shown, sizeof(ready->shown), "%s", ready->last);
	pthread_mutex_unlock(&ready->lock);
	return ready->shown;
}
