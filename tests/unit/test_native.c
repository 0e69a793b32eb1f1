/* SPDX-License-Identifier: Apache-2.0 */
/* With an NVRTC that the test makes itself: it does what a source tells it to. */
#include "tests/support/scratch.h"

#include <fcntl.h>
#include <glob.h>

#include "compiler/native.h"
#include "warmcache/compiler.h"

/* Words of the source: FAIL=<code>, LOG=<bytes>, EXIT=<code>, ABORT, NOPTX, SLEEP=<ms>. The PTX
 * holds the options and headers that it got. */
static const char stub[] =
	"#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n"
	"struct p { char *source, *log, ptx[4096]; };\n"
	"static long word(struct p *p, const char *w) { char *at = strstr(p->source, w);\n"
	"  return at ? atol(at + strlen(w)) : -1; }\n"
	"#ifndef NO_VERSION\n"
	"int nvrtcVersion(int *a, int *b) { *a = MAJOR; *b = MINOR; return 0; }\n"
	"#endif\n"
	"const char *nvrtcGetErrorString(int c) { static char t[40];\n"
	"  sprintf(t, \"STUB_ERROR_%d\", c); return t; }\n"
	"int nvrtcCreateProgram(struct p **r, const char *s, const char *name, int n,\n"
	"    const char *const *sources, const char *const *names) {\n"
	"  struct p *p = calloc(1, sizeof *p); p->source = strdup(s);\n"
	"  if (word(p, \"NOPROGRAM=\") > 0) { int c = word(p, \"NOPROGRAM=\");\n"
	"    free(p->source); free(p); return c; }\n"
	"  sprintf(p->ptx, \"// name %s\\n\", name ? name : \"none\");\n"
	"  for (int i = 0; i < n; i++)\n"
	"    sprintf(p->ptx + strlen(p->ptx), \"// header %s: %s\\n\", names[i], sources[i]);\n"
	"  *r = p; return 0; }\n"
	"int nvrtcDestroyProgram(struct p **p) { free((*p)->source); free((*p)->log); free(*p);\n"
	"  *p = 0; return 0; }\n"
	"int nvrtcAddNameExpression(struct p *p, const char *e) { return strcmp(e, \"bad\") ? 0 : "
	"8; }\n"
	"int nvrtcGetLoweredName(struct p *p, const char *e, const char **r) {\n"
	"  if (!strcmp(e, \"unknown\")) return 10; *r = !strcmp(e, \"f\") ? \"_Z1fv\" : 0; return "
	"0; }\n"
	"int nvrtcCompileProgram(struct p *p, int n, const char *const *o) {\n"
	"  long log = word(p, \"LOG=\"), fail = word(p, \"FAIL=\");\n"
	"  for (int i = 0; i < n; i++) sprintf(p->ptx + strlen(p->ptx), \"// option %s\\n\", "
	"o[i]);\n"
	"  if (log >= 0) { p->log = calloc(1, log + 1); memset(p->log, 'l', log); }\n"
	"  if (word(p, \"SLEEP=\") > 0) usleep(1000 * word(p, \"SLEEP=\"));\n"
	"  if (strstr(p->source, \"ABORT\")) abort();\n"
	"  if (strstr(p->source, \"EXIT=\")) exit(word(p, \"EXIT=\"));\n"
	"  return fail > 0 ? fail : 0; }\n"
	"int nvrtcGetProgramLogSize(struct p *p, size_t *r) {\n"
	"  *r = p->log ? strlen(p->log) + 1 : 1; return 0; }\n"
	"int nvrtcGetProgramLog(struct p *p, char *r) { strcpy(r, p->log ? p->log : \"\"); return "
	"0; }\n"
	"int nvrtcGetPTXSize(struct p *p, size_t *r) {\n"
	"  *r = strstr(p->source, \"NOPTX\") ? 1 : strlen(p->ptx) + 1; return 0; }\n"
	"int nvrtcGetPTX(struct p *p, char *r) {\n"
	"  strcpy(r, strstr(p->source, \"NOPTX\") ? \"\" : p->ptx); return 0; }\n"
	"#ifndef NO_CUBIN\n"
	"int nvrtcGetCUBINSize(struct p *p, size_t *r) { *r = 6; return 0; }\n"
	"int nvrtcGetCUBIN(struct p *p, char *r) { memcpy(r, \"cu\\0bin\", 6); return 0; }\n"
	"int nvrtcGetLTOIRSize(struct p *p, size_t *r) { *r = 0; return 0; }\n"
	"int nvrtcGetLTOIR(struct p *p, char *r) { return 0; }\n"
	"int nvrtcGetOptiXIRSize(struct p *p, size_t *r) { return 1; }\n"
	"int nvrtcGetOptiXIR(struct p *p, char *r) { return 1; }\n"
	"#endif\n";

#define NEEDS_CC()            \
	if (!have_tool("cc")) \
	skip()

/* "<dir>/libnvrtc.so.13" with its builtins beside it. */
static void make_stub(const struct scratch *s, const char *dir, int major, int minor,
		      const char *flags)
{
	char library[300];

	snprintf(library, sizeof(library), "%s/libnvrtc.so.13", dir);
	put_dir(s->fd, dir);
	put_text(s->fd, "stub.c", stub);
	assert_int_equal(shell("cd %s && cc -shared -fPIC -w -o new stub.c -DMAJOR=%d -DMINOR=%d "
			       "%s -Wl,--build-id && mv new %s && echo 'int builtins;' | "
			       "cc -shared -x c - -o %s/libnvrtc-builtins.so.13.0 -Wl,--build-id",
			       s->path, major, minor, flags, library, dir),
			 0);
}

static int load(const struct scratch *s, const char *dir, struct warm_native *ret_native,
		struct warm_error *err)
{
	char library[600], builtins[600];

	snprintf(library, sizeof(library), "%s/%s/libnvrtc.so.13", s->path, dir);
	snprintf(builtins, sizeof(builtins), "%s/%s/libnvrtc-builtins.so.13.0", s->path, dir);
	return warm_native_load(library, builtins, ret_native, err);
}

static struct warm_kernel_text options[3], expressions[2];

/* Compile in this process; the caller releases `ret_result`. */
static void compile(const struct warm_native *n, const char *source, size_t n_options,
		    size_t n_expressions, struct warm_native_result *ret_result)
{
	struct warm_wire_request q = { .name = warm_text_of("k.cu"),
				       .source = warm_text_of(source),
				       .options = options,
				       .n_options = n_options,
				       .expressions = expressions,
				       .n_expressions = n_expressions };

	assert_int_equal(warm_native_compile(n, &q, ret_result, NULL), 0);
}

TEST(a_library_that_lacks_a_function_is_refused_by_its_name)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	struct warm_native n = { 0 };
	struct warm_error err = { 0 };

	make_stub(&s, "lib", 13, 0, "-DNO_VERSION");
	assert_int_equal(load(&s, "lib", &n, &err), WARM_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "has no nvrtcVersion"));
	assert_non_null(strstr(err.msg, s.path));
	assert_null(n.library); /* outputs are written on success alone */
}

TEST(a_library_that_cannot_be_loaded_is_refused_in_the_loaders_words)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	struct warm_native n = { 0 };
	struct warm_error err = { 0 };

	assert_int_equal(load(&s, "nowhere", &n, &err), WARM_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "libnvrtc-builtins.so.13.0")); /* the builtins first */
	make_stub(&s, "lib", 13, 0, "");
	put_text(s.fd, "lib/libnvrtc.so.13", "no library");
	assert_int_equal(load(&s, "lib", &n, &err), WARM_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "lib/libnvrtc.so.13"));
}

TEST(a_program_reaches_nvrtc_as_it_was_given)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	struct warm_native n = { 0 };
	struct warm_native_result r;
	const struct warm_wire_header headers[] = { { warm_text_of("a.h"), warm_text_of("int a;") },
						    { warm_text_of("b.h"),
						      warm_text_of("int b;") } };
	struct warm_wire_request q = { .name = warm_text_of(""),
				       .source = warm_text_of("source"),
				       .options = options,
				       .n_options = 2,
				       .headers = headers,
				       .n_headers = 2 };

	make_stub(&s, "lib", 12, 8, "");
	assert_int_equal(load(&s, "lib", &n, NULL), 0);
	options[0] = warm_text_of("-arch=sm_90");
	options[1] = warm_text_of("-DX=a b");
	assert_int_equal(warm_native_compile(&n, &q, &r, NULL), 0);
	assert_int_equal(r.response.outcome, WARM_WIRE_COMPILED);
	assert_string_equal(r.response.outputs[WARM_KERNEL_PTX].data,
			    "// name none\n// header a.h: int a;\n// header b.h: int b;\n"
			    "// option -arch=sm_90\n// option -DX=a b\n");
	/* Its NUL is counted, as by nvrtcGetPTXSize; bytes of a cubin are bytes. */
	assert_int_equal(r.response.outputs[WARM_KERNEL_PTX].bytes,
			 strlen(r.response.outputs[WARM_KERNEL_PTX].data) + 1);
	assert_int_equal(r.response.outputs[WARM_KERNEL_CUBIN].bytes, 6);
	assert_memory_equal(r.response.outputs[WARM_KERNEL_CUBIN].data, "cu\0bin", 6);
	assert_int_equal(r.response.outputs[WARM_KERNEL_LTOIR].bytes, 0);
	assert_int_equal(r.response.outputs[WARM_KERNEL_OPTIXIR].bytes, 0);
	assert_int_equal(r.response.log.bytes, 0);
	warm_native_release(&r);
}

TEST(nvrtcs_own_cache_is_off_where_it_knows_the_option)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	static const struct {
		int major, minor;
		const char *dir;
		bool want;
	} rows[] = { { 12, 8, "a", false }, { 12, 9, "b", true }, { 13, 0, "c", true } };

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_native n = { 0 };
		struct warm_native_result r;
		make_stub(&s, rows[i].dir, rows[i].major, rows[i].minor, "");
		assert_int_equal(load(&s, rows[i].dir, &n, NULL), 0);
		assert_int_equal(n.number, 100 * rows[i].major + rows[i].minor);
		options[0] = warm_text_of("-DX");
		options[1] = warm_text_of("-I"); /* nothing may come behind it */
		compile(&n, "source", 2, 0, &r);
		assert_string_equal(r.response.outputs[WARM_KERNEL_PTX].data,
				    rows[i].want ? "// name k.cu\n// option --no-cache\n"
						   "// option -DX\n// option -I\n"
						 : "// name k.cu\n// option -DX\n"
						   "// option -I\n");
		warm_native_release(&r);
	}
}

TEST(a_library_without_a_getter_lacks_that_output_alone)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	struct warm_native n = { 0 };
	struct warm_native_result r;

	make_stub(&s, "lib", 12, 0, "-DNO_CUBIN");
	assert_int_equal(load(&s, "lib", &n, NULL), 0);
	compile(&n, "source", 0, 0, &r);
	assert_int_equal(r.response.outcome, WARM_WIRE_COMPILED);
	assert_true(r.response.outputs[WARM_KERNEL_PTX].bytes > 1);
	assert_int_equal(r.response.outputs[WARM_KERNEL_CUBIN].bytes, 0);
	warm_native_release(&r);
	compile(&n, "NOPTX", 0, 0, &r); /* one byte, its NUL, is none */
	assert_int_equal(r.response.outputs[WARM_KERNEL_PTX].bytes, 0);
	warm_native_release(&r);
}

TEST(errors_of_a_program_are_told_from_errors_of_nvrtc)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	static const struct {
		const char *source;
		enum warm_wire_outcome outcome;
		int code;
		size_t log_bytes;
	} rows[] = {
		{ "FAIL=6 LOG=12", WARM_WIRE_COMPILE_ERROR, 6, 12 },
		{ "FAIL=6", WARM_WIRE_COMPILE_ERROR, 6, 0 },
		{ "FAIL=5", WARM_WIRE_COMPILE_ERROR, 5, 0 },
		{ "FAIL=17 LOG=3", WARM_WIRE_COMPILE_ERROR, 17, 3 },
		{ "FAIL=7", WARM_WIRE_NVRTC_ERROR, 7, 0 },
		{ "FAIL=17 LOG=0", WARM_WIRE_NVRTC_ERROR, 17, 0 },
		{ "NOPROGRAM=2", WARM_WIRE_NVRTC_ERROR, 2, 0 },
		{ "LOG=1000", WARM_WIRE_COMPILED, 0, 1000 },
	};
	struct warm_native n = { 0 };

	make_stub(&s, "lib", 13, 0, "");
	assert_int_equal(load(&s, "lib", &n, NULL), 0);
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct warm_native_result r;
		char message[40];
		compile(&n, rows[i].source, 0, 0, &r);
		assert_int_equal(r.response.outcome, rows[i].outcome);
		assert_int_equal(r.response.nvrtc_result, rows[i].code);
		assert_int_equal(r.response.log.bytes, rows[i].log_bytes); /* without its NUL */
		snprintf(message, sizeof(message), "STUB_ERROR_%d", rows[i].code);
		assert_string_equal(r.response.message.data, rows[i].code != 0 ? message : "");
		assert_int_equal(r.response.outputs[WARM_KERNEL_CUBIN].bytes,
				 rows[i].code == 0 ? 6 : 0);
		warm_native_release(&r);
	}
}

TEST(name_expressions_have_a_lowered_name_or_none)
{
	NEEDS_CC();
	scope_scratch struct scratch s = scratch_open();
	struct warm_native n = { 0 };
	struct warm_native_result r;

	make_stub(&s, "lib", 13, 0, "");
	assert_int_equal(load(&s, "lib", &n, NULL), 0);
	expressions[0] = warm_text_of("f");
	expressions[1] = warm_text_of("unknown");
	compile(&n, "source", 0, 2, &r);
	assert_int_equal(r.response.n_lowered, 2);
	assert_string_equal(r.response.lowered[0].data, "_Z1fv");
	assert_string_equal(r.response.lowered[1].data, "");
	warm_native_release(&r);
	expressions[1] = warm_text_of("nothing"); /* success, and no name */
	compile(&n, "source", 0, 2, &r);
	assert_string_equal(r.response.lowered[1].data, "");
	warm_native_release(&r);
	expressions[1] = warm_text_of("bad");
	compile(&n, "source", 0, 2, &r);
	assert_int_equal(r.response.outcome, WARM_WIRE_NVRTC_ERROR);
	assert_int_equal(r.response.nvrtc_result, 8);
	warm_native_release(&r);
}

/* ---- in the helper ---- */

static bool lacking(void)
{
	const char *helper = getenv("WARM_NVRTC_HELPER");

	return helper == NULL || helper[0] == '\0';
}
#define NEEDS_HELPER() \
	if (lacking()) \
	skip()

struct bench {
	struct scratch s;
	struct warm_compiler *c;
	struct warm_compiler_error err;
};

static void open_bench(struct bench *b, const char *flags, int fallback)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;

	*b = (struct bench){ .s = scratch_open(), .err = WARM_COMPILER_ERROR_INIT };
	put_dir(b->s.fd, "cache");
	make_stub(&b->s, "lib", 13, 0, flags);
	o.cache_dir = scratch_path(&b->s, "cache");
	o.nvrtc_library = scratch_path(&b->s, "lib/libnvrtc.so.13");
	o.fallback = fallback;
	if (warm_compiler_open(&o, &b->c, &b->err) != 0)
		fail_msg("%s", b->err.message);
}

static void close_bench(struct bench *b)
{
	warm_compiler_close(b->c);
	warm_compiler_error_release(&b->err);
	scratch_close(&b->s);
}
#define scope_bench WARM_SCOPE(close_bench)

static int compile_by(struct bench *b, const char *source, struct warm_compile_result **ret_result)
{
	struct warm_compile_program p = { .source = source,
					  .source_bytes = strlen(source),
					  .name = "k.cu" };

	warm_compiler_error_release(&b->err);
	return warm_compiler_compile(b->c, &p, ret_result, &b->err);
}

TEST(a_library_that_is_too_old_is_an_error_that_names_what_it_lacks)
{
	NEEDS_CC();
	NEEDS_HELPER();

	for (int fallback = 0; fallback < 2; fallback++) {
		scope_bench struct bench b;
		struct warm_compile_result *r = NULL;
		open_bench(&b, "-DNO_VERSION", fallback);
		/* Hits would need none of it. */
		assert_int_equal(compile_by(&b, "source", &r), WARM_COMPILER_NO_NVRTC);
		assert_null(r);
		assert_non_null(strstr(b.err.message, "has no nvrtcVersion"));
		assert_non_null(strstr(b.err.message, "libnvrtc.so.13"));
	}
}

TEST(a_library_without_cubins_gives_ptx_and_is_cached)
{
	NEEDS_CC();
	NEEDS_HELPER();
	scope_bench struct bench b;
	struct warm_compile_result *r = NULL;

	open_bench(&b, "-DNO_CUBIN", 0);
	for (int i = 0; i < 2; i++) {
		size_t bytes = 1;
		assert_int_equal(compile_by(&b, "source", &r), 0);
		assert_int_equal(warm_compile_result_source(r),
				 i == 0 ? WARM_COMPILE_MISS : WARM_COMPILE_HIT);
		assert_non_null(warm_compile_result_output(r, WARM_OUTPUT_PTX, &bytes));
		assert_true(bytes > 1);
		assert_null(warm_compile_result_output(r, WARM_OUTPUT_CUBIN, &bytes));
		assert_int_equal(bytes, 0);
		assert_null(warm_compile_result_output(r, (enum warm_output)99, &bytes));
		warm_compile_result_free(r);
	}
}

TEST(an_nvrtc_that_takes_the_process_down_takes_a_helper)
{
	NEEDS_CC();
	NEEDS_HELPER();
	scope_bench struct bench b;
	struct warm_compile_result *r = NULL;

	open_bench(&b, "", 0);
	assert_int_equal(compile_by(&b, "ABORT", &r), WARM_COMPILER_HELPER);
	assert_non_null(strstr(b.err.message, "killed by signal 6"));
	/* As on SIGTERM while NVRTC parses. */
	assert_int_equal(compile_by(&b, "EXIT=4", &r), WARM_COMPILER_HELPER);
	assert_non_null(strstr(b.err.message, "exited with 4"));
	assert_int_equal(compile_by(&b, "fine", &r), 0);
	warm_compile_result_free(r);
	r = NULL;
	/* Also one that had compiled before. */
	assert_int_equal(compile_by(&b, "ABORT", &r), WARM_COMPILER_HELPER);
	assert_non_null(strstr(b.err.message, "killed by signal 6"));
	assert_null(r);
}

TEST(an_error_of_nvrtc_keeps_its_code)
{
	NEEDS_CC();
	NEEDS_HELPER();
	scope_bench struct bench b;
	struct warm_compile_result *r = NULL;
	struct warm_compiler_counters n;

	open_bench(&b, "", 0);
	assert_int_equal(compile_by(&b, "FAIL=7", &r), WARM_COMPILER_NVRTC);
	assert_int_equal(b.err.status, WARM_COMPILER_NVRTC);
	assert_int_equal(b.err.nvrtc_result, 7);
	assert_string_equal(b.err.message, "k.cu: STUB_ERROR_7");
	assert_null(b.err.log);
	assert_int_equal(compile_by(&b, "FAIL=6 LOG=5", &r), WARM_COMPILER_COMPILE_ERROR);
	assert_int_equal(b.err.nvrtc_result, 6);
	assert_string_equal(b.err.log, "lllll");
	warm_compiler_get_counters(b.c, &n, sizeof(n));
	assert_int_equal(n.failed, 2);
	assert_int_equal(n.helpers_started, 1); /* that can go on */
}

TEST(a_log_of_megabytes_comes_whole)
{
	NEEDS_CC();
	NEEDS_HELPER();
	scope_bench struct bench b;
	struct warm_compile_result *r = NULL;
	enum { BYTES = 20000000 };

	open_bench(&b, "", 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(compile_by(&b, "LOG=20000000", &r), 0);
		assert_int_equal(strlen(warm_compile_result_log(r)), BYTES);
		warm_compile_result_free(r);
		r = NULL;
	}
	assert_int_equal(compile_by(&b, "LOG=20000000 FAIL=6", &r), WARM_COMPILER_COMPILE_ERROR);
	assert_int_equal(strlen(b.err.log), BYTES);
}

TEST(what_a_library_made_that_was_replaced_meanwhile_is_not_stored)
{
	NEEDS_CC();
	NEEDS_HELPER();
	scope_bench struct bench b;
	struct warm_compile_result *r = NULL;
	struct warm_compiler_counters n;
	glob_t g;

	open_bench(&b, "", 0);
	/* As an upgrade does it: the path is the same, the compiler is another. */
	make_stub(&b.s, "lib", 13, 1, "-DNO_CUBIN");
	assert_int_equal(compile_by(&b, "source", &r), 0);
	assert_int_equal(warm_compile_result_source(r), WARM_COMPILE_UNCACHEABLE);
	assert_non_null(strstr(warm_compile_result_reason(r), "changed since"));
	warm_compile_result_free(r);
	warm_compiler_get_counters(b.c, &n, sizeof(n));
	assert_int_equal(n.uncacheable_changed, 1);
	assert_int_equal(n.uncacheable, 1);
	assert_int_equal(glob(scratch_path(&b.s, "cache/nvrtc/v1/*/*"), 0, NULL, &g), GLOB_NOMATCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_library_that_lacks_a_function_is_refused_by_its_name),
		cmocka_unit_test(a_library_that_cannot_be_loaded_is_refused_in_the_loaders_words),
		cmocka_unit_test(a_program_reaches_nvrtc_as_it_was_given),
		cmocka_unit_test(nvrtcs_own_cache_is_off_where_it_knows_the_option),
		cmocka_unit_test(a_library_without_a_getter_lacks_that_output_alone),
		cmocka_unit_test(errors_of_a_program_are_told_from_errors_of_nvrtc),
		cmocka_unit_test(name_expressions_have_a_lowered_name_or_none),
		cmocka_unit_test(a_library_that_is_too_old_is_an_error_that_names_what_it_lacks),
		cmocka_unit_test(a_library_without_cubins_gives_ptx_and_is_cached),
		cmocka_unit_test(an_nvrtc_that_takes_the_process_down_takes_a_helper),
		cmocka_unit_test(an_error_of_nvrtc_keeps_its_code),
		cmocka_unit_test(a_log_of_megabytes_comes_whole),
		cmocka_unit_test(what_a_library_made_that_was_replaced_meanwhile_is_not_stored),
	};

	if (lacking())
		print_message("# note: WARM_NVRTC_HELPER is not set; some is skipped\n");
	unsetenv("WARM_CACHE_DIR");
	unsetenv("WARM_COMPILER_LOG");
	unsetenv("WARM_COMPILER_MAX_BYTES");
	alarm(300); /* what waits for ever fails */
	return RUN(tests);
}
