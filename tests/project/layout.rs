//! Rewritten by `cargo run -p codegen`.
