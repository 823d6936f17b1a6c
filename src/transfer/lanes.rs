//! What a call has of each GPU: a stream for its copies, and a ring of page-locked buffers.
//!
//! A buffer ([slot](PinnedBuffer)) is filled, sent, and goes to the end of the ring; who takes the next one
//! takes the one that was sent first, and waits for its copies if they are still under way. So the ring
//! bounds the memory, and what is enqueued on the stream, and nothing else has to wait for a copy.
//!
//! Page-locking takes longer than filling (0.1 s per GB and more), so slots are made as they are needed, and
//! kept in the context's budget, as streams are in the context.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::budget::{Budget, Kept, POLL_INTERVAL, Reservation, check_limit};
use super::pipeline::Shared;
use super::{Call, Stats};
use crate::device::{DeviceContext, Entered, Event, PinnedBuffer, Stream};
use crate::error::{Code, Error, Result};

/// Most bytes of a slot: a copy of this size runs at the speed of the bus.
const SLOT: u64 = 8 << 20;

/// Least bytes of a slot.
const SMALLEST_SLOT: u64 = 1 << 20;

/// Most slots of a device.
const SLOTS: u64 = 16;

/// Least slots of a device: one is filled while the other is sent.
const FEWEST_SLOTS: u64 = 2;

/// Least bytes of the lanes to so many devices.
pub fn least_bytes(num_devices: usize) -> u64 {
    num_devices as u64 * FEWEST_SLOTS * SMALLEST_SLOT
}

/// Most bytes that a call to or from GPUs may hold for long: the rest is for the work beside.
///
/// # Errors
///
/// INVALID_ARGUMENT for a limit of the call's own below the minimum.
pub fn long_limit(call: &Call<'_>) -> Result<u64> {
    let budget = call.context.budget();
    let own_limit = check_limit(call.max_host_bytes)?.unwrap_or(u64::MAX);
    Ok(budget.long_limit().min(own_limit - budget.room_for_work()))
}

/// The GPUs that a context has had to do with. Their contexts are held until it is dropped.
#[derive(Debug, Default)]
pub struct Devices(Mutex<BTreeMap<i32, Known>>);

#[derive(Debug)]
struct Known {
    context: Arc<DeviceContext>,
    /// Streams that no call uses now.
    streams: Vec<Arc<Stream>>,
}

impl Devices {
    /// The context of a device: that which was given, or else the primary one.
    ///
    /// # Errors
    ///
    /// Those of [`DeviceContext::primary`].
    pub fn context(&self, device: i32) -> Result<Arc<DeviceContext>> {
        let mut known = self.0.lock();
        if let Some(known) = known.get(&device) {
            return Ok(known.context.clone());
        }
        let context = DeviceContext::primary(device)?;
        Self::insert(&mut known, context.clone());
        Ok(context)
    }

    /// Uses `context` for its device from now on.
    pub fn give(&self, context: Arc<DeviceContext>) {
        Self::insert(&mut self.0.lock(), context);
    }

    fn insert(known: &mut BTreeMap<i32, Known>, context: Arc<DeviceContext>) {
        let streams = Vec::new();
        known.insert(context.device(), Known { context, streams });
    }

    fn take_stream(&self, device: i32) -> Option<Arc<Stream>> {
        self.0.lock().get_mut(&device)?.streams.pop()
    }

    fn put_stream(&self, device: i32, stream: Arc<Stream>) {
        if let Some(known) = self.0.lock().get_mut(&device) {
            known.streams.push(stream);
        }
    }

    /// Gives back what no call uses now, but for the contexts.
    pub fn trim(&self) {
        let mut known = self.0.lock();
        let streams: Vec<_> = known
            .values_mut()
            .map(|known| std::mem::take(&mut known.streams))
            .collect();
        drop(known);
        drop(streams);
    }
}

/// The lanes of a call, one for each device that takes part.
pub struct Lanes<'c> {
    lanes: Vec<Lane>,
    devices: &'c Devices,
    budget: &'c Budget,
    reserved: Option<Reservation<'c>>,
}

/// The way to and from one device.
pub struct Lane {
    context: Arc<DeviceContext>,
    stream: Arc<Stream>,
    /// Bytes of a slot.
    slot: usize,
    ring: Mutex<Ring>,
    put_back: Condvar,
    /// Bytes that were copied from or to the device.
    bytes: AtomicU64,
    /// Nanoseconds that threads have waited for slots.
    waited: AtomicU64,
}

#[derive(Default)]
struct Ring {
    /// The one that was sent first comes first.
    slots: VecDeque<PinnedBuffer>,
    /// Slots that may still be made.
    unmade: u64,
    /// Those that there are, in the hands of threads or not.
    made: u64,
    /// Slots that could not be had.
    refused: u64,
}

impl<'c> Lanes<'c> {
    /// Lanes to the devices that are named, with the bytes that each of them moves; none if there are no
    /// devices. `pageable` bytes of the budget are left to other buffers of the call. Copies begin behind
    /// the events that the call was [given](Call::after).
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a budget too small for so many devices; those of the driver; CANCELLED.
    pub fn open(
        call: &mut Call<'c>,
        bytes: &BTreeMap<i32, u64>,
        pageable: u64,
    ) -> Result<Lanes<'c>> {
        let context = call.context;
        let (devices, budget) = (context.devices(), context.budget());
        let mut lanes = Lanes {
            lanes: Vec::new(),
            devices,
            budget,
            reserved: None,
        };
        if bytes.is_empty() {
            return Ok(lanes);
        }
        budget.make_room_for_devices();
        let num = bytes.len() as u64;
        let limit = long_limit(call)?;
        let least = least_bytes(bytes.len());
        if limit < least {
            return Err(Error::invalid_argument(format!(
                "max_host_bytes is below the minimum for {num} devices; minimum={}",
                least + budget.room_for_work()
            )));
        }
        let share = limit.saturating_sub(pageable).max(least) / num;
        let slot = 1 << (share / 4).clamp(SMALLEST_SLOT, SLOT).ilog2();
        let slots: BTreeMap<i32, u64> = bytes
            .iter()
            .map(|(&device, bytes)| {
                // As many more as threads fill while the others are being sent.
                let needed = bytes.div_ceil(slot) + context.num_threads() as u64;
                let most = (share / slot).min(SLOTS);
                (device, needed.clamp(FEWEST_SLOTS, most.max(FEWEST_SLOTS)))
            })
            .collect();
        let mut left = slots.clone();
        let mut is_wanted = |kept: &Kept| match kept {
            Kept::Pinned(kept) if kept.capacity() as u64 == slot => {
                let left = left.get_mut(&kept.device()).filter(|left| **left > 0);
                left.map(|left| *left -= 1).is_some()
            }
            _ => false,
        };
        let wanted = slots.values().sum::<u64>() * slot;
        let progress = &mut call.progress;
        let reserved = budget.reserve_buffers(
            wanted,
            num * FEWEST_SLOTS * slot,
            &mut is_wanted,
            &mut || progress.poll(),
        );
        let (mut reservation, kept) = reserved?;
        // Whole slots, and as many for every device.
        let each = reservation.bytes() / num / slot;
        reservation.shrink_to(slots.values().map(|&num| num.min(each) * slot).sum());
        call.pinned = reservation.bytes();
        call.note_held(0);
        call.stats.peak_pinned_bytes = call.stats.peak_pinned_bytes.max(call.pinned);
        lanes.reserved = Some(reservation);

        let mut rings: BTreeMap<i32, Ring> = BTreeMap::new();
        for (&device, &num) in &slots {
            let unmade = num.min(each);
            let ring = Ring {
                unmade,
                ..Ring::default()
            };
            rings.insert(device, ring);
        }
        let mut spare = Vec::new();
        for kept in kept {
            match kept {
                Kept::Pinned(slot) => match rings.get_mut(&slot.device()) {
                    Some(ring) if ring.unmade > 0 => {
                        ring.unmade -= 1;
                        ring.made += 1;
                        ring.slots.push_back(slot);
                    }
                    _ => spare.push(Kept::Pinned(slot)),
                },
                Kept::Chunk(_) => spare.push(kept),
            }
        }
        budget.give_back(Vec::new(), spare);
        for (device, ring) in rings {
            let context = devices.context(device)?;
            let stream = match devices.take_stream(device) {
                Some(stream) => stream,
                None => Stream::new(&context.enter()?)?,
            };
            let lane = Lane {
                context,
                stream,
                slot: usize::try_from(slot).unwrap_or(usize::MAX),
                ring: Mutex::new(ring),
                put_back: Condvar::new(),
                bytes: AtomicU64::new(0),
                waited: AtomicU64::new(0),
            };
            let entered = lane.enter()?;
            // A stream is of its tensors' device.
            let is_own = |event: &&Event| event.context().device() == device;
            for event in call.after.iter().filter(is_own) {
                lane.stream.wait_for(&entered, event)?;
            }
            drop(entered);
            lanes.lanes.push(lane);
        }
        Ok(lanes)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The lane to a device that takes part.
    ///
    /// # Errors
    ///
    /// INTERNAL if it does not.
    pub fn lane(&self, device: i32) -> Result<&Lane> {
        let found = self.lanes.iter().find(|lane| lane.device() == device);
        found.ok_or_else(|| Error::internal("a device takes part without a lane"))
    }

    /// Bytes of a slot.
    pub fn slot(&self) -> usize {
        self.lanes.first().map_or(0, |lane| lane.slot)
    }

    /// The streams, for those who wait for a tensor.
    pub fn streams(&self) -> Vec<(Arc<DeviceContext>, Arc<Stream>)> {
        let lanes = self.lanes.iter();
        lanes
            .map(|lane| (lane.context.clone(), lane.stream.clone()))
            .collect()
    }

    /// An event behind all copies of each device.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn mark(&self) -> Result<Vec<Event>> {
        let lanes = self.lanes.iter();
        lanes
            .map(|lane| {
                let entered = lane.enter()?;
                let event = Event::new(&entered)?;
                lane.stream.record(&entered, &event)?;
                Ok(event)
            })
            .collect()
    }

    /// Waits until all copies have run; afterwards nothing of the caller's is touched, whatever is
    /// returned: the devices that reported an error, each with it.
    pub fn finish(&self) -> BTreeMap<i32, Error> {
        let mut failed = BTreeMap::new();
        for lane in &self.lanes {
            // A second try, as the caller will take its memory for its own.
            let ended = lane.enter().or_else(|_| lane.enter());
            let ended = ended.and_then(|entered| lane.stream.synchronize(&entered));
            if let Err(error) = ended {
                failed.insert(lane.device(), error);
            }
        }
        failed
    }

    /// Adds what was done to the figures of the call.
    pub fn note(&self, stats: &mut Stats) {
        let mut slots = 0;
        for lane in &self.lanes {
            let ring = lane.ring.lock();
            slots += ring.made;
            stats.num_retries += ring.refused;
            stats.bytes_device += lane.bytes.load(Ordering::Relaxed);
            stats.device_wait_ns += lane.waited.load(Ordering::Relaxed);
        }
        stats.num_slots = stats.num_slots.max(slots);
    }
}

impl Drop for Lanes<'_> {
    fn drop(&mut self) {
        let mut kept = Vec::new();
        for lane in self.lanes.drain(..) {
            let slots = lane.ring.into_inner().slots;
            kept.extend(slots.into_iter().map(Kept::Pinned));
            self.devices.put_stream(lane.context.device(), lane.stream);
        }
        self.budget
            .give_back(self.reserved.take().into_iter().collect(), kept);
    }
}

impl Lane {
    /// The device's ordinal.
    pub fn device(&self) -> i32 {
        self.context.device()
    }

    /// Makes the device's context current on this thread.
    ///
    /// # Errors
    ///
    /// Those of [`DeviceContext::enter`].
    pub fn enter(&self) -> Result<Entered<'_>> {
        self.context.enter()
    }

    /// The stream of the call's copies.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Bytes of a slot.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// The next slot, whose copies have run, to be [put](Self::put) back.
    ///
    /// # Errors
    ///
    /// Those of the driver; those of [`Shared::check`] while other threads have all slots.
    pub fn take(&self, entered: &Entered<'_>, shared: Shared<'_>) -> Result<PinnedBuffer> {
        let started = Instant::now();
        let mut slot = self.next(entered, shared)?;
        let waited = slot.bytes(entered).map(|_| ());
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(nanos, Ordering::Relaxed);
        match waited {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.put(slot);
                Err(error)
            }
        }
    }

    /// Notes that so many bytes were copied.
    pub fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn next(&self, entered: &Entered<'_>, shared: Shared<'_>) -> Result<PinnedBuffer> {
        let mut ring = self.ring.lock();
        loop {
            let is_idle = match ring.slots.front_mut() {
                Some(first) => first.is_idle(entered)?,
                None => false,
            };
            if !is_idle && ring.unmade > 0 {
                ring.unmade -= 1;
                ring.made += 1;
                drop(ring);
                match PinnedBuffer::new(entered, self.slot) {
                    Ok(slot) => return Ok(slot),
                    Err(error) => {
                        ring = self.ring.lock();
                        self.give_up(&mut ring, error)?;
                        continue;
                    }
                }
            }
            if let Some(slot) = ring.slots.pop_front() {
                return Ok(slot);
            }
            self.put_back.wait_for(&mut ring, POLL_INTERVAL);
            parking_lot::MutexGuard::unlocked(&mut ring, || shared.check())?;
        }
    }

    /// Makes do with the slots that there are, if there is one at least.
    fn give_up(&self, ring: &mut Ring, error: Error) -> Result<()> {
        ring.made -= 1;
        ring.refused += 1;
        if error.code() != Code::ResourceExhausted || ring.made == 0 {
            return Err(error);
        }
        ring.unmade = 0;
        Ok(())
    }

    /// Puts a slot back, whose bytes may be on their way.
    pub fn put(&self, slot: PinnedBuffer) {
        self.ring.lock().slots.push_back(slot);
        self.put_back.notify_one();
    }
}
