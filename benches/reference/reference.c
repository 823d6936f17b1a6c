/* Reference kernels: what the machine itself takes to move the bytes of a checkpoint between a file and memory.
 *
 * Bare system calls and memcpy, nothing else: no index, no checksum, no code of the library. What the library is
 * compared with, so each kernel is the plainest good way to do its work.
 *
 * The work is a list of pieces (one per tensor, in file order). It is cut into segments of at most `chunk` bytes, and
 * segments that follow each other in the file are put together into units of at most `chunk` bytes. Threads, created
 * for the call, take the next unit from an atomic counter. So a large tensor becomes many units of one segment, and
 * many small tensors become one unit.
 *
 * Every function returns 0 or an errno. A read that meets the end of the file is EIO.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAX_THREADS = 64, MAX_SEGMENTS = 1024 /* IOV_MAX: most segments that one preadv takes */ };

/* One tensor: `size` bytes at `offset` of the file and at `data` in memory. Same layout as PIECE in workloads.py. */
typedef struct ref_piece {
  uint64_t offset;
  void *data;
  uint64_t size;
} ref_piece;

/* How to do it. Same layout as _Setting in reference_ffi.py. */
typedef struct ref_setting {
  uint64_t chunk;     /* most bytes of a unit */
  uint32_t threads;   /* 1 = the calling thread only */
  uint32_t vectored;  /* non-zero: one preadv or pwritev per unit, else one pread or pwrite per segment */
  uint32_t fallocate; /* writing: reserve the whole file first */
  uint32_t fsync;     /* writing: fsync before closing */
} ref_setting;

typedef struct segment {
  uint64_t offset;
  char *data;
  const char *from; /* memcpy only */
  uint64_t size;
} segment;

typedef struct unit {
  size_t first; /* index of its first segment */
  size_t count;
} unit;

typedef struct job job;
typedef int (*unit_fn)(const job *job, const unit *unit, void *scratch);

struct job {
  int fd;
  int vectored;
  uint64_t scratch_size; /* bytes of scratch memory that each thread needs, 0 = none */
  unit_fn run;
  segment *segments;
  unit *units;
  size_t num_units;
  atomic_size_t next;
  atomic_int error; /* the first one */
};

/* ---- the work, cut up ---- */

static size_t count_segments(const ref_piece *pieces, size_t num_pieces, uint64_t chunk) {
  size_t count = 0;
  for (size_t i = 0; i < num_pieces; i++) count += (pieces[i].size + chunk - 1) / chunk;
  return count;
}

/* Cuts pieces into segments; `from`, if given, lists where memcpy takes each piece from. */
static void cut_segments(segment *out, const ref_piece *pieces, const ref_piece *from, size_t num_pieces,
                         uint64_t chunk) {
  for (size_t i = 0; i < num_pieces; i++) {
    for (uint64_t done = 0; done < pieces[i].size; done += chunk) {
      uint64_t left = pieces[i].size - done;
      out->offset = pieces[i].offset + done;
      out->data = (char *)pieces[i].data + done;
      out->from = from ? (const char *)from[i].data + done : NULL;
      out->size = left < chunk ? left : chunk;
      out++;
    }
  }
}

/* Puts neighbours in the file together, up to `chunk` bytes; returns the number of units. */
static size_t join_units(unit *out, const segment *segments, size_t num_segments, uint64_t chunk) {
  size_t num_units = 0;
  uint64_t size = 0;
  for (size_t i = 0; i < num_segments; i++) {
    int joins = num_units > 0 && segments[i - 1].offset + segments[i - 1].size == segments[i].offset &&
                size + segments[i].size <= chunk && out[num_units - 1].count < MAX_SEGMENTS;
    if (joins) {
      out[num_units - 1].count++;
      size += segments[i].size;
    } else {
      out[num_units].first = i;
      out[num_units].count = 1;
      num_units++;
      size = segments[i].size;
    }
  }
  return num_units;
}

static int plan(job *job, const ref_piece *pieces, const ref_piece *from, size_t num_pieces,
                const ref_setting *setting) {
  memset(job, 0, sizeof *job);
  job->fd = -1;
  if (setting->chunk == 0 || setting->threads == 0 || setting->threads > MAX_THREADS) return EINVAL;
  size_t num_segments = count_segments(pieces, num_pieces, setting->chunk);
  job->segments = malloc((num_segments ? num_segments : 1) * sizeof *job->segments);
  job->units = malloc((num_segments ? num_segments : 1) * sizeof *job->units);
  if (!job->segments || !job->units) return ENOMEM;
  cut_segments(job->segments, pieces, from, num_pieces, setting->chunk);
  job->num_units = join_units(job->units, job->segments, num_segments, setting->chunk);
  job->vectored = setting->vectored != 0;
  return 0;
}

static void release(job *job) {
  free(job->segments);
  free(job->units);
}

/* ---- the threads ---- */

static void *work(void *argument) {
  job *job = argument;
  void *scratch = job->scratch_size ? malloc(job->scratch_size) : NULL;
  int error = job->scratch_size && !scratch ? ENOMEM : 0;
  while (!error && !atomic_load_explicit(&job->error, memory_order_relaxed)) {
    size_t i = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
    if (i >= job->num_units) break;
    error = job->run(job, &job->units[i], scratch);
  }
  free(scratch);
  int none = 0;
  if (error) atomic_compare_exchange_strong(&job->error, &none, error);
  return NULL;
}

/* Runs the job on `threads` threads, the calling one among them. */
static int run_threads(job *job, uint32_t threads) {
  pthread_t others[MAX_THREADS];
  uint32_t started = 0;
  int error = 0;
  while (started + 1 < threads && !error) {
    error = pthread_create(&others[started], NULL, work, job);
    if (!error) started++;
  }
  if (!error) work(job);
  for (uint32_t i = 0; i < started; i++) pthread_join(others[i], NULL);
  return error ? error : atomic_load(&job->error);
}

/* ---- one unit of each kind ---- */

static int read_fully(int fd, char *data, uint64_t size, uint64_t offset) {
  while (size > 0) {
    ssize_t done = pread(fd, data, size, (off_t)offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return errno;
    if (done == 0) return EIO;
    data += done;
    offset += (uint64_t)done;
    size -= (uint64_t)done;
  }
  return 0;
}

static int write_fully(int fd, const char *data, uint64_t size, uint64_t offset) {
  while (size > 0) {
    ssize_t done = pwrite(fd, data, size, (off_t)offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return errno;
    data += done;
    offset += (uint64_t)done;
    size -= (uint64_t)done;
  }
  return 0;
}

typedef ssize_t (*vector_fn)(int fd, const struct iovec *vector, int count, off_t offset);
typedef int (*fully_fn)(int fd, char *data, uint64_t size, uint64_t offset);

/* What one vectored call moved, plus the rest segment by segment if it stopped short. */
static int move_vectored(const job *job, const unit *unit, vector_fn move, fully_fn fully) {
  struct iovec vector[MAX_SEGMENTS];
  const segment *segments = &job->segments[unit->first];
  for (size_t i = 0; i < unit->count; i++) {
    vector[i].iov_base = segments[i].data;
    vector[i].iov_len = segments[i].size;
  }
  ssize_t done = move(job->fd, vector, (int)unit->count, (off_t)segments[0].offset);
  if (done < 0 && errno != EINTR) return errno;
  uint64_t skip = done < 0 ? 0 : (uint64_t)done;
  int error = 0;
  for (size_t i = 0; i < unit->count && !error; i++) {
    uint64_t had = skip < segments[i].size ? skip : segments[i].size;
    skip -= had;
    error = fully(job->fd, segments[i].data + had, segments[i].size - had, segments[i].offset + had);
  }
  return error;
}

static int write_fully_from(int fd, char *data, uint64_t size, uint64_t offset) {
  return write_fully(fd, data, size, offset);
}

static int read_unit(const job *job, const unit *unit, void *scratch) {
  (void)scratch;
  if (job->vectored) return move_vectored(job, unit, preadv, read_fully);
  int error = 0;
  for (size_t i = unit->first; i < unit->first + unit->count && !error; i++)
    error = read_fully(job->fd, job->segments[i].data, job->segments[i].size, job->segments[i].offset);
  return error;
}

static int write_unit(const job *job, const unit *unit, void *scratch) {
  (void)scratch;
  if (job->vectored) return move_vectored(job, unit, pwritev, write_fully_from);
  int error = 0;
  for (size_t i = unit->first; i < unit->first + unit->count && !error; i++)
    error = write_fully(job->fd, job->segments[i].data, job->segments[i].size, job->segments[i].offset);
  return error;
}

static int read_hot_unit(const job *job, const unit *unit, void *scratch) {
  uint64_t size = 0;
  for (size_t i = unit->first; i < unit->first + unit->count; i++) size += job->segments[i].size;
  return read_fully(job->fd, scratch, size, job->segments[unit->first].offset);
}

static int copy_unit(const job *job, const unit *unit, void *scratch) {
  (void)scratch;
  for (size_t i = unit->first; i < unit->first + unit->count; i++)
    memcpy(job->segments[i].data, job->segments[i].from, job->segments[i].size);
  return 0;
}

static int compare_unit(const job *job, const unit *unit, void *scratch) {
  for (size_t i = unit->first; i < unit->first + unit->count; i++) {
    const segment *segment = &job->segments[i];
    const char *have = segment->from;
    if (!have) {
      int error = read_fully(job->fd, scratch, segment->size, segment->offset);
      if (error) return error;
      have = scratch;
    }
    if (memcmp(segment->data, have, segment->size) != 0) return EILSEQ;
  }
  return 0;
}

/* ---- the kernels ---- */

/* pread (or preadv) of the pieces of the file at `path` into their memory. */
int ref_read(const char *path, const ref_piece *pieces, size_t num_pieces, const ref_setting *setting) {
  job job;
  int error = plan(&job, pieces, NULL, num_pieces, setting);
  job.run = read_unit;
  if (!error && (job.fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) error = errno;
  if (!error) error = run_threads(&job, setting->threads);
  if (job.fd >= 0) close(job.fd);
  release(&job);
  return error;
}

/* The same bytes read into one reused buffer per thread: reading alone, without the traffic to the destination. */
int ref_read_hot(const char *path, const ref_piece *pieces, size_t num_pieces, const ref_setting *setting) {
  job job;
  int error = plan(&job, pieces, NULL, num_pieces, setting);
  job.run = read_hot_unit;
  job.scratch_size = setting->chunk;
  if (!error && (job.fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) error = errno;
  if (!error) error = run_threads(&job, setting->threads);
  if (job.fd >= 0) close(job.fd);
  release(&job);
  return error;
}

/* pwrite (or pwritev) of the pieces into a new file at `path`. */
int ref_write(const char *path, const ref_piece *pieces, size_t num_pieces, const ref_setting *setting) {
  uint64_t end = 0;
  for (size_t i = 0; i < num_pieces; i++)
    if (pieces[i].offset + pieces[i].size > end) end = pieces[i].offset + pieces[i].size;
  job job;
  int error = plan(&job, pieces, NULL, num_pieces, setting);
  job.run = write_unit;
  if (!error && (job.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) < 0) error = errno;
  if (!error && setting->fallocate && end > 0 && fallocate(job.fd, 0, 0, (off_t)end) != 0) error = errno;
  if (!error) error = run_threads(&job, setting->threads);
  if (!error && setting->fsync && fsync(job.fd) != 0) error = errno;
  if (job.fd >= 0 && close(job.fd) != 0 && !error) error = errno;
  release(&job);
  return error;
}

/* memcpy of each piece of `from` to the piece of the same index. */
int ref_copy(const ref_piece *pieces, const ref_piece *from, size_t num_pieces, const ref_setting *setting) {
  job job;
  int error = plan(&job, pieces, from, num_pieces, setting);
  job.run = copy_unit;
  if (!error) error = run_threads(&job, setting->threads);
  release(&job);
  return error;
}

/* ---- checks, never timed ---- */

/* EILSEQ if any byte of the pieces differs from those of the file at `path`. */
int ref_compare_file(const char *path, const ref_piece *pieces, size_t num_pieces, const ref_setting *setting) {
  job job;
  int error = plan(&job, pieces, NULL, num_pieces, setting);
  job.run = compare_unit;
  job.scratch_size = setting->chunk;
  if (!error && (job.fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) error = errno;
  if (!error) error = run_threads(&job, setting->threads);
  if (job.fd >= 0) close(job.fd);
  release(&job);
  return error;
}

/* EILSEQ if any byte of the pieces differs from the piece of the same index in `from`. */
int ref_compare(const ref_piece *pieces, const ref_piece *from, size_t num_pieces, const ref_setting *setting) {
  job job;
  int error = plan(&job, pieces, from, num_pieces, setting);
  job.run = compare_unit;
  if (!error) error = run_threads(&job, setting->threads);
  release(&job);
  return error;
}
