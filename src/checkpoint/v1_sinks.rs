//! Where what is decoded from a V1 checkpoint goes.

use std::ops::Range;

use crate::bundle::StringTensor;
use crate::error::{Error, Result};
use crate::memory::DestSpan;
use crate::slices::Overlap;
use crate::transfer::Progress;
use crate::v1::Sink;

/// The runs of an overlap that lie ahead, in units of `unit`.
pub struct Runs<'o> {
    overlap: &'o Overlap,
    unit: u64,
    number: u64,
}

impl<'o> Runs<'o> {
    /// All runs of `overlap`.
    pub fn new(overlap: &'o Overlap, unit: u64) -> Self {
        Self {
            overlap,
            unit,
            number: 0,
        }
    }

    /// Source and destination of the run with this number.
    fn run(&self, number: u64) -> Option<(Range<u64>, u64)> {
        if number >= self.overlap.num_runs() {
            return None;
        }
        let run = self.overlap.run(number);
        let start = run.source * self.unit;
        Some((start..start + run.len * self.unit, run.dest * self.unit))
    }

    /// The first place from `place` on that a run holds.
    fn next(&self, place: u64) -> u64 {
        let mut number = self.number;
        while let Some((source, _)) = self.run(number) {
            if place < source.end {
                return place.max(source.start);
            }
            number += 1;
        }
        u64::MAX
    }

    /// The place that a single element goes to.
    fn element(&mut self, place: u64) -> Option<usize> {
        let (_, dest) = self.take(&(place..place + 1))?;
        usize::try_from(dest).ok()
    }

    /// The next part of `places` that a run holds, and its destination.
    fn take(&mut self, places: &Range<u64>) -> Option<(Range<u64>, u64)> {
        while let Some((source, dest)) = self.run(self.number) {
            if source.end <= places.start {
                self.number += 1;
                continue;
            }
            if source.start >= places.end {
                return None;
            }
            let start = source.start.max(places.start);
            let end = source.end.min(places.end);
            return Some((start..end, dest + (start - source.start)));
        }
        None
    }
}

/// Copies elements of a fixed size to their places.
pub struct Scatter<'a, 'o, 'c, 'p> {
    pub dest: DestSpan<'a>,
    pub runs: Runs<'o>,
    pub progress: &'c mut Progress<'p>,
}

impl Sink for Scatter<'_, '_, '_, '_> {
    fn next(&self, place: u64) -> u64 {
        self.runs.next(place)
    }

    fn tick(&mut self) -> Result<()> {
        self.progress.advance(0, 0)
    }

    fn take(&mut self, place: u64, bytes: &[u8]) -> Result<()> {
        let mut rest = place..place + bytes.len() as u64;
        let mut copied = 0;
        while let Some((source, dest)) = self.runs.take(&rest) {
            let from = usize::try_from(source.start - place).unwrap_or(usize::MAX);
            let to = usize::try_from(source.end - place).unwrap_or(usize::MAX);
            let dest = usize::try_from(dest).unwrap_or(usize::MAX);
            let piece = bytes.get(from..to).unwrap_or_default();
            self.dest.copy_from(dest, piece, 1).ok_or_else(outside)?;
            copied += source.end - source.start;
            rest.start = source.end;
            if rest.is_empty() {
                break;
            }
        }
        self.progress.advance(copied, 0)
    }
}

/// Appends all strings of a record in the order in which they are stored. The pieces of a string come
/// one after the other, and its first is empty.
pub struct Append<'s, 'c, 'p> {
    pub data: &'s mut Vec<u8>,
    /// Where each string ends in `data`.
    pub ends: &'s mut Vec<usize>,
    pub progress: &'c mut Progress<'p>,
}

impl Sink for Append<'_, '_, '_> {
    fn next(&self, place: u64) -> u64 {
        place
    }

    fn tick(&mut self) -> Result<()> {
        self.progress.advance(0, 0)
    }

    fn take(&mut self, _place: u64, bytes: &[u8]) -> Result<()> {
        self.data
            .try_reserve(bytes.len())
            .map_err(|_| Error::resource_exhausted("no memory for the strings"))?;
        self.data.extend_from_slice(bytes);
        match self.ends.last_mut() {
            Some(end) if !bytes.is_empty() => *end = self.data.len(),
            _ => self.ends.push(self.data.len()),
        }
        self.progress.advance(0, 0)
    }
}

/// Adds up the lengths of strings.
pub struct Measure<'s, 'o, 'c, 'p> {
    pub lengths: &'s mut [usize],
    pub runs: Runs<'o>,
    pub progress: &'c mut Progress<'p>,
}

impl Sink for Measure<'_, '_, '_, '_> {
    fn next(&self, place: u64) -> u64 {
        self.runs.next(place)
    }

    fn tick(&mut self) -> Result<()> {
        self.progress.advance(0, 0)
    }

    fn take(&mut self, place: u64, bytes: &[u8]) -> Result<()> {
        if let Some(element) = self.runs.element(place) {
            let length = self.lengths.get_mut(element).ok_or_else(outside)?;
            *length += bytes.len();
        }
        self.progress.advance(0, 0)
    }
}

/// Copies strings to their places.
pub struct Fill<'s, 'o, 'c, 'p> {
    pub strings: &'s mut StringTensor,
    /// Bytes of the present string that are there.
    pub done: usize,
    pub runs: Runs<'o>,
    pub progress: &'c mut Progress<'p>,
}

impl Sink for Fill<'_, '_, '_, '_> {
    fn next(&self, place: u64) -> u64 {
        self.runs.next(place)
    }

    fn tick(&mut self) -> Result<()> {
        self.progress.advance(0, 0)
    }

    fn take(&mut self, place: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            self.done = 0;
        }
        if let Some(element) = self.runs.element(place) {
            let string = self.strings.bytes_mut(element, element + 1);
            let end = self.done + bytes.len();
            let piece = string.and_then(|string| string.get_mut(self.done..end));
            let piece =
                piece.ok_or_else(|| Error::aborted("the file changed while it was read"))?;
            piece.copy_from_slice(bytes);
            self.done = end;
        }
        self.progress.advance(0, 0)
    }
}

fn outside() -> Error {
    Error::internal("a slice leaves its destination")
}
