//! Page-locked host memory on its way to and from a device.

use std::ffi::c_uint;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::context::{DeviceContext, Entered};
use super::copies::{Copies, Direction};
use super::driver::call;
use super::event::Event;
use super::numa;
use super::span::DeviceSpan;
use super::stream::Stream;
use crate::error::{Error, Result};

/// CU_MEMHOSTALLOC_PORTABLE: page-locked for every context. Never write-combined, which the processor
/// reads seventy times slower.
const PORTABLE: c_uint = 1;

/// A buffer that either the host uses or the device.
///
/// [`upload`](Self::upload) and [`download`](Self::download) give it to the device and return at once;
/// [`is_idle`](Self::is_idle) gives it back to the host when the device has done with it, and only then are
/// there [`bytes`](Self::bytes). So no byte is changed, read or freed while a copy is under way.
#[derive(Debug)]
pub struct PinnedBuffer {
    context: Arc<DeviceContext>,
    start: NonNull<u8>,
    len: usize,
    /// Where the last copies end.
    done: Event,
    user: User,
}

/// Who uses a buffer.
#[derive(Debug)]
enum User {
    Host,
    /// Copies on this stream, until the buffer's event.
    Device(Arc<Stream>),
    /// Copies on this stream whose end could not be recorded.
    Unmarked(Arc<Stream>),
}

/// A copy between part of a buffer, as long as the span, and a device.
#[derive(Clone, Copy, Debug)]
pub struct PinnedCopy<'a> {
    /// Where the part begins in the buffer.
    pub offset: usize,
    /// The device memory.
    pub device: DeviceSpan<'a>,
}

// SAFETY: the buffer owns its memory and hands out access only through borrows of itself; page-locked
// memory has no thread.
unsafe impl Send for PinnedBuffer {}
// SAFETY: shared borrows give out its length only.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    /// Allocates `len` bytes, at least one, aligned to a page, in memory near the device. This takes long,
    /// about 0.1 s per GB.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when the memory cannot be had; others of the driver.
    pub fn new(entered: &Entered<'_>, len: usize) -> Result<Self> {
        let len = len.max(1);
        let done = Event::new(entered)?;
        let mut start = ptr::null_mut();
        let driver = entered.driver();
        // SAFETY: writes an address, which is freed in `drop`.
        let allocate = || unsafe { call!(driver, cuMemHostAlloc(&raw mut start, len, PORTABLE)) };
        numa::on_node(entered.host_node()?, allocate)
            .map_err(|error| error.with_prefix(format!("page-locking {len} bytes: ")))?;
        let start = NonNull::new(start.cast());
        Ok(Self {
            context: Arc::clone(entered.context()),
            start: start.ok_or_else(|| Error::internal("page-locked memory is at no address"))?,
            len,
            done,
            user: User::Host,
        })
    }

    /// Number of bytes, at least one.
    pub fn capacity(&self) -> usize {
        self.len
    }

    /// The ordinal of the device that it was made for.
    pub fn device(&self) -> i32 {
        self.context.device()
    }

    /// Whether the host has the bytes, which it gets back here if the copies have run.
    ///
    /// # Errors
    ///
    /// Those of the driver, among them what went wrong on the device before.
    pub fn is_idle(&mut self, entered: &Entered<'_>) -> Result<bool> {
        if let User::Unmarked(stream) = &self.user {
            stream.record(entered, &self.done)?;
            self.user = User::Device(Arc::clone(stream));
        }
        if let User::Device(_) = &self.user {
            if !self.done.is_reached(entered)? {
                return Ok(false);
            }
            self.user = User::Host;
        }
        Ok(true)
    }

    /// Whether copies may be under way, on any thread.
    pub fn is_busy(&self) -> bool {
        match &self.user {
            User::Host => false,
            User::Device(_) => {
                let entered = self.context.enter();
                let is_reached = entered.and_then(|entered| self.done.is_reached(&entered));
                !is_reached.unwrap_or(false)
            }
            User::Unmarked(_) => true,
        }
    }

    /// The bytes, if the host has them: once [`is_idle`](Self::is_idle) has said so, until copies are
    /// enqueued.
    pub fn bytes(&mut self) -> Option<&mut [u8]> {
        match &self.user {
            // SAFETY: allocated with this length, and initialised, as pages of the system are. No copy is
            // under way, and `&mut self` makes the access exclusive.
            User::Host => unsafe {
                let (start, len) = (self.start.as_ptr(), self.len);
                Some(std::slice::from_raw_parts_mut(start, len))
            },
            _ => None,
        }
    }

    /// Enqueues copies from the buffer to a device, in no order among themselves. May be called again
    /// before they have run.
    ///
    /// # Errors
    ///
    /// INTERNAL if a copy reaches beyond the buffer; those of the driver. Some of the copies may then be
    /// enqueued, and the buffer is the device's until they have run.
    pub fn upload(
        &mut self,
        entered: &Entered<'_>,
        stream: &Arc<Stream>,
        copies: &[PinnedCopy<'_>],
    ) -> Result<()> {
        self.enqueue(entered, stream, copies, Direction::ToDevice)
    }

    /// Enqueues copies from a device to the buffer. Otherwise as [`upload`](Self::upload).
    ///
    /// # Errors
    ///
    /// As [`upload`](Self::upload).
    pub fn download(
        &mut self,
        entered: &Entered<'_>,
        stream: &Arc<Stream>,
        copies: &[PinnedCopy<'_>],
    ) -> Result<()> {
        self.enqueue(entered, stream, copies, Direction::ToHost)
    }

    fn enqueue(
        &mut self,
        entered: &Entered<'_>,
        stream: &Arc<Stream>,
        copies: &[PinnedCopy<'_>],
        direction: Direction,
    ) -> Result<()> {
        let mut list = Copies::with_capacity(direction, copies.len());
        for copy in copies {
            let len = copy.device.len();
            let end = copy.offset.checked_add(len);
            if end.is_none_or(|end| end > self.len) {
                return Err(Error::internal("a copy reaches beyond its buffer"));
            }
            // SAFETY: inside the allocation, as was just checked.
            let host = unsafe { self.start.as_ptr().add(copy.offset) };
            let host = host.expose_provenance() as u64;
            let device = copy.device.pointer();
            match direction {
                Direction::ToDevice => list.push(host, device, len),
                _ => list.push(device, host, len),
            }
        }
        // One event stands for one stream.
        if !matches!(&self.user, User::Device(user) if Arc::ptr_eq(user, stream)) {
            self.wait(entered)?;
        }
        self.user = User::Unmarked(Arc::clone(stream));
        // SAFETY: the buffer's bytes are not touched or freed before `wait` has seen the copies end; the
        // device's memory is a promise of `DeviceSpan`.
        let enqueued = unsafe { list.enqueue(entered, stream) };
        let recorded = stream.record(entered, &self.done);
        if recorded.is_ok() {
            self.user = User::Device(Arc::clone(stream));
        }
        enqueued.and(recorded)
    }

    /// Waits until no copy is under way.
    fn wait(&mut self, entered: &Entered<'_>) -> Result<()> {
        match &self.user {
            User::Host => return Ok(()),
            User::Device(_) => self.done.wait(entered)?,
            User::Unmarked(stream) => stream.synchronize(entered)?,
        }
        self.user = User::Host;
        Ok(())
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        let context = Arc::clone(&self.context);
        context.give_back(|driver, entered| {
            // An error says that the device is lost, and copies nothing any more; the first one may be about
            // anything.
            let _ = entered.map(|entered| self.wait(entered).or_else(|_| self.wait(entered)));
            // SAFETY: allocated in `new` and freed only here; no copy is under way.
            let _ = unsafe { call!(driver, cuMemFreeHost(self.start.as_ptr().cast())) };
        });
    }
}
