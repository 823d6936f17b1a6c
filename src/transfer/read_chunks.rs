//! Reads parts of a piece whose chunks have checksums of their own; see [`read`](super::read).

use super::deliver::to_usize;
use super::piece::{Dest, Piece, Target};
use super::pipeline::Shared;
use super::read::{ReadRun, add};
use crate::bundle::DataExtent;
use crate::bundle::sidecar::CHUNK_SIZE;
use crate::checksum::Crc32c;
use crate::error::{Error, Result};
use crate::memory::ChunkBuffer;

impl ReadRun<'_, '_> {
    /// Reads those chunks of a range that something is wanted of, and compares the checksum of each with
    /// the one that it must have.
    pub(super) fn chunks(
        &self,
        piece: &Piece<'_>,
        buffer: &mut ChunkBuffer,
        range: std::ops::Range<u64>,
        shared: Shared<'_>,
    ) -> Result<()> {
        let Target::Scatter(scatter) = &piece.target else {
            return Ok(());
        };
        let (overlap, size) = (&scatter.overlap, scatter.element_size);
        for number in range {
            let Some(chunk) = self.wanted_chunk(piece, number)? else {
                continue;
            };
            let (start, len) = (number * CHUNK_SIZE, chunk.size);
            let run = overlap.run(overlap.first_run_after(start / size));
            let (from, to) = (run.source * size, (run.source + run.len) * size);
            let crc = Some(Crc32c::new());
            let crc = match scatter.dest {
                // Wanted whole, and in one place.
                Some(Dest::Host(dest))
                    if from <= start && start + len <= to && self.cold.is_none() =>
                {
                    let range = (start, run.dest * size + (start - from), len);
                    self.direct(piece, dest, range, crc, shared)?
                }
                _ => self.block(piece, buffer, (start, len), crc, shared)?,
            };
            self.check_chunk(&chunk, crc)?;
        }
        Ok(())
    }

    /// The place of a chunk, and the checksum that it must have; `None` if nothing of it is wanted.
    pub(super) fn wanted_chunk(
        &self,
        piece: &Piece<'_>,
        number: u64,
    ) -> Result<Option<DataExtent>> {
        let Target::Scatter(scatter) = &piece.target else {
            return Ok(None);
        };
        let Some(known) = &scatter.chunks else {
            return Ok(None);
        };
        let (overlap, size) = (&scatter.overlap, scatter.element_size);
        let start = number * CHUNK_SIZE;
        let len = CHUNK_SIZE.min(piece.extent.size - start);
        let run = overlap.first_run_after(start / size);
        if run >= overlap.num_runs() || overlap.run(run).source * size >= start + len {
            return Ok(None);
        }
        let at = to_usize(number - known.first)?;
        let expected = known.crcs.get(at).copied();
        Ok(Some(DataExtent {
            offset: piece.extent.offset + start,
            size: len,
            crc32c: expected.ok_or_else(|| Error::internal("a chunk has no checksum"))?,
            ..piece.extent
        }))
    }

    /// Compares a chunk's checksum with the one that it must have.
    pub(super) fn check_chunk(&self, chunk: &DataExtent, calculated: u32) -> Result<()> {
        add(&self.bytes_verified_by_chunks, chunk.size);
        chunk
            .check(self.how.bundle, calculated)
            .map_err(|error| error.with_offset(chunk.offset))
    }
}
