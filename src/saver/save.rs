//! Saving a numbered checkpoint, and deleting the one that is too many.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::names::{Naming, checkpoint_file};
use super::retention::Retention;
use super::variables::Variable;
use super::{Saver, SaverOptions, SaverSaveOptions, not_built};
use crate::checkpoint::{
    Format, RemoveOptions, SaveData, SaveOptions, SaveRequest, SaveTensor, StateFile,
    remove_checkpoint,
};
use crate::error::{Code, Error, Result};
use crate::io;
use crate::naming;
use crate::shape::Shape;
use crate::state::{self, paths};
use crate::transfer::Call;

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
    /// checkpoint is deleted. What cannot be deleted is no error.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's texts: names that collide, a folder that does not exist;
    /// FAILED_PRECONDITION before the saver is built; the errors of a save. Nothing is recorded then.
    pub fn save(
        &mut self,
        save_path: &Path,
        values: Vec<SaveValue<'_>>,
        options: &SaverSaveOptions<'_>,
        call: &mut Call<'_>,
    ) -> Result<Option<PathBuf>> {
        let saver_options = &self.options;
        let built = self.built.as_mut().ok_or_else(|| not_built("save"))?;
        let sharded = built.saver_def.sharded;
        let prefix = checkpoint_file(
            save_path,
            &Naming {
                global_step: options.global_step,
                pad_step_number: saver_options.pad_step_number,
                latest_filename: options.latest_filename,
                // The argument's, as in TensorFlow, not the definition's.
                sharded: saver_options.sharded,
            },
        )?;
        if built.variables.is_empty() {
            return Ok(None);
        }
        let format = match built.saver_def.is_v1 {
            true => Format::V1,
            false => Format::V2,
        };
        let mut values: Vec<Option<SaveValue<'_>>> = values.into_iter().map(Some).collect();
        let variables = built.variables.variables();
        if values.len() != variables.len() {
            return Err(Error::invalid_argument(format!(
                "every variable needs a value; num_values={} num_variables={}",
                values.len(),
                variables.len()
            )));
        }
        let mut tensors = Vec::with_capacity(variables.len());
        for &index in built.variables.order() {
            let value = values.get_mut(index).and_then(Option::take);
            if let (Some(variable), Some(value)) = (variables.get(index), value) {
                check_shape(variable, &value.shape)
                    .map_err(|error| error.with_tensor_index(index))?;
                tensors.push(to_save(variable, value));
            }
        }
        let mut retention = built.retention.clone();
        let request = SaveRequest {
            prefix,
            tensors: &tensors,
            options: &SaveOptions {
                no_sync: options.no_sync,
                shard_by_device: sharded,
                max_shard_size: saver_options.max_shard_size,
                chunk_checksums: saver_options.chunk_checksums,
                format,
                ..SaveOptions::default()
            },
            // As TensorFlow: its V1 makes no folders, and its sharded saves would need two levels.
            create_folder: format == Format::V2 && !sharded,
            state: &|path| {
                let mut after = built.retention.clone();
                after.record(path, 0.0, saver_options.shrink_to_max_to_keep);
                state_file(save_path, path, &after, saver_options, options)
            },
        };
        let path = request
            .save(call)
            .map_err(|error| error.reindexed(built.variables.order()))
            .map_err(|error| missing_parent(error, save_path))?;
        if !options.no_state {
            let shrink = saver_options.shrink_to_max_to_keep;
            retention.record(&path, options.now(), shrink);
            while let Some(old) = retention.next_to_delete(shrink) {
                delete(&old, &retention, format, options);
                if !shrink {
                    break;
                }
            }
            built.retention = retention;
        }
        Ok(Some(path))
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
