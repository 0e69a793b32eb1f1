/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/http.h"

#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/base/option.h"

enum {
	CONNECT_MS = 1000,
	ANSWER_MS = 10 * 1000,
	SLOWEST_BYTES = 1024, /* a second; a body that is slower for ANSWER_MS has stalled */
	POLL_MS = 50,
	RECEIVE_BYTES = 128 << 10,
	SEND_BYTES = 256 << 10,
	HEAD_BYTES = 32 << 10,
	BODY_BYTES = 1 << 20,
	TRIES = 5,
	LOCAL_TRIES = 3, /* a metadata server that answers, and is busy */
	AGAINS = 4,
	REDIRECTS = 5,
	BACKOFF_MS = 200,
	BACKOFF_MAX_MS = 5000,
	RETRY_AFTER_MAX_MS = 30 * 1000,
};

/* A connection: its own multi handle, so that whoever drives it shares nothing. */
struct slot {
	CURLM *multi;
	CURL *easy;
	bool busy;
};

struct warm_http {
	struct warm_http_options o;
	CURLSH *share; /* names and TLS sessions */
	pthread_mutex_t share_locks[CURL_LOCK_DATA_LAST];
	pthread_mutex_t lock;
	pthread_cond_t idle;
	struct slot slots[WARM_HTTP_CONNECTIONS];
	X509_STORE *trust;   /* loaded once, at the first use */
	atomic_bool reached; /* a server has answered */
};

static atomic_ullong moved;

uint64_t warm_http_moved(void)
{
	return atomic_load(&moved);
}

/* ---- the client ---- */

static char agent[64];

static void global_init(void)
{
	snprintf(agent, sizeof(agent), "warmcache/%s", warm_version);
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void share_lock(CURL *easy, curl_lock_data data, curl_lock_access access, void *arg)
{
	struct warm_http *h = arg;

	(void)easy;
	(void)access;
	pthread_mutex_lock(&h->share_locks[data]);
}

static void share_unlock(CURL *easy, curl_lock_data data, void *arg)
{
	struct warm_http *h = arg;

	(void)easy;
	pthread_mutex_unlock(&h->share_locks[data]);
}

/* Does the system have certificates by hashed names, which are looked up one by one? A bundle of
 * 140 costs 25 ms to read. */
static bool has_hashed_certificates(void)
{
	const char *name = getenv(X509_get_default_cert_dir_env());
	scope_closedir DIR *dir = opendir(name != NULL ? name : X509_get_default_cert_dir());
	struct dirent *e;

	while (dir != NULL && (e = readdir(dir)) != NULL) {
		size_t n = strlen(e->d_name);
		if (n > 2 && strcmp(e->d_name + n - 2, ".0") == 0)
			return true;
	}
	return false;
}

static X509_STORE *load_trust(const char *ca_file)
{
	X509_STORE *store = X509_STORE_new();
	const char *bundle = curl_version_info(CURLVERSION_NOW)->cainfo;

	if (store == NULL)
		return NULL;
	X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN); /* as curl does */
	if (ca_file != NULL) {
		if (X509_STORE_load_file(store, ca_file) == 1)
			return store;
		X509_STORE_free(store);
		return NULL;
	}
	X509_STORE_set_default_paths(store); /* SSL_CERT_FILE and SSL_CERT_DIR count there */
	if (getenv(X509_get_default_cert_file_env()) == NULL && !has_hashed_certificates() &&
	    bundle != NULL)
		X509_STORE_load_file(store, bundle);
	return store;
}

/* One set of certificates for all connections: curl would read its own for each. */
static CURLcode set_trust(CURL *easy, void *ssl, void *arg)
{
	struct warm_http *h = arg;

	(void)easy;
	pthread_mutex_lock(&h->lock);
	if (h->trust == NULL)
		h->trust = load_trust(h->o.ca_file);
	pthread_mutex_unlock(&h->lock);
	if (h->trust == NULL)
		return CURLE_SSL_CACERT_BADFILE;
	SSL_CTX_set1_cert_store(ssl, h->trust);
	return CURLE_OK;
}

int warm_http_open(const struct warm_http_options *options, struct warm_http **ret_http,
		   struct warm_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct warm_http *h = calloc(1, sizeof(*h));

	pthread_once(&once, global_init);
	if (h == NULL)
		return warm_error_nomem(err, sizeof(*h));
	h->o = *options;
	if (h->o.connections == 0)
		h->o.connections = WARM_HTTP_CONNECTIONS_USUAL;
	if (h->o.connections > WARM_HTTP_CONNECTIONS)
		h->o.connections = WARM_HTTP_CONNECTIONS;
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->idle, NULL);
	for (size_t i = 0; i < CURL_LOCK_DATA_LAST; i++)
		pthread_mutex_init(&h->share_locks[i], NULL);
	h->share = curl_share_init();
	if (h->share == NULL) {
		warm_http_free(h);
		return warm_error_nomem(err, sizeof(*h));
	}
	curl_share_setopt(h->share, CURLSHOPT_LOCKFUNC, share_lock);
	curl_share_setopt(h->share, CURLSHOPT_UNLOCKFUNC, share_unlock);
	curl_share_setopt(h->share, CURLSHOPT_USERDATA, h);
	curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
	curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	if (options->ca_file != NULL && access(options->ca_file, R_OK) != 0) {
		warm_http_free(h);
		return warm_error_set(err, WARM_INVALID, "certificates %.120s: %s",
				      options->ca_file, strerror(errno));
	}
	*ret_http = h;
	return 0;
}

int warm_http_open_url(const struct warm_url *url, const char *const *ca_env,
		       struct warm_http **ret_http, struct warm_error *err)
{
	struct warm_http_options o = { .ca_file = warm_url_param(url, "ca", ca_env) };
	uint64_t connections = 0;
	int rc = warm_url_number(url, "connections", WARM_HTTP_CONNECTIONS_USUAL, 1,
				 WARM_HTTP_CONNECTIONS, &connections, err);

	o.connections = (unsigned)connections;
	return rc != 0 ? rc : warm_http_open(&o, ret_http, err);
}

void warm_http_free(struct warm_http *h)
{
	if (h == NULL)
		return;
	for (size_t i = 0; i < WARM_HTTP_CONNECTIONS; i++) {
		if (h->slots[i].easy != NULL)
			curl_easy_cleanup(h->slots[i].easy);
		if (h->slots[i].multi != NULL)
			curl_multi_cleanup(h->slots[i].multi);
	}
	if (h->share != NULL)
		curl_share_cleanup(h->share);
	X509_STORE_free(h->trust);
	for (size_t i = 0; i < CURL_LOCK_DATA_LAST; i++)
		pthread_mutex_destroy(&h->share_locks[i]);
	pthread_cond_destroy(&h->idle);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

unsigned warm_http_connections(const struct warm_http *h)
{
	return h->o.connections;
}

/* The lowest free one: so few connections serve few callers, and those are warm. */
static struct slot *free_slot(struct warm_http *h)
{
	for (size_t i = 0; i < h->o.connections; i++)
		if (!h->slots[i].busy)
			return &h->slots[i];
	return NULL;
}

static int take_slot(struct warm_http *h, struct slot **ret_slot, const struct warm_call *call,
		     struct warm_error *err)
{
	struct slot *s;
	int rc = 0;

	pthread_mutex_lock(&h->lock);
	while ((s = free_slot(h)) == NULL && rc == 0) {
		struct timespec soon;
		clock_gettime(CLOCK_REALTIME, &soon);
		soon = warm_timespec_of_ns(warm_timespec_ns(soon) + (int64_t)POLL_MS * 1000000);
		pthread_cond_timedwait(&h->idle, &h->lock, &soon);
		rc = warm_call_check(call, err);
	}
	if (s != NULL)
		s->busy = true;
	pthread_mutex_unlock(&h->lock);
	if (s == NULL)
		return rc;
	if (s->multi == NULL)
		s->multi = curl_multi_init();
	if (s->easy == NULL)
		s->easy = curl_easy_init();
	*ret_slot = s;
	return 0;
}

static void give_slot(struct warm_http *h, struct slot *s)
{
	pthread_mutex_lock(&h->lock);
	s->busy = false;
	pthread_cond_signal(&h->idle);
	pthread_mutex_unlock(&h->lock);
}

/* ---- requests and responses ---- */

static char *format(const char *fmt, va_list ap)
{
	char *text = NULL;

	return vasprintf(&text, fmt, ap) < 0 ? NULL : text;
}

void warm_http_request_url(struct warm_http_request *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	free(r->url);
	r->url = format(fmt, ap);
	va_end(ap);
}

void warm_http_request_header(struct warm_http_request *r, const char *fmt, ...)
{
	va_list ap;

	if (r->n_headers > WARM_HTTP_HEADERS)
		return;
	if (r->n_headers == WARM_HTTP_HEADERS) {
		r->n_headers++; /* seen by is_complete() */
		return;
	}
	va_start(ap, fmt);
	r->headers[r->n_headers++] = format(fmt, ap);
	va_end(ap);
}

static bool is_complete(const struct warm_http_request *r)
{
	if (r->url == NULL || r->method == NULL || r->n_headers > WARM_HTTP_HEADERS)
		return false;
	for (size_t i = 0; i < r->n_headers; i++)
		if (r->headers[i] == NULL)
			return false;
	return true;
}

static void drop_headers(struct warm_http_request *r)
{
	for (size_t i = 0; i < r->n_headers && i < WARM_HTTP_HEADERS; i++)
		free(r->headers[i]);
	r->n_headers = 0;
}

static void release_request(struct warm_http_request *r)
{
	drop_headers(r);
	free(r->url);
	r->url = NULL;
}

void warm_http_response_release(struct warm_http_response *r)
{
	warm_buf_release(&r->head);
	warm_buf_release(&r->body);
	r->status = 0;
}

const char *warm_http_header(const struct warm_http_response *r, const char *name)
{
	size_t n = strlen(name);

	for (size_t at = 0; at < r->head.bytes;) {
		const char *line = (const char *)r->head.data + at;
		if (strncasecmp(line, name, n) == 0 && line[n] == ':')
			return line + n + 1 + strspn(line + n + 1, " \t");
		at += strlen(line) + 1;
	}
	return NULL;
}

int64_t warm_http_parse_date(const char *text)
{
	time_t t = text == NULL ? -1 : curl_getdate(text, NULL);

	return t == -1 ? -1 : (int64_t)t * 1000;
}

int64_t warm_http_date(const struct warm_http_response *r)
{
	return warm_http_parse_date(warm_http_header(r, "date"));
}

/* ---- one try ---- */

struct attempt {
	const struct warm_http_run *run;
	struct warm_http_request *request;
	struct warm_http_response *response;
	uint64_t done;	/* of the range, by all tries */
	uint64_t asked; /* of the range, by this try */
	uint64_t skip;	/* of a whole body, to get to the range */
	uint64_t sent;	/* of our body */
	bool judged;	/* the head was looked at */
	bool to_sink;
	bool enough; /* all that was wanted has come; the rest is not waited for */
	char *etag;  /* of the object, by the first answer; owned by the run */
	int status;  /* of a sink, a head that is wrong; 0 */
	struct warm_error *err;
};

static int fail_attempt(struct attempt *a, int status)
{
	if (a->status == 0)
		a->status = status;
	return status;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct attempt *a = arg;
	struct warm_buf *head = &a->response->head;

	(void)size;
	if (n >= 5 && memcmp(data, "HTTP/", 5) == 0)
		head->bytes = 0; /* of a 100 Continue, or a proxy's */
	size_t length = n;
	while (length > 0 &&
	       (data[length - 1] == '\r' || data[length - 1] == '\n' || data[length - 1] == ' '))
		length--;
	if (length == 0)
		return n;
	if (head->bytes + length > HEAD_BYTES || memchr(data, '\0', length) != NULL) {
		fail_attempt(a,
			     warm_error_set(a->err, WARM_CORRUPT, "the answer's head is no HTTP"));
		return 0;
	}
	warm_buf_put(head, data, length);
	warm_buf_put_u8(head, 0);
	return head->failed ? 0 : n;
}

static int check_range(struct attempt *a)
{
	const struct warm_http_run *run = a->run;
	const char *range = warm_http_header(a->response, "content-range");
	uint64_t first = run->range_offset + a->done,
		 last = run->range_offset + run->range_bytes - 1;
	unsigned long long from = 0, to = 0;
	int at = 0;

	a->asked = last - first + 1;
	if (a->response->status != 206) {
		a->skip = first; /* a server without ranges sends all */
		return 0;
	}
	if (range == NULL || sscanf(range, "bytes %llu-%llu/%n", &from, &to, &at) != 2 || at == 0)
		return fail_attempt(
			a, warm_error_set(a->err, WARM_CORRUPT, "206 without a Content-Range"));
	if (from != first || to > last)
		return fail_attempt(a, warm_error_set(a->err, WARM_CORRUPT,
						      "bytes %llu-%llu came for %llu-%llu", from,
						      to, (unsigned long long)first,
						      (unsigned long long)last));
	if (to < last) /* the object ends there */
		return fail_attempt(a, warm_error_set(a->err, WARM_CORRUPT,
						      "has %llu bytes, shorter than it should be",
						      to + 1));
	return 0;
}

/* Two tries must read one object. */
static int check_etag(struct attempt *a)
{
	const char *etag = warm_http_header(a->response, "etag");

	if (a->etag != NULL && etag != NULL && strcmp(a->etag, etag) != 0)
		return fail_attempt(
			a, warm_error_set(a->err, WARM_CORRUPT, "changed while it was read"));
	if (a->etag == NULL && etag != NULL)
		a->etag = strdup(etag);
	return 0;
}

static bool is_success(long status)
{
	return status >= 200 && status < 300;
}

static int judge_head(struct attempt *a, CURL *easy)
{
	a->judged = true;
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &a->response->status);
	a->to_sink = is_success(a->response->status) && a->run->range_bytes > 0;
	if (!a->to_sink)
		return 0;
	int rc = check_range(a);
	return rc == 0 ? check_etag(a) : rc;
}

/* Does the answer's length end where the range does? */
static bool says_length(const struct attempt *a)
{
	const char *length = warm_http_header(a->response, "content-length");

	return length == NULL || strtoull(length, NULL, 10) == a->asked;
}

static int keep_body(struct attempt *a, const void *data, size_t n)
{
	struct warm_buf *body = &a->response->body;
	size_t max = a->run->max_body_bytes > 0 ? a->run->max_body_bytes : BODY_BYTES;

	if (n > max - body->bytes) {
		if (!is_success(a->response->status)) {
			a->enough = true; /* of an error page, which may never end */
			return -1;
		}
		return fail_attempt(a, warm_error_set(a->err, WARM_LIMIT,
						      "the answer has over %zu bytes", max));
	}
	warm_buf_put(body, data, n);
	return body->failed ? fail_attempt(a, warm_error_nomem(a->err, n)) : 0;
}

struct transfer {
	struct attempt *a;
	CURL *easy;
};

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;
	struct attempt *a = t->a;
	size_t taken = n;

	(void)size;
	atomic_fetch_add(&moved, n);
	if (!a->judged && judge_head(a, t->easy) != 0)
		return CURL_WRITEFUNC_ERROR;
	if (!a->to_sink)
		return keep_body(a, data, n) == 0 ? taken : CURL_WRITEFUNC_ERROR;
	if (a->skip > 0) {
		size_t skipped = n < a->skip ? n : (size_t)a->skip;
		a->skip -= skipped;
		data += skipped;
		n -= skipped;
	}
	uint64_t left = a->run->range_bytes - a->done;
	if (n > left) {
		if (a->response->status == 206) {
			fail_attempt(a, warm_error_set(a->err, WARM_CORRUPT,
						       "more came than was asked for"));
			return CURL_WRITEFUNC_ERROR;
		}
		n = (size_t)left;
	}
	if (n > 0) {
		int rc = a->run->sink(a->run->sink_arg, data, n, a->err);
		if (rc != 0) {
			fail_attempt(a, rc);
			return CURL_WRITEFUNC_ERROR;
		}
		a->done += n;
	}
	/* A server that says that more comes isn't waited for. */
	if (a->done == a->run->range_bytes && (a->response->status != 206 || !says_length(a))) {
		a->enough = true;
		return CURL_WRITEFUNC_ERROR;
	}
	return taken;
}

static size_t on_read(char *data, size_t size, size_t n, void *arg)
{
	struct attempt *a = arg;
	uint64_t left = a->run->body_bytes - a->sent;

	n *= size;
	if (n > left)
		n = (size_t)left;
	if (n == 0)
		return 0;
	if (a->run->data != NULL)
		memcpy(data, (const char *)a->run->data + a->sent, n);
	else if (warm_file_read_at(a->run->fd, data, n, a->run->fd_offset + a->sent, a->err) != 0) {
		fail_attempt(a, WARM_IO);
		return CURL_READFUNC_ABORT;
	}
	a->sent += n;
	atomic_fetch_add(&moved, n);
	return n;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct attempt *a = arg;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > a->run->body_bytes)
		return CURL_SEEKFUNC_FAIL;
	a->sent = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

static void set_options(struct warm_http *h, CURL *easy, struct attempt *a, struct transfer *t,
			struct curl_slist *headers, char error[CURL_ERROR_SIZE])
{
	const struct warm_http_run *run = a->run;
	int64_t answer_ms = run->answer_ms > 0 ? run->answer_ms : ANSWER_MS;

	curl_easy_reset(easy);
	curl_easy_setopt(easy, CURLOPT_URL, a->request->url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	/* A resolver that hangs is left to itself: to wait for it would break every deadline. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 1L);
	curl_easy_setopt(easy, CURLOPT_SHARE, h->share);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, agent);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)SLOWEST_BYTES);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)((answer_ms + 999) / 1000));
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, a);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	if (h->o.local)
		curl_easy_setopt(easy, CURLOPT_PROXY, "");
	/* Where curl's TLS isn't OpenSSL, its own way of finding certificates. */
	if (curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, set_trust) == CURLE_OK) {
		curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, h);
		curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	} else if (h->o.ca_file != NULL) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, h->o.ca_file);
	}
	if (run->has_body || run->body_bytes > 0) {
		curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)SEND_BYTES);
		curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)run->body_bytes);
		curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(easy, CURLOPT_READDATA, a);
		curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(easy, CURLOPT_SEEKDATA, a);
	}
	if (strcmp(a->request->method, "HEAD") == 0)
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	else if (strcmp(a->request->method, "GET") != 0)
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, a->request->method);
}

static struct curl_slist *make_headers(const struct attempt *a)
{
	struct curl_slist *list = curl_slist_append(NULL, "Expect:"), *more = list;
	const struct warm_http_run *run = a->run;
	char range[80];

	for (size_t i = 0; more != NULL && i < a->request->n_headers; i++)
		more = curl_slist_append(list, a->request->headers[i]);
	if (more != NULL && run->range_bytes > 0) {
		uint64_t first = run->range_offset + a->done;
		uint64_t last = run->range_offset + run->range_bytes - 1;
		snprintf(range, sizeof(range), "Range: bytes=%llu-%llu", (unsigned long long)first,
			 (unsigned long long)last);
		more = curl_slist_append(list, range);
	}
	if (more == NULL) {
		curl_slist_free_all(list);
		return NULL;
	}
	return list;
}

static int drive(struct slot *s, const struct warm_call *call, CURLcode *ret_code,
		 struct warm_error *err)
{
	int running = 1, left = 0, rc = 0;

	if (curl_multi_add_handle(s->multi, s->easy) != CURLM_OK)
		return warm_error_nomem(err, sizeof(*s));
	while (rc == 0) {
		if (curl_multi_perform(s->multi, &running) != CURLM_OK) {
			rc = warm_error_nomem(err, sizeof(*s));
			break;
		}
		if (running == 0)
			break;
		rc = warm_call_check(call, err);
		int64_t wait = warm_call_left_ms(call, call != NULL ? POLL_MS : 1000);
		if (rc == 0 && wait > 0)
			curl_multi_poll(s->multi, NULL, 0, (int)wait, NULL);
	}
	*ret_code = CURLE_OK;
	for (CURLMsg *m; (m = curl_multi_info_read(s->multi, &left)) != NULL;)
		if (m->msg == CURLMSG_DONE)
			*ret_code = m->data.result;
	curl_multi_remove_handle(s->multi, s->easy);
	return rc;
}

/* "host:port" of a URL, which may hold secrets behind that. */
static void host_of(const char *url, char ret_host[160])
{
	const char *at = strstr(url, "://");

	at = at != NULL ? at + 3 : url;
	snprintf(ret_host, 160, "%.*s", (int)strcspn(at, "/?#"), at);
}

static int explain(CURLcode code, CURL *easy, const struct attempt *a, const char *detail,
		   struct warm_error *err)
{
	char host[160];
	long os_errno = 0, connects = 0;

	host_of(a->request->url, host);
	curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_errno);
	curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
	if (detail[0] == '\0')
		detail = curl_easy_strerror(code);
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return warm_error_set(err, WARM_TRANSIENT,
				      "can't resolve %s: check the name, and DNS in this network",
				      code == CURLE_COULDNT_RESOLVE_PROXY ? "the proxy" : host);
	case CURLE_COULDNT_CONNECT:
		if (os_errno != 0) {
			int rc = warm_error_set(err, WARM_TRANSIENT, "can't connect to %s: %s",
						host, strerror((int)os_errno));
			if (err != NULL)
				err->os_errno = (int)os_errno;
			return rc;
		}
		return warm_error_set(err, WARM_TRANSIENT, "can't connect to %s: %.100s", host,
				      detail);
	case CURLE_OPERATION_TIMEDOUT: {
		curl_off_t resolved_us = 0, connected_us = 0;
		curl_easy_getinfo(easy, CURLINFO_NAMELOOKUP_TIME_T, &resolved_us);
		curl_easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connected_us);
		if (connected_us == 0 && connects == 0 && resolved_us == 0)
			return warm_error_set(
				err, WARM_TRANSIENT,
				"can't resolve %s within %d ms: does DNS answer in this "
				"network?",
				host, CONNECT_MS);
		if (connected_us == 0 && connects == 0)
			return warm_error_set(
				err, WARM_TRANSIENT,
				"no connection to %s within %d ms: is there a route, and "
				"does a network policy or firewall allow it?",
				host, CONNECT_MS);
		return warm_error_set(err, WARM_TRANSIENT, "%s has stalled: %.120s", host, detail);
	}
	case CURLE_SSL_CACERT_BADFILE:
		return warm_error_set(err, WARM_DENIED, "no certificates (PEM) in the file of ca=");
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_ISSUER_ERROR:
		return warm_error_set(err, WARM_DENIED,
				      "the certificate of %s isn't trusted (%.100s): give its "
				      "authority by ca=FILE in the store's URL, or SSL_CERT_FILE",
				      host, detail);
	case CURLE_OUT_OF_MEMORY:
		return warm_error_nomem(err, 0);
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return warm_error_set(err, WARM_INVALID, "%s: %.120s", host, detail);
	case CURLE_PARTIAL_FILE:
		return warm_error_set(err, WARM_TRANSIENT, "%s sent fewer bytes than it said",
				      host);
	default:
		return warm_error_set(err, WARM_TRANSIENT, "%s: %.160s", host, detail);
	}
}

/* A server that has closed a connection is there as well; one that never says a word may not be. */
static void note_reached(struct warm_http *h, CURL *easy, const struct attempt *a, CURLcode code)
{
	curl_off_t connected_us = 0;

	curl_easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connected_us);
	if (a->response->status != 0 || (connected_us > 0 && code != CURLE_OPERATION_TIMEDOUT))
		atomic_store(&h->reached, true);
}

/* One request and its answer. 0 when an answer came, whatever its status. */
static int try_once(struct warm_http *h, struct slot *s, struct attempt *a,
		    const struct warm_call *call, struct warm_error *err)
{
	char detail[CURL_ERROR_SIZE] = "";
	struct transfer t = { a, s->easy };
	CURLcode code = CURLE_OK;

	/* `foreign` stays: follow() has set it for this try. */
	a->response->head.bytes = a->response->body.bytes = 0;
	a->response->status = 0;
	a->sent = a->skip = 0;
	a->judged = a->to_sink = a->enough = false;
	a->status = 0;
	a->err = err;
	if (s->multi == NULL || s->easy == NULL || !is_complete(a->request))
		return warm_error_nomem(err, sizeof(*a));
	struct curl_slist *headers = make_headers(a);
	if (headers == NULL)
		return warm_error_nomem(err, HEAD_BYTES);
	set_options(h, s->easy, a, &t, headers, detail);
	int rc = drive(s, call, &code, err);
	if (rc == 0 && a->status != 0)
		rc = a->status;
	/* What comes after the last byte that was wanted is of no interest. */
	if (a->to_sink && a->done == a->run->range_bytes)
		a->enough = true;
	if (rc == 0 && code != CURLE_OK && !a->enough)
		rc = explain(code, s->easy, a, detail, err);
	else if (rc == 0 && !a->judged)
		rc = judge_head(a, s->easy);
	note_reached(h, s->easy, a, code);
	/* Nothing of this frame is left in the handle. */
	curl_easy_reset(s->easy);
	curl_slist_free_all(headers);
	if (rc == 0 && a->to_sink && a->done < a->run->range_bytes)
		rc = warm_error_set(err, a->response->status == 206 ? WARM_TRANSIENT : WARM_CORRUPT,
				    "%llu bytes came for %llu", (unsigned long long)a->done,
				    (unsigned long long)a->run->range_bytes);
	if (rc == 0) {
		warm_buf_put_u8(&a->response->body, 0);
		if (a->response->body.failed)
			return warm_error_nomem(err, 1);
		a->response->body.bytes--;
	}
	return rc;
}

/* ---- redirects ---- */

static bool is_redirect(long status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static int part_of(CURLU *url, CURLUPart part, char **ret_text)
{
	return curl_url_get(url, part, ret_text, CURLU_DEFAULT_PORT) == CURLUE_OK ? 0 : -1;
}

static bool same_part(CURLU *a, CURLU *b, CURLUPart part)
{
	char *x = NULL, *y = NULL;
	bool same = part_of(a, part, &x) == 0 && part_of(b, part, &y) == 0 && strcasecmp(x, y) == 0;

	curl_free(x);
	curl_free(y);
	return same;
}

bool warm_http_same_origin(const char *a, const char *b)
{
	CURLU *x = curl_url(), *y = curl_url();
	bool same = x != NULL && y != NULL && curl_url_set(x, CURLUPART_URL, a, 0) == CURLUE_OK &&
		    curl_url_set(y, CURLUPART_URL, b, 0) == CURLUE_OK &&
		    same_part(x, y, CURLUPART_SCHEME) && same_part(x, y, CURLUPART_HOST) &&
		    same_part(x, y, CURLUPART_PORT);

	curl_url_cleanup(x);
	curl_url_cleanup(y);
	return same;
}

char *warm_http_resolve(const char *base, const char *reference)
{
	CURLU *url = curl_url();
	char *text = NULL, *copy = NULL;

	if (url != NULL && curl_url_set(url, CURLUPART_URL, base, 0) == CURLUE_OK &&
	    curl_url_set(url, CURLUPART_URL, reference, 0) == CURLUE_OK &&
	    curl_url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK)
		copy = strdup(text);
	curl_free(text);
	curl_url_cleanup(url);
	return copy;
}

/* Go where the answer points. What we send as ourselves goes to our own origin alone. */
static int follow(struct attempt *a, struct warm_error *err)
{
	struct warm_http_request *r = a->request;
	const char *location = warm_http_header(a->response, "location");
	char host[160];

	if (location == NULL)
		return warm_error_set(err, WARM_CORRUPT, "%ld without a Location",
				      a->response->status);
	char *url = warm_http_resolve(r->url, location);
	if (url == NULL)
		return warm_error_set(err, WARM_CORRUPT, "a redirect to no URL");
	host_of(url, host);
	if (strncasecmp(r->url, "https://", 8) == 0 && strncasecmp(url, "https://", 8) != 0) {
		free(url);
		return warm_error_set(err, WARM_DENIED, "a redirect away from TLS, to %s: refused",
				      host);
	}
	if (!warm_http_same_origin(r->url, url)) {
		drop_headers(r);
		a->response->foreign = true;
	}
	free(r->url);
	r->url = url;
	return 0;
}

/* ---- tries ---- */

static int64_t backoff_ms(int tries, const struct warm_http_response *response)
{
	const char *after = response != NULL ? warm_http_header(response, "retry-after") : NULL;
	int64_t most = BACKOFF_MS << (tries < 8 ? tries : 8);
	uint32_t random;

	if (most > BACKOFF_MAX_MS)
		most = BACKOFF_MAX_MS;
	warm_random(&random, sizeof(random));
	int64_t jitter = (int64_t)(random % (uint32_t)most);
	if (after == NULL)
		return jitter;
	char *end;
	long seconds = strtol(after, &end, 10);
	if (seconds > RETRY_AFTER_MAX_MS / 1000)
		seconds = RETRY_AFTER_MAX_MS / 1000;
	int64_t wait = end != after && *end == '\0'
			       ? (int64_t)seconds * 1000
			       : warm_http_parse_date(after) - warm_clock_wall_ms();
	if (wait < 0)
		wait = 0;
	return (wait > RETRY_AFTER_MAX_MS ? RETRY_AFTER_MAX_MS : wait) + jitter / 10;
}

static bool is_busy(long status)
{
	return status == 429 || status == 408 ||
	       (status >= 500 && status != 501 && status != 505 && status != 507);
}

struct tries {
	int made, again, redirects;
	int64_t refused_until_ms;
};

static bool worth_another(struct warm_http *h, const struct tries *t, int rc,
			  const struct warm_error *err)
{
	bool refused = err->os_errno == ECONNREFUSED;

	if (rc != WARM_TRANSIENT)
		return false;
	if (refused && t->refused_until_ms != 0)
		return warm_clock_ms() < t->refused_until_ms;
	/* Never reached: an outage, most likely. */
	return !h->o.local && atomic_load(&h->reached) && t->made < TRIES;
}

/* After an answer: 0 done, 1 try again, or the error. */
static int settle(struct warm_http *h, struct attempt *a, struct tries *t, bool *ret_kept,
		  const struct warm_call *call, struct warm_error *err)
{
	long status = a->response->status;
	bool again = false;

	*ret_kept = false;
	if (is_success(status))
		return 0;
	bool busy = h->o.local ? status == 429 || status == 503 : is_busy(status);
	if (busy && t->made < (h->o.local ? LOCAL_TRIES : TRIES) &&
	    warm_call_rest(backoff_ms(t->made, a->response), call))
		return 1;
	if (is_redirect(status) && a->run->follow) {
		if (t->redirects++ == REDIRECTS)
			return warm_error_set(err, WARM_CORRUPT, "over %d redirects", REDIRECTS);
		*ret_kept = true;
		int rc = follow(a, err);
		return rc != 0 ? rc : 1;
	}
	int rc = a->run->refused(a->run->arg, a->response, &again, err);
	if (rc != 0) {
		if (err != NULL)
			err->http_status = status;
		return rc;
	}
	if (!again)
		return 0;
	if (t->again++ == AGAINS)
		return warm_error_set(err, WARM_TRANSIENT, "status %ld again and again", status);
	return 1;
}

int warm_http_run(struct warm_http *h, const struct warm_http_run *run,
		  struct warm_http_response *ret_response, const struct warm_call *call,
		  struct warm_error *err)
{
	struct warm_http_request request = { 0 };
	scope_response struct warm_http_response response = { 0 };
	struct attempt a = { .run = run, .request = &request, .response = &response };
	struct tries t = { 0 };
	struct warm_error own = { 0 };
	bool kept = false; /* the request of the try before, redirected */
	int rc = 0;

	if (err == NULL)
		err = &own;
	if (run->retry_refused_ms > 0)
		t.refused_until_ms = warm_clock_ms() + run->retry_refused_ms;
	for (;;) {
		struct slot *slot = NULL;
		rc = warm_call_check(call, err);
		if (rc == 0 && !kept) {
			release_request(&request);
			response.foreign = false;
			rc = run->prepare(run->arg, &request, call, err);
		}
		if (rc == 0)
			rc = take_slot(h, &slot, call, err);
		if (rc != 0)
			break;
		t.made++;
		rc = try_once(h, slot, &a, call, err);
		give_slot(h, slot);
		if (rc == 0) {
			rc = settle(h, &a, &t, &kept, call, err);
			if (rc != 1)
				break;
			continue;
		}
		kept = false;
		if (!worth_another(h, &t, rc, err) ||
		    !warm_call_rest(t.refused_until_ms != 0 ? 100 : backoff_ms(t.made, NULL), call))
			break;
	}
	if (rc == WARM_TRANSIENT && warm_call_check(call, NULL) != 0)
		rc = warm_call_check(call, err);
	release_request(&request);
	free(a.etag);
	if (rc == 0 && ret_response != NULL) {
		*ret_response = response;
		response = (struct warm_http_response){ 0 };
	}
	return rc;
}
