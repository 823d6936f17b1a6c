//! Protobuf's text format, as far as a message of strings and doubles needs it.
//!
//! ```text
//! text   = { name ":" value [ "," | ";" ] }
//! value  = scalar | "[" [ scalar { "," scalar } ] "]"       a list only in a repeated field
//! scalar = string { string } | number
//! ```
//!
//! The judge of what is accepted is the parser that TensorFlow calls, protobuf's
//! `text_format.py` under Python 3, with all that it lets through: strings in either quotes,
//! comments from `#` to the end of the line, Unicode spaces, `1.5f`, `1_0`, unknown escapes. Two
//! things that it accepts only because Python does are refused here, as no program writes them:
//! characters by name (`\N{DIGIT ONE}`), and a digit of another script as a number.
//!
//! Nothing recurses, and every step takes time and memory linear in the text.

#![forbid(unsafe_code)]

use std::fmt::Display;

use super::double::{double_text, parse_double};
use super::escape::{put_escaped, unescape};
use crate::error::{Error, Result};

/// Characters of a token that an error message shows; the rest is left out.
const SHOWN: usize = 40;

/// Walks through a text token by token; one token is looked at ahead.
#[derive(Debug)]
pub struct Tokenizer<'a> {
    text: &'a str,
    /// Where the current token starts, in bytes.
    start: usize,
    /// The current token; empty at the end of the text.
    token: &'a str,
}

impl<'a> Tokenizer<'a> {
    /// Starts at the first token.
    ///
    /// # Errors
    ///
    /// DATA_LOSS for bytes that are not UTF-8.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let text = match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let before = str::from_utf8(valid).unwrap_or_default();
                return Err(error_after(before, "invalid UTF-8"));
            }
        };
        let mut tokenizer = Self {
            text,
            start: 0,
            token: "",
        };
        tokenizer.advance();
        Ok(tokenizer)
    }

    /// Whether the text is used up.
    pub fn at_end(&self) -> bool {
        self.token.is_empty()
    }

    /// Takes the current token and moves on if it is `symbol`.
    pub fn take(&mut self, symbol: &str) -> bool {
        let found = self.token == symbol;
        if found {
            self.advance();
        }
        found
    }

    /// Takes `symbol`.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if something else comes.
    pub fn expect(&mut self, symbol: &str) -> Result<()> {
        if self.take(symbol) {
            return Ok(());
        }
        Err(self.unexpected(format_args!("\"{symbol}\"")))
    }

    /// Takes a token that is one of `names`, and returns which.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if it is none of them.
    pub fn name<T: Copy>(&mut self, names: &[(&str, T)]) -> Result<T> {
        let found = names.iter().find(|(name, _)| self.token == *name);
        let Some(&(_, meaning)) = found else {
            return Err(self.unexpected("a field name"));
        };
        self.advance();
        Ok(meaning)
    }

    /// Takes one string, or several that follow each other and count as one.
    ///
    /// # Errors
    ///
    /// DATA_LOSS for anything but a string, a string without its closing quote, a bad escape, and
    /// for escapes that do not add up to UTF-8.
    pub fn string(&mut self) -> Result<String> {
        let first = self.start;
        let mut bytes = self.single_string()?;
        // Joined before it becomes text: a character may begin in one part and end in the next.
        while self.token.starts_with(['"', '\'']) {
            bytes.extend(self.single_string()?);
        }
        String::from_utf8(bytes).map_err(|_| self.error_at(first, "string is not valid UTF-8"))
    }

    fn single_string(&mut self) -> Result<Vec<u8>> {
        let mut inner = self.token.chars();
        let Some(quote @ ('"' | '\'')) = inner.next() else {
            return Err(self.unexpected("a string"));
        };
        let Some(content) = inner.as_str().strip_suffix(quote) else {
            return Err(self.error_at(self.start, "string without closing quote"));
        };
        let bytes = unescape(content).map_err(|reason| self.error_at(self.start, reason))?;
        self.advance();
        Ok(bytes)
    }

    /// Takes a number.
    ///
    /// # Errors
    ///
    /// DATA_LOSS for anything else.
    pub fn double(&mut self) -> Result<f64> {
        let Some(number) = parse_double(self.token) else {
            return Err(self.unexpected("a number"));
        };
        self.advance();
        Ok(number)
    }

    fn unexpected(&self, wanted: impl Display) -> Error {
        if self.at_end() {
            return self.error_at(
                self.start,
                format_args!("expected {wanted} but the text ends"),
            );
        }
        let mut found: String = self.token.chars().take(SHOWN).collect();
        if found.len() < self.token.len() {
            found.push_str("...");
        }
        // `{:?}` keeps the message on one line and shows characters that print nothing.
        self.error_at(
            self.start,
            format_args!("expected {wanted} but found {found:?}"),
        )
    }

    fn error_at(&self, offset: usize, reason: impl Display) -> Error {
        error_after(self.text.get(..offset).unwrap_or(self.text), reason)
    }

    /// Moves behind the current token and whatever separates it from the next.
    fn advance(&mut self) {
        let behind = self.start + self.token.len();
        let rest = self.text.get(behind..).unwrap_or_default();
        let next = skip_blank(rest);
        self.start = behind + (rest.len() - next.len());
        self.token = next.get(..token_len(next)).unwrap_or(next);
    }
}

/// An error at the place where `before` ends.
fn error_after(before: &str, reason: impl Display) -> Error {
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    // In characters, as an editor counts.
    let column = last.chars().count() + 1;
    Error::data_loss(format!(
        "invalid checkpoint state: {reason} line={line} column={column}"
    ))
}

/// `text` without the spaces, line ends and comments at its start.
fn skip_blank(text: &str) -> &str {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(is_blank);
        if !rest.starts_with('#') {
            return rest;
        }
        rest = rest
            .find('\n')
            .and_then(|end| rest.get(end..))
            .unwrap_or("");
    }
}

/// What Python's `\s` matches: Unicode's white space and four separators of ASCII.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Bytes of the token at the start of `text`, which does not start with a blank: a word, a number,
/// a string, or else a single character.
fn token_len(text: &str) -> usize {
    let mut chars = text.chars();
    let Some(first) = chars.next() else {
        return 0;
    };
    let run = |in_token: fn(char) -> bool| text.find(|c| !in_token(c)).unwrap_or(text.len());
    match first {
        'a'..='z' | 'A'..='Z' | '_' => run(in_word),
        '0'..='9' | '+' | '-' => run(in_number),
        '.' if chars.next().is_some_and(|c| c.is_ascii_digit()) => run(in_number),
        '"' | '\'' => quoted_len(text, first),
        other => other.len_utf8(),
    }
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-')
}

fn in_number(c: char) -> bool {
    in_word(c) || c == '.'
}

/// Bytes of the string at the start of `text`, up to its closing quote or the end of the line. A
/// quote behind a backslash does not close it.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return i,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return i + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Appends the line `name: "value"`.
pub fn put_string(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str(": \"");
    put_escaped(out, value);
    out.push_str("\"\n");
}

/// Appends the line `name: value`.
pub fn put_double(out: &mut String, name: &str, value: f64) {
    out.push_str(name);
    out.push_str(": ");
    out.push_str(&double_text(value));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_line_and_column_in_characters() {
        let mut tokens = Tokenizer::new("# é\r\n\n  é x".as_bytes()).unwrap();
        assert!(tokens.take("é"));
        let error = tokens.expect(":").unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid checkpoint state: expected \":\" but found \"x\" line=3 column=5"
        );
        let error = Tokenizer::new(b"a\nb\xff").unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid checkpoint state: invalid UTF-8 line=2 column=2"
        );
    }

    #[test]
    fn errors_show_little_of_a_long_token_on_one_line() {
        let long = "x".repeat(1 << 20);
        let error = Tokenizer::new(long.as_bytes()).unwrap().double();
        let message = error.unwrap_err().to_string();
        assert!(message.len() < 200 && message.contains("xxx...\""));
        let error = Tokenizer::new(b"\0").unwrap().double().unwrap_err();
        assert!(!error.to_string().contains('\0'));
    }

    #[test]
    fn text_of_any_size_takes_linear_time() {
        for unit in [
            "\"", "\\", "#", "\\u005c", "'\\x", "'' ", "-", "_", "1_", "\n",
        ] {
            let text = unit.repeat((1 << 20) / unit.len());
            let mut tokens = Tokenizer::new(text.as_bytes()).unwrap();
            let _ = tokens.string();
            let _ = tokens.double();
            let quoted = format!("\"{text}\"");
            let _ = Tokenizer::new(quoted.as_bytes()).unwrap().string();
        }
    }

    #[test]
    fn adjacent_strings_are_joined_before_they_become_text() {
        let string = |text: &str| Tokenizer::new(text.as_bytes()).unwrap().string();
        assert_eq!(string(r#""\303" '\251'"#).unwrap(), "é");
        for text in [r#""\200""#, r#""\x80""#, r#""\303" x"#] {
            let message = string(text).unwrap_err().to_string();
            assert!(message.contains("string is not valid UTF-8"), "{message}");
        }
    }
}
