//! Files: bounded positional reads, and writes that become visible in one step.
//!
//! Every file operation of the library goes through this module, so that tests can watch, fail and
//! replay them.

mod raw;
pub mod read;
