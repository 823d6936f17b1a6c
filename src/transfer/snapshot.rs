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
//! Only the copies are held while the save waits for its turn, and while it writes them: the lanes to GPUs
//! are there for the copying, and go when it pauses. That is the order in which memory is taken
//! ([`budget`](super::budget)), so that no save waits for one that waits for it.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::budget::{Budget, For, Kept, Reservation, WORK, check_limit};
use super::download::Download;
use super::fill::{Chunk, fill};
use super::mounts::DurableWrite;
use super::pipeline::{self, Shared};
use super::rings::{Rings, least_bytes};
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

/// Most bytes of copies of tensors, some of them in the memory of so many GPUs: what the budget has beside
/// what is needed to bring them from there and to write them.
///
/// # Errors
///
/// INVALID_ARGUMENT for a limit of the call's own below the minimum.
pub(super) fn limit(call: &Call<'_>, num_devices: usize) -> Result<u64> {
    let limit = call.context.budget().limit_for(For::Copies);
    let own_limit = check_limit(call.max_host_bytes)?.unwrap_or(u64::MAX);
    Ok(limit.min(match num_devices {
        0 => own_limit,
        num => own_limit.saturating_sub(WORK + least_bytes(num)),
    }))
}

/// Writes all tensors; see [`write::execute`](super::write::execute). `None`, and nothing done, if there is
/// no room for copies.
pub(super) fn execute(
    call: &mut Call<'_>,
    tensors: &[WriteTensor<'_>],
    layout: &Layout,
    open: &mut OpenFiles<'_>,
    options: &WriteOptions,
) -> Result<Option<Written>> {
    let total: u64 = layout.shard_sizes.iter().sum();
    let devices = write::devices(tensors);
    let limit = limit(call, devices.len())?;
    if limit < 2 * CHUNK as u64 {
        return Ok(None);
    }
    let size = match total >= HUGE as u64 && limit >= MANY * HUGE as u64 {
        true => HUGE,
        false => CHUNK,
    };
    let threads = match devices.is_empty() {
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
    };
    let needed = plan.items.iter().map(|item| copy.num_chunks(item));
    let needed = needed.sum::<usize>().saturating_add(threads);
    // What does not fit has to wait for the disk anyway: then the rings get what they can use, up to a half.
    let num_threads = call.context.num_storage_threads();
    let rings = Rings::new(&devices, num_threads, limit, limit / 2).wanted();
    let fits = needed as u64 <= limit / size as u64;
    let wanted = match devices.is_empty() || fits {
        true => needed,
        false => usize::try_from(limit.saturating_sub(rings) / size as u64).unwrap_or(needed),
    };

    let mut slots = Slots::new(call.context.budget(), size, limit);
    slots.add(wanted.max(1), 1, &mut || call.progress.poll())?;
    if slots.num() == 0 {
        return Ok(None);
    }
    call.copies = slots.bytes();
    call.note_held(0);
    let threads = threads.min(slots.num());
    // Every thread has a buffer in hand.
    let fitting = copy.num_fitting(slots.num() - threads);
    copy.run(call, 0..fitting, threads, &slots, None)?;
    let is_copied = fitting == plan.items.len();
    if is_copied {
        call.monitor().reach(Stage::Copied);
    }

    let files = open(call)?;
    let durable = begin_durable(call, &files, options, total);
    let past_cache = durable.as_ref().is_some_and(DurableWrite::past_cache);
    let run = WriteRun::new(&plan, layout, &files, options.will_sync && !past_cache);
    if !is_copied {
        // What others have given back meanwhile.
        let more = wanted.saturating_sub(slots.num());
        slots.add(more, 0, &mut || Ok(()))?;
        call.copies = slots.bytes();
        call.note_held(0);
        copy.run(call, fitting..plan.items.len(), threads, &slots, Some(&run))?;
        call.monitor().reach(Stage::Copied);
    }
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
    let written = Written::new(files, &plan, tensors.len(), options, durable);
    Ok(Some(written))
}

/// Copies the items of a plan.
struct Copy<'c, 'a> {
    plan: &'c WritePlan,
    tensors: &'c [WriteTensor<'a>],
    layout: &'c Layout,
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
        if items.is_empty() {
            return Ok(());
        }
        let first = items.start;
        slots.set_aside(threads)?;
        let lanes = write::open_lanes(call, self.tensors, 0)?;
        let copied = pipeline::run(
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
                let mut download = Download::new(&lanes, self.plan, self.tensors, parts, shared);
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
        );
        write::finish_lanes(call, lanes, copied)
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
        let mut is_wanted =
            |_, kept: &Kept| matches!(kept, Kept::Chunk(kept) if kept.capacity() == self.size);
        let reserved = self
            .budget
            .reserve_buffers(For::Copies, bytes, least, &mut is_wanted, poll);
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
