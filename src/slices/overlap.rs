//! The elements that two slices of one tensor share, as runs that are contiguous in both.
//!
//! A stored slice lies row-major in the file and a requested one row-major in memory. Where they
//! overlap, elements that are neighbours in both form a run: from the innermost dimension outwards, as
//! long as the overlap spans a dimension fully on both sides, the run grows. What is left are outer
//! dimensions with one stride on each side.

use super::slice::Bounds;

/// The overlap of a source slice and a destination slice. Runs are numbered in ascending order of
/// their place in the source, which is also their order in the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Outer dimensions, outermost first.
    outer: Vec<Axis>,
    source_start: u64,
    dest_start: u64,
    run_len: u64,
    num_runs: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    count: u64,
    source_stride: u64,
    dest_stride: u64,
}

/// Elements that are contiguous in source and destination; offsets count elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First element's place in the source slice.
    pub source: u64,
    /// First element's place in the destination slice.
    pub dest: u64,
    /// Number of elements.
    pub len: u64,
}

impl Overlap {
    /// The overlap of `source` and `dest`, both given in the full tensor's coordinates, whose
    /// element count fits `i64`. `None` if they share no element.
    pub fn new(source: &Bounds, dest: &Bounds) -> Option<Self> {
        // Without this, the strides beside a dimension of size 0 could overflow.
        if source.iter().chain(dest).any(|&(_, length)| length == 0) {
            return None;
        }
        let mut outer: Vec<Axis> = Vec::new();
        let (mut source_start, mut dest_start) = (0, 0);
        let (mut source_stride, mut dest_stride) = (1, 1);
        let mut run_len = 1;
        let mut growing = true;
        for (&(source_at, source_len), &(dest_at, dest_len)) in source.iter().zip(dest).rev() {
            let start = source_at.max(dest_at);
            let end = (source_at + source_len).min(dest_at + dest_len);
            let count = end.checked_sub(start).filter(|&count| count > 0)?;
            source_start += (start - source_at) * source_stride;
            dest_start += (start - dest_at) * dest_stride;
            if growing {
                run_len *= count;
                growing = count == source_len && count == dest_len;
            } else if count > 1 {
                outer.push(Axis {
                    count,
                    source_stride,
                    dest_stride,
                });
            }
            source_stride *= source_len;
            dest_stride *= dest_len;
        }
        outer.reverse();
        let num_runs = outer.iter().map(|axis| axis.count).product();
        Some(Self {
            outer,
            source_start,
            dest_start,
            run_len,
            num_runs,
        })
    }

    /// The overlap of two slices without elements.
    pub fn empty() -> Self {
        Self {
            outer: Vec::new(),
            source_start: 0,
            dest_start: 0,
            run_len: 0,
            num_runs: 0,
        }
    }

    /// Number of elements shared.
    pub fn num_elements(&self) -> u64 {
        self.num_runs * self.run_len
    }

    /// Elements of each run.
    pub fn run_len(&self) -> u64 {
        self.run_len
    }

    /// Number of runs.
    pub fn num_runs(&self) -> u64 {
        self.num_runs
    }

    /// The run with this number, counted from 0 and below [`num_runs`](Self::num_runs).
    pub fn run(&self, number: u64) -> Run {
        let mut rest = number;
        let mut run = Run {
            source: self.source_start,
            dest: self.dest_start,
            len: self.run_len,
        };
        for axis in self.outer.iter().rev() {
            let index = rest % axis.count;
            rest /= axis.count;
            run.source += index * axis.source_stride;
            run.dest += index * axis.dest_stride;
        }
        run
    }

    /// All runs, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        (0..self.num_runs).map(|number| self.run(number))
    }

    /// The number of the first run that ends after `source` elements of the source slice.
    pub fn first_run_after(&self, source: u64) -> u64 {
        let (mut low, mut high) = (0, self.num_runs);
        while low < high {
            let middle = low + (high - low) / 2;
            let run = self.run(middle);
            if run.source + run.len > source {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All pairs of equal elements, found one by one.
    fn naive(source: &Bounds, dest: &Bounds) -> Vec<(u64, u64)> {
        fn elements(bounds: &Bounds) -> Vec<Vec<u64>> {
            bounds.iter().fold(vec![vec![]], |prefixes, &(start, len)| {
                prefixes
                    .iter()
                    .flat_map(|prefix| {
                        (start..start + len).map(move |i| {
                            let mut next = prefix.clone();
                            next.push(i);
                            next
                        })
                    })
                    .collect()
            })
        }
        let dest_elements = elements(dest);
        elements(source)
            .iter()
            .enumerate()
            .filter_map(|(i, element)| {
                let j = dest_elements.iter().position(|other| other == element)?;
                Some((i as u64, j as u64))
            })
            .collect()
    }

    fn bounds(rank: usize) -> impl Strategy<Value = Bounds> {
        proptest::collection::vec((0u64..4, 1u64..4), rank)
    }

    proptest! {
        #[test]
        fn runs_are_the_shared_elements(
            (source, dest) in (0usize..5).prop_flat_map(|rank| (bounds(rank), bounds(rank)))
        ) {
            let overlap = Overlap::new(&source, &dest);
            let runs: Vec<Run> = overlap.iter().flat_map(|o| (0..o.num_runs()).map(|i| o.run(i))).collect();
            let pairs: Vec<(u64, u64)> = runs
                .iter()
                .flat_map(|run| (0..run.len).map(|i| (run.source + i, run.dest + i)))
                .collect();
            prop_assert_eq!(&pairs, &naive(&source, &dest));
            if let Some(overlap) = overlap {
                prop_assert_eq!(overlap.num_elements(), pairs.len() as u64);
                for source in 0..100 {
                    let expected = runs.iter().position(|run| run.source + run.len > source);
                    prop_assert_eq!(
                        overlap.first_run_after(source),
                        expected.unwrap_or(runs.len()) as u64
                    );
                }
            }
        }
    }

    #[test]
    fn huge_dimensions_beside_an_empty_one_are_no_overlap() {
        let bounds = vec![(0, 0), (0, 1 << 62), (0, 1 << 62)];
        assert_eq!(Overlap::new(&bounds, &bounds), None);
    }

    #[test]
    fn whole_rows_are_one_run() {
        let overlap = Overlap::new(&vec![(2, 2), (0, 6)], &vec![(0, 4), (0, 6)]).unwrap();
        assert_eq!(overlap.num_runs(), 1);
        assert_eq!(
            overlap.run(0),
            Run {
                source: 0,
                dest: 12,
                len: 12
            }
        );
    }
}
