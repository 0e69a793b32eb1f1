/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kube/credential.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/base/buf.h"
#include "lib/base/file.h"

enum {
	TOKEN_BYTES = 64 << 10,
	PEM_BYTES = 1 << 20,
	ANSWER_BYTES = 1 << 20, /* of a plugin */
	FILE_MS = 60 * 1000,	/* a token's file is read again after this */
	SOON_MS = 10 * 1000,	/* what expires so soon has expired */
	POLL_MS = 50,
};

extern char **environ;

static void forget(char **secret)
{
	if (*secret != NULL)
		OPENSSL_cleanse(*secret, strlen(*secret));
	free(take_ptr(*secret));
}

void warm_kube_credential_release(struct warm_kube_credential *c)
{
	forget(&c->token);
	forget(&c->cert);
	forget(&c->key);
	c->read_ms = c->expires_ms = 0;
	c->asked = false;
}

static void scope_secret_fn(char **secret)
{
	forget(secret);
}
#define scope_secret WARM_SCOPE(scope_secret_fn)

static const char *plugin_name(const struct warm_kube_config *config)
{
	return warm_path_base(config->exec_command);
}

const char *warm_kube_credential_name(const struct warm_kube_credential *c, char *ret_text,
				      size_t bytes)
{
	const struct warm_kube_config *f = c->config;
	bool cert = f->cert.file != NULL || f->cert.data != NULL;

	if (f->token_file != NULL)
		snprintf(ret_text, bytes, "the token of %s (%s)", f->token_file, f->user_from);
	else if (f->exec != NULL)
		snprintf(ret_text, bytes, "what the plugin %s gave (%s)", plugin_name(f),
			 f->user_from);
	else if (f->token != NULL)
		snprintf(ret_text, bytes, "the token of %s", f->user_from);
	else if (f->username != NULL)
		snprintf(ret_text, bytes, "username and password of %s", f->user_from);
	else if (cert)
		snprintf(ret_text, bytes, "the client certificate%s%s of %s",
			 f->cert.file != NULL ? " " : "", f->cert.file != NULL ? f->cert.file : "",
			 f->user_from);
	else
		snprintf(ret_text, bytes, "no credential at all: %s has none", f->user_from);
	return ret_text;
}

/* ---- time ---- */

static int two_digits(const char *p)
{
	if (p[0] < '0' || p[0] > '9' || p[1] < '0' || p[1] > '9')
		return -1;
	return (p[0] - '0') * 10 + p[1] - '0';
}

int64_t warm_kube_parse_time(const char *text)
{
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (rest == NULL)
		return -1;
	int64_t ms = (int64_t)timegm(&tm) * 1000;
	if (rest[0] == '.') {
		int unit = 100;
		for (rest++; rest[0] >= '0' && rest[0] <= '9'; rest++, unit /= 10)
			ms += (rest[0] - '0') * unit;
	}
	if (strcmp(rest, "Z") == 0)
		return ms;
	if ((rest[0] != '+' && rest[0] != '-') || strlen(rest) != 6 || rest[3] != ':')
		return -1;
	int hours = two_digits(rest + 1), minutes = two_digits(rest + 4);
	if (hours < 0 || minutes < 0)
		return -1;
	int64_t offset_ms = (int64_t)(hours * 60 + minutes) * 60 * 1000;
	return rest[0] == '+' ? ms - offset_ms : ms + offset_ms;
}

/* ---- tokens ---- */

/* It becomes a line of a header. */
static bool is_token(const char *text)
{
	if (text[0] == '\0')
		return false;
	for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++)
		if (*p <= ' ' || *p >= 0x7f)
			return false;
	return true;
}

static int read_token(struct warm_kube_credential *c, struct warm_error *err)
{
	const char *path = c->config->token_file;
	struct warm_error why = { 0 };
	scope_secret char *token = NULL;
	size_t bytes = 0;
	int rc = warm_file_load(AT_FDCWD, path, TOKEN_BYTES, &token, &bytes, &why);

	if (rc == 0) {
		while (bytes > 0 && strchr(" \t\r\n", token[bytes - 1]) != NULL)
			token[--bytes] = '\0';
		if (strlen(token) != bytes || !is_token(token))
			rc = warm_error_set(&why, WARM_DENIED, "%s holds no token", path);
	}
	c->read_ms = warm_clock_ms();
	if (rc != 0 && c->token != NULL)
		return 0;
	if (rc == WARM_NO_MEMORY)
		return warm_error_nomem(err, TOKEN_BYTES);
	/* Not there is nothing that a caller expects. */
	if (rc != 0)
		return warm_error_set(err, WARM_DENIED, "the token of %.200s: %.240s",
				      c->config->user_from, why.msg);
	forget(&c->token);
	c->token = take_ptr(token);
	return 0;
}

static int keep_token(struct warm_kube_credential *c, struct warm_error *err)
{
	if (c->token != NULL)
		return 0;
	if (!is_token(c->config->token))
		return warm_error_set(err, WARM_DENIED,
				      "the token of %.300s holds what no token holds",
				      c->config->user_from);
	c->token = strdup(c->config->token);
	return c->token == NULL ? warm_error_nomem(err, TOKEN_BYTES) : 0;
}

/* ---- plugins ---- */

static const char *exec_text(const struct warm_kube_config *f, const char *name)
{
	const char *text = json_string_value(json_object_get(f->exec, name));

	return text != NULL ? text : "";
}

static int bad_plugin(const struct warm_kube_credential *c, struct warm_error *err, const char *fmt,
		      ...) WARM_PRINTF(3, 4);

static int bad_plugin(const struct warm_kube_credential *c, struct warm_error *err, const char *fmt,
		      ...)
{
	const char *hint = exec_text(c->config, "installHint");
	char why[200], clean[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	warm_path_printable(hint, clean, sizeof(clean));
	return warm_error_set(err, WARM_DENIED, "the plugin %.100s (%.120s) %s%s%s",
			      c->config->exec_command, c->config->user_from, why,
			      clean[0] != '\0' ? "; " : "", clean);
}

/* "certificate-authority-data" as a plugin wants it: base64 of the PEM. */
static json_t *ca_of(const struct warm_kube_config *f, struct warm_error *err, int *ret_rc)
{
	scope_free char *loaded = NULL, *text = NULL;
	const char *pem = f->ca.data;
	size_t bytes = 0;

	if (pem == NULL && f->ca.file != NULL) {
		*ret_rc = warm_file_load(AT_FDCWD, f->ca.file, PEM_BYTES, &loaded, &bytes, err);
		if (*ret_rc != 0)
			return NULL;
		pem = loaded;
	}
	if (pem == NULL)
		return NULL;
	bytes = strlen(pem);
	text = malloc((bytes + 2) / 3 * 4 + 1);
	if (text != NULL)
		EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)pem, (int)bytes);
	json_t *value = text != NULL ? json_string(text) : NULL;
	if (value == NULL)
		*ret_rc = warm_error_nomem(err, bytes);
	return value;
}

/* Set unless NULL; false: no memory. */
static bool set_text(json_t *object, const char *name, const char *text)
{
	return text == NULL || json_object_set_new(object, name, json_string(text)) == 0;
}

static int tell_cluster(const struct warm_kube_config *f, json_t *spec, struct warm_error *err)
{
	json_t *cluster = json_object();
	int rc = 0;
	json_t *ca = ca_of(f, err, &rc);

	if (rc != 0) {
		json_decref(cluster);
		return rc;
	}
	bool good =
		cluster != NULL && set_text(cluster, "server", f->server) &&
		set_text(cluster, "tls-server-name", f->tls_server_name) &&
		set_text(cluster, "proxy-url", f->proxy_url) &&
		(!f->insecure ||
		 json_object_set_new(cluster, "insecure-skip-tls-verify", json_true()) == 0) &&
		(ca == NULL || json_object_set(cluster, "certificate-authority-data", ca) == 0) &&
		(f->exec_config == NULL || json_object_set(cluster, "config", f->exec_config) == 0);
	json_decref(ca);
	if (!good || json_object_set(spec, "cluster", cluster) != 0)
		rc = warm_error_nomem(err, PEM_BYTES);
	json_decref(cluster);
	return rc;
}

/* What KUBERNETES_EXEC_INFO says. */
static int make_info(const struct warm_kube_config *f, bool interactive, char **ret_text,
		     struct warm_error *err)
{
	json_t *spec = json_pack("{s:b}", "interactive", interactive);
	json_t *info = spec != NULL ? json_pack("{s:s, s:s, s:O}", "apiVersion",
						exec_text(f, "apiVersion"), "kind",
						"ExecCredential", "spec", spec)
				    : NULL;
	scope_free char *json = NULL;
	int rc = info == NULL ? warm_error_nomem(err, PEM_BYTES) : 0;

	if (rc == 0 && json_is_true(json_object_get(f->exec, "provideClusterInfo")))
		rc = tell_cluster(f, spec, err);
	if (rc == 0 && (json = json_dumps(info, JSON_COMPACT)) == NULL)
		rc = warm_error_nomem(err, PEM_BYTES);
	json_decref(info);
	json_decref(spec);
	if (rc == 0 && (*ret_text = warm_kube_join("KUBERNETES_EXEC_INFO=", json)) == NULL)
		rc = warm_error_nomem(err, PEM_BYTES);
	return rc;
}

struct strings {
	char **items; /* ends in NULL */
	size_t n;
};

static void strings_release(struct strings *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->items[i]);
	free(s->items);
}
#define scope_strings WARM_SCOPE(strings_release)

/* Takes `text` over, NULL too: out of memory. */
static int add_string(struct strings *s, char *text, struct warm_error *err)
{
	char **more = text != NULL ? realloc(s->items, (s->n + 2) * sizeof(*more)) : NULL;

	if (more == NULL) {
		free(text);
		return warm_error_nomem(err, (s->n + 2) * sizeof(*more));
	}
	s->items = more;
	more[s->n++] = text;
	more[s->n] = NULL;
	return 0;
}

static int make_args(const struct warm_kube_config *f, struct strings *args, struct warm_error *err)
{
	int rc = add_string(args, strdup(f->exec_command), err);
	size_t i;
	json_t *item;

	json_array_foreach(json_object_get(f->exec, "args"), i, item)
		if (rc == 0)
			rc = add_string(args, strdup(json_string_value(item)), err);
	return rc;
}

static bool is_set(const struct strings *env, const char *variable)
{
	size_t n = strcspn(variable, "=") + 1;

	for (size_t i = 0; i < env->n; i++)
		if (strncmp(env->items[i], variable, n) == 0)
			return true;
	return false;
}

static int make_env(const struct warm_kube_config *f, bool interactive, struct strings *env,
		    struct warm_error *err)
{
	char *info = NULL;
	int rc = make_info(f, interactive, &info, err);
	size_t i;
	json_t *item;

	if (rc == 0)
		rc = add_string(env, info, err);
	json_array_foreach(json_object_get(f->exec, "env"), i, item) {
		char *text = NULL;
		if (rc != 0)
			break;
		if (asprintf(&text, "%s=%s", json_string_value(json_object_get(item, "name")),
			     json_string_value(json_object_get(item, "value"))) < 0)
			text = NULL;
		if (text != NULL && is_set(env, text))
			free(text);
		else
			rc = add_string(env, text, err);
	}
	for (char **e = environ; rc == 0 && *e != NULL; e++)
		if (!is_set(env, *e))
			rc = add_string(env, strdup(*e), err);
	return rc;
}

/* Its stderr is ours: a person may have to follow a link that it tells. */
static int spawn(const struct warm_kube_config *f, const struct strings *args,
		 const struct strings *env, bool interactive, int out_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, usual;
	int rc = posix_spawn_file_actions_init(&files);

	if (rc != 0)
		return rc;
	rc = posix_spawnattr_init(&attr);
	if (rc != 0) {
		posix_spawn_file_actions_destroy(&files);
		return rc;
	}
	sigemptyset(&none);
	sigemptyset(&usual);
	sigaddset(&usual, SIGPIPE);
	sigaddset(&usual, SIGCHLD);
	sigaddset(&usual, SIGTERM);
	sigaddset(&usual, SIGINT);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &usual);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (!interactive)
		rc = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(&files, out_fd, 1);
	if (rc == 0)
		rc = posix_spawnp(ret_pid, f->exec_command, &files, &attr, args->items, env->items);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	return rc;
}

/* One piece of what it prints: 1 when there is no more, 0 to go on. */
static int take_output(int fd, int wait_ms, struct warm_buf *out, struct warm_error *err)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char data[4096];

	if (poll(&p, 1, wait_ms) <= 0)
		return 0;
	ssize_t n = read(fd, data, sizeof(data));
	if (n < 0)
		return errno == EINTR ? 0 : warm_error_errno(err, errno, "read");
	warm_buf_put(out, data, (size_t)n);
	OPENSSL_cleanse(data, sizeof(data));
	if (out->bytes > ANSWER_BYTES)
		return warm_error_set(err, WARM_LIMIT, "it prints over %d bytes", ANSWER_BYTES);
	return n == 0;
}

/* Until it has ended, whoever of its children may hold its output open still. */
static int await(pid_t pid, int fd, struct warm_buf *out, int *ret_status,
		 const struct warm_call *call, struct warm_error *err)
{
	bool ended = false;
	int rc = 0;

	while (rc == 0 && !ended) {
		ended = waitpid(pid, ret_status, WNOHANG) != 0;
		rc = take_output(fd, ended ? 0 : POLL_MS, out, err);
		while (rc == 0 && ended) {
			size_t before = out->bytes;
			rc = take_output(fd, 0, out, err);
			if (rc == 0 && out->bytes == before)
				break;
		}
		if (rc == 0 && !ended)
			rc = warm_call_check(call, err);
	}
	while (rc == 1 && !ended) { /* it has closed its output and goes on */
		struct timespec nap = { .tv_nsec = 1000 * 1000 };
		ended = waitpid(pid, ret_status, WNOHANG) != 0;
		if (!ended && warm_call_check(call, err) != 0)
			rc = WARM_CANCELED;
		else if (!ended)
			nanosleep(&nap, NULL);
	}
	if (!ended) {
		kill(pid, SIGKILL);
		waitpid(pid, ret_status, 0);
	}
	return rc < 0 ? rc : 0;
}

static int run_plugin(const struct warm_kube_credential *c, struct warm_buf *out,
		      const struct warm_call *call, struct warm_error *err)
{
	scope_strings struct strings args = { 0 }, env = { 0 };
	const char *mode = exec_text(c->config, "interactiveMode");
	bool interactive = strcmp(mode, "Never") != 0 && isatty(0);
	struct warm_error why = { 0 };
	int fds[2], status = 0;
	pid_t pid = 0;

	if (strcmp(mode, "Always") == 0 && !interactive)
		return bad_plugin(c, err, "wants a terminal, and there is none");
	int rc = make_args(c->config, &args, err);
	if (rc == 0)
		rc = make_env(c->config, interactive, &env, err);
	if (rc != 0 || args.items == NULL || env.items == NULL)
		return rc;
	if (pipe2(fds, O_CLOEXEC) != 0)
		return warm_error_errno(err, errno, "pipe");
	int failed = spawn(c->config, &args, &env, interactive, fds[1], &pid);
	close(fds[1]);
	scope_close int fd = fds[0];
	if (failed == ENOMEM)
		return warm_error_nomem(err, env.n);
	if (failed != 0)
		return bad_plugin(c, err, "can't be run: %.80s", strerror(failed));
	rc = await(pid, fd, out, &status, call, &why);
	if (rc == WARM_CANCELED) {
		return warm_error_set(err, WARM_CANCELED, "the plugin %.100s (%.120s): %.100s",
				      c->config->exec_command, c->config->user_from, why.msg);
	}
	if (rc != 0)
		return bad_plugin(c, err, "failed: %.100s", why.msg);
	if (out->failed)
		return warm_error_nomem(err, ANSWER_BYTES);
	if (WIFSIGNALED(status))
		return bad_plugin(c, err, "was ended by signal %d", WTERMSIG(status));
	if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
		return bad_plugin(c, err, "failed with exit code %d; what it said is on stderr",
				  WEXITSTATUS(status));
	return 0;
}

static int copy_text(const json_t *status, const char *name, char **ret_text,
		     struct warm_error *err)
{
	const char *text = json_string_value(json_object_get(status, name));

	if (text == NULL || text[0] == '\0')
		return 0;
	*ret_text = strdup(text);
	return *ret_text == NULL ? warm_error_nomem(err, strlen(text)) : 0;
}

static int take_answer(struct warm_kube_credential *c, const json_t *answer, struct warm_error *err)
{
	const json_t *status = json_object_get(answer, "status");
	const char *version = json_string_value(json_object_get(answer, "apiVersion"));
	const char *kind = json_string_value(json_object_get(answer, "kind"));
	const char *expires = json_string_value(json_object_get(status, "expirationTimestamp"));
	scope_secret char *token = NULL, *cert = NULL, *key = NULL;
	int64_t expires_ms = expires != NULL ? warm_kube_parse_time(expires) : 0;

	if (kind == NULL || strcmp(kind, "ExecCredential") != 0)
		return bad_plugin(c, err, "gives no ExecCredential");
	if (version == NULL || strcmp(version, exec_text(c->config, "apiVersion")) != 0)
		return bad_plugin(c, err, "gives another apiVersion than %.60s",
				  exec_text(c->config, "apiVersion"));
	if (expires_ms < 0)
		return bad_plugin(c, err, "gives an expirationTimestamp that is no time");
	int rc = copy_text(status, "token", &token, err);
	if (rc == 0)
		rc = copy_text(status, "clientCertificateData", &cert, err);
	if (rc == 0)
		rc = copy_text(status, "clientKeyData", &key, err);
	if (rc != 0)
		return rc;
	if ((token == NULL && cert == NULL) || (cert == NULL) != (key == NULL) ||
	    (token != NULL && !is_token(token)))
		return bad_plugin(c, err, "gives neither a token nor a certificate with its key");
	warm_kube_credential_release(c);
	c->token = take_ptr(token);
	c->cert = take_ptr(cert);
	c->key = take_ptr(key);
	c->asked = true;
	c->expires_ms = expires_ms;
	return 0;
}

static int ask_plugin(struct warm_kube_credential *c, const struct warm_call *call,
		      struct warm_error *err)
{
	struct warm_buf out = WARM_BUF_INIT;
	json_error_t why;
	int rc = run_plugin(c, &out, call, err);

	if (rc == 0) {
		json_t *answer = json_loadb(out.bytes > 0 ? (const char *)out.data : "", out.bytes,
					    0, &why);
		if (answer != NULL)
			rc = take_answer(c, answer, err);
		else if (warm_kube_no_memory(&why))
			rc = warm_error_nomem(err, out.bytes);
		else
			rc = bad_plugin(c, err, "gives no JSON");
		json_decref(answer);
	}
	if (out.data != NULL)
		OPENSSL_cleanse(out.data, out.bytes);
	warm_buf_release(&out);
	return rc;
}

static bool has_expired(const struct warm_kube_credential *c)
{
	return c->expires_ms != 0 && warm_clock_wall_ms() + SOON_MS >= c->expires_ms;
}

int warm_kube_credential_get(struct warm_kube_credential *c, const struct warm_call *call,
			     struct warm_error *err)
{
	const struct warm_kube_config *f = c->config;

	if (f->token_file != NULL) {
		bool old = c->token == NULL || warm_clock_ms() - c->read_ms >= FILE_MS;
		return old ? read_token(c, err) : 0;
	}
	if (f->exec != NULL)
		return c->asked && !has_expired(c) ? 0 : ask_plugin(c, call, err);
	return f->token != NULL ? keep_token(c, err) : 0;
}

int warm_kube_credential_renew(struct warm_kube_credential *c, bool *ret_again,
			       const struct warm_call *call, struct warm_error *err)
{
	scope_secret char *old = NULL;

	*ret_again = false;
	if (c->config->exec != NULL) {
		int rc = ask_plugin(c, call, err);
		*ret_again = rc == 0;
		return rc;
	}
	if (c->config->token_file == NULL)
		return 0;
	old = take_ptr(c->token);
	int rc = read_token(c, NULL);
	if (rc != 0) {
		c->token = take_ptr(old);
		return rc == WARM_NO_MEMORY ? warm_error_nomem(err, TOKEN_BYTES) : 0;
	}
	*ret_again = c->token != NULL && (old == NULL || strcmp(old, c->token) != 0);
	return 0;
}
