//! The `tfckpt` program.

#![forbid(unsafe_code)]

fn main() {}
