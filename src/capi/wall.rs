//! Where errors and panics of Rust end: every function of the header runs its body in here.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use super::error::{TFCKPT_OK, tfckpt_code, tfckpt_error};
use super::handle::{free, into_handle};
use crate::{Error, Result};

/// Runs `body`, turns its error, or a panic, into a code, and gives the error object to the caller.
///
/// # Safety
///
/// `error_out` must be NULL or valid for a write.
pub unsafe fn guard(
    error_out: *mut *mut tfckpt_error,
    body: impl FnOnce() -> Result<()>,
) -> tfckpt_code {
    let result = wall(|| {
        #[cfg(feature = "test-panics")]
        panic_if_asked();
        body()
    });
    // SAFETY: passed on.
    unsafe { finish(error_out, result) }
}

/// Turns a result into a code, and gives the error object to the caller.
unsafe fn finish(error_out: *mut *mut tfckpt_error, result: Result<()>) -> tfckpt_code {
    let (code, error) = match result {
        Ok(()) => (TFCKPT_OK, std::ptr::null_mut()),
        Err(error) => (
            error.code() as tfckpt_code,
            into_handle(tfckpt_error::new(error)),
        ),
    };
    if error_out.is_null() {
        // SAFETY: just made by `into_handle`, or NULL.
        unsafe { free(error) };
    } else {
        // SAFETY: not NULL, so valid by this function's contract.
        unsafe { error_out.write(error) };
    }
    code
}

/// As [`guard`], for a call on a handle: a panic inside it poisons the handle.
///
/// # Safety
///
/// As [`guard`].
pub unsafe fn guard_handle(
    poisoned: Option<&Poison>,
    error_out: *mut *mut tfckpt_error,
    body: impl FnOnce() -> Result<()>,
) -> tfckpt_code {
    let result = wall(|| {
        if let Some(poison) = poisoned {
            poison.check()?;
        }
        let mut finished = Finished {
            poison: poisoned,
            finished: false,
        };
        #[cfg(feature = "test-panics")]
        panic_if_asked();
        let result = body();
        finished.finished = true;
        result
    });
    // SAFETY: passed on.
    unsafe { finish(error_out, result) }
}

/// Runs a getter, which has no error to return; a panic gives `fallback`.
pub fn guard_value<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    let mut value = fallback;
    let result = wall(|| {
        #[cfg(feature = "test-panics")]
        panic_if_asked();
        value = body();
        Ok(())
    });
    drop(result);
    value
}

/// Set by a panic inside a call on a handle, whose state nobody knows then.
#[derive(Clone, Debug, Default)]
pub struct Poison(Arc<AtomicBool>);

impl Poison {
    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::internal(
                "the handle is unusable since a panic inside an earlier call",
            ));
        }
        Ok(())
    }
}

struct Finished<'a> {
    poison: Option<&'a Poison>,
    finished: bool,
}

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        if let (false, Some(poison)) = (self.finished, self.poison) {
            poison.0.store(true, Ordering::Relaxed);
        }
    }
}

thread_local! {
    // Neither has a destructor, so that both can be used while a thread or the process ends: a handle
    // may be freed by `atexit` or by the destructor of a thread's own data.
    /// How many walls this thread is inside of.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic inside a wall happened: a leaked string, taken by the wall.
    static PLACE: Cell<*mut String> = const { Cell::new(std::ptr::null_mut()) };
}

/// No panic passes; its text and place become an INTERNAL error.
fn wall(body: impl FnOnce() -> Result<()>) -> Result<()> {
    keep_panics_quiet();
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    result.unwrap_or_else(|payload| Err(panic_error(payload.as_ref(), &take_place())))
}

/// Leaves the place of a panic for the wall around it.
fn leave_place(place: String) {
    drop(take_place());
    PLACE.set(Box::into_raw(Box::new(place)));
}

fn take_place() -> String {
    let place = PLACE.replace(std::ptr::null_mut());
    if place.is_null() {
        return String::new();
    }
    // SAFETY: leaked by `leave_place` on this thread, and taken once.
    *unsafe { Box::from_raw(place) }
}

fn panic_error(payload: &(dyn Any + Send), place: &str) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let text = text
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Error::internal(format!("panic: {text}; place={place}"))
}

/// The library never prints: a panic inside the wall is noted for the error, one on a thread of the
/// library is reported by the call that it works for. Everybody else's panics go where they went.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let inside = DEPTH.get() > 0;
            if inside {
                leave_place(info.location().map(ToString::to_string).unwrap_or_default());
            }
            let thread = std::thread::current();
            let inside = inside || matches!(thread.name(), Some("tfckpt" | "tfckpt-job"));
            if !inside {
                others(info);
            }
        }));
    });
}

#[cfg(feature = "test-panics")]
static PANIC_NEXT: AtomicBool = AtomicBool::new(false);

/// Makes the next call of any function panic inside. Only in builds for tests.
#[cfg(feature = "test-panics")]
#[unsafe(no_mangle)]
pub extern "C" fn tfckpt_test_panic() {
    PANIC_NEXT.store(true, Ordering::Relaxed);
}

#[cfg(feature = "test-panics")]
#[expect(clippy::panic, reason = "what the feature is for")]
fn panic_if_asked() {
    if PANIC_NEXT.swap(false, Ordering::Relaxed) {
        panic!("asked to");
    }
}
