//! Decimal digits of a floating-point number: as many as tell it from its neighbours, and no more
//! or fewer than asked for.
//!
//! The method is free-format printing after Steele and White, and Burger and Dybvig ("Printing
//! Floating-Point Numbers Quickly and Accurately", 1996), with exact integers. The details that
//! decide between two digits (what limits do, how ties are rounded) are NumPy's.

use super::big::Big;

/// A finite number `mantissa * 2^exponent`, without its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binary {
    /// The significand as an integer.
    pub mantissa: u64,
    /// Power of two that it is multiplied with.
    pub exponent: i32,
    /// Whether the next lower number is only half as far away as the next higher: so for powers of
    /// two.
    pub closer_below: bool,
}

/// How many digits are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Whether the two others count digits after the decimal point rather than all digits.
    pub fractional: bool,
    /// At least so many, even if fewer tell the number from its neighbours.
    pub min: Option<i32>,
    /// At most so many, even if more would be needed.
    pub max: Option<i32>,
}

/// The number is about `0.d₁d₂d₃… * 10^point`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// Digits, 0 to 9; the first is zero only for zero and for numbers that `max` rounds away.
    pub digits: Vec<u8>,
    /// Number of digits before the decimal point, if positive.
    pub point: i32,
}

/// The digits of `number` within `limits`.
pub fn digits(number: Binary, limits: Limits) -> Decimal {
    if number.mantissa == 0 {
        return Decimal {
            digits: vec![0],
            point: 1,
        };
    }
    let mut scaled = Scaled::new(number);
    let mut point = scaled.normalize(number);
    if let Some(max) = limits.max.filter(|_| limits.fractional) {
        // Smaller than the last digit wanted: that digit alone is looked at.
        let least = 1 - max;
        if point < least {
            scaled.scale.multiply_pow10(least.abs_diff(point));
            point = least;
        }
    }
    let last = |num: i32| if limits.fractional { -num } else { point - num };
    let max_exponent = limits.max.map(last);
    let min_exponent = limits.min.map_or(point, last).min(point);

    let is_even = number.mantissa.is_multiple_of(2);
    let mut digits = Vec::new();
    let mut exponent = point;
    loop {
        scaled.times_ten();
        exponent -= 1;
        let digit = scaled.value.take_quotient(&scaled.scale);
        // Whether the digits so far, as they are or with the last one raised, are nearer to this
        // number than to any other; a number in the middle belongs to the even one.
        let high_end = scaled.value.plus(&scaled.margin_high);
        let (low, high) = if is_even {
            (scaled.value <= scaled.margin_low, high_end >= scaled.scale)
        } else {
            (scaled.value < scaled.margin_low, high_end > scaled.scale)
        };
        let enough = (low || high) && exponent <= min_exponent;
        if !enough && max_exponent != Some(exponent) {
            digits.push(digit);
            continue;
        }
        let round_up = if low == high {
            scaled.value.multiply(2);
            match scaled.value.cmp(&scaled.scale) {
                std::cmp::Ordering::Equal => digit % 2 == 1,
                order => order.is_gt(),
            }
        } else {
            high
        };
        digits.push(digit);
        if round_up && !raise(&mut digits) {
            point += 1;
        }
        return Decimal { digits, point };
    }
}

/// Adds one to the last digit. Nines that become zeros are dropped; if all were nines, a one is
/// left, which stands one place further left, and the answer is false.
fn raise(digits: &mut Vec<u8>) -> bool {
    while digits.last() == Some(&9) {
        digits.pop();
    }
    if let Some(last) = digits.last_mut() {
        *last += 1;
        return true;
    }
    digits.push(1);
    false
}

/// `value / scale` is what remains of the number, the margins in the same units half the way to its
/// neighbours.
struct Scaled {
    value: Big,
    scale: Big,
    margin_low: Big,
    margin_high: Big,
}

impl Scaled {
    fn new(number: Binary) -> Self {
        // Everything times four, so that a quarter of the last place is an integer too.
        let up = number.exponent.max(0).unsigned_abs();
        let down = number.exponent.min(0).unsigned_abs();
        Self {
            value: Big::new(number.mantissa, up + 2),
            scale: Big::new(1, down + 2),
            margin_low: Big::new(1, if number.closer_below { up } else { up + 1 }),
            margin_high: Big::new(1, up + 1),
        }
    }

    /// Divides by the power of ten that brings the number into 0.1..1, and returns its exponent.
    fn normalize(&mut self, number: Binary) -> i32 {
        // log10(2) is about 1233 / 4096; what that misses is made up for below.
        let bits = 63 - i32::try_from(number.mantissa.leading_zeros()).unwrap_or(0);
        let mut point = ((number.exponent + bits) * 1233) >> 12;
        let power = point.unsigned_abs();
        if point > 0 {
            self.scale.multiply_pow10(power);
        } else {
            self.value.multiply_pow10(power);
            self.margin_low.multiply_pow10(power);
            self.margin_high.multiply_pow10(power);
        }
        while self.value >= self.scale {
            self.scale.multiply(10);
            point += 1;
        }
        loop {
            let mut ten_times = self.value.clone();
            ten_times.multiply(10);
            if ten_times >= self.scale {
                return point;
            }
            self.times_ten();
            point -= 1;
        }
    }

    fn times_ten(&mut self) {
        self.value.multiply(10);
        self.margin_low.multiply(10);
        self.margin_high.multiply(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(value: f64) -> Binary {
        let bits = value.to_bits();
        let (exponent, fraction) = (((bits >> 52) & 0x7ff) as i32, bits & ((1 << 52) - 1));
        Binary {
            mantissa: if exponent == 0 {
                fraction
            } else {
                fraction | 1 << 52
            },
            exponent: exponent.max(1) - 1075,
            closer_below: fraction == 0 && exponent > 1,
        }
    }

    fn text(value: f64, limits: Limits) -> String {
        let decimal = digits(binary(value), limits);
        let digits: String = decimal
            .digits
            .iter()
            .map(|d| char::from(b'0' + d))
            .collect();
        format!("{digits}e{}", decimal.point)
    }

    #[test]
    fn without_limits_the_digits_are_those_of_the_standard_library() {
        let mut bits = 0x1234_5678_9abc_def0u64;
        for i in 0..3000 {
            bits = bits
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let value = match i % 3 {
                0 => f64::from_bits(bits).abs(),
                1 => (bits >> 40) as f64 / 1000.0,
                _ => f64::from_bits(bits & (0x7ff << 52)),
            };
            if !value.is_finite() || value == 0.0 {
                continue;
            }
            let expected = format!("{value:e}").replace('.', "");
            let (digits, exponent) = expected.split_once('e').unwrap();
            let exponent: i32 = exponent.parse().unwrap();
            let expected = format!("{digits}e{}", exponent + 1);
            assert_eq!(text(value, Limits::default()), expected, "{value:e}");
        }
    }

    #[test]
    fn limits_cut_and_lengthen() {
        let total = |min, max| Limits {
            fractional: false,
            min,
            max,
        };
        let fraction = |min, max| Limits {
            fractional: true,
            min,
            max,
        };
        assert_eq!(text(2.0 / 3.0, total(None, Some(4))), "6667e0");
        assert_eq!(text(0.1, total(Some(20), None)), "10000000000000000555e0");
        assert_eq!(text(1234.5678, fraction(None, Some(2))), "123457e4");
        // Ties go to the even digit, nines are carried, and what is too small leaves a zero.
        assert_eq!(text(0.125, fraction(None, Some(2))), "12e0");
        assert_eq!(text(0.375, fraction(None, Some(2))), "38e0");
        assert_eq!(text(9.999, fraction(None, Some(1))), "1e2");
        assert_eq!(text(0.0004, fraction(None, Some(2))), "0e-1");
        assert_eq!(text(0.0, Limits::default()), "0e1");
    }
}
