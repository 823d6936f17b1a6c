//! What a meta graph says of a saver.

#![forbid(unsafe_code)]

mod saver_def;

pub use saver_def::SaverDef;
