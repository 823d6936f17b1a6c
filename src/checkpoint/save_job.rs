//! Saves in the background.

use std::path::Path;

use super::job::{Done, Job, JobOptions};
use super::save::{SaveOptions, save};
use super::tensor::SaveTensor;
use crate::error::Result;
use crate::transfer::{CopiesFirst, Monitor, Stage};

/// When a save in the background lets go of the tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Snapshot {
    /// Before the job is returned: they have been copied within the budget by then. What does not fit is
    /// written first, and the call returns later.
    #[default]
    Copied,
    /// When [`Job::wait_snapshot`] says so. The job is returned at once, and no memory is needed for a
    /// copy.
    Borrowed,
    /// Those of the host as [`Copied`](Self::Copied). Those of GPUs are copies already, which stay as they
    /// are until the job has ended and are complete when the events are reached that the job comes
    /// [after](JobOptions::after): [`Job::wait_snapshot`] says so. Where the budget has no room for the
    /// host's, all are copied.
    OnDevice,
}

impl Snapshot {
    /// What a job has got to before it is returned.
    pub(crate) fn stage(self) -> Stage {
        match self {
            Snapshot::Copied => Stage::Copied,
            Snapshot::Borrowed => Stage::Accepted,
            Snapshot::OnDevice => Stage::HostCopied,
        }
    }

    /// What its save copies first.
    pub(crate) fn copies_first(self) -> CopiesFirst {
        match self {
            Snapshot::Copied => CopiesFirst::All,
            Snapshot::Borrowed => CopiesFirst::Nothing,
            Snapshot::OnDevice => CopiesFirst::Host,
        }
    }
}

/// As [`save`], in the background.
///
/// # Errors
///
/// INVALID_ARGUMENT for tensors or options that do not fit together; RESOURCE_EXHAUSTED without a
/// thread. All that happens later is the job's error.
pub fn save_async(
    prefix: &Path,
    tensors: impl AsRef<[SaveTensor<'static>]> + Send + 'static,
    options: &SaveOptions,
    snapshot: Snapshot,
    job: JobOptions,
) -> Result<Job> {
    let (prefix, options) = (prefix.to_owned(), *options);
    Job::start(job, Monitor::new(0), snapshot.stage(), move |call| {
        call.copies_first = snapshot.copies_first();
        Done::saved(save(&prefix, tensors.as_ref(), &options, call).map(Some))
    })
}
