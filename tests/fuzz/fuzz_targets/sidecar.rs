//! Fuzz target; what it does is in `tests/checkpoints/fuzz_bodies.rs`.

#![no_main]
#![allow(
    dead_code,
    reason = "the shared files serve other targets and tests too"
)]

#[path = "../../checkpoints/fuzz_bodies.rs"]
mod fuzz_bodies;
#[path = "../../checkpoints/naive.rs"]
mod naive;
#[path = "../../checkpoints/support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_bodies::sidecar(bytes));
