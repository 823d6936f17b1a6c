/* Reference kernels: what the machine itself takes to move the bytes of a checkpoint between a file and memory.
 *
 * Bare system calls, memcpy and the processor's CRC instruction, nothing else: no index, no code of the library. What
 * the library is compared with, so each kernel is the plainest good way to do its work.
 *
 * The work is a list of pieces (one per tensor, in file order). It is cut into segments of at most `chunk` bytes, and
 * segments that follow each other in the file are put together into units of at most `chunk` bytes. Threads, created
 * for the call, take the next unit from an atomic counter. So a large tensor becomes many units of one segment, and
 * many small tensors become one unit.
 *
 * With O_DIRECT a unit is instead a window of `chunk` bytes of the file, whatever pieces lie in it: it is moved to or
 * from an aligned buffer of the thread's, or straight from memory that is aligned. The queue is the threads, each with
 * one call in flight.
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
  MAX_THREADS = 64,
  MAX_SEGMENTS = 1024, /* IOV_MAX: most segments that one preadv takes */
  ALIGNMENT = 4096,    /* what O_DIRECT wants of offsets, sizes and memory */
  HUGE_PAGE = 2 << 20,
};

/* How a file that was written becomes durable. */
enum { SYNC_NONE, SYNC_AT_END /* fsync */, SYNC_AHEAD /* sync_file_range after each unit, then fsync */ };

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
  uint32_t sync;      /* writing: SYNC_* */
  uint32_t direct;    /* non-zero: O_DIRECT */
  uint32_t unused;
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
  int ahead;             /* sync_file_range after each unit */
  uint64_t scratch_size; /* bytes of scratch memory that each thread needs, 0 = none */
  unit_fn run;
  segment *segments;
  unit *units;
  size_t num_units;
  const ref_piece *pieces; /* O_DIRECT only, whose unit's `first` is the number of its window */
  size_t num_pieces;
  uint64_t chunk;
  uint64_t end; /* of the file */
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
  job->ahead = setting->sync == SYNC_AHEAD;
  return 0;
}

static uint64_t end_of(const ref_piece *pieces, size_t num_pieces) {
  uint64_t end = 0;
  for (size_t i = 0; i < num_pieces; i++)
    if (pieces[i].offset + pieces[i].size > end) end = pieces[i].offset + pieces[i].size;
  return end;
}

/* The same for O_DIRECT: windows of the file. */
static int plan_windows(job *job, const ref_piece *pieces, size_t num_pieces, const ref_setting *setting) {
  memset(job, 0, sizeof *job);
  job->fd = -1;
  if (setting->threads == 0 || setting->threads > MAX_THREADS) return EINVAL;
  if (setting->chunk == 0 || setting->chunk % ALIGNMENT != 0) return EINVAL;
  job->pieces = pieces;
  job->num_pieces = num_pieces;
  job->chunk = setting->chunk;
  job->scratch_size = setting->chunk;
  job->end = end_of(pieces, num_pieces);
  job->num_units = (job->end + job->chunk - 1) / job->chunk;
  job->units = malloc((job->num_units ? job->num_units : 1) * sizeof *job->units);
  if (!job->units) return ENOMEM;
  for (size_t i = 0; i < job->num_units; i++) job->units[i] = (unit){i, 0};
  return 0;
}

static void release(job *job) {
  free(job->segments);
  free(job->units);
}

/* ---- the threads ---- */

static void *work(void *argument) {
  job *job = argument;
  void *scratch = NULL;
  int error = job->scratch_size ? posix_memalign(&scratch, ALIGNMENT, job->scratch_size) : 0;
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

static uint64_t size_of_unit(const job *job, const unit *unit) {
  uint64_t size = 0;
  for (size_t i = unit->first; i < unit->first + unit->count; i++) size += job->segments[i].size;
  return size;
}

static int write_unit(const job *job, const unit *unit, void *scratch) {
  (void)scratch;
  int error = 0;
  if (job->vectored) error = move_vectored(job, unit, pwritev, write_fully_from);
  for (size_t i = unit->first; !job->vectored && i < unit->first + unit->count && !error; i++)
    error = write_fully(job->fd, job->segments[i].data, job->segments[i].size, job->segments[i].offset);
  if (job->ahead && !error) {
    off_t offset = (off_t)job->segments[unit->first].offset, size = (off_t)size_of_unit(job, unit);
    if (sync_file_range(job->fd, offset, size, SYNC_FILE_RANGE_WRITE) != 0) error = errno;
  }
  return error;
}

static int read_hot_unit(const job *job, const unit *unit, void *scratch) {
  return read_fully(job->fd, scratch, size_of_unit(job, unit), job->segments[unit->first].offset);
}

static int copy_unit(const job *job, const unit *unit, void *scratch) {
  (void)scratch;
  for (size_t i = unit->first; i < unit->first + unit->count; i++)
    memcpy(job->segments[i].data, job->segments[i].from, job->segments[i].size);
  return 0;
}

/* ---- windows of O_DIRECT ---- */

/* The first piece that reaches beyond `offset`. */
static size_t piece_at(const job *job, uint64_t offset) {
  size_t low = 0, high = job->num_pieces;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (job->pieces[middle].offset + job->pieces[middle].size <= offset)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* Copies what lies in the window from the pieces to the buffer (`gather`), or back. */
static void copy_window(const job *job, uint64_t start, uint64_t size, char *buffer, int gather) {
  for (size_t i = piece_at(job, start); i < job->num_pieces && job->pieces[i].offset < start + size; i++) {
    const ref_piece *piece = &job->pieces[i];
    uint64_t from = piece->offset > start ? piece->offset : start;
    uint64_t to = piece->offset + piece->size < start + size ? piece->offset + piece->size : start + size;
    char *data = (char *)piece->data + (from - piece->offset);
    if (gather)
      memcpy(buffer + (from - start), data, to - from);
    else
      memcpy(data, buffer + (from - start), to - from);
  }
}

/* Where a whole window lies in memory, if O_DIRECT can use that; else NULL. */
static char *aligned_place(const job *job, uint64_t start, uint64_t size) {
  size_t i = piece_at(job, start);
  if (size % ALIGNMENT != 0 || i >= job->num_pieces) return NULL;
  const ref_piece *piece = &job->pieces[i];
  if (piece->offset > start || piece->offset + piece->size < start + size) return NULL;
  char *data = (char *)piece->data + (start - piece->offset);
  return (uintptr_t)data % ALIGNMENT == 0 ? data : NULL;
}

static int move_window(const job *job, const unit *unit, char *scratch, int writes) {
  uint64_t start = unit->first * job->chunk;
  uint64_t size = job->end - start < job->chunk ? job->end - start : job->chunk;
  uint64_t whole = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  char *place = aligned_place(job, start, size);
  char *buffer = place ? place : scratch;
  if (writes && !place) {
    memset(buffer + size, 0, whole - size);
    copy_window(job, start, size, buffer, 1);
  }
  uint64_t done = 0;
  while (done < size) {
    ssize_t moved = writes ? pwrite(job->fd, buffer + done, whole - done, (off_t)(start + done))
                           : pread(job->fd, buffer + done, whole - done, (off_t)(start + done));
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return errno;
    if (moved == 0) return EIO;
    done += (uint64_t)moved;
  }
  if (!writes && !place) copy_window(job, start, size, buffer, 0);
  return 0;
}

static int read_window(const job *job, const unit *unit, void *scratch) { return move_window(job, unit, scratch, 0); }

static int write_window(const job *job, const unit *unit, void *scratch) { return move_window(job, unit, scratch, 1); }

/* ---- CRC-32C with the processor's instruction ---- */

static atomic_uint crc_sink; /* keeps the loop from being dropped */

#if defined(__x86_64__)
enum { HAS_CRC = 1 };
/* Three sums side by side, for an instruction takes three cycles and one can start in each. Not combined: that is cheap
 * and no part of the limit. */
__attribute__((target("sse4.2"))) static uint32_t crc_words(const char *data, uint64_t size) {
  uint64_t third = size / 24 * 8, a = 0, b = 0, c = 0, x, y, z;
  for (uint64_t i = 0; i < third; i += 8) {
    memcpy(&x, data + i, 8);
    memcpy(&y, data + third + i, 8);
    memcpy(&z, data + 2 * third + i, 8);
    a = __builtin_ia32_crc32di(a, x);
    b = __builtin_ia32_crc32di(b, y);
    c = __builtin_ia32_crc32di(c, z);
  }
  for (uint64_t i = 3 * third; i < size; i++) c = __builtin_ia32_crc32qi((uint32_t)c, (unsigned char)data[i]);
  return (uint32_t)(a ^ b ^ c);
}
#else
enum { HAS_CRC = 0 };
static uint32_t crc_words(const char *data, uint64_t size) {
  (void)data;
  (void)size;
  return 0;
}
#endif

static int crc_unit(const job *job, const unit *unit, void *scratch) {
  (void)scratch;
  uint32_t sum = 0;
  for (size_t i = unit->first; i < unit->first + unit->count; i++)
    sum ^= crc_words(job->segments[i].data, job->segments[i].size);
  atomic_fetch_xor_explicit(&crc_sink, sum, memory_order_relaxed);
  return 0;
}

/* ---- checks ---- */

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
  int error = setting->direct ? plan_windows(&job, pieces, num_pieces, setting)
                              : plan(&job, pieces, NULL, num_pieces, setting);
  job.run = setting->direct ? read_window : read_unit;
  int flags = O_RDONLY | O_CLOEXEC | (setting->direct ? O_DIRECT : 0);
  if (!error && (job.fd = open(path, flags)) < 0) error = errno;
  if (!error) error = run_threads(&job, setting->threads);
  if (job.fd >= 0) close(job.fd);
  release(&job);
  return error;
}

/* pread of the whole file into new memory, huge pages asked for, each touched by the thread that reads into it. What is
 * mapped is the caller's, who gives it to ref_unmap; its first `HUGE_PAGE`-aligned byte is `*data_out`. */
int ref_read_fresh(const char *path, uint64_t size, const ref_setting *setting, void **mapping_out, void **data_out) {
  uint64_t length = size + HUGE_PAGE;
  char *mapping = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return errno;
  char *data = mapping + (HUGE_PAGE - (uintptr_t)mapping % HUGE_PAGE) % HUGE_PAGE;
  madvise(data, size, MADV_HUGEPAGE); /* a kernel without huge pages refuses: then they are small */
  ref_piece piece = {0, data, size};
  int error = ref_read(path, &piece, 1, setting);
  if (error) munmap(mapping, length);
  *mapping_out = error ? NULL : mapping;
  *data_out = error ? NULL : data;
  return error;
}

/* Gives back what ref_read_fresh has mapped for so many bytes. */
int ref_unmap(void *mapping, uint64_t size) { return munmap(mapping, size + HUGE_PAGE) != 0 ? errno : 0; }

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
  off_t end = (off_t)end_of(pieces, num_pieces);
  job job;
  int error = setting->direct ? plan_windows(&job, pieces, num_pieces, setting)
                              : plan(&job, pieces, NULL, num_pieces, setting);
  job.run = setting->direct ? write_window : write_unit;
  int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | (setting->direct ? O_DIRECT : 0);
  if (!error && (job.fd = open(path, flags, 0644)) < 0) error = errno;
  if (!error && setting->fallocate && end > 0 && fallocate(job.fd, 0, 0, end) != 0) error = errno;
  if (!error) error = run_threads(&job, setting->threads);
  if (!error && setting->direct && ftruncate(job.fd, end) != 0) error = errno;
  if (!error && setting->sync && fsync(job.fd) != 0) error = errno;
  if (job.fd >= 0 && close(job.fd) != 0 && !error) error = errno;
  release(&job);
  return error;
}

/* fsync of a folder, or of a file that lies there. */
int ref_sync(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = fsync(fd) != 0 ? errno : 0;
  close(fd);
  return error;
}

/* Publishes the pieces and an index of `index_size` bytes as a checkpoint has to be: both files written under other
 * names, renamed one after the other; if it is to be durable, the files are synced before and the folder after each. */
int ref_publish(const char *folder, const ref_piece *pieces, size_t num_pieces, uint64_t index_size,
                const ref_setting *setting) {
  char names[4][PATH_MAX];
  const char *suffixes[4] = {"data.tmp", "data", "index.tmp", "index"};
  for (int i = 0; i < 4; i++)
    if (snprintf(names[i], sizeof names[i], "%s/%s", folder, suffixes[i]) >= (int)sizeof names[i]) return ENAMETOOLONG;
  char *bytes = calloc(1, index_size ? index_size : 1);
  if (!bytes) return ENOMEM;
  ref_piece index = {0, bytes, index_size};
  ref_setting plain = {ALIGNMENT * 256, 1, 0, 0, setting->sync ? SYNC_AT_END : SYNC_NONE, 0, 0};
  int error = ref_write(names[0], pieces, num_pieces, setting);
  if (!error) error = ref_write(names[2], &index, 1, &plain);
  for (int i = 0; i < 4 && !error; i += 2) {
    if (rename(names[i], names[i + 1]) != 0) error = errno;
    if (!error && setting->sync) error = ref_sync(folder);
  }
  free(bytes);
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

/* CRC-32C of the pieces, by the processor's instruction. ENOTSUP where there is none, or none that is known here. */
int ref_crc(const ref_piece *pieces, size_t num_pieces, const ref_setting *setting) {
  if (!HAS_CRC) return ENOTSUP;
  job job;
  int error = plan(&job, pieces, NULL, num_pieces, setting);
  job.run = crc_unit;
  if (!error) error = run_threads(&job, setting->threads);
  release(&job);
  return error;
}

/* ---- the page cache and checks, never timed ---- */

/* Drops the file's pages, which must be on disk, from the page cache. */
int ref_drop(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
  return error;
}

/* How many of the file's pages are in the page cache, as mincore says. */
int ref_resident(const char *path, uint64_t *pages_out) {
  *pages_out = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  struct stat status;
  int error = fstat(fd, &status) != 0 ? errno : 0;
  size_t size = error ? 0 : (size_t)status.st_size, page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page;
  unsigned char *resident = pages ? malloc(pages) : NULL;
  void *mapping = pages ? mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (pages && (!resident || mapping == MAP_FAILED)) error = ENOMEM;
  if (!error && pages && mincore(mapping, size, resident) != 0) error = errno;
  for (size_t i = 0; i < pages && !error; i++) *pages_out += resident[i] & 1;
  if (mapping != MAP_FAILED) munmap(mapping, size);
  free(resident);
  close(fd);
  return error;
}


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
