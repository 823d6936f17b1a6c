//! Jobs
//!
//! What can be asked of a job while it runs and afterwards. All functions but tfckpt_job_free may be
//! called by any number of threads at the same time, so that one thread may cancel what another waits
//! for. Those that wait take a time in nanoseconds: 0 only looks, less than 0 waits as long as it takes,
//! and when the time is over the code is TFCKPT_DEADLINE_EXCEEDED. In the job's own progress callback
//! they only look.

use std::ffi::{CString, c_char, c_void};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::devices::stream_of;
use super::error::{TFCKPT_ABORTED, TFCKPT_OK, tfckpt_code, tfckpt_error};
use super::handle::{array_mut, borrow, c_path, check_out, free, required};
use super::progress::{put_progress, tfckpt_progress};
use super::stats::{put_stats, tfckpt_stats};
use super::wall::{guard, guard_value};
use crate::device::Event;
use crate::{Context, Error, Job};

/// A save or restore in the background.
pub struct tfckpt_job {
    job: Job,
    prefix: OnceLock<CString>,
    context: Arc<Context>,
    /// Of a save whose tensors were copied within their devices: behind the copies.
    snapshots: Vec<Event>,
}

impl tfckpt_job {
    /// A save; `snapshots` are behind the copies that were made within devices.
    pub(super) fn of_save(job: Job, context: Arc<Context>, snapshots: Vec<Event>) -> Self {
        Self {
            job,
            prefix: OnceLock::new(),
            context,
            snapshots,
        }
    }

    /// A restore.
    pub(super) fn of_restore(job: Job, context: Arc<Context>) -> Self {
        Self::of_save(job, context, Vec::new())
    }
}

/// Whether the job has ended: 1 or 0. It does not wait. 1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_poll(job: *const tfckpt_job) -> i32 {
    guard_value(1, || {
        // SAFETY: NULL or live, by the header's rules.
        unsafe { borrow(job) }.map_or(1, |job| i32::from(job.job.is_done()))
    })
}

/// Waits until the job has ended and returns what came of it, each time that it is asked: the errors of
/// the save or restore that it is.
///
/// # Errors
///
/// The job's; TFCKPT_DEADLINE_EXCEEDED while it is running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_wait(
    job: *const tfckpt_job,
    timeout_ns: i64,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let job = required(job, "job")?;
            let result = job.job.wait(to_timeout(timeout_ns));
            result.unwrap_or_else(|| Err(not_yet("the job has not ended")))
        })
    }
}

/// Waits until the tensors of a save may change again: they have been copied or written, or the job has
/// ended, however. Of a restore, until it has ended.
///
/// # Errors
///
/// TFCKPT_DEADLINE_EXCEEDED while they may not; never the job's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_wait_snapshot(
    job: *const tfckpt_job,
    timeout_ns: i64,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let job = required(job, "job")?;
            match job.job.wait_snapshot(to_timeout(timeout_ns)) {
                true => Ok(()),
                false => Err(not_yet("the tensors have not been copied")),
            }
        })
    }
}

/// Waits until tensor i of a restore is complete and verified, or it is known that it will not be, and
/// returns what came of it: TFCKPT_OK, its error, or TFCKPT_ABORTED if the job ended before it got there.
/// The tensor may be used as soon as this returns TFCKPT_OK, whatever becomes of the others.
///
/// # Errors
///
/// The tensor's; INVALID_ARGUMENT if the job restores no such tensor; TFCKPT_DEADLINE_EXCEEDED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_wait_tensor(
    job: *const tfckpt_job,
    i: usize,
    timeout_ns: i64,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let job = required(job, "job")?;
            let result = job.job.wait_tensor(i, to_timeout(timeout_ns));
            let not_yet = || not_yet("the tensor has not been restored").with_tensor_index(i);
            result.unwrap_or_else(|| Err(not_yet()))
        })
    }
}

/// Lets a stream wait until the tensors of a save may change again: what is enqueued on it afterwards may
/// write to those of the stream's device. stream is a CUstream or cudaStream_t of device device_id; NULL
/// and 1 the legacy default stream, 2 the calling thread's. With device_snapshot, and room for it, this
/// returns at once; otherwise as tfckpt_job_wait_snapshot does, which waits on the host. The stream must
/// live until this has returned; one that was destroyed is undefined.
///
/// # Errors
///
/// INVALID_ARGUMENT for a stream of another device; FAILED_PRECONDITION for a stream that is being captured
/// into a graph; UNAVAILABLE without a device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_snapshot_stream_wait(
    job: *const tfckpt_job,
    device_id: i32,
    stream: *mut c_void,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let job = required(job, "job")?;
            let stream = stream_of(stream, &job.context.devices().context(device_id)?)?;
            let of_device = |event: &&Event| event.context().device() == device_id;
            match job.snapshots.iter().find(of_device) {
                Some(event) => stream.wait_for(event),
                None if job.job.wait_snapshot(None) => Ok(()),
                None => Err(not_yet("the tensors have not been copied")),
            }
        })
    }
}

/// Lets a stream wait for tensor i of a restore to device memory: what is enqueued on it afterwards finds
/// the tensor complete. stream is of the tensor's device: a CUstream or cudaStream_t, NULL and 1 the legacy
/// default stream, 2 the calling thread's. The call itself blocks until the tensor's copies are enqueued
/// and its checksum is known, and returns what came of it; it then does not wait for the copies. The stream
/// must live until this has returned; one that was destroyed is undefined. For a tensor in host memory it is
/// tfckpt_job_wait_tensor.
///
/// # Errors
///
/// The tensor's; INVALID_ARGUMENT if the job restores no such tensor, or for a stream of another device;
/// FAILED_PRECONDITION for a stream that is being captured into a graph.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_stream_wait(
    job: *const tfckpt_job,
    i: usize,
    stream: *mut c_void,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let job = required(job, "job")?;
            let not_yet = || not_yet("the job waits for itself");
            let Some(device) = job.job.device(i) else {
                let result = job.job.wait_tensor(i, None);
                return result.unwrap_or_else(|| Err(not_yet()));
            };
            let stream = stream_of(stream, &job.context.devices().context(device)?)?;
            let events = job.job.wait_enqueued(i).ok_or_else(not_yet)??;
            events.iter().try_for_each(|event| stream.wait_for(event))
        })
    }
}

/// Asks the job to stop, which it does within a chunk of data, or when the copies to and from devices have
/// run that are under way: it then ends with TFCKPT_CANCELLED, and nothing new is visible on disk. A job that has published its checkpoint is done. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_cancel(job: *const tfckpt_job) {
    guard_value((), || {
        // SAFETY: as above.
        if let Some(job) = unsafe { borrow(job) } {
            job.job.cancel();
        }
    });
}

/// Fills *progress, whose struct_size the caller has set. The totals are 0 until they are known.
///
/// # Errors
///
/// INVALID_ARGUMENT for NULL or a size that is not set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_progress(
    job: *const tfckpt_job,
    progress: *mut tfckpt_progress,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let job = required(job, "job")?;
            check_out(progress, "progress")?;
            put_progress(progress, &job.job.progress())
        })
    }
}

/// Fills *stats, whose struct_size the caller has set, with the figures of a job that has ended.
///
/// # Errors
///
/// INVALID_ARGUMENT for NULL or a size that is not set; FAILED_PRECONDITION while the job is running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_stats(
    job: *const tfckpt_job,
    stats: *mut tfckpt_stats,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let job = required(job, "job")?;
            check_out(stats, "stats")?;
            put_stats(stats, job.job.stats().ok_or_else(running)?)
        })
    }
}

/// The prefix of the checkpoint that the job has saved, as tfckpt_save and tfckpt_saver_save return it.
/// Borrowed from the job; NULL until it has ended, and if it has not saved any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_prefix(job: *const tfckpt_job) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: as above.
        let job = unsafe { borrow(job) };
        let path = job.and_then(|job| Some((job, job.job.path()?)));
        path.map_or(std::ptr::null(), |(job, path)| {
            job.prefix.get_or_init(|| c_path(path)).as_ptr()
        })
    })
}

/// Writes the code of each tensor of a restore that has ended to codes_out, an array of as many codes as
/// the job has tensors: TFCKPT_OK for what is complete and verified, the tensor's error, or
/// TFCKPT_ABORTED for what was not attempted.
///
/// # Errors
///
/// INVALID_ARGUMENT for another number of tensors; FAILED_PRECONDITION while the job is running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_codes(
    job: *const tfckpt_job,
    codes_out: *mut tfckpt_code,
    num_codes: usize,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let job = required(job, "job")?;
            let num_tensors = job.job.num_tensors();
            if num_codes != num_tensors {
                return Err(Error::invalid_argument(format!(
                    "the job restores another number of tensors; num_codes={num_codes} \
                     num_tensors={num_tensors}"
                )));
            }
            let codes = array_mut(codes_out, num_codes, "codes_out")?;
            let mut results = job.job.results().ok_or_else(running)?.iter();
            for code in codes {
                code.write(match results.next() {
                    Some(Ok(())) => TFCKPT_OK,
                    Some(Err(error)) => error.code() as tfckpt_code,
                    None => TFCKPT_ABORTED,
                });
            }
            Ok(())
        })
    }
}

/// Waits until the job has ended and frees it; call tfckpt_job_cancel first to shorten that. NULL is
/// accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_job_free(job: *mut tfckpt_job) {
    // SAFETY: NULL or a job that the caller owns.
    unsafe { free(job) }
}

/// How long to wait; `None` as long as it takes.
fn to_timeout(timeout_ns: i64) -> Option<Duration> {
    u64::try_from(timeout_ns).ok().map(Duration::from_nanos)
}

fn not_yet(what: &str) -> Error {
    Error::deadline_exceeded(what)
}

fn running() -> Error {
    Error::failed_precondition("the job has not ended")
}
