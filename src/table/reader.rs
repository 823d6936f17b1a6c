//! Opens a table and reads its blocks.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::block::{Block, Position};
use super::cursor::Cursor;
use super::format::Footer;
use super::index::{Index, Limits};
use super::iter::Iter;
use super::peek;
use crate::error::{Error, Result};
use crate::io::read::ReadFile;

/// An open table.
///
/// It holds the decoded index and the first data block; other blocks are read when they are
/// needed, so a table of any size opens at once. Lookups take `&self` and run on any number of
/// threads.
#[derive(Debug)]
pub struct TableReader {
    file: Arc<ReadFile>,
    index: Index,
    /// The first data block, validated; `None` if the table has no entries.
    first: Option<Arc<Block>>,
    /// The block that was read last: for a look-up in the same one, and for its memory, which the next
    /// one takes, because a new quarter of a MiB comes page by page.
    last: Mutex<Option<(usize, Arc<Block>)>>,
    /// The data blocks whose checksum was found right, and that are not compressed.
    verified: Vec<AtomicBool>,
}

/// Largest block that is kept: those of one large entry are not.
const MAX_KEPT: usize = 1 << 20;

impl TableReader {
    /// Opens the table in `file`. Reads the footer and the metaindex and index blocks and verifies
    /// them.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, with the offset, if one of these is damaged; or the system's error.
    pub fn open(file: Arc<ReadFile>) -> Result<Self> {
        let index = read_index(&file).map_err(|error| error.with_file(file.path()))?;
        Ok(Self {
            verified: (0..index.len()).map(|_| AtomicBool::new(false)).collect(),
            index,
            file,
            first: None,
            last: Mutex::default(),
        })
    }

    /// Reads the first data block, verifies it, and keeps it for [`first`](Self::first) and lookups.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, with the offset, if it is damaged; or the system's error.
    pub fn load_first(&mut self) -> Result<()> {
        if self.index.len() > 0 {
            self.first = Some(self.load(0)?);
        }
        Ok(())
    }

    /// The file it reads.
    pub fn file(&self) -> &Arc<ReadFile> {
        &self.file
    }

    /// The value of `key`, `None` if the table does not hold it.
    ///
    /// Reads one block of about 256 KiB, except for keys in the first; for many keys,
    /// [`cursor`](Self::cursor) does so once per block.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, with the offset, if the block that would hold the key is damaged; or the system's
    /// error.
    #[cfg(test)]
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.cursor().get(key)?.map(<[u8]>::to_vec))
    }

    /// The value of `key` if the block that holds it was read before but is not held: a look at that entry
    /// alone. `None` says nothing; [`cursor`](Self::cursor) then does.
    pub fn peek(&self, key: &[u8]) -> Option<Vec<u8>> {
        let number = self.index.find(key)?;
        let last = |last: &(usize, _)| last.0 == number;
        let held = self.is_validated(number) || self.last.lock().as_ref().is_some_and(last);
        if held || !self.verified.get(number)?.load(Ordering::Relaxed) {
            return None;
        }
        let handle = self.index.handle(number)?;
        peek::value(&self.file, handle, self.index.bounds(number), key)
    }

    /// The first entry, key and value; `None` if there are no entries, or before
    /// [`load_first`](Self::load_first).
    ///
    /// # Errors
    ///
    /// None beyond those that `load_first` has found already.
    pub fn first(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(block) = &self.first else {
            return Ok(None);
        };
        let mut position = Position::default();
        let found = position
            .advance(block, self.index.bounds(0))
            .map_err(|error| self.here(error))?;
        Ok(found.then(|| (position.key().to_vec(), position.value(block).to_vec())))
    }

    /// A cursor for many lookups, fastest with ascending keys.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor::new(self)
    }

    /// All entries in ascending order of keys.
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(self)
    }

    /// The decoded index.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Names the file in an error.
    pub(super) fn here(&self, error: Error) -> Error {
        error.with_file(self.file.path())
    }

    /// Whether a data block is held that is sound from end to end.
    pub(super) fn is_validated(&self, block: usize) -> bool {
        block == 0 && self.first.is_some()
    }

    /// A data block with a verified checksum; its entries are to be checked by the caller.
    pub(super) fn read(&self, block: usize) -> Result<Arc<Block>> {
        if let (0, Some(first)) = (block, &self.first) {
            return Ok(Arc::clone(first));
        }
        let handle = self
            .index
            .handle(block)
            .ok_or_else(|| Error::internal(format!("no such table block index={block}")))?;
        let last = self.last.lock().take();
        let read = match last {
            Some((number, last)) if number == block => last,
            last => {
                // Nobody else may be looking at it still.
                let unused = last.and_then(|(_, last)| Arc::into_inner(last));
                let memory = unused.map(Block::into_memory).unwrap_or_default();
                let read = Block::read_into(&self.file, handle, memory);
                Arc::new(read.map_err(|error| self.here(error))?)
            }
        };
        if let Some(verified) = self.verified.get(block)
            && !read.is_compressed()
        {
            verified.store(true, Ordering::Relaxed);
        }
        if read.len() <= MAX_KEPT {
            *self.last.lock() = Some((block, read.clone()));
        }
        Ok(read)
    }

    /// A data block that is sound from end to end, so that a key it lacks is not in the table.
    pub(super) fn load(&self, block: usize) -> Result<Arc<Block>> {
        if let (0, Some(first)) = (block, &self.first) {
            return Ok(Arc::clone(first));
        }
        let loaded = self.read(block)?;
        loaded
            .validate(self.index.bounds(block))
            .map_err(|error| self.here(error))?;
        Ok(loaded)
    }
}

fn read_index(file: &ReadFile) -> Result<Index> {
    let footer = Footer::read(file)?;
    let metaindex = Block::read(file, footer.metaindex)?;
    if !metaindex.is_empty() {
        metaindex.validate(None)?;
    }
    let limits = Limits {
        file_size: file.size(),
        blocks_end: Footer::offset(file).unwrap_or_default(),
        data_end: footer.metaindex.offset.min(footer.index.offset),
    };
    Index::decode(&Block::read(file, footer.index)?, limits)
}
