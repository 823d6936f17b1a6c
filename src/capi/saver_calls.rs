//! Saves and restores of a saver
//!
//! A save writes the checkpoint, then the state file that names it, and only when both are on disk
//! deletes the checkpoint that is too many. A restore compares the names, dtypes and shapes of all
//! tensors before it writes to any; if a checksum then differs, the memory is left undefined.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;

use super::devices::Devices;
use super::error::{TFCKPT_OK, tfckpt_code, tfckpt_error};
use super::handle::{
    Sized, borrow, c_path, init_struct, path, put, read_struct, required_mut, text,
};
use super::progress::{tfckpt_progress_fn, to_progress};
use super::restore::tfckpt_restore_options;
use super::saveable::{Finisher, StoredSaveable};
use super::saver::tfckpt_saver;
use super::stats::{clear_stats, put_stats, tfckpt_stats};
use super::tensor::tfckpt_tensor;
use super::variable::StoredTensor;
use super::wall::{guard, guard_handle};
use crate::{Call, Error, RestoreData, Result, SaveValue, SaverSaveOptions, Shape, StringTensor};

/// How one checkpoint is saved: the arguments of Saver.save. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_saver_save_options {
    /// sizeof(tfckpt_saver_save_options)
    pub struct_size: usize,
    /// Appended to the path as "-<step>"; NULL = nothing is.
    pub global_step: *const i64,
    /// Name of the state file; NULL = "checkpoint".
    pub latest_filename: *const c_char,
    /// Suffix of the meta graphs that go with the checkpoints that are deleted; NULL = "meta".
    pub meta_graph_suffix: *const c_char,
    /// Must be 0: meta graphs are not written yet.
    pub write_meta_graph: i32,
    /// Not 0: the state file is left alone, and nothing is deleted.
    pub no_state: i32,
    /// As in tfckpt_save_options.
    pub no_sync: i32,
    /// When the checkpoint is saved, in nanoseconds since 1970; 0 = the system's clock.
    pub now_ns: i64,
    /// As in tfckpt_context_options, for this call; 0 = the context's alone.
    pub max_host_bytes: u64,
    /// NULL = no progress.
    pub progress: tfckpt_progress_fn,
    /// Passed to progress.
    pub user_data: *mut c_void,
    /// Filled if not NULL. Must be NULL for a job: tfckpt_job_stats has its figures.
    pub stats: *mut tfckpt_stats,
    /// As in tfckpt_save_options, for tfckpt_saver_save_async.
    pub borrow: i32,
    /// As in tfckpt_save_options, for tfckpt_saver_save_async.
    pub device_snapshot: i32,
}

// SAFETY: `repr(C)`, begins with its size, integers, pointers and an optional function only.
unsafe impl Sized for tfckpt_saver_save_options {
    const NAME: &'static str = "tfckpt_saver_save_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_saver_save_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_save_options_init(
    options: *mut tfckpt_saver_save_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Saves the saver's tensors to save_path (NULL = the saver's filename) with its step, writes the state
/// file, and then deletes the checkpoint that is too many. *path_out (unless path_out is NULL) receives the path to restore from,
/// to be freed with tfckpt_string_free; NULL if the saver is empty. A folder that is missing is
/// created, one level of it, unless the saver is sharded or of format V1. options may be NULL.
///
/// # Errors
///
/// INVALID_ARGUMENT with TensorFlow's text for names that collide and a folder that does not exist;
/// FAILED_PRECONDITION before the saver is built; UNIMPLEMENTED for write_meta_graph; the errors of
/// tfckpt_save. Then nothing is recorded and nothing deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_save(
    saver: *mut tfckpt_saver,
    save_path: *const c_char,
    options: *const tfckpt_saver_save_options,
    path_out: *mut *mut c_char,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let poison = borrow(saver).map(|saver| saver.poison.clone());
        guard_handle(poison.as_ref(), error_out, || {
            let saver = required_mut(saver, "saver")?;
            let options = read_struct(options)?;
            clear_stats(options.stats)?;
            let save_path = saver.save_path(save_path)?;
            let save_options = options.to_options()?;
            let context = saver.context(std::ptr::null())?;
            let mut call = Call::new(&context);
            call.max_host_bytes = options.max_host_bytes;
            call.progress = to_progress(options.progress, options.user_data);
            let mut asked = Asked::default();
            let mut devices = Devices::new(&context);
            let values = saver.values(&mut asked, &mut devices);
            let saved = values.and_then(|values| {
                call.after = devices.mark()?;
                saver
                    .saver
                    .save(&save_path, values, &save_options, &mut call)
            });
            asked.finish(&saver.saveables, &saved);
            saver.refresh_checkpoints();
            put_stats(options.stats, &call.stats)?;
            let saved = saved?;
            if !path_out.is_null() {
                put(
                    path_out,
                    saved.map_or(std::ptr::null_mut(), |path| c_path(&path).into_raw()),
                );
            }
            Ok(())
        })
    }
}

/// Restores all of the saver's tensors from the checkpoint save_path, of either format. Names, dtypes and
/// shapes are compared before the first byte is written. In a checkpoint of
/// tf.train.Checkpoint, names that are missing are looked up in its object graph. options may be NULL;
/// its context comes before the saver's.
///
/// # Errors
///
/// INVALID_ARGUMENT when there is no checkpoint; NOT_FOUND for names that are missing, INVALID_ARGUMENT
/// for dtypes or shapes that differ, both after TensorFlow's words; FAILED_PRECONDITION before the
/// saver is built; the errors of tfckpt_restore.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saver_restore(
    saver: *mut tfckpt_saver,
    save_path: *const c_char,
    options: *const tfckpt_restore_options,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let poison = borrow(saver).map(|saver| saver.poison.clone());
        guard_handle(poison.as_ref(), error_out, || {
            let saver = required_mut(saver, "saver")?;
            let options = read_struct(options)?;
            clear_stats(options.stats)?;
            if saver.saver.is_empty() && saver.saver.is_built() {
                return Ok(());
            }
            if save_path.is_null() {
                return Err(Error::invalid_argument(
                    "Can't load save_path when it is None.",
                ));
            }
            let restore_options = options.to_options(false)?;
            let context = saver.context(options.context)?;
            let mut call = Call::new(&context);
            call.max_host_bytes = options.max_host_bytes;
            call.progress = to_progress(options.progress, options.user_data);
            // Saveables are told when their memory holds the elements.
            call.leaves_copies = options.stream_ordered != 0 && saver.saveables.is_empty();
            let mut asked = Asked::default();
            let mut devices = Devices::new(&context);
            let mut described = Vec::new();
            let mut strings = vec![StringTensor::default(); saver.num_tensors()];
            let restored = saver.saver.restore(
                path(save_path, "save_path")?,
                &restore_options,
                |shapes, call| {
                    let destinations = saver.destinations(
                        shapes,
                        &mut asked,
                        &mut devices,
                        &mut described,
                        &mut strings,
                    )?;
                    call.after = devices.mark()?;
                    Ok(destinations)
                },
                &mut call,
            );
            let ended = devices.finish(&call.copied, restored.is_err());
            let restored = restored.and(ended);
            if restored.is_ok() {
                for (tensor, strings) in described.iter().zip(strings) {
                    tensor.put_strings(strings);
                }
            }
            asked.finish(&saver.saveables, &restored);
            put_stats(options.stats, &call.stats)?;
            restored
        })
    }
}

impl tfckpt_saver_save_options {
    /// # Errors
    ///
    /// INVALID_ARGUMENT for text that is not UTF-8; UNIMPLEMENTED for a meta graph.
    ///
    /// # Safety
    ///
    /// Pointers must be NULL or valid during `'a`.
    pub(super) unsafe fn to_options<'a>(self) -> Result<SaverSaveOptions<'a>> {
        if self.write_meta_graph != 0 {
            return Err(Error::unimplemented("meta graphs are not written yet"));
        }
        // SAFETY: the caller's promise, for all of the block.
        unsafe {
            Ok(SaverSaveOptions {
                global_step: borrow(self.global_step).copied(),
                latest_filename: text(self.latest_filename, "latest_filename")?,
                meta_graph_suffix: text(self.meta_graph_suffix, "meta_graph_suffix")?,
                no_state: self.no_state != 0,
                no_sync: self.no_sync != 0,
                now_ns: (self.now_ns != 0).then_some(self.now_ns),
            })
        }
    }
}

/// How many saveables were asked for memory, and so have to be told when it is no longer needed.
#[derive(Default)]
pub(super) struct Asked(usize);

impl Asked {
    pub unsafe fn finish<T>(self, saveables: &[StoredSaveable], result: &Result<T>) {
        let code = match result {
            Ok(_) => TFCKPT_OK,
            Err(error) => error.code() as tfckpt_code,
        };
        for finish in self.finishers(saveables) {
            // SAFETY: the caller's promise.
            unsafe { finish.call(code) };
        }
    }

    /// Those that have to be told.
    pub fn finishers(self, saveables: &[StoredSaveable]) -> Vec<Finisher> {
        let asked = saveables.iter().take(self.0);
        asked.map(StoredSaveable::finisher).collect()
    }
}

impl tfckpt_saver {
    /// The path of a save, which may be given none.
    ///
    /// # Safety
    ///
    /// `save_path` must be NULL or NUL-terminated.
    pub(super) unsafe fn save_path(&self, save_path: *const c_char) -> Result<PathBuf> {
        match save_path.is_null() {
            true => Ok(self.saver.filename().to_owned()),
            // SAFETY: the caller's promise.
            false => Ok(unsafe { path(save_path, "save_path") }?.to_owned()),
        }
    }

    /// What is to be saved, in the order given.
    pub(super) unsafe fn values<'a>(
        &self,
        asked: &mut Asked,
        devices: &mut Devices<'_>,
    ) -> Result<Vec<SaveValue<'a>>> {
        let mut values = Vec::with_capacity(self.num_tensors());
        for (index, tensor) in self.tensors.iter().enumerate() {
            let tensor = tensor.describe();
            // SAFETY: the caller's promise.
            let described = unsafe { tensor.describe_save() };
            // SAFETY: as above.
            let described = described.and_then(|it| unsafe { devices.admit(&tensor, it) });
            let described = described.map_err(|error| error.with_tensor_index(index))?;
            values.push(SaveValue {
                shape: described.shape,
                data: described.data,
            });
        }
        for saveable in &self.saveables {
            asked.0 += 1;
            // SAFETY: as above.
            values.extend(unsafe { saveable.save(devices) }?);
        }
        Ok(values)
    }

    /// Where tensors of these shapes go, in the order given.
    unsafe fn destinations<'a>(
        &self,
        shapes: &[Shape],
        asked: &mut Asked,
        devices: &mut Devices<'_>,
        described: &mut Vec<tfckpt_tensor>,
        strings: &'a mut [StringTensor],
    ) -> Result<Vec<RestoreData<'a>>> {
        described.extend(self.tensors.iter().map(StoredTensor::describe));
        for saveable in &self.saveables {
            let num = saveable.tensors.len();
            let shapes = shapes
                .get(described.len()..described.len() + num)
                .unwrap_or_default();
            asked.0 += 1;
            // SAFETY: the caller's promise.
            described.extend(unsafe { saveable.restore(shapes) }?);
        }
        let tensors = described.iter().zip(strings).enumerate();
        let data = tensors.map(|(index, (tensor, strings))| {
            // SAFETY: as above.
            let described = unsafe { tensor.describe_restore(Some(RestoreData::Strings(strings))) };
            // SAFETY: as above.
            let described = described.and_then(|it| unsafe { devices.admit(tensor, it) });
            described
                .map(|described| described.data)
                .map_err(|error| error.with_tensor_index(index))
        });
        data.collect()
    }
}
