//! Page-aligned scratch memory for chunks on their way between a file and a tensor.

use std::alloc::{Layout, alloc, dealloc};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// Alignment of every buffer: a page, which is also what O_DIRECT asks for.
const ALIGN: usize = 4096;

/// A fixed-size allocation aligned to a page, uninitialised at first.
pub struct AlignedBuffer {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its allocation and hands out access only through `&mut self`.
unsafe impl Send for AlignedBuffer {}

impl AlignedBuffer {
    /// Allocates `size` bytes, at least one.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when the memory cannot be had.
    pub fn new(size: usize) -> Result<Self> {
        let exhausted =
            || Error::resource_exhausted(format!("no memory for a buffer; size={size}"));
        let layout = Layout::from_size_align(size.max(1), ALIGN).map_err(|_| exhausted())?;
        // SAFETY: the layout's size is at least 1.
        let ptr = NonNull::new(unsafe { alloc(layout) }).ok_or_else(exhausted)?;
        Ok(Self { ptr, layout })
    }

    /// The whole buffer, to be filled.
    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the allocation has exactly this size, `MaybeUninit` needs no initialisation, and
        // `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().cast(), self.layout.size()) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout and freed only here.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}
