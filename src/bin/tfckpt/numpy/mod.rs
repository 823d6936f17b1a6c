//! Prints tensors as `str()` of a NumPy array does, NumPy 2.4 being the model: TensorFlow's
//! `inspect_checkpoint` shows values that way.
//!
//! [`element`] takes elements out of a tensor's bytes and writes them, [`float`] knows how NumPy
//! writes numbers, with the digits of [`digits`] and the integers of [`big`]. This file sets brackets
//! and breaks lines.

mod big;
mod digits;
mod element;
mod float;

use tfckpt::{DType, StringTensor};

use self::element::{Element, Format, scalar};

/// `numpy.set_printoptions`.
#[derive(Clone, Copy, Debug)]
pub struct PrintOptions {
    /// Most digits after the decimal point.
    pub precision: u16,
    /// Most elements that are printed in full.
    pub threshold: u64,
    /// Elements at either end of a dimension that a summary shows.
    pub edge_items: usize,
    /// Characters in a line.
    pub line_width: i64,
    /// Whether small numbers do without scientific notation.
    pub suppress: bool,
}

impl Default for PrintOptions {
    fn default() -> Self {
        Self {
            precision: 8,
            threshold: 1000,
            edge_items: 3,
            line_width: 75,
            suppress: false,
        }
    }
}

/// A tensor's elements, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Elements of a fixed size, little-endian.
    Bytes(DType, &'a [u8]),
    /// Strings.
    Strings(&'a StringTensor),
}

impl<'a> Values<'a> {
    fn get(self, index: usize) -> Option<Element<'a>> {
        match self {
            Values::Bytes(dtype, bytes) => element::element(dtype, bytes, index),
            Values::Strings(strings) => strings.get(index).map(Element::Bytes),
        }
    }
}

/// `str()` of the array of shape `dims` with these values.
pub fn array_text(values: Values<'_>, dims: &[i64], options: &PrintOptions) -> String {
    if dims.is_empty() {
        return values.get(0).map(scalar).unwrap_or_default();
    }
    if dims.contains(&0) {
        return "[]".to_owned();
    }
    let dims: Vec<usize> = dims
        .iter()
        .map(|&dim| usize::try_from(dim).unwrap_or(0))
        .collect();
    let size = dims
        .iter()
        .fold(1u64, |size, &dim| size.saturating_mul(dim as u64));
    let mut layout = Layout {
        values,
        strides: strides(&dims),
        dims,
        summarize: size > options.threshold,
        edge_items: options.edge_items,
        format: Format::Plain,
    };
    let mut shown = Vec::new();
    layout.collect(0, 0, &mut shown);
    layout.format = Format::new(&shown, options.precision.into(), options.suppress);
    layout.write(0, 0, 1, options.line_width)
}

/// Elements from one index of each dimension to the next.
fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = Vec::with_capacity(dims.len());
    let mut stride = 1usize;
    for &dim in dims.iter().rev() {
        strides.push(stride);
        stride = stride.saturating_mul(dim);
    }
    strides.reverse();
    strides
}

struct Layout<'a> {
    values: Values<'a>,
    dims: Vec<usize>,
    strides: Vec<usize>,
    summarize: bool,
    edge_items: usize,
    format: Format,
}

impl<'v> Layout<'v> {
    /// The indices of a dimension that are shown, with `None` where some are left out. The last one
    /// always is.
    fn indices(&self, axis: usize) -> Vec<Option<usize>> {
        let dim = self.dims.get(axis).copied().unwrap_or(0);
        let edge = self.edge_items;
        if self.summarize && dim > edge.saturating_mul(2) {
            let mut indices: Vec<Option<usize>> = (0..edge).map(Some).collect();
            indices.push(None);
            indices.extend((dim - edge.max(1)..dim).map(Some));
            indices
        } else {
            (0..dim).map(Some).collect()
        }
    }

    /// Index of the element or the first element below `index` of `axis`.
    fn place(&self, axis: usize, start: usize, index: usize) -> usize {
        start + index * self.strides.get(axis).copied().unwrap_or(1)
    }

    /// The elements that decide the format: those that will be shown, or all for no edge items, where
    /// NumPy takes a slice from minus none for an empty one.
    fn collect(&self, axis: usize, start: usize, shown: &mut Vec<Element<'v>>) {
        if axis == self.dims.len() {
            shown.extend(self.values.get(start));
            return;
        }
        let mut indices = self.indices(axis);
        if self.edge_items == 0 {
            let dim = self.dims.get(axis).copied().unwrap_or(0);
            indices = (0..dim).map(Some).collect();
        }
        for index in indices.into_iter().flatten() {
            self.collect(axis + 1, self.place(axis, start, index), shown);
        }
    }

    /// The part of the array below `start`, with `indent` spaces before each line but the first,
    /// in lines of `width`.
    fn write(&self, axis: usize, start: usize, indent: usize, width: i64) -> String {
        let indices = self.indices(axis);
        if axis + 1 == self.dims.len() {
            return self.write_row(axis, start, indent, width);
        }
        let mut text = "[".to_owned();
        let blank_lines = self.dims.len() - axis - 1;
        for (i, index) in indices.into_iter().enumerate() {
            if i > 0 {
                text.push_str(&"\n".repeat(blank_lines));
                text.push_str(&" ".repeat(indent));
            }
            match index {
                Some(index) => {
                    let start = self.place(axis, start, index);
                    text.push_str(&self.write(axis + 1, start, indent + 1, width - 1));
                }
                None => text.push_str("..."),
            }
        }
        text.push(']');
        text
    }

    /// The last dimension, broken into lines, with room for the closing bracket.
    fn write_row(&self, axis: usize, start: usize, indent: usize, width: i64) -> String {
        let mut text = String::new();
        let prefix = " ".repeat(indent);
        let mut line = prefix.clone();
        for (i, index) in self.indices(axis).into_iter().enumerate() {
            if i > 0 {
                line.push(' ');
            }
            let word = match index {
                Some(index) => {
                    let element = self.values.get(self.place(axis, start, index));
                    element.map(|element| self.format.write(element))
                }
                None => Some("...".to_owned()),
            };
            let word = word.unwrap_or_default();
            let extended = i64::try_from(line.len() + word.len()).unwrap_or(i64::MAX);
            // Breaking a line that has nothing on it yet would not help.
            if extended > width - 1 && line.len() > indent {
                text.push_str(line.trim_end_matches(' '));
                text.push('\n');
                line.clone_from(&prefix);
            }
            line.push_str(&word);
        }
        text.push_str(&line);
        let text = text.get(indent..).unwrap_or_default();
        format!("[{text}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f32], dims: &[i64]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let values = Values::Bytes(DType::Float, &bytes);
        array_text(values, dims, &PrintOptions::default())
    }

    fn integers(num: i32, dims: &[i64], options: PrintOptions) -> String {
        let bytes: Vec<u8> = (0..num).flat_map(i32::to_le_bytes).collect();
        array_text(Values::Bytes(DType::Int32, &bytes), dims, &options)
    }

    #[test]
    fn arrays_of_every_rank_are_bracketed() {
        assert_eq!(floats(&[1.5], &[]), "1.5");
        assert_eq!(floats(&[], &[0]), "[]");
        assert_eq!(floats(&[], &[3, 0]), "[]");
        assert_eq!(floats(&[1.0, 2.0], &[2]), "[1. 2.]");
        assert_eq!(
            floats(&[1.0, 2.0, 3.0, 4.0], &[2, 2]),
            "[[1. 2.]\n [3. 4.]]"
        );
        assert_eq!(
            integers(8, &[2, 2, 2], PrintOptions::default()),
            "[[[0 1]\n  [2 3]]\n\n [[4 5]\n  [6 7]]]"
        );
    }

    #[test]
    fn bools_align_and_stand_alone() {
        let bools = |bytes: &[u8], dims: &[i64]| {
            array_text(
                Values::Bytes(DType::Bool, bytes),
                dims,
                &PrintOptions::default(),
            )
        };
        assert_eq!(bools(&[1, 0, 2], &[3]), "[ True False  True]");
        assert_eq!(bools(&[1], &[]), "True");
    }

    #[test]
    fn long_rows_are_broken_before_the_line_width() {
        let text = integers(40, &[40], PrintOptions::default());
        let first = " 0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19 20 21 22 23";
        assert_eq!(text.lines().next(), Some(format!("[{first}").as_str()));
        assert!(text.ends_with("\n 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39]"));
    }

    #[test]
    fn large_arrays_are_summarized() {
        assert_eq!(
            integers(1001, &[1001], PrintOptions::default()),
            "[   0    1    2 ...  998  999 1000]"
        );
        let options = PrintOptions {
            threshold: 5,
            edge_items: 1,
            ..PrintOptions::default()
        };
        assert_eq!(
            integers(9, &[3, 3], options),
            "[[0 ... 2]\n ...\n [6 ... 8]]"
        );
        let options = PrintOptions {
            threshold: 5,
            edge_items: 0,
            ..PrintOptions::default()
        };
        assert_eq!(integers(9, &[3, 3], options), "[...\n [... 8]]");
        assert_eq!(integers(11, &[11], options), "[... 10]");
    }
}
