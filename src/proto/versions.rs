//! What the versions in a file demand of its reader.

use super::VersionDef;
use crate::error::{Error, Result};

impl VersionDef {
    /// Checks that a reader of version `current` may read the file, by the rules of
    /// `tensorflow/core/framework/versions.cc`. Where TensorFlow names its own release, the text ends
    /// early.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text.
    pub fn check_consumer(&self, current: i32) -> Result<()> {
        if self.min_consumer > current {
            return Err(Error::invalid_argument(format!(
                "Checkpoint min consumer version {} above current version {current}",
                self.min_consumer
            )));
        }
        if self.bad_consumers.contains(&current) {
            return Err(Error::invalid_argument(format!(
                "Checkpoint disallows consumer version {current}."
            )));
        }
        Ok(())
    }
}
