//! Tensors
//!
//! A tfckpt_tensor describes one tensor of a save or restore: its key in the checkpoint, dtype, shape,
//! and the caller's memory. Nothing of it is kept beyond the call, but for jobs, which keep data.

use std::ffi::{c_char, c_void};

use super::devices::device_name as device_name_of;
use super::error::tfckpt_code;
use super::handle::{Sized, array, borrow, free, init_struct, into_handle, put, text};
use super::wall::{guard, guard_value};
use crate::device::DeviceSpan;
use crate::{
    DType, DestSpan, Error, RestoreData, RestoreTensor, Result, SaveData, SaveTensor, Shape,
    SourceSpan, StringSpans, StringTensor,
};

/// A tensor in host memory, as tfckpt_tensor.device_type. 1, DLPack's kDLCPU, means the same.
pub const TFCKPT_DEVICE_HOST: i32 = 0;

/// A tensor in the memory of a CUDA device, as tfckpt_tensor.device_type: DLPack's kDLCUDA. data is then a
/// device pointer, of cudaMalloc, a pool, or whatever the driver knows, managed memory included, and a
/// multiple of the size of an element.
pub const TFCKPT_DEVICE_CUDA: i32 = 2;

/// In tfckpt_tensor.flags, of a tensor in device memory: it is not ordered with any stream. Nothing that the
/// device has still to do may concern its memory when the call is made.
pub const TFCKPT_TENSOR_UNORDERED: u32 = 1;

/// DLPack's kDLCPU.
const DLPACK_CPU: i32 = 1;

/// One element of a DT_STRING tensor to be saved.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_string {
    /// Its bytes, not NUL-terminated; NULL is accepted if size is 0.
    pub data: *const c_void,
    /// Number of bytes.
    pub size: usize,
}

/// A tensor to be saved or restored. In an array the first element's struct_size is the stride.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_tensor {
    /// sizeof(tfckpt_tensor)
    pub struct_size: usize,
    /// Name in the checkpoint: any bytes, at least one.
    pub key: *const c_char,
    /// Length of the key in bytes.
    pub key_size: usize,
    /// TFCKPT_DTYPE_*; a restore wants the stored one.
    pub dtype: i32,
    /// Number of dimensions; 0 for a scalar, at most 254.
    pub rank: i32,
    /// Sizes of the dimensions, outermost first; NULL if rank is 0. A restore wants the stored shape,
    /// or that of the slice.
    pub shape: *const i64,
    /// The elements, row-major. A save only reads them; one that changes meanwhile is saved as a
    /// mixture, with a valid checksum. Of DT_STRING: an array of tfckpt_string for a save; for a
    /// restore the address of a tfckpt_strings *, which is set on success and then the caller's.
    pub data: *mut c_void,
    /// Exact size of what data points to in bytes.
    pub size: usize,
    /// TFCKPT_DEVICE_*.
    pub device_type: i32,
    /// Number of the device, as CUDA counts those that the process sees; 0 for the host.
    pub device_id: i32,
    /// TensorFlow's device string, such as "/device:CPU:1"; NULL = none for host memory and
    /// "/device:GPU:<device_id>" for that of a device. Decides the data file in a save with
    /// shard_by_device.
    pub device_name: *const c_char,
    /// TensorFlow's shape_and_slice, such as "4 6 0,2:-" for the first two rows of a tensor of shape
    /// [4,6]; shape is then that of the slice. NULL or "" for a whole tensor.
    pub slice_spec: *const c_char,
    /// Of a tensor in device memory: the CUstream or cudaStream_t that the tensor is used on; NULL and 1
    /// = the legacy default stream, 2 = the calling thread's. The call's copies come after what was
    /// enqueued on it before the call. It must live until the call has returned, also one that starts a
    /// job: a stream that was destroyed is undefined. NULL for host memory.
    pub stream: *mut c_void,
    /// 0 or TFCKPT_TENSOR_UNORDERED.
    pub flags: u32,
    /// Name of the variable, if it differs from the key; NULL otherwise.
    pub variable_name: *const c_char,
}

// An array of them is lent to the library as an array of spans, whose memory layout is documented.
const _: () = assert!(
    size_of::<tfckpt_string>() == size_of::<SourceSpan<'_>>()
        && align_of::<tfckpt_string>() == align_of::<SourceSpan<'_>>()
);

// SAFETY: `repr(C)`, begins with its size, integers and pointers only.
unsafe impl Sized for tfckpt_tensor {
    const NAME: &'static str = "tfckpt_tensor";
}

/// Sets *tensor to zeros; struct_size is sizeof(tfckpt_tensor).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_tensor_init(
    tensor: *mut tfckpt_tensor,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `tensor` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(tensor, struct_size)) }
}

/// The elements of a restored DT_STRING tensor, row-major; owned by the caller.
pub struct tfckpt_strings(StringTensor);

/// Number of elements; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_strings_num(strings: *const tfckpt_strings) -> usize {
    guard_value(0, || {
        // SAFETY: NULL or live, by the header's rules; so below.
        unsafe { borrow(strings) }.map_or(0, |strings| strings.0.len())
    })
}

/// Element i, not NUL-terminated, and its length in bytes in *size_out (which may be NULL). Borrowed
/// from strings; NULL if there is no such element.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_strings_get(
    strings: *const tfckpt_strings,
    i: usize,
    size_out: *mut usize,
) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: as above; `size_out` is NULL or valid for a write.
        unsafe {
            let element = borrow(strings).and_then(|strings| strings.0.get(i));
            put(size_out, element.map_or(0, <[u8]>::len));
            element.map_or(std::ptr::null(), |element| element.as_ptr().cast())
        }
    })
}

/// Frees restored strings. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_strings_free(strings: *mut tfckpt_strings) {
    // SAFETY: NULL or strings that the caller owns.
    unsafe { free(strings) }
}

/// What saves and restores have in common.
pub(super) struct Common<'a> {
    pub key: &'a [u8],
    pub dtype: DType,
    pub shape: Shape,
    pub slice_spec: &'a str,
    pub device_name: &'a str,
}

impl tfckpt_strings {
    /// A single element.
    pub(super) fn one(element: &[u8]) -> Self {
        Self(StringTensor::gather(std::iter::once(element)))
    }

    /// Hands strings to the caller.
    ///
    /// # Safety
    ///
    /// `out` must be valid for a write.
    pub(super) unsafe fn put(out: *mut *mut Self, strings: StringTensor) {
        // SAFETY: the caller's promise.
        unsafe { put(out, into_handle(Self(strings))) };
    }
}

impl tfckpt_tensor {
    /// Checks and borrows the description.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT naming the field; UNIMPLEMENTED for a device or flag not known.
    ///
    /// # Safety
    ///
    /// Pointers must be NULL or valid, for `'a`, for what the header says they point to.
    pub(super) unsafe fn common<'a>(&self) -> Result<Common<'a>> {
        // SAFETY: the caller's promise, for all of the block.
        unsafe {
            let key: &[u8] = array(self.key.cast(), self.key_size, "key")?;
            let place = |error: Error| error.with_key(key);
            if key.is_empty() {
                return Err(Error::invalid_argument("key is empty"));
            }
            let dtype = DType::from_number(self.dtype).ok_or_else(|| {
                place(Error::invalid_argument(format!(
                    "unknown data type; dtype={}",
                    self.dtype
                )))
            })?;
            let rank = usize::try_from(self.rank)
                .ok()
                .filter(|&rank| rank <= Shape::MAX_RANK);
            let rank = rank.ok_or_else(|| {
                place(Error::invalid_argument(format!(
                    "rank is out of range; rank={}",
                    self.rank
                )))
            })?;
            let dims: &[i64] = array(self.shape, rank, "shape").map_err(place)?;
            let shape = Shape::new(dims).map_err(place)?;
            self.check_device(dtype).map_err(place)?;
            let slice_spec = text(self.slice_spec, "slice_spec")
                .map_err(place)?
                .unwrap_or("");
            let device_name = text(self.device_name, "device_name").map_err(place)?;
            let device_name = device_name.unwrap_or(match self.device_type {
                TFCKPT_DEVICE_CUDA => device_name_of(self.device_id),
                _ => "",
            });
            if self.data.is_null() && self.size != 0 {
                return Err(place(Error::invalid_argument("data is NULL")));
            }
            Ok(Common {
                key,
                dtype,
                shape,
                slice_spec,
                device_name,
            })
        }
    }

    /// Whether its elements are in a device's memory.
    pub(super) fn is_device(&self) -> bool {
        self.device_type == TFCKPT_DEVICE_CUDA
    }

    fn check_device(&self, dtype: DType) -> Result<()> {
        let (kind, flags) = (self.device_type, self.flags);
        match kind {
            TFCKPT_DEVICE_HOST | DLPACK_CPU if !self.stream.is_null() => {
                return Err(Error::invalid_argument(
                    "a tensor in host memory has no stream",
                ));
            }
            TFCKPT_DEVICE_CUDA if dtype == DType::String => {
                return Err(Error::invalid_argument(
                    "tensors of strings are in host memory only",
                ));
            }
            TFCKPT_DEVICE_CUDA if !self.data.addr().is_multiple_of(dtype.size().unwrap_or(1)) => {
                return Err(Error::invalid_argument(format!(
                    "the address is not a multiple of the size of an element; address={:#x}",
                    self.data.addr()
                )));
            }
            TFCKPT_DEVICE_HOST | DLPACK_CPU | TFCKPT_DEVICE_CUDA => {}
            _ => {
                return Err(Error::unimplemented(format!(
                    "unknown kind of device; device_type={kind}"
                )));
            }
        }
        let known = if self.is_device() {
            TFCKPT_TENSOR_UNORDERED
        } else {
            0
        };
        match flags & !known {
            0 => Ok(()),
            _ => Err(Error::unimplemented(format!(
                "unknown flags; flags={flags:#x}"
            ))),
        }
    }

    /// The device memory that data points to.
    ///
    /// # Safety
    ///
    /// As for [`DeviceSpan::from_raw_parts`].
    unsafe fn device_span<'a>(&self) -> DeviceSpan<'a> {
        // SAFETY: the caller's promise.
        unsafe { DeviceSpan::from_raw_parts(self.data.addr(), self.size, self.device_id) }
    }

    /// The tensor to save.
    ///
    /// # Errors
    ///
    /// As `common`.
    ///
    /// # Safety
    ///
    /// As `common`; `data` must be readable for `'a` from any thread.
    pub(super) unsafe fn describe_save<'a>(&self) -> Result<SaveTensor<'a>> {
        // SAFETY: the caller's promise, for all of the block.
        unsafe {
            let Common {
                key,
                dtype,
                shape,
                slice_spec,
                device_name,
            } = self.common()?;
            let data = if dtype == DType::String {
                let elements = self
                    .strings_to_save()
                    .map_err(|error| error.with_key(key))?;
                SaveData::Strings(StringSpans::Borrowed(elements))
            } else if self.is_device() {
                SaveData::Device(self.device_span())
            } else {
                SaveData::Bytes(SourceSpan::from_raw_parts(self.data.cast(), self.size))
            };
            Ok(SaveTensor {
                key,
                dtype,
                shape,
                slice_spec,
                device_name,
                data,
            })
        }
    }

    unsafe fn strings_to_save<'a>(&self) -> Result<&'a [SourceSpan<'a>]> {
        if !self.size.is_multiple_of(size_of::<tfckpt_string>()) {
            return Err(Error::invalid_argument(format!(
                "size of a tensor of strings is that of an array of tfckpt_string; size={}",
                self.size
            )));
        }
        let num = self.size / size_of::<tfckpt_string>();
        // SAFETY: the caller's promise.
        let elements: &[tfckpt_string] = unsafe { array(self.data.cast(), num, "data") }?;
        let is_null = |element: &tfckpt_string| element.data.is_null() && element.size != 0;
        if elements.iter().any(is_null) {
            return Err(Error::invalid_argument("an element's data is NULL"));
        }
        // SAFETY: the caller's promise for the array and what its elements point to; a span is the same
        // pair of address and length in memory, which is checked below.
        unsafe { array(self.data.cast(), num, "data") }
    }

    /// The tensor to restore; one of strings goes to `strings`, which it needs.
    ///
    /// # Errors
    ///
    /// As `common`.
    ///
    /// # Safety
    ///
    /// As `common`; nothing else may access what `data` points to during `'a`.
    pub(super) unsafe fn describe_restore<'a>(
        &self,
        strings: Option<RestoreData<'a>>,
    ) -> Result<RestoreTensor<'a>> {
        // SAFETY: the caller's promise, for all of the block.
        unsafe {
            let Common {
                key,
                dtype,
                shape,
                slice_spec,
                device_name,
            } = self.common()?;
            let data = if dtype == DType::String {
                if self.data.is_null() || self.size != size_of::<*mut tfckpt_strings>() {
                    return Err(Error::invalid_argument(format!(
                        "data of a tensor of strings is the address of a tfckpt_strings pointer; size={}",
                        self.size
                    ))
                    .with_key(key));
                }
                strings.ok_or_else(|| Error::internal("no place for strings"))?
            } else if self.is_device() {
                RestoreData::Device(self.device_span())
            } else {
                RestoreData::Bytes(DestSpan::from_raw_parts(self.data.cast(), self.size))
            };
            Ok(RestoreTensor {
                key,
                dtype,
                shape,
                slice_spec,
                device_name,
                data,
            })
        }
    }

    /// Whether it is a tensor of strings.
    pub(super) fn is_string(&self) -> bool {
        self.dtype == DType::String as i32
    }

    /// Sets the caller's pointer to strings to NULL, so that it can be told whether there are any.
    ///
    /// # Safety
    ///
    /// As [`put_strings`](Self::put_strings).
    pub(super) unsafe fn clear_strings(&self) {
        let out: *mut *mut tfckpt_strings = self.data.cast();
        // SAFETY: the caller's promise.
        unsafe { put(out, std::ptr::null_mut()) };
    }

    /// Hands restored strings to the caller.
    ///
    /// # Safety
    ///
    /// `data` must be as `describe_restore` has checked it.
    pub(super) unsafe fn put_strings(&self, strings: StringTensor) {
        if self.is_string() {
            // SAFETY: the caller's promise.
            unsafe { tfckpt_strings::put(self.data.cast(), strings) };
        }
    }
}
