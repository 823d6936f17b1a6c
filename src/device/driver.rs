//! The driver: whether there is one, and which devices it has.

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

use super::loader::Library;
use super::status::{self, INVALID_VALUE};
use super::table::Functions;
use crate::error::{Error, Result};

/// The oldest driver that is used, as `cuDriverGetVersion` counts: CUDA 11.4.
const MIN_VERSION: i32 = 11_040;

/// NVIDIA's driver, loaded and initialised.
#[derive(Debug)]
pub struct Driver {
    functions: Functions,
    version: i32,
    num_devices: i32,
    /// The process that initialised it. A child of that process cannot use it.
    pid: u32,
}

/// Calls a function of the driver by its name; the error names the function.
macro_rules! call {
    ($driver:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let functions = $driver.functions();
        $crate::device::status::check(
            functions,
            stringify!($name),
            (functions.$name)($($argument),*),
        )
    }};
}
pub(super) use call;

/// The driver, which is looked for once per process.
///
/// # Errors
///
/// UNAVAILABLE when it cannot be used, with the reason; FAILED_PRECONDITION in a process that was forked
/// from one that had used it.
pub fn driver() -> Result<&'static Driver> {
    static DRIVER: OnceLock<Result<Driver>> = OnceLock::new();
    let driver = DRIVER.get_or_init(Driver::open).as_ref();
    let driver = driver.map_err(Clone::clone)?;
    driver.check_process()?;
    Ok(driver)
}

impl Driver {
    fn open() -> Result<Self> {
        let unavailable =
            |reason: String| Error::unavailable(format!("CUDA is unavailable: {reason}"));
        let library = Library::open().map_err(|reason| unavailable(reason.to_owned()))?;
        let functions = Functions::load(&library);
        let functions = functions
            .map_err(|name| unavailable(format!("the driver is too old, it has no {name}")))?;
        let check = |symbol, code| match code {
            0 => Ok(()),
            code => Err(status::unavailable(&functions, symbol, code)),
        };

        let mut version = 0;
        // SAFETY: writes an integer.
        let code = unsafe { (functions.cuDriverGetVersion)(&raw mut version) };
        check("cuDriverGetVersion", code)?;
        if version < MIN_VERSION {
            return Err(unavailable(format!(
                "the driver is too old, it is of CUDA {} and {} is the least",
                Version(version),
                Version(MIN_VERSION)
            )));
        }
        // SAFETY: takes no flags.
        check("cuInit", unsafe { (functions.cuInit)(0) })?;
        let mut num_devices = 0;
        // SAFETY: writes an integer.
        let code = unsafe { (functions.cuDeviceGetCount)(&raw mut num_devices) };
        check("cuDeviceGetCount", code)?;
        if num_devices < 1 {
            return Err(unavailable("there is no device".to_owned()));
        }
        Ok(Self {
            functions,
            version,
            num_devices,
            pid: std::process::id(),
        })
    }

    /// The newest CUDA that the driver supports, as it counts: 13040 is CUDA 13.4.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Number of devices, as the environment lets this process see them.
    pub fn num_devices(&self) -> i32 {
        self.num_devices
    }

    /// Whether many copies can be enqueued by one call.
    pub fn has_batch_copies(&self) -> bool {
        self.functions.cuMemcpyBatchAsync_v2.is_some()
            || self.functions.cuMemcpyBatchAsync.is_some()
    }

    /// Whether this is the process that initialised the driver.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(super) fn check_process(&self) -> Result<()> {
        if self.is_of_this_process() {
            return Ok(());
        }
        Err(Error::failed_precondition(
            "CUDA was used before this process was forked, and does not survive that",
        ))
    }

    pub(super) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The driver's own number for the device with ordinal `device`.
    pub(super) fn device(&self, device: i32) -> Result<c_int> {
        if !(0..self.num_devices).contains(&device) {
            return Err(Error::invalid_argument(format!(
                "there is no CUDA device {device}; devices={}",
                self.num_devices
            )));
        }
        let mut handle = 0;
        // SAFETY: writes an integer.
        unsafe { call!(self, cuDeviceGet(&raw mut handle, device)) }?;
        Ok(handle)
    }

    /// An attribute of a device by the driver's own number; `None` to a driver older than the attribute.
    pub(super) fn attribute(&self, attribute: c_int, device: c_int) -> Result<Option<i32>> {
        let mut value = 0;
        // SAFETY: writes an integer.
        let code =
            unsafe { (self.functions.cuDeviceGetAttribute)(&raw mut value, attribute, device) };
        match code {
            INVALID_VALUE => Ok(None),
            code => {
                status::check(&self.functions, "cuDeviceGetAttribute", code).map(|()| Some(value))
            }
        }
    }

    /// The name of a device by the driver's own number.
    pub(super) fn device_name(&self, device: c_int) -> Result<String> {
        let mut name = [0u8; 256];
        let text = name.as_mut_ptr().cast();
        // SAFETY: writes a text of at most 256 bytes, its end included.
        unsafe { call!(self, cuDeviceGetName(text, 256, device)) }?;
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }
}

/// A version as people write it.
pub struct Version(pub i32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}
