//! Saves and restores TensorFlow checkpoints without TensorFlow.

#![deny(missing_docs)]

pub(crate) mod checkpoint;
pub(crate) mod checksum;
pub(crate) mod coding;
pub(crate) mod dtype;
pub(crate) mod error;
pub(crate) mod io;
pub(crate) mod memory;
pub(crate) mod naming;
pub(crate) mod proto;
pub(crate) mod shape;
pub(crate) mod slices;
pub(crate) mod state;
pub(crate) mod table;

pub use dtype::DType;
pub use error::{Code, Error, Result};
pub use shape::Shape;
