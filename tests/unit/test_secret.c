/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/layer/secret.h"

#include <fcntl.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_that_look_like_secrets_are_found),
		cmocka_unit_test(a_list_of_secrets_is_a_secret),
		cmocka_unit_test(tokens_are_known_by_their_form),
		cmocka_unit_test(a_token_is_found_wherever_in_a_text_file_and_in_no_other),
	};

	return RUN(tests);
}
