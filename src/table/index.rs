//! The index block, decoded: which data block holds which keys.
//!
//! Each entry is a separator and a handle. The keys of data block *i* are greater than separator
//! *i* - 1 and not greater than separator *i*.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::block::{Block, Bounds, Position};
use super::format::BlockHandle;
use crate::error::{Error, Result};

/// The data blocks of a table, in ascending order of keys and offsets.
#[derive(Debug, Default)]
pub struct Index {
    /// All separators, one after the other.
    keys: Vec<u8>,
    entries: Vec<IndexEntry>,
}

#[derive(Debug)]
struct IndexEntry {
    /// The separator, in `keys`.
    separator: Range<usize>,
    handle: BlockHandle,
}

/// What bounds the numbers in an index.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size of the file in bytes.
    pub file_size: u64,
    /// Where the footer begins: behind every block.
    pub blocks_end: u64,
    /// Where the first of metaindex and index block begins: behind every data block.
    pub data_end: u64,
}

impl Index {
    /// Decodes and validates the whole index block.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if an entry or a handle is malformed, keys or blocks do not ascend, or a block
    /// does not lie inside `limits`.
    pub fn decode(block: &Block, limits: Limits) -> Result<Self> {
        let mut index = Self::default();
        if block.is_empty() {
            return Ok(index);
        }
        // A separator is not longer than a key of its block. Writers let separators share nothing;
        // a block that does could otherwise stand for the square of its size.
        let most_keys = usize::try_from(limits.file_size)
            .unwrap_or(usize::MAX)
            .max(block.len());
        let mut previous_end = 0;
        let mut position = Position::default();
        while position.advance(block, None)? {
            let (handle, rest) = BlockHandle::decode(position.value(block))
                .ok_or_else(|| bad_handle(block, &position))?;
            let end = handle.end(limits.blocks_end)?;
            if !rest.is_empty() || handle.offset < previous_end || end > limits.data_end {
                return Err(bad_handle(block, &position));
            }
            previous_end = end;

            let start = index.keys.len();
            if position.key().len() > most_keys - start {
                return Err(block.bad_entry(position.start()));
            }
            index.keys.extend_from_slice(position.key());
            index.entries.push(IndexEntry {
                separator: start..index.keys.len(),
                handle,
            });
        }
        Ok(index)
    }

    /// Number of data blocks.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Handle of a data block; `None` behind the last.
    pub fn handle(&self, block: usize) -> Option<BlockHandle> {
        Some(self.entries.get(block)?.handle)
    }

    /// The keys that a data block may hold; `None` behind the last.
    pub fn bounds(&self, block: usize) -> Option<Bounds<'_>> {
        let entry = self.entries.get(block)?;
        let before = block
            .checked_sub(1)
            .and_then(|before| self.entries.get(before));
        Some(Bounds {
            above: before.map(|before| self.separator(before)),
            up_to: self.separator(entry),
        })
    }

    /// The data block that holds `key` if any does; `None` if it is behind the last.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let block = self
            .entries
            .partition_point(|entry| self.separator(entry) < key);
        (block < self.len()).then_some(block)
    }

    fn separator(&self, entry: &IndexEntry) -> &[u8] {
        self.keys.get(entry.separator.clone()).unwrap_or_default()
    }
}

fn bad_handle(block: &Block, position: &Position) -> Error {
    let place = block.bad_entry(position.start()).offset();
    Error::data_loss("bad block handle").with_offset(place.unwrap_or_default())
}
