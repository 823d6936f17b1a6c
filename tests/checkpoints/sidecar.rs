//! The sidecar of chunk checksums: parts of tensors are read and verified by it, and nothing that is
//! wrong with it does harm.

use std::path::{Path, PathBuf};

use tfckpt::{
    Call, Code, Context, DType, Format, MergeOptions, Progress, Reader, RemoveOptions,
    RestoreOptions, SaveOptions, SaveValue, Saver, SaverOptions, SaverSaveOptions, Shape, Stats,
    Variable, Verify,
};

use super::support::{
    Item, Request, Value, context, quick, restore_one, restore_with, save, temp_dir, tests_dir,
    verify,
};

const MIB: usize = 1 << 20;

fn with_sidecar() -> SaveOptions {
    SaveOptions {
        chunk_checksums: true,
        ..quick()
    }
}

fn save_one(prefix: &Path, tensor: &Item, call: &mut Call<'_>) {
    save(prefix, std::slice::from_ref(tensor), &with_sidecar(), call).unwrap();
}

fn sidecar(prefix: &Path) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(".crc32c");
    path.into()
}

fn data(prefix: &Path) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(".data-00000-of-00001");
    path.into()
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 7 + i / 251 + i / MIB * 31 + seed) as u8)
        .collect()
}

/// A tensor of bytes.
fn item(key: &str, dims: &[i64], seed: usize) -> Item {
    let len: i64 = dims.iter().product();
    let value = Value::Bytes(bytes(len as usize, seed));
    Item::new(key, DType::Uint8, dims, value)
}

const ROWS: usize = 700;
const COLUMNS: usize = 5000;

/// Rows and columns of the tensor `w`, of 700 x 5000 bytes, which is three chunks and a bit.
fn cut((top, height): (usize, usize), (left, width): (usize, usize)) -> Request {
    Request {
        key: b"w".to_vec(),
        dtype: DType::Uint8,
        shape: Shape::new([height as i64, width as i64]).unwrap(),
        spec: format!("{ROWS} {COLUMNS} {top},{height}:{left},{width}"),
    }
}

/// The elements of that, and the bytes of the chunks that they lie in, the naive way.
fn expected(
    whole: &[u8],
    (top, height): (usize, usize),
    (left, width): (usize, usize),
) -> (Value, u64) {
    let mut elements = Vec::new();
    let mut chunks = [false; 4];
    for row in top..top + height {
        let start = row * COLUMNS + left;
        elements.extend(&whole[start..start + width]);
        for at in start..start + width {
            chunks[at / MIB] = true;
        }
    }
    let sizes = [MIB, MIB, MIB, whole.len() - 3 * MIB];
    let touched = chunks.iter().zip(sizes).filter(|(touched, _)| **touched);
    (
        Value::Bytes(elements),
        touched.map(|(_, size)| size as u64).sum(),
    )
}

fn restored(
    reader: &Reader,
    request: &Request,
    verify: Verify,
    context: &Context,
) -> (tfckpt::Result<Value>, Stats) {
    let options = RestoreOptions {
        verify,
        ..RestoreOptions::default()
    };
    let mut call = Call::new(context);
    let restored = restore_with(reader, std::slice::from_ref(request), &options, &mut call);
    let value = restored.and_then(|restored| Ok(restored.complete()?.remove(0)));
    (value, call.stats)
}

#[test]
fn parts_of_a_tensor_are_verified_by_the_chunks_they_lie_in() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let tensor = item("w", &[ROWS as i64, COLUMNS as i64], 1);
    let Value::Bytes(whole) = tensor.value.clone() else {
        unreachable!()
    };
    for num_threads in [1, 4] {
        let context = context(num_threads);
        let mut call = Call::new(&context);
        save_one(&prefix, &tensor, &mut call);
        let reader = Reader::open(&prefix).unwrap();
        for (rows, columns) in [
            ((0, 1), (0, 1)),
            ((699, 1), (4999, 1)),
            ((0, 1), (0, COLUMNS)),
            ((209, 1), (0, COLUMNS)),
            ((209, 2), (3000, 2000)),
            ((300, 20), (17, 100)),
            ((0, 699), (0, COLUMNS)),
            ((1, 699), (0, COLUMNS)),
            ((0, ROWS), (0, 1)),
            ((0, ROWS), (4999, 1)),
            ((0, ROWS), (1, 4999)),
            ((210, 420), (0, COLUMNS)),
            ((629, 71), (0, 2500)),
        ] {
            let request = cut(rows, columns);
            let (value, touched) = expected(&whole, rows, columns);
            let (got, stats) = restored(&reader, &request, Verify::Fetched, &context);
            assert_eq!(got.unwrap(), value, "{}", request.spec);
            assert_eq!(stats.bytes_verified_by_chunks, touched, "{}", request.spec);
            assert_eq!(stats.bytes_verified, touched);
            assert_eq!(stats.bytes_io, touched);
            assert_eq!((stats.bytes_unverified, stats.num_sidecar_ignored), (0, 0));
            // The others do not look at it.
            let (got, stats) = restored(&reader, &request, Verify::Full, &context);
            assert_eq!(got.unwrap(), value);
            assert_eq!(stats.bytes_verified, whole.len() as u64);
            assert_eq!(stats.bytes_verified_by_chunks, 0);
            let (got, stats) = restored(&reader, &request, Verify::None, &context);
            assert_eq!(got.unwrap(), value);
            assert_eq!(stats.bytes_unverified, (rows.1 * columns.1) as u64);
        }
    }
}

#[test]
fn progress_ends_at_its_total_and_a_restore_by_chunks_can_be_cancelled() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let tensor = item("w", &[ROWS as i64, COLUMNS as i64], 1);
    let context = context(2);
    let mut call = Call::new(&context);
    let items = std::slice::from_ref(&tensor);
    save(&prefix, items, &with_sidecar(), &mut call).unwrap();
    let reader = Reader::open(&prefix).unwrap();
    let requests = [cut((1, 500), (3, 4000)), cut((5, 600), (0, COLUMNS))];
    for restore_sequentially in [false, true] {
        let options = RestoreOptions {
            verify: Verify::Fetched,
            restore_sequentially,
            ..RestoreOptions::default()
        };
        let mut last = (0, 0, 0);
        let mut call = Call::new(&context);
        call.progress = Progress::new(Some(Box::new(|update| {
            last = (update.bytes_done, update.bytes_total, update.tensors_done);
            true
        })));
        let restored = restore_with(&reader, &requests, &options, &mut call).unwrap();
        restored.complete().unwrap();
        drop(call);
        let total = 500 * 4000 + 600 * COLUMNS as u64;
        assert_eq!(last, (total, total, 2));
        let mut call = Call::new(&context);
        call.progress = Progress::new(Some(Box::new(|_| false)));
        // Before the first byte, or later: that is the machine's.
        let restored = restore_with(&reader, &requests, &options, &mut call);
        let restored = restored.and_then(|outcome| outcome.complete());
        assert_eq!(restored.unwrap_err().code(), Code::Cancelled);
    }
}

#[test]
fn many_parts_of_several_tensors_are_read_together() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let keys = ["a", "b", "c"];
    let items: Vec<Item> = (keys.iter().zip(1..))
        .map(|(key, seed)| item(key, &[2 * MIB as i64 + seed], seed as usize))
        .collect();
    let context = context(2);
    save(&prefix, &items, &with_sidecar(), &mut Call::new(&context)).unwrap();
    let reader = Reader::open(&prefix).unwrap();
    // Of the three by turns, so that entries come back.
    let parts: Vec<(usize, usize)> = (0..90).map(|i| (i % 3, i * 23_000)).collect();
    let requests: Vec<Request> = parts
        .iter()
        .map(|&(tensor, at)| Request {
            shape: Shape::new([7]).unwrap(),
            spec: format!("{} {at},7", 2 * MIB + tensor + 1),
            ..items[tensor].request()
        })
        .collect();
    let options = RestoreOptions {
        verify: Verify::Fetched,
        ..RestoreOptions::default()
    };
    for _ in 0..2 {
        let mut call = Call::new(&context);
        let restored = restore_with(&reader, &requests, &options, &mut call).unwrap();
        for (value, &(tensor, at)) in restored.complete().unwrap().iter().zip(&parts) {
            let Value::Bytes(whole) = &items[tensor].value else {
                unreachable!()
            };
            assert_eq!(*value, Value::Bytes(whole[at..at + 7].to_vec()));
        }
        let stats = call.stats;
        assert_eq!((stats.bytes_unverified, stats.num_sidecar_ignored), (0, 0));
        assert!(stats.bytes_verified_by_chunks >= 90 * MIB as u64 - 30 * MIB as u64);
    }
}

#[test]
fn what_is_not_larger_than_a_chunk_is_read_whole_and_verified() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let tensor = item("w", &[MIB as i64], 2);
    let context = context(1);
    let mut call = Call::new(&context);
    save_one(&prefix, &tensor, &mut call);
    assert_eq!(std::fs::metadata(sidecar(&prefix)).unwrap().len(), 44);
    let request = Request {
        shape: Shape::new([5]).unwrap(),
        spec: format!("{MIB} 70000,5"),
        ..tensor.request()
    };
    let (value, stats) = restored(
        &Reader::open(&prefix).unwrap(),
        &request,
        Verify::Fetched,
        &context,
    );
    let Value::Bytes(whole) = tensor.value else {
        unreachable!()
    };
    assert_eq!(value.unwrap(), Value::Bytes(whole[70000..70005].to_vec()));
    assert_eq!(stats.bytes_verified, MIB as u64);
    assert_eq!((stats.bytes_unverified, stats.num_sidecar_ignored), (0, 0));
    std::fs::remove_file(sidecar(&prefix)).unwrap();
    let (_, stats) = restored(
        &Reader::open(&prefix).unwrap(),
        &request,
        Verify::Fetched,
        &context,
    );
    assert_eq!((stats.bytes_verified, stats.bytes_unverified), (0, 5));
}

#[test]
fn a_damaged_chunk_is_data_loss_where_it_is_read_and_nowhere_else() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let items = [
        item("before", &[100], 0),
        item("w", &[ROWS as i64, COLUMNS as i64], 1),
    ];
    let context = context(2);
    save(&prefix, &items, &with_sidecar(), &mut Call::new(&context)).unwrap();
    let sound = std::fs::read(data(&prefix)).unwrap();
    let Value::Bytes(whole) = &items[1].value else {
        unreachable!()
    };
    let parts = [
        // Chunk, and rows and columns that lie in it.
        (0, ((0, 1), (0, 10))),
        (1, ((300, 1), (0, COLUMNS))),
        (2, ((500, 2), (1, 4998))),
        (3, ((699, 1), (4999, 1))),
    ];
    for (damaged, at) in [(0, 77), (1, MIB + 5), (2, 3 * MIB - 1), (3, 3 * MIB)] {
        let mut bytes = sound.clone();
        // Not where anything is delivered from.
        bytes[100 + at] ^= 0x10;
        std::fs::write(data(&prefix), &bytes).unwrap();
        let reader = Reader::open(&prefix).unwrap();
        for (chunk, (rows, columns)) in parts {
            let request = cut(rows, columns);
            let (got, _) = restored(&reader, &request, Verify::Fetched, &context);
            if chunk != damaged {
                assert_eq!(got.unwrap(), expected(whole, rows, columns).0);
                continue;
            }
            let error = got.unwrap_err();
            assert_eq!(error.code(), Code::DataLoss);
            assert_eq!(error.key(), Some(&b"w"[..]));
            assert_eq!(error.file(), Some(data(&prefix).as_path()));
            assert_eq!(error.offset(), Some((100 + chunk * MIB) as u64));
            assert!(
                error.message().contains("Checksum does not match"),
                "{error}"
            );
        }
    }
}

/// The key of some rows of a matrix in the index: TensorFlow's ordered code.
fn slice_key(name: &str, (start, length): (u8, u8)) -> Vec<u8> {
    let mut key = vec![0];
    key.extend(name.as_bytes());
    // End of the name, rank, rows, all columns.
    key.extend([0, 1, 1, 2, 0x80 | start, 0x80 | length, 0x80, 0x7f]);
    key
}

/// The format, written down once more: see `docs/sidecar.md`.
fn encoded(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mask = |crc: u32| crc.rotate_right(15).wrapping_add(0xa282_ead8);
    let crc = |bytes: &[u8]| mask(crc32c::crc32c(bytes)).to_le_bytes();
    let (mut records, mut sums, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (key, value) in entries {
        records.extend((keys.len() as u64).to_le_bytes());
        records.extend((sums.len() as u64 / 4).to_le_bytes());
        records.extend((value.len() as u64).to_le_bytes());
        records.extend((key.len() as u32).to_le_bytes());
        records.extend(crc(value));
        for chunk in value.chunks(MIB) {
            sums.extend(crc(chunk));
        }
        keys.extend(*key);
    }
    let mut file = b"\x89CRC32C\n".to_vec();
    file.extend(1u32.to_le_bytes());
    file.extend((MIB as u32).to_le_bytes());
    for number in [entries.len(), sums.len() / 4, keys.len()] {
        file.extend((number as u64).to_le_bytes());
    }
    for part in [records, sums, keys] {
        file.extend(part);
    }
    file.extend(crc(&file));
    file
}

#[test]
fn the_file_lists_what_is_larger_than_a_chunk_and_can_be_cut() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let rows = 4i64;
    let width = 700_000;
    let slice = |start: u8, length: u8, seed| {
        let mut item = item("p", &[length.into(), width], seed);
        item.spec = format!("{rows} {width} {start},{length}:-");
        item
    };
    let mut items = vec![
        item("z", &[MIB as i64 + 1], 1),
        slice(0, 3, 2),
        // Smaller than a chunk.
        slice(3, 1, 3),
        item("a", &[2 * MIB as i64], 4),
        item("small", &[MIB as i64], 5),
        item("none", &[0], 6),
        Item::new(
            "strings",
            DType::String,
            &[2],
            Value::Strings(vec![bytes(2 * MIB, 7), bytes(5, 8)]),
        ),
    ];
    items[1].device = "/job:a/task:1".into();
    items[3].device = "/job:a/task:2".into();
    let value = |index: usize| match &items[index].value {
        Value::Bytes(bytes) => bytes.as_slice(),
        Value::Strings(_) => unreachable!(),
    };
    let key = slice_key("p", (0, 3));
    let listed = [(&key[..], value(1)), (b"a", value(3)), (b"z", value(0))];
    for (shard_by_device, alignment) in [(false, 0), (false, 64), (true, 0)] {
        for budget in [0, 2 * MIB as u64] {
            let options = SaveOptions {
                shard_by_device,
                alignment,
                ..with_sidecar()
            };
            let context = context(2);
            let mut call = Call::new(&context);
            call.max_host_bytes = budget;
            save(&prefix, &items, &options, &mut call).unwrap();
            assert_eq!(std::fs::read(sidecar(&prefix)).unwrap(), encoded(&listed));
            let reader = Reader::open(&prefix).unwrap();
            assert!(verify(&reader, &context).unwrap().is_empty());
            // Across both slices; the smaller one is read whole.
            let request = Request {
                key: b"p".to_vec(),
                dtype: DType::Uint8,
                shape: Shape::new([2, 5]).unwrap(),
                spec: format!("{rows} {width} 2,2:699995,5"),
            };
            let (got, stats) = restored(&reader, &request, Verify::Fetched, &context);
            let from = |index: usize, row: usize| {
                let end = (row + 1) * width as usize;
                value(index)[end - 5..end].to_vec()
            };
            let want = [from(1, 2), from(2, 0)].concat();
            assert_eq!(got.unwrap(), Value::Bytes(want));
            assert_eq!((stats.bytes_unverified, stats.num_sidecar_ignored), (0, 0));
            assert_eq!(stats.bytes_verified_by_chunks, 3 * 700_000 - 2 * MIB as u64);
        }
    }
}

/// A checkpoint of one tensor `w` of two chunks with its sidecar.
fn two_chunks(prefix: &Path, seed: usize) -> Item {
    let tensor = item("w", &[MIB as i64 + 10], seed);
    let context = context(1);
    save(
        prefix,
        std::slice::from_ref(&tensor),
        &with_sidecar(),
        &mut Call::new(&context),
    )
    .unwrap();
    tensor
}

fn last_ten(tensor: &Item) -> Request {
    Request {
        shape: Shape::new([10]).unwrap(),
        spec: format!("{} {MIB},10", MIB + 10),
        ..tensor.request()
    }
}

/// Reads the last ten bytes, which have to be right, and returns whether they were verified; if not, it
/// has to be known that there is a sidecar that did not help.
fn reads(prefix: &Path, tensor: &Item, context: &Context) -> bool {
    let reader = Reader::open(prefix).unwrap();
    let (got, stats) = restored(&reader, &last_ten(tensor), Verify::Fetched, context);
    let Value::Bytes(whole) = &tensor.value else {
        unreachable!()
    };
    assert_eq!(got.unwrap(), Value::Bytes(whole[MIB..].to_vec()));
    let verified = (
        stats.bytes_verified_by_chunks,
        stats.bytes_unverified,
        stats.num_sidecar_ignored,
    );
    assert!([(10, 0, 0), (0, 10, 1)].contains(&verified), "{verified:?}");
    verified.0 > 0
}

#[test]
fn a_sidecar_with_any_bit_flipped_or_cut_anywhere_is_ignored_and_reported() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let tensor = two_chunks(&prefix, 1);
    let context = context(1);
    assert!(reads(&prefix, &tensor, &context));
    let sound = std::fs::read(sidecar(&prefix)).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..sound.len()).map(|len| sound[..len].to_vec()).collect();
    damaged.push([&sound[..], b"x"].concat());
    damaged.extend((0..sound.len() * 8).map(|bit| {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    }));
    for (number, damaged) in damaged.iter().enumerate() {
        std::fs::write(sidecar(&prefix), damaged).unwrap();
        assert!(!reads(&prefix, &tensor, &context), "{number}");
        if number % 8 == 0 {
            let reader = Reader::open(&prefix).unwrap();
            let found = super::support::verify(&reader, &context).unwrap();
            assert_eq!(found.len(), 1, "{number}");
            assert_eq!(found[0].file(), Some(sidecar(&prefix).as_path()));
        }
    }
}

/// Writes the checksum at the end of a sidecar.
pub fn repair(bytes: &mut [u8]) {
    if let Some(end) = bytes.len().checked_sub(4) {
        let crc = crc32c::crc32c(&bytes[..end]);
        let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
        bytes[end..].copy_from_slice(&masked.to_le_bytes());
    }
}

#[test]
fn a_sidecar_that_lies_behind_a_checksum_that_is_right_is_not_believed() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let tensor = two_chunks(&prefix, 1);
    let context = context(1);
    let sound = std::fs::read(sidecar(&prefix)).unwrap();
    for at in 0..sound.len() - 4 {
        for change in [0x01, 0x80, 0xff, sound[at]] {
            let mut changed = sound.clone();
            changed[at] ^= change;
            repair(&mut changed);
            std::fs::write(sidecar(&prefix), &changed).unwrap();
            assert_eq!(reads(&prefix, &tensor, &context), changed == sound, "{at}");
            let reader = Reader::open(&prefix).unwrap();
            let found = super::support::verify(&reader, &context).unwrap();
            assert_eq!(found.is_empty(), changed == sound, "{at}: {found:?}");
        }
    }
}

#[test]
fn a_sidecar_of_another_save_is_ignored_and_reported() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    two_chunks(&prefix, 1);
    let other = std::fs::read(sidecar(&prefix)).unwrap();
    let tensor = two_chunks(&prefix, 2);
    let context = context(1);
    // As a program leaves it that knows no sidecars.
    std::fs::write(sidecar(&prefix), &other).unwrap();
    assert!(!reads(&prefix, &tensor, &context));
    let reader = Reader::open(&prefix).unwrap();
    let found = verify(&reader, &context).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key(), Some(&b"w"[..]));
    assert!(
        found[0].message().contains("not the index's"),
        "{}",
        found[0]
    );
    // Something else of that name.
    std::fs::remove_file(sidecar(&prefix)).unwrap();
    std::fs::create_dir(sidecar(&prefix)).unwrap();
    assert!(!reads(&prefix, &tensor, &context));
}

#[test]
fn the_sidecar_goes_with_the_checkpoint() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let context = context(1);
    two_chunks(&prefix, 1);
    let files = ["m.crc32c", "m.data-00000-of-00001", "m.index"];
    assert_eq!(names(), files);
    two_chunks(&prefix, 2);
    assert_eq!(names(), files);
    let tensor = item("w", &[MIB as i64 + 10], 3);
    save(
        &prefix,
        std::slice::from_ref(&tensor),
        &quick(),
        &mut Call::new(&context),
    )
    .unwrap();
    assert_eq!(names(), files[1..]);
    two_chunks(&prefix, 1);
    assert!(tfckpt::checkpoint_exists(&prefix).unwrap());
    let error = Reader::open(&sidecar(&prefix)).unwrap_err();
    assert!(error.message().contains("not its prefix"), "{error}");
    tfckpt::remove_checkpoint(&prefix, &RemoveOptions::default()).unwrap();
    assert!(names().is_empty());
}

#[test]
fn what_has_the_name_of_a_sidecar_but_is_none_is_not_touched() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let context = context(1);
    let v1 = SaveOptions {
        format: Format::V1,
        ..quick()
    };
    let tensor = item("v", &[3], 1);
    let other = std::slice::from_ref(&tensor);
    save(&sidecar(&prefix), other, &v1, &mut Call::new(&context)).unwrap();
    let is_there = || Reader::open(&sidecar(&prefix)).unwrap().find(b"v").is_ok();
    save(&prefix, other, &quick(), &mut Call::new(&context)).unwrap();
    save(&prefix, other, &quick(), &mut Call::new(&context)).unwrap();
    assert!(is_there());
    let error = save(&prefix, other, &with_sidecar(), &mut Call::new(&context)).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(is_there());
    assert!(verify(&Reader::open(&prefix).unwrap(), &context).is_ok());
    tfckpt::remove_checkpoint(&prefix, &RemoveOptions::default()).unwrap();
    assert!(is_there());
}

#[test]
fn v1_has_no_sidecar() {
    let dir = temp_dir();
    let context = context(1);
    let options = SaveOptions {
        format: Format::V1,
        ..with_sidecar()
    };
    let items = [item("v", &[3], 1)];
    let error = save(
        &dir.path().join("m"),
        &items,
        &options,
        &mut Call::new(&context),
    )
    .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let options = SaverOptions {
        write_version: Format::V1,
        chunk_checksums: true,
        ..SaverOptions::default()
    };
    let error = Saver::new(vec![variable().into()], options).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The variable `w` of two chunks.
fn variable() -> Variable {
    Variable {
        key: b"w".to_vec(),
        variable_name: b"w".to_vec(),
        dtype: DType::Uint8,
        shape: None,
        slice_spec: String::new(),
        device_name: String::new(),
    }
}

#[test]
fn a_saver_writes_sidecars_and_deletes_them_with_their_checkpoints() {
    let dir = temp_dir();
    let context = context(1);
    let options = SaverOptions {
        max_to_keep: 1,
        chunk_checksums: true,
        ..SaverOptions::default()
    };
    let mut saver = Saver::new(vec![variable().into()], options).unwrap();
    for step in 1..=3 {
        let whole = bytes(MIB + 10, step);
        let value = SaveValue {
            shape: Shape::new([MIB as i64 + 10]).unwrap(),
            data: tfckpt::SaveData::Bytes(whole.as_slice().into()),
        };
        let options = SaverSaveOptions {
            global_step: Some(step as i64),
            no_sync: true,
            ..SaverSaveOptions::default()
        };
        saver
            .save(
                &dir.path().join("m"),
                vec![value],
                &options,
                &mut Call::new(&context),
            )
            .unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let files = [
        "checkpoint",
        "m-3.crc32c",
        "m-3.data-00000-of-00001",
        "m-3.index",
    ];
    assert_eq!(names, files);
    let latest = tfckpt::latest_checkpoint(dir.path(), Default::default()).unwrap();
    assert!(latest.prefix.ends_with("m-3"));
}

#[test]
fn a_merge_combines_the_sidecars_that_are_there() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let context = context(1);
    let items = [
        item("b", &[MIB as i64 + 1], 1),
        item("a", &[MIB as i64 + 2], 2),
        item("c", &[MIB as i64 + 3], 3),
        item("stale", &[MIB as i64 + 4], 4),
    ];
    let parts: Vec<PathBuf> = (0..4u32)
        .map(|shard| {
            let tensor = &items[shard as usize];
            let options = SaveOptions {
                chunk_checksums: shard != 2,
                ..quick()
            };
            let part = dir.path().join(format!("part-{shard}"));
            let tensor = std::slice::from_ref(tensor);
            save(&part, tensor, &options, &mut Call::new(&context)).unwrap();
            part
        })
        .collect();
    let value = |index: usize| match &items[index].value {
        Value::Bytes(bytes) => bytes.as_slice(),
        Value::Strings(_) => unreachable!(),
    };
    // Damaged, and of no tensor of its part but of one of another.
    std::fs::write(
        sidecar(&parts[3]),
        encoded(&[(b"a", value(1)), (b"stale", value(0))]),
    )
    .unwrap();
    let options = MergeOptions {
        no_sync: true,
        keep_parts: true,
        ..MergeOptions::default()
    };
    tfckpt::merge(&parts, &prefix, &options, &mut Call::new(&context)).unwrap();
    let expected = encoded(&[(b"a", value(1)), (b"b", value(0))]);
    assert_eq!(std::fs::read(sidecar(&prefix)).unwrap(), expected);
    assert!(
        verify(&Reader::open(&prefix).unwrap(), &context)
            .unwrap()
            .is_empty()
    );
    // Without any, none is left of the checkpoint before.
    for part in &parts {
        let _ = std::fs::remove_file(sidecar(part));
    }
    tfckpt::merge(&parts, &prefix, &options, &mut Call::new(&context)).unwrap();
    assert!(!sidecar(&prefix).exists());
    std::fs::write(sidecar(&parts[0]), "damaged").unwrap();
    let options = MergeOptions {
        no_sync: true,
        ..MergeOptions::default()
    };
    tfckpt::merge(&parts, &prefix, &options, &mut Call::new(&context)).unwrap();
    // The index and four data files; the parts are gone.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 5);
}

#[test]
fn shards_of_several_processes_have_sidecars_too() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let context = context(1);
    let values = [bytes(MIB + 5, 1), bytes(MIB + 6, 2)];
    let parts: Vec<PathBuf> = (0..2u32)
        .map(|shard| {
            let value = &values[shard as usize];
            let tensor = tfckpt::SaveTensor {
                key: [b"b", b"a"][shard as usize],
                dtype: DType::Uint8,
                shape: Shape::new([value.len() as i64]).unwrap(),
                slice_spec: "",
                device_name: "",
                data: tfckpt::SaveData::Bytes(value.as_slice().into()),
            };
            let mut call = Call::new(&context);
            tfckpt::save_shard(
                &prefix,
                shard,
                2,
                Some("7"),
                &[tensor],
                &with_sidecar(),
                &mut call,
            )
            .unwrap()
        })
        .collect();
    let options = MergeOptions {
        no_sync: true,
        ..MergeOptions::default()
    };
    tfckpt::merge(&parts, &prefix, &options, &mut Call::new(&context)).unwrap();
    let expected = encoded(&[(b"a", &values[1]), (b"b", &values[0])]);
    assert_eq!(std::fs::read(sidecar(&prefix)).unwrap(), expected);
    // Nothing is left of the parts' folder.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn a_reader_opened_before_an_overwrite_reads_on() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let tensor = two_chunks(&prefix, 1);
    let context = context(1);
    let reader = Reader::open(&prefix).unwrap();
    let other = two_chunks(&prefix, 2);
    // The data files are those it opened; the sidecar, opened only now, is not.
    let (got, stats) = restored(&reader, &last_ten(&tensor), Verify::Fetched, &context);
    let Value::Bytes(whole) = &tensor.value else {
        unreachable!()
    };
    assert_eq!(got.unwrap(), Value::Bytes(whole[MIB..].to_vec()));
    assert_eq!((stats.bytes_unverified, stats.num_sidecar_ignored), (10, 1));
    let reader = Reader::open(&prefix).unwrap();
    assert!(restore_one(&reader, &last_ten(&other), Verify::Fetched, &context).is_ok());
    tfckpt::remove_checkpoint(&prefix, &RemoveOptions::default()).unwrap();
    let (_, stats) = restored(&reader, &last_ten(&other), Verify::Fetched, &context);
    assert_eq!(
        (stats.bytes_verified_by_chunks, stats.num_sidecar_ignored),
        (10, 0)
    );
}

/// `xxd -g1`.
fn dump(bytes: &[u8]) -> String {
    let line = |(number, line): (usize, &[u8])| {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = line.iter().map(|&byte| match byte {
            b' '..=b'~' => byte as char,
            _ => '.',
        });
        let text: String = text.collect();
        format!("{:08x}: {:<47}  {text}\n", number * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

#[test]
fn the_page_on_the_format_shows_a_real_file() {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let page = std::fs::read_to_string(tests_dir().join("../docs/sidecar.md")).unwrap();
    let elements = vec![1.0f32; 3 * MIB / 4];
    let items = [
        Item::floats("dense/kernel", &[3, MIB as i64 / 4], &elements),
        Item::floats("dense/bias", &[1000], &elements[..1000]),
        item("steps", &[MIB as i64 + 1], 0),
    ];
    let mut items = items.to_vec();
    items[2].value = Value::Bytes((0..=MIB).map(|i| (i % 256) as u8).collect());
    let context = context(1);
    save(&prefix, &items, &with_sidecar(), &mut Call::new(&context)).unwrap();
    let dump = dump(&std::fs::read(sidecar(&prefix)).unwrap());
    assert!(page.contains(&dump), "the page should have\n{dump}");
}
