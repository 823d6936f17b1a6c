//! From Rust documentation to C comments.
//!
//! Paragraphs and list items are filled anew; fenced code and tables keep their lines. A heading
//! runs into its section (`# Errors` becomes `Errors:`). Sections that speak to Rust only, `Safety`
//! and `Implementation`, are left out. Links keep their text.

/// Lines of the header are at most this long, where they can be broken.
pub const WIDTH: usize = 100;

const LEFT_OUT: [&str; 2] = ["Safety", "Implementation"];

/// A part of a documentation text.
enum Block {
    /// Text to be filled: what comes before it on its first line, and the text.
    Text(&'static str, String),
    /// A line to keep.
    Line(String),
    /// An empty line, if something comes before and after it.
    Gap,
}

/// `docs` as lines of plain text, at most `width` characters long where they can be broken.
pub fn fill(docs: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut gap = false;
    for block in blocks(docs) {
        if gap && !matches!(block, Block::Gap) {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            gap = false;
        }
        match block {
            Block::Gap => gap = true,
            Block::Line(line) => lines.push(line),
            Block::Text(bullet, text) => fill_text(bullet, &text, width, &mut lines),
        }
    }
    lines
}

/// `docs` as a comment in front of a declaration.
pub fn before(docs: &[String]) -> String {
    let lines = fill(docs, WIDTH - 3);
    if let [line] = lines.as_slice()
        && line.chars().count() + 8 <= WIDTH
    {
        return format!("/** {line} */\n");
    }
    let mut text = "/**\n".to_owned();
    for line in lines {
        text += &with_margin(" *", &line);
    }
    text + " */\n"
}

/// `declaration`, one line, with `docs` as a comment from `column` on.
pub fn behind(declaration: &str, docs: &[String], column: usize) -> String {
    let width = WIDTH.saturating_sub(column + 6).max(40);
    let mut text = String::new();
    let lines = fill(docs, width);
    for (number, line) in lines.iter().enumerate() {
        let (left, mark) = match number {
            0 => (declaration, "/*"),
            _ => ("", " *"),
        };
        let end = if number + 1 == lines.len() { " */" } else { "" };
        text += format!("{left:column$}{mark} {line}{end}").trim_end();
        text.push('\n');
    }
    text
}

/// The title and the prose of a file as a banner.
pub fn banner(docs: &[String]) -> String {
    let rule = "=".repeat(WIDTH - 3);
    let mut lines = fill(docs, WIDTH - 3).into_iter();
    // The first paragraph is the title, which needs no full stop.
    let title: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let title = title.join(" ");
    let mut text = format!("/* {rule}\n * {}\n", title.trim_end_matches('.'));
    text += &format!(" * {rule}\n");
    let mut rest = lines.peekable();
    if rest.peek().is_some() {
        text += " *\n";
        for line in rest {
            text += &with_margin(" *", &line);
        }
    }
    text + " */\n"
}

fn with_margin(margin: &str, line: &str) -> String {
    format!("{margin} {line}").trim_end().to_owned() + "\n"
}

fn blocks(docs: &[String]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut code = false;
    let mut left_out = false;
    // A heading waits for the text that it runs into.
    let mut heading: Option<String> = None;
    // The last block can take another line of text.
    let mut open = false;
    for line in docs {
        let text = line.trim();
        if text.starts_with("```") {
            code = !code;
            open = false;
        } else if code {
            if !left_out {
                blocks.push(Block::Line(format!("    {line}").trim_end().to_owned()));
            }
        } else if let Some(title) = text.strip_prefix('#').map(|t| t.trim_start_matches('#')) {
            left_out = LEFT_OUT.contains(&title.trim());
            heading = (!left_out).then(|| format!("{}:", title.trim()));
            open = false;
        } else if left_out {
        } else if text.is_empty() {
            // A heading's list or text follows it at once.
            if heading.is_none() {
                blocks.push(Block::Gap);
            }
            open = false;
        } else if text.starts_with('|') {
            blocks.push(Block::Line(line.clone()));
            open = false;
        } else if let Some(item) = text.strip_prefix("- ").or(text.strip_prefix("* ")) {
            if let Some(heading) = heading.take() {
                blocks.push(Block::Line(heading));
            }
            blocks.push(Block::Text("- ", plain(item)));
            open = true;
        } else if let (true, Some(Block::Text(_, paragraph))) = (open, blocks.last_mut()) {
            paragraph.push(' ');
            paragraph.push_str(&plain(text));
        } else {
            let text = match heading.take() {
                Some(heading) => format!("{heading} {}", plain(text)),
                None => plain(text),
            };
            blocks.push(Block::Text("", text));
            open = true;
        }
    }
    blocks
}

/// `text` with `[name](target)` and ``[`name`]`` replaced by what a reader sees of them.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['[', '`']) {
        let (head, tail) = rest.split_at(at);
        out += head;
        let close = if tail.starts_with('[') { ']' } else { '`' };
        let Some(end) = tail.get(1..).and_then(|inner| inner.find(close)) else {
            rest = tail;
            break;
        };
        let (whole, after) = tail.split_at(end + 2);
        let inner = whole.trim_start_matches('[').trim_end_matches(']');
        rest = after;
        if close == '`' {
            out += whole;
        } else if let Some((_, after)) = after
            .strip_prefix('(')
            .and_then(|target| target.split_once(')'))
        {
            out += inner;
            rest = after;
        } else if inner.starts_with('`') && inner.ends_with('`') {
            out += inner;
        } else {
            out += whole;
        }
    }
    out + rest
}

fn fill_text(bullet: &str, text: &str, width: usize, lines: &mut Vec<String>) {
    let indent = " ".repeat(bullet.len());
    let mut line = bullet.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, indent.clone()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line += word;
        empty = false;
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docs(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn headings_run_into_their_sections_and_rust_only_sections_vanish() {
        let docs = docs(
            "One.\n\n# Errors\n\n- A when [`x`]\n  is so\n- B\n\n# Safety\n\nNo.\n\n# Threads\n\nAny.",
        );
        assert_eq!(
            fill(&docs, 80),
            [
                "One.",
                "",
                "Errors:",
                "- A when `x` is so",
                "- B",
                "",
                "Threads: Any."
            ]
        );
    }

    #[test]
    fn links_keep_their_text_and_other_brackets_stay() {
        assert_eq!(
            plain("[`a`] [b](c) `[d](e)` [f=…] [g"),
            "`a` b `[d](e)` [f=…] [g"
        );
    }

    #[test]
    fn code_keeps_its_lines() {
        assert_eq!(
            fill(&docs("A\nb\n```c\nif (x)\n  y();\n```"), 80),
            ["A b", "    if (x)", "      y();"]
        );
    }

    #[test]
    fn a_comment_behind_a_declaration_is_aligned() {
        let text = behind(
            "int a;",
            &docs("one two three four five six seven eight nine ten"),
            60,
        );
        assert_eq!(
            text,
            format!(
                "{:60}/* one two three four five six seven eight\n{:60} * nine ten */\n",
                "int a;", ""
            )
        );
    }

    #[test]
    fn a_banner_has_a_title_and_prose() {
        let text = banner(&docs("Simple calls.\n\nProse."));
        assert!(text.contains("\n * Simple calls\n * ="), "{text}");
        assert!(text.ends_with("=\n *\n * Prose.\n */\n"), "{text}");
    }
}
