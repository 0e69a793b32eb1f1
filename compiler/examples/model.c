/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model process as warmcache sees it: at its start it compiles three CUDA programs through
 * libwarmcache-compiler, then serves until SIGTERM.
 *
 *	model CUDA_INCLUDE_DIR
 *
 * WARM_CACHE_DIR is the volume. One JSON line on stdout when it is ready.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "warmcache/compiler.h"

static const char saxpy[] =
	"extern \"C\" __global__ void saxpy(float a, const float *x, float *y, int n)\n"
	"{\n"
	"	int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
	"	if (i < n)\n"
	"		y[i] = a * x[i] + y[i];\n"
	"}\n";

static const char half_sum[] =
	"#include <cuda_fp16.h>\n"
	"#include <cooperative_groups.h>\n"
	"#include <cooperative_groups/reduce.h>\n"
	"namespace cg = cooperative_groups;\n"
	"extern \"C\" __global__ void half_sum(const __half *x, float *out, int n)\n"
	"{\n"
	"	auto warp = cg::tiled_partition<32>(cg::this_thread_block());\n"
	"	float v = 0.0f;\n"
	"	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * "
	"blockDim.x)\n"
	"		v += __half2float(x[i]);\n"
	"	v = cg::reduce(warp, v, cg::plus<float>());\n"
	"	if (warp.thread_rank() == 0)\n"
	"		atomicAdd(out, v);\n"
	"}\n";

static const char block_sum[] =
	"#include <cub/block/block_reduce.cuh>\n"
	"template <int THREADS>\n"
	"__global__ void block_sum(const float *x, float *out)\n"
	"{\n"
	"	using reduce = cub::BlockReduce<float, THREADS>;\n"
	"	__shared__ typename reduce::TempStorage storage;\n"
	"	float sum = reduce(storage).Sum(x[blockIdx.x * THREADS + threadIdx.x]);\n"
	"	if (threadIdx.x == 0)\n"
	"		out[blockIdx.x] = sum;\n"
	"}\n";

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void print_failure(const char *what, struct warm_compiler_error *error)
{
	fprintf(stderr, "%s: %s\n%s", what, error->message, error->log != NULL ? error->log : "");
	warm_compiler_error_release(error);
}

int main(int argc, char **argv)
{
	double start = seconds();
	struct warm_compiler_options options = WARM_COMPILER_OPTIONS_INIT;
	struct warm_compiler_error error = WARM_COMPILER_ERROR_INIT;
	struct warm_compiler *compiler;
	char include[4096], cccl[4096];
	sigset_t set;
	int signal_number;

	if (argc != 2) {
		fprintf(stderr, "usage: %s CUDA_INCLUDE_DIR\n", argv[0]);
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	snprintf(include, sizeof(include), "-I%s", argv[1]);
	snprintf(cccl, sizeof(cccl), "-I%s/cccl", argv[1]);

	if (warm_compiler_open(&options, &compiler, &error) != 0) {
		print_failure("open", &error);
		return 1;
	}
	const char *const flags[] = { "-arch=sm_90", "-std=c++17", include, cccl };
	const char *const expressions[] = { "block_sum<256>" };
	const struct warm_compile_program programs[] = {
		{ .source = saxpy,
		  .source_bytes = strlen(saxpy),
		  .name = "saxpy.cu",
		  .options = flags,
		  .n_options = 1 },
		{ .source = half_sum,
		  .source_bytes = strlen(half_sum),
		  .name = "half_sum.cu",
		  .options = flags,
		  .n_options = 4 },
		{ .source = block_sum,
		  .source_bytes = strlen(block_sum),
		  .name = "block_sum.cu",
		  .options = flags,
		  .n_options = 4,
		  .name_expressions = expressions,
		  .n_name_expressions = 1 },
	};
	size_t total = 0;
	for (size_t i = 0; i < 3; i++) {
		struct warm_compile_result *result;
		size_t bytes;
		if (warm_compiler_compile(compiler, &programs[i], &result, &error) != 0) {
			print_failure(programs[i].name, &error);
			warm_compiler_close(compiler);
			return 1;
		}
		/* Here a model calls cuModuleLoadData() with the cubin. */
		if (warm_compile_result_output(result, WARM_OUTPUT_CUBIN, &bytes) == NULL) {
			fprintf(stderr, "%s: no cubin\n", programs[i].name);
			return 1;
		}
		total += bytes;
		warm_compile_result_free(result);
	}
	struct warm_compiler_counters counters;
	warm_compiler_get_counters(compiler, &counters, sizeof(counters));
	printf("{\"ready_seconds\":%.4f,\"compiled\":%llu,\"hits\":%llu,\"cubin_bytes\":%zu}\n",
	       seconds() - start, (unsigned long long)counters.misses,
	       (unsigned long long)counters.hits, total);
	fflush(stdout);
	warm_compiler_close(compiler);
	sigwait(&set, &signal_number);
	return 0;
}
