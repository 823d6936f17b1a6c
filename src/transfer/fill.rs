//! Copies tensors into the chunks of a data file.
//!
//! Copying and [draining](super::write) a chunk are separate, so that a save may copy all tensors first and
//! write them later.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::download::Download;
use super::write_plan::{Item, Layout, Part, Source, WritePlan, WriteTensor};
use crate::error::{Error, Result};
use crate::memory::{ChunkBuffer, SourceSpan};

/// What a filled buffer holds.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Number of the data file.
    pub shard_id: u32,
    /// Where in the data file its bytes go.
    pub offset: u64,
    /// The parts whose checksums are still to be computed; all of them are in the buffer.
    pub parts: Range<usize>,
    /// Bytes of tensors in it, without zeros between them.
    pub moved: u64,
    /// Tensors whose last bytes are in it.
    pub tensors: u64,
}

/// Takes a filled buffer; leaves an empty one in its place.
pub type Emit<'e> = dyn FnMut(&mut ChunkBuffer, Chunk) -> Result<()> + 'e;

/// Copies the parts of an item into `buffer`, which is at least as large as the plan's chunks, and emits
/// it chunk by chunk. What is a GPU's comes by way of `download`.
///
/// # Errors
///
/// Those of `emit`.
pub fn fill(
    plan: &WritePlan,
    item: &Item,
    tensors: &[WriteTensor<'_>],
    layout: &Layout,
    download: &mut Download<'_, '_>,
    buffer: &mut ChunkBuffer,
    emit: &mut Emit<'_>,
) -> Result<()> {
    buffer.clear();
    let first = item.parts.start;
    let mut chunk = Chunk {
        shard_id: item.shard_id,
        offset: item.offset,
        parts: first..first,
        moved: 0,
        tensors: 0,
    };
    for number in item.parts.clone() {
        let Some(part) = plan.parts.get(number) else {
            continue;
        };
        let index = part.tensor as usize;
        let Some(tensor) = tensors.get(index) else {
            continue;
        };
        let place = |error: Error| error.with_tensor_index(index);
        let (offset, size) = layout.place(index);
        let offset = offset + part.start;
        if offset / plan.chunk != chunk.offset / plan.chunk {
            // Zeros that fill up a whole chunk are left as a hole.
            next(buffer, &mut chunk, offset - offset % plan.chunk, emit)?;
        }
        match &tensor.source {
            Source::Strings(strings) => {
                chunk.parts.end = number + 1;
                let crc = strings.encode(buffer, &mut |buffer| {
                    let encoded = buffer.filled().len() as u64;
                    let after = chunk.offset + encoded;
                    // The checksum comes with the encoding.
                    chunk.parts.start = chunk.parts.end;
                    chunk.moved = encoded;
                    chunk.tensors = u64::from(after == offset + size);
                    next(buffer, &mut chunk, after, emit)
                });
                part.crc.store(crc.map_err(place)?, Ordering::Relaxed);
            }
            Source::Bytes(_) | Source::Device(_) => {
                let gap = offset - chunk.offset - buffer.filled().len() as u64;
                buffer.append_zeros(usize::try_from(gap).unwrap_or(usize::MAX));
                match &tensor.source {
                    Source::Bytes(span) => copy(span, part, buffer),
                    _ => download.append(number, part, buffer),
                }
                .map_err(place)?;
                chunk.parts.end = number + 1;
                chunk.moved += part.len;
                chunk.tensors += u64::from(part.start + part.len == size);
            }
        }
    }
    let end = chunk.offset + buffer.filled().len() as u64;
    next(buffer, &mut chunk, end, emit)
}

/// Emits what there is of `chunk`, and begins the next one at `offset`.
fn next(
    buffer: &mut ChunkBuffer,
    chunk: &mut Chunk,
    offset: u64,
    emit: &mut Emit<'_>,
) -> Result<()> {
    let end = chunk.parts.end;
    let begun = Chunk {
        offset,
        parts: end..end,
        moved: 0,
        tensors: 0,
        ..*chunk
    };
    emit(buffer, std::mem::replace(chunk, begun))
}

fn copy(span: &SourceSpan<'_>, part: &Part, buffer: &mut ChunkBuffer) -> Result<()> {
    let start = usize::try_from(part.start).ok();
    let copied = start
        .zip(usize::try_from(part.len).ok())
        .and_then(|(start, len)| buffer.append(span, start, len));
    copied
        .map(|_| ())
        .ok_or_else(|| Error::internal("a chunk outgrew its buffer"))
}
