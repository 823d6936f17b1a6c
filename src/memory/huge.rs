//! Large memory for restored tensors, in huge pages.

use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::error::{Error, Result};

/// A huge page of x86-64, and the usual one of aarch64, in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory for tensors to be restored into, aligned to 2 MiB.
///
/// Memory that is fresh from the system is given out page by page, as it is touched, and that costs
/// more than to read a file from the page cache into it. In huge pages it costs little; where the system
/// has none to give, this is ordinary memory.
#[derive(Debug)]
pub struct Buffer {
    map: Option<MmapMut>,
    start: usize,
    size: usize,
}

impl Buffer {
    /// `size` bytes, which take memory as they are touched.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when the memory cannot be had.
    pub fn new(size: usize) -> Result<Self> {
        if size == 0 {
            return Ok(Self {
                map: None,
                start: 0,
                size,
            });
        }
        let exhausted =
            || Error::resource_exhausted(format!("no memory for a buffer; size={size}"));
        // Mapped with room to begin at a huge page; what is not touched takes no memory.
        let len = size.checked_add(HUGE_PAGE).ok_or_else(exhausted)?;
        let map = MmapOptions::new().len(len).map_anon();
        let map = map.map_err(|_| exhausted())?;
        // A wish: without huge pages it is slower, and works.
        let _ = map.advise(Advice::HugePage);
        let start = map.as_ptr().addr().next_multiple_of(HUGE_PAGE) - map.as_ptr().addr();
        Ok(Self {
            map: Some(map),
            start,
            size,
        })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = self.map.as_deref().unwrap_or_default();
        bytes
            .get(self.start..self.start + self.size)
            .unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let bytes = self.map.as_deref_mut().unwrap_or_default();
        let range = self.start..self.start + self.size;
        bytes.get_mut(range).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_aligned_and_of_the_size_asked_for() {
        for size in [0, 1, 4096, (2 << 20) + 3] {
            let mut buffer = Buffer::new(size).unwrap();
            assert_eq!(buffer.len(), size);
            assert!(buffer.iter().all(|&byte| byte == 0));
            assert!(size == 0 || buffer.as_ptr().addr().is_multiple_of(2 << 20));
            buffer.fill(7);
            assert!(buffer.iter().all(|&byte| byte == 7));
        }
        assert!(Buffer::new(usize::MAX).is_err());
        assert!(Buffer::new(usize::MAX / 2).is_err());
    }
}
