/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing stale: whatever changes, the cache gives what an NVRTC without a cache gives.
 *
 * A row is a program, and one change to it, to the files that it includes or to its surroundings.
 * The program is compiled into the cache and read from it until what is remembered of its files is
 * in force. Then comes the change, and all outputs are compared with those of NVRTC in a process
 * of its own: by the compiler that remembers, by one opened anew, and by one in sealed mode. Then
 * the change is taken back, and the first bytes must be there again.
 *
 * With a real NVRTC: WARM_NVRTC_LIBRARY names it and WARM_NVRTC_HELPER the helper.
 * TEST_NVRTC12_LIBRARY, a libnvrtc.so.12, adds a second compiler.
 */
#include "tests/support/scratch.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "warmcache/compiler.h"

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

enum {
	MAX_OPTIONS = 6,
	MAX_HEADERS = 3,
	MAX_NAMES = 4,
	LOG = WARM_OUTPUT_TILEIR + 1, /* what comes behind the outputs */
	LOWERED,
	FIELDS = LOWERED + MAX_NAMES,
	INVALID_OPTION = 5, /* nvrtcResult */
	/* What is younger than a second is not remembered. */
	SETTLE_MS = 1200,
};

static bool lacking(void)
{
	const char *library = getenv("WARM_NVRTC_LIBRARY"), *helper = getenv("WARM_NVRTC_HELPER");

	return library == NULL || library[0] == '\0' || helper == NULL || helper[0] == '\0';
}
/* NVRTC, in a fork, doesn't run under the thread sanitizer. */
#define NEEDS_NVRTC()                \
	if (UNDER_TSAN || lacking()) \
	skip()

/* ---- what a row says ---- */

/* For a list that is to be empty, and for a program without a name. */
static const char none[] = "none";

/* "@" stands for the row's directory. What is NULL is as in the program before the change, or else
 * as written here. */
struct recipe {
	const char *source;			  /* with_header */
	const char *name;			  /* "@/p/k.cu" */
	const char *cwd;			  /* "@/c" */
	const char *options[MAX_OPTIONS + 1];	  /* "-I@/inc", and -arch where none is given */
	const char *headers[2 * MAX_HEADERS + 1]; /* name, text, ... */
	const char *expressions[MAX_NAMES + 1];
	const char *variable; /* "NAME=value" */
	mode_t mask;	      /* the umask, 022 */
	bool null_lists;      /* NULL for the lists that are empty */
	bool shifted;	      /* the source lies at an odd address */
};

/* Scripts run in the row's directory, where p, q, c, d, inc and before are, and inc/a.h says that V
 * is 1. `put FILE N` makes it say N, with the same size and mtime. */
struct row {
	const char *what;
	const char *make;	   /* before the program is compiled */
	const char *change, *undo; /* of files */
	struct recipe base, changed;
	bool alike;    /* the change may leave all outputs as they are */
	bool by_link;  /* the cache is reached by another path */
	bool by_child; /* it is another process that reads */
};

#define KERNEL "extern \"C\" __global__ void k(int *a) { a[threadIdx.x] += V; }\n"
#define GUESS(include) \
	"#if __has_include(" include ")\n#define V 5\n#else\n#define V 6\n#endif\n" KERNEL
#define DIRECTORY(what) \
	"extern \"C\" __global__ void k(const char **a) { a[threadIdx.x] = " what "; }\n"

static const char with_header[] = "#include \"a.h\"\n" KERNEL;
static const char without[] = "extern \"C\" __global__ void k(int *a) { a[threadIdx.x] += 1; }\n";
static const char defined[] = KERNEL;
static const char template_kernel[] =
	"template <typename T> __global__ void k(T *a) { a[threadIdx.x] += 1; }\n";
static const char warned[] = "extern \"C\" __global__ void k(int *a) { int unused; a[0] = 1; }\n";
static const char twice[] =
	"#include \"one/h.h\"\n#include \"two/h.h\"\n#ifndef V\n#define V 8\n#endif\n" KERNEL;

/* ---- changes to what the caller gives ---- */

static const struct row given[] = {
	{ "one byte of the source", .base = { without },
	  .changed = { "extern \"C\" __global__ void k(int *a) { a[threadIdx.x] += 2; }\n" } },
	{ "a newline at the source's end", .base = { without },
	  .changed = { "extern \"C\" __global__ void k(int *a) { a[threadIdx.x] += 1; }\n\n" },
	  .alike = true },
	{ "an option more", .base = { defined, .options = { "-DV=1" } },
	  .changed = { .options = { "-DV=1", "-w" } }, .alike = true },
	{ "an option less",
	  .base = { "#ifdef W\n#define V 3\n#else\n#define V 4\n#endif\n" KERNEL,
		    .options = { "-DV1", "-DW" } },
	  .changed = { .options = { "-DV1" } } },
	{ "no option at all", .base = { without, .options = { "-lineinfo" } },
	  .changed = { .options = { none } } },
	{ "another value of a macro", .base = { defined, .options = { "-DV=1" } },
	  .changed = { .options = { "-DV=2" } } },
	{ "another -arch", .base = { without, .options = { "-arch=sm_90" } },
	  .changed = { .options = { "-arch=sm_80" } } },
	{ "-arch of a real and a virtual architecture",
	  .base = { without, .options = { "-arch=sm_90" } },
	  .changed = { .options = { "-arch=compute_90" } } },
	{ "another -std",
	  .base = { "#define V (int)(__cplusplus / 100)\n" KERNEL, .options = { "-std=c++14" } },
	  .changed = { .options = { "-std=c++17" } } },
	{ "macros in another order", .base = { defined, .options = { "-DV=1", "-DV=2" } },
	  .changed = { .options = { "-DV=2", "-DV=1" } } },
	{ "a macro defined and undefined, in another order",
	  .base = { "#ifndef W\n#define W 7\n#endif\n#define V W\n" KERNEL,
		    .options = { "-DW=3", "-UW" } },
	  .changed = { .options = { "-UW", "-DW=3" } }, .alike = true },
	{ "-I in another order", .make = "put before/a.h 2",
	  .base = { .options = { "-I@/inc", "-I@/before" } },
	  .changed = { .options = { "-I@/before", "-I@/inc" } } },
	{ "one -I less", .make = "put before/a.h 2",
	  .base = { .options = { "-I@/before", "-I@/inc" } },
	  .changed = { .options = { "-I@/inc" } } },
	{ "an option in two parts", .base = { defined, .options = { "-D", "V=1" } },
	  .changed = { .options = { "-DV=1" } }, .alike = true },
	{ "two options in one text", .base = { defined, .options = { "-DV=1", "-DW" } },
	  .changed = { .options = { "-DV=1-DW" } } },
	{ "an empty option", .base = { without, .options = { "-w" } },
	  .changed = { .options = { "-w", "" } }, .alike = true },
	{ "an option with blanks around it", .base = { without, .options = { "-w" } },
	  .changed = { .options = { " -w " } }, .alike = true },
	{ "an option becomes a name expression", .base = { defined, .options = { "-DV=1" } },
	  .changed = { .options = { none }, .expressions = { "-DV=1" } } },
	{ "-w", .base = { warned }, .changed = { .options = { "-w" } } },
	{ "-G", .base = { without, .options = { none } }, .changed = { .options = { "-G" } } },
	{ "-lineinfo", .base = { without, .options = { none } },
	  .changed = { .options = { "-lineinfo" } } },
	{ "-dlto", .base = { without, .options = { none } },
	  .changed = { .options = { "-dlto" } } },
	{ "-optix-ir", .base = { without, .options = { none } },
	  .changed = { .options = { "-optix-ir" } } },
	{ "-rdc", .base = { without, .options = { none } },
	  .changed = { .options = { "-rdc=true" } } },
	{ "--maxrregcount", .base = { without, .options = { "--maxrregcount=32" } },
	  .changed = { .options = { "--maxrregcount=64" } }, .alike = true },
	{ "--use_fast_math",
	  .base = { "__global__ void k(float *a) { a[0] = sinf(a[1]) / a[2]; }\n",
		    .options = { none } },
	  .changed = { .options = { "--use_fast_math" } } },
	{ "--split-compile", .base = { without, .options = { none } },
	  .changed = { .options = { "--split-compile=2" } }, .alike = true },
	{ "another value of --split-compile",
	  .base = { without, .options = { "--split-compile=2" } },
	  .changed = { .options = { "--split-compile=4" } }, .alike = true },
	{ "the base name", .base = { DIRECTORY("__FILE__") },
	  .changed = { .name = "@/p/other.cu" } },
	{ "the base name of a program that doesn't show it", .base = { without },
	  .changed = { .name = "@/p/other.cu" }, .alike = true },
	{ "a name and none", .base = { "__device__ const char *f = __FILE__;\n" },
	  .changed = { .name = none } },
	{ "an empty name and none", .base = { "__device__ const char *f = __FILE__;\n", none },
	  .changed = { .name = "" }, .alike = true },
	{ "a name that ends in a slash and none", .base = { warned, none },
	  .changed = { .name = "@/p/" } },

	{ "a name expression more", .base = { template_kernel, .expressions = { "k<int>" } },
	  .changed = { .expressions = { "k<int>", "k<float>" } } },
	{ "a name expression less",
	  .base = { template_kernel, .expressions = { "k<int>", "k<float>" } },
	  .changed = { .expressions = { "k<float>" } } },
	{ "no name expression", .base = { template_kernel, .expressions = { "k<int>" } },
	  .changed = { .expressions = { none } } },
	{ "name expressions in another order",
	  .base = { template_kernel, .expressions = { "k<int>", "k<float>" } },
	  .changed = { .expressions = { "k<float>", "k<int>" } } },
	{ "a name expression twice", .base = { template_kernel, .expressions = { "k<int>" } },
	  .changed = { .expressions = { "k<int>", "k<int>" } }, .alike = true },
	{ "a name expression spelled otherwise",
	  .base = { template_kernel, .expressions = { "k<int>" } },
	  .changed = { .expressions = { "k< int >" } }, .alike = true },

	{ "a byte of a header in memory", .base = { .headers = { "a.h", "#define V 1\n" } },
	  .changed = { .headers = { "a.h", "#define V 2\n" } } },
	{ "the name of a header in memory", .base = { GUESS("\"m.h\""), .headers = { "m.h", "" } },
	  .changed = { .headers = { "n.h", "" } } },
	{ "a byte moves from a header's name to its text",
	  .base = { GUESS("\"m.h/\""), .headers = { "m.h/", "/ remark\n" } },
	  .changed = { .headers = { "m.h", "// remark\n" } } },
	{ "bytes move between names and texts of headers, as many here as there",
	  .base = { GUESS("\"n.h\""), .headers = { "m.h/", "/\n", "n.h", ";" } },
	  .changed = { .headers = { "m.h", "//\n", "n.h;", "" } } },
	{ "headers in memory in another order",
	  .base = { .headers = { "a.h", "#define V 1\n", "b.h", "" } },
	  .changed = { .headers = { "b.h", "", "a.h", "#define V 1\n" } }, .alike = true },
	{ "headers in memory change their texts",
	  .base = { .headers = { "a.h", "#define V 1\n", "b.h", "#define V 2\n" } },
	  .changed = { .headers = { "a.h", "#define V 2\n", "b.h", "#define V 1\n" } } },
	{ "a header in memory more", .base = { .headers = { none } },
	  .changed = { .headers = { "a.h", "#define V 2\n" } } },
	{ "a header in memory less", .base = { .headers = { "a.h", "#define V 2\n" } },
	  .changed = { .headers = { none } } },

	/* Where the program lies, and from where it is compiled. */
	{ "-lineinfo, another directory", .base = { without, .options = { "-lineinfo" } },
	  .changed = { .name = "@/q/k.cu" } },
	{ "-lineinfo, another cwd", .base = { without, "k.cu", "@/p", .options = { "-lineinfo" } },
	  .changed = { .cwd = "@/q" } },
	{ "-lineinfo, a full name, another cwd", .base = { without, .options = { "-lineinfo" } },
	  .changed = { .cwd = "@/d" }, .alike = true },
	{ "--generate-line-info, another cwd",
	  .base = { without, "k.cu", "@/p", .options = { "--generate-line-info" } },
	  .changed = { .cwd = "@/q" } },
	{ "-lineinfo with blanks, another cwd",
	  .base = { without, "k.cu", "@/p", .options = { " -lineinfo" } },
	  .changed = { .cwd = "@/q" } },
	{ "-G, another directory", .base = { without, .options = { "-G" } },
	  .changed = { .name = "@/q/k.cu" } },
	{ "-G, another cwd", .base = { without, .options = { "-G" } },
	  .changed = { .cwd = "@/d" } },
	{ "--device-debug, another cwd", .base = { without, .options = { "--device-debug" } },
	  .changed = { .cwd = "@/d" } },
	{ "-G with blanks, another cwd", .base = { without, .options = { "-G " } },
	  .changed = { .cwd = "@/d" } },
	{ "-G, the same file by another name",
	  .base = { without, "k.cu", "@/p", .options = { "-G" } },
	  .changed = { .name = "@/p/k.cu" } },
	{ "-dlto, another directory", .base = { without, .options = { "-dlto" } },
	  .changed = { .name = "@/q/k.cu" } },
	{ "-dlto, another cwd", .base = { without, .options = { "-dlto" } },
	  .changed = { .cwd = "@/d" } },
	{ "--dlink-time-opt with blanks, another cwd",
	  .base = { without, .options = { "--dlink-time-opt " } }, .changed = { .cwd = "@/d" } },
	{ "-optix-ir, another directory", .base = { without, .options = { "-optix-ir" } },
	  .changed = { .name = "@/q/k.cu" }, .alike = true },
	{ "-optix-ir, another cwd", .base = { without, .options = { "-optix-ir" } },
	  .changed = { .cwd = "@/d" }, .alike = true },
	{ "--optix-ir with blanks, another cwd", .base = { without, .options = { " --optix-ir" } },
	  .changed = { .cwd = "@/d" }, .alike = true },
	{ "__FILE__, another directory", .base = { DIRECTORY("__FILE__") },
	  .changed = { .name = "@/q/k.cu" } },
	{ "__FILE__, the same file by another name",
	  .base = { DIRECTORY("__FILE__"), "k.cu", "@/p" }, .changed = { .name = "@/p/k.cu" } },
	{ "__FILE__, a relative name and a full one",
	  .base = { DIRECTORY("__FILE__"), "p/k.cu", "@" }, .changed = { .name = "@/p/k.cu" } },
	{ "__FILE__, a full name and a relative one", .base = { DIRECTORY("__FILE__"), .cwd = "@" },
	  .changed = { .name = "p/k.cu" } },
	{ "the size of __FILE__, another directory",
	  .base = { "__device__ int n = sizeof(__FILE__);\n" },
	  .changed = { .name = "@/longer/k.cu" } },
	{ "__FILE__ in an option, another directory",
	  .base = { DIRECTORY("WHERE"), .options = { "-DWHERE=__FILE__" } },
	  .changed = { .name = "@/q/k.cu" } },
	{ "__FILE__ in a header beside the program, another directory",
	  .make = "for i in p q; do echo '#define WHERE __FILE__' > $i/w.h; done",
	  .base = { "#include \"w.h\"\n" DIRECTORY("WHERE") }, .changed = { .name = "@/q/k.cu" } },
	{ "the header's own __FILE__, another directory",
	  .make = "for i in p q; do echo '__device__ const char *w = __FILE__;' > $i/w.h; done",
	  .base = { "#include \"w.h\"\n" }, .changed = { .name = "@/q/k.cu" } },
	{ "__FILE__ in a header in memory, another directory",
	  .base = { "#include \"w.h\"\n" DIRECTORY("WHERE"),
		    .headers = { "w.h", "#define WHERE __FILE__\n" } },
	  .changed = { .name = "@/q/k.cu" } },
	{ "the size of __BASE_FILE__, another directory",
	  .base = { "__device__ int n = sizeof(__BASE_FILE__);\n" },
	  .changed = { .name = "@/longer/k.cu" } },
	{ "__builtin_FILE, another directory", .base = { DIRECTORY("__builtin_FILE()") },
	  .changed = { .name = "@/q/k.cu" } },
	{ "__FILE__ of two halves in a header beside the program, another directory",
	  .make = "for i in p q; do printf '#define J(a, b) a##b\\n"
		  "__device__ const char *w = J(__FI, LE__);\\n' > $i/w.h; done",
	  .base = { "#include \"w.h\"\n" }, .changed = { .name = "@/q/k.cu" } },
	{ "assert, another directory", .base = { "__global__ void k(int *a) { assert(a[0]); }\n" },
	  .changed = { .name = "@/q/k.cu" } },
	{ "assert from an option, another directory",
	  .base = { "__global__ void k(int *a) { CHECK(a[0]); }\n",
		    .options = { "-DCHECK=assert" } },
	  .changed = { .name = "@/q/k.cu" } },
	{ "a warning, another directory", .base = { warned }, .changed = { .name = "@/q/k.cu" } },
	{ "a warning, a full name and none", .base = { warned, "k.cu", "@/p" },
	  .changed = { .name = "@/p/k.cu" } },
	{ "a message, another directory", .base = { "#pragma message(\"x\")\n" },
	  .changed = { .name = "@/q/k.cu" } },
	{ "a warning in a header beside the program, another directory",
	  .make = "for i in p q; do echo 'inline __device__ void f() { int unused; }' > $i/w.h; "
		  "done",
	  .base = { "#include \"w.h\"\n" }, .changed = { .name = "@/q/k.cu" } },
	{ "another directory, where the header says something else",
	  .make = "put p/a.h 1; put q/a.h 2", .base = { with_header },
	  .changed = { .name = "@/q/k.cu" } },
	{ "another directory, where no header is", .make = "put p/a.h 2", .base = { with_header },
	  .changed = { .name = "@/q/k.cu" } },
	{ "another directory, where a header is", .make = "put q/a.h 2", .base = { with_header },
	  .changed = { .name = "@/q/k.cu" } },
	{ "a program without a directory, another cwd", .make = "put p/a.h 1; put q/a.h 2",
	  .base = { with_header, "k.cu", "@/p" }, .changed = { .cwd = "@/q" } },
	{ "a program without a name, another cwd", .make = "put p/a.h 1; put q/a.h 2",
	  .base = { with_header, none, "@/p" }, .changed = { .cwd = "@/q" } },
	{ "a program by a relative name, another cwd",
	  .make = "mkdir d/p; put p/a.h 1; put d/p/a.h 2", .base = { with_header, "p/k.cu", "@" },
	  .changed = { .cwd = "@/d" } },
	{ "a program by ./, another cwd", .make = "put p/a.h 1; put q/a.h 2",
	  .base = { with_header, "./k.cu", "@/p" }, .changed = { .cwd = "@/q" } },
	{ "a program by .., another cwd", .make = "mkdir d/p d/c; put p/a.h 1; put d/p/a.h 2",
	  .base = { with_header, "../p/k.cu" }, .changed = { .cwd = "@/d/c" } },
	{ "a program by a name with /./ in it, another directory",
	  .make = "put p/a.h 1; put q/a.h 2", .base = { with_header, "@/p/./k.cu" },
	  .changed = { .name = "@/q/./k.cu" } },
	{ "a program by a name with // in it, another directory",
	  .make = "put p/a.h 1; put q/a.h 2", .base = { with_header, "@//p//k.cu" },
	  .changed = { .name = "@//q//k.cu" } },
	{ "a header above the program, another directory",
	  .make = "mkdir p/x q/x; put p/a.h 1; put q/a.h 2",
	  .base = { "#include \"../a.h\"\n" KERNEL, "@/p/x/k.cu" },
	  .changed = { .name = "@/q/x/k.cu" } },
	{ "-Idir, another cwd", .make = "mkdir c/i d/i; put c/i/a.h 1; put d/i/a.h 2",
	  .base = { .options = { "-Ii" } }, .changed = { .cwd = "@/d" } },
	{ "-I dir, another cwd", .make = "mkdir c/i d/i; put c/i/a.h 1; put d/i/a.h 2",
	  .base = { .options = { "-I", "i" } }, .changed = { .cwd = "@/d" } },
	{ "-I and dir in one text, another cwd",
	  .make = "mkdir c/i d/i; put c/i/a.h 1; put d/i/a.h 2", .base = { .options = { "-I i" } },
	  .changed = { .cwd = "@/d" } },
	{ "-I=dir, another cwd", .make = "mkdir c/i d/i; put c/i/a.h 1; put d/i/a.h 2",
	  .base = { .options = { "-I=i" } }, .changed = { .cwd = "@/d" } },
	{ "-Idir with blanks, another cwd", .make = "mkdir c/i d/i; put c/i/a.h 1; put d/i/a.h 2",
	  .base = { .options = { " -Ii" } }, .changed = { .cwd = "@/d" } },
	{ "--include-path=dir, another cwd", .make = "mkdir c/i d/i; put c/i/a.h 1; put d/i/a.h 2",
	  .base = { .options = { "--include-path=i" } }, .changed = { .cwd = "@/d" } },
	{ "-I of the current directory, another cwd", .make = "put c/a.h 1; put d/a.h 2",
	  .base = { .options = { "-I." } }, .changed = { .cwd = "@/d" } },
	{ "-I of a directory above, another cwd", .make = "mkdir c/x d/x; put c/a.h 1; put d/a.h 2",
	  .base = { .cwd = "@/c/x", .options = { "-I.." } }, .changed = { .cwd = "@/d/x" } },
	{ "-include of a relative file, another cwd", .make = "put c/a.h 1; put d/a.h 2",
	  .base = { defined, .options = { "-include", "a.h" } }, .changed = { .cwd = "@/d" } },
	{ "-include=file, another cwd", .make = "put c/a.h 1; put d/a.h 2",
	  .base = { defined, .options = { "-include=a.h" } }, .changed = { .cwd = "@/d" } },
	{ "a header in memory includes one on disk, another cwd",
	  .make = "put c/a.h 1; put d/a.h 2",
	  .base = { "#include \"m.h\"\n" KERNEL, .headers = { "m.h", "#include \"a.h\"\n" } },
	  .changed = { .cwd = "@/d" } },
	{ "a header in memory includes one that another cwd shadows", .make = "put d/a.h 2",
	  .base = { "#include \"m.h\"\n" KERNEL, .headers = { "m.h", "#include \"a.h\"\n" } },
	  .changed = { .cwd = "@/d" } },
	/* NVRTC takes it for the file of that name in the cwd, which it then doesn't open. */
	{ "a header in memory has the name of a file of the cwd that is included, another cwd",
	  .make = "printf '#undef V\\n#define V 2\\n' > c/m.h",
	  .base = { "#include \"m.h\"\n#include \"@/c/m.h\"\n" KERNEL,
		    .headers = { "m.h", "#pragma once\n#define V 1\n" } },
	  .changed = { .cwd = "@/d" } },

	/* Variables that NVRTC obeys: one that is not must still not mix the entries up. */
	{ "EDG_BASE", .base = { without }, .changed = { .variable = "EDG_BASE=@/inc" },
	  .alike = true },
	{ "EDG_MODULES_PATH", .base = { without },
	  .changed = { .variable = "EDG_MODULES_PATH=@/inc" }, .alike = true },
	{ "NVRTCWIZ", .base = { without }, .changed = { .variable = "NVRTCWIZ=1" }, .alike = true },
	{ "NV_NVVM_VERSION", .base = { without, .options = { "-dlto" } },
	  .changed = { .variable = "NV_NVVM_VERSION=nvvm70" }, .alike = true },
	{ "NVRTC_DISABLE_PCH", .base = { without },
	  .changed = { .variable = "NVRTC_DISABLE_PCH=1" }, .alike = true },
	{ "LLVM_OVERRIDE_PRODUCER", .base = { without, .options = { "-dlto" } },
	  .changed = { .variable = "LLVM_OVERRIDE_PRODUCER=somebody" }, .alike = true },
	{ "another LLVM_OVERRIDE_PRODUCER",
	  .base = { without, .options = { "-dlto" }, .variable = "LLVM_OVERRIDE_PRODUCER=one" },
	  .changed = { .variable = "LLVM_OVERRIDE_PRODUCER=two" }, .alike = true },
	{ "LLVM_OVERRIDE_PRODUCER, -optix-ir", .base = { without, .options = { "-optix-ir" } },
	  .changed = { .variable = "LLVM_OVERRIDE_PRODUCER=somebody" }, .alike = true },
	{ "FINALIZER_USE_LEGACY_ELF_BUILDER", .base = { without },
	  .changed = { .variable = "FINALIZER_USE_LEGACY_ELF_BUILDER=1" }, .alike = true },
	{ "NVRTC_APPEND_FLAGS", .base = { without },
	  .changed = { .variable = "NVRTC_APPEND_FLAGS=-lineinfo" }, .alike = true },
	{ "NVRTC_PREPEND_FLAGS", .base = { without },
	  .changed = { .variable = "NVRTC_PREPEND_FLAGS=-lineinfo" }, .alike = true },
	/* These two would show another directory, or write a file, if they got there. */
	{ "PWD", .base = { without, .options = { "-G" } }, .changed = { .variable = "PWD=@/d" },
	  .alike = true },
	{ "FINALIZER_CUBIE", .base = { without }, .changed = { .variable = "FINALIZER_CUBIE=1" },
	  .alike = true },
};

/* ---- changes to files ---- */

#define PUT_BACK "put inc/a.h 1"
/* A header that asks for another. */
#define ASKING                                                                \
	"printf '#if __has_include(<f.h>)\\n#define V 1\\n#else\\n#define V " \
	"2\\n#endif\\n' > inc/a.h"
#define PUT_BOTH(file) "put p/" file " 1; put q/" file " 1"
/* An entry that was made for a program in p is looked up for one in q, where all is as p was; but
 * it is p's file that both include, and that changes. */
#define FROM_ELSEWHERE(file) \
	.changed = { .name = "@/q/k.cu" }, .change = "put p/" file " 2", .undo = "put p/" file " 1"

static const struct row on_disk[] = {
	{ "other bytes, same size and mtime", .change = "put inc/a.h 2", .undo = PUT_BACK },
	{ "other bytes by rename", .change = "put inc/new 2; mv inc/new inc/a.h",
	  .undo = "put inc/new 1; mv inc/new inc/a.h" },
	{ "another size", .change = "put inc/a.h 1000", .undo = PUT_BACK },
	{ "an empty header", .change = ": > inc/a.h", .undo = PUT_BACK },
	{ "a symlink's other target", .make = "put inc/one 1; put inc/two 2; ln -sf one inc/a.h",
	  .change = "ln -sfn two inc/a.h", .undo = "ln -sfn one inc/a.h" },
	{ "other bytes behind a symlink", .make = "put one 1; ln -sf ../one inc/a.h",
	  .change = "put one 2", .undo = "put one 1" },
	{ "a directory symlink's other target",
	  .make = "mkdir v1 v2; put v1/a.h 1; put v2/a.h 2; ln -s v1 now",
	  .base = { .options = { "-I@/now" } }, .change = "ln -sfn v2 now",
	  .undo = "ln -sfn v1 now" },
	{ "another directory by rename", .make = "mkdir new; put new/a.h 2",
	  .change = "mv inc old; mv new inc", .undo = "mv inc new; mv old inc" },
	{ "a header deleted", .change = "rm inc/a.h", .undo = PUT_BACK },
	{ "a header deleted, another behind it", .make = "put before/a.h 2",
	  .base = { .options = { "-I@/before", "-I@/inc" } }, .change = "rm before/a.h",
	  .undo = "put before/a.h 2" },
	{ "a header replaced by a directory", .change = "rm inc/a.h; mkdir inc/a.h",
	  .undo = "rmdir inc/a.h; " PUT_BACK },
	/* (For root, nothing is.) */
	{ "a header unreadable", .change = "chmod 0 inc/a.h", .undo = "chmod 644 inc/a.h",
	  .alike = true },
	{ "a directory unreadable", .change = "chmod 0 inc", .undo = "chmod 755 inc",
	  .alike = true },
	{ "a header replaced by a symlink to itself", .change = "ln -sfn a.h inc/a.h",
	  .undo = "rm inc/a.h; " PUT_BACK },
	{ "a header replaced by a symlink to nothing", .change = "ln -sfn nothing inc/a.h",
	  .undo = "rm inc/a.h; " PUT_BACK },
	{ "a header replaced by a device", .change = "ln -sfn /dev/null inc/a.h",
	  .undo = "rm inc/a.h; " PUT_BACK },
	{ "a directory replaced by a file", .change = "mv inc old; put inc 1",
	  .undo = "rm inc; mv old inc" },
	{ "a header beside the program", .make = "put p/a.h 1", .change = "put p/a.h 2",
	  .undo = "put p/a.h 1" },
	{ "a header beside a program without a directory", .make = "put p/a.h 1",
	  .base = { .name = "k.cu", .cwd = "@/p" }, .change = "put p/a.h 2",
	  .undo = "put p/a.h 1" },
	{ "a header that a header includes",
	  .make = "echo '#include \"n.h\"' > inc/a.h; put inc/n.h 1", .change = "put inc/n.h 2",
	  .undo = "put inc/n.h 1" },
	{ "a header three deep, of another -I",
	  .make = "echo '#include <m.h>' > inc/a.h; echo '#include <n.h>' > before/m.h; "
		  "put inc/n.h 1",
	  .base = { .options = { "-I@/inc", "-I@/before" } }, .change = "put inc/n.h 2",
	  .undo = "put inc/n.h 1" },
	{ "a header in an earlier -I", .base = { .options = { "-I@/before", "-I@/inc" } },
	  .change = "put before/a.h 2", .undo = "rm before/a.h" },
	{ "a header in an earlier -I that was not there",
	  .base = { .options = { "-I@/later", "-I@/inc" } },
	  .change = "mkdir later; put later/a.h 2", .undo = "rm -r later" },
	{ "a header by a symlink in an earlier -I", .make = "put two 2",
	  .base = { .options = { "-I@/before", "-I@/inc" } }, .change = "ln -s ../two before/a.h",
	  .undo = "rm before/a.h" },
	{ "a symlink in an earlier -I gets its target", .make = "ln -s ../two before/a.h",
	  .base = { .options = { "-I@/before", "-I@/inc" } }, .change = "put two 2",
	  .undo = "rm two" },
	{ "a directory in an earlier -I gives way to a header", .make = "mkdir before/a.h",
	  .base = { .options = { "-I@/before", "-I@/inc" } },
	  .change = "rmdir before/a.h; put before/a.h 2",
	  .undo = "rm before/a.h; mkdir before/a.h" },
	{ "a directory in an earlier -I", .base = { .options = { "-I@/before", "-I@/inc" } },
	  .change = "mkdir before/a.h", .undo = "rmdir before/a.h", .alike = true },
	{ "a new header beside the program", .change = "put p/a.h 2", .undo = "rm p/a.h" },
	{ "a new header above the program, where an -I led", .make = "mkdir p/x inc/x",
	  .base = { "#include \"../a.h\"\n" KERNEL, "@/p/x/k.cu", .options = { "-I@/inc/x" } },
	  .change = "put p/a.h 2", .undo = "rm p/a.h" },
	{ "a new header beside the one that includes it",
	  .make = "echo '#include \"n.h\"' > before/a.h; put inc/n.h 1",
	  .base = { .options = { "-I@/before", "-I@/inc" } }, .change = "put before/n.h 2",
	  .undo = "rm before/n.h" },
	{ "a new header beside the program, for a header's sake",
	  .make = "echo '#include \"n.h\"' > before/a.h; put inc/n.h 1",
	  .base = { .options = { "-I@/before", "-I@/inc" } }, .change = "put p/n.h 2",
	  .undo = "rm p/n.h", .alike = true },
	{ "a header that __has_include asks for comes", .base = { GUESS("\"f.h\"") },
	  .change = "put p/f.h 1", .undo = "rm p/f.h" },
	{ "a header that __has_include asks for goes", .make = "put p/f.h 1",
	  .base = { GUESS("\"f.h\"") }, .change = "rm p/f.h", .undo = "put p/f.h 1" },
	{ "a header that __has_include asks for comes to an -I", .base = { GUESS("<f.h>") },
	  .change = "put inc/f.h 1", .undo = "rm inc/f.h" },
	{ "a header that __has_include asks for comes with its directory",
	  .base = { GUESS("<x/f.h>") }, .change = "mkdir inc/x; put inc/x/f.h 1",
	  .undo = "rm -r inc/x" },
	{ "a header that __has_include asks for turns into a directory", .make = "put p/f.h 1",
	  .base = { GUESS("\"f.h\"") }, .change = "rm p/f.h; mkdir p/f.h",
	  .undo = "rmdir p/f.h; put p/f.h 1" },
	{ "a header that __has_include asks for was a directory", .make = "mkdir p/f.h",
	  .base = { GUESS("\"f.h\"") }, .change = "rmdir p/f.h; put p/f.h 1",
	  .undo = "rm p/f.h; mkdir p/f.h" },
	{ "a header that a header's __has_include asks for comes", .make = ASKING,
	  .change = "put inc/f.h 1", .undo = "rm inc/f.h" },
	{ "a header that a header's __has_include asks for goes", .make = ASKING "; put inc/f.h 1",
	  .change = "rm inc/f.h", .undo = "put inc/f.h 1" },
	{ "a file of -include", .base = { defined, .options = { "-include", "@/inc/a.h" } },
	  .change = "put inc/a.h 2", .undo = PUT_BACK },
	{ "a relative file of -include", .make = "put c/a.h 1",
	  .base = { defined, .options = { "-include", "a.h" } }, .change = "put c/a.h 2",
	  .undo = "put c/a.h 1" },
	{ "a file of -include that another shadows", .make = "put inc/b.h 1",
	  .base = { defined, .options = { "-I@/inc", "-include", "b.h" } }, .change = "put c/b.h 2",
	  .undo = "rm c/b.h" },
	{ "a header of a relative -I", .make = "mkdir c/i; put c/i/a.h 1",
	  .base = { .options = { "-Ii" } }, .change = "put c/i/a.h 2", .undo = "put c/i/a.h 1" },
	{ "a header above the program", .make = "put a.h 1",
	  .base = { "#include \"../a.h\"\n" KERNEL }, .change = "put a.h 2", .undo = "put a.h 1" },
	{ "a header by .. of a directory symlink that moves",
	  .make = "mkdir v1 v1/x v2 v2/x; put v1/a.h 1; put v2/a.h 2; ln -s ../v1/x p/now",
	  .base = { "#include \"now/../a.h\"\n" KERNEL }, .change = "ln -sfn ../v2/x p/now",
	  .undo = "ln -sfn ../v1/x p/now" },
	{ "the program's directory is a symlink that moves",
	  .make = "put p/a.h 1; put q/a.h 2; ln -s p now", .base = { .name = "@/now/k.cu" },
	  .change = "ln -sfn q now", .undo = "ln -sfn p now" },
	{ "a header included by its full path", .base = { "#include \"@/inc/a.h\"\n" KERNEL },
	  .change = "put inc/a.h 2", .undo = PUT_BACK },

	{ "-I below the program, from another directory",
	  .make = "mkdir p/i q/i; " PUT_BOTH("i/a.h"),
	  .base = { "#include <a.h>\n" KERNEL, .options = { "-I@/p/i" } },
	  FROM_ELSEWHERE("i/a.h") },
	{ "-I with blanks below the program, from another directory",
	  .make = "mkdir p/i q/i; " PUT_BOTH("i/a.h"),
	  .base = { "#include <a.h>\n" KERNEL, .options = { " -I@/p/i" } },
	  FROM_ELSEWHERE("i/a.h") },
	{ "--include-path below the program, from another directory",
	  .make = "mkdir p/i q/i; " PUT_BOTH("i/a.h"),
	  .base = { "#include <a.h>\n" KERNEL, .options = { "--include-path=@/p/i" } },
	  FROM_ELSEWHERE("i/a.h") },
	{ "-I with // below the program, from another directory",
	  .make = "mkdir p/i q/i; " PUT_BOTH("i/a.h"),
	  .base = { "#include <a.h>\n" KERNEL, .options = { "-I@/p//i/" } },
	  FROM_ELSEWHERE("i/a.h") },
	{ "-I with .. below the program, from another directory",
	  .make = "mkdir p/i q/i; " PUT_BOTH("i/a.h"),
	  .base = { "#include <a.h>\n" KERNEL, .options = { "-I@/p/i/../i/." } },
	  FROM_ELSEWHERE("i/a.h") },
	{ "a full path below the program, from another directory", .make = PUT_BOTH("a.h"),
	  .base = { "#include \"@/p/a.h\"\n" KERNEL }, FROM_ELSEWHERE("a.h") },
	{ "a full path in a macro, from another directory", .make = PUT_BOTH("a.h"),
	  .base = { "#include HEADER\n" KERNEL, .options = { "-DHEADER=\"@/p/a.h\"" } },
	  FROM_ELSEWHERE("a.h") },
	{ "a full path in a header, from another directory",
	  .make = PUT_BOTH("n.h") "; echo \"#include \\\"$PWD/p/n.h\\\"\" > inc/a.h",
	  FROM_ELSEWHERE("n.h") },
	{ "-include below the program, from another directory", .make = PUT_BOTH("a.h"),
	  .base = { defined, .options = { "-include", "@/p/a.h" } }, FROM_ELSEWHERE("a.h") },
	{ "what a file of -include includes, from another directory",
	  .make = "echo '#include \"n.h\"' > p/a.h; " PUT_BOTH("n.h"),
	  .base = { defined, .options = { "-include", "@/p/a.h" } }, FROM_ELSEWHERE("n.h") },
	{ "a relative -I below the program, from another directory",
	  .make = "mkdir p/i q/i; " PUT_BOTH("i/a.h"),
	  .base = { "#include <a.h>\n" KERNEL, .cwd = "@/p", .options = { "-Ii" } },
	  FROM_ELSEWHERE("i/a.h") },
	{ "a relative -include below the program, from another directory", .make = PUT_BOTH("a.h"),
	  .base = { defined, .cwd = "@/p", .options = { "-include", "a.h" } },
	  FROM_ELSEWHERE("a.h") },
	{ "a header in memory includes one of the cwd below which all lies",
	  .make = PUT_BOTH("a.h"),
	  .base = { "#include \"m.h\"\n" KERNEL, .cwd = "@/p",
		    .headers = { "m.h", "#include \"a.h\"\n" } },
	  FROM_ELSEWHERE("a.h") },

	/* NVRTC knows a file that it has read by its inode, and doesn't open it again. */
	{ "a second name of one file gets other bytes",
	  .make = "mkdir p/one p/two; printf '#pragma once\\n#define V 1\\n' > p/one/h.h; "
		  "ln p/one/h.h p/two/h.h",
	  .base = { twice },
	  .change = "rm p/two/h.h; printf '#undef V\\n#define V 2\\n' > p/two/h.h",
	  .undo = "ln -f p/one/h.h p/two/h.h" },
	{ "a symlink to a file that was read gets another target",
	  .make = "mkdir p/one p/two; printf '#pragma once\\n#define V 1\\n' > p/one/h.h; "
		  "ln -s ../one/h.h p/two/h.h",
	  .base = { twice },
	  .change = "rm p/two/h.h; printf '#undef V\\n#define V 2\\n' > p/two/h.h",
	  .undo = "ln -sf ../one/h.h p/two/h.h" },
	{ "a directory symlink to headers that were read gets another target",
	  .make = "mkdir p/one p/three; printf '#pragma once\\n#define V 1\\n' > p/one/h.h; "
		  "printf '#undef V\\n#define V 2\\n' > p/three/h.h; ln -s one p/two",
	  .base = { twice }, .change = "ln -sfn three p/two", .undo = "ln -sfn one p/two" },
	{ "a symlink to a guarded header gets another target",
	  .make = "mkdir p/one p/two; printf '#ifndef H\\n#define H\\n#define V 1\\n#endif\\n' > "
		  "p/one/h.h; ln -s ../one/h.h p/two/h.h",
	  .base = { twice },
	  .change = "rm p/two/h.h; printf '#undef V\\n#define V 2\\n' > p/two/h.h",
	  .undo = "ln -sf ../one/h.h p/two/h.h" },
	{ "a file of the cwd takes a header's inode and the name of one in memory",
	  .make = "printf '#pragma once\\n#undef V\\n#define V 1\\n' > inc/a.h",
	  .base = { "#include \"m.h\"\n#include <a.h>\n" KERNEL,
		    .headers = { "m.h", "#pragma once\n#define V 9\n" } },
	  .change = "ln inc/a.h c/m.h", .undo = "rm c/m.h" },
	{ "two headers of the same bytes become one file",
	  .make = "mkdir p/one p/two; printf '#pragma once\\n#ifdef A\\n#define V 1\\n#endif\\n"
		  "#define A\\n' > p/one/h.h; cp p/one/h.h p/two/h.h",
	  .base = { twice }, .change = "ln -f p/one/h.h p/two/h.h",
	  .undo = "rm p/two/h.h; cp p/one/h.h p/two/h.h" },
	{ "one header by two names becomes two files",
	  .make = "mkdir p/one; printf '#pragma once\\n#ifdef A\\n#define V 1\\n#endif\\n"
		  "#define A\\n' > p/one/h.h; ln -s one p/two",
	  .base = { twice }, .change = "rm p/two; cp -r p/one p/two",
	  .undo = "rm -r p/two; ln -s one p/two" },
};

/* ---- changes that don't count ---- */

static const struct row irrelevant[] = {
	{ "another directory", .base = { without }, .changed = { .name = "@/q/k.cu" } },
	{ "another directory with the same headers",
	  .make = "for i in p q; do put $i/a.h 1; mkdir $i/x; echo '#include \"../b.h\"' > "
		  "$i/x/c.h; "
		  "echo '#define W' > $i/b.h; done",
	  .base = { "#include \"x/c.h\"\n#include \"a.h\"\n" KERNEL },
	  .changed = { .name = "@/q/k.cu" } },
	{ "a directory of a longer name", .base = { with_header },
	  .changed = { .name = "@/a/longer/name/k.cu" } },
	{ "another cwd", .changed = { .cwd = "@/d" } },
	{ "another cwd with the same headers", .make = "put p/a.h 1; put q/a.h 1",
	  .base = { .name = "k.cu", .cwd = "@/p" }, .changed = { .cwd = "@/q" } },
	{ "another cwd with a header of that name", .make = "put d/a.h 2",
	  .changed = { .cwd = "@/d" } },
	{ "the cwd by a symlink", .make = "ln -s c other", .changed = { .cwd = "@/other" } },
	{ "a file more in an -I", .change = "put inc/b.h 1", .undo = "rm inc/b.h" },
	{ "a file more beside the program", .change = "put p/b.h 1", .undo = "rm p/b.h" },
	{ "a file of the program's name", .change = "put p/k.cu 1", .undo = "rm p/k.cu" },
	{ "a file in a later -I", .base = { .options = { "-I@/inc", "-I@/before" } },
	  .change = "put before/a.h 2", .undo = "rm before/a.h" },
	{ "a header touched", .change = "touch inc/a.h", .undo = "touch -d @1 inc/a.h" },
	{ "a header written again", .change = "put inc/new 1; mv inc/new inc/a.h",
	  .undo = PUT_BACK },
	{ "a header of another mode", .change = "chmod 600 inc/a.h", .undo = "chmod 644 inc/a.h" },
	{ "a directory of headers replaced by its copy",
	  .change = "cp -r inc new; mv inc old; mv new inc", .undo = "rm -r inc; mv old inc" },
	{ "a header replaced by a symlink to its bytes",
	  .change = "mv inc/a.h one; ln -s ../one inc/a.h", .undo = "mv one inc/a.h" },
	{ "CUDA_PATH", .changed = { .variable = "CUDA_PATH=@/inc" } },
	{ "HOME", .changed = { .variable = "HOME=@/c" } },
	{ "CPATH", .make = "put before/a.h 2", .changed = { .variable = "CPATH=@/before" } },
	{ "CPLUS_INCLUDE_PATH", .make = "put before/a.h 2",
	  .changed = { .variable = "CPLUS_INCLUDE_PATH=@/before" } },
	{ "NVCC_APPEND_FLAGS", .changed = { .variable = "NVCC_APPEND_FLAGS=-lineinfo" } },
	{ "LD_PRELOAD", .changed = { .variable = "LD_PRELOAD=@/c/none.so" } },
	{ "LD_LIBRARY_PATH", .changed = { .variable = "LD_LIBRARY_PATH=@/c" } },
	{ "TMPDIR", .changed = { .variable = "TMPDIR=@/c" } },
	{ "LANG", .changed = { .variable = "LANG=de_DE.UTF-8" } },
	{ "a variable that begins as one that counts",
	  .changed = { .variable = "NVRTC_APPEND_FLAGS_OF_OURS=-lineinfo" } },
	{ "SOURCE_DATE_EPOCH", .changed = { .variable = "SOURCE_DATE_EPOCH=1" } },
	{ "another process", .by_child = true },
	{ "the source at another address", .changed = { .shifted = true } },
	{ "NULL for lists that are empty", .base = { without, .options = { "-arch=sm_90" } },
	  .changed = { .null_lists = true } },
	{ "the cache by another path", .by_link = true },
	{ "another umask", .changed = { .mask = 077 } },
};

/* ---- a program as the calls take it ---- */

struct built {
	struct warm_compile_program p;
	const char *options[MAX_OPTIONS + 1];
	struct warm_header headers[MAX_HEADERS];
	const char *expressions[MAX_NAMES];
	char *cwd, *variable;
	mode_t mask;
	char *owned[4 + MAX_OPTIONS + 2 * MAX_HEADERS + MAX_NAMES];
	size_t n_owned;
};

static char *own(struct built *b, const char *text, const char *dir)
{
	size_t n = strlen(text), n_dir = strlen(dir), places = 0;

	for (const char *c = text; *c != '\0'; c++)
		places += *c == '@';
	char *copy = malloc(n + places * n_dir + 1), *to = copy;
	assert_non_null(copy);
	for (const char *c = text; *c != '\0'; c++) {
		if (*c == '@') {
			memcpy(to, dir, n_dir);
			to += n_dir;
		} else {
			*to++ = *c;
		}
	}
	*to = '\0';
	assert_true(b->n_owned < COUNT(b->owned));
	b->owned[b->n_owned++] = copy;
	return copy;
}

static void release_built(struct built *b)
{
	for (size_t i = 0; i < b->n_owned; i++)
		free(b->owned[i]);
	free(b);
}

static const char *text_or(const char *a, const char *b, const char *otherwise)
{
	return a != NULL ? a : b != NULL ? b : otherwise;
}

static const char *const *list_or(const char *const *a, const char *const *b,
				  const char *const *otherwise)
{
	const char *const *list = a[0] != NULL ? a : b[0] != NULL ? b : otherwise;

	return list[0] == none ? list + 1 : list;
}

/* Rows whose programs are alike must not share entries: the source begins with the row's number
 * (and not with its name, which would mention what some rows are about). */
static struct built *build(const struct row *row, bool changed, const char *dir)
{
	static const struct recipe nothing;
	static const char *const usual[] = { "-I@/inc", NULL };
	static const char *const empty[] = { NULL };
	const struct recipe *r = changed ? &row->changed : &nothing, *base = &row->base;
	const char *const *options = list_or(r->options, base->options, usual);
	const char *const *headers = list_or(r->headers, base->headers, empty);
	const char *const *names = list_or(r->expressions, base->expressions, empty);
	const char *name = text_or(r->name, base->name, "@/p/k.cu");
	const char *source = text_or(r->source, base->source, with_header);
	const char *variable = text_or(r->variable, base->variable, NULL);
	char text[2000];
	struct built *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	int n = snprintf(text, sizeof(text), "%s// %s\n%s", r->shifted ? "?" : "",
			 strrchr(dir, '/') + 1, source);
	assert_true(n > 0 && (size_t)n < sizeof(text));
	b->p.source = own(b, text, dir) + (r->shifted ? 1 : 0);
	b->p.source_bytes = strlen(b->p.source);
	b->p.name = name == none ? NULL : own(b, name, dir);
	bool arch = false;
	for (size_t i = 0; options[i] != NULL; i++)
		arch = arch || strncmp(options[i], "-arch", 5) == 0;
	/* What a header says shows in PTX: no cubin is made where headers change, to save time. */
	if (!arch)
		b->options[b->p.n_options++] = row->change != NULL ? "-arch=compute_90"
								   : "-arch=sm_90";
	for (size_t i = 0; options[i] != NULL; i++)
		b->options[b->p.n_options++] = own(b, options[i], dir);
	for (size_t i = 0; headers[i] != NULL; i += 2) {
		struct warm_header *h = &b->headers[b->p.n_headers++];
		h->name = own(b, headers[i], dir);
		h->source = own(b, headers[i + 1], dir);
		h->source_bytes = strlen(h->source);
	}
	for (size_t i = 0; names[i] != NULL; i++)
		b->expressions[b->p.n_name_expressions++] = own(b, names[i], dir);
	bool lists = !r->null_lists;
	b->p.options = b->options;
	b->p.headers = b->p.n_headers > 0 || lists ? b->headers : NULL;
	b->p.name_expressions = b->p.n_name_expressions > 0 || lists ? b->expressions : NULL;
	b->cwd = own(b, text_or(r->cwd, base->cwd, "@/c"), dir);
	b->variable = variable != NULL ? own(b, variable, dir) : NULL;
	b->mask = r->mask != 0 ? r->mask : 022;
	return b;
}

static void set_variable(const char *variable, bool there)
{
	char name[80];
	const char *equals = strchr(variable, '=');

	snprintf(name, sizeof(name), "%.*s", (int)(equals - variable), variable);
	assert_int_equal(there ? setenv(name, equals + 1, 1) : unsetenv(name), 0);
}

/* A program's surroundings are the process's: they are put back after each. */
static char *kept_value;

static void enter(const struct built *b)
{
	if (chdir(b->cwd) != 0)
		fail_msg("%s: %s", b->cwd, strerror(errno));
	umask(b->mask);
	if (b->variable != NULL) {
		char name[80];
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(b->variable, "="), b->variable);
		const char *value = getenv(name);
		kept_value = value != NULL ? strdup(value) : NULL;
		set_variable(b->variable, true);
	}
}

static void leave(const struct built *b)
{
	assert_int_equal(chdir("/"), 0);
	umask(022);
	if (b->variable != NULL) {
		set_variable(b->variable, false);
		if (kept_value != NULL) {
			char name[80];
			snprintf(name, sizeof(name), "%.*s", (int)strcspn(b->variable, "="),
				 b->variable);
			assert_int_equal(setenv(name, kept_value, 1), 0);
			free(kept_value);
			kept_value = NULL;
		}
	}
}

/* ---- what a compile gave ---- */

struct outcome {
	int code; /* nvrtcResult; below 0: it is not NVRTC that failed */
	enum warm_compile_source source;
	char reason[256];
	struct {
		char *data;
		size_t bytes;
	} field[FIELDS];
};

static void set_field(struct outcome *o, int i, const void *data, size_t bytes)
{
	o->field[i].data = malloc(bytes + 1);
	assert_non_null(o->field[i].data);
	if (bytes > 0)
		memcpy(o->field[i].data, data, bytes);
	o->field[i].data[bytes] = '\0';
	o->field[i].bytes = bytes;
}

static void release_outcome(struct outcome *o)
{
	for (int i = 0; i < FIELDS; i++)
		free(o->field[i].data);
	*o = (struct outcome){ 0 };
}

static const char *log_of(const struct outcome *o)
{
	return o->field[LOG].data != NULL ? o->field[LOG].data : "";
}

/* The first thing in which they differ; NULL: nothing. */
static const char *difference(const struct outcome *a, const struct outcome *b)
{
	static const char *const names[] = {
		"PTX", "cubin", "LTO-IR", "OptiX-IR", "Tile-IR", "log"
	};

	if (a->code != b->code)
		return "result code";
	for (int i = 0; i < FIELDS; i++)
		if (a->field[i].bytes != b->field[i].bytes ||
		    (a->field[i].bytes > 0 &&
		     memcmp(a->field[i].data, b->field[i].data, a->field[i].bytes) != 0))
			return i < LOWERED ? names[i] : "lowered name";
	return NULL;
}

/* By the library. */
static struct outcome compile(struct warm_compiler *c, const struct warm_compile_program *p)
{
	struct outcome o = { 0 };
	struct warm_compile_result *r = NULL;
	struct warm_compiler_error err = WARM_COMPILER_ERROR_INIT;

	int rc = warm_compiler_compile(c, p, &r, &err);
	if (rc != 0) {
		o.code = err.nvrtc_result != 0 ? err.nvrtc_result : -rc;
		o.source = WARM_COMPILE_MISS;
		snprintf(o.reason, sizeof(o.reason), "%.200s", err.message);
		if (err.log != NULL)
			set_field(&o, LOG, err.log, strlen(err.log));
		warm_compiler_error_release(&err);
		return o;
	}
	o.source = warm_compile_result_source(r);
	snprintf(o.reason, sizeof(o.reason), "%s", warm_compile_result_reason(r));
	for (int kind = 0; kind < LOG; kind++) {
		size_t bytes = 0;
		const void *data = warm_compile_result_output(r, (enum warm_output)kind, &bytes);
		set_field(&o, kind, data, bytes);
	}
	const char *log = warm_compile_result_log(r);
	set_field(&o, LOG, log, strlen(log));
	for (size_t i = 0; i < p->n_name_expressions; i++) {
		const char *name = warm_compile_result_lowered_name(r, p->name_expressions[i]);
		if (name != NULL)
			set_field(&o, LOWERED + (int)i, name, strlen(name));
	}
	warm_compile_result_free(r);
	return o;
}

/* ---- NVRTC without a cache, in a process of its own ---- */

/* The environment of a compile is built, not inherited, and holds these. */
static const char *const obeyed[] = {
	"NVRTC_APPEND_FLAGS", "NVRTC_PREPEND_FLAGS",	"NVRTCWIZ",
	"NV_NVVM_VERSION",    "NVRTC_DISABLE_PCH",	"EDG_BASE",
	"EDG_MODULES_PATH",   "LLVM_OVERRIDE_PRODUCER", "FINALIZER_USE_LEGACY_ELF_BUILDER",
};

struct fresh {
	pid_t pid;
	int fd;
};

static void build_environment(void)
{
	char *values[COUNT(obeyed)];

	for (size_t i = 0; i < COUNT(obeyed); i++) {
		const char *value = getenv(obeyed[i]);
		values[i] = value != NULL ? strdup(value) : NULL;
	}
	clearenv();
	for (size_t i = 0; i < COUNT(obeyed); i++) {
		if (values[i] != NULL)
			setenv(obeyed[i], values[i], 1);
		free(values[i]);
	}
}

/* Returns the library's handle, or NULL with a message. */
static void *load(const char *path, char *ret_message, size_t bytes)
{
	char pattern[2000];
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%.*s/libnvrtc-builtins.so.[0-9]*",
		 (int)(strrchr(path, '/') - path), path);
	if (glob(pattern, 0, NULL, &g) != 0) {
		snprintf(ret_message, bytes, "no %.900s", pattern);
		return NULL;
	}
	void *builtins = dlopen(g.gl_pathv[0], RTLD_NOW | RTLD_GLOBAL);
	globfree(&g);
	void *library = builtins != NULL ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
	if (library == NULL)
		snprintf(ret_message, bytes, "%s", dlerror());
	return library;
}

static void *symbol(void *library, const char *name)
{
	void *s = dlsym(library, name);

	if (s == NULL) {
		fprintf(stderr, "no %s\n", name);
		_exit(1);
	}
	return s;
}

static void take_text(void *library, void *program, const char *size_name, const char *get_name,
		      struct outcome *o, int i)
{
	int (*size)(void *, size_t *);
	int (*get)(void *, char *);
	size_t bytes = 0;

	/* Not every version has all of them. */
	*(void **)&size = dlsym(library, size_name);
	*(void **)&get = dlsym(library, get_name);
	if (size == NULL || get == NULL || size(program, &bytes) != 0 || bytes == 0)
		return;
	char *data = calloc(1, bytes);
	if (data != NULL && get(program, data) == 0)
		set_field(o, i, data, bytes);
	free(data);
}

static struct outcome compile_here(const char *path, const struct warm_compile_program *p)
{
	static const char *const gets[] = { "PTX", "CUBIN", "LTOIR", "OptiXIR", "TileIR" };
	int (*version)(int *, int *), (*create)(void **, const char *, const char *, int,
						const char *const *, const char *const *);
	int (*add)(void *, const char *), (*run)(void *, int, const char *const *);
	int (*lowered)(void *, const char *, const char **);
	const char *options[MAX_OPTIONS + 2], *names[MAX_HEADERS], *texts[MAX_HEADERS];
	struct outcome o = { 0 };
	char message[1000], size_name[40], get_name[40];
	void *program = NULL;
	int major = 0, minor = 0;

	void *library = load(path, message, sizeof(message));
	if (library == NULL) {
		set_field(&o, LOG, message, strlen(message));
		o.code = -1;
		return o;
	}
	*(void **)&version = symbol(library, "nvrtcVersion");
	*(void **)&create = symbol(library, "nvrtcCreateProgram");
	*(void **)&add = symbol(library, "nvrtcAddNameExpression");
	*(void **)&run = symbol(library, "nvrtcCompileProgram");
	*(void **)&lowered = symbol(library, "nvrtcGetLoweredName");
	for (size_t i = 0; i < p->n_headers; i++) {
		names[i] = p->headers[i].name;
		texts[i] = p->headers[i].source;
	}
	/* Its own cache is out of the question. In front, where it is no other option's value. */
	size_t n = 0;
	if (version(&major, &minor) == 0 && major * 100 + minor >= 1209)
		options[n++] = "--no-cache";
	memcpy(options + n, p->options, p->n_options * sizeof(*options));
	n += p->n_options;
	o.code = create(&program, p->source, p->name, (int)p->n_headers, texts, names);
	for (size_t i = 0; o.code == 0 && i < p->n_name_expressions; i++)
		o.code = add(program, p->name_expressions[i]);
	if (o.code == 0) {
		o.code = run(program, (int)n, options);
		take_text(library, program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog", &o,
			  LOG);
		o.field[LOG].bytes = strlen(log_of(&o));
	}
	if (o.code != 0)
		return o;
	for (int i = 0; i < LOG; i++) {
		snprintf(size_name, sizeof(size_name), "nvrtcGet%sSize", gets[i]);
		snprintf(get_name, sizeof(get_name), "nvrtcGet%s", gets[i]);
		take_text(library, program, size_name, get_name, &o, i);
	}
	if (o.field[WARM_OUTPUT_PTX].bytes == 1) /* its NUL alone: none */
		o.field[WARM_OUTPUT_PTX].bytes = 0;
	for (size_t i = 0; i < p->n_name_expressions; i++) {
		const char *name = NULL;
		if (lowered(program, p->name_expressions[i], &name) == 0 && name != NULL)
			set_field(&o, LOWERED + (int)i, name, strlen(name));
	}
	return o;
}

/* So that it runs beside what the library does. */
static struct fresh start_fresh(const char *library, const struct warm_compile_program *p)
{
	struct fresh f;
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	f.fd = ends[0];
	f.pid = fork();
	assert_true(f.pid >= 0);
	if (f.pid == 0) {
		build_environment();
		struct outcome o = compile_here(library, p);
		int failed = warm_file_write(ends[1], &o.code, sizeof(o.code), NULL);
		for (int i = 0; failed == 0 && i < FIELDS; i++) {
			size_t bytes = o.field[i].bytes;
			failed = warm_file_write(ends[1], &bytes, sizeof(bytes), NULL);
			if (failed == 0 && bytes > 0)
				failed = warm_file_write(ends[1], o.field[i].data, bytes, NULL);
		}
		_exit(failed != 0);
	}
	close(ends[1]);
	return f;
}

static void read_all(int fd, void *data, size_t bytes)
{
	size_t got = 0;

	while (got < bytes) {
		ssize_t n = read(fd, (char *)data + got, bytes - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			fail_msg("NVRTC's process died");
		got += (size_t)n;
	}
}

static struct outcome finish_fresh(struct fresh *f)
{
	struct outcome o = { 0 };
	int status = 0;

	read_all(f->fd, &o.code, sizeof(o.code));
	for (int i = 0; i < FIELDS; i++) {
		size_t bytes = 0;
		read_all(f->fd, &bytes, sizeof(bytes));
		assert_true(bytes < (size_t)1 << 28);
		char *data = malloc(bytes + 1);
		assert_non_null(data);
		read_all(f->fd, data, bytes);
		data[bytes] = '\0';
		o.field[i].data = data;
		o.field[i].bytes = bytes;
	}
	close(f->fd);
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	assert_int_equal(status, 0);
	if (o.code == -1)
		fail_msg("%s", log_of(&o));
	return o;
}

/* ---- rows ---- */

struct trial {
	const struct row *row;
	char dir[300];
	struct outcome base;	/* the first compile's */
	struct outcome changed; /* NVRTC's own */
	bool refused;		/* an option that this version doesn't know */
	bool blamed;		/* complained about in full */
};

struct table {
	struct scratch s;
	char library[1024];
	struct warm_compiler *remembers; /* open all the time */
	struct trial *trials;
	size_t n, failures;
};

static void complain(struct table *t, struct trial *trial, const char *when,
		     const struct outcome *got, const char *what)
{
	static const char *const sources[] = { "a hit", "a miss", "uncacheable", "unstored" };

	t->failures++;
	print_error("FAILED: %s, %s: %s (%s%s%s)\n", trial->row->what, when, what,
		    sources[got->source], got->reason[0] != '\0' ? ": " : "", got->reason);
}

static void judge(struct table *t, struct trial *trial, const char *when, struct outcome got,
		  const struct outcome *want, bool must_hit)
{
	char what[2000];
	const char *other = difference(&got, want);

	if (other != NULL) {
		const struct outcome *old = want == &trial->base ? &trial->changed : &trial->base;
		snprintf(what, sizeof(what), "%s is %s%s", other,
			 got.source == WARM_COMPILE_HIT ? "stale" : "wrong",
			 difference(&got, old) == NULL ? ", all is as without the change" : "");
		complain(t, trial, when, &got, what);
		if (!trial->blamed &&
		    (got.code != want->code || strcmp(log_of(&got), log_of(want)) != 0))
			print_error("\twanted %d: %.300s\n\tgot    %d: %.300s\n", want->code,
				    log_of(want), got.code, log_of(&got));
		trial->blamed = true;
	} else if (must_hit && got.source != WARM_COMPILE_HIT) {
		complain(t, trial, when, &got, "wanted a hit");
	}
	release_outcome(&got);
}

/* With no helper, whatever isn't a hit fails at once. */
static const char no_helper[] = "/nonexistent/warmcache-nvrtc";

static struct warm_compiler *open_compiler(const char *cache, const char *library,
					   const char *helper, const char *sealed)
{
	struct warm_compiler_options o = WARM_COMPILER_OPTIONS_INIT;
	struct warm_compiler_error err = WARM_COMPILER_ERROR_INIT;
	struct warm_compiler *c = NULL;
	const char *const dirs[] = { sealed, NULL };

	o.cache_dir = cache;
	o.nvrtc_library = library;
	o.helper = helper;
	o.mode = sealed != NULL ? WARM_MODE_SEALED : WARM_MODE_TRACED;
	o.sealed_dirs = sealed != NULL ? dirs : NULL;
	if (warm_compiler_open(&o, &c, &err) != 0)
		fail_msg("%s", err.message);
	return c;
}

static void run_script(const struct trial *trial, const char *script)
{
	if (script == NULL)
		return;
	int rc = shell("set -e; cd '%s'; put() { printf '#define V %%s\\n' $2 >$1; "
		       "touch -d @1500000000 $1; }; %s",
		       trial->dir, script);
	if (rc != 0)
		fail_msg("%s: '%s' gave %d", trial->row->what, script, rc);
}

static void settle(void)
{
	struct timespec rest = { SETTLE_MS / 1000, SETTLE_MS % 1000 * 1000000L };

	while (nanosleep(&rest, &rest) != 0)
		;
}

static struct table open_table(const struct row *rows, size_t n)
{
	struct table t = { .s = scratch_open(), .n = n };
	char real[PATH_MAX];

	/* A scratch directory by its real name: getcwd() gives no other. */
	assert_non_null(realpath(t.s.path, real));
	assert_true(strlen(real) < sizeof(t.s.path));
	memcpy(t.s.path, real, strlen(real) + 1);
	snprintf(t.library, sizeof(t.library), "%.1000s", getenv("WARM_NVRTC_LIBRARY"));
	t.trials = calloc(n, sizeof(*t.trials));
	assert_non_null(t.trials);
	put_dir(t.s.fd, "cache");
	for (size_t i = 0; i < n; i++) {
		struct trial *trial = &t.trials[i];
		trial->row = &rows[i];
		snprintf(trial->dir, sizeof(trial->dir), "%s/row%zu", t.s.path, i);
		put_dir(t.s.fd, trial->dir + strlen(t.s.path) + 1);
		run_script(trial, "mkdir p q c d inc before; put inc/a.h 1");
		run_script(trial, rows[i].make);
	}
	assert_int_equal(shell("find '%s' -exec touch -h -d @1500000000 {} +", t.s.path), 0);
	t.remembers = open_compiler(scratch_path(&t.s, "cache"), NULL, NULL, NULL);
	return t;
}

static void close_table(struct table *t)
{
	warm_compiler_close(t->remembers);
	for (size_t i = 0; i < t->n; i++) {
		release_outcome(&t->trials[i].base);
		release_outcome(&t->trials[i].changed);
	}
	free(t->trials);
	(void)shell("chmod -R u+rwX '%s'", t->s.path);
	scratch_close(&t->s);
}

static void compile_base(struct table *t, struct trial *trial)
{
	struct built *b = build(trial->row, false, trial->dir);

	enter(b);
	trial->base = compile(t->remembers, &b->p);
	if (trial->base.code == INVALID_OPTION) {
		print_message("# note: not with this NVRTC: %s\n", trial->row->what);
		trial->refused = true;
	} else if (trial->base.code != 0 || trial->base.source != WARM_COMPILE_MISS) {
		complain(t, trial, "before the change", &trial->base, "wanted a miss");
		print_error("%s", log_of(&trial->base));
	}
	/* The second look at a file is by what the first one remembered. */
	for (int i = 0; i < 2 && !trial->refused; i++)
		judge(t, trial, "unchanged", compile(t->remembers, &b->p), &trial->base, true);
	leave(b);
	release_built(b);
}

static void judge_anew(struct table *t, struct trial *trial, const char *when, const char *cache,
		       bool sealed, const struct warm_compile_program *p,
		       const struct outcome *want, bool must_hit)
{
	struct warm_compiler *c = open_compiler(scratch_path(&t->s, cache), NULL, no_helper,
						sealed ? trial->dir : NULL);
	struct outcome got = compile(c, p);

	if (got.code == -WARM_COMPILER_HELPER && !must_hit)
		release_outcome(&got);
	else
		judge(t, trial, when, got, want, must_hit);
	warm_compiler_close(c);
}

/* In sealed mode, an entry that has held is looked at less: but it is another one for another
 * program, directory or environment. */
static void judge_sealed(struct table *t, struct trial *trial, const struct warm_compile_program *p,
			 bool must_hit)
{
	struct warm_compiler *c = open_compiler(scratch_path(&t->s, "sealed"), NULL, no_helper,
						trial->dir);
	struct built *changed = build(trial->row, true, trial->dir);
	struct built *b = build(trial->row, false, trial->dir);

	leave(changed);
	enter(b);
	for (int i = 0; i < 2; i++)
		judge(t, trial, "sealed", compile(c, &b->p), &trial->base, true);
	leave(b);
	enter(changed);
	struct outcome got = compile(c, p);
	if (got.code == -WARM_COMPILER_HELPER && !must_hit)
		release_outcome(&got);
	else
		judge(t, trial, "changed, once it was seen sealed", got, &trial->changed, must_hit);
	release_built(b);
	release_built(changed);
	warm_compiler_close(c);
}

static void judge_in_child(struct table *t, struct trial *trial,
			   const struct warm_compile_program *p)
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		judge_anew(t, trial, "in a child", "cache", false, p, &trial->base, true);
		_exit(t->failures > 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	t->failures += status != 0;
}

static void compile_changed(struct table *t, struct trial *trial, bool must_hit)
{
	const struct row *row = trial->row;
	struct built *b = build(row, true, trial->dir);

	run_script(trial, row->change);
	enter(b);
	struct fresh f = start_fresh(t->library, &b->p);
	struct outcome got = compile(t->remembers, &b->p);
	trial->changed = finish_fresh(&f);
	const char *differs = difference(&trial->base, &trial->changed);
	if (must_hit ? differs != NULL : differs == NULL && !row->alike)
		complain(t, trial, "by NVRTC itself", &got,
			 must_hit ? "the change counts" : "the change doesn't count");
	judge(t, trial, "changed", got, &trial->changed, must_hit);
	if (row->change == NULL)
		judge_sealed(t, trial, &b->p, must_hit);
	if (row->change != NULL || must_hit) {
		judge_anew(t, trial, "changed, opened anew", row->by_link ? "link" : "copy", false,
			   &b->p, &trial->changed, must_hit);
		judge_anew(t, trial, "changed, sealed", "sealed", true, &b->p, &trial->changed,
			   must_hit);
	}
	if (row->by_child)
		judge_in_child(t, trial, &b->p);
	leave(b);
	release_built(b);
}

static void compile_changed_again(struct table *t, struct trial *trial, bool must_hit)
{
	struct built *b = build(trial->row, true, trial->dir);

	enter(b);
	for (int i = 0; i < 2; i++)
		judge(t, trial, "changed, later", compile(t->remembers, &b->p), &trial->changed,
		      must_hit);
	leave(b);
	release_built(b);
}

static void compile_reverted(struct table *t, struct trial *trial, bool must_hit)
{
	struct built *b = build(trial->row, false, trial->dir);

	run_script(trial, trial->row->undo);
	enter(b);
	judge(t, trial, "changed back", compile(t->remembers, &b->p), &trial->base, must_hit);
	if (trial->row->change != NULL)
		judge_anew(t, trial, "changed back, opened anew", "copy", false, &b->p,
			   &trial->base, must_hit);
	leave(b);
	release_built(b);
}

static void run_rows(const struct row *rows, size_t n, bool remembered, bool must_hit)
{
	struct table t = open_table(rows, n);

	if (remembered)
		settle();
	for (size_t i = 0; i < n; i++)
		compile_base(&t, &t.trials[i]);
	/* Compilers that are opened anew must not find what another learnt of the change. */
	assert_int_equal(
		shell("cd '%s' && cp -r cache copy && cp -r cache sealed && ln -s copy link",
		      t.s.path),
		0);
	for (size_t i = 0; i < n; i++)
		if (!t.trials[i].refused)
			compile_changed(&t, &t.trials[i], must_hit);
	if (remembered && !must_hit)
		settle();
	for (size_t i = 0; i < n; i++)
		if (!t.trials[i].refused)
			compile_changed_again(&t, &t.trials[i], must_hit);
	for (size_t i = 0; i < n; i++)
		if (!t.trials[i].refused)
			compile_reverted(&t, &t.trials[i], must_hit);
	size_t failures = t.failures;
	close_table(&t);
	if (failures > 0)
		fail_msg("%zu results of %zu rows are not right", failures, n);
}

TEST(what_the_caller_changes_is_never_stale)
{
	NEEDS_NVRTC();
	run_rows(given, COUNT(given), false, false);
}

TEST(what_changes_on_disk_is_never_stale)
{
	NEEDS_NVRTC();
	run_rows(on_disk, COUNT(on_disk), true, false);
}

TEST(what_does_not_count_hits)
{
	NEEDS_NVRTC();
	run_rows(irrelevant, COUNT(irrelevant), true, true);
}

/* ---- what must not be kept ---- */

#define NOW(what) "__device__ const char now[] = " what ";\n"

static const struct row not_kept[] = {
	{ "__TIME__", .base = { NOW("__TIME__") } },
	{ "__DATE__", .base = { NOW("__DATE__") } },
	/* Not every version has this one. */
	{ "__TIMESTAMP__", .base = { "#ifdef __TIMESTAMP__\n" NOW("__TIMESTAMP__") "#endif\n" } },
	{ "__TIME__ in a header in memory",
	  .base = { "#include \"n.h\"\n" NOW("T"), .headers = { "n.h", "#define T __TIME__\n" } } },
	{ "__DATE__ in a header in memory that is not the first",
	  .base = { "#include \"n.h\"\n" NOW("T"),
		    .headers = { "m.h", "", "n.h", "#define T __DATE__\n" } } },
	{ "__TIME__ in a header", .make = "echo '#define T __TIME__' > inc/n.h",
	  .base = { "#include \"n.h\"\n" NOW("T") } },
	{ "__TIMESTAMP__ in a header", .make = "echo '#define T __TIMESTAMP__' > inc/n.h",
	  .base = { "#include \"n.h\"\n#ifdef __TIMESTAMP__\n" NOW("T") "#endif\n" } },
	{ "__TIME__ in a header of a header",
	  .make = "echo '#include \"m.h\"' > inc/n.h; echo '#define T __TIME__' > inc/m.h",
	  .base = { "#include \"n.h\"\n" NOW("T") } },
	{ "__TIME__ in a file of -include", .make = "echo '#define T __TIME__' > inc/n.h",
	  .base = { NOW("T"), .options = { "-include", "@/inc/n.h" } } },
	{ "__TIME__ in an option", .base = { NOW("WHEN"), .options = { "-DWHEN=__TIME__" } } },
	{ "__DATE__ in an option of two parts",
	  .base = { NOW("WHEN"), .options = { "-D", "WHEN=__DATE__" } } },
	{ "a file of options for ptxas", .make = "echo -O0 > o",
	  .base = { without, .options = { "-Xptxas=--options-file=@/o" } } },
	{ "a file of options for ptxas, in two parts", .make = "echo -O0 > o",
	  .base = { without, .options = { "-Xptxas", "-optf=@/o" } } },
	{ "--time", .base = { without, .options = { "--time=@/c/t.csv" } } },
	{ "-time", .base = { without, .options = { "-time=@/c/t.csv" } } },
	{ "--time with blanks", .base = { without, .options = { " --time=@/c/t.csv" } } },
	{ "-fdevice-time-trace", .base = { without, .options = { "-fdevice-time-trace=@/c/t" } } },
	{ "--fdevice-time-trace",
	  .base = { without, .options = { "--fdevice-time-trace=@/c/t" } } },
	{ "-fdevice-time-trace with blanks",
	  .base = { without, .options = { " -fdevice-time-trace=@/c/t" } } },
	{ "-Xcudafe", .base = { without, .options = { "-Xcudafe", "--display_error_number" } } },
	{ "-Xcudafe=", .base = { without, .options = { "-Xcudafe=--display_error_number" } } },
	{ "-Xcudafe with blanks",
	  .base = { without, .options = { " -Xcudafe", "--display_error_number" } } },
	{ "--pch", .base = { .options = { "--pch", "--pch-dir=@/c", "-I@/inc" } } },
	{ "-pch", .base = { .options = { "-pch", "--pch-dir=@/c", "-I@/inc" } } },
	{ "--pch with blanks", .base = { .options = { " --pch ", " --pch-dir=@/c", "-I@/inc" } } },
	{ "--create-pch", .base = { .options = { "--create-pch=@/../x.pch", "-I@/inc" } } },
	{ "-create-pch", .base = { .options = { "-create-pch=@/c/x.pch", "-I@/inc" } } },
	/* What --create-pch left. */
	{ "--use-pch", .base = { .options = { "--use-pch=@/../x.pch", "-I@/inc" } } },
	/* It puts headers there, and reads what is there. */
	{ "--use-bundled-headers",
	  .base = { without, .options = { "--use-bundled-headers=@/b" } } },
	{ "--use-bundled-headers with blanks",
	  .base = { "#include <math_constants.h>\n",
		    .options = { " --use-bundled-headers=@/b" } } },
	{ "NVRTC_APPEND_FLAGS", .base = { without, .variable = "NVRTC_APPEND_FLAGS=-lineinfo" } },
	{ "NVRTC_PREPEND_FLAGS", .base = { without, .variable = "NVRTC_PREPEND_FLAGS=-lineinfo" } },
};

TEST(what_must_not_be_kept_is_compiled_each_time)
{
	NEEDS_NVRTC();
	struct table t = open_table(not_kept, COUNT(not_kept));
	struct warm_compiler_counters before, after;

	for (size_t i = 0; i < t.n; i++) {
		struct trial *trial = &t.trials[i];
		struct built *b = build(trial->row, false, trial->dir);
		enter(b);
		for (int k = 0; k < 2; k++) {
			warm_compiler_get_counters(t.remembers, &before, sizeof(before));
			struct outcome got = compile(t.remembers, &b->p);
			warm_compiler_get_counters(t.remembers, &after, sizeof(after));
			if (got.code > 0) {
				/* Not an option of this version. */
				print_message("# note: %s: %s\n", trial->row->what, log_of(&got));
				k = 2;
			} else if (got.code < 0 || got.source != WARM_COMPILE_UNCACHEABLE ||
				   got.reason[0] == '\0' || after.misses != before.misses + 1) {
				complain(&t, trial, k == 0 ? "first" : "again", &got,
					 "wanted a compile that isn't kept, and why");
			}
			release_outcome(&got);
		}
		leave(b);
		release_built(b);
	}
	int kept = shell("! find '%s/cache' -type f | grep -E '/[0-9a-f]{32}$'", t.s.path);
	size_t failures = t.failures;
	close_table(&t);
	assert_int_equal(kept, 0);
	assert_int_equal(failures, 0);
}

/* ---- other compilers ---- */

/* A copy of NVRTC in another directory; `flipped` is 0 for the library or 1 for the builtins whose
 * build id becomes another, or -1. */
static void copy_nvrtc(const struct table *t, const char *dir, int flipped, char ret_library[1100])
{
	static const char note[] = "\4\0\0\0\24\0\0\0\3\0\0\0GNU";
	const char *base = strrchr(t->library, '/') + 1;
	char path[1100];
	glob_t g;

	put_dir(t->s.fd, dir);
	/* Names by links where that can be, since the library is large. */
	assert_int_equal(shell("cd '%.*s' && for i in %s libnvrtc-builtins.so.[0-9]*; do "
			       "ln -L $i '%s/%s/' 2>/dev/null || cp -L $i '%s/%s/'; done",
			       (int)(base - 1 - t->library), t->library, base, t->s.path, dir,
			       t->s.path, dir),
			 0);
	snprintf(ret_library, 1100, "%s/%s/%s", t->s.path, dir, base);
	if (flipped < 0)
		return;
	snprintf(path, sizeof(path), "%s/%s/%s", t->s.path, dir,
		 flipped == 0 ? base : "libnvrtc-builtins.so.[0-9]*");
	assert_int_equal(glob(path, 0, NULL, &g), 0);
	size_t bytes = 0;
	uint8_t *data = load_file(g.gl_pathv[0], &bytes);
	uint8_t *id = memmem(data, bytes, note, sizeof(note));
	assert_non_null(id);
	id[sizeof(note)] ^= 1;
	/* A file of its own: the link's other end is what everyone uses. */
	assert_int_equal(unlink(g.gl_pathv[0]), 0);
	put_file(t->s.fd, g.gl_pathv[0] + strlen(t->s.path) + 1, data, bytes, 0755, 0);
	free(data);
	globfree(&g);
}

static void use_library(struct table *t, const char *when, const char *library,
			enum warm_compile_source want)
{
	struct trial *trial = &t->trials[0];
	struct built *b = build(trial->row, false, trial->dir);
	struct warm_compiler *c = open_compiler(scratch_path(&t->s, "cache"), library, NULL, NULL);

	enter(b);
	struct fresh f = start_fresh(library, &b->p);
	struct outcome got = compile(c, &b->p), truth = finish_fresh(&f);
	if (got.source != want)
		complain(t, trial, when, &got,
			 want == WARM_COMPILE_HIT ? "wanted a hit" : "wanted a miss");
	judge(t, trial, when, got, &truth, false);
	release_outcome(&truth);
	leave(b);
	release_built(b);
	warm_compiler_close(c);
}

TEST(another_compiler_misses_and_a_copy_of_the_same_hits)
{
	NEEDS_NVRTC();
	static const struct row row[] = { { "another compiler", .base = { with_header } } };
	struct table t = open_table(row, 1);
	const char *other = getenv("TEST_NVRTC12_LIBRARY");
	char copy[1100], library[1100], builtins[1100];

	compile_base(&t, &t.trials[0]);
	copy_nvrtc(&t, "copy", -1, copy);
	copy_nvrtc(&t, "library", 0, library);
	copy_nvrtc(&t, "builtins", 1, builtins);
	use_library(&t, "a copy", copy, WARM_COMPILE_HIT);
	use_library(&t, "another library", library, WARM_COMPILE_MISS);
	use_library(&t, "other builtins", builtins, WARM_COMPILE_MISS);
	if (other != NULL && other[0] != '\0') {
		use_library(&t, "NVRTC 12", other, WARM_COMPILE_MISS);
		use_library(&t, "NVRTC 12 again", other, WARM_COMPILE_HIT);
	} else {
		print_message("# note: TEST_NVRTC12_LIBRARY is not set\n");
	}
	use_library(&t, "the first again", t.library, WARM_COMPILE_HIT);
	size_t failures = t.failures;
	close_table(&t);
	assert_int_equal(failures, 0);
}

/* ---- sealed directories ---- */

TEST(what_lies_outside_of_the_sealed_directories_is_looked_at_each_time)
{
	NEEDS_NVRTC();
	static const struct row row[] = {
		{ "a sealed directory and another", .make = "put before/b.h 3",
		  .base = { "#include \"a.h\"\nenum { A = V };\n#undef V\n#include \"b.h\"\n"
			    "__global__ void k(int *a) { a[A] = V; }\n",
			    .options = { "-I@/inc", "-I@/before" } } },
	};
	struct table t = open_table(row, 1);
	struct trial *trial = &t.trials[0];
	struct built *b = build(trial->row, false, trial->dir);
	char inc[320];

	snprintf(inc, sizeof(inc), "%s/inc", trial->dir);
	settle();
	compile_base(&t, trial);
	struct warm_compiler *c = open_compiler(scratch_path(&t.s, "cache"), NULL, NULL, inc);
	enter(b);
	for (int i = 0; i < 2; i++)
		judge(&t, trial, "sealed", compile(c, &b->p), &trial->base, true);
	run_script(trial, "put before/b.h 4");
	struct fresh f = start_fresh(t.library, &b->p);
	struct outcome got = compile(c, &b->p);
	trial->changed = finish_fresh(&f);
	judge(&t, trial, "sealed, the other one changed", got, &trial->changed, false);
	assert_non_null(difference(&trial->base, &trial->changed));
	leave(b);
	release_built(b);
	warm_compiler_close(c);
	size_t failures = t.failures;
	close_table(&t);
	assert_int_equal(failures, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_the_caller_changes_is_never_stale),
		cmocka_unit_test(what_changes_on_disk_is_never_stale),
		cmocka_unit_test(what_does_not_count_hits),
		cmocka_unit_test(what_must_not_be_kept_is_compiled_each_time),
		cmocka_unit_test(another_compiler_misses_and_a_copy_of_the_same_hits),
		cmocka_unit_test(
			what_lies_outside_of_the_sealed_directories_is_looked_at_each_time),
	};

	if (UNDER_TSAN)
		print_message("# note: NVRTC doesn't run under the thread sanitizer; all is "
			      "skipped\n");
	else if (lacking())
		print_message("# note: WARM_NVRTC_LIBRARY and WARM_NVRTC_HELPER are not set; all "
			      "is skipped\n");
	for (size_t i = 0; i < COUNT(obeyed); i++)
		unsetenv(obeyed[i]);
	return RUN(tests);
}
