//! What outlives a call: the number of threads, the memory budget that calls share, what was learned of the
//! mounts, and the GPUs.

use std::time::Instant;

use super::budget::{self, Budget, For, Reservation};
use super::lanes::Devices;
use super::mounts::Mounts;
use super::{Monitor, Progress, Stats};
use crate::device::Event;
use crate::error::Result;

/// How a [`Context`] is made. Zero stands for the default throughout.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContextOptions {
    /// Most bytes that the library holds for all calls on the context together, beside the caller's
    /// memory; 0 = 64 MiB, at least 2 MiB.
    pub max_host_bytes: u64,
    /// Threads that move bytes, the calling one included; 0 = one per core that the process may use,
    /// at most 16.
    pub num_threads: u32,
}

/// Most threads chosen by default: beyond it neither memory nor storage got faster on the machines
/// known.
const MAX_DEFAULT_THREADS: usize = 16;

/// Least threads by default while they wait for a disk rather than for memory.
const STORAGE_THREADS: usize = 4;

/// Resources that calls share. Any number of calls may use one at the same time.
#[derive(Debug)]
pub struct Context {
    budget: Budget,
    num_threads: usize,
    num_storage_threads: usize,
    mounts: Mounts,
    devices: Devices,
}

impl Context {
    /// Makes a context.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a budget below the minimum.
    pub fn new(options: ContextOptions) -> Result<Self> {
        let (num_threads, num_storage_threads) = match usize::try_from(options.num_threads) {
            Ok(0) | Err(_) => {
                let cores = std::thread::available_parallelism()
                    .map_or(1, std::num::NonZero::get)
                    .min(MAX_DEFAULT_THREADS);
                (cores, cores.max(STORAGE_THREADS))
            }
            Ok(num) => (num, num),
        };
        Ok(Self {
            budget: Budget::new(options.max_host_bytes)?,
            num_threads,
            num_storage_threads,
            mounts: Mounts::default(),
            devices: Devices::default(),
        })
    }

    /// Threads that move bytes, the calling one included.
    pub fn num_threads(&self) -> usize {
        self.num_threads
    }

    /// Threads that move bytes when most of their time goes by in waiting for a disk.
    pub(super) fn num_storage_threads(&self) -> usize {
        self.num_storage_threads
    }

    /// What was learned of the mounts that files were on.
    pub(super) fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// The GPUs that calls have had to do with.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The memory that calls may hold.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Frees the memory that was kept for the next copy of a save, and for copies from and to GPUs. It
    /// counts against the budget, and goes by itself when another call needs it.
    pub fn trim(&self) {
        self.budget.trim();
        self.devices.trim();
    }

    /// Takes what a call needs: buffers of up to `buffer` bytes for `num_threads` threads, within the
    /// budget and what the call may hold by its own `limit`. `poll` is called while it waits for other
    /// calls.
    ///
    /// # Errors
    ///
    /// Those of `poll`.
    pub(super) fn admit(
        &self,
        num_threads: usize,
        buffer: usize,
        limit: u64,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Admission<'_>> {
        let wanted = (num_threads as u64).saturating_mul(buffer as u64);
        let least = SMALLEST_BUFFER;
        let reservation = self
            .budget
            .reserve(For::Work, wanted.min(limit), least, poll)?;
        // Fewer threads rather than buffers too small to be worth a system call.
        let most = usize::try_from(reservation.bytes() / SMALLEST_BUFFER).unwrap_or(usize::MAX);
        let num_threads = num_threads.min(most).max(1);
        let share = usize::try_from(reservation.bytes()).unwrap_or(usize::MAX) / num_threads;
        // Whole pages, so that blocks of a buffer's size end on element boundaries.
        let buffer = share.min(buffer) & !4095;
        Ok(Admission {
            reservation,
            num_threads,
            buffer,
        })
    }
}

/// Smallest buffer of a thread in bytes.
const SMALLEST_BUFFER: u64 = 64 << 10;

/// What [`Context::admit`] granted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    reservation: Reservation<'a>,
    /// Threads to use.
    pub num_threads: usize,
    /// Bytes of each thread's buffer.
    pub buffer: usize,
}

impl Admission<'_> {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.reservation.bytes()
    }
}

/// What a save copies before it writes, within the budget, so that its caller may go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopiesFirst {
    /// Nothing: the caller leaves the tensors alone until they have been written.
    #[default]
    Nothing,
    /// The host's tensors: those of GPUs are copies already, complete when the events are reached that the
    /// call comes [after](Call::after).
    Host,
    /// All tensors.
    All,
}

/// What every call brings along, and what it leaves behind.
pub struct Call<'a> {
    /// Threads and budget.
    pub context: &'a Context,
    /// The call's own limit in bytes, 0 for the context's.
    pub max_host_bytes: u64,
    /// Told how far the call is; may cancel it.
    pub progress: Progress<'a>,
    /// What the call did.
    pub stats: Stats,
    /// What a save copies before it writes.
    pub(crate) copies_first: CopiesFirst,
    /// Bytes of copies of tensors that the call holds.
    pub(super) copies: u64,
    /// Bytes of page-locked buffers that the call holds.
    pub(super) pinned: u64,
    /// What the first copy from or to a GPU waits for: what the caller's streams were about to do when
    /// the call was made.
    pub after: Vec<Event>,
    /// Whether a restore may end while copies to GPUs are under way.
    pub leaves_copies: bool,
    /// What ends those copies.
    pub copied: Vec<Event>,
}

impl<'a> Call<'a> {
    /// A call on `context`, without a limit of its own and without progress.
    pub fn new(context: &'a Context) -> Self {
        Self {
            context,
            max_host_bytes: 0,
            progress: Progress::new(None),
            stats: Stats::default(),
            copies_first: CopiesFirst::Nothing,
            copies: 0,
            pinned: 0,
            after: Vec::new(),
            leaves_copies: false,
            copied: Vec::new(),
        }
    }

    /// What other threads may look at.
    pub(crate) fn monitor(&self) -> &Monitor {
        self.progress.monitor()
    }

    /// Buffers of up to `buffer` bytes for `num_threads` threads; see [`Context::admit`].
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a limit of the call's own below the minimum; CANCELLED.
    pub(crate) fn admit(&mut self, num_threads: usize, buffer: usize) -> Result<Admission<'a>> {
        let limit = budget::check_limit(self.max_host_bytes)?;
        let limit = limit.map_or(u64::MAX, |limit| {
            limit.saturating_sub(self.copies + self.pinned)
        });
        let progress = &mut self.progress;
        let admission = self
            .context
            .admit(num_threads, buffer, limit, &mut || progress.poll())?;
        self.note_held(admission.bytes());
        Ok(admission)
    }

    /// Notes that the call holds so many bytes, beside copies and page-locked buffers.
    pub(super) fn note_held(&mut self, bytes: u64) {
        let peak = &mut self.stats.peak_host_bytes;
        *peak = (*peak).max(self.copies + self.pinned + bytes);
    }

    /// Notes how long the call took.
    pub(crate) fn finish(&mut self, started: Instant) {
        self.stats.elapsed_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }
}
