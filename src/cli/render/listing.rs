//! What the lists of things that have names in manifests have in common: `mdlm corpora`, `mdlm tokenizers`.

use serde::Serialize;

use super::table::{options, width, wrap};
use super::terminal::Terminal;
use mdlm::error::{Error, Result};

/// Things that manifests may name.
pub trait Named: Sized + 'static {
    /// What one of them is: `corpus`.
    const WHAT: &'static str;
    /// What to do instead where no entry has the name, to go after the names; may be empty.
    const OTHERWISE: &'static str;
    /// One as JSON.
    type Description: Serialize;

    /// All of them.
    fn all() -> &'static [Self];

    /// Its name.
    fn name(&self) -> &'static str;

    /// The entry as JSON.
    fn described(&'static self) -> Self::Description;

    /// Its lines in the list.
    fn in_short(&self) -> String;

    /// Its full description.
    fn in_full(&self) -> String;

    /// The end of the list.
    fn epilogue() -> &'static str;
}

/// Prints all of them, or the one of a name in full; as text or as JSON.
///
/// # Errors
/// No entry has the name; standard output cannot be written.
pub fn show<T: Named>(name: Option<&str>, is_json: bool, terminal: &Terminal) -> Result<u8> {
    let chosen = name.map(find::<T>).transpose()?;
    match (chosen, is_json) {
        (Some(one), true) => terminal.output_json(&one.described())?,
        (Some(one), false) => terminal.output(&one.in_full())?,
        (None, true) => terminal.output_json(&T::all().iter().map(T::described).collect::<Vec<_>>())?,
        (None, false) => terminal.output(&list::<T>())?,
    }
    Ok(0)
}

/// The one of that name.
///
/// # Errors
/// No entry has the name; the hint has the nearest name, or all names.
pub fn find<T: Named>(name: &str) -> Result<&'static T> {
    if let Some(found) = T::all().iter().find(|one| one.name() == name) {
        return Ok(found);
    }
    let names: Vec<_> = T::all().iter().map(T::name).collect();
    let near = names
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3);
    let hint = match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("there are {}{}", names.join(", "), T::OTHERWISE),
    };
    Err(Error::input(format!("no {} is called `{name}`", T::WHAT)).hint(hint))
}

/// The list of all.
#[must_use]
pub fn list<T: Named>() -> String {
    let entries = T::all()
        .iter()
        .map(|one| format!("{}\n{}\n", one.name(), one.in_short()));
    entries.collect::<String>() + T::epilogue()
}

/// Columns of a label, the longest of which is `validation`.
pub const LABEL: usize = 12;

/// A line of a description, wrapped under itself.
#[must_use]
pub fn entry(label: &str, text: &str) -> String {
    let labelled = |label: &str| format!("  {label:<LABEL$}");
    let (first, below) = (labelled(label), labelled(""));
    let options = options(width());
    wrap(text, options.initial_indent(&first).subsequent_indent(&below)) + "\n"
}
