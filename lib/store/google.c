/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/google.h"

#include <jansson.h>
#include <pthread.h>
#include <string.h>

#include "lib/store/http.h"

enum { RENEW_MS = 4 * 60 * 1000, AGAIN_MS = 10 * 1000, REFUSED_MS = 5000, TOKEN_MAX_S = 24 * 3600 };

struct warm_google {
	struct warm_http *http;
	pthread_mutex_t lock;
	char *token;
	int64_t renew_ms, expires_ms; /* monotonic */
};

int warm_google_open(struct warm_google **ret_google, struct warm_error *err)
{
	struct warm_google *g = calloc(1, sizeof(*g));
	struct warm_http_options o = { .connections = 1, .local = true };

	if (g == NULL)
		return warm_error_nomem(err, sizeof(*g));
	pthread_mutex_init(&g->lock, NULL);
	int rc = warm_http_open(&o, &g->http, err);
	if (rc != 0) {
		warm_google_free(g);
		return rc;
	}
	*ret_google = g;
	return 0;
}

void warm_google_free(struct warm_google *g)
{
	if (g == NULL)
		return;
	warm_http_free(g->http);
	pthread_mutex_destroy(&g->lock);
	free(g->token);
	free(g);
}

void warm_google_forget(struct warm_google *g)
{
	pthread_mutex_lock(&g->lock);
	free(take_ptr(g->token));
	pthread_mutex_unlock(&g->lock);
}

static int prepare(void *arg, struct warm_http_request *r, const struct warm_call *call,
		   struct warm_error *err)
{
	const char *host = getenv("GCE_METADATA_HOST");

	(void)arg;
	(void)call;
	(void)err;
	r->method = "GET";
	warm_http_request_url(
		r, "http://%s/computeMetadata/v1/instance/service-accounts/default/token",
		host != NULL && host[0] != '\0' ? host : "metadata.google.internal");
	warm_http_request_header(r, "Metadata-Flavor: Google");
	return 0;
}

static int refused(void *arg, const struct warm_http_response *r, bool *ret_again,
		   struct warm_error *err)
{
	(void)arg;
	(void)ret_again;
	return warm_error_set(
		err, r->status >= 500 || r->status == 429 ? WARM_TRANSIENT : WARM_DENIED,
		"it answers %ld%s", r->status,
		r->status == 404 ? ": no service account is bound to this workload" : "");
}

static int fetch(struct warm_google *g, const struct warm_call *call, struct warm_error *err)
{
	scope_response struct warm_http_response response = { 0 };
	struct warm_http_run run = { .prepare = prepare,
				     .refused = refused,
				     .retry_refused_ms = REFUSED_MS };
	json_error_t where;
	int rc = warm_http_run(g->http, &run, &response, call, err);

	if (rc != 0)
		return rc;
	json_t *o = json_loadb((const char *)response.body.data, response.body.bytes, 0, &where);
	const char *token = json_string_value(json_object_get(o, "access_token"));
	int64_t seconds = json_integer_value(json_object_get(o, "expires_in"));
	char *copy = token != NULL && strpbrk(token, "\r\n") == NULL ? strdup(token) : NULL;
	json_decref(o);
	if (copy == NULL)
		return warm_error_set(err, WARM_CORRUPT, "it answers without a token");
	if (seconds > TOKEN_MAX_S)
		seconds = TOKEN_MAX_S;
	int64_t now = warm_clock_ms(), left = seconds > 0 ? seconds * 1000 : AGAIN_MS;
	free(g->token);
	g->token = copy;
	g->expires_ms = now + left;
	g->renew_ms = now + (left > 2 * RENEW_MS ? left - RENEW_MS : left / 2);
	return 0;
}

int warm_google_token(struct warm_google *g, char **ret_token, const struct warm_call *call,
		      struct warm_error *err)
{
	int rc = warm_call_lock(&g->lock, call, err);

	if (rc != 0)
		return rc;
	int64_t now = warm_clock_ms();
	if (g->token == NULL || now >= g->renew_ms) {
		rc = fetch(g, call, err);
		if (rc != 0 && g->token != NULL && now < g->expires_ms) {
			g->renew_ms = now + AGAIN_MS;
			rc = 0;
		}
	}
	if (rc == 0 && (*ret_token = strdup(g->token)) == NULL)
		rc = warm_error_nomem(err, strlen(g->token));
	pthread_mutex_unlock(&g->lock);
	if (rc != 0)
		warm_error_context(err, "Google's metadata server");
	return rc;
}
