//! Saving from several processes
//!
//! Where the tensors of a model are spread over processes, each saves its own as a part, and one of them
//! merges the parts into the checkpoint.
//!
//! First, all agree on the prefix and on a save_id, such as the step, or a random number that process 0
//! sends to the others. Each calls tfckpt_save_shard with its own shard number and tensors.
//!
//! Second, all wait until every part is saved: at a barrier, or by a message to process 0.
//!
//! Third, process 0 calls tfckpt_merge with the parts in the order of their numbers. Then the checkpoint
//! is there, and the parts are gone.
//!
//! The parts are "PREFIX_temp_ID/part-SSSSS-of-NNNNN", with ID for save_id and numbers of five digits
//! from 00000, on a file system that all processes see. Each is a checkpoint that a reader opens. The
//! merged files equal, byte for byte, those of one save whose shards have these tensors.
//!
//! A slice of a partitioned tensor may come from any part (slice_spec). Whatever goes wrong in a merge,
//! the parts stay whole and the checkpoint that the prefix had before stays what it was. After a crash, call
//! tfckpt_merge again with the same arguments: it merges, or finishes what the first one began. Parts
//! that nobody will merge are a folder to be removed.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;

use super::context::{context_or_new, tfckpt_context};
use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{Sized, array, init_struct, path, read_struct, text};
use super::progress::{tfckpt_progress_fn, to_progress};
use super::save::{save_with, tfckpt_save_options};
use super::stats::{clear_stats, put_stats, tfckpt_stats};
use super::tensor::tfckpt_tensor;
use super::wall::guard;
use crate::{Call, MergeOptions, Result};

/// How parts are merged. All zeros is the default, and TensorFlow's way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_merge_options {
    /// sizeof(tfckpt_merge_options)
    pub struct_size: usize,
    /// NULL = one for this call.
    pub context: *const tfckpt_context,
    /// Not 0: parts that are not there are left out. 0 = they are an error.
    pub allow_missing_files: i32,
    /// Not 0: the parts stay. Their data files may then be the checkpoint's under another name (a hard
    /// link), so nothing must write to them. 0 = they are removed, and the folders they leave empty.
    pub keep_parts: i32,
    /// Not 0: the file "checkpoint" beside the prefix names this checkpoint as the latest.
    pub update_state: i32,
    /// Not 0: that file holds relative paths, so that the folder can be moved.
    pub save_relative_paths: i32,
    /// Not 0: no fsync. 0 = also the parts' data files are synced, in case their writers did not.
    pub no_sync: i32,
    /// NULL = no progress. Told of no bytes, but can cancel.
    pub progress: tfckpt_progress_fn,
    /// Passed to progress.
    pub user_data: *mut c_void,
    /// Filled if not NULL.
    pub stats: *mut tfckpt_stats,
}

// SAFETY: `repr(C)`, begins with its size, integers, pointers and an optional function only.
unsafe impl Sized for tfckpt_merge_options {
    const NAME: &'static str = "tfckpt_merge_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_merge_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_merge_options_init(
    options: *mut tfckpt_merge_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Saves num_tensors tensors as part shard (0 to num_shards - 1) of the checkpoint prefix. *part_out
/// (unless part_out is NULL) receives the prefix of the part, to be freed with tfckpt_string_free. options
/// may be NULL; update_state is INVALID_ARGUMENT here. With a global_step the part is one of
/// "PREFIX-<step>", and that is the prefix to give to tfckpt_merge.
///
/// save_id keeps the parts of two saves to one prefix apart. With NULL the folder is "PREFIX_temp",
/// TensorFlow's name; two saves that overlap then destroy each other's parts, and a part that an earlier
/// save left may be taken for one of this save.
///
/// A process without tensors saves a part all the same (num_tensors 0), which adds nothing to the
/// checkpoint; so the number of parts need not depend on who has something to save. TensorFlow cannot
/// merge such a part. The folder of the parts is created, but not the one it is in.
///
/// # Errors
///
/// As tfckpt_save; INVALID_ARGUMENT for a shard that is not less than num_shards, and for a save_id that
/// is empty or contains a slash.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_save_shard(
    prefix: *const c_char,
    shard: u32,
    num_shards: u32,
    save_id: *const c_char,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    options: *const tfckpt_save_options,
    part_out: *mut *mut c_char,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let prefix = path(prefix, "prefix")?;
            let id = text(save_id, "save_id")?;
            save_with(
                tensors,
                num_tensors,
                options,
                part_out,
                |tensors, options, call| {
                    crate::save_shard(prefix, shard, num_shards, id, tensors, options, call)
                },
            )
        })
    }
}

/// Merges num_parts parts, given by their prefixes, into the checkpoint prefix, and removes them. A part is
/// any V2 checkpoint, of tfckpt_save_shard, tfckpt_save or TensorFlow; the order decides the numbers of
/// the data files. A checkpoint of that prefix is overwritten as by tfckpt_save. No tensor is copied where
/// parts and checkpoint are on one file system that has hard links. Parts that have a sidecar of chunk
/// checksums give theirs to that of the checkpoint. options may be NULL.
///
/// # Errors
///
/// INVALID_ARGUMENT, with TensorFlow's text, for a part that is not there, or if there is none at all, for
/// a tensor that two parts have, and for parts of different byte order or version; INTERNAL, with its
/// text, for a whole tensor of which an earlier part has slices; INVALID_ARGUMENT for slices that overlap;
/// NOT_FOUND, OUT_OF_RANGE or DATA_LOSS, naming the file, for a part that is incomplete or damaged;
/// RESOURCE_EXHAUSTED; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_merge(
    parts: *const *const c_char,
    num_parts: usize,
    prefix: *const c_char,
    options: *const tfckpt_merge_options,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let parts: Vec<PathBuf> = array(parts, num_parts, "parts")?
                .iter()
                .map(|&part| path(part, "a part").map(PathBuf::from))
                .collect::<Result<_>>()?;
            let prefix = path(prefix, "prefix")?;
            let options = read_struct(options)?;
            clear_stats(options.stats)?;
            let context = context_or_new(options.context)?;
            let mut call = Call::new(&context);
            call.progress = to_progress(options.progress, options.user_data);
            let merged = crate::merge(&parts, prefix, &options.to_options(), &mut call);
            put_stats(options.stats, &call.stats)?;
            merged
        })
    }
}

impl tfckpt_merge_options {
    fn to_options(self) -> MergeOptions {
        MergeOptions {
            allow_missing_files: self.allow_missing_files != 0,
            keep_parts: self.keep_parts != 0,
            update_state: self.update_state != 0,
            save_relative_paths: self.save_relative_paths != 0,
            no_sync: self.no_sync != 0,
        }
    }
}
