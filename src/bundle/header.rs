//! The header entry of an index, stored under the empty key.

use prost::Message;

use crate::error::{Error, Result};
use crate::proto::{BundleHeaderProto, VersionDef};

/// Version that this library reads and writes; part of the persistent format.
const VERSION: i32 = 1;
/// Oldest producer that can be read.
const MIN_PRODUCER: i32 = 0;

/// What the header says, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of data files, at least 1.
    pub num_shards: u32,
    /// Whether numbers in the data files are big-endian.
    pub big_endian: bool,
    /// Version of the format, one that this library may read.
    pub version: VersionDef,
}

impl Header {
    /// Decodes the header entry's value.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when it is malformed; INVALID_ARGUMENT, with TensorFlow's texts, when its version
    /// says that this library must not read it.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let proto = BundleHeaderProto::decode(value)
            .map_err(|_| Error::data_loss("Entry for key  not parseable."))?;
        let version = proto.version.unwrap_or_default();
        check_version(&version)?;
        let num_shards = u32::try_from(proto.num_shards).ok().filter(|&num| num > 0);
        let num_shards = num_shards.ok_or_else(|| {
            Error::data_loss(format!(
                "impossible number of shards; num_shards={}",
                proto.num_shards
            ))
        })?;
        let big_endian = match proto.endianness {
            0 => false,
            1 => true,
            other => {
                return Err(Error::data_loss(format!(
                    "unknown byte order; endianness={other}"
                )));
            }
        };
        Ok(Self {
            num_shards,
            big_endian,
            version,
        })
    }

    /// The header of a bundle that this library writes: little-endian.
    pub fn new(num_shards: u32) -> Self {
        let version = VersionDef {
            producer: VERSION,
            ..VersionDef::default()
        };
        Self {
            num_shards,
            big_endian: false,
            version,
        }
    }

    /// The version as TensorFlow prints it, which is its message's bytes.
    pub fn version_text(&self) -> String {
        String::from_utf8_lossy(&self.version.encode_to_vec()).into_owned()
    }

    /// The header entry's value.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for more shards than the format can count.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let num_shards = i32::try_from(self.num_shards).map_err(|_| {
            Error::invalid_argument(format!("too many shards; num_shards={}", self.num_shards))
        })?;
        let proto = BundleHeaderProto {
            num_shards,
            endianness: i32::from(self.big_endian),
            version: Some(self.version.clone()),
        };
        Ok(proto.encode_to_vec())
    }
}

fn check_version(version: &VersionDef) -> Result<()> {
    if version.producer < MIN_PRODUCER {
        return Err(Error::invalid_argument(format!(
            "Checkpoint producer version {} below min producer {MIN_PRODUCER}",
            version.producer
        )));
    }
    version.check_consumer(VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_single_writers_header_has_tensorflows_bytes() {
        let bytes = [0x08, 1, 0x1a, 2, 0x08, 1];
        assert_eq!(Header::new(1).encode().unwrap(), bytes);
        assert_eq!(Header::decode(&bytes).unwrap(), Header::new(1));
        let big = [0x08, 3, 0x10, 1, 0x1a, 4, 0x08, 1, 0x10, 1];
        assert_eq!(Header::decode(&big).unwrap().encode().unwrap(), big);
    }

    #[test]
    fn headers_that_must_not_be_read_are_refused() {
        let decode = |num_shards, endianness, min_consumer, bad_consumers| {
            let version = VersionDef {
                producer: 1,
                min_consumer,
                bad_consumers,
            };
            let proto = BundleHeaderProto {
                num_shards,
                endianness,
                version: Some(version),
            };
            Header::decode(&proto.encode_to_vec()).map_err(|error| error.code())
        };
        assert_eq!(decode(0, 0, 0, vec![]), Err(Code::DataLoss));
        assert_eq!(decode(-1, 0, 0, vec![]), Err(Code::DataLoss));
        assert_eq!(decode(1, 9, 0, vec![]), Err(Code::DataLoss));
        assert_eq!(decode(1, 0, 2, vec![]), Err(Code::InvalidArgument));
        assert_eq!(decode(1, 0, 0, vec![3, 1]), Err(Code::InvalidArgument));
        assert!(decode(1, 1, 1, vec![0, 2]).is_ok());
        assert_eq!(Header::decode(&[0xff]).unwrap_err().code(), Code::DataLoss);
    }
}
