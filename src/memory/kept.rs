//! Memory of tests that outlives them all, as a job's has to outlive the job.

use parking_lot::Mutex;

/// Keeps a value until the process ends, where a leak check finds it.
pub fn keep<T: ?Sized>(value: Box<T>) -> &'static mut T {
    static ADDRESSES: Mutex<Vec<usize>> = parking_lot::const_mutex(Vec::new());
    let value = Box::leak(value);
    ADDRESSES.lock().push((&raw mut *value).addr());
    value
}
