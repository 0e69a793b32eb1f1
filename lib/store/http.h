/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP engine under all remote stores: requests with retries, over connections kept alive.
 *
 *	warm_http_open()
 *	warm_http_run()		one request, however many tries it takes
 *	warm_http_free()
 *
 * Each call takes one of the client's connections and drives it (curl's multi interface) in the
 * thread of its caller: a sink that waits holds nobody else, and bytes go from the socket to the
 * sink without a stop between. A deadline or a cancel ends a call within 50 ms.
 *
 * Tried again, with full jitter: 429 and 5xx (as Retry-After says), resets, timeouts, stalls, bodies
 * that are too short. A ranged GET goes on where it was cut. A server that was never reached is
 * tried once: an outage must not use up a start.
 *
 * Threads: any number at once on one client; more than it has connections wait.
 * Source: RFC 9110, RFC 9111.
 */
#ifndef WARM_STORE_HTTP_H
#define WARM_STORE_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/clock.h"
#include "lib/base/error.h"
#include "lib/store/url.h"

struct warm_http;

struct warm_http_options {
	const char *ca_file;  /* trusted instead of the system's; NULL for those; borrowed */
	unsigned connections; /* at most at once, up to 16; 0: 8 */
	bool local;	      /* a metadata server: no proxy; tried again only when it is busy */
};

#define WARM_HTTP_CONNECTIONS 16
#define WARM_HTTP_CONNECTIONS_USUAL 8 /* more only help where one is slow and CPUs are many */

/* INVALID when the certificates can't be read; they are at the first use of TLS. Nothing is contacted. */
int warm_http_open(const struct warm_http_options *options, struct warm_http **ret_http,
		   struct warm_error *err) WARM_CHECKED;
void warm_http_free(struct warm_http *http);

/* The same by a store's URL: its parameters `ca`, else a variable of `ca_env` (warm_url_param()), and
 * `connections`. Borrows from the URL. */
int warm_http_open_url(const struct warm_url *url, const char *const *ca_env,
		       struct warm_http **ret_http, struct warm_error *err) WARM_CHECKED;

typedef int (*warm_http_sink_fn)(void *arg, const void *data, size_t bytes, struct warm_error *err);

enum { WARM_HTTP_HEADERS = 20 };

unsigned warm_http_connections(const struct warm_http *http);

/* What one try sends. `prepare` fills it anew each time. */
struct warm_http_request {
	const char *method; /* static */
	char *url;	    /* owned */
	char *headers[WARM_HTTP_HEADERS];
	size_t n_headers;
};

/* Set or append; formatted. On lack of memory, or of room, the run fails. */
void warm_http_request_url(struct warm_http_request *request, const char *fmt, ...)
	WARM_PRINTF(2, 3);
void warm_http_request_header(struct warm_http_request *request, const char *fmt, ...)
	WARM_PRINTF(2, 3);

struct warm_http_response {
	long status;
	bool foreign;	      /* a redirect has led to another origin, without our headers */
	struct warm_buf head; /* header lines, each ended by a NUL */
	struct warm_buf body; /* what no sink took, with a NUL behind it that isn't counted */
};

void warm_http_response_release(struct warm_http_response *response);
#define scope_response WARM_SCOPE(warm_http_response_release)

/* A header's value, or NULL. Borrowed from the response. */
const char *warm_http_header(const struct warm_http_response *response, const char *name);
/* The Date header in ms since 1970, -1 without one. */
int64_t warm_http_date(const struct warm_http_response *response);
int64_t warm_http_parse_date(const char *text);

/* What a run is about. */
struct warm_http_run {
	/* Before each try: method, URL, headers. */
	int (*prepare)(void *arg, struct warm_http_request *request, const struct warm_call *call,
		       struct warm_error *err);
	/* An answer that is no success and isn't to be retried as it stands. Either makes the error,
	 * or sets `ret_again` (something is known now that will make it work: a token, a region;
	 * at most 4 times a run) and returns 0. */
	int (*refused)(void *arg, const struct warm_http_response *response, bool *ret_again,
		       struct warm_error *err);
	void *arg;

	/* Body to send: memory, or a part of a file. */
	const void *data;
	int fd; /* read by offset; used where `data` is NULL and `body_bytes` > 0 */
	uint64_t fd_offset, body_bytes;
	bool has_body; /* send a Content-Length even if it is 0 */

	/* A range to get; `range_bytes` 0: no range, the body goes to `ret_response`. */
	uint64_t range_offset, range_bytes;
	warm_http_sink_fn sink;
	void *sink_arg;

	size_t max_body_bytes;	  /* LIMIT above; 0: 1 MiB */
	bool follow;		  /* redirects, without our headers where the origin is another */
	int64_t retry_refused_ms; /* a connection that is refused is tried again so long; 0: not */
	int64_t answer_ms;	  /* the longest silence; 0: 10 s */
};

/* Run it. `ret_response` may be NULL. A status of 2xx is success; of others `refused` makes an
 * error, or none.
 *
 * Errors: what `prepare`, `refused` and `sink` return; TRANSIENT after the retries; CORRUPT when a
 *         range comes back wrong or the object changes meanwhile; DENIED for a certificate that
 *         isn't trusted; LIMIT; CANCELED.
 * Owns:   the caller releases the response.
 */
int warm_http_run(struct warm_http *http, const struct warm_http_run *run,
		  struct warm_http_response *ret_response, const struct warm_call *call,
		  struct warm_error *err) WARM_CHECKED;

/* Scheme, host and port are the same. */
bool warm_http_same_origin(const char *a, const char *b);
/* A URL reference against its base. NULL when it is none, or out of memory. Owns: the caller. */
char *warm_http_resolve(const char *base, const char *reference);

/* Bytes of bodies that this process has sent and received: what stands still has stalled. */
uint64_t warm_http_moved(void);

#endif
