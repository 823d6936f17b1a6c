//! Restores in the background.

use std::path::PathBuf;
use std::sync::Arc;

use super::job::{Done, Job, JobOptions};
use super::reader::Reader;
use super::restore::RestoreOptions;
use super::tensor::RestoreTensor;
use crate::error::Result;
use crate::transfer::{Call, Monitor, Stage};

/// What a restore in the background reads.
#[derive(Clone, Debug)]
pub enum RestoreFrom {
    /// A checkpoint that the job opens and closes.
    Prefix(PathBuf),
    /// An open checkpoint.
    Reader(Arc<Reader>),
}

/// As [`Reader::restore`], in the background. Tensors can be waited for one by one, with
/// [`Job::wait_tensor`], in the order in which they are needed.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED without a thread. All that happens later is the job's error.
pub fn restore_async(
    from: RestoreFrom,
    mut tensors: impl AsMut<[RestoreTensor<'static>]> + Send + 'static,
    options: &RestoreOptions,
    job: JobOptions,
) -> Result<Job> {
    let options = *options;
    let restored: &[RestoreTensor<'static>] = tensors.as_mut();
    let devices = restored.iter().map(|tensor| tensor.data.device());
    let devices: Vec<Option<i32>> = match devices.clone().any(|device| device.is_some()) {
        true => devices.collect(),
        false => Vec::new(),
    };
    let monitor = Monitor::new(restored.len()).with_devices(devices);
    Job::start(job, monitor, Stage::New, move |call| {
        call.monitor().reach(Stage::Accepted);
        run(&from, tensors.as_mut(), &options, call)
    })
}

fn run(
    from: &RestoreFrom,
    tensors: &mut [RestoreTensor<'static>],
    options: &RestoreOptions,
    call: &mut Call<'_>,
) -> Done {
    let restored = match from {
        RestoreFrom::Prefix(prefix) => {
            Reader::open(prefix).and_then(|reader| reader.restore(tensors, options, call))
        }
        RestoreFrom::Reader(reader) => reader.restore(tensors, options, call),
    };
    let outcome = match restored {
        Ok(outcome) => outcome,
        Err(error) => return Done::saved(Err(error)),
    };
    let result = match outcome.ended {
        Some(error) => Err(error),
        None => outcome.results.iter().cloned().collect(),
    };
    Done {
        result,
        path: None,
        tensors: outcome.results,
    }
}
