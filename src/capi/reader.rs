//! Reader
//!
//! An open checkpoint, for more than one restore and for looking at what is there. Functions that take
//! a const reader may run at the same time on any number of threads.
//!
//! The format is found out from the files, as TensorFlow does: V2 if there is an index, else V1, whose
//! sharded checkpoints go by the pattern "model.ckpt-?????-of-00002" with literal question marks. A V1
//! checkpoint has no checksum and no place per tensor, so that both are 0 in its entries.

use std::ffi::{CString, c_char};
use std::sync::Arc;

use super::context::{context_or_new, tfckpt_context};
use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{
    Sized, borrow, c_path, c_string, check_out, free, init_struct, into_handle, path, put,
    read_struct, required,
};
use super::restore::{Request, tfckpt_restore_options};
use super::tensor::tfckpt_tensor;
use super::wall::{Poison, guard, guard_handle, guard_value};
use crate::{Context, Reader, Result};

/// An open checkpoint.
pub struct tfckpt_reader {
    pub(super) reader: Arc<Reader>,
    pub(super) context: Option<Arc<Context>>,
    pub(super) poison: Poison,
    prefix: CString,
}

/// How a checkpoint is opened. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_reader_options {
    /// sizeof(tfckpt_reader_options)
    pub struct_size: usize,
    /// Used by the reader's calls that are given none; NULL = one for each call.
    pub context: *const tfckpt_context,
}

// SAFETY: `repr(C)`, begins with its size, a pointer only.
unsafe impl Sized for tfckpt_reader_options {
    const NAME: &'static str = "tfckpt_reader_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_reader_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_options_init(
    options: *mut tfckpt_reader_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Opens the checkpoint prefix, which is taken literally: not the path of one of its files, not a
/// pattern. The folder of a SavedModel opens its variables. options may be NULL.
///
/// # Errors
///
/// NOT_FOUND when there is none; DATA_LOSS when the index cannot be read; INVALID_ARGUMENT for the path
/// of a checkpoint's file, or a version that is not for this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_open(
    prefix: *const c_char,
    options: *const tfckpt_reader_options,
    reader_out: *mut *mut tfckpt_reader,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let prefix = path(prefix, "prefix")?;
            check_out(reader_out, "reader_out")?;
            let options = read_struct(options)?;
            let context = match options.context.is_null() {
                true => None,
                false => Some(context_or_new(options.context)?),
            };
            let reader = Arc::new(Reader::open(prefix)?);
            let prefix = c_path(reader.prefix());
            let poison = Poison::default();
            put(
                reader_out,
                into_handle(tfckpt_reader {
                    reader,
                    context,
                    poison,
                    prefix,
                }),
            );
            Ok(())
        })
    }
}

/// Closes a checkpoint. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_free(reader: *mut tfckpt_reader) {
    // SAFETY: NULL or a reader that the caller owns.
    unsafe { free(reader) }
}

/// The prefix that was opened. Borrowed from the reader; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_prefix(reader: *const tfckpt_reader) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: NULL or live, by the header's rules; so below.
        unsafe { borrow(reader) }.map_or(std::ptr::null(), |reader| reader.prefix.as_ptr())
    })
}

/// Number of data files; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_num_shards(reader: *const tfckpt_reader) -> u32 {
    guard_value(0, || {
        // SAFETY: as above.
        unsafe { borrow(reader) }.map_or(0, |reader| reader.reader.num_shards())
    })
}

/// Number of tensors; goes through the index.
///
/// # Errors
///
/// DATA_LOSS when part of the index is damaged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_num_tensors(
    reader: *const tfckpt_reader,
    num_out: *mut usize,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let reader = required(reader, "reader")?;
            check_out(num_out, "num_out")?;
            put(num_out, reader.reader.num_tensors()?);
            Ok(())
        })
    }
}

/// A line for each tensor, such as "w (DT_FLOAT) [2,2]", as debug_string of TensorFlow's
/// NewCheckpointReader has them: in the order of the keys; a partitioned tensor with its slices, where
/// TensorFlow has lines for the keys of the slices if the format is V2. *string_out is the caller's, to
/// be freed with tfckpt_string_free. Keys need not be UTF-8, and so the string need not be; a NUL in one
/// is shown as \0.
///
/// # Errors
///
/// DATA_LOSS when an entry, or part of the index, is damaged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_debug_string(
    reader: *const tfckpt_reader,
    string_out: *mut *mut c_char,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let reader = required(reader, "reader")?;
            check_out(string_out, "string_out")?;
            let string = c_string(reader.reader.debug_string()?);
            put(string_out, string.into_raw());
            Ok(())
        })
    }
}

/// As tfckpt_restore, from an open checkpoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_restore(
    reader: *const tfckpt_reader,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    options: *const tfckpt_restore_options,
    codes_out: *mut tfckpt_code,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let reader = required(reader, "reader")?;
            let options = read_struct(options)?;
            let context = reader.context_for(options.context)?;
            let request = Request::read(tensors, num_tensors, &options, codes_out)?;
            request.run(&reader.reader, &options, &context)
        })
    }
}

impl tfckpt_reader {
    /// The context of a call: its own, or the reader's, or a new one.
    ///
    /// # Errors
    ///
    /// Those of making one.
    ///
    /// # Safety
    ///
    /// `context` must be NULL or live.
    pub(super) unsafe fn context_for(
        &self,
        context: *const tfckpt_context,
    ) -> Result<Arc<Context>> {
        match (&self.context, context.is_null()) {
            (Some(own), true) => Ok(own.clone()),
            // SAFETY: the caller's promise.
            _ => unsafe { context_or_new(context) },
        }
    }
}
