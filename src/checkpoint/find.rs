//! Whether there is a checkpoint at a prefix, and whether it is complete.

use std::path::Path;

use super::layout::Layout;
use super::open::Opened;
use super::v1_files::{Sharded, v1_files};
use super::{open, previous};
use crate::error::{Code, Error, Result};
use crate::io::dir::look;
use crate::naming;
use crate::v1::V1Reader;

/// TensorFlow's test, on the literal name: an index, or a V1 file or pattern of V1 shards. A folder
/// counts only if it opens, and a prefix without an index if an interrupted save left a copy of the
/// checkpoint before it.
///
/// # Errors
///
/// The system's errors, PERMISSION_DENIED above all, when the question cannot be answered.
pub fn exists(prefix: &Path) -> Result<bool> {
    if prefix.as_os_str().is_empty() {
        return Ok(false);
    }
    let found = previous::find_steadily(prefix, || {
        let found = exists_now(prefix)?;
        Ok(found.then_some(()))
    });
    Ok(found?.is_some())
}

fn exists_now(prefix: &Path) -> Result<bool> {
    if look(&naming::index_file(prefix))?.is_some() {
        return Ok(true);
    }
    match look(prefix)? {
        Some(metadata) if metadata.is_dir() => {
            let variables = prefix.join("variables").join("variables");
            Ok(look(&naming::index_file(&variables))?.is_some())
        }
        _ if !v1_files(prefix)?.is_empty() => Ok(true),
        _ => {
            let layout = Layout::v2(&super::v2_data_files);
            Ok(previous::newest_complete(prefix, &layout)?.is_some()
                || super::v1_files::newest_previous(prefix)?.is_some())
        }
    }
}

/// Checks that the checkpoint at `prefix` opens and that every data file reaches the end of its
/// entries. Contents are not read.
///
/// # Errors
///
/// DATA_LOSS saying what is missing or damaged; errors that keep the question from being answered.
pub fn check_complete(prefix: &Path) -> Result<()> {
    let incomplete = |error: Error| match error.code() {
        Code::NotFound | Code::OutOfRange | Code::FailedPrecondition | Code::Internal => {
            error.with_code(Code::DataLoss)
        }
        _ => error,
    };
    let reader = match open::open(prefix).map_err(incomplete)? {
        Opened::V2(reader) => reader,
        // Its tables and their first records have been read.
        Opened::V1(reader) => return all_shards(prefix, &reader),
    };
    let named = reader.furthest_extents().map_err(incomplete)?;
    for extent in named {
        reader.locate(&extent).map_err(incomplete)?;
    }
    Ok(())
}

/// Whether every shard of a pattern was there.
fn all_shards(prefix: &Path, reader: &V1Reader) -> Result<()> {
    let Some(sharded) = Sharded::of(prefix) else {
        return Ok(());
    };
    let (have, want) = (reader.num_shards(), sharded.num_shards() as usize);
    if have == want {
        return Ok(());
    }
    Err(Error::data_loss(format!(
        "files of a sharded checkpoint are missing; have={have} of={want}"
    ))
    .with_file(prefix))
}
