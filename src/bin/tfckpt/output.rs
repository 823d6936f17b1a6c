//! What the commands share: how they end, and how keys are shown.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::{Map, Value};

/// How a command ended that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong with the checkpoint, as far as the command looked.
    Sound,
    /// Something is, and has been reported.
    Broken,
}

/// Why a command could not do its work.
#[derive(Debug)]
pub enum Failure {
    /// The library's error.
    Library(tfckpt::Error),
    /// Standard output takes no more.
    Output(io::Error),
    /// An error of the program's own.
    Message(String),
}

impl From<tfckpt::Error> for Failure {
    fn from(error: tfckpt::Error) -> Self {
        Self::Library(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// What a shell says of a program that a closed pipe ended (128 + SIGPIPE), as `head` ends its
/// writers.
const CLOSED_PIPE: u8 = 141;

impl Failure {
    /// Says why on standard error; a reader that has seen enough is no reason to say anything.
    pub fn report(self) -> ExitCode {
        match self {
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::from(CLOSED_PIPE);
            }
            Failure::Output(error) => complain(format_args!("standard output: {error}")),
            Failure::Library(error) => complain(error),
            Failure::Message(message) => complain(message),
        }
        ExitCode::FAILURE
    }
}

/// Writes one line to standard error. Unlike `eprintln!` it survives a closed one.
pub fn complain(message: impl fmt::Display) {
    let text = printable(message.to_string().as_bytes());
    writeln!(io::stderr(), "tfckpt: {text}").ok();
}

/// A key for human eyes: bytes that are not UTF-8 and characters that would move the cursor or turn
/// the writing direction are escaped; everything else, backslashes included, is shown as it is.
pub fn printable(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    for chunk in key.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\t' | '\n' | '\r' => text.extend(char.escape_default()),
                '\0'..='\x1f' | '\x7f' => {
                    write!(text, "\\x{:02x}", u32::from(char)).ok();
                }
                '\u{80}'..='\u{9f}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' => text.extend(char.escape_unicode()),
                _ => text.push(char),
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").ok();
        }
    }
    text
}

/// An object that begins with `key`, and with `key_hex` if the key is not UTF-8.
pub fn json_of_key(key: &[u8]) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("key".into(), String::from_utf8_lossy(key).into());
    if std::str::from_utf8(key).is_err() {
        let mut hex = String::with_capacity(2 * key.len());
        for byte in key {
            write!(hex, "{byte:02x}").ok();
        }
        object.insert("key_hex".into(), hex.into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printable_key_is_shown_as_it_is() {
        for key in ["dense/kernel:0", "été/重み", "a\\n b", "100%"] {
            assert_eq!(printable(key.as_bytes()), key);
        }
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(
            printable(b"a\x1b[31m\n\0\x7f\xff\xc3z"),
            "a\\x1b[31m\\n\\x00\\x7f\\xff\\xc3z"
        );
        assert_eq!(printable("\u{9b}\u{202e}x".as_bytes()), "\\u{9b}\\u{202e}x");
    }

    #[test]
    fn only_a_key_that_is_not_utf8_has_key_hex() {
        let json = |key: &[u8]| Value::from(json_of_key(key)).to_string();
        assert_eq!(json("é\n".as_bytes()), r#"{"key":"é\n"}"#);
        assert_eq!(
            json(b"a\xff"),
            "{\"key\":\"a\u{fffd}\",\"key_hex\":\"61ff\"}"
        );
    }
}
