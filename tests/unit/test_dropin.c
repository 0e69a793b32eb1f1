/* SPDX-License-Identifier: Apache-2.0 */
/* The drop-in's functions in this process, so that sanitizers see them. What programs see of them,
 * compared with the real library: tests/integration/test_dropin.py. */
#include "tests/support/scratch.h"

#include <pthread.h>

int nvrtcCreateProgram(void **prog, const char *src, const char *name, int n,
		       const char *const *headers, const char *const *include_names);
int nvrtcDestroyProgram(void **prog);
int nvrtcCompileProgram(void *p, int n, const char *const *options);
int nvrtcAddNameExpression(void *p, const char *expression);
int nvrtcGetLoweredName(void *p, const char *expression, const char **ret);
int nvrtcGetCUBINSize(void *p, size_t *ret);
int nvrtcGetCUBIN(void *p, char *ret);
int nvrtcGetPTXSize(void *p, size_t *ret);
int nvrtcGetPTX(void *p, char *ret);
int nvrtcGetProgramLogSize(void *p, size_t *ret);
int nvrtcGetProgramLog(void *p, char *ret);
const char *nvrtcGetErrorString(int code);

#if defined(__SANITIZE_THREAD__)
#define NO_REAL_ONE() skip() /* NVRTC itself doesn't run under it */
#else
#define NO_REAL_ONE() (void)0
#endif

/* NVRTC keeps a few bytes of each compile. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libnvrtc.so";
}

enum { THREADS = 16 };

static const char *const arch[] = { "-arch=sm_90" };
static struct scratch s; /* the library opens its cache once a process */
static char cache[300];

static bool lacking(void)
{
	const char *library = getenv("WARM_NVRTC_LIBRARY"), *helper = getenv("WARM_NVRTC_HELPER");

	return library == NULL || library[0] == '\0' || helper == NULL || helper[0] == '\0';
}

static void *program_of(const char *source)
{
	void *p = NULL;

	assert_int_equal(nvrtcCreateProgram(&p, source, "k.cu", 0, NULL, NULL), 0);
	assert_non_null(p);
	return p;
}

/* Compile, look at everything, destroy. The cubin's size, 0 when something is wrong. */
static size_t use(const char *source)
{
	void *p = NULL;
	const char *lowered = NULL;
	size_t bytes = 0, log = 0;

	if (nvrtcCreateProgram(&p, source, "k.cu", 0, NULL, NULL) != 0 ||
	    nvrtcAddNameExpression(p, "k<int>") != 0 || nvrtcCompileProgram(p, 1, arch) != 0 ||
	    nvrtcGetCUBINSize(p, &bytes) != 0 || nvrtcGetProgramLogSize(p, &log) != 0 ||
	    nvrtcGetLoweredName(p, "k<int>", &lowered) != 0 || strcmp(lowered, "_Z1kIiEvPT_") != 0)
		return 0;
	char *cubin = malloc(bytes), *text = malloc(log);
	bool good = cubin != NULL && text != NULL && nvrtcGetCUBIN(p, cubin) == 0 &&
		    nvrtcGetProgramLog(p, text) == 0 && memcmp(cubin, "\177ELF", 4) == 0;
	free(cubin);
	free(text);
	return nvrtcDestroyProgram(&p) == 0 && p == NULL && good ? bytes : 0;
}

static const char template[] = "template <class T> __global__ void k(T *a) { a[threadIdx.x]++; }";

static void *use_in_thread(void *ret)
{
	*(size_t *)ret = use(template);
	return NULL;
}

TEST(threads_at_once_get_the_same)
{
	if (lacking())
		skip();
	pthread_t threads[THREADS];
	size_t bytes[THREADS] = { 0 };

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_in_thread, &bytes[i]), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (int i = 0; i < THREADS; i++) {
		assert_true(bytes[i] > 500);
		assert_int_equal(bytes[i], bytes[0]);
	}
	/* One entry, and the lock. */
	assert_int_equal(shell("test $(find %s/nvrtc/v1/?? -type f | wc -l) = 1", cache), 0);
}

TEST(a_program_that_does_not_compile_has_its_log_and_no_output)
{
	if (lacking())
		skip();
	void *p = program_of("__global__ void k() { undeclared = 1; }");
	size_t bytes = 0;

	assert_int_equal(nvrtcCompileProgram(p, 1, arch), 6);
	assert_int_equal(nvrtcGetProgramLogSize(p, &bytes), 0);
	char *log = malloc(bytes);
	assert_non_null(log);
	assert_int_equal(nvrtcGetProgramLog(p, log), 0);
	assert_non_null(strstr(log, "undeclared"));
	assert_int_equal(log[bytes - 1], '\0');
	free(log);
	assert_int_equal(nvrtcDestroyProgram(&p), 0);
}

TEST(what_the_cache_cannot_answer_is_answered_all_the_same)
{
	if (lacking())
		skip();
	NO_REAL_ONE();
	static const char *const other[] = { "-arch=compute_90" };
	void *p = program_of(template);
	const char *first = NULL, *second = NULL;
	size_t bytes = 0;

	/* before a compile */
	assert_int_equal(nvrtcGetPTXSize(p, &bytes), 0);
	assert_int_equal(bytes, 1);
	assert_int_equal(nvrtcAddNameExpression(p, "k<int>"), 0);
	assert_int_equal(nvrtcCompileProgram(p, 1, arch), 0);
	assert_int_equal(nvrtcGetLoweredName(p, "k<int>", &first), 0);
	assert_int_equal(nvrtcAddNameExpression(p, "k<float>"), 8);
	/* a second compile: the first one's names and cubin live on */
	assert_int_equal(nvrtcCompileProgram(p, 1, other), 0);
	assert_int_equal(nvrtcGetLoweredName(p, "k<int>", &second), 0);
	assert_string_equal(first, second);
	assert_int_equal(nvrtcGetCUBINSize(p, &bytes), 0);
	assert_true(bytes > 500);
	assert_int_equal(nvrtcGetLoweredName(p, "k<double>", &second), 10);
	assert_null(second);
	assert_int_equal(nvrtcDestroyProgram(&p), 0);
	/* an output of one that failed */
	p = program_of("__global__ void k() { undeclared = 1; }");
	assert_int_equal(nvrtcCompileProgram(p, 1, arch), 6);
	assert_int_equal(nvrtcGetPTXSize(p, &bytes), 0);
	assert_int_equal(bytes, 1);
	assert_int_equal(nvrtcDestroyProgram(&p), 0);
	assert_string_equal(nvrtcGetErrorString(6), "NVRTC_ERROR_COMPILATION");
}

TEST(senseless_arguments_have_the_codes_that_nvrtc_gives)
{
	if (lacking())
		skip();
	void *p = NULL, *q = program_of(template);
	size_t bytes;

	assert_int_equal(nvrtcCreateProgram(NULL, template, NULL, 0, NULL, NULL), 4);
	assert_int_equal(nvrtcDestroyProgram(NULL), 4);
	assert_int_equal(nvrtcDestroyProgram(&p), 4);
	assert_int_equal(nvrtcCompileProgram(NULL, 0, NULL), 4);
	assert_int_equal(nvrtcGetPTXSize(NULL, &bytes), 4);
	assert_int_equal(nvrtcGetPTXSize(q, NULL), 3);
	assert_int_equal(nvrtcGetPTX(q, NULL), 3);
	assert_int_equal(nvrtcAddNameExpression(q, NULL), 3);
	assert_int_equal(nvrtcDestroyProgram(&q), 0);
	NO_REAL_ONE();
	static const char *const twice[] = { "a.h", "a.h" };
	static const char *const null[] = { NULL };
	assert_int_equal(nvrtcCreateProgram(&p, NULL, NULL, 0, NULL, NULL), 3);
	assert_int_equal(nvrtcCreateProgram(&p, template, NULL, -1, NULL, NULL), 3);
	assert_int_equal(nvrtcCreateProgram(&p, template, NULL, 2, twice, twice), 3);
	assert_null(p);
	q = program_of(template);
	assert_int_equal(nvrtcCompileProgram(q, 1, null), 5);
	assert_int_equal(nvrtcDestroyProgram(&q), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_at_once_get_the_same),
		cmocka_unit_test(a_program_that_does_not_compile_has_its_log_and_no_output),
		cmocka_unit_test(what_the_cache_cannot_answer_is_answered_all_the_same),
		cmocka_unit_test(senseless_arguments_have_the_codes_that_nvrtc_gives),
	};

	s = scratch_open();
	snprintf(cache, sizeof(cache), "%s", s.path);
	setenv("WARM_CACHE_DIR", cache, 1);
	int rc = RUN(tests);
	scratch_close(&s);
	return rc;
}
