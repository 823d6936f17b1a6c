//! Where the driver's library comes from. The only file that names `cudarc`, and only its loader: its
//! functions panic where a symbol is missing, and its enums are undefined where a driver is newer.

use std::ffi::c_void;
use std::ptr::NonNull;

/// The driver's library, loaded for the life of the process.
pub struct Library(());

#[cfg(feature = "cuda")]
impl Library {
    /// Loads the library; the error says why there is none.
    pub fn open() -> Result<Self, &'static str> {
        // SAFETY: loads NVIDIA's library, whose initialisers are the driver's own, or finds it loaded.
        if unsafe { cudarc::driver::sys::is_culib_present() } {
            Ok(Self(()))
        } else {
            Err("there is no libcuda.so.1; NVIDIA's driver is not installed")
        }
    }

    /// The address of a symbol.
    pub fn find(&self, name: &str) -> Option<NonNull<c_void>> {
        // SAFETY: `open` has seen that the library loads. The type asked for is a plain address.
        let symbol = unsafe { cudarc::driver::sys::culib().get::<*mut c_void>(name) };
        NonNull::new(*symbol.ok()?)
    }
}

#[cfg(not(feature = "cuda"))]
impl Library {
    /// Says why there is none.
    pub fn open() -> Result<Self, &'static str> {
        Err("this library was built without it")
    }

    /// Never called, as there is no library.
    pub fn find(&self, _name: &str) -> Option<NonNull<c_void>> {
        None
    }
}
