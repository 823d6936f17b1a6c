//! Values of any size, within a limit of memory.

#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use super::block::{Block, Position};
use super::format::{BlockHandle, Entries, check_block, compressed_size};
use super::reader::TableReader;
use crate::coding::get_varint32;
use crate::error::{Code, Error, Result};
use crate::io::read::ReadFile;

/// Looks values up without holding more than one block of at most a given size.
///
/// A larger block, which writers make for one large entry, stays in the file: its checksum is computed
/// piece by piece, its entries are walked over, and the value is lent as a place in the file.
/// Ascending keys are fast, any order is correct.
#[derive(Debug)]
pub struct Values<'a> {
    table: &'a TableReader,
    limit: u64,
    held: Option<(usize, Arc<Block>)>,
    position: Position,
    walk: Option<Walk>,
}

/// A value that was found.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Its bytes.
    Held(&'a [u8]),
    /// Where its bytes lie, not compressed.
    InFile {
        /// The file.
        file: &'a ReadFile,
        /// The first byte.
        offset: u64,
        /// Number of bytes.
        size: u64,
    },
}

/// Called again and again while a large block is verified; its error ends that.
pub type Tick<'a> = dyn FnMut() -> Result<()> + 'a;

/// Longest key that is looked at in a block that stays in the file, in bytes.
const MAX_KEY: u32 = 1 << 20;

/// Bytes of the longest entry header: three varints.
const MAX_HEADER: u64 = 15;

impl<'a> Values<'a> {
    /// Values of `table`; blocks of more than `limit` bytes stay in the file.
    pub fn new(table: &'a TableReader, limit: u64) -> Self {
        Self {
            table,
            limit,
            held: None,
            position: Position::default(),
            walk: None,
        }
    }

    /// Bytes that it takes to read the value of `key`, if they are compressed; `None` if they are not,
    /// or if there are none.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if the block is malformed; the system's error.
    pub fn compressed_size(table: &TableReader, key: &[u8]) -> Result<Option<u64>> {
        let index = table.index();
        let handle = index.find(key).and_then(|number| index.handle(number));
        match handle {
            Some(handle) => {
                compressed_size(table.file(), handle).map_err(|error| table.here(error))
            }
            None => Ok(None),
        }
    }

    /// The value of `key`, `None` if the table does not hold it. Without `verify`, the checksum of a
    /// block that stays in the file is not looked at.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, with the offset, if the block that would hold the key is damaged;
    /// RESOURCE_EXHAUSTED if it is compressed and beyond the limit; the system's error.
    pub fn get(&mut self, key: &[u8], verify: Option<&mut Tick<'_>>) -> Result<Option<Value<'_>>> {
        let index = self.table.index();
        let found = index
            .find(key)
            .and_then(|number| Some((number, index.handle(number)?)));
        let Some((number, handle)) = found else {
            return Ok(None);
        };
        if self.held.as_ref().is_none_or(|(held, _)| *held != number) {
            let compressed = compressed_size(self.table.file(), handle)
                .map_err(|error| self.table.here(error))?;
            if compressed.is_some_and(|size| size > self.limit) {
                return Err(self.table.here(
                    Error::resource_exhausted(format!(
                        "a compressed block does not fit the budget; bytes={} limit={}",
                        compressed.unwrap_or_default(),
                        self.limit
                    ))
                    .with_offset(handle.offset),
                ));
            }
            if compressed.is_none() && handle.size > self.limit {
                return self.walk_to(key, number, handle, verify);
            }
            // The old block goes before the new one comes.
            self.held = None;
            self.position.rewind();
            self.held = Some((number, self.table.load(number)?));
        }
        let Some((_, block)) = &self.held else {
            return Ok(None);
        };
        let found = self
            .position
            .find(block, key)
            .map_err(|error| self.table.here(error))?;
        Ok(found.then(|| Value::Held(self.position.value(block))))
    }

    fn walk_to(
        &mut self,
        key: &[u8],
        number: usize,
        handle: BlockHandle,
        verify: Option<&mut Tick<'_>>,
    ) -> Result<Option<Value<'_>>> {
        let file = self.table.file();
        let kept = self.walk.take_if(|walk| walk.number == number);
        let walk = match kept {
            Some(walk) => self.walk.insert(walk),
            None => {
                let entries = Entries::locate(file, handle).map_err(|e| self.table.here(e))?;
                self.walk.insert(Walk::new(number, entries))
            }
        };
        let found = walk.find(file, key, handle, verify);
        let found = found.map_err(|error| self.table.here(error))?;
        Ok(found.then(|| Value::InFile {
            file,
            offset: walk.value.start,
            size: walk.value.end - walk.value.start,
        }))
    }
}

/// A place in a block that stays in the file. Its offsets are the file's.
#[derive(Debug)]
struct Walk {
    number: usize,
    entries: Entries,
    verified: bool,
    next: u64,
    key: Vec<u8>,
    value: Range<u64>,
    on_entry: bool,
}

impl Walk {
    fn new(number: usize, entries: Entries) -> Self {
        Self {
            number,
            next: entries.start,
            entries,
            verified: false,
            key: Vec::new(),
            value: 0..0,
            on_entry: false,
        }
    }

    fn find(
        &mut self,
        file: &ReadFile,
        key: &[u8],
        handle: BlockHandle,
        verify: Option<&mut Tick<'_>>,
    ) -> Result<bool> {
        if let Some(tick) = verify
            && !self.verified
        {
            check_block(file, handle, tick)?;
            self.verified = true;
        }
        if self.on_entry && self.key.as_slice() > key {
            self.next = self.entries.start;
            self.key.clear();
            self.on_entry = false;
        }
        while !self.on_entry || self.key.as_slice() < key {
            if !self.advance(file)? {
                return Ok(false);
            }
        }
        Ok(self.key == key)
    }

    fn advance(&mut self, file: &ReadFile) -> Result<bool> {
        let Entries { start, end } = self.entries;
        let at = self.next;
        if at >= end {
            self.next = start;
            self.key.clear();
            self.on_entry = false;
            return Ok(false);
        }
        let bad = || Error::data_loss("bad entry in block").with_offset(at);
        let header = read(file, at, (end - at).min(MAX_HEADER))?;
        let (shared, rest) = get_varint32(&header).ok_or_else(bad)?;
        let (unshared, rest) = get_varint32(rest).ok_or_else(bad)?;
        let (value_len, rest) = get_varint32(rest).ok_or_else(bad)?;
        let key_start = at + (header.len() - rest.len()) as u64;
        let key_end = key_start + u64::from(unshared);
        let value_end = key_end + u64::from(value_len);
        if value_end > end || unshared > MAX_KEY || shared > MAX_KEY {
            return Err(bad());
        }
        let suffix = read(file, key_start, u64::from(unshared))?;
        let shared = shared as usize;
        let replaced = self.key.get(shared..).ok_or_else(bad)?;
        if self.on_entry && replaced >= suffix.as_slice() {
            return Err(bad());
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(&suffix);
        self.value = key_end..value_end;
        self.next = value_end;
        self.on_entry = true;
        Ok(true)
    }
}

fn read(file: &ReadFile, offset: u64, len: u64) -> Result<Vec<u8>> {
    file.read_vec(offset, len)
        .map_err(|error| match error.code() {
            Code::OutOfRange => Error::data_loss("truncated block read").with_offset(offset),
            _ => error,
        })
}
