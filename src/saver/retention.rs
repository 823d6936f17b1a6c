//! Which checkpoints are kept.
//!
//! Source: `_RecordLastCheckpoint` and `_MaybeDeleteOldCheckpoints` in
//! `tensorflow/python/training/saver.py`. The list is oldest first; a save appends to it and takes at
//! most one from its beginning, and that one is deleted unless the grid of `every_n_hours` keeps it.
//! The grid begins when the saver is built and advances by one step for each checkpoint that it keeps,
//! not to the present.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// The checkpoints that a saver keeps, and those that it is about to delete.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Checkpoints to keep, 0 for all.
    max_to_keep: usize,
    /// Seconds between checkpoints that are kept for good.
    interval: f64,
    /// A checkpoint younger than this, in seconds since 1970, is the next one to be kept for good.
    next_keep: f64,
    last: Vec<(PathBuf, f64)>,
    to_delete: VecDeque<(PathBuf, f64)>,
}

impl Retention {
    /// An empty list; `now` is the time of building, in seconds since 1970.
    pub fn new(max_to_keep: i32, every_n_hours: f32, now: f64) -> Self {
        let interval = f64::from(every_n_hours) * 3600.0;
        Self {
            max_to_keep: usize::try_from(max_to_keep).unwrap_or(0),
            interval,
            next_keep: now + interval,
            last: Vec::new(),
            to_delete: VecDeque::new(),
        }
    }

    /// The checkpoints that are kept, oldest first, with their times in seconds since 1970.
    pub fn last(&self) -> &[(PathBuf, f64)] {
        &self.last
    }

    /// Replaces that list.
    pub fn set_last(&mut self, last: Vec<(PathBuf, f64)>) {
        self.last = last;
    }

    /// Notes a new checkpoint. With `shrink`, all that are too many are to be deleted, otherwise one.
    pub fn record(&mut self, path: &Path, now: f64, shrink: bool) {
        if self.max_to_keep == 0 {
            return;
        }
        self.last.retain(|(known, _)| known != path);
        self.last.push((path.to_owned(), now));
        let excess = self.last.len().saturating_sub(self.max_to_keep);
        let num = if shrink { excess } else { excess.min(1) };
        self.to_delete.extend(self.last.drain(..num));
    }

    /// The next checkpoint to delete, if the turn is not that of one that is kept for good. At most one
    /// for each save, as in TensorFlow, unless `shrink`.
    pub fn next_to_delete(&mut self, shrink: bool) -> Option<PathBuf> {
        while let Some((path, time)) = self.to_delete.pop_front() {
            if time > self.next_keep {
                self.next_keep += self.interval;
                if shrink {
                    continue;
                }
                return None;
            }
            return Some(path);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saves at `times` and returns what was deleted, by its place in `times`.
    fn deleted(retention: &mut Retention, times: &[f64]) -> Vec<usize> {
        let path = |index: usize| PathBuf::from(format!("m-{index}"));
        let mut deleted = Vec::new();
        for (index, &time) in times.iter().enumerate() {
            retention.record(&path(index), time, false);
            if let Some(gone) = retention.next_to_delete(false) {
                deleted.push((0..times.len()).find(|&index| path(index) == gone).unwrap());
            }
        }
        deleted
    }

    #[test]
    fn the_grid_keeps_one_checkpoint_an_hour() {
        let times: Vec<f64> = (0..25).map(|index| f64::from(index) * 600.0).collect();
        let mut retention = Retention::new(3, 1.0, 0.0);
        let gone = deleted(&mut retention, &times);
        let kept: Vec<usize> = (0..22).filter(|index| !gone.contains(index)).collect();
        // Minutes 70, 130, 190: the one at exactly 60 goes.
        assert_eq!(kept, [7, 13, 19]);
    }

    #[test]
    fn the_grid_lags_behind_after_a_pause() {
        let times: Vec<f64> = (1..8)
            .map(|index| f64::from(index) * 5.0 * 3600.0)
            .collect();
        assert!(deleted(&mut Retention::new(1, 1.0, 0.0), &times).is_empty());
    }

    #[test]
    fn a_path_saved_again_moves_to_the_end_and_nothing_goes() {
        let mut retention = Retention::new(2, 10_000.0, 0.0);
        for path in ["a", "b", "a"] {
            retention.record(Path::new(path), 1.0, false);
            assert_eq!(retention.next_to_delete(false), None);
        }
        retention.record(Path::new("c"), 1.0, false);
        assert_eq!(retention.next_to_delete(false), Some("b".into()));
    }

    #[test]
    fn what_is_too_many_shrinks_by_one_or_at_once() {
        let five = || {
            ["a", "b", "c", "d", "e"]
                .map(|name| (PathBuf::from(name), 1.0))
                .to_vec()
        };
        let mut retention = Retention::new(2, 10_000.0, 0.0);
        retention.set_last(five());
        retention.record(Path::new("f"), 1.0, false);
        assert_eq!(retention.next_to_delete(false), Some("a".into()));
        assert_eq!(retention.next_to_delete(false), None);
        assert_eq!(retention.last().len(), 5);
        retention.record(Path::new("g"), 1.0, true);
        let gone: Vec<PathBuf> = std::iter::from_fn(|| retention.next_to_delete(true)).collect();
        assert_eq!(gone, ["b", "c", "d", "e"].map(PathBuf::from));
    }

    #[test]
    fn the_limits_of_the_arguments() {
        // 0 keeps all and records nothing; an interval of 0 keeps whatever is younger than the saver.
        let mut all = Retention::new(0, 1.0, 0.0);
        all.record(Path::new("a"), 1.0, false);
        assert!(all.last().is_empty());
        let times = [1.0, 2.0, 3.0];
        for never in [0.0, -1.0] {
            assert!(deleted(&mut Retention::new(1, never, 0.0), &times).is_empty());
        }
        for always in [f32::NAN, f32::INFINITY] {
            assert_eq!(deleted(&mut Retention::new(1, always, 0.0), &times), [0, 1]);
        }
        let mut set = Retention::new(1, 1.0, 0.0);
        set.set_last(vec![("a".into(), f64::INFINITY)]);
        assert!(deleted(&mut set, &[1.0]).is_empty());
    }
}
