//! Tensors of variants: their bytes can be verified without knowing what they mean.
//!
//! ```text
//! varint64 length | serialized VariantTensorDataProto | fixed32 masked checksum so far     per element
//! ```
//!
//! The checksum runs over each length as 8 bytes in the bundle's byte order, the element's bytes, and
//! each stored checksum.

use super::entry::DataExtent;
use crate::checksum::{self, Crc32c};
use crate::coding;
use crate::error::{Error, Result};

/// Checks all checksums of a tensor of variants, `data` being all bytes of `extent`; `bundle` names the
/// checkpoint in the message.
///
/// # Errors
///
/// DATA_LOSS when an element runs past the entry or a checksum differs.
pub fn verify(data: &[u8], num_elements: u64, extent: &DataExtent, bundle: &str) -> Result<()> {
    let mut crc = Crc32c::new();
    let mut rest = data;
    for i in 0..num_elements {
        let short = || Error::data_loss(format!("variant runs past its entry; element={i}"));
        let (length, after) = coding::get_varint64(rest).ok_or_else(short)?;
        let length_bytes = length.to_le_bytes();
        let length = usize::try_from(length).map_err(|_| short())?;
        let (element, after) = after.split_at_checked(length).ok_or_else(short)?;
        let (stored, after) = after.split_first_chunk::<4>().ok_or_else(short)?;
        crc.update(&length_bytes);
        crc.update(element);
        let expected = checksum::unmask(u32::from_le_bytes(*stored));
        if expected != crc.value() {
            return Err(Error::data_loss(format!(
                "The checksum after Variant {i} does not match. Expected: {expected:08} Actual: {:08}",
                crc.value()
            )));
        }
        crc.update(stored);
        rest = after;
    }
    extent.check(bundle, crc.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flipped_bits_are_found() {
        let mut data = vec![3, b'a', b'b', b'c'];
        let mut crc = Crc32c::new();
        crc.update(&3u64.to_le_bytes());
        crc.update(b"abc");
        let stored = checksum::mask(crc.value()).to_le_bytes();
        crc.update(&stored);
        data.extend(stored);
        let extent = DataExtent {
            shard_id: 0,
            offset: 0,
            size: data.len() as u64,
            crc32c: crc.value(),
        };
        verify(&data, 1, &extent, "m").unwrap();
        for bit in 0..data.len() * 8 {
            let mut flipped = data.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&flipped, 1, &extent, "m").is_err(), "bit {bit}");
        }
        assert!(verify(&data, 2, &extent, "m").is_err());
    }
}
