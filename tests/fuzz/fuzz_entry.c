/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An entry of the kernel cache: as it comes, and with its checksum made right. What parses must
 * come out of the encoder as it went in, and its texts must be C strings.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/kernel/entry.h"

enum { SUM_BYTES = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_text(struct warm_kernel_text t)
{
	must(t.data != NULL && t.data[t.bytes] == '\0');
}

static void check(const void *data, size_t bytes)
{
	struct warm_kernel_entry e = { 0 };
	struct warm_error err = { 0 };
	scope_buf struct warm_buf again = WARM_BUF_INIT;
	char path[128];

	if (warm_kernel_entry_parse(data, bytes, &e, &err) != 0) {
		must(err.status == WARM_CORRUPT || err.status == WARM_NO_MEMORY);
		return;
	}
	check_text(e.inputs.compiler);
	check_text(e.inputs.environment);
	check_text(e.inputs.name);
	check_text(e.log);
	for (size_t i = 0; i < e.inputs.n_options; i++)
		check_text(e.inputs.options[i]);
	for (size_t i = 0; i < e.inputs.n_expressions; i++) {
		check_text(e.inputs.expressions[i]);
		check_text(e.lowered[i]);
	}
	struct warm_reader list = warm_reader_of(e.deps.data, e.deps.bytes);
	struct warm_kernel_dep dep;
	while (warm_kernel_next_dep(&list, &dep))
		check_text(dep.path);
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		check_text(e.outputs[k]);
	must(warm_kernel_inputs_equal(&e.inputs, &e.inputs));
	struct warm_hasher *hasher = warm_hasher_new();
	if (hasher != NULL) {
		struct warm_hash128 deps = warm_kernel_deps_digest(e.deps);
		warm_kernel_entry_path(warm_kernel_fingerprint(&e.inputs, hasher), &deps, path);
		warm_hasher_free(hasher);
	}
	warm_kernel_entry_encode(&e, &again);
	struct warm_kernel_entry twice = { 0 };
	must(again.failed || warm_kernel_entry_parse(again.data, again.bytes, &twice, &err) == 0);
	if (!again.failed) {
		must(warm_kernel_inputs_equal(&e.inputs, &twice.inputs));
		must(e.deps.n == twice.deps.n && e.log.bytes == twice.log.bytes);
		warm_kernel_entry_release(&twice);
	}
	warm_kernel_entry_release(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	scope_free uint8_t *copy = malloc(bytes > 0 ? bytes : 1);

	if (copy == NULL)
		return 0;
	memcpy(copy, data, bytes);
	check(copy, bytes);
	if (bytes <= SUM_BYTES)
		return 0;
	struct warm_hash128 sum = warm_hash128(copy, bytes - SUM_BYTES);
	for (int i = 0; i < 8; i++) {
		copy[bytes - 16 + (size_t)i] = (uint8_t)(sum.low >> (8 * i));
		copy[bytes - 8 + (size_t)i] = (uint8_t)(sum.high >> (8 * i));
	}
	check(copy, bytes);
	return 0;
}
