//! Saving tensors that are copied first: as much of them as the budget holds, before anything is written.
//!
//! 1. *Copy.* The items that fit are copied into buffers, on all threads, and the filled buffers are put
//!    in line. Checksums are computed later, from the copies, so that this takes hardly longer than a
//!    memcpy of the tensors.
//! 2. *The rest*, if there is any: the files are opened, for which the save may have to wait for its turn,
//!    and a chunk is written whenever there is no empty buffer left. Then all is copied, and the caller
//!    goes on.
//! 3. *Write* what is in line.
//!
//! What is held while the save waits for its turn leaves other calls what they need
//! ([`Budget`](super::budget::Budget)), and nothing is waited for in vain: a save that cannot get more
//! memory makes do with what it has.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::budget::{Budget, Kept, Reservation, check_limit};
use super::download::Download;
use super::fill::{Chunk, fill};
use super::lanes::{self, Lanes};
use super::mounts::DurableWrite;
use super::pipeline::{self, Shared};
use super::write::{
    Layout, OpenFiles, Source, WriteOptions, WriteRun, WriteTensor, Written, begin_durable,
};
use super::write_plan::{Cut, Item, WritePlan, plan};
use super::{CHUNK, Call, Stage, write};
use crate::error::{Error, Result};
use crate::memory::ChunkBuffer;

/// Bytes of a buffer: a huge page.
const HUGE: usize = 2 << 20;

/// Buffers that a save should have for huge ones to be worth it.
const MANY: u64 = 4;

/// Whether there is memory for copies of the tensors beside what GPUs need at least.
///
/// # Errors
///
/// INVALID_ARGUMENT for a limit of the call's own below the minimum.
pub(super) fn has_room(call: &Call<'_>, tensors: &[WriteTensor<'_>]) -> Result<bool> {
    let num_devices = write::num_devices(tensors);
    let least = lanes::least_bytes(num_devices) + 2 * CHUNK as u64;
    Ok(num_devices == 0 || lanes::long_limit(call)? >= least)
}

/// Writes all tensors; see [`write::execute`](super::write::execute).
pub(super) fn execute(
    call: &mut Call<'_>,
    tensors: &[WriteTensor<'_>],
    layout: &Layout,
    open: &mut OpenFiles<'_>,
    options: &WriteOptions,
) -> Result<Written> {
    let total: u64 = layout.shard_sizes.iter().sum();
    let budget = call.context.budget();
    let most = match write::num_devices(tensors) {
        0 => budget
            .long_limit()
            .min(check_limit(call.max_host_bytes)?.unwrap_or(u64::MAX)),
        num => lanes::long_limit(call)?.saturating_sub(lanes::least_bytes(num)),
    };
    let size = match total >= HUGE as u64 && most >= MANY * HUGE as u64 {
        true => HUGE,
        false => CHUNK,
    };
    let lanes = write::open_lanes(call, tensors, 2 * size)?;
    let threads = match lanes.is_empty() {
        true => call.context.num_threads(),
        false => call.context.num_storage_threads(),
    };
    let threads = threads.min(usize::try_from(total >> 20).unwrap_or(usize::MAX).max(1));
    let cut = Cut {
        chunk: size as u64,
        item: total / (4 * threads as u64),
        check: options.check,
    };
    let plan = plan(tensors, layout, &cut);
    let copy = Copy {
        plan: &plan,
        tensors,
        layout,
        lanes: &lanes,
    };
    let needed = plan.items.iter().map(|item| copy.num_chunks(item));
    let needed = needed.sum::<usize>().saturating_add(threads);

    let own_limit = check_limit(call.max_host_bytes)?.unwrap_or(u64::MAX);
    let mut slots = Slots::new(budget, size, own_limit.saturating_sub(call.pinned));
    slots.add(needed, 1, &mut || call.progress.poll())?;
    let threads = threads.min(slots.num());
    // Every thread has a buffer in hand.
    let fitting = copy.num_fitting(slots.num() - threads);
    let copied = copy.run(call, 0..fitting, threads, &slots, None);
    let is_copied = fitting == plan.items.len();
    if is_copied || copied.is_err() {
        write::finish_lanes(call, &lanes, copied)?;
        call.monitor().reach(Stage::Copied);
    }

    let files = open(call)?;
    let durable = begin_durable(call, &files, options, total);
    let past_cache = durable.as_ref().is_some_and(DurableWrite::past_cache);
    let run = WriteRun::new(&plan, layout, &files, options.will_sync && !past_cache);
    if !is_copied {
        // What others have given back meanwhile.
        let more = needed.saturating_sub(slots.num());
        slots.add(more, 0, &mut || Ok(()))?;
        let copied = copy.run(call, fitting..plan.items.len(), threads, &slots, Some(&run));
        write::finish_lanes(call, &lanes, copied)?;
        call.monitor().reach(Stage::Copied);
    }
    call.note_held(slots.bytes());
    let threads = match past_cache {
        true => call.context.num_storage_threads(),
        false => call.context.num_threads(),
    };
    pipeline::run(
        threads,
        slots.num_filled(),
        &mut call.progress,
        || Ok(()),
        |(), _, shared| slots.drain_one(&run, shared).map(|_| ()),
    )?;
    run.finish(call, threads);
    Ok(Written::new(files, &plan, tensors.len(), options, durable))
}

/// Copies the items of a plan.
struct Copy<'c, 'a> {
    plan: &'c WritePlan,
    tensors: &'c [WriteTensor<'a>],
    layout: &'c Layout,
    lanes: &'c Lanes<'c>,
}

impl Copy<'_, '_> {
    /// Buffers that filling an item takes at most.
    fn num_chunks(&self, item: &Item) -> usize {
        let parts = self.plan.parts.get(item.parts.clone()).unwrap_or_default();
        let Some(last) = parts.last() else {
            return 0;
        };
        let chunk = self.plan.chunk;
        let tensor = self.tensors.get(last.tensor as usize);
        let num = match tensor.map(|tensor| &tensor.source) {
            // They begin anywhere, and a buffer may be left with room for most of a length.
            Some(Source::Strings(_)) => last.len / (chunk - 16) + 2,
            _ => {
                let end = self.layout.place(last.tensor as usize).0 + last.start + last.len;
                end.div_ceil(chunk).saturating_sub(item.offset / chunk)
            }
        };
        usize::try_from(num).unwrap_or(usize::MAX)
    }

    /// How many of the items, from the first, fit so many buffers.
    fn num_fitting(&self, buffers: usize) -> usize {
        let mut left = buffers;
        let fits = |item: &&Item| {
            let fits = left.checked_sub(self.num_chunks(item));
            left = fits.unwrap_or(0);
            fits.is_some()
        };
        self.plan.items.iter().take_while(fits).count()
    }

    /// Copies these items; without `run`, which writes when there are no empty buffers, they must fit.
    fn run(
        &self,
        call: &mut Call<'_>,
        items: std::ops::Range<usize>,
        threads: usize,
        slots: &Slots<'_>,
        run: Option<&WriteRun<'_>>,
    ) -> Result<()> {
        let first = items.start;
        slots.set_aside(threads)?;
        pipeline::run(
            threads,
            items.len(),
            &mut call.progress,
            || InHand::new(slots),
            |hand, item, shared| {
                let (Some(item), Some(buffer)) =
                    (self.plan.items.get(first + item), hand.buffer.as_mut())
                else {
                    return Ok(());
                };
                let mut emit = |buffer: &mut ChunkBuffer, chunk| {
                    shared.check()?;
                    slots.put_in_line(buffer, chunk, run, shared)
                };
                let parts = item.parts.clone();
                let mut download =
                    Download::new(self.lanes, self.plan, self.tensors, parts, shared);
                fill(
                    self.plan,
                    item,
                    self.tensors,
                    self.layout,
                    &mut download,
                    buffer,
                    &mut emit,
                )
            },
        )
    }
}

/// The buffers of a save.
struct Slots<'b> {
    budget: &'b Budget,
    /// Bytes of a buffer.
    size: usize,
    /// Most bytes of all.
    limit: u64,
    reserved: Vec<Reservation<'b>>,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    empty: Vec<ChunkBuffer>,
    /// Empty ones too, of which every thread takes one in hand when it begins.
    aside: Vec<ChunkBuffer>,
    /// Buffers that may still be made.
    unmade: usize,
    /// In the order in which they were filled. A chunk without bytes needs no buffer.
    filled: VecDeque<(Chunk, Option<ChunkBuffer>)>,
}

impl<'b> Slots<'b> {
    fn new(budget: &'b Budget, size: usize, limit: u64) -> Self {
        Self {
            budget,
            size,
            limit,
            reserved: Vec::new(),
            line: Mutex::default(),
        }
    }

    fn bytes(&self) -> u64 {
        self.reserved.iter().map(Reservation::bytes).sum()
    }

    fn num(&self) -> usize {
        usize::try_from(self.bytes() / self.size as u64).unwrap_or(usize::MAX)
    }

    /// Takes `wanted` more buffers, or as many as there are, but at least `least`.
    fn add(
        &mut self,
        wanted: usize,
        least: usize,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let size = self.size as u64;
        let room = self.limit.saturating_sub(self.bytes());
        let bytes = size.saturating_mul(wanted as u64).min(room - room % size);
        let least = size.saturating_mul(least as u64).min(bytes);
        let is_wanted =
            |kept: &Kept| matches!(kept, Kept::Chunk(kept) if kept.capacity() == self.size);
        let reserved = self
            .budget
            .reserve_buffers(bytes, least, &mut { is_wanted }, poll);
        let (mut reservation, kept) = reserved?;
        // Whole buffers.
        reservation.shrink_to(reservation.bytes() - reservation.bytes() % size);
        let num = usize::try_from(reservation.bytes() / size).unwrap_or(usize::MAX);
        let line = self.line.get_mut();
        line.unmade += num.saturating_sub(kept.len());
        line.empty
            .extend(kept.into_iter().filter_map(|kept| match kept {
                Kept::Chunk(buffer) => Some(buffer),
                Kept::Pinned(_) => None,
            }));
        self.reserved.push(reservation);
        Ok(())
    }

    fn num_filled(&self) -> usize {
        self.line.lock().filled.len()
    }

    /// An empty buffer, if there is one.
    fn take_empty(&self) -> Result<Option<ChunkBuffer>> {
        let mut line = self.line.lock();
        if let Some(buffer) = line.empty.pop() {
            return Ok(Some(buffer));
        }
        if line.unmade == 0 {
            return Ok(None);
        }
        line.unmade -= 1;
        drop(line);
        match self.size {
            HUGE => ChunkBuffer::huge(HUGE),
            size => ChunkBuffer::new(size),
        }
        .map(Some)
    }

    /// Sees to it that so many threads, no more than there are buffers, find one when they begin.
    fn set_aside(&self, threads: usize) -> Result<()> {
        while self.line.lock().aside.len() < threads {
            let buffer = self.take_empty()?;
            let buffer = buffer.ok_or_else(|| Error::internal("more threads than buffers"))?;
            self.line.lock().aside.push(buffer);
        }
        Ok(())
    }

    fn put_empty(&self, mut buffer: ChunkBuffer) {
        buffer.clear();
        self.line.lock().empty.push(buffer);
    }

    /// Puts a filled buffer in line and an empty one in its place. Without one, `run` writes the chunk that
    /// is first in line.
    fn put_in_line(
        &self,
        buffer: &mut ChunkBuffer,
        chunk: Chunk,
        run: Option<&WriteRun<'_>>,
        shared: Shared<'_>,
    ) -> Result<()> {
        if buffer.filled().is_empty() {
            self.line.lock().filled.push_back((chunk, None));
            return Ok(());
        }
        let empty = loop {
            if let Some(empty) = self.take_empty()? {
                break empty;
            }
            let run = run.ok_or_else(|| Error::internal("a copy outgrew its buffers"))?;
            if !self.drain_one(run, shared)? {
                // All buffers are in the hands of threads.
                run.drain(buffer.filled(), &chunk, shared)?;
                buffer.clear();
                return Ok(());
            }
        };
        let filled = std::mem::replace(buffer, empty);
        self.line.lock().filled.push_back((chunk, Some(filled)));
        Ok(())
    }

    /// Writes the chunk that is first in line; `false` if there is none.
    fn drain_one(&self, run: &WriteRun<'_>, shared: Shared<'_>) -> Result<bool> {
        let first = self.line.lock().filled.pop_front();
        let Some((chunk, buffer)) = first else {
            return Ok(false);
        };
        let bytes = buffer.as_ref().map_or(&[][..], ChunkBuffer::filled);
        let drained = run.drain(bytes, &chunk, shared);
        if let Some(buffer) = buffer {
            self.put_empty(buffer);
        }
        drained.map(|()| true)
    }
}

impl Drop for Slots<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(self.line.get_mut());
        let filled = line.filled.into_iter().filter_map(|(_, buffer)| buffer);
        let mut buffers = line.empty;
        buffers.extend(line.aside);
        buffers.extend(filled);
        // Small ones are as good fresh.
        buffers.retain(|buffer| buffer.capacity() == HUGE);
        for buffer in &mut buffers {
            buffer.clear();
        }
        let buffers = buffers.into_iter().map(Kept::Chunk).collect();
        self.budget
            .give_back(std::mem::take(&mut self.reserved), buffers);
    }
}

/// The buffer that a thread fills.
struct InHand<'s, 'b> {
    slots: &'s Slots<'b>,
    buffer: Option<ChunkBuffer>,
}

impl<'s, 'b> InHand<'s, 'b> {
    fn new(slots: &'s Slots<'b>) -> Result<Self> {
        let buffer = slots.line.lock().aside.pop();
        let buffer = buffer.ok_or_else(|| Error::internal("more threads than buffers"))?;
        Ok(Self {
            slots,
            buffer: Some(buffer),
        })
    }
}

impl Drop for InHand<'_, '_> {
    fn drop(&mut self) {
        if let Some(mut buffer) = self.buffer.take() {
            buffer.clear();
            self.slots.line.lock().aside.push(buffer);
        }
    }
}
