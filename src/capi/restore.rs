//! Restoring
//!
//! A restore fills the caller's memory. Names, dtypes, shapes and slices of all tensors are compared
//! with the checkpoint before the first byte is written, and every checksum is verified unless the
//! caller asks for less.
//!
//! With codes_out, an array of one code per tensor, the failure of one tensor does not keep the others
//! from being restored: TFCKPT_OK means complete and verified, an error that the contents are
//! undefined, TFCKPT_ABORTED that the tensor was not attempted; the call returns the code of the first
//! tensor of the array that failed. Without it the first failure ends the call, and nothing is written
//! if that is known beforehand: as in TensorFlow a key that is missing comes before anything else, and
//! dtypes that differ make one message, a line for each.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

use super::context::{context_or_new, tfckpt_context};
use super::devices::Devices;
use super::error::{TFCKPT_ABORTED, TFCKPT_OK, tfckpt_code, tfckpt_error};
use super::handle::{Sized, array_mut, init_struct, path, read_struct};
use super::progress::{tfckpt_progress_fn, to_progress};
use super::stats::{clear_stats, put_stats, tfckpt_stats};
use super::struct_array::StructArray;
use super::tensor::tfckpt_tensor;
use super::wall::guard;
use crate::device::Event;
use crate::{
    Call, Context, Error, Reader, RestoreData, RestoreOptions, RestoreOutcome, RestoreTensor,
    Result, StringTensor, Verify,
};

/// Every stored piece that a request touches is read and verified whole, as TensorFlow does.
pub const TFCKPT_VERIFY_FULL: i32 = 0;
/// Pieces that are needed whole are verified; of others only the bytes needed are read, unverified. With
/// a sidecar "PREFIX.crc32c" (chunk_checksums of tfckpt_save_options) these are verified too: the chunks
/// of 1 MiB that they lie in are read and checked. A sidecar that is damaged, or of another save, is
/// ignored; tfckpt_stats says so.
pub const TFCKPT_VERIFY_FETCHED: i32 = 1;
/// Nothing is verified.
pub const TFCKPT_VERIFY_NONE: i32 = 2;

/// How tensors are restored. All zeros is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_restore_options {
    /// sizeof(tfckpt_restore_options)
    pub struct_size: usize,
    /// NULL = the reader's, or one for this call.
    pub context: *const tfckpt_context,
    /// TFCKPT_VERIFY_*
    pub verify: i32,
    /// As in tfckpt_context_options, for this call; 0 = the context's alone.
    pub max_host_bytes: u64,
    /// NULL = no progress.
    pub progress: tfckpt_progress_fn,
    /// Passed to progress.
    pub user_data: *mut c_void,
    /// Filled if not NULL. Must be NULL for a job: tfckpt_job_stats has its figures.
    pub stats: *mut tfckpt_stats,
    /// Non-zero: a stored tensor, or the slice that slice_spec asks for, may have another shape than
    /// the tensor that it is restored to, if only it has as many elements.
    pub reshape: i32,
    /// Non-zero: within each device_name, tensors are restored one after the other, in the order of the
    /// array. All are checked before the first byte is written, as without.
    pub restore_sequentially: i32,
    /// Non-zero: tensors are read in about the order of the array, rather than in that of the files, so
    /// that tfckpt_job_wait_tensor can hand them out early. Tensors of strings come after the others.
    pub in_request_order: i32,
    /// Non-zero: as if codes_out were given, for a job, whose codes are fetched afterwards.
    pub keep_going: i32,
    /// Non-zero: a tensor is verified before its first byte goes to a device, for which large ones are
    /// read twice. Otherwise a checksum that differs leaves device memory with anything, as it does host
    /// memory.
    pub strict: i32,
    /// Non-zero: the call returns when the copies to devices are enqueued; what is enqueued on the
    /// tensors' streams afterwards comes after them. Without effect on devices all of whose tensors are
    /// TFCKPT_TENSOR_UNORDERED, on a saver with saveables, and if the call fails: the copies have run then.
    /// Must be 0 for a job.
    pub stream_ordered: i32,
}

// SAFETY: `repr(C)`, begins with its size, integers, pointers and an optional function only.
unsafe impl Sized for tfckpt_restore_options {
    const NAME: &'static str = "tfckpt_restore_options";
}

/// Sets *options to the default; struct_size is sizeof(tfckpt_restore_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_restore_options_init(
    options: *mut tfckpt_restore_options,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `options` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(options, struct_size)) }
}

/// Opens the checkpoint prefix, restores num_tensors tensors from it and closes it. options and
/// codes_out may be NULL. Memory of two tensors must not overlap.
///
/// # Errors
///
/// NOT_FOUND for a checkpoint or key that is not there; INVALID_ARGUMENT for a dtype or shape that
/// differs, with TensorFlow's text; DATA_LOSS for a checksum that differs; OUT_OF_RANGE for a data file
/// that is too short; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_restore(
    prefix: *const c_char,
    tensors: *const tfckpt_tensor,
    num_tensors: usize,
    options: *const tfckpt_restore_options,
    codes_out: *mut tfckpt_code,
    error_out: *mut *mut tfckpt_error,
) -> tfckpt_code {
    // SAFETY: pointers are NULL or valid, by the header's rules; so in the whole block.
    unsafe {
        guard(error_out, || {
            let prefix = path(prefix, "prefix")?;
            let options = read_struct(options)?;
            let context = context_or_new(options.context)?;
            let request = Request::read(tensors, num_tensors, &options, codes_out)?;
            request.run(&Reader::open(prefix)?, &options, &context)
        })
    }
}

impl tfckpt_restore_options {
    /// How tensors are restored.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for an unknown number in `verify`.
    pub(super) fn to_options(self, keep_going: bool) -> Result<RestoreOptions> {
        let verify = match self.verify {
            TFCKPT_VERIFY_FULL => Verify::Full,
            TFCKPT_VERIFY_FETCHED => Verify::Fetched,
            TFCKPT_VERIFY_NONE => Verify::None,
            other => {
                return Err(Error::invalid_argument(format!(
                    "unknown verify; verify={other}"
                )));
            }
        };
        Ok(RestoreOptions {
            verify,
            keep_going,
            reshape: self.reshape != 0,
            restore_sequentially: self.restore_sequentially != 0,
            in_request_order: self.in_request_order != 0,
            strict: self.strict != 0,
        })
    }
}

/// A restore as C describes it, its arrays checked.
pub(super) struct Request<'c> {
    tensors: StructArray<'c, tfckpt_tensor>,
    options: RestoreOptions,
    codes: Option<&'c mut [std::mem::MaybeUninit<tfckpt_code>]>,
}

impl Request<'_> {
    /// Reads the arguments; each code is ABORTED until there is another.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for an array or option that cannot be used.
    ///
    /// # Safety
    ///
    /// As [`tfckpt_restore`].
    pub(super) unsafe fn read(
        tensors: *const tfckpt_tensor,
        num_tensors: usize,
        options: &tfckpt_restore_options,
        codes_out: *mut tfckpt_code,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        let codes = unsafe { codes(codes_out, num_tensors) }?;
        // SAFETY: as above.
        unsafe { clear_stats(options.stats) }?;
        // SAFETY: as above.
        let tensors = unsafe { StructArray::new(tensors, num_tensors, "tensors") }?;
        refuse_overlaps(&tensors)?;
        let options = options.to_options(codes.is_some() || options.keep_going != 0)?;
        Ok(Self {
            tensors,
            options,
            codes,
        })
    }

    /// Restores, and writes codes, strings and figures.
    ///
    /// # Errors
    ///
    /// The error that ended the call, or that of the first tensor that failed.
    ///
    /// # Safety
    ///
    /// As [`tfckpt_restore`].
    pub(super) unsafe fn run(
        self,
        reader: &Reader,
        options: &tfckpt_restore_options,
        context: &Context,
    ) -> Result<()> {
        let Self {
            tensors,
            options: restore_options,
            codes,
        } = self;
        let keep_going = restore_options.keep_going;
        let num_strings = tensors.iter().filter(|tensor| tensor.is_string()).count();
        let mut strings = vec![StringTensor::default(); num_strings];
        let mut places = strings.iter_mut();
        // Descriptions that cannot be used are left out.
        let mut requests: Vec<RestoreTensor<'_>> = Vec::with_capacity(tensors.len());
        let mut refused: BTreeMap<usize, Error> = BTreeMap::new();
        let mut devices = Devices::new(context);
        for (index, tensor) in tensors.iter().enumerate() {
            let place = if tensor.is_string() {
                places.next()
            } else {
                None
            };
            // SAFETY: the caller's promise.
            let described = unsafe { tensor.describe_restore(place.map(RestoreData::Strings)) };
            // SAFETY: as above.
            match described.and_then(|described| unsafe { devices.admit(&tensor, described) }) {
                Ok(request) => requests.push(request),
                Err(error) if keep_going => {
                    refused.insert(index, error.with_tensor_index(index));
                }
                Err(error) => return Err(error.with_tensor_index(index)),
            }
        }
        // SAFETY: the caller's promise.
        let restored = unsafe {
            run_on(
                reader,
                &mut requests,
                &restore_options,
                options,
                &devices,
                context,
            )
        };
        drop(requests);
        let outcome = restored?.0;
        let mut strings = strings.into_iter();
        settle(
            outcome,
            (tensors.len(), refused),
            keep_going,
            codes,
            &mut |index, is_restored| {
                let Some(tensor) = tensors.get(index).filter(tfckpt_tensor::is_string) else {
                    return;
                };
                if let Some(strings) = strings.next().filter(|_| is_restored) {
                    // SAFETY: a tensor of strings that was restored passed `describe_restore`.
                    unsafe { tensor.put_strings(strings) };
                }
            },
        )
    }
}

/// Restores what is described, in the order of the streams of `devices`, and writes the figures. Returns
/// what came of it, and what ends the copies that are still under way, if the options allow any.
///
/// # Errors
///
/// Those of the streams. After an error, this or that of the outcome, no copies are under way.
///
/// # Safety
///
/// The stats of the options must be NULL or valid.
pub(super) unsafe fn run_on(
    reader: &Reader,
    requests: &mut [RestoreTensor<'_>],
    restore_options: &RestoreOptions,
    options: &tfckpt_restore_options,
    devices: &Devices<'_>,
    context: &Context,
) -> Result<(Result<RestoreOutcome>, Vec<Event>)> {
    let mut call = Call::new(context);
    call.max_host_bytes = options.max_host_bytes;
    call.progress = to_progress(options.progress, options.user_data);
    call.after = devices.mark()?;
    call.leaves_copies = options.stream_ordered != 0;
    let outcome = reader.restore(requests, restore_options, &mut call);
    devices.finish(&call.copied, !is_complete(&outcome))?;
    // SAFETY: the caller's promise.
    unsafe { put_stats(options.stats, &call.stats) }?;
    Ok((outcome, call.copied))
}

/// Whether nothing went wrong.
fn is_complete(outcome: &Result<RestoreOutcome>) -> bool {
    outcome
        .as_ref()
        .is_ok_and(|outcome| outcome.ended.is_none() && outcome.results.iter().all(Result::is_ok))
}

/// Writes the codes of a call, and tells `each` of every tensor, in order, whether it was restored and is
/// to be handed out: without codes nobody could tell which were by a call that failed. `of` has the
/// number of tensors and those that were left out of the restore, with the reason.
///
/// # Errors
///
/// The error that ended the call, or that of the first tensor that failed.
pub(super) fn settle(
    outcome: Result<RestoreOutcome>,
    of: (usize, BTreeMap<usize, Error>),
    keep_going: bool,
    codes: Option<&mut [std::mem::MaybeUninit<tfckpt_code>]>,
    each: &mut dyn FnMut(usize, bool),
) -> Result<()> {
    let (num, mut refused) = of;
    let indices: Vec<usize> = match refused.is_empty() {
        true => Vec::new(),
        false => (0..num)
            .filter(|index| !refused.contains_key(index))
            .collect(),
    };
    let reindexed = |error: Error| match indices.is_empty() {
        true => error,
        false => error.reindexed(&indices),
    };
    let outcome = outcome.map_err(reindexed)?;
    let mut first = outcome.ended.map(reindexed);
    let hand_out = keep_going || (first.is_none() && outcome.results.iter().all(Result::is_ok));
    let mut results = outcome.results.into_iter();
    let mut codes = codes.map(|codes| codes.iter_mut());
    for index in 0..num {
        let result = match refused.remove(&index) {
            Some(error) => Some(Err(error)),
            None => results.next().map(|result| result.map_err(reindexed)),
        };
        each(index, hand_out && matches!(result, Some(Ok(()))));
        let code = match result {
            Some(Ok(())) => TFCKPT_OK,
            Some(Err(error)) => {
                let code = error.code() as tfckpt_code;
                first.get_or_insert(error);
                code
            }
            None => TFCKPT_ABORTED,
        };
        if let Some(slot) = codes.as_mut().and_then(Iterator::next) {
            slot.write(code);
        }
    }
    first.map_or(Ok(()), Err)
}

/// The array of codes that a call is given, if it is; each is ABORTED until there is another.
///
/// # Errors
///
/// INVALID_ARGUMENT for an array that is too long.
///
/// # Safety
///
/// `codes_out` must be NULL or valid for writes of `num` codes during `'c`.
pub(super) unsafe fn codes<'c>(
    codes_out: *mut tfckpt_code,
    num: usize,
) -> Result<Option<&'c mut [std::mem::MaybeUninit<tfckpt_code>]>> {
    if codes_out.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let codes = unsafe { array_mut(codes_out, num, "codes_out") }?;
    codes.iter_mut().for_each(|code| {
        code.write(TFCKPT_ABORTED);
    });
    Ok(Some(codes))
}

/// Where a tensor of strings puts its pointer must be nobody else's memory. Overlaps of other tensors
/// are found by the restore itself.
///
/// # Errors
///
/// INVALID_ARGUMENT naming the tensor.
pub(super) fn refuse_overlaps(tensors: &StructArray<'_, tfckpt_tensor>) -> Result<()> {
    if !tensors.iter().any(|tensor| tensor.is_string()) {
        return Ok(());
    }
    let mut ranges: Vec<(usize, usize, usize)> = tensors
        .iter()
        .enumerate()
        .filter(|(_, tensor)| tensor.size > 0)
        .map(|(index, tensor)| (tensor.data.addr(), tensor.size, index))
        .collect();
    ranges.sort_unstable();
    let clash = ranges.windows(2).find_map(|pair| match pair {
        [(first, size, a), (second, _, b)] if second - first < *size => {
            Some((*a.min(b), *a.max(b)))
        }
        _ => None,
    });
    clash.map_or(Ok(()), |(first, second)| {
        Err(Error::invalid_argument(format!(
            "destinations overlap; tensors={first} and {second}"
        ))
        .with_tensor_index(second))
    })
}
