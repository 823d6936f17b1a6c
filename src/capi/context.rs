//! Context
//!
//! What outlives a call: the number of threads, and the memory that all calls on the context may hold
//! together. Wherever a context is taken, NULL stands for one that is made for the call.

use std::ffi::c_void;
use std::sync::Arc;

use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{
    Sized, array, borrow, check_out, free, init_struct, into_handle, put, read_struct,
};
use super::wall::{guard, guard_value};
use crate::device::DeviceContext;
use crate::{Context, ContextOptions, Result};

/// Resources that calls share. Any number of calls may use one at the same time.
pub struct tfckpt_context(Arc<Context>);

/// How a context is made. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_context_options {
    /// sizeof(tfckpt_context_options)
    pub struct_size: usize,
    /// Most bytes that the library holds for all calls on the context together, beyond the caller's
    /// memory and what it hands to the caller; 0 = 64 MiB, and 256 MiB from when a device first takes
    /// part; the least is 2 MiB, and 2 MiB for each device that takes part with 1 MiB more. A call waits
    /// until what it needs is free. For a job that copies the tensors of a save: their size, 2 MiB for each
    /// data file and thread (with devices 4 threads at least, unless num_threads says otherwise), 6 MiB for each
    /// tensor of strings, 2 MiB for each device that has taken part, and 1 MiB more, let it copy all before it
    /// writes. Page-locked buffers for devices take what is left then, up to 128 MiB each, which makes the
    /// copying faster; they are free again as soon as it is done.
    pub max_host_bytes: u64,
    /// Threads of a call, the calling one included; 0 = one per core that the process may use, at
    /// most 16.
    pub num_threads: u32,
    /// CUcontexts to be used in place of their devices' primary ones, num_cuda_contexts of them. They must
    /// live as long as the context and what was made with it.
    pub cuda_contexts: *const *mut c_void,
    /// Number of them.
    pub num_cuda_contexts: usize,
}

// SAFETY: `repr(C)`, begins with its size, integers and pointers only.
unsafe impl Sized for tfckpt_context_options {
    const NAME: &'static str = "tfckpt_context_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_context_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_context_options_init(
    options: *mut tfckpt_context_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Makes a context. options may be NULL. INVALID_ARGUMENT for a budget below the minimum; UNAVAILABLE for
/// cuda_contexts without a driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_context_new(
    options: *const tfckpt_context_options,
    context_out: *mut *mut tfckpt_context,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules.
    unsafe {
        guard(error_out, || {
            check_out(context_out, "context_out")?;
            let options = read_struct(options)?;
            let context = Context::new(ContextOptions {
                max_host_bytes: options.max_host_bytes,
                num_threads: options.num_threads,
            })?;
            let given = options.cuda_contexts;
            for &handle in array(given, options.num_cuda_contexts, "cuda_contexts")? {
                context.devices().give(DeviceContext::borrow(handle)?);
            }
            put(context_out, into_handle(tfckpt_context(Arc::new(context))));
            Ok(())
        })
    }
}

/// Frees the memory that the context keeps for the copies of jobs, and for copies from and to devices. It is
/// kept because fresh memory costs more than a copy into it; it counts against max_host_bytes, and goes by itself when other calls on the
/// context need it. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_context_trim(context: *const tfckpt_context) {
    guard_value((), || {
        // SAFETY: NULL or live, by the header's rules.
        if let Some(context) = unsafe { borrow(context) } {
            context.0.trim();
        }
    });
}

/// Frees a context. NULL is accepted. Readers, savers and jobs made with it keep what they need of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_context_free(context: *mut tfckpt_context) {
    // SAFETY: NULL or a context that the caller owns.
    unsafe { free(context) }
}

/// The context that a pointer names, or one for this call.
///
/// # Safety
///
/// `context` must be NULL or live.
pub(super) unsafe fn context_or_new(context: *const tfckpt_context) -> Result<Arc<Context>> {
    // SAFETY: the caller's promise.
    match unsafe { borrow(context) } {
        Some(context) => Ok(context.0.clone()),
        None => Ok(Arc::new(Context::new(ContextOptions::default())?)),
    }
}
