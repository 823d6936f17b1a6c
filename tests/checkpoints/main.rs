//! Tests of the library through its public Rust API: what TensorFlow wrote, what is damaged, what
//! this library writes itself, and how much memory all of it takes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking, also outside of its #[test] function"
)]

mod bookkeeping;
mod budget;
mod errors;
mod fixtures;
mod flips;
mod fuzz_bodies;
mod fuzz_corpora;
mod golden_errors;
mod memory;
mod naive;
mod object_graph;
mod overwrite;
#[cfg(feature = "test-panics")]
mod panics;
mod progress;
mod restore_modes;
mod round_trip;
mod sidecar;
mod support;
mod v1_shards;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
