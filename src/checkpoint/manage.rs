//! The functions of `tf.train` that look after checkpoints and their state file.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::layout::{Layout, sidecar};
use super::v1_files::{self, Sharded, v1_files};
use super::{find, previous};
use crate::error::Result;
use crate::io::dir::{list, look, remove, sync_dir};
use crate::io::read::stat;
use crate::io::write::replace_file;
use crate::naming;
use crate::state;

/// What goes into a state file beside the latest checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpdateOptions<'a> {
    /// All checkpoints that are kept, oldest first; the latest is appended if it is not the last.
    pub all_model_checkpoint_paths: &'a [PathBuf],
    /// Seconds since 1970 for each of them, or none.
    pub all_model_checkpoint_timestamps: &'a [f64],
    /// Seconds since 1970 of the last checkpoint preserved for good.
    pub last_preserved_timestamp: Option<f64>,
    /// Name of the state file; `checkpoint` if there is none.
    pub latest_filename: Option<&'a str>,
    /// Whether absolute paths are stored relative to `save_dir`.
    pub save_relative_paths: bool,
    /// Whether to leave out the fsync.
    pub no_sync: bool,
}

/// Writes the state file of `save_dir`, byte for byte as `tf.train.update_checkpoint_state` does.
///
/// # Errors
///
/// INVALID_ARGUMENT and FAILED_PRECONDITION with TensorFlow's texts; the system's errors.
pub fn update_checkpoint_state(
    save_dir: &Path,
    model_checkpoint_path: &Path,
    options: &UpdateOptions<'_>,
) -> Result<()> {
    if let Some(name) = options.latest_filename {
        state::check_latest_filename(name)?;
    }
    let cwd = std::env::current_dir().unwrap_or_default();
    let stored = state::stored_state(
        save_dir,
        model_checkpoint_path,
        options.all_model_checkpoint_paths,
        options.all_model_checkpoint_timestamps,
        options.last_preserved_timestamp,
        options.save_relative_paths,
        &cwd,
    )?;
    let file = state::state_file(save_dir, options.latest_filename);
    state::conflict(&file, &stored, model_checkpoint_path)?;
    replace_file(&file, stored.to_text().as_bytes(), !options.no_sync)
}

/// Time of last change, in whole seconds since 1970 as TensorFlow has it, of each checkpoint that
/// exists, in order: of its index, or else of the V1 file of that name.
///
/// # Errors
///
/// The system's errors other than NOT_FOUND.
pub fn get_checkpoint_mtimes(prefixes: &[PathBuf]) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        let index = naming::index_file(prefix);
        let file = match look(&index)? {
            Some(_) => Some(index),
            None => v1_files(prefix)?.into_iter().next(),
        };
        if let Some(file) = file {
            let (_, modified) = stat(&file)?;
            let since = modified
                .duration_since(UNIX_EPOCH)
                .unwrap_or(Duration::ZERO);
            times.push(Duration::from_secs(since.as_secs()).as_secs_f64());
        }
    }
    Ok(times)
}

/// The format whose files [`remove_checkpoint`] removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Index and data files.
    #[default]
    V2,
    /// One file, or one per shard.
    V1,
}

/// How a checkpoint is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions<'a> {
    /// Whose files to remove; those of the other format stay.
    pub format: Format,
    /// Suffix of the meta graph's file; `meta` if there is none.
    pub meta_graph_suffix: Option<&'a str>,
    /// Whether to leave out the fsync.
    pub no_sync: bool,
}

/// Removes the files of the checkpoint at `prefix`, which is taken literally, in TensorFlow's order:
/// the meta graph, then the index, then the data files, with the sidecar before them. What is not there is no error.
///
/// # Errors
///
/// The system's errors; what was not reached is then still there.
pub fn remove_checkpoint(prefix: &Path, options: &RemoveOptions<'_>) -> Result<()> {
    let dir = naming::directory(&naming::index_file(prefix));
    if look(&dir)?.is_none() {
        return Ok(());
    }
    let sync = !options.no_sync;
    let state_file = state::state_file(state::paths::dirname(prefix), None);
    remove_previous(prefix, options.format, &state_file, sync)?;
    remove(&state::meta_graph_filename(
        prefix,
        options.meta_graph_suffix.unwrap_or("meta"),
    ))?;
    match options.format {
        Format::V1 => {
            for path in v1_files(prefix)? {
                remove(&path)?;
            }
        }
        Format::V2 => {
            remove(&naming::index_file(prefix))?;
            if sync {
                // No index may come back without its data files.
                sync_dir(&dir)?;
            }
            if let Some(sidecar) = sidecar(prefix)? {
                remove(&sidecar)?;
            }
            for path in data_files(prefix, &dir)? {
                remove(&path)?;
            }
        }
    }
    if sync { sync_dir(&dir) } else { Ok(()) }
}

/// Removes what an interrupted save of this format left of the checkpoint before it.
fn remove_previous(prefix: &Path, format: Format, state_file: &Path, sync: bool) -> Result<()> {
    let (v2, whole) = (
        Layout::v2(&super::v2_data_files),
        Layout::v1(&v1_files::whole_file),
    );
    match (format, Sharded::of(prefix)) {
        (Format::V2, _) => previous::remove_left_over(prefix, &v2, state_file, sync),
        (Format::V1, None) => previous::remove_left_over(prefix, &whole, state_file, sync),
        (Format::V1, Some(sharded)) => {
            let data_files = |commit: &Path| sharded.data_files(commit);
            let layout = sharded.layout(&data_files);
            previous::remove_left_over(&sharded.base, &layout, state_file, sync)
        }
    }
}

/// All data files of `prefix`, whatever number of shards they are of.
fn data_files(prefix: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut beginning = super::layout::base_name(prefix)
        .as_encoded_bytes()
        .to_owned();
    beginning.extend_from_slice(b".data-");
    let skip = beginning.len();
    let mut names = list(dir, &beginning)?;
    names.retain(|name| {
        let rest = name.as_encoded_bytes().get(skip..).unwrap_or_default();
        std::str::from_utf8(rest)
            .ok()
            .and_then(|rest| rest.split_once("-of-"))
            .is_some_and(|(shard, num)| {
                [shard, num]
                    .iter()
                    .all(|text| text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit()))
            })
    });
    names.sort_unstable();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// See [`find::exists`].
pub fn checkpoint_exists(prefix: &Path) -> Result<bool> {
    find::exists(prefix)
}
