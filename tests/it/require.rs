//! What a test needs and some machines lack: such a test reports that it is skipped, or fails where it must run.
//!
//! The library's tests and `tests/gpu.rs` include this file too.

use std::fmt::Display;
use std::io::Write as _;

/// Names of [`NAMES`] that must not be missing, separated by commas. `all` stands for all but those that begin with
/// `no-`: no machine has a GPU and lacks one.
const VARIABLE: &str = "MDLM_TEST_REQUIRE";

/// What tests ask for. `tests/README.md` states what each is.
pub const NAMES: [&str; 17] = [
    "byte-names",
    "gpu",
    "iconv",
    "jq",
    "kit",
    "lightning",
    "mount",
    "mpich",
    "no-driver",
    "no-gpu",
    "nvrtc",
    "openmpi",
    "other-user",
    "pyarrow",
    "sarif-schema",
    "script",
    "transformers",
];

/// What was found of `name`; nothing, and a line on standard error, if it is missing.
///
/// # Panics
/// It is missing and must not be, or the list of what must not be missing has an unknown name.
#[track_caller]
pub fn require<T, E: Display>(name: &str, found: Result<T, E>) -> Option<T> {
    let list = std::env::var(VARIABLE).unwrap_or_default();
    let must_run = is_required(name, &list);
    let why = match found {
        Ok(found) => return Some(found),
        Err(why) => why,
    };
    assert!(!must_run, "{VARIABLE} has `{name}`, which is missing: {why}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Past the capture of a test's output, which shows only what failed tests print.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: needs `{name}`: {why}");
    None
}

/// Whether a list of what must not be missing has a name.
///
/// # Panics
/// The name is not one of [`NAMES`], or the list has another name than these.
#[track_caller]
pub fn is_required(name: &str, list: &str) -> bool {
    assert!(NAMES.contains(&name), "`{name}` is not one of {NAMES:?}");
    let listed: Vec<&str> = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    for other in &listed {
        assert!(
            *other == "all" || NAMES.contains(other),
            "{VARIABLE}: `{other}` is not one of {NAMES:?}"
        );
    }
    listed.contains(&name) || listed.contains(&"all") && !name.starts_with("no-")
}
