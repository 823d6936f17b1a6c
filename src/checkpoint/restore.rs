//! Restores a list of tensors from an open checkpoint.
//!
//! Everything that can be known before reading is checked first, for all tensors: names, dtypes, shapes,
//! slices, and that the data files reach as far as the entries say. Then the bytes move.

use std::collections::BTreeMap;

use super::refused::Refused;
use super::restore_plan::{Planned, plan};
use super::tensor::{RestoreData, RestoreTensor};
use crate::bundle::BundleReader;
use crate::error::{Code, Error, Result};
use crate::transfer::Call;
use crate::transfer::read;

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
    /// Whether a stored tensor, or the slice that is asked for, may have another shape than the tensor
    /// that it is restored to, if only it has as many elements.
    pub reshape: bool,
    /// Whether one tensor after the other is restored within each device, in the order of the call.
    pub restore_sequentially: bool,
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

/// What is known of a restore before anything is read.
#[derive(Default)]
pub struct Checked {
    /// Bytes to be moved.
    pub bytes: u64,
    /// Tensors that cannot be restored.
    pub refused: Refused,
}

/// Checks `tensors` as [`restore`] does, and reads nothing.
///
/// # Errors
///
/// CANCELLED.
pub fn check(
    reader: &BundleReader,
    tensors: &[RestoreTensor<'_>],
    options: &RestoreOptions,
    call: &mut Call<'_>,
) -> Result<Checked> {
    let planned = plan(reader, tensors, options, call)?;
    Ok(Checked {
        bytes: planned.bytes(),
        refused: planned.refused,
    })
}

/// Restores `tensors`, whose memory is known not to overlap.
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
    let &RestoreOptions {
        verify, keep_going, ..
    } = options;
    let planned = plan(reader, tensors, options, call)?;
    let bytes = planned.bytes();
    let Planned {
        pieces,
        strings,
        mut refused,
    } = planned;
    let first = refused.first();
    let mut failed = refused.into_errors();
    if let Some(error) = first.filter(|_| !keep_going) {
        return Ok(outcome(tensors.len(), failed, &[], Some(error)));
    }

    call.stats.num_tensors = tensors.len() as u64;
    call.stats.bytes += tensors.iter().map(memory_size).sum::<u64>();
    if let Err(error) = call.progress.start(bytes, tensors.len() as u64) {
        return Ok(outcome(tensors.len(), failed, &[], Some(error)));
    }
    let bundle = reader.prefix().display().to_string();
    let read = read::execute(call, &bundle, pieces, tensors.len(), keep_going)?;
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
            // No tensor's fault.
            Err(error) if error.code() == Code::Cancelled => ended = Some(error),
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
    Ok(outcome(tensors.len(), failed, &complete, ended))
}

/// The outcome of a call of `num_tensors`: those that neither failed nor are `complete` were not
/// attempted.
pub fn outcome(
    num_tensors: usize,
    mut failed: BTreeMap<usize, Error>,
    complete: &[bool],
    ended: Option<Error>,
) -> RestoreOutcome {
    let results = (0..num_tensors).map(|index| match failed.remove(&index) {
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
