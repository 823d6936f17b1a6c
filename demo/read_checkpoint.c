/* Lists a checkpoint and restores every tensor in it, without knowing beforehand what it holds.
 *
 *   read_checkpoint PREFIX
 *
 * Prints for each tensor its name, dtype, shape, bytes and first values. */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tfckpt.h>

enum { FIRST_VALUES = 4, FIRST_BYTES = 24 };

/* Prints why a call did not work, and gives up. */
static void check(tfckpt_code code, tfckpt_error **error)
{
    if (code == TFCKPT_OK)
        return;
    fprintf(stderr, "read_checkpoint: %s: %s\n", tfckpt_code_name(code), tfckpt_error_message(*error));
    tfckpt_error_free(*error);
    exit(EXIT_FAILURE);
}

/* Names and strings hold any bytes: what is not printable is shown as \xNN. */
static void print_bytes(const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] >= ' ' && bytes[i] <= '~' && bytes[i] != '\\')
            putchar(bytes[i]);
        else
            printf("\\x%02x", (unsigned)(unsigned char)bytes[i]);
    }
}

static void print_shape(int32_t rank, const int64_t *shape)
{
    putchar('[');
    for (int32_t i = 0; i < rank; i++)
        printf(i == 0 ? "%" PRId64 : ",%" PRId64, shape[i]);
    putchar(']');
}

/* float16: a sign, 5 bits of exponent, 10 of fraction. */
static double half_to_double(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
                  : exponent == 0 ? ldexp(fraction, -24)
                                  : ldexp(1024 + fraction, exponent - 25);

    return bits >> 15 ? -size : size;
}

/* bfloat16: the upper half of a float32. */
static double bfloat16_to_double(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;

    memcpy(&value, &wide, sizeof value);
    return value;
}

#define PRINT_AS(type, format)               \
    do {                                     \
        type value;                          \
        memcpy(&value, bytes, sizeof value); \
        printf(format, value);               \
    } while (0)

/* Prints the element that begins at `bytes`. */
static void print_element(int32_t dtype, const unsigned char *bytes)
{
    float parts[2];
    double wide_parts[2];
    uint16_t bits;

    switch (dtype) {
    case TFCKPT_DTYPE_FLOAT: PRINT_AS(float, "%g"); break;
    case TFCKPT_DTYPE_DOUBLE: PRINT_AS(double, "%g"); break;
    case TFCKPT_DTYPE_INT8:
    case TFCKPT_DTYPE_QINT8:
    case TFCKPT_DTYPE_INT4: printf("%d", (int)(signed char)*bytes); break;
    case TFCKPT_DTYPE_UINT8:
    case TFCKPT_DTYPE_QUINT8:
    case TFCKPT_DTYPE_UINT4: printf("%d", *bytes); break;
    case TFCKPT_DTYPE_INT16:
    case TFCKPT_DTYPE_QINT16: PRINT_AS(int16_t, "%" PRId16); break;
    case TFCKPT_DTYPE_UINT16:
    case TFCKPT_DTYPE_QUINT16: PRINT_AS(uint16_t, "%" PRIu16); break;
    case TFCKPT_DTYPE_INT32:
    case TFCKPT_DTYPE_QINT32: PRINT_AS(int32_t, "%" PRId32); break;
    case TFCKPT_DTYPE_UINT32: PRINT_AS(uint32_t, "%" PRIu32); break;
    case TFCKPT_DTYPE_INT64: PRINT_AS(int64_t, "%" PRId64); break;
    case TFCKPT_DTYPE_UINT64: PRINT_AS(uint64_t, "%" PRIu64); break;
    case TFCKPT_DTYPE_BOOL: printf(*bytes ? "true" : "false"); break;
    case TFCKPT_DTYPE_HALF: memcpy(&bits, bytes, sizeof bits); printf("%g", half_to_double(bits)); break;
    case TFCKPT_DTYPE_BFLOAT16: memcpy(&bits, bytes, sizeof bits); printf("%g", bfloat16_to_double(bits)); break;
    case TFCKPT_DTYPE_COMPLEX64:
        memcpy(parts, bytes, sizeof parts);
        printf("%g%+gi", parts[0], parts[1]);
        break;
    case TFCKPT_DTYPE_COMPLEX128:
        memcpy(wide_parts, bytes, sizeof wide_parts);
        printf("%g%+gi", wide_parts[0], wide_parts[1]);
        break;
    default: /* the small floats, as the bytes that they are */
        for (size_t i = 0; i < tfckpt_dtype_size(dtype); i++)
            printf("%02x", bytes[i]);
    }
}

/* A request for the tensor of an entry; where it goes to is still open. */
static tfckpt_tensor request(const tfckpt_entry *entry)
{
    tfckpt_tensor tensor = TFCKPT_TENSOR_INIT;

    tensor.key = tfckpt_entry_key(entry, &tensor.key_size);
    tensor.dtype = tfckpt_entry_dtype(entry);
    tensor.rank = tfckpt_entry_rank(entry);
    tensor.shape = tfckpt_entry_shape(entry);
    return tensor;
}

/* One tensor that cannot be restored, be it damaged or saved only in part, does not keep us from the others. */
static bool restored(tfckpt_code code, tfckpt_error *error)
{
    if (code != TFCKPT_OK)
        printf(" %s: %s", tfckpt_code_name(code), tfckpt_error_message(error));
    tfckpt_error_free(error);
    return code == TFCKPT_OK;
}

/* Restores the tensor into memory of ours and prints the first values. */
static void print_values(const tfckpt_reader *reader, const tfckpt_entry *entry, size_t element_size)
{
    tfckpt_tensor tensor = request(entry);
    tfckpt_error *error = NULL;
    unsigned char *bytes;

    tfckpt_code code;
    size_t num = 1;

    for (int32_t i = 0; i < tensor.rank; i++)
        num *= (size_t)tensor.shape[i];
    tensor.size = num * element_size;
    tensor.data = bytes = (unsigned char *)malloc(tensor.size + 1); /* + 1: some tensors have no elements */
    if (bytes == NULL) {
        printf(" too large for this machine's memory");
        return;
    }
    code = tfckpt_reader_restore(reader, &tensor, 1, NULL, NULL, &error);
    if (restored(code, error)) {
        for (size_t i = 0; i < num && i < FIRST_VALUES; i++) {
            putchar(' ');
            print_element(tensor.dtype, bytes + i * element_size);
        }
        if (num > FIRST_VALUES)
            printf(" ...");
    }
    free(bytes);
}

/* Strings have lengths of their own, so the library keeps them and hands out one after the other. */
static void print_strings(const tfckpt_reader *reader, const tfckpt_entry *entry)
{
    tfckpt_tensor tensor = request(entry);
    tfckpt_strings *strings = NULL;
    tfckpt_error *error = NULL;
    tfckpt_code code;

    tensor.data = &strings;
    tensor.size = sizeof(tfckpt_strings *);
    code = tfckpt_reader_restore(reader, &tensor, 1, NULL, NULL, &error);
    if (!restored(code, error))
        return;
    for (size_t i = 0; i < tfckpt_strings_num(strings) && i < FIRST_VALUES; i++) {
        size_t size = 0;
        const char *bytes = tfckpt_strings_get(strings, i, &size);

        printf(" \"");
        print_bytes(bytes, size < FIRST_BYTES ? size : FIRST_BYTES);
        printf(size <= FIRST_BYTES ? "\"" : "\"... (%zu bytes)", size);
    }
    if (tfckpt_strings_num(strings) > FIRST_VALUES)
        printf(" ...");
    tfckpt_strings_free(strings);
}

static void print_tensor(const tfckpt_reader *reader, const tfckpt_entry *entry)
{
    size_t key_size = 0;
    const char *key = tfckpt_entry_key(entry, &key_size);
    int32_t dtype = tfckpt_entry_dtype(entry);
    size_t element_size = tfckpt_dtype_size(dtype);

    print_bytes(key, key_size);
    if (tfckpt_entry_code(entry) != TFCKPT_OK) {
        printf(": %s\n", tfckpt_entry_message(entry)); /* a damaged entry hides no other one */
        return;
    }
    printf("  %s ", tfckpt_dtype_name(dtype) != NULL ? tfckpt_dtype_name(dtype) : "(unknown dtype)");
    print_shape(tfckpt_entry_rank(entry), tfckpt_entry_shape(entry));
    printf(" %" PRIu64 " bytes:", tfckpt_entry_size(entry));
    if (element_size > 0)
        print_values(reader, entry, element_size);
    else if (dtype == TFCKPT_DTYPE_STRING)
        print_strings(reader, entry);
    else
        printf(" (opaque)");
    putchar('\n');
}

int main(int argc, char **argv)
{
    tfckpt_reader *reader = NULL;
    tfckpt_entries *entries = NULL;
    const tfckpt_entry *entry = NULL;
    tfckpt_error *error = NULL;
    size_t num_tensors = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: %s PREFIX\n", argv[0]);
        return 2;
    }
    check(tfckpt_reader_open(argv[1], NULL, &reader, &error), &error);
    check(tfckpt_reader_num_tensors(reader, &num_tensors, &error), &error);
    printf("%zu tensors in %" PRIu32 " data file(s)\n", num_tensors, tfckpt_reader_num_shards(reader));

    check(tfckpt_reader_entries(reader, &entries, &error), &error);
    for (;;) {
        check(tfckpt_entries_next(entries, &entry, &error), &error);
        if (entry == NULL)
            break;
        print_tensor(reader, entry);
    }
    tfckpt_entries_free(entries);
    tfckpt_reader_free(reader);
    return EXIT_SUCCESS;
}
