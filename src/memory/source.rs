//! Memory to be saved.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::DestSpan;

/// Bytes that are copied at once. glibc copies more than about half a MiB with stores past the cache, which
/// took 61 instead of 51 ms for 1 GiB (2 threads, EPYC Zen 5, glibc 2.36).
const STEP: usize = 256 << 10;

/// A range of memory that a save reads, valid for `'a`.
///
/// The bytes may change while they are read: each is copied once into a buffer of the library, and
/// checksum and write use that copy, so a torn tensor still has a valid checksum.
///
/// In memory a span is its address and its length, one after the other, as a C struct has them: a caller's
/// array of such pairs is an array of spans.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SourceSpan<'a> {
    ptr: *const u8,
    len: usize,
    lifetime: PhantomData<&'a [u8]>,
}

// SAFETY: a span is an address range that stays readable for `'a` from any thread (see
// `from_raw_parts`).
unsafe impl Send for SourceSpan<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for SourceSpan<'_> {}

impl<'a> SourceSpan<'a> {
    /// The `len` bytes at `ptr`.
    ///
    /// # Safety
    ///
    /// For all of `'a` the range must be initialised and valid for reads from any thread. It may be
    /// written to meanwhile; what is copied is then a mixture. `ptr` may be anything if `len` is 0.
    pub unsafe fn from_raw_parts(ptr: *const u8, len: usize) -> Self {
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

    /// Copies as many bytes as `out` holds from `offset` and returns them; `None` if the range does
    /// not hold that many.
    pub fn copy_to<'b>(
        &self,
        offset: usize,
        out: &'b mut [MaybeUninit<u8>],
    ) -> Option<&'b mut [u8]> {
        let part = self.get(offset, out.len())?;
        // SAFETY: `part` is readable and has the length of `out`; `out` is borrowed exclusively, so
        // it cannot overlap memory that a caller lent for reading. Afterwards `out` is initialised.
        unsafe {
            part.copy_all(out.as_mut_ptr().cast());
            Some(std::slice::from_raw_parts_mut(
                out.as_mut_ptr().cast(),
                part.len,
            ))
        }
    }

    /// Copies as many bytes as `dest` holds from `offset`; `None`, and nothing copied, if the range does not
    /// hold that many.
    #[must_use]
    pub fn copy_into(&self, offset: usize, dest: DestSpan<'_>) -> Option<()> {
        let part = self.get(offset, dest.len())?;
        // SAFETY: `part` is readable and has the length of `dest`, which is valid for writes and has its
        // memory for itself.
        unsafe { part.copy_all(dest.as_mut_ptr()) };
        Some(())
    }

    /// Copies all bytes.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes of so many bytes, of which none is in this range.
    unsafe fn copy_all(&self, to: *mut u8) {
        for start in (0..self.len).step_by(STEP) {
            // SAFETY: inside both ranges; the caller's promise.
            unsafe {
                let (from, to) = (self.ptr.add(start), to.add(start));
                std::ptr::copy_nonoverlapping(from, to, STEP.min(self.len - start));
            }
        }
    }
}

impl<'a> From<&'a [u8]> for SourceSpan<'a> {
    fn from(memory: &'a [u8]) -> Self {
        Self {
            ptr: memory.as_ptr(),
            len: memory.len(),
            lifetime: PhantomData,
        }
    }
}

/// Memory that a test and a job use in turns.
#[cfg(test)]
impl<'a> From<&'a [std::sync::atomic::AtomicU8]> for SourceSpan<'a> {
    fn from(memory: &'a [std::sync::atomic::AtomicU8]) -> Self {
        Self {
            ptr: memory.as_ptr().cast(),
            len: memory.len(),
            lifetime: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_what_lies_inside_and_refuses_the_rest() {
        let span = SourceSpan::from(&b"abcdef"[..]);
        let mut out = [MaybeUninit::uninit(); 3];
        assert_eq!(span.copy_to(2, &mut out).unwrap(), b"cde");
        assert!(span.copy_to(4, &mut out).is_none());
        assert!(span.copy_to(usize::MAX, &mut out).is_none());

        let mut memory = [0; 5];
        let dest = DestSpan::from(&mut memory[..]);
        assert!(span.copy_into(2, dest).is_none());
        span.copy_into(1, dest.get(1, 3).unwrap()).unwrap();
        assert_eq!(&memory, b"\0bcd\0");
    }
}
