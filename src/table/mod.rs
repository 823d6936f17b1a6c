//! The sorted-string table: a file of ascending keys and their values, both any bytes.
//!
//! The `.index` file of a V2 checkpoint is one, and so is every file of a V1 checkpoint. TensorFlow
//! took the container from leveldb and left out filters and statistics.
//!
//! ```text
//! table:  data block ...  metaindex block  index block  footer
//! block:  entries  restart array  | trailer
//! ```
//!
//! Data blocks hold the entries. The index block has one entry per data block: a separator, not
//! less than any key of the block and less than every key after it, and the block's handle. The
//! metaindex block is always empty. [`format`](self::format) describes handles, trailer and footer,
//! [`block_builder`] the inside of a block.
//!
//! This module knows bytes, not tensors. [`TableBuilder`] writes what TensorFlow writes, byte for
//! byte; [`TableReader`] reads that and Snappy-compressed blocks, and trusts nothing.

#![forbid(unsafe_code)]

mod block;
mod block_builder;
mod builder;
mod cursor;
mod format;
mod index;
mod iter;
mod peek;
mod reader;
#[cfg(test)]
mod tests;
mod values;

pub use builder::TableBuilder;
pub use cursor::Cursor;
pub use iter::Iter;
pub use reader::TableReader;
pub use values::{Tick, Value, Values};
