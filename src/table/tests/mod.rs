//! Tests of the whole table: round trips, TensorFlow's own files, and damage of every kind.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the numbers of these tests are small"
)]

mod damage;
mod peeks;
mod round_trips;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use proptest::prelude::*;

use super::block_builder::BlockBuilder;
use super::format::{BlockHandle, Footer};
use super::{TableBuilder, TableReader};
use crate::checksum::{crc32c, mask};
use crate::coding::put_varint;
use crate::error::{Code, Error, Result};
use crate::io::read::ReadFile;

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn open(bytes: &[u8]) -> Result<TableReader> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    // The open descriptor outlives the name.
    let mut table = TableReader::open(Arc::new(ReadFile::open(file.path()).unwrap()))?;
    table.load_first()?;
    Ok(table)
}

fn build(entries: &Entries, block_size: usize) -> Vec<u8> {
    let mut builder = TableBuilder::with_block_size(Vec::new(), block_size);
    for (key, value) in entries {
        builder.add(key, value).unwrap();
    }
    builder.finish().unwrap()
}

/// All entries that iteration yields, and all errors.
fn list(table: &TableReader) -> (Entries, Vec<Error>) {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    let mut iter = table.iter();
    while let Some(entry) = iter.next() {
        match entry {
            Ok((key, value)) => entries.push((key.to_vec(), value.to_vec())),
            Err(error) => errors.push(error),
        }
    }
    assert!(iter.next().is_none());
    (entries, errors)
}

fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs
        .iter()
        .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| Some(c.to_digit(16)? as u8))
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// A table put together by hand: blocks with correct checksums and any content.
#[derive(Default)]
struct Forge {
    file: Vec<u8>,
    index: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Forge {
    fn block(&mut self, kind: u8, bytes: &[u8]) -> BlockHandle {
        let handle = BlockHandle {
            offset: self.file.len() as u64,
            size: bytes.len() as u64,
        };
        self.file.extend(bytes);
        self.file.push(kind);
        let crc = mask(crc32c(&self.file[handle.offset as usize..]));
        self.file.extend(crc.to_le_bytes());
        handle
    }

    fn data(mut self, separator: &str, kind: u8, bytes: &[u8]) -> Self {
        let handle = self.block(kind, bytes);
        self.handle(separator, handle.offset, handle.size)
    }

    fn handle(mut self, separator: &str, offset: u64, size: u64) -> Self {
        let mut value = Vec::new();
        BlockHandle { offset, size }.encode(&mut value);
        self.index.push((separator.into(), value));
        self
    }

    fn finish(self) -> Vec<u8> {
        let index = block_of(&self.index, 1);
        self.finish_with(&block_of(&Vec::new(), 16), &index)
    }

    fn finish_with(mut self, metaindex: &[u8], index: &[u8]) -> Vec<u8> {
        let metaindex = self.block(0, metaindex);
        let index = self.block(0, index);
        self.file.extend(Footer { metaindex, index }.encode());
        self.file
    }
}

fn block_of(entries: &Entries, restart_interval: usize) -> Vec<u8> {
    let mut builder = BlockBuilder::new(restart_interval);
    for (key, value) in entries {
        builder.add(key, value).unwrap();
    }
    builder.take()
}

fn pairs_block(pairs: &[(&str, &str)]) -> Vec<u8> {
    block_of(&entries(pairs), 16)
}

/// One entry with any numbers in it.
fn entry(shared: u64, unshared: u64, value_len: u64, rest: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [shared, unshared, value_len] {
        put_varint(&mut out, number);
    }
    out.extend(rest.as_bytes());
    out
}

/// A block from encoded entries, restart points and a count.
fn raw_block(entries: &[Vec<u8>], restarts: &[u32], num_restarts: u32) -> Vec<u8> {
    let mut out = entries.concat();
    for number in restarts.iter().chain([&num_restarts]) {
        out.extend(number.to_le_bytes());
    }
    out
}

fn assert_data_loss(error: &Error, text: &str) {
    assert_eq!(
        (error.code(), error.message()),
        (Code::DataLoss, text),
        "{error}"
    );
    assert!(
        error.file().is_some() && error.offset().is_some(),
        "{error}"
    );
}

/// Where `error` says the damage is.
fn offset(error: &Error) -> usize {
    usize::try_from(error.offset().unwrap()).unwrap()
}

/// Blocks with a correct checksum that no writer makes, the text, and where the damage is.
fn bad_blocks() -> Vec<(Vec<u8>, &'static str, usize)> {
    let a = || entry(0, 1, 1, "a1");
    let bad = "bad entry in block";
    let contents = "bad block contents";
    let one = |bytes: Vec<u8>, at| (raw_block(&[a(), bytes], &[0], 1), bad, at);
    vec![
        // Shared more than the key before has, or anything at all in the first entry.
        one(entry(2, 1, 1, "b2"), 5),
        one(entry(u64::from(u32::MAX), 1, 1, "b2"), 5),
        (raw_block(&[entry(1, 1, 1, "b2")], &[0], 1), bad, 0),
        // Key or value past the entries; lengths whose sum wraps in 32 bits.
        one(entry(0, 9, 1, "b2"), 5),
        one(entry(0, 1, 2, "b2"), 5),
        one(entry(0, u64::from(u32::MAX), 3, "b2"), 5),
        one(entry(0, 1 << 32, 1, "b2"), 5),
        one(vec![0x80], 5),
        one(vec![0, 1], 5),
        // Out of order, twice, and outside the separators.
        one(entry(0, 1, 1, "Z2"), 5),
        one(entry(0, 1, 1, "a2"), 5),
        one(entry(1, 0, 1, "2"), 5),
        one(entry(0, 0, 1, "2"), 5),
        one(entry(0, 1, 1, "n2"), 5),
        // Restart points: none, too many, inside an entry, behind the entries, twice, descending,
        // missing for the first entry, on an entry that shares.
        (raw_block(&[], &[], 0), contents, 0),
        (raw_block(&[a()], &[], 0), contents, 0),
        (raw_block(&[a()], &[0], 3), contents, 0),
        (raw_block(&[a()], &[0], u32::MAX), contents, 0),
        (raw_block(&[a()], &[0], 1 << 30), contents, 0),
        (b"\0\0\0".to_vec(), contents, 0),
        (b"".to_vec(), contents, 0),
        (raw_block(&[a(), entry(0, 1, 1, "b2")], &[0, 3], 2), bad, 5),
        (raw_block(&[a()], &[0, 5], 2), bad, 5),
        (raw_block(&[a()], &[0, u32::MAX], 2), bad, 5),
        (raw_block(&[a(), entry(0, 1, 1, "b2")], &[0, 0], 2), bad, 5),
        (raw_block(&[a(), entry(0, 1, 1, "b2")], &[5], 1), bad, 0),
        (raw_block(&[a(), entry(0, 1, 1, "b2")], &[5, 0], 2), bad, 0),
        (raw_block(&[a(), entry(1, 1, 1, "b2")], &[0, 5], 2), bad, 5),
        // No entries.
        (raw_block(&[], &[0], 1), bad, 0),
    ]
}
