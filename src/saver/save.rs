//! Saving a numbered checkpoint, and deleting the one that is too many.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::names::{Naming, checkpoint_file};
use super::retention::Retention;
use super::variables::Variable;
use super::{Built, Saver, SaverOptions, SaverSaveOptions};
use crate::checkpoint::{
    Done, Format, Job, JobOptions, RemoveOptions, SaveData, SaveOptions, SaveRequest, SaveTensor,
    Snapshot, StateFile, remove_checkpoint,
};
use crate::error::{Code, Error, Result};
use crate::io;
use crate::naming;
use crate::shape::Shape;
use crate::state::{self, paths};
use crate::transfer::{Call, Monitor};

/// The elements of a variable at the time of a save.
#[derive(Debug)]
pub struct SaveValue<'a> {
    /// Their shape: that of the variable if it has one.
    pub shape: Shape,
    /// The elements.
    pub data: SaveData<'a>,
}

impl Saver {
    /// Saves the variables, whose `values` come in the order in which the variables were given, to
    /// `save_path` with its step. Returns the path by which the checkpoint is restored; `None` if the
    /// saver is empty.
    ///
    /// The checkpoint and the state file that names it are on disk (unless `no_sync`) before an old
    /// checkpoint is deleted. What cannot be deleted is no error. Jobs of the saver are waited for.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's texts: names that collide, a folder that does not exist;
    /// FAILED_PRECONDITION before the saver is built; the errors of a save. Nothing is recorded then.
    /// The error of a job that nobody fetched from it, once: nothing is saved then.
    pub fn save(
        &mut self,
        save_path: &Path,
        values: Vec<SaveValue<'_>>,
        options: &SaverSaveOptions<'_>,
        call: &mut Call<'_>,
    ) -> Result<Option<PathBuf>> {
        let built = self.built("save")?;
        self.queue.wait(call)?;
        self.queue.check()?;
        let save = Save {
            built,
            saver: &self.options,
            save_path,
            options,
            turn: &|_| Ok(()),
        };
        save.run(values, call)
    }

    /// As [`save`](Self::save), in the background. Jobs of one saver write one after the other, in the
    /// order in which they were submitted, and each deletes what is too many after it.
    ///
    /// # Errors
    ///
    /// Those of arguments that do not fit together; RESOURCE_EXHAUSTED without a thread; the error of an
    /// earlier job that nobody fetched from it, once: nothing is saved then. All that happens later is
    /// the job's error.
    pub fn save_async(
        &mut self,
        save_path: &Path,
        values: Vec<SaveValue<'static>>,
        options: &SaverSaveOptions<'_>,
        snapshot: Snapshot,
        job: JobOptions,
    ) -> Result<Job> {
        let built = self.built("save")?.clone();
        self.queue.check()?;
        let saver = self.options.clone();
        let save_path = save_path.to_owned();
        let latest_filename = options.latest_filename.map(str::to_owned);
        let meta_graph_suffix = options.meta_graph_suffix.map(str::to_owned);
        let (global_step, no_state, no_sync, now_ns) = (
            options.global_step,
            options.no_state,
            options.no_sync,
            options.now_ns,
        );
        let ticket = self.queue.ticket();
        let job = Job::start(job, Monitor::new(0), snapshot.stage(), move |call| {
            call.copies_first = snapshot.copies_first();
            let save = Save {
                built: &built,
                saver: &saver,
                save_path: &save_path,
                options: &SaverSaveOptions {
                    global_step,
                    latest_filename: latest_filename.as_deref(),
                    meta_graph_suffix: meta_graph_suffix.as_deref(),
                    no_state,
                    no_sync,
                    now_ns,
                },
                turn: &|call| ticket.wait(call),
            };
            Done::saved(save.run(values, call))
        })?;
        self.queue.add(&job);
        Ok(job)
    }
}

/// One save of a saver.
struct Save<'a> {
    built: &'a Built,
    saver: &'a SaverOptions,
    save_path: &'a Path,
    options: &'a SaverSaveOptions<'a>,
    /// Waits until the saves before this one are done.
    turn: &'a dyn Fn(&mut Call<'_>) -> Result<()>,
}

impl Save<'_> {
    fn run(&self, values: Vec<SaveValue<'_>>, call: &mut Call<'_>) -> Result<Option<PathBuf>> {
        let Self {
            built,
            saver,
            save_path,
            options,
            ..
        } = *self;
        let sharded = built.saver_def.sharded;
        let prefix = checkpoint_file(
            save_path,
            &Naming {
                global_step: options.global_step,
                pad_step_number: saver.pad_step_number,
                latest_filename: options.latest_filename,
                // The argument's, as in TensorFlow, not the definition's.
                sharded: saver.sharded,
            },
        )?;
        if built.variables.is_empty() {
            return Ok(None);
        }
        let format = match built.saver_def.is_v1 {
            true => Format::V1,
            false => Format::V2,
        };
        let tensors = built.tensors(values)?;
        let request = SaveRequest {
            prefix,
            tensors: &tensors,
            options: &SaveOptions {
                no_sync: options.no_sync,
                shard_by_device: sharded,
                max_shard_size: saver.max_shard_size,
                chunk_checksums: saver.chunk_checksums,
                format,
                ..SaveOptions::default()
            },
            // As TensorFlow: its V1 makes no folders, and its sharded saves would need two levels.
            create_folder: format == Format::V2 && !sharded,
            turn: self.turn,
            state: &|path| {
                let mut after = built.retention.lock().clone();
                after.record(path, 0.0, saver.shrink_to_max_to_keep);
                state_file(save_path, path, &after, saver, options)
            },
        };
        let path = request
            .save(call)
            .map_err(|error| error.reindexed(built.variables.order()))
            .map_err(|error| missing_parent(error, save_path))?;
        if !options.no_state {
            let shrink = saver.shrink_to_max_to_keep;
            let mut retention = built.retention.lock().clone();
            retention.record(&path, options.now(), shrink);
            while let Some(old) = retention.next_to_delete(shrink) {
                delete(&old, &retention, format, options);
                if !shrink {
                    break;
                }
            }
            *built.retention.lock() = retention;
        }
        Ok(Some(path))
    }
}

impl Built {
    /// The tensors of a save, in the order in which they are saved.
    fn tensors<'a>(&'a self, values: Vec<SaveValue<'a>>) -> Result<Vec<SaveTensor<'a>>> {
        let mut values: Vec<Option<SaveValue<'_>>> = values.into_iter().map(Some).collect();
        let variables = self.variables.variables();
        if values.len() != variables.len() {
            return Err(Error::invalid_argument(format!(
                "every variable needs a value; num_values={} num_variables={}",
                values.len(),
                variables.len()
            )));
        }
        let mut tensors = Vec::with_capacity(variables.len());
        for &index in self.variables.order() {
            let value = values.get_mut(index).and_then(Option::take);
            if let (Some(variable), Some(value)) = (variables.get(index), value) {
                check_shape(variable, &value.shape)
                    .map_err(|error| error.with_tensor_index(index))?;
                tensors.push(to_save(variable, value));
            }
        }
        Ok(tensors)
    }
}

fn check_shape(variable: &Variable, shape: &Shape) -> Result<()> {
    match &variable.shape {
        Some(known) if known != shape => Err(Error::invalid_argument(format!(
            "the variable has another shape; shape={shape} variable={known}"
        ))
        .with_key(&variable.key)),
        _ => Ok(()),
    }
}

fn to_save<'a>(variable: &'a Variable, value: SaveValue<'a>) -> SaveTensor<'a> {
    SaveTensor {
        key: &variable.key,
        dtype: variable.dtype,
        shape: value.shape,
        slice_spec: &variable.slice_spec,
        device_name: &variable.device_name,
        data: value.data,
    }
}

/// The state file of a save to `save_path`, whose checkpoint is restored by `path`.
fn state_file(
    save_path: &Path,
    path: &Path,
    after: &Retention,
    saver: &SaverOptions,
    options: &SaverSaveOptions<'_>,
) -> Result<StateFile> {
    let dir = paths::dirname(save_path);
    let file = state::state_file(dir, options.latest_filename);
    if options.no_state {
        return Ok(StateFile {
            path: file,
            content: None,
        });
    }
    let kept: Vec<PathBuf> = after.last().iter().map(|(path, _)| path.clone()).collect();
    let cwd = std::env::current_dir().unwrap_or_default();
    let relative = saver.save_relative_paths;
    let stored = state::stored_state(dir, path, &kept, &[], None, relative, &cwd)?;
    state::conflict(&file, &stored, path)?;
    Ok(StateFile {
        path: file,
        content: Some(stored.to_text().into_bytes()),
    })
}

/// TensorFlow's way to say that the folder is not there.
fn missing_parent(error: Error, save_path: &Path) -> Error {
    let about_folder = matches!(error.code(), Code::FailedPrecondition | Code::NotFound);
    if !about_folder || io::is_folder(paths::dirname(save_path)) {
        return error;
    }
    let text = format!(
        "Parent directory of {} doesn't exist, can't save.",
        save_path.display()
    );
    Error::invalid_argument(text).with_file(paths::dirname(save_path))
}

/// Deletes a checkpoint as far as possible, unless it is one that is kept under another spelling.
fn delete(old: &Path, retention: &Retention, format: Format, options: &SaverSaveOptions<'_>) {
    let place = |path: &Path| {
        let folder = naming::directory(&io::cleaned(path));
        let folder = std::fs::canonicalize(&folder).unwrap_or(folder);
        folder.join(OsStr::from_bytes(paths::basename(path)))
    };
    let kept = retention
        .last()
        .iter()
        .any(|(path, _)| place(path) == place(old));
    if kept {
        return;
    }
    let options = RemoveOptions {
        format,
        meta_graph_suffix: options.meta_graph_suffix,
        no_sync: options.no_sync,
    };
    // The new checkpoint is there; TensorFlow, too, goes on when an old one cannot be deleted.
    let _ = remove_checkpoint(old, &options);
}
