//! `mdlm tokenizers`: the tokenizers that manifests may name.

use serde::Serialize;

use crate::cli::render::listing::{Named, entry, show};
use crate::cli::render::terminal::Terminal;
use mdlm::error::Result;
use mdlm::manifest::vocabularies::{Family, PUBLISHED, Published, PublishedFile};
use mdlm::numbers;

/// What `mdlm tokenizers --help` says.
pub const LONG_ABOUT: &str = "List the tokenizers that manifests may name.\n\n\
    A tokenize stage with `\"tokenizer\": { \"kind\": \"published\", \"name\": \"gpt2\" }` downloads the files once \
    and checks their SHA-256. With NAME, one tokenizer in full: its files and checksums, and what to write into a \
    manifest, also for files that you copied to this machine where there is no network access.";

/// Arguments of `mdlm tokenizers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One tokenizer, in full
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the tokenizers to standard output.
///
/// # Errors
/// There is no such tokenizer; standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    show::<Published>(args.name.as_deref(), args.json, terminal)
}

impl Named for Published {
    const WHAT: &'static str = "tokenizer";
    const OTHERWISE: &'static str =
        "; use any other one by its `tokenizer.json`: `\"kind\": \"download\"` with its `url`";
    type Description = TokenizerDescription;

    fn all() -> &'static [Self] {
        PUBLISHED
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn described(&'static self) -> TokenizerDescription {
        TokenizerDescription::of(self)
    }

    fn in_short(&self) -> String {
        facts(self)
    }

    fn in_full(&self) -> String {
        in_full(self)
    }

    fn epilogue() -> &'static str {
        "`mdlm tokenizers NAME` shows one in full, with what to write into a manifest.\n\
         Use any other one by its `tokenizer.json`: `\"kind\": \"file\"` with its `path`,\n\
         or `\"kind\": \"download\"` with its `url`.\n"
    }
}

/// A tokenizer as JSON.
#[derive(Serialize)]
pub struct TokenizerDescription {
    name: &'static str,
    title: &'static str,
    licence: &'static str,
    homepage: &'static str,
    vocabulary: u32,
    bytes: u64,
    files: Vec<FileDescription>,
}

#[derive(Serialize)]
struct FileDescription {
    url: &'static str,
    sha256: &'static str,
    bytes: u64,
    names: &'static [&'static str],
}

impl TokenizerDescription {
    fn of(published: &'static Published) -> Self {
        let file = |file: &PublishedFile| FileDescription {
            url: file.url,
            sha256: file.sha256,
            bytes: file.bytes,
            names: file.names,
        };
        Self {
            name: published.name,
            title: published.title,
            licence: published.licence,
            homepage: published.homepage,
            vocabulary: published.vocabulary,
            bytes: published.bytes(),
            files: published.files.iter().map(file).collect(),
        }
    }
}

fn facts(published: &Published) -> String {
    let mut out = entry("what", published.title);
    out.push_str(&entry("vocabulary", &vocabulary(published)));
    let size = format!("{}, pinned by SHA-256", numbers::bytes(published.bytes()));
    out.push_str(&entry("size", &size));
    out.push_str(&entry("licence", published.licence));
    out
}

fn vocabulary(published: &Published) -> String {
    let mask = match published.family {
        Family::Gpt2 => "the appended mask included",
        Family::Bert { .. } => "`[MASK]` included",
    };
    format!(
        "{} tokens, {mask}",
        numbers::count(u64::from(published.vocabulary))
    )
}

fn in_full(published: &Published) -> String {
    let mut out = format!("{}\n", published.name);
    out.push_str(&facts(published));
    out.push_str(&entry("homepage", published.homepage));
    out.push_str("\nFiles\n");
    for file in published.files {
        let name = match file.names {
            [name, others @ ..] if !others.is_empty() => format!("{name}, also {}", others.join(", ")),
            names => names.join(", "),
        };
        out.push_str(&entry("name", &name));
        out.push_str(&entry("from", file.url));
        out.push_str(&entry("size", &numbers::bytes(file.bytes)));
        out.push_str(&entry("sha256", file.sha256));
    }
    let name = published.name;
    let names: Vec<_> = published.files.iter().map(|file| file.names[0]).collect();
    out = format!(
        "{out}\nIn a manifest\n{}\nWith files that you copied here ({} in a folder), checked\nagainst the same \
         SHA-256\n{}",
        snippet(&format!("\"kind\": \"published\", \"name\": \"{name}\"")),
        names.join(" and "),
        snippet(&format!(
            "\"kind\": \"published\",\n      \"name\": \"{name}\",\n      \"path\": \"../corpora/{name}\""
        )),
    );
    out
}

/// A tokenize stage.
fn snippet(tokenizer: &str) -> String {
    let tokenizer = if tokenizer.contains('\n') {
        format!("{{\n      {tokenizer}\n    }}")
    } else {
        format!("{{ {tokenizer} }}")
    };
    format!(
        "  \"tokens\": {{\n    \"kind\": \"tokenize\",\n    \"from\": \"text\",\n    \"tokenizer\": {tokenizer}\n  }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::listing::{find, list};
    use crate::cli::render::table;

    #[test]
    fn texts_fit_80_columns_except_urls() {
        let fits = |line: &str| line.chars().count() <= table::WIDTH || line.contains("://");
        for line in list::<Published>().lines() {
            assert!(fits(line), "{line}");
        }
        for published in PUBLISHED {
            for line in in_full(published).lines() {
                assert!(fits(line), "{line}");
            }
        }
    }

    #[test]
    fn snippet_to_paste_is_a_valid_tokenize_stage() {
        for published in PUBLISHED {
            let text = in_full(published);
            for snippet in text.split("  \"tokens\"").skip(1) {
                let snippet = snippet.split("\n\n").next().unwrap();
                let snippet = snippet.split("\nWith").next().unwrap();
                let manifest = format!(
                    "{{ \"name\": \"x\", \"seed\": 1, \"stages\": {{
                        \"text\": {{ \"kind\": \"source\", \"input\": {{ \"kind\": \"files\", \"files\": [\"a\"] }} }},
                        \"tokens\"{snippet} }} }}"
                );
                let loaded = mdlm::manifest::Manifest::from_bytes(
                    "x",
                    manifest.clone().into_bytes(),
                    &[],
                    mdlm::shapes::SHAPES,
                );
                assert!(loaded.is_ok(), "{manifest}");
            }
        }
    }

    #[test]
    fn unknown_name_has_the_nearest_as_hint() {
        let hint = |name| {
            find::<Published>(name)
                .err()
                .unwrap()
                .hint_text()
                .unwrap()
                .to_owned()
        };
        assert_eq!(hint("gpt-2"), "did you mean `gpt2`?");
        assert!(hint("sentencepiece").starts_with("there are gpt2, bert-base-uncased"));
    }
}
