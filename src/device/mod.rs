//! GPUs, through NVIDIA's driver alone, which is loaded when it is first asked for.
//!
//! [`driver`](driver()) says whether there is one. A [`DeviceContext`] is a hold on a device. Whatever needs it to
//! be current on the thread takes an [`Entered`], which puts the thread back as it was: the caller's
//! current context, and how a graph capture elsewhere looks at the thread. Bytes go through a
//! [`PinnedBuffer`] and a [`Stream`] to and from [`DeviceSpan`]s, and [`Event`]s order all of it.
//!
//! Handles may be dropped on any thread, after any error, and in a process that was forked, where they do
//! nothing. Nothing is freed when the process exits.

mod caller;
mod context;
mod copies;
mod describe;
mod driver;
mod event;
mod loader;
mod locate;
mod numa;
mod pinned;
mod slab;
mod span;
mod status;
mod stream;
mod table;

pub use caller::CallerStream;
pub use context::{DeviceContext, Entered};
pub use describe::{Description, DeviceDescription, describe};
pub use driver::{Driver, driver};
pub use event::Event;
pub use locate::{Location, Locator, Place, locate};
pub use pinned::{PinnedBuffer, PinnedCopy};
pub use slab::DeviceMemory;
pub use span::DeviceSpan;
pub use stream::Stream;
