//! The memory that the calls on one context may hold together.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// Default limit of a context in bytes.
pub const DEFAULT: u64 = 64 << 20;

/// Smallest limit in bytes: two buffers of a MiB.
pub const MINIMUM: u64 = 2 << 20;

/// How often a call that waits for others asks whether it is still wanted.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes that may be held, and bytes that are.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: Mutex<u64>,
    released: Condvar,
}

impl Budget {
    /// A budget of `limit` bytes; 0 stands for [`DEFAULT`].
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT naming the minimum for a smaller limit.
    pub fn new(limit: u64) -> Result<Self> {
        let limit = check_limit(limit)?.unwrap_or(DEFAULT);
        Ok(Self {
            limit,
            held: Mutex::new(0),
            released: Condvar::new(),
        })
    }

    /// Takes up to `wanted` bytes, what is free if that is less, but at least `least`: waits for other
    /// calls to end if need be, and calls `poll` meanwhile. `least` is capped by the limit.
    ///
    /// # Errors
    ///
    /// Those of `poll`, which ends the waiting; nothing is taken then.
    pub fn reserve(
        &self,
        wanted: u64,
        least: u64,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Reservation<'_>> {
        let least = least.min(self.limit);
        let mut held = self.held.lock();
        while self.limit - *held < least {
            self.released.wait_for(&mut held, POLL_INTERVAL);
            // The callback behind it may take its time, and other calls give back meanwhile.
            parking_lot::MutexGuard::unlocked(&mut held, &mut *poll)?;
        }
        let bytes = wanted.clamp(least, (self.limit - *held).max(least));
        *held += bytes;
        Ok(Reservation {
            budget: self,
            bytes,
        })
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
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        *self.budget.held.lock() -= self.bytes;
        self.budget.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_shared_and_given_back() {
        let budget = Budget::new(4 << 20).unwrap();
        let reserve = |wanted, least| budget.reserve(wanted, least, &mut || Ok(())).unwrap();
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
        let all = budget.reserve(4 << 20, 1, &mut || Ok(())).unwrap();
        let mut polls = 0;
        let waited = budget.reserve(1, 1, &mut || {
            polls += 1;
            if polls < 3 {
                Ok(())
            } else {
                Err(Error::cancelled("enough"))
            }
        });
        assert_eq!(waited.unwrap_err().message(), "enough");
        drop(all);
        assert_eq!(*budget.held.lock(), 0);
    }

    #[test]
    fn a_limit_below_the_minimum_is_refused_by_name() {
        let error = Budget::new(MINIMUM - 1).unwrap_err();
        assert!(error.message().contains("minimum=2097152"), "{error}");
        assert_eq!(Budget::new(0).unwrap().limit, DEFAULT);
    }
}
