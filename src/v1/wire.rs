//! Protobuf's wire format, read through a window.

use crate::coding::get_varint64;
use crate::error::{Code, Error, Result};
use crate::table::Value;

/// Wire types.
pub const VARINT: u64 = 0;
/// Eight bytes.
pub const BITS64: u64 = 1;
/// A length and that many bytes.
pub const BYTES: u64 = 2;
/// Four bytes.
pub const BITS32: u64 = 5;

/// Reads a value from its start to its end and holds a window of it.
#[derive(Debug)]
pub struct Stream<'a> {
    value: Value<'a>,
    size: u64,
    /// Where the next byte is.
    at: u64,
    window: Vec<u8>,
    window_at: u64,
    capacity: usize,
}

/// What precedes a field's payload.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The field's number.
    pub number: u64,
    /// Its wire type.
    pub wire: u64,
    /// Where its payload ends. That of a varint is not known and is 0.
    pub end: u64,
}

impl<'a> Stream<'a> {
    /// Begins at the start of `value`; holds at most `capacity` bytes, and not less than 64.
    pub fn new(value: Value<'a>, capacity: usize) -> Self {
        let size = match value {
            Value::Held(bytes) => bytes.len() as u64,
            Value::InFile { size, .. } => size,
        };
        Self {
            value,
            size,
            at: 0,
            window: Vec::new(),
            window_at: 0,
            capacity: capacity.max(64),
        }
    }

    /// Where the next byte is.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Number of bytes in all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Goes to `at`, forward.
    pub fn skip_to(&mut self, at: u64) {
        self.at = at.max(self.at).min(self.size);
    }

    /// The bytes from here to `end`, or as many as fit the window, at least 64 of them.
    ///
    /// # Errors
    ///
    /// The system's; DATA_LOSS if the file became shorter.
    pub fn peek(&mut self, end: u64) -> Result<&[u8]> {
        let wanted = end.min(self.size).saturating_sub(self.at);
        match self.value {
            Value::Held(bytes) => {
                let start = usize::try_from(self.at).unwrap_or(usize::MAX);
                let len = usize::try_from(wanted).unwrap_or(usize::MAX);
                Ok(bytes
                    .get(start..)
                    .and_then(|rest| rest.get(..len))
                    .unwrap_or_default())
            }
            Value::InFile { file, offset, .. } => {
                let here = self.at.wrapping_sub(self.window_at);
                let have = (self.window.len() as u64).saturating_sub(here);
                let inside = self.at >= self.window_at && have > 0;
                if !inside || have < wanted.min(64) {
                    let len = (self.size - self.at).min(self.capacity as u64);
                    self.window = Vec::new();
                    self.window = file.read_vec(offset + self.at, len).map_err(shorter)?;
                    self.window_at = self.at;
                }
                let start = usize::try_from(self.at - self.window_at).unwrap_or(usize::MAX);
                let rest = self.window.get(start..).unwrap_or_default();
                let len = usize::try_from(wanted)
                    .unwrap_or(usize::MAX)
                    .min(rest.len());
                Ok(rest.get(..len).unwrap_or_default())
            }
        }
    }

    /// The varint here, which ends before `end`.
    ///
    /// # Errors
    ///
    /// DATA_LOSS if there is none.
    pub fn varint(&mut self, end: u64) -> Result<u64> {
        let bytes = self.peek(end)?;
        let (value, rest) = get_varint64(bytes).ok_or_else(malformed)?;
        let len = bytes.len() - rest.len();
        self.at += len as u64;
        Ok(value)
    }

    /// The next field of the message that ends at `end`; `None` there. Its payload is next.
    ///
    /// # Errors
    ///
    /// DATA_LOSS for what is no field, or one that does not end before `end`.
    pub fn field(&mut self, end: u64) -> Result<Option<Field>> {
        if self.at >= end {
            return Ok(None);
        }
        let tag = self.varint(end)?;
        let (number, wire) = (tag >> 3, tag & 7);
        let len = match wire {
            VARINT => {
                return Ok(Some(Field {
                    number,
                    wire,
                    end: 0,
                }));
            }
            BITS64 => 8,
            BITS32 => 4,
            BYTES => self.varint(end)?,
            _ => return Err(malformed()),
        };
        let field_end = self.at.checked_add(len).filter(|&at| at <= end);
        Ok(Some(Field {
            number,
            wire,
            end: field_end.ok_or_else(malformed)?,
        }))
    }

    /// Leaves out the payload of `field` in a message that ends at `end`.
    ///
    /// # Errors
    ///
    /// DATA_LOSS for a malformed varint.
    pub fn skip(&mut self, field: Field, end: u64) -> Result<()> {
        if field.wire == VARINT {
            self.varint(end)?;
        } else {
            self.skip_to(field.end);
        }
        Ok(())
    }
}

fn shorter(error: Error) -> Error {
    match error.code() {
        Code::OutOfRange => error.with_code(Code::DataLoss),
        _ => error,
    }
}

/// DATA_LOSS for bytes that are not the message that they should be.
pub fn malformed() -> Error {
    Error::data_loss("malformed record")
}
