//! The first record of a file: what tensors there are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use prost::Message;
use smallvec::SmallVec;

use super::wire::{BYTES, Stream, malformed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::proto::tensor_shape_proto::Dim;
use crate::proto::{SavedSliceMeta, TensorShapeProto, VersionDef};
use crate::shape::Shape;
use crate::slices::{self, SliceSet, TensorSlice};

/// Field of `SavedTensorSlices` with the names, and of a meta with a tensor.
pub const META: u64 = 1;
/// Field of `SavedTensorSlices` with the values of a slice.
pub const DATA: u64 = 2;
/// Field of a meta with the versions.
const VERSIONS: u64 = 2;

/// Version that this library reads and writes; part of the persistent format.
pub const VERSION: i32 = 1;

/// What the files of a checkpoint say of one tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Shape of the full tensor.
    pub shape: Shape,
    /// The slices, each with the number of its file.
    pub slices: Vec<(TensorSlice, usize)>,
    dtype: i32,
}

impl Tensor {
    /// Data type of the elements.
    ///
    /// # Errors
    ///
    /// DATA_LOSS for a number that stands for none.
    pub fn dtype(&self) -> Result<DType> {
        DType::from_number(self.dtype)
            .ok_or_else(|| Error::data_loss(format!("unknown data type; dtype={}", self.dtype)))
    }

    /// The slices as a set; no two overlap.
    ///
    /// # Errors
    ///
    /// None beyond those that opening has found already.
    pub fn slice_set(&self) -> Result<SliceSet> {
        let slices: Vec<TensorSlice> = self.slices.iter().map(|(slice, _)| slice.clone()).collect();
        SliceSet::new(&self.shape, &slices)
    }

    /// Whether it is stored in one piece.
    pub fn is_whole(&self) -> bool {
        matches!(self.slices.as_slice(), [(slice, _)] if *slice == TensorSlice::full(self.shape.rank()))
    }
}

/// Tensors by name.
pub type Tensors = BTreeMap<Vec<u8>, Tensor>;

/// Adds what the first record of file number `shard` says to `tensors`.
///
/// # Errors
///
/// DATA_LOSS if it is malformed; INTERNAL, with TensorFlow's texts, if files or slices contradict each
/// other; INVALID_ARGUMENT if its version says that this library must not read it.
pub fn read(stream: &mut Stream<'_>, shard: usize, tensors: &mut Tensors) -> Result<()> {
    let mut found = false;
    let size = stream.size();
    while let Some(field) = stream.field(size)? {
        if field.number != META || field.wire != BYTES {
            stream.skip(field, size)?;
            continue;
        }
        found = true;
        while let Some(inner) = stream.field(field.end)? {
            match (inner.number, inner.wire) {
                (META, BYTES) => {
                    let bytes = message(stream, inner.end)?;
                    let proto =
                        SavedSliceMeta::decode(bytes.as_slice()).map_err(|_| malformed())?;
                    add(proto, shard, tensors)?;
                }
                (VERSIONS, BYTES) => {
                    let bytes = message(stream, inner.end)?;
                    let proto = VersionDef::decode(bytes.as_slice()).map_err(|_| malformed())?;
                    proto.check_consumer(VERSION)?;
                }
                _ => stream.skip(inner, field.end)?,
            }
        }
    }
    if found { Ok(()) } else { Err(malformed()) }
}

/// The bytes up to `end`, which lies inside the value.
fn message(stream: &mut Stream<'_>, end: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while stream.at() < end {
        let piece = stream.peek(end)?;
        if piece.is_empty() {
            return Err(malformed());
        }
        bytes.extend_from_slice(piece);
        let len = piece.len() as u64;
        stream.skip_to(stream.at() + len);
    }
    Ok(bytes)
}

fn add(proto: SavedSliceMeta, shard: usize, tensors: &mut Tensors) -> Result<()> {
    let dims = proto.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    let dims: SmallVec<[i64; 4]> = dims.iter().map(|dim| dim.size).collect();
    let shape = Shape::new(dims).map_err(|error| {
        error
            .with_code(crate::error::Code::DataLoss)
            .with_key(&proto.name)
    })?;
    // Without slices TensorFlow does not take notice of it.
    for slice in &proto.slice {
        let slice = slices::proto::decode(slice).map_err(|error| error.with_key(&proto.name))?;
        slice
            .bounds(&shape)
            .map_err(|error| error.with_key(&proto.name))?;
        match tensors.entry(proto.name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Tensor {
                    shape: shape.clone(),
                    slices: vec![(slice, shard)],
                    dtype: proto.r#type,
                });
            }
            Entry::Occupied(mut entry) => {
                let tensor = entry.get_mut();
                let name = String::from_utf8_lossy(&proto.name);
                if tensor.shape != shape {
                    return Err(Error::internal(format!(
                        "Incompatible tensor shapes detected for tensor {name}: existing = {}, new = \
                         {shape}",
                        tensor.shape
                    )));
                }
                if tensor.dtype != proto.r#type {
                    let text = |number: i32| {
                        DType::from_number(number)
                            .map_or_else(|| number.to_string(), |dtype| dtype.to_string())
                    };
                    return Err(Error::internal(format!(
                        "Incompatible tensor types detected for tensor {name}: existing = {}, new = {}",
                        text(tensor.dtype),
                        text(proto.r#type)
                    )));
                }
                tensor.slices.push((slice, shard));
            }
        }
    }
    Ok(())
}

/// Checks that the slices of each tensor fit together. To be called when all files have been read.
///
/// # Errors
///
/// INTERNAL with TensorFlow's text.
pub fn check(tensors: &Tensors) -> Result<()> {
    for (name, tensor) in tensors {
        if tensor.slices.len() > 1 {
            tensor.slice_set().map_err(|error| error.with_key(name))?;
        }
    }
    Ok(())
}

/// The value of the first record for tensors in the order of their names, each with its slices.
pub fn encode<'a>(
    tensors: impl Iterator<Item = (&'a [u8], DType, &'a Shape, Vec<&'a TensorSlice>)>,
) -> Vec<u8> {
    let tensor = tensors.map(|(name, dtype, shape, slices)| SavedSliceMeta {
        name: name.to_owned(),
        shape: Some(encode_shape(shape)),
        r#type: dtype as i32,
        slice: slices.into_iter().map(slices::proto::encode).collect(),
    });
    let meta = crate::proto::SavedTensorSliceMeta {
        tensor: tensor.collect(),
        versions: Some(VersionDef {
            producer: VERSION,
            ..VersionDef::default()
        }),
    };
    let mut value = vec![u8::try_from(META << 3 | BYTES).unwrap_or_default()];
    crate::coding::put_varint(&mut value, meta.encoded_len() as u64);
    meta.encode_raw(&mut value);
    value
}

fn encode_shape(shape: &Shape) -> TensorShapeProto {
    let dims = shape.dims().iter();
    TensorShapeProto {
        dim: dims
            .map(|&size| Dim {
                size,
                name: String::new(),
            })
            .collect(),
        unknown_rank: false,
    }
}
