//! The memory that the calls on one context may hold together, and why they never wait for each other in a
//! circle.
//!
//! Memory is [for](For) copies, for rings or for work, and is taken in that order: whoever holds some of it
//! waits only for what comes later. Between copies and rings, and only there, a save may wait for its
//! turn. Each kind leaves what those after it need at least: copies leave a ring to each device that
//! has been [announced](Budget::announce), rings leave buffers to work with. So among the calls that wait, the one that is
//! furthest waits for calls that work only; these end, and give back what they hold.
//!
//! A save is announced before the next one may be made. So a save that waits for its turn with its copies
//! has left the rings of those before it, whose turns come first.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::device::PinnedBuffer;
use crate::error::{Error, Result};
use crate::memory::ChunkBuffer;

/// Default limit of a context in bytes.
pub const DEFAULT: u64 = 64 << 20;

/// As [`DEFAULT`], once GPUs take part: what keeps one of them busy is half of this.
pub const DEFAULT_WITH_DEVICES: u64 = 256 << 20;

/// Smallest limit in bytes: two buffers of a MiB.
pub const MINIMUM: u64 = 2 << 20;

/// How often a call that waits for others asks whether it is still wanted.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes that are left to work with, whatever is held for other things.
pub const WORK: u64 = 1 << 20;

/// Bytes of the least ring of a device: one buffer is filled while the other is sent.
pub const LEAST_RING: u64 = 2 << 20;

/// What memory is for: what is held for one waits only for what comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Copies of tensors, held until they have been written, and so while their save waits for its turn.
    Copies,
    /// The page-locked buffers of devices, held while copies from or to them are under way.
    Rings,
    /// The buffers of threads, held while they work.
    Work,
}

/// Bytes that may be held, and bytes that are.
#[derive(Debug)]
pub struct Budget {
    /// Larger for who has not set it, once GPUs take part.
    limit: AtomicU64,
    is_default: bool,
    held: Mutex<Held>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// Bytes of the reservations.
    bytes: u64,
    /// Devices that take part.
    devices: BTreeSet<i32>,
    /// Buffers that nobody uses now, kept because fresh ones cost more than a copy into them; within the
    /// limit together with the reservations, before which they go.
    kept: Vec<Kept>,
}

/// A buffer that outlives its call.
#[derive(Debug)]
pub enum Kept {
    /// For the copy that a save in the background makes.
    Chunk(ChunkBuffer),
    /// For copies from and to a GPU.
    Pinned(PinnedBuffer),
}

impl Kept {
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Chunk(buffer) => buffer.capacity(),
            Self::Pinned(buffer) => buffer.capacity(),
        };
        bytes as u64
    }
}

impl Held {
    fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(Kept::bytes).sum()
    }

    /// Takes out what is beyond `limit`.
    fn excess(&mut self, limit: u64) -> Vec<Kept> {
        let mut excess = Vec::new();
        let mut kept = self.kept_bytes();
        while self.bytes + kept > limit {
            let Some(buffer) = self.kept.pop() else {
                break;
            };
            kept -= buffer.bytes();
            excess.push(buffer);
        }
        excess
    }
}

impl Budget {
    /// A budget of `limit` bytes; 0 stands for [`DEFAULT`].
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT naming the minimum for a smaller limit.
    pub fn new(limit: u64) -> Result<Self> {
        let limit = check_limit(limit)?;
        Ok(Self {
            limit: AtomicU64::new(limit.unwrap_or(DEFAULT)),
            is_default: limit.is_none(),
            held: Mutex::default(),
            released: Condvar::new(),
        })
    }

    /// Most bytes that may be held when some are taken for this.
    pub fn limit_for(&self, what: For) -> u64 {
        self.limit_of(what, &self.held.lock())
    }

    fn limit_of(&self, what: For, held: &Held) -> u64 {
        let rings = held.devices.len() as u64 * LEAST_RING;
        let left = match what {
            For::Copies => WORK + rings,
            For::Rings => WORK,
            For::Work => 0,
        };
        self.limit().saturating_sub(left)
    }

    /// These devices take part from now on. Who has not set a limit gets the larger one.
    pub fn announce(&self, devices: impl Iterator<Item = i32>) {
        let mut held = self.held.lock();
        held.devices.extend(devices);
        if self.is_default && !held.devices.is_empty() {
            self.limit.store(DEFAULT_WITH_DEVICES, Ordering::Relaxed);
        }
    }

    fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Takes up to `wanted` bytes for `what`, what is free if that is less, but at least `least`: waits for
    /// other calls to give back if need be, and calls `poll` meanwhile. `least` is capped by the limit.
    ///
    /// # Errors
    ///
    /// Those of `poll`, which ends the waiting; nothing is taken then.
    pub fn reserve(
        &self,
        what: For,
        wanted: u64,
        least: u64,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Reservation<'_>> {
        let reserved = self.reserve_buffers(what, wanted, least, &mut |_, _| false, poll);
        reserved.map(|(reservation, _)| reservation)
    }

    /// As [`reserve`](Self::reserve). Along come buffers that were [kept](Self::give_back) and that
    /// `is_wanted`, which is told how many bytes there are in all, no more than there is room for.
    ///
    /// # Errors
    ///
    /// As `reserve`.
    pub fn reserve_buffers(
        &self,
        what: For,
        wanted: u64,
        least: u64,
        is_wanted: &mut dyn FnMut(u64, &Kept) -> bool,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<(Reservation<'_>, Vec<Kept>)> {
        let mut held = self.held.lock();
        let (free, least) = loop {
            let limit = self.limit_of(what, &held);
            let (free, least) = (limit.saturating_sub(held.bytes), least.min(limit));
            if free >= least {
                break (free, least);
            }
            self.released.wait_for(&mut held, POLL_INTERVAL);
            // The callback behind it may take its time, and other calls give back meanwhile.
            parking_lot::MutexGuard::unlocked(&mut held, &mut *poll)?;
        };
        let bytes = wanted.clamp(least, free);
        held.bytes += bytes;
        let mut room = bytes;
        let wanted = held.kept.extract_if(.., |kept| {
            let fits = kept.bytes() <= room && is_wanted(bytes, kept);
            room -= if fits { kept.bytes() } else { 0 };
            fits
        });
        let buffers = wanted.collect();
        let excess = held.excess(self.limit());
        drop(held);
        drop(excess);
        let reservation = Reservation {
            budget: self,
            bytes,
        };
        Ok((reservation, buffers))
    }

    /// Keeps what fits of the buffers of reservations, which are given back.
    pub fn give_back(&self, mut reserved: Vec<Reservation<'_>>, buffers: Vec<Kept>) {
        let mut held = self.held.lock();
        for reservation in &mut reserved {
            held.bytes -= std::mem::take(&mut reservation.bytes);
        }
        held.kept.extend(buffers);
        let excess = held.excess(self.limit());
        drop(held);
        self.released.notify_all();
        drop(excess);
    }

    /// Frees the buffers that are kept.
    pub fn trim(&self) {
        let kept = std::mem::take(&mut self.held.lock().kept);
        drop(kept);
    }
}

/// A limit that a caller gave, `None` for 0.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the minimum.
pub fn check_limit(max_host_bytes: u64) -> Result<Option<u64>> {
    match max_host_bytes {
        0 => Ok(None),
        limit if limit < MINIMUM => Err(Error::invalid_argument(format!(
            "max_host_bytes is below the minimum; max_host_bytes={limit} minimum={MINIMUM}"
        ))),
        limit => Ok(Some(limit)),
    }
}

/// Bytes of a budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Reservation<'_> {
    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let excess = self.bytes.saturating_sub(bytes);
        self.bytes -= excess;
        self.budget.held.lock().bytes -= excess;
        self.budget.released.notify_all();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.held.lock().bytes -= self.bytes;
        self.budget.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_shared_and_given_back() {
        let budget = Budget::new(4 << 20).unwrap();
        let reserve = |wanted, least| {
            budget
                .reserve(For::Work, wanted, least, &mut || Ok(()))
                .unwrap()
        };
        let first = reserve(3 << 20, 1 << 20);
        let second = reserve(3 << 20, 1 << 20);
        assert_eq!((first.bytes(), second.bytes()), (3 << 20, 1 << 20));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| reserve(2 << 20, 2 << 20).bytes());
            drop(first);
            assert_eq!(waiting.join().unwrap(), 2 << 20);
        });
        drop(second);
        assert_eq!(reserve(u64::MAX, 1).bytes(), 4 << 20);
    }

    #[test]
    fn waiting_for_other_calls_can_be_cancelled() {
        let budget = Budget::new(4 << 20).unwrap();
        let all = budget
            .reserve(For::Work, 4 << 20, 1, &mut || Ok(()))
            .unwrap();
        let mut polls = 0;
        let waited = budget.reserve(For::Work, 1, 1, &mut || {
            polls += 1;
            if polls < 3 {
                Ok(())
            } else {
                Err(Error::cancelled("enough"))
            }
        });
        assert_eq!(waited.unwrap_err().message(), "enough");
        drop(all);
        assert_eq!(budget.held.lock().bytes, 0);
    }

    #[test]
    fn what_is_held_for_one_thing_leaves_what_the_next_ones_need() {
        let budget = Budget::new(10 << 20).unwrap();
        let all = |what| budget.reserve(what, u64::MAX, 1 << 20, &mut || Ok(()));
        let bytes = |what| all(what).unwrap().bytes() >> 20;
        assert_eq!(bytes(For::Copies), 9);
        budget.announce([0, 3, 0].into_iter());
        let copies = all(For::Copies).unwrap();
        assert_eq!(copies.bytes() >> 20, 5);
        let rings = all(For::Rings).unwrap();
        assert_eq!(rings.bytes(), 2 * LEAST_RING);
        assert_eq!(bytes(For::Work), 1);
        // What is given back is anybody's who comes later in the order.
        drop(rings);
        assert_eq!(bytes(For::Work), 5);
        drop(copies);
        assert_eq!(bytes(For::Work), 10);
    }

    #[test]
    fn where_devices_need_all_nothing_is_left_for_copies_and_nobody_waits_for_it() {
        let budget = Budget::new(3 << 20).unwrap();
        budget.announce(std::iter::once(0));
        assert_eq!(budget.limit_for(For::Copies), 0);
        let none = budget.reserve(For::Copies, 1 << 20, 1 << 20, &mut || Ok(()));
        assert_eq!(none.unwrap().bytes(), 0);
        let ring = budget.reserve(For::Rings, u64::MAX, LEAST_RING, &mut || Ok(()));
        assert_eq!(ring.unwrap().bytes(), LEAST_RING);
    }

    #[test]
    fn buffers_are_kept_within_the_limit_until_others_need_the_memory() {
        let budget = Budget::new(4 << 20).unwrap();
        let size = 1 << 20;
        let buffers = |num: u64| -> Vec<Kept> {
            let buffers = (0..num).map(|_| ChunkBuffer::new(size).unwrap());
            buffers.map(Kept::Chunk).collect()
        };
        let kept = || budget.held.lock().kept_bytes() >> 20;
        let long = |num: u64| {
            let wanted = num << 20;
            budget.reserve_buffers(
                For::Copies,
                wanted,
                wanted,
                &mut |_, _| true,
                &mut || Ok(()),
            )
        };
        let (reservation, _) = long(3).unwrap();
        budget.give_back(vec![reservation], buffers(6));
        assert_eq!(kept(), 4);
        // Two of them are used again; the others go only as far as they must.
        let (reservation, again) = long(2).unwrap();
        assert_eq!((again.len(), kept()), (2, 2));
        let working = budget
            .reserve(For::Work, 1 << 20, 1, &mut || Ok(()))
            .unwrap();
        assert_eq!(kept(), 1);
        drop(working);
        budget.give_back(vec![reservation], again);
        assert_eq!(kept(), 3);
        budget.trim();
        assert_eq!(kept(), 0);
        assert_eq!(budget.held.lock().bytes, 0);
    }

    #[test]
    fn a_limit_below_the_minimum_is_refused_by_name() {
        let error = Budget::new(MINIMUM - 1).unwrap_err();
        assert!(error.message().contains("minimum=2097152"), "{error}");
        let budget = Budget::new(0).unwrap();
        assert_eq!(budget.limit(), DEFAULT);
        budget.announce(std::iter::empty());
        assert_eq!(budget.limit(), DEFAULT);
        budget.announce(std::iter::once(0));
        assert_eq!(budget.limit(), DEFAULT_WITH_DEVICES);
        let budget = Budget::new(MINIMUM).unwrap();
        budget.announce(std::iter::once(0));
        assert_eq!(budget.limit(), MINIMUM);
    }
}
