//! The checkpoint that a save overwrites, kept as `PREFIX.prev-<id>` until the new one is complete.
//!
//! Its files are hard links to PREFIX's, so that it costs no room, and PREFIX can be taken apart
//! while they make a checkpoint that any reader opens. Where the file system has no hard links, its
//! commit file is a copy, and its data files are PREFIX's own, renamed once PREFIX's commit file is
//! gone; so a reader takes a data file that it lacks from PREFIX.
//!
//! `<id>` is 16 hexadecimal digits, nanoseconds since 1970 or one more than the largest there is:
//! names sort by age. No checkpoint called `.prev-<id>` remains after a save that succeeds. One
//! remains after a crash, and after a save that failed in a way that kept it from putting PREFIX
//! back; then PREFIX may have no commit file, and this is what the prefix means.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::layout::{DataFile, Layout, base_name, folder};
use super::redirect;
use crate::error::{Code, Error, Result};
use crate::io::dir::{self, DirLock, link, list, look, remove, rename, sync_dir, sync_file};
use crate::io::write::{TempFile, is_temporary};
use crate::naming;

const MARK: &str = ".prev-";
const ID_DIGITS: usize = 16;

/// `PREFIX.prev-<id>`.
fn with_id(prefix: &Path, id: u64) -> PathBuf {
    naming::append(prefix, format_args!("{MARK}{id:016x}"))
}

/// The id, and what follows it, of `name` that follows a prefix.
fn split_id(name: &[u8]) -> Option<(u64, &[u8])> {
    let rest = name.strip_prefix(MARK.as_bytes())?;
    let (digits, suffix) = rest.split_at_checked(ID_DIGITS)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if !digits.iter().all(is_digit) {
        return None;
    }
    let id = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((id, suffix))
}

/// PREFIX, if `path` is a `PREFIX.prev-<id>`.
pub fn original(path: &Path) -> Option<&Path> {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.len().checked_sub(MARK.len() + ID_DIGITS)?;
    let (original, mark) = bytes.split_at_checked(start)?;
    split_id(mark)?;
    Some(Path::new(OsStr::from_bytes(original)))
}

/// The files called `PREFIX.prev-<id><suffix>`, with what follows the prefix split.
fn left_over(prefix: &Path, layout: &Layout<'_>) -> Result<Vec<(u64, PathBuf, bool)>> {
    let folder = folder(prefix);
    let base = base_name(prefix).as_bytes();
    let mut beginning = base.to_vec();
    beginning.extend_from_slice(MARK.as_bytes());
    let mut found = Vec::new();
    let names = match list(&folder, &beginning) {
        // Without the folder, or with a file in its place, there is nothing in it.
        Err(error) if matches!(error.code(), Code::NotFound | Code::FailedPrecondition) => {
            return Ok(found);
        }
        names => names?,
    };
    for name in names {
        let bytes = name.as_bytes();
        let parts = bytes.get(base.len()..).and_then(split_id);
        if let Some((id, suffix)) = parts
            && layout.owns(suffix)
            && !is_temporary(bytes)
        {
            let is_commit = suffix == layout.commit.as_bytes();
            found.push((id, folder.join(&name), is_commit));
        }
    }
    // Commit files first.
    found.sort_by_key(|&(id, _, is_commit)| (id, !is_commit));
    Ok(found)
}

/// The newest complete `PREFIX.prev-<id>`, as a prefix. It stands for PREFIX when PREFIX has no
/// commit file.
///
/// # Errors
///
/// Whatever keeps the question from being answered; a damaged one does not, the next is tried.
pub fn newest_complete(prefix: &Path, layout: &Layout<'_>) -> Result<Option<PathBuf>> {
    for (id, _, is_commit) in left_over(prefix, layout)?.into_iter().rev() {
        let kept = with_id(prefix, id);
        if is_commit && layout.complete(&kept, Some(prefix))?.is_some() {
            return Ok(Some(kept));
        }
    }
    Ok(None)
}

/// Looks for what PREFIX means by calling `find`, until it finds something or there is nothing.
///
/// A save that overwrites PREFIX at the same time always leaves something to find, but never in one
/// place: the index may go after the `.prev` was looked for and come back before. So what was not found
/// is looked for again while no save publishes in the folder, or, if one does all the time, often.
///
/// # Errors
///
/// Those of `find`.
pub fn find_steadily<T>(
    prefix: &Path,
    mut find: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    for attempt in 0..ATTEMPTS {
        let alone = if attempt > 0 {
            DirLock::try_share(&folder(prefix))
        } else {
            None
        };
        let found = find()?;
        if found.is_some() || alone.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// How often something is looked for while saves publish.
const ATTEMPTS: usize = 64;

/// Removes every `PREFIX.prev-<id>` that a crash left. For a caller that is about to remove PREFIX
/// itself: with PREFIX's commit file gone, a `.prev` would take its place.
///
/// If PREFIX has no commit file, this removes the only checkpoint that PREFIX has. If `state_file`
/// names one, it is made to name PREFIX first.
///
/// # Errors
///
/// The system's error; UNAVAILABLE if other saves keep the folder locked.
pub fn remove_left_over(
    prefix: &Path,
    layout: &Layout<'_>,
    state_file: &Path,
    sync: bool,
) -> Result<()> {
    let folder = folder(prefix);
    if look(&folder)?.is_none() {
        return Ok(());
    }
    let _lock = DirLock::acquire(&folder, &|| Ok(()))?;
    if left_over(prefix, layout)?.is_empty() {
        return Ok(());
    }
    if let Some(bytes) = redirect::read(state_file)?
        && let Some(text) = redirect::to_original(&bytes, state_file, prefix, layout)
    {
        crate::io::write::replace_file(state_file, &text, sync)?;
    }
    remove_all(prefix, layout, sync)
}

/// Removes every `PREFIX.prev-<id>`. No state file may name one.
pub(super) fn remove_all(prefix: &Path, layout: &Layout<'_>, sync: bool) -> Result<()> {
    remove_files(prefix, left_over(prefix, layout)?, sync)
}

/// Removes files of `.prev`s, given in the order of [`left_over`]: of each, the commit file first,
/// because without its own data files one that survives a crash would take PREFIX's for them; and
/// the oldest first, because it may lack them already.
fn remove_files(prefix: &Path, files: Vec<(u64, PathBuf, bool)>, sync: bool) -> Result<()> {
    for (_, path, is_commit) in files {
        remove(&path)?;
        if is_commit && sync {
            sync_dir(&folder(prefix))?;
        }
    }
    Ok(())
}

/// One checkpoint on its way from PREFIX to `PREFIX.prev-<id>`, and back if need be.
pub(super) struct Previous<'a> {
    prefix: PathBuf,
    layout: Layout<'a>,
    sync: bool,
    /// `PREFIX.prev-<id>`.
    kept: PathBuf,
    /// Data files in the way that could not be linked: at PREFIX and at the `.prev`.
    unlinked: Vec<(PathBuf, PathBuf)>,
}

impl<'a> Previous<'a> {
    /// A `.prev` that sorts after all that exist; nothing is done yet.
    ///
    /// # Errors
    ///
    /// The system's error; FAILED_PRECONDITION if somebody has used up the ids.
    pub fn new(prefix: &Path, layout: Layout<'a>, sync: bool) -> Result<Self> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| u64::try_from(since.as_nanos()).ok())
            .unwrap_or_default();
        // Also when the clock was set back, the newest wins.
        let id = match left_over(prefix, &layout)?.last() {
            Some(&(newest, _, _)) => newest.checked_add(1).map(|next| next.max(now)),
            None => Some(now),
        };
        let id = id.ok_or_else(|| {
            Error::failed_precondition("no name is left for the checkpoint to be overwritten")
                .with_file(prefix)
        })?;
        Ok(Self {
            prefix: prefix.to_owned(),
            layout,
            sync,
            kept: with_id(prefix, id),
            unlinked: Vec::new(),
        })
    }

    /// The `.prev` as a prefix.
    pub fn path(&self) -> &Path {
        &self.kept
    }

    /// Makes the `.prev` of the complete checkpoint with these data files; PREFIX stays. Those that
    /// cannot be linked are noted if they are in the way of new ones; else the `.prev` goes on
    /// using PREFIX's.
    ///
    /// # Errors
    ///
    /// The system's error. [`remove`](Self::remove) takes back what was done.
    pub fn keep(&mut self, data: &[DataFile], in_the_way: &HashSet<PathBuf>) -> Result<()> {
        let commit = self.layout.commit_file(&self.prefix);
        if self.sync {
            // Who wrote them may not have done so; TensorFlow syncs nothing.
            for file in data {
                sync_file(&naming::append(&self.prefix, &file.suffix))?;
            }
            sync_file(&commit)?;
        }
        for file in data {
            let from = naming::append(&self.prefix, &file.suffix);
            let to = naming::append(&self.kept, &file.suffix);
            if !link(&from, &to)? && in_the_way.contains(&from) {
                self.unlinked.push((from, to));
            }
        }
        link_or_copy(&commit, &self.layout.commit_file(&self.kept), self.sync)?;
        self.sync_folder()
    }

    /// Gives the `.prev` the data files in the way that could not be linked. PREFIX's commit file is gone.
    ///
    /// # Errors
    ///
    /// The system's error. [`bring_back`](Self::bring_back) takes back what was done.
    pub fn take_unlinked(&self) -> Result<()> {
        for (from, to) in &self.unlinked {
            rename(from, to)?;
        }
        if self.unlinked.is_empty() {
            return Ok(());
        }
        self.sync_folder()
    }

    /// Makes PREFIX what it was; the `.prev` stays until [`remove`](Self::remove). PREFIX's commit
    /// file is gone.
    ///
    /// # Errors
    ///
    /// The system's error; the `.prev` is complete then.
    pub fn bring_back(&self) -> Result<()> {
        for (_, from, is_commit) in self.files()? {
            if is_commit {
                continue;
            }
            let to = self.at_prefix(&from);
            if let (Some(one), Some(other)) = (look(&from)?, look(&to)?)
                && dir::is_same(&one, &other)
            {
                continue;
            }
            // Nobody misses it: PREFIX has no commit file, and the `.prev` has its own.
            remove(&to)?;
            if !link(&from, &to)? {
                rename(&from, &to)?;
            }
        }
        // The commit file must not be there before the data files are.
        self.sync_folder()?;
        link_or_copy(
            &self.layout.commit_file(&self.kept),
            &self.layout.commit_file(&self.prefix),
            self.sync,
        )?;
        self.sync_folder()
    }

    /// Removes the `.prev`. No state file may name it, and PREFIX must be complete.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn remove(&self) -> Result<()> {
        remove_files(&self.prefix, self.files()?, self.sync)
    }

    fn files(&self) -> Result<Vec<(u64, PathBuf, bool)>> {
        let mut files = left_over(&self.prefix, &self.layout)?;
        files.retain(|&(id, _, _)| with_id(&self.prefix, id) == self.kept);
        Ok(files)
    }

    /// The file of PREFIX that a file of the `.prev` goes back to.
    fn at_prefix(&self, file: &Path) -> PathBuf {
        let mut name = self.prefix.as_os_str().to_owned();
        // The names of the two begin with the folder, which may be spelt differently.
        let base = base_name(&self.kept).len();
        let suffix = base_name(file).as_bytes().get(base..).unwrap_or_default();
        name.push(OsStr::from_bytes(suffix));
        PathBuf::from(name)
    }

    fn sync_folder(&self) -> Result<()> {
        if self.sync {
            sync_dir(&folder(&self.prefix))?;
        }
        Ok(())
    }
}

/// Puts PREFIX back from its newest complete `.prev`, which stays, if PREFIX has no commit file: a
/// save that was overwriting PREFIX was killed.
pub(super) fn recover(prefix: &Path, layout: Layout<'_>, sync: bool) -> Result<()> {
    if look(&layout.commit_file(prefix))?.is_some() {
        return Ok(());
    }
    let Some(kept) = newest_complete(prefix, &layout)? else {
        return Ok(());
    };
    Previous {
        prefix: prefix.to_owned(),
        layout,
        sync,
        kept,
        unlinked: Vec::new(),
    }
    .bring_back()
}

/// Makes `to` another name of `from`, or a copy that appears in one step where there are no links.
fn link_or_copy(from: &Path, to: &Path, sync: bool) -> Result<()> {
    if link(from, to)? {
        return Ok(());
    }
    let mut copy = TempFile::copy_of(from, to, &|| Ok(()))?;
    if sync {
        copy.sync()?;
    }
    copy.publish()
}
