/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <fcntl.h>
#include <time.h>

#include "lib/store/sigv4.h"

#define scope_server WARM_SCOPE(close_server)

static void close_server(struct http_server **s)
{
	http_server_close(*s);
}

static struct warm_store *open_url(const char *fmt, const struct http_server *s)
{
	struct warm_store *store = NULL;
	struct warm_error err = { 0 };
	char url[400];

	snprintf(url, sizeof(url), "%s%s%s", fmt, strchr(fmt, '?') != NULL ? "&" : "?",
		 "endpoint=");
	strcat(url, http_server_url(s));
	if (warm_store_open(url, &store, &err) != 0)
		fail_msg("%s", err.msg);
	return store;
}

/* With the keys of the documentation. */
static struct warm_store *open_s3(const char *url, const struct http_server *s)
{
	no_clouds();
	setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "hunter2", 1);
	return open_url(url, s);
}

static int take(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	(void)err;
	warm_buf_put(arg, data, bytes);
	return 0;
}

static int note(void *arg, const struct warm_object *o, struct warm_error *err)
{
	(void)err;
	warm_buf_printf(arg, "%s %llu %lld\n", o->name, (unsigned long long)o->bytes,
			(long long)o->modified_ms);
	return 0;
}

static int put_bytes(struct warm_store *store, const char *name, const void *data, size_t bytes,
		     struct warm_error *err)
{
	scope_scratch struct scratch s = scratch_open();

	put_file(s.fd, "source", data, bytes, 0600, 0);
	scope_close int fd = openat(s.fd, "source", O_RDONLY | O_CLOEXEC);
	return warm_store_put(store, name, fd, bytes, NULL, err);
}

/* ---- LIST ---- */

#define LIST                                        \
	"<?xml version=\"1.0\"?><ListBucketResult " \
	"xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
#define DATE "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"

static bool every_name(const char *name)
{
	return name[0] != '\0';
}

TEST(a_list_follows_its_pages_and_tells_names_below_the_prefix)
{
	static const struct canned answers[] = {
		{ .status = 200,
		  .body = LIST
		  "<IsTruncated>true</IsTruncated>"
		  "<Contents><Key>te%20am/m/v/p/a%2Bb+c</Key><Size>10</Size>"
		  "<LastModified>2013-05-24T00:00:00.250Z</LastModified><ETag>\"x\"</ETag></"
		  "Contents>"
		  "<Contents><LastModified>soon</LastModified><Key>te%20am/m/v/p/2</Key>"
		  "<Size>5368709120</Size></Contents>"
		  "<Contents><Key>te%20am-other/m</Key><Size>1</Size></Contents>"
		  "<Contents><Key>te%20am/m%zz</Key><Size>1</Size></Contents>"
		  "<NextContinuationToken>1/x+y=</NextContinuationToken>"
		  "<EncodingType>url</EncodingType></ListBucketResult>" },
		{ .status = 200,
		  .headers = DATE,
		  .body = LIST
		  "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"
		  "<Contents><Key>te%20am/m/v/p/3</Key></Contents></ListBucketResult>" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket/te am/?region=eu-1", s);
	scope_buf struct warm_buf found = WARM_BUF_INIT;
	int64_t now = 0;

	assert_int_equal(warm_store_list(store, "m/v/", note, &found, &now, NULL, NULL), 0);
	warm_buf_put_u8(&found, 0);
	assert_string_equal((char *)found.data, "m/v/p/a+b c 10 1369353600250\n"
						"m/v/p/2 5368709120 -1\nm/v/p/3 0 -1\n");
	assert_int_equal(now, 784887151000);
	assert_request(s, 0,
		       "GET /bucket/?encoding-type=url&list-type=2&prefix=te%20am%2Fm%2Fv%2F");
	assert_request(s, 1,
		       "GET /bucket/?continuation-token=1%2Fx%2By%3D&encoding-type=url&"
		       "list-type=2&prefix=te%20am%2Fm%2Fv%2F");
	assert_int_equal(http_server_count(s), 2);
}

TEST(names_that_are_not_encoded_are_taken_as_they_are)
{
	static const struct canned answers[] = {
		{ .status = 200,
		  .body = LIST "<Contents><Key>m/a+b%20c</Key></Contents></ListBucketResult>" },
		{ .status = 200, .body = LIST "</ListBucketResult>" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	scope_buf struct warm_buf found = WARM_BUF_INIT;

	assert_int_equal(warm_store_list(store, "m/", note, &found, NULL, NULL, NULL), 0);
	warm_buf_put_u8(&found, 0);
	assert_string_equal((char *)found.data, "m/a+b%20c 0 -1\n");
	assert_int_equal(warm_store_list(store, "", note, &found, NULL, NULL, NULL), 0);
	assert_request(s, 1, "GET /bucket/?encoding-type=url&list-type=2&prefix=");
}

TEST(a_list_that_is_none_is_corrupt)
{
	static const struct canned answers[] = {
		{ .status = 200,
		  .body = LIST "<IsTruncated>true</IsTruncated></ListBucketResult>" },
		{ .status = 200,
		  .body = LIST "<Contents><Size>1</Size></Contents></ListBucketResult>" },
		{ .status = 200, .body = "<html><br>" },
		{ .status = 200, .body = "<html>log in</html>" },
		{ .status = 200 },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	scope_buf struct warm_buf found = WARM_BUF_INIT;

	for (size_t i = 0; i < COUNT(answers); i++)
		assert_int_equal(warm_store_list(store, "", note, &found, NULL, NULL, NULL),
				 WARM_CORRUPT);
	assert_int_equal(http_server_count(s), COUNT(answers));
}

/* ---- objects ---- */

static void serve_object(void *arg, const struct http_request *request, struct http_reply *reply)
{
	http_reply_object(reply, request, arg, strlen(arg));
	http_reply_header(reply, "Last-Modified: Tue, 15 Nov 1994 08:12:31 GMT");
	if (strcmp(request->method, "DELETE") == 0)
		reply->status = 204;
}

TEST(an_object_is_looked_at_read_and_deleted)
{
	char data[] = "0123456789";
	scope_server struct http_server *s = http_server_open(serve_object, data);
	scope_store struct warm_store *store =
		open_s3("s3://bucket/p?requester-pays=true&region=eu-7", s);
	scope_buf struct warm_buf got = WARM_BUF_INIT;
	struct warm_object o;

	assert_int_equal(warm_store_head(store, "m/a b", &o, NULL, NULL), 0);
	assert_int_equal(o.bytes, 10);
	assert_int_equal(o.modified_ms, 784887151000);
	assert_int_equal(warm_store_get(store, "m/a b", 3, 4, take, &got, NULL, NULL), 0);
	assert_int_equal(got.bytes, 4);
	assert_memory_equal(got.data, "3456", 4);
	assert_int_equal(warm_store_get(store, "m/a b", 3, 0, take, &got, NULL, NULL), 0);
	assert_int_equal(warm_store_delete(store, "m/a b", NULL, NULL), 0);
	assert_request(s, 0, "HEAD /bucket/p/m/a%20b");
	assert_request(s, 1, "GET /bucket/p/m/a%20b");
	assert_request(s, 2, "DELETE /bucket/p/m/a%20b");
	assert_int_equal(http_server_count(s), 3);
	for (size_t i = 0; i < 3; i++) {
		const char *a = http_request_header(http_server_request(s, i), "authorization");
		assert_header(s, i, "x-amz-request-payer", "requester");
		assert_non_null(strstr(a, "/eu-7/s3/aws4_request, SignedHeaders=host;"
					  "x-amz-content-sha256;x-amz-date;x-amz-request-payer,"));
	}
}

TEST(a_put_signs_its_bytes_and_asks_for_encryption)
{
	static const struct canned answers[] = { { .status = 200 },
						 { .status = 200 },
						 { .status = 412 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket?sse=AES256", s);
	scope_store struct warm_store *other =
		open_s3("s3://bucket?sse=aws:kms&kms-key=arn%3Ax&payload=unsigned", s);
	char digest[WARM_SHA256_HEX_BYTES];

	warm_sha256_hex("abc", 3, digest);
	assert_int_equal(put_bytes(store, "m/a", "abc", 3, NULL), 0);
	assert_request(s, 0, "PUT /bucket/m/a");
	assert_header(s, 0, "x-amz-content-sha256", digest);
	assert_header(s, 0, "x-amz-server-side-encryption", "AES256");
	assert_header(s, 0, "x-amz-server-side-encryption-aws-kms-key-id", NULL);
	assert_string_equal((char *)http_server_request(s, 0)->body.data, "abc");
	assert_int_equal(put_bytes(other, "m/a", "", 0, NULL), 0);
	assert_header(s, 1, "content-length", "0");
	assert_header(s, 1, "x-amz-content-sha256", "UNSIGNED-PAYLOAD");
	assert_header(s, 1, "x-amz-server-side-encryption", "aws:kms");
	assert_header(s, 1, "x-amz-server-side-encryption-aws-kms-key-id", "arn:x");
	assert_int_equal(put_bytes(store, "m/a", "abc", 3, NULL), WARM_EXISTS);
}

/* ---- refusals ---- */

#define ERROR(code, rest) "<?xml version=\"1.0\"?>\n<Error><Code>" code "</Code>" rest "</Error>"
#define MESSAGE(text) "<Message>" text "</Message>"

TEST(a_refusal_says_what_was_asked_as_whom_and_what_to_do)
{
	static const struct {
		int status;
		const char *body;
		bool list; /* of the bucket; else a GET of an object */
		int want;
		const char *said;
	} rows[] = {
		{ 403, ERROR("AccessDenied", MESSAGE("Access Denied")), true, WARM_DENIED,
		  "s3://bucket/p/m/: 403 AccessDenied for ListObjectsV2 as key ...MPLE: the role "
		  "may "
		  "lack s3:ListBucket" },
		{ 403, ERROR("AccessDenied", ""), false, WARM_DENIED,
		  "s3://bucket/p/m/a: 403 AccessDenied for GetObject as key ...MPLE: the role may "
		  "lack s3:GetObject" },
		{ 404, ERROR("NoSuchKey", MESSAGE("gone")), false, WARM_NOT_FOUND,
		  "404 NoSuchKey" },
		{ 404, "", false, WARM_NOT_FOUND, "404 for GetObject" },
		{ 404, ERROR("NoSuchBucket", ""), false, WARM_DENIED,
		  "404 NoSuchBucket for GetObject as key ...MPLE: there is no bucket of this "
		  "name" },
		{ 404, ERROR("NoSuchBucket", ""), true, WARM_DENIED, "there is no bucket" },
		{ 404, "<html>nginx</html>", true, WARM_DENIED,
		  "is this an S3 server's endpoint?" },
		{ 403, ERROR("SignatureDoesNotMatch", ""), false, WARM_DENIED,
		  "the secret doesn't belong to the key" },
		{ 416, ERROR("InvalidRange", ""), false, WARM_CORRUPT, "416 InvalidRange" },
		{ 400, ERROR("InvalidArgument", MESSAGE("bad thing")), false, WARM_DENIED,
		  "bad thing: is this the bucket's region and endpoint?" },
		{ 301, ERROR("PermanentRedirect", ""), false, WARM_DENIED,
		  "is this the bucket's region" },
		{ 409, ERROR("OperationAborted", ""), false, WARM_TRANSIENT,
		  "409 OperationAborted" },
		{ 507, "", false, WARM_NO_SPACE, "507" },
		{ 400, ERROR("QuotaExceeded", MESSAGE("full")), false, WARM_NO_SPACE, "full" },
		{ 503, ERROR("SlowDown", MESSAGE("reduce")), false, WARM_TRANSIENT,
		  "503 SlowDown for GetObject as key ...MPLE: reduce" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		const struct canned a = { .status = rows[i].status,
					  .headers = "Retry-After: 0\r\n",
					  .body = rows[i].body };
		const struct canned answers[] = { a, a, a, a, a, a };
		scope_server struct http_server *s = CANNED(answers);
		scope_store struct warm_store *store = open_s3("s3://bucket/p", s);
		scope_buf struct warm_buf got = WARM_BUF_INIT;
		struct warm_error err = { 0 };
		int rc = rows[i].list ? warm_store_list(store, "m/", note, &got, NULL, NULL, &err)
				      : warm_store_get(store, "m/a", 0, 1, take, &got, NULL, &err);
		if (rc != rows[i].want || strstr(err.msg, rows[i].said) == NULL)
			fail_msg("row %zu: %d: %s", i, rc, err.msg);
		assert_int_equal(err.http_status, rows[i].status);
		assert_null(strstr(err.msg, "hunter2"));
		assert_int_equal(http_server_count(s), rows[i].status == 503 ? 5 : 1);
	}
}

TEST(who_has_no_credentials_is_told_where_they_were_looked_for)
{
	static const struct canned no = { .status = 403, .body = ERROR("AccessDenied", "") };
	const struct canned answers[] = { no, no };
	scope_server struct http_server *s = CANNED(answers);
	struct warm_object o;
	struct warm_error err = { 0 };

	no_clouds();
	scope_store struct warm_store *store = open_url("s3://bucket", s);
	assert_int_equal(warm_store_head(store, "m/a", &o, NULL, &err), WARM_DENIED);
	assert_non_null(strstr(err.msg, "as nobody: no credentials were found"));
	scope_store struct warm_store *anonymous = open_s3("s3://bucket?anonymous=true", s);
	assert_int_equal(warm_store_head(anonymous, "m/a", &o, NULL, &err), WARM_DENIED);
	assert_non_null(strstr(err.msg, "as nobody: the role may lack s3:GetObject"));
	for (size_t i = 0; i < 2; i++) {
		assert_header(s, i, "authorization", NULL);
		assert_header(s, i, "x-amz-date", NULL);
	}
}

TEST(what_is_not_there_is_deleted_already)
{
	static const struct canned answers[] = { { .status = 404,
						   .body = ERROR("NoSuchKey", "") } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);

	assert_int_equal(warm_store_delete(store, "m/a", NULL, NULL), 0);
}

/* ---- what is learned ---- */

static const char *authorization(struct http_server *s, size_t i)
{
	return http_request_header(http_server_request(s, i), "authorization");
}

TEST(another_region_is_learned_from_the_answer_and_kept)
{
	static const struct canned redirects[] = {
		{ .status = 301, .headers = "x-amz-bucket-region: eu-9\r\n" },
		{ .status = 307, .headers = "x-amz-bucket-region: eu-9\r\n" },
		{ .status = 403, .headers = "x-amz-bucket-region: eu-9\r\n" },
		{ .status = 400,
		  .body = ERROR("AuthorizationHeaderMalformed",
				MESSAGE("the region is wrong") "<Region>eu-9</Region>") },
	};

	for (size_t i = 0; i < COUNT(redirects); i++) {
		const struct canned gone = { .status = 404 };
		const struct canned answers[] = { redirects[i], gone, gone };
		scope_server struct http_server *s = CANNED(answers);
		scope_store struct warm_store *store = open_s3("s3://bucket", s);
		struct warm_object o;
		assert_int_equal(warm_store_head(store, "m/a", &o, NULL, NULL),
				 redirects[i].body != NULL ? WARM_DENIED : WARM_NOT_FOUND);
		if (redirects[i].body != NULL) /* a HEAD's answer has no body: by a GET */
			continue;
		assert_non_null(strstr(authorization(s, 0), "/us-east-1/s3/"));
		assert_non_null(strstr(authorization(s, 1), "/eu-9/s3/"));
		assert_int_equal(warm_store_head(store, "m/a", &o, NULL, NULL), WARM_NOT_FOUND);
		assert_non_null(strstr(authorization(s, 2), "/eu-9/s3/"));
		assert_int_equal(http_server_count(s), 3);
	}
	const struct canned answers[] = { redirects[3], redirects[3], { .status = 404 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket?region=eu-1", s);
	scope_buf struct warm_buf got = WARM_BUF_INIT;
	/* Once; a server that contradicts itself is refused. */
	assert_int_equal(warm_store_get(store, "m/a", 0, 1, take, &got, NULL, NULL), WARM_DENIED);
	assert_non_null(strstr(authorization(s, 0), "/eu-1/s3/"));
	assert_non_null(strstr(authorization(s, 1), "/eu-9/s3/"));
	assert_int_equal(http_server_count(s), 2);
}

TEST(a_region_that_is_no_name_is_not_learned)
{
	static const char *const headers[] = { "x-amz-bucket-region: ../evil\r\n",
					       "x-amz-bucket-region: EU\r\n",
					       "x-amz-bucket-region: a.b\r\n",
					       "x-amz-bucket-region: us-east-1\r\n" };

	for (size_t i = 0; i < COUNT(headers); i++) {
		const struct canned answers[] = { { .status = 301, .headers = headers[i] } };
		scope_server struct http_server *s = CANNED(answers);
		scope_store struct warm_store *store = open_s3("s3://bucket", s);
		struct warm_object o;
		assert_int_equal(warm_store_head(store, "m/a", &o, NULL, NULL), WARM_DENIED);
		assert_int_equal(http_server_count(s), 1);
	}
}

TEST(a_clock_that_is_wrong_is_corrected_once)
{
	static const struct canned skewed = { .status = 403,
					      .headers = DATE,
					      .body = ERROR("RequestTimeTooSkewed", "") };
	const struct canned answers[] = {
		skewed, { .status = 404 }, { .status = 404 }, skewed, skewed
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	scope_buf struct warm_buf got = WARM_BUF_INIT;
	struct warm_error err = { 0 };

	for (int i = 0; i < 2; i++)
		assert_int_equal(warm_store_get(store, "m/a", 0, 1, take, &got, NULL, NULL),
				 WARM_NOT_FOUND);
	for (size_t i = 1; i < 3; i++) {
		const char *date = http_request_header(http_server_request(s, i), "x-amz-date");
		assert_memory_equal(date, "19941115T0812", 13);
	}
	assert_int_equal(warm_store_get(store, "m/a", 0, 1, take, &got, NULL, &err), WARM_DENIED);
	assert_non_null(strstr(err.msg, "this machine's clock is wrong"));
	assert_int_equal(http_server_count(s), 5);
}

struct expiry {
	struct scratch *dir;
	int asked;
};

static void expire(void *arg, const struct http_request *request, struct http_reply *reply)
{
	struct expiry *e = arg;
	char text[200];

	(void)request;
	snprintf(text, sizeof(text),
		 "[default]\naws_access_key_id=AKIDEXAMPLE%d\naws_secret_access_key=x\n",
		 ++e->asked);
	put_text(e->dir->fd, "credentials", text);
	http_reply_text(reply, 400, ERROR("ExpiredToken", MESSAGE("expired")));
}

TEST(credentials_that_have_expired_are_looked_up_once_more)
{
	struct scratch dir = scratch_open();
	struct expiry e = { &dir, 0 };
	scope_server struct http_server *s = http_server_open(expire, &e);
	scope_buf struct warm_buf got = WARM_BUF_INIT;

	no_clouds();
	put_text(dir.fd, "credentials",
		 "[default]\naws_access_key_id=AKIDEXAMPLE0\naws_secret_access_key=x\n");
	setenv("AWS_SHARED_CREDENTIALS_FILE", scratch_path(&dir, "credentials"), 1);
	scope_store struct warm_store *store = open_url("s3://bucket", s);
	assert_int_equal(warm_store_get(store, "m/a", 0, 1, take, &got, NULL, NULL), WARM_DENIED);
	assert_int_equal(http_server_count(s), 2);
	assert_non_null(strstr(authorization(s, 0), "Credential=AKIDEXAMPLE0/"));
	assert_non_null(strstr(authorization(s, 1), "Credential=AKIDEXAMPLE1/"));
	scratch_close(&dir);
}

/* ---- in parts ---- */

/* Keeps what is uploaded. */
struct uploads {
	uint8_t parts[4][5 << 20];
	size_t bytes[4];
	int begun, completed, aborted;
	int part_status, complete_status; /* 0: 200 */
	const char *complete_body;
	bool no_etag, object_is_there;
};

#define BEGUN                                                               \
	"<InitiateMultipartUploadResult><Bucket>b</Bucket><UploadId>u/1+2=" \
	"</UploadId></InitiateMultipartUploadResult>"

static void take_upload(void *arg, const struct http_request *r, struct http_reply *reply)
{
	struct uploads *u = arg;
	size_t part = 0;

	if (strcmp(r->target, "/bucket/m/a?uploads=") == 0) {
		u->begun++;
		http_reply_text(reply, 200, BEGUN);
	} else if (sscanf(r->target, "/bucket/m/a?partNumber=%zu&uploadId=u%%2F1%%2B2%%3D",
			  &part) == 1) {
		http_reply_text(reply, u->part_status != 0 ? u->part_status : 200, "");
		if (!u->no_etag)
			http_reply_header(reply, "ETag: \"part-%zu\"", part);
		if (part >= 1 && part <= 4 && r->body.bytes <= sizeof(u->parts[0])) {
			memcpy(u->parts[part - 1], r->body.data, r->body.bytes);
			u->bytes[part - 1] = r->body.bytes;
		}
	} else if (strcmp(r->method, "POST") == 0) {
		u->completed++;
		http_reply_text(reply, u->complete_status != 0 ? u->complete_status : 200,
				u->complete_body != NULL ? u->complete_body
							 : "<CompleteMultipartUploadResult/>");
	} else if (strcmp(r->method, "DELETE") == 0) {
		u->aborted++;
		http_reply_text(reply, 204, "");
	} else if (strcmp(r->method, "HEAD") == 0 && u->object_is_there) {
		http_reply_text(reply, 200, "");
		reply->length = 11 << 20;
	} else {
		http_reply_text(reply, 404, "");
	}
}

static int upload(struct uploads *u, size_t bytes, struct warm_error *err)
{
	scope_server struct http_server *s = http_server_open(take_upload, u);
	scope_store struct warm_store *store = open_s3("s3://bucket?multipart=5M&sse=AES256", s);
	scope_free uint8_t *data = noise(9, bytes);
	int rc = put_bytes(store, "m/a", data, bytes, err);

	if (rc == 0 && u->completed == 1 && !u->object_is_there) {
		const struct http_request *last = http_server_request(s, http_server_count(s) - 1);
		assert_memory_equal(u->parts[0], data, 5 << 20);
		assert_memory_equal(u->parts[1], data + (5 << 20), 5 << 20);
		assert_int_equal(u->bytes[2], 1 << 20);
		assert_memory_equal(u->parts[2], data + (10 << 20), 1 << 20);
		assert_string_equal((char *)last->body.data,
				    "<CompleteMultipartUpload "
				    "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
				    "<Part><PartNumber>1</PartNumber><ETag>\"part-1\"</ETag></Part>"
				    "<Part><PartNumber>2</PartNumber><ETag>\"part-2\"</ETag></Part>"
				    "<Part><PartNumber>3</PartNumber><ETag>\"part-3\"</ETag></Part>"
				    "</CompleteMultipartUpload>");
		assert_header(s, 0, "x-amz-server-side-encryption", "AES256");
		assert_header(s, 1, "x-amz-server-side-encryption", NULL);
	}
	return rc;
}

TEST(a_large_object_is_put_in_parts)
{
	scope_free struct uploads *u = calloc(1, sizeof(*u));

	assert_int_equal(upload(u, 11 << 20, NULL), 0);
	assert_int_equal(u->begun, 1);
	assert_int_equal(u->completed, 1);
	assert_int_equal(u->aborted, 0);
}

TEST(an_object_at_the_limit_is_put_in_one)
{
	static const struct canned answers[] = { { .status = 200 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket?multipart=5M", s);
	scope_free uint8_t *data = noise(9, 5 << 20);

	assert_int_equal(put_bytes(store, "m/a", data, 5 << 20, NULL), 0);
	assert_request(s, 0, "PUT /bucket/m/a");
}

TEST(an_upload_that_fails_is_aborted)
{
	static const struct uploads rows[] = {
		{ .part_status = 403 },
		{ .no_etag = true },
		{ .complete_body = ERROR("InternalError", MESSAGE("try again")) },
		{ .complete_body = "" },
		{ .complete_status = 403 },
		{ .complete_status = 404, .complete_body = ERROR("NoSuchUpload", "") },
	};
	static const int want[] = { WARM_DENIED,  WARM_CORRUPT, WARM_TRANSIENT,
				    WARM_CORRUPT, WARM_DENIED,	WARM_TRANSIENT };
	scope_free struct uploads *u = malloc(sizeof(*u));

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_error err = { 0 };
		memcpy(u, &rows[i], sizeof(*u));
		assert_int_equal(upload(u, 11 << 20, &err), want[i]);
		assert_int_equal(u->aborted, 1);
		assert_int_equal(u->begun, 1);
		if (i == 2)
			assert_non_null(strstr(err.msg, "InternalError for "
							"CompleteMultipartUpload: try again"));
	}
}

TEST(an_upload_whose_end_went_through_unnoticed_is_done)
{
	scope_free struct uploads *u = calloc(1, sizeof(*u));

	u->complete_status = 404;
	u->complete_body = ERROR("NoSuchUpload", "");
	u->object_is_there = true;
	assert_int_equal(upload(u, 11 << 20, NULL), 0);
	assert_int_equal(u->aborted, 0);
	assert_int_equal(upload(u, 12 << 20, NULL), WARM_TRANSIENT); /* of another size */
}

/* ---- where requests go ---- */

TEST(the_buckets_name_stands_in_the_path_or_the_host)
{
	static const struct {
		const char *url, *want;
	} rows[] = {
		{ "s3://bucket/p?endpoint=http://s3.test/", "HEAD http://s3.test/bucket/p/m/a" },
		{ "s3://bucket?endpoint=http://s3.test:81/x/",
		  "HEAD http://s3.test:81/x/bucket/m/a" },
		{ "s3://bucket?endpoint=http://s3.test&addressing=virtual",
		  "HEAD http://bucket.s3.test/m/a" },
		{ "gs://bucket?endpoint=http://gs.test&anonymous=true",
		  "HEAD http://gs.test/bucket/m/a" },
		{ "s3://bucket?region=eu-1", "CONNECT bucket.s3.eu-1.amazonaws.com:443" },
		{ "s3://bucket.dot?region=eu-1", "CONNECT s3.eu-1.amazonaws.com:443" },
		{ "s3://bucket?region=cn-north-1&addressing=path",
		  "CONNECT s3.cn-north-1.amazonaws.com.cn:443" },
		{ "s3://bucket", "CONNECT bucket.s3.us-east-1.amazonaws.com:443" },
		{ "gs://bucket?anonymous=true", "CONNECT storage.googleapis.com:443" },
	};
	scope_server struct http_server *s = http_server_canned(NULL, 0);
	struct warm_object o;
	size_t i = 0;

	no_clouds();
	unsetenv("NO_PROXY");
	setenv("http_proxy", http_server_url(s), 1);
	setenv("https_proxy", http_server_url(s), 1);
	for (; i < COUNT(rows); i++) {
		scope_store struct warm_store *store = NULL;
		assert_int_equal(warm_store_open(rows[i].url, &store, NULL), 0);
		assert_int_not_equal(warm_store_head(store, "m/a", &o, NULL, NULL), 0);
		assert_request(s, i, rows[i].want);
	}
	setenv("AWS_USE_DUALSTACK_ENDPOINT", "true", 1);
	setenv("AWS_USE_FIPS_ENDPOINT", "true", 1);
	setenv("AWS_REGION", "us-gov-1", 1);
	scope_store struct warm_store *store = NULL;
	assert_int_equal(warm_store_open("s3://bucket", &store, NULL), 0);
	assert_int_not_equal(warm_store_head(store, "m/a", &o, NULL, NULL), 0);
	assert_request(s, i, "CONNECT bucket.s3-fips.dualstack.us-gov-1.amazonaws.com:443");
	no_clouds();
}

TEST(an_endpoint_comes_from_url_environment_or_profile)
{
	struct scratch dir = scratch_open();
	scope_server struct http_server *s = http_server_canned(NULL, 0);
	char config[200];
	struct warm_object o;

	for (size_t i = 0; i < 3; i++) {
		scope_store struct warm_store *store = NULL;
		no_clouds();
		snprintf(config, sizeof(config), "[default]\nendpoint_url = %s\n",
			 i == 0 ? http_server_url(s) : "http://127.0.0.1:1");
		put_text(dir.fd, "config", config);
		setenv("AWS_CONFIG_FILE", scratch_path(&dir, "config"), 1);
		if (i > 0)
			setenv("AWS_ENDPOINT_URL",
			       i == 1 ? http_server_url(s) : "http://127.0.0.1:1", 1);
		if (i > 1)
			setenv("AWS_ENDPOINT_URL_S3", http_server_url(s), 1);
		assert_int_equal(warm_store_open("s3://bucket", &store, NULL), 0);
		assert_int_equal(warm_store_head(store, "m/a", &o, NULL, NULL), WARM_DENIED);
		assert_request(s, i, "HEAD /bucket/m/a");
	}
	no_clouds();
	scratch_close(&dir);
}

TEST(parameters_that_make_no_sense_are_refused)
{
	static const char *const urls[] = { "s3://bu%cket",
					    "s3://b$",
					    "s3://b?endpoint=minio:9000",
					    "s3://b?endpoint=http://u@h",
					    "s3://b?endpoint=http://h?x",
					    "s3://b?addressing=dns",
					    "s3://b?payload=yes",
					    "s3://b?sse=none",
					    "s3://b?multipart=4M",
					    "s3://b?multipart=6G",
					    "s3://b?connections=0",
					    "s3://b?connections=17",
					    "s3://b?anonymous=1",
					    "s3://b?ca=/nonexistent",
					    "gs://b?region=x",
					    "gs://b?sse=AES256" };
	struct warm_store *store = NULL;

	no_clouds();
	for (size_t i = 0; i < COUNT(urls); i++) {
		struct warm_error err = { 0 };
		assert_int_equal(warm_store_open(urls[i], &store, &err), WARM_INVALID);
		assert_memory_equal(err.msg, "store ", 6);
	}
	assert_null(store);
}

/* ---- gs:// ---- */

static void be_google(void *arg, const struct http_request *r, struct http_reply *reply)
{
	int *given = arg;
	char text[100];

	if (strstr(r->target, "computeMetadata") != NULL) {
		snprintf(text, sizeof(text), "{\"access_token\":\"t%d\",\"expires_in\":3000}",
			 (*given)++);
		http_reply_text(reply, 200, text);
		return;
	}
	const char *authorization_line = http_request_header(r, "authorization");
	bool good = authorization_line != NULL && strcmp(authorization_line, "Bearer t1") == 0;
	http_reply_text(reply, good ? 200 : 401,
			good ? "0123" : ERROR("AuthenticationRequired", ""));
}

TEST(gs_sends_a_token_and_renews_it_once)
{
	int given = 0;
	scope_server struct http_server *s = http_server_open(be_google, &given);
	struct warm_object o;
	struct warm_error err = { 0 };

	no_clouds();
	setenv("GCE_METADATA_HOST", http_server_host(s), 1);
	scope_store struct warm_store *store = open_url("gs://bucket/p", s);
	assert_int_equal(warm_store_head(store, "m/a", &o, NULL, NULL), 0);
	assert_int_equal(o.bytes, 4);
	assert_int_equal(http_server_count(s), 4);
	assert_header(s, 1, "authorization", "Bearer t0");
	assert_header(s, 3, "authorization", "Bearer t1");
	assert_header(s, 3, "x-amz-date", NULL);
	given = 5; /* none is good any more */
	scope_store struct warm_store *other = open_url("gs://bucket", s);
	assert_int_equal(warm_store_head(other, "m/a", &o, NULL, &err), WARM_DENIED);
	assert_int_equal(http_server_count(s), 8);
	assert_non_null(strstr(err.msg, "401 for HeadObject as the workload"));
	assert_null(strstr(err.msg, "t5"));
}

/* ---- uploads that never ended ---- */

/* The clock of the answers is 08:12:31 of the 15th. */
#define OLD "1994-11-14T08:00:00.000Z"
#define NEW "1994-11-14T09:00:00.000Z"
#define UPLOADS(inner)                                        \
	"<?xml version=\"1.0\"?><ListMultipartUploadsResult " \
	"xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" inner "</ListMultipartUploadsResult>"
#define UPLOAD(key, id, begun)                                                   \
	"<Upload><Key>" key "</Key><UploadId>" id "</UploadId><Initiated>" begun \
	"</Initiated></Upload>"

enum { DAY_MS = 24 * 3600 * 1000 };

TEST(a_sweep_aborts_uploads_that_were_begun_long_ago)
{
	static const struct canned answers[] = {
		{ .status = 200,
		  .headers = DATE,
		  .body = UPLOADS("<Bucket>bucket</Bucket><IsTruncated>false</IsTruncated>" UPLOAD(
			  "team/m/v/p/1", "old/id+1=", OLD) UPLOAD("team/m/v/p/2", "new", NEW)
					  UPLOAD("team/m/v/p/a b", "old2",
						 OLD) UPLOAD("team/m/v/p/3", "no-time", "soon")
						  UPLOAD("teamwork/x", "foreign", OLD)
							  UPLOAD("other", "foreign", OLD)) },
		{ .status = 204 },
		{ .status = 404, .body = ERROR("NoSuchUpload", "") }, /* somebody else was faster */
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket/team", s);
	size_t n = 99;

	assert_int_equal(warm_store_sweep(store, "m/", DAY_MS, every_name, false, &n, NULL, NULL),
			 0);
	assert_int_equal(n, 2);
	assert_int_equal(http_server_count(s), 3);
	assert_request(s, 0, "GET /bucket/?prefix=team%2Fm%2F&uploads=");
	assert_request(s, 1, "DELETE /bucket/team/m/v/p/1?uploadId=old%2Fid%2B1%3D");
	assert_request(s, 2, "DELETE /bucket/team/m/v/p/a%20b?uploadId=old2");
}

TEST(a_dry_sweep_only_counts)
{
	static const struct canned answers[] = {
		{ .status = 200,
		  .headers = DATE,
		  .body = UPLOADS(UPLOAD("m/1", "a", OLD) UPLOAD("m/2", "b", OLD)
					  UPLOAD("m/3", "c", NEW)) },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	size_t n = 99;

	assert_int_equal(warm_store_sweep(store, "", DAY_MS, every_name, true, &n, NULL, NULL), 0);
	assert_int_equal(n, 2);
	assert_int_equal(http_server_count(s), 1);
	assert_request(s, 0, "GET /bucket/?prefix=&uploads=");
}

TEST(a_sweep_follows_pages_by_their_markers)
{
	static const struct canned answers[] = {
		{ .status = 200,
		  .headers = DATE,
		  .body = UPLOADS(
			  "<IsTruncated>true</IsTruncated><NextKeyMarker>m/1 &amp; "
			  "more</NextKeyMarker><NextUploadIdMarker>a/+</NextUploadIdMarker>" UPLOAD(
				  "m/1", "a", OLD)) },
		{ .status = 204 },
		{ .status = 200,
		  .headers = DATE,
		  .body = UPLOADS(
			  UPLOAD("m/2", "b", OLD) "<IsTruncated>true</IsTruncated><NextKeyMarker>m/"
						  "2</NextKeyMarker>") },
		{ .status = 204 },
		{ .status = 200,
		  .headers = DATE,
		  .body = UPLOADS("<IsTruncated>false</IsTruncated>") },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	size_t n = 99;

	assert_int_equal(warm_store_sweep(store, "m/", DAY_MS, every_name, false, &n, NULL, NULL),
			 0);
	assert_int_equal(n, 2);
	assert_int_equal(http_server_count(s), 5);
	assert_request(s, 2,
		       "GET /bucket/?key-marker=m%2F1%20%26%20more&prefix=m%2F&"
		       "upload-id-marker=a%2F%2B&uploads=");
	assert_request(s, 4, "GET /bucket/?key-marker=m%2F2&prefix=m%2F&uploads=");
}

static void say_the_same(void *arg, const struct http_request *request, struct http_reply *reply)
{
	(void)arg;
	(void)request;
	http_reply_text(reply, 200,
			UPLOADS("<IsTruncated>true</IsTruncated><NextKeyMarker>m/1</NextKeyMarker>"
				"<NextUploadIdMarker>a</NextUploadIdMarker>"));
	http_reply_header(reply, "Date: Tue, 15 Nov 1994 08:12:31 GMT");
}

TEST(a_server_whose_pages_do_not_move_on_does_not_hold_a_sweep)
{
	scope_server struct http_server *s = http_server_open(say_the_same, NULL);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	struct warm_call call = { .deadline_ms = warm_clock_ms() + 20000 };
	size_t n = 99;

	assert_int_equal(warm_store_sweep(store, "m/", DAY_MS, every_name, false, &n, &call, NULL),
			 0);
	assert_int_equal(n, 0);
	assert_int_equal(http_server_count(s), 2);
	/* More, and nothing that says where. */
	static const struct canned answers[] = {
		{ .status = 200,
		  .headers = DATE,
		  .body = UPLOADS("<IsTruncated>true</IsTruncated>") },
	};
	scope_server struct http_server *other = CANNED(answers);
	scope_store struct warm_store *bare = open_s3("s3://bucket", other);
	assert_int_equal(warm_store_sweep(bare, "m/", DAY_MS, every_name, false, &n, &call, NULL),
			 0);
	assert_int_equal(http_server_count(other), 1);
}

TEST(a_sweep_by_a_server_without_a_clock_touches_nothing)
{
	static const struct canned answers[] = {
		{ .status = 200, .body = UPLOADS(UPLOAD("m/1", "a", OLD)) },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	size_t n = 99;

	assert_int_equal(warm_store_sweep(store, "", DAY_MS, every_name, false, &n, NULL, NULL), 0);
	assert_int_equal(n, 0);
	assert_int_equal(http_server_count(s), 1);
}

TEST(a_sweep_that_is_refused_says_which_right_is_missing)
{
	static const struct canned answers[] = {
		{ .status = 403, .body = ERROR("AccessDenied", "") },
		{ .status = 200,
		  .headers = DATE,
		  .body = UPLOADS(UPLOAD("m/1", "a", OLD) UPLOAD("m/2", "b", OLD)
					  UPLOAD("m/3", "c", OLD)) },
		{ .status = 204 },
		{ .status = 403, .body = ERROR("AccessDenied", "") },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	struct warm_error err = { 0 };
	size_t n = 99;

	assert_int_equal(warm_store_sweep(store, "", DAY_MS, every_name, false, &n, NULL, &err),
			 WARM_DENIED);
	assert_int_equal(n, 0);
	assert_non_null(strstr(err.msg, "s3:ListBucketMultipartUploads"));
	err = (struct warm_error){ 0 };
	assert_int_equal(warm_store_sweep(store, "", DAY_MS, every_name, false, &n, NULL, &err),
			 WARM_DENIED);
	assert_int_equal(n, 1);
	assert_non_null(strstr(err.msg, "s3:AbortMultipartUpload"));
	assert_int_equal(http_server_count(s), 4);
}

TEST(a_sweep_whose_answer_is_something_else_is_corrupt)
{
	static const struct canned answers[] = {
		{ .status = 200, .headers = DATE, .body = "<html>log in</html>" },
		{ .status = 200, .headers = DATE, .body = "<html><br>" },
		{ .status = 200, .headers = DATE },
		{ .status = 200, .headers = DATE, .body = LIST "</ListBucketResult>" },
		{ .status = 200, .headers = DATE, .body = "<ListMultipartUploadsResult><Upload>" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	size_t n = 99;

	for (size_t i = 0; i < COUNT(answers); i++) {
		assert_int_equal(
			warm_store_sweep(store, "", DAY_MS, every_name, false, &n, NULL, NULL),
			WARM_CORRUPT);
		assert_int_equal(n, 0);
	}
	assert_int_equal(http_server_count(s), COUNT(answers));
}

TEST(a_sweep_of_a_bucket_without_uploads_is_done)
{
	static const struct canned answers[] = {
		{ .status = 200, .headers = DATE, .body = UPLOADS("") },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	size_t n = 99;

	assert_int_equal(warm_store_sweep(store, "", DAY_MS, every_name, false, &n, NULL, NULL), 0);
	assert_int_equal(n, 0);
}

static void say_the_key_alone(void *arg, const struct http_request *request,
			      struct http_reply *reply)
{
	(void)arg;
	(void)request;
	http_reply_text(
		reply, 200,
		UPLOADS("<IsTruncated>true</IsTruncated><NextKeyMarker>m/1</NextKeyMarker>"));
	http_reply_header(reply, "Date: Tue, 15 Nov 1994 08:12:31 GMT");
}

TEST(a_server_that_knows_no_markers_does_not_hold_a_sweep)
{
	scope_server struct http_server *s = http_server_open(say_the_key_alone, NULL);
	scope_store struct warm_store *store = open_s3("s3://bucket", s);
	struct warm_call call = { .deadline_ms = warm_clock_ms() + 300 };
	size_t n = 99;

	assert_int_equal(warm_store_sweep(store, "m/", DAY_MS, every_name, true, &n, &call, NULL),
			 0);
	assert_true(http_server_count(s) <= 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_list_follows_its_pages_and_tells_names_below_the_prefix),
		cmocka_unit_test(names_that_are_not_encoded_are_taken_as_they_are),
		cmocka_unit_test(a_list_that_is_none_is_corrupt),
		cmocka_unit_test(an_object_is_looked_at_read_and_deleted),
		cmocka_unit_test(a_put_signs_its_bytes_and_asks_for_encryption),
		cmocka_unit_test(a_refusal_says_what_was_asked_as_whom_and_what_to_do),
		cmocka_unit_test(who_has_no_credentials_is_told_where_they_were_looked_for),
		cmocka_unit_test(what_is_not_there_is_deleted_already),
		cmocka_unit_test(another_region_is_learned_from_the_answer_and_kept),
		cmocka_unit_test(a_region_that_is_no_name_is_not_learned),
		cmocka_unit_test(a_clock_that_is_wrong_is_corrected_once),
		cmocka_unit_test(credentials_that_have_expired_are_looked_up_once_more),
		cmocka_unit_test(a_large_object_is_put_in_parts),
		cmocka_unit_test(an_object_at_the_limit_is_put_in_one),
		cmocka_unit_test(an_upload_that_fails_is_aborted),
		cmocka_unit_test(an_upload_whose_end_went_through_unnoticed_is_done),
		cmocka_unit_test(the_buckets_name_stands_in_the_path_or_the_host),
		cmocka_unit_test(an_endpoint_comes_from_url_environment_or_profile),
		cmocka_unit_test(parameters_that_make_no_sense_are_refused),
		cmocka_unit_test(gs_sends_a_token_and_renews_it_once),
		cmocka_unit_test(a_sweep_aborts_uploads_that_were_begun_long_ago),
		cmocka_unit_test(a_dry_sweep_only_counts),
		cmocka_unit_test(a_sweep_follows_pages_by_their_markers),
		cmocka_unit_test(a_server_whose_pages_do_not_move_on_does_not_hold_a_sweep),
		cmocka_unit_test(a_sweep_by_a_server_without_a_clock_touches_nothing),
		cmocka_unit_test(a_sweep_that_is_refused_says_which_right_is_missing),
		cmocka_unit_test(a_sweep_whose_answer_is_something_else_is_corrupt),
		cmocka_unit_test(a_sweep_of_a_bucket_without_uploads_is_done),
		cmocka_unit_test(a_server_that_knows_no_markers_does_not_hold_a_sweep),
	};

	return RUN(tests);
}
