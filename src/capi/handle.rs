//! Where pointers from C become Rust values and back.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::wall::guard_value;
use crate::{Error, Result};

/// Moves a value to the heap, for the caller to own.
pub fn into_handle<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Frees a handle; NULL is accepted.
///
/// # Safety
///
/// `handle` must be NULL or come from [`into_handle`] and not have been freed.
pub unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: made by `into_handle`, which used a `Box`, and freed once.
        drop(guard_value(None, || Some(unsafe { Box::from_raw(handle) })));
    }
}

/// Borrows what a pointer points to.
///
/// # Safety
///
/// `pointer` must be NULL or valid for reads during `'a`.
pub unsafe fn borrow<'a, T>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }
}

/// As [`borrow`], for an argument that must not be NULL.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the argument.
///
/// # Safety
///
/// As [`borrow`].
pub unsafe fn required<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { borrow(pointer) }.ok_or_else(|| null(name))
}

/// As [`required`], for a handle that the call changes.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the argument.
///
/// # Safety
///
/// As [`borrow`], and nothing else may use the handle during `'a`.
pub unsafe fn required_mut<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(name))
}

/// Checks that an output argument can be written to.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the argument.
pub fn check_out<T>(pointer: *mut T, name: &str) -> Result<()> {
    if pointer.is_null() {
        Err(null(name))
    } else {
        Ok(())
    }
}

/// Writes an output argument; NULL means that the caller does not want it.
///
/// # Safety
///
/// `pointer` must be NULL or valid for a write.
pub unsafe fn put<T>(pointer: *mut T, value: T) {
    if !pointer.is_null() {
        // SAFETY: not NULL, so valid by this function's contract.
        unsafe { pointer.write(value) };
    }
}

/// The elements of an array; NULL is accepted if there are none.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the argument.
///
/// # Safety
///
/// `pointer` must be NULL or valid for reads of `len` elements during `'a`.
pub unsafe fn array<'a, T>(pointer: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_array::<T>(pointer.is_null(), len, name)?;
    // SAFETY: not NULL, and valid by this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// As [`array`], to be written to, whatever it holds.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the argument.
///
/// # Safety
///
/// `pointer` must be NULL or valid for writes of `len` elements during `'a`, and nothing else may use
/// them.
pub unsafe fn array_mut<'a, T>(
    pointer: *mut T,
    len: usize,
    name: &str,
) -> Result<&'a mut [MaybeUninit<T>]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_array::<T>(pointer.is_null(), len, name)?;
    // SAFETY: not NULL, and valid by this function's contract; `MaybeUninit` needs no initialisation.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), len) })
}

fn check_array<T>(is_null: bool, len: usize, name: &str) -> Result<()> {
    if is_null {
        return Err(null(name));
    }
    // What no allocation can hold is a wrong count.
    let size = len
        .checked_mul(size_of::<T>())
        .filter(|&size| isize::try_from(size).is_ok());
    size.map(|_| ())
        .ok_or_else(|| Error::invalid_argument(format!("{name} is too long; num={len}")))
}

/// A NUL-terminated path.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the argument if it is NULL.
///
/// # Safety
///
/// `pointer` must be NULL or point to a NUL-terminated string that lives during `'a`.
pub unsafe fn path<'a>(pointer: *const c_char, name: &str) -> Result<&'a Path> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { c_str(pointer) }.ok_or_else(|| null(name))?;
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// A NUL-terminated string of UTF-8; `None` for NULL.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the argument if it is not UTF-8.
///
/// # Safety
///
/// As [`path`].
pub unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>> {
    // SAFETY: the caller's promise.
    let Some(bytes) = (unsafe { c_str(pointer) }) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(bytes);
    text.map(Some)
        .map_err(|_| Error::invalid_argument(format!("{name} is not UTF-8")))
}

unsafe fn c_str<'a>(pointer: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: not NULL when it is read, and NUL-terminated by the caller's promise.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// A copy for C. A NUL inside, which keys may have and paths have not, is shown as `\0`.
pub fn c_string(bytes: impl Into<Vec<u8>>) -> CString {
    CString::new(bytes).unwrap_or_else(|error| {
        let mut shown = Vec::new();
        for byte in error.into_vec() {
            match byte {
                0 => shown.extend(b"\\0"),
                byte => shown.push(byte),
            }
        }
        CString::new(shown).unwrap_or_default()
    })
}

/// A path for C.
pub fn c_path(path: &Path) -> CString {
    c_string(path.as_os_str().as_bytes())
}

fn null(name: &str) -> Error {
    Error::invalid_argument(format!("{name} is NULL"))
}

/// A public struct: plain data whose first field is its size as the caller knows it, and for which
/// all zeros is a valid value and the default.
///
/// # Safety
///
/// The type must be `repr(C)`, begin with `struct_size: usize`, and be valid when all its bytes are
/// zero.
pub unsafe trait Sized: Copy {
    /// Its name in messages.
    const NAME: &'static str;
}

/// Reads a struct whose size the caller gave; NULL gives the default.
///
/// # Errors
///
/// INVALID_ARGUMENT for a size below that of the first release; UNIMPLEMENTED when a longer one has
/// anything but zeros where this library knows no fields.
///
/// # Safety
///
/// `pointer` must be NULL or valid for reads of its own `struct_size` bytes.
pub unsafe fn read_struct<T: Sized>(pointer: *const T) -> Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    if !pointer.is_null() {
        // SAFETY: valid for its own size, which is at least that of the size field.
        let size = unsafe { struct_size(pointer) }?;
        // SAFETY: valid for `size` bytes; copied are at most as many as the type has.
        unsafe {
            let known = size.min(size_of::<T>());
            std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast(), known);
            let tail = pointer.cast::<u8>().add(known);
            let unknown = std::slice::from_raw_parts(tail, size - known);
            if unknown.iter().any(|&byte| byte != 0) {
                return Err(Error::unimplemented(format!(
                    "{} has fields that this version does not know; struct_size={size} known={known}",
                    T::NAME
                )));
            }
        }
    }
    // SAFETY: all zeros is valid (the trait's promise), and so is what the caller wrote over it:
    // integers and pointers.
    Ok(unsafe { value.assume_init() })
}

/// The size of a struct as the caller knows it.
///
/// # Errors
///
/// As [`read_struct`].
///
/// # Safety
///
/// `pointer` must be valid for reads of a `usize`.
pub unsafe fn struct_size<T: Sized>(pointer: *const T) -> Result<usize> {
    // SAFETY: the trait's promise and the caller's.
    let size = unsafe { pointer.cast::<usize>().read_unaligned() };
    if size < size_of::<T>() || size > (1 << 16) {
        return Err(Error::invalid_argument(format!(
            "{}.struct_size is not set; struct_size={size} expected={}",
            T::NAME,
            size_of::<T>()
        )));
    }
    Ok(size)
}

/// Writes the fields of a struct that the caller gave, no further than its size; the size field stays.
///
/// # Errors
///
/// INVALID_ARGUMENT as in [`read_struct`].
///
/// # Safety
///
/// `pointer` must be valid for reads and writes of its own `struct_size` bytes.
pub unsafe fn write_struct<T: Sized>(pointer: *mut T, value: &T) -> Result<()> {
    // SAFETY: valid for its own size; `struct_size` refuses one that the type does not fill.
    unsafe {
        struct_size(pointer)?;
        let fields = size_of::<usize>();
        let from = std::ptr::from_ref(value).cast::<u8>().add(fields);
        let to = pointer.cast::<u8>().add(fields);
        std::ptr::copy_nonoverlapping(from, to, size_of::<T>() - fields);
    }
    Ok(())
}

/// Sets a struct to its default: all zeros but the size.
///
/// # Errors
///
/// INVALID_ARGUMENT for NULL or a size below that of the first release.
///
/// # Safety
///
/// `pointer` must be NULL or valid for writes of `size` bytes.
pub unsafe fn init_struct<T: Sized>(pointer: *mut T, size: usize) -> Result<()> {
    check_out(pointer, T::NAME)?;
    // SAFETY: the size field is part of any struct that the caller has.
    struct_size_of::<T>(size)?;
    // SAFETY: valid for `size` bytes.
    unsafe {
        std::ptr::write_bytes(pointer.cast::<u8>(), 0, size);
        pointer.cast::<usize>().write_unaligned(size);
    }
    Ok(())
}

fn struct_size_of<T: Sized>(size: usize) -> Result<()> {
    // SAFETY: `size` is a `usize`, all that is read.
    unsafe { struct_size(std::ptr::from_ref(&size).cast::<T>()) }.map(|_| ())
}
