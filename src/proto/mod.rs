//! Protobuf messages of the formats, generated from `proto/*.proto` (`cargo run -p codegen`).
//!
//! They carry whatever a file says; `bundle::entry` turns them into validated values, and nothing
//! above that layer sees them.

#![forbid(unsafe_code)]

#[allow(
    missing_docs,
    reason = "generated; the .proto files hold the documentation"
)]
mod tensorflow;
mod versions;

pub use tensorflow::*;
