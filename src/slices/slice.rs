//! One slice: a range of indices in every dimension of a tensor.

use std::fmt;

use crate::error::{Error, Result};
use crate::shape::Shape;

/// The range of indices that a slice takes of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// All of the dimension, whatever its size; printed as `-`.
    Full,
    /// `length` indices from `start`; printed as `start,length`.
    Range {
        /// First index.
        start: i64,
        /// Number of indices, at least 1.
        length: i64,
    },
}

/// A slice of a tensor: one [`Extent`] per dimension, outermost first.
///
/// Two slices may select the same elements and still be different, because one writes a whole
/// dimension as `-` and the other by its numbers; keys and texts keep the difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSlice(Vec<Extent>);

impl TensorSlice {
    /// A slice from its extents.
    pub fn new(extents: Vec<Extent>) -> Self {
        Self(extents)
    }

    /// The slice of `rank` dimensions that takes everything.
    pub fn full(rank: usize) -> Self {
        Self(vec![Extent::Full; rank])
    }

    /// The extents, outermost first.
    pub fn extents(&self) -> &[Extent] {
        &self.0
    }

    /// Parses a slice string such as `0,2:-`; empty items are skipped, as TensorFlow skips them.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with the texts of `tensorflow/core/framework/tensor_slice.cc`.
    pub fn parse(text: &str) -> Result<Self> {
        let extents = text
            .split(':')
            .filter(|item| !item.is_empty())
            .map(|item| parse_extent(item, text))
            .collect::<Result<_>>()?;
        Ok(Self(extents))
    }

    /// Start and length in every dimension of a tensor of this `shape`.
    ///
    /// # Errors
    ///
    /// INTERNAL, TensorFlow's code and texts, when the ranks differ or an extent reaches outside.
    pub fn bounds(&self, shape: &Shape) -> Result<Bounds> {
        if self.0.len() != shape.rank() {
            return Err(Error::internal(format!(
                "Mismatching ranks: shape = {shape}, slice = {self}"
            )));
        }
        let mut bounds = Bounds::with_capacity(shape.rank());
        for (d, (extent, &dim)) in self.0.iter().zip(shape.dims()).enumerate() {
            let (start, length) = match *extent {
                Extent::Full => (0, dim),
                Extent::Range { start, length } => (start, length),
            };
            // Without adding, which could overflow.
            if start < 0 || length < 0 || start > dim || length > dim - start {
                return Err(Error::internal(format!(
                    "Extent in dimension {d} out of bounds: shape = {shape}, slice = {self}"
                )));
            }
            bounds.push((start.unsigned_abs(), length.unsigned_abs()));
        }
        Ok(bounds)
    }

    /// The shape of the slice itself when cut out of a tensor of this `shape`.
    ///
    /// # Errors
    ///
    /// As [`bounds`](Self::bounds).
    pub fn shape_within(&self, shape: &Shape) -> Result<Shape> {
        let bounds = self.bounds(shape)?;
        let dims: Option<Vec<i64>> = bounds
            .iter()
            .map(|&(_, length)| i64::try_from(length).ok())
            .collect();
        Shape::new(dims.unwrap_or_default())
    }
}

/// Start and length per dimension, outermost first.
pub type Bounds = Vec<(u64, u64)>;

fn parse_extent(item: &str, text: &str) -> Result<Extent> {
    if item == "-" {
        return Ok(Extent::Full);
    }
    let mut numbers = item
        .split(',')
        .filter(|number| !number.is_empty())
        .map(parse_number);
    let (Some(Some(start)), Some(Some(length)), None) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return Err(Error::invalid_argument(format!(
            "Expected a pair of numbers or '-' but got '{item}': string = {text}"
        )));
    };
    if start < 0 || length <= 0 {
        return Err(Error::invalid_argument(format!(
            "Expected non-negative start and positive length but got start = {start}, \
             length = {length}: string = {text}"
        )));
    }
    Ok(Extent::Range { start, length })
}

/// A decimal number as TensorFlow's `safe_strto64` reads it: surrounding white space and a sign are
/// accepted, overflow is not.
pub fn parse_number(text: &str) -> Option<i64> {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b')
        .parse()
        .ok()
}

impl fmt::Display for TensorSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, extent) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(":")?;
            }
            match extent {
                Extent::Full => f.write_str("-")?,
                Extent::Range { start, length } => write!(f, "{start},{length}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn parses_and_prints_as_tensorflow_does() {
        for (text, printed) in [
            ("0,2:-", "0,2:-"),
            ("0,2:-:", "0,2:-"),
            ("0,2,:-", "0,2:-"),
            ("", ""),
        ] {
            assert_eq!(TensorSlice::parse(text).unwrap().to_string(), printed);
        }
        assert_eq!(TensorSlice::parse("+1,04").unwrap().to_string(), "1,4");
    }

    #[test]
    fn refuses_with_tensorflows_texts() {
        let cases = [
            (
                "6",
                "Expected a pair of numbers or '-' but got '6': string = 6",
            ),
            (
                "a,b:-",
                "Expected a pair of numbers or '-' but got 'a,b': string = a,b:-",
            ),
            (
                "1,2,3",
                "Expected a pair of numbers or '-' but got '1,2,3': string = 1,2,3",
            ),
            (
                "0,0:-",
                "Expected non-negative start and positive length but got start = 0, length = 0: string = 0,0:-",
            ),
            (
                "0,9223372036854775808",
                "Expected a pair of numbers or '-' but got '0,9223372036854775808': string = 0,9223372036854775808",
            ),
        ];
        for (text, message) in cases {
            let error = TensorSlice::parse(text).unwrap_err();
            assert_eq!(
                (error.code(), error.message()),
                (Code::InvalidArgument, message)
            );
        }
    }

    #[test]
    fn bounds_never_overflow() {
        let shape = Shape::new([4, 6]).unwrap();
        let slice = TensorSlice::parse("2,9223372036854775807:-").unwrap();
        let error = slice.bounds(&shape).unwrap_err();
        assert_eq!(
            error.message(),
            "Extent in dimension 0 out of bounds: shape = [4,6], slice = 2,9223372036854775807:-"
        );
        assert_eq!(
            TensorSlice::parse("1,2:-").unwrap().bounds(&shape).unwrap(),
            [(1, 2), (0, 6)]
        );
        let error = TensorSlice::parse("0,2")
            .unwrap()
            .bounds(&shape)
            .unwrap_err();
        assert_eq!(
            error.message(),
            "Mismatching ranks: shape = [4,6], slice = 0,2"
        );
    }
}
