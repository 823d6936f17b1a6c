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
    partitioned: Partitioned<'a>,
    damage: Option<Error>,
}

/// What is known of partitioned tensors.
struct Partitioned<'a> {
    lookup: Lookup<'a>,
    /// The one that was looked up last.
    name: Vec<u8>,
    /// Keys of its slices.
    keys: HashSet<Vec<u8>>,
}

impl<'a> Listing<'a> {
    pub(super) fn new(reader: &'a BundleReader, entries: Iter<'a>) -> Self {
        Self {
            reader,
            entries,
            partitioned: Partitioned {
                lookup: reader.lookup(),
                name: Vec::new(),
                keys: HashSet::new(),
            },
            damage: None,
        }
    }

    /// The next tensor's key, lent until the next call, and entry; `None` at the end.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, once and at the end, when a block of the index is damaged.
    pub fn next(&mut self) -> Result<Option<(&[u8], Result<Entry>)>> {
        let entry = loop {
            match self.entries.step() {
                Ok(true) => {}
                Ok(false) => {
                    return match self.damage.take() {
                        Some(error) => Err(error),
                        None => Ok(None),
                    };
                }
                Err(error) => {
                    let error = error.with_file(self.reader.index_file());
                    self.damage.get_or_insert(error);
                    continue;
                }
            }
            let key = self.entries.key();
            // The empty key is the header's.
            if key.is_empty() || self.partitioned.has(key) {
                continue;
            }
            break Entry::decode(key, self.entries.value(), self.reader.num_shards());
        };
        let key = self.entries.key();
        let entry = match entry {
            Ok(Entry {
                stored: Stored::Whole(_),
                ..
            }) => entry,
            Ok(entry) => self.partitioned.check(key, &entry).map(|()| entry),
            Err(error) => Err(error.with_file(self.reader.index_file())),
        };
        Ok(Some((key, entry)))
    }
}

impl Partitioned<'_> {
    /// Checks that an entry's slices contradict neither it nor each other.
    fn check(&self, key: &[u8], entry: &Entry) -> Result<()> {
        if let Stored::Slices { slices, .. } = &entry.stored {
            self.lookup.slice_set(key, &entry.shape, slices)?;
        }
        Ok(())
    }

    /// Whether `key` is that of a slice which a partitioned tensor's entry lists.
    fn has(&mut self, key: &[u8]) -> bool {
        let Some(name) = slices::key::name_of(key) else {
            return false;
        };
        if self.name != name || name.is_empty() {
            self.keys = match self.lookup.find(&name) {
                Ok(Some(Entry {
                    stored: Stored::Slices { slices, .. },
                    ..
                })) => slices
                    .iter()
                    .map(|slice| slices::key::encode(&name, slice))
                    .collect(),
                _ => HashSet::new(),
            };
            self.name = name;
        }
        self.keys.contains(key)
    }
}
