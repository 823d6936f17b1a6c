//! Names and folders: link, rename, remove, and the order in which they reach the disk.
//!
//! A change of a name is seen by other processes at once, but after a power cut two changes that no
//! [`sync_dir`] separates may be found done in any combination. Whoever needs an order puts a
//! `sync_dir` between them.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Op, cleaned, perform};
use crate::error::{Code, Error, Result};
use crate::naming;

/// How long a lock of a folder is waited for. Its holder renames files and syncs the folder, which
/// takes seconds at most; beyond that it hangs, or a child that it forked kept the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// How often a taken lock is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Gives the file `from` the second name `to`, which must be free. Of a symbolic link, the link
/// itself gets the name.
///
/// Returns `false`, and has done nothing, where the file system cannot do that, or not for this
/// file.
///
/// # Errors
///
/// The system's error; ALREADY_EXISTS if `to` is taken.
pub fn link(from: &Path, to: &Path) -> Result<bool> {
    let result = perform(Op::Link { from, to }, || {
        std::fs::hard_link(cleaned(from), cleaned(to))
    });
    match result {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM | libc::ENOTSUP | libc::ENOSYS | libc::EMLINK | libc::EXDEV) => {
                Ok(false)
            }
            _ => Err(Error::io(&error, to)),
        },
    }
}

/// Renames `from` to `to`, replacing what is there, in one step.
///
/// If both are names of one file already, POSIX makes this do nothing: `from` then stays.
///
/// # Errors
///
/// The system's error, naming `to`.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    perform(Op::Rename { from, to }, || {
        std::fs::rename(cleaned(from), cleaned(to))
    })
    .map_err(|error| Error::io(&error, to))
}

/// Removes the file at `path`; `false` if there is none.
///
/// # Errors
///
/// The system's error.
pub fn remove(path: &Path) -> Result<bool> {
    match perform(Op::Remove(path), || std::fs::remove_file(cleaned(path))) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(&error, path)),
    }
}

/// Makes the folder of `prefix`, one level at most and with mode 0755 less the umask, as TensorFlow
/// does; `false` if there is something of that name already. With `sync`, it is on disk afterwards.
///
/// # Errors
///
/// The system's error naming the folder: NOT_FOUND if the level above is missing too.
pub fn create_parent(prefix: &Path, sync: bool) -> Result<bool> {
    let dir = folder(prefix);
    let made = perform(Op::CreateDir(&dir), || {
        DirBuilder::new().mode(0o755).create(&dir)
    });
    match made {
        Ok(()) => {
            if sync {
                sync_dir(&naming::directory(&dir))?;
            }
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io(&error, &dir)),
    }
}

/// Removes the folder that [`create_parent`] made, if there is nothing in it.
pub fn remove_parent(prefix: &Path) {
    let dir = folder(prefix);
    // A folder that somebody has put something into stays.
    let _ = perform(Op::Remove(&dir), || std::fs::remove_dir(&dir));
}

/// The folder that the files of `prefix` are in.
fn folder(prefix: &Path) -> PathBuf {
    // Asked of the index, because a prefix may end in a slash.
    naming::directory(&cleaned(&naming::index_file(prefix)))
}

/// Waits until all changes of names in `dir` are on disk.
///
/// # Errors
///
/// The system's error. A file system that knows no such thing is none: nothing more can be done
/// there.
pub fn sync_dir(dir: &Path) -> Result<()> {
    let result = perform(Op::SyncDir(dir), || {
        match File::open(cleaned(dir))?.sync_all() {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINVAL | libc::ENOTSUP | libc::EBADF | libc::ENOSYS)
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    });
    result.map_err(|error| Error::io(&error, dir))
}

/// Waits until the content of the file at `path` is on disk, whoever wrote it.
///
/// # Errors
///
/// The system's error.
pub fn sync_file(path: &Path) -> Result<()> {
    perform(Op::Sync(path), || File::open(cleaned(path))?.sync_all())
        .map_err(|error| Error::io(&error, path))
}

/// The names in `dir` that begin with `beginning`, in no particular order.
///
/// # Errors
///
/// The system's error.
pub fn list(dir: &Path, beginning: &[u8]) -> Result<Vec<OsString>> {
    let failed = |error: io::Error| Error::io(&error, dir);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(cleaned(dir)).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name.as_bytes().starts_with(beginning) {
            names.push(name);
        }
    }
    Ok(names)
}

/// What `path` itself is, a symbolic link not followed; `None` if there is nothing.
///
/// # Errors
///
/// The system's error.
pub fn look(path: &Path) -> Result<Option<Metadata>> {
    match std::fs::symlink_metadata(cleaned(path)) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // Nothing can be called that.
        Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => Ok(None),
        Err(error) => Err(Error::io(&error, path)),
    }
}

/// Whether two names lead to one file.
pub fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The exclusive right to publish in a folder, among all who ask for it.
///
/// It is an advisory lock (`flock`) on the folder itself: no lock file is left behind, and the
/// system releases it when the process dies. Where the file system has no such locks (NFS, for
/// folders) it is held in name only, and the caller's user has to see to it that no two saves write
/// to one prefix.
#[derive(Debug)]
pub struct DirLock(Option<File>);

impl DirLock {
    /// Waits for the lock of `dir`, calling `check` meanwhile.
    ///
    /// # Errors
    ///
    /// The error of `check`; the system's error; UNAVAILABLE after a minute.
    pub fn acquire(dir: &Path, check: &dyn Fn() -> Result<()>) -> Result<Self> {
        let file = File::open(cleaned(dir)).map_err(|error| Error::io(&error, dir))?;
        let start = Instant::now();
        loop {
            check()?;
            match file.try_lock() {
                Ok(()) => return Ok(Self(Some(file))),
                Err(TryLockError::Error(_)) => return Ok(Self(None)),
                Err(TryLockError::WouldBlock) => {}
            }
            if start.elapsed() > LOCK_PATIENCE {
                return Err(Error::new(
                    Code::Unavailable,
                    "another save has been publishing in this folder for a minute",
                )
                .with_file(dir));
            }
            std::thread::sleep(LOCK_INTERVAL);
        }
    }
}

impl DirLock {
    /// Keeps saves from publishing in `dir` while it lives, without waiting: `None` while one is. Any
    /// number may share this.
    pub fn try_share(dir: &Path) -> Option<Self> {
        let Ok(file) = File::open(cleaned(dir)) else {
            return Some(Self(None));
        };
        match file.try_lock_shared() {
            Ok(()) => Some(Self(Some(file))),
            Err(TryLockError::Error(_)) => Some(Self(None)),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing is not enough: a child forked meanwhile shares the lock through its copy of the
        // descriptor.
        if let Some(file) = &self.0 {
            let _ = file.unlock();
        }
    }
}
