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

/// Files opened later that may stay open although nobody uses them.
const KEPT_OPEN: usize = 256;

/// Data files that were opened when they were asked for.
#[derive(Debug, Default)]
struct Late {
    files: HashMap<u32, Arc<ReadFile>>,
    /// How many there may be before those that nobody uses are closed.
    most: usize,
}

impl Late {
    fn insert(&mut self, shard_id: u32, file: Arc<ReadFile>) {
        if self.files.len() >= self.most.max(KEPT_OPEN) {
            self.close_unused();
            // So that files which are all in use are not gone through again for each one more.
            self.most = 2 * self.files.len();
        }
        self.files.insert(shard_id, file);
    }

    fn close_unused(&mut self) {
        self.files.retain(|_, file| Arc::strong_count(file) > 1);
    }
}

/// The data files of one bundle.
#[derive(Debug)]
pub struct DataFiles {
    prefix: PathBuf,
    /// Where a file missing under `prefix` may be, for a copy that a save keeps while it overwrites.
    fallback: Option<PathBuf>,
    num_shards: u32,
    index: Arc<ReadFile>,
    early: Vec<Result<Arc<ReadFile>>>,
    late: Box<Mutex<Late>>,
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
            late: Box::default(),
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
        if let Some(file) = self.late.lock().files.get(&shard_id) {
            return Ok(file.clone());
        }
        let file = match self.open_shard(shard_id) {
            // Those of other calls, which are done with them, may be enough.
            Err(error) if error.code() == Code::ResourceExhausted => {
                self.late.lock().close_unused();
                self.open_shard(shard_id)?
            }
            opened => opened?,
        };
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
        files.late.lock().files.clear();
        std::fs::remove_file(&index_path).unwrap();
        assert_eq!(files.get(0).unwrap_err().code(), Code::Aborted);
    }

    #[test]
    fn files_opened_late_are_closed_when_there_are_many_that_nobody_uses() {
        const NUM: u32 = OPENED_AT_ONCE + 1000;
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("m");
        let index_path = naming::index_file(&prefix);
        std::fs::write(&index_path, b"index").unwrap();
        for shard_id in 0..NUM {
            std::fs::write(naming::data_file(&prefix, shard_id, NUM), b"data").unwrap();
        }
        let index = Arc::new(ReadFile::open(&index_path).unwrap());
        let files = DataFiles::open(&prefix, None, NUM, index);
        let used: Vec<_> = (0..OPENED_AT_ONCE + 5)
            .map(|shard_id| files.get(shard_id).unwrap())
            .collect();
        for shard_id in 0..NUM {
            assert_eq!(files.get(shard_id).unwrap().size(), 4);
            assert!(files.late.lock().files.len() <= KEPT_OPEN);
        }
        for (shard_id, file) in (0..).zip(&used) {
            assert!(Arc::ptr_eq(file, &files.get(shard_id).unwrap()));
        }
        // Opened again, a file has to belong to the index.
        files.late.lock().close_unused();
        std::fs::remove_file(&index_path).unwrap();
        assert_eq!(files.get(NUM - 1).unwrap_err().code(), Code::Aborted);
        assert!(files.get(OPENED_AT_ONCE).is_ok());
    }
}
