/* SPDX-License-Identifier: Apache-2.0 */
/* main() for a fuzz target without libFuzzer: run it over every file of the directories (or the
 * files) given, and say how many there were. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static size_t n_inputs;

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
		perror(path);
		if (f != NULL)
			fclose(f);
		return 1;
	}
	long bytes = ftell(f);
	rewind(f);
	/* Exactly as large as the input, so that a sanitizer sees one byte too far. */
	uint8_t *data = malloc(bytes > 0 ? (size_t)bytes : 1);
	int rc = data == NULL || fread(data, 1, (size_t)bytes, f) != (size_t)bytes;
	fclose(f);
	if (rc == 0)
		LLVMFuzzerTestOneInput(data, (size_t)bytes);
	else
		fprintf(stderr, "%s: can't be read\n", path);
	free(data);
	n_inputs++;
	return rc;
}

static int run_path(const char *path)
{
	char below[4096];
	struct stat st;
	struct dirent *e;
	int rc = 0;

	if (stat(path, &st) != 0) {
		perror(path);
		return 1;
	}
	if (!S_ISDIR(st.st_mode))
		return run_file(path);
	DIR *dir = opendir(path);
	if (dir == NULL) {
		perror(path);
		return 1;
	}
	while ((e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
		rc |= run_path(below);
	}
	closedir(dir);
	return rc;
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	int rc = 0;

	for (int i = 1; i < argc; i++)
		rc |= run_path(argv[i]);
	printf("%s: %zu inputs\n", slash != NULL ? slash + 1 : argv[0], n_inputs);
	return rc != 0 || n_inputs == 0;
}
