//! The name of the `.meta` file (the graph) that belongs to a checkpoint.
//!
//! Source of the rule: `meta_graph_filename` in
//! `tensorflow/python/checkpoint/checkpoint_management.py`.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::naming;

/// `<prefix>.<suffix>`, where a shard's tail `-SSSSS-of-NNNNN` or `-?????-of-NNNNN` of `prefix` is
/// left out, because all shards share one graph.
///
/// As in TensorFlow any number of digits counts as such a tail, so a user's own `run-1-of-3` has the
/// graph `run.meta`.
pub fn meta_graph_filename(prefix: &Path, suffix: &str) -> PathBuf {
    let bytes = prefix.as_os_str().as_bytes();
    let stem = without_shard(bytes).unwrap_or(bytes);
    naming::append(
        Path::new(OsStr::from_bytes(stem)),
        format_args!(".{suffix}"),
    )
}

/// What comes before a tail of `-`, digits or `?`, `-of-`, digits.
///
/// Read from the end, the tail can be cut in one way only, as neither group contains a `-`.
fn without_shard(bytes: &[u8]) -> Option<&[u8]> {
    let rest = before_run(bytes, |byte| byte.is_ascii_digit())?;
    let rest = rest.strip_suffix(b"-of-")?;
    let rest = before_run(rest, |byte| byte.is_ascii_digit() || byte == b'?')?;
    rest.strip_suffix(b"-")
}

/// `bytes` without the longest run of matching bytes at its end; `None` if that run is empty.
fn before_run(bytes: &[u8], matches: impl Fn(u8) -> bool) -> Option<&[u8]> {
    let run = bytes
        .iter()
        .rev()
        .take_while(|&&byte| matches(byte))
        .count();
    if run == 0 {
        return None;
    }
    bytes.get(..bytes.len() - run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_tail_is_left_out_of_the_meta_name_as_tensorflow_does() {
        // Left: prefix; right: what TensorFlow 2.21 returned.
        for (prefix, expected) in [
            ("m", "m.meta"),
            ("m-00001-of-00002", "m.meta"),
            ("run-1-of-3", "run.meta"),
            ("m-?????-of-00005", "m.meta"),
            ("d/-1-of-2", "d/.meta"),
            ("m-1-of-2-of-3", "m-1-of.meta"),
            ("m-1-of-", "m-1-of-.meta"),
            ("m--of-2", "m--of-2.meta"),
            ("x-1?-of-2.a", "x-1?-of-2.a.meta"),
            ("m-of-3", "m-of-3.meta"),
            ("1-of-3", "1-of-3.meta"),
        ] {
            let got = meta_graph_filename(Path::new(prefix), "meta");
            assert_eq!(got.as_os_str(), expected, "{prefix}");
        }
        assert_eq!(
            meta_graph_filename(Path::new("m"), "x.y").as_os_str(),
            "m.x.y"
        );
        assert_eq!(meta_graph_filename(Path::new("m"), "").as_os_str(), "m.");
    }

    #[test]
    fn names_that_are_not_utf8_keep_their_bytes() {
        let prefix = OsStr::from_bytes(b"\xff-00000-of-00001");
        let got = meta_graph_filename(Path::new(prefix), "meta");
        assert_eq!(got.as_os_str().as_bytes(), b"\xff.meta");
    }
}
