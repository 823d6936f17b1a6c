//! Rust types for `proto/*.proto`, committed under `src/proto/` so that users need no protoc.

use std::error::Error;
use std::fs;
use std::path::Path;

const HEAD: &str = "// Generated from proto/*.proto by `cargo run -p codegen`. Do not edit.\n\n";

/// The text of `src/proto/tensorflow.rs` for the `.proto` files under `root`.
pub fn generate(root: &Path) -> Result<String, Box<dyn Error>> {
    let dir = root.join("proto");
    let mut files: Vec<_> = fs::read_dir(&dir)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "proto"));
    files.sort();

    let out = tempfile::tempdir()?;
    let descriptors = protox::compile(&files, [&dir])?;
    prost_build::Config::new()
        .out_dir(out.path())
        .compile_fds(descriptors)?;
    let text = fs::read_to_string(out.path().join("tensorflow.rs"))?;
    Ok(HEAD.to_owned() + &text)
}
