//! `mdlm logits --objective`: losses beside the papers' formulas and beside PyTorch's, gradients too.

use std::path::{Path, PathBuf};
use std::process::Output;

use mdlm::diffusion::NoisedBatch;
use mdlm::diffusion::objective::{self, Given};
use mdlm::manifest::Objective;
use mdlm::model::{self, Batch, Device};
use mdlm::precision::Precision;
use mdlm::shapes::{Backbone, SHAPES};
use mdlm::weights::tensors::Reader;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use crate::model::{golden_number, golden_weights, write_weights};
use crate::support::mdlm;

/// L and V of shape `nano`, and its last token.
const LENGTH: usize = 32;
const VOCABULARY: usize = 512;
const MASK: u32 = 511;

/// A tensor of an input: name, type, dimensions, bytes.
type Input = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn tokens(name: &'static str, tokens: &[u32]) -> Input {
    let bytes = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    (name, Dtype::U32, vec![tokens.len() / LENGTH, LENGTH], bytes)
}

fn times(t: &[f64]) -> Input {
    let bytes = t.iter().flat_map(|t| t.to_le_bytes()).collect();
    ("t", Dtype::F64, vec![t.len()], bytes)
}

/// A folder with the golden weights of both backbones of `nano`.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let case = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let nano = SHAPES.find("nano").unwrap();
        for backbone in Backbone::ALL {
            let path = case.path(&format!("{backbone}.safetensors"));
            write_weights(&path, nano, backbone, &golden_weights(backbone));
        }
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, backbone: Backbone, input: &[Input], options: &[&str]) -> Output {
        let views = input.iter().map(|(name, dtype, dims, bytes)| {
            let view = TensorView::new(*dtype, dims.clone(), bytes).unwrap();
            ((*name).to_owned(), view)
        });
        safetensors::serialize_to_file(views, None, &self.path("input.safetensors")).unwrap();
        mdlm()
            .current_dir(self.folder.path())
            .args(["logits", "--shape", "nano", "--checkpoint"])
            .arg(format!("{backbone}.safetensors"))
            .args(["--input", "input.safetensors", "--output", "output.safetensors"])
            .args(options)
            .output()
            .unwrap()
    }

    /// A tensor of the output of a run.
    fn computed(&self, backbone: Backbone, input: &[Input], options: &[&str]) -> Computed {
        let output = self.run(backbone, input, options);
        assert!(output.status.success(), "{options:?}: {output:?}");
        Computed(Reader::open(&self.path("output.safetensors")).unwrap())
    }

    /// Standard error of a run that the input is at fault for; nothing is written.
    fn refusal(&self, input: &[Input], options: &[&str]) -> String {
        let output = self.run(Backbone::Dit, input, options);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!self.path("output.safetensors").exists());
        String::from_utf8(output.stderr).unwrap()
    }
}

/// What a run has written.
struct Computed(Reader);

impl Computed {
    fn tensor(&mut self, name: &str) -> Vec<f32> {
        let dims = &self.0.info(name).unwrap().shape;
        let mut values = vec![0.0; dims.iter().product()];
        self.0.floats(name, 0, &mut values).unwrap();
        values
    }
}

/// log Σ exp z over the tokens that `takes`, in f64.
fn log_sum_exp(logits: &[f32], takes: impl Fn(usize) -> bool) -> f64 {
    let taken = || {
        (0..logits.len())
            .filter(|&v| takes(v))
            .map(|v| f64::from(logits[v]))
    };
    let largest = taken().fold(f64::MIN, f64::max);
    largest + taken().map(|z| (z - largest).exp()).sum::<f64>().ln()
}

/// Each position's logits.
fn positions(logits: &[f32]) -> impl Iterator<Item = &[f32]> {
    logits.chunks_exact(VOCABULARY)
}

/// Compares losses. 1e-5 of the loss, or of 1 where it is smaller: both sums over V run in another order, of logits in f32.
#[track_caller]
fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= 1e-5 * expected.abs().max(1.0),
            "at {i}: {found}, expected {expected}"
        );
    }
}

/// Three rows of clean tokens, the same with five of seven tokens masked, and times that are multiples of 1/8.
fn rows() -> (Vec<u32>, Vec<u32>, Vec<f64>) {
    let x0: Vec<u32> = (0..3 * LENGTH as u32).map(|i| i * 37 % MASK).collect();
    let masked = |i: usize| i * i % 7 < 3;
    let xt = (0..x0.len())
        .map(|i| if masked(i) { MASK } else { x0[i] })
        .collect();
    (x0, xt, vec![0.125, 0.5, 0.875])
}

#[test]
fn losses_follow_from_the_logits_by_the_papers_formulas() {
    let case = Case::new();
    let (x0, xt, t) = rows();
    let input = [tokens("x0", &x0), tokens("xt", &xt), times(&t)];
    let target = |i: usize, z: &[f32]| f64::from(z[x0[i] as usize]);
    let without_mask = |z: &[f32]| log_sum_exp(z, |v| v != MASK as usize);
    // The log-linear schedule.
    let epsilon = 1e-3;
    let alpha = |t: f64| 1.0 - (1.0 - epsilon) * t;
    let at = |i: usize| t[i / LENGTH];
    let masked_only = |i: usize, loss: f64| if xt[i] == MASK { loss } else { 0.0 };

    // −log p / t (arXiv 2406.07524, eq. 10).
    let mut mdlm = case.computed(Backbone::Dit, &input, &["--objective", "mdlm"]);
    let logits = mdlm.tensor("logits");
    let expected: Vec<f64> = positions(&logits)
        .enumerate()
        .map(|(i, z)| masked_only(i, (without_mask(z) - target(i, z)) / at(i)))
        .collect();
    assert_close(&mdlm.tensor("loss"), &expected);
    assert!(expected.iter().filter(|&&loss| loss > 0.0).count() > 30);
    // The logits are those of the noised tokens, as without an objective: one σ for each row there, one for all here.
    let mut plain = case.computed(Backbone::Dit, &[tokens("xt", &xt)], &[]);
    let plain: Vec<f64> = plain.tensor("logits").iter().map(|&z| f64::from(z)).collect();
    assert_close(&logits, &plain);

    // σ′ (Σ e^s − r s(x_0) + r (ln r − 1)) (arXiv 2310.16834), s = z − log (e^σ − 1) − log (V − 1).
    let mut sedd = case.computed(Backbone::Dit, &input, &["--objective", "sedd"]);
    let expected: Vec<f64> = positions(&sedd.tensor("logits"))
        .enumerate()
        .map(|(i, z)| {
            let alpha = alpha(at(i));
            let (sigma, rate) = (-alpha.ln(), (1.0 - epsilon) / alpha);
            let k = sigma.exp_m1().ln() + ((VOCABULARY - 1) as f64).ln();
            let r = 1.0 / sigma.exp_m1();
            let sum: f64 = (0..VOCABULARY - 1).map(|v| (f64::from(z[v]) - k).exp()).sum();
            let entropy = sum - r * (target(i, z) - k) + r * (r.ln() - 1.0);
            masked_only(i, rate * entropy)
        })
        .collect();
    assert_close(&sedd.tensor("loss"), &expected);

    // T · KL with the mask's probability (arXiv 2406.07524, eq. 39), and the clean row's −log p at t = 0.
    let sigma_of_clean = ("sigma", Dtype::F64, vec![3], vec![0; 24]);
    let clean = [tokens("xt", &x0), sigma_of_clean];
    let clean = case.computed(Backbone::Dit, &clean, &[]).tensor("logits");
    let objective = r#"{ "kind": "d3pm", "steps": 8 }"#;
    let mut d3pm = case.computed(Backbone::Dit, &input, &["--objective", objective]);
    let expected: Vec<f64> = positions(&d3pm.tensor("logits"))
        .zip(positions(&clean))
        .enumerate()
        .map(|(i, (z, clean))| {
            let (t, s) = (at(i), at(i) - 0.125);
            let (alpha_t, alpha_s) = (alpha(t), alpha(s));
            let whole = log_sum_exp(z, |_| true);
            let mu = (f64::from(z[MASK as usize]) - whole).exp();
            let unmask = (alpha_s - alpha_t) / (1.0 - alpha_t);
            let grown = (1.0 + alpha_t * mu / (1.0 - alpha_t)).ln();
            // At s = 0 no token is masked.
            let before = if s == 0.0 {
                0.0
            } else {
                (1.0 + alpha_s * mu / (1.0 - alpha_s)).ln()
            };
            let divergence = unmask * (grown + whole - target(i, z)) + (1.0 - unmask) * (grown - before);
            masked_only(i, 8.0 * divergence) + log_sum_exp(clean, |_| true) - target(i, clean)
        })
        .collect();
    assert_close(&d3pm.tensor("loss"), &expected);

    // −log p(x_0[l] | x_0[..l]): the first token is given.
    let mut ar = case.computed(Backbone::Transformer, &input[..1], &["--objective", "ar"]);
    let logits = ar.tensor("logits");
    let expected: Vec<f64> = (0..x0.len())
        .map(|i| {
            if i % LENGTH == 0 {
                0.0
            } else {
                let z = &logits[(i - 1) * VOCABULARY..][..VOCABULARY];
                without_mask(z) - target(i, z)
            }
        })
        .collect();
    let loss = ar.tensor("loss");
    assert_close(&loss, &expected);
    let log_probabilities = ar.tensor("log_probabilities");
    assert!(loss.iter().zip(&log_probabilities).all(|(a, b)| *a == -b));
    // What comes after a position has no part in its logits.
    let mut other = x0.clone();
    other[LENGTH - 1] = (other[LENGTH - 1] + 1) % MASK;
    let mut other = case.computed(
        Backbone::Transformer,
        &[tokens("x0", &other)],
        &["--objective", "ar"],
    );
    let (mine, theirs) = (
        &logits[..LENGTH * VOCABULARY],
        &other.tensor("logits")[..LENGTH * VOCABULARY],
    );
    let before = (LENGTH - 1) * VOCABULARY;
    assert_eq!(mine[..before], theirs[..before]);
    assert_ne!(mine[before..], theirs[before..]);
}

#[test]
fn losses_of_masked_language_modelling_are_of_the_tokens_that_differ() {
    let case = Case::new();
    let (x0, mut xt, _) = rows();
    // A token replaced by another that is not the mask.
    let replaced = (0..xt.len()).find(|&i| xt[i] != MASK).unwrap();
    xt[replaced] = (xt[replaced] + 1) % MASK;
    let input = [tokens("x0", &x0), tokens("xt", &xt)];
    let mut mlm = case.computed(Backbone::Dit, &input, &["--objective", "mlm"]);
    let expected: Vec<f64> = positions(&mlm.tensor("logits"))
        .enumerate()
        .map(|(i, z)| {
            let nll = log_sum_exp(z, |v| v != MASK as usize) - f64::from(z[x0[i] as usize]);
            if xt[i] == x0[i] { 0.0 } else { nll }
        })
        .collect();
    assert_close(&mlm.tensor("loss"), &expected);
    assert!(expected[replaced] > 0.0);
}

#[test]
fn losses_do_not_depend_on_how_many_rows_are_computed_at_a_time() {
    let case = Case::new();
    let (x0, xt, t) = rows();
    // 64 MiB of logits are 1024 rows, and 1024 is not a multiple of 3.
    let count = 1030;
    let repeated = |row: &[u32]| {
        row.iter()
            .copied()
            .cycle()
            .take(count * LENGTH)
            .collect::<Vec<_>>()
    };
    let t: Vec<f64> = t.iter().copied().cycle().take(count).collect();
    let input = [
        tokens("x0", &repeated(&x0)),
        tokens("xt", &repeated(&xt)),
        times(&t),
    ];
    let objective = r#"{ "kind": "d3pm", "steps": 8, "time_conditioning": false }"#;
    let of_many = case
        .computed(Backbone::Dit, &input, &["--objective", objective])
        .tensor("loss");
    assert_eq!(of_many.len(), count * LENGTH);
    for (i, loss) in of_many.iter().enumerate() {
        let first = of_many[i % (3 * LENGTH)];
        // f32 sums that may run in another order.
        assert!(
            (loss - first).abs() <= 1e-5 * first.max(1.0),
            "at {i}: {loss}, first {first}"
        );
    }
    let mut none = case.computed(
        Backbone::Transformer,
        &[("x0", Dtype::U8, vec![0, LENGTH], Vec::new())],
        &["--objective", "ar"],
    );
    assert!(none.tensor("log_probabilities").is_empty());
}

#[test]
fn losses_input_faults_are_shown_with_their_place() {
    let case = Case::new();
    let (x0, xt, t) = rows();
    let (x0, xt, t) = (&x0[..2 * LENGTH], &xt[..2 * LENGTH], &t[..2]);
    let mut refusals = Vec::new();
    let mut refuse = |input: &[Input], options: &[&str]| refusals.push(case.refusal(input, options));
    let changed = |of: &[u32], at: usize, token| {
        let mut changed = of.to_vec();
        changed[at] = token;
        changed
    };
    let mdlm = ["--objective", "mdlm"];
    refuse(&[tokens("xt", xt), times(t)], &mdlm);
    refuse(&[tokens("x0", x0), times(t)], &mdlm);
    refuse(&[tokens("x0", x0), tokens("xt", xt)], &mdlm);
    refuse(&[tokens("x0", x0), tokens("xt", &xt[..LENGTH]), times(t)], &mdlm);
    refuse(&[tokens("x0", x0), tokens("xt", xt), times(&[0.5; 3])], &mdlm);
    refuse(
        &[
            tokens("x0", x0),
            tokens("xt", xt),
            ("t", Dtype::F32, vec![2, 1], vec![0; 8]),
        ],
        &mdlm,
    );
    let good = [tokens("x0", x0), tokens("xt", xt), times(t)];
    let sigma = ("sigma", Dtype::F32, vec![2], vec![0; 8]);
    refuse(&[&good[..], &[sigma]].concat(), &mdlm);
    for t in [0.0, 1.5, f64::NAN] {
        refuse(&[tokens("x0", x0), tokens("xt", xt), times(&[0.5, t])], &mdlm);
    }
    refuse(
        &[tokens("x0", x0), tokens("xt", xt), times(&[0.5, 0.3])],
        &["--objective", r#"{ "kind": "mdlm", "steps": 8 }"#],
    );
    refuse(
        &[tokens("x0", &changed(x0, 35, MASK)), tokens("xt", xt), times(t)],
        &mdlm,
    );
    refuse(
        &[tokens("x0", x0), tokens("xt", &changed(xt, 35, 3)), times(t)],
        &mdlm,
    );
    refuse(&good, &["--objective", "mdlm", "--vocabulary", "100"]);
    refuse(&good, &["--objective", "mdlm", "--vocabulary", "513"]);
    refuse(&good, &["--objective", "mdlm", "--mask", "512"]);
    insta::assert_snapshot!(refusals.join("\n"), @r"
    error: failed to compute logits: read `input.safetensors`: there is no tensor `x0`
    hint: `x0` holds the clean tokens, [rows, L], as integers; the file has `t`, `xt`

    error: failed to compute logits: read `input.safetensors`: there is no tensor `xt`
    hint: `xt` holds the noised tokens, [rows, L], as integers; the file has `t`, `x0`

    error: failed to compute logits: read `input.safetensors`: there is no tensor `t`
    hint: `t` holds the times, [rows], as floating-point numbers above 0 and at most 1; the file has `x0`, `xt`

    error: failed to compute logits: read `input.safetensors`: `xt` is [1, 32], expected [2, 32]: `x0` has 2 rows

    error: failed to compute logits: read `input.safetensors`: `t` is [3], expected [2]: `x0` has 2 rows

    error: failed to compute logits: read `input.safetensors`: `t` is [2, 1], expected [2], one per row

    error: failed to compute logits: read `input.safetensors`: there is a tensor `sigma`, but an objective is given
    hint: with `--objective`, the network's input follows from `t`: remove `sigma`

    error: failed to compute logits: read `input.safetensors`: `t`[1] is 0, expected a time above 0 and at most 1

    error: failed to compute logits: read `input.safetensors`: `t`[1] is 1.5, expected a time above 0 and at most 1

    error: failed to compute logits: read `input.safetensors`: `t`[1] is NaN, expected a time above 0 and at most 1

    error: failed to compute logits: read `input.safetensors`: `t`[1]: time 0.3 is not a multiple of 1/8
    hint: the objective has 8 steps, at 1/8, 2/8, …, 1

    error: failed to compute logits: read `input.safetensors`: `x0`[1, 3] is 511, the mask, which clean text does not have
    hint: if that token is not the mask, give the mask's id with `--mask`

    error: failed to compute logits: read `input.safetensors`: `xt`[1, 3] is 3, expected 273, which is `x0`[1, 3], or 511, the mask
    hint: noise masks a token or keeps it; give another mask's id with `--mask`

    error: failed to compute logits: read `input.safetensors`: `x0`[0, 3] is 111: a vocabulary of 100 has tokens 0 to 99

    error: failed to compute logits: `--vocabulary` is 513: shape `nano` takes 2 to 512 tokens
    hint: give the number of the tokenizer's tokens, the mask included

    error: failed to compute logits: `--mask` is 512: the vocabulary has tokens 0 to 511
    ");

    for (options, part) in [
        (
            &["--objective", "noise"][..],
            "read the objective `noise`: `kind`: unknown kind `noise`, expected one of `mdlm`, `ar`, `sedd`, `d3pm` or `mlm`\n",
        ),
        (
            &["--objective", "{ \"kind\": "],
            "read the objective `{ \"kind\": `: the text ends unexpectedly, expected a value\n",
        ),
        // As in a manifest.
        (
            &["--objective", r#"{ "kind": "mdlm", "steps": 0 }"#],
            "`steps`: 0 is too small, expected an integer from 1 to 1,000,000\n",
        ),
        (
            &["--objective", r#"{ "kind": "sedd", "time_conditioning": false }"#],
            "`time_conditioning`: ",
        ),
        (
            &["--objective", r#"{ "kind": "mdlm", "zero_masking": false }"#],
            "exists in discrete time only",
        ),
        (&["--mask", "3"], "--objective <OBJECTIVE>"),
        (&["--vocabulary", "300"], "--objective <OBJECTIVE>"),
        (&["--objective", "ar"], "the file holds a DiT"),
    ] {
        let text = case.refusal(&good, options);
        assert!(text.contains(part), "{options:?}: {text}");
    }
}

/// A batch of the golden file.
#[derive(Deserialize)]
struct GoldenCase {
    name: String,
    objective: Objective,
    vocabulary: u32,
    mask: u32,
}

/// PyTorch's losses and gradients, in f64, of the same batches with the same weights: written by
/// `python tests/peers/torch_objectives.py golden tests/it/golden/objectives.safetensors` (torch 2.15.0).
struct Golden {
    reader: Reader,
    cases: Vec<GoldenCase>,
}

impl Golden {
    fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/objectives.safetensors");
        let reader = Reader::open(&path).unwrap();
        let cases = serde_json::from_str(reader.metadata("cases").unwrap()).unwrap();
        Self { reader, cases }
    }

    fn dims(&self, number: usize, name: &str) -> Vec<usize> {
        self.reader
            .info(&format!("{number}/{name}"))
            .unwrap()
            .shape
            .clone()
    }

    fn tokens(&mut self, number: usize, name: &str) -> Vec<u32> {
        let mut values = vec![0; self.dims(number, name).iter().product()];
        let name = format!("{number}/{name}");
        self.reader.integers(&name, 0, &mut values).unwrap();
        values
            .into_iter()
            .map(|token| u32::try_from(token).unwrap())
            .collect()
    }

    fn doubles(&mut self, number: usize, name: &str) -> Vec<f64> {
        let mut values = vec![0.0; self.dims(number, name).iter().product()];
        let name = format!("{number}/{name}");
        self.reader.doubles(&name, 0, &mut values).unwrap();
        values
    }
}

#[test]
fn losses_of_each_objective_match_those_of_pytorch() {
    let case = Case::new();
    let mut golden = Golden::open();
    for number in 0..golden.cases.len() {
        let mut input = vec![
            tokens("x0", &golden.tokens(number, "x0")),
            tokens("xt", &golden.tokens(number, "xt")),
        ];
        let expected = golden.doubles(number, "loss");
        input.push(times(&golden.doubles(number, "t")));
        let own = &golden.cases[number];
        let objective = serde_json::to_string(&own.objective).unwrap();
        let (vocabulary, mask) = (own.vocabulary.to_string(), own.mask.to_string());
        let options = [
            "--objective",
            &objective,
            "--vocabulary",
            &vocabulary,
            "--mask",
            &mask,
        ];
        let mut found = case.computed(own.objective.backbone(), &input, &options);
        println!("{}", own.name);
        assert_close(&found.tensor("loss"), &expected);
    }
}

/// For each parameter the golden file has the norm of its gradient, the product with [`golden_number`]s, and entries.
#[test]
fn gradients_of_each_objective_match_those_of_pytorch() {
    let nano = SHAPES.find("nano").unwrap();
    let mut golden = Golden::open();
    let mut kinds = Vec::new();
    for number in 0..golden.cases.len() {
        let (x0, xt) = (golden.tokens(number, "x0"), golden.tokens(number, "xt"));
        let (t, loss) = (golden.doubles(number, "t"), golden.doubles(number, "loss"));
        let (dims, expected) = (
            golden.dims(number, "gradients"),
            golden.doubles(number, "gradients"),
        );
        let own = &golden.cases[number];
        let objective = objective::build(&own.objective, own.mask, own.vocabulary, 0);
        let backbone = own.objective.backbone();
        let weights = golden_weights(backbone);
        let mut learner =
            model::build_learner(nano, backbone, Device::Cpu, Precision::F32, &weights).unwrap();
        // Of the mean loss, a row at a time.
        for pass in 0..objective.passes() {
            let rows = x0.chunks_exact(LENGTH).zip(xt.chunks_exact(LENGTH));
            for ((x0, xt), &t) in rows.zip(&t) {
                let mut noised = NoisedBatch::default();
                objective.given(&Given { t, x0, xt }, pass, &mut noised).unwrap();
                for weight in &mut noised.weights {
                    *weight /= loss.len() as f32;
                }
                let batch = Batch {
                    tokens: &noised.tokens,
                    sigma: &noised.sigma,
                    positions: &noised.positions,
                    targets: &noised.targets,
                    weights: &noised.weights,
                    loss: objective.loss(),
                    constants: &noised.constants,
                    pattern: objective.pattern(),
                    dropout: None,
                };
                learner.accumulate(&batch, objective.support()).unwrap();
            }
        }
        let (mut gradient, mut mean) = (Vec::new(), 0.0);
        let mut read = |found: &mut [f32], loss: &mut f64| {
            (gradient, mean) = (found.to_vec(), *loss);
            Ok(())
        };
        learner.reduce(&mut read).unwrap();
        let expected_mean = loss.iter().sum::<f64>() / loss.len() as f64;
        assert!(
            (mean - expected_mean).abs() < 1e-5 * expected_mean,
            "{}: mean loss {mean}, expected {expected_mean}",
            own.name
        );
        let parameters = model::parameters(nano, backbone);
        assert_eq!(dims[0], parameters.len(), "{}", own.name);
        for (parameter, expected) in parameters.iter().zip(expected.chunks_exact(dims[1])) {
            let own_gradient: Vec<f64> = gradient[parameter.range()]
                .iter()
                .map(|&g| f64::from(g))
                .collect();
            let norm = own_gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            let places = parameter.range().map(golden_number);
            let product = own_gradient.iter().zip(places).map(|(g, u)| g * u).sum();
            let kept = expected.len() - 2;
            let entries = (0..kept).map(|k| own_gradient[k * own_gradient.len() / kept]);
            for (which, (found, &expected_number)) in [norm, product]
                .into_iter()
                .chain(entries)
                .zip(expected)
                .enumerate()
            {
                let difference = (found - expected_number).abs() / expected[0];
                // Of the norm. PyTorch's f32 differs from its f64 by up to 2e-6, and by 5e-5 where T = 1000 multiplies
                // the difference of two numbers that are almost the same; ours takes that difference before it rounds.
                assert!(
                    difference < 2e-5,
                    "{}: `{}`, number {which}: {found}, expected {expected_number}",
                    own.name,
                    parameter.name
                );
            }
        }
        kinds.push(own.objective.kind());
    }
    kinds.dedup();
    assert_eq!(kinds, ["mdlm", "sedd", "d3pm", "ar", "mlm"]);
}
