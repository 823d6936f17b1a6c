//! Opens a bundle's index and answers what it says of a key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::data_files::DataFiles;
use super::entry::{DataExtent, Entry, Stored};
use super::header::Header;
use super::listing::Listing;
use super::sidecar::Sidecar;
use crate::error::{Code, Error, Result};
use crate::io::read::ReadFile;
use crate::naming;
use crate::slices::{self, SliceSet, TensorSlice};
use crate::table::{Cursor, TableReader};

/// An open V2 checkpoint. Reading needs `&self` only and may be done by several threads at once.
#[derive(Debug)]
pub struct BundleReader {
    prefix: PathBuf,
    table: TableReader,
    header: Header,
    data_files: DataFiles,
    /// Once it was asked for.
    sidecar: Mutex<Option<Arc<SidecarFound>>>,
}

/// What there is in the way of a sidecar.
#[derive(Debug)]
pub enum SidecarFound {
    /// Nothing.
    Missing,
    /// A file that is of no use; a verification tells why.
    Useless,
    /// One whose own checksum is right. Whether it is of this bundle, its entries tell.
    Sound(Sidecar),
}

impl BundleReader {
    /// Opens `<prefix>.index` and the data files that it names; a data file missing under `prefix`
    /// is looked for under `fallback`.
    ///
    /// # Errors
    ///
    /// NOT_FOUND without an index; DATA_LOSS when its footer, index block or the block of the header
    /// is damaged; INVALID_ARGUMENT for a version that must not be read; ABORTED when the checkpoint
    /// keeps being replaced.
    pub fn open(prefix: &Path, fallback: Option<&Path>) -> Result<Self> {
        let reader = Self::open_once(prefix, fallback)?;
        if reader.table.file().is_current() {
            return Ok(reader);
        }
        // A save replaced the checkpoint in between: the data files may be the new ones.
        let reader = Self::open_once(prefix, fallback)?;
        if reader.table.file().is_current() {
            return Ok(reader);
        }
        Err(Error::aborted("checkpoint was replaced while open")
            .with_file(reader.table.file().path()))
    }

    fn open_once(prefix: &Path, fallback: Option<&Path>) -> Result<Self> {
        let index = Arc::new(ReadFile::open(&naming::index_file(prefix))?);
        let mut table = TableReader::open(index.clone())?;
        let header = read_header(&mut table)?;
        let data_files = DataFiles::open(prefix, fallback, header.num_shards, index);
        Ok(Self {
            prefix: prefix.to_owned(),
            table,
            header,
            data_files,
            sidecar: Mutex::default(),
        })
    }

    /// The sidecar; opened, and gone through once, when it is asked for first.
    pub fn sidecar(&self) -> Arc<SidecarFound> {
        let mut known = self.sidecar.lock();
        if let Some(found) = known.as_ref() {
            return found.clone();
        }
        let found = match Sidecar::open(&naming::sidecar_file(&self.prefix)) {
            Ok(sidecar) => SidecarFound::Sound(sidecar),
            Err(error) if error.code() == Code::NotFound => SidecarFound::Missing,
            // That is no property of the file, and may pass.
            Err(error) if error.code() == Code::ResourceExhausted => {
                return Arc::new(SidecarFound::Useless);
            }
            Err(_) => SidecarFound::Useless,
        };
        known.insert(Arc::new(found)).clone()
    }

    /// The prefix it was opened by.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The index file.
    pub fn index_file(&self) -> &Path {
        self.table.file().path()
    }

    /// Number of data files.
    pub fn num_shards(&self) -> u32 {
        self.header.num_shards
    }

    /// Whether numbers in the data files are big-endian.
    pub fn is_big_endian(&self) -> bool {
        self.header.big_endian
    }

    /// The data file of a shard.
    ///
    /// # Errors
    ///
    /// The system's error naming the file; ABORTED when the checkpoint was replaced meanwhile.
    pub fn data_file(&self, shard_id: u32) -> Result<Arc<ReadFile>> {
        self.data_files.get(shard_id)
    }

    /// The entry of one key. For many, [`lookup`](Self::lookup) is faster.
    ///
    /// # Errors
    ///
    /// As [`Lookup::entry`].
    pub fn entry(&self, key: &[u8]) -> Result<Entry> {
        if !key.is_empty()
            && let Some(value) = self.table.peek(key)
            && let Ok(entry) = Entry::decode(key, &value, self.header.num_shards)
        {
            return Ok(entry);
        }
        self.lookup().entry(key)
    }

    /// Looks up many keys; fastest in ascending order.
    pub fn lookup(&self) -> Lookup<'_> {
        Lookup {
            reader: self,
            cursor: self.table.cursor(),
        }
    }

    /// Goes through all tensors in key order.
    pub fn list(&self) -> Listing<'_> {
        Listing::new(self, self.table.iter())
    }

    /// The extent that reaches furthest in each data file, slices included: what the data files must
    /// hold for the checkpoint to be complete.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when a block or an entry of the index is damaged.
    pub fn furthest_extents(&self) -> Result<Vec<DataExtent>> {
        let mut furthest: BTreeMap<u32, DataExtent> = BTreeMap::new();
        let mut entries = self.table.iter();
        while let Some(entry) = entries.next() {
            let (key, value) = entry?;
            if key.is_empty() {
                continue;
            }
            if let Stored::Whole(extent) = Entry::decode(key, value, self.header.num_shards)?.stored
            {
                let known = furthest.entry(extent.shard_id).or_insert(extent);
                if known.offset + known.size < extent.offset + extent.size {
                    *known = extent;
                }
            }
        }
        Ok(furthest.into_values().collect())
    }

    /// Checks that an extent lies inside its data file, and returns that file.
    ///
    /// # Errors
    ///
    /// OUT_OF_RANGE with TensorFlow's text when the file is too short; the file's own error.
    pub fn locate(&self, extent: &DataExtent) -> Result<Arc<ReadFile>> {
        let file = self.data_file(extent.shard_id)?;
        if extent.offset + extent.size > file.size() {
            return Err(Error::out_of_range("Read less bytes than requested")
                .with_file(file.path())
                .with_offset(extent.offset));
        }
        Ok(file)
    }
}

/// Reads the header, which must be the first entry.
///
/// # Errors
///
/// As [`BundleReader::open`].
pub(super) fn read_header(table: &mut TableReader) -> Result<Header> {
    let file = table.file().clone();
    let path = file.path();
    let unreadable = |what: &str| {
        format!(
            "Unable to read file ({}). Perhaps the file is corrupt or was produced by a newer version \
             of TensorFlow with format changes ({what})",
            path.display()
        )
    };
    let seek = "failed to seek to header entry";
    match table.load_first().and_then(|()| table.first()) {
        Ok(Some((key, value))) if key.is_empty() => Header::decode(&value).map_err(|error| {
            if error.code() == Code::DataLoss {
                error.with_prefix(format_args!("{}: ", unreadable("unable to parse header")))
            } else {
                error
            }
        }),
        Ok(_) => Err(Error::data_loss(unreadable(seek))),
        Err(error) => Err(error.with_prefix(format_args!("{}: ", unreadable(seek)))),
    }
    .map_err(|error| error.with_file(path))
}

/// A series of look-ups that share their place in the index.
pub struct Lookup<'a> {
    reader: &'a BundleReader,
    cursor: Cursor<'a>,
}

impl Lookup<'_> {
    /// The entry of `key`.
    ///
    /// # Errors
    ///
    /// NOT_FOUND with TensorFlow's text; DATA_LOSS when the entry, or the block it would be in, is
    /// damaged. All of them name key and index file.
    pub fn entry(&mut self, key: &[u8]) -> Result<Entry> {
        let found = self.find(key)?;
        found.ok_or_else(|| {
            let name = String::from_utf8_lossy(key);
            Error::not_found(format!("Key {name} not found in checkpoint"))
                .with_key(key)
                .with_file(self.reader.index_file())
        })
    }

    /// The entry of `key` if there is one.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, as [`entry`](Self::entry).
    pub fn find(&mut self, key: &[u8]) -> Result<Option<Entry>> {
        // The empty key is the header's and names no tensor.
        if key.is_empty() {
            return Ok(None);
        }
        let place = |error: Error| error.with_key(key).with_file(self.reader.index_file());
        match self.cursor.get(key).map_err(place)? {
            None => Ok(None),
            Some(value) => Entry::decode(key, value, self.reader.header.num_shards)
                .map(Some)
                .map_err(place),
        }
    }

    /// The entry of one slice of the partitioned tensor `key`, whose own entry is `full`.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when it is missing or does not fit the full tensor's entry.
    pub fn slice(&mut self, key: &[u8], full: &Entry, slice: &TensorSlice) -> Result<DataExtent> {
        let broken = |what: &str| {
            let name = String::from_utf8_lossy(key);
            Error::data_loss(format!("{what}; name={name} slice={slice}"))
                .with_key(key)
                .with_file(self.reader.index_file())
        };
        let found = self
            .find(&slices::key::encode(key, slice))
            .map_err(|error| {
                broken("entry of a slice is damaged")
                    .with_prefix(format_args!("{}: ", error.message()))
            })?;
        let entry = found.ok_or_else(|| broken("entry of a slice is missing"))?;
        let Stored::Whole(extent) = entry.stored else {
            return Err(broken("entry of a slice is itself partitioned"));
        };
        if entry.dtype != full.dtype || entry.shape != slice.shape_within(&full.shape)? {
            return Err(broken("entry of a slice does not fit its tensor"));
        }
        Ok(extent)
    }

    /// The stored slices of the partitioned tensor `key`.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when they do not fit the tensor or overlap.
    pub fn slice_set(
        &self,
        key: &[u8],
        shape: &crate::shape::Shape,
        slices: &[TensorSlice],
    ) -> Result<SliceSet> {
        SliceSet::new(shape, slices).map_err(|error| {
            error
                .with_verdict(Code::DataLoss)
                .with_key(key)
                .with_file(self.reader.index_file())
        })
    }
}
