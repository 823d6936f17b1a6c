//! Hands bytes that were read to their destination.

use super::piece::{Dest, Piece, Target};
use crate::error::{Error, Result};
use crate::memory::DestSpan;

/// Hands `bytes`, which begin at `start` in the piece, to their destination. Returns how many of them
/// have one.
pub fn deliver(piece: &Piece<'_>, bytes: &[u8], start: u64) -> Result<u64> {
    let swap = usize::from(piece.swap);
    let scatter = match &piece.target {
        Target::Discard => return Ok(0),
        Target::Direct(dest) => return copy(*dest, start, bytes, swap),
        Target::Upload(_) => return Err(not_here()),
        Target::Scatter(scatter) => scatter,
    };
    let dest = match scatter.dest {
        Some(Dest::Host(dest)) => dest,
        Some(Dest::Device(_)) => return Err(not_here()),
        None => return Ok(0),
    };
    let mut delivered = 0;
    for (range, at) in scatter.parts(start..start + bytes.len() as u64) {
        let part = bytes.get(to_usize(range.start - start)?..to_usize(range.end - start)?);
        delivered += copy(dest, at, part.unwrap_or_default(), swap)?;
    }
    Ok(delivered)
}

/// A GPU's memory is filled by its own way; see [`upload`](super::upload).
fn not_here() -> Error {
    Error::internal("a GPU's memory is not the host's to write to")
}

fn copy(dest: DestSpan<'_>, at: u64, bytes: &[u8], swap: usize) -> Result<u64> {
    dest.copy_from(to_usize(at)?, bytes, swap)
        .map(|()| bytes.len() as u64)
        .ok_or_else(|| Error::internal("a copy leaves its destination"))
}

/// Smallest pieces, on the average, that the system puts where they belong. Below, a copy costs less
/// than the system's work for each.
const STRAIGHT: u64 = 1 << 10;

/// Where the bytes of neighbouring pieces go, if all of them have a place in memory: they can be read
/// there at once. Without the copy from a buffer, 20,000 pieces of 4 KiB were read in 11.4 ms instead of
/// 18.9 ms (EPYC Zen 5, 2 threads, memory busy).
pub fn straight<'a>(pieces: &[Piece<'a>]) -> Option<Vec<DestSpan<'a>>> {
    let (first, last) = (pieces.first()?, pieces.last()?);
    let size = last.extent.offset.checked_sub(first.extent.offset)?;
    if pieces.len() == 1 || size / (pieces.len() as u64) < STRAIGHT {
        return None;
    }
    let mut dests = Vec::with_capacity(pieces.len());
    let mut end = first.extent.offset;
    for piece in pieces {
        match &piece.target {
            Target::Direct(dest) if piece.extent.offset == end => dests.push(*dest),
            _ => return None,
        }
        end += piece.extent.size;
    }
    Some(dests)
}

/// The `len` bytes of `dest` from `at`.
pub fn span_at(dest: DestSpan<'_>, at: u64, len: u64) -> Result<DestSpan<'_>> {
    dest.get(to_usize(at)?, to_usize(len)?)
        .ok_or_else(|| Error::internal("a read leaves its destination"))
}

/// A size or offset in memory.
pub fn to_usize(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::internal("a size exceeds the address space"))
}
