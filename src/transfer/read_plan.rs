//! What a restore reads in which order, and how it is cut into items; see [`read`](super::read).

use std::sync::atomic::{AtomicU32, AtomicUsize};

use super::ITEM;
use super::read::{Piece, Target};
use crate::slices::Overlap;

/// Pieces smaller than this are read together with their neighbours: below it the system call costs
/// more than the additional copy.
const SMALL: u64 = 64 << 10;

/// Bytes between two pieces that are read and thrown away rather than read around.
const GAP: u64 = 4 << 10;

/// Pieces in file order, and the items they are read by.
pub struct ReadPlan<'a> {
    /// Sorted by shard and offset.
    pub pieces: Vec<Piece<'a>>,
    /// For each piece of several items, the checksums of its parts.
    pub parts: Vec<Option<Parts>>,
    /// What the threads take turns in.
    pub items: Vec<Item>,
}

/// The checksums of the parts of a piece, combined when the last one is known.
pub struct Parts {
    /// Bytes of each part but the last.
    pub len: u64,
    /// Parts whose checksum is not known yet.
    pub missing: AtomicUsize,
    /// Checksum of each part.
    pub crcs: Vec<AtomicU32>,
}

/// A piece of work for one thread. Pieces are given by their place in the plan; starts and lengths in
/// bytes.
pub enum Item {
    /// `len` bytes from `start` of a piece, straight to their destination.
    Direct { piece: usize, start: u64, len: u64 },
    /// As `Direct`, into a slice's memory at `dest`; never checked.
    DirectRun {
        piece: usize,
        start: u64,
        len: u64,
        dest: u64,
    },
    /// `len` bytes from `start` of a piece, through a buffer.
    Block { piece: usize, start: u64, len: u64 },
    /// The pieces of this range, whole, through a buffer.
    Group { first: usize, end: usize },
    /// The runs of this range of a piece, through a buffer; never checked.
    Runs { piece: usize, first: u64, end: u64 },
}

/// Sorts the pieces and cuts them into items; `buffer` is what a thread's buffer holds.
pub fn plan(mut pieces: Vec<Piece<'_>>, buffer: usize) -> ReadPlan<'_> {
    let buffer = buffer as u64;
    pieces.sort_by_key(|piece| (piece.extent.shard_id, piece.extent.offset));
    let mut items = Vec::new();
    let mut parts: Vec<Option<Parts>> = Vec::with_capacity(pieces.len());
    let mut group: Option<(usize, &Piece<'_>)> = None;
    for (index, piece) in pieces.iter().enumerate() {
        let mut piece_parts = None;
        let size = piece.extent.size;
        let scattered = match &piece.target {
            Target::Scatter {
                overlap,
                element_size,
                ..
            } if !piece.check => Some((overlap, *element_size)),
            _ => None,
        };
        let small = scattered.is_none() && size < SMALL.min(buffer + 1);
        if let Some((first, start)) = group {
            let joins = small
                && piece.extent.shard_id == start.extent.shard_id
                && pieces.get(index.wrapping_sub(1)).is_some_and(|last| {
                    piece.extent.offset <= last.extent.offset + last.extent.size + GAP
                })
                && piece.extent.offset + size - start.extent.offset <= buffer;
            if joins {
                parts.push(None);
                continue;
            }
            items.push(Item::Group { first, end: index });
            group = None;
        }
        if small {
            group = Some((index, piece));
        } else if let Some((overlap, element_size)) = scattered {
            plan_runs(&mut items, index, overlap, element_size as u64, buffer);
        } else {
            let direct = matches!(piece.target, Target::Direct(_));
            // Through a buffer, an item is what fits into it.
            let len = if direct {
                ITEM as u64
            } else {
                block_len(size, buffer)
            };
            let starts = || (0..size.div_ceil(len)).map(|part| part * len);
            if piece.check {
                let crcs: Vec<AtomicU32> = starts().map(|_| AtomicU32::new(0)).collect();
                piece_parts = Some(Parts {
                    len,
                    missing: AtomicUsize::new(crcs.len()),
                    crcs,
                });
            }
            items.extend(starts().map(|start| {
                let len = len.min(size - start);
                if direct {
                    Item::Direct {
                        piece: index,
                        start,
                        len,
                    }
                } else {
                    Item::Block {
                        piece: index,
                        start,
                        len,
                    }
                }
            }));
        }
        parts.push(piece_parts);
    }
    if let Some((first, _)) = group {
        items.push(Item::Group {
            first,
            end: pieces.len(),
        });
    }
    ReadPlan {
        pieces,
        parts,
        items,
    }
}

/// How many items each tensor takes part in; a group counts once for each of its pieces.
pub fn items_per_tensor(plan: &ReadPlan<'_>, num_tensors: usize) -> Vec<AtomicU32> {
    let mut counts: Vec<AtomicU32> = std::iter::repeat_with(AtomicU32::default)
        .take(num_tensors)
        .collect();
    let mut count = |piece: usize| {
        let tensor = plan.pieces.get(piece).map(|piece| piece.tensor);
        if let Some(count) = tensor.and_then(|tensor| counts.get_mut(tensor)) {
            *count.get_mut() += 1;
        }
    };
    for item in &plan.items {
        match *item {
            Item::Group { first, end } => (first..end).for_each(&mut count),
            Item::Direct { piece, .. }
            | Item::DirectRun { piece, .. }
            | Item::Block { piece, .. }
            | Item::Runs { piece, .. } => count(piece),
        }
    }
    counts
}

/// Bytes of a piece that one item reads through a buffer: what fits into it, or a multiple when a file
/// says that the piece is enormous, so that the number of items stays within reason.
fn block_len(size: u64, buffer: u64) -> u64 {
    const MOST_ITEMS: u64 = 1 << 14;
    buffer.saturating_mul(size.div_ceil(buffer.saturating_mul(MOST_ITEMS)).max(1))
}

/// Items for the runs of one piece: long runs go straight to the destination, short neighbours share a
/// read.
fn plan_runs(
    items: &mut Vec<Item>,
    piece: usize,
    overlap: &Overlap,
    element_size: u64,
    buffer: u64,
) {
    let mut number = 0;
    while number < overlap.num_runs() {
        let first = overlap.run(number);
        let bytes = first.len * element_size;
        if bytes >= SMALL.min(buffer) {
            let (start, dest) = (first.source * element_size, first.dest * element_size);
            items.extend((0..bytes.div_ceil(ITEM as u64)).map(|part| {
                let done = part * ITEM as u64;
                let len = (ITEM as u64).min(bytes - done);
                Item::DirectRun {
                    piece,
                    start: start + done,
                    len,
                    dest: dest + done,
                }
            }));
            number += 1;
            continue;
        }
        let mut end = number + 1;
        let mut last = first;
        while end < overlap.num_runs() {
            let next = overlap.run(end);
            let fits = (next.source + next.len - first.source) * element_size <= buffer;
            if !fits || (next.source - last.source - last.len) * element_size > GAP {
                break;
            }
            last = next;
            end += 1;
        }
        items.push(Item::Runs {
            piece,
            first: number,
            end,
        });
        number = end;
    }
}
