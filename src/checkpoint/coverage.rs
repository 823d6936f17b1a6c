//! Which checksums verify a part of a stored piece, when only pieces that are needed whole would be
//! ([`Verify::Fetched`](super::Verify)).
//!
//! With a sidecar beside the index, those of its chunks: only chunks that the part touches are read.
//! A piece that is no larger than a chunk has none and is read whole, which costs no more than a chunk.
//! A sidecar that is of no use, or does not list the piece as the index has it, is ignored.

use std::sync::Arc;

use crate::bundle::sidecar::{CHUNK_SIZE, Sidecar, has_chunks};
use crate::bundle::{BundleReader, DataExtent, SidecarFound};
use crate::error::Result;
use crate::slices::Overlap;
use crate::transfer::read::ChunkCrcs;

/// Most chunks whose checksums a call holds: 1 MiB of them, for 256 GiB. What is left is read unverified.
const MOST_CHUNKS: usize = 1 << 18;

/// What verifies a part of a stored piece.
pub(super) enum Coverage {
    /// Nothing.
    None,
    /// The checksum of all of it.
    Whole,
    /// Those of its chunks.
    Chunks(ChunkCrcs),
}

/// Tells for the pieces of one call what verifies parts of them.
pub(super) struct Verifier<'r> {
    reader: &'r BundleReader,
    /// Once it was needed.
    sidecar: Option<Arc<SidecarFound>>,
    num_chunks: usize,
    /// Pieces for which there was a sidecar that did not help.
    pub num_ignored: u64,
}

impl<'r> Verifier<'r> {
    /// Of the pieces of `reader`.
    pub fn new(reader: &'r BundleReader) -> Self {
        Self {
            reader,
            sidecar: None,
            num_chunks: 0,
            num_ignored: 0,
        }
    }

    /// What verifies the part `overlap`, of elements of `element_size` bytes, of the piece at `extent`,
    /// whose key in the index is `key`.
    pub fn of(
        &mut self,
        key: &dyn Fn() -> Vec<u8>,
        extent: &DataExtent,
        overlap: &Overlap,
        element_size: u64,
    ) -> Coverage {
        if overlap.num_elements() == 0 {
            return Coverage::None;
        }
        let reader = self.reader;
        let found = self.sidecar.get_or_insert_with(|| reader.sidecar()).clone();
        let sidecar = match &*found {
            SidecarFound::Missing => return Coverage::None,
            SidecarFound::Useless => {
                self.num_ignored += 1;
                return Coverage::None;
            }
            SidecarFound::Sound(sidecar) => sidecar,
        };
        if !has_chunks(extent.size) {
            return Coverage::Whole;
        }
        let last = overlap.run(overlap.num_runs() - 1);
        let first = overlap.run(0).source * element_size / CHUNK_SIZE;
        let end = ((last.source + last.len) * element_size).div_ceil(CHUNK_SIZE);
        let room = MOST_CHUNKS - self.num_chunks;
        if end - first > room as u64 {
            return Coverage::None;
        }
        match chunks(sidecar, &key(), extent, first..end) {
            Ok(Some(crcs)) => {
                self.num_chunks += crcs.len();
                let crcs = crcs.into();
                Coverage::Chunks(ChunkCrcs { first, crcs })
            }
            // What is wrong with it, a verification tells.
            Ok(None) | Err(_) => {
                self.num_ignored += 1;
                Coverage::None
            }
        }
    }
}

/// The checksums of the chunks `wanted`, if the sidecar has them for this very entry.
fn chunks(
    sidecar: &Sidecar,
    key: &[u8],
    extent: &DataExtent,
    wanted: std::ops::Range<u64>,
) -> Result<Option<Vec<u32>>> {
    match sidecar.find(key)? {
        Some(record) if record.is_of(extent) => sidecar.chunks(&record, wanted).map(Some),
        _ => Ok(None),
    }
}
