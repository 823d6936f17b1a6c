//! Progress
//!
//! A call reports to its progress callback on the calling thread: when it begins, at least every 100 ms
//! while it works or waits for memory that other calls hold, and between the steps of publishing a save.
//! As long as it looks through the index, the totals are 0. A callback that returns anything but 0 cancels the call, which then returns TFCKPT_CANCELLED; a save withdraws what it
//! has published by then. Callbacks must not unwind or longjmp, and must not use the handles that the
//! call works on, its context included.

use std::ffi::c_void;

use crate::{Progress, ProgressFn, Update};

/// How far a call is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_progress {
    /// sizeof(tfckpt_progress) as the library knows it.
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

/// Reports to a callback of C.
pub(super) fn to_progress<'a>(
    callback: tfckpt_progress_fn,
    user_data: *mut c_void,
) -> Progress<'a> {
    let Some(callback) = callback else {
        return Progress::new(None);
    };
    let report = move |update: &Update| {
        let progress = tfckpt_progress {
            struct_size: size_of::<tfckpt_progress>(),
            bytes_done: update.bytes_done,
            bytes_total: update.bytes_total,
            tensors_done: update.tensors_done,
            tensors_total: update.tensors_total,
        };
        // SAFETY: the caller passed a function of this type; it is called on the calling thread
        // while the call runs.
        unsafe { callback(&raw const progress, user_data) == 0 }
    };
    let report: Box<ProgressFn<'a>> = Box::new(report);
    Progress::new(Some(report))
}
