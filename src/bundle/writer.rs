//! Collects the entries of a bundle and writes its index, byte for byte as TensorFlow writes it.

use std::collections::HashMap;
use std::io::Write;

use super::entry::{DataExtent, Entry, Stored};
use super::header::Header;
use crate::coding;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::shape::Shape;
use crate::slices::{self, ShapeAndSlice, SliceSet};
use crate::table::TableBuilder;

/// The entries of a bundle that is being written.
///
/// Keys are added first, all of them, and then checked together, so that a duplicate is found before
/// anything is written; the place of each tensor's bytes follows when they have been.
#[derive(Debug, Default)]
pub struct BundleWriter {
    entries: Vec<(Vec<u8>, Entry)>,
    /// Index in `entries` of the full entry of each partitioned tensor.
    partitioned: HashMap<Vec<u8>, usize>,
    /// `entries` in key order; made by [`check`](Self::check).
    order: Vec<usize>,
}

impl BundleWriter {
    /// An empty bundle with room for `capacity` tensors.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            entries: Vec::with_capacity(capacity),
            ..Self::default()
        }
    }

    /// Adds a tensor, or a slice of one if `slice` is given and does not take the whole tensor.
    /// Returns the number by which [`place`](Self::place) knows it.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for an empty key, or for slices of one name that disagree on dtype or full
    /// shape.
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
            None => Ok(self.push(key.to_owned(), entry)),
            Some(slice) => {
                self.add_to_full_tensor(key, dtype, slice, shard_id)?;
                Ok(self.push(slices::key::encode(key, &slice.slice), entry))
            }
        }
    }

    /// Checks all keys together. To be called when all tensors have been added.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text for a key that was added twice, be it as a whole tensor
    /// and as a slice, and for slices that do not fit their tensor or overlap: such a tensor could be
    /// written but never read. Slices need not cover their tensor.
    pub fn check(&mut self) -> Result<()> {
        let entries = &self.entries;
        let keys: Vec<&[u8]> = entries.iter().map(|(key, _)| key.as_slice()).collect();
        let coding::KeyOrder {
            order,
            duplicate: twice,
        } = coding::key_order(&keys);
        self.order = order;
        if let Some((key, _)) = twice.and_then(|index| entries.get(index)) {
            return Err(duplicate(key));
        }
        for &index in self.partitioned.values() {
            if let Some((
                key,
                Entry {
                    shape,
                    stored: Stored::Slices { slices, .. },
                    ..
                },
            )) = entries.get(index)
            {
                SliceSet::new(shape, slices)
                    .map_err(|error| error.with_verdict(Code::InvalidArgument).with_key(key))?;
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
        let mut table = TableBuilder::new(sink);
        table.add(b"", &Header::new(num_shards).encode()?)?;
        let mut value = Vec::new();
        for (key, entry) in self
            .order
            .iter()
            .filter_map(|&index| self.entries.get(index))
        {
            entry.encode(&mut value);
            table.add(key, &value)?;
        }
        table.finish()
    }

    fn push(&mut self, key: Vec<u8>, entry: Entry) -> usize {
        self.entries.push((key, entry));
        self.entries.len() - 1
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
            .partitioned
            .get(key)
            .and_then(|&index| self.entries.get_mut(index));
        let Some((_, entry)) = known else {
            let stored = Stored::Slices {
                slices: vec![slice.slice.clone()],
                shard_id,
            };
            let shape = slice.full_shape.clone();
            let index = self.push(
                key.to_owned(),
                Entry {
                    dtype,
                    shape,
                    stored,
                },
            );
            self.partitioned.insert(key.to_owned(), index);
            return Ok(());
        };
        if entry.dtype != dtype || entry.shape != slice.full_shape {
            return Err(Error::invalid_argument(format!(
                "slices of one tensor disagree; dtype={} and {dtype}, shape={} and {}",
                entry.dtype, entry.shape, slice.full_shape
            ))
            .with_key(key));
        }
        if let Stored::Slices { slices, .. } = &mut entry.stored {
            slices.push(slice.slice.clone());
        }
        Ok(())
    }
}

fn duplicate(key: &[u8]) -> Error {
    let name = String::from_utf8_lossy(key);
    Error::invalid_argument(format!("Adding duplicate key: {name}")).with_key(key)
}
