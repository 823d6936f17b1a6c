//! Tests of the whole table: round trips, TensorFlow's own files, and damage of every kind.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the numbers of these tests are small"
)]

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

const GOLDEN: [&str; 6] = [
    // V2: two tensors.
    "00000608011a02080100010d62080912002010280835bbd79f11000113770801
     120812020802120208022810354c28987400000000010000000094d033a40000
     00000100000000c0f2a1b000010278003900000000010000000053ee0f5d3e08
     4b0e000000000000000000000000000000000000000000000000000000000000
     00000000000057fb808b247547db",
    // V2: strings and a tensor without elements.
    "00000608011a020801000112650801120612001202080320d20135d8ea82a200020e736308071200
     20d201280a35ece0c0290102107472080712041202080328d20135ea94d3e9000000000100000000
     3a5bd5fb000000000100000000c0f2a1b000010274004f000000000100000000e8929cd15408610e
     00000000000000000000000000000000000000000000000000000000000000000000000057fb808b
     247547db",
    // V2: a partitioned variable.
    "00000608011a020801000d130070617274000101028082807f080112081202080212020806283035
     d7a655dc0904158282807f08011208120208021202080620302830358e40362e00041e7061727408
     01120812020804120208063a060a0210020a003a080a04080210020a0000020d7a7a080112002060
     28043581a5da2b000000000100000000de00b59d000000000100000000c0f2a1b00001037b008701
     0000000001000000009ce456958c010899010f000000000000000000000000000000000000000000
     0000000000000000000000000057fb808b247547db",
    // V2: a merge of two shards.
    "00000608021a020801000d150070617274000101028082807f080112081202080212020806200428
     3035d7a655dc0904178282807f080112081202080212020806180120042830358e40362e01091771
     000101028081807f08011208120208011202080618012034281835c0db3d1700010b610801120028
     043581a5da2b00010d6208011200180128043510fd784f00041e7061727408011208120208041202
     08063a060a0210020a003a080a04080210020a000001167108011208120208041202080618013a06
     0a0210010a000000000001000000002e8e1572000000000100000000c0f2a1b00001037200d60100
     0000000100000000dcd6d41cdb0108e8010f00000000000000000000000000000000000000000000
     00000000000000000000000057fb808b247547db",
    // V1: two tensors.
    "0000280a260a090a01621200180922000a150a017712081202080212020802180122040a000a0012
     02080100050c0062000100120a0a016212001a0352010701091f7700010102807f807f121d0a0177
     12040a000a001a122a100000803f00000040000040400000804000000000010000000005810d2800
     0000000100000000c0f2a1b000010201007200000000010000000038907b88770884010e00000000
     0000000000000000000000000000000000000000000000000000000000000057fb808b247547db",
    // V1: two slices.
    "0000290a270a210a017812081202080412020806180122060a0210020a0022080a04080210020a00
     12020801000a410078000101028082807f123f0a017812060a0210020a001a322a30000000000000
     803f0000004000004040000080400000a0400000c0400000e0400000004100001041000020410000
     30410604438282807f12410a017812080a04080210020a001a322a30000040410000504100006041
     00007041000080410000884100009041000098410000a0410000a8410000b0410000b84100000000
     01000000008028ea08000000000100000000c0f2a1b00001030100cc0100000000010000000038d4
     b36fd10108de010f0000000000000000000000000000000000000000000000000000000000000000
     000057fb808b247547db",
];

#[test]
fn tensorflows_files_are_read_and_written_byte_for_byte() {
    for golden in GOLDEN {
        let golden = hex(golden);
        let table = open(&golden).unwrap();
        let (entries, errors) = list(&table);
        assert!(errors.is_empty() && entries.len() > 2);
        assert_eq!(table.first().unwrap().as_ref(), entries.first());
        let mut builder = TableBuilder::new(Vec::new());
        for (key, value) in &entries {
            assert_eq!(table.get(key).unwrap().as_ref(), Some(value));
            builder.add(key, value).unwrap();
        }
        assert_eq!(builder.finish().unwrap(), golden);
    }
}

#[test]
fn a_file_of_tensorflow_is_made_from_entries_written_down_by_hand() {
    let mut builder = TableBuilder::new(Vec::new());
    for (key, value) in [
        (&b""[..], "08011a020801"),
        (b"b", "080912002010280835bbd79f11"),
        (b"w", "0801120812020802120208022810354c289874"),
    ] {
        builder.add(key, &hex(value)).unwrap();
    }
    assert_eq!(builder.finish().unwrap(), hex(GOLDEN[0]));
}

/// The writer's rules once more, as plainly as they can be said.
fn naive_table(entries: &Entries, block_size: usize) -> Vec<u8> {
    let mut blocks: Vec<Entries> = Vec::new();
    let mut block = Entries::new();
    for pair in entries {
        if pair.0.len() + pair.1.len() >= 2 * block_size && !block.is_empty() {
            blocks.push(std::mem::take(&mut block));
        }
        block.push(pair.clone());
        if naive_block(&block, 16).len() >= block_size {
            blocks.push(std::mem::take(&mut block));
        }
    }
    if !block.is_empty() {
        blocks.push(block);
    }
    let mut forge = Forge::default();
    for (i, block) in blocks.iter().enumerate() {
        let mut separator = block[block.len() - 1].0.clone();
        if let Some(next) = blocks.get(i + 1).map(|next| &next[0].0) {
            let differing = (0..separator.len().min(next.len())).find(|&i| separator[i] != next[i]);
            if let Some(i) = differing.filter(|&i| u32::from(separator[i]) + 1 < u32::from(next[i]))
            {
                separator.truncate(i + 1);
                separator[i] += 1;
            }
        } else if let Some(i) = separator.iter().position(|&byte| byte != 0xff) {
            separator.truncate(i + 1);
            separator[i] += 1;
        }
        let handle = forge.block(0, &naive_block(block, 16));
        let mut value = Vec::new();
        handle.encode(&mut value);
        forge.index.push((separator, value));
    }
    let index = naive_block(&forge.index, 1);
    forge.finish_with(&naive_block(&Vec::new(), 16), &index)
}

fn naive_block(block: &Entries, interval: usize) -> Vec<u8> {
    let (mut out, mut restarts) = (Vec::new(), vec![0]);
    for (i, (key, value)) in block.iter().enumerate() {
        let mut shared = 0;
        if i % interval != 0 {
            let before = &block[i - 1].0;
            while shared < key.len() && before.get(shared) == Some(&key[shared]) {
                shared += 1;
            }
        } else if i > 0 {
            restarts.push(out.len() as u32);
        }
        for number in [shared, key.len() - shared, value.len()] {
            put_varint(&mut out, number as u64);
        }
        out.extend(&key[shared..]);
        out.extend(value);
    }
    let count = restarts.len() as u32;
    for number in restarts.into_iter().chain([count]) {
        out.extend(number.to_le_bytes());
    }
    out
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let dense = proptest::collection::vec(
        prop_oneof![Just(0x00u8), Just(0xff), Just(0xfe), Just(b'a'), Just(b'b')],
        0..6,
    );
    let random = proptest::collection::vec(any::<u8>(), 0..12);
    let long = (0usize..4, 0u16..500).prop_map(|(len, number)| {
        let mut key = vec![b'p'; len * 300];
        key.extend(number.to_be_bytes());
        key
    });
    prop_oneof![dense, random, long]
}

fn any_model() -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
    let value = (any::<u8>(), prop_oneof![0usize..40, 0usize..3000])
        .prop_map(|(byte, len)| vec![byte; len]);
    proptest::collection::btree_map(any_key(), value, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn agrees_with_a_map(
        model in any_model(),
        block_size in prop_oneof![Just(1usize), 30usize..4000, Just(256 << 10)],
        probes in proptest::collection::vec(any_key(), 0..60),
    ) {
        let expected: Entries = model.clone().into_iter().collect();
        let bytes = build(&expected, block_size);
        prop_assert_eq!(&bytes, &naive_table(&expected, block_size));
        let table = open(&bytes).unwrap();
        let (listed, errors) = list(&table);
        prop_assert!(errors.is_empty());
        prop_assert_eq!(&listed, &expected);
        prop_assert_eq!(table.first().unwrap(), expected.first().cloned());

        let mut ascending = table.cursor();
        for (key, value) in &model {
            prop_assert_eq!(ascending.get(key).unwrap(), Some(&value[..]));
        }
        let mut descending = table.cursor();
        for (key, value) in model.iter().rev() {
            prop_assert_eq!(descending.get(key).unwrap(), Some(&value[..]));
        }
        let mut mixed = table.cursor();
        for key in probes.iter().chain(model.keys().take(20)).chain(&probes) {
            let value = model.get(key).map(Vec::as_slice);
            prop_assert_eq!(mixed.get(key).unwrap(), value);
            let found = table.get(key).unwrap();
            prop_assert_eq!(found.as_deref(), value);
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_table_in_order(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..60),
        restarts in proptest::collection::vec(0u32..60, 0..3),
        kind in 0u8..2,
    ) {
        bytes = raw_block(&[bytes], &restarts, restarts.len() as u32);
        if let Ok(table) = open(&Forge::default().data("\u{7f}", kind, &bytes).finish()) {
            let (entries, errors) = list(&table);
            prop_assert!(errors.is_empty());
            prop_assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
}

#[test]
fn keys_and_values_beyond_half_a_mebibyte_have_blocks_of_their_own() {
    let huge = |byte: u8| vec![byte; (512 << 10) + 1];
    let expected: Entries = vec![
        (vec![], b"header".to_vec()),
        (b"a".to_vec(), huge(1)),
        (b"b".to_vec(), b"small".to_vec()),
        (huge(b'c'), b"".to_vec()),
        ([huge(b'c'), vec![0]].concat(), huge(2)),
        (huge(0xff), huge(3)),
    ];
    let bytes = build(&expected, 256 << 10);
    assert!(bytes == naive_table(&expected, 256 << 10));
    let table = open(&bytes).unwrap();
    assert_eq!(table.index().len(), 6);
    assert!(list(&table).0 == expected);
    let mut cursor = table.cursor();
    for (key, value) in &expected {
        assert!(cursor.get(key).unwrap() == Some(&value[..]));
    }
}

#[test]
fn tables_of_many_blocks_open_without_reading_them() {
    let expected: Entries = (0..60_000)
        .map(|i| (format!("layer/{i:08}").into(), vec![b'v'; 40]))
        .collect();
    let mut bytes = build(&expected, 256 << 10);
    let blocks = open(&bytes).unwrap().index().len();
    assert!(blocks > 10);

    // All data blocks but the first are overwritten, and the table still opens.
    let table = open(&bytes).unwrap();
    let from = table.index().handle(1).unwrap().offset as usize;
    let last = table.index().handle(blocks - 1).unwrap();
    bytes[from..(last.offset + last.size) as usize].fill(0);
    let damaged = open(&bytes).unwrap();
    assert_eq!(damaged.first().unwrap(), expected.first().cloned());
    assert_eq!(
        damaged.get(b"layer/00000007").unwrap(),
        Some(vec![b'v'; 40])
    );
    assert!(damaged.get(b"layer/00059999").is_err());
    assert_eq!(list(&damaged).1.len(), blocks - 1);
}

#[test]
fn readers_are_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<TableReader>();

    let expected: Entries = (0..2000)
        .map(|i| (format!("{i:05}").into(), format!("{}", i * 7).into()))
        .collect();
    let table = open(&build(&expected, 1000)).unwrap();
    std::thread::scope(|scope| {
        for start in 0..4 {
            let (table, expected) = (&table, &expected);
            scope.spawn(move || {
                for (key, value) in expected.iter().skip(start).step_by(3) {
                    assert_eq!(table.get(key).unwrap().as_ref(), Some(value));
                }
            });
        }
    });
}

#[test]
fn a_table_without_entries_opens() {
    let bytes = TableBuilder::new(Vec::new()).finish().unwrap();
    let table = open(&bytes).unwrap();
    assert_eq!(table.first().unwrap(), None);
    assert_eq!(table.get(b"").unwrap(), None);
    let (listed, errors) = list(&table);
    assert!(listed.is_empty() && errors.is_empty());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let pairs: Entries = (0..40)
        .map(|i| (format!("k{i:02}").into(), vec![i; 5]))
        .collect();
    for block_size in [100, 256 << 10] {
        let bytes = build(&pairs, block_size);
        let sound = open(&bytes).unwrap();
        assert_eq!(list(&sound).0, pairs);
        for i in 0..bytes.len() {
            for flip in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[i] ^= flip;
                let Ok(table) = open(&damaged) else { continue };
                let (listed, errors) = list(&table);
                assert_eq!(errors.len(), 1, "byte {i} flip {flip:#x}");
                assert!(offset(&errors[0]) <= i);
                for (key, value) in &pairs {
                    match table.get(key) {
                        Ok(found) => {
                            assert_eq!(found.as_ref(), Some(value));
                            assert!(listed.iter().any(|entry| entry.0 == *key));
                        }
                        Err(error) => assert_data_loss(&error, errors[0].message()),
                    }
                }
            }
        }
    }
}

#[test]
fn every_truncation_and_extension_is_an_error() {
    let bytes = build(&entries(&[("", "h"), ("a", "1"), ("b", "2")]), 1);
    for len in 0..bytes.len() {
        let text = if len < 48 {
            "file is too short to be an sstable"
        } else {
            "not an sstable (bad magic number)"
        };
        let error = open(&bytes[..len]).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::DataLoss, text));
        assert!(error.file().is_some());
    }
    let error = open(&[&bytes[..], b"\0"].concat()).unwrap_err();
    assert_data_loss(&error, "not an sstable (bad magic number)");
}

#[test]
fn a_file_cut_short_while_it_is_open_is_data_loss() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let bytes = build(&entries(&[("", "h"), ("a", "1"), ("b", "2")]), 1);
    file.write_all(&bytes).unwrap();
    let mut table = TableReader::open(Arc::new(ReadFile::open(file.path()).unwrap())).unwrap();
    table.load_first().unwrap();
    file.as_file().set_len(20).unwrap();
    assert_eq!(table.get(b"").unwrap(), Some(b"h".to_vec()));
    assert_data_loss(&table.get(b"b").unwrap_err(), "truncated block read");
    assert_eq!(list(&table).1.len(), 2);
}

#[test]
fn footers_that_no_writer_makes_are_refused() {
    let bytes = build(&entries(&[("", "h")]), 1);
    let footer = bytes.len() - 48;
    let mut padding = bytes.clone();
    padding[footer + 30] = 1;
    let error = open(&padding).unwrap_err();
    assert_data_loss(&error, "bad block handle");
    assert_eq!(offset(&error), footer);

    let mut varints = bytes.clone();
    varints[footer..footer + 40].fill(0xff);
    assert_data_loss(&open(&varints).unwrap_err(), "bad block handle");

    for (offset, size, text) in [
        (0, bytes.len() as u64, "truncated block read"),
        (1 << 40, 8, "truncated block read"),
        ((1 << 63) - 1, 8, "truncated block read"),
        (u64::MAX - 5, 8, "truncated block read"),
        (0, u64::MAX - 5, "truncated block read"),
        (0, u64::MAX, "handle.size() too big"),
    ] {
        let bad = BlockHandle { offset, size };
        let good = BlockHandle { offset: 0, size: 1 };
        for (metaindex, index) in [(bad, good), (good, bad)] {
            let mut file = bytes[..footer].to_vec();
            file.extend(Footer { metaindex, index }.encode());
            let error = open(&file).unwrap_err();
            assert_data_loss(&error, text);
            assert_eq!(error.offset(), Some(offset));
        }
    }
}

#[test]
fn data_handles_outside_the_file_or_on_other_blocks_are_refused() {
    let data = pairs_block(&[("a", "1")]);
    let len = data.len() as u64;
    for (offset, size, text) in [
        (1 << 40, 8, "truncated block read"),
        ((1 << 63) - 1, 8, "truncated block read"),
        (u64::MAX - 5, 8, "truncated block read"),
        (len + 5, 1 << 40, "truncated block read"),
        (len + 5, u64::MAX - 5, "truncated block read"),
        (len + 5, u64::MAX, "handle.size() too big"),
        // The first block again, its trailer, the metaindex block.
        (0, len, "bad block handle"),
        (len + 4, 0, "bad block handle"),
        (len + 5, 8, "bad block handle"),
    ] {
        let forge = Forge::default().data("b", 0, &data);
        let error = open(&forge.handle("c", offset, size).finish()).unwrap_err();
        assert_data_loss(&error, text);
    }
    // A value that is no handle, and one with more than a handle.
    for value in [&b""[..], b"\0", b"\xff\xff", b"\0\x0c\0"] {
        let mut forge = Forge::default();
        forge.block(0, &data);
        forge.index.push((b"b".to_vec(), value.to_vec()));
        assert_data_loss(&open(&forge.finish()).unwrap_err(), "bad block handle");
    }
}

#[test]
fn index_blocks_are_validated_when_the_table_opens() {
    let data = pairs_block(&[("a", "1")]);
    let later = pairs_block(&[("c", "1")]);
    for [first, second] in [["b", "b"], ["d", "c"]] {
        let forge = Forge::default()
            .data(first, 0, &data)
            .data(second, 0, &later);
        // Behind the metaindex block and the first entry.
        let at = forge.file.len() + 13 + 6;
        let error = open(&forge.finish()).unwrap_err();
        assert_data_loss(&error, "bad entry in block");
        assert_eq!(offset(&error), at);
    }
    for (index, text) in [
        (raw_block(&[], &[], 0), "bad block contents"),
        (raw_block(&[], &[4], 1), "bad entry in block"),
        (b"\0\0\0".to_vec(), "bad block contents"),
    ] {
        let error = open(&Forge::default().finish_with(&pairs_block(&[]), &index)).unwrap_err();
        assert_data_loss(&error, text);
    }
}

#[test]
fn an_index_that_stands_for_more_keys_than_the_file_has_bytes_is_refused() {
    // Each separator shares nearly all of a long key, at a few bytes of file.
    for (blocks, refused) in [(1, false), (100, true)] {
        let mut forge = Forge::default();
        for i in 0..blocks {
            let separator = format!("{}{i:03}", "k".repeat(10_000));
            forge = forge.data(&separator, 0, &pairs_block(&[("a", "1")]));
        }
        let index = block_of(&forge.index, 1000);
        let opened = open(&forge.finish_with(&pairs_block(&[]), &index));
        assert_eq!(opened.is_err(), refused);
        if let Err(error) = opened {
            assert_data_loss(&error, "bad entry in block");
        }
    }
}

#[test]
fn the_metaindex_block_must_be_sound() {
    let finish = |metaindex: &[u8]| {
        let mut forge = Forge::default().data("b", 0, &pairs_block(&[("a", "1")]));
        let index = block_of(&std::mem::take(&mut forge.index), 1);
        forge.finish_with(metaindex, &index)
    };
    assert!(open(&finish(&pairs_block(&[]))).is_ok());
    assert!(open(&finish(&pairs_block(&[("filter", "x")]))).is_ok());
    for metaindex in [
        raw_block(&[], &[], 0),
        raw_block(&[], &[1], 1),
        raw_block(&[entry(1, 1, 1, "ab")], &[0], 1),
    ] {
        assert_eq!(
            open(&finish(&metaindex)).unwrap_err().code(),
            Code::DataLoss
        );
    }
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

#[test]
fn malformed_blocks_with_correct_checksums_are_data_loss() {
    let first = pairs_block(&[("A", "0"), ("M", "0")]);
    let last = pairs_block(&[("x", "9")]);
    for (number, (block, text, at)) in bad_blocks().into_iter().enumerate() {
        // As the first block, it fails the open.
        let file = Forge::default().data("m", 0, &block).finish();
        let error = open(&file).unwrap_err();
        assert_data_loss(&error, text);
        assert_eq!(offset(&error), at, "block {number}");

        // As a later one, it fails what concerns it.
        let table = open(
            &Forge::default()
                .data("P", 0, &first)
                .data("m", 0, &block)
                .data("z", 0, &last)
                .finish(),
        )
        .unwrap();
        let (listed, errors) = list(&table);
        assert_eq!(errors.len(), 1);
        assert_data_loss(&errors[0], text);
        assert_eq!(offset(&errors[0]), first.len() + 5 + at, "block {number}");
        assert_eq!(listed[..2], entries(&[("A", "0"), ("M", "0")]));
        assert_eq!(listed[listed.len() - 1..], entries(&[("x", "9")]));
        assert!(listed.is_sorted_by(|a, b| a.0 < b.0));

        let mut cursor = table.cursor();
        for key in ["Q", "a", "b", "m", "a"] {
            assert_data_loss(&table.get(key.as_bytes()).unwrap_err(), text);
            assert_data_loss(&cursor.get(key.as_bytes()).unwrap_err(), text);
        }
        for (key, value) in [
            ("A", Some("0")),
            ("B", None),
            ("M", Some("0")),
            ("n", None),
            ("x", Some("9")),
            ("zz", None),
        ] {
            let value = value.map(str::as_bytes);
            assert_eq!(cursor.get(key.as_bytes()).unwrap(), value);
            assert_eq!(table.get(key.as_bytes()).unwrap().as_deref(), value);
        }
    }
}

#[test]
fn a_missing_key_takes_a_block_that_is_sound_from_end_to_end() {
    let names: Vec<String> = (0..64).map(|i| format!("b{i:02}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    // Four stretches of 16 entries; the key of the last entry of the third goes down.
    let sound = pairs_block(&pairs);
    let at = sound
        .windows(4)
        .rposition(|bytes| bytes == [2, 1, 1, b'7'])
        .filter(|at| *at > 0);
    let mut block = sound.clone();
    block[at.unwrap() + 3] = b'0';
    let first = pairs_block(&[("A", "0")]);
    let table = |block: &[u8]| {
        open(
            &Forge::default()
                .data("P", 0, &first)
                .data("m", 0, block)
                .finish(),
        )
        .unwrap()
    };
    let (good, bad) = (table(&sound), table(&block));
    let mut cursor = bad.cursor();
    let mut refused = 0;
    for name in &names {
        assert!(good.get(name.as_bytes()).unwrap().is_some());
        let missing = [name, "x"].concat();
        assert_eq!(good.get(missing.as_bytes()).unwrap(), None);
        // Found or refused, never missing.
        match bad.get(name.as_bytes()) {
            Ok(value) => assert_eq!(value.unwrap(), b"v"),
            Err(error) => {
                assert_data_loss(&error, "bad entry in block");
                refused += 1;
            }
        }
        assert_eq!(
            cursor.get(name.as_bytes()).is_ok(),
            bad.get(name.as_bytes()).is_ok()
        );
        for error in [
            bad.get(missing.as_bytes()).unwrap_err(),
            cursor.get(missing.as_bytes()).unwrap_err(),
        ] {
            assert_data_loss(&error, "bad entry in block");
        }
    }
    assert_eq!(refused, 16);
}

#[test]
fn a_damaged_block_in_the_middle_hides_nothing_else() {
    let blocks: Vec<Entries> = ["a", "b", "c"]
        .iter()
        .map(|prefix| {
            (0..50)
                .map(|i| (format!("{prefix}{i:02}").into(), vec![i; 3]))
                .collect()
        })
        .collect();
    let mut file = Forge::default();
    for (block, separator) in blocks.iter().zip(["az", "bz", "cz"]) {
        file = file.data(separator, 0, &block_of(block, 16));
    }
    let mut file = file.finish();
    let middle = block_of(&blocks[0], 16).len() + 5;
    file[middle + 100] ^= 4;

    let table = open(&file).unwrap();
    let (listed, errors) = list(&table);
    assert_eq!(listed, [&blocks[0][..], &blocks[2][..]].concat());
    assert_eq!(errors.len(), 1);
    assert_data_loss(&errors[0], "block checksum mismatch");
    assert_eq!(offset(&errors[0]), middle);
    let mut cursor = table.cursor();
    for (key, value) in blocks.concat() {
        if key.starts_with(b"b") {
            assert_data_loss(&table.get(&key).unwrap_err(), "block checksum mismatch");
            assert_data_loss(&cursor.get(&key).unwrap_err(), "block checksum mismatch");
        } else {
            assert_eq!(cursor.get(&key).unwrap(), Some(&value[..]));
        }
    }
    assert!(table.get(b"b").is_err());
    assert_eq!(table.get(b"a").unwrap(), None);
    assert_eq!(table.get(b"c").unwrap(), None);
}

#[test]
fn snappy_blocks_are_read() {
    let pairs: Entries = (0..500)
        .map(|i| (format!("key{i:04}").into(), b"value value value".to_vec()))
        .collect();
    let compress = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).unwrap();
    let (first, second) = pairs.split_at(250);
    let (first, second) = (
        block_of(&first.to_vec(), 16),
        block_of(&second.to_vec(), 16),
    );
    let file = Forge::default()
        .data("key0249", 1, &compress(&first))
        .data("z", 1, &compress(&second))
        .finish();
    assert!(file.len() < first.len());
    let table = open(&file).unwrap();
    assert_eq!(list(&table).0, pairs);
    assert!(list(&table).1.is_empty());
    assert_eq!(table.get(b"key0300").unwrap(), Some(pairs[300].1.clone()));
    assert_eq!(table.get(b"key03000").unwrap(), None);

    // Damage inside is found as in plain blocks; its place is the block's.
    for (block, text, _) in bad_blocks().into_iter().filter(|bad| !bad.0.is_empty()) {
        let file = Forge::default().data("m", 1, &compress(&block)).finish();
        let error = open(&file).unwrap_err();
        assert_data_loss(&error, text);
        assert_eq!(offset(&error), 0);
    }
}

#[test]
fn compressed_garbage_and_unknown_types_are_data_loss() {
    let text = "corrupted compressed block contents";
    for block in [
        &b"\x20not snappy at all"[..],
        b"",
        b"\x04\x01\x00",
        b"\xff\xff\xff\xff\x0f\0\0\0\0",
        b"\xff\xff\xff\xff\xff\xff",
    ] {
        let error = open(&Forge::default().data("m", 1, block).finish()).unwrap_err();
        assert_data_loss(&error, text);
    }
    for kind in [2, 0xff] {
        let file = Forge::default().data("m", kind, &pairs_block(&[("a", "1")]));
        assert_data_loss(&open(&file.finish()).unwrap_err(), "bad block type");
    }
}

#[test]
fn a_large_value_of_another_size_than_announced_makes_no_table() {
    let len = 1u64 << 20;
    for written in [len - 1, len + 1] {
        let mut builder = TableBuilder::new(Vec::new());
        builder.add(b"a", b"1").unwrap();
        let value = vec![7; usize::try_from(written).unwrap()];
        let error = builder.add_large(b"b", len, &mut |put| {
            value.chunks(1000).try_for_each(&mut *put)
        });
        assert_eq!(error.unwrap_err().code(), Code::Aborted);
        assert_eq!(builder.add(b"c", b"3").unwrap_err().code(), Code::Aborted);
        assert_eq!(builder.finish().unwrap_err().code(), Code::Aborted);
    }
}

#[test]
fn a_large_value_written_piece_by_piece_makes_the_same_table() {
    let value: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let (mut whole, mut pieces) = (TableBuilder::new(Vec::new()), TableBuilder::new(Vec::new()));
    for builder in [&mut whole, &mut pieces] {
        builder.add(b"", b"0").unwrap();
    }
    for key in [&b"b"[..], b"c"] {
        whole.add(key, &value).unwrap();
        assert!(TableBuilder::<Vec<u8>>::is_large(key, value.len() as u64));
        pieces
            .add_large(key, value.len() as u64, &mut |put| {
                value.chunks(4097).try_for_each(&mut *put)
            })
            .unwrap();
    }
    for builder in [&mut whole, &mut pieces] {
        builder.add(b"d", b"4").unwrap();
    }
    assert_eq!(whole.finish().unwrap(), pieces.finish().unwrap());
}
