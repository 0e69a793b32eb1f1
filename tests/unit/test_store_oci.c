/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <fcntl.h>
#include <jansson.h>

#include "lib/store/oci_name.h"
#include "lib/store/sigv4.h"

#define scope_server WARM_SCOPE(close_server)
#define NAME "m/v/p/L-1-2.tar.zst"
#define DATE "Tue, 15 Nov 1994 08:12:31 GMT"
#define EMPTY_DIGEST "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

static void close_server(struct http_server **s)
{
	http_server_close(*s);
}

/* A registry of one repository, in memory; `team/m`. */
struct blob {
	char digest[72];
	char *data;
	size_t bytes;
};

struct registry {
	struct http_server *server;
	struct blob blobs[8];
	size_t n_blobs;
	struct {
		char tag[WARM_OCI_TAG_BYTES], *text;
	} manifests[8];
	size_t n_manifests;
	const char *location; /* of an upload: its beginning; NULL: "/v2/team/m/blobs/uploads/1" */
	const char *password; /* basic authentication wants it, in base64 */
	const char *blobs_elsewhere; /* where blobs are read */
	bool no_delete;
};

#define UPLOAD "/v2/team/m/blobs/uploads/1"

static void add_blob(struct registry *g, const char *digest, const void *data, size_t bytes)
{
	struct blob *b = &g->blobs[g->n_blobs++];

	snprintf(b->digest, sizeof(b->digest), "%s", digest);
	b->data = malloc(bytes + 1);
	memcpy(b->data, data, bytes);
	b->bytes = bytes;
}

static void add_manifest(struct registry *g, const char *tag, const char *text)
{
	snprintf(g->manifests[g->n_manifests].tag, WARM_OCI_TAG_BYTES, "%s", tag);
	g->manifests[g->n_manifests++].text = strdup(text);
}

static const char *after(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

static void serve_manifest(struct registry *g, const struct http_request *r, const char *reference,
			   struct http_reply *reply)
{
	char digest[WARM_SHA256_HEX_BYTES];

	if (strcmp(r->method, "PUT") == 0) {
		add_manifest(g, reference, (const char *)r->body.data);
		http_reply_text(reply, 201, "");
		return;
	}
	for (size_t i = 0; i < g->n_manifests; i++) {
		const char *text = g->manifests[i].text;
		warm_sha256_hex(text, strlen(text), digest);
		bool named = strcmp(g->manifests[i].tag, reference) == 0;
		bool digested = strncmp(reference, "sha256:", 7) == 0 &&
				strcmp(reference + 7, digest) == 0;
		if (strcmp(r->method, "GET") == 0 && named) {
			http_reply_text(reply, 200, text);
			return;
		}
		if (strcmp(r->method, "DELETE") == 0 && digested) {
			http_reply_text(reply, g->no_delete ? 405 : 202, "");
			if (!g->no_delete)
				g->manifests[i].tag[0] = '\0';
			return;
		}
	}
	http_reply_text(reply, 404, "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}");
}

static void serve_tags(struct registry *g, struct http_reply *reply)
{
	scope_buf struct warm_buf text = WARM_BUF_INIT;

	warm_buf_printf(&text, "{\"name\":\"team/m\",\"tags\":[");
	for (size_t i = 0; i < g->n_manifests; i++)
		if (g->manifests[i].tag[0] != '\0')
			warm_buf_printf(&text, "\"%s\",", g->manifests[i].tag);
	warm_buf_printf(&text, "\"latest\"]}");
	warm_buf_put_u8(&text, 0);
	http_reply_text(reply, 200, (const char *)text.data);
}

static void serve(void *arg, const struct http_request *r, struct http_reply *reply)
{
	struct registry *g = arg;
	const char *rest = after(r->target, "/v2/team/m/");
	const char *login = http_request_header(r, "authorization"), *digest;

	http_reply_header(reply, "Date: " DATE);
	if (g->password != NULL && (login == NULL || strncmp(login, "Basic ", 6) != 0 ||
				    strcmp(login + 6, g->password) != 0)) {
		http_reply_text(reply, 401, "{}");
		http_reply_header(reply, "WWW-Authenticate: Basic realm=\"r\"");
	} else if (strcmp(r->target, "/v2/_catalog?n=1000") == 0) {
		http_reply_text(reply, 200,
				"{\"repositories\":[\"other/x\",\"team/m\",\"team/m/deeper\","
				"\"team/gone\"]}");
	} else if (rest == NULL) {
		http_reply_text(reply, 404, "{\"errors\":[{\"code\":\"NAME_UNKNOWN\"}]}");
	} else if (strcmp(rest, "tags/list?n=1000") == 0) {
		serve_tags(g, reply);
	} else if (strcmp(rest, "blobs/uploads/") == 0) {
		http_reply_text(reply, 202, "");
		http_reply_header(reply, "Location: %s",
				  g->location != NULL ? g->location : UPLOAD);
	} else if (after(rest, "blobs/uploads/") != NULL &&
		   (digest = strstr(rest, "digest=")) != NULL) {
		add_blob(g, digest + 7, r->body.data, r->body.bytes);
		http_reply_text(reply, 201, "");
	} else if ((digest = after(rest, "blobs/")) != NULL) {
		http_reply_text(reply, 404, "");
		for (size_t i = 0; i < g->n_blobs; i++)
			if (strcmp(g->blobs[i].digest, digest) == 0)
				http_reply_object(reply, r, g->blobs[i].data, g->blobs[i].bytes);
		if (g->blobs_elsewhere != NULL) {
			reply->status = 307;
			reply->body.bytes = 0;
			http_reply_header(reply, "Location: %s", g->blobs_elsewhere);
		}
	} else if (after(rest, "manifests/") != NULL) {
		serve_manifest(g, r, after(rest, "manifests/"), reply);
	} else {
		http_reply_text(reply, 404, "");
	}
}

static struct warm_store *open_oci(const struct http_server *s, const char *rest)
{
	struct warm_store *store = NULL;
	struct warm_error err = { 0 };
	char url[500];

	no_clouds();
	snprintf(url, sizeof(url), "oci://%s%s", http_server_host(s), rest);
	if (warm_store_open(url, &store, &err) != 0)
		fail_msg("%s", err.msg);
	return store;
}

static void open_registry(struct registry *g)
{
	g->server = http_server_open(serve, g);
}

static void close_registry(struct registry *g)
{
	http_server_close(g->server);
	for (size_t i = 0; i < g->n_blobs; i++)
		free(g->blobs[i].data);
	for (size_t i = 0; i < g->n_manifests; i++)
		free(g->manifests[i].text);
}
#define scope_registry WARM_SCOPE(close_registry)

static int put_text_as(struct warm_store *store, const char *name, const char *text,
		       struct warm_error *err)
{
	scope_scratch struct scratch s = scratch_open();

	put_text(s.fd, "source", text);
	scope_close int fd = openat(s.fd, "source", O_RDONLY | O_CLOEXEC);
	return warm_store_put(store, name, fd, strlen(text), NULL, err);
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

/* The names of a list, or the error's message. Static storage. */
static const char *list(struct warm_store *store, const char *prefix, int64_t *ret_now_ms)
{
	static char text[1000];
	scope_buf struct warm_buf found = WARM_BUF_INIT;
	struct warm_error err = { 0 };

	if (warm_store_list(store, prefix, note, &found, ret_now_ms, NULL, &err) != 0)
		snprintf(text, sizeof(text), "%s: %s", warm_status_name(err.status), err.msg);
	else
		snprintf(text, sizeof(text), "%.*s", (int)found.bytes,
			 found.bytes > 0 ? (const char *)found.data : "");
	return text;
}

static size_t count(struct registry *g, const char *method, const char *part)
{
	size_t n = 0;

	for (size_t i = 0; i < http_server_count(g->server); i++) {
		const struct http_request *r = http_server_request(g->server, i);
		n += strcmp(r->method, method) == 0 && strstr(r->target, part) != NULL;
	}
	return n;
}

/* ---- pushing ---- */

TEST(a_push_is_a_blob_a_config_and_a_manifest)
{
	scope_registry struct registry g = { .n_blobs = 0 };
	open_registry(&g);
	scope_store struct warm_store *store = open_oci(g.server, "/team");
	char digest[WARM_SHA256_HEX_BYTES], want[300], repository[WARM_OCI_REPOSITORY_BYTES],
		tag[WARM_OCI_TAG_BYTES];
	json_error_t where;

	assert_int_equal(put_text_as(store, NAME, "layer", NULL), 0);
	warm_sha256_hex("layer", 5, digest);
	assert_int_equal(warm_oci_name("team", NAME, repository, tag, NULL), 0);
	assert_request(g.server, 0, "POST /v2/team/m/blobs/uploads/");
	assert_header(g.server, 0, "content-length", "0");
	snprintf(want, sizeof(want), "PUT " UPLOAD "?digest=sha256:%s", digest);
	assert_request(g.server, 1, want);
	assert_header(g.server, 1, "content-type", "application/octet-stream");
	assert_string_equal((char *)http_server_request(g.server, 1)->body.data, "layer");
	assert_request(g.server, 2, "HEAD /v2/team/m/blobs/" EMPTY_DIGEST);
	assert_request(g.server, 3, "POST /v2/team/m/blobs/uploads/");
	assert_request(g.server, 4, "PUT " UPLOAD "?digest=" EMPTY_DIGEST);
	assert_string_equal((char *)http_server_request(g.server, 4)->body.data, "{}");
	snprintf(want, sizeof(want), "PUT /v2/team/m/manifests/%s", tag);
	assert_request(g.server, 5, want);
	assert_header(g.server, 5, "content-type", "application/vnd.oci.image.manifest.v1+json");
	assert_int_equal(http_server_count(g.server), 6);

	json_t *o = json_loads((char *)http_server_request(g.server, 5)->body.data, 0, &where);
	snprintf(want, sizeof(want), "sha256:%s", digest);
	const char *type, *config, *layer, *layer_digest, *title, *name, *uploaded;
	int version, size;
	assert_int_equal(
		json_unpack(o, "{s:i, s:s, s:{s:s}, s:[{s:s, s:s, s:i, s:{s:s}}], s:{s:s, s:s}}",
			    "schemaVersion", &version, "mediaType", &type, "config", "digest",
			    &config, "layers", "mediaType", &layer, "digest", &layer_digest, "size",
			    &size, "annotations", "org.opencontainers.image.title", &title,
			    "annotations", "dev.warmcache.name", &name, "dev.warmcache.uploaded",
			    &uploaded),
		0);
	assert_int_equal(version, 2);
	assert_string_equal(type, "application/vnd.oci.image.manifest.v1+json");
	assert_string_equal(config, EMPTY_DIGEST);
	assert_string_equal(layer, "application/vnd.oci.image.layer.v1.tar+zstd");
	assert_string_equal(layer_digest, want);
	assert_int_equal(size, 5);
	assert_string_equal(title, "L-1-2.tar.zst");
	assert_string_equal(name, NAME);
	assert_string_equal(uploaded, "784887151000");
	json_decref(o);
}

TEST(the_config_is_put_once_for_a_repository)
{
	scope_registry struct registry g = { .n_blobs = 0 };
	open_registry(&g);
	scope_store struct warm_store *store = open_oci(g.server, "/team");
	scope_store struct warm_store *other = open_oci(g.server, "/team");

	assert_int_equal(put_text_as(store, NAME, "1", NULL), 0);
	assert_int_equal(put_text_as(store, "m/v/p/2", "2", NULL), 0);
	assert_int_equal(count(&g, "HEAD", EMPTY_DIGEST), 1);
	assert_int_equal(put_text_as(other, "m/v/p/3", "3", NULL), 0);
	assert_int_equal(count(&g, "HEAD", EMPTY_DIGEST), 2);
	assert_int_equal(count(&g, "PUT", "digest=" EMPTY_DIGEST), 1);
}

TEST(what_is_pushed_is_listed_read_and_deleted)
{
	scope_registry struct registry g = { .n_blobs = 0 };
	open_registry(&g);
	scope_store struct warm_store *store = open_oci(g.server, "/team");
	scope_buf struct warm_buf got = WARM_BUF_INIT;
	struct warm_object o;
	int64_t now = 0;

	assert_int_equal(put_text_as(store, NAME, "0123456789", NULL), 0);
	assert_int_equal(put_text_as(store, "m/w/p/other", "x", NULL), 0);
	assert_string_equal(list(store, "m/v/", &now), NAME " 10 784887151000\n");
	assert_int_equal(now, 784887151000);
	assert_string_equal(list(store, "m/", NULL),
			    NAME " 10 784887151000\nm/w/p/other 1 784887151000\n");
	assert_string_equal(list(store, "", NULL),
			    NAME " 10 784887151000\nm/w/p/other 1 784887151000\n");
	assert_int_equal(warm_store_head(store, NAME, &o, NULL, NULL), 0);
	assert_int_equal(o.bytes, 10);
	assert_int_equal(warm_store_get(store, NAME, 3, 4, take, &got, NULL, NULL), 0);
	assert_int_equal(got.bytes, 4);
	assert_memory_equal(got.data, "3456", 4);
	assert_int_equal(warm_store_get(store, NAME, 3, 0, take, &got, NULL, NULL), 0);
	assert_int_equal(count(&g, "GET", "/manifests/"), 2); /* each is read once */
	assert_int_equal(warm_store_delete(store, NAME, NULL, NULL), 0);
	assert_int_equal(count(&g, "DELETE", "/manifests/sha256:"), 1);
	assert_int_equal(warm_store_head(store, NAME, &o, NULL, NULL), WARM_NOT_FOUND);
	assert_int_equal(warm_store_delete(store, NAME, NULL, NULL), 0);
	assert_string_equal(list(store, "m/", NULL), "m/w/p/other 1 784887151000\n");
}

TEST(an_upload_goes_where_the_registry_says)
{
	char absolute[200];
	const char *const locations[] = { UPLOAD "?_state=a%2Fb", absolute };

	for (size_t i = 0; i < COUNT(locations); i++) {
		scope_registry struct registry g = { .password = "dTpw" };
		scope_scratch struct scratch dir = scratch_open();
		char rest[400];
		open_registry(&g);
		snprintf(absolute, sizeof(absolute), "%s" UPLOAD, http_server_url(g.server));
		g.location = locations[i];
		snprintf(rest, sizeof(rest), "{\"auths\":{\"%s\":{\"auth\":\"dTpw\"}}}",
			 http_server_host(g.server));
		put_text(dir.fd, "auth", rest);
		snprintf(rest, sizeof(rest), "/team?auth-file=%s", scratch_path(&dir, "auth"));
		scope_store struct warm_store *store = open_oci(g.server, rest);
		assert_int_equal(put_text_as(store, NAME, "1", NULL), 0);
		assert_int_equal(count(&g, "PUT",
				       i == 0 ? UPLOAD "?_state=a%2Fb&digest=sha256:"
					      : UPLOAD "?digest=sha256:"),
				 2);
		/* It is asked for a login once. */
		assert_header(g.server, 0, "authorization", NULL);
		for (size_t k = 1; k < http_server_count(g.server); k++)
			assert_header(g.server, k, "authorization", "Basic dTpw");
	}
}

TEST(an_upload_at_another_host_gets_no_login)
{
	static const struct canned answers[] = { { .status = 201 } };
	scope_server struct http_server *there = CANNED(answers);
	scope_registry struct registry g = { .password = "dTpw" };
	scope_scratch struct scratch dir = scratch_open();
	char rest[400], location[200];

	open_registry(&g);
	snprintf(location, sizeof(location), "%s/upload?signed=1", http_server_url(there));
	g.location = location;
	add_blob(&g, EMPTY_DIGEST, "{}", 2);
	snprintf(rest, sizeof(rest), "{\"auths\":{\"%s\":{\"auth\":\"dTpw\"}}}",
		 http_server_host(g.server));
	put_text(dir.fd, "auth", rest);
	snprintf(rest, sizeof(rest), "/team?auth-file=%s", scratch_path(&dir, "auth"));
	scope_store struct warm_store *store = open_oci(g.server, rest);
	assert_int_equal(put_text_as(store, NAME, "1", NULL), 0);
	assert_non_null(
		strstr(http_server_request(there, 0)->target, "/upload?signed=1&digest=sha256:"));
	assert_header(there, 0, "authorization", NULL);
	assert_int_equal(count(&g, "PUT", "/manifests/"), 1);
}

TEST(an_upload_that_is_refused_begins_anew)
{
	static const struct canned answers[] = {
		{ .status = 202, .headers = "Location: /up/1\r\n" },
		{ .status = 503, .headers = "Retry-After: 0\r\n" },
		{ .status = 202, .headers = "Location: /up/2\r\n" },
		{ .status = 201 },
		{ .status = 200 }, /* the config is there */
		{ .status = 201 },
		{ .status = 202 }, /* the next one, without a Location */
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_oci(s, "/team");
	struct warm_error err = { 0 };

	assert_int_equal(put_text_as(store, NAME, "1", NULL), 0);
	assert_memory_equal(http_server_request(s, 1)->target, "/up/1?digest=", 13);
	assert_memory_equal(http_server_request(s, 3)->target, "/up/2?digest=", 13);
	assert_string_equal((char *)http_server_request(s, 3)->body.data, "1");
	assert_int_equal(put_text_as(store, NAME, "1", &err), WARM_CORRUPT);
	assert_non_null(strstr(err.msg, "without a Location"));
}

TEST(a_model_whose_repository_is_too_long_is_told_before)
{
	scope_server struct http_server *s = http_server_canned(NULL, 0);
	scope_store struct warm_store *store = open_oci(s, "/team");
	struct warm_error err = { 0 };
	char prefix[130];

	memset(prefix, 'M', sizeof(prefix));
	memcpy(prefix + 100, "/v/", 4);
	assert_int_equal(warm_store_check(store, prefix, &err), WARM_INVALID);
	assert_non_null(strstr(err.msg, "at most 255 bytes"));
	assert_int_equal(warm_store_check(store, "m/v/", NULL), 0);
	assert_int_equal(http_server_count(s), 0);
}

TEST(a_registry_has_no_heads)
{
	scope_server struct http_server *s = http_server_canned(NULL, 0);
	scope_store struct warm_store *store = open_oci(s, "/team");

	assert_int_equal(warm_store_replace(store, "m/head", -1, 0, NULL, NULL), WARM_UNSUPPORTED);
	assert_int_equal(http_server_count(s), 0);
}

/* ---- LIST ---- */

TEST(tags_of_others_are_passed_over)
{
	static const struct {
		const char *name, *manifest;
	} foreign[] = {
		{ "m/v/p/a", "{}" },
		{ "m/v/p/b", "{\"layers\":[]}" },
		{ "m/v/p/c", /* the name of another tag */
		  "{\"layers\":[{\"digest\":\"" EMPTY_DIGEST "\",\"size\":5}],"
		  "\"annotations\":{\"dev.warmcache.name\":\"m/v/p/d\"}}" },
		{ "m/v/p/e", /* two layers */
		  "{\"layers\":[{\"digest\":\"" EMPTY_DIGEST "\",\"size\":5},{}],"
		  "\"annotations\":{\"dev.warmcache.name\":\"m/v/p/e\"}}" },
		{ "m/v/p/f", /* no digest */
		  "{\"layers\":[{\"digest\":\"sha256:../../x\",\"size\":5}],"
		  "\"annotations\":{\"dev.warmcache.name\":\"m/v/p/f\"}}" },
		{ "m/v/p/g", "{\"layers\":[{\"digest\":\"" EMPTY_DIGEST "\",\"size\":-5}],"
			     "\"annotations\":{\"dev.warmcache.name\":\"m/v/p/g\"}}" },
		{ "m/v/p/good", "{\"layers\":[{\"digest\":\"" EMPTY_DIGEST "\",\"size\":5}],"
				"\"annotations\":{\"dev.warmcache.name\":\"m/v/p/good\"}}" },
	};
	scope_registry struct registry g = { .n_blobs = 0 };
	struct warm_object o;

	open_registry(&g);
	for (size_t i = 0; i < COUNT(foreign); i++) {
		char repository[WARM_OCI_REPOSITORY_BYTES], tag[WARM_OCI_TAG_BYTES];
		assert_int_equal(warm_oci_name("team", foreign[i].name, repository, tag, NULL), 0);
		add_manifest(&g, tag, foreign[i].manifest);
	}
	scope_store struct warm_store *store = open_oci(g.server, "/team");
	assert_string_equal(list(store, "m/", NULL), "m/v/p/good 5 -1\n");
	assert_int_equal(count(&g, "GET", "/manifests/latest"), 0);
	assert_int_equal(warm_store_head(store, "m/v/p/c", &o, NULL, NULL), WARM_NOT_FOUND);
}

TEST(a_list_has_pages)
{
	static const char manifest[] = "{\"layers\":[{\"digest\":\"" EMPTY_DIGEST "\",\"size\":5}],"
				       "\"annotations\":{\"dev.warmcache.name\":\"m/v/p/x\"}}";
	char repository[WARM_OCI_REPOSITORY_BYTES], tag[WARM_OCI_TAG_BYTES], page[300];
	assert_int_equal(warm_oci_name("team", "m/v/p/x", repository, tag, NULL), 0);
	snprintf(page, sizeof(page), "{\"tags\":[\"%s\"]}", tag);
	const struct canned answers[] = {
		{ .status = 200,
		  .body = "{\"tags\":[\"a\"]}",
		  .headers = "Link: </v2/team/m/tags/list?last=a&n=1>; rel=\"next\"\r\n" },
		{ .status = 200,
		  .body = "{\"tags\":null}",
		  .headers = "Link: <?n=2&last=b>; rel=next\r\n" },
		{ .status = 200, .body = page },
		{ .status = 200, .body = manifest },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_oci(s, "/team");
	const char *found = list(store, "m/", NULL);

	assert_request(s, 0, "GET /v2/team/m/tags/list?n=1000");
	assert_request(s, 1, "GET /v2/team/m/tags/list?last=a&n=1");
	assert_string_equal(found, "m/v/p/x 5 -1\n");
}

TEST(a_page_is_asked_of_no_other_host_and_not_twice)
{
	static const char again[] = "Link: </v2/team/m/tags/list?last=a>; rel=\"next\"\r\n";
	static const struct canned answers[] = {
		{ .status = 200,
		  .body = "{\"tags\":[]}",
		  .headers = "Link: <http://127.0.0.1:1/v2/x>; rel=\"next\"\r\n" },
		{ .status = 200, .body = "{\"tags\":[]}", .headers = again },
		{ .status = 200, .body = "{\"tags\":[]}", .headers = again },
		{ .status = 200, .body = "<html>" },
		{ .status = 200, .body = "{\"errors\":[]}" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_oci(s, "/team");

	assert_non_null(strstr(list(store, "m/", NULL), "next page is not on the registry"));
	assert_int_equal(http_server_count(s), 1);
	assert_non_null(strstr(list(store, "m/", NULL), "corrupt: "));
	assert_int_equal(http_server_count(s), 3);
	assert_non_null(strstr(list(store, "m/", NULL), "no JSON"));
	assert_non_null(strstr(list(store, "m/", NULL), "something else came"));
}

/* A thousand tags without a Link may be a page, or all there is. */
TEST(a_registry_that_sends_all_its_tags_again_has_sent_them_once)
{
	static char tags[32768];
	char repository[WARM_OCI_REPOSITORY_BYTES], tag[WARM_OCI_TAG_BYTES];
	size_t used = 0;

	assert_int_equal(warm_oci_name("team", "m/v/p/good", repository, tag, NULL), 0);
	used += (size_t)snprintf(tags, sizeof(tags), "{\"tags\":[\"%s\"", tag);
	for (int i = 1; i < 1000; i++)
		used += (size_t)snprintf(tags + used, sizeof(tags) - used, ",\"foreign-%03d\"", i);
	snprintf(tags + used, sizeof(tags) - used, "]}");
	const struct canned answers[] = {
		{ .status = 200, .body = tags },
		{ .status = 200, .body = tags },
		{ .status = 200,
		  .body = "{\"layers\":[{\"digest\":\"" EMPTY_DIGEST "\",\"size\":5}],"
			  "\"annotations\":{\"dev.warmcache.name\":\"m/v/p/good\"}}" },
	};
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_oci(s, "/team");

	assert_string_equal(list(store, "m/", NULL), "m/v/p/good 5 -1\n");
	assert_int_equal(http_server_count(s), 3);
}

/* Or lack of memory would look like a tag of somebody else. */
TEST(a_manifest_that_is_no_json_is_no_tag_of_others)
{
	char repository[WARM_OCI_REPOSITORY_BYTES], tag[WARM_OCI_TAG_BYTES];
	scope_registry struct registry g = { .n_blobs = 0 };

	open_registry(&g);
	assert_int_equal(warm_oci_name("team", "m/v/p/a", repository, tag, NULL), 0);
	add_manifest(&g, tag, "no json");
	scope_store struct warm_store *store = open_oci(g.server, "/team");
	assert_non_null(strstr(list(store, "m/", NULL), "corrupt: "));
}

TEST(a_model_that_nobody_has_pushed_is_cold)
{
	scope_registry struct registry g = { .n_blobs = 0 };
	open_registry(&g);
	scope_store struct warm_store *store = open_oci(g.server, "/team");
	scope_buf struct warm_buf got = WARM_BUF_INIT;
	struct warm_object o;

	assert_string_equal(list(store, "new/v/", NULL), "");
	assert_int_equal(warm_store_head(store, "new/v/p/x", &o, NULL, NULL), WARM_NOT_FOUND);
	assert_int_equal(warm_store_get(store, "new/v/p/x", 0, 1, take, &got, NULL, NULL),
			 WARM_NOT_FOUND);
	assert_int_equal(warm_store_delete(store, "new/v/p/x", NULL, NULL), 0);
}

TEST(blobs_may_be_read_elsewhere_without_a_login)
{
	char data[] = "0123456789";
	static const struct canned answers[] = {
		{ .status = 206, .headers = "Content-Range: bytes 2-3/10\r\n", .body = "23" }
	};
	scope_server struct http_server *there = CANNED(answers);
	scope_registry struct registry g = { .password = "dTpw" };
	scope_scratch struct scratch dir = scratch_open();
	scope_buf struct warm_buf got = WARM_BUF_INIT;
	char rest[400], elsewhere[200];

	open_registry(&g);
	snprintf(rest, sizeof(rest), "{\"auths\":{\"%s\":{\"auth\":\"dTpw\"}}}",
		 http_server_host(g.server));
	put_text(dir.fd, "auth", rest);
	snprintf(rest, sizeof(rest), "/team?auth-file=%s", scratch_path(&dir, "auth"));
	scope_store struct warm_store *store = open_oci(g.server, rest);
	assert_int_equal(put_text_as(store, NAME, data, NULL), 0);
	snprintf(elsewhere, sizeof(elsewhere), "%s/blob", http_server_url(there));
	g.blobs_elsewhere = elsewhere;
	assert_int_equal(warm_store_get(store, NAME, 2, 2, take, &got, NULL, NULL), 0);
	assert_memory_equal(got.data, "23", 2);
	assert_header(there, 0, "authorization", NULL);
	assert_header(there, 0, "range", "bytes=2-3");
}

/* ---- refusals ---- */

TEST(a_refusal_says_what_was_asked_as_whom_and_what_to_do)
{
	static const struct {
		int status;
		const char *body;
		int want;
		bool push;
		const char *said;
	} rows[] = {
		{ 401, "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"log in\"}]}",
		  WARM_DENIED, false,
		  "401 UNAUTHORIZED for the list of tags as anonymous: log in: log in by a "
		  "config.json" },
		{ 403, "{\"errors\":[{\"code\":\"DENIED\"}]}", WARM_DENIED, false,
		  "403 DENIED for the list of tags as anonymous: the login may lack the right to "
		  "pull" },
		{ 403, "", WARM_DENIED, true,
		  "403 for an upload as anonymous: the login may lack the "
		  "right to push" },
		{ 404, "{\"errors\":[{\"code\":\"NAME_UNKNOWN\"}]}", WARM_DENIED, true,
		  "404 NAME_UNKNOWN for an upload as anonymous: some registries want a "
		  "repository" },
		{ 413, "", WARM_NO_SPACE, true, "413" },
		{ 400, "<html>", WARM_DENIED, false, "400 for the list of tags" },
		{ 429, "", WARM_TRANSIENT, false, "429" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		const struct canned a = { .status = rows[i].status,
					  .headers = "Retry-After: 0\r\n",
					  .body = rows[i].body };
		const struct canned answers[] = { a, a, a, a, a };
		scope_server struct http_server *s = CANNED(answers);
		scope_store struct warm_store *store = open_oci(s, "/team");
		scope_buf struct warm_buf got = WARM_BUF_INIT;
		struct warm_error err = { 0 };
		int rc = rows[i].push ? put_text_as(store, NAME, "1", &err)
				      : warm_store_list(store, "m/", note, &got, NULL, NULL, &err);
		if (rc != rows[i].want || strstr(err.msg, rows[i].said) == NULL)
			fail_msg("row %zu: %d: %s", i, rc, err.msg);
		assert_int_equal(err.status, rows[i].want);
	}
}

TEST(a_registry_that_does_not_delete_is_told)
{
	scope_registry struct registry g = { .no_delete = true };
	open_registry(&g);
	scope_store struct warm_store *store = open_oci(g.server, "/team");
	struct warm_error err = { 0 };

	assert_int_equal(put_text_as(store, NAME, "1", NULL), 0);
	assert_int_equal(warm_store_delete(store, NAME, NULL, &err), WARM_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "the registry doesn't allow deletion"));
}

TEST(a_registry_that_does_not_list_repositories_is_told)
{
	static const struct canned answers[] = { { .status = 401, .body = "{}" },
						 { .status = 404 } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_oci(s, "/team");

	assert_non_null(strstr(list(store, "", NULL), "name a model"));
	assert_non_null(strstr(list(store, "", NULL), "name a model"));
}

static void want_token(void *arg, const struct http_request *r, struct http_reply *reply)
{
	const char *host = http_request_header(r, "host");
	const char *login = http_request_header(r, "authorization");

	(void)arg;
	if (strncmp(r->target, "/token", 6) == 0) {
		http_reply_text(reply, 200, "{\"token\":\"t\",\"expires_in\":300}");
	} else if (login == NULL) {
		http_reply_text(reply, 401, "{}");
		http_reply_header(
			reply,
			"WWW-Authenticate: Bearer realm=\"http://%s/token\",service=\"r\","
			"scope=\"repository:team/m:pull\"",
			host);
	} else {
		http_reply_text(reply, 200, "{\"tags\":[]}");
	}
}

TEST(a_token_is_asked_for_once_and_used_for_all_of_a_scope)
{
	scope_server struct http_server *s = http_server_open(want_token, NULL);
	scope_store struct warm_store *store = open_oci(s, "/team");

	for (int i = 0; i < 3; i++)
		assert_string_equal(list(store, "m/", NULL), "");
	assert_int_equal(http_server_count(s), 5);
	assert_request(s, 1, "GET /token?service=r&scope=repository%3Ateam%2Fm%3Apull");
	for (size_t i = 2; i < 5; i++)
		assert_header(s, i, "authorization", "Bearer t");
}

TEST(parameters_that_make_no_sense_are_refused)
{
	static const char *const urls[] = { "oci://r.io/Upper",	     "oci://r.io/a//b",
					    "oci://r.io/a?login=me", "oci://r.io/a?plain-http=1",
					    "oci://r.io?tag=x",	     "oci://r.io?connections=0",
					    "oci://r.io/a:latest",   "oci://r.io?ca=/nonexistent" };
	struct warm_store *store = NULL;

	no_clouds();
	for (size_t i = 0; i < COUNT(urls); i++)
		assert_int_equal(warm_store_open(urls[i], &store, NULL), WARM_INVALID);
	assert_null(store);
}

TEST(tls_is_used_but_on_this_machine)
{
	static const struct {
		const char *url, *want;
	} rows[] = {
		{ "oci://r.test/t", "CONNECT r.test:443" },
		{ "oci://r.test:5000/t", "CONNECT r.test:5000" },
		{ "oci://docker.io/t", "CONNECT registry-1.docker.io:443" },
		{ "oci://r.test:5000/t?plain-http=true",
		  "GET http://r.test:5000/v2/t/m/tags/list?n=1000" },
		{ "oci://localhost:5000/t", "GET http://localhost:5000/v2/t/m/tags/list?n=1000" },
		{ "oci://localhost.test/t", "CONNECT localhost.test:443" },
		{ "oci://127.0.0.1:1/t?plain-http=false", "CONNECT 127.0.0.1:1" },
	};
	scope_server struct http_server *s = http_server_canned(NULL, 0);

	no_clouds();
	unsetenv("NO_PROXY");
	setenv("http_proxy", http_server_url(s), 1);
	setenv("https_proxy", http_server_url(s), 1);
	for (size_t i = 0; i < COUNT(rows); i++) {
		scope_store struct warm_store *store = NULL;
		assert_int_equal(warm_store_open(rows[i].url, &store, NULL), 0);
		assert_non_null(strchr(list(store, "m/", NULL), ':'));
		assert_request(s, i, rows[i].want);
	}
	no_clouds();
}

TEST(the_clock_of_a_registry_is_told_for_a_cold_model_too)
{
	static const struct canned answers[] = { { .status = 404,
						   .headers = "Date: " DATE "\r\n" } };
	scope_server struct http_server *s = CANNED(answers);
	scope_store struct warm_store *store = open_oci(s, "/team");
	int64_t now = 5;

	assert_string_equal(list(store, "m/", &now), "");
	assert_int_not_equal(now, 5);
}

static void turn_pages(void *arg, const struct http_request *r, struct http_reply *reply)
{
	(void)arg;
	http_reply_text(reply, 200, "{\"tags\":[\"a\"]}");
	http_reply_header(reply, "Link: </v2/team/m/tags/list?last=%s>; rel=\"next\"",
			  strstr(r->target, "last=a") != NULL ? "b" : "a");
}

TEST(pages_in_a_circle_have_an_end)
{
	scope_server struct http_server *s = http_server_open(turn_pages, NULL);
	scope_store struct warm_store *store = open_oci(s, "/team");
	scope_buf struct warm_buf found = WARM_BUF_INIT;
	struct warm_call call = { .deadline_ms = warm_clock_ms() + 100 };

	assert_int_equal(warm_store_list(store, "m/", note, &found, NULL, &call, NULL),
			 WARM_CORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_push_is_a_blob_a_config_and_a_manifest),
		cmocka_unit_test(the_config_is_put_once_for_a_repository),
		cmocka_unit_test(what_is_pushed_is_listed_read_and_deleted),
		cmocka_unit_test(an_upload_goes_where_the_registry_says),
		cmocka_unit_test(an_upload_at_another_host_gets_no_login),
		cmocka_unit_test(an_upload_that_is_refused_begins_anew),
		cmocka_unit_test(a_model_whose_repository_is_too_long_is_told_before),
		cmocka_unit_test(a_registry_has_no_heads),
		cmocka_unit_test(tags_of_others_are_passed_over),
		cmocka_unit_test(a_manifest_that_is_no_json_is_no_tag_of_others),
		cmocka_unit_test(a_registry_that_sends_all_its_tags_again_has_sent_them_once),
		cmocka_unit_test(a_list_has_pages),
		cmocka_unit_test(a_page_is_asked_of_no_other_host_and_not_twice),
		cmocka_unit_test(a_model_that_nobody_has_pushed_is_cold),
		cmocka_unit_test(blobs_may_be_read_elsewhere_without_a_login),
		cmocka_unit_test(a_refusal_says_what_was_asked_as_whom_and_what_to_do),
		cmocka_unit_test(a_registry_that_does_not_delete_is_told),
		cmocka_unit_test(a_registry_that_does_not_list_repositories_is_told),
		cmocka_unit_test(a_token_is_asked_for_once_and_used_for_all_of_a_scope),
		cmocka_unit_test(parameters_that_make_no_sense_are_refused),
		cmocka_unit_test(tls_is_used_but_on_this_machine),
		cmocka_unit_test(the_clock_of_a_registry_is_told_for_a_cold_model_too),
		cmocka_unit_test(pages_in_a_circle_have_an_end),
	};

	return RUN(tests);
}
