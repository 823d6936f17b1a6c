//! Byte codings shared by the formats: varints, little-endian integers and TensorFlow's ordered code.
//!
//! Varints are LEB128, as in protobuf. Decoders take the bytes that are left and return the value
//! with what follows it, or `None` if the bytes end too early or the value is out of range.

#![forbid(unsafe_code)]

/// The most bytes a 64-bit varint takes.
pub const MAX_VARINT64: usize = 10;

/// Appends `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

/// The number of bytes [`put_varint`] writes for `value`.
pub fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Decodes a 64-bit varint; minimal length is not required.
#[inline]
pub fn get_varint64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    match bytes {
        // Most numbers are small.
        [byte, rest @ ..] if *byte < 0x80 => Some((u64::from(*byte), rest)),
        _ => get_long_varint64(bytes),
    }
}

fn get_long_varint64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(MAX_VARINT64).enumerate() {
        let part = u64::from(byte & 0x7f);
        let shift = 7 * i;
        // The tenth byte holds the last bit only.
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte < 0x80 {
            return Some((value, bytes.get(i + 1..)?));
        }
    }
    None
}

/// Decodes a varint that must fit 32 bits in at most 5 bytes.
pub fn get_varint32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (value, rest) = get_varint64(bytes)?;
    if bytes.len() - rest.len() > 5 {
        return None;
    }
    Some((u32::try_from(value).ok()?, rest))
}

/// Decodes a little-endian 32-bit integer.
pub fn get_fixed32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*head), rest))
}

/// Decodes a little-endian 64-bit integer.
pub fn get_fixed64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*head), rest))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "keeps the low byte on purpose"
)]
fn low_byte(value: u64) -> u8 {
    value as u8
}

/// TensorFlow's ordered code (`tensorflow/core/lib/strings/ordered_code.cc`): byte strings that
/// compare, unsigned and lexicographically, like the tuples they encode. Keys of slices use it.
pub mod ordered {
    /// Appends an unsigned number: a length byte, then that many big-endian bytes.
    pub fn put_num(out: &mut Vec<u8>, value: u64) {
        let bytes = value.to_be_bytes();
        let skip = value.leading_zeros() as usize / 8;
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and 8")]
        out.push((8 - skip) as u8);
        out.extend(bytes.iter().skip(skip));
    }

    /// Appends a string: `00` and `ff` are escaped, `00 01` ends it.
    pub fn put_string(out: &mut Vec<u8>, string: &[u8]) {
        for &byte in string {
            match byte {
                0x00 => out.extend([0x00, 0xff]),
                0xff => out.extend([0xff, 0x00]),
                _ => out.push(byte),
            }
        }
        out.extend([0x00, 0x01]);
    }

    /// Appends a signed number: the header's leading ones tell the length, as in UTF-8, and the sign
    /// is folded into the first bit so that negative numbers sort first.
    pub fn put_signed(out: &mut Vec<u8>, value: i64) {
        let magnitude = if value < 0 { !value } else { value };
        let bits = 64 - magnitude.leading_zeros() as usize;
        // n bytes hold 7n - 1 bits: n header bits less the sign's.
        let n = (bits + 1).div_ceil(7).max(1);
        let mut bytes = [if value < 0 { 0xff } else { 0x00 }; 10];
        if let Some(low) = bytes.last_chunk_mut::<8>() {
            *low = value.to_be_bytes();
        }
        const HEADERS: [[u8; 2]; 10] = [
            [0x80, 0],
            [0xc0, 0],
            [0xe0, 0],
            [0xf0, 0],
            [0xf8, 0],
            [0xfc, 0],
            [0xfe, 0],
            [0xff, 0],
            [0xff, 0x80],
            [0xff, 0xc0],
        ];
        let header = HEADERS.get(n - 1).copied().unwrap_or_default();
        let start = out.len();
        out.extend(bytes.iter().skip(bytes.len() - n));
        for (byte, mask) in out.iter_mut().skip(start).zip(header) {
            *byte ^= mask;
        }
    }
}

/// The ascending order of a list of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyOrder {
    /// Indices of the keys in ascending order of the keys; equal keys keep their order.
    pub order: Vec<u32>,
    /// Index of the first key in the list that repeats an earlier one.
    pub duplicate: Option<u32>,
}

/// Sorts `num` keys, fewer than 2^32, the first of which is `key(0)`.
///
/// Names of tensors begin alike and lie scattered over memory, so comparing them costs a cache miss
/// each. The eight bytes that follow what all keys have in common decide most comparisons without
/// looking at the keys. They are sorted as one number with the index behind them.
pub fn key_order<'k>(num: usize, key: impl Fn(usize) -> &'k [u8]) -> KeyOrder {
    const INDEX: u32 = u64::BITS;
    let num = u32::try_from(num).unwrap_or(u32::MAX);
    if num == 0 {
        return KeyOrder::default();
    }
    let key = |index: u32| key(index as usize);
    let first = key(0);
    let common = (1..num).fold(first, |common, index| {
        let len = common_prefix(common, key(index));
        common.get(..len).unwrap_or_default()
    });
    let digest = |key: &[u8]| {
        let mut bytes = [0; 8];
        for (byte, &value) in bytes.iter_mut().zip(key.iter().skip(common.len())) {
            *byte = value;
        }
        u64::from_be_bytes(bytes)
    };
    let mut order: Vec<u128> = (0..num)
        .map(|index| u128::from(digest(key(index))) << INDEX | u128::from(index))
        .collect();
    order.sort_unstable();
    let mut duplicate = None;
    for alike in order.chunk_by_mut(|a, b| a >> INDEX == b >> INDEX) {
        if alike.len() == 1 {
            continue;
        }
        alike.sort_unstable_by(|a, b| key(low_half(*a)).cmp(key(low_half(*b))).then(a.cmp(b)));
        for pair in alike.windows(2) {
            if let [a, b] = *pair
                && key(low_half(a)) == key(low_half(b))
            {
                let again = low_half(b);
                duplicate = Some(duplicate.map_or(again, |first: u32| first.min(again)));
            }
        }
    }
    let mut order: Vec<u32> = order.into_iter().map(low_half).collect();
    // It stays beside a plan, and there may be very many keys.
    order.shrink_to_fit();
    KeyOrder { order, duplicate }
}

/// Number of bytes that two strings have in common at their beginning.
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the index, which has 32 bits"
)]
fn low_half(value: u128) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signed(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        ordered::put_signed(&mut out, value);
        out
    }

    #[test]
    fn signed_numbers_encode_as_tensorflow_encodes_them() {
        let vectors: [(i64, &[u8]); 14] = [
            (0, &[0x80]),
            (1, &[0x81]),
            (63, &[0xbf]),
            (64, &[0xc0, 0x40]),
            (70, &[0xc0, 0x46]),
            (8191, &[0xdf, 0xff]),
            (8192, &[0xe0, 0x20, 0x00]),
            (99999, &[0xe1, 0x86, 0x9f]),
            (-1, &[0x7f]),
            (1 << 20, &[0xf0, 0x10, 0x00, 0x00]),
            (i64::from(i32::MAX), &[0xf8, 0x7f, 0xff, 0xff, 0xff]),
            (1 << 40, &[0xfd, 0, 0, 0, 0, 0]),
            (-64, &[0x40]),
            (-65, &[0x3f, 0xbf]),
        ];
        for (value, bytes) in vectors {
            assert_eq!(signed(value), bytes, "{value}");
        }
    }

    #[test]
    fn unsigned_numbers_and_strings_encode_as_tensorflow_encodes_them() {
        for (value, bytes) in [(0, &[0u8][..]), (2, &[1, 2]), (300, &[2, 1, 0x2c])] {
            let mut out = Vec::new();
            ordered::put_num(&mut out, value);
            assert_eq!(out, bytes);
        }
        let mut out = Vec::new();
        ordered::put_string(&mut out, &[0x6e, 0x00, 0x6d, 0xff, 0xe9]);
        assert_eq!(out, [0x6e, 0, 0xff, 0x6d, 0xff, 0, 0xe9, 0, 1]);
    }

    #[test]
    fn varint_decoders_refuse_what_does_not_fit() {
        assert_eq!(get_varint64(&[]), None);
        assert_eq!(get_varint64(&[0x80]), None);
        assert_eq!(get_varint64(&[0xff; 10]), None);
        assert_eq!(get_varint64(&[0x80, 0x00, 9]), Some((0, &[9u8][..])));
        assert_eq!(get_varint32(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(get_varint32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), None);
        assert_eq!(get_fixed32(&[1, 2, 3]), None);
    }

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(get_varint64(&out), Some((value, &[][..])));
        }

        #[test]
        fn keys_are_ordered_as_their_bytes_are(
            keys in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..12), 0..40),
            common in "[a-c]{0,3}",
        ) {
            let keys: Vec<Vec<u8>> =
                keys.iter().map(|key| [common.as_bytes(), key].concat()).collect();
            let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let mut naive: Vec<u32> = (0..).take(keys.len()).collect();
            naive.sort_by_key(|&index| &keys[index as usize]);
            let is_known = |index: &u32| {
                let index = *index as usize;
                keys[..index].contains(&keys[index])
            };
            let duplicate = (0..).take(keys.len()).find(is_known);
            let sorted = key_order(borrowed.len(), |index| borrowed[index]);
            prop_assert_eq!(sorted, KeyOrder { order: naive, duplicate });
        }

        #[test]
        fn ordered_code_keeps_the_order(a: i64, b: i64) {
            prop_assert_eq!(a.cmp(&b), signed(a).cmp(&signed(b)));
        }
    }
}
