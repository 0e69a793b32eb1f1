/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/wait.h>

#include "lib/base/hash.h"
#include "lib/layer/sha256.h"
#include "lib/layer/unpack.h"

struct scratch scratch_open(void)
{
	struct scratch s;
	const char *tmp = getenv("TMPDIR");

	snprintf(s.path, sizeof(s.path), "%.200s/warm-test-XXXXXX", tmp != NULL ? tmp : "/tmp");
	assert_non_null(mkdtemp(s.path));
	s.fd = open(s.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(s.fd >= 0);
	return s;
}

void scratch_close(struct scratch *s)
{
	close(s->fd);
	assert_int_equal(warm_tree_remove(AT_FDCWD, s->path, NULL), 0);
}

const char *scratch_path(const struct scratch *s, const char *name)
{
	static char paths[8][1024];
	static unsigned next;
	char *path = paths[next++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%.700s", s->path, name);
	return path;
}

void put_dir(int dir_fd, const char *path)
{
	assert_int_equal(warm_beneath_mkdirs(dir_fd, path, NULL), 0);
}

void set_times(int dir_fd, const char *path, int64_t atime_ns, int64_t mtime_ns)
{
	struct timespec times[2] = { warm_timespec_of_ns(atime_ns), warm_timespec_of_ns(mtime_ns) };

	assert_int_equal(utimensat(dir_fd, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

void put_file(int dir_fd, const char *path, const void *data, size_t bytes, mode_t mode,
	      int64_t mtime_ns)
{
	char parent[WARM_PATH_BYTES];
	const char *slash = strrchr(path, '/');

	if (slash != NULL) {
		snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
		put_dir(dir_fd, parent);
	}
	scope_close int fd = -1;
	if (warm_beneath_open(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC, mode, &fd, NULL) != 0)
		fail_msg("can't create %s: %s", path, strerror(errno));
	assert_int_equal(warm_file_write(fd, data, bytes, NULL), 0);
	assert_int_equal(fchmod(fd, mode), 0);
	if (mtime_ns != 0)
		set_times(dir_fd, path, mtime_ns, mtime_ns);
}

void put_text(int dir_fd, const char *path, const char *text)
{
	put_file(dir_fd, path, text, strlen(text), 0644, 0);
}

bool is_there(int dir_fd, const char *path)
{
	struct stat st;

	return fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

struct stat stat_of(int dir_fd, const char *path)
{
	struct stat st;

	if (fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) != 0)
		fail_msg("%s is not there", path);
	return st;
}

char *text_of(int dir_fd, const char *path, size_t *ret_bytes)
{
	char *data = NULL;
	size_t bytes = 0;

	if (warm_file_load(dir_fd, path, SIZE_MAX / 4, &data, &bytes, NULL) != 0)
		fail_msg("%s can't be read", path);
	if (ret_bytes != NULL)
		*ret_bytes = bytes;
	return data;
}

void assert_file(int dir_fd, const char *path, const char *text)
{
	char *data = text_of(dir_fd, path, NULL);

	assert_string_equal(data, text);
	free(data);
}

struct lines {
	char **list;
	size_t n, capacity;
};

static void list_below(struct lines *l, int fd, const char *prefix, bool with_mtime)
{
	DIR *dir = fdopendir(fd);
	struct dirent *e;

	assert_non_null(dir);
	while ((e = readdir(dir)) != NULL) {
		char path[WARM_PATH_BYTES + 300], shown[WARM_PATH_BYTES], hex[33];
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    strcmp(e->d_name, ".warmcache") == 0)
			continue;
		snprintf(path, sizeof(path), "%s%s", prefix, e->d_name);
		struct stat st = stat_of(fd, e->d_name);
		if (S_ISDIR(st.st_mode)) {
			strcat(path, "/");
			int sub = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			assert_true(sub >= 0);
			list_below(l, sub, path, with_mtime);
			continue;
		}
		size_t bytes = 0;
		char *data = S_ISREG(st.st_mode) ? text_of(fd, e->d_name, &bytes) : NULL;
		warm_hash128_hex(warm_hash128(data != NULL ? data : "", bytes), hex);
		free(data);
		if (l->n == l->capacity) {
			l->capacity = l->capacity == 0 ? 64 : 2 * l->capacity;
			l->list = realloc(l->list, l->capacity * sizeof(*l->list));
			assert_non_null(l->list);
		}
		assert_true(
			asprintf(&l->list[l->n++], "%s size=%lld mode=%o mtime=%" PRId64 " %s\n",
				 warm_path_printable(path, shown, sizeof(shown)),
				 (long long)st.st_size, st.st_mode & 0111,
				 with_mtime ? warm_timespec_ns(st.st_mtim) : (int64_t)0, hex) > 0);
	}
	closedir(dir);
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *list_tree(int dir_fd, bool with_mtime)
{
	struct lines l = { 0 };
	struct warm_buf all = WARM_BUF_INIT;
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	list_below(&l, fd, "", with_mtime);
	if (l.n > 0)
		qsort(l.list, l.n, sizeof(*l.list), compare_lines);
	for (size_t i = 0; i < l.n; i++) {
		warm_buf_put(&all, l.list[i], strlen(l.list[i]));
		free(l.list[i]);
	}
	free(l.list);
	warm_buf_put_u8(&all, 0);
	assert_false(all.failed);
	return (char *)all.data;
}

uint64_t roll(struct dice *d)
{
	uint64_t z = d->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint8_t *noise(uint64_t seed, size_t bytes)
{
	struct dice d = { seed };
	uint8_t *data = malloc(bytes + 8);

	assert_non_null(data);
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t v = roll(&d);
		memcpy(data + i, &v, 8);
	}
	return data;
}

uint8_t *pattern(uint64_t seed, size_t bytes)
{
	uint8_t *data = malloc(bytes + 1);

	assert_non_null(data);
	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t)((i / 1000 + seed) * 7 + i % 3);
	return data;
}

int shell(const char *fmt, ...)
{
	char command[8192];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	assert_true(n > 0 && (size_t)n < sizeof(command));
	int status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool have_tool(const char *name)
{
	if (shell("command -v %s >/dev/null 2>&1", name) == 0)
		return true;
	print_message("# note: %s is missing; what needs it is skipped\n", name);
	return false;
}

struct warm_key key_of(const char *model, const char *version)
{
	struct warm_key key;

	assert_int_equal(warm_key_init(&key, model, version, "test", NULL), 0);
	return key;
}

void put_made_layer(struct warm_store *store, const struct warm_key *key,
		    const struct made_layer *layer, char ret_object[WARM_NAME_BYTES])
{
	scope_scratch struct scratch s = scratch_open();
	scope_pack struct warm_pack *pack = NULL;
	char object[WARM_NAME_BYTES];
	struct warm_error err = { 0 };

	scope_close int fd = openat(s.fd, "layer", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(warm_pack_open(fd, 1, UINT64_MAX, 0, &pack, &err), 0);
	for (size_t i = 0; i < layer->n_groups; i++) {
		const struct made_group *g = &layer->groups[i];
		struct warm_pack_file files[4] = { 0 };
		char name[WARM_PATH_BYTES], sources[4][40];
		size_t n = 0;
		for (; n < 4 && g->files[n].path != NULL; n++) {
			const struct made_file *f = &g->files[n];
			snprintf(sources[n], sizeof(sources[n]), "%zu-%zu", i, n);
			put_file(s.fd, sources[n], f->text,
				 f->bytes != 0 ? f->bytes : strlen(f->text), 0644 | f->mode, 0);
			files[n] = (struct warm_pack_file){ f->path, sources[n], NULL,
							    f->mtime_ns != 0
								    ? f->mtime_ns
								    : 1700000000123456789 };
		}
		snprintf(name, sizeof(name), "%s", g->name);
		if (g->bound != 0)
			snprintf(name, sizeof(name), "%s@%016" PRIx64, g->name, g->bound);
		struct warm_pack_group group = {
			.name = name,
			.profile = g->profile != NULL ? g->profile : "file",
			.origin = g->origin,
			.bound = g->bound,
			.flags = g->flags,
			.dir_fd = s.fd,
			.files = files,
			.n_files = n,
		};
		if (warm_pack_add(pack, &group, NULL, &err) != 0)
			fail_msg("%s", err.msg);
	}
	struct warm_pack_meta meta = {
		.kind = layer->kind != 0 ? layer->kind : WARM_LAYER,
		.id = layer->id,
		.key = key,
		.created_ms = 1700000000000,
		.mount = layer->mount != NULL ? layer->mount : "/cache",
		.complete = layer->complete,
		.covered = layer->covered,
		.n_covered = layer->n_covered,
	};
	struct warm_layer_name name;
	uint64_t bytes = 0;
	assert_int_equal(warm_pack_finish(pack, &meta, &name, &bytes, &err), 0);
	warm_layer_name_format(key, &name, object);
	if (warm_store_put(store, object, fd, bytes, NULL, &err) != 0)
		fail_msg("%s", err.msg);
	if (ret_object != NULL)
		memcpy(ret_object, object, sizeof(object));
}

uint8_t *load_file(const char *path, size_t *ret_bytes)
{
	return (uint8_t *)text_of(AT_FDCWD, path, ret_bytes);
}

void flip_byte(const char *path, long offset)
{
	scope_close int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;
	uint8_t c;

	if (fd < 0 || fstat(fd, &st) != 0)
		fail_msg("%s: %s", path, strerror(errno));
	off_t at = offset < 0 ? st.st_size + offset : offset;
	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 0x10;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
}

static void put_digest(struct warm_buf *out, const void *data, size_t bytes)
{
	uint8_t digest[32];
	char hex[65];

	assert_int_equal(warm_sha256(data, bytes, digest, NULL), 0);
	warm_hex(digest, sizeof(digest), hex);
	warm_buf_printf(out, "%s", hex);
}

char *describe_layer(const uint8_t *layer, size_t bytes, const struct warm_key *key,
		     const struct warm_layer_name *name)
{
	scope_index struct warm_index *x = NULL;
	scope_unpack struct warm_unpack *unpack = NULL;
	struct warm_error err = { 0 };
	struct warm_buf out = WARM_BUF_INIT;
	char id[WARM_ID_BYTES], text[3 * WARM_KEY_PART_BYTES + 3], shown[WARM_PATH_BYTES];
	size_t trailer = (size_t)warm_trailer_bytes(name);

	assert_true(bytes > trailer);
	if (warm_index_parse(layer + bytes - trailer, trailer, bytes, key, name, &x, &err) != 0)
		fail_msg("%s", err.msg);
	warm_buf_printf(&out,
			"format %u\nkind %c\nid %s\nkey %s\ncreated_ms %" PRId64 "\nmount %s\n",
			x->major, x->kind, warm_id_text(x->id, id), warm_key_text(&x->key, text),
			x->created_ms, x->mount);
	if (x->complete != NULL)
		warm_buf_printf(&out, "complete '%s'\n", x->complete);
	for (size_t i = 0; i < x->n_covered; i++)
		warm_buf_printf(&out, "covers %s\n", warm_id_text(x->covered[i], id));
	uint8_t *raw = malloc((size_t)x->raw_bytes + 1);
	assert_non_null(raw);
	assert_int_equal(warm_unpack_new(&unpack, NULL), 0);
	for (size_t i = 0; i < x->n_frames; i++) {
		const struct warm_frame *f = &x->frames[i];
		const uint8_t *decoded = NULL;
		if (warm_unpack_frame(unpack, x, i, layer + f->offset, &decoded, &err) != 0)
			fail_msg("%s", err.msg);
		memcpy(raw + f->raw_offset, decoded, f->raw_bytes);
	}
	warm_buf_printf(&out, "tar bytes=%" PRIu64 " sha256=", x->raw_bytes);
	put_digest(&out, raw, (size_t)x->raw_bytes);
	warm_buf_printf(&out, "\n");
	for (size_t i = 0; i < x->n_groups; i++) {
		const struct warm_group *g = &x->groups[i];
		warm_buf_printf(&out,
				"group %s profile=%s origin=%s bound=%016" PRIx64 " flags=%u\n",
				warm_path_printable(g->name, shown, sizeof(shown)), g->profile,
				warm_id_text(g->origin, id), g->bound, g->flags);
		for (size_t k = 0; k < g->n_files; k++) {
			const struct warm_file *f = &x->files[g->first_file + k];
			warm_buf_printf(&out,
					"  file %s size=%" PRIu64 " mode=%o mtime_ns=%" PRId64
					" raw_offset=%" PRIu64 " sha256=",
					warm_path_printable(f->path, shown, sizeof(shown)), f->size,
					f->mode, f->mtime_ns, f->raw_offset);
			put_digest(&out, raw + f->raw_offset, (size_t)f->size);
			warm_buf_printf(&out, "\n");
		}
	}
	free(raw);
	assert_false(out.failed);
	return (char *)out.data;
}

void hear(void *arg, const char *event, const char *text)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct heard *h = arg;

	pthread_mutex_lock(&lock);
	if (h->used < sizeof(h->text)) {
		int n = snprintf(h->text + h->used, sizeof(h->text) - h->used, "%s: %s\n", event,
				 text);
		h->used += n > 0 ? (size_t)n : 0;
	}
	pthread_mutex_unlock(&lock);
}
