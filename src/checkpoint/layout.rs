//! Which files make up a checkpoint: one whose appearance publishes it, and those that it names.
//!
//! | Format       | commit file       | data files             |
//! |--------------|-------------------|------------------------|
//! | V2           | `P.index`         | `P.data-SSSSS-of-NNNNN`|
//! | V1           | `P`               | none                   |
//! | V1, N shards | `P-00000-of-NNNNN`| `P-SSSSS-of-NNNNN`     |
//!
//! Beside a V2 checkpoint there may be a sidecar, `P.crc32c`, which makes no difference to what the
//! checkpoint is: it comes and goes with the data files, but no checkpoint lacks it.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::v1_files;
use crate::error::{Code, Result};
use crate::io::dir;
use crate::naming;

/// A data file that a commit file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// What follows the prefix in its name, such as `.data-00000-of-00001`.
    pub suffix: String,
    /// Where its last entry ends, in bytes; a shorter file is incomplete.
    pub min_size: u64,
}

/// Reads the commit file at a path and says which data files it names.
///
/// An error that says that the file is damaged makes the checkpoint an incomplete one; any other,
/// such as PERMISSION_DENIED, stops the save before it changes anything.
pub type DataFiles<'a> = dyn Fn(&Path) -> Result<Vec<DataFile>> + 'a;

/// The names of one format, and how its commit file is read.
#[derive(Clone, Copy)]
pub struct Layout<'a> {
    /// What follows the prefix in the name of the commit file.
    pub commit: &'a str,
    /// What follows the prefix in the names of all data files; empty if there are none.
    pub data: &'a str,
    /// What follows the prefix in the path by which the checkpoint is restored.
    pub tail: &'a str,
    /// Reads a commit file.
    pub data_files: &'a DataFiles<'a>,
}

/// What follows the prefix in the name of an index.
const V2_COMMIT: &str = ".index";

impl<'a> Layout<'a> {
    /// The layout of a V2 checkpoint.
    pub fn v2(data_files: &'a DataFiles<'a>) -> Self {
        Self {
            commit: V2_COMMIT,
            data: ".data-",
            tail: "",
            data_files,
        }
    }

    /// The layout of a V1 checkpoint of one file.
    pub fn v1(data_files: &'a DataFiles<'a>) -> Self {
        Self {
            commit: "",
            data: "",
            tail: "",
            data_files,
        }
    }

    /// The commit file of `prefix`.
    pub fn commit_file(&self, prefix: &Path) -> PathBuf {
        naming::append(prefix, self.commit)
    }

    /// Whether a file of this format may have a name that ends in `suffix` after the prefix.
    pub fn owns(&self, suffix: &[u8]) -> bool {
        suffix == self.commit.as_bytes()
            || (!self.data.is_empty() && suffix.starts_with(self.data.as_bytes()))
    }

    /// The sidecar of `prefix`, if the format has one and it is there, sound or not.
    ///
    /// # Errors
    ///
    /// As [`sidecar`].
    pub fn sidecar(&self, prefix: &Path) -> Result<Option<PathBuf>> {
        match self.commit {
            V2_COMMIT => sidecar(prefix),
            _ => Ok(None),
        }
    }

    /// The data files of the complete checkpoint at `prefix`; `None` if it is not there, damaged,
    /// or a data file is missing or too short. A data file that `prefix` lacks may be that of
    /// `substitute`.
    ///
    /// # Errors
    ///
    /// Whatever keeps the question from being answered.
    pub fn complete(
        &self,
        prefix: &Path,
        substitute: Option<&Path>,
    ) -> Result<Option<Vec<DataFile>>> {
        let commit = self.commit_file(prefix);
        if dir::look(&commit)?.is_none() {
            return Ok(None);
        }
        let data = match (self.data_files)(&commit) {
            Ok(data) => data,
            Err(error) if is_damage(error.code()) => return Ok(None),
            Err(error) => return Err(error),
        };
        for file in &data {
            let own = size(&naming::append(prefix, &file.suffix))?;
            let size = match (own, substitute) {
                (None, Some(other)) => size(&naming::append(other, &file.suffix))?,
                (own, _) => own,
            };
            if size.is_none_or(|size| size < file.min_size) {
                return Ok(None);
            }
        }
        Ok(Some(data))
    }
}

/// The file at the name of the sidecar of the V2 checkpoint `prefix`, if it may be one. A folder is none,
/// nor is a V1 checkpoint: those have any name.
///
/// # Errors
///
/// The system's error.
pub fn sidecar(prefix: &Path) -> Result<Option<PathBuf>> {
    let path = naming::sidecar_file(prefix);
    match dir::look(&path)? {
        Some(metadata) if !metadata.is_dir() && v1_files::whole_file(&path).is_err() => {
            Ok(Some(path))
        }
        _ => Ok(None),
    }
}

/// Whether an error from reading a file says that the file is no good, rather than that it could
/// not be read this time.
fn is_damage(code: Code) -> bool {
    matches!(
        code,
        Code::DataLoss
            | Code::OutOfRange
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::Unimplemented
    )
}

/// Size in bytes of the regular file at `path`; `None` if there is none.
fn size(path: &Path) -> Result<Option<u64>> {
    match crate::io::read::stat(path) {
        Ok((size, _)) => Ok(Some(size)),
        Err(error) if is_damage(error.code()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last component of `prefix`, which may be empty.
pub fn base_name(prefix: &Path) -> &OsStr {
    let bytes = prefix.as_os_str().as_bytes();
    OsStr::from_bytes(
        bytes
            .rsplit(|&byte| byte == b'/')
            .next()
            .unwrap_or_default(),
    )
}

/// The folder in which the files of `prefix` are.
pub fn folder(prefix: &Path) -> PathBuf {
    // Asked of a file, because a prefix may end in a slash.
    naming::directory(&naming::index_file(prefix))
}
