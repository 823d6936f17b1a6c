//! The `shape_and_slice` string of TensorFlow's save and restore ops: `4 6 0,2:-` is the slice `0,2:-`
//! of a tensor of shape `[4,6]`.

use super::slice::{TensorSlice, parse_number};
use crate::error::{Error, Result};
use crate::shape::Shape;

/// A parsed `shape_and_slice` string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeAndSlice {
    /// Shape of the full tensor.
    pub full_shape: Shape,
    /// The slice of it.
    pub slice: TensorSlice,
    /// Shape of the slice.
    pub slice_shape: Shape,
}

impl ShapeAndSlice {
    /// Parses a string that is not empty (an empty one means the whole tensor).
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT or INTERNAL, with the texts of `ParseShapeAndSlice` in
    /// `tensorflow/core/util/saved_tensor_slice_util.cc`.
    pub fn parse(spec: &str) -> Result<Self> {
        let mut words: Vec<&str> = spec.split(' ').collect();
        let slice = words.pop().unwrap_or_default();
        if words.is_empty() {
            return Err(Error::invalid_argument(format!(
                "Need least two elements in shape_and_slice specification: {spec}"
            )));
        }
        let slice = TensorSlice::parse(slice)?;
        let dims: Option<Vec<i64>> = words.into_iter().map(parse_number).collect();
        let dims = dims.ok_or_else(|| {
            Error::invalid_argument(format!(
                "Non numerical dimension in shape_and_slice: {spec}"
            ))
        })?;
        let full_shape = Shape::new(dims)?;
        let slice_shape = slice.shape_within(&full_shape)?;
        Ok(Self {
            full_shape,
            slice,
            slice_shape,
        })
    }

    /// Whether the slice takes the whole tensor, however it is written.
    pub fn is_whole(&self) -> bool {
        self.slice_shape == self.full_shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_gives_both_shapes() {
        let spec = ShapeAndSlice::parse("4 6 0,2:-").unwrap();
        assert_eq!(spec.full_shape.dims(), [4, 6]);
        assert_eq!(spec.slice_shape.dims(), [2, 6]);
        assert!(!spec.is_whole());
        assert!(ShapeAndSlice::parse("4 6 0,4:-").unwrap().is_whole());
    }

    #[test]
    fn refuses_with_tensorflows_texts() {
        let cases = [
            (
                "-",
                "Need least two elements in shape_and_slice specification: -",
            ),
            (
                "4 6",
                "Expected a pair of numbers or '-' but got '6': string = 6",
            ),
            (
                "4 x 0,2:-",
                "Non numerical dimension in shape_and_slice: 4 x 0,2:-",
            ),
            (
                "4  6 0,2:-",
                "Non numerical dimension in shape_and_slice: 4  6 0,2:-",
            ),
            (" ", "Non numerical dimension in shape_and_slice:  "),
            ("4 6 0,2", "Mismatching ranks: shape = [4,6], slice = 0,2"),
            (
                "4 6 0,5:-",
                "Extent in dimension 0 out of bounds: shape = [4,6], slice = 0,5:-",
            ),
        ];
        for (spec, message) in cases {
            assert_eq!(ShapeAndSlice::parse(spec).unwrap_err().message(), message);
        }
        assert!(ShapeAndSlice::parse("-4 6 0,2:-").is_err());
    }
}
