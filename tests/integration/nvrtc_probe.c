/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of NVRTC that does what a script says and prints everything that comes back, so that
 * two libraries can be compared:
 *
 *	nvrtc_probe LIBRARY SCRIPT
 *
 * LIBRARY is opened as it is given, "" stands for what the program is linked against. A line of
 * the script is a command and its fields, between tabs, with \n, \t and \\ for these; @null is a
 * NULL pointer. Each prints one line. With PROBE_KEEP=DIRECTORY each output is kept there.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_FIELDS = 64, MAX_TEXTS = 256, GUARD = 64, HANDLES = 26, MAX_KEPT = 32 };
static const size_t poison = 0x5a5a5a5a;

typedef void *program;
/* More arguments than a function takes do no harm. */
typedef int (*any_fn)(void *, void *, void *, void *, void *, void *, void *, void *, void *);
typedef int (*create_fn)(program *, const char *, const char *, int, const char *const *,
			 const char *const *);
typedef int (*compile_fn)(program, int, const char *const *);
typedef int (*size_fn)(program, size_t *);
typedef int (*data_fn)(program, char *);

static void *library;
static program handles[HANDLES];
static struct {
	char *name, *text;
} sources[MAX_TEXTS];
static size_t n_sources;
static const char *kept[MAX_KEPT]; /* lowered names */
static size_t n_kept;
static unsigned line_number;
static _Atomic int callbacks;
static volatile sig_atomic_t terms;

/* What the current command is given. */
static char *fields[MAX_FIELDS];
static int n_fields;

/* What this is linked against, by name; a file of the test's own may define it. */
extern const struct linked {
	const char *name;
	const void *function;
} linked[] __attribute__((weak));

static void *function(const char *name)
{
	if (library != RTLD_DEFAULT || linked == NULL)
		return dlsym(library, name);
	for (size_t i = 0; linked[i].name != NULL; i++)
		if (strcmp(linked[i].name, name) == 0)
			return (void *)(uintptr_t)linked[i].function;
	return NULL;
}

static const char *field(int i)
{
	return i >= n_fields || strcmp(fields[i], "@null") == 0 ? NULL : fields[i];
}

static const char *source_of(const char *name)
{
	for (size_t i = 0; name != NULL && i < n_sources; i++)
		if (strcmp(sources[i].name, name) == 0)
			return sources[i].text;
	return name;
}

static program *handle(const char *name)
{
	return &handles[name[0] - 'a'];
}

static uint64_t hash(const char *data, size_t bytes)
{
	uint64_t h = 14695981039346656037u;

	for (size_t i = 0; i < bytes; i++)
		h = (h ^ (unsigned char)data[i]) * 1099511628211u;
	return h;
}

static void print_text(const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '\n')
			fputs("\\n", stdout);
		else
			putchar(*text);
	}
}

/* ---- outputs ---- */

static const char *const outputs[] = { "ProgramLog", "PTX",	"CUBIN",  "LTOIR",
				       "NVVM",	     "OptiXIR", "TileIR", NULL };

static void keep_output(const char *what, const char *data, size_t bytes)
{
	char path[4096];

	if (getenv("PROBE_KEEP") == NULL)
		return;
	snprintf(path, sizeof(path), "%s/%u.%s", getenv("PROBE_KEEP"), line_number, what);
	FILE *file = fopen(path, "wb");
	if (file != NULL) {
		fwrite(data, 1, bytes, file);
		fclose(file);
	}
}

/* Its size and hash; what the getter writes must be as many bytes as its size says. */
static void print_output(program p, const char *what)
{
	char name[64];
	size_t bytes = poison;

	snprintf(name, sizeof(name), "nvrtcGet%sSize", what);
	size_fn size = (size_fn)function(name);
	snprintf(name, sizeof(name), "nvrtcGet%s", what);
	data_fn get = (data_fn)function(name);
	if (size == NULL || get == NULL) {
		printf(" %s=absent", what);
		return;
	}
	int rc = size(p, &bytes);
	if (rc != 0) {
		printf(" %s=rc%d%s", what, rc, bytes == poison ? "" : " but its size was set");
		return;
	}
	char *a = malloc(bytes + GUARD), *b = malloc(bytes + GUARD);
	if (a == NULL || b == NULL)
		exit(3);
	memset(a, 0xa5, bytes + GUARD);
	memset(b, 0x3c, bytes + GUARD);
	rc = get(p, a);
	int again = get(p, b);
	size_t written = 0;
	while (written < bytes && a[written] == b[written])
		written++;
	for (size_t i = bytes; i < bytes + GUARD; i++)
		if (a[i] != (char)0xa5 || b[i] != 0x3c)
			written = i + 1;
	printf(" %s=%zu", what, bytes);
	if (rc != 0 || again != rc)
		printf(" rc%d rc%d", rc, again);
	if (written != bytes)
		printf(" wrote %zu", written);
	if (bytes > 0 && rc == 0) {
		if (strcmp(what, "ProgramLog") == 0) {
			fputs("'", stdout);
			print_text(a);
			fputs("'", stdout);
		} else {
			printf(":%016llx", (unsigned long long)hash(a, bytes));
		}
		keep_output(what, a, bytes);
	}
	free(a);
	free(b);
}

static void do_dump(void)
{
	program p = *handle(fields[1]);
	size_t required = poison;

	for (int i = 0; outputs[i] != NULL; i++)
		print_output(p, outputs[i]);
	any_fn status = (any_fn)function("nvrtcGetPCHCreateStatus");
	size_fn heap = (size_fn)function("nvrtcGetPCHHeapSizeRequired");
	if (status != NULL && heap != NULL) {
		printf(" PCH=%d", status(p, 0, 0, 0, 0, 0, 0, 0, 0));
		printf(" required=%d:", heap(p, &required));
		printf("%zu", required);
	}
	/* Once more: no getter may change what others give. */
	print_output(p, "ProgramLog");
}

/* ---- programs ---- */

static void print_handle(int rc, const program *p, const void *before)
{
	printf("%d %s", rc, *p == before ? "untouched" : *p == NULL ? "NULL" : "set");
}

/* create HANDLE SOURCE NAME [INCLUDE-NAME HEADER]... */
static void do_create(void)
{
	const char *names[MAX_FIELDS], *headers[MAX_FIELDS];
	int n = (n_fields - 4) / 2;
	program *p = handle(fields[1]);

	for (int i = 0; i < n; i++) {
		names[i] = field(4 + 2 * i);
		headers[i] = source_of(field(5 + 2 * i));
	}
	*p = NULL;
	int rc = ((create_fn)function("nvrtcCreateProgram"))(
		p, source_of(field(2)), field(3), n, n > 0 ? headers : NULL, n > 0 ? names : NULL);
	print_handle(rc, p, NULL);
}

/* createn HANDLE SOURCE NAME N HEADERS INCLUDE-NAMES, both lists of one, or @null. */
static void do_createn(void)
{
	const char *headers[] = { source_of(field(5)), source_of(field(5)) };
	const char *names[] = { field(6), field(6) };
	bool no_headers = strcmp(fields[5], "@none") == 0,
	     no_names = strcmp(fields[6], "@none") == 0;
	program p = &p;

	int rc = ((create_fn)function("nvrtcCreateProgram"))(
		&p, source_of(field(2)), field(3), atoi(fields[4]), no_headers ? NULL : headers,
		no_names ? NULL : names);
	print_handle(rc, &p, &p);
	*handle(fields[1]) = rc == 0 ? p : NULL;
}

/* Inputs that change once they have been handed over. */
static void do_create_and_clobber(void)
{
	char *source = strdup(source_of(field(2))), *name = strdup("clobber.cu");
	char *header = strdup("#define VAL 1\n"), *header_name = strdup("h.h");
	char *const all[] = { source, name, header, header_name };

	int rc = ((create_fn)function("nvrtcCreateProgram"))(handle(fields[1]), source, name, 1,
							     (const char *const *)&header,
							     (const char *const *)&header_name);
	for (size_t i = 0; i < 4; i++) {
		memset(all[i], '#', strlen(all[i]));
		free(all[i]);
	}
	printf("%d", rc);
}

static char *decode(const char *text, void *payload)
{
	printf("(%.20s %d)", text[0] == '\n' ? "" : text, payload != NULL);
	return (char *)(uintptr_t)text;
}

/* cpex HANDLE SOURCE NAME KEYS [INCLUDE-NAME HEADER]: the undocumented way to create a program;
 * KEYS are 0, 2 (a callback that sees each text, and its payload) or 1 (an unknown key). */
static void do_cpex(void)
{
	int keys[] = { 1, 2 }, n = atoi(fields[4]);
	void *values[] = { (void *)decode, &library };
	const char *names[] = { field(5) }, *headers[] = { source_of(field(6)) };
	program p = &p;

	if (n == 1)
		keys[0] = 77;
	any_fn create = (any_fn)function("__nvrtcCPEx");
	int rc = create(&p, (void *)(uintptr_t)source_of(field(2)), (void *)(uintptr_t)field(3),
			(void *)(uintptr_t)(n_fields > 5), headers, names, (void *)(intptr_t)n,
			keys, values);
	print_handle(rc, &p, &p);
	*handle(fields[1]) = rc == 0 ? p : NULL;
}

static void do_compile(void)
{
	const char *options[MAX_FIELDS];
	int n = n_fields - 2;

	for (int i = 0; i < n; i++)
		options[i] = field(2 + i);
	printf("%d", ((compile_fn)function("nvrtcCompileProgram"))(*handle(fields[1]), n,
								   n > 0 ? options : NULL));
}

/* compilen HANDLE N [@none]: that count, whatever the array is. */
static void do_compilen(void)
{
	const char *options[] = { "-w", "-w", "-w", "-w" };

	printf("%d", ((compile_fn)function("nvrtcCompileProgram"))(
			     *handle(fields[1]), atoi(fields[2]), n_fields > 3 ? NULL : options));
}

static void do_add(void)
{
	printf("%d", ((any_fn)function("nvrtcAddNameExpression"))(
			     *handle(fields[1]), (void *)(uintptr_t)field(2), 0, 0, 0, 0, 0, 0, 0));
}

static void do_low(void)
{
	const char *before = "before", *lowered = before;

	printf("%d ", ((any_fn)function("nvrtcGetLoweredName"))(*handle(fields[1]),
								(void *)(uintptr_t)field(2),
								&lowered, 0, 0, 0, 0, 0, 0));
	printf("%s", lowered == before ? "untouched" : lowered == NULL ? "NULL" : lowered);
	if (lowered != before && lowered != NULL && n_kept < MAX_KEPT)
		kept[n_kept++] = lowered;
}

/* Lowered names live as long as their programs. */
static void do_reread(void)
{
	for (size_t i = 0; i < n_kept; i++)
		printf(" %s", kept[i]);
	n_kept = 0;
}

static void do_destroy(void)
{
	program *p = handle(fields[1]);
	int rc = ((any_fn)function("nvrtcDestroyProgram"))(p, 0, 0, 0, 0, 0, 0, 0, 0);

	printf("%d %s", rc, *p == NULL ? "NULL" : "set");
}

static int callback(void *payload, void *unused)
{
	(void)unused;
	callbacks++;
	return payload != NULL;
}

static void do_callback(void)
{
	callbacks = 0;
	printf("%d",
	       ((any_fn)function("nvrtcSetFlowCallback"))(
		       *handle(fields[1]), (void *)callback,
		       strcmp(fields[2], "1") == 0 ? (void *)&library : NULL, 0, 0, 0, 0, 0, 0));
}

static void do_called(void)
{
	printf("%s", callbacks > 0 ? "yes" : "no");
}

/* raw FUNCTION ARGUMENT...: @null, p:HANDLE, &HANDLE, s:TEXT, i:NUMBER, out (of 1 MB). */
static void do_raw(void)
{
	static char out[1 << 20];
	void *args[9] = { 0 };
	bool has_out = false;
	any_fn fn = (any_fn)function(fields[1]);

	if (fn == NULL) {
		printf("absent");
		return;
	}
	memset(out, 0x5a, sizeof(out));
	for (int i = 0; i < n_fields - 2 && i < 9; i++) {
		char *f = fields[2 + i];
		if (strncmp(f, "p:", 2) == 0)
			args[i] = *handle(f + 2);
		else if (f[0] == '&')
			args[i] = handle(f + 1);
		else if (strncmp(f, "s:", 2) == 0)
			args[i] = f + 2;
		else if (strncmp(f, "i:", 2) == 0)
			args[i] = (void *)(intptr_t)atoll(f + 2);
		else if (strcmp(f, "out") == 0)
			args[i] = out;
		has_out = has_out || strcmp(f, "out") == 0;
	}
	printf("%d",
	       fn(args[0], args[1], args[2], args[3], args[4], args[5], args[6], args[7], args[8]));
	size_t changed = sizeof(out);
	while (changed > 0 && out[changed - 1] == 0x5a)
		changed--;
	if (has_out)
		printf(" out %s", changed > 0 ? "changed" : "untouched");
}

/* ---- without a program ---- */

static void do_version(void)
{
	int major = -1, minor = -1, n = -1;
	int archs[256];

	printf("%d ", ((any_fn)function("nvrtcVersion"))(&major, &minor, 0, 0, 0, 0, 0, 0, 0));
	printf("%d.%d", major, minor);
	any_fn count = (any_fn)function("nvrtcGetNumSupportedArchs");
	any_fn get = (any_fn)function("nvrtcGetSupportedArchs");
	if (count == NULL || get == NULL)
		return;
	printf(" %d:", count(&n, 0, 0, 0, 0, 0, 0, 0, 0));
	printf("%d", n);
	memset(archs, 0xff, sizeof(archs));
	printf(" %d:", get(archs, 0, 0, 0, 0, 0, 0, 0, 0));
	for (int i = 0; i < 256 && archs[i] != -1; i++)
		printf(" %d", archs[i]);
}

static void do_errors(void)
{
	const char *(*text)(int) = (const char *(*)(int))function("nvrtcGetErrorString");

	for (int i = atoi(fields[1]); i <= atoi(fields[2]); i++)
		printf(" %d:%s", i, text(i));
}

static void do_heap(void)
{
	size_t bytes = poison;

	if (n_fields > 1)
		printf("%d ", ((any_fn)function("nvrtcSetPCHHeapSize"))(
				      (void *)(uintptr_t)strtoull(fields[1], NULL, 10), 0, 0, 0, 0,
				      0, 0, 0, 0));
	printf("%d:", ((any_fn)function("nvrtcGetPCHHeapSize"))(&bytes, 0, 0, 0, 0, 0, 0, 0, 0));
	printf("%zu", bytes);
}

/* bundled info, bundled install DIRECTORY, bundled remove DIRECTORY */
static void do_bundled(void)
{
	struct {
		int available;
		size_t compressed, uncompressed;
		int major, minor;
		unsigned files;
	} info = { 0 };
	const char *log = "unset";
	any_fn get = (any_fn)function("nvrtcGetBundledHeadersInfo");
	any_fn install = (any_fn)function("nvrtcInstallBundledHeaders");
	any_fn remove_them = (any_fn)function("nvrtcRemoveBundledHeaders");
	int rc;

	if (get == NULL || install == NULL || remove_them == NULL) {
		printf("absent");
		return;
	}
	void *path = (void *)(uintptr_t)field(2);
	if (strcmp(fields[1], "info") == 0)
		rc = get(&info, &log, 0, 0, 0, 0, 0, 0, 0);
	else if (strcmp(fields[1], "install") == 0)
		rc = install(path, 0, &log, 0, 0, 0, 0, 0, 0);
	else
		rc = remove_them(path, &log, 0, 0, 0, 0, 0, 0, 0);
	printf("%d %d %zu %zu %d.%d %u %s", rc, info.available, info.compressed, info.uncompressed,
	       info.major, info.minor, info.files, log != NULL ? log : "NULL");
}

static void do_handle(void)
{
	void *(*get)(unsigned) = (void *(*)(unsigned))function("__nvrtcNvvmHandle");

	if (get == NULL)
		printf("absent");
	else
		printf("%s %s", get(0x2080) != NULL ? "set" : "NULL",
		       get(0x1234567) != NULL ? "set" : "NULL");
}

/* ---- threads, forks, signals ---- */

struct worker {
	pthread_t thread;
	unsigned seed, rounds;
	uint64_t sum;
	int bad;
};

/* One of six programs: compile, and read what came of it. */
static uint64_t one_program(unsigned kind, int *ret_rc)
{
	char source[200], arch[32], expression[32];
	const char *options[] = { arch };
	const char *lowered = "";
	size_t bytes = 0;
	program p = NULL;
	uint64_t sum = 0;

	snprintf(source, sizeof(source),
		 "template<int N> __global__ void k(float *x) { x[threadIdx.x] += N + %u; }%s",
		 kind, kind == 5 ? " syntax error" : "");
	snprintf(arch, sizeof(arch), "-arch=%s", kind % 2 == 0 ? "sm_90" : "compute_90");
	snprintf(expression, sizeof(expression), "k<%u>", kind);
	int rc = ((create_fn)function("nvrtcCreateProgram"))(&p, source, "thread.cu", 0, NULL,
							     NULL);
	if (rc == 0)
		rc = ((any_fn)function("nvrtcAddNameExpression"))(p, expression, 0, 0, 0, 0, 0, 0,
								  0);
	if (rc == 0)
		rc = ((compile_fn)function("nvrtcCompileProgram"))(p, 1, options);
	for (int i = 0; i < 3; i++) {
		char name[64];
		snprintf(name, sizeof(name), "nvrtcGet%sSize", outputs[i]);
		if (((size_fn)function(name))(p, &bytes) != 0)
			rc += 100;
		char *data = malloc(bytes + 1);
		if (data == NULL)
			exit(3);
		*strrchr(name, 'S') = '\0';
		if (((data_fn)function(name))(p, data) != 0)
			rc += 1000;
		sum = sum * 31 + hash(data, bytes);
		free(data);
	}
	((any_fn)function("nvrtcGetLoweredName"))(p, expression, &lowered, 0, 0, 0, 0, 0, 0);
	if (lowered != NULL)
		sum = sum * 31 + hash(lowered, strlen(lowered));
	((any_fn)function("nvrtcDestroyProgram"))(&p, 0, 0, 0, 0, 0, 0, 0, 0);
	*ret_rc = rc;
	return sum;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t sums[6] = { 0 };
	int rc;

	for (unsigned i = 0; i < w->rounds; i++) {
		unsigned kind = (w->seed + i) % 6;
		uint64_t sum = one_program(kind, &rc);
		if (rc != (kind == 5 ? 6 : 0) || (sums[kind] != 0 && sums[kind] != sum))
			w->bad++;
		sums[kind] = sum;
	}
	for (int i = 0; i < 6; i++)
		w->sum = w->sum * 31 + sums[i];
	return NULL;
}

/* threads N ROUNDS */
static void do_threads(void)
{
	struct worker workers[64] = { 0 };
	int n = atoi(fields[1]), bad = 0;

	for (int i = 0; i < n; i++) {
		workers[i].seed = (unsigned)i;
		workers[i].rounds = (unsigned)atoi(fields[2]);
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
			exit(3);
	}
	for (int i = 0; i < n; i++) {
		pthread_join(workers[i].thread, NULL);
		bad += workers[i].bad + (workers[i].sum != workers[0].sum);
	}
	printf("%d bad %016llx", bad, (unsigned long long)workers[0].sum);
}

static void run_line(char *line);

/* fork COMMAND...: in a child; its line is printed there. */
static void do_fork(void)
{
	int status = 0;

	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		char line[4096] = "";
		for (int i = 1; i < n_fields; i++) {
			strcat(line, i > 1 ? "\t" : "");
			strcat(line, fields[i]);
		}
		alarm(120);
		run_line(line);
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, &status, 0);
	printf("child %d", status);
}

static void on_term(int number)
{
	(void)number;
	terms++;
}

static void *send_terms(void *arg)
{
	const _Atomic int *going = arg;

	while (*going) {
		kill(getpid(), SIGTERM);
		usleep(20000);
	}
	return NULL;
}

/* term HANDLE OPTION...: compile while SIGTERM comes again and again. */
static void do_term(void)
{
	struct sigaction mine = { .sa_handler = on_term, .sa_flags = SA_RESTART }, now;
	pthread_t sender;
	_Atomic int going = 1;

	sigaction(SIGTERM, &mine, NULL);
	if (pthread_create(&sender, NULL, send_terms, &going) != 0)
		exit(3);
	do_compile();
	going = 0;
	pthread_join(sender, NULL);
	sigaction(SIGTERM, NULL, &now);
	printf(" %s %s", terms > 1 ? "handled" : "lost",
	       now.sa_handler == on_term ? "kept" : "changed");
}

/* ---- the world around ---- */

static void do_write(void)
{
	FILE *file = fopen(fields[1], "w");

	if (file == NULL || fputs(source_of(fields[2]), file) < 0 || fclose(file) != 0)
		printf("%s", strerror(errno));
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void do_ls(void)
{
	struct dirent **list;
	int n = scandir(fields[1], &list, NULL, compare_names);

	for (int i = 0; i < n; i++)
		if (list[i]->d_name[0] != '.')
			printf(" %s", list[i]->d_name);
}

static int print_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	if (strstr(info->dlpi_name, "libnvrtc") != NULL)
		printf(" %s", info->dlpi_name);
	return 0;
}

/* Every libnvrtc of the process. */
static void do_loaded(void)
{
	dl_iterate_phdr(print_object, NULL);
}

static struct stat refiled[64];

/* refile N: close all files but the standard ones, and have N others instead. */
static void do_refile(void)
{
	char name[64];

	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	for (int i = 0; i < atoi(fields[1]); i++) {
		snprintf(name, sizeof(name), "file.%d", i);
		FILE *file = fopen(name, "w+");
		if (file == NULL || fstat(fileno(file), &refiled[i]) != 0 || fileno(file) != 3 + i)
			printf("%s ", strerror(errno));
	}
}

/* Whether they are open still, and empty. */
static void do_refiled(void)
{
	struct stat now;
	int n = 0;

	while (refiled[n].st_ino != 0 && fstat(3 + n, &now) == 0 &&
	       now.st_ino == refiled[n].st_ino && now.st_size == 0)
		n++;
	printf("%d as they were", n);
}

static void do_open(void)
{
	void *opened = dlopen(fields[1], RTLD_NOW | RTLD_GLOBAL);

	printf("%s", opened != NULL ? "opened" : dlerror());
	if (opened != NULL && n_fields > 2)
		library = opened;
}

static void do_chdir(void)
{
	printf("%d", chdir(fields[1]));
}

static void do_setenv(void)
{
	printf("%d", n_fields > 2 ? setenv(fields[1], fields[2], 1) : unsetenv(fields[1]));
}

static void do_source(void)
{
	if (n_sources == MAX_TEXTS)
		exit(4);
	sources[n_sources].name = strdup(fields[1]);
	sources[n_sources++].text = strdup(fields[2]);
}

static void do_case(void)
{
	n_kept = 0;
}

static const struct {
	const char *name;
	void (*run)(void);
} commands[] = {
	{ "case", do_case },	   { "source", do_source },
	{ "create", do_create },   { "createn", do_createn },
	{ "cpex", do_cpex },	   { "clobber", do_create_and_clobber },
	{ "compile", do_compile }, { "compilen", do_compilen },
	{ "add", do_add },	   { "low", do_low },
	{ "reread", do_reread },   { "dump", do_dump },
	{ "destroy", do_destroy }, { "callback", do_callback },
	{ "called", do_called },   { "raw", do_raw },
	{ "version", do_version }, { "errors", do_errors },
	{ "heap", do_heap },	   { "bundled", do_bundled },
	{ "handle", do_handle },   { "threads", do_threads },
	{ "fork", do_fork },	   { "term", do_term },
	{ "write", do_write },	   { "ls", do_ls },
	{ "loaded", do_loaded },   { "open", do_open },
	{ "chdir", do_chdir },	   { "refile", do_refile },
	{ "refiled", do_refiled }, { "setenv", do_setenv },
};

static void unescape(char *text)
{
	char *to = text;

	for (; *text != '\0'; text++) {
		if (*text == '\\' && text[1] != '\0') {
			text++;
			*to++ = *text == 'n' ? '\n' : *text == 't' ? '\t' : *text;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

static void run_line(char *line)
{
	n_fields = 0;
	for (char *rest = line; rest != NULL && n_fields < MAX_FIELDS;) {
		fields[n_fields] = strsep(&rest, "\t");
		unescape(fields[n_fields++]);
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, fields[0]) != 0)
			continue;
		for (int k = 0; k < n_fields; k++) {
			if (k > 0)
				putchar(' ');
			print_text(strcmp(fields[0], "source") == 0 && k == 2 ? "..." : fields[k]);
		}
		fputs(" -> ", stdout);
		fflush(stdout);
		commands[i].run();
		putchar('\n');
		fflush(stdout);
		return;
	}
	printf("unknown command %s\n", fields[0]);
	exit(4);
}

static char script[1 << 20];

static int read_script(const char *path)
{
	FILE *file = fopen(path, "re");

	if (file == NULL)
		return -1;
	size_t n = fread(script, 1, sizeof(script) - 1, file);
	fclose(file);
	return n > 0 && n < sizeof(script) - 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	library = argv[1][0] != '\0' ? dlopen(argv[1], RTLD_NOW) : RTLD_DEFAULT;
	if (library == NULL && argv[1][0] != '\0') {
		printf("%s\n", dlerror());
		return 1;
	}
	if (read_script(argv[2]) != 0)
		return 2;
	for (char *rest = script; rest != NULL && *rest != '\0';) {
		line_number++;
		run_line(strsep(&rest, "\n"));
	}
	return 0;
}
