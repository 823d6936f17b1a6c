//! Opens the files of a V1 checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::meta::{self, DATA, Tensor, Tensors};
use super::tensor_proto::{Coding, Kind, Sink, coding, decode};
use super::wire::{BYTES, Stream};
use crate::error::{Code, Error, Result};
use crate::io::read::ReadFile;
use crate::slices::{TensorSlice, key};
use crate::table::{self, TableReader};

/// Largest block in bytes that is held while a file is opened; other than in a table of one huge
/// record, no writer makes larger ones of several.
const OPENING: u64 = 1 << 20;

/// Most elements that a byte of a file can stand for: a bool, Snappy's densest.
const DENSEST: u64 = 22;

/// An open V1 checkpoint: its tables, and what their first records say.
#[derive(Debug)]
pub struct V1Reader {
    prefix: PathBuf,
    shards: Vec<TableReader>,
    tensors: Tensors,
}

impl V1Reader {
    /// Opens `files`, all of the checkpoint that is called `prefix`.
    ///
    /// # Errors
    ///
    /// With TensorFlow's texts: DATA_LOSS for a file that is no table, INTERNAL for one whose first
    /// record cannot be read or contradicts another's. The system's errors.
    pub fn open(prefix: &Path, files: &[PathBuf]) -> Result<Self> {
        let mut reader = Self {
            prefix: prefix.to_owned(),
            shards: Vec::with_capacity(files.len()),
            tensors: Tensors::new(),
        };
        for path in files {
            reader.load(path).map_err(|error| error.with_file(path))?;
        }
        meta::check(&reader.tensors).map_err(|error| error.with_file(prefix))?;
        Ok(reader)
    }

    fn load(&mut self, path: &Path) -> Result<()> {
        let table = ReadFile::open(path).and_then(|file| TableReader::open(Arc::new(file)));
        let table = table.map_err(|error| unusable(path, &error))?;
        let unreadable = |reason: &str| {
            Error::internal(format!(
                "Failed to find the saved tensor slices at the beginning of the checkpoint file: {}; \
                 {reason}",
                path.display()
            ))
        };
        let mut values = table::Values::new(&table, OPENING);
        let value = match values.get(b"", Some(&mut || Ok(()))) {
            Ok(Some(value)) => value,
            Ok(None) => return Err(unreadable("there is no such record")),
            Err(error) if error.code() == Code::DataLoss => {
                return Err(unreadable(error.message()).with_offset(error.offset().unwrap_or(0)));
            }
            Err(error) => return Err(error),
        };
        let window = usize::try_from(OPENING).unwrap_or(usize::MAX);
        let shard = self.shards.len();
        let loaded = meta::read(&mut Stream::new(value, window), shard, &mut self.tensors);
        loaded.map_err(|error| match error.code() {
            Code::DataLoss => {
                let described = unreadable(error.message());
                match error.key() {
                    Some(key) => described.with_key(key),
                    None => described,
                }
            }
            _ => error,
        })?;
        self.shards.push(table);
        Ok(())
    }

    /// The path that was opened.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Number of files.
    pub fn num_shards(&self) -> usize {
        self.shards.len()
    }

    /// All tensors in the order of their names, each with what is wrong with it.
    pub fn tensors(&self) -> impl Iterator<Item = (&[u8], Result<&Tensor>)> {
        let tensors = self.tensors.iter();
        tensors.map(|(name, tensor)| (name.as_slice(), self.checked(name, tensor)))
    }

    /// Number of tensors.
    pub fn num_tensors(&self) -> usize {
        self.tensors.len()
    }

    /// The tensors after `name`, or all.
    pub fn after(&self, name: Option<&[u8]>) -> Option<(&[u8], Result<&Tensor>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = name.map_or(Unbounded, Excluded);
        let (name, tensor) = self.tensors.range::<[u8], _>((from, Unbounded)).next()?;
        Some((name, self.checked(name, tensor)))
    }

    /// What the files say of one tensor.
    ///
    /// # Errors
    ///
    /// NOT_FOUND with TensorFlow's text; DATA_LOSS for what cannot be in files of this size.
    pub fn tensor(&self, name: &[u8]) -> Result<&Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => self.checked(name, tensor),
            None => Err(Error::not_found(format!(
                "Tensor name \"{}\" not found in checkpoint files {}",
                String::from_utf8_lossy(name),
                self.prefix.display()
            ))
            .with_file(&self.prefix)),
        }
    }

    fn checked<'t>(&self, name: &[u8], tensor: &'t Tensor) -> Result<&'t Tensor> {
        tensor.dtype().map_err(|error| error.with_key(name))?;
        for (slice, shard) in &tensor.slices {
            let size = self
                .shards
                .get(*shard)
                .map_or(0, |table| table.file().size());
            if slice.shape_within(&tensor.shape)?.num_elements() > size.saturating_mul(DENSEST) {
                return Err(Error::data_loss(format!(
                    "more elements than the file can hold; shape={} slice={slice}",
                    tensor.shape
                ))
                .with_key(name)
                .with_file(&self.prefix));
            }
        }
        Ok(tensor)
    }

    /// Bytes that it takes to read a slice, if it is compressed; else 0.
    ///
    /// # Errors
    ///
    /// DATA_LOSS; the system's errors.
    pub fn compressed_size(&self, name: &[u8], slice: &TensorSlice, shard: usize) -> Result<u64> {
        let table = self.shard(shard)?;
        let size = table::Values::compressed_size(table, &key::encode(name, slice))?;
        Ok(size.unwrap_or(0))
    }

    fn shard(&self, shard: usize) -> Result<&TableReader> {
        self.shards
            .get(shard)
            .ok_or_else(|| Error::internal("no such file of the checkpoint"))
    }

    /// Reads records, with at most `limit` bytes of memory.
    pub fn records(&self, limit: u64) -> Records<'_> {
        Records {
            reader: self,
            limit,
            values: None,
        }
    }
}

/// Reads one record after the other; fast in ascending order of file and key.
#[derive(Debug)]
pub struct Records<'a> {
    reader: &'a V1Reader,
    limit: u64,
    /// The file read last.
    values: Option<(usize, table::Values<'a>)>,
}

impl Records<'_> {
    /// Reads the values of `slice` of the tensor called `name` in file number `shard`, and gives
    /// `sink` all of them, in order. Without `verify`, a record too large to be held is not verified.
    ///
    /// # Errors
    ///
    /// DATA_LOSS naming file and offset when the record is missing, damaged or too short;
    /// RESOURCE_EXHAUSTED if it is compressed and too large; UNIMPLEMENTED for a dtype that the format
    /// does not have; those of the system and the sink.
    pub fn read(
        &mut self,
        name: &[u8],
        tensor: &Tensor,
        (slice, shard): (&TensorSlice, usize),
        verify: bool,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let dtype = tensor.dtype()?;
        let coding = coding(dtype).ok_or_else(|| {
            Error::unimplemented(format!("Restoring data type {dtype} not yet supported"))
        })?;
        let num_elements = slice.shape_within(&tensor.shape)?.num_elements();
        let most = match (coding.kind, dtype.size()) {
            (Kind::String, _) | (_, None) => num_elements,
            (_, Some(size)) => num_elements.saturating_mul(size as u64),
        };
        let table = self.reader.shard(shard)?;
        let file = table.file();
        // A held block, and a window on a record that is not.
        let block_limit = self.limit / 2;
        let window = usize::try_from(self.limit / 4).unwrap_or(usize::MAX);
        if self.values.as_ref().is_none_or(|(at, _)| *at != shard) {
            self.values = None;
        }
        let (_, values) = self
            .values
            .get_or_insert_with(|| (shard, table::Values::new(table, block_limit)));
        let key = key::encode(name, slice);
        let mut tick = || sink.tick();
        let tick: Option<&mut table::Tick<'_>> = if verify { Some(&mut tick) } else { None };
        let value = values.get(&key, tick)?.ok_or_else(|| {
            Error::data_loss(format!("there is no record of slice {slice}")).with_file(file.path())
        })?;
        let offset = match value {
            table::Value::Held(_) => None,
            table::Value::InFile { offset, .. } => Some(offset),
        };
        let place = |error: Error| {
            let error = error.with_file(file.path());
            match offset {
                Some(offset) => error.with_offset(offset),
                None => error,
            }
        };
        let done = values_in(&mut Stream::new(value, window), coding, most, sink).map_err(place)?;
        if done < most {
            return Err(place(Error::data_loss(format!(
                "the record of slice {slice} has too few values; have={done} expected={most}"
            ))));
        }
        Ok(())
    }
}

/// Finds the TensorProto in a record and decodes it.
fn values_in(
    stream: &mut Stream<'_>,
    coding: Coding,
    most: u64,
    sink: &mut dyn Sink,
) -> Result<u64> {
    /// Field of a `SavedSlice` with its TensorProto.
    const VALUES: u64 = 3;
    let mut done = 0;
    let size = stream.size();
    while let Some(field) = stream.field(size)? {
        if field.number != DATA || field.wire != BYTES {
            stream.skip(field, size)?;
            continue;
        }
        while let Some(inner) = stream.field(field.end)? {
            if inner.number == VALUES && inner.wire == BYTES {
                done = decode(stream, inner.end, coding, done, most, sink)?;
            } else {
                stream.skip(inner, field.end)?;
            }
        }
    }
    Ok(done)
}

/// TensorFlow's words for a file that is no table. What says nothing about the file keeps its code.
fn unusable(path: &Path, error: &Error) -> Error {
    let code = match error.code() {
        Code::DataLoss | Code::OutOfRange | Code::FailedPrecondition | Code::InvalidArgument => {
            Code::DataLoss
        }
        other => other,
    };
    Error::new(
        code,
        format!(
            "Unable to open table file {}: {}: {}: perhaps your file is in a different file format and \
             you need to use a different restore operator?",
            path.display(),
            error.code(),
            error.message()
        ),
    )
}
