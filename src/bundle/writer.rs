//! Collects the entries of a bundle and writes its index, byte for byte as TensorFlow writes it.

use std::collections::HashMap;
use std::io::Write;

use super::entry::{DataExtent, Entry, Stored};
use super::header::Header;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::shape::Shape;
use crate::slices::{self, ShapeAndSlice, SliceSet};
use crate::table::TableBuilder;

/// The entries of a bundle that is being written.
///
/// Keys are added first, all of them, so that a duplicate is found before anything is written; the
/// place of each tensor's bytes follows when they have been.
#[derive(Debug, Default)]
pub struct BundleWriter {
    entries: Vec<(Vec<u8>, Entry)>,
    /// Index in `entries` of each key.
    by_key: HashMap<Vec<u8>, usize>,
}

impl BundleWriter {
    /// An empty bundle.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor, or a slice of one if `slice` is given and does not take the whole tensor.
    /// Returns the number by which [`place`](Self::place) knows it.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for an empty key or one that was added before, also as a slice of the same
    /// name, or for slices of one name that disagree on dtype or full shape.
    pub fn add(
        &mut self,
        key: &[u8],
        dtype: DType,
        shape: &Shape,
        slice: Option<&ShapeAndSlice>,
        shard_id: u32,
    ) -> Result<usize> {
        if key.is_empty() {
            return Err(Error::invalid_argument("a tensor's key is empty"));
        }
        let stored = Stored::Whole(DataExtent {
            shard_id,
            offset: 0,
            size: 0,
            crc32c: 0,
        });
        let entry = Entry {
            dtype,
            shape: shape.clone(),
            stored,
        };
        match slice.filter(|slice| !slice.is_whole()) {
            None => self.insert(key, entry),
            Some(slice) => {
                self.add_to_full_tensor(key, dtype, slice, shard_id)?;
                self.insert(&slices::key::encode(key, &slice.slice), entry)
                    .map_err(|error| error.with_key(key))
            }
        }
    }

    /// Checks that the slices of every partitioned tensor fit it and do not overlap. They need not
    /// cover it.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text: such a tensor could be written but never read.
    pub fn check_slices(&self) -> Result<()> {
        for (key, entry) in &self.entries {
            if let Stored::Slices { slices, .. } = &entry.stored {
                SliceSet::new(&entry.shape, slices)
                    .map_err(|error| error.with_code(Code::InvalidArgument).with_key(key))?;
            }
        }
        Ok(())
    }

    /// Says where the bytes of a tensor are.
    pub fn place(&mut self, number: usize, extent: DataExtent) {
        if let Some((_, entry)) = self.entries.get_mut(number) {
            entry.stored = Stored::Whole(extent);
        }
    }

    /// Writes the index of a bundle of `num_shards` data files to `sink` and returns it.
    ///
    /// # Errors
    ///
    /// Those of `sink`.
    pub fn finish<W: Write>(self, num_shards: u32, sink: W) -> Result<W> {
        drop(self.by_key);
        let mut entries = self.entries;
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut table = TableBuilder::new(sink);
        table.add(b"", &Header::encode(num_shards)?)?;
        for (key, entry) in &entries {
            table.add(key, &entry.encode())?;
        }
        table.finish()
    }

    fn insert(&mut self, key: &[u8], entry: Entry) -> Result<usize> {
        let number = self.entries.len();
        if self.by_key.insert(key.to_owned(), number).is_some() {
            return Err(duplicate(key));
        }
        self.entries.push((key.to_owned(), entry));
        Ok(number)
    }

    /// Lists the slice in the entry of the full tensor. That entry carries the shard of its first
    /// slice, as the merge of per-shard indexes leaves it.
    fn add_to_full_tensor(
        &mut self,
        key: &[u8],
        dtype: DType,
        slice: &ShapeAndSlice,
        shard_id: u32,
    ) -> Result<()> {
        let known = self
            .by_key
            .get(key)
            .and_then(|&number| self.entries.get_mut(number));
        let Some((_, entry)) = known else {
            let stored = Stored::Slices {
                slices: vec![slice.slice.clone()],
                shard_id,
            };
            let shape = slice.full_shape.clone();
            self.insert(
                key,
                Entry {
                    dtype,
                    shape,
                    stored,
                },
            )?;
            return Ok(());
        };
        let Stored::Slices { slices, .. } = &mut entry.stored else {
            return Err(duplicate(key));
        };
        if entry.dtype != dtype || entry.shape != slice.full_shape {
            return Err(Error::invalid_argument(format!(
                "slices of one tensor disagree; dtype={} and {dtype}, shape={} and {}",
                entry.dtype, entry.shape, slice.full_shape
            ))
            .with_key(key));
        }
        slices.push(slice.slice.clone());
        Ok(())
    }
}

fn duplicate(key: &[u8]) -> Error {
    let name = String::from_utf8_lossy(key);
    Error::invalid_argument(format!("Adding duplicate key: {name}")).with_key(key)
}
