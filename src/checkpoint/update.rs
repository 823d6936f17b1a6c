//! The state file's new content when a plain save is to be the latest checkpoint.

use std::path::Path;

use super::find;
use crate::error::Result;
use crate::state::{self, CheckpointState};

/// The text that names `prefix` as the latest checkpoint, after those entries of the present state
/// file that still exist, oldest first. Entries keep the spelling they have; a state file that cannot
/// be parsed is replaced.
///
/// # Errors
///
/// INVALID_ARGUMENT for a path that is not UTF-8; the system's errors.
pub fn with_latest(state_file: &Path, prefix: &Path, relative: bool) -> Result<String> {
    let dir = state::paths::dirname(prefix);
    let cwd = std::env::current_dir().unwrap_or_default();
    let own = state::stored_state(dir, prefix, &[], &[], None, relative, &cwd)?;
    state::conflict(state_file, &own, prefix)?;
    let latest = own.model_checkpoint_path;
    let before = match state::read(state_file) {
        Ok(before) => before.unwrap_or_default(),
        Err(error) if error.code() == crate::error::Code::DataLoss => CheckpointState::default(),
        Err(error) => return Err(error),
    };
    let mut paths = before.all_model_checkpoint_paths;
    paths.retain(|path| {
        *path != latest && find::exists(&state::paths::join(dir, Path::new(path))).unwrap_or(true)
    });
    paths.push(latest.clone());
    let state = CheckpointState {
        model_checkpoint_path: latest,
        all_model_checkpoint_paths: paths,
        ..CheckpointState::default()
    };
    Ok(state.to_text())
}
