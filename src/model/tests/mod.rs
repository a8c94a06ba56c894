//! The whole network: what its tests share.

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

mod causal;
#[cfg(target_os = "linux")]
mod cuda;
mod gradients;
mod moved;
mod network;
mod text;
mod transformer;

use moved::moved;
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
    SHAPES.find("nano").unwrap()
}

fn weights() -> Vec<f32> {
    weights_of(nano(), Backbone::Dit)
}

fn weights_of(shape: &Shape, backbone: Backbone) -> Vec<f32> {
    moved(initial(shape, backbone, 3), 0.2)
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
