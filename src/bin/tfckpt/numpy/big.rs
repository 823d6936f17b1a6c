//! Natural numbers of any size, with what the search for decimal digits needs.

use std::cmp::Ordering;

/// Bits of a limb; a limb's value always fits 32 bits, so that products and carries fit `u64`.
const LIMB: u32 = 32;
const MASK: u64 = (1 << LIMB) - 1;

/// A natural number: limbs in base 2^32, the lowest first, the highest not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Big(Vec<u64>);

impl Big {
    /// `value * 2^shift`.
    pub fn new(value: u64, shift: u32) -> Self {
        let mut limbs = vec![0; usize::try_from(shift / LIMB).unwrap_or(0)];
        let wide = u128::from(value) << (shift % LIMB);
        for i in 0..3 {
            let limb = (wide >> (i * LIMB)) & u128::from(MASK);
            limbs.push(u64::try_from(limb).unwrap_or(0));
        }
        let mut big = Self(limbs);
        big.trim();
        big
    }

    /// Multiplies by a factor below 2^32.
    pub fn multiply(&mut self, factor: u32) {
        let mut carry = 0;
        for limb in &mut self.0 {
            let product = *limb * u64::from(factor) + carry;
            *limb = product & MASK;
            carry = product >> LIMB;
        }
        if carry > 0 {
            self.0.push(carry);
        }
        self.trim();
    }

    /// Multiplies by `10^exponent`.
    pub fn multiply_pow10(&mut self, exponent: u32) {
        for _ in 0..exponent / 9 {
            self.multiply(1_000_000_000);
        }
        self.multiply(10u32.pow(exponent % 9));
    }

    /// The sum.
    pub fn plus(&self, other: &Self) -> Self {
        let len = self.0.len().max(other.0.len());
        let mut sum = Vec::with_capacity(len + 1);
        let mut carry = 0;
        for i in 0..len {
            let limbs = self.limb(i) + other.limb(i) + carry;
            sum.push(limbs & MASK);
            carry = limbs >> LIMB;
        }
        sum.push(carry);
        let mut sum = Self(sum);
        sum.trim();
        sum
    }

    /// Divides by `divisor`, leaving the remainder; the quotient must be small, as a digit is.
    pub fn take_quotient(&mut self, divisor: &Self) -> u8 {
        let mut quotient = 0;
        while *self >= *divisor && quotient < u8::MAX {
            self.subtract(divisor);
            quotient += 1;
        }
        quotient
    }

    /// Subtracts a number that is not greater.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = 0;
        for (i, limb) in self.0.iter_mut().enumerate() {
            let low = other.limb(i) + borrow;
            borrow = u64::from(*limb < low);
            *limb = ((borrow << LIMB) + *limb - low) & MASK;
        }
        self.trim();
    }

    fn limb(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

impl Ord for Big {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_len = self.0.len().cmp(&other.0.len());
        by_len.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

impl PartialOrd for Big {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_u128_where_u128_reaches() {
        let big = |value: u128| {
            let low = u64::try_from(value & u128::from(u64::MAX)).unwrap();
            let high = u64::try_from(value >> 64).unwrap();
            Big::new(high, 64).plus(&Big::new(low, 0))
        };
        let values = [
            0,
            1,
            9,
            u64::MAX.into(),
            1 << 64,
            (1 << 100) + 12345,
            u128::MAX >> 5,
        ];
        for a in values {
            for b in values {
                assert_eq!(big(a).cmp(&big(b)), a.cmp(&b));
                assert_eq!(big(a).plus(&big(b)), big(a + b));
                let mut rest = big(a + 7 * b);
                if a < b {
                    assert_eq!(rest.take_quotient(&big(b)), 7);
                    assert_eq!(rest, big(a));
                }
            }
            let mut product = big(a);
            product.multiply(19);
            assert_eq!(product, big(a).plus(&big(a * 18)));
        }
        let mut power = Big::new(1, 0);
        power.multiply_pow10(31);
        assert_eq!(power, big(10u128.pow(31)));
        assert_eq!(Big::new(3, 95), big(3 << 95));
    }
}
