//! Runs the items of a plan on a few threads, the calling one among them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::progress::{Counters, Progress};
use crate::error::{Error, Result};
use crate::io::with_signals_blocked;

/// Set when the work is to end early: cancelled, or failed on another thread. Items look at it
/// between chunks.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Whether to end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What an item may look at while it runs.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// Counted as bytes move and tensors complete.
    pub counters: &'a Counters,
    /// Set when there is no point in going on.
    pub stop: &'a Stop,
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
    let (counters, mut poll) = progress.split();
    let stop = Stop::default();
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let fail = |error: Error| {
        stop.set();
        failure.lock().get_or_insert(error);
    };
    // Claims items until there are none left; `after_item` runs between them.
    let work_through = |after_item: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let mut worker = make_worker()?;
        while !stop.is_set() {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= num_items {
                break;
            }
            work(
                &mut worker,
                item,
                Shared {
                    counters,
                    stop: &stop,
                },
            )?;
            after_item()?;
        }
        Ok(())
    };

    let helpers = num_threads.min(num_items).saturating_sub(1);
    let running = Mutex::new(helpers);
    let ended = Condvar::new();
    std::thread::scope(|scope| {
        let mut spawned = 0;
        with_signals_blocked(|| {
            for _ in 0..helpers {
                let helper = || {
                    if let Err(error) = work_through(&mut || Ok(())) {
                        fail(error);
                    }
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
        if let Err(error) = work_through(&mut poll) {
            fail(error);
        }
        let mut running = running.lock();
        while *running > missing {
            ended.wait_for(&mut running, Duration::from_millis(20));
            if !stop.is_set()
                && let Err(error) = poll()
            {
                fail(error);
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
