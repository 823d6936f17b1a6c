//! Builds one block.
//!
//! ```text
//! block:  entry ...  restart fixed32 ...  num_restarts fixed32
//! entry:  shared varint32 | unshared varint32 | value_len varint32 | key[shared..] | value
//! ```
//!
//! `shared` is how many bytes the key has in common with the key before. At every restart point
//! it is 0 by rule, so that a reader can search the restart points, which are offsets of entries.
//! The first entry is the first restart point; a block without entries names it all the same.

#![forbid(unsafe_code)]

use crate::coding::{common_prefix, put_varint};
use crate::error::{Error, Result};

/// A block under construction.
#[derive(Debug)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    restart_interval: usize,
    /// Entries since the last restart point.
    since_restart: usize,
    /// Kept after [`take`](Self::take), for the order of keys across blocks.
    last_key: Vec<u8>,
}

impl BlockBuilder {
    /// An empty block with a restart point every `restart_interval` entries.
    pub fn new(restart_interval: usize) -> Self {
        Self {
            bytes: Vec::new(),
            restarts: vec![0],
            restart_interval,
            since_restart: 0,
            last_key: Vec::new(),
        }
    }

    /// Appends an entry, whose key is greater than all before it.
    ///
    /// # Errors
    ///
    /// As [`check_sizes`], also if the block has become too large; it is unchanged then.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        check_sizes(key, value)?;
        let offset = u32::try_from(self.bytes.len()).map_err(|_| too_large(key, value))?;
        let mut shared = 0;
        if self.since_restart == self.restart_interval {
            self.restarts.push(offset);
            self.since_restart = 0;
        } else if !self.bytes.is_empty() {
            shared = common_prefix(&self.last_key, key);
        }
        let suffix = key.get(shared..).unwrap_or_default();
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, suffix.len() as u64);
        put_varint(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(suffix);
        self.bytes.extend_from_slice(value);

        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(suffix);
        self.since_restart += 1;
        Ok(())
    }

    /// Whether nothing has been added yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The key added last, to this block or to the one before it.
    pub fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Takes `key` for the last one, of a block that was written in another way.
    pub fn set_last_key(&mut self, key: &[u8]) {
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
    }

    /// Size of the finished block in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + (self.restarts.len() + 1) * size_of::<u32>()
    }

    /// Finishes the block and returns it; the builder goes on with the next one.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        // Room for the trailer as well.
        bytes.reserve_exact((self.restarts.len() + 3) * size_of::<u32>());
        for restart in &self.restarts {
            bytes.extend(restart.to_le_bytes());
        }
        // There are not more restart points than bytes before the last one, whose offset fits.
        let num_restarts = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        bytes.extend(num_restarts.to_le_bytes());

        self.restarts.clear();
        self.restarts.push(0);
        self.since_restart = 0;
        bytes
    }
}

/// Whether the format's 32-bit lengths hold this entry.
///
/// # Errors
///
/// INVALID_ARGUMENT if key or value have 4 GiB or more.
pub fn check_sizes(key: &[u8], value: &[u8]) -> Result<()> {
    match (u32::try_from(key.len()), u32::try_from(value.len())) {
        (Ok(_), Ok(_)) => Ok(()),
        _ => Err(too_large(key, value)),
    }
}

fn too_large(key: &[u8], value: &[u8]) -> Error {
    Error::invalid_argument(format!(
        "entry is too large for a table key_size={} value_size={}",
        key.len(),
        value.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_without_entries_has_one_restart_point() {
        assert_eq!(BlockBuilder::new(16).take(), [0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn restart_points_come_after_every_interval() {
        let mut builder = BlockBuilder::new(2);
        for key in ["aa", "ab", "ac"] {
            builder.add(key.as_bytes(), b"-").unwrap();
        }
        let size = builder.size();
        let block = builder.take();
        assert_eq!(
            block,
            b"\0\x02\x01aa-\x01\x01\x01b-\0\x02\x01ac-\0\0\0\0\x0b\0\0\0\x02\0\0\0"
        );
        assert_eq!(block.len(), size);

        // The next block starts anew although the key before is remembered.
        assert!(builder.is_empty());
        assert_eq!(builder.last_key(), b"ac");
        builder.add(b"ad", b"").unwrap();
        assert_eq!(builder.take(), b"\0\x02\0ad\0\0\0\0\x01\0\0\0");
    }
}
