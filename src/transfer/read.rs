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
//!
//! What goes to a GPU takes its [own way](super::upload), and several GPUs are [served](super::turns) side
//! by side.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::cold::{self, ColdReads};
use super::lanes::Lanes;
pub use super::piece::{ChunkCrcs, Dest, Piece, Scatter, Target};
use super::pipeline::{self, Shared};
pub use super::read_plan::How;
use super::read_plan::{Item, ReadPlan, items_per_tensor, plan};
use super::turns::Turns;
use super::{CHUNK, Call, ITEM, Monitor};
use crate::checksum::Crc32c;
use crate::error::{Code, Error, Result};
use crate::memory::ChunkBuffer;

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
    mut pieces: Vec<Piece<'_>>,
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
    let pageable = threads * (chunk + margin);
    let (lanes, needs_buffers) = open_lanes(call, &pieces, pageable, cold.is_some())?;
    let mut failed = BTreeMap::new();
    if how.strict && !lanes.is_empty() {
        let checked = check_first(call, &pieces, lanes.slot() as u64, num_tensors, how)?;
        if checked.ended.is_some() {
            return Ok(Outcome {
                complete: vec![false; num_tensors],
                ..checked
            });
        }
        failed = checked.failed;
        pieces.retain(|piece| !failed.contains_key(&(piece.tensor as usize)));
    }
    let admission = match needs_buffers {
        true => Some(call.admit(threads, chunk + margin)?),
        false => None,
    };
    let buffer = admission.as_ref().map_or(0, |admission| admission.buffer);
    let threads = admission.as_ref().map_or(threads, |it| it.num_threads);
    let room = buffer.saturating_sub(margin);
    let mut plan = plan(pieces, room, lanes.slot(), cold.is_some());
    let turns = if how.in_request_order {
        plan.put_in_request_order();
        Turns::default()
    } else if lanes.is_empty() {
        Turns::default()
    } else {
        plan.put_side_by_side()
    };
    let run = ReadRun {
        plan: &plan,
        items_left: items_per_tensor(&plan, num_tensors),
        how,
        room,
        lanes: &lanes,
        cold,
        any_failed: AtomicBool::new(!failed.is_empty()),
        failed: Mutex::new(failed),
        bytes_io: AtomicU64::new(0),
        bytes_verified: AtomicU64::new(0),
        bytes_verified_by_chunks: AtomicU64::new(0),
        bytes_unverified: AtomicU64::new(0),
        num_io: AtomicU64::new(0),
    };
    let mut ended = pipeline::run(
        threads,
        plan.items.len(),
        &mut call.progress,
        || ChunkBuffer::new(buffer),
        |buffer, number, shared| {
            let turn = turns.take(number);
            run.item(buffer, turn.item, shared)
        },
    );
    if !lanes.is_empty() {
        let lost = finish_lanes(call, &lanes, &mut ended);
        lanes.note(&mut call.stats);
        ended = ended.and(run.lose(&lost, call.monitor()));
        // Last: who finds no streams is to know by then which tensors were lost.
        call.monitor().set_streams(Vec::new());
    }
    call.stats.num_threads = u32::try_from(threads).unwrap_or(u32::MAX);
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
        ended: ended.err(),
    })
}

/// Lanes to the GPUs that pieces go to, and whether other buffers are needed too: for the host's memory, and
/// for all that is cold. Then `pageable` bytes of the budget are left to them.
fn open_lanes<'c>(
    call: &mut Call<'c>,
    pieces: &[Piece<'_>],
    pageable: usize,
    is_cold: bool,
) -> Result<(Lanes<'c>, bool)> {
    let mut devices: BTreeMap<i32, u64> = BTreeMap::new();
    let mut needs_buffers = is_cold || pieces.is_empty();
    for piece in pieces {
        match piece.device() {
            Some(device) => *devices.entry(device).or_default() += piece.read(),
            None => needs_buffers = true,
        }
    }
    let pageable = if needs_buffers { pageable as u64 } else { 0 };
    let lanes = Lanes::open(call, &devices, pageable)?;
    if !lanes.is_empty() {
        call.monitor().set_streams(lanes.streams());
    }
    Ok((lanes, needs_buffers))
}

/// Checks those tensors of GPUs beforehand that are not checked in one slot before they are sent.
fn check_first(
    call: &mut Call<'_>,
    pieces: &[Piece<'_>],
    slot: u64,
    num_tensors: usize,
    how: How<'_>,
) -> Result<Outcome> {
    let mut num_pieces = vec![0u32; num_tensors];
    for piece in pieces {
        if let Some(num) = num_pieces.get_mut(piece.tensor as usize) {
            *num += 1;
        }
    }
    // What one item checks before it sends anything.
    let checked_by_itself = |piece: &Piece<'_>| {
        let chunks = piece.unchecked_runs().and_then(|it| it.chunks.as_ref());
        match chunks {
            Some(_) => Some(slot.min(ITEM as u64)),
            None => piece.check.then_some(slot),
        }
    };
    let needs_it = |piece: &&Piece<'_>| {
        let in_parts = num_pieces.get(piece.tensor as usize) != Some(&1);
        let most = checked_by_itself(piece);
        piece.device().is_some() && most.is_some_and(|most| in_parts || piece.read() > most)
    };
    let beforehand: Vec<_> = pieces
        .iter()
        .filter(needs_it)
        .map(Piece::only_verified)
        .collect();
    if beforehand.is_empty() {
        return Ok(Outcome::default());
    }
    let how = How {
        strict: false,
        only_checks: true,
        ..how
    };
    let before = call.monitor().counters().bytes.load(Ordering::Relaxed);
    let checked = execute(call, beforehand, num_tensors, how);
    // The progress is that of the copies.
    let counter = &call.monitor().counters().bytes;
    counter.store(before, Ordering::Relaxed);
    checked
}

/// Waits for the copies, unless they may go on. Returns the devices that were lost.
fn finish_lanes(
    call: &mut Call<'_>,
    lanes: &Lanes<'_>,
    ended: &mut Result<()>,
) -> BTreeMap<i32, Error> {
    call.pinned = 0;
    if call.leaves_copies
        && ended.is_ok()
        && let Ok(events) = lanes.mark()
    {
        call.copied.extend(events);
        return BTreeMap::new();
    }
    lanes.finish(&mut call.progress, ended)
}

/// One execution of a plan.
pub(super) struct ReadRun<'p, 'a> {
    pub(super) plan: &'p ReadPlan<'a>,
    /// Items that each tensor still waits for.
    items_left: Vec<AtomicU32>,
    pub(super) how: How<'p>,
    /// Bytes that are read through a buffer at once.
    pub(super) room: usize,
    lanes: &'p Lanes<'p>,
    /// How to read, if most is not in the page cache.
    pub(super) cold: Option<ColdReads<'p>>,
    failed: Mutex<BTreeMap<usize, Error>>,
    /// Whether `failed` has anything: threads that read small tensors do not wait for each other's look.
    any_failed: AtomicBool,
    bytes_io: AtomicU64,
    /// Of pieces checked as a whole.
    bytes_verified: AtomicU64,
    pub(super) bytes_verified_by_chunks: AtomicU64,
    pub(super) bytes_unverified: AtomicU64,
    num_io: AtomicU64,
}

impl<'a> ReadRun<'_, 'a> {
    fn item(&self, buffer: &mut ChunkBuffer, item: usize, shared: Shared<'_>) -> Result<()> {
        let Some(&item) = self.plan.items.get(item) else {
            return Ok(());
        };
        if let Some(device) = self.plan.device(&item) {
            return self.upload(self.lanes.lane(device)?, item, buffer, shared);
        }
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
                let Some(Dest::Host(dest)) = scatter.dest else {
                    return Ok(());
                };
                let (run, size) = (scatter.overlap.run(run), scatter.element_size);
                let len = (ITEM as u64).min(run.len * size - start);
                let (from, to) = (run.source * size + start, run.dest * size + start);
                self.direct(piece, dest, (from, to, len), None, shared)
                    .map(|_| ())
            }),
            Item::Chunks { piece, first, end } => self.attempt(piece, shared, |piece| {
                self.chunks(piece, buffer, first..end, shared)
            }),
        }
    }

    /// Runs `work` on a piece, unless its tensor failed before, and files the error if there is one.
    /// Only an error that ends the call is returned.
    pub(super) fn attempt(
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
            let is_last = left.is_some_and(|left| left.fetch_sub(1, Ordering::AcqRel) == 1);
            if is_last && !self.how.only_checks {
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
        let told = self.how.told(tensor, error.clone());
        shared.monitor.failed(self.how.index(tensor), &told);
        match self.how.keep_going {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// Files the errors of devices whose copies cannot be relied on.
    ///
    /// # Errors
    ///
    /// The first, if it is to end the call.
    fn lose(&self, lost: &BTreeMap<i32, Error>, monitor: &Monitor) -> Result<()> {
        if lost.is_empty() {
            return Ok(());
        }
        let mut failed = self.failed.lock();
        let mut first = None;
        for piece in &self.plan.pieces {
            let Some(error) = piece.device().and_then(|device| lost.get(&device)) else {
                continue;
            };
            let tensor = piece.tensor as usize;
            let error = error.clone().with_tensor_index(tensor);
            let told = self.how.told(tensor, error.clone());
            monitor.failed(self.how.index(tensor), &told);
            first.get_or_insert(error.clone());
            failed.entry(tensor).or_insert(error);
        }
        match first {
            Some(error) if !self.how.keep_going => Err(error),
            _ => Ok(()),
        }
    }

    /// Notes the checksum of the part from `start`; whoever notes the last one compares the whole
    /// piece's, which is `number` in the plan.
    pub(super) fn finish_part(
        &self,
        number: u32,
        piece: &Piece<'_>,
        start: u64,
        crc: u32,
    ) -> Result<()> {
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

    pub(super) fn check(&self, piece: &Piece<'_>, crc: u32) -> Result<()> {
        add(&self.bytes_verified, piece.extent.size);
        piece.extent.check(self.how.bundle, crc)
    }

    pub(super) fn count_io(&self, bytes: u64) {
        add(&self.bytes_io, bytes);
        add(&self.num_io, 1);
    }
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
