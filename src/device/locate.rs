//! What the driver knows of an address.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};
use std::ops::Range;

use super::context::Entered;
use super::driver::call;
use super::span::DeviceSpan;
use crate::error::{Error, Result};

/// CU_POINTER_ATTRIBUTE_MEMORY_TYPE, DEVICE_ORDINAL, IS_MANAGED, RANGE_START_ADDR and RANGE_SIZE.
const ATTRIBUTES: [c_uint; 5] = [2, 9, 8, 11, 12];

/// Whose memory an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The host's, of which the driver knows nothing.
    Host,
    /// The host's, page-locked.
    Pinned,
    /// That of the device with this ordinal.
    Device(i32),
    /// Memory that the driver moves between the host and devices.
    Managed,
}

/// Whose memory an address is in, and how far that reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Whose memory it is.
    pub place: Place,
    /// The allocation around the address, or the part of it that was mapped at once; empty for the host's
    /// memory.
    pub range: Range<usize>,
}

/// Asks the driver about `address`.
///
/// # Errors
///
/// Those of the driver.
pub fn locate(entered: &Entered<'_>, address: usize) -> Result<Location> {
    let mut memory_type: c_uint = 0;
    let mut device: c_int = 0;
    let mut is_managed: c_uint = 0;
    let mut start: u64 = 0;
    let mut size: usize = 0;
    let out: [*mut c_void; 5] = [
        (&raw mut memory_type).cast(),
        (&raw mut device).cast(),
        (&raw mut is_managed).cast(),
        (&raw mut start).cast(),
        (&raw mut size).cast(),
    ];
    let (attributes, out) = (ATTRIBUTES.as_ptr(), out.as_ptr());
    // SAFETY: two arrays of five. Each place has the size that its attribute takes, and holds a plain
    // integer, whatever the driver writes.
    unsafe {
        call!(
            entered.driver(),
            cuPointerGetAttributes(5, attributes, out, address as u64)
        )
    }?;
    let place = match memory_type {
        _ if is_managed != 0 => Place::Managed,
        0 => Place::Host,
        1 => Place::Pinned,
        _ => Place::Device(device),
    };
    let start = usize::try_from(start).unwrap_or_default();
    let range = match place {
        Place::Host => 0..0,
        _ => start..start.saturating_add(size),
    };
    Ok(Location { place, range })
}

/// Allocations that a [`Locator`] remembers: more than those that hold most tensors, and little memory.
const MOST_KNOWN: usize = 1 << 10;

/// Checks that spans are what they are said to be. It remembers allocations, as many tensors are often in
/// the same few.
#[derive(Debug, Default)]
pub struct Locator {
    /// By their first addresses, which no two have in common, of whatever device.
    known: BTreeMap<usize, Location>,
}

impl Locator {
    /// Whether a span lies in an allocation, of its device, that is remembered, so that the driver need not
    /// be asked.
    pub fn knows(&self, span: &DeviceSpan<'_>) -> bool {
        let Range { start, end } = span.addresses();
        self.known_at(start).is_some_and(|known| {
            known.place == Place::Device(span.device()) && end <= known.range.end
        })
    }

    fn known_at(&self, address: usize) -> Option<&Location> {
        let (_, known) = self.known.range(..=address).next_back()?;
        (address < known.range.end).then_some(known)
    }

    /// Refuses a span that is not, or not to its end, memory of its device.
    ///
    /// The driver tells pieces of memory that were mapped one after the other, as some engines do, from an
    /// allocation that is too small only by what follows it. So a span that ends inside another
    /// allocation of the device passes.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with what the memory is instead; those of the driver.
    pub fn check(&mut self, entered: &Entered<'_>, span: &DeviceSpan<'_>) -> Result<()> {
        let Range { start, end } = span.addresses();
        let mut next = start;
        while next < end {
            let known = self.known_at(next).cloned();
            let location = known.map_or_else(|| self.ask(entered, next), Ok)?;
            refuse(span, &location, next - start)?;
            // Where the driver tells no range there is nothing more to check.
            next = match location.range.end {
                known_end if known_end > next => known_end,
                _ => end,
            };
        }
        Ok(())
    }

    /// Asks the driver, and remembers the answer.
    fn ask(&mut self, entered: &Entered<'_>, address: usize) -> Result<Location> {
        let location = locate(entered, address)?;
        if !location.range.is_empty() {
            if self.known.len() >= MOST_KNOWN {
                self.known.clear();
            }
            self.known.insert(location.range.start, location.clone());
        }
        Ok(location)
    }
}

/// Refuses memory that is not where `span` is said to be. Of the span `checked` bytes are right.
fn refuse(span: &DeviceSpan<'_>, location: &Location, checked: usize) -> Result<()> {
    let device = span.device();
    let place = match location.place {
        Place::Managed => return Ok(()),
        Place::Device(other) if other == device => return Ok(()),
        _ if checked > 0 => {
            return Err(Error::invalid_argument(format!(
                "the memory on CUDA device {device} is too small; size={}, needed={}",
                checked,
                span.len()
            )));
        }
        Place::Device(other) => format!("of CUDA device {other}"),
        Place::Pinned => "page-locked host memory".to_owned(),
        Place::Host => "host memory".to_owned(),
    };
    Err(Error::invalid_argument(format!(
        "the pointer given as memory of CUDA device {device} is {place}"
    )))
}
