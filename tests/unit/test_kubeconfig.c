/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_server.h"

#include <unistd.h>

#include "lib/kube/kubeconfig.h"

#define scope_config WARM_SCOPE(warm_kube_config_release)
#define PEM "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
#define PEM64 "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="

static void no_kubernetes(void)
{
	no_clouds();
	unsetenv("KUBECONFIG");
	unsetenv("KUBERNETES_SERVICE_HOST");
	unsetenv("KUBERNETES_SERVICE_PORT");
}

/* The server, or "status: message". Static storage. */
static const char *load(struct warm_kube_sources from, struct warm_kube_config *c)
{
	static char text[700];
	struct warm_error err = { 0 };

	warm_kube_config_release(c);
	if (warm_kube_config_load(&from, c, &err) != 0)
		snprintf(text, sizeof(text), "%s: %s", warm_status_name(err.status), err.msg);
	else
		snprintf(text, sizeof(text), "%s", c->server);
	return text;
}

static const char *load_file_of(const char *path, struct warm_kube_config *c)
{
	return load((struct warm_kube_sources){ .kubeconfig = path }, c);
}

static void assert_says(const char *text, const char *part)
{
	assert_non_null(text);
	if (strstr(text, part) == NULL)
		fail_msg("'%s' isn't in: %s", part != NULL ? part : "", text);
}

static const char *named(const char *text)
{
	return text != NULL ? text : "";
}

/* A kubeconfig of one cluster and one user. */
static const char *put_config(const struct scratch *s, const char *name, const char *cluster,
			      const char *user)
{
	char text[4096];

	snprintf(text, sizeof(text),
		 "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
		 "contexts:\n- name: x\n  context: {cluster: c, user: u}\n"
		 "clusters:\n- name: c\n  cluster: {%s}\nusers:\n- name: u\n  user: {%s}\n",
		 cluster, user);
	put_text(s->fd, name, text);
	return scratch_path(s, name);
}

TEST(a_kubeconfig_tells_server_user_and_namespace)
{
	scope_scratch struct scratch s = scratch_open();
	scope_config struct warm_kube_config c = { 0 };

	no_kubernetes();
	put_text(s.fd, "config",
		 "apiVersion: v1\nkind: Config\n# a comment\ncurrent-context: dev\n"
		 "contexts:\n- name: dev\n  context: {cluster: c, user: u, namespace: models}\n"
		 "- name: bare\n  context:\n    cluster: c\n"
		 "clusters:\n- name: c\n  cluster:\n    server: https://k.example:6443/prefix/\n"
		 "    tls-server-name: other\n    proxy-url: socks5://p:1\n"
		 "    certificate-authority-data: " PEM64 "\n"
		 "users:\n- name: u\n  user:\n    token: t\n");
	assert_string_equal(load_file_of(scratch_path(&s, "config"), &c),
			    "https://k.example:6443/prefix");
	assert_string_equal(c.namespace, "models");
	assert_string_equal(c.token, "t");
	assert_string_equal(c.tls_server_name, "other");
	assert_string_equal(c.proxy_url, "socks5://p:1");
	assert_string_equal(c.ca.data, PEM);
	assert_null(c.ca.file);
	assert_false(c.insecure);
	assert_says(c.user_from, "user u of ");
	assert_says(c.user_from, "/config");
	struct warm_kube_sources bare = { .kubeconfig = scratch_path(&s, "config"),
					  .context = "bare" };
	assert_string_equal(load(bare, &c), "https://k.example:6443/prefix");
	assert_string_equal(c.namespace, "default");
	assert_null(c.token);
}

TEST(of_several_files_the_first_that_has_a_thing_counts_as_a_whole)
{
	scope_scratch struct scratch s = scratch_open();
	scope_config struct warm_kube_config c = { 0 };
	char list[1024];

	no_kubernetes();
	put_text(s.fd, "a",
		 "clusters:\n- name: c\n  cluster: {server: \"https://a\"}\n"
		 "users:\n- name: u\n  user: {username: ann}\n");
	put_text(s.fd, "b",
		 "current-context: w\nclusters:\n- name: c\n"
		 "  cluster: {server: \"https://b\", insecure-skip-tls-verify: true}\n"
		 "users:\n- name: u\n  user: {username: bob, password: p}\n"
		 "contexts:\n- name: w\n  context: {cluster: c, user: u}\n");
	put_text(s.fd, "c", "current-context: z\ncontexts:\n- name: w\n  context: {cluster: d}\n");
	snprintf(list, sizeof(list), "%s:%s::%s:%s", scratch_path(&s, "absent"),
		 scratch_path(&s, "a"), scratch_path(&s, "b"), scratch_path(&s, "c"));
	setenv("KUBECONFIG", list, 1);
	assert_string_equal(load((struct warm_kube_sources){ NULL, NULL, NULL }, &c), "https://a");
	assert_false(c.insecure);
	assert_string_equal(c.username, "ann");
	assert_null(c.password);
	assert_says(load((struct warm_kube_sources){ NULL, "q", NULL }, &c),
		    "has no context q; it has: w, w");
	setenv("KUBECONFIG", scratch_path(&s, "absent"), 1);
	assert_says(load((struct warm_kube_sources){ NULL, NULL, NULL }, &c), "not-found: ");
	assert_says(load((struct warm_kube_sources){ NULL, NULL, NULL }, &c), "/absent");
}

TEST(relative_paths_are_beside_their_kubeconfig)
{
	scope_scratch struct scratch s = scratch_open();
	scope_config struct warm_kube_config c = { 0 };

	no_kubernetes();
	put_text(s.fd, "d/ca", PEM);
	put_text(s.fd, "d/pki/cert", PEM);
	put_text(s.fd, "d/pki/key", PEM);
	const char *path =
		put_config(&s, "d/config", "server: \"https://h\", certificate-authority: ca",
			   "client-certificate: pki/cert, client-key: ./pki/key, tokenFile: t");
	assert_string_equal(load_file_of(path, &c), "https://h");
	assert_string_equal(c.ca.file, scratch_path(&s, "d/ca"));
	assert_string_equal(c.cert.file, scratch_path(&s, "d/pki/cert"));
	assert_string_equal(c.key.file, scratch_path(&s, "d/./pki/key"));
	assert_string_equal(c.token_file, scratch_path(&s, "d/t"));
	path = put_config(&s, "d/e", "server: \"https://h\"",
			  "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin}");
	assert_string_equal(load_file_of(path, &c), "https://h");
	assert_string_equal(c.exec_command, scratch_path(&s, "d/./plugin"));
	path = put_config(&s, "d/e", "server: \"https://h\"",
			  "exec: {apiVersion: client.authentication.k8s.io/v1, command: plugin}");
	assert_string_equal(load_file_of(path, &c), "https://h");
	assert_string_equal(c.exec_command, "plugin");
}

TEST(a_server_without_a_scheme_is_tls_where_certificates_say_so)
{
	scope_scratch struct scratch s = scratch_open();
	scope_config struct warm_kube_config c = { 0 };

	no_kubernetes();
	assert_string_equal(load_file_of(put_config(&s, "a", "server: \"h:80\"", ""), &c),
			    "http://h:80");
	assert_string_equal(
		load_file_of(put_config(&s, "b",
					"server: \"h:80\", certificate-authority-data: " PEM64, ""),
			     &c),
		"https://h:80");
}

TEST(what_is_wrong_is_named_with_its_file)
{
	static const struct {
		const char *cluster, *user, *want;
	} cases[] = {
		{ "", "", "cluster c: it has no server" },
		{ "server: 5", "", "cluster c: server is no string" },
		{ "server: \"ftp://h\"", "", "neither https:// nor http://" },
		{ "server: \"https://ann:secret@h\"", "", "its server holds a user" },
		{ "server: \"https://h?x\"", "", "no URL of an API" },
		{ "server: \"https://h\", proxy-url: \"ftp://secret\"", "",
		  "its proxy-url is none" },
		{ "server: \"https://h\", certificate-authority: absent", "",
		  "certificate-authority: open " },
		{ "server: \"https://h\", certificate-authority-data: \"%\"", "",
		  "certificate-authority-data is no base64" },
		{ "server: \"https://h\", certificate-authority-data: c2VjcmV0", "",
		  "certificate-authority-data holds no PEM" },
		{ "server: \"https://h\", insecure-skip-tls-verify: 1", "",
		  "insecure-skip-tls-verify is neither true nor false" },
		{ "server: \"https://h\", insecure-skip-tls-verify: true, "
		  "certificate-authority-data: " PEM64,
		  "", "makes no use of its certificate-authority" },
		{ "server: \"https://h\"", "client-certificate-data: " PEM64,
		  "a client-certificate without a client-key" },
		{ "server: \"https://h\"", "client-key-data: " PEM64,
		  "a client-key without a client-certificate" },
		{ "server: \"https://h\"", "token: secret, username: u", "only one can be used" },
		{ "server: \"https://h\"", "password: secret", "a password without a username" },
		{ "server: \"https://h\"", "auth-provider: {name: gcp}", "auth-provider is gone" },
		{ "server: \"https://h\"",
		  "exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: x}",
		  "v1alpha1: only client.authentication.k8s.io/v1 and v1beta1" },
		{ "server: \"https://h\"", "exec: {apiVersion: client.authentication.k8s.io/v1}",
		  "exec: no command" },
		{ "server: \"https://h\"",
		  "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, env: [{name: "
		  "a}]}",
		  "exec: env[0] has no name and value" },
		{ "server: \"https://h\"",
		  "exec: {apiVersion: client.authentication.k8s.io/v1, command: x, args: [1]}",
		  "exec: args[0] is no string" },
	};
	scope_scratch struct scratch s = scratch_open();
	scope_config struct warm_kube_config c = { 0 };

	no_kubernetes();
	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *path = put_config(&s, "config", cases[i].cluster, cases[i].user);
		const char *text = load_file_of(path, &c);
		assert_says(text, cases[i].want);
		assert_says(text, "invalid: ");
		assert_says(text, path);
		assert_null(strstr(text, "secret"));
		assert_null(strstr(text, "c2Vj"));
	}
}

TEST(a_file_that_is_no_kubeconfig_is_said_to_be_none)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{ "", "invalid: " },
		{ "[1]", "it is no mapping" },
		{ "{", "invalid: kubeconfig: " },
		{ "kind: Pod", "is no kubeconfig: it is Pod" },
		{ "contexts: 5\ncurrent-context: x", "contexts is no list" },
		{ "contexts: []", "has no current-context: name one of its contexts (none)" },
		{ "contexts: [{name: a, context: {cluster: c}}]", "its contexts (a)" },
		{ "current-context: x\ncontexts: [{name: a, context: {}}]",
		  "no context x, which is its current one; it has: a" },
		{ "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]",
		  "context x: its cluster c isn't there" },
		{ "current-context: x\ncontexts: [{name: x, context: {user: c}}]",
		  "context x: it names no cluster" },
		{ "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
		  "clusters: [{name: c, cluster: {server: a}}, {name: c, cluster: {server: b}}]",
		  "cluster c: it is there twice" },
		{ "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: v}}]\n"
		  "clusters: [{name: c, cluster: {server: a}}]",
		  "its user v isn't there" },
		{ "current-context: x\ncontexts: [{name: x, context: {cluster: c, namespace: "
		  "a/b}}]\n"
		  "clusters: [{name: c, cluster: {server: a}}]",
		  "a/b is no name of a namespace" },
	};
	scope_scratch struct scratch s = scratch_open();
	scope_config struct warm_kube_config c = { 0 };

	no_kubernetes();
	for (size_t i = 0; i < COUNT(cases); i++) {
		put_text(s.fd, "config", cases[i].text);
		const char *text = load_file_of(scratch_path(&s, "config"), &c);
		assert_says(text, cases[i].want);
		assert_says(text, "invalid: ");
		assert_says(text, scratch_path(&s, "config"));
	}
	assert_says(load_file_of(scratch_path(&s, "absent"), &c), "not-found: kubeconfig: open ");
}

/* A service account as the kubelet mounts it. */
static struct warm_kube_sources put_account(const struct scratch *s)
{
	put_text(s->fd, "account/token", "t\n");
	put_text(s->fd, "account/ca.crt", PEM);
	put_text(s->fd, "account/namespace", "models\n");
	setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	return (struct warm_kube_sources){ .account_dir = scratch_path(s, "account") };
}

TEST(a_pod_uses_its_service_account)
{
	scope_scratch struct scratch s = scratch_open();
	scope_config struct warm_kube_config c = { 0 };

	no_kubernetes();
	struct warm_kube_sources from = put_account(&s);
	assert_string_equal(load(from, &c), "https://10.0.0.1:443");
	assert_string_equal(c.namespace, "models");
	assert_string_equal(c.token_file, scratch_path(&s, "account/token"));
	assert_string_equal(c.ca.file, scratch_path(&s, "account/ca.crt"));
	assert_string_equal(c.user_from, "the pod's service account");
	setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
	assert_string_equal(load(from, &c), "https://[fd00::1]:443");
}

TEST(a_pod_s_account_goes_behind_the_home_directory_and_KUBECONFIG)
{
	scope_scratch struct scratch s = scratch_open();
	scope_config struct warm_kube_config c = { 0 };

	no_kubernetes();
	struct warm_kube_sources from = put_account(&s);
	put_config(&s, ".kube/config", "server: \"https://home\"", "");
	put_config(&s, "other", "server: \"https://other\"", "");
	assert_string_equal(load(from, &c), "https://10.0.0.1:443");
	setenv("HOME", s.path, 1);
	assert_string_equal(load(from, &c), "https://home");
	assert_string_equal(named(c.token_file), "");
	setenv("KUBECONFIG", scratch_path(&s, "other"), 1);
	assert_string_equal(load(from, &c), "https://other");
	setenv("KUBECONFIG", "", 1);
	assert_string_equal(load(from, &c), "https://home");
	from.context = "absent";
	assert_says(load(from, &c), "has no context absent");
}

TEST(where_nothing_is_all_places_are_named)
{
	scope_scratch struct scratch s = scratch_open();
	scope_config struct warm_kube_config c = { 0 };

	no_kubernetes();
	setenv("HOME", s.path, 1);
	struct warm_kube_sources none = { NULL, NULL, NULL };
	const char *text = load(none, &c);
	assert_says(text, "not-found: no Kubernetes configuration: KUBECONFIG isn't set");
	assert_says(text, "this is no pod");
	assert_says(text, "/.kube/config");
	struct warm_kube_sources from = put_account(&s);
	assert_int_equal(unlinkat(s.fd, "account/token", 0), 0);
	text = load(from, &c);
	assert_says(text, "not-found: ");
	assert_says(text, "no token of a service account");
	assert_says(text, "automountServiceAccountToken");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_kubeconfig_tells_server_user_and_namespace),
		cmocka_unit_test(of_several_files_the_first_that_has_a_thing_counts_as_a_whole),
		cmocka_unit_test(relative_paths_are_beside_their_kubeconfig),
		cmocka_unit_test(a_server_without_a_scheme_is_tls_where_certificates_say_so),
		cmocka_unit_test(what_is_wrong_is_named_with_its_file),
		cmocka_unit_test(a_file_that_is_no_kubeconfig_is_said_to_be_none),
		cmocka_unit_test(a_pod_uses_its_service_account),
		cmocka_unit_test(a_pod_s_account_goes_behind_the_home_directory_and_KUBECONFIG),
		cmocka_unit_test(where_nothing_is_all_places_are_named),
	};

	return RUN(tests);
}
