//! From a prefix to an open bundle, and what to say when there is none.

use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::previous;
use crate::bundle::BundleReader;
use crate::error::{Code, Error, Result};
use crate::io;
use crate::io::read::ReadFile;
use crate::naming;

/// Opens the checkpoint at `prefix`, taken literally.
///
/// A `.prev` that is asked for by name takes data files that it lacks from the original. A prefix without an index falls back to the copy that an interrupted overwriting save left of the
/// checkpoint before it. A folder opens if it is a SavedModel's, with the variables in it.
///
/// # Errors
///
/// NOT_FOUND, DATA_LOSS and UNIMPLEMENTED with TensorFlow's texts where it has them; INVALID_ARGUMENT
/// when the path is that of a file of a checkpoint.
pub fn open(prefix: &Path) -> Result<BundleReader> {
    if prefix.as_os_str().is_empty() {
        return Err(Error::invalid_argument("the prefix is empty"));
    }
    match previous::find_steadily(prefix, || open_literal(prefix))? {
        Some(reader) => Ok(reader),
        None => open_folder(prefix),
    }
}

/// Opens the index of `prefix` or, without one, its newest `.prev`; `None` if neither is there.
fn open_literal(prefix: &Path) -> Result<Option<BundleReader>> {
    match BundleReader::open(prefix, previous::original(prefix)) {
        Err(error) if is_missing_index(&error, prefix) => {}
        opened => return opened.map(Some),
    }
    let layout = Layout::v2(&super::v2_data_files);
    let Some(previous) = previous::newest_complete(prefix, &layout)? else {
        return Ok(None);
    };
    match BundleReader::open(&previous, Some(prefix)) {
        // It went when a save was complete.
        Err(error) if error.code() == Code::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Opens the variables of a SavedModel's folder.
fn open_folder(prefix: &Path) -> Result<BundleReader> {
    let variables = prefix.join("variables").join("variables");
    if io::exists(&naming::index_file(&variables)) {
        return BundleReader::open(&variables, None);
    }
    Err(explain(prefix))
}

/// Whether the error says that there is no index, rather than that it cannot be read.
fn is_missing_index(error: &Error, prefix: &Path) -> bool {
    error.code() == Code::NotFound && error.file() == Some(&naming::index_file(prefix))
        // A file where the prefix has a folder.
        || error.code() == Code::FailedPrecondition && !io::exists(&naming::index_file(prefix))
}

/// Why there is no checkpoint at `prefix`.
fn explain(prefix: &Path) -> Error {
    let shown = prefix.display();
    if let Some(stem) = without_suffix(prefix).filter(|_| io::exists(prefix)) {
        return Error::invalid_argument(format!(
            "{shown} is a file of a checkpoint, not its prefix; prefix={}",
            stem.display()
        ))
        .with_file(prefix);
    }
    let unusable = |reason: String| {
        Error::data_loss(format!(
            "Unable to open table file {shown}: {reason}: perhaps your file is in a different file \
             format and you need to use a different restore operator?"
        ))
        .with_file(prefix)
    };
    match ReadFile::open(prefix).and_then(|file| has_table_magic(&file)) {
        Ok(true) => Error::unimplemented("checkpoints of format V1 cannot be read yet").with_file(prefix),
        Ok(false) => unusable("DATA_LOSS: not an sstable (bad magic number)".to_owned()),
        Err(error) if error.code() == Code::NotFound => Error::not_found(format!(
            "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for {shown}"
        ))
        .with_file(prefix),
        Err(error) if error.code() == Code::OutOfRange => {
            unusable("DATA_LOSS: file is too short to be an sstable".to_owned())
        }
        Err(error) => unusable(format!("{}: {}", error.code(), error.message())),
    }
}

fn has_table_magic(file: &ReadFile) -> Result<bool> {
    const MAGIC: [u8; 8] = [0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb];
    let end = file.read_vec(file.size().saturating_sub(8), 8)?;
    Ok(end == MAGIC)
}

/// The prefix that a path of one of a checkpoint's files belongs to.
fn without_suffix(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name
        .strip_suffix(".index")
        .or_else(|| name.strip_suffix(".meta"))
        .or_else(|| {
            let (stem, shards) = name.rsplit_once(".data-")?;
            let (shard, num) = shards.split_once("-of-")?;
            let digits =
                |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            (digits(shard) && digits(num)).then_some(stem)
        })?;
    Some(path.with_file_name(stem))
}
