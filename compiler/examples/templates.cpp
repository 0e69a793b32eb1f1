/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel templates from C++: each instantiation that the program wants is compiled once, all of
 * them at once, and found again by its name.
 *
 *	templates
 *
 * WARM_CACHE_DIR is the cache directory. One line a kernel: where it came from, its lowered name,
 * the bytes of its cubin.
 */
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "warmcache/compiler.h"

namespace
{

const char source[] = R"(
template <typename T, int N> __global__ void scale(T *x, T factor, int n)
{
	int i = (blockIdx.x * blockDim.x + threadIdx.x) * N;
	#pragma unroll
	for (int k = 0; k < N; k++)
		if (i + k < n)
			x[i + k] *= factor;
}
)";

std::string text_of(const warm_compiler_error &error)
{
	return std::string(error.message) + "\n" + (error.log != nullptr ? error.log : "");
}

struct closer {
	void operator()(warm_compiler *compiler) const
	{
		warm_compiler_close(compiler);
	}
	void operator()(warm_compile_result *result) const
	{
		warm_compile_result_free(result);
	}
};
using result_ptr = std::unique_ptr<warm_compile_result, closer>;

std::unique_ptr<warm_compiler, closer> open_compiler()
{
	warm_compiler_error error = WARM_COMPILER_ERROR_INIT;
	warm_compiler *compiler = nullptr;

	if (warm_compiler_open(nullptr, &compiler, &error) != 0)
		throw std::runtime_error(text_of(error));
	return std::unique_ptr<warm_compiler, closer>(compiler);
}

/* One result for each instantiation, in their order. */
std::vector<result_ptr> compile(warm_compiler *compiler, const std::vector<const char *> &names)
{
	static const char *const options[] = { "-arch=sm_90", "-std=c++17" };
	std::vector<warm_compile_program> programs(names.size());
	std::vector<warm_compile_result *> results(names.size());
	std::vector<warm_compiler_error> errors(names.size());

	for (size_t i = 0; i < names.size(); i++) {
		programs[i].source = source;
		programs[i].source_bytes = sizeof(source) - 1;
		programs[i].name = "scale.cu";
		programs[i].options = options;
		programs[i].n_options = 2;
		programs[i].name_expressions = &names[i];
		programs[i].n_name_expressions = 1;
	}
	warm_compiler_compile_many(compiler, programs.data(), programs.size(), results.data(),
				   errors.data(), nullptr, nullptr);
	std::vector<result_ptr> owned;
	std::string failed;
	for (size_t i = 0; i < names.size(); i++) {
		owned.emplace_back(results[i]);
		if (results[i] == nullptr)
			failed += text_of(errors[i]);
		warm_compiler_error_release(&errors[i]);
	}
	if (!failed.empty())
		throw std::runtime_error(failed);
	return owned;
}

} // namespace

int main()
try {
	static const char *const sources[] = { "hit", "miss", "uncacheable", "unstored" };
	const std::vector<const char *> names = { "scale<float, 1>", "scale<float, 4>",
						  "scale<double, 2>" };
	auto compiler = open_compiler();
	auto results = compile(compiler.get(), names);

	for (size_t i = 0; i < names.size(); i++) {
		size_t bytes = 0;
		warm_compile_result_output(results[i].get(), WARM_OUTPUT_CUBIN, &bytes);
		std::printf("%s %s %s %zu\n", sources[warm_compile_result_source(results[i].get())],
			    names[i], warm_compile_result_lowered_name(results[i].get(), names[i]),
			    bytes);
	}
	return 0;
} catch (const std::exception &e) {
	std::fprintf(stderr, "templates: %s\n", e.what());
	return 1;
}
