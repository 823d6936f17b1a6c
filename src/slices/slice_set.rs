//! The slices in which a tensor is stored, and what they cover of a request.

use super::overlap::Overlap;
use super::slice::{Bounds, TensorSlice};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// The stored slices of one tensor, in the order of its entry; no two overlap.
#[derive(Clone, Debug)]
pub struct SliceSet {
    slices: Vec<(TensorSlice, Bounds)>,
}

impl SliceSet {
    /// The set of `slices` of a tensor of this `shape`.
    ///
    /// # Errors
    ///
    /// INTERNAL with TensorFlow's texts when a slice does not fit the shape or two overlap.
    pub fn new(shape: &Shape, slices: &[TensorSlice]) -> Result<Self> {
        let slices: Vec<(TensorSlice, Bounds)> = slices
            .iter()
            .map(|slice| Ok((slice.clone(), slice.bounds(shape)?)))
            .collect::<Result<_>>()?;
        if let Some((existing, new)) = find_overlap(&slices, shape.rank()) {
            return Err(Error::internal(format!(
                "Overlapping slices: existing slice = {existing}, new slice = {new}"
            )));
        }
        Ok(Self { slices })
    }

    /// The slices that share elements with the request `bounds`, each with what it shares; `None`
    /// when together they do not cover it.
    pub fn cover(&self, bounds: &Bounds) -> Option<Vec<(&TensorSlice, Overlap)>> {
        let wanted: u64 = bounds.iter().map(|&(_, length)| length).product();
        let parts: Vec<(&TensorSlice, Overlap)> = self
            .slices
            .iter()
            .filter_map(|(slice, stored)| Some((slice, Overlap::new(stored, bounds)?)))
            .collect();
        // The slices are disjoint, so the sum counts each element once.
        let covered: u64 = parts
            .iter()
            .map(|(_, overlap)| overlap.num_elements())
            .sum();
        (covered == wanted).then_some(parts)
    }
}

/// The first two slices that share an element, the earlier one first.
///
/// Sorted along the dimension in which the fewest pairs overlap, a slice is compared only with those
/// that begin before it ends there; for slices that partition a tensor along one dimension that is
/// none at all.
fn find_overlap(
    slices: &[(TensorSlice, Bounds)],
    rank: usize,
) -> Option<(&TensorSlice, &TensorSlice)> {
    let start = |i: usize, d: usize| {
        let bounds = slices.get(i).and_then(|(_, bounds)| bounds.get(d));
        bounds.copied().unwrap_or_default()
    };
    let overlapping_pairs = |d: &usize| {
        let mut spans: Vec<(u64, u64)> = (0..slices.len()).map(|i| start(i, *d)).collect();
        spans.sort_unstable();
        let later = |(i, (from, length)): (usize, &(u64, u64))| {
            let begun = spans.partition_point(|(other, _)| *other < from + length);
            begun.saturating_sub(i + 1)
        };
        spans
            .iter()
            .enumerate()
            .map(later)
            .fold(0, usize::saturating_add)
    };
    let axis = (0..rank).min_by_key(overlapping_pairs).unwrap_or(0);
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_unstable_by_key(|&i| start(i, axis).0);
    for (position, &i) in order.iter().enumerate() {
        let (from, length) = start(i, axis);
        for &j in order.iter().skip(position + 1) {
            if rank > 0 && start(j, axis).0 >= from + length {
                break;
            }
            let (first, second) = (slices.get(i.min(j))?, slices.get(i.max(j))?);
            if share_an_element(&first.1, &second.1) {
                return Some((&first.0, &second.0));
            }
        }
    }
    None
}

/// Whether two slices of one tensor overlap.
fn share_an_element(a: &Bounds, b: &Bounds) -> bool {
    let overlaps = |((a, a_length), (b, b_length)): (&(u64, u64), &(u64, u64))| {
        *a.max(b) < (a + a_length).min(b + b_length)
    };
    a.iter().zip(b).all(overlaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(shape: &[i64], slices: &[&str]) -> Result<SliceSet> {
        let slices: Vec<TensorSlice> = slices
            .iter()
            .map(|text| TensorSlice::parse(text).unwrap())
            .collect();
        SliceSet::new(&Shape::new(shape).unwrap(), &slices)
    }

    #[test]
    fn overlapping_slices_are_refused_with_tensorflows_text() {
        let error = set(&[4, 6], &["0,2:-", "1,2:-"]).unwrap_err();
        assert_eq!(
            error.message(),
            "Overlapping slices: existing slice = 0,2:-, new slice = 1,2:-"
        );
        assert!(set(&[4, 6], &["0,2:0,3", "1,2:3,3", "0,1:3,3"]).is_ok());
        assert!(set(&[], &["", ""]).is_err());
        assert!(set(&[4, 6], &["0,5:-"]).is_err());
    }

    #[test]
    fn coverage_needs_every_element() {
        let set = set(&[4, 6], &["0,2:-", "2,1:-"]).unwrap();
        assert_eq!(set.cover(&vec![(1, 2), (2, 2)]).unwrap().len(), 2);
        assert!(set.cover(&vec![(1, 3), (2, 2)]).is_none());
    }
}
