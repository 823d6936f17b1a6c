//! The arguments of a saver and of its saves.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::checkpoint::Format;
use crate::error::{Error, Result};
use crate::meta_graph::SaverDef;

/// How a [`Saver`](super::Saver) is made. The defaults are TensorFlow's.
#[derive(Clone, Debug)]
pub struct SaverOptions {
    /// Whether a stored tensor of another shape but the same number of elements may be restored.
    pub reshape: bool,
    /// Whether the variables of each device get a data file of their own.
    pub sharded: bool,
    /// Checkpoints to keep; 0 = all of them, and the state file then names the latest only.
    pub max_to_keep: i64,
    /// One checkpoint is kept for good for every so many hours of training. Stored as `f32`.
    pub keep_checkpoint_every_n_hours: f64,
    /// Scope of the names in the saver's definition; with [`saver_def`](Self::saver_def), put before them.
    pub name: Option<String>,
    /// Whether a restore takes one variable after the other within each device.
    pub restore_sequentially: bool,
    /// A definition in place of `sharded`, `max_to_keep`, `keep_checkpoint_every_n_hours` and
    /// `write_version`: a serialised `tensorflow.SaverDef`.
    pub saver_def: Option<Vec<u8>>,
    /// The path of a save that is given none; if it is empty, `model`.
    pub filename: PathBuf,
    /// Whether the variables are given later, by [`Saver::build`](super::Saver::build).
    pub defer_build: bool,
    /// Whether a saver without variables is no error; its saves and restores then do nothing.
    pub allow_empty: bool,
    /// The format of the checkpoints. Either is restored.
    pub write_version: Format,
    /// Whether the step is written with at least eight digits.
    pub pad_step_number: bool,
    /// Whether the state file is to hold relative paths.
    pub save_relative_paths: bool,
    /// Whether a save deletes until `max_to_keep` checkpoints are left, where TensorFlow deletes one.
    pub shrink_to_max_to_keep: bool,
    /// As [`SaveOptions::max_shard_size`](crate::SaveOptions::max_shard_size).
    pub max_shard_size: u64,
    /// As [`SaveOptions::chunk_checksums`](crate::SaveOptions::chunk_checksums).
    pub chunk_checksums: bool,
    /// Time at which the saver is built, in nanoseconds since 1970; `None` = the system's clock.
    pub now_ns: Option<i64>,
}

impl Default for SaverOptions {
    fn default() -> Self {
        Self {
            reshape: false,
            sharded: false,
            max_to_keep: 5,
            keep_checkpoint_every_n_hours: 10_000.0,
            name: None,
            restore_sequentially: false,
            saver_def: None,
            filename: PathBuf::from("model"),
            defer_build: false,
            allow_empty: false,
            write_version: Format::V2,
            pad_step_number: false,
            save_relative_paths: false,
            shrink_to_max_to_keep: false,
            max_shard_size: 0,
            chunk_checksums: false,
            now_ns: None,
        }
    }
}

impl SaverOptions {
    /// The time of building, in seconds since 1970.
    pub(super) fn now(&self) -> f64 {
        seconds(self.now_ns)
    }

    /// The definition that was given, or the one that the other fields make.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a definition that cannot be used and for numbers out of range.
    pub(super) fn saver_def(&self) -> Result<SaverDef> {
        let name = self.name.as_deref();
        if let Some(bytes) = &self.saver_def {
            let mut saver_def = SaverDef::decode(bytes)?;
            if let Some(scope) = name.filter(|scope| !scope.is_empty()) {
                saver_def.prepend_scope(scope);
            }
            saver_def.check()?;
            return Ok(saver_def);
        }
        let max_to_keep = i32::try_from(self.max_to_keep).ok().filter(|&max| max >= 0);
        let max_to_keep = max_to_keep.ok_or_else(|| {
            Error::invalid_argument(format!(
                "max_to_keep is out of range; max_to_keep={}",
                self.max_to_keep
            ))
        })?;
        #[expect(clippy::cast_possible_truncation, reason = "the field is a float")]
        let every_n_hours = self.keep_checkpoint_every_n_hours as f32;
        SaverDef::new(
            name,
            max_to_keep,
            self.sharded,
            every_n_hours,
            self.write_version == Format::V1,
        )
    }
}

/// How one checkpoint is saved. The defaults are TensorFlow's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SaverSaveOptions<'a> {
    /// Appended to the path as `-<step>`.
    pub global_step: Option<i64>,
    /// Name of the state file; `checkpoint` if there is none.
    pub latest_filename: Option<&'a str>,
    /// Suffix of the meta graphs of checkpoints that are deleted; `meta` if there is none.
    pub meta_graph_suffix: Option<&'a str>,
    /// Whether neither the state file is written nor anything deleted.
    pub no_state: bool,
    /// Whether to leave out every fsync.
    pub no_sync: bool,
    /// Time of the save, in nanoseconds since 1970; `None` = the system's clock.
    pub now_ns: Option<i64>,
}

impl SaverSaveOptions<'_> {
    /// The time of the save, in seconds since 1970.
    pub(super) fn now(&self) -> f64 {
        seconds(self.now_ns)
    }
}

/// Seconds since 1970.
#[expect(
    clippy::cast_precision_loss,
    reason = "Python's clock is a double, too"
)]
fn seconds(now_ns: Option<i64>) -> f64 {
    match now_ns {
        Some(ns) => ns as f64 / 1e9,
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64()),
    }
}
