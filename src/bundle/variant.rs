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
use crate::error::{Error, Result};
use crate::io::range::{RangeReader, Tick};
use crate::io::read::ReadFile;
use crate::memory::ChunkBuffer;

/// Checks all checksums of a tensor of variants, which lies at `extent` of `file`, reading through
/// `buffer`; `bundle` names the checkpoint in the message.
///
/// # Errors
///
/// DATA_LOSS when an element runs past the entry or a checksum differs; those of reading and of
/// `tick`.
pub fn verify(
    file: &ReadFile,
    extent: &DataExtent,
    num_elements: u64,
    bundle: &str,
    buffer: &mut ChunkBuffer,
    tick: &Tick<'_>,
) -> Result<()> {
    let end = extent.offset.saturating_add(extent.size);
    let mut range = RangeReader::new(file, extent.offset, end, buffer, tick);
    let mut crc = Crc32c::new();
    for i in 0..num_elements {
        let short = || Error::data_loss(format!("variant runs past its entry; element={i}"));
        let length = range.varint()?.ok_or_else(short)?;
        if length > range.remaining() {
            return Err(short());
        }
        crc.update(&length.to_le_bytes());
        range.pass(length, &mut |bytes| crc.update(bytes))?;
        let stored = range.four_bytes()?.ok_or_else(short)?;
        let expected = checksum::unmask(u32::from_le_bytes(stored));
        if expected != crc.value() {
            return Err(Error::data_loss(format!(
                "The checksum after Variant {i} does not match. Expected: {expected:08} Actual: {:08}",
                crc.value()
            )));
        }
        crc.update(&stored);
    }
    // What follows is nobody's, but it counts as gone through.
    range.skip(u64::MAX)?;
    range.tell()?;
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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let check = |data: &[u8], num_elements| {
            std::fs::write(&path, data).unwrap();
            let file = ReadFile::open(&path).unwrap();
            let mut buffer = ChunkBuffer::new(16).unwrap();
            verify(&file, &extent, num_elements, "m", &mut buffer, &|_| Ok(()))
        };
        check(&data, 1).unwrap();
        for bit in 0..data.len() * 8 {
            let mut flipped = data.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&flipped, 1).is_err(), "bit {bit}");
        }
        assert!(check(&data, 2).is_err());
    }
}
