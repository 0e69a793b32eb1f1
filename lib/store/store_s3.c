/* SPDX-License-Identifier: Apache-2.0 */
/*
 * S3 and Google Cloud Storage as a store: an object is an object, by the same REST calls. s3://
 * signs by SigV4, gs:// sends a Bearer token.
 *
 * Source: Amazon S3 API reference, 2006-03-01; Cloud Storage XML API.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/parallel.h"
#include "lib/store/aws.h"
#include "lib/store/backend.h"
#include "lib/store/google.h"
#include "lib/store/sigv4.h"
#include "lib/store/url.h"
#include "lib/store/xml.h"

enum {
	UPLOAD_ID_BYTES = 1000, /* encoded */
	PART_BYTES = 16 << 20,
	PARTS = 10000,
	PARTS_AT_ONCE = 4,
	PAGE_BYTES = 8 << 20, /* of a LIST of 1,000 keys: 1.5 MB with the longest */
	PUT_ANSWER_MS = 60 * 1000,
	ABORT_MS = 5000,
	REGION_BYTES = 64,
	SLOW_TRIES = 3, /* after a RequestTimeout, which is a 400 */
};

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct s3 {
	struct warm_url url;  /* host: the bucket */
	const char *endpoint; /* NULL: AWS by region */
	bool virtual_host, anonymous, requester_pays, signed_payload;
	const char *sse, *kms_key;
	uint64_t multipart_bytes;
	struct warm_http *http;
	struct warm_aws *aws;	    /* s3:// */
	struct warm_google *google; /* gs:// */
	pthread_mutex_t lock;
	char region[REGION_BYTES]; /* what the server says counts; under the lock */
	int64_t skew_ms;	   /* the server's clock against ours; under the lock */
};

/* One operation, over all its tries. */
struct op {
	struct s3 *s;
	const char *name, *method, *right;
	const char *object; /* NULL: the bucket */
	const char *query;  /* encoded; "" */
	const char *payload;
	bool puts; /* makes an object: encryption is asked for */
	bool missing_is_fine;
	char who[24], region[REGION_BYTES];
	bool renewed, moved, reset_clock;
	int waited;
};

static void s3_free(void *state)
{
	struct s3 *s = state;

	if (s == NULL)
		return;
	warm_http_free(s->http);
	warm_aws_free(s->aws);
	warm_google_free(s->google);
	warm_url_release(&s->url);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* ---- where requests go ---- */

static bool env_is_true(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && strcasecmp(value, "true") == 0;
}

static void put_endpoint(const struct s3 *s, const char *region, struct warm_buf *url)
{
	char base[256];
	const char *host;

	if (s->endpoint != NULL)
		snprintf(base, sizeof(base), "%s", s->endpoint);
	else
		snprintf(base, sizeof(base), "https://s3%s%s.%s.amazonaws.com%s",
			 env_is_true("AWS_USE_FIPS_ENDPOINT") ? "-fips" : "",
			 env_is_true("AWS_USE_DUALSTACK_ENDPOINT") ? ".dualstack" : "", region,
			 strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
	size_t n = strlen(base);
	while (n > 0 && base[n - 1] == '/')
		base[--n] = '\0';
	host = strstr(base, "://") + 3;
	if (s->virtual_host)
		warm_buf_printf(url, "%.*s%s.%s", (int)(host - base), base, s->url.host, host);
	else
		warm_buf_printf(url, "%s/%s", base, s->url.host);
}

static void put_key(const struct s3 *s, const char *name, struct warm_buf *buf)
{
	if (s->url.prefix[0] != '\0') {
		warm_url_encode(buf, s->url.prefix, true);
		warm_buf_put_u8(buf, '/');
	}
	warm_url_encode(buf, name, true);
}

static int prepare(void *arg, struct warm_http_request *r, const struct warm_call *call,
		   struct warm_error *err)
{
	struct op *op = arg;
	struct s3 *s = op->s;
	scope_buf struct warm_buf url = WARM_BUF_INIT;

	pthread_mutex_lock(&s->lock);
	memcpy(op->region, s->region, sizeof(op->region));
	int64_t skew_ms = s->skew_ms;
	pthread_mutex_unlock(&s->lock);
	put_endpoint(s, op->region, &url);
	warm_buf_put_u8(&url, '/');
	if (op->object != NULL)
		put_key(s, op->object, &url);
	if (op->query[0] != '\0')
		warm_buf_printf(&url, "?%s", op->query);
	warm_buf_put_u8(&url, 0);
	if (url.failed)
		return warm_error_nomem(err, url.bytes);
	r->method = op->method;
	warm_http_request_url(r, "%s", (const char *)url.data);
	if (s->requester_pays)
		warm_http_request_header(r, "x-amz-request-payer: requester");
	if (op->puts && s->sse != NULL)
		warm_http_request_header(r, "x-amz-server-side-encryption: %s", s->sse);
	if (op->puts && s->kms_key != NULL)
		warm_http_request_header(r, "x-amz-server-side-encryption-aws-kms-key-id: %s",
					 s->kms_key);
	if (s->google != NULL) {
		scope_free char *token = NULL;
		snprintf(op->who, sizeof(op->who), "the workload");
		int rc = warm_google_token(s->google, &token, call, err);
		if (rc == 0)
			warm_http_request_header(r, "Authorization: Bearer %s", token);
		return rc;
	}
	if (s->aws == NULL) {
		snprintf(op->who, sizeof(op->who), "nobody");
		return 0;
	}
	return warm_aws_sign(s->aws, r, op->region, "s3", op->payload, skew_ms, op->who, call, err);
}

/* ---- answers ---- */

struct answer {
	char code[64], message[160], region[REGION_BYTES], endpoint[128];
};

static int take_answer(void *arg, const char *path, const char *text, struct warm_error *err)
{
	struct answer *a = arg;

	(void)err;
	if (strcmp(path, "Error/Code") == 0)
		snprintf(a->code, sizeof(a->code), "%s", text);
	else if (strcmp(path, "Error/Message") == 0)
		snprintf(a->message, sizeof(a->message), "%s", text);
	else if (strcmp(path, "Error/Region") == 0)
		snprintf(a->region, sizeof(a->region), "%s", text);
	else if (strcmp(path, "Error/Endpoint") == 0)
		snprintf(a->endpoint, sizeof(a->endpoint), "%s", text);
	return 0;
}

static bool is_one_of(const char *code, const char *const *codes)
{
	for (; *codes != NULL; codes++)
		if (strcmp(code, *codes) == 0)
			return true;
	return false;
}

/* Whether the answer names another region for the bucket than the request was signed for. */
static bool learn_region(struct op *op, const struct warm_http_response *r, const struct answer *a)
{
	const char *region = warm_http_header(r, "x-amz-bucket-region");
	struct s3 *s = op->s;

	if (region == NULL)
		region = a->region;
	if (region[0] == '\0' || strlen(region) >= REGION_BYTES ||
	    region[strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-")] != '\0' ||
	    strcmp(op->region, region) == 0)
		return false;
	pthread_mutex_lock(&s->lock);
	snprintf(s->region, sizeof(s->region), "%s", region);
	pthread_mutex_unlock(&s->lock);
	return true;
}

static bool learn_clock(struct s3 *s, const struct warm_http_response *r)
{
	int64_t date = warm_http_date(r);

	if (date < 0)
		return false;
	pthread_mutex_lock(&s->lock);
	s->skew_ms = date - warm_clock_wall_ms();
	pthread_mutex_unlock(&s->lock);
	return true;
}

/* What to do about a refusal, for people. */
static const char *advice(const struct op *op, long status, const struct answer *a, char *text,
			  size_t bytes)
{
	bool nobody = strcmp(op->who, "nobody") == 0;

	text[0] = '\0';
	if (strcmp(a->code, "NoSuchBucket") == 0)
		snprintf(text, bytes,
			 ": there is no bucket of this name; check name and endpoint, or "
			 "create it");
	else if (strcmp(a->code, "SignatureDoesNotMatch") == 0)
		snprintf(text, bytes, ": the secret doesn't belong to the key");
	else if (strcmp(a->code, "InvalidAccessKeyId") == 0)
		snprintf(text, bytes, ": the server doesn't know the key");
	else if (strcmp(a->code, "RequestTimeTooSkewed") == 0)
		snprintf(text, bytes, ": this machine's clock is wrong; set it");
	else if (status == 403 && nobody && !op->s->anonymous)
		snprintf(text, bytes,
			 ": no credentials were found (environment, shared files, web "
			 "identity, container, instance)");
	else if (status == 403 && op->s->google != NULL)
		snprintf(text, bytes, ": its service account may lack a role for %s on the bucket",
			 op->name);
	else if (status == 403)
		snprintf(text, bytes, ": the role may lack %s", op->right);
	else if (status == 301 || status == 307 || status == 400)
		snprintf(text, bytes, "%s%s: is this the bucket's region and endpoint?",
			 a->message[0] != '\0' ? ": " : "", a->message);
	else if (a->message[0] != '\0')
		snprintf(text, bytes, ": %s", a->message);
	else if (status == 404)
		snprintf(text, bytes, ": is this an S3 server's endpoint?");
	return text;
}

static enum warm_status status_of(const struct op *op, long status, const struct answer *a)
{
	static const char *const full[] = { "QuotaExceeded", "InsufficientStorage",
					    "XMinioStorageFull", "StorageFull", NULL };

	if (is_one_of(a->code, full) || status == 507)
		return WARM_NO_SPACE;
	/* That an object isn't there is a cold cache; that a bucket isn't is a mistake. */
	if (status == 404 && op->object != NULL &&
	    (a->code[0] == '\0' || strcmp(a->code, "NoSuchKey") == 0 ||
	     strcmp(a->code, "NoSuchUpload") == 0))
		return WARM_NOT_FOUND;
	if (status == 412)
		return WARM_EXISTS;
	if (status == 416)
		return WARM_CORRUPT;
	if (status >= 500 || status == 429 || status == 408 || status == 409)
		return WARM_TRANSIENT;
	return WARM_DENIED;
}

/* The beginning of a body that is no XML, on one line. */
static void quote(const struct warm_http_response *r, char *ret_text, size_t bytes)
{
	snprintf(ret_text, bytes, "%.120s", (const char *)r->body.data);
	for (char *p = ret_text; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			*p = ' ';
}

static int refused(void *arg, const struct warm_http_response *r, bool *ret_again,
		   struct warm_error *err)
{
	static const char *const expired[] = { "ExpiredToken",	       "InvalidToken",
					       "TokenRefreshRequired", "ExpiredTokenException",
					       "InvalidAccessKeyId",   NULL };
	struct op *op = arg;
	struct s3 *s = op->s;
	struct answer a = { .code = "" };
	char hint[260];

	if (op->missing_is_fine && r->status == 404)
		return 0;
	/* A HEAD has no body, a proxy's isn't S3's. */
	if (r->body.bytes > 0 &&
	    warm_xml_parse(r->body.data, r->body.bytes, take_answer, &a, NULL) != 0)
		quote(r, a.message, sizeof(a.message));
	bool stale = is_one_of(a.code, expired) || (r->status == 401 && s->google != NULL);
	if (stale && !op->renewed) {
		op->renewed = *ret_again = true;
		if (s->aws != NULL)
			warm_aws_forget(s->aws);
		if (s->google != NULL)
			warm_google_forget(s->google);
		return 0;
	}
	bool elsewhere = r->status == 301 || r->status == 307 || r->status == 400 ||
			 r->status == 403;
	if (elsewhere && s->google == NULL && !op->moved && learn_region(op, r, &a)) {
		op->moved = *ret_again = true;
		return 0;
	}
	if (strcmp(a.code, "RequestTimeTooSkewed") == 0 && !op->reset_clock && learn_clock(s, r)) {
		op->reset_clock = *ret_again = true;
		return 0;
	}
	if (strcmp(a.code, "RequestTimeout") == 0 && op->waited++ < SLOW_TRIES) {
		*ret_again = true;
		return 0;
	}
	return warm_error_set(err, status_of(op, r->status, &a), "%ld%s%s for %s as %s%s",
			      r->status, a.code[0] != '\0' ? " " : "", a.code, op->name, op->who,
			      advice(op, r->status, &a, hint, sizeof(hint)));
}

static struct warm_http_run run_of(struct op *op)
{
	return (struct warm_http_run){ .prepare = prepare, .refused = refused, .arg = op };
}

/* ---- LIST ---- */

struct page {
	struct s3 *s;
	warm_list_fn fn;
	void *arg;
	char *key;
	uint64_t bytes;
	int64_t modified_ms;
	bool truncated, encoded, is_list;
	char *token;
	struct warm_buf found; /* of this page: bytes, modified, name; whether names are encoded may
				* come last */
};

static int keep_text(char **to, const char *text, struct warm_error *err)
{
	free(*to);
	*to = strdup(text);
	return *to == NULL ? warm_error_nomem(err, strlen(text)) : 0;
}

static int take_listed(void *arg, const char *path, const char *text, struct warm_error *err)
{
	struct page *p = arg;

	if (strcmp(path, "ListBucketResult/Contents/Key") == 0) {
		return keep_text(&p->key, text, err);
	} else if (strcmp(path, "ListBucketResult/Contents/Size") == 0) {
		p->bytes = strtoull(text, NULL, 10);
	} else if (strcmp(path, "ListBucketResult/Contents/LastModified") == 0) {
		p->modified_ms = warm_aws_parse_time(text);
	} else if (strcmp(path, "ListBucketResult/Contents") == 0) {
		if (p->key == NULL)
			return warm_error_set(err, WARM_CORRUPT, "LIST: an object without a key");
		warm_buf_put_u64(&p->found, p->bytes);
		warm_buf_put_u64(&p->found, (uint64_t)p->modified_ms);
		warm_buf_put_text(&p->found, p->key, strlen(p->key));
		if (p->found.failed)
			return warm_error_nomem(err, p->found.bytes);
		free(take_ptr(p->key));
		p->bytes = 0;
		p->modified_ms = -1;
	} else if (strcmp(path, "ListBucketResult") == 0) {
		p->is_list = true;
	} else if (strcmp(path, "ListBucketResult/IsTruncated") == 0) {
		p->truncated = strcmp(text, "true") == 0;
	} else if (strcmp(path, "ListBucketResult/EncodingType") == 0) {
		p->encoded = strcmp(text, "url") == 0;
	} else if (strcmp(path, "ListBucketResult/NextContinuationToken") == 0) {
		return keep_text(&p->token, text, err);
	}
	return 0;
}

static int tell_objects(struct page *p, struct warm_error *err)
{
	struct warm_reader r = warm_reader_of(p->found.data, p->found.bytes);
	size_t prefix = strlen(p->s->url.prefix), n = 0;

	while (r.at < r.bytes && !r.bad) {
		struct warm_object o = { .bytes = warm_reader_u64(&r) };
		o.modified_ms = (int64_t)warm_reader_u64(&r);
		scope_free char *key = strdup(warm_reader_text(&r, &n));
		if (key == NULL)
			return warm_error_nomem(err, n);
		for (char *c = key; p->encoded && *c != '\0'; c++)
			*c = *c == '+' ? ' ' : *c;
		if (p->encoded && warm_url_decode(key) != 0)
			continue;
		if (prefix > 0 &&
		    (strncmp(key, p->s->url.prefix, prefix) != 0 || key[prefix] != '/'))
			continue;
		o.name = key + (prefix > 0 ? prefix + 1 : 0);
		int rc = p->fn(p->arg, &o, err);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int list_page(struct page *p, const char *prefix, int64_t *ret_now_ms,
		     const struct warm_call *call, struct warm_error *err)
{
	scope_buf struct warm_buf query = WARM_BUF_INIT;
	scope_response struct warm_http_response response = { 0 };

	/* In the order of a canonical query, which some servers want. */
	if (p->token != NULL) {
		warm_buf_printf(&query, "continuation-token=");
		warm_url_encode(&query, p->token, false);
		warm_buf_put_u8(&query, '&');
	}
	warm_buf_printf(&query, "encoding-type=url&list-type=2&prefix=");
	if (p->s->url.prefix[0] != '\0') {
		warm_url_encode(&query, p->s->url.prefix, false);
		warm_buf_printf(&query, "%%2F");
	}
	warm_url_encode(&query, prefix, false);
	warm_buf_put_u8(&query, 0);
	if (query.failed)
		return warm_error_nomem(err, query.bytes);
	struct op op = { .s = p->s,
			 .name = "ListObjectsV2",
			 .method = "GET",
			 .right = "s3:ListBucket",
			 .query = (const char *)query.data,
			 .payload = EMPTY_SHA256 };
	struct warm_http_run run = run_of(&op);
	run.max_body_bytes = PAGE_BYTES;
	int rc = warm_http_run(p->s->http, &run, &response, call, err);
	if (rc != 0)
		return rc;
	if (ret_now_ms != NULL)
		*ret_now_ms = warm_http_date(&response);
	scope_free char *asked = take_ptr(p->token);
	p->truncated = p->encoded = p->is_list = false;
	p->found.bytes = 0;
	p->modified_ms = -1;
	rc = warm_xml_parse(response.body.data, response.body.bytes, take_listed, p, err);
	/* A page of somebody else (a proxy's login) must not look like an empty store. */
	if (rc == 0 && !p->is_list)
		rc = warm_error_set(err, WARM_CORRUPT, "ListObjectsV2 answers with something else");
	if (rc == 0)
		rc = tell_objects(p, err);
	if (rc == 0 && p->truncated &&
	    (p->token == NULL || (asked != NULL && strcmp(asked, p->token) == 0)))
		rc = warm_error_set(err, WARM_CORRUPT, "LIST: more pages, and no token for them");
	return rc;
}

static int s3_list(void *state, const char *prefix, warm_list_fn fn, void *arg, int64_t *ret_now_ms,
		   const struct warm_call *call, struct warm_error *err)
{
	struct page p = { .s = state, .fn = fn, .arg = arg };
	int rc;

	do
		rc = list_page(&p, prefix, ret_now_ms, call, err);
	while (rc == 0 && p.truncated);
	free(p.key);
	free(p.token);
	warm_buf_release(&p.found);
	return rc;
}

/* ---- objects ---- */

static int s3_head(void *state, const char *name, struct warm_object *ret_object,
		   const struct warm_call *call, struct warm_error *err)
{
	struct op op = { .s = state,
			 .name = "HeadObject",
			 .method = "HEAD",
			 .right = "s3:GetObject",
			 .object = name,
			 .query = "",
			 .payload = EMPTY_SHA256 };
	struct warm_http_run run = run_of(&op);
	scope_response struct warm_http_response response = { 0 };
	int rc = warm_http_run(op.s->http, &run, &response, call, err);

	if (rc != 0)
		return rc;
	const char *length = warm_http_header(&response, "content-length");
	if (length == NULL)
		return warm_error_set(err, WARM_CORRUPT, "HeadObject answers without a length");
	*ret_object = (struct warm_object){
		.name = name,
		.bytes = strtoull(length, NULL, 10),
		.modified_ms = warm_http_parse_date(warm_http_header(&response, "last-modified")),
	};
	return 0;
}

static int s3_get(void *state, const char *name, uint64_t offset, uint64_t bytes, warm_sink_fn sink,
		  void *arg, const struct warm_call *call, struct warm_error *err)
{
	struct op op = { .s = state,
			 .name = "GetObject",
			 .method = "GET",
			 .right = "s3:GetObject",
			 .object = name,
			 .query = "",
			 .payload = EMPTY_SHA256 };
	struct warm_http_run run = run_of(&op);

	run.range_offset = offset;
	run.range_bytes = bytes;
	run.sink = sink;
	run.sink_arg = arg;
	return bytes == 0 ? 0 : warm_http_run(op.s->http, &run, NULL, call, err);
}

/* The digest that the signature covers: of the bytes, or a word. */
static int payload_of(const struct s3 *s, int fd, uint64_t offset, uint64_t bytes,
		      char ret_payload[WARM_SHA256_HEX_BYTES], struct warm_error *err)
{
	if (s->aws != NULL && s->signed_payload)
		return warm_sha256_file_hex(fd, offset, bytes, ret_payload, err);
	snprintf(ret_payload, WARM_SHA256_HEX_BYTES, WARM_SIGV4_UNSIGNED);
	return 0;
}

static int put_single(struct s3 *s, const char *name, int fd, uint64_t bytes,
		      const struct warm_call *call, struct warm_error *err)
{
	char payload[WARM_SHA256_HEX_BYTES];
	struct op op = { .s = s,
			 .name = "PutObject",
			 .method = "PUT",
			 .right = "s3:PutObject",
			 .object = name,
			 .query = "",
			 .payload = payload,
			 .puts = true };
	struct warm_http_run run = run_of(&op);
	int rc = payload_of(s, fd, 0, bytes, payload, err);

	run.fd = fd;
	run.body_bytes = bytes;
	run.has_body = true;
	run.answer_ms = PUT_ANSWER_MS;
	return rc != 0 ? rc : warm_http_run(s->http, &run, NULL, call, err);
}

/* ---- in parts ---- */

struct upload {
	struct s3 *s;
	const char *name;
	int fd;
	uint64_t bytes, part_bytes;
	char *id; /* encoded */
	char **etags;
	size_t n_parts;
	const struct warm_call *call;
};

static int take_upload_id(void *arg, const char *path, const char *text, struct warm_error *err)
{
	char **id = arg;

	if (strcmp(path, "InitiateMultipartUploadResult/UploadId") != 0)
		return 0;
	free(*id);
	*id = strdup(text);
	return *id == NULL ? warm_error_nomem(err, strlen(text)) : 0;
}

static int begin_upload(struct upload *u, struct warm_error *err)
{
	struct op op = { .s = u->s,
			 .name = "CreateMultipartUpload",
			 .method = "POST",
			 .right = "s3:PutObject",
			 .object = u->name,
			 .query = "uploads=",
			 .payload = EMPTY_SHA256,
			 .puts = true };
	struct warm_http_run run = run_of(&op);
	scope_response struct warm_http_response response = { 0 };
	scope_buf struct warm_buf encoded = WARM_BUF_INIT;
	scope_free char *found = NULL;

	run.has_body = true;
	int rc = warm_http_run(u->s->http, &run, &response, u->call, err);
	if (rc == 0)
		rc = warm_xml_parse(response.body.data, response.body.bytes, take_upload_id, &found,
				    err);
	if (rc == 0 && found == NULL)
		rc = warm_error_set(err, WARM_CORRUPT,
				    "CreateMultipartUpload answers without an id");
	if (rc == 0) {
		warm_url_encode(&encoded, found, false);
		warm_buf_put_u8(&encoded, 0);
		u->id = encoded.failed ? NULL : strdup((const char *)encoded.data);
		if (u->id == NULL)
			rc = warm_error_nomem(err, encoded.bytes);
	}
	return rc;
}

static int put_part(void *arg, size_t i, struct warm_error *err)
{
	struct upload *u = arg;
	char query[1200], payload[WARM_SHA256_HEX_BYTES];
	struct op op = { .s = u->s,
			 .name = "UploadPart",
			 .method = "PUT",
			 .right = "s3:PutObject",
			 .object = u->name,
			 .query = query,
			 .payload = payload };
	struct warm_http_run run = run_of(&op);
	scope_response struct warm_http_response response = { 0 };

	snprintf(query, sizeof(query), "partNumber=%zu&uploadId=%s", i + 1, u->id);
	run.fd = u->fd;
	run.fd_offset = i * u->part_bytes;
	run.body_bytes = u->bytes - run.fd_offset;
	if (run.body_bytes > u->part_bytes)
		run.body_bytes = u->part_bytes;
	run.answer_ms = PUT_ANSWER_MS;
	int rc = payload_of(u->s, u->fd, run.fd_offset, run.body_bytes, payload, err);
	if (rc == 0)
		rc = warm_http_run(u->s->http, &run, &response, u->call, err);
	if (rc != 0)
		return rc;
	const char *etag = warm_http_header(&response, "etag");
	if (etag == NULL)
		return warm_error_set(err, WARM_CORRUPT, "UploadPart answers without an ETag");
	u->etags[i] = strdup(etag);
	return u->etags[i] == NULL ? warm_error_nomem(err, strlen(etag)) : 0;
}

static int try_to_end(struct upload *u, struct warm_error *err)
{
	char query[1100], payload[WARM_SHA256_HEX_BYTES];
	scope_buf struct warm_buf body = WARM_BUF_INIT;
	scope_response struct warm_http_response response = { 0 };
	struct op op = { .s = u->s,
			 .name = "CompleteMultipartUpload",
			 .method = "POST",
			 .right = "s3:PutObject",
			 .object = u->name,
			 .query = query,
			 .payload = payload };
	struct warm_http_run run = run_of(&op);
	struct answer a = { .code = "" };
	struct warm_object object = { .name = NULL };

	snprintf(query, sizeof(query), "uploadId=%s", u->id);
	warm_buf_printf(&body, "<CompleteMultipartUpload "
			       "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
	for (size_t i = 0; i < u->n_parts; i++)
		warm_buf_printf(&body, "<Part><PartNumber>%zu</PartNumber><ETag>%s</ETag></Part>",
				i + 1, u->etags[i]);
	warm_buf_printf(&body, "</CompleteMultipartUpload>");
	if (body.failed)
		return warm_error_nomem(err, body.bytes);
	warm_sha256_hex(body.data, body.bytes, payload);
	run.data = body.data;
	run.body_bytes = body.bytes;
	run.answer_ms = PUT_ANSWER_MS;
	int rc = warm_http_run(u->s->http, &run, &response, u->call, err);
	/* An earlier try may have gone through, its answer lost. */
	if (rc == WARM_NOT_FOUND && s3_head(u->s, u->name, &object, u->call, NULL) == 0 &&
	    object.bytes == u->bytes)
		return 0;
	if (rc != 0)
		return rc == WARM_NOT_FOUND
			       ? warm_error_set(err, WARM_TRANSIENT, "the upload has been aborted")
			       : rc;
	/* 200 is sent before the parts are joined; what went wrong then stands in the body. */
	rc = warm_xml_parse(response.body.data, response.body.bytes, take_answer, &a, err);
	if (rc == 0 && a.code[0] != '\0')
		rc = warm_error_set(err, WARM_TRANSIENT, "%s for %s: %s", a.code, op.name,
				    a.message);
	return rc;
}

/* An error that comes behind the 200 is to be tried again, says AWS. */
static int end_upload(struct upload *u, struct warm_error *err)
{
	int rc = WARM_TRANSIENT;

	for (int tries = 0; tries < SLOW_TRIES && rc == WARM_TRANSIENT; tries++)
		rc = try_to_end(u, err);
	return rc;
}

static int abort_upload(struct upload *u, const struct warm_call *call, struct warm_error *err)
{
	char query[1100];
	struct op op = { .s = u->s,
			 .name = "AbortMultipartUpload",
			 .method = "DELETE",
			 .right = "s3:AbortMultipartUpload",
			 .object = u->name,
			 .query = query,
			 .payload = EMPTY_SHA256,
			 .missing_is_fine = true };
	struct warm_http_run run = run_of(&op);

	snprintf(query, sizeof(query), "uploadId=%s", u->id);
	return warm_http_run(u->s->http, &run, NULL, call, err);
}

/* One that can't be ended; what stays is for a sweep, or the bucket's lifecycle. */
static void give_up(struct upload *u)
{
	struct warm_call call = { .deadline_ms = warm_clock_ms() + ABORT_MS };

	if (abort_upload(u, &call, NULL) != 0)
		return;
}

static int put_parts(struct s3 *s, const char *name, int fd, uint64_t bytes,
		     const struct warm_call *call, struct warm_error *err)
{
	struct upload u = { .s = s, .name = name, .fd = fd, .bytes = bytes, .call = call };

	u.part_bytes = PART_BYTES < s->multipart_bytes ? PART_BYTES : s->multipart_bytes;
	while (bytes / u.part_bytes >= PARTS)
		u.part_bytes *= 2;
	u.n_parts = (size_t)((bytes + u.part_bytes - 1) / u.part_bytes);
	u.etags = calloc(u.n_parts, sizeof(*u.etags));
	if (u.etags == NULL)
		return warm_error_nomem(err, u.n_parts * sizeof(*u.etags));
	int rc = begin_upload(&u, err);
	if (rc == 0 && u.id != NULL) {
		if (strlen(u.id) > UPLOAD_ID_BYTES)
			rc = warm_error_set(err, WARM_LIMIT, "an upload's id of %zu bytes",
					    strlen(u.id));
		if (rc == 0)
			rc = warm_parallel(PARTS_AT_ONCE, u.n_parts, put_part, &u, err);
		if (rc == 0)
			rc = end_upload(&u, err);
		if (rc != 0)
			give_up(&u);
	}
	for (size_t i = 0; i < u.n_parts; i++)
		free(u.etags[i]);
	free(u.etags);
	free(u.id);
	return rc;
}

/* ---- uploads that never ended ---- */

struct uploads {
	struct s3 *s;
	const struct warm_call *call;
	int64_t before_ms, begun_ms;
	bool (*is_ours)(const char *name);
	bool removes, truncated, is_list;
	char *key, *id, *key_marker, *id_marker;
	struct warm_buf found; /* of this page: keys and ids */
	size_t *swept;
};

static int take_unended(void *arg, const char *path, const char *text, struct warm_error *err)
{
	static const char root[] = "ListMultipartUploadsResult";
	struct uploads *u = arg;
	size_t n = sizeof(root) - 1;

	if (strncmp(path, root, n) != 0)
		return 0;
	path += n;
	u->is_list = true;
	if (strcmp(path, "/IsTruncated") == 0)
		u->truncated = strcmp(text, "true") == 0;
	else if (strcmp(path, "/NextKeyMarker") == 0)
		return keep_text(&u->key_marker, text, err);
	else if (strcmp(path, "/NextUploadIdMarker") == 0)
		return keep_text(&u->id_marker, text, err);
	else if (strcmp(path, "/Upload/Key") == 0)
		return keep_text(&u->key, text, err);
	else if (strcmp(path, "/Upload/UploadId") == 0)
		return keep_text(&u->id, text, err);
	else if (strcmp(path, "/Upload/Initiated") == 0)
		u->begun_ms = warm_aws_parse_time(text);
	else if (strcmp(path, "/Upload") == 0) {
		if (u->key != NULL && u->id != NULL && u->begun_ms >= 0 &&
		    u->begun_ms < u->before_ms) {
			warm_buf_put_text(&u->found, u->key, strlen(u->key));
			warm_buf_put_text(&u->found, u->id, strlen(u->id));
		}
		u->begun_ms = -1;
	}
	return 0;
}

static int abort_found(struct uploads *u, struct warm_error *err)
{
	struct warm_reader r = warm_reader_of(u->found.data, u->found.bytes);
	size_t prefix = strlen(u->s->url.prefix), n = 0;

	while (r.at < r.bytes && !r.bad) {
		const char *key = warm_reader_text(&r, &n), *id = warm_reader_text(&r, &n);
		scope_buf struct warm_buf encoded = WARM_BUF_INIT;
		if (r.bad || (prefix > 0 &&
			      (strncmp(key, u->s->url.prefix, prefix) != 0 || key[prefix] != '/')))
			continue;
		if (!u->is_ours(key + (prefix > 0 ? prefix + 1 : 0)))
			continue;
		warm_url_encode(&encoded, id, false);
		warm_buf_put_u8(&encoded, 0);
		if (encoded.failed)
			return warm_error_nomem(err, n);
		if (encoded.bytes > UPLOAD_ID_BYTES)
			continue;
		struct upload one = { .s = u->s,
				      .name = key + (prefix > 0 ? prefix + 1 : 0),
				      .id = (char *)encoded.data };
		int rc = u->removes ? abort_upload(&one, u->call, err) : 0;
		if (rc != 0)
			return rc;
		(*u->swept)++;
	}
	return 0;
}

static int sweep_page(struct uploads *u, const char *prefix, int64_t age_ms, struct warm_error *err)
{
	scope_buf struct warm_buf query = WARM_BUF_INIT;
	scope_response struct warm_http_response response = { 0 };

	if (u->key_marker != NULL) {
		warm_buf_printf(&query, "key-marker=");
		warm_url_encode(&query, u->key_marker, false);
		warm_buf_put_u8(&query, '&');
	}
	warm_buf_printf(&query, "prefix=");
	if (u->s->url.prefix[0] != '\0') {
		warm_url_encode(&query, u->s->url.prefix, false);
		warm_buf_printf(&query, "%%2F");
	}
	warm_url_encode(&query, prefix, false);
	if (u->id_marker != NULL) {
		warm_buf_printf(&query, "&upload-id-marker=");
		warm_url_encode(&query, u->id_marker, false);
	}
	warm_buf_printf(&query, "&uploads=");
	warm_buf_put_u8(&query, 0);
	if (query.failed)
		return warm_error_nomem(err, query.bytes);
	struct op op = { .s = u->s,
			 .name = "ListMultipartUploads",
			 .method = "GET",
			 .right = "s3:ListBucketMultipartUploads",
			 .query = (const char *)query.data,
			 .payload = EMPTY_SHA256 };
	struct warm_http_run run = run_of(&op);
	run.max_body_bytes = PAGE_BYTES;
	int rc = warm_http_run(u->s->http, &run, &response, u->call, err);
	int64_t now = rc == 0 ? warm_http_date(&response) : -1;
	if (rc != 0 || now < 0)
		return rc;
	scope_free char *asked = take_ptr(u->key_marker), *asked_id = take_ptr(u->id_marker);
	u->before_ms = now - age_ms;
	u->begun_ms = -1;
	u->truncated = u->is_list = false;
	u->found.bytes = 0;
	rc = warm_xml_parse(response.body.data, response.body.bytes, take_unended, u, err);
	if (rc == 0 && u->found.failed)
		rc = warm_error_nomem(err, u->found.bytes);
	if (rc == 0 && !u->is_list)
		rc = warm_error_set(err, WARM_CORRUPT,
				    "ListMultipartUploads answers with something else");
	if (rc == 0)
		rc = abort_found(u, err);
	/* More, and nothing that says where: what is left is for another time. */
	bool same_key = u->key_marker == NULL ||
			(asked != NULL && strcmp(asked, u->key_marker) == 0),
	     same_id = u->id_marker == NULL ||
		       (asked_id != NULL && strcmp(asked_id, u->id_marker) == 0);
	if (same_key && same_id)
		u->truncated = false;
	return rc;
}

static int s3_sweep(void *state, const char *prefix, int64_t age_ms,
		    bool (*is_ours)(const char *name), bool dry_run, size_t *ret_n,
		    const struct warm_call *call, struct warm_error *err)
{
	struct uploads u = {
		.s = state, .call = call, .is_ours = is_ours, .removes = !dry_run, .swept = ret_n
	};
	int rc;

	do
		rc = sweep_page(&u, prefix, age_ms, err);
	while (rc == 0 && u.truncated);
	free(u.key);
	free(u.id);
	free(u.key_marker);
	free(u.id_marker);
	warm_buf_release(&u.found);
	return rc;
}

static int s3_put(void *state, const char *name, int fd, uint64_t bytes, bool replace,
		  const struct warm_call *call, struct warm_error *err)
{
	struct s3 *s = state;

	(void)replace; /* names are never used twice, and conditions work on few servers */
	return bytes > s->multipart_bytes ? put_parts(s, name, fd, bytes, call, err)
					  : put_single(s, name, fd, bytes, call, err);
}

static int s3_delete(void *state, const char *name, const struct warm_call *call,
		     struct warm_error *err)
{
	struct op op = { .s = state,
			 .name = "DeleteObject",
			 .method = "DELETE",
			 .right = "s3:DeleteObject",
			 .object = name,
			 .query = "",
			 .payload = EMPTY_SHA256,
			 .missing_is_fine = true };
	struct warm_http_run run = run_of(&op);

	return warm_http_run(op.s->http, &run, NULL, call, err);
}

/* ---- opening ---- */

static unsigned s3_connections(const void *state)
{
	const struct s3 *s = state;

	return warm_http_connections(s->http);
}

static int check_endpoint(const char *endpoint, struct warm_error *err)
{
	if (endpoint == NULL)
		return 0;
	if (strncmp(endpoint, "https://", 8) != 0 && strncmp(endpoint, "http://", 7) != 0)
		return warm_error_set(err, WARM_INVALID, "endpoint '%.100s' is no http(s) URL",
				      endpoint);
	if (strlen(endpoint) > 200 || strpbrk(endpoint, "?#@") != NULL)
		return warm_error_set(err, WARM_INVALID,
				      "endpoint: only scheme, host, port and path (200 bytes)");
	return 0;
}

static int one_of(const struct warm_url *url, const char *name, const char *a, const char *b,
		  const char **ret_value, struct warm_error *err)
{
	const char *value = warm_url_param(url, name, NULL);

	if (value != NULL && strcmp(value, a) != 0 && strcmp(value, b) != 0)
		return warm_error_set(err, WARM_INVALID, "%s: '%.64s' is neither %s nor %s", name,
				      value, a, b);
	*ret_value = value;
	return 0;
}

static int open_common(struct s3 *s, struct warm_error *err)
{
	int rc = warm_url_number(&s->url, "multipart", 64 << 20, 5 << 20, (uint64_t)5 << 30,
				 &s->multipart_bytes, err);

	if (rc == 0)
		rc = warm_url_flag(&s->url, "anonymous", false, &s->anonymous, err);
	return rc;
}

static int open_s3(struct s3 *s, const char *rest, struct warm_error *err)
{
	static const char *const known[] = {
		"endpoint", "region",	      "addressing", "profile", "anonymous",
		"payload",  "requester-pays", "sse",	    "kms-key", "multipart",
		"ca",	    "connections",    NULL
	};
	static const char *const endpoint_env[] = { "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL",
						    NULL };
	static const char *const ca_env[] = { "AWS_CA_BUNDLE", NULL };
	const char *addressing = NULL, *payload = NULL;
	int rc = warm_url_parse(rest, known, &s->url, err);

	if (rc == 0)
		rc = open_common(s, err);
	if (rc == 0)
		rc = warm_url_flag(&s->url, "requester-pays", false, &s->requester_pays, err);
	if (rc == 0)
		rc = one_of(&s->url, "addressing", "path", "virtual", &addressing, err);
	if (rc == 0)
		rc = one_of(&s->url, "payload", "signed", "unsigned", &payload, err);
	if (rc == 0)
		rc = one_of(&s->url, "sse", "AES256", "aws:kms", &s->sse, err);
	if (rc == 0)
		rc = warm_http_open_url(&s->url, ca_env, &s->http, err);
	if (rc != 0)
		return rc;
	s->kms_key = warm_url_param(&s->url, "kms-key", NULL);
	struct warm_aws_options o = { .profile = warm_url_param(&s->url, "profile", NULL),
				      .region = warm_url_param(&s->url, "region", NULL),
				      .anonymous = s->anonymous,
				      .ca_file = warm_url_param(&s->url, "ca", ca_env) };
	rc = warm_aws_open(&o, &s->aws, err);
	if (rc != 0)
		return rc;
	s->endpoint = warm_url_param(&s->url, "endpoint", endpoint_env);
	if (s->endpoint == NULL)
		s->endpoint = warm_aws_setting(s->aws, "endpoint_url");
	const char *region = warm_url_param(&s->url, "region", NULL);
	if (region == NULL)
		region = warm_aws_region(s->aws);
	snprintf(s->region, sizeof(s->region), "%s", region != NULL ? region : "us-east-1");
	s->virtual_host = addressing != NULL
				  ? strcmp(addressing, "virtual") == 0
				  : s->endpoint == NULL && strchr(s->url.host, '.') == NULL;
	bool plain = s->endpoint != NULL && strncmp(s->endpoint, "http://", 7) == 0;
	s->signed_payload = payload != NULL ? strcmp(payload, "signed") == 0 : plain;
	return check_endpoint(s->endpoint, err);
}

static int open_gs(struct s3 *s, const char *rest, struct warm_error *err)
{
	static const char *const known[] = { "endpoint", "anonymous",	"multipart",
					     "ca",	 "connections", NULL };
	int rc = warm_url_parse(rest, known, &s->url, err);

	if (rc == 0)
		rc = open_common(s, err);
	if (rc == 0)
		rc = warm_http_open_url(&s->url, NULL, &s->http, err);
	if (rc == 0 && !s->anonymous)
		rc = warm_google_open(&s->google, err);
	if (rc != 0)
		return rc;
	s->endpoint = warm_url_param(&s->url, "endpoint", NULL);
	if (s->endpoint == NULL)
		s->endpoint = "https://storage.googleapis.com";
	return check_endpoint(s->endpoint, err);
}

static int check_bucket(const char *bucket, struct warm_error *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789.-_";

	if (strlen(bucket) > 255 || bucket[strspn(bucket, allowed)] != '\0')
		return warm_error_set(err, WARM_INVALID, "'%.100s' is no bucket's name", bucket);
	return 0;
}

static int open_with(int (*open_one)(struct s3 *, const char *, struct warm_error *),
		     const char *rest, void **ret_state, struct warm_error *err)
{
	struct s3 *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return warm_error_nomem(err, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	int rc = open_one(s, rest, err);
	if (rc == 0)
		rc = check_bucket(s->url.host, err);
	if (rc != 0) {
		s3_free(s);
		return rc;
	}
	*ret_state = s;
	return 0;
}

static int s3_open(const char *rest, void **ret_state, struct warm_error *err)
{
	return open_with(open_s3, rest, ret_state, err);
}

static int gs_open(const char *rest, void **ret_state, struct warm_error *err)
{
	return open_with(open_gs, rest, ret_state, err);
}

#define CALLS                                                                             \
	.connections = s3_connections, .free = s3_free, .list = s3_list, .head = s3_head, \
	.get = s3_get, .put = s3_put, .delete = s3_delete, .sweep = s3_sweep

const struct warm_backend warm_backend_s3 = {
	.scheme = "s3", .open = s3_open, .remote = true, CALLS
};
const struct warm_backend warm_backend_gs = {
	.scheme = "gs", .open = gs_open, .remote = true, CALLS
};
