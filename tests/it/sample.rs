//! `mdlm sample`: texts from a stage, from its results and from checkpoints, beside those of sample stages.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Project, mdlm, printed, words};

/// L and V of shape `nano`.
const LENGTH: usize = 32;
const VOCABULARY: u64 = 512;

/// A project with a small model, and these stages too, which are run.
fn project(more: &Value) -> Project {
    let project = Project::whole(60);
    let path = project.path().join("pipelines/tiny.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let stages = manifest["stages"].as_object_mut().unwrap();
    stages.shift_remove("bound");
    stages["model"]["steps"] = json!(8);
    stages.extend(more.as_object().unwrap().clone());
    fs::write(&path, manifest.to_string()).unwrap();
    project.run(&[]);
    project
}

/// `mdlm sample MODEL …` in a project: exit code, standard output, standard error.
fn sample(project: &Project, model: &str, options: &[&str]) -> (Option<i32>, String, String) {
    let mut command = mdlm();
    command.current_dir(project.path()).args(["sample", model]);
    printed(command.args(options))
}

/// Standard output of a command that is done.
fn output(project: &Project, model: &str, options: &[&str]) -> String {
    let (code, out, talk) = sample(project, model, options);
    assert_eq!(code, Some(0), "{model} {options:?}: {talk}");
    out
}

const MODEL: &str = "pipelines/tiny.json#model";

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn drawn(project: &Project, model: &str, options: &[&str]) -> Vec<Value> {
    lines(&output(project, model, &[options, &["--json"]].concat()))
}

/// What the command says that the input is at fault for.
fn refused(project: &Project, model: &str, options: &[&str]) -> String {
    let (code, out, talk) = sample(project, model, options);
    assert_eq!(code, Some(2), "{model} {options:?}: {out}{talk}");
    assert_eq!(out, "", "{options:?}");
    words(&talk)
}

fn artifact(project: &Project, stage: &str) -> PathBuf {
    let (code, out, talk) = printed(&mut project.mdlm("path", &[stage]));
    assert_eq!(code, Some(0), "{talk}");
    PathBuf::from(out.trim())
}

/// The samples of a sample stage.
fn samples(project: &Project, stage: &str) -> Vec<Value> {
    lines(&fs::read_to_string(artifact(project, stage).join("samples.jsonl")).unwrap())
}

/// The fields that a sample stage writes too.
fn as_of_a_stage(line: &Value) -> Value {
    let mut line = line.clone();
    let fields = line.as_object_mut().unwrap();
    fields.shift_remove("seed").unwrap();
    fields.shift_remove("sampler").unwrap();
    line
}

/// Compares lines of the command with those of a stage, the order of their fields apart.
fn assert_same(found: &[Value], of_stage: &[Value], what: &str) {
    let found: Vec<_> = found.iter().map(as_of_a_stage).collect();
    assert_eq!(found, of_stage, "{what}");
}

#[test]
fn sample_draws_the_texts_of_a_stage_from_every_form_of_a_model() {
    let project = project(&json!({
        "long": {
            "kind": "sample", "model": "model", "count": 2, "steps": 4,
            "sampler": { "kind": "semi_autoregressive", "length": 80 }
        },
        "given": {
            "kind": "sample", "model": "model", "count": 1, "steps": 8, "temperature": 0.5, "top_k": 9,
            "sampler": { "kind": "confidence", "block": 16 }, "given": { "template": "the ⟨…⟩ over ⟨4⟩ dogs" },
            "end_of_text": "last", "weights": "raw", "seed": 7
        }
    }));
    let export = |format: &str, path: &str| {
        let (code, _, talk) = printed(&mut project.mdlm("export", &["model", "--to", format, path]));
        assert_eq!(code, Some(0), "{talk}");
    };
    export("hf", "hf");
    export("lightning", "last.ckpt");
    let folder = artifact(&project, "model");
    fs::copy(
        folder.join("ema.safetensors"),
        project.path().join("bare.safetensors"),
    )
    .unwrap();
    let folder = folder.to_str().unwrap();
    let beside = format!("{folder}/ema.safetensors");
    let of_folder = ["--tokenizer", folder];
    let bare = ["--tokenizer", "hf/tokenizer.json", "--objective", "mdlm"];
    let models: [(&str, &[&str]); 6] = [
        (MODEL, &[]),
        (folder, &[]),
        (&beside, &[]),
        ("hf", &[]),
        ("last.ckpt", &of_folder),
        ("bare.safetensors", &bare),
    ];
    let stage = samples(&project, "texts");
    for (model, options) in models {
        let settings = ["--seed", "1", "--count", "3", "--steps", "8"];
        let found = drawn(&project, model, &[options, &settings].concat());
        assert_same(&found, &stage, model);
        for line in &found {
            assert_eq!(
                (&line["seed"], &line["sampler"]["kind"]),
                (&json!(1), &json!("cached"))
            );
        }
    }

    // All settings, and windows.
    let all = [
        "--sampler",
        r#"{ "kind": "confidence", "block": 16 }"#,
        "--infill",
        "the ⟨…⟩ over ⟨4⟩ dogs",
        "--steps",
        "8",
        "--temperature",
        "0.5",
        "--top-k",
        "9",
        "--end-of-text",
        "last",
        "--weights",
        "raw",
        "--seed",
        "7",
    ];
    let given = samples(&project, "given");
    assert_same(&drawn(&project, MODEL, &all), &given, "given");
    // A prompt and a suffix stand before and after a template.
    let apart = [
        &all[..2],
        &[
            "--prompt",
            "the ",
            "--infill",
            "⟨…⟩ over ⟨4⟩",
            "--suffix",
            " dogs",
        ],
        &all[4..],
    ]
    .concat();
    assert_same(&drawn(&project, MODEL, &apart), &given, "given in parts");
    let long = samples(&project, "long");
    let settings = ["--length", "80", "--seed", "1", "--steps", "4", "--count", "2"];
    assert_same(&drawn(&project, MODEL, &settings), &long, "long");
    let texts: Vec<_> = long.iter().map(|line| line["text"].as_str().unwrap()).collect();
    // A text that is printed while it comes is the same as a whole.
    let plain = format!("{}\n\n{}\n\n", texts[0], texts[1]);
    assert_eq!(output(&project, MODEL, &settings), plain);
    assert_eq!(output(&project, MODEL, &settings[..6]), format!("{}\n", texts[0]));
    // A shorter text is cut.
    let short = drawn(
        &project,
        MODEL,
        &["--length", "20", "--seed", "1", "--steps", "4"],
    );
    assert_eq!(
        short[0]["tokens"].as_array().unwrap()[..],
        long[0]["tokens"].as_array().unwrap()[..20]
    );
}

#[test]
fn sample_keeps_what_is_given() {
    let project = project(&json!({}));
    let text = |options: &[&str]| output(&project, MODEL, &[options, &["--steps", "4"]].concat());
    let prompted = text(&["--prompt", "the quick"]);
    assert!(prompted.starts_with("the quick"), "{prompted}");
    // The same command, the same text; another seed, another one.
    assert_eq!(prompted, text(&["--prompt", "the quick"]));
    assert_ne!(prompted, text(&["--prompt", "the quick", "--seed", "1"]));
    assert_eq!(prompted, text(&["--prompt", "the quick", "--seed", "0"]));
    let ended = text(&["--suffix", "lazy dogs"]);
    assert!(ended.ends_with("lazy dogs\n"), "{ended}");
    let both = text(&["--prompt", "a⟨b", "--suffix", "dogs"]);
    assert!(both.starts_with("a⟨b") && both.ends_with("dogs\n"), "{both}");
    let filled = text(&["--infill", "the ⟨…⟩ of ⟨4⟩ is"]);
    let parts = filled
        .strip_prefix("the ")
        .and_then(|rest| rest.trim_end().strip_suffix(" is"));
    assert!(parts.is_some_and(|parts| parts.contains(" of ")), "{filled}");

    fs::write(
        project.path().join("many.jsonl"),
        "{\"prompt\": \"quick\"}\n\n{\"template\": \"⟨3⟩ over\"}\n{\"prompt_tokens\": [300, 301]}\n",
    )
    .unwrap();
    let many = drawn(
        &project,
        MODEL,
        &["--given", "many.jsonl", "--count", "2", "--steps", "4"],
    );
    let of: Vec<_> = many.iter().map(|line| line["given"].as_u64().unwrap()).collect();
    assert_eq!(of, [0, 0, 1, 1, 2, 2]);
    for line in &many[..2] {
        assert!(line["text"].as_str().unwrap().starts_with("quick"), "{line}");
    }
    assert!(many[2]["text"].as_str().unwrap().contains(" over"), "{}", many[2]);
    assert_eq!(
        many[4]["tokens"].as_array().unwrap()[1..3],
        [json!(300), json!(301)]
    );

    // What `--json` has.
    let line = &many[0];
    let fields: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        fields,
        [
            "text",
            "tokens",
            "network_calls",
            "steps",
            "seed",
            "sampler",
            "given"
        ]
    );
    assert_eq!(line["tokens"].as_array().unwrap().len(), LENGTH);
    assert_eq!((&line["steps"], &line["seed"]), (&json!(4), &json!(0)));
    assert!(
        line["network_calls"]
            .as_u64()
            .is_some_and(|calls| (1..=4).contains(&calls))
    );

    // Tokens in the place of text.
    let numbers = output(&project, MODEL, &["--tokens", "--steps", "4"]);
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    let tokens = &drawn(&project, MODEL, &["--steps", "4"])[0]["tokens"];
    assert_eq!(json!(numbers), *tokens);
    assert!(numbers.iter().all(|&token| token < VOCABULARY));
}

#[test]
fn sample_steps_are_a_line_each_without_a_terminal() {
    let project = project(&json!({}));
    let options = [
        "--steps",
        "6",
        "--prompt",
        "the quick",
        "--sampler",
        "random",
        "--show-steps",
    ];
    let out = output(&project, MODEL, &options);
    let steps: Vec<_> = out.lines().take(6).collect();
    let masked = |line: &str| line.chars().filter(|&c| c == '░').count();
    for (index, line) in steps.iter().enumerate() {
        assert!(
            line.starts_with(&format!("step {}/6: the quick", index + 1)),
            "{line}"
        );
    }
    assert!(
        steps.windows(2).all(|pair| masked(pair[0]) > masked(pair[1])),
        "{out}"
    );
    assert_eq!(masked(steps[5]), 0);
    assert!(!out.contains('\x1b'), "{out}");
    // The text is that without the steps.
    let text = output(&project, MODEL, &options[..6]);
    assert_eq!(
        out.split_once("step 6/6: ")
            .unwrap()
            .1
            .split_once('\n')
            .unwrap()
            .1,
        text
    );

    let windows = output(
        &project,
        MODEL,
        &["--steps", "2", "--length", "60", "--show-steps"],
    );
    for (index, line) in windows.lines().take(6).enumerate() {
        let (window, step) = (index / 2 + 1, index % 2 + 1);
        assert!(
            line.starts_with(&format!("window {window}/3, step {step}/2: ")),
            "{windows}"
        );
    }

    // Colours without a terminal, as for other commands.
    let (code, _, talk) = sample(&project, MODEL, &["--show-steps", "--json"]);
    assert_eq!(code, Some(2), "{talk}");
    assert!(talk.contains("--show-steps") && talk.contains("--json"), "{talk}");
}

#[test]
fn sample_reads_an_instance_of_a_sweep() {
    let project = project(&json!({
        "swept": {
            "kind": "train", "from": "rows", "shape": "nano", "steps": 2, "batch": 4, "warmup_steps": 1,
            "validation_rows": 4, "matrix": { "seed": [1, 2] }
        }
    }));
    let of = |seed: u32| {
        output(
            &project,
            &format!("pipelines/tiny.json#swept@seed={seed}"),
            &["--steps", "4"],
        )
    };
    assert_ne!(of(1), of(2));
    let said = refused(&project, "pipelines/tiny.json#swept", &[]);
    assert!(
        said.contains("it is swept") && said.contains("`swept@seed=1`"),
        "{said}"
    );
}

#[test]
fn sample_refuses_what_is_no_model() {
    let project = project(&json!({}));
    let folder = artifact(&project, "model");
    let path = |name: &str| project.path().join(name);
    fs::copy(folder.join("ema.safetensors"), path("bare.safetensors")).unwrap();
    fs::write(path("text.bin"), "no weights at all").unwrap();
    fs::create_dir(path("empty")).unwrap();
    fs::write(path("broken.json"), "{").unwrap();
    let artifact = folder.to_str().unwrap();
    let cases: [(&str, &[&str], &[&str]); 14] = [
        (
            "nowhere",
            &[],
            &[
                "there is no `nowhere`",
                "hint: name the folder",
                "pipelines/quickstart.json#model",
            ],
        ),
        ("pipelines/none.json#model", &[], &["none.json"]),
        (
            "pipelines/tiny.json",
            &[],
            &["names no model", "`pipelines/tiny.json#model`"],
        ),
        (
            "pipelines/tiny.json#",
            &[],
            &["names no model", "`pipelines/tiny.json#model`"],
        ),
        ("broken.json", &[], &["names no model", "hint: name the folder"]),
        (
            "pipelines/tiny.json#rows",
            &[],
            &["it is a pack stage", "name one of `model`"],
        ),
        ("pipelines/tiny.json#modle", &[], &["modle", "model"]),
        (
            MODEL,
            &["--set", "stages.model.steps=9"],
            &["has not run", "mdlm run pipelines/tiny.json --set"],
        ),
        ("empty", &[], &["`empty` has no weights", "hint: "]),
        ("text.bin", &[], &["text.bin", "hint: "]),
        (
            "bare.safetensors",
            &[],
            &["does not state its objective", "`--objective mdlm`"],
        ),
        (
            "bare.safetensors",
            &["--objective", "mdlm"],
            &["has no tokenizer beside it", "`--tokenizer FILE`", "`--tokens`"],
        ),
        (
            "bare.safetensors",
            &["--objective", "mdlm", "--tokens", "--prompt", "a"],
            &["`--prompt` needs the model's tokenizer", "`--tokenizer FILE`"],
        ),
        (
            artifact,
            &["--objective", "mdlm"],
            &["`--objective` has no effect", "leave `--objective` out"],
        ),
    ];
    for (model, options, parts) in cases {
        let said = refused(&project, model, options);
        for part in parts {
            assert!(
                said.contains(part),
                "{model} {options:?}: {part:?} is not in: {said}"
            );
        }
    }
    // Without a tokenizer, tokens alone.
    let tokens = output(
        &project,
        "bare.safetensors",
        &["--objective", "mdlm", "--tokens", "--steps", "4"],
    );
    assert_eq!(tokens.split_whitespace().count(), LENGTH);
    let line = &drawn(
        &project,
        "bare.safetensors",
        &["--objective", "mdlm", "--tokens", "--steps", "4"],
    )[0];
    assert_eq!(line.get("text"), None);
    // An error as JSON.
    let (code, out, _) = sample(&project, "nowhere", &["--json"]);
    let error: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &error["error"]["exit_code"]),
        (Some(2), &json!(2)),
        "{out}"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn sample_refuses_settings_by_their_options() {
    let project = project(&json!({
        "ordered": {
            "kind": "train", "from": "rows", "shape": "nano", "steps": 2, "batch": 4, "warmup_steps": 1,
            "validation_rows": 4, "objective": { "kind": "ar" }
        }
    }));
    let path = |name: &str, text: &str| fs::write(project.path().join(name), text).unwrap();
    path("outside.jsonl", "{\"prompt_tokens\": [1, 9999]}\n");
    path("unknown.jsonl", "{\"promt\": \"a\"}\n");
    let long = "the quick brown fox jumps over it ".repeat(9);
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--prompt", &long],
            &[
                "`--prompt`: the given text has",
                "tokens with the tokens that begin and end it, but a row has 32",
            ],
        ),
        (
            &["--infill", "no hole"],
            &["`--infill`: the template has no hole", "`⟨4⟩`"],
        ),
        (
            &["--infill", "a ⟨x⟩"],
            &["`--infill`: the hole `⟨x⟩` is not a number"],
        ),
        (
            &["--prompt", ""],
            &["`--prompt`: `--prompt` is empty", "leave `--prompt` out"],
        ),
        (
            &["--given", "outside.jsonl"],
            &["`outside.jsonl`, line 1", "9999 is not in the vocabulary"],
        ),
        (
            &["--given", "unknown.jsonl"],
            &["`unknown.jsonl`, line 1", "promt"],
        ),
        (&["--given", "none.jsonl"], &["read `none.jsonl`"]),
        (
            &["--given", "outside.jsonl", "--prompt", "a"],
            &["exclude each other", "`--given`", "`--prompt`"],
        ),
        (
            &["--sampler", "gibbs"],
            &[
                "sampler `gibbs` does not fit the model: it needs a model of `mlm`",
                "`--sampler cached`",
            ],
        ),
        (
            &["--sampler", "confidense"],
            &["`--sampler`", "confidense", "`confidence`"],
        ),
        (&["--sampler", "{ \"kind\": "], &["`--sampler`", "is not JSON"]),
        (
            &["--sampler", r#"{ "kind": "confidence", "blok": 4 }"#],
            &["`--sampler`", "blok", "block"],
        ),
        (
            &["--sampler", r#"{ "kind": "confidence", "block": 64 }"#],
            &["`--sampler`: `block`: a block has 64 tokens, but a row has 32"],
        ),
        (
            &[
                "--sampler",
                r#"{ "kind": "semi_autoregressive", "stride": 32, "length": 64 }"#,
            ],
            &[
                "`--sampler`: `stride`: a stride of 32 keeps no token",
                "from 1 to 31",
            ],
        ),
        (
            &["--sampler", "semi_autoregressive"],
            &["how long a text is, is not stated", "\"length\": 2048"],
        ),
        (&["--length", "1"], &["`--length`: 1 is too small"]),
        (
            &["--length", "80", "--sampler", "random"],
            &["`--length` draws windows with `cached`", "not with `random`"],
        ),
        (
            &[
                "--length",
                "80",
                "--sampler",
                r#"{ "kind": "semi_autoregressive", "length": 64 }"#,
            ],
            &["`--length` and `length` of the sampler exclude each other"],
        ),
        (&["--count", "0"], &["`--count`: 0 is too small"]),
        (&["--count", "1.5"], &["`--count`: ", "1.5"]),
        (&["--steps", "0"], &["`--steps`: 0 is too small"]),
        (&["--steps", "many"], &["many", "expected a number"]),
        (
            &["--temperature", "0.0001"],
            &["`--temperature`: ", "set `--temperature` to 0"],
        ),
        (
            &["--temperature", "0", "--top-k", "3"],
            &["`--top-k`: `--top-k` has no effect", "leave `--top-k` out"],
        ),
        (
            &["--guidance", "1"],
            &[
                "`--guidance`: guidance masks the given tokens",
                "leave `--guidance` out",
            ],
        ),
        (
            &["--guidance", "-2", "--prompt", "a"],
            &["`--guidance`: -2 is too small"],
        ),
        (&["--top-p", "2"], &["`--top-p`: 2 is too large"]),
        (&["--end-of-text", "lst"], &["`--end-of-text`", "lst", "last"]),
        (
            &["--end-of-text", "last"],
            &["`--end-of-text`: ", "`--end-of-text never`"],
        ),
        (&["--weights", "average"], &["`--weights`", "average", "ema"]),
        (&["--seed", "-1"], &["`--seed`: -1 is too small"]),
        (&["--max-tokens", "4"], &["`--length N` draws texts of N tokens"]),
        (&["-n", "4"], &["`--count N` draws N texts"]),
    ];
    for (options, parts) in cases {
        let said = refused(&project, MODEL, options);
        for part in *parts {
            assert!(said.contains(part), "{options:?}: {part:?} is not in: {said}");
        }
    }
    let ordered = "pipelines/tiny.json#ordered";
    for (options, parts) in [
        (
            vec!["--length", "80"],
            [
                "`--length` does not fit the model",
                "leave it out: a text has 32 tokens",
            ],
        ),
        (
            vec!["--suffix", "a"],
            [
                "`--suffix`: sampler `autoregressive` takes a prompt alone",
                "`--prompt`",
            ],
        ),
        (
            vec!["--sampler", "cached"],
            [
                "`--sampler`: sampler `cached` does not fit the model",
                "`--sampler autoregressive`",
            ],
        ),
    ] {
        let said = refused(&project, ordered, &options);
        for part in parts {
            assert!(said.contains(part), "{options:?}: {part:?} is not in: {said}");
        }
    }
    let text = output(&project, ordered, &["--prompt", "the quick"]);
    assert!(text.starts_with("the quick"), "{text}");
    // Words of other programs.
    let (code, _, talk) = printed(mdlm().args(["generate", MODEL]));
    assert_eq!(code, Some(2));
    assert!(talk.contains("`mdlm sample MODEL`"), "{talk}");
}

/// The reader of standard output leaves: the command ends, without a word.
#[cfg(unix)]
#[test]
fn sample_ends_with_its_reader() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::Stdio;

    let project = project(&json!({}));
    let mut child = crate::support::program()
        .current_dir(project.path())
        .env("MDLM_DEVICE", "cpu")
        .args([
            "sample",
            MODEL,
            "--steps",
            "1000000",
            "--sampler",
            "ancestral",
            "--show-steps",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.starts_with("step 1/1000000: "), "{line}");
    drop(out);
    let mut talk = String::new();
    child.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*talk), (Some(0), ""));
}

/// What a page says of the command is what it prints.
#[test]
fn sample_help_has_its_examples() {
    let (code, help, _) = printed(mdlm().args(["sample", "--help"]));
    assert_eq!(code, Some(0));
    for part in [
        "mdlm sample pipelines/quickstart.json#model --prompt",
        "⟨…⟩ of⟨4⟩ is",
        "[default: 0]",
    ] {
        assert!(help.contains(part), "{help}");
    }
    assert!(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("pipelines/quickstart.json")
            .is_file()
    );
}
