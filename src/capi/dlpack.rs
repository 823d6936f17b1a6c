//! DLPack
//!
//! Tensors to and from other libraries, as DLPack's DLManagedTensorVersioned: the struct that PyTorch, JAX,
//! CuPy and NumPy exchange. This header names it only; whoever looks inside includes dlpack.h, before or
//! after this one.
//!
//! In: tfckpt_tensor_from_dlpack describes a tensor of another library's to a save or restore, which
//! borrows it.
//!
//! Out: tfckpt_reader_restore_dlpack restores tensors into memory that it allocates, on the host and on
//! GPUs. Data types and shapes come from the checkpoint.
//!
//! ```c
//! tfckpt_dlpack_request request = TFCKPT_DLPACK_REQUEST_INIT;
//! request.key = "dense/kernel";
//! request.key_size = strlen(request.key);
//! request.device_type = TFCKPT_DEVICE_CUDA;
//!
//! struct DLManagedTensorVersioned *kernel = NULL;
//! tfckpt_reader_restore_dlpack(reader, &request, 1, NULL, &kernel, NULL, &error);
//! // ... kernel->dl_tensor ...
//! kernel->deleter(kernel);
//! ```
//!
//! Ownership. Each tensor is the caller's, who calls its deleter once: on any thread, whatever CUDA context
//! is current there, and also when reader and context are gone. Tensors share allocations; the memory of
//! one goes back when the last tensor in it is deleted. max_slab_size says how many share one.
//!
//! What is handed out begins at a multiple of 256 bytes, is contiguous with its strides given, has
//! byte_offset 0, and NULL for data if it has no elements. 2- and 4-bit types take a byte for each element,
//! as in checkpoints, which a flag says. Tensors of strings, variants and quantized types have no form in
//! DLPack: UNIMPLEMENTED.
//!
//! Memory of the library's own on a GPU is invisible to the figures of the engine around it. A deleter knows
//! no stream: who calls it has ordered its work on the memory before, as CUDA promises of cuMemFree only that
//! it may wait for the device. With alloc and free the memory is the engine's, such as that of torch's
//! caching_allocator_alloc.

use std::ffi::{c_char, c_void};

use super::dlpack_restore::{restore, stream_wait};
use super::dltensor::DLManagedTensorVersioned;
use super::error::{tfckpt_code, tfckpt_error};
use super::handle::{
    Sized, array_mut, borrow, check_out, init_struct, put, read_struct, required, write_struct,
};
use super::reader::tfckpt_reader;
use super::restore::{codes, tfckpt_restore_options};
use super::struct_array::StructArray;
use super::tensor::tfckpt_tensor;
use super::wall::{guard, guard_handle};

// header:
// /* DLPack's own, from dlpack.h. */
// struct DLManagedTensorVersioned;

/// Sets dtype, rank, shape, data, size, device_type and device_id of *tensor to those of *managed; the other
/// fields stay, so that tensor is set up before, and gets its key. shape and data are borrowed: managed must
/// live as long as tensor is used. A for_restore that is not 0 refuses a tensor that is read-only.
///
/// Memory of the host, page-locked or not, is taken as TFCKPT_DEVICE_HOST; that of CUDA devices, managed or
/// not, as TFCKPT_DEVICE_CUDA.
///
/// # Errors
///
/// INVALID_ARGUMENT for a tensor that is not contiguous, row-major, or is read-only, or contradicts itself;
/// UNIMPLEMENTED for a version, kind of device or data type that is unknown here. 2- and 4-bit types must
/// have a byte for each element, and say so by their flags. *tensor is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_tensor_from_dlpack(
    managed: *const DLManagedTensorVersioned,
    for_restore: i32,
    tensor: *mut tfckpt_tensor,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            check_out(managed.cast_mut(), "managed")?;
            check_out(tensor, "tensor")?;
            let mut described = read_struct(tensor)?;
            DLManagedTensorVersioned::describe(managed, for_restore != 0, &mut described)?;
            write_struct(tensor, &described)
        })
    }
}

/// A tensor to be restored into memory of the library's. In an array the first element's struct_size is the
/// stride.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_dlpack_request {
    /// sizeof(tfckpt_dlpack_request)
    pub struct_size: usize,
    /// Name in the checkpoint: any bytes, at least one.
    pub key: *const c_char,
    /// Length of the key in bytes.
    pub key_size: usize,
    /// As in tfckpt_tensor; NULL or "" for a whole tensor.
    pub slice_spec: *const c_char,
    /// TFCKPT_DEVICE_*, where the tensor is to be.
    pub device_type: i32,
    /// Number of the device; 0 for the host.
    pub device_id: i32,
    /// Of a tensor on a device: the stream that it will be used on, as in tfckpt_tensor. alloc is told, and
    /// with stream_ordered that stream waits for the copies (other streams by tfckpt_dlpack_stream_wait);
    /// otherwise they have run when the call returns. NULL for the host.
    pub stream: *mut c_void,
}

// SAFETY: `repr(C)`, begins with its size, integers and pointers only.
unsafe impl Sized for tfckpt_dlpack_request {
    const NAME: &'static str = "tfckpt_dlpack_request";
}

/// Sets *request to zeros; struct_size is sizeof(tfckpt_dlpack_request).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_dlpack_request_init(
    request: *mut tfckpt_dlpack_request,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `request` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(request, struct_size)) }
}

/// Returns size bytes, at a multiple of alignment, of the device with number device_id or, if device_type
/// is TFCKPT_DEVICE_HOST, of the host; NULL if there are none. stream is that of the requests. It is called
/// on the thread of the call; the memory must be usable on stream behind what is enqueued there when alloc
/// returns. It must not throw.
pub type tfckpt_dlpack_alloc_fn = Option<
    unsafe extern "C" fn(
        size: usize,
        alignment: usize,
        device_type: i32,
        device_id: i32,
        stream: *mut c_void,
        user_data: *mut c_void,
    ) -> *mut c_void,
>;

/// Takes back what alloc returned, which was called with the same arguments. It is called once for each
/// allocation, on the thread that calls the last deleter, or within the call that fails; the copies of the
/// library have run, those and the kernels of others need not have. It must not throw.
pub type tfckpt_dlpack_free_fn = Option<
    unsafe extern "C" fn(
        data: *mut c_void,
        size: usize,
        device_type: i32,
        device_id: i32,
        stream: *mut c_void,
        user_data: *mut c_void,
    ),
>;

/// How tensors are restored and allocated. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_dlpack_options {
    /// sizeof(tfckpt_dlpack_options)
    pub struct_size: usize,
    /// NULL = the default.
    pub restore: *const tfckpt_restore_options,
    /// Most bytes of an allocation that tensors share, of which there is one for each device and stream, and
    /// more when they are full; 0 = 1 GiB. A tensor that is larger has one for itself; with 1 each has.
    pub max_slab_size: u64,
    /// NULL = memory of the library's own, that of the host in huge pages where there is much of it.
    pub alloc: tfckpt_dlpack_alloc_fn,
    /// Not NULL if alloc is not.
    pub free: tfckpt_dlpack_free_fn,
    /// Passed to alloc and free; must be valid until the last deleter has returned.
    pub user_data: *mut c_void,
}

// SAFETY: `repr(C)`, begins with its size, integers, pointers and optional functions only.
unsafe impl Sized for tfckpt_dlpack_options {
    const NAME: &'static str = "tfckpt_dlpack_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_dlpack_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_dlpack_options_init(
    options: *mut tfckpt_dlpack_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// As tfckpt_reader_restore, into memory that the call allocates: tensors_out, an array of num_requests
/// pointers, gets one tensor for each request. Each is the caller's, to be given back by its deleter; NULL
/// stands for one that was not restored. Without codes_out, and without keep_going in the options, all are
/// NULL after an error, and everything that was allocated has been freed. options and codes_out may be NULL.
///
/// Before anything is allocated, all requests are compared with the checkpoint and its data files.
///
/// # Errors
///
/// As tfckpt_restore; RESOURCE_EXHAUSTED when there is not as much memory, before any tensor is restored;
/// UNIMPLEMENTED for a data type that DLPack does not have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_reader_restore_dlpack(
    reader: *const tfckpt_reader,
    requests: *const tfckpt_dlpack_request,
    num_requests: usize,
    options: *const tfckpt_dlpack_options,
    tensors_out: *mut *mut DLManagedTensorVersioned,
    codes_out: *mut tfckpt_code,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        let handle = borrow(reader);
        guard_handle(handle.map(|reader| &reader.poison), error_out, || {
            let out = array_mut(tensors_out, num_requests, "tensors_out")?;
            for slot in out.iter_mut() {
                put(slot.as_mut_ptr(), std::ptr::null_mut());
            }
            let codes = codes(codes_out, num_requests)?;
            let reader = required(reader, "reader")?;
            let requests = StructArray::new(requests, num_requests, "requests")?;
            restore(reader, &requests, &read_struct(options)?, out, codes)
        })
    }
}

/// Lets what is enqueued on stream from now on come after the copies into a tensor that was handed out with
/// stream_ordered: what a producer does in __dlpack__(stream=...). stream is as in tfckpt_tensor, of
/// whatever device; it must live until this has returned, and one that was destroyed is undefined. Without
/// stream_ordered the copies have run, as they have into host memory, and there is nothing to wait for.
///
/// # Errors
///
/// INVALID_ARGUMENT for a tensor that was not handed out by this library; FAILED_PRECONDITION for a stream
/// that is being captured into a graph.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_dlpack_stream_wait(
    managed: *const DLManagedTensorVersioned,
    stream: *mut c_void,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            stream_wait(required(managed, "managed")?, stream)
        })
    }
}
