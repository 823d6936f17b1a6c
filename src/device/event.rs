//! Events: points in a stream.

use std::ffi::c_uint;
use std::ptr;
use std::sync::Arc;

use super::context::{DeviceContext, Entered};
use super::driver::call;
use super::status::{self, NOT_READY};
use super::table::Handle;
use crate::error::Result;

/// CU_EVENT_BLOCKING_SYNC and CU_EVENT_DISABLE_TIMING: who waits sleeps.
const FLAGS: c_uint = 1 | 2;

/// A point in a stream that can be waited for. One that was never recorded counts as reached.
#[derive(Debug)]
pub struct Event {
    context: Arc<DeviceContext>,
    handle: Handle,
}

// SAFETY: the handle may be used from any thread (CUDA's rule), and nothing here changes.
unsafe impl Send for Event {}
// SAFETY: as for `Send`.
unsafe impl Sync for Event {}

impl Event {
    /// An event of the entered context.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn new(entered: &Entered<'_>) -> Result<Self> {
        let mut handle = ptr::null_mut();
        // SAFETY: writes a handle, which is destroyed in `drop`.
        unsafe { call!(entered.driver(), cuEventCreate(&raw mut handle, FLAGS)) }?;
        Ok(Self {
            context: Arc::clone(entered.context()),
            handle,
        })
    }

    /// Its context.
    pub fn context(&self) -> &Arc<DeviceContext> {
        &self.context
    }

    /// Whether the device has reached it.
    ///
    /// # Errors
    ///
    /// Those of the driver, among them what went wrong on the device before.
    pub fn is_reached(&self, entered: &Entered<'_>) -> Result<bool> {
        let functions = entered.driver().functions();
        // SAFETY: the event lives.
        match unsafe { (functions.cuEventQuery)(self.handle) } {
            NOT_READY => Ok(false),
            code => status::check(functions, "cuEventQuery", code).map(|()| true),
        }
    }

    /// Waits until the device has reached it.
    ///
    /// # Errors
    ///
    /// As [`is_reached`](Self::is_reached).
    pub fn wait(&self, entered: &Entered<'_>) -> Result<()> {
        // SAFETY: the event lives.
        unsafe { call!(entered.driver(), cuEventSynchronize(self.handle)) }
    }

    /// Waits, on any thread, before memory is given back that the copies in front of it use. An error would
    /// say that the device is lost, and copies nothing any more.
    pub fn wait_to_give_back(&self) {
        self.context.give_back(|_, entered| {
            if let Some(entered) = entered {
                // A second try, as the first error may be about anything.
                let _ = self.wait(entered).or_else(|_| self.wait(entered));
            }
        });
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.context.give_back(|driver, _| {
            // SAFETY: made in `new` and destroyed only here.
            let _ = unsafe { call!(driver, cuEventDestroy_v2(self.handle)) };
        });
    }
}
