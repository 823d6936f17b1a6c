//! Writes the sidecar of a checkpoint that is being saved or merged; see [`crate::bundle::sidecar`].

use std::io::Write;
use std::path::{Path, PathBuf};

use super::tensor::SaveTensor;
use crate::bundle::sidecar::{self, ChunkedEntry, Sidecar};
use crate::bundle::{BundleMerge, BundleWriter, DataExtent};
use crate::error::{Error, Result};
use crate::io::write::TempFile;
use crate::naming;
use crate::transfer::write::RangeSums;

/// The sidecar of `prefix`, still under a temporary name, with `entries`, which are in key order.
///
/// # Errors
///
/// The system's errors.
fn create(prefix: &Path, entries: &[ChunkedEntry<'_>]) -> Result<TempFile> {
    let file = TempFile::create(&naming::sidecar_file(prefix))?;
    let mut out = file.appender();
    sidecar::write(entries, &mut out)
        .and_then(|()| out.flush())
        .map_err(|error| Error::io(&error, file.path()))?;
    drop(out);
    Ok(file)
}

/// The sidecar of a checkpoint that is being saved to `prefix`. `extent` says where a tensor is, and
/// `chunks` are the checksums of the chunks of those that have several.
///
/// # Errors
///
/// As [`create`].
pub(super) fn save(
    prefix: &Path,
    bundle: &BundleWriter<'_, SaveTensor<'_>>,
    extent: &dyn Fn(usize) -> DataExtent,
    mut chunks: Vec<RangeSums>,
) -> Result<TempFile> {
    chunks.sort_unstable_by_key(|sums| sums.tensor);
    let listed = bundle.written().filter_map(|(key, index)| {
        let found = chunks.binary_search_by_key(&index, |sums| sums.tensor);
        let sums = chunks.get(found.ok()?)?;
        let DataExtent { size, crc32c, .. } = extent(index as usize);
        Some(ChunkedEntry {
            key,
            size,
            crc32c,
            chunks: &sums.crcs,
        })
    });
    create(prefix, &listed.collect::<Vec<_>>())
}

/// The sidecar of `prefix` from those of the `parts` that have one which is sound; `None` if none has.
/// What they list is left out where it is not what the merged index says.
///
/// # Errors
///
/// As [`create`]; that of `check`, which is asked between the parts.
pub(super) fn merge(
    parts: &[PathBuf],
    bundle: &BundleMerge,
    prefix: &Path,
    check: &dyn Fn() -> Result<()>,
) -> Result<Option<TempFile>> {
    let mut any = false;
    let mut entries = Vec::new();
    for part in parts {
        check()?;
        if let Ok(sidecar) = Sidecar::open(&naming::sidecar_file(part)) {
            any = true;
            entries.extend(sound_entries(&sidecar, bundle));
        }
    }
    if !any {
        return Ok(None);
    }
    entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    // That of a stale sidecar may be another part's too.
    entries.dedup_by(|one, other| one.key == other.key);
    let entries: Vec<ChunkedEntry<'_>> = entries.iter().map(Entry::borrow).collect();
    create(prefix, &entries).map(Some)
}

/// A [`ChunkedEntry`] of its own.
struct Entry {
    key: Vec<u8>,
    size: u64,
    crc32c: u32,
    chunks: Vec<u32>,
}

impl Entry {
    fn borrow(&self) -> ChunkedEntry<'_> {
        ChunkedEntry {
            key: &self.key,
            size: self.size,
            crc32c: self.crc32c,
            chunks: &self.chunks,
        }
    }
}

/// What a sidecar says of entries as they are in the merged index.
fn sound_entries(sidecar: &Sidecar, bundle: &BundleMerge) -> Vec<Entry> {
    let mut entries = Vec::new();
    let _ = sidecar.walk(&mut |key, record| {
        let is_of = |extent| record.is_of(&extent);
        if bundle.find(key).is_some_and(is_of)
            && let Ok(chunks) = sidecar.chunks(record, 0..record.num_chunks())
        {
            entries.push(Entry {
                key: key.to_owned(),
                size: record.size,
                crc32c: record.crc32c,
                chunks,
            });
        }
        Ok(())
    });
    entries
}
