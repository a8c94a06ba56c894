//! Commands and options of make, cargo, dvc, snakemake and training scripts, each with what does the same here: an answer
//! instead of "unrecognized".

use std::ffi::OsString;
use std::path::Path;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::commands::Cli;
use mdlm::manifest::{Manifest, did_you_mean, stage_field};
use mdlm::plan::named;
use mdlm::shapes::SHAPES;

/// Commands that do not exist, and what to use instead.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &[
            "all",
            "build",
            "exec",
            "execute",
            "go",
            "make",
            "rebuild",
            "repro",
            "reproduce",
            "rerun",
            "start",
        ],
        "`mdlm run MANIFEST` makes the results, rerunning only what changed",
    ),
    (
        &[
            "eval",
            "evaluate",
            "fit",
            "pack",
            "prepare",
            "preprocess",
            "pretrain",
            "test",
            "tokenize",
            "train",
            "tune",
        ],
        "`mdlm run MANIFEST --target STAGE` runs that stage of a manifest and what it needs",
    ),
    (
        &[
            "complete", "decode", "generate", "infer", "infill", "predict", "prompt",
        ],
        "`mdlm sample MODEL` draws texts from a trained model: `mdlm sample pipelines/quickstart.json#model`",
    ),
    (
        &["continue", "restart", "resume", "retry"],
        "the same `mdlm run MANIFEST` again resumes from the finished stages and the last checkpoint",
    ),
    (
        &["dry-run", "dryrun", "preview", "todo", "what-if", "why"],
        "`mdlm plan MANIFEST` says what a run would do, and why",
    ),
    (
        &[
            "clean", "clear", "delete", "prune", "purge", "remove", "reset", "rm", "wipe",
        ],
        "`mdlm gc MANIFEST…` deletes what these manifests do not need, and with `--dry-run` only lists it; `mdlm run \
         MANIFEST --force STAGE` reruns a stage",
    ),
    (
        &["changes", "diff"],
        "`mdlm plan MANIFEST` shows what has changed since the last run, and `mdlm compare A.json B.json` which \
         fields of two manifests differ, with their results",
    ),
    (
        &["history", "journal", "log", "logs", "tail"],
        "`mdlm explain MANIFEST STAGE` lists a stage's runs; a training's losses are in metrics.jsonl of the folder \
         that `mdlm path MANIFEST STAGE` prints",
    ),
    (
        &["list", "ls", "stages", "tree"],
        "`mdlm plan MANIFEST` lists the stages with their state, `mdlm status` what the store holds",
    ),
    (
        &["cache", "df", "disk", "du", "size", "stats", "store", "usage"],
        "`mdlm status` shows what the store holds, `mdlm gc` deletes from it, and `mdlm push` and `mdlm pull` share it",
    ),
    (
        &["dag", "draw", "viz", "visualise", "visualize"],
        "`mdlm graph MANIFEST` draws the stages for Graphviz or Mermaid",
    ),
    (
        &["plot", "plots", "summary"],
        "`mdlm report MANIFEST` writes curves, bounds and samples as one HTML file",
    ),
    (
        &[
            "exp",
            "experiments",
            "leaderboard",
            "metrics",
            "results",
            "sweep",
            "tensorboard",
        ],
        "`mdlm compare MANIFEST…` puts results side by side, and `mdlm report MANIFEST` draws their curves",
    ),
    (
        &["check", "lint", "parse"],
        "`mdlm validate FILE…` checks manifests; `mdlm verify` checks what the store holds",
    ),
    (
        &["audit", "fsck", "repair"],
        "`mdlm verify` hashes what the store holds and moves corrupt artifacts to quarantine",
    ),
    (
        &["create", "new", "scaffold", "setup", "template"],
        "`mdlm init` writes a first manifest for your own text",
    ),
    (
        &[
            "cat", "describe", "get", "head", "info", "inspect", "print", "view",
        ],
        "`mdlm show MANIFEST STAGE` shows how a result came about, `mdlm data MANIFEST STAGE` shows its records, and \
         `mdlm path MANIFEST STAGE` prints its folder",
    ),
    (
        &["download", "fetch", "import", "import-url"],
        "`mdlm run MANIFEST` downloads what its sources name, `mdlm pull` fetches what another machine has made, and \
         `mdlm downloads` lists what was downloaded",
    ),
    (
        &["checkout", "sync"],
        "`mdlm pull MANIFEST` fetches what another machine has made",
    ),
    (
        &["convert", "publish", "save", "upload"],
        "`mdlm export MANIFEST STAGE --to hf DIR` writes a model for other programs, `mdlm path MANIFEST STAGE` prints \
         the folder of a result, from which files can be copied, and `mdlm push` shares the result",
    ),
    (
        &["add", "commit", "track"],
        "files need not be added: a run hashes the files that its manifest names",
    ),
    (
        &["remote"],
        "name a remote with `--remote URL` or MDLM_REMOTE, for `mdlm run`, `mdlm push` and `mdlm pull`",
    ),
    (
        &["config", "options", "settings"],
        "settings are fields of the manifest: `mdlm schema` prints all of them",
    ),
    (
        &["dataset", "datasets"],
        "`mdlm corpora` lists the corpora that have names",
    ),
    (&["models", "sizes"], "`mdlm shapes` lists the compiled shapes"),
    (
        &["cancel", "kill", "stop"],
        "Ctrl-C, or `kill` with the number of the process, ends a run and keeps a checkpoint",
    ),
    (
        &["device", "devices", "env", "gpu", "gpus", "system"],
        "`mdlm doctor` shows what this machine offers",
    ),
    (
        &["benchmark", "profile", "speed", "time"],
        "`mdlm bench` measures this machine",
    ),
    (&["shell"], "`mdlm completions SHELL` prints a completion script"),
    (
        &["forget"],
        "`mdlm downloads --forget URL` forgets a download, and the next run downloads the file again",
    ),
    (
        &["explore", "browse", "open", "ui"],
        "`mdlm report MANIFEST` writes the results as one HTML file, and prints its path",
    ),
    (
        &["auth", "login", "logout"],
        "no login is needed: downloads use HF_TOKEN, and remotes the variables of their clouds, from the environment",
    ),
    (
        &["doc", "docs", "man", "manual"],
        "`--help` after a command describes it in full, as in `mdlm run --help`; see also README.md and \
         pipelines/README.md",
    ),
    (
        &["self-update", "update", "upgrade"],
        "mdlm does not replace itself: `cargo install --locked --path .` in its source folder installs a newer one; \
         `mdlm run MANIFEST` updates the results",
    ),
    (
        &["serve", "server", "watch"],
        "mdlm does not watch files: the same `mdlm run MANIFEST` again reruns only what changed",
    ),
];

/// Options that do not exist, with the commands for which the answer holds (all where none is named). The first match
/// answers.
const OPTIONS: &[(&[&str], &[&str], &str)] = &[
    (
        &["--all", "-a"],
        &["gc"],
        "`mdlm gc MANIFEST…` deletes all but what these manifests need, `mdlm gc --last 1` all but the results of \
         the last run; to keep no results, delete their folder, which `mdlm status` names",
    ),
    (
        &["--file", "--input", "--text", "-f", "-i"],
        &["init"],
        "name text with `--files`, as in `mdlm init --files 'texts/*.txt'`; `--force` overwrites a manifest",
    ),
    (
        &["--changes", "--diff", "--explain", "--why"],
        &["run", "plan"],
        "leave it out: `mdlm plan MANIFEST` says what changed for each stage that runs, and `mdlm explain MANIFEST \
         STAGE` for all runs of a stage",
    ),
    (
        &["--auto", "--poll", "--watch"],
        &[],
        "mdlm does not watch files: the same command again reruns only what changed",
    ),
    (
        &["--count", "--limit", "--lines", "--num", "-n"],
        &["data"],
        "`--head N` shows N records",
    ),
    (
        &["--n", "--num", "--num-return-sequences", "--num-samples", "-n"],
        &["sample"],
        "`--count N` draws N texts",
    ),
    (
        &[
            "--dry-run",
            "--dryrun",
            "--just-print",
            "--preview",
            "--what-if",
            "-n",
        ],
        &[],
        "`mdlm plan MANIFEST` says what a run would do, and why",
    ),
    (
        &[
            "--continue",
            "--restart",
            "--resume",
            "--resume-from",
            "--resume-from-checkpoint",
        ],
        &["run", "plan"],
        "leave it out: a run always resumes from the finished stages and the last checkpoint",
    ),
    (
        &[
            "--clean",
            "--force-all",
            "--forceall",
            "--forcerun",
            "--from-scratch",
            "--ignore-cache",
            "--no-cache",
            "--overwrite",
            "--rebuild",
            "--rerun",
            "-B",
            "-F",
            "-R",
            "-f",
        ],
        &[],
        "`--force STAGE` runs a stage even if it is cached; repeat it for other stages",
    ),
    (
        &["--all", "-a"],
        &["run", "plan", "report"],
        "leave it out: all stages of the manifest are meant, unless `--target STAGE` names some",
    ),
    (
        &[
            "--config",
            "--file",
            "--makefile",
            "--manifest",
            "--pipeline",
            "--snakefile",
            "-c",
            "-s",
        ],
        &[],
        "name the manifest without an option, as in `mdlm run pipelines/quickstart.json`",
    ),
    (
        &[
            "--define",
            "--override",
            "--param",
            "--params",
            "--set-param",
            "-D",
            "-P",
            "-S",
            "-p",
        ],
        &[],
        "`--set PATH=VALUE` sets a field, as in `--set stages.model.steps=200`",
    ),
    (
        &[
            "--cores",
            "--cpus",
            "--num-proc",
            "--num-workers",
            "--parallel",
            "--workers",
            "-t",
            "-w",
        ],
        &[],
        "`--threads N` is the number of threads, and `--jobs N` of `mdlm run` is the number of stages that run side \
         by side",
    ),
    (
        &["--jobs", "-j"],
        &[],
        "`--jobs N` is an option of `mdlm run`; `--threads N` is the number of threads",
    ),
    (
        &["--accelerator", "--cpu", "--cuda", "--gpu", "--gpus"],
        &[],
        "`--device cpu` or `--device cuda` selects where to compute, and CUDA_VISIBLE_DEVICES one of several GPUs",
    ),
    (
        &["--debug", "--log-level", "--trace", "--verbose", "-v", "-vv"],
        &[],
        "leave it out: a run reports what it does unless `--quiet` is given; `mdlm explain` and `mdlm show` show \
         more about a stage",
    ),
    (
        &["--out", "--output", "--output-dir", "--save-dir", "-O", "-o"],
        &[],
        "results are kept in the store: `--store DIR` names another one, and `mdlm path MANIFEST STAGE` prints a \
         result's folder",
    ),
    (
        &[
            "--downstream",
            "--from",
            "--only",
            "--stage",
            "--stages",
            "--step",
            "--until",
        ],
        &[],
        "`--target STAGE` runs that stage and what it needs, nothing else",
    ),
    (&["--format"], &[], "`--json` prints JSON"),
    (
        &["--no-color", "--no-colour", "--nocolor"],
        &[],
        "`--color never`, or NO_COLOR=1 in the environment",
    ),
    (
        &["--assume-yes", "--yes", "-y"],
        &[],
        "leave it out: mdlm never asks for confirmation",
    ),
    (
        &["--log", "--log-file"],
        &[],
        "the log is standard error: `2> FILE` keeps it",
    ),
    (
        &["--epochs", "--max-epochs", "--num-epochs"],
        &[],
        "`--set stages.STAGE.steps=N` says how long a stage trains: an epoch is its train rows divided by `batch`",
    ),
    (
        &["--max-length", "--max-new-tokens", "--max-tokens", "--num-tokens"],
        &["sample"],
        "`--length N` draws texts of N tokens, window by window where a row has fewer",
    ),
    (&["--seed"], &[], "`--set seed=N` sets the pipeline's seed"),
    (
        &["--remote-url"],
        &[],
        "`--remote URL` names a cache that machines share",
    ),
];

/// The arguments, with `mdlm help COMMAND` as `mdlm COMMAND --help` and `mdlm version` as `mdlm --version`.
pub(super) fn spelt_out(mut arguments: Vec<OsString>) -> Vec<OsString> {
    match arguments.get(1).and_then(|word| word.to_str()) {
        Some("help") => {
            arguments.remove(1);
            arguments.push("--help".into());
        }
        Some("version") if arguments.len() == 2 => arguments[1] = "--version".into(),
        _ => {}
    }
    arguments
}

/// What is wrong with arguments that clap does not know, and what to write instead; nothing where there is no better
/// answer than clap's.
pub(super) fn answer(error: &clap::Error, arguments: &[OsString]) -> Option<(String, String)> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
                return None;
            };
            (missing.as_slice() == ["<STAGE>"])
                .then(|| Some(("no stage is named".to_owned(), stages(arguments)?)))
                .flatten()
        }
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand)?;
            let hint = command(word).unwrap_or_else(|| nearest(word));
            Some((format!("there is no command `{word}`"), hint))
        }
        ErrorKind::UnknownArgument => {
            let word = context(ContextKind::InvalidArg)?;
            let hint = option(word, arguments)?;
            Some((format!("unexpected argument `{word}`"), hint))
        }
        _ => None,
    }
}

/// The stages of the manifest that a command names, to choose one of.
fn stages(arguments: &[OsString]) -> Option<String> {
    let command = arguments.get(1)?.to_str()?;
    let manifest = arguments
        .iter()
        .skip(2)
        .map(Path::new)
        .find(|path| path.is_file())?;
    let loaded = Manifest::load(manifest, &[], SHAPES).ok()?;
    let mut names: Vec<&str> = loaded
        .manifest
        .stages
        .keys()
        .map(|name| loaded.sweeps.written(name))
        .collect();
    names.dedup();
    Some(format!(
        "the stages of `{0}` are {1}: `mdlm {command} {0} {2}`",
        manifest.display(),
        named(&names),
        names.last()?,
    ))
}

fn command(word: &str) -> Option<String> {
    let is_json = Path::new(word)
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    if is_json {
        return Some(format!("`mdlm run {word}` runs a manifest"));
    }
    let plain = word.to_lowercase().replace('_', "-");
    let cli = Cli::command();
    if cli.get_subcommands().any(|command| command.get_name() == plain) {
        return Some(format!("commands are in lower case: `mdlm {plain}`"));
    }
    let found = COMMANDS.iter().find(|(words, _)| words.contains(&plain.as_str()));
    found.map(|(_, hint)| (*hint).to_owned())
}

/// The command that is spelt most like a word, or where they are listed.
fn nearest(word: &str) -> String {
    let cli = Cli::command();
    let names = cli.get_subcommands().map(clap::Command::get_name);
    did_you_mean(word, names).map_or_else(
        || "`mdlm --help` lists the commands".to_owned(),
        |name| format!("did you mean `mdlm {name}`?"),
    )
}

fn option(word: &str, arguments: &[OsString]) -> Option<String> {
    let command = arguments
        .get(1)
        .and_then(|word| word.to_str())
        .unwrap_or_default();
    let runs = matches!(command, "run" | "plan");
    if !word.starts_with('-') {
        return match word.split_once('=') {
            Some((path, _)) if path.contains('.') || path == "seed" => {
                Some(format!("set each field with its own option: `--set {word}`"))
            }
            _ if command == "init" => Some(format!("name text with an option: `--files {word}`")),
            _ if !runs => None,
            _ if Path::new(word).extension().is_some_and(|ending| ending == "json") => {
                Some("name one manifest at a time".to_owned())
            }
            _ => Some(format!("name a stage with an option: `--target {word}`")),
        };
    }
    let name = word.split('=').next().unwrap_or(word);
    let found = OPTIONS.iter().find(|(names, commands, _)| {
        names.contains(&name) && (commands.is_empty() || commands.contains(&command))
    });
    if let Some((.., hint)) = found {
        return Some((*hint).to_owned());
    }
    let field = name.strip_prefix("--").filter(|_| runs)?;
    let field = stage_field(&field.replace('-', "_"))?;
    let value = value(name, arguments).unwrap_or_else(|| "VALUE".to_owned());
    Some(format!(
        "`--set stages.STAGE.{field}={value}` sets it, where STAGE is the stage's name"
    ))
}

/// The value that an unknown option was given.
fn value(name: &str, arguments: &[OsString]) -> Option<String> {
    let mut words = arguments.iter().filter_map(|word| word.to_str());
    let word = words.find(|word| word.split('=').next() == Some(name))?;
    let value = match word.split_once('=') {
        Some((_, value)) => value,
        None => words.next().filter(|next| !next.starts_with("--"))?,
    };
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<(String, String)> {
        let arguments = spelt_out(line.split(' ').map(OsString::from).collect());
        let error = Cli::command()
            .try_get_matches_from(arguments.clone())
            .unwrap_err();
        answer(&error, &arguments)
    }

    #[test]
    fn hints_name_commands_and_options_that_exist() {
        let cli = Cli::command();
        let names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
        let all = COMMANDS
            .iter()
            .map(|(_, hint)| hint)
            .chain(OPTIONS.iter().map(|(.., hint)| hint));
        for hint in all {
            for after in hint.split("`mdlm ").skip(1) {
                let name = after.split([' ', '`']).next().unwrap();
                assert!(names.contains(&name), "{hint}");
            }
        }
        for (words, _) in COMMANDS {
            assert!(words.iter().all(|word| !names.contains(word)), "{words:?}");
        }
    }

    #[test]
    fn words_of_other_programs_are_listed_once() {
        let mut all: Vec<&str> = COMMANDS.iter().flat_map(|(words, _)| *words).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for word in all {
            assert!(parsed(&format!("mdlm {word}")).is_some(), "{word}");
        }
    }

    #[test]
    fn words_of_other_programs_have_a_hint() {
        for (line, part) in [
            ("mdlm clean", "`mdlm gc MANIFEST…`"),
            ("mdlm rnu", "did you mean `mdlm run`?"),
            ("mdlm rn", "did you mean `mdlm run`?"),
            ("mdlm help rnu", "did you mean `mdlm run`?"),
            ("mdlm frobnicate", "`mdlm --help` lists the commands"),
            ("mdlm help frobnicate", "`mdlm --help` lists the commands"),
            ("mdlm LS", "`mdlm plan MANIFEST`"),
            ("mdlm Run", "commands are in lower case: `mdlm run`"),
            ("mdlm RUN a.json", "commands are in lower case: `mdlm run`"),
            ("mdlm help Plan", "commands are in lower case: `mdlm plan`"),
            ("mdlm stats", "`mdlm status`"),
            ("mdlm open", "`mdlm report MANIFEST`"),
            ("mdlm login", "HF_TOKEN"),
            ("mdlm man", "`mdlm run --help`"),
            ("mdlm update", "`cargo install --locked --path .`"),
            ("mdlm gc --all", "`mdlm gc --last 1`"),
            ("mdlm plan a.json --diff", "`mdlm explain MANIFEST STAGE`"),
            ("mdlm plan a.json --watch", "the same command again"),
            ("mdlm init -f x", "`mdlm init --files 'texts/*.txt'`"),
            ("mdlm pipelines/a.json", "`mdlm run pipelines/a.json`"),
            ("mdlm run a.json --dry-run", "`mdlm plan MANIFEST`"),
            ("mdlm run a.json -n", "`mdlm plan MANIFEST`"),
            ("mdlm data a.json rows -n 5", "`--head N`"),
            ("mdlm data a.json rows --limit 5", "`--head N`"),
            ("mdlm data a.json rows --count=5", "`--head N`"),
            ("mdlm init poems texts/p0.txt", "`--files texts/p0.txt`"),
            ("mdlm run a.json --resume", "leave it out"),
            ("mdlm run a.json --resume=x", "leave it out"),
            ("mdlm run a.json -f", "`--force STAGE`"),
            ("mdlm plan a.json -j 4", "`--threads N`"),
            ("mdlm run a.json model", "`--target model`"),
            ("mdlm run a.json --set a.b=1 stages.c.d=2", "`--set stages.c.d=2`"),
            (
                "mdlm run a.json --learning-rate 1e-3",
                "`--set stages.STAGE.learning_rate=1e-3`",
            ),
            (
                "mdlm run a.json --lr=1e-3",
                "`--set stages.STAGE.learning_rate=1e-3`",
            ),
            ("mdlm run a.json --batch-size 8", "`--set stages.STAGE.batch=8`"),
            ("mdlm run a.json --seed 3", "`--set seed=N`"),
        ] {
            let (_, hint) = parsed(line).unwrap_or_else(|| panic!("{line}"));
            assert!(hint.contains(part), "{line}: {hint}");
        }
        assert_eq!(parsed("mdlm run a.json --frobnicate"), None);
    }

    #[test]
    fn help_and_version_are_commands_too() {
        let spelt = |line: &str| {
            let words = spelt_out(line.split(' ').map(OsString::from).collect());
            let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
            words.join(" ")
        };
        assert_eq!(spelt("mdlm help"), "mdlm --help");
        assert_eq!(spelt("mdlm help run"), "mdlm run --help");
        assert_eq!(spelt("mdlm version"), "mdlm --version");
        assert_eq!(spelt("mdlm run help"), "mdlm run help");
    }
}
