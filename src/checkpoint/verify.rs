//! Checks every checksum of a checkpoint.

use super::verify_sidecar;
use crate::bundle::{
    BundleReader, DataExtent, Entry, Lookup, Stored, StoredStrings, verify_variant,
};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::read::ReadFile;
use crate::slices::SliceSet;
use crate::transfer::read::{self, How, Piece, Target};
use crate::transfer::{Call, stream};

/// Pieces, or tensors, that are read in one go: it bounds the memory that the plan takes.
const BATCH: usize = 1 << 14;

/// Reads everything that the index names and hands each thing that is broken to `damage`: damaged
/// blocks of the index, bad entries, data that is missing or whose checksum differs, a sidecar that is
/// damaged or of another save.
///
/// # Errors
///
/// Only what keeps the checkpoint from being verified at all: CANCELLED, no memory.
pub fn verify(
    reader: &BundleReader,
    damage: &mut dyn FnMut(Error),
    call: &mut Call<'_>,
) -> Result<()> {
    let (bytes, tensors) = totals(reader, call)?;
    call.stats.num_tensors = tensors;
    call.stats.bytes = bytes;
    call.progress.start(bytes, tensors)?;
    let mut lookup = reader.lookup();
    let mut listing = reader.list();
    let mut batch = Batch {
        reader,
        tensors: Vec::new(),
        pieces: Vec::new(),
    };
    loop {
        match listing.next() {
            Ok(Some((key, Ok(entry)))) => {
                if let Err(error) = batch.add(key, &entry, &mut lookup, call) {
                    if error.code() == crate::error::Code::Cancelled {
                        return Err(error);
                    }
                    damage(error.with_key(key));
                }
            }
            Ok(Some((key, Err(error)))) => damage(error.with_key(key)),
            Ok(None) => break,
            Err(error) => {
                damage(error);
                break;
            }
        }
        if batch.tensors.len().max(batch.pieces.len()) >= BATCH {
            batch.run(damage, call)?;
        }
    }
    batch.run(damage, call)?;
    verify_sidecar::verify(reader, damage, call)?;
    call.progress.report()
}

/// Bytes and tensors that the index names.
fn totals(reader: &BundleReader, call: &mut Call<'_>) -> Result<(u64, u64)> {
    let (mut bytes, mut tensors) = (0u64, 0);
    let mut lookup = reader.lookup();
    let mut listing = reader.list();
    while let Ok(Some((key, entry))) = listing.next() {
        tensors += 1;
        call.progress.poll()?;
        let Ok(entry) = entry else { continue };
        let size = match (&entry.stored, entry.dtype.size()) {
            (Stored::Whole(extent), _) => extent.size,
            (Stored::Slices { .. }, Some(size)) => entry.shape.byte_size(size).unwrap_or(0),
            // Only the slices' own entries say. One that is broken will not be read either.
            (Stored::Slices { .. }, None) => extents(key, &entry, &mut lookup)
                .unwrap_or_default()
                .iter()
                .fold(0, |bytes: u64, (extent, _)| {
                    bytes.saturating_add(extent.size)
                }),
        };
        bytes = bytes.saturating_add(size);
    }
    Ok((bytes, tensors))
}

/// Tensors of a fixed element size, to be read together.
struct Batch<'r> {
    reader: &'r BundleReader,
    tensors: Vec<Vec<u8>>,
    pieces: Vec<Piece<'static>>,
}

impl Batch<'_> {
    fn add(
        &mut self,
        key: &[u8],
        entry: &Entry,
        lookup: &mut Lookup<'_>,
        call: &mut Call<'_>,
    ) -> Result<()> {
        // All are located before any is taken into the batch under this tensor's number.
        let extents = extents(key, entry, lookup)?;
        let files: Vec<_> = extents
            .iter()
            .map(|(extent, _)| self.reader.locate(extent))
            .collect::<Result<_>>()?;
        for ((extent, num_elements), file) in extents.into_iter().zip(files) {
            if entry.dtype.size().is_some() {
                self.pieces.push(Piece {
                    tensor: u32::try_from(self.tensors.len()).unwrap_or(u32::MAX),
                    file,
                    extent,
                    check: true,
                    swap: 1,
                    target: Target::Discard,
                });
                continue;
            }
            let place = |error: Error| error.with_file(file.path()).with_offset(extent.offset);
            self.stream(&file, extent, num_elements, entry.dtype, call)
                .map_err(place)?;
            call.stats.bytes_verified += extent.size;
        }
        if entry.dtype.size().is_none() {
            call.progress.advance(0, 1)?;
        }
        self.tensors.push(key.to_owned());
        Ok(())
    }

    /// Verifies a piece whose elements have no fixed size.
    fn stream(
        &self,
        file: &ReadFile,
        extent: DataExtent,
        num_elements: u64,
        dtype: DType,
        call: &mut Call<'_>,
    ) -> Result<()> {
        let bundle = self.reader.prefix().display().to_string();
        match dtype {
            DType::Variant => stream::run(call, extent.size, |[buffer, _], tick| {
                verify_variant(file, &extent, num_elements, &bundle, buffer, tick)
            }),
            DType::String => stream::run(call, extent.size, |[buffer, other], tick| {
                let strings = StoredStrings {
                    file,
                    extent,
                    num_elements,
                    big_endian: self.reader.is_big_endian(),
                    check: true,
                    bundle: &bundle,
                };
                let lengths = strings.read_lengths(None, buffer, tick)?;
                strings.read_contents(lengths, None, [buffer, other], tick)
            }),
            other => Err(Error::unimplemented(format!(
                "cannot be verified; dtype={other}"
            ))),
        }
    }

    fn run(&mut self, damage: &mut dyn FnMut(Error), call: &mut Call<'_>) -> Result<()> {
        let bundle = self.reader.prefix().display().to_string();
        let pieces = std::mem::take(&mut self.pieces);
        let tensors = std::mem::take(&mut self.tensors);
        let how = How {
            strict: false,
            only_checks: false,
            name: &|_, error| error,
            bundle: &bundle,
            keep_going: true,
            in_request_order: false,
            members: None,
        };
        let outcome = read::execute(call, pieces, tensors.len(), how)?;
        for (index, error) in outcome.failed {
            let key = tensors.get(index).map_or(&[][..], Vec::as_slice);
            damage(error.with_key(key));
        }
        outcome.ended.map_or(Ok(()), Err)
    }
}

/// The stored pieces of a tensor, each with its number of elements.
fn extents(key: &[u8], entry: &Entry, lookup: &mut Lookup<'_>) -> Result<Vec<(DataExtent, u64)>> {
    match &entry.stored {
        Stored::Whole(extent) => Ok(vec![(*extent, entry.shape.num_elements())]),
        Stored::Slices { slices, .. } => {
            let _: SliceSet = lookup.slice_set(key, &entry.shape, slices)?;
            let piece = |slice| {
                let extent = lookup.slice(key, entry, slice)?;
                Ok((
                    extent,
                    crate::slices::TensorSlice::shape_within(slice, &entry.shape)?.num_elements(),
                ))
            };
            slices.iter().map(piece).collect()
        }
    }
}
