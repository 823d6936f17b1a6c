//! What a restore reads in which order, and how it is cut into items; see [`read`](super::read).

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::ITEM;
use super::piece::{ChunkCrcs, Piece, Scatter, Target};
use super::turns::Turns;
use crate::bundle::sidecar::CHUNK_SIZE;
use crate::checksum::Shift;
use crate::error::Error;

/// Pieces and runs smaller than this are read together with their neighbours: below it the system
/// call costs more than the additional copy.
pub(super) const SMALL: u64 = 64 << 10;

/// Most bytes of neighbouring small pieces that one thread reads together.
const GROUP: u64 = 1 << 20;

/// As [`SMALL`] on the way to a GPU, where a piece by itself takes a slot, an event and a copy as well.
const SMALL_UPLOAD: u64 = 1 << 20;

/// Groups on the way to GPUs are larger than [`GROUP`], up to an item's bytes, if there are so many all the
/// same: enough for the threads to share.
const MANY_GROUPS: u64 = 64;

/// Bytes between two pieces or runs that are read and thrown away rather than read around.
pub(super) const GAP: u64 = 4 << 10;

/// Most items that one piece is cut into, where a file or a slice asks for very many.
const MOST_ITEMS: u64 = 1 << 14;

/// Short runs that make an item: enough for the item to be worth a thread's turn, few enough for the
/// threads to share them.
const RUNS: u64 = 1 << 10;

/// How a restore reads.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// Names the checkpoint in messages.
    pub bundle: &'a str,
    /// Whether the error of one tensor does not keep the others from being read.
    pub keep_going: bool,
    /// Whether tensors are to arrive in about the order of the request.
    pub in_request_order: bool,
    /// Whether nothing is sent to a GPU before its checksum is known to be right.
    pub strict: bool,
    /// Whether this only looks ahead: what it finds in order has not arrived yet.
    pub only_checks: bool,
    /// For each tensor its index in the whole request, if this is part of one.
    pub members: Option<&'a [usize]>,
    /// Names a tensor of the whole request in its error.
    pub name: &'a (dyn Fn(usize, Error) -> Error + Sync),
}

impl How<'_> {
    /// The index of a tensor in the whole request.
    pub fn index(&self, tensor: usize) -> usize {
        let member = self.members.and_then(|members| members.get(tensor));
        member.copied().unwrap_or(tensor)
    }

    /// The error of a tensor as others are told of it: with that index and its name.
    pub fn told(&self, tensor: usize, error: Error) -> Error {
        let error = match self.members {
            Some(members) => error.reindexed(members),
            None => error,
        };
        (self.name)(self.index(tensor), error)
    }
}

/// Pieces in file order, and the items they are read by.
pub struct ReadPlan<'a> {
    /// Sorted by shard and offset.
    pub pieces: Vec<Piece<'a>>,
    /// What the threads take turns in.
    pub items: Vec<Item>,
    /// The parts of each piece that several items check, by the piece's place.
    parts: Vec<(u32, Parts)>,
}

/// The checksums of the parts of a piece, combined when the last one is known.
pub struct Parts {
    /// Bytes of each part but the last.
    len: u64,
    /// Parts whose checksum is not known yet.
    missing: AtomicUsize,
    /// Checksum of each part.
    crcs: Vec<AtomicU32>,
}

impl Parts {
    /// Notes the checksum of the part from `start`. Returns that of the whole piece of `size` bytes to
    /// whoever notes the last one.
    pub fn note(&self, start: u64, crc: u32, size: u64) -> Option<u32> {
        let number = usize::try_from(start / self.len).ok();
        if let Some(slot) = number.and_then(|number| self.crcs.get(number)) {
            slot.store(crc, Ordering::Relaxed);
        }
        // AcqRel: the checksums of the other threads are visible to the last one.
        if self.missing.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let full = Shift::new(self.len);
        let last = Shift::new(size - (self.crcs.len() as u64 - 1) * self.len);
        let crcs = self.crcs.iter().map(|crc| crc.load(Ordering::Relaxed));
        let mut crcs = crcs.peekable();
        let mut whole = crcs.next().unwrap_or_default();
        while let Some(crc) = crcs.next() {
            let shift = if crcs.peek().is_some() { full } else { last };
            whole = shift.append(whole, crc);
        }
        Some(whole)
    }
}

/// A piece of work for one thread. Pieces are given by their place in the plan; starts and lengths in
/// bytes.
#[derive(Clone, Copy)]
pub enum Item {
    /// Up to [`ITEM`] bytes from `start` of a piece, straight to their destination.
    Direct { piece: u32, start: u64 },
    /// `len` bytes from `start` of a piece, through a buffer.
    Block { piece: u32, start: u64, len: u64 },
    /// The pieces of this range, whole, through a buffer.
    Group { first: u32, end: u32 },
    /// The runs of this range of a piece; never checked.
    Runs { piece: u32, first: u64, end: u64 },
    /// Up to [`ITEM`] bytes from `start` of one long run of a piece, straight to their destination;
    /// never checked.
    LongRun { piece: u32, run: u64, start: u64 },
    /// Of the chunks of this range of a piece those that something is wanted of, each whole and checked
    /// by itself.
    Chunks { piece: u32, first: u64, end: u64 },
}

impl ReadPlan<'_> {
    /// The parts of a piece that several items check.
    pub fn parts(&self, piece: u32) -> Option<&Parts> {
        let found = self.parts.binary_search_by_key(&piece, |(piece, _)| *piece);
        self.parts.get(found.ok()?).map(|(_, parts)| parts)
    }

    /// The GPU that the bytes of an item go to, if it is one.
    pub fn device(&self, item: &Item) -> Option<i32> {
        let (Item::Group { first: piece, .. }
        | Item::Direct { piece, .. }
        | Item::Block { piece, .. }
        | Item::Runs { piece, .. }
        | Item::LongRun { piece, .. }
        | Item::Chunks { piece, .. }) = *item;
        self.pieces.get(piece as usize)?.device()
    }

    /// Puts the items of each place, a GPU or the host, into a line of its own, within which they stay in
    /// file order.
    pub fn put_side_by_side(&mut self) -> Turns {
        let place = |item: &Item| self.device(item);
        let Some(first) = self.items.first().map(place) else {
            return Turns::default();
        };
        if self.items.iter().all(|item| place(item) == first) {
            return Turns::default();
        }
        let mut items = std::mem::take(&mut self.items);
        items.sort_by_key(|item| self.device(item));
        let mut end = 0;
        let lines = items.chunk_by(|one, next| self.device(one) == self.device(next));
        let turns = Turns::new(lines.map(|line| {
            let start = end;
            end += line.len();
            start..end
        }));
        self.items = items;
        turns
    }

    /// Puts those items first that the first tensors of the request wait for. The pieces stay in file
    /// order, and small neighbours in their groups: only whose turn it is changes.
    pub fn put_in_request_order(&mut self) {
        let pieces = &self.pieces;
        let tensor = |piece: u32| pieces.get(piece as usize).map(|piece| piece.tensor);
        // Stable: the items of one tensor stay in file order.
        self.items.sort_by_key(|item| match *item {
            Item::Group { first, end } => (first..end).filter_map(tensor).min(),
            Item::Direct { piece, .. }
            | Item::Block { piece, .. }
            | Item::Chunks { piece, .. }
            | Item::Runs { piece, .. }
            | Item::LongRun { piece, .. } => tensor(piece),
        });
    }
}

/// Sorts the pieces and cuts them into items; `room` is what a thread's buffer holds, and `slot` what one
/// holds whose bytes go to a GPU. With `through_buffers`, nothing is read straight to where it goes, and
/// what the threads read at one time lies close together, as a disk likes it.
pub fn plan(
    mut pieces: Vec<Piece<'_>>,
    room: usize,
    slot: usize,
    through_buffers: bool,
) -> ReadPlan<'_> {
    pieces.sort_unstable_by_key(|piece| (piece.extent.shard_id, piece.extent.offset, piece.tensor));
    // At least as many as there are large pieces; a list that grows is there twice for a moment.
    let large = pieces.iter().filter(|piece| piece.extent.size >= SMALL);
    let mut items = Vec::with_capacity(large.count());
    let mut parts = Vec::new();
    // Without slots nothing goes to a GPU.
    let uploads = pieces.iter().filter(|it| slot > 0 && it.device().is_some());
    let uploads = uploads.fold(0u64, |sum, piece| sum.saturating_add(piece.extent.size));
    let upload_group = (uploads / MANY_GROUPS).clamp(GROUP, ITEM as u64);
    let mut group: Option<(u32, &Piece<'_>)> = None;
    let mut last: Option<&Piece<'_>> = None;
    for (index, piece) in (0..).zip(&pieces) {
        let before = last.replace(piece);
        let size = piece.extent.size;
        let runs = piece.unchecked_runs();
        let device = piece.device();
        let (buffer, small, most) = match device {
            Some(_) => (slot as u64, SMALL_UPLOAD, upload_group),
            None => (room as u64, SMALL - 1, GROUP),
        };
        let small = runs.is_none() && size <= small.min(buffer);
        if let Some((first, start)) = group {
            let joins = small
                && device == start.device()
                && piece.extent.shard_id == start.extent.shard_id
                && before.is_some_and(|last| {
                    let end = last.extent.offset + last.extent.size;
                    // What goes to a GPU is put in order where it was read, so no other piece is to share it.
                    let shares = device.is_some() && piece.extent.offset < end;
                    !shares && piece.extent.offset <= end + GAP
                })
                && piece.extent.offset + size - start.extent.offset <= most.min(buffer);
            if joins {
                continue;
            }
            items.push(Item::Group { first, end: index });
            group = None;
        }
        if small {
            group = Some((index, piece));
        } else if let Some(scatter) = runs {
            match &scatter.chunks {
                Some(chunks) => plan_chunks(&mut items, index, chunks),
                None => plan_runs(&mut items, index, scatter, buffer),
            }
        } else {
            let direct = !through_buffers && matches!(piece.target, Target::Direct(_));
            // Through a buffer, an item is what fits into it.
            let len = if direct {
                ITEM as u64
            } else {
                block_len(size, buffer)
            };
            let num_parts = size.div_ceil(len);
            if piece.check && num_parts > 1 {
                let crcs: Vec<AtomicU32> = (0..num_parts).map(|_| AtomicU32::new(0)).collect();
                let missing = AtomicUsize::new(crcs.len());
                parts.push((index, Parts { len, missing, crcs }));
            }
            items.extend((0..num_parts).map(|part| part * len).map(|start| {
                if direct {
                    Item::Direct {
                        piece: index,
                        start,
                    }
                } else {
                    Item::Block {
                        piece: index,
                        start,
                        len: len.min(size - start),
                    }
                }
            }));
        }
    }
    if let Some((first, _)) = group {
        let end = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        items.push(Item::Group { first, end });
    }
    ReadPlan {
        pieces,
        items,
        parts,
    }
}

/// How many items each tensor takes part in; a group counts once for each of its pieces.
pub fn items_per_tensor(plan: &ReadPlan<'_>, num_tensors: usize) -> Vec<AtomicU32> {
    let mut counts: Vec<AtomicU32> = std::iter::repeat_with(AtomicU32::default)
        .take(num_tensors)
        .collect();
    let mut count = |piece: u32| {
        let tensor = plan.pieces.get(piece as usize).map(|piece| piece.tensor);
        if let Some(count) = tensor.and_then(|tensor| counts.get_mut(tensor as usize)) {
            *count.get_mut() += 1;
        }
    };
    for item in &plan.items {
        match *item {
            Item::Group { first, end } => (first..end).for_each(&mut count),
            Item::Direct { piece, .. }
            | Item::Block { piece, .. }
            | Item::Runs { piece, .. }
            | Item::LongRun { piece, .. }
            | Item::Chunks { piece, .. } => count(piece),
        }
    }
    counts
}

/// Bytes of a piece that one item reads through a buffer: what fits into it, or a multiple when a file
/// says that the piece is enormous, so that the number of items stays within reason.
fn block_len(size: u64, buffer: u64) -> u64 {
    buffer.saturating_mul(size.div_ceil(buffer.saturating_mul(MOST_ITEMS)).max(1))
}

/// Items for the runs of one piece. Which of them share a read is seen only when they are read: a
/// slice may have a run for every element.
fn plan_runs(items: &mut Vec<Item>, piece: u32, scatter: &Scatter<'_>, buffer: u64) {
    let (overlap, item) = (&scatter.overlap, ITEM as u64);
    let bytes = overlap.run_len() * scatter.element_size;
    if bytes > item {
        items.extend((0..overlap.num_runs()).flat_map(|run| {
            let starts = (0..bytes.div_ceil(item)).map(move |part| part * item);
            starts.map(move |start| Item::LongRun { piece, run, start })
        }));
        return;
    }
    let runs = if bytes >= SMALL.min(buffer) {
        item / bytes.max(1)
    } else {
        RUNS
    };
    let runs = runs.max(overlap.num_runs() / MOST_ITEMS);
    items.extend(
        (0..overlap.num_runs().div_ceil(runs)).map(|part| Item::Runs {
            piece,
            first: part * runs,
            end: (part * runs + runs).min(overlap.num_runs()),
        }),
    );
}

/// Items for the chunks of one piece. Which of them nothing is wanted of is seen only when it is their
/// turn.
fn plan_chunks(items: &mut Vec<Item>, piece: u32, chunks: &ChunkCrcs) {
    let end = chunks.first + chunks.crcs.len() as u64;
    let each = (ITEM as u64 / CHUNK_SIZE).max(chunks.crcs.len() as u64 / MOST_ITEMS);
    let mut first = chunks.first;
    while first < end {
        let next = (first + each).min(end);
        items.push(Item::Chunks {
            piece,
            first,
            end: next,
        });
        first = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::DataExtent;
    use crate::device::DeviceSpan;
    use crate::io::read::ReadFile;
    use crate::memory::DestSpan;
    use std::sync::Arc;

    const KIB: u64 = 1 << 10;

    /// Where a tensor goes: a GPU, or the host.
    type Place = Option<i32>;

    /// Checked tensors of these sizes that follow each other in one file, planned with buffers of 256 KiB
    /// and slots of 4 MiB.
    fn planned<'m>(memory: &'m mut [u8], tensors: &[(Place, u64)]) -> ReadPlan<'m> {
        let file = Arc::new(ReadFile::open(&std::env::current_exe().unwrap()).unwrap());
        let host = DestSpan::from(memory);
        let mut offset = 0;
        let pieces = (0..).zip(tensors).map(|(tensor, &(place, size))| {
            let len = usize::try_from(size).unwrap();
            let target = match place {
                Some(device) => Target::Upload(DeviceSpan::nowhere(1 << 40, len, device)),
                None => Target::Direct(host.get(0, len).unwrap()),
            };
            let extent = DataExtent {
                offset,
                size,
                ..DataExtent::default()
            };
            offset += size;
            Piece {
                tensor,
                swap: 1,
                check: true,
                file: file.clone(),
                extent,
                target,
            }
        });
        plan(pieces.collect(), 256 << 10, 4 << 20, false)
    }

    /// The tensors of each item.
    fn tensors(plan: &ReadPlan<'_>) -> Vec<Vec<u32>> {
        let pieces = |item: &Item| match *item {
            Item::Group { first, end } => first..end,
            Item::Direct { piece, .. } | Item::Block { piece, .. } => piece..piece + 1,
            _ => 0..0,
        };
        let items = plan.items.iter().map(pieces);
        let tensor = |piece: u32| plan.pieces[piece as usize].tensor;
        items.map(|pieces| pieces.map(tensor).collect()).collect()
    }

    /// The tensors of the items in the order in which one thread comes to them.
    fn in_turn(plan: &mut ReadPlan<'_>) -> Vec<Vec<u32>> {
        let turns = plan.put_side_by_side();
        let items = tensors(plan);
        let numbers = 0..items.len();
        numbers
            .map(|number| items[turns.take(number).item].clone())
            .collect()
    }

    #[test]
    fn what_goes_to_several_places_takes_turns_and_stays_in_file_order_within_each() {
        let mut memory = vec![0; 4 << 20];
        let size = 4 * KIB * KIB;
        let devices = [
            Some(1),
            Some(1),
            Some(1),
            None,
            None,
            Some(0),
            Some(0),
            Some(1),
        ];
        let all = devices.map(|place| (place, size));
        let mut plan = planned(&mut memory, &all);
        // The host, device 0, device 1, and so on.
        assert_eq!(
            in_turn(&mut plan).concat(),
            [3, 5, 0, 4, 6, 1, 2, 7],
            "{:?}",
            tensors(&plan)
        );
    }

    /// How many tensors each item has.
    fn group_sizes(place: Place, num: usize, size: u64) -> Vec<usize> {
        let mut memory = vec![0; 2 << 20];
        let plan = planned(&mut memory, &vec![(place, size); num]);
        tensors(&plan).iter().map(Vec::len).collect()
    }

    #[test]
    fn tensors_on_the_way_to_a_gpu_share_slots_unless_they_are_large() {
        let of_gpu = |num, size| group_sizes(Some(0), num, size);
        assert_eq!(of_gpu(20, 64 * KIB), [16, 4]);
        assert_eq!(of_gpu(3, 1024 * KIB), [1, 1, 1]);
        // With very many bytes there are items enough for the threads, and larger ones.
        assert_eq!(of_gpu(256, 1024 * KIB), [4; 64]);
        assert_eq!(of_gpu(5, 1024 * KIB + 1), [1; 5]);
        // The host's are read straight to where they go.
        assert_eq!(group_sizes(None, 20, 64 * KIB), [1; 20]);
        assert_eq!(group_sizes(None, 20, 63 * KIB), [4; 5]);
    }

    #[test]
    fn what_goes_to_one_place_stays_as_it_is() {
        let mut memory = vec![0; 4 << 20];
        for place in [None, Some(0)] {
            let all = [5, 300, 2, 2, 4096].map(|kib| (place, kib * KIB));
            let mut plan = planned(&mut memory, &all);
            let before = tensors(&plan);
            assert_eq!(in_turn(&mut plan), before);
        }
    }
}
