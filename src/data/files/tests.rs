use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A folder with files that hold their names.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for name in files {
            folder.write(name, name);
        }
        folder
    }

    fn base(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.base().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, to: &str, name: &str) {
        symlink(to, self.base().join(name)).unwrap();
    }

    fn store(&self, name: &str) {
        for folder in ["artifacts/ab", "actions/source"] {
            fs::create_dir_all(self.base().join(name).join(folder)).unwrap();
        }
        self.write(&format!("{name}/version"), "1\n");
        self.write(&format!("{name}/artifacts/ab/samples.txt"), "sampled");
    }

    fn expand(&self, files: &[&str], exclude: &[&str]) -> Result<Files> {
        let owned = |patterns: &[&str]| -> Vec<String> { patterns.iter().map(|&p| p.to_owned()).collect() };
        let (files, exclude) = (owned(files), owned(exclude));
        let named = FilePatterns {
            files: &files,
            exclude: &exclude,
            piped: Some(&[]),
        };
        expand(self.base(), named)
    }

    /// The names of the files, and what was left out.
    fn names(&self, files: &[&str], exclude: &[&str]) -> (Vec<String>, Vec<String>) {
        let found = self.expand(files, exclude).unwrap();
        let lines = found.left_out.lines();
        (found.files.into_iter().map(|file| file.name).collect(), lines)
    }

    fn fault(&self, files: &[&str], exclude: &[&str]) -> String {
        let error = self.expand(files, exclude).unwrap_err();
        format!("{error}\nhint: {}", error.hint_text().unwrap_or_default())
    }
}

#[test]
fn globs_expand_in_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("a[0]b");
    fs::create_dir_all(base.join("deep/er")).unwrap();
    for name in ["z.txt", "a.txt", "b[1].txt", "deep/er/c.txt", "deep/d.md"] {
        fs::write(base.join(name), "x").unwrap();
    }
    let names = |patterns: &[&str]| -> Result<Vec<String>> {
        let patterns: Vec<String> = patterns.iter().map(|&p| p.to_owned()).collect();
        let found = expand(&base, FilePatterns::by(&patterns))?;
        Ok(found.files.into_iter().map(|file| file.name).collect())
    };
    assert_eq!(
        names(&["z.txt", "*.txt"]).unwrap(),
        ["z.txt", "a.txt", "b[1].txt"]
    );
    assert_eq!(names(&["b[1].txt"]).unwrap(), ["b[1].txt"]);
    let all = ["a.txt", "b[1].txt", "deep/d.md", "deep/er/c.txt", "z.txt"];
    assert_eq!(names(&["**/*"]).unwrap(), all);
    assert_eq!(names(&["**"]).unwrap(), all, "everything below");
    assert_eq!(names(&["./**/./*"]).unwrap(), all);
    assert_eq!(names(&["**/**/*.md"]).unwrap(), ["deep/d.md"]);
    assert_eq!(
        names(&["deep/**/*.txt", "deep/*/c.txt"]).unwrap(),
        ["deep/er/c.txt"]
    );
    assert_eq!(names(&["*/er/../d.md"]).unwrap(), ["deep/er/../d.md"]);
    assert_eq!(
        names(&[&format!(
            "{}/*.txt",
            glob::Pattern::escape(&base.display().to_string())
        )])
        .unwrap()
        .len(),
        3
    );
    let fault = |pattern: &str| names(&[pattern]).unwrap_err();
    assert!(fault("*.csv").to_string().contains("no file matches `*.csv`"));
    assert!(fault("*/").to_string().contains("no file matches"));
    assert!(fault("deep").hint_text().unwrap().contains("deep/*.txt"));
    assert!(fault("a**").to_string().contains("malformed"));
}

#[test]
fn globs_skip_hidden_and_system_files_they_do_not_name() {
    let folder = Folder::new(&[
        "a.txt",
        ".b.txt",
        "._a.txt",
        "Thumbs.db",
        ".git/c.txt",
        ".ipynb_checkpoints/a.txt",
        "__MACOSX/a.txt",
        "d/_SUCCESS",
        "d/.part.txt.crc",
        "d/e.txt",
    ]);
    let (names, lines) = folder.names(&["**/*"], &[]);
    assert_eq!(names, ["a.txt", "d/e.txt"]);
    assert_eq!(
        lines,
        [
            "hidden left out: `.b.txt`, `.git/`",
            "system files left out: `._a.txt`, `.ipynb_checkpoints/`, `Thumbs.db`, `__MACOSX/` and 2 more"
        ]
    );
    // What it does not match is not left out either.
    assert_eq!(
        folder.names(&["*.txt"], &[]).1,
        ["hidden left out: `.b.txt`", "system files left out: `._a.txt`"]
    );
    let named = [
        ".*.txt",
        ".git/*",
        "._*",
        "__MACOSX/*.txt",
        "d/_SUCCESS",
        "Thumbs.db",
        ".ipynb_checkpoints/a.txt",
    ];
    let (names, lines) = folder.names(&named, &[]);
    assert_eq!(
        names,
        [
            ".b.txt",
            ".git/c.txt",
            "._a.txt",
            "__MACOSX/a.txt",
            "d/_SUCCESS",
            "Thumbs.db",
            ".ipynb_checkpoints/a.txt"
        ]
    );
    assert_eq!(lines, ["system files left out: `._a.txt`"], "{lines:?}");
    let fault = folder.fault(&[".git/*", "__MACOSX/**/._*", "d/*.crc"], &[]);
    assert!(fault.contains("no file matches `__MACOSX/**/._*`"), "{fault}");
    let fault = folder.fault(&["d/*.crc"], &[]);
    assert!(
        fault.contains(
            "all files that `d/*.crc` matches are left out: system files left out: `d/.part.txt.crc`"
        ),
        "{fault}"
    );
    assert!(
        fault.contains("hint: to read such files all the same, name them"),
        "{fault}"
    );
}

#[test]
fn globs_enter_no_store_of_any_name() {
    let folder = Folder::new(&["a.txt"]);
    folder.store(".mdlm");
    folder.store("results");
    // A cache that machines share.
    folder.write("shared/actions/source/ab.json", "{}");
    folder.write("shared/files/ab/abcd", "text");
    let (names, lines) = folder.names(&["**/*"], &[]);
    assert_eq!(names, ["a.txt"]);
    assert_eq!(lines, ["stores left out: `.mdlm/`, `results/`, `shared/`"]);
    for pattern in [
        "results/artifacts/*/*.txt",
        ".mdlm/**/*.txt",
        "*/artifacts/*/samples.txt",
    ] {
        let found = folder.expand(&[pattern], &[]);
        assert_eq!(found.is_ok(), !pattern.starts_with('*'), "{pattern}");
    }
    let fault = folder.fault(&["results/**/*"], &[]);
    assert!(fault.contains("stores left out: `results/actions/`"), "{fault}");
    assert!(fault.contains("`results/artifacts/…`"), "{fault}");
    let fault = folder.fault(&["./r*/**/*.txt"], &[]);
    assert!(fault.contains("`results/artifacts/…`"), "{fault}");
    let fault = folder.fault(&["shared/**/*"], &[]);
    assert!(fault.contains("`shared/files/…`"), "{fault}");
    // The project's own folder is the store.
    folder.store(".");
    let (names, lines) = folder.names(&["**/*.txt"], &[]);
    assert_eq!(names, ["a.txt"]);
    assert!(lines[0].contains("`artifacts/`"), "{lines:?}");
}

#[test]
fn globs_skip_reports_and_manifests() {
    let folder = Folder::new(&["a.html", "a.json", "data/m.json"]);
    let manifest = r#"{ "name": "a", "seed": 1, "stages": { "text": { "kind": "source" } } }"#;
    for name in ["m.json", "data/m.json"] {
        folder.write(name, manifest);
    }
    folder.write(
        "report.html",
        &format!("<!doctype html>\n<head>{}", own::GENERATOR),
    );
    let (names, lines) = folder.names(&["**/*"], &[]);
    assert_eq!(names, ["a.html", "a.json"]);
    assert_eq!(
        lines,
        ["reports and manifests left out: `data/m.json`, `m.json`, `report.html`"]
    );
    // A path that names one reads it.
    assert_eq!(folder.names(&["m.json"], &[]).0, ["m.json"]);
    assert_eq!(folder.names(&["data/m.json"], &[]).0, ["data/m.json"]);
}

#[test]
fn exclude_leaves_out_files_and_folders() {
    let folder = Folder::new(&[
        "a.txt",
        "b[1].txt",
        "d/a.txt",
        "d/old/a.txt",
        "d/old/er/b.txt",
        "d/a.bak.txt",
    ]);
    let excluding = |exclude: &[&str]| folder.names(&["**/*.txt"], exclude).0;
    assert_eq!(
        excluding(&["d/old"]),
        ["a.txt", "b[1].txt", "d/a.bak.txt", "d/a.txt"]
    );
    assert_eq!(excluding(&["d/old/"]), excluding(&["d/old/**"]));
    assert_eq!(
        excluding(&["**/old", "**/*.bak.txt"]),
        ["a.txt", "b[1].txt", "d/a.txt"]
    );
    assert_eq!(excluding(&["./d"]), ["a.txt", "b[1].txt"]);
    assert_eq!(excluding(&["d/../a.txt", "b[1].txt", "d/old"]).len(), 2);
    let all = folder.expand(&["**/*.txt"], &["a.txt", "*.bak.txt"]).unwrap();
    assert_eq!(all.files.len(), 5);
    assert_eq!(all.left_out.lines(), ["excluded: `a.txt`"]);
    let warnings = all.left_out.warnings();
    assert!(
        warnings[0].contains("`exclude` pattern `*.bak.txt` matches no file"),
        "{warnings:?}"
    );
    // What is named is excluded all the same.
    let fault = folder.fault(&["a.txt"], &["*.txt"]);
    assert!(
        fault.contains("all files that `a.txt` matches are left out: excluded: `a.txt`"),
        "{fault}"
    );
    assert!(fault.contains("hint: loosen `exclude`"), "{fault}");
    assert!(folder.fault(&["d/old/*.txt"], &["d"]).contains("excluded"));
    assert!(folder.fault(&["a.txt"], &["a**"]).contains("malformed"));
}

#[test]
fn exclude_leaves_out_a_file_under_all_its_names() {
    let folder = Folder::new(&["d/a.txt", "d/b.txt", "held/c.txt", "e.txt"]);
    folder.link("a.txt", "d/z.txt");
    folder.link("../held/c.txt", "d/y.txt");
    folder.link("held", "other");
    fs::hard_link(folder.base().join("d/a.txt"), folder.base().join("hard.txt")).unwrap();
    let (names, lines) = folder.names(&["**/*.txt"], &["d/a.txt", "held"]);
    assert_eq!(names, ["d/b.txt", "e.txt"]);
    let lines = lines.join("\n");
    for name in ["`d/a.txt`", "`held/`", "and 2 more"] {
        assert!(lines.contains(name), "{name}: {lines}");
    }
    // By a wildcard, and under a pattern that stands before the one that comes upon the excluded name.
    let (names, _) = folder.names(&["[eh]*.txt", "d/[abz].txt"], &["d/a*"]);
    assert_eq!(names, ["e.txt", "d/b.txt"]);
    let fault = folder.fault(&["d/z.txt"], &["d/a.txt"]);
    assert!(fault.contains("excluded: `d/z.txt`"), "{fault}");
}

#[test]
fn links_and_repeated_patterns_read_a_file_once() {
    let folder = Folder::new(&["a.txt", "b.txt", "data/x.txt", "data/v2/y.txt"]);
    let (names, lines) = folder.names(&["*.txt", "a.txt", "./b.txt", "data/../a.txt"], &[]);
    assert_eq!(names, ["a.txt", "b.txt"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("repeats left out: `a.txt`, `b.txt`"),
        "{lines:?}"
    );
    // Links that lead back end, and a file has its own name where the glob matches that too.
    folder.link(".", "data/back");
    folder.link("..", "data/v2/up");
    folder.link("v2", "data/current");
    folder.link("../a.txt", "data/a-link.txt");
    let found = folder.expand(&["data/**/*.txt", "a.txt"], &[]).unwrap();
    let names: Vec<_> = found.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["data/a-link.txt", "data/v2/y.txt", "data/x.txt"]);
    let lines = found.left_out.lines().join("\n");
    for link in ["`data/back/`", "`data/current/`", "`data/v2/up/`", "`a.txt`"] {
        assert!(lines.contains(link), "{link}: {lines}");
    }
    let warnings = found.left_out.warnings();
    assert_eq!(
        warnings,
        ["`a.txt` is the same file as `data/a-link.txt`, and is read once, under that name"]
    );
    let fault = folder.fault(&["data/**/*.csv"], &[]);
    assert!(fault.contains("no file matches `data/**/*.csv`"), "{fault}");
    // Where a link alone is asked for it is followed.
    assert_eq!(
        folder.names(&["data/current/*.txt"], &[]).0,
        ["data/current/y.txt"]
    );
    assert_eq!(
        folder.names(&["data/*/y.txt"], &[]).0,
        ["data/v2/y.txt"],
        "the folder's own name"
    );
    assert_eq!(
        folder.names(&["data/**/*.txt"], &["data/v2"]).0,
        ["data/a-link.txt", "data/x.txt"],
        "excluded under the name of the link to its folder too"
    );
    // A hard link is another name of the same file; equal text in two files is not.
    fs::hard_link(folder.base().join("a.txt"), folder.base().join("c.txt")).unwrap();
    folder.write("d.txt", "a.txt");
    let found = folder.expand(&["?.txt"], &[]).unwrap();
    assert_eq!(found.files.len(), 3);
    assert!(found.left_out.warnings()[0].contains("`c.txt` is the same file as `a.txt`"));
    fs::hard_link(folder.base().join("a.txt"), folder.base().join("e.txt")).unwrap();
    let warnings = folder.expand(&["?.txt"], &[]).unwrap().left_out.warnings();
    assert!(
        warnings[0].ends_with("; the same holds for one more file"),
        "{warnings:?}"
    );
}

/// A file that is excluded by its name is excluded under all its names; an excluded folder is not searched.
#[test]
fn hard_link_to_a_file_of_an_excluded_folder_is_read() {
    let folder = Folder::new(&["old/a.txt", "b.txt"]);
    fs::hard_link(folder.base().join("old/a.txt"), folder.base().join("c.txt")).unwrap();
    assert_eq!(folder.names(&["**/*.txt"], &["old/*.txt"]).0, ["b.txt"]);
    assert_eq!(folder.names(&["**/*.txt"], &["old"]).0, ["b.txt", "c.txt"]);
}

/// Folders that all lead to each other have ways without number.
#[test]
fn links_in_cycles_are_walked_in_short_time() {
    let names: Vec<String> = (0..12).map(|n| format!("d{n}")).collect();
    let files: Vec<String> = names.iter().map(|name| format!("{name}/a.txt")).collect();
    let folder = Folder::new(&files.iter().map(String::as_str).collect::<Vec<_>>());
    for from in &names {
        for to in names.iter().filter(|to| *to != from) {
            folder.link(&format!("../{to}"), &format!("{from}/{to}"));
        }
    }
    let found = folder.names(&["**/*.txt"], &[]).0;
    assert_eq!(found.len(), 12);
    assert!(found.iter().all(|name| files.contains(name)), "{found:?}");
}

#[test]
fn pipes_and_devices_are_refused_at_once() {
    let folder = Folder::new(&["a.txt", "x/y.txt"]);
    let _socket = std::os::unix::net::UnixListener::bind(folder.base().join("s.txt")).unwrap();
    for (name, what) in [
        ("s.txt", "is a socket, not a file"),
        ("/dev/zero", "is a device, not a file"),
    ] {
        let fault = folder.fault(&[name], &[]);
        assert!(
            fault.contains(&format!("`{name}` {what}")) && fault.contains("`\"files\": [\"-\"]`"),
            "{fault}"
        );
    }
    let (names, lines) = folder.names(&["*.txt"], &[]);
    assert_eq!(names, ["a.txt"]);
    assert_eq!(lines, ["pipes and devices left out: `s.txt`"]);
    let fault = folder.fault(&["-"], &[]);
    assert!(
        fault.contains("`-` is standard input, and nothing is piped into it"),
        "{fault}"
    );
    let patterns = ["-".to_owned()];
    let elsewhere = expand(folder.base(), FilePatterns::by(&patterns)).unwrap_err();
    assert!(
        elsewhere
            .to_string()
            .contains("which only `files` of a `files` source can name"),
        "{elsewhere}"
    );
}

#[test]
fn dangling_link_is_reported_as_one() {
    let folder = Folder::new(&["b.txt"]);
    folder.link("gone.txt", "a.txt");
    folder.link("c.txt", "c.txt");
    folder.link("gone", "dir");
    let fault = folder.fault(&["a.txt"], &[]);
    assert!(
        fault.contains("`a.txt` is a symbolic link to `gone.txt`, which does not exist"),
        "{fault}"
    );
    let fault = folder.fault(&["c.txt"], &[]);
    assert!(
        fault.contains("`c.txt` is a symbolic link to `c.txt`, which leads back to itself")
            && fault.contains("hint: point the link at a file")
            && !fault.contains("create the file"),
        "{fault}"
    );
    folder.link("e.md", "d.md");
    folder.link("d.md", "e.md");
    folder.link("a.txt", "f.md");
    assert!(folder.fault(&["d.md"], &[]).contains("leads back to itself"));
    let fault = folder.fault(&["f.md"], &[]);
    assert!(
        fault.contains("a link to a missing file") && fault.contains("create the file"),
        "{fault}"
    );
    // Of several files one is missing: that is no smaller corpus.
    let fault = folder.fault(&["[ab].txt"], &[]);
    assert!(
        fault.contains("`a.txt` is a symbolic link to `gone.txt`")
            && fault.contains("`\"exclude\": [\"a.txt\"]`"),
        "{fault}"
    );
    assert_eq!(folder.names(&["*.txt"], &["a.txt", "c.txt"]).0, ["b.txt"]);
    let fault = folder.fault(&["dir/*.txt"], &[]);
    assert!(fault.contains("`dir` is a symbolic link to `gone`"), "{fault}");
    let fault = folder.fault(&["dir/a.txt"], &[]);
    assert!(fault.contains("`dir` is a symbolic link to `gone`"), "{fault}");
}

/// A folder by another encoding's name is not a reason to read nothing beside it.
#[test]
fn names_that_are_not_utf8_are_errors_where_a_pattern_matches() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = Folder::new(&["a.txt", "b/c.txt"]);
    let odd = folder.base().join(std::ffi::OsStr::from_bytes(b"caf\xE9"));
    if crate::require::require("byte-names", fs::create_dir(&odd)).is_none() {
        return;
    }
    fs::write(odd.join("x.md"), "x").unwrap();
    assert_eq!(folder.names(&["**/*.txt"], &[]).0, ["a.txt", "b/c.txt"]);
    let fault = folder.fault(&["**/*.md"], &[]);
    assert!(
        fault.contains("matches `caf\u{FFFD}/x.md`, whose name is not UTF-8"),
        "{fault}"
    );
    assert_eq!(
        folder.names(&["**/*"], &["caf*"]).0,
        ["a.txt", "b/c.txt"],
        "it can be excluded"
    );
    assert!(folder.fault(&["a\0.txt"], &[]).contains("no file matches"));
    assert!(folder.fault(&[&"a".repeat(300)], &[]).contains("no file matches"));
}

#[test]
fn piped_text_is_a_file_named_dash() {
    let folder = Folder::new(&["spool"]);
    let piped = [Piped {
        name: "-".to_owned(),
        path: Some(folder.base().join("spool")),
        bytes: 5,
        digest: Digest::of(b"spool"),
    }];
    let patterns = ["-".to_owned()];
    let named = FilePatterns {
        files: &patterns,
        exclude: &[],
        piped: Some(&piped),
    };
    let found = expand(folder.base(), named).unwrap().files;
    assert_eq!(found[0].name, "-");
    assert_eq!(Some(&found[0].path), piped[0].path.as_ref());
    let twice = ["-".to_owned(), "-".to_owned()];
    let found = expand(
        folder.base(),
        FilePatterns {
            files: &twice,
            ..named
        },
    )
    .unwrap();
    assert_eq!(found.files.len(), 1);
    assert!(
        found.left_out.warnings().is_empty(),
        "{:?}",
        found.left_out.warnings()
    );
    for name in ["-", "/dev/stdin", "/dev/fd/63", "/proc/self/fd/3"] {
        assert!(is_open_file(name), "{name}");
    }
    for name in ["--", "./-", "/dev/fd/", "/dev/fd/x", "/dev/fd/3/a"] {
        assert!(!is_open_file(name), "{name}");
    }
}
