//! The names of temporary files, and what becomes of those whose writers are dead.

#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::cleaned;
use super::dir::{self, remove};
use crate::naming;

/// Removes the temporary files in `dir` whose names begin with `beginning` and whose writers are
/// dead, as far as that is possible. Those of a live writer are locked, and stay.
pub fn clean_stale_temporaries(dir: &Path, beginning: &[u8]) {
    for name in dir::list(dir, beginning).unwrap_or_default() {
        if !is_temporary(name.as_bytes()) {
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

/// Another name for a file that will be called `final_path`.
pub(super) fn temporary_name(final_path: &Path) -> PathBuf {
    // Each state is seeded from the system's random numbers; O_EXCL catches what they miss.
    let random = RandomState::new().build_hasher().finish();
    let pid = std::process::id();
    naming::append(final_path, format_args!("{TEMPORARY}{pid}-{random}"))
}

/// Whether `name` is one that [`temporary_name`] gives.
pub fn is_temporary(name: &[u8]) -> bool {
    let is_number = |text: &[u8]| {
        std::str::from_utf8(text)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .is_some_and(|text| text.parse::<u64>().is_ok())
    };
    let mark = TEMPORARY.as_bytes();
    let Some(start) = name.windows(mark.len()).rposition(|window| window == mark) else {
        return false;
    };
    let numbers = name.get(start + mark.len()..).unwrap_or_default();
    let mut numbers = numbers.split(|&byte| byte == b'-');
    start > 0
        && numbers.next().is_some_and(is_number)
        && numbers.next().is_some_and(is_number)
        && numbers.next().is_none()
}
