/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 512, REQUESTS = 4096, CHUNK_BYTES = 64 << 10, HEAD_BYTES = 256 << 10 };

struct connection {
	struct http_server *server;
	int fd;
	SSL *ssl;
	unsigned number;
	pthread_t thread;
	struct warm_buf in; /* read, not used yet */
};

struct http_server {
	http_handler_fn handler;
	void *arg;
	const struct canned *answers;
	size_t n_answers;
	int fd;
	char url[64];
	SSL_CTX *tls;
	pthread_t thread;
	pthread_mutex_t lock, handling;
	atomic_bool stopping;
	struct connection *connections[CONNECTIONS];
	size_t n_connections;
	struct http_request *requests[REQUESTS];
	size_t n_requests;
};

static ssize_t receive(struct connection *c, void *data, size_t bytes)
{
	if (c->ssl == NULL)
		return recv(c->fd, data, bytes, 0);
	return SSL_read(c->ssl, data, (int)bytes);
}

static bool send_all(struct connection *c, const void *data, size_t bytes)
{
	const char *p = data;

	while (bytes > 0) {
		ssize_t n = c->ssl != NULL ? SSL_write(c->ssl, p, (int)bytes)
					   : send(c->fd, p, bytes, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
		p += n;
		bytes -= (size_t)n;
	}
	return true;
}

static bool read_more(struct connection *c)
{
	char data[CHUNK_BYTES];
	ssize_t n = receive(c, data, sizeof(data));

	if (n > 0)
		warm_buf_put(&c->in, data, (size_t)n);
	return n > 0;
}

static void take_in(struct connection *c, size_t bytes)
{
	memmove(c->in.data, c->in.data + bytes, c->in.bytes - bytes);
	c->in.bytes -= bytes;
}

static void request_free(struct http_request *r)
{
	free(r->method);
	free(r->target);
	warm_buf_release(&r->head);
	warm_buf_release(&r->body);
	free(r);
}

/* The next request of a connection, or NULL when it ends. */
static struct http_request *read_request(struct connection *c)
{
	const char *end;
	char method[16], target[8192];

	while (c->in.bytes == 0 || (end = memmem(c->in.data, c->in.bytes, "\r\n\r\n", 4)) == NULL)
		if (c->in.bytes > HEAD_BYTES || !read_more(c))
			return NULL;
	size_t head = (size_t)(end - (const char *)c->in.data) + 4;
	struct http_request *r = calloc(1, sizeof(*r));
	scope_free char *text = strndup((const char *)c->in.data, head);
	take_in(c, head);
	if (r == NULL || text == NULL || sscanf(text, "%15s %8191s", method, target) != 2)
		abort();
	r->method = strdup(method);
	r->target = strdup(target);
	r->connection = c->number;
	for (char *line = strstr(text, "\r\n") + 2; *line != '\r';) {
		char *next = strstr(line, "\r\n");
		warm_buf_put(&r->head, line, (size_t)(next - line));
		warm_buf_put_u8(&r->head, 0);
		line = next + 2;
	}
	const char *length = http_request_header(r, "content-length");
	size_t bytes = length != NULL ? strtoull(length, NULL, 10) : 0;
	while (c->in.bytes < bytes)
		if (!read_more(c)) {
			request_free(r);
			return NULL;
		}
	warm_buf_put(&r->body, c->in.data, bytes);
	warm_buf_put_u8(&r->body, 0);
	r->body.bytes--;
	if (bytes > 0)
		take_in(c, bytes);
	return r;
}

static void answer_canned(struct http_server *s, size_t i, struct http_reply *reply)
{
	const struct canned *a = i < s->n_answers ? &s->answers[i] : NULL;

	if (a == NULL) {
		http_reply_text(reply, 418, "nothing is scripted for this");
		return;
	}
	http_reply_text(reply, a->status, a->body != NULL ? a->body : "");
	if (a->headers != NULL)
		warm_buf_put(&reply->headers, a->headers, strlen(a->headers));
	if (a->length != 0)
		reply->length = a->length;
	if (a->cut != 0)
		reply->cut = a->cut;
	reply->hang = a->hang;
	reply->bare = a->bare;
}

static bool answer(struct connection *c, const struct http_request *r, struct http_reply *reply)
{
	scope_buf struct warm_buf head = WARM_BUF_INIT;
	size_t bytes = reply->body.bytes < reply->cut ? reply->body.bytes : (size_t)reply->cut;

	if (reply->delay_ms > 0)
		usleep((useconds_t)reply->delay_ms * 1000);
	if (reply->status == 0)
		return false;
	if (reply->bare)
		return send_all(c, reply->body.data, bytes) && reply->cut == UINT64_MAX;
	warm_buf_printf(&head, "HTTP/1.1 %d Scripted\r\n", reply->status);
	if (reply->length != -2 && reply->status != 204)
		warm_buf_printf(&head, "Content-Length: %lld\r\n",
				reply->length >= 0 ? (long long)reply->length
						   : (long long)reply->body.bytes);
	warm_buf_put(&head, reply->headers.data, reply->headers.bytes);
	warm_buf_put(&head, "\r\n", 2);
	if (strcmp(r->method, "HEAD") == 0)
		bytes = 0;
	warm_buf_put(&head, reply->body.data, bytes);
	if (!send_all(c, head.data, head.bytes))
		return false;
	while (reply->hang && read_more(c))
		;
	return reply->cut == UINT64_MAX && reply->length != -2 && !reply->hang;
}

static void *serve(void *arg)
{
	struct connection *c = arg;
	struct http_server *s = c->server;
	struct http_request *r;
	bool more = c->ssl == NULL || SSL_accept(c->ssl) == 1;

	while (more && (r = read_request(c)) != NULL) {
		struct http_reply reply = { .length = -1, .cut = UINT64_MAX };
		pthread_mutex_lock(&s->lock);
		size_t i = s->n_requests++;
		if (i == REQUESTS)
			abort();
		s->requests[i] = r;
		pthread_mutex_unlock(&s->lock);
		pthread_mutex_lock(&s->handling);
		if (s->handler != NULL)
			s->handler(s->arg, r, &reply);
		else
			answer_canned(s, i, &reply);
		pthread_mutex_unlock(&s->handling);
		more = answer(c, r, &reply);
		warm_buf_release(&reply.headers);
		warm_buf_release(&reply.body);
	}
	shutdown(c->fd, SHUT_RDWR); /* closed with the server: its number isn't used anew before */
	return NULL;
}

static void *accept_all(void *arg)
{
	struct http_server *s = arg;

	for (;;) {
		int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			return NULL;
		struct connection *c = calloc(1, sizeof(*c));
		if (c == NULL || s->n_connections == CONNECTIONS)
			abort();
		c->server = s;
		c->fd = fd;
		if (s->tls != NULL) {
			c->ssl = SSL_new(s->tls);
			SSL_set_fd(c->ssl, fd);
		}
		pthread_mutex_lock(&s->lock);
		c->number = (unsigned)s->n_connections;
		s->connections[s->n_connections++] = c;
		if (atomic_load(&s->stopping))
			shutdown(fd, SHUT_RDWR);
		pthread_create(&c->thread, NULL, serve, c);
		pthread_mutex_unlock(&s->lock);
	}
}

static struct http_server *open_server(int port, SSL_CTX *tls, http_handler_fn handler, void *arg)
{
	struct http_server *s = calloc(1, sizeof(*s));
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	socklen_t bytes = sizeof(a);
	int on = 1;

	assert_non_null(s);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	s->handler = handler;
	s->arg = arg;
	s->tls = tls;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->handling, NULL);
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(s->fd >= 0);
	setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s->fd, 64), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &bytes), 0);
	snprintf(s->url, sizeof(s->url), "%s://127.0.0.1:%d", tls != NULL ? "https" : "http",
		 ntohs(a.sin_port));
	return s;
}

static struct http_server *start(struct http_server *s)
{
	assert_int_equal(pthread_create(&s->thread, NULL, accept_all, s), 0);
	return s;
}

struct http_server *http_server_open_at(int port, http_handler_fn handler, void *arg)
{
	return start(open_server(port, NULL, handler, arg));
}

struct http_server *http_server_open(http_handler_fn handler, void *arg)
{
	return http_server_open_at(0, handler, arg);
}

struct http_server *http_server_canned(const struct canned *answers, size_t n)
{
	struct http_server *s = open_server(0, NULL, NULL, NULL);

	s->answers = answers;
	s->n_answers = n;
	return start(s);
}

struct http_server *http_server_open_tls(const char *ca_path, http_handler_fn handler, void *arg)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
	X509_NAME *name = X509_get_subject_name(cert);
	X509_EXTENSION *alt = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
	FILE *f = fopen(ca_path, "w");

	assert_true(key != NULL && tls != NULL && alt != NULL && f != NULL);
	X509_set_version(cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1,
				   0);
	X509_set_issuer_name(cert, name);
	X509_add_ext(cert, alt, -1);
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	PEM_write_X509(f, cert);
	fclose(f);
	assert_int_equal(SSL_CTX_use_certificate(tls, cert), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(tls, key), 1);
	X509_EXTENSION_free(alt);
	X509_free(cert);
	EVP_PKEY_free(key);
	return start(open_server(0, tls, handler, arg));
}

void http_server_close(struct http_server *s)
{
	atomic_store(&s->stopping, true);
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_connections; i++)
		shutdown(s->connections[i]->fd, SHUT_RDWR);
	pthread_mutex_unlock(&s->lock);
	for (size_t i = 0; i < s->n_connections; i++) {
		struct connection *c = s->connections[i];
		pthread_join(c->thread, NULL);
		SSL_free(c->ssl);
		close(c->fd);
		warm_buf_release(&c->in);
		free(c);
	}
	for (size_t i = 0; i < s->n_requests; i++)
		request_free(s->requests[i]);
	SSL_CTX_free(s->tls);
	close(s->fd);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->handling);
	free(s);
}

const char *http_server_url(const struct http_server *s)
{
	return s->url;
}

const char *http_server_host(const struct http_server *s)
{
	return strstr(s->url, "://") + 3;
}

size_t http_server_count(struct http_server *s)
{
	pthread_mutex_lock(&s->lock);
	size_t n = s->n_requests;
	pthread_mutex_unlock(&s->lock);
	return n;
}

const struct http_request *http_server_request(struct http_server *s, size_t i)
{
	pthread_mutex_lock(&s->lock);
	const struct http_request *r = i < s->n_requests ? s->requests[i] : NULL;
	pthread_mutex_unlock(&s->lock);
	if (r == NULL) {
		fail_msg("request %zu never came", i);
		abort();
	}
	return r;
}

const char *http_request_header(const struct http_request *r, const char *name)
{
	size_t n = strlen(name);

	for (size_t at = 0; at < r->head.bytes;) {
		const char *line = (const char *)r->head.data + at;
		if (strncasecmp(line, name, n) == 0 && line[n] == ':')
			return line + n + 1 + strspn(line + n + 1, " ");
		at += strlen(line) + 1;
	}
	return NULL;
}

void assert_request(struct http_server *s, size_t i, const char *want)
{
	const struct http_request *r = http_server_request(s, i);
	char have[8300];

	snprintf(have, sizeof(have), "%s %s", r->method, r->target);
	assert_string_equal(have, want);
}

void assert_header(struct http_server *s, size_t i, const char *name, const char *want)
{
	const char *have = http_request_header(http_server_request(s, i), name);

	if (want == NULL)
		assert_null(have);
	else if (have == NULL)
		fail_msg("request %zu has no %s", i, name);
	else
		assert_string_equal(have, want);
}

void http_reply_text(struct http_reply *reply, int status, const char *body)
{
	reply->status = status;
	warm_buf_put(&reply->body, body, strlen(body));
}

void http_reply_header(struct http_reply *reply, const char *fmt, ...)
{
	scope_free char *line = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&line, fmt, ap) < 0)
		abort();
	va_end(ap);
	warm_buf_printf(&reply->headers, "%s\r\n", line);
}

void http_reply_object(struct http_reply *reply, const struct http_request *request,
		       const void *data, size_t bytes)
{
	const char *range = http_request_header(request, "range");
	unsigned long long first = 0, last = bytes - 1;

	reply->status = 200;
	if (range != NULL && sscanf(range, "bytes=%llu-%llu", &first, &last) == 2) {
		reply->status = first < bytes ? 206 : 416;
		if (last >= bytes)
			last = bytes - 1;
		http_reply_header(reply, "Content-Range: bytes %llu-%llu/%zu", first, last, bytes);
	}
	if (reply->status != 416)
		warm_buf_put(&reply->body, (const char *)data + first, last + 1 - first);
}

int closed_port(void)
{
	struct http_server *s = http_server_canned(NULL, 0);
	int port = atoi(strrchr(s->url, ':') + 1);

	http_server_close(s);
	return port;
}

void no_clouds(void)
{
	static const char *const names[] = {
		"http_proxy",
		"https_proxy",
		"HTTP_PROXY",
		"HTTPS_PROXY",
		"all_proxy",
		"ALL_PROXY",
		"AWS_ACCESS_KEY_ID",
		"AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN",
		"AWS_PROFILE",
		"AWS_SHARED_CREDENTIALS_FILE",
		"AWS_CONFIG_FILE",
		"AWS_REGION",
		"AWS_DEFAULT_REGION",
		"AWS_ROLE_ARN",
		"AWS_ROLE_SESSION_NAME",
		"AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT",
		"AWS_ENDPOINT_URL",
		"AWS_ENDPOINT_URL_S3",
		"AWS_ENDPOINT_URL_STS",
		"AWS_ENDPOINT_URL_ECR",
		"AWS_CA_BUNDLE",
		"AWS_USE_DUALSTACK_ENDPOINT",
		"AWS_USE_FIPS_ENDPOINT",
		"SSL_CERT_FILE",
		"REGISTRY_AUTH_FILE",
		"DOCKER_CONFIG",
		"XDG_RUNTIME_DIR",
	};

	for (size_t i = 0; i < COUNT(names); i++)
		unsetenv(names[i]);
	setenv("NO_PROXY", "127.0.0.1,localhost", 1);
	setenv("HOME", "/nonexistent", 1);
	setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
	setenv("GCE_METADATA_HOST", "127.0.0.1:1", 1);
}
