//! Restoring one tensor after the other, whatever the format.
//!
//! The tensors are cut into rounds: the k-th tensor of every device makes round k. Each round is a
//! restore of its own, so at any time one tensor per device is in work. Everything is checked before the
//! first round, as it is without rounds.

use std::collections::BTreeMap;
use std::ops::Range;

use super::device_name;
use super::restore::{Checked, RestoreOptions, RestoreOutcome, outcome};
use super::tensor::{RestoreData, RestoreTensor};
use crate::error::{Error, Result};
use crate::transfer::Call;

/// What a format does for a restore; any other knowledge of it is out of place here.
pub trait RestoreSteps {
    /// Checks all tensors and reads nothing.
    ///
    /// # Errors
    ///
    /// Only those that concern the call as a whole.
    fn check(
        &self,
        tensors: &[RestoreTensor<'_>],
        options: &RestoreOptions,
        call: &mut Call<'_>,
    ) -> Result<Checked>;

    /// Restores tensors whose memory is known not to overlap, in any order.
    ///
    /// # Errors
    ///
    /// As `check`.
    fn restore(
        &self,
        tensors: &mut [RestoreTensor<'_>],
        options: &RestoreOptions,
        call: &mut Call<'_>,
    ) -> Result<RestoreOutcome>;
}

/// Restores `tensors`, in rounds if that is asked for.
///
/// # Errors
///
/// Only those that concern no single tensor: destinations that overlap, no memory.
pub fn restore(
    format: &dyn RestoreSteps,
    tensors: &mut [RestoreTensor<'_>],
    options: &RestoreOptions,
    call: &mut Call<'_>,
) -> Result<RestoreOutcome> {
    refuse_overlaps(tensors)?;
    if !options.restore_sequentially {
        return format.restore(tensors, options, call);
    }
    let Checked { bytes, mut refused } = format.check(tensors, options, call)?;
    let (rounds, unknown) = rounds(tensors);
    for (index, error) in unknown {
        refused.insert(index, error);
    }
    let first = refused.first();
    let failed = refused.into_errors();
    if let Some(error) = first.filter(|_| !options.keep_going) {
        return Ok(outcome(tensors.len(), failed, &[], Some(error)));
    }
    let mut order = Order::new(tensors, rounds, &failed);
    let num_tensors = tensors.len();
    let mut all = AllRounds {
        failed,
        complete: vec![false; num_tensors],
        ended: call.progress.start_parts(bytes, num_tensors as u64).err(),
    };
    let run = all.run(format, tensors, &order, options, call);
    call.progress.end_parts();
    call.stats.num_tensors = num_tensors as u64;
    order.undo(tensors);
    run?;
    let AllRounds {
        failed,
        complete,
        mut ended,
    } = all;
    if ended.is_none() {
        ended = call.progress.report().err();
    }
    Ok(outcome(num_tensors, failed, &complete, ended))
}

/// What came of the rounds so far.
struct AllRounds {
    failed: BTreeMap<usize, Error>,
    complete: Vec<bool>,
    ended: Option<Error>,
}

impl AllRounds {
    fn run(
        &mut self,
        format: &dyn RestoreSteps,
        tensors: &mut [RestoreTensor<'_>],
        order: &Order,
        options: &RestoreOptions,
        call: &mut Call<'_>,
    ) -> Result<()> {
        for round in order.rounds() {
            if self.ended.is_some() {
                break;
            }
            let indices = order.indices.get(round.clone()).unwrap_or_default();
            let Some(tensors) = tensors.get_mut(round) else {
                break;
            };
            let restored = format.restore(tensors, options, call);
            let restored = restored.map_err(|error| error.reindexed(indices))?;
            self.ended = restored.ended.map(|error| error.reindexed(indices));
            for (result, &index) in restored.results.into_iter().zip(indices) {
                match result {
                    Ok(()) => {
                        if let Some(complete) = self.complete.get_mut(index) {
                            *complete = true;
                        }
                    }
                    Err(error) => {
                        self.failed.insert(index, error.reindexed(indices));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The tensors in the order of the rounds. They are moved, not copied, because each holds the caller's
/// memory for itself.
struct Order {
    /// For each place, the index in the call's list.
    indices: Vec<usize>,
    /// The round of each tensor, by its index in the call's list.
    rounds: Vec<u32>,
    /// Tensors at the front that take part.
    num: usize,
}

impl Order {
    /// Moves the tensors; those that failed come last and take part in no round.
    fn new(
        tensors: &mut [RestoreTensor<'_>],
        mut rounds: Vec<u32>,
        failed: &BTreeMap<usize, Error>,
    ) -> Self {
        for &index in failed.keys() {
            if let Some(round) = rounds.get_mut(index) {
                *round = u32::MAX;
            }
        }
        let mut indices: Vec<usize> = (0..tensors.len()).collect();
        indices.sort_by_key(|&index| rounds.get(index));
        let num = tensors.len() - failed.len();
        permute(tensors, &mut indices.clone());
        Self {
            indices,
            rounds,
            num,
        }
    }

    /// The places of each round, one after the other.
    fn rounds(&self) -> impl Iterator<Item = Range<usize>> {
        let places = self.indices.get(..self.num).unwrap_or_default();
        let same = |a: &usize, b: &usize| self.rounds.get(*a) == self.rounds.get(*b);
        let mut start = 0;
        places.chunk_by(same).map(move |round| {
            let end = start + round.len();
            std::mem::replace(&mut start, end)..end
        })
    }

    /// Moves the tensors back.
    fn undo(&mut self, tensors: &mut [RestoreTensor<'_>]) {
        let mut back = vec![0; self.indices.len()];
        for (place, &index) in self.indices.iter().enumerate() {
            if let Some(slot) = back.get_mut(index) {
                *slot = place;
            }
        }
        permute(tensors, &mut back);
    }
}

/// Moves the element at `from[place]` to each place. `from` is used up.
fn permute<T>(elements: &mut [T], from: &mut [usize]) {
    for start in 0..from.len() {
        let mut place = start;
        // One cycle: what is at each place moves on until the first one comes round.
        while let Some(slot) = from.get_mut(place) {
            let source = std::mem::replace(slot, place);
            if source == place || source == start {
                break;
            }
            elements.swap(place, source);
            place = source;
        }
    }
}

/// The round of each tensor, and the error of each whose device is none.
fn rounds(tensors: &[RestoreTensor<'_>]) -> (Vec<u32>, BTreeMap<usize, Error>) {
    let mut failed = BTreeMap::new();
    let mut next: BTreeMap<String, u32> = BTreeMap::new();
    let mut rounds = Vec::with_capacity(tensors.len());
    for (index, tensor) in tensors.iter().enumerate() {
        let device = device_name::canonical(tensor.device_name).unwrap_or_else(|error| {
            let error = error.with_tensor_index(index).with_key(tensor.key);
            failed.insert(index, error);
            String::new()
        });
        let next = next.entry(device).or_default();
        rounds.push(*next);
        *next += 1;
    }
    (rounds, failed)
}

/// Destinations that share a byte would be written by several threads at once.
fn refuse_overlaps(tensors: &[RestoreTensor<'_>]) -> Result<()> {
    let mut spans: Vec<(std::ops::Range<usize>, usize)> = tensors
        .iter()
        .enumerate()
        .filter_map(|(index, tensor)| match &tensor.data {
            RestoreData::Bytes(span) if !span.is_empty() => Some((span.addresses(), index)),
            _ => None,
        })
        .collect();
    spans.sort_unstable_by_key(|(range, index)| (range.start, *index));
    let clash = spans.windows(2).find_map(|pair| match pair {
        [(first, a), (second, b)] if second.start < first.end => Some((*a.min(b), *a.max(b))),
        _ => None,
    });
    let Some((first, second)) = clash else {
        return Ok(());
    };
    let key = tensors.get(second).map_or(&[][..], |tensor| tensor.key);
    Err(Error::invalid_argument(format!(
        "destinations overlap; tensors={first} and {second}"
    ))
    .with_tensor_index(second)
    .with_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_permuted_comes_back(order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut elements: Vec<usize> = (100..120).collect();
            permute(&mut elements, &mut order.clone());
            let expected: Vec<usize> = order.iter().map(|from| 100 + from).collect();
            prop_assert_eq!(elements, expected);
        }
    }
}
