//! `include/tfckpt.h`, assembled from the files of `src/capi`.
//!
//! `cbindgen` alone would put all constants before all types before all functions. Here each file
//! is a chapter of the header, in the order of [`CHAPTERS`], and inside a chapter the items stand
//! in the order of the source, so that the header reads like a text. What a file has to follow:
//!
//! - The `//!` documentation of `mod.rs` opens the header; that of each other file opens its
//!   chapter. Its first paragraph is the title, the rest is prose for C programmers.
//! - `///` documentation of every item and field goes along (it is an error to have none) and is
//!   written for C programmers too. A section `# Errors` becomes `Errors:`. The sections `# Safety`
//!   and `# Implementation` stay behind: what only Rust needs to know goes there.
//! - In the header are: `pub const TFCKPT_*`, `pub type tfckpt_*`, `pub struct tfckpt_*` and
//!   `#[unsafe(no_mangle)] pub (unsafe) extern "C" fn tfckpt_*`, at the top level of the file and
//!   without a `#[cfg]`. Any other public constant, type, struct or extern function is an error in
//!   a chapter; `pub(crate)` and `pub(super)` items are nobody's business. Files that are no
//!   chapter, such as `handle.rs`, export nothing to C.
//! - Constants are literals, `i32`, `u32`, `i64` or `u64`. Neighbours without an empty line in
//!   between become a table.
//! - A struct with `#[repr(C)]` shows its fields; any other struct is opaque, is declared at the
//!   top of the header, and its documentation is one sentence.
//! - A struct for whose `tfckpt_x` the file exports `tfckpt_x_init` gets a macro `TFCKPT_X_INIT`
//!   which names every field: `struct_size` first, the others zero.
//! - A callback is `pub type tfckpt_x_fn = Option<unsafe extern "C" fn(name: type, …) -> type>;`,
//!   with the `Option` inside, as `cbindgen` sees one file at a time.
//! - Functions that return `tfckpt_code` become `TFCKPT_MUST_USE`.
//! - C text of any other kind goes into line comments, the first of which is `// header:`; it is
//!   copied to where it stands. `@VERSION@`, `@MAJOR@`, `@MINOR@` and `@PATCH@` in it are the
//!   package's.

use std::error::Error;
use std::fs;
use std::path::Path;

use crate::comment::{self, WIDTH};
use crate::source::{Field, Item, Kind, Source};

/// The files of `src/capi` in the order in which they are read. A file that is not there yet is a
/// chapter that is not written yet; a file that is not here must export nothing.
const CHAPTERS: [&str; 26] = [
    "version",
    "error",
    "dtype",
    "tensor",
    "progress",
    "stats",
    "save",
    "restore",
    "latest",
    "merge",
    "context",
    "buffer",
    "cuda",
    "reader",
    "entry",
    "object_graph",
    "view",
    "verify",
    "state",
    "saveable",
    "saver",
    "saver_calls",
    "last_checkpoints",
    "start_job",
    "job",
    "dlpack",
];

const HEAD: &str = "\
/* Generated from src/capi by `cargo run -p codegen`. Do not edit. */

";

const TOP: &str = "\
#ifndef TFCKPT_H
#define TFCKPT_H

#include <stddef.h>
#include <stdint.h>

/* A result that must not be ignored. */
#if defined(__GNUC__) || defined(__clang__)
#define TFCKPT_MUST_USE __attribute__((warn_unused_result))
#else
#define TFCKPT_MUST_USE
#endif

#ifdef __cplusplus
extern \"C\" {
#endif

";

const BOTTOM: &str = "\
#ifdef __cplusplus
}
#endif

#endif /* TFCKPT_H */
";

/// The chapters of the header, read from `src/capi` under `root`.
pub fn chapters(root: &Path) -> Result<Vec<Source>, Box<dyn Error>> {
    let dir = root.join("src/capi");
    let mut chapters = Vec::new();
    for entry in fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|ext| ext != "rs") {
            continue;
        }
        let module = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_chapter = CHAPTERS.contains(&module.as_ref());
        let source = Source::read(&path, &module, is_chapter)?;
        if let (false, Some(item)) = (is_chapter, source.items.first()) {
            return Err(format!("{module} exports {} but is not in CHAPTERS", item.name).into());
        }
        if !is_chapter && module != "mod" {
            continue;
        }
        chapters.push(source);
    }
    chapters.sort_by_key(|chapter| CHAPTERS.iter().position(|name| *name == chapter.module));
    Ok(chapters)
}

/// The text of `include/tfckpt.h`. `version` is the package's.
pub fn generate(chapters: &[Source], version: &str) -> Result<String, Box<dyn Error>> {
    let mut text = HEAD.to_owned();
    // `mod.rs` has no place in `CHAPTERS`, so it comes first.
    let (introduction, chapters) = match chapters.split_first() {
        Some((first, rest)) if first.module == "mod" => (first.docs.as_slice(), rest),
        _ => (Default::default(), chapters),
    };
    if !introduction.is_empty() {
        text += &comment::banner(introduction);
        text.push('\n');
    }
    text += TOP;

    let objects: Vec<&Item> = chapters
        .iter()
        .flat_map(|chapter| &chapter.items)
        .filter(|item| matches!(item.kind, Kind::Opaque))
        .collect();
    if !objects.is_empty() {
        text += "/* Objects. Only pointers to them cross the boundary. */\n\n";
        text += &table(&objects, |object| object.declaration.clone());
        text.push('\n');
    }

    for chapter in chapters {
        text += &comment::banner(&chapter.docs);
        text.push('\n');
        text += &items(&chapter.items)?;
    }
    text += BOTTOM;

    let [major, minor, patch] = version.split('.').collect::<Vec<_>>()[..] else {
        return Err(format!("{version} is not three numbers").into());
    };
    for (mark, value) in [
        ("@VERSION@", version),
        ("@MAJOR@", major),
        ("@MINOR@", minor),
        ("@PATCH@", patch),
    ] {
        text = text.replace(mark, value);
    }
    Ok(text)
}

fn items(items: &[Item]) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = items;
    while let Some((item, after)) = rest.split_first() {
        let mut taken = 1;
        match &item.kind {
            Kind::Opaque => {
                rest = after;
                continue;
            }
            Kind::Constant => {
                let neighbours = after
                    .iter()
                    .take_while(|next| matches!(next.kind, Kind::Constant) && next.adjacent);
                taken += neighbours.count();
                let (group, _) = rest.split_at(taken);
                text += &constants(group);
            }
            Kind::Alias => {
                text += &comment::before(&item.docs);
                text += &wrapped(&item.declaration);
            }
            Kind::Struct { fields, init } => {
                text += &comment::before(&item.docs);
                text += &structure(item, fields)?;
                if *init {
                    text += &init_macro(&item.name, fields.len());
                }
            }
            Kind::Function => {
                text += &comment::before(&item.docs);
                if item.declaration.starts_with("tfckpt_code ") {
                    text += &wrapped(&format!("TFCKPT_MUST_USE {}", item.declaration));
                } else {
                    text += &wrapped(&item.declaration);
                }
            }
            Kind::Literal => {
                text += &item.declaration;
                text.push('\n');
            }
        }
        rest = rest.get(taken..).unwrap_or_default();
        text.push('\n');
    }
    Ok(text)
}

fn constants(group: &[Item]) -> String {
    let group: Vec<&Item> = group.iter().collect();
    let width = group.iter().map(|item| item.name.len()).max().unwrap_or(0);
    table(&group, |item| {
        let value = item
            .declaration
            .trim_start_matches("#define ")
            .trim_start_matches(&item.name)
            .trim();
        let value = match value.starts_with('-') {
            true => format!("({value})"),
            false => value.to_owned(),
        };
        format!("#define {:width$} {value}", item.name)
    })
}

/// One line per item with its documentation behind it, aligned.
fn table(items: &[&Item], line: impl Fn(&Item) -> String) -> String {
    let lines: Vec<String> = items.iter().map(|item| line(item)).collect();
    let column = lines.iter().map(String::len).max().unwrap_or(0) + 2;
    let rows = items.iter().zip(&lines);
    rows.map(|(item, line)| comment::behind(line, &item.docs, column))
        .collect()
}

/// A struct with its fields' names below each other and their documentation behind them.
fn structure(item: &Item, fields: &[Field]) -> Result<String, String> {
    let lines: Vec<&str> = item.declaration.lines().collect();
    let (Some((first, inner)), true) = (lines.split_first(), lines.len() == fields.len() + 2)
    else {
        return Err(format!("{}: cbindgen broke a field's line", item.name));
    };
    // The type, and the stars with the name; a pointer to a function cannot be taken apart.
    let mut parts = Vec::new();
    for (line, field) in inner.iter().zip(fields) {
        let line = line.trim();
        let tail = format!("{};", field.name);
        parts.push(match line.strip_suffix(&tail) {
            Some(head) => {
                let kind = head.trim_end_matches([' ', '*']);
                let stars = head.matches('*').count() - kind.matches('*').count();
                (kind, format!("{}{tail}", "*".repeat(stars)), stars)
            }
            None => (line, String::new(), 0),
        });
    }
    let width = parts
        .iter()
        .filter(|(_, name, _)| !name.is_empty())
        .map(|(kind, _, stars)| kind.len() + stars + 1)
        .max()
        .unwrap_or(0);
    let lines: Vec<String> = parts
        .iter()
        .map(|(kind, name, stars)| {
            let width = width - stars;
            match name.is_empty() {
                true => format!("  {kind}"),
                false => format!("  {kind:width$}{name}"),
            }
        })
        .collect();
    let column = lines.iter().map(String::len).max().unwrap_or(0) + 2;
    let mut text = format!("{first}\n");
    for (line, field) in lines.iter().zip(fields) {
        text += &comment::behind(line, &field.docs, column);
    }
    Ok(text + &format!("}} {};\n", item.name))
}

/// The initialiser that names every field, as other forms warn: `struct_size`, the rest zero.
fn init_macro(name: &str, num_fields: usize) -> String {
    let zeros = ", 0".repeat(num_fields.saturating_sub(1));
    let value = format!("{{ sizeof({name}){zeros} }}");
    let mut line = format!("#define {}_INIT", name.to_uppercase());
    let mut text = String::new();
    for word in value.split(' ') {
        if line.len() + word.len() + 3 > WIDTH {
            text += &format!("{line} \\\n");
            line = "   ".to_owned();
        }
        line += &format!(" {word}");
    }
    text + &line + "\n"
}

/// A declaration, its arguments spread over lines of at most [`WIDTH`] where it is longer.
fn wrapped(declaration: &str) -> String {
    if declaration.len() <= WIDTH {
        return format!("{declaration}\n");
    }
    // The arguments are what the last parentheses hold.
    let Some((head, arguments)) = declaration.rsplit_once('(') else {
        return format!("{declaration}\n");
    };
    // The result on a line of its own leaves more room to the arguments.
    let mut text = String::new();
    let mut line = match head.rsplit_once([' ', '*']) {
        Some((result, name)) if !name.ends_with(')') => {
            let result = head.get(..head.len() - name.len()).unwrap_or(result);
            text += result.trim_end();
            text.push('\n');
            format!("{name}(")
        }
        _ => format!("{head}("),
    };
    let indent = " ".repeat(line.len());
    for (number, argument) in arguments.split(", ").enumerate() {
        if number > 0 {
            line.push(',');
            if line.len() + 2 + argument.len() > WIDTH {
                text += &line;
                text.push('\n');
                line = indent.clone();
            } else {
                line.push(' ');
            }
        }
        line += argument;
    }
    text + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = r#"//! Simple calls.
//!
//! # Implementation
//!
//! Not for C.

/// Save without fsync.
pub const TFCKPT_FAST: u32 = 1;
/// Say nothing.
pub const TFCKPT_QUIET: i32 = -1;

/// How to save.
#[repr(C)]
pub struct tfckpt_save_options {
    /// `sizeof(tfckpt_save_options)`.
    pub struct_size: usize,
    /// NULL = none.
    pub global_step: *const i64,
}

// header:
// #define TFCKPT_X "@MAJOR@"

/// Sets the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_save_options_init(options: *mut tfckpt_save_options, struct_size: usize) -> tfckpt_code {}

/// An object.
pub struct tfckpt_thing(u32);

/// Is not in the header.
#[cfg(feature = "test-panics")]
#[unsafe(no_mangle)]
pub extern "C" fn tfckpt_panic() {}
"#;

    const CHAPTER: &str = "\
#define TFCKPT_FAST  1     /* Save without fsync. */
#define TFCKPT_QUIET (-1)  /* Say nothing. */

/** How to save. */
typedef struct tfckpt_save_options {
  size_t         struct_size;  /* `sizeof(tfckpt_save_options)`. */
  const int64_t *global_step;  /* NULL = none. */
} tfckpt_save_options;
#define TFCKPT_SAVE_OPTIONS_INIT { sizeof(tfckpt_save_options), 0 }

#define TFCKPT_X \"3\"

/** Sets the defaults. */
TFCKPT_MUST_USE tfckpt_code
tfckpt_save_options_init(tfckpt_save_options *options, size_t struct_size);

#ifdef __cplusplus
}
";

    fn header_of(name: &str, text: &str) -> Result<String, Box<dyn Error>> {
        let root = tempfile::tempdir()?;
        let dir = root.path().join("src/capi");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(name), text)?;
        generate(&chapters(root.path())?, "3.2.1")
    }

    #[test]
    fn a_chapter_reads_in_the_order_of_its_source() {
        let text = header_of("save.rs", OPTIONS).unwrap();
        assert!(text.contains("typedef struct tfckpt_thing tfckpt_thing;  /* An object. */\n"));
        assert!(text.contains("\n * Simple calls\n"));
        assert!(!text.contains("Not for C") && !text.contains("tfckpt_panic"));
        assert!(text.contains(CHAPTER), "{text}");
    }

    #[test]
    fn what_breaks_the_conventions_is_an_error() {
        for (name, text, complaint) in [
            (
                "save.rs",
                "//! A.\npub const TFCKPT_A: u32 = 1;",
                "no documentation",
            ),
            (
                "save.rs",
                "//! A.\n/// B.\npub const A: u32 = 1;",
                "does not start with TFCKPT_",
            ),
            (
                "else.rs",
                "//! A.\n/// B.\npub const TFCKPT_A: u32 = 1;",
                "CHAPTERS",
            ),
        ] {
            let error = header_of(name, text).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
