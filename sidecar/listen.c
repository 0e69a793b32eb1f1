/* SPDX-License-Identifier: Apache-2.0 */
#include "sidecar/listen.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/clock.h"

enum { CONNECTIONS = 512, IDLE_SECONDS = 5, PORTS = 65535, BACKLOG = 16, CONNECTION_BYTES = 4096 };

struct warm_listener {
	struct MHD_Daemon *daemon;
	pthread_mutex_t lock;
	struct warm_metrics metrics;
	_Atomic int64_t turned_ms;
};

struct answer {
	unsigned code;
	const char *type;
	struct warm_buf body;
};

static void answer_health(struct warm_listener *l, struct answer *a)
{
	int64_t ago = warm_clock_ms() - l->turned_ms;

	if (ago <= WARM_LISTEN_TURN_MS) {
		warm_buf_printf(&a->body, "ok\n");
		return;
	}
	a->code = MHD_HTTP_SERVICE_UNAVAILABLE;
	warm_buf_printf(&a->body, "the loop has not turned for %lld s\n", (long long)ago / 1000);
}

static void answer_ready(struct warm_listener *l, struct answer *a)
{
	const struct warm_metrics *m = &l->metrics;

	pthread_mutex_lock(&l->lock);
	if (m->state == WARM_SIDECAR_DISABLED || m->state == WARM_SIDECAR_STARTING) {
		a->code = MHD_HTTP_SERVICE_UNAVAILABLE;
		warm_buf_printf(&a->body, "%s%s%s\n", warm_sidecar_state_name(m->state),
				m->reason[0] != '\0' ? ": " : "", m->reason);
	} else {
		warm_buf_printf(&a->body, "ok\n");
	}
	pthread_mutex_unlock(&l->lock);
}

static void answer_metrics(struct warm_listener *l, struct answer *a)
{
	struct warm_metrics *copy = malloc(sizeof(*copy));

	if (copy == NULL) {
		a->body.failed = true;
		return;
	}
	pthread_mutex_lock(&l->lock);
	*copy = l->metrics;
	pthread_mutex_unlock(&l->lock);
	a->type = "text/plain; version=0.0.4; charset=utf-8";
	warm_metrics_print(copy, &a->body);
	free(copy);
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_bytes, void **state)
{
	static const struct {
		const char *path;
		void (*fn)(struct warm_listener *l, struct answer *a);
	} paths[] = {
		{ "/healthz", answer_health },
		{ "/readyz", answer_ready },
		{ "/metrics", answer_metrics },
	};
	static int seen;
	struct answer a = { MHD_HTTP_OK, "text/plain; charset=utf-8", WARM_BUF_INIT };
	bool found = false;

	(void)version;
	(void)upload;
	/* The first call of a request only brings its head; what is uploaded isn't wanted. */
	if (*state == NULL) {
		*state = &seen;
		return MHD_YES;
	}
	if (*upload_bytes > 0) {
		*upload_bytes = 0;
		return MHD_YES;
	}
	bool reads = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
	for (size_t i = 0; reads && i < sizeof(paths) / sizeof(paths[0]); i++) {
		if (strcmp(url, paths[i].path) != 0)
			continue;
		found = true;
		paths[i].fn(arg, &a);
	}
	if (!reads || !found) {
		a.code = reads ? MHD_HTTP_NOT_FOUND : MHD_HTTP_METHOD_NOT_ALLOWED;
		warm_buf_printf(&a.body, "/healthz, /readyz, /metrics\n");
	}
	enum MHD_Result result = MHD_NO;
	struct MHD_Response *response =
		a.body.failed ? NULL
			      : MHD_create_response_from_buffer(a.body.bytes, a.body.data,
								MHD_RESPMEM_MUST_COPY);
	if (response != NULL) {
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a.type);
		if (!reads)
			MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
		result = MHD_queue_response(connection, a.code, response);
		MHD_destroy_response(response);
	}
	warm_buf_release(&a.body);
	return result;
}

/* ---- the socket ---- */

static int split(const char *address, char host[256], char port[16], struct warm_error *err)
{
	const char *colon = strrchr(address, ':');
	size_t n = colon != NULL ? (size_t)(colon - address) : 0;

	if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) > 5 || n >= 256 ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1) || atoi(colon + 1) > PORTS)
		return warm_error_set(err, WARM_INVALID,
				      "--listen: '%.100s' is no HOST:PORT, :PORT or [HOST]:PORT",
				      address);
	snprintf(port, 16, "%s", colon + 1);
	if (n >= 2 && address[0] == '[' && address[n - 1] == ']') {
		address++;
		n -= 2;
	}
	snprintf(host, 256, "%.*s", (int)n, address);
	return 0;
}

static int bind_socket(const char *address, int *ret_fd, struct warm_error *err)
{
	char host[256] = "", port[16] = "";
	struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
				  .ai_socktype = SOCK_STREAM },
			*list = NULL;
	int rc = split(address, host, port, err);

	if (rc != 0)
		return rc;
	int failed = getaddrinfo(host[0] != '\0' ? host : NULL, port, &hints, &list);
	if (failed != 0)
		return warm_error_set(err, WARM_INVALID, "--listen: %.100s: %s", address,
				      gai_strerror(failed));
	rc = warm_error_set(err, WARM_INVALID, "--listen: %.100s has no address", address);
	/* For any address the IPv6 socket takes IPv4 as well: it is tried first. */
	for (int pass = host[0] != '\0' ? 1 : 0; rc != 0 && pass < 2; pass++)
		for (struct addrinfo *a = list; a != NULL && rc != 0; a = a->ai_next) {
			int on = 1, off = 0;
			if (pass == 0 && a->ai_family != AF_INET6)
				continue;
			scope_close int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
			if (fd >= 0)
				setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
			if (fd >= 0 && pass == 0)
				setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
			if (fd < 0 || bind(fd, a->ai_addr, a->ai_addrlen) != 0 ||
			    listen(fd, BACKLOG) != 0) {
				rc = warm_error_errno(err, errno, "--listen: %.100s", address);
				continue;
			}
			*ret_fd = take_fd(&fd);
			rc = 0;
		}
	freeaddrinfo(list);
	return rc;
}

int warm_listener_open(const char *address, struct warm_listener **ret_listener,
		       struct warm_error *err)
{
	int fd = -1, rc = bind_socket(address, &fd, err);

	if (rc != 0)
		return rc;
	struct warm_listener *l = calloc(1, sizeof(*l));
	if (l == NULL) {
		close(fd);
		return warm_error_nomem(err, sizeof(*l));
	}
	pthread_mutex_init(&l->lock, NULL);
	l->turned_ms = warm_clock_ms();
	l->daemon = MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL, answer,
		l, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_END);
	if (l->daemon == NULL) {
		close(fd);
		pthread_mutex_destroy(&l->lock);
		free(l);
		return warm_error_set(err, WARM_NO_MEMORY, "--listen: %.100s can't be served",
				      address);
	}
	*ret_listener = l;
	return 0;
}

void warm_listener_close(struct warm_listener *l)
{
	if (l == NULL)
		return;
	MHD_stop_daemon(l->daemon);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void warm_listener_update(struct warm_listener *l, const struct warm_metrics *metrics)
{
	if (l == NULL)
		return;
	pthread_mutex_lock(&l->lock);
	l->metrics = *metrics;
	pthread_mutex_unlock(&l->lock);
}

void warm_listener_beat(struct warm_listener *l)
{
	if (l != NULL)
		l->turned_ms = warm_clock_ms();
}
