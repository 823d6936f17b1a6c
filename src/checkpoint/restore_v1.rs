//! Restores tensors from a V1 checkpoint.
//!
//! As for V2, everything that names and shapes can tell is checked first, for all tensors. Then the
//! records are read one after the other and decoded piece by piece, each piece to its places.

use std::collections::HashMap;

use super::refused::Refused;
use super::restore::{RestoreOptions, Verify};
use super::restore_rounds::{RestoreFormat, RestorePlan, Round, RoundOutcome, memory_size};
use super::tensor::{RestoreData, RestoreTensor, check_dtype};
use super::v1_sinks::{Append, Fill, Measure, Runs, Scatter};
use crate::bundle::{KeyText, StringTensor};
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::shape::Shape;
use crate::slices::{Overlap, ShapeAndSlice, TensorSlice};
use crate::transfer::{Call, Progress};
use crate::v1::{Records, Sink, Tensor, V1Reader};

/// Bytes that blocks and windows take, unless a compressed block needs more.
const WORKING: u64 = 4 << 20;

impl RestoreFormat for V1Reader {
    fn plan<'a, 's>(
        &'s self,
        tensors: &[RestoreTensor<'a>],
        options: &RestoreOptions,
        call: &mut Call<'_>,
    ) -> Result<Box<dyn RestorePlan<'a> + 's>>
    where
        'a: 's,
    {
        let mut plans = Vec::with_capacity(tensors.len());
        // Unlike that of a V2 checkpoint, TensorFlow's reader takes one tensor after the other, so that
        // the error of the call is that of the first one, whatever it is.
        let mut refused = Refused::default();
        for (index, tensor) in tensors.iter().enumerate() {
            call.progress.poll()?;
            match plan(self, index, tensor, options.reshape) {
                Ok(plan) => plans.push(plan),
                Err(error) => {
                    refused.insert(index, error.with_tensor_index(index).with_key(tensor.key));
                }
            }
        }
        Ok(Box::new(V1Plan {
            reader: self,
            options: *options,
            plans,
            refused,
        }))
    }
}

/// What is to be read of a V1 checkpoint.
struct V1Plan<'s> {
    reader: &'s V1Reader,
    options: RestoreOptions,
    /// In the order of the call's list.
    plans: Vec<Plan>,
    refused: Refused,
}

impl<'a> RestorePlan<'a> for V1Plan<'_> {
    fn bytes(&self) -> u64 {
        let bytes = self.plans.iter().map(|plan| plan.bytes);
        bytes.fold(0, u64::saturating_add)
    }

    fn take_refused(&mut self) -> Refused {
        std::mem::take(&mut self.refused)
    }

    fn run(
        &mut self,
        tensors: &mut [RestoreTensor<'a>],
        round: Round<'_>,
        call: &mut Call<'_>,
    ) -> Result<RoundOutcome> {
        // Each with its place in the round.
        let mut plans: Vec<(usize, &Plan)> = match round {
            Round::All => self.plans.iter().map(|plan| (plan.index, plan)).collect(),
            Round::Some(members) => {
                let plan = |(place, index): (usize, &usize)| {
                    let found = self.plans.binary_search_by_key(index, |plan| plan.index);
                    Some((place, self.plans.get(found.ok()?)?))
                };
                members.iter().enumerate().filter_map(plan).collect()
            }
        };
        // In the order of the files each block is read once.
        if !self.options.in_request_order {
            plans.sort_by(|(_, a), (_, b)| {
                (a.shard(), tensor_key(tensors, a)).cmp(&(b.shard(), tensor_key(tensors, b)))
            });
        }
        let mut outcome = RoundOutcome {
            complete: match round {
                Round::All => vec![false; tensors.len()],
                Round::Some(members) => vec![false; members.len()],
            },
            ..RoundOutcome::default()
        };
        let compressed = plans.iter().map(|(_, plan)| plan.compressed).max();
        let compressed = compressed.unwrap_or(0).saturating_mul(2);
        let working = WORKING.max(compressed.saturating_add(8 << 10));
        let admission = call.admit(1, usize::try_from(working).unwrap_or(usize::MAX))?;
        call.stats.num_threads = 1;
        let mut records = self.reader.records(admission.buffer as u64);
        for (place, plan) in plans {
            let Some(tensor) = tensors.get_mut(plan.index) else {
                continue;
            };
            let verify = self.options.verify;
            let run = plan.run(self.reader, &mut records, tensor, verify, call);
            if run.is_ok()
                && let Some(complete) = outcome.complete.get_mut(place)
            {
                *complete = true;
                call.monitor().arrived(plan.index);
            }
            let Err(error) = run.and_then(|()| call.progress.advance(0, 1)) else {
                continue;
            };
            if error.code() == Code::Cancelled {
                outcome.ended = Some(error);
                break;
            }
            let error = error.with_tensor_index(plan.index).with_key(tensor.key);
            call.monitor().failed(plan.index, &error);
            outcome.failed.insert(plan.index, error.clone());
            if !self.options.keep_going {
                outcome.ended = Some(error);
                break;
            }
        }
        Ok(outcome)
    }
}

fn tensor_key<'t>(tensors: &'t [RestoreTensor<'_>], plan: &Plan) -> &'t [u8] {
    tensors.get(plan.index).map_or(&[], |tensor| tensor.key)
}

/// What is to be read for one tensor.
struct Plan {
    /// Its index in the call's list.
    index: usize,
    parts: Vec<Part>,
    /// Bytes that progress counts.
    bytes: u64,
    /// Bytes that its largest compressed block takes, 0 if none is.
    compressed: u64,
}

/// A stored slice that the request needs.
pub(super) struct Part {
    slice: TensorSlice,
    shard: usize,
    overlap: Overlap,
    /// Whether all of it is needed.
    whole: bool,
}

fn plan(
    reader: &V1Reader,
    index: usize,
    tensor: &RestoreTensor<'_>,
    reshape: bool,
) -> Result<Plan> {
    let stored = reader.tensor(tensor.key)?;
    let spec =
        check_request(tensor, stored, reshape).map_err(|error| error.with_file(reader.prefix()))?;
    let full = TensorSlice::full(stored.shape.rank());
    let wanted = spec.as_ref().map_or(&full, |spec| &spec.slice);
    let mut parts = locate(stored, wanted).map_err(|error| error.with_file(reader.prefix()))?;
    parts.sort_by_key(|part| part.shard);
    let mut compressed = 0;
    for part in &parts {
        let size = reader.compressed_size(tensor.key, &part.slice, part.shard);
        compressed = compressed.max(size.map_err(copying)?);
    }
    let bytes = memory_size(tensor);
    Ok(Plan {
        index,
        parts,
        bytes,
        compressed,
    })
}

/// Compares the request with what is stored, in TensorFlow's order and words.
fn check_request(
    tensor: &RestoreTensor<'_>,
    stored: &Tensor,
    reshape: bool,
) -> Result<Option<ShapeAndSlice>> {
    let name = KeyText(tensor.key);
    check_dtype(tensor.dtype)?;
    let dtype = stored.dtype()?;
    if tensor.dtype != dtype {
        return Err(Error::invalid_argument(format!(
            "Expected to restore a tensor of type {}, got a tensor of type {dtype} instead: tensor_name \
             = {name}",
            tensor.dtype
        )));
    }
    if !crate::v1::is_supported(dtype) {
        return Err(not_supported(dtype));
    }
    if let RestoreData::Device(_) = &tensor.data {
        return Err(Error::unimplemented(
            "a checkpoint in format V1 is restored to the host's memory only",
        ));
    }
    let spec = tensor.check(reshape)?;
    match &spec {
        Some(spec) if spec.full_shape != stored.shape => {
            return Err(shape_differs(&spec.full_shape, &stored.shape));
        }
        None if !reshape && tensor.shape != stored.shape => {
            return Err(Error::invalid_argument(format!(
                "tensor_name = {name}; shape in shape_and_slice spec {} does not match the shape \
                 stored in checkpoint: {}",
                tensor.shape, stored.shape
            )));
        }
        _ => {}
    }
    if reshape {
        let wanted = spec
            .as_ref()
            .map_or(&stored.shape, |spec| &spec.slice_shape);
        tensor.check_reshape(wanted)?;
    }
    Ok(spec)
}

/// The error of a dtype that is not in this format.
pub(super) fn not_supported(dtype: DType) -> Error {
    Error::unimplemented(format!("Restoring data type {dtype} not yet supported"))
}

/// The error of a slice of a tensor of another shape than the stored one.
pub(super) fn shape_differs(shape: &Shape, stored: &Shape) -> Error {
    Error::invalid_argument(format!(
        "Shape in shape_and_slice spec does not match the shape in the save file: {shape}, save file \
         shape: {stored}"
    ))
}

/// The stored slices that together hold the wanted one.
///
/// # Errors
///
/// INVALID_ARGUMENT if they do not.
pub(super) fn locate(stored: &Tensor, wanted: &TensorSlice) -> Result<Vec<Part>> {
    let bounds = wanted.bounds(&stored.shape)?;
    let part = |slice: &TensorSlice, shard: usize, overlap: Overlap| -> Result<Part> {
        let num_elements = slice.shape_within(&stored.shape)?.num_elements();
        Ok(Part {
            slice: slice.clone(),
            shard,
            whole: overlap.num_elements() == num_elements,
            overlap,
        })
    };
    if let [(slice, shard)] = stored.slices.as_slice()
        && slice.shape_within(&stored.shape)? == stored.shape
    {
        // Without elements there is nothing to share, but there still is a record.
        let overlap = Overlap::new(&slice.bounds(&stored.shape)?, &bounds);
        return Ok(vec![part(
            slice,
            *shard,
            overlap.unwrap_or_else(Overlap::empty),
        )?]);
    }
    let shards: HashMap<&TensorSlice, usize> = stored
        .slices
        .iter()
        .map(|(slice, shard)| (slice, *shard))
        .collect();
    let set = stored.slice_set()?;
    let cover = set.cover(&bounds).ok_or_else(|| {
        Error::invalid_argument(format!(
            "Error copying slice data; the stored slices do not cover {wanted}"
        ))
    })?;
    cover
        .into_iter()
        .map(|(slice, overlap)| {
            part(
                slice,
                shards.get(slice).copied().unwrap_or_default(),
                overlap,
            )
        })
        .collect()
}

/// TensorFlow's code and text for a record that is missing or damaged.
fn copying(error: Error) -> Error {
    match error.code() {
        Code::DataLoss => error
            .with_code(Code::InvalidArgument)
            .with_prefix("Error copying slice data; "),
        _ => error,
    }
}

impl Plan {
    fn shard(&self) -> usize {
        self.parts.first().map_or(0, |part| part.shard)
    }

    fn run(
        &self,
        reader: &V1Reader,
        records: &mut Records<'_>,
        tensor: &mut RestoreTensor<'_>,
        verify: Verify,
        call: &mut Call<'_>,
    ) -> Result<()> {
        let stored = reader.tensor(tensor.key)?;
        let mut reading = Reading {
            key: tensor.key,
            stored,
            records,
            verify,
            call,
        };
        match &mut tensor.data {
            RestoreData::Bytes(dest) => {
                let element_size = tensor.dtype.size().unwrap_or(1) as u64;
                for part in &self.parts {
                    reading.read(part, element_size, |part, progress| Scatter {
                        dest: *dest,
                        runs: Runs::new(&part.overlap, element_size),
                        progress,
                    })?;
                }
            }
            data => {
                let strings = reading.strings(&self.parts, tensor.shape.num_elements())?;
                data.put_strings(strings);
            }
        }
        Ok(())
    }
}

/// Reads the records of one tensor.
struct Reading<'r, 'f, 'c, 'p> {
    key: &'r [u8],
    stored: &'r Tensor,
    records: &'r mut Records<'f>,
    verify: Verify,
    call: &'c mut Call<'p>,
}

impl<'p> Reading<'_, '_, '_, 'p> {
    fn read<'s, S: Sink + 's>(
        &'s mut self,
        part: &'s Part,
        element_size: u64,
        sink: impl FnOnce(&'s Part, &'s mut Progress<'p>) -> S,
    ) -> Result<()> {
        let check = match self.verify {
            Verify::Full => true,
            Verify::Fetched => part.whole,
            Verify::None => false,
        };
        let size = part.overlap.num_elements() * element_size;
        self.call.stats.bytes_io += size;
        self.call.stats.num_io += 1;
        if check {
            self.call.stats.bytes_verified += size;
        } else {
            self.call.stats.bytes_unverified += size;
        }
        let mut sink = sink(part, &mut self.call.progress);
        let at = (&part.slice, part.shard);
        let read = self
            .records
            .read(self.key, self.stored, at, check, &mut sink);
        read.map_err(copying)
    }

    /// Reads a tensor of strings: in one go if they are stored in the order in which they are wanted,
    /// otherwise first their lengths and then, to the places these give, their bytes.
    fn strings(&mut self, parts: &[Part], num_elements: u64) -> Result<StringTensor> {
        let num = usize::try_from(num_elements).unwrap_or(usize::MAX);
        let mut lengths: Vec<usize> = Vec::new();
        let no_memory = |_| Error::resource_exhausted("no memory for the strings");
        if let [part] = parts
            && part.whole
        {
            let mut data = Vec::new();
            lengths.try_reserve_exact(num).map_err(no_memory)?;
            self.read(part, 1, |_, progress| Append {
                data: &mut data,
                ends: &mut lengths,
                progress,
            })?;
            self.call.stats.bytes += data.len() as u64;
            return Ok(StringTensor::from_parts(data, lengths));
        }
        lengths.try_reserve_exact(num).map_err(no_memory)?;
        lengths.resize(num, 0);
        for part in parts {
            self.read(part, 1, |part, progress| Measure {
                lengths: &mut lengths,
                runs: Runs::new(&part.overlap, 1),
                progress,
            })?;
        }
        let mut strings = StringTensor::with_lengths(lengths)?;
        for part in parts {
            self.read(part, 1, |part, progress| Fill {
                strings: &mut strings,
                done: 0,
                runs: Runs::new(&part.overlap, 1),
                progress,
            })?;
        }
        self.call.stats.bytes += strings
            .iter()
            .map(|element| element.len() as u64)
            .sum::<u64>();
        Ok(strings)
    }
}
