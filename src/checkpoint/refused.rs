//! The tensors of a restore that are refused before anything is read, and which error is the call's.

use std::collections::BTreeMap;
use std::path::Path;

use super::tensor::{RestoreTensor, check_dtype};
use crate::bundle::{DataExtent, Entry, KeyText, Stored};
use crate::error::{Code, Error, Result};

/// Why tensors cannot be restored, as far as that is known beforehand.
#[derive(Debug, Default)]
pub struct Refused {
    errors: BTreeMap<usize, Error>,
    /// Lowest index of a tensor whose key is missing.
    missing: Option<usize>,
    /// Shard and offset of each tensor of another dtype, and its index.
    mismatches: Vec<((u32, u64), usize)>,
}

impl Refused {
    /// Refuses the tensor at `index`.
    pub fn insert(&mut self, index: usize, error: Error) {
        self.errors.entry(index).or_insert(error);
    }

    /// As [`insert`](Self::insert), after a look-up of its key.
    pub fn insert_lookup(&mut self, index: usize, error: Error) {
        if error.code() == Code::NotFound {
            self.missing = Some(self.missing.map_or(index, |first| first.min(index)));
        }
        self.insert(index, error);
    }

    /// Refuses the tensor at `index` if its dtype cannot be restored, or is not that of its entry.
    /// Returns whether it is not refused.
    pub fn check_dtype(
        &mut self,
        index: usize,
        tensor: &RestoreTensor<'_>,
        entry: &Entry,
        index_file: &Path,
    ) -> bool {
        let place = |error: Error| {
            let error = error.with_tensor_index(index).with_key(tensor.key);
            error.with_file(index_file)
        };
        if let Err(error) = check_dtype(tensor.dtype) {
            self.insert(index, place(error));
            return false;
        }
        let Err(error) = same_dtype(tensor, entry) else {
            return true;
        };
        let error = place(error);
        let place = match &entry.stored {
            Stored::Whole(DataExtent {
                shard_id, offset, ..
            }) => (*shard_id, *offset),
            Stored::Slices { shard_id, .. } => (*shard_id, 0),
        };
        self.mismatches.push((place, index));
        self.insert(index, error);
        false
    }

    /// The error that ends a call which does not go on without these tensors. As in TensorFlow's
    /// `RestoreTensorsV2`, all keys are looked up first, then all dtypes compared, and those that
    /// differ make one error, a line for each in the order of their place in the files.
    pub fn first(&mut self) -> Option<Error> {
        let error = |index: &usize| self.errors.get(index).cloned();
        if let Some(missing) = &self.missing {
            return error(missing);
        }
        self.mismatches.sort_unstable();
        let mismatches: Vec<Error> = self
            .mismatches
            .iter()
            .filter_map(|(_, i)| error(i))
            .collect();
        let lowest = self.mismatches.iter().map(|(_, index)| index).min();
        match lowest.and_then(error) {
            Some(first) => {
                let lines: Vec<&str> = mismatches.iter().map(Error::message).collect();
                Some(first.with_message(lines.join("\n")))
            }
            None => self.errors.values().next().cloned(),
        }
    }

    /// The error of each tensor, by index.
    pub fn into_errors(self) -> BTreeMap<usize, Error> {
        self.errors
    }
}

fn same_dtype(tensor: &RestoreTensor<'_>, entry: &Entry) -> Result<()> {
    if tensor.dtype == entry.dtype {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "tensor_name = {}; expected dtype {} does not equal original dtype {}",
        KeyText(tensor.key),
        tensor.dtype,
        entry.dtype
    )))
}
