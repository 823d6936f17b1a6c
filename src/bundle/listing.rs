//! Goes through the tensors of an index in key order.

use std::collections::HashSet;

use super::entry::{Entry, Stored};
use super::reader::{BundleReader, Lookup};
use crate::error::{Error, Result};
use crate::slices;
use crate::table::Iter;

/// An iteration over the tensors of a bundle. Keys of slices that belong to a partitioned tensor are
/// left out, because the tensor's own entry stands for them.
///
/// A damaged entry is delivered with its error. Damaged blocks do not hide the entries of others: the
/// iteration goes on behind them and ends with the first block's error.
pub struct Listing<'a> {
    reader: &'a BundleReader,
    entries: Iter<'a>,
    lookup: Lookup<'a>,
    /// Keys of the slices of the partitioned tensor that was looked up last.
    partitioned: (Vec<u8>, HashSet<Vec<u8>>),
    damage: Option<Error>,
}

impl<'a> Listing<'a> {
    pub(super) fn new(reader: &'a BundleReader, entries: Iter<'a>) -> Self {
        let lookup = reader.lookup();
        Self {
            reader,
            entries,
            lookup,
            partitioned: Default::default(),
            damage: None,
        }
    }

    /// The next tensor's key and entry, `None` at the end.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, once and at the end, when a block of the index is damaged.
    pub fn next(&mut self) -> Result<Option<(Vec<u8>, Result<Entry>)>> {
        loop {
            let (key, entry) = match self.entries.next() {
                None => {
                    return match self.damage.take() {
                        Some(error) => Err(error),
                        None => Ok(None),
                    };
                }
                Some(Err(error)) => {
                    let error = error.with_file(self.reader.index_file());
                    self.damage.get_or_insert(error);
                    continue;
                }
                // The header.
                Some(Ok(([], _))) => continue,
                Some(Ok((key, value))) => {
                    let entry = Entry::decode(key, value, self.reader.num_shards())
                        .map_err(|error| error.with_file(self.reader.index_file()));
                    (key.to_owned(), entry)
                }
            };
            if !self.belongs_to_partitioned(&key) {
                let entry = entry.and_then(|entry| self.check_slices(&key, entry));
                return Ok(Some((key, entry)));
            }
        }
    }

    /// The entry again, unless its slices contradict it or each other.
    fn check_slices(&self, key: &[u8], entry: Entry) -> Result<Entry> {
        if let Stored::Slices { slices, .. } = &entry.stored {
            self.lookup.slice_set(key, &entry.shape, slices)?;
        }
        Ok(entry)
    }

    /// Whether `key` is that of a slice which a partitioned tensor's entry lists.
    fn belongs_to_partitioned(&mut self, key: &[u8]) -> bool {
        let Some(name) = slices::key::name_of(key) else {
            return false;
        };
        if self.partitioned.0 != name || name.is_empty() {
            let keys = match self.lookup.find(&name) {
                Ok(Some(Entry {
                    stored: Stored::Slices { slices, .. },
                    ..
                })) => slices
                    .iter()
                    .map(|slice| slices::key::encode(&name, slice))
                    .collect(),
                _ => HashSet::new(),
            };
            self.partitioned = (name, keys);
        }
        self.partitioned.1.contains(key)
    }
}
