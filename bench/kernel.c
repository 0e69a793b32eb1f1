/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel cache beside NVRTC itself: hits, misses, misses at once, the drop-in.
 *
 *	kernel DIRECTORY DROP_IN
 *
 * DIRECTORY is empty, DROP_IN our libnvrtc.so.13. WARM_NVRTC_LIBRARY is NVRTC, TEST_CUDA_INCLUDE
 * its headers. Prints one JSON object: for each thing that is measured the microseconds of every
 * call, made in turn with what it is compared with. Leaves the source of the program without
 * headers in DIRECTORY/bench.cu.
 *
 * NVRTC's own cache is off on all sides (--no-cache), as it is in our helper. What has to be a
 * process of its own is this program with other arguments; that one writes doubles to stdout.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "compiler/nvrtc.h"
#include "lib/base/clock.h"
#include "lib/kernel/entry.h"
#include "warmcache/compiler.h"

enum { SOURCE_BYTES = 10 << 10, MANY = 100000, DISTINCT = 32 };

#define HEADER_BYTES ((size_t)1 << 20)

static void die(const char *fmt, ...) WARM_PRINTF(1, 2) __attribute__((noreturn));

static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static double now_us(void)
{
	return (double)warm_clock_ns() / 1e3;
}

/* Of this process and of those that it has waited for: other processes don't lengthen it much. */
static double cpu_us(void)
{
	struct rusage own, waited;

	if (getrusage(RUSAGE_SELF, &own) != 0 || getrusage(RUSAGE_CHILDREN, &waited) != 0)
		die("getrusage");
	return (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec + waited.ru_utime.tv_sec +
			waited.ru_stime.tv_sec) *
		       1e6 +
	       (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec + waited.ru_utime.tv_usec +
			waited.ru_stime.tv_usec);
}

static void *need(size_t bytes)
{
	void *p = malloc(bytes);

	if (p == NULL)
		die("out of memory");
	return p;
}

/* ---- what is measured ---- */

struct series {
	double *us;
	size_t n, capacity;
};

static void add(struct series *s, double us)
{
	if (s->n == s->capacity) {
		s->capacity = s->capacity == 0 ? 64 : 2 * s->capacity;
		s->us = realloc(s->us, s->capacity * sizeof(*s->us));
		if (s->us == NULL)
			die("out of memory");
	}
	s->us[s->n++] = us;
}

static void print(const char *prefix, const char *name, struct series *s)
{
	printf("\"%s%s\": [", prefix, name);
	for (size_t i = 0; i < s->n; i++)
		printf("%s%.2f", i > 0 ? ", " : "", s->us[i]);
	printf("],\n");
	free(s->us);
}

/* One of several that are compared: `run` makes one call and returns its microseconds. */
struct side {
	const char *name;
	double (*run)(void *arg);
	void *arg;
	struct series times;
};

/* So that all see the same noise. */
static void take_turns(struct side *sides, size_t n, unsigned turns, unsigned calls)
{
	for (unsigned t = 0; t < turns; t++)
		for (size_t i = 0; i < n; i++)
			for (unsigned k = 0; k < calls; k++)
				add(&sides[i].times, sides[i].run(sides[i].arg));
	for (size_t i = 0; i < n; i++)
		print("", sides[i].name, &sides[i].times);
}

/* ---- programs ---- */

/* PLAIN is the one of 10 KB without headers, whose entry takes about 20 KB. */
enum kind { PLAIN, SAXPY, HALF, CUB, KINDS };

static const char *const kind_names[KINDS] = { "plain_", "saxpy_", "half_", "cub_" };

static const char *const texts[KINDS] = {
	[SAXPY] = "extern \"C\" __global__ void saxpy(float a, const float *x, float *y, int n)\n"
		  "{\n"
		  "	int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
		  "	if (i < n)\n"
		  "		y[i] = a * x[i] + y[i];\n"
		  "}\n",
	[HALF] = "#include <cuda_fp16.h>\n"
		 "#include <cooperative_groups.h>\n"
		 "namespace cg = cooperative_groups;\n"
		 "extern \"C\" __global__ void half_sum(const __half *x, float *out)\n"
		 "{\n"
		 "	auto warp = cg::tiled_partition<32>(cg::this_thread_block());\n"
		 "	float v = __half2float(x[blockIdx.x * blockDim.x + threadIdx.x]);\n"
		 "	for (int by = 16; by > 0; by /= 2)\n"
		 "		v += warp.shfl_down(v, by);\n"
		 "	if (warp.thread_rank() == 0)\n"
		 "		atomicAdd(out, v);\n"
		 "}\n",
	[CUB] = "#include <cub/block/block_reduce.cuh>\n"
		"extern \"C\" __global__ void block_sum(const float *x, float *out)\n"
		"{\n"
		"	using reduce = cub::BlockReduce<float, 256>;\n"
		"	__shared__ typename reduce::TempStorage storage;\n"
		"	float sum = reduce(storage).Sum(x[blockIdx.x * 256 + threadIdx.x]);\n"
		"	if (threadIdx.x == 0)\n"
		"		out[blockIdx.x] = sum;\n"
		"}\n",
};

static char include_option[WARM_PATH_BYTES], cccl_option[WARM_PATH_BYTES];
static const char *const flags[] = { "-arch=sm_90", "-std=c++17", cccl_option, include_option };

static void find_headers(void)
{
	const char *include = getenv("TEST_CUDA_INCLUDE");

	if (include == NULL)
		die("TEST_CUDA_INCLUDE is not set");
	snprintf(include_option, sizeof(include_option), "-I%s", include);
	snprintf(cccl_option, sizeof(cccl_option), "-I%s/cccl", include);
}

struct job {
	struct warm_compile_program program;
	char *source;
};

/* Each number is another program of the same kind: a comment differs. */
static struct job new_job(enum kind kind, unsigned number)
{
	char *source = need(SOURCE_BYTES + 2048);
	size_t used = (size_t)sprintf(source, "// %08u\n", number);

	if (kind != PLAIN)
		used += (size_t)sprintf(source + used, "%s", texts[kind]);
	for (int i = 0; kind == PLAIN && i < 8; i++)
		used += (size_t)sprintf(
			source + used,
			"extern \"C\" __global__ void k%d(float *x, float a, int n)\n{\n"
			"	int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
			"	if (i < n)\n		x[i] = a * x[i] + %d.0f;\n}\n",
			i, i);
	while (kind == PLAIN && used < SOURCE_BYTES)
		used += (size_t)sprintf(source + used, "// %064zu\n", used);
	return (struct job){ .program = { .source = source,
					  .source_bytes = used,
					  .name = "bench.cu",
					  .options = flags,
					  .n_options = kind == PLAIN || kind == SAXPY ? 1 : 4 },
			     .source = source };
}

/* ---- our side ---- */

static struct warm_compiler *open_compiler(const char *dir, int mode, unsigned max_parallel)
{
	struct warm_compiler_options options = WARM_COMPILER_OPTIONS_INIT;
	struct warm_compiler_error error = WARM_COMPILER_ERROR_INIT;
	struct warm_compiler *compiler;
	const char *const sealed[] = { include_option + strlen("-I"), NULL };

	options.cache_dir = dir;
	options.mode = mode;
	options.sealed_dirs = sealed;
	options.max_parallel = max_parallel;
	if (warm_compiler_open(&options, &compiler, &error) != 0)
		die("open: %s", error.message);
	return compiler;
}

static double compile(struct warm_compiler *c, const struct job *job, enum warm_compile_source want,
		      struct warm_compile_result **ret_result)
{
	struct warm_compiler_error error = WARM_COMPILER_ERROR_INIT;
	double start = now_us();

	if (warm_compiler_compile(c, &job->program, ret_result, &error) != 0)
		die("compile: %s\n%s", error.message, error.log != NULL ? error.log : "");
	double us = now_us() - start;
	if (warm_compile_result_source(*ret_result) != want)
		die("%s where %d was due: %s", warm_compile_result_fingerprint(*ret_result), want,
		    warm_compile_result_reason(*ret_result));
	return us;
}

static double miss(struct warm_compiler *c, const struct job *job)
{
	struct warm_compile_result *result;
	double us = compile(c, job, WARM_COMPILE_MISS, &result);

	warm_compile_result_free(result);
	return us;
}

struct lookups {
	struct warm_compiler *compiler;
	const struct job *jobs;
	size_t n, next;
};

static double hit(void *arg)
{
	struct lookups *l = arg;
	struct warm_compile_result *result;
	double us = compile(l->compiler, &l->jobs[l->next], WARM_COMPILE_HIT, &result);

	l->next = (l->next + 1) % l->n;
	warm_compile_result_free(result);
	return us;
}

/* ---- NVRTC's interface: NVRTC itself, or the drop-in ---- */

struct nvrtc {
	int (*create)(void **, const char *, const char *, int, const char *const *,
		      const char *const *);
	int (*compile)(void *, int, const char *const *);
	int (*cubin_size)(void *, size_t *);
	int (*cubin)(void *, char *);
	int (*ptx_size)(void *, size_t *);
	int (*ptx)(void *, char *);
	int (*destroy)(void **);
};

/* Without `builtins` the library finds its own. */
static void load_nvrtc(const char *library, const char *builtins, struct nvrtc *ret)
{
	const struct {
		const char *name;
		void *slot;
	} symbols[] = {
		{ "nvrtcCreateProgram", &ret->create },	   { "nvrtcCompileProgram", &ret->compile },
		{ "nvrtcGetCUBINSize", &ret->cubin_size }, { "nvrtcGetCUBIN", &ret->cubin },
		{ "nvrtcGetPTXSize", &ret->ptx_size },	   { "nvrtcGetPTX", &ret->ptx },
		{ "nvrtcDestroyProgram", &ret->destroy },
	};

	if (builtins[0] != '\0' && dlopen(builtins, RTLD_NOW | RTLD_GLOBAL) == NULL)
		die("%s", dlerror());
	void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	if (handle == NULL)
		die("%s", dlerror());
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++)
		if ((*(void **)symbols[i].slot = dlsym(handle, symbols[i].name)) == NULL)
			die("%s has no %s", library, symbols[i].name);
}

static void take_output(void *p, int (*size)(void *, size_t *), int (*get)(void *, char *))
{
	size_t bytes = 0;

	if (size(p, &bytes) != 0 || bytes == 0)
		die("NVRTC has no output");
	char *data = need(bytes);
	if (get(p, data) != 0)
		die("NVRTC gives no output");
	free(data);
}

/* From the source to cubin and PTX in memory. */
static double call_nvrtc(const struct nvrtc *n, const struct job *job)
{
	const struct warm_compile_program *program = &job->program;
	const char *options[8] = { "--no-cache" };
	void *p = NULL;
	double start = now_us();

	for (size_t i = 0; i < program->n_options; i++)
		options[i + 1] = program->options[i];
	if (n->create(&p, program->source, program->name, 0, NULL, NULL) != 0 ||
	    n->compile(p, (int)program->n_options + 1, options) != 0)
		die("NVRTC doesn't compile");
	take_output(p, n->cubin_size, n->cubin);
	take_output(p, n->ptx_size, n->ptx);
	(void)n->destroy(&p);
	return now_us() - start;
}

/* ---- processes of their own ---- */

enum { MAX_ANSWER = 4096 };

static void answer(const double *us, size_t n)
{
	if (write(STDOUT_FILENO, us, n * sizeof(*us)) != (ssize_t)(n * sizeof(*us)))
		die("write to the pipe");
}

/* Run this program with `args`. Its answers go to `ret`; the microseconds until the first came
 * and until the process had ended, to the other two. Returns the number of answers. */
static size_t run_self(const char *const args[4], double ret[MAX_ANSWER], double *ret_answered_us,
		       double *ret_ended_us)
{
	extern char **environ;
	posix_spawn_file_actions_t actions;
	char *argv[6] = { (char *)(uintptr_t) "kernel" };
	int ends[2], status = -1;
	size_t got = 0;
	ssize_t n;
	pid_t pid;

	for (int i = 0; i < 4; i++)
		argv[i + 1] = (char *)(uintptr_t)args[i];
	if (pipe2(ends, O_CLOEXEC) != 0 || posix_spawn_file_actions_init(&actions) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO) != 0)
		die("pipe");
	double start = now_us();
	if (posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ) != 0)
		die("spawn");
	close(ends[1]);
	while (got < MAX_ANSWER * sizeof(*ret) &&
	       (n = read(ends[0], (char *)ret + got, MAX_ANSWER * sizeof(*ret) - got)) > 0) {
		if (got == 0 && ret_answered_us != NULL)
			*ret_answered_us = now_us() - start;
		got += (size_t)n;
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		die("%s: status %d", args[0], status);
	if (ret_ended_us != NULL)
		*ret_ended_us = now_us() - start;
	close(ends[0]);
	posix_spawn_file_actions_destroy(&actions);
	return got / sizeof(*ret);
}

/* `number` 1000 * kind + number of the program. */
static int be_fresh(const char *number)
{
	struct nvrtc n;
	unsigned which = (unsigned)strtoul(number, NULL, 10);

	load_nvrtc(getenv("WARM_NVRTC_LIBRARY"), getenv("BENCH_BUILTINS"), &n);
	struct job job = new_job((enum kind)(which / 1000), which % 1000);
	double us = call_nvrtc(&n, &job);
	answer(&us, 1);
	_exit(0);
}

/* The first looks of a process at CUB's headers. */
static int be_reader(const char *dir)
{
	struct job job = new_job(CUB, 0);
	double us[3], start = now_us();
	struct lookups l = { open_compiler(dir, WARM_MODE_TRACED, 0), &job, 1, 0 };

	us[0] = now_us() - start;
	us[1] = hit(&l);
	us[2] = hit(&l);
	answer(us, 3);
	return 0;
}

/* A program that knows only NVRTC's interface: load the library, call it `calls` times. */
static int be_client(const char *library, const char *builtins, const char *calls)
{
	double us[MAX_ANSWER];
	struct job job = new_job(PLAIN, 0);
	struct nvrtc n;
	double start = now_us();
	size_t count = strtoul(calls, NULL, 10);

	load_nvrtc(library, builtins, &n);
	us[0] = now_us() - start;
	for (size_t i = 1; i <= count; i++)
		us[i] = call_nvrtc(&n, &job);
	answer(us, count + 1);
	return 0;
}

/* ---- as jiterator caches ---- */

static uint32_t rotate(uint32_t x, int by)
{
	return x << by | x >> (32 - by);
}

static void sha1_block(uint32_t h[5], const uint8_t *p)
{
	static const uint32_t k[4] = { 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6 };
	uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];

	for (int i = 0; i < 80; i++) {
		w[i] = i < 16 ? (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
					(uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3]
			      : rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
		uint32_t f = i < 20		 ? (b & c) | (~b & d)
			     : i < 40 || i >= 60 ? b ^ c ^ d
						 : (b & c) | (b & d) | (c & d);
		uint32_t next = rotate(a, 5) + f + e + k[i / 20] + w[i];
		e = d;
		d = c;
		c = rotate(b, 30);
		b = a;
		a = next;
	}
	h[0] += a;
	h[1] += b;
	h[2] += c;
	h[3] += d;
	h[4] += e;
}

static void sha1(const char *data, size_t bytes, uint32_t ret[5])
{
	uint32_t h[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 };
	uint8_t last[128] = { 0 };
	size_t rest = bytes % 64, end = rest < 56 ? 64 : 128;

	for (size_t at = 0; at + 64 <= bytes; at += 64)
		sha1_block(h, (const uint8_t *)data + at);
	memcpy(last, data + bytes - rest, rest);
	last[rest] = 0x80;
	for (size_t i = 0; i < 8; i++)
		last[end - 1 - i] = (uint8_t)((uint64_t)bytes * 8 >> 8 * i);
	for (size_t at = 0; at < end; at += 64)
		sha1_block(h, last + at);
	memcpy(ret, h, sizeof(h));
}

/* ATen's jit_utils.cpp: SHA-1 of the source, architecture and release in the file's name; the
 * file is a cubin and nothing else, and is believed. (It reads byte by byte through an ifstream;
 * here it gets one read().) */
struct jiterator {
	const char *dir;
	const struct job *job;
	char path[WARM_PATH_BYTES];
};

static void name_cubin(struct jiterator *j)
{
	uint32_t h[5];

	sha1(j->job->source, j->job->program.source_bytes, h);
	snprintf(j->path, sizeof(j->path),
		 "%.4000s/bench_arch9.0_nvrtc13.5_sass_%zu_%08x%08x%08x%08x%08x", j->dir,
		 j->job->program.source_bytes, h[0], h[1], h[2], h[3], h[4]);
}

static double jiterator_read(void *arg)
{
	const struct jiterator *j = arg;
	struct stat st;
	double start = now_us();
	int fd = open(j->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0)
		die("open %s", j->path);
	char *data = need((size_t)st.st_size);
	if (read(fd, data, (size_t)st.st_size) != st.st_size)
		die("read %s", j->path);
	close(fd);
	double us = now_us() - start;
	free(data);
	return us;
}

static double jiterator_hit(void *arg)
{
	double start = now_us();

	name_cubin(arg);
	double us = now_us() - start;
	return us + jiterator_read(arg);
}

static void write_file(const char *path, const void *data, size_t bytes)
{
	FILE *f = fopen(path, "w");

	if (f == NULL || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0)
		die("write %s", path);
}

/* ---- hits ---- */

static void make_dir(const char *path)
{
	if (mkdir(path, 0777) != 0)
		die("mkdir %s", path);
}

/* Without headers, in both modes, beside jiterator's way; then with headers in memory. */
static void measure_hits(const char *dir, const char *jit_dir)
{
	struct job job = new_job(PLAIN, 0);
	struct warm_compile_result *result;
	struct warm_compiler_counters counters;
	struct lookups closed = { open_compiler(dir, WARM_MODE_CLOSED, 0), &job, 1, 0 };
	struct lookups traced = { open_compiler(dir, WARM_MODE_TRACED, 0), &job, 1, 0 };
	struct jiterator jit = { .dir = jit_dir, .job = &job };
	struct side sides[] = {
		{ "hit_closed", hit, &closed, { 0 } },
		{ "hit_traced", hit, &traced, { 0 } },
		{ "jiterator_hit", jiterator_hit, &jit, { 0 } },
		{ "jiterator_read", jiterator_read, &jit, { 0 } },
	};
	size_t bytes;

	(void)compile(closed.compiler, &job, WARM_COMPILE_MISS, &result);
	const void *cubin = warm_compile_result_output(result, WARM_OUTPUT_CUBIN, &bytes);
	name_cubin(&jit);
	write_file(jit.path, cubin, bytes);
	warm_compile_result_free(result);
	(void)hit(&traced);
	warm_compiler_get_counters(traced.compiler, &counters, sizeof(counters));
	printf("\"entry_bytes\": %llu,\n\"cubin_bytes\": %zu,\n",
	       (unsigned long long)counters.bytes_read, bytes);
	take_turns(sides, 4, 100, 50);

	static const char *const names[] = { "a.h", "b.h", "c.h", "d.h", "e.h" };
	char *text = need(5 * HEADER_BYTES);
	struct warm_header headers[5];
	for (size_t i = 0; i < 5 * HEADER_BYTES; i++)
		text[i] = i % 64 == 63 ? '\n' : i % 64 < 2 ? '/' : 'x';
	for (size_t i = 0; i < 5; i++)
		headers[i] = (struct warm_header){ names[i], text + i * HEADER_BYTES,
						   HEADER_BYTES };
	struct job one = job, five = job;
	one.program.headers = five.program.headers = headers;
	one.program.n_headers = 1;
	five.program.n_headers = 5;
	struct lookups with_one = { closed.compiler, &one, 1, 0 };
	struct lookups with_five = { closed.compiler, &five, 1, 0 };
	struct side more[] = {
		{ "hit_headers_1", hit, &with_one, { 0 } },
		{ "hit_headers_5", hit, &with_five, { 0 } },
	};
	(void)miss(closed.compiler, &one);
	(void)miss(closed.compiler, &five);
	take_turns(more, 2, 100, 10);
	warm_compiler_close(closed.compiler);
	warm_compiler_close(traced.compiler);
	free(text);
	free(job.source);
}

/* How many files the entry below `dir` depends on, and how many places where there was none. */
static void print_dependencies(const char *dir)
{
	char pattern[WARM_PATH_BYTES];
	struct warm_kernel_entry entry;
	struct warm_kernel_dep dep;
	size_t bytes, n[2] = { 0, 0 };
	char *data;
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%.4000s/" WARM_KERNEL_DIR "/*/*.d/*", dir);
	if (glob(pattern, 0, NULL, &found) != 0 ||
	    warm_file_load(AT_FDCWD, found.gl_pathv[0], WARM_KERNEL_ENTRY_BYTES, &data, &bytes,
			   NULL) != 0 ||
	    warm_kernel_entry_parse(data, bytes, &entry, NULL) != 0)
		die("no entry below %s", dir);
	struct warm_reader r = warm_reader_of(entry.deps.data, entry.deps.bytes);
	while (warm_kernel_next_dep(&r, &dep))
		n[dep.kind == WARM_KERNEL_DEP_FILE]++;
	printf("\"cub_entry_bytes\": %zu,\n\"cub_files\": %zu,\n\"cub_absent\": %zu,\n", bytes,
	       n[1], n[0]);
	warm_kernel_entry_release(&entry);
	free(data);
	globfree(&found);
}

static void measure_cub_hits(const char *dir)
{
	struct job job = new_job(CUB, 0);
	struct lookups sealed = { open_compiler(dir, WARM_MODE_SEALED, 0), &job, 1, 0 };
	struct lookups traced = { open_compiler(dir, WARM_MODE_TRACED, 0), &job, 1, 0 };
	struct side sides[] = {
		{ "cub_sealed", hit, &sealed, { 0 } },
		{ "cub_traced", hit, &traced, { 0 } },
	};
	struct series opened = { 0 }, first = { 0 }, second = { 0 };
	const char *const args[4] = { "reader", dir };
	double us[MAX_ANSWER];

	(void)miss(sealed.compiler, &job);
	print_dependencies(dir);
	(void)hit(&sealed);
	(void)hit(&traced);
	take_turns(sides, 2, 50, 20);
	for (int i = 0; i < 25; i++) {
		if (run_self(args, us, NULL, NULL) != 3)
			die("the reader fails");
		add(&opened, us[0]);
		add(&first, us[1]);
		add(&second, us[2]);
	}
	print("cub_", "process_open", &opened);
	print("cub_", "process_first", &first);
	print("cub_", "process_second", &second);
	warm_compiler_close(sealed.compiler);
	warm_compiler_close(traced.compiler);
	free(job.source);
}

/* The same programs in a directory of their own, and among very many others. */
static void measure_many(const char *few_dir, const char *many_dir)
{
	struct job jobs[DISTINCT];
	struct lookups few = { open_compiler(few_dir, WARM_MODE_TRACED, 0), jobs, DISTINCT, 0 };
	struct lookups many = { open_compiler(many_dir, WARM_MODE_TRACED, 0), jobs, DISTINCT, 0 };
	struct side sides[] = {
		{ "few_entries", hit, &few, { 0 } },
		{ "many_entries", hit, &many, { 0 } },
	};
	char from[WARM_PATH_BYTES], to[WARM_PATH_BYTES], path[128];
	struct warm_hash128 name;

	snprintf(from, sizeof(from), "%.4000s/other", many_dir);
	write_file(from, "other", 5);
	scope_close int fd = open(many_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned i = 0; i < 256; i++) {
		snprintf(path, sizeof(path), WARM_KERNEL_DIR "/%02x", i);
		if (warm_beneath_mkdirs(fd, path, NULL) != 0)
			die("mkdir %s", path);
	}
	for (int i = 0; i < MANY; i++) {
		warm_random(&name, sizeof(name));
		warm_kernel_entry_path(name, NULL, path);
		if (linkat(fd, "other", fd, path, 0) != 0)
			die("link %s", path);
	}
	for (unsigned i = 0; i < DISTINCT; i++) {
		struct warm_compile_result *result;
		jobs[i] = new_job(PLAIN, 100 + i);
		(void)compile(few.compiler, &jobs[i], WARM_COMPILE_MISS, &result);
		const char *hex = warm_compile_result_fingerprint(result);
		snprintf(from, sizeof(from), "%.3900s/" WARM_KERNEL_DIR "/%.2s/%s", few_dir, hex,
			 hex);
		snprintf(to, sizeof(to), "%.3900s/" WARM_KERNEL_DIR "/%.2s/%s", many_dir, hex, hex);
		if (link(from, to) != 0)
			die("link %s", to);
		warm_compile_result_free(result);
	}
	take_turns(sides, 2, 100, 2 * DISTINCT);
	warm_compiler_close(few.compiler);
	warm_compiler_close(many.compiler);
	for (unsigned i = 0; i < DISTINCT; i++)
		free(jobs[i].source);
}

/* ---- misses ---- */

/* A fresh process that compiles with NVRTC, against the first and the second miss of a process. */
static void measure_misses(const char *dir, enum kind kind, unsigned rounds)
{
	struct series fresh = { 0 }, fresh_ended = { 0 }, first = { 0 }, later = { 0 };
	struct series fresh_cpu = { 0 }, both_cpu = { 0 };
	double us[MAX_ANSWER], answered = 0, ended = 0;
	char number[16];

	for (unsigned i = 0; i < 2 * rounds; i++) {
		snprintf(number, sizeof(number), "%u", 1000 * kind + i);
		const char *const args[4] = { "fresh", number };
		double cpu = cpu_us();
		/* Each goes first half of the times. */
		if ((i & 3) == 0 || (i & 3) == 3) {
			if (run_self(args, us, &answered, &ended) != 1)
				die("the fresh process fails");
			add(&fresh, answered);
			add(&fresh_ended, ended);
			add(&fresh_cpu, cpu_us() - cpu);
			continue;
		}
		struct job a = new_job(kind, 2 * i + 1), b = new_job(kind, 2 * i + 2);
		double start = now_us();
		struct warm_compiler *c = open_compiler(dir, WARM_MODE_TRACED, 0);
		double opened = now_us() - start;
		add(&first, opened + miss(c, &a));
		add(&later, miss(c, &b));
		warm_compiler_close(c);
		add(&both_cpu, cpu_us() - cpu);
		free(a.source);
		free(b.source);
	}
	print(kind_names[kind], "fresh", &fresh);
	print(kind_names[kind], "fresh_ended", &fresh_ended);
	print(kind_names[kind], "miss_first", &first);
	print(kind_names[kind], "miss_later", &later);
	print(kind_names[kind], "fresh_cpu", &fresh_cpu);
	print(kind_names[kind], "both_cpu", &both_cpu);
}

struct caller {
	const struct nvrtc *nvrtc;
	const struct job *job;
};

static void *call_in_thread(void *arg)
{
	struct caller *c = arg;

	(void)call_nvrtc(c->nvrtc, c->job);
	return NULL;
}

static double call_at_once(const struct nvrtc *n, const struct job jobs[2])
{
	struct caller callers[2] = { { n, &jobs[0] }, { n, &jobs[1] } };
	pthread_t threads[2];
	double start = now_us();

	for (int i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, call_in_thread, &callers[i]) != 0)
			die("thread");
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	return now_us() - start;
}

static double miss_at_once(struct warm_compiler *c, const struct job jobs[2])
{
	struct warm_compile_program programs[2] = { jobs[0].program, jobs[1].program };
	struct warm_compile_result *results[2];
	struct warm_compiler_error errors[2];
	double start = now_us();

	if (warm_compiler_compile_many(c, programs, 2, results, errors, NULL, NULL) != 0)
		die("compile: %s", errors[results[0] == NULL ? 0 : 1].message);
	double us = now_us() - start;
	for (int i = 0; i < 2; i++) {
		if (warm_compile_result_source(results[i]) != WARM_COMPILE_MISS)
			die("a miss was due: %s", warm_compile_result_reason(results[i]));
		warm_compile_result_free(results[i]);
	}
	return us;
}

/* Two programs one after the other and both at once, by kept helpers and in this process (where
 * one in turn stands for two). */
static void measure_at_once(const char *dir, const char *builtins, enum kind kind, unsigned rounds)
{
	struct series in_turn = { 0 }, at_once = { 0 }, plain_in_turn = { 0 }, threads = { 0 };
	struct warm_compiler *c = open_compiler(dir, WARM_MODE_TRACED, 2);
	struct nvrtc n;

	load_nvrtc(getenv("WARM_NVRTC_LIBRARY"), builtins, &n);
	for (unsigned i = 0; i <= rounds; i++) {
		struct job jobs[4];
		for (unsigned k = 0; k < 4; k++)
			jobs[k] = new_job(kind, 500 + 4 * i + k);
		double both = miss_at_once(c, jobs), one = call_nvrtc(&n, &jobs[2]);
		/* The first starts the helpers. */
		if (i > 0) {
			add(&at_once, both);
			add(&in_turn, miss(c, &jobs[2]) + miss(c, &jobs[3]));
			add(&threads, call_at_once(&n, jobs));
			add(&plain_in_turn, 2 * one);
		}
		for (unsigned k = 0; k < 4; k++)
			free(jobs[k].source);
	}
	print("", "two_at_once", &at_once);
	print("", "two_in_turn", &in_turn);
	print("", "nvrtc_two_threads", &threads);
	print("", "nvrtc_two_in_turn", &plain_in_turn);
	warm_compiler_close(c);
}

/* ---- the drop-in ---- */

static void measure_clients(const char *drop_in, const char *builtins)
{
	const char *const ours[4] = { "client", drop_in, "", "400" };
	const char *const real[4] = { "client", getenv("WARM_NVRTC_LIBRARY"), builtins, "6" };
	struct {
		const char *prefix;
		const char *const *args;
		struct series load, first, later;
	} sides[2] = { { .prefix = "dropin_", .args = ours },
		       { .prefix = "nvrtc_", .args = real } };
	double us[MAX_ANSWER];

	/* The entry, and the page cache. */
	(void)run_self(ours, us, NULL, NULL);
	(void)run_self(real, us, NULL, NULL);
	for (int round = 0; round < 8; round++)
		for (int s = 0; s < 2; s++) {
			size_t n = run_self(sides[s].args, us, NULL, NULL);
			if (n < 3)
				die("the client fails");
			add(&sides[s].load, us[0]);
			add(&sides[s].first, us[1]);
			for (size_t i = 2; i < n; i++)
				add(&sides[s].later, us[i]);
		}
	for (int s = 0; s < 2; s++) {
		print(sides[s].prefix, "load", &sides[s].load);
		print(sides[s].prefix, "first", &sides[s].first);
		print(sides[s].prefix, "later", &sides[s].later);
	}
}

int main(int argc, char **argv)
{
	static const char *const names[] = {
		"hits", "jit", "cub", "few", "many", "misses", "dropin"
	};
	enum { HITS, JIT, CUB_DIR, FEW, MANY_DIR, MISSES, DROP_IN, DIRS };
	char dirs[DIRS][WARM_PATH_BYTES], path[WARM_PATH_BYTES];
	struct warm_error err = { 0 };
	struct warm_nvrtc found;

	find_headers();
	if (argc == 3 && strcmp(argv[1], "fresh") == 0)
		return be_fresh(argv[2]);
	if (argc == 3 && strcmp(argv[1], "reader") == 0)
		return be_reader(argv[2]);
	if (argc == 5 && strcmp(argv[1], "client") == 0)
		return be_client(argv[2], argv[3], argv[4]);
	if (argc != 3 || getenv("WARM_NVRTC_LIBRARY") == NULL) {
		fprintf(stderr, "usage: WARM_NVRTC_LIBRARY=... kernel DIRECTORY DROP_IN\n");
		return 2;
	}
	for (int i = 0; i < DIRS; i++) {
		snprintf(dirs[i], sizeof(dirs[i]), "%.4000s/%s", argv[1], names[i]);
		make_dir(dirs[i]);
	}
	if (warm_nvrtc_find(NULL, 0, &found, &err) != 0)
		die("%s", err.msg);
	setenv("BENCH_BUILTINS", found.builtins, 1);
	setenv("WARM_CACHE_DIR", dirs[DROP_IN], 1);
	unsetenv("WARM_COMPILER_LOG");
	struct job job = new_job(PLAIN, 0);
	snprintf(path, sizeof(path), "%.4000s/bench.cu", argv[1]);
	write_file(path, job.source, job.program.source_bytes);
	free(job.source);

	printf("{\n");
	measure_hits(dirs[HITS], dirs[JIT]);
	measure_cub_hits(dirs[CUB_DIR]);
	measure_many(dirs[FEW], dirs[MANY_DIR]);
	measure_clients(argv[2], found.builtins);
	measure_misses(dirs[MISSES], SAXPY, 20);
	measure_misses(dirs[MISSES], HALF, 5);
	measure_misses(dirs[MISSES], CUB, 5);
	measure_at_once(dirs[MISSES], found.builtins, HALF, 5);
	printf("\"header_bytes\": %zu\n}\n", HEADER_BYTES);
	return 0;
}
