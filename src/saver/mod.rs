//! What `tf.compat.v1.train.Saver` does: saves numbered checkpoints of a fixed list of variables,
//! keeps a few of them, and restores.
//!
//! Source of the behaviour: `tensorflow/python/training/saver.py`. Files, the state file, the order
//! of deletions and the texts of errors are TensorFlow's; what differs is listed in
//! `docs/differences.md`.

#![forbid(unsafe_code)]

#[cfg(test)]
mod job_tests;
mod names;
mod options;
mod queue;
mod restore;
mod retention;
mod save;
#[cfg(test)]
mod tests;
mod variables;

pub use options::{SaverOptions, SaverSaveOptions};
pub use save::SaveValue;
pub use variables::{Saveable, Variable};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::queue::Queue;
use self::retention::Retention;
use self::variables::VariableList;
use crate::checkpoint::{get_checkpoint_mtimes, no_sidecar};
use crate::error::{Error, Result};
use crate::meta_graph::SaverDef;

/// Saves and restores a list of variables, and keeps track of the checkpoints it has saved.
///
/// It knows the variables' descriptions only; their elements come with each call, in the order in
/// which the variables were given.
///
/// Dropping it waits for its jobs; [`cancel`](Self::cancel) shortens that.
#[derive(Debug)]
pub struct Saver {
    options: Arc<SaverOptions>,
    /// `None` until it is built. Shared with the saver's jobs.
    built: Option<Arc<Built>>,
    queue: Queue,
}

/// A saver that is ready for use.
#[derive(Debug)]
struct Built {
    variables: VariableList,
    saver_def: SaverDef,
    /// Changed by one save at a time: that whose turn it is.
    retention: Mutex<Retention>,
}

impl Saver {
    /// A saver of `saveables`; with `defer_build`, of those that [`build`](Self::build) is given.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text: no variables, names given twice, options out of range.
    pub fn new(saveables: Vec<Saveable>, options: SaverOptions) -> Result<Self> {
        if options.defer_build && !saveables.is_empty() {
            return Err(Error::invalid_argument(
                "If `var_list` is provided then build cannot be deferred. Either set \
                 defer_build=False or var_list=None.",
            ));
        }
        let deferred = options.defer_build;
        let mut saver = Self {
            options: Arc::new(options),
            built: None,
            queue: Queue::default(),
        };
        if !deferred {
            saver.build(saveables)?;
        }
        Ok(saver)
    }

    /// Gives a saver that was made with `defer_build` its variables. A second call without any does
    /// nothing, as in TensorFlow.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); FAILED_PRECONDITION for variables that come too late.
    pub fn build(&mut self, saveables: Vec<Saveable>) -> Result<()> {
        if self.built.is_some() {
            return match saveables.is_empty() {
                true => Ok(()),
                false => Err(Error::failed_precondition(
                    "the saver has been built already",
                )),
            };
        }
        if saveables
            .iter()
            .all(|saveable| saveable.variables.is_empty())
            && !self.options.allow_empty
        {
            return Err(Error::invalid_argument("No variables to save"));
        }
        let saver_def = self.options.saver_def()?;
        if saver_def.is_v1 && self.options.chunk_checksums {
            return Err(no_sidecar());
        }
        let variables = VariableList::new(saveables)?;
        if saver_def.sharded {
            variables.check_devices()?;
        }
        let retention = Retention::new(
            saver_def.max_to_keep,
            saver_def.keep_checkpoint_every_n_hours,
            self.options.now(),
        );
        self.built = Some(Arc::new(Built {
            variables,
            saver_def,
            retention: Mutex::new(retention),
        }));
        Ok(())
    }

    /// Whether the saver has variables to save; before it is built there are none.
    pub fn is_empty(&self) -> bool {
        self.built
            .as_ref()
            .is_none_or(|built| built.variables.is_empty())
    }

    /// Whether the saver has been built.
    pub fn is_built(&self) -> bool {
        self.built.is_some()
    }

    /// The path of a save that is given none.
    pub fn filename(&self) -> &Path {
        match self.options.filename.as_os_str().is_empty() {
            true => Path::new("model"),
            false => &self.options.filename,
        }
    }

    /// What TensorFlow calls the saver's definition, for a meta graph; `None` before it is built and
    /// for an empty saver.
    pub fn as_saver_def(&self) -> Option<&SaverDef> {
        let built = self
            .built
            .as_ref()
            .filter(|built| !built.variables.is_empty())?;
        Some(&built.saver_def)
    }

    /// The checkpoints that are kept, oldest first, each with the time at which it was saved, in
    /// seconds since 1970. That of a job is among them when it is complete.
    pub fn last_checkpoints(&self) -> Vec<(PathBuf, f64)> {
        let built = self.built.as_ref();
        built.map_or_else(Vec::new, |built| built.retention.lock().last().to_owned())
    }

    /// Asks all jobs of the saver to stop: those that have not published their checkpoint yet end with
    /// CANCELLED.
    pub fn cancel(&self) {
        self.queue.cancel();
    }

    /// Replaces the list of checkpoints that are kept. Their time is infinity: none of them will be
    /// deleted, as in TensorFlow, which advises
    /// [`set_last_checkpoints_with_time`](Self::set_last_checkpoints_with_time) instead. Waits for the
    /// saver's jobs first.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION before the saver is built.
    pub fn set_last_checkpoints(&mut self, paths: Vec<PathBuf>) -> Result<()> {
        let timed = paths.into_iter().map(|path| (path, f64::INFINITY));
        self.set_last_checkpoints_with_time(timed.collect())
    }

    /// Replaces the list of checkpoints that are kept, oldest first, with times in seconds since 1970.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION before the saver is built.
    pub fn set_last_checkpoints_with_time(
        &mut self,
        checkpoints: Vec<(PathBuf, f64)>,
    ) -> Result<()> {
        let built = self.built("set_last_checkpoints")?;
        // A job that is under way goes on from the list that it knows.
        self.queue.drain();
        built.retention.lock().set_last(checkpoints);
        Ok(())
    }

    /// Replaces the list of checkpoints that are kept by those of `paths` that exist, with the times of
    /// their files: what a restarted process does with the paths of the state file.
    ///
    /// # Errors
    ///
    /// The system's errors other than NOT_FOUND; FAILED_PRECONDITION before the saver is built.
    pub fn recover_last_checkpoints(&mut self, paths: Vec<PathBuf>) -> Result<()> {
        let mut found = Vec::with_capacity(paths.len());
        for path in paths {
            let times = get_checkpoint_mtimes(std::slice::from_ref(&path))?;
            found.extend(times.first().map(|&time| (path, time)));
        }
        self.set_last_checkpoints_with_time(found)
    }

    fn built(&self, call: &str) -> Result<&Arc<Built>> {
        self.built.as_ref().ok_or_else(|| not_built(call))
    }
}

fn not_built(call: &str) -> Error {
    Error::failed_precondition(format!(
        "`build()` should be called before {call} if defer_build==True"
    ))
}
