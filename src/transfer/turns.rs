//! Which item a thread does next, if the items go to several places.
//!
//! Each GPU has a bus of its own, and buffers of its own, for which threads wait when the bus is slower than
//! they are. In the order of the files they would all wait for the first GPU while the others have nothing
//! to do. So the items of each place, a GPU or the host, stand in a line of their own, and a thread goes to
//! the line that the fewest threads are at: all places are served side by side, and one that stands still
//! keeps no more than its share of the threads.

use std::ops::Range;

use parking_lot::Mutex;

/// The lines; none if the items are done in their order.
#[derive(Debug, Default)]
pub struct Turns(Option<Mutex<Vec<Line>>>);

/// The items of one place.
#[derive(Debug)]
struct Line {
    /// Those that are left.
    items: Range<usize>,
    /// How many were taken.
    taken: usize,
    /// Threads that are doing one.
    threads: usize,
}

impl Turns {
    /// Of items that stand in these lines, each of which follows the one before it.
    pub fn new(lines: impl Iterator<Item = Range<usize>>) -> Self {
        let line = |items| Line {
            items,
            taken: 0,
            threads: 0,
        };
        Self(Some(Mutex::new(lines.map(line).collect())))
    }

    /// Turn number `number`, each of which is taken once.
    pub fn take(&self, number: usize) -> Turn<'_> {
        let next = self.0.as_ref().and_then(|lines| {
            let mut all = lines.lock();
            let waiting = all.iter_mut().enumerate();
            let waiting = waiting.filter(|(_, line)| !line.items.is_empty());
            let (index, line) = waiting.min_by_key(|(_, line)| (line.threads, line.taken))?;
            let item = line.items.next()?;
            line.taken += 1;
            line.threads += 1;
            Some((item, (lines, index)))
        });
        Turn {
            item: next.map_or(number, |(item, _)| item),
            line: next.map(|(_, line)| line),
        }
    }
}

/// A thread's turn, until it is dropped.
#[derive(Debug)]
pub struct Turn<'t> {
    /// The item to be done.
    pub item: usize,
    /// The line that it stood in: all lines, and its place among them.
    line: Option<(&'t Mutex<Vec<Line>>, usize)>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some((lines, index)) = self.line
            && let Some(line) = lines.lock().get_mut(index)
        {
            line.threads -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_lines_items_are_done_in_their_order() {
        let turns = Turns::default();
        let items: Vec<usize> = (0..3).map(|number| turns.take(number).item).collect();
        assert_eq!(items, [0, 1, 2]);
    }

    #[test]
    fn one_thread_goes_to_one_line_after_the_other() {
        let turns = Turns::new([0..3, 3..8, 8..9].into_iter());
        let items: Vec<usize> = (0..9).map(|number| turns.take(number).item).collect();
        assert_eq!(items, [0, 3, 8, 1, 4, 2, 5, 6, 7]);
    }

    #[test]
    fn a_place_that_stands_still_keeps_no_more_than_its_share_of_the_threads() {
        let turns = Turns::new([0..10, 10..20].into_iter());
        // Four threads, of which those at the first line do not come back.
        let mut held: Vec<Turn<'_>> = (0..4).map(|number| turns.take(number)).collect();
        held.retain(|turn| turn.item < 10);
        assert_eq!(held.len(), 2);
        // The other two do all of the second line, and only then go to the first.
        for number in (4..12).step_by(2) {
            let pair = [turns.take(number), turns.take(number + 1)];
            assert!(pair.iter().all(|turn| turn.item >= 10), "{pair:?}");
        }
        assert_eq!(turns.take(12).item, 2);
    }
}
