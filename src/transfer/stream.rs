//! Data that one thread goes through from front to back, because only its beginning says what
//! follows: strings and variants.

use std::cell::RefCell;

use super::{CHUNK, Call};
use crate::error::Result;
use crate::io::range::Tick;
use crate::memory::ChunkBuffer;

/// Least bytes of a buffer, whatever there is to read.
const SMALLEST: usize = 64;

/// Runs `read` on `size` bytes with two buffers within the budget and a tick that counts bytes,
/// reports progress and ends the reading when the call is cancelled.
///
/// # Errors
///
/// Those of `read`; no memory for the buffers; CANCELLED.
pub fn run<T>(
    call: &mut Call<'_>,
    size: u64,
    read: impl FnOnce([&mut ChunkBuffer; 2], &Tick<'_>) -> Result<T>,
) -> Result<T> {
    let admission = call.admit(1, 2 * CHUNK)?;
    // Many tensors of strings are tiny.
    let most = usize::try_from(size).unwrap_or(usize::MAX).max(SMALLEST);
    let capacity = (admission.buffer / 2).min(most);
    let mut first = ChunkBuffer::new(capacity)?;
    let mut second = ChunkBuffer::new(capacity)?;
    let call = RefCell::new(call);
    read([&mut first, &mut second], &|bytes| {
        let mut call = call.borrow_mut();
        call.stats.bytes_io += bytes;
        call.stats.num_io += 1;
        call.progress.advance(bytes, 0)
    })
}
