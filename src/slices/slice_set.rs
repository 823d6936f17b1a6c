//! The slices in which a tensor is stored, and what they cover of a request.

use super::disjoint::find_overlap;
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
    /// INTERNAL with TensorFlow's texts when a slice does not fit the shape or two overlap;
    /// RESOURCE_EXHAUSTED when it takes too long to tell.
    pub fn new(shape: &Shape, slices: &[TensorSlice]) -> Result<Self> {
        let slices: Vec<(TensorSlice, Bounds)> = slices
            .iter()
            .map(|slice| Ok((slice.clone(), slice.bounds(shape)?)))
            .collect::<Result<_>>()?;
        let all: Vec<&Bounds> = slices.iter().map(|(_, bounds)| bounds).collect();
        let found = find_overlap(&all, shape.rank())?;
        let slice = |index| slices.get(index).map(|(slice, _)| slice);
        if let Some((Some(existing), Some(new))) = found.map(|(i, j)| (slice(i), slice(j))) {
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
