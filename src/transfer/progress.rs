//! Tells the caller how far a call is, and lets it cancel.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::monitor::Monitor;
use crate::error::{Error, Result};

/// How far a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Bytes of tensors moved so far.
    pub bytes_done: u64,
    /// Bytes of tensors to move in all.
    pub bytes_total: u64,
    /// Tensors complete so far.
    pub tensors_done: u64,
    /// Tensors in all.
    pub tensors_total: u64,
}

/// Called on the calling thread only; `false` cancels the call.
pub type ProgressFn<'a> = dyn FnMut(&Update) -> bool + 'a;

/// Least time between two calls of the callback, other than the first and the last: often enough for
/// the promise of one per 100 ms of work, rarely enough to cost nothing.
const INTERVAL: Duration = Duration::from_millis(20);

/// Counts what is done, on any thread, and reports it on the calling one.
pub struct Progress<'a> {
    callback: Option<Box<ProgressFn<'a>>>,
    last: Option<Instant>,
    monitor: Arc<Monitor>,
}

impl<'a> Progress<'a> {
    /// Reports to `callback`, if there is one.
    pub fn new(callback: Option<Box<ProgressFn<'a>>>) -> Self {
        Self::watched(callback, Arc::new(Monitor::new(0)))
    }

    /// As [`new`](Self::new), of a call that other threads look at.
    pub(crate) fn watched(callback: Option<Box<ProgressFn<'a>>>, monitor: Arc<Monitor>) -> Self {
        Self {
            callback,
            // Until a report is due, what is polled before the totals are known stays quiet.
            last: Some(Instant::now()),
            monitor,
        }
    }

    /// What other threads may look at.
    pub(crate) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Says what there is to do, and reports for the first time that this is known.
    ///
    /// # Errors
    ///
    /// CANCELLED if the callback says so, here and below.
    pub fn start(&mut self, bytes_total: u64, tensors_total: u64) -> Result<()> {
        self.monitor.start(bytes_total, tensors_total);
        self.report()
    }

    /// The monitor, and a function that reports if it is time to.
    pub(super) fn split(&mut self) -> (&Monitor, impl FnMut() -> Result<()>) {
        let Self {
            callback,
            last,
            monitor,
        } = self;
        let monitor = &**monitor;
        let poll = move || {
            monitor.check()?;
            if callback.is_none() || last.is_some_and(|last| last.elapsed() < INTERVAL) {
                return Ok(());
            }
            *last = Some(Instant::now());
            call(callback, monitor)
        };
        (monitor, poll)
    }

    /// Counts what the calling thread did itself, and reports if it is time to.
    ///
    /// # Errors
    ///
    /// CANCELLED.
    pub fn advance(&mut self, bytes: u64, tensors: u64) -> Result<()> {
        let counters = self.monitor.counters();
        counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        counters.tensors.fetch_add(tensors, Ordering::Relaxed);
        self.poll()
    }

    /// Reports if it is time to: to be called in the midst of long work.
    ///
    /// # Errors
    ///
    /// CANCELLED.
    pub fn poll(&mut self) -> Result<()> {
        let (_, mut poll) = self.split();
        poll()
    }

    /// Reports now: the last chance to cancel before something becomes visible.
    ///
    /// # Errors
    ///
    /// CANCELLED.
    pub fn report(&mut self) -> Result<()> {
        self.monitor.check()?;
        self.last = Some(Instant::now());
        call(&mut self.callback, &self.monitor)
    }
}

fn call(callback: &mut Option<Box<ProgressFn<'_>>>, monitor: &Monitor) -> Result<()> {
    let Some(callback) = callback else {
        return Ok(());
    };
    if callback(&monitor.update()) {
        // The callback may have taken its time.
        monitor.check()
    } else {
        Err(Error::cancelled("cancelled by the progress callback"))
    }
}
