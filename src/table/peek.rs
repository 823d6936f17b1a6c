//! A look at one entry of a block whose checksum was found right before.
//!
//! A block has 256 KiB, and reading and summing all of it for one key took 16 to 40 us, depending on what
//! the processor's cache held. The restart points lead to the sixteen entries among which the key is,
//! which takes a dozen small reads.

#![forbid(unsafe_code)]

use super::block::{Block, Bounds, Position, entry_header};
use super::format::{BlockHandle, Contents, Entries};
use crate::coding::get_fixed32;
use crate::io::read::ReadFile;

/// Bytes that are read at a restart point: most keys end before.
const HEAD: u64 = 128;

/// Most bytes from one restart point to the next.
const MAX_STRETCH: u64 = 64 << 10;

/// The value of `key` in the uncompressed block at `handle`. `None` if it is not there, or if there is
/// anything wrong: reading all of the block tells what.
pub fn value(
    file: &ReadFile,
    handle: BlockHandle,
    bounds: Option<Bounds<'_>>,
    key: &[u8],
) -> Option<Vec<u8>> {
    let Entries { start, end } = Entries::locate(file, handle).ok()?;
    let array_end = handle.offset.checked_add(handle.size)?.checked_sub(4)?;
    let restarts = file.read_vec(end, array_end.checked_sub(end)?).ok()?;
    let restart = |index: usize| {
        let (offset, _) = get_fixed32(restarts.get(index.checked_mul(4)?..)?)?;
        let at = start.checked_add(offset.into())?;
        (at < end).then_some(at)
    };
    // Restart points before `low` are not greater than the key, those from `high` on are.
    let (mut low, mut high) = (0, restarts.len() / 4);
    while low < high {
        let middle = low + (high - low) / 2;
        if restart_key(file, restart(middle)?, end)?.as_slice() <= key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let from = restart(low.checked_sub(1)?)?;
    let size = restart(low).unwrap_or(end).checked_sub(from)?;
    if size > MAX_STRETCH {
        return None;
    }
    let mut bytes = file.read_vec(from, size).ok()?;
    // A block of its own, with one restart point, at 0.
    bytes.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    let stretch = Block::new(Contents {
        bytes,
        offset: from,
        compressed: false,
    });
    let stretch = stretch.ok()?;
    stretch.validate(bounds).ok()?;
    let mut position = Position::default();
    let found = position.find(&stretch, key).ok()?;
    found.then(|| position.value(&stretch).to_vec())
}

/// The whole key of the entry at `at`, a restart point.
fn restart_key(file: &ReadFile, at: u64, end: u64) -> Option<Vec<u8>> {
    let mut head = file.read_vec(at, HEAD.min(end.checked_sub(at)?)).ok()?;
    let ([shared, len, _], rest) = entry_header(&head)?;
    let header = head.len() - rest.len();
    let key_end = header.checked_add(len)?;
    if shared != 0 || key_end as u64 > end - at {
        return None;
    }
    if key_end > head.len() {
        head = file.read_vec(at, key_end as u64).ok()?;
    }
    head.get(header..key_end).map(<[u8]>::to_vec)
}
