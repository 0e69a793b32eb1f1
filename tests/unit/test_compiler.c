/* SPDX-License-Identifier: Apache-2.0 */
/* With a real NVRTC: WARM_NVRTC_LIBRARY names it and WARM_NVRTC_HELPER the helper. */
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

#include "warmcache/compiler.h"

#ifdef __SANITIZE_THREAD__
enum { UNDER_TSAN = 1 };
#else
enum { UNDER_TSAN = 0 };
#endif

static const char plain[] = "extern \"C\" __global__ void k(float *a) { a[threadIdx.x] += 1; }\n";
static const char *const arch[] = { "-arch=sm_90" };

struct bench {
	struct scratch s;
	struct warm_compiler *c;
	struct warm_compiler_error err;
	char cache[300], inc[300], option[320], helper[1024];
};

static bool lacking(void)
{
	const char *library = getenv("WARM_NVRTC_LIBRARY"), *helper = getenv("WARM_NVRTC_HELPER");

	return library == NULL || library[0] == '\0' || helper == NULL || helper[0] == '\0';
}
#define NEEDS_NVRTC()  \
	if (lacking()) \
	skip()

static void reopen(struct bench *b, int mode)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;

	warm_compiler_close(b->c);
	b->c = NULL;
	o.cache_dir = b->cache;
	o.mode = mode;
	if (b->helper[0] != '\0')
		o.helper = b->helper;
	if (warm_compiler_open(&o, &b->c, &b->err) != 0)
		fail_msg("%s", b->err.message);
}

static struct bench open_bench(void)
{
	struct bench b = { .s = scratch_open(), .err = WARM_COMPILER_ERROR_INIT };

	snprintf(b.cache, sizeof(b.cache), "%s/cache", b.s.path);
	snprintf(b.inc, sizeof(b.inc), "%s/inc", b.s.path);
	snprintf(b.option, sizeof(b.option), "-I%s", b.inc);
	put_dir(b.s.fd, "cache");
	put_dir(b.s.fd, "inc");
	reopen(&b, WARM_MODE_TRACED);
	return b;
}

static void close_bench(struct bench *b)
{
	warm_compiler_close(b->c);
	warm_compiler_error_release(&b->err);
	(void)shell("chmod -R u+rwX %s", b->s.path);
	scratch_close(&b->s);
}

static struct warm_compile_program program_of(const char *source)
{
	return (struct warm_compile_program){
		.source = source,
		.source_bytes = strlen(source),
		.name = "k.cu",
		.options = arch,
		.n_options = 1,
	};
}

static struct warm_compile_result *compile_as(struct bench *b, const struct warm_compile_program *p,
					      enum warm_compile_source want)
{
	struct warm_compile_result *r = NULL;

	if (warm_compiler_compile(b->c, p, &r, &b->err) != 0)
		fail_msg("%s\n%s", b->err.message, b->err.log != NULL ? b->err.log : "");
	if (warm_compile_result_source(r) != want)
		fail_msg("wanted source %d, got %d: %s", (int)want,
			 (int)warm_compile_result_source(r), warm_compile_result_reason(r));
	return r;
}

static void expect(struct bench *b, const struct warm_compile_program *p,
		   enum warm_compile_source want)
{
	warm_compile_result_free(compile_as(b, p, want));
}

static void assert_same(const struct warm_compile_result *x, const struct warm_compile_result *y)
{
	for (int kind = WARM_OUTPUT_PTX; kind <= WARM_OUTPUT_OPTIXIR; kind++) {
		size_t n = 0, m = 0;
		const void *a = warm_compile_result_output(x, (enum warm_output)kind, &n);
		const void *b = warm_compile_result_output(y, (enum warm_output)kind, &m);
		assert_int_equal(n, m);
		if (n > 0)
			assert_memory_equal(a, b, n);
	}
	assert_string_equal(warm_compile_result_log(x), warm_compile_result_log(y));
	assert_string_equal(warm_compile_result_fingerprint(x), warm_compile_result_fingerprint(y));
}

/* The one entry in the cache. */
static char *entry_path(const struct bench *b)
{
	char pattern[700];
	glob_t g, v;

	snprintf(pattern, sizeof(pattern), "%s/nvrtc/v1/[0-9a-f][0-9a-f]/*", b->cache);
	assert_int_equal(glob(pattern, 0, NULL, &g), 0);
	assert_int_equal(g.gl_pathc, 1);
	char *path = strdup(g.gl_pathv[0]);
	snprintf(pattern, sizeof(pattern), "%s/*", path);
	if (glob(pattern, 0, NULL, &v) == 0) {
		free(path);
		path = strdup(v.gl_pathv[0]);
		globfree(&v);
	}
	globfree(&g);
	return path;
}

TEST(a_second_call_reads_what_the_first_compiled)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	struct warm_compiler_counters n;
	size_t bytes = 0;

	struct warm_compile_result *miss = compile_as(&b, &p, WARM_COMPILE_MISS);
	assert_non_null(warm_compile_result_output(miss, WARM_OUTPUT_CUBIN, &bytes));
	assert_true(bytes > 500);
	struct warm_compile_result *hit = compile_as(&b, &p, WARM_COMPILE_HIT);
	assert_same(miss, hit);
	warm_compile_result_free(hit);
	reopen(&b, WARM_MODE_TRACED); /* as another process */
	hit = compile_as(&b, &p, WARM_COMPILE_HIT);
	assert_same(miss, hit);
	warm_compiler_get_counters(b.c, &n, sizeof(n));
	assert_int_equal(n.hits, 1);
	assert_int_equal(n.misses, 0);
	assert_int_equal(n.bad_entries, 0);
	assert_true(n.bytes_read > bytes);
	warm_compile_result_free(hit);
	warm_compile_result_free(miss);
	close_bench(&b);
}

TEST(each_input_makes_another_program)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	static const char *const other_arch[] = { "-arch=sm_80" };
	static const char *const more[] = { "-arch=sm_90", "-DX=1" };
	struct warm_compile_program p = program_of(plain);

	expect(&b, &p, WARM_COMPILE_MISS);
	p.options = other_arch;
	expect(&b, &p, WARM_COMPILE_MISS);
	p.options = more;
	p.n_options = 2;
	expect(&b, &p, WARM_COMPILE_MISS);
	p = program_of(plain);
	p.name = "other.cu";
	expect(&b, &p, WARM_COMPILE_MISS);
	p = program_of("extern \"C\" __global__ void k(float *a) { a[threadIdx.x] += 2; }\n");
	expect(&b, &p, WARM_COMPILE_MISS);
	p = program_of(plain);
	expect(&b, &p, WARM_COMPILE_HIT);
	close_bench(&b);
}

TEST(a_bad_entry_is_a_miss_and_is_replaced)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	struct warm_compiler_counters n;

	expect(&b, &p, WARM_COMPILE_MISS);
	char *path = entry_path(&b);
	flip_byte(path, 200);
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	assert_int_equal(truncate(path, 100), 0);
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	assert_int_equal(truncate(path, 0), 0);
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0777), 0); /* something else in its place */
	struct warm_compile_result *r = NULL;
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), 0);
	assert_int_equal(warm_compile_result_source(r), WARM_COMPILE_UNSTORED);
	warm_compile_result_free(r);
	warm_compiler_get_counters(b.c, &n, sizeof(n));
	assert_true(n.bad_entries >= 3);
	free(path);
	close_bench(&b);
}

TEST(a_compile_error_carries_the_log_and_is_not_kept)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p =
		program_of("__global__ void k() { undeclared_thing = 1; }\n");
	struct warm_compile_result *r = NULL;
	struct warm_compiler_counters n;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err),
				 WARM_COMPILER_COMPILE_ERROR);
		assert_null(r);
		assert_int_equal(b.err.status, WARM_COMPILER_COMPILE_ERROR);
		assert_true(b.err.nvrtc_result != 0);
		assert_non_null(b.err.log);
		assert_non_null(strstr(b.err.log, "undeclared_thing"));
		warm_compiler_error_release(&b.err);
	}
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, NULL), WARM_COMPILER_COMPILE_ERROR);
	warm_compiler_get_counters(b.c, &n, sizeof(n));
	assert_int_equal(n.failed, 3);
	assert_int_equal(n.misses, 0);
	close_bench(&b);
}

static struct warm_compile_program with_include(const struct bench *b, const char *const options[2])
{
	struct warm_compile_program p = program_of("#include \"a.h\"\nextern \"C\" __global__ void "
						   "k(float *a) { a[threadIdx.x] += VALUE; }\n");

	(void)b;
	p.options = options;
	p.n_options = 2;
	return p;
}

TEST(a_header_that_changed_on_disk_is_never_stale)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	const char *const options[2] = { "-arch=sm_90", b.option };
	struct warm_compile_program p = with_include(&b, options);

	put_text(b.s.fd, "inc/a.h", "#define VALUE 1\n");
	struct warm_compile_result *one = compile_as(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	/* The same size and mtime: only contents and ctime tell. */
	struct stat st = stat_of(b.s.fd, "inc/a.h");
	put_file(b.s.fd, "inc/a.h", "#define VALUE 2\n", 16, 0644, warm_timespec_ns(st.st_mtim));
	struct warm_compile_result *two = compile_as(&b, &p, WARM_COMPILE_MISS);
	size_t n = 0, m = 0;
	const void *x = warm_compile_result_output(one, WARM_OUTPUT_CUBIN, &n);
	const void *y = warm_compile_result_output(two, WARM_OUTPUT_CUBIN, &m);
	assert_false(n == m && memcmp(x, y, n) == 0);
	/* Both variants live: back and forth are hits, also in another process. */
	reopen(&b, WARM_MODE_TRACED);
	struct warm_compile_result *again = compile_as(&b, &p, WARM_COMPILE_HIT);
	assert_same(two, again);
	warm_compile_result_free(again);
	put_text(b.s.fd, "inc/a.h", "#define VALUE 1\n");
	again = compile_as(&b, &p, WARM_COMPILE_HIT);
	assert_same(one, again);
	warm_compile_result_free(again);
	warm_compile_result_free(one);
	warm_compile_result_free(two);
	close_bench(&b);
}

TEST(a_new_header_that_shadows_another_is_a_miss)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	char before[340];
	snprintf(before, sizeof(before), "-I%s/before", b.s.path);
	const char *const options[3] = { "-arch=sm_90", before, b.option };
	struct warm_compile_program p = with_include(&b, options);

	p.n_options = 3;
	put_dir(b.s.fd, "before");
	put_text(b.s.fd, "inc/a.h", "#define VALUE 1\n");
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	put_text(b.s.fd, "before/a.h", "#define VALUE 2\n");
	expect(&b, &p, WARM_COMPILE_MISS);
	assert_int_equal(unlinkat(b.s.fd, "before/a.h", 0), 0);
	expect(&b, &p, WARM_COMPILE_HIT);
	assert_int_equal(unlinkat(b.s.fd, "inc/a.h", 0), 0);
	struct warm_compile_result *r = NULL;
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_COMPILE_ERROR);
	close_bench(&b);
}

TEST(in_closed_mode_only_programs_without_files_hit)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	const char *const options[2] = { "-arch=sm_90", b.option };
	struct warm_compile_program with = with_include(&b, options), without = program_of(plain);

	put_text(b.s.fd, "inc/a.h", "#define VALUE 1\n");
	expect(&b, &with, WARM_COMPILE_MISS);
	expect(&b, &without, WARM_COMPILE_MISS);
	reopen(&b, WARM_MODE_CLOSED);
	expect(&b, &without, WARM_COMPILE_HIT);
	expect(&b, &with, WARM_COMPILE_MISS);
	close_bench(&b);
}

TEST(at_most_so_many_variants_are_kept)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	const char *const options[2] = { "-arch=sm_90", b.option };
	struct warm_compile_program p = with_include(&b, options);
	char text[40];

	for (int i = 0; i < 11; i++) {
		snprintf(text, sizeof(text), "#define VALUE %d\n", 100 + i);
		put_text(b.s.fd, "inc/a.h", text);
		expect(&b, &p, WARM_COMPILE_MISS);
	}
	expect(&b, &p, WARM_COMPILE_HIT); /* the newest is there */
	assert_int_equal(
		shell("test $(find %s/nvrtc -path '*.d/*' -type f | wc -l) -le 8", b.cache), 0);
	close_bench(&b);
}

TEST(a_cache_that_cannot_be_written_still_gives_results)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);

	put_text(b.s.fd, "cache/nvrtc", "a file where a directory should be");
	struct warm_compile_result *r = compile_as(&b, &p, WARM_COMPILE_UNSTORED);
	assert_true(warm_compile_result_reason(r)[0] != '\0');
	assert_non_null(warm_compile_result_output(r, WARM_OUTPUT_CUBIN, NULL));
	warm_compile_result_free(r);
	/* no directory at all */
	snprintf(b.cache, sizeof(b.cache), "%s/nowhere", b.s.path);
	reopen(&b, WARM_MODE_TRACED);
	expect(&b, &p, WARM_COMPILE_UNSTORED);
	struct warm_compiler_counters n;
	warm_compiler_get_counters(b.c, &n, sizeof(n));
	assert_int_equal(n.misses, 1);
	assert_int_equal(n.unstored, 1);
	close_bench(&b);
}

TEST(without_a_helper_hits_work_and_misses_say_what_is_missing)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	struct warm_compile_result *r = NULL;

	expect(&b, &p, WARM_COMPILE_MISS);
	snprintf(b.helper, sizeof(b.helper), "%s/no-helper", b.s.path);
	reopen(&b, WARM_MODE_TRACED);
	expect(&b, &p, WARM_COMPILE_HIT);
	p.name = "other.cu";
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_HELPER);
	assert_null(r);
	assert_non_null(strstr(b.err.message, "no-helper"));
	close_bench(&b);
}

TEST(a_helper_that_dies_is_told)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	struct warm_compile_result *r = NULL;

	put_file(b.s.fd, "dies", "#!/bin/sh\nexit 3\n", 17, 0755, 0);
	snprintf(b.helper, sizeof(b.helper), "%s/dies", b.s.path);
	reopen(&b, WARM_MODE_TRACED);
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_HELPER);
	assert_non_null(strstr(b.err.message, "dies"));
	put_file(b.s.fd, "killed", "#!/bin/sh\nkill -9 $$\n", 21, 0755, 0);
	snprintf(b.helper, sizeof(b.helper), "%s/killed", b.s.path);
	reopen(&b, WARM_MODE_TRACED);
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_HELPER);
	assert_non_null(strstr(b.err.message, "signal 9"));
	close_bench(&b);
}

TEST(a_program_that_tells_the_time_is_not_kept)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	static const char *const sources[] = {
		"__device__ const char t[] = __TIME__;\n",
		"__device__ const char t[] = __DATE__;\n",
		"#define NOW __TIME__\n__device__ const char t[] = NOW;\n",
	};

	for (size_t i = 0; i < COUNT(sources); i++) {
		struct warm_compile_program p = program_of(sources[i]);
		struct warm_compile_result *r = compile_as(&b, &p, WARM_COMPILE_UNCACHEABLE);
		assert_true(warm_compile_result_reason(r)[0] != '\0');
		warm_compile_result_free(r);
		expect(&b, &p, WARM_COMPILE_UNCACHEABLE);
	}
	close_bench(&b);
}

TEST(a_header_on_disk_that_tells_the_time_is_not_kept_either)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	const char *const options[2] = { "-arch=sm_90", b.option };
	struct warm_compile_program p =
		program_of("#include \"now.h\"\n__device__ const char t[] = NOW;\n");

	p.options = options;
	p.n_options = 2;
	put_text(b.s.fd, "inc/now.h", "#define NOW __TIME__\n");
	expect(&b, &p, WARM_COMPILE_UNCACHEABLE);
	close_bench(&b);
}

TEST(headers_in_memory_are_part_of_the_program)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_header header = { "a.h", "#define VALUE 1\n", 16 };
	struct warm_compile_program p = program_of("#include \"a.h\"\nextern \"C\" __global__ void "
						   "k(float *a) { a[threadIdx.x] += VALUE; }\n");

	p.headers = &header;
	p.n_headers = 1;
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	header.source = "#define VALUE 2\n";
	expect(&b, &p, WARM_COMPILE_MISS);
	header.source = "#define VALUE 1\n";
	expect(&b, &p, WARM_COMPILE_HIT);
	close_bench(&b);
}

TEST(name_expressions_have_their_lowered_names)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	static const char *const names[] = { "k<int>", "k<float>" };
	struct warm_compile_program p = program_of(
		"template <typename T> __global__ void k(T *a) { a[threadIdx.x] += 1; }\n");

	p.name_expressions = names;
	p.n_name_expressions = 2;
	struct warm_compile_result *miss = compile_as(&b, &p, WARM_COMPILE_MISS);
	struct warm_compile_result *hit = compile_as(&b, &p, WARM_COMPILE_HIT);
	for (size_t i = 0; i < 2; i++) {
		const char *lowered = warm_compile_result_lowered_name(miss, names[i]);
		assert_non_null(lowered);
		assert_true(strncmp(lowered, "_Z1kI", 5) == 0);
		assert_string_equal(warm_compile_result_lowered_name(hit, names[i]), lowered);
	}
	assert_null(warm_compile_result_lowered_name(hit, "k<double>"));
	warm_compile_result_free(miss);
	warm_compile_result_free(hit);
	p.n_name_expressions = 1;
	expect(&b, &p, WARM_COMPILE_MISS);
	close_bench(&b);
}

TEST(variables_that_nvrtc_obeys_are_part_of_the_program)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);

	expect(&b, &p, WARM_COMPILE_MISS);
	setenv("EDG_BASE", "/nowhere", 1);
	expect(&b, &p, WARM_COMPILE_MISS);
	unsetenv("EDG_BASE");
	expect(&b, &p, WARM_COMPILE_HIT);
	/* What flags from there mean is not looked into. */
	setenv("NVRTC_APPEND_FLAGS", "-lineinfo", 1);
	expect(&b, &p, WARM_COMPILE_UNCACHEABLE);
	unsetenv("NVRTC_APPEND_FLAGS");
	expect(&b, &p, WARM_COMPILE_HIT);
	close_bench(&b);
}

TEST(a_header_below_the_program_that_an_absolute_option_found_is_never_stale)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	char first[700], second[700], header[700], option[700];
	struct warm_compile_program p =
		program_of("#include <h.h>\n__global__ void k(int *a) { a[0] = N; }\n");
	const char *options[] = { "-arch=sm_90", option };

	put_dir(b.s.fd, "A");
	put_dir(b.s.fd, "A/inc");
	put_dir(b.s.fd, "B");
	put_dir(b.s.fd, "B/inc");
	snprintf(first, sizeof(first), "%s/A/k.cu", b.s.path);
	snprintf(second, sizeof(second), "%s/B/k.cu", b.s.path);
	snprintf(header, sizeof(header), "%s/A/inc/h.h", b.s.path);
	snprintf(option, sizeof(option), "-I%s/A/inc", b.s.path);
	assert_int_equal(shell("echo '#define N 4' > %s/A/inc/h.h", b.s.path), 0);
	assert_int_equal(shell("echo '#define N 4' > %s/B/inc/h.h", b.s.path), 0);
	p.options = options;
	p.n_options = 2;
	p.name = first;
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	/* The same program elsewhere still includes A/inc/h.h, which says something else by now. */
	assert_int_equal(shell("echo '#define N 5' > %s", header), 0);
	p.name = second;
	expect(&b, &p, WARM_COMPILE_MISS);
	close_bench(&b);
}

TEST(a_directory_in_the_output_is_never_another_programs)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	static const char *const sources[] = {
		"__device__ const char *f = __FILE__; __global__ void k(char *a) { a[0] = f[1]; "
		"}\n",
		"__device__ const char *f = WHERE; __global__ void k(char *a) { a[0] = f[1]; }\n",
		"__device__ const char *f = __builtin_FILE(); "
		"__global__ void k(char *a) { a[0] = f[1]; }\n",
		"#include <where.h>\n"
		"__device__ const char *f = HERE; __global__ void k(char *a) { a[0] = f[1]; }\n",
	};
	const char *options[] = { "-arch=sm_90", "-DWHERE=__FILE__", b.option };

	assert_int_equal(shell("echo '#define HERE __FILE__' > %s/where.h", b.inc), 0);
	for (size_t i = 0; i < 4; i++) {
		struct warm_compile_program p = program_of(sources[i]);
		p.options = options;
		p.n_options = 3;
		p.name = "/one/k.cu";
		expect(&b, &p, WARM_COMPILE_MISS);
		expect(&b, &p, WARM_COMPILE_HIT);
		p.name = "/two/k.cu";
		expect(&b, &p, WARM_COMPILE_MISS);
	}
	/* A program that doesn't show it hits from anywhere. */
	struct warm_compile_program p = program_of(plain);
	p.name = "/one/k.cu";
	expect(&b, &p, WARM_COMPILE_MISS);
	p.name = "/two/k.cu";
	expect(&b, &p, WARM_COMPILE_HIT);
	close_bench(&b);
}

static void *fork_soon(void *arg)
{
	struct timespec soon = { .tv_nsec = 40 * 1000000 };

	nanosleep(&soon, NULL);
	pid_t child = fork();
	if (child == 0) {
		sleep(30);
		_exit(0);
	}
	*(pid_t *)arg = child;
	return NULL;
}

TEST(a_fork_of_the_host_that_lives_on_holds_no_compile)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	pthread_t thread;
	pid_t child = -1;

	assert_int_equal(pthread_create(&thread, NULL, fork_soon, &child), 0);
	expect(&b, &p, WARM_COMPILE_MISS);
	assert_int_equal(pthread_join(thread, NULL), 0);
	/* The child, which got a copy of the socket, is still there. */
	assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close_bench(&b);
}

TEST(many_programs_are_compiled_and_one_that_fails_stops_no_other)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	char source[3][120];
	struct warm_compile_program p[3];
	struct warm_compile_result *r[3];
	struct warm_compiler_error errors[3];

	for (int i = 0; i < 3; i++) {
		snprintf(source[i], sizeof(source[i]),
			 "__global__ void k%d(float *a) { a[0] = %s; }\n", i,
			 i == 1 ? "wrong" : "1");
		p[i] = program_of(source[i]);
	}
	assert_int_equal(warm_compiler_compile_many(b.c, p, 3, r, errors, NULL, NULL),
			 WARM_COMPILER_COMPILE_ERROR);
	for (int i = 0; i < 3; i++) {
		assert_true((r[i] == NULL) == (i == 1));
		assert_true((errors[i].status != 0) == (i == 1));
		warm_compile_result_free(r[i]);
		warm_compiler_error_release(&errors[i]);
	}
	close_bench(&b);
}

TEST(senseless_arguments_are_refused_by_name)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	struct warm_compile_result *r = NULL;
	static const char *const with_null[] = { NULL };
	struct warm_header header = { NULL, "x", 1 };

	assert_int_equal(warm_compiler_compile(NULL, &p, &r, &b.err), WARM_COMPILER_INVALID);
	assert_non_null(strstr(b.err.message, "compiler"));
	assert_int_equal(warm_compiler_compile(b.c, NULL, &r, &b.err), WARM_COMPILER_INVALID);
	assert_int_equal(warm_compiler_compile(b.c, &p, NULL, &b.err), WARM_COMPILER_INVALID);
	assert_int_equal(warm_compiler_compile(b.c, &p, NULL, NULL), WARM_COMPILER_INVALID);
	p.source = NULL;
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_INVALID);
	assert_non_null(strstr(b.err.message, "source"));
	p = program_of(plain);
	p.options = NULL;
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_INVALID);
	p.options = with_null;
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_INVALID);
	p = program_of(plain);
	p.headers = &header;
	p.n_headers = 1;
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_INVALID);
	p = program_of(plain);
	p.name_expressions = with_null;
	p.n_name_expressions = 1;
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_INVALID);
	p = program_of("a\0b");
	p.source_bytes = 3;
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_INVALID);
	assert_null(r);
	close_bench(&b);
}

TEST(opening_refuses_what_makes_no_sense)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	struct warm_compiler *c = NULL;
	struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;

	assert_int_equal(warm_compiler_open(&o, NULL, &e), WARM_COMPILER_INVALID);
	o.size = 0;
	assert_int_equal(warm_compiler_open(&o, &c, &e), WARM_COMPILER_INVALID);
	o.size = sizeof(o) + 8;
	assert_int_equal(warm_compiler_open(&o, &c, &e), WARM_COMPILER_INVALID);
	o = (struct warm_compiler_options)WARM_COMPILER_OPTIONS_INIT;
	o.mode = 7;
	assert_int_equal(warm_compiler_open(&o, &c, &e), WARM_COMPILER_INVALID);
	o.mode = 0;
	o.nvrtc_library = "/nowhere/libnvrtc.so.13";
	assert_int_equal(warm_compiler_open(&o, &c, &e), WARM_COMPILER_NO_NVRTC);
	assert_non_null(strstr(e.message, "/nowhere/libnvrtc.so.13"));
	assert_null(c);
	o.nvrtc_library = "/etc/passwd";
	assert_int_equal(warm_compiler_open(&o, &c, NULL), WARM_COMPILER_NO_NVRTC);
	warm_compiler_close(NULL);
	warm_compile_result_free(NULL);
	warm_compiler_error_release(NULL);
	warm_compiler_error_release(&e);
	assert_string_not_equal(warm_compiler_version(), "");
}

/* ---- where the helper can't ---- */

/* In a child, whose exit status then tells the line. */
#define CHECK(condition)                           \
	do {                                       \
		if (!(condition))                  \
			_exit(1 + __LINE__ % 250); \
	} while (0)

/* In a child, so that NVRTC with its handlers and threads stays out of the test. */
static void compile_without_helper(const char *cache, const char *helper, const char *word)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	struct warm_compile_program good = program_of(plain),
				    bad = program_of(
					    "__global__ void k() { undeclared_thing = 1; }\n");
	struct warm_compile_result *r = NULL;
	struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;
	struct warm_compiler_counters n;
	struct warm_compiler *c = NULL;
	size_t bytes = 0;

	alarm(120);
	o.cache_dir = cache;
	o.helper = helper;
	o.timeout_ms = 200;
	o.fallback = 1;
	CHECK(warm_compiler_open(&o, &c, &e) == 0);
	for (int i = 0; i < 2; i++) {
		CHECK(warm_compiler_compile(c, &good, &r, &e) == 0);
		CHECK(warm_compile_result_source(r) == WARM_COMPILE_UNCACHEABLE);
		CHECK(strstr(warm_compile_result_reason(r), "compiled in this process") != NULL);
		CHECK(strstr(warm_compile_result_reason(r), word) != NULL);
		CHECK(warm_compile_result_output(r, WARM_OUTPUT_CUBIN, &bytes) != NULL);
		CHECK(bytes > 500);
		warm_compile_result_free(r);
	}
	CHECK(warm_compiler_compile(c, &bad, &r, &e) == WARM_COMPILER_COMPILE_ERROR);
	CHECK(e.log != NULL && strstr(e.log, "undeclared_thing") != NULL);
	warm_compiler_error_release(&e);
	warm_compiler_get_counters(c, &n, sizeof(n));
	CHECK(n.misses == 2 && n.hits == 0 && n.failed == 1);
	CHECK(n.uncacheable == 2 && n.uncacheable_host == 2 && n.unstored == 0);
	warm_compiler_close(c);
	_exit(0);
}

static void assert_falls_back(const char *script, const char *word)
{
	scope_scratch struct scratch s = scratch_open();
	const char *cache = scratch_path(&s, "cache"), *helper = scratch_path(&s, "helper");
	glob_t g;
	int status = -1;

	put_dir(s.fd, "cache");
	if (script != NULL)
		put_file(s.fd, "helper", script, strlen(script), 0755, 0);
	pid_t child = fork();
	if (child == 0)
		compile_without_helper(cache, helper, word);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (status != 0)
		fail_msg("the child ended with status %d", status);
	assert_int_equal(glob(scratch_path(&s, "cache/nvrtc/v1/[0-9a-f]*/*"), 0, NULL, &g),
			 GLOB_NOMATCH);
}

TEST(where_a_helper_is_missing_dies_or_hangs_the_host_may_compile)
{
	NEEDS_NVRTC();
	if (UNDER_TSAN)
		skip(); /* it doesn't know NVRTC's own locks */
	assert_falls_back(NULL, "helper");
	assert_falls_back("#!/bin/sh\nexit 3\n", "exited with 3");
	assert_falls_back("#!/bin/sh\nexec sleep 100\n", "took over 200 ms");
}

TEST(without_fallback_the_host_never_compiles)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	struct warm_compile_result *r = NULL;

	snprintf(b.helper, sizeof(b.helper), "/bin/false");
	reopen(&b, WARM_MODE_TRACED);
	assert_int_equal(warm_compiler_compile(b.c, &p, &r, &b.err), WARM_COMPILER_HELPER);
	assert_int_not_equal(shell("grep -q libnvrtc /proc/%d/maps", (int)getpid()), 0);
	close_bench(&b);
}

/* ---- caches that are no good ---- */

TEST(another_user_reads_what_is_there_and_stores_nothing_where_it_may_not)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program stored = program_of(plain), other = stored;

	if (geteuid() != 0) {
		print_message("# note: not root; nothing is tried as another user\n");
		close_bench(&b);
		return;
	}
	other.name = "other.cu";
	expect(&b, &stored, WARM_COMPILE_MISS);
	assert_int_equal(shell("chmod 755 %s && chmod -R go-w %s", b.s.path, b.cache), 0);
	pid_t child = fork();
	if (child == 0) {
		struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
		struct warm_compile_result *r = NULL;
		struct warm_compiler_counters n;
		struct warm_compiler *c = NULL;
		alarm(120);
		CHECK(setuid(65534) == 0);
		if (access(getenv("WARM_NVRTC_LIBRARY"), R_OK) != 0 ||
		    access(getenv("WARM_NVRTC_HELPER"), X_OK) != 0)
			_exit(0); /* where that user may not go */
		o.cache_dir = b.cache;
		CHECK(warm_compiler_open(&o, &c, NULL) == 0);
		CHECK(warm_compiler_compile(c, &stored, &r, NULL) == 0);
		CHECK(warm_compile_result_source(r) == WARM_COMPILE_HIT);
		warm_compile_result_free(r);
		CHECK(warm_compiler_compile(c, &other, &r, NULL) == 0);
		CHECK(warm_compile_result_source(r) == WARM_COMPILE_UNSTORED);
		CHECK(strstr(warm_compile_result_reason(r), "ermission denied") != NULL);
		warm_compile_result_free(r);
		warm_compiler_get_counters(c, &n, sizeof(n));
		CHECK(n.hits == 1 && n.misses == 1 && n.unstored == 1 && n.bytes_written == 0);
		warm_compiler_close(c);
		_exit(0);
	}
	int status = -1;
	assert_int_equal(waitpid(child, &status, 0), child);
	if (status != 0)
		fail_msg("the child ended with status %d", status);
	close_bench(&b);
}

TEST(on_a_full_disk_a_compile_gives_its_result_and_says_why_it_was_not_stored)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	glob_t g;

	if (geteuid() != 0 || mount("none", b.cache, "tmpfs", 0, "size=1m") != 0) {
		print_message("# note: no file system may be mounted; a full disk isn't tried\n");
		close_bench(&b);
		return;
	}
	reopen(&b, WARM_MODE_TRACED); /* its counters are there */
	int full = shell("head -c 2000000 /dev/zero >%s/ballast 2>/dev/null", b.cache);
	struct warm_compile_result *r = NULL;
	int rc = warm_compiler_compile(b.c, &p, &r, &b.err);
	enum warm_compile_source source = warm_compile_result_source(r);
	bool told = strstr(warm_compile_result_reason(r), "No space left") != NULL;
	bool whole = warm_compile_result_output(r, WARM_OUTPUT_CUBIN, NULL) != NULL;
	warm_compile_result_free(r);
	char pattern[400];
	snprintf(pattern, sizeof(pattern), "%s/nvrtc/v1/[0-9a-f]*/*", b.cache);
	int left = glob(pattern, 0, NULL, &g);
	(void)shell("rm %s/ballast", b.cache);
	int again = rc == 0 ? warm_compiler_compile(b.c, &p, &r, &b.err) : -1;
	enum warm_compile_source second = warm_compile_result_source(r);
	warm_compile_result_free(r);
	warm_compiler_close(b.c);
	b.c = NULL;
	assert_int_equal(umount(b.cache), 0);
	assert_int_not_equal(full, 0);
	assert_int_equal(rc, 0);
	assert_int_equal(source, WARM_COMPILE_UNSTORED);
	assert_true(told && whole);
	assert_int_equal(left, GLOB_NOMATCH); /* nothing half written */
	assert_int_equal(again, 0);
	assert_int_equal(second, WARM_COMPILE_MISS);
	close_bench(&b);
}

TEST(an_entry_of_another_version_is_a_miss_and_is_replaced)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	struct warm_compiler_counters n;

	expect(&b, &p, WARM_COMPILE_MISS);
	char *path = entry_path(&b);
	flip_byte(path, 7); /* the last of "warmkrn1" */
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	warm_compiler_get_counters(b.c, &n, sizeof(n));
	assert_true(n.bad_entries >= 1);
	free(path);
	close_bench(&b);
}

TEST(a_size_limit_is_kept_by_option_and_by_environment)
{
	NEEDS_NVRTC();
	static const struct {
		uint64_t option;
		const char *variable;
		bool kept;
	} rows[] = {
		{ 16000, NULL, true },
		{ 0, "16K", true },
		{ 0, "lots", false },
		{ 1 << 30, "16K", false },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct bench b = open_bench();
		struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
		struct warm_compiler_counters n;
		char name[20];
		warm_compiler_close(b.c);
		o.cache_dir = b.cache;
		o.max_bytes = rows[i].option;
		if (rows[i].variable != NULL)
			setenv("WARM_COMPILER_MAX_BYTES", rows[i].variable, 1);
		int rc = warm_compiler_open(&o, &b.c, NULL);
		unsetenv("WARM_COMPILER_MAX_BYTES");
		assert_int_equal(rc, 0);
		struct warm_compile_program p = program_of(plain);
		p.name = name;
		for (int k = 0; k < 5; k++) { /* of some 5 KB each */
			snprintf(name, sizeof(name), "k%d.cu", k);
			expect(&b, &p, WARM_COMPILE_MISS);
			expect(&b, &p, WARM_COMPILE_HIT);
		}
		warm_compiler_get_counters(b.c, &n, sizeof(n));
		assert_int_equal(n.evicted > 0, rows[i].kept);
		assert_int_equal(shell("test $(cat %s/nvrtc/v1/*/* | wc -c) -le 17000", b.cache) ==
					 0,
				 rows[i].kept);
		close_bench(&b);
	}
}

/* ---- the rest ---- */

TEST(a_log_of_a_megabyte_comes_whole_from_nvrtc_and_from_the_cache)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	enum { LINES = 20000 };
	static const char line[] = "#warning x\n", end[] = "__global__ void k() {}\n";
	char *source = malloc(LINES * strlen(line) + sizeof(end));

	assert_non_null(source);
	for (int i = 0; i < LINES; i++)
		memcpy(source + (size_t)i * strlen(line), line, strlen(line));
	memcpy(source + LINES * strlen(line), end, sizeof(end));
	struct warm_compile_program p = program_of(source);
	struct warm_compile_result *miss = compile_as(&b, &p, WARM_COMPILE_MISS);
	const char *log = warm_compile_result_log(miss);
	assert_true(strlen(log) > 1000000);
	assert_non_null(strstr(log, "(20000)"));
	struct warm_compile_result *hit = compile_as(&b, &p, WARM_COMPILE_HIT);
	assert_same(miss, hit);
	warm_compile_result_free(miss);
	warm_compile_result_free(hit);
	free(source);
	close_bench(&b);
}

TEST(a_shorter_struct_of_counters_is_filled_and_a_longer_one_zeroed)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	uint64_t some[3] = { 7, 7, 7 };
	struct {
		struct warm_compiler_counters known;
		uint64_t more;
	} longer;

	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	warm_compiler_get_counters(b.c, (struct warm_compiler_counters *)(void *)some,
				   2 * sizeof(some[0]));
	assert_int_equal(some[0], 1);
	assert_int_equal(some[1], 1);
	assert_int_equal(some[2], 7);
	memset(&longer, 7, sizeof(longer));
	warm_compiler_get_counters(b.c, &longer.known, sizeof(longer));
	assert_int_equal(longer.known.hits, 1);
	assert_int_equal(longer.more, 0);
	assert_true(longer.known.hit_us > 0 && longer.known.compile_us > 1000);
	close_bench(&b);
}

static int stop_at_once(void *arg, size_t index, const struct warm_compile_result *result)
{
	(void)index;
	++*(int *)arg;
	return result != NULL;
}

TEST(a_batch_that_is_told_to_stop_begins_no_further_program)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	char source[6][120];
	struct warm_compile_program p[6];
	struct warm_compile_result *r[6];
	struct warm_compiler_error errors[6];
	int called = 0, done = 0, canceled = 0;

	warm_compiler_close(b.c);
	o.cache_dir = b.cache;
	o.max_parallel = 2;
	assert_int_equal(warm_compiler_open(&o, &b.c, NULL), 0);
	for (int i = 0; i < 6; i++) {
		snprintf(source[i], sizeof(source[i]), "__global__ void k%d(float *a) {}\n", i);
		p[i] = program_of(source[i]);
	}
	assert_int_equal(warm_compiler_compile_many(b.c, p, 6, r, errors, stop_at_once, &called),
			 WARM_COMPILER_CANCELED);
	for (int i = 0; i < 6; i++) {
		done += r[i] != NULL;
		canceled += errors[i].status == WARM_COMPILER_CANCELED;
		assert_true((r[i] != NULL) == (errors[i].status == 0));
		warm_compile_result_free(r[i]);
		warm_compiler_error_release(&errors[i]);
	}
	assert_true(done >= 1 && done <= 3);
	assert_int_equal(done + canceled, 6);
	assert_int_equal(called, done);
	close_bench(&b);
}

TEST(a_batch_of_nothing_succeeds_and_one_of_null_is_refused)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	struct warm_compile_program p = program_of(plain);
	struct warm_compile_result *r = NULL;
	struct warm_compiler_error e = WARM_COMPILER_ERROR_INIT;

	assert_int_equal(warm_compiler_compile_many(b.c, NULL, 0, NULL, NULL, NULL, NULL), 0);
	assert_int_equal(warm_compiler_compile_many(NULL, &p, 1, &r, &e, NULL, NULL),
			 WARM_COMPILER_INVALID);
	assert_int_equal(warm_compiler_compile_many(b.c, NULL, 1, &r, &e, NULL, NULL),
			 WARM_COMPILER_INVALID);
	assert_int_equal(warm_compiler_compile_many(b.c, &p, 1, NULL, &e, NULL, NULL),
			 WARM_COMPILER_INVALID);
	assert_int_equal(warm_compiler_compile_many(b.c, &p, 1, &r, NULL, NULL, NULL),
			 WARM_COMPILER_INVALID);
	close_bench(&b);
}

static void reopen_sealed(struct bench *b, const char *dir)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	const char *const dirs[] = { dir, NULL };

	warm_compiler_close(b->c);
	o.cache_dir = b->cache;
	o.mode = WARM_MODE_SEALED;
	o.sealed_dirs = dirs;
	assert_int_equal(warm_compiler_open(&o, &b->c, &b->err), 0);
}

TEST(a_path_that_leads_out_of_a_sealed_directory_is_not_sealed)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	const char *const options[2] = { "-arch=sm_90", b.option };
	struct warm_compile_program p = with_include(&b, options);

	put_dir(b.s.fd, "out");
	put_text(b.s.fd, "inc/a.h", "#include \"../out/x.h\"\n");
	put_text(b.s.fd, "out/x.h", "#define VALUE 1\n");
	reopen_sealed(&b, b.inc);
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	put_text(b.s.fd, "out/x.h", "#define VALUE 2\n");
	expect(&b, &p, WARM_COMPILE_MISS);
	close_bench(&b);
}

TEST(a_file_that_lends_a_sealed_one_its_place_is_seen)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	const char *const options[2] = { "-arch=sm_90", b.option };
	struct warm_header memory = { "m.h", "#pragma once\n#define VALUE 1\n", 29 };
	struct warm_compile_program p = program_of(
		"#include \"m.h\"\n#include <g.h>\n#ifndef G\n#define G 0\n#endif\n"
		"extern \"C\" __global__ void k(float *a) { a[0] += VALUE + G; }\n");
	char here[4096], name[400];

	p.options = options;
	p.n_options = 2;
	p.headers = &memory;
	p.n_headers = 1;
	assert_non_null(getcwd(here, sizeof(here)));
	put_dir(b.s.fd, "cwd");
	snprintf(name, sizeof(name), "%s/cwd", b.s.path);
	assert_int_equal(chdir(name), 0);
	put_text(b.s.fd, "inc/g.h", "#pragma once\n#define G 2\n");
	reopen_sealed(&b, b.inc);
	struct warm_compile_result *one = compile_as(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	expect(&b, &p, WARM_COMPILE_HIT);
	/* Now the header in memory has the identity of the one on disk, which is passed over. */
	assert_int_equal(symlinkat("../inc/g.h", b.s.fd, "cwd/m.h"), 0);
	struct warm_compile_result *two = compile_as(&b, &p, WARM_COMPILE_MISS);
	warm_compile_result_free(one);
	warm_compile_result_free(two);
	assert_int_equal(chdir(here), 0);
	close_bench(&b);
}

TEST(a_file_of_the_programs_name_disturbs_no_sealed_hit)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	char name[400];
	const char *const options[2] = { "-arch=sm_90", b.option };
	struct warm_compile_program p = with_include(&b, options);

	put_text(b.s.fd, "inc/a.h", "#define VALUE 1\n");
	put_text(b.s.fd, "k.cu", "as it was written to be compiled");
	snprintf(name, sizeof(name), "%s/k.cu", b.s.path);
	p.source = "#include <a.h>\nextern \"C\" __global__ void k(float *a) { a[0] += VALUE; }\n";
	p.source_bytes = strlen(p.source);
	p.name = name;
	reopen_sealed(&b, b.inc);
	expect(&b, &p, WARM_COMPILE_MISS);
	for (int i = 0; i < 3; i++)
		expect(&b, &p, WARM_COMPILE_HIT);
	close_bench(&b);
}

TEST(a_program_of_the_root_directory_is_no_other_directorys)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	char source[900], name[400];
	struct warm_compile_program p;

	snprintf(source, sizeof(source),
		 "#include \"%s/inc/a.h\"\nextern \"C\" __global__ void "
		 "k(float *a) { a[threadIdx.x] += VALUE; }\n",
		 b.s.path);
	p = program_of(source);
	p.name = "/k.cu";
	put_text(b.s.fd, "inc/a.h", "#define VALUE 1\n");
	assert_int_equal(shell("mkdir -p %s/root%s && cp -r %s/inc %s/root%s/", b.s.path, b.s.path,
			       b.s.path, b.s.path, b.s.path),
			 0);
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	put_text(b.s.fd, "inc/a.h", "#define VALUE 2\n");
	snprintf(name, sizeof(name), "%s/root/k.cu", b.s.path);
	p.name = name;
	expect(&b, &p, WARM_COMPILE_MISS);
	close_bench(&b);
}

TEST(a_constant_made_of_the_file_name_is_never_another_programs)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();
	const char *const options[2] = { "-arch=sm_90", b.option };
	struct warm_compile_program p = program_of(
		"#include <id.h>\nextern \"C\" __global__ void k(int *a) { a[0] = ID; }\n");

	put_text(b.s.fd, "inc/id.h",
		 "__device__ constexpr int length(const char *s) { return *s ? 1 + length(s + 1) : "
		 "0; }\n"
		 "template <int N> struct constant { static constexpr int value = N; };\n"
		 "#define ID (constant<length(__FILE__)>::value)\n");
	p.options = options;
	p.n_options = 2;
	p.name = "/one/k.cu";
	expect(&b, &p, WARM_COMPILE_MISS);
	expect(&b, &p, WARM_COMPILE_HIT);
	p.name = "/longer/k.cu";
	expect(&b, &p, WARM_COMPILE_MISS);
	close_bench(&b);
}

TEST(a_host_of_much_memory_keeps_its_helper)
{
	NEEDS_NVRTC();
	struct bench b = open_bench();

	pid_t child = fork();
	if (child == 0) {
		enum { MUCH = 1200 << 20 };
		struct warm_compile_program p = program_of(plain);
		struct warm_compiler_counters n;
		struct warm_compile_result *r;
		char *much = malloc(MUCH);
		if (much == NULL)
			_exit(1);
		for (size_t i = 0; i < MUCH; i += 4096)
			((volatile char *)much)[i] = 1;
		free(much);
		for (int i = 0; i < 3; i++) {
			const char *const names[] = { "a.cu", "b.cu", "c.cu" };
			p.name = names[i];
			if (warm_compiler_compile(b.c, &p, &r, &b.err) != 0)
				_exit(2);
			warm_compile_result_free(r);
		}
		warm_compiler_get_counters(b.c, &n, sizeof(n));
		_exit(n.helpers_started == 1 && n.misses == 3 ? 0 : 3);
	}
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close_bench(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_host_of_much_memory_keeps_its_helper),
		cmocka_unit_test(a_path_that_leads_out_of_a_sealed_directory_is_not_sealed),
		cmocka_unit_test(a_file_that_lends_a_sealed_one_its_place_is_seen),
		cmocka_unit_test(a_file_of_the_programs_name_disturbs_no_sealed_hit),
		cmocka_unit_test(a_program_of_the_root_directory_is_no_other_directorys),
		cmocka_unit_test(a_constant_made_of_the_file_name_is_never_another_programs),
		cmocka_unit_test(a_second_call_reads_what_the_first_compiled),
		cmocka_unit_test(each_input_makes_another_program),
		cmocka_unit_test(a_bad_entry_is_a_miss_and_is_replaced),
		cmocka_unit_test(a_compile_error_carries_the_log_and_is_not_kept),
		cmocka_unit_test(a_header_that_changed_on_disk_is_never_stale),
		cmocka_unit_test(a_new_header_that_shadows_another_is_a_miss),
		cmocka_unit_test(in_closed_mode_only_programs_without_files_hit),
		cmocka_unit_test(at_most_so_many_variants_are_kept),
		cmocka_unit_test(a_cache_that_cannot_be_written_still_gives_results),
		cmocka_unit_test(without_a_helper_hits_work_and_misses_say_what_is_missing),
		cmocka_unit_test(a_helper_that_dies_is_told),
		cmocka_unit_test(a_program_that_tells_the_time_is_not_kept),
		cmocka_unit_test(a_header_on_disk_that_tells_the_time_is_not_kept_either),
		cmocka_unit_test(headers_in_memory_are_part_of_the_program),
		cmocka_unit_test(name_expressions_have_their_lowered_names),
		cmocka_unit_test(variables_that_nvrtc_obeys_are_part_of_the_program),
		cmocka_unit_test(
			a_header_below_the_program_that_an_absolute_option_found_is_never_stale),
		cmocka_unit_test(a_directory_in_the_output_is_never_another_programs),
		cmocka_unit_test(a_fork_of_the_host_that_lives_on_holds_no_compile),
		cmocka_unit_test(many_programs_are_compiled_and_one_that_fails_stops_no_other),
		cmocka_unit_test(senseless_arguments_are_refused_by_name),
		cmocka_unit_test(opening_refuses_what_makes_no_sense),
		cmocka_unit_test(where_a_helper_is_missing_dies_or_hangs_the_host_may_compile),
		cmocka_unit_test(without_fallback_the_host_never_compiles),
		cmocka_unit_test(
			another_user_reads_what_is_there_and_stores_nothing_where_it_may_not),
		cmocka_unit_test(
			on_a_full_disk_a_compile_gives_its_result_and_says_why_it_was_not_stored),
		cmocka_unit_test(an_entry_of_another_version_is_a_miss_and_is_replaced),
		cmocka_unit_test(a_size_limit_is_kept_by_option_and_by_environment),
		cmocka_unit_test(a_log_of_a_megabyte_comes_whole_from_nvrtc_and_from_the_cache),
		cmocka_unit_test(a_shorter_struct_of_counters_is_filled_and_a_longer_one_zeroed),
		cmocka_unit_test(a_batch_that_is_told_to_stop_begins_no_further_program),
		cmocka_unit_test(a_batch_of_nothing_succeeds_and_one_of_null_is_refused),
	};

	if (lacking())
		print_message("# note: WARM_NVRTC_LIBRARY and WARM_NVRTC_HELPER are not set; most "
			      "is skipped\n");
	return RUN(tests);
}
