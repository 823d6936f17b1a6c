//! Writes a V1 file, byte for byte as TensorFlow writes it.

use std::io::Write;

use super::meta::{self, DATA};
use super::tensor_proto::{Coding, Kind, coding};
use super::wire::BYTES;
use crate::coding::{put_varint, varint_len};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::{ChunkBuffer, SourceSpan};
use crate::proto::TensorSliceProto;
use crate::shape::Shape;
use crate::slices::{self, TensorSlice, key};
use crate::table::TableBuilder;
use prost::Message;

/// Largest record by TensorFlow's estimate in bytes; part of the persistent format.
const MAX_RECORD: u64 = 1 << 31;

/// What TensorFlow adds to its estimate for the TensorProto's header.
const ESTIMATED_HEADER: u64 = 1 << 10;

/// A tensor, or a slice of one, to be written.
#[derive(Debug)]
pub struct TensorToWrite<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Data type of the elements.
    pub dtype: DType,
    /// Shape of the full tensor.
    pub shape: Shape,
    /// What of it this is.
    pub slice: TensorSlice,
    /// The elements.
    pub values: Values<'a>,
}

/// Elements to be written, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Of a fixed size.
    Bytes(SourceSpan<'a>),
    /// Strings.
    Strings(&'a [SourceSpan<'a>]),
}

impl Values<'_> {
    /// Their bytes in memory.
    pub fn size(&self) -> u64 {
        match self {
            Values::Bytes(span) => span.len() as u64,
            Values::Strings(elements) => elements.iter().map(|span| span.len() as u64).sum(),
        }
    }
}

impl TensorToWrite<'_> {
    /// Whether the format can hold it.
    ///
    /// # Errors
    ///
    /// With TensorFlow's codes and texts: UNIMPLEMENTED or INVALID_ARGUMENT for a dtype,
    /// INVALID_ARGUMENT for a record that is too large. INVALID_ARGUMENT for a name that is not UTF-8,
    /// which TensorFlow could not read.
    pub fn check(&self) -> Result<()> {
        let dtype = self.dtype;
        let coding = coding(dtype).ok_or_else(|| match dtype {
            DType::Uint32 | DType::Uint64 => Error::invalid_argument(format!(
                "Tensor slice serialization not implemented for dtype {}",
                dtype as i32
            )),
            _ => Error::unimplemented(format!("Saving data type {dtype} not yet supported")),
        })?;
        if std::str::from_utf8(self.name).is_err() {
            return Err(Error::invalid_argument(
                "names in a checkpoint of format V1 must be UTF-8",
            ));
        }
        let num_elements = self.slice.shape_within(&self.shape)?.num_elements();
        let strings = match self.values {
            Values::Strings(_) => self.values.size(),
            Values::Bytes(_) => 0,
        };
        let estimate = num_elements
            .saturating_mul(coding.most)
            .saturating_add(strings)
            .saturating_add(ESTIMATED_HEADER + self.head().len() as u64);
        if estimate > MAX_RECORD {
            return Err(Error::invalid_argument(format!(
                "Tensor slice is too large to serialize (conservative estimate: {estimate} bytes)"
            )));
        }
        Ok(())
    }

    /// The fields of a `SavedSlice` before its values.
    fn head(&self) -> Vec<u8> {
        let slice: TensorSliceProto = slices::proto::encode(&self.slice);
        let mut head = Vec::with_capacity(self.name.len() + 16);
        put_tag(&mut head, 1);
        put_varint(&mut head, self.name.len() as u64);
        head.extend_from_slice(self.name);
        put_tag(&mut head, 2);
        put_varint(&mut head, slice.encoded_len() as u64);
        slice.encode_raw(&mut head);
        head
    }

    /// Everything of a record but its values, which take `len` bytes.
    fn frame(&self, coding: Coding, len: u64) -> Vec<u8> {
        // A tensor without elements has no field, and strings have one each.
        let packed = coding.kind != Kind::String && len > 0;
        let field_head = if packed {
            1 + varint_len(len) as u64
        } else {
            0
        };
        let proto_len = field_head + len;
        let head = self.head();
        let slice_len = head.len() as u64 + 1 + varint_len(proto_len) as u64 + proto_len;
        let mut frame = Vec::with_capacity(head.len() + 32);
        put_tag(&mut frame, DATA);
        put_varint(&mut frame, slice_len);
        frame.extend_from_slice(&head);
        put_tag(&mut frame, 3);
        put_varint(&mut frame, proto_len);
        if packed {
            put_tag(&mut frame, u64::from(coding.field));
            put_varint(&mut frame, len);
        }
        frame
    }
}

fn put_tag(out: &mut Vec<u8>, field: u64) {
    put_varint(out, field << 3 | BYTES);
}

/// A file to be written: what of it does not depend on the values.
#[derive(Debug)]
pub struct Plan<'a> {
    meta: Vec<u8>,
    /// Keys and tensors in the order of the keys.
    records: Vec<(Vec<u8>, &'a TensorToWrite<'a>)>,
}

/// Told of every piece of the tensors' memory that was written, in bytes; may end the writing.
pub type Written<'a> = dyn FnMut(u64) -> Result<()> + 'a;

impl<'a> Plan<'a> {
    /// A file of `tensors`, which have been checked, each and together.
    pub fn new(tensors: &'a [TensorToWrite<'a>]) -> Self {
        let mut by_name: Vec<&TensorToWrite<'a>> = tensors.iter().collect();
        // Stable, as TensorFlow's sort is for up to 16 of them.
        by_name.sort_by_key(|tensor| tensor.name);
        let groups = by_name.chunk_by(|a, b| a.name == b.name);
        let meta = meta::encode(groups.filter_map(|group| {
            let first = group.first()?;
            let slices = group.iter().map(|tensor| &tensor.slice).collect();
            Some((first.name, first.dtype, &first.shape, slices))
        }));
        let mut records: Vec<_> = tensors
            .iter()
            .map(|tensor| (key::encode(tensor.name, &tensor.slice), tensor))
            .collect();
        records.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Self { meta, records }
    }

    /// Writes the file to `sink` through `buffer`.
    ///
    /// A record below 512 KiB is put together in memory. A larger one is measured first and then
    /// written piece by piece, so that its length can stand before it.
    ///
    /// # Errors
    ///
    /// The sink's; those of `written`; ABORTED naming the tensor if the elements of a large one were
    /// changed between the two, so that they would take another number of bytes.
    pub fn write<W: Write>(
        &self,
        sink: W,
        buffer: &mut ChunkBuffer,
        written: &mut Written<'_>,
    ) -> Result<W> {
        let mut table = TableBuilder::new(sink);
        table.add(b"", &self.meta)?;
        for (key, tensor) in &self.records {
            add(&mut table, key, tensor, buffer, written)
                .map_err(|error| error.with_key(tensor.name))?;
        }
        table.finish()
    }
}

fn add<W: Write>(
    table: &mut TableBuilder<W>,
    key: &[u8],
    tensor: &TensorToWrite<'_>,
    buffer: &mut ChunkBuffer,
    written: &mut Written<'_>,
) -> Result<()> {
    let coding =
        coding(tensor.dtype).ok_or_else(|| Error::internal("a dtype that was not checked"))?;
    let mut len = 0;
    encode(tensor, coding.kind, Pass::Measure, buffer, &mut |piece| {
        len += piece.len;
        Ok(())
    })?;
    let frame = tensor.frame(coding, len);
    if TableBuilder::<W>::is_large(key, frame.len() as u64 + len) {
        let value_len = frame.len() as u64 + len;
        return table.add_large(key, value_len, &mut |put| {
            put(&frame)?;
            encode(tensor, coding.kind, Pass::Write, buffer, &mut |piece| {
                put(piece.bytes)?;
                written(piece.memory)
            })
        });
    }
    let mut values = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    encode(tensor, coding.kind, Pass::Write, buffer, &mut |piece| {
        values.extend_from_slice(piece.bytes);
        written(piece.memory)
    })?;
    // Of what was copied, whatever was measured.
    let mut value = tensor.frame(coding, values.len() as u64);
    value.extend_from_slice(&values);
    table.add(key, &value)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Measure,
    Write,
}

/// Some elements, encoded.
struct Piece<'a> {
    /// Their bytes; none when they are only measured.
    bytes: &'a [u8],
    len: u64,
    /// Bytes in memory.
    memory: u64,
}

/// Hands the encoded elements over, piece by piece, in order.
fn encode(
    tensor: &TensorToWrite<'_>,
    kind: Kind,
    pass: Pass,
    buffer: &mut ChunkBuffer,
    take: &mut dyn FnMut(Piece<'_>) -> Result<()>,
) -> Result<()> {
    match &tensor.values {
        Values::Bytes(span) => {
            let constant = matches!(kind, Kind::Fixed(_) | Kind::Bool);
            if pass == Pass::Measure && constant {
                return take(Piece {
                    bytes: &[],
                    len: span.len() as u64,
                    memory: 0,
                });
            }
            // A varint has up to ten times the bytes of its element.
            let step = ((buffer.capacity() / 10) & !15).max(16);
            let mut encoded = Vec::with_capacity(step);
            for_pieces(span, step, buffer, &mut |memory| {
                let len = match pass {
                    Pass::Measure => kind.encoded_len(memory),
                    Pass::Write => {
                        encoded.clear();
                        kind.encode(memory, &mut encoded);
                        encoded.len() as u64
                    }
                };
                take(Piece {
                    bytes: &encoded,
                    len,
                    memory: memory.len() as u64,
                })
            })
        }
        Values::Strings(elements) => {
            let mut head = Vec::new();
            for element in *elements {
                head.clear();
                put_tag(&mut head, 8);
                put_varint(&mut head, element.len() as u64);
                if pass == Pass::Measure {
                    take(Piece {
                        bytes: &[],
                        len: (head.len() + element.len()) as u64,
                        memory: 0,
                    })?;
                    continue;
                }
                take(Piece {
                    bytes: &head,
                    len: head.len() as u64,
                    memory: 0,
                })?;
                let step = buffer.capacity();
                for_pieces(element, step, buffer, &mut |memory| {
                    take(Piece {
                        bytes: memory,
                        len: memory.len() as u64,
                        memory: memory.len() as u64,
                    })
                })?;
            }
            Ok(())
        }
    }
}

/// Copies `span` through `buffer`, `step` bytes at a time.
fn for_pieces(
    span: &SourceSpan<'_>,
    step: usize,
    buffer: &mut ChunkBuffer,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while done < span.len() {
        let len = step.min(span.len() - done);
        buffer.clear();
        let copied = buffer.append(span, done, len);
        take(copied.ok_or_else(|| Error::internal("a piece outgrew its buffer"))?)?;
        done += len;
    }
    Ok(())
}
