//! Reads what goes to a GPU into page-locked slots, and sends it from there; see [`read`](super::read).
//!
//! What an item reads is gathered in a [slot](super::lane), checked and put into the machine's byte order
//! there, and sent when the slot is full or the item ends. Nobody waits for the copies but who needs the
//! slot next, and the call at its end.

use super::CHUNK;
use super::deliver::to_usize;
use super::lane::Lane;
use super::piece::{Dest, Piece, Target};
use super::pipeline::Shared;
use super::read::{ReadRun, add};
use super::read_plan::{GAP, Item};
use crate::bundle::sidecar::CHUNK_SIZE;
use crate::checksum::{self, Crc32c};
use crate::device::{DeviceSpan, PinnedBuffer, PinnedCopy};
use crate::error::{Code, Error, Result};
use crate::memory::{ChunkBuffer, DestSpan};

/// What one item sends.
struct Upload<'l, 'a> {
    lane: &'l Lane,
    shared: Shared<'l>,
    slot: Option<PinnedBuffer>,
    /// Bytes of the slot that are in use.
    used: usize,
    copies: Vec<PinnedCopy<'a>>,
    /// The memory that the last copy goes to part of, and where in it that part ends.
    last: Option<(DeviceSpan<'a>, u64)>,
}

impl<'l, 'a> Upload<'l, 'a> {
    fn new(lane: &'l Lane, shared: Shared<'l>) -> Self {
        Self {
            lane,
            shared,
            slot: None,
            used: 0,
            copies: Vec::new(),
            last: None,
        }
    }

    /// Finds room for `len` bytes, no more than a slot holds, and returns where they begin in it.
    fn room(&mut self, len: usize) -> Result<usize> {
        if self.used + len > self.lane.slot() {
            self.send()?;
        }
        if self.slot.is_none() {
            self.slot = Some(self.lane.take(self.shared)?);
            self.used = 0;
        }
        let at = self.used;
        self.used += len;
        Ok(at)
    }

    /// The `len` bytes from `at` in the slot.
    fn bytes(&mut self, at: usize, len: usize) -> Result<&mut [u8]> {
        let bytes = self.slot.as_mut().and_then(PinnedBuffer::bytes);
        let bytes = bytes.ok_or_else(|| Error::internal("there is no slot"))?;
        let bytes = bytes.get_mut(at..at + len);
        bytes.ok_or_else(|| Error::internal("a slot is too small"))
    }

    /// Notes where the `len` bytes at `at` in the slot go, which are those from `start` of `piece`.
    /// Returns how many of them go anywhere.
    fn place(&mut self, piece: &Piece<'a>, at: usize, start: u64, len: usize) -> Result<u64> {
        let scatter = match &piece.target {
            Target::Upload(dest) => {
                self.copy(*dest, start, at, len)?;
                return Ok(len as u64);
            }
            Target::Scatter(scatter) => scatter,
            Target::Direct(_) | Target::Discard => return Err(Error::internal("not a GPU's")),
        };
        let Some(Dest::Device(dest)) = scatter.dest else {
            return Err(Error::internal("not a GPU's"));
        };
        let mut placed = 0;
        for (range, dest_at) in scatter.parts(start..start + len as u64) {
            let from = at + to_usize(range.start - start)?;
            let run_len = to_usize(range.end - range.start)?;
            placed += run_len as u64;
            self.copy(dest, dest_at, from, run_len)?;
        }
        Ok(placed)
    }

    /// Notes that the `len` bytes at `from` in the slot go to those from `dest_at` of `dest`. What is noted
    /// later lies behind them in the slot.
    ///
    /// Runs that are neighbours in the destination become neighbours in the slot, and one copy: a memmove
    /// in the cache costs less than a copy over the bus for each.
    fn copy(&mut self, dest: DeviceSpan<'a>, dest_at: u64, from: usize, len: usize) -> Result<()> {
        let end = dest_at + len as u64;
        let last = self.last.replace((dest, end));
        // Memory of two tensors may be of two allocations, which no copy spans.
        let continues = |last: (DeviceSpan<'a>, u64)| {
            (last.0.device(), last.0.addresses(), last.1)
                == (dest.device(), dest.addresses(), dest_at)
        };
        let before = self.copies.pop_if(|_| last.is_some_and(continues));
        let (at, done) = before.map_or((from, 0), |copy| (copy.offset, copy.device.len()));
        if at + done != from {
            self.shift(from, at + done, len)?;
        }
        let device = dest.get(to_usize(dest_at)? - done, done + len);
        let device = device.ok_or_else(|| Error::internal("a copy leaves its destination"))?;
        self.copies.push(PinnedCopy { offset: at, device });
        Ok(())
    }

    /// Gives back the room behind the last copy, in which nothing is wanted.
    fn give_back_room(&mut self) {
        let last = self.copies.last();
        self.used = last.map_or(0, |copy| copy.offset + copy.device.len());
    }

    /// Moves bytes inside the slot.
    fn shift(&mut self, from: usize, to: usize, len: usize) -> Result<()> {
        let bytes = self.bytes(0, from + len)?;
        if to > from {
            return Err(Error::internal("a run leaves its slot"));
        }
        bytes.copy_within(from..from + len, to);
        Ok(())
    }

    /// Enqueues the copies and gives the slot back.
    fn send(&mut self) -> Result<()> {
        let Some(slot) = self.slot.take() else {
            return Ok(());
        };
        let sent = self.lane.send(slot, &self.copies);
        self.copies.clear();
        self.last = None;
        self.used = 0;
        sent
    }
}

impl Drop for Upload<'_, '_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.lane.put(slot);
        }
    }
}

impl<'a> ReadRun<'_, 'a> {
    /// Does an item whose bytes go to the device of `lane`.
    pub(super) fn upload(
        &self,
        lane: &Lane,
        item: Item,
        buffer: &mut ChunkBuffer,
        shared: Shared<'_>,
    ) -> Result<()> {
        match item {
            Item::Group { first, end } => self.upload_group(lane, (first, end), buffer, shared),
            Item::Block { piece, start, len } => self.attempt(piece, shared, |description| {
                let mut upload = Upload::new(lane, shared);
                let crc = description.check.then(Crc32c::new);
                let crc = self.upload_range(&mut upload, description, (start, len), crc, buffer)?;
                if len == description.extent.size && len <= lane.slot() as u64 {
                    // Nothing of it has been sent yet.
                    self.finish_part(piece, description, start, crc)?;
                    return upload.send();
                }
                upload.send()?;
                self.finish_part(piece, description, start, crc)
            }),
            Item::Runs { piece, first, end } => self.attempt(piece, shared, |piece| {
                self.upload_runs(Upload::new(lane, shared), piece, first..end, buffer)
            }),
            Item::LongRun { piece, run, start } => self.attempt(piece, shared, |piece| {
                let Target::Scatter(scatter) = &piece.target else {
                    return Ok(());
                };
                let (run, size) = (scatter.overlap.run(run), scatter.element_size);
                let len = (super::ITEM as u64).min(run.len * size - start);
                let mut upload = Upload::new(lane, shared);
                let range = (run.source * size + start, len);
                self.upload_range(&mut upload, piece, range, None, buffer)?;
                upload.send()
            }),
            Item::Chunks { piece, first, end } => self.attempt(piece, shared, |piece| {
                self.upload_chunks(Upload::new(lane, shared), piece, first..end, buffer)
            }),
            Item::Direct { .. } => Err(Error::internal("a GPU's memory is not read into")),
        }
    }

    /// Bytes that are read at once.
    fn step(&self) -> usize {
        self.cold.as_ref().map_or(CHUNK, |_| self.room.max(1))
    }

    /// Fills `bytes`, which are in a slot, from `offset` in the file of the piece; `then` is done to each
    /// chunk while it is in the cache. What is not in the page cache comes by way of `buffer`: what a disk
    /// gives is copied once more in no time.
    fn read_into(
        &self,
        piece: &Piece<'_>,
        mut offset: u64,
        bytes: &mut [u8],
        (buffer, shared): (&mut ChunkBuffer, Shared<'_>),
        mut then: impl FnMut(&mut [u8]),
    ) -> Result<()> {
        for chunk in bytes.chunks_mut(self.step()) {
            shared.check()?;
            let len = chunk.len() as u64;
            self.count_io(len);
            match &self.cold {
                Some(cold) => chunk.copy_from_slice(cold.read(&piece.file, offset, len, buffer)?),
                None => {
                    piece.file.read_at(offset, DestSpan::from(&mut *chunk))?;
                }
            }
            then(chunk);
            offset += len;
        }
        Ok(())
    }

    /// Reads and places `len` bytes from `start` of the piece. Returns their checksum if it is to be
    /// calculated, with `crc`.
    fn upload_range(
        &self,
        upload: &mut Upload<'_, 'a>,
        piece: &Piece<'a>,
        (start, len): (u64, u64),
        mut crc: Option<Crc32c>,
        buffer: &mut ChunkBuffer,
    ) -> Result<u32> {
        let shared = upload.shared;
        let mut done = 0;
        while done < len {
            let window = (upload.lane.slot() as u64).min(len - done);
            let size = to_usize(window)?;
            let at = upload.room(size)?;
            let bytes = upload.bytes(at, size)?;
            let offset = piece.extent.offset + start + done;
            self.read_into(piece, offset, bytes, (&mut *buffer, shared), |chunk| {
                if let Some(crc) = &mut crc {
                    crc.update(chunk);
                }
                swap(chunk, piece);
            })?;
            let placed = upload.place(piece, at, start + done, size)?;
            upload.give_back_room();
            let moved = match crc {
                Some(_) => window,
                None => {
                    add(&self.bytes_unverified, placed);
                    placed
                }
            };
            add(&shared.counters.bytes, moved);
            done += window;
        }
        Ok(crc.map_or(0, |crc| crc.value()))
    }

    fn upload_group(
        &self,
        lane: &Lane,
        (first, end): (u32, u32),
        buffer: &mut ChunkBuffer,
        shared: Shared<'_>,
    ) -> Result<()> {
        let pieces = self.plan.pieces.get(first as usize..end as usize);
        let pieces = pieces.unwrap_or_default();
        let mut placed = Vec::new();
        if pieces.len() > 1 {
            let mut upload = Upload::new(lane, shared);
            match self.read_together(&mut upload, pieces, buffer, &mut placed) {
                Err(error) if shared.is_stopped() || error.code() == Code::Cancelled => {
                    return Err(error);
                }
                // What went wrong may concern a neighbour only: those that are left are read alone.
                Ok(()) | Err(_) => {}
            }
            let sent = upload.send();
            for (index, placed) in (first..end).zip(&placed) {
                self.attempt(index, shared, |_| placed.clone().and(sent.clone()))?;
            }
        }
        for index in (first..end).skip(placed.len()) {
            self.attempt(index, shared, |piece| {
                let mut upload = Upload::new(lane, shared);
                let size = to_usize(piece.extent.size)?;
                let at = upload.room(size)?;
                let bytes = upload.bytes(at, size)?;
                let offset = piece.extent.offset;
                self.read_into(piece, offset, bytes, (&mut *buffer, shared), |_| {})?;
                self.check_and_place(&mut upload, piece, at)?;
                upload.send()
            })?;
        }
        Ok(())
    }

    /// Reads neighbouring pieces, which a slot holds, and places those that are in order; notes in `placed`
    /// what came of each that was read.
    fn read_together(
        &self,
        upload: &mut Upload<'_, 'a>,
        mut pieces: &[Piece<'a>],
        buffer: &mut ChunkBuffer,
        placed: &mut Vec<Result<()>>,
    ) -> Result<()> {
        let shared = upload.shared;
        placed.reserve_exact(pieces.len());
        while let Some(first) = pieces.first() {
            let offset = first.extent.offset;
            // No more than is still in the cache when it is checked.
            let end = offset + self.step() as u64;
            let num = pieces.partition_point(|it| it.extent.offset + it.extent.size <= end);
            let (next, rest) = pieces.split_at(num.max(1));
            let end = next
                .last()
                .map_or(offset, |it| it.extent.offset + it.extent.size);
            let reach = to_usize(end - offset)?;
            let at = upload.room(reach)?;
            let bytes = upload.bytes(at, reach)?;
            self.read_into(first, offset, bytes, (&mut *buffer, shared), |_| {})?;
            for piece in next {
                let from = at + to_usize(piece.extent.offset - offset)?;
                placed.push(self.check_and_place(upload, piece, from));
            }
            pieces = rest;
        }
        Ok(())
    }

    /// Checks a piece whose bytes are at `at` in the slot, and places it.
    fn check_and_place(
        &self,
        upload: &mut Upload<'_, 'a>,
        piece: &Piece<'a>,
        at: usize,
    ) -> Result<()> {
        let size = to_usize(piece.extent.size)?;
        let bytes = upload.bytes(at, size)?;
        if piece.check {
            self.check(piece, checksum::crc32c(bytes))?;
        }
        swap(bytes, piece);
        let placed = upload.place(piece, at, 0, size)?;
        if !piece.check {
            add(&self.bytes_unverified, placed);
        }
        add(&upload.shared.counters.bytes, piece.extent.size);
        Ok(())
    }

    /// Reads the runs of a range, of which neighbours share a read.
    fn upload_runs(
        &self,
        mut upload: Upload<'_, 'a>,
        piece: &Piece<'a>,
        runs: std::ops::Range<u64>,
        buffer: &mut ChunkBuffer,
    ) -> Result<()> {
        let Target::Scatter(scatter) = &piece.target else {
            return Ok(());
        };
        let (overlap, size) = (&scatter.overlap, scatter.element_size);
        let slot = upload.lane.slot() as u64;
        let len = overlap.run_len() * size;
        let mut number = runs.start;
        while number < runs.end {
            let start = overlap.run(number).source * size;
            let mut end = start + len;
            number += 1;
            while number < runs.end {
                let next = overlap.run(number).source * size;
                if next - end > GAP || next + len - start > slot {
                    break;
                }
                end = next + len;
                number += 1;
            }
            self.upload_range(&mut upload, piece, (start, end - start), None, buffer)?;
        }
        upload.send()
    }

    /// Reads those chunks of a range that something is wanted of, each of which has a checksum of its own.
    fn upload_chunks(
        &self,
        mut upload: Upload<'_, 'a>,
        piece: &Piece<'a>,
        range: std::ops::Range<u64>,
        buffer: &mut ChunkBuffer,
    ) -> Result<()> {
        let shared = upload.shared;
        for number in range {
            let Some(chunk) = self.wanted_chunk(piece, number)? else {
                continue;
            };
            let start = number * CHUNK_SIZE;
            let size = to_usize(chunk.size)?;
            let at = upload.room(size)?;
            let mut crc = Crc32c::new();
            let bytes = upload.bytes(at, size)?;
            let offset = piece.extent.offset + start;
            self.read_into(piece, offset, bytes, (&mut *buffer, shared), |chunk| {
                crc.update(chunk);
                swap(chunk, piece);
            })?;
            self.check_chunk(&chunk, crc.value())?;
            let placed = upload.place(piece, at, start, size)?;
            upload.give_back_room();
            add(&shared.counters.bytes, placed);
        }
        upload.send()
    }
}

/// Puts the elements of a piece into the machine's byte order.
fn swap(bytes: &mut [u8], piece: &Piece<'_>) {
    let unit = usize::from(piece.swap);
    if unit > 1 {
        for element in bytes.chunks_exact_mut(unit) {
            element.reverse();
        }
    }
}
