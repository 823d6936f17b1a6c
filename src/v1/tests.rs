//! Files that TensorFlow wrote, and damage to them.

use std::path::PathBuf;

use super::*;
use crate::dtype::DType;
use crate::error::{Code, Result};
use crate::memory::{ChunkBuffer, SourceSpan};
use crate::shape::Shape;
use crate::slices::TensorSlice;

/// `w` float [[1,2],[3,4]] and `b` int64 7.
const TWO_TENSORS: &str = "
0000280a260a090a01621200180922000a150a017712081202080212020802180122040a000a0012
02080100050c0062000100120a0a016212001a0352010701091f7700010102807f807f121d0a0177
12040a000a001a122a100000803f00000040000040400000804000000000010000000005810d2800
0000000100000000c0f2a1b000010201007200000000010000000038907b88770884010e00000000
0000000000000000000000000000000000000000000000000000000000000057fb808b247547db";

/// `x` [4,6] in two slices of rows.
const TWO_SLICES: &str = "
0000290a270a210a017812081202080412020806180122060a0210020a0022080a04080210020a00
12020801000a410078000101028082807f123f0a017812060a0210020a001a322a30000000000000
803f0000004000004040000080400000a0400000c0400000e0400000004100001041000020410000
30410604438282807f12410a017812080a04080210020a001a322a30000040410000504100006041
00007041000080410000884100009041000098410000a0410000a8410000b0410000b84100000000
01000000008028ea08000000000100000000c0f2a1b00001030100cc0100000000010000000038d4
b36fd10108de010f0000000000000000000000000000000000000000000000000000000000000000
000057fb808b247547db";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn write(tensors: &[TensorToWrite<'_>], buffer: usize) -> Result<Vec<u8>> {
    for tensor in tensors {
        tensor.check()?;
    }
    let mut buffer = ChunkBuffer::new(buffer).unwrap();
    Plan::new(tensors).write(Vec::new(), &mut buffer, &mut |_| Ok(()))
}

fn tensor<'a>(
    name: &'a [u8],
    dtype: DType,
    shape: &[i64],
    slice: &str,
    memory: &'a [u8],
) -> TensorToWrite<'a> {
    let slice = match slice {
        "" => TensorSlice::full(shape.len()),
        text => TensorSlice::parse(text).unwrap(),
    };
    TensorToWrite {
        name,
        dtype,
        shape: Shape::new(shape).unwrap(),
        slice,
        values: Values::Bytes(SourceSpan::from(memory)),
    }
}

fn floats(values: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let values = values.into_iter();
    values.flat_map(|v| f32::from(v).to_le_bytes()).collect()
}

/// Everything that a file says, or why it cannot be read.
#[derive(Debug, PartialEq)]
struct Content(Vec<Stored>);

/// Name, dtype, full shape, slice and values.
type Stored = (Vec<u8>, DType, Shape, String, Vec<u8>);

struct Collect(Vec<u8>);

impl Sink for Collect {
    fn next(&self, place: u64) -> u64 {
        place
    }

    fn tick(&mut self) -> Result<()> {
        Ok(())
    }

    fn take(&mut self, _: u64, bytes: &[u8]) -> Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn read(bytes: &[u8], limit: u64) -> Result<Content> {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("v1");
    std::fs::write(&path, bytes).unwrap();
    let reader = V1Reader::open(&path, std::slice::from_ref(&path))?;
    let mut records = reader.records(limit);
    let mut content = Vec::new();
    for (name, tensor) in reader.tensors() {
        let tensor = tensor?;
        for (slice, shard) in &tensor.slices {
            let mut sink = Collect(Vec::new());
            records.read(name, tensor, (slice, *shard), true, &mut sink)?;
            let dtype = tensor.dtype()?;
            content.push((
                name.to_vec(),
                dtype,
                tensor.shape.clone(),
                slice.to_string(),
                sink.0,
            ));
        }
    }
    Ok(Content(content))
}

#[test]
fn the_bytes_are_those_of_tensorflow() {
    let (w, b) = (floats(1..5), 7i64.to_le_bytes());
    let tensors = [
        tensor(b"w", DType::Float, &[2, 2], "", &w),
        tensor(b"b", DType::Int64, &[], "", &b),
    ];
    assert_eq!(write(&tensors, 1 << 16).unwrap(), hex(TWO_TENSORS));
    let (top, bottom) = (floats(0..12), floats(12..24));
    let slices = [
        tensor(b"x", DType::Float, &[4, 6], "0,2:-", &top),
        tensor(b"x", DType::Float, &[4, 6], "2,2:-", &bottom),
    ];
    assert_eq!(write(&slices, 1 << 16).unwrap(), hex(TWO_SLICES));
    assert_eq!(read(&hex(TWO_SLICES), 1 << 20).unwrap().0.len(), 2);
}

#[test]
fn any_flipped_bit_and_any_missing_end_is_an_error_or_harmless() {
    for file in [TWO_TENSORS, TWO_SLICES] {
        let sound = hex(file);
        // Held in memory, and walked in the file.
        for limit in [1 << 20, 16] {
            let content = read(&sound, limit).unwrap();
            for byte in 0..sound.len() {
                for bit in 0..8 {
                    let mut damaged = sound.clone();
                    damaged[byte] ^= 1 << bit;
                    if let Ok(read) = read(&damaged, limit) {
                        assert_eq!(read, content, "byte {byte} bit {bit}");
                    }
                }
            }
            for len in 0..sound.len() {
                assert!(read(&sound[..len], limit).is_err(), "{len} bytes");
            }
        }
    }
}

#[test]
fn a_large_record_is_streamed_and_reads_the_same_held_or_not() {
    let floats: Vec<u8> = (0..1u32 << 18).flat_map(|v| v.to_le_bytes()).collect();
    let small: Vec<u8> = (0..1u32 << 20).map(|v| v.to_le_bytes()[0]).collect();
    let tensors = [
        tensor(b"f", DType::Float, &[1 << 18], "", &floats),
        tensor(b"i", DType::Int8, &[1 << 20], "", &small),
        tensor(b"n", DType::Int32, &[1 << 18], "", &floats),
        tensor(b"o", DType::Bool, &[], "", &[1]),
    ];
    let bytes = write(&tensors, 1 << 16).unwrap();
    assert_eq!(bytes, write(&tensors, 1 << 20).unwrap());
    for limit in [1 << 10, 1 << 16, 1 << 26] {
        let content = read(&bytes, limit).unwrap();
        let values: Vec<&[u8]> = content.0.iter().map(|part| part.4.as_slice()).collect();
        assert_eq!(values, [&floats[..], &small, &floats, &[1]], "{limit}");
    }
    let mut damaged = bytes;
    damaged[1 << 19] ^= 1;
    let error = read(&damaged, 1 << 16).unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::DataLoss, "block checksum mismatch")
    );
}

#[test]
fn what_the_format_cannot_hold_is_refused_in_tensorflows_words() {
    let eight = [0; 8];
    for (dtype, shape, code, message) in [
        (
            DType::Bfloat16,
            vec![4],
            Code::Unimplemented,
            "Saving data type bfloat16 not yet supported",
        ),
        (
            DType::Uint64,
            vec![1],
            Code::InvalidArgument,
            "Tensor slice serialization not implemented for dtype 23",
        ),
        (
            DType::Int8,
            vec![1 << 28],
            Code::InvalidArgument,
            "Tensor slice is too large to serialize (conservative estimate: 2684355591 bytes)",
        ),
    ] {
        let error = tensor(b"x", dtype, &shape, "", &eight).check().unwrap_err();
        assert_eq!((error.code(), error.message()), (code, message));
    }
    let error = tensor(b"\xff", DType::Bool, &[8], "", &eight)
        .check()
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[test]
fn impossible_tensors_are_damage_of_theirs_alone() {
    use crate::proto::{SavedSliceMeta, TensorShapeProto, tensor_shape_proto::Dim};
    use prost::Message;

    let meta = |name: &[u8], dtype: i32, dim: i64| SavedSliceMeta {
        name: name.to_vec(),
        shape: Some(TensorShapeProto {
            dim: vec![Dim {
                size: dim,
                name: String::new(),
            }],
            unknown_rank: false,
        }),
        r#type: dtype,
        slice: vec![crate::slices::proto::encode(&TensorSlice::full(1))],
    };
    let open = |tensors: Vec<SavedSliceMeta>| {
        let meta = crate::proto::SavedTensorSliceMeta {
            tensor: tensors,
            versions: None,
        };
        let mut value = vec![0x0a];
        crate::coding::put_varint(&mut value, meta.encoded_len() as u64);
        meta.encode_raw(&mut value);
        let mut table = crate::table::TableBuilder::new(Vec::new());
        table.add(b"", &value).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v1");
        std::fs::write(&path, table.finish().unwrap()).unwrap();
        V1Reader::open(&path, std::slice::from_ref(&path))
    };
    let tensors = vec![meta(b"a", 99, 1), meta(b"b", 1, 1 << 40), meta(b"c", 1, 2)];
    let reader = open(tensors).unwrap();
    for name in [b"a", b"b"] {
        assert_eq!(reader.tensor(name).unwrap_err().code(), Code::DataLoss);
    }
    let tensor = reader.tensor(b"c").unwrap();
    let (slice, shard) = &tensor.slices[0];
    let mut sink = Collect(Vec::new());
    let mut records = reader.records(1 << 20);
    let read = records.read(b"c", tensor, (slice, *shard), true, &mut sink);
    assert_eq!(read.unwrap_err().code(), Code::DataLoss);
    // What TensorFlow refuses as a whole.
    for tensors in [
        vec![meta(b"a", 1, 2), meta(b"a", 1, 3)],
        vec![meta(b"a", 1, 2), meta(b"a", 2, 2)],
        vec![meta(b"a", 1, 2), meta(b"a", 1, 2)],
        vec![meta(b"a", 1, -2)],
    ] {
        assert_eq!(open(tensors).unwrap_err().code(), Code::Internal);
    }
}
