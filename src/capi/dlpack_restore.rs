//! Restores tensors into memory made for them, and hands them out.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::Arc;

use smallvec::SmallVec;

use super::devices::Devices;
use super::dlpack::{tfckpt_dlpack_options, tfckpt_dlpack_request};
use super::dltensor::{DLDataType, DLDevice, DLManagedTensorVersioned, DLTensor, VERSION, strides};
use super::error::tfckpt_code;
use super::handle::read_struct;
use super::reader::tfckpt_reader;
use super::restore::{run_on, settle};
use super::slab::{Allocator, Layout, Part, Place};
use super::stats::clear_stats;
use super::struct_array::StructArray;
use super::tensor::{Common, TFCKPT_TENSOR_UNORDERED, tfckpt_tensor};
use super::wall::guard_value;
use crate::device::{CallerStream, Event};
use crate::{Code, Context, DType, Error, RestoreTensor, Result, Shape};

/// Restores `requests` to `out`, whose pointers are NULL.
///
/// # Errors
///
/// As `tfckpt_reader_restore_dlpack`.
///
/// # Safety
///
/// As there.
pub(super) unsafe fn restore(
    reader: &tfckpt_reader,
    requests: &StructArray<'_, tfckpt_dlpack_request>,
    options: &tfckpt_dlpack_options,
    out: &mut [MaybeUninit<*mut DLManagedTensorVersioned>],
    codes: Option<&mut [MaybeUninit<tfckpt_code>]>,
) -> Result<()> {
    // SAFETY: the caller's promise, for all of the block.
    unsafe {
        let how = read_struct(options.restore)?;
        clear_stats(how.stats)?;
        let keep_going = codes.is_some() || how.keep_going != 0;
        let restore_options = how.to_options(keep_going)?;
        let allocator = options.allocator()?;
        let context = reader.context_for(how.context)?;

        let (mut tensors, mut refused) = measure(reader, requests, &context);
        if let Some(error) = first_of(&refused).filter(|_| !keep_going) {
            return Err(error.clone());
        }
        let mut layout = Layout::new(options.max_slab_size);
        for (tensor, request) in tensors.iter_mut().zip(requests.iter()) {
            if let Some(tensor) = tensor {
                tensor.part = match tensor.size() {
                    0 => None,
                    size => Some(layout.add(Place::of(&request.describe()), size)?),
                };
            }
        }
        layout.allocate(allocator, &context)?;

        // Fresh memory of the library's own has no past on any stream.
        let is_unordered = allocator.is_none() && how.stream_ordered == 0;
        let mut described: Vec<RestoreTensor<'_>> = Vec::with_capacity(tensors.len());
        let mut devices = Devices::new(&context);
        for (index, (slot, request)) in tensors.iter_mut().zip(requests.iter()).enumerate() {
            let Some(tensor) = slot else { continue };
            let mut to_restore = tensor.describe(&request);
            if is_unordered && to_restore.is_device() {
                to_restore.flags |= TFCKPT_TENSOR_UNORDERED;
            }
            let admitted = to_restore.describe_restore(None);
            let admitted = admitted.and_then(|tensor| devices.admit(&to_restore, tensor));
            match admitted.map_err(|error| error.with_tensor_index(index)) {
                Ok(to_restore) => described.push(to_restore),
                Err(error) if keep_going => {
                    *slot = None;
                    refused.insert(index, error);
                }
                Err(error) => return Err(error),
            }
        }
        let (outcome, copied) = run_on(
            &reader.reader,
            &mut described,
            &restore_options,
            &how,
            &devices,
            &context,
        )?;
        drop(described);
        keep_until(&tensors, copied);
        let of = (tensors.len(), refused);
        let mut slots = tensors.into_iter().zip(out);
        settle(outcome, of, keep_going, codes, &mut |_, is_restored| {
            if let Some((tensor, slot)) = slots.next()
                && let Some(tensor) = tensor.filter(|_| is_restored)
            {
                slot.write(tensor.hand_out());
            }
        })
    }
}

/// Lets what is enqueued on a stream from now on come after the copies into a tensor.
///
/// # Errors
///
/// As `tfckpt_dlpack_stream_wait`.
///
/// # Safety
///
/// As there.
pub(super) unsafe fn stream_wait(
    managed: &DLManagedTensorVersioned,
    stream: *mut c_void,
) -> Result<()> {
    let deleter = managed.deleter;
    if !deleter.is_some_and(|deleter| std::ptr::fn_addr_eq(deleter, DELETE)) {
        return Err(Error::invalid_argument(
            "the tensor was not handed out by this library",
        ));
    }
    // SAFETY: by its deleter it is one of `hand_out`, and not freed, by the caller's promise.
    let managed: &Managed = unsafe { &*managed.manager_ctx.cast::<Managed>() };
    for event in managed.part.as_ref().map_or(&[][..], Part::copied) {
        // SAFETY: the caller's promise.
        unsafe { CallerStream::new(stream, event.context()) }?.wait_for(event)?;
    }
    Ok(())
}

/// Makes the tensors, without memory, and finds those that cannot be restored.
///
/// # Safety
///
/// As [`restore`].
unsafe fn measure(
    reader: &tfckpt_reader,
    requests: &StructArray<'_, tfckpt_dlpack_request>,
    context: &Context,
) -> (Vec<Option<Box<Managed>>>, BTreeMap<usize, Error>) {
    let mut refused = BTreeMap::new();
    let mut wanted: Vec<(&[u8], &str)> = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        // SAFETY: the caller's promise.
        match unsafe { request.describe().common() } {
            Ok(Common {
                key, slice_spec, ..
            }) => wanted.push((key, slice_spec)),
            Err(error) => {
                refused.insert(index, error.with_tensor_index(index));
                wanted.push((&[], ""));
            }
        }
    }
    let mut tensors: Vec<Option<Box<Managed>>> = requests.iter().map(|_| None).collect();
    let wanted_at = |index: usize| wanted.get(index).copied().unwrap_or_default();
    let reader = &reader.reader;
    reader.measure(requests.len(), wanted_at, |index, measured| {
        let (Some(slot), Some(request)) = (tensors.get_mut(index), requests.get(index)) else {
            return;
        };
        if refused.contains_key(&index) {
            return;
        }
        let made = measured.and_then(|(dtype, shape)| {
            let place = Place::of(&request.describe());
            if let Some(device) = place.device {
                context.devices().context(device)?;
            }
            Managed::new(dtype, &shape, place)
        });
        match made {
            Ok(tensor) => *slot = Some(tensor),
            Err(error) => {
                let error = error.with_tensor_index(index).with_key(wanted_at(index).0);
                refused.insert(index, error);
            }
        }
    });
    (tensors, refused)
}

/// The error of a call that fails as a whole: as in TensorFlow, a missing key comes before anything else.
fn first_of(refused: &BTreeMap<usize, Error>) -> Option<&Error> {
    let is_missing = |error: &&Error| error.code() == Code::NotFound;
    refused
        .values()
        .find(is_missing)
        .or(refused.values().next())
}

/// Keeps the memory of tensors until the copies into it have run.
fn keep_until(tensors: &[Option<Box<Managed>>], copied: Vec<Event>) {
    let mut by_device: BTreeMap<i32, Vec<Event>> = BTreeMap::new();
    for event in copied {
        by_device
            .entry(event.context().device())
            .or_default()
            .push(event);
    }
    let by_device: BTreeMap<i32, Arc<[Event]>> = by_device
        .into_iter()
        .map(|(device, events)| (device, events.into()))
        .collect();
    if by_device.is_empty() {
        return;
    }
    for tensor in tensors.iter().flatten() {
        if let Some(part) = &tensor.part {
            part.keep_until(&by_device);
        }
    }
}

impl tfckpt_dlpack_request {
    /// The tensor of bytes without elements that has its key, its slice and its place.
    fn describe(&self) -> tfckpt_tensor {
        tfckpt_tensor {
            struct_size: size_of::<tfckpt_tensor>(),
            key: self.key,
            key_size: self.key_size,
            dtype: DType::Uint8 as i32,
            rank: 0,
            shape: std::ptr::null(),
            data: std::ptr::null_mut(),
            size: 0,
            device_type: self.device_type,
            device_id: self.device_id,
            device_name: std::ptr::null(),
            slice_spec: self.slice_spec,
            stream: self.stream,
            flags: 0,
            variable_name: std::ptr::null(),
        }
    }
}

impl tfckpt_dlpack_options {
    /// The caller's own way to get memory.
    fn allocator(&self) -> Result<Option<Allocator>> {
        match (self.alloc, self.free) {
            (None, None) => Ok(None),
            (Some(alloc), Some(free)) => Ok(Some(Allocator {
                alloc,
                free,
                user_data: self.user_data,
            })),
            _ => Err(Error::invalid_argument(
                "of alloc and free one is NULL and the other is not",
            )),
        }
    }
}

/// What is handed out. The caller sees its head.
struct Managed {
    head: DLManagedTensorVersioned,
    dtype: DType,
    /// The shape, then the strides.
    dims: SmallVec<[i64; 8]>,
    /// `None` if there are no bytes.
    part: Option<Part>,
}

// Deleters are called on any thread.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Part>();
};

impl Managed {
    /// A tensor without memory.
    ///
    /// # Errors
    ///
    /// UNIMPLEMENTED for a data type that DLPack does not have.
    fn new(dtype: DType, shape: &Shape, place: Place) -> Result<Box<Self>> {
        let (dl_dtype, flags) = DLDataType::of(dtype)?;
        let mut dims = SmallVec::from_slice(shape.dims());
        dims.extend(strides(shape.dims()));
        let dl_tensor = DLTensor {
            data: std::ptr::null_mut(),
            device: DLDevice::of(place.device),
            ndim: i32::try_from(shape.rank()).unwrap_or(i32::MAX),
            dtype: dl_dtype,
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        };
        Ok(Box::new(Self {
            head: DLManagedTensorVersioned {
                version: VERSION,
                manager_ctx: std::ptr::null_mut(),
                deleter: Some(DELETE),
                flags,
                dl_tensor,
            },
            dtype,
            dims,
            part: None,
        }))
    }

    fn shape(&self) -> &[i64] {
        self.dims.get(..self.dims.len() / 2).unwrap_or_default()
    }

    /// Bytes. They were compared with what the files hold.
    fn size(&self) -> usize {
        let num = self.shape().iter().product::<i64>();
        let num = usize::try_from(num).unwrap_or(usize::MAX);
        num.saturating_mul(self.dtype.size().unwrap_or(1))
    }

    /// The tensor as a restore wants it.
    fn describe(&self, request: &tfckpt_dlpack_request) -> tfckpt_tensor {
        tfckpt_tensor {
            dtype: self.dtype as i32,
            rank: self.head.dl_tensor.ndim,
            shape: self.shape().as_ptr(),
            data: self.part.as_ref().map_or(std::ptr::null_mut(), Part::start),
            size: self.size(),
            ..request.describe()
        }
    }

    /// Gives it to the caller, until its deleter is called.
    fn hand_out(self: Box<Self>) -> *mut DLManagedTensorVersioned {
        let managed = Box::into_raw(self);
        // SAFETY: just made, of a box that nobody else has; the two halves of `dims` stay where they are
        // until it is freed.
        unsafe {
            let Self {
                head, dims, part, ..
            } = &mut *managed;
            let rank = dims.len() / 2;
            if rank > 0 {
                head.dl_tensor.shape = dims.as_mut_ptr();
                head.dl_tensor.strides = dims.as_mut_ptr().add(rank);
            }
            if let Some(part) = part {
                head.dl_tensor.data = part.start();
            }
            head.manager_ctx = managed.cast();
            &raw mut (*managed).head
        }
    }
}

/// The deleter of every tensor that is handed out.
const DELETE: unsafe extern "C" fn(*mut DLManagedTensorVersioned) = delete;

/// Frees a tensor that was handed out, and its memory with the last one there.
unsafe extern "C" fn delete(managed: *mut DLManagedTensorVersioned) {
    guard_value((), || {
        if managed.is_null() {
            return;
        }
        // SAFETY: from `hand_out`, by the caller's promise, who calls this once.
        drop(unsafe { Box::from_raw((*managed).manager_ctx.cast::<Managed>()) });
    });
}
