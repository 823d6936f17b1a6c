//! The reader of a checkpoint, whatever its format.

use std::path::Path;
use std::time::Instant;

use super::manage::Format;
use super::open::Opened;
use super::restore::{RestoreOptions, RestoreOutcome};
use super::restore_rounds::{self, RestoreFormat};
use super::tensor::RestoreTensor;
use super::view::{self, View, ViewOptions};
use super::{measure, open, verify, verify_v1};
use crate::bundle::{DataExtent, Entry, Listing, Stored};
use crate::coding;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::transfer::Call;
use crate::v1::{Tensor, V1Reader};

/// An open checkpoint. Any number of threads may use it at once.
///
/// Of a V2 checkpoint the index and up to 256 data files are open, so that they stay readable when
/// retention deletes it; a sidecar is opened when it is first needed. Of the index only the first block
/// and the one read last are held in memory. Of a V1 checkpoint all files are open, and names and shapes
/// are held.
#[derive(Debug)]
pub struct Reader(Opened);

impl Reader {
    /// Opens the checkpoint at `prefix`, which is taken literally.
    ///
    /// # Errors
    ///
    /// NOT_FOUND when there is none; DATA_LOSS when its index cannot be read; INVALID_ARGUMENT when
    /// `prefix` is the path of one of a checkpoint's files, or the version is not for this library.
    pub fn open(prefix: &Path) -> Result<Self> {
        open::open(prefix).map(Self)
    }

    /// The prefix that was opened.
    pub fn prefix(&self) -> &Path {
        match &self.0 {
            Opened::V2(reader) => reader.prefix(),
            Opened::V1(reader) => reader.prefix(),
        }
    }

    /// The format of its files.
    pub fn format(&self) -> Format {
        match &self.0 {
            Opened::V2(_) => Format::V2,
            Opened::V1(_) => Format::V1,
        }
    }

    /// Number of data files; of a V1 checkpoint, of all files.
    pub fn num_shards(&self) -> u32 {
        match &self.0 {
            Opened::V2(reader) => reader.num_shards(),
            Opened::V1(reader) => u32::try_from(reader.num_shards()).unwrap_or(u32::MAX),
        }
    }

    /// Number of tensors, those whose entry is damaged included. Goes through the index.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when a block of the index is damaged.
    pub fn num_tensors(&self) -> Result<usize> {
        let mut listing = match &self.0 {
            Opened::V2(reader) => reader.list(),
            Opened::V1(reader) => return Ok(reader.num_tensors()),
        };
        let mut num = 0;
        while listing.next()?.is_some() {
            num += 1;
        }
        Ok(num)
    }

    /// Goes through all tensors in key order.
    pub fn entries(&self) -> Entries<'_> {
        Entries(match &self.0 {
            Opened::V2(reader) => Place::V2(Box::new(reader.list())),
            Opened::V1(reader) => Place::V1(reader, None),
        })
    }

    /// What the index says of one tensor.
    ///
    /// # Errors
    ///
    /// NOT_FOUND; DATA_LOSS when its entry, or the block it would be in, is damaged.
    pub fn find(&self, key: &[u8]) -> Result<TensorInfo> {
        match &self.0 {
            Opened::V2(reader) => {
                let entry = reader.entry(key)?;
                Ok(TensorInfo::new(key.to_owned(), entry))
            }
            Opened::V1(reader) => TensorInfo::of_v1(key, reader.tensor(key)?),
        }
    }

    /// What the index says of each of `keys`, in their order; errors as in [`find`](Self::find).
    pub fn find_all(&self, keys: &[&[u8]]) -> Vec<Result<TensorInfo>> {
        let reader = match &self.0 {
            Opened::V2(reader) => reader,
            Opened::V1(_) => return keys.iter().map(|key| self.find(key)).collect(),
        };
        let mut found: Vec<Option<Result<TensorInfo>>> = keys.iter().map(|_| None).collect();
        let mut lookup = reader.lookup();
        // In key order the look-ups go through the index once.
        let key = |index: usize| keys.get(index).copied().unwrap_or_default();
        for index in coding::key_order(keys.len(), key).order {
            let index = index as usize;
            if let (Some(key), Some(slot)) = (keys.get(index), found.get_mut(index)) {
                let entry = lookup.entry(key);
                *slot = Some(entry.map(|entry| TensorInfo::new((*key).to_owned(), entry)));
            }
        }
        found.into_iter().flatten().collect()
    }

    /// Hands the data type and shape of each of `num` tensors, or slices of tensors, to `each`, by its
    /// index and in any order; errors as in [`restore`](Self::restore), as far as they are known before
    /// anything is read. `wanted` gives the key and the slice spec, which is empty for a whole tensor.
    pub fn measure<'k>(
        &self,
        num: usize,
        wanted: impl Fn(usize) -> (&'k [u8], &'k str),
        each: impl FnMut(usize, Result<(DType, Shape)>),
    ) {
        measure::measure(&self.0, num, wanted, each);
    }

    /// Restores `tensors`; see [`RestoreOutcome`].
    ///
    /// # Errors
    ///
    /// Only those that concern no single tensor: destinations that overlap, no memory.
    pub fn restore(
        &self,
        tensors: &mut [RestoreTensor<'_>],
        options: &RestoreOptions,
        call: &mut Call<'_>,
    ) -> Result<RestoreOutcome> {
        let started = Instant::now();
        let format: &dyn RestoreFormat = match &self.0 {
            Opened::V2(reader) => &**reader,
            Opened::V1(reader) => reader,
        };
        let outcome = restore_rounds::restore(format, tensors, options, call);
        call.finish(started);
        outcome
    }

    /// Maps the tensor `key` where it lies in its data file.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION for data that cannot be used in place.
    pub fn view(&self, key: &[u8], options: ViewOptions) -> Result<View> {
        match &self.0 {
            Opened::V2(reader) => view::view(reader, key, options),
            Opened::V1(reader) => Err(Error::failed_precondition(
                "tensors of a V1 checkpoint cannot be used in place",
            )
            .with_key(key)
            .with_file(reader.prefix())),
        }
    }

    /// Checks every checksum and hands each thing that is broken to `damage`.
    ///
    /// # Errors
    ///
    /// Only what keeps the checkpoint from being verified at all: CANCELLED, no memory.
    pub fn verify(&self, damage: &mut dyn FnMut(Error), call: &mut Call<'_>) -> Result<()> {
        let started = Instant::now();
        let verified = match &self.0 {
            Opened::V2(reader) => verify::verify(reader, damage, call),
            Opened::V1(reader) => verify_v1::verify(reader, damage, call),
        };
        call.finish(started);
        verified
    }
}

/// An iteration over the tensors of a checkpoint, in key order.
pub struct Entries<'a>(Place<'a>);

enum Place<'a> {
    V2(Box<Listing<'a>>),
    /// The name delivered last.
    V1(&'a V1Reader, Option<Vec<u8>>),
}

impl Entries<'_> {
    /// The next tensor: its key, lent until the next call, and what the index says of it, or what is
    /// wrong with its entry. `None` at the end.
    ///
    /// # Errors
    ///
    /// DATA_LOSS, once and at the end, when a block of the index is damaged: the entries of all other
    /// blocks have been delivered then.
    #[expect(
        clippy::should_implement_trait,
        reason = "the outer result ends the iteration, and the key is lent"
    )]
    pub fn next(&mut self) -> Result<Option<(&[u8], Result<TensorInfo>)>> {
        let mut info = None;
        let Some((key, damage)) = self.next_into(&mut info)? else {
            return Ok(None);
        };
        Ok(info.map(Ok).or(damage.map(Err)).map(|info| (key, info)))
    }

    /// As [`next`](Self::next), for one who asks for many in turn: a sound entry is put into `info`, whose
    /// memory is used again, and what is wrong with a damaged one is returned.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub(crate) fn next_into(
        &mut self,
        info: &mut Option<TensorInfo>,
    ) -> Result<Option<(&[u8], Option<Error>)>> {
        let mut memory = info.take().map(|info| info.key).unwrap_or_default();
        let listing = match &mut self.0 {
            Place::V2(listing) => listing,
            Place::V1(reader, last) => {
                let Some((name, tensor)) = reader.after(last.as_deref()) else {
                    return Ok(None);
                };
                *last = Some(name.to_owned());
                let found = tensor.and_then(|tensor| TensorInfo::of_v1(name, tensor));
                let damage = found.map(|found| *info = Some(found)).err();
                return Ok(Some((name, damage)));
            }
        };
        match listing.next()? {
            None => Ok(None),
            Some((key, Err(damage))) => Ok(Some((key, Some(damage)))),
            Some((key, Ok(entry))) => {
                memory.clear();
                memory.extend_from_slice(key);
                *info = Some(TensorInfo::new(memory, entry));
                Ok(Some((key, None)))
            }
        }
    }
}

/// What an index says of one tensor.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its name.
    pub key: Vec<u8>,
    /// Its data type.
    pub dtype: DType,
    /// Its shape; of the full tensor if it is partitioned.
    pub shape: Shape,
    /// Bytes in the data files; of a partitioned tensor, and in a V1 checkpoint, what the full tensor
    /// takes in memory, 0 if its elements are strings.
    pub size: u64,
    /// Number of the data file; 0 for a partitioned tensor.
    pub shard_id: u32,
    /// First byte there; 0 for a partitioned tensor, and in a V1 checkpoint.
    pub offset: u64,
    /// CRC-32C of the bytes, unmasked; 0 for a partitioned tensor, and in a V1 checkpoint.
    pub crc32c: u32,
    /// The slices in which it is stored, such as `0,2:-`; empty if it is stored whole.
    pub slices: Vec<String>,
}

impl TensorInfo {
    fn of_v1(key: &[u8], tensor: &Tensor) -> Result<Self> {
        let dtype = tensor.dtype()?;
        let whole = tensor.is_whole();
        let slices = tensor.slices.iter().filter(|_| !whole);
        let shard = tensor.slices.first().filter(|_| whole);
        let size = dtype.size().and_then(|size| tensor.shape.byte_size(size));
        Ok(Self {
            key: key.to_owned(),
            dtype,
            shape: tensor.shape.clone(),
            size: size.unwrap_or(0),
            shard_id: shard.map_or(0, |(_, shard)| u32::try_from(*shard).unwrap_or(u32::MAX)),
            offset: 0,
            crc32c: 0,
            slices: slices.map(|(slice, _)| slice.to_string()).collect(),
        })
    }

    #[inline(always)]
    fn new(key: Vec<u8>, entry: Entry) -> Self {
        let Entry {
            dtype,
            shape,
            stored,
        } = entry;
        let (extent, slices) = match stored {
            Stored::Whole(extent) => (extent, Vec::new()),
            Stored::Slices { slices, .. } => {
                let size = dtype
                    .size()
                    .and_then(|size| shape.byte_size(size))
                    .unwrap_or(0);
                let extent = DataExtent {
                    shard_id: 0,
                    offset: 0,
                    size,
                    crc32c: 0,
                };
                (extent, slices.iter().map(ToString::to_string).collect())
            }
        };
        let DataExtent {
            shard_id,
            offset,
            size,
            crc32c,
        } = extent;
        Self {
            key,
            dtype,
            shape,
            size,
            shard_id,
            offset,
            crc32c,
            slices,
        }
    }
}
