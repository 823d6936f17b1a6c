//! A tensor's shape, with every product checked.

#![forbid(unsafe_code)]

use std::fmt;

use smallvec::SmallVec;

use crate::error::{Error, Result};

/// Sizes of a tensor's dimensions, row-major: the last one varies fastest. The element count is
/// known to fit `i64`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Shape(SmallVec<[i64; 4]>);

impl Shape {
    /// The most dimensions a tensor can have, TensorFlow's limit.
    pub const MAX_RANK: usize = 254;

    /// A shape with the dimensions given, outermost first.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a negative dimension, more than [`MAX_RANK`](Self::MAX_RANK) dimensions, or a product
    /// beyond `i64`.
    pub fn new(dims: impl AsRef<[i64]>) -> Result<Self> {
        Self::from_dims(SmallVec::from_slice(dims.as_ref()))
    }

    /// As [`new`](Self::new), of a list made for it.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    #[inline]
    pub(crate) fn from_dims(dims: SmallVec<[i64; 4]>) -> Result<Self> {
        let shape = Self(dims);
        if shape.0.len() > Self::MAX_RANK {
            let rank = shape.0.len();
            return Err(Error::invalid_argument(format!(
                "a shape has at most {} dimensions; rank={rank}",
                Self::MAX_RANK
            )));
        }
        if shape.0.iter().any(|&dim| dim < 0) {
            return Err(Error::invalid_argument(format!(
                "negative dimension; shape={shape}"
            )));
        }
        // As TensorFlow multiplies: in order, so that an overflow before a zero is still refused.
        let product = shape
            .0
            .iter()
            .try_fold(1i64, |product, &dim| product.checked_mul(dim));
        if product.is_none() {
            return Err(Error::invalid_argument(format!(
                "too many elements; shape={shape}"
            )));
        }
        Ok(shape)
    }

    /// Sizes of the dimensions, outermost first.
    pub fn dims(&self) -> &[i64] {
        &self.0
    }

    /// Number of dimensions; 0 for a scalar.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements; 1 for a scalar.
    pub fn num_elements(&self) -> u64 {
        self.0.iter().product::<i64>().unsigned_abs()
    }

    /// Bytes of a tensor of this shape with elements of `element_size` bytes, if that fits `i64`.
    pub fn byte_size(&self, element_size: usize) -> Option<u64> {
        let size = self.num_elements().checked_mul(element_size as u64)?;
        (size <= i64::MAX.unsigned_abs()).then_some(size)
    }
}

/// As TensorFlow prints a shape: `[2,3]`, a scalar as `[]`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn refuses_what_cannot_be_a_shape() {
        for dims in [
            vec![-1],
            vec![1 << 40, 1 << 40],
            vec![1; 255],
            vec![1 << 40, 1 << 40, 0],
        ] {
            assert_eq!(Shape::new(dims).unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn counts_elements_and_bytes() {
        assert_eq!(Shape::default().num_elements(), 1);
        assert_eq!(Shape::new([2, 0, 3]).unwrap().num_elements(), 0);
        let big = Shape::new([i64::MAX]).unwrap();
        assert_eq!(big.byte_size(1), Some(i64::MAX.unsigned_abs()));
        assert_eq!(big.byte_size(2), None);
        assert_eq!(Shape::new([4, 6]).unwrap().to_string(), "[4,6]");
        assert_eq!(Shape::new(vec![1; 254]).unwrap().rank(), 254);
    }
}
