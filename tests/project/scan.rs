//! Reads Rust source as tokens: which of the crate's modules a file names, where it says `unsafe`,
//! and how long it is. Tokens rather than text, so that comments and strings do not count, and
//! rather than a syntax tree, so that paths inside macros do.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What was found in one file.
#[derive(Default, Debug)]
pub struct Scan {
    /// Paths into the crate, `crate` left off: line and segments. `super` is resolved; a path that
    /// ends in `*` or names the crate itself has that as its last segment.
    pub paths: Vec<(usize, Vec<String>)>,
    /// Lines with the word `unsafe`.
    pub unsafe_lines: Vec<usize>,
    /// Lines with a path into the crate `prost`.
    pub prost_lines: Vec<usize>,
    /// `#![forbid(unsafe_code)]` is there.
    pub forbids_unsafe: bool,
    /// Files of modules that exist in tests only: `mod tests;` below `#[cfg(test)]`.
    pub test_modules: Vec<String>,
    /// Lines before the first module that exists in tests only.
    pub num_lines: usize,
}

/// Scans `text`, the file of the module with the path `module` inside the crate.
pub fn scan(text: &str, module: &[&str]) -> Scan {
    let tokens: TokenStream = text.parse().expect("Rust source");
    let mut module: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
    let mut scan = Scan {
        num_lines: text.lines().count(),
        ..Scan::default()
    };
    scan.tokens(&tokens.into_iter().collect::<Vec<_>>(), &mut module);
    scan
}

impl Scan {
    fn tokens(&mut self, tokens: &[TokenTree], module: &mut Vec<String>) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    at = self.attribute(tokens, at);
                }
                TokenTree::Group(group) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    // `mod name { … }` is one module deeper.
                    let name = match tokens.get(..at - 1) {
                        Some([.., TokenTree::Ident(word), TokenTree::Ident(name)])
                            if *word == "mod" && group.delimiter() == Delimiter::Brace =>
                        {
                            Some(name.to_string())
                        }
                        _ => None,
                    };
                    let depth = module.len();
                    module.extend(name);
                    self.tokens(&inner, module);
                    module.truncate(depth);
                }
                TokenTree::Ident(word) => {
                    let line = word.span().start().line;
                    let path = match word.to_string().as_str() {
                        "unsafe" => {
                            self.unsafe_lines.push(line);
                            continue;
                        }
                        "prost" if is_path(tokens, at) => {
                            self.prost_lines.push(line);
                            continue;
                        }
                        // `pub(crate)` and `pub(super)` are not paths.
                        "crate" | "super" if tokens.len() == 1 => continue,
                        "crate" => Vec::new(),
                        "super" => parent(module),
                        _ => continue,
                    };
                    at = self.rest_of_path(tokens, at, line, path);
                }
                _ => (),
            }
        }
    }

    /// `at` is behind a `#`. Notes what the attribute says and returns where to go on: behind the
    /// attribute, or behind the item that it takes out of the normal build.
    fn attribute(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let inner = matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == '!');
        let at = at + usize::from(inner);
        let Some(TokenTree::Group(group)) = tokens.get(at) else {
            return at;
        };
        let text: String = group
            .stream()
            .to_string()
            .split_whitespace()
            .collect::<String>();
        if inner {
            self.forbids_unsafe |= text == "forbid(unsafe_code)";
            return at + 1;
        }
        if text != "cfg(test)" && !text.starts_with("cfg(all(test,") {
            // `#[unsafe(no_mangle)]` counts.
            if text.starts_with("unsafe(") {
                self.unsafe_lines.push(group.span_open().start().line);
            }
            return at + 1;
        }
        let line = group.span_open().start().line;
        let rest = tokens.get(at + 1..).unwrap_or_default();
        let end = rest.iter().position(|token| match token {
            TokenTree::Punct(mark) => mark.as_char() == ';',
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            _ => false,
        });
        let item = match end {
            Some(end) => rest.get(..=end).unwrap_or(rest),
            None => rest,
        };
        for pair in item.windows(3) {
            if let [TokenTree::Ident(word), TokenTree::Ident(name), last] = pair
                && *word == "mod"
            {
                self.num_lines = self.num_lines.min(line - 1);
                if matches!(last, TokenTree::Punct(_)) {
                    self.test_modules.push(name.to_string());
                }
            }
        }
        at + 1 + item.len()
    }

    /// `at` is behind `crate` or `super`, which stand for `path`. Follows the path through braces
    /// and returns where it ends.
    fn rest_of_path(
        &mut self,
        tokens: &[TokenTree],
        mut at: usize,
        line: usize,
        mut path: Vec<String>,
    ) -> usize {
        while is_path(tokens, at) {
            at += 2;
            match tokens.get(at) {
                Some(TokenTree::Ident(word)) => {
                    at += 1;
                    match word.to_string().as_str() {
                        "super" => path = parent(&path),
                        // `module::{self}`
                        "self" => (),
                        word => path.push(word.to_owned()),
                    }
                }
                Some(TokenTree::Punct(mark)) if mark.as_char() == '*' => {
                    at += 1;
                    path.push("*".to_owned());
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    at += 1;
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    self.list_of_paths(&inner, &path);
                    return at;
                }
                // `path::<type>`: the type is scanned like anything else.
                _ => break,
            }
        }
        if path.is_empty() {
            path.push("crate".to_owned());
        }
        self.paths.push((line, path));
        at
    }

    /// The inside of `{…}` in a use declaration, below `prefix`.
    fn list_of_paths(&mut self, tokens: &[TokenTree], prefix: &[String]) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            let line = token.span().start().line;
            let mut path = prefix.to_vec();
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '*' => path.push("*".to_owned()),
                TokenTree::Ident(word) => match word.to_string().as_str() {
                    // `name as other`: the other name is not a path.
                    "as" => {
                        at += 1;
                        continue;
                    }
                    "self" => (),
                    word => path.push(word.to_owned()),
                },
                _ => continue,
            }
            at = self.rest_of_path(tokens, at, line, path);
        }
    }
}

fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon =
        |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    is_colon(at) && is_colon(at + 1)
}

fn parent(module: &[String]) -> Vec<String> {
    let mut module = module.to_vec();
    module.pop();
    module
}
