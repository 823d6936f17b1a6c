//! Streams of the library's own, for copies.

use std::ffi::c_uint;
use std::ptr;
use std::sync::Arc;

use super::context::{DeviceContext, Entered};
use super::copies::{Copies, Direction};
use super::driver::call;
use super::event::Event;
use super::span::DeviceSpan;
use super::status::{self, NOT_READY};
use super::table::Handle;
use crate::error::{Error, Result};

/// CU_STREAM_NON_BLOCKING: not ordered with the legacy default stream.
const NON_BLOCKING: c_uint = 1;

/// A queue of copies, which the device runs in their order. Any thread may add to it.
#[derive(Debug)]
pub struct Stream {
    context: Arc<DeviceContext>,
    handle: Handle,
}

// SAFETY: the handle may be used from any thread (CUDA's rule), and nothing here changes.
unsafe impl Send for Stream {}
// SAFETY: as for `Send`.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream of the entered context.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn new(entered: &Entered<'_>) -> Result<Arc<Self>> {
        let mut handle = ptr::null_mut();
        // SAFETY: writes a handle, which is destroyed in `drop`.
        unsafe {
            call!(
                entered.driver(),
                cuStreamCreate(&raw mut handle, NON_BLOCKING)
            )
        }?;
        Ok(Arc::new(Self {
            context: Arc::clone(entered.context()),
            handle,
        }))
    }

    /// Moves `event` to where the stream is now: behind everything that was enqueued.
    ///
    /// # Errors
    ///
    /// Those of the driver; the event must be of the stream's context.
    pub fn record(&self, entered: &Entered<'_>, event: &Event) -> Result<()> {
        let driver = entered.driver();
        // SAFETY: both live.
        unsafe { call!(driver, cuEventRecord(event.handle(), self.handle)) }
    }

    /// Lets what is enqueued from now on wait for `event`, of whatever device.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn wait_for(&self, entered: &Entered<'_>, event: &Event) -> Result<()> {
        let driver = entered.driver();
        // SAFETY: both live; an event may be destroyed while a stream waits for it.
        unsafe { call!(driver, cuStreamWaitEvent(self.handle, event.handle(), 0)) }
    }

    /// Whether everything that was enqueued has run.
    ///
    /// # Errors
    ///
    /// Those of the driver, among them what went wrong on the device before.
    pub fn is_idle(&self, entered: &Entered<'_>) -> Result<bool> {
        let functions = entered.driver().functions();
        // SAFETY: the stream lives.
        match unsafe { (functions.cuStreamQuery)(self.handle) } {
            NOT_READY => Ok(false),
            code => status::check(functions, "cuStreamQuery", code).map(|()| true),
        }
    }

    /// Waits until everything that was enqueued has run.
    ///
    /// # Errors
    ///
    /// As [`is_idle`](Self::is_idle).
    pub fn synchronize(&self, entered: &Entered<'_>) -> Result<()> {
        // SAFETY: the stream lives.
        unsafe { call!(entered.driver(), cuStreamSynchronize(self.handle)) }
    }

    /// Enqueues copies of each first span to the second, of the same length on the same device.
    ///
    /// # Errors
    ///
    /// INTERNAL if two lengths differ; those of the driver. Some of the copies may then be enqueued.
    pub fn copy_within_device(
        &self,
        entered: &Entered<'_>,
        spans: &[(DeviceSpan<'_>, DeviceSpan<'_>)],
    ) -> Result<()> {
        let mut copies = Copies::with_capacity(Direction::WithinDevice, spans.len());
        for (source, dest) in spans {
            if source.len() != dest.len() {
                return Err(Error::internal("a copy's ends differ in length"));
            }
            copies.push(source.pointer(), dest.pointer(), source.len());
        }
        // SAFETY: device memory that stays allocated until the copies have run (`DeviceSpan`).
        unsafe { copies.enqueue(entered, self) }
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.context.give_back(|driver, _| {
            // SAFETY: made in `new` and destroyed only here. What is enqueued still runs.
            let _ = unsafe { call!(driver, cuStreamDestroy_v2(self.handle)) };
        });
    }
}
