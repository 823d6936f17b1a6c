//! Reading and writing past the page cache (O_DIRECT).
//!
//! The bytes go between the disk and the caller's buffer without a copy in between, and push nothing else
//! out of memory. Offsets, lengths and addresses must be multiples of a block.

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A multiple of the blocks of every disk and file system known, in bytes.
pub const BLOCK: usize = 4096;

/// `file` once more, for access past the page cache; `None` where the system or the file system cannot do
/// that.
pub(super) fn reopen(file: &File, write: bool) -> Option<File> {
    // Not by its path, which may name another file by now.
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(libc::O_DIRECT)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .ok()
}

/// The writes to a file that go past the page cache: whole blocks, at offsets that are multiples of a
/// [`BLOCK`], from memory so aligned. None before it is enabled.
#[derive(Debug, Default)]
pub(super) struct DirectWrites {
    file: OnceLock<File>,
    refused: AtomicBool,
    bytes: AtomicU64,
}

/// Writes bytes to a file at an offset.
pub(super) type Write<'w> = dyn Fn(&File, u64, &[u8]) -> io::Result<()> + 'w;

impl DirectWrites {
    /// Returns whether the file system can do that.
    pub fn enable(&self, file: &File) -> bool {
        let direct = reopen(file, true);
        direct.is_some_and(|direct| self.file.set(direct).is_ok())
    }

    /// Writes `bytes` at `offset`, as far as possible past the page cache, the rest to `file`.
    pub fn write(
        &self,
        file: &File,
        offset: u64,
        bytes: &[u8],
        write: &Write<'_>,
    ) -> io::Result<()> {
        let (whole, rest) = bytes.split_at(self.whole_blocks(offset, bytes));
        let Some(direct) = self.file.get().filter(|_| !whole.is_empty()) else {
            return write(file, offset, bytes);
        };
        match write(direct, offset, whole) {
            // The file system said that it could, or the disk has larger blocks.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.refused.store(true, Ordering::Relaxed);
                write(file, offset, bytes)
            }
            Ok(()) => {
                self.bytes.fetch_add(whole.len() as u64, Ordering::Relaxed);
                match rest.is_empty() {
                    true => Ok(()),
                    false => write(file, offset + whole.len() as u64, rest),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Bytes that went past the page cache.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many of `bytes`, from the first, a write at `offset` sends past the page cache.
    fn whole_blocks(&self, offset: u64, bytes: &[u8]) -> usize {
        let aligned = offset.is_multiple_of(BLOCK as u64)
            && bytes.as_ptr().addr().is_multiple_of(BLOCK)
            && !self.refused.load(Ordering::Relaxed);
        if aligned {
            bytes.len() & !(BLOCK - 1)
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::memory::ChunkBuffer;

    /// What is written where: past the cache or not, offset, length.
    fn writes(offset: u64, len: usize, refuse: bool) -> (Vec<(bool, u64, usize)>, u64) {
        let file = tempfile::tempfile().unwrap();
        let direct = DirectWrites::default();
        direct.file.set(tempfile::tempfile().unwrap()).unwrap();
        let mut buffer = ChunkBuffer::new(3 * BLOCK).unwrap();
        buffer.append_zeros(len);
        let done = RefCell::new(Vec::new());
        let write = |to: &File, offset: u64, bytes: &[u8]| {
            let is_direct = to.as_raw_fd() != file.as_raw_fd();
            if is_direct && refuse {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            done.borrow_mut().push((is_direct, offset, bytes.len()));
            Ok(())
        };
        for _ in 0..2 {
            let bytes = buffer.filled();
            direct.write(&file, offset, bytes, &write).unwrap();
        }
        let mut done = done.into_inner();
        let again = done.split_off(done.len() / 2);
        assert_eq!(done, again);
        (done, direct.bytes())
    }

    #[test]
    fn whole_blocks_go_past_the_cache_and_the_rest_does_not() {
        let block = BLOCK as u64;
        assert_eq!(
            writes(block, 2 * BLOCK + 5, false),
            (
                vec![(true, block, 2 * BLOCK), (false, 3 * block, 5)],
                4 * block
            )
        );
        assert_eq!(writes(block, 5, false), (vec![(false, block, 5)], 0));
        assert_eq!(writes(3, BLOCK, false), (vec![(false, 3, BLOCK)], 0));
    }

    #[test]
    fn what_the_file_system_refuses_goes_through_the_cache() {
        assert_eq!(writes(0, BLOCK + 1, true), (vec![(false, 0, BLOCK + 1)], 0));
    }
}
