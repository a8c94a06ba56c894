//! The words of CONTRIBUTING.md's glossary hold: no text for users, and no comment, message or test name, uses a word of
//! the list [`REFUSED`]; a test's name begins with its feature; a type's name has one meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::layers::source::{Source, sources};
use crate::support::mdlm;

/// Words that are refused everywhere, and what to write instead.
const REFUSED: [(&str, &str); 12] = [
    ("told", "shown, passed, recorded, reported"),
    ("tells?", "shows, says, records, lists"),
    (
        "somebody|nobody",
        "the name of the actor: a user, another process, no stage",
    ),
    ("bec(o|a)mes? of", "what happens to; the state or the result of"),
    (
        "what lies (there|here|in|at|below|under)",
        "the contents of, the files in",
    ),
    ("for the eyes of", "shown to"),
    ("knows? nothing of", "does not depend on"),
    ("what is there|what there is", "what is found, what exists"),
    ("begins? anew", "restarts from step 0"),
    ("comes? to its end", "ends"),
    ("takes? note of", "records"),
    ("whoever", "the name of the actor"),
];

/// Words that are refused in texts for users: help, schema, pages and messages. In a comment they may be plain English.
const REFUSED_FOR_USERS: [(&str, &str); 3] = [
    ("none of", "no … of"),
    ("of (its|their|his) own", "separate, its"),
    ("it is none|is none of", "is not a"),
];

/// Words with which no test's name begins, and what to begin with instead, so that `cargo test FEATURE` finds the tests of
/// a feature.
const REFUSED_BEGINNINGS: [(&str, &str); 3] = [
    ("a|an|the", "the feature, without an article: `csv_…`, `resume_…`"),
    (
        "what|whatever|where|who|that",
        "the feature, with the case behind it: `exclude_…`",
    ),
    (
        "it|its|of|in|on|with|without|there|nothing|every|everything",
        "the feature: `cache_key_…`",
    ),
];

/// Names of types that three or more files define, and why.
const SHARED_TYPES: [(&str, &str); 4] = [
    ("Args", "the arguments of a command, in the file of each"),
    ("Matrix", "a matrix of a backend, in the file of each"),
    ("Recording", "the tape of a backend, in the file of each"),
    ("Weight", "a parameter of a backend, in the file of each"),
];

/// A text and where it comes from.
struct Text {
    place: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder with that ending, in order.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The help of the program and of every command.
fn help() -> Vec<Text> {
    let page = |command: &[&str]| {
        let output = mdlm().args(command).arg("--help").output().unwrap();
        assert!(output.status.success(), "{command:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let main = page(&[]);
    let commands: Vec<&str> = main
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|word| word.chars().all(|c| c.is_ascii_lowercase()))
        .filter(|word| mdlm().args([*word, "--help"]).output().unwrap().status.success())
        .collect();
    assert!(
        commands.contains(&"run") && commands.contains(&"plan"),
        "{commands:?}"
    );
    let of_command = |command: &&str| Text {
        place: format!("mdlm {command} --help"),
        text: page(&[command]),
    };
    let mut pages: Vec<Text> = commands.iter().map(of_command).collect();
    pages.push(Text {
        place: "mdlm --help".to_owned(),
        text: main.clone(),
    });
    pages
}

/// Markdown pages, manifests, the schema and the snapshots of what the program prints.
fn pages() -> Vec<Text> {
    let root = root();
    let mut paths: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "tests/README.md"]
        .map(|path| root.join(path))
        .to_vec();
    paths.extend(files(&root.join("schemas"), ".json"));
    paths.extend(files(&root.join("schemas"), ".md"));
    paths.extend(files(&root.join("data"), ".md"));
    paths.extend(files(&root.join("pipelines"), ".json"));
    paths.extend(files(&root.join("pipelines"), ".md"));
    paths.extend(files(&root.join("tests/it"), ".snap"));
    let read = |path: PathBuf| Text {
        place: relative(&path),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(read).collect()
}

/// The prose of a line of source.
#[derive(Debug, Default, PartialEq)]
struct Prose {
    comment: String,
    /// Texts in quotes.
    quoted: String,
    /// The name of the function that the line declares, as words.
    function: String,
}

/// The name of the function that a line declares, as words; empty for other lines.
fn declared(line: &str) -> String {
    let Some((before, rest)) = line.split_once("fn ") else {
        return String::new();
    };
    let is_keyword = |word: &str| word.starts_with("pub") || matches!(word, "const" | "unsafe");
    let name = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next();
    match name {
        Some(name) if before.split_whitespace().all(is_keyword) => name.replace('_', " "),
        _ => String::new(),
    }
}

/// Comments, texts in quotes and names of functions of a source file, line by line; other names are left out.
fn prose(source: &str) -> Vec<Prose> {
    let mut lines = Vec::new();
    let mut quoted = false;
    for line in source.lines() {
        let mut kept = Prose::default();
        if !quoted {
            kept.function = declared(line);
        }
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' if quoted => drop(characters.next()),
                '"' => {
                    quoted = !quoted;
                    kept.quoted.push(' ');
                }
                // A quote as a character literal: '"'.
                '\'' if !quoted && characters.peek() == Some(&'"') => drop(characters.next()),
                '/' if !quoted && characters.peek() == Some(&'/') => kept.comment.extend(characters.by_ref()),
                character if quoted => kept.quoted.push(character),
                _ => {}
            }
        }
        lines.push(kept);
    }
    lines
}

/// The texts of the code in a folder.
#[derive(Default)]
struct Code {
    comments: Vec<Text>,
    /// Texts in quotes.
    messages: Vec<Text>,
    functions: Vec<Text>,
}

fn code(folder: &str) -> Code {
    let mut code = Code::default();
    for path in files(&root().join(folder), ".rs") {
        // This file quotes the refused words.
        if path.ends_with(file!()) {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        for (number, line) in prose(&source).into_iter().enumerate() {
            let text = |text: String| Text {
                place: format!("{}:{}", relative(&path), number + 1),
                text,
            };
            code.comments.push(text(line.comment));
            code.messages.push(text(line.quoted));
            code.functions.push(text(line.function));
        }
    }
    code
}

/// The names of a source's tests, as words, with their lines.
fn test_names(source: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    let mut is_test = false;
    for (number, line) in source.lines().enumerate() {
        is_test |= line.trim() == "#[test]";
        let name = declared(line);
        if is_test && !name.is_empty() {
            names.push((number + 1, name));
            is_test = false;
        }
    }
    names
}

/// The names of tests that begin with a refused word, one a line; empty when all is well.
fn refused_beginnings(place: &str, source: &str) -> String {
    let mut found = String::new();
    for (line, name) in test_names(source) {
        let first = name.split(' ').next().unwrap_or_default();
        let refused = REFUSED_BEGINNINGS
            .iter()
            .find(|(words, _)| words.split('|').any(|word| word == first));
        if let Some((_, instead)) = refused {
            let _ = writeln!(found, "{place}:{line}: `{name}` (begin with {instead})");
        }
    }
    found
}

/// The names of the types that a source defines; of aliases those outside of braces alone, since traits have others.
fn types(source: &Source) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut depth = 0;
    for pair in source.tokens.windows(2) {
        let [keyword, name] = [&*pair[0], &*pair[1]];
        match keyword {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        let is_definition = matches!(keyword, "struct" | "enum" | "union" | "trait");
        if (is_definition || keyword == "type" && depth == 0) && name.starts_with(char::is_uppercase) {
            names.insert(name);
        }
    }
    names
}

/// Every use of a refused word, one a line; empty when all is well.
fn uses(texts: &[Text], words: &[(&str, &str)]) -> String {
    let refused: Vec<(Regex, &str)> = words
        .iter()
        .map(|(word, instead)| (Regex::new(&format!(r"(?i)\b({word})\b")).unwrap(), *instead))
        .collect();
    let mut found = String::new();
    for Text { place, text } in texts {
        // The head of a snapshot names an expression of a test.
        for line in text.lines().filter(|line| !line.starts_with("expression:")) {
            for (word, instead) in &refused {
                if let Some(used) = word.find(line) {
                    let _ = writeln!(
                        found,
                        "{place}: `{}` (write: {instead}): {}",
                        used.as_str(),
                        line.trim()
                    );
                }
            }
        }
    }
    found
}

#[test]
fn language_of_help_schema_pages_and_messages_uses_no_refused_word() {
    let mut messages = code("src").messages;
    // English that the detokenizers read and write.
    messages.retain(|text| !text.place.starts_with("src/data/detokenize/"));
    let texts: Vec<Text> = help().into_iter().chain(pages()).chain(messages).collect();
    let found = uses(&texts, &[&REFUSED[..], &REFUSED_FOR_USERS].concat());
    assert!(found.is_empty(), "{} uses:\n{found}", found.lines().count());
}

#[test]
fn language_of_comments_and_functions_uses_no_refused_word() {
    let Code {
        comments, functions, ..
    } = code("src");
    let found = uses(&comments, &REFUSED) + &uses(&functions, &REFUSED);
    assert!(found.is_empty(), "{} uses:\n{found}", found.lines().count());
}

#[test]
fn language_of_tests_uses_no_refused_word() {
    let tests = code("tests");
    for texts in [tests.comments, tests.messages, tests.functions] {
        assert!(texts.iter().any(|text| !text.text.is_empty()));
        let found = uses(&texts, &REFUSED);
        assert!(found.is_empty(), "{} uses:\n{found}", found.lines().count());
    }
}

#[test]
fn language_of_a_source_is_its_comments_quoted_texts_and_functions() {
    let source = "let told = \"somebody \\\" said\"; // nobody\nlet c = '\"'; let x = 1; /// none of it\n\
                  pub const fn it_is_told(x: u8) {}\nuse_fn (x) // fn told(\n";
    let line = |comment: &str, quoted: &str, function: &str| Prose {
        comment: comment.to_owned(),
        quoted: quoted.to_owned(),
        function: function.to_owned(),
    };
    assert_eq!(
        prose(source),
        [
            line("/ nobody", " somebody  said ", ""),
            line("// none of it", "", ""),
            line("", "", "it is told"),
            line("/ fn told(", "", ""),
        ]
    );
    let text = |text: &str| Text {
        place: "a.rs:1".to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(uses(&[text("a retold story")], &REFUSED), "");
    assert!(uses(&[text("what becomes of it")], &REFUSED).starts_with("a.rs:1: `becomes of` (write: "));
}

#[test]
fn language_of_test_names_begins_with_the_feature() {
    let mut found = String::new();
    let mut count = 0;
    let folders = ["src", "tests"].map(|folder| files(&root().join(folder), ".rs"));
    for path in folders.concat() {
        let source = fs::read_to_string(&path).unwrap();
        count += test_names(&source).len();
        found += &refused_beginnings(&relative(&path), &source);
    }
    assert!(count > 500, "{count} tests were found");
    assert!(found.is_empty(), "{} names:\n{found}", found.lines().count());

    let source =
        "#[test]\n#[cfg(unix)]\nfn what_is_read() {}\nfn a_helper() {}\n#[test]\nfn csv_is_read() {}\n";
    assert_eq!(
        test_names(source),
        [(3, "what is read".to_owned()), (6, "csv is read".to_owned())]
    );
    assert!(refused_beginnings("a.rs", source).starts_with("a.rs:3: `what is read` (begin with "));
}

#[test]
fn language_of_types_gives_a_name_one_meaning() {
    let sources = sources();
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in &sources {
        let is_test = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
        for name in types(source).into_iter().filter(|_| !is_test) {
            places.entry(name).or_default().push(&source.path);
        }
    }
    assert!(places.len() > 500, "{} types were found", places.len());
    places.retain(|_, places| places.len() >= 3);
    let mut found = String::new();
    for (name, _) in SHARED_TYPES {
        if places.remove(name).is_none() {
            let _ = writeln!(
                found,
                "`{name}` is defined in fewer than three files: take it off the list"
            );
        }
    }
    for (name, places) in &places {
        let _ = writeln!(found, "`{name}` (name each by its room): {}", places.join(", "));
    }
    assert!(found.is_empty(), "{} names:\n{found}", found.lines().count());

    let code = "pub(super) struct A<T>(T);\nimpl A {\nenum B {}\ntype C = u8;\n}\ntype D = u8; // struct E\n";
    assert_eq!(types(&Source::of("a.rs", code)), BTreeSet::from(["A", "B", "D"]));
}
