//! The names of temporary files, and what becomes of those whose writers are dead.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::cleaned;
use super::dir::{self, remove};

/// Most bytes of a file's name on nearly every file system.
const NAME_MAX: usize = 255;

/// Removes the temporary files in `dir` whose names begin with `beginning`, or with as much of it as a
/// name can hold, and whose writers are dead, as far as that is possible. Those of a live writer are
/// locked, and stay.
pub fn clean_stale_temporaries(dir: &Path, beginning: &[u8]) {
    let uncut = (NAME_MAX - MARK_MAX - UTF8_MAX).min(beginning.len());
    let uncut = beginning.get(..uncut).unwrap_or_default();
    for name in dir::list(dir, uncut).unwrap_or_default() {
        let Some(stem) = stem(name.as_bytes()) else {
            continue;
        };
        let was_cut = name.len() > NAME_MAX - UTF8_MAX && beginning.starts_with(stem);
        if !stem.starts_with(beginning) && !was_cut {
            continue;
        }
        let path = dir.join(name);
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(cleaned(&path));
        // The lock is held while the file is removed, so that one who has just created it sees
        // that he is too late.
        if let Ok(file) = opened
            && file.try_lock().is_ok()
        {
            let _ = remove(&path);
            let _ = file.unlock();
        }
    }
}

const TEMPORARY: &str = ".tmp-";

/// Most bytes that `.tmp-<u32>-<u64>` has.
const MARK_MAX: usize = TEMPORARY.len() + 10 + 1 + 20;

/// Most bytes of a character.
const UTF8_MAX: usize = 4;

/// Another name for a file that will be called `final_path`. Where the whole would be too long for a
/// file system, it begins with less than the final name.
pub(super) fn temporary_name(final_path: &Path) -> PathBuf {
    // Each state is seeded from the system's random numbers; O_EXCL catches what they miss.
    let random = RandomState::new().build_hasher().finish();
    let pid = std::process::id();
    let mark = format!("{TEMPORARY}{pid}-{random}");
    let path = final_path.as_os_str().as_bytes();
    let folder = path.iter().rposition(|&byte| byte == b'/');
    let (folder, name) = path.split_at(folder.map_or(0, |slash| slash + 1));
    // A final name that is itself too long is not to get as far as to its publication.
    let most = match name.len() {
        0..=NAME_MAX => NAME_MAX - mark.len(),
        too_long => too_long,
    };
    let mut temporary = folder.to_vec();
    temporary.extend_from_slice(cut(name, most));
    temporary.extend_from_slice(mark.as_bytes());
    PathBuf::from(OsString::from_vec(temporary))
}

/// The first `most` bytes of `name`, or up to three less: some file systems want whole characters.
fn cut(name: &[u8], most: usize) -> &[u8] {
    let starts_character = |at: &usize| name.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let most = most.min(name.len());
    let end = (most.saturating_sub(UTF8_MAX - 1)..=most).rfind(starts_character);
    name.get(..end.unwrap_or(most)).unwrap_or_default()
}

/// Whether `name` is one that [`temporary_name`] gives.
pub fn is_temporary(name: &[u8]) -> bool {
    stem(name).is_some()
}

/// What of `name` comes from the final name, if it is one that [`temporary_name`] gives.
fn stem(name: &[u8]) -> Option<&[u8]> {
    let is_number = |text: &[u8]| {
        std::str::from_utf8(text)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .is_some_and(|text| text.parse::<u64>().is_ok())
    };
    let mark = TEMPORARY.as_bytes();
    let start = name
        .windows(mark.len())
        .rposition(|window| window == mark)?;
    let numbers = name.get(start + mark.len()..).unwrap_or_default();
    let mut numbers = numbers.split(|&byte| byte == b'-');
    let is_one = start > 0
        && numbers.next().is_some_and(is_number)
        && numbers.next().is_some_and(is_number)
        && numbers.next().is_none();
    name.get(..start).filter(|_| is_one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::io::write::TempFile;

    #[test]
    fn a_name_that_fits_has_a_temporary_one_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        // The cut falls behind, between and inside characters, and into bytes that make none.
        for name in [
            "n".repeat(255),
            "n".repeat(220),
            "\u{e9}".repeat(127),
            format!("x{}", "\u{1f600}".repeat(63)),
        ] {
            let path = dir.path().join(&name);
            let mut temp = TempFile::with_bytes(&path, b"x", false).unwrap();
            let temporary = temp.path().file_name().unwrap().as_bytes().to_vec();
            assert!(is_temporary(&temporary) && temporary.len() <= NAME_MAX);
            assert!(std::str::from_utf8(&temporary).is_ok());
            // Its writer lives.
            clean_stale_temporaries(dir.path(), name.as_bytes());
            temp.publish().unwrap();
            drop(temp);
            assert_eq!(std::fs::read(&path).unwrap(), b"x");
        }
        let bytes = [0xbf; 255];
        let path = dir.path().join(OsString::from_vec(bytes.to_vec()));
        assert_eq!(temporary_name(&path).file_name().unwrap().len(), NAME_MAX);
        let error = TempFile::create(&dir.path().join("n".repeat(256))).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }

    #[test]
    fn what_was_cut_is_cleaned_up_and_its_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let base = "n".repeat(235);
        let names = || {
            let mut names = dir::list(dir.path(), b"").unwrap();
            names.sort();
            names
        };
        let stale = |name: &str| {
            let path = temporary_name(&dir.path().join(name));
            std::fs::write(&path, "").unwrap();
            path.file_name().unwrap().to_owned()
        };
        let mut others = vec![
            // Another name, cut and not cut.
            stale(&format!("{}m{}", "n".repeat(100), "n".repeat(150))),
            stale(&format!("{}m", "n".repeat(100))),
            // One that the base begins with, and that was not cut.
            stale(&"n".repeat(200)),
        ];
        others.sort();
        for suffix in ["", ".index", ".data-00000-of-00001"] {
            stale(&format!("{base}{suffix}"));
        }
        assert_eq!(names().len(), 6);
        clean_stale_temporaries(dir.path(), base.as_bytes());
        assert_eq!(names(), others);
        clean_stale_temporaries(dir.path(), b"nn");
        assert!(names().is_empty());
    }
}
