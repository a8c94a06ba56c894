//! The architecture's own rules, read off the sources: who imports whom, where `unsafe` lives, who prints.
//! The crate documentation in `lib.rs` is the statement of the rules; these tests parse it and hold the code to it.

use std::collections::BTreeMap;
use std::fs;

mod graph;
pub mod source;

use graph::imports;
use source::{Source, root, sources};

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

fn module_of(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
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

#[test]
fn layers_import_only_from_lower_layers() {
    let layers = layers();
    let mut faults = Vec::new();
    for ((from, to), names) in imports(&sources()) {
        let (module, import) = (module_of(&from), module_of(&to));
        // Macros live at the root, which is no module of the table.
        let (Some(own), Some(layer)) = (layers.get(module), layers.get(import)) else {
            continue;
        };
        if import != module && layer >= own {
            faults.push(format!(
                "{from}: `{module}` (layer {own}) imports {names:?} of `{import}` (layer {layer})"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What two commands need lies in `args` or `render`, or in a lower layer.
#[test]
fn layers_of_the_command_line_keep_commands_apart() {
    /// Folders of `cli`; each imports only from those before it.
    const FOLDERS: [&str; 3] = ["render", "args", "commands"];
    let folder = |path: &str| {
        let folder = path.strip_prefix("cli/")?.split('/').next()?;
        FOLDERS.iter().position(|known| *known == folder)
    };
    let command = |path: &str| {
        let file = path.strip_prefix("cli/commands/")?.split('/').next()?;
        (file != "mod.rs").then(|| file.trim_end_matches(".rs").to_owned())
    };
    let all = imports(&sources());
    assert!(all.keys().filter(|(from, _)| command(from).is_some()).count() > 100);
    let mut faults = Vec::new();
    for ((from, to), names) in &all {
        let upward = folder(from).zip(folder(to)).is_some_and(|(from, to)| from < to);
        let sideways = command(from)
            .zip(command(to))
            .is_some_and(|(from, to)| from != to);
        if upward || sideways {
            faults.push(format!("{from} imports {names:?} of {to}"));
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
        assert!(
            !source.has(&["unsafe"]) || seams.contains(&&*source.path),
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
            &["println", "!"][..],
            &["eprintln", "!"],
            &["print", "!"],
            &["eprint", "!"],
            &["dbg", "!"],
            &["io", "::", "stdout"],
            &["io", "::", "stderr"],
            &["process", "::", "exit"],
        ] {
            assert!(!source.has(name), "{} uses {}", source.path, name.concat());
        }
    }
}

#[test]
fn layers_reader_ignores_comments_literals_and_tests() {
    let tokens = |text| Source::of("a.rs", text).tokens.join(" ");
    assert_eq!(tokens("a::b // no\n/* no /* no */ */ c"), "a :: b c");
    assert_eq!(
        tokens(
            r##"f("no \" no
            no", 'x', '\'', '"', b"no", r"no\", br#"no"no"#) g"##
        ),
        r#"f ( "" , "" , "" , "" , b "" , "" , "" ) g"#
    );
    assert_eq!(
        tokens("fn f<'a>(x: &'a str) {}"),
        "fn f < a > ( x : & a str ) { }"
    );
    assert_eq!(
        tokens(
            "a\n#[cfg(test)]\nmod tests {\n    b {}\n}\nc #[cfg(all(test, unix))] #[no] use no::{no, no}; d"
        ),
        "a c d"
    );
    assert_eq!(
        tokens("struct S { #[cfg(test)] no: [u8; 2], a: u8 } #[cfg(test)] pub(crate) fn no<A, B>() { no } e"),
        "struct S { a : u8 } e"
    );
    assert_eq!(
        tokens("#[cfg(unix)] fn a() {}"),
        "# [ cfg ( unix ) ] fn a ( ) { }"
    );
}

#[test]
fn layers_reader_finds_the_file_that_defines_a_name() {
    let sources = [
        ("lib.rs", "pub mod a; mod b; #[cfg(test)] mod tests; mod d;"),
        ("a/mod.rs", "mod x; mod y; pub use x::X; pub use y::*; use std::fs; pub fn own() {}"),
        ("a/x.rs", "pub struct X; mod inner { use super::super::y; fn f() { y::f() } }"),
        ("a/y.rs", "pub struct Y; pub fn f() { std::fs::read(); let x = super::X::new(); }"),
        ("b.rs", "use crate::{a::{self as other, X}, d::D as E}; fn f() { other::own(); crate::a::Y; $crate::d::no }"),
        ("d.rs", "use crate::a::fs; pub struct D; fn f() { self::g(); E::no(); a.crate::b() }"),
        ("tests.rs", "use crate::d::D;"),
    ]
    .map(|(path, text)| Source::of(path, text));
    let found: Vec<String> = imports(&sources)
        .into_iter()
        .map(|((from, to), names)| format!("{from} {to} {}", names.into_iter().collect::<Vec<_>>().join(" ")))
        .collect();
    assert_eq!(
        found,
        [
            "a/mod.rs a/x.rs X",
            "a/mod.rs a/y.rs y",
            "a/x.rs a/y.rs f y",
            "a/y.rs a/x.rs new",
            "b.rs a/mod.rs a own",
            "b.rs a/x.rs X",
            "b.rs a/y.rs Y",
            "b.rs d.rs D",
        ]
    );
}
