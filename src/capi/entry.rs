//! Entries
//!
//! What an index says of a tensor. An entry or an iteration keeps what it needs of the checkpoint alive
//! and may outlive the reader.

use std::ffi::{CString, c_char};
use std::sync::Arc;

use super::error::{TFCKPT_OK, tfckpt_code, tfckpt_error};
use super::handle::{array, borrow, c_string, check_out, free, into_handle, put, required};
use super::reader::tfckpt_reader;
use super::wall::{Poison, guard_handle, guard_value};
use crate::{Entries, Error, Reader, TensorInfo};

/// What an index says of one tensor.
#[derive(Default)]
pub struct tfckpt_entry {
    info: Option<TensorInfo>,
    /// The key if there is no `info`.
    damaged: Vec<u8>,
    slices: Vec<CString>,
    code: tfckpt_code,
    message: Option<CString>,
}

/// An iteration over the tensors of a checkpoint.
pub struct tfckpt_entries {
    // Declared, and so dropped, before the reader that it borrows from.
    walk: Walk,
    poison: Poison,
    _reader: Arc<Reader>,
}

/// Where an iteration is.
struct Walk {
    entries: Entries<'static>,
    /// Filled again and again.
    current: tfckpt_entry,
}

/// What the index says of one tensor. *entry_out is the caller's, to be freed with tfckpt_entry_free.
///
/// # Errors
///
/// NOT_FOUND; DATA_LOSS when its entry, or the part of the index it would be in, is damaged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_find(
    reader: *const tfckpt_reader,
    key: *const c_char,
    key_size: usize,
    entry_out: *mut *mut tfckpt_entry,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let reader = required(reader, "reader")?;
            let key: &[u8] = array(key.cast(), key_size, "key")?;
            check_out(entry_out, "entry_out")?;
            let info = reader.reader.find(key)?;
            let mut entry = tfckpt_entry {
                info: Some(info),
                ..tfckpt_entry::default()
            };
            entry.complete(key, None);
            put(entry_out, into_handle(entry));
            Ok(())
        })
    }
}

/// Begins to go through all tensors in the order of their keys. *entries_out is the caller's, to be
/// freed with tfckpt_entries_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_entries(
    reader: *const tfckpt_reader,
    entries_out: *mut *mut tfckpt_entries,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let reader = required(reader, "reader")?.reader.clone();
            check_out(entries_out, "entries_out")?;
            // The reader does not move inside its Arc, which the new handle keeps; the iteration
            // is dropped first.
            let shared: &'static Reader = &*Arc::as_ptr(&reader);
            let entries = tfckpt_entries {
                walk: Walk {
                    entries: shared.entries(),
                    current: tfckpt_entry::default(),
                },
                poison: Poison::default(),
                _reader: reader,
            };
            put(entries_out, into_handle(entries));
            Ok(())
        })
    }
}

/// Moves on to the next tensor. *entry_out is borrowed until the next call; NULL at the end. An entry
/// that is damaged is delivered with its code, see tfckpt_entry_code.
///
/// # Errors
///
/// DATA_LOSS, once and at the end, when part of the index is damaged: all sound entries have been
/// delivered then, and *entry_out is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entries_next(
    entries: *mut tfckpt_entries,
    entry_out: *mut *const tfckpt_entry,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        // Two fields, borrowed apart: of both together there is no reference.
        let poison = borrow(match entries.is_null() {
            true => std::ptr::null(),
            false => &raw const (*entries).poison,
        });
        guard_handle(poison, error_out, || {
            check_out(entries, "entries")?;
            let walk = &mut (*entries).walk;
            check_out(entry_out, "entry_out")?;
            put(entry_out, std::ptr::null());
            if let Some((key, damage)) = walk.entries.next_into(&mut walk.current.info)? {
                walk.current.complete(key, damage);
                put(entry_out, std::ptr::from_ref(&walk.current));
            }
            Ok(())
        })
    }
}

/// Ends an iteration. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entries_free(entries: *mut tfckpt_entries) {
    // SAFETY: NULL or an iteration that the caller owns.
    unsafe { free(entries) }
}

impl tfckpt_entry {
    /// Sets what goes with `info`, or stands in its place.
    fn complete(&mut self, key: &[u8], damage: Option<Error>) {
        self.slices.clear();
        if let Some(info) = &self.info {
            let slices = info.slices.iter();
            self.slices
                .extend(slices.map(|slice| c_string(slice.as_str())));
        }
        (self.code, self.message) = (TFCKPT_OK, None);
        if let Some(damage) = damage {
            key.clone_into(&mut self.damaged);
            self.code = damage.code() as tfckpt_code;
            self.message = Some(c_string(damage.to_string()));
        }
    }
}

/// Reads something off an entry; `fallback` for NULL and for a damaged one.
///
/// # Safety
///
/// `entry` must be NULL or live.
unsafe fn info<T>(entry: *const tfckpt_entry, fallback: T, read: impl FnOnce(&TensorInfo) -> T) -> T
where
    T: Copy,
{
    guard_value(fallback, || {
        // SAFETY: the caller's promise.
        unsafe { borrow(entry) }
            .and_then(|entry| entry.info.as_ref())
            .map_or(fallback, read)
    })
}

/// Key, not NUL-terminated, and its length in bytes in *size_out (which may be NULL). Borrowed from
/// the entry, as everything that follows; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_key(
    entry: *const tfckpt_entry,
    size_out: *mut usize,
) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: NULL or live, by the header's rules; so below.
        unsafe {
            let key = borrow(entry).map(|entry| match &entry.info {
                Some(info) => info.key.as_slice(),
                None => entry.damaged.as_slice(),
            });
            put(size_out, key.map_or(0, <[u8]>::len));
            key.map_or(std::ptr::null(), |key| key.as_ptr().cast())
        }
    })
}

/// TFCKPT_OK, or what is wrong with the entry; the functions below then return 0 or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_code(entry: *const tfckpt_entry) -> tfckpt_code {
    guard_value(TFCKPT_OK, || {
        // SAFETY: as above.
        unsafe { borrow(entry) }.map_or(TFCKPT_OK, |entry| entry.code)
    })
}

/// What is wrong with the entry; NULL if nothing is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_message(entry: *const tfckpt_entry) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: as above.
        let message = unsafe { borrow(entry) }.and_then(|entry| entry.message.as_ref());
        message.map_or(std::ptr::null(), |message| message.as_ptr())
    })
}

/// TFCKPT_DTYPE_* of the tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_dtype(entry: *const tfckpt_entry) -> i32 {
    // SAFETY: as above.
    unsafe { info(entry, 0, |info| info.dtype as i32) }
}

/// Number of dimensions; of the full tensor if it is partitioned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_rank(entry: *const tfckpt_entry) -> i32 {
    // SAFETY: as above.
    unsafe {
        info(entry, 0, |info| {
            i32::try_from(info.shape.rank()).unwrap_or(0)
        })
    }
}

/// Sizes of the dimensions, outermost first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_shape(entry: *const tfckpt_entry) -> *const i64 {
    // SAFETY: as above.
    unsafe { info(entry, std::ptr::null(), |info| info.shape.dims().as_ptr()) }
}

/// Bytes of the tensor in the data files; of a partitioned one what the full tensor takes, 0 if its
/// elements are strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_size(entry: *const tfckpt_entry) -> u64 {
    // SAFETY: as above.
    unsafe { info(entry, 0, |info| info.size) }
}

/// Number of the data file; 0 for a partitioned tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_shard_id(entry: *const tfckpt_entry) -> u32 {
    // SAFETY: as above.
    unsafe { info(entry, 0, |info| info.shard_id) }
}

/// First byte in the data file; 0 for a partitioned tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_offset(entry: *const tfckpt_entry) -> u64 {
    // SAFETY: as above.
    unsafe { info(entry, 0, |info| info.offset) }
}

/// CRC-32C of the bytes, unmasked; 0 for a partitioned tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_crc32c(entry: *const tfckpt_entry) -> u32 {
    // SAFETY: as above.
    unsafe { info(entry, 0, |info| info.crc32c) }
}

/// Number of slices in which the tensor is stored; 0 if it is stored whole.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_num_slices(entry: *const tfckpt_entry) -> usize {
    // SAFETY: as above.
    unsafe { info(entry, 0, |info| info.slices.len()) }
}

/// Slice i, such as "0,2:-"; NULL if there is no such slice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_slice(entry: *const tfckpt_entry, i: usize) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: as above.
        let slice = unsafe { borrow(entry) }.and_then(|entry| entry.slices.get(i));
        slice.map_or(std::ptr::null(), |slice| slice.as_ptr())
    })
}

/// Frees an entry from tfckpt_reader_find. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entry_free(entry: *mut tfckpt_entry) {
    // SAFETY: NULL or an entry that the caller owns.
    unsafe { free(entry) }
}
