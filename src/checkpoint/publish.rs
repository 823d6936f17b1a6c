//! The last part of every save: its temporary files become the checkpoint PREFIX.
//!
//! A checkpoint exists when its commit file (V2: the index) has its name, so that goes last:
//!
//! 1. the contents of all temporary files are synced;
//! 2. the data files get their names; the folder is synced;
//! 3. the commit file gets its name; the folder is synced;
//! 4. the state file is replaced; its folder is synced;
//! 5. only now is anything deleted.
//!
//! TensorFlow syncs nothing; but of two renames without a sync in between, either may be the one
//! that a power cut undoes.
//!
//! If PREFIX is a complete checkpoint already, steps 2 and 3 would put new data files beside the
//! index of the old ones. So before step 2, a complete `PREFIX.prev-<id>` is made of it
//! ([`previous`](super::previous)), a state file that names PREFIX names that instead, and the
//! commit file of PREFIX is removed, each followed by a sync. Step 4 then writes the state file in
//! any case, and step 5 removes the `.prev`.
//!
//! The sidecar of a V2 checkpoint goes with the data files. It is no part of the checkpoint that is kept,
//! so the one of the old checkpoint is only put aside, with step 2, and removed in step 5, also if the new
//! checkpoint has none.
//!
//! # What is promised
//!
//! * At every instant, after a crash of the process, and unless `sync` is off after one of the
//!   system, PREFIX opens as the complete old or the complete new checkpoint, if there was an old
//!   one: itself, or, without a commit file, through its newest complete `.prev`. What the state
//!   file names opens too, by the literal name, as TensorFlow opens it. (Without hard links, the
//!   literal name lacks its data files for the moment between two steps.)
//! * A save that fails or is cancelled leaves what it found. If the file system fails while that is
//!   restored, the `.prev` stays, and the next save to PREFIX restores PREFIX from it.
//! * After success the new checkpoint is on disk, and the files are exactly TensorFlow's.
//! * Saves to one folder publish one after the other, under an advisory lock of the folder
//!   ([`DirLock`]), so two saves to one prefix are as good as one after the other. On a file system
//!   without such locks the user has to see to that.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::layout::{DataFile, Layout, base_name, folder};
use super::previous::{self, Previous};
use super::redirect;
use crate::error::{Error, Result};
use crate::io::dir::{DirLock, look, remove, sync_dir};
use crate::io::write::{TempFile, clean_stale_temporaries, replace_file};
use crate::naming;

/// A checkpoint that has been written under temporary names.
pub struct Publication<'a> {
    /// PREFIX.
    pub prefix: PathBuf,
    /// The names of the checkpoint's format.
    pub layout: Layout<'a>,
    /// The data files, and behind them the sidecar if there is one; none for a format with a commit file
    /// only, which then replaces an old one in one step.
    pub data: Vec<TempFile>,
    /// The commit file.
    pub commit: TempFile,
    /// The state file that this save would write, which may name PREFIX also when it is not written.
    pub state_file: PathBuf,
    /// Its new content; `None` if this save does not write it.
    pub state: Option<Vec<u8>>,
    /// Whether to wait for the disk. Without, the order is the same, but safe only against a crash
    /// of the process.
    pub sync: bool,
    /// Asked between the steps; its error cancels the save.
    pub check: &'a dyn Fn() -> Result<()>,
}

impl Publication<'_> {
    /// Makes it PREFIX. The contents of files that the caller has synced are not synced again.
    ///
    /// # Errors
    ///
    /// The system's error or that of `check`; UNAVAILABLE if other saves keep the folder locked.
    /// The folder is as it was before the call then, without the temporary files. Once the state
    /// file is on disk nothing is an error any more: what then cannot be deleted goes with the next
    /// save.
    pub fn publish(self) -> Result<()> {
        if self.sync {
            for temp in self.data.iter().chain([&self.commit]) {
                (self.check)()?;
                temp.sync()?;
            }
        }
        let _lock = DirLock::acquire(&folder(&self.prefix), self.check)?;
        previous::recover(&self.prefix, self.layout, self.sync)?;
        let mut steps = Steps::prepare(self)?;
        match steps.all() {
            Ok(()) => {
                steps.clean_up();
                Ok(())
            }
            Err(error) => {
                // If this goes wrong too, the `.prev` stays, and PREFIX opens through it.
                let _ = steps.undo();
                Err(error)
            }
        }
    }
}

/// A publication under way, and what it takes to undo it.
struct Steps<'a> {
    new: Publication<'a>,
    /// Where the complete checkpoint goes that is overwritten, and its data files.
    old: Option<(Previous<'a>, Vec<DataFile>)>,
    /// Files in the way that no complete checkpoint has. Dropping them removes them.
    aside: Vec<TempFile>,
    /// A commit file in the way that makes no complete checkpoint.
    aside_commit: Option<TempFile>,
    states: States,
}

/// What the state file holds one after the other. All of it is written before anything else
/// changes, so that a full disk is known in time.
struct States {
    /// Before the save.
    old: Option<Vec<u8>>,
    /// The old file itself, so that bringing it back takes no room on the disk.
    old_file: Option<TempFile>,
    /// While the `.prev` stands for PREFIX, if that makes a difference.
    kept: Option<Vec<u8>>,
    kept_file: Option<TempFile>,
    /// After the save, if it is to differ from the old content.
    new_file: Option<TempFile>,
}

impl<'a> Steps<'a> {
    /// Finds out what there is and writes what the state file will hold. Nothing that anybody else
    /// looks at changes.
    fn prepare(mut new: Publication<'a>) -> Result<Self> {
        refuse_other_sidecar(&new)?;
        let old = match new.layout.complete(&new.prefix, None)? {
            Some(data) => Some((Previous::new(&new.prefix, new.layout, new.sync)?, data)),
            None => None,
        };
        let (prefix, file) = (&new.prefix, &new.state_file);
        let state = redirect::read(file)?;
        let kept = match (&state, &old) {
            (Some(state), Some((kept, _))) if !new.data.is_empty() => {
                redirect::to_kept(state, file, prefix, kept.path(), &new.layout)
            }
            _ => None,
        };
        // A crash may have left a state that names a `.prev`, which is removed in the end.
        let repaired = |state: &Vec<u8>| redirect::to_original(state, file, prefix, &new.layout);
        let last = (new.state.take()).or_else(|| state.as_ref().and_then(repaired));
        let written = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => TempFile::with_bytes(file, bytes, new.sync).map(Some),
            None => Ok(None),
        };
        let new_file = written(&last)?;
        let kept_file = written(&kept)?;
        let old_file = match &state {
            Some(_) if new_file.is_some() || kept_file.is_some() => match TempFile::keep(file)? {
                Some(linked) => Some(linked),
                None => written(&state)?,
            },
            _ => None,
        };
        let states = States {
            old: state,
            old_file,
            kept,
            kept_file,
            new_file,
        };
        Ok(Self {
            new,
            old,
            aside: Vec::new(),
            aside_commit: None,
            states,
        })
    }

    fn all(&mut self) -> Result<()> {
        self.make_way()?;
        for temp in &mut self.new.data {
            (self.new.check)()?;
            temp.publish()?;
        }
        if !self.new.data.is_empty() {
            self.sync_folder()?;
        }
        (self.new.check)()?;
        self.new.commit.publish()?;
        self.sync_folder()?;
        (self.new.check)()?;
        self.publish_state()
    }

    /// Gets the old checkpoint, or what is left of one, out of the way of the new files.
    fn make_way(&mut self) -> Result<()> {
        (self.new.check)()?;
        let commit = self.new.layout.commit_file(&self.new.prefix);
        if let Some((kept, data)) = &mut self.old {
            let new = self.new.data.iter();
            kept.keep(
                data,
                &new.map(|temp| temp.final_path().to_owned()).collect(),
            )?;
            if self.new.data.is_empty() {
                return Ok(());
            }
            if let Some(state) = &mut self.states.kept_file {
                state.publish()?;
                self.sync_state()?;
            }
            (self.new.check)()?;
            remove(&commit)?;
            self.sync_folder()?;
        } else if look(&commit)?.is_some() {
            self.aside_commit = TempFile::set_aside(&commit)?;
            if self.aside_commit.is_none() {
                remove(&commit)?;
            }
            self.sync_folder()?;
        }
        let mut kept_files = HashSet::new();
        if let Some((kept, data)) = &self.old {
            kept.take_unlinked()?;
            let path = |file: &DataFile| naming::append(&self.new.prefix, &file.suffix);
            kept_files.extend(data.iter().map(path));
        }
        let new = self.new.data.iter();
        let in_the_way = new.map(|temp| temp.final_path().to_owned());
        for path in in_the_way.chain(self.new.layout.sidecar(&self.new.prefix)?) {
            if !kept_files.contains(&path) {
                self.aside.extend(TempFile::set_aside(&path)?);
            }
        }
        Ok(())
    }

    fn publish_state(&mut self) -> Result<()> {
        let states = &mut self.states;
        let last = match (&mut states.new_file, &states.kept_file) {
            (Some(new), _) => new,
            (None, Some(_)) => match &mut states.old_file {
                Some(old) => old,
                None => return Ok(()),
            },
            (None, None) => return Ok(()),
        };
        last.publish()?;
        self.sync_state()
    }

    /// Removes what the new checkpoint does not need, as far as that is possible.
    fn clean_up(self) {
        let Publication {
            prefix,
            layout,
            state_file,
            sync,
            ..
        } = &self.new;
        // The state file names no `.prev` of PREFIX any more.
        let _ = previous::remove_all(prefix, layout, *sync);
        let places = [
            (folder(prefix), base_name(prefix).to_owned()),
            (folder(state_file), base_name(state_file).to_owned()),
        ];
        // Removes what was set aside.
        drop(self);
        for (folder, name) in places {
            clean_stale_temporaries(&folder, name.as_bytes());
        }
    }

    /// Puts everything back. At every instant what holds for the save holds here.
    fn undo(&mut self) -> Result<()> {
        let commit = self.new.layout.commit_file(&self.new.prefix);
        let is_new = self.new.commit.is_in_place();
        // Whether PREFIX was taken apart.
        let apart = is_new || look(&commit)?.is_none();
        if apart {
            let states = &self.states;
            self.put_state(states.kept.as_deref().or(states.old.as_deref()))?;
        }
        if is_new {
            remove(&commit)?;
            self.sync_folder()?;
        }
        for temp in &self.new.data {
            if temp.is_in_place() {
                remove(temp.final_path())?;
            }
        }
        for temp in &mut self.aside {
            temp.publish()?;
        }
        if let Some((kept, _)) = &self.old
            && apart
        {
            kept.bring_back()?;
        }
        if let Some(temp) = &mut self.aside_commit {
            sync(&self.new, &self.new.prefix)?;
            temp.publish()?;
        }
        self.put_old_state()?;
        if let Some((kept, _)) = &self.old {
            kept.remove()?;
        }
        Ok(())
    }

    fn put_old_state(&mut self) -> Result<()> {
        if redirect::read(&self.new.state_file)? == self.states.old {
            return Ok(());
        }
        if let Some(file) = &mut self.states.old_file
            && !file.is_published()
            && file.publish().is_ok()
        {
            return self.sync_state();
        }
        self.put_state(self.states.old.as_deref())
    }

    /// Makes the state file hold `bytes`, or not exist.
    fn put_state(&self, bytes: Option<&[u8]>) -> Result<()> {
        let file = &self.new.state_file;
        if redirect::read(file)?.as_deref() == bytes {
            return Ok(());
        }
        match bytes {
            Some(bytes) => replace_file(file, bytes, self.new.sync),
            None => {
                remove(file)?;
                self.sync_state()
            }
        }
    }

    fn sync_folder(&self) -> Result<()> {
        sync(&self.new, &self.new.prefix)
    }

    fn sync_state(&self) -> Result<()> {
        sync(&self.new, &self.new.state_file)
    }
}

/// A sidecar takes the place of a sidecar only: that of a V1 checkpoint of this name would be its end.
fn refuse_other_sidecar(new: &Publication<'_>) -> Result<()> {
    let path = naming::sidecar_file(&new.prefix);
    if new.data.iter().all(|temp| temp.final_path() != path)
        || new.layout.sidecar(&new.prefix)?.is_some()
        || look(&path)?.is_none()
    {
        return Ok(());
    }
    Err(
        Error::failed_precondition("what has the name of the sidecar is none, and would be lost")
            .with_file(&path),
    )
}

/// Waits until the names beside `file` are on disk, if this save waits at all.
fn sync(new: &Publication<'_>, file: &Path) -> Result<()> {
    if new.sync {
        sync_dir(&folder(file))?;
    }
    Ok(())
}
