//! Reads parts of a piece whose chunks have checksums of their own; see [`read`](super::read).

use super::deliver::to_usize;
use super::pipeline::Shared;
use super::read::{ReadRun, add};
use super::read_plan::{Piece, Target};
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
        let Some(known) = &scatter.chunks else {
            return Ok(());
        };
        let (overlap, size) = (&scatter.overlap, scatter.element_size);
        for number in range {
            let start = number * CHUNK_SIZE;
            let len = CHUNK_SIZE.min(piece.extent.size - start);
            let run = overlap.first_run_after(start / size);
            if run >= overlap.num_runs() {
                break;
            }
            let run = overlap.run(run);
            let (from, to) = (run.source * size, (run.source + run.len) * size);
            if from >= start + len {
                continue;
            }
            let crc = Some(Crc32c::new());
            let crc = if from <= start && start + len <= to && self.cold.is_none() {
                // Wanted whole, and in one place.
                let range = (start, run.dest * size + (start - from), len);
                self.direct(piece, scatter.dest, range, crc, shared)?
            } else {
                self.block(piece, buffer, (start, len), crc, shared)?
            };
            let at = to_usize(number - known.first)?;
            let expected = known.crcs.get(at).copied();
            let chunk = DataExtent {
                offset: piece.extent.offset + start,
                size: len,
                crc32c: expected.ok_or_else(|| Error::internal("a chunk has no checksum"))?,
                ..piece.extent
            };
            add(&self.bytes_verified_by_chunks, len);
            chunk
                .check(self.how.bundle, crc)
                .map_err(|error| error.with_offset(chunk.offset))?;
        }
        Ok(())
    }
}
