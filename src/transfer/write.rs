//! Saving: from memory into data files.
//!
//! Every tensor's place is fixed first: tensors follow each other in the order of the call, in the
//! shard they are assigned to. Each shard is then cut into chunks, whatever tensors they hold
//! ([`write_plan`](super::write_plan)). A chunk is copied into a buffer ([`fill`](super::fill)) that stays
//! in the cache; checksum and write use that copy, so that a tensor which the caller changes meanwhile is
//! torn but never contradicts its checksum.
//!
//! A save may copy tensors of the host ([`host_copies`](super::host_copies)) or all of them
//! ([`snapshot`]) before that, so that the caller goes on while it waits for its turn and writes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::context::CopiesFirst;
use super::download::Download;
use super::fill::{Chunk, fill};
use super::host_copies::HostCopies;
use super::lanes::Lanes;
use super::mounts::DurableWrite;
use super::pipeline::{self, Shared};
use super::write_plan::{Cut, WritePlan, plan};
pub use super::write_plan::{Layout, RangeSums, Source, WriteTensor};
use super::{CHUNK, Call, Stage, rings, snapshot};
use crate::checksum;
use crate::error::{Error, Result};
use crate::io::write::TempFile;
use crate::memory::ChunkBuffer;

/// Bytes of a save from which on it goes past the page cache if it is to be durable.
const DIRECT_TOTAL: u64 = 4 << 20;

/// Bytes of a write past the page cache, which is not worth its way to the disk when it is small.
const DIRECT_CHUNK: usize = 1 << 20;

/// How often a save that waits for copies within GPUs looks after them.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// How tensors are written.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Whether the files will be synced.
    pub will_sync: bool,
    /// Bytes of the ranges of each tensor whose checksums are wanted too; 0 = none.
    pub check: u64,
}

/// What is known once tensors are written.
#[derive(Debug)]
pub struct Written {
    /// The data files.
    pub files: Vec<TempFile>,
    /// Checksum of each tensor, unmasked.
    pub crcs: Vec<u32>,
    /// Of the tensors that have more than one range; those of strings have none.
    pub ranges: Vec<RangeSums>,
    /// To be [ended](DurableWrite::end) when the files are on disk.
    pub durable: Option<DurableWrite>,
}

/// Makes the data files, one per shard: called once, before the first byte is written.
pub type OpenFiles<'o> = dyn FnMut(&mut Call<'_>) -> Result<Vec<TempFile>> + 'o;

/// Announces the GPUs that tensors are in, so that the saves which are made from now on leave this one the
/// memory that it needs for them.
///
/// # Errors
///
/// INVALID_ARGUMENT for a limit below the minimum.
pub fn announce(call: &Call<'_>, tensors: &[WriteTensor<'_>]) -> Result<()> {
    rings::announce(call, &devices(tensors)).map(|_| ())
}

/// Writes all tensors to their places in the files that `open` makes. Some are copied before that, as the
/// call [says](Call::copies_first) and as far as the budget goes; one that is used up by the buffers of GPUs
/// has no room for copies.
///
/// # Errors
///
/// The first error: of `open`; of a write, naming its file; CANCELLED; a limit below the minimum.
pub fn execute(
    call: &mut Call<'_>,
    tensors: &[WriteTensor<'_>],
    layout: &Layout,
    open: &mut OpenFiles<'_>,
    options: &WriteOptions,
) -> Result<Written> {
    if call.copies_first == CopiesFirst::Host
        && let Some(copies) = HostCopies::new(call, tensors)?
    {
        let elements = copies.elements(tensors);
        let copied = copies.tensors(tensors, &elements);
        call.monitor().reach(Stage::HostCopied);
        wait_for_events(call)?;
        call.monitor().reach(Stage::Copied);
        return execute_now(call, &copied, layout, open, options);
    }
    if call.copies_first != CopiesFirst::Nothing
        && let Some(written) = snapshot::execute(call, tensors, layout, open, options)?
    {
        return Ok(written);
    }
    execute_now(call, tensors, layout, open, options)
}

/// Waits until the call's copies may begin.
fn wait_for_events(call: &mut Call<'_>) -> Result<()> {
    for event in &call.after {
        while !event.is_reached(&event.context().enter()?)? {
            call.progress.poll()?;
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
    Ok(())
}

/// Writes tensors from where they are.
fn execute_now(
    call: &mut Call<'_>,
    tensors: &[WriteTensor<'_>],
    layout: &Layout,
    open: &mut OpenFiles<'_>,
    options: &WriteOptions,
) -> Result<Written> {
    let total: u64 = layout.shard_sizes.iter().sum();
    let files = open(call)?;
    let durable = begin_durable(call, &files, options, total);
    let past_cache = durable.as_ref().is_some_and(DurableWrite::past_cache);
    let (threads, chunk) = match past_cache {
        true => (call.context.num_storage_threads(), DIRECT_CHUNK),
        false => (call.context.num_threads(), CHUNK),
    };
    let lanes = open_lanes(call, tensors, threads * chunk)?;
    // While one thread waits for a GPU, others sum and write.
    let threads = match lanes.is_empty() {
        true => threads,
        false => threads.max(call.context.num_storage_threads()),
    };
    let threads = threads.min(usize::try_from(total >> 20).unwrap_or(usize::MAX).max(1));
    let admission = call.admit(threads, chunk)?;
    let cut = Cut {
        chunk: chunk_of(admission.buffer),
        item: total / (4 * admission.num_threads as u64),
        check: options.check,
    };
    let plan = plan(tensors, layout, &cut);
    let run = WriteRun::new(&plan, layout, &files, options.will_sync && !past_cache);
    let ended = pipeline::run(
        admission.num_threads,
        plan.items.len(),
        &mut call.progress,
        || ChunkBuffer::new(admission.buffer),
        |buffer, item, shared| {
            let Some(item) = plan.items.get(item) else {
                return Ok(());
            };
            let parts = item.parts.clone();
            let mut download = Download::new(&lanes, &plan, tensors, parts, shared);
            fill(
                &plan,
                item,
                tensors,
                layout,
                &mut download,
                buffer,
                &mut |buffer, chunk| {
                    run.drain(buffer.filled(), &chunk, shared)?;
                    buffer.clear();
                    Ok(())
                },
            )
        },
    );
    finish_lanes(call, lanes, ended)?;
    run.finish(call, admission.num_threads);
    Ok(Written::new(files, &plan, tensors.len(), options, durable))
}

/// Lanes to the GPUs that tensors are in; `pageable` bytes of the budget are left to other buffers.
pub(super) fn open_lanes<'c>(
    call: &mut Call<'c>,
    tensors: &[WriteTensor<'_>],
    pageable: usize,
) -> Result<Lanes<'c>> {
    Lanes::open(call, &devices(tensors), pageable as u64)
}

/// The GPUs that tensors are in, with the bytes of each.
pub(super) fn devices(tensors: &[WriteTensor<'_>]) -> BTreeMap<i32, u64> {
    let mut devices: BTreeMap<i32, u64> = BTreeMap::new();
    for tensor in tensors {
        if let Source::Device(span) = &tensor.source {
            *devices.entry(span.device()).or_default() += span.len() as u64;
        }
    }
    devices
}

/// Waits until no copy from a GPU is under way, however the copying has `ended`, and gives the lanes back.
pub(super) fn finish_lanes(call: &mut Call<'_>, lanes: Lanes<'_>, ended: Result<()>) -> Result<()> {
    if lanes.is_empty() {
        return ended;
    }
    let mut ended = ended;
    let lost = lanes.finish(&mut call.progress, &mut ended);
    lanes.note(&mut call.stats);
    drop(lanes);
    call.pinned = 0;
    ended.and(lost.into_values().next().map_or(Ok(()), Err))
}

impl Written {
    /// What is known of a plan all of whose chunks have been drained.
    pub(super) fn new(
        files: Vec<TempFile>,
        plan: &WritePlan,
        num_tensors: usize,
        options: &WriteOptions,
        durable: Option<DurableWrite>,
    ) -> Self {
        let ranges = match options.check {
            0 => Vec::new(),
            check => plan.range_sums(check),
        };
        Self {
            files,
            crcs: plan.combine(num_tensors),
            ranges,
            durable,
        }
    }
}

/// Begins to write a save that will be synced, if it is large: past the page cache or through it, whichever
/// is known to be faster on the mount.
pub(super) fn begin_durable(
    call: &Call<'_>,
    files: &[TempFile],
    options: &WriteOptions,
    total: u64,
) -> Option<DurableWrite> {
    if !options.will_sync || total < DIRECT_TOTAL {
        return None;
    }
    let mount = call.context.mounts().of(files.first()?.device()?);
    let mut past_cache = mount.writes_direct();
    for file in files {
        past_cache = past_cache && file.bypass_cache();
    }
    Some(DurableWrite::begin(mount, past_cache, total))
}

/// The chunks that fit a buffer: the largest power of two.
fn chunk_of(buffer: usize) -> u64 {
    1 << buffer.max(1).ilog2()
}

/// One execution of a plan.
pub(super) struct WriteRun<'p> {
    plan: &'p WritePlan,
    layout: &'p Layout,
    files: &'p [TempFile],
    write_back: bool,
    bytes_io: AtomicU64,
    num_io: AtomicU64,
}

impl<'p> WriteRun<'p> {
    /// With `write_back`, the system is asked to begin writing to disk what has been written.
    pub fn new(
        plan: &'p WritePlan,
        layout: &'p Layout,
        files: &'p [TempFile],
        write_back: bool,
    ) -> Self {
        Self {
            plan,
            layout,
            files,
            write_back,
            bytes_io: AtomicU64::new(0),
            num_io: AtomicU64::new(0),
        }
    }

    /// Notes what was done.
    pub fn finish(self, call: &mut Call<'_>, num_threads: usize) {
        let stats = &mut call.stats;
        stats.num_threads = u32::try_from(num_threads).unwrap_or(u32::MAX);
        stats.bytes_io += self.bytes_io.into_inner();
        stats.num_io += self.num_io.into_inner();
        let files = self.files.iter();
        stats.bytes_direct += files.map(TempFile::bytes_past_cache).sum::<u64>();
    }

    /// Sums the parts of a chunk, whose bytes these are, and writes it.
    pub fn drain(&self, bytes: &[u8], chunk: &Chunk, shared: Shared<'_>) -> Result<()> {
        shared.check()?;
        let counters = shared.counters;
        add(&counters.tensors, chunk.tensors);
        let parts = self.plan.parts.get(chunk.parts.clone());
        let parts = parts.unwrap_or_default();
        for part in parts {
            let (place, _) = self.layout.place(part.tensor as usize);
            let from = usize::try_from(place + part.start - chunk.offset).unwrap_or(usize::MAX);
            let to = from.saturating_add(usize::try_from(part.len).unwrap_or(usize::MAX));
            let bytes = bytes.get(from..to);
            let bytes = bytes.ok_or_else(|| Error::internal("a part lies outside its chunk"))?;
            part.crc.store(checksum::crc32c(bytes), Ordering::Relaxed);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let file = usize::try_from(chunk.shard_id)
            .ok()
            .and_then(|shard| self.files.get(shard));
        let file = file.ok_or_else(|| Error::internal("a shard has no file"))?;
        file.write_at(chunk.offset, bytes)
            .map_err(|error| match parts.first() {
                Some(first) => error.with_tensor_index(first.tensor as usize),
                None => error,
            })?;
        if self.write_back {
            // The disk works while the next chunks are copied, and the sync at the end finds most of it
            // done: a durable save of 1 GiB took 0.42 s instead of 0.67 s (ext4, virtio, 2 cores).
            file.start_writeback(chunk.offset, bytes.len() as u64);
        }
        add(&counters.bytes, chunk.moved);
        add(&self.bytes_io, bytes.len() as u64);
        add(&self.num_io, 1);
        Ok(())
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
