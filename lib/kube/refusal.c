/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kube/refusal.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"

enum { CAUSES = 3, SAID_BYTES = 320 };

bool warm_kube_has_param(const char *path, const char *name)
{
	const char *at = strchr(path, '?');
	size_t n = strlen(name);

	for (; at != NULL; at = strchr(at, '&')) {
		at++;
		if (strncmp(at, name, n) == 0 && (at[n] == '=' || at[n] == '&' || at[n] == '\0'))
			return true;
	}
	return false;
}

/* ---- what was asked ---- */

/* The next part of a path; "" at its end. */
static void next_part(const char **path, char *ret_part, size_t bytes)
{
	while (**path == '/')
		(*path)++;
	size_t n = strcspn(*path, "/?");
	snprintf(ret_part, bytes, "%.*s", (int)n, *path);
	*path += n;
}

static const char *verb_of(const char *method, const char *path, bool named)
{
	if (strcmp(method, "POST") == 0)
		return "create";
	if (strcmp(method, "PUT") == 0)
		return "update";
	if (strcmp(method, "PATCH") == 0)
		return "patch";
	if (strcmp(method, "DELETE") == 0)
		return named ? "delete" : "deletecollection";
	if (named)
		return "get";
	return warm_kube_has_param(path, "watch") ? "watch" : "list";
}

void warm_kube_target(const char *method, const char *path, struct warm_kube_target *t)
{
	char part[256], group[128] = "", kind[96], sub[64];
	const char *at = path;

	*t = (struct warm_kube_target){ 0 };
	next_part(&at, part, sizeof(part));
	if (strcmp(part, "apis") == 0)
		next_part(&at, group, sizeof(group));
	next_part(&at, part, sizeof(part)); /* its version */
	next_part(&at, kind, sizeof(kind));
	next_part(&at, t->name, sizeof(t->name));
	next_part(&at, sub, sizeof(sub));
	/* namespaces/x/pods is about pods, namespaces/x/finalize isn't. */
	if (strcmp(kind, "namespaces") == 0 && sub[0] != '\0' && strcmp(sub, "finalize") != 0 &&
	    strcmp(sub, "status") != 0) {
		snprintf(t->namespace, sizeof(t->namespace), "%.63s", t->name);
		snprintf(kind, sizeof(kind), "%s", sub);
		next_part(&at, t->name, sizeof(t->name));
		next_part(&at, sub, sizeof(sub));
	}
	snprintf(t->resource, sizeof(t->resource), "%.60s%s%.60s%s%.30s", kind,
		 group[0] != '\0' ? "." : "", group, sub[0] != '\0' ? "/" : "", sub);
	t->verb = verb_of(method, path, t->name[0] != '\0');
}

/* ---- what the server says ---- */

static const char *text_at(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text != NULL ? text : "";
}

/* The fields of a 422, so that one sees them even if the message is long. */
static size_t tell_causes(const json_t *causes, char *ret_text, size_t bytes)
{
	size_t used = 0, i;
	json_t *cause;

	json_array_foreach(causes, i, cause) {
		if (i == CAUSES) {
			used += (size_t)snprintf(ret_text + used, bytes - used, "; %zu more",
						 json_array_size(causes) - i);
			break;
		}
		used += (size_t)snprintf(ret_text + used, bytes - used, "%s%.60s%s%.90s",
					 i > 0 ? "; " : "", text_at(cause, "field"),
					 text_at(cause, "field")[0] != '\0' ? ": " : "",
					 text_at(cause, "message"));
		if (used >= bytes)
			return bytes - 1;
	}
	return used;
}

static void tell_said(const struct warm_kube_refusal *r, char ret_text[SAID_BYTES])
{
	const json_t *causes = json_object_get(json_object_get(r->status, "details"), "causes");
	char raw[SAID_BYTES] = "";

	if (r->http_status != 422 || tell_causes(causes, raw, sizeof(raw)) == 0)
		snprintf(raw, sizeof(raw), "%s", text_at(r->status, "message"));
	warm_path_printable(raw, ret_text, SAID_BYTES);
}

/* Whom the server took us for: 'User "x" cannot'. */
static void find_user(const char *said, char ret_user[128])
{
	static const char before[] = "User \"";
	const char *at = strstr(said, before);

	ret_user[0] = '\0';
	if (at == NULL)
		return;
	at += sizeof(before) - 1;
	snprintf(ret_user, 128, "%.*s", (int)strcspn(at, "\""), at);
}

/* ---- the errors ---- */

/* RBAC says "cannot"; quotas, policies and webhooks say 403 in words of their own. */
static int forbidden(const struct warm_kube_refusal *r, const char *said, struct warm_error *err)
{
	struct warm_kube_target t;
	char user[128], in[80] = "", flag[80] = "";

	find_user(said, user);
	if (strstr(said, " cannot ") == NULL)
		return warm_error_set(err, WARM_DENIED, "refused: %s", said);
	warm_kube_target(r->method, r->path, &t);
	if (t.namespace[0] != '\0') {
		snprintf(in, sizeof(in), " in namespace %s", t.namespace);
		snprintf(flag, sizeof(flag), " -n %s", t.namespace);
	}
	return warm_error_set(err, WARM_DENIED,
			      "%.127s may not %s %.80s%s: a Role with this verb and a RoleBinding "
			      "give it (kubectl auth can-i %s %.80s%s%s%.127s); %.160s",
			      user[0] != '\0' ? user : "this user", t.verb, t.resource, in, t.verb,
			      t.resource, flag, user[0] != '\0' ? " --as " : "", user, said);
}

static int not_found(const struct warm_kube_refusal *r, const char *said, struct warm_error *err)
{
	const json_t *details = json_object_get(r->status, "details");
	struct warm_kube_target t;

	if (text_at(details, "name")[0] != '\0')
		return warm_error_set(err, WARM_NOT_FOUND, "%s", said);
	warm_kube_target(r->method, r->path, &t);
	if (r->status == NULL && strncmp(r->path, "/api", 4) != 0)
		return warm_error_set(err, WARM_NOT_FOUND, "there is no such path");
	/* "the server could not find the requested resource", or a page of text for a whole group. */
	return warm_error_set(err, WARM_NOT_FOUND,
			      "this server knows no %.100s by that version of the API: it is older "
			      "or newer, lacks a CustomResourceDefinition, or is no API server%s%s",
			      t.resource, said[0] != '\0' ? "; " : "", said);
}

static int conflict(const struct warm_kube_refusal *r, const char *said, struct warm_error *err)
{
	const char *reason = text_at(r->status, "reason");

	if (strcmp(reason, "Conflict") == 0)
		return warm_error_set(err, WARM_EXISTS,
				      "it was changed meanwhile, read it again: %s", said);
	return warm_error_set(err, WARM_EXISTS, "%s", said[0] != '\0' ? said : "it conflicts");
}

static int choose(const struct warm_kube_refusal *r, const char *said, struct warm_error *err)
{
	switch (r->http_status) {
	case 401:
		return warm_error_set(err, WARM_DENIED,
				      "the server doesn't take %.240s: has it expired, is it of "
				      "another cluster?",
				      r->credential);
	case 403:
		return forbidden(r, said, err);
	case 404:
		return not_found(r, said, err);
	case 410:
		return warm_error_set(err, WARM_NOT_FOUND, "it is gone: %s", said);
	case 409:
		return conflict(r, said, err);
	case 413:
		return warm_error_set(err, WARM_LIMIT, "what was sent is too large: %s", said);
	case 422:
		return warm_error_set(err, WARM_INVALID, "it isn't valid: %s", said);
	case 429:
		return warm_error_set(err, WARM_TRANSIENT, "the server is busy: %s", said);
	default:
		break;
	}
	if (r->http_status >= 300 && r->http_status < 400)
		return warm_error_set(
			err, WARM_INVALID,
			"a redirect, which no API answers: is the server's URL right?");
	return warm_error_set(
		err, r->http_status >= 500 || r->http_status == 408 ? WARM_TRANSIENT : WARM_INVALID,
		"the server answers %ld%s%s", r->http_status, said[0] != '\0' ? ": " : "", said);
}

int warm_kube_refuse(const struct warm_kube_refusal *r, struct warm_error *err)
{
	char said[SAID_BYTES];

	tell_said(r, said);
	int rc = choose(r, said, err);
	warm_error_context(err, "%s %.*s at %.100s", r->method,
			   (int)(strcspn(r->path, "?") < 120 ? strcspn(r->path, "?") : 120),
			   r->path, r->server);
	if (err != NULL)
		err->http_status = r->http_status;
	return rc;
}
