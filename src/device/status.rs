//! What the driver's codes mean in this library's errors.

use std::ffi::CStr;

use super::table::Functions;
use crate::error::{Code, Error, Result};

/// CUDA_ERROR_INVALID_VALUE: an argument that the driver does not know, among others.
pub const INVALID_VALUE: u32 = 1;

/// CUDA_ERROR_NOT_READY: an event has not been reached.
pub const NOT_READY: u32 = 600;

/// The `Result` of a call to the driver's function `symbol`.
pub fn check(functions: &Functions, symbol: &str, status: u32) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    Err(Error::new(code(status), message(functions, symbol, status)))
}

/// The error of opening the driver, which blames the system.
pub fn unavailable(functions: &Functions, symbol: &str, status: u32) -> Error {
    let reason = match status {
        34 => "the libcuda.so found first is the toolkit's stub, not the driver's; ",
        100 => "there is no device; ",
        _ => "",
    };
    let message = message(functions, symbol, status);
    Error::unavailable(format!("CUDA is unavailable: {reason}{message}"))
}

fn message(functions: &Functions, symbol: &str, status: u32) -> String {
    let name = name(functions, status).map_or_else(String::new, |name| format!(" ({name})"));
    let lost = if is_sticky(status) {
        "; the device can no longer be used by this process"
    } else {
        ""
    };
    format!("{symbol}: CUDA error {status}{name}{lost}")
}

/// The driver's name of a code, if it knows the code.
fn name(functions: &Functions, status: u32) -> Option<String> {
    let mut name = std::ptr::null();
    // SAFETY: writes a pointer.
    let result = unsafe { functions.cuGetErrorName?(status, &raw mut name) };
    if result != 0 || name.is_null() {
        return None;
    }
    // SAFETY: the driver gave out a text of its own, which lives as long as the process.
    let name = unsafe { CStr::from_ptr(name) };
    Some(name.to_string_lossy().into_owned())
}

/// Whether every later call on the same context gives the same error.
fn is_sticky(status: u32) -> bool {
    // Uncorrectable memory and bus errors, illegal accesses and instructions, time-outs of a kernel.
    matches!(status, 214 | 220 | 700 | 702 | 710 | 714..=719)
}

fn code(status: u32) -> Code {
    match status {
        // INVALID_VALUE, INVALID_DEVICE, INVALID_HANDLE
        1 | 101 | 400 => Code::InvalidArgument,
        // OUT_OF_MEMORY
        2 => Code::ResourceExhausted,
        // NOT_INITIALIZED, DEINITIALIZED, INVALID_CONTEXT, CONTEXT_IS_DESTROYED, STREAM_CAPTURE_*
        3 | 4 | 201 | 709 | 900..=908 => Code::FailedPrecondition,
        // STUB_LIBRARY, DEVICE_UNAVAILABLE, NO_DEVICE, SYSTEM_NOT_READY, SYSTEM_DRIVER_MISMATCH,
        // COMPAT_NOT_SUPPORTED_ON_DEVICE
        34 | 46 | 100 | 802..=804 => Code::Unavailable,
        // NOT_SUPPORTED
        801 => Code::Unimplemented,
        _ => Code::Internal,
    }
}
