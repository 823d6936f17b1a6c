//! Checks every record of a V1 checkpoint.

use crate::error::{Code, Error, Result};
use crate::transfer::{Call, Progress};
use crate::v1::{Sink, V1Reader};

/// Bytes that blocks and windows take, unless a compressed block needs more.
const WORKING: usize = 4 << 20;

/// Reads every record that the files name and hands each thing that is broken to `damage`.
///
/// # Errors
///
/// Only what keeps the checkpoint from being verified at all: CANCELLED, no memory.
pub fn verify(reader: &V1Reader, damage: &mut dyn FnMut(Error), call: &mut Call<'_>) -> Result<()> {
    let mut bytes = 0u64;
    let mut compressed = 0;
    for (name, tensor) in reader.tensors() {
        let Ok(tensor) = tensor else { continue };
        let size = tensor.dtype().ok().and_then(crate::dtype::DType::size);
        bytes = bytes.saturating_add(
            size.and_then(|size| tensor.shape.byte_size(size))
                .unwrap_or(0),
        );
        for (slice, shard) in &tensor.slices {
            let size = reader.compressed_size(name, slice, *shard).unwrap_or(0);
            compressed = compressed.max(size);
        }
    }
    call.stats.num_tensors = reader.num_tensors() as u64;
    call.stats.bytes = bytes;
    call.progress.start(bytes, call.stats.num_tensors)?;
    let compressed = usize::try_from(compressed).unwrap_or(usize::MAX);
    let working = WORKING.max(compressed.saturating_mul(2).saturating_add(8 << 10));
    let admission = call.admit(1, working)?;
    call.stats.num_threads = 1;
    let mut records = reader.records(admission.buffer as u64);
    for (name, tensor) in reader.tensors() {
        let tensor = match tensor {
            Ok(tensor) => tensor,
            Err(error) => {
                damage(error.with_key(name));
                continue;
            }
        };
        // What is not in the total is no progress either.
        let counts = tensor.dtype().is_ok_and(|dtype| dtype.size().is_some());
        for (slice, shard) in &tensor.slices {
            let mut sink = Discard {
                progress: &mut call.progress,
                counts,
                taken: 0,
            };
            let read = records.read(name, tensor, (slice, *shard), true, &mut sink);
            let taken = sink.taken;
            match read {
                Ok(()) => {
                    call.stats.bytes_io += taken;
                    call.stats.bytes_verified += taken;
                    call.stats.num_io += 1;
                }
                Err(error) if error.code() == Code::Cancelled => return Err(error),
                Err(error) => damage(error.with_key(name)),
            }
        }
        call.progress.advance(0, 1)?;
    }
    call.progress.report()
}

/// Counts what it is given.
struct Discard<'c, 'p> {
    progress: &'c mut Progress<'p>,
    /// Whether it is progress.
    counts: bool,
    taken: u64,
}

impl Sink for Discard<'_, '_> {
    fn next(&self, place: u64) -> u64 {
        place
    }

    fn tick(&mut self) -> Result<()> {
        self.progress.advance(0, 0)
    }

    fn take(&mut self, _: u64, bytes: &[u8]) -> Result<()> {
        let bytes = bytes.len() as u64;
        self.taken += bytes;
        self.progress
            .advance(if self.counts { bytes } else { 0 }, 0)
    }
}
