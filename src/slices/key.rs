//! The key under which a slice is stored, in V2 bundles and for every tensor of a V1 file.
//!
//! ```text
//! num(0) string(tensor name) num(rank) { signed(start) signed(length) } per dimension
//! ```
//!
//! in ordered code; a whole dimension has start 0 and length -1. Because of the leading zero, keys of
//! slices sort before ordinary names. Source: `tensorflow/core/util/saved_tensor_slice_util.cc`.

use super::slice::{Extent, TensorSlice};
use crate::coding::ordered;

/// The key of `slice` of the tensor called `name`.
pub fn encode(name: &[u8], slice: &TensorSlice) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 8 + 4 * slice.extents().len());
    ordered::put_num(&mut key, 0);
    ordered::put_string(&mut key, name);
    ordered::put_num(&mut key, slice.extents().len() as u64);
    for extent in slice.extents() {
        let (start, length) = match *extent {
            Extent::Full => (0, -1),
            Extent::Range { start, length } => (start, length),
        };
        ordered::put_signed(&mut key, start);
        ordered::put_signed(&mut key, length);
    }
    key
}

/// The tensor's name in what may be the key of a slice. What follows the name is not looked at: a
/// caller encodes the slices it expects and compares.
pub fn name_of(key: &[u8]) -> Option<Vec<u8>> {
    let mut rest = key.strip_prefix(&[0])?.iter();
    let mut name = Vec::new();
    loop {
        match (*rest.next()?, rest.as_slice().first()) {
            (0x00, Some(0x01)) => return Some(name),
            (0x00, Some(0xff)) => name.push(0x00),
            (0xff, Some(0x00)) => name.push(0xff),
            (0x00 | 0xff, _) => return None,
            (byte, _) => {
                name.push(byte);
                continue;
            }
        }
        rest.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encodes_as_tensorflow_does() {
        let slice = TensorSlice::parse("0,2:-").unwrap();
        assert_eq!(
            encode(b"part", &slice),
            b"\x00part\x00\x01\x01\x02\x80\x82\x80\x7f"
        );
    }

    #[test]
    fn what_is_no_slice_key_has_no_name() {
        for key in [
            &b""[..],
            b"w",
            b"\x00",
            b"\x00abc",
            b"\x00a\x00",
            b"\x00a\x00\x02",
            b"\x00\xff\x01",
        ] {
            assert_eq!(name_of(key), None, "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn the_name_comes_back(name: Vec<u8>) {
            prop_assert_eq!(name_of(&encode(&name, &TensorSlice::full(2))), Some(name));
        }
    }
}
