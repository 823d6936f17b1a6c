//! Brings the bytes of a GPU's tensors into the buffers of a save; see [`fill`](super::fill).
//!
//! A thread that fills chunks takes a [slot](super::lane), has as much of its item copied into it as it
//! holds, waits, and copies from there into the chunk, where the bytes are summed and written like any
//! others. While it does, other threads wait for theirs, so that the bus is never idle. The chunk stays in
//! the cache, so that the second copy costs little, and a slot is a GPU's again as soon as possible.

use std::ops::Range;

use super::deliver::to_usize;
use super::lane::Lane;
use super::lanes::Lanes;
use super::pipeline::Shared;
use super::write_plan::{Part, Source, WritePlan, WriteTensor};
use crate::device::{DeviceSpan, PinnedBuffer, PinnedCopy};
use crate::error::{Error, Result};
use crate::memory::ChunkBuffer;

/// What one item needs of GPUs' memory.
pub struct Download<'l, 'a> {
    lanes: &'l Lanes<'l>,
    plan: &'l WritePlan,
    tensors: &'l [WriteTensor<'a>],
    shared: Shared<'l>,
    /// The item's parts.
    parts: Range<usize>,
    held: Option<Held<'l>>,
}

/// A slot, and what is in it.
struct Held<'l> {
    lane: &'l Lane,
    slot: PinnedBuffer,
    /// The parts, in order: number, first byte inside it, place in the slot, length.
    ranges: std::vec::IntoIter<(usize, u64, usize, usize)>,
}

/// A range of a tensor that is copied at once.
struct Copy<'a> {
    tensor: u32,
    span: DeviceSpan<'a>,
    start: usize,
    /// Where it goes in the slot.
    at: usize,
    len: usize,
}

impl<'a> Copy<'a> {
    fn pinned(&self) -> Result<PinnedCopy<'a>> {
        let device = self.span.get(self.start, self.len);
        Ok(PinnedCopy {
            offset: self.at,
            device: device.ok_or_else(|| Error::internal("a part leaves its tensor"))?,
        })
    }
}

impl<'l, 'a> Download<'l, 'a> {
    /// For the parts of one item.
    pub fn new(
        lanes: &'l Lanes<'l>,
        plan: &'l WritePlan,
        tensors: &'l [WriteTensor<'a>],
        parts: Range<usize>,
        shared: Shared<'l>,
    ) -> Self {
        Self {
            lanes,
            plan,
            tensors,
            shared,
            parts,
            held: None,
        }
    }

    /// Appends part `number` to `buffer`. Parts are asked for in their order, each once.
    ///
    /// # Errors
    ///
    /// Those of the driver, and of [`Shared::check`].
    pub fn append(&mut self, number: usize, part: &Part, buffer: &mut ChunkBuffer) -> Result<()> {
        let mut done = 0;
        while done < part.len {
            let next = self.held.as_mut().and_then(|held| held.ranges.next());
            let Some((of, start, at, len)) = next else {
                self.fetch(number, done)?;
                continue;
            };
            let Some(held) = self.held.as_mut().filter(|_| (of, start) == (number, done)) else {
                return Err(Error::internal("parts are not taken in their order"));
            };
            let bytes = held.slot.bytes().and_then(|bytes| bytes.get(at..at + len));
            bytes
                .and_then(|bytes| buffer.append_bytes(bytes))
                .ok_or_else(|| Error::internal("a chunk outgrew its buffer"))?;
            done += len as u64;
        }
        Ok(())
    }

    /// Copies part `number` from byte `start` on, and the parts behind it on the same GPU, into a slot.
    fn fetch(&mut self, number: usize, start: u64) -> Result<()> {
        self.put_back();
        let device = self.span(number).map(|(_, span)| span.device());
        let device = device.ok_or_else(|| Error::internal("a part is of no GPU"))?;
        let lane = self.lanes.lane(device)?;
        let (mut ranges, mut copies) = (Vec::new(), Vec::new());
        // The parts of one tensor follow each other, and are copied at once.
        let mut open: Option<Copy<'a>> = None;
        let (mut used, mut from) = (0, start);
        for number in number..self.parts.end {
            // Others come between: the host's, and those of tensors without elements.
            let Some((part, span)) = self.span(number).filter(|(part, _)| part.len > 0) else {
                continue;
            };
            if span.device() != device || used == lane.slot() {
                break;
            }
            let len = to_usize(part.len - from)?.min(lane.slot() - used);
            if len == 0 {
                continue; // an empty tensor, for which nobody asks
            }
            match &mut open {
                Some(open) if open.tensor == part.tensor => open.len += len,
                open => {
                    let next = Copy {
                        tensor: part.tensor,
                        span,
                        start: to_usize(part.start + from)?,
                        at: used,
                        len,
                    };
                    copies.extend(open.replace(next));
                }
            }
            ranges.push((number, from, used, len));
            used += len;
            if (len as u64) < part.len - from {
                break;
            }
            from = 0;
        }
        copies.extend(open);
        let copies: Vec<_> = copies.iter().map(Copy::pinned).collect::<Result<_>>()?;
        self.held = Some(Held {
            lane,
            slot: lane.fetch(&copies, self.shared)?,
            ranges: ranges.into_iter(),
        });
        Ok(())
    }

    /// Part `number` and its tensor's memory, if that is a GPU's.
    fn span(&self, number: usize) -> Option<(&'l Part, DeviceSpan<'a>)> {
        let part = self.plan.parts.get(number)?;
        match self.tensors.get(part.tensor as usize)?.source {
            Source::Device(span) => Some((part, span)),
            _ => None,
        }
    }

    fn put_back(&mut self) {
        if let Some(held) = self.held.take() {
            held.lane.put(held.slot);
        }
    }
}

impl Drop for Download<'_, '_> {
    fn drop(&mut self) {
        self.put_back();
    }
}
