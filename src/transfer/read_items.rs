//! Reads what goes to the host's memory, item by item; see [`read`](super::read).

use super::CHUNK;
use super::deliver::{deliver, span_at, straight, to_usize};
use super::piece::{Dest, Piece, Target};
use super::pipeline::Shared;
use super::read::{ReadRun, add};
use super::read_plan::{GAP, SMALL};
use crate::bundle::DataExtent;
use crate::checksum::{self, Crc32c};
use crate::error::Result;
use crate::memory::{ChunkBuffer, DestSpan};

impl ReadRun<'_, '_> {
    /// Reads `len` bytes from `start` of the piece to `at` in `dest`, chunk by chunk. Returns their
    /// checksum if it is to be calculated, with `crc`.
    pub(super) fn direct(
        &self,
        piece: &Piece<'_>,
        dest: DestSpan<'_>,
        (start, at, len): (u64, u64, u64),
        mut crc: Option<Crc32c>,
        shared: Shared<'_>,
    ) -> Result<u32> {
        let mut done = 0;
        while done < len {
            shared.check()?;
            let chunk = (CHUNK as u64).min(len - done);
            let span = span_at(dest, at + done, chunk)?;
            let mut filled = piece
                .file
                .read_at(piece.extent.offset + start + done, span)?;
            self.count_io(chunk);
            match &mut crc {
                Some(crc) => filled.update(crc),
                None => add(&self.bytes_unverified, chunk),
            }
            filled.swap_bytes(piece.swap.into());
            add(&shared.counters.bytes, chunk);
            done += chunk;
        }
        Ok(crc.map_or(0, |crc| crc.value()))
    }

    /// Reads `len` bytes from `start` of the piece through the buffer and delivers what is wanted of
    /// them. Returns their checksum if it is to be calculated, with `crc`.
    pub(super) fn block(
        &self,
        piece: &Piece<'_>,
        buffer: &mut ChunkBuffer,
        (start, len): (u64, u64),
        mut crc: Option<Crc32c>,
        shared: Shared<'_>,
    ) -> Result<u32> {
        let mut done = 0;
        while done < len {
            shared.check()?;
            let chunk = (self.room as u64).min(len - done);
            let bytes = self.read(piece, start + done, chunk, buffer)?;
            let delivered = deliver(piece, bytes, start + done)?;
            match &mut crc {
                Some(crc) => crc.update(bytes),
                None => add(&self.bytes_unverified, delivered),
            }
            // What was to be expected: see `Piece::wanted`.
            let moved = if piece.check { chunk } else { delivered };
            add(&shared.counters.bytes, moved);
            done += chunk;
        }
        Ok(crc.map_or(0, |crc| crc.value()))
    }

    pub(super) fn group(
        &self,
        buffer: &mut ChunkBuffer,
        first: u32,
        end: u32,
        shared: Shared<'_>,
    ) -> Result<()> {
        let pieces = self.plan.pieces.get(first as usize..end as usize);
        let pieces = pieces.unwrap_or_default();
        let (Some(start), Some(last)) = (pieces.first(), pieces.last()) else {
            return Ok(());
        };
        let offset = start.extent.offset;
        if self.cold.is_none()
            && let Some(dests) = straight(pieces)
            && let Ok(filled) = start.file.read_all_at(offset, &dests)
        {
            let size = last.extent.offset + last.extent.size - offset;
            self.count_io(size);
            add(&shared.counters.bytes, size);
            for (index, mut filled) in (first..end).zip(filled) {
                self.attempt(index, shared, |piece| {
                    if piece.check {
                        let mut crc = Crc32c::new();
                        filled.update(&mut crc);
                        self.check(piece, crc.value())?;
                    }
                    filled.swap_bytes(piece.swap.into());
                    Ok(())
                })?;
            }
            return Ok(());
        }
        // Pieces may overlap: the last one to begin is not always the last one to end.
        let reach = pieces
            .iter()
            .map(|piece| piece.extent.offset + piece.extent.size)
            .max();
        let reach = reach.unwrap_or(last.extent.offset) - offset;
        if pieces.len() > 1
            && let Ok(bytes) = self.read(start, 0, reach, buffer)
        {
            for (index, piece) in (first..end).zip(pieces) {
                let DataExtent {
                    offset: at, size, ..
                } = piece.extent;
                self.attempt(index, shared, |piece| {
                    let from = to_usize(at - offset)?;
                    let bytes = bytes.get(from..from + to_usize(size)?);
                    self.whole(piece, bytes.unwrap_or_default())
                })?;
                add(&shared.counters.bytes, size);
            }
            return Ok(());
        }
        // Alone, or after a failure that may concern its neighbours only.
        for (index, piece) in (first..end).zip(pieces) {
            let size = piece.extent.size;
            self.attempt(index, shared, |piece| {
                let bytes = self.read(piece, 0, size, buffer)?;
                self.whole(piece, bytes)
            })?;
            add(&shared.counters.bytes, size);
        }
        Ok(())
    }

    /// Checks and delivers a piece of which all bytes are at hand.
    fn whole(&self, piece: &Piece<'_>, bytes: &[u8]) -> Result<()> {
        if piece.check {
            self.check(piece, checksum::crc32c(bytes))?;
        } else {
            add(&self.bytes_unverified, piece.extent.size);
        }
        deliver(piece, bytes, 0).map(|_| ())
    }

    /// Reads the runs of a range, of which short ones that are neighbours share a read.
    pub(super) fn runs(
        &self,
        piece: &Piece<'_>,
        buffer: &mut ChunkBuffer,
        runs: std::ops::Range<u64>,
        shared: Shared<'_>,
    ) -> Result<()> {
        let Target::Scatter(scatter) = &piece.target else {
            return Ok(());
        };
        let Some(Dest::Host(dest)) = scatter.dest else {
            return Ok(());
        };
        let (overlap, size) = (&scatter.overlap, scatter.element_size);
        let room = self.room as u64;
        let bytes = overlap.run_len() * size;
        let mut number = runs.start;
        while number < runs.end {
            shared.check()?;
            let first = overlap.run(number);
            let start = first.source * size;
            number += 1;
            if bytes >= SMALL.min(room) {
                let range = (start, first.dest * size, bytes);
                self.direct(piece, dest, range, None, shared)?;
                continue;
            }
            let mut end = start + bytes;
            let mut wanted = bytes;
            while number < runs.end {
                let next = overlap.run(number).source * size;
                if next - end > GAP || next + bytes - start > room {
                    break;
                }
                end = next + bytes;
                wanted += bytes;
                number += 1;
            }
            let bytes = self.read(piece, start, end - start, buffer)?;
            deliver(piece, bytes, start)?;
            add(&self.bytes_unverified, wanted);
            add(&shared.counters.bytes, wanted);
        }
        Ok(())
    }

    fn read<'b>(
        &self,
        piece: &Piece<'_>,
        start: u64,
        len: u64,
        buffer: &'b mut ChunkBuffer,
    ) -> Result<&'b [u8]> {
        let offset = piece.extent.offset + start;
        self.count_io(len);
        match &self.cold {
            Some(cold) => cold.read(&piece.file, offset, len, buffer),
            None => buffer.fill(to_usize(len)?, |span| piece.file.read_at(offset, span)),
        }
    }
}
