//! Saving and restoring in the background
//!
//! A job is a save or restore that goes on behind the program's back, on a thread of its own with the
//! threads of its context. The functions below check the arguments, start the job and return it; what
//! they return an error for has not begun. What happens later is the job's own error, which
//! tfckpt_job_wait returns.
//!
//! ```c
//! tfckpt_job *job = NULL;
//! if (tfckpt_saver_save_async(saver, "/models/a/model.ckpt", &options, &job, &error) != TFCKPT_OK)
//!     return report(error);
//! train_for_a_while();           // The tensors have been copied: they may change again.
//! if (tfckpt_job_wait(job, -1, &error) != TFCKPT_OK)
//!     report(error);
//! tfckpt_job_free(job);
//! ```
//!
//! A save either copies the tensors first, within the budget, and returns when that is done; or it
//! borrows them (borrow in the options), returns at once, and the caller leaves them alone until
//! tfckpt_job_wait_snapshot says that they may change. The default budget is small: give the context
//! max_host_bytes that hold the model, and from the second save on, when the memory for the copy is
//! there already, the call takes about as long as a memcpy of the model (tfckpt_context_trim frees that
//! memory). What does not fit is copied as memory falls free, and the call returns later; one that
//! saves in format V1 returns when the data has been written.
//!
//! Jobs of one saver write one after the other, in the order in which they were started, and the state
//! file never names a checkpoint that is not complete and on disk. The error of a job that nobody got from
//! tfckpt_job_wait is returned, once, by the saver's next save, which then writes nothing and says so:
//! call again. A process that ends in the middle leaves the checkpoint before.
//!
//! Descriptions are copied, memory is not: what data points to, and what the elements of tensors of
//! strings point to, must stay valid until the job has ended, and of a save until its tensors may change.
//! Progress is reported on the job's thread, and saveables are told on it that a job which borrows has
//! ended. The context may be freed before its jobs.

use std::ffi::c_char;
use std::sync::Arc;

use super::context::{context_or_new, tfckpt_context};
use super::device_copies::DeviceCopies;
use super::devices::Devices;
use super::error::{TFCKPT_OK, tfckpt_code, tfckpt_error};
use super::handle::{
    borrow, check_out, into_handle, path, put, read_struct, required, required_mut,
};
use super::job::tfckpt_job;
use super::kept::{KeptRestore, KeptSave};
use super::progress::to_report;
use super::reader::tfckpt_reader;
use super::restore::{refuse_overlaps, tfckpt_restore_options};
use super::save::tfckpt_save_options;
use super::saveable::Finisher;
use super::saver::tfckpt_saver;
use super::saver_calls::{Asked, tfckpt_saver_save_options};
use super::stats::tfckpt_stats;
use super::struct_array::StructArray;
use super::tensor::tfckpt_tensor;
use super::wall::{guard, guard_handle, guard_value};
use crate::device::Event;
use crate::{
    Context, Error, JobOptions, JobProgressFn, RestoreFrom, Result, SaveData, Snapshot,
    restore_async, save_async,
};

/// As tfckpt_save, in the background; *job_out receives the job. The prefix is then that of
/// tfckpt_job_prefix.
///
/// # Errors
///
/// INVALID_ARGUMENT for tensors or options that do not fit together; RESOURCE_EXHAUSTED without a
/// thread for the job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_save_async(
    prefix: *const c_char,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    options: *const tfckpt_save_options,
    job_out: *mut *mut tfckpt_job,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let prefix = path(prefix, "prefix")?;
            check_out(job_out, "job_out")?;
            let options = read_struct(options)?;
            refuse_stats(options.stats)?;
            let array = StructArray::new(tensors, num_tensors, "tensors")?;
            let mut kept = KeptSave::new(&array)?;
            let context = context_or_new(options.context)?;
            let after = mark_streams(array.iter(), &context)?;
            let report = to_report(options.progress, options.user_data);
            let mut job = job_options(context.clone(), options.max_host_bytes, report);
            job.after = after;
            let mut snapshot = to_snapshot(options.borrow);
            let copied = match options.device_snapshot {
                0 => Vec::new(),
                _ => {
                    let data = kept.data_mut().collect();
                    copy_on_devices(data, &context, &mut job, &mut snapshot)?
                }
            };
            let job = save_async(prefix, kept, &options.to_options()?, snapshot, job)?;
            put(
                job_out,
                into_handle(tfckpt_job::of_save(job, context, copied)),
            );
            Ok(())
        })
    }
}

/// As tfckpt_saver_save, in the background; *job_out receives the job. The saver may be used, and even be
/// freed, before the job ends: freeing it waits. Saveables are asked for their elements before this
/// returns.
///
/// # Errors
///
/// Those of arguments, as tfckpt_saver_save; RESOURCE_EXHAUSTED without a thread for the job; the error
/// of an earlier job that nobody fetched from it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_save_async(
    saver: *mut tfckpt_saver,
    save_path: *const c_char,
    options: *const tfckpt_saver_save_options,
    job_out: *mut *mut tfckpt_job,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let poison = borrow(saver).map(|saver| saver.poison.clone());
        guard_handle(poison.as_ref(), error_out, || {
            let saver = required_mut(saver, "saver")?;
            check_out(job_out, "job_out")?;
            let options = read_struct(options)?;
            refuse_stats(options.stats)?;
            let save_path = saver.save_path(save_path)?;
            let save_options = options.to_options()?;
            let mut snapshot = to_snapshot(options.borrow);
            let report = to_report(options.progress, options.user_data);
            let context = saver.context(std::ptr::null())?;
            let mut job = job_options(context.clone(), options.max_host_bytes, report);
            let mut asked = Asked::default();
            let mut devices = Devices::new(&context);
            let values = saver.values(&mut asked, &mut devices);
            let mut copied = Vec::new();
            let values = values.and_then(|mut values| {
                job.after = devices.mark()?;
                if options.device_snapshot != 0 {
                    let data = values.iter_mut().map(|value| &mut value.data).collect();
                    copied = copy_on_devices(data, &context, &mut job, &mut snapshot)?;
                }
                Ok(values)
            });
            let borrows = values.is_ok() && snapshot != Snapshot::Copied;
            if borrows {
                let asked = std::mem::take(&mut asked);
                let mut finish = Finish::new(asked.finishers(&saver.saveables));
                job.on_end = Some(Box::new(move |result| finish.with(result)));
            }
            let started = values.and_then(|values| {
                let saver = &mut saver.saver;
                saver.save_async(&save_path, values, &save_options, snapshot, job)
            });
            if !borrows {
                asked.finish(&saver.saveables, &started);
            }
            saver.refresh_checkpoints();
            put(
                job_out,
                into_handle(tfckpt_job::of_save(started?, context, copied)),
            );
            Ok(())
        })
    }
}

/// Asks all jobs of a saver to stop: those that have not published their checkpoint yet end with
/// TFCKPT_CANCELLED, and tfckpt_saver_free is quick then. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_cancel(saver: *const tfckpt_saver) {
    guard_value((), || {
        // SAFETY: NULL or live, by the header's rules.
        if let Some(saver) = unsafe { borrow(saver) } {
            saver.saver.cancel();
        }
    });
}

/// As tfckpt_restore, in the background; *job_out receives the job, and tfckpt_job_wait_tensor hands the
/// tensors out one by one. Only the descriptions are checked before this returns: the checkpoint is
/// opened by the job.
///
/// The pointer of a tensor of strings is set to NULL by this call and to the strings as soon as they are
/// restored, whatever becomes of the other tensors: free what is not NULL when the job has ended.
///
/// # Errors
///
/// INVALID_ARGUMENT for descriptions or options that cannot be used; RESOURCE_EXHAUSTED without a
/// thread for the job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_restore_async(
    prefix: *const c_char,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    options: *const tfckpt_restore_options,
    job_out: *mut *mut tfckpt_job,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let from = RestoreFrom::Prefix(path(prefix, "prefix")?.to_owned());
            let context = |context: *const tfckpt_context| context_or_new(context);
            restore_with(from, context, tensors, num_tensors, options, job_out)
        })
    }
}

/// As tfckpt_restore_async, from an open checkpoint. The reader may be freed before the job ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_restore_async(
    reader: *const tfckpt_reader,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    options: *const tfckpt_restore_options,
    job_out: *mut *mut tfckpt_job,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let reader = required(reader, "reader")?;
            let from = RestoreFrom::Reader(reader.reader.clone());
            let context = |context: *const tfckpt_context| reader.context_for(context);
            restore_with(from, context, tensors, num_tensors, options, job_out)
        })
    }
}

unsafe fn restore_with(
    from: RestoreFrom,
    context: impl FnOnce(*const tfckpt_context) -> Result<Arc<Context>>,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    options: *const tfckpt_restore_options,
    job_out: *mut *mut tfckpt_job,
) -> Result<()> {
    // SAFETY: the caller's promise; so in the whole block.
    unsafe {
        check_out(job_out, "job_out")?;
        let options = read_struct(options)?;
        refuse_stats(options.stats)?;
        if options.stream_ordered != 0 {
            return Err(Error::invalid_argument(
                "stream_ordered is not for jobs: tfckpt_job_stream_wait orders a stream",
            ));
        }
        let restore_options = options.to_options(options.keep_going != 0)?;
        let array = StructArray::new(tensors, num_tensors, "tensors")?;
        refuse_overlaps(&array)?;
        let report = to_report(options.progress, options.user_data);
        let context = context(options.context)?;
        let mut job = job_options(context.clone(), options.max_host_bytes, report);
        let kept = KeptRestore::new(&array)?;
        job.after = mark_streams(array.iter(), &context)?;
        let job = restore_async(from, kept, &restore_options, job)?;
        put(job_out, into_handle(tfckpt_job::of_restore(job, context)));
        Ok(())
    }
}

/// Checks the GPUs' memory and streams of a job's tensors, and returns what its copies come after.
unsafe fn mark_streams(
    tensors: impl Iterator<Item = tfckpt_tensor>,
    context: &Context,
) -> Result<Vec<Event>> {
    let mut devices = Devices::new(context);
    for (index, tensor) in tensors.enumerate() {
        // SAFETY: the caller's promise.
        unsafe { devices.add(&tensor) }.map_err(|error| {
            let error = error.with_tensor_index(index);
            // SAFETY: the same.
            match unsafe { tensor.common() } {
                Ok(common) => error.with_key(common.key),
                Err(_) => error,
            }
        })?;
    }
    devices.mark()
}

/// Copies tensors within their devices, and has the job hold the copies. Returns events behind the copying;
/// none, and nothing is changed, if there is no room.
fn copy_on_devices(
    data: Vec<&mut SaveData<'static>>,
    context: &Context,
    job: &mut JobOptions,
    snapshot: &mut Snapshot,
) -> Result<Vec<Event>> {
    let is_device = |data: &&mut SaveData<'static>| matches!(**data, SaveData::Device(_));
    let are_all = data.iter().all(is_device);
    // SAFETY: the job holds the slabs until it has ended, and then looks at no tensor.
    let copies = unsafe { DeviceCopies::new(data.into_iter(), context, &job.after) }?;
    let Some(DeviceCopies { slabs, done, told }) = copies else {
        return Ok(Vec::new());
    };
    job.after.extend(done);
    job.holds.push(Box::new(slabs));
    // The host's may be borrowed all the same.
    if are_all || *snapshot == Snapshot::Copied {
        *snapshot = Snapshot::OnDevice;
    }
    Ok(told)
}

fn job_options(
    context: Arc<Context>,
    max_host_bytes: u64,
    progress: Option<Box<JobProgressFn>>,
) -> JobOptions {
    JobOptions {
        max_host_bytes,
        progress,
        ..JobOptions::new(context)
    }
}

fn to_snapshot(borrow: i32) -> Snapshot {
    match borrow {
        0 => Snapshot::Copied,
        _ => Snapshot::Borrowed,
    }
}

/// The memory would have to outlive the call.
fn refuse_stats(stats: *mut tfckpt_stats) -> Result<()> {
    if stats.is_null() {
        return Ok(());
    }
    Err(Error::invalid_argument(
        "the stats of a job are asked for with tfckpt_job_stats",
    ))
}

/// Tells saveables once that a job no longer needs their memory, however it ends.
struct Finish {
    finishers: Vec<Finisher>,
    code: tfckpt_code,
}

impl Finish {
    fn new(finishers: Vec<Finisher>) -> Self {
        Self {
            finishers,
            code: super::error::TFCKPT_ABORTED,
        }
    }

    fn with(&mut self, result: &Result<()>) {
        self.code = match result {
            Ok(()) => TFCKPT_OK,
            Err(error) => error.code() as tfckpt_code,
        };
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        for finish in &self.finishers {
            // SAFETY: the callbacks are the caller's, valid as long as the saver, which waits for its
            // jobs.
            unsafe { finish.call(self.code) };
        }
    }
}
