//! The version stands in more than one place; Cargo's is the one that counts.

use std::fs;
use std::path::Path;

#[test]
fn the_header_names_the_version_of_the_package() {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/tfckpt.h");
    let header = fs::read_to_string(header).unwrap();
    let number = |part: &str| part.parse::<u32>().unwrap();
    let major = number(env!("CARGO_PKG_VERSION_MAJOR"));
    let minor = number(env!("CARGO_PKG_VERSION_MINOR"));
    let patch = number(env!("CARGO_PKG_VERSION_PATCH"));
    for (name, value) in [
        ("MAJOR", major.to_string()),
        ("MINOR", minor.to_string()),
        ("PATCH", patch.to_string()),
        ("NUMBER", (major * 10_000 + minor * 100 + patch).to_string()),
        ("STRING", format!("{:?}", env!("CARGO_PKG_VERSION"))),
    ] {
        let name = format!("TFCKPT_VERSION_{name}");
        let line = header
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some(&name))
            .unwrap_or_else(|| panic!("{name} is not in the header"));
        let words: Vec<&str> = line.split_whitespace().take(3).collect();
        assert_eq!(words, ["#define", &name, &value]);
    }
}
