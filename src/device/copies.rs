//! Enqueues copies: many of them by one call where the driver can.

use std::ptr;

use super::context::Entered;
use super::driver::call;
use super::status;
use super::stream::Stream;
use super::table::CopyAttributes;
use crate::error::Result;

/// Where copies go from and to.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// From page-locked host memory to device memory.
    ToDevice,
    /// From device memory to page-locked host memory.
    ToHost,
    /// From device memory to device memory.
    WithinDevice,
}

/// Copies in one direction, in the three arrays that the driver takes.
#[derive(Debug)]
pub struct Copies {
    direction: Direction,
    sources: Vec<u64>,
    dests: Vec<u64>,
    lens: Vec<usize>,
}

impl Copies {
    pub fn with_capacity(direction: Direction, capacity: usize) -> Self {
        Self {
            direction,
            sources: Vec::with_capacity(capacity),
            dests: Vec::with_capacity(capacity),
            lens: Vec::with_capacity(capacity),
        }
    }

    /// Adds a copy, unless it is of no bytes.
    pub fn push(&mut self, source: u64, dest: u64, len: usize) {
        if len > 0 {
            self.sources.push(source);
            self.dests.push(dest);
            self.lens.push(len);
        }
    }

    /// Enqueues the copies, which have no order among themselves. After an error some may be enqueued.
    ///
    /// # Safety
    ///
    /// Until the stream has passed the copies, all memory stays allocated, nothing else writes to the
    /// sources, and nothing else uses the destinations.
    pub unsafe fn enqueue(&self, entered: &Entered<'_>, stream: &Stream) -> Result<()> {
        // SAFETY: the caller's promise.
        let batch = unsafe { self.enqueue_batch(entered, stream) };
        // SAFETY: as above.
        batch.unwrap_or_else(|| unsafe { self.enqueue_each(entered, stream) })
    }

    /// By one call, if there is more than one copy and the driver has that call.
    ///
    /// # Safety
    ///
    /// As for [`enqueue`](Self::enqueue).
    unsafe fn enqueue_batch(&self, entered: &Entered<'_>, stream: &Stream) -> Option<Result<()>> {
        let count = self.lens.len();
        if count < 2 {
            return None;
        }
        let functions = entered.driver().functions();
        let attributes = CopyAttributes {
            // CU_MEMCPY_SRC_ACCESS_ORDER_STREAM: the sources are read when the stream gets there.
            source_access_order: 1,
            source_location: [0; 2],
            dest_location: [0; 2],
            flags: 0,
        };
        // These attributes hold from the first copy on.
        let first = 0usize;
        let (dests, sources) = (self.dests.as_ptr(), self.sources.as_ptr());
        let (lens, stream) = (self.lens.as_ptr(), stream.handle());
        let (attributes, first) = (&raw const attributes, &raw const first);
        let (symbol, code) = if let Some(copy) = functions.cuMemcpyBatchAsync_v2 {
            // SAFETY: three arrays of `count`, one of the attributes and of their beginnings. What they
            // name is the caller's promise.
            let code = unsafe { copy(dests, sources, lens, count, attributes, first, 1, stream) };
            ("cuMemcpyBatchAsync_v2", code)
        } else {
            let copy = functions.cuMemcpyBatchAsync?;
            let mut failed = 0;
            let failed = &raw mut failed;
            // SAFETY: as above; and it writes the number of the copy that failed.
            let code = unsafe {
                copy(
                    dests, sources, lens, count, attributes, first, 1, failed, stream,
                )
            };
            ("cuMemcpyBatchAsync", code)
        };
        Some(status::check(functions, symbol, code))
    }

    /// One after the other.
    ///
    /// # Safety
    ///
    /// As for [`enqueue`](Self::enqueue).
    unsafe fn enqueue_each(&self, entered: &Entered<'_>, stream: &Stream) -> Result<()> {
        let (driver, stream) = (entered.driver(), stream.handle());
        let ends = self.sources.iter().zip(&self.dests);
        for ((&source, &dest), &len) in ends.zip(&self.lens) {
            // SAFETY: the caller's promise. The addresses of host memory were pointers when they were
            // pushed.
            unsafe {
                match self.direction {
                    Direction::ToDevice => {
                        let source = host(source).cast_const();
                        call!(driver, cuMemcpyHtoDAsync_v2(dest, source, len, stream))
                    }
                    Direction::ToHost => {
                        call!(
                            driver,
                            cuMemcpyDtoHAsync_v2(host(dest), source, len, stream)
                        )
                    }
                    Direction::WithinDevice => {
                        call!(driver, cuMemcpyDtoDAsync_v2(dest, source, len, stream))
                    }
                }
            }?;
        }
        Ok(())
    }
}

/// The pointer whose address was pushed.
fn host(address: u64) -> *mut std::ffi::c_void {
    ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or_default())
}
