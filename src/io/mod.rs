//! Files: bounded positional reads, and writes that become visible in one step.
//!
//! Every file operation of the library goes through this module, so that tests can watch, fail and
//! replay them.

pub mod dir;
#[cfg(test)]
pub mod fault;
pub mod range;
mod raw;
pub mod read;
mod temporary;
pub mod write;

pub use raw::{Mapping, with_signals_blocked};

use std::io;
use std::path::Path;

/// A change to the file system, as the tests' fault injection sees it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "only the tests' fault injection looks inside")
)]
enum Op<'a> {
    Create(&'a Path),
    Reserve(&'a Path),
    Write {
        path: &'a Path,
        offset: u64,
        bytes: &'a [u8],
    },
    Sync(&'a Path),
    Link {
        from: &'a Path,
        to: &'a Path,
    },
    Rename {
        from: &'a Path,
        to: &'a Path,
    },
    Remove(&'a Path),
    CreateDir(&'a Path),
    SyncDir(&'a Path),
}

/// Does `act`, which is what `op` says. Every change that the crate makes to the file system passes
/// through here.
fn perform<T>(op: Op<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    return fault::perform(op, act);
    #[cfg(not(test))]
    {
        let _ = op;
        act()
    }
}
