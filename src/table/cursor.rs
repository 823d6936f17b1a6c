//! Lookups of many keys.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::block::{Block, Bounds, Position};
use super::reader::TableReader;
use crate::error::Result;

/// Looks keys up one after the other and keeps the block of the last one.
///
/// Any order is correct. Ascending keys are fast: each block is read once, and a key near the last one
/// is a few entries further on.
///
/// Walking all entries of a block takes ten times as long as reading it. A key that is found therefore
/// costs the walk from one restart point to the next, and only one that is missing the whole block's.
#[derive(Debug)]
pub struct Cursor<'a> {
    table: &'a TableReader,
    current: Option<Current<'a>>,
    position: Position,
}

/// The current data block, whose checksum and restart points are right.
#[derive(Debug)]
struct Current<'a> {
    block: Arc<Block>,
    /// The keys that it may hold.
    bounds: Option<Bounds<'a>>,
    checked: Checked,
}

/// Which entries of a block have been walked without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    None,
    /// Those from this restart point to the next.
    Stretch(usize),
    All,
}

impl<'a> Current<'a> {
    fn load(table: &'a TableReader, number: usize) -> Result<Self> {
        let block = table.read(number)?;
        let checked = if table.is_validated(number) {
            Checked::All
        } else {
            block.check_restarts().map_err(|error| table.here(error))?;
            Checked::None
        };
        Ok(Self {
            block,
            bounds: table.index().bounds(number),
            checked,
        })
    }

    /// Checks the entries that the answer relies on: the stretch with the key that was found, or all
    /// if it was not.
    fn check(&mut self, found_in: Option<usize>) -> Result<()> {
        match found_in {
            _ if self.checked == Checked::All => {}
            Some(stretch) if self.checked == Checked::Stretch(stretch) => {}
            Some(stretch) => {
                self.block.check_stretch(stretch, self.bounds)?;
                self.checked = Checked::Stretch(stretch);
            }
            None => {
                self.block.validate(self.bounds)?;
                self.checked = Checked::All;
            }
        }
        Ok(())
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(table: &'a TableReader) -> Self {
        Self {
            table,
            current: None,
            position: Position::default(),
        }
    }

    /// The value of `key`, `None` if the table does not hold it.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, with the offset, if the block that would hold the key is damaged: its checksum, its
    /// restart points or the entries around the key; anything in it if the key is not found. Or the
    /// system's error. The cursor stays usable.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        let in_block =
            |current: &Current<'_>| current.bounds.is_some_and(|bounds| bounds.contain(key));
        if !self.current.as_ref().is_some_and(in_block) {
            // The old block goes before the new one comes.
            self.current = None;
            let Some(number) = self.table.index().find(key) else {
                return Ok(None);
            };
            self.position.rewind();
            self.current = Some(Current::load(self.table, number)?);
        }
        let Some(current) = &mut self.current else {
            return Ok(None);
        };
        let found = self.position.find(&current.block, key).and_then(|found| {
            let found_in = found.then(|| self.position.stretch());
            current.check(found_in)?;
            Ok(found)
        });
        let found = found.map_err(|error| self.table.here(error))?;
        Ok(found.then(|| self.position.value(&current.block)))
    }
}
