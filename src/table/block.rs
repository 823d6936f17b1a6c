//! A decoded block and a position in it. [`super::block_builder`] describes the layout.
//!
//! A [`Position`] trusts nothing: every step forward checks that the entry lies inside the block,
//! that its key follows the one before, and that restart points name exactly the entries that
//! share nothing. A block walked from end to end without an error is therefore sound. A block that
//! has not been walked may be searched once its restart points are known to ascend, but only what is
//! found in it counts, and only after [`Block::check_stretch`]: that a key is missing takes a sound
//! block.

#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::ops::Range;

use super::format::{BlockHandle, Contents, read_block};
use crate::coding::{get_fixed32, get_varint32};
use crate::error::{Error, Result};
use crate::io::read::ReadFile;

/// Bytes of a restart offset and of the restart count.
const FIXED32: usize = 4;

/// How many entries a search walks forward before it looks at the restart points again: about the
/// distance between two of them.
const NEARBY: usize = 16;

/// A block in memory whose restart array is known to lie inside it.
#[derive(Debug)]
pub struct Block {
    contents: Contents,
    /// Where the entries end and the restart array begins.
    entries_end: usize,
    num_restarts: usize,
}

/// The keys that a data block may hold, from the index.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// The separator of the block before: every key is greater. `None` for the first block.
    pub above: Option<&'a [u8]>,
    /// The block's own separator: no key is greater.
    pub up_to: &'a [u8],
}

impl Bounds<'_> {
    /// Whether `key` belongs to the block.
    pub fn contain(&self, key: &[u8]) -> bool {
        key <= self.up_to && self.above.is_none_or(|above| key > above)
    }
}

struct Entry {
    shared: usize,
    key: Range<usize>,
    value: Range<usize>,
}

impl Block {
    /// Reads the block at `handle`; its entries are not looked at yet.
    ///
    /// # Errors
    ///
    /// As [`read_block`], and DATA_LOSS if the restart array does not fit or is empty.
    pub fn read(file: &ReadFile, handle: BlockHandle) -> Result<Self> {
        Self::read_into(file, handle, Vec::new())
    }

    /// As [`read`](Self::read), into memory that is at hand, whatever it holds.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_into(file: &ReadFile, handle: BlockHandle, memory: Vec<u8>) -> Result<Self> {
        Self::new(read_block(file, handle, memory)?)
    }

    /// Whether the file holds it compressed.
    pub fn is_compressed(&self) -> bool {
        self.contents.compressed
    }

    /// The memory that held it.
    pub fn into_memory(self) -> Vec<u8> {
        self.contents.bytes
    }

    /// A block in memory.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if the restart array does not fit or is empty.
    pub fn new(contents: Contents) -> Result<Self> {
        let split = contents
            .bytes
            .len()
            .checked_sub(FIXED32)
            .and_then(|array_end| {
                let (num_restarts, _) = get_fixed32(contents.bytes.get(array_end..)?)?;
                let num_restarts = usize::try_from(num_restarts).ok().filter(|&n| n > 0)?;
                let entries_end = array_end.checked_sub(num_restarts.checked_mul(FIXED32)?)?;
                Some((entries_end, num_restarts))
            });
        match split {
            Some((entries_end, num_restarts)) => Ok(Self {
                contents,
                entries_end,
                num_restarts,
            }),
            None => Err(Error::data_loss("bad block contents").with_offset(contents.offset)),
        }
    }

    /// Whether this is the block without entries, as writers make it: one restart point, at 0.
    pub fn is_empty(&self) -> bool {
        self.entries_end == 0 && self.num_restarts == 1 && self.restart(0) == Some(0)
    }

    /// Size of the block in bytes, decompressed.
    pub fn len(&self) -> usize {
        self.contents.bytes.len()
    }

    /// Walks all entries, of which there must be one at least.
    ///
    /// # Errors
    ///
    /// DATA_LOSS at the first entry that is malformed or, given `bounds`, outside them.
    pub fn validate(&self, bounds: Option<Bounds<'_>>) -> Result<()> {
        let mut position = Position::default();
        while position.advance(self, bounds)? {}
        Ok(())
    }

    /// Checks that the restart points begin with the first entry, ascend, and lie among the entries, so
    /// that they can be searched.
    ///
    /// # Errors
    ///
    /// DATA_LOSS at the first one that does not.
    pub fn check_restarts(&self) -> Result<()> {
        let mut least = 0;
        for index in 0..self.num_restarts {
            let restart = self.restart(index).filter(|&restart| {
                let in_order = if index == 0 {
                    restart == 0
                } else {
                    restart >= least
                };
                in_order && restart < self.entries_end
            });
            let Some(restart) = restart else {
                return Err(self.bad_entry(least.min(self.entries_end)));
            };
            least = restart + 1;
        }
        Ok(())
    }

    /// Walks the entries from a restart point up to the next one, which it includes.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn check_stretch(&self, restart: usize, bounds: Option<Bounds<'_>>) -> Result<()> {
        let mut position = Position::default();
        position.jump(restart, self.restart(restart).unwrap_or_default());
        while position.advance(self, bounds)? && position.stretch() == restart {}
        Ok(())
    }

    /// DATA_LOSS for the entry at `position`.
    pub fn bad_entry(&self, position: usize) -> Error {
        let inside = if self.contents.compressed {
            0
        } else {
            position as u64
        };
        Error::data_loss("bad entry in block")
            .with_offset(self.contents.offset.saturating_add(inside))
    }

    fn restart(&self, index: usize) -> Option<usize> {
        if index >= self.num_restarts {
            return None;
        }
        let start = self.entries_end + index * FIXED32;
        let (offset, _) = get_fixed32(self.contents.bytes.get(start..)?)?;
        usize::try_from(offset).ok()
    }

    /// The whole key of the entry at a restart point.
    fn restart_key(&self, index: usize) -> Option<&[u8]> {
        let entry = self.entry_at(self.restart(index)?)?;
        (entry.shared == 0).then(|| self.slice(entry.key))
    }

    /// Decodes the entry that starts at `start`; `None` unless all of it lies among the entries.
    #[inline(always)]
    fn entry_at(&self, start: usize) -> Option<Entry> {
        let rest = self.contents.bytes.get(start..self.entries_end)?;
        let ([shared, unshared, value_len], rest) = entry_header(rest)?;
        let key_start = self.entries_end - rest.len();
        let key_end = key_start.checked_add(unshared)?;
        let value_end = key_end.checked_add(value_len)?;
        (value_end <= self.entries_end).then_some(Entry {
            shared,
            key: key_start..key_end,
            value: key_end..value_end,
        })
    }

    /// Bytes of an entry that was decoded from this block.
    fn slice(&self, range: Range<usize>) -> &[u8] {
        self.contents.bytes.get(range).unwrap_or_default()
    }
}

/// The three lengths before an entry's key, and what follows them.
pub fn entry_header(bytes: &[u8]) -> Option<([usize; 3], &[u8])> {
    // Nearly always they are below 128 and take a byte each.
    if let [shared, unshared, value_len, rest @ ..] = bytes
        && (shared | unshared | value_len) < 0x80
    {
        let lengths = [*shared, *unshared, *value_len];
        return Some((lengths.map(usize::from), rest));
    }
    let (shared, rest) = get_varint32(bytes)?;
    let (unshared, rest) = get_varint32(rest)?;
    let (value_len, rest) = get_varint32(rest)?;
    let lengths = [shared, unshared, value_len].map(usize::try_from);
    match lengths {
        [Ok(shared), Ok(unshared), Ok(value_len)] => Some(([shared, unshared, value_len], rest)),
        _ => None,
    }
}

/// A place in a block: before its first entry, on an entry, or behind the last.
///
/// It does not borrow the block, so that its owner can own both; every call must name the block
/// that it has been used with since [`rewind`](Self::rewind).
#[derive(Debug, Default)]
pub struct Position {
    /// The current key; its prefix is what the next entry shares.
    key: Vec<u8>,
    value: Range<usize>,
    /// Where the current entry starts.
    start: usize,
    /// Where the next entry starts.
    next: usize,
    /// The first restart point not before `next`.
    next_restart: usize,
    on_entry: bool,
}

impl Position {
    /// Goes before the first entry, of this or any other block.
    pub fn rewind(&mut self) {
        self.jump(0, 0);
    }

    /// Goes before the entry at `offset`, the restart point `restart`.
    fn jump(&mut self, restart: usize, offset: usize) {
        self.key.clear();
        self.next = offset;
        self.next_restart = restart;
        self.on_entry = false;
    }

    /// Key of the current entry.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Value of the current entry.
    pub fn value<'a>(&self, block: &'a Block) -> &'a [u8] {
        block.slice(self.value.clone())
    }

    /// Where the current entry starts in the block, for an error about it.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The restart point from which the current entry is reached.
    pub fn stretch(&self) -> usize {
        self.next_restart.saturating_sub(1)
    }

    /// Goes to the next entry; `false` behind the last.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if the entry is malformed, its key not greater than the one before or outside
    /// `bounds`, which are those of the steps before, or if a restart point names no entry. A block
    /// without entries is an error too.
    pub fn advance(&mut self, block: &Block, bounds: Option<Bounds<'_>>) -> Result<bool> {
        let start = self.next;
        let restart = block.restart(self.next_restart);
        if start >= block.entries_end {
            self.on_entry = false;
            return match restart {
                None => Ok(false),
                Some(_) => Err(block.bad_entry(start)),
            };
        }
        let bad = || block.bad_entry(start);
        let entry = block.entry_at(start).ok_or_else(bad)?;

        let at_restart = restart == Some(start);
        let skipped_restart = restart.is_some_and(|restart| restart < start);
        if skipped_restart || (at_restart && entry.shared != 0) || (start == 0 && !at_restart) {
            return Err(bad());
        }

        // The shared prefixes are the same bytes, so the rest decides the order.
        let suffix = block.slice(entry.key);
        let replaced = self.key.get(entry.shared..).ok_or_else(bad)?;
        if self.on_entry && replaced >= suffix {
            return Err(bad());
        }
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(suffix);
        // What is above the key before is above what that was.
        let outside = |bounds: Bounds<'_>| match self.on_entry {
            true => self.key.as_slice() > bounds.up_to,
            false => !bounds.contain(&self.key),
        };
        if bounds.is_some_and(outside) {
            return Err(bad());
        }

        self.start = start;
        self.next = entry.value.end;
        self.next_restart += usize::from(at_restart);
        self.value = entry.value;
        self.on_entry = true;
        Ok(true)
    }

    /// Goes to the entry of `key`, or else to the first one behind it; `true` if it is there.
    ///
    /// From an entry not far before, this takes a few steps; else it searches the restart points.
    /// The block must have passed [`Block::check_restarts`]; that a key is missing is certain only if it
    /// has passed [`Block::validate`].
    ///
    /// # Errors
    ///
    /// DATA_LOSS as for [`advance`](Self::advance).
    pub fn find(&mut self, block: &Block, key: &[u8]) -> Result<bool> {
        let mut order = match self.on_entry {
            true => self.key().cmp(key),
            false => Ordering::Greater,
        };
        let mut steps = 0;
        while order == Ordering::Less && steps < NEARBY {
            if !self.advance(block, None)? {
                return Ok(false);
            }
            order = self.key().cmp(key);
            steps += 1;
        }
        let passed = order == Ordering::Greater && steps > 0;
        if order == Ordering::Equal || passed {
            return Ok(!passed);
        }
        self.seek(block, key)?;
        while self.advance(block, None)? {
            match self.key().cmp(key) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(true),
                Ordering::Greater => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Goes before the last restart point whose key is not greater than `key`, or the first.
    fn seek(&mut self, block: &Block, key: &[u8]) -> Result<()> {
        // Restart points before `low` are not greater, those from `high` on are.
        let (mut low, mut high) = (0, block.num_restarts);
        while low < high {
            let middle = low + (high - low) / 2;
            let restart_key = block
                .restart_key(middle)
                .ok_or_else(|| block.bad_entry(block.entries_end + middle * FIXED32))?;
            if restart_key <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let restart = low.saturating_sub(1);
        let offset = block
            .restart(restart)
            .ok_or_else(|| block.bad_entry(block.entries_end))?;
        self.jump(restart, offset);
        Ok(())
    }
}
