//! From the names that `tf.train.Saver` gives variables to keys of a TF2 checkpoint, as
//! `object_graph_key_mapping` of `tensorflow/python/training/saver.py` leads there.

use std::collections::BTreeSet;

use super::{ObjectGraph, ObjectTensor};

/// Names that a graph has not, and what a message about them says. Sorted, each name once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameMismatch {
    /// Names that are wanted and that the checkpoint has not.
    pub missing: Vec<Vec<u8>>,
    /// Names that the checkpoint has and nobody wants. The empty one, which everything has that is no
    /// variable, is among them, as it is in TensorFlow's message.
    pub extra: Vec<String>,
    /// How many names are in both.
    pub num_matching: usize,
}

impl ObjectGraph {
    /// The key of the variable that `tf.train.Saver` would have called `full_name`. Of several with
    /// the same name it is the last, as in TensorFlow.
    pub fn key_of_name(&self, full_name: &[u8]) -> Option<&str> {
        let found = self.by_name.binary_search_by(|&i| {
            let name = self.full_name(i).as_bytes();
            name.cmp(full_name)
        });
        let number = self.by_name.get(found.ok()?)?;
        self.tensor(*number).map(|tensor| tensor.key)
    }

    /// The full names in order, each once, with the tensor that [`key_of_name`](Self::key_of_name)
    /// finds. Tensors that belong to no variable share the empty one.
    pub fn names(&self) -> impl Iterator<Item = ObjectTensor<'_>> {
        self.by_name.iter().filter_map(|&i| self.tensor(i))
    }

    /// Compares the names that a Saver wants with the graph's; `None` if the graph has them all.
    pub fn mismatch<'a>(&self, wanted: impl IntoIterator<Item = &'a [u8]>) -> Option<NameMismatch> {
        let wanted: BTreeSet<&[u8]> = wanted.into_iter().collect();
        let (found, missing): (Vec<&[u8]>, Vec<&[u8]>) = wanted
            .iter()
            .partition(|name| self.key_of_name(name).is_some());
        if missing.is_empty() {
            return None;
        }
        let names = self.names().map(|tensor| tensor.full_name);
        Some(NameMismatch {
            missing: missing.into_iter().map(<[u8]>::to_vec).collect(),
            extra: names
                .filter(|name| !wanted.contains(name.as_bytes()))
                .map(str::to_owned)
                .collect(),
            num_matching: found.len(),
        })
    }

    /// Numbers of tensors in the order of their full names, of each name the last.
    pub(super) fn sort_by_name(&self) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..self.num_tensors()).rev().collect();
        // Stable, so that of one name the last comes first, which is the one that stays.
        numbers.sort_by(|&a, &b| self.full_name(a).cmp(self.full_name(b)));
        numbers.dedup_by(|&mut a, &mut b| self.full_name(a) == self.full_name(b));
        numbers
    }

    fn full_name(&self, i: usize) -> &str {
        self.tensor(i).map_or("", |tensor| tensor.full_name)
    }
}
