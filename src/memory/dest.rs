//! Memory to be filled.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use crate::checksum::Crc32c;

/// A range of memory that a restore fills, valid for `'a`.
///
/// Copies of a span may be used by several threads at once. The plan of a transfer gives each byte
/// to exactly one work item: overlapping destinations of one call and overlapping slices of one
/// tensor are refused before anything is read.
#[derive(Clone, Copy, Debug)]
pub struct DestSpan<'a> {
    ptr: *mut u8,
    len: usize,
    lifetime: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

// SAFETY: a span is an address range with exclusive access for `'a` (see `from_raw_parts`); which
// thread writes does not matter, and no two work items write the same byte (see the type).
unsafe impl Send for DestSpan<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for DestSpan<'_> {}

impl<'a> DestSpan<'a> {
    /// The `len` bytes at `ptr`.
    ///
    /// # Safety
    ///
    /// For all of `'a` the range must be valid for writes from any thread and must not be accessed
    /// except through this span. It may be uninitialised. `ptr` may be anything if `len` is 0.
    pub unsafe fn from_raw_parts(ptr: *mut u8, len: usize) -> Self {
        Self {
            ptr,
            len,
            lifetime: PhantomData,
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Address of the first byte and of the one past the last, to compare ranges.
    pub fn addresses(&self) -> std::ops::Range<usize> {
        let start = self.ptr.addr();
        start..start.saturating_add(self.len)
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The `len` bytes from `offset`, if they lie inside.
    pub fn get(&self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        // SAFETY: `offset` is at most `self.len`, so the pointer stays inside the range or one past
        // its end; the part inherits the contract of the whole.
        (end <= self.len).then(|| unsafe { Self::from_raw_parts(self.ptr.add(offset), len) })
    }

    /// Copies `bytes` to `offset`, each unit of `swap` bytes reversed (1: none); `None`, and nothing
    /// copied, if they do not fit.
    #[must_use]
    pub fn copy_from(&self, offset: usize, bytes: &[u8], swap: usize) -> Option<()> {
        let part = self.get(offset, bytes.len())?;
        // SAFETY: `part` has exactly this length and is valid for writes; a Rust slice cannot
        // overlap memory that the span has for itself. Afterwards `part` is initialised.
        let mut filled = unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), part.ptr, part.len);
            part.assume_filled()
        };
        filled.swap_bytes(swap);
        Some(())
    }

    /// Sets every byte to zero.
    pub fn zero(self) -> Filled<'a> {
        // SAFETY: the range is valid for writes.
        unsafe { std::ptr::write_bytes(self.ptr, 0, self.len) };
        Filled(self)
    }

    /// The address, for a system call that fills the range.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// States that every byte has been written.
    ///
    /// # Safety
    ///
    /// Every byte of the range must have been initialised since the span was made.
    pub unsafe fn assume_filled(self) -> Filled<'a> {
        Filled(self)
    }
}

impl<'a> From<&'a mut [MaybeUninit<u8>]> for DestSpan<'a> {
    fn from(memory: &'a mut [MaybeUninit<u8>]) -> Self {
        Self {
            ptr: memory.as_mut_ptr().cast(),
            len: memory.len(),
            lifetime: PhantomData,
        }
    }
}

impl<'a> From<&'a mut [u8]> for DestSpan<'a> {
    fn from(memory: &'a mut [u8]) -> Self {
        Self {
            ptr: memory.as_mut_ptr(),
            len: memory.len(),
            lifetime: PhantomData,
        }
    }
}

/// A [`DestSpan`] whose bytes have all been written.
#[derive(Debug)]
pub struct Filled<'a>(DestSpan<'a>);

impl Filled<'_> {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Appends the bytes to a checksum.
    pub fn update(&self, crc: &mut Crc32c) {
        // SAFETY: the range is initialised (the type's promise), and nothing else writes to it while
        // the work item that filled it holds this value. The slice does not leave this function.
        let bytes = unsafe { std::slice::from_raw_parts(self.0.as_ptr_for_read(), self.0.len) };
        crc.update(bytes);
    }

    /// Reverses the bytes of each unit of `unit` bytes; a tail shorter than a unit is left alone.
    pub fn swap_bytes(&mut self, unit: usize) {
        if unit < 2 {
            return;
        }
        // SAFETY: as in `update`; the access is exclusive for the same reason.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr_for_read(), self.0.len) };
        for element in bytes.chunks_exact_mut(unit) {
            element.reverse();
        }
    }
}

impl DestSpan<'_> {
    /// The pointer as slices need it: never null, also for an empty range.
    fn as_ptr_for_read(&self) -> *mut u8 {
        if self.len == 0 {
            std::ptr::dangling_mut()
        } else {
            self.ptr
        }
    }
}

/// Memory that a test and a job use in turns.
#[cfg(test)]
impl<'a> From<&'a [std::sync::atomic::AtomicU8]> for DestSpan<'a> {
    fn from(memory: &'a [std::sync::atomic::AtomicU8]) -> Self {
        Self {
            ptr: memory.as_ptr().cast_mut().cast(),
            len: memory.len(),
            lifetime: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_outside_the_range_are_refused() {
        let mut memory = [0u8; 8];
        let span = DestSpan::from(&mut memory[..]);
        assert!(span.copy_from(6, b"abc", 1).is_none());
        assert!(span.copy_from(usize::MAX, b"abc", 1).is_none());
        assert!(span.get(8, 0).is_some());
        assert!(span.get(9, 0).is_none());
        span.copy_from(5, b"abc", 1).unwrap();
        assert_eq!(&memory, b"\0\0\0\0\0abc");
    }

    #[test]
    fn filled_memory_is_summed_and_swapped_in_place() {
        let mut memory = [1u8, 2, 3, 4, 5];
        // SAFETY: initialised above.
        let mut filled = unsafe { DestSpan::from(&mut memory[..]).assume_filled() };
        let mut crc = Crc32c::new();
        filled.update(&mut crc);
        assert_eq!(crc.value(), crate::checksum::crc32c(&[1, 2, 3, 4, 5]));
        filled.swap_bytes(2);
        assert_eq!(memory, [2, 1, 4, 3, 5]);
    }
}
