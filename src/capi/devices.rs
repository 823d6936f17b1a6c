//! The GPUs of a call's tensors: looked at on the caller's thread, whose streams the call is ordered with.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::LazyLock;

use super::tensor::{TFCKPT_TENSOR_UNORDERED, tfckpt_tensor};
use crate::device::{CallerStream, DeviceContext, DeviceSpan, Event, Locator};
use crate::{Context, RestoreTensor, Result, SaveTensor};

/// TensorFlow's names of the first devices.
static NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| (0..64).map(|id| format!("/device:GPU:{id}")).collect());

/// TensorFlow's name of a GPU.
pub(super) fn device_name(device: i32) -> &'static str {
    let name = usize::try_from(device).ok().and_then(|id| NAMES.get(id));
    name.map_or("", String::as_str)
}

/// A described tensor.
pub(super) trait Keyed {
    /// Its key.
    fn key(&self) -> &[u8];
}

impl Keyed for RestoreTensor<'_> {
    fn key(&self) -> &[u8] {
        self.key
    }
}

impl Keyed for SaveTensor<'_> {
    fn key(&self) -> &[u8] {
        self.key
    }
}

/// What a call has to do with GPUs.
pub(super) struct Devices<'c> {
    context: &'c Context,
    /// Each stream once, by its device, as special ones are another on every device, and its handle as the
    /// caller gave it.
    streams: BTreeMap<(i32, usize), CallerStream>,
    locator: Locator,
}

impl<'c> Devices<'c> {
    /// Of a call on `context`.
    pub fn new(context: &'c Context) -> Self {
        Self {
            context,
            streams: BTreeMap::new(),
            locator: Locator::default(),
        }
    }

    /// `described`, if the memory and the stream of its tensor are the GPU's that they are said to be.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), with the key.
    ///
    /// # Safety
    ///
    /// As [`add`](Self::add).
    pub unsafe fn admit<T: Keyed>(&mut self, tensor: &tfckpt_tensor, described: T) -> Result<T> {
        // SAFETY: the caller's promise.
        match unsafe { self.add(tensor) } {
            Ok(()) => Ok(described),
            Err(error) => Err(error.with_key(described.key())),
        }
    }

    /// Checks that a tensor's memory is its GPU's, and that its stream is. Host tensors pass.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE without a GPU; INVALID_ARGUMENT for memory or a stream of another one;
    /// FAILED_PRECONDITION for a stream that is being captured.
    ///
    /// # Safety
    ///
    /// The tensor's stream must be live, or one of CUDA's special ones.
    pub unsafe fn add(&mut self, tensor: &tfckpt_tensor) -> Result<()> {
        if !tensor.is_device() {
            return Ok(());
        }
        let device = tensor.device_id;
        // SAFETY: only its addresses are looked at.
        let span = unsafe { DeviceSpan::from_raw_parts(tensor.data.addr(), tensor.size, device) };
        if !self.locator.knows(&span) {
            let context = self.context.devices().context(device)?;
            self.locator.check(&context.enter()?, &span)?;
        }
        if tensor.flags & TFCKPT_TENSOR_UNORDERED != 0 {
            return Ok(());
        }
        if let Entry::Vacant(place) = self.streams.entry((device, tensor.stream.addr())) {
            let context = self.context.devices().context(device)?;
            // SAFETY: the caller's promise.
            place.insert(unsafe { stream_of(tensor.stream, &context) }?);
        }
        Ok(())
    }

    /// Events behind what the caller has enqueued so far.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn mark(&self) -> Result<Vec<Event>> {
        self.streams.values().map(CallerStream::mark).collect()
    }

    /// Ends a call: what the caller enqueues from now on comes after the copies that `events` end. Nothing
    /// is under way any more on GPUs with none of the caller's streams, and nowhere if the call or this
    /// failed: who gets an error may free the memory at once.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn finish(&self, events: &[Event], has_failed: bool) -> Result<()> {
        let ended = events.iter().try_for_each(|event| {
            let device = event.context().device();
            let mut streams = self.streams.range((device, 0)..=(device, usize::MAX));
            match streams.clone().next() {
                Some(_) => streams.try_for_each(|(_, stream)| stream.wait_for(event)),
                None => event.wait(&event.context().enter()?),
            }
        });
        if has_failed || ended.is_err() {
            events.iter().for_each(Event::wait_to_give_back);
        }
        ended
    }
}

/// A stream of the caller's, which must be of the context's device.
///
/// # Errors
///
/// INVALID_ARGUMENT if it is not; FAILED_PRECONDITION if it is being captured.
///
/// # Safety
///
/// `stream` must be live, or one of CUDA's special ones.
pub(super) unsafe fn stream_of(
    stream: *mut std::ffi::c_void,
    context: &std::sync::Arc<DeviceContext>,
) -> Result<CallerStream> {
    // SAFETY: the caller's promise.
    let stream = unsafe { CallerStream::new(stream, context) }?;
    stream.expect_device(context.device())?;
    Ok(stream)
}
