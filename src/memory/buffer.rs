//! Page-aligned scratch memory for chunks on their way between a file and a tensor.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::{Buffer, DestSpan, Filled, SourceSpan};
use crate::error::{Error, Result};

/// Alignment of every buffer: a page, which is also what O_DIRECT asks for.
const ALIGN: usize = 4096;

/// A buffer of fixed capacity, aligned to a page, that is filled from its start and then used as
/// bytes. It stays in the processor's cache when its capacity does.
#[derive(Debug)]
pub struct ChunkBuffer {
    ptr: NonNull<u8>,
    capacity: usize,
    filled: usize,
    memory: Memory,
}

/// Whose the bytes at `ptr` are.
#[derive(Debug)]
enum Memory {
    /// The global allocator's, with this layout.
    Heap(Layout),
    /// Those of a mapping in huge pages.
    Huge { _mapping: Buffer },
}

// SAFETY: the buffer owns its allocation and hands out access only through borrows of itself.
unsafe impl Send for ChunkBuffer {}

impl ChunkBuffer {
    /// Allocates `capacity` bytes, at least one.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when the memory cannot be had.
    pub fn new(capacity: usize) -> Result<Self> {
        let exhausted =
            || Error::resource_exhausted(format!("no memory for a buffer; size={capacity}"));
        let layout = Layout::from_size_align(capacity.max(1), ALIGN).map_err(|_| exhausted())?;
        // SAFETY: the layout's size is at least 1.
        let ptr = NonNull::new(unsafe { alloc(layout) }).ok_or_else(exhausted)?;
        Ok(Self {
            ptr,
            capacity: layout.size(),
            filled: 0,
            memory: Memory::Heap(layout),
        })
    }

    /// As [`new`](Self::new), in huge pages: for buffers that do not stay in the cache, of multiples of
    /// 2 MiB.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when the memory cannot be had.
    pub fn huge(capacity: usize) -> Result<Self> {
        let mut mapping = Buffer::new(capacity)?;
        let Some(ptr) = NonNull::new(mapping.as_mut_ptr()).filter(|_| capacity > 0) else {
            return Self::new(capacity);
        };
        Ok(Self {
            ptr,
            capacity,
            filled: 0,
            // It moves without its bytes, which nobody else looks at.
            memory: Memory::Huge { _mapping: mapping },
        })
    }

    /// Capacity in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that can still be appended.
    pub fn room(&self) -> usize {
        self.capacity() - self.filled
    }

    /// What has been appended or read since the last [`clear`](Self::clear).
    pub fn filled(&self) -> &[u8] {
        // SAFETY: the first `filled` bytes are initialised: only `append`, `append_bytes`,
        // `append_zeros` and `fill` raise it, each after writing them.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.filled) }
    }

    /// Forgets the contents.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Appends `len` bytes of `source` from `offset` and returns the copy; `None`, and nothing
    /// appended, if the source or the room is too small.
    pub fn append(&mut self, source: &SourceSpan<'_>, offset: usize, len: usize) -> Option<&[u8]> {
        let room = self.unfilled().get_mut(..len)?;
        source.copy_to(offset, room)?;
        Some(self.extend_by(len))
    }

    /// Appends `bytes`; `None`, and nothing appended, if the room is too small.
    pub fn append_bytes(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        self.append(&SourceSpan::from(bytes), 0, bytes.len())
    }

    /// Appends `len` zero bytes, as far as there is room.
    pub fn append_zeros(&mut self, len: usize) {
        let len = len.min(self.room());
        for byte in self.unfilled().iter_mut().take(len) {
            byte.write(0);
        }
        self.extend_by(len);
    }

    /// Replaces the contents by `len` bytes, at most the capacity, which `read` fills in.
    ///
    /// # Errors
    ///
    /// Those of `read`; INTERNAL if `len` is more than the capacity.
    pub fn fill(
        &mut self,
        len: usize,
        read: impl for<'a> FnOnce(DestSpan<'a>) -> Result<Filled<'a>>,
    ) -> Result<&[u8]> {
        self.clear();
        let room = self.unfilled().get_mut(..len);
        let room = room.ok_or_else(|| Error::internal("a chunk is larger than its buffer"))?;
        let filled = read(DestSpan::from(room))?.len();
        Ok(self.extend_by(filled.min(len)))
    }

    fn unfilled(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: `filled` is at most the capacity; `MaybeUninit` needs no initialisation, and
        // `&mut self` makes the access exclusive.
        unsafe {
            let start = self.ptr.as_ptr().add(self.filled);
            std::slice::from_raw_parts_mut(start.cast(), self.room())
        }
    }

    /// Counts `len` bytes that were just written behind the filled ones, and returns them.
    fn extend_by(&mut self, len: usize) -> &[u8] {
        let start = self.filled;
        self.filled += len;
        self.filled().get(start..).unwrap_or_default()
    }
}

/// `len` zero bytes, which take memory only once they are written to where the system gives out zeroed
/// pages.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED when the memory cannot be had.
pub fn zeroed(len: usize) -> Result<Vec<u8>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let exhausted = || Error::resource_exhausted(format!("no memory for a tensor; size={len}"));
    let layout = Layout::array::<u8>(len).map_err(|_| exhausted())?;
    // SAFETY: the layout's size is at least 1.
    let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(exhausted)?;
    // SAFETY: allocated by the global allocator with the layout of `len` bytes, all of them zero; the
    // vector becomes the only owner.
    Ok(unsafe { Vec::from_raw_parts(ptr.as_ptr(), len, len) })
}

impl Drop for ChunkBuffer {
    fn drop(&mut self) {
        if let Memory::Heap(layout) = self.memory {
            // SAFETY: allocated in `new` with this layout and freed only here.
            unsafe { dealloc(self.ptr.as_ptr(), layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_from_the_start_and_never_beyond_its_capacity() {
        for buffer in [ChunkBuffer::new(8), ChunkBuffer::huge(8)] {
            fill_and_overfill(buffer.unwrap());
        }
    }

    fn fill_and_overfill(mut buffer: ChunkBuffer) {
        assert_eq!(buffer.append_bytes(b"abc").unwrap(), b"abc");
        buffer.append_zeros(2);
        assert!(buffer.append_bytes(b"long").is_none());
        assert_eq!(buffer.append_bytes(b"xyz").unwrap(), b"xyz");
        assert_eq!((buffer.filled(), buffer.room()), (&b"abc\0\0xyz"[..], 0));
        buffer.append_zeros(1);
        assert_eq!(buffer.filled().len(), 8);

        assert_eq!(buffer.fill(2, |span| Ok(span.zero())).unwrap(), b"\0\0");
        assert_eq!(buffer.filled(), b"\0\0");
        assert!(buffer.fill(9, |span| Ok(span.zero())).is_err());
        assert_eq!(buffer.filled().as_ptr().addr() % 4096, 0);
    }
}
