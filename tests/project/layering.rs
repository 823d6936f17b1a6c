//! The import rule: a module imports only from lower layers, and modules of one layer never import
//! each other, but for the exceptions in [`MAY_IMPORT`]. With it go the rules on who may say
//! `unsafe`, who may see prost's types, and how long a file may be. Tests are exempt.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::scan::{Scan, scan};

/// Modules directly below the crate, lowest layer first.
const LAYERS: [&[&str]; 10] = [
    &["error"],
    &["checksum", "coding", "dtype", "naming", "proto", "shape"],
    &["device", "io", "memory", "slices"],
    &["table"],
    &["bundle", "meta_graph", "object_graph", "state", "v1"],
    &["transfer"],
    &["checkpoint"],
    &["saver"],
    &["training", "variables"],
    &["capi"],
];

/// Imports inside a layer that are allowed.
const MAY_IMPORT: [(&str, &str); 2] = [("io", "memory"), ("device", "memory")];

/// The highest layer that sees prost's types.
const PROST_LAYER: usize = 4;

/// Files and folders that may say `unsafe`. Every other file forbids it, itself or in the file of
/// a module around it.
const MAY_BE_UNSAFE: [&str; 4] = ["capi/", "device/", "memory/", "io/raw.rs"];

/// Lines of a file without its tests.
const MAX_LINES: usize = 450;

/// Complaints about `files`, which are paths below `src` with their texts.
fn check(files: &BTreeMap<String, String>) -> Vec<String> {
    let library: BTreeMap<&str, Scan> = files
        .iter()
        .map(|(path, text)| (path.as_str(), scan(text, &module_of(path))))
        .collect();
    let test_files = test_files(&library);
    let root = files.get("lib.rs").map(String::as_str).unwrap_or_default();
    let exports = Exports::read(root);

    let mut complaints = Vec::new();
    for (path, scan) in &library {
        for line in &scan.unsafe_lines {
            if !may_be_unsafe(path) {
                complaints.push(format!("{path}:{line}: unsafe has no place here"));
            }
        }
        if test_files.contains(*path) {
            continue;
        }
        if scan.num_lines > MAX_LINES {
            let num_lines = scan.num_lines;
            complaints.push(format!(
                "{path}: {num_lines} lines without its tests, more than {MAX_LINES}"
            ));
        }
        check_forbids(path, &library, &mut complaints);
        // `lib.rs` ties the layers together; programs see the library from outside.
        if *path != "lib.rs" && !path.starts_with("bin/") {
            check_imports(path, scan, &exports, &mut complaints);
        }
    }
    complaints
}

fn check_imports(path: &str, scan: &Scan, exports: &Exports, complaints: &mut Vec<String>) {
    let module = module_of(path).first().copied().unwrap_or_default();
    let Some(layer) = layer_of(module) else {
        complaints.push(format!("{path}: {module} has no layer"));
        return;
    };
    if layer > PROST_LAYER {
        for line in &scan.prost_lines {
            complaints.push(format!(
                "{path}:{line}: prost ends at layer {PROST_LAYER}, {module} is in layer {layer}"
            ));
        }
    }
    for (line, segments) in &scan.paths {
        let name = segments.first().map(String::as_str).unwrap_or_default();
        if name == module {
            continue;
        }
        let place = format!("{path}:{line}");
        if module == "capi" {
            if !exports.public.contains(name) {
                complaints.push(format!(
                    "{place}: capi uses crate::{name}, which lib.rs does not re-export"
                ));
            }
            continue;
        }
        // What lib.rs re-exports counts as the module that it comes from.
        let target = exports.origin.get(name).map_or(name, String::as_str);
        if target == module || MAY_IMPORT.contains(&(module, target)) {
            continue;
        }
        match layer_of(target) {
            None => complaints.push(format!(
                "{place}: crate::{name} is not a module with a layer"
            )),
            Some(_) if target == "proto" && layer > PROST_LAYER => complaints.push(format!(
                "{place}: prost ends at layer {PROST_LAYER}, {module} is in layer {layer}"
            )),
            Some(below) if below < layer => (),
            Some(other) => complaints.push(format!(
                "{place}: {module} (layer {layer}) imports {target} (layer {other})"
            )),
        }
    }
}

fn may_be_unsafe(path: &str) -> bool {
    MAY_BE_UNSAFE.iter().any(|place| path.starts_with(place))
}

fn check_forbids(path: &str, library: &BTreeMap<&str, Scan>, complaints: &mut Vec<String>) {
    let forbids = |path: &str| library.get(path).is_some_and(|scan| scan.forbids_unsafe);
    let mut covered = forbids(path);
    let mut folder = path;
    while let Some((parent, _)) = folder.rsplit_once('/') {
        // A program's root is main.rs.
        covered |= ["mod.rs", "main.rs"]
            .iter()
            .any(|root| forbids(&format!("{parent}/{root}")));
        covered |= forbids(&format!("{parent}.rs"));
        folder = parent;
    }
    // The root cannot forbid what some modules need, nor can a root of such a module.
    let is_root_of_unsafe = MAY_BE_UNSAFE.iter().any(|place| {
        let folder = path.strip_suffix("mod.rs");
        folder.is_some_and(|folder| place.starts_with(folder))
    });
    if !covered && path != "lib.rs" && !may_be_unsafe(path) && !is_root_of_unsafe {
        complaints.push(format!("{path}: #![forbid(unsafe_code)] is missing"));
    }
}

/// Where the names come from that `lib.rs` re-exports.
#[derive(Default)]
struct Exports {
    /// Name to module, of every `use` in `lib.rs`.
    origin: BTreeMap<String, String>,
    /// Names that a user of the crate sees: re-exports and public modules.
    public: BTreeSet<String>,
}

impl Exports {
    /// Reads `pub use module::{Name, Other as Alias};` and `pub mod name;` declarations.
    fn read(root: &str) -> Self {
        let mut exports = Self::default();
        let statements = root
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join(" ");
        for statement in statements.split(';') {
            // Attributes in front go away with everything before the last `]`.
            let statement = statement.rsplit(']').next().unwrap_or_default().trim();
            if let Some(name) = statement.strip_prefix("pub mod ") {
                exports.public.insert(name.trim().to_owned());
            }
            let Some((visibility, path)) = statement.split_once("use ") else {
                continue;
            };
            let path = path
                .trim_start_matches("crate::")
                .trim_start_matches("self::");
            let Some((module, names)) = path.split_once("::") else {
                continue;
            };
            for name in names.split([',', '{', '}']) {
                let name = name.rsplit("::").next().unwrap_or_default();
                let name = name.rsplit(" as ").next().unwrap_or_default().trim();
                if name.is_empty() {
                    continue;
                }
                exports.origin.insert(name.to_owned(), module.to_owned());
                if visibility.trim() == "pub" {
                    exports.public.insert(name.to_owned());
                }
            }
        }
        exports
    }
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The module path of a file: `table/block.rs` is `table::block`, `table/mod.rs` is `table`.
fn module_of(path: &str) -> Vec<&str> {
    path.trim_end_matches(".rs")
        .split('/')
        .filter(|part| !["mod", "lib", "main"].contains(part))
        .collect()
}

/// Files of modules that are compiled for tests only.
fn test_files(library: &BTreeMap<&str, Scan>) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for (path, scan) in library {
        let folder = match path.rsplit_once('/') {
            Some((folder, "mod.rs" | "main.rs")) => format!("{folder}/"),
            None if *path == "lib.rs" => String::new(),
            _ => format!("{}/", path.trim_end_matches(".rs")),
        };
        for module in &scan.test_modules {
            files.insert(format!("{folder}{module}.rs"));
            files.insert(format!("{folder}{module}/mod.rs"));
            let inside = format!("{folder}{module}/");
            files.extend(
                library
                    .keys()
                    .filter(|path| path.starts_with(&inside))
                    .map(|path| (*path).to_owned()),
            );
        }
    }
    files
}

fn read_folder(folder: &Path, root: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(&path, root, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            files.insert(name.to_owned(), fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_module_keeps_to_its_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    read_folder(&root, &root, &mut files);
    let complaints = check(&files);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Complaints about one made-up file, next to a `lib.rs`.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let lib = "//! A.\npub mod capi;\nmod table;\npub use error::{Code, Error as Failure};\n\
               pub(crate) use table::Table;\n";
    check(&BTreeMap::from([
        ("lib.rs".to_owned(), lib.to_owned()),
        (path.to_owned(), format!("#![forbid(unsafe_code)]\n{text}")),
    ]))
}

#[test]
fn what_lies_below_may_be_imported() {
    for (path, text) in [
        (
            "table/block.rs",
            "use crate::coding::varint; use super::super::checksum; use super::iter;",
        ),
        ("io/read.rs", "use crate::memory::DestSpan;"),
        (
            "device/host.rs",
            "use crate::{error::Error, memory::{self, DestSpan as D}};",
        ),
        (
            "slices/slice.rs",
            "mod inner { use super::super::Slice; use crate::Failure; }",
        ),
        (
            "table/block.rs",
            "#[cfg(test)] mod tests { use crate::saver::Saver; }",
        ),
        ("table/block.rs", "#[cfg(test)] use crate::saver::Saver;"),
        (
            "table/block.rs",
            "// crate::saver\nconst A: &str = \"crate::saver\";",
        ),
        (
            "capi/save.rs",
            "use crate::{Code, Failure}; use super::handle; use crate::capi::error;",
        ),
        (
            "bundle/entry.rs",
            "use crate::proto::tensorflow::BundleEntryProto; use prost::Message;",
        ),
        (
            "table/block.rs",
            "pub(crate) fn f() {} pub(super) fn g() {}",
        ),
    ] {
        assert_eq!(complaints(path, text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn what_breaks_the_rule_is_reported() {
    for (path, text, complaint) in [
        (
            "table/block.rs",
            "use crate::bundle::Entry;",
            "table (layer 3) imports bundle (layer 4)",
        ),
        (
            "table/block.rs",
            "use crate::{coding, io::{read, self}, saver::{Saver}};",
            "saver (layer 7)",
        ),
        (
            "table/block.rs",
            "fn f() { crate::capi::error::f() }",
            "capi (layer 9)",
        ),
        (
            "table/block.rs",
            "fn f() { format!(\"{}\", crate::state::f()) }",
            "state (layer 4)",
        ),
        (
            "table/block.rs",
            "use super::super::state;",
            "state (layer 4)",
        ),
        (
            "table/block.rs",
            "mod inner { use super::super::super::state; }",
            "state (layer 4)",
        ),
        ("error.rs", "use super::{dtype};", "dtype (layer 1)"),
        ("dtype.rs", "use crate::shape::Shape;", "shape (layer 1)"),
        ("memory/dest.rs", "use crate::io;", "io (layer 2)"),
        (
            "slices/slice.rs",
            "use crate::memory::DestSpan;",
            "memory (layer 2)",
        ),
        (
            "slices/slice.rs",
            "use crate::Table;",
            "slices (layer 2) imports table (layer 3)",
        ),
        (
            "table/block.rs",
            "use crate::*;",
            "crate::* is not a module",
        ),
        (
            "table/block.rs",
            "use crate as c;",
            "crate::crate is not a module",
        ),
        ("elsewhere.rs", "", "elsewhere has no layer"),
        (
            "capi/save.rs",
            "use crate::table::Table;",
            "lib.rs does not re-export",
        ),
        (
            "capi/save.rs",
            "use crate::Table;",
            "lib.rs does not re-export",
        ),
        (
            "transfer/plan.rs",
            "use crate::proto::tensorflow::A;",
            "prost ends at layer 4",
        ),
        (
            "transfer/plan.rs",
            "use prost::Message;",
            "prost ends at layer 4",
        ),
        (
            "table/block.rs",
            "fn f() { unsafe { g() } }",
            "block.rs:2: unsafe has no place here",
        ),
        (
            "io/read.rs",
            "#[unsafe(no_mangle)] fn f() {}",
            "unsafe has no place here",
        ),
    ] {
        let found = complaints(path, text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(complaint), "{found:?}");
    }
}

#[test]
fn unsafe_code_is_forbidden_by_the_file_or_by_the_module_around_it() {
    let check = |files: &[(&str, &str)]| {
        let files = files.iter();
        check(
            &files
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect(),
        )
    };
    let forbid = "#![forbid(unsafe_code)]";
    assert!(check(&[("table/mod.rs", forbid), ("table/block.rs", "")]).is_empty());
    assert!(check(&[("io/mod.rs", ""), ("io/raw.rs", "unsafe fn f() {}")]).is_empty());
    assert_eq!(
        check(&[("io/mod.rs", ""), ("io/read.rs", "")]),
        ["io/read.rs: #![forbid(unsafe_code)] is missing"]
    );
    assert_eq!(
        check(&[("table/mod.rs", ""), ("table/block.rs", forbid)]),
        ["table/mod.rs: #![forbid(unsafe_code)] is missing"]
    );
}

#[test]
fn a_file_may_be_long_only_in_its_tests() {
    let long = "fn f() {}\n".repeat(MAX_LINES + 1);
    let found = complaints("dtype.rs", &long);
    assert!(
        found.len() == 1 && found[0].contains("452 lines"),
        "{found:?}"
    );
    assert!(complaints("dtype.rs", &format!("#[cfg(test)]\nmod tests {{ {long} }}")).is_empty());
    let text = format!("#![forbid(unsafe_code)]\n{long}");
    let files = [
        (
            "table/mod.rs",
            "#![forbid(unsafe_code)] #[cfg(test)] mod tests;",
        ),
        ("table/tests.rs", &text),
    ];
    let files = files
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
    assert!(check(&files.collect()).is_empty());
}
