//! The whole network: against finite differences, between backends, and in parts.

use dfdx::prelude::Cpu;

use super::cpu_network::CpuNetwork;
use super::dit::{Dit, Nano};
use super::*;
use crate::kernels::adamw::Moments;
use crate::kernels::composite::{Accumulated, Composite};
use crate::kernels::{Embed as _, Fused, Gather as _, Tensors as _};
use crate::precision::Precision;
use crate::rng::{Random, Stream};
use crate::shapes::SHAPES;

mod text;

use text::Text;

type Exact = Composite<f64, Cpu>;

const ALPHABET: VocabSupport = VocabSupport::without_mask(500, 501);
const WITH_MASK: VocabSupport = VocabSupport::with_mask(500, 501);

/// The losses that have constants, each over what its softmax may range.
const LOSSES: [(Loss, VocabSupport); 3] = [
    (Loss::AbsorbingKl, ALPHABET),
    (Loss::AbsorbingKl, WITH_MASK),
    (Loss::ScoreEntropy, ALPHABET),
];

fn nano() -> &'static Shape {
    Shape::find("nano").unwrap()
}

fn weights() -> Vec<f32> {
    weights_of(nano(), Backbone::Dit)
}

/// Initial weights with the zero-initialised ones made random: at zero, most gradients vanish and prove nothing.
fn weights_of(shape: &Shape, backbone: Backbone) -> Vec<f32> {
    let mut weights = initial(shape, backbone, 3);
    for (i, weight) in weights.iter_mut().enumerate() {
        if *weight == 0.0 {
            *weight = 0.2 * (i as f32 * 78.233).sin();
        } else if weight.to_bits() == 1.0f32.to_bits() {
            *weight += 0.2 * (i as f32 * 12.9898).sin();
        }
    }
    weights
}

/// A micro-batch that owns its parts, and the network that it is for.
struct Case {
    backbone: Backbone,
    pattern: Pattern,
    tokens: Vec<u32>,
    sigma: Vec<f32>,
    positions: Vec<u32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
    loss: Loss,
    constants: Vec<Constants>,
    dropout: Option<Dropout>,
}

impl Case {
    /// `rows` rows with about half of the tokens masked; times shared or one per row.
    fn new(rows: usize, conditioned: bool, dropout: bool) -> Self {
        Self::of(nano(), ALPHABET, rows, conditioned, dropout)
    }

    /// The same of another shape.
    fn of(shape: &Shape, support: VocabSupport, rows: usize, conditioned: bool, dropout: bool) -> Self {
        let random = Random::new(11, Stream::Mask);
        let length = shape.length;
        let tokens = u64::from(support.mask);
        let mut case = Self {
            backbone: Backbone::Dit,
            pattern: Pattern::Full,
            tokens: Vec::new(),
            sigma: if conditioned {
                (0..rows).map(|row| 0.3 + row as f32).collect()
            } else {
                vec![0.0]
            },
            positions: Vec::new(),
            targets: Vec::new(),
            weights: Vec::new(),
            loss: Loss::CrossEntropy,
            constants: Vec::new(),
            dropout: dropout.then_some(Dropout {
                rate: 0.1,
                random: Random::new(5, Stream::Dropout),
                step: 2,
                first_row: 40,
            }),
        };
        for row in 0..rows {
            for at in 0..length {
                let draw = |place: usize| random.below(tokens, place as u64, row as u64, at as u32) as u32;
                if u64::from(draw(0)) < tokens / 2 {
                    case.tokens.push(support.mask);
                    case.positions.push((row * length + at) as u32);
                    case.targets.push(draw(1));
                    case.weights.push(0.01 + draw(2) as f32 / 4000.0);
                } else {
                    case.tokens.push(draw(1));
                }
            }
        }
        case
    }

    /// `rows` rows whose tokens are each predicted from those before, by the plain transformer.
    fn next_token(shape: &Shape, support: VocabSupport, rows: usize, dropout: bool) -> Self {
        let masked = Self::of(shape, support, rows, false, dropout);
        let text = Text::random(rows, shape.length, support.mask);
        let weight = |&at: &u32| 0.01 + (at % 7) as f32 / 100.0;
        Self {
            backbone: Backbone::Transformer,
            pattern: Pattern::Causal,
            weights: text.positions.iter().map(weight).collect(),
            targets: text.targets,
            positions: text.positions,
            tokens: text.tokens,
            ..masked
        }
    }

    /// The batch under another loss, whose constants change from position to position.
    fn with_loss(self, loss: Loss) -> Self {
        let of = |i: usize| match loss {
            Loss::CrossEntropy => None,
            // Times of 1,000 steps, α_t = 1 - t: the first step and the last are among them.
            Loss::AbsorbingKl => {
                let step = [1.0, 30.0, 500.0, 1000.0][i % 4];
                let (t, s) = (step / 1000.0, (step - 1.0) / 1000.0);
                let c = if s > 0.0 { (1.0 - s) / s } else { 0.0 };
                Some([1.0 - s / t, (1.0 - t) / t, c])
            }
            // The whole, and r times the negative log-likelihood.
            Loss::ScoreEntropy => {
                let odds = [0.3_f64, 1.0, 3.0][i % 3].exp_m1();
                let surplus = if i.is_multiple_of(2) { 1.0 } else { 0.0 };
                Some([1.0 / odds, odds.ln() + 500_f64.ln(), surplus])
            }
        };
        Self {
            loss,
            constants: (0..self.positions.len())
                .filter_map(of)
                .map(|own| own.map(|constant| constant as f32))
                .collect(),
            ..self
        }
    }

    /// A batch of each backbone, with dropout.
    fn of_both(rows: usize) -> [Self; 2] {
        [
            Self::new(rows, true, true),
            Self::next_token(nano(), ALPHABET, rows, true),
        ]
    }

    /// The weights of its network, of shape `nano`.
    fn network_weights(&self) -> Vec<f32> {
        weights_of(nano(), self.backbone)
    }

    fn exact(&self) -> CpuNetwork<Nano, Exact> {
        CpuNetwork::new(Exact::new(Cpu::default()), self.backbone, &self.network_weights()).unwrap()
    }

    fn fused(&self) -> CpuNetwork<Nano, Fused> {
        CpuNetwork::new(Fused::default(), self.backbone, &self.network_weights()).unwrap()
    }

    fn logits(&self, network: &dyn Network, positions: &[u32]) -> Vec<f32> {
        network
            .logits(&self.tokens, &self.sigma, positions, self.pattern)
            .unwrap()
    }

    fn everywhere(&self) -> Vec<u32> {
        (0..self.tokens.len() as u32).collect()
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            pattern: self.pattern,
            tokens: &self.tokens,
            sigma: &self.sigma,
            positions: &self.positions,
            targets: &self.targets,
            weights: &self.weights,
            loss: self.loss,
            constants: &self.constants,
            dropout: self.dropout,
        }
    }

    /// Its rows `rows` as a batch of their own.
    fn part(&self, rows: std::ops::Range<usize>) -> Self {
        let length = nano().length;
        let tokens = rows.start * length..rows.end * length;
        let inside: Vec<usize> = (0..self.positions.len())
            .filter(|&i| tokens.contains(&(self.positions[i] as usize)))
            .collect();
        let shared = self.sigma.len() == 1;
        Self {
            backbone: self.backbone,
            pattern: self.pattern,
            sigma: if shared {
                self.sigma.clone()
            } else {
                self.sigma[rows.clone()].to_vec()
            },
            positions: inside
                .iter()
                .map(|&i| self.positions[i] - tokens.start as u32)
                .collect(),
            targets: inside.iter().map(|&i| self.targets[i]).collect(),
            weights: inside.iter().map(|&i| self.weights[i]).collect(),
            loss: self.loss,
            constants: inside
                .iter()
                .filter_map(|&i| self.constants.get(i).copied())
                .collect(),
            tokens: self.tokens[tokens].to_vec(),
            dropout: self.dropout.map(|dropout| Dropout {
                first_row: dropout.first_row + rows.start as u64,
                ..dropout
            }),
        }
    }
}

fn gradient(network: &mut dyn HostNetwork) -> Vec<f32> {
    let mut all = Vec::new();
    network
        .with_gradient(&mut |_, _, gradient| all = gradient.to_vec())
        .unwrap();
    all
}

/// The gradient of the loss in f64 against central differences, at two entries of every parameter.
#[test]
fn gradients_of_the_whole_network_match_finite_differences() {
    for case in Case::of_both(2) {
        match_finite_differences(&case, ALPHABET);
    }
}

/// The same of every loss with constants, for a noise level of the row and without.
#[test]
fn gradients_of_every_loss_match_finite_differences() {
    for (loss, support) in LOSSES {
        let conditioned = loss == Loss::ScoreEntropy;
        let case = Case::new(1, conditioned, !conditioned).with_loss(loss);
        match_finite_differences(&case, support);
    }
}

fn match_finite_differences(case: &Case, support: VocabSupport) {
    let (backbone, weights) = (case.backbone, case.network_weights());
    let loss = |weights: &[f32]| {
        let backend = Exact::new(Cpu::default());
        let dit = Dit::<Nano, Exact>::new(&backend, backbone, weights).unwrap();
        let (loss, _) = dit.nll(&backend, &case.batch(), support).unwrap();
        backend.wide_values(&loss)[0]
    };
    let backend = Exact::new(Cpu::default());
    let dit = Dit::<Nano, Exact>::new(&backend, backbone, &weights).unwrap();
    backend.record(Accumulated::default());
    let (total, _) = dit.nll(&backend, &case.batch(), support).unwrap();
    let gradient = backend.backward(total).unwrap().wide();
    for (index, parameter) in parameters(nano(), backbone).iter().enumerate() {
        let own = &gradient[parameter.offset..][..parameter.len()];
        assert!(own.iter().any(|&g| g != 0.0), "{}: no gradient", parameter.name);
        let any =
            Random::new(1, Stream::Permutation).below(parameter.len() as u64, 0, index as u64, 0) as usize;
        // The steepest entry, and any.
        let steepest = (0..own.len())
            .max_by(|&a, &b| own[a].abs().total_cmp(&own[b].abs()))
            .unwrap();
        for entry in [steepest, any] {
            let at = |step: f32| {
                let mut moved = weights.clone();
                moved[parameter.offset + entry] += step;
                (f64::from(moved[parameter.offset + entry]), loss(&moved))
            };
            let slope = |step: f32| {
                let ((from, below), (to, above)) = (at(-step), at(step));
                (above - below) / (to - from)
            };
            // Richardson: the h² term of the central difference cancels.
            let found = (4.0 * slope(1.0 / 1024.0) - slope(1.0 / 512.0)) / 3.0;
            let error = (found - own[entry]).abs();
            // 1e-8: what is left is of order h⁴ ~ 1e-12 times a fifth derivative; rounding adds 1e-16 / h.
            assert!(
                error < 1e-8 + 1e-6 * own[entry].abs(),
                "{}[{entry}]: {} by the tape, {found} by differences",
                parameter.name,
                own[entry]
            );
        }
    }
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(
            error <= tolerance * (1.0 + expected.abs()),
            "element {i}: {found} where {expected} belongs"
        );
    }
}

/// A network in f64 behind the erased face: what it hands out is f32, what it sums is not.
fn exact() -> CpuNetwork<Nano, Exact> {
    CpuNetwork::new(Exact::new(Cpu::default()), Backbone::Dit, &weights()).unwrap()
}

/// Loss, logits and every gradient, fused in f32 against composite in f64.
#[test]
fn fused_network_agrees_with_the_composite() {
    let [dit, transformer] = Case::of_both(3);
    let plain = [Case::new(3, false, false), dit, transformer];
    let mut cases = Vec::from(plain.map(|case| (case, ALPHABET)));
    cases.extend(LOSSES.map(|(loss, support)| (Case::new(3, true, true).with_loss(loss), support)));
    for (case, support) in cases {
        let (mut fused, mut exact) = (case.fused(), case.exact());
        let nll = fused.accumulate(&case.batch(), support).unwrap();
        // Of losses with constants, exp(lse - k) and the mask's probability have the digits of a difference of size 10.
        let factor = if case.loss == Loss::CrossEntropy { 1.0 } else { 3.0 };
        // 1e-5: f32 through two blocks; relative to losses of order one to ten.
        let expected = exact.accumulate(&case.batch(), support).unwrap();
        assert_close(&nll, &expected, factor * 1e-5);
        let (found, expected) = (gradient(&mut fused), gradient(&mut exact));
        for parameter in parameters(nano(), case.backbone) {
            let own = parameter.range();
            let largest = expected[own.clone()]
                .iter()
                .fold(0.0f32, |largest, g| largest.max(g.abs()));
            for at in own {
                let error = (found[at] - expected[at]).abs();
                // 2e-5 of the parameter's largest gradient: sums of up to 96 token rows in f32.
                assert!(
                    error <= factor * 2e-5 * largest,
                    "{:?} {}[{}]: {} fused, {} composite",
                    case.loss,
                    parameter.name,
                    at - parameter.offset,
                    found[at],
                    expected[at]
                );
            }
        }
        let everywhere = case.everywhere();
        assert_close(
            &case.logits(&fused, &everywhere),
            &case.logits(&exact, &everywhere),
            1e-5,
        );
    }
}

/// Factors of eight significant bits: close to the exact network, and not the same.
#[test]
fn bf16_products_stay_near() {
    let case = Case::new(3, false, true);
    let backend = Fused::with_precision(Precision::Bf16);
    let (mut rounded, mut exact) = (
        CpuNetwork::<Nano, _>::new(backend, Backbone::Dit, &weights()).unwrap(),
        exact(),
    );
    let found = rounded.accumulate(&case.batch(), ALPHABET).unwrap();
    let expected = exact.accumulate(&case.batch(), ALPHABET).unwrap();
    let errors = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let largest = errors.fold(0.0, f32::max);
    // 2^-9 a factor, through two blocks, on losses of order one to ten.
    assert!(1e-5 < largest && largest < 0.05, "off by {largest}");
    let (found, expected) = (gradient(&mut rounded), gradient(&mut exact));
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let off =
        norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied());
    assert!(
        1e-4 < off && off < 0.02,
        "the gradient is off by {off} of its norm"
    );
}

/// What is not computed does not show: a position's logits have the same bits whichever others are asked for.
#[test]
fn logits_do_not_depend_on_the_other_positions_asked_for() {
    for case in Case::of_both(3) {
        let (network, v) = (case.fused(), nano().vocabulary);
        let full = case.logits(&network, &case.everywhere());
        for wanted in [&case.positions[..], &[0], &[31, 32, 95]] {
            let found = case.logits(&network, wanted);
            for (i, (&at, found)) in wanted.iter().zip(found.chunks(v)).enumerate() {
                assert!(
                    found == &full[at as usize * v..][..v],
                    "logits {i} of {}",
                    wanted.len()
                );
            }
        }
    }
}

/// The tensors of the authors' autoregressive model, in the DiT's order.
#[test]
fn transformer_has_the_parameters_of_the_dit_without_time() {
    for shape in SHAPES {
        let [dit, own] = Backbone::ALL.map(|backbone| parameters(shape, backbone));
        assert_eq!(
            (dit.len(), own.len()),
            (10 + 10 * shape.blocks, 4 + 8 * shape.blocks)
        );
        let names = |parameters: &[Parameter]| -> Vec<String> {
            let names = parameters.iter().map(|parameter| parameter.name.clone());
            let of_time = |name: &String| name.contains("sigma_map") || name.contains("adaLN_modulation");
            names.filter(|name| !of_time(name)).collect()
        };
        assert_eq!(names(&own), names(&dit));
        assert_eq!(names(&own).len(), own.len());
        let mut end = 0;
        for parameter in &own {
            assert_eq!(parameter.offset, end);
            end += parameter.len();
            assert!(
                dit.iter()
                    .any(|other| (&other.name, &other.dims) == (&parameter.name, &parameter.dims))
            );
        }
    }
}

/// Weights of the DiT without an effect of time: its modulations are shift 0, scale 0, gate 1 whatever c is, the others those
/// of the plain transformer.
fn timeless(shape: &Shape, plain: &[f32]) -> Vec<f32> {
    let own = parameters(shape, Backbone::Transformer);
    let mut weights = weights_of(shape, Backbone::Dit);
    for parameter in parameters(shape, Backbone::Dit) {
        let values = &mut weights[parameter.range()];
        if let Some(own) = own.iter().find(|own| own.name == parameter.name) {
            values.copy_from_slice(&plain[own.range()]);
        } else if parameter.name.contains("adaLN_modulation") {
            values.fill(0.0);
            if parameter.name.starts_with("blocks.") && parameter.dims.len() == 1 {
                for gate in [2, 5] {
                    values[gate * shape.width..][..shape.width].fill(1.0);
                }
            }
        }
    }
    weights
}

/// Of the DiT's gradient what the plain transformer has, too.
fn without_time(shape: &Shape, gradient: &[f32]) -> Vec<f32> {
    let dit = parameters(shape, Backbone::Dit);
    let own = parameters(shape, Backbone::Transformer);
    own.iter()
        .filter_map(|own| dit.iter().find(|dit| dit.name == own.name))
        .flat_map(|dit| gradient[dit.range()].iter().copied())
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// A modulation that changes nothing changes no bit: neither of a loss nor of a gradient.
#[test]
fn transformer_equals_the_dit_without_an_effect_of_time() {
    let case = Case::next_token(nano(), ALPHABET, 3, true);
    let plain = case.network_weights();
    for precision in [Precision::F32, Precision::Bf16] {
        let network = |backbone, weights: &[f32]| {
            CpuNetwork::<Nano, _>::new(Fused::with_precision(precision), backbone, weights).unwrap()
        };
        let mut own = network(Backbone::Transformer, &plain);
        let mut dit = network(Backbone::Dit, &timeless(nano(), &plain));
        assert_eq!(
            (own.backbone(), dit.backbone()),
            (Backbone::Transformer, Backbone::Dit)
        );
        let [found, expected] = [&mut own as &mut dyn HostNetwork, &mut dit]
            .map(|network| network.accumulate(&case.batch(), ALPHABET).unwrap());
        assert_eq!(bits(&found), bits(&expected));
        assert_eq!(
            bits(&gradient(&mut own)),
            bits(&without_time(nano(), &gradient(&mut dit)))
        );
    }
}

/// A token changes no logits before it, and some at it and after.
#[test]
fn causal_logits_do_not_depend_on_later_tokens() {
    let case = Case::next_token(nano(), ALPHABET, 2, false);
    let (network, v) = (case.fused(), nano().vocabulary);
    let before = case.logits(&network, &case.everywhere());
    let changed = 40; // of the second row's tokens, 32 to 63
    let mut other = Case::next_token(nano(), ALPHABET, 2, false);
    other.tokens[changed] = (other.tokens[changed] + 1) % ALPHABET.mask;
    let after = other.logits(&network, &other.everywhere());
    assert_eq!(bits(&before[..changed * v]), bits(&after[..changed * v]));
    let mut rows = before[changed * v..]
        .chunks(v)
        .zip(after[changed * v..].chunks(v));
    assert!(rows.all(|(before, after)| before != after));
    // All of a row attends to all of it otherwise.
    other.pattern = Pattern::Full;
    let full = other.logits(&network, &other.everywhere());
    assert_ne!(full[32 * v..][..v], after[32 * v..][..v]);
}

/// The promise on which resuming rests: the same bits for any micro-batch and any number of threads.
#[test]
fn gradients_have_the_same_bits_for_any_micro_batch_and_threads() {
    let [dit, transformer] = Case::of_both(6);
    let with = |loss| Case::new(6, true, true).with_loss(loss);
    let cases = [
        (Case::new(6, false, true), Precision::F32, ALPHABET),
        (dit, Precision::F32, ALPHABET),
        (Case::new(6, false, true), Precision::Bf16, ALPHABET),
        (transformer, Precision::F32, ALPHABET),
        (with(Loss::AbsorbingKl), Precision::F32, WITH_MASK),
        (with(Loss::ScoreEntropy), Precision::F32, ALPHABET),
    ];
    for (case, precision, support) in cases {
        let bits = |micro: usize, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let backend = Fused::with_precision(precision);
                let weights = case.network_weights();
                let mut network = CpuNetwork::<Nano, _>::new(backend, case.backbone, &weights).unwrap();
                let mut nll = Vec::new();
                for first in (0..6).step_by(micro) {
                    let part = case.part(first..(first + micro).min(6));
                    nll.extend(network.accumulate(&part.batch(), support).unwrap());
                }
                let all = nll.into_iter().chain(gradient(&mut network));
                all.map(f32::to_bits).collect::<Vec<_>>()
            })
        };
        let whole = bits(6, 1);
        for (micro, threads) in [(6, 2), (3, 1), (2, 3), (1, 1), (4, 2)] {
            assert!(
                bits(micro, threads) == whole,
                "micro-batches of {micro} on {threads} threads"
            );
        }
    }
}

#[test]
fn micro_batches_accumulate_to_the_gradient_of_the_batch() {
    let [dit, transformer] = Case::of_both(3);
    for case in [Case::new(3, false, true), dit, transformer] {
        let (mut whole, mut parts) = (case.exact(), case.exact());
        let nll = whole.accumulate(&case.batch(), ALPHABET).unwrap();
        let mut nll_parts = parts.accumulate(&case.part(0..1).batch(), ALPHABET).unwrap();
        nll_parts.extend(parts.accumulate(&case.part(1..3).batch(), ALPHABET).unwrap());
        // 1e-6: f64 inside, handed out as f32.
        assert_close(&nll_parts, &nll, 1e-6);
        assert_close(&gradient(&mut parts), &gradient(&mut whole), 1e-6);
    }
}

#[test]
fn logits_of_masked_positions_alone_equal_the_full_computation() {
    for conditioned in [false, true] {
        let case = Case::new(2, conditioned, false);
        let (network, v) = (exact(), nano().vocabulary);
        let everywhere: Vec<u32> = (0..case.tokens.len() as u32).collect();
        let full = network
            .logits(&case.tokens, &case.sigma, &everywhere, Pattern::Full)
            .unwrap();
        let wanted: Vec<f32> = case
            .positions
            .iter()
            .flat_map(|&at| full[at as usize * v..][..v].iter().copied())
            .collect();
        assert_close(
            &network
                .logits(&case.tokens, &case.sigma, &case.positions, Pattern::Full)
                .unwrap(),
            &wanted,
            1e-6,
        );
        let second = case.part(1..2);
        assert_close(
            &network
                .logits(
                    &second.tokens,
                    &second.sigma,
                    &everywhere[..nano().length],
                    Pattern::Full,
                )
                .unwrap(),
            &full[nano().length * v..],
            1e-6,
        );
        // SUBS on the full logits: no probability for the mask, nor for what the tokenizer does not have.
        let by_hand: Vec<f32> = wanted
            .chunks(v)
            .zip(&case.targets)
            .map(|(logits, &target)| {
                let support = (0..ALPHABET.size).filter(|&token| token != ALPHABET.mask);
                let total: f64 = support.map(|token| f64::from(logits[token as usize]).exp()).sum();
                (total.ln() - f64::from(logits[target as usize])) as f32
            })
            .collect();
        // 1e-5: from f32 logits of order ten.
        assert_close(&network.nll(&case.batch(), ALPHABET).unwrap(), &by_hand, 1e-5);
    }
}

#[test]
fn weights_are_read_back_unchanged_and_lent_with_gradients() {
    let (mut network, weights) = (exact(), weights());
    let mut read = vec![0.0; weights.len()];
    network.read(&mut read).unwrap();
    assert_eq!(read, weights);
    let case = Case::new(1, false, false);
    network.accumulate(&case.batch(), ALPHABET).unwrap();
    assert!(gradient(&mut network).iter().any(|&g| g != 0.0));
    // Lent, they change for good.
    network
        .with_gradient(&mut |parameters, values, gradient| {
            assert_eq!(values, weights);
            for parameter in parameters {
                values[parameter.offset] = 7.0;
            }
            gradient.fill(0.5);
        })
        .unwrap();
    assert!(
        gradient(&mut network)
            .iter()
            .all(|&g| g.to_bits() == 0.5f32.to_bits())
    );
    network.read(&mut read).unwrap();
    for parameter in network.parameters() {
        assert_eq!(
            read[parameter.offset].to_bits(),
            7.0f32.to_bits(),
            "{}",
            parameter.name
        );
    }
    let other = network.nll(&case.batch(), ALPHABET).unwrap();
    let mut learner = HostLearner::new(network).unwrap();
    learner.load(&weights, Moments::before(weights.clone())).unwrap();
    assert_eq!(learner.gradient_norm().unwrap().total, 0.0);
    learner.network().read(&mut read).unwrap();
    assert_eq!(read, weights);
    let network = learner.network();
    assert_ne!(network.nll(&case.batch(), ALPHABET).unwrap(), other);
    assert_eq!(
        network.nll(&case.batch(), ALPHABET).unwrap(),
        exact().nll(&case.batch(), ALPHABET).unwrap()
    );
}

#[test]
fn batch_of_another_shape_is_refused() {
    let mut network = exact();
    let case = Case::new(2, false, false);
    let refused = |network: &mut CpuNetwork<Nano, Exact>, batch: Batch<'_>| {
        network.accumulate(&batch, ALPHABET).unwrap_err().to_string()
    };
    let batch = case.batch();
    let text = refused(
        &mut network,
        Batch {
            tokens: &case.tokens[1..],
            ..batch
        },
    );
    assert_eq!(text, "63 tokens where 32 belong");
    let text = refused(
        &mut network,
        Batch {
            sigma: &[0.0; 3],
            ..batch
        },
    );
    assert_eq!(text, "3 values of sigma where 2 belong");
    let targets = vec![ALPHABET.mask; case.targets.len()];
    let text = refused(
        &mut network,
        Batch {
            targets: &targets,
            ..batch
        },
    );
    assert_eq!(
        text,
        "target 500 at 0 is not in the support of 501 tokens without the mask 500"
    );
    let mut tokens = case.tokens.clone();
    tokens[9] = 512;
    let text = refused(
        &mut network,
        Batch {
            tokens: &tokens,
            ..batch
        },
    );
    assert_eq!(text, "token 512 at 9 of a vocabulary of 512");
    let positions: Vec<u32> = case.positions.iter().rev().copied().collect();
    let text = refused(
        &mut network,
        Batch {
            positions: &positions,
            ..batch
        },
    );
    assert_eq!(text, "positions must ascend within the batch");
    let nothing = Batch {
        positions: &[],
        targets: &[],
        weights: &[],
        ..batch
    };
    assert_eq!(network.accumulate(&nothing, ALPHABET).unwrap(), Vec::<f32>::new());
}

/// The CUDA backend, its kernels emulated: against the CPU's.
#[cfg(target_os = "linux")]
mod cuda {
    use dfdx::shapes::Const;

    use super::*;
    use crate::kernels::adamw::{AdamW, Update};
    use crate::kernels::cuda::Cuda;
    use crate::kernels::cuda::device::Device;
    use crate::kernels::cuda::driver::{DType, Driver};
    use crate::kernels::cuda::emulated::Emulated;
    use crate::model::dit::Arch;

    /// Heads 64 wide, a vocabulary and a row that no tile divides.
    struct Odd;

    impl Arch for Odd {
        type V = Const<131>;
        type L = Const<72>;
        type D = Const<128>;
        type D2 = Const<256>;
        type D3 = Const<384>;
        type D6 = Const<768>;
        type F = Const<512>;
        type C = Const<32>;
        const HEADS: usize = 2;
        const BLOCKS: usize = 2;
        const SHAPE: &'static Shape = &Shape {
            name: "odd",
            vocabulary: 131,
            length: 72,
            width: 128,
            heads: 2,
            blocks: 2,
            conditioning: 32,
        };
    }

    fn emulated<A: Arch>(element: DType) -> CudaLearner<A> {
        emulated_of(Backbone::Dit, element, &weights_of(A::SHAPE, Backbone::Dit))
    }

    fn emulated_of<A: Arch>(backbone: Backbone, element: DType, weights: &[f32]) -> CudaLearner<A> {
        let cuda = Cuda::new(Box::new(Emulated::default()), element);
        CudaLearner::new(cuda, backbone, weights).unwrap()
    }

    fn host<A: Arch>() -> HostLearner<CpuNetwork<A, Fused>> {
        host_of(Backbone::Dit)
    }

    fn host_of<A: Arch>(backbone: Backbone) -> HostLearner<CpuNetwork<A, Fused>> {
        let weights = weights_of(A::SHAPE, backbone);
        let network = CpuNetwork::new(Fused::default(), backbone, &weights).unwrap();
        HostLearner::new(network).unwrap()
    }

    /// A batch of the network: of the DiT with some tokens masked and one time, of the plain transformer with next tokens.
    fn case_of(shape: &Shape, backbone: Backbone, support: VocabSupport, rows: usize) -> Case {
        match backbone {
            Backbone::Dit => Case::of(shape, support, rows, false, true),
            Backbone::Transformer => Case::next_token(shape, support, rows, true),
        }
    }

    /// Gradient and loss accumulated so far.
    fn accumulated(learner: &mut dyn Learner) -> (Vec<f32>, f64) {
        let mut found = (Vec::new(), 0.0);
        learner
            .reduce(&mut |gradient, loss| {
                found = (gradient.to_vec(), *loss);
                Ok(())
            })
            .unwrap();
        found
    }

    fn norm(values: impl Iterator<Item = f32>) -> f64 {
        values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
    }

    /// Loss, logits and every gradient, against the fused backend: `loss` off at most, and each parameter's gradient
    /// `slope` of its norm.
    fn agree<A: Arch>(support: VocabSupport, element: DType, loss: f32, slope: f64) {
        agree_on::<A>(&|| Box::new(Emulated::default()), support, element, loss, slope);
    }

    fn agree_on<A: Arch>(
        device: &dyn Fn() -> Box<dyn Driver>,
        support: VocabSupport,
        element: DType,
        loss: f32,
        slope: f64,
    ) {
        for case in [
            Case::of(A::SHAPE, support, 3, false, false),
            Case::of(A::SHAPE, support, 3, true, true),
            Case::next_token(A::SHAPE, support, 3, true),
        ] {
            let cuda = Cuda::new(device(), element);
            let weights = weights_of(A::SHAPE, case.backbone);
            let mut cuda = CudaLearner::<A>::new(cuda, case.backbone, &weights).unwrap();
            let mut fused = host_of::<A>(case.backbone);
            for learner in [&mut cuda as &mut dyn Learner, &mut fused] {
                learner.accumulate(&case.batch(), support).unwrap();
            }
            let nll = fused.network().nll(&case.batch(), support).unwrap();
            assert_close(&cuda.network().nll(&case.batch(), support).unwrap(), &nll, loss);
            let ((found, found_loss), (expected, expected_loss)) =
                (accumulated(&mut cuda), accumulated(&mut fused));
            let scale: f64 = case.weights.iter().map(|&weight| f64::from(weight)).sum();
            assert!(
                (found_loss - expected_loss).abs() <= f64::from(loss) * (scale + expected_loss),
                "{found_loss}, {expected_loss}"
            );
            for parameter in parameters(A::SHAPE, case.backbone) {
                let own = parameter.range();
                let off = norm(
                    found[own.clone()]
                        .iter()
                        .zip(&expected[own.clone()])
                        .map(|(a, b)| a - b),
                );
                let whole = norm(expected[own].iter().copied());
                assert!(
                    off <= slope * whole,
                    "{} in {element:?}: off by {} of its norm",
                    parameter.name,
                    off / whole
                );
            }
            let logits = |network: &dyn Network| case.logits(network, &case.everywhere());
            assert_close(&logits(cuda.network()), &logits(fused.network()), loss);
        }
    }

    const ODD: VocabSupport = VocabSupport::without_mask(129, 130);

    /// Every loss, each with another pattern; the device fills positions up, and those weigh nothing.
    #[test]
    fn losses_and_patterns_agree_with_the_cpu() {
        let blocks = Pattern::BlockCausal { block: 20 };
        let with_mask = VocabSupport::with_mask(129, 130);
        for (loss, support, pattern, own) in [
            (Loss::CrossEntropy, ODD, Pattern::Causal, None),
            (Loss::AbsorbingKl, with_mask, blocks, Some([0.1, 3.0, 2.0])),
            (Loss::AbsorbingKl, ODD, Pattern::Full, Some([0.3, 2.0, 1.0])),
            (Loss::ScoreEntropy, ODD, Pattern::Full, Some([0.7, 5.0, 0.0])),
            (Loss::ScoreEntropy, ODD, Pattern::Causal, Some([0.7, 5.0, 1.0])),
        ] {
            let case = Case::of(Odd::SHAPE, support, 3, false, false);
            let constants: Vec<Constants> = case.positions.iter().filter_map(|_| own).collect();
            let batch = Batch {
                loss,
                constants: &constants,
                pattern,
                ..case.batch()
            };
            let mut cuda = emulated::<Odd>(DType::F32);
            let mut fused = host::<Odd>();
            let losses = fused.network().nll(&batch, support).unwrap();
            // 1e-4 as below.
            assert_close(&cuda.network().nll(&batch, support).unwrap(), &losses, 1e-4);
            for learner in [&mut cuda as &mut dyn Learner, &mut fused] {
                learner.accumulate(&batch, support).unwrap();
            }
            let ((found, found_loss), (expected, expected_loss)) =
                (accumulated(&mut cuda), accumulated(&mut fused));
            let off = norm(found.iter().zip(&expected).map(|(a, b)| a - b));
            assert!(off <= 1e-4 * norm(expected.iter().copied()), "{loss:?}: {off}");
            let weighted = losses.iter().zip(&case.weights);
            let total: f64 = weighted.map(|(&l, &w)| f64::from(l) * f64::from(w)).sum();
            for found in [found_loss, expected_loss] {
                assert!(
                    (found - total).abs() <= 1e-4 * (1.0 + total.abs()),
                    "{loss:?}: {found}, {total}"
                );
            }
            // Another pattern, other losses.
            let full = Batch {
                pattern: if pattern == Pattern::Full {
                    Pattern::Causal
                } else {
                    Pattern::Full
                },
                ..batch
            };
            assert_ne!(fused.network().nll(&full, support).unwrap(), losses);
        }
    }

    /// 1e-4: sums in another order, and exponentials of another library, through two blocks in f32.
    #[test]
    fn f32_emulated_network_agrees_with_the_cpu() {
        agree::<Nano>(ALPHABET, DType::F32, 1e-4, 1e-4);
        agree::<Odd>(ODD, DType::F32, 1e-4, 1e-4);
        // Products may know no epilogue.
        let plain: &dyn Fn() -> Box<dyn Driver> = &|| Box::new(Emulated::without_epilogues());
        agree_on::<Odd>(plain, ODD, DType::F32, 1e-4, 1e-4);
    }

    /// 2^-9 a rounding, through two blocks, on losses of order one to ten.
    #[test]
    fn bf16_emulated_network_is_near_the_cpu() {
        agree::<Nano>(ALPHABET, DType::Bf16, 0.05, 0.05);
        agree::<Odd>(ODD, DType::Bf16, 0.05, 0.05);
    }

    /// The same on a real device, where there is one.
    #[test]
    fn device_network_agrees_with_the_cpu() {
        let Some(device) = crate::require::require("gpu", Device::open(0)) else {
            return;
        };
        println!("on {}", device.name());
        drop(device);
        let device: &dyn Fn() -> Box<dyn Driver> = &|| Box::new(Device::open(0).unwrap());
        for (element, tolerance) in [(DType::F32, 1e-4), (DType::Bf16, 0.05)] {
            agree_on::<Nano>(device, ALPHABET, element, tolerance, f64::from(tolerance));
            agree_on::<Odd>(device, ODD, element, tolerance, f64::from(tolerance));
        }
    }

    /// Steps of AdamW on changing batches; the weights and moments after them.
    fn train(
        learner: &mut dyn Learner,
        support: VocabSupport,
        steps: std::ops::Range<u64>,
    ) -> (Vec<f32>, Moments) {
        let shape = learner.network().shape();
        let adam = AdamW {
            weight_decay: 0.01,
            ..AdamW::default()
        };
        for step in steps {
            let mut case = case_of(shape, learner.network().backbone(), support, 2);
            case.dropout = case.dropout.map(|dropout| Dropout { step, ..dropout });
            learner.accumulate(&case.batch(), support).unwrap();
            let update = Update {
                number: step + 1,
                learning_rate: 1e-3,
                ema_decay: 0.9,
            };
            learner.update(adam, update, 1.0).unwrap();
            assert!(!learner.outcome().unwrap().unwrap().halted);
        }
        let moments = learner.moments().unwrap();
        let mut weights = vec![0.0; moments.ema.len()];
        learner.network().read(&mut weights).unwrap();
        (weights, moments)
    }

    fn ten_steps<A: Arch>(backbone: Backbone, support: VocabSupport) {
        let start = weights_of(A::SHAPE, backbone);
        let device = |element| emulated_of::<A>(backbone, element, &start);
        let (expected, _) = train(&mut host_of::<A>(backbone), support, 0..10);
        // AdamW moves every weight by about the learning rate whatever its gradient: of small gradients rounding shows.
        for (element, tolerance) in [(DType::F32, 2e-3), (DType::Bf16, 0.2)] {
            let (whole, whole_moments) = train(&mut device(element), support, 0..10);
            let moved = norm(expected.iter().zip(&start).map(|(a, b)| a - b));
            let off = norm(expected.iter().zip(&whole).map(|(a, b)| a - b));
            assert!(
                off <= tolerance * moved,
                "{element:?}: off by {} of the way",
                off / moved
            );

            let (half, moments) = train(&mut device(element), support, 0..5);
            let mut resumed = device(element);
            resumed.load(&half, moments).unwrap();
            let (end, moments) = train(&mut resumed, support, 5..10);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(
                bits(&end) == bits(&whole) && moments == whole_moments,
                "{element:?}: other bits after a resumption"
            );
        }
    }

    /// Two learners, each with some rows of a batch, sum gradients and losses: each makes the update of the whole batch.
    fn halves<'a>(whole: &'a mut dyn Learner, ranks: [&'a mut dyn Learner; 2], tolerance: f64) {
        let case = Case::of(nano(), ALPHABET, 4, false, true);
        whole.accumulate(&case.batch(), ALPHABET).unwrap();
        let (gradient, loss) = accumulated(whole);
        let [first, second] = ranks;
        first.accumulate(&case.part(0..1).batch(), ALPHABET).unwrap();
        second.accumulate(&case.part(1..4).batch(), ALPHABET).unwrap();
        let parts = [accumulated(first), accumulated(second)];
        for rank in [&mut *first, &mut *second] {
            rank.reduce(&mut |gradient, loss| {
                for (i, sum) in gradient.iter_mut().enumerate() {
                    *sum = parts[0].0[i] + parts[1].0[i];
                }
                *loss = parts[0].1 + parts[1].1;
                Ok(())
            })
            .unwrap();
            let (summed, summed_loss) = accumulated(rank);
            let off = norm(summed.iter().zip(&gradient).map(|(a, b)| a - b));
            assert!(off <= tolerance * norm(gradient.iter().copied()), "off by {off}");
            assert!((summed_loss - loss).abs() <= tolerance * loss);
        }
        let update = Update {
            number: 1,
            learning_rate: 1e-3,
            ema_decay: 0.5,
        };
        let adam = AdamW {
            weight_decay: 0.01,
            ..AdamW::default()
        };
        let ends = [first, second].map(|rank| {
            rank.update(adam, update, 1.0).unwrap();
            let outcome = rank.outcome().unwrap().unwrap();
            assert!((outcome.loss - loss).abs() <= tolerance * loss);
            let mut weights = vec![0.0; gradient.len()];
            rank.network().read(&mut weights).unwrap();
            (outcome.norm.total, weights, rank.moments().unwrap())
        });
        assert!(ends[0] == ends[1], "the ranks go different ways");
    }

    #[test]
    fn all_reduce_over_parts_of_a_batch_equals_the_whole_on_any_device() {
        // 1e-5: the parts are summed in another order.
        halves(
            &mut host::<Nano>(),
            [&mut host::<Nano>(), &mut host::<Nano>()],
            1e-5,
        );
        let device = || emulated::<Nano>(DType::F32);
        halves(&mut device(), [&mut device(), &mut device()], 1e-5);
        // A rank without a masked token has no gradient of its own, and takes the others'.
        let mut idle = device();
        assert_eq!(accumulated(&mut idle).0, vec![0.0; weights().len()]);
        idle.reduce(&mut |gradient, _| {
            gradient.fill(0.25);
            Ok(())
        })
        .unwrap();
        assert_eq!(accumulated(&mut idle).0, vec![0.25; weights().len()]);
    }

    #[test]
    fn resume_of_ten_steps_equals_a_whole_run_and_that_of_the_cpu() {
        ten_steps::<Nano>(Backbone::Dit, ALPHABET);
        ten_steps::<Nano>(Backbone::Transformer, ALPHABET);
        ten_steps::<Odd>(Backbone::Dit, ODD);
    }

    #[test]
    fn transformer_on_a_device_equals_the_dit_without_time() {
        let case = Case::next_token(nano(), ALPHABET, 3, true);
        let plain = case.network_weights();
        for element in [DType::F32, DType::Bf16] {
            let of = |backbone, weights: &[f32]| {
                let mut learner = emulated_of::<Nano>(backbone, element, weights);
                learner.accumulate(&case.batch(), ALPHABET).unwrap();
                accumulated(&mut learner)
            };
            let (found, loss) = of(Backbone::Transformer, &plain);
            let (expected, expected_loss) = of(Backbone::Dit, &timeless(nano(), &plain));
            assert_eq!(loss.to_bits(), expected_loss.to_bits(), "{element:?}");
            assert!(
                bits(&found) == bits(&without_time(nano(), &expected)),
                "{element:?}: another gradient"
            );
        }
    }

    /// Rows continued token by token, in a chain on a device: the tokens, and the numbers reported, are the CPU's.
    #[test]
    fn causal_chain_on_a_device_draws_what_the_cpu_draws() {
        let case = Case::next_token(nano(), ALPHABET, 2, false);
        let cpu = case.fused();
        let device = emulated_of::<Nano>(case.backbone, DType::F32, &case.network_weights());
        let length = nano().length;
        let run = |network: &dyn Network, pattern: Pattern| {
            let mut chain = network.chain(&case.tokens).unwrap();
            let mut entropies = Vec::new();
            for step in 0..6 {
                let at = 9 + step;
                let random = Random::new(step as u64, Stream::Sample);
                let request = Request {
                    rows: &[0, 1],
                    positions: &[at as u32, (length + at) as u32],
                    actions: &[Action::Report; 2],
                    uniforms: &[random.uniform(0, 0, 0), random.uniform(0, 1, 0)],
                    confidence: true,
                    sigma: 0.0,
                    pattern,
                    temperature: 1.0,
                    support: ALPHABET,
                };
                let draws = chain.draw(&request).unwrap();
                assert_eq!(draws.len(), 2);
                entropies.extend(draws.iter().map(|draw| draw.confidence.unwrap().entropy));
                let tokens: Vec<u32> = draws.iter().map(|draw| draw.token).collect();
                chain.write(&[at + 1, length + at + 1], &tokens).unwrap();
            }
            (chain.tokens().unwrap(), entropies)
        };
        let (expected, entropies) = run(&cpu, Pattern::Causal);
        assert_ne!(expected, case.tokens);
        let (found, found_entropies) = run(device.network(), Pattern::Causal);
        assert_eq!(found, expected);
        // 1e-3: of some nats, from logits that are sums in another order.
        for (found, expected) in found_entropies.iter().zip(&entropies) {
            assert!((found - expected).abs() < 1e-3, "{found}, {expected}");
        }
        let (_, full) = run(device.network(), Pattern::Full);
        assert!(
            full.iter()
                .zip(&entropies)
                .any(|(full, causal)| (full - causal).abs() > 1e-3)
        );
    }

    /// What lies on one device is not a tensor of another.
    #[test]
    fn tensors_of_another_device_are_refused() {
        let of = || Cuda::new(Box::new(Emulated::default()), DType::F32);
        let (one, other) = (of(), of());
        let table = one.param::<(Const<3>, Const<16>)>(&[1.0; 48]).unwrap();
        let x = one.embed(&table, &one.tokens(&[0, 2]).unwrap()).unwrap();
        assert!(one.gather(&x, &[1]).is_ok());
        for error in [
            other.gather(&x, &[1]).err().unwrap(),
            other.embed(&table, &other.tokens(&[0]).unwrap()).err().unwrap(),
        ] {
            assert!(error.to_string().contains("of another device"), "{error}");
        }
    }
}
