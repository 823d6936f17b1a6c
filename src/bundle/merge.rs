//! Merges the indexes of several bundles into one, byte for byte as TensorFlow's MergeV2Checkpoints.
//!
//! Each bundle is read from beginning to end and closed before the next one is opened, so that a
//! thousand of them take one descriptor. What is kept of them is the merged index itself, encoded.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{DataExtent, Entry, KeyText, Stored};
use super::header::Header;
use super::reader::read_header;
use crate::coding;
use crate::error::{Code, Error, Result};
use crate::io::read::ReadFile;
use crate::naming;
use crate::slices::SliceSet;
use crate::table::{TableBuilder, TableReader};

/// A data file of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFile {
    /// Where it is.
    pub path: PathBuf,
    /// Where its last entry ends, in bytes.
    pub min_size: u64,
}

/// Bundles that are being merged: the parts.
#[derive(Debug, Default)]
pub struct BundleMerge {
    parts: Vec<Part>,
    records: Vec<Record>,
    /// Keys and encoded entries, one after the other.
    bytes: Vec<u8>,
    /// The full entry of each partitioned tensor, which grows with the parts, and its record.
    partitioned: HashMap<Vec<u8>, (usize, Entry)>,
    files: Vec<PartFile>,
    /// Of the first part.
    header: Option<Header>,
    /// `records` in key order; made by [`check`](Self::check).
    order: Vec<u32>,
}

#[derive(Debug)]
struct Part {
    prefix: PathBuf,
    first_record: usize,
}

/// An entry of the merged index.
#[derive(Debug)]
struct Record {
    /// Where the key begins in `bytes`.
    start: usize,
    key_size: usize,
    /// Size of the value, which follows the key; 0 for the full entry of a partitioned tensor, whose
    /// value is not known before the end.
    value_size: usize,
}

impl BundleMerge {
    /// Reads all of `<prefix>.index`. A part without tensors adds nothing.
    ///
    /// # Errors
    ///
    /// As [`super::BundleReader::open`]; DATA_LOSS for a damaged block or entry; INVALID_ARGUMENT, with
    /// TensorFlow's text where it has one, when the part does not go with the others. Nothing can be done
    /// with the merge after an error.
    pub fn add(&mut self, prefix: &Path) -> Result<()> {
        let index = Arc::new(ReadFile::open(&naming::index_file(prefix))?);
        let mut table = TableReader::open(index)?;
        let header = read_header(&mut table)?;
        let num_shards = header.num_shards;
        self.join(header)
            .map_err(|error| error.with_file(table.file().path()))?;
        self.parts.push(Part {
            prefix: prefix.to_owned(),
            first_record: self.records.len(),
        });
        let mut numbers = Numbers {
            prefix,
            num_shards,
            known: HashMap::new(),
            last: None,
        };
        let mut entries = table.iter();
        while let Some(entry) = entries.next() {
            let (key, value) = entry?;
            if key.is_empty() {
                continue;
            }
            Entry::decode(key, value, num_shards)
                .and_then(|entry| self.add_entry(key, entry, &mut numbers))
                .map_err(|error| error.with_key(key).with_file(table.file().path()))?;
        }
        Ok(())
    }

    /// Compares the header with that of the first part, whose version and byte order the whole has.
    fn join(&mut self, header: Header) -> Result<()> {
        let Some(first) = &self.header else {
            self.header = Some(header);
            return Ok(());
        };
        if first.big_endian != header.big_endian {
            return Err(Error::invalid_argument(
                "Merging bundles with conflicting endianness; inputs corrupted?",
            ));
        }
        if first.version != header.version {
            return Err(Error::invalid_argument(format!(
                "Merging bundles with different format versions: merged {} vs. curr {}",
                first.version_text(),
                header.version_text()
            )));
        }
        Ok(())
    }

    fn add_entry(&mut self, key: &[u8], mut entry: Entry, numbers: &mut Numbers<'_>) -> Result<()> {
        if let Stored::Slices { slices, shard_id } = &mut entry.stored {
            if let Some((_, full)) = self.partitioned.get_mut(key) {
                if (full.dtype, &full.shape) != (entry.dtype, &entry.shape) {
                    return Err(Error::invalid_argument(format!(
                        "slices of one tensor disagree; dtype={} and {}, shape={} and {}",
                        full.dtype, entry.dtype, full.shape, entry.shape
                    )));
                }
                if let Stored::Slices { slices: known, .. } = &mut full.stored {
                    known.append(slices);
                }
                return Ok(());
            }
            // Without a meaning, but TensorFlow translates it.
            *shard_id = numbers.get(*shard_id, &mut self.files)?.number;
            let record = self.push(key, None);
            self.partitioned.insert(key.to_owned(), (record, entry));
            return Ok(());
        }
        if let Stored::Whole(extent) = &mut entry.stored {
            let file = numbers.get(extent.shard_id, &mut self.files)?;
            *file.min_size = (*file.min_size).max(extent.offset + extent.size);
            extent.shard_id = file.number;
        }
        self.push(key, Some(&entry));
        Ok(())
    }

    /// Appends a record and returns its number.
    fn push(&mut self, key: &[u8], entry: Option<&Entry>) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        if let Some(entry) = entry {
            entry.append_to(&mut self.bytes);
        }
        self.records.push(Record {
            start,
            key_size: key.len(),
            value_size: self.bytes.len() - start - key.len(),
        });
        self.records.len() - 1
    }

    /// Checks all keys together. To be called when all parts have been added.
    ///
    /// # Errors
    ///
    /// With TensorFlow's codes and texts, for a key that two parts have: INVALID_ARGUMENT, but INTERNAL
    /// for a whole tensor of which an earlier part has slices. INVALID_ARGUMENT too for slices that do not
    /// fit their tensor or overlap: TensorFlow writes these, but nobody can read them.
    pub fn check(&mut self) -> Result<()> {
        let key = |number: usize| self.records.get(number).map_or(&[][..], |r| self.key(r));
        let coding::KeyOrder { order, duplicate } = coding::key_order(self.records.len(), key);
        if let Some(number) = duplicate {
            let number = number as usize;
            return Err(self.duplicate(number, key(number)));
        }
        self.order = order;
        for (key, (_, entry)) in &self.partitioned {
            if let Stored::Slices { slices, .. } = &entry.stored {
                SliceSet::new(&entry.shape, slices)
                    .map_err(|error| error.with_verdict(Code::InvalidArgument).with_key(key))?;
            }
        }
        Ok(())
    }

    /// The error for a record that repeats the key of an earlier one.
    fn duplicate(&self, number: usize, key: &[u8]) -> Error {
        let name = KeyText(key);
        let part = self
            .parts
            .partition_point(|part| part.first_record <= number);
        let part = part.checked_sub(1).and_then(|part| self.parts.get(part));
        let prefix = part.map_or(Path::new(""), |part| &part.prefix);
        let earlier_has_slices =
            matches!(self.partitioned.get(key), Some(&(first, _)) if first < number);
        let error = if earlier_has_slices {
            Error::internal(format!(
                "Duplicate tensor keyed by {name}; attempting to merge in a non-slice bundle entry"
            ))
        } else {
            Error::invalid_argument(format!(
                "Duplicate tensor keyed by {name} encountered, when merging prefix: {}",
                prefix.display()
            ))
        };
        error.with_key(key).with_file(&naming::index_file(prefix))
    }

    /// The data files of the parts in the order of their numbers in the merged bundle. One that no entry
    /// names is left out.
    pub fn files(&self) -> &[PartFile] {
        &self.files
    }

    /// Where the tensor or slice of this key is stored. [`check`](Self::check) has been called.
    pub fn find(&self, key: &[u8]) -> Option<DataExtent> {
        let record = |number: &u32| self.records.get(*number as usize);
        let found = self
            .order
            .binary_search_by(|number| record(number).map_or(&[][..], |r| self.key(r)).cmp(key));
        let record = self.order.get(found.ok()?).and_then(record)?;
        let start = record.start + record.key_size;
        let value = self.bytes.get(start..start + record.value_size)?;
        let num_shards = u32::try_from(self.files.len()).ok()?;
        match Entry::decode(key, value, num_shards).ok()?.stored {
            Stored::Whole(extent) => Some(extent),
            Stored::Slices { .. } => None,
        }
    }

    /// Number of tensors and slices.
    pub fn num_entries(&self) -> usize {
        self.records.len() - self.partitioned.len()
    }

    /// Writes the merged index to `sink` and returns it.
    ///
    /// # Errors
    ///
    /// Those of `sink`; INVALID_ARGUMENT for more data files than the format can count.
    pub fn finish<W: Write>(self, sink: W) -> Result<W> {
        let mut table = TableBuilder::new(sink);
        let num_shards = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let header = match &self.header {
            Some(header) => Header {
                num_shards,
                ..header.clone()
            },
            None => Header::new(num_shards),
        };
        table.add(b"", &header.encode()?)?;
        let mut full = Vec::new();
        for record in self
            .order
            .iter()
            .filter_map(|&n| self.records.get(n as usize))
        {
            let key = self.key(record);
            let start = record.start + record.key_size;
            let value = self.bytes.get(start..start + record.value_size);
            match self.partitioned.get(key) {
                Some((_, entry)) if record.value_size == 0 => {
                    entry.encode(&mut full);
                    table.add(key, &full)?;
                }
                _ => table.add(key, value.unwrap_or_default())?,
            }
        }
        table.finish()
    }

    fn key(&self, record: &Record) -> &[u8] {
        let end = record.start + record.key_size;
        self.bytes.get(record.start..end).unwrap_or_default()
    }
}

/// The numbers that the data files of one part get, first come, first served.
struct Numbers<'a> {
    prefix: &'a Path,
    num_shards: u32,
    known: HashMap<u32, u32>,
    /// The shard asked for last and its number: mostly it is asked for again.
    last: Option<(u32, u32)>,
}

struct Numbered<'a> {
    number: u32,
    min_size: &'a mut u64,
}

impl Numbers<'_> {
    /// The number of a shard; its file joins `files` when it is asked for first.
    fn get<'f>(&mut self, shard_id: u32, files: &'f mut Vec<PartFile>) -> Result<Numbered<'f>> {
        let known = match self.last {
            Some((last, number)) if last == shard_id => Some(number),
            _ => self.known.get(&shard_id).copied(),
        };
        let number = match known {
            Some(number) => number,
            None if shard_id < self.num_shards => {
                let number = u32::try_from(files.len()).unwrap_or(u32::MAX);
                files.push(PartFile {
                    path: naming::data_file(self.prefix, shard_id, self.num_shards),
                    min_size: 0,
                });
                self.known.insert(shard_id, number);
                number
            }
            None => {
                return Err(Error::data_loss(format!(
                    "shard does not exist; shard_id={shard_id} num_shards={}",
                    self.num_shards
                )));
            }
        };
        self.last = Some((shard_id, number));
        let file = usize::try_from(number).ok().and_then(|n| files.get_mut(n));
        let file = file.ok_or_else(|| Error::internal("a data file lost its number"))?;
        Ok(Numbered {
            number,
            min_size: &mut file.min_size,
        })
    }
}
