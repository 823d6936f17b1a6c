//! Descriptions of tensors that outlive the call that gave them.

use std::ffi::{CStr, CString, c_char, c_void};

use super::tensor::{Common, tfckpt_tensor};
use crate::{Error, Result, Shape, Variable};

/// A copy of a description; only what `data` points to stays the caller's.
pub(super) struct StoredTensor {
    key: Box<[u8]>,
    dtype: i32,
    /// `None` if only a save or the checkpoint can tell.
    shape: Option<Box<[i64]>>,
    slice_spec: Option<CString>,
    device_name: Option<CString>,
    variable_name: Option<CString>,
    data: *mut c_void,
    size: usize,
    device_type: i32,
    device_id: i32,
    stream: *mut c_void,
    flags: u32,
}

/// A rank that stands for a shape not known yet.
pub(super) const UNKNOWN_RANK: i32 = -1;

impl StoredTensor {
    /// Checks and copies a description. With `may_grow`, its rank may be [`UNKNOWN_RANK`].
    ///
    /// # Errors
    ///
    /// As [`tfckpt_tensor::describe`].
    ///
    /// # Safety
    ///
    /// Pointers must be NULL or valid for what the header says they point to.
    pub unsafe fn new(tensor: &tfckpt_tensor, may_grow: bool) -> Result<(Self, Variable)> {
        let grows = may_grow && tensor.rank == UNKNOWN_RANK;
        let described = tfckpt_tensor {
            rank: if grows { 0 } else { tensor.rank },
            ..*tensor
        };
        // SAFETY: the caller's promise, for all of the block.
        unsafe {
            let common = described.common()?;
            let variable = Variable {
                key: common.key.to_owned(),
                variable_name: c_bytes(tensor.variable_name)
                    .map(|name| name.to_bytes().to_owned())
                    .unwrap_or_default(),
                dtype: common.dtype,
                shape: (!grows).then_some(common.shape),
                slice_spec: common.slice_spec.to_owned(),
                device_name: common.device_name.to_owned(),
            };
            let shape = variable.shape.as_ref().map(|shape| shape.dims().into());
            let stored = Self {
                key: variable.key.clone().into(),
                dtype: tensor.dtype,
                shape,
                slice_spec: c_bytes(tensor.slice_spec).map(CStr::to_owned),
                device_name: c_bytes(tensor.device_name).map(CStr::to_owned),
                variable_name: c_bytes(tensor.variable_name).map(CStr::to_owned),
                data: tensor.data,
                size: tensor.size,
                device_type: tensor.device_type,
                device_id: tensor.device_id,
                stream: tensor.stream,
                flags: tensor.flags,
            };
            Ok((stored, variable))
        }
    }

    /// The description, borrowed.
    pub fn describe(&self) -> tfckpt_tensor {
        let text = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |t| t.as_ptr());
        let rank = |shape: &[i64]| i32::try_from(shape.len()).unwrap_or(i32::MAX);
        tfckpt_tensor {
            struct_size: size_of::<tfckpt_tensor>(),
            key: self.key.as_ptr().cast(),
            key_size: self.key.len(),
            dtype: self.dtype,
            rank: self.shape.as_deref().map_or(UNKNOWN_RANK, rank),
            shape: self
                .shape
                .as_deref()
                .map_or(std::ptr::null(), <[i64]>::as_ptr),
            data: self.data,
            size: self.size,
            device_type: self.device_type,
            device_id: self.device_id,
            device_name: text(&self.device_name),
            slice_spec: text(&self.slice_spec),
            stream: self.stream,
            flags: self.flags,
            variable_name: text(&self.variable_name),
        }
    }

    /// As [`describe`](Self::describe), with the shape that a call has found out.
    pub fn describe_with<'s>(&'s self, shape: &'s Shape) -> tfckpt_tensor {
        tfckpt_tensor {
            rank: i32::try_from(shape.rank()).unwrap_or(i32::MAX),
            shape: shape.dims().as_ptr(),
            ..self.describe()
        }
    }

    /// As [`describe`](Self::describe), with the memory, and where it was open the shape, that a
    /// callback has filled in.
    pub fn describe_filled(&self, filled: &tfckpt_tensor) -> tfckpt_tensor {
        let own = self.describe();
        let (rank, shape) = match self.shape {
            Some(_) => (own.rank, own.shape),
            None => (filled.rank, filled.shape),
        };
        tfckpt_tensor {
            rank,
            shape,
            data: filled.data,
            size: filled.size,
            ..own
        }
    }

    /// Key and slice, by which a caller names it.
    pub fn name(&self) -> (&[u8], &[u8]) {
        (
            &self.key,
            self.slice_spec.as_deref().map_or(&b""[..], CStr::to_bytes),
        )
    }

    /// Checks that a description is one of this tensor.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for another dtype or shape.
    pub fn check_same(&self, common: &Common<'_>) -> Result<()> {
        if self.dtype == common.dtype as i32 && self.shape.as_deref() == Some(common.shape.dims()) {
            return Ok(());
        }
        Err(Error::invalid_argument(format!(
            "the saver's tensor has another dtype or shape; dtype={} shape={}",
            common.dtype, common.shape
        ))
        .with_key(common.key))
    }

    /// Takes the memory of a description of the same tensor.
    pub fn bind(&mut self, tensor: &tfckpt_tensor) {
        self.data = tensor.data;
        self.size = tensor.size;
        self.device_type = tensor.device_type;
        self.device_id = tensor.device_id;
        self.stream = tensor.stream;
        self.flags = tensor.flags;
    }
}

unsafe fn c_bytes<'a>(pointer: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not NULL when it is read, and NUL-terminated by the caller's promise.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) })
}
