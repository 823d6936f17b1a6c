//! All entries of a table, in order.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::block::{Block, Position};
use super::reader::TableReader;
use crate::error::Result;

/// Walks all entries in ascending order of keys, one block in memory at a time.
///
/// It lends each entry until the next call, so that no key is allocated.
#[derive(Debug)]
pub struct Iter<'a> {
    table: &'a TableReader,
    /// The block being walked.
    block: Option<Arc<Block>>,
    /// Number of the block being walked, or of the one to read next.
    number: usize,
    position: Position,
}

impl<'a> Iter<'a> {
    pub(super) fn new(table: &'a TableReader) -> Self {
        Self {
            table,
            block: None,
            number: 0,
            position: Position::default(),
        }
    }

    /// The next entry, key and value; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub fn next(&mut self) -> Option<Result<(&[u8], &[u8])>> {
        match self.step() {
            Ok(true) => Some(Ok((self.key(), self.value()))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Goes to the next entry; `false` at the end.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, with the offset, where a block is damaged, or the system's error: once for that
    /// block, after the entries before the damage. The call after goes on with the next block.
    pub fn step(&mut self) -> Result<bool> {
        self.advance().map_err(|error| {
            self.leave_block();
            self.table.here(error)
        })
    }

    /// Key of the entry that it went to.
    pub fn key(&self) -> &[u8] {
        self.position.key()
    }

    /// Value of the entry that it went to.
    pub fn value(&self) -> &[u8] {
        let block = self.block.as_ref();
        block.map_or(&[], |block| self.position.value(block))
    }

    fn advance(&mut self) -> Result<bool> {
        while let Some(bounds) = self.table.index().bounds(self.number) {
            let block = match &self.block {
                Some(block) => block,
                None => self.block.insert(self.table.read(self.number)?),
            };
            if self.position.advance(block, Some(bounds))? {
                return Ok(true);
            }
            self.leave_block();
        }
        Ok(false)
    }

    fn leave_block(&mut self) {
        self.block = None;
        self.number += 1;
        self.position.rewind();
    }
}
