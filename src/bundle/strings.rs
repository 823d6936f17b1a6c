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

use crate::checksum::{self, Crc32c};
use crate::coding;
use crate::error::{Error, Result};
use crate::memory::{self, ChunkBuffer, SourceSpan};

/// A restored tensor of strings, row-major.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringTensor {
    /// The elements, one after the other.
    data: Vec<u8>,
    /// Where each element ends in `data`.
    ends: Vec<usize>,
}

impl StringTensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The element at `index`, row-major.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.data.get(start..end)
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().filter_map(move |&end| {
            let element = self.data.get(start..end);
            start = end;
            element
        })
    }

    /// A tensor of `lengths.len()` elements of these lengths, whose bytes are still zero.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when the memory cannot be had.
    pub fn with_lengths(lengths: Vec<usize>) -> Result<Self> {
        let mut ends = lengths;
        let mut total = 0usize;
        for end in &mut ends {
            total = total
                .checked_add(*end)
                .ok_or_else(|| Error::resource_exhausted("strings exceed the address space"))?;
            *end = total;
        }
        Ok(Self {
            data: memory::zeroed(total)?,
            ends,
        })
    }

    /// The bytes of elements `first..end`.
    pub fn bytes_mut(&mut self, first: usize, end: usize) -> Option<&mut [u8]> {
        let at = |element: usize| match element.checked_sub(1) {
            Some(before) => self.ends.get(before).copied(),
            None => Some(0),
        };
        let range = at(first)?..at(end)?;
        self.data.get_mut(range)
    }

    /// A tensor whose elements lie in `data` one after the other; `ends` says where each one ends.
    pub fn from_parts(data: Vec<u8>, ends: Vec<usize>) -> Self {
        Self { data, ends }
    }

    /// A tensor made of copies of `parts`.
    pub fn gather<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut gathered = Self::default();
        for part in parts {
            gathered.data.extend_from_slice(part);
            gathered.ends.push(gathered.data.len());
        }
        gathered
    }
}

pub(super) fn update_with_length(crc: &mut Crc32c, length: u64, big_endian: bool) {
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

    /// Encodes the tensor, piece by piece, into `buffer`, which holds at least 64 bytes. `write` takes
    /// what is in it and leaves it empty, or another one in its place. Returns the entry's checksum,
    /// unmasked.
    ///
    /// # Errors
    ///
    /// Those of `write`.
    pub fn encode(
        &self,
        buffer: &mut ChunkBuffer,
        write: &mut dyn FnMut(&mut ChunkBuffer) -> Result<()>,
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
                    write(buffer)?;
                }
                let piece = (span.len() - done).min(buffer.room());
                let copied = buffer.append(span, done, piece);
                crc.update(copied.ok_or_else(|| Error::internal("a chunk outgrew its buffer"))?);
                done += piece;
            }
        }
        write(buffer)?;
        Ok(crc.value())
    }
}

/// Appends a few bytes, writing out what is there first if they do not fit.
fn append(
    buffer: &mut ChunkBuffer,
    bytes: &[u8],
    write: &mut dyn FnMut(&mut ChunkBuffer) -> Result<()>,
) -> Result<()> {
    if buffer.room() < bytes.len() {
        write(buffer)?;
    }
    buffer
        .append_bytes(bytes)
        .map(|_| ())
        .ok_or_else(|| Error::internal("the buffer is too small"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The bytes of a data file, written through a buffer of `capacity` bytes, and their checksum.
    pub fn encode(elements: &[&[u8]], capacity: usize) -> (Vec<u8>, u32) {
        let spans: Vec<SourceSpan<'_>> = elements.iter().map(|&e| SourceSpan::from(e)).collect();
        let strings = StringsToSave(&spans);
        let mut out = Vec::new();
        let mut buffer = ChunkBuffer::new(capacity).unwrap();
        let crc = strings.encode(&mut buffer, &mut |buffer| {
            out.extend_from_slice(buffer.filled());
            buffer.clear();
            Ok(())
        });
        assert_eq!(out.len() as u64, strings.encoded_size());
        (out, crc.unwrap())
    }

    #[test]
    fn two_strings_have_tensorflows_bytes() {
        let (data, crc) = encode(&[b"ab", b"cde"], 64);
        assert_eq!(data, b"\x02\x03\xbd\xe3\x7d\x26abcde");
        assert_eq!(crc, 0x5237_f088);
        assert_eq!(encode(&[], 64).0, 0xa282_ead8u32.to_le_bytes());
    }

    #[test]
    fn elements_are_found_by_their_ends() {
        let mut strings = StringTensor::with_lengths(vec![2, 0, 3]).unwrap();
        strings.bytes_mut(0, 3).unwrap().copy_from_slice(b"abcde");
        strings.bytes_mut(1, 1).unwrap().copy_from_slice(b"");
        assert_eq!(
            strings,
            StringTensor::gather([&b"ab"[..], b"", b"cde"].into_iter())
        );
        assert_eq!(strings.get(2), Some(&b"cde"[..]));
        assert_eq!(strings.get(3), None);
        assert!(strings.bytes_mut(0, 4).is_none());
        assert!(StringTensor::with_lengths(vec![usize::MAX, 1]).is_err());
    }
}
