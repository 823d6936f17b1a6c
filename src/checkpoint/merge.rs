//! Merges the parts that several processes have saved into one checkpoint, as TensorFlow's
//! MergeV2Checkpoints, and removes them.
//!
//! TensorFlow renames the parts' data files one after the other and writes the index in place; a
//! failure half way leaves neither parts nor checkpoint. Here the data files get second names (hard
//! links, or copies where there are none), the new checkpoint is published like any other
//! ([`publish`](super::publish)), and only then the parts go: first all their indexes, then all their
//! data files. So whatever goes wrong before leaves the parts whole, and a merge that was killed while
//! it removed them can be told from one whose parts are missing: what is left of their data files are
//! second names of the checkpoint's.
//!
//! The sidecars of the parts that have one become the checkpoint's.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::layout::{self, Layout, base_name, folder};
use super::publish::Publication;
use super::save::{SaveOptions, StateFile, numbered, plain_state};
use super::sidecar;
use crate::bundle::{BundleMerge, PartFile};
use crate::error::{Error, Result};
use crate::io::dir::{create_parent, is_same, list, look, remove, remove_parent, sync_dir};
use crate::io::write::{TempFile, replace_file};
use crate::naming;
use crate::transfer::Call;

/// How parts are merged. The defaults are those of TensorFlow's Saver.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeOptions {
    /// Whether parts that are not there are left out.
    pub allow_missing_files: bool,
    /// Whether the parts stay. By default they are removed, and the folders that they leave empty. Data
    /// files of parts that stay may be the checkpoint's under another name: nothing must write to them.
    pub keep_parts: bool,
    /// Whether the state file `checkpoint` beside the prefix is to name this checkpoint.
    pub update_state: bool,
    /// Whether the state file is to hold relative paths.
    pub save_relative_paths: bool,
    /// Whether to leave out every fsync, also that of the parts' data files.
    pub no_sync: bool,
}

/// Merges the checkpoints `parts`, in this order, into the checkpoint `prefix`, and removes them.
///
/// A checkpoint of that prefix is overwritten as by any save. A part without tensors adds nothing.
///
/// # Errors
///
/// With TensorFlow's codes and texts: INVALID_ARGUMENT for a part that is not there, or if none is; for
/// a tensor that two parts have; for parts that do not go together. DATA_LOSS, OUT_OF_RANGE or NOT_FOUND,
/// naming the file, for a part that is damaged or incomplete; the system's errors; CANCELLED. The parts
/// are whole then, and so is the checkpoint that was there before.
pub fn merge(
    parts: &[PathBuf],
    prefix: &Path,
    options: &MergeOptions,
    call: &mut Call<'_>,
) -> Result<()> {
    let started = Instant::now();
    let merge = Merge {
        parts,
        prefix,
        options,
    };
    let merged = merge.run(call);
    call.finish(started);
    merged
}

struct Merge<'a> {
    parts: &'a [PathBuf],
    prefix: &'a Path,
    options: &'a MergeOptions,
}

impl Merge<'_> {
    fn run(&self, call: &mut Call<'_>) -> Result<()> {
        numbered(self.prefix, &SaveOptions::default())?;
        let made_folder = create_parent(self.prefix, self.sync())?;
        let merged = self.run_in_folder(call);
        if merged.is_err() && made_folder {
            remove_parent(self.prefix);
        }
        merged
    }

    fn run_in_folder(&self, call: &mut Call<'_>) -> Result<()> {
        let mut bundle = BundleMerge::default();
        let mut missing = None;
        let mut found = false;
        let own_index = look(&naming::index_file(self.prefix))?;
        for part in self.parts {
            call.progress.advance(0, 0)?;
            let Some(index) = look(&naming::index_file(part))? else {
                missing.get_or_insert(part);
                continue;
            };
            if own_index.as_ref().is_some_and(|own| is_same(own, &index)) {
                return Err(Error::invalid_argument(format!(
                    "a part is what it is to be merged into; part={}",
                    part.display()
                )));
            }
            found = true;
            // TensorFlow looks no further than the first part that is missing.
            if missing.is_none() || self.options.allow_missing_files {
                bundle.add(part)?;
            }
        }
        if (missing.is_some() || !found) && self.is_merged_already()? {
            return self.finish_earlier();
        }
        bundle.check()?;
        match missing {
            Some(part) if !self.options.allow_missing_files => {
                return Err(Error::invalid_argument(format!(
                    "allow_missing_files was set to false and {part} did not exist.NOT_FOUND: {part} \
                     not found{}",
                    self.perhaps_merged(),
                    part = part.display()
                ))
                .with_file(&naming::index_file(part)));
            }
            _ if !found => {
                return Err(Error::invalid_argument(format!(
                    "At least one prefix checkpoint file must exist, but none existed.{}",
                    self.perhaps_merged()
                )));
            }
            _ => {}
        }
        if bundle.files().is_empty() {
            return Err(Error::invalid_argument(
                "No variables to save; none of the parts has a tensor",
            ));
        }
        self.publish(bundle, call)?;
        if !self.options.keep_parts {
            self.remove_parts();
        }
        Ok(())
    }

    fn publish(&self, bundle: BundleMerge, call: &mut Call<'_>) -> Result<()> {
        call.stats.num_tensors = bundle.num_entries() as u64;
        let started = Instant::now();
        let progress = RefCell::new(&mut call.progress);
        let check = || progress.borrow_mut().advance(0, 0);
        bundle.files().iter().try_for_each(check_size)?;
        let num_shards = u32::try_from(bundle.files().len()).unwrap_or(u32::MAX);
        let mut data = Vec::with_capacity(bundle.files().len());
        for (number, file) in (0..num_shards).zip(bundle.files()) {
            check()?;
            let to = naming::data_file(self.prefix, number, num_shards);
            data.push(match TempFile::second_name(&file.path, &to)? {
                Some(second) => second,
                None => TempFile::copy_of(&file.path, &to, &check)?,
            });
        }
        data.extend(sidecar::merge(self.parts, &bundle, self.prefix, &check)?);
        let commit = TempFile::create(&naming::index_file(self.prefix))?;
        let mut index = bundle
            .finish(commit.appender())
            .map_err(|error| error.with_file(commit.path()))?;
        std::io::Write::flush(&mut index).map_err(|error| Error::io(&error, commit.path()))?;
        drop(index);

        let StateFile {
            path: state_file,
            content: state,
        } = self.state()?;
        let published = Publication {
            prefix: self.prefix.to_owned(),
            layout: Layout::v2(&super::v2_data_files),
            data,
            commit,
            state_file,
            state,
            sync: self.sync(),
            check: &|| progress.borrow_mut().report(),
        }
        .publish();
        if self.sync() {
            call.stats.sync_ns += u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        }
        published
    }

    fn state(&self) -> Result<StateFile> {
        let options = SaveOptions {
            update_state: self.options.update_state,
            save_relative_paths: self.options.save_relative_paths,
            ..SaveOptions::default()
        };
        plain_state(self.prefix, &options)
    }

    fn sync(&self) -> bool {
        !self.options.no_sync
    }

    /// Whether `prefix` is the complete checkpoint that an earlier merge has made of these parts, some
    /// of which it has removed: all data files that are left of them are the checkpoint's too.
    fn is_merged_already(&self) -> Result<bool> {
        let layout = Layout::v2(&super::v2_data_files);
        let Some(data) = layout.complete(self.prefix, None)? else {
            return Ok(false);
        };
        let mut own = HashSet::new();
        for file in data {
            if let Some(metadata) = look(&naming::append(self.prefix, &file.suffix))? {
                own.insert((metadata.dev(), metadata.ino()));
            }
        }
        let mut any = false;
        for path in self.data_files()? {
            match look(&path)? {
                Some(metadata) if own.contains(&(metadata.dev(), metadata.ino())) => any = true,
                // Of a part without tensors.
                Some(metadata) if metadata.size() == 0 => {}
                None => {}
                Some(_) => return Ok(false),
            }
        }
        Ok(any)
    }

    /// Does what an earlier merge has left to do.
    fn finish_earlier(&self) -> Result<()> {
        let state = self.state()?;
        if let Some(content) = state.content {
            replace_file(&state.path, &content, self.sync())?;
        }
        if !self.options.keep_parts {
            self.remove_parts();
        }
        Ok(())
    }

    /// What an error adds when the checkpoint is there already, and the parts may be gone for that reason.
    fn perhaps_merged(&self) -> String {
        let layout = Layout::v2(&super::v2_data_files);
        match layout.complete(self.prefix, None) {
            Ok(Some(_)) => format!(
                "; the checkpoint exists, perhaps of an earlier merge, prefix={}",
                self.prefix.display()
            ),
            _ => String::new(),
        }
    }

    /// Removes the parts as far as that is possible. What fails is no error: the checkpoint is there.
    fn remove_parts(&self) {
        let data = self.data_files().unwrap_or_default();
        let mut folders: HashSet<PathBuf> = self.parts.iter().map(|part| folder(part)).collect();
        for part in self.parts {
            // An index must not lose its data files.
            if remove(&naming::index_file(part)).is_err() {
                return;
            }
        }
        if self.sync() {
            for folder in &folders {
                let _ = sync_dir(folder);
            }
        }
        for part in self.parts {
            if let Ok(Some(sidecar)) = layout::sidecar(part) {
                let _ = remove(&sidecar);
            }
        }
        for path in data {
            let _ = remove(&path);
        }
        let own = folder(self.prefix);
        for part in self.parts {
            // Once for each folder.
            if folder(part) != own && folders.remove(&folder(part)) {
                remove_parent(part);
            }
        }
    }

    /// The data files called after a part, whether an index names them or not.
    fn data_files(&self) -> Result<Vec<PathBuf>> {
        let mut bases: HashSet<(PathBuf, OsString)> = HashSet::new();
        let mut folders = Vec::new();
        for part in self.parts {
            let folder = folder(part);
            if !folders.contains(&folder) {
                folders.push(folder.clone());
            }
            bases.insert((folder, base_name(part).to_owned()));
        }
        let mut files = Vec::new();
        for folder in folders {
            if look(&folder)?.is_none() {
                continue;
            }
            for name in list(&folder, b"")? {
                if let Some(base) = naming::data_file_base(&name)
                    && bases.contains(&(folder.clone(), base.to_owned()))
                {
                    files.push(folder.join(&name));
                }
            }
        }
        Ok(files)
    }
}

/// Checks that a part's data file reaches the end of its entries.
fn check_size(file: &PartFile) -> Result<()> {
    let (size, _) = crate::io::read::stat(&file.path)?;
    if size < file.min_size {
        return Err(Error::out_of_range("Read less bytes than requested")
            .with_file(&file.path)
            .with_offset(size));
    }
    Ok(())
}
