//! Restoring: from data files into memory.
//!
//! A tensor is made of [`Piece`]s, ranges of data files. [`plan`] sorts them by file and offset and cuts
//! the work into items:
//!
//! * *direct*: part of a large piece, read straight into the destination and summed chunk by chunk;
//! * *block*: part of a piece that is needed in parts, or only to be verified, read into a buffer;
//! * *group*: neighbouring small pieces, read together into a buffer and copied from there;
//! * *runs*: only the bytes that a slice needs, neighbouring ones together, unverified.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::pipeline::{self, Shared};
use super::{CHUNK, Call, ITEM};
use crate::bundle::DataExtent;
use crate::checksum::{self, Crc32c, Shift};
use crate::error::{Code, Error, Result};
use crate::io::read::ReadFile;
use crate::memory::{ChunkBuffer, DestSpan};
use crate::slices::{Overlap, Run};

/// Pieces smaller than this are read together with their neighbours: below it the system call costs
/// more than the additional copy.
const SMALL: u64 = 64 << 10;

/// Bytes between two pieces that are read and thrown away rather than read around.
const GAP: u64 = 4 << 10;

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
    let total: u64 = pieces.iter().map(|piece| piece.extent.size).sum();
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

/// Pieces in file order, and the items they are read by.
struct ReadPlan<'a> {
    pieces: Vec<Piece<'a>>,
    /// For each piece of several items, the checksums of its parts.
    parts: Vec<Option<Parts>>,
    items: Vec<Item>,
}

/// The checksums of the parts of a piece, combined when the last one is known.
struct Parts {
    /// Bytes of each part but the last.
    len: u64,
    missing: AtomicUsize,
    crcs: Vec<AtomicU32>,
}

enum Item {
    /// `len` bytes from `start` of a piece, straight to their destination.
    Direct { piece: usize, start: u64, len: u64 },
    /// As `Direct`, into a slice's memory at `dest`; never checked.
    DirectRun {
        piece: usize,
        start: u64,
        len: u64,
        dest: u64,
    },
    /// `len` bytes from `start` of a piece, through a buffer.
    Block { piece: usize, start: u64, len: u64 },
    /// The pieces of this range, whole, through a buffer.
    Group { first: usize, end: usize },
    /// The runs of this range of a piece, through a buffer; never checked.
    Runs { piece: usize, first: u64, end: u64 },
}

fn plan(mut pieces: Vec<Piece<'_>>, buffer: usize) -> ReadPlan<'_> {
    let buffer = buffer as u64;
    pieces.sort_by_key(|piece| (piece.extent.shard_id, piece.extent.offset));
    let mut items = Vec::new();
    let mut parts: Vec<Option<Parts>> = Vec::with_capacity(pieces.len());
    let mut group: Option<(usize, &Piece<'_>)> = None;
    for (index, piece) in pieces.iter().enumerate() {
        let mut piece_parts = None;
        let size = piece.extent.size;
        let scattered = match &piece.target {
            Target::Scatter {
                overlap,
                element_size,
                ..
            } if !piece.check => Some((overlap, *element_size)),
            _ => None,
        };
        let small = scattered.is_none() && size < SMALL.min(buffer + 1);
        if let Some((first, start)) = group {
            let joins = small
                && piece.extent.shard_id == start.extent.shard_id
                && pieces.get(index.wrapping_sub(1)).is_some_and(|last| {
                    piece.extent.offset <= last.extent.offset + last.extent.size + GAP
                })
                && piece.extent.offset + size - start.extent.offset <= buffer;
            if joins {
                parts.push(None);
                continue;
            }
            items.push(Item::Group { first, end: index });
            group = None;
        }
        if small {
            group = Some((index, piece));
        } else if let Some((overlap, element_size)) = scattered {
            plan_runs(&mut items, index, overlap, element_size as u64, buffer);
        } else {
            let direct = matches!(piece.target, Target::Direct(_));
            // Through a buffer, an item is what fits into it.
            let len = if direct { ITEM as u64 } else { buffer };
            let starts = || (0..size.div_ceil(len)).map(|part| part * len);
            if piece.check {
                let crcs: Vec<AtomicU32> = starts().map(|_| AtomicU32::new(0)).collect();
                piece_parts = Some(Parts {
                    len,
                    missing: AtomicUsize::new(crcs.len()),
                    crcs,
                });
            }
            items.extend(starts().map(|start| {
                let len = len.min(size - start);
                if direct {
                    Item::Direct {
                        piece: index,
                        start,
                        len,
                    }
                } else {
                    Item::Block {
                        piece: index,
                        start,
                        len,
                    }
                }
            }));
        }
        parts.push(piece_parts);
    }
    if let Some((first, _)) = group {
        items.push(Item::Group {
            first,
            end: pieces.len(),
        });
    }
    ReadPlan {
        pieces,
        parts,
        items,
    }
}

/// How many items each tensor takes part in; a group counts once for each of its pieces.
fn items_per_tensor(plan: &ReadPlan<'_>, num_tensors: usize) -> Vec<AtomicU32> {
    let mut counts: Vec<AtomicU32> = std::iter::repeat_with(AtomicU32::default)
        .take(num_tensors)
        .collect();
    let mut count = |piece: usize| {
        let tensor = plan.pieces.get(piece).map(|piece| piece.tensor);
        if let Some(count) = tensor.and_then(|tensor| counts.get_mut(tensor)) {
            *count.get_mut() += 1;
        }
    };
    for item in &plan.items {
        match *item {
            Item::Group { first, end } => (first..end).for_each(&mut count),
            Item::Direct { piece, .. }
            | Item::DirectRun { piece, .. }
            | Item::Block { piece, .. }
            | Item::Runs { piece, .. } => count(piece),
        }
    }
    counts
}

/// Items for the runs of one piece: long runs go straight to the destination, short neighbours share a
/// read.
fn plan_runs(
    items: &mut Vec<Item>,
    piece: usize,
    overlap: &Overlap,
    element_size: u64,
    buffer: u64,
) {
    let mut number = 0;
    while number < overlap.num_runs() {
        let first = overlap.run(number);
        let bytes = first.len * element_size;
        if bytes >= SMALL.min(buffer) {
            let (start, dest) = (first.source * element_size, first.dest * element_size);
            items.extend((0..bytes.div_ceil(ITEM as u64)).map(|part| {
                let done = part * ITEM as u64;
                let len = (ITEM as u64).min(bytes - done);
                Item::DirectRun {
                    piece,
                    start: start + done,
                    len,
                    dest: dest + done,
                }
            }));
            number += 1;
            continue;
        }
        let mut end = number + 1;
        let mut last = first;
        while end < overlap.num_runs() {
            let next = overlap.run(end);
            let fits = (next.source + next.len - first.source) * element_size <= buffer;
            if !fits || (next.source - last.source - last.len) * element_size > GAP {
                break;
            }
            last = next;
            end += 1;
        }
        items.push(Item::Runs {
            piece,
            first: number,
            end,
        });
        number = end;
    }
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
                    let bytes = self.read(piece, start, len, buffer)?;
                    deliver(piece, bytes, start)?;
                    add(&shared.counters.bytes, len);
                    let crc = if piece.check {
                        checksum::crc32c(bytes)
                    } else {
                        0
                    };
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
        if shared.stop.is_set() && error.code() == Code::Aborted {
            // Not this tensor's fault, and not to be reported in place of what it was.
            return Ok(());
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
            if shared.stop.is_set() {
                return Err(Error::aborted("not restored: the call ended early"));
            }
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
