//! Tensors as a caller describes them: what to save, and where to restore to.

use std::fmt;

use crate::bundle::StringTensor;
use crate::device::DeviceSpan;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::{DestSpan, SourceSpan};
use crate::shape::Shape;
use crate::slices::ShapeAndSlice;
use crate::transfer::read::Dest;

/// A tensor to be saved.
#[derive(Debug)]
pub struct SaveTensor<'a> {
    /// Name in the checkpoint: any bytes, at least one.
    pub key: &'a [u8],
    /// Data type.
    pub dtype: DType,
    /// Shape, row-major; that of the slice if there is a [`slice_spec`](Self::slice_spec).
    pub shape: Shape,
    /// TensorFlow's `shape_and_slice`, such as `4 6 0,2:-`; empty for a whole tensor.
    pub slice_spec: &'a str,
    /// TensorFlow's device string, empty if it has none; decides the shard where that is asked for.
    pub device_name: &'a str,
    /// The elements.
    pub data: SaveData<'a>,
}

/// The elements of a tensor to be saved, row-major.
#[derive(Clone, Debug)]
pub enum SaveData<'a> {
    /// Elements of a fixed size, little-endian.
    Bytes(SourceSpan<'a>),
    /// As [`Bytes`](Self::Bytes), in a GPU's memory.
    Device(DeviceSpan<'a>),
    /// Elements of `DType::String`.
    Strings(StringSpans<'a>),
}

/// The elements of a tensor of strings to be saved. A caller that has them as an array already lends it:
/// there may be very many.
#[derive(Clone, Debug)]
pub enum StringSpans<'a> {
    /// A list made for the call.
    Owned(Vec<SourceSpan<'a>>),
    /// The caller's own.
    Borrowed(&'a [SourceSpan<'a>]),
}

impl<'a> std::ops::Deref for StringSpans<'a> {
    type Target = [SourceSpan<'a>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Owned(spans) => spans,
            Self::Borrowed(spans) => spans,
        }
    }
}

impl<'a> From<Vec<SourceSpan<'a>>> for StringSpans<'a> {
    fn from(spans: Vec<SourceSpan<'a>>) -> Self {
        Self::Owned(spans)
    }
}

impl<'a> FromIterator<SourceSpan<'a>> for StringSpans<'a> {
    fn from_iter<I: IntoIterator<Item = SourceSpan<'a>>>(spans: I) -> Self {
        Self::Owned(spans.into_iter().collect())
    }
}

/// A tensor to be restored.
#[derive(Debug)]
pub struct RestoreTensor<'a> {
    /// Name in the checkpoint.
    pub key: &'a [u8],
    /// Data type, which must be the stored one.
    pub dtype: DType,
    /// Shape, which must be the stored one, or that of the slice.
    pub shape: Shape,
    /// TensorFlow's `shape_and_slice`; empty for the whole tensor.
    pub slice_spec: &'a str,
    /// TensorFlow's device string, empty if it has none.
    pub device_name: &'a str,
    /// Where the elements go.
    pub data: RestoreData<'a>,
}

/// Where the elements of a restored tensor go, row-major.
pub enum RestoreData<'a> {
    /// Memory of exactly the tensor's size, for elements of a fixed size.
    Bytes(DestSpan<'a>),
    /// As [`Bytes`](Self::Bytes), in a GPU's memory.
    Device(DeviceSpan<'a>),
    /// For `DType::String`.
    Strings(&'a mut StringTensor),
    /// For `DType::String`: called with the elements as soon as they are there, on the thread of the
    /// call or job.
    TakeStrings(&'a mut (dyn FnMut(StringTensor) + Send + Sync + 'static)),
}

impl fmt::Debug for RestoreData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(span) => f.debug_tuple("Bytes").field(span).finish(),
            Self::Device(span) => f.debug_tuple("Device").field(span).finish(),
            Self::Strings(_) | Self::TakeStrings(_) => f.write_str("Strings"),
        }
    }
}

impl<'a> RestoreData<'a> {
    /// The memory of elements of a fixed size.
    pub(super) fn memory(&self) -> Option<Dest<'a>> {
        match self {
            Self::Bytes(span) => Some(Dest::Host(*span)),
            Self::Device(span) => Some(Dest::Device(*span)),
            Self::Strings(_) | Self::TakeStrings(_) => None,
        }
    }

    /// The GPU whose memory it is, if it is one's.
    pub(super) fn device(&self) -> Option<i32> {
        match self {
            Self::Device(span) => Some(span.device()),
            Self::Bytes(_) | Self::Strings(_) | Self::TakeStrings(_) => None,
        }
    }

    /// Hands the elements over, if they are strings.
    pub(super) fn put_strings(&mut self, strings: StringTensor) {
        match self {
            Self::Bytes(_) | Self::Device(_) => {}
            Self::Strings(out) => **out = strings,
            Self::TakeStrings(take) => take(strings),
        }
    }
}

/// Parses a spec; `None` for the empty one.
pub(super) fn parse_spec(spec: &str) -> Result<Option<ShapeAndSlice>> {
    if spec.is_empty() {
        Ok(None)
    } else {
        ShapeAndSlice::parse(spec).map(Some)
    }
}

/// Whether a dtype can be saved and restored.
///
/// # Errors
///
/// UNIMPLEMENTED for handles and for variants, whose values only TensorFlow can decode.
pub(super) fn check_dtype(dtype: DType) -> Result<()> {
    match dtype {
        DType::Resource | DType::Variant => Err(Error::unimplemented(format!(
            "tensors of this dtype can be neither saved nor restored; dtype={dtype}"
        ))),
        _ => Ok(()),
    }
}

impl SaveTensor<'_> {
    /// Checks what can be known without the other tensors, and parses the spec.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT when sizes, shape and spec do not fit each other, with TensorFlow's text where
    /// it has one; UNIMPLEMENTED for a dtype that cannot be saved.
    pub(super) fn check(&self) -> Result<Option<ShapeAndSlice>> {
        check_dtype(self.dtype)?;
        let spec = parse_spec(self.slice_spec)?;
        if spec
            .as_ref()
            .is_some_and(|spec| spec.slice_shape != self.shape)
        {
            return Err(Error::invalid_argument(format!(
                "Slice in shape_and_slice specification does not match the shape of the tensor to  \
                 save: {}, tensor: {}",
                self.slice_spec, self.shape
            )));
        }
        let bytes = |len: usize| {
            (
                Some(len as u64).filter(|_| self.dtype.size().is_some()),
                self.dtype
                    .size()
                    .and_then(|size| self.shape.byte_size(size)),
            )
        };
        let (have, want) = match &self.data {
            SaveData::Bytes(span) => bytes(span.len()),
            SaveData::Device(span) => bytes(span.len()),
            SaveData::Strings(elements) => (
                Some(elements.len() as u64).filter(|_| self.dtype == DType::String),
                Some(self.shape.num_elements()),
            ),
        };
        if have.is_none() || have != want {
            return Err(size_mismatch(self.dtype, &self.shape, have, want));
        }
        Ok(spec)
    }
}

impl RestoreTensor<'_> {
    /// As [`SaveTensor::check`], but for the dtype, which comes first in the comparison with the entry.
    /// With `reshape`, the slice may have another shape than the tensor; see
    /// [`check_reshape`](Self::check_reshape).
    pub(super) fn check(&self, reshape: bool) -> Result<Option<ShapeAndSlice>> {
        let spec = parse_spec(self.slice_spec)?;
        let other = |spec: &&ShapeAndSlice| !reshape && spec.slice_shape != self.shape;
        if let Some(spec) = spec.as_ref().filter(other) {
            return Err(Error::invalid_argument(format!(
                "shape of the tensor is not that of the slice in shape_and_slice; spec={} \
                 slice_shape={} shape={}",
                self.slice_spec, spec.slice_shape, self.shape
            )));
        }
        match self.data.memory() {
            None => match self.dtype {
                DType::String => Ok(spec),
                _ => Err(size_mismatch(self.dtype, &self.shape, None, None)),
            },
            Some(memory) => {
                let want = self
                    .dtype
                    .size()
                    .and_then(|size| self.shape.byte_size(size));
                let have = Some(memory.len() as u64);
                if have == want {
                    Ok(spec)
                } else {
                    Err(size_mismatch(self.dtype, &self.shape, have, want))
                }
            }
        }
    }
}

impl RestoreTensor<'_> {
    /// Compares the stored tensor, or the slice of it, with the tensor that its elements are to be
    /// reshaped to.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text when they differ in the number of elements.
    pub(super) fn check_reshape(&self, stored: &Shape) -> Result<()> {
        let (have, want) = (stored.num_elements(), self.shape.num_elements());
        if have == want {
            return Ok(());
        }
        Err(Error::invalid_argument(format!(
            "Input to reshape is a tensor with {have} values, but the requested shape has {want}; \
             stored={stored} requested={}",
            self.shape
        )))
    }
}

fn size_mismatch(dtype: DType, shape: &Shape, have: Option<u64>, want: Option<u64>) -> Error {
    let text = |size: Option<u64>| size.map_or("none".to_owned(), |size| size.to_string());
    Error::invalid_argument(format!(
        "memory does not have the size of the tensor; dtype={dtype} shape={shape} size={} expected={}",
        text(have),
        text(want)
    ))
}
