//! Path arithmetic on the bytes of a path, with the rules of Python's `os.path` on POSIX.
//!
//! The state file holds path strings that TensorFlow makes with these functions, and
//! [`std::path`] differs from them: it drops `.` and trailing slashes when it compares or takes a
//! parent, and knows no relative path from one folder to another. Nothing here touches the disk;
//! symbolic links are not followed.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The bytes of `path`.
pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn borrowed(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn owned(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// Whether `path` begins with `/`. A URI such as `gs://b/d` does not.
pub fn isabs(path: &Path) -> bool {
    bytes(path).starts_with(b"/")
}

/// `path` seen from `dir`: `path` itself when it is absolute or `dir` is empty, else both with one
/// `/` between them. Nothing is normalized; an empty `path` gives `dir` with a `/` at its end.
pub fn join(dir: &Path, path: &Path) -> PathBuf {
    let dir = bytes(dir);
    if isabs(path) || dir.is_empty() {
        return path.to_owned();
    }
    let mut joined = dir.to_vec();
    if !joined.ends_with(b"/") {
        joined.push(b'/');
    }
    joined.extend_from_slice(bytes(path));
    owned(joined)
}

/// Splits after the last `/`.
fn split(path: &Path) -> (&[u8], &[u8]) {
    let bytes = bytes(path);
    let head = bytes
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |last| last + 1);
    bytes.split_at_checked(head).unwrap_or((b"", bytes))
}

/// Everything before the last `/`, without slashes at its end unless it is nothing else. Empty for
/// a bare name.
pub fn dirname(path: &Path) -> &Path {
    let (head, _) = split(path);
    let trimmed = head
        .iter()
        .rposition(|&byte| byte != b'/')
        .map_or(head.len(), |last| last + 1);
    borrowed(head.get(..trimmed).unwrap_or(head))
}

/// Everything after the last `/`.
pub fn basename(path: &Path) -> &[u8] {
    split(path).1
}

/// The components of `path` after `.`, `..` and empty ones are worked off. A `..` that has nothing
/// to cancel stays, except at the root, where it means nothing.
fn components(path: &Path) -> Vec<&[u8]> {
    let rooted = isabs(path);
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in bytes(path).split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(&last) if last != b".." => {
                    parts.pop();
                }
                None if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    parts
}

/// `path` without empty components, `.` and `..` as far as the text alone allows; `.` if nothing is
/// left. Exactly two leading slashes stay, as POSIX gives them a meaning of their own.
pub fn normpath(path: &Path) -> PathBuf {
    let text = bytes(path);
    let root: &[u8] = if text.starts_with(b"//") && !text.starts_with(b"///") {
        b"//"
    } else if isabs(path) {
        b"/"
    } else {
        b""
    };
    let mut normal = root.to_vec();
    normal.extend(components(path).join(&b'/'));
    if normal.is_empty() {
        normal.push(b'.');
    }
    owned(normal)
}

/// The way from the folder `start` to `path`, both seen from `cwd` if they are relative; `.` if they
/// are the same. An empty `start` is `cwd`.
///
/// # Errors
///
/// INVALID_ARGUMENT, with Python's text, for an empty `path`.
pub fn relpath(path: &Path, start: &Path, cwd: &Path) -> Result<PathBuf> {
    if bytes(path).is_empty() {
        return Err(Error::invalid_argument("no path specified"));
    }
    let (path, start) = (join(cwd, path), join(cwd, start));
    let (path, start) = (components(&path), components(&start));
    let common = path
        .iter()
        .zip(&start)
        .take_while(|(ours, theirs)| ours == theirs)
        .count();
    let mut way: Vec<&[u8]> = vec![b".."; start.len() - common];
    way.extend(path.iter().skip(common));
    if way.is_empty() {
        way.push(b".");
    }
    Ok(owned(way.join(&b'/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(path: &str) -> &Path {
        Path::new(path)
    }

    #[test]
    fn parts_of_a_path_are_those_of_python() {
        // path, normpath, dirname: what Python 3.11 returned.
        for (path, normal, dir) in [
            ("", ".", ""),
            (".", ".", ""),
            ("/", "/", "/"),
            ("//", "//", "//"),
            ("///", "/", "///"),
            ("a", "a", ""),
            ("a/", "a", "a"),
            ("/a", "/a", "/"),
            ("//a", "//a", "//"),
            ("///a", "/a", "///"),
            ("a//b", "a/b", "a"),
            ("a/./b", "a/b", "a/."),
            ("a/../b", "b", "a/.."),
            ("../a", "../a", ".."),
            ("/..", "/", "/"),
            ("/../a", "/a", "/.."),
            ("a/..", ".", "a"),
            ("./a/", "a", "./a"),
            ("a/b/../../..", "..", "a/b/../.."),
            ("//a/../..", "//", "//a/.."),
            ("gs://b/d/m", "gs:/b/d/m", "gs://b/d"),
            (".a", ".a", ""),
            ("..a", "..a", ""),
            ("a/...", "a/...", "a"),
        ] {
            assert_eq!(normpath(p(path)).as_os_str(), normal, "normpath {path}");
            assert_eq!(dirname(p(path)).as_os_str(), dir, "dirname {path}");
        }
    }

    #[test]
    fn joined_paths_are_those_of_python() {
        for (dir, path, joined) in [
            ("", "", ""),
            ("", "b", "b"),
            ("", "/b", "/b"),
            ("a", "", "a/"),
            ("a", "b", "a/b"),
            ("a", "/b", "/b"),
            ("a", "b/", "a/b/"),
            ("a/", "", "a/"),
            ("a/", "b", "a/b"),
            ("/", "", "/"),
            ("/", "b", "/b"),
            ("/", "/b", "/b"),
            ("d", "../o/m", "d/../o/m"),
            ("gs://b", "m", "gs://b/m"),
        ] {
            assert_eq!(join(p(dir), p(path)).as_os_str(), joined, "{dir} + {path}");
        }
    }

    #[test]
    fn relative_paths_are_those_of_python() {
        // path, start, relpath(path, start) with /tmp/statework as the current folder.
        for (path, start, expected) in RELATIVE {
            let got = relpath(p(path), p(start), p("/tmp/statework")).unwrap();
            assert_eq!(got.as_os_str(), *expected, "{path} from {start}");
        }
    }

    #[test]
    fn an_empty_path_has_no_relative_form() {
        let error = relpath(p(""), p("d"), p("/w")).unwrap_err();
        assert_eq!(error.to_string(), "no path specified");
    }

    const RELATIVE: &[(&str, &str, &str)] = &[
        ("gs://b/d/m-1", "gs://b/d", "m-1"),
        ("m", "", "m"),
        ("a/../dir/m", "a/../dir", "m"),
        (".", "", "."),
        ("//.bb.b", "a", "../../../.bb.b"),
        ("/a../b", "/..", "a../b"),
        ("///", "/ab", ".."),
        (".b/......", "", ".b/......"),
        ("a/abb..ab", "/aab", "../tmp/statework/a/abb..ab"),
        (".////", "", "."),
        ("abb...ab/", "", "abb...ab"),
        ("ab/../b", "/a//a..b", "../../tmp/statework/b"),
        ("aba", "ababbab/", "../aba"),
        ("..b/..", "a..a/b/", "../.."),
        ("...", ".abbb/ab", "../../..."),
        ("b..", ".ab", "../b.."),
        ("b", "//", "tmp/statework/b"),
        (".ba/b", "///", "tmp/statework/.ba/b"),
        ("//.ba", "..", "../.ba"),
        ("b", "/ab", "../tmp/statework/b"),
        ("..b///..", "", "."),
        ("//a.....ab", "", "../../a.....ab"),
        ("//.ab//ba", "abab/", "../../../.ab/ba"),
        ("a/ab/ab", "abbbbab.", "../a/ab/ab"),
        ("///..", "/", "."),
        ("a//", "//..", "tmp/statework/a"),
        (".abab/ab", "", ".abab/ab"),
        ("ab/a", "", "ab/a"),
    ];
}
