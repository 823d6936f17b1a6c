//! Data types
//!
//! TensorFlow's data types have its numbers (tensorflow/core/framework/types.proto). Elements lie in
//! memory little-endian and row-major, without padding.

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use crate::DType;

/// DT_FLOAT: float32.
pub const TFCKPT_DTYPE_FLOAT: i32 = 1;
/// DT_DOUBLE: float64.
pub const TFCKPT_DTYPE_DOUBLE: i32 = 2;
/// DT_INT32.
pub const TFCKPT_DTYPE_INT32: i32 = 3;
/// DT_UINT8.
pub const TFCKPT_DTYPE_UINT8: i32 = 4;
/// DT_INT16.
pub const TFCKPT_DTYPE_INT16: i32 = 5;
/// DT_INT8.
pub const TFCKPT_DTYPE_INT8: i32 = 6;
/// DT_STRING: byte strings of any length.
pub const TFCKPT_DTYPE_STRING: i32 = 7;
/// DT_COMPLEX64: two float32: real, imaginary.
pub const TFCKPT_DTYPE_COMPLEX64: i32 = 8;
/// DT_INT64.
pub const TFCKPT_DTYPE_INT64: i32 = 9;
/// DT_BOOL: one byte, 0 or 1.
pub const TFCKPT_DTYPE_BOOL: i32 = 10;
/// DT_QINT8.
pub const TFCKPT_DTYPE_QINT8: i32 = 11;
/// DT_QUINT8.
pub const TFCKPT_DTYPE_QUINT8: i32 = 12;
/// DT_QINT32.
pub const TFCKPT_DTYPE_QINT32: i32 = 13;
/// DT_BFLOAT16.
pub const TFCKPT_DTYPE_BFLOAT16: i32 = 14;
/// DT_QINT16.
pub const TFCKPT_DTYPE_QINT16: i32 = 15;
/// DT_QUINT16.
pub const TFCKPT_DTYPE_QUINT16: i32 = 16;
/// DT_UINT16.
pub const TFCKPT_DTYPE_UINT16: i32 = 17;
/// DT_COMPLEX128: two float64: real, imaginary.
pub const TFCKPT_DTYPE_COMPLEX128: i32 = 18;
/// DT_HALF: float16.
pub const TFCKPT_DTYPE_HALF: i32 = 19;
/// DT_RESOURCE: can be neither saved nor restored.
pub const TFCKPT_DTYPE_RESOURCE: i32 = 20;
/// DT_VARIANT: listed and verified, never decoded.
pub const TFCKPT_DTYPE_VARIANT: i32 = 21;
/// DT_UINT32.
pub const TFCKPT_DTYPE_UINT32: i32 = 22;
/// DT_UINT64.
pub const TFCKPT_DTYPE_UINT64: i32 = 23;
/// DT_FLOAT8_E5M2.
pub const TFCKPT_DTYPE_FLOAT8_E5M2: i32 = 24;
/// DT_FLOAT8_E4M3FN.
pub const TFCKPT_DTYPE_FLOAT8_E4M3FN: i32 = 25;
/// DT_FLOAT8_E4M3FNUZ.
pub const TFCKPT_DTYPE_FLOAT8_E4M3FNUZ: i32 = 26;
/// DT_FLOAT8_E4M3B11FNUZ.
pub const TFCKPT_DTYPE_FLOAT8_E4M3B11FNUZ: i32 = 27;
/// DT_FLOAT8_E5M2FNUZ.
pub const TFCKPT_DTYPE_FLOAT8_E5M2FNUZ: i32 = 28;
/// DT_INT4: one byte per element, as all 2- and 4-bit types.
pub const TFCKPT_DTYPE_INT4: i32 = 29;
/// DT_UINT4.
pub const TFCKPT_DTYPE_UINT4: i32 = 30;
/// DT_INT2.
pub const TFCKPT_DTYPE_INT2: i32 = 31;
/// DT_UINT2.
pub const TFCKPT_DTYPE_UINT2: i32 = 32;
/// DT_FLOAT4_E2M1FN.
pub const TFCKPT_DTYPE_FLOAT4_E2M1FN: i32 = 33;

/// Name of a data type in Python, such as "float32"; NULL for a number that is none. Static.
#[unsafe(no_mangle)]
pub extern "C" fn tfckpt_dtype_name(dtype: i32) -> *const c_char {
    static NAMES: OnceLock<Vec<CString>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        DType::ALL
            .iter()
            .map(|dtype| super::handle::c_string(dtype.python_name()))
            .collect()
    });
    // Numbers begin at 1 and have no gaps.
    let index = usize::try_from(dtype)
        .ok()
        .and_then(|number| number.checked_sub(1));
    let name = index.and_then(|index| names.get(index));
    name.map_or(std::ptr::null(), |name| name.as_ptr())
}

/// Bytes per element; 0 for strings, variants, resources and a number that is no data type.
#[unsafe(no_mangle)]
pub extern "C" fn tfckpt_dtype_size(dtype: i32) -> usize {
    DType::from_number(dtype).and_then(DType::size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_their_numbers() {
        for &dtype in DType::ALL {
            // SAFETY: a static, NUL-terminated string.
            let name = unsafe { std::ffi::CStr::from_ptr(tfckpt_dtype_name(dtype as i32)) };
            assert_eq!(name.to_str().unwrap(), dtype.python_name());
        }
        for number in [-1, 0, 34] {
            assert!(tfckpt_dtype_name(number).is_null());
        }
    }
}
