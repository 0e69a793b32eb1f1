/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/native.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

enum { NO_CACHE_SINCE = 12 * 100 + 9, ERROR_INVALID_OPTION = 5, ERROR_COMPILATION = 6 };

static const char *const size_names[WARM_KERNEL_OUTPUTS] = {
	"nvrtcGetPTXSize",     "nvrtcGetCUBINSize",  "nvrtcGetLTOIRSize",
	"nvrtcGetOptiXIRSize", "nvrtcGetTileIRSize",
};
static const char *const get_names[WARM_KERNEL_OUTPUTS] = {
	"nvrtcGetPTX", "nvrtcGetCUBIN", "nvrtcGetLTOIR", "nvrtcGetOptiXIR", "nvrtcGetTileIR",
};

int warm_native_load(const char *path, const char *builtins, struct warm_native *ret_native,
		     struct warm_error *err)
{
	struct warm_native n = { 0 };
	int (*version)(int *, int *);
	const struct {
		const char *name;
		void *slot;
	} symbols[] = {
		{ "nvrtcVersion", &version },
		{ "nvrtcGetErrorString", &n.error_string },
		{ "nvrtcCreateProgram", &n.create },
		{ "nvrtcDestroyProgram", &n.destroy },
		{ "nvrtcCompileProgram", &n.compile },
		{ "nvrtcAddNameExpression", &n.add_expression },
		{ "nvrtcGetLoweredName", &n.lowered },
		{ "nvrtcGetProgramLogSize", &n.log_size },
		{ "nvrtcGetProgramLog", &n.log },
	};

	if (dlopen(builtins, RTLD_NOW | RTLD_GLOBAL) == NULL)
		return warm_error_set(err, WARM_UNSUPPORTED, "%s", dlerror());
	n.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (n.library == NULL)
		return warm_error_set(err, WARM_UNSUPPORTED, "%s", dlerror());
	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *symbol = dlsym(n.library, symbols[i].name);
		if (symbol == NULL)
			return warm_error_set(err, WARM_UNSUPPORTED, "%s has no %s", path,
					      symbols[i].name);
		*(void **)symbols[i].slot = symbol;
	}
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++) {
		*(void **)&n.size[k] = dlsym(n.library, size_names[k]);
		*(void **)&n.get[k] = dlsym(n.library, get_names[k]);
	}
	int major = 0, minor = 0;
	if (version(&major, &minor) == 0)
		n.number = major * 100 + minor;
	*ret_native = n;
	return 0;
}

void warm_native_refuse(struct warm_native_result *r, enum warm_wire_outcome outcome, int code,
			const char *message)
{
	r->response.outcome = outcome;
	r->response.nvrtc_result = code;
	r->response.message = warm_text_of(message);
}

void warm_native_release(struct warm_native_result *r)
{
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		free(r->outputs[k]);
	for (size_t i = 0; r->lowered != NULL && i < r->response.n_lowered; i++)
		free(r->lowered[i]);
	free(r->lowered);
	free(r->log);
	warm_wire_release_response(&r->response);
}

static int get_text(warm_native_program p, int (*size)(warm_native_program, size_t *),
		    int (*get)(warm_native_program, char *), char **ret_data,
		    struct warm_kernel_text *ret_text)
{
	size_t bytes = 0;

	if (size == NULL || get == NULL || size(p, &bytes) != 0 || bytes == 0)
		return 0;
	char *data = malloc(bytes + 1);
	if (data == NULL)
		return -1;
	if (get(p, data) != 0) {
		free(data);
		return 0;
	}
	data[bytes] = '\0';
	*ret_data = data;
	*ret_text = (struct warm_kernel_text){ data, bytes };
	return 0;
}

static int take_lowered(const struct warm_native *n, warm_native_program p,
			const struct warm_wire_request *q, struct warm_native_result *r)
{
	struct warm_wire_response *a = &r->response;

	a->lowered = calloc(q->n_expressions + 1, sizeof(*a->lowered));
	r->lowered = calloc(q->n_expressions + 1, sizeof(*r->lowered));
	if (a->lowered == NULL || r->lowered == NULL)
		return -1;
	for (; a->n_lowered < q->n_expressions; a->n_lowered++) {
		const char *lowered = NULL;
		if (n->lowered(p, q->expressions[a->n_lowered].data, &lowered) != 0 ||
		    lowered == NULL)
			lowered = "";
		char *copy = strdup(lowered);
		if (copy == NULL)
			return -1;
		r->lowered[a->n_lowered] = copy;
		a->lowered[a->n_lowered] = warm_text_of(copy);
	}
	return 0;
}

static int compile_program(const struct warm_native *n, warm_native_program p,
			   const struct warm_wire_request *q, struct warm_native_result *r)
{
	struct warm_wire_response *a = &r->response;
	const char **options = calloc(q->n_options + 2, sizeof(*options));
	size_t n_options = 0;

	if (options == NULL)
		return -1;
	/* NVRTC's own cache asks libcuda first, which takes 300 ms where there is a driver. In front:
	 * a last option may wait for its value. */
	if (n->number >= NO_CACHE_SINCE)
		options[n_options++] = "--no-cache";
	for (size_t i = 0; i < q->n_options; i++)
		options[n_options++] = q->options[i].data;
	int code = n->compile(p, (int)n_options, options);
	free(options);
	if (get_text(p, n->log_size, n->log, &r->log, &a->log) != 0)
		return -1;
	/* NVRTC counts the NUL. */
	if (a->log.bytes > 0 && a->log.data[a->log.bytes - 1] == '\0')
		a->log.bytes--;
	/* What ptxas refuses has its PTX. */
	if (get_text(p, n->size[WARM_KERNEL_PTX], n->get[WARM_KERNEL_PTX],
		     &r->outputs[WARM_KERNEL_PTX], &a->outputs[WARM_KERNEL_PTX]) != 0)
		return -1;
	/* PTX of 1 byte is only its NUL: none. */
	if (a->outputs[WARM_KERNEL_PTX].bytes <= 1)
		a->outputs[WARM_KERNEL_PTX] = (struct warm_kernel_text){ "", 0 };
	if (code != 0) {
		bool told = code == ERROR_COMPILATION || code == ERROR_INVALID_OPTION ||
			    a->log.bytes > 0;
		warm_native_refuse(r, told ? WARM_WIRE_COMPILE_ERROR : WARM_WIRE_NVRTC_ERROR, code,
				   n->error_string(code));
		return 0;
	}
	for (int k = WARM_KERNEL_PTX + 1; k < WARM_KERNEL_OUTPUTS; k++)
		if (get_text(p, n->size[k], n->get[k], &r->outputs[k], &a->outputs[k]) != 0)
			return -1;
	return take_lowered(n, p, q, r);
}

int warm_native_compile(const struct warm_native *n, const struct warm_wire_request *q,
			struct warm_native_result *r, struct warm_error *err)
{
	const struct warm_kernel_text empty = { "", 0 };
	scope_free const char **names = calloc(q->n_headers + 1, sizeof(*names));
	scope_free const char **sources = calloc(q->n_headers + 1, sizeof(*sources));
	warm_native_program program = NULL;

	*r = (struct warm_native_result){ 0 };
	r->response.message = r->response.uncacheable = r->response.log = empty;
	for (int k = 0; k < WARM_KERNEL_OUTPUTS; k++)
		r->response.outputs[k] = empty;
	if (names == NULL || sources == NULL)
		return warm_error_nomem(err, q->n_headers);
	for (size_t i = 0; i < q->n_headers; i++) {
		names[i] = q->headers[i].name.data;
		sources[i] = q->headers[i].source.data;
	}
	int code = n->create(&program, q->source.data, q->name.bytes > 0 ? q->name.data : NULL,
			     (int)q->n_headers, sources, names);
	for (size_t i = 0; code == 0 && i < q->n_expressions; i++)
		code = n->add_expression(program, q->expressions[i].data);
	int rc = 0;
	if (code != 0)
		warm_native_refuse(r, WARM_WIRE_NVRTC_ERROR, code, n->error_string(code));
	else
		rc = compile_program(n, program, q, r);
	if (program != NULL)
		n->destroy(&program);
	return rc == 0 ? 0 : warm_error_nomem(err, q->source.bytes);
}
