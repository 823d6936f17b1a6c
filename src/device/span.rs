//! Device memory, as an address that is never followed on the host.

use std::marker::PhantomData;
use std::ops::Range;

/// A range of a device's memory, valid for `'a`.
///
/// As [`DestSpan`](crate::memory::DestSpan) and [`SourceSpan`](crate::memory::SourceSpan) are for the
/// host's memory: copies of a span may be used by several threads at once, and the plan of a transfer
/// gives each byte to one work item.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSpan<'a> {
    address: usize,
    /// Below [`LEN_BITS`] the length, above the device: a span of each tensor of a call is kept.
    len_and_device: u64,
    lifetime: PhantomData<&'a ()>,
}

/// Bits of a length: more than any memory has.
const LEN_BITS: u32 = 48;

const MAX_LEN: u64 = (1 << LEN_BITS) - 1;

impl DeviceSpan<'_> {
    /// The `len` bytes at `address` of the device with ordinal `device`.
    ///
    /// # Safety
    ///
    /// The range must be allocated for all of `'a`, and until the copies from and to it have run that were
    /// enqueued meanwhile. Till then nothing else may write to it, nor read it if it is to be written.
    /// `address` may be anything if `len` is 0. No device has 2^48 bytes, nor a number of 2^16: what is
    /// beyond becomes the largest number, which is refused wherever it is compared.
    pub unsafe fn from_raw_parts(address: usize, len: usize, device: i32) -> Self {
        let device = u16::try_from(device).unwrap_or(u16::MAX);
        Self {
            address,
            len_and_device: (len as u64).min(MAX_LEN) | u64::from(device) << LEN_BITS,
            lifetime: PhantomData,
        }
    }

    /// For tests that copy nothing: no memory.
    #[cfg(test)]
    pub(crate) fn nowhere(address: usize, len: usize, device: i32) -> Self {
        // SAFETY: there is no driver in these tests that could be given the address.
        unsafe { Self::from_raw_parts(address, len, device) }
    }

    /// The ordinal of the device.
    pub fn device(&self) -> i32 {
        i32::try_from(self.len_and_device >> LEN_BITS).unwrap_or(i32::MAX)
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        usize::try_from(self.len_and_device & MAX_LEN).unwrap_or(usize::MAX)
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Address of the first byte and of the one past the last, to compare ranges. The host's memory and
    /// that of all devices share one range of addresses.
    pub fn addresses(&self) -> Range<usize> {
        self.address..self.address.saturating_add(self.len())
    }

    /// The `len` bytes from `offset`, if they lie inside.
    pub fn get(&self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.len()).then(|| Self {
            address: self.address.saturating_add(offset),
            len_and_device: len as u64 | (self.len_and_device & !MAX_LEN),
            ..*self
        })
    }

    /// The first address as the driver counts.
    pub(super) fn pointer(&self) -> u64 {
        self.address as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_keeps_what_it_is_told_and_gives_parts_inside_it() {
        // SAFETY: nothing is copied.
        let span = |len, device| unsafe { DeviceSpan::from_raw_parts(0x1000, len, device) };
        let whole = span(300, 7);
        assert_eq!((whole.len(), whole.device()), (300, 7));
        assert_eq!(whole.addresses(), 0x1000..0x1000 + 300);
        let part = whole.get(100, 200).unwrap();
        assert_eq!((part.len(), part.device()), (200, 7));
        assert_eq!(part.addresses(), 0x1000 + 100..0x1000 + 300);
        assert!(whole.get(101, 200).is_none());
        assert!(whole.get(usize::MAX, 2).is_none());
        assert!(span(0, 0).is_empty());
        // Beyond what there is.
        assert_eq!(span(usize::MAX, 1).len() as u64, MAX_LEN);
        assert_eq!(span(1, -1).device(), i32::from(u16::MAX));
        assert_eq!(size_of::<DeviceSpan<'_>>(), 16);
    }
}
