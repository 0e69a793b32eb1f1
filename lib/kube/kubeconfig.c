/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/kube/kubeconfig.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/base/buf.h"
#include "lib/base/file.h"
#include "lib/kube/yaml.h"

enum { PEM_BYTES = 1 << 20, NAMESPACE_BYTES = 63 };

#define ACCOUNT_DIR "/var/run/secrets/kubernetes.io/serviceaccount"
#define EXEC_EXTENSION "client.authentication.k8s.io/exec"

/* A kubeconfig that has been read. */
struct file {
	char *path, *text;
	struct warm_yaml *yaml;
	const json_t *root; /* NULL: an empty one */
};

struct files {
	struct file *items;
	size_t n;
};

/* One cluster, user or context, and the file that it stands in. */
struct entry {
	const char *kind, *name, *path;
	const json_t *value;
};

char *warm_kube_join(const char *a, const char *b)
{
	char *text = NULL;

	return asprintf(&text, "%s%s", a, b) < 0 ? NULL : text;
}

static void pem_release(struct warm_kube_pem *pem)
{
	free(pem->file);
	free(pem->data);
}

void warm_kube_config_release(struct warm_kube_config *c)
{
	free(c->server);
	free(c->namespace);
	free(c->cluster_from);
	free(c->user_from);
	free(c->tls_server_name);
	free(c->proxy_url);
	pem_release(&c->ca);
	pem_release(&c->cert);
	pem_release(&c->key);
	free(c->token);
	free(c->token_file);
	free(c->username);
	free(c->password);
	json_decref(c->exec);
	free(c->exec_command);
	json_decref(c->exec_config);
	*c = (struct warm_kube_config){ 0 };
}

static void files_release(struct files *files)
{
	for (size_t i = 0; i < files->n; i++) {
		warm_yaml_free(files->items[i].yaml);
		free(files->items[i].text);
		free(files->items[i].path);
	}
	free(files->items);
	*files = (struct files){ 0 };
}
#define scope_files WARM_SCOPE(files_release)

/* ---- values ---- */

static int bad_entry(const struct entry *e, struct warm_error *err, const char *fmt, ...)
	WARM_PRINTF(3, 4);

static int bad_entry(const struct entry *e, struct warm_error *err, const char *fmt, ...)
{
	char why[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return warm_error_set(err, WARM_INVALID, "%.160s: %s %.60s: %s", e->path, e->kind, e->name,
			      why);
}

/* A field's text; NULL stays for one that is absent, null or empty. */
static int take_text(const struct entry *e, const char *field, char **ret_text,
		     struct warm_error *err)
{
	const json_t *value = json_object_get(e->value, field);
	const char *text = json_string_value(value);

	if (value == NULL || json_is_null(value) || (text != NULL && text[0] == '\0'))
		return 0;
	if (text == NULL)
		return bad_entry(e, err, "%s is no string", field);
	*ret_text = strdup(text);
	return *ret_text == NULL ? warm_error_nomem(err, strlen(text)) : 0;
}

/* A path, made one that doesn't depend on where the kubeconfig is named from. */
static int take_path(const struct entry *e, const char *field, char **ret_path,
		     struct warm_error *err)
{
	scope_free char *path = NULL;
	int rc = take_text(e, field, &path, err);

	if (rc != 0 || path == NULL)
		return rc;
	size_t dir_bytes = (size_t)(warm_path_base(e->path) - e->path);
	if (path[0] == '/' || dir_bytes == 0) {
		*ret_path = take_ptr(path);
		return 0;
	}
	if (asprintf(ret_path, "%.*s%s", (int)dir_bytes, e->path, path) < 0) {
		*ret_path = NULL;
		return warm_error_nomem(err, dir_bytes);
	}
	return 0;
}

/* NULL with 0: out of memory; NULL with -1: no base64. Line breaks are allowed. */
static char *decode(const char *text, int *ret_bad)
{
	size_t n = strlen(text);
	EVP_ENCODE_CTX *context = EVP_ENCODE_CTX_new();
	scope_free unsigned char *data = malloc(n / 4 * 3 + 4);
	int bytes = 0, last = 0;

	*ret_bad = 0;
	if (context == NULL || data == NULL) {
		EVP_ENCODE_CTX_free(context);
		return NULL;
	}
	EVP_DecodeInit(context);
	if (n > PEM_BYTES ||
	    EVP_DecodeUpdate(context, data, &bytes, (const unsigned char *)text, (int)n) < 0 ||
	    EVP_DecodeFinal(context, data + bytes, &last) < 0)
		*ret_bad = -1;
	EVP_ENCODE_CTX_free(context);
	if (*ret_bad != 0)
		return NULL;
	data[bytes + last] = '\0';
	return (char *)take_ptr(data);
}

static bool is_pem(const char *text)
{
	return strstr(text, "-----BEGIN ") != NULL;
}

static int look_at_pem(const struct entry *e, const char *field, const char *path,
		       struct warm_error *err)
{
	struct warm_error why = { 0 };
	char *text = NULL;
	size_t bytes = 0;
	int rc = warm_file_load(AT_FDCWD, path, PEM_BYTES, &text, &bytes, &why);

	if (rc == WARM_NO_MEMORY)
		return warm_error_nomem(err, PEM_BYTES);
	if (rc != 0) {
		(void)bad_entry(e, err, "%s: %.150s", field, why.msg);
		if (rc == WARM_DENIED && err != NULL)
			err->status = WARM_DENIED;
		return rc == WARM_DENIED ? WARM_DENIED : WARM_INVALID;
	}
	bool good = is_pem(text);
	OPENSSL_cleanse(text, bytes);
	free(text);
	return good ? 0 : bad_entry(e, err, "%s: %.120s holds no PEM", field, path);
}

/* `field` names a file, "<field>-data" holds it in base64 and goes first. */
static int take_pem(const struct entry *e, const char *field, struct warm_kube_pem *pem,
		    struct warm_error *err)
{
	scope_free char *data_field = warm_kube_join(field, "-data"), *text = NULL;
	int bad = 0;

	if (data_field == NULL)
		return warm_error_nomem(err, strlen(field));
	int rc = take_text(e, data_field, &text, err);
	if (rc != 0)
		return rc;
	if (text == NULL) {
		rc = take_path(e, field, &pem->file, err);
		return rc != 0 || pem->file == NULL ? rc : look_at_pem(e, field, pem->file, err);
	}
	pem->data = decode(text, &bad);
	if (pem->data == NULL && bad == 0)
		return warm_error_nomem(err, strlen(text));
	if (pem->data == NULL)
		return bad_entry(e, err, "%s is no base64", data_field);
	return is_pem(pem->data) ? 0 : bad_entry(e, err, "%s holds no PEM", data_field);
}

static int take_flag(const struct entry *e, const char *field, bool *ret_flag,
		     struct warm_error *err)
{
	const json_t *value = json_object_get(e->value, field);

	if (value != NULL && !json_is_boolean(value) && !json_is_null(value))
		return bad_entry(e, err, "%s is neither true nor false", field);
	*ret_flag = json_is_true(value);
	return 0;
}

/* ---- clusters ---- */

static bool starts_with(const char *text, const char *start)
{
	return strncasecmp(text, start, strlen(start)) == 0;
}

static bool has_user(const char *url)
{
	const char *host = strstr(url, "://");

	host = host != NULL ? host + 3 : url;
	return memchr(host, '@', strcspn(host, "/?#")) != NULL;
}

/* As kubectl: what has no scheme is TLS where certificates say so. */
static int take_server(const struct entry *e, struct warm_kube_config *c, struct warm_error *err)
{
	bool tls = c->insecure || c->ca.file != NULL || c->ca.data != NULL;
	scope_free char *server = NULL;
	int rc = take_text(e, "server", &server, err);

	if (rc != 0)
		return rc;
	if (server == NULL)
		return bad_entry(e, err, "it has no server");
	/* It gets into messages. */
	if (has_user(server))
		return bad_entry(e, err, "its server holds a user: that belongs into users");
	if (strpbrk(server, "?# \t\r\n") != NULL)
		return bad_entry(e, err, "its server is no URL of an API");
	if (strstr(server, "://") == NULL) {
		c->server = warm_kube_join(tls ? "https://" : "http://", server);
		if (c->server == NULL)
			return warm_error_nomem(err, strlen(server));
	} else {
		if (!starts_with(server, "https://") && !starts_with(server, "http://"))
			return bad_entry(e, err, "its server is neither https:// nor http://");
		c->server = take_ptr(server);
	}
	for (size_t n = strlen(c->server); n > 0 && c->server[n - 1] == '/'; n--)
		c->server[n - 1] = '\0';
	return 0;
}

static int take_proxy(const struct entry *e, struct warm_kube_config *c, struct warm_error *err)
{
	static const char *const schemes[] = { "http://", "https://", "socks5://", "socks5h://" };
	int rc = take_text(e, "proxy-url", &c->proxy_url, err);

	if (rc != 0 || c->proxy_url == NULL)
		return rc;
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (starts_with(c->proxy_url, schemes[i]))
			return 0;
	return bad_entry(e, err, "its proxy-url is none of http://, https://, socks5://");
}

static void take_exec_config(const struct entry *e, struct warm_kube_config *c)
{
	size_t i;
	json_t *extension;

	json_array_foreach(json_object_get(e->value, "extensions"), i, extension) {
		const char *name = json_string_value(json_object_get(extension, "name"));
		if (name != NULL && strcmp(name, EXEC_EXTENSION) == 0 && c->exec_config == NULL)
			c->exec_config = json_incref(json_object_get(extension, "extension"));
	}
}

static int take_cluster(const struct entry *e, struct warm_kube_config *c, struct warm_error *err)
{
	int rc = take_pem(e, "certificate-authority", &c->ca, err);

	if (rc == 0)
		rc = take_flag(e, "insecure-skip-tls-verify", &c->insecure, err);
	if (rc == 0 && c->insecure && (c->ca.file != NULL || c->ca.data != NULL))
		rc = bad_entry(e, err,
			       "insecure-skip-tls-verify makes no use of its "
			       "certificate-authority: one of them has to go");
	if (rc == 0)
		rc = take_server(e, c, err);
	if (rc == 0)
		rc = take_text(e, "tls-server-name", &c->tls_server_name, err);
	if (rc == 0)
		rc = take_proxy(e, c, err);
	if (rc == 0)
		take_exec_config(e, c);
	return rc;
}

/* ---- users ---- */

static int take_exec_env(const struct entry *e, const json_t *exec, struct warm_error *err)
{
	const json_t *args = json_object_get(exec, "args"), *env = json_object_get(exec, "env");
	size_t i;
	json_t *item;

	if ((args != NULL && !json_is_array(args) && !json_is_null(args)) ||
	    (env != NULL && !json_is_array(env) && !json_is_null(env)))
		return bad_entry(e, err, "exec: args and env are lists");
	json_array_foreach(args, i, item)
		if (!json_is_string(item))
			return bad_entry(e, err, "exec: args[%zu] is no string", i);
	json_array_foreach(env, i, item) {
		const char *name = json_string_value(json_object_get(item, "name"));
		if (name == NULL || name[0] == '\0' || strchr(name, '=') != NULL ||
		    !json_is_string(json_object_get(item, "value")))
			return bad_entry(e, err, "exec: env[%zu] has no name and value", i);
	}
	return 0;
}

static int take_exec(const struct entry *e, struct warm_kube_config *c, struct warm_error *err)
{
	json_t *exec = json_object_get(e->value, "exec");
	const struct entry inner = { e->kind, e->name, e->path, exec };
	scope_free char *version = NULL, *command = NULL;

	if (exec == NULL || json_is_null(exec))
		return 0;
	int rc = take_text(&inner, "apiVersion", &version, err);
	if (rc == 0)
		rc = take_text(&inner, "command", &command, err);
	if (rc == 0)
		rc = take_exec_env(e, exec, err);
	if (rc != 0)
		return rc;
	if (command == NULL)
		return bad_entry(e, err, "exec: no command");
	if (version == NULL || (strcmp(version, "client.authentication.k8s.io/v1") != 0 &&
				strcmp(version, "client.authentication.k8s.io/v1beta1") != 0))
		return bad_entry(e, err,
				 "exec: apiVersion %.60s: only client.authentication.k8s.io/v1 and "
				 "v1beta1 are known; a newer plugin speaks them",
				 version != NULL ? version : "is missing");
	c->exec = json_incref(exec);
	/* A bare name is looked for in PATH. */
	if (strchr(command, '/') != NULL)
		return take_path(&inner, "command", &c->exec_command, err);
	c->exec_command = take_ptr(command);
	return 0;
}

static int take_user(const struct entry *e, struct warm_kube_config *c, struct warm_error *err)
{
	const json_t *legacy = json_object_get(e->value, "auth-provider");

	if (legacy != NULL && !json_is_null(legacy))
		return bad_entry(
			e, err,
			"auth-provider is gone since Kubernetes 1.26: an exec plugin takes "
			"its place (kubelogin, gke-gcloud-auth-plugin)");
	int rc = take_pem(e, "client-certificate", &c->cert, err);
	if (rc == 0)
		rc = take_pem(e, "client-key", &c->key, err);
	if (rc == 0)
		rc = take_text(e, "token", &c->token, err);
	if (rc == 0)
		rc = take_path(e, "tokenFile", &c->token_file, err);
	if (rc == 0)
		rc = take_text(e, "username", &c->username, err);
	if (rc == 0)
		rc = take_text(e, "password", &c->password, err);
	if (rc == 0)
		rc = take_exec(e, c, err);
	if (rc != 0)
		return rc;
	bool cert = c->cert.file != NULL || c->cert.data != NULL;
	bool key = c->key.file != NULL || c->key.data != NULL;
	bool token = c->token != NULL || c->token_file != NULL;
	if (cert != key)
		return bad_entry(e, err, "it has a client-%s without a client-%s",
				 cert ? "certificate" : "key", cert ? "key" : "certificate");
	if (c->password != NULL && c->username == NULL)
		return bad_entry(e, err, "it has a password without a username");
	if ((token && c->username != NULL) || (c->exec != NULL && (token || c->username != NULL)))
		return bad_entry(
			e, err, "it has several of token, username and exec: only one can be used");
	return 0;
}

/* ---- files ---- */

static int add_file(struct files *files, const char *path, struct warm_error *err)
{
	struct file *more = realloc(files->items, (files->n + 1) * sizeof(*more));
	struct warm_error why = { 0 };
	size_t bytes = 0;

	if (more == NULL)
		return warm_error_nomem(err, sizeof(*more));
	files->items = more;
	struct file *f = &more[files->n++];
	*f = (struct file){ .path = strdup(path) };
	if (f->path == NULL)
		return warm_error_nomem(err, strlen(path));
	int rc = warm_file_load(AT_FDCWD, path, WARM_YAML_BYTES, &f->text, &bytes, &why);
	if (rc != 0) {
		bool kept = rc == WARM_NOT_FOUND || rc == WARM_DENIED || rc == WARM_NO_MEMORY;
		return warm_error_set(err, kept ? (enum warm_status)rc : WARM_INVALID,
				      "kubeconfig: %.300s", why.msg);
	}
	rc = warm_yaml_parse(f->path, f->text, bytes, &f->yaml, err);
	if (rc != 0) {
		warm_error_context(err, "kubeconfig");
		if (rc == WARM_LIMIT && err != NULL)
			err->status = WARM_INVALID;
		return rc == WARM_LIMIT ? WARM_INVALID : rc;
	}
	if (warm_yaml_count(f->yaml) > 0)
		f->root = warm_yaml_value(f->yaml, 0);
	if (json_is_null(f->root))
		f->root = NULL;
	const char *kind = json_string_value(json_object_get(f->root, "kind"));
	if (f->root != NULL &&
	    (!json_is_object(f->root) || (kind != NULL && strcmp(kind, "Config") != 0)))
		return warm_error_set(err, WARM_INVALID, "%.200s is no kubeconfig: it is %.60s",
				      path, kind != NULL ? kind : "no mapping");
	return 0;
}

/* The entry of the first file that has it; `ret_entry->value` NULL when none has. */
static int find_entry(const struct files *files, const char *kinds, const char *kind,
		      const char *name, struct entry *ret_entry, struct warm_error *err)
{
	*ret_entry = (struct entry){ kind, name, "", NULL };
	for (size_t i = 0; i < files->n && ret_entry->value == NULL; i++) {
		const json_t *list = json_object_get(files->items[i].root, kinds);
		size_t at;
		json_t *item;

		ret_entry->path = files->items[i].path;
		if (list != NULL && !json_is_array(list) && !json_is_null(list))
			return warm_error_set(err, WARM_INVALID, "%.200s: %s is no list",
					      ret_entry->path, kinds);
		json_array_foreach(list, at, item) {
			const char *its = json_string_value(json_object_get(item, "name"));
			if (its == NULL || strcmp(its, name) != 0)
				continue;
			if (ret_entry->value != NULL)
				return bad_entry(ret_entry, err, "it is there twice");
			ret_entry->value = json_object_get(item, kind);
			if (!json_is_object(ret_entry->value))
				return bad_entry(ret_entry, err, "it is empty");
		}
	}
	return 0;
}

/* "a, b" for messages. */
static void tell_contexts(const struct files *files, char *ret_text, size_t bytes)
{
	size_t used = 0;

	snprintf(ret_text, bytes, "none");
	for (size_t i = 0; i < files->n; i++) {
		size_t at;
		json_t *item;

		json_array_foreach(json_object_get(files->items[i].root, "contexts"), at, item) {
			const char *name = json_string_value(json_object_get(item, "name"));
			if (name == NULL || used >= bytes)
				continue;
			used += (size_t)snprintf(ret_text + used, bytes - used, "%s%.60s",
						 used > 0 ? ", " : "", name);
		}
	}
}

static void tell_paths(const struct files *files, char *ret_text, size_t bytes)
{
	size_t used = 0;

	for (size_t i = 0; i < files->n && used < bytes; i++)
		used += (size_t)snprintf(ret_text + used, bytes - used, "%s%s", i > 0 ? ":" : "",
					 files->items[i].path);
}

static int find_context(const struct files *files, const char *wanted, struct entry *ret_entry,
			struct warm_error *err)
{
	const char *name = wanted;
	char paths[160], known[160];
	int rc = 0;

	tell_paths(files, paths, sizeof(paths));
	tell_contexts(files, known, sizeof(known));
	for (size_t i = 0; name == NULL && i < files->n; i++) {
		name = json_string_value(json_object_get(files->items[i].root, "current-context"));
		if (name != NULL && name[0] == '\0')
			name = NULL;
	}
	if (name == NULL)
		return warm_error_set(err, WARM_INVALID,
				      "%s has no current-context: name one of its contexts (%s)",
				      paths, known);
	rc = find_entry(files, "contexts", "context", name, ret_entry, err);
	if (rc == 0 && ret_entry->value == NULL)
		rc = warm_error_set(err, WARM_INVALID, "%s has no context %.60s%s; it has: %s",
				    paths, name, wanted == NULL ? ", which is its current one" : "",
				    known);
	return rc;
}

static int take_origin(const struct entry *e, char **ret_text, struct warm_error *err)
{
	if (asprintf(ret_text, "%s %s of %s", e->kind, e->name, e->path) < 0) {
		*ret_text = NULL;
		return warm_error_nomem(err, sizeof(*e));
	}
	return 0;
}

/* It becomes a part of paths. */
static int check_namespace(const struct warm_kube_config *c, struct warm_error *err)
{
	size_t n = c->namespace != NULL ? strlen(c->namespace) : 0;

	if (n > NAMESPACE_BYTES || n == 0 ||
	    strspn(c->namespace, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
		return warm_error_set(err, WARM_INVALID, "%.200s: %.80s is no name of a namespace",
				      c->cluster_from, c->namespace);
	return 0;
}

/* The part of a context that is looked for elsewhere: a cluster or a user. */
static int follow(const struct files *files, const struct entry *context, const char *kinds,
		  const char *kind, char **ret_name, struct entry *ret_entry,
		  struct warm_error *err)
{
	int rc = take_text(context, kind, ret_name, err);

	if (rc != 0 || *ret_name == NULL)
		return rc;
	rc = find_entry(files, kinds, kind, *ret_name, ret_entry, err);
	if (rc == 0 && ret_entry->value == NULL)
		rc = bad_entry(context, err, "its %s %.60s isn't there", kind, *ret_name);
	return rc;
}

static int from_files(const struct files *files, const char *context_name,
		      struct warm_kube_config *c, struct warm_error *err)
{
	struct entry context = { 0 }, cluster = { 0 }, user = { 0 };
	scope_free char *cluster_name = NULL, *user_name = NULL;
	int rc = find_context(files, context_name, &context, err);

	if (rc == 0)
		rc = follow(files, &context, "clusters", "cluster", &cluster_name, &cluster, err);
	if (rc == 0 && cluster_name == NULL)
		rc = bad_entry(&context, err, "it names no cluster");
	if (rc == 0)
		rc = take_origin(&cluster, &c->cluster_from, err);
	if (rc == 0)
		rc = take_cluster(&cluster, c, err);
	if (rc == 0)
		rc = follow(files, &context, "users", "user", &user_name, &user, err);
	if (rc == 0)
		rc = take_origin(user_name != NULL ? &user : &context, &c->user_from, err);
	if (rc == 0 && user_name != NULL)
		rc = take_user(&user, c, err);
	if (rc == 0)
		rc = take_text(&context, "namespace", &c->namespace, err);
	if (rc == 0 && c->namespace == NULL)
		c->namespace = strdup("default");
	if (rc == 0 && c->namespace == NULL)
		return warm_error_nomem(err, 1);
	return rc != 0 ? rc : check_namespace(c, err);
}

static int from_file(const char *path, const char *context, struct warm_kube_config *c,
		     struct warm_error *err)
{
	scope_files struct files files = { 0 };
	int rc = add_file(&files, path, err);

	return rc != 0 ? rc : from_files(&files, context, c, err);
}

/* As of KUBECONFIG: those that aren't there are left out, but not all of them. */
static int from_list(const char *list, const char *context, struct warm_kube_config *c,
		     struct warm_error *err)
{
	scope_files struct files files = { 0 };
	scope_free char *paths = strdup(list);
	size_t there = 0;
	char *save = NULL;

	if (paths == NULL)
		return warm_error_nomem(err, strlen(list));
	for (char *path = strtok_r(paths, ":", &save); path != NULL;
	     path = strtok_r(NULL, ":", &save)) {
		int rc = add_file(&files, path, err);
		if (rc == WARM_NOT_FOUND)
			continue;
		if (rc != 0)
			return rc;
		there++;
	}
	if (there == 0)
		return warm_error_set(err, WARM_NOT_FOUND,
				      "no Kubernetes configuration: KUBECONFIG names %.300s, and "
				      "there is no such file",
				      list);
	return from_files(&files, context, c, err);
}

/* ---- the pod's service account ---- */

static const char *env_of(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

static int load_namespace(const char *dir, struct warm_kube_config *c, struct warm_error *err)
{
	scope_free char *path = warm_kube_join(dir, "/namespace"), *text = NULL;
	size_t bytes = 0;

	if (path == NULL)
		return warm_error_nomem(err, strlen(dir));
	int rc = warm_file_load(AT_FDCWD, path, WARM_PATH_BYTES, &text, &bytes, err);
	if (rc != 0 && rc != WARM_NOT_FOUND)
		return rc;
	if (rc == 0)
		text[strcspn(text, " \t\r\n")] = '\0';
	c->namespace = strdup(rc == 0 && text[0] != '\0' ? text : "default");
	return c->namespace == NULL ? warm_error_nomem(err, bytes) : check_namespace(c, err);
}

/* NOT_FOUND where there is none. */
static int from_pod(const char *dir, struct warm_kube_config *c, struct warm_error *err)
{
	const char *host = env_of("KUBERNETES_SERVICE_HOST");
	const char *port = env_of("KUBERNETES_SERVICE_PORT");

	if (dir == NULL)
		dir = ACCOUNT_DIR;
	if (host == NULL || port == NULL)
		return warm_error_set(err, WARM_NOT_FOUND, "this is no pod");
	bool six = strchr(host, ':') != NULL && host[0] != '[';
	if (asprintf(&c->server, "https://%s%s%s:%s", six ? "[" : "", host, six ? "]" : "", port) <
	    0)
		c->server = NULL;
	c->token_file = warm_kube_join(dir, "/token");
	c->ca.file = warm_kube_join(dir, "/ca.crt");
	c->cluster_from = strdup("the pod's environment");
	c->user_from = strdup("the pod's service account");
	if (c->server == NULL || c->token_file == NULL || c->ca.file == NULL ||
	    c->cluster_from == NULL || c->user_from == NULL)
		return warm_error_nomem(err, strlen(dir));
	if (access(c->token_file, F_OK) != 0)
		return warm_error_set(err, WARM_NOT_FOUND,
				      "this pod has no token of a service account in %.120s "
				      "(automountServiceAccountToken: false?)",
				      dir);
	/* A cluster whose certificate the system trusts needs none. */
	if (access(c->ca.file, F_OK) != 0)
		free(take_ptr(c->ca.file));
	const struct entry pod = { "pod's", "service account", dir, NULL };
	int rc = c->ca.file != NULL ? look_at_pem(&pod, "ca.crt", c->ca.file, err) : 0;
	return rc != 0 ? rc : load_namespace(dir, c, err);
}

static int from_home(const char *context, struct warm_kube_config *c, struct warm_error *err)
{
	const char *home = env_of("HOME");
	scope_free char *path = home != NULL ? warm_kube_join(home, "/.kube/config") : NULL;

	if (home == NULL)
		return warm_error_set(err, WARM_NOT_FOUND, "HOME isn't set");
	if (path == NULL)
		return warm_error_nomem(err, strlen(home));
	return from_file(path, context, c, err);
}

/* As kubectl: a home's file goes before the pod's account. */
static int from_anywhere(const struct warm_kube_sources *s, struct warm_kube_config *c,
			 struct warm_error *err)
{
	struct warm_error pod = { 0 }, home = { 0 };
	int rc = from_home(s->context, c, &home);

	if (rc != WARM_NOT_FOUND) {
		if (rc != 0 && err != NULL)
			*err = home;
		return rc;
	}
	warm_kube_config_release(c);
	/* A context is one of a file. */
	if (s->context != NULL)
		snprintf(pod.msg, sizeof(pod.msg), "a pod has no contexts");
	else
		rc = from_pod(s->account_dir, c, &pod);
	if (rc == WARM_NOT_FOUND)
		return warm_error_set(err, rc,
				      "no Kubernetes configuration: KUBECONFIG isn't set; %.200s; "
				      "%.200s",
				      home.msg, pod.msg);
	if (rc != 0 && err != NULL)
		*err = pod;
	return rc;
}

int warm_kube_config_load(const struct warm_kube_sources *s, struct warm_kube_config *ret_config,
			  struct warm_error *err)
{
	scope_kube_config struct warm_kube_config c = { 0 };
	const char *list = env_of("KUBECONFIG");
	int rc;

	if (s->kubeconfig != NULL)
		rc = from_file(s->kubeconfig, s->context, &c, err);
	else if (list != NULL && strspn(list, ":") != strlen(list))
		rc = from_list(list, s->context, &c, err);
	else
		rc = from_anywhere(s, &c, err);
	if (rc != 0)
		return rc;
	*ret_config = c;
	c = (struct warm_kube_config){ 0 };
	return 0;
}
