/* SPDX-License-Identifier: Apache-2.0 */
#include "compiler/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/base/file.h"
#include "lib/base/log.h"

/* The last program of so many names is remembered. */
enum { NAMES = 256 };

struct last {
	struct warm_buf data;
	struct warm_kernel_inputs inputs; /* views into it */
};

struct warm_journal {
	int fd;
	struct warm_fd_id id;
	pthread_mutex_t lock;
	struct last last[NAMES]; /* by the name's hash; a newer name takes an older one's place */
};

struct warm_journal *warm_journal_open(const char *where)
{
	if (where == NULL || where[0] == '\0')
		return NULL;
	struct warm_journal *j = calloc(1, sizeof(*j));
	if (j == NULL)
		return NULL;
	j->fd = strcmp(where, "stderr") == 0
			? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
			: warm_fd_move_up(open(where,
					       O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC |
						       O_NOCTTY | O_NONBLOCK,
					       0666));
	j->id = warm_fd_id(j->fd);
	pthread_mutex_init(&j->lock, NULL);
	if (j->fd < 0) {
		warm_journal_close(j);
		return NULL;
	}
	return j;
}

void warm_journal_close(struct warm_journal *j)
{
	if (j == NULL)
		return;
	for (size_t i = 0; i < NAMES; i++) {
		warm_kernel_inputs_release(&j->last[i].inputs);
		warm_buf_release(&j->last[i].data);
	}
	if (warm_fd_is(j->fd, j->id))
		close(j->fd);
	pthread_mutex_destroy(&j->lock);
	free(j);
}

void warm_journal_fork(struct warm_journal *j, enum warm_fork phase)
{
	if (j == NULL)
		return;
	if (phase == WARM_FORK_PREPARE)
		pthread_mutex_lock(&j->lock);
	else
		pthread_mutex_unlock(&j->lock);
}

/* Under the lock: what differs from the last program of the name, which this one then is. */
static void compare_with_last(struct warm_journal *j, const struct warm_kernel_inputs *in,
			      struct warm_buf *ret_differs)
{
	struct last *last = &j->last[warm_hash64(in->name.data, in->name.bytes) % NAMES];
	struct warm_buf data = WARM_BUF_INIT;
	struct warm_kernel_inputs copy;

	if (last->data.bytes > 0 && last->inputs.name.bytes == in->name.bytes &&
	    memcmp(last->inputs.name.data, in->name.data, in->name.bytes) == 0)
		(void)warm_kernel_inputs_explain(&last->inputs, in, ret_differs);
	warm_kernel_put_inputs(&data, in);
	struct warm_reader r = warm_reader_of(data.data, data.bytes);
	if (data.failed || warm_kernel_take_inputs(&r, &copy) != 0) {
		warm_buf_release(&data);
		return;
	}
	warm_kernel_inputs_release(&last->inputs);
	warm_buf_release(&last->data);
	last->data = data;
	last->inputs = copy;
}

static void put_string(struct warm_buf *line, const char *key, const char *text)
{
	size_t bytes = 6 * strlen(text) + 1;
	scope_free char *escaped = malloc(bytes);

	if (escaped == NULL) {
		line->failed = true;
		return;
	}
	warm_json_escape(text, escaped, bytes);
	if (key != NULL)
		warm_buf_printf(line, ",\"%s\":", key);
	warm_buf_printf(line, "\"%s\"", escaped);
}

static void put_list(struct warm_buf *line, const char *key, const struct warm_kernel_text *texts,
		     size_t n)
{
	warm_buf_printf(line, ",\"%s\":[", key);
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			warm_buf_printf(line, ",");
		put_string(line, NULL, texts[i].data);
	}
	warm_buf_printf(line, "]");
}

static void put_inputs(struct warm_buf *line, const struct warm_kernel_inputs *in)
{
	char digest[33];

	put_string(line, "compiler", in->compiler.data);
	put_string(line, "environment", in->environment.data);
	put_list(line, "options", in->options, in->n_options);
	put_list(line, "name_expressions", in->expressions, in->n_expressions);
	warm_hash128_hex(in->source_digest, digest);
	warm_buf_printf(line, ",\"source_bytes\":%llu,\"source_digest\":\"%s\"",
			(unsigned long long)in->source_bytes, digest);
	warm_hash128_hex(in->headers_digest, digest);
	warm_buf_printf(line, ",\"headers\":%u,\"headers_bytes\":%llu,\"headers_digest\":\"%s\"",
			in->n_headers, (unsigned long long)in->headers_bytes, digest);
}

/* Where nobody reads any more, the host is not to get a SIGPIPE of ours. */
static void write_line(int fd, const struct warm_buf *line)
{
	const struct timespec now = { 0, 0 };
	sigset_t pipe, before, pending;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	if (write(fd, line->data, line->bytes) < 0 && errno == EPIPE &&
	    !sigismember(&pending, SIGPIPE))
		(void)sigtimedwait(&pipe, NULL, &now);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void warm_journal_write(struct warm_journal *j, const struct warm_journal_event *e)
{
	scope_buf struct warm_buf line = WARM_BUF_INIT, differs = WARM_BUF_INIT;
	char when[40], fingerprint[33];
	struct timespec now;
	struct tm tm;
	bool hit = strcmp(e->event, "hit") == 0 || strcmp(e->event, "wait") == 0;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	warm_hash128_hex(e->fingerprint, fingerprint);
	warm_buf_printf(&line, "{\"time\":\"%s.%03ldZ\",\"pid\":%ld,\"event\":\"%s\"", when,
			now.tv_nsec / 1000000, (long)getpid(), e->event);
	put_string(&line, "name", e->inputs->name.data);
	warm_buf_printf(&line, ",\"fingerprint\":\"%s\",\"us\":%lld,\"bytes\":%zu", fingerprint,
			(long long)(e->duration_ns / 1000), e->bytes);
	if (e->reason != NULL && e->reason[0] != '\0')
		put_string(&line, "reason", e->reason);
	if (e->dependency != NULL && e->dependency[0] != '\0')
		put_string(&line, "dependency", e->dependency);
	pthread_mutex_lock(&j->lock);
	compare_with_last(j, e->inputs, &differs);
	pthread_mutex_unlock(&j->lock);
	if (!hit) {
		if (differs.bytes > 0) {
			warm_buf_put_u8(&differs, 0);
			put_string(&line, "differs", (char *)differs.data);
		}
		put_inputs(&line, e->inputs);
	}
	warm_buf_printf(&line, "}\n");
	if (!line.failed && warm_fd_is(j->fd, j->id))
		write_line(j->fd, &line);
}
