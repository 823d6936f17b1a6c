//! From a prefix to an open checkpoint of either format, and what to say when there is none.

use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::previous;
use super::v1_files::{self, v1_files};
use crate::bundle::BundleReader;
use crate::error::{Code, Error, Result};
use crate::io;
use crate::io::dir::look;
use crate::io::read::ReadFile;
use crate::naming;
use crate::v1::V1Reader;

/// An open checkpoint, as its files are found.
#[derive(Debug)]
pub enum Opened {
    /// An index and data files.
    V2(Box<BundleReader>),
    /// One file, or one per shard.
    V1(V1Reader),
}

/// Opens the checkpoint at `prefix`, taken literally.
///
/// A `.prev` that is asked for by name takes data files that it lacks from the original. A prefix without an index falls back to the copy that an interrupted overwriting save left of the
/// checkpoint before it. A folder opens if it is a SavedModel's, with the variables in it.
///
/// # Errors
///
/// NOT_FOUND, DATA_LOSS and UNIMPLEMENTED with TensorFlow's texts where it has them; INVALID_ARGUMENT
/// when the path is that of a file of a checkpoint.
pub fn open(prefix: &Path) -> Result<Opened> {
    if prefix.as_os_str().is_empty() {
        return Err(Error::invalid_argument("the prefix is empty"));
    }
    match previous::find_steadily(prefix, || open_literal(prefix))? {
        Some(reader) => Ok(reader),
        None => open_folder(prefix),
    }
}

/// Opens what is at `prefix`, V2 before V1 as TensorFlow does, or else its newest `.prev`; `None` if
/// neither is there.
fn open_literal(prefix: &Path) -> Result<Option<Opened>> {
    match BundleReader::open(prefix, previous::original(prefix)) {
        Err(error) if is_missing_index(&error, prefix) => {}
        opened => return opened.map(Box::new).map(Opened::V2).map(Some),
    }
    if let Some(opened) = open_v1(prefix)? {
        return Ok(Some(Opened::V1(opened)));
    }
    let layout = Layout::v2(&super::v2_data_files);
    let Some(previous) = previous::newest_complete(prefix, &layout)? else {
        return Ok(None);
    };
    match BundleReader::open(&previous, Some(prefix)) {
        // It went when a save was complete.
        Err(error) if error.code() == Code::NotFound => Ok(None),
        opened => opened.map(Box::new).map(Opened::V2).map(Some),
    }
}

/// Opens the V1 files at `prefix`, or those that a save which was overwriting them has kept.
fn open_v1(prefix: &Path) -> Result<Option<V1Reader>> {
    let mut files = v1_files(prefix)?;
    if !v1_files::has_commit_file(prefix, &files)
        && let Some(kept) = v1_files::newest_previous(prefix)?
    {
        files = v1_files(&kept)?;
    }
    if files.is_empty() {
        return Ok(None);
    }
    match V1Reader::open(prefix, &files) {
        Ok(reader) => Ok(Some(reader)),
        // It went meanwhile.
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(_) if without_suffix(prefix).is_some() => Err(explain(prefix)),
        Err(error) => Err(error),
    }
}

/// Opens the variables of a SavedModel's folder.
fn open_folder(prefix: &Path) -> Result<Opened> {
    let variables = prefix.join("variables").join("variables");
    if io::exists(&naming::index_file(&variables)) {
        return BundleReader::open(&variables, None)
            .map(Box::new)
            .map(Opened::V2);
    }
    Err(explain(prefix))
}

/// Whether the error says that there is no index, rather than that it cannot be read.
fn is_missing_index(error: &Error, prefix: &Path) -> bool {
    let index = naming::index_file(prefix);
    match error.code() {
        Code::NotFound => error.file() == Some(&index),
        // A file where the prefix has a folder.
        Code::FailedPrecondition => !io::exists(&index),
        // A V1 file's name may leave no room for the suffix.
        Code::InvalidArgument => matches!(look(&index), Ok(None)) && !io::exists(&index),
        _ => false,
    }
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
    match ReadFile::open(prefix) {
        Err(error) if error.code() != Code::NotFound => {
            unusable(format!("{}: {}", error.code(), error.message()))
        }
        _ => Error::not_found(format!(
            "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for {shown}"
        ))
        .with_file(prefix),
    }
}

/// The prefix that a path of one of a checkpoint's files belongs to.
fn without_suffix(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name
        .strip_suffix(".index")
        .or_else(|| name.strip_suffix(".meta"))
        .or_else(|| name.strip_suffix(naming::SIDECAR))
        .or_else(|| {
            let (stem, shards) = name.rsplit_once(".data-")?;
            let (shard, num) = shards.split_once("-of-")?;
            let digits =
                |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            (digits(shard) && digits(num)).then_some(stem)
        })?;
    Some(path.with_file_name(stem))
}
