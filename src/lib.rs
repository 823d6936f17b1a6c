//! Saves and restores TensorFlow checkpoints without TensorFlow.
//!
//! ```
//! use std::path::Path;
//! use tfckpt::{Call, Context, ContextOptions, DType, Reader, RestoreData, RestoreOptions};
//! use tfckpt::{RestoreTensor, SaveData, SaveOptions, SaveTensor, Shape};
//!
//! # fn main() -> tfckpt::Result<()> {
//! # let dir = std::env::temp_dir().join(format!("tfckpt-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir).ok();
//! let context = Context::new(ContextOptions::default())?;
//! let weights: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
//! let tensors = [SaveTensor {
//!     key: b"dense/bias",
//!     dtype: DType::Float,
//!     shape: Shape::new([3])?,
//!     slice_spec: "",
//!     device_name: "",
//!     data: SaveData::Bytes(weights.as_slice().into()),
//! }];
//! let options = SaveOptions { global_step: Some(7), ..SaveOptions::default() };
//! let prefix = tfckpt::save(&dir.join("model.ckpt"), &tensors, &options, &mut Call::new(&context))?;
//!
//! let mut restored = [0u8; 12];
//! let mut tensors = [RestoreTensor {
//!     key: b"dense/bias",
//!     dtype: DType::Float,
//!     shape: Shape::new([3])?,
//!     slice_spec: "",
//!     device_name: "",
//!     data: RestoreData::Bytes(restored.as_mut_slice().into()),
//! }];
//! let reader = Reader::open(&prefix)?;
//! let options = RestoreOptions::default();
//! reader.restore(&mut tensors, &options, &mut Call::new(&context))?.into_result()?;
//! assert_eq!(restored, weights.as_slice());
//! # std::fs::remove_dir_all(&dir).ok();
//! # Ok(())
//! # }
//! ```
//!
//! The C header `include/tfckpt.h` offers the same to other languages.

#![deny(missing_docs)]

pub(crate) mod bundle;
#[doc(hidden)]
pub mod capi;
pub(crate) mod checkpoint;
pub(crate) mod checksum;
pub(crate) mod coding;
#[doc(hidden)]
pub mod device;
pub(crate) mod dtype;
pub(crate) mod error;
pub(crate) mod io;
pub(crate) mod memory;
pub(crate) mod meta_graph;
pub(crate) mod naming;
pub(crate) mod object_graph;
pub(crate) mod proto;
pub(crate) mod saver;
pub(crate) mod shape;
pub(crate) mod slices;
pub(crate) mod state;
pub(crate) mod table;
pub(crate) mod transfer;
pub(crate) mod v1;

pub use bundle::StringTensor;
pub use checkpoint::{
    Entries, Format, Job, JobEndFn, JobOptions, JobProgressFn, Latest, LatestOptions, MergeOptions,
    Reader, RemoveOptions, RestoreData, RestoreFrom, RestoreOptions, RestoreOutcome, RestoreTensor,
    SaveData, SaveOptions, SaveTensor, Snapshot, StringSpans, TensorInfo, UpdateOptions, Verify,
    View, ViewOptions, checkpoint_exists, get_checkpoint_mtimes, latest_checkpoint, merge,
    remove_checkpoint, restore_async, save, save_async, save_shard, update_checkpoint_state,
};
pub use device::DeviceSpan;
pub use dtype::DType;
pub use error::{Code, Error, Result};
pub use memory::{Buffer, DestSpan, SourceSpan};
pub use meta_graph::SaverDef;
pub use object_graph::{NameMismatch, ObjectGraph, ObjectTensor};
pub use saver::{SaveValue, Saveable, Saver, SaverOptions, SaverSaveOptions, Variable};
pub use shape::Shape;
pub use state::{CheckpointState, get_checkpoint_state};
pub use transfer::{Call, Context, ContextOptions, Progress, ProgressFn, Stats, Update};
