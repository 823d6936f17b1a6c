//! What a call has of each GPU that takes part: a [`Lane`], with a share of the budget.
//!
//! Page-locking takes longer than filling (0.1 s per GB and more), so slots are made as they are needed, and
//! kept in the context's budget, as streams are in the context. Neither makes a call wait for the copies that
//! an earlier one has left behind, as long as there is memory beside them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::budget::{Budget, For, Kept, Reservation};
use super::lane::Lane;
use super::rings::{self, Rings};
use super::{Call, Progress, Stats};
use crate::device::{DeviceContext, Entered, Event, PinnedBuffer, Stream};
use crate::error::{Error, Result};

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

    /// A stream that no call uses, nor the copies that one has left behind: what comes on it would wait for
    /// them, and for whatever they wait for.
    fn take_stream(&self, entered: &Entered<'_>) -> Option<Arc<Stream>> {
        let mut known = self.0.lock();
        let device = entered.context().device();
        let streams = &mut known.get_mut(&device)?.streams;
        let is_idle = |stream: &Arc<Stream>| stream.is_idle(entered).unwrap_or(false);
        let idle = streams.iter().position(is_idle)?;
        Some(streams.swap_remove(idle))
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
        let limit = rings::announce(call, bytes)?;
        let num_threads = context.num_storage_threads();
        let sizes = Rings::new(bytes, num_threads, limit, call.copies + pageable);
        let mut left = None;
        // What another call has left behind is used if there is no room for fresh slots beside it.
        let mut beside = budget.limit_for(For::Rings);
        beside = beside.saturating_sub(sizes.wanted() + pageable);
        let mut is_wanted = |granted: u64, kept: &Kept| match kept {
            Kept::Pinned(kept) if kept.capacity() as u64 == sizes.slot(granted) => {
                let left = left.get_or_insert_with(|| sizes.slots(granted));
                let Some(left) = left.get_mut(&kept.device()).filter(|left| **left > 0) else {
                    return false;
                };
                if beside >= kept.capacity() as u64 && kept.is_busy() {
                    beside -= kept.capacity() as u64;
                    return false;
                }
                *left -= 1;
                true
            }
            _ => false,
        };
        let (wanted, least) = (sizes.wanted(), rings::least_bytes(bytes.len()));
        let progress = &mut call.progress;
        let mut poll = || progress.poll();
        let reserved = budget.reserve_buffers(For::Rings, wanted, least, &mut is_wanted, &mut poll);
        let (mut reservation, kept) = reserved?;
        let slot = sizes.slot(reservation.bytes());
        let slots = sizes.slots(reservation.bytes());
        reservation.shrink_to(slots.values().sum::<u64>() * slot);
        call.pinned = reservation.bytes();
        call.note_held(0);
        lanes.reserved = Some(reservation);

        let mut spare = Vec::new();
        let mut rings: BTreeMap<i32, VecDeque<PinnedBuffer>> = BTreeMap::new();
        for kept in kept {
            match kept {
                Kept::Pinned(slot) => {
                    let most = slots.get(&slot.device()).copied().unwrap_or_default();
                    let ring = rings.entry(slot.device()).or_default();
                    match (ring.len() as u64) < most {
                        true if slot.is_busy() => ring.push_back(slot),
                        true => ring.push_front(slot),
                        false => spare.push(Kept::Pinned(slot)),
                    }
                }
                Kept::Chunk(_) => spare.push(kept),
            }
        }
        budget.give_back(Vec::new(), spare);
        for (&device, &num) in &slots {
            let context = devices.context(device)?;
            let entered = context.enter()?;
            let stream = match devices.take_stream(&entered) {
                Some(stream) => stream,
                None => Stream::new(&entered)?,
            };
            // A stream is of its tensors' device.
            let is_own = |event: &&Event| event.context().device() == device;
            for event in call.after.iter().filter(is_own) {
                stream.wait_for(&entered, event)?;
            }
            drop(entered);
            let bytes = usize::try_from(slot).unwrap_or(usize::MAX);
            let kept = rings.remove(&device).unwrap_or_default();
            let lane = Lane::new(context, stream, bytes, num, kept);
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
        self.lanes.first().map_or(0, Lane::slot)
    }

    /// The streams, for those who wait for a tensor.
    pub fn streams(&self) -> Vec<(Arc<DeviceContext>, Arc<Stream>)> {
        let lanes = self.lanes.iter();
        lanes
            .map(|lane| (lane.context().clone(), lane.stream().clone()))
            .collect()
    }

    /// An event behind all copies of each device.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn mark(&self) -> Result<Vec<Event>> {
        self.lanes.iter().map(Lane::mark).collect()
    }

    /// Waits until all copies have run, however the call has `ended`, and reports progress meanwhile unless
    /// that was an error; `ended` may become one then. Afterwards nothing of the caller's is touched,
    /// whatever is returned: the devices that reported an error, each with it.
    pub fn finish(
        &self,
        progress: &mut Progress<'_>,
        ended: &mut Result<()>,
    ) -> BTreeMap<i32, Error> {
        let mut poll = || {
            if ended.is_ok() {
                *ended = progress.poll();
            }
        };
        let lanes = self.lanes.iter();
        let failed = lanes.filter_map(|lane| {
            let error = lane.finish(&mut poll).err()?;
            Some((lane.device(), error))
        });
        failed.collect()
    }

    /// Adds what was done to the figures of the call.
    pub fn note(&self, stats: &mut Stats) {
        let (mut slots, mut pinned) = (0, 0);
        for lane in &self.lanes {
            let (made, refused) = lane.num_slots();
            slots += made;
            pinned += made * lane.slot() as u64;
            stats.num_retries += refused;
            stats.bytes_device += lane.bytes();
            stats.device_wait_ns += lane.waited();
        }
        stats.num_slots = stats.num_slots.max(slots);
        stats.peak_pinned_bytes = stats.peak_pinned_bytes.max(pinned);
    }
}

impl Drop for Lanes<'_> {
    fn drop(&mut self) {
        let mut kept = Vec::new();
        for lane in self.lanes.drain(..) {
            let device = lane.device();
            let (stream, slots) = lane.close();
            kept.extend(slots.into_iter().map(Kept::Pinned));
            self.devices.put_stream(device, stream);
        }
        self.budget
            .give_back(self.reserved.take().into_iter().collect(), kept);
    }
}
