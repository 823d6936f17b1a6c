//! The functions of the driver that this library calls, with integers for results: a driver may answer
//! with a code that is younger than this library.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::loader::Library;

/// A `CUcontext`, `CUstream` or `CUevent`.
pub type Handle = *mut c_void;

/// A `CUmemcpyAttributes`: how the driver may access the two ends of a copy.
#[derive(Debug)]
#[repr(C)]
pub struct CopyAttributes {
    /// When the source is read.
    pub source_access_order: u32,
    /// Type and number of the place of the source; read for managed memory only.
    pub source_location: [i32; 2],
    /// The same of the destination.
    pub dest_location: [i32; 2],
    /// None are used.
    pub flags: u32,
}

macro_rules! functions {
    (
        required { $($required:ident($($argument:ty),*);)* }
        optional { $($optional:ident($($optional_argument:ty),*);)* }
    ) => {
        /// The driver's functions under their own names.
        #[derive(Debug)]
        #[expect(non_snake_case, reason = "the names are the driver's")]
        pub struct Functions {
            $(pub $required: unsafe extern "C" fn($($argument),*) -> u32,)*
            $(pub $optional: Option<unsafe extern "C" fn($($optional_argument),*) -> u32>,)*
        }

        impl Functions {
            /// Finds them all; the error is the name of the first that is missing.
            pub fn load(library: &Library) -> Result<Self, &'static str> {
                Ok(Self {
                    $($required: {
                        let name = stringify!($required);
                        let address = library.find(name).ok_or(name)?;
                        // SAFETY: the driver's function of this name has this signature (cuda.h).
                        unsafe {
                            std::mem::transmute::<
                                std::ptr::NonNull<c_void>,
                                unsafe extern "C" fn($($argument),*) -> u32,
                            >(address)
                        }
                    },)*
                    $($optional: library.find(stringify!($optional)).map(|address| {
                        // SAFETY: as above.
                        unsafe {
                            std::mem::transmute::<
                                std::ptr::NonNull<c_void>,
                                unsafe extern "C" fn($($optional_argument),*) -> u32,
                            >(address)
                        }
                    }),)*
                })
            }
        }
    };
}

functions! {
    required {
        cuInit(c_uint);
        cuDriverGetVersion(*mut c_int);
        cuDeviceGetCount(*mut c_int);
        cuDeviceGet(*mut c_int, c_int);
        cuDeviceGetName(*mut c_char, c_int, c_int);
        cuDeviceGetAttribute(*mut c_int, c_int, c_int);
        cuDeviceTotalMem_v2(*mut usize, c_int);
        cuDevicePrimaryCtxRetain(*mut Handle, c_int);
        cuDevicePrimaryCtxRelease_v2(c_int);
        cuCtxPushCurrent_v2(Handle);
        cuCtxPopCurrent_v2(*mut Handle);
        cuCtxGetDevice(*mut c_int);
        cuThreadExchangeStreamCaptureMode(*mut c_uint);
        cuStreamCreate(*mut Handle, c_uint);
        cuStreamDestroy_v2(Handle);
        cuStreamSynchronize(Handle);
        cuStreamQuery(Handle);
        cuStreamWaitEvent(Handle, Handle, c_uint);
        cuStreamGetCtx(Handle, *mut Handle);
        cuStreamIsCapturing(Handle, *mut c_uint);
        cuEventCreate(*mut Handle, c_uint);
        cuEventDestroy_v2(Handle);
        cuEventRecord(Handle, Handle);
        cuEventQuery(Handle);
        cuEventSynchronize(Handle);
        cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
        cuMemFreeHost(*mut c_void);
        cuMemAlloc_v2(*mut u64, usize);
        cuMemFree_v2(u64);
        cuMemGetInfo_v2(*mut usize, *mut usize);
        cuMemcpyHtoDAsync_v2(u64, *const c_void, usize, Handle);
        cuMemcpyDtoHAsync_v2(*mut c_void, u64, usize, Handle);
        cuMemcpyDtoDAsync_v2(u64, u64, usize, Handle);
        cuPointerGetAttributes(c_uint, *const c_uint, *const *mut c_void, u64);
    }
    optional {
        // Without it errors are numbers only.
        cuGetErrorName(c_uint, *mut *const c_char);
        // CUDA 13.0, and the same as CUDA 12.8 had it, which also says which copy failed.
        cuMemcpyBatchAsync_v2(
            *const u64, *const u64, *const usize, usize,
            *const CopyAttributes, *const usize, usize, Handle
        );
        cuMemcpyBatchAsync(
            *const u64, *const u64, *const usize, usize,
            *const CopyAttributes, *const usize, usize, *mut usize, Handle
        );
    }
}
