//! Tests of the project rather than of the library: its import rule, the versions it names, and
//! the layout of its C structs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, also outside of its #[test] function"
)]

mod layering;
mod layout;
mod scan;
mod versions;
