//! The jobs of a saver: one writes after the other, in the order in which they were submitted.
//!
//! A job that waits for its turn holds nothing but the copies of its tensors, and those leave the jobs before
//! it the memory that they need ([`transfer`](crate::transfer) says how).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::checkpoint::{Job, JobState};
use crate::error::Result;
use crate::transfer::Call;

/// How often a job that waits asks whether it is still wanted, and reports.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The jobs of a saver that are not known to have ended well. Dropping it waits for them.
#[derive(Debug, Default)]
pub struct Queue {
    jobs: Mutex<Vec<Arc<JobState>>>,
    turns: Arc<Turns>,
}

impl Queue {
    /// A place at the end of the line.
    pub fn ticket(&self) -> Ticket {
        let mut line = self.turns.line.lock();
        let number = line.next;
        line.next += 1;
        line.waiting.insert(number);
        Ticket {
            number,
            turns: self.turns.clone(),
        }
    }

    /// Keeps an eye on a job.
    pub fn add(&self, job: &Job) {
        self.jobs.lock().push(job.state());
    }

    /// The oldest error that nobody fetched from its job. It is returned once.
    ///
    /// # Errors
    ///
    /// That error.
    pub fn check(&self) -> Result<()> {
        let mut unknown = None;
        self.jobs.lock().retain(|job| {
            let has_ended = job.wait(Some(Duration::ZERO));
            if has_ended && unknown.is_none() {
                unknown = job.take_unfetched();
                return false;
            }
            !has_ended || unknown.is_some()
        });
        let Some(error) = unknown else {
            return Ok(());
        };
        let text = error.message();
        let text = format!("{text}; nothing was saved by this call: call again");
        Err(error.with_message(text))
    }

    /// Waits until all jobs have ended.
    ///
    /// # Errors
    ///
    /// CANCELLED by the call that waits.
    pub fn wait(&self, call: &mut Call<'_>) -> Result<()> {
        for job in self.in_flight() {
            while !job.wait(Some(POLL_INTERVAL)) {
                call.progress.poll()?;
            }
        }
        Ok(())
    }

    /// As [`wait`](Self::wait), without a call.
    pub fn drain(&self) {
        for job in self.in_flight() {
            job.wait(None);
        }
    }

    /// Asks all jobs to stop.
    pub fn cancel(&self) {
        for job in self.in_flight() {
            job.cancel();
        }
    }

    fn in_flight(&self) -> Vec<Arc<JobState>> {
        self.jobs.lock().clone()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.drain();
    }
}

#[derive(Debug, Default)]
struct Turns {
    line: Mutex<Line>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    /// Numbers given out and not done with.
    waiting: BTreeSet<u64>,
}

/// A place in the line; given up when it is dropped.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
    turns: Arc<Turns>,
}

impl Ticket {
    /// Waits until all tickets before this one have been given up.
    ///
    /// # Errors
    ///
    /// CANCELLED.
    pub fn wait(&self, call: &mut Call<'_>) -> Result<()> {
        let mut line = self.turns.line.lock();
        while line
            .waiting
            .first()
            .is_some_and(|&first| first < self.number)
        {
            self.turns.moved.wait_for(&mut line, POLL_INTERVAL);
            // The callback behind it may take its time.
            parking_lot::MutexGuard::unlocked(&mut line, || call.progress.poll())?;
        }
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.turns.line.lock().waiting.remove(&self.number);
        self.turns.moved.notify_all();
    }
}
