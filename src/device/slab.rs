//! Device memory that the library owns.

use std::sync::Arc;

use super::context::{DeviceContext, Entered};
use super::driver::call;
use super::span::DeviceSpan;
use crate::error::{Error, Result};

/// One allocation of device memory, aligned to 256 bytes or more.
///
/// It is freed when dropped, on any thread; whoever uses it has ordered that before.
#[derive(Debug)]
pub struct DeviceMemory {
    context: Arc<DeviceContext>,
    address: u64,
    len: usize,
}

impl DeviceMemory {
    /// Allocates `len` bytes on the device of the entered context; what they hold is anything.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when the device has no such room; others of the driver.
    pub fn new(entered: &Entered<'_>, len: usize) -> Result<Self> {
        let mut address = 0;
        // An allocation of no bytes is refused.
        let size = len.max(1);
        // SAFETY: writes an address, which is freed in `drop`.
        unsafe { call!(entered.driver(), cuMemAlloc_v2(&raw mut address, size)) }.map_err(
            |error| {
                let device = entered.context().device();
                error.with_prefix(format!("allocating {len} bytes on CUDA device {device}: "))
            },
        )?;
        let memory = Self {
            context: Arc::clone(entered.context()),
            address,
            len,
        };
        match usize::try_from(address) {
            Ok(_) => Ok(memory),
            Err(_) => Err(Error::internal("a device address is wider than a pointer")),
        }
    }

    /// All of it.
    pub fn span(&self) -> DeviceSpan<'_> {
        let address = usize::try_from(self.address).unwrap_or_default();
        // SAFETY: allocated until `self` is dropped.
        unsafe { DeviceSpan::from_raw_parts(address, self.len, self.context.device()) }
    }

    /// The context it is allocated in.
    pub fn context(&self) -> &Arc<DeviceContext> {
        &self.context
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.context.give_back(|driver, _| {
            // SAFETY: allocated in `new` and freed only here. The driver may wait for what still uses it, but
            // does not promise to: users have ordered their work before.
            let _ = unsafe { call!(driver, cuMemFree_v2(self.address)) };
        });
    }
}
