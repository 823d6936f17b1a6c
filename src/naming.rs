//! From a checkpoint's prefix to the names of its files.
//!
//! Paths are bytes; names are built by appending, never by interpreting what the prefix contains.
//! Source of the patterns: `tensorflow/core/util/tensor_bundle/naming.cc`.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `prefix` with `suffix` appended to its last component.
pub fn append(prefix: &Path, suffix: impl Display) -> PathBuf {
    let mut name: OsString = prefix.as_os_str().to_owned();
    name.push(suffix.to_string());
    PathBuf::from(name)
}

/// `<prefix>.index`.
pub fn index_file(prefix: &Path) -> PathBuf {
    append(prefix, ".index")
}

/// `<prefix>.data-SSSSS-of-NNNNN`, five digits each or more where needed.
pub fn data_file(prefix: &Path, shard_id: u32, num_shards: u32) -> PathBuf {
    append(
        prefix,
        format_args!(".data-{shard_id:05}-of-{num_shards:05}"),
    )
}

/// `<prefix>.crc32c`, the sidecar of chunk checksums, a file that TensorFlow does not know.
pub fn sidecar_file(prefix: &Path) -> PathBuf {
    append(prefix, SIDECAR)
}

/// What follows the prefix in the name of a [`sidecar_file`].
pub const SIDECAR: &str = ".crc32c";

/// The last component of the prefix to which `name` belongs, if it is that of a [`data_file`].
pub fn data_file_base(name: &OsStr) -> Option<&OsStr> {
    let number = |text: &[u8]| text.len() >= 5 && text.iter().all(u8::is_ascii_digit);
    let split = |text: &'_ [u8], mark: &[u8]| {
        let at = text
            .windows(mark.len())
            .rposition(|window| window == mark)?;
        number(text.get(at + mark.len()..)?).then_some(at)
    };
    let name = name.as_bytes();
    let name = name.get(..split(name, b"-of-")?)?;
    let name = name.get(..split(name, b".data-")?)?;
    Some(OsStr::from_bytes(name))
}

/// `<prefix>-SSSSS-of-NNNNN`, the prefix of a part of a checkpoint.
pub fn part_prefix(prefix: &Path, shard: u32, num_shards: u32) -> PathBuf {
    append(prefix, format_args!("-{shard:05}-of-{num_shards:05}"))
}

/// `<prefix>-<step>`; with `pad`, the step has at least eight digits, as `pad_step_number` writes it.
pub fn numbered_prefix(prefix: &Path, step: i64, pad: bool) -> PathBuf {
    if pad {
        append(prefix, format_args!("-{step:08}"))
    } else {
        append(prefix, format_args!("-{step}"))
    }
}

/// The folder that a path is in: everything before its last `/`, `.` if there is none.
pub fn directory(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    match bytes.iter().rposition(|&byte| byte == b'/') {
        None => PathBuf::from("."),
        Some(0) => PathBuf::from("/"),
        Some(end) => PathBuf::from(OsStr::from_bytes(bytes.get(..end).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_numbers_are_padded_and_never_cut() {
        let prefix = Path::new("d/m");
        assert_eq!(
            data_file(prefix, 3, 8),
            Path::new("d/m.data-00003-of-00008")
        );
        assert_eq!(
            data_file(prefix, 123_456, 1_234_567),
            Path::new("d/m.data-123456-of-1234567")
        );
        assert_eq!(index_file(Path::new("m.v1")), Path::new("m.v1.index"));
    }

    #[test]
    fn the_name_of_a_data_file_leads_back_to_its_prefix() {
        let base = |name| data_file_base(OsStr::new(name));
        assert_eq!(base("m.data-00000-of-00001"), Some(OsStr::new("m")));
        assert_eq!(
            base("part-00000-of-00002.data-123456-of-1234567"),
            Some(OsStr::new("part-00000-of-00002"))
        );
        for name in [
            "m.data-0-of-1",
            "m.data-00000-of-00001x",
            "m-00000-of-00001",
            "m.index",
            "",
        ] {
            assert_eq!(base(name), None, "{name}");
        }
    }

    #[test]
    fn a_path_is_in_what_stands_before_its_last_slash() {
        for (path, folder) in [
            ("m", "."),
            ("d/m", "d"),
            ("d/", "d"),
            ("/m", "/"),
            ("d//m", "d/"),
        ] {
            assert_eq!(directory(Path::new(path)), Path::new(folder));
        }
    }

    #[test]
    fn steps_are_appended_as_tensorflow_appends_them() {
        let name = |step, pad| numbered_prefix(Path::new("m"), step, pad);
        assert_eq!(name(7, false), Path::new("m-7"));
        assert_eq!(name(-3, false), Path::new("m--3"));
        assert_eq!(name(7, true), Path::new("m-00000007"));
        assert_eq!(name(-3, true), Path::new("m--0000003"));
        assert_eq!(name(123_456_789, true), Path::new("m-123456789"));
    }
}
