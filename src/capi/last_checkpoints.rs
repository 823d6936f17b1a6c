//! Checkpoints of a saver
//!
//! The checkpoints that a saver keeps, oldest first. A new saver knows none: after a restart,
//! tfckpt_saver_recover_last_checkpoints with the paths of the state file lets it go on counting.

use std::ffi::c_char;
use std::path::PathBuf;

use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{array, borrow, check_out, into_handle, path, put, required, required_mut};
use super::saver::tfckpt_saver;
use super::tensor::tfckpt_strings;
use super::wall::{guard_handle, guard_value};
use crate::{Error, Result};

/// Number of checkpoints that are kept, those of jobs that have ended included; 0 for NULL. The two
/// functions below go by the list that this one has looked at, or the saver's last call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_num_last_checkpoints(saver: *const tfckpt_saver) -> usize {
    guard_value(0, || {
        // SAFETY: NULL or live, by the header's rules; so below.
        unsafe { borrow(saver) }.map_or(0, |saver| {
            saver.look_at_checkpoints(|checkpoints| checkpoints.known.len())
        })
    })
}

/// Path i of the checkpoints that are kept. Borrowed from the saver until its next call that is not
/// const; NULL if there is no such checkpoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_last_checkpoint(
    saver: *const tfckpt_saver,
    i: usize,
) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: as above.
        unsafe { borrow(saver) }.map_or(std::ptr::null(), |saver| {
            let checkpoints = saver.lock_checkpoints();
            let checkpoint = checkpoints.known.get(i);
            checkpoint.map_or(std::ptr::null(), |(path, _)| path.as_ptr())
        })
    })
}

/// When checkpoint i was saved, in seconds since 1970; 0 if there is no such checkpoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_last_checkpoint_time(
    saver: *const tfckpt_saver,
    i: usize,
) -> f64 {
    guard_value(0.0, || {
        // SAFETY: as above.
        unsafe { borrow(saver) }.map_or(0.0, |saver| {
            let checkpoints = saver.lock_checkpoints();
            checkpoints.known.get(i).map_or(0.0, |&(_, time)| time)
        })
    })
}

/// Replaces the list of checkpoints that are kept. Their time is infinity, so none of them will be
/// deleted: TensorFlow's deprecated Saver.set_last_checkpoints.
///
/// # Errors
///
/// FAILED_PRECONDITION before the saver is built.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_set_last_checkpoints(
    saver: *mut tfckpt_saver,
    paths: *const *const c_char,
    num_paths: usize,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules.
    unsafe {
        change(saver, paths, num_paths, error_out, |saver, paths| {
            saver.saver.set_last_checkpoints(paths)
        })
    }
}

/// Replaces the list of checkpoints that are kept. times holds num_paths times in seconds since 1970.
///
/// # Errors
///
/// FAILED_PRECONDITION before the saver is built.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_set_last_checkpoints_with_time(
    saver: *mut tfckpt_saver,
    paths: *const *const c_char,
    times: *const f64,
    num_paths: usize,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules.
    unsafe {
        change(saver, paths, num_paths, error_out, |saver, paths| {
            let times = array(times, num_paths, "times")?;
            let timed = paths.into_iter().zip(times.iter().copied());
            saver.saver.set_last_checkpoints_with_time(timed.collect())
        })
    }
}

/// Replaces the list of checkpoints that are kept by those of paths that exist, with the times of their
/// files.
///
/// # Errors
///
/// FAILED_PRECONDITION before the saver is built; PERMISSION_DENIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_recover_last_checkpoints(
    saver: *mut tfckpt_saver,
    paths: *const *const c_char,
    num_paths: usize,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules.
    unsafe {
        change(saver, paths, num_paths, error_out, |saver, paths| {
            saver.saver.recover_last_checkpoints(paths)
        })
    }
}

/// The saver's definition, a serialised tensorflow.SaverDef, as the one element of *saver_def_out, to
/// be freed with tfckpt_strings_free.
///
/// # Errors
///
/// FAILED_PRECONDITION before the saver is built, and if it is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_as_saver_def(
    saver: *const tfckpt_saver,
    saver_def_out: *mut *mut tfckpt_strings,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(saver);
        guard_handle(handle.map(|saver| &saver.poison), error_out, || {
            let saver = required(saver, "saver")?;
            check_out(saver_def_out, "saver_def_out")?;
            let saver_def = saver.saver.as_saver_def().ok_or_else(|| {
                Error::failed_precondition("a saver without tensors has no definition")
            })?;
            put(
                saver_def_out,
                into_handle(tfckpt_strings::one(&saver_def.encode())),
            );
            Ok(())
        })
    }
}

unsafe fn change(
    saver: *mut tfckpt_saver,
    paths: *const *const c_char,
    num_paths: usize,
    error_out: *mut *mut tfckpt_error,
    body: impl FnOnce(&mut tfckpt_saver, Vec<PathBuf>) -> Result<()>,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let poison = borrow(saver).map(|saver| saver.poison.clone());
        guard_handle(poison.as_ref(), error_out, || {
            let saver = required_mut(saver, "saver")?;
            let paths: &[*const c_char] = array(paths, num_paths, "paths")?;
            let owned = paths
                .iter()
                .map(|&element| Ok(path(element, "paths")?.to_owned()));
            body(saver, owned.collect::<Result<_>>()?)?;
            saver.refresh_checkpoints();
            Ok(())
        })
    }
}
