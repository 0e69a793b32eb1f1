/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sync/catalog.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/parallel.h"

enum {
	INDEX_THREADS = 8,
	INDEXES_BYTES = 48 << 20, /* of all indexes of a key, raw: what is more is refused */
};

void warm_catalog_release(struct warm_catalog *catalog)
{
	warm_layers_free(catalog->layers, catalog->n_layers);
	*catalog = (struct warm_catalog){ 0 };
}

struct listing {
	struct warm_layer *layers;
	size_t n, capacity;
	const struct warm_key *key;
};

static int take_object(void *arg, const struct warm_object *object, struct warm_error *err)
{
	struct listing *l = arg;
	struct warm_key key;
	struct warm_layer_name name;

	if (warm_layer_name_parse(object->name, &key, &name, NULL) != 0 ||
	    !warm_key_equal(&key, l->key))
		return 0;
	if (l->n == l->capacity) {
		size_t capacity = l->capacity == 0 ? 16 : 2 * l->capacity;
		struct warm_layer *layers = realloc(l->layers, capacity * sizeof(*layers));
		if (layers == NULL)
			return warm_error_nomem(err, capacity * sizeof(*layers));
		l->layers = layers;
		l->capacity = capacity;
	}
	char *copy = strdup(object->name);
	if (copy == NULL)
		return warm_error_nomem(err, strlen(object->name));
	l->layers[l->n++] = (struct warm_layer){
		.object = copy,
		.object_bytes = object->bytes,
		.modified_ms = object->modified_ms,
		.name = name,
	};
	return 0;
}

static int newest_first(const void *a_p, const void *b_p)
{
	const struct warm_layer *a = a_p, *b = b_p;
	int c = warm_id_compare(b->name.id, a->name.id);

	return c != 0 ? c : strcmp(a->object, b->object);
}

int warm_catalog_list(struct warm_catalog *catalog, struct warm_store *store,
		      const struct warm_key *key, bool want_now, const struct warm_call *call,
		      struct warm_error *err)
{
	struct listing l = { .key = key };
	char prefix[WARM_NAME_BYTES];
	int64_t now = -1;

	warm_key_prefix(key, prefix);
	int rc = warm_store_list(store, prefix, take_object, &l, want_now ? &now : NULL, call, err);
	if (rc == WARM_NOT_FOUND)
		rc = 0; /* a store that nobody has written to yet */
	if (rc != 0) {
		warm_layers_free(l.layers, l.n);
		return rc;
	}
	if (l.n > 1)
		qsort(l.layers, l.n, sizeof(*l.layers), newest_first);
	/* Immutable: an index that was read once is right for ever. Both lists are sorted. */
	for (size_t i = 0, k = 0; i < l.n && k < catalog->n_layers;) {
		int c = newest_first(&l.layers[i], &catalog->layers[k]);
		if (c == 0) {
			l.layers[i].index = take_ptr(catalog->layers[k].index);
			l.layers[i].trailer = take_ptr(catalog->layers[k].trailer);
			l.layers[i].trailer_bytes = catalog->layers[k].trailer_bytes;
		}
		if (c <= 0)
			i++;
		if (c >= 0)
			k++;
	}
	warm_layers_free(catalog->layers, catalog->n_layers);
	catalog->key = *key;
	catalog->layers = l.layers;
	catalog->n_layers = l.n;
	catalog->newest = l.n > 0 ? l.layers[0].name.id : (struct warm_id){ 0, 0 };
	catalog->now_ms = now;
	return 0;
}

struct index_reader {
	struct warm_catalog *catalog;
	struct warm_store *store;
	const struct warm_notices *notices;
	const struct warm_call *call;
	atomic_ullong raw_bytes;
};

struct trailer {
	uint8_t *data;
	size_t used, bytes;
};

static int take_trailer(void *arg, const void *data, size_t bytes, struct warm_error *err)
{
	struct trailer *t = arg;

	if (bytes > t->bytes - t->used)
		return warm_error_set(err, WARM_CORRUPT, "the store sent more than was asked for");
	memcpy(t->data + t->used, data, bytes);
	t->used += bytes;
	return 0;
}

static int read_index(struct index_reader *r, struct warm_layer *layer, struct warm_error *err)
{
	uint64_t bytes = warm_trailer_bytes(&layer->name);

	if (layer->name.index_bytes > WARM_INDEX_BYTES)
		return warm_error_set(err, WARM_LIMIT, "%s: an index of %u bytes", layer->object,
				      layer->name.index_bytes);
	if (layer->object_bytes < bytes)
		return warm_error_set(err, WARM_CORRUPT, "%s: cut short", layer->object);
	scope_free uint8_t *data = take_ptr(layer->trailer);
	struct trailer t = { data, layer->trailer_bytes, (size_t)bytes };
	int rc = 0;
	if (data == NULL) {
		t.data = data = malloc((size_t)bytes);
		t.used = 0;
		if (data == NULL)
			return warm_error_nomem(err, (size_t)bytes);
		rc = warm_store_get(r->store, layer->object, layer->object_bytes - bytes, bytes,
				    take_trailer, &t, r->call, err);
	}
	if (rc != 0)
		return rc;
	uint64_t raw_bytes = 0;
	rc = warm_index_measure(data, t.used, &layer->name, &raw_bytes, err);
	if (rc == 0 && atomic_fetch_add(&r->raw_bytes, raw_bytes) + raw_bytes > INDEXES_BYTES)
		rc = warm_error_set(err, WARM_LIMIT, "the key's indexes take over %d bytes",
				    INDEXES_BYTES);
	if (rc == 0)
		rc = warm_index_parse(data, t.used, layer->object_bytes, &r->catalog->key,
				      &layer->name, &layer->index, err);
	if (rc != 0)
		warm_error_context(err, "%s", layer->object);
	if (rc == 0 && r->catalog->folds) {
		layer->trailer_bytes = t.used;
		layer->trailer = take_ptr(data);
	}
	return rc;
}

static int read_one(void *arg, size_t i, struct warm_error *err)
{
	struct index_reader *r = arg;
	struct warm_layer *layer = &r->catalog->layers[i];

	if (layer->index != NULL)
		return 0;
	int rc = read_index(r, layer, err);
	if (rc == WARM_CORRUPT && warm_store_distrust(r->store, layer->object))
		rc = read_index(r, layer, err);
	switch (rc) {
	case WARM_CORRUPT:
	case WARM_UNSUPPORTED:
	case WARM_LIMIT:
	case WARM_NOT_FOUND: /* deleted since the LIST: a base covers it */
		warm_notice(r->notices, rc == WARM_NOT_FOUND ? "layer-gone" : "layer-refused", "%s",
			    err->msg);
		return 0;
	default:
		return rc;
	}
}

int warm_catalog_read(struct warm_catalog *catalog, struct warm_store *store,
		      const struct warm_notices *notices, const struct warm_call *call,
		      struct warm_error *err)
{
	struct index_reader r = { catalog, store, notices, call, 0 };

	for (size_t i = 0; i < catalog->n_layers; i++)
		if (catalog->layers[i].index != NULL)
			r.raw_bytes += catalog->layers[i].index->index_raw_bytes;

	int rc = warm_parallel(INDEX_THREADS, catalog->n_layers, read_one, &r, err);
	warm_state_cover(catalog->layers, catalog->n_layers);
	catalog->refused = 0;
	for (size_t i = 0; i < catalog->n_layers; i++)
		catalog->refused += catalog->layers[i].index == NULL && !catalog->layers[i].covered;
	return rc;
}

void warm_catalog_fold(struct warm_catalog *catalog)
{
	for (size_t i = 0; i < catalog->n_layers; i++) {
		struct warm_layer *l = &catalog->layers[i];
		if (l->trailer == NULL)
			continue;
		warm_index_free(l->index);
		l->index = NULL;
	}
}

bool warm_catalog_has_mark(const struct warm_catalog *catalog, const char *mark)
{
	for (size_t i = 0; i < catalog->n_layers; i++) {
		const struct warm_layer *l = &catalog->layers[i];
		if (l->index != NULL && !l->covered && l->index->complete != NULL &&
		    (mark[0] == '\0' || strcmp(mark, l->index->complete) == 0))
			return true;
	}
	return false;
}

const char *warm_catalog_complete(const struct warm_catalog *catalog)
{
	for (size_t i = 0; i < catalog->n_layers; i++) {
		const struct warm_layer *l = &catalog->layers[i];
		if (l->index != NULL && !l->covered && l->index->complete != NULL)
			return l->index->complete;
	}
	return NULL;
}

struct keys {
	struct warm_listed_key *keys;
	size_t n, capacity;
};

static int take_key(void *arg, const struct warm_object *object, struct warm_error *err)
{
	struct keys *k = arg;
	struct warm_key key;
	struct warm_layer_name name;

	if (warm_layer_name_parse(object->name, &key, &name, NULL) != 0)
		return 0;
	/* A LIST mostly keeps a key's objects together: look from the end. */
	size_t i = k->n;
	while (i > 0 && !warm_key_equal(&k->keys[i - 1].key, &key))
		i--;
	if (i == 0) {
		if (k->n == k->capacity) {
			size_t capacity = k->capacity == 0 ? 16 : 2 * k->capacity;
			struct warm_listed_key *keys = realloc(k->keys, capacity * sizeof(*keys));
			if (keys == NULL)
				return warm_error_nomem(err, capacity * sizeof(*keys));
			k->keys = keys;
			k->capacity = capacity;
		}
		k->keys[k->n] = (struct warm_listed_key){ .key = key, .modified_ms = -1 };
		i = ++k->n;
	}
	struct warm_listed_key *e = &k->keys[i - 1];
	if (warm_id_compare(name.id, e->newest) > 0)
		e->newest = name.id;
	if (object->modified_ms > e->modified_ms)
		e->modified_ms = object->modified_ms;
	e->n_layers++;
	e->bytes += object->bytes;
	return 0;
}

static int newest_key_first(const void *a_p, const void *b_p)
{
	const struct warm_listed_key *a = a_p, *b = b_p;
	int c = warm_id_compare(b->newest, a->newest);

	return c != 0 ? c : strcmp(a->key.version, b->key.version);
}

int warm_catalog_keys(struct warm_store *store, const char *prefix,
		      struct warm_listed_key **ret_keys, size_t *ret_n, int64_t *ret_now_ms,
		      const struct warm_call *call, struct warm_error *err)
{
	struct keys k = { 0 };
	int rc = warm_store_list(store, prefix, take_key, &k, ret_now_ms, call, err);

	if (rc != 0) {
		free(k.keys);
		return rc;
	}
	if (k.n > 1)
		qsort(k.keys, k.n, sizeof(*k.keys), newest_key_first);
	*ret_keys = k.keys;
	*ret_n = k.n;
	return 0;
}
