//! `mdlm objectives`: the objectives that a train stage may have, what fits them and what they cost.
//!
//! What fits comes from [`mdlm::manifest::fit`], which validation reads too; costs are counted from the network and from
//! rows that the objectives noise themselves ([`mdlm::train::cost`]).

use clap::builder::PossibleValuesParser;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::render::listing::entry;
use crate::cli::render::table::paragraph;
use crate::cli::render::terminal::Terminal;
use mdlm::diffusion::{Method, Passes, objective};
use mdlm::error::{Error, Result};
use mdlm::manifest::{self, DEFAULT_SAMPLE_STEPS, Estimator, Objective, did_you_mean};
use mdlm::shapes::{SHAPES, Shape};
use mdlm::train::cost::flops_per_token;

/// What `mdlm objectives --help` says.
pub const LONG_ABOUT: &str = "List the objectives, what fits them and what they cost.\n\n\
    A train stage with `\"objective\": { \"kind\": \"ar\" }` trains an autoregressive model. For each kind: the paper and \
    its equation, the network, the estimators of evaluate stages and the samplers of sample stages that fit (the first \
    is the default), the floating-point operations of training for each token of a row beside MDLM's, and the network \
    calls of evaluation and sampling. Then the settings that change any of these. With KIND, one objective in full, with \
    its defaults.";

/// Arguments of `mdlm objectives`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm objectives d3pm --shape tiny")]
pub struct Args {
    /// One objective, in full
    #[arg(value_name = "KIND")]
    pub kind: Option<String>,
    /// The compiled shape whose costs are shown (see `mdlm shapes`)
    #[arg(
        long,
        value_name = "NAME",
        default_value = "lm1b-small",
        value_parser = PossibleValuesParser::new(SHAPES.iter().map(|shape| shape.name)),
        hide_possible_values = true
    )]
    pub shape: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The end of the list.
const ABSENT: &str = "Every objective but `ar` masks tokens. Absent on purpose: uniform noise, transition matrices Q_t in \
    general, noise in continuous space (Diffusion-LM), and graphs.";

/// Prints the objectives to standard output.
///
/// # Errors
/// There is no such objective; standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let kinds = Objective::every_kind();
    let chosen = args.kind.as_deref().map(find).transpose()?;
    let shape = SHAPES
        .find(&args.shape)
        .ok_or_else(|| Error::internal(format!("shape `{}` is not compiled", args.shape)))?;
    let mdlm = flops_per_token(shape, &Objective::default());
    let described = |objective: &Objective| ObjectiveDescription::of(objective, shape, mdlm);
    if args.json {
        match chosen {
            Some(objective) => terminal.output_json(&described(&objective))?,
            None => terminal.output_json(&kinds.iter().map(described).collect::<Vec<_>>())?,
        }
        return Ok(0);
    }
    let text = match chosen {
        Some(objective) => in_full(&described(&objective)),
        None => list(&kinds.map(|kind| described(&kind))),
    };
    terminal.output(&text)?;
    Ok(0)
}

/// The objective of a kind, with its defaults.
fn find(kind: &str) -> Result<Objective> {
    let kinds = Objective::every_kind();
    if let Some(found) = kinds.iter().find(|objective| objective.kind() == kind) {
        return Ok(*found);
    }
    let names = kinds.map(|objective| objective.kind());
    let meant = manifest::kinds_meant("objective", kind)
        .map(<[_]>::to_vec)
        .or_else(|| did_you_mean(kind, names).map(|name| vec![name]));
    let quoted = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(" or ")
    };
    Err(
        Error::input(format!("no objective is called `{kind}`")).hint(match meant {
            Some(names) => format!("did you mean {}?", quoted(&names)),
            None => format!("there are {}", names.join(", ")),
        }),
    )
}

/// What is known of a kind beside its settings.
struct About {
    /// What it is.
    title: &'static str,
    /// Number at arXiv.
    arxiv: &'static str,
    /// Where it stands in the paper, or in another one.
    place: &'static str,
    /// The loss of a row; sums are over masked positions where nothing else is said.
    equation: &'static str,
}

fn about(objective: &Objective) -> About {
    match objective {
        Objective::Mdlm(_) => About {
            title: "masked diffusion with the SUBS parameterization, in continuous time or in T steps",
            arxiv: "2406.07524",
            place: "eq. 10, in T steps eq. 43",
            equation: "−α′_t / (1 − α_t) · Σ −log p(x_0 | x_t), t uniform",
        },
        Objective::Ar(_) => About {
            title: "autoregression: each token is predicted from those before it",
            arxiv: "2406.07524",
            place: "the baseline AR",
            equation: "Σ −log p(x_l | x_1 … x_(l−1)) over all tokens but the first",
        },
        Objective::Sedd(_) => About {
            title: "score entropy of absorbing noise",
            arxiv: "2310.16834",
            place: "diffusion-weighted denoising score entropy",
            equation: "σ′_t · Σ (Σ_y exp s_y − r s(x_0) + r (log r − 1)), scores s, r = 1 / (exp σ_t − 1), t uniform",
        },
        Objective::D3pm(_) => About {
            title: "absorbing discrete diffusion in T steps, in which the network may predict the mask",
            arxiv: "2107.03006",
            place: "as in arXiv 2406.07524, eq. 39",
            equation: "T · Σ KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)), and −log p(x_0) of the clean row at all positions",
        },
        Objective::Mlm(_) => About {
            title: "masked language modelling at one rate, as in BERT-Mouth (arXiv 1902.04094)",
            arxiv: "1810.04805",
            place: "section 3.1",
            equation: "Σ −log p(x_0 | x with 15% of its tokens replaced) / 15%, over the replaced",
        },
    }
}

/// An objective as JSON.
#[derive(Serialize)]
struct ObjectiveDescription {
    kind: &'static str,
    title: &'static str,
    arxiv: &'static str,
    place: &'static str,
    equation: &'static str,
    network: String,
    #[serde(flatten)]
    facts: Facts,
    defaults: Value,
    /// What settings change.
    variants: Vec<Variant>,
}

#[derive(Serialize)]
struct Variant {
    settings: &'static str,
    #[serde(flatten)]
    facts: Facts,
}

/// What fits an objective, and what it costs.
#[derive(Serialize)]
struct Facts {
    /// The first is the default.
    estimators: Vec<Evaluation>,
    /// The first is the default.
    samplers: Vec<Sampling>,
    shape: &'static str,
    /// Of training, for each token of a row.
    flops_per_token: f64,
    /// Its ratio to that of the default objective.
    relative_to_mdlm: f64,
}

#[derive(Serialize)]
struct Evaluation {
    estimator: &'static str,
    /// Of a row, however many draws there are.
    network_calls: u32,
    /// Of a row, for each draw.
    network_calls_a_draw: u32,
}

#[derive(Serialize)]
struct Sampling {
    sampler: &'static str,
    /// Of a row, at most, with the default number of steps.
    network_calls: u32,
}

impl Facts {
    fn of(settings: &Objective, shape: &'static Shape, mdlm: f64) -> Self {
        let vocabulary = shape.vocabulary as u32;
        let built = objective::build(settings, vocabulary - 1, vocabulary, 0);
        let evaluation = |estimator: Estimator| {
            let Passes { drawn, fixed } = built.passes_of_bound(Method::of(estimator), &(0..shape.length));
            Evaluation {
                estimator: estimator.name(),
                network_calls: fixed,
                network_calls_a_draw: drawn,
            }
        };
        let samplers = settings.samplers();
        let sampling = |sampler: &manifest::Sampler| Sampling {
            sampler: sampler.kind(),
            network_calls: settings.network_calls(sampler, DEFAULT_SAMPLE_STEPS, shape.length as u32),
        };
        let flops_per_token = flops_per_token(shape, settings);
        Self {
            estimators: settings.estimators().into_iter().map(evaluation).collect(),
            samplers: samplers.iter().map(sampling).collect(),
            shape: shape.name,
            flops_per_token,
            relative_to_mdlm: flops_per_token / mdlm,
        }
    }

    fn evaluation(&self) -> String {
        let each = self.estimators.iter().map(|one| {
            let calls = match (one.network_calls, one.network_calls_a_draw) {
                (fixed, 0) => fixed.to_string(),
                (0, drawn) => format!("{drawn} a draw"),
                (fixed, drawn) => format!("{drawn} a draw and {fixed} more"),
            };
            format!("{} {calls}", one.estimator)
        });
        each.collect::<Vec<_>>().join(", ")
    }

    fn sampling(&self) -> String {
        let each = self
            .samplers
            .iter()
            .map(|one| format!("{} {}", one.sampler, one.network_calls));
        each.collect::<Vec<_>>().join(", ")
    }
}

impl ObjectiveDescription {
    fn of(objective: &Objective, shape: &'static Shape, mdlm: f64) -> Self {
        let About {
            title,
            arxiv,
            place,
            equation,
        } = about(objective);
        let variants = objective
            .variants()
            .into_iter()
            .map(|(settings, variant)| Variant {
                settings,
                facts: Facts::of(&variant, shape, mdlm),
            });
        Self {
            kind: objective.kind(),
            title,
            arxiv,
            place,
            equation,
            network: objective.backbone().to_string(),
            facts: Facts::of(objective, shape, mdlm),
            defaults: defaults(objective),
            variants: variants.collect(),
        }
    }
}

/// An objective with all its settings, those too that a manifest leaves out at their defaults.
fn defaults(objective: &Objective) -> Value {
    // An objective has a JSON form: a manifest is made of it.
    let mut settings = json!(objective);
    if let Objective::Mdlm(objective) = objective {
        settings["zero_masking"] = json!(objective.zero_masking);
        settings["carry_over"] = json!(objective.carry_over);
        settings["weighting"] = json!(objective.weighting);
        settings["times"] = json!(objective.times);
    }
    settings
}

/// Operations with their unit: `612.3 MFLOP`, `1.84 GFLOP`.
fn operations(number: f64) -> String {
    if number < 1e9 {
        format!("{:.1} MFLOP", number / 1e6)
    } else {
        format!("{:.2} GFLOP", number / 1e9)
    }
}

fn facts(described: &ObjectiveDescription) -> String {
    let facts = &described.facts;
    let names = |names: Vec<&str>| names.join(", ");
    let estimators = facts.estimators.iter().map(|one| one.estimator).collect();
    let samplers = facts.samplers.iter().map(|one| one.sampler).collect();
    let cost = format!(
        "{} a token, {:.2} of MDLM's",
        operations(facts.flops_per_token),
        facts.relative_to_mdlm
    );
    let paper = format!("arXiv {}, {}", described.arxiv, described.place);
    let lines = [
        ("what", described.title.to_owned()),
        ("paper", paper),
        ("loss", described.equation.to_owned()),
        ("network", described.network.clone()),
        ("estimators", names(estimators)),
        ("samplers", names(samplers)),
        ("training", cost),
        (
            "evaluation",
            format!("network calls a row: {}", facts.evaluation()),
        ),
        (
            "sampling",
            format!("network calls a row at most: {}", facts.sampling()),
        ),
    ];
    lines.iter().map(|(label, text)| entry(label, text)).collect()
}

/// What the settings of a variant change.
fn variant(described: &ObjectiveDescription, variant: &Variant) -> String {
    let (before, after) = (&described.facts, &variant.facts);
    let mut changes = Vec::new();
    if before.evaluation() != after.evaluation() {
        changes.push(format!("evaluation {}", after.evaluation()));
    }
    if before.sampling() != after.sampling() {
        changes.push(format!("sampling {}", after.sampling()));
    }
    changes.push(format!("training {:.2}", after.relative_to_mdlm));
    entry("with", &format!("`{}`: {}", variant.settings, changes.join("; ")))
}

fn in_short(described: &ObjectiveDescription) -> String {
    let variants = described.variants.iter();
    let variants: String = variants.map(|one| variant(described, one)).collect();
    format!("{}\n{}{variants}", described.kind, facts(described))
}

fn list(all: &[ObjectiveDescription]) -> String {
    let mut out = String::new();
    for described in all {
        out = format!("{out}{}\n", in_short(described));
    }
    out + &epilogue(all.first().map_or("", |described| described.facts.shape))
}

/// What the numbers are, and what is absent.
fn epilogue(shape: &str) -> String {
    let numbers = format!(
        "Costs are of shape `{shape}`, with {DEFAULT_SAMPLE_STEPS} steps of sampling: `--shape NAME` shows another. Training \
         counts the matrix products of the forward and the backward pass in all passes of a row; MDLM computes its last block \
         and its output layer for masked tokens alone. `mdlm objectives KIND` shows one objective with its defaults."
    );
    format!("{}\n{}\n", paragraph(&numbers), paragraph(ABSENT))
}

fn in_full(described: &ObjectiveDescription) -> String {
    let pretty = serde_json::to_string_pretty(&described.defaults).unwrap_or_default();
    let indented: String = pretty.lines().flat_map(|line| ["  ", line, "\n"]).collect();
    let indented = indented.trim_start();
    format!(
        "{}\nIn a manifest, with its defaults\n  \"objective\": {indented}\n{}",
        in_short(described),
        epilogue(described.facts.shape)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdlm::manifest::Manifest;

    fn described() -> Vec<ObjectiveDescription> {
        let nano = SHAPES.find("nano").unwrap();
        let mdlm = flops_per_token(nano, &Objective::default());
        let kinds = Objective::every_kind();
        kinds
            .iter()
            .map(|kind| ObjectiveDescription::of(kind, nano, mdlm))
            .collect()
    }

    #[test]
    fn texts_fit_80_columns_and_end_with_what_is_absent() {
        let all = described();
        let texts = all.iter().map(in_full).chain([list(&all)]);
        for text in texts {
            for line in text.lines() {
                assert!(line.chars().count() <= crate::cli::render::table::WIDTH, "{line}");
            }
            let end = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(end.ends_with(ABSENT), "{text}");
        }
    }

    /// Calls of the samplers of masked models whose network takes no time.
    const MASKED: &str = "cached 32, ancestral 128, first_hitting 32, analytic 32, euler 32, random 32, confidence 32, \
                          margin 32, entropy 32, left_to_right 32, threshold 32, remasking 128";

    #[test]
    fn network_calls_are_those_of_a_row_of_nano() {
        let found: Vec<_> = described()
            .iter()
            .map(|one| {
                format!(
                    "{}: {}; {}",
                    one.kind,
                    one.facts.evaluation(),
                    one.facts.sampling()
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                &format!("mdlm: time 1 a draw, count 1 a draw, pseudo 32; {MASKED}, semi_autoregressive 32"),
                "ar: exact 1; autoregressive 31",
                "sedd: time 1 a draw; ancestral 128, analytic 128, euler 128, remasking 128, semi_autoregressive 128",
                // The call that is made once is the clean row's; a step at the end draws what is still masked.
                "d3pm: time 1 a draw and 1 more; ancestral 129, semi_autoregressive 129",
                // 128 sweeps over 32 tokens.
                &format!("mlm: pseudo 32, count 1 a draw; {MASKED}, gibbs 4096, semi_autoregressive 32"),
            ]
        );
    }

    #[test]
    fn snippet_to_paste_is_the_default_objective() {
        for one in described() {
            let text = in_full(&one);
            let pasted = text.split("with its defaults\n").nth(1).unwrap();
            let pasted = pasted.split("\n\n").next().unwrap();
            let manifest = format!(
                "{{ \"name\": \"x\", \"seed\": 1, \"stages\": {{
                    \"text\": {{ \"kind\": \"source\", \"input\": {{ \"kind\": \"files\", \"files\": [\"a\"] }} }},
                    \"tokens\": {{ \"kind\": \"tokenize\", \"from\": \"text\", \"tokenizer\": {{ \"kind\": \"characters\" }} }},
                    \"rows\": {{ \"kind\": \"pack\", \"from\": \"tokens\", \"length\": 32 }},
                    \"model\": {{ \"kind\": \"train\", \"from\": \"rows\", \"shape\": \"nano\", \"steps\": 9000, {pasted} }} }} }}"
            );
            let loaded = Manifest::from_bytes("x", manifest.clone().into_bytes(), &[], SHAPES);
            let loaded = loaded.unwrap_or_else(|faults| panic!("{faults}\n{manifest}"));
            let manifest::Stage::Train(stage) = &loaded.manifest.stages["model"] else {
                panic!("{manifest}");
            };
            assert_eq!(stage.objective, Objective::from_argument(one.kind).unwrap());
        }
    }

    #[test]
    fn unknown_kind_has_the_nearest_as_hint() {
        for (name, hint) in [
            ("autoregressive", "did you mean `ar`?"),
            ("bert", "did you mean `mlm`?"),
            ("d3mp", "did you mean `d3pm`?"),
            ("absorb", "did you mean `mdlm` or `sedd` or `d3pm`?"),
            ("flow", "there are mdlm, ar, sedd, d3pm, mlm"),
        ] {
            let error = find(name).unwrap_err();
            assert_eq!(error.hint_text(), Some(hint), "{name}");
        }
    }
}
