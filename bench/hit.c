/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The time of a kernel cache hit: a source of 10 KB without headers whose entry takes about
 * 20 KB, looked up 5,000 times in closed mode.
 *
 *	hit CACHE_DIRECTORY
 *
 * Prints one JSON object: entry_bytes, p50_us, p99_us, miss_ms.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "warmcache/compiler.h"

enum { LOOKUPS = 5000, SOURCE_BYTES = 10 << 10 };

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a_p, const void *b_p)
{
	double a = *(const double *)a_p, b = *(const double *)b_p;

	return a < b ? -1 : a > b;
}

/* Kernels until the source is 10 KB: their cubin and PTX come to about 20 KB. */
static char *make_source(void)
{
	char *source = malloc(SOURCE_BYTES + 1024);
	size_t used = 0;

	for (int i = 0; source != NULL && i < 8; i++)
		used += (size_t)sprintf(
			source + used,
			"extern \"C\" __global__ void k%d(float *x, float a, int n)\n{\n"
			"	int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
			"	if (i < n)\n		x[i] = a * x[i] + %d.0f;\n}\n",
			i, i);
	while (source != NULL && used < SOURCE_BYTES)
		used += (size_t)sprintf(source + used, "// %064zu\n", used);
	return source;
}

int main(int argc, char **argv)
{
	struct warm_compiler_options options = WARM_COMPILER_OPTIONS_INIT;
	struct warm_compiler_error error = WARM_COMPILER_ERROR_INIT;
	struct warm_compiler *compiler;
	struct warm_compile_result *result;
	static double times[LOOKUPS];
	const char *const flags[] = { "-arch=sm_90" };
	char *source = make_source();

	if (argc != 2 || source == NULL)
		return 2;
	options.cache_dir = argv[1];
	options.mode = WARM_MODE_CLOSED;
	struct warm_compile_program program = {
		.source = source,
		.source_bytes = strlen(source),
		.name = "bench.cu",
		.options = flags,
		.n_options = 1,
	};
	double start, miss = 0;
	if (warm_compiler_open(&options, &compiler, &error) != 0)
		goto failed;
	for (int i = -1; i < LOOKUPS; i++) {
		start = now_us();
		if (warm_compiler_compile(compiler, &program, &result, &error) != 0)
			goto failed;
		if (i < 0)
			miss = now_us() - start;
		else
			times[i] = now_us() - start;
		if (i >= 0 && warm_compile_result_source(result) != WARM_COMPILE_HIT) {
			fprintf(stderr, "no hit: %s\n", warm_compile_result_reason(result));
			return 1;
		}
		warm_compile_result_free(result);
	}
	struct warm_compiler_counters counters;
	warm_compiler_get_counters(compiler, &counters, sizeof(counters));
	warm_compiler_close(compiler);
	qsort(times, LOOKUPS, sizeof(times[0]), compare);
	printf("{\"entry_bytes\": %llu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"miss_ms\": %.1f}\n",
	       (unsigned long long)(counters.bytes_read / counters.hits), times[LOOKUPS / 2],
	       times[LOOKUPS * 99 / 100], miss / 1000);
	free(source);
	return 0;
failed:
	fprintf(stderr, "%s\n", error.message);
	warm_compiler_error_release(&error);
	return 1;
}
