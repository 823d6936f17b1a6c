//! Saves a list of tensors as a V1 checkpoint.
//!
//! Each file holds names and data, so a checkpoint of one file replaces another in one step; of a
//! sharded one, shard 0 is the file that is published last.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::layout::Layout;
use super::save::{Request, assign_shards, describe};
use super::tensor::{SaveData, SaveTensor};
use super::v1_files::{Sharded, whole_file};
use crate::bundle::BundleWriter;
use crate::error::{Error, Result};
use crate::io::write::TempFile;
use crate::memory::ChunkBuffer;
use crate::slices::TensorSlice;
use crate::transfer::pipeline::{self, Shared};
use crate::transfer::{Call, Stage};
use crate::v1::{Plan, TensorToWrite, Values};

/// Bytes of the buffer through which elements are copied.
const BUFFER: usize = 256 << 10;

/// What the block that is put together takes at most beside it.
const BLOCK: usize = 2 << 20;

/// The error of a request for chunk checksums in the format that has none.
pub fn no_sidecar() -> Error {
    Error::invalid_argument("chunk_checksums is for format V2; V1 has no sidecar")
}

impl Request<'_> {
    /// Saves, and returns the prefix, or the pattern of a sharded checkpoint.
    pub(super) fn save_v1(&self, call: &mut Call<'_>) -> Result<PathBuf> {
        let Self {
            prefix,
            tensors,
            options,
            ..
        } = self;
        if options.alignment > 1 {
            return Err(Error::invalid_argument(format!(
                "format V1 has no alignment; alignment={}",
                options.alignment
            )));
        }
        if options.chunk_checksums {
            return Err(no_sidecar());
        }
        if tensors.is_empty() {
            return Err(Error::invalid_argument("No variables to save"));
        }
        let shards = assign_shards(tensors, options)?;
        // Keys, shapes and slices have to fit together as in V2.
        describe(
            tensors,
            &shards,
            &mut BundleWriter::with_capacity(tensors.len()),
        )?;
        let num_shards = shards.iter().max().map_or(1, |last| last + 1);
        let mut by_shard: Vec<Vec<TensorToWrite<'_>>> = Vec::new();
        by_shard.resize_with(num_shards as usize, Vec::new);
        for (index, (tensor, &shard)) in tensors.iter().zip(&shards).enumerate() {
            let tensor = to_write(tensor)
                .and_then(|tensor| tensor.check().map(|()| tensor))
                .map_err(|error| error.with_tensor_index(index).with_key(tensor.key))?;
            if let Some(shard) = by_shard.get_mut(shard as usize) {
                shard.push(tensor);
            }
        }
        call.monitor().reach(Stage::Accepted);
        (self.turn)(call)?;
        if !options.shard_by_device && options.max_shard_size == 0 {
            let files = write_all(call, std::slice::from_ref(prefix), &by_shard, tensors)?;
            call.monitor().reach(Stage::Copied);
            self.publish_v1(prefix, Layout::v1(&whole_file), files, prefix, call)?;
            return Ok(prefix.clone());
        }
        let names = Sharded::new(prefix, num_shards);
        let paths: Vec<PathBuf> = (0..num_shards).map(|shard| names.file(shard)).collect();
        let files = write_all(call, &paths, &by_shard, tensors)?;
        call.monitor().reach(Stage::Copied);
        let pattern = names.pattern();
        let data_files = |commit: &Path| names.data_files(commit);
        self.publish_v1(prefix, names.layout(&data_files), files, &pattern, call)?;
        Ok(pattern)
    }

    fn publish_v1(
        &self,
        prefix: &Path,
        layout: Layout<'_>,
        mut files: Vec<TempFile>,
        restored_by: &Path,
        call: &mut Call<'_>,
    ) -> Result<()> {
        call.progress.report()?;
        let data = files.split_off(1.min(files.len()));
        let commit = files
            .pop()
            .ok_or_else(|| Error::internal("a checkpoint without a file"))?;
        self.publish_as(prefix, layout, data, commit, restored_by, call)
    }
}

/// Writes one temporary file per shard, side by side.
fn write_all(
    call: &mut Call<'_>,
    paths: &[PathBuf],
    by_shard: &[Vec<TensorToWrite<'_>>],
    tensors: &[SaveTensor<'_>],
) -> Result<Vec<TempFile>> {
    let bytes: u64 = by_shard
        .iter()
        .flatten()
        .map(|tensor| tensor.values.size())
        .sum();
    call.stats.num_tensors = tensors.len() as u64;
    call.stats.bytes += bytes;
    call.progress.start(bytes, tensors.len() as u64)?;
    let wanted = (call.context.num_threads())
        .min(by_shard.len())
        .min(usize::try_from(bytes >> 20).unwrap_or(usize::MAX).max(1));
    let admission = call.admit(wanted, BUFFER + BLOCK)?;
    // A block cannot be smaller than the format's, so little memory means fewer threads.
    let admitted = usize::try_from(admission.bytes()).unwrap_or(usize::MAX);
    let num_threads = (admitted / (BUFFER + BLOCK)).clamp(1, admission.num_threads);
    let buffer = BUFFER.min((admitted / num_threads) & !4095);
    let files: Vec<TempFile> = paths
        .iter()
        .map(|path| TempFile::create(path))
        .collect::<Result<_>>()?;
    pipeline::run(
        num_threads,
        files.len(),
        &mut call.progress,
        || ChunkBuffer::new(buffer),
        |buffer, shard, shared| match (files.get(shard), by_shard.get(shard)) {
            (Some(file), Some(tensors)) => write_one(file, tensors, buffer, shared),
            _ => Err(Error::internal("a shard has no file")),
        },
    )?;
    call.stats.num_threads = u32::try_from(num_threads).unwrap_or(u32::MAX);
    call.stats.num_io += files.len() as u64;
    call.stats.bytes_io += bytes;
    Ok(files)
}

/// Writes one file.
fn write_one(
    file: &TempFile,
    tensors: &[TensorToWrite<'_>],
    buffer: &mut ChunkBuffer,
    shared: Shared<'_>,
) -> Result<()> {
    let counters = shared.counters;
    let sink = Plan::new(tensors)
        .write(file.appender(), buffer, &mut |bytes| {
            counters.bytes.fetch_add(bytes, Ordering::Relaxed);
            shared.check()
        })
        .map_err(|error| error.with_file(file.path()));
    let mut sink = sink?;
    std::io::Write::flush(&mut sink).map_err(|error| Error::io(&error, file.path()))?;
    let num_tensors = tensors.len() as u64;
    counters.tensors.fetch_add(num_tensors, Ordering::Relaxed);
    Ok(())
}

fn to_write<'a>(tensor: &'a SaveTensor<'_>) -> Result<TensorToWrite<'a>> {
    let (shape, slice) = match super::tensor::parse_spec(tensor.slice_spec)? {
        Some(spec) => (spec.full_shape, spec.slice),
        None => (tensor.shape.clone(), TensorSlice::full(tensor.shape.rank())),
    };
    Ok(TensorToWrite {
        name: tensor.key,
        dtype: tensor.dtype,
        shape,
        slice,
        values: match &tensor.data {
            SaveData::Bytes(span) => Values::Bytes(*span),
            SaveData::Device(_) => {
                return Err(Error::unimplemented(
                    "a checkpoint in format V1 is saved from the host's memory only",
                ));
            }
            SaveData::Strings(elements) => Values::Strings(elements),
        },
    })
}
