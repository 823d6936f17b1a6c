//! The `checkpoint` state file: which checkpoints a directory holds, and which one is the latest.
//!
//! A save writes it last, after the index of the checkpoint is published; a restore that asks for
//! the latest checkpoint reads it first. It is the protobuf message `tensorflow.CheckpointState` in
//! protobuf's text format, one field per line:
//!
//! ```text
//! model_checkpoint_path: "m-3"
//! all_model_checkpoint_paths: "m-2"
//! all_model_checkpoint_paths: "m-3"
//! all_model_checkpoint_timestamps: 1700000000.123456
//! all_model_checkpoint_timestamps: 1700000600.0
//! last_preserved_timestamp: 1700000000.5
//! ```
//!
//! This module makes and reads those bytes and decides which path strings they hold. Putting them
//! on disk in one step is the task of `io`.

#![forbid(unsafe_code)]

mod checkpoint_state;
mod double;
mod escape;
mod file;
mod meta_name;
pub mod paths;
mod stored;
mod text_format;

pub use checkpoint_state::CheckpointState;
pub use file::{MAX_SIZE, check_latest_filename, conflict, get_checkpoint_state, read, state_file};
pub use meta_name::meta_graph_filename;
pub use stored::stored_state;
