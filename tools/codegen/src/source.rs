//! What one file of `src/capi` exports: its items in source order with their documentation, read
//! by `syn`, and their C declarations, written by one pass of `cbindgen` over the same file.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use syn::spanned::Spanned;

/// One file of `src/capi`.
pub struct Source {
    /// The module's name, such as `reader`.
    pub module: String,
    /// The lines of its `//!` documentation.
    pub docs: Vec<String>,
    /// What goes into the header, in source order.
    pub items: Vec<Item>,
}

/// One item of the header.
pub struct Item {
    pub name: String,
    /// The lines of its `///` documentation.
    pub docs: Vec<String>,
    /// Its C declaration as `cbindgen` wrote it, on as few lines as possible.
    pub declaration: String,
    pub kind: Kind,
    /// The item follows the one before it without an empty line.
    pub adjacent: bool,
}

pub enum Kind {
    Constant,
    /// A `pub type`.
    Alias,
    /// A struct without `#[repr(C)]`: C sees a name only.
    Opaque,
    /// A struct whose fields C sees; `init` if the file exports `<name>_init`.
    Struct {
        fields: Vec<Field>,
        init: bool,
    },
    Function,
    /// C text from a `// header:` comment.
    Literal,
}

pub struct Field {
    pub name: String,
    pub docs: Vec<String>,
}

impl Source {
    /// Reads `path`, the file of `module` in `src/capi`. In a chapter of the header everything
    /// public is for C; in other files it is only what bears the library's prefix.
    pub fn read(path: &Path, module: &str, is_chapter: bool) -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(path)?;
        let file =
            syn::parse_file(&text).map_err(|error| format!("{}: {error}", path.display()))?;

        // (first line, last line, item)
        let mut found: Vec<(usize, usize, Item)> = literals(&text);
        // Items for some builds only, such as those of the feature `test-panics`.
        let mut conditional = Vec::new();
        for item in &file.items {
            let Some((attrs, exported)) = export(item, is_chapter)? else {
                continue;
            };
            if attrs.iter().any(|attr| attr.path().is_ident("cfg")) {
                conditional.push(exported.name);
            } else {
                let span = item.span();
                found.push((span.start().line, span.end().line, exported));
            }
        }
        found.sort_by_key(|(first, _, _)| *first);

        let mut last_line = 0;
        let mut items: Vec<Item> = Vec::new();
        for (first, last, mut item) in found {
            item.adjacent = first == last_line + 1;
            last_line = last;
            items.push(item);
        }
        // `mod.rs` has nothing to declare, and cbindgen would follow it into the other files.
        if !items.is_empty() {
            declare(path, &mut items, &conditional)?;
        }
        Ok(Self {
            module: module.to_owned(),
            docs: docs(&file.attrs),
            items,
        })
    }
}

/// The text of the `// header:` comments: each is the lines that follow, up to the first that is
/// not a `//` comment.
fn literals(text: &str) -> Vec<(usize, usize, Item)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((first, line)) = lines.next() {
        if line != "// header:" {
            continue;
        }
        let mut body = Vec::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("//")) {
            let line = line.trim_start_matches("//");
            body.push(line.strip_prefix(' ').unwrap_or(line));
        }
        let item = Item {
            name: String::new(),
            docs: Vec::new(),
            declaration: body.join("\n"),
            kind: Kind::Literal,
            adjacent: false,
        };
        found.push((first + 1, first + 1 + body.len(), item));
    }
    found
}

/// The item's attributes, and the item as it goes into the header, its declaration still empty;
/// `None` if it is not exported.
fn export(item: &syn::Item, is_chapter: bool) -> Result<Option<(&[syn::Attribute], Item)>, String> {
    let (attrs, vis, ident, kind) = match item {
        syn::Item::Const(item) => (&item.attrs, &item.vis, &item.ident, Kind::Constant),
        syn::Item::Type(item) => (&item.attrs, &item.vis, &item.ident, Kind::Alias),
        syn::Item::Struct(item) => {
            let kind = if is_repr_c(&item.attrs) {
                let mut fields = Vec::new();
                for field in &item.fields {
                    let name = field
                        .ident
                        .as_ref()
                        .ok_or_else(|| format!("{}: a field without a name", item.ident))?
                        .to_string();
                    let docs = docs(&field.attrs);
                    if docs.is_empty() {
                        return Err(format!("{}.{name} has no documentation", item.ident));
                    }
                    fields.push(Field { name, docs });
                }
                Kind::Struct {
                    fields,
                    init: false,
                }
            } else {
                Kind::Opaque
            };
            (&item.attrs, &item.vis, &item.ident, kind)
        }
        syn::Item::Fn(item) if item.sig.abi.is_some() => {
            (&item.attrs, &item.vis, &item.sig.ident, Kind::Function)
        }
        _ => return Ok(None),
    };
    if !matches!(vis, syn::Visibility::Public(_)) {
        return Ok(None);
    }
    let name = ident.to_string();
    let prefix = match kind {
        Kind::Constant => "TFCKPT_",
        _ => "tfckpt_",
    };
    if !name.starts_with(prefix) {
        if !is_chapter {
            return Ok(None);
        }
        return Err(format!("{name} is public but does not start with {prefix}"));
    }
    let docs = docs(attrs);
    if docs.is_empty() {
        return Err(format!("{name} has no documentation"));
    }
    let item = Item {
        name,
        docs,
        declaration: String::new(),
        kind,
        adjacent: false,
    };
    Ok(Some((attrs, item)))
}

/// The lines of the documentation in `attrs`, without the space that follows `///`.
fn docs(attrs: &[syn::Attribute]) -> Vec<String> {
    let mut lines = Vec::new();
    for attr in attrs {
        let syn::Meta::NameValue(meta) = &attr.meta else {
            continue;
        };
        if !meta.path.is_ident("doc") {
            continue;
        }
        if let syn::Expr::Lit(literal) = &meta.value
            && let syn::Lit::Str(text) = &literal.lit
        {
            for line in text.value().split('\n') {
                let line = line.strip_prefix(' ').unwrap_or(line).trim_end();
                // It would end the C comment.
                lines.push(line.replace("*/", "* /"));
            }
        }
    }
    lines
}

fn is_repr_c(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("repr")
            && attr
                .parse_args::<syn::Ident>()
                .is_ok_and(|argument| argument == "C")
    })
}

/// Fills in the declarations of `items` from one `cbindgen` pass over `path`.
fn declare(path: &Path, items: &mut [Item], conditional: &[String]) -> Result<(), Box<dyn Error>> {
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        style: cbindgen::Style::Both,
        documentation: false,
        no_includes: true,
        usize_is_size_t: true,
        // Wrapping is done afterwards, where the width of the macro in front is known.
        line_length: usize::MAX,
        tab_width: 2,
        ..Default::default()
    };
    config.function.args = cbindgen::Layout::Horizontal;
    config.function.sort_by = Some(cbindgen::SortKey::None);
    config.constant.sort_by = Some(cbindgen::SortKey::None);
    // Types that no function of the file takes are exported too.
    config.export.include = items
        .iter()
        .filter(|item| !matches!(item.kind, Kind::Function | Kind::Literal | Kind::Constant))
        .map(|item| item.name.clone())
        .collect();
    let mut output = Vec::new();
    cbindgen::Builder::new()
        .with_src(path)
        .with_config(config)
        .generate()
        .map_err(|error| format!("{}: {error}", path.display()))?
        .write(&mut output);

    let mut declarations = HashMap::new();
    for text in String::from_utf8(output)?.split("\n\n") {
        // Types go by their name alone, as the header typedefs each.
        let text = text.trim();
        let (head, rest) = match text.strip_prefix("typedef struct ") {
            Some(rest) => ("typedef struct ", rest),
            None => ("", text),
        };
        let text = head.to_owned() + &rest.replace("struct tfckpt_", "tfckpt_");
        // DLPack's are not typedefed here, as its own header does that, and C99 allows it once.
        let text = text.replace("DLManaged", "struct DLManaged");
        if !text.is_empty() {
            declarations.insert(declared_name(&text).to_owned(), text);
        }
    }
    let names: Vec<String> = items.iter().map(|item| item.name.clone()).collect();
    for item in items {
        if matches!(item.kind, Kind::Literal) {
            continue;
        }
        item.declaration = declarations.remove(&item.name).ok_or_else(|| {
            format!(
                "{}: cbindgen has no declaration of {}",
                path.display(),
                item.name
            )
        })?;
        if let Kind::Struct { init, .. } = &mut item.kind {
            *init = names.contains(&format!("{}_init", item.name));
        }
    }
    declarations.retain(|name, _| !conditional.contains(name));
    if let Some(name) = declarations.keys().next() {
        let path = path.display();
        return Err(format!("{path}: cbindgen exports {name}, which is not public API").into());
    }
    Ok(())
}

/// The name that a C declaration declares.
fn declared_name(text: &str) -> &str {
    fn is_name(c: char) -> bool {
        c.is_ascii_alphanumeric() || c == '_'
    }
    if let Some(define) = text.strip_prefix("#define ") {
        return define.split(' ').next().unwrap_or_default();
    }
    let head = if let Some((_, name)) = text.split_once("(*") {
        // A pointer to a function, in a typedef: the name comes first.
        if text.starts_with("typedef") && !text.contains('{') {
            return name.split(')').next().unwrap_or_default();
        }
        text
    } else {
        text
    };
    let head = if head.starts_with("typedef") {
        head.trim_end_matches(';')
    } else {
        head.split('(').next().unwrap_or_default()
    };
    head.rsplit(|c| !is_name(c)).next().unwrap_or_default()
}
