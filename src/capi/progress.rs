//! Progress
//!
//! A call reports to its progress callback on the calling thread, a job on its own: when it begins, at least every 100 ms
//! while it works or waits for memory that other calls hold or for copies from and to devices, and between
//! the steps of publishing a save. As long as it looks through the index, the totals are 0.
//!
//! A callback that returns anything but 0 cancels the call, which then returns TFCKPT_CANCELLED; a save
//! withdraws what it has published by then. Copies from and to devices that are enqueued cannot be called
//! back, and use the caller's memory: the call, or the job that tfckpt_job_cancel stops, enqueues no more of
//! them and returns, without further reports, when they have run. Behind a stream of the caller's that waits
//! for something, that is not before the stream goes on.
//!
//! Callbacks must not unwind or longjmp, and must not use the handles that the call works on, its context
//! included. They may use CUDA: the thread's current context, and how it stands to captures, are the caller's.

use std::ffi::c_void;

use super::error::tfckpt_code;
use super::handle::{Sized, init_struct, write_struct};
use super::wall::guard;
use crate::{JobProgressFn, Progress, ProgressFn, Result, Update};

/// How far a call is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_progress {
    /// sizeof(tfckpt_progress): as the library knows it in a callback, set by the caller of
    /// tfckpt_job_progress.
    pub struct_size: usize,
    /// Bytes of tensors moved so far.
    pub bytes_done: u64,
    /// Bytes of tensors to move in all.
    pub bytes_total: u64,
    /// Tensors complete so far.
    pub tensors_done: u64,
    /// Tensors in all.
    pub tensors_total: u64,
}

/// A progress callback. Returning anything but 0 cancels the call.
pub type tfckpt_progress_fn =
    Option<unsafe extern "C" fn(progress: *const tfckpt_progress, user_data: *mut c_void) -> i32>;

// SAFETY: `repr(C)`, begins with its size, integers only.
unsafe impl Sized for tfckpt_progress {
    const NAME: &'static str = "tfckpt_progress";
}

/// Sets *progress to zeros; struct_size is sizeof(tfckpt_progress).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_progress_init(
    progress: *mut tfckpt_progress,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `progress` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(progress, struct_size)) }
}

impl tfckpt_progress {
    fn new(update: &Update) -> Self {
        Self {
            struct_size: size_of::<Self>(),
            bytes_done: update.bytes_done,
            bytes_total: update.bytes_total,
            tensors_done: update.tensors_done,
            tensors_total: update.tensors_total,
        }
    }
}

/// Fills the caller's struct.
///
/// # Errors
///
/// INVALID_ARGUMENT if its size is not set.
///
/// # Safety
///
/// `out` must be valid for reads and writes of its own size.
pub(super) unsafe fn put_progress(out: *mut tfckpt_progress, update: &Update) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { write_struct(out, &tfckpt_progress::new(update)) }
}

/// A callback of C and what it is passed, for the thread that calls it.
struct Callback {
    function: unsafe extern "C" fn(*const tfckpt_progress, *mut c_void) -> i32,
    user_data: *mut c_void,
}

// SAFETY: the header says that the callback of a job is called on the job's thread.
unsafe impl Send for Callback {}

impl Callback {
    fn report(&self, update: &Update) -> bool {
        let progress = tfckpt_progress::new(update);
        // SAFETY: the caller passed a function of this type; it is called on one thread at a time,
        // while the call or the job runs.
        unsafe { (self.function)(&raw const progress, self.user_data) == 0 }
    }
}

/// What reports to a callback of C.
pub(super) fn to_report(
    function: tfckpt_progress_fn,
    user_data: *mut c_void,
) -> Option<Box<JobProgressFn>> {
    let callback = Callback {
        function: function?,
        user_data,
    };
    Some(Box::new(move |update| callback.report(update)))
}

/// Reports to a callback of C.
pub(super) fn to_progress<'a>(
    function: tfckpt_progress_fn,
    user_data: *mut c_void,
) -> Progress<'a> {
    let report = to_report(function, user_data);
    Progress::new(report.map(|report| -> Box<ProgressFn<'a>> { report }))
}
