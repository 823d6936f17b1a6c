//! Codes and errors
//!
//! Every function that can fail returns a tfckpt_code: TFCKPT_OK, or one of TensorFlow's canonical
//! codes with its number. Its last argument, which may be NULL, receives an error object that the
//! caller then owns; it is set to NULL on success and ignored on entry.
//!
//! Where TensorFlow has a text for a case, the message begins with it, word for word; what is known
//! of the place follows as [tensor=KEY file=PATH offset=BYTES].

use std::ffi::{CString, c_char};

use super::handle::{borrow, c_path, c_string, free, put};
use super::wall::guard_value;
use crate::Error;

/// TFCKPT_OK or one of TensorFlow's canonical codes.
pub type tfckpt_code = i32;

/// Success.
pub const TFCKPT_OK: i32 = 0;
/// A progress callback, or another thread, asked to stop. Nothing new is visible on disk.
pub const TFCKPT_CANCELLED: i32 = 1;
/// An error of the system that fits no other code.
pub const TFCKPT_UNKNOWN: i32 = 2;
/// An argument that can never work: NULL, a dtype or shape that differs from what is stored.
pub const TFCKPT_INVALID_ARGUMENT: i32 = 3;
/// What was waited for has not happened in time.
pub const TFCKPT_DEADLINE_EXCEEDED: i32 = 4;
/// A checkpoint, a file or a key is not there.
pub const TFCKPT_NOT_FOUND: i32 = 5;
/// Something that had to be new exists already.
pub const TFCKPT_ALREADY_EXISTS: i32 = 6;
/// The system refused access.
pub const TFCKPT_PERMISSION_DENIED: i32 = 7;
/// The disk is full, or memory or descriptors ran out.
pub const TFCKPT_RESOURCE_EXHAUSTED: i32 = 8;
/// The system, or the data, is not in the state that the call needs.
pub const TFCKPT_FAILED_PRECONDITION: i32 = 9;
/// Given up because of something else that happened; per tensor: not attempted.
pub const TFCKPT_ABORTED: i32 = 10;
/// A data file ends before the tensor does.
pub const TFCKPT_OUT_OF_RANGE: i32 = 11;
/// Valid, but not supported by this version.
pub const TFCKPT_UNIMPLEMENTED: i32 = 12;
/// A defect of the library, a caught panic included; or one of the few cases in which TensorFlow
/// itself uses this code.
pub const TFCKPT_INTERNAL: i32 = 13;
/// A resource cannot be reached at present.
pub const TFCKPT_UNAVAILABLE: i32 = 14;
/// Bytes on disk are damaged or missing.
pub const TFCKPT_DATA_LOSS: i32 = 15;

/// Name of a code, such as "DATA_LOSS"; "UNKNOWN" for a number that is none. Static.
#[unsafe(no_mangle)]
pub extern "C" fn tfckpt_code_name(code: tfckpt_code) -> *const c_char {
    let name = match code {
        TFCKPT_OK => c"OK",
        TFCKPT_CANCELLED => c"CANCELLED",
        TFCKPT_INVALID_ARGUMENT => c"INVALID_ARGUMENT",
        TFCKPT_DEADLINE_EXCEEDED => c"DEADLINE_EXCEEDED",
        TFCKPT_NOT_FOUND => c"NOT_FOUND",
        TFCKPT_ALREADY_EXISTS => c"ALREADY_EXISTS",
        TFCKPT_PERMISSION_DENIED => c"PERMISSION_DENIED",
        TFCKPT_RESOURCE_EXHAUSTED => c"RESOURCE_EXHAUSTED",
        TFCKPT_FAILED_PRECONDITION => c"FAILED_PRECONDITION",
        TFCKPT_ABORTED => c"ABORTED",
        TFCKPT_OUT_OF_RANGE => c"OUT_OF_RANGE",
        TFCKPT_UNIMPLEMENTED => c"UNIMPLEMENTED",
        TFCKPT_INTERNAL => c"INTERNAL",
        TFCKPT_UNAVAILABLE => c"UNAVAILABLE",
        TFCKPT_DATA_LOSS => c"DATA_LOSS",
        _ => c"UNKNOWN",
    };
    name.as_ptr()
}

/// What went wrong and where. Owned by the caller; free it with tfckpt_error_free.
pub struct tfckpt_error {
    error: Error,
    message: CString,
    file: Option<CString>,
}

impl tfckpt_error {
    /// The object for an error.
    pub(super) fn new(error: Error) -> Self {
        let message = c_string(error.to_string());
        let file = error.file().map(c_path);
        Self {
            error,
            message,
            file,
        }
    }
}

/// The code of an error, the one that the function returned; TFCKPT_OK for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_error_code(error: *const tfckpt_error) -> tfckpt_code {
    guard_value(TFCKPT_OK, || {
        // SAFETY: NULL or a live error, by the header's rules; so below.
        unsafe { borrow(error) }.map_or(TFCKPT_OK, |e| e.error.code() as i32)
    })
}

/// The message: one line of UTF-8. Borrowed from the error; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_error_message(error: *const tfckpt_error) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: as above.
        unsafe { borrow(error) }.map_or(std::ptr::null(), |e| e.message.as_ptr())
    })
}

/// Index of the tensor concerned in the array that the call was given; -1 if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_error_tensor_index(error: *const tfckpt_error) -> i64 {
    guard_value(-1, || {
        // SAFETY: as above.
        let index = unsafe { borrow(error) }.and_then(|e| e.error.tensor_index());
        index
            .and_then(|index| i64::try_from(index).ok())
            .unwrap_or(-1)
    })
}

/// Key of the tensor concerned, not NUL-terminated, and its length in bytes in *size_out (which may be
/// NULL). Borrowed from the error; NULL if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_error_key(
    error: *const tfckpt_error,
    size_out: *mut usize,
) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: as above; `size_out` is NULL or valid for a write.
        unsafe {
            let key = borrow(error).and_then(|e| e.error.key());
            put(size_out, key.map_or(0, <[u8]>::len));
            key.map_or(std::ptr::null(), |key| key.as_ptr().cast())
        }
    })
}

/// Path of the file concerned. Borrowed from the error; NULL if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_error_file(error: *const tfckpt_error) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: as above.
        let file = unsafe { borrow(error) }.and_then(|e| e.file.as_ref());
        file.map_or(std::ptr::null(), |file| file.as_ptr())
    })
}

/// Byte offset in the file concerned; -1 if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_error_offset(error: *const tfckpt_error) -> i64 {
    guard_value(-1, || {
        // SAFETY: as above.
        let offset = unsafe { borrow(error) }.and_then(|e| e.error.offset());
        offset
            .and_then(|offset| i64::try_from(offset).ok())
            .unwrap_or(-1)
    })
}

/// Frees an error. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_error_free(error: *mut tfckpt_error) {
    // SAFETY: NULL or an error that the caller owns.
    unsafe { free(error) }
}

/// Frees a string that a function gave to the caller, such as *prefix_out. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_string_free(string: *mut c_char) {
    if !string.is_null() {
        // SAFETY: made by `CString::into_raw` and freed once, by the header's rules.
        drop(unsafe { CString::from_raw(string) });
    }
}
