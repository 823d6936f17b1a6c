//! Slices of partitioned tensors: their texts and keys, what a set of them covers, and which bytes
//! two of them share.

#![forbid(unsafe_code)]

mod disjoint;
pub mod key;
mod overlap;
pub mod proto;
mod slice;
mod slice_set;
mod spec;

pub use overlap::Overlap;
pub use slice::TensorSlice;
pub use slice_set::SliceSet;
pub use spec::ShapeAndSlice;
