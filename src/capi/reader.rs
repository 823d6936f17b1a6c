//! Reader
//!
//! An open checkpoint, for more than one restore and for looking at what is there. Functions that take
//! a const reader may run at the same time on any number of threads. Entries, iterations and views
//! keep what they need alive and may outlive the reader.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use super::context::{context_or_new, tfckpt_context};
use super::error::{TFCKPT_OK, tfckpt_code, tfckpt_error};
use super::handle::{
    Poison, Sized, array, borrow, c_path, c_string, check_out, free, guard, guard_handle,
    guard_value, init_struct, into_handle, path, put, read_struct, required, required_mut,
};
use super::restore::{Request, tfckpt_restore_options};
use super::tensor::tfckpt_tensor;
use crate::{Context, Entries, Error, Reader, Result, TensorInfo, View, ViewOptions};

/// An open checkpoint.
pub struct tfckpt_reader {
    pub(super) reader: Arc<Reader>,
    pub(super) context: Option<Arc<Context>>,
    pub(super) poison: Poison,
    prefix: CString,
}

/// What an index says of one tensor.
pub struct tfckpt_entry {
    key: Vec<u8>,
    info: Option<TensorInfo>,
    slices: Vec<CString>,
    code: tfckpt_code,
    message: Option<CString>,
}

/// An iteration over the tensors of a checkpoint.
pub struct tfckpt_entries {
    // Declared, and so dropped, before the reader that it borrows from.
    entries: Entries<'static>,
    current: Option<tfckpt_entry>,
    poison: Poison,
    _reader: Arc<Reader>,
}

/// A tensor mapped from its data file.
pub struct tfckpt_view(View);

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
            put(
                entry_out,
                into_handle(tfckpt_entry::new(key.to_owned(), Ok(info))),
            );
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
                entries: shared.entries(),
                current: None,
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
/// delivered then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_entries_next(
    entries: *mut tfckpt_entries,
    entry_out: *mut *const tfckpt_entry,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let poison = borrow(entries).map(|entries| entries.poison.clone());
        guard_handle(poison.as_ref(), error_out, || {
            let entries = required_mut(entries, "entries")?;
            check_out(entry_out, "entry_out")?;
            entries.current = None;
            let next = entries.entries.next()?;
            entries.current = next.map(|(key, info)| tfckpt_entry::new(key, info));
            let current = entries.current.as_ref();
            put(
                entry_out,
                current.map_or(std::ptr::null(), std::ptr::from_ref),
            );
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
    fn new(key: Vec<u8>, info: Result<TensorInfo>) -> Self {
        let (info, error) = match info {
            Ok(info) => (Some(info), None),
            Err(error) => (None, Some(error)),
        };
        let slices = info.iter().flat_map(|info| &info.slices);
        Self {
            slices: slices.map(|slice| c_string(slice.as_str())).collect(),
            key,
            info,
            code: error
                .as_ref()
                .map_or(TFCKPT_OK, |error| error.code() as tfckpt_code),
            message: error.map(|error: Error| c_string(error.to_string())),
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
            let key = borrow(entry).map(|entry| entry.key.as_slice());
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

/// Bytes in the data files, of all slices together; 0 for a partitioned tensor of strings.
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
