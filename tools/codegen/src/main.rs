//! Regenerates the generated files that are committed: `cargo run -p codegen`.
//! With `--check` it writes nothing, shows where a file differs and fails if one does. Another
//! source tree than this one can be named as the argument.

mod abi;
mod comment;
mod header;
mod proto;
mod source;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut check = false;
    let mut root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for arg in std::env::args_os().skip(1) {
        match arg.to_str() {
            Some("--check") => check = true,
            _ => root = PathBuf::from(arg),
        }
    }
    let mut stale = false;
    for (path, text) in generate(&root)? {
        let committed = fs::read_to_string(root.join(path)).unwrap_or_default();
        if committed == text {
            continue;
        }
        if check {
            eprintln!("{}", difference(path, &committed, &text));
            stale = true;
        } else {
            fs::write(root.join(path), text)?;
            println!("wrote {path}");
        }
    }
    Ok(if stale {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Every generated file of the source tree `root`: its path and its text.
fn generate(root: &Path) -> Result<Vec<(&'static str, String)>, Box<dyn Error>> {
    let chapters = header::chapters(root)?;
    let version = version(root)?;
    Ok(vec![
        ("src/proto/tensorflow.rs", proto::generate(root)?),
        ("include/tfckpt.h", header::generate(&chapters, &version)?),
        ("tests/abi/symbols.txt", abi::symbols(&chapters)),
        ("tests/abi/layout.c", abi::layout_c(&chapters)),
        ("tests/project/layout.rs", abi::layout_rs(&chapters)),
    ])
}

/// The version of the library: the first one in `Cargo.toml`.
fn version(root: &Path) -> Result<String, Box<dyn Error>> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("version = "))
        .ok_or("no version in Cargo.toml")?;
    Ok(version.trim().trim_matches('"').to_owned())
}

/// Where `committed` first differs from `fresh`, and what to do.
fn difference(path: &str, committed: &str, fresh: &str) -> String {
    let mut old = committed.lines();
    let mut new = fresh.lines();
    let mut number = 1;
    let (old, new) = loop {
        let pair = (old.next(), new.next());
        if pair.0 != pair.1 || pair.0.is_none() {
            break pair;
        }
        number += 1;
    };
    let (old, new) = (old.unwrap_or("(end)"), new.unwrap_or("(end)"));
    format!(
        "{path} is stale, run `cargo run -p codegen`; first at line {number}:\n- {old}\n+ {new}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_files_are_fresh() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (path, text) in generate(&root).unwrap() {
            let committed = fs::read_to_string(root.join(path)).unwrap_or_default();
            assert!(committed == text, "{}", difference(path, &committed, &text));
        }
    }
}
