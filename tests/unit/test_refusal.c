/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include "lib/kube/refusal.h"

#define JOBS "/apis/batch/v1/namespaces/x/jobs"

/* The error's text for an answer. Static storage. */
static const char *told(const char *method, const char *path, long http_status, const char *status)
{
	static char text[600];
	json_t *parsed = status != NULL ? json_loads(status, 0, NULL) : NULL;
	struct warm_kube_refusal r = { .method = method,
				       .path = path,
				       .server = "https://h:1",
				       .credential = "the token of user u of f",
				       .http_status = http_status,
				       .status = parsed };
	struct warm_error err = { 0 };
	int rc = warm_kube_refuse(&r, &err);

	assert_true(status == NULL || parsed != NULL);
	assert_int_equal(err.http_status, http_status);
	assert_int_equal(err.status, rc);
	snprintf(text, sizeof(text), "%s: %s", warm_status_name(rc), err.msg);
	json_decref(parsed);
	return text;
}

static void assert_says(const char *text, const char *part)
{
	assert_non_null(text);
	if (strstr(text, part) == NULL)
		fail_msg("'%s' isn't in: %s", part != NULL ? part : "", text);
}

TEST(what_was_asked_is_told_without_its_query)
{
	assert_says(told("GET", "/api/v1/pods?limit=5", 500, NULL),
		    "transient: GET /api/v1/pods at https://h:1: the server answers 500");
}

TEST(a_credential_that_isn_t_taken_is_named)
{
	assert_says(told("GET", "/api/v1/pods", 401,
			 "{\"kind\":\"Status\",\"message\":\"Unauthorized\"}"),
		    "denied: GET /api/v1/pods at https://h:1: the server doesn't take the token of "
		    "user u of f");
}

TEST(a_verb_that_lacks_is_named_with_who_lacks_it_and_how_to_see)
{
	const char *text =
		told("POST", JOBS "?dryRun=All", 403,
		     "{\"message\":\"jobs.batch is forbidden: User "
		     "\\\"system:serviceaccount:x:y\\\" cannot "
		     "create resource \\\"jobs\\\" in API group \\\"batch\\\" in the namespace "
		     "\\\"x\\\"\"}");

	assert_says(text, "denied: ");
	assert_says(text, "system:serviceaccount:x:y may not create jobs.batch in namespace x");
	assert_says(text,
		    "kubectl auth can-i create jobs.batch -n x --as system:serviceaccount:x:y)");
}

TEST(what_a_policy_refuses_is_told_in_its_words)
{
	const char *text = told("POST", JOBS, 403, "{\"message\":\"exceeded quota: q\"}");

	assert_says(text, "denied: POST " JOBS " at https://h:1: refused: exceeded quota: q");
	assert_null(strstr(text, "can-i"));
}

TEST(an_object_that_lacks_is_told_from_a_kind_that_lacks)
{
	assert_says(told("GET", JOBS "/a", 404,
			 "{\"message\":\"jobs.batch \\\"a\\\" not found\",\"details\":{\"name\":"
			 "\"a\",\"kind\":\"jobs\"}}"),
		    "not-found: GET " JOBS "/a at https://h:1: jobs.batch \"a\" not found");
	assert_says(told("GET", "/apis/x.y/v1/things", 404, NULL),
		    "this server knows no things.x.y by that version of the API");
	assert_says(told("GET", "/apis/x.y/v1/things", 404,
			 "{\"message\":\"the server could not find the requested resource\","
			 "\"details\":{}}"),
		    "this server knows no things.x.y by that version of the API");
}

TEST(a_conflict_is_what_is_there_or_what_has_changed)
{
	assert_says(told("POST", JOBS, 409,
			 "{\"reason\":\"AlreadyExists\",\"message\":\"jobs.batch \\\"a\\\" already "
			 "exists\"}"),
		    "exists: POST " JOBS " at https://h:1: jobs.batch \"a\" already exists");
	assert_says(told("PUT", JOBS "/a", 409, "{\"reason\":\"Conflict\",\"message\":\"m\"}"),
		    "exists: PUT " JOBS
		    "/a at https://h:1: it was changed meanwhile, read it again: m");
}

TEST(the_fields_that_are_not_valid_are_named)
{
	const char *text = told(
		"POST", JOBS, 422,
		"{\"message\":\"long\",\"details\":{\"causes\":[{\"field\":\"spec.a\",\"message\":"
		"\"Required value\"},{\"field\":\"spec.b\",\"message\":\"no\"},{\"field\":\"c\","
		"\"message\":\"no\"},{\"field\":\"d\"},{\"field\":\"e\"}]}}");

	assert_says(text, "invalid: ");
	assert_says(text, "it isn't valid: spec.a: Required value; spec.b: no; c: no; 2 more");
	assert_says(told("POST", JOBS, 422, "{\"message\":\"short\"}"), "it isn't valid: short");
}

TEST(each_status_of_http_has_its_own)
{
	static const struct {
		long http_status;
		const char *want;
	} cases[] = {
		{ 302, "invalid: " },	{ 400, "invalid: " },	{ 405, "invalid: " },
		{ 410, "not-found: " }, { 413, "limit: " },	{ 415, "invalid: " },
		{ 429, "transient: " }, { 408, "transient: " }, { 501, "transient: " },
		{ 503, "transient: " },
	};

	for (size_t i = 0; i < COUNT(cases); i++)
		assert_memory_equal(told("GET", "/api", cases[i].http_status, NULL), cases[i].want,
				    strlen(cases[i].want));
}

TEST(long_and_odd_words_of_a_server_are_cut_and_made_printable)
{
	char status[2000], words[1200];

	memset(words, 'w', sizeof(words));
	words[sizeof(words) - 1] = '\0';
	snprintf(status, sizeof(status), "{\"message\":\"a\\u001b[1m\\n%s\"}", words);
	assert_says(told("GET", "/api/v1/pods", 400, status), "400: a\\x1b[1m\\x0aww");
}

TEST(paths_are_taken_apart_as_RBAC_names_them)
{
	static const struct {
		const char *method, *path, *verb, *resource, *namespace, *name;
	} cases[] = {
		{ "GET", "/api/v1/namespaces/x/pods", "list", "pods", "x", "" },
		{ "GET", "/api/v1/namespaces/x/pods/p", "get", "pods", "x", "p" },
		{ "GET", "/api/v1/namespaces/x/pods/p/log?tailLines=1", "get", "pods/log", "x",
		  "p" },
		{ "GET", "/api/v1/namespaces/x/pods?a=b&watch=1", "watch", "pods", "x", "" },
		{ "GET", "/api/v1/namespaces/x", "get", "namespaces", "", "x" },
		{ "PUT", "/api/v1/namespaces/x/finalize", "update", "namespaces/finalize", "",
		  "x" },
		{ "GET", "/api/v1/nodes?x=watch", "list", "nodes", "", "" },
		{ "DELETE", JOBS, "deletecollection", "jobs.batch", "x", "" },
		{ "DELETE", JOBS "/a", "delete", "jobs.batch", "x", "a" },
		{ "PATCH", JOBS "/a/status", "patch", "jobs.batch/status", "x", "a" },
		{ "PUT", JOBS "/a", "update", "jobs.batch", "x", "a" },
		{ "GET", "/version", "list", "", "", "" },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct warm_kube_target t;
		warm_kube_target(cases[i].method, cases[i].path, &t);
		assert_string_equal(t.verb, cases[i].verb);
		assert_string_equal(t.resource, cases[i].resource);
		assert_string_equal(t.namespace, cases[i].namespace);
		assert_string_equal(t.name, cases[i].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_asked_is_told_without_its_query),
		cmocka_unit_test(a_credential_that_isn_t_taken_is_named),
		cmocka_unit_test(a_verb_that_lacks_is_named_with_who_lacks_it_and_how_to_see),
		cmocka_unit_test(what_a_policy_refuses_is_told_in_its_words),
		cmocka_unit_test(an_object_that_lacks_is_told_from_a_kind_that_lacks),
		cmocka_unit_test(a_conflict_is_what_is_there_or_what_has_changed),
		cmocka_unit_test(the_fields_that_are_not_valid_are_named),
		cmocka_unit_test(each_status_of_http_has_its_own),
		cmocka_unit_test(long_and_odd_words_of_a_server_are_cut_and_made_printable),
		cmocka_unit_test(paths_are_taken_apart_as_RBAC_names_them),
	};

	return RUN(tests);
}
