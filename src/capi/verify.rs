//! Verifying a checkpoint
//!
//! Reads all of it and compares every checksum, those of the index included. A sidecar of chunk checksums
//! is compared with the index.

use std::ffi::c_void;

use super::context::tfckpt_context;
use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{Sized, borrow, init_struct, put, read_struct, required};
use super::progress::{tfckpt_progress_fn, to_progress};
use super::reader::tfckpt_reader;
use super::stats::{clear_stats, put_stats, tfckpt_stats};
use super::wall::{guard, guard_handle};
use crate::{Call, Error};

/// Called for each thing that is broken. The error is borrowed for the call.
pub type tfckpt_damage_fn =
    Option<unsafe extern "C" fn(error: *const tfckpt_error, user_data: *mut c_void)>;

/// How a checkpoint is verified. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_verify_options {
    /// sizeof(tfckpt_verify_options)
    pub struct_size: usize,
    /// NULL = the reader's, or one for this call.
    pub context: *const tfckpt_context,
    /// NULL = no progress.
    pub progress: tfckpt_progress_fn,
    /// Called on the calling thread; NULL = damage is only counted.
    pub damage: tfckpt_damage_fn,
    /// Passed to progress and damage.
    pub user_data: *mut c_void,
    /// Filled if not NULL.
    pub stats: *mut tfckpt_stats,
}

// SAFETY: `repr(C)`, begins with its size, pointers and optional functions only.
unsafe impl Sized for tfckpt_verify_options {
    const NAME: &'static str = "tfckpt_verify_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_verify_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_verify_options_init(
    options: *mut tfckpt_verify_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Checks every checksum of an open checkpoint. options may be NULL. *num_damaged_out (unless
/// num_damaged_out is NULL) receives the number of things that are broken.
///
/// # Errors
///
/// That of the first thing that is broken; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_verify(
    reader: *const tfckpt_reader,
    options: *const tfckpt_verify_options,
    num_damaged_out: *mut u64,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let reader = required(reader, "reader")?;
            let options: tfckpt_verify_options = read_struct(options)?;
            clear_stats(options.stats)?;
            let context = reader.context_for(options.context)?;
            let mut call = Call::new(&context);
            call.progress = to_progress(options.progress, options.user_data);
            let mut first: Option<Error> = None;
            let mut num_damaged = 0;
            let mut damage = |error: Error| {
                num_damaged += 1;
                if let Some(callback) = options.damage {
                    let error = tfckpt_error::new(error.clone());
                    callback(&raw const error, options.user_data);
                }
                first.get_or_insert(error);
            };
            let verified = reader.reader.verify(&mut damage, &mut call);
            put_stats(options.stats, &call.stats)?;
            verified?;
            put(num_damaged_out, num_damaged);
            first.map_or(Ok(()), Err)
        })
    }
}
