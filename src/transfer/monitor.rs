//! What a call shows to other threads while it runs, and the one thing that they ask of it: to stop.
//!
//! Every call has a monitor, which counts its bytes. For a call that runs as a job, others look at it:
//! how far the call is, and which of its tensors have arrived. Who waits sleeps on one condition
//! variable; who announces something touches its lock only if somebody waits.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Update;
use crate::device::{DeviceContext, Event, Stream};
use crate::error::{Error, Result};

/// How far a call is, in the order in which it gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Its arguments are being checked.
    New,
    /// They fit together.
    Accepted,
    /// The host's tensors of a save are not looked at any more.
    HostCopied,
    /// Nor are those of GPUs: the caller may change them all.
    Copied,
    /// The call has ended, and left the caller's memory alone.
    Ended,
}

/// What worker threads count.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of tensors moved.
    pub bytes: AtomicU64,
    /// Tensors complete.
    pub tensors: AtomicU64,
}

const PENDING: u8 = 0;
const COMPLETE: u8 = 1;
const FAILED: u8 = 2;

/// How often who waits for copies for a limited time looks after them.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);

/// In the list of what is waited for: a stage, not a tensor.
const STAGE: usize = usize::MAX;

/// A stream and its context.
pub type DeviceStream = (Arc<DeviceContext>, Arc<Stream>);

/// The state of a call that other threads may look at.
#[derive(Debug)]
pub struct Monitor {
    counters: Counters,
    bytes_total: AtomicU64,
    tensors_total: AtomicU64,
    cancelled: AtomicBool,
    stage: AtomicU8,
    /// For each tensor of a restore whether it has arrived; empty if nobody asks.
    arrivals: Vec<AtomicU8>,
    /// For each of them the GPU that it goes to, if one does; empty if none does.
    devices: Vec<Option<i32>>,
    failed: Mutex<BTreeMap<usize, Error>>,
    /// Where copies to GPUs are enqueued.
    streams: Mutex<Vec<DeviceStream>>,
    /// Events behind the copies of tensors that somebody looks after from time to time.
    asked: Mutex<BTreeMap<usize, Vec<Event>>>,
    /// Threads that wait.
    num_waiting: AtomicUsize,
    /// What they wait for.
    waited_for: Mutex<Vec<usize>>,
    changed: Condvar,
}

impl Monitor {
    /// The monitor of a call; the first `num_arrivals` of its tensors can be waited for one by one.
    pub fn new(num_arrivals: usize) -> Self {
        Self {
            counters: Counters::default(),
            bytes_total: AtomicU64::new(0),
            tensors_total: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            stage: AtomicU8::new(Stage::New as u8),
            arrivals: std::iter::repeat_with(AtomicU8::default)
                .take(num_arrivals)
                .collect(),
            devices: Vec::new(),
            failed: Mutex::default(),
            streams: Mutex::default(),
            asked: Mutex::default(),
            num_waiting: AtomicUsize::new(0),
            waited_for: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// With the GPU of each tensor that goes to one; empty if none does.
    #[must_use]
    pub fn with_devices(self, devices: Vec<Option<i32>>) -> Self {
        Self { devices, ..self }
    }

    /// The GPU that tensor `index` goes to; `None` for the host's memory.
    pub fn device(&self, index: usize) -> Option<i32> {
        self.devices.get(index).copied().flatten()
    }

    /// What worker threads count.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Says what there is to do.
    pub(super) fn start(&self, bytes_total: u64, tensors_total: u64) {
        self.bytes_total.store(bytes_total, Ordering::Relaxed);
        self.tensors_total.store(tensors_total, Ordering::Relaxed);
    }

    /// How much is done.
    pub fn update(&self) -> Update {
        Update {
            bytes_done: self.counters.bytes.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            tensors_done: self.counters.tensors.load(Ordering::Relaxed),
            tensors_total: self.tensors_total.load(Ordering::Relaxed),
        }
    }

    /// Asks the call to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Whether the call is to go on.
    ///
    /// # Errors
    ///
    /// CANCELLED.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::cancelled("cancelled"));
        }
        Ok(())
    }

    /// The call has got to `stage`.
    pub fn reach(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.announce(STAGE);
    }

    /// Whether the call has got to `stage`.
    pub fn has_reached(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::SeqCst) >= stage as u8
    }

    /// Waits until the call gets to `stage`, for so long at most. Returns whether it has.
    pub fn wait_for(&self, stage: Stage, timeout: Option<Duration>) -> bool {
        self.wait(STAGE, timeout, || self.has_reached(stage))
    }

    /// Tensor `index` is complete and, as far as asked for, verified; in a GPU's memory once the copies have
    /// run that are enqueued.
    pub fn arrived(&self, index: usize) {
        self.set_arrival(index, COMPLETE);
    }

    /// Tensor `index` cannot be restored.
    pub fn failed(&self, index: usize, error: &Error) {
        if index < self.arrivals.len() {
            self.failed
                .lock()
                .entry(index)
                .or_insert_with(|| error.clone());
            self.set_arrival(index, FAILED);
        }
    }

    fn set_arrival(&self, index: usize, state: u8) {
        if let Some(arrival) = self.arrivals.get(index) {
            arrival.store(state, Ordering::SeqCst);
            self.announce(index);
        }
    }

    /// Copies to GPUs are enqueued on these streams from now on; all that were enqueued on others have run.
    pub(super) fn set_streams(&self, streams: Vec<DeviceStream>) {
        *self.streams.lock() = streams;
    }

    /// Events behind the copies that are enqueued now for the GPU of tensor `index`; none for a tensor in the
    /// host's memory. For a tensor that has arrived they come no later than the ring's worth of copies after
    /// its own.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn mark_copies(&self, index: usize) -> Result<Vec<Event>> {
        let Some(device) = self.device(index) else {
            return Ok(Vec::new());
        };
        let streams = self.streams.lock();
        let own = streams
            .iter()
            .filter(|(context, _)| context.device() == device);
        let marks = own.map(|(context, stream)| {
            let entered = context.enter()?;
            let event = Event::new(&entered)?;
            stream.record(&entered, &event)?;
            Ok(event)
        });
        marks.collect()
    }

    /// Waits until the copies have run that are enqueued now for the GPU of tensor `index`, which has
    /// arrived, until `deadline` at most. Returns whether they have.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn wait_for_copies(&self, index: usize, deadline: Option<Instant>) -> Result<bool> {
        if deadline.is_none() {
            for event in self.mark_copies(index)? {
                event.wait(&event.context().enter()?)?;
            }
            return Ok(true);
        }
        // The driver waits as long as it takes, or only looks.
        while !self.have_copies_run(index)? {
            let left = deadline.map_or(LOOK_INTERVAL, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Ok(false);
            }
            std::thread::sleep(left.min(LOOK_INTERVAL));
        }
        Ok(true)
    }

    /// Whether the copies have run that were enqueued when this was first asked for tensor `index`.
    fn have_copies_run(&self, index: usize) -> Result<bool> {
        let mut asked = self.asked.lock();
        let events = match asked.entry(index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.mark_copies(index)?),
        };
        for event in events {
            if !event.is_reached(&event.context().enter()?)? {
                return Ok(false);
            }
        }
        asked.remove(&index);
        Ok(true)
    }

    /// Number of tensors that can be waited for.
    pub fn num_arrivals(&self) -> usize {
        self.arrivals.len()
    }

    /// Waits until tensor `index` has arrived or failed, or the call has ended, for so long at most.
    /// Returns whether it has.
    pub fn wait_for_tensor(&self, index: usize, timeout: Option<Duration>) -> bool {
        let pending = |arrival: &AtomicU8| arrival.load(Ordering::SeqCst) == PENDING;
        self.wait(index, timeout, || {
            self.has_reached(Stage::Ended) || !self.arrivals.get(index).is_some_and(pending)
        })
    }

    /// What came of tensor `index`; `None` as long as that is not known.
    pub fn arrival(&self, index: usize) -> Option<Result<()>> {
        match self.arrivals.get(index)?.load(Ordering::SeqCst) {
            COMPLETE => Some(Ok(())),
            FAILED => Some(self.failed.lock().get(&index).cloned().map_or(Ok(()), Err)),
            _ => None,
        }
    }

    /// Wakes those who wait for `event`, which is seen by now. Ordering: either this sees who waits, or
    /// who is about to wait sees the event, because both sides write before they read (`SeqCst`).
    fn announce(&self, event: usize) {
        if self.num_waiting.load(Ordering::SeqCst) > 0 {
            // A tensor is announced by itself: a restore may have a million of them.
            let waited_for = self.waited_for.lock();
            if event == STAGE || waited_for.contains(&event) {
                self.changed.notify_all();
            }
        }
    }

    fn wait(&self, event: usize, timeout: Option<Duration>, is_seen: impl Fn() -> bool) -> bool {
        if is_seen() {
            return true;
        }
        // A time that no clock shows is no limit.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.num_waiting.fetch_add(1, Ordering::SeqCst);
        let mut waited_for = self.waited_for.lock();
        waited_for.push(event);
        let mut seen = is_seen();
        while !seen {
            let late = match deadline {
                Some(deadline) => {
                    let waited = self.changed.wait_until(&mut waited_for, deadline);
                    waited.timed_out()
                }
                None => {
                    self.changed.wait(&mut waited_for);
                    false
                }
            };
            seen = is_seen();
            if late {
                break;
            }
        }
        if let Some(place) = waited_for.iter().position(|&other| other == event) {
            waited_for.swap_remove(place);
        }
        drop(waited_for);
        self.num_waiting.fetch_sub(1, Ordering::SeqCst);
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_woken_by_what_it_waits_for() {
        let monitor = Monitor::new(3);
        let no_time = Some(Duration::ZERO);
        assert!(!monitor.wait_for(Stage::Accepted, no_time));
        assert!(!monitor.wait_for_tensor(1, no_time));
        std::thread::scope(|scope| {
            let stage = scope.spawn(|| monitor.wait_for(Stage::Copied, None));
            let tensor = scope.spawn(|| monitor.wait_for_tensor(1, None));
            let other = scope.spawn(|| monitor.wait_for_tensor(2, None));
            monitor.reach(Stage::Accepted);
            monitor.arrived(1);
            assert!(tensor.join().unwrap());
            monitor.reach(Stage::Copied);
            assert!(stage.join().unwrap());
            monitor.failed(2, &Error::data_loss("bad"));
            assert!(other.join().unwrap());
        });
        assert!(monitor.arrival(0).is_none());
        monitor.arrival(1).unwrap().unwrap();
        assert_eq!(monitor.arrival(2).unwrap().unwrap_err().message(), "bad");
        assert_eq!(monitor.num_waiting.load(Ordering::SeqCst), 0);
        assert!(monitor.waited_for.lock().is_empty());
    }

    #[test]
    fn the_end_wakes_those_who_wait_for_a_tensor() {
        let monitor = Monitor::new(1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| monitor.wait_for_tensor(0, Some(Duration::MAX)));
            monitor.reach(Stage::Ended);
            assert!(waiting.join().unwrap());
        });
        assert!(monitor.arrival(0).is_none());
        // A stage is never left again.
        monitor.reach(Stage::Accepted);
        assert!(monitor.has_reached(Stage::Ended));
    }
}
