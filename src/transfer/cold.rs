//! Reading what is not in the page cache: through it or past it, whichever is faster on the mount.
//!
//! Which one that is cannot be told from the outside: a local disk of a server gives twice as much past
//! the cache, a network file system nearly nothing. So the first megabytes that are cold are read either
//! way, and the rest as the better of the two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::deliver::to_usize;
use super::read_plan::Piece;
use crate::error::Result;
use crate::io::direct::BLOCK;
use crate::io::read::ReadFile;
use crate::memory::ChunkBuffer;

/// Bytes that are read at once: a disk is slower with less (0.47 against 0.34 s per GiB with 256 KiB and
/// 1 MiB, two at a time; ext4 on virtio).
pub const CHUNK: usize = 1 << 20;

/// What a buffer holds beyond a chunk: the blocks at its ends are read whole.
pub const MARGIN: usize = 2 * BLOCK;

/// Bytes that are read either way before one is chosen: reading ahead takes some to get going.
const PROBE: u64 = 16 << 20;

/// Bytes after which what is known of a way counts for half, and the other one is tried anew.
const MEMORY: u64 = 1 << 30;

/// Places at which a restore looks whether the bytes are in the page cache.
const SAMPLES: u64 = 8;

/// Bytes of a restore from which on it is worth while to look: the looks take 3 us.
const LEAST: u64 = 4 << 20;

/// What is known of the mounts that were read from.
#[derive(Debug, Default)]
pub struct Mounts(Mutex<BTreeMap<u64, Arc<Mount>>>);

impl Mounts {
    fn of(&self, file: &ReadFile) -> Arc<Mount> {
        self.0.lock().entry(file.device()).or_default().clone()
    }
}

/// How fast cold bytes come from one mount.
#[derive(Debug, Default)]
struct Mount(Mutex<Rates>);

#[derive(Debug, Default)]
struct Rates {
    buffered: Rate,
    direct: Rate,
}

/// What was read in one way, and how long threads waited for it.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    bytes: u64,
    nanos: u64,
}

impl Mount {
    fn note(&self, past_cache: bool, bytes: u64, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let rates = &mut *self.0.lock();
        let (this, other) = match past_cache {
            true => (&mut rates.direct, &mut rates.buffered),
            false => (&mut rates.buffered, &mut rates.direct),
        };
        this.bytes += bytes;
        this.nanos = this.nanos.saturating_add(nanos);
        // Disks change their minds, and the first try may have been bad luck.
        if this.bytes > MEMORY {
            (this.bytes, this.nanos) = (this.bytes / 2, this.nanos / 2);
            *other = Rate::default();
        }
    }

    /// Whether the next cold bytes are to be read past the cache.
    fn prefers_direct(&self) -> bool {
        let Rates { buffered, direct } = &*self.0.lock();
        if direct.bytes < PROBE || buffered.bytes < PROBE {
            return direct.bytes < PROBE;
        }
        let product = |rate: &Rate, other: &Rate| u128::from(rate.bytes) * u128::from(other.nanos);
        product(direct, buffered) >= product(buffered, direct)
    }
}

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
                let mount = self.mounts.of(file);
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
        let mut through_cache = !mount.prefers_direct();
        if !through_cache {
            if file.is_cached(offset, len) {
                return buffer.fill(size, |span| file.read_at(offset, span));
            }
            let started = Instant::now();
            // The borrow of what is returned would last beyond the case that nothing is.
            if file.read_past_cache(offset, size, buffer)?.is_some() {
                mount.note(true, len, started.elapsed());
                self.bytes_cold.fetch_add(len, Ordering::Relaxed);
                self.bytes_direct.fetch_add(len, Ordering::Relaxed);
                let from = to_usize(offset % BLOCK as u64)?;
                let bytes = buffer.filled().get(from..from + size);
                return Ok(bytes.unwrap_or_default());
            }
            // Not possible here: as if it took for ever.
            mount.note(true, PROBE, Duration::from_secs(1 << 30));
            through_cache = true;
        }
        let started = Instant::now();
        let bytes = buffer.fill(size, |span| file.read_at(offset, span))?;
        if through_cache {
            // Also what the system has read ahead meanwhile: that is what makes this way fast.
            mount.note(false, len, started.elapsed());
            self.bytes_cold.fetch_add(len, Ordering::Relaxed);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_way_is_tried_and_the_faster_one_kept() {
        for (direct_ms, expected) in [(10, true), (30, false)] {
            let mount = Mount::default();
            assert!(mount.prefers_direct());
            mount.note(true, PROBE, Duration::from_millis(direct_ms));
            assert!(!mount.prefers_direct());
            mount.note(false, PROBE, Duration::from_millis(20));
            assert_eq!(mount.prefers_direct(), expected);
        }
    }

    #[test]
    fn the_other_way_gets_another_chance() {
        let mount = Mount::default();
        mount.note(true, PROBE, Duration::from_millis(10));
        // Bad luck.
        mount.note(false, PROBE, Duration::from_millis(100));
        let mut tries = 0;
        while mount.prefers_direct() {
            mount.note(true, PROBE, Duration::from_millis(10));
            tries += 1;
        }
        assert!(tries <= MEMORY / PROBE, "{tries}");
        mount.note(false, PROBE, Duration::from_millis(5));
        assert!(!mount.prefers_direct());
    }
}
