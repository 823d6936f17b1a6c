//! GPUs
//!
//! A tensor of any save or restore in format V2 may be in the memory of a CUDA device: device_type
//! TFCKPT_DEVICE_CUDA, its number in device_id, a device pointer in data. In format V1 that is
//! UNIMPLEMENTED, and tensors of strings are on the host. The library loads NVIDIA's driver when it is
//! first needed; without one everything else works, and tensors on devices are UNAVAILABLE.
//!
//! ```c
//! tensor.device_type = TFCKPT_DEVICE_CUDA;
//! tensor.device_id = 0;
//! tensor.data = device_pointer;
//! tensor.stream = stream;        // NULL: the legacy default stream.
//! ```
//!
//! Order. The copies of a call come after what was enqueued on the tensors' streams before it, and have run
//! when it returns; with stream_ordered in the options of a restore it returns earlier, and what is
//! enqueued on those streams afterwards comes after the copies. Memory of a pool is valid on other streams
//! only behind its allocation, so say on which stream it was allocated. A call waits for its own copies, so
//! a stream that waits for something that the caller does only after the call has returned blocks it for
//! ever: give such tensors TFCKPT_TENSOR_UNORDERED, or use a job. A stream that is being captured into a
//! graph is FAILED_PRECONDITION, and so is the legacy default stream while one is that waits for it.
//!
//! Lifetime. A stream must live until every call that it is given to has returned; a job no longer needs it
//! once the call that starts it has returned. The stream's CUDA context must live until the job has ended.
//! Never give a call a stream that was destroyed: CUDA leaves undefined what it does with one, and the
//! library cannot tell it from one that lives.
//!
//! Memory. Bytes pass through page-locked buffers, at most 128 MiB for a device, within max_host_bytes: a
//! budget must hold 2 MiB for each device that takes part and 1 MiB more, and the default is 256 MiB once a
//! device takes part. The buffers are kept in the context, as making them takes longer than using them;
//! tfckpt_context_trim frees them. Those of a call with stream_ordered are in use until its copies have
//! run: others get buffers of their own as far as max_host_bytes goes, and wait for these beyond. So give
//! calls a context: one that is made for a call frees its buffers at the end, which may wait for everything
//! that the device has to do. The library takes device memory for device_snapshot and for tensors that it
//! hands out as DLPack, and for nothing else.
//!
//! Guest. The library uses each device's primary context, as the CUDA runtime does, and holds it as long as
//! the context of the library lives in which a call has used the device. After every call, and in progress
//! callbacks, the thread's current context is what it was, and a capture on another thread goes on. Nothing
//! is freed when the process exits, and a child that was forked after CUDA was used gets
//! FAILED_PRECONDITION.
//!
//! Errors of the driver have its number and name in their message: RESOURCE_EXHAUSTED for memory,
//! INVALID_ARGUMENT for a pointer or stream that is not the device's, INTERNAL for what is wrong with the
//! device. Then what the call restored on that device is undefined.

use std::ffi::{CString, c_char};

use parking_lot::Mutex;

use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{Sized, c_string, check_out, init_struct, write_struct};
use super::wall::guard;
use crate::Error;
use crate::device::{Description, DeviceDescription, describe, driver};

/// What NVIDIA's driver is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_cuda_driver {
    /// sizeof(tfckpt_cuda_driver); set by the caller.
    pub struct_size: usize,
    /// The newest CUDA that the driver supports, as CUDA counts: 13040 is CUDA 13.4.
    pub version: i32,
    /// Number of devices, as the environment lets the process see them.
    pub num_devices: i32,
    /// 1 if it enqueues many copies with one call, otherwise 0.
    pub has_batch_copies: i32,
}

// SAFETY: `repr(C)`, begins with its size, integers only.
unsafe impl Sized for tfckpt_cuda_driver {
    const NAME: &'static str = "tfckpt_cuda_driver";
}

/// What a device is. What is supported is 1 or 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_cuda_device {
    /// sizeof(tfckpt_cuda_device); set by the caller.
    pub struct_size: usize,
    /// As the driver calls it. It lives as long as the process.
    pub name: *const c_char,
    /// Bytes of memory.
    pub total_memory: u64,
    /// Major version of its compute capability.
    pub compute_major: i32,
    /// Minor version of its compute capability.
    pub compute_minor: i32,
    /// Copies that run at the same time, beside kernels.
    pub num_copy_engines: i32,
    /// The host's NUMA node that is closest; negative if the driver does not say.
    pub numa_node: i32,
    /// It reads the host's ordinary memory by itself.
    pub reads_pageable_memory: i32,
    /// The host's memory can be page-locked after it was allocated.
    pub registers_host_memory: i32,
    /// That can be done for memory that may only be read.
    pub registers_read_only_memory: i32,
    /// Memory can be allocated in the order of a stream.
    pub has_memory_pools: i32,
    /// Other devices reach its memory over the bus.
    pub has_direct_access: i32,
}

// SAFETY: `repr(C)`, begins with its size, integers and a pointer only.
unsafe impl Sized for tfckpt_cuda_device {
    const NAME: &'static str = "tfckpt_cuda_device";
}

/// Sets *driver to zeros; struct_size is sizeof(tfckpt_cuda_driver).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_cuda_driver_init(
    driver: *mut tfckpt_cuda_driver,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `driver` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(driver, struct_size)) }
}

/// Sets *device to zeros; struct_size is sizeof(tfckpt_cuda_device).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_cuda_device_init(
    device: *mut tfckpt_cuda_device,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `device` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(device, struct_size)) }
}

/// Whether tensors may be on CUDA devices: TFCKPT_OK, or why not. Loads the driver, but touches no device.
///
/// # Errors
///
/// UNAVAILABLE: there is no driver, no device, only a toolkit's stub of the driver, or the driver is too
/// old; FAILED_PRECONDITION in a process that was forked after CUDA was used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_cuda_available(error_out: *mut *mut tfckpt_error) -> tfckpt_code {
    // SAFETY: NULL or valid, by the header's rules.
    unsafe { guard(error_out, || driver().map(|_| ())) }
}

/// Fills *driver.
///
/// # Errors
///
/// As tfckpt_cuda_available.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_cuda_describe(
    driver: *mut tfckpt_cuda_driver,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            check_out(driver, "driver")?;
            let Description {
                driver_version,
                has_batch_copies,
                devices,
            } = describe()?;
            let value = tfckpt_cuda_driver {
                struct_size: 0,
                version: driver_version,
                num_devices: i32::try_from(devices.len()).unwrap_or(i32::MAX),
                has_batch_copies: i32::from(has_batch_copies),
            };
            write_struct(driver, &value)
        })
    }
}

/// Fills *device with what is known of the device with number device_id. Does not make a context on it.
///
/// # Errors
///
/// INVALID_ARGUMENT if there is no such device; as tfckpt_cuda_available.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_cuda_describe_device(
    device_id: i32,
    device: *mut tfckpt_cuda_device,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            check_out(device, "device")?;
            let devices = describe()?.devices;
            let found = usize::try_from(device_id).ok();
            let found = found.and_then(|id| devices.get(id)).ok_or_else(|| {
                let num = devices.len();
                Error::invalid_argument(format!(
                    "there is no CUDA device {device_id}; devices={num}"
                ))
            })?;
            write_struct(device, &to_c(found))
        })
    }
}

fn to_c(device: &DeviceDescription) -> tfckpt_cuda_device {
    tfckpt_cuda_device {
        struct_size: 0,
        name: keep(&device.name),
        total_memory: device.total_memory as u64,
        compute_major: device.compute_capability.0,
        compute_minor: device.compute_capability.1,
        num_copy_engines: device.num_copy_engines,
        numa_node: device.numa_node,
        reads_pageable_memory: i32::from(device.reads_pageable_memory),
        registers_host_memory: i32::from(device.registers_host_memory),
        registers_read_only_memory: i32::from(device.registers_read_only_memory),
        has_memory_pools: i32::from(device.has_memory_pools),
        has_direct_access: i32::from(device.has_direct_access),
    }
}

/// A text that lives as long as the process; each is kept once.
fn keep(text: &str) -> *const c_char {
    static KEPT: Mutex<Vec<&'static CString>> = parking_lot::const_mutex(Vec::new());
    let text = c_string(text);
    let mut kept = KEPT.lock();
    if let Some(known) = kept.iter().find(|known| ***known == text) {
        return known.as_ptr();
    }
    let new: &'static CString = Box::leak(Box::new(text));
    kept.push(new);
    new.as_ptr()
}
