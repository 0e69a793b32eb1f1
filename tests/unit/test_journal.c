/* SPDX-License-Identifier: Apache-2.0 */
/* The log by itself; then what the compiler writes into it, with a real NVRTC. */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

#include "compiler/journal.h"
#include "warmcache/compiler.h"

static struct warm_kernel_text t(const char *s)
{
	return (struct warm_kernel_text){ s, strlen(s) };
}

/* ---- reading it ---- */

struct lines {
	json_t *list; /* an array of objects */
};

/* Each line must be JSON by itself, and the last one ended. */
static struct lines read_lines(const char *path)
{
	struct lines l = { json_array() };
	scope_free char *text = text_of(AT_FDCWD, path, NULL);

	for (char *at = text; *at != '\0';) {
		json_error_t error;
		char *end = strchr(at, '\n');
		assert_non_null(end);
		*end = '\0';
		json_t *one = json_loads(at, JSON_REJECT_DUPLICATES, &error);
		if (one == NULL)
			fail_msg("%s: %.300s", error.text, at);
		json_array_append_new(l.list, one);
		at = end + 1;
	}
	return l;
}

static void release_lines(struct lines *l)
{
	json_decref(l->list);
}
#define scope_lines WARM_SCOPE(release_lines)

static size_t count_lines(const struct lines *l)
{
	return json_array_size(l->list);
}

/* A string field of line `i`; NULL when it has none. Negative: from the end. */
static const char *field(const struct lines *l, int i, const char *name)
{
	size_t at = i < 0 ? count_lines(l) - (size_t)-i : (size_t)i;

	return json_string_value(json_object_get(json_array_get(l->list, at), name));
}

static json_t *value(const struct lines *l, int i, const char *name)
{
	size_t at = i < 0 ? count_lines(l) - (size_t)-i : (size_t)i;

	return json_object_get(json_array_get(l->list, at), name);
}

/* ---- the log by itself ---- */

static struct warm_kernel_text some_options[2], some_expressions[1];

static struct warm_kernel_inputs sound(void)
{
	some_options[0] = t("-arch=sm_90");
	some_options[1] = t("-DX=1");
	some_expressions[0] = t("k<int>");
	return (struct warm_kernel_inputs){ .compiler = t("b:11 b:22"),
					    .environment = t(""),
					    .name = t("k.cu"),
					    .options = some_options,
					    .n_options = 2,
					    .expressions = some_expressions,
					    .n_expressions = 1,
					    .source_bytes = 100,
					    .source_digest = { 0xab, 0xcd },
					    .headers_bytes = 7,
					    .n_headers = 3,
					    .headers_digest = { 1, 2 } };
}

static void write_event(struct warm_journal *j, const char *event,
			const struct warm_kernel_inputs *in)
{
	struct warm_journal_event e = { .event = event,
					.inputs = in,
					.fingerprint = { 0x22, 0x11 },
					.duration_ns = 1234567,
					.bytes = 89 };

	warm_journal_write(j, &e);
}

TEST(no_log_is_kept_where_nobody_asked_or_none_can_be_had)
{
	scope_scratch struct scratch s = scratch_open();

	assert_null(warm_journal_open(NULL));
	assert_null(warm_journal_open(""));
	assert_null(warm_journal_open(s.path)); /* a directory */
	assert_null(warm_journal_open(scratch_path(&s, "no/such/place")));
	warm_journal_close(NULL);
	warm_journal_fork(NULL, WARM_FORK_PREPARE);
	warm_journal_fork(NULL, WARM_FORK_PARENT);
}

TEST(a_miss_is_one_line_with_all_that_it_was_made_from)
{
	scope_scratch struct scratch s = scratch_open();
	const char *path = scratch_path(&s, "log");
	struct warm_journal *j = warm_journal_open(path);
	struct warm_kernel_inputs in = sound();
	struct warm_journal_event e = { .event = "miss",
					.inputs = &in,
					.fingerprint = { 0x22, 0x11 },
					.duration_ns = 1234567,
					.bytes = 89,
					.dependency = "/x/a.h changed or is gone" };
	time_t before = time(NULL);
	struct tm tm = { 0 };

	assert_non_null(j);
	warm_journal_write(j, &e);
	warm_journal_close(j);
	scope_lines struct lines l = read_lines(path);
	assert_int_equal(count_lines(&l), 1);
	assert_string_equal(field(&l, 0, "event"), "miss");
	assert_string_equal(field(&l, 0, "name"), "k.cu");
	assert_string_equal(field(&l, 0, "fingerprint"), "00000000000000110000000000000022");
	assert_int_equal(json_integer_value(value(&l, 0, "us")), 1234);
	assert_int_equal(json_integer_value(value(&l, 0, "bytes")), 89);
	assert_int_equal(json_integer_value(value(&l, 0, "pid")), getpid());
	assert_string_equal(field(&l, 0, "dependency"), "/x/a.h changed or is gone");
	assert_null(value(&l, 0, "reason"));
	assert_null(value(&l, 0, "differs"));
	assert_string_equal(field(&l, 0, "compiler"), "b:11 b:22");
	assert_string_equal(field(&l, 0, "environment"), "");
	assert_int_equal(json_array_size(value(&l, 0, "options")), 2);
	assert_string_equal(json_string_value(json_array_get(value(&l, 0, "options"), 1)), "-DX=1");
	assert_int_equal(json_array_size(value(&l, 0, "name_expressions")), 1);
	assert_int_equal(json_integer_value(value(&l, 0, "source_bytes")), 100);
	assert_string_equal(field(&l, 0, "source_digest"), "00000000000000cd00000000000000ab");
	assert_int_equal(json_integer_value(value(&l, 0, "headers")), 3);
	assert_int_equal(json_integer_value(value(&l, 0, "headers_bytes")), 7);
	assert_string_equal(field(&l, 0, "headers_digest"), "00000000000000020000000000000001");
	/* "2026-01-02T03:04:05.678Z" */
	const char *when = field(&l, 0, "time");
	assert_int_equal(strlen(when), 24);
	assert_string_equal(strptime(when, "%Y-%m-%dT%H:%M:%S", &tm) + 4, "Z");
	assert_true(timegm(&tm) >= before && timegm(&tm) <= time(NULL));
}

TEST(a_hit_is_short)
{
	scope_scratch struct scratch s = scratch_open();
	const char *path = scratch_path(&s, "log");
	struct warm_journal *j = warm_journal_open(path);
	struct warm_kernel_inputs in = sound();

	write_event(j, "miss", &in);
	some_options[1] = t("-DX=2");
	write_event(j, "hit", &in);
	write_event(j, "wait", &in);
	some_options[1] = t("-DX=3");
	write_event(j, "miss", &in);
	warm_journal_close(j);
	scope_lines struct lines l = read_lines(path);
	for (int i = 1; i <= 2; i++) {
		assert_null(value(&l, i, "options"));
		assert_null(value(&l, i, "differs"));
		assert_string_equal(field(&l, i, "name"), "k.cu");
	}
	/* But it is what the next one is compared with. */
	assert_string_equal(field(&l, 3, "differs"), "option 2: -DX=3 was -DX=2");
}

TEST(a_miss_is_compared_with_the_last_program_of_its_name)
{
	scope_scratch struct scratch s = scratch_open();
	const char *path = scratch_path(&s, "log");
	struct warm_journal *j = warm_journal_open(path);
	struct warm_kernel_inputs in = sound(), other = sound();

	other.name = t("other.cu");
	other.source_bytes = 5;
	write_event(j, "miss", &in);
	write_event(j, "miss", &other);
	in.source_bytes = 101;
	write_event(j, "uncacheable", &in);
	write_event(j, "error", &in); /* the same once more */
	in.n_options = 1;
	write_event(j, "unstored", &in);
	warm_journal_close(j);
	scope_lines struct lines l = read_lines(path);
	assert_null(value(&l, 0, "differs"));
	assert_null(value(&l, 1, "differs")); /* the first of its name */
	assert_string_equal(field(&l, 2, "differs"), "source: 101 bytes were 100");
	assert_null(value(&l, 3, "differs"));
	assert_string_equal(field(&l, 4, "differs"), "option 2: -DX=1 is gone");
}

TEST(two_names_that_fall_together_are_never_compared)
{
	scope_scratch struct scratch s = scratch_open();
	const char *path = scratch_path(&s, "log");
	struct warm_journal *j = warm_journal_open(path);
	struct warm_kernel_inputs in = sound();
	char name[20];

	/* More names than are remembered: each takes another's place. */
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "k%d.cu", i);
		in.name = t(name);
		in.source_bytes = (uint64_t)i;
		write_event(j, "miss", &in);
	}
	in.source_bytes = 5000;
	write_event(j, "miss", &in);
	warm_journal_close(j);
	scope_lines struct lines l = read_lines(path);
	assert_int_equal(count_lines(&l), 1001);
	for (int i = 0; i < 1000; i++)
		assert_null(value(&l, i, "differs"));
	assert_string_equal(field(&l, 1000, "differs"), "source: 5000 bytes were 999");
}

TEST(whatever_is_in_a_name_or_an_option_a_line_is_json)
{
	scope_scratch struct scratch s = scratch_open();
	const char *path = scratch_path(&s, "log");
	struct warm_journal *j = warm_journal_open(path);
	static const char *const strange[] = {
		"quote \" and \\ and /",
		"line\nbreak\r\n\ttab",
		"\x01\x1f\x7f",
		"\xff\xfe not utf8 \xc3",
		"\xed\xa0\x80",
		"\xc3\xa9t\xc3\xa9",
		"{\"event\":\"forged\"}\n{",
		"",
	};
	struct warm_kernel_inputs in = sound();
	struct warm_journal_event e = { .event = "error", .inputs = &in };

	for (size_t i = 0; i < COUNT(strange); i++) {
		in.name = some_options[1] = some_expressions[0] = t(strange[i]);
		e.reason = e.dependency = strange[i];
		warm_journal_write(j, &e);
		some_options[1] = t("-DX"); /* and in what differs */
		warm_journal_write(j, &e);
	}
	warm_journal_close(j);
	scope_lines struct lines l = read_lines(path);
	assert_int_equal(count_lines(&l), 2 * COUNT(strange));
	assert_string_equal(field(&l, 0, "name"), strange[0]);
	assert_string_equal(field(&l, 2, "name"), strange[1]);
	assert_string_equal(field(&l, 2, "reason"), strange[1]);
	assert_string_equal(json_string_value(json_array_get(value(&l, 2, "options"), 1)),
			    strange[1]);
	assert_non_null(strstr(field(&l, 3, "differs"), strange[1]));
	assert_string_equal(field(&l, 10, "dependency"), strange[5]);
	assert_null(value(&l, 14, "reason")); /* an empty one is none */
}

TEST(a_line_of_a_megabyte_stays_one_line)
{
	scope_scratch struct scratch s = scratch_open();
	const char *path = scratch_path(&s, "log");
	struct warm_journal *j = warm_journal_open(path);
	struct warm_kernel_inputs in = sound();
	enum { BYTES = 1 << 20 };
	scope_free char *large = malloc(BYTES + 1);

	assert_non_null(large);
	memset(large, '\x02', BYTES);
	large[BYTES] = '\0';
	some_options[1] = t(large);
	write_event(j, "miss", &in);
	some_options[1] = t("-DX");
	write_event(j, "miss", &in);
	warm_journal_close(j);
	scope_lines struct lines l = read_lines(path);
	assert_int_equal(count_lines(&l), 2);
	assert_int_equal(json_string_length(json_array_get(value(&l, 0, "options"), 1)), BYTES);
	assert_true(json_string_length(value(&l, 1, "differs")) > BYTES);
}

TEST(the_log_can_go_to_stderr)
{
	scope_scratch struct scratch s = scratch_open();
	struct warm_kernel_inputs in = sound();
	scope_close int saved = dup(STDERR_FILENO);
	scope_close int fd = openat(s.fd, "log", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(saved >= 0 && fd >= 0);
	assert_true(dup2(fd, STDERR_FILENO) >= 0);
	struct warm_journal *j = warm_journal_open("stderr");
	/* Where the host's stderr went later doesn't matter. */
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	assert_non_null(j);
	write_event(j, "miss", &in);
	warm_journal_close(j);
	scope_lines struct lines l = read_lines(scratch_path(&s, "log"));
	assert_int_equal(count_lines(&l), 1);
	assert_true(fcntl(STDERR_FILENO, F_GETFD) >= 0); /* only the copy was closed */
}

struct writer {
	struct warm_journal *j;
	int number;
};

static void *write_many(void *arg)
{
	struct writer *w = arg;
	char name[20];
	struct warm_kernel_text options[2] = { t("-arch=sm_90"), t("-DX=1") };
	struct warm_kernel_inputs in = {
		.compiler = t("b:1 b:2"), .environment = t(""), .options = options, .n_options = 2
	};

	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "k%d.cu", i % 3);
		in.name = t(name);
		in.source_bytes = (uint64_t)(1000 * w->number + i);
		write_event(w->j, i % 2 == 0 ? "miss" : "hit", &in);
	}
	return NULL;
}

TEST(threads_and_processes_that_write_at_once_write_whole_lines)
{
	scope_scratch struct scratch s = scratch_open();
	const char *path = scratch_path(&s, "log");
	pid_t children[3];
	struct writer writers[4];
	pthread_t threads[4];

	for (int p = 0; p < 3; p++) {
		children[p] = fork();
		if (children[p] == 0) {
			struct writer w = { warm_journal_open(path), 10 + p };
			if (w.j == NULL)
				_exit(1);
			write_many(&w);
			warm_journal_close(w.j);
			_exit(0);
		}
	}
	struct warm_journal *j = warm_journal_open(path);
	assert_non_null(j);
	for (int i = 0; i < 4; i++) {
		writers[i] = (struct writer){ j, i };
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, &writers[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	warm_journal_close(j);
	for (int p = 0; p < 3; p++) {
		int status = -1;
		assert_int_equal(waitpid(children[p], &status, 0), children[p]);
		assert_int_equal(status, 0);
	}
	scope_lines struct lines l = read_lines(path);
	assert_int_equal(count_lines(&l), 700);
}

/* ---- what the compiler writes ---- */

static bool lacking(void)
{
	const char *library = getenv("WARM_NVRTC_LIBRARY"), *helper = getenv("WARM_NVRTC_HELPER");

	return library == NULL || library[0] == '\0' || helper == NULL || helper[0] == '\0';
}
#define NEEDS_NVRTC()  \
	if (lacking()) \
	skip()

struct bench {
	struct scratch s;
	struct warm_compiler *c;
	char cache[300], log[300], option[320];
	const char *options[4];
	struct warm_compile_program p;
};

static void open_bench(struct bench *b)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;

	*b = (struct bench){ .s = scratch_open() };
	snprintf(b->cache, sizeof(b->cache), "%s/cache", b->s.path);
	snprintf(b->log, sizeof(b->log), "%s/log", b->s.path);
	snprintf(b->option, sizeof(b->option), "-I%s/inc", b->s.path);
	put_dir(b->s.fd, "cache");
	put_dir(b->s.fd, "inc");
	b->options[0] = "-arch=sm_90";
	b->p = (struct warm_compile_program){ .source = "__global__ void k() {}\n",
					      .source_bytes = 23,
					      .name = "/some/where/k.cu",
					      .options = b->options,
					      .n_options = 1 };
	o.cache_dir = b->cache;
	setenv("WARM_COMPILER_LOG", b->log, 1);
	int rc = warm_compiler_open(&o, &b->c, NULL);
	unsetenv("WARM_COMPILER_LOG");
	assert_int_equal(rc, 0);
}

static void close_bench(struct bench *b)
{
	warm_compiler_close(b->c);
	scratch_close(&b->s);
}
#define scope_bench WARM_SCOPE(close_bench)

/* Returns the status; the lines that the log has then are in `ret_lines`. */
static int compile(struct bench *b, struct lines *ret_lines)
{
	struct warm_compile_result *r = NULL;
	struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;
	int rc = warm_compiler_compile(b->c, &b->p, &r, &e);

	warm_compile_result_free(r);
	warm_compiler_error_release(&e);
	*ret_lines = read_lines(b->log);
	return rc;
}

/* Compile once more and look at the line for it; NULL: it has no such field. */
static void assert_line(struct bench *b, const char *event, const char *name, const char *want)
{
	struct lines l;

	(void)compile(b, &l);
	const char *got = field(&l, -1, name);
	assert_string_equal(field(&l, -1, "event"), event);
	if (want == NULL)
		assert_null(got);
	else if (got == NULL || strstr(got, want) == NULL)
		fail_msg("%s is '%s', wanted '%s'", name, got != NULL ? got : "not there", want);
	release_lines(&l);
}

TEST(each_call_is_told_by_what_came_of_it)
{
	NEEDS_NVRTC();
	scope_bench struct bench b;

	open_bench(&b);
	assert_line(&b, "miss", "name", "k.cu");
	assert_line(&b, "hit", "reason", NULL);
	b.p.source = "__device__ const char t[] = __TIME__;";
	b.p.source_bytes = strlen(b.p.source);
	assert_line(&b, "uncacheable", "reason", "the source uses __TIME__");
	b.p.source = "__global__ void k() { undeclared_thing(); }";
	b.p.source_bytes = strlen(b.p.source);
	assert_line(&b, "error", "reason", "NVRTC_ERROR_COMPILATION");
	b.p.source = "__global__ void other() {}";
	b.p.source_bytes = strlen(b.p.source);
	assert_int_equal(shell("rm -r %s/nvrtc && touch %s/nvrtc", b.cache, b.cache), 0);
	assert_line(&b, "unstored", "reason", "nvrtc");
	scope_lines struct lines l = read_lines(b.log);
	assert_int_equal(count_lines(&l), 5);
	for (int i = 0; i < 5; i++) {
		bool compiled = i == 0 || i == 2 || i == 4;
		assert_true((json_integer_value(value(&l, i, "bytes")) > 500) ==
			    (compiled || i == 1));
		assert_true(json_integer_value(value(&l, i, "us")) > 0);
	}
	assert_string_equal(field(&l, 0, "fingerprint"), field(&l, 1, "fingerprint"));
	assert_string_not_equal(field(&l, 0, "fingerprint"), field(&l, 2, "fingerprint"));
}

TEST(a_miss_tells_what_differs_from_the_last_of_its_name)
{
	NEEDS_NVRTC();
	scope_bench struct bench b;
	static const char *const expressions[] = { "other" };
	struct warm_header header = { "a.h", "int a;", 6 };

	open_bench(&b);
	assert_line(&b, "miss", "differs", NULL);
	b.options[0] = "-arch=sm_80";
	assert_line(&b, "miss", "differs", "option 1: -arch=sm_80 was -arch=sm_90");
	b.options[1] = "-DX=1";
	b.p.n_options = 2;
	assert_line(&b, "miss", "differs", "option 2: -DX=1 is new");
	b.options[0] = "-DX=1";
	b.options[1] = "-arch=sm_80";
	assert_line(&b, "miss", "differs", "option 1: -DX=1 was -arch=sm_80; option 2");
	b.p.n_options = 1;
	assert_line(&b, "miss", "differs", "option 2: -arch=sm_80 is gone");
	b.p.source = "__global__ void k() {} __global__ void other() {}";
	b.p.source_bytes = strlen(b.p.source);
	assert_line(&b, "miss", "differs", "source: 49 bytes were 23");
	b.p.name_expressions = expressions;
	b.p.n_name_expressions = 1;
	assert_line(&b, "miss", "differs", "name expression 1: other is new");
	b.p.headers = &header;
	b.p.n_headers = 1;
	assert_line(&b, "miss", "differs", "headers in memory: 1 were 0");
	header.source = "int b;";
	assert_line(&b, "miss", "differs", "headers in memory: other contents");
	setenv("EDG_BASE", "/nowhere", 1);
	assert_line(&b, "miss", "differs", "environment: EDG_BASE=/nowhere is new");
	unsetenv("EDG_BASE");
}

TEST(a_miss_tells_which_dependency_did_not_hold)
{
	NEEDS_NVRTC();
	scope_bench struct bench b;
	char before[320], want[340];

	open_bench(&b);
	snprintf(before, sizeof(before), "-I%s/before", b.s.path);
	put_dir(b.s.fd, "before");
	put_text(b.s.fd, "inc/a.h", "#define VALUE 1\n");
	b.options[1] = before;
	b.options[2] = b.option;
	b.p.n_options = 3;
	b.p.source = "#include <a.h>\n__global__ void k(int *a) { a[0] = VALUE; }";
	b.p.source_bytes = strlen(b.p.source);
	assert_line(&b, "miss", "dependency", NULL);
	assert_line(&b, "hit", "dependency", NULL);
	put_text(b.s.fd, "inc/a.h", "#define VALUE 22\n");
	snprintf(want, sizeof(want), "%s/inc/a.h changed or is gone", b.s.path);
	assert_line(&b, "miss", "dependency", want);
	put_text(b.s.fd, "before/a.h", "#define VALUE 3\n");
	snprintf(want, sizeof(want), "%s/before/a.h appeared", b.s.path);
	assert_line(&b, "miss", "dependency", want);
	assert_line(&b, "hit", "dependency", NULL);
	/* An older variant holds again: that the newest one didn't is no news. */
	assert_int_equal(unlinkat(b.s.fd, "before/a.h", 0), 0);
	assert_line(&b, "hit", "dependency", NULL);
	assert_int_equal(unlinkat(b.s.fd, "inc/a.h", 0), 0);
	assert_line(&b, "error", "dependency", "a.h changed or is gone");
}

TEST(strange_bytes_in_a_program_leave_the_log_readable)
{
	NEEDS_NVRTC();
	scope_bench struct bench b;

	open_bench(&b);
	b.p.name = "\xff\"\n\x01.cu";
	b.options[1] = "-DX=\"\xfe\\\n\"";
	b.p.n_options = 2;
	scope_lines struct lines l;
	(void)compile(&b, &l);
	assert_int_equal(count_lines(&l), 1);
	assert_string_equal(field(&l, 0, "name"), "\xc3\xbf\"\n\x01.cu");
	assert_string_equal(json_string_value(json_array_get(value(&l, 0, "options"), 1)),
			    "-DX=\"\xc3\xbe\\\n\"");
}

static void *compile_in_thread(void *arg)
{
	struct bench *b = arg;
	struct warm_compile_result *r = NULL;

	if (warm_compiler_compile(b->c, &b->p, &r, NULL) != 0)
		return b;
	warm_compile_result_free(r);
	return NULL;
}

TEST(a_hit_that_waited_for_anothers_compile_is_told_as_such)
{
	NEEDS_NVRTC();
	scope_bench struct bench b;
	pthread_t threads[4];
	int waits = 0, misses = 0, hits = 0;

	open_bench(&b);
	b.p.source = "__global__ void k(float *a) { for (int i = 0; i < 5; i++) a[i] = "
		     "sinf(a[i]) * powf(a[i + 1], a[i + 2]); }";
	b.p.source_bytes = strlen(b.p.source);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, compile_in_thread, &b), 0);
	for (int i = 0; i < 4; i++) {
		void *bad;
		assert_int_equal(pthread_join(threads[i], &bad), 0);
		assert_null(bad);
	}
	scope_lines struct lines l = read_lines(b.log);
	assert_int_equal(count_lines(&l), 4);
	for (int i = 0; i < 4; i++) {
		const char *event = field(&l, i, "event");
		waits += strcmp(event, "wait") == 0;
		misses += strcmp(event, "miss") == 0;
		hits += strcmp(event, "hit") == 0;
	}
	assert_int_equal(misses, 1);
	assert_int_equal(waits + hits, 3);
	assert_true(waits > 0);
}

TEST(a_fork_writes_to_its_parents_log)
{
	NEEDS_NVRTC();
	scope_bench struct bench b;
	struct lines l;

	open_bench(&b);
	assert_line(&b, "miss", "differs", NULL);
	pid_t child = fork();
	if (child == 0)
		_exit(compile_in_thread(&b) != NULL);
	int status = -1;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(compile(&b, &l), 0);
	assert_int_equal(count_lines(&l), 3);
	assert_int_equal(json_integer_value(value(&l, 1, "pid")), child);
	assert_string_equal(field(&l, 1, "event"), "hit");
	assert_int_equal(json_integer_value(value(&l, 2, "pid")), getpid());
	release_lines(&l);
}

TEST(a_log_that_cannot_be_written_disturbs_no_compile)
{
	NEEDS_NVRTC();
	static const char *const places[] = { "/nowhere/at/all", "/", "/dev/full" };
	static const char *const options[] = { "-arch=sm_90" };
	struct warm_compile_program p = { .source = "__global__ void k() {}",
					  .source_bytes = 22,
					  .options = options,
					  .n_options = 1 };

	for (size_t i = 0; i < COUNT(places); i++) {
		struct warm_compiler *c = NULL;
		struct warm_compile_result *r = NULL;
		setenv("WARM_COMPILER_LOG", places[i], 1);
		int rc = warm_compiler_open(NULL, &c, NULL);
		unsetenv("WARM_COMPILER_LOG");
		assert_int_equal(rc, 0);
		assert_int_equal(warm_compiler_compile(c, &p, &r, NULL), 0);
		warm_compile_result_free(r);
		warm_compiler_close(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_log_is_kept_where_nobody_asked_or_none_can_be_had),
		cmocka_unit_test(a_miss_is_one_line_with_all_that_it_was_made_from),
		cmocka_unit_test(a_hit_is_short),
		cmocka_unit_test(a_miss_is_compared_with_the_last_program_of_its_name),
		cmocka_unit_test(two_names_that_fall_together_are_never_compared),
		cmocka_unit_test(whatever_is_in_a_name_or_an_option_a_line_is_json),
		cmocka_unit_test(a_line_of_a_megabyte_stays_one_line),
		cmocka_unit_test(the_log_can_go_to_stderr),
		cmocka_unit_test(threads_and_processes_that_write_at_once_write_whole_lines),
		cmocka_unit_test(each_call_is_told_by_what_came_of_it),
		cmocka_unit_test(a_miss_tells_what_differs_from_the_last_of_its_name),
		cmocka_unit_test(a_miss_tells_which_dependency_did_not_hold),
		cmocka_unit_test(strange_bytes_in_a_program_leave_the_log_readable),
		cmocka_unit_test(a_hit_that_waited_for_anothers_compile_is_told_as_such),
		cmocka_unit_test(a_fork_writes_to_its_parents_log),
		cmocka_unit_test(a_log_that_cannot_be_written_disturbs_no_compile),
	};

	if (lacking())
		print_message("# note: WARM_NVRTC_LIBRARY and WARM_NVRTC_HELPER are not set; some "
			      "is skipped\n");
	unsetenv("WARM_CACHE_DIR");
	unsetenv("WARM_COMPILER_LOG");
	unsetenv("WARM_COMPILER_MAX_BYTES");
	alarm(300); /* what waits for ever fails */
	return RUN(tests);
}
