//! What is written is read, by us and by TensorFlow.

use super::*;

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
