//! Tensors of strings.
//!
//! ```text
//! varint64 length          per element
//! fixed32  checksum        masked CRC-32C of the lengths, each as a fixed-size integer
//! bytes                    per element
//! ```
//!
//! The checksum of the lengths covers each as 4 bytes, or as 8 if it does not fit, in the bundle's byte
//! order, not the varints. The entry's checksum goes on from there over the 4 checksum bytes as stored
//! and the bytes of the elements.

use super::entry::DataExtent;
use crate::checksum::{self, Crc32c};
use crate::coding;
use crate::error::{Error, Result};
use crate::memory::{ChunkBuffer, SourceSpan};

/// A restored tensor of strings, row-major.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringTensor {
    /// What the data file holds, lengths included: the elements are not copied again.
    data: Vec<u8>,
    /// Where each element lies in `data`.
    elements: Vec<std::ops::Range<usize>>,
}

impl StringTensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The element at `index`, row-major.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.data.get(self.elements.get(index)?.clone())
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.elements
            .iter()
            .filter_map(|range| self.data.get(range.clone()))
    }

    /// Takes `data`, all bytes of `extent`, apart. With `verify`, checksums are checked; `bundle` names
    /// the checkpoint in the message.
    ///
    /// # Errors
    ///
    /// DATA_LOSS with TensorFlow's texts when lengths run past the entry or a checksum differs.
    pub fn decode(
        data: Vec<u8>,
        num_elements: u64,
        big_endian: bool,
        extent: &DataExtent,
        bundle: &str,
        verify: bool,
    ) -> Result<Self> {
        let end = extent.offset.saturating_add(extent.size);
        let too_long =
            || Error::data_loss(format!("String lengths longer than expected offset {end}"));
        let mut lengths_crc = Crc32c::new();
        let mut rest = data.as_slice();
        // Each length takes at least a byte, so `data` bounds what is reserved.
        let num_elements = usize::try_from(num_elements).map_err(|_| too_long())?;
        if num_elements > data.len() {
            return Err(too_long());
        }
        let mut lengths = Vec::with_capacity(num_elements);
        for _ in 0..num_elements {
            let (length, after) = coding::get_varint64(rest).ok_or_else(too_long)?;
            update_with_length(&mut lengths_crc, length, big_endian);
            lengths.push(usize::try_from(length).map_err(|_| too_long())?);
            rest = after;
        }
        let (stored, after) = rest.split_first_chunk::<4>().ok_or_else(too_long)?;
        let stored_crc = if big_endian {
            u32::from_be_bytes(*stored)
        } else {
            u32::from_le_bytes(*stored)
        };
        if verify && checksum::unmask(stored_crc) != lengths_crc.value() {
            return Err(Error::data_loss(format!(
                "The length checksum does not match: expected {:08} but actual is {:08}",
                checksum::unmask(stored_crc),
                lengths_crc.value()
            )));
        }
        if verify {
            let mut crc = lengths_crc;
            crc.update(stored);
            crc.update(after);
            extent.check(bundle, crc.value())?;
        }
        let mut start = data.len() - after.len();
        let mut elements = Vec::with_capacity(num_elements);
        for length in lengths {
            let end = start.checked_add(length).filter(|&end| end <= data.len());
            let end = end.ok_or_else(too_long)?;
            elements.push(start..end);
            start = end;
        }
        if start != data.len() {
            return Err(Error::data_loss(format!(
                "string lengths end before the entry; unused={}",
                data.len() - start
            )));
        }
        Ok(Self { data, elements })
    }

    /// A tensor made of copies of `parts`.
    pub fn gather<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut gathered = Self::default();
        for part in parts {
            let start = gathered.data.len();
            gathered.data.extend_from_slice(part);
            gathered.elements.push(start..gathered.data.len());
        }
        gathered
    }
}

fn update_with_length(crc: &mut Crc32c, length: u64, big_endian: bool) {
    match (u32::try_from(length), big_endian) {
        (Ok(length), false) => crc.update(&length.to_le_bytes()),
        (Ok(length), true) => crc.update(&length.to_be_bytes()),
        (Err(_), false) => crc.update(&length.to_le_bytes()),
        (Err(_), true) => crc.update(&length.to_be_bytes()),
    }
}

/// The elements of a tensor of strings that is to be saved.
#[derive(Clone, Copy, Debug)]
pub struct StringsToSave<'a>(pub &'a [SourceSpan<'a>]);

impl StringsToSave<'_> {
    /// Bytes that the tensor takes in a data file.
    pub fn encoded_size(&self) -> u64 {
        let element = |span: &SourceSpan<'_>| {
            coding::varint_len(span.len() as u64) as u64 + span.len() as u64
        };
        4 + self.0.iter().map(element).sum::<u64>()
    }

    /// Writes the encoded tensor, piece by piece, to `write`, through `buffer`, which holds at least
    /// 64 bytes. Returns the entry's checksum, unmasked.
    ///
    /// # Errors
    ///
    /// Those of `write`.
    pub fn encode(
        &self,
        buffer: &mut ChunkBuffer,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<u32> {
        buffer.clear();
        let mut crc = Crc32c::new();
        let mut varint = Vec::with_capacity(coding::MAX_VARINT64);
        for span in self.0 {
            let length = span.len() as u64;
            update_with_length(&mut crc, length, false);
            varint.clear();
            coding::put_varint(&mut varint, length);
            append(buffer, &varint, write)?;
        }
        let stored = checksum::mask(crc.value()).to_le_bytes();
        crc.update(&stored);
        append(buffer, &stored, write)?;
        // Short elements share a write; a long one is cut into pieces.
        for span in self.0 {
            let mut done = 0;
            while done < span.len() {
                if buffer.room() == 0 {
                    write(buffer.filled())?;
                    buffer.clear();
                }
                let piece = (span.len() - done).min(buffer.room());
                let copied = buffer.append(span, done, piece);
                crc.update(copied.ok_or_else(|| Error::internal("a chunk outgrew its buffer"))?);
                done += piece;
            }
        }
        write(buffer.filled())?;
        buffer.clear();
        Ok(crc.value())
    }
}

/// Appends a few bytes, writing out what is there first if they do not fit.
fn append(
    buffer: &mut ChunkBuffer,
    bytes: &[u8],
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if buffer.room() < bytes.len() {
        write(buffer.filled())?;
        buffer.clear();
    }
    buffer
        .append_bytes(bytes)
        .map(|_| ())
        .ok_or_else(|| Error::internal("the buffer is too small"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use proptest::prelude::*;

    fn encode(elements: &[&[u8]], capacity: usize) -> (Vec<u8>, u32) {
        let spans: Vec<SourceSpan<'_>> = elements.iter().map(|&e| SourceSpan::from(e)).collect();
        let strings = StringsToSave(&spans);
        let mut out = Vec::new();
        let mut buffer = ChunkBuffer::new(capacity).unwrap();
        let crc = strings.encode(&mut buffer, &mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        assert_eq!(out.len() as u64, strings.encoded_size());
        (out, crc.unwrap())
    }

    fn decode(data: &[u8], num: u64, crc: u32) -> Result<StringTensor> {
        StringTensor::decode(data.to_vec(), num, false, &extent(data, crc), "m", true)
    }

    fn extent(data: &[u8], crc32c: u32) -> DataExtent {
        DataExtent {
            shard_id: 0,
            offset: 0,
            size: data.len() as u64,
            crc32c,
        }
    }

    #[test]
    fn two_strings_have_tensorflows_bytes() {
        let (data, crc) = encode(&[b"ab", b"cde"], 64);
        assert_eq!(data, b"\x02\x03\xbd\xe3\x7d\x26abcde");
        assert_eq!(crc, 0x5237_f088);
        assert_eq!(encode(&[], 64).0, 0xa282_ead8u32.to_le_bytes());
    }

    #[test]
    fn big_endian_strings_are_read() {
        let data = b"\x02\x03\xde\xd0\xc9\x8dabcde".to_vec();
        let extent = extent(&data, 0x0010_69f5);
        let strings = StringTensor::decode(data, 2, true, &extent, "m", true).unwrap();
        assert_eq!(strings.iter().collect::<Vec<_>>(), [&b"ab"[..], b"cde"]);
    }

    #[test]
    fn lengths_that_run_past_the_entry_are_data_loss() {
        let huge = {
            let mut data = Vec::new();
            coding::put_varint(&mut data, 1 << 50);
            let crc = checksum::crc32c(&(1u64 << 50).to_le_bytes());
            data.extend(checksum::mask(crc).to_le_bytes());
            data
        };
        let crc = checksum::crc32c(&[]);
        for (data, num) in [
            (&huge[..], 1),
            (&[][..], 0),
            (&[0x80; 20], 1),
            (&[0; 3], 1),
            (&[0; 8], 1 << 40),
        ] {
            assert_eq!(decode(data, num, crc).unwrap_err().code(), Code::DataLoss);
            let unchecked =
                StringTensor::decode(data.to_vec(), num, false, &extent(data, crc), "m", false);
            assert_eq!(unchecked.unwrap_err().code(), Code::DataLoss);
        }
    }

    proptest! {
        #[test]
        fn strings_round_trip_and_every_flipped_bit_is_found(
            elements in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
            bit: usize,
        ) {
            let borrowed: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
            let (data, crc) = encode(&borrowed, 64);
            let strings = decode(&data, elements.len() as u64, crc).unwrap();
            prop_assert_eq!(strings.iter().collect::<Vec<_>>(), borrowed);

            let mut flipped = data;
            let bit = bit % (flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(
                decode(&flipped, elements.len() as u64, crc).unwrap_err().code(),
                Code::DataLoss
            );
        }
    }
}
