//! `mdlm corpora`: the corpora that manifests may name.

use serde::Serialize;

use crate::cli::render::listing::{LABEL, Named, entry, show};
use crate::cli::render::terminal::Terminal;
use mdlm::error::Result;
use mdlm::manifest::corpora::{CORPORA, Corpus, CorpusFile, CorpusPart, CorpusSplit, Form, Pin};
use mdlm::manifest::detokenize::Detokenizer;
use mdlm::manifest::reading::{Range, RangeUnit, Reading, RemoteFile};
use mdlm::numbers;
use mdlm::plural;

/// What `mdlm corpora --help` says.
pub const LONG_ABOUT: &str = "List the corpora that manifests may name.\n\n\
    A source with `\"input\": { \"kind\": \"corpus\", \"corpus\": \"ptb\", \"split\": \"test\" }` downloads the \
    files once, checks their SHA-256, and reads and detokenizes them as the field does. With NAME, one corpus in full: \
    its files and checksums, its parts, and what to write into a manifest, also for files that you copied to this \
    machine where there is no network access.\n\n\
    `\"split\": \"paper\"` is the part that the figures of arXiv 2406.07524 are on. A source without `split` reads \
    `train`.";

/// Arguments of `mdlm corpora`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One corpus, in full
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the corpora to standard output.
///
/// # Errors
/// There is no such corpus; standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    show::<Corpus>(args.name.as_deref(), args.json, terminal)
}

impl Named for Corpus {
    const WHAT: &'static str = "corpus";
    const OTHERWISE: &'static str = "";
    type Description = CorpusDescription;

    fn all() -> &'static [Self] {
        CORPORA
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn described(&'static self) -> CorpusDescription {
        CorpusDescription::of(self)
    }

    fn in_short(&self) -> String {
        in_short(self)
    }

    fn in_full(&self) -> String {
        in_full(self)
    }

    fn epilogue() -> &'static str {
        "`mdlm corpora NAME` shows one in full, with what to write into a manifest.\n\
         Without network access, copy the files to this machine and name them in\n\
         `\"files\"`: the same checksum, the same result.\n"
    }
}

/// A corpus as JSON.
#[derive(Serialize)]
pub struct CorpusDescription {
    name: &'static str,
    title: &'static str,
    licence: &'static str,
    homepage: &'static str,
    note: Option<&'static str>,
    /// The split that `paper` stands for.
    paper: Option<&'static str>,
    bytes: Option<u64>,
    pinned: Option<&'static str>,
    files: Vec<FileDescription>,
    splits: Vec<SplitDescription>,
}

#[derive(Serialize)]
struct FileDescription {
    /// Of a series, every one.
    urls: Vec<String>,
    sha256: Option<&'static str>,
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct SplitDescription {
    split: &'static str,
    records: Option<u64>,
    files: Vec<RemoteFile>,
    read: Reading,
    detokenize: &'static [Detokenizer],
    range: Option<Range>,
}

impl CorpusDescription {
    fn of(corpus: &'static Corpus) -> Self {
        let file = |file: &CorpusFile| FileDescription {
            urls: file.remote().into_iter().map(|file| file.url).collect(),
            sha256: file.sha256,
            bytes: file.bytes,
        };
        let split = |part: &'static CorpusPart| SplitDescription {
            split: part.split.name(),
            records: part.records,
            files: part.remote(corpus),
            read: part.reading(),
            detokenize: part.detokenize,
            range: part.range.clone(),
        };
        Self {
            name: corpus.name,
            title: corpus.title,
            licence: corpus.licence,
            homepage: corpus.homepage,
            note: corpus.note,
            paper: corpus.paper.map(CorpusSplit::name),
            bytes: corpus.bytes(),
            pinned: match corpus.pin() {
                Pin::Sha256 => Some("sha256"),
                Pin::Commit => Some("commit"),
                Pin::Nothing => None,
            },
            files: corpus.files.iter().map(file).collect(),
            splits: corpus.parts.iter().map(split).collect(),
        }
    }
}

fn in_short(corpus: &Corpus) -> String {
    let mut out = entry("what", corpus.title);
    let splits: Vec<_> = corpus.parts.iter().map(|part| part.split.name()).collect();
    let mut splits = splits.join(", ");
    if let Some(paper) = corpus.paper {
        splits = format!("{splits}; the paper evaluates on {}", paper.name());
    }
    out.push_str(&entry("splits", &splits));
    out.push_str(&entry(
        "size",
        &format!("{}, {}", size(corpus.bytes()), pinned(corpus.pin())),
    ));
    out.push_str(&entry("licence", corpus.licence));
    out.push_str(&entry("from", &places(corpus)));
    out
}

/// Hosts, and how many files each has.
fn places(corpus: &Corpus) -> String {
    let mut hosts: Vec<(String, usize)> = Vec::new();
    for url in corpus
        .files
        .iter()
        .flat_map(CorpusFile::remote)
        .map(|file| file.url)
    {
        let place = place(&url);
        match hosts.iter_mut().find(|(host, _)| *host == place) {
            Some((_, count)) => *count += 1,
            None => hosts.push((place, 1)),
        }
    }
    let hosts = hosts.into_iter().map(|(host, count)| match count {
        1 => host,
        count => format!("{host} ({count} files)"),
    });
    hosts.collect::<Vec<_>>().join(", ")
}

/// The host of a URL; of the hub, the repository.
fn place(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme == "hf" {
        let repository = rest.split('@').next().unwrap_or(rest);
        return format!("Hugging Face, {repository}");
    }
    rest.split('/').next().unwrap_or(rest).to_owned()
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "of unknown size".to_owned(), numbers::bytes)
}

fn pinned(pin: Pin) -> &'static str {
    match pin {
        Pin::Sha256 => "pinned by SHA-256",
        Pin::Commit => "pinned by the commit in its address",
        Pin::Nothing => "not pinned: the first download is recorded",
    }
}

fn in_full(corpus: &Corpus) -> String {
    let mut out = format!("{}\n", corpus.name);
    out.push_str(&entry("what", corpus.title));
    out.push_str(&entry("licence", corpus.licence));
    out.push_str(&entry("homepage", corpus.homepage));
    out.push_str(&entry(
        "size",
        &format!("{}, {}", size(corpus.bytes()), pinned(corpus.pin())),
    ));
    if let Some(note) = corpus.note {
        out.push_str(&entry("note", note));
    }
    out.push_str("\nFiles\n");
    for (index, file) in corpus.files.iter().enumerate() {
        out.push_str(&described(index, file));
    }
    out.push_str("\nSplits\n");
    for part in corpus.parts {
        out.push_str(&entry(part.split.name(), &contents(corpus, part)));
    }
    if let Some(paper) = corpus.paper {
        let text = format!(
            "`{}` in arXiv 2406.07524; `\"split\": \"paper\"` names it",
            paper.name()
        );
        out.push_str(&entry("paper", &text));
    }
    // Beyond the paper's corpora, the last part is what most evaluate on.
    let paper = corpus.paper.and_then(|paper| corpus.part(paper));
    let part = paper.unwrap_or(&corpus.parts[corpus.parts.len() - 1]);
    let split = part.split.name();
    let name = corpus.name;
    let input = format!("\"kind\": \"corpus\",\n      \"corpus\": \"{name}\",\n      \"split\": \"{split}\"");
    out = format!("{out}\nIn a manifest\n{}", snippet(&input, ""));
    if paper.is_some() && part.range.is_none() {
        out = format!(
            "{out}\nIn a manifest, with the records of the paper's figures\n{}",
            snippet(&input, &as_published(part))
        );
    }
    let files: Vec<_> = part
        .files
        .iter()
        .map(|&index| format!("\"{}\"", by_hand(&corpus.files[index])))
        .collect();
    let check = match corpus.pin() {
        Pin::Sha256 => "checked against the same SHA-256",
        Pin::Commit | Pin::Nothing => "not verified: no checksum is known",
    };
    let input = format!("{input},\n      \"files\": [{}]", files.join(", "));
    format!(
        "{out}\nWith files that you copied here, {check}\n{}",
        snippet(&input, "")
    )
}

/// A source to paste into the stages of a manifest; `settings` follow its input.
fn snippet(input: &str, settings: &str) -> String {
    format!(
        "  \"text\": {{\n    \"kind\": \"source\",\n    \"input\": {{\n      {input}\n    }}{settings}\n  }}\n"
    )
}

/// The settings of a source whose records are the published ones.
fn as_published(part: &CorpusPart) -> String {
    let rules = part.detokenize.iter().map(|rules| {
        let rules = spelt(*rules);
        format!("{{ \"rules\": \"{rules}\", \"as\": \"published\" }}")
    });
    let rules: Vec<_> = rules.collect();
    let mut settings = String::new();
    if !rules.is_empty() {
        settings = format!(",\n    \"detokenize\": [{}]", rules.join(", "));
    }
    settings
}

/// A file, its address on a line of its own so that it can be copied.
fn described(index: usize, file: &CorpusFile) -> String {
    let number = (index + 1).to_string();
    let mut out = match file.remote().as_slice() {
        [first, .., last] => format!(
            "  {number:<LABEL$}{}\n  {:<LABEL$}to {}\n",
            first.url,
            "",
            name_of(&last.url)
        ),
        _ => format!("  {number:<LABEL$}{}\n", file.url),
    };
    let series = match file.shards {
        1 => String::new(),
        count => format!("{count} files, "),
    };
    out.push_str(&entry("", &format!("{series}{}", size(file.bytes))));
    match (file.sha256, file.pin()) {
        (Some(sha256), _) => out.push_str(&entry("sha256", sha256)),
        (None, pin) => out.push_str(&entry("", pinned(pin))),
    }
    out
}

/// What a part is made of.
fn contents(corpus: &Corpus, part: &CorpusPart) -> String {
    let mut facts = Vec::new();
    let counted = part
        .range
        .as_ref()
        .is_some_and(|range| range.unit == RangeUnit::Records);
    if let Some(records) = part.records.filter(|_| !counted) {
        facts.push(format!(
            "{} {}",
            numbers::count(records),
            plural::of(records, "record")
        ));
    }
    if let Some(range) = &part.range {
        let unit = match range.unit {
            RangeUnit::Records => "records",
            RangeUnit::Characters => "characters",
        };
        let to = range.to.map_or_else(|| "the end".to_owned(), numbers::count);
        facts.push(format!("{unit} {} to {to}", numbers::count(range.from)));
    }
    if corpus.files.len() > 1 {
        let numbers: Vec<_> = part.files.iter().map(|index| (index + 1).to_string()).collect();
        facts.push(format!("file {}", numbers.join(", ")));
    }
    for member in part.members {
        facts.push(format!("`{member}` in the archive"));
    }
    facts.push(match part.form {
        Form::Lines => "a record a line".to_owned(),
        Form::WholeFile => "one record".to_owned(),
        Form::JsonLines(field) => format!("JSON lines, the text at `{field}`"),
        Form::Csv(columns) => format!(
            "CSV without a header, the text in columns {}",
            columns.join(" and ")
        ),
        Form::Parquet(column) => format!("Parquet, the text in column `{column}`"),
    });
    for detokenizer in part.detokenize {
        facts.push(format!("detokenizer `{}`", spelt(*detokenizer)));
    }
    facts.join("; ")
}

/// The manifest's spelling.
fn spelt(detokenizer: Detokenizer) -> &'static str {
    match detokenizer {
        Detokenizer::Ptb => "ptb",
        Detokenizer::Wikitext => "wikitext",
        Detokenizer::Lm1b => "lm1b",
        Detokenizer::Lambada => "lambada",
        Detokenizer::ScientificPapers => "scientific_papers",
    }
}

/// What a file that was brought by hand is called beside a manifest; of a series, a glob.
fn by_hand(file: &CorpusFile) -> String {
    let name = name_of(file.url).replace("{shard}", "*");
    format!("../corpora/{name}")
}

/// The last part of a URL.
fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::listing::{find, list};
    use crate::cli::render::table;

    #[test]
    fn texts_fit_80_columns_except_urls_and_members() {
        let fits = |line: &str| {
            line.chars().count() <= table::WIDTH || line.contains("://") || line.contains("../corpora/")
        };
        for line in list::<Corpus>().lines() {
            assert!(line.chars().count() <= table::WIDTH, "{line}");
        }
        for corpus in CORPORA {
            for line in in_full(corpus).lines() {
                assert!(fits(line), "{line}");
            }
        }
    }

    #[test]
    fn snippet_to_paste_is_a_valid_source() {
        for corpus in CORPORA {
            let text = in_full(corpus);
            for heading in [
                "In a manifest\n",
                "In a manifest, with the records of the paper's figures\n",
                "With files that you copied here",
            ] {
                let Some(snippet) = text.split(heading).nth(1) else {
                    assert!(corpus.paper.is_none() || corpus.parts[0].range.is_some());
                    continue;
                };
                let snippet = &snippet[snippet.find("  \"text\"").unwrap()..];
                let snippet = snippet.split("\n\n").next().unwrap();
                let manifest = format!("{{ \"name\": \"x\", \"seed\": 1, \"stages\": {{ {snippet} }} }}");
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("x.json");
                std::fs::write(&path, &manifest).unwrap();
                if let Err(faults) = mdlm::manifest::Manifest::load(&path, &[], mdlm::shapes::SHAPES) {
                    panic!("{manifest}: {faults}");
                }
            }
        }
    }

    #[test]
    fn unknown_name_has_the_nearest_as_hint() {
        let hint = |name| {
            find::<Corpus>(name)
                .err()
                .unwrap()
                .hint_text()
                .unwrap()
                .to_owned()
        };
        assert_eq!(hint("wikitext-103"), "did you mean `wikitext103`?");
        assert!(hint("gutenberg").starts_with("there are lm1b, ptb"));
    }

    #[test]
    fn detokenizers_are_spelled_as_in_the_manifest() {
        use Detokenizer::{Lambada, Lm1b, Ptb, ScientificPapers, Wikitext};
        for detokenizer in [Ptb, Wikitext, Lm1b, Lambada, ScientificPapers] {
            assert_eq!(serde_json::to_value(detokenizer).unwrap(), spelt(detokenizer));
        }
    }
}
