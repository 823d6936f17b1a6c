//! Lookups of many keys.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::block::{Block, Position};
use super::reader::TableReader;
use crate::error::Result;

/// Looks keys up one after the other and keeps the block of the last one.
///
/// Any order is correct. Ascending keys are fast: each block is read and checked once, and a key
/// near the last one is a few entries further on.
#[derive(Debug)]
pub struct Cursor<'a> {
    table: &'a TableReader,
    /// The current data block and its number; always one that is sound from end to end.
    current: Option<(usize, Arc<Block>)>,
    position: Position,
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
    /// DATA_LOSS, with the offset, if the block that would hold the key is damaged; or the system's
    /// error. The cursor stays usable.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        let index = self.table.index();
        let same_block = self.current.take_if(|(number, _)| {
            index
                .bounds(*number)
                .is_some_and(|bounds| bounds.contain(key))
        });
        let current = match same_block {
            Some(current) => current,
            None => {
                let Some(number) = index.find(key) else {
                    return Ok(None);
                };
                self.position.rewind();
                (number, self.table.load(number)?)
            }
        };
        let (_, block) = self.current.insert(current);
        let found = self
            .position
            .find(block, key)
            .map_err(|error| self.table.here(error))?;
        Ok(found.then(|| self.position.value(block)))
    }
}
