//! Whether slices of one tensor share an element.
//!
//! Comparing every pair would take a file that lists very many slices at its word. Nearly always,
//! there is a dimension in which few pairs overlap; sorted along it, only these are compared.
//! Otherwise space is cut in two, again and again, until few slices are left in each part.

use super::slice::Bounds;
use crate::error::{Error, Result};

/// So many slices of a part are compared with each other.
const FEW: usize = 8;

/// So many slices of a part decide where it is cut.
const SAMPLE: usize = 256;

/// Most pairs for each slice that are compared one by one.
const PAIRS: usize = 64;

/// Most work in slices looked at, times dimensions: a few seconds. A grid of 100,000 slices in two
/// dimensions takes a fiftieth of it.
const MOST_WORK: usize = 1 << 28;

/// Most entries for each slice in the lists of parts that are not done.
const MOST_PENDING: usize = 64;

/// Two slices that share an element, if there are any, the earlier one first, by index.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED if it takes too long to find out.
pub fn find_overlap(slices: &[&Bounds], rank: usize) -> Result<Option<(usize, usize)>> {
    let overlapping_pairs = |d: usize| {
        let mut spans: Vec<(u64, u64)> = slices.iter().map(|slice| span(slice, d)).collect();
        spans.sort_unstable();
        let later = |(i, (_, end)): (usize, &(u64, u64))| {
            let begun = spans.partition_point(|(other, _)| other < end);
            begun.saturating_sub(i + 1)
        };
        let pairs = spans.iter().enumerate().map(later);
        pairs.fold(0, usize::saturating_add)
    };
    let axis = (0..rank)
        .map(|d| (overlapping_pairs(d), d))
        .min()
        .unwrap_or_default();
    if rank == 0 || axis.0 <= slices.len().saturating_mul(PAIRS) {
        Ok(sweep(slices, rank, axis.1))
    } else {
        Partition::new(slices, rank).find(MOST_WORK)
    }
}

/// First index of a slice in dimension `d`, and the one behind its last.
fn span(slice: &Bounds, d: usize) -> (u64, u64) {
    let (start, length) = slice.get(d).copied().unwrap_or_default();
    (start, start.saturating_add(length))
}

/// Compares each slice with those that begin before it ends in dimension `axis`.
fn sweep(slices: &[&Bounds], rank: usize, axis: usize) -> Option<(usize, usize)> {
    let mut order: Vec<(usize, &Bounds)> = slices.iter().copied().enumerate().collect();
    order.sort_unstable_by_key(|(_, slice)| span(slice, axis).0);
    for (position, (i, slice)) in order.iter().enumerate() {
        let end = span(slice, axis).1;
        for (j, other) in order.iter().skip(position + 1) {
            if rank > 0 && span(other, axis).0 >= end {
                break;
            }
            if share_an_element(slice, other) {
                return Some((*i.min(j), *i.max(j)));
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

/// A part of space, and the slices that have elements in it.
struct Part {
    /// From and to in each dimension.
    space: Vec<(u64, u64)>,
    slices: Vec<usize>,
}

impl Part {
    /// What it counts for among the parts that are not done.
    fn weight(&self) -> usize {
        self.slices.len() + self.space.len()
    }
}

/// A cut at `at` in dimension `d`.
#[derive(Clone, Copy)]
struct Cut {
    d: usize,
    at: u64,
}

/// Space that is cut in two, again and again.
struct Partition<'a> {
    slices: &'a [&'a Bounds],
    rank: usize,
    parts: Vec<Part>,
    /// What the parts weigh together.
    pending: usize,
    work: usize,
}

impl<'a> Partition<'a> {
    fn new(slices: &'a [&'a Bounds], rank: usize) -> Self {
        let mut partition = Self {
            slices,
            rank,
            parts: Vec::new(),
            pending: 0,
            work: 0,
        };
        // Slices without elements overlap nothing.
        let has_elements = |i: &usize| (0..rank).all(|d| !is_empty(partition.span(*i, d)));
        let all = (0..slices.len()).filter(has_elements).collect();
        partition.push(Part {
            space: vec![(0, u64::MAX); rank],
            slices: all,
        });
        partition
    }

    fn span(&self, i: usize, d: usize) -> (u64, u64) {
        self.slices.get(i).map_or((0, 0), |slice| span(slice, d))
    }

    fn push(&mut self, part: Part) {
        if part.slices.len() > 1 {
            self.pending = self.pending.saturating_add(part.weight());
            self.parts.push(part);
        }
    }

    fn find(mut self, most_work: usize) -> Result<Option<(usize, usize)>> {
        let most_pending = MOST_PENDING * (self.slices.len() + self.rank);
        while let Some(part) = self.parts.pop() {
            self.pending = self.pending.saturating_sub(part.weight());
            let looked_at = part.slices.len().saturating_mul(self.rank);
            self.work = self.work.saturating_add(looked_at);
            if self.work > most_work || self.pending > most_pending {
                return Err(Error::resource_exhausted(format!(
                    "too many slices lie too close to each other to tell whether any overlap; \
                     num_slices={} rank={}",
                    self.slices.len(),
                    self.rank
                )));
            }
            if part.slices.len() <= FEW {
                if let Some(found) = self.compare(&part.slices) {
                    return Ok(Some(found));
                }
                continue;
            }
            let step = part.slices.len().div_ceil(SAMPLE);
            let sample: Vec<usize> = part.slices.iter().step_by(step).copied().collect();
            let cut = self.best_cut(&part.space, &sample);
            let Some(cut) = cut.or_else(|| self.best_cut(&part.space, &part.slices)) else {
                // None of them ends within the part: each is all of it.
                return Ok(self.compare(&part.slices));
            };
            self.cut(part, cut);
        }
        Ok(None)
    }

    fn compare(&self, slices: &[usize]) -> Option<(usize, usize)> {
        for (position, &i) in slices.iter().enumerate() {
            for &j in slices.iter().skip(position + 1) {
                let (one, other) = (self.slices.get(i)?, self.slices.get(j)?);
                if share_an_element(one, other) {
                    return Some((i.min(j), i.max(j)));
                }
            }
        }
        None
    }

    /// The cut that leaves fewest slices on its larger side, of those in the middle of each
    /// dimension's starts and ends.
    fn best_cut(&self, space: &[(u64, u64)], slices: &[usize]) -> Option<Cut> {
        let mut best: Option<((usize, usize), Cut)> = None;
        for (d, &(from, to)) in space.iter().enumerate() {
            let spans: Vec<(u64, u64)> = slices.iter().map(|&i| self.span(i, d)).collect();
            let starts = spans.iter().map(|span| span.0);
            let ends = spans.iter().map(|span| span.1);
            let within = |at: &u64| (from + 1..to).contains(at);
            for mut places in [
                starts.filter(within).collect::<Vec<u64>>(),
                ends.filter(within).collect(),
            ] {
                if places.is_empty() {
                    continue;
                }
                let middle = places.len() / 2;
                let at = *places.select_nth_unstable(middle).1;
                let left = spans.iter().filter(|span| span.0 < at).count();
                let right = spans.iter().filter(|span| span.1 > at).count();
                let cost = (left.max(right), left + right);
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, Cut { d, at }));
                }
            }
        }
        best.map(|(_, cut)| cut)
    }

    fn cut(&mut self, part: Part, Cut { d, at }: Cut) {
        let side = |keep: &dyn Fn((u64, u64)) -> bool| {
            let slices = part.slices.iter().copied();
            slices.filter(|&i| keep(self.span(i, d))).collect()
        };
        let left: Vec<usize> = side(&|span| span.0 < at);
        let right: Vec<usize> = side(&|span| span.1 > at);
        let (mut before, mut after) = (part.space.clone(), part.space);
        if let (Some(before), Some(after)) = (before.get_mut(d), after.get_mut(d)) {
            before.1 = at;
            after.0 = at;
        }
        self.push(Part {
            space: before,
            slices: left,
        });
        self.push(Part {
            space: after,
            slices: right,
        });
    }
}

fn is_empty((from, to): (u64, u64)) -> bool {
    from >= to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use proptest::prelude::*;
    fn both(slices: &[Bounds], rank: usize) -> [Result<Option<(usize, usize)>>; 2] {
        let slices: Vec<&Bounds> = slices.iter().collect();
        let partition = Partition::new(&slices, rank).find(MOST_WORK);
        [find_overlap(&slices, rank), partition]
    }

    fn naive(slices: &[Bounds]) -> bool {
        let pairs = slices.iter().enumerate();
        pairs.into_iter().any(|(i, slice)| {
            let mut later = slices.iter().skip(i + 1);
            later.any(|other| share_an_element(slice, other))
        })
    }

    /// Boxes that cover a cube of 32 without overlapping: cut by `cuts` at random.
    fn tiles(rank: usize, cuts: &[(usize, usize, u64)]) -> Vec<Bounds> {
        let mut tiles: Vec<Bounds> = vec![vec![(0, 32); rank]];
        for &(which, d, at) in cuts {
            let (which, d) = (which % tiles.len(), d % rank);
            let (start, length) = tiles[which][d];
            let at = at % length;
            if at > 0 {
                let mut other = tiles[which].clone();
                tiles[which][d] = (start, at);
                other[d] = (start + at, length - at);
                tiles.push(other);
            }
        }
        tiles
    }

    proptest! {
        #[test]
        fn what_a_comparison_of_all_pairs_finds_is_found(
            rank in 1usize..5,
            cuts in proptest::collection::vec((0usize..1000, 0usize..4, 0u64..32), 0..200),
            grow in proptest::option::of((0usize..1000, 0usize..4)),
        ) {
            let mut slices = tiles(rank, &cuts);
            if let Some((which, d)) = grow {
                let which = which % slices.len();
                slices[which][d % rank].1 += 1;
            }
            let expected = naive(&slices);
            for found in both(&slices, rank) {
                let found = found.unwrap();
                prop_assert_eq!(found.is_some(), expected);
                if let Some((i, j)) = found {
                    prop_assert!(i < j && share_an_element(&slices[i], &slices[j]));
                }
            }
        }
    }

    #[test]
    fn slices_without_elements_or_dimensions() {
        let empty: Vec<Bounds> = (0..100).map(|_| vec![(0, 4), (0, 0)]).collect();
        for found in both(&empty, 2) {
            assert_eq!(found.unwrap(), None);
        }
        let scalars = [vec![], vec![]];
        assert_eq!(both(&scalars, 0)[0].as_ref().unwrap(), &Some((0, 1)));
        let same: Vec<Bounds> = (0..100).map(|_| vec![(1, 4), (2, 5)]).collect();
        for found in both(&same, 2) {
            assert!(found.unwrap().is_some());
        }
    }

    /// Up to 100,000 slices of which very many overlap in each dimension by itself.
    fn many() -> Vec<(&'static str, usize, Vec<Bounds>)> {
        const NUM: u64 = 50_000;
        let rows = (0..NUM).map(|i| vec![(i, 1), (0, NUM)]);
        let columns = (0..NUM).map(|i| vec![(NUM, NUM), (i, 1)]);
        let side = 316;
        let bricks = (0..side * side).map(|i| {
            let (row, column) = (i / side, i % side);
            vec![(row * 3, 3), (column * 10 + row % 10, 10)]
        });
        let sticks = (0..3_000u64).flat_map(|i| {
            let (a, b) = (i % 55 * 2, i / 55 * 2);
            [
                vec![(0, 120), (a, 1), (b + 1, 1)],
                vec![(a + 1, 1), (0, 120), (b, 1)],
                vec![(a, 1), (b + 1, 1), (0, 120)],
            ]
        });
        let staircase = (0..2 * NUM).map(|i| vec![(i, NUM), (2 * NUM - i, 1)]);
        vec![
            ("rows and columns", 2, rows.chain(columns).collect()),
            ("bricks", 2, bricks.collect()),
            ("sticks", 3, sticks.collect()),
            ("staircase", 2, staircase.collect()),
        ]
    }

    #[test]
    fn very_many_slices_take_little_work() {
        for (name, rank, mut slices) in many() {
            let refs: Vec<&Bounds> = slices.iter().collect();
            assert_eq!(find_overlap(&refs, rank).unwrap(), None, "{name}");
            // All pairs of 100,000 slices would be 600 times as much.
            let little = Partition::new(&refs, rank).find(MOST_WORK / 16);
            assert_eq!(little.unwrap(), None, "{name}");
            let twin = slices[slices.len() / 3].clone();
            slices.push(twin);
            let refs: Vec<&Bounds> = slices.iter().collect();
            let found = find_overlap(&refs, rank).unwrap();
            assert_eq!(found, Some((slices.len() / 3, slices.len() - 1)), "{name}");
        }
    }

    #[test]
    fn what_would_take_too_long_is_refused() {
        let (_, rank, slices) = many().remove(2);
        let slices: Vec<&Bounds> = slices.iter().collect();
        let error = Partition::new(&slices, rank).find(1 << 20).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
    }
}
