//! The V2 checkpoint format, TensorFlow's "tensor bundle".
//!
//! ```text
//! PREFIX.index                 an SSTable: "" -> BundleHeaderProto, key -> BundleEntryProto
//! PREFIX.data-SSSSS-of-NNNNN   the tensors' bytes, one file per shard, in the order of the save
//! PREFIX.crc32c                ours, on request: checksums of parts of large entries
//! ```
//!
//! [`BundleReader`] opens an index and its data files and hands out validated entries;
//! [`BundleWriter`] collects entries and writes an index equal, byte for byte, to TensorFlow's;
//! [`BundleMerge`] makes such an index of several.
//! Neither moves tensor data. Source: `tensorflow/core/util/tensor_bundle/tensor_bundle.cc`.

#![forbid(unsafe_code)]

mod data_files;
mod entry;
mod header;
mod listing;
mod merge;
mod reader;
pub mod sidecar;
mod strings;
mod strings_read;
mod variant;
mod wire;
mod writer;

pub use entry::{DataExtent, Entry, KeyText, Stored};
pub use listing::Listing;
pub use merge::{BundleMerge, PartFile};
pub use reader::{BundleReader, Lookup, SidecarFound};
pub use strings::{StringTensor, StringsToSave};
pub use strings_read::{Lengths, StoredStrings, WantedStrings};
pub use variant::verify as verify_variant;
pub use writer::{BundleWriter, Described};
