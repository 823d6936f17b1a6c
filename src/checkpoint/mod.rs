//! Checkpoints as a whole: the files of a prefix, and the state file that names them.

#![forbid(unsafe_code)]

mod coverage;
mod debug_string;
mod device_name;
mod find;
mod job;
#[cfg(test)]
mod job_tests;
mod latest;
mod layout;
mod manage;
mod measure;
mod merge;
#[cfg(test)]
mod merge_tests;
mod object_graph;
mod open;
mod previous;
mod publish;
#[cfg(test)]
mod publish_tests;
mod reader;
mod redirect;
mod refused;
mod restore;
mod restore_job;
mod restore_plan;
mod restore_rounds;
mod restore_strings;
mod restore_v1;
mod restore_v2;
mod save;
mod save_job;
mod save_v1;
mod shard;
mod sidecar;
mod tensor;
mod update;
mod v1_files;
mod v1_sinks;
mod verify;
mod verify_sidecar;
mod verify_v1;
mod view;

pub use device_name::canonical as canonical_device;
pub(crate) use job::{Done, JobState};
pub use job::{Job, JobEndFn, JobOptions, JobProgressFn};
pub use latest::{Latest, LatestOptions, latest_checkpoint};
pub use manage::{
    Format, RemoveOptions, UpdateOptions, checkpoint_exists, get_checkpoint_mtimes,
    remove_checkpoint, update_checkpoint_state,
};
pub use merge::{MergeOptions, merge};
pub use reader::{Entries, Reader, TensorInfo};
pub use restore::{RestoreOptions, RestoreOutcome, Verify};
pub use restore_job::{RestoreFrom, restore_async};
pub use save::{Request as SaveRequest, SaveOptions, StateFile, save};
pub use save_job::{Snapshot, save_async};
pub use save_v1::no_sidecar;
pub use shard::save_shard;
pub use tensor::{RestoreData, RestoreTensor, SaveData, SaveTensor, StringSpans};
pub use view::{View, ViewOptions};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use self::layout::DataFile;
use crate::bundle::BundleReader;
use crate::error::{Error, Result};
use crate::naming;

/// The data files that a V2 index names, for [`publish`].
fn v2_data_files(index: &Path) -> Result<Vec<DataFile>> {
    let prefix = index.as_os_str().as_encoded_bytes().strip_suffix(b".index");
    let prefix = prefix.ok_or_else(|| Error::internal("not an index file"))?;
    let prefix = PathBuf::from(OsStr::from_bytes(prefix));
    let reader = BundleReader::open(&prefix, None)?;
    let name = |shard_id| naming::data_file(Path::new(""), shard_id, reader.num_shards());
    let files = reader
        .furthest_extents()?
        .into_iter()
        .map(|extent| DataFile {
            suffix: name(extent.shard_id).display().to_string(),
            min_size: extent.offset + extent.size,
        });
    Ok(files.collect())
}
