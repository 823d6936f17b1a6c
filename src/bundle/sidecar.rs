//! The sidecar `PREFIX.crc32c`: checksums of parts of large entries, so that a part can be read and
//! verified without the rest. TensorFlow neither writes nor looks at it. `docs/sidecar.md` has the format
//! byte by byte.
//!
//! An entry is cut into chunks of a MiB, counted from its first byte. One of at most a chunk is not
//! listed: its checksum in the index is that of its only chunk. Strings and variants are not either,
//! because only their beginning says where an element is.
//!
//! The file is a table of records of fixed size, sorted by key, then all chunk checksums, then all keys.
//! So one entry is found by bisection in the file itself, and nothing of it is held in memory. Nothing in
//! it has to be believed: the checksums of an entry's chunks combine to that of the entry, and that is
//! the index's. A sidecar that belongs to another save, as TensorFlow leaves one when it overwrites a
//! checkpoint, therefore lists entries that are not those of the index, and is of no use, but does no harm.

use std::cmp::Ordering;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use parking_lot::Mutex;

use super::entry::DataExtent;
use crate::checksum::{self, Crc32c, Shift};
use crate::coding::{get_fixed32, get_fixed64};
use crate::error::{Error, Result};
use crate::io::read::ReadFile;

/// Bytes of a chunk; the last one of an entry may have less.
pub const CHUNK_SIZE: u64 = STORED_CHUNK_SIZE as u64;

/// As the file has it.
const STORED_CHUNK_SIZE: u32 = 1 << 20;

/// Longest key that is listed, in bytes.
const MAX_KEY: usize = 1 << 16;

const MAGIC: [u8; 8] = *b"\x89CRC32C\n";
const VERSION: u32 = 1;

/// Bytes of the header, of a record, of a chunk's checksum, and of the checksum at the end.
const HEADER: u64 = 40;
const RECORD: u64 = 32;
const CRC: u64 = 4;

/// Bytes that are read at once where many are: a multiple of [`CRC`].
const READ: u64 = 1 << 16;

/// Whether an entry of so many bytes has chunk checksums in a sidecar. The others have no need of them.
pub fn has_chunks(size: u64) -> bool {
    size > CHUNK_SIZE
}

/// An entry to be listed.
#[derive(Clone, Copy, Debug)]
pub struct ChunkedEntry<'a> {
    /// Its key in the index; of a stored slice, the slice's own.
    pub key: &'a [u8],
    /// Its bytes.
    pub size: u64,
    /// Its checksum, unmasked.
    pub crc32c: u32,
    /// Those of its chunks, unmasked.
    pub chunks: &'a [u32],
}

/// Writes a sidecar of `entries`, which are in key order. One whose key is too long is left out.
///
/// # Errors
///
/// Those of `sink`.
pub fn write(entries: &[ChunkedEntry<'_>], sink: &mut dyn Write) -> io::Result<()> {
    let mut out = Summed {
        sink,
        crc: Crc32c::new(),
    };
    let listed = || entries.iter().filter(|entry| entry.key.len() <= MAX_KEY);
    let sum = |of: fn(&ChunkedEntry<'_>) -> usize| listed().map(|entry| of(entry) as u64).sum();
    let (num_chunks, keys_size): (u64, u64) = (
        sum(|entry| entry.chunks.len()),
        sum(|entry| entry.key.len()),
    );
    out.put(&MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.put(&STORED_CHUNK_SIZE.to_le_bytes())?;
    for number in [listed().count() as u64, num_chunks, keys_size] {
        out.put(&number.to_le_bytes())?;
    }
    let (mut key_start, mut first_chunk) = (0u64, 0u64);
    for entry in listed() {
        for number in [key_start, first_chunk, entry.size] {
            out.put(&number.to_le_bytes())?;
        }
        let key_size = u32::try_from(entry.key.len()).unwrap_or(u32::MAX);
        out.put(&key_size.to_le_bytes())?;
        out.put(&checksum::mask(entry.crc32c).to_le_bytes())?;
        key_start += entry.key.len() as u64;
        first_chunk += entry.chunks.len() as u64;
    }
    for &crc in listed().flat_map(|entry| entry.chunks) {
        out.put(&checksum::mask(crc).to_le_bytes())?;
    }
    for entry in listed() {
        out.put(entry.key)?;
    }
    let crc = checksum::mask(out.crc.value());
    out.put(&crc.to_le_bytes())
}

/// Sums what it writes.
struct Summed<'a> {
    sink: &'a mut dyn Write,
    crc: Crc32c,
}

impl Summed<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.sink.write_all(bytes)
    }
}

/// An open sidecar, whose own checksum is right.
#[derive(Debug)]
pub struct Sidecar {
    file: ReadFile,
    num_entries: u64,
    num_chunks: u64,
    keys_size: u64,
    /// The entry whose chunks were combined last: mostly it is asked for again.
    combined: Mutex<Option<Record>>,
}

/// What a sidecar says of an entry, but for its chunks. Its ranges lie inside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Place of the key among the keys.
    key: Range<u64>,
    /// Places of the chunks' checksums among all of them.
    chunks: Range<u64>,
    /// Bytes of the entry.
    pub size: u64,
    /// Its checksum, unmasked.
    pub crc32c: u32,
}

impl Record {
    /// Number of chunks.
    pub fn num_chunks(&self) -> u64 {
        self.chunks.end - self.chunks.start
    }

    /// Whether it speaks of the entry that the index has.
    pub fn is_of(&self, extent: &DataExtent) -> bool {
        (self.size, self.crc32c) == (extent.size, extent.crc32c)
    }
}

impl Sidecar {
    /// Opens the sidecar at `path` and goes through it once for its own checksum: 4 KiB for each GiB of
    /// tensors, and a record for each.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when it is damaged; UNIMPLEMENTED for a version that is not known; the system's error.
    pub fn open(path: &Path) -> Result<Self> {
        let file = ReadFile::open(path)?;
        if file.size() < HEADER + CRC {
            return Err(damaged(&file, 0, "it is too short"));
        }
        let header = file.read_vec(0, HEADER)?;
        let numbers = parse_header(&header, &file)?;
        let [num_entries, num_chunks, keys_size] = numbers;
        let sidecar = Self {
            file,
            num_entries,
            num_chunks,
            keys_size,
            combined: Mutex::default(),
        };
        sidecar.check_own()?;
        Ok(sidecar)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    fn check_own(&self) -> Result<()> {
        let end = self.file.size() - CRC;
        let mut crc = Crc32c::new();
        let mut at = 0;
        while at < end {
            let len = READ.min(end - at);
            crc.update(&self.file.read_vec(at, len)?);
            at += len;
        }
        let stored = self.file.read_vec(end, CRC)?;
        match get_fixed32(&stored) {
            Some((stored, _)) if checksum::unmask(stored) == crc.value() => Ok(()),
            _ => Err(damaged(&self.file, end, "its checksum does not match")),
        }
    }

    /// The record of `key`, if there is one.
    ///
    /// # Errors
    ///
    /// DATA_LOSS for numbers that contradict the file; those of reading.
    pub fn find(&self, key: &[u8]) -> Result<Option<Record>> {
        let (mut low, mut high) = (0, self.num_entries);
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.record(middle)?;
            match self.compare(&record, key)? {
                Ordering::Equal => return Ok(Some(record)),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// The record with this number, below [`num_entries`](Self::num_entries).
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub fn record(&self, number: u64) -> Result<Record> {
        let at = HEADER + number * RECORD;
        let bytes = self.file.read_vec(at, RECORD)?;
        let broken = |what| damaged(&self.file, at, what);
        let record = parse_record(&bytes).ok_or_else(|| broken("a number is out of range"))?;
        if record.key.end > self.keys_size || record.chunks.end > self.num_chunks {
            return Err(broken("a record leaves the file"));
        }
        Ok(record)
    }

    /// The key of a record.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn key(&self, record: &Record) -> Result<Vec<u8>> {
        self.key_start(record, record.key.end - record.key.start)
    }

    /// The first `len` bytes of the key of a record.
    fn key_start(&self, record: &Record, len: u64) -> Result<Vec<u8>> {
        let keys = self.chunk_place(self.num_chunks);
        self.file.read_vec(keys + record.key.start, len)
    }

    fn compare(&self, record: &Record, key: &[u8]) -> Result<Ordering> {
        let size = record.key.end - record.key.start;
        let common = size.min(key.len() as u64);
        let start = self.key_start(record, common)?;
        let other = key.get(..start.len()).unwrap_or_default();
        Ok(start
            .as_slice()
            .cmp(other)
            .then(size.cmp(&(key.len() as u64))))
    }

    /// The checksums of the chunks `wanted` of an entry, after all of them were combined: here, or by the
    /// call before. A chunk that the entry does not have is left out.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when they do not combine to the entry's; those of reading.
    pub fn chunks(&self, record: &Record, wanted: Range<u64>) -> Result<Vec<u32>> {
        let mut kept = Vec::new();
        if self.combined.lock().as_ref() == Some(record) {
            let end = wanted.end.min(record.num_chunks());
            self.each_chunk(record, wanted.start..end, &mut |_, crc| kept.push(crc))?;
            return Ok(kept);
        }
        let mut combined = Combined::new(record.size);
        self.each_chunk(record, 0..record.num_chunks(), &mut |number, crc| {
            combined.append(crc);
            if wanted.contains(&number) {
                kept.push(crc);
            }
        })?;
        if combined.crc != record.crc32c {
            let at = self.chunk_place(record.chunks.start);
            let what = "the checksums of the chunks of an entry do not combine to its own";
            return Err(damaged(&self.file, at, what));
        }
        *self.combined.lock() = Some(record.clone());
        Ok(kept)
    }

    /// Hands the chunks of an entry in this range to `see`, with their numbers in it.
    fn each_chunk(
        &self,
        record: &Record,
        range: Range<u64>,
        see: &mut dyn FnMut(u64, u32),
    ) -> Result<()> {
        let mut at = self.chunk_place(record.chunks.start + range.start);
        let end = self.chunk_place(record.chunks.start + range.end);
        let mut number = range.start;
        while at < end {
            let len = READ.min(end - at);
            let bytes = self.file.read_vec(at, len)?;
            let mut rest = bytes.as_slice();
            while let Some((masked, behind)) = get_fixed32(rest) {
                see(number, checksum::unmask(masked));
                number += 1;
                rest = behind;
            }
            at += len;
        }
        Ok(())
    }

    /// Where the checksum of a chunk is.
    fn chunk_place(&self, number: u64) -> u64 {
        HEADER + self.num_entries * RECORD + number * CRC
    }

    /// Checks that everything is where a writer puts it: keys in order and one behind the other, as are
    /// the chunks. Every record is handed to `see`, with its key.
    ///
    /// # Errors
    ///
    /// DATA_LOSS where it is not so; those of `see` and of reading.
    pub fn walk(&self, see: &mut dyn FnMut(&[u8], &Record) -> Result<()>) -> Result<()> {
        let (mut keys, mut chunks) = (0, 0);
        let mut last: Option<Vec<u8>> = None;
        for number in 0..self.num_entries {
            let record = self.record(number)?;
            let key = self.key(&record)?;
            let sorted = last.as_ref().is_none_or(|last| *last < key);
            if !sorted || record.key.start != keys || record.chunks.start != chunks {
                let at = HEADER + number * RECORD;
                return Err(damaged(&self.file, at, "its records are out of order"));
            }
            see(&key, &record)?;
            (keys, chunks) = (record.key.end, record.chunks.end);
            last = Some(key);
        }
        if (keys, chunks) != (self.keys_size, self.num_chunks) {
            return Err(damaged(&self.file, 0, "it holds what no record names"));
        }
        Ok(())
    }
}

/// Combines the checksums of the chunks of an entry.
struct Combined {
    full: Shift,
    left: u64,
    crc: u32,
}

impl Combined {
    fn new(size: u64) -> Self {
        Self {
            full: Shift::new(CHUNK_SIZE),
            left: size,
            crc: 0,
        }
    }

    fn append(&mut self, crc: u32) {
        let shift = if self.left >= CHUNK_SIZE {
            self.full
        } else {
            Shift::new(self.left)
        };
        // The checksum of nothing is 0, and stays 0 when shifted.
        self.crc = shift.append(self.crc, crc);
        self.left = self.left.saturating_sub(CHUNK_SIZE);
    }
}

/// Numbers of entries and chunks and bytes of keys, which together make the size of the file.
fn parse_header(header: &[u8], file: &ReadFile) -> Result<[u64; 3]> {
    let rest = header
        .strip_prefix(&MAGIC)
        .ok_or_else(|| damaged(file, 0, "it does not begin as one"))?;
    let short = || damaged(file, 0, "it is too short");
    let (version, rest) = get_fixed32(rest).ok_or_else(short)?;
    let (chunk_size, rest) = get_fixed32(rest).ok_or_else(short)?;
    if version != VERSION || chunk_size != STORED_CHUNK_SIZE {
        return Err(Error::unimplemented(format!(
            "a sidecar of chunk checksums of a version that is not known; version={version} \
             chunk_size={chunk_size}"
        ))
        .with_file(file.path()));
    }
    let (num_entries, rest) = get_fixed64(rest).ok_or_else(short)?;
    let (num_chunks, rest) = get_fixed64(rest).ok_or_else(short)?;
    let (keys_size, _) = get_fixed64(rest).ok_or_else(short)?;
    let size = num_entries
        .checked_mul(RECORD)
        .and_then(|size| size.checked_add(num_chunks.checked_mul(CRC)?))
        .and_then(|size| size.checked_add(keys_size)?.checked_add(HEADER + CRC));
    if size != Some(file.size()) {
        return Err(damaged(file, 0, "its size is not what its header says"));
    }
    Ok([num_entries, num_chunks, keys_size])
}

/// A record whose numbers agree with each other.
fn parse_record(bytes: &[u8]) -> Option<Record> {
    let (key_start, rest) = get_fixed64(bytes)?;
    let (first_chunk, rest) = get_fixed64(rest)?;
    let (size, rest) = get_fixed64(rest)?;
    let (key_size, rest) = get_fixed32(rest)?;
    let (masked, _) = get_fixed32(rest)?;
    let sound = key_size as usize <= MAX_KEY && has_chunks(size);
    Some(Record {
        key: key_start..key_start.checked_add(key_size.into())?,
        chunks: first_chunk..first_chunk.checked_add(size.div_ceil(CHUNK_SIZE))?,
        size,
        crc32c: checksum::unmask(masked),
    })
    .filter(|_| sound)
}

fn damaged(file: &ReadFile, offset: u64, what: &str) -> Error {
    Error::data_loss(format!("the sidecar of chunk checksums is damaged: {what}"))
        .with_file(file.path())
        .with_offset(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use std::path::PathBuf;

    const CHUNK: usize = STORED_CHUNK_SIZE as usize;

    /// A sidecar of entries that have these keys, sizes and contents, written to `path`.
    fn written(path: &Path, entries: &[(&[u8], Vec<u8>)]) -> Vec<DataExtent> {
        let chunks: Vec<Vec<u32>> = entries
            .iter()
            .map(|(_, bytes)| {
                let chunks = bytes.chunks(CHUNK);
                chunks.map(checksum::crc32c).collect()
            })
            .collect();
        let listed: Vec<ChunkedEntry<'_>> = entries
            .iter()
            .zip(&chunks)
            .map(|((key, bytes), chunks)| ChunkedEntry {
                key,
                size: bytes.len() as u64,
                crc32c: checksum::crc32c(bytes),
                chunks,
            })
            .collect();
        let mut bytes = Vec::new();
        write(&listed, &mut bytes).unwrap();
        std::fs::write(path, bytes).unwrap();
        listed
            .iter()
            .map(|entry| DataExtent {
                shard_id: 0,
                offset: 0,
                size: entry.size,
                crc32c: entry.crc32c,
            })
            .collect()
    }

    fn content(len: usize, seed: u8) -> Vec<u8> {
        (0..251)
            .cycle()
            .take(len)
            .map(|byte: u8| byte ^ seed)
            .collect()
    }

    fn small(dir: &Path) -> (PathBuf, Vec<DataExtent>) {
        let path = dir.join("m.crc32c");
        let extents = written(
            &path,
            &[
                (b"a", content(CHUNK + 1, 1)),
                (b"ab", content(3 * CHUNK, 2)),
                (b"b\xff", content(2 * CHUNK + 5, 3)),
            ],
        );
        (path, extents)
    }

    fn found(path: &Path, key: &[u8], extent: &DataExtent) -> Result<Option<Vec<u32>>> {
        let sidecar = Sidecar::open(path)?;
        let Some(record) = sidecar.find(key)?.filter(|record| record.is_of(extent)) else {
            return Ok(None);
        };
        sidecar.chunks(&record, 0..u64::MAX).map(Some)
    }

    #[test]
    fn what_was_written_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (path, extents) = small(dir.path());
        for ((key, extent), num) in [b"a".as_slice(), b"ab", b"b\xff"]
            .iter()
            .zip(&extents)
            .zip([2, 3, 3])
        {
            assert_eq!(found(&path, key, extent).unwrap().unwrap().len(), num);
            let other = DataExtent {
                crc32c: extent.crc32c ^ 1,
                ..*extent
            };
            assert_eq!(found(&path, key, &other).unwrap(), None);
        }
        let sidecar = Sidecar::open(&path).unwrap();
        for key in [b"".as_slice(), b"0", b"aa", b"abc", b"b", b"b\xff\0", b"c"] {
            assert_eq!(sidecar.find(key).unwrap(), None);
        }
        let record = sidecar.find(b"ab").unwrap().unwrap();
        let all = sidecar.chunks(&record, 0..3).unwrap();
        assert_eq!(sidecar.chunks(&record, 1..2).unwrap(), all[1..2]);
        assert_eq!(sidecar.chunks(&record, 2..9).unwrap(), all[2..]);
        assert!(sidecar.chunks(&record, 3..3).unwrap().is_empty());
        let mut keys = Vec::new();
        sidecar
            .walk(&mut |key, record| {
                keys.push((key.to_owned(), record.num_chunks()));
                Ok(())
            })
            .unwrap();
        let expected = [
            (b"a".to_vec(), 2),
            (b"ab".to_vec(), 3),
            (b"b\xff".to_vec(), 3),
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn one_of_no_entries_is_sound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.crc32c");
        written(&path, &[]);
        let sidecar = Sidecar::open(&path).unwrap();
        assert_eq!(sidecar.find(b"a").unwrap(), None);
        assert!(sidecar.walk(&mut |_, _| panic!("an entry")).is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), HEADER + CRC);
    }

    #[test]
    fn a_key_that_is_too_long_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.crc32c");
        let bytes = content(CHUNK + 1, 0);
        let keys = [vec![b'k'; MAX_KEY], vec![b'k'; MAX_KEY + 1]];
        let extents = written(
            &path,
            &keys.each_ref().map(|key| (key.as_slice(), bytes.clone())),
        );
        assert!(found(&path, &keys[0], &extents[0]).unwrap().is_some());
        assert!(found(&path, &keys[1], &extents[1]).unwrap().is_none());
    }

    /// Writes its own checksum, so that what lies behind it is reached.
    fn repair(bytes: &mut [u8]) {
        let Some(end) = bytes.len().checked_sub(4) else {
            return;
        };
        let crc = checksum::mask(checksum::crc32c(&bytes[..end]));
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = small(dir.path());
        let sound = std::fs::read(&path).unwrap();
        let fails = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let code = Sidecar::open(&path).unwrap_err().code();
            assert!(
                matches!(code, Code::DataLoss | Code::Unimplemented),
                "{code}"
            );
        };
        for bit in 0..sound.len() * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fails(&flipped);
        }
        for len in 0..sound.len() {
            fails(&sound[..len]);
        }
        fails(&[&sound[..], &[0]].concat());
    }

    #[test]
    fn behind_a_checksum_that_is_right_nothing_wrong_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, extents) = small(dir.path());
        let sound = std::fs::read(&path).unwrap();
        let keys = [b"a".as_slice(), b"ab", b"b\xff"];
        let right: Vec<_> = keys
            .iter()
            .zip(&extents)
            .map(|(key, extent)| found(&path, key, extent).unwrap())
            .collect();
        let check = |mut bytes: Vec<u8>| {
            repair(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            for ((key, extent), right) in keys.iter().zip(&extents).zip(&right) {
                match found(&path, key, extent) {
                    Ok(chunks) => assert!(chunks.is_none() || chunks == *right),
                    Err(error) => assert!(
                        matches!(error.code(), Code::DataLoss | Code::Unimplemented),
                        "{error}"
                    ),
                }
            }
            if let Ok(sidecar) = Sidecar::open(&path) {
                let _ = sidecar.walk(&mut |_, record| {
                    let _ = sidecar.chunks(record, 0..0);
                    Ok(())
                });
            }
        };
        for at in 0..sound.len() - 4 {
            for change in [0x01, 0x80, 0xff, sound[at], sound[at] ^ 0x7f] {
                let mut changed = sound.clone();
                changed[at] ^= change;
                check(changed);
            }
        }
        for len in 0..sound.len() {
            check(sound[..len].to_vec());
        }
    }
}
