//! How tensors are restored, and what comes of it.

use crate::error::{Error, Result};

/// How much of what is read is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Every stored piece that a request touches is read and checked whole, as TensorFlow does.
    #[default]
    Full,
    /// Pieces that are needed whole are checked; of others only the bytes needed are read, unchecked. With
    /// a sidecar of chunk checksums these are checked too: the chunks that they lie in are read and
    /// compared. A sidecar that is damaged, or of another save, is ignored, and the stats say so.
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
    /// Whether the tensors are to arrive in about the order of the call, rather than in that of the
    /// files; those of strings come after the others.
    pub in_request_order: bool,
    /// Whether a tensor is verified before its first byte goes to a GPU, for which large ones are read
    /// twice. Otherwise a checksum that differs leaves the memory of the tensor with anything.
    pub strict: bool,
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
