//! Runs the items of a plan on a few threads, the calling one among them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Progress;
use super::monitor::{Counters, Monitor};
use crate::error::{Error, Result};
use crate::io::with_signals_blocked;

/// What an item may look at while it runs.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// Counted as bytes move and tensors complete.
    pub counters: &'a Counters,
    /// What other threads are told.
    pub monitor: &'a Monitor,
    stop: &'a AtomicBool,
    /// Reports progress; on the calling thread only.
    poll: Option<&'a dyn Fn() -> Result<()>>,
}

impl Shared<'_> {
    /// To be called between chunks: reports progress if it is time to, and says whether to go on.
    ///
    /// # Errors
    ///
    /// CANCELLED by the progress callback or by another thread; ABORTED when the call has failed on another thread.
    pub fn check(&self) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::aborted("not done: the call ended early"));
        }
        self.poll
            .map_or_else(|| self.monitor.check(), |poll| poll())
    }

    /// Whether the call has failed or was cancelled.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Runs items `0..num_items`, each once, in about ascending order. Every thread makes a worker (its
/// buffers) with `make_worker` and passes it to `work`.
///
/// # Errors
///
/// The first error of an item or of the progress callback; the other threads then stop after their
/// current chunk.
pub fn run<W>(
    num_threads: usize,
    num_items: usize,
    progress: &mut Progress<'_>,
    make_worker: impl Fn() -> Result<W> + Sync,
    work: impl Fn(&mut W, usize, Shared<'_>) -> Result<()> + Sync,
) -> Result<()> {
    let (monitor, poll) = progress.split();
    let poll = RefCell::new(poll);
    let poll = || poll.borrow_mut()();
    let stop = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    // Claims items until there are none left.
    let work_through = |poll: Option<&dyn Fn() -> Result<()>>| -> Result<()> {
        let shared = Shared {
            counters: monitor.counters(),
            monitor,
            stop: &stop,
            poll,
        };
        let mut worker = make_worker()?;
        while !shared.is_stopped() {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= num_items {
                break;
            }
            work(&mut worker, item, shared)?;
            if let Some(poll) = poll {
                poll()?;
            }
        }
        Ok(())
    };
    // A panic must not leave the other threads waiting, or working for nothing.
    let attempt = |poll: Option<&dyn Fn() -> Result<()>>| {
        let result = catch_unwind(AssertUnwindSafe(|| work_through(poll)));
        let panicked = || Error::internal("panic on a thread that moves bytes");
        if let Err(error) = result.unwrap_or_else(|_| Err(panicked())) {
            // In this order: who sees `stop` must not be the first to report.
            failure.lock().get_or_insert(error);
            stop.store(true, Ordering::Release);
        }
    };

    let helpers = num_threads.min(num_items).saturating_sub(1);
    let running = Mutex::new(helpers);
    let ended = Condvar::new();
    std::thread::scope(|scope| {
        let mut spawned = 0;
        with_signals_blocked(|| {
            for _ in 0..helpers {
                let helper = || {
                    attempt(None);
                    *running.lock() -= 1;
                    ended.notify_all();
                };
                // Without the threads the work still gets done, only slower.
                let builder = std::thread::Builder::new().name("tfckpt".to_owned());
                if builder.spawn_scoped(scope, helper).is_err() {
                    break;
                }
                spawned += 1;
            }
        });
        let missing = helpers - spawned;
        attempt(Some(&poll));
        let mut running = running.lock();
        while *running > missing {
            ended.wait_for(&mut running, Duration::from_millis(20));
            if !stop.load(Ordering::Relaxed)
                && let Err(error) = poll()
            {
                failure.lock().get_or_insert(error);
                stop.store(true, Ordering::Release);
            }
        }
    });
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn every_item_runs_once_on_any_number_of_threads() {
        for num_threads in [1, 2, 5] {
            let counts: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            let mut progress = Progress::new(None);
            run(
                num_threads,
                1000,
                &mut progress,
                || Ok(()),
                |(), item, _| {
                    counts[item].fetch_add(1, Ordering::Relaxed);
                    Ok(())
                },
            )
            .unwrap();
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 1)
            );
        }
    }

    #[test]
    fn the_first_error_ends_the_run() {
        let mut progress = Progress::new(None);
        let ran = AtomicUsize::new(0);
        let result = run(
            2,
            1_000_000,
            &mut progress,
            || Ok(()),
            |(), item, _| {
                ran.fetch_add(1, Ordering::Relaxed);
                if item == 10 {
                    Err(Error::data_loss("ten"))
                } else {
                    Ok(())
                }
            },
        );
        assert_eq!(result.unwrap_err().message(), "ten");
        assert!(ran.into_inner() < 1_000_000);
    }

    #[test]
    fn a_panic_on_any_thread_is_an_error_of_the_call() {
        for num_threads in [1, 4] {
            let mut progress = Progress::new(None);
            let result = run(
                num_threads,
                100,
                &mut progress,
                || Ok(()),
                |(), item, _| {
                    assert!(item < 50, "fifty");
                    Ok(())
                },
            );
            assert_eq!(result.unwrap_err().code(), Code::Internal);
        }
    }

    #[test]
    fn progress_is_reported_within_a_long_item_too() {
        let mut calls = 0;
        let mut progress = Progress::new(Some(Box::new(|_| {
            calls += 1;
            calls < 3
        })));
        let result = run(
            1,
            1,
            &mut progress,
            || Ok(()),
            |(), _, shared| loop {
                std::thread::sleep(Duration::from_millis(1));
                shared.check()?;
            },
        );
        assert_eq!(result.unwrap_err().code(), Code::Cancelled);
    }

    #[test]
    fn the_callback_cancels_between_items() {
        let mut calls = 0;
        let mut progress = Progress::new(Some(Box::new(|_| {
            calls += 1;
            calls < 3
        })));
        let result = run(
            2,
            usize::MAX,
            &mut progress,
            || Ok(()),
            |(), _, _| {
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            },
        );
        assert_eq!(result.unwrap_err().code(), Code::Cancelled);
        drop(progress);
        assert_eq!(calls, 3);
    }
}
