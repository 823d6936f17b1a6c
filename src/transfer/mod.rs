//! Moves the bytes of tensors between data files and memory.
//!
//! A call is planned first: every tensor's place in the files is known and checked before the first
//! byte moves, and the work is cut into items that any thread can do in any order ([`read`],
//! [`mod@write`]). [`pipeline`] then runs the items on a few threads, the calling one among them, with
//! progress and cancellation ([`monitor`] is what other threads see of that). Checksums are computed on
//! each chunk while it is in the cache, and combined per tensor at the end; only a save in the background
//! copies first and sums later ([`snapshot`]).
//!
//! Calls share the memory of a [`Context`]; [`budget`] says in which order they take it, so that none waits for
//! one that waits for it.
//!
//! Only this module sees files and memory together.

#![forbid(unsafe_code)]

mod budget;
mod cold;
mod context;
mod deliver;
mod download;
mod fill;
mod host_copies;
mod lane;
mod lanes;
mod monitor;
mod mounts;
mod piece;
pub mod pipeline;
mod progress;
pub mod read;
mod read_chunks;
mod read_items;
mod read_plan;
mod rings;
mod snapshot;
mod stats;
pub mod stream;
mod turns;
mod upload;
pub mod write;
mod write_plan;

pub use budget::check_limit;
pub use context::{Call, Context, ContextOptions, CopiesFirst};
pub use monitor::{Monitor, Stage};
pub use progress::{Progress, ProgressFn, Update};
pub use stats::Stats;

/// Bytes that are read or copied and then summed at once: small enough to stay in a core's L2 cache
/// between the two, large enough that the system call costs little.
const CHUNK: usize = 256 << 10;

/// Most bytes of one work item. The checksums of a tensor's items are combined, about a microsecond
/// each.
const ITEM: usize = 4 << 20;
