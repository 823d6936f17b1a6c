//! Floating-point numbers as NumPy prints them: alone, and in an array, where all numbers share one
//! format.

use super::digits::{Binary, Limits, digits};

/// Which format a number has; NumPy's rules depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 16 bits, IEEE binary16.
    Half,
    /// 32 bits.
    Single,
    /// 64 bits.
    Double,
}

impl Kind {
    /// Bits of the exponent and of the stored fraction.
    fn bits(self) -> (u32, u32) {
        match self {
            Kind::Half => (5, 10),
            Kind::Single => (8, 23),
            Kind::Double => (11, 52),
        }
    }

    /// Where an array turns to scientific notation: `10^min(8, decimal precision)`.
    fn array_max(self) -> f64 {
        match self {
            Kind::Half => 1e3,
            Kind::Single => 1e6,
            Kind::Double => 1e8,
        }
    }

    /// Where a number alone does.
    fn scalar_max(self) -> f64 {
        match self {
            Kind::Double => 1e16,
            _ => self.array_max(),
        }
    }

    /// 0.0001 in this format: NumPy compares in it.
    fn array_min(self) -> f64 {
        match self {
            Kind::Single => f64::from(0.0001f32),
            _ => 0.0001,
        }
    }

    /// The greatest ratio that becomes 1000 when it is rounded to this format, as NumPy's is.
    fn max_ratio(self) -> f64 {
        match self {
            Kind::Half => 1000.25,
            Kind::Single => 1000.0 + 1.0 / 32768.0,
            Kind::Double => 1000.0,
        }
    }
}

/// A number with the bits of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Float {
    kind: Kind,
    bits: u64,
}

impl Float {
    /// The number with these bits.
    pub fn new(kind: Kind, bits: u64) -> Self {
        Self { kind, bits }
    }

    /// Whether the sign bit is set.
    fn is_negative(self) -> bool {
        let (exponent, fraction) = self.kind.bits();
        (self.bits >> (exponent + fraction)) & 1 == 1
    }

    fn parts(self) -> (u64, u64) {
        let (exponent, fraction) = self.kind.bits();
        (
            (self.bits >> fraction) & ((1 << exponent) - 1),
            self.bits & ((1 << fraction) - 1),
        )
    }

    fn is_finite(self) -> bool {
        let (exponent, _) = self.kind.bits();
        self.parts().0 != (1 << exponent) - 1
    }

    fn is_nan(self) -> bool {
        !self.is_finite() && self.parts().1 != 0
    }

    fn is_zero(self) -> bool {
        self.parts() == (0, 0)
    }

    /// The number without its sign; of infinities and NaNs it means nothing.
    fn binary(self) -> Binary {
        let (exponent_bits, fraction_bits) = self.kind.bits();
        let (exponent, fraction) = self.parts();
        let bias = (1i64 << (exponent_bits - 1)) - 1 + i64::from(fraction_bits);
        let exponent_value = i64::try_from(exponent.max(1)).unwrap_or(1) - bias;
        Binary {
            mantissa: if exponent == 0 {
                fraction
            } else {
                fraction | 1 << fraction_bits
            },
            exponent: i32::try_from(exponent_value).unwrap_or(0),
            closer_below: fraction == 0 && exponent > 1,
        }
    }

    /// The absolute value, exactly.
    fn magnitude(self) -> f64 {
        if self.kind == Kind::Double {
            return f64::from_bits(self.bits & !(1 << 63));
        }
        let binary = self.binary();
        #[expect(clippy::cast_precision_loss, reason = "at most 24 bits")]
        let mantissa = binary.mantissa as f64;
        mantissa * 2f64.powi(binary.exponent)
    }

    /// Sign and digits of an infinity or NaN.
    fn special(self, plus: bool) -> String {
        let sign = match (self.is_nan(), self.is_negative()) {
            (false, true) => "-",
            _ if plus => "+",
            _ => "",
        };
        format!("{sign}{}", if self.is_nan() { "nan" } else { "inf" })
    }

    fn sign(self, plus: bool) -> &'static str {
        match (self.is_negative(), plus) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        }
    }

    /// `str()` of the number alone.
    pub fn to_scalar(self) -> String {
        self.scalar(Trim::LeaveOneZero, false)
    }

    /// A part of a complex number alone.
    fn scalar(self, trim: Trim, plus: bool) -> String {
        if !self.is_finite() {
            return self.special(plus);
        }
        let magnitude = self.magnitude();
        if magnitude == 0.0 || (1e-4..self.kind.scalar_max()).contains(&magnitude) {
            let style = Style {
                trim,
                plus,
                ..Style::default()
            };
            positional(self, style)
        } else {
            let style = Style {
                trim: Trim::ZerosAndPoint,
                plus,
                ..Style::default()
            };
            scientific(self, style)
        }
    }
}

/// `str()` of a complex number alone.
pub fn complex_scalar(real: Float, imaginary: Float) -> String {
    let trim = Trim::ZerosAndPoint;
    if real.is_zero() && !real.is_negative() {
        return format!("{}j", imaginary.scalar(trim, false));
    }
    let (real, imaginary) = (real.scalar(trim, false), imaginary.scalar(trim, true));
    format!("({real}{imaginary}j)")
}

/// What becomes of zeros at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trim {
    /// They are kept, and added up to the least number of digits.
    Keep,
    /// They go, the point stays.
    #[default]
    Zeros,
    /// They go, but one stays after the point.
    LeaveOneZero,
    /// They go, and the point with them.
    ZerosAndPoint,
}

/// How one number is written.
#[derive(Clone, Copy, Debug, Default)]
struct Style {
    /// Most digits after the point.
    precision: Option<i32>,
    /// Least digits after the point.
    min_digits: Option<i32>,
    trim: Trim,
    /// Whether positive numbers have a sign.
    plus: bool,
    /// Width before the point, sign included.
    pad_left: usize,
    /// Width after the point.
    pad_right: usize,
    /// Least digits of the exponent.
    exp_digits: usize,
}

impl Style {
    /// The digits after the point as the style wants them, the point before them.
    fn fraction(self, digits: &str) -> String {
        let mut fraction = match self.trim {
            Trim::Keep => digits.to_owned(),
            _ => digits.trim_end_matches('0').to_owned(),
        };
        match self.trim {
            Trim::Keep => {
                let min = usize::try_from(self.min_digits.unwrap_or(0)).unwrap_or(0);
                while fraction.len() < min {
                    fraction.push('0');
                }
            }
            Trim::LeaveOneZero if fraction.is_empty() => fraction.push('0'),
            Trim::ZerosAndPoint if fraction.is_empty() => return fraction,
            _ => (),
        }
        fraction.insert(0, '.');
        fraction
    }
}

fn text_of(digits: &[u8]) -> String {
    digits
        .iter()
        .map(|digit| char::from(b'0' + digit))
        .collect()
}

/// `123.45`, padded on both sides.
fn positional(number: Float, style: Style) -> String {
    let limits = Limits {
        fractional: true,
        min: style.min_digits,
        max: style.precision,
    };
    let decimal = digits(number.binary(), limits);
    let text = text_of(&decimal.digits);
    let (whole, fraction) = match usize::try_from(decimal.point) {
        Ok(point) if point > 0 => match text.split_at_checked(point) {
            Some((whole, fraction)) => (whole.to_owned(), fraction.to_owned()),
            None => (format!("{text:0<point$}"), String::new()),
        },
        _ => {
            let zeros = usize::try_from(decimal.point.unsigned_abs()).unwrap_or(0);
            ("0".to_owned(), format!("{}{text}", "0".repeat(zeros)))
        }
    };
    let whole = format!("{}{whole}", number.sign(style.plus));
    let fraction = style.fraction(&fraction);
    let (left, right) = (style.pad_left, style.pad_right + 1);
    format!(
        "{whole:>left$}{fraction:<0$}",
        if style.pad_right > 0 { right } else { 0 }
    )
}

/// `1.2345e+02`, padded on the left.
fn scientific(number: Float, style: Style) -> String {
    let limits = Limits {
        fractional: false,
        min: style.min_digits.map(|min| min + 1),
        max: style.precision.map(|max| max + 1),
    };
    let decimal = digits(number.binary(), limits);
    let text = text_of(&decimal.digits);
    let (first, rest) = text.split_at_checked(1).unwrap_or((&text, ""));
    let whole = format!("{}{first}", number.sign(style.plus));
    let exponent = decimal.point - 1;
    format!(
        "{whole:>left$}{fraction}e{sign}{power:0>width$}",
        left = style.pad_left,
        fraction = style.fraction(rest),
        sign = if exponent < 0 { '-' } else { '+' },
        power = exponent.unsigned_abs(),
        width = style.exp_digits.max(2),
    )
}

/// The format that the numbers of an array share.
#[derive(Clone, Copy, Debug)]
pub struct ArrayFormat {
    scientific: bool,
    style: Style,
}

impl ArrayFormat {
    /// The format for `numbers`, the ones that will be printed, with at most `precision` digits
    /// after the point. With `suppress`, small numbers do not turn the array to scientific
    /// notation; with `plus`, positive numbers have a sign.
    pub fn new(numbers: &[Float], precision: i32, suppress: bool, plus: bool) -> Self {
        let finite: Vec<Float> = numbers.iter().copied().filter(|n| n.is_finite()).collect();
        let scientific = is_scientific(&finite, suppress);
        let first_pass = Style {
            precision: Some(precision),
            plus,
            ..Style::default()
        };
        let mut style = first_pass;
        if scientific {
            let mut fraction = 0;
            for &number in &finite {
                let text = self::scientific(number, first_pass);
                let (number, exponent) = text.split_once('e').unwrap_or((&text, ""));
                let (whole, digits) = number.split_once('.').unwrap_or((number, ""));
                style.exp_digits = style.exp_digits.max(exponent.len().saturating_sub(1));
                style.pad_left = style.pad_left.max(whole.len());
                fraction = fraction.max(digits.len());
            }
            // Needed for the width of NaN alone.
            style.pad_right = style.exp_digits + 2 + fraction;
            style.precision = i32::try_from(fraction).ok();
            style.min_digits = style.precision;
            style.trim = Trim::Keep;
        } else {
            for &number in &finite {
                let text = positional(number, first_pass);
                let (whole, digits) = text.split_once('.').unwrap_or((&text, ""));
                style.pad_left = style.pad_left.max(whole.len());
                style.pad_right = style.pad_right.max(digits.len());
            }
            style.min_digits = Some(0);
        }
        if finite.len() < numbers.len() {
            let signed = plus
                || numbers
                    .iter()
                    .any(|n| !n.is_finite() && !n.is_nan() && n.is_negative());
            let width = 3 + usize::from(signed);
            let right = style.pad_right + 1;
            style.pad_left = style.pad_left.max(width.saturating_sub(right));
        }
        Self { scientific, style }
    }

    /// One number of the array.
    pub fn write(&self, number: Float) -> String {
        if !number.is_finite() {
            let width = self.style.pad_left + self.style.pad_right + 1;
            return format!("{:>width$}", number.special(self.style.plus));
        }
        if self.scientific {
            scientific(number, self.style)
        } else {
            positional(number, self.style)
        }
    }
}

fn is_scientific(finite: &[Float], suppress: bool) -> bool {
    let nonzero = || finite.iter().filter(|n| !n.is_zero());
    let Some(kind) = nonzero().next().map(|n| n.kind) else {
        return false;
    };
    let max = nonzero().map(|n| n.magnitude()).fold(0.0, f64::max);
    let min = nonzero()
        .map(|n| n.magnitude())
        .fold(f64::INFINITY, f64::min);
    max >= kind.array_max()
        || (!suppress && (min < kind.array_min() || max / min > kind.max_ratio()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(value: f64) -> Float {
        Float::new(Kind::Double, value.to_bits())
    }

    fn single(value: f32) -> Float {
        Float::new(Kind::Single, value.to_bits().into())
    }

    #[test]
    fn a_number_alone_is_written_as_numpy_writes_it() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (1e-4, "0.0001"),
            (9.999e-5, "9.999e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (f64::NEG_INFINITY, "-inf"),
            (-f64::NAN, "nan"),
        ] {
            assert_eq!(double(value).to_scalar(), expected);
        }
        assert_eq!(single(1e-4).to_scalar(), "1e-04");
        assert_eq!(single(0.1).to_scalar(), "0.1");
        assert_eq!(single(1e6).to_scalar(), "1e+06");
        assert_eq!(Float::new(Kind::Half, 0x7bff).to_scalar(), "6.55e+04");
        assert_eq!(Float::new(Kind::Half, 0x0001).to_scalar(), "6e-08");
    }

    #[test]
    fn a_complex_number_alone_is_written_as_numpy_writes_it() {
        let text = |re, im| complex_scalar(double(re), double(im));
        assert_eq!(text(1.0, -2.0), "(1-2j)");
        assert_eq!(text(0.0, 1.0), "1j");
        assert_eq!(text(-0.0, 1.0), "(-0+1j)");
        assert_eq!(text(0.0, f64::NAN), "nanj");
        assert_eq!(text(1e20, 1e-8), "(1e+20+1e-08j)");
        assert_eq!(text(1.0, f64::INFINITY), "(1+infj)");
    }

    #[test]
    fn numbers_of_an_array_share_one_format() {
        let text = |values: &[f64]| -> Vec<String> {
            let numbers: Vec<Float> = values.iter().copied().map(double).collect();
            let format = ArrayFormat::new(&numbers, 8, false, false);
            numbers.into_iter().map(|n| format.write(n)).collect()
        };
        assert_eq!(text(&[1.0, -2.5, 10.25]), [" 1.  ", "-2.5 ", "10.25"]);
        assert_eq!(text(&[1.0, 1e8]), ["1.e+00", "1.e+08"]);
        assert_eq!(text(&[0.1, 1e-5, f64::NAN]), ["1.e-01", "1.e-05", "   nan"]);
        assert_eq!(text(&[1.0, f64::INFINITY]), [" 1.", "inf"]);
        assert_eq!(text(&[1.0, f64::NEG_INFINITY]), ["  1.", "-inf"]);
        assert_eq!(text(&[f64::NAN]), ["nan"]);
        assert_eq!(text(&[1.0 / 3.0, 0.5]), ["0.33333333", "0.5       "]);
    }
}
