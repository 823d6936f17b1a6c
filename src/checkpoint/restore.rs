//! Restores a list of tensors from an open checkpoint.
//!
//! Everything that can be known before reading is checked first, for all tensors: names, dtypes, shapes,
//! slices, and that the data files reach as far as the entries say. Then the bytes move.

use std::collections::BTreeMap;

use super::restore_strings::{Part, StringPlan};
use super::tensor::{RestoreData, RestoreTensor, check_dtype};
use crate::bundle::{BundleReader, Entry, KeyText, Lookup, Stored};
use crate::coding;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::DestSpan;
use crate::slices::{Overlap, ShapeAndSlice, TensorSlice};
use crate::transfer::Call;
use crate::transfer::read::{self, Piece, Target};

/// How much of what is read is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Every stored piece that a request touches is read and checked whole, as TensorFlow does.
    #[default]
    Full,
    /// Pieces that are needed whole are checked; of others only the bytes needed are read, unchecked.
    Fetched,
    /// Nothing is checked.
    None,
}

/// How tensors are restored. The defaults are TensorFlow's.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// How much of what is read is verified.
    pub verify: Verify,
    /// Whether the failure of one tensor does not keep the others from being restored. Without, the
    /// first failure ends the call, and one found beforehand leaves all memory untouched.
    pub keep_going: bool,
}

/// What came of each tensor of a call.
#[derive(Debug)]
pub struct RestoreOutcome {
    /// Per tensor: complete and verified; or why its contents are undefined; or, with ABORTED, that it
    /// was not attempted.
    pub results: Vec<Result<()>>,
    /// Why the call as a whole ended early.
    pub ended: Option<Error>,
}

impl RestoreOutcome {
    /// The error that ended the call, or else that of the first tensor that failed.
    ///
    /// # Errors
    ///
    /// That error.
    pub fn into_result(self) -> Result<()> {
        match self.ended {
            Some(error) => Err(error),
            None => self.results.into_iter().collect(),
        }
    }
}

/// Restores `tensors`.
///
/// # Errors
///
/// Only those that concern the call as a whole.
pub fn restore(
    reader: &BundleReader,
    tensors: &mut [RestoreTensor<'_>],
    options: &RestoreOptions,
    call: &mut Call<'_>,
) -> Result<RestoreOutcome> {
    let &RestoreOptions { verify, keep_going } = options;
    refuse_overlaps(tensors)?;
    let mut planned = Planned::default();
    // In key order the look-ups go through the index once.
    let keys: Vec<&[u8]> = tensors.iter().map(|tensor| tensor.key).collect();
    let order = coding::key_order(&keys).order;
    let mut lookup = reader.lookup();
    for index in order {
        let Some(tensor) = tensors.get(index) else {
            continue;
        };
        let result = Planner {
            reader,
            verify,
            index,
        }
        .plan(tensor, &mut lookup, &mut planned);
        if let Err(error) = result {
            let error = error.with_tensor_index(index).with_key(tensor.key);
            planned.pieces.truncate_to(index);
            planned.failed.insert(index, error);
        }
    }
    let Planned {
        pieces,
        strings,
        mut failed,
    } = planned;
    let refused = failed.first_key_value().map(|(_, error)| error.clone());
    if let Some(error) = refused.filter(|_| !keep_going) {
        return Ok(outcome(tensors, failed, &[], Some(error)));
    }

    let sizes = pieces.0.iter().map(|piece| piece.extent.size);
    let bytes = sizes
        .chain(strings.iter().map(StringPlan::size))
        .fold(0, u64::saturating_add);
    call.stats.num_tensors = tensors.len() as u64;
    call.stats.bytes += tensors.iter().map(memory_size).sum::<u64>();
    if let Err(error) = call.progress.start(bytes, tensors.len() as u64) {
        return Ok(outcome(tensors, failed, &[], Some(error)));
    }
    let bundle = reader.prefix().display().to_string();
    let read = read::execute(call, &bundle, pieces.0, tensors.len(), keep_going)?;
    let mut complete = read.complete;
    for plan in &strings {
        // Nothing of it was among the pieces.
        if let Some(complete) = complete.get_mut(plan.tensor) {
            *complete = false;
        }
    }
    for (index, error) in read.failed {
        let key = tensors.get(index).map_or(&[][..], |tensor| tensor.key);
        failed.entry(index).or_insert_with(|| error.with_key(key));
    }
    let mut ended = read.ended;
    for plan in strings {
        if ended.is_some() {
            break;
        }
        let Some(tensor) = tensors.get_mut(plan.tensor) else {
            continue;
        };
        match plan.read(reader, verify, call) {
            Ok(strings) => {
                if let RestoreData::Strings(out) = &mut tensor.data {
                    **out = strings;
                }
                if let Some(complete) = complete.get_mut(plan.tensor) {
                    *complete = true;
                }
            }
            Err(error) => {
                let error = error.with_tensor_index(plan.tensor).with_key(tensor.key);
                ended = (!keep_going).then(|| error.clone());
                failed.insert(plan.tensor, error);
            }
        }
    }
    if ended.is_none() {
        ended = call.progress.report().err();
    }
    // A tensor's own error says more than that of the thread which met it first.
    if let (Some(_), false, Some((_, first))) = (&ended, keep_going, failed.first_key_value()) {
        ended = Some(first.clone());
    }
    Ok(outcome(tensors, failed, &complete, ended))
}

fn outcome(
    tensors: &[RestoreTensor<'_>],
    mut failed: BTreeMap<usize, Error>,
    complete: &[bool],
    ended: Option<Error>,
) -> RestoreOutcome {
    let results = (0..tensors.len()).map(|index| match failed.remove(&index) {
        Some(error) => Err(error),
        None if complete.get(index) == Some(&true) => Ok(()),
        None => Err(Error::aborted("not restored: the call ended early").with_tensor_index(index)),
    });
    RestoreOutcome {
        results: results.collect(),
        ended,
    }
}

fn memory_size(tensor: &RestoreTensor<'_>) -> u64 {
    match &tensor.data {
        RestoreData::Bytes(span) => span.len() as u64,
        RestoreData::Strings(_) => 0,
    }
}

/// Destinations that share a byte would be written by several threads at once.
fn refuse_overlaps(tensors: &[RestoreTensor<'_>]) -> Result<()> {
    let mut spans: Vec<(std::ops::Range<usize>, usize)> = tensors
        .iter()
        .enumerate()
        .filter_map(|(index, tensor)| match &tensor.data {
            RestoreData::Bytes(span) if !span.is_empty() => Some((span.addresses(), index)),
            _ => None,
        })
        .collect();
    spans.sort_unstable_by_key(|(range, index)| (range.start, *index));
    let clash = spans.windows(2).find_map(|pair| match pair {
        [(first, a), (second, b)] if second.start < first.end => Some((*a.min(b), *a.max(b))),
        _ => None,
    });
    let Some((first, second)) = clash else {
        return Ok(());
    };
    let key = tensors.get(second).map_or(&[][..], |tensor| tensor.key);
    Err(Error::invalid_argument(format!(
        "destinations overlap; tensors={first} and {second}"
    ))
    .with_tensor_index(second)
    .with_key(key))
}

/// What is to be read, and what cannot be.
#[derive(Default)]
struct Planned<'a> {
    pieces: Pieces<'a>,
    strings: Vec<StringPlan>,
    failed: BTreeMap<usize, Error>,
}

#[derive(Default)]
struct Pieces<'a>(Vec<Piece<'a>>);

impl Pieces<'_> {
    /// Drops the pieces of the tensor planned last, which failed half-way.
    fn truncate_to(&mut self, tensor: usize) {
        while self.0.last().is_some_and(|piece| piece.tensor == tensor) {
            self.0.pop();
        }
    }
}

/// Plans one tensor.
struct Planner<'r> {
    reader: &'r BundleReader,
    verify: Verify,
    index: usize,
}

impl Planner<'_> {
    fn plan<'a>(
        &self,
        tensor: &RestoreTensor<'a>,
        lookup: &mut Lookup<'_>,
        planned: &mut Planned<'a>,
    ) -> Result<()> {
        let entry = lookup.entry(tensor.key)?;
        let spec = check_request(tensor, &entry)
            .map_err(|error| error.with_file(self.reader.index_file()))?;
        let swap = self.swap_unit(entry.dtype)?;
        let parts = self.locate(tensor.key, &entry, spec.as_ref(), lookup)?;
        match &tensor.data {
            RestoreData::Bytes(dest) => {
                let element_size = entry.dtype.size().unwrap_or(1);
                for part in parts {
                    let piece = self.piece(part, *dest, element_size, swap)?;
                    planned.pieces.0.push(piece);
                }
            }
            RestoreData::Strings(_) => planned.strings.push(StringPlan {
                tensor: self.index,
                num_elements: tensor.shape.num_elements(),
                parts,
            }),
        }
        Ok(())
    }

    /// The unit to reverse in each element, 1 for none.
    fn swap_unit(&self, dtype: DType) -> Result<usize> {
        if !self.reader.is_big_endian() {
            return Ok(1);
        }
        dtype.swap_unit().ok_or_else(|| {
            Error::unimplemented(format!(
                "Byte-swapping not supported for tensors with dtype {}",
                dtype as i32
            ))
            .with_file(self.reader.index_file())
        })
    }

    /// Where the requested elements are stored.
    fn locate(
        &self,
        key: &[u8],
        entry: &Entry,
        spec: Option<&ShapeAndSlice>,
        lookup: &mut Lookup<'_>,
    ) -> Result<Vec<Part>> {
        let full = TensorSlice::full(entry.shape.rank());
        let wanted = spec.map_or(&full, |spec| &spec.slice);
        let bounds = wanted.bounds(&entry.shape)?;
        let parts = match &entry.stored {
            Stored::Whole(extent) => {
                // Without elements there is nothing to share, but there still is a checksum.
                let everything = full.bounds(&entry.shape)?;
                let overlap = Overlap::new(&everything, &bounds).unwrap_or_else(Overlap::empty);
                vec![Part {
                    extent: *extent,
                    overlap,
                    num_elements: entry.shape.num_elements(),
                }]
            }
            Stored::Slices { slices, .. } => {
                let set = lookup.slice_set(key, &entry.shape, slices)?;
                let cover = set.cover(&bounds).ok_or_else(|| {
                    let name = String::from_utf8_lossy(key);
                    Error::invalid_argument(format!(
                        "Does not have sufficient slices for partitioned tensor {name} to restore in \
                         slice_spec: {wanted}"
                    ))
                    .with_file(self.reader.index_file())
                })?;
                let mut parts = Vec::with_capacity(cover.len());
                for (slice, overlap) in cover {
                    let extent = lookup.slice(key, entry, slice)?;
                    let num_elements = slice.shape_within(&entry.shape)?.num_elements();
                    parts.push(Part {
                        extent,
                        overlap,
                        num_elements,
                    });
                }
                parts
            }
        };
        refuse_shared_bytes(&parts).map_err(|error| error.with_file(self.reader.index_file()))?;
        for part in &parts {
            self.reader.locate(&part.extent)?;
        }
        Ok(parts)
    }

    fn piece<'a>(
        &self,
        part: Part,
        dest: DestSpan<'a>,
        element_size: usize,
        swap: usize,
    ) -> Result<Piece<'a>> {
        let Part {
            extent, overlap, ..
        } = part;
        let size = element_size as u64;
        let whole = overlap.num_elements() * size == extent.size;
        let check = match self.verify {
            Verify::Full => true,
            Verify::Fetched => whole,
            Verify::None => false,
        };
        let target = if whole && overlap.num_runs() <= 1 {
            let at = usize::try_from(overlap.run(0).dest * size).ok();
            let len = usize::try_from(extent.size).ok();
            let part = at.zip(len).and_then(|(at, len)| dest.get(at, len));
            Target::Direct(part.ok_or_else(|| Error::internal("a slice leaves its destination"))?)
        } else {
            Target::Scatter {
                dest,
                overlap,
                element_size,
            }
        };
        let file = self.reader.locate(&extent)?;
        Ok(Piece {
            tensor: self.index,
            file,
            extent,
            check,
            swap,
            target,
        })
    }
}

/// Compares the request with the entry, in TensorFlow's order and words.
fn check_request(tensor: &RestoreTensor<'_>, entry: &Entry) -> Result<Option<ShapeAndSlice>> {
    let name = KeyText(tensor.key);
    check_dtype(tensor.dtype)?;
    if tensor.dtype != entry.dtype {
        return Err(Error::invalid_argument(format!(
            "tensor_name = {name}; expected dtype {} does not equal original dtype {}",
            tensor.dtype, entry.dtype
        )));
    }
    let spec = tensor.check()?;
    let shape = spec.as_ref().map_or(&tensor.shape, |spec| &spec.full_shape);
    if *shape != entry.shape {
        return Err(Error::invalid_argument(format!(
            "tensor_name = {name}; shape in shape_and_slice spec {shape} does not match the shape \
             stored in checkpoint: {}",
            entry.shape
        )));
    }
    Ok(spec)
}

/// Slices of one tensor have bytes of their own. An index that lets many point at the same ones could
/// ask for any amount of memory with a small file.
fn refuse_shared_bytes(parts: &[Part]) -> Result<()> {
    let mut extents: Vec<_> = parts.iter().map(|part| part.extent).collect();
    extents.retain(|extent| extent.size > 0);
    extents.sort_unstable_by_key(|extent| (extent.shard_id, extent.offset));
    let shared = extents.windows(2).any(|pair| match pair {
        [a, b] => a.shard_id == b.shard_id && b.offset < a.offset + a.size,
        _ => false,
    });
    if shared {
        Err(Error::data_loss("slices of one tensor share bytes"))
    } else {
        Ok(())
    }
}
