//! Saveables
//!
//! What has no memory of its own that could be saved as it is, such as a table that grows, takes part
//! in a saver by callbacks: TensorFlow calls that a SaveableObject. It stands for several named
//! tensors. Before a save it is asked for their elements, before a restore for memory to put them into.
//! All callbacks are made on the thread that calls the saver, but for finish of a job that borrows the
//! tensors, which is made on the job's thread when it ends. They must not use the saver, and must not
//! unwind or longjmp.

use std::ffi::{c_char, c_void};

use super::devices::Devices;
use super::error::tfckpt_code;
use super::handle::{Sized, init_struct, text};
use super::struct_array::StructArray;
use super::tensor::tfckpt_tensor;
use super::variable::StoredTensor;
use super::wall::guard;
use crate::{Error, Result, SaveValue, Saveable, Shape};

/// Fills in data and size of each tensor and, where rank is -1, rank and shape. The memory stays valid
/// and unchanged until finish is called. Not 0: the save fails with TFCKPT_ABORTED.
pub type tfckpt_saveable_save_fn = Option<
    unsafe extern "C" fn(
        tensors: *mut tfckpt_tensor,
        num_tensors: usize,
        user_data: *mut c_void,
    ) -> i32,
>;

/// Fills in data and size of each tensor, whose rank and shape are known by now. The memory stays valid
/// until finish is called. Not 0: the restore fails with TFCKPT_ABORTED.
pub type tfckpt_saveable_restore_fn = Option<
    unsafe extern "C" fn(
        tensors: *mut tfckpt_tensor,
        num_tensors: usize,
        user_data: *mut c_void,
    ) -> i32,
>;

/// Follows each call of save or restore; code is what the saver's call returns. After a restore with
/// TFCKPT_OK the memory holds the elements.
pub type tfckpt_saveable_finish_fn =
    Option<unsafe extern "C" fn(code: tfckpt_code, user_data: *mut c_void)>;

/// Several named tensors made and taken by callbacks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_saveable {
    /// sizeof(tfckpt_saveable)
    pub struct_size: usize,
    /// Decides its place among the saver's tensors, which are in the order of their names.
    pub name: *const c_char,
    /// Descriptions of its tensors. data and size are not looked at; rank -1: the shape is known to
    /// save, or by the checkpoint.
    pub tensors: *const tfckpt_tensor,
    /// Number of tensors.
    pub num_tensors: usize,
    /// Must not be NULL.
    pub save: tfckpt_saveable_save_fn,
    /// Must not be NULL.
    pub restore: tfckpt_saveable_restore_fn,
    /// May be NULL.
    pub finish: tfckpt_saveable_finish_fn,
    /// Passed to the callbacks; valid as long as the saver.
    pub user_data: *mut c_void,
}

// SAFETY: `repr(C)`, begins with its size, integers, pointers and optional functions only.
unsafe impl Sized for tfckpt_saveable {
    const NAME: &'static str = "tfckpt_saveable";
}

/// Sets *saveable to zeros; struct_size is sizeof(tfckpt_saveable).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_saveable_init(
    saveable: *mut tfckpt_saveable,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `saveable` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(saveable, struct_size)) }
}

/// A saveable that a saver keeps.
pub(super) struct StoredSaveable {
    name: String,
    pub tensors: Vec<StoredTensor>,
    callbacks: tfckpt_saveable,
}

impl StoredSaveable {
    /// Checks and copies a saveable.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT naming what is missing.
    ///
    /// # Safety
    ///
    /// Pointers must be NULL or valid for what the header says they point to.
    pub unsafe fn new(saveable: &tfckpt_saveable) -> Result<(Self, Saveable)> {
        // SAFETY: the caller's promise, for all of the block.
        unsafe {
            let name = text(saveable.name, "name")?.unwrap_or_default().to_owned();
            if name.is_empty() || saveable.save.is_none() || saveable.restore.is_none() {
                return Err(Error::invalid_argument(format!(
                    "a saveable needs name, save and restore; name={name}"
                )));
            }
            let descriptions = StructArray::new(saveable.tensors, saveable.num_tensors, "tensors")?;
            let mut tensors = Vec::with_capacity(descriptions.len());
            let mut variables = Vec::with_capacity(descriptions.len());
            for description in descriptions.iter() {
                let bare = tfckpt_tensor {
                    data: std::ptr::null_mut(),
                    size: 0,
                    ..description
                };
                let (tensor, variable) = StoredTensor::new(&bare, true)?;
                tensors.push(tensor);
                variables.push(variable);
            }
            let stored = Self {
                name: name.clone(),
                tensors,
                callbacks: *saveable,
            };
            let name = name.into_bytes();
            Ok((stored, Saveable { name, variables }))
        }
    }

    /// Asks for the elements.
    ///
    /// # Errors
    ///
    /// ABORTED if the callback fails; INVALID_ARGUMENT for what it has filled in.
    ///
    /// # Safety
    ///
    /// The callback must keep its promise for `'a`, which ends with [`Finisher::call`].
    pub unsafe fn save<'a>(&self, devices: &mut Devices<'_>) -> Result<Vec<SaveValue<'a>>> {
        let mut filled: Vec<tfckpt_tensor> =
            self.tensors.iter().map(StoredTensor::describe).collect();
        if let Some(save) = self.callbacks.save {
            // SAFETY: the array has that many elements; the callback is the caller's.
            let failed =
                unsafe { save(filled.as_mut_ptr(), filled.len(), self.callbacks.user_data) };
            self.check(failed, "save")?;
        }
        let value = |(tensor, filled): (&StoredTensor, &tfckpt_tensor)| {
            let tensor = tensor.describe_filled(filled);
            // SAFETY: the callback's promise.
            let described = unsafe { devices.admit(&tensor, tensor.describe_save()?) }?;
            Ok(SaveValue {
                shape: described.shape,
                data: described.data,
            })
        };
        self.tensors.iter().zip(&filled).map(value).collect()
    }

    /// Asks for memory for tensors of these shapes, and returns the descriptions with it.
    ///
    /// # Errors
    ///
    /// ABORTED if the callback fails.
    ///
    /// # Safety
    ///
    /// `user_data` must be what the callback expects.
    pub unsafe fn restore(&self, shapes: &[Shape]) -> Result<Vec<tfckpt_tensor>> {
        let tensors = self.tensors.iter().zip(shapes);
        let mut filled: Vec<tfckpt_tensor> = tensors
            .map(|(tensor, shape)| tensor.describe_with(shape))
            .collect();
        if let Some(restore) = self.callbacks.restore {
            // SAFETY: as in `save`.
            let failed =
                unsafe { restore(filled.as_mut_ptr(), filled.len(), self.callbacks.user_data) };
            self.check(failed, "restore")?;
        }
        let tensors = self.tensors.iter().zip(shapes).zip(&filled);
        let described = tensors.map(|((tensor, shape), filled)| tfckpt_tensor {
            data: filled.data,
            size: filled.size,
            ..tensor.describe_with(shape)
        });
        Ok(described.collect())
    }

    /// What tells that memory is no longer needed.
    pub fn finisher(&self) -> Finisher {
        Finisher {
            finish: self.callbacks.finish,
            user_data: self.callbacks.user_data,
        }
    }

    fn check(&self, failed: i32, callback: &str) -> Result<()> {
        if failed == 0 {
            return Ok(());
        }
        Err(Error::aborted(format!(
            "the saveable's {callback} failed; name={} result={failed}",
            self.name
        )))
    }
}

/// Tells a saveable that its memory is no longer needed.
pub(super) struct Finisher {
    finish: tfckpt_saveable_finish_fn,
    user_data: *mut c_void,
}

// SAFETY: the header says on which thread a saveable is told.
unsafe impl Send for Finisher {}

impl Finisher {
    /// # Safety
    ///
    /// `user_data` must be what the callback expects.
    pub unsafe fn call(&self, code: tfckpt_code) {
        if let Some(finish) = self.finish {
            // SAFETY: the callback is the caller's.
            unsafe { finish(code, self.user_data) };
        }
    }
}
