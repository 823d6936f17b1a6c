//! Restoring: from data files into memory.
//!
//! A tensor is made of [`Piece`]s, ranges of data files. [`read_plan`](super::read_plan) sorts them by file and offset and cuts
//! the work into items:
//!
//! * *direct*: part of a large piece, read straight into the destination and summed chunk by chunk;
//! * *block*: part of a piece that is needed in parts, or only to be verified, read into a buffer;
//! * *group*: neighbouring small pieces, read together into a buffer and copied from there;
//! * *runs*: only the bytes that a slice needs, neighbouring ones together, unverified.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::pipeline::{self, Shared};
use super::read_plan::{Item, Parts, ReadPlan, items_per_tensor, plan};
use super::{CHUNK, Call};
use crate::bundle::DataExtent;
use crate::checksum::{self, Crc32c, Shift};
use crate::error::{Code, Error, Result};
use crate::io::read::ReadFile;
use crate::memory::{ChunkBuffer, DestSpan};
use crate::slices::{Overlap, Run};

/// A range of a data file and what it is needed for.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Index of its tensor in the call's list.
    pub tensor: usize,
    /// The data file.
    pub file: Arc<ReadFile>,
    /// The range; known to lie inside the file.
    pub extent: DataExtent,
    /// Whether its checksum is to be checked, for which all of it is read.
    pub check: bool,
    /// Bytes of the units to reverse, 1 for none.
    pub swap: usize,
    /// Where its bytes go.
    pub target: Target<'a>,
}

/// Where the bytes of a piece go.
#[derive(Debug)]
pub enum Target<'a> {
    /// All of them to memory of the same size.
    Direct(DestSpan<'a>),
    /// Some of them, as the overlap of slices says.
    Scatter {
        /// Memory of the requested slice.
        dest: DestSpan<'a>,
        /// From the piece to the memory, in elements.
        overlap: Overlap,
        /// Bytes of an element.
        element_size: usize,
    },
    /// Nowhere: they are only verified.
    Discard,
}

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

/// Reads all pieces of tensors `0..num_tensors`. `bundle` names the checkpoint in messages. With `keep_going`, the error of one
/// tensor does not keep the others from being read.
///
/// # Errors
///
/// Only those that concern no tensor: no memory for buffers, a limit below the minimum.
pub fn execute(
    call: &mut Call<'_>,
    bundle: &str,
    pieces: Vec<Piece<'_>>,
    num_tensors: usize,
    keep_going: bool,
) -> Result<Outcome> {
    let total = pieces
        .iter()
        .fold(0u64, |total, piece| total.saturating_add(piece.extent.size));
    let threads = call
        .context
        .num_threads()
        .min(usize::try_from(total >> 20).unwrap_or(usize::MAX).max(1));
    let admission = call.context.admit(threads, CHUNK, call.max_host_bytes)?;
    let plan = plan(pieces, admission.buffer);
    let run = ReadRun {
        plan: &plan,
        items_left: items_per_tensor(&plan, num_tensors),
        bundle,
        keep_going,
        failed: Mutex::default(),
        bytes_io: AtomicU64::new(0),
        bytes_verified: AtomicU64::new(0),
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
    call.stats.peak_host_bytes = call.stats.peak_host_bytes.max(admission.bytes());
    call.stats.bytes_io += run.bytes_io.into_inner();
    call.stats.bytes_verified += run.bytes_verified.into_inner();
    call.stats.num_io += run.num_io.into_inner();
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
struct ReadRun<'p, 'a> {
    plan: &'p ReadPlan<'a>,
    /// Items that each tensor still waits for.
    items_left: Vec<AtomicU32>,
    bundle: &'p str,
    keep_going: bool,
    failed: Mutex<BTreeMap<usize, Error>>,
    bytes_io: AtomicU64,
    bytes_verified: AtomicU64,
    num_io: AtomicU64,
}

impl<'a> ReadRun<'_, 'a> {
    fn item(&self, buffer: &mut ChunkBuffer, item: usize, shared: Shared<'_>) -> Result<()> {
        match self.plan.items.get(item) {
            None => Ok(()),
            Some(&Item::Group { first, end }) => self.group(buffer, first, end, shared),
            Some(&Item::Direct { piece, start, len }) => {
                self.attempt(piece, shared, |piece, parts| {
                    let Target::Direct(dest) = piece.target else {
                        return Ok(());
                    };
                    let crc = self.direct(piece, dest, (start, start, len), shared)?;
                    self.finish_part(piece, parts, start, crc)
                })
            }
            Some(&Item::DirectRun {
                piece,
                start,
                len,
                dest: at,
            }) => self.attempt(piece, shared, |piece, _| {
                let Target::Scatter { dest, .. } = piece.target else {
                    return Ok(());
                };
                self.direct(piece, dest, (start, at, len), shared)
                    .map(|_| ())
            }),
            Some(&Item::Block { piece, start, len }) => {
                self.attempt(piece, shared, |piece, parts| {
                    let mut crc = Crc32c::new();
                    let mut done = 0;
                    while done < len {
                        shared.check()?;
                        let chunk = (buffer.capacity() as u64).min(len - done);
                        let bytes = self.read(piece, start + done, chunk, buffer)?;
                        deliver(piece, bytes, start + done)?;
                        if piece.check {
                            crc.update(bytes);
                        }
                        add(&shared.counters.bytes, chunk);
                        done += chunk;
                    }
                    let crc = crc.value();
                    self.finish_part(piece, parts, start, crc)
                })
            }
            Some(&Item::Runs { piece, first, end }) => self.attempt(piece, shared, |piece, _| {
                self.runs(piece, buffer, first..end, shared)
            }),
        }
    }

    /// Runs `work` on a piece, unless its tensor failed before, and files the error if there is one.
    /// Only an error that ends the call is returned.
    fn attempt(
        &self,
        piece: usize,
        shared: Shared<'_>,
        work: impl FnOnce(&Piece<'a>, Option<&Parts>) -> Result<()>,
    ) -> Result<()> {
        let Some(description) = self.plan.pieces.get(piece) else {
            return Ok(());
        };
        let tensor = description.tensor;
        if self.failed.lock().contains_key(&tensor) {
            return Ok(());
        }
        let parts = self.plan.parts.get(piece).and_then(Option::as_ref);
        let Err(error) = work(description, parts) else {
            let left = self.items_left.get(tensor);
            if left.is_some_and(|left| left.fetch_sub(1, Ordering::Relaxed) == 1) {
                add(&shared.counters.tensors, 1);
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
        if self.keep_going { Ok(()) } else { Err(error) }
    }

    /// Reads `len` bytes from `start` of the piece to `at` in `dest`, chunk by chunk. Returns their
    /// checksum if the piece is to be checked.
    fn direct(
        &self,
        piece: &Piece<'_>,
        dest: DestSpan<'_>,
        (start, at, len): (u64, u64, u64),
        shared: Shared<'_>,
    ) -> Result<u32> {
        let mut crc = Crc32c::new();
        let mut done = 0;
        while done < len {
            shared.check()?;
            let chunk = (CHUNK as u64).min(len - done);
            let span = span_at(dest, at + done, chunk)?;
            let mut filled = piece
                .file
                .read_at(piece.extent.offset + start + done, span)?;
            self.count_io(chunk);
            if piece.check {
                filled.update(&mut crc);
            }
            filled.swap_bytes(piece.swap);
            add(&shared.counters.bytes, chunk);
            done += chunk;
        }
        Ok(crc.value())
    }

    fn group(
        &self,
        buffer: &mut ChunkBuffer,
        first: usize,
        end: usize,
        shared: Shared<'_>,
    ) -> Result<()> {
        let pieces = self.plan.pieces.get(first..end).unwrap_or_default();
        let (Some(start), Some(last)) = (pieces.first(), pieces.last()) else {
            return Ok(());
        };
        let offset = start.extent.offset;
        // Pieces may overlap: the last one to begin is not always the last one to end.
        let reach = pieces
            .iter()
            .map(|piece| piece.extent.offset + piece.extent.size)
            .max();
        let reach = reach.unwrap_or(last.extent.offset) - offset;
        let together = pieces.len() > 1 && self.read(start, 0, reach, buffer).is_ok();
        for (index, piece) in (first..end).zip(pieces) {
            let DataExtent {
                offset: at, size, ..
            } = piece.extent;
            if together {
                self.attempt(index, shared, |piece, _| {
                    let from = to_usize(at - offset)?;
                    let bytes = buffer.filled().get(from..from + to_usize(size)?);
                    self.whole(piece, bytes.unwrap_or_default())
                })?;
            } else {
                // Alone, or after a failure that may concern its neighbours only.
                self.attempt(index, shared, |piece, _| {
                    let bytes = self.read(piece, 0, size, buffer)?;
                    self.whole(piece, bytes)
                })?;
            }
            add(&shared.counters.bytes, size);
        }
        Ok(())
    }

    /// Checks and delivers a piece of which all bytes are at hand.
    fn whole(&self, piece: &Piece<'_>, bytes: &[u8]) -> Result<()> {
        if piece.check {
            self.check(piece, checksum::crc32c(bytes))?;
        }
        deliver(piece, bytes, 0)
    }

    fn runs(
        &self,
        piece: &Piece<'_>,
        buffer: &mut ChunkBuffer,
        runs: std::ops::Range<u64>,
        shared: Shared<'_>,
    ) -> Result<()> {
        let Target::Scatter {
            overlap,
            element_size,
            ..
        } = &piece.target
        else {
            return Ok(());
        };
        let (first, last) = (overlap.run(runs.start), overlap.run(runs.end - 1));
        let start = first.source * *element_size as u64;
        let end = (last.source + last.len) * *element_size as u64;
        let bytes = self.read(piece, start, end - start, buffer)?;
        deliver(piece, bytes, start)?;
        add(
            &shared.counters.bytes,
            (runs.end - runs.start) * first.len * *element_size as u64,
        );
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
        let bytes = buffer.fill(to_usize(len)?, |span| piece.file.read_at(offset, span))?;
        self.count_io(len);
        Ok(bytes)
    }

    /// Notes the checksum of a part; whoever notes the last one compares the whole piece's.
    fn finish_part(
        &self,
        piece: &Piece<'_>,
        parts: Option<&Parts>,
        start: u64,
        crc: u32,
    ) -> Result<()> {
        let Some(parts) = parts else { return Ok(()) };
        if let Some(slot) = parts.crcs.get(to_usize(start / parts.len)?) {
            slot.store(crc, Ordering::Relaxed);
        }
        // AcqRel: the checksums of the other threads are visible to the last one.
        if parts.missing.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Ok(());
        }
        let full = Shift::new(parts.len);
        let last_len = piece.extent.size - (parts.crcs.len() as u64 - 1) * parts.len;
        let mut crcs = parts
            .crcs
            .iter()
            .map(|crc| crc.load(Ordering::Relaxed))
            .peekable();
        let mut whole = crcs.next().unwrap_or_default();
        while let Some(crc) = crcs.next() {
            let shift = if crcs.peek().is_some() {
                full
            } else {
                Shift::new(last_len)
            };
            whole = shift.append(whole, crc);
        }
        self.check(piece, whole)
    }

    fn check(&self, piece: &Piece<'_>, crc: u32) -> Result<()> {
        add(&self.bytes_verified, piece.extent.size);
        piece.extent.check(self.bundle, crc)
    }

    fn count_io(&self, bytes: u64) {
        add(&self.bytes_io, bytes);
        add(&self.num_io, 1);
    }
}

/// Hands `bytes`, which begin at `start` in the piece, to their destination.
fn deliver(piece: &Piece<'_>, bytes: &[u8], start: u64) -> Result<()> {
    match &piece.target {
        Target::Discard => Ok(()),
        Target::Direct(dest) => copy(*dest, start, bytes, piece.swap),
        Target::Scatter {
            dest,
            overlap,
            element_size,
        } => {
            let size = *element_size as u64;
            let end = start + bytes.len() as u64;
            for number in overlap.first_run_after(start / size)..overlap.num_runs() {
                let Run {
                    source,
                    dest: at,
                    len,
                } = overlap.run(number);
                let (from, to) = ((source * size).max(start), ((source + len) * size).min(end));
                if from >= to {
                    break;
                }
                let run = bytes.get(to_usize(from - start)?..to_usize(to - start)?);
                copy(
                    *dest,
                    at * size + (from - source * size),
                    run.unwrap_or_default(),
                    piece.swap,
                )?;
            }
            Ok(())
        }
    }
}

fn copy(dest: DestSpan<'_>, at: u64, bytes: &[u8], swap: usize) -> Result<()> {
    dest.copy_from(to_usize(at)?, bytes, swap)
        .ok_or_else(|| Error::internal("a copy leaves its destination"))
}

fn span_at(dest: DestSpan<'_>, at: u64, len: u64) -> Result<DestSpan<'_>> {
    dest.get(to_usize(at)?, to_usize(len)?)
        .ok_or_else(|| Error::internal("a read leaves its destination"))
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn to_usize(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::internal("a size exceeds the address space"))
}
