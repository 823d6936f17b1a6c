//! Restores tensors of strings, whose size in memory is known only once they are read.

use super::restore::Verify;
use crate::bundle::{
    BundleReader, DataExtent, Lengths, StoredStrings, StringTensor, WantedStrings,
};
use crate::error::{Error, Result};
use crate::io::read::ReadFile;
use crate::slices::{Overlap, TensorSlice};
use crate::transfer::{Call, stream};

/// A stored piece that a request needs.
pub(super) struct Part {
    /// Where it is.
    pub extent: DataExtent,
    /// What it shares with the request.
    pub overlap: Overlap,
    /// All of its elements.
    pub num_elements: u64,
    /// Which slice it is, if the tensor is stored in slices.
    pub slice: Option<TensorSlice>,
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

    /// Reads the elements, in the order of the request. All of a stored piece is gone through, so it
    /// is verified unless nothing is.
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
        let check = verify != Verify::None;
        let bundle = reader.prefix().display().to_string();
        let largest = self.parts.iter().map(|part| part.extent.size).max();
        let largest = largest.unwrap_or_default();
        let strings = stream::run(call, largest, |[buffer, other], tick| {
            let mut wanted = WantedStrings::new(self.num_elements)?;
            let mut lengths: Vec<Lengths> = Vec::with_capacity(self.parts.len());
            for part in &self.parts {
                let file = reader.locate(&part.extent)?;
                let stored = part.stored(&file, reader, check, &bundle);
                let wanted = Some((&mut wanted, &part.overlap));
                let read = stored.read_lengths(wanted, buffer, tick);
                lengths.push(read.map_err(|error| part.place(error, &file))?);
            }
            let mut strings = wanted.into_tensor()?;
            for (part, lengths) in self.parts.iter().zip(lengths) {
                let file = reader.locate(&part.extent)?;
                let stored = part.stored(&file, reader, check, &bundle);
                let wanted = Some((&mut strings, &part.overlap));
                stored
                    .read_contents(lengths, wanted, [buffer, other], tick)
                    .map_err(|error| part.place(error, &file))?;
            }
            Ok(strings)
        })?;
        let size = self.size();
        call.stats.bytes += size;
        if check {
            call.stats.bytes_verified += size;
        } else {
            call.stats.bytes_unverified += size;
        }
        call.progress.advance(0, 1)?;
        Ok(strings)
    }
}

impl Part {
    fn stored<'a>(
        &self,
        file: &'a ReadFile,
        reader: &BundleReader,
        check: bool,
        bundle: &'a str,
    ) -> StoredStrings<'a> {
        StoredStrings {
            file,
            extent: self.extent,
            num_elements: self.num_elements,
            big_endian: reader.is_big_endian(),
            check,
            bundle,
        }
    }

    fn place(&self, error: Error, file: &ReadFile) -> Error {
        error.with_file(file.path()).with_offset(self.extent.offset)
    }
}
