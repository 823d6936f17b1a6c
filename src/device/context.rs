//! Contexts: what a process has on a device, and how a thread gets at it as a guest.

use std::ffi::{c_int, c_uint};
use std::marker::PhantomData;
use std::ptr;
use std::sync::{Arc, OnceLock};

use super::driver::{Driver, call, driver};
use super::numa;
use super::table::Handle;
use crate::error::{Error, Result};

/// CU_STREAM_CAPTURE_MODE_RELAXED: what this thread does is no business of a capture elsewhere.
const RELAXED: c_uint = 2;

/// CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID
pub(super) const HOST_NUMA_ID: c_int = 134;

/// A context of a device: the primary one, which the CUDA runtime and every engine use, or one that the
/// caller gave.
#[derive(Debug)]
pub struct DeviceContext {
    driver: &'static Driver,
    handle: Handle,
    /// The device's ordinal.
    device: i32,
    /// The driver's own number of the device whose primary context is retained here.
    retained: Option<c_int>,
    /// What `host_node` has found out.
    host_node: OnceLock<Option<i32>>,
}

// SAFETY: the handle may be used from any thread (CUDA's rule), and nothing here changes.
unsafe impl Send for DeviceContext {}
// SAFETY: as for `Send`.
unsafe impl Sync for DeviceContext {}

impl DeviceContext {
    /// The primary context of the device with ordinal `device`, retained until the last handle on it that
    /// is made here is dropped. If nobody else in the process uses the device, this creates the context,
    /// which takes time and device memory.
    ///
    /// # Errors
    ///
    /// Those of [`driver`]; INVALID_ARGUMENT if there is no such device; those of the driver.
    pub fn primary(device: i32) -> Result<Arc<Self>> {
        let driver = driver()?;
        let number = driver.device(device)?;
        let mut handle = ptr::null_mut();
        // SAFETY: writes a handle, which is released in `drop`.
        unsafe { call!(driver, cuDevicePrimaryCtxRetain(&raw mut handle, number)) }?;
        Ok(Arc::new(Self {
            driver,
            handle,
            device,
            retained: Some(number),
            host_node: OnceLock::new(),
        }))
    }

    /// A context that the caller owns, of whatever device.
    ///
    /// # Safety
    ///
    /// `handle` is a live `CUcontext`, and stays so until what is made with it here is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`driver`]; those of the driver.
    pub unsafe fn borrow(handle: Handle) -> Result<Arc<Self>> {
        let driver = driver()?;
        let context = Arc::new(Self {
            driver,
            handle,
            device: 0,
            retained: None,
            host_node: OnceLock::new(),
        });
        let device = context.enter()?.device()?;
        Ok(Arc::new(Self {
            driver,
            handle,
            device,
            retained: None,
            host_node: OnceLock::new(),
        }))
    }

    /// The device's ordinal.
    pub fn device(&self) -> i32 {
        self.device
    }

    /// Makes the context current on this thread until the result is dropped. The thread may be the
    /// caller's, with a context of its own, or within a capture.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION in a process that was forked; those of the driver.
    pub fn enter(self: &Arc<Self>) -> Result<Entered<'_>> {
        self.driver.check_process()?;
        // SAFETY: the context is retained, or lives by the promise made to `borrow`.
        unsafe { call!(self.driver, cuCtxPushCurrent_v2(self.handle)) }?;
        let mut mode = RELAXED;
        // SAFETY: reads a mode and writes the one it replaces.
        let exchanged = unsafe {
            call!(
                self.driver,
                cuThreadExchangeStreamCaptureMode(&raw mut mode)
            )
        };
        let entered = Entered {
            context: self,
            mode: exchanged.is_ok().then_some(mode),
            thread: PhantomData,
        };
        exchanged.map(|()| entered)
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }

    /// Runs what gives something back to the driver, within the context if it can be entered. Errors tell
    /// nobody anything: the process may be exiting, or the device lost. In a forked process nothing is
    /// given back.
    pub(super) fn give_back(self: &Arc<Self>, free: impl FnOnce(&Driver, Option<&Entered<'_>>)) {
        if self.driver.is_of_this_process() {
            // A second try, as what is not given back now is lost for good.
            let entered = self.enter().or_else(|_| self.enter());
            free(self.driver, entered.ok().as_ref());
        }
    }
}

impl Drop for DeviceContext {
    fn drop(&mut self) {
        let Some(device) = self.retained else { return };
        if self.driver.is_of_this_process() {
            // SAFETY: retained once in `primary`; everything made with it has been dropped, as it holds
            // the context. The driver may be gone when the process exits, which is no error.
            let _ = unsafe { call!(self.driver, cuDevicePrimaryCtxRelease_v2(device)) };
        }
    }
}

/// A context that is current on this thread. What it replaced is back once this is dropped.
#[derive(Debug)]
pub struct Entered<'c> {
    context: &'c Arc<DeviceContext>,
    /// How the thread behaved towards captures before, if that was changed.
    mode: Option<c_uint>,
    /// The stack of contexts is the thread's.
    thread: PhantomData<*mut ()>,
}

impl Entered<'_> {
    /// The context.
    pub fn context(&self) -> &Arc<DeviceContext> {
        self.context
    }

    /// Bytes of device memory that are free, whoever used them before.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn free_memory(&self) -> Result<usize> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two integers.
        unsafe {
            call!(
                self.driver(),
                cuMemGetInfo_v2(&raw mut free, &raw mut total)
            )
        }?;
        Ok(free)
    }

    /// The NUMA node of the host that is nearest to the device, if there are several and the driver knows.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub(super) fn host_node(&self) -> Result<Option<i32>> {
        if let Some(&known) = self.context.host_node.get() {
            return Ok(known);
        }
        let node = match numa::has_several_nodes() {
            true => {
                let driver = self.driver();
                let number = driver.device(self.context.device)?;
                let node = driver.attribute(HOST_NUMA_ID, number)?;
                node.filter(|&node| node >= 0)
            }
            false => None,
        };
        Ok(*self.context.host_node.get_or_init(|| node))
    }

    pub(super) fn driver(&self) -> &'static Driver {
        self.context.driver
    }

    /// The ordinal of the current context's device.
    fn device(&self) -> Result<i32> {
        let driver = self.driver();
        let mut number = 0;
        // SAFETY: writes an integer.
        unsafe { call!(driver, cuCtxGetDevice(&raw mut number)) }?;
        for device in 0..driver.num_devices() {
            if driver.device(device)? == number {
                return Ok(device);
            }
        }
        Err(Error::internal(
            "a context is of a device without an ordinal",
        ))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let driver = self.driver();
        if !driver.is_of_this_process() {
            return;
        }
        if let Some(mut mode) = self.mode {
            // SAFETY: gives the thread the mode back that `enter` replaced.
            let _ = unsafe { call!(driver, cuThreadExchangeStreamCaptureMode(&raw mut mode)) };
        }
        let mut popped = ptr::null_mut();
        // SAFETY: takes away what `enter` pushed, on the same thread.
        let _ = unsafe { call!(driver, cuCtxPopCurrent_v2(&raw mut popped)) };
    }
}
