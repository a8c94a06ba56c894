//! The architecture's own rules, read off the sources: who imports whom, where `unsafe` lives, who prints.
//! The crate documentation in `lib.rs` is the statement of the rules; these tests parse it and hold the code to it.

use std::collections::BTreeMap;
use std::fs;

mod graph;
pub mod source;

use graph::{circles, declared, imports, is_above, shipped};
use source::{Source, is_name, root, sources};

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
            ["base", "lib"].contains(&module) || layers.contains_key(module),
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

/// A change of the table recompiles the crate that has it and no more.
#[test]
fn layers_of_the_base_are_those_below_the_table_of_shapes() {
    let layers = layers();
    let table = layers["shapes"];
    let sources = sources();
    let of = |root: &str| declared(sources.iter().find(|source| source.path == root).unwrap());
    let (base, upper) = (of("base.rs"), of("lib.rs"));
    assert!(base.iter().all(|module| layers[module] < table), "{base:?}");
    assert!(upper.iter().all(|module| layers[module] >= table), "{upper:?}");
    let listed = layers.values().filter(|layer| **layer < table).count();
    // `testing` is compiled for tests alone.
    assert_eq!(base.len(), listed - 1);
    let of_base = |source: &&Source| base.iter().any(|module| module == module_of(&source.path));
    for source in sources.iter().filter(of_base) {
        for name in ["SHAPES", "with_compiled_shapes"] {
            assert!(!source.has(&[name]), "{} names `{name}`", source.path);
        }
    }
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

/// What a file takes from the modules above it (`super::…`) does not count: files of a folder share what its `mod.rs` holds,
/// and a `mod.rs` that builds what its files hold imports them. All else counts.
#[test]
fn layers_of_files_form_no_circle() {
    let mut all = imports(&sources());
    all.retain(|(from, to), _| !is_above(to, from));
    let mut faults = Vec::new();
    for circle in circles(&all) {
        faults.push(format!("{} files import each other:", circle.len()));
        let within = all
            .iter()
            .filter(|((from, to), _)| circle.contains(&**from) && circle.contains(&**to));
        faults.extend(within.map(|((from, to), names)| format!("  {from} -> {to}: {names:?}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn layers_reader_finds_circles_and_passes_over_imports_of_modules_above() {
    let sources = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a/mod.rs", "mod x; use x::X; pub trait Shared {}"),
        ("a/x.rs", "use super::Shared; pub struct X;"),
        ("b.rs", "use crate::c::C; pub struct B;"),
        ("c.rs", "use crate::b::B; use crate::a::Shared; pub struct C;"),
    ]
    .map(|(path, text)| Source::of(path, text));
    let mut all = imports(&sources);
    assert_eq!(circles(&all).len(), 2);
    all.retain(|(from, to), _| !is_above(to, from));
    assert_eq!(circles(&all), [["b.rs", "c.rs"].into()]);
}

#[test]
fn layers_have_files_of_900_lines_at_most() {
    let sources = sources();
    let long: Vec<_> = sources
        .iter()
        .filter(|source| source.lines > 900)
        .map(|source| (&source.path, source.lines))
        .collect();
    assert!(long.is_empty(), "{long:?}");
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

/// Invariant 6: the rooms that compute touch no file, read no variable and start no process. What they need of the machine is
/// handed in by `system` and `weights`.
#[test]
fn layers_that_compute_do_no_io() {
    const ROOMS: [&str; 3] = ["diffusion", "kernels", "model"];
    /// Modules of `std` that reach out of the process.
    const OUTSIDE: [&str; 7] = ["env", "fs", "io", "net", "os", "path", "process"];
    /// Names that do, wherever they come from.
    const NAMES: [&str; 9] = [
        "File",
        "OpenOptions",
        "Path",
        "PathBuf",
        "TcpStream",
        "UdpSocket",
        "UnixStream",
        "memmap2",
        "tempfile",
    ];
    /// Files that load libraries of the system's at run time: CUDA's driver, NVRTC, cublasLt and NCCL. The libraries read files and
    /// variables as they start (LD_LIBRARY_PATH, CUDA_VISIBLE_DEVICES), and a device is asked what it is.
    const LOADS_LIBRARIES: [&str; 5] = [
        "kernels/cuda/compiler.rs",
        "kernels/cuda/device.rs",
        "kernels/cuda/nccl.rs",
        "kernels/cuda/probe.rs",
        "kernels/cuda/products.rs",
    ];
    let all = sources();
    let compiled = shipped(&all);
    let computing = all
        .iter()
        .filter(|source| ROOMS.contains(&module_of(&source.path)) && compiled.contains(&source.path));
    let mut faults = Vec::new();
    let mut files = 0;
    for source in computing {
        files += 1;
        let named = source.tokens.iter().filter(|token| NAMES.contains(&&***token));
        let outside = of_std(source)
            .into_iter()
            .filter(|module| OUTSIDE.contains(module));
        faults.extend(named.map(|name| format!("{} names `{name}`", source.path)));
        faults.extend(outside.map(|module| format!("{} uses `std::{module}`", source.path)));
        let loads = ["cudarc", "libloading", "dlopen"]
            .iter()
            .any(|library| source.has(&[library]));
        if loads && !LOADS_LIBRARIES.contains(&&*source.path) {
            faults.push(format!("{} loads libraries", source.path));
        }
    }
    assert!(files > 50, "{files} files of the rooms were read");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The modules of `std` that a source names, in paths and in groups.
fn of_std(source: &Source) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, window) in source.tokens.windows(3).enumerate() {
        if window[0] != "std" || window[1] != "::" {
            continue;
        }
        if window[2] != "{" {
            found.push(&*window[2]);
            continue;
        }
        let mut depth = 0;
        let mut before = "";
        for token in &source.tokens[at + 2..] {
            if is_name(token) && depth == 1 && (before == "{" || before == ",") {
                found.push(token);
            }
            depth += i32::from(token == "{") - i32::from(token == "}");
            before = token;
            if depth == 0 {
                break;
            }
        }
    }
    found
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
        tokens(
            "#[cfg(all(any(test, feature = \"testing\"), unix))] mod no; f #[cfg(any(test, feature = \"testing\"))] fn no() {} g"
        ),
        "f g"
    );
    assert_eq!(
        tokens("#[cfg(unix)] fn a() {}"),
        "# [ cfg ( unix ) ] fn a ( ) { }"
    );
}

#[test]
fn layers_reader_finds_the_modules_of_std() {
    let of = |text| of_std(&Source::of("a.rs", text)).join(" ");
    assert_eq!(
        of("use std::fs; fn f() { std::env::var(x); crate::std }"),
        "fs env"
    );
    assert_eq!(
        of("use std::{fmt::{self, Write}, io::{self, Read}, time};"),
        "fmt io time"
    );
}

#[test]
fn layers_reader_finds_the_file_that_defines_a_name() {
    let sources = [
        ("lib.rs", "pub mod a; mod b; #[cfg(test)] mod tests; mod d; mod e; mod f;"),
        ("a/mod.rs", "mod x; mod y; pub use x::X; pub use y::*; use std::fs; pub fn own() {}"),
        ("a/x.rs", "pub struct X; mod inner { use super::super::y; fn f() { y::f() } }"),
        ("a/y.rs", "pub struct Y; pub fn f() { std::fs::read(); let x = super::X::new(); }"),
        ("b.rs", "use crate::{a::{self as other, X}, d::D as E}; fn f() { other::own(); crate::a::Y; $crate::d::no }"),
        ("d.rs", "use crate::a::fs; pub struct D; fn f() { self::g(); E::no(); a.crate::b() }"),
        ("tests.rs", "use crate::d::D;"),
        ("e.rs", "pub use crate::a::*;"),
        ("f.rs", "use crate::e::X;"),
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
            "e.rs a/mod.rs a",
            "f.rs a/x.rs X",
        ]
    );
}
