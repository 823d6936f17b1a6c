//! Checkpoint state
//!
//! The functions of tf.train around the file "checkpoint", which lists the checkpoints of a folder
//! (tensorflow/python/training/checkpoint_state.proto), and around the files of a checkpoint.

use std::ffi::{CString, c_char};
use std::path::PathBuf;

use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{
    Sized, array, array_mut, borrow, c_string, check_out, free, init_struct, into_handle, path,
    put, read_struct, text,
};
use super::wall::{guard, guard_value};
use crate::{CheckpointState, Error, Format, RemoveOptions, Result, UpdateOptions};

/// What a state file says.
pub struct tfckpt_checkpoint_state {
    state: CheckpointState,
    model_checkpoint_path: CString,
    paths: Vec<CString>,
}

/// Reads the state file of the folder dir, as tf.train.get_checkpoint_state does: relative paths are
/// joined to dir. latest_filename NULL = "checkpoint". *state_out is the caller's, to be freed with
/// tfckpt_checkpoint_state_free.
///
/// # Errors
///
/// NOT_FOUND without a state file; DATA_LOSS, with the line, if it cannot be parsed; INVALID_ARGUMENT if
/// it names no checkpoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_get_checkpoint_state(
    dir: *const c_char,
    latest_filename: *const c_char,
    state_out: *mut *mut tfckpt_checkpoint_state,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let dir = path(dir, "dir")?;
            let latest_filename = text(latest_filename, "latest_filename")?;
            check_out(state_out, "state_out")?;
            let state = crate::get_checkpoint_state(dir, latest_filename)?.ok_or_else(|| {
                Error::not_found(format!("no checkpoint state file; dir={}", dir.display()))
            })?;
            let paths = state.all_model_checkpoint_paths.iter();
            let handle = tfckpt_checkpoint_state {
                model_checkpoint_path: c_string(state.model_checkpoint_path.as_str()),
                paths: paths.map(|path| c_string(path.as_str())).collect(),
                state,
            };
            put(state_out, into_handle(handle));
            Ok(())
        })
    }
}

/// Path of the latest checkpoint. Borrowed from the state; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_checkpoint_state_model_checkpoint_path(
    state: *const tfckpt_checkpoint_state,
) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: NULL or live, by the header's rules; so below.
        unsafe { borrow(state) }.map_or(std::ptr::null(), |s| s.model_checkpoint_path.as_ptr())
    })
}

/// Number of all_model_checkpoint_paths; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_checkpoint_state_num_paths(
    state: *const tfckpt_checkpoint_state,
) -> usize {
    guard_value(0, || {
        // SAFETY: as above.
        unsafe { borrow(state) }.map_or(0, |state| state.paths.len())
    })
}

/// Path i of all_model_checkpoint_paths, the oldest first. Borrowed from the state; NULL if there is
/// no such path.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_checkpoint_state_path(
    state: *const tfckpt_checkpoint_state,
    i: usize,
) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: as above.
        let path = unsafe { borrow(state) }.and_then(|state| state.paths.get(i));
        path.map_or(std::ptr::null(), |path| path.as_ptr())
    })
}

/// Number of all_model_checkpoint_timestamps; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_checkpoint_state_num_timestamps(
    state: *const tfckpt_checkpoint_state,
) -> usize {
    guard_value(0, || {
        // SAFETY: as above.
        unsafe { borrow(state) }.map_or(0, |s| s.state.all_model_checkpoint_timestamps.len())
    })
}

/// Timestamp i in seconds since 1970; 0 if there is no such timestamp.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_checkpoint_state_timestamp(
    state: *const tfckpt_checkpoint_state,
    i: usize,
) -> f64 {
    guard_value(0.0, || {
        // SAFETY: as above.
        let state = unsafe { borrow(state) };
        let time = state.and_then(|s| s.state.all_model_checkpoint_timestamps.get(i));
        time.copied().unwrap_or(0.0)
    })
}

/// Seconds since 1970 of the last checkpoint that was preserved for good; 0 if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_checkpoint_state_last_preserved_timestamp(
    state: *const tfckpt_checkpoint_state,
) -> f64 {
    guard_value(0.0, || {
        // SAFETY: as above.
        let state = unsafe { borrow(state) };
        state
            .and_then(|s| s.state.last_preserved_timestamp)
            .unwrap_or(0.0)
    })
}

/// Frees a state. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_checkpoint_state_free(state: *mut tfckpt_checkpoint_state) {
    // SAFETY: NULL or a state that the caller owns.
    unsafe { free(state) }
}

/// What goes into a state file beside the latest checkpoint. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_update_options {
    /// sizeof(tfckpt_update_options)
    pub struct_size: usize,
    /// All checkpoints that are kept, the oldest first; the latest is appended if it is not the last.
    pub all_model_checkpoint_paths: *const *const c_char,
    /// Number of them.
    pub num_paths: usize,
    /// Seconds since 1970 for each of them, or NULL.
    pub all_model_checkpoint_timestamps: *const f64,
    /// Number of timestamps.
    pub num_timestamps: usize,
    /// Seconds since 1970 of the last checkpoint preserved for good; NULL = none.
    pub last_preserved_timestamp: *const f64,
    /// Name of the state file; NULL = "checkpoint".
    pub latest_filename: *const c_char,
    /// Not 0: absolute paths are stored relative to the folder.
    pub save_relative_paths: i32,
    /// Not 0: no fsync.
    pub no_sync: i32,
}

// SAFETY: `repr(C)`, begins with its size, integers and pointers only.
unsafe impl Sized for tfckpt_update_options {
    const NAME: &'static str = "tfckpt_update_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_update_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_update_options_init(
    options: *mut tfckpt_update_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Writes the state file of the folder save_dir, byte for byte as tf.train.update_checkpoint_state
/// does, and replaces the old one in one step. options may be NULL.
///
/// # Errors
///
/// INVALID_ARGUMENT when numbers of paths and timestamps differ; FAILED_PRECONDITION when the state file
/// and the checkpoint have one path; the system's errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_update_checkpoint_state(
    save_dir: *const c_char,
    model_checkpoint_path: *const c_char,
    options: *const tfckpt_update_options,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let save_dir = path(save_dir, "save_dir")?;
            let latest = path(model_checkpoint_path, "model_checkpoint_path")?;
            let options = read_struct(options)?;
            let paths = read_paths(
                options.all_model_checkpoint_paths,
                options.num_paths,
                "all_model_checkpoint_paths",
            )?;
            let timestamps = array(
                options.all_model_checkpoint_timestamps,
                options.num_timestamps,
                "all_model_checkpoint_timestamps",
            )?;
            let options = UpdateOptions {
                all_model_checkpoint_paths: &paths,
                all_model_checkpoint_timestamps: timestamps,
                last_preserved_timestamp: borrow(options.last_preserved_timestamp).copied(),
                latest_filename: text(options.latest_filename, "latest_filename")?,
                save_relative_paths: options.save_relative_paths != 0,
                no_sync: options.no_sync != 0,
            };
            crate::update_checkpoint_state(save_dir, latest, &options)
        })
    }
}

/// Whether there is a checkpoint at prefix, which is taken literally: *exists_out becomes 1 or 0. It
/// need not be complete.
///
/// # Errors
///
/// The system's errors when the question cannot be answered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_checkpoint_exists(
    prefix: *const c_char,
    exists_out: *mut i32,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let prefix = path(prefix, "prefix")?;
            check_out(exists_out, "exists_out")?;
            put(exists_out, i32::from(crate::checkpoint_exists(prefix)?));
            Ok(())
        })
    }
}

/// Times of last change of those of num_prefixes checkpoints that exist, in order, in whole seconds
/// since 1970. mtimes_out has room for num_prefixes; *num_out receives how many were written.
///
/// # Errors
///
/// The system's errors other than NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_get_checkpoint_mtimes(
    prefixes: *const *const c_char,
    num_prefixes: usize,
    mtimes_out: *mut f64,
    num_out: *mut usize,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let prefixes = read_paths(prefixes, num_prefixes, "prefixes")?;
            let out = array_mut(mtimes_out, num_prefixes, "mtimes_out")?;
            check_out(num_out, "num_out")?;
            let times = crate::get_checkpoint_mtimes(&prefixes)?;
            for (slot, &time) in out.iter_mut().zip(&times) {
                slot.write(time);
            }
            put(num_out, times.len());
            Ok(())
        })
    }
}

/// A checkpoint of index and data files.
pub const TFCKPT_FORMAT_V2: i32 = 0;
/// A checkpoint of one file, or of one per shard.
pub const TFCKPT_FORMAT_V1: i32 = 1;

/// How a checkpoint is removed. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_remove_options {
    /// sizeof(tfckpt_remove_options)
    pub struct_size: usize,
    /// TFCKPT_FORMAT_*: whose files to remove; those of the other format stay.
    pub format: i32,
    /// Suffix of the meta graph's file; NULL = "meta".
    pub meta_graph_suffix: *const c_char,
    /// Not 0: no fsync.
    pub no_sync: i32,
}

// SAFETY: `repr(C)`, begins with its size, integers and a pointer only.
unsafe impl Sized for tfckpt_remove_options {
    const NAME: &'static str = "tfckpt_remove_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_remove_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_remove_options_init(
    options: *mut tfckpt_remove_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Removes the files of the checkpoint prefix, which is taken literally, in TensorFlow's order: the
/// meta graph's file, the index, a sidecar of chunk checksums, the data files. What is not there is no
/// error. options may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_remove_checkpoint(
    prefix: *const c_char,
    options: *const tfckpt_remove_options,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let prefix = path(prefix, "prefix")?;
            let options: tfckpt_remove_options = read_struct(options)?;
            let options = RemoveOptions {
                format: to_format(options.format)?,
                meta_graph_suffix: text(options.meta_graph_suffix, "meta_graph_suffix")?,
                no_sync: options.no_sync != 0,
            };
            crate::remove_checkpoint(prefix, &options)
        })
    }
}

/// The format that a TFCKPT_FORMAT_* names.
///
/// # Errors
///
/// INVALID_ARGUMENT for any other number.
pub(super) fn to_format(format: i32) -> Result<Format> {
    match format {
        TFCKPT_FORMAT_V2 => Ok(Format::V2),
        TFCKPT_FORMAT_V1 => Ok(Format::V1),
        other => Err(Error::invalid_argument(format!(
            "unknown format; format={other}"
        ))),
    }
}

/// An array of paths.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the argument.
///
/// # Safety
///
/// `paths` must be NULL or an array of `num` NUL-terminated strings or NULLs.
unsafe fn read_paths(paths: *const *const c_char, num: usize, name: &str) -> Result<Vec<PathBuf>> {
    // SAFETY: the caller's promise.
    let paths = unsafe { array(paths, num, name) }?;
    let owned = |&each: &*const c_char| {
        // SAFETY: the caller's promise.
        unsafe { path(each, name) }.map(PathBuf::from)
    };
    paths.iter().map(owned).collect()
}
