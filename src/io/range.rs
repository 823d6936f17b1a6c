//! A range of a file, read from front to back through a buffer of fixed size.

#![forbid(unsafe_code)]

use super::read::ReadFile;
use crate::coding;
use crate::error::{Error, Result};
use crate::memory::{ChunkBuffer, DestSpan};

/// Bytes that are read straight into a destination at once: small enough to be in the cache for the
/// checksum.
const CHUNK: usize = 256 << 10;

/// Told of every number of bytes that was just gone through; its error ends the reading.
pub type Tick<'a> = dyn Fn(u64) -> Result<()> + 'a;

/// Reads a range of a file from front to back.
pub struct RangeReader<'a> {
    file: &'a ReadFile,
    buffer: &'a mut ChunkBuffer,
    tick: &'a Tick<'a>,
    /// The first byte of the file that is not in the buffer yet.
    next: u64,
    end: u64,
    /// Bytes of the buffer that were used up.
    used: usize,
    /// Up to where the tick was told.
    told: u64,
}

impl<'a> RangeReader<'a> {
    /// Reads the bytes from `start` up to `end`, which lie inside the file, through `buffer`.
    pub fn new(
        file: &'a ReadFile,
        start: u64,
        end: u64,
        buffer: &'a mut ChunkBuffer,
        tick: &'a Tick<'a>,
    ) -> Self {
        buffer.clear();
        Self {
            file,
            buffer,
            tick,
            next: start,
            end,
            used: 0,
            told: start,
        }
    }

    /// Where in the file the next byte is.
    pub fn position(&self) -> u64 {
        self.next - self.at_hand() as u64
    }

    /// Bytes up to the end of the range.
    pub fn remaining(&self) -> u64 {
        self.end - self.position()
    }

    /// Tells the tick how far it is, to be called at the end too.
    ///
    /// # Errors
    ///
    /// Those of the tick.
    pub fn tell(&mut self) -> Result<()> {
        let position = self.position();
        let told = std::mem::replace(&mut self.told, position);
        (self.tick)(position - told)
    }

    fn at_hand(&self) -> usize {
        self.buffer.filled().len() - self.used
    }

    /// The bytes at hand, at least `least` of them unless the range ends before.
    ///
    /// # Errors
    ///
    /// Those of reading the file and of the tick, here and below.
    pub fn peek(&mut self, least: usize) -> Result<&[u8]> {
        let at_hand = self.at_hand();
        if at_hand < least && self.next < self.end {
            let start = self.position();
            let len = (self.end - start).min(self.buffer.capacity() as u64);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            self.used = 0;
            self.next = start;
            self.buffer
                .fill(len, |span| self.file.read_at(start, span))?;
            self.next = start + len as u64;
            self.tell()?;
        }
        Ok(self.buffer.filled().get(self.used..).unwrap_or_default())
    }

    /// Leaves `len` of the bytes at hand behind.
    pub fn consume(&mut self, len: usize) {
        self.used += len.min(self.at_hand());
    }

    /// A varint; `None` if the range holds none here.
    pub fn varint(&mut self) -> Result<Option<u64>> {
        let bytes = self.peek(coding::MAX_VARINT64)?;
        let Some((value, rest)) = coding::get_varint64(bytes) else {
            return Ok(None);
        };
        let len = bytes.len() - rest.len();
        self.consume(len);
        Ok(Some(value))
    }

    /// The next four bytes; `None` if the range ends before.
    pub fn four_bytes(&mut self) -> Result<Option<[u8; 4]>> {
        let bytes = self.peek(4)?.first_chunk().copied();
        if bytes.is_some() {
            self.consume(4);
        }
        Ok(bytes)
    }

    /// Hands `len` bytes, or all that are left, in pieces to `see`.
    pub fn pass(&mut self, len: u64, see: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut left = len.min(self.remaining());
        while left > 0 {
            let bytes = self.peek(1)?;
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            see(bytes.get(..len).unwrap_or_default());
            self.consume(len);
            left -= len as u64;
        }
        Ok(())
    }

    /// Leaves `len` bytes out without reading them, as far as they are not at hand.
    pub fn skip(&mut self, len: u64) -> Result<()> {
        let at_hand = self.at_hand();
        match usize::try_from(len) {
            Ok(len) if len <= at_hand => self.consume(len),
            _ => {
                let unread = (len - at_hand as u64).min(self.end - self.next);
                self.consume(at_hand);
                self.next += unread;
                self.tell()?;
            }
        }
        Ok(())
    }

    /// Fills `dest`; what was put there is handed in pieces to `see`.
    ///
    /// # Errors
    ///
    /// INTERNAL when the range ends before.
    pub fn copy_to(&mut self, dest: &mut [u8], see: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut rest = dest;
        while !rest.is_empty() {
            // Much is read straight to where it belongs, once the buffer is used up.
            if self.at_hand() == 0 && rest.len() >= self.buffer.capacity() {
                let (part, after) = rest.split_at_mut(rest.len().min(CHUNK));
                let len = part.len() as u64;
                if len > self.end - self.next {
                    return Err(past_the_end());
                }
                self.file.read_at(self.next, DestSpan::from(&mut *part))?;
                self.next += len;
                see(part);
                self.tell()?;
                rest = after;
                continue;
            }
            let bytes = self.peek(1)?;
            let len = rest.len().min(bytes.len());
            let (part, after) = rest.split_at_mut(len);
            part.copy_from_slice(bytes.get(..len).unwrap_or_default());
            if len == 0 {
                return Err(past_the_end());
            }
            see(part);
            self.consume(len);
            rest = after;
        }
        Ok(())
    }
}

fn past_the_end() -> Error {
    Error::internal("a copy leaves the range that is read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_range_is_read_once_from_front_to_back_whatever_the_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..2000u32).map(|i| (i % 251) as u8).collect();
        let mut file = bytes.clone();
        // A varint of ten bytes and four bytes, in the midst.
        file[100..110].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        std::fs::write(&path, &file).unwrap();
        let opened = ReadFile::open(&path).unwrap();
        for capacity in [10, 11, 64, 4096] {
            let mut buffer = ChunkBuffer::new(capacity).unwrap();
            let ticked = Cell::new(0);
            let tick = |bytes| {
                ticked.set(ticked.get() + bytes);
                Ok(())
            };
            let mut range = RangeReader::new(&opened, 50, 1950, &mut buffer, &tick);
            let mut seen = Vec::new();
            range
                .pass(50, &mut |part| seen.extend_from_slice(part))
                .unwrap();
            assert_eq!(seen, file[50..100]);
            assert_eq!(range.varint().unwrap(), Some(u64::MAX));
            assert_eq!(range.four_bytes().unwrap().unwrap(), file[110..114]);
            range.skip(500).unwrap();
            assert_eq!((range.position(), range.remaining()), (614, 1336));
            let mut copy = [0; 700];
            let mut copied = Vec::new();
            range
                .copy_to(&mut copy, &mut |part| copied.extend_from_slice(part))
                .unwrap();
            assert!(copy == file[614..1314] && copied == copy);
            assert!(range.copy_to(&mut [0; 700], &mut |_| {}).is_err());
            range.pass(u64::MAX, &mut |_| {}).unwrap();
            range.tell().unwrap();
            assert_eq!(range.four_bytes().unwrap(), None);
            assert_eq!((range.remaining(), ticked.get()), (0, 1900), "{capacity}");
        }
    }
}
