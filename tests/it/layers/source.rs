//! The sources of both crates as tokens, without comments, the insides of literals and what is compiled for tests alone.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file.
pub struct Source {
    /// Its path below `src/`, with `/`.
    pub path: String,
    /// Lines of the file, tests and comments included.
    pub lines: usize,
    /// Names and punctuation, in order; a literal with quotes is `""`.
    pub tokens: Vec<String>,
}

impl Source {
    /// The source of a text.
    pub fn of(path: &str, text: &str) -> Self {
        let mut tokens = shipped(&tokens(text));
        // The program's own files name the library as others do, and the library names the base as itself.
        let program = path == "main.rs" || path.starts_with("cli/");
        for at in 1..tokens.len() {
            let is_crate = tokens[at - 1] == "mdlm_base" || program && tokens[at - 1] == "mdlm";
            if tokens[at] == "::" && is_crate && (at < 2 || tokens[at - 2] != "::") {
                "crate".clone_into(&mut tokens[at - 1]);
            }
        }
        Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            tokens,
        }
    }

    /// Whether the tokens stand somewhere one after the other.
    pub fn has(&self, tokens: &[&str]) -> bool {
        self.tokens.windows(tokens.len()).any(|window| window == tokens)
    }
}

/// The folder `src/`.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files of both crates, those for tests included.
pub fn sources() -> Vec<Source> {
    fn walk(folder: &Path, all: &mut Vec<Source>) {
        let mut entries: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root()).unwrap().to_str().unwrap();
                let text = fs::read_to_string(&path).unwrap();
                all.push(Source::of(&below.replace('\\', "/"), &text));
            }
        }
    }
    let mut all = Vec::new();
    walk(&root(), &mut all);
    assert!(all.len() > 10, "the sources were not found");
    all
}

/// Whether a token is a name or a keyword.
pub fn is_name(token: &str) -> bool {
    token.starts_with(|symbol: char| symbol.is_alphabetic() || symbol == '_')
}

/// The tokens of a text: names, numbers, `::`, single symbols; literals with quotes as `""`.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(symbol) = rest.chars().next() {
        let width = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(width) = raw_string(rest) {
            tokens.push("\"\"".to_owned());
            width
        } else if symbol == '"' {
            tokens.push("\"\"".to_owned());
            quoted(rest, '"')
        } else if symbol == '\'' {
            // A lifetime has no closing quote behind its first letter.
            let mut behind = rest.chars().skip(1);
            if behind.next() == Some('\\') || behind.next() == Some('\'') {
                tokens.push("\"\"".to_owned());
                quoted(rest, '\'')
            } else {
                1
            }
        } else if symbol.is_alphanumeric() || symbol == '_' {
            let width = rest
                .find(|symbol: char| !(symbol.is_alphanumeric() || symbol == '_'))
                .unwrap_or(rest.len());
            tokens.push(rest[..width].to_owned());
            width
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !symbol.is_whitespace() {
                tokens.push(symbol.to_string());
            }
            symbol.len_utf8()
        };
        rest = &rest[width..];
    }
    tokens
}

/// Bytes of the block comment at the beginning of a text; such comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    loop {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 || at >= text.len() {
            return at;
        }
    }
}

/// Bytes of the literal in quotes at the beginning of a text.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, symbol) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if symbol == '\\' {
            escaped = true;
        } else if symbol == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Bytes of the raw string at the beginning of a text, if it is one.
fn raw_string(text: &str) -> Option<usize> {
    let behind = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let inside = behind[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let closed = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(text.len() - inside.len() + closed)
}

/// Tokens without the items, fields and statements under `#[cfg(test)]`, or under `cfg(all(test, …))`; in both, `any(test,
/// feature = "testing")` may stand for `test`.
fn shipped(tokens: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_attribute = tokens[at] == "#" && tokens.get(at + 1).is_some_and(|token| token == "[");
        if !is_attribute {
            out.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = at + 1 + group(&tokens[at + 1..]);
        let attribute = &tokens[at..end];
        if attribute[2] == "cfg" && attribute.iter().any(|token| token == "test") {
            let any = attribute.iter().filter(|token| *token == "any").count();
            let testing = ["any", "(", "test", ",", "feature", "=", "\"\"", ")"];
            let shared = attribute
                .windows(testing.len())
                .filter(|window| *window == testing);
            assert!(
                attribute.iter().all(|token| token != "not") && shared.count() == any,
                "{attribute:?}: only `test`, `all` and `any(test, feature = \"testing\")` are read"
            );
            at = end + item(&tokens[end..]);
        } else {
            out.extend_from_slice(attribute);
            at = end;
        }
    }
    out
}

/// Tokens of the group that begins with an opening bracket.
fn group(tokens: &[String]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match &**token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Tokens of the item, field or statement at the beginning, with further attributes.
fn item(tokens: &[String]) -> usize {
    let mut at = 0;
    while tokens.get(at).is_some_and(|token| token == "#") {
        at += 1 + group(&tokens[at + 1..]);
    }
    if tokens[at] == "pub" {
        at += 1;
        if tokens[at] == "(" {
            at += group(&tokens[at..]);
        }
    }
    let keyword = &*tokens[at];
    // These have no body in braces, or one that does not end them.
    let ends_with_semicolon =
        matches!(keyword, "use" | "static" | "let" | "type") || keyword == "const" && tokens[at + 1] != "fn";
    let is_item = matches!(
        keyword,
        "const" | "enum" | "fn" | "impl" | "mod" | "struct" | "trait" | "unsafe"
    );
    while at < tokens.len() {
        match &*tokens[at] {
            ";" => return at + 1,
            "," if !is_item && !ends_with_semicolon => return at + 1,
            // The end of what the field or statement is in.
            "}" | ")" | "]" => return at,
            "{" if !ends_with_semicolon => return at + group(&tokens[at..]),
            "(" | "[" | "{" => at += group(&tokens[at..]),
            _ => at += 1,
        }
    }
    at
}
