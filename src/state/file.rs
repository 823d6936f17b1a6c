//! The state file on disk: its name, and reading it.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::checkpoint_state::CheckpointState;
use super::paths::{bytes, dirname, join};
use super::stored::resolve;
use crate::error::{Code, Error, Result};
use crate::io::read::{ReadFile, stat};

/// The name of the state file unless the caller chooses another; other programs look for it under
/// this name, so it can never change.
pub const DEFAULT_FILENAME: &str = "checkpoint";

/// The largest state file that is read, in bytes. More than half a million checkpoints with
/// paths of 60 characters fit.
pub const MAX_SIZE: u64 = 64 << 20;

/// Path of the state file in `dir`; `latest_filename` defaults to `checkpoint`.
pub fn state_file(dir: &Path, latest_filename: Option<&str>) -> PathBuf {
    join(dir, Path::new(latest_filename.unwrap_or(DEFAULT_FILENAME)))
}

/// Refuses a name of the state file that leads to another directory.
///
/// # Errors
///
/// INVALID_ARGUMENT, with TensorFlow's text.
pub fn check_latest_filename(latest_filename: &str) -> Result<()> {
    if bytes(dirname(Path::new(latest_filename))).is_empty() {
        return Ok(());
    }
    Err(Error::invalid_argument(
        "'latest_filename' must not contain path components",
    ))
}

/// Reads the state file at `path`, its paths as they are stored; `None` if the file or its
/// directory does not exist.
///
/// # Errors
///
/// The system's error (PERMISSION_DENIED, FAILED_PRECONDITION for a directory), INVALID_ARGUMENT
/// for anything else that is not a regular file, RESOURCE_EXHAUSTED above [`MAX_SIZE`], and
/// DATA_LOSS naming the line for a text that is not a state.
pub fn read(path: &Path) -> Result<Option<CheckpointState>> {
    let file = match ReadFile::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error, path) => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.size() > MAX_SIZE {
        return Err(Error::resource_exhausted(format!(
            "state file is too large size={} limit={MAX_SIZE}",
            file.size()
        ))
        .with_file(path));
    }
    let text = file.read_vec(0, file.size())?;
    CheckpointState::parse(&text)
        .map(Some)
        .map_err(|error| error.with_file(path))
}

/// Whether `error`, from opening `path`, says that nothing is there.
fn is_absent(error: &Error, path: &Path) -> bool {
    match error.code() {
        Code::NotFound => true,
        // Either `path` is a directory, or what should be its directory is a file. In the second
        // case there is no state file, and asking for its size goes wrong in the same way.
        Code::FailedPrecondition => {
            stat(path).is_err_and(|error| error.code() == Code::FailedPrecondition)
        }
        _ => false,
    }
}

/// The state of `dir`, with `dir` before every relative path; `None` if there is no state file.
///
/// # Errors
///
/// As [`read`], [`check_latest_filename`] and [`resolve`]; INVALID_ARGUMENT, with TensorFlow's text,
/// if the file names no latest checkpoint, as an empty one does.
pub fn get_checkpoint_state(
    dir: &Path,
    latest_filename: Option<&str>,
) -> Result<Option<CheckpointState>> {
    if let Some(name) = latest_filename {
        check_latest_filename(name)?;
    }
    let path = state_file(dir, latest_filename);
    let Some(mut state) = read(&path)? else {
        return Ok(None);
    };
    if state.model_checkpoint_path.is_empty() {
        return Err(Error::invalid_argument(format!(
            "Invalid checkpoint state loaded from {}",
            dir.display()
        ))
        .with_file(&path));
    }
    resolve(&mut state, dir)?;
    Ok(Some(state))
}

/// Refuses a checkpoint that has the name of its own state file.
///
/// `stored` is the state about to be written to `state_file`, and `model_path` the prefix as the
/// caller wrote it. Only the spellings are compared.
///
/// # Errors
///
/// FAILED_PRECONDITION, with TensorFlow's text.
pub fn conflict(state_file: &Path, stored: &CheckpointState, model_path: &Path) -> Result<()> {
    if bytes(state_file) != stored.model_checkpoint_path.as_bytes() {
        return Ok(());
    }
    Err(Error::failed_precondition(format!(
        "Save path '{}' conflicts with path used for checkpoint state.  Please use a different \
         save path.",
        model_path.display()
    )))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::stored::stored_state;
    use super::*;

    fn written(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = state_file(dir.path(), None);
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn the_state_file_is_named_as_tensorflow_names_it() {
        let name = |dir, name| state_file(Path::new(dir), name);
        assert_eq!(name("d", None).as_os_str(), "d/checkpoint");
        assert_eq!(name("d/", Some("latest")).as_os_str(), "d/latest");
        assert_eq!(name("", None).as_os_str(), "checkpoint");
    }

    #[test]
    fn a_name_with_a_directory_is_refused() {
        for name in ["checkpoint", "a b", "..", ""] {
            check_latest_filename(name).unwrap();
        }
        for name in [
            "d/checkpoint",
            "/checkpoint",
            "checkpoint/",
            "../checkpoint",
        ] {
            let error = get_checkpoint_state(Path::new("d"), Some(name)).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert_eq!(
                error.message(),
                "'latest_filename' must not contain path components"
            );
        }
    }

    #[test]
    fn paths_are_resolved_against_the_directory_that_was_asked() {
        let (dir, _) =
            written(b"model_checkpoint_path: \"m-1\" all_model_checkpoint_paths: \"/a\"");
        let state = get_checkpoint_state(dir.path(), None).unwrap().unwrap();
        assert_eq!(
            Path::new(&state.model_checkpoint_path),
            dir.path().join("m-1")
        );
        assert_eq!(state.all_model_checkpoint_paths, ["/a"]);
    }

    #[test]
    fn an_absent_file_or_directory_is_no_state() {
        let (dir, path) = written(b"");
        for path in [
            dir.path().join("other"),
            dir.path().join("no/checkpoint"),
            path.join("checkpoint"),
        ] {
            assert_eq!(read(&path).unwrap(), None, "{}", path.display());
        }
        std::os::unix::fs::symlink("gone", dir.path().join("link")).unwrap();
        assert_eq!(read(&dir.path().join("link")).unwrap(), None);
    }

    #[test]
    fn an_empty_state_is_refused_with_the_text_of_tensorflow() {
        let (dir, path) = written(b"");
        assert_eq!(read(&path).unwrap(), Some(CheckpointState::default()));
        let error = get_checkpoint_state(dir.path(), None).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(
            error.message(),
            format!(
                "Invalid checkpoint state loaded from {}",
                dir.path().display()
            )
        );
    }

    #[test]
    fn damage_is_data_loss_with_file_and_line() {
        let (_dir, path) = written(b"model_checkpoint_path: \"m\"\nmodel\n");
        let error = read(&path).unwrap_err();
        assert_eq!(error.code(), Code::DataLoss);
        assert_eq!(
            error.to_string(),
            format!(
                "invalid checkpoint state: expected a field name but found \"model\" line=2 \
                 column=1 [file={}]",
                path.display()
            )
        );
    }

    #[test]
    fn a_directory_is_not_taken_for_an_absent_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = read(dir.path()).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
    }

    #[test]
    fn a_pipe_is_refused_without_waiting_for_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = state_file(dir.path(), None);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert_eq!(read(&path).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn a_file_that_may_not_be_read_is_permission_denied() {
        let (_dir, path) = written(b"model_checkpoint_path: \"m\"");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        // Root may read everything; then there is nothing to see here.
        if fs::read(&path).is_err() {
            assert_eq!(read(&path).unwrap_err().code(), Code::PermissionDenied);
        }
    }

    #[test]
    fn a_huge_file_is_refused_before_it_is_read() {
        let (_dir, path) = written(b"");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(MAX_SIZE + 1).unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_checkpoint_named_like_its_state_file_is_refused_as_tensorflow_does() {
        let cwd = Path::new("/w");
        // save_dir, path, whether TensorFlow 2.21 raised the error.
        for (dir, path, relative, refused) in [
            ("", "checkpoint", false, true),
            ("", "./checkpoint", false, true),
            ("/w/dir", "/w/dir/checkpoint", false, true),
            ("/w/dir", "/w/dir/checkpoint", true, false),
            ("/w/dir/", "/w/dir/checkpoint", false, true),
            (".", "checkpoint", false, false),
            ("dir", "dir/checkpoint", false, false),
        ] {
            let (dir, path) = (Path::new(dir), Path::new(path));
            let state = stored_state(dir, path, &[], &[], None, relative, cwd).unwrap();
            let result = conflict(&state_file(dir, None), &state, path);
            assert_eq!(result.is_err(), refused, "{dir:?} {path:?} {relative}");
            if let Err(error) = result {
                assert_eq!(error.code(), Code::FailedPrecondition);
                let text = format!(
                    "Save path '{}' conflicts with path used for checkpoint state.  Please use a \
                     different save path.",
                    path.display()
                );
                assert_eq!(error.message(), text);
            }
        }
    }
}
