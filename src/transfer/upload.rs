//! Reads what goes to a GPU into page-locked slots, and sends it from there; see [`read`](super::read).
//!
//! What an item reads is gathered in a [slot](super::lanes), checked and put into the machine's byte order
//! there, and sent when the slot is full or the item ends. Nobody waits for the copies but who needs the
//! slot next, and the call at its end.

use super::CHUNK;
use super::deliver::to_usize;
use super::lanes::Lane;
use super::piece::{Dest, Piece, Target};
use super::pipeline::Shared;
use super::read::{ReadRun, add};
use super::read_plan::{GAP, Item};
use crate::bundle::sidecar::CHUNK_SIZE;
use crate::checksum::{self, Crc32c};
use crate::device::{DeviceSpan, Entered, PinnedBuffer, PinnedCopy};
use crate::error::{Code, Error, Result};
use crate::memory::{ChunkBuffer, DestSpan};

/// What one item sends.
struct Upload<'l, 'a> {
    lane: &'l Lane,
    entered: Entered<'l>,
    shared: Shared<'l>,
    slot: Option<PinnedBuffer>,
    /// Bytes of the slot that are in use.
    used: usize,
    copies: Vec<PinnedCopy<'a>>,
}

impl<'l, 'a> Upload<'l, 'a> {
    fn new(lane: &'l Lane, shared: Shared<'l>) -> Result<Self> {
        Ok(Self {
            lane,
            entered: lane.enter()?,
            shared,
            slot: None,
            used: 0,
            copies: Vec::new(),
        })
    }

    /// Finds room for `len` bytes, no more than a slot holds, and returns where they begin in it.
    fn room(&mut self, len: usize) -> Result<usize> {
        if self.used + len > self.lane.slot() {
            self.send()?;
        }
        if self.slot.is_none() {
            self.slot = Some(self.lane.take(&self.entered, self.shared)?);
            self.used = 0;
        }
        let at = self.used;
        self.used += len;
        Ok(at)
    }

    /// The `len` bytes from `at` in the slot.
    fn bytes(&mut self, at: usize, len: usize) -> Result<&mut [u8]> {
        let slot = self.slot.as_mut();
        let slot = slot.ok_or_else(|| Error::internal("there is no slot"))?;
        let bytes = slot.bytes(&self.entered)?.get_mut(at..at + len);
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
        let Dest::Device(dest) = scatter.dest else {
            return Err(Error::internal("not a GPU's"));
        };
        let mut placed = 0;
        // The last copy: where it begins in the slot, in the destination, and how long it is.
        let mut last: Option<(usize, u64, usize)> = None;
        for (range, dest_at) in scatter.parts(start..start + len as u64) {
            let from = at + to_usize(range.start - start)?;
            let run_len = to_usize(range.end - range.start)?;
            placed += run_len as u64;
            // Runs that are neighbours in the destination become neighbours in the slot: a memmove in
            // the cache costs less than a copy over the bus for each.
            match &mut last {
                Some((begin, begin_dest, total)) if *begin_dest + *total as u64 == dest_at => {
                    let to = *begin + *total;
                    *total += run_len;
                    if to != from {
                        self.shift(from, to, run_len)?;
                    }
                }
                last => {
                    if let Some((begin, begin_dest, total)) = last.replace((from, dest_at, run_len))
                    {
                        self.copy(dest, begin_dest, begin, total)?;
                    }
                }
            }
        }
        if let Some((begin, begin_dest, total)) = last {
            self.copy(dest, begin_dest, begin, total)?;
        }
        Ok(placed)
    }

    fn copy(&mut self, dest: DeviceSpan<'a>, dest_at: u64, at: usize, len: usize) -> Result<()> {
        let device = dest.get(to_usize(dest_at)?, len);
        let device = device.ok_or_else(|| Error::internal("a copy leaves its destination"))?;
        self.copies.push(PinnedCopy { offset: at, device });
        Ok(())
    }

    /// Moves bytes inside the slot.
    fn shift(&mut self, from: usize, to: usize, len: usize) -> Result<()> {
        let all = self.used;
        let bytes = self.bytes(0, all)?;
        if from.max(to) + len > bytes.len() {
            return Err(Error::internal("a run leaves its slot"));
        }
        bytes.copy_within(from..from + len, to);
        Ok(())
    }

    /// Enqueues the copies and gives the slot back.
    fn send(&mut self) -> Result<()> {
        let Some(mut slot) = self.slot.take() else {
            return Ok(());
        };
        self.lane
            .count(self.copies.iter().map(|copy| copy.device.len()).sum());
        let sent = slot.upload(&self.entered, self.lane.stream(), &self.copies);
        self.copies.clear();
        self.used = 0;
        self.lane.put(slot);
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
                let mut upload = Upload::new(lane, shared)?;
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
                self.upload_runs(Upload::new(lane, shared)?, piece, first..end, buffer)
            }),
            Item::LongRun { piece, run, start } => self.attempt(piece, shared, |piece| {
                let Target::Scatter(scatter) = &piece.target else {
                    return Ok(());
                };
                let (run, size) = (scatter.overlap.run(run), scatter.element_size);
                let len = (super::ITEM as u64).min(run.len * size - start);
                let mut upload = Upload::new(lane, shared)?;
                let range = (run.source * size + start, len);
                self.upload_range(&mut upload, piece, range, None, buffer)?;
                upload.send()
            }),
            Item::Chunks { piece, first, end } => self.attempt(piece, shared, |piece| {
                self.upload_chunks(Upload::new(lane, shared)?, piece, first..end, buffer)
            }),
            Item::Direct { .. } => Err(Error::internal("a GPU's memory is not read into")),
        }
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
        let step = self.cold.as_ref().map_or(CHUNK, |_| self.room.max(1));
        for chunk in bytes.chunks_mut(step) {
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
        if pieces.len() > 1 {
            let mut upload = Upload::new(lane, shared)?;
            match self.read_together(&mut upload, pieces, buffer) {
                Ok(at) => {
                    let offset = pieces.first().map_or(0, |piece| piece.extent.offset);
                    let place = |piece: &Piece<'a>| {
                        let from = at + to_usize(piece.extent.offset - offset)?;
                        self.check_and_place(&mut upload, piece, from)
                    };
                    let placed: Vec<Result<()>> = pieces.iter().map(place).collect();
                    let sent = upload.send();
                    for (index, placed) in (first..end).zip(placed) {
                        self.attempt(index, shared, |_| placed.and(sent.clone()))?;
                    }
                    return Ok(());
                }
                Err(error) if shared.is_stopped() || error.code() == Code::Cancelled => {
                    return Err(error);
                }
                // It may concern the neighbours only.
                Err(_) => {}
            }
        }
        for index in first..end {
            self.attempt(index, shared, |piece| {
                let mut upload = Upload::new(lane, shared)?;
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

    /// Reads neighbouring pieces into the slot. Returns where in it they begin.
    fn read_together(
        &self,
        upload: &mut Upload<'_, 'a>,
        pieces: &[Piece<'a>],
        buffer: &mut ChunkBuffer,
    ) -> Result<usize> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return Ok(0);
        };
        let reach = to_usize(last.extent.offset + last.extent.size - first.extent.offset)?;
        let at = upload.room(reach)?;
        let shared = upload.shared;
        let bytes = upload.bytes(at, reach)?;
        self.read_into(first, first.extent.offset, bytes, (buffer, shared), |_| {})?;
        Ok(at)
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
