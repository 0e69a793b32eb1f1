/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU floor of a restore: what one thread needs to verify and decode every frame of a key's
 * layers that lie in memory, and to write every file raw (mkdirat, openat, write, close). Their
 * sum over the CPUs is what no restore can be faster than.
 *
 *	floor STORE MODEL VERSION EMPTY_DIRECTORY
 *
 * Prints one JSON object: decode_seconds, write_seconds, cpus, floor_seconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/file.h"
#include "lib/base/parallel.h"
#include "lib/layer/unpack.h"
#include "lib/sync/catalog.h"

struct memory {
	uint8_t *data;
	size_t used;
};

static int take(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	struct memory *m = arg;

	(void)err;
	memcpy(m->data + m->used, data, bytes);
	m->used += bytes;
	return 0;
}

static void make_parents(int dir_fd, char *path)
{
	for (char *p = strchr(path, '/'); p != NULL; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdirat(dir_fd, path, 0777) != 0 && errno != EEXIST)
			perror(path);
		*p = '/';
	}
}

static int measure(struct warm_store *store, const struct warm_catalog *catalog, int dir_fd,
		   double *ret_decode, double *ret_write, struct warm_error *err)
{
	scope_unpack struct warm_unpack *unpack = NULL;
	char path[WARM_PATH_BYTES], last[WARM_PATH_BYTES] = "";
	int rc = warm_unpack_new(&unpack, err);

	for (size_t l = 0; rc == 0 && l < catalog->n_layers; l++) {
		const struct warm_layer *layer = &catalog->layers[l];
		const struct warm_index *x = layer->index;
		scope_free uint8_t *packed = malloc(layer->object_bytes);
		scope_free uint8_t *tar = malloc(x->raw_bytes);
		struct memory m = { packed, 0 };
		if (packed == NULL || tar == NULL)
			return warm_error_nomem(err, x->raw_bytes);
		memset(packed, 1, layer->object_bytes); /* the first touch is not the restore's */
		memset(tar, 1, x->raw_bytes);
		rc = warm_store_get(store, layer->object, 0, layer->object_bytes, take, &m, NULL,
				    err);
		for (size_t i = 0; rc == 0 && i < x->n_frames; i++) {
			const uint8_t *raw = NULL;
			int64_t start = warm_clock_ns();
			rc = warm_unpack_frame(unpack, x, i, packed + x->frames[i].offset, &raw,
					       err);
			*ret_decode += (double)(warm_clock_ns() - start) / 1e9;
			if (rc == 0)
				memcpy(tar + x->frames[i].raw_offset, raw, x->frames[i].raw_bytes);
		}
		int64_t start = warm_clock_ns();
		for (size_t i = 0; rc == 0 && i < x->n_files; i++) {
			const struct warm_file *f = &x->files[i];
			snprintf(path, sizeof(path), "%s", f->path);
			size_t n = (size_t)(strrchr(path, '/') - path);
			if (strncmp(path, last, n + 1) != 0) {
				make_parents(dir_fd, path);
				memcpy(last, path, n + 1);
				last[n + 1] = '\0';
			}
			int fd = openat(dir_fd, f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
			if (fd < 0 || write(fd, tar + f->raw_offset, f->size) != (ssize_t)f->size ||
			    close(fd) != 0)
				return warm_error_errno(err, errno, "write %s", f->path);
		}
		*ret_write += (double)(warm_clock_ns() - start) / 1e9;
	}
	return rc;
}

int main(int argc, char **argv)
{
	scope_catalog struct warm_catalog catalog = { 0 };
	scope_store struct warm_store *store = NULL;
	struct warm_error err = { 0 };
	struct warm_key key;
	double decode = 0, written = 0;

	if (argc != 5) {
		fprintf(stderr, "usage: floor STORE MODEL VERSION EMPTY_DIRECTORY\n");
		return 2;
	}
	int dir_fd = open(argv[4], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = warm_key_init(&key, argv[2], argv[3], "auto", &err);
	if (rc == 0)
		rc = warm_store_open(argv[1], &store, &err);
	if (rc == 0)
		rc = warm_catalog_list(&catalog, store, &key, false, NULL, &err);
	if (rc == 0)
		rc = warm_catalog_read(&catalog, store, NULL, NULL, &err);
	if (rc == 0)
		rc = measure(store, &catalog, dir_fd, &decode, &written, &err);
	if (rc != 0) {
		fprintf(stderr, "floor: %s\n", err.msg);
		return 1;
	}
	printf("{\"decode_seconds\": %.4f, \"write_seconds\": %.4f, \"cpus\": %u, "
	       "\"floor_seconds\": %.4f}\n",
	       decode, written, warm_cpus(), (decode + written) / warm_cpus());
	return 0;
}
