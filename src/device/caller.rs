//! Streams of the caller's.

use std::ffi::c_uint;
use std::sync::Arc;

use super::context::DeviceContext;
use super::driver::call;
use super::event::Event;
use super::table::Handle;
use crate::error::{Code, Error, Result};

/// The legacy default stream (0 and 1) and that of the calling thread (2) belong to whatever context is
/// current.
const MAX_SPECIAL: usize = 2;

/// A stream of the caller's on the caller's thread: what a call is ordered with.
#[derive(Debug)]
pub struct CallerStream {
    context: Arc<DeviceContext>,
    handle: Handle,
}

impl CallerStream {
    /// The stream `handle`, which is of the context `default` if it is one of CUDA's special streams: 0 and
    /// 1, the legacy default stream, and 2, the calling thread's.
    ///
    /// # Safety
    ///
    /// `handle` is a live `CUstream` or `cudaStream_t`, or one of the special numbers, until `self` is
    /// dropped; its context lives until then and until the events are dropped that are made here.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION if the stream is being captured into a graph; those of the driver.
    pub unsafe fn new(handle: Handle, default: &Arc<DeviceContext>) -> Result<Self> {
        let entered = default.enter()?;
        let driver = entered.driver();
        let mut own = default.handle();
        if handle.addr() > MAX_SPECIAL {
            // SAFETY: the stream lives (the caller's promise); writes a handle.
            unsafe { call!(driver, cuStreamGetCtx(handle, &raw mut own)) }?;
        }
        let context = if own == default.handle() {
            Arc::clone(default)
        } else {
            // SAFETY: the context of a live stream lives (the caller's promise).
            unsafe { DeviceContext::borrow(own) }?
        };
        let stream = Self { context, handle };
        stream.refuse_capture()?;
        Ok(stream)
    }

    /// The ordinal of the stream's device.
    pub fn device(&self) -> i32 {
        self.context.device()
    }

    /// Refuses a stream of another device than `device`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT.
    pub fn expect_device(&self, device: i32) -> Result<()> {
        if self.device() == device {
            return Ok(());
        }
        Err(Error::invalid_argument(format!(
            "the stream is of CUDA device {}, not of {device}",
            self.device()
        )))
    }

    /// An event behind everything that the caller has enqueued.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn mark(&self) -> Result<Event> {
        let entered = self.context.enter()?;
        let event = Event::new(&entered)?;
        // SAFETY: both live; the event is of the stream's context.
        unsafe { call!(entered.driver(), cuEventRecord(event.handle(), self.handle)) }?;
        Ok(event)
    }

    /// Lets what the caller enqueues from now on wait for `event`, of whatever device.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn wait_for(&self, event: &Event) -> Result<()> {
        let entered = self.context.enter()?;
        // SAFETY: both live; an event may be destroyed while a stream waits for it.
        unsafe {
            call!(
                entered.driver(),
                cuStreamWaitEvent(self.handle, event.handle(), 0)
            )
        }
    }

    fn refuse_capture(&self) -> Result<()> {
        let entered = self.context.enter()?;
        let mut status: c_uint = 0;
        // SAFETY: the stream lives; writes a number.
        let asked = unsafe {
            call!(
                entered.driver(),
                cuStreamIsCapturing(self.handle, &raw mut status)
            )
        };
        asked.map_err(|error| match error.code() {
            // STREAM_CAPTURE_IMPLICIT
            Code::FailedPrecondition => error.with_prefix(
                "the stream waits for another one, which is being captured into a graph: ",
            ),
            _ => error,
        })?;
        if status == 0 {
            return Ok(());
        }
        Err(Error::failed_precondition(
            "the stream is being captured into a graph",
        ))
    }
}
