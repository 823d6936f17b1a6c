//! Restores tensors of strings, whose size in memory is known only once they are read.

use super::restore::Verify;
use crate::bundle::{BundleReader, DataExtent, StringTensor};
use crate::error::{Error, Result};
use crate::slices::Overlap;
use crate::transfer::Call;

/// A stored piece that a request needs.
pub(super) struct Part {
    /// Where it is.
    pub extent: DataExtent,
    /// What it shares with the request.
    pub overlap: Overlap,
    /// All of its elements.
    pub num_elements: u64,
}

/// A tensor of strings to be restored: its size in memory is known only once it is read.
pub(super) struct StringPlan {
    /// Index of the tensor in the call's list.
    pub tensor: usize,
    /// Elements requested.
    pub num_elements: u64,
    /// Where they are stored.
    pub parts: Vec<Part>,
}

impl StringPlan {
    /// Bytes to read.
    pub fn size(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |size, part| part.extent.size.saturating_add(size))
    }

    /// Reads the elements, in the order of the request.
    ///
    /// # Errors
    ///
    /// DATA_LOSS for a checksum or length that is wrong; the system's errors; CANCELLED.
    pub fn read(
        &self,
        reader: &BundleReader,
        verify: Verify,
        call: &mut Call<'_>,
    ) -> Result<StringTensor> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            parts.push(read_strings(reader, part, verify, call)?);
        }
        call.progress.advance(0, 1)?;
        let whole = self
            .parts
            .first()
            .is_some_and(|part| part.num_elements == self.num_elements);
        if whole && parts.len() == 1 {
            return Ok(parts.pop().unwrap_or_default());
        }
        // The element for each place of the request, wherever it is stored.
        let mut places: Vec<(u64, &[u8])> = Vec::new();
        for (part, strings) in self.parts.iter().zip(&parts) {
            for run in (0..part.overlap.num_runs()).map(|number| part.overlap.run(number)) {
                places.extend((0..run.len).map(|i| {
                    let element = usize::try_from(run.source + i).ok();
                    let element = element.and_then(|element| strings.get(element));
                    (run.dest + i, element.unwrap_or_default())
                }));
            }
        }
        places.sort_unstable_by_key(|&(place, _)| place);
        Ok(StringTensor::gather(
            places.into_iter().map(|(_, element)| element),
        ))
    }
}

/// Reads and takes apart all elements of a stored piece. All of it is fetched, so it is verified
/// unless nothing is.
fn read_strings(
    reader: &BundleReader,
    part: &Part,
    verify: Verify,
    call: &mut Call<'_>,
) -> Result<StringTensor> {
    let extent = &part.extent;
    let file = reader.locate(extent)?;
    let place = |error: Error| error.with_file(file.path()).with_offset(extent.offset);
    let data = file.read_vec(extent.offset, extent.size)?;
    call.stats.bytes_io += extent.size;
    call.stats.num_io += 1;
    call.stats.bytes += extent.size;
    let check = verify != Verify::None;
    if check {
        call.stats.bytes_verified += extent.size;
    }
    let bundle = reader.prefix().display().to_string();
    let strings = StringTensor::decode(
        data,
        part.num_elements,
        reader.is_big_endian(),
        extent,
        &bundle,
        check,
    )
    .map_err(place)?;
    call.progress.advance(extent.size, 0)?;
    Ok(strings)
}
