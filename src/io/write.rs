//! Files that are written under a temporary name and become visible in one step.
//!
//! A temporary file is called `<final>.tmp-<pid>-<random u64>`, with less of the final name if that is
//! long, and is locked as long as it is in use. So whoever finds one whose lock can be taken knows that
//! its writer is dead, and may remove it ([`clean_stale_temporaries`]).

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::append::{self, Appender};
use super::dir::{self, is_same, look, remove, rename, sync_dir};
use super::direct::DirectWrites;
use super::read::ReadFile;
use super::temporary::temporary_name;
pub use super::temporary::{clean_stale_temporaries, is_temporary};
use super::{Op, cleaned, perform, raw};
use crate::error::{Error, Result};
use crate::naming;

/// Bytes that are copied at a time.
const COPY_CHUNK: u64 = 1 << 20;

/// How often another name is tried when one turns out to be taken.
const ATTEMPTS: usize = 16;

/// A file under a temporary name that may get its final name later. Dropping it removes it, unless
/// it was published.
///
/// It stays open and locked after it was published, so that a save which goes wrong later can tell
/// its own files from others and take them back.
#[derive(Debug)]
pub struct TempFile {
    body: Body,
    path: PathBuf,
    final_path: PathBuf,
    synced: AtomicBool,
    published: bool,
    direct: DirectWrites,
}

/// How a [`TempFile`] knows its file.
#[derive(Debug)]
enum Body {
    /// Open and locked, under a temporary name.
    Open(File),
    /// A file of somebody else's under its own name, told by device and inode. No descriptor is held.
    Other { device: u64, inode: u64 },
}

impl TempFile {
    /// Creates an empty file, readable and writable for all whom the umask admits.
    ///
    /// # Errors
    ///
    /// The system's error, naming the temporary file.
    pub fn create(final_path: &Path) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let path = temporary_name(final_path);
            let opened = perform(Op::Create(&path), || {
                // The mode is 0666 less the umask, and the descriptor close-on-exec, by default.
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(cleaned(&path))
            });
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io(&error, &path)),
            };
            // From here on the file goes when this goes.
            let lock = file.try_lock();
            let temp = Self::of(file, path, final_path);
            match lock {
                // Somebody who cleans up was faster and takes the file for a stale one.
                Err(TryLockError::WouldBlock) => continue,
                // Without locks, nobody can take the lock of a stale file and remove it either.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            let metadata = temp.metadata()?;
            // Or was faster still, and has removed it.
            if metadata.nlink() > 0 {
                return Ok(temp);
            }
        }
        Err(Error::aborted("temporary files vanish while they are created").with_file(final_path))
    }

    /// A file with `bytes` in it, on disk if `sync` says so.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), [`write_at`](Self::write_at) and [`sync`](Self::sync).
    pub fn with_bytes(final_path: &Path, bytes: &[u8], sync: bool) -> Result<Self> {
        let temp = Self::create(final_path)?;
        temp.write_at(0, bytes)?;
        if sync {
            temp.sync()?;
        }
        Ok(temp)
    }

    /// Gives the file at `final_path` a second, temporary name, so that [`publish`](Self::publish)
    /// brings it back whatever takes its place meanwhile. `None` where the file system cannot.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn keep(final_path: &Path) -> Result<Option<Self>> {
        let path = temporary_name(final_path);
        let file =
            File::open(cleaned(final_path)).map_err(|error| Error::io(&error, final_path))?;
        // The file may be locked for other reasons; it is safe from those who clean up all the same.
        let _ = file.try_lock();
        if !dir::link(final_path, &path)? {
            return Ok(None);
        }
        Ok(Some(Self::of(file, path, final_path)))
    }

    /// Moves the file at `final_path` to a temporary name; [`publish`](Self::publish) brings it
    /// back. `None`, and nothing is moved, if there is none or it cannot be opened.
    ///
    /// # Errors
    ///
    /// The system's error; FAILED_PRECONDITION for a folder.
    pub fn set_aside(final_path: &Path) -> Result<Option<Self>> {
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(cleaned(final_path));
        let Ok(file) = opened else {
            return Ok(None);
        };
        let failed = |error: io::Error| Error::io(&error, final_path);
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::Error::from_raw_os_error(libc::EISDIR)));
        }
        let _ = file.try_lock();
        let path = temporary_name(final_path);
        rename(final_path, &path)?;
        Ok(Some(Self::of(file, path, final_path)))
    }

    /// The file at `source`, which is to get the name `final_path` as well. It keeps its own, also when
    /// this is dropped; nothing may write to it. `None` where that takes a copy.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn second_name(source: &Path, final_path: &Path) -> Result<Option<Self>> {
        // Tried out, so that a caller can make the copy before it begins to publish.
        let trial = temporary_name(final_path);
        if !dir::link(source, &trial)? {
            return Ok(None);
        }
        let metadata = look(&trial);
        remove(&trial)?;
        let Some(metadata) = metadata? else {
            return Err(Error::aborted("a file vanished while it was linked").with_file(source));
        };
        // Of a symbolic link, the link itself would get the name.
        if !metadata.is_file() {
            return Ok(None);
        }
        Ok(Some(Self {
            body: Body::Other {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
            path: source.to_owned(),
            final_path: final_path.to_owned(),
            synced: AtomicBool::new(false),
            published: false,
            direct: DirectWrites::default(),
        }))
    }

    /// A copy of the file at `source`. `check` is asked between its pieces.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create) and [`write_at`](Self::write_at); those of reading; that of `check`.
    pub fn copy_of(
        source: &Path,
        final_path: &Path,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        let source = ReadFile::open(source)?;
        let copy = Self::create(final_path)?;
        copy.reserve(source.size())?;
        let mut offset = 0;
        while offset < source.size() {
            check()?;
            let len = (source.size() - offset).min(COPY_CHUNK);
            copy.write_at(offset, &source.read_vec(offset, len)?)?;
            offset += len;
        }
        Ok(copy)
    }

    fn of(file: File, path: PathBuf, final_path: &Path) -> Self {
        Self {
            body: Body::Open(file),
            path,
            final_path: final_path.to_owned(),
            synced: AtomicBool::new(false),
            published: false,
            direct: DirectWrites::default(),
        }
    }

    fn metadata(&self) -> Result<std::fs::Metadata> {
        self.file()
            .and_then(File::metadata)
            .map_err(|error| self.failed(&error))
    }

    fn file(&self) -> io::Result<&File> {
        match &self.body {
            Body::Open(file) => Ok(file),
            Body::Other { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::io(error, self.path())
    }

    /// The name that it will have.
    pub fn final_path(&self) -> &Path {
        &self.final_path
    }

    /// The name that it has.
    pub fn path(&self) -> &Path {
        if self.published {
            &self.final_path
        } else {
            &self.path
        }
    }

    /// Writes all of `bytes` at `offset`; several threads may write at once.
    ///
    /// # Errors
    ///
    /// The system's error; RESOURCE_EXHAUSTED when the disk is full.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_all_at(offset, bytes)
            .map_err(|error| self.failed(&error).with_offset(offset))
    }

    /// Lets whole blocks go past the page cache from now on ([`DirectWrites`]). Returns whether the file
    /// system can do that.
    pub fn bypass_cache(&self) -> bool {
        self.file().is_ok_and(|file| self.direct.enable(file))
    }

    /// The number of the mounted file system that it is on.
    pub fn device(&self) -> Option<u64> {
        Some(self.file().ok()?.metadata().ok()?.dev())
    }

    /// Bytes that went past the page cache.
    pub fn bytes_past_cache(&self) -> u64 {
        self.direct.bytes()
    }

    /// Lets the system begin to write a range to the disk, so that a later [`sync`](Self::sync) has less
    /// to wait for.
    pub fn start_writeback(&self, offset: u64, len: u64) {
        if let Ok(file) = self.file() {
            raw::start_writeback(file, offset, len);
        }
    }

    pub(super) fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let write = |file: &File, offset: u64, bytes: &[u8]| {
            let path = self.path();
            let op = Op::Write {
                path,
                offset,
                bytes,
            };
            // Goes on after a short write and after a signal.
            perform(op, || file.write_all_at(bytes, offset))
        };
        let result = self.direct.write(self.file()?, offset, bytes, &write);
        self.synced.store(false, Ordering::Release);
        result
    }

    /// Takes the room for `size` bytes, so that a disk too small is known before anything is
    /// written. Where the file system can do that, the file has this size at once.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED if there is not enough room; nothing where the file system cannot tell.
    pub fn reserve(&self, size: u64) -> Result<()> {
        if size == 0 {
            return Ok(());
        }
        let result = perform(Op::Reserve(self.path()), || {
            raw::fallocate(self.file()?, size)
        });
        match result {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOTSUP | libc::EINVAL | libc::ENOSYS)
                ) =>
            {
                Ok(())
            }
            other => other.map_err(|error| self.failed(&error)),
        }
    }

    /// A writer that begins at offset 0 and appends, through a buffer of 64 KiB. Its `flush` must be
    /// called at the end: errors that occur when it is dropped are lost.
    pub fn appender(&self) -> Appender<'_> {
        append::appender(self)
    }

    /// Waits until the content is on disk; does nothing if it is known to be.
    ///
    /// # Errors
    ///
    /// The system's error. The content is in doubt then, and calling again does not help: the
    /// system may report an error of writing only once.
    pub fn sync(&self) -> Result<()> {
        // Set first: a write that comes in between makes the next call sync again.
        if self.synced.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let result = match &self.body {
            Body::Open(file) => perform(Op::Sync(self.path()), || file.sync_all())
                .map_err(|error| self.failed(&error)),
            Body::Other { .. } => dir::sync_file(self.path()),
        };
        if result.is_err() {
            self.synced.store(false, Ordering::Release);
        }
        result
    }

    /// Gives it its final name, replacing what is there, in one step. Neither the content nor the
    /// name is on disk for that.
    ///
    /// # Errors
    ///
    /// The system's error, naming the final file; ABORTED if the source of a
    /// [`second_name`](Self::second_name) has been replaced.
    pub fn publish(&mut self) -> Result<()> {
        if let Body::Other { .. } = self.body {
            return self.publish_second_name();
        }
        if self.is_in_place() {
            // A rename between two names of one file would do nothing. The other name goes when
            // this is dropped.
            return Ok(());
        }
        rename(&self.path, &self.final_path)?;
        self.published = true;
        Ok(())
    }

    /// Not in one step: for a moment nothing has the final name. The commit file, which matters, is always
    /// one of our own.
    fn publish_second_name(&mut self) -> Result<()> {
        remove(&self.final_path)?;
        self.published = dir::link(&self.path, &self.final_path)?;
        if self.is_in_place() {
            return Ok(());
        }
        if std::mem::take(&mut self.published) {
            remove(&self.final_path)?;
        }
        Err(Error::aborted("a file was replaced while it was published").with_file(&self.path))
    }

    /// Whether it has its final name, or had it before something replaced it.
    pub fn is_published(&self) -> bool {
        self.published
    }

    /// Whether its final name names this very file, and a second name is this one's work.
    pub fn is_in_place(&self) -> bool {
        let Ok(Some(there)) = look(&self.final_path) else {
            return false;
        };
        match &self.body {
            Body::Open(file) => file.metadata().is_ok_and(|own| is_same(&there, &own)),
            &Body::Other { device, inode } => {
                self.published && (there.dev(), there.ino()) == (device, inode)
            }
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let Body::Open(file) = &self.body else {
            return;
        };
        if !self.published {
            // Nobody is left to tell; the next save cleans up.
            let _ = remove(&self.path);
        }
        // A child forked meanwhile shares the lock through its copy of the descriptor.
        let _ = file.unlock();
    }
}

/// Replaces the content of `path`, or creates it, in one step. With `sync`, it is on disk
/// afterwards.
///
/// # Errors
///
/// The system's error; `path` is as it was, unless only the last sync went wrong.
pub fn replace_file(path: &Path, bytes: &[u8], sync: bool) -> Result<()> {
    TempFile::with_bytes(path, bytes, sync)?.publish()?;
    if sync {
        sync_dir(&naming::directory(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::error::Code;
    use crate::io::dir::{DirLock, create_parent};
    use crate::io::fault::{Plan, Watch};

    fn names(dir: &Path) -> Vec<String> {
        let names = dir::list(dir, b"").unwrap().into_iter();
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_temporary_file_is_gone_unless_it_was_published() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.index");
        let mut temp = TempFile::create(&path).unwrap();
        assert!(is_temporary(temp.path().as_os_str().as_bytes()));
        assert_eq!(temp.final_path(), path);
        temp.write_at(2, b"cd").unwrap();
        temp.write_at(0, b"ab").unwrap();
        drop(TempFile::create(&path).unwrap());
        assert_eq!(names(dir.path()).len(), 1);
        temp.publish().unwrap();
        assert!(temp.is_in_place() && temp.is_published());
        drop(temp);
        assert_eq!(std::fs::read(&path).unwrap(), b"abcd");
        assert_eq!(names(dir.path()), ["m.index"]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o711, 0o600);
    }

    #[test]
    fn what_is_appended_arrives_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let temp = TempFile::create(&dir.path().join("m")).unwrap();
        let text: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let mut out = temp.appender();
        for part in text.chunks(777) {
            out.write_all(part).unwrap();
        }
        out.flush().unwrap();
        drop(out);
        assert_eq!(std::fs::read(temp.path()).unwrap(), text);
    }

    #[test]
    fn several_threads_write_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let temp = TempFile::create(&dir.path().join("m")).unwrap();
        std::thread::scope(|scope| {
            for number in 0..4u8 {
                let temp = &temp;
                let offset = u64::from(number) * 1000;
                scope.spawn(move || temp.write_at(offset, &[number; 1000]).unwrap());
            }
        });
        let expected: Vec<u8> = (0..4u8).flat_map(|number| [number; 1000]).collect();
        assert_eq!(std::fs::read(temp.path()).unwrap(), expected);
    }

    #[test]
    fn a_disk_that_is_too_small_is_known_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let temp = TempFile::create(&dir.path().join("m")).unwrap();
        temp.reserve(0).unwrap();
        temp.reserve(1 << 16).unwrap();
        let code = temp.reserve(u64::MAX).unwrap_err().code();
        assert_eq!(code, Code::OutOfRange);
        for (errno, code) in [
            (libc::ENOSPC, Some(Code::ResourceExhausted)),
            (libc::ENOTSUP, None),
            (libc::EINVAL, None),
        ] {
            let plan = Plan {
                fail: Some((0, errno)),
                ..Plan::default()
            };
            let _watch = Watch::on(dir.path(), plan);
            let error = temp.reserve(10).err();
            assert_eq!(error.map(|error| error.code()), code);
        }
    }

    #[test]
    fn a_file_is_synced_once_unless_it_is_written_to_again() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::on(dir.path(), Plan::default());
        let temp = TempFile::with_bytes(&dir.path().join("m"), b"a", true).unwrap();
        let count = watch.count();
        temp.sync().unwrap();
        assert_eq!(watch.count(), count);
        temp.write_at(0, b"b").unwrap();
        temp.sync().unwrap();
        assert_eq!(watch.count(), count + 2);
    }

    #[test]
    fn only_the_temporary_files_of_the_dead_are_cleaned_up() {
        let dir = tempfile::tempdir().unwrap();
        let live = TempFile::create(&dir.path().join("m.index")).unwrap();
        let stale = ["m.index.tmp-1-2", "m-1.data-00000-of-00001.tmp-99999-7"];
        let others = [
            "m.index.tmp-1",
            "m.index.tmp-1-2-3",
            "m.index.tmp-1-x",
            "m.index.tmp--2",
            "m.index.tmp-1-99999999999999999999",
            "n.index.tmp-1-2",
        ];
        for name in stale.iter().chain(&others) {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        clean_stale_temporaries(dir.path(), b"m");
        let mut expected = others.map(str::to_owned).to_vec();
        let live = live.path().file_name().unwrap().to_str().unwrap();
        expected.push(live.to_owned());
        expected.sort();
        assert_eq!(names(dir.path()), expected);
        clean_stale_temporaries(&dir.path().join("nowhere"), b"m");
    }

    #[test]
    fn files_created_while_others_clean_up_are_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        clean_stale_temporaries(dir.path(), b"");
                    }
                });
            }
            for number in 0..300 {
                let path = dir.path().join(format!("m{number}"));
                let mut temp = TempFile::with_bytes(&path, b"x", false).unwrap();
                temp.publish().unwrap();
            }
        });
        assert_eq!(names(dir.path()).len(), 300);
    }

    #[test]
    fn a_kept_file_comes_back_in_place_of_what_replaced_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        std::fs::write(&path, "old").unwrap();
        let mut kept = TempFile::keep(&path).unwrap().unwrap();
        assert!(kept.is_in_place());
        replace_file(&path, b"new", true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        kept.publish().unwrap();
        drop(kept);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        // Nothing came in between.
        let mut kept = TempFile::keep(&path).unwrap().unwrap();
        kept.publish().unwrap();
        drop(kept);
        assert_eq!(names(dir.path()), ["checkpoint"]);
    }

    #[test]
    fn a_second_name_takes_nothing_from_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let (source, path) = (dir.path().join("part"), dir.path().join("m"));
        std::fs::write(&source, "new").unwrap();
        drop(TempFile::second_name(&source, &path).unwrap().unwrap());
        assert_eq!(names(dir.path()), ["part"]);
        std::fs::write(&path, "old").unwrap();
        let mut second = TempFile::second_name(&source, &path).unwrap().unwrap();
        second.sync().unwrap();
        assert!(!second.is_in_place());
        second.publish().unwrap();
        assert!(second.is_in_place() && second.path() == path);
        drop(second);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["m", "part"]);
        // Another one of the same file has not been published, although its name is there.
        let mut again = TempFile::second_name(&source, &path).unwrap().unwrap();
        assert!(!again.is_in_place());
        std::fs::remove_file(&source).unwrap();
        std::fs::write(&source, "replaced").unwrap();
        let error = again.publish().unwrap_err();
        assert_eq!(
            (error.code(), error.file()),
            (Code::Aborted, Some(source.as_path()))
        );
        assert_eq!(names(dir.path()), ["part"]);
    }

    #[test]
    fn what_cannot_be_linked_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (source, path) = (dir.path().join("part"), dir.path().join("m"));
        let content = vec![7; (1 << 20) + 5];
        std::fs::write(&source, &content).unwrap();
        let plan = Plan {
            refuse_links: true,
            ..Plan::default()
        };
        let watch = Watch::on(dir.path(), plan);
        assert!(TempFile::second_name(&source, &path).unwrap().is_none());
        drop(watch);
        let error = TempFile::copy_of(&source, &path, &|| Err(Error::cancelled("stop")));
        assert_eq!(error.unwrap_err().code(), Code::Cancelled);
        assert_eq!(names(dir.path()), ["part"]);
        let mut copy = TempFile::copy_of(&source, &path, &|| Ok(())).unwrap();
        copy.publish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
        // A symbolic link would become another link to the same file.
        std::os::unix::fs::symlink(&source, dir.path().join("link")).unwrap();
        let linked = TempFile::second_name(&dir.path().join("link"), &path).unwrap();
        assert!(linked.is_none());
    }

    #[test]
    fn one_missing_level_is_made_and_two_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("a/m");
        assert!(create_parent(&prefix, true).unwrap());
        assert!(!create_parent(&prefix, true).unwrap());
        let error = create_parent(&dir.path().join("b/c/m"), true).unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(error.file(), Some(dir.path().join("b/c").as_path()));
        assert!(!create_parent(Path::new("m"), true).unwrap());
    }

    #[test]
    fn a_lock_of_a_folder_is_waited_for_until_the_caller_gives_up() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path(), &|| Ok(())).unwrap();
        let asked = std::cell::Cell::new(0);
        let check = || {
            asked.set(asked.get() + 1);
            match asked.get() {
                3 => Err(Error::cancelled("stop")),
                _ => Ok(()),
            }
        };
        let error = DirLock::acquire(dir.path(), &check).unwrap_err();
        assert_eq!(error.code(), Code::Cancelled);
        drop(lock);
        DirLock::acquire(dir.path(), &|| Ok(())).unwrap();
        assert_eq!(names(dir.path()), [""; 0]);
    }
}
