//! Elements of a tensor and the format that they share.

use tfckpt::DType;

use super::float::{ArrayFormat, Float, Kind, complex_scalar};

/// One element.
#[derive(Clone, Copy, Debug)]
pub enum Element<'a> {
    /// False or true.
    Bool(bool),
    /// Any integer that NumPy itself has.
    Integer(i128),
    /// Half, single or double precision.
    Float(Float),
    /// Real and imaginary part.
    Complex(Float, Float),
    /// Of a small type, which NumPy does not align, with the text that it has everywhere.
    SmallInteger(i64),
    /// Likewise.
    SmallFloat(f64),
    /// A string.
    Bytes(&'a [u8]),
}

/// The element at `index` of little-endian `bytes`; `None` outside, or for a dtype that has none.
pub fn element(dtype: DType, bytes: &[u8], index: usize) -> Option<Element<'static>> {
    let size = dtype.size()?;
    let start = index.checked_mul(size)?;
    let bytes = bytes.get(start..start.checked_add(size)?)?;
    let bits = |bytes: &[u8]| {
        let bytes = bytes.iter().rev();
        bytes.fold(0u64, |bits, &byte| bits << 8 | u64::from(byte))
    };
    let float = |kind, bytes: &[u8]| Float::new(kind, bits(bytes));
    let whole = bits(bytes);
    // The value of the lowest bits, the highest of them taken for the sign.
    let signed = |num_bits: u32| {
        let sign = 1i128 << (num_bits - 1);
        (i128::from(whole & (u64::MAX >> (64 - num_bits))) ^ sign) - sign
    };
    let small = |value: i128| Element::SmallInteger(i64::try_from(value).unwrap_or(0));
    Some(match dtype {
        DType::Bool => Element::Bool(whole != 0),
        DType::Int8 | DType::Qint8 => Element::Integer(signed(8)),
        DType::Int16 | DType::Qint16 => Element::Integer(signed(16)),
        DType::Int32 | DType::Qint32 => Element::Integer(signed(32)),
        DType::Int64 => Element::Integer(signed(64)),
        DType::Uint8
        | DType::Quint8
        | DType::Uint16
        | DType::Quint16
        | DType::Uint32
        | DType::Uint64 => Element::Integer(whole.into()),
        DType::Half => Element::Float(float(Kind::Half, bytes)),
        DType::Float => Element::Float(float(Kind::Single, bytes)),
        DType::Double => Element::Float(float(Kind::Double, bytes)),
        DType::Complex64 | DType::Complex128 => {
            let kind = if dtype == DType::Complex64 {
                Kind::Single
            } else {
                Kind::Double
            };
            let (real, imaginary) = bytes.split_at_checked(size / 2)?;
            Element::Complex(float(kind, real), float(kind, imaginary))
        }
        DType::Int4 => small(signed(4)),
        DType::Int2 => small(signed(2)),
        DType::Uint4 => small((whole & 15).into()),
        DType::Uint2 => small((whole & 3).into()),
        _ => Element::SmallFloat(SmallFormat::of(dtype)?.value(whole)),
    })
}

/// The layout of a float that NumPy does not know.
struct SmallFormat {
    exponent_bits: u32,
    fraction_bits: u32,
    bias: i32,
    special: Special,
}

/// Which bits of a small float are no number.
#[derive(PartialEq, Eq)]
enum Special {
    /// The highest exponent: infinity without a fraction, else NaN.
    Ieee,
    /// All ones but the sign is NaN.
    AllOnes,
    /// What would be -0 is NaN.
    MinusZero,
    /// Every bit pattern is a number.
    None,
}

impl SmallFormat {
    fn of(dtype: DType) -> Option<Self> {
        let (exponent_bits, fraction_bits, bias, special) = match dtype {
            DType::Bfloat16 => (8, 7, 127, Special::Ieee),
            DType::Float8E5m2 => (5, 2, 15, Special::Ieee),
            DType::Float8E5m2fnuz => (5, 2, 16, Special::MinusZero),
            DType::Float8E4m3fn => (4, 3, 7, Special::AllOnes),
            DType::Float8E4m3fnuz => (4, 3, 8, Special::MinusZero),
            DType::Float8E4m3b11fnuz => (4, 3, 11, Special::MinusZero),
            DType::Float4E2m1fn => (2, 1, 1, Special::None),
            _ => return None,
        };
        Some(Self {
            exponent_bits,
            fraction_bits,
            bias,
            special,
        })
    }

    fn value(&self, bits: u64) -> f64 {
        let sign_bit = self.exponent_bits + self.fraction_bits;
        let magnitude = bits & ((1 << sign_bit) - 1);
        let negative = (bits >> sign_bit) & 1 == 1;
        let fraction = magnitude & ((1 << self.fraction_bits) - 1);
        let exponent = magnitude >> self.fraction_bits;
        let highest = (1 << self.exponent_bits) - 1;
        let value = match self.special {
            Special::Ieee if exponent == highest && fraction == 0 => f64::INFINITY,
            Special::Ieee if exponent == highest => f64::NAN,
            Special::AllOnes if magnitude == (1 << sign_bit) - 1 => f64::NAN,
            Special::MinusZero if magnitude == 0 && negative => return f64::NAN,
            _ => {
                let mantissa = if exponent == 0 {
                    fraction
                } else {
                    fraction | 1 << self.fraction_bits
                };
                let power = i32::try_from(exponent.max(1)).unwrap_or(1)
                    - self.bias
                    - i32::try_from(self.fraction_bits).unwrap_or(0);
                #[expect(clippy::cast_precision_loss, reason = "at most 8 bits")]
                let mantissa = mantissa as f64;
                mantissa * 2f64.powi(power)
            }
        };
        if negative { -value } else { value }
    }
}

/// C's `%g`, as which the small floats print themselves.
fn percent_g(value: f64) -> String {
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return format!("{sign}inf");
    }
    let rounded = format!("{:.5e}", value.abs());
    let (digits, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |digits: &str| {
        if digits.contains('.') {
            digits
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        } else {
            digits.to_owned()
        }
    };
    match usize::try_from(5 - exponent) {
        Ok(places) if exponent >= -4 => {
            format!("{sign}{}", trim(&format!("{:.places$}", value.abs())))
        }
        _ => {
            let exponent_sign = if exponent < 0 { '-' } else { '+' };
            let power = exponent.unsigned_abs();
            format!("{sign}{}e{exponent_sign}{power:02}", trim(digits))
        }
    }
}

/// `repr()` of Python's `bytes`.
fn python_bytes(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    let mut text = format!("b{quote}");
    for &byte in bytes {
        match byte {
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\\' => text.push_str("\\\\"),
            b'\'' if quote == '\'' => text.push_str("\\'"),
            b' '..=b'~' => text.push(byte.into()),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push(quote);
    text
}

/// `str()` of an element that is alone.
pub fn scalar(element: Element<'_>) -> String {
    match element {
        Element::Bool(value) => if value { "True" } else { "False" }.to_owned(),
        Element::Integer(value) => value.to_string(),
        Element::Float(value) => value.to_scalar(),
        Element::Complex(real, imaginary) => complex_scalar(real, imaginary),
        Element::SmallInteger(value) => value.to_string(),
        Element::SmallFloat(value) => percent_g(value),
        Element::Bytes(bytes) => python_bytes(bytes),
    }
}

/// The format that the elements of an array share.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// Nothing is shared.
    Plain,
    /// Integers are as wide as the widest.
    Integer {
        /// Its width.
        width: usize,
    },
    /// Floats.
    Float(ArrayFormat),
    /// Real and imaginary parts.
    Complex(ArrayFormat, ArrayFormat),
}

impl Format {
    /// The format for `elements`, those that will be printed.
    pub fn new(elements: &[Element<'_>], precision: i32, suppress: bool) -> Self {
        let floats = |part: fn(&Element<'_>) -> Option<Float>, plus| {
            let numbers: Vec<Float> = elements.iter().filter_map(part).collect();
            ArrayFormat::new(&numbers, precision, suppress, plus)
        };
        match elements.first() {
            Some(Element::Integer(_)) => {
                let width = |element: &Element<'_>| match element {
                    Element::Integer(value) => value.to_string().len(),
                    _ => 0,
                };
                Format::Integer {
                    width: elements.iter().map(width).max().unwrap_or(0),
                }
            }
            Some(Element::Float(_)) => Format::Float(floats(
                |element| match element {
                    Element::Float(number) => Some(*number),
                    _ => None,
                },
                false,
            )),
            Some(Element::Complex(..)) => Format::Complex(
                floats(
                    |element| match element {
                        Element::Complex(real, _) => Some(*real),
                        _ => None,
                    },
                    false,
                ),
                floats(
                    |element| match element {
                        Element::Complex(_, imaginary) => Some(*imaginary),
                        _ => None,
                    },
                    true,
                ),
            ),
            _ => Format::Plain,
        }
    }

    /// One element of the array.
    pub fn write(&self, element: Element<'_>) -> String {
        match (self, element) {
            (_, Element::Bool(true)) => " True".to_owned(),
            (Format::Integer { width }, Element::Integer(value)) => format!("{value:>width$}"),
            (Format::Float(format), Element::Float(value)) => format.write(value),
            (Format::Complex(left, right), Element::Complex(real, imaginary)) => {
                let imaginary = right.write(imaginary);
                let digits = imaginary.trim_end_matches(' ');
                let spaces = " ".repeat(imaginary.len() - digits.len());
                format!("{}{digits}j{spaces}", left.write(real))
            }
            (_, element) => scalar(element),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_floats_print_as_c_prints_them() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (999_999.5, "1e+06"),
            (-0.001953125, "-0.00195312"),
            (-0.00001525878, "-1.52588e-05"),
            (3.389_531_389_251_535_5e38, "3.38953e+38"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(percent_g(value), expected);
        }
    }

    #[test]
    fn small_floats_are_decoded() {
        let value = |dtype, bits: u16| match element(dtype, &bits.to_le_bytes(), 0) {
            Some(Element::SmallFloat(value)) => value,
            other => panic!("{other:?}"),
        };
        assert_eq!(value(DType::Bfloat16, 0x3f80), 1.0);
        assert_eq!(value(DType::Bfloat16, 0xff80), f64::NEG_INFINITY);
        assert_eq!(value(DType::Float8E5m2, 0x7b), 57344.0);
        assert!(value(DType::Float8E5m2, 0x7d).is_nan());
        assert_eq!(value(DType::Float8E4m3fn, 0x7e), 448.0);
        assert!(value(DType::Float8E4m3fn, 0xff).is_nan());
        assert!(value(DType::Float8E4m3fnuz, 0x80).is_nan());
        assert_eq!(value(DType::Float8E4m3b11fnuz, 0x7f), 30.0);
        assert_eq!(value(DType::Float4E2m1fn, 0x0f), -6.0);
    }

    #[test]
    fn integers_are_decoded_with_their_sign() {
        let value = |dtype, bits: u64| match element(dtype, &bits.to_le_bytes(), 0) {
            Some(Element::Integer(value)) => value,
            Some(Element::SmallInteger(value)) => value.into(),
            other => panic!("{other:?}"),
        };
        assert_eq!(value(DType::Int8, 0x80), -128);
        assert_eq!(value(DType::Int64, 1 << 63), i64::MIN.into());
        assert_eq!(value(DType::Uint64, u64::MAX), u64::MAX.into());
        assert_eq!(value(DType::Quint16, 0xffff), 65535);
        assert_eq!(value(DType::Int4, 0xf8), -8);
        assert_eq!(value(DType::Int2, 0x02), -2);
        assert_eq!(value(DType::Uint4, 0x0f), 15);
    }

    #[test]
    fn strings_are_quoted_as_python_quotes_bytes() {
        for (bytes, expected) in [
            (&b"abc"[..], "b'abc'"),
            (b"it's", "b\"it's\""),
            (b"it's \"", "b'it\\'s \"'"),
            (b"\\\t\n\r\x00\x7f\xff", "b'\\\\\\t\\n\\r\\x00\\x7f\\xff'"),
        ] {
            assert_eq!(python_bytes(bytes), expected);
        }
    }

    #[test]
    fn nothing_outside_the_bytes_is_an_element() {
        assert!(element(DType::Float, &[0; 7], 1).is_none());
        assert!(element(DType::Float, &[], usize::MAX).is_none());
        assert!(element(DType::String, &[0; 8], 0).is_none());
    }
}
