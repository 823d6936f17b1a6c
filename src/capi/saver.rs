//! Saver
//!
//! What tf.compat.v1.train.Saver does: numbered checkpoints of a fixed list of tensors, a state file
//! that names them, and the deletion of old ones. docs/saver.md has a table of all arguments and
//! methods of TensorFlow's class.
//!
//! A saver copies the descriptions it is given, but not what data points to: that memory stays in use
//! until the saver is freed or tfckpt_saver_bind gives it other memory. A tensor of strings is described
//! one way for saving and another way for restoring: bind it before the call.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::{context_or_new, tfckpt_context};
use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{
    Sized, array, borrow, c_path, check_out, free, init_struct, into_handle, path, put,
    read_struct, required_mut, text,
};
use super::saveable::{StoredSaveable, tfckpt_saveable};
use super::state::to_format;
use super::struct_array::StructArray;
use super::tensor::tfckpt_tensor;
use super::variable::StoredTensor;
use super::wall::{Poison, guard, guard_handle};
use crate::{Context, Error, Result, Saveable, Saver, SaverOptions};

/// Value of max_to_keep: every checkpoint is kept, and the state file names the latest only.
pub const TFCKPT_KEEP_ALL: i32 = -1;

/// A list of tensors, and the checkpoints of it that are kept.
pub struct tfckpt_saver {
    pub(super) saver: Saver,
    /// In the order given: tensors, then saveables.
    pub(super) tensors: Vec<StoredTensor>,
    pub(super) saveables: Vec<StoredSaveable>,
    context: Option<Arc<Context>>,
    pub(super) poison: Poison,
    /// The last checkpoints, for those who look at them.
    pub(super) checkpoints: Mutex<LastCheckpoints>,
}

/// What was last known of the checkpoints that a saver keeps.
#[derive(Default)]
pub(super) struct LastCheckpoints {
    pub known: Vec<(CString, f64)>,
    /// Paths that somebody may still look at.
    old: Vec<CString>,
}

/// How a saver is made: the arguments of TensorFlow's class. All zeros is its default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_saver_options {
    /// sizeof(tfckpt_saver_options)
    pub struct_size: usize,
    /// Used by the saver's calls; NULL = one for each call.
    pub context: *const tfckpt_context,
    /// Not 0: a stored tensor of another shape but the same number of elements is restored.
    pub reshape: i32,
    /// Not 0: the tensors of each device_name get a data file of their own.
    pub sharded: i32,
    /// Checkpoints to keep; 0 = 5, or TFCKPT_KEEP_ALL.
    pub max_to_keep: i32,
    /// One checkpoint is kept for good for every so many hours; 0 = 10000, negative = TensorFlow's 0:
    /// none is ever deleted that is younger than the saver.
    pub keep_checkpoint_every_n_hours: f64,
    /// Scope of the names in the saver's definition, with saver_def put before them; NULL = "save".
    pub name: *const c_char,
    /// Not 0: a restore takes one tensor after the other within each device.
    pub restore_sequentially: i32,
    /// A serialised tensorflow.SaverDef, in place of sharded, max_to_keep,
    /// keep_checkpoint_every_n_hours and write_version; NULL = none. There, 0 keeps all.
    pub saver_def: *const c_void,
    /// Bytes of saver_def.
    pub saver_def_size: usize,
    /// Not 0: the tensors are given later, to tfckpt_saver_build.
    pub defer_build: i32,
    /// Not 0: no tensors are no error; saves and restores then do nothing.
    pub allow_empty: i32,
    /// TFCKPT_FORMAT_*: the format of the checkpoints. Either is restored.
    pub write_version: i32,
    /// Not 0: the step is written with at least 8 digits.
    pub pad_step_number: i32,
    /// Not 0: the state file holds relative paths, so that the folder can be moved.
    pub save_relative_paths: i32,
    /// The path of a save that is given none; NULL = "model".
    pub filename: *const c_char,
    /// Not 0: a save deletes until max_to_keep checkpoints are left, where TensorFlow deletes one.
    pub shrink_to_max_to_keep: i32,
    /// As in tfckpt_save_options.
    pub max_shard_size: u64,
    /// When the saver is built, in nanoseconds since 1970; 0 = the system's clock.
    pub now_ns: i64,
    /// As in tfckpt_save_options. With the format V1 the saver is not made: INVALID_ARGUMENT.
    pub chunk_checksums: i32,
}

// SAFETY: `repr(C)`, begins with its size, numbers and pointers only.
unsafe impl Sized for tfckpt_saver_options {
    const NAME: &'static str = "tfckpt_saver_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_saver_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_options_init(
    options: *mut tfckpt_saver_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Makes a saver of tensors and saveables, either of which may be an empty array. Give part of a model
/// to save part of it; give other keys to save it under other names. Several slices (slice_spec) may
/// share a key; a variable_name must not appear twice. In errors, tensors are counted through the
/// array of tensors and then through those of the saveables. options may be NULL.
///
/// # Errors
///
/// INVALID_ARGUMENT with TensorFlow's text: no tensors, names given twice, tensors of one saveable on
/// several devices, options out of range, a saver_def that cannot be used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_create(
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    saveables: *const tfckpt_saveable,
    num_saveables: usize,
    options: *const tfckpt_saver_options,
    saver_out: *mut *mut tfckpt_saver,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            check_out(saver_out, "saver_out")?;
            let options = read_struct(options)?;
            let context = match options.context.is_null() {
                true => None,
                false => Some(context_or_new(options.context)?),
            };
            let list = List::read(tensors, num_tensors, saveables, num_saveables)?;
            let saver = Saver::new(list.described, options.to_options()?)?;
            put(
                saver_out,
                into_handle(tfckpt_saver {
                    saver,
                    tensors: list.tensors,
                    saveables: list.saveables,
                    context,
                    poison: Poison::default(),
                    checkpoints: Mutex::default(),
                }),
            );
            Ok(())
        })
    }
}

/// Gives a saver that was made with defer_build its tensors. On a saver that has been built it does
/// nothing, if it is given none.
///
/// # Errors
///
/// As tfckpt_saver_create; FAILED_PRECONDITION for tensors that come too late.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_build(
    saver: *mut tfckpt_saver,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    saveables: *const tfckpt_saveable,
    num_saveables: usize,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let poison = borrow(saver).map(|saver| saver.poison.clone());
        guard_handle(poison.as_ref(), error_out, || {
            let saver = required_mut(saver, "saver")?;
            let list = List::read(tensors, num_tensors, saveables, num_saveables)?;
            let given = !list.described.is_empty();
            saver.saver.build(list.described)?;
            if given {
                saver.tensors = list.tensors;
                saver.saveables = list.saveables;
            }
            Ok(())
        })
    }
}

/// Gives tensors of the saver other memory: those of the same key and slice_spec. Their dtype and shape
/// must be what they were. On failure nothing is changed.
///
/// # Errors
///
/// NOT_FOUND for a tensor that the saver does not have; INVALID_ARGUMENT for another dtype or shape.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_bind(
    saver: *mut tfckpt_saver,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let poison = borrow(saver).map(|saver| saver.poison.clone());
        guard_handle(poison.as_ref(), error_out, || {
            let saver = required_mut(saver, "saver")?;
            bind(
                &mut saver.tensors,
                &StructArray::new(tensors, num_tensors, "tensors")?,
            )
        })
    }
}

/// Frees a saver. What it has saved stays. Jobs that it has in flight are waited for; call
/// tfckpt_saver_cancel first to shorten that. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_free(saver: *mut tfckpt_saver) {
    // SAFETY: NULL or a saver that the caller owns.
    unsafe { free(saver) }
}

impl tfckpt_saver_options {
    /// # Safety
    ///
    /// Pointers must be NULL or valid.
    unsafe fn to_options(self) -> Result<SaverOptions> {
        // SAFETY: the caller's promise, for all of the block.
        unsafe {
            let saver_def: &[u8] = array(self.saver_def.cast(), self.saver_def_size, "saver_def")?;
            let defaults = SaverOptions::default();
            Ok(SaverOptions {
                reshape: self.reshape != 0,
                sharded: self.sharded != 0,
                max_to_keep: match self.max_to_keep {
                    0 => defaults.max_to_keep,
                    TFCKPT_KEEP_ALL => 0,
                    max if max > 0 => max.into(),
                    max => {
                        return Err(Error::invalid_argument(format!(
                            "max_to_keep is out of range; max_to_keep={max}"
                        )));
                    }
                },
                keep_checkpoint_every_n_hours: match self.keep_checkpoint_every_n_hours {
                    0.0 => defaults.keep_checkpoint_every_n_hours,
                    hours if hours < 0.0 => 0.0,
                    hours => hours,
                },
                name: text(self.name, "name")?.map(str::to_owned),
                restore_sequentially: self.restore_sequentially != 0,
                saver_def: (!self.saver_def.is_null()).then(|| saver_def.to_owned()),
                defer_build: self.defer_build != 0,
                allow_empty: self.allow_empty != 0,
                write_version: to_format(self.write_version)?,
                pad_step_number: self.pad_step_number != 0,
                save_relative_paths: self.save_relative_paths != 0,
                filename: match self.filename.is_null() {
                    true => defaults.filename,
                    false => path(self.filename, "filename")?.to_owned(),
                },
                shrink_to_max_to_keep: self.shrink_to_max_to_keep != 0,
                max_shard_size: self.max_shard_size,
                chunk_checksums: self.chunk_checksums != 0,
                now_ns: (self.now_ns != 0).then_some(self.now_ns),
            })
        }
    }
}

/// The tensors and saveables of a saver, read from C.
struct List {
    tensors: Vec<StoredTensor>,
    saveables: Vec<StoredSaveable>,
    described: Vec<Saveable>,
}

impl List {
    unsafe fn read(
        tensors: *const tfckpt_tensor,
        num_tensors: usize,
        saveables: *const tfckpt_saveable,
        num_saveables: usize,
    ) -> Result<Self> {
        let mut list = Self {
            tensors: Vec::new(),
            saveables: Vec::new(),
            described: Vec::new(),
        };
        // SAFETY: the caller's promise, for all of the block.
        unsafe {
            let tensors = StructArray::new(tensors, num_tensors, "tensors")?;
            for (index, tensor) in tensors.iter().enumerate() {
                let stored = StoredTensor::new(&tensor, false);
                let (stored, variable) = stored.map_err(|error| error.with_tensor_index(index))?;
                list.tensors.push(stored);
                list.described.push(variable.into());
            }
            let saveables = StructArray::new(saveables, num_saveables, "saveables")?;
            for saveable in saveables.iter() {
                let (stored, saveable) = StoredSaveable::new(&saveable)?;
                list.saveables.push(stored);
                list.described.push(saveable);
            }
        }
        Ok(list)
    }
}

/// Binds all or nothing.
unsafe fn bind(
    stored: &mut [StoredTensor],
    tensors: &StructArray<'_, tfckpt_tensor>,
) -> Result<()> {
    let names: HashMap<(&[u8], &[u8]), usize> = stored
        .iter()
        .enumerate()
        .map(|(index, tensor)| (tensor.name(), index))
        .collect();
    let mut places = Vec::with_capacity(tensors.len());
    for (index, tensor) in tensors.iter().enumerate() {
        // SAFETY: the caller's promise.
        let common = unsafe { tensor.common() }.map_err(|error| error.with_tensor_index(index))?;
        let name = (common.key, common.slice_spec.as_bytes());
        let found = names
            .get(&name)
            .and_then(|&place| Some((place, stored.get(place)?)));
        let (place, known) = found.ok_or_else(|| {
            Error::not_found("the saver has no such tensor")
                .with_tensor_index(index)
                .with_key(common.key)
        })?;
        known
            .check_same(&common)
            .map_err(|error| error.with_tensor_index(index))?;
        places.push(place);
    }
    for (place, tensor) in places.into_iter().zip(tensors.iter()) {
        if let Some(stored) = stored.get_mut(place) {
            stored.bind(&tensor);
        }
    }
    Ok(())
}

impl tfckpt_saver {
    /// The context of a call: its own, or the saver's, or a new one.
    pub(super) unsafe fn context(&self, own: *const tfckpt_context) -> Result<Arc<Context>> {
        match (&self.context, own.is_null()) {
            (Some(context), true) => Ok(context.clone()),
            // SAFETY: the caller's promise.
            _ => unsafe { context_or_new(own) },
        }
    }

    pub(super) fn num_tensors(&self) -> usize {
        let grouped = self.saveables.iter().map(|saveable| saveable.tensors.len());
        self.tensors.len() + grouped.sum::<usize>()
    }

    /// Forgets the paths that were looked at before, as a call may that has the saver for itself.
    pub(super) fn refresh_checkpoints(&mut self) {
        self.look_at_checkpoints(|_| ());
        self.lock_checkpoints().old.clear();
    }

    /// Looks at the checkpoints that are kept by now: jobs add to them at any time.
    pub(super) fn look_at_checkpoints<T>(&self, look: impl FnOnce(&LastCheckpoints) -> T) -> T {
        let now = self.saver.last_checkpoints();
        let now: Vec<(CString, f64)> = now
            .iter()
            .map(|(path, time)| (c_path(path), *time))
            .collect();
        let mut checkpoints = self.lock_checkpoints();
        if checkpoints.known != now {
            let before = std::mem::replace(&mut checkpoints.known, now);
            let before = before.into_iter().map(|(path, _)| path);
            checkpoints.old.extend(before);
        }
        look(&checkpoints)
    }

    /// What was last looked at.
    pub(super) fn lock_checkpoints(&self) -> MutexGuard<'_, LastCheckpoints> {
        self.checkpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
