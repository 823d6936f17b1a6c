//! How the elements of a tensor lie in the fields of a TensorProto.
//!
//! Only the field of the dtype's values is there. Floating-point numbers lie packed as in memory;
//! integers are varints, negative ones of ten bytes, half-precision numbers varints of their bits, and
//! each string is a field of its own.

use super::wire::{BITS32, BITS64, BYTES, Stream, VARINT, malformed};
use crate::coding;
use crate::dtype::DType;
use crate::error::Result;

/// The field that holds a dtype's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    /// Number of the field.
    pub field: u8,
    /// How the elements lie in it.
    pub kind: Kind,
    /// TensorFlow's estimate of an element's bytes, for its limit of a record.
    pub most: u64,
}

/// How elements lie in their field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As in memory, in units of so many bytes.
    Fixed(usize),
    /// As varints; so many low bytes are the element.
    Signed(usize),
    /// As varints, which are never negative.
    Unsigned(usize),
    /// As a varint 0 or 1.
    Bool,
    /// One field each.
    String,
}

/// The coding of `dtype`; `None` if the format has none.
pub fn coding(dtype: DType) -> Option<Coding> {
    let (field, kind, most) = match dtype {
        DType::Float => (5, Kind::Fixed(4), 4),
        DType::Double => (6, Kind::Fixed(8), 8),
        DType::Int32 | DType::Qint32 => (7, Kind::Signed(4), 10),
        DType::Int16 => (7, Kind::Signed(2), 10),
        DType::Int8 | DType::Qint8 => (7, Kind::Signed(1), 10),
        DType::Uint8 | DType::Quint8 => (7, Kind::Unsigned(1), 2),
        DType::Uint16 => (7, Kind::Unsigned(2), 3),
        DType::String => (8, Kind::String, 10),
        DType::Complex64 => (9, Kind::Fixed(4), 8),
        DType::Int64 => (10, Kind::Signed(8), 10),
        DType::Bool => (11, Kind::Bool, 1),
        DType::Complex128 => (12, Kind::Fixed(8), 16),
        DType::Half => (13, Kind::Unsigned(2), 3),
        _ => return None,
    };
    Some(Coding { field, kind, most })
}

/// Whether the format can hold tensors of `dtype`.
pub fn is_supported(dtype: DType) -> bool {
    coding(dtype).is_some()
}

impl Kind {
    /// Bytes of an element of `width` bytes, in the order of memory, as the varint that stands for it.
    fn varint(self, element: &[u8]) -> u64 {
        let negative =
            matches!(self, Kind::Signed(_)) && element.last().is_some_and(|&high| high >= 0x80);
        let mut bytes = [if negative { 0xff } else { 0 }; 8];
        for (byte, &value) in bytes.iter_mut().zip(element) {
            *byte = value;
        }
        match self {
            Kind::Bool => u64::from(bytes != [0; 8]),
            _ => u64::from_le_bytes(bytes),
        }
    }

    /// Bytes of an element in memory; of a unit, if it is made of several.
    pub fn width(self) -> usize {
        match self {
            Kind::Fixed(width) | Kind::Signed(width) | Kind::Unsigned(width) => width,
            Kind::Bool => 1,
            Kind::String => 0,
        }
    }

    /// Bytes that the elements in `memory` take.
    pub fn encoded_len(self, memory: &[u8]) -> u64 {
        match self {
            Kind::Fixed(_) | Kind::Bool | Kind::String => memory.len() as u64,
            Kind::Signed(width) | Kind::Unsigned(width) => memory
                .chunks_exact(width)
                .map(|element| coding::varint_len(self.varint(element)) as u64)
                .sum(),
        }
    }

    /// Appends the elements in `memory`, none of them strings.
    pub fn encode(self, memory: &[u8], out: &mut Vec<u8>) {
        match self {
            Kind::Fixed(_) | Kind::String => out.extend_from_slice(memory),
            Kind::Signed(_) | Kind::Unsigned(_) | Kind::Bool => {
                for element in memory.chunks_exact(self.width()) {
                    coding::put_varint(out, self.varint(element));
                }
            }
        }
    }

    fn push(self, value: u64, out: &mut Vec<u8>) {
        let bytes = match self {
            Kind::Bool => u64::from(value != 0),
            _ => value,
        };
        let bytes = bytes.to_le_bytes();
        out.extend_from_slice(bytes.get(..self.width()).unwrap_or_default());
    }
}

/// Elements that are decoded before they are handed on: their bytes.
const BATCH: usize = 32 << 10;

/// Takes what is decoded: elements by the place of their first byte, strings by number, a long one in
/// pieces one after the other.
pub trait Sink {
    /// The first place from `place` on whose bytes matter; what lies before need not be read.
    fn next(&self, place: u64) -> u64;

    /// Called now and then while nothing is taken.
    ///
    /// # Errors
    ///
    /// Whatever ends the reading, such as CANCELLED.
    fn tick(&mut self) -> Result<()>;

    /// Takes `bytes` from `place`, or a piece of string `place`.
    ///
    /// # Errors
    ///
    /// Whatever ends the reading, such as CANCELLED.
    fn take(&mut self, place: u64, bytes: &[u8]) -> Result<()>;
}

/// Reads the elements in the TensorProto that goes on until `end`, from place `done` to `most`, and
/// returns where it stopped. What is beyond is left out, as TensorFlow does.
///
/// # Errors
///
/// DATA_LOSS for malformed bytes; those of the sink and the system.
pub fn decode(
    stream: &mut Stream<'_>,
    end: u64,
    coding: Coding,
    mut done: u64,
    most: u64,
    sink: &mut dyn Sink,
) -> Result<u64> {
    while let Some(field) = stream.field(end)? {
        if field.number != u64::from(coding.field) {
            stream.skip(field, end)?;
            continue;
        }
        let single = match coding.kind {
            Kind::Fixed(4) => BITS32,
            Kind::Fixed(_) => BITS64,
            Kind::String => BYTES,
            _ => VARINT,
        };
        done = match (coding.kind, field.wire) {
            (Kind::String, BYTES) => string(stream, field.end, done, most, sink)?,
            (Kind::Fixed(width), BYTES)
                if (field.end - stream.at()).is_multiple_of(width as u64) =>
            {
                raw(stream, field.end, done, most, sink)?
            }
            (Kind::Fixed(_), wire) if wire == single => raw(stream, field.end, done, most, sink)?,
            (kind, VARINT) if single == VARINT => {
                let value = stream.varint(end)?;
                let mut bytes = Vec::new();
                kind.push(value, &mut bytes);
                hand_on(&bytes, done, most, sink)?
            }
            (kind, BYTES) if single == VARINT => {
                varints(stream, field.end, kind, done, most, sink)?
            }
            _ => return Err(malformed()),
        };
    }
    Ok(done)
}

fn hand_on(bytes: &[u8], done: u64, most: u64, sink: &mut dyn Sink) -> Result<u64> {
    let room = usize::try_from(most.saturating_sub(done)).unwrap_or(usize::MAX);
    let bytes = bytes.get(..room).unwrap_or(bytes);
    if !bytes.is_empty() {
        sink.take(done, bytes)?;
    }
    Ok(done + bytes.len() as u64)
}

fn raw(
    stream: &mut Stream<'_>,
    end: u64,
    mut done: u64,
    most: u64,
    sink: &mut dyn Sink,
) -> Result<u64> {
    while stream.at() < end && done < most {
        let needed = sink.next(done).max(done) - done;
        if needed > 0 {
            let skipped = needed.min(end - stream.at()).min(most - done);
            stream.skip_to(stream.at() + skipped);
            done += skipped;
            continue;
        }
        let bytes = stream.peek(end)?;
        if bytes.is_empty() {
            return Err(malformed());
        }
        let len = bytes.len() as u64;
        done = hand_on(bytes, done, most, sink)?;
        stream.skip_to(stream.at() + len);
    }
    stream.skip_to(end);
    Ok(done)
}

fn varints(
    stream: &mut Stream<'_>,
    end: u64,
    kind: Kind,
    mut done: u64,
    most: u64,
    sink: &mut dyn Sink,
) -> Result<u64> {
    let mut decoded = Vec::with_capacity(BATCH + 8);
    while stream.at() < end {
        decoded.clear();
        let here = stream.at();
        let bytes = stream.peek(end)?;
        let mut rest = bytes;
        let at_end = here + bytes.len() as u64 == end;
        // A varint that the window cuts is left for the next one.
        while !rest.is_empty()
            && decoded.len() < BATCH
            && (at_end || rest.len() >= coding::MAX_VARINT64)
        {
            let (value, after) = coding::get_varint64(rest).ok_or_else(malformed)?;
            kind.push(value, &mut decoded);
            rest = after;
        }
        let used = bytes.len() - rest.len();
        if used == 0 {
            return Err(malformed());
        }
        stream.skip_to(here + used as u64);
        done = hand_on(&decoded, done, most, sink)?;
    }
    Ok(done)
}

fn string(
    stream: &mut Stream<'_>,
    end: u64,
    done: u64,
    most: u64,
    sink: &mut dyn Sink,
) -> Result<u64> {
    if done >= most {
        stream.skip_to(end);
        return Ok(done);
    }
    if sink.next(done) == done {
        // Also an empty one is handed over.
        sink.take(done, &[])?;
        while stream.at() < end {
            let bytes = stream.peek(end)?;
            let len = bytes.len() as u64;
            if len == 0 {
                return Err(malformed());
            }
            sink.take(done, bytes)?;
            stream.skip_to(stream.at() + len);
        }
    }
    stream.skip_to(end);
    Ok(done + 1)
}
