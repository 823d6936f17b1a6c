//! Raw memory as values that threads can hand around: [`DestSpan`] is filled by a restore,
//! [`SourceSpan`] is read by a save, [`ChunkBuffer`] is the library's own.
//!
//! A caller's memory is never seen as `&[u8]` or `&mut [u8]`: a destination is uninitialised until
//! it is filled, and a source may be changed by a training step while it is copied. Both are
//! therefore addresses with checked offsets, and every access is a raw copy made here.

mod buffer;
mod dest;
mod huge;
#[cfg(test)]
mod kept;
mod prefetch;
mod source;

pub use buffer::{ChunkBuffer, zeroed};
pub use dest::{DestSpan, Filled};
pub use huge::Buffer;
#[cfg(test)]
pub use kept::keep;
pub use prefetch::prefetch;
pub use source::SourceSpan;
