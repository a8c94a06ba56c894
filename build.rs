//! Tells the program of which revision it is built: `MDLM_GIT_REVISION`, for the provenance of what it makes.
//!
//! The environment may state it. Else it is read off `.git`, without git, or off what cargo has packaged; where neither
//! is, it is unknown. For release builds alone: whoever works on mdlm would otherwise compile it anew after every commit.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MDLM_GIT_REVISION");
    if std::env::var_os("MDLM_GIT_REVISION").is_some() || std::env::var("PROFILE").as_deref() != Ok("release")
    {
        return;
    }
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let (revision, files) = revision(&folder);
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    if let Some(revision) = revision {
        println!("cargo::rustc-env=MDLM_GIT_REVISION={revision}");
    }
}

/// The revision that is checked out in a folder, and the files that tell of another one.
pub fn revision(folder: &Path) -> (Option<String>, Vec<PathBuf>) {
    // What `cargo package` leaves in the place of `.git`.
    let packaged = folder.join(".cargo_vcs_info.json");
    if let Ok(text) = fs::read_to_string(&packaged) {
        let sha1 = text
            .split("\"sha1\"")
            .nth(1)
            .and_then(|rest| rest.split('"').nth(1));
        return (
            sha1.filter(|text| is_revision(text)).map(str::to_owned),
            vec![packaged],
        );
    }
    let mut git = folder.join(".git");
    // Of a further working tree it is a file that says where.
    if let Ok(text) = fs::read_to_string(&git) {
        let Some(place) = text.strip_prefix("gitdir:") else {
            return (None, vec![]);
        };
        git = folder.join(place.trim());
    }
    let common = match fs::read_to_string(git.join("commondir")) {
        Ok(text) => git.join(text.trim()),
        Err(_) => git.clone(),
    };
    let head_file = git.join("HEAD");
    let Ok(head) = fs::read_to_string(&head_file) else {
        return (None, vec![]);
    };
    let mut files = vec![head_file];
    let head = head.trim();
    let Some(name) = head.strip_prefix("ref: ") else {
        return (Some(head.to_owned()).filter(|text| is_revision(text)), files);
    };
    // A name that leads elsewhere is none of git's.
    if name.split('/').any(|part| part.is_empty() || part == "..") {
        return (None, files);
    }
    let loose = common.join(name);
    let packed = common.join("packed-refs");
    // Cargo takes a file that is not there for one that has changed.
    files.extend(
        [&loose, &packed]
            .into_iter()
            .filter(|file| file.is_file())
            .cloned(),
    );
    let revision = fs::read_to_string(loose).map(|text| text.trim().to_owned());
    let revision = revision.ok().or_else(|| {
        let packed = fs::read_to_string(packed).ok()?;
        let mut lines = packed.lines().filter_map(|line| line.split_once(' '));
        let (revision, _) = lines.find(|(_, packed)| *packed == name)?;
        Some(revision.to_owned())
    });
    (revision.filter(|text| is_revision(text)), files)
}

/// Whether it is 40 or 64 hexadecimal digits.
fn is_revision(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
