//! What the fuzz targets do with their bytes. Included by `tests/fuzz` too; `fuzz_corpora` runs the
//! committed inputs without a fuzzer.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use tfckpt::{Call, CheckpointState, Code, Context, Error, ObjectGraph, Reader, Shape, Verify};

use super::naive;
use super::support::{
    self, Item, Request, VERIFY_MODES, Value, list, quick, restore_one, temp_dir,
};

/// No malformed file may make the library fault itself.
fn check_error(error: &Error) {
    let code = error.code();
    assert!(
        code != Code::Internal && code != Code::Unknown,
        "{code}: {error}"
    );
    assert!(!error.message().contains('\n'), "{error}");
}

/// Bytes of the data file that every index refers to.
const DATA_SIZE: usize = 4096;

/// Most bytes of a tensor that is restored.
const MAX_TENSOR: u64 = 1 << 20;

/// An index of any bytes, its checksums put right: opened, listed, restored, verified.
pub fn index(bytes: &[u8]) {
    let dir = temp_dir();
    let prefix = dir.path().join("m");
    let data: Vec<u8> = (0..DATA_SIZE).map(|i| (i % 251) as u8).collect();
    std::fs::write(dir.path().join("m.data-00000-of-00001"), data).unwrap();
    let mut bytes = bytes.to_vec();
    repair(&mut bytes);
    std::fs::write(dir.path().join("m.index"), bytes).unwrap();
    let context = support::context(1);
    read_all(&prefix, &context, check_error);
}

/// A file of format V1 of any bytes, its checksums put right: as [`index`].
pub fn v1(bytes: &[u8]) {
    let dir = temp_dir();
    let path = dir.path().join("m");
    let mut bytes = bytes.to_vec();
    repair(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    read_all(&path, &support::context(1), check_v1_error);
}

/// As [`check_error`], but for what TensorFlow calls INTERNAL in such files.
fn check_v1_error(error: &Error) {
    let texts = [
        "Failed to find the saved tensor slices",
        "Incompatible tensor",
        "Overlapping slices",
        "Extent in dimension",
        "Mismatching ranks",
    ];
    if error.code() != Code::Internal || !texts.iter().any(|text| error.message().starts_with(text))
    {
        check_error(error);
    }
}

/// Opens, lists, restores in every mode, verifies.
fn read_all(prefix: &Path, context: &Context, check_error: fn(&Error)) {
    let reader = match Reader::open(prefix) {
        Ok(reader) => reader,
        Err(error) => return check_error(&error),
    };
    let (entries, ended) = list(&reader);
    ended.iter().for_each(check_error);
    for (key, info) in entries {
        let info = match info {
            Ok(info) => info,
            Err(error) => {
                check_error(&error);
                continue;
            }
        };
        assert_eq!(info.key, key);
        let size = info.dtype.size();
        let size = size.map_or(Some(0), |size| info.shape.byte_size(size));
        if size.is_none_or(|size| size > MAX_TENSOR) {
            continue;
        }
        for mode in VERIFY_MODES {
            if let Err(error) = restore_one(&reader, &Request::whole(&info), mode, context) {
                check_error(&error);
            }
        }
    }
    let mut call = Call::new(context);
    if let Err(error) = reader.verify(&mut |error| check_error(&error), &mut call) {
        check_error(&error);
    }
}

/// Writes magic number, canonical footer and the checksums of all blocks that can be found, so that
/// what lies behind the checksums is reached.
fn repair(bytes: &mut [u8]) {
    const FOOTER: usize = 48;
    const MAGIC: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();
    let Some(start) = bytes.len().checked_sub(FOOTER) else {
        return;
    };
    let Some((metaindex, rest)) = handle(&bytes[start..]) else {
        return;
    };
    let Some((index, _)) = handle(rest) else {
        return;
    };
    let mut footer = Vec::new();
    for number in [metaindex.0, metaindex.1, index.0, index.1] {
        put_varint(&mut footer, number);
    }
    footer.resize(FOOTER - MAGIC.len(), 0);
    footer.extend(MAGIC);
    bytes[start..].copy_from_slice(&footer);
    repair_block(bytes, metaindex);
    if let Some(block) = repair_block(bytes, index) {
        // Entries: shared, unshared and value length, rest of the key, value.
        let block = bytes[block].to_vec();
        let mut rest = &block[..];
        while let Some((_, after)) = varint(rest)
            && let Some((unshared, after)) = varint(after)
            && let Some((length, after)) = varint(after)
            && let Some(value) = usize::try_from(unshared)
                .ok()
                .and_then(|len| after.get(len..))
            && let Some((handle, _)) = handle(value)
        {
            repair_block(bytes, handle);
            rest = usize::try_from(length)
                .ok()
                .and_then(|len| value.get(len..))
                .unwrap_or_default();
        }
    }
}

/// Writes a block's checksum and returns where the block is, if it is inside of the file.
fn repair_block(bytes: &mut [u8], (offset, size): (u64, u64)) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    let crc_at = end.checked_add(1)?;
    if crc_at.checked_add(4)? > bytes.len() {
        return None;
    }
    let crc = crc32c::crc32c(&bytes[start..crc_at]);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    bytes[crc_at..crc_at + 4].copy_from_slice(&masked.to_le_bytes());
    Some(start..end)
}

fn handle(bytes: &[u8]) -> Option<((u64, u64), &[u8])> {
    let (offset, rest) = varint(bytes)?;
    let (size, rest) = varint(rest)?;
    Some(((offset, size), rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte < 0x80 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of the tensors `v` and `w`, beside which [`sidecar`] puts its bytes.
const SIDECAR_TENSORS: [(&str, i64); 2] = [("v", (1 << 20) + 1), ("w", (2 << 20) + 100)];

/// A checkpoint of these.
struct Chunked {
    prefix: PathBuf,
    items: Vec<Item>,
    context: Context,
    _dir: tempfile::TempDir,
}

/// It, for one user at a time.
fn chunked() -> &'static Mutex<Chunked> {
    static CHUNKED: OnceLock<Mutex<Chunked>> = OnceLock::new();
    CHUNKED.get_or_init(|| {
        let dir = temp_dir();
        let prefix = dir.path().join("m");
        let items = SIDECAR_TENSORS.map(|(key, len)| {
            let bytes = (0..len).map(|i| (i % 251) as u8).collect();
            Item::new(key, tfckpt::DType::Uint8, &[len], Value::Bytes(bytes))
        });
        let context = support::context(1);
        support::save(&prefix, &items, &quick(), &mut Call::new(&context)).unwrap();
        Mutex::new(Chunked {
            prefix,
            items: items.to_vec(),
            context,
            _dir: dir,
        })
    })
}

/// A sidecar of any bytes, its own checksum put right, beside a checkpoint that is sound: it changes
/// nothing about what is read.
pub fn sidecar(bytes: &[u8]) {
    let chunked = chunked().lock();
    let chunked = chunked.unwrap_or_else(std::sync::PoisonError::into_inner);
    let Chunked {
        prefix,
        items,
        context,
        ..
    } = &*chunked;
    let mut path = prefix.as_os_str().to_owned();
    path.push(".crc32c");
    let mut bytes = bytes.to_vec();
    if let Some(end) = bytes.len().checked_sub(4) {
        let masked = crc32c::crc32c(&bytes[..end]).rotate_right(15);
        let masked = masked.wrapping_add(0xa282_ead8);
        bytes[end..].copy_from_slice(&masked.to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
    let reader = Reader::open(prefix).unwrap();
    for item in items {
        let Value::Bytes(whole) = &item.value else {
            continue;
        };
        let request = Request {
            shape: Shape::new([20]).unwrap(),
            spec: format!("{} {},20", whole.len(), (1 << 20) - 19),
            ..item.request()
        };
        let got = restore_one(&reader, &request, Verify::Fetched, context).unwrap();
        let from = (1 << 20) - 19;
        assert_eq!(got, Value::Bytes(whole[from..from + 20].to_vec()));
    }
    for error in support::verify(&reader, context).unwrap() {
        check_error(&error);
        assert!(
            [Code::DataLoss, Code::Unimplemented].contains(&error.code()),
            "{error}"
        );
    }
}

/// A state file of any bytes: what is read prints to a text that reads and prints the same.
pub fn checkpoint_state(bytes: &[u8]) {
    match CheckpointState::parse(bytes) {
        Ok(state) => {
            let text = state.to_text();
            let again = CheckpointState::parse(text.as_bytes()).expect("our own text");
            // Texts, because a NaN differs from itself.
            assert_eq!(again.to_text(), text);
            assert_eq!(again.model_checkpoint_path, state.model_checkpoint_path);
            assert_eq!(
                again.all_model_checkpoint_paths,
                state.all_model_checkpoint_paths
            );
        }
        Err(error) => {
            assert_eq!(error.code(), Code::DataLoss, "{error}");
            assert!(!error.message().contains('\n'), "{error}");
        }
    }
}

/// The dimensions of the tensors that [`slice_spec`] cuts.
const DIMS: [i64; 2] = [4, 6];

/// A checkpoint of one tensor stored whole, `w`, and one stored in four slices, `p`.
fn sliced() -> &'static (tempfile::TempDir, PathBuf, Value, Context) {
    static SLICED: OnceLock<(tempfile::TempDir, PathBuf, Value, Context)> = OnceLock::new();
    SLICED.get_or_init(|| {
        let dir = temp_dir();
        let prefix = dir.path().join("m");
        let elements: Vec<f32> = (0..24u8).map(f32::from).collect();
        let whole = Item::floats("w", &DIMS, &elements);
        let value = whole.value.clone();
        let mut items = vec![whole];
        for (top, left, width) in [(0, 0, 4), (0, 4, 2), (2, 0, 4), (2, 4, 2)] {
            let cut = vec![(top, 2), (left, width)];
            items.push(Item {
                key: b"p".to_vec(),
                shape: Shape::new([2, width as i64]).unwrap(),
                spec: format!("4 6 {top},2:{left},{width}"),
                value: naive::take(&value, 4, &[4, 6], &cut),
                ..items[0].clone()
            });
        }
        let context = support::context(1);
        support::save(&prefix, &items, &quick(), &mut Call::new(&context)).unwrap();
        (dir, prefix, value, context)
    })
}

/// A `shape_and_slice` string of any bytes, compared with a naive reading of it.
pub fn slice_spec(bytes: &[u8]) {
    let Ok(spec) = std::str::from_utf8(bytes) else {
        return;
    };
    let (_, prefix, value, context) = sliced();
    let expected = if spec.is_empty() {
        Some((DIMS.to_vec(), vec![(0, 4), (0, 6)]))
    } else {
        naive::parse_spec(spec)
    };
    let cut = expected
        .filter(|(dims, _)| *dims == DIMS)
        .map(|(_, cut)| cut);
    let dims: Vec<i64> = match &cut {
        Some(cut) => cut.iter().map(|&(_, length)| length as i64).collect(),
        None => DIMS.to_vec(),
    };
    let reader = Reader::open(prefix).unwrap();
    for key in [b"w", b"p"] {
        let request = Request {
            key: key.to_vec(),
            dtype: tfckpt::DType::Float,
            shape: Shape::new(dims.clone()).unwrap(),
            spec: spec.to_owned(),
        };
        match (restore_one(&reader, &request, Verify::Full, context), &cut) {
            (Ok(got), Some(cut)) => assert_eq!(got, naive::take(value, 4, &[4, 6], cut)),
            (Err(error), None) => assert!(
                // TensorFlow has INTERNAL for a slice that leaves its tensor.
                [Code::InvalidArgument, Code::Internal].contains(&error.code()),
                "{error}"
            ),
            (got, cut) => panic!("{spec:?} should give {cut:?}, gives {got:?}"),
        }
    }
}

/// An object graph of any bytes: parsed, and asked for every name and path that it has.
pub fn object_graph(bytes: &[u8]) {
    let graph = match ObjectGraph::parse(bytes) {
        Ok(graph) => graph,
        Err(error) => {
            assert_eq!(error.code(), Code::DataLoss, "{error}");
            return check_error(&error);
        }
    };
    let tensors: Vec<_> = graph.tensors().collect();
    assert_eq!(tensors.len(), graph.num_tensors());
    for (i, tensor) in tensors.iter().enumerate() {
        // Of one name the last counts.
        let mut rest = tensors[i..].iter().rev();
        let last = rest.find(|other| other.full_name == tensor.full_name);
        let found = graph.key_of_name(tensor.full_name.as_bytes());
        assert_eq!(found, last.map(|last| last.key));
        if let Some(path) = graph.path(i) {
            // It may lead elsewhere, two children having one name, but it ends.
            graph.key_of_path(&path);
            graph.key_of_path(&format!(
                "{path}/.OPTIMIZER_SLOT/{path}/{}",
                tensor.full_name
            ));
        }
    }
    let names: Vec<_> = graph.names().map(|tensor| tensor.full_name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    let wanted = names.iter().map(|name| name.as_bytes());
    assert!(graph.mismatch(wanted).is_none());
}
