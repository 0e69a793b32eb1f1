// SPDX-License-Identifier: Apache-2.0
/* A model that compiles: writes groups below DIR the way Triton does (files renamed into a
 * directory named by a key, then __grp__NAME.json that lists them), and ends as it is told.
 *
 *   model DIR COUNT [--bytes N] [--every MS] [--on-term exit|drain:SECONDS|ignore]
 *         [--then wait|crash|end] [--seed N] [--report FILE] [--serve PORT]
 *
 * COUNT groups are written at once, then one more each MS; `drain` goes on writing after SIGTERM.
 * What is there already isn't written again. With --serve it answers 200 to whatever it is asked by
 * HTTP, when all of COUNT is there.
 * FILE gets, as they happen, lines of "TIME EVENT N": N groups were whole at that time, or of `found`
 * were there before. */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *dir, *report, *on_term = "exit", *then = "wait";
static uint64_t seed = 1;
static size_t bytes = 20000;
static long every_ms;
static int listener = -1;
static unsigned long written;
static volatile sig_atomic_t termed;

static void on_signal(int sig)
{
	(void)sig;
	termed = 1;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void tell(const char *event)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "%.3f %s %lu\n", now(), event, written);
	int fd = open(report != NULL ? report : "/dev/stderr",
		      O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);

	if (fd < 0 || write(fd, line, (size_t)n) != n)
		perror("report");
	if (fd >= 0)
		close(fd);
}

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	return *x ^= *x << 17;
}

static void put(const char *group, const char *name, const void *data, size_t n)
{
	char from[512], to[512];

	/* Ranks in several containers may have one pid. */
	snprintf(from, sizeof(from), "%s/tmp.pid_%d_%.9f", group, (int)getpid(), now());
	snprintf(to, sizeof(to), "%s/%s", group, name);
	int fd = open(from, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, data, n) != (ssize_t)n || close(fd) != 0 || rename(from, to) != 0) {
		perror(to);
		exit(3);
	}
}

/* Reads what it finds, as a compiler does. */
static bool is_hit(const char *group)
{
	char path[512], byte;

	snprintf(path, sizeof(path), "%s/__grp__kernel.json", group);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool hit = fd >= 0 && read(fd, &byte, 1) == 1;
	if (fd >= 0)
		close(fd);
	return hit;
}

static void write_group(void)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
	static const char *const kinds[] = { "cubin", "ptx", "json" };
	uint64_t x = (seed << 32) + written + 0x9E3779B97F4A7C15u;
	char group[400], key[53], grp[1024];
	size_t at = 0;
	uint64_t *data = malloc(bytes + 8);

	if (data == NULL)
		exit(3);
	for (int i = 0; i < 8; i++)
		next(&x);
	for (int i = 0; i < 52; i++)
		key[i] = letters[next(&x) & 31];
	key[52] = '\0';
	snprintf(group, sizeof(group), "%s/%s", dir, key);
	if (mkdir(group, 0777) != 0 && errno != EEXIST) {
		perror(group);
		exit(3);
	}
	if (is_hit(group)) {
		free(data);
		written++;
		return;
	}
	at += (size_t)snprintf(grp, sizeof(grp), "{\"child_paths\": {");
	for (size_t k = 0; k < 3; k++) {
		char name[32];
		snprintf(name, sizeof(name), "kernel.%s", kinds[k]);
		for (size_t i = 0; i < bytes / 8 + 1; i++)
			data[i] = k == 0 ? next(&x) : 0x2020202020202020u;
		if (k == 0) {
			memcpy(data,
			       &(Elf64_Ehdr){ .e_ident = ELFMAG "\2\1\1",
					      .e_type = ET_EXEC,
					      .e_machine = EM_CUDA,
					      .e_version = EV_CURRENT,
					      .e_shoff = sizeof(Elf64_Ehdr),
					      .e_ehsize = sizeof(Elf64_Ehdr),
					      .e_shentsize = sizeof(Elf64_Shdr),
					      .e_shnum = 1 },
			       sizeof(Elf64_Ehdr));
			memset((char *)data + sizeof(Elf64_Ehdr), 0, sizeof(Elf64_Shdr));
		}
		if (k == 2)
			put(group, name, "{\"target\": {\"backend\": \"cuda\", \"arch\": 90}}", 44);
		else
			put(group, name, data, k == 0 ? bytes : bytes / 8);
		at += (size_t)snprintf(grp + at, sizeof(grp) - at, "%s\"%s\": \"%s/%s\"",
				       k == 0 ? "" : ", ", name, group, name);
	}
	at += (size_t)snprintf(grp + at, sizeof(grp) - at, "}}");
	put(group, "__grp__kernel.json", grp, at);
	free(data);
	written++;
}

static unsigned long count_groups(void)
{
	unsigned long n = 0;
	DIR *d = opendir(dir);

	for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
		n += strlen(e->d_name) == 52;
	if (d != NULL)
		closedir(d);
	return n;
}

static void serve(uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) != 0 ||
	    bind(listener, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listener, 16) != 0) {
		perror("serve");
		exit(3);
	}
}

static void answer(void)
{
	static const char text[] = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nREADY\n";
	char question[4096];
	int fd = accept(listener, NULL, NULL);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 1 },
		   sizeof(struct timeval));
	if (read(fd, question, sizeof(question)) > 0)
		(void)!write(fd, text, sizeof(text) - 1);
	close(fd);
}

/* Answers meanwhile. A signal ends it early. */
static void nap(long ms)
{
	double end = now() + (double)ms / 1000;
	struct pollfd listening = { .fd = listener, .events = POLLIN };

	for (double left; (left = end - now()) > 0;) {
		int n = poll(&listening, 1, (int)(left * 1000) + 1);
		if (n < 0)
			break;
		if (n > 0)
			answer();
	}
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	dir = argv[1];
	unsigned long count = strtoul(argv[2], NULL, 10), port = 0;
	for (int i = 3; i + 1 < argc; i += 2) {
		const char *name = argv[i], *value = argv[i + 1];
		if (strcmp(name, "--bytes") == 0)
			bytes = strtoul(value, NULL, 10);
		else if (strcmp(name, "--every") == 0)
			every_ms = strtol(value, NULL, 10);
		else if (strcmp(name, "--on-term") == 0)
			on_term = value;
		else if (strcmp(name, "--then") == 0)
			then = value;
		else if (strcmp(name, "--seed") == 0)
			seed = strtoul(value, NULL, 10);
		else if (strcmp(name, "--report") == 0)
			report = value;
		else if (strcmp(name, "--serve") == 0)
			port = strtoul(value, NULL, 10);
		else
			return 2;
	}
	umask(0);
	if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
		perror(dir);
		return 3;
	}
	struct sigaction action = { .sa_handler = on_signal };
	sigaction(SIGTERM, &action, NULL);
	written = count_groups();
	tell("found");
	written = 0;
	while (written < count)
		write_group();
	if (port > 0)
		serve((uint16_t)port);
	tell("ready");
	if (strcmp(then, "crash") == 0) {
		nap(1000);
		tell("crash");
		return 139;
	}

	double end = strcmp(then, "end") == 0 ? now() : 0;
	for (bool told = false;; nap(every_ms > 0 ? every_ms : 100)) {
		if (termed && !told) {
			told = true;
			tell("term");
			if (strcmp(on_term, "exit") == 0)
				break;
			if (strncmp(on_term, "drain:", 6) == 0)
				end = now() + strtod(on_term + 6, NULL);
		}
		if (end > 0 && now() >= end)
			break;
		if (every_ms > 0) {
			write_group();
			if (termed)
				tell("wrote");
		}
	}
	tell("end");
	return 0;
}
