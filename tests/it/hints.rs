//! Hints: what a message says to write in place of words and options of other programs, numbers and values as other
//! languages spell them, names and paths.

use std::fs;

use crate::support::{Project, mdlm, printed, words};

#[test]
fn hint_spells_a_number_as_json() {
    let project = Project::whole(5);
    for (written, part) in [
        (".001", "`.001` is not a JSON number"),
        (".001", "hint: write 0.001\n"),
        ("1.", "hint: write 1\n"),
        ("+1", "hint: write 1\n"),
        ("+.5e+1", "hint: write 0.5e1\n"),
        ("0x7", "hint: write 7\n"),
        ("1_0", "hint: write 10\n"),
        // The number that is meant may be out of range, too.
        ("0x10", "hint: 16 is out of range: write a number from 0 to 10\n"),
        (
            "1_000",
            "hint: 1000 is out of range: write a number from 0 to 10\n",
        ),
        ("-.5", "hint: -0.5 is out of range: write a number from 0 to 10\n"),
        (
            "\"16\"",
            "hint: 16 is out of range: write a number from 0 to 10\n",
        ),
        ("007", "hint: write 7\n"),
        ("0,5", "hint: write 0.5\n"),
        ("10%", "hint: write 0.1\n"),
        ("inf", "hint: write a finite number\n"),
        ("-Infinity", "hint: write a finite number\n"),
        ("nan", "hint: write a finite number\n"),
        ("1e", "hint: write an exponent after the `e`, as in 1e-4\n"),
        ("'0.5'", "hint: write 0.5"),
        ("\"0.5\"", "hint: write 0.5 without quotes\n"),
        ("\".5\"", "hint: write 0.5 without quotes\n"),
        ("1e400", "hint: write a finite number\n"),
        ("", "hint: give a value"),
        ("None", "hint: write `null` to remove the field"),
        ("many", "`many` is a string"),
    ] {
        let set = format!("stages.model.learning_rate={written}");
        let (code, _, talk) = printed(&mut project.mdlm("plan", &["--set", &set]));
        assert_eq!(code, Some(2), "{written}");
        assert!(talk.contains(part), "{written}: {talk}");
    }
    let (_, _, talk) = printed(&mut project.mdlm("plan", &["--set", "stages.rows.wrap=True"]));
    assert!(talk.contains("hint: write true\n"), "{talk}");
    let sweep = "stages.model.learning_rate=[1e-3,4e-3]";
    let (_, _, talk) = printed(&mut project.mdlm("plan", &["--set", sweep]));
    let way = "--set 'stages.model.matrix={\"learning_rate\":[0.001,0.004]}'";
    assert!(talk.contains(way), "{talk}");
    let way = "stages.model.matrix={\"learning_rate\":[0.001,0.004]}";
    let (code, plan, talk) = printed(&mut project.mdlm("plan", &["--set", way]));
    assert_eq!(code, Some(0), "{talk}");
    assert!(plan.contains("model@learning_rate=0.004"), "{plan}");
}

/// The same inside a file, where each is a fault at its place.
#[test]
fn hint_spells_values_of_other_languages_as_json() {
    let project = Project::whole(5);
    let path = project.path().join("pipelines/tiny.json");
    let manifest = fs::read_to_string(&path).unwrap();
    for (from, to, part) in [
        ("0.001", ".001", "hint: write 0.001"),
        ("0.001", "+1", "hint: write 1"),
        ("0.001", "1.", "hint: write 1"),
        ("0.001", "0x7", "hint: write 7"),
        (
            "0.001",
            "1_000",
            "hint: 1000 is out of range: write a number from 0 to 10",
        ),
        (
            "0.001",
            "0x10",
            "hint: 16 is out of range: write a number from 0 to 10",
        ),
        (
            "0.001",
            "-.5",
            "hint: -0.5 is out of range: write a number from 0 to 10",
        ),
        ("0.001", "NaN", "expected a finite number"),
        ("0.001", "-inf", "expected a finite number"),
        ("0.001", "inf", "expected a finite number"),
        ("0.001", "1e", "as in 1e-4"),
        ("0.001", "\".001\"", "hint: write 0.001 without quotes"),
        ("0.001", "None", "hint: leave the field out to use its default"),
        ("0.001", "# lr\n 0.001", "hint: JSON has no comments"),
        (
            "0.001",
            "[0.001, 0.004]",
            "move them into `matrix` of `model`: \"matrix\": { \"learning_rate\": [0.001,0.004] }",
        ),
        (
            "\"nano\"",
            "'nano'",
            "hint: put strings and field names in double quotes",
        ),
        (
            "\"nano\"",
            "nano",
            "hint: put text in double quotes: write \"nano\"",
        ),
        ("\"steps\"", "steps", "hint: write \"steps\""),
        (
            "\"steps\"",
            "\"epochs\"",
            "set `steps` of the train stage; an epoch takes as many steps",
        ),
        ("\"steps\"", "\"max_steps\"", "did you mean `steps`?"),
        ("\"seed\"", "\"extends\"", "a manifest is one file"),
        ("\"seed\"", "\"env\"", "a manifest has no variables"),
        ("\"batch\"", "\"gpus\"", "`mdlm run --device cpu|cuda`"),
    ] {
        assert!(manifest.contains(from), "{from} in {manifest}");
        fs::write(&path, manifest.replacen(from, to, 1)).unwrap();
        let (code, _, talk) = printed(&mut project.mdlm("validate", &[]));
        assert_eq!(code, Some(2), "{to}");
        assert!(
            words(&talk.replace(" | ", " ")).contains(&words(part)),
            "{to}: {talk}"
        );
    }
    fs::write(&path, "# of dvc\nname: tiny\nseed: 1\nstages:\n  text: {}\n").unwrap();
    let (_, _, talk) = printed(&mut project.mdlm("plan", &[]));
    assert!(talk.contains("this looks like YAML"), "{talk}");
    fs::write(&path, "name = \"tiny\"\n[stages.text]\n").unwrap();
    let (_, _, talk) = printed(&mut project.mdlm("plan", &[]));
    assert!(talk.contains("this looks like TOML"), "{talk}");
}

#[test]
fn hint_for_words_of_other_programs_shows_the_command_or_setting() {
    let project = Project::whole(5);
    for (line, part) in [
        (
            "clean",
            "error: there is no command `clean`\nhint: `mdlm gc MANIFEST…`",
        ),
        ("repro", "`mdlm run MANIFEST`"),
        ("diff", "`mdlm compare A.json B.json`"),
        ("logs", "`mdlm explain MANIFEST STAGE`"),
        ("help ls", "`mdlm plan MANIFEST` lists the stages"),
        ("pipelines/tiny.json", "`mdlm run pipelines/tiny.json`"),
        ("run pipelines/tiny.json --dry-run", "`mdlm plan MANIFEST`"),
        ("run pipelines/tiny.json -n", "`mdlm plan MANIFEST`"),
        ("run pipelines/tiny.json --resume", "leave it out"),
        ("run pipelines/tiny.json model", "`--target model`"),
        (
            "plan pipelines/tiny.json --set model.steps=5",
            "did you mean `--set stages.model.steps=5`?",
        ),
        (
            "plan pipelines/tiny.json --set modle.steps=5",
            "did you mean `--set stages.model.steps=5`?",
        ),
        (
            "plan pipelines/tiny.json --set lr=1e-3",
            "did you mean `--set stages.model.learning_rate=1e-3`?",
        ),
        (
            "plan pipelines/tiny.json --set steps=5",
            "did you mean `--set stages.model.steps=5`, `--set stages.bound.steps=5` or `--set stages.texts.steps=5`?",
        ),
        (
            "plan pipelines/tiny.json --set stages/model/steps=5",
            "did you mean `--set stages.model.steps=5`?",
        ),
        (
            "plan pipelines/tiny.json --set model=5",
            "`model` is a stage; name a field of it: `--set stages.model.steps=5`",
        ),
        ("rnu pipelines/tiny.json", "did you mean `mdlm run`?"),
        ("run nofile.json", "manifests found nearby: `pipelines/tiny.json`"),
        (
            "plan pipelines/tiny.json --lr 1e-3",
            "`--set stages.STAGE.learning_rate=1e-3`",
        ),
    ] {
        let (code, _, talk) = printed(mdlm().current_dir(project.path()).args(line.split(' ')));
        assert_eq!(code, Some(2), "{line}: {talk}");
        assert!(
            words(&talk.replace(" | ", " ")).contains(&words(part)),
            "{line}: {talk}"
        );
    }
    for (line, same) in [
        ("help", "--help"),
        ("help run", "run --help"),
        ("version", "--version"),
    ] {
        let (code, text, _) = printed(mdlm().args(line.split(' ')));
        assert_eq!(code, Some(0), "{line}");
        assert_eq!(text, printed(mdlm().args(same.split(' '))).1, "{line}");
    }
}

/// What a shell would have put into a path is answered with how to write it.
#[test]
fn hint_for_a_path_in_shell_syntax_shows_what_to_write() {
    let project = Project::new(5);
    let home = project.path().to_str().unwrap();
    for (path, part) in [
        (
            "~/corpus/*.txt",
            &*format!("a manifest does not expand `~`: write `{home}/corpus/*.txt`"),
        ),
        (
            "${HOME}/corpus/*.txt",
            "`--set \"stages.STAGE.input.files.0=$HOME/…\"`",
        ),
        (
            "$HOME/corpus/*.txt",
            "a manifest does not expand environment variables",
        ),
    ] {
        let set = format!("stages.text.input.files.0={path}");
        let (code, _, talk) = printed(project.mdlm("plan", &["--set", &set]).env("HOME", home));
        assert_eq!(code, Some(2), "{talk}");
        assert!(talk.contains(part), "{path}: {talk}");
    }
    let (code, _, talk) = printed(project.mdlm("run", &["--store=~/store"]).env("HOME", home));
    assert_eq!(code, Some(2), "{talk}");
    assert!(talk.contains(&format!("hint: write `{home}/store`")), "{talk}");
    assert!(!project.path().join("~").exists());
}

/// A name in place of a tokenizer's or detokenizer's object.
#[test]
fn hint_for_a_name_shows_the_object_to_write() {
    let project = Project::new(5);
    let path = project.path().join("pipelines/tiny.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let own = "{ \"kind\": \"train_bpe\", \"vocabulary_size\": 320 }";
    assert!(manifest.contains(own));
    let gpt2 = "hint: write { \"kind\": \"published\", \"name\": \"gpt2\" }";
    let roberta = "hint: write { \"kind\": \"download\", \"url\": \
         \"hf://FacebookAI/roberta-base@main/tokenizer.json\", \
                   \"unpinned\": true }";
    for (tokenizer, part) in [
        ("\"gpt2\"", gpt2),
        ("\"roberta-base\"", roberta),
        ("{ \"kind\": \"hf\" }", &gpt2[6..]),
        ("{ \"kind\": \"hf\", \"name\": \"roberta-base\" }", roberta),
        ("{ \"kind\": \"gpt2-medium\" }", "did you mean `gpt2`"),
        ("{ \"kind\": \"published\", \"name\": \"roberta-base\" }", roberta),
        ("{ \"name\": \"gpt2\" }", gpt2),
        (
            "{ \"kind\": \"file\", \"path\": \"gpt2\" }",
            "write \"tokenizer\": { \"kind\": \"published\", \"name\": \"gpt2\" }",
        ),
    ] {
        fs::write(&path, manifest.replace(own, tokenizer)).unwrap();
        let (code, _, talk) = printed(&mut project.mdlm("plan", &[]));
        assert_eq!(code, Some(2), "{tokenizer}");
        assert!(
            words(&talk.replace(" | ", " ")).contains(&words(part)),
            "{tokenizer}: {talk}"
        );
    }
    let input = "\"kind\": \"source\",";
    fs::write(
        &path,
        manifest.replace(input, &format!("{input} \"detokenize\": \"published\",")),
    )
    .unwrap();
    let (_, _, talk) = printed(&mut project.mdlm("plan", &[]));
    let part = "hint: write { \"rules\": \"ptb\", \"as\": \"published\" }";
    assert!(words(&talk.replace(" | ", " ")).contains(part), "{talk}");
}

/// Python's words are no numbers: the hint for a field that takes one says which.
#[test]
fn hint_for_a_boolean_in_place_of_a_number() {
    let project = Project::whole(5);
    let path = project.path().join("pipelines/tiny.json");
    let manifest = fs::read_to_string(&path).unwrap();
    for (from, to, part) in [
        ("\"steps\":30", "\"steps\":True", "hint: write a number"),
        ("\"steps\":30", "\"steps\":true", "hint: write a number"),
        ("\"steps\":30", "\"steps\":None", "hint: write a number"),
        (
            "\"steps\":30",
            "\"steps\":null",
            "hint: write a value: the field has no default",
        ),
        ("\"warmup_steps\":3", "\"warmup_steps\":False", "hint: write 0"),
        (
            "\"warmup_steps\":3",
            "\"warmup_steps\":\"False\"",
            "hint: write 0",
        ),
        (
            "\"warmup_steps\":3",
            "\"warmup_steps\":None",
            "hint: leave the field out to use its default",
        ),
    ] {
        assert!(manifest.contains(from), "{from} in {manifest}");
        fs::write(&path, manifest.replacen(from, to, 1)).unwrap();
        let (code, _, talk) = printed(&mut project.mdlm("validate", &[]));
        assert_eq!(code, Some(2), "{to}");
        assert!(words(&talk.replace(" | ", " ")).contains(part), "{to}: {talk}");
    }
    fs::write(&path, manifest).unwrap();
    let (_, _, talk) = printed(&mut project.mdlm("plan", &["--set", "stages.model.warmup_steps=False"]));
    assert!(talk.contains("hint: write 0\n"), "{talk}");
}

/// A command without its stage lists the stages; `~` in a manifest's path is not expanded.
#[test]
fn hint_for_a_missing_stage_lists_the_stages() {
    let project = Project::whole(5);
    for command in ["show", "path", "data", "explain"] {
        let (code, _, talk) = printed(&mut project.mdlm(command, &[]));
        assert_eq!(code, Some(2), "{talk}");
        assert!(
            words(&talk).contains(&format!(
                "error: no stage is named hint: the stages of `pipelines/tiny.json` are `text`, `tokens`, `rows`, \
                 `model`, \
                 `bound`, `texts`: `mdlm {command} pipelines/tiny.json texts`"
            )),
            "{talk}"
        );
    }
    let (code, _, talk) = printed(mdlm().args(["run", "~/x.json"]).env("HOME", "/home/ada"));
    assert_eq!(code, Some(2), "{talk}");
    assert!(
        words(&talk.replace(" | ", " ")).contains("write `/home/ada/x.json`"),
        "{talk}"
    );
}
