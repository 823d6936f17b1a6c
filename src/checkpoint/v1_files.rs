//! The files of a V1 checkpoint: one of that very name, or one per shard.
//!
//! What TensorFlow calls the path of a sharded V1 checkpoint is a pattern, `P-?????-of-NNNNN` with
//! literal question marks. It is the only kind of pattern that a prefix can be.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::layout::{base_name, folder};
use crate::error::{Code, Result};
use crate::io::dir::{list, look};

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
}
