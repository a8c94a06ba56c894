//! Variables of the environment that concern the machine, and the folder of what is kept on it.

use std::path::PathBuf;

/// Where mdlm keeps what belongs to the machine and not to a project.
#[must_use]
pub fn caches() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(caches.join("mdlm"))
}

/// Whether a variable says yes.
#[must_use]
pub fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| !matches!(&*value.to_lowercase(), "" | "0" | "false" | "no"))
}
