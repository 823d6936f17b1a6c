//! Buffers
//!
//! Memory for tensors to be restored into, for a program that has none yet. Memory that is fresh from
//! malloc is given out in small pages as it is touched, which takes longer than reading a file from the
//! page cache; a buffer is in huge pages where the system has them, several times as fast. Its tensors
//! are the caller's to lay out, at multiples of 64 bytes for example.

use std::ffi::c_void;

use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{borrow, check_out, free, into_handle, put};
use super::wall::{guard, guard_value};
use crate::Buffer;

/// Memory that the library has allocated.
pub struct tfckpt_buffer {
    /// Only kept: the caller has the bytes.
    _memory: Buffer,
    data: *mut c_void,
    size: usize,
}

/// Allocates size bytes of zeros, aligned to 2 MiB; 0 bytes are allowed. *buffer_out is the caller's, to be
/// freed with tfckpt_buffer_free. The system gives out the memory as it is touched: by a restore, on all of
/// its threads.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED when the memory cannot be had.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_buffer_new(
    size: usize,
    buffer_out: *mut *mut tfckpt_buffer,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            check_out(buffer_out, "buffer_out")?;
            let mut memory = Buffer::new(size)?;
            let data = memory.as_mut_ptr().cast();
            let buffer = tfckpt_buffer {
                _memory: memory,
                data,
                size,
            };
            put(buffer_out, into_handle(buffer));
            Ok(())
        })
    }
}

/// The bytes of a buffer, to be read and written. Borrowed from it; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_buffer_data(buffer: *const tfckpt_buffer) -> *mut c_void {
    guard_value(std::ptr::null_mut(), || {
        // SAFETY: NULL or live, by the header's rules; so below.
        unsafe { borrow(buffer) }.map_or(std::ptr::null_mut(), |buffer| buffer.data)
    })
}

/// Number of bytes of a buffer; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_buffer_size(buffer: *const tfckpt_buffer) -> usize {
    guard_value(0, || {
        // SAFETY: as above.
        unsafe { borrow(buffer) }.map_or(0, |buffer| buffer.size)
    })
}

/// Frees a buffer; nothing may use its bytes any more. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_buffer_free(buffer: *mut tfckpt_buffer) {
    // SAFETY: NULL or a buffer that the caller owns.
    unsafe { free(buffer) }
}
