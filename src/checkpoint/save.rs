//! Saves a list of tensors as a checkpoint: as V2 here, as V1 in [`save_v1`](super::save_v1).
//!
//! Names, dtypes, shapes and slices of all tensors are checked before anything is written. The data
//! files and then the index are written under temporary names, and become the checkpoint in one step
//! at the end ([`publish`](super::publish)).

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::device_name;
use super::layout::Layout as FileLayout;
use super::manage::Format;
use super::publish::Publication;
use super::sidecar;
use super::tensor::{SaveData, SaveTensor};
use super::update;
use crate::bundle::sidecar::CHUNK_SIZE;
use crate::bundle::{BundleWriter, Described, StringsToSave};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::dir::{create_parent, remove_parent};
use crate::io::write::TempFile;
use crate::naming;
use crate::shape::Shape;
use crate::state;
use crate::transfer::write::{self, Layout, Source, WriteOptions, WriteTensor, Written};
use crate::transfer::{Call, Stage};

/// How a checkpoint is saved. The defaults are TensorFlow's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SaveOptions {
    /// Appended to the prefix as `-<step>`.
    pub global_step: Option<i64>,
    /// Whether the step is written with at least eight digits.
    pub pad_step_number: bool,
    /// Whether the state file `checkpoint` beside the prefix is to name this checkpoint.
    pub update_state: bool,
    /// Whether the state file is to hold relative paths.
    pub save_relative_paths: bool,
    /// Whether to leave out every fsync. The checkpoint then survives a crash of the process, but
    /// not one of the system.
    pub no_sync: bool,
    /// Whether every device string gets a data file of its own.
    pub shard_by_device: bool,
    /// Most bytes of a data file, alignment included, as far as whole tensors allow; 0 = no limit.
    pub max_shard_size: u64,
    /// The format. A sharded V1 checkpoint is restored by the pattern that the save returns.
    pub format: Format,
    /// Alignment of every tensor in its data file in bytes, a power of two up to a MiB; 0 and 1 pack,
    /// as TensorFlow does, which reads either.
    pub alignment: u64,
    /// Whether to write the sidecar `PREFIX.crc32c` too, of checksums of each MiB of large tensors, so
    /// that [`Verify::Fetched`](super::Verify) verifies slices without reading all of a tensor. Format V2
    /// only; TensorFlow does not look at it.
    pub chunk_checksums: bool,
}

/// Largest alignment in bytes.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// Saves `tensors` to `prefix` and returns the prefix with its step.
///
/// # Errors
///
/// INVALID_ARGUMENT for tensors or options that do not fit together; the system's errors naming the
/// file; CANCELLED. Every earlier checkpoint is then as it was.
pub fn save(
    prefix: &Path,
    tensors: &[SaveTensor<'_>],
    options: &SaveOptions,
    call: &mut Call<'_>,
) -> Result<PathBuf> {
    let request = Request {
        prefix: numbered(prefix, options)?,
        tensors,
        options,
        create_folder: true,
        turn: &|_| Ok(()),
        state: &|prefix| plain_state(prefix, options),
    };
    request.save(call)
}

/// What the state file will be. It counts also when it is not written: it may name the checkpoint
/// that the save replaces.
pub struct StateFile {
    /// Its path.
    pub path: PathBuf,
    /// Its new content; `None` if the save does not write it.
    pub content: Option<Vec<u8>>,
}

/// A save whose caller decides on names and on the state file.
pub struct Request<'a> {
    /// The final prefix.
    pub prefix: PathBuf,
    /// What is saved.
    pub tensors: &'a [SaveTensor<'a>],
    /// How; the fields on names and on the state file are not looked at.
    pub options: &'a SaveOptions,
    /// Whether a missing folder of the prefix is made, one level of it.
    pub create_folder: bool,
    /// Waits until the save may change something on disk: others may have to be done first.
    pub turn: &'a dyn Fn(&mut Call<'_>) -> Result<()>,
    /// The state file once the checkpoint of the given path is there. Asked last, before anything
    /// changes.
    pub state: &'a dyn Fn(&Path) -> Result<StateFile>,
}

impl Request<'_> {
    /// Saves, and returns the path by which the checkpoint is restored.
    ///
    /// # Errors
    ///
    /// As [`save()`].
    pub fn save(&self, call: &mut Call<'_>) -> Result<PathBuf> {
        let started = Instant::now();
        let saved = match self.options.format {
            Format::V2 => self.save_v2(call),
            Format::V1 => self.save_v1(call),
        };
        call.finish(started);
        saved
    }
}

/// The state file of a call without a saver: `checkpoint` beside the prefix.
///
/// # Errors
///
/// As [`update::with_latest`].
pub(super) fn plain_state(prefix: &Path, options: &SaveOptions) -> Result<StateFile> {
    let path = state::state_file(state::paths::dirname(prefix), None);
    let content = match options.update_state {
        true => Some(update::with_latest(&path, prefix, options.save_relative_paths)?.into_bytes()),
        false => None,
    };
    Ok(StateFile { path, content })
}

impl Request<'_> {
    fn save_v2(&self, call: &mut Call<'_>) -> Result<PathBuf> {
        let Self {
            prefix,
            tensors,
            options,
            ..
        } = self;
        let (prefix, tensors) = (prefix.as_path(), *tensors);
        let alignment = check_alignment(options.alignment)?;
        if tensors.is_empty() {
            return Err(Error::invalid_argument("No variables to save"));
        }
        let mut bundle = BundleWriter::with_capacity(tensors.len());
        let shards = assign_shards(tensors, options)?;
        describe(tensors, &shards, &mut bundle)?;
        let writes: Vec<WriteTensor<'_>> = tensors
            .iter()
            .zip(&shards)
            .map(|(tensor, &shard_id)| to_write(tensor, shard_id))
            .collect();
        let layout = Layout::new(&writes, alignment)?;
        let num_shards = u32::try_from(layout.shard_sizes.len()).unwrap_or(u32::MAX);

        // Before the next save may be made, so that it leaves this one what it needs.
        write::announce(call, &writes)?;
        call.monitor().reach(Stage::Accepted);
        let mut made_folder = false;
        let mut open = |call: &mut Call<'_>| -> Result<Vec<TempFile>> {
            (self.turn)(call)?;
            made_folder = self.create_folder && create_parent(prefix, !options.no_sync)?;
            let mut files = Vec::with_capacity(layout.shard_sizes.len());
            for (shard_id, &size) in (0..num_shards).zip(&layout.shard_sizes) {
                let file = TempFile::create(&naming::data_file(prefix, shard_id, num_shards))?;
                file.reserve(size)?;
                files.push(file);
            }
            Ok(files)
        };
        let write = || -> Result<()> {
            call.stats.num_tensors = tensors.len() as u64;
            let bytes = layout.places.iter().map(|&(_, size)| size).sum();
            call.stats.bytes += bytes;
            call.progress.start(bytes, tensors.len() as u64)?;
            let write_options = WriteOptions {
                will_sync: !options.no_sync,
                check: if options.chunk_checksums {
                    CHUNK_SIZE
                } else {
                    0
                },
            };
            let written = write::execute(call, &writes, &layout, &mut open, &write_options);
            let Written {
                mut files,
                crcs,
                ranges,
                durable,
            } = written.map_err(|error| with_key_of(error, tensors))?;
            call.monitor().reach(Stage::Copied);

            let extent = |index: usize| {
                let shard_id = shards.get(index).copied().unwrap_or_default();
                let crc = crcs.get(index).copied().unwrap_or_default();
                layout.extent(index, shard_id, crc)
            };
            if options.chunk_checksums {
                files.push(sidecar::save(prefix, &bundle, &extent, ranges)?);
            }
            let commit = TempFile::create(&naming::index_file(prefix))?;
            let mut index = bundle
                .finish(num_shards, &extent, commit.appender())
                .map_err(|error| error.with_file(commit.path()))?;
            std::io::Write::flush(&mut index).map_err(|error| Error::io(&error, commit.path()))?;
            drop(index);

            call.progress.report()?;
            let layout = FileLayout::v2(&super::v2_data_files);
            self.publish_as(prefix, layout, files, commit, prefix, call)?;
            if let Some(durable) = durable {
                durable.end();
            }
            Ok(())
        };
        let saved = write();
        if saved.is_err() && made_folder {
            remove_parent(prefix);
        }
        saved.map(|()| prefix.to_owned())
    }

    /// Makes the temporary files the checkpoint `prefix`, which `restored_by` is the path of.
    pub(super) fn publish_as(
        &self,
        prefix: &Path,
        layout: FileLayout<'_>,
        files: Vec<TempFile>,
        commit: TempFile,
        restored_by: &Path,
        call: &mut Call<'_>,
    ) -> Result<()> {
        let StateFile {
            path: state_file,
            content: state,
        } = (self.state)(restored_by)?;
        let sync = !self.options.no_sync;
        let started = Instant::now();
        let progress = RefCell::new(&mut call.progress);
        let publication = Publication {
            prefix: prefix.to_owned(),
            layout,
            data: files,
            commit,
            state_file,
            state,
            sync,
            check: &|| progress.borrow_mut().report(),
        };
        let published = publication.publish();
        if sync {
            call.stats.sync_ns += u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        }
        published
    }
}

/// The prefix with its step.
///
/// # Errors
///
/// INVALID_ARGUMENT for a prefix without a file name.
pub(super) fn numbered(prefix: &Path, options: &SaveOptions) -> Result<PathBuf> {
    let bytes = prefix.as_os_str().as_encoded_bytes();
    if bytes.is_empty() || bytes.ends_with(b"/") {
        return Err(Error::invalid_argument(format!(
            "the prefix has no file name; prefix={}",
            prefix.display()
        )));
    }
    Ok(match options.global_step {
        Some(step) => naming::numbered_prefix(prefix, step, options.pad_step_number),
        None => prefix.to_owned(),
    })
}

fn check_alignment(alignment: u64) -> Result<u64> {
    match alignment {
        0 => Ok(1),
        _ if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT => Ok(alignment),
        _ => Err(Error::invalid_argument(format!(
            "alignment must be a power of two up to {MAX_ALIGNMENT}; alignment={alignment}"
        ))),
    }
}

/// The shard of each tensor.
///
/// Devices are numbered in the order of their strings, as TensorFlow's Saver sorts them; a shard that
/// reaches `max_shard_size` is followed by another one of the same device.
pub(super) fn assign_shards(tensors: &[SaveTensor<'_>], options: &SaveOptions) -> Result<Vec<u32>> {
    if !options.shard_by_device && options.max_shard_size == 0 {
        return Ok(vec![0; tensors.len()]);
    }
    let mut order: Vec<(String, usize)> = Vec::with_capacity(tensors.len());
    for (index, tensor) in tensors.iter().enumerate() {
        let device = if options.shard_by_device {
            device_name::canonical(tensor.device_name)
                .map_err(|error| error.with_tensor_index(index).with_key(tensor.key))?
        } else {
            String::new()
        };
        order.push((device, index));
    }
    // Stable: within a device the order of the call stays.
    order.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut shards = vec![0; tensors.len()];
    let mut shard_id = 0;
    let mut shard_size = 0u64;
    let mut last_device: Option<&str> = None;
    for (device, index) in &order {
        let size = tensors.get(*index).map_or(0, SaveTensor::size);
        // The place in the data file; one too large for a file is refused when places are given out.
        let size = size
            .checked_next_multiple_of(options.alignment.max(1))
            .unwrap_or(u64::MAX);
        let full = options.max_shard_size != 0
            && shard_size > 0
            && shard_size.saturating_add(size) > options.max_shard_size;
        if last_device.is_some_and(|last| last != device) || full {
            shard_id += 1;
            shard_size = 0;
        }
        last_device = Some(device);
        shard_size = shard_size.saturating_add(size);
        if let Some(shard) = shards.get_mut(*index) {
            *shard = shard_id;
        }
    }
    Ok(shards)
}

/// Checks all tensors and adds their keys to the bundle.
pub(super) fn describe<'a>(
    tensors: &'a [SaveTensor<'a>],
    shards: &[u32],
    bundle: &mut BundleWriter<'a, SaveTensor<'a>>,
) -> Result<()> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    // By shard, because a merge of one index per shard lists the slices of a tensor in this order.
    order.sort_by_key(|&index| shards.get(index));
    for index in order {
        let (Some(tensor), Some(&shard_id)) = (tensors.get(index), shards.get(index)) else {
            continue;
        };
        let place = |error: Error| error.with_tensor_index(index).with_key(tensor.key);
        let spec = tensor.check().map_err(place)?;
        bundle
            .add(index, tensor, spec.as_ref(), shard_id)
            .map_err(place)?;
    }
    bundle.check()
}

/// `error` with the key of the tensor that it names.
fn with_key_of(error: Error, tensors: &[SaveTensor<'_>]) -> Error {
    let index = error.tensor_index();
    match index.and_then(|index| tensors.get(index)) {
        Some(tensor) => error.with_key(tensor.key),
        None => error,
    }
}

fn to_write<'a>(tensor: &'a SaveTensor<'_>, shard_id: u32) -> WriteTensor<'a> {
    let source = match &tensor.data {
        SaveData::Bytes(span) => Source::Bytes(*span),
        SaveData::Device(span) => Source::Device(*span),
        SaveData::Strings(elements) => Source::Strings(StringsToSave(elements)),
    };
    WriteTensor { shard_id, source }
}

impl Described for SaveTensor<'_> {
    fn key(&self) -> &[u8] {
        self.key
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn shape(&self) -> &Shape {
        &self.shape
    }
}

impl SaveTensor<'_> {
    /// Bytes in the data file.
    fn size(&self) -> u64 {
        to_write(self, 0).source.size()
    }
}
