//! The state file while a checkpoint that it names is overwritten: it names the `.prev` meanwhile,
//! so that whoever reads it, real TensorFlow too, is led to a complete checkpoint at every instant.

#![forbid(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::layout::{Layout, base_name, folder};
use super::previous::original;
use crate::error::{Code, Error, Result};
use crate::io::cleaned;
use crate::io::dir::is_same;
use crate::io::read::ReadFile;
use crate::state::{CheckpointState, paths};

/// The bytes of the state file; `None` if there is none.
///
/// # Errors
///
/// The system's error.
pub fn read(state_file: &Path) -> Result<Option<Vec<u8>>> {
    match ReadFile::open(state_file) {
        Ok(file) if file.size() > crate::state::MAX_SIZE => {
            Err(Error::resource_exhausted("state file is too large").with_file(state_file))
        }
        Ok(file) => file.read_vec(0, file.size()).map(Some),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The state with every path that means `prefix` replaced by one that means `kept`, a
/// `PREFIX.prev-<id>`; the rest of its content stays. `None` if no path does, or the text is no
/// state: nobody is led anywhere by it then.
pub fn to_kept(
    state: &[u8],
    state_file: &Path,
    prefix: &Path,
    kept: &Path,
    layout: &Layout<'_>,
) -> Option<Vec<u8>> {
    let kept = base_name(kept).as_bytes();
    let added = kept.get(base_name(prefix).len()..)?;
    let added = std::str::from_utf8(added).ok()?;
    let new = |plain: &str| format!("{plain}{added}");
    replace(state, state_file, prefix, layout.tail, new)
}

/// The state with every path that means a `.prev` of `prefix` replaced by one that means `prefix`;
/// `None` as for [`to_kept`].
pub fn to_original(
    state: &[u8],
    state_file: &Path,
    prefix: &Path,
    layout: &Layout<'_>,
) -> Option<Vec<u8>> {
    replace(state, state_file, prefix, layout.tail, str::to_owned)
}

fn replace(
    state: &[u8],
    state_file: &Path,
    prefix: &Path,
    tail: &str,
    new: impl Fn(&str) -> String,
) -> Option<Vec<u8>> {
    let mut state = CheckpointState::parse(state).ok()?;
    let dir = paths::dirname(state_file);
    let mut changed = false;
    let all = state.all_model_checkpoint_paths.iter_mut();
    for path in all.chain([&mut state.model_checkpoint_path]) {
        let Some(plain) = path.strip_suffix(tail) else {
            continue;
        };
        let plain = original(Path::new(plain))
            .and_then(Path::to_str)
            .unwrap_or(plain);
        if means(&paths::join(dir, Path::new(plain)), prefix) {
            let new = new(plain) + tail;
            changed |= *path != new;
            *path = new;
        }
    }
    changed.then(|| state.to_text().into_bytes())
}

/// Whether two prefixes, however they are spelt, are the same files.
fn means(one: &Path, other: &Path) -> bool {
    if base_name(one) != base_name(other) {
        return false;
    }
    let (one, other) = (folder(one), folder(other));
    match (
        std::fs::metadata(cleaned(&one)),
        std::fs::metadata(cleaned(&other)),
    ) {
        (Ok(one), Ok(other)) => is_same(&one, &other),
        _ => paths::normpath(&one) == paths::normpath(&other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout<'_> = Layout {
        commit: ".index",
        data: ".data-",
        tail: "",
        data_files: &|_| Ok(Vec::new()),
    };

    fn state(latest: &str, all: &[&str]) -> CheckpointState {
        CheckpointState {
            model_checkpoint_path: latest.to_owned(),
            all_model_checkpoint_paths: all.iter().map(|&path| path.to_owned()).collect(),
            all_model_checkpoint_timestamps: vec![1.5, 2.0],
            last_preserved_timestamp: Some(7.0),
        }
    }

    #[test]
    fn every_spelling_of_the_prefix_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let name = |tail: &str| format!("{}{tail}", dir.path().display());
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("d"), dir.path().join("s")).unwrap();
        let file = dir.path().join("d/checkpoint");
        let prefix = dir.path().join("s/m");
        let kept = dir.path().join("s/m.prev-0123456789abcdef");
        for spelling in ["m", "../s/m", "./m", &name("/d/m"), &name("/d/../s//m")] {
            let old = state(spelling, &["m-1", spelling]);
            let bytes = old.to_text().into_bytes();
            let there = format!("{spelling}.prev-0123456789abcdef");
            let new = to_kept(&bytes, &file, &prefix, &kept, &LAYOUT).unwrap();
            assert_eq!(
                CheckpointState::parse(&new).unwrap(),
                state(&there, &["m-1", &there])
            );
            // Another one takes its place, and it goes back again.
            let other = dir.path().join("s/m.prev-fedcba9876543210");
            let moved = to_kept(&new, &file, &prefix, &other, &LAYOUT).unwrap();
            assert_eq!(to_original(&moved, &file, &prefix, &LAYOUT).unwrap(), bytes);
            assert_eq!(to_original(&bytes, &file, &prefix, &LAYOUT), None);
        }
        for stranger in ["m-1", "mm", "e/m", "../m", "m.prev-1", ""] {
            let bytes = state(stranger, &[stranger]).to_text().into_bytes();
            assert_eq!(
                to_kept(&bytes, &file, &prefix, &kept, &LAYOUT),
                None,
                "{stranger}"
            );
        }
        assert_eq!(to_kept(b"no state", &file, &prefix, &kept, &LAYOUT), None);
    }
}
