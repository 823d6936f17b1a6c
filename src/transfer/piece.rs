//! What a restore reads, and where it goes.

use std::ops::Range;
use std::sync::Arc;

use crate::bundle::DataExtent;
use crate::bundle::sidecar::CHUNK_SIZE;
use crate::device::DeviceSpan;
use crate::io::read::ReadFile;
use crate::memory::DestSpan;
use crate::slices::Overlap;

/// A range of a data file and what it is needed for.
///
/// There is one for each tensor of a call, so its size counts.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// Index of its tensor in the call's list.
    pub tensor: u32,
    /// Bytes of the units to reverse, 1 for none.
    pub swap: u8,
    /// Whether its checksum is to be checked, for which all of it is read.
    pub check: bool,
    /// The data file.
    pub file: Arc<ReadFile>,
    /// The range; known to lie inside the file.
    pub extent: DataExtent,
    /// Where its bytes go.
    pub target: Target<'a>,
}

/// Where the bytes of a piece go.
#[derive(Clone, Debug)]
pub enum Target<'a> {
    /// All of them to memory of the same size.
    Direct(DestSpan<'a>),
    /// As [`Direct`](Self::Direct), to a GPU.
    Upload(DeviceSpan<'a>),
    /// Some of them, as the overlap of slices says.
    Scatter(Box<Scatter<'a>>),
    /// Nowhere: they are only verified.
    Discard,
}

/// Where some of the bytes of a piece go.
#[derive(Clone, Debug)]
pub struct Scatter<'a> {
    /// Memory of the requested slice; `None` if its bytes are only verified.
    pub dest: Option<Dest<'a>>,
    /// From the piece to the memory, in elements.
    pub overlap: Overlap,
    /// Bytes of an element.
    pub element_size: u64,
    /// What checks the chunks that something is wanted of, if the piece is not to be checked as a whole.
    pub chunks: Option<ChunkCrcs>,
}

impl Scatter<'_> {
    /// What of the bytes `range` of the piece goes somewhere: the ranges, in order, and where in the memory
    /// each begins.
    pub(super) fn parts(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, u64)> {
        let (overlap, size) = (&self.overlap, self.element_size);
        let runs = overlap.first_run_after(range.start / size)..overlap.num_runs();
        runs.map_while(move |number| {
            let run = overlap.run(number);
            let start = run.source * size;
            let from = start.max(range.start);
            let to = (start + run.len * size).min(range.end);
            (from < to).then(|| (from..to, run.dest * size + (from - start)))
        })
    }
}

/// Memory to be filled.
#[derive(Clone, Copy, Debug)]
pub enum Dest<'a> {
    /// The host's.
    Host(DestSpan<'a>),
    /// A GPU's.
    Device(DeviceSpan<'a>),
}

impl Dest<'_> {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Host(span) => span.len(),
            Self::Device(span) => span.len(),
        }
    }

    /// Address of the first byte and of the one past the last, to compare ranges; the host and all GPUs
    /// share one range of addresses.
    pub fn addresses(&self) -> Range<usize> {
        match self {
            Self::Host(span) => span.addresses(),
            Self::Device(span) => span.addresses(),
        }
    }

    /// The `len` bytes from `offset`, if they lie inside.
    pub fn get(&self, offset: usize, len: usize) -> Option<Self> {
        match self {
            Self::Host(span) => span.get(offset, len).map(Self::Host),
            Self::Device(span) => span.get(offset, len).map(Self::Device),
        }
    }
}

impl<'a> From<Dest<'a>> for Target<'a> {
    fn from(dest: Dest<'a>) -> Self {
        match dest {
            Dest::Host(span) => Self::Direct(span),
            Dest::Device(span) => Self::Upload(span),
        }
    }
}

/// The checksums that chunks of a piece, pieces of [`CHUNK_SIZE`], must have.
#[derive(Clone, Debug)]
pub struct ChunkCrcs {
    /// Number of the first of these chunks.
    pub first: u64,
    /// From there, in order, up to the last chunk that something is wanted of.
    pub crcs: Arc<[u32]>,
}

impl<'a> Piece<'a> {
    /// Bytes that are wanted of it: all, unless it is needed in parts and not checked.
    pub fn wanted(&self) -> u64 {
        self.unchecked_runs().map_or(self.extent.size, |scatter| {
            scatter.overlap.num_elements() * scatter.element_size
        })
    }

    /// The GPU that its bytes go to, if it is one.
    pub fn device(&self) -> Option<i32> {
        match &self.target {
            Target::Upload(span) => Some(span.device()),
            Target::Scatter(scatter) => match &scatter.dest {
                Some(Dest::Device(span)) => Some(span.device()),
                Some(Dest::Host(_)) | None => None,
            },
            Target::Direct(_) | Target::Discard => None,
        }
    }

    /// What verifies as much of it as it does itself, and puts nothing anywhere: the chunks that something
    /// is wanted of, or else all of it.
    pub(super) fn only_verified(&self) -> Self {
        let (check, target) = match self.unchecked_runs() {
            Some(scatter) if scatter.chunks.is_some() => {
                let mut scatter = scatter.clone();
                scatter.dest = None;
                (false, Target::Scatter(Box::new(scatter)))
            }
            _ => (true, Target::Discard),
        };
        Self {
            check,
            target,
            ..self.clone()
        }
    }

    /// Bytes that are read of it, at most: with checksums of chunks, all chunks that something is wanted of.
    pub(super) fn read(&self) -> u64 {
        let chunks = self.unchecked_runs().and_then(|it| it.chunks.as_ref());
        chunks.map_or(self.wanted(), |chunks| {
            (chunks.crcs.len() as u64 * CHUNK_SIZE).min(self.extent.size)
        })
    }

    /// The runs that are wanted of it, if not all of it is read.
    pub(super) fn unchecked_runs(&self) -> Option<&Scatter<'a>> {
        match &self.target {
            Target::Scatter(scatter) if !self.check => Some(scatter),
            _ => None,
        }
    }
}
