//! The files of a V1 checkpoint: one of that very name, or one per shard.
//!
//! What TensorFlow calls the path of a sharded V1 checkpoint is a pattern, `P-?????-of-NNNNN` with
//! literal question marks. It is the only kind of pattern that a prefix can be.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::layout::{DataFile, DataFiles, Layout, base_name, folder};
use super::previous;
use crate::error::{Code, Result};
use crate::io::dir::{list, look};
use crate::naming;
use crate::v1::V1Reader;

/// The files of the V1 checkpoint at `prefix`, in the order of their names; none if there is none.
///
/// # Errors
///
/// The system's errors when the question cannot be answered.
pub fn v1_files(prefix: &Path) -> Result<Vec<PathBuf>> {
    if let Some(metadata) = look(prefix)? {
        return Ok(if metadata.is_dir() {
            Vec::new()
        } else {
            vec![prefix.to_owned()]
        });
    }
    let Some((base, num_shards)) = split_pattern(base_name(prefix).as_bytes()) else {
        return Ok(Vec::new());
    };
    let folder = folder(prefix);
    let mut beginning = base.to_vec();
    beginning.push(b'-');
    let mut names = match list(&folder, &beginning) {
        Err(error) if matches!(error.code(), Code::NotFound | Code::FailedPrecondition) => {
            Vec::new()
        }
        names => names?,
    };
    names.retain(|name| {
        let rest = name.as_bytes().get(beginning.len()..).unwrap_or_default();
        let shard = rest
            .strip_suffix(num_shards)
            .and_then(|rest| rest.strip_suffix(b"-of-"));
        shard.is_some_and(|shard| shard.len() == 5 && shard.iter().all(u8::is_ascii_digit))
    });
    names.sort_unstable();
    Ok(names
        .iter()
        .map(|name: &std::ffi::OsString| folder.join(OsStr::new(name)))
        .collect())
}

/// Whether `files`, all of the V1 checkpoint at `prefix`, include the one that is published last.
pub fn has_commit_file(prefix: &Path, files: &[PathBuf]) -> bool {
    match Sharded::of(prefix) {
        Some(sharded) => {
            let commit = sharded.file(0);
            files
                .iter()
                .any(|file| base_name(file) == base_name(&commit))
        }
        None => !files.is_empty(),
    }
}

/// The newest complete `.prev` of the V1 checkpoint at `prefix`, as a path to open.
///
/// # Errors
///
/// Whatever keeps the question from being answered.
pub fn newest_previous(prefix: &Path) -> Result<Option<PathBuf>> {
    let Some(sharded) = Sharded::of(prefix) else {
        return previous::newest_complete(prefix, &Layout::v1(&whole_file));
    };
    let shards = |commit: &Path| sharded.data_files(commit);
    let kept = previous::newest_complete(&sharded.base, &sharded.layout(&shards))?;
    Ok(kept.map(|kept| naming::append(&kept, &sharded.tail)))
}

/// The data files, none, of a V1 checkpoint of one file, which is checked.
///
/// # Errors
///
/// Why it cannot be opened.
pub fn whole_file(commit: &Path) -> Result<Vec<DataFile>> {
    V1Reader::open(commit, &[commit.to_owned()]).map(|_| Vec::new())
}

/// Bytes of the smallest table.
const SMALLEST: u64 = 48;

/// The names of a sharded V1 checkpoint.
#[derive(Clone, Debug)]
pub struct Sharded {
    /// `P`.
    pub base: PathBuf,
    /// `NNNNN`, as it is written.
    num_shards: String,
    /// What follows `P` in the pattern.
    pub tail: String,
    /// What follows `P` in the name of the file that is published last.
    commit: String,
}

impl Sharded {
    /// The names for `num_shards` files of `base`.
    pub fn new(base: &Path, num_shards: u32) -> Self {
        Self::with_digits(base, format!("{num_shards:05}"))
    }

    /// The names of the pattern `P-?????-of-NNNNN`; `None` if it is no pattern, or has no shards.
    pub fn of(pattern: &Path) -> Option<Self> {
        let (base, num_shards) = split_pattern(base_name(pattern).as_bytes())?;
        let base = match pattern.parent() {
            Some(parent) => parent.join(OsStr::from_bytes(base)),
            None => PathBuf::from(OsStr::from_bytes(base)),
        };
        let num_shards = String::from_utf8(num_shards.to_vec()).ok()?;
        Some(Self::with_digits(&base, num_shards))
    }

    fn with_digits(base: &Path, num_shards: String) -> Self {
        Self {
            base: base.to_owned(),
            tail: format!("-?????-of-{num_shards}"),
            commit: format!("-00000-of-{num_shards}"),
            num_shards,
        }
    }

    /// The path by which the checkpoint is restored.
    pub fn pattern(&self) -> PathBuf {
        naming::append(&self.base, &self.tail)
    }

    /// The file of a shard.
    pub fn file(&self, shard: u32) -> PathBuf {
        naming::append(&self.base, self.suffix(shard))
    }

    fn suffix(&self, shard: u32) -> String {
        format!("-{shard:05}-of-{}", self.num_shards)
    }

    /// The layout, for [`publish`](super::publish).
    pub fn layout<'a>(&'a self, data_files: &'a DataFiles<'a>) -> Layout<'a> {
        Layout {
            commit: &self.commit,
            data: "-",
            tail: &self.tail,
            data_files,
        }
    }

    /// All files but the one that is published last, which is `commit` and is checked.
    ///
    /// # Errors
    ///
    /// Why it cannot be opened.
    pub fn data_files(&self, commit: &Path) -> Result<Vec<DataFile>> {
        whole_file(commit)?;
        let files = (1..self.num_shards()).map(|shard| DataFile {
            suffix: self.suffix(shard),
            min_size: SMALLEST,
        });
        Ok(files.collect())
    }

    /// Number of shards.
    pub fn num_shards(&self) -> u32 {
        self.num_shards
            .parse()
            .unwrap_or(MAX_SHARDS)
            .min(MAX_SHARDS)
    }
}

/// More shards than five digits number cannot be.
const MAX_SHARDS: u32 = 100_000;

/// `P` and `NNNNN` of `P-?????-of-NNNNN`.
fn split_pattern(name: &[u8]) -> Option<(&[u8], &[u8])> {
    const MARK: &[u8] = b"-?????-of-";
    let start = name
        .windows(MARK.len())
        .rposition(|window| window == MARK)?;
    let (base, rest) = name.split_at_checked(start)?;
    let num_shards = rest.strip_prefix(MARK)?;
    let sound = num_shards.len() >= 5 && num_shards.iter().all(u8::is_ascii_digit);
    sound.then_some((base, num_shards))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{
        Format, LatestOptions, Reader, SaveData, SaveOptions, SaveTensor, checkpoint_exists,
        latest_checkpoint, save,
    };
    use crate::dtype::DType;
    use crate::shape::Shape;
    use crate::transfer::{Call, Context, ContextOptions};

    #[test]
    fn a_pattern_stands_for_its_shards_and_a_name_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in [
            "m-00001-of-00002",
            "m-00000-of-00002",
            "m-00000-of-00003",
            "m-1-of-00002",
            "v1",
        ] {
            std::fs::write(at(name), b"").unwrap();
        }
        std::fs::create_dir(at("folder")).unwrap();
        let found = |name: &str| v1_files(&at(name)).unwrap();
        assert_eq!(
            found("m-?????-of-00002"),
            [at("m-00000-of-00002"), at("m-00001-of-00002")]
        );
        assert_eq!(found("v1"), [at("v1")]);
        for name in [
            "m",
            "m-*",
            "v?",
            "folder",
            "m-?????-of-2",
            "gone/m-?????-of-00002",
        ] {
            assert!(found(name).is_empty(), "{name}");
        }
    }

    /// Saves one tensor per shard.
    fn save_sharded(prefix: &Path, value: u8) -> PathBuf {
        let memory = [value];
        let tensor = |key, device_name| SaveTensor {
            key,
            dtype: DType::Uint8,
            shape: Shape::default(),
            slice_spec: "",
            device_name,
            data: SaveData::Bytes(memory.as_slice().into()),
        };
        let tensors = [tensor(b"a", "/cpu:0"), tensor(b"b", "/cpu:1")];
        let options = SaveOptions {
            format: Format::V1,
            shard_by_device: true,
            update_state: true,
            no_sync: true,
            ..SaveOptions::default()
        };
        let context = Context::new(ContextOptions::default()).unwrap();
        save(prefix, &tensors, &options, &mut Call::new(&context)).unwrap()
    }

    #[test]
    fn a_save_that_was_interrupted_leaves_the_old_shards_to_be_found() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("m");
        let pattern = save_sharded(&prefix, 1);
        assert_eq!(pattern, dir.path().join("m-?????-of-00002"));
        let kept = dir.path().join("m.prev-0123456789abcdef");
        for tail in ["-00000-of-00002", "-00001-of-00002"] {
            std::fs::hard_link(naming::append(&prefix, tail), naming::append(&kept, tail)).unwrap();
        }
        std::fs::remove_file(naming::append(&prefix, "-00000-of-00002")).unwrap();
        let state = "model_checkpoint_path: \"m.prev-0123456789abcdef-?????-of-00002\"\n";
        std::fs::write(dir.path().join("checkpoint"), state).unwrap();
        assert_eq!(Reader::open(&pattern).unwrap().num_tensors().unwrap(), 2);
        assert!(checkpoint_exists(&pattern).unwrap());
        let latest = latest_checkpoint(dir.path(), LatestOptions::default()).unwrap();
        assert_eq!(latest.prefix, pattern);

        // The next save puts things in order.
        assert_eq!(save_sharded(&prefix, 2), pattern);
        let names = list(dir.path(), b"").unwrap();
        let kept: Vec<_> = names
            .iter()
            .filter(|name| name.to_string_lossy().contains("prev"))
            .collect();
        assert!(kept.is_empty(), "{kept:?}");
        assert_eq!(Reader::open(&pattern).unwrap().num_tensors().unwrap(), 2);
        let latest = latest_checkpoint(dir.path(), LatestOptions::default()).unwrap();
        assert_eq!(latest.prefix, pattern);
    }
}
