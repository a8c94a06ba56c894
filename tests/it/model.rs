//! The network from outside: `mdlm shapes`, `mdlm objectives` and `mdlm logits`.

use std::path::{Path, PathBuf};
use std::process::Output;

use mdlm::shapes::{Backbone, SHAPES, Shape};
use mdlm::weights::{self, tensors::Reader};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::support::{mdlm, transcript};

#[test]
fn shapes_are_listed() {
    insta::assert_snapshot!(transcript(mdlm().arg("shapes")), @r"
    exit 0
    --- stdout
    shape             V     L     D   H   N    C  parameters   training     + a row
    nano            512    32    64   2   2   32     204.2 k    3.9 MiB   284.0 KiB
    quickstart     2560    32   128   4   3   64       1.4 M   27.4 MiB   856.0 KiB
    tiny           1024   128   128   4   4  128       1.5 M   29.2 MiB     4.5 MiB
    mini           8192   128   256   8   6  128      10.2 M  195.2 MiB    13.4 MiB
    text8-mini       35   256   256   8   6  128       6.1 M  115.4 MiB    26.9 MiB
    text8-small      35   256   768  12  12  128      92.4 M    1.7 GiB   161.6 MiB
    lm1b-small    30522   128   768  12  12  128     139.3 M    2.6 GiB    80.8 MiB
    owt-small     50258  1024   768  12  12  128     169.6 M    3.2 GiB   646.5 MiB
    owt-medium    50258  1024  1024  16  24  128     424.5 M    7.9 GiB     1.7 GiB
    --- stderr
    ");
    let output = mdlm().args(["shapes", "--json"]).output().unwrap();
    let shapes: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shapes[0]["name"], "nano");
    assert_eq!(shapes[0]["parameters"], 204_160);
    assert_eq!(shapes.as_array().unwrap().len(), mdlm::shapes::SHAPES.len());
}

#[test]
fn objectives_are_listed_with_estimators_samplers_and_cost() {
    let output = mdlm()
        .args(["objectives", "--shape", "nano", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let objectives: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let objectives = objectives.as_array().unwrap();
    let kinds: Vec<_> = objectives
        .iter()
        .map(|one| one["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["mdlm", "ar", "sedd", "d3pm", "mlm"]);
    let ratio = |index: usize| objectives[index]["relative_to_mdlm"].as_f64().unwrap();
    assert_eq!(ratio(0).to_bits(), 1.0_f64.to_bits());
    // AR answers all tokens where MDLM answers half; D3PM has a second pass, of the clean row, in which all are answered.
    assert!(
        ratio(1) > 1.2 && ratio(3) > 2.2 && ratio(4) < 1.0,
        "{objectives:?}"
    );
    assert_eq!(objectives[3]["samplers"][0]["network_calls"], 129);
    assert_eq!(objectives[1]["defaults"], serde_json::json!({ "kind": "ar" }));

    let text = mdlm().arg("objectives").output().unwrap();
    assert!(text.status.success());
    let text = String::from_utf8(text.stdout).unwrap();
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "paper arXiv 2107.03006, as in arXiv 2406.07524, eq. 39",
        "estimators time, count, pseudo samplers cached, ancestral, first_hitting",
        "1.00 of MDLM's",
        "Costs are of shape `lm1b-small`",
        "Absent on purpose: uniform noise, transition matrices Q_t in general, noise in continuous space (Diffusion-LM), and graphs.",
    ] {
        assert!(one_line.contains(part), "{part}: {text}");
    }
    let unknown = mdlm().args(["objectives", "gpt"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    let talk = String::from_utf8(unknown.stderr).unwrap();
    assert!(
        talk.contains("no objective is called `gpt`") && talk.contains("did you mean `ar`?"),
        "{talk}"
    );
}

/// Writes weights in the flat order of a shape's backbone.
pub fn write_weights(path: &Path, shape: &Shape, backbone: Backbone, weights: &[f32]) {
    let fill = &mut |_: usize, values: &mut [f32]| {
        values.copy_from_slice(weights);
        Ok(())
    };
    weights::write(path, &mdlm::model::parameters(shape, backbone), &[""], &[], fill).unwrap();
}

/// A folder with a checkpoint of shape `nano` and an input, and what `mdlm logits` makes of them.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nano = SHAPES.find("nano").unwrap();
        let weights: Vec<f32> = (0..204_160).map(|i| (i as f32 * 0.37).sin() * 0.1).collect();
        let path = folder.path().join("weights.safetensors");
        write_weights(&path, nano, Backbone::Dit, &weights);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn input(&self, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> &Self {
        let views = tensors.iter().map(|(name, dtype, dims, bytes)| {
            (
                name.to_string(),
                TensorView::new(*dtype, dims.to_vec(), bytes).unwrap(),
            )
        });
        safetensors::serialize_to_file(views, None, &self.path("input.safetensors")).unwrap();
        self
    }

    fn run(&self, shape: &str) -> Output {
        let arguments = ["--checkpoint", "weights.safetensors", "--shape", shape];
        let files = ["--input", "input.safetensors", "--output", "output.safetensors"];
        mdlm()
            .current_dir(self.folder.path())
            .arg("logits")
            .args(arguments)
            .args(files)
            .output()
            .unwrap()
    }

    /// Standard error of a run that the input is at fault for; nothing is written.
    fn refusal(&self, shape: &str) -> String {
        let output = self.run(shape);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!self.path("output.safetensors").exists());
        String::from_utf8(output.stderr).unwrap()
    }

    fn logits(&self) -> (Vec<usize>, Vec<f32>) {
        let output = self.run("nano");
        assert!(output.status.success(), "{output:?}");
        read(&self.path("output.safetensors"))
    }
}

fn read(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let mut reader = Reader::open(path).unwrap();
    let dims = reader.info("logits").unwrap().shape.clone();
    let mut logits = vec![0.0; dims.iter().product()];
    reader.floats("logits", 0, &mut logits).unwrap();
    (dims, logits)
}

fn tokens(count: usize) -> impl Iterator<Item = u16> {
    (0..count).map(|i| (i * 37 % 512) as u16)
}

/// A number on (-1, 1) that is a function of its place, as `uniform` in `tests/peers/torch_dit.py`.
pub fn golden_number(at: usize) -> f64 {
    let x = (at as f64 * 12.9898 + 78.233).sin() * 43_758.545_3;
    2.0 * (x - x.floor()) - 1.0
}

/// The golden weights: functions of their place, as `formula` in `tests/peers/torch_dit.py` states them.
pub fn golden_weights(backbone: Backbone) -> Vec<f32> {
    let mut weights = Vec::new();
    for parameter in mdlm::model::parameters(SHAPES.find("nano").unwrap(), backbone) {
        for at in parameter.range() {
            let u = golden_number(at);
            let weight = match parameter.dims[..] {
                _ if parameter.name.contains("norm") => 1.0 + 0.3 * u,
                [_] => 0.3 * u,
                _ if parameter.name == "vocab_embed.embedding" => u,
                _ => u * (3.0 / parameter.dims[1] as f64).sqrt(),
            };
            weights.push(weight as f32);
        }
    }
    weights
}

/// PyTorch's logits, in f64, of the same network with the same weights: written by
/// `python tests/peers/torch_dit.py golden tests/it/golden/nano_logits.safetensors` (torch 2.15.0).
#[test]
fn logits_match_those_of_pytorch() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/nano_logits.safetensors");
    let case = Case::new();
    let nano = SHAPES.find("nano").unwrap();
    let weights = golden_weights(Backbone::Dit);
    write_weights(&case.path("weights.safetensors"), nano, Backbone::Dit, &weights);
    std::fs::copy(&golden, case.path("input.safetensors")).unwrap();
    let ((dims, ours), (_, theirs)) = (case.logits(), read(&golden));
    assert_eq!(dims, [2, 32, 512]);
    let largest = ours
        .iter()
        .zip(&theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    // 1e-5: ours are f32 through two blocks and sums of up to 256 products, the logits of order one: 2e-6 measured.
    assert!(largest < 1e-5, "largest difference {largest}");
}

#[test]
fn logits_are_the_same_for_any_integer_type_and_for_sigma_zero() {
    let case = Case::new();
    let wide: Vec<u8> = tokens(64)
        .flat_map(|token| i64::from(token).to_le_bytes())
        .collect();
    let (dims, logits) = case.input(&[("xt", Dtype::I64, &[2, 32], wide.clone())]).logits();
    assert_eq!(dims, [2, 32, 512]);
    assert!(logits.iter().all(|logit| logit.is_finite()) && logits.iter().any(|&logit| logit != 0.0));

    let narrow = tokens(64).flat_map(u16::to_le_bytes).collect();
    let zeros = ("sigma", Dtype::F32, &[2][..], vec![0; 8]);
    let xt = ("xt", Dtype::U16, &[2, 32][..], narrow);
    assert_eq!(case.input(&[xt.clone(), zeros]).logits().1, logits);
    // Another sigma for the second row changes that row alone.
    let sigma = [0.0f64, 2.5]
        .iter()
        .flat_map(|sigma| sigma.to_le_bytes())
        .collect();
    let (_, conditioned) = case.input(&[xt, ("sigma", Dtype::F64, &[2], sigma)]).logits();
    let (first, second) = logits.split_at(32 * 512);
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(&conditioned[..32 * 512], first) && !close(&conditioned[32 * 512..], second));

    let (dims, none) = case.input(&[("xt", Dtype::U8, &[0, 32], Vec::new())]).logits();
    assert!(dims == [0, 32, 512] && none.is_empty());
}

#[test]
fn logits_input_faults_are_shown_with_their_place() {
    let case = Case::new();
    let mut refusals = Vec::new();
    let mut refuse = |tensors: &[(&str, Dtype, &[usize], Vec<u8>)], shape| {
        refusals.push(case.input(tensors).refusal(shape));
    };
    let good = ("xt", Dtype::U8, &[2, 32][..], vec![5; 64]);
    refuse(&[("x", Dtype::U8, &[2, 32], vec![5; 64])], "nano");
    refuse(&[("xt", Dtype::U8, &[64], vec![5; 64])], "nano");
    refuse(&[("xt", Dtype::U8, &[1, 256], vec![5; 256])], "nano");
    refuse(&[("xt", Dtype::F32, &[2, 32], vec![0; 256])], "nano");
    let mut tokens = vec![0; 128];
    tokens[83] = 2; // 512, the first beyond the vocabulary
    refuse(&[("xt", Dtype::U16, &[2, 32], tokens)], "nano");
    refuse(&[good.clone(), ("sigma", Dtype::F32, &[3], vec![0; 12])], "nano");
    refuse(
        &[
            good.clone(),
            ("sigma", Dtype::F32, &[2], f32::NAN.to_le_bytes().repeat(2)),
        ],
        "nano",
    );
    refuse(&[good.clone(), ("sigma", Dtype::I32, &[2], vec![0; 8])], "nano");
    refuse(&[good], "nono");
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    error: failed to compute logits: read `input.safetensors`: there is no tensor `xt`
    hint: `xt` holds the noised tokens, [rows, L], as integers; the file has `x`

    error: failed to compute logits: read `input.safetensors`: `xt` is [64], expected [rows, 32]

    error: failed to compute logits: read `input.safetensors`: `xt` is [1, 256], expected [rows, 32] for shape `nano`
    hint: rows of 256 tokens belong to: text8-mini, text8-small

    error: failed to compute logits: read `input.safetensors`: tensor `xt` holds F32, expected integers

    error: failed to compute logits: read `input.safetensors`: `xt`[1, 9] is 512: shape `nano` has tokens 0 to 511

    error: failed to compute logits: read `input.safetensors`: `sigma` is [3], expected [2], one per row

    error: failed to compute logits: read `input.safetensors`: `sigma`[0] is NaN

    error: failed to compute logits: read `input.safetensors`: tensor `sigma` holds I32, expected floating-point numbers

    error: invalid value 'nono' for '--shape <NAME>'
      [possible values: nano, quickstart, tiny, mini, text8-mini, text8-small, lm1b-small, owt-small, owt-medium]

      tip: a similar value exists: 'nano'

    For more information, try '--help'.
    "#);
    // A checkpoint of another shape.
    let text = case
        .input(&[("xt", Dtype::U8, &[1, 128], vec![5; 128])])
        .refusal("tiny");
    assert!(
        text.contains("`weights.safetensors`: its weights do not fit shape `tiny`:\n"),
        "{text}"
    );
    assert!(text.ends_with("\nhint: they fit shape `nano`\n"), "{text}");
}
