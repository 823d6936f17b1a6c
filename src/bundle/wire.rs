//! The fields of an entry as they are stored.
//!
//! Nearly all entries are of tensors in one place, and an index may have a million of them: these are
//! read and written by hand, which takes no allocation. What is not in the one form that protobuf writes
//! is left to the general decoder, so that both accept the same bytes.

#![forbid(unsafe_code)]

use prost::Message;
use smallvec::SmallVec;

use crate::coding::{get_fixed32, get_varint64, put_varint, varint_len};
use crate::proto::{BundleEntryProto, TensorSliceProto};

/// Tags of `BundleEntryProto`: number and wire type. Part of the persistent format; can never change.
const DTYPE: u8 = 0x08;
const SHAPE: u8 = 0x12;
const SHARD_ID: u8 = 0x18;
const OFFSET: u8 = 0x20;
const SIZE: u8 = 0x28;
const CRC32C: u8 = 0x35;
/// Tag of a dimension in `TensorShapeProto`, and of its size.
const DIM: u8 = 0x12;
const DIM_SIZE: u8 = 0x08;

/// The fields, unchecked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    pub dtype: i32,
    pub dims: SmallVec<[i64; 4]>,
    pub shard_id: i32,
    pub offset: i64,
    pub size: i64,
    /// Masked.
    pub crc32c: u32,
    pub slices: Vec<TensorSliceProto>,
}

impl Fields {
    /// Decodes an entry; `None` if it is no such message.
    #[inline]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Self::default();
        match fields.set_plain(value) {
            Some(()) => Some(fields),
            None => Self::decode_any(value),
        }
    }

    /// Decodes an entry in the form that [`put_plain`](Self::put_plain) writes into fields that have their
    /// default: moving them about took as long as decoding them.
    #[inline]
    fn set_plain(&mut self, value: &[u8]) -> Option<()> {
        let (dtype, mut rest) = number(value, DTYPE)?;
        if let Some((&SHAPE, shape)) = rest.split_first() {
            let (mut shape, behind) = delimited(shape)?;
            while let Some((&tag, dim)) = shape.split_first() {
                let (dim, next) = delimited(dim).filter(|_| tag == DIM)?;
                let (size, unknown) = number(dim, DIM_SIZE)?;
                if !unknown.is_empty() {
                    return None;
                }
                self.dims.push(i64::try_from(size).ok()?);
                shape = next;
            }
            rest = behind;
        }
        let (shard_id, rest) = number(rest, SHARD_ID)?;
        let (offset, rest) = number(rest, OFFSET)?;
        let (size, mut rest) = number(rest, SIZE)?;
        if let Some((&CRC32C, crc)) = rest.split_first() {
            (self.crc32c, rest) = get_fixed32(crc)?;
        }
        self.dtype = i32::try_from(dtype).ok()?;
        self.shard_id = i32::try_from(shard_id).ok()?;
        self.offset = i64::try_from(offset).ok()?;
        self.size = i64::try_from(size).ok()?;
        rest.is_empty().then_some(())
    }

    #[cfg(test)]
    fn decode_plain(value: &[u8]) -> Option<Self> {
        let mut fields = Self::default();
        fields.set_plain(value).map(|()| fields)
    }

    fn decode_any(value: &[u8]) -> Option<Self> {
        let proto = BundleEntryProto::decode(value).ok()?;
        let dims = proto.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
        Some(Self {
            dtype: proto.dtype,
            dims: dims.iter().map(|dim| dim.size).collect(),
            shard_id: proto.shard_id,
            offset: proto.offset,
            size: proto.size,
            crc32c: proto.crc32c,
            slices: proto.slices,
        })
    }

    /// Appends the entry of a tensor in one place, equal to what TensorFlow's protobuf writes: fields in
    /// their order, zeros left out.
    pub fn put_plain(
        out: &mut Vec<u8>,
        dtype: i32,
        dims: &[i64],
        [shard_id, offset, size]: [i64; 3],
        crc32c: u32,
    ) {
        // A dimension has at most 11 bytes, so its length has one.
        let dim_len = |&dim: &i64| number_len(dim);
        put_number(out, DTYPE, dtype.into());
        out.push(SHAPE);
        put_varint(out, dims.iter().map(|dim| 2 + dim_len(dim) as u64).sum());
        for dim in dims {
            out.push(DIM);
            put_varint(out, dim_len(dim) as u64);
            put_number(out, DIM_SIZE, *dim);
        }
        put_number(out, SHARD_ID, shard_id);
        put_number(out, OFFSET, offset);
        put_number(out, SIZE, size);
        if crc32c != 0 {
            out.push(CRC32C);
            out.extend(crc32c.to_le_bytes());
        }
    }
}

/// The number behind `tag`, 0 if another tag or nothing follows.
#[inline]
fn number(bytes: &[u8], tag: u8) -> Option<(u64, &[u8])> {
    match bytes.split_first() {
        Some((&first, rest)) if first == tag => get_varint64(rest),
        _ => Some((0, bytes)),
    }
}

/// The bytes behind their length, and what follows them.
fn delimited(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = get_varint64(bytes)?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

fn put_number(out: &mut Vec<u8>, tag: u8, value: i64) {
    if value != 0 {
        out.push(tag);
        put_varint(out, value.cast_unsigned());
    }
}

/// Bytes that [`put_number`] writes.
fn number_len(value: i64) -> usize {
    match value {
        0 => 0,
        _ => 1 + varint_len(value.cast_unsigned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::TensorShapeProto;
    use crate::proto::tensor_shape_proto::Dim;
    use proptest::prelude::*;

    fn any_number() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0), 0..300i64, any::<i64>()]
    }

    proptest! {
        #[test]
        fn the_plain_form_is_protobufs(
            dtype: i32,
            dims in prop::collection::vec(any_number(), 0..40),
            place in [any::<i32>().prop_map(i64::from).boxed(), any_number().boxed(), any_number().boxed()],
            crc32c: u32,
        ) {
            let [shard_id, offset, size] = place;
            let dim = dims.iter().map(|&size| Dim { size, name: String::new() }).collect();
            let proto = BundleEntryProto {
                dtype,
                shape: Some(TensorShapeProto { dim, unknown_rank: false }),
                shard_id: i32::try_from(shard_id).unwrap(),
                offset,
                size,
                crc32c,
                slices: Vec::new(),
            };
            let mut written = Vec::new();
            Fields::put_plain(&mut written, dtype, &dims, place, crc32c);
            prop_assert_eq!(&written, &proto.encode_to_vec());

            let fields = Fields::decode_any(&written);
            prop_assert_eq!(Fields::decode(&written), fields.clone());
            let numbers = [i64::from(dtype), shard_id, offset, size];
            if numbers.iter().chain(&dims).all(|&number| number >= 0) {
                prop_assert_eq!(Fields::decode_plain(&written), fields);
            }
        }

        #[test]
        fn the_plain_decoder_reads_as_the_general_one_or_not_at_all(
            mut bytes in prop::collection::vec(any::<u8>(), 0..24),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            plain: bool,
        ) {
            if plain {
                bytes.clear();
                Fields::put_plain(&mut bytes, 9, &[2, 0, 300], [1, 70_000, 5], 7);
                for (index, byte) in changes {
                    let at = index.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            if let Some(fields) = Fields::decode_plain(&bytes) {
                prop_assert_eq!(Fields::decode_any(&bytes), Some(fields));
            }
        }
    }
}
