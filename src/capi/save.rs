//! Saving
//!
//! A save writes temporary files first and renames them when they are complete and on disk, the index
//! last: a checkpoint exists when its index does. Whatever goes wrong before that leaves every earlier
//! checkpoint as it was, also one of the same prefix. Of the older format V1, which TensorFlow still reads
//! and writes, the checkpoint is one file, or one file per shard, the first of them renamed last.

use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;

use super::context::{context_or_new, tfckpt_context};
use super::devices::Devices;
use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{Sized, borrow, c_path, init_struct, path, put, read_struct};
use super::progress::{tfckpt_progress_fn, to_progress};
use super::state::to_format;
use super::stats::{clear_stats, put_stats, tfckpt_stats};
use super::struct_array::StructArray;
use super::tensor::tfckpt_tensor;
use super::wall::guard;
use crate::{Call, Error, Result, SaveOptions, SaveTensor};

/// How a checkpoint is saved. All zeros is the default, and TensorFlow's way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_save_options {
    /// sizeof(tfckpt_save_options)
    pub struct_size: usize,
    /// NULL = one for this call.
    pub context: *const tfckpt_context,
    /// Appended to the prefix as "-<step>"; NULL = nothing is.
    pub global_step: *const i64,
    /// Not 0: the step is written with at least 8 digits.
    pub pad_step_number: i32,
    /// Not 0: the file "checkpoint" beside the prefix names this checkpoint as the latest.
    pub update_state: i32,
    /// Not 0: that file holds relative paths, so that the folder can be moved.
    pub save_relative_paths: i32,
    /// Not 0: no fsync. The checkpoint then survives a crash of the process, not one of the system.
    pub no_sync: i32,
    /// Not 0: the tensors of each device_name get a data file of their own.
    pub shard_by_device: i32,
    /// TFCKPT_FORMAT_*: the format that is written. V1 has fewer dtypes and records below 2 GiB, and
    /// no folder is created for it.
    pub format: i32,
    /// Most bytes of a data file, alignment included, as far as whole tensors allow; 0 = no limit.
    pub max_shard_size: u64,
    /// Alignment of every tensor in its data file in bytes, a power of two up to 1 MiB, for views;
    /// 0 and 1 = packed, as TensorFlow packs.
    pub alignment: u64,
    /// As in tfckpt_context_options, for this call; 0 = the context's alone.
    pub max_host_bytes: u64,
    /// NULL = no progress.
    pub progress: tfckpt_progress_fn,
    /// Passed to progress.
    pub user_data: *mut c_void,
    /// Filled if not NULL. Must be NULL for a job: tfckpt_job_stats has its figures.
    pub stats: *mut tfckpt_stats,
    /// Not 0: the sidecar "PREFIX.crc32c" is written too, with a checksum of each MiB of every tensor
    /// that is larger, 4 KiB for each GiB. TFCKPT_VERIFY_FETCHED then reads and verifies a slice without
    /// the rest of its tensor. For V2 only; TensorFlow does not look at it. docs/sidecar.md has its format.
    pub chunk_checksums: i32,
    /// Of a job only. 0: tfckpt_save_async copies the tensors within the budget before it returns. Not 0:
    /// it returns at once, and the tensors must not change until tfckpt_job_wait_snapshot says so.
    pub borrow: i32,
    /// Of a job only. Not 0: tensors in device memory are copied within their device, if it has room for all
    /// of them, and the call does not wait for that: tfckpt_job_snapshot_stream_wait orders the stream that
    /// changes them, and tfckpt_job_wait_snapshot waits on the host. The host's tensors are copied before the
    /// call returns; it returns later if max_host_bytes has no room for copies of those. The copies within
    /// devices go when the job ends. Without room on a device it is as if this were 0.
    pub device_snapshot: i32,
}

// SAFETY: `repr(C)`, begins with its size, integers, pointers and an optional function only.
unsafe impl Sized for tfckpt_save_options {
    const NAME: &'static str = "tfckpt_save_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_save_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_save_options_init(
    options: *mut tfckpt_save_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Saves num_tensors tensors to the checkpoint prefix, such as "/models/a/model.ckpt", in the order of
/// the array. A folder that is missing is created, one level of it. options may be NULL. *prefix_out
/// (unless prefix_out is NULL) receives the prefix with its step, to be freed with tfckpt_string_free; of
/// a checkpoint of format V1 that shard_by_device or max_shard_size cut into files, the pattern
/// "model.ckpt-?????-of-00002", which stands for it in every other call.
///
/// # Errors
///
/// INVALID_ARGUMENT for tensors or options that do not fit together, found before anything is written;
/// RESOURCE_EXHAUSTED when the disk is full; PERMISSION_DENIED; NOT_FOUND for a folder that cannot be
/// created; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_save(
    prefix: *const c_char,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    options: *const tfckpt_save_options,
    prefix_out: *mut *mut c_char,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let prefix = path(prefix, "prefix")?;
            save_with(
                tensors,
                num_tensors,
                options,
                prefix_out,
                |tensors, options, call| crate::save(prefix, tensors, options, call),
            )
        })
    }
}

/// Reads the arguments of a save, calls `save` with them, and writes its figures and the path it returns.
///
/// # Errors
///
/// INVALID_ARGUMENT for arguments that cannot be used; those of `save`.
///
/// # Safety
///
/// As [`tfckpt_save`].
pub(super) unsafe fn save_with(
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    options: *const tfckpt_save_options,
    path_out: *mut *mut c_char,
    save: impl FnOnce(&[SaveTensor<'_>], &SaveOptions, &mut Call<'_>) -> Result<PathBuf>,
) -> Result<()> {
    // SAFETY: the caller's promise; so in the whole block.
    unsafe {
        let options = read_struct(options)?;
        clear_stats(options.stats)?;
        let array = StructArray::new(tensors, num_tensors, "tensors")?;
        // A list that grows would take up to three times as much meanwhile.
        let mut tensors: Vec<SaveTensor<'_>> = Vec::with_capacity(num_tensors);
        let context = context_or_new(options.context)?;
        let mut devices = Devices::new(&context);
        for (index, tensor) in array.iter().enumerate() {
            let described = tensor.describe_save();
            let described = described.and_then(|described| devices.admit(&tensor, described));
            tensors.push(described.map_err(|error: Error| error.with_tensor_index(index))?);
        }
        let mut call = Call::new(&context);
        call.after = devices.mark()?;
        call.max_host_bytes = options.max_host_bytes;
        call.progress = to_progress(options.progress, options.user_data);
        let saved = save(&tensors, &options.to_options()?, &mut call);
        put_stats(options.stats, &call.stats)?;
        let saved: CString = c_path(&saved?);
        if !path_out.is_null() {
            put(path_out, saved.into_raw());
        }
        Ok(())
    }
}

impl tfckpt_save_options {
    /// # Errors
    ///
    /// INVALID_ARGUMENT for an unknown format.
    ///
    /// # Safety
    ///
    /// `global_step` must be NULL or valid for a read.
    pub(super) unsafe fn to_options(self) -> Result<SaveOptions> {
        Ok(SaveOptions {
            // SAFETY: the caller's promise.
            global_step: unsafe { borrow(self.global_step) }.copied(),
            pad_step_number: self.pad_step_number != 0,
            update_state: self.update_state != 0,
            save_relative_paths: self.save_relative_paths != 0,
            no_sync: self.no_sync != 0,
            shard_by_device: self.shard_by_device != 0,
            max_shard_size: self.max_shard_size,
            alignment: self.alignment,
            format: to_format(self.format)?,
            chunk_checksums: self.chunk_checksums != 0,
        })
    }
}
