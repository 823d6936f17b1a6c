//! Restoring: from data files into memory.
//!
//! A tensor is made of [`Piece`]s, ranges of data files. [`read_plan`](super::read_plan) sorts them by
//! file and offset and cuts the work into items:
//!
//! * *direct*: part of a large piece, read straight into the destination and summed chunk by chunk;
//! * *block*: part of a piece that is needed in parts, or only to be verified, read into a buffer;
//! * *group*: neighbouring small pieces, read together into a buffer and copied from there;
//! * *runs*: only the bytes that a slice needs, unverified: short runs that are neighbours together,
//!   long ones straight into the destination;
//! * *chunks*: of a piece whose chunks have checksums of their own, those that a slice needs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::cold::{self, ColdReads};
use super::deliver::{deliver, span_at, straight, to_usize};
use super::pipeline::{self, Shared};
pub use super::read_plan::{ChunkCrcs, How, Piece, Scatter, Target};
use super::read_plan::{GAP, Item, ReadPlan, SMALL, items_per_tensor, plan};
use super::{CHUNK, Call, ITEM};
use crate::bundle::DataExtent;
use crate::checksum::{self, Crc32c};
use crate::error::{Code, Error, Result};
use crate::memory::{ChunkBuffer, DestSpan};

/// What came of the tensors of a call.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whether each tensor is complete and, as far as asked for, verified.
    pub complete: Vec<bool>,
    /// The error of each tensor that failed, by index.
    pub failed: BTreeMap<usize, Error>,
    /// Why the call ended early, if it did: CANCELLED, or the first tensor's error.
    pub ended: Option<Error>,
}

/// Reads all pieces of tensors `0..num_tensors`.
///
/// # Errors
///
/// Only those that concern no tensor: no memory for buffers, a limit below the minimum.
pub fn execute(
    call: &mut Call<'_>,
    pieces: Vec<Piece<'_>>,
    num_tensors: usize,
    how: How<'_>,
) -> Result<Outcome> {
    let total = pieces
        .iter()
        .fold(0u64, |total, piece| total.saturating_add(piece.read()));
    let context = call.context;
    let cold = cold::is_cold(&pieces, total).then(|| ColdReads::new(context.mounts()));
    let (threads, chunk, margin) = match cold {
        Some(_) => (context.num_storage_threads(), cold::CHUNK, cold::MARGIN),
        None => (context.num_threads(), CHUNK, 0),
    };
    let threads = threads.min(usize::try_from(total >> 20).unwrap_or(usize::MAX).max(1));
    let admission = call.admit(threads, chunk + margin)?;
    let room = admission.buffer - margin;
    let mut plan = plan(pieces, room, cold.is_some());
    if how.in_request_order {
        plan.put_in_request_order();
    }
    let run = ReadRun {
        plan: &plan,
        items_left: items_per_tensor(&plan, num_tensors),
        how,
        room,
        cold,
        failed: Mutex::default(),
        any_failed: AtomicBool::new(false),
        bytes_io: AtomicU64::new(0),
        bytes_verified: AtomicU64::new(0),
        bytes_verified_by_chunks: AtomicU64::new(0),
        bytes_unverified: AtomicU64::new(0),
        num_io: AtomicU64::new(0),
    };
    let ended = pipeline::run(
        admission.num_threads,
        plan.items.len(),
        &mut call.progress,
        || ChunkBuffer::new(admission.buffer),
        |buffer, item, shared| run.item(buffer, item, shared),
    )
    .err();
    call.stats.num_threads = u32::try_from(admission.num_threads).unwrap_or(u32::MAX);
    call.stats.bytes_io += run.bytes_io.into_inner();
    let by_chunks = run.bytes_verified_by_chunks.into_inner();
    call.stats.bytes_verified += run.bytes_verified.into_inner() + by_chunks;
    call.stats.bytes_verified_by_chunks += by_chunks;
    call.stats.bytes_unverified += run.bytes_unverified.into_inner();
    call.stats.num_io += run.num_io.into_inner();
    if let Some(cold) = run.cold {
        call.stats.bytes_cold += cold.bytes_cold.into_inner();
        call.stats.bytes_direct += cold.bytes_direct.into_inner();
    }
    let failed = run.failed.into_inner();
    let complete = run.items_left.into_iter().enumerate();
    let complete =
        complete.map(|(tensor, left)| left.into_inner() == 0 && !failed.contains_key(&tensor));
    Ok(Outcome {
        complete: complete.collect(),
        failed,
        ended,
    })
}

/// One execution of a plan.
pub(super) struct ReadRun<'p, 'a> {
    plan: &'p ReadPlan<'a>,
    /// Items that each tensor still waits for.
    items_left: Vec<AtomicU32>,
    pub(super) how: How<'p>,
    /// Bytes that are read through a buffer at once.
    room: usize,
    /// How to read, if most is not in the page cache.
    pub(super) cold: Option<ColdReads<'p>>,
    failed: Mutex<BTreeMap<usize, Error>>,
    /// Whether `failed` has anything: threads that read small tensors do not wait for each other's look.
    any_failed: AtomicBool,
    bytes_io: AtomicU64,
    /// Of pieces checked as a whole.
    bytes_verified: AtomicU64,
    pub(super) bytes_verified_by_chunks: AtomicU64,
    bytes_unverified: AtomicU64,
    num_io: AtomicU64,
}

impl<'a> ReadRun<'_, 'a> {
    fn item(&self, buffer: &mut ChunkBuffer, item: usize, shared: Shared<'_>) -> Result<()> {
        let Some(&item) = self.plan.items.get(item) else {
            return Ok(());
        };
        match item {
            Item::Group { first, end } => self.group(buffer, first, end, shared),
            Item::Direct { piece, start } => self.attempt(piece, shared, |description| {
                let Target::Direct(dest) = description.target else {
                    return Ok(());
                };
                let len = (ITEM as u64).min(description.extent.size - start);
                let crc = description.check.then(Crc32c::new);
                let crc = self.direct(description, dest, (start, start, len), crc, shared)?;
                self.finish_part(piece, description, start, crc)
            }),
            Item::Block { piece, start, len } => self.attempt(piece, shared, |description| {
                let crc = description.check.then(Crc32c::new);
                let crc = self.block(description, buffer, (start, len), crc, shared)?;
                self.finish_part(piece, description, start, crc)
            }),
            Item::Runs { piece, first, end } => self.attempt(piece, shared, |piece| {
                self.runs(piece, buffer, first..end, shared)
            }),
            Item::LongRun { piece, run, start } => self.attempt(piece, shared, |piece| {
                let Target::Scatter(scatter) = &piece.target else {
                    return Ok(());
                };
                let (run, size) = (scatter.overlap.run(run), scatter.element_size);
                let len = (ITEM as u64).min(run.len * size - start);
                let (from, to) = (run.source * size + start, run.dest * size + start);
                self.direct(piece, scatter.dest, (from, to, len), None, shared)
                    .map(|_| ())
            }),
            Item::Chunks { piece, first, end } => self.attempt(piece, shared, |piece| {
                self.chunks(piece, buffer, first..end, shared)
            }),
        }
    }

    /// Runs `work` on a piece, unless its tensor failed before, and files the error if there is one.
    /// Only an error that ends the call is returned.
    fn attempt(
        &self,
        piece: u32,
        shared: Shared<'_>,
        work: impl FnOnce(&Piece<'a>) -> Result<()>,
    ) -> Result<()> {
        let Some(description) = self.plan.pieces.get(piece as usize) else {
            return Ok(());
        };
        let tensor = description.tensor as usize;
        if self.any_failed.load(Ordering::Relaxed) && self.failed.lock().contains_key(&tensor) {
            return Ok(());
        }
        let Err(error) = work(description) else {
            let left = self.items_left.get(tensor);
            // AcqRel: who sees the tensor complete sees what all threads have put into it.
            if left.is_some_and(|left| left.fetch_sub(1, Ordering::AcqRel) == 1) {
                add(&shared.counters.tensors, 1);
                shared.monitor.arrived(self.how.index(tensor));
            }
            return Ok(());
        };
        match error.code() {
            Code::Cancelled => return Err(error),
            // Not this tensor's fault, and not to be reported in place of what it was.
            Code::Aborted if shared.is_stopped() => return Ok(()),
            _ => {}
        }
        let error = error
            .with_tensor_index(tensor)
            .with_file(description.file.path())
            .with_offset(description.extent.offset);
        self.failed
            .lock()
            .entry(tensor)
            .or_insert_with(|| error.clone());
        self.any_failed.store(true, Ordering::Relaxed);
        let told = self.how.reindexed(error.clone());
        shared.monitor.failed(self.how.index(tensor), &told);
        match self.how.keep_going {
            true => Ok(()),
            false => Err(error),
        }
    }

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

    fn group(
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
    fn runs(
        &self,
        piece: &Piece<'_>,
        buffer: &mut ChunkBuffer,
        runs: std::ops::Range<u64>,
        shared: Shared<'_>,
    ) -> Result<()> {
        let Target::Scatter(scatter) = &piece.target else {
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
                self.direct(piece, scatter.dest, range, None, shared)?;
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

    /// Notes the checksum of the part from `start`; whoever notes the last one compares the whole
    /// piece's, which is `number` in the plan.
    fn finish_part(&self, number: u32, piece: &Piece<'_>, start: u64, crc: u32) -> Result<()> {
        if !piece.check {
            return Ok(());
        }
        match self.plan.parts(number) {
            // It is in one part.
            None => self.check(piece, crc),
            Some(parts) => match parts.note(start, crc, piece.extent.size) {
                Some(whole) => self.check(piece, whole),
                None => Ok(()),
            },
        }
    }

    fn check(&self, piece: &Piece<'_>, crc: u32) -> Result<()> {
        add(&self.bytes_verified, piece.extent.size);
        piece.extent.check(self.how.bundle, crc)
    }

    fn count_io(&self, bytes: u64) {
        add(&self.bytes_io, bytes);
        add(&self.num_io, 1);
    }
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
