//! The V1 checkpoint format: one table per file, which holds names and data.
//!
//! ```text
//! ""                      SavedTensorSlices { meta }   names, shapes, dtypes and slices
//! slice key               SavedTensorSlices { data }   the values of one slice, as a TensorProto
//! ```
//!
//! [`V1Reader`] opens the files of a checkpoint and lends the values of a slice piece by piece,
//! [`Plan`] writes a file equal, byte for byte, to TensorFlow's. Neither holds a record. Sources:
//! `tensorflow/core/util/tensor_slice_reader.cc`, `tensor_slice_writer.cc`.

#![forbid(unsafe_code)]

mod meta;
mod reader;
mod tensor_proto;
#[cfg(test)]
mod tests;
mod wire;
mod writer;

pub use meta::Tensor;
pub use reader::{Records, V1Reader};
pub use tensor_proto::{Sink, is_supported};
pub use writer::{Plan, TensorToWrite, Values};
