//! Files opened for reading.

#![forbid(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use super::direct::{self, BLOCK};
use super::{cleaned, raw};
use crate::error::{Error, Result};
use crate::memory::{ChunkBuffer, DestSpan, Filled};

/// A regular file that is read at any position, from any number of threads.
///
/// Its size is taken once, when it is opened, and bounds every read: nothing is allocated or read on
/// the word of a number that a file contains.
#[derive(Debug)]
pub struct ReadFile {
    file: File,
    path: PathBuf,
    stamp: Stamp,
    /// The file once more, for reads past the page cache; `None` once it is known that there are none.
    direct: OnceLock<Option<File>>,
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
            direct: OnceLock::new(),
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

    /// The number of the mounted file system that it is on.
    pub fn device(&self) -> u64 {
        self.stamp.device
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

    /// Fills `dests`, one after the other, with the bytes from `offset`.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at).
    pub fn read_all_at<'a>(&self, offset: u64, dests: &[DestSpan<'a>]) -> Result<Vec<Filled<'a>>> {
        let end = dests
            .iter()
            .try_fold(offset, |end, dest| end.checked_add(dest.len() as u64));
        if end.is_none_or(|end| end > self.size()) {
            return Err(self.short(offset));
        }
        raw::read_all_at(&self.file, offset, dests)
            .map_err(|error| Error::io(&error, &self.path).with_offset(offset))?
            .ok_or_else(|| self.short(offset))
    }

    /// Whether the `len` bytes from `offset` are in the page cache; also where the system does not say.
    pub fn is_cached(&self, offset: u64, len: u64) -> bool {
        len == 0 || raw::is_cached(&self.file, offset, len)
    }

    /// The `len` bytes from `offset`, read past the page cache into `buffer`, which has room for them and
    /// for two [blocks](BLOCK) more. `None` where that is not possible.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at).
    pub fn read_past_cache<'b>(
        &self,
        offset: u64,
        len: usize,
        buffer: &'b mut ChunkBuffer,
    ) -> Result<Option<&'b [u8]>> {
        let reopened = || direct::reopen(&self.file, false);
        let Some(direct) = self.direct.get_or_init(reopened) else {
            return Ok(None);
        };
        let block = BLOCK as u64;
        let start = offset - offset % block;
        let (Ok(before), Some(end)) = (
            usize::try_from(offset - start),
            offset
                .checked_add(len as u64)
                .filter(|&end| end <= self.size()),
        ) else {
            return Err(self.short(offset));
        };
        let whole = usize::try_from(end.next_multiple_of(block) - start);
        let whole = whole.map_err(|_| self.short(offset))?;
        let mut refused = false;
        // At the end of the file there is less than the last block.
        let filled = buffer.fill(whole, |span| {
            match raw::read_at_least(direct, start, span, before + len) {
                Ok(Some(filled)) => Ok(filled),
                Ok(None) => Err(self.short(offset)),
                Err(error) => {
                    // The file system said that it could, or the disk has larger blocks.
                    refused = error.raw_os_error() == Some(libc::EINVAL);
                    Err(Error::io(&error, &self.path).with_offset(offset))
                }
            }
        });
        match filled {
            Ok(bytes) => bytes
                .get(before..before + len)
                .map(Some)
                .ok_or_else(|| self.short(offset)),
            Err(_) if refused => Ok(None),
            Err(error) => Err(error),
        }
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
        let mut bytes = Vec::new();
        self.append_to(offset, len, &mut bytes)?;
        Ok(bytes)
    }

    /// Appends the `len` bytes from `offset` to `bytes`, which are as before after an error.
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at); nothing is allocated for a range beyond the file.
    pub fn append_to(&self, offset: u64, len: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let fits = offset
            .checked_add(len)
            .is_some_and(|end| end <= self.size());
        let len = usize::try_from(len)
            .ok()
            .filter(|_| fits)
            .ok_or_else(|| self.short(offset))?;
        raw::append_from(&self.file, offset, len, bytes)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn reads_past_the_cache_give_any_range_and_nothing_beyond_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let content: Vec<u8> = (0..=250).cycle().take(3 * BLOCK + 5).collect();
        std::fs::write(&path, &content).unwrap();
        let file = ReadFile::open(&path).unwrap();
        let mut buffer = ChunkBuffer::new(6 * BLOCK).unwrap();
        for offset in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7, 3 * BLOCK + 4] {
            for len in [0, 1, 5, BLOCK, 2 * BLOCK, 3 * BLOCK + 5] {
                let read = file.read_past_cache(offset as u64, len, &mut buffer);
                match (read, content.get(offset..offset + len)) {
                    (Ok(Some(bytes)), Some(expected)) => assert_eq!(bytes, expected),
                    (Err(error), None) => assert_eq!(error.code(), Code::OutOfRange),
                    // A file system without such reads.
                    (Ok(None), _) => {}
                    (other, _) => panic!("{offset} {len}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_was_just_written_is_in_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [7; 100]).unwrap();
        assert!(ReadFile::open(&path).unwrap().is_cached(0, 100));
    }

    #[test]
    fn any_number_of_ranges_is_filled_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = ReadFile::open(&path).unwrap();
        for (num, size) in [(1, 9), (3, 0), (1024, 7), (2500, 3)] {
            let mut memory = vec![0u8; num * (size + 1)];
            let dests: Vec<DestSpan<'_>> = memory
                .chunks_mut(size + 1)
                .map(|chunk| DestSpan::from(&mut chunk[..size]))
                .collect();
            let filled = file.read_all_at(11, &dests).unwrap();
            assert_eq!(filled.len(), num);
            for (i, chunk) in memory.chunks(size + 1).enumerate() {
                assert_eq!(chunk[..size], bytes[11 + i * size..][..size]);
                assert_eq!(chunk[size], 0);
            }
        }
    }

    #[test]
    fn ranges_beyond_the_end_are_refused_also_if_the_file_was_cut_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [7; 100]).unwrap();
        let file = ReadFile::open(&path).unwrap();
        let mut memory = [[0u8; 30]; 3];
        let dests = memory.each_mut().map(|part| DestSpan::from(&mut part[..]));
        assert!(file.read_all_at(10, &dests).is_ok());
        for offset in [11, u64::MAX] {
            let error = file.read_all_at(offset, &dests).unwrap_err();
            assert_eq!(error.code(), Code::OutOfRange);
        }
        for len in [50, 0] {
            std::fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(len)
                .unwrap();
            let error = file.read_all_at(10, &dests).unwrap_err();
            assert_eq!(error.code(), Code::OutOfRange);
        }
    }
}
