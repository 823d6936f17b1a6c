//! Memory in which restored tensors are handed out.
//!
//! Tensors of one place share slabs, as an allocation for each would cost more than restoring a small
//! one. First all tensors get their room, then the slabs are allocated, of exactly the size needed. Who
//! has a [`Part`] keeps its slab; the last one frees it, on whatever thread.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{Arc, OnceLock};

use super::tensor::{TFCKPT_DEVICE_CUDA, TFCKPT_DEVICE_HOST, tfckpt_tensor};
use crate::device::{DeviceMemory, Event};
use crate::{Buffer, Context, Error, Result};

/// Bytes between which tensors begin: what DLPack asks for.
const ALIGN: usize = 256;

/// Most bytes of a slab of several tensors, unless the caller says otherwise: so much memory may wait for
/// its last tensor to go.
const MAX_SIZE: u64 = 1 << 30;

/// Host memory from this size on is in huge pages.
const LARGE: usize = 2 << 20;

/// Where memory is, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The ordinal of the GPU; `None` is the host.
    pub device: Option<i32>,
    /// The stream that it is used on, as the caller gave it.
    pub stream: usize,
}

/// The caller's own way to get memory.
#[derive(Clone, Copy)]
pub struct Allocator {
    pub alloc: unsafe extern "C" fn(
        size: usize,
        alignment: usize,
        device_type: i32,
        device_id: i32,
        stream: *mut c_void,
        user_data: *mut c_void,
    ) -> *mut c_void,
    pub free: unsafe extern "C" fn(
        data: *mut c_void,
        size: usize,
        device_type: i32,
        device_id: i32,
        stream: *mut c_void,
        user_data: *mut c_void,
    ),
    pub user_data: *mut c_void,
}

/// A tensor's share of a slab.
pub struct Part {
    slab: Arc<Slab>,
    offset: usize,
}

/// Memory of one or more tensors.
struct Slab {
    place: Place,
    /// Once it is allocated.
    memory: OnceLock<Memory>,
    /// What ends the copies that were still under way when the tensors were handed out.
    copied: OnceLock<Arc<[Event]>>,
}

/// What is freed by being dropped.
struct Memory {
    start: *mut c_void,
    _owner: Owner,
}

// SAFETY: `start` is the address of memory that is owned here, and looked at by whoever has a part of it.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

#[expect(dead_code, reason = "owners are only kept")]
enum Owner {
    Small(Vec<Line>),
    Large(Buffer),
    Device(DeviceMemory),
    Callers(Callers),
}

#[derive(Clone, Copy)]
#[repr(align(256))]
struct Line {
    _bytes: [MaybeUninit<u8>; ALIGN],
}

/// Memory that the caller allocated.
struct Callers {
    start: *mut c_void,
    size: usize,
    place: Place,
    allocator: Allocator,
}

/// The slabs of a call, before there are any.
pub struct Layout {
    max_size: usize,
    /// Those that have room.
    open: BTreeMap<Place, Planned>,
    full: Vec<Planned>,
}

struct Planned {
    slab: Arc<Slab>,
    size: usize,
}

impl Planned {
    fn new(place: Place) -> Self {
        let slab = Arc::new(Slab {
            place,
            memory: OnceLock::new(),
            copied: OnceLock::new(),
        });
        Self { slab, size: 0 }
    }
}

impl Layout {
    /// Slabs of several tensors take `max_size` bytes at most; 0 stands for the default.
    pub fn new(max_size: u64) -> Self {
        let max_size = if max_size == 0 { MAX_SIZE } else { max_size };
        Self {
            max_size: usize::try_from(max_size).unwrap_or(usize::MAX),
            open: BTreeMap::new(),
            full: Vec::new(),
        }
    }

    /// Room for `size` bytes, at least one.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED for what no memory can hold.
    pub fn add(&mut self, place: Place, size: usize) -> Result<Part> {
        let taken = size.checked_next_multiple_of(ALIGN);
        let taken = taken.filter(|&taken| isize::try_from(taken).is_ok());
        let taken = taken.ok_or_else(|| {
            Error::resource_exhausted(format!("no memory for a tensor; size={size}"))
        })?;
        let open = self.open.entry(place);
        let open = open.or_insert_with(|| Planned::new(place));
        let fits = |end: &usize| open.size == 0 || *end <= self.max_size;
        let end = match open.size.checked_add(taken).filter(fits) {
            Some(end) => end,
            None => {
                self.full.push(std::mem::replace(open, Planned::new(place)));
                taken
            }
        };
        let part = Part {
            slab: open.slab.clone(),
            offset: end - taken,
        };
        open.size = end;
        Ok(part)
    }

    /// Allocates all slabs, by the caller's functions if there are any. What has been allocated is freed
    /// with the parts.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when there is not as much memory; those of the driver.
    pub fn allocate(self, allocator: Option<Allocator>, context: &Context) -> Result<()> {
        let mut planned = self.full;
        planned.extend(self.open.into_values());
        if allocator.is_none() {
            check_free(&planned, context)?;
        }
        for Planned { slab, size } in planned {
            let memory = match (allocator, slab.place.device) {
                (Some(allocator), _) => Memory::callers(allocator, slab.place, size)?,
                (None, Some(device)) => Memory::device(device, size, context)?,
                (None, None) => Memory::host(size)?,
            };
            let _ = slab.memory.set(memory);
        }
        Ok(())
    }
}

/// Sees to it that the library's own allocations have room on each GPU before the first of them.
fn check_free(planned: &[Planned], context: &Context) -> Result<()> {
    let mut needed: BTreeMap<i32, usize> = BTreeMap::new();
    for planned in planned {
        if let Some(device) = planned.slab.place.device {
            let sum = needed.entry(device).or_default();
            *sum = sum.saturating_add(planned.size);
        }
    }
    for (device, needed) in needed {
        let free = context.devices().context(device)?.enter()?.free_memory()?;
        if needed > free {
            return Err(Error::resource_exhausted(format!(
                "there is not enough memory on CUDA device {device}; needed={needed} free={free}"
            )));
        }
    }
    Ok(())
}

impl Part {
    /// Its first byte; NULL before its slab is allocated.
    pub fn start(&self) -> *mut c_void {
        let memory = self.slab.memory.get();
        let start = memory.map(|memory| memory.start.wrapping_byte_add(self.offset));
        start.unwrap_or(std::ptr::null_mut())
    }

    /// Frees the slab only once its device has reached those of `copied`, which has the events of each
    /// device.
    pub fn keep_until(&self, copied: &BTreeMap<i32, Arc<[Event]>>) {
        let device = self.slab.place.device;
        if let Some(copied) = device.and_then(|device| copied.get(&device)) {
            let _ = self.slab.copied.set(copied.clone());
        }
    }

    /// What ends the copies that were still under way when the tensor was handed out.
    pub fn copied(&self) -> &[Event] {
        self.slab.copied.get().map_or(&[], |copied| copied)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        for event in self.copied.get().map_or(&[][..], |copied| copied) {
            event.wait_to_give_back();
        }
    }
}

impl Memory {
    fn host(size: usize) -> Result<Self> {
        if size >= LARGE {
            let mut buffer = Buffer::new(size)?;
            return Ok(Self {
                start: buffer.as_mut_ptr().cast(),
                _owner: Owner::Large(buffer),
            });
        }
        let mut lines: Vec<Line> = Vec::new();
        lines
            .try_reserve_exact(size.div_ceil(ALIGN))
            .map_err(|_| exhausted(size))?;
        Ok(Self {
            start: lines.as_mut_ptr().cast(),
            _owner: Owner::Small(lines),
        })
    }

    fn device(device: i32, size: usize, context: &Context) -> Result<Self> {
        let context = context.devices().context(device)?;
        let entered = context.enter()?;
        let memory = DeviceMemory::new(&entered, size)?;
        let start = memory.span().addresses().start;
        Ok(Self {
            start: std::ptr::without_provenance_mut(start),
            _owner: Owner::Device(memory),
        })
    }

    fn callers(allocator: Allocator, place: Place, size: usize) -> Result<Self> {
        let (device_type, device_id, stream) = place.to_c();
        let Allocator {
            alloc, user_data, ..
        } = allocator;
        // SAFETY: the caller's own function, with what the header says that it gets.
        let start = unsafe { alloc(size, ALIGN, device_type, device_id, stream, user_data) };
        if start.is_null() {
            return Err(exhausted(size).with_prefix("the caller's alloc: "));
        }
        let callers = Callers {
            start,
            size,
            place,
            allocator,
        };
        if !start.addr().is_multiple_of(ALIGN) {
            return Err(Error::invalid_argument(format!(
                "the caller's alloc returned memory that is not aligned; address={start:p} \
                 alignment={ALIGN}"
            )));
        }
        Ok(Self {
            start,
            _owner: Owner::Callers(callers),
        })
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        let (device_type, device_id, stream) = self.place.to_c();
        let Allocator {
            free, user_data, ..
        } = self.allocator;
        // SAFETY: the caller's own function, once for what its other one allocated.
        unsafe {
            free(
                self.start,
                self.size,
                device_type,
                device_id,
                stream,
                user_data,
            );
        };
    }
}

impl Place {
    /// That of a tensor that is described.
    pub fn of(tensor: &tfckpt_tensor) -> Self {
        Self {
            device: tensor.is_device().then_some(tensor.device_id),
            stream: tensor.stream.expose_provenance(),
        }
    }

    /// Device type, number and stream as a `tfckpt_tensor` has them.
    pub fn to_c(self) -> (i32, i32, *mut c_void) {
        let device_type = match self.device {
            Some(_) => TFCKPT_DEVICE_CUDA,
            None => TFCKPT_DEVICE_HOST,
        };
        let stream = std::ptr::with_exposed_provenance_mut(self.stream);
        (device_type, self.device.unwrap_or(0), stream)
    }
}

fn exhausted(size: usize) -> Error {
    Error::resource_exhausted(format!("no memory for tensors; size={size}"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{Code, ContextOptions};

    const HOST: Place = Place {
        device: None,
        stream: 0,
    };

    fn context() -> Context {
        Context::new(ContextOptions::default()).unwrap()
    }

    /// Where tensors of these sizes begin, from the lowest of them on.
    fn starts(max_size: u64, sizes: &[usize]) -> Vec<Part> {
        let mut layout = Layout::new(max_size);
        let parts: Vec<Part> = sizes
            .iter()
            .map(|&size| layout.add(HOST, size).unwrap())
            .collect();
        layout.allocate(None, &context()).unwrap();
        parts
    }

    #[test]
    fn tensors_share_slabs_up_to_the_limit_and_are_aligned() {
        for max_size in [0, 1, 256, 1000, 1024, 3 << 20] {
            let sizes = [1, 256, 257, 4 << 20, 300, 3];
            let parts = starts(max_size, &sizes);
            let mut ranges: Vec<_> = parts
                .iter()
                .zip(sizes)
                .map(|(part, size)| (part.start().addr(), size))
                .collect();
            assert!(ranges.iter().all(|(start, _)| start.is_multiple_of(256)));
            for (part, size) in parts.iter().zip(sizes) {
                // SAFETY: allocated for so many bytes.
                unsafe { std::ptr::write_bytes(part.start().cast::<u8>(), 1, size) };
            }
            ranges.sort_unstable();
            let apart = ranges
                .windows(2)
                .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
            assert!(apart, "{ranges:?}");
            let shared = Arc::ptr_eq(&parts[0].slab, &parts[1].slab);
            assert_eq!(shared, max_size == 0 || max_size >= 512);
        }
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        let mut layout = Layout::new(0);
        assert!(layout.add(HOST, usize::MAX).is_err());
        let part = layout.add(HOST, usize::MAX / 4).unwrap();
        let error = layout.allocate(None, &context()).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(part.start().is_null());
    }

    static LIVE: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn alloc(
        size: usize,
        alignment: usize,
        device_type: i32,
        _: i32,
        stream: *mut c_void,
        user_data: *mut c_void,
    ) -> *mut c_void {
        assert_eq!((alignment, device_type, stream.addr()), (256, 0, 0));
        // SAFETY: the test's own counter of calls that may succeed.
        let left = unsafe { &*user_data.cast::<Cell<usize>>() };
        let Some(fewer) = left.get().checked_sub(1) else {
            return std::ptr::null_mut();
        };
        left.set(fewer);
        LIVE.fetch_add(size, Ordering::Relaxed);
        let layout = std::alloc::Layout::from_size_align(size, 256).unwrap();
        // SAFETY: the size is not 0.
        unsafe { std::alloc::alloc(layout).cast() }
    }

    unsafe extern "C" fn free(
        data: *mut c_void,
        size: usize,
        _: i32,
        _: i32,
        _: *mut c_void,
        _: *mut c_void,
    ) {
        LIVE.fetch_sub(size, Ordering::Relaxed);
        let layout = std::alloc::Layout::from_size_align(size, 256).unwrap();
        // SAFETY: allocated above.
        unsafe { std::alloc::dealloc(data.cast(), layout) };
    }

    #[test]
    fn the_callers_memory_goes_back_with_the_last_part() {
        let calls = Cell::new(2usize);
        let allocator = Allocator {
            alloc,
            free,
            user_data: (&raw const calls).cast_mut().cast(),
        };
        let mut layout = Layout::new(1024);
        let parts: Vec<Part> = [512, 512, 700]
            .into_iter()
            .map(|size| layout.add(HOST, size).unwrap())
            .collect();
        layout.allocate(Some(allocator), &context()).unwrap();
        assert_eq!(LIVE.load(Ordering::Relaxed), 1024 + 768);
        let mut parts = parts.into_iter();
        drop(parts.next());
        assert_eq!(LIVE.load(Ordering::Relaxed), 1024 + 768);
        std::thread::spawn(move || drop(parts)).join().unwrap();
        assert_eq!(LIVE.load(Ordering::Relaxed), 0);

        // The second slab cannot be had: the first one goes too.
        calls.set(1);
        let mut layout = Layout::new(1024);
        let parts: Vec<Part> = [1000, 1000]
            .into_iter()
            .map(|size| layout.add(HOST, size).unwrap())
            .collect();
        let error = layout.allocate(Some(allocator), &context()).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        drop(parts);
        assert_eq!(LIVE.load(Ordering::Relaxed), 0);
    }
}
