//! Damage of every kind.

use super::*;

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
