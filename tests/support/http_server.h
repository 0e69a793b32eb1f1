/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted HTTP/1.1 server on 127.0.0.1, in threads of its own, and the clean environment that
 * tests of remote stores want.
 *
 * A handler, or a list of canned answers, says what is answered; what was asked is kept. Handlers
 * run one at a time. Everything here ends the test with an assertion when it fails.
 */
#ifndef WARM_TESTS_HTTP_SERVER_H
#define WARM_TESTS_HTTP_SERVER_H

#include "tests/support/scratch.h"

#include "lib/base/buf.h"

struct http_server;

struct http_request {
	char *method, *target; /* target: path and query, as sent */
	struct warm_buf head;  /* header lines, each ended by a NUL */
	struct warm_buf body;  /* a NUL behind it that isn't counted */
	unsigned connection;   /* from 0, in the order they were made */
};

struct http_reply {
	int status; /* 0: the connection is closed instead */
	struct warm_buf headers, body;
	int64_t length; /* what Content-Length says; -1: the body's, -2: nothing */
	uint64_t cut;	/* of the body so much is sent, and the connection closed */
	int delay_ms;
	bool hang; /* after what is sent, until either side closes */
	bool bare; /* the body is all that is sent: status line, headers */
};
typedef void (*http_handler_fn)(void *arg, const struct http_request *request,
				struct http_reply *reply);

struct canned {
	int status;
	const char *headers; /* "Name: value\r\n..."; may be NULL */
	const char *body;    /* may be NULL */
	int64_t length;	     /* 0: the body's */
	uint64_t cut;	     /* 0: not */
	bool hang, bare;
};

/* On a port that is free, or on `port`. */
struct http_server *http_server_open(http_handler_fn handler, void *arg);
struct http_server *http_server_open_at(int port, http_handler_fn handler, void *arg);
/* With TLS, by a certificate for 127.0.0.1 that is written to `ca_path`. */
struct http_server *http_server_open_tls(const char *ca_path, http_handler_fn handler, void *arg);
/* The nth request gets the nth answer, those after the last a 418. Borrowed. */
struct http_server *http_server_canned(const struct canned *answers, size_t n);
#define CANNED(answers) http_server_canned(answers, COUNT(answers))
void http_server_close(struct http_server *s);

/* "http://127.0.0.1:<port>", and that without the scheme. */
const char *http_server_url(const struct http_server *s);
const char *http_server_host(const struct http_server *s);

size_t http_server_count(struct http_server *s);
/* Lives as long as the server. */
const struct http_request *http_server_request(struct http_server *s, size_t i);
/* Its header, or NULL. */
const char *http_request_header(const struct http_request *r, const char *name);
/* The nth request is "GET /a?b". */
void assert_request(struct http_server *s, size_t i, const char *want);
void assert_header(struct http_server *s, size_t i, const char *name, const char *want);

void http_reply_text(struct http_reply *reply, int status, const char *body);
void http_reply_header(struct http_reply *reply, const char *fmt, ...) WARM_PRINTF(2, 3);
/* Answer a GET, with a Range or without, or a HEAD of `data`. */
void http_reply_object(struct http_reply *reply, const struct http_request *request,
		       const void *data, size_t bytes);

/* A port of 127.0.0.1 where nobody listens. */
int closed_port(void);

/* No proxy, no credentials, no home, no metadata service: whatever a test needs it sets. */
void no_clouds(void);

#endif
