//! Saves one process's part of a checkpoint that several processes save together.
//!
//! The parts have the names of TensorFlow's sharded saves, `PREFIX_temp/part-SSSSS-of-NNNNN`, and each is a
//! checkpoint of its own. [`merge`](super::merge()) makes one of them.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::layout::Layout;
use super::manage::Format;
use super::publish::Publication;
use super::save::{Request, SaveOptions, StateFile, numbered};
use super::tensor::SaveTensor;
use crate::bundle::{BundleWriter, DataExtent};
use crate::error::{Error, Result};
use crate::io::dir::{create_parent, remove_parent};
use crate::io::write::TempFile;
use crate::naming;
use crate::state;
use crate::transfer::Call;

/// Saves `tensors` as part `shard` of `num_shards` of the checkpoint `prefix`, and returns the part's
/// prefix, for [`merge`](super::merge()).
///
/// The part is `<prefix>_temp_<save_id>/part-SSSSS-of-NNNNN`, in a folder beside the checkpoint. All parts
/// of a save, and no other save to the prefix, should have the same `save_id`. Without one the folder is
/// TensorFlow's `<prefix>_temp`; then no save may begin before the parts of the one before it are merged
/// or removed. A part without tensors is written too, because the merge needs to know that it is there.
///
/// # Errors
///
/// As [`super::save()`]; INVALID_ARGUMENT for a shard that is not below `num_shards`, a `save_id` that is
/// not a file name, a format other than V2, or options that write the state file, which the merge does.
pub fn save_shard(
    prefix: &Path,
    shard: u32,
    num_shards: u32,
    save_id: Option<&str>,
    tensors: &[SaveTensor<'_>],
    options: &SaveOptions,
    call: &mut Call<'_>,
) -> Result<PathBuf> {
    if shard >= num_shards {
        return Err(Error::invalid_argument(format!(
            "the shard must be less than their number; shard={shard} num_shards={num_shards}"
        )));
    }
    if let Some(id) = save_id.filter(|id| id.is_empty() || id.contains(['/', '\0'])) {
        return Err(Error::invalid_argument(format!(
            "the save_id cannot be part of a file name; save_id={id}"
        )));
    }
    if options.update_state {
        return Err(Error::invalid_argument(
            "a part is not a checkpoint to be named in the state file; update_state is for the merge",
        ));
    }
    if options.format != Format::V2 {
        return Err(Error::invalid_argument(
            "only parts of format V2 can be merged",
        ));
    }
    let mut folder = numbered(prefix, options)?.into_os_string();
    folder.push("_temp");
    if let Some(id) = save_id {
        folder.push("_");
        folder.push(id);
    }
    let part = naming::part_prefix(&PathBuf::from(folder).join("part"), shard, num_shards);
    if tensors.is_empty() {
        let started = Instant::now();
        let saved = save_empty(&part, options, call);
        call.finish(started);
        return saved.map(|()| part);
    }
    let request = Request {
        prefix: part,
        tensors,
        options,
        create_folder: true,
        turn: &|_| Ok(()),
        state: &|part| Ok(no_state(part)),
    };
    request.save(call)
}

/// The state file that a part would have, which is never written.
fn no_state(part: &Path) -> StateFile {
    StateFile {
        path: state::state_file(state::paths::dirname(part), None),
        content: None,
    }
}

/// Writes a part without tensors: an index with nothing but the header, and the empty data file of
/// which that speaks.
fn save_empty(part: &Path, options: &SaveOptions, call: &mut Call<'_>) -> Result<()> {
    let made_folder = create_parent(part, !options.no_sync)?;
    let saved = publish_empty(part, options, call);
    if saved.is_err() && made_folder {
        remove_parent(part);
    }
    saved
}

fn publish_empty(part: &Path, options: &SaveOptions, call: &mut Call<'_>) -> Result<()> {
    let commit = TempFile::create(&naming::index_file(part))?;
    let no_extent = |_| DataExtent::default();
    let bundle = BundleWriter::<SaveTensor<'_>>::with_capacity(0);
    let index = bundle.finish(1, &no_extent, commit.appender());
    let mut index = index.map_err(|error| error.with_file(commit.path()))?;
    std::io::Write::flush(&mut index).map_err(|error| Error::io(&error, commit.path()))?;
    drop(index);
    call.progress.report()?;
    Publication {
        prefix: part.to_owned(),
        layout: Layout::v2(&super::v2_data_files),
        data: vec![TempFile::create(&naming::data_file(part, 0, 1))?],
        commit,
        state_file: no_state(part).path,
        state: None,
        sync: !options.no_sync,
        check: &|| Ok(()),
    }
    .publish()
}
