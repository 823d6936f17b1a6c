//! What a save writes where, and how it is cut; see [`write`](super::write).

use std::sync::atomic::{AtomicU32, Ordering};

use super::ITEM;
use crate::bundle::{DataExtent, StringsToSave};
use crate::checksum::Shift;
use crate::device::DeviceSpan;
use crate::error::{Error, Result};
use crate::memory::SourceSpan;

/// A tensor to be written, and the shard it goes to.
#[derive(Debug)]
pub struct WriteTensor<'a> {
    /// Number of the data file.
    pub shard_id: u32,
    /// Its elements.
    pub source: Source<'a>,
}

/// The elements of a tensor to be written.
#[derive(Debug)]
pub enum Source<'a> {
    /// As they are in memory, row-major.
    Bytes(SourceSpan<'a>),
    /// As they are in a GPU's memory, row-major.
    Device(DeviceSpan<'a>),
    /// Strings, to be encoded.
    Strings(StringsToSave<'a>),
}

impl Source<'_> {
    /// Bytes in the data file.
    pub fn size(&self) -> u64 {
        match self {
            Source::Bytes(span) => span.len() as u64,
            Source::Device(span) => span.len() as u64,
            Source::Strings(strings) => strings.encoded_size(),
        }
    }
}

/// The place of every tensor, before a byte is written.
#[derive(Debug)]
pub struct Layout {
    /// Offset and size of each tensor in its data file.
    pub places: Vec<(u64, u64)>,
    /// Size of each data file.
    pub shard_sizes: Vec<u64>,
}

impl Layout {
    /// Places tensors one after the other, each file filled up with zeros to a multiple of
    /// `alignment` (a power of two; 1 packs, as TensorFlow does) behind every tensor.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT when a data file would grow beyond `i64`.
    pub fn new(tensors: &[WriteTensor<'_>], alignment: u64) -> Result<Self> {
        let mut shard_sizes: Vec<u64> = Vec::new();
        let mut places = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let shard = usize::try_from(tensor.shard_id).unwrap_or(usize::MAX);
            if shard >= shard_sizes.len() {
                shard_sizes.resize(shard.saturating_add(1), 0);
            }
            let Some(end) = shard_sizes.get_mut(shard) else {
                continue;
            };
            let size = tensor.source.size();
            places.push((*end, size));
            let grown = end
                .checked_add(size)
                .and_then(|end| end.checked_next_multiple_of(alignment));
            *end = grown
                .filter(|&end| end <= i64::MAX.unsigned_abs())
                .ok_or_else(|| Error::invalid_argument("a data file would exceed 2^63 bytes"))?;
        }
        Ok(Self {
            places,
            shard_sizes,
        })
    }

    /// The extent of tensor `index`, given its shard and checksum.
    pub fn extent(&self, index: usize, shard_id: u32, crc32c: u32) -> DataExtent {
        let (offset, size) = self.place(index);
        DataExtent {
            shard_id,
            offset,
            size,
            crc32c,
        }
    }

    /// Offset and size of tensor `index`.
    pub fn place(&self, index: usize) -> (u64, u64) {
        self.places.get(index).copied().unwrap_or_default()
    }
}

/// A save's bytes in the order of their place: by shard, then by offset.
pub struct WritePlan {
    /// Pieces of tensors, of which none crosses a multiple of [`chunk`](Self::chunk) in its data file,
    /// but for tensors of strings, which are one part each.
    pub parts: Vec<Part>,
    /// What the threads take turns in.
    pub items: Vec<Item>,
    /// Bytes of a data file that are copied and written together; a power of two.
    pub chunk: u64,
}

/// Part of a tensor, summed by itself.
pub struct Part {
    pub tensor: u32,
    /// Checksum of its bytes, once known.
    pub crc: AtomicU32,
    /// First byte inside the tensor.
    pub start: u64,
    pub len: u64,
}

/// Neighbouring parts in one shard, written in order.
pub struct Item {
    pub shard_id: u32,
    /// Which one of its shard it is.
    number: u32,
    /// Where in the data file it begins; its first part may follow after zeros.
    pub offset: u64,
    pub parts: std::ops::Range<usize>,
}

/// How a save is cut.
pub struct Cut {
    /// See [`WritePlan::chunk`].
    pub chunk: u64,
    /// About how many bytes an item has.
    pub item: u64,
    /// Parts end at multiples of this inside their tensor, so that checksums of such ranges are known;
    /// 0 = wherever a chunk ends.
    pub check: u64,
}

/// Cuts every shard into items of whole chunks; a tensor of strings, whose bytes exist only once they are
/// encoded, is an item of its own.
pub fn plan(tensors: &[WriteTensor<'_>], layout: &Layout, cut: &Cut) -> WritePlan {
    let chunk = cut.chunk;
    let item_len = cut.item.clamp(chunk, chunk.max(ITEM as u64));
    let item_len = item_len.next_multiple_of(chunk);
    let mut order: Vec<u32> = (0..u32::try_from(tensors.len()).unwrap_or(u32::MAX)).collect();
    // Stable, so that the order of the call is the order in each shard.
    order.sort_by_key(|&index| tensors.get(index as usize).map(|tensor| tensor.shard_id));
    let mut parts = Vec::with_capacity(tensors.len());
    let mut items: Vec<Item> = Vec::new();
    // Where the last part of the shard ends, and whether the last item takes more of it.
    let (mut end, mut is_open) = (0, false);
    for tensor in order {
        let Some(WriteTensor { shard_id, source }) = tensors.get(tensor as usize) else {
            continue;
        };
        let shard_id = *shard_id;
        let (place, size) = layout.place(tensor as usize);
        let last = items.last().filter(|last| last.shard_id == shard_id);
        if last.is_none() {
            (end, is_open) = (0, false);
        }
        let divisible = !matches!(source, Source::Strings(_));
        let mut start = 0;
        loop {
            let offset = place + start;
            let last = items.last().filter(|last| last.shard_id == shard_id);
            let joins = |last: &Item| last.offset / item_len == offset / item_len;
            if !(divisible && is_open && last.is_some_and(joins)) {
                items.push(Item {
                    shard_id,
                    number: last.map_or(0, |last| last.number + 1),
                    // With the zeros before it, so that the chunk is aligned.
                    offset: match divisible {
                        true => end.max(offset - offset % chunk),
                        false => offset,
                    },
                    parts: parts.len()..parts.len(),
                });
            }
            let mut len = size - start;
            if divisible {
                len = len.min(chunk - offset % chunk);
                if cut.check != 0 {
                    len = len.min(cut.check - start % cut.check);
                }
            }
            parts.push(Part {
                tensor,
                start,
                len,
                crc: AtomicU32::new(0),
            });
            if let Some(last) = items.last_mut() {
                last.parts.end = parts.len();
            }
            (end, is_open) = (offset + len, divisible);
            start += len;
            if start >= size {
                break;
            }
        }
    }
    // Each shard's first come first, then each one's second, and so on: writes to one file wait for each
    // other in the system, writes to several do not.
    items.sort_by_key(|item| (item.number, item.shard_id));
    WritePlan {
        parts,
        items,
        chunk,
    }
}

impl WritePlan {
    /// The checksum of every tensor from those of its parts.
    pub fn combine(&self, num_tensors: usize) -> Vec<u32> {
        let mut crcs = vec![0; num_tensors];
        // Most parts of a large tensor have the same length.
        let mut shift = CachedShift::default();
        for part in &self.parts {
            let Some(crc) = crcs.get_mut(part.tensor as usize) else {
                continue;
            };
            let part_crc = part.crc.load(Ordering::Relaxed);
            *crc = match part.start {
                0 => part_crc,
                _ => shift.append(*crc, part_crc, part.len),
            };
        }
        crcs
    }

    /// The checksums of the ranges of `check` bytes that parts end at, of every tensor that has more than
    /// one, in the order of the plan.
    pub fn range_sums(&self, check: u64) -> Vec<RangeSums> {
        let mut sums: Vec<RangeSums> = Vec::new();
        let mut shift = CachedShift::default();
        for parts in self.parts.chunk_by(|a, b| a.tensor == b.tensor) {
            let size = parts.last().map_or(0, |last| last.start + last.len);
            // One part alone is small, or is of strings.
            if size <= check || parts.len() < 2 {
                continue;
            }
            let mut crcs: Vec<u32> = Vec::new();
            for part in parts {
                let crc = part.crc.load(Ordering::Relaxed);
                match crcs.last_mut() {
                    Some(last) if !part.start.is_multiple_of(check) => {
                        *last = shift.append(*last, crc, part.len);
                    }
                    _ => crcs.push(crc),
                }
            }
            sums.extend(parts.first().map(|first| RangeSums {
                tensor: first.tensor,
                crcs,
            }));
        }
        sums
    }
}

/// Checksums of the ranges of a tensor.
#[derive(Debug)]
pub struct RangeSums {
    /// Index of the tensor.
    pub tensor: u32,
    /// Of each range in order, unmasked; the last one may be shorter.
    pub crcs: Vec<u32>,
}

/// The shift that was needed last.
#[derive(Default)]
struct CachedShift(Option<(u64, Shift)>);

impl CachedShift {
    fn append(&mut self, crc_a: u32, crc_b: u32, len_b: u64) -> u32 {
        let shift = match self.0 {
            Some((len, shift)) if len == len_b => shift,
            _ => {
                let shift = Shift::new(len_b);
                self.0 = Some((len_b, shift));
                shift
            }
        };
        shift.append(crc_a, crc_b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tensors of these sizes in shard 0, of the first bytes of `memory`.
    fn tensors<'m>(memory: &'m [u8], sizes: &[usize]) -> Vec<WriteTensor<'m>> {
        let tensor = |&size: &usize| WriteTensor {
            shard_id: 0,
            source: Source::Bytes(SourceSpan::from(&memory[..size])),
        };
        sizes.iter().map(tensor).collect()
    }

    /// Tensor, start and length of a part.
    type PartTuple = (u32, u64, u64);

    /// Tensors of these sizes in shard 0, cut into chunks of 16 bytes and items of 32.
    fn cut(sizes: &[usize], alignment: u64, check: u64) -> Vec<(u64, Vec<PartTuple>)> {
        let memory = vec![0; 4096];
        let tensors = tensors(&memory, sizes);
        let layout = Layout::new(&tensors, alignment).unwrap();
        let cut = Cut {
            chunk: 16,
            item: 32,
            check,
        };
        let plan = plan(&tensors, &layout, &cut);
        let part = |part: &Part| (part.tensor, part.start, part.len);
        plan.items
            .iter()
            .map(|item| {
                let parts = &plan.parts[item.parts.clone()];
                (item.offset, parts.iter().map(part).collect())
            })
            .collect()
    }

    #[test]
    fn no_part_crosses_a_chunk_and_no_item_another() {
        assert_eq!(
            cut(&[5, 40, 0, 3], 1, 0),
            [
                (0, vec![(0, 0, 5), (1, 0, 11), (1, 11, 16)]),
                (32, vec![(1, 27, 13), (2, 0, 0), (3, 0, 3)]),
            ]
        );
    }

    #[test]
    fn parts_end_where_a_range_of_the_tensor_is_summed() {
        assert_eq!(
            cut(&[5, 20], 1, 8),
            [(
                0,
                vec![(0, 0, 5), (1, 0, 8), (1, 8, 3), (1, 11, 5), (1, 16, 4)]
            )]
        );
    }

    #[test]
    fn an_item_begins_at_a_chunk_unless_bytes_are_before_it() {
        // Of the gap between 5 and 64 only the last chunk is touched, from its beginning.
        assert_eq!(
            cut(&[5, 8], 64, 0),
            [(0, vec![(0, 0, 5)]), (64, vec![(1, 0, 8)])]
        );
        assert_eq!(cut(&[5, 8], 8, 0), [(0, vec![(0, 0, 5), (1, 0, 8)])]);
    }

    #[test]
    fn checksums_of_ranges_and_tensors_come_from_those_of_parts() {
        let memory: Vec<u8> = (0..100).collect();
        let sizes = [5, 50, 8];
        let tensors = tensors(&memory, &sizes);
        let layout = Layout::new(&tensors, 1).unwrap();
        let cut = Cut {
            chunk: 16,
            item: 32,
            check: 20,
        };
        let plan = plan(&tensors, &layout, &cut);
        for part in &plan.parts {
            let start = usize::try_from(part.start).unwrap();
            let len = usize::try_from(part.len).unwrap();
            let crc = crate::checksum::crc32c(&memory[start..start + len]);
            part.crc.store(crc, Ordering::Relaxed);
        }
        let of = |start: usize, end: usize| ::crc32c::crc32c(&memory[start..end]);
        assert_eq!(plan.combine(3), sizes.map(|size| of(0, size)));
        let sums = plan.range_sums(20);
        assert_eq!(sums.len(), 1);
        assert_eq!(sums[0].tensor, 1);
        assert_eq!(sums[0].crcs, [of(0, 20), of(20, 40), of(40, 50)]);
    }
}
