//! What an index says of one tensor: the boundary between bytes from a file and checked values.

use std::fmt;

use prost::Message;

use super::wire::Fields;
use crate::checksum;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::proto::tensor_shape_proto::Dim;
use crate::proto::{BundleEntryProto, TensorShapeProto};
use crate::shape::Shape;
use crate::slices::{self, TensorSlice};

/// A tensor's entry, validated: its numbers agree with each other, but the data file has not been
/// asked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Data type of the elements.
    pub dtype: DType,
    /// Shape of the tensor, of the slice if this is the entry of a slice.
    pub shape: Shape,
    /// Where its bytes are.
    pub stored: Stored,
}

/// Where the bytes of a tensor are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In one place.
    Whole(DataExtent),
    /// In slices, each under a key of its own ([`crate::slices::key`]).
    Slices {
        /// The slices, in the order of the entry.
        slices: Vec<TensorSlice>,
        /// Shard of the bundle that brought this entry into a merged index; has no other meaning.
        shard_id: u32,
    },
}

/// A range of bytes in a data file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataExtent {
    /// Which data file.
    pub shard_id: u32,
    /// First byte.
    pub offset: u64,
    /// Number of bytes; `offset + size` fits `i64`.
    pub size: u64,
    /// CRC-32C of the bytes, unmasked.
    pub crc32c: u32,
}

/// A key in a message; made into text only if there is one.
pub struct KeyText<'a>(pub &'a [u8]);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

impl DataExtent {
    /// Appends the entry of a tensor that is stored here.
    pub fn append_entry(&self, dtype: DType, shape: &Shape, out: &mut Vec<u8>) {
        let place = [
            self.shard_id.cast_signed().into(),
            self.offset.cast_signed(),
            self.size.cast_signed(),
        ];
        let crc32c = checksum::mask(self.crc32c);
        Fields::put_plain(out, dtype as i32, shape.dims(), place, crc32c);
    }

    /// Compares the stored checksum with the one calculated over the bytes read; `bundle` names the
    /// checkpoint in the message.
    ///
    /// # Errors
    ///
    /// DATA_LOSS with TensorFlow's text: both checksums unmasked and in decimal.
    pub fn check(&self, bundle: &str, calculated: u32) -> Result<()> {
        let Self {
            shard_id,
            size,
            crc32c: stored,
            ..
        } = self;
        if *stored == calculated {
            return Ok(());
        }
        Err(Error::data_loss(format!(
            "TensorBundle at {bundle} shard {shard_id} ({size} bytes): Checksum does not match: stored \
             {stored:08} vs. calculated on the restored bytes {calculated}"
        )))
    }
}

impl Entry {
    /// Decodes the value stored under `key` in an index of `num_shards` shards.
    ///
    /// # Errors
    ///
    /// DATA_LOSS naming the key; the message begins with TensorFlow's text where it has one.
    pub fn decode(key: &[u8], value: &[u8], num_shards: u32) -> Result<Self> {
        match Self::decode_fields(key, value, num_shards) {
            Ok(entry) => Ok(entry),
            Err(error) => Err(error.with_key(key)),
        }
    }

    #[inline(always)]
    fn decode_fields(key: &[u8], value: &[u8], num_shards: u32) -> Result<Self> {
        let name = KeyText(key);
        let Some(mut fields) = Fields::decode(value) else {
            return Err(Error::data_loss(format!(
                "Entry for key {name} not parseable."
            )));
        };
        let Some(dtype) = DType::from_number(fields.dtype) else {
            return Err(Error::data_loss(format!(
                "unknown data type; dtype={}",
                fields.dtype
            )));
        };
        let shape = match Shape::from_dims(std::mem::take(&mut fields.dims)) {
            Ok(shape) => shape,
            Err(error) => {
                let error = error.with_prefix(format_args!("Invalid tensor shape: {name}; "));
                return Err(error.with_code(crate::error::Code::DataLoss));
            }
        };
        let stored = if fields.slices.is_empty() {
            Stored::Whole(decode_extent(key, &fields, dtype, &shape, num_shards)?)
        } else {
            let slices = fields
                .slices
                .iter()
                .map(slices::proto::decode)
                .collect::<Result<_>>()?;
            // The field has no meaning here, whatever it says.
            Stored::Slices {
                slices,
                shard_id: u32::try_from(fields.shard_id).unwrap_or(0),
            }
        };
        Ok(Self {
            dtype,
            shape,
            stored,
        })
    }

    /// Replaces the contents of `value` by the value to store, equal to what TensorFlow's protobuf
    /// writes.
    pub fn encode(&self, value: &mut Vec<u8>) {
        value.clear();
        self.append_to(value);
    }

    /// As [`encode`](Self::encode), behind what `out` contains.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match &self.stored {
            Stored::Whole(extent) => extent.append_entry(self.dtype, &self.shape, out),
            Stored::Slices { slices, shard_id } => {
                let dims = self.shape.dims().iter();
                let dim = dims.map(|&size| Dim {
                    size,
                    name: String::new(),
                });
                let proto = BundleEntryProto {
                    dtype: self.dtype as i32,
                    shape: Some(TensorShapeProto {
                        dim: dim.collect(),
                        unknown_rank: false,
                    }),
                    shard_id: shard_id.cast_signed(),
                    slices: slices.iter().map(slices::proto::encode).collect(),
                    ..BundleEntryProto::default()
                };
                proto.encode_raw(out);
            }
        }
    }
}

fn decode_extent(
    key: &[u8],
    fields: &Fields,
    dtype: DType,
    shape: &Shape,
    num_shards: u32,
) -> Result<DataExtent> {
    let shard_id = u32::try_from(fields.shard_id)
        .ok()
        .filter(|&id| id < num_shards);
    let shard_id = shard_id.ok_or_else(|| {
        Error::data_loss(format!(
            "shard does not exist; shard_id={} num_shards={num_shards}",
            fields.shard_id
        ))
    })?;
    let size = fields.size;
    // A string takes at least the byte of its length, a variant a length and a checksum; what a handle
    // takes nobody knows.
    let (expected, exact) = match dtype.size() {
        Some(element_size) => (shape.byte_size(element_size), true),
        None if dtype == DType::Resource => (Some(0), false),
        None => (Some(shape.num_elements()), false),
    };
    let sound = match (u64::try_from(size), expected) {
        (Ok(size), Some(expected)) if exact => size == expected,
        (Ok(size), Some(expected)) => size >= expected,
        _ => false,
    };
    if !sound {
        let expected = expected.map_or("beyond 2^63".to_owned(), |expected| expected.to_string());
        let least = if exact { "" } else { " is at least" };
        return Err(Error::data_loss(format!(
            "Invalid size in bundle entry: key {}; stored size {size}; expected size{least} {expected}",
            KeyText(key)
        )));
    }
    if fields.offset < 0 {
        return Err(Error::data_loss(format!(
            "Seeking to a negative position: {}",
            fields.offset
        )));
    }
    if fields.offset.checked_add(size).is_none() {
        return Err(Error::data_loss(format!(
            "data extent overflows; offset={} size={size}",
            fields.offset
        )));
    }
    Ok(DataExtent {
        shard_id,
        offset: fields.offset.unsigned_abs(),
        size: size.unsigned_abs(),
        crc32c: checksum::unmask(fields.crc32c),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::proto::TensorSliceProto;
    use crate::proto::tensor_slice_proto::{Extent as ExtentProto, extent::HasLength};

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn entries_that_tensorflow_wrote_survive_a_round_trip_byte_for_byte() {
        for bytes in [
            "0809 1200 2010 2808 35bbd79f11",
            "0801 1206 1200 12020803 20d201 35d8ea82a2",
            "0807 1202 1200 2804 35f6c10c64",
            "0807 1200 2004 2805 35bd6707be",
            "0806 1206 120408c09a0c 3a06 0a04 083f 1001",
            "0801 1208 12020807 12020802 3a080a0210030a021002 3a0a0a04080310020a021002 3a0a0a04080510020a021002",
        ] {
            let bytes = hex(bytes);
            let entry = Entry::decode(b"k", &bytes, 1).unwrap();
            let mut encoded = Vec::new();
            entry.encode(&mut encoded);
            assert_eq!(encoded, bytes);
        }
    }

    #[test]
    fn impossible_entries_are_data_loss_naming_the_key() {
        let good = BundleEntryProto {
            dtype: 1,
            shape: Some(TensorShapeProto {
                dim: vec![Dim {
                    size: 4,
                    name: String::new(),
                }],
                unknown_rank: false,
            }),
            size: 16,
            ..BundleEntryProto::default()
        };
        assert!(Entry::decode(b"k", &good.encode_to_vec(), 1).is_ok());
        let dim = |size| Dim {
            size,
            name: String::new(),
        };
        let shape = |dims: Vec<i64>| {
            Some(TensorShapeProto {
                dim: dims.into_iter().map(dim).collect(),
                unknown_rank: false,
            })
        };
        let slice = |start, length| TensorSliceProto {
            extent: vec![ExtentProto {
                start,
                has_length: Some(HasLength::Length(length)),
            }],
        };
        let bad = [
            BundleEntryProto {
                dtype: 0,
                ..good.clone()
            },
            BundleEntryProto {
                dtype: 101,
                ..good.clone()
            },
            BundleEntryProto {
                dtype: 127,
                ..good.clone()
            },
            BundleEntryProto {
                shape: None,
                ..good.clone()
            },
            BundleEntryProto {
                shape: shape(vec![-4]),
                ..good.clone()
            },
            BundleEntryProto {
                shape: shape(vec![1 << 40, 1 << 40]),
                ..good.clone()
            },
            BundleEntryProto {
                shape: shape(vec![i64::MAX]),
                ..good.clone()
            },
            BundleEntryProto {
                shape: shape(vec![1; 300]),
                ..good.clone()
            },
            BundleEntryProto {
                size: 12,
                ..good.clone()
            },
            BundleEntryProto {
                size: -16,
                ..good.clone()
            },
            BundleEntryProto {
                offset: -5,
                ..good.clone()
            },
            BundleEntryProto {
                offset: i64::MAX - 15,
                ..good.clone()
            },
            BundleEntryProto {
                shard_id: 1,
                ..good.clone()
            },
            BundleEntryProto {
                shard_id: -1,
                ..good.clone()
            },
            BundleEntryProto {
                slices: vec![slice(0, -10)],
                ..good.clone()
            },
            BundleEntryProto {
                slices: vec![slice(-1, 2)],
                ..good.clone()
            },
            BundleEntryProto {
                dtype: 7,
                size: 3,
                ..good.clone()
            },
        ];
        for proto in bad {
            let error = Entry::decode(b"k", &proto.encode_to_vec(), 1).unwrap_err();
            assert_eq!(
                (error.code(), error.key()),
                (Code::DataLoss, Some(&b"k"[..])),
                "{proto:?}"
            );
        }
        let error = Entry::decode(b"k", &[0x0a], 1).unwrap_err();
        assert_eq!(error.message(), "Entry for key k not parseable.");
    }
}
