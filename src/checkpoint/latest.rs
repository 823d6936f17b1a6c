//! The latest checkpoint of a folder, by its state file.

use std::path::{Path, PathBuf};

use super::find::{check_complete, exists};
use super::previous;
use super::v1_files::Sharded;
use crate::error::{Code, Error, Result};
use crate::naming;
use crate::state::{self, CheckpointState};

/// How the latest checkpoint is found.
#[derive(Clone, Copy, Debug, Default)]
pub struct LatestOptions<'a> {
    /// Name of the state file; `checkpoint` if there is none.
    pub latest_filename: Option<&'a str>,
    /// Whether to take the last complete entry of the state file if the one it names is not.
    pub fall_back: bool,
    /// Whether to try a path that is gone as the folder and the path's last part, for a folder that
    /// was moved.
    pub rebase: bool,
}

/// The latest checkpoint.
#[derive(Clone, Debug)]
pub struct Latest {
    /// Its prefix.
    pub prefix: PathBuf,
    /// Why it is not the one that the state file names, if it is not.
    pub fell_back: Option<Error>,
}

/// Finds the latest checkpoint of `dir`.
///
/// # Errors
///
/// NOT_FOUND without a state file; DATA_LOSS when the checkpoint that it names is incomplete, or the
/// state file cannot be parsed; INVALID_ARGUMENT for one without a path; PERMISSION_DENIED.
pub fn latest_checkpoint(dir: &Path, options: LatestOptions<'_>) -> Result<Latest> {
    let mut state = read_state(dir, options)?;
    loop {
        let error = match find(dir, &state, options) {
            Ok(latest) => return Ok(latest),
            Err(error) => error,
        };
        // What was gone may be so because a save has put something newer in its place.
        let now = read_state(dir, options)?;
        if now == state {
            return Err(error);
        }
        state = now;
    }
}

fn read_state(dir: &Path, options: LatestOptions<'_>) -> Result<CheckpointState> {
    let file = state::state_file(dir, options.latest_filename);
    state::get_checkpoint_state(dir, options.latest_filename)?.ok_or_else(|| {
        Error::not_found(format!("no checkpoint state file; dir={}", dir.display()))
            .with_file(&file)
    })
}

/// The checkpoint that `state` names, or one that stands in for it.
fn find(dir: &Path, state: &CheckpointState, options: LatestOptions<'_>) -> Result<Latest> {
    let named = match try_path(dir, &state.model_checkpoint_path, options.rebase) {
        Ok(prefix) => {
            return Ok(Latest {
                prefix,
                fell_back: None,
            });
        }
        Err(error) => error,
    };
    // What cannot be read now may be there nevertheless: an older one must not take its place.
    let lost = matches!(named.code(), Code::DataLoss | Code::InvalidArgument);
    if options.fall_back && lost {
        for path in state.all_model_checkpoint_paths.iter().rev() {
            if *path == state.model_checkpoint_path {
                continue;
            }
            if let Ok(prefix) = try_path(dir, path, options.rebase) {
                return Ok(Latest {
                    prefix,
                    fell_back: Some(named),
                });
            }
        }
    }
    Err(named)
}

/// The prefix to use for a recorded path, which must be complete.
fn try_path(dir: &Path, path: &str, rebase: bool) -> Result<PathBuf> {
    let incomplete = |prefix: &Path, error: Error| {
        // What says nothing about the files, such as too few descriptors, must not look like a loss.
        let code = match error.code() {
            Code::NotFound
            | Code::OutOfRange
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unimplemented => Code::DataLoss,
            other => other,
        };
        error.with_code(code).with_prefix(format_args!(
            "latest checkpoint is incomplete; prefix={}: ",
            prefix.display()
        ))
    };
    let recorded = Path::new(path);
    // An interrupted save may have recorded the copy of what it was overwriting; the prefix itself
    // opens through that copy, or is whole again.
    if let Some(original) = original(recorded)
        && check_complete(&original).is_ok()
    {
        return Ok(original);
    }
    let error = match check_complete(recorded) {
        Ok(()) => return Ok(recorded.to_owned()),
        Err(error) => error,
    };
    let moved = recorded.file_name().map(|name| dir.join(name));
    if let Some(moved) = moved.filter(|_| rebase && matches!(exists(recorded), Ok(false))) {
        return match check_complete(&moved) {
            Ok(()) => Ok(moved),
            Err(error) => Err(incomplete(&moved, error)),
        };
    }
    Err(incomplete(recorded, error))
}

/// PREFIX, or the pattern of its V1 shards, if `recorded` is that of a `PREFIX.prev-<id>`.
fn original(recorded: &Path) -> Option<PathBuf> {
    match Sharded::of(recorded) {
        Some(sharded) => {
            let original = previous::original(&sharded.base)?;
            Some(naming::append(original, &sharded.tail))
        }
        None => previous::original(recorded).map(Path::to_owned),
    }
}
