//! Views
//!
//! A tensor's bytes where they lie in the data file, without a copy. A view may outlive the reader.

use std::ffi::{c_char, c_void};

use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{array, borrow, check_out, free, into_handle, put, required};
use super::reader::tfckpt_reader;
use super::wall::{guard_handle, guard_value};
use crate::{Error, View, ViewOptions};

/// A tensor mapped from its data file.
pub struct tfckpt_view(View);

/// For tfckpt_reader_view: accept an address that is not a multiple of the element's alignment. What
/// TensorFlow wrote is packed, and so rarely aligned.
pub const TFCKPT_VIEW_ALLOW_UNALIGNED: u32 = 1;
/// For tfckpt_reader_view: do not verify the checksum, which reads all of the data.
pub const TFCKPT_VIEW_NO_VERIFY: u32 = 2;

/// Maps a tensor's bytes where they lie in the data file, read-only. The view keeps its mapping alive
/// by itself, also when the checkpoint is deleted or overwritten by this library or by TensorFlow,
/// which replace files and do not rewrite them. If somebody shortens the file, touching the lost part
/// raises SIGBUS. *view_out is the caller's, to be freed with tfckpt_view_free.
///
/// # Errors
///
/// FAILED_PRECONDITION for data that cannot be used in place: strings, partitioned, big-endian or
/// misaligned; NOT_FOUND; DATA_LOSS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_view(
    reader: *const tfckpt_reader,
    key: *const c_char,
    key_size: usize,
    flags: u32,
    view_out: *mut *mut tfckpt_view,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let reader = required(reader, "reader")?;
            let key: &[u8] = array(key.cast(), key_size, "key")?;
            check_out(view_out, "view_out")?;
            if flags & !(TFCKPT_VIEW_ALLOW_UNALIGNED | TFCKPT_VIEW_NO_VERIFY) != 0 {
                return Err(Error::unimplemented(format!(
                    "unknown flags; flags={flags:#x}"
                )));
            }
            let options = ViewOptions {
                allow_unaligned: flags & TFCKPT_VIEW_ALLOW_UNALIGNED != 0,
                no_verify: flags & TFCKPT_VIEW_NO_VERIFY != 0,
            };
            let view = reader.reader.view(key, options)?;
            put(view_out, into_handle(tfckpt_view(view)));
            Ok(())
        })
    }
}

/// The bytes of a view. Borrowed from it; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_view_data(view: *const tfckpt_view) -> *const c_void {
    guard_value(std::ptr::null(), || {
        // SAFETY: NULL or live, by the header's rules; so below.
        unsafe { borrow(view) }.map_or(std::ptr::null(), |view| view.0.bytes().as_ptr().cast())
    })
}

/// Number of bytes of a view; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_view_size(view: *const tfckpt_view) -> usize {
    guard_value(0, || {
        // SAFETY: as above.
        unsafe { borrow(view) }.map_or(0, |view| view.0.bytes().len())
    })
}

/// Frees a view and unmaps its bytes. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_view_free(view: *mut tfckpt_view) {
    // SAFETY: NULL or a view that the caller owns.
    unsafe { free(view) }
}
