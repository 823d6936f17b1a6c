//! A model of slices, written to be obviously right: it goes through elements one at a time.

use super::support::Value;

/// Start and length in each dimension.
pub type Cut = Vec<(usize, usize)>;

/// The elements of `whole`, a tensor of these `dims`, that lie in `cut`. `size` is that of an element.
pub fn take(whole: &Value, size: usize, dims: &[usize], cut: &Cut) -> Value {
    let elements = indices(cut).into_iter().map(|index| {
        let at = index
            .iter()
            .zip(dims)
            .fold(0, |at, (index, dim)| at * dim + index);
        match whole {
            Value::Bytes(bytes) => bytes[at * size..(at + 1) * size].to_vec(),
            Value::Strings(items) => items[at].clone(),
        }
    });
    match whole {
        Value::Bytes(_) => Value::Bytes(elements.flatten().collect()),
        Value::Strings(_) => Value::Strings(elements.collect()),
    }
}

/// The indices of all elements of a cut, in row-major order.
fn indices(cut: &Cut) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for &(start, length) in cut {
        all = all
            .iter()
            .flat_map(|head| {
                (start..start + length).map(move |index| {
                    let mut index_of = head.clone();
                    index_of.push(index);
                    index_of
                })
            })
            .collect();
    }
    all
}

/// What a `shape_and_slice` string says, if TensorFlow accepts it: the shape of the full tensor, and
/// the cut.
pub fn parse_spec(spec: &str) -> Option<(Vec<i64>, Cut)> {
    let (dims, slice) = spec.rsplit_once(' ')?;
    let dims: Option<Vec<i64>> = dims.split(' ').map(number).collect();
    let dims = dims?;
    let items: Vec<&str> = slice.split(':').filter(|item| !item.is_empty()).collect();
    if items.len() != dims.len() || dims.len() > 254 || dims.iter().any(|&dim| dim < 0) {
        return None;
    }
    dims.iter()
        .try_fold(1i64, |product, &dim| product.checked_mul(dim))?;
    let mut cut = Cut::new();
    for (item, &dim) in items.into_iter().zip(&dims) {
        if item == "-" {
            cut.push((0, dim as usize));
            continue;
        }
        let pair: Option<Vec<i64>> = item
            .split(',')
            .filter(|number| !number.is_empty())
            .map(number)
            .collect();
        let [start, length] = pair?[..] else {
            return None;
        };
        if start < 0 || length < 1 || start.checked_add(length)? > dim {
            return None;
        }
        cut.push((start as usize, length as usize));
    }
    Some((dims, cut))
}

/// A number as `strtol` reads it, with white space around.
fn number(text: &str) -> Option<i64> {
    let text = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() {
        return None;
    }
    digits.bytes().try_fold(0i64, |value, digit| {
        let digit = i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        value.checked_mul(10)?.checked_add(sign * digit)
    })
}
