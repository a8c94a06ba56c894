//! What the environment states where the command line does not: `MDLM_STORE`, `MDLM_THREADS`, `MDLM_JOBS`; for
//! `MDLM_DEVICE` see [`super::compute::DeviceChoice`]. An empty variable counts as none.

use std::path::{Path, PathBuf};

use mdlm::error::{Error, Result};
use mdlm::store::Store;

/// The largest number of threads, and of stages side by side.
pub const MOST: u16 = 1024;

/// The text of a variable.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(|value| value.to_string_lossy().into_owned())
}

/// The folder of results: that of the command line, else that of the environment.
///
/// # Errors
/// The path begins with a `~` that no shell has expanded.
pub fn store(asked: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    let (store, by) = match (asked, std::env::var_os("MDLM_STORE")) {
        (Some(asked), _) => (asked.clone(), "--store"),
        (None, Some(stated)) if !stated.is_empty() => (PathBuf::from(stated), "MDLM_STORE"),
        (None, _) => return Ok(None),
    };
    if store.starts_with("~") {
        let error = Error::input(format!(
            "use the store `{}` of {by}: only a shell expands `~` to the home folder",
            store.display()
        ));
        return Err(match at_home(&store) {
            Some(path) => error.hint(format!(
                "write `{}`, or ./~ for a folder of that name",
                path.display()
            )),
            None => error.hint("write the whole path, or ./~ for a folder of that name"),
        });
    }
    Ok(Some(store))
}

/// The folder of results of a manifest in the current folder.
#[must_use]
pub fn store_here() -> PathBuf {
    Store::locate(&std::path::absolute("manifest.json").unwrap_or_default())
}

/// A path that begins with `~`, as a shell would have it.
fn at_home(path: &Path) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    let rest = path.strip_prefix("~").ok()?;
    Some(Path::new(&home).join(rest))
}

/// A number from 1 to [`MOST`] that the environment states.
///
/// # Errors
/// The value is not a whole number from 1 to `MOST`.
pub fn number(name: &str) -> Result<Option<u16>> {
    let Some(text) = variable(name) else {
        return Ok(None);
    };
    let number = text
        .trim()
        .parse()
        .ok()
        .filter(|number| (1..=MOST).contains(number));
    number.map(Some).ok_or_else(|| {
        Error::input(format!(
            "read {name}: `{text}` is not a whole number from 1 to {MOST}"
        ))
        .hint(format!("set it to a number, as in {name}=4, or unset it"))
    })
}

/// Threads: those of the command line, else those that the environment states, else all processors.
///
/// # Errors
/// The errors of [`number`].
pub fn threads(asked: Option<u16>) -> Result<usize> {
    let stated = match asked {
        Some(asked) => Some(asked),
        None => number("MDLM_THREADS")?,
    };
    Ok(stated.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    ))
}

/// Stages to run side by side: as the command line says, else the environment, else one.
///
/// # Errors
/// The errors of [`number`].
pub fn jobs(asked: Option<u16>) -> Result<usize> {
    Ok(usize::from(match asked {
        Some(asked) => asked,
        None => number("MDLM_JOBS")?.unwrap_or(1),
    }))
}
