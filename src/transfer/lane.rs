//! The way to and from one GPU: a stream, and a ring of page-locked buffers.
//!
//! A buffer ([slot](PinnedBuffer)) is filled, sent, and goes to the end of the ring; who takes the next one
//! takes the one that was sent first, and waits for its copies if they are still under way. So the ring
//! bounds the memory, and what is enqueued on the stream, and nothing else has to wait for a copy.
//!
//! The device's context is current only while the driver is asked for something: whoever has a slot in hand
//! has left it, and so has who reports progress, as the callback is the caller's code on the caller's thread.
//! Nobody waits inside the driver for a slot either: what the copies come after may be the caller's, and take
//! as long as it likes, and the call is to notice meanwhile that nobody wants it any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::budget::POLL_INTERVAL;
use super::pipeline::Shared;
use crate::device::{DeviceContext, Entered, Event, PinnedBuffer, PinnedCopy, Stream};
use crate::error::{Code, Error, Result};

/// How long a thread looks after copies before it leaves the context for a moment, to report progress.
const STAY: Duration = Duration::from_millis(5);

/// Pauses between two looks: a quarter of the time that has been waited for, but no less and no more.
const PAUSES: (Duration, Duration) = (Duration::from_micros(10), Duration::from_millis(1));

/// How long the pauses are not slept, as who sleeps is woken that much too late: a copy of a MiB takes 20 µs.
const AWAKE: Duration = Duration::from_micros(50);

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
    /// Nanoseconds that threads have waited for copies, and for slots that others had.
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
    /// Why there are none, and never will be.
    none: Option<Error>,
}

impl Lane {
    /// A lane of at most `num_slots` slots of `slot` bytes, those that were `kept` among them.
    pub fn new(
        context: Arc<DeviceContext>,
        stream: Arc<Stream>,
        slot: usize,
        num_slots: u64,
        kept: VecDeque<PinnedBuffer>,
    ) -> Self {
        let made = kept.len() as u64;
        let ring = Ring {
            slots: kept,
            unmade: num_slots.saturating_sub(made),
            made,
            ..Ring::default()
        };
        Self {
            context,
            stream,
            slot,
            ring: Mutex::new(ring),
            put_back: Condvar::new(),
            bytes: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }
    }

    /// What is to be kept: the stream and the slots.
    pub fn close(self) -> (Arc<Stream>, VecDeque<PinnedBuffer>) {
        (self.stream, self.ring.into_inner().slots)
    }

    /// The device's ordinal.
    pub fn device(&self) -> i32 {
        self.context.device()
    }

    /// The device's context.
    pub fn context(&self) -> &Arc<DeviceContext> {
        &self.context
    }

    /// The stream of the call's copies.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Bytes of a slot.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Bytes that were copied from or to the device.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Nanoseconds that threads have waited for copies, and for slots that others had, all together.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// How many slots there are, and how many could not be had.
    pub fn num_slots(&self) -> (u64, u64) {
        let ring = self.ring.lock();
        (ring.made, ring.refused)
    }

    /// The next slot, whose bytes are the host's, to be [sent](Self::send) or [put](Self::put) back.
    ///
    /// # Errors
    ///
    /// Those of the driver; those of [`Shared::check`] while the slot's copies have yet to run, or other
    /// threads have all slots.
    pub fn take(&self, shared: Shared<'_>) -> Result<PinnedBuffer> {
        let mut slot = self.next(shared)?;
        match self.wait(&mut slot, shared) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.put(slot);
                Err(error)
            }
        }
    }

    /// Enqueues copies from a slot to the device, and puts it back.
    ///
    /// # Errors
    ///
    /// Those of the driver. Some of the copies may then be enqueued.
    pub fn send(&self, mut slot: PinnedBuffer, copies: &[PinnedCopy<'_>]) -> Result<()> {
        self.count(copies);
        let sent = self.context.enter();
        let sent = sent.and_then(|entered| slot.upload(&entered, &self.stream, copies));
        self.put(slot);
        sent
    }

    /// A slot into which bytes have been copied from the device, to be [put](Self::put) back.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn fetch(&self, copies: &[PinnedCopy<'_>], shared: Shared<'_>) -> Result<PinnedBuffer> {
        let mut slot = self.take(shared)?;
        self.count(copies);
        let fetched = self.context.enter();
        let fetched = fetched.and_then(|entered| slot.download(&entered, &self.stream, copies));
        match fetched.and_then(|()| self.wait(&mut slot, shared)) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.put(slot);
                Err(error)
            }
        }
    }

    /// Puts a slot back, whose bytes may be on their way.
    pub fn put(&self, slot: PinnedBuffer) {
        self.ring.lock().slots.push_back(slot);
        self.put_back.notify_one();
    }

    /// An event behind all copies.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn mark(&self) -> Result<Event> {
        let entered = self.context.enter()?;
        let event = Event::new(&entered)?;
        self.stream.record(&entered, &event)?;
        Ok(event)
    }

    /// Waits until all copies have run, and calls `poll` meanwhile.
    ///
    /// # Errors
    ///
    /// Those of the driver: the device is lost, and copies nothing any more.
    pub fn finish(&self, poll: &mut dyn FnMut()) -> Result<()> {
        let mut wait = || {
            self.wait_until(&mut |entered| self.stream.is_idle(entered), &mut || {
                poll();
                Ok(())
            })
        };
        // A second try, as the caller will take its memory for its own.
        wait().or_else(|_| wait())
    }

    fn count(&self, copies: &[PinnedCopy<'_>]) {
        let bytes: usize = copies.iter().map(|copy| copy.device.len()).sum();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A slot from the ring, or a new one rather than one whose copies have yet to run.
    fn next(&self, shared: Shared<'_>) -> Result<PinnedBuffer> {
        loop {
            let entered = self.context.enter()?;
            let mut ring = self.ring.lock();
            let is_idle = match ring.slots.front_mut() {
                Some(first) => first.is_idle(&entered)?,
                None => false,
            };
            if !is_idle && ring.unmade > 0 {
                ring.unmade -= 1;
                ring.made += 1;
                drop(ring);
                match PinnedBuffer::new(&entered, self.slot) {
                    Ok(slot) => return Ok(slot),
                    Err(error) => self.do_without(error)?,
                }
                continue;
            }
            if let Some(slot) = ring.slots.pop_front() {
                return Ok(slot);
            }
            if let Some(error) = &ring.none {
                return Err(error.clone());
            }
            drop(entered);
            let started = Instant::now();
            self.put_back.wait_for(&mut ring, POLL_INTERVAL);
            drop(ring);
            self.count_wait(started);
            shared.check()?;
        }
    }

    /// A slot could not be made. Makes do with those that there are; without any, the error is that of all
    /// who want one, now and later.
    fn do_without(&self, error: Error) -> Result<()> {
        let mut ring = self.ring.lock();
        ring.made -= 1;
        if error.code() != Code::ResourceExhausted {
            // It may concern anything. Who comes next tries again.
            ring.unmade += 1;
            return Err(error);
        }
        ring.refused += 1;
        ring.unmade = 0;
        if ring.made > 0 {
            return Ok(());
        }
        ring.none = Some(error.clone());
        drop(ring);
        self.put_back.notify_all();
        Err(error)
    }

    /// Waits until the copies of a slot have run.
    fn wait(&self, slot: &mut PinnedBuffer, shared: Shared<'_>) -> Result<()> {
        if slot.bytes().is_some() {
            return Ok(());
        }
        self.wait_until(&mut |entered| slot.is_idle(entered), &mut || shared.check())
    }

    /// Waits until copies are done, and calls `poll` from time to time, outside of the context.
    fn wait_until(
        &self,
        are_done: &mut dyn FnMut(&Entered<'_>) -> Result<bool>,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let started = Instant::now();
        let mut wait = || {
            while !self.look_after(started, are_done)? {
                poll()?;
            }
            Ok(())
        };
        let waited = wait();
        self.count_wait(started);
        waited
    }

    /// Looks until copies are done, for a while. Returns whether they are.
    fn look_after(
        &self,
        started: Instant,
        are_done: &mut dyn FnMut(&Entered<'_>) -> Result<bool>,
    ) -> Result<bool> {
        let entered = self.context.enter()?;
        let end = started.elapsed() + STAY;
        loop {
            if are_done(&entered)? {
                return Ok(true);
            }
            let waited = started.elapsed();
            if waited >= end {
                return Ok(false);
            }
            let pause = (waited / 4).clamp(PAUSES.0, PAUSES.1);
            if waited > AWAKE {
                std::thread::sleep(pause);
                continue;
            }
            while started.elapsed() < waited + pause {
                std::thread::yield_now();
            }
        }
    }

    fn count_wait(&self, started: Instant) {
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(nanos, Ordering::Relaxed);
    }
}
