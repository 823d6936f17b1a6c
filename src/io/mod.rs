//! Files: bounded positional reads, and writes that become visible in one step.
//!
//! Every file operation of the library goes through this module, so that tests can watch, fail and
//! replay them. Paths are cleaned by their text before the system sees them ([`cleaned`]).

mod append;
pub mod dir;
pub mod direct;
#[cfg(test)]
pub mod fault;
pub mod range;
mod raw;
pub mod read;
mod temporary;
pub mod write;

pub use raw::{Mapping, with_signals_blocked};

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A change to the file system, as the tests' fault injection sees it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "only the tests' fault injection looks inside")
)]
enum Op<'a> {
    Create(&'a Path),
    Reserve(&'a Path),
    Write {
        path: &'a Path,
        offset: u64,
        bytes: &'a [u8],
    },
    Sync(&'a Path),
    Link {
        from: &'a Path,
        to: &'a Path,
    },
    Rename {
        from: &'a Path,
        to: &'a Path,
    },
    Remove(&'a Path),
    CreateDir(&'a Path),
    SyncDir(&'a Path),
}

/// Does `act`, which is what `op` says. Every change that the crate makes to the file system passes
/// through here.
fn perform<T>(op: Op<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    return fault::perform(op, act);
    #[cfg(not(test))]
    {
        let _ = op;
        act()
    }
}

/// The path that the system is asked for: without empty components and `.`, and with `..` worked off by
/// the text alone, as TensorFlow does. So `gone/../d` is `d`, whatever `gone` is.
pub fn cleaned(path: &Path) -> Cow<'_, Path> {
    let bytes = path.as_os_str().as_bytes();
    let rooted = bytes.starts_with(b"/");
    let relative = if rooted { bytes.get(1..) } else { Some(bytes) }.unwrap_or_default();
    let is_clean = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
    if relative.split(|&byte| byte == b'/').all(is_clean) {
        return Cow::Borrowed(path);
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in relative.split(|&byte| byte == b'/') {
        match (part, parts.last()) {
            (b"" | b".", _) => {}
            (b"..", Some(&last)) if last != b".." => drop(parts.pop()),
            (b"..", None) if rooted => {}
            _ => parts.push(part),
        }
    }
    let mut clean = parts.join(&b'/');
    match (rooted, clean.is_empty()) {
        (true, _) => clean.insert(0, b'/'),
        (false, true) => clean.push(b'.'),
        (false, false) => {}
    }
    Cow::Owned(PathBuf::from(OsString::from_vec(clean)))
}

/// Whether there is a folder at `path`; the empty path is the working directory.
pub fn is_folder(path: &Path) -> bool {
    cleaned(path).is_dir()
}

/// Whether there is anything at `path`, symbolic links followed.
pub fn exists(path: &Path) -> bool {
    cleaned(path).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_tensorflow_cleans_them() {
        for (path, clean) in [
            ("m", "m"),
            ("/a/m", "/a/m"),
            ("./m", "m"),
            ("a//b/./m/", "a/b/m"),
            ("//a", "/a"),
            ("a/../m", "m"),
            ("a/../../m", "../m"),
            ("../../m", "../../m"),
            ("/../m", "/m"),
            ("/", "/"),
            ("a/..", "."),
            ("", "."),
            (".", "."),
            ("...", "..."),
        ] {
            assert_eq!(cleaned(Path::new(path)).as_os_str(), clean, "{path}");
        }
        assert!(matches!(cleaned(Path::new("/a/b.c")), Cow::Borrowed(_)));
    }

    #[test]
    fn what_a_path_comes_back_from_need_not_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let roundabout = dir.path().join("gone/../d/./x/../m");
        std::fs::create_dir(dir.path().join("d")).unwrap();
        write::replace_file(&roundabout, b"content", true).unwrap();
        assert_eq!(std::fs::read(dir.path().join("d/m")).unwrap(), b"content");
        assert_eq!(read::ReadFile::open(&roundabout).unwrap().size(), 7);
        assert!(dir::look(&roundabout).unwrap().is_some());
        assert!(dir::remove(&roundabout).unwrap());
        let prefix = dir.path().join("new/./m");
        assert!(dir::create_parent(&prefix, true).unwrap());
        assert!(is_folder(&dir.path().join("gone/../new")));
        dir::remove_parent(&prefix);
        assert!(!exists(&dir.path().join("new")));
    }
}
