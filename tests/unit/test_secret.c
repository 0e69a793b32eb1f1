/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/secret.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/scratch.h"

TEST(values_that_look_like_secrets_are_found)
{
	static const struct {
		const char *json;
		const char *name; /* NULL: none */
	} rows[] = {
		{ "{}", NULL },
		{ "{\"env\": {\"VLLM_API_KEY\": \"sk-1\"}}", "VLLM_API_KEY" },
		{ "{\"env\": {\"HF_TOKEN\": \"hf_1\"}}", "HF_TOKEN" },
		{ "{\"env\": [{\"a\": [{\"AWS_SECRET_ACCESS\": \"x\"}]}]}", "AWS_SECRET_ACCESS" },
		{ "{\"DB_PASSWORD\": \"x\"}", "DB_PASSWORD" },
		{ "{\"TOKEN\": \"x\"}", "TOKEN" },
		{ "{\"VLLM_API_KEY\": \"\"}", NULL },
		{ "{\"VLLM_API_KEY\": null}", NULL },
		{ "{\"TOKENIZERS_PARALLELISM\": \"false\"}", NULL },
		{ "{\"VLLM_KEYBOARD\": \"x\", \"MONKEY\": \"x\"}", NULL },
		{ "{\"config_hash\": \"0123\"}", NULL },
		{ "{\"cut\": ", "(unreadable)" },
		{ "", "(unreadable)" },
	};
	struct scratch s = scratch_open();

	for (size_t i = 0; i < COUNT(rows); i++) {
		char name[80] = "";
		put_text(s.fd, "d/cache_key_factors.json", rows[i].json);
		bool found = warm_secret_find(s.fd, "d/cache_key_factors.json", name, sizeof(name));
		if (found != (rows[i].name != NULL) || (found && strcmp(name, rows[i].name) != 0))
			fail_msg("%s: found '%s'", rows[i].json, found ? name : "none");
		/* Other files are no list of an environment. */
		put_text(s.fd, "d/other.json", rows[i].json);
		assert_false(warm_secret_find(s.fd, "d/other.json", name, sizeof(name)));
	}
	scratch_close(&s);
}

TEST(a_list_of_secrets_is_a_secret)
{
	struct scratch s = scratch_open();
	char name[80] = "";

	put_text(s.fd, "cache_key_factors.json", "{\"VLLM_API_KEYS\": [\"sk-1\", \"sk-2\"]}");
	bool found = warm_secret_find(s.fd, "cache_key_factors.json", name, sizeof(name));
	scratch_close(&s);
	assert_true(found);
}

/* Made of two halves, so that no file of ours holds what it looks for. */
TEST(tokens_are_known_by_their_form)
{
	static const struct {
		const char *head, *tail;
		bool found;
	} rows[] = {
		{ "key = AKI", "A0123456789ABCDEF", true },
		{ "key = AKI", "A0123456789ABCDEF0", false },
		{ "key = AKI", "A0123456789abcdef", false },
		{ "xAKI", "A0123456789ABCDEF", false },
		{ "'gh", "p_0123456789abcdefghij0123456789abcdefgh'", true },
		{ "'gh", "p_short'", false },
		{ "github", "_pat_0123456789abcdefghij0123", true },
		{ "glpa", "t-0123456789abcdefghij", true },
		{ "h", "f_abcdefghijklmnopqrstuvwxyzABCDEFGH", true },
		{ "h", "f_hub_download(repo_id, revision)", false },
		{ "xox", "b-123456789012-abcdefghijkl", true },
		{ "sk", "-proj-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", true },
		{ "sk", "-learn-compatible-estimators-of-many-kinds", false },
		{ "AI", "zaSyA0123456789abcdefghijABCDEFGHIJKL", true },
		{ "nv", "api-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdef", true },
		{ "ey", "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
		  true },
		{ "ey", "JhbGciOiJIUzI1NiJ9.rest", false },
		{ "-----BEG", "IN RSA PRIVATE KEY-----\n", true },
		{ "-----BEG", "IN CERTIFICATE-----\n", false },
		{ "postgres://user:", "hunter2@db/x", true },
		{ "https://user:", "{password}@db/x", false },
		{ "https://host:", "8080/a@b", false },
		{ "https://example.com/", "a:b@c", false },
		{ "0123456789abcdef", "0123456789abcdef01234567", false },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		char text[200];
		snprintf(text, sizeof(text), "%s%s", rows[i].head, rows[i].tail);
		const char *what = warm_secret_in(text, strlen(text));
		if ((what != NULL) != rows[i].found)
			fail_msg("%s%s: %s", rows[i].head, rows[i].tail,
				 what != NULL ? what : "nothing found");
	}
}

TEST(a_token_is_found_wherever_in_a_text_file_and_in_no_other)
{
	static const size_t places[] = { 0, 100, 262000, 262144 - 10, 262144, 600000 };
	struct scratch s = scratch_open();
	char *text = malloc(700000), what[80];

	for (size_t i = 0; i < COUNT(places); i++) {
		memset(text, ' ', 700000);
		memcpy(text + places[i], "AKI", 3);
		memcpy(text + places[i] + 3, "A0123456789ABCDEF", 17);
		text[699999] = '\0';
		put_text(s.fd, "a.py", text);
		assert_true(warm_secret_find(s.fd, "a.py", what, sizeof(what)));
		assert_string_equal(what, "an AWS access key");
		put_text(s.fd, "a.ptx", text);
		assert_false(warm_secret_find(s.fd, "a.ptx", what, sizeof(what)));
	}
	static const char binary[] = "\0\0AKI"
				     "A0123456789ABCDEF";
	scope_close int fd = openat(s.fd, "b.py", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	assert_int_equal(write(fd, binary, sizeof(binary)), sizeof(binary));
	assert_false(warm_secret_find(s.fd, "b.py", what, sizeof(what)));
	free(text);
	scratch_close(&s);
}

/* Every form: its prefix in two halves, what it is called, how much has to follow. */
static const struct form {
	const char *head, *tail;
	const char *what;
	const char *fill; /* of these bytes, again and again */
	size_t least;
	bool exact, mixed;
} forms[] = {
	{ "AK", "IA", "an AWS access key", "Q7", 16, true, false },
	{ "AS", "IA", "an AWS access key", "Q7", 16, true, false },
	{ "AI", "za", "a Google API key", "aB3_-", 35, true, true },
	{ "gh", "p_", "a GitHub token", "aB3", 36, false, false },
	{ "gh", "o_", "a GitHub token", "aB3", 36, false, false },
	{ "gh", "u_", "a GitHub token", "aB3", 36, false, false },
	{ "gh", "s_", "a GitHub token", "aB3", 36, false, false },
	{ "gh", "r_", "a GitHub token", "aB3", 36, false, false },
	{ "github", "_pat_", "a GitHub token", "aB3_", 22, false, false },
	{ "glp", "at-", "a GitLab token", "aB3_-", 20, false, false },
	{ "h", "f_", "a Hugging Face token", "aBc", 30, false, false },
	{ "xox", "b-", "a Slack token", "1-a", 20, false, false },
	{ "xox", "p-", "a Slack token", "1-a", 20, false, false },
	{ "xox", "a-", "a Slack token", "1-a", 20, false, false },
	{ "xox", "s-", "a Slack token", "1-a", 20, false, false },
	{ "s", "k-", "an OpenAI key", "aB3_-", 32, false, true },
	{ "nv", "api-", "an NVIDIA key", "aB3_-", 40, false, true },
};

/* `before`, the prefix, `n` bytes that follow it, `after`. */
static const char *found_in(const struct form *f, const char *before, size_t n, const char *fill,
			    const char *after)
{
	char text[400];
	int at = snprintf(text, sizeof(text), "%s%s%s", before, f->head, f->tail);

	for (size_t i = 0; i < n; i++)
		text[at++] = fill[i % strlen(fill)];
	snprintf(text + at, sizeof(text) - (size_t)at, "%s", after);
	/* In a block of its own size, so that a read behind it is seen. */
	size_t bytes = strlen(text);
	char *copy = malloc(bytes + 1);
	assert_non_null(copy);
	memcpy(copy, text, bytes);
	const char *what = warm_secret_in(copy, bytes);
	free(copy);
	return what;
}

TEST(every_form_is_found_from_its_least_length_on)
{
	for (size_t i = 0; i < COUNT(forms); i++) {
		const struct form *f = &forms[i];
		const char *what = found_in(f, "", f->least, f->fill, "");
		if (what == NULL || strcmp(what, f->what) != 0)
			fail_msg("%s%s: %s", f->head, f->tail, what != NULL ? what : "nothing");
		if (found_in(f, "", f->least - 1, f->fill, "") != NULL ||
		    found_in(f, "", f->least - 1, f->fill, " ") != NULL ||
		    found_in(f, "", 0, f->fill, "") != NULL)
			fail_msg("%s%s is found when it is too short", f->head, f->tail);
		if ((found_in(f, "", f->least + 1, f->fill, "\n") == NULL) != f->exact)
			fail_msg("%s%s with one more", f->head, f->tail);
	}
}

TEST(a_form_is_found_beside_punctuation_and_not_in_a_word)
{
	static const char *const ends[] = { " ", "\n", "\"", "'", ";", "=", "/", "\t", ":" };

	for (size_t i = 0; i < COUNT(forms); i++) {
		const struct form *f = &forms[i];
		for (size_t k = 0; k < COUNT(ends); k++)
			if (found_in(f, ends[k], f->least, f->fill, ends[k]) == NULL)
				fail_msg("%s%s beside '%s'", f->head, f->tail, ends[k]);
		if (found_in(f, "x", f->least, f->fill, "") != NULL ||
		    found_in(f, "_", f->least, f->fill, "") != NULL ||
		    found_in(f, "7", f->least, f->fill, "") != NULL)
			fail_msg("%s%s within a word", f->head, f->tail);
	}
}

TEST(forms_that_words_may_have_need_a_digit_and_a_capital)
{
	for (size_t i = 0; i < COUNT(forms); i++) {
		const struct form *f = &forms[i];
		if (!f->mixed)
			continue;
		assert_null(found_in(f, "", f->least, "abc-", ""));
		assert_null(found_in(f, "", f->least, "abc-1", ""));
		assert_null(found_in(f, "", f->least, "Abc-", ""));
		assert_non_null(found_in(f, "", f->least, "Abc-1", ""));
	}
}

TEST(private_keys_of_all_kinds_are_found)
{
	static const struct {
		const char *tail;
		bool found;
	} rows[] = {
		{ " PRIVATE KEY-----", true },
		{ " RSA PRIVATE KEY-----", true },
		{ " EC PRIVATE KEY-----", true },
		{ " OPENSSH PRIVATE KEY-----", true },
		{ " ENCRYPTED PRIVATE KEY-----", true },
		{ " PUBLIC KEY-----", false },
		{ " CERTIFICATE-----", false },
		{ " PRIVATE", false },
		{ "", false },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		char text[100];
		snprintf(text, sizeof(text), "x = '%s%s%s", "-----BEG", "IN", rows[i].tail);
		const char *what = warm_secret_in(text, strlen(text));
		if ((what != NULL) != rows[i].found)
			fail_msg("'%s': %s", rows[i].tail, what != NULL ? what : "nothing");
		if (what != NULL)
			assert_string_equal(what, "a private key");
	}
}

TEST(urls_with_passwords_are_found_and_placeholders_are_not)
{
	static const struct {
		const char *scheme, *rest;
		bool found;
	} rows[] = {
		{ "postgres:/", "/user:hunter2@db", true },
		{ "redis:/", "/u:p@h:6379/0", true },
		{ "https:/", "/user:pass:word@host", true },
		{ "https:/", "/oauth2:t0ken@host/x.git", true },
		{ "https:/", "/user:{password}@host", false },
		{ "https:/", "/user:$PASSWORD@host", false },
		{ "https:/", "/user:***@host", false },
		{ "https:/", "/user:%s@host", false },
		{ "https:/", "/user:xxxxx@host", false },
		{ "https:/", "/user:<password>@host", false },
		{ "https:/", "/user:@host", false },
		{ "redis:/", "/:password@host", true },
		{ "https:/", "/user:%(password)s@host", false },
		{ "https:/", "/user@host", false },
		{ "https:/", "/host:8080/path@v1", false },
		{ "https:/", "/host:8080?a@b", false },
		{ "https:/", "/host:8080#a@b", false },
		{ "https:/", "/host:8080 mail me@x", false },
		{ "'https:/", "/host:8080', 'me@x'", false },
		{ "https:/", "/user:password", false },
		{ "https:/", "/", false },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		char text[100];
		snprintf(text, sizeof(text), "%s%s", rows[i].scheme, rows[i].rest);
		if ((warm_secret_in(text, strlen(text)) != NULL) != rows[i].found)
			fail_msg("%s%s: %s", rows[i].scheme, rows[i].rest,
				 rows[i].found ? "nothing" : "found");
	}
}

TEST(names_are_taken_by_their_words)
{
	static const struct {
		const char *name;
		bool secret;
	} rows[] = {
		{ "KEY", true },
		{ "API_KEY", true },
		{ "KEYS_OF_A", true },
		{ "A_TOKENS", true },
		{ "A_SECRET_B", true },
		{ "SECRETS", true },
		{ "DB_PASSWORD", true },
		{ "PASSWD", true },
		{ "A_CREDENTIAL", true },
		{ "X_CREDENTIALS", true },
		{ "_KEY", true },
		{ "KEY_", true },
		{ "A__TOKEN", true },
		{ "", false },
		{ "_", false },
		{ "TOKENIZER", false },
		{ "MONKEY", false },
		{ "KEYED", false },
		{ "TOKENIZERS_MODE", false },
		{ "SECRETARY", false },
		{ "CACHE_KE", false },
		{ "PASSWORDLESS", false },
		{ "APIKEY", true },
		{ "VLLM_APIKEY", true },
		{ "PASSPHRASE", true },
		{ "SSH_PASSPHRASE_FILE", true },
		{ "AUTHTOKEN", true },
		{ "NGROK_AUTHTOKEN", true },
		{ "PGPASSWORD", true },
		{ "APIKEYS", false },
		{ "MYPASSWORD", false },
		{ "PASSPHRASES", false },
	};

	for (size_t i = 0; i < COUNT(rows); i++)
		if (warm_secret_name(rows[i].name) != rows[i].secret)
			fail_msg("%s", rows[i].name);
}

/* ---- files ---- */

#define TOKEN_HEAD "AK"
#define TOKEN_TAIL "IA0123456789ABCDEF"

static bool looks(const struct scratch *s, const char *path, char what[80])
{
	memset(what, 0, 80);
	return warm_secret_find(s->fd, path, what, 80);
}

static void put_token(const struct scratch *s, const char *path)
{
	put_text(s->fd, path, "key = '" TOKEN_HEAD TOKEN_TAIL "'\n");
}

/* Into `text`, which is all dots else. */
static void place_token(char *text, size_t bytes, size_t at)
{
	memset(text, '.', bytes);
	memcpy(text + at, TOKEN_HEAD, sizeof(TOKEN_HEAD) - 1);
	memcpy(text + at + sizeof(TOKEN_HEAD) - 1, TOKEN_TAIL, sizeof(TOKEN_TAIL) - 1);
}

TEST(a_token_is_found_at_every_place_around_the_end_of_a_piece)
{
	enum { PIECE = 256 << 10, BYTES = PIECE + 300 };
	static const size_t ends[] = { PIECE, PIECE - 4096 };
	scope_scratch struct scratch s = scratch_open();
	char *text = malloc(BYTES), what[80];

	assert_non_null(text);
	for (size_t e = 0; e < COUNT(ends); e++)
		for (size_t at = ends[e] - 25; at < ends[e] + 5; at++) {
			place_token(text, BYTES, at);
			put_file(s.fd, "a.py", text, BYTES, 0644, 0);
			if (!looks(&s, "a.py", what))
				fail_msg("not found at %zu", at);
		}
	free(text);
}

TEST(only_the_first_four_mebibytes_are_looked_at)
{
	enum { MOST = 4 << 20, BYTES = MOST + (1 << 20) };
	scope_scratch struct scratch s = scratch_open();
	char *text = malloc(BYTES), what[80];

	assert_non_null(text);
	place_token(text, BYTES, MOST - 100);
	put_file(s.fd, "a.txt", text, BYTES, 0644, 0);
	assert_true(looks(&s, "a.txt", what));
	place_token(text, BYTES, MOST + (512 << 10));
	put_file(s.fd, "a.txt", text, BYTES, 0644, 0);
	assert_false(looks(&s, "a.txt", what));
	free(text);
}

TEST(what_compilers_made_is_not_looked_at)
{
	static const struct {
		const char *name;
		bool found;
	} rows[] = {
		{ "k.ptx", false }, { "k.ttir", false },  { "k.ttgir", false }, { "k.llir", false },
		{ "k.o", false },   { "k.cubin", false }, { "k.so", false },	{ "k.sass", false },
		{ "k.py", true },   { "k.cpp", true },	  { "k.cu", true },	{ "k.json", true },
		{ "k", true },	    { "k.ptx.py", true }, { "so", true },	{ ".env", true },
		{ "d.so/k", true },
	};
	scope_scratch struct scratch s = scratch_open();
	char what[80];

	for (size_t i = 0; i < COUNT(rows); i++) {
		put_token(&s, rows[i].name);
		if (looks(&s, rows[i].name, what) != rows[i].found)
			fail_msg("%s", rows[i].name);
		assert_int_equal(unlinkat(s.fd, rows[i].name, 0), 0);
	}
}

TEST(a_zero_near_the_start_makes_no_text_and_one_further_down_does)
{
	scope_scratch struct scratch s = scratch_open();
	char text[8000], what[80];

	place_token(text, sizeof(text), 6000);
	text[5000] = '\0';
	put_file(s.fd, "a", text, sizeof(text), 0644, 0);
	assert_true(looks(&s, "a", what));
	text[4095] = '\0';
	put_file(s.fd, "a", text, sizeof(text), 0644, 0);
	assert_false(looks(&s, "a", what));
	put_file(s.fd, "a", "", 0, 0644, 0);
	assert_false(looks(&s, "a", what));
}

TEST(what_is_no_file_holds_no_secret_and_stops_nobody)
{
	scope_scratch struct scratch s = scratch_open();
	char what[80];

	put_token(&s, "real");
	assert_int_equal(symlinkat("real", s.fd, "link"), 0);
	assert_int_equal(mkfifoat(s.fd, "fifo", 0600), 0);
	put_dir(s.fd, "dir");
	assert_false(looks(&s, "link", what));
	assert_false(looks(&s, "fifo", what));
	assert_false(looks(&s, "dir", what));
	assert_false(looks(&s, "none", what));
	assert_false(looks(&s, "none/none", what));
}

TEST(an_environment_that_can_not_be_read_can_not_be_cleared)
{
	enum { MOST = 1 << 20 };
	scope_scratch struct scratch s = scratch_open();
	char what[80];

	assert_true(looks(&s, "cache_key_factors.json", what)); /* not there */
	assert_string_equal(what, "(unreadable)");
	put_text(s.fd, "real.json", "{}");
	assert_int_equal(symlinkat("real.json", s.fd, "cache_key_factors.json"), 0);
	assert_true(looks(&s, "cache_key_factors.json", what));
	assert_string_equal(what, "(unreadable)");
	assert_int_equal(mkfifoat(s.fd, "fifo", 0600), 0);
	assert_int_equal(renameat(s.fd, "fifo", s.fd, "cache_key_factors.json"), 0);
	assert_true(looks(&s, "cache_key_factors.json", what));
	put_dir(s.fd, "d/cache_key_factors.json");
	assert_true(looks(&s, "d/cache_key_factors.json", what));
	/* Deeper than any reader takes, and longer. */
	char *text = malloc(MOST + 1);
	assert_non_null(text);
	memset(text, '[', 100000);
	put_file(s.fd, "e/cache_key_factors.json", text, 100000, 0644, 0);
	assert_true(looks(&s, "e/cache_key_factors.json", what));
	assert_string_equal(what, "(unreadable)");
	memset(text, ' ', MOST + 1);
	memcpy(text, "{}", 2);
	put_file(s.fd, "e/cache_key_factors.json", text, MOST + 1, 0644, 0);
	assert_true(looks(&s, "e/cache_key_factors.json", what));
	assert_string_equal(what, "(unreadable)");
	put_file(s.fd, "e/cache_key_factors.json", text, MOST, 0644, 0);
	assert_false(looks(&s, "e/cache_key_factors.json", what));
	free(text);
}

TEST(a_file_closed_to_us_is_no_find_and_an_environment_is)
{
	if (geteuid() != 0) {
		print_message("# note: not root\n");
		return;
	}
	scope_scratch struct scratch s = scratch_open();
	int status = 0;

	put_token(&s, "a.py");
	put_text(s.fd, "cache_key_factors.json", "{}");
	assert_int_equal(fchmodat(s.fd, "a.py", 0, 0), 0);
	assert_int_equal(fchmodat(s.fd, "cache_key_factors.json", 0, 0), 0);
	pid_t child = fork();
	if (child == 0) {
		char what[80];
		bool ok = setuid(65534) == 0 && !looks(&s, "a.py", what) &&
			  looks(&s, "cache_key_factors.json", what);
		_exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

TEST(a_value_of_a_known_form_is_found_in_an_environment_under_any_name)
{
	scope_scratch struct scratch s = scratch_open();
	char what[80];

	put_text(s.fd, "cache_key_factors.json",
		 "{\"env\": {\"VLLM_HOST\": \"" TOKEN_HEAD TOKEN_TAIL "\"}}");
	assert_true(looks(&s, "cache_key_factors.json", what));
	assert_string_equal(what, "an AWS access key");
	/* The name goes before the form, and the value is never told. */
	put_text(s.fd, "cache_key_factors.json",
		 "{\"env\": {\"VLLM_API_KEY\": \"" TOKEN_HEAD TOKEN_TAIL "\"}}");
	assert_true(looks(&s, "cache_key_factors.json", what));
	assert_string_equal(what, "VLLM_API_KEY");
	put_text(s.fd, "cache_key_factors.json", "\"text\"");
	assert_false(looks(&s, "cache_key_factors.json", what));
	put_text(s.fd, "cache_key_factors.json", "{\"A_KEY\": [[], {}, [\"\", null, 1, true]]}");
	assert_false(looks(&s, "cache_key_factors.json", what));
	put_text(s.fd, "cache_key_factors.json", "{\"A_KEY\": [[], {\"b\": [\"x\"]}]}");
	assert_true(looks(&s, "cache_key_factors.json", what));
}

TEST(a_name_that_is_too_long_is_cut)
{
	scope_scratch struct scratch s = scratch_open();
	char json[400], name[300], what[8];

	memset(name, 'A', sizeof(name));
	memcpy(name + sizeof(name) - 5, "_KEY", 5);
	snprintf(json, sizeof(json), "{\"%s\": \"x\"}", name);
	put_text(s.fd, "cache_key_factors.json", json);
	assert_true(warm_secret_find(s.fd, "cache_key_factors.json", what, sizeof(what)));
	assert_string_equal(what, "AAAAAAA");
}

TEST(looking_is_no_use_of_the_file)
{
	static const char *const paths[] = { "a.py", "cache_key_factors.json" };
	scope_scratch struct scratch s = scratch_open();
	char what[80];

	for (size_t i = 0; i < COUNT(paths); i++) {
		put_text(s.fd, paths[i], "{}");
		set_times(s.fd, paths[i], 1000000000, 1500000000000000000);
		assert_false(looks(&s, paths[i], what));
		assert_int_equal(warm_timespec_ns(stat_of(s.fd, paths[i]).st_atim), 1000000000);
	}
}

TEST(noise_holds_no_secret)
{
	enum { BYTES = 1 << 20 };

	for (uint64_t seed = 0; seed < 5; seed++) {
		uint8_t *data = noise(seed, BYTES);
		const char *of_bytes = warm_secret_in((char *)data, BYTES);
		for (size_t i = 0; i < BYTES; i++)
			data[i] = (uint8_t)('a' + data[i] % 26);
		const char *of_letters = warm_secret_in((char *)data, BYTES);
		free(data);
		assert_null(of_bytes);
		assert_null(of_letters);
	}
	assert_null(warm_secret_in("", 0));
}

/* A piece begins with the end of the one before: what stands there may be the middle of a word. */
TEST(a_word_that_a_piece_begins_within_is_no_token)
{
	enum { PIECE = 256 << 10, BYTES = PIECE + 300 };
	scope_scratch struct scratch s = scratch_open();
	char *text = malloc(BYTES), what[80];

	assert_non_null(text);
	place_token(text, BYTES, PIECE - 4096);
	text[PIECE - 4097] = 'x';
	put_file(s.fd, "a.py", text, BYTES, 0644, 0);
	bool found = looks(&s, "a.py", what);
	free(text);
	assert_false(found);
}

TEST(a_long_web_token_is_found_across_the_end_of_a_piece)
{
	/* A part is looked at up to 1024 bytes. */
	enum { PIECE = 256 << 10, BYTES = PIECE + 20000, PART = 1000 };
	static const size_t before[] = { 1, 2, 500, 1001, 1500, 2002, 2900 };
	scope_scratch struct scratch s = scratch_open();
	char *text = malloc(BYTES), token[3 * PART + 2], what[80];

	assert_non_null(text);
	memset(token, 'a', sizeof(token));
	for (size_t part = 0; part < 2; part++) {
		char *p = token + part * (PART + 1);
		p[0] = 'e';
		p[1] = 'y';
		p[2] = 'J';
		p[PART] = '.';
	}
	for (size_t i = 0; i < COUNT(before); i++) {
		memset(text, ' ', BYTES);
		memcpy(text + PIECE - before[i], token, sizeof(token));
		assert_non_null(warm_secret_in(text, BYTES));
		put_file(s.fd, "a.py", text, BYTES, 0644, 0);
		if (!looks(&s, "a.py", what))
			fail_msg("not found at %zu before the end", before[i]);
		assert_string_equal(what, "a JSON web token");
	}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_that_look_like_secrets_are_found),
		cmocka_unit_test(a_list_of_secrets_is_a_secret),
		cmocka_unit_test(tokens_are_known_by_their_form),
		cmocka_unit_test(a_token_is_found_wherever_in_a_text_file_and_in_no_other),
		cmocka_unit_test(every_form_is_found_from_its_least_length_on),
		cmocka_unit_test(a_form_is_found_beside_punctuation_and_not_in_a_word),
		cmocka_unit_test(forms_that_words_may_have_need_a_digit_and_a_capital),
		cmocka_unit_test(private_keys_of_all_kinds_are_found),
		cmocka_unit_test(urls_with_passwords_are_found_and_placeholders_are_not),
		cmocka_unit_test(names_are_taken_by_their_words),
		cmocka_unit_test(a_token_is_found_at_every_place_around_the_end_of_a_piece),
		cmocka_unit_test(only_the_first_four_mebibytes_are_looked_at),
		cmocka_unit_test(what_compilers_made_is_not_looked_at),
		cmocka_unit_test(a_zero_near_the_start_makes_no_text_and_one_further_down_does),
		cmocka_unit_test(what_is_no_file_holds_no_secret_and_stops_nobody),
		cmocka_unit_test(an_environment_that_can_not_be_read_can_not_be_cleared),
		cmocka_unit_test(a_file_closed_to_us_is_no_find_and_an_environment_is),
		cmocka_unit_test(a_value_of_a_known_form_is_found_in_an_environment_under_any_name),
		cmocka_unit_test(a_name_that_is_too_long_is_cut),
		cmocka_unit_test(looking_is_no_use_of_the_file),
		cmocka_unit_test(noise_holds_no_secret),
		cmocka_unit_test(a_word_that_a_piece_begins_within_is_no_token),
		cmocka_unit_test(a_long_web_token_is_found_across_the_end_of_a_piece),
	};

	return RUN(tests);
}
