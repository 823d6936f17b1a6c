//! CRC-32C, its masked form, and the combination of checksums of neighbouring pieces.
//!
//! Everything that a checkpoint stores is masked: a checksum over bytes that themselves contain
//! checksums is weak, so leveldb's table format, and TensorFlow after it, stores
//! `rotr32(crc, 15) + 0xa282ead8` instead.

#![forbid(unsafe_code)]

use crc_fast::{CrcAlgorithm, Digest};

/// Part of the persistent format; can never change.
const MASK_DELTA: u32 = 0xa282_ead8;

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    low32(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// The form in which a checksum is stored.
pub fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

/// The checksum whose stored form is `masked`.
pub fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(MASK_DELTA).rotate_left(15)
}

/// A CRC-32C computed over bytes that arrive in order.
#[derive(Clone)]
pub struct Crc32c(Digest);

impl Crc32c {
    /// The checksum of nothing so far.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Appends `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn value(&self) -> u32 {
        low32(self.0.finalize())
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// Appends blocks of known length to a checksum without their bytes:
/// `crc(A || B) = shift(crc(A), |B|) ^ crc(B)`.
///
/// The shift multiplies by `x^(8 |B|)` modulo the CRC's polynomial; its operator is computed once
/// per length (about 40 multiplications) and applied with one, because a pipeline appends many
/// chunks of the same length.
#[derive(Clone, Copy, Debug)]
pub struct Shift(u32);

impl Shift {
    /// The operator for appending `len` bytes.
    pub fn new(len: u64) -> Self {
        // x^(8 len), by squaring: `power` runs through x^8, x^16, x^32, ...
        let mut power = 1 << (31 - 8);
        let mut product = 1 << 31;
        let mut rest = len;
        while rest != 0 {
            if rest & 1 == 1 {
                product = multiply(product, power);
            }
            power = multiply(power, power);
            rest >>= 1;
        }
        Self(product)
    }

    /// The checksum of `A || B` from those of `A` and `B`, with `|B|` given to [`Shift::new`].
    pub fn append(self, crc_a: u32, crc_b: u32) -> u32 {
        multiply(self.0, crc_a) ^ crc_b
    }
}

/// Product of two polynomials modulo the CRC-32C polynomial, bits reflected (x^0 is the top bit).
fn multiply(a: u32, b: u32) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut product = 0;
    let mut factor = b;
    for bit in (0..32).rev() {
        // All ones where the bit is set: no branch to mispredict.
        product ^= factor & (0u32.wrapping_sub(a >> bit & 1));
        factor = (factor >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(factor & 1));
    }
    product
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a 32-bit CRC in the low half"
)]
fn low32(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vectors_of_the_format_hold() {
        let ascending: Vec<u8> = (0..32).collect();
        let floats: Vec<u8> = [0f32, 1.0, 2.0, 3.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let vectors: [(&[u8], u32, u32); 7] = [
            (b"", 0, 0xa282_ead8),
            (b"a", 0xc1d0_4330, 0x28e4_6e78),
            (b"123456789", 0xe306_9283, 0xc78a_b0e5),
            (&[0; 32], 0x8a91_36aa, 0x0fd7_fffa),
            (&[0xff; 32], 0x62a8_ab43, 0xf909_b029),
            (&ascending, 0x46dd_794e, 0x951f_7892),
            (&floats, 0x515d_c834, 0x32eb_8d93),
        ];
        for (bytes, crc, masked) in vectors {
            assert_eq!(crc32c(bytes), crc);
            assert_eq!(mask(crc), masked);
            assert_eq!(unmask(masked), crc);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_an_independent_implementation(bytes: Vec<u8>, cut in 0usize..100) {
            let expected = ::crc32c::crc32c(&bytes);
            prop_assert_eq!(crc32c(&bytes), expected);

            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let mut running = Crc32c::new();
            running.update(a);
            running.update(b);
            prop_assert_eq!(running.value(), expected);
            prop_assert_eq!(Shift::new(b.len() as u64).append(crc32c(a), crc32c(b)), expected);
        }
    }

    #[test]
    fn shift_spans_lengths_beyond_four_gigabytes() {
        // Appending 2^33 zero bytes in one step equals appending 2^32 twice.
        let half = Shift::new(1 << 32);
        let once = Shift::new(1 << 33).append(0x1234_5678, 0);
        assert_eq!(half.append(half.append(0x1234_5678, 0), 0), once);
    }
}
