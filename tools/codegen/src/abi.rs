//! `tests/abi`: what the library exports and how its structs are laid out, written down from the
//! same items as the header, so that no function, field or constant is forgotten.
//!
//! `layout.c` and `layout.rs` print the same text, one compiled against the header and one against
//! the crate; both are compared with `tests/abi/layout.txt`.

use crate::source::{Item, Kind, Source};

const HEAD: &str = "Generated from src/capi by `cargo run -p codegen`. Do not edit.";

/// `tests/abi/symbols.txt`: the functions, sorted as `nm` sorts them.
pub fn symbols(chapters: &[Source]) -> String {
    let mut names: Vec<&str> = items(chapters)
        .filter(|(_, item)| matches!(item.kind, Kind::Function))
        .map(|(_, item)| item.name.as_str())
        .collect();
    names.sort_unstable();
    names.iter().map(|name| format!("{name}\n")).collect()
}

/// `tests/abi/layout.c`.
pub fn layout_c(chapters: &[Source]) -> String {
    let mut text = format!("/* {HEAD} */\n");
    text += r#"
#include <stddef.h>
#include <stdio.h>

#include "tfckpt.h"

#define CONSTANT(name) printf("%s %lld\n", #name, (long long)(name))
#define STRUCT(type) printf("%s %lu\n", #type, (unsigned long)sizeof(type))
#define FIELD(type, field)                                                                       \
  printf("%s.%s %lu %lu\n", #type, #field, (unsigned long)offsetof(type, field),                 \
         (unsigned long)sizeof(((type *)0)->field))

int main(void) {
"#;
    for (_, item) in items(chapters) {
        let name = &item.name;
        match &item.kind {
            Kind::Constant => text += &format!("  CONSTANT({name});\n"),
            Kind::Struct { fields, .. } => {
                text += &format!("  STRUCT({name});\n");
                for field in fields {
                    text += &format!("  FIELD({name}, {});\n", field.name);
                }
            }
            _ => (),
        }
    }
    text + "  return 0;\n}\n"
}

/// `tests/project/layout.rs`.
pub fn layout_rs(chapters: &[Source]) -> String {
    let mut text = format!("//! The layout of the C structs as Rust sees it.\n//! {HEAD}\n\n");
    let mut body = String::new();
    for (module, item) in items(chapters) {
        let name = &item.name;
        match &item.kind {
            Kind::Constant => {
                body += &format!("    constant!(out, {module}::{name});\n");
            }
            Kind::Struct { fields, .. } => {
                let fields: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                body += &format!(
                    "    layout!(out, {module}::{name}, {});\n",
                    fields.join(", ")
                );
            }
            _ => (),
        }
    }
    text += r#"use std::fmt::Write;
use std::mem::{offset_of, size_of};

use tfckpt::capi;

macro_rules! constant {
    ($out:ident, $module:ident::$name:ident) => {
        let value = i128::from(capi::$module::$name);
        writeln!($out, "{} {value}", stringify!($name)).unwrap();
    };
}

macro_rules! layout {
    ($out:ident, $module:ident::$name:ident, $($field:ident),*) => {{
        type Struct = capi::$module::$name;
        writeln!($out, "{} {}", stringify!($name), size_of::<Struct>()).unwrap();
        $(
            let size = size_of_field(|it: &Struct| &it.$field);
            let offset = offset_of!(Struct, $field);
            writeln!($out, "{}.{} {offset} {size}", stringify!($name), stringify!($field)).unwrap();
        )*
    }};
}

fn size_of_field<S, F>(_field: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

#[test]
#[rustfmt::skip]
fn structs_and_constants_are_what_layout_txt_says() {
    let mut out = String::new();
"#;
    text += &body;
    text + "    assert_eq!(out, include_str!(\"../abi/layout.txt\"));\n}\n"
}

fn items(chapters: &[Source]) -> impl Iterator<Item = (&str, &Item)> {
    chapters.iter().flat_map(|chapter| {
        chapter
            .items
            .iter()
            .map(|item| (chapter.module.as_str(), item))
    })
}
