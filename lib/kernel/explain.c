/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "lib/kernel/entry.h"

struct report {
	struct warm_buf *out;
	unsigned n;
};

static struct warm_buf *next(struct report *r)
{
	if (r->n++ > 0)
		warm_buf_printf(r->out, "; ");
	return r->out;
}

static bool same(struct warm_kernel_text a, struct warm_kernel_text b)
{
	return a.bytes == b.bytes && memcmp(a.data, b.data, a.bytes) == 0;
}

/* What both lists begin and end with is no difference: so one that was put in is one difference,
 * not as many as follow it. */
static void explain_list(struct report *r, const char *what, const struct warm_kernel_text *was,
			 size_t n_was, const struct warm_kernel_text *now, size_t n_now)
{
	size_t from = 0, tail = 0;

	while (from < n_was && from < n_now && same(was[from], now[from]))
		from++;
	while (n_was - tail > from && n_now - tail > from &&
	       same(was[n_was - tail - 1], now[n_now - tail - 1]))
		tail++;
	for (size_t i = from; i + tail < n_was || i + tail < n_now; i++) {
		bool old = i + tail < n_was, new = i + tail < n_now;
		if (old && new &&same(was[i], now[i]))
			continue;
		if (old && new)
			warm_buf_printf(next(r), "%s %zu: %s was %s", what, i + 1, now[i].data,
					was[i].data);
		else if (new)
			warm_buf_printf(next(r), "%s %zu: %s is new", what, i + 1, now[i].data);
		else
			warm_buf_printf(next(r), "%s %zu: %s is gone", what, i + 1, was[i].data);
	}
}

static void explain_digest(struct report *r, const char *what, uint64_t was_bytes,
			   struct warm_hash128 was, uint64_t now_bytes, struct warm_hash128 now)
{
	if (was_bytes != now_bytes)
		warm_buf_printf(next(r), "%s: %llu bytes were %llu", what,
				(unsigned long long)now_bytes, (unsigned long long)was_bytes);
	else if (was.low != now.low || was.high != now.high)
		warm_buf_printf(next(r), "%s: other contents of the same %llu bytes", what,
				(unsigned long long)now_bytes);
}

static void explain_compiler(struct report *r, struct warm_kernel_text was,
			     struct warm_kernel_text now)
{
	if (same(was, now))
		return;
	size_t one = strcspn(was.data, " "), other = strcspn(now.data, " ");
	if (one != other || memcmp(was.data, now.data, one) != 0)
		warm_buf_printf(next(r), "libnvrtc: %.*s was %.*s", (int)other, now.data, (int)one,
				was.data);
	if (strcmp(was.data + one, now.data + other) != 0)
		warm_buf_printf(next(r), "libnvrtc-builtins: %s was %s",
				now.data + other + strspn(now.data + other, " "),
				was.data + one + strspn(was.data + one, " "));
}

/* "A=1\nB=2\n" by line. */
static void explain_environment(struct report *r, const char *word, struct warm_kernel_text has,
				struct warm_kernel_text lacks)
{
	for (const char *line = has.data; *line != '\0';) {
		size_t n = strcspn(line, "\n");
		bool found = false;
		for (const char *p = lacks.data; !found && *p != '\0';) {
			size_t m = strcspn(p, "\n");
			found = m == n && memcmp(p, line, n) == 0;
			p += m + (p[m] == '\n');
		}
		if (!found)
			warm_buf_printf(next(r), "environment: %.*s is %s", (int)n, line, word);
		line += n + (line[n] == '\n');
	}
}

unsigned warm_kernel_inputs_explain(const struct warm_kernel_inputs *was,
				    const struct warm_kernel_inputs *now, struct warm_buf *out)
{
	struct report r = { out, 0 };

	explain_compiler(&r, was->compiler, now->compiler);
	explain_environment(&r, "new", now->environment, was->environment);
	explain_environment(&r, "gone", was->environment, now->environment);
	if (!same(was->name, now->name))
		warm_buf_printf(next(&r), "name: %s was %s", now->name.data, was->name.data);
	explain_list(&r, "option", was->options, was->n_options, now->options, now->n_options);
	explain_list(&r, "name expression", was->expressions, was->n_expressions, now->expressions,
		     now->n_expressions);
	explain_digest(&r, "source", was->source_bytes, was->source_digest, now->source_bytes,
		       now->source_digest);
	if (was->n_headers != now->n_headers)
		warm_buf_printf(next(&r), "headers in memory: %u were %u", now->n_headers,
				was->n_headers);
	else
		explain_digest(&r, "headers in memory", was->headers_bytes, was->headers_digest,
			       now->headers_bytes, now->headers_digest);
	return r.n;
}
