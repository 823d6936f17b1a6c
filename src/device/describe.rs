//! What the driver and its devices are.

use super::context::HOST_NUMA_ID;
use super::driver::{Driver, call, driver};
use crate::error::{Error, Result};

/// The driver and its devices.
#[derive(Debug, Clone)]
pub struct Description {
    /// The newest CUDA that the driver supports, as it counts: 13040 is CUDA 13.4.
    pub driver_version: i32,
    /// Whether many copies can be enqueued by one call.
    pub has_batch_copies: bool,
    /// The devices in the order of their ordinals.
    pub devices: Vec<DeviceDescription>,
}

/// One device.
#[derive(Debug, Clone)]
pub struct DeviceDescription {
    /// As the driver calls it.
    pub name: String,
    /// Bytes of memory.
    pub total_memory: usize,
    /// Major and minor version of what its processors can do.
    pub compute_capability: (i32, i32),
    /// Copies that run at the same time, beside kernels.
    pub num_copy_engines: i32,
    /// Whether it reads the host's ordinary memory by itself.
    pub reads_pageable_memory: bool,
    /// Whether the host's memory can be page-locked after it was allocated.
    pub registers_host_memory: bool,
    /// Whether that can be done for memory that may only be read.
    pub registers_read_only_memory: bool,
    /// Whether memory can be allocated in the order of a stream.
    pub has_memory_pools: bool,
    /// Whether other devices reach its memory over the bus.
    pub has_direct_access: bool,
    /// The host's NUMA node that is closest; negative if the driver does not say.
    pub numa_node: i32,
}

/// Describes the driver and every device. Touches no device's memory or context.
///
/// # Errors
///
/// Those of [`driver`], and of the driver.
pub fn describe() -> Result<Description> {
    let driver = driver()?;
    Ok(Description {
        driver_version: driver.version(),
        has_batch_copies: driver.has_batch_copies(),
        devices: (0..driver.num_devices())
            .map(|device| describe_device(driver, device))
            .collect::<Result<_>>()?,
    })
}

fn describe_device(driver: &Driver, device: i32) -> Result<DeviceDescription> {
    let device = driver.device(device)?;
    let number = |code| Ok(driver.attribute(code, device)?.unwrap_or_default());
    let flag = |code| Ok::<_, Error>(number(code)? != 0);
    let mut total_memory = 0;
    // SAFETY: writes an integer.
    unsafe { call!(driver, cuDeviceTotalMem_v2(&raw mut total_memory, device)) }?;
    Ok(DeviceDescription {
        name: driver.device_name(device)?,
        total_memory,
        compute_capability: (number(75)?, number(76)?),
        num_copy_engines: number(40)?,
        reads_pageable_memory: flag(88)?,
        registers_host_memory: flag(99)?,
        registers_read_only_memory: flag(113)?,
        has_memory_pools: flag(115)?,
        has_direct_access: flag(116)?,
        numa_node: driver.attribute(HOST_NUMA_ID, device)?.unwrap_or(-1),
    })
}
