//! Copies of a job's tensors in the memory of their own devices.

use std::collections::BTreeMap;

use crate::device::{DeviceMemory, DeviceSpan, Event, Stream};
use crate::{Code, Context, Result, SaveData};

/// Where each copy begins in its slab.
const ALIGN: usize = 256;

/// Bytes of a device that are left to others.
const LEFT: usize = 64 << 20;

/// Memory for copies on one device.
pub(super) struct Slab {
    memory: DeviceMemory,
    /// Behind the copies.
    end: Option<Event>,
}

impl Drop for Slab {
    /// Waits for the copies: neither the slab nor the tensors are the library's any more afterwards.
    fn drop(&mut self) {
        if let Some(end) = &self.end {
            end.wait_to_give_back();
        }
    }
}

/// Slabs with copies, which must stay until nothing reads them any more.
pub(super) struct DeviceCopies {
    pub slabs: Vec<Slab>,
    /// Behind the copies of each device.
    pub done: Vec<Event>,
    /// The same once more, for others.
    pub told: Vec<Event>,
}

/// What is to be copied on one device.
struct Wanted<'t, 'a> {
    tensors: Vec<(&'t mut DeviceSpan<'a>, usize)>,
    size: usize,
}

impl DeviceCopies {
    /// Enqueues copies of all tensors that are in the memory of devices, behind `after`, and puts the copies
    /// in their place. `None`, and nothing done, if a device has no room, or if there are no such tensors.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    ///
    /// # Safety
    ///
    /// The tensors must not be used once the result is dropped.
    pub unsafe fn new<'t, 'a: 't>(
        tensors: impl Iterator<Item = &'t mut SaveData<'a>>,
        context: &Context,
        after: &[Event],
    ) -> Result<Option<Self>> {
        let mut devices: BTreeMap<i32, Wanted<'t, 'a>> = BTreeMap::new();
        for tensor in tensors {
            let SaveData::Device(span) = tensor else {
                continue;
            };
            let wanted = devices.entry(span.device()).or_insert(Wanted {
                tensors: Vec::new(),
                size: 0,
            });
            let start = wanted.size;
            wanted.size = start.saturating_add(span.len()).saturating_add(ALIGN) / ALIGN * ALIGN;
            wanted.tensors.push((span, start));
        }
        if devices.is_empty() {
            return Ok(None);
        }
        let mut copies = Self {
            slabs: Vec::with_capacity(devices.len()),
            done: Vec::with_capacity(devices.len()),
            told: Vec::with_capacity(devices.len()),
        };
        for (&device, wanted) in &devices {
            let context = context.devices().context(device)?;
            let entered = context.enter()?;
            if entered.free_memory()? < wanted.size.saturating_add(LEFT) {
                return Ok(None);
            }
            // What is free need not be in one piece, nor still be free.
            let memory = match DeviceMemory::new(&entered, wanted.size) {
                Err(error) if error.code() == Code::ResourceExhausted => return Ok(None),
                memory => memory?,
            };
            copies.slabs.push(Slab { memory, end: None });
        }
        for (index, wanted) in devices.into_values().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { copies.enqueue(index, wanted, after) }?;
        }
        Ok(Some(copies))
    }

    /// Enqueues the copies of one device.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new).
    unsafe fn enqueue<'a>(
        &mut self,
        index: usize,
        wanted: Wanted<'_, 'a>,
        after: &[Event],
    ) -> Result<()> {
        let Some(Slab { memory: slab, end }) = self.slabs.get_mut(index) else {
            return Ok(());
        };
        let entered = slab.context().enter()?;
        let stream = Stream::new(&entered)?;
        let is_own = |event: &&Event| event.context().device() == slab.context().device();
        for event in after.iter().filter(is_own) {
            stream.wait_for(&entered, event)?;
        }
        let mut pairs = Vec::with_capacity(wanted.tensors.len());
        for (span, start) in wanted.tensors {
            let from = slab.span().addresses().start + start;
            // SAFETY: inside the slab, which the caller keeps as long as the tensors are used.
            let copy = unsafe { DeviceSpan::from_raw_parts(from, span.len(), span.device()) };
            pairs.push((std::mem::replace(span, copy), copy));
        }
        let mark = || {
            let event = Event::new(&entered)?;
            stream.record(&entered, &event)?;
            Ok(event)
        };
        let copied = stream.copy_within_device(&entered, &pairs);
        match copied.and_then(|()| Ok((mark()?, mark()?, mark()?))) {
            Ok((done, told, last)) => {
                *end = Some(last);
                self.done.push(done);
                self.told.push(told);
                Ok(())
            }
            Err(error) => {
                // Some may be under way, and neither the slab nor the tensors may change before they end.
                let _ = stream.synchronize(&entered);
                Err(error)
            }
        }
    }
}
