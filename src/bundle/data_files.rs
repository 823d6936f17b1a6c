//! The data files of a bundle, opened so that a checkpoint replaced meanwhile cannot mix with it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Code, Error, Result};
use crate::io::read::ReadFile;
use crate::naming;

/// Data files opened together with the index. Open descriptors keep their files readable even if
/// retention deletes them; beyond this many, descriptors would run out.
const OPENED_AT_ONCE: u32 = 256;

/// The data files of one bundle.
#[derive(Debug)]
pub struct DataFiles {
    prefix: PathBuf,
    /// Where a file missing under `prefix` may be, for a copy that a save keeps while it overwrites.
    fallback: Option<PathBuf>,
    num_shards: u32,
    index: Arc<ReadFile>,
    early: Vec<Result<Arc<ReadFile>>>,
    late: Mutex<HashMap<u32, Arc<ReadFile>>>,
}

impl DataFiles {
    /// Opens the first files; one that cannot be opened is reported when it is asked for, or tried
    /// again then if there were too few descriptors.
    pub fn open(
        prefix: &Path,
        fallback: Option<&Path>,
        num_shards: u32,
        index: Arc<ReadFile>,
    ) -> Self {
        let mut files = Self {
            prefix: prefix.to_owned(),
            fallback: fallback.map(Path::to_owned),
            num_shards,
            index,
            early: Vec::new(),
            late: Mutex::new(HashMap::new()),
        };
        files.early = (0..num_shards.min(OPENED_AT_ONCE))
            .map(|shard_id| files.open_shard(shard_id))
            .collect();
        files
    }

    /// The data file of a shard.
    ///
    /// # Errors
    ///
    /// The system's error naming the file, NOT_FOUND above all; ABORTED when the checkpoint was
    /// replaced between opening the index and asking for this file.
    pub fn get(&self, shard_id: u32) -> Result<Arc<ReadFile>> {
        let early = usize::try_from(shard_id).ok();
        match early.and_then(|id| self.early.get(id)) {
            // That is no property of the file, and may have passed.
            Some(Err(error)) if error.code() == Code::ResourceExhausted => {}
            Some(file) => return file.clone(),
            None => {}
        }
        if let Some(file) = self.late.lock().get(&shard_id) {
            return Ok(file.clone());
        }
        let file = self.open_shard(shard_id)?;
        // A save unlinks the old index before it publishes new data, so an index that is still in
        // place says that the file just opened belongs to it.
        if !self.index.is_current() {
            return Err(Error::aborted("checkpoint was replaced while open").with_file(file.path()));
        }
        self.late.lock().insert(shard_id, file.clone());
        Ok(file)
    }

    fn open_shard(&self, shard_id: u32) -> Result<Arc<ReadFile>> {
        let opened = ReadFile::open(&naming::data_file(&self.prefix, shard_id, self.num_shards));
        let opened = match (&self.fallback, opened) {
            (Some(fallback), Err(error)) if error.code() == Code::NotFound => {
                ReadFile::open(&naming::data_file(fallback, shard_id, self.num_shards))
                    .map_err(|_| error)
            }
            (_, opened) => opened,
        };
        opened.map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_descriptors_were_missing_for_is_tried_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("m");
        let index_path = naming::index_file(&prefix);
        std::fs::write(&index_path, b"index").unwrap();
        std::fs::write(naming::data_file(&prefix, 0, 2), b"data").unwrap();
        let index = Arc::new(ReadFile::open(&index_path).unwrap());
        let mut files = DataFiles::open(&prefix, None, 2, index);
        assert_eq!(files.get(1).unwrap_err().code(), Code::NotFound);
        std::fs::write(naming::data_file(&prefix, 1, 2), b"late").unwrap();
        assert_eq!(files.get(1).unwrap_err().code(), Code::NotFound);
        files.early[0] = Err(Error::resource_exhausted("Too many open files"));
        assert_eq!(files.get(0).unwrap().size(), 4);
        // As a file opened late, it has to belong to the index.
        files.late.lock().clear();
        std::fs::remove_file(&index_path).unwrap();
        assert_eq!(files.get(0).unwrap_err().code(), Code::Aborted);
    }
}
