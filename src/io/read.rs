//! Files opened for reading.

#![forbid(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{cleaned, raw};
use crate::error::{Error, Result};
use crate::memory::{DestSpan, Filled};

/// A regular file that is read at any position, from any number of threads.
///
/// Its size is taken once, when it is opened, and bounds every read: nothing is allocated or read on
/// the word of a number that a file contains.
#[derive(Debug)]
pub struct ReadFile {
    file: File,
    path: PathBuf,
    stamp: Stamp,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl ReadFile {
    /// Opens `path`.
    ///
    /// # Errors
    ///
    /// The system's error; FAILED_PRECONDITION for a folder, INVALID_ARGUMENT for anything else that
    /// is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(cleaned(path))
            .map_err(|error| Error::io(&error, path))?;
        let metadata = file.metadata().map_err(|error| Error::io(&error, path))?;
        if metadata.is_dir() {
            return Err(Error::io(&io::Error::from_raw_os_error(libc::EISDIR), path));
        }
        if !metadata.is_file() {
            return Err(Error::invalid_argument("not a regular file").with_file(path));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            stamp: Stamp::of(&metadata),
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }

    /// The open file itself, for a mapping.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether its path still names this very file.
    pub fn is_current(&self) -> bool {
        std::fs::metadata(cleaned(&self.path)).is_ok_and(|now| Stamp::of(&now) == self.stamp)
    }

    /// Fills `dest` with the bytes from `offset`.
    ///
    /// # Errors
    ///
    /// OUT_OF_RANGE, with TensorFlow's text, when the file does not reach that far.
    pub fn read_at<'a>(&self, offset: u64, dest: DestSpan<'a>) -> Result<Filled<'a>> {
        let end = offset.checked_add(dest.len() as u64);
        if end.is_none_or(|end| end > self.size()) {
            return Err(self.short(offset));
        }
        raw::read_exact_at(&self.file, offset, dest)
            .map_err(|error| Error::io(&error, &self.path).with_offset(offset))?
            .ok_or_else(|| self.short(offset))
    }

    fn short(&self, offset: u64) -> Error {
        Error::out_of_range("Read less bytes than requested")
            .with_file(&self.path)
            .with_offset(offset)
    }

    /// The `len` bytes from `offset`.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at); nothing is allocated for a range beyond the file.
    pub fn read_vec(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let fits = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.size());
        let len = usize::try_from(len)
            .ok()
            .filter(|_| fits)
            .ok_or_else(|| self.short(offset))?;
        raw::read_vec(&self.file, offset, len)
            .map_err(|error| Error::io(&error, &self.path).with_offset(offset))?
            .ok_or_else(|| self.short(offset))
    }
}

/// Size in bytes and time of last change of the regular file at `path`.
///
/// # Errors
///
/// As [`ReadFile::open`].
pub fn stat(path: &Path) -> Result<(u64, SystemTime)> {
    let metadata = std::fs::metadata(cleaned(path)).map_err(|error| Error::io(&error, path))?;
    let modified = metadata
        .modified()
        .map_err(|error| Error::io(&error, path))?;
    Ok((metadata.size(), modified))
}
