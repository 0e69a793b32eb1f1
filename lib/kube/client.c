/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kube/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/base/option.h"
#include "lib/kube/credential.h"
#include "lib/kube/refusal.h"

enum {
	ANSWER_BYTES = 64 << 20, /* of an answer, of a list put together, of an event */
	REFUSAL_BYTES = 1 << 20,
	CONNECT_MS = 10 * 1000,
	SILENT_S = 70, /* an API server ends a request after 60 s */
	POLL_MS = 50,
	TRIES = 5,
	BACKOFF_MS = 200,
	BACKOFF_MAX_MS = 5000,
	RETRY_AFTER_MAX_MS = 30 * 1000,
	PIECE_ITEMS = 500, /* of the list that a watch begins with */
	WATCH_MIN_S = 300,
	WATCH_MAX_S = 600,
	WATCH_GRACE_S = 30,
	AWAY_MS = 1000, /* a watch's back-off, doubled up to: */
	AWAY_MAX_MS = 30 * 1000,
	KEEPALIVE_IDLE_S = 30,
	KEEPALIVE_S = 10,
	KEEPALIVES = 3,
};

/* A connection of its own: one for requests and one for a watch, so that what a watch tells may lead
 * to requests. */
struct line {
	CURL *easy;
	CURLM *multi;
};

struct warm_kube {
	struct warm_kube_config config;
	struct warm_kube_credential credential;
	struct line asking, watching;
	char *host;	  /* "Host: ...", where TLS goes by another name */
	char *connect_to; /* for curl: from that name to the server */
	char *base;	  /* URL that paths are appended to */
	char *proxy;
};

/* ---- opening ---- */

static char agent[64];

static void global_init(void)
{
	snprintf(agent, sizeof(agent), "warmcache/%s", warm_version);
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static char *part_of(CURLU *url, CURLUPart part, unsigned flags)
{
	char *text = NULL, *copy = NULL;

	if (curl_url_get(url, part, &text, flags) == CURLUE_OK)
		copy = strdup(text);
	curl_free(text);
	return copy;
}

/* TLS by another name: curl takes the name from the URL, so that holds it, and connects elsewhere. */
static int use_server_name(struct warm_kube *k, CURLU *url, struct warm_error *err)
{
	const char *name = k->config.tls_server_name;
	scope_free char *host = part_of(url, CURLUPART_HOST, 0);
	scope_free char *port = part_of(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);

	if (host == NULL || port == NULL)
		return warm_error_nomem(err, strlen(k->config.server));
	if (asprintf(&k->connect_to, "::%s:%s", host, port) < 0)
		k->connect_to = NULL;
	if (asprintf(&k->host, "Host: %s:%s", host, port) < 0)
		k->host = NULL;
	if (k->connect_to == NULL || k->host == NULL)
		return warm_error_nomem(err, strlen(host));
	CURLUcode code = curl_url_set(url, CURLUPART_HOST, name, 0);
	if (code == CURLUE_OUT_OF_MEMORY)
		return warm_error_nomem(err, strlen(name));
	if (code != CURLUE_OK)
		return warm_error_set(err, WARM_INVALID, "%.200s: tls-server-name is no name",
				      k->config.cluster_from);
	free(k->base);
	k->base = part_of(url, CURLUPART_URL, 0);
	return k->base == NULL ? warm_error_nomem(err, strlen(name)) : 0;
}

static int make_base(struct warm_kube *k, struct warm_error *err)
{
	CURLU *url = curl_url();
	CURLUcode code = url != NULL ? curl_url_set(url, CURLUPART_URL, k->config.server, 0)
				     : CURLUE_OUT_OF_MEMORY;
	int rc = 0;

	if (code == CURLUE_OK && (k->base = strdup(k->config.server)) == NULL)
		code = CURLUE_OUT_OF_MEMORY;
	if (code == CURLUE_OUT_OF_MEMORY)
		rc = warm_error_nomem(err, strlen(k->config.server));
	else if (code != CURLUE_OK)
		rc = warm_error_set(err, WARM_INVALID, "%.200s: its server is no URL",
				    k->config.cluster_from);
	else if (k->config.tls_server_name != NULL)
		rc = use_server_name(k, url, err);
	curl_url_cleanup(url);
	for (size_t n = k->base != NULL ? strlen(k->base) : 0; n > 0 && k->base[n - 1] == '/'; n--)
		k->base[n - 1] = '\0';
	return rc;
}

/* kubectl's socks5 leaves names to the proxy. */
static int make_proxy(struct warm_kube *k, struct warm_error *err)
{
	const char *url = k->config.proxy_url;

	if (url == NULL)
		return 0;
	k->proxy = strncasecmp(url, "socks5://", 9) == 0 ? warm_kube_join("socks5h://", url + 9)
							 : strdup(url);
	return k->proxy == NULL ? warm_error_nomem(err, strlen(url)) : 0;
}

int warm_kube_open(const struct warm_kube_options *options, struct warm_kube **ret_kube,
		   struct warm_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const struct warm_kube_sources sources = { .kubeconfig = options->kubeconfig,
						   .context = options->context };
	scope_kube struct warm_kube *k = calloc(1, sizeof(*k));

	pthread_once(&once, global_init);
	if (k == NULL)
		return warm_error_nomem(err, sizeof(*k));
	int rc = warm_kube_config_load(&sources, &k->config, err);
	k->credential.config = &k->config;
	if (rc == 0)
		rc = make_base(k, err);
	if (rc == 0)
		rc = make_proxy(k, err);
	if (rc == 0)
		*ret_kube = take_ptr(k);
	return rc;
}

static void line_release(struct line *l)
{
	if (l->easy != NULL)
		curl_easy_cleanup(l->easy);
	if (l->multi != NULL)
		curl_multi_cleanup(l->multi);
}

void warm_kube_free(struct warm_kube *k)
{
	if (k == NULL)
		return;
	line_release(&k->asking);
	line_release(&k->watching);
	warm_kube_credential_release(&k->credential);
	warm_kube_config_release(&k->config);
	free(k->host);
	free(k->connect_to);
	free(k->base);
	free(k->proxy);
	free(k);
}

const char *warm_kube_namespace(const struct warm_kube *k)
{
	return k->config.namespace;
}

const char *warm_kube_server(const struct warm_kube *k)
{
	return k->config.server;
}

/* ---- one try ---- */

/* A request, and what has come of its answer. */
struct exchange {
	const char *method, *path;
	const char *body; /* NULL: none */
	size_t max_bytes;
	bool beginning; /* what comes behind max_bytes isn't wanted */
	bool watch;
	/* After each piece of a 200's body: 0 go on, 1 enough, or an error. */
	int (*take)(void *arg, struct warm_buf *body, struct warm_error *err);
	void *take_arg;

	CURL *easy;
	long status;
	char retry_after[64];
	struct warm_buf answer;
	bool enough, too_large;
	bool may_have_arrived;
};

static void exchange_release(struct exchange *x)
{
	warm_buf_release(&x->answer);
}
#define scope_exchange WARM_SCOPE(exchange_release)

static bool is_success(long status)
{
	return status >= 200 && status < 300;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	static const char name[] = "retry-after:";
	struct exchange *x = arg;

	n *= size;
	if (n >= 5 && strncmp(data, "HTTP/", 5) == 0)
		x->retry_after[0] = '\0';
	if (n < sizeof(name) || strncasecmp(data, name, sizeof(name) - 1) != 0)
		return n;
	const char *value = data + sizeof(name) - 1, *end = data + n;
	while (value < end && strchr(" \t", *value) != NULL)
		value++;
	while (end > value && strchr(" \t\r\n", end[-1]) != NULL)
		end--;
	snprintf(x->retry_after, sizeof(x->retry_after), "%.*s", (int)(end - value), value);
	return n;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;

	n *= size;
	if (x->status == 0)
		curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &x->status);
	size_t most = is_success(x->status) ? x->max_bytes : REFUSAL_BYTES;
	size_t room = most - x->answer.bytes, kept = n < room ? n : room;
	warm_buf_put(&x->answer, data, kept);
	if (x->answer.failed)
		return CURL_WRITEFUNC_ERROR;
	if (kept == n)
		return n;
	/* A refusal's beginning says enough. */
	if (x->beginning || !is_success(x->status))
		x->enough = true;
	else
		x->too_large = true;
	return CURL_WRITEFUNC_ERROR;
}

/* A server that is gone without a word is found out in a minute. */
static int on_socket(void *arg, curl_socket_t fd, curlsocktype type)
{
	int probes = KEEPALIVES;

	(void)arg;
	(void)type;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	return CURL_SOCKOPT_OK;
}

static CURLcode set_blob(CURL *easy, CURLoption option, const char *text)
{
	struct curl_blob blob = { (void *)(uintptr_t)text, strlen(text), CURL_BLOB_COPY };

	return curl_easy_setopt(easy, option, &blob);
}

static CURLcode set_pem(CURL *easy, CURLoption file, CURLoption blob,
			const struct warm_kube_pem *pem, const char *newer)
{
	if (newer != NULL)
		return set_blob(easy, blob, newer);
	if (pem->data != NULL)
		return set_blob(easy, blob, pem->data);
	return pem->file != NULL ? curl_easy_setopt(easy, file, pem->file) : CURLE_OK;
}

static CURLcode set_tls(const struct warm_kube *k, CURL *easy)
{
	const struct warm_kube_config *f = &k->config;
	CURLcode code = CURLE_OK;

	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (f->insecure) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	/* The cluster's authority alone, not the system's beside it. */
	if (f->ca.file != NULL || f->ca.data != NULL)
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	code = set_pem(easy, CURLOPT_CAINFO, CURLOPT_CAINFO_BLOB, &f->ca, NULL);
	if (code == CURLE_OK)
		code = set_pem(easy, CURLOPT_SSLCERT, CURLOPT_SSLCERT_BLOB, &f->cert,
			       k->credential.cert);
	if (code == CURLE_OK)
		code = set_pem(easy, CURLOPT_SSLKEY, CURLOPT_SSLKEY_BLOB, &f->key,
			       k->credential.key);
	/* Nobody is asked for a passphrase. */
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_KEYPASSWD, "");
	return code;
}

static CURLcode set_route(const struct warm_kube *k, CURL *easy, struct curl_slist *connect_to)
{
	CURLcode code = CURLE_OK;

	if (connect_to != NULL)
		curl_easy_setopt(easy, CURLOPT_CONNECT_TO, connect_to);
	if (k->proxy == NULL)
		return code;
	code = curl_easy_setopt(easy, CURLOPT_PROXY, k->proxy);
	return code != CURLE_OK ? code : curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
}

static void set_limits(const struct exchange *x, CURL *easy)
{
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_IDLE_S);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_S);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
	if (x->watch) {
		curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long)(WATCH_MAX_S + WATCH_GRACE_S));
		return;
	}
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)SILENT_S);
}

static CURLcode set_request(struct exchange *x, CURL *easy)
{
	CURLcode code = CURLE_OK;

	if (x->body != NULL) {
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, x->body);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(x->body));
	}
	if (x->body != NULL || strcmp(x->method, "GET") != 0)
		code = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, x->method);
	/* curl sends anew what a kept connection has lost; a POST may have arrived. */
	if (strcmp(x->method, "POST") == 0)
		curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	return code;
}

static CURLcode set_options(struct warm_kube *k, struct exchange *x, const char *url,
			    struct curl_slist *headers, struct curl_slist *connect_to, char *detail)
{
	CURL *easy = x->easy;

	curl_easy_reset(easy);
	CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a resolver that hangs is left alone */
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 1L);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, detail);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_USERAGENT, agent);
	if (code == CURLE_OK && k->config.username != NULL) {
		const char *password = k->config.password;
		curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		code = curl_easy_setopt(easy, CURLOPT_USERNAME, k->config.username);
		if (code == CURLE_OK)
			code = curl_easy_setopt(easy, CURLOPT_PASSWORD,
						password != NULL ? password : "");
	}
	set_limits(x, easy);
	if (code == CURLE_OK)
		code = set_request(x, easy);
	if (code == CURLE_OK)
		code = set_tls(k, easy);
	return code == CURLE_OK ? set_route(k, easy, connect_to) : code;
}

static int add_header(struct curl_slist **list, const char *a, const char *b,
		      struct warm_error *err)
{
	scope_free char *text = warm_kube_join(a, b);
	struct curl_slist *more = text != NULL ? curl_slist_append(*list, text) : NULL;

	if (more == NULL)
		return warm_error_nomem(err, strlen(b));
	*list = more;
	return 0;
}

static int make_headers(const struct warm_kube *k, const struct exchange *x,
			struct curl_slist **list, struct warm_error *err)
{
	bool patch = strcmp(x->method, "PATCH") == 0;
	int rc = add_header(list, "Expect:", "", err);

	if (rc == 0)
		rc = add_header(list, "Accept: application/json",
				x->beginning ? ", text/plain, */*" : "", err);
	if (rc == 0 && x->body != NULL)
		rc = add_header(list, "Content-Type: application/",
				patch ? "merge-patch+json" : "json", err);
	if (rc == 0 && k->credential.token != NULL)
		rc = add_header(list, "Authorization: Bearer ", k->credential.token, err);
	if (rc == 0 && k->host != NULL)
		rc = add_header(list, k->host, "", err);
	return rc;
}

static int drive(struct line *l, struct exchange *x, const struct warm_call *call,
		 CURLcode *ret_code, struct warm_error *err)
{
	int running = 1, left = 0, rc = 0;

	if (curl_multi_add_handle(l->multi, l->easy) != CURLM_OK)
		return warm_error_nomem(err, sizeof(*l));
	while (rc == 0 && running > 0) {
		if (curl_multi_perform(l->multi, &running) != CURLM_OK)
			rc = warm_error_nomem(err, sizeof(*l));
		if (rc == 0 && x->take != NULL && x->status == 200)
			rc = x->take(x->take_arg, &x->answer, err);
		if (rc == 0 && running > 0)
			rc = warm_call_check(call, err);
		int64_t wait = warm_call_left_ms(call, call != NULL ? POLL_MS : 1000);
		if (rc == 0 && running > 0 && wait > 0)
			curl_multi_poll(l->multi, NULL, 0, (int)wait, NULL);
	}
	*ret_code = CURLE_OK;
	for (CURLMsg *m; (m = curl_multi_info_read(l->multi, &left)) != NULL;)
		if (m->msg == CURLMSG_DONE)
			*ret_code = m->data.result;
	curl_multi_remove_handle(l->multi, l->easy);
	if (rc == 1)
		x->enough = true;
	return rc == 1 ? 0 : rc;
}

/* What curl says, without the proxy's URL. */
static const char *curl_says(CURLcode code, const char *detail)
{
	return detail[0] != '\0' ? detail : curl_easy_strerror(code);
}

static int untrusted(const struct warm_kube *k, const char *detail, struct warm_error *err)
{
	if (strstr(detail, "expired") != NULL || strstr(detail, "not yet valid") != NULL)
		return warm_error_set(
			err, WARM_DENIED,
			"the certificate of %.120s isn't valid now (%.120s): renew it, "
			"or set the clock",
			k->config.server, detail);
	if (strstr(detail, "subject name") != NULL || strstr(detail, "subjectAltName") != NULL ||
	    strstr(detail, "target host name") != NULL)
		return warm_error_set(err, WARM_DENIED,
				      "the certificate of %.120s is for another name (%.120s): "
				      "tls-server-name of %.100s can give it",
				      k->config.server, detail, k->config.cluster_from);
	return warm_error_set(err, WARM_DENIED,
			      "the certificate of %.120s isn't trusted (%.120s): is "
			      "certificate-authority of %.100s that of this cluster?",
			      k->config.server, detail, k->config.cluster_from);
}

static int explain(struct warm_kube *k, CURLcode code, CURL *easy, const char *detail,
		   struct warm_error *err)
{
	const char *server = k->config.server;
	const char *says = curl_says(code, detail);
	long os_errno = 0;

	curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_errno);
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return warm_error_set(
			err, WARM_TRANSIENT,
			"can't resolve the name of %.160s (%.100s): check it, and DNS in "
			"this network",
			server, k->config.cluster_from);
	case CURLE_COULDNT_RESOLVE_PROXY:
		return warm_error_set(err, WARM_TRANSIENT,
				      "can't resolve the proxy's name, on the way to %.160s",
				      server);
	case CURLE_COULDNT_CONNECT: {
		int rc = warm_error_set(
			err, WARM_TRANSIENT, "can't connect to %.160s (%.120s): %.100s", server,
			k->config.cluster_from, os_errno != 0 ? strerror((int)os_errno) : says);
		err->os_errno = (int)os_errno;
		return rc;
	}
	case CURLE_OPERATION_TIMEDOUT:
		return warm_error_set(err, WARM_TRANSIENT, "%.160s doesn't answer: %.160s", server,
				      says);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_ISSUER_ERROR:
		return untrusted(k, says, err);
	case CURLE_SSL_CACERT_BADFILE:
		return warm_error_set(err, WARM_DENIED, "certificate-authority of %.200s: %.120s",
				      k->config.cluster_from, says);
	case CURLE_SSL_CERTPROBLEM:
		return warm_error_set(err, WARM_DENIED, "client certificate of %.200s: %.160s",
				      k->config.user_from, says);
	case CURLE_OUT_OF_MEMORY:
		return warm_error_nomem(err, 0);
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return warm_error_set(err, WARM_INVALID, "%.160s: %.120s", server, says);
	default:
		return warm_error_set(err, WARM_TRANSIENT, "%.160s: %.160s", server, says);
	}
}

static int check_answer(struct warm_kube *k, struct exchange *x, CURLcode code, const char *detail,
			struct warm_error *err)
{
	long sent = 0;

	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &x->status);
	curl_easy_getinfo(x->easy, CURLINFO_REQUEST_SIZE, &sent);
	x->may_have_arrived = sent > 0;
	if (x->answer.failed)
		return warm_error_nomem(err, x->answer.bytes);
	if (x->too_large)
		return warm_error_set(err, WARM_LIMIT, "%.160s answers with over %zu bytes",
				      k->config.server, x->max_bytes);
	if (code != CURLE_OK && !x->enough)
		return explain(k, code, x->easy, detail, err);
	warm_buf_put_u8(&x->answer, 0);
	if (x->answer.failed)
		return warm_error_nomem(err, x->answer.bytes);
	x->answer.bytes--;
	return 0;
}

/* 0 when an answer came, whatever its status. */
static int try_once(struct warm_kube *k, struct line *l, struct exchange *x,
		    const struct warm_call *call, struct warm_error *err)
{
	struct curl_slist *headers = NULL, *connect_to = NULL;
	char detail[CURL_ERROR_SIZE] = "";
	scope_free char *url = warm_kube_join(k->base, x->path);
	CURLcode code = CURLE_OK;

	x->status = 0;
	x->answer.bytes = 0;
	x->enough = x->too_large = x->may_have_arrived = false;
	x->retry_after[0] = '\0';
	if (l->multi == NULL)
		l->multi = curl_multi_init();
	if (l->easy == NULL)
		l->easy = curl_easy_init();
	if (url == NULL || l->multi == NULL || l->easy == NULL)
		return warm_error_nomem(err, strlen(x->path));
	x->easy = l->easy;
	int rc = warm_kube_credential_get(&k->credential, call, err);
	if (rc == 0)
		rc = make_headers(k, x, &headers, err);
	if (rc == 0 && k->connect_to != NULL)
		rc = add_header(&connect_to, k->connect_to, "", err);
	if (rc == 0) {
		code = set_options(k, x, url, headers, connect_to, detail);
		rc = code != CURLE_OK ? explain(k, code, l->easy, detail, err)
				      : drive(l, x, call, &code, err);
	}
	if (rc == 0)
		rc = check_answer(k, x, code, detail, err);
	/* Nothing of this frame is left in the handle. */
	curl_easy_reset(l->easy);
	curl_slist_free_all(headers);
	curl_slist_free_all(connect_to);
	return rc;
}

/* ---- tries ---- */

static int64_t asked_to_wait_ms(const struct exchange *x)
{
	char *end;
	long seconds = strtol(x->retry_after, &end, 10);

	if (x->retry_after[0] == '\0')
		return -1;
	if (*end != '\0') {
		time_t at = curl_getdate(x->retry_after, NULL);
		if (at == -1)
			return -1;
		seconds = (long)(at - time(NULL));
	}
	if (seconds < 0)
		seconds = 0;
	return seconds > RETRY_AFTER_MAX_MS / 1000 ? RETRY_AFTER_MAX_MS : (int64_t)seconds * 1000;
}

static int64_t jittered(int64_t ms)
{
	uint32_t random;

	warm_random(&random, sizeof(random));
	return (int64_t)(random % (uint64_t)(ms + 1));
}

static int64_t backoff_ms(int tries, const struct exchange *x)
{
	int64_t asked = asked_to_wait_ms(x), most = (int64_t)BACKOFF_MS << tries;

	if (most > BACKOFF_MAX_MS)
		most = BACKOFF_MAX_MS;
	return asked >= 0 ? asked + jittered(most) / 10 : jittered(most);
}

static bool is_busy(long status)
{
	return status == 429 || (status >= 500 && status <= 504 && status != 501);
}

/* A POST is sent again only when the server says that it did nothing with it. */
static bool may_send_again(const struct exchange *x, int rc)
{
	bool post = strcmp(x->method, "POST") == 0;

	if (rc != 0)
		return rc == WARM_TRANSIENT && !(post && x->may_have_arrived);
	if (!is_busy(x->status))
		return false;
	return !post || x->status == 429 || (x->status == 503 && x->retry_after[0] != '\0');
}

/* Null for what is no JSON. */
static int parse(const struct warm_buf *answer, json_t **ret_value, struct warm_error *err)
{
	json_error_t why;

	*ret_value = NULL;
	if (answer->bytes == 0)
		return 0;
	*ret_value = json_loadb((const char *)answer->data, answer->bytes, JSON_ALLOW_NUL, &why);
	return *ret_value == NULL && warm_kube_no_memory(&why)
		       ? warm_error_nomem(err, answer->bytes)
		       : 0;
}

static int refuse(struct warm_kube *k, const struct exchange *x, struct warm_error *err)
{
	char credential[300];
	json_t *status = NULL;
	int rc = parse(&x->answer, &status, err);
	const char *kind = json_string_value(json_object_get(status, "kind"));
	struct warm_kube_refusal r = {
		.method = x->method,
		.path = x->path,
		.server = k->config.server,
		.credential = warm_kube_credential_name(&k->credential, credential,
							sizeof(credential)),
		.http_status = x->status,
		.status = kind != NULL && strcmp(kind, "Status") == 0 ? status : NULL,
	};

	if (rc == 0)
		rc = warm_kube_refuse(&r, err);
	json_decref(status);
	return rc;
}

static void add_context(const struct exchange *x, struct warm_error *err)
{
	int bytes = (int)strcspn(x->path, "?");

	warm_error_context(err, "%s %.*s", x->method, bytes < 120 ? bytes : 120, x->path);
}

/* Until an answer is no refusal that another try may turn. 0 when a 2xx came. */
static int exchange(struct warm_kube *k, struct line *l, struct exchange *x, int tries,
		    const struct warm_call *call, struct warm_error *err)
{
	bool renewed = false;

	for (int made = 0;;) {
		int rc = warm_call_check(call, err);
		if (rc == 0)
			rc = try_once(k, l, x, call, err);
		made++;
		if (rc == 0 && is_success(x->status))
			return 0;
		if (rc == 0 && x->status == 401 && !renewed) {
			bool again = false;
			renewed = true;
			rc = warm_kube_credential_renew(&k->credential, &again, call, err);
			if (rc == 0 && again)
				continue;
		}
		if (may_send_again(x, rc) && made < tries &&
		    warm_call_rest(backoff_ms(made, x), call))
			continue;
		if (rc == 0)
			return refuse(k, x, err);
		if (rc == WARM_TRANSIENT && warm_call_check(call, NULL) != 0)
			rc = warm_call_check(call, err);
		add_context(x, err);
		return rc;
	}
}

/* ---- requests ---- */

static int take_json(struct warm_kube *k, const struct exchange *x, json_t **ret_answer,
		     struct warm_error *err)
{
	json_t *answer = NULL;
	int rc = parse(&x->answer, &answer, err);

	if (rc == 0 && answer == NULL && x->answer.bytes == 0 && x->status == 204)
		answer = json_null();
	if (rc == 0 && answer == NULL)
		rc = warm_error_set(err, WARM_CORRUPT,
				    "%.200s answers %ld with what is no JSON: is it an API server?",
				    k->config.server, x->status);
	if (rc != 0) {
		add_context(x, err);
		return rc;
	}
	*ret_answer = answer;
	return 0;
}

static int ask(struct warm_kube *k, const char *method, const char *path, const char *body,
	       size_t *room, const struct warm_call *call, json_t **ret_answer,
	       struct warm_error *err)
{
	scope_exchange struct exchange x = {
		.method = method, .path = path, .body = body, .max_bytes = *room
	};
	int rc = exchange(k, &k->asking, &x, TRIES, call, err);

	if (rc == 0)
		rc = take_json(k, &x, ret_answer, err);
	if (rc == 0)
		*room -= x.answer.bytes;
	return rc;
}

static void encode(struct warm_buf *buf, const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
				    "-._~";

	for (; *text != '\0'; text++)
		if (strchr(plain, *text) != NULL)
			warm_buf_put_u8(buf, (uint8_t)*text);
		else
			warm_buf_printf(buf, "%%%02X", (unsigned char)*text);
}

/* `path` with a parameter more, NULL when out of memory. */
static char *with_param(const char *path, const char *name, const char *value)
{
	struct warm_buf buf = WARM_BUF_INIT;

	warm_buf_printf(&buf, "%s%c%s=", path, strchr(path, '?') != NULL ? '&' : '?', name);
	encode(&buf, value);
	warm_buf_put_u8(&buf, 0);
	if (buf.failed)
		warm_buf_release(&buf);
	return (char *)buf.data;
}

/* `path` without one of its parameters. */
static char *without_param(const char *path, const char *name)
{
	size_t n = strlen(name), kept = 0;
	char *text = strdup(path);
	char *query = text != NULL ? strchr(text, '?') : NULL;

	if (query == NULL)
		return text;
	const char *from = path + (query - text);
	for (query++; *from != '\0';) {
		from++;
		size_t bytes = strcspn(from, "&");
		if (strncmp(from, name, n) != 0 || from[n] != '=') {
			if (kept > 0)
				query[kept++] = '&';
			memcpy(query + kept, from, bytes);
			kept += bytes;
		}
		from += bytes;
	}
	query[kept] = '\0';
	return text;
}

static const char *meta(const json_t *object, const char *name)
{
	const char *text =
		json_string_value(json_object_get(json_object_get(object, "metadata"), name));

	return text != NULL ? text : "";
}

/* Append a piece's items, and take its metadata: all pieces are of one version. */
static int add_piece(json_t *list, const json_t *piece, struct warm_error *err)
{
	json_t *items = json_object_get(list, "items");
	json_t *more = json_object_get(piece, "items");

	if (!json_is_array(more))
		return warm_error_set(err, WARM_CORRUPT, "a list goes on with what is none");
	if (json_array_extend(items, more) != 0 ||
	    json_object_set(list, "metadata", json_object_get(piece, "metadata")) != 0)
		return warm_error_nomem(err, json_array_size(items));
	return 0;
}

static bool is_piece(const json_t *list)
{
	return meta(list, "continue")[0] != '\0' && json_is_array(json_object_get(list, "items"));
}

/* Get the rest of a list. What it began with may be gone before its end: then it comes whole. */
static int complete(struct warm_kube *k, const char *path, json_t **list, size_t *room,
		    const struct warm_call *call, struct warm_error *err)
{
	while (is_piece(*list)) {
		scope_free char *next = with_param(path, "continue", meta(*list, "continue"));
		json_t *piece = NULL;

		if (next == NULL)
			return warm_error_nomem(err, strlen(path));
		int rc = ask(k, "GET", next, NULL, room, call, &piece, err);
		if (rc == WARM_NOT_FOUND && err->http_status == 410) {
			scope_free char *whole = without_param(path, "limit");
			if (whole == NULL)
				return warm_error_nomem(err, strlen(path));
			*room = ANSWER_BYTES;
			rc = ask(k, "GET", whole, NULL, room, call, &piece, err);
			if (rc != 0)
				return rc;
			json_decref(*list);
			*list = piece;
			return 0;
		}
		if (rc == 0)
			rc = add_piece(*list, piece, err);
		json_decref(piece);
		if (rc != 0)
			return rc;
	}
	json_object_del(json_object_get(*list, "metadata"), "remainingItemCount");
	json_object_del(json_object_get(*list, "metadata"), "continue");
	return 0;
}

int warm_kube_request(struct warm_kube *k, const char *method, const char *path, const json_t *body,
		      const struct warm_call *call, json_t **ret_answer, struct warm_error *err)
{
	scope_free char *text = body != NULL ? json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY)
					     : NULL;
	struct warm_error own = { 0 };
	size_t room = ANSWER_BYTES;
	json_t *answer = NULL;

	if (err == NULL)
		err = &own;
	if (body != NULL && text == NULL)
		return warm_error_nomem(err, 0);
	int rc = ask(k, method, path, text, &room, call, &answer, err);
	if (rc == 0 && strcmp(method, "GET") == 0 && is_piece(answer) &&
	    !warm_kube_has_param(path, "continue"))
		rc = complete(k, path, &answer, &room, call, err);
	if (rc != 0 || ret_answer == NULL)
		json_decref(answer);
	else
		*ret_answer = answer;
	return rc;
}

int warm_kube_text(struct warm_kube *k, const char *path, size_t max_bytes,
		   const struct warm_call *call, struct warm_buf *ret_text, struct warm_error *err)
{
	scope_exchange struct exchange x = {
		.method = "GET", .path = path, .max_bytes = max_bytes, .beginning = true
	};
	struct warm_error own = { 0 };

	if (err == NULL)
		err = &own;
	int rc = exchange(k, &k->asking, &x, TRIES, call, err);
	if (rc != 0)
		return rc;
	warm_buf_put(ret_text, x.answer.data, x.answer.bytes);
	return ret_text->failed ? warm_error_nomem(err, x.answer.bytes) : 0;
}

/* ---- watch ---- */

struct watch {
	struct warm_kube *kube;
	const char *path;
	warm_kube_watch_fn fn;
	void *arg;
	const struct warm_call *call;
	json_t *known;	       /* by key: each object as it was told last */
	char version[64];      /* up to which all has been told; "": a list is due */
	struct warm_error own; /* fn's */
	bool ended;	       /* fn has had enough, or failed */
	bool relist, failed; /* the server has ended the watch: what is known is too old, or not */
	bool moved;	     /* something came since the last try */
};

static int no_state(const char *what, struct warm_error *err)
{
	return warm_error_set(err, WARM_CORRUPT, "%s without a resourceVersion", what);
}

/* An object made anew under its name is another one. */
static char *key_of(const json_t *object)
{
	char *key = NULL;

	if (meta(object, "uid")[0] != '\0')
		return strdup(meta(object, "uid"));
	if (asprintf(&key, "%s/%s", meta(object, "namespace"), meta(object, "name")) < 0)
		return NULL;
	return key;
}

static int tell(struct watch *w, enum warm_kube_event event, const json_t *object,
		struct warm_error *err)
{
	int rc = w->fn(w->arg, event, object, err);

	if (rc == 0)
		return 0;
	w->ended = true;
	w->own = *err;
	return rc > 0 ? 1 : rc;
}

/* It is there, in this state. */
static int take_state(struct watch *w, json_t *object, struct warm_error *err)
{
	scope_free char *key = key_of(object);
	const char *version = meta(object, "resourceVersion");

	if (key == NULL)
		return warm_error_nomem(err, 64);
	const json_t *old = json_object_get(w->known, key);
	if (old != NULL && strcmp(meta(old, "resourceVersion"), version) == 0)
		return 0;
	enum warm_kube_event event = old != NULL ? WARM_KUBE_MODIFIED : WARM_KUBE_ADDED;
	if (json_object_set(w->known, key, object) != 0)
		return warm_error_nomem(err, 64);
	return tell(w, event, object, err);
}

static int take_end(struct watch *w, const char *key, json_t *object, struct warm_error *err)
{
	if (json_object_get(w->known, key) == NULL)
		return 0;
	json_incref(object);
	json_object_del(w->known, key);
	int rc = tell(w, WARM_KUBE_DELETED, object, err);
	json_decref(object);
	return rc;
}

/* Those that a list lacks. */
static int take_ends(struct watch *w, const json_t *items, struct warm_error *err)
{
	json_t *gone = json_copy(w->known);
	size_t i;
	json_t *object;
	const char *key;
	int rc = gone == NULL ? warm_error_nomem(err, 64) : 0;

	json_array_foreach(items, i, object) {
		scope_free char *its = key_of(object);
		if (its == NULL && rc == 0)
			rc = warm_error_nomem(err, 64);
		if (its != NULL)
			json_object_del(gone, its);
	}
	json_object_foreach(gone, key, object)
		if (rc == 0)
			rc = take_end(w, key, object, err);
	json_decref(gone);
	return rc;
}

static int take_version(struct watch *w, const json_t *object, const char *what,
			struct warm_error *err)
{
	const char *version = meta(object, "resourceVersion");

	if (version[0] == '\0' || strlen(version) >= sizeof(w->version))
		return no_state(what, err);
	snprintf(w->version, sizeof(w->version), "%s", version);
	return 0;
}

/* List, and tell what is other than it was. 1: fn has had enough. */
static int list_all(struct watch *w, struct warm_error *err)
{
	scope_free char *path = warm_kube_has_param(w->path, "limit") ? strdup(w->path) : NULL;
	char limit[16];
	json_t *list = NULL, *object;
	size_t i;

	snprintf(limit, sizeof(limit), "%d", PIECE_ITEMS);
	if (path == NULL)
		path = with_param(w->path, "limit", limit);
	if (path == NULL)
		return warm_error_nomem(err, strlen(w->path));
	int rc = warm_kube_request(w->kube, "GET", path, NULL, w->call, &list, err);
	if (rc != 0)
		return rc;
	const json_t *items = json_object_get(list, "items");
	if (!json_is_array(items) && !json_is_null(items))
		rc = warm_error_set(err, WARM_INVALID, "%.200s is no list that can be watched",
				    w->path);
	if (rc == 0)
		rc = take_ends(w, items, err);
	json_array_foreach(items, i, object) {
		if (rc == 0)
			rc = warm_call_check(w->call, err);
		if (rc == 0)
			rc = take_state(w, object, err);
	}
	if (rc == 0)
		rc = take_version(w, list, "a list", err);
	if (rc == 0)
		rc = tell(w, WARM_KUBE_LISTED, NULL, err);
	json_decref(list);
	return rc;
}

/* An ERROR event: a Status, in the answer to a request that went well. */
static int take_error(struct watch *w, const json_t *status)
{
	json_int_t code = json_integer_value(json_object_get(status, "code"));

	w->relist = code == 410;
	w->failed = true;
	return 1;
}

static int take_event(struct watch *w, const json_t *event, struct warm_error *err)
{
	const char *type = json_string_value(json_object_get(event, "type"));
	json_t *object = json_object_get(event, "object");
	scope_free char *key = NULL;
	int rc;

	if (type == NULL || !json_is_object(object))
		return warm_error_set(err, WARM_CORRUPT, "what is no event");
	if (strcmp(type, "ERROR") == 0)
		return take_error(w, object);
	rc = take_version(w, object, "an event", err);
	w->moved = true;
	if (rc != 0 || strcmp(type, "BOOKMARK") == 0)
		return rc;
	if (strcmp(type, "DELETED") != 0)
		return take_state(w, object, err);
	key = key_of(object);
	return key == NULL ? warm_error_nomem(err, 64) : take_end(w, key, object, err);
}

/* The whole lines of what has come; a cut one at its end is none. */
static int take_lines(void *arg, struct warm_buf *body, struct warm_error *err)
{
	struct watch *w = arg;
	size_t at = 0;
	int rc = 0;

	while (rc == 0 && at < body->bytes) {
		const uint8_t *line = body->data + at, *end = memchr(line, '\n', body->bytes - at);
		json_error_t why;
		if (end == NULL)
			break;
		at += (size_t)(end - line) + 1;
		json_t *event = json_loadb((const char *)line, (size_t)(end - line), JSON_ALLOW_NUL,
					   &why);
		if (event != NULL)
			rc = take_event(w, event, err);
		else if (warm_kube_no_memory(&why))
			rc = warm_error_nomem(err, (size_t)(end - line));
		else if (end > line)
			rc = warm_error_set(err, WARM_CORRUPT, "a line that is no JSON");
		json_decref(event);
		if (rc == 0)
			rc = warm_call_check(w->call, err);
	}
	if (at > 0) {
		memmove(body->data, body->data + at, body->bytes - at);
		body->bytes -= at;
	}
	return rc;
}

static char *watch_path(const struct watch *w)
{
	struct warm_buf buf = WARM_BUF_INIT;
	scope_free char *path = without_param(w->path, "limit");

	if (path == NULL)
		return NULL;
	warm_buf_printf(&buf, "%s%cwatch=true&allowWatchBookmarks=true&resourceVersion=", path,
			strchr(path, '?') != NULL ? '&' : '?');
	encode(&buf, w->version);
	if (!warm_kube_has_param(path, "timeoutSeconds"))
		warm_buf_printf(&buf, "&timeoutSeconds=%d",
				WATCH_MIN_S + (int)jittered(WATCH_MAX_S - WATCH_MIN_S));
	warm_buf_put_u8(&buf, 0);
	if (buf.failed)
		warm_buf_release(&buf);
	return (char *)buf.data;
}

/* Watch until the server ends it: 0; 1: fn has had enough. `ret_wait_ms`: what it asks for. */
static int watch_once(struct watch *w, int64_t *ret_wait_ms, struct warm_error *err)
{
	scope_free char *path = watch_path(w);
	scope_exchange struct exchange x = {
		.method = "GET",
		.path = path,
		.max_bytes = ANSWER_BYTES,
		.watch = true,
		.take = take_lines,
		.take_arg = w,
	};

	if (path == NULL)
		return warm_error_nomem(err, strlen(w->path));
	int rc = exchange(w->kube, &w->kube->watching, &x, 1, w->call, err);
	*ret_wait_ms = asked_to_wait_ms(&x);
	if (rc == WARM_NOT_FOUND && err->http_status == 410) {
		w->relist = w->failed = true;
		return 0;
	}
	return rc == 0 && w->ended ? 1 : rc;
}

/* One list or one watch. */
static int step(struct watch *w, int64_t *ret_wait_ms, struct warm_error *err)
{
	*ret_wait_ms = -1;
	w->relist = w->failed = w->moved = false;
	if (w->version[0] == '\0')
		return list_all(w, err);
	int rc = watch_once(w, ret_wait_ms, err);
	if (w->relist)
		w->version[0] = '\0';
	return rc;
}

static int64_t away_ms(int failures, int64_t asked_ms)
{
	int64_t most = (int64_t)AWAY_MS << (failures < 6 ? failures : 6);

	if (most > AWAY_MAX_MS)
		most = AWAY_MAX_MS;
	int64_t wait = most / 2 + jittered(most / 2);
	if (wait < AWAY_MS)
		wait = AWAY_MS;
	return asked_ms > wait ? asked_ms : wait;
}

/* Wait as long as the call allows: its end is told, since nothing else is wrong. */
static int wait_away(const struct watch *w, int64_t ms, struct warm_error *err)
{
	int64_t end = warm_clock_ms() + ms;
	int rc = 0;

	while ((rc = warm_call_check(w->call, err)) == 0 && warm_clock_ms() < end) {
		struct timespec nap = { .tv_nsec = 10 * 1000000 };
		nanosleep(&nap, NULL);
	}
	return rc;
}

static int go_on(struct watch *w, struct warm_error *err)
{
	int failures = 0;

	for (;;) {
		bool listing = w->version[0] == '\0';
		int64_t began = warm_clock_ms(), asked = -1;
		int rc = step(w, &asked, err);
		if (w->ended)
			return rc;
		if (rc != 0 && rc != WARM_TRANSIENT)
			return rc;
		bool lasted = warm_clock_ms() - began >= AWAY_MS;
		bool good = w->moved || (rc == 0 && (listing || (lasted && !w->failed)));
		if (good && !listing)
			failures = 0;
		/* What is too old is listed at once, but not again and again. */
		if (good || (w->relist && failures++ == 0))
			continue;
		rc = wait_away(w, away_ms(failures++, asked), err);
		if (rc != 0)
			return rc;
	}
}

int warm_kube_watch(struct warm_kube *k, const char *path, warm_kube_watch_fn fn, void *arg,
		    const struct warm_call *call, struct warm_error *err)
{
	struct watch w = { .kube = k, .path = path, .fn = fn, .arg = arg, .call = call };
	struct warm_error own = { 0 };

	if (err == NULL)
		err = &own;
	w.known = json_object();
	int rc = w.known == NULL ? warm_error_nomem(err, sizeof(w)) : list_all(&w, err);
	if (rc == 0)
		rc = go_on(&w, err);
	json_decref(w.known);
	if (w.ended && rc < 0)
		*err = w.own; /* as it is, without what we were doing */
	return rc == 1 ? 0 : rc;
}
