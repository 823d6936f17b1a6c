//! Writes a table.
//!
//! The bytes are those of TensorFlow's own writer for the same entries, so its rules are kept to
//! the letter: when a block ends, which entries get one of their own, and how separators are cut.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;

use super::block_builder::{BlockBuilder, check_sizes};
use super::format::{BlockHandle, Footer, put_trailer, trailer};
use crate::checksum::Crc32c;
use crate::coding::put_varint;
use crate::error::{Error, Result};

/// A data block ends once it has this many bytes. Smaller or larger ones could be read as well,
/// but TensorFlow's files have this one.
const BLOCK_SIZE: usize = 256 << 10;

/// Restart interval of data blocks.
const DATA_INTERVAL: usize = 16;

/// Restart interval of the index block, where every entry is a restart point.
const INDEX_INTERVAL: usize = 1;

/// Writes the entries it is given, in ascending order of keys, as a table.
///
/// It holds one data block (256 KiB and the entry that filled it) and the index, and writes each
/// block with one call, so the sink needs no buffer of its own.
#[derive(Debug)]
pub struct TableBuilder<W: Write> {
    sink: W,
    /// Bytes written so far.
    offset: u64,
    block_size: usize,
    data: BlockBuilder,
    index: BlockBuilder,
    /// The block written last, until the next key is known: only then can its separator be cut.
    pending: Option<BlockHandle>,
    any_entry: bool,
    /// The error that stopped the sink; what follows it would be written to the wrong place.
    failed: Option<Error>,
}

impl<W: Write> TableBuilder<W> {
    /// A table without entries, which will be written to `sink`.
    pub fn new(sink: W) -> Self {
        Self::with_block_size(sink, BLOCK_SIZE)
    }

    /// As [`new`](Self::new), with another block size than TensorFlow's.
    pub(super) fn with_block_size(sink: W, block_size: usize) -> Self {
        Self {
            sink,
            offset: 0,
            block_size,
            data: BlockBuilder::new(DATA_INTERVAL),
            index: BlockBuilder::new(INDEX_INTERVAL),
            pending: None,
            any_entry: false,
            failed: None,
        }
    }

    /// Whether an entry of this size has a block of its own, so that [`add_large`](Self::add_large)
    /// may be used for it.
    pub fn is_large(key: &[u8], value_len: u64) -> bool {
        value_len.saturating_add(key.len() as u64) >= 2 * BLOCK_SIZE as u64
    }

    /// Appends an entry that [`is_large`](Self::is_large), whose value of `value_len` bytes is
    /// written piece by piece. None of it is held.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add); those of `pieces`, and ABORTED if they have another size, are final.
    pub fn add_large(&mut self, key: &[u8], value_len: u64, pieces: &mut Pieces<'_>) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.any_entry && key <= self.data.last_key() {
            return Err(Error::internal("table keys are not in ascending order").with_key(key));
        }
        if u32::try_from(value_len).is_err() || u32::try_from(key.len()).is_err() {
            return Err(Error::invalid_argument(format!(
                "a table entry has less than 4 GiB; key={} value={value_len}",
                key.len()
            )));
        }
        self.flush()?;
        if let Some(handle) = self.pending {
            let separator = shortest_separator(self.data.last_key(), key);
            add_handle(&mut self.index, &separator, handle)?;
            self.pending = None;
        }
        let written = self.write_large(key, value_len, pieces);
        if let Err(error) = &written {
            self.failed.get_or_insert_with(|| error.clone());
        }
        written
    }

    fn write_large(&mut self, key: &[u8], value_len: u64, pieces: &mut Pieces<'_>) -> Result<()> {
        let start = self.offset;
        let mut crc = Crc32c::new();
        let mut head = Vec::with_capacity(key.len() + 16);
        put_varint(&mut head, 0);
        put_varint(&mut head, key.len() as u64);
        put_varint(&mut head, value_len);
        head.extend_from_slice(key);
        crc.update(&head);
        self.write(&head)?;
        let end = self.offset.saturating_add(value_len);
        pieces(&mut |piece| {
            if self.offset.saturating_add(piece.len() as u64) > end {
                return Err(changed());
            }
            crc.update(piece);
            self.write(piece)
        })?;
        if self.offset != end {
            return Err(changed());
        }
        // One restart point, at 0.
        let restarts = [0, 0, 0, 0, 1, 0, 0, 0];
        crc.update(&restarts);
        self.write(&restarts)?;
        self.pending = Some(BlockHandle {
            offset: start,
            size: self.offset - start,
        });
        self.write(&trailer(crc))?;
        self.data.set_last_key(key);
        self.any_entry = true;
        Ok(())
    }

    /// Appends an entry.
    ///
    /// # Errors
    ///
    /// INTERNAL if `key` is not greater than the one before, INVALID_ARGUMENT if key or value have
    /// 4 GiB or more; the table is as before then. The sink's error, without a file, is final.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.any_entry && key <= self.data.last_key() {
            return Err(Error::internal("table keys are not in ascending order").with_key(key));
        }
        // Before anything is written: a separator cut for a key that is then refused would be wrong.
        check_sizes(key, value)?;
        // An entry of two blocks' size gets a block of its own.
        let entry_size = key.len().saturating_add(value.len());
        if entry_size >= self.block_size.saturating_mul(2) {
            self.flush()?;
        }
        if let Some(handle) = self.pending {
            let separator = shortest_separator(self.data.last_key(), key);
            add_handle(&mut self.index, &separator, handle)?;
            self.pending = None;
        }
        self.data.add(key, value)?;
        self.any_entry = true;
        if self.data.size() >= self.block_size {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is left and returns the sink, which is not flushed.
    ///
    /// # Errors
    ///
    /// The sink's error, without a file.
    pub fn finish(mut self) -> Result<W> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.flush()?;
        let metaindex = self.write_block(BlockBuilder::new(DATA_INTERVAL).take())?;
        if let Some(handle) = self.pending {
            let successor = short_successor(self.data.last_key());
            add_handle(&mut self.index, &successor, handle)?;
        }
        let index = self.index.take();
        let index = self.write_block(index)?;
        self.write(&Footer { metaindex, index }.encode())?;
        Ok(self.sink)
    }

    /// Ends the data block, if it has entries.
    fn flush(&mut self) -> Result<()> {
        if !self.data.is_empty() {
            let block = self.data.take();
            self.pending = Some(self.write_block(block)?);
        }
        Ok(())
    }

    fn write_block(&mut self, mut block: Vec<u8>) -> Result<BlockHandle> {
        let handle = BlockHandle {
            offset: self.offset,
            size: block.len() as u64,
        };
        put_trailer(&mut block);
        self.write(&block)?;
        Ok(handle)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = self.sink.write_all(bytes) {
            // The sink's path is the caller's to name, so only code and reason are taken.
            let error = Error::io(&error, Path::new(""));
            let reason = error.message().trim_start_matches("; ");
            let error = Error::new(error.code(), reason);
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// Hands a value over, in order, piece by piece.
pub type Pieces<'a> = dyn FnMut(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> + 'a;

fn changed() -> Error {
    Error::aborted("the value changed its size while it was written")
}

fn add_handle(index: &mut BlockBuilder, separator: &[u8], handle: BlockHandle) -> Result<()> {
    let mut value = Vec::new();
    handle.encode(&mut value);
    index.add(separator, &value)
}

/// A key from `last` (inclusive) to `next` (exclusive), shorter than `last` where TensorFlow finds
/// one: it looks at the first byte that differs and no further.
fn shortest_separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    let differing = last.iter().zip(next).position(|(a, b)| a != b);
    let cut = differing.and_then(|i| {
        let raised = last.get(i)?.checked_add(1)?;
        (raised < *next.get(i)?).then_some((i, raised))
    });
    raise(last, cut)
}

/// A key not less than `last`, shorter where possible: the first byte below `ff` is raised and ends
/// it.
fn short_successor(last: &[u8]) -> Vec<u8> {
    let cut = last
        .iter()
        .enumerate()
        .find_map(|(i, byte)| Some((i, byte.checked_add(1)?)));
    raise(last, cut)
}

/// `key` up to `cut`'s index, followed by its byte; all of `key` without a cut.
fn raise(key: &[u8], cut: Option<(usize, u8)>) -> Vec<u8> {
    match cut {
        Some((len, byte)) => {
            let mut out = key.get(..len).unwrap_or_default().to_vec();
            out.push(byte);
            out
        }
        None => key.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn separators_are_cut_as_tensorflow_cuts_them() {
        for (last, next, separator) in [
            (&b"abc"[..], &b"abf"[..], &b"abd"[..]),
            (b"abcxyz", b"abe", b"abd"),
            (b"abcxyz", b"abd", b"abcxyz"),
            (b"ab", b"abc", b"ab"),
            (b"", b"a", b""),
            (b"a\xfe", b"a\xff", b"a\xfe"),
            (b"a\xfd\0", b"a\xff", b"a\xfe"),
            (b"a\x7fz", b"a\x81", b"a\x80"),
        ] {
            assert_eq!(shortest_separator(last, next), separator);
        }
        for (last, successor) in [
            (&b"w"[..], &b"x"[..]),
            (b"\xff\xff", b"\xff\xff"),
            (b"\xff\xfeq", b"\xff\xff"),
            (b"", b""),
        ] {
            assert_eq!(short_successor(last), successor);
        }
    }

    #[test]
    fn keys_that_do_not_ascend_are_refused_and_the_table_goes_on() {
        let mut builder = TableBuilder::new(Vec::new());
        builder.add(b"", b"0").unwrap();
        builder.add(b"b", b"1").unwrap();
        for key in [&b""[..], b"a", b"b"] {
            assert_eq!(builder.add(key, b"2").unwrap_err().code(), Code::Internal);
        }
        builder.add(b"c", b"3").unwrap();

        let mut expected = TableBuilder::new(Vec::new());
        for (key, value) in [(&b""[..], b"0"), (b"b", b"1"), (b"c", b"3")] {
            expected.add(key, value).unwrap();
        }
        assert_eq!(builder.finish().unwrap(), expected.finish().unwrap());
    }

    #[test]
    fn errors_of_the_sink_have_code_and_reason_and_are_final() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::Error::from_raw_os_error(libc::ENOSPC))
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut builder = TableBuilder::with_block_size(Full, 1);
        for result in [
            builder.add(b"a", b""),
            builder.add(b"b", b""),
            builder.finish().map(drop),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.code(), Code::ResourceExhausted);
            assert_eq!(error.message(), "No space left on device");
            assert_eq!(error.file(), None);
        }
    }
}
