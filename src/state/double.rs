//! Doubles in protobuf's text format: read as Python's `float` reads them, written as its `repr`.

#![forbid(unsafe_code)]

/// The number that `token` writes, or `None`: what Python's `float` takes from ASCII, the same with
/// `f` at its end, and no zeros before the first digit.
pub fn parse_double(token: &str) -> Option<f64> {
    let unsigned = token.strip_prefix('-').unwrap_or(token).as_bytes();
    // C would read an octal number. Only `-` is looked through: `+01` passes.
    if let [b'0', b'0'..=b'9', ..] = unsigned {
        return None;
    }
    python_float(token)
        .or_else(|| infinity_with_suffix(token))
        .or_else(|| python_float(token.trim_end_matches(['f', 'F'])))
}

/// `inff`, `-infinityf` and the like, whose last letter [`python_float`] could not lose alone: `inf`
/// ends in `f` itself.
fn infinity_with_suffix(token: &str) -> Option<f64> {
    let name = token.strip_suffix(['f', 'F'])?;
    let (sign, name) = match name.strip_prefix('-') {
        Some(name) => (-1.0, name),
        None => (1.0, name),
    };
    let is_infinity = ["inf", "infinity"]
        .iter()
        .any(|spelling| name.eq_ignore_ascii_case(spelling));
    is_infinity.then_some(sign * f64::INFINITY)
}

/// Rust's grammar of a float is Python's, but for the `_` that Python allows between two digits.
fn python_float(token: &str) -> Option<f64> {
    if !token.contains('_') {
        return token.parse().ok();
    }
    let mut digits = String::with_capacity(token.len());
    // A blank on either side stands for "not a digit".
    let mut before = ' ';
    let mut chars = token.chars().peekable();
    while let Some(c) = chars.next() {
        let after = chars.peek().copied().unwrap_or(' ');
        if c != '_' {
            digits.push(c);
        } else if !before.is_ascii_digit() || !after.is_ascii_digit() {
            return None;
        }
        before = c;
    }
    digits.parse().ok()
}

/// `value` as Python's `repr` writes it: the shortest decimal that reads back as the same double,
/// always with a point or an exponent.
pub fn double_text(value: f64) -> String {
    if value.is_nan() {
        // Python leaves out the sign of a NaN.
        return "nan".to_owned();
    }
    let shortest = format!("{value:e}");
    let Some((digits, exponent)) = shortest.split_once('e') else {
        // Infinities, which both languages spell alike.
        return shortest;
    };
    let behind_point = digits.split_once('.').map_or(0, |(_, behind)| behind.len());
    let size = value.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        let exponent: isize = exponent.parse().unwrap_or_default();
        let decimals = behind_point.saturating_add_signed(-exponent).max(1);
        return same_value(format!("{value:.decimals$}"), value)
            .unwrap_or_else(|| format!("{value:?}"));
    }
    let text = same_value(format!("{value:.behind_point$e}"), value).unwrap_or(shortest);
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    // The exponent has a sign and at least two digits.
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

/// `text`, which is `value` rounded to as many digits as its shortest form has, if it still reads
/// back as `value`.
///
/// The shortest form alone would not do: where a double lies in the middle of two decimals of that
/// length, Rust takes the one away from zero and Python the even one, as rounding to a length does.
/// The rounded text may fall outside at a power of two, whose neighbours are not equally far.
fn same_value(text: String, value: f64) -> Option<String> {
    (text.parse() == Ok(value)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_python_prints_them() {
        // What Python's `repr` gave.
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (1_700_000_600.0, "1700000600.0"),
            (1_700_000_000.123456, "1700000000.123456"),
            (1e15, "1000000000000000.0"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (12_345_678_901_234_568.0, "1.2345678901234568e+16"),
            (1e-4, "0.0001"),
            (0.000_099_999, "9.9999e-05"),
            (1e-7, "1e-07"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            // In the middle of two decimals.
            (5_058_629_613_663_133.0 / 4.0, "1264657403415783.2"),
            (-7_271_721_770_610_017.0 / 4.0, "-1817930442652504.2"),
            (2_251_799_813_685_249.0 / 4.0, "562949953421312.2"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (-f64::NAN, "nan"),
        ] {
            assert_eq!(double_text(value), expected);
        }
    }

    #[test]
    fn numbers_are_read_as_tensorflow_reads_them() {
        for (token, expected) in [
            ("1", 1.0),
            ("1.5", 1.5),
            ("+1", 1.0),
            ("-1", -1.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-.5", -0.5),
            ("+.5", 0.5),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("1e-7", 1e-07),
            ("1.5f", 1.5),
            ("1F", 1.0),
            ("1ffF", 1.0),
            ("0f", 0.0),
            ("0", 0.0),
            ("-0", -0.0),
            ("+0", 0.0),
            ("0.1", 0.1),
            ("0e5", 0.0),
            ("+01", 1.0),
            ("0_1", 1.0),
            ("1_0", 10.0),
            ("1_0.0_1e1_0", 100100000000.0),
            ("1e400", f64::INFINITY),
            ("-1e400", f64::NEG_INFINITY),
            ("1e-400", 0.0),
            ("1e99999999999999999999", f64::INFINITY),
            ("4.9e-324", 5e-324),
            ("1700000000.123456", 1700000000.123456),
            ("123456789012345678901234567890", 1.2345678901234568e+29),
            ("inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("+inf", f64::INFINITY),
            ("Infinity", f64::INFINITY),
            ("iNf", f64::INFINITY),
            ("inff", f64::INFINITY),
            ("-infinityF", f64::NEG_INFINITY),
            ("nan", f64::NAN),
            ("-nan", f64::NAN),
            ("NaN", f64::NAN),
            ("nanf", f64::NAN),
            ("-nanf", f64::NAN),
            ("+nanf", f64::NAN),
            ("9007199254740993", 9007199254740992.0),
            ("0.1000000000000000055511151231257827", 0.1),
            ("infinityff", f64::INFINITY),
            ("nanff", f64::NAN),
        ] {
            let got = parse_double(token).unwrap();
            let same = got.to_bits() == f64::to_bits(expected);
            assert!(same || got.is_nan() && expected.is_nan(), "{token}: {got}");
        }
    }

    #[test]
    fn what_tensorflow_takes_for_no_number_is_refused() {
        for token in [
            "", "00", "010", "-01", "01.5", "00f", "0x10", "0x1p3", "1_", "_1", "1__0", "1_.5",
            "1._5", "1e_5", "1e", "1e+", "e5", ".", "+", "-", "--", "1.5.", "1.2.3", "1d", "1L",
            "f", "ff", "in", "infin", "+inff", "infff", "nan(1)", "nil", "true", "1e5f_", "1-1",
            "1+1",
        ] {
            assert_eq!(parse_double(token), None, "{token}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_double_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            let got = parse_double(&double_text(value)).unwrap();
            assert!(got.to_bits() == bits || got.is_nan() && value.is_nan());
        }
    }
}
