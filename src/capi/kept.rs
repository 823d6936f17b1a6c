//! Copies of descriptions for a job, which outlives the call that gave them.
//!
//! What `data` points to stays the caller's. Everything else of a list of tensors is copied, all of its
//! text into one piece of memory.

use super::struct_array::StructArray;
use super::tensor::{tfckpt_strings, tfckpt_tensor};
use crate::{Error, RestoreData, RestoreTensor, Result, SaveData, SaveTensor, StringTensor};

/// Keys, slice specs and device strings. Its memory neither moves nor goes before it is dropped.
struct Text(Vec<u8>);

impl Text {
    /// Room for the text of `tensors`.
    ///
    /// # Safety
    ///
    /// As [`tfckpt_tensor::common`].
    unsafe fn new(tensors: &StructArray<'_, tfckpt_tensor>) -> Result<Self> {
        let mut size = 0usize;
        for (index, tensor) in tensors.iter().enumerate() {
            // SAFETY: the caller's promise.
            let common = unsafe { tensor.common() };
            let common = common.map_err(|error| error.with_tensor_index(index))?;
            let texts = [
                common.key.len(),
                common.slice_spec.len(),
                common.device_name.len(),
            ];
            size = texts.into_iter().fold(size, usize::saturating_add);
        }
        let mut text = Vec::new();
        text.try_reserve_exact(size)
            .map_err(|_| Error::resource_exhausted("no memory for the descriptions"))?;
        Ok(Self(text))
    }

    /// Copies bytes for which there is room.
    ///
    /// # Safety
    ///
    /// The copy must not be used once this is dropped.
    unsafe fn keep(&mut self, bytes: &[u8]) -> Result<&'static [u8]> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            return Err(Error::invalid_argument(
                "the descriptions changed during the call",
            ));
        }
        let start = self.0.len();
        self.0.extend_from_slice(bytes);
        // SAFETY: inside the vector, which never grows beyond its capacity and so never moves; nothing
        // writes there again; the caller's promise ends the use before the memory goes.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(start), bytes.len()) })
    }

    /// As [`keep`](Self::keep).
    unsafe fn keep_str(&mut self, text: &str) -> Result<&'static str> {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.keep(text.as_bytes()) }?;
        std::str::from_utf8(bytes).map_err(|_| Error::internal("a copy is not UTF-8"))
    }
}

/// The tensors of a save.
///
/// Fields are dropped in order, so that the text outlives the tensors; a job keeps both until it is done
/// with them.
pub(super) struct KeptSave {
    tensors: Vec<SaveTensor<'static>>,
    _text: Text,
}

impl KeptSave {
    /// Checks and copies descriptions.
    ///
    /// # Errors
    ///
    /// As [`tfckpt_tensor::describe_save`].
    ///
    /// # Safety
    ///
    /// As there; what `data` points to must be readable until this is dropped.
    pub unsafe fn new(array: &StructArray<'_, tfckpt_tensor>) -> Result<Self> {
        // SAFETY: the caller's promise, for all of the block; the text is dropped after the tensors.
        unsafe {
            let mut text = Text::new(array)?;
            let mut tensors = Vec::with_capacity(array.len());
            for (index, tensor) in array.iter().enumerate() {
                let place = |error: Error| error.with_tensor_index(index);
                let tensor: SaveTensor<'static> = tensor.describe_save().map_err(place)?;
                tensors.push(SaveTensor {
                    key: text.keep(tensor.key)?,
                    slice_spec: text.keep_str(tensor.slice_spec)?,
                    device_name: text.keep_str(tensor.device_name)?,
                    ..tensor
                });
            }
            Ok(Self {
                tensors,
                _text: text,
            })
        }
    }
}

impl KeptSave {
    /// The elements of each tensor.
    pub fn data_mut(&mut self) -> impl Iterator<Item = &mut SaveData<'static>> {
        self.tensors.iter_mut().map(|tensor| &mut tensor.data)
    }
}

impl AsRef<[SaveTensor<'static>]> for KeptSave {
    fn as_ref(&self) -> &[SaveTensor<'static>] {
        &self.tensors
    }
}

/// The tensors of a restore. As [`KeptSave`].
pub(super) struct KeptRestore {
    tensors: Vec<RestoreTensor<'static>>,
    _takers: Takers,
    _text: Text,
}

impl KeptRestore {
    /// Checks and copies descriptions. The pointers that tensors of strings are described by are set to
    /// NULL.
    ///
    /// # Errors
    ///
    /// As [`tfckpt_tensor::describe_restore`].
    ///
    /// # Safety
    ///
    /// As there; what `data` points to must be valid for writes until this is dropped, and used by
    /// nobody else.
    pub unsafe fn new(array: &StructArray<'_, tfckpt_tensor>) -> Result<Self> {
        // SAFETY: the caller's promise, for all of the block; the text is dropped after the tensors.
        unsafe {
            let mut text = Text::new(array)?;
            let mut takers = Takers::default();
            let mut tensors = Vec::with_capacity(array.len());
            for (index, tensor) in array.iter().enumerate() {
                let place = |error: Error| error.with_tensor_index(index);
                let strings = match tensor.is_string() {
                    true => Some(RestoreData::TakeStrings(takers.add(&tensor))),
                    false => None,
                };
                let restore = tensor.describe_restore(strings).map_err(place)?;
                tensors.push(RestoreTensor {
                    key: text.keep(restore.key)?,
                    slice_spec: text.keep_str(restore.slice_spec)?,
                    device_name: text.keep_str(restore.device_name)?,
                    ..restore
                });
            }
            for tensor in array.iter().filter(tfckpt_tensor::is_string) {
                tensor.clear_strings();
            }
            Ok(Self {
                tensors,
                _takers: takers,
                _text: text,
            })
        }
    }
}

impl AsMut<[RestoreTensor<'static>]> for KeptRestore {
    fn as_mut(&mut self) -> &mut [RestoreTensor<'static>] {
        &mut self.tensors
    }
}

type TakeStrings = dyn FnMut(StringTensor) + Send + Sync;

/// What hands strings to the caller. Each was made by `Box::into_raw` and is lent to one tensor.
#[derive(Default)]
struct Takers(Vec<*mut TakeStrings>);

// SAFETY: the pointers are boxes of what is `Send`.
unsafe impl Send for Takers {}

impl Takers {
    /// The function for a tensor of strings, to be called only if it passes `describe_restore`.
    ///
    /// # Safety
    ///
    /// It must not be used once this is dropped; the tensor's pointer must be valid as long.
    unsafe fn add(&mut self, tensor: &tfckpt_tensor) -> &'static mut TakeStrings {
        let out = Out(tensor.data.cast());
        // SAFETY: the address was checked by `describe_restore`, and is valid by the caller's promise.
        let take: Box<TakeStrings> = Box::new(move |strings| unsafe { out.put(strings) });
        let taker = Box::into_raw(take);
        self.0.push(taker);
        // SAFETY: just made, lent once, and freed when the caller's promise has ended its use.
        unsafe { &mut *taker }
    }
}

impl Drop for Takers {
    fn drop(&mut self) {
        for taker in self.0.drain(..) {
            // SAFETY: made by `Box::into_raw`; the only reference to it is not used any more.
            drop(unsafe { Box::from_raw(taker) });
        }
    }
}

/// Where strings go.
struct Out(*mut *mut tfckpt_strings);

// SAFETY: the caller has lent the address to the job, whichever thread uses it.
unsafe impl Send for Out {}
// SAFETY: as above; a shared reference to what calls it cannot.
unsafe impl Sync for Out {}

impl Out {
    unsafe fn put(&self, strings: StringTensor) {
        // SAFETY: the caller's promise.
        unsafe { tfckpt_strings::put(self.0, strings) };
    }
}
