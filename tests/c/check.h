/* What the C test programs share: checks that say where they failed, tensors in one line, and a scratch folder.
 *
 * Every program in this folder is an example as well: it does one task, from top to bottom, and is compiled both as C99
 * and as C++17. Hence the casts of malloc's results, which C does not need. */
#ifndef TFCKPT_TESTS_CHECK_H
#define TFCKPT_TESTS_CHECK_H

/* Asks for POSIX beside plain C99 (mkdtemp, fork, threads); this header comes before all others for that reason. */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE
#endif

#include <tfckpt.h>

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { PATH_SIZE = 4096 };

/* ---- Checks: the first one that does not hold ends the program ---- */

static inline void check_that(int holds, const char *text, const char *file, int line)
{
    if (holds)
        return;
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, text);
    exit(EXIT_FAILURE);
}

/* The code of a call, and the error object that goes with it; frees the latter. `text`: must be part of the message. */
static inline void check_code(tfckpt_code got, tfckpt_code want, tfckpt_error **error, const char *text,
                              const char *call, const char *file, int line)
{
    const char *message = *error == NULL ? "(no error object)" : tfckpt_error_message(*error);
    int holds = got == want;

    if (got == TFCKPT_OK)
        holds = holds && *error == NULL;
    else
        holds = holds && *error != NULL && tfckpt_error_code(*error) == got && message != NULL && message[0] != '\0';
    if (text != NULL && message != NULL)
        holds = holds && strstr(message, text) != NULL;
    if (!holds) {
        fprintf(stderr, "%s:%d: %s\n  wanted %s%s%s\n  got    %s: %s\n", file, line, call, tfckpt_code_name(want),
                text == NULL ? "" : ": ", text == NULL ? "" : text, tfckpt_code_name(got), message);
        exit(EXIT_FAILURE);
    }
    tfckpt_error_free(*error);
    *error = NULL;
}

/* The condition holds. */
#define CHECK(condition) check_that((condition) ? 1 : 0, #condition, __FILE__, __LINE__)
/* The call, which was given &error, succeeds. */
#define CHECK_OK(call, error) check_code((call), TFCKPT_OK, &(error), NULL, #call, __FILE__, __LINE__)
/* It fails with this code, and the message contains the text; "" takes any message. */
#define CHECK_FAILS(call, code, error, text) check_code((call), (code), &(error), (text), #call, __FILE__, __LINE__)

/* ---- Tensors ---- */

/* A tensor in host memory. `shape` and `data` must live until the call that gets it returns. */
static inline tfckpt_tensor host_tensor(const char *key, int32_t dtype, int32_t rank, const int64_t *shape, void *data,
                                        size_t size)
{
    tfckpt_tensor tensor = TFCKPT_TENSOR_INIT;

    tensor.key = key;
    tensor.key_size = strlen(key);
    tensor.dtype = dtype;
    tensor.rank = rank;
    tensor.shape = shape;
    tensor.data = data;
    tensor.size = size;
    return tensor;
}

/* ---- Files ---- */

/* Writes DIR/NAME to `path`. */
static inline void path_in(char path[PATH_SIZE], const char *dir, const char *name)
{
    int size = snprintf(path, PATH_SIZE, "%s/%s", dir, name);

    CHECK(size > 0 && size < PATH_SIZE);
}

static inline int file_exists(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0;
}

static inline long file_size(const char *path)
{
    struct stat status;

    CHECK(stat(path, &status) == 0);
    return (long)status.st_size;
}

/* Reads a whole file; free the result. One NUL is added behind it. */
static inline char *read_file(const char *path, size_t *size_out)
{
    size_t size = (size_t)file_size(path);
    char *bytes = (char *)malloc(size + 1);
    FILE *file = fopen(path, "rb");

    CHECK(bytes != NULL && file != NULL);
    CHECK(fread(bytes, 1, size, file) == size);
    CHECK(fclose(file) == 0);
    bytes[size] = '\0';
    if (size_out != NULL)
        *size_out = size;
    return bytes;
}

static inline void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");

    CHECK(file != NULL);
    CHECK(fputs(text, file) >= 0);
    CHECK(fclose(file) == 0);
}

/* Flips one bit of a file, as failing hardware does. */
static inline void flip_bit(const char *path, long offset)
{
    FILE *file = fopen(path, "r+b");
    int byte;

    CHECK(file != NULL);
    CHECK(fseek(file, offset, SEEK_SET) == 0);
    byte = fgetc(file);
    CHECK(byte != EOF);
    CHECK(fseek(file, offset, SEEK_SET) == 0);
    CHECK(fputc(byte ^ 1, file) != EOF);
    CHECK(fclose(file) == 0);
}

/* The names in a folder, sorted, each followed by a line feed. */
static inline void list_folder(const char *dir, char *names, size_t size)
{
    struct dirent **entries = NULL;
    int num = scandir(dir, &entries, NULL, alphasort);
    size_t used = 0;

    CHECK(num >= 0);
    names[0] = '\0';
    for (int i = 0; i < num; i++) {
        if (strcmp(entries[i]->d_name, ".") != 0 && strcmp(entries[i]->d_name, "..") != 0) {
            int length = snprintf(names + used, size - used, "%s\n", entries[i]->d_name);

            CHECK(length > 0 && (size_t)length < size - used);
            used += (size_t)length;
        }
        free(entries[i]);
    }
    free(entries);
}

/* One number for the names and the bytes of all files in a folder: equal numbers, equal folders (FNV-1a). */
static inline uint64_t folder_digest(const char *dir)
{
    static char names[65536];
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    char *name, *end;

    list_folder(dir, names, sizeof names);
    for (name = names; (end = strchr(name, '\n')) != NULL; name = end + 1) {
        char path[PATH_SIZE];
        size_t size = 0;
        char *bytes;

        *end = '\0';
        path_in(path, dir, name);
        bytes = read_file(path, &size);
        for (const char *c = name; c <= end; c++)
            hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
        for (size_t i = 0; i < size; i++)
            hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
        free(bytes);
    }
    return hash;
}

/* Makes an empty folder below the folder argv[1], else $TMPDIR, else /tmp, and writes its absolute path to `dir`. */
static inline void make_scratch_folder(int argc, char **argv, char dir[PATH_SIZE])
{
    char *absolute = argc > 1 ? realpath(argv[1], NULL) : NULL;

    if (absolute == NULL)
        absolute = realpath(getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp", NULL);
    CHECK(absolute != NULL);
    path_in(dir, absolute, "tfckpt-test-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    free(absolute);
}

static inline int remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void remove_scratch_folder(const char *dir)
{
    CHECK(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

#endif
