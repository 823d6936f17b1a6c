//! Backslash escapes in the strings of protobuf's text format.
//!
//! Written: `\n` `\r` `\t` `\"` `\'` `\\`, and three octal digits for other control characters.
//! Read: what Python's codecs accept, on which protobuf relies; see [`unescape`].

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::str::Chars;

/// Why a string was refused; the tokenizer knows where it stands.
type Reason = &'static str;

/// Appends `value` as it stands between quotes, where both kinds of quotes are escaped.
///
/// Characters beyond ASCII stay as they are. An octal escape always has three digits, so that a
/// digit after it does not become part of it.
pub fn put_escaped(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' | '\'' | '\\' => out.extend(['\\', c]),
            _ if c.is_ascii_control() => {
                let code = u32::from(c);
                out.push('\\');
                for shift in [6, 3, 0] {
                    out.extend(char::from_digit((code >> shift) & 7, 8));
                }
            }
            _ => out.push(c),
        }
    }
}

/// The bytes that the inside of a quoted string stands for.
///
/// Protobuf works backslashes off in three passes of Python codecs, each over the result of the one
/// before, and what is accepted follows from that: `\u005cn` is a backslash after the second pass
/// and a newline after the third.
pub fn unescape(content: &str) -> Result<Vec<u8>, Reason> {
    if !content.contains('\\') {
        return Ok(content.as_bytes().to_vec());
    }
    decode_escapes(&decode_unicode(&pad_hex(content))?)
}

/// First pass: a hexadecimal escape of one digit gets its second, `\x4` becomes `\x04`.
fn pad_hex(content: &str) -> String {
    let mut padded = String::with_capacity(content.len());
    let mut chars = content.chars();
    // Whether the backslashes just before are odd in number, so that the last one escapes.
    let mut escaping = false;
    while let Some(c) = chars.next() {
        padded.push(c);
        if c == 'x' && escaping {
            let mut ahead = chars.clone();
            let digits = [ahead.next(), ahead.next()];
            if digits.map(|digit| digit.is_some_and(|c| c.is_ascii_hexdigit())) == [true, false] {
                padded.push('0');
            }
        }
        escaping = c == '\\' && !escaping;
    }
    padded
}

/// Second pass: `\uXXXX` and `\UXXXXXXXX` become characters (Python's `raw_unicode_escape`).
fn decode_unicode(content: &str) -> Result<String, Reason> {
    let mut decoded = String::with_capacity(content.len());
    let mut chars = content.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            decoded.push(c);
            continue;
        }
        match chars.next() {
            Some('u') => decoded.push(take_unicode(&mut chars, 4)?),
            Some('U') => decoded.push(take_unicode(&mut chars, 8)?),
            Some(next) if next <= '\u{ff}' => decoded.extend([c, next]),
            // The codec carries characters beyond Latin-1 as escapes of its own; the backslash
            // before such a one takes that escape's backslash as its partner, and the digits stay.
            Some(next) => {
                let code = u32::from(next);
                let written = if code <= 0xffff {
                    write!(decoded, "\\\\u{code:04x}")
                } else {
                    write!(decoded, "\\\\U{code:08x}")
                };
                written.map_err(|_| "out of memory")?;
            }
            None => decoded.push(c),
        }
    }
    Ok(decoded)
}

/// Third pass: the other escapes (Python's `unicode_escape`, read as Latin-1). An unknown escape
/// stays as it is, backslash included.
fn decode_escapes(content: &str) -> Result<Vec<u8>, Reason> {
    let mut decoded = Vec::with_capacity(content.len());
    let mut chars = content.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            push_char(&mut decoded, c);
            continue;
        }
        let Some(escape) = chars.next() else {
            return Err("escape at the end of the string");
        };
        decoded.push(match escape {
            // A backslash before a line end (itself from an escape) joins the lines.
            '\n' => continue,
            '\\' => b'\\',
            '\'' => b'\'',
            '"' => b'"',
            'a' => 0x07,
            'b' => 0x08,
            't' => b'\t',
            'n' => b'\n',
            'v' => 0x0b,
            'f' => 0x0c,
            'r' => b'\r',
            '0'..='7' => take_octal(&mut chars, escape)?,
            'x' => take_hex(&mut chars, 2)
                .and_then(|value| u8::try_from(value).ok())
                .ok_or("invalid \\x escape")?,
            // Only an escape that came out of the second pass gets here.
            'u' => take_latin1(&mut chars, 4)?,
            'U' => take_latin1(&mut chars, 8)?,
            'N' => return Err("unsupported \\N escape"),
            _ => {
                decoded.push(b'\\');
                push_char(&mut decoded, escape);
                continue;
            }
        });
    }
    Ok(decoded)
}

fn push_char(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Takes exactly `count` hexadecimal digits.
fn take_hex(chars: &mut Chars<'_>, count: usize) -> Option<u32> {
    let mut value = 0u32;
    for _ in 0..count {
        let digit = chars.next()?.to_digit(16)?;
        value = value.checked_mul(16)?.checked_add(digit)?;
    }
    Some(value)
}

fn take_unicode(chars: &mut Chars<'_>, count: usize) -> Result<char, Reason> {
    // `from_u32` refuses surrogates, which have no UTF-8.
    take_hex(chars, count)
        .and_then(char::from_u32)
        .ok_or("invalid \\u escape")
}

fn take_latin1(chars: &mut Chars<'_>, count: usize) -> Result<u8, Reason> {
    take_hex(chars, count)
        .and_then(|value| u8::try_from(value).ok())
        .ok_or("invalid \\u escape")
}

/// Takes up to two more octal digits after `first`; the value must fit a byte.
fn take_octal(chars: &mut Chars<'_>, first: char) -> Result<u8, Reason> {
    let mut value = first.to_digit(8).unwrap_or_default();
    for _ in 0..2 {
        let mut ahead = chars.clone();
        let Some(digit) = ahead.next().and_then(|c| c.to_digit(8)) else {
            break;
        };
        value = value * 8 + digit;
        *chars = ahead;
    }
    u8::try_from(value).map_err(|_| "octal escape above \\377")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_as_tensorflow_reads_them() {
        for (content, expected) in [
            ("\\a\\b\\f\\n\\r\\t\\v", "\x07\x08\x0c\n\r\t\x0b"),
            ("\\\"\\'\\\\", "\"'\\"),
            ("\\1\\12\\101\\1234", "\x01\nAS4"),
            ("\\303\\251", "é"),
            ("\\x41\\x4\\x4g\\xc3\\xa9", "A\x04\x04gé"),
            ("\\\\x4", "\\x4"),
            ("\\u00e9\\U0001f600", "é😀"),
            ("\\q\\8\\?\\e\\%", "\\q\\8\\?\\e\\%"),
            ("\\é\\😀x", "\\é\\U0001f600x"),
            ("\\ā", "\\u0101"),
            ("\\\\ā", "\\ā"),
            ("\\u005cn\\u005c\\u005c", "\n\\"),
            ("\\u005c\\u000ax", "x"),
            ("\\u005cu0041", "A"),
            ("\\0", "\x00"),
            ("\\\\u0041", "\\u0041"),
        ] {
            let got = unescape(content).unwrap();
            assert_eq!(got, expected.as_bytes(), "{content}");
        }
    }

    #[test]
    fn what_tensorflow_takes_for_no_escape_is_refused() {
        for content in [
            "\\400",
            "\\777",
            "\\x",
            "\\xg",
            "\\u12",
            "\\u123g",
            "\\ud800",
            "\\ud83d\\ude00",
            "\\U00110000",
            "\\U0000",
            "\\u005cu0100",
            "\\u005c",
            "\\",
            "a\\",
            "\\N{DIGIT ONE}",
        ] {
            assert!(unescape(content).is_err(), "{content}");
        }
    }

    #[test]
    fn a_string_is_written_with_the_escapes_of_tensorflow() {
        let mut out = String::new();
        put_escaped(&mut out, "m-1é\n\r\t\x7f\u{80}'\"\\\x01");
        let expected = r#"m-1é\n\r\t\177@C1@\'\"\\\001"#.replace("@C1@", "\u{80}");
        assert_eq!(out, expected);
    }
}
