/* Generated from src/capi by `cargo run -p codegen`. Do not edit. */

/* =================================================================================================
 * libtfckpt: TensorFlow checkpoints without TensorFlow
 * =================================================================================================
 *
 * Saves, restores and inspects checkpoints that real TensorFlow reads and wrote: the files of
 * `tf.compat.v1.train.Saver`, `tf.train.Checkpoint` and SavedModel. Link with `-ltfckpt`.
 *
 * Where to start: tfckpt_save, tfckpt_restore and tfckpt_latest_checkpoint are the simple calls; a
 * tfckpt_reader looks into a checkpoint and restores from it more than once; a tfckpt_context
 * limits threads and memory. Wherever options are taken, NULL means the default.
 *
 *     float bias[3] = {1, 2, 3};
 *     int64_t shape[1] = {3};
 *     tfckpt_tensor tensor = TFCKPT_TENSOR_INIT;
 *     tensor.key = "dense/bias";
 *     tensor.key_size = strlen(tensor.key);
 *     tensor.dtype = TFCKPT_DTYPE_FLOAT;
 *     tensor.rank = 1;
 *     tensor.shape = shape;
 *     tensor.data = bias;
 *     tensor.size = sizeof bias;
 *
 *     tfckpt_error *error = NULL;
 *     if (tfckpt_save("/models/a/model.ckpt", &tensor, 1, NULL, NULL, &error) != TFCKPT_OK) {
 *         fprintf(stderr, "%s\n", tfckpt_error_message(error));
 *         tfckpt_error_free(error);
 *     }
 *
 * Structs: the first field of every struct is its size, so that a program and a library of
 * different versions understand each other. TFCKPT_X_INIT sets it, and everything else to zero,
 * which is the default throughout; languages without macros call tfckpt_x_init. A size that is not
 * set is INVALID_ARGUMENT; a field that this version does not know, and that is not zero,
 * UNIMPLEMENTED.
 *
 * Ownership: what a function gives through a pointer to a pointer is the caller's, to be freed with
 * the function that its documentation names. What a getter returns is borrowed from its object and
 * lives as long. Memory that a call is given must stay valid until it returns, and is not kept;
 * jobs use that of tensors longer, as they say. Every _free function accepts NULL.
 *
 * Arguments: a NULL where something is needed is INVALID_ARGUMENT, never a crash; an array may be
 * NULL if its length is 0. Outputs are written on success only, but for error objects, figures and
 * the codes of a restore. Paths and prefixes are NUL-terminated bytes and are taken literally.
 *
 * Threads: functions that take a const handle may run at the same time on the same handle;
 * functions that take a handle that is not const need it for themselves; different handles are
 * independent. No call depends on which thread makes it. Threads that the library starts end before
 * the call returns, or with the job that they work for, and block all signals.
 *
 * The library never prints, reads no environment variables, installs no signal handlers, and keeps
 * no state between calls but in its handles. A panic inside it is caught: the call returns
 * INTERNAL, and the handle it worked on refuses further calls.
 */

#ifndef TFCKPT_H
#define TFCKPT_H

#include <stddef.h>
#include <stdint.h>

/* A result that must not be ignored. */
#if defined(__GNUC__) || defined(__clang__)
#define TFCKPT_MUST_USE __attribute__((warn_unused_result))
#else
#define TFCKPT_MUST_USE
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Objects. Only pointers to them cross the boundary. */

typedef struct tfckpt_error tfckpt_error;                        /* What went wrong and where. Owned by the
                                                                  * caller; free it with tfckpt_error_free. */
typedef struct tfckpt_strings tfckpt_strings;                    /* The elements of a restored DT_STRING
                                                                  * tensor, row-major; owned by the caller. */
typedef struct tfckpt_context tfckpt_context;                    /* Resources that calls share. Any number
                                                                  * of calls may use one at the same time. */
typedef struct tfckpt_buffer tfckpt_buffer;                      /* Memory that the library has allocated. */
typedef struct tfckpt_reader tfckpt_reader;                      /* An open checkpoint. */
typedef struct tfckpt_entry tfckpt_entry;                        /* What an index says of one tensor. */
typedef struct tfckpt_entries tfckpt_entries;                    /* An iteration over the tensors of a
                                                                  * checkpoint. */
typedef struct tfckpt_object_graph tfckpt_object_graph;          /* The objects of a TF2 checkpoint. */
typedef struct tfckpt_view tfckpt_view;                          /* A tensor mapped from its data file. */
typedef struct tfckpt_checkpoint_state tfckpt_checkpoint_state;  /* What a state file says. */
typedef struct tfckpt_saver tfckpt_saver;                        /* A list of tensors, and the checkpoints
                                                                  * of it that are kept. */
typedef struct tfckpt_job tfckpt_job;                            /* A save or restore in the background. */

/* =================================================================================================
 * Versions
 * =================================================================================================
 *
 * The major version changes when a program that was compiled against an older header could stop
 * working, the minor one when something is added. Structs grow at their end only; a program tells
 * the size it knows in `struct_size`, so an old program works with a newer library.
 */

#define TFCKPT_VERSION_MAJOR  0    /* Major version of the header. */
#define TFCKPT_VERSION_MINOR  1    /* Minor version of the header. */
#define TFCKPT_VERSION_PATCH  0    /* Patch version of the header. */
#define TFCKPT_VERSION_NUMBER 100  /* Version of the header as one number: major * 10000 + minor
                                    * * 100 + patch. */

/** Version of the header as text. */
#define TFCKPT_VERSION_STRING "0.1.0"

/** Version of the library that is running, as TFCKPT_VERSION_NUMBER. */
uint32_t tfckpt_version(void);

/** Version of the library that is running, such as "0.1.0". Static. */
const char *tfckpt_version_string(void);

/* =================================================================================================
 * Codes and errors
 * =================================================================================================
 *
 * Every function that can fail returns a tfckpt_code: TFCKPT_OK, or one of TensorFlow's canonical
 * codes with its number. Its last argument, which may be NULL, receives an error object that the
 * caller then owns; it is set to NULL on success and ignored on entry.
 *
 * Where TensorFlow has a text for a case, the message begins with it, word for word; what is known
 * of the place follows as [tensor=KEY file=PATH offset=BYTES].
 */

/** TFCKPT_OK or one of TensorFlow's canonical codes. */
typedef int32_t tfckpt_code;

#define TFCKPT_OK                  0   /* Success. */
#define TFCKPT_CANCELLED           1   /* A progress callback, or another thread, asked to stop.
                                        * Nothing new is visible on disk. */
#define TFCKPT_UNKNOWN             2   /* An error of the system that fits no other code. */
#define TFCKPT_INVALID_ARGUMENT    3   /* An argument that can never work: NULL, a dtype or shape
                                        * that differs from what is stored. */
#define TFCKPT_DEADLINE_EXCEEDED   4   /* What was waited for has not happened in time. */
#define TFCKPT_NOT_FOUND           5   /* A checkpoint, a file or a key is not there. */
#define TFCKPT_ALREADY_EXISTS      6   /* Something that had to be new exists already. */
#define TFCKPT_PERMISSION_DENIED   7   /* The system refused access. */
#define TFCKPT_RESOURCE_EXHAUSTED  8   /* The disk is full, or memory or descriptors ran out. */
#define TFCKPT_FAILED_PRECONDITION 9   /* The system, or the data, is not in the state that the
                                        * call needs. */
#define TFCKPT_ABORTED             10  /* Given up because of something else that happened; per
                                        * tensor: not attempted. */
#define TFCKPT_OUT_OF_RANGE        11  /* A data file ends before the tensor does. */
#define TFCKPT_UNIMPLEMENTED       12  /* Valid, but not supported by this version. */
#define TFCKPT_INTERNAL            13  /* A defect of the library, a caught panic included; or
                                        * one of the few cases in which TensorFlow itself uses
                                        * this code. */
#define TFCKPT_UNAVAILABLE         14  /* A resource cannot be reached at present. */
#define TFCKPT_DATA_LOSS           15  /* Bytes on disk are damaged or missing. */

/** Name of a code, such as "DATA_LOSS"; "UNKNOWN" for a number that is none. Static. */
const char *tfckpt_code_name(tfckpt_code code);

/** The code of an error, the one that the function returned; TFCKPT_OK for NULL. */
TFCKPT_MUST_USE tfckpt_code tfckpt_error_code(const tfckpt_error *error);

/** The message: one line of UTF-8. Borrowed from the error; NULL for NULL. */
const char *tfckpt_error_message(const tfckpt_error *error);

/** Index of the tensor concerned in the array that the call was given; -1 if there is none. */
int64_t tfckpt_error_tensor_index(const tfckpt_error *error);

/**
 * Key of the tensor concerned, not NUL-terminated, and its length in bytes in *size_out (which may
 * be NULL). Borrowed from the error; NULL if there is none.
 */
const char *tfckpt_error_key(const tfckpt_error *error, size_t *size_out);

/** Path of the file concerned. Borrowed from the error; NULL if there is none. */
const char *tfckpt_error_file(const tfckpt_error *error);

/** Byte offset in the file concerned; -1 if there is none. */
int64_t tfckpt_error_offset(const tfckpt_error *error);

/** Frees an error. NULL is accepted. */
void tfckpt_error_free(tfckpt_error *error);

/** Frees a string that a function gave to the caller, such as *prefix_out. NULL is accepted. */
void tfckpt_string_free(char *string);

/* =================================================================================================
 * Data types
 * =================================================================================================
 *
 * TensorFlow's data types have its numbers (tensorflow/core/framework/types.proto). Elements lie in
 * memory little-endian and row-major, without padding.
 */

#define TFCKPT_DTYPE_FLOAT              1   /* DT_FLOAT: float32. */
#define TFCKPT_DTYPE_DOUBLE             2   /* DT_DOUBLE: float64. */
#define TFCKPT_DTYPE_INT32              3   /* DT_INT32. */
#define TFCKPT_DTYPE_UINT8              4   /* DT_UINT8. */
#define TFCKPT_DTYPE_INT16              5   /* DT_INT16. */
#define TFCKPT_DTYPE_INT8               6   /* DT_INT8. */
#define TFCKPT_DTYPE_STRING             7   /* DT_STRING: byte strings of any length. */
#define TFCKPT_DTYPE_COMPLEX64          8   /* DT_COMPLEX64: two float32: real, imaginary. */
#define TFCKPT_DTYPE_INT64              9   /* DT_INT64. */
#define TFCKPT_DTYPE_BOOL               10  /* DT_BOOL: one byte, 0 or 1. */
#define TFCKPT_DTYPE_QINT8              11  /* DT_QINT8. */
#define TFCKPT_DTYPE_QUINT8             12  /* DT_QUINT8. */
#define TFCKPT_DTYPE_QINT32             13  /* DT_QINT32. */
#define TFCKPT_DTYPE_BFLOAT16           14  /* DT_BFLOAT16. */
#define TFCKPT_DTYPE_QINT16             15  /* DT_QINT16. */
#define TFCKPT_DTYPE_QUINT16            16  /* DT_QUINT16. */
#define TFCKPT_DTYPE_UINT16             17  /* DT_UINT16. */
#define TFCKPT_DTYPE_COMPLEX128         18  /* DT_COMPLEX128: two float64: real, imaginary. */
#define TFCKPT_DTYPE_HALF               19  /* DT_HALF: float16. */
#define TFCKPT_DTYPE_RESOURCE           20  /* DT_RESOURCE: can be neither saved nor restored. */
#define TFCKPT_DTYPE_VARIANT            21  /* DT_VARIANT: listed and verified, never decoded. */
#define TFCKPT_DTYPE_UINT32             22  /* DT_UINT32. */
#define TFCKPT_DTYPE_UINT64             23  /* DT_UINT64. */
#define TFCKPT_DTYPE_FLOAT8_E5M2        24  /* DT_FLOAT8_E5M2. */
#define TFCKPT_DTYPE_FLOAT8_E4M3FN      25  /* DT_FLOAT8_E4M3FN. */
#define TFCKPT_DTYPE_FLOAT8_E4M3FNUZ    26  /* DT_FLOAT8_E4M3FNUZ. */
#define TFCKPT_DTYPE_FLOAT8_E4M3B11FNUZ 27  /* DT_FLOAT8_E4M3B11FNUZ. */
#define TFCKPT_DTYPE_FLOAT8_E5M2FNUZ    28  /* DT_FLOAT8_E5M2FNUZ. */
#define TFCKPT_DTYPE_INT4               29  /* DT_INT4: one byte per element, as all 2- and 4-bit
                                             * types. */
#define TFCKPT_DTYPE_UINT4              30  /* DT_UINT4. */
#define TFCKPT_DTYPE_INT2               31  /* DT_INT2. */
#define TFCKPT_DTYPE_UINT2              32  /* DT_UINT2. */
#define TFCKPT_DTYPE_FLOAT4_E2M1FN      33  /* DT_FLOAT4_E2M1FN. */

/** Name of a data type in Python, such as "float32"; NULL for a number that is none. Static. */
const char *tfckpt_dtype_name(int32_t dtype);

/** Bytes per element; 0 for strings, variants, resources and a number that is no data type. */
size_t tfckpt_dtype_size(int32_t dtype);

/* =================================================================================================
 * Tensors
 * =================================================================================================
 *
 * A tfckpt_tensor describes one tensor of a save or restore: its key in the checkpoint, dtype,
 * shape, and the caller's memory. Nothing of it is kept beyond the call, but for jobs, which keep
 * data.
 */

#define TFCKPT_DEVICE_HOST 0  /* A tensor in host memory, as tfckpt_tensor.device_type. 1,
                               * DLPack's kDLCPU, means the same. */

#define TFCKPT_DEVICE_CUDA 2  /* A tensor in the memory of a CUDA device, as
                               * tfckpt_tensor.device_type: DLPack's kDLCUDA. data is then a
                               * device pointer, of cudaMalloc, a pool, or whatever the driver
                               * knows, managed memory included, and a multiple of the size of an
                               * element. */

#define TFCKPT_TENSOR_UNORDERED 1  /* In tfckpt_tensor.flags, of a tensor in device memory: it is
                                    * not ordered with any stream. Nothing that the device has
                                    * still to do may concern its memory when the call is made. */

/** One element of a DT_STRING tensor to be saved. */
typedef struct tfckpt_string {
  const void *data;  /* Its bytes, not NUL-terminated; NULL is accepted if size is 0. */
  size_t      size;  /* Number of bytes. */
} tfckpt_string;

/** A tensor to be saved or restored. In an array the first element's struct_size is the stride. */
typedef struct tfckpt_tensor {
  size_t         struct_size;    /* sizeof(tfckpt_tensor) */
  const char    *key;            /* Name in the checkpoint: any bytes, at least one. */
  size_t         key_size;       /* Length of the key in bytes. */
  int32_t        dtype;          /* TFCKPT_DTYPE_*; a restore wants the stored one. */
  int32_t        rank;           /* Number of dimensions; 0 for a scalar, at most 254. */
  const int64_t *shape;          /* Sizes of the dimensions, outermost first; NULL if rank is 0.
                                  * A restore wants the stored shape, or that of the slice. */
  void          *data;           /* The elements, row-major. A save only reads them; one that
                                  * changes meanwhile is saved as a mixture, with a valid
                                  * checksum. Of DT_STRING: an array of tfckpt_string for a save;
                                  * for a restore the address of a tfckpt_strings *, which is set
                                  * on success and then the caller's. */
  size_t         size;           /* Exact size of what data points to in bytes. */
  int32_t        device_type;    /* TFCKPT_DEVICE_*. */
  int32_t        device_id;      /* Number of the device, as CUDA counts those that the process
                                  * sees; 0 for the host. */
  const char    *device_name;    /* TensorFlow's device string, such as "/device:CPU:1"; NULL =
                                  * none for host memory and "/device:GPU:<device_id>" for that
                                  * of a device. Decides the data file in a save with
                                  * shard_by_device. */
  const char    *slice_spec;     /* TensorFlow's shape_and_slice, such as "4 6 0,2:-" for the
                                  * first two rows of a tensor of shape [4,6]; shape is then that
                                  * of the slice. NULL or "" for a whole tensor. */
  void          *stream;         /* Of a tensor in device memory: the CUstream or cudaStream_t
                                  * that the tensor is used on; NULL and 1 = the legacy default
                                  * stream, 2 = the calling thread's. The call's copies come
                                  * after what was enqueued on it before the call. It must live
                                  * until the call has returned, also one that starts a job: a
                                  * stream that was destroyed is undefined. NULL for host memory. */
  uint32_t       flags;          /* 0 or TFCKPT_TENSOR_UNORDERED. */
  const char    *variable_name;  /* Name of the variable, if it differs from the key; NULL
                                  * otherwise. */
} tfckpt_tensor;
#define TFCKPT_TENSOR_INIT { sizeof(tfckpt_tensor), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** Sets *tensor to zeros; struct_size is sizeof(tfckpt_tensor). */
TFCKPT_MUST_USE tfckpt_code tfckpt_tensor_init(tfckpt_tensor *tensor, size_t struct_size);

/** Number of elements; 0 for NULL. */
size_t tfckpt_strings_num(const tfckpt_strings *strings);

/**
 * Element i, not NUL-terminated, and its length in bytes in *size_out (which may be NULL). Borrowed
 * from strings; NULL if there is no such element.
 */
const char *tfckpt_strings_get(const tfckpt_strings *strings, size_t i, size_t *size_out);

/** Frees restored strings. NULL is accepted. */
void tfckpt_strings_free(tfckpt_strings *strings);

/* =================================================================================================
 * Progress
 * =================================================================================================
 *
 * A call reports to its progress callback on the calling thread, a job on its own: when it begins,
 * at least every 100 ms while it works or waits for memory that other calls hold or for copies from
 * and to devices, and between the steps of publishing a save. As long as it looks through the
 * index, the totals are 0.
 *
 * A callback that returns anything but 0 cancels the call, which then returns TFCKPT_CANCELLED; a
 * save withdraws what it has published by then. Copies from and to devices that are enqueued cannot
 * be called back, and use the caller's memory: the call, or the job that tfckpt_job_cancel stops,
 * enqueues no more of them and returns, without further reports, when they have run. Behind a
 * stream of the caller's that waits for something, that is not before the stream goes on.
 *
 * Callbacks must not unwind or longjmp, and must not use the handles that the call works on, its
 * context included. They may use CUDA: the thread's current context, and how it stands to captures,
 * are the caller's.
 */

/** How far a call is. */
typedef struct tfckpt_progress {
  size_t   struct_size;    /* sizeof(tfckpt_progress): as the library knows it in a callback, set
                            * by the caller of tfckpt_job_progress. */
  uint64_t bytes_done;     /* Bytes of tensors moved so far. */
  uint64_t bytes_total;    /* Bytes of tensors to move in all. */
  uint64_t tensors_done;   /* Tensors complete so far. */
  uint64_t tensors_total;  /* Tensors in all. */
} tfckpt_progress;
#define TFCKPT_PROGRESS_INIT { sizeof(tfckpt_progress), 0, 0, 0, 0 }

/** A progress callback. Returning anything but 0 cancels the call. */
typedef int32_t (*tfckpt_progress_fn)(const tfckpt_progress *progress, void *user_data);

/** Sets *progress to zeros; struct_size is sizeof(tfckpt_progress). */
TFCKPT_MUST_USE tfckpt_code tfckpt_progress_init(tfckpt_progress *progress, size_t struct_size);

/* =================================================================================================
 * Figures
 * =================================================================================================
 *
 * Options have a field for a tfckpt_stats, which the call fills, also when it fails.
 */

/** What a call did, in numbers. */
typedef struct tfckpt_stats {
  size_t   struct_size;               /* sizeof(tfckpt_stats); set by the caller. */
  uint64_t num_tensors;               /* Tensors that the call was asked to move. */
  uint64_t bytes;                     /* Bytes of tensors saved or restored. */
  uint64_t bytes_io;                  /* Bytes read from or written to data files, gaps between
                                       * tensors included. */
  uint64_t bytes_verified;            /* Bytes read whose checksum was checked. */
  uint64_t num_io;                    /* System calls that read or wrote tensor data. */
  uint64_t elapsed_ns;                /* Wall clock of the call in nanoseconds. */
  uint64_t sync_ns;                   /* Of which waiting until a save was durable and published. */
  uint64_t peak_host_bytes;           /* Most bytes of the budget that the call had set aside for
                                       * buffers at once. */
  uint32_t num_threads;               /* Threads that moved bytes, the calling one included. */
  uint64_t bytes_direct;              /* Of bytes_io, those that went past the page cache,
                                       * straight between the disk and a buffer, because the
                                       * context has found that to be faster on the mount, or has
                                       * yet to find out. Of a durable save they are all but the
                                       * ends of files, or none. */
  uint64_t bytes_cold;                /* Of the bytes that a restore read, those that it took
                                       * from the disk: they were not in the page cache, or were
                                       * read ahead into it meanwhile. */
  uint64_t bytes_verified_by_chunks;  /* Of bytes_verified, those checked by the chunk checksums
                                       * of the sidecar "PREFIX.crc32c". */
  uint64_t bytes_unverified;          /* Bytes restored whose checksum was not checked. */
  uint64_t num_sidecar_ignored;       /* With TFCKPT_VERIFY_FETCHED: stored pieces of which a
                                       * part was read unverified although there is a sidecar. It
                                       * is damaged, or of another save, or does not list the
                                       * piece; tfckpt_reader_verify tells which. */
  uint64_t bytes_device;              /* Bytes copied from or to devices. */
  uint64_t device_wait_ns;            /* Nanoseconds that the threads have waited for copies from
                                       * and to devices, all together, the wait for the last ones
                                       * included, or for a page-locked buffer while other
                                       * threads had all of them. What is left of elapsed_ns
                                       * times num_threads they were reading, writing, checking
                                       * and page-locking. */
  uint64_t num_slots;                 /* Page-locked buffers that the call had for copies from
                                       * and to devices. */
  uint64_t num_retries;               /* Page-locked buffers that it could not have, and did
                                       * without. */
  uint64_t peak_pinned_bytes;         /* Bytes of those that it had; of peak_host_bytes, which
                                       * counts those that it did not need, too. */
} tfckpt_stats;
#define TFCKPT_STATS_INIT { sizeof(tfckpt_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
    0, 0, 0 }

/** Sets *stats to zeros; struct_size is sizeof(tfckpt_stats). */
TFCKPT_MUST_USE tfckpt_code tfckpt_stats_init(tfckpt_stats *stats, size_t struct_size);

/* =================================================================================================
 * Saving
 * =================================================================================================
 *
 * A save writes temporary files first and renames them when they are complete and on disk, the
 * index last: a checkpoint exists when its index does. Whatever goes wrong before that leaves every
 * earlier checkpoint as it was, also one of the same prefix. Of the older format V1, which
 * TensorFlow still reads and writes, the checkpoint is one file, or one file per shard, the first
 * of them renamed last.
 */

/** How a checkpoint is saved. All zeros is the default, and TensorFlow's way. */
typedef struct tfckpt_save_options {
  size_t                struct_size;          /* sizeof(tfckpt_save_options) */
  const tfckpt_context *context;              /* NULL = one for this call. */
  const int64_t        *global_step;          /* Appended to the prefix as "-<step>"; NULL =
                                               * nothing is. */
  int32_t               pad_step_number;      /* Not 0: the step is written with at least 8
                                               * digits. */
  int32_t               update_state;         /* Not 0: the file "checkpoint" beside the prefix
                                               * names this checkpoint as the latest. */
  int32_t               save_relative_paths;  /* Not 0: that file holds relative paths, so that
                                               * the folder can be moved. */
  int32_t               no_sync;              /* Not 0: no fsync. The checkpoint then survives a
                                               * crash of the process, not one of the system. */
  int32_t               shard_by_device;      /* Not 0: the tensors of each device_name get a
                                               * data file of their own. */
  int32_t               format;               /* TFCKPT_FORMAT_*: the format that is written. V1
                                               * has fewer dtypes and records below 2 GiB, and no
                                               * folder is created for it. */
  uint64_t              max_shard_size;       /* Most bytes of a data file, alignment included,
                                               * as far as whole tensors allow; 0 = no limit. */
  uint64_t              alignment;            /* Alignment of every tensor in its data file in
                                               * bytes, a power of two up to 1 MiB, for views; 0
                                               * and 1 = packed, as TensorFlow packs. */
  uint64_t              max_host_bytes;       /* As in tfckpt_context_options, for this call; 0 =
                                               * the context's alone. */
  tfckpt_progress_fn    progress;             /* NULL = no progress. */
  void                 *user_data;            /* Passed to progress. */
  tfckpt_stats         *stats;                /* Filled if not NULL. Must be NULL for a job:
                                               * tfckpt_job_stats has its figures. */
  int32_t               chunk_checksums;      /* Not 0: the sidecar "PREFIX.crc32c" is written
                                               * too, with a checksum of each MiB of every tensor
                                               * that is larger, 4 KiB for each GiB.
                                               * TFCKPT_VERIFY_FETCHED then reads and verifies a
                                               * slice without the rest of its tensor. For V2
                                               * only; TensorFlow does not look at it.
                                               * docs/sidecar.md has its format. */
  int32_t               borrow;               /* Of a job only. 0: tfckpt_save_async copies the
                                               * tensors within the budget before it returns. Not
                                               * 0: it returns at once, and the tensors must not
                                               * change until tfckpt_job_wait_snapshot says so. */
  int32_t               device_snapshot;      /* Of a job only. Not 0: tensors in device memory
                                               * are copied within their device, if it has room
                                               * for all of them, and the call does not wait for
                                               * that: tfckpt_job_snapshot_stream_wait orders the
                                               * stream that changes them, and
                                               * tfckpt_job_wait_snapshot waits on the host. The
                                               * host's tensors are copied before the call
                                               * returns; it returns later if max_host_bytes has
                                               * no room for copies of those. The copies within
                                               * devices go when the job ends. Without room on a
                                               * device it is as if this were 0. */
} tfckpt_save_options;
#define TFCKPT_SAVE_OPTIONS_INIT { sizeof(tfckpt_save_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
    0, 0, 0, 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_save_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_save_options_init(tfckpt_save_options *options, size_t struct_size);

/**
 * Saves num_tensors tensors to the checkpoint prefix, such as "/models/a/model.ckpt", in the order
 * of the array. A folder that is missing is created, one level of it. options may be NULL.
 * *prefix_out (unless prefix_out is NULL) receives the prefix with its step, to be freed with
 * tfckpt_string_free; of a checkpoint of format V1 that shard_by_device or max_shard_size cut into
 * files, the pattern "model.ckpt-?????-of-00002", which stands for it in every other call.
 *
 * Errors: INVALID_ARGUMENT for tensors or options that do not fit together, found before anything
 * is written; RESOURCE_EXHAUSTED when the disk is full; PERMISSION_DENIED; NOT_FOUND for a folder
 * that cannot be created; CANCELLED.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_save(const char *prefix, const tfckpt_tensor *tensors, size_t num_tensors,
            const tfckpt_save_options *options, char **prefix_out, tfckpt_error **error_out);

/* =================================================================================================
 * Restoring
 * =================================================================================================
 *
 * A restore fills the caller's memory. Names, dtypes, shapes and slices of all tensors are compared
 * with the checkpoint before the first byte is written, and every checksum is verified unless the
 * caller asks for less.
 *
 * With codes_out, an array of one code per tensor, the failure of one tensor does not keep the
 * others from being restored: TFCKPT_OK means complete and verified, an error that the contents are
 * undefined, TFCKPT_ABORTED that the tensor was not attempted; the call returns the code of the
 * first tensor of the array that failed. Without it the first failure ends the call, and nothing is
 * written if that is known beforehand: as in TensorFlow a key that is missing comes before anything
 * else, and dtypes that differ make one message, a line for each.
 */

#define TFCKPT_VERIFY_FULL    0  /* Every stored piece that a request touches is read and
                                  * verified whole, as TensorFlow does. */
#define TFCKPT_VERIFY_FETCHED 1  /* Pieces that are needed whole are verified; of others only the
                                  * bytes needed are read, unverified. With a sidecar
                                  * "PREFIX.crc32c" (chunk_checksums of tfckpt_save_options)
                                  * these are verified too: the chunks of 1 MiB that they lie in
                                  * are read and checked. A sidecar that is damaged, or of
                                  * another save, is ignored; tfckpt_stats says so. */
#define TFCKPT_VERIFY_NONE    2  /* Nothing is verified. */

/** How tensors are restored. All zeros is the default. */
typedef struct tfckpt_restore_options {
  size_t                struct_size;           /* sizeof(tfckpt_restore_options) */
  const tfckpt_context *context;               /* NULL = the reader's, or one for this call. */
  int32_t               verify;                /* TFCKPT_VERIFY_* */
  uint64_t              max_host_bytes;        /* As in tfckpt_context_options, for this call; 0
                                                * = the context's alone. */
  tfckpt_progress_fn    progress;              /* NULL = no progress. */
  void                 *user_data;             /* Passed to progress. */
  tfckpt_stats         *stats;                 /* Filled if not NULL. Must be NULL for a job:
                                                * tfckpt_job_stats has its figures. */
  int32_t               reshape;               /* Non-zero: a stored tensor, or the slice that
                                                * slice_spec asks for, may have another shape
                                                * than the tensor that it is restored to, if only
                                                * it has as many elements. */
  int32_t               restore_sequentially;  /* Non-zero: within each device_name, tensors are
                                                * restored one after the other, in the order of
                                                * the array. All are checked before the first
                                                * byte is written, as without. */
  int32_t               in_request_order;      /* Non-zero: tensors are read in about the order
                                                * of the array, rather than in that of the files,
                                                * so that tfckpt_job_wait_tensor can hand them
                                                * out early. Tensors of strings come after the
                                                * others. */
  int32_t               keep_going;            /* Non-zero: as if codes_out were given, for a
                                                * job, whose codes are fetched afterwards. */
  int32_t               strict;                /* Non-zero: a tensor is verified before its first
                                                * byte goes to a device, for which large ones are
                                                * read twice. Otherwise a checksum that differs
                                                * leaves device memory with anything, as it does
                                                * host memory. */
  int32_t               stream_ordered;        /* Non-zero: the call returns when the copies to
                                                * devices are enqueued; what is enqueued on the
                                                * tensors' streams afterwards comes after them.
                                                * Without effect on devices all of whose tensors
                                                * are TFCKPT_TENSOR_UNORDERED, on a saver with
                                                * saveables, and if the call fails: the copies
                                                * have run then. Must be 0 for a job. */
} tfckpt_restore_options;
#define TFCKPT_RESTORE_OPTIONS_INIT { sizeof(tfckpt_restore_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, \
    0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_restore_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_restore_options_init(tfckpt_restore_options *options, size_t struct_size);

/**
 * Opens the checkpoint prefix, restores num_tensors tensors from it and closes it. options and
 * codes_out may be NULL. Memory of two tensors must not overlap.
 *
 * Errors: NOT_FOUND for a checkpoint or key that is not there; INVALID_ARGUMENT for a dtype or
 * shape that differs, with TensorFlow's text; DATA_LOSS for a checksum that differs; OUT_OF_RANGE
 * for a data file that is too short; CANCELLED.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_restore(const char *prefix, const tfckpt_tensor *tensors, size_t num_tensors,
               const tfckpt_restore_options *options, tfckpt_code *codes_out,
               tfckpt_error **error_out);

/* =================================================================================================
 * The latest checkpoint
 * =================================================================================================
 *
 * The file "checkpoint" of a folder names its latest checkpoint. An engine that finds none starts
 * afresh, so TFCKPT_NOT_FOUND means exactly that there is no such file; one that names a checkpoint
 * which is damaged or gone is TFCKPT_DATA_LOSS.
 */

/** How the latest checkpoint is found, and what was found. All zeros is the default. */
typedef struct tfckpt_latest_options {
  size_t      struct_size;      /* sizeof(tfckpt_latest_options) */
  const char *latest_filename;  /* Name of the state file in the folder; NULL = "checkpoint". */
  int32_t     fall_back;        /* In. Not 0: if the checkpoint named is incomplete, take the
                                 * last complete one of the others that the file lists. */
  int32_t     rebase;           /* In. Not 0: a recorded path that is gone is tried as the folder
                                 * and its last part, for a folder that was moved. */
  int32_t     fell_back;        /* Out. 1 if it is not the checkpoint named, 0 otherwise. */
  char       *reason;           /* Out. Why, to be freed with tfckpt_string_free, before the next
                                 * call with the same options; NULL if fell_back is 0. */
} tfckpt_latest_options;
#define TFCKPT_LATEST_OPTIONS_INIT { sizeof(tfckpt_latest_options), 0, 0, 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_latest_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_latest_options_init(tfckpt_latest_options *options, size_t struct_size);

/**
 * Finds the latest checkpoint of the folder dir. *prefix_out receives its prefix, to be freed with
 * tfckpt_string_free. options may be NULL; its out fields are written on success.
 *
 * The checkpoint is complete: its index opens and every data file reaches the end of what the index
 * says of it. Contents are not verified.
 *
 * Errors: NOT_FOUND without a state file; DATA_LOSS if the checkpoint that it names is incomplete,
 * or it cannot be parsed; INVALID_ARGUMENT if it names none; PERMISSION_DENIED.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_latest_checkpoint(const char *dir, tfckpt_latest_options *options, char **prefix_out,
                         tfckpt_error **error_out);

/* =================================================================================================
 * Saving from several processes
 * =================================================================================================
 *
 * Where the tensors of a model are spread over processes, each saves its own as a part, and one of
 * them merges the parts into the checkpoint.
 *
 * First, all agree on the prefix and on a save_id, such as the step, or a random number that
 * process 0 sends to the others. Each calls tfckpt_save_shard with its own shard number and
 * tensors.
 *
 * Second, all wait until every part is saved: at a barrier, or by a message to process 0.
 *
 * Third, process 0 calls tfckpt_merge with the parts in the order of their numbers. Then the
 * checkpoint is there, and the parts are gone.
 *
 * The parts are "PREFIX_temp_ID/part-SSSSS-of-NNNNN", with ID for save_id and numbers of five
 * digits from 00000, on a file system that all processes see. Each is a checkpoint that a reader
 * opens. The merged files equal, byte for byte, those of one save whose shards have these tensors.
 *
 * A slice of a partitioned tensor may come from any part (slice_spec). Whatever goes wrong in a
 * merge, the parts stay whole and the checkpoint that the prefix had before stays what it was.
 * After a crash, call tfckpt_merge again with the same arguments: it merges, or finishes what the
 * first one began. Parts that nobody will merge are a folder to be removed.
 */

/** How parts are merged. All zeros is the default, and TensorFlow's way. */
typedef struct tfckpt_merge_options {
  size_t                struct_size;          /* sizeof(tfckpt_merge_options) */
  const tfckpt_context *context;              /* NULL = one for this call. */
  int32_t               allow_missing_files;  /* Not 0: parts that are not there are left out. 0
                                               * = they are an error. */
  int32_t               keep_parts;           /* Not 0: the parts stay. Their data files may then
                                               * be the checkpoint's under another name (a hard
                                               * link), so nothing must write to them. 0 = they
                                               * are removed, and the folders they leave empty. */
  int32_t               update_state;         /* Not 0: the file "checkpoint" beside the prefix
                                               * names this checkpoint as the latest. */
  int32_t               save_relative_paths;  /* Not 0: that file holds relative paths, so that
                                               * the folder can be moved. */
  int32_t               no_sync;              /* Not 0: no fsync. 0 = also the parts' data files
                                               * are synced, in case their writers did not. */
  tfckpt_progress_fn    progress;             /* NULL = no progress. Told of no bytes, but can
                                               * cancel. */
  void                 *user_data;            /* Passed to progress. */
  tfckpt_stats         *stats;                /* Filled if not NULL. */
} tfckpt_merge_options;
#define TFCKPT_MERGE_OPTIONS_INIT { sizeof(tfckpt_merge_options), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_merge_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_merge_options_init(tfckpt_merge_options *options, size_t struct_size);

/**
 * Saves num_tensors tensors as part shard (0 to num_shards - 1) of the checkpoint prefix. *part_out
 * (unless part_out is NULL) receives the prefix of the part, to be freed with tfckpt_string_free.
 * options may be NULL; update_state is INVALID_ARGUMENT here. With a global_step the part is one of
 * "PREFIX-<step>", and that is the prefix to give to tfckpt_merge.
 *
 * save_id keeps the parts of two saves to one prefix apart. With NULL the folder is "PREFIX_temp",
 * TensorFlow's name; two saves that overlap then destroy each other's parts, and a part that an
 * earlier save left may be taken for one of this save.
 *
 * A process without tensors saves a part all the same (num_tensors 0), which adds nothing to the
 * checkpoint; so the number of parts need not depend on who has something to save. TensorFlow
 * cannot merge such a part. The folder of the parts is created, but not the one it is in.
 *
 * Errors: As tfckpt_save; INVALID_ARGUMENT for a shard that is not less than num_shards, and for a
 * save_id that is empty or contains a slash.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_save_shard(const char *prefix, uint32_t shard, uint32_t num_shards, const char *save_id,
                  const tfckpt_tensor *tensors, size_t num_tensors,
                  const tfckpt_save_options *options, char **part_out, tfckpt_error **error_out);

/**
 * Merges num_parts parts, given by their prefixes, into the checkpoint prefix, and removes them. A
 * part is any V2 checkpoint, of tfckpt_save_shard, tfckpt_save or TensorFlow; the order decides the
 * numbers of the data files. A checkpoint of that prefix is overwritten as by tfckpt_save. No
 * tensor is copied where parts and checkpoint are on one file system that has hard links. Parts
 * that have a sidecar of chunk checksums give theirs to that of the checkpoint. options may be
 * NULL.
 *
 * Errors: INVALID_ARGUMENT, with TensorFlow's text, for a part that is not there, or if there is
 * none at all, for a tensor that two parts have, and for parts of different byte order or version;
 * INTERNAL, with its text, for a whole tensor of which an earlier part has slices; INVALID_ARGUMENT
 * for slices that overlap; NOT_FOUND, OUT_OF_RANGE or DATA_LOSS, naming the file, for a part that
 * is incomplete or damaged; RESOURCE_EXHAUSTED; CANCELLED.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_merge(const char *const *parts, size_t num_parts, const char *prefix,
             const tfckpt_merge_options *options, tfckpt_error **error_out);

/* =================================================================================================
 * Context
 * =================================================================================================
 *
 * What outlives a call: the number of threads, and the memory that all calls on the context may
 * hold together. Wherever a context is taken, NULL stands for one that is made for the call.
 */

/** How a context is made. All zeros is the default. */
typedef struct tfckpt_context_options {
  size_t       struct_size;        /* sizeof(tfckpt_context_options) */
  uint64_t     max_host_bytes;     /* Most bytes that the library holds for all calls on the
                                    * context together, beyond the caller's memory and what it
                                    * hands to the caller; 0 = 64 MiB, and 256 MiB from when a
                                    * device first takes part; the least is 2 MiB, and 2 MiB for
                                    * each device that takes part with 1 MiB more. A call waits
                                    * until what it needs is free. For a job that copies the
                                    * tensors of a save: their size, 2 MiB for each data file and
                                    * thread (with devices 4 threads at least, unless num_threads
                                    * says otherwise), 6 MiB for each tensor of strings, 2 MiB
                                    * for each device that has taken part, and 1 MiB more, let it
                                    * copy all before it writes. Page-locked buffers for devices
                                    * take what is left then, up to 128 MiB each, which makes the
                                    * copying faster; they are free again as soon as it is done. */
  uint32_t     num_threads;        /* Threads of a call, the calling one included; 0 = one per
                                    * core that the process may use, at most 16. */
  void *const *cuda_contexts;      /* CUcontexts to be used in place of their devices' primary
                                    * ones, num_cuda_contexts of them. They must live as long as
                                    * the context and what was made with it. */
  size_t       num_cuda_contexts;  /* Number of them. */
} tfckpt_context_options;
#define TFCKPT_CONTEXT_OPTIONS_INIT { sizeof(tfckpt_context_options), 0, 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_context_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_context_options_init(tfckpt_context_options *options, size_t struct_size);

/**
 * Makes a context. options may be NULL. INVALID_ARGUMENT for a budget below the minimum;
 * UNAVAILABLE for cuda_contexts without a driver.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_context_new(const tfckpt_context_options *options, tfckpt_context **context_out,
                   tfckpt_error **error_out);

/**
 * Frees the memory that the context keeps for the copies of jobs, and for copies from and to
 * devices. It is kept because fresh memory costs more than a copy into it; it counts against
 * max_host_bytes, and goes by itself when other calls on the context need it. NULL is accepted.
 */
void tfckpt_context_trim(const tfckpt_context *context);

/**
 * Frees a context. NULL is accepted. Readers, savers and jobs made with it keep what they need of
 * it.
 */
void tfckpt_context_free(tfckpt_context *context);

/* =================================================================================================
 * Buffers
 * =================================================================================================
 *
 * Memory for tensors to be restored into, for a program that has none yet. Memory that is fresh
 * from malloc is given out in small pages as it is touched, which takes longer than reading a file
 * from the page cache; a buffer is in huge pages where the system has them, several times as fast.
 * Its tensors are the caller's to lay out, at multiples of 64 bytes for example.
 */

/**
 * Allocates size bytes of zeros, aligned to 2 MiB; 0 bytes are allowed. *buffer_out is the
 * caller's, to be freed with tfckpt_buffer_free. The system gives out the memory as it is touched:
 * by a restore, on all of its threads.
 *
 * Errors: RESOURCE_EXHAUSTED when the memory cannot be had.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_buffer_new(size_t size, tfckpt_buffer **buffer_out, tfckpt_error **error_out);

/** The bytes of a buffer, to be read and written. Borrowed from it; NULL for NULL. */
void *tfckpt_buffer_data(const tfckpt_buffer *buffer);

/** Number of bytes of a buffer; 0 for NULL. */
size_t tfckpt_buffer_size(const tfckpt_buffer *buffer);

/** Frees a buffer; nothing may use its bytes any more. NULL is accepted. */
void tfckpt_buffer_free(tfckpt_buffer *buffer);

/* =================================================================================================
 * GPUs
 * =================================================================================================
 *
 * A tensor of any save or restore in format V2 may be in the memory of a CUDA device: device_type
 * TFCKPT_DEVICE_CUDA, its number in device_id, a device pointer in data. In format V1 that is
 * UNIMPLEMENTED, and tensors of strings are on the host. The library loads NVIDIA's driver when it
 * is first needed; without one everything else works, and tensors on devices are UNAVAILABLE.
 *
 *     tensor.device_type = TFCKPT_DEVICE_CUDA;
 *     tensor.device_id = 0;
 *     tensor.data = device_pointer;
 *     tensor.stream = stream;        // NULL: the legacy default stream.
 *
 * Order. The copies of a call come after what was enqueued on the tensors' streams before it, and
 * have run when it returns; with stream_ordered in the options of a restore it returns earlier, and
 * what is enqueued on those streams afterwards comes after the copies. Memory of a pool is valid on
 * other streams only behind its allocation, so say on which stream it was allocated. A call waits
 * for its own copies, so a stream that waits for something that the caller does only after the call
 * has returned blocks it for ever: give such tensors TFCKPT_TENSOR_UNORDERED, or use a job. A
 * stream that is being captured into a graph is FAILED_PRECONDITION, and so is the legacy default
 * stream while one is that waits for it.
 *
 * Lifetime. A stream must live until every call that it is given to has returned; a job no longer
 * needs it once the call that starts it has returned. The stream's CUDA context must live until the
 * job has ended. Never give a call a stream that was destroyed: CUDA leaves undefined what it does
 * with one, and the library cannot tell it from one that lives.
 *
 * Memory. Bytes pass through page-locked buffers, at most 128 MiB for a device, within
 * max_host_bytes: a budget must hold 2 MiB for each device that takes part and 1 MiB more, and the
 * default is 256 MiB once a device takes part. The buffers are kept in the context, as making them
 * takes longer than using them; tfckpt_context_trim frees them. Those of a call with stream_ordered
 * are in use until its copies have run: others get buffers of their own as far as max_host_bytes
 * goes, and wait for these beyond. So give calls a context: one that is made for a call frees its
 * buffers at the end, which may wait for everything that the device has to do. The library takes
 * device memory for device_snapshot and for tensors that it hands out as DLPack, and for nothing
 * else.
 *
 * Guest. The library uses each device's primary context, as the CUDA runtime does, and holds it as
 * long as the context of the library lives in which a call has used the device. After every call,
 * and in progress callbacks, the thread's current context is what it was, and a capture on another
 * thread goes on. Nothing is freed when the process exits, and a child that was forked after CUDA
 * was used gets FAILED_PRECONDITION.
 *
 * Errors of the driver have its number and name in their message: RESOURCE_EXHAUSTED for memory,
 * INVALID_ARGUMENT for a pointer or stream that is not the device's, INTERNAL for what is wrong
 * with the device. Then what the call restored on that device is undefined.
 */

/** What NVIDIA's driver is. */
typedef struct tfckpt_cuda_driver {
  size_t  struct_size;       /* sizeof(tfckpt_cuda_driver); set by the caller. */
  int32_t version;           /* The newest CUDA that the driver supports, as CUDA counts: 13040
                              * is CUDA 13.4. */
  int32_t num_devices;       /* Number of devices, as the environment lets the process see them. */
  int32_t has_batch_copies;  /* 1 if it enqueues many copies with one call, otherwise 0. */
} tfckpt_cuda_driver;
#define TFCKPT_CUDA_DRIVER_INIT { sizeof(tfckpt_cuda_driver), 0, 0, 0 }

/** What a device is. What is supported is 1 or 0. */
typedef struct tfckpt_cuda_device {
  size_t      struct_size;                 /* sizeof(tfckpt_cuda_device); set by the caller. */
  const char *name;                        /* As the driver calls it. It lives as long as the
                                            * process. */
  uint64_t    total_memory;                /* Bytes of memory. */
  int32_t     compute_major;               /* Major version of its compute capability. */
  int32_t     compute_minor;               /* Minor version of its compute capability. */
  int32_t     num_copy_engines;            /* Copies that run at the same time, beside kernels. */
  int32_t     numa_node;                   /* The host's NUMA node that is closest; negative if
                                            * the driver does not say. */
  int32_t     reads_pageable_memory;       /* It reads the host's ordinary memory by itself. */
  int32_t     registers_host_memory;       /* The host's memory can be page-locked after it was
                                            * allocated. */
  int32_t     registers_read_only_memory;  /* That can be done for memory that may only be read. */
  int32_t     has_memory_pools;            /* Memory can be allocated in the order of a stream. */
  int32_t     has_direct_access;           /* Other devices reach its memory over the bus. */
} tfckpt_cuda_device;
#define TFCKPT_CUDA_DEVICE_INIT { sizeof(tfckpt_cuda_device), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** Sets *driver to zeros; struct_size is sizeof(tfckpt_cuda_driver). */
TFCKPT_MUST_USE tfckpt_code tfckpt_cuda_driver_init(tfckpt_cuda_driver *driver, size_t struct_size);

/** Sets *device to zeros; struct_size is sizeof(tfckpt_cuda_device). */
TFCKPT_MUST_USE tfckpt_code tfckpt_cuda_device_init(tfckpt_cuda_device *device, size_t struct_size);

/**
 * Whether tensors may be on CUDA devices: TFCKPT_OK, or why not. Loads the driver, but touches no
 * device.
 *
 * Errors: UNAVAILABLE: there is no driver, no device, only a toolkit's stub of the driver, or the
 * driver is too old; FAILED_PRECONDITION in a process that was forked after CUDA was used.
 */
TFCKPT_MUST_USE tfckpt_code tfckpt_cuda_available(tfckpt_error **error_out);

/**
 * Fills *driver.
 *
 * Errors: As tfckpt_cuda_available.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_cuda_describe(tfckpt_cuda_driver *driver, tfckpt_error **error_out);

/**
 * Fills *device with what is known of the device with number device_id. Does not make a context on
 * it.
 *
 * Errors: INVALID_ARGUMENT if there is no such device; as tfckpt_cuda_available.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_cuda_describe_device(int32_t device_id, tfckpt_cuda_device *device,
                            tfckpt_error **error_out);

/* =================================================================================================
 * Reader
 * =================================================================================================
 *
 * An open checkpoint, for more than one restore and for looking at what is there. Functions that
 * take a const reader may run at the same time on any number of threads.
 *
 * The format is found out from the files, as TensorFlow does: V2 if there is an index, else V1,
 * whose sharded checkpoints go by the pattern "model.ckpt-?????-of-00002" with literal question
 * marks. A V1 checkpoint has no checksum and no place per tensor, so that both are 0 in its
 * entries.
 */

/** How a checkpoint is opened. All zeros is the default. */
typedef struct tfckpt_reader_options {
  size_t                struct_size;  /* sizeof(tfckpt_reader_options) */
  const tfckpt_context *context;      /* Used by the reader's calls that are given none; NULL =
                                       * one for each call. */
} tfckpt_reader_options;
#define TFCKPT_READER_OPTIONS_INIT { sizeof(tfckpt_reader_options), 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_reader_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_options_init(tfckpt_reader_options *options, size_t struct_size);

/**
 * Opens the checkpoint prefix, which is taken literally: not the path of one of its files, not a
 * pattern. The folder of a SavedModel opens its variables. options may be NULL.
 *
 * Errors: NOT_FOUND when there is none; DATA_LOSS when the index cannot be read; INVALID_ARGUMENT
 * for the path of a checkpoint's file, or a version that is not for this library.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_open(const char *prefix, const tfckpt_reader_options *options,
                   tfckpt_reader **reader_out, tfckpt_error **error_out);

/** Closes a checkpoint. NULL is accepted. */
void tfckpt_reader_free(tfckpt_reader *reader);

/** The prefix that was opened. Borrowed from the reader; NULL for NULL. */
const char *tfckpt_reader_prefix(const tfckpt_reader *reader);

/** Number of data files; 0 for NULL. */
uint32_t tfckpt_reader_num_shards(const tfckpt_reader *reader);

/**
 * Number of tensors; goes through the index.
 *
 * Errors: DATA_LOSS when part of the index is damaged.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_num_tensors(const tfckpt_reader *reader, size_t *num_out, tfckpt_error **error_out);

/**
 * A line for each tensor, such as "w (DT_FLOAT) [2,2]", as debug_string of TensorFlow's
 * NewCheckpointReader has them: in the order of the keys; a partitioned tensor with its slices,
 * where TensorFlow has lines for the keys of the slices if the format is V2. *string_out is the
 * caller's, to be freed with tfckpt_string_free. Keys need not be UTF-8, and so the string need not
 * be; a NUL in one is shown as \0.
 *
 * Errors: DATA_LOSS when an entry, or part of the index, is damaged.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_debug_string(const tfckpt_reader *reader, char **string_out,
                           tfckpt_error **error_out);

/** As tfckpt_restore, from an open checkpoint. */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_restore(const tfckpt_reader *reader, const tfckpt_tensor *tensors, size_t num_tensors,
                      const tfckpt_restore_options *options, tfckpt_code *codes_out,
                      tfckpt_error **error_out);

/* =================================================================================================
 * Entries
 * =================================================================================================
 *
 * What an index says of a tensor. An entry or an iteration keeps what it needs of the checkpoint
 * alive and may outlive the reader.
 */

/**
 * What the index says of one tensor. *entry_out is the caller's, to be freed with
 * tfckpt_entry_free.
 *
 * Errors: NOT_FOUND; DATA_LOSS when its entry, or the part of the index it would be in, is damaged.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_find(const tfckpt_reader *reader, const char *key, size_t key_size,
                   tfckpt_entry **entry_out, tfckpt_error **error_out);

/**
 * Begins to go through all tensors in the order of their keys. *entries_out is the caller's, to be
 * freed with tfckpt_entries_free.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_entries(const tfckpt_reader *reader, tfckpt_entries **entries_out,
                      tfckpt_error **error_out);

/**
 * Moves on to the next tensor. *entry_out is borrowed until the next call; NULL at the end. An
 * entry that is damaged is delivered with its code, see tfckpt_entry_code.
 *
 * Errors: DATA_LOSS, once and at the end, when part of the index is damaged: all sound entries have
 * been delivered then, and *entry_out is NULL.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_entries_next(tfckpt_entries *entries, const tfckpt_entry **entry_out,
                    tfckpt_error **error_out);

/** Ends an iteration. NULL is accepted. */
void tfckpt_entries_free(tfckpt_entries *entries);

/**
 * Key, not NUL-terminated, and its length in bytes in *size_out (which may be NULL). Borrowed from
 * the entry, as everything that follows; NULL for NULL.
 */
const char *tfckpt_entry_key(const tfckpt_entry *entry, size_t *size_out);

/** TFCKPT_OK, or what is wrong with the entry; the functions below then return 0 or NULL. */
TFCKPT_MUST_USE tfckpt_code tfckpt_entry_code(const tfckpt_entry *entry);

/** What is wrong with the entry; NULL if nothing is. */
const char *tfckpt_entry_message(const tfckpt_entry *entry);

/** TFCKPT_DTYPE_* of the tensor. */
int32_t tfckpt_entry_dtype(const tfckpt_entry *entry);

/** Number of dimensions; of the full tensor if it is partitioned. */
int32_t tfckpt_entry_rank(const tfckpt_entry *entry);

/** Sizes of the dimensions, outermost first. */
const int64_t *tfckpt_entry_shape(const tfckpt_entry *entry);

/**
 * Bytes of the tensor in the data files; of a partitioned one what the full tensor takes, 0 if its
 * elements are strings.
 */
uint64_t tfckpt_entry_size(const tfckpt_entry *entry);

/** Number of the data file; 0 for a partitioned tensor. */
uint32_t tfckpt_entry_shard_id(const tfckpt_entry *entry);

/** First byte in the data file; 0 for a partitioned tensor. */
uint64_t tfckpt_entry_offset(const tfckpt_entry *entry);

/** CRC-32C of the bytes, unmasked; 0 for a partitioned tensor. */
uint32_t tfckpt_entry_crc32c(const tfckpt_entry *entry);

/** Number of slices in which the tensor is stored; 0 if it is stored whole. */
size_t tfckpt_entry_num_slices(const tfckpt_entry *entry);

/** Slice i, such as "0,2:-"; NULL if there is no such slice. */
const char *tfckpt_entry_slice(const tfckpt_entry *entry, size_t i);

/** Frees an entry from tfckpt_reader_find. NULL is accepted. */
void tfckpt_entry_free(tfckpt_entry *entry);

/* =================================================================================================
 * Object graph
 * =================================================================================================
 *
 * The objects of a checkpoint that tf.train.Checkpoint or tf.saved_model.save wrote. In such a
 * checkpoint a tensor's key is a path through the objects, and not the name of a variable as it is
 * with tf.train.Saver; here keys are found by name and by path. A path is the names that lead from
 * the root to an object, such as "net/layers/0/kernel"; in a name "." is written as ".." and "/" as
 * ".S". What an optimizer keeps for a variable has the path
 * "PATH/.OPTIMIZER_SLOT/PATH_OF_OPTIMIZER/SLOT".
 *
 * Strings that getters return are UTF-8, not NUL-terminated, and borrowed from the graph; their
 * length in bytes goes to *size_out, which may be NULL. The graph does not need the reader any
 * more.
 */

/**
 * Reads the objects of an open checkpoint. *graph_out is the caller's, to be freed with
 * tfckpt_object_graph_free.
 *
 * Errors: NOT_FOUND if the checkpoint is one of names only, as tf.train.Saver writes; DATA_LOSS
 * when the graph is damaged.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_object_graph(const tfckpt_reader *reader, tfckpt_object_graph **graph_out,
                           tfckpt_error **error_out);

/**
 * Number of tensors that belong to objects; 0 for NULL. They are in the order of the objects,
 * nearest to the root first, what optimizers keep last.
 */
size_t tfckpt_object_graph_num_tensors(const tfckpt_object_graph *graph);

/**
 * Key of tensor i in the checkpoint; NULL if there is no such tensor. Of a table or an iterator
 * TensorFlow notes only how the keys begin.
 */
const char *tfckpt_object_graph_key(const tfckpt_object_graph *graph, size_t i, size_t *size_out);

/**
 * What tf.train.Saver would have called tensor i; empty for what is no variable, NULL if there is
 * no such tensor.
 */
const char *
tfckpt_object_graph_full_name(const tfckpt_object_graph *graph, size_t i, size_t *size_out);

/**
 * Which part of its object's state tensor i is, "VARIABLE_VALUE" for the value of a variable; NULL
 * if there is no such tensor.
 */
const char *
tfckpt_object_graph_attribute(const tfckpt_object_graph *graph, size_t i, size_t *size_out);

/**
 * The path of the object that tensor i belongs to: of several the one that TensorFlow takes for the
 * key. *path_out is the caller's, to be freed with tfckpt_string_free; a NUL in a name is shown as
 * \0.
 *
 * Errors: OUT_OF_RANGE if there is no such tensor; NOT_FOUND if nothing leads from the root to its
 * object.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_object_graph_path(const tfckpt_object_graph *graph, size_t i, char **path_out,
                         tfckpt_error **error_out);

/**
 * Key of the variable that tf.train.Saver would have called name, which is name_size bytes long; of
 * several with this name it is the last, as in TensorFlow. NULL if there is none.
 */
const char *
tfckpt_object_graph_key_of_name(const tfckpt_object_graph *graph, const char *name,
                                size_t name_size, size_t *size_out);

/**
 * Key of the value of the variable at path, which is path_size bytes long; any path that leads to
 * it will do, and a key does. For another part of an object's state "/.ATTRIBUTES/" and the escaped
 * name of the part follow. NULL if there is none.
 */
const char *
tfckpt_object_graph_key_of_path(const tfckpt_object_graph *graph, const char *path,
                                size_t path_size, size_t *size_out);

/** Frees a graph. NULL is accepted. */
void tfckpt_object_graph_free(tfckpt_object_graph *graph);

/* =================================================================================================
 * Views
 * =================================================================================================
 *
 * A tensor's bytes where they lie in the data file, without a copy. A view may outlive the reader.
 */

#define TFCKPT_VIEW_ALLOW_UNALIGNED 1  /* For tfckpt_reader_view: accept an address that is not a
                                        * multiple of the element's alignment. What TensorFlow
                                        * wrote is packed, and so rarely aligned. */
#define TFCKPT_VIEW_NO_VERIFY       2  /* For tfckpt_reader_view: do not verify the checksum,
                                        * which reads all of the data. */

/**
 * Maps a tensor's bytes where they lie in the data file, read-only. The view keeps its mapping
 * alive by itself, also when the checkpoint is deleted or overwritten by this library or by
 * TensorFlow, which replace files and do not rewrite them. If somebody shortens the file, touching
 * the lost part raises SIGBUS. *view_out is the caller's, to be freed with tfckpt_view_free.
 *
 * Errors: FAILED_PRECONDITION for data that cannot be used in place: strings, partitioned,
 * big-endian or misaligned; NOT_FOUND; DATA_LOSS.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_view(const tfckpt_reader *reader, const char *key, size_t key_size, uint32_t flags,
                   tfckpt_view **view_out, tfckpt_error **error_out);

/** The bytes of a view. Borrowed from it; NULL for NULL. */
const void *tfckpt_view_data(const tfckpt_view *view);

/** Number of bytes of a view; 0 for NULL. */
size_t tfckpt_view_size(const tfckpt_view *view);

/** Frees a view and unmaps its bytes. NULL is accepted. */
void tfckpt_view_free(tfckpt_view *view);

/* =================================================================================================
 * Verifying a checkpoint
 * =================================================================================================
 *
 * Reads all of it and compares every checksum, those of the index included. A sidecar of chunk
 * checksums is compared with the index.
 */

/** Called for each thing that is broken. The error is borrowed for the call. */
typedef void (*tfckpt_damage_fn)(const tfckpt_error *error, void *user_data);

/** How a checkpoint is verified. All zeros is the default. */
typedef struct tfckpt_verify_options {
  size_t                struct_size;  /* sizeof(tfckpt_verify_options) */
  const tfckpt_context *context;      /* NULL = the reader's, or one for this call. */
  tfckpt_progress_fn    progress;     /* NULL = no progress. */
  tfckpt_damage_fn      damage;       /* Called on the calling thread; NULL = damage is only
                                       * counted. */
  void                 *user_data;    /* Passed to progress and damage. */
  tfckpt_stats         *stats;        /* Filled if not NULL. */
} tfckpt_verify_options;
#define TFCKPT_VERIFY_OPTIONS_INIT { sizeof(tfckpt_verify_options), 0, 0, 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_verify_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_verify_options_init(tfckpt_verify_options *options, size_t struct_size);

/**
 * Checks every checksum of an open checkpoint. options may be NULL. *num_damaged_out (unless
 * num_damaged_out is NULL) receives the number of things that are broken.
 *
 * Errors: That of the first thing that is broken; CANCELLED.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_verify(const tfckpt_reader *reader, const tfckpt_verify_options *options,
                     uint64_t *num_damaged_out, tfckpt_error **error_out);

/* =================================================================================================
 * Checkpoint state
 * =================================================================================================
 *
 * The functions of tf.train around the file "checkpoint", which lists the checkpoints of a folder
 * (tensorflow/python/training/checkpoint_state.proto), and around the files of a checkpoint.
 */

/**
 * Reads the state file of the folder dir, as tf.train.get_checkpoint_state does: relative paths are
 * joined to dir. latest_filename NULL = "checkpoint". *state_out is the caller's, to be freed with
 * tfckpt_checkpoint_state_free.
 *
 * Errors: NOT_FOUND without a state file; DATA_LOSS, with the line, if it cannot be parsed;
 * INVALID_ARGUMENT if it names no checkpoint.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_get_checkpoint_state(const char *dir, const char *latest_filename,
                            tfckpt_checkpoint_state **state_out, tfckpt_error **error_out);

/** Path of the latest checkpoint. Borrowed from the state; NULL for NULL. */
const char *tfckpt_checkpoint_state_model_checkpoint_path(const tfckpt_checkpoint_state *state);

/** Number of all_model_checkpoint_paths; 0 for NULL. */
size_t tfckpt_checkpoint_state_num_paths(const tfckpt_checkpoint_state *state);

/**
 * Path i of all_model_checkpoint_paths, the oldest first. Borrowed from the state; NULL if there is
 * no such path.
 */
const char *tfckpt_checkpoint_state_path(const tfckpt_checkpoint_state *state, size_t i);

/** Number of all_model_checkpoint_timestamps; 0 for NULL. */
size_t tfckpt_checkpoint_state_num_timestamps(const tfckpt_checkpoint_state *state);

/** Timestamp i in seconds since 1970; 0 if there is no such timestamp. */
double tfckpt_checkpoint_state_timestamp(const tfckpt_checkpoint_state *state, size_t i);

/** Seconds since 1970 of the last checkpoint that was preserved for good; 0 if there is none. */
double tfckpt_checkpoint_state_last_preserved_timestamp(const tfckpt_checkpoint_state *state);

/** Frees a state. NULL is accepted. */
void tfckpt_checkpoint_state_free(tfckpt_checkpoint_state *state);

/** What goes into a state file beside the latest checkpoint. All zeros is the default. */
typedef struct tfckpt_update_options {
  size_t             struct_size;                      /* sizeof(tfckpt_update_options) */
  const char *const *all_model_checkpoint_paths;       /* All checkpoints that are kept, the
                                                        * oldest first; the latest is appended if
                                                        * it is not the last. */
  size_t             num_paths;                        /* Number of them. */
  const double      *all_model_checkpoint_timestamps;  /* Seconds since 1970 for each of them, or
                                                        * NULL. */
  size_t             num_timestamps;                   /* Number of timestamps. */
  const double      *last_preserved_timestamp;         /* Seconds since 1970 of the last
                                                        * checkpoint preserved for good; NULL =
                                                        * none. */
  const char        *latest_filename;                  /* Name of the state file; NULL =
                                                        * "checkpoint". */
  int32_t            save_relative_paths;              /* Not 0: absolute paths are stored
                                                        * relative to the folder. */
  int32_t            no_sync;                          /* Not 0: no fsync. */
} tfckpt_update_options;
#define TFCKPT_UPDATE_OPTIONS_INIT { sizeof(tfckpt_update_options), 0, 0, 0, 0, 0, 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_update_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_update_options_init(tfckpt_update_options *options, size_t struct_size);

/**
 * Writes the state file of the folder save_dir, byte for byte as tf.train.update_checkpoint_state
 * does, and replaces the old one in one step. options may be NULL.
 *
 * Errors: INVALID_ARGUMENT when numbers of paths and timestamps differ; FAILED_PRECONDITION when
 * the state file and the checkpoint have one path; the system's errors.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_update_checkpoint_state(const char *save_dir, const char *model_checkpoint_path,
                               const tfckpt_update_options *options, tfckpt_error **error_out);

/**
 * Whether there is a checkpoint at prefix, which is taken literally: *exists_out becomes 1 or 0. It
 * need not be complete.
 *
 * Errors: The system's errors when the question cannot be answered.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_checkpoint_exists(const char *prefix, int32_t *exists_out, tfckpt_error **error_out);

/**
 * Times of last change of those of num_prefixes checkpoints that exist, in order, in whole seconds
 * since 1970. mtimes_out has room for num_prefixes; *num_out receives how many were written.
 *
 * Errors: The system's errors other than NOT_FOUND.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_get_checkpoint_mtimes(const char *const *prefixes, size_t num_prefixes, double *mtimes_out,
                             size_t *num_out, tfckpt_error **error_out);

#define TFCKPT_FORMAT_V2 0  /* A checkpoint of index and data files. */
#define TFCKPT_FORMAT_V1 1  /* A checkpoint of one file, or of one per shard. */

/** How a checkpoint is removed. All zeros is the default. */
typedef struct tfckpt_remove_options {
  size_t      struct_size;        /* sizeof(tfckpt_remove_options) */
  int32_t     format;             /* TFCKPT_FORMAT_*: whose files to remove; those of the other
                                   * format stay. */
  const char *meta_graph_suffix;  /* Suffix of the meta graph's file; NULL = "meta". */
  int32_t     no_sync;            /* Not 0: no fsync. */
} tfckpt_remove_options;
#define TFCKPT_REMOVE_OPTIONS_INIT { sizeof(tfckpt_remove_options), 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_remove_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_remove_options_init(tfckpt_remove_options *options, size_t struct_size);

/**
 * Removes the files of the checkpoint prefix, which is taken literally, in TensorFlow's order: the
 * meta graph's file, the index, a sidecar of chunk checksums, the data files. What is not there is
 * no error. options may be NULL.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_remove_checkpoint(const char *prefix, const tfckpt_remove_options *options,
                         tfckpt_error **error_out);

/* =================================================================================================
 * Saveables
 * =================================================================================================
 *
 * What has no memory of its own that could be saved as it is, such as a table that grows, takes
 * part in a saver by callbacks: TensorFlow calls that a SaveableObject. It stands for several named
 * tensors. Before a save it is asked for their elements, before a restore for memory to put them
 * into. All callbacks are made on the thread that calls the saver, but for finish of a job that
 * borrows the tensors, which is made on the job's thread when it ends. They must not use the saver,
 * and must not unwind or longjmp.
 */

/**
 * Fills in data and size of each tensor and, where rank is -1, rank and shape. The memory stays
 * valid and unchanged until finish is called. Not 0: the save fails with TFCKPT_ABORTED.
 */
typedef int32_t (*tfckpt_saveable_save_fn)(tfckpt_tensor *tensors, size_t num_tensors,
                                           void *user_data);

/**
 * Fills in data and size of each tensor, whose rank and shape are known by now. The memory stays
 * valid until finish is called. Not 0: the restore fails with TFCKPT_ABORTED.
 */
typedef int32_t (*tfckpt_saveable_restore_fn)(tfckpt_tensor *tensors, size_t num_tensors,
                                              void *user_data);

/**
 * Follows each call of save or restore; code is what the saver's call returns. After a restore with
 * TFCKPT_OK the memory holds the elements.
 */
typedef void (*tfckpt_saveable_finish_fn)(tfckpt_code code, void *user_data);

/** Several named tensors made and taken by callbacks. */
typedef struct tfckpt_saveable {
  size_t                     struct_size;  /* sizeof(tfckpt_saveable) */
  const char                *name;         /* Decides its place among the saver's tensors, which
                                            * are in the order of their names. */
  const tfckpt_tensor       *tensors;      /* Descriptions of its tensors. data and size are not
                                            * looked at; rank -1: the shape is known to save, or
                                            * by the checkpoint. */
  size_t                     num_tensors;  /* Number of tensors. */
  tfckpt_saveable_save_fn    save;         /* Must not be NULL. */
  tfckpt_saveable_restore_fn restore;      /* Must not be NULL. */
  tfckpt_saveable_finish_fn  finish;       /* May be NULL. */
  void                      *user_data;    /* Passed to the callbacks; valid as long as the
                                            * saver. */
} tfckpt_saveable;
#define TFCKPT_SAVEABLE_INIT { sizeof(tfckpt_saveable), 0, 0, 0, 0, 0, 0, 0 }

/** Sets *saveable to zeros; struct_size is sizeof(tfckpt_saveable). */
TFCKPT_MUST_USE tfckpt_code tfckpt_saveable_init(tfckpt_saveable *saveable, size_t struct_size);

/* =================================================================================================
 * Saver
 * =================================================================================================
 *
 * What tf.compat.v1.train.Saver does: numbered checkpoints of a fixed list of tensors, a state file
 * that names them, and the deletion of old ones. docs/saver.md has a table of all arguments and
 * methods of TensorFlow's class.
 *
 * A saver copies the descriptions it is given, but not what data points to: that memory stays in
 * use until the saver is freed or tfckpt_saver_bind gives it other memory. A tensor of strings is
 * described one way for saving and another way for restoring: bind it before the call.
 */

#define TFCKPT_KEEP_ALL (-1)  /* Value of max_to_keep: every checkpoint is kept, and the state
                               * file names the latest only. */

/** How a saver is made: the arguments of TensorFlow's class. All zeros is its default. */
typedef struct tfckpt_saver_options {
  size_t                struct_size;                    /* sizeof(tfckpt_saver_options) */
  const tfckpt_context *context;                        /* Used by the saver's calls; NULL = one
                                                         * for each call. */
  int32_t               reshape;                        /* Not 0: a stored tensor of another shape
                                                         * but the same number of elements is
                                                         * restored. */
  int32_t               sharded;                        /* Not 0: the tensors of each device_name
                                                         * get a data file of their own. */
  int32_t               max_to_keep;                    /* Checkpoints to keep; 0 = 5, or
                                                         * TFCKPT_KEEP_ALL. */
  double                keep_checkpoint_every_n_hours;  /* One checkpoint is kept for good for
                                                         * every so many hours; 0 = 10000, negative
                                                         * = TensorFlow's 0: none is ever deleted
                                                         * that is younger than the saver. */
  const char           *name;                           /* Scope of the names in the saver's
                                                         * definition, with saver_def put before
                                                         * them; NULL = "save". */
  int32_t               restore_sequentially;           /* Not 0: a restore takes one tensor after
                                                         * the other within each device. */
  const void           *saver_def;                      /* A serialised tensorflow.SaverDef, in
                                                         * place of sharded, max_to_keep,
                                                         * keep_checkpoint_every_n_hours and
                                                         * write_version; NULL = none. There, 0
                                                         * keeps all. */
  size_t                saver_def_size;                 /* Bytes of saver_def. */
  int32_t               defer_build;                    /* Not 0: the tensors are given later, to
                                                         * tfckpt_saver_build. */
  int32_t               allow_empty;                    /* Not 0: no tensors are no error; saves
                                                         * and restores then do nothing. */
  int32_t               write_version;                  /* TFCKPT_FORMAT_*: the format of the
                                                         * checkpoints. Either is restored. */
  int32_t               pad_step_number;                /* Not 0: the step is written with at least
                                                         * 8 digits. */
  int32_t               save_relative_paths;            /* Not 0: the state file holds relative
                                                         * paths, so that the folder can be moved. */
  const char           *filename;                       /* The path of a save that is given none;
                                                         * NULL = "model". */
  int32_t               shrink_to_max_to_keep;          /* Not 0: a save deletes until max_to_keep
                                                         * checkpoints are left, where TensorFlow
                                                         * deletes one. */
  uint64_t              max_shard_size;                 /* As in tfckpt_save_options. */
  int64_t               now_ns;                         /* When the saver is built, in nanoseconds
                                                         * since 1970; 0 = the system's clock. */
  int32_t               chunk_checksums;                /* As in tfckpt_save_options. With the
                                                         * format V1 the saver is not made:
                                                         * INVALID_ARGUMENT. */
} tfckpt_saver_options;
#define TFCKPT_SAVER_OPTIONS_INIT { sizeof(tfckpt_saver_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
    0, 0, 0, 0, 0, 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_saver_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_options_init(tfckpt_saver_options *options, size_t struct_size);

/**
 * Makes a saver of tensors and saveables, either of which may be an empty array. Give part of a
 * model to save part of it; give other keys to save it under other names. Several slices
 * (slice_spec) may share a key; a variable_name must not appear twice. In errors, tensors are
 * counted through the array of tensors and then through those of the saveables. options may be
 * NULL.
 *
 * Errors: INVALID_ARGUMENT with TensorFlow's text: no tensors, names given twice, tensors of one
 * saveable on several devices, options out of range, a saver_def that cannot be used.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_create(const tfckpt_tensor *tensors, size_t num_tensors,
                    const tfckpt_saveable *saveables, size_t num_saveables,
                    const tfckpt_saver_options *options, tfckpt_saver **saver_out,
                    tfckpt_error **error_out);

/**
 * Gives a saver that was made with defer_build its tensors. On a saver that has been built it does
 * nothing, if it is given none.
 *
 * Errors: As tfckpt_saver_create; FAILED_PRECONDITION for tensors that come too late.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_build(tfckpt_saver *saver, const tfckpt_tensor *tensors, size_t num_tensors,
                   const tfckpt_saveable *saveables, size_t num_saveables,
                   tfckpt_error **error_out);

/**
 * Gives tensors of the saver other memory: those of the same key and slice_spec. Their dtype and
 * shape must be what they were. On failure nothing is changed.
 *
 * Errors: NOT_FOUND for a tensor that the saver does not have; INVALID_ARGUMENT for another dtype
 * or shape.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_bind(tfckpt_saver *saver, const tfckpt_tensor *tensors, size_t num_tensors,
                  tfckpt_error **error_out);

/**
 * Frees a saver. What it has saved stays. Jobs that it has in flight are waited for; call
 * tfckpt_saver_cancel first to shorten that. NULL is accepted.
 */
void tfckpt_saver_free(tfckpt_saver *saver);

/* =================================================================================================
 * Saves and restores of a saver
 * =================================================================================================
 *
 * A save writes the checkpoint, then the state file that names it, and only when both are on disk
 * deletes the checkpoint that is too many. A restore compares the names, dtypes and shapes of all
 * tensors before it writes to any; if a checksum then differs, the memory is left undefined.
 */

/** How one checkpoint is saved: the arguments of Saver.save. All zeros is the default. */
typedef struct tfckpt_saver_save_options {
  size_t             struct_size;        /* sizeof(tfckpt_saver_save_options) */
  const int64_t     *global_step;        /* Appended to the path as "-<step>"; NULL = nothing is. */
  const char        *latest_filename;    /* Name of the state file; NULL = "checkpoint". */
  const char        *meta_graph_suffix;  /* Suffix of the meta graphs that go with the
                                          * checkpoints that are deleted; NULL = "meta". */
  int32_t            write_meta_graph;   /* Must be 0: meta graphs are not written yet. */
  int32_t            no_state;           /* Not 0: the state file is left alone, and nothing is
                                          * deleted. */
  int32_t            no_sync;            /* As in tfckpt_save_options. */
  int64_t            now_ns;             /* When the checkpoint is saved, in nanoseconds since
                                          * 1970; 0 = the system's clock. */
  uint64_t           max_host_bytes;     /* As in tfckpt_context_options, for this call; 0 = the
                                          * context's alone. */
  tfckpt_progress_fn progress;           /* NULL = no progress. */
  void              *user_data;          /* Passed to progress. */
  tfckpt_stats      *stats;              /* Filled if not NULL. Must be NULL for a job:
                                          * tfckpt_job_stats has its figures. */
  int32_t            borrow;             /* As in tfckpt_save_options, for
                                          * tfckpt_saver_save_async. */
  int32_t            device_snapshot;    /* As in tfckpt_save_options, for
                                          * tfckpt_saver_save_async. */
} tfckpt_saver_save_options;
#define TFCKPT_SAVER_SAVE_OPTIONS_INIT { sizeof(tfckpt_saver_save_options), 0, 0, 0, 0, 0, 0, 0, \
    0, 0, 0, 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_saver_save_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_save_options_init(tfckpt_saver_save_options *options, size_t struct_size);

/**
 * Saves the saver's tensors to save_path (NULL = the saver's filename) with its step, writes the
 * state file, and then deletes the checkpoint that is too many. *path_out (unless path_out is NULL)
 * receives the path to restore from, to be freed with tfckpt_string_free; NULL if the saver is
 * empty. A folder that is missing is created, one level of it, unless the saver is sharded or of
 * format V1. options may be NULL.
 *
 * Errors: INVALID_ARGUMENT with TensorFlow's text for names that collide and a folder that does not
 * exist; FAILED_PRECONDITION before the saver is built; UNIMPLEMENTED for write_meta_graph; the
 * errors of tfckpt_save. Then nothing is recorded and nothing deleted.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_save(tfckpt_saver *saver, const char *save_path,
                  const tfckpt_saver_save_options *options, char **path_out,
                  tfckpt_error **error_out);

/**
 * Restores all of the saver's tensors from the checkpoint save_path, of either format. Names,
 * dtypes and shapes are compared before the first byte is written. In a checkpoint of
 * tf.train.Checkpoint, names that are missing are looked up in its object graph. options may be
 * NULL; its context comes before the saver's.
 *
 * Errors: INVALID_ARGUMENT when there is no checkpoint; NOT_FOUND for names that are missing,
 * INVALID_ARGUMENT for dtypes or shapes that differ, both after TensorFlow's words;
 * FAILED_PRECONDITION before the saver is built; the errors of tfckpt_restore.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_restore(tfckpt_saver *saver, const char *save_path,
                     const tfckpt_restore_options *options, tfckpt_error **error_out);

/* =================================================================================================
 * Checkpoints of a saver
 * =================================================================================================
 *
 * The checkpoints that a saver keeps, oldest first. A new saver knows none: after a restart,
 * tfckpt_saver_recover_last_checkpoints with the paths of the state file lets it go on counting.
 */

/**
 * Number of checkpoints that are kept, those of jobs that have ended included; 0 for NULL. The two
 * functions below go by the list that this one has looked at, or the saver's last call.
 */
size_t tfckpt_saver_num_last_checkpoints(const tfckpt_saver *saver);

/**
 * Path i of the checkpoints that are kept. Borrowed from the saver until its next call that is not
 * const; NULL if there is no such checkpoint.
 */
const char *tfckpt_saver_last_checkpoint(const tfckpt_saver *saver, size_t i);

/** When checkpoint i was saved, in seconds since 1970; 0 if there is no such checkpoint. */
double tfckpt_saver_last_checkpoint_time(const tfckpt_saver *saver, size_t i);

/**
 * Replaces the list of checkpoints that are kept. Their time is infinity, so none of them will be
 * deleted: TensorFlow's deprecated Saver.set_last_checkpoints.
 *
 * Errors: FAILED_PRECONDITION before the saver is built.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_set_last_checkpoints(tfckpt_saver *saver, const char *const *paths, size_t num_paths,
                                  tfckpt_error **error_out);

/**
 * Replaces the list of checkpoints that are kept. times holds num_paths times in seconds since
 * 1970.
 *
 * Errors: FAILED_PRECONDITION before the saver is built.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_set_last_checkpoints_with_time(tfckpt_saver *saver, const char *const *paths,
                                            const double *times, size_t num_paths,
                                            tfckpt_error **error_out);

/**
 * Replaces the list of checkpoints that are kept by those of paths that exist, with the times of
 * their files.
 *
 * Errors: FAILED_PRECONDITION before the saver is built; PERMISSION_DENIED.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_recover_last_checkpoints(tfckpt_saver *saver, const char *const *paths,
                                      size_t num_paths, tfckpt_error **error_out);

/**
 * The saver's definition, a serialised tensorflow.SaverDef, as the one element of *saver_def_out,
 * to be freed with tfckpt_strings_free.
 *
 * Errors: FAILED_PRECONDITION before the saver is built, and if it is empty.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_as_saver_def(const tfckpt_saver *saver, tfckpt_strings **saver_def_out,
                          tfckpt_error **error_out);

/* =================================================================================================
 * Saving and restoring in the background
 * =================================================================================================
 *
 * A job is a save or restore that goes on behind the program's back, on a thread of its own with
 * the threads of its context. The functions below check the arguments, start the job and return it;
 * what they return an error for has not begun. What happens later is the job's own error, which
 * tfckpt_job_wait returns.
 *
 *     tfckpt_job *job = NULL;
 *     if (tfckpt_saver_save_async(saver, "/models/a/model.ckpt", &options, &job, &error) != TFCKPT_OK)
 *         return report(error);
 *     train_for_a_while();           // The tensors have been copied: they may change again.
 *     if (tfckpt_job_wait(job, -1, &error) != TFCKPT_OK)
 *         report(error);
 *     tfckpt_job_free(job);
 *
 * A save either copies the tensors first, within the budget, and returns when that is done; or it
 * borrows them (borrow in the options), returns at once, and the caller leaves them alone until
 * tfckpt_job_wait_snapshot says that they may change. The default budget is small: give the context
 * max_host_bytes that hold the model, and from the second save on, when the memory for the copy is
 * there already, the call takes about as long as a memcpy of the model (tfckpt_context_trim frees
 * that memory). What does not fit is copied as memory falls free, and the call returns later; one
 * that saves in format V1 returns when the data has been written.
 *
 * Jobs of one saver write one after the other, in the order in which they were started, and the
 * state file never names a checkpoint that is not complete and on disk. The error of a job that
 * nobody got from tfckpt_job_wait is returned, once, by the saver's next save, which then writes
 * nothing and says so: call again. A process that ends in the middle leaves the checkpoint before.
 *
 * Descriptions are copied, memory is not: what data points to, and what the elements of tensors of
 * strings point to, must stay valid until the job has ended, and of a save until its tensors may
 * change. Progress is reported on the job's thread, and saveables are told on it that a job which
 * borrows has ended. The context may be freed before its jobs.
 */

/**
 * As tfckpt_save, in the background; *job_out receives the job. The prefix is then that of
 * tfckpt_job_prefix.
 *
 * Errors: INVALID_ARGUMENT for tensors or options that do not fit together; RESOURCE_EXHAUSTED
 * without a thread for the job.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_save_async(const char *prefix, const tfckpt_tensor *tensors, size_t num_tensors,
                  const tfckpt_save_options *options, tfckpt_job **job_out,
                  tfckpt_error **error_out);

/**
 * As tfckpt_saver_save, in the background; *job_out receives the job. The saver may be used, and
 * even be freed, before the job ends: freeing it waits. Saveables are asked for their elements
 * before this returns.
 *
 * Errors: Those of arguments, as tfckpt_saver_save; RESOURCE_EXHAUSTED without a thread for the
 * job; the error of an earlier job that nobody fetched from it.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_saver_save_async(tfckpt_saver *saver, const char *save_path,
                        const tfckpt_saver_save_options *options, tfckpt_job **job_out,
                        tfckpt_error **error_out);

/**
 * Asks all jobs of a saver to stop: those that have not published their checkpoint yet end with
 * TFCKPT_CANCELLED, and tfckpt_saver_free is quick then. NULL is accepted.
 */
void tfckpt_saver_cancel(const tfckpt_saver *saver);

/**
 * As tfckpt_restore, in the background; *job_out receives the job, and tfckpt_job_wait_tensor hands
 * the tensors out one by one. Only the descriptions are checked before this returns: the checkpoint
 * is opened by the job.
 *
 * The pointer of a tensor of strings is set to NULL by this call and to the strings as soon as they
 * are restored, whatever becomes of the other tensors: free what is not NULL when the job has
 * ended.
 *
 * Errors: INVALID_ARGUMENT for descriptions or options that cannot be used; RESOURCE_EXHAUSTED
 * without a thread for the job.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_restore_async(const char *prefix, const tfckpt_tensor *tensors, size_t num_tensors,
                     const tfckpt_restore_options *options, tfckpt_job **job_out,
                     tfckpt_error **error_out);

/**
 * As tfckpt_restore_async, from an open checkpoint. The reader may be freed before the job ends.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_restore_async(const tfckpt_reader *reader, const tfckpt_tensor *tensors,
                            size_t num_tensors, const tfckpt_restore_options *options,
                            tfckpt_job **job_out, tfckpt_error **error_out);

/* =================================================================================================
 * Jobs
 * =================================================================================================
 *
 * What can be asked of a job while it runs and afterwards. All functions but tfckpt_job_free may be
 * called by any number of threads at the same time, so that one thread may cancel what another
 * waits for. Those that wait take a time in nanoseconds: 0 only looks, less than 0 waits as long as
 * it takes, and when the time is over the code is TFCKPT_DEADLINE_EXCEEDED. In the job's own
 * progress callback they only look.
 */

/** Whether the job has ended: 1 or 0. It does not wait. 1 for NULL. */
int32_t tfckpt_job_poll(const tfckpt_job *job);

/**
 * Waits until the job has ended and returns what came of it, each time that it is asked: the errors
 * of the save or restore that it is.
 *
 * Errors: The job's; TFCKPT_DEADLINE_EXCEEDED while it is running.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_job_wait(const tfckpt_job *job, int64_t timeout_ns, tfckpt_error **error_out);

/**
 * Waits until the tensors of a save may change again: they have been copied or written, or the job
 * has ended, however. Of a restore, until it has ended.
 *
 * Errors: TFCKPT_DEADLINE_EXCEEDED while they may not; never the job's own.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_job_wait_snapshot(const tfckpt_job *job, int64_t timeout_ns, tfckpt_error **error_out);

/**
 * Waits until tensor i of a restore is complete and verified, or it is known that it will not be,
 * and returns what came of it: TFCKPT_OK, its error, or TFCKPT_ABORTED if the job ended before it
 * got there. The tensor may be used as soon as this returns TFCKPT_OK, whatever becomes of the
 * others.
 *
 * Errors: The tensor's; INVALID_ARGUMENT if the job restores no such tensor;
 * TFCKPT_DEADLINE_EXCEEDED.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_job_wait_tensor(const tfckpt_job *job, size_t i, int64_t timeout_ns,
                       tfckpt_error **error_out);

/**
 * Lets a stream wait until the tensors of a save may change again: what is enqueued on it
 * afterwards may write to those of the stream's device. stream is a CUstream or cudaStream_t of
 * device device_id; NULL and 1 the legacy default stream, 2 the calling thread's. With
 * device_snapshot, and room for it, this returns at once; otherwise as tfckpt_job_wait_snapshot
 * does, which waits on the host. The stream must live until this has returned; one that was
 * destroyed is undefined.
 *
 * Errors: INVALID_ARGUMENT for a stream of another device; FAILED_PRECONDITION for a stream that is
 * being captured into a graph; UNAVAILABLE without a device.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_job_snapshot_stream_wait(const tfckpt_job *job, int32_t device_id, void *stream,
                                tfckpt_error **error_out);

/**
 * Lets a stream wait for tensor i of a restore to device memory: what is enqueued on it afterwards
 * finds the tensor complete. stream is of the tensor's device: a CUstream or cudaStream_t, NULL and
 * 1 the legacy default stream, 2 the calling thread's. The call itself blocks until the tensor's
 * copies are enqueued and its checksum is known, and returns what came of it; it then does not wait
 * for the copies. The stream must live until this has returned; one that was destroyed is
 * undefined. For a tensor in host memory it is tfckpt_job_wait_tensor.
 *
 * Errors: The tensor's; INVALID_ARGUMENT if the job restores no such tensor, or for a stream of
 * another device; FAILED_PRECONDITION for a stream that is being captured into a graph.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_job_stream_wait(const tfckpt_job *job, size_t i, void *stream, tfckpt_error **error_out);

/**
 * Asks the job to stop, which it does within a chunk of data, or when the copies to and from
 * devices have run that are under way: it then ends with TFCKPT_CANCELLED, and nothing new is
 * visible on disk. A job that has published its checkpoint is done. NULL is accepted.
 */
void tfckpt_job_cancel(const tfckpt_job *job);

/**
 * Fills *progress, whose struct_size the caller has set. The totals are 0 until they are known.
 *
 * Errors: INVALID_ARGUMENT for NULL or a size that is not set.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_job_progress(const tfckpt_job *job, tfckpt_progress *progress, tfckpt_error **error_out);

/**
 * Fills *stats, whose struct_size the caller has set, with the figures of a job that has ended.
 *
 * Errors: INVALID_ARGUMENT for NULL or a size that is not set; FAILED_PRECONDITION while the job is
 * running.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_job_stats(const tfckpt_job *job, tfckpt_stats *stats, tfckpt_error **error_out);

/**
 * The prefix of the checkpoint that the job has saved, as tfckpt_save and tfckpt_saver_save return
 * it. Borrowed from the job; NULL until it has ended, and if it has not saved any.
 */
const char *tfckpt_job_prefix(const tfckpt_job *job);

/**
 * Writes the code of each tensor of a restore that has ended to codes_out, an array of as many
 * codes as the job has tensors: TFCKPT_OK for what is complete and verified, the tensor's error, or
 * TFCKPT_ABORTED for what was not attempted.
 *
 * Errors: INVALID_ARGUMENT for another number of tensors; FAILED_PRECONDITION while the job is
 * running.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_job_codes(const tfckpt_job *job, tfckpt_code *codes_out, size_t num_codes,
                 tfckpt_error **error_out);

/**
 * Waits until the job has ended and frees it; call tfckpt_job_cancel first to shorten that. NULL is
 * accepted.
 */
void tfckpt_job_free(tfckpt_job *job);

/* =================================================================================================
 * DLPack
 * =================================================================================================
 *
 * Tensors to and from other libraries, as DLPack's DLManagedTensorVersioned: the struct that
 * PyTorch, JAX, CuPy and NumPy exchange. This header names it only; whoever looks inside includes
 * dlpack.h, before or after this one.
 *
 * In: tfckpt_tensor_from_dlpack describes a tensor of another library's to a save or restore, which
 * borrows it.
 *
 * Out: tfckpt_reader_restore_dlpack restores tensors into memory that it allocates, on the host and
 * on GPUs. Data types and shapes come from the checkpoint.
 *
 *     tfckpt_dlpack_request request = TFCKPT_DLPACK_REQUEST_INIT;
 *     request.key = "dense/kernel";
 *     request.key_size = strlen(request.key);
 *     request.device_type = TFCKPT_DEVICE_CUDA;
 *
 *     struct DLManagedTensorVersioned *kernel = NULL;
 *     tfckpt_reader_restore_dlpack(reader, &request, 1, NULL, &kernel, NULL, &error);
 *     // ... kernel->dl_tensor ...
 *     kernel->deleter(kernel);
 *
 * Ownership. Each tensor is the caller's, who calls its deleter once: on any thread, whatever CUDA
 * context is current there, and also when reader and context are gone. Tensors share allocations;
 * the memory of one goes back when the last tensor in it is deleted. max_slab_size says how many
 * share one.
 *
 * What is handed out begins at a multiple of 256 bytes, is contiguous with its strides given, has
 * byte_offset 0, and NULL for data if it has no elements. 2- and 4-bit types take a byte for each
 * element, as in checkpoints, which a flag says. Tensors of strings, variants and quantized types
 * have no form in DLPack: UNIMPLEMENTED.
 *
 * Memory of the library's own on a GPU is invisible to the figures of the engine around it. A
 * deleter knows no stream: who calls it has ordered its work on the memory before, as CUDA promises
 * of cuMemFree only that it may wait for the device. With alloc and free the memory is the
 * engine's, such as that of torch's caching_allocator_alloc.
 */

/* DLPack's own, from dlpack.h. */
struct DLManagedTensorVersioned;

/**
 * Sets dtype, rank, shape, data, size, device_type and device_id of *tensor to those of *managed;
 * the other fields stay, so that tensor is set up before, and gets its key. shape and data are
 * borrowed: managed must live as long as tensor is used. A for_restore that is not 0 refuses a
 * tensor that is read-only.
 *
 * Memory of the host, page-locked or not, is taken as TFCKPT_DEVICE_HOST; that of CUDA devices,
 * managed or not, as TFCKPT_DEVICE_CUDA.
 *
 * Errors: INVALID_ARGUMENT for a tensor that is not contiguous, row-major, or is read-only, or
 * contradicts itself; UNIMPLEMENTED for a version, kind of device or data type that is unknown
 * here. 2- and 4-bit types must have a byte for each element, and say so by their flags. *tensor is
 * then as it was.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_tensor_from_dlpack(const struct DLManagedTensorVersioned *managed, int32_t for_restore,
                          tfckpt_tensor *tensor, tfckpt_error **error_out);

/**
 * A tensor to be restored into memory of the library's. In an array the first element's struct_size
 * is the stride.
 */
typedef struct tfckpt_dlpack_request {
  size_t      struct_size;  /* sizeof(tfckpt_dlpack_request) */
  const char *key;          /* Name in the checkpoint: any bytes, at least one. */
  size_t      key_size;     /* Length of the key in bytes. */
  const char *slice_spec;   /* As in tfckpt_tensor; NULL or "" for a whole tensor. */
  int32_t     device_type;  /* TFCKPT_DEVICE_*, where the tensor is to be. */
  int32_t     device_id;    /* Number of the device; 0 for the host. */
  void       *stream;       /* Of a tensor on a device: the stream that it will be used on, as in
                             * tfckpt_tensor. alloc is told, and with stream_ordered that stream
                             * waits for the copies (other streams by tfckpt_dlpack_stream_wait);
                             * otherwise they have run when the call returns. NULL for the host. */
} tfckpt_dlpack_request;
#define TFCKPT_DLPACK_REQUEST_INIT { sizeof(tfckpt_dlpack_request), 0, 0, 0, 0, 0, 0 }

/** Sets *request to zeros; struct_size is sizeof(tfckpt_dlpack_request). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_dlpack_request_init(tfckpt_dlpack_request *request, size_t struct_size);

/**
 * Returns size bytes, at a multiple of alignment, of the device with number device_id or, if
 * device_type is TFCKPT_DEVICE_HOST, of the host; NULL if there are none. stream is that of the
 * requests. It is called on the thread of the call; the memory must be usable on stream behind what
 * is enqueued there when alloc returns. It must not throw.
 */
typedef void *(*tfckpt_dlpack_alloc_fn)(size_t size, size_t alignment, int32_t device_type,
                                        int32_t device_id, void *stream, void *user_data);

/**
 * Takes back what alloc returned, which was called with the same arguments. It is called once for
 * each allocation, on the thread that calls the last deleter, or within the call that fails; the
 * copies of the library have run, those and the kernels of others need not have. It must not throw.
 */
typedef void (*tfckpt_dlpack_free_fn)(void *data, size_t size, int32_t device_type,
                                      int32_t device_id, void *stream, void *user_data);

/** How tensors are restored and allocated. All zeros is the default. */
typedef struct tfckpt_dlpack_options {
  size_t                        struct_size;    /* sizeof(tfckpt_dlpack_options) */
  const tfckpt_restore_options *restore;        /* NULL = the default. */
  uint64_t                      max_slab_size;  /* Most bytes of an allocation that tensors
                                                 * share, of which there is one for each device
                                                 * and stream, and more when they are full; 0 = 1
                                                 * GiB. A tensor that is larger has one for
                                                 * itself; with 1 each has. */
  tfckpt_dlpack_alloc_fn        alloc;          /* NULL = memory of the library's own, that of
                                                 * the host in huge pages where there is much of
                                                 * it. */
  tfckpt_dlpack_free_fn         free;           /* Not NULL if alloc is not. */
  void                         *user_data;      /* Passed to alloc and free; must be valid until
                                                 * the last deleter has returned. */
} tfckpt_dlpack_options;
#define TFCKPT_DLPACK_OPTIONS_INIT { sizeof(tfckpt_dlpack_options), 0, 0, 0, 0, 0 }

/** Sets *options to the default; struct_size is sizeof(tfckpt_dlpack_options). */
TFCKPT_MUST_USE tfckpt_code
tfckpt_dlpack_options_init(tfckpt_dlpack_options *options, size_t struct_size);

/**
 * As tfckpt_reader_restore, into memory that the call allocates: tensors_out, an array of
 * num_requests pointers, gets one tensor for each request. Each is the caller's, to be given back
 * by its deleter; NULL stands for one that was not restored. Without codes_out, and without
 * keep_going in the options, all are NULL after an error, and everything that was allocated has
 * been freed. options and codes_out may be NULL.
 *
 * Before anything is allocated, all requests are compared with the checkpoint and its data files.
 *
 * Errors: As tfckpt_restore; RESOURCE_EXHAUSTED when there is not as much memory, before any tensor
 * is restored; UNIMPLEMENTED for a data type that DLPack does not have.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_reader_restore_dlpack(const tfckpt_reader *reader, const tfckpt_dlpack_request *requests,
                             size_t num_requests, const tfckpt_dlpack_options *options,
                             struct DLManagedTensorVersioned **tensors_out, tfckpt_code *codes_out,
                             tfckpt_error **error_out);

/**
 * Lets what is enqueued on stream from now on come after the copies into a tensor that was handed
 * out with stream_ordered: what a producer does in __dlpack__(stream=...). stream is as in
 * tfckpt_tensor, of whatever device; it must live until this has returned, and one that was
 * destroyed is undefined. Without stream_ordered the copies have run, as they have into host
 * memory, and there is nothing to wait for.
 *
 * Errors: INVALID_ARGUMENT for a tensor that was not handed out by this library;
 * FAILED_PRECONDITION for a stream that is being captured into a graph.
 */
TFCKPT_MUST_USE tfckpt_code
tfckpt_dlpack_stream_wait(const struct DLManagedTensorVersioned *managed, void *stream,
                          tfckpt_error **error_out);

#ifdef __cplusplus
}
#endif

#endif /* TFCKPT_H */
