/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An OCI registry as a store. The first part of an object's name is a repository, the object a tag
 * of it: a manifest with one layer. The whole name stands in an annotation; the tag is made from
 * it and short enough for any name.
 *
 * A manifest is read once: tags of ours never move.
 *
 * Source: OCI Distribution specification 1.1, Image specification 1.1.
 */
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/base/parallel.h"
#include "lib/store/backend.h"
#include "lib/store/oci_name.h"
#include "lib/store/registry.h"
#include "lib/store/sigv4.h"
#include "lib/store/url.h"

#define MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define LAYER_TYPE "application/vnd.oci.image.layer.v1.tar+zstd"
#define EMPTY_TYPE "application/vnd.oci.empty.v1+json"
#define ARTIFACT_TYPE "application/vnd.warmcache.layer.v1"
#define EMPTY "{}"
#define EMPTY_DIGEST "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
#define ANNOTATION_NAME "dev.warmcache.name"
#define ANNOTATION_UPLOADED "dev.warmcache.uploaded"

enum {
	READERS = 8, /* of manifests at once */
	DIGEST_BYTES = 7 + 64 + 1,
	MANIFEST_BYTES = 256 << 10,
	TAGS_BYTES = 4 << 20,
	PUT_ANSWER_MS = 60 * 1000,
	PAGE = 1000,
	HOST_BYTES = 300,
};

/* What a manifest says. `name` is NULL for one that isn't ours. */
struct entry {
	uint64_t hash; /* of repository and tag */
	char *name;
	uint64_t bytes;
	int64_t uploaded_ms;
	char blob[DIGEST_BYTES], manifest[DIGEST_BYTES];
};

struct oci {
	struct warm_url url;
	bool plain_http;
	char base[320]; /* "https://registry", by its own name: docker.io's is another */
	struct warm_http *http;
	struct warm_registry *registry;
	pthread_mutex_t lock;
	struct entry *entries; /* under the lock */
	size_t n_entries, capacity;
	uint64_t has_config[32]; /* hashes of repositories that have the empty config */
	size_t n_has_config;
};

static void oci_free(void *state)
{
	struct oci *s = state;

	if (s == NULL)
		return;
	warm_http_free(s->http);
	warm_registry_free(s->registry);
	for (size_t i = 0; i < s->n_entries; i++)
		free(s->entries[i].name);
	free(s->entries);
	warm_url_release(&s->url);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* ---- requests ---- */

struct op {
	struct oci *s;
	const char *method, *what; /* what, for messages */
	const char *repository;	   /* "" for the registry itself */
	const char *path;	   /* below it: "tags/list"; an absolute URL goes as it is */
	const char *accept, *content_type;
	bool writes, deletes;
	bool missing_is_fine, asked_anew;
	struct warm_registry_scope scope;
	char who[64];
	/* An upload is begun anew at each try: where to put it. */
	const char *upload_digest;
};

static int begin_upload(struct op *op, char **ret_url, const struct warm_call *call,
			struct warm_error *err);

static void set_scope(struct op *op)
{
	snprintf(op->scope.key, sizeof(op->scope.key), "%s %.280s",
		 op->deletes  ? "delete"
		 : op->writes ? "push"
			      : "pull",
		 op->repository);
}

static int prepare(void *arg, struct warm_http_request *r, const struct warm_call *call,
		   struct warm_error *err)
{
	struct op *op = arg;
	scope_free char *upload = NULL;
	const char *base = op->s->base;

	r->method = op->method;
	if (op->upload_digest != NULL) {
		int rc = begin_upload(op, &upload, call, err);
		if (rc != 0 || upload == NULL)
			return rc;
		warm_http_request_url(r, "%s%cdigest=%s", upload,
				      strchr(upload, '?') != NULL ? '&' : '?', op->upload_digest);
	} else if (op->path[0] == '/') {
		warm_http_request_url(r, "%s%s", base, op->path);
	} else {
		warm_http_request_url(r, "%s/v2/%s%s%s", base, op->repository,
				      op->repository[0] != '\0' ? "/" : "", op->path);
	}
	if (op->accept != NULL)
		warm_http_request_header(r, "Accept: %s", op->accept);
	if (op->content_type != NULL)
		warm_http_request_header(r, "Content-Type: %s", op->content_type);
	/* Where an upload goes to another host, it has what it needs in its URL. */
	if (upload != NULL && !warm_http_same_origin(base, upload))
		return 0;
	return warm_registry_authorize(op->s->registry, &op->scope, r, op->who, call, err);
}

static enum warm_status status_of(long status)
{
	if (status == 404)
		return WARM_NOT_FOUND;
	if (status == 416)
		return WARM_CORRUPT;
	if (status == 405 || status == 501)
		return WARM_UNSUPPORTED;
	if (status == 413 || status == 507)
		return WARM_NO_SPACE;
	return status >= 500 || status == 429 || status == 408 ? WARM_TRANSIENT : WARM_DENIED;
}

static int refused(void *arg, const struct warm_http_response *response, bool *ret_again,
		   struct warm_error *err)
{
	struct op *op = arg;
	long status = response->status;
	json_error_t where;

	if (status == 404 && op->missing_is_fine)
		return 0;
	/* Where blobs lie elsewhere, a signed URL may have expired: the registry gives another. */
	if (response->foreign && (status == 401 || status == 403) && !op->asked_anew) {
		op->asked_anew = *ret_again = true;
		return 0;
	}
	if (status == 401 && warm_registry_challenge(op->s->registry, &op->scope, response)) {
		*ret_again = true;
		return 0;
	}
	json_t *o = json_loadb((const char *)response->body.data, response->body.bytes, 0, &where);
	json_t *first = json_array_get(json_object_get(o, "errors"), 0);
	const char *code = json_string_value(json_object_get(first, "code"));
	const char *message = json_string_value(json_object_get(first, "message"));
	const char *hint = "";
	if (status == 401)
		hint = ": log in by a config.json (auth-file=, DOCKER_CONFIG)";
	else if (status == 403)
		hint = op->writes ? ": the login may lack the right to push"
				  : ": the login may lack the right to pull";
	else if (status == 405 && op->deletes)
		hint = ": the registry doesn't allow deletion";
	else if (status == 404 && op->writes)
		hint = ": some registries want a repository to be made first";
	int rc = warm_error_set(err, status_of(status), "%ld%s%.60s for %s as %s%s%.100s%s", status,
				code != NULL ? " " : "", code != NULL ? code : "", op->what,
				op->who, message != NULL ? ": " : "",
				message != NULL ? message : "", hint);
	json_decref(o);
	/* That a repository isn't there is cold for a reader, and a mistake for a writer. */
	if (rc == WARM_NOT_FOUND && op->writes) {
		rc = WARM_DENIED;
		if (err != NULL)
			err->status = rc;
	}
	return rc;
}

static struct warm_http_run run_of(struct op *op)
{
	set_scope(op);
	return (struct warm_http_run){
		.prepare = prepare, .refused = refused, .arg = op, .follow = !op->writes
	};
}

/* ---- manifests ---- */

static uint64_t hash_of(const char *repository, const char *tag)
{
	char text[600];
	int n = snprintf(text, sizeof(text), "%s:%s", repository, tag);

	return warm_hash64(text, (size_t)n);
}

static bool is_digest(const char *text)
{
	return text != NULL && strlen(text) == DIGEST_BYTES - 1 &&
	       strncmp(text, "sha256:", 7) == 0 && strspn(text + 7, "0123456789abcdef") == 64;
}

/* A registry checks what it takes: what isn't JSON is a broken answer, or memory that we lack
 * (jansson doesn't always say which). It must not pass for a tag of somebody else. */
static int check_json(const json_t *o, struct warm_error *err)
{
	return o == NULL ? warm_error_set(err, WARM_CORRUPT, "the answer is no JSON") : 0;
}

/* What a manifest says; an entry without a name where it isn't one of ours. */
static int parse_manifest(struct oci *s, const char *repository, const char *tag,
			  const struct warm_buf *body, struct entry *ret_entry,
			  struct warm_error *err)
{
	struct entry e = { .hash = hash_of(repository, tag), .uploaded_ms = -1 };
	char expected[WARM_OCI_REPOSITORY_BYTES], expected_tag[WARM_OCI_TAG_BYTES];
	json_error_t where;
	json_t *o = json_loadb((const char *)body->data, body->bytes, 0, &where);
	json_t *layers = json_object_get(o, "layers"), *layer = json_array_get(layers, 0);
	json_t *annotations = json_object_get(o, "annotations");
	const char *name = json_string_value(json_object_get(annotations, ANNOTATION_NAME));
	const char *uploaded = json_string_value(json_object_get(annotations, ANNOTATION_UPLOADED));
	const char *digest = json_string_value(json_object_get(layer, "digest"));
	json_t *size = json_object_get(layer, "size");
	json_int_t bytes = json_integer_value(size);
	int rc = check_json(o, err);

	if (rc != 0)
		return rc;
	memcpy(e.manifest, "sha256:", 7);
	warm_sha256_hex(body->data, body->bytes, e.manifest + 7);
	/* The name must belong where it stands: what was copied elsewhere is somebody else's. */
	if (name != NULL && json_array_size(layers) == 1 && is_digest(digest) &&
	    json_is_integer(size) && bytes >= 0 && warm_path_check(name, strlen(name), NULL) == 0 &&
	    warm_oci_name(s->url.prefix, name, expected, expected_tag, NULL) == 0 &&
	    strcmp(expected, repository) == 0 && strcmp(expected_tag, tag) == 0) {
		snprintf(e.blob, sizeof(e.blob), "%s", digest);
		e.bytes = (uint64_t)bytes;
		if (uploaded != NULL)
			e.uploaded_ms = strtoll(uploaded, NULL, 10);
		e.name = strdup(name);
		if (e.name == NULL)
			rc = warm_error_nomem(err, strlen(name));
	}
	json_decref(o);
	if (rc == 0)
		*ret_entry = e;
	return rc;
}

/* Copies what is known, its name included. */
static bool find_entry(struct oci *s, uint64_t hash, struct entry *ret_entry)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; !found && i < s->n_entries; i++)
		if (s->entries[i].hash == hash) {
			*ret_entry = s->entries[i];
			found = true;
		}
	pthread_mutex_unlock(&s->lock);
	return found;
}

/* Entries live as long as the store, so that names may be borrowed. */
static int keep_entry(struct oci *s, struct entry *e, struct warm_error *err)
{
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	if (s->n_entries == s->capacity) {
		size_t capacity = s->capacity == 0 ? 64 : 2 * s->capacity;
		struct entry *entries = realloc(s->entries, capacity * sizeof(*entries));
		if (entries == NULL) {
			rc = warm_error_nomem(err, capacity * sizeof(*entries));
		} else {
			s->entries = entries;
			s->capacity = capacity;
		}
	}
	if (rc == 0)
		s->entries[s->n_entries++] = *e;
	pthread_mutex_unlock(&s->lock);
	if (rc != 0)
		free(take_ptr(e->name));
	return rc;
}

static int read_manifest(struct oci *s, const char *repository, const char *tag,
			 struct entry *ret_entry, const struct warm_call *call,
			 struct warm_error *err)
{
	char path[200];
	struct op op = { .s = s,
			 .method = "GET",
			 .what = "a manifest",
			 .repository = repository,
			 .path = path,
			 .accept = MANIFEST_TYPE };
	scope_response struct warm_http_response response = { 0 };

	if (find_entry(s, hash_of(repository, tag), ret_entry))
		return 0;
	snprintf(path, sizeof(path), "manifests/%s", tag);
	struct warm_http_run run = run_of(&op);
	run.max_body_bytes = MANIFEST_BYTES;
	int rc = warm_http_run(s->http, &run, &response, call, err);
	if (rc == 0)
		rc = parse_manifest(s, repository, tag, &response.body, ret_entry, err);
	return rc != 0 ? rc : keep_entry(s, ret_entry, err);
}

/* The entry of an object. NOT_FOUND where there is none of this name. */
static int entry_of(struct oci *s, const char *name, struct entry *ret_entry,
		    char ret_repository[WARM_OCI_REPOSITORY_BYTES], const struct warm_call *call,
		    struct warm_error *err)
{
	char tag[WARM_OCI_TAG_BYTES];
	int rc = warm_oci_name(s->url.prefix, name, ret_repository, tag, err);

	if (rc == 0)
		rc = read_manifest(s, ret_repository, tag, ret_entry, call, err);
	if (rc == 0 && (ret_entry->name == NULL || strcmp(ret_entry->name, name) != 0))
		rc = warm_error_set(err, WARM_NOT_FOUND, "the tag belongs to another object");
	return rc;
}

/* ---- LIST ---- */

struct texts {
	char **items;
	size_t n, capacity;
};

static void texts_release(struct texts *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->items[i]);
	free(t->items);
}

static int add_text(struct texts *t, const char *text, struct warm_error *err)
{
	if (t->n == t->capacity) {
		size_t capacity = t->capacity == 0 ? 64 : 2 * t->capacity;
		char **items = realloc(t->items, capacity * sizeof(*items));
		if (items == NULL)
			return warm_error_nomem(err, capacity * sizeof(*items));
		t->items = items;
		t->capacity = capacity;
	}
	if ((t->items[t->n] = strdup(text)) == NULL)
		return warm_error_nomem(err, strlen(text));
	t->n++;
	return 0;
}

/* The path of `Link: </v2/...>; rel="next"`, NULL at the last page. A page that can't be asked for
 * is an error: a list that is cut short must not look like a whole one. */
static int next_page(const struct oci *s, const struct warm_http_response *response,
		     char **ret_path, struct warm_error *err)
{
	const char *link = warm_http_header(response, "link");

	*ret_path = NULL;
	if (link == NULL || strstr(link, "next") == NULL)
		return 0;
	link += link[0] == '<';
	scope_free char *reference = strndup(link, strcspn(link, ">"));
	scope_free char *url = reference != NULL ? warm_http_resolve(s->base, reference) : NULL;
	if (url == NULL || !warm_http_same_origin(s->base, url))
		return warm_error_set(err, WARM_CORRUPT,
				      "the list's next page is not on the registry");
	const char *path = strchr(strstr(url, "://") + 3, '/');
	*ret_path = path != NULL ? strdup(path) : NULL;
	return *ret_path != NULL ? 0 : warm_error_nomem(err, strlen(url));
}

/* Some registries page without saying so. */
static char *page_after(const char *first, const struct texts *texts)
{
	scope_buf struct warm_buf path = WARM_BUF_INIT;

	warm_buf_printf(&path, "%s&last=", first);
	warm_url_encode(&path, texts->items[texts->n - 1], false);
	warm_buf_put_u8(&path, 0);
	return path.failed ? NULL : strdup((const char *)path.data);
}

/* All pages of a list of texts: `member` of {"tags": [...]} or {"repositories": [...]}. */
static int read_list(struct oci *s, const char *repository, const char *first, const char *member,
		     struct texts *texts, int64_t *ret_now_ms, const struct warm_call *call,
		     struct warm_error *err)
{
	scope_free char *page = strdup(first);
	struct texts seen = { 0 };
	bool guessed = false; /* this page was not named by the one before */
	int rc = page != NULL ? 0 : warm_error_nomem(err, strlen(first));

	while (rc == 0 && page != NULL) {
		struct op op = { .s = s,
				 .method = "GET",
				 .what = repository[0] != '\0' ? "the list of tags"
							       : "the list of repositories",
				 .repository = repository,
				 .path = page };
		scope_response struct warm_http_response response = { 0 };
		struct warm_http_run run = run_of(&op);
		json_error_t where;
		json_t *text;
		size_t i, before = texts->n;
		run.max_body_bytes = TAGS_BYTES;
		rc = warm_http_run(s->http, &run, &response, call, err);
		if (rc != 0)
			break;
		if (ret_now_ms != NULL)
			*ret_now_ms = warm_http_date(&response);
		json_t *o = json_loadb((const char *)response.body.data, response.body.bytes, 0,
				       &where);
		json_t *list = json_object_get(o, member);
		rc = check_json(o, err);
		if (rc == 0 && !json_is_array(list) && !json_is_null(list))
			rc = warm_error_set(err, WARM_CORRUPT, "%s: something else came", op.what);
		json_array_foreach(list, i, text)
			if (rc == 0 && json_is_string(text))
				rc = add_text(texts, json_string_value(text), err);
		json_decref(o);
		/* A registry that doesn't page has sent all once more. */
		if (rc == 0 && guessed && texts->n > before &&
		    strcmp(texts->items[before], texts->items[0]) == 0) {
			while (texts->n > before)
				free(texts->items[--texts->n]);
			break;
		}
		char *more = NULL;
		if (rc == 0)
			rc = next_page(s, &response, &more, err);
		guessed = rc == 0 && more == NULL && texts->n - before == PAGE;
		if (guessed)
			more = page_after(first, texts);
		/* A server that sends its pages in a circle. */
		for (i = 0; rc == 0 && more != NULL && i < seen.n; i++)
			if (strcmp(more, seen.items[i]) == 0) {
				if (!guessed)
					rc = warm_error_set(err, WARM_CORRUPT, "%s: a page twice",
							    op.what);
				free(take_ptr(more));
			}
		if (rc == 0 && more != NULL)
			rc = add_text(&seen, more, err);
		free(page);
		page = more;
	}
	texts_release(&seen);
	return rc;
}

struct reading {
	struct oci *s;
	const char *repository;
	char **tags;
	struct entry *entries;
	const struct warm_call *call;
};

static int read_one(void *arg, size_t i, struct warm_error *err)
{
	struct reading *r = arg;
	int rc = read_manifest(r->s, r->repository, r->tags[i], &r->entries[i], r->call, err);

	/* Deleted since the list; or no manifest of an image, so none of ours. */
	return rc == WARM_NOT_FOUND ? 0 : rc;
}

static int list_repository(struct oci *s, const char *repository, const char *prefix,
			   warm_list_fn fn, void *arg, int64_t *ret_now_ms,
			   const struct warm_call *call, struct warm_error *err)
{
	char tag_prefix[WARM_OCI_TAG_BYTES], first[64];
	struct texts tags = { 0 };
	size_t kept = 0;

	warm_oci_tag_prefix(prefix, tag_prefix);
	snprintf(first, sizeof(first), "tags/list?n=%d", PAGE);
	int rc = read_list(s, repository, first, "tags", &tags, ret_now_ms, call, err);
	for (size_t i = 0; i < tags.n; i++) {
		if (strncmp(tags.items[i], tag_prefix, strlen(tag_prefix)) == 0 &&
		    warm_oci_is_tag(tags.items[i]))
			tags.items[kept++] = tags.items[i];
		else
			free(tags.items[i]);
	}
	tags.n = kept;
	scope_free struct entry *entries = calloc(tags.n + 1, sizeof(*entries));
	if (rc == 0 && entries == NULL)
		rc = warm_error_nomem(err, tags.n * sizeof(*entries));
	struct reading reading = { s, repository, tags.items, entries, call };
	if (rc == 0)
		rc = warm_parallel(READERS, tags.n, read_one, &reading, err);
	for (size_t i = 0; rc == 0 && i < tags.n; i++) {
		const struct entry *e = &entries[i];
		struct warm_object o = { .name = e->name,
					 .bytes = e->bytes,
					 .modified_ms = e->uploaded_ms };
		if (e->name != NULL && strncmp(e->name, prefix, strlen(prefix)) == 0)
			rc = fn(arg, &o, err);
	}
	texts_release(&tags);
	return rc;
}

static int list_all(struct oci *s, warm_list_fn fn, void *arg, int64_t *ret_now_ms,
		    const struct warm_call *call, struct warm_error *err)
{
	struct texts repositories = { 0 };
	char first[64];

	snprintf(first, sizeof(first), "_catalog?n=%d", PAGE);
	int rc = read_list(s, "", first, "repositories", &repositories, ret_now_ms, call, err);
	if (rc == WARM_NOT_FOUND || rc == WARM_UNSUPPORTED || rc == WARM_DENIED)
		warm_error_context(err,
				   "this registry may not list its repositories; name a model");
	for (size_t i = 0; rc == 0 && i < repositories.n; i++) {
		if (!warm_oci_is_ours(s->url.prefix, repositories.items[i]))
			continue;
		rc = list_repository(s, repositories.items[i], "", fn, arg, NULL, call, err);
		if (rc == WARM_NOT_FOUND)
			rc = 0; /* its last tag was deleted */
	}
	texts_release(&repositories);
	return rc;
}

static int oci_list(void *state, const char *prefix, warm_list_fn fn, void *arg,
		    int64_t *ret_now_ms, const struct warm_call *call, struct warm_error *err)
{
	char repository[WARM_OCI_REPOSITORY_BYTES];
	struct oci *s = state;

	if (prefix[0] == '\0')
		return list_all(s, fn, arg, ret_now_ms, call, err);
	int rc = warm_oci_repository(s->url.prefix, prefix, repository, err);
	if (rc == 0)
		rc = list_repository(s, repository, prefix, fn, arg, ret_now_ms, call, err);
	return rc == WARM_NOT_FOUND ? 0 : rc; /* a model that nobody has pushed yet */
}

static int oci_check(void *state, const char *prefix, struct warm_error *err)
{
	const struct oci *s = state;
	char repository[WARM_OCI_REPOSITORY_BYTES];

	return warm_oci_repository(s->url.prefix, prefix, repository, err);
}

/* ---- objects ---- */

static int oci_head(void *state, const char *name, struct warm_object *ret_object,
		    const struct warm_call *call, struct warm_error *err)
{
	char repository[WARM_OCI_REPOSITORY_BYTES];
	struct entry e;
	int rc = entry_of(state, name, &e, repository, call, err);

	if (rc == 0)
		*ret_object = (struct warm_object){ .name = name,
						    .bytes = e.bytes,
						    .modified_ms = e.uploaded_ms };
	return rc;
}

static int oci_get(void *state, const char *name, uint64_t offset, uint64_t bytes,
		   warm_sink_fn sink, void *arg, const struct warm_call *call,
		   struct warm_error *err)
{
	char repository[WARM_OCI_REPOSITORY_BYTES], path[DIGEST_BYTES + 8];
	struct op op = { .s = state,
			 .method = "GET",
			 .what = "a blob",
			 .repository = repository,
			 .path = path };
	struct entry e;
	int rc = entry_of(state, name, &e, repository, call, err);

	if (rc != 0 || bytes == 0)
		return rc;
	snprintf(path, sizeof(path), "blobs/%s", e.blob);
	struct warm_http_run run = run_of(&op);
	run.range_offset = offset;
	run.range_bytes = bytes;
	run.sink = sink;
	run.sink_arg = arg;
	return warm_http_run(op.s->http, &run, NULL, call, err);
}

/* ---- pushing ---- */

/* Ask for a place to put a blob. */
static int begin_upload(struct op *op, char **ret_url, const struct warm_call *call,
			struct warm_error *err)
{
	struct op begin = { .s = op->s,
			    .method = "POST",
			    .what = "an upload",
			    .repository = op->repository,
			    .path = "blobs/uploads/",
			    .writes = true };
	struct warm_http_run run = run_of(&begin);
	scope_response struct warm_http_response response = { 0 };

	run.has_body = true;
	int rc = warm_http_run(op->s->http, &run, &response, call, err);
	if (rc != 0)
		return rc;
	const char *location = warm_http_header(&response, "location");
	*ret_url = location != NULL ? warm_http_resolve(op->s->base, location) : NULL;
	if (*ret_url == NULL)
		return warm_error_set(err, WARM_CORRUPT, "an upload without a Location");
	if (!op->s->plain_http && strncmp(*ret_url, "https://", 8) != 0) {
		free(take_ptr(*ret_url));
		return warm_error_set(
			err, WARM_DENIED,
			"an upload's Location without TLS: refused; the registry needs "
			"X-Forwarded-Proto from its proxy, or relative URLs");
	}
	return 0;
}

static int put_blob(struct oci *s, const char *repository, const char *digest, const void *data,
		    int fd, uint64_t bytes, struct warm_http_response *ret_response,
		    const struct warm_call *call, struct warm_error *err)
{
	struct op op = { .s = s,
			 .method = "PUT",
			 .what = "a blob's upload",
			 .repository = repository,
			 .path = "",
			 .content_type = "application/octet-stream",
			 .writes = true,
			 .upload_digest = digest };
	struct warm_http_run run = run_of(&op);

	run.data = data;
	run.fd = fd;
	run.body_bytes = bytes;
	run.has_body = true;
	run.answer_ms = PUT_ANSWER_MS;
	return warm_http_run(s->http, &run, ret_response, call, err);
}

/* The empty config, once a repository. */
static int put_config(struct oci *s, const char *repository, const struct warm_call *call,
		      struct warm_error *err)
{
	struct op op = { .s = s,
			 .method = "HEAD",
			 .what = "the config blob",
			 .repository = repository,
			 .path = "blobs/" EMPTY_DIGEST };
	struct warm_http_run run = run_of(&op);
	uint64_t hash = hash_of(repository, "");
	size_t most = sizeof(s->has_config) / sizeof(s->has_config[0]);
	bool known = false;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_has_config && i < most; i++)
		known = known || s->has_config[i] == hash;
	pthread_mutex_unlock(&s->lock);
	if (known)
		return 0;
	int rc = warm_http_run(s->http, &run, NULL, call, err);
	if (rc == WARM_NOT_FOUND)
		rc = put_blob(s, repository, EMPTY_DIGEST, EMPTY, -1, strlen(EMPTY), NULL, call,
			      err);
	if (rc == 0) {
		pthread_mutex_lock(&s->lock);
		s->has_config[s->n_has_config++ % most] = hash;
		pthread_mutex_unlock(&s->lock);
	}
	return rc;
}

static char *make_manifest(const char *name, const char *digest, uint64_t bytes,
			   int64_t uploaded_ms)
{
	const char *slash = strrchr(name, '/');
	char uploaded[24];

	snprintf(uploaded, sizeof(uploaded), "%lld", (long long)uploaded_ms);
	json_t *o =
		json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:i, s:s}, s:[{s:s, s:s, s:I, s:{s:s}}], "
			  "s:{s:s, s:s}}",
			  "schemaVersion", 2, "mediaType", MANIFEST_TYPE, "artifactType",
			  ARTIFACT_TYPE, "config", "mediaType", EMPTY_TYPE, "digest", EMPTY_DIGEST,
			  "size", (int)strlen(EMPTY), "data", "e30=", "layers", "mediaType",
			  LAYER_TYPE, "digest", digest, "size", (json_int_t)bytes, "annotations",
			  "org.opencontainers.image.title", slash != NULL ? slash + 1 : name,
			  "annotations", ANNOTATION_NAME, name, ANNOTATION_UPLOADED, uploaded);
	char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;

	json_decref(o);
	return text;
}

static int put_manifest(struct oci *s, const char *repository, const char *tag, const char *text,
			const struct warm_call *call, struct warm_error *err)
{
	char path[200];
	struct op op = { .s = s,
			 .method = "PUT",
			 .what = "a manifest's upload",
			 .repository = repository,
			 .path = path,
			 .content_type = MANIFEST_TYPE,
			 .writes = true };
	struct warm_http_run run = run_of(&op);

	snprintf(path, sizeof(path), "manifests/%s", tag);
	run.data = text;
	run.body_bytes = strlen(text);
	run.answer_ms = PUT_ANSWER_MS;
	return warm_http_run(s->http, &run, NULL, call, err);
}

static int oci_put(void *state, const char *name, int fd, uint64_t bytes, bool replace,
		   const struct warm_call *call, struct warm_error *err)
{
	struct oci *s = state;
	char repository[WARM_OCI_REPOSITORY_BYTES], tag[WARM_OCI_TAG_BYTES];
	char digest[DIGEST_BYTES] = "sha256:";
	scope_response struct warm_http_response response = { 0 };

	if (replace)
		return warm_error_set(err, WARM_UNSUPPORTED,
				      "a registry lists its tags itself and has no heads");
	int rc = warm_oci_name(s->url.prefix, name, repository, tag, err);
	if (rc == 0)
		rc = warm_sha256_file_hex(fd, 0, bytes, digest + 7, err);
	if (rc == 0)
		rc = put_blob(s, repository, digest, NULL, fd, bytes, &response, call, err);
	if (rc == 0)
		rc = put_config(s, repository, call, err);
	if (rc != 0)
		return rc;
	scope_free char *manifest = make_manifest(name, digest, bytes, warm_http_date(&response));
	if (manifest == NULL)
		return warm_error_nomem(err, MANIFEST_BYTES);
	return put_manifest(s, repository, tag, manifest, call, err);
}

static void forget_entry(struct oci *s, uint64_t hash)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_entries; i++)
		if (s->entries[i].hash == hash)
			s->entries[i].hash = 0; /* its name may be borrowed */
	pthread_mutex_unlock(&s->lock);
}

static int oci_delete(void *state, const char *name, const struct warm_call *call,
		      struct warm_error *err)
{
	char repository[WARM_OCI_REPOSITORY_BYTES], path[DIGEST_BYTES + 12];
	struct op op = { .s = state,
			 .method = "DELETE",
			 .what = "a manifest's deletion",
			 .repository = repository,
			 .path = path,
			 .deletes = true,
			 .missing_is_fine = true };
	struct entry e;
	int rc = entry_of(state, name, &e, repository, call, err);

	if (rc == WARM_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	snprintf(path, sizeof(path), "manifests/%s", e.manifest);
	struct warm_http_run run = run_of(&op);
	rc = warm_http_run(op.s->http, &run, NULL, call, err);
	if (rc == 0)
		forget_entry(state, e.hash);
	return rc;
}

/* ---- opening ---- */

static unsigned oci_connections(const void *state)
{
	const struct oci *s = state;

	return warm_http_connections(s->http);
}

static bool is_this_machine(const char *host)
{
	size_t n = strcspn(host, ":");

	return (n == 9 && strncmp(host, "localhost", 9) == 0) ||
	       (strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == n) ||
	       strncmp(host, "[::1]", 5) == 0;
}

static int take_login(const struct warm_url *url, enum warm_registry_login *ret_login,
		      struct warm_error *err)
{
	static const char *const names[] = { "auto", "file", "ecr", "google", "none" };
	const char *value = warm_url_param(url, "login", NULL);

	*ret_login = WARM_LOGIN_AUTO;
	if (value == NULL)
		return 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(value, names[i]) == 0) {
			*ret_login = (enum warm_registry_login)i;
			return 0;
		}
	return warm_error_set(err, WARM_INVALID,
			      "login: '%.64s' is none of auto, file, ecr, google, none", value);
}

static int open_registry(struct oci *s, const char *rest, struct warm_error *err)
{
	static const char *const known[] = { "login", "auth-file",   "plain-http",
					     "ca",    "connections", NULL };
	struct warm_registry_options o = { .host = NULL };
	int rc = warm_url_parse(rest, known, &s->url, err);

	if (rc == 0)
		rc = take_login(&s->url, &o.login, err);
	if (rc == 0)
		rc = warm_url_flag(&s->url, "plain-http", is_this_machine(s->url.host),
				   &s->plain_http, err);
	if (rc == 0)
		rc = warm_oci_check_base(s->url.prefix, err);
	if (rc != 0)
		return rc;
	if (strlen(s->url.host) >= HOST_BYTES)
		return warm_error_set(err, WARM_INVALID, "the registry's name is too long");
	bool hub = strcmp(s->url.host, "docker.io") == 0 ||
		   strcmp(s->url.host, "index.docker.io") == 0;
	snprintf(s->base, sizeof(s->base), "%s://%s", s->plain_http ? "http" : "https",
		 hub ? "registry-1.docker.io" : s->url.host);
	rc = warm_http_open_url(&s->url, NULL, &s->http, err);
	if (rc != 0)
		return rc;
	o.host = s->url.host;
	o.auth_file = warm_url_param(&s->url, "auth-file", NULL);
	o.ca_file = warm_url_param(&s->url, "ca", NULL);
	o.plain_http = s->plain_http;
	return warm_registry_open(&o, &s->registry, err);
}

static int oci_open(const char *rest, void **ret_state, struct warm_error *err)
{
	struct oci *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return warm_error_nomem(err, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	int rc = open_registry(s, rest, err);
	if (rc != 0) {
		oci_free(s);
		return rc;
	}
	*ret_state = s;
	return 0;
}

const struct warm_backend warm_backend_oci = {
	.scheme = "oci",
	.connections = oci_connections,
	.remote = true,
	.open = oci_open,
	.free = oci_free,
	.check = oci_check,
	.list = oci_list,
	.head = oci_head,
	.get = oci_get,
	.put = oci_put,
	.delete = oci_delete,
};
