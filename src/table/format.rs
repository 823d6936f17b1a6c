//! The parts of a table outside its blocks' entries, and the reading of a verified block.
//!
//! ```text
//! handle:   offset varint64 | size varint64          size leaves out the trailer
//! trailer:  type u8 | crc fixed32                    crc = mask(crc32c(block || type))
//! footer:   metaindex handle | index handle | zeros up to byte 40 | magic fixed64
//! ```
//!
//! The footer is the last 48 bytes of the file and the only part without a checksum, so it is held
//! to the one form that writers produce: shortest varints and zero padding.

#![forbid(unsafe_code)]

use crate::checksum::{Crc32c, mask, unmask};
use crate::coding::{get_fixed32, get_varint64, put_varint};
use crate::error::{Code, Error, Result};
use crate::io::read::ReadFile;

/// Bytes of a block's trailer. Part of the persistent format; can never change.
pub const TRAILER_SIZE: usize = 5;

/// Bytes of the footer. Part of the persistent format; can never change.
pub const FOOTER_SIZE: usize = 48;

/// The footer's last 8 bytes. Part of the persistent format; can never change.
const MAGIC: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();

/// Block type: stored as it is. Part of the persistent format; can never change.
const UNCOMPRESSED: u8 = 0;

/// Block type: raw Snappy. Part of the persistent format; can never change. It is never written,
/// because some builds of TensorFlow cannot read it.
const SNAPPY: u8 = 1;

/// Snappy's densest element is a copy of 64 bytes in 3, so no valid block claims to expand more.
const MAX_SNAPPY_EXPANSION: usize = 22;

/// Where a block lies, in bytes from the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHandle {
    /// Offset of the block.
    pub offset: u64,
    /// Size of the block without its trailer.
    pub size: u64,
}

impl BlockHandle {
    /// Appends the encoded handle.
    pub fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.offset);
        put_varint(out, self.size);
    }

    /// Decodes a handle; returns it with what follows, or `None` if it is malformed.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (offset, rest) = get_varint64(bytes)?;
        let (size, rest) = get_varint64(rest)?;
        Some((Self { offset, size }, rest))
    }

    /// The offset just behind the block's trailer, which is at most `limit`.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if the block reaches further.
    pub fn end(self, limit: u64) -> Result<u64> {
        let text = match self.size.checked_add(TRAILER_SIZE as u64) {
            None => "handle.size() too big",
            Some(size) => match self.offset.checked_add(size) {
                Some(end) if end <= limit => return Ok(end),
                _ => "truncated block read",
            },
        };
        Err(Error::data_loss(text).with_offset(self.offset))
    }
}

/// The footer: where the metaindex and the index block lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The metaindex block.
    pub metaindex: BlockHandle,
    /// The index block.
    pub index: BlockHandle,
}

impl Footer {
    /// The footer's 48 bytes.
    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_SIZE);
        self.metaindex.encode(&mut out);
        self.index.encode(&mut out);
        out.resize(FOOTER_SIZE - MAGIC.len(), 0);
        out.extend(MAGIC);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        if !bytes.ends_with(&MAGIC) {
            return Err(Error::data_loss("not an sstable (bad magic number)"));
        }
        let handles = BlockHandle::decode(bytes).and_then(|(metaindex, rest)| {
            let (index, _) = BlockHandle::decode(rest)?;
            Some(Self { metaindex, index })
        });
        handles
            // Without a checksum, this comparison is what notices damage to padding and varints.
            .filter(|footer| footer.encode() == bytes)
            .ok_or_else(|| Error::data_loss("bad block handle"))
    }

    /// Where the footer begins, which bounds every block; `None` if the file is too short for one.
    pub fn offset(file: &ReadFile) -> Option<u64> {
        file.size().checked_sub(FOOTER_SIZE as u64)
    }

    /// Reads the footer of `file`; its blocks lie inside the file, before the footer.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if there is no sound footer, or the system's error.
    pub fn read(file: &ReadFile) -> Result<Self> {
        let start = Self::offset(file)
            .ok_or_else(|| Error::data_loss("file is too short to be an sstable"))?;
        let bytes = read(file, start, FOOTER_SIZE as u64)?;
        let footer = Self::decode(&bytes).map_err(|error| error.with_offset(start))?;
        footer.metaindex.end(start)?;
        footer.index.end(start)?;
        Ok(footer)
    }
}

/// What a block holds, verified and decompressed.
#[derive(Debug)]
pub struct Contents {
    /// Entries, restart array and restart count.
    pub bytes: Vec<u8>,
    /// Offset of the block in the file.
    pub offset: u64,
    /// Whether the file holds it compressed, so that positions in `bytes` are none in the file.
    pub compressed: bool,
}

/// Reads the block at `handle`, into `memory` if that is enough, and verifies its checksum.
///
/// # Errors
///
/// DATA_LOSS at the block's offset if it does not lie inside the file or is damaged, or the
/// system's error.
pub fn read_block(file: &ReadFile, handle: BlockHandle, memory: Vec<u8>) -> Result<Contents> {
    read_contents(file, handle, memory).map_err(|error| error.with_offset(handle.offset))
}

fn read_contents(file: &ReadFile, handle: BlockHandle, mut bytes: Vec<u8>) -> Result<Contents> {
    let end = handle.end(Footer::offset(file).unwrap_or_default())?;
    bytes.clear();
    file.append_to(handle.offset, end - handle.offset, &mut bytes)
        .map_err(|error| past_the_end(error, handle.offset))?;
    let truncated = || Error::data_loss("truncated block read");
    let [kind, crc @ ..] = bytes.last_chunk::<TRAILER_SIZE>().ok_or_else(truncated)?;
    let (kind, (stored, _)) = (*kind, get_fixed32(crc).ok_or_else(truncated)?);
    bytes.truncate(bytes.len() - TRAILER_SIZE);

    if block_crc(&bytes, kind) != unmask(stored) {
        return Err(Error::data_loss("block checksum mismatch"));
    }
    let compressed = match kind {
        UNCOMPRESSED => false,
        SNAPPY => {
            bytes = decompress(&bytes)?;
            true
        }
        _ => return Err(Error::data_loss("bad block type")),
    };
    Ok(Contents {
        bytes,
        offset: handle.offset,
        compressed,
    })
}

/// Where the entries of an uncompressed block lie in the file.
#[derive(Clone, Copy, Debug)]
pub struct Entries {
    /// The first byte.
    pub start: u64,
    /// Where the restart array begins.
    pub end: u64,
}

impl Entries {
    /// Reads the restart count of the block at `handle`.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if the restart array does not fit; the system's error.
    pub fn locate(file: &ReadFile, handle: BlockHandle) -> Result<Self> {
        const FIXED32: u64 = 4;
        let bad = || Error::data_loss("bad block contents").with_offset(handle.offset);
        let array_end = handle.size.checked_sub(FIXED32).ok_or_else(bad)?;
        let count = read(file, handle.offset + array_end, FIXED32)?;
        let (count, _) = get_fixed32(&count).ok_or_else(bad)?;
        let size = array_end
            .checked_sub(u64::from(count) * FIXED32)
            .filter(|_| count > 0)
            .ok_or_else(bad)?;
        Ok(Self {
            start: handle.offset,
            end: handle.offset + size,
        })
    }
}

/// Bytes that reading the block at `handle` takes if it is compressed: as it is stored and as it will
/// be. `None` if it is not.
///
/// # Errors
///
/// DATA_LOSS if the block is malformed; the system's error.
pub fn compressed_size(file: &ReadFile, handle: BlockHandle) -> Result<Option<u64>> {
    handle.end(Footer::offset(file).unwrap_or_default())?;
    let kind = read(file, handle.offset + handle.size, 1)?;
    if kind != [SNAPPY] {
        return Ok(None);
    }
    const MAX_LENGTH: u64 = 5;
    let start = read(file, handle.offset, handle.size.min(MAX_LENGTH))?;
    let (len, _) = get_varint64(&start).ok_or_else(|| {
        Error::data_loss("corrupted compressed block contents").with_offset(handle.offset)
    })?;
    Ok(Some(len.saturating_add(handle.size)))
}

/// Verifies the checksum of the uncompressed block at `handle` without holding the block; calls `tick`
/// again and again meanwhile.
///
/// # Errors
///
/// As [`read_block`]; those of `tick`.
pub fn check_block(
    file: &ReadFile,
    handle: BlockHandle,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    const PIECE: u64 = 128 << 10;
    let here = |text: &str| Error::data_loss(text).with_offset(handle.offset);
    let end = handle.end(Footer::offset(file).unwrap_or_default())?;
    let mut crc = Crc32c::new();
    let mut at = handle.offset;
    let trailer = end - TRAILER_SIZE as u64;
    while at < trailer {
        let len = PIECE.min(trailer - at);
        crc.update(&read(file, at, len)?);
        at += len;
        tick()?;
    }
    let bytes = read(file, trailer, TRAILER_SIZE as u64)?;
    let (kind, stored) = bytes
        .split_first()
        .and_then(|(kind, rest)| Some((*kind, get_fixed32(rest)?.0)))
        .ok_or_else(|| here("truncated block read"))?;
    crc.update(&[kind]);
    if crc.value() != unmask(stored) {
        return Err(here("block checksum mismatch"));
    }
    if kind == UNCOMPRESSED {
        Ok(())
    } else {
        Err(here("bad block type"))
    }
}

/// Appends the trailer to an uncompressed block.
pub fn put_trailer(block: &mut Vec<u8>) {
    let crc = mask(block_crc(block, UNCOMPRESSED));
    block.push(UNCOMPRESSED);
    block.extend(crc.to_le_bytes());
}

/// The trailer of an uncompressed block whose bytes `crc` has seen.
pub fn trailer(mut crc: Crc32c) -> [u8; TRAILER_SIZE] {
    crc.update(&[UNCOMPRESSED]);
    let [a, b, c, d] = mask(crc.value()).to_le_bytes();
    [UNCOMPRESSED, a, b, c, d]
}

fn block_crc(block: &[u8], kind: u8) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(block);
    crc.update(&[kind]);
    crc.value()
}

/// The `len` bytes from `offset`; a file that has become shorter since it was opened is damage.
fn read(file: &ReadFile, offset: u64, len: u64) -> Result<Vec<u8>> {
    file.read_vec(offset, len)
        .map_err(|error| past_the_end(error, offset))
}

fn past_the_end(error: Error, offset: u64) -> Error {
    match error.code() {
        Code::OutOfRange => Error::data_loss("truncated block read").with_offset(offset),
        _ => error,
    }
}

fn decompress(compressed: &[u8]) -> Result<Vec<u8>> {
    let corrupted = || Error::data_loss("corrupted compressed block contents");
    let len = snap::raw::decompress_len(compressed).map_err(|_| corrupted())?;
    if len.div_ceil(MAX_SNAPPY_EXPANSION) > compressed.len() {
        return Err(corrupted());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| {
        Error::resource_exhausted(format!("out of memory for a table block size={len}"))
    })?;
    bytes.resize(len, 0);
    match snap::raw::Decoder::new().decompress(compressed, &mut bytes) {
        Ok(written) if written == len => Ok(bytes),
        _ => Err(corrupted()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footer_round_trips_at_the_limits_of_its_numbers() {
        for [a, b, c, d] in [[0; 4], [u64::MAX; 4], [62, 8, 75, 14]] {
            let footer = Footer {
                metaindex: BlockHandle { offset: a, size: b },
                index: BlockHandle { offset: c, size: d },
            };
            let bytes = footer.encode();
            assert_eq!(bytes.len(), FOOTER_SIZE);
            assert_eq!(Footer::decode(&bytes).unwrap(), footer);
        }
    }

    #[test]
    fn footer_with_any_flipped_bit_decodes_to_other_handles_or_not_at_all() {
        let footer = Footer {
            metaindex: BlockHandle {
                offset: 262,
                size: 8,
            },
            index: BlockHandle {
                offset: 275,
                size: 14,
            },
        };
        let bytes = footer.encode();
        for i in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[i] ^= 1 << bit;
                assert!(!Footer::decode(&damaged).is_ok_and(|read| read == footer));
            }
        }
    }

    #[test]
    fn handle_end_is_bounded_without_wrapping() {
        let end = |offset, size| {
            BlockHandle { offset, size }
                .end(100)
                .map_err(|error| error.message().to_owned())
        };
        assert_eq!(end(0, 95), Ok(100));
        assert_eq!(end(100, 0).unwrap_err(), "truncated block read");
        assert_eq!(end(1 << 40, 0).unwrap_err(), "truncated block read");
        assert_eq!(end(u64::MAX, 8).unwrap_err(), "truncated block read");
        assert_eq!(end(0, u64::MAX - 4).unwrap_err(), "handle.size() too big");
        assert_eq!(end(0, u64::MAX - 5).unwrap_err(), "truncated block read");
    }

    #[test]
    fn snappy_length_bombs_are_refused_and_the_densest_block_is_not() {
        let dense = snap::raw::Encoder::new()
            .compress_vec(&vec![7; 1 << 20])
            .unwrap();
        assert_eq!(decompress(&dense).unwrap(), vec![7; 1 << 20]);
        for bytes in [
            // Claims 2^32 - 1, 221 and 0 bytes.
            &b"\xff\xff\xff\xff\x0f\0\0\0"[..],
            b"\xdd\x01\0\0\0\0\0\0\0\0",
            b"\0\0",
            b"",
            // A copy from offset 0, a copy from before the start, a literal past the end.
            b"\x04\x01\x00",
            b"\x04\x01\x09",
            b"\x04\xf0\x7f",
        ] {
            let error = decompress(bytes).unwrap_err();
            assert_eq!(error.message(), "corrupted compressed block contents");
            assert_eq!(error.code(), Code::DataLoss);
        }
    }
}
