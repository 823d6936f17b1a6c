//! Which path strings the state file holds, and what they mean to a reader.
//!
//! A writer hands over paths as the caller of a save wrote them, and the directory of that save:
//!
//! 1. with `save_relative_paths`, absolute paths become relative to the directory;
//! 2. then, if the directory is relative, all relative paths become relative to it;
//! 3. what is left is stored as it is, not normalized.
//!
//! A reader puts its own name of the directory before each relative path. So a directory that was
//! saved to by a relative path may be moved or renamed as a whole.
//!
//! Sources: `update_checkpoint_state_internal`, `generate_checkpoint_state_proto` and
//! `get_checkpoint_state` in `tensorflow/python/checkpoint/checkpoint_management.py`.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::checkpoint_state::CheckpointState;
use super::double::double_text;
use super::paths::{bytes, isabs, join, relpath};
use crate::error::{Error, Result};

/// The state that a save to `save_dir` stores.
///
/// * `save_dir`: Python's `dirname` of the save path, so empty for a bare name
///   ([`paths::dirname`](super::paths::dirname));
/// * `model_checkpoint_path`: prefix of the new checkpoint;
/// * `all_paths`: prefixes of all that are kept, oldest first; `model_checkpoint_path` is appended
///   if it is not the last;
/// * `timestamps`: seconds since 1970, none or one for each path after that;
/// * `last_preserved`: seconds since 1970; zero is stored like `None`;
/// * `cwd`: what relative paths are relative to, absolute.
///
/// As in TensorFlow, a relative path among `all_paths` is not touched by rule 1 and one that rule 1
/// has just made relative is not spared by rule 2. So absolute prefixes together with a relative
/// `save_dir` and `save_relative_paths`, or the other way round, store strings that point elsewhere:
/// a caller that keeps prefixes across saves has to keep them in one form.
///
/// # Errors
///
/// INVALID_ARGUMENT for a number of timestamps that does not fit, for an empty path that would have
/// to become relative, and for a path that is not UTF-8, which the file cannot hold.
pub fn stored_state(
    save_dir: &Path,
    model_checkpoint_path: &Path,
    all_paths: &[PathBuf],
    timestamps: &[f64],
    last_preserved: Option<f64>,
    save_relative_paths: bool,
    cwd: &Path,
) -> Result<CheckpointState> {
    let shorten = |path: &Path| {
        if save_relative_paths && isabs(path) {
            relpath(path, save_dir, cwd)
        } else {
            Ok(path.to_owned())
        }
    };
    let latest = shorten(model_checkpoint_path)?;
    let mut all = all_paths
        .iter()
        .map(|path| shorten(path))
        .collect::<Result<Vec<_>>>()?;
    // Compared byte by byte: `Path` takes `d//m` and `d/m` for the same.
    if all.last().map(|last| bytes(last)) != Some(bytes(&latest)) {
        all.push(latest.clone());
    }
    if !timestamps.is_empty() && timestamps.len() != all.len() {
        return Err(Error::invalid_argument(format!(
            "Checkpoint timestamps, if provided, must match checkpoint paths (got paths {} and \
             timestamps {})",
            python_list(all.iter().map(|path| python_string(path))),
            python_list(timestamps.iter().copied().map(double_text)),
        )));
    }
    let store = |path: &Path| {
        if isabs(save_dir) || isabs(path) {
            text(path)
        } else {
            text(&relpath(path, save_dir, cwd)?)
        }
    };
    Ok(CheckpointState {
        model_checkpoint_path: store(&latest)?,
        all_model_checkpoint_paths: all.iter().map(|path| store(path)).collect::<Result<_>>()?,
        all_model_checkpoint_timestamps: timestamps.to_vec(),
        last_preserved_timestamp: last_preserved,
    })
}

/// Puts `dir` before every relative path of `state`; nothing is normalized, and whether the files
/// exist is not asked.
///
/// # Errors
///
/// INVALID_ARGUMENT if `dir` is not UTF-8 and a path needs it. A caller that wants paths instead of
/// text takes [`paths::join`](super::paths::join), which works with any `dir`. On an error `state`
/// is as it was.
pub fn resolve(state: &mut CheckpointState, dir: &Path) -> Result<()> {
    let absolute = |path: &String| text(&join(dir, Path::new(path)));
    let latest = absolute(&state.model_checkpoint_path)?;
    state.all_model_checkpoint_paths = state
        .all_model_checkpoint_paths
        .iter()
        .map(absolute)
        .collect::<Result<_>>()?;
    state.model_checkpoint_path = latest;
    Ok(())
}

/// `path` as the text that the state file needs.
fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::invalid_argument(format!(
            "checkpoint path is not UTF-8 path={}",
            bytes(path).escape_ascii()
        ))
    })
}

/// `[a, b]`, as Python prints a list.
fn python_list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// `path` as Python prints a string inside a list: in quotes, and with escapes for what would not
/// be visible.
fn python_string(path: &Path) -> String {
    let text = path.to_string_lossy();
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut shown = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            _ if c == quote => shown.extend(['\\', c]),
            _ if is_visible(c) => shown.push(c),
            _ => {
                let code = u32::from(c);
                // Writing to a String cannot go wrong.
                let _ = match code {
                    0..=0xff => write!(shown, "\\x{code:02x}"),
                    0x100..=0xffff => write!(shown, "\\u{code:04x}"),
                    _ => write!(shown, "\\U{code:08x}"),
                };
            }
        }
    }
    shown.push(quote);
    shown
}

/// Whether Python and Rust, which agree but for the newest characters, take `c` for printable.
fn is_visible(c: char) -> bool {
    // Rust's idea of it is reached through its escapes only. The letter before `c` is there because
    // combining marks are escaped at the start of a string alone.
    let shown: String = ['a', c].iter().collect::<String>().escape_debug().collect();
    c != '\0' && !shown.starts_with("a\\u")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::error::Code;

    const CWD: &str = "/tmp/statework/cwd";

    fn stored(dir: &str, latest: &str, all: &[&str], relative: bool) -> CheckpointState {
        let all: Vec<PathBuf> = all.iter().map(PathBuf::from).collect();
        let (dir, latest, cwd) = (Path::new(dir), Path::new(latest), Path::new(CWD));
        stored_state(dir, latest, &all, &[], None, relative, cwd).unwrap()
    }

    #[test]
    fn stored_strings_are_those_of_tensorflow() {
        // save_dir, latest, what TensorFlow 2.21 stored in a process whose folder is CWD.
        for (dir, latest, expected) in [
            ("dir", "dir/m-1", "m-1"),
            ("", "m-1", "m-1"),
            (".", "./m-1", "m-1"),
            ("a/../dir", "a/../dir/m-1", "m-1"),
            ("/abs/dir", "/abs/dir/m-1", "/abs/dir/m-1"),
            ("/abs/dir", "/abs/dir//m-1", "/abs/dir//m-1"),
            ("gs://b/d", "gs://b/d/m-1", "m-1"),
            ("dir", "/abs/m-1", "/abs/m-1"),
            ("d", "m-1", "../m-1"),
            ("/tmp/statework/cwd/d", "d/m-1", "d/m-1"),
            ("..", "../x/m", "x/m"),
            ("../..", "m", "statework/cwd/m"),
        ] {
            let state = stored(dir, latest, &[], false);
            assert_eq!(state.model_checkpoint_path, expected, "{dir} {latest}");
            assert_eq!(state.all_model_checkpoint_paths, [expected]);
        }
    }

    #[test]
    fn save_relative_paths_shortens_absolute_paths_as_tensorflow_does() {
        let state = stored("/abs/dir", "/abs/dir/m-1", &[], true);
        assert_eq!(state.model_checkpoint_path, "m-1");
        let abs = "/tmp/statework/cwd/dir";
        let (m1, m2) = (format!("{abs}/m-1"), format!("{abs}/m-2"));
        let state = stored(abs, &m2, &["dir/m-1", &m2], true);
        assert_eq!(state.all_model_checkpoint_paths, ["dir/m-1", "m-2"]);
        // Rule 2 after rule 1: TensorFlow's own mistake.
        let state = stored("dir", &m2, &["dir/m-1", &m1], true);
        assert_eq!(state.model_checkpoint_path, "../m-2");
        assert_eq!(
            state.all_model_checkpoint_paths,
            ["m-1", "../m-1", "../m-2"]
        );
    }

    #[test]
    fn absolute_and_relative_paths_mix() {
        let state = stored("dir", "dir/m-2", &["/abs/m-0", "dir/m-1"], false);
        assert_eq!(state.all_model_checkpoint_paths, ["/abs/m-0", "m-1", "m-2"]);
    }

    #[test]
    fn the_latest_path_is_appended_unless_it_is_the_last() {
        let last = stored("/d", "/d/m", &["/d/m"], false);
        assert_eq!(last.all_model_checkpoint_paths, ["/d/m"]);
        let first = stored("/d", "/d/m", &["/d/m", "/d/n"], false);
        assert_eq!(first.all_model_checkpoint_paths, ["/d/m", "/d/n", "/d/m"]);
        let spelled = stored("/d", "/d/m", &["/d//m"], false);
        assert_eq!(spelled.all_model_checkpoint_paths, ["/d//m", "/d/m"]);
    }

    #[test]
    fn a_wrong_number_of_timestamps_is_refused_with_the_text_of_tensorflow() {
        let all: Vec<PathBuf> = [
            "d/a'b",
            "d/c\"'\n\u{200b}\u{e9}\u{1f600}\u{301}\u{ad}\u{a0}",
            "d/m",
        ]
        .map(PathBuf::from)
        .into();
        let (dir, latest, cwd) = (Path::new("d"), Path::new("d/m"), Path::new(CWD));
        let error = stored_state(dir, latest, &all, &[1.0], None, false, cwd).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(
            error.message(),
            "Checkpoint timestamps, if provided, must match checkpoint paths (got paths \
             [\"d/a'b\", 'd/c\"\\'\\n\\u200b\u{e9}\u{1f600}\u{301}\\xad\\xa0', 'd/m'] and \
             timestamps [1.0])"
        );
        let fits = stored_state(dir, latest, &all, &[1.0, 2.0, 3.0], Some(0.5), false, cwd);
        let fits = fits.unwrap();
        assert_eq!(fits.all_model_checkpoint_timestamps, [1.0, 2.0, 3.0]);
        assert_eq!(fits.last_preserved_timestamp, Some(0.5));
    }

    #[test]
    fn only_a_stored_path_has_to_be_utf8() {
        let stored = |dir: &[u8], latest: &[u8]| {
            let [dir, latest] = [dir, latest].map(|bytes| Path::new(OsStr::from_bytes(bytes)));
            stored_state(dir, latest, &[], &[], None, false, Path::new(CWD))
        };
        let state = stored(b"\xff", b"\xff/m").unwrap();
        assert_eq!(state.model_checkpoint_path, "m");
        let error = stored(b"/\xff", b"/\xff/m").unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(
            error.message(),
            "checkpoint path is not UTF-8 path=/\\xff/m"
        );
    }

    #[test]
    fn an_empty_path_is_refused_where_it_would_become_relative() {
        let error = stored_state(
            Path::new("d"),
            Path::new(""),
            &[],
            &[],
            None,
            false,
            Path::new(CWD),
        );
        assert_eq!(error.unwrap_err().message(), "no path specified");
    }

    #[test]
    fn relative_paths_are_resolved_without_normalizing() {
        // What TensorFlow 2.21 returned for each directory.
        let read = CheckpointState {
            model_checkpoint_path: "../o/m".to_owned(),
            all_model_checkpoint_paths: ["/a", ""].map(str::to_owned).into(),
            ..CheckpointState::default()
        };
        for (dir, latest, all) in [
            ("dir", "dir/../o/m", ["/a", "dir/"]),
            ("dir/", "dir/../o/m", ["/a", "dir/"]),
            ("", "../o/m", ["/a", ""]),
            ("/w/dir", "/w/dir/../o/m", ["/a", "/w/dir/"]),
        ] {
            let mut state = read.clone();
            resolve(&mut state, Path::new(dir)).unwrap();
            assert_eq!(state.model_checkpoint_path, latest);
            assert_eq!(state.all_model_checkpoint_paths, all);
        }
        let mut state = read.clone();
        let error = resolve(&mut state, Path::new(OsStr::from_bytes(b"\xff"))).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(state, read);
    }
}
