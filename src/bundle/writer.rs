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
/// anything is written; the places of the tensors' bytes are asked for at the end. There may be very many
/// tensors: keys and shapes stay where the caller has them, and 16 bytes of each are noted.
#[derive(Debug)]
pub struct BundleWriter<'a, T> {
    rows: Vec<Row<'a, T>>,
    /// Index in `rows` of the full entry of each partitioned tensor.
    partitioned: HashMap<&'a [u8], usize>,
    /// `rows` in key order; made by [`check`](Self::check).
    order: Vec<u32>,
}

/// What the caller has of a tensor that is written.
pub trait Described {
    /// Name in the checkpoint; not empty.
    fn key(&self) -> &[u8];
    /// Data type.
    fn dtype(&self) -> DType;
    /// Shape, of the slice if it is one.
    fn shape(&self) -> &Shape;
}

/// An entry to be.
#[derive(Debug)]
enum Row<'a, T> {
    /// Of a tensor that is written, and its index.
    Tensor(&'a T, u32),
    /// Of a slice that is written.
    Slice(Box<SliceRow<'a, T>>),
    /// Of the full tensor whose slices are written.
    Full(Box<(&'a [u8], Entry)>),
}

#[derive(Debug)]
struct SliceRow<'a, T> {
    key: Vec<u8>,
    tensor: &'a T,
    index: u32,
}

impl<T: Described> Row<'_, T> {
    fn key(&self) -> &[u8] {
        match self {
            Row::Tensor(tensor, _) => tensor.key(),
            Row::Slice(row) => &row.key,
            Row::Full(row) => row.0,
        }
    }

    /// Replaces the contents of `value` by the value to store.
    fn encode(&self, extent: &dyn Fn(usize) -> DataExtent, value: &mut Vec<u8>) {
        let (tensor, index) = match self {
            Row::Tensor(tensor, index) => (*tensor, *index),
            Row::Slice(row) => (row.tensor, row.index),
            Row::Full(row) => return row.1.encode(value),
        };
        value.clear();
        extent(index as usize).append_entry(tensor.dtype(), tensor.shape(), value);
    }
}

impl<'a, T: Described> BundleWriter<'a, T> {
    /// An empty bundle with room for `capacity` tensors.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            rows: Vec::with_capacity(capacity),
            partitioned: HashMap::new(),
            order: Vec::new(),
        }
    }

    /// Adds tensor `index` of the caller's, or a slice of one if `slice` is given and does not take the
    /// whole tensor.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for an empty key, for slices of one name that disagree on dtype or full shape,
    /// or for more than 2^32 tensors.
    pub fn add(
        &mut self,
        index: usize,
        tensor: &'a T,
        slice: Option<&ShapeAndSlice>,
        shard_id: u32,
    ) -> Result<()> {
        let key = tensor.key();
        if key.is_empty() {
            return Err(Error::invalid_argument("a tensor's key is empty"));
        }
        let index = u32::try_from(index)
            .map_err(|_| Error::invalid_argument("there are 2^32 tensors or more"))?;
        let row = match slice.filter(|slice| !slice.is_whole()) {
            None => Row::Tensor(tensor, index),
            Some(slice) => {
                self.add_to_full_tensor(key, tensor.dtype(), slice, shard_id)?;
                Row::Slice(Box::new(SliceRow {
                    key: slices::key::encode(key, &slice.slice),
                    tensor,
                    index,
                }))
            }
        };
        self.rows.push(row);
        Ok(())
    }

    /// Checks all keys together. To be called when all tensors have been added.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text for a key that was added twice, be it as a whole tensor
    /// and as a slice, and for slices that do not fit their tensor or overlap: such a tensor could be
    /// written but never read. Slices need not cover their tensor.
    pub fn check(&mut self) -> Result<()> {
        let key = |index: usize| self.rows.get(index).map_or(&[][..], Row::key);
        let coding::KeyOrder {
            order,
            duplicate: twice,
        } = coding::key_order(self.rows.len(), key);
        if let Some(index) = twice {
            return Err(duplicate(key(index as usize)));
        }
        self.order = order;
        for &index in self.partitioned.values() {
            if let Some(Row::Full(row)) = self.rows.get(index)
                && let (key, entry) = row.as_ref()
                && let Stored::Slices { slices, .. } = &entry.stored
            {
                SliceSet::new(&entry.shape, slices)
                    .map_err(|error| error.with_verdict(Code::InvalidArgument).with_key(key))?;
            }
        }
        Ok(())
    }

    /// Key and index of every tensor and slice that is written, in key order. [`check`](Self::check) has
    /// been called.
    pub fn written(&self) -> impl Iterator<Item = (&[u8], u32)> {
        let rows = self
            .order
            .iter()
            .filter_map(|&row| self.rows.get(row as usize));
        rows.filter_map(|row| match row {
            Row::Tensor(tensor, index) => Some((tensor.key(), *index)),
            Row::Slice(slice) => Some((row.key(), slice.index)),
            Row::Full(_) => None,
        })
    }

    /// Writes the index of a bundle of `num_shards` data files to `sink` and returns it. `extent` says
    /// where the bytes of a tensor are.
    ///
    /// # Errors
    ///
    /// Those of `sink`.
    pub fn finish<W: Write>(
        self,
        num_shards: u32,
        extent: &dyn Fn(usize) -> DataExtent,
        sink: W,
    ) -> Result<W> {
        let mut table = TableBuilder::new(sink);
        table.add(b"", &Header::new(num_shards).encode()?)?;
        let mut value = Vec::new();
        let order = self.order.iter();
        for row in order.filter_map(|&index| self.rows.get(index as usize)) {
            row.encode(extent, &mut value);
            table.add(row.key(), &value)?;
        }
        table.finish()
    }

    /// Lists the slice in the entry of the full tensor. That entry carries the shard of its first
    /// slice, as the merge of per-shard indexes leaves it.
    fn add_to_full_tensor(
        &mut self,
        key: &'a [u8],
        dtype: DType,
        slice: &ShapeAndSlice,
        shard_id: u32,
    ) -> Result<()> {
        let known = self
            .partitioned
            .get(key)
            .and_then(|&index| self.rows.get_mut(index));
        let Some(Row::Full(row)) = known else {
            let entry = Entry {
                dtype,
                shape: slice.full_shape.clone(),
                stored: Stored::Slices {
                    slices: vec![slice.slice.clone()],
                    shard_id,
                },
            };
            self.partitioned.insert(key, self.rows.len());
            self.rows.push(Row::Full(Box::new((key, entry))));
            return Ok(());
        };
        let entry = &mut row.1;
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
