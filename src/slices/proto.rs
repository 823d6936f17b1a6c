//! Slices as the formats' protobuf messages carry them.

use super::slice::{Extent, TensorSlice};
use crate::error::{Error, Result};
use crate::proto::TensorSliceProto;
use crate::proto::tensor_slice_proto::{Extent as ExtentProto, extent::HasLength};

/// The slice that a message describes.
///
/// # Errors
///
/// DATA_LOSS for an extent that no writer makes.
pub fn decode(proto: &TensorSliceProto) -> Result<TensorSlice> {
    let extents = proto.extent.iter().map(|extent| match extent.has_length {
        None if extent.start == 0 => Ok(Extent::Full),
        Some(HasLength::Length(length)) if extent.start >= 0 && length > 0 => Ok(Extent::Range {
            start: extent.start,
            length,
        }),
        _ => Err(Error::data_loss(format!(
            "malformed slice; extent={extent:?}"
        ))),
    });
    Ok(TensorSlice::new(extents.collect::<Result<_>>()?))
}

/// The message for a slice, as TensorFlow fills it in.
pub fn encode(slice: &TensorSlice) -> TensorSliceProto {
    let extent = slice.extents().iter().map(|extent| match *extent {
        Extent::Full => ExtentProto {
            start: 0,
            has_length: None,
        },
        Extent::Range { start, length } => ExtentProto {
            start,
            has_length: Some(HasLength::Length(length)),
        },
    });
    TensorSliceProto {
        extent: extent.collect(),
    }
}
