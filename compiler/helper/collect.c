/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/helper/collect.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"

/* One path that counts. */
struct seen {
	char *path; /* absolute */
	bool opened, found;
	bool apart; /* only its identity was asked for, and it is no other's */
	bool below_base, below_cwd;
	uint64_t size, dev, ino;
	struct warm_hash128 digest;
};

struct collect {
	const struct warm_wire_request *q;
	const struct warm_wire_response *a;
	struct warm_collected *out;
	char base[WARM_PATH_BYTES]; /* the program's directory, and the current one, without a */
	char cwd[WARM_PATH_BYTES];  /* slash at the end */
	char dir[WARM_PATH_BYTES];  /* the program's as its name gives it: "../x/", "" */
	const char *name;	    /* base name */
	struct seen *seen;
	size_t n_seen;
	bool failed;	/* no memory */
	bool bound;	/* right for this directory and current directory alone */
	bool bound_cwd; /* right for this current directory alone */
};

static void uncacheable(struct collect *c, enum warm_kernel_reason reason, const char *fmt, ...)
	WARM_PRINTF(3, 4);

static void uncacheable(struct collect *c, enum warm_kernel_reason reason, const char *fmt, ...)
{
	va_list ap;

	if (c->out->reason != WARM_KERNEL_CACHEABLE)
		return;
	c->out->reason = reason;
	va_start(ap, fmt);
	vsnprintf(c->out->why, sizeof(c->out->why), fmt, ap);
	va_end(ap);
}

/* ---- does the program's directory show? ---- */

/* A text that spells the directory out may include a path below it as it is. */
static bool spells_base(const struct collect *c, struct warm_kernel_text text)
{
	return c->base[0] != '\0' && warm_text_contains(text, c->base);
}

/* __FILE__ and its kin, or assert(), whose expansion holds it; static_assert() does not. */
static bool tells_file(struct warm_kernel_text t)
{
	static const char *const words[] = { "__FILE__", "__BASE_FILE__", "__builtin_FILE",
					     "source_location" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (warm_text_contains(t, words[i]))
			return true;
	const char *end = t.data + t.bytes;
	for (const char *p = t.data; p < end; p++) {
		p = memmem(p, (size_t)(end - p), "assert", 6);
		if (p == NULL)
			return false;
		char before = p > t.data ? p[-1] : ' ';
		if (before != '_' && !isalnum((unsigned char)before))
			return true;
	}
	return false;
}

/* A macro of a header elsewhere may put __FILE__ into a constant, which leaves no text. CUDA's own
 * headers make messages of it alone. */
static bool may_use_file(const char *path, struct warm_kernel_text t)
{
	static const char *const own[] = { "/cccl/", "/cuda/std/", "/cub/", "/thrust/" };

	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (strstr(path, own[i]) != NULL)
			return false;
	return warm_text_contains(t, "__FILE__") || warm_text_contains(t, "__BASE_FILE__") ||
	       warm_text_contains(t, "__builtin_FILE");
}

/* A string in PTX is a list of numbers, in a cubin its bytes. */
static bool is_in_outputs(const struct collect *c, const char *text)
{
	const struct warm_kernel_text *outputs = c->a->outputs;
	scope_buf struct warm_buf list = WARM_BUF_INIT;

	for (const char *p = text; *p != '\0'; p++)
		warm_buf_printf(&list, "%s%u", p > text ? ", " : "", (unsigned char)*p);
	if (list.failed)
		return true;
	if (list.bytes > 0 && warm_text_contains(outputs[WARM_KERNEL_PTX], (char *)list.data))
		return true;
	/* A base name alone is in every cubin. */
	for (int k = 0; k < WARM_KERNEL_OUTPUTS && strchr(text, '/') != NULL; k++)
		if (outputs[k].bytes > 0 && warm_text_contains(outputs[k], text))
			return true;
	return false;
}

/* The program's name or directory in what came out, where a macro of any header may bring it. */
static bool shows_name(const struct collect *c)
{
	struct warm_kernel_text log = c->a->log;

	if (log.bytes > 0 && (warm_text_contains(log, c->name) || spells_base(c, log)))
		return true;
	/* Nothing that is known how to be looked through. */
	if (c->a->outputs[WARM_KERNEL_PTX].bytes == 0)
		return true;
	return is_in_outputs(c, c->q->name.bytes > 0 ? c->q->name.data : c->name) ||
	       (c->base[0] != '\0' && is_in_outputs(c, c->base));
}

static bool shows_directory(const struct collect *c)
{
	static const char *const options[] = { "-lineinfo", "--generate-line-info",
					       "-G",	    "--device-debug",
					       "-dlto",	    "--dlink-time-opt",
					       "-optix-ir", "--optix-ir" };
	const struct warm_wire_request *q = c->q;

	for (size_t i = 0; i < q->n_options; i++) {
		for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++)
			if (warm_text_starts_with(warm_text_trim(q->options[i]), options[k]))
				return true;
		if (tells_file(q->options[i]))
			return true;
	}
	for (size_t i = 0; i < q->n_headers; i++)
		if (tells_file(q->headers[i].source))
			return true;
	return tells_file(q->source) || shows_name(c);
}

/* ---- what can have led to a path? ---- */

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && path[n] == '/';
}

/* The directory that option `i` names for includes (or the file, for -include); empty: none. */
static struct warm_kernel_text include_path(const struct warm_wire_request *q, size_t i)
{
	const struct warm_kernel_text none = { "", 0 };
	struct warm_kernel_text o = warm_text_trim(q->options[i]);
	const char *end = o.data + o.bytes, *path = NULL;

	if (warm_text_starts_with(o, "-I") && o.bytes > 2) {
		path = o.data + 2;
	} else if (warm_text_starts_with(o, "-I") || warm_text_contains(o, "include")) {
		path = memchr(o.data, '=', o.bytes);
		if (path == NULL)
			return i + 1 < q->n_options ? warm_text_trim(q->options[i + 1]) : none;
	}
	while (path != NULL && path < end && (isspace((unsigned char)*path) || *path == '='))
		path++;
	return path != NULL ? (struct warm_kernel_text){ path, (size_t)(end - path) } : none;
}

/* Does an option lead from the current directory to files? */
static bool has_relative_include(const struct warm_wire_request *q)
{
	for (size_t i = 0; i < q->n_options; i++) {
		struct warm_kernel_text path = include_path(q, i);
		if (path.bytes > 0 && path.data[0] != '/')
			return true;
	}
	return false;
}

static bool is_below_include(const struct warm_wire_request *q, const char *path)
{
	char dir[WARM_PATH_BYTES];

	for (size_t i = 0; i < q->n_options; i++) {
		struct warm_kernel_text p = include_path(q, i);
		while (p.bytes > 1 && p.data[p.bytes - 1] == '/')
			p.bytes--;
		if (p.bytes == 0 || p.data[0] != '/')
			continue;
		snprintf(dir, sizeof(dir), "%.*s", p.bytes > 1 ? (int)p.bytes : 0, p.data);
		if (strcmp(path, dir) == 0 || is_below(path, dir))
			return true;
	}
	return false;
}

static void bind(struct collect *c)
{
	const struct warm_wire_request *q = c->q;
	bool relative_include = has_relative_include(q);
	bool spelled = spells_base(c, q->source);

	for (size_t i = 0; i < q->n_options; i++)
		spelled = spelled || spells_base(c, q->options[i]);
	for (size_t i = 0; i < q->n_headers; i++)
		spelled = spelled || spells_base(c, q->headers[i].source);
	/* Below the root lies everything. */
	c->bound = c->bound || shows_directory(c) || (c->base[0] == '\0' && c->n_seen > 0);
	c->bound_cwd = relative_include;
	for (size_t i = 0; i < c->n_seen; i++) {
		const struct seen *s = &c->seen[i];
		/* A header in memory looks in the current directory for what it quotes. */
		bool by_cwd = s->below_cwd &&
			      (relative_include || (q->n_headers > 0 && c->dir[0] != '\0'));
		/* A warning names a header beside the program by the program's directory. */
		bool told = s->found &&
			    warm_text_contains(c->a->log,
					       s->path + (s->below_base ? strlen(c->base) + 1 : 0));
		if (s->below_base && (spelled || by_cwd || told || is_below_include(q, s->path)))
			c->bound = true;
		c->bound_cwd = c->bound_cwd || by_cwd;
	}
	c->bound_cwd = c->bound_cwd || c->bound;
}

/* ---- files ---- */

static bool same_state(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       warm_timespec_ns(a->st_mtim) == warm_timespec_ns(b->st_mtim) &&
	       warm_timespec_ns(a->st_ctim) == warm_timespec_ns(b->st_ctim);
}

/* What changed since NVRTC looked makes the result uncacheable. */
static void see_file(struct collect *c, const struct warm_traced *t, struct seen *s)
{
	scope_free char *data = NULL;
	size_t bytes = 0;
	struct stat st;

	if (!S_ISREG(t->st.st_mode) ||
	    warm_file_load(AT_FDCWD, s->path, WARM_KERNEL_ENTRY_BYTES, &data, &bytes, NULL) != 0 ||
	    stat(s->path, &st) != 0 || !same_state(&st, &t->st)) {
		uncacheable(c, WARM_KERNEL_BY_CHANGE, "%.150s changed while it compiled", s->path);
		return;
	}
	s->size = bytes;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	s->digest = warm_hash128(data, bytes);
	if (!t->opened)
		return; /* it was not read */
	if (t->bytes != bytes || t->digest.low != s->digest.low ||
	    t->digest.high != s->digest.high) {
		uncacheable(c, WARM_KERNEL_BY_CHANGE, "%.150s changed while it compiled", s->path);
		return;
	}
	struct warm_kernel_text text = { data, bytes };
	if (warm_text_tells_time(text))
		uncacheable(c, WARM_KERNEL_BY_TIME,
			    "%.120s uses __TIME__, __DATE__ or __TIMESTAMP__", s->path);
	if (s->below_base ? tells_file(text) : may_use_file(s->path, text))
		c->bound = true;
	if (spells_base(c, text))
		c->bound = true;
}

/* NVRTC 13 makes paths absolute by itself. */
static char *absolute(struct collect *c, const char *path)
{
	char *made = NULL;

	if (path[0] == '/')
		made = strdup(path);
	else if (asprintf(&made, "%s/%s", c->cwd, path) < 0)
		made = NULL;
	c->failed = c->failed || made == NULL;
	return made;
}

/* One path's looks: those of fopen count, if there are any. */
static void see(struct collect *c, const struct warm_traced *looks, size_t n)
{
	const struct warm_traced *t = &looks[0];
	struct seen *s = &c->seen[c->n_seen];
	struct stat st;

	for (size_t i = 1; i < n; i++)
		if (looks[i].opened && !t->opened)
			t = &looks[i];
	for (size_t i = 0; i < n; i++)
		if (looks[i].found != t->found)
			uncacheable(c, WARM_KERNEL_BY_CHANGE,
				    "%.150s appeared or went while it compiled", t->path);
	/* What it reads is told by fopen: a directory is nothing. */
	bool dir = t->found && S_ISDIR(t->st.st_mode);
	if (dir && !t->opened)
		return;
	*s = (struct seen){ .path = absolute(c, t->path),
			    .opened = t->opened,
			    .found = t->found && !dir };
	if (s->path == NULL)
		return;
	s->below_base = is_below(s->path, c->base);
	s->below_cwd = is_below(s->path, c->cwd);
	c->n_seen++;
	if (s->found)
		see_file(c, t, s);
	else if (stat(s->path, &st) == 0 && S_ISREG(st.st_mode))
		uncacheable(c, WARM_KERNEL_BY_CHANGE, "%.150s appeared while it compiled", s->path);
}

/* Names of NVRTC's own, looked for in the current directory at each compile. */
static bool is_builtin(const char *path)
{
	const char *slash = strrchr(path, '/');

	return strncmp(slash != NULL ? slash + 1 : path, "__nv_", 5) == 0;
}

/* The program and headers in memory are looked for as well, by stat: a file of their name would
 * lend them its identity, and so hide another path to it. */
static void set_apart(struct collect *c)
{
	bool reads = false;
	size_t kept = 0;

	for (size_t i = 0; i < c->n_seen; i++) {
		struct seen *s = &c->seen[i];
		s->apart = !s->opened;
		for (size_t k = 0; k < c->n_seen && s->apart && s->found; k++)
			s->apart = k == i || !c->seen[k].found || c->seen[k].dev != s->dev ||
				   c->seen[k].ino != s->ino;
		reads = reads || (s->found && !s->apart);
	}
	/* Where no file is read nothing can be hidden. */
	for (size_t i = 0; i < c->n_seen; i++)
		if (reads || !c->seen[i].apart)
			c->seen[kept++] = c->seen[i];
		else
			free(c->seen[i].path);
	c->n_seen = kept;
}

static void see_all(struct collect *c, const struct warm_traced *traced, size_t n)
{
	for (size_t i = 0, looks; i < n; i += looks) {
		for (looks = 1; i + looks < n; looks++)
			if (strcmp(traced[i + looks].path, traced[i].path) != 0)
				break;
		if (!is_builtin(traced[i].path))
			see(c, &traced[i], looks);
	}
	set_apart(c);
}

/* ---- the list ---- */

static void put(struct collect *c, const struct warm_kernel_dep *dep)
{
	warm_kernel_encode_dep(&c->out->encoded, dep);
	c->out->n++;
}

/* Which file of the list, counted from 1, is the same as `s`; 0: none before it. */
static uint32_t twin_of(const struct collect *c, const struct seen *s)
{
	uint32_t files = 0;

	for (const struct seen *e = c->seen; e < s; e++) {
		files += e->found && !e->apart;
		if (e->found && !e->apart && e->dev == s->dev && e->ino == s->ino)
			return files;
	}
	return 0;
}

static void put_path(struct collect *c, const struct seen *s)
{
	struct warm_kernel_dep dep = {
		.kind = s->apart   ? WARM_KERNEL_DEP_APART
			: s->found ? WARM_KERNEL_DEP_FILE
				   : WARM_KERNEL_DEP_ABSENT,
		.relative = s->below_base && !c->bound,
	};

	dep.path = warm_text_of(dep.relative ? s->path + strlen(c->base) + 1 : s->path);
	if (dep.kind == WARM_KERNEL_DEP_FILE) {
		dep.size = s->size;
		dep.digest = s->digest;
		dep.twin = twin_of(c, s);
	}
	put(c, &dep);
}

/* What is apart comes behind the files that it is apart from. */
static void put_all(struct collect *c)
{
	for (int apart = 0; apart < 2; apart++)
		for (size_t i = 0; i < c->n_seen; i++)
			if (c->seen[i].apart == (apart == 1))
				put_path(c, &c->seen[i]);
	if (c->bound)
		put(c, &(struct warm_kernel_dep){ .kind = WARM_KERNEL_DEP_DIR,
						  .path = warm_text_of(c->dir) });
	if (c->bound_cwd)
		put(c, &(struct warm_kernel_dep){ .kind = WARM_KERNEL_DEP_CWD, .path = c->q->cwd });
}

static void find_directories(struct collect *c)
{
	const char *name = c->q->name.data, *slash = strrchr(name, '/');
	int bytes = slash != NULL ? (int)(slash - name) : 0;

	c->name = slash != NULL ? slash + 1 : name;
	if (c->q->name.bytes == 0)
		c->name = WARM_DEFAULT_PROGRAM;
	snprintf(c->dir, sizeof(c->dir), "%.*s", slash != NULL ? bytes + 1 : 0, name);
	/* The root is "", so that what is below it begins with a slash. */
	snprintf(c->cwd, sizeof(c->cwd), "%s",
		 strcmp(c->q->cwd.data, "/") == 0 ? "" : c->q->cwd.data);
	if (name[0] == '/')
		snprintf(c->base, sizeof(c->base), "%.*s", bytes, name);
	else
		snprintf(c->base, sizeof(c->base), "%.2047s%s%.*s", c->cwd, bytes > 0 ? "/" : "",
			 bytes < 2047 ? bytes : 2047, name);
}

int warm_collect(const struct warm_wire_request *q, const struct warm_wire_response *a,
		 const struct warm_traced *traced, size_t n, struct warm_collected *ret_collected,
		 struct warm_error *err)
{
	scope_free struct seen *seen = calloc(n + 1, sizeof(*seen));
	struct collect c = { .q = q, .a = a, .out = ret_collected, .seen = seen };

	*ret_collected = (struct warm_collected){ .encoded = WARM_BUF_INIT };
	if (seen == NULL)
		return warm_error_nomem(err, n);
	find_directories(&c);
	see_all(&c, traced, n);
	bind(&c);
	put_all(&c);
	for (size_t i = 0; i < c.n_seen; i++)
		free(c.seen[i].path);
	return c.failed || ret_collected->encoded.failed ? warm_error_nomem(err, n) : 0;
}
