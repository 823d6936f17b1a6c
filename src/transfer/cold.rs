//! Reading what is not in the page cache: through it or past it, whichever is faster on the mount.
//!
//! The first megabytes that are cold are read either way, and the rest as the better of the two
//! ([`mounts`](super::mounts)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::deliver::to_usize;
use super::mounts::{Mount, Mounts};
use super::piece::Piece;
use crate::error::Result;
use crate::io::direct::BLOCK;
use crate::io::read::ReadFile;
use crate::memory::ChunkBuffer;

/// Bytes that are read at once: a disk is slower with less (0.47 against 0.34 s per GiB with 256 KiB and
/// 1 MiB, two at a time; ext4 on virtio).
pub const CHUNK: usize = 1 << 20;

/// What a buffer holds beyond a chunk: the blocks at its ends are read whole.
pub const MARGIN: usize = 2 * BLOCK;

/// Places at which a restore looks whether the bytes are in the page cache.
const SAMPLES: u64 = 8;

/// Bytes of a restore from which on it is worth while to look: the looks take 3 us.
const LEAST: u64 = 4 << 20;

/// Whether most of what is to be read is not in the page cache.
pub fn is_cold(pieces: &[Piece<'_>], total: u64) -> bool {
    if total < LEAST {
        return false;
    }
    let (mut before, mut next, mut cold) = (0, 0, 0);
    for piece in pieces {
        let size = piece.read();
        // The samples lie in the middle of eighths of the whole.
        while next < SAMPLES && total / SAMPLES * next + total / SAMPLES / 2 < before + size {
            let at = (total / SAMPLES * next + total / SAMPLES / 2).saturating_sub(before);
            let offset = piece.extent.offset + at.min(piece.extent.size.saturating_sub(1));
            cold += u64::from(!piece.file.is_cached(offset, 1));
            next += 1;
        }
        before += size;
    }
    2 * cold >= next && cold > 0
}

/// Reads cold files in one call.
pub struct ColdReads<'c> {
    mounts: &'c Mounts,
    /// The mount of the last file that was asked for, by its number.
    last: Mutex<Option<(u64, Arc<Mount>)>>,
    /// Bytes that were not in the cache.
    pub bytes_cold: AtomicU64,
    /// Bytes that were read past it.
    pub bytes_direct: AtomicU64,
}

impl<'c> ColdReads<'c> {
    /// With what is known of `mounts`, and to be learned.
    pub fn new(mounts: &'c Mounts) -> Self {
        Self {
            mounts,
            last: Mutex::default(),
            bytes_cold: AtomicU64::new(0),
            bytes_direct: AtomicU64::new(0),
        }
    }

    fn mount(&self, file: &ReadFile) -> Arc<Mount> {
        let mut last = self.last.lock();
        match &*last {
            Some((device, mount)) if *device == file.device() => mount.clone(),
            _ => {
                let mount = self.mounts.of(file.device());
                *last = Some((file.device(), mount.clone()));
                mount
            }
        }
    }

    /// The `len` bytes from `offset`, read into `buffer`, which has room for [`MARGIN`] bytes more.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn read<'b>(
        &self,
        file: &ReadFile,
        offset: u64,
        len: u64,
        buffer: &'b mut ChunkBuffer,
    ) -> Result<&'b [u8]> {
        let size = to_usize(len)?;
        let mount = self.mount(file);
        let mut through_cache = !mount.reads_direct();
        if !through_cache {
            if file.is_cached(offset, len) {
                return buffer.fill(size, |span| file.read_at(offset, span));
            }
            let started = Instant::now();
            // The borrow of what is returned would last beyond the case that nothing is.
            if file.read_past_cache(offset, size, buffer)?.is_some() {
                mount.note_read(true, len, started.elapsed());
                self.bytes_cold.fetch_add(len, Ordering::Relaxed);
                self.bytes_direct.fetch_add(len, Ordering::Relaxed);
                let from = to_usize(offset % BLOCK as u64)?;
                let bytes = buffer.filled().get(from..from + size);
                return Ok(bytes.unwrap_or_default());
            }
            mount.note_no_direct_reads();
            through_cache = true;
        }
        let started = Instant::now();
        let bytes = buffer.fill(size, |span| file.read_at(offset, span))?;
        if through_cache {
            // Also what the system has read ahead meanwhile: that is what makes this way fast.
            mount.note_read(false, len, started.elapsed());
            self.bytes_cold.fetch_add(len, Ordering::Relaxed);
        }
        Ok(bytes)
    }
}
