//! The path of a numbered checkpoint.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::naming;
use crate::state::{check_latest_filename, paths};

/// What a path is made from, beside the path itself.
#[derive(Clone, Copy, Debug)]
pub struct Naming<'a> {
    /// Appended as `-<step>`.
    pub global_step: Option<i64>,
    /// Whether the step has at least eight digits.
    pub pad_step_number: bool,
    /// Name of the state file.
    pub latest_filename: Option<&'a str>,
    /// Whether the saver was told to shard by device: then no file has the checkpoint's bare name.
    pub sharded: bool,
}

/// The prefix of the checkpoint that a save to `save_path` makes.
///
/// # Errors
///
/// INVALID_ARGUMENT with TensorFlow's text for a name of the state file that has a folder in it, or
/// that the checkpoint would have too; for a prefix without a file name.
pub fn checkpoint_file(save_path: &Path, naming: &Naming<'_>) -> Result<PathBuf> {
    let latest_filename = naming.latest_filename.unwrap_or("checkpoint");
    if latest_filename.is_empty() {
        return Err(Error::invalid_argument("'latest_filename' is empty"));
    }
    check_latest_filename(latest_filename)?;
    let prefix = match naming.global_step {
        Some(step) => naming::numbered_prefix(save_path, step, naming.pad_step_number),
        None => {
            let name = paths::basename(save_path);
            if name == latest_filename.as_bytes() && !naming.sharded {
                return Err(Error::invalid_argument(format!(
                    "'latest_filename' collides with 'save_path': '{latest_filename}' and '{}'",
                    save_path.display()
                )));
            }
            save_path.to_owned()
        }
    };
    if paths::basename(&prefix).is_empty() {
        return Err(Error::invalid_argument(format!(
            "the prefix has no file name; prefix={}",
            prefix.display()
        )));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMING: Naming<'_> = Naming {
        global_step: None,
        pad_step_number: false,
        latest_filename: None,
        sharded: false,
    };

    fn name(path: &str, naming: Naming<'_>) -> Result<PathBuf> {
        checkpoint_file(Path::new(path), &naming)
    }

    #[test]
    fn steps_are_appended_as_python_formats_them() {
        for (step, plain, padded) in [
            (0, "d/m-0", "d/m-00000000"),
            (7, "d/m-7", "d/m-00000007"),
            (-3, "d/m--3", "d/m--0000003"),
            (123_456_789_012, "d/m-123456789012", "d/m-123456789012"),
            (
                i64::MIN,
                "d/m--9223372036854775808",
                "d/m--9223372036854775808",
            ),
        ] {
            let numbered = Naming {
                global_step: Some(step),
                ..NAMING
            };
            assert_eq!(name("d/m", numbered).unwrap(), Path::new(plain));
            let numbered = Naming {
                pad_step_number: true,
                ..numbered
            };
            assert_eq!(name("d/m", numbered).unwrap(), Path::new(padded));
        }
        let numbered = Naming {
            global_step: Some(7),
            ..NAMING
        };
        assert_eq!(name("d/", numbered).unwrap(), Path::new("d/-7"));
    }

    #[test]
    fn the_state_file_and_the_checkpoint_must_not_share_a_name() {
        let error = name("dir/checkpoint", NAMING).unwrap_err();
        assert_eq!(
            error.message(),
            "'latest_filename' collides with 'save_path': 'checkpoint' and 'dir/checkpoint'"
        );
        for allowed in [
            Naming {
                sharded: true,
                ..NAMING
            },
            Naming {
                global_step: Some(1),
                ..NAMING
            },
            Naming {
                latest_filename: Some("state"),
                ..NAMING
            },
        ] {
            name("dir/checkpoint", allowed).unwrap();
        }
        let named = Naming {
            latest_filename: Some("state"),
            ..NAMING
        };
        name("dir/state", named).unwrap_err();
        let named = Naming {
            latest_filename: Some(""),
            ..NAMING
        };
        name("dir/m", named).unwrap_err();
        let named = Naming {
            latest_filename: Some("a/state"),
            ..NAMING
        };
        let error = name("dir/m", named).unwrap_err();
        assert_eq!(
            error.message(),
            "'latest_filename' must not contain path components"
        );
    }

    #[test]
    fn a_prefix_needs_a_file_name() {
        name("d/", NAMING).unwrap_err();
        name("", NAMING).unwrap_err();
    }
}
