/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/kube/credential.h"

#define scope_credential WARM_SCOPE(warm_kube_credential_release)
#define V1 "client.authentication.k8s.io/v1"
#define SAYS(version, status)                                                                   \
	"echo '{\"apiVersion\":\"" version "\",\"kind\":\"ExecCredential\",\"status\":{" status \
	"}}'"

static void assert_says(const char *text, const char *part)
{
	assert_non_null(text);
	if (strstr(text, part) == NULL)
		fail_msg("'%s' isn't in: %s", part != NULL ? part : "", text);
}

/* A configuration with a plugin that is a script of `lines`; more of `exec` as JSON members. */
static void with_plugin(const struct scratch *s, const char *lines, const char *more,
			struct warm_kube_config *c)
{
	char script[2048], text[4096];

	no_clouds();
	snprintf(script, sizeof(script), "#!/bin/sh\necho run >>%s\n%s\n", scratch_path(s, "runs"),
		 lines);
	put_text(s->fd, "plugin", script);
	assert_int_equal(chmod(scratch_path(s, "plugin"), 0755), 0);
	snprintf(
		text, sizeof(text),
		"{\"current-context\":\"x\",\"contexts\":[{\"name\":\"x\",\"context\":{\"cluster\":"
		"\"c\",\"user\":\"u\"}}],\"clusters\":[{\"name\":\"c\",\"cluster\":{\"server\":"
		"\"https://h:1\",\"tls-server-name\":\"n\",\"extensions\":[{\"name\":"
		"\"client.authentication.k8s.io/exec\",\"extension\":{\"a\":1}}]}}],\"users\":[{"
		"\"name\":\"u\",\"user\":{\"exec\":{\"apiVersion\":\"" V1
		"\",\"interactiveMode\":\"Never\",\"command\":\"./plugin\"%s}}}]}",
		more);
	put_text(s->fd, "config", text);
	struct warm_kube_sources from = { .kubeconfig = scratch_path(s, "config") };
	struct warm_error err = { 0 };
	if (warm_kube_config_load(&from, c, &err) != 0)
		fail_msg("%s", err.msg);
}

static size_t runs(const struct scratch *s)
{
	size_t bytes = 0;

	free(text_of(s->fd, "runs", &bytes));
	return bytes / strlen("run\n");
}

/* What a run gives: its error's message, "" for none. */
static const char *failure(const struct scratch *s, const char *lines)
{
	static char text[600];
	scope_kube_config struct warm_kube_config config = { 0 };
	scope_credential struct warm_kube_credential c = { .config = &config };
	struct warm_error err = { 0 };

	with_plugin(s, lines, "", &config);
	int rc = warm_kube_credential_get(&c, NULL, &err);
	snprintf(text, sizeof(text), "%s: %s", warm_status_name(rc), rc != 0 ? err.msg : "");
	return text;
}

TEST(a_plugin_gives_a_token_that_is_kept)
{
	scope_scratch struct scratch s = scratch_open();
	scope_kube_config struct warm_kube_config config = { 0 };
	scope_credential struct warm_kube_credential c = { .config = &config };
	bool again = false;

	with_plugin(&s, SAYS(V1, "\"token\":\"t'$(cat count 2>/dev/null)'\""), "", &config);
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_string_equal(c.token, "t");
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_int_equal(runs(&s), 1);
	assert_int_equal(warm_kube_credential_renew(&c, &again, NULL, NULL), 0);
	assert_true(again);
	assert_int_equal(runs(&s), 2);
}

TEST(what_has_expired_is_asked_for_again)
{
	scope_scratch struct scratch s = scratch_open();
	scope_kube_config struct warm_kube_config config = { 0 }, later = { 0 };
	scope_credential struct warm_kube_credential c = { .config = &config };

	with_plugin(&s,
		    SAYS(V1, "\"token\":\"t\",\"expirationTimestamp\":\"2020-01-01T00:00:00Z\""),
		    "", &config);
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_int_equal(runs(&s), 2);
	with_plugin(
		&s,
		SAYS(V1, "\"token\":\"t\",\"expirationTimestamp\":\"2120-01-01T00:00:00+02:00\""),
		"", &later);
	c.config = &later;
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_int_equal(runs(&s), 3);
}

TEST(a_plugin_may_give_a_certificate)
{
	scope_scratch struct scratch s = scratch_open();
	scope_kube_config struct warm_kube_config config = { 0 };
	scope_credential struct warm_kube_credential c = { .config = &config };

	with_plugin(&s, SAYS(V1, "\"clientCertificateData\":\"C\",\"clientKeyData\":\"K\""), "",
		    &config);
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_null(c.token);
	assert_string_equal(c.cert, "C");
	assert_string_equal(c.key, "K");
}

TEST(a_plugin_gets_its_arguments_and_environment)
{
	scope_scratch struct scratch s = scratch_open();
	scope_kube_config struct warm_kube_config config = { 0 };
	scope_credential struct warm_kube_credential c = { .config = &config };
	size_t bytes = 0;
	char lines[600];

	setenv("PLUGIN_INHERITED", "kept", 1);
	setenv("PLUGIN_SET", "hidden", 1);
	snprintf(lines, sizeof(lines),
		 "printf '%%s|' \"$@\" \"$PLUGIN_SET\" \"$PLUGIN_INHERITED\" "
		 "\"$KUBERNETES_EXEC_INFO\" >%s\nread line && exit 9\n%s",
		 scratch_path(&s, "seen"), SAYS(V1, "\"token\":\"t\""));
	with_plugin(&s, lines,
		    ",\"args\":[\"a b\",\"c\"],\"env\":[{\"name\":\"PLUGIN_SET\",\"value\":\"v\"}],"
		    "\"provideClusterInfo\":true",
		    &config);
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	scope_free char *seen = text_of(s.fd, "seen", &bytes);
	assert_string_equal(seen,
			    "a b|c|v|kept|{\"apiVersion\":\"" V1
			    "\",\"kind\":\"ExecCredential\",\"spec\":{\"interactive\":false,"
			    "\"cluster\":{\"server\":\"https://h:1\",\"tls-server-name\":\"n\","
			    "\"config\":{\"a\":1}}}}|");
}

TEST(a_plugin_that_fails_is_named_and_what_it_gave_is_not_told)
{
	static const struct {
		const char *lines, *want;
	} cases[] = {
		{ "exit 3", "failed with exit code 3" },
		{ "kill -9 $$", "was ended by signal 9" },
		{ "echo secret", "gives no JSON" },
		{ "echo '{\"secret\":1}'", "gives no ExecCredential" },
		{ SAYS("client.authentication.k8s.io/v1beta1", "\"token\":\"secret\""),
		  "gives another apiVersion than client.authentication.k8s.io/v1" },
		{ SAYS(V1, ""), "gives neither a token nor a certificate" },
		{ SAYS(V1, "\"token\":\"secret X: 1\""), "gives neither a token" },
		{ SAYS(V1, "\"clientKeyData\":\"secret\""), "gives neither a token" },
		{ SAYS(V1, "\"token\":\"secret\",\"expirationTimestamp\":\"soon\""),
		  "an expirationTimestamp that is no time" },
		{ "head -c 2000000 /dev/zero", "prints over 1048576 bytes" },
	};
	scope_scratch struct scratch s = scratch_open();

	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *text = failure(&s, cases[i].lines);
		assert_says(text, "denied: the plugin ");
		assert_says(text, "/plugin (user u of ");
		assert_says(text, cases[i].want);
		assert_null(strstr(text, "secret"));
	}
}

TEST(a_plugin_that_isn_t_there_is_told_with_its_hint)
{
	scope_scratch struct scratch s = scratch_open();
	scope_kube_config struct warm_kube_config config = { 0 };
	scope_credential struct warm_kube_credential c = { .config = &config };
	struct warm_error err = { 0 };

	with_plugin(&s, "", ",\"installHint\":\"get it at x\"", &config);
	assert_int_equal(unlinkat(s.fd, "plugin", 0), 0);
	assert_int_equal(warm_kube_credential_get(&c, NULL, &err), WARM_DENIED);
	assert_says(err.msg, "can't be run: No such file or directory; get it at x");
}

TEST(a_plugin_that_hangs_is_ended_with_the_call)
{
	scope_scratch struct scratch s = scratch_open();
	scope_kube_config struct warm_kube_config config = { 0 };
	scope_credential struct warm_kube_credential c = { .config = &config };
	struct warm_error err = { 0 };
	int64_t start = warm_clock_ms();
	struct warm_call call = { .deadline_ms = start + 300 };

	with_plugin(&s, "exec sleep 60", "", &config);
	assert_int_equal(warm_kube_credential_get(&c, &call, &err), WARM_CANCELED);
	assert_true(warm_clock_ms() - start < 3000);
	call.deadline_ms = warm_clock_ms() + 300;
	warm_kube_config_release(&config);
	with_plugin(&s, "exec >&-; exec sleep 60", "", &config);
	assert_int_equal(warm_kube_credential_get(&c, &call, &err), WARM_CANCELED);
	assert_true(warm_clock_ms() - start < 6000);
}

TEST(a_child_of_a_plugin_that_stays_holds_nobody)
{
	scope_scratch struct scratch s = scratch_open();
	scope_kube_config struct warm_kube_config config = { 0 };
	scope_credential struct warm_kube_credential c = { .config = &config };
	int64_t start = warm_clock_ms();

	with_plugin(&s, "sleep 5 &\n" SAYS(V1, "\"token\":\"t\""), "", &config);
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_string_equal(c.token, "t");
	assert_true(warm_clock_ms() - start < 3000);
}

TEST(blocked_and_ignored_signals_stay_with_us)
{
	scope_scratch struct scratch s = scratch_open();
	scope_kube_config struct warm_kube_config config = { 0 };
	scope_credential struct warm_kube_credential c = { .config = &config };
	sigset_t block, old;

	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	assert_int_equal(sigprocmask(SIG_BLOCK, &block, &old), 0);
	signal(SIGTERM, SIG_IGN);
	with_plugin(&s, "kill -TERM $$\n" SAYS(V1, "\"token\":\"t\""), "", &config);
	struct warm_error err = { 0 };
	assert_int_equal(warm_kube_credential_get(&c, NULL, &err), WARM_DENIED);
	assert_says(err.msg, "ended by signal 15");
	signal(SIGTERM, SIG_DFL);
	assert_int_equal(sigprocmask(SIG_SETMASK, &old, NULL), 0);
}

TEST(a_token_s_file_is_read_again_when_it_is_old_or_refused)
{
	scope_scratch struct scratch s = scratch_open();
	char *path = strdup(scratch_path(&s, "token")), from[] = "user u of f";
	struct warm_kube_config config = { .token_file = path, .user_from = from };
	scope_credential struct warm_kube_credential c = { .config = &config };
	struct warm_error err = { 0 };
	bool again = true;

	assert_int_equal(warm_kube_credential_get(&c, NULL, &err), WARM_DENIED);
	assert_says(err.msg, "the token of user u of f: open ");
	put_text(s.fd, "token", "two words");
	assert_int_equal(warm_kube_credential_get(&c, NULL, &err), WARM_DENIED);
	assert_says(err.msg, "holds no token");
	assert_null(strstr(err.msg, "words"));
	put_text(s.fd, "token", "t1\n");
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_string_equal(c.token, "t1");
	put_text(s.fd, "token", "t2\n");
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_string_equal(c.token, "t1");
	c.read_ms -= 60 * 1000;
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_string_equal(c.token, "t2");
	assert_int_equal(warm_kube_credential_renew(&c, &again, NULL, NULL), 0);
	assert_false(again);
	put_text(s.fd, "token", "t3\n");
	assert_int_equal(warm_kube_credential_renew(&c, &again, NULL, NULL), 0);
	assert_true(again);
	assert_int_equal(unlinkat(s.fd, "token", 0), 0);
	c.read_ms -= 60 * 1000;
	assert_int_equal(warm_kube_credential_get(&c, NULL, NULL), 0);
	assert_string_equal(c.token, "t3");
	assert_int_equal(warm_kube_credential_renew(&c, &again, NULL, NULL), 0);
	assert_false(again);
	assert_string_equal(c.token, "t3");
	free(path);
}

TEST(times_are_read_with_their_zone)
{
	assert_int_equal(warm_kube_parse_time("1970-01-01T00:00:01Z"), 1000);
	assert_int_equal(warm_kube_parse_time("1970-01-01T02:00:01.25+02:00"), 1250);
	assert_int_equal(warm_kube_parse_time("1969-12-31T23:30:01.123456789-00:30"), 1123);
	assert_int_equal(warm_kube_parse_time("1970-01-01T00:00:01"), -1);
	assert_int_equal(warm_kube_parse_time("1970-01-01T00:00:01+2"), -1);
	assert_int_equal(warm_kube_parse_time("soon"), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plugin_gives_a_token_that_is_kept),
		cmocka_unit_test(what_has_expired_is_asked_for_again),
		cmocka_unit_test(a_plugin_may_give_a_certificate),
		cmocka_unit_test(a_plugin_gets_its_arguments_and_environment),
		cmocka_unit_test(a_plugin_that_fails_is_named_and_what_it_gave_is_not_told),
		cmocka_unit_test(a_plugin_that_isn_t_there_is_told_with_its_hint),
		cmocka_unit_test(a_plugin_that_hangs_is_ended_with_the_call),
		cmocka_unit_test(a_child_of_a_plugin_that_stays_holds_nobody),
		cmocka_unit_test(blocked_and_ignored_signals_stay_with_us),
		cmocka_unit_test(a_token_s_file_is_read_again_when_it_is_old_or_refused),
		cmocka_unit_test(times_are_read_with_their_zone),
	};

	return RUN(tests);
}
