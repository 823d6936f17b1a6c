/* Calls the library's index functions as a C program does: through ctypes a million calls would measure Python.
 * The functions are passed in, so that nothing has to be linked. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stddef.h>
#include <time.h>

typedef int32_t (*entries_fn)(const void *reader, void **entries_out, void **error_out);
typedef int32_t (*next_fn)(void *entries, const void **entry_out, void **error_out);
typedef const char *(*key_fn)(const void *entry, size_t *size_out);
typedef void (*free_fn)(void *handle);
typedef int32_t (*find_fn)(const void *reader, const char *key, size_t size, void **entry_out, void **error_out);

/* Goes through all entries and adds up the lengths of their keys; returns their number, or -1. */
int64_t list_all(const void *reader, entries_fn begin, next_fn next, key_fn key, free_fn end, uint64_t *bytes_out) {
  void *entries = NULL, *error = NULL;
  if (begin(reader, &entries, &error) != 0) return -1;
  int64_t count = 0;
  const void *entry = NULL;
  int32_t code;
  *bytes_out = 0;
  while ((code = next(entries, &entry, &error)) == 0 && entry) {
    size_t size = 0;
    key(entry, &size);
    *bytes_out += size;
    count++;
  }
  end(entries);
  return code == 0 ? count : -1;
}

/* Finds each key once; nanoseconds of each in `ns_out`. Returns 0 or the first error's code. */
int32_t find_each(const void *reader, find_fn find, free_fn end, const char *const *keys, const size_t *sizes,
                  size_t num_keys, uint64_t *ns_out) {
  for (size_t i = 0; i < num_keys; i++) {
    void *entry = NULL, *error = NULL;
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    int32_t code = find(reader, keys[i], sizes[i], &entry, &error);
    clock_gettime(CLOCK_MONOTONIC, &after);
    if (code != 0) return code;
    end(entry);
    ns_out[i] = (uint64_t)(after.tv_sec - before.tv_sec) * 1000000000u + (uint64_t)after.tv_nsec - (uint64_t)before.tv_nsec;
  }
  return 0;
}
