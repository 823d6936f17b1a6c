//! The latest checkpoint
//!
//! The file "checkpoint" of a folder names its latest checkpoint. An engine that finds none starts
//! afresh, so TFCKPT_NOT_FOUND means exactly that there is no such file; one that names a checkpoint
//! which is damaged or gone is TFCKPT_DATA_LOSS.

use std::ffi::c_char;

use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{
    Sized, c_path, c_string, check_out, init_struct, path, put, read_struct, text, write_struct,
};
use super::wall::guard;
use crate::LatestOptions;

/// How the latest checkpoint is found, and what was found. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_latest_options {
    /// sizeof(tfckpt_latest_options)
    pub struct_size: usize,
    /// Name of the state file in the folder; NULL = "checkpoint".
    pub latest_filename: *const c_char,
    /// In. Not 0: if the checkpoint named is incomplete, take the last complete one of the others
    /// that the file lists.
    pub fall_back: i32,
    /// In. Not 0: a recorded path that is gone is tried as the folder and its last part, for a folder
    /// that was moved.
    pub rebase: i32,
    /// Out. 1 if it is not the checkpoint named, 0 otherwise.
    pub fell_back: i32,
    /// Out. Why, to be freed with tfckpt_string_free, before the next call with the same options; NULL
    /// if fell_back is 0.
    pub reason: *mut c_char,
}

// SAFETY: `repr(C)`, begins with its size, integers and pointers only.
unsafe impl Sized for tfckpt_latest_options {
    const NAME: &'static str = "tfckpt_latest_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_latest_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_latest_options_init(
    options: *mut tfckpt_latest_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Finds the latest checkpoint of the folder dir. *prefix_out receives its prefix, to be freed with
/// tfckpt_string_free. options may be NULL; its out fields are written on success.
///
/// The checkpoint is complete: its index opens and every data file reaches the end of what the index
/// says of it. Contents are not verified.
///
/// # Errors
///
/// NOT_FOUND without a state file; DATA_LOSS if the checkpoint that it names is incomplete, or it cannot
/// be parsed; INVALID_ARGUMENT if it names none; PERMISSION_DENIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_latest_checkpoint(
    dir: *const c_char,
    options: *mut tfckpt_latest_options,
    prefix_out: *mut *mut c_char,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let dir = path(dir, "dir")?;
            check_out(prefix_out, "prefix_out")?;
            let mut given = read_struct(options.cast_const())?;
            let latest = crate::latest_checkpoint(
                dir,
                LatestOptions {
                    latest_filename: text(given.latest_filename, "latest_filename")?,
                    fall_back: given.fall_back != 0,
                    rebase: given.rebase != 0,
                },
            )?;
            given.fell_back = i32::from(latest.fell_back.is_some());
            given.reason = std::ptr::null_mut();
            if !options.is_null() {
                if let Some(error) = latest.fell_back {
                    given.reason = c_string(error.to_string()).into_raw();
                }
                write_struct(options, &given)?;
            }
            put(prefix_out, c_path(&latest.prefix).into_raw());
            Ok(())
        })
    }
}
