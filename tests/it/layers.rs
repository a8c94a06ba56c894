//! The architecture's own rules, read off the sources: who imports whom, where `unsafe` lives, who prints.
//! The crate documentation in `lib.rs` is the statement of the rules; these tests parse it and hold the code to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path below `src/` with `/`, and its code without comments and test modules.
struct Source {
    path: String,
    code: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
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
                let below = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('\\', "/");
                let code = shipped_code(&fs::read_to_string(&path).unwrap());
                all.push(Source { path: below, code });
            }
        }
    }
    let mut all = Vec::new();
    walk(&root(), &mut all);
    assert!(all.len() > 10, "the sources were not found");
    all
}

/// Code without comments, the insides of string literals and what follows `#[cfg(test)] mod`.
fn shipped_code(text: &str) -> String {
    let text = match text.find("#[cfg(test)]\nmod ") {
        // A test module that is a file of its own (`mod tests;`) has nothing to cut here but its line.
        Some(at) if !text[at..].lines().nth(1).is_some_and(|line| line.ends_with(';')) => &text[..at],
        _ => text,
    };
    let mut code = String::new();
    for line in text.lines() {
        let mut rest = line;
        let mut in_string = false;
        while let Some(symbol) = rest.chars().next() {
            if !in_string && rest.starts_with("//") {
                break;
            }
            let mut width = symbol.len_utf8();
            if in_string && symbol == '\\' {
                width += rest[width..].chars().next().map_or(0, char::len_utf8);
            } else if !in_string && rest.starts_with("'\"'") {
                width = 3;
            } else if symbol == '"' {
                in_string = !in_string;
            } else if !in_string {
                code.push(symbol);
            }
            rest = &rest[width..];
        }
        code.push('\n');
    }
    code
}

/// Layer of every module, from the table in `lib.rs`.
fn layers() -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root().join("lib.rs")).unwrap();
    let mut layers = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut columns = line.split(" | ");
        let (Some(Ok(layer)), Some(modules)) = (columns.next().map(str::parse), columns.next()) else {
            continue;
        };
        for module in backticked(modules) {
            layers.insert(module.to_owned(), layer);
        }
    }
    layers
}

fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The modules that code names as `crate::module`, also within `crate::{a::…, b::…}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|symbol| symbol.is_alphanumeric() || symbol == '_' || symbol == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(identifier(rest));
            continue;
        };
        let mut depth = 1;
        let mut item = String::new();
        for symbol in group.chars() {
            match symbol {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || depth == 1 && symbol == ',' {
                found.push(identifier(item.trim()));
                item.clear();
            } else {
                item.push(symbol);
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|symbol| symbol.is_alphanumeric() || *symbol == '_')
        .collect()
}

#[test]
fn layers_list_every_module() {
    let layers = layers();
    for source in sources() {
        let module = module_of(&source.path);
        assert!(
            module == "lib" || layers.contains_key(module),
            "{module} is missing in the table of lib.rs: {layers:?}"
        );
    }
}

fn module_of(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

#[test]
fn layers_import_only_from_lower_layers() {
    let layers = layers();
    let mut faults = Vec::new();
    // Tests build what they need from wherever it is.
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    for source in sources().into_iter().filter(|source| !is_test(&source.path)) {
        let module = module_of(&source.path);
        let Some(own) = layers.get(module) else { continue };
        for import in imports(&source.code) {
            // Exported macros live at the root and are no modules.
            let Some(layer) = layers.get(&import) else {
                continue;
            };
            if import != module && layer >= own {
                faults.push(format!(
                    "{}: `{module}` (layer {own}) imports `{import}` (layer {layer})",
                    source.path
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn unsafe_code_is_only_in_the_named_seams() {
    let text = fs::read_to_string(root().join("lib.rs")).unwrap();
    let invariant = text
        .split("//! 7. ")
        .nth(1)
        .unwrap()
        .split("//! 8. ")
        .next()
        .unwrap();
    let seams: Vec<_> = backticked(invariant)
        .filter(|name| name.contains(".rs"))
        .collect();
    assert!(!seams.is_empty(), "invariant 7 names no seam: {invariant}");
    for source in sources() {
        let words = source
            .code
            .split(|symbol: char| !(symbol.is_alphanumeric() || symbol == '_'));
        let count = words.filter(|word| *word == "unsafe").count();
        assert!(
            count == 0 || seams.contains(&&*source.path),
            "{} has `unsafe` and is not among {seams:?}",
            source.path
        );
    }
}

#[test]
fn printing_is_only_in_the_command_line() {
    for source in sources() {
        if source.path.starts_with("cli/")
            || source.path == "main.rs"
            || source.path.ends_with("tests.rs")
            || source.path.contains("/tests/")
        {
            continue;
        }
        for name in [
            "println!",
            "print!",
            "dbg!",
            "io::stdout",
            "io::stderr",
            "process::exit",
        ] {
            assert!(!source.code.contains(name), "{} uses {name}", source.path);
        }
    }
}

#[test]
fn layers_reader_ignores_comments_and_strings() {
    let code =
        shipped_code("use crate::a::b; // crate::no\nlet s = \"crate::no // \\\" unsafe\"; crate::c!();\n");
    assert_eq!(imports(&code), ["a", "c"]);
    assert_eq!(imports("use crate::{a::{x, y}, b, c::z};"), ["a", "b", "c"]);
    assert_eq!(imports("use $crate::a;\nuse mycrate::b;"), Vec::<String>::new());
    assert_eq!(
        shipped_code("a\n#[cfg(test)]\nmod tests {\n    b\n}\n").trim(),
        "a"
    );
}
