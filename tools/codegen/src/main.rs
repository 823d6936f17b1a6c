//! Regenerates the generated files that are committed: `cargo run -p codegen`.
//! With `--check` it writes nothing and fails if one of them is stale.

mod proto;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = std::env::args().any(|arg| arg == "--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut stale = false;
    for (path, text) in [("src/proto/tensorflow.rs", proto::generate(&root)?)] {
        let path = root.join(path);
        if fs::read_to_string(&path).unwrap_or_default() == text {
            continue;
        }
        if check {
            eprintln!("{} is stale: run `cargo run -p codegen`", path.display());
            stale = true;
        } else {
            fs::write(&path, text)?;
        }
    }
    Ok(if stale {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
