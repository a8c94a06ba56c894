//! Denoisers small enough to know everything about, for the tests of what is built on a network.

pub(crate) use crate::diffusion::toy::Distribution;
use crate::error::Result;
use crate::kernels::{Pattern, VocabSupport};
use crate::model::{Batch, HostNetwork, Network, Parameter};
use crate::shapes::Shape;

fn shape(vocabulary: usize, length: usize) -> &'static Shape {
    // Shapes live as long as the program: a test may leak a few dozen bytes.
    Box::leak(Box::new(Shape {
        name: "toy",
        vocabulary,
        length,
        width: 2,
        heads: 1,
        blocks: 1,
        conditioning: 1,
    }))
}

/// −log softmax over the support, in f64.
fn negative_log_likelihood(logits: &[f32], support: VocabSupport, target: u32) -> f64 {
    let allowed = |v: &usize| support.contains(*v as u32);
    let top = (0..logits.len())
        .filter(allowed)
        .map(|v| logits[v])
        .fold(f32::MIN, f32::max);
    let sum: f64 = (0..logits.len())
        .filter(allowed)
        .map(|v| f64::from(logits[v] - top).exp())
        .sum();
    sum.ln() - f64::from(logits[target as usize] - top)
}

/// [`Network::nll`] by way of [`Network::logits`].
fn nll_of(network: &impl Network, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>> {
    let logits = network.logits(batch.tokens, batch.sigma, batch.positions, batch.pattern)?;
    Ok(logits
        .chunks(network.shape().vocabulary)
        .zip(batch.targets)
        .map(|(logits, &target)| negative_log_likelihood(logits, support, target) as f32)
        .collect())
}

/// Logit of ids beyond a toy's support.
const BEYOND: f32 = 9.0;

/// The exact posterior of a [`Distribution`] as a network. Its logits favour two ids beyond the support, and the mask unless
/// another probability is set: SUBS must exclude them.
pub(crate) struct Posterior {
    distribution: Distribution,
    shape: &'static Shape,
    mask_logit: f32,
    /// The token at the start of each row, where the network predicts the next token.
    bos: Option<u32>,
    /// Rows asked for, over all calls.
    pub calls: std::cell::Cell<usize>,
}

impl Posterior {
    pub fn new(distribution: Distribution) -> Self {
        Self {
            shape: shape(distribution.letters + 3, distribution.length),
            distribution,
            mask_logit: BEYOND,
            bos: None,
            calls: std::cell::Cell::new(0),
        }
    }

    /// p(`x_l` = · | the letters before): a row is BOS and its letters, and position l predicts the letter at l + 1.
    pub fn of_next_token(distribution: Distribution, bos: u32) -> Self {
        Self {
            shape: shape(distribution.letters + 3, distribution.length + 1),
            bos: Some(bos),
            ..Self::new(distribution)
        }
    }

    /// The mask has that probability everywhere, and each letter its share of the rest (D3PM's parameterization).
    pub fn with_mask_probability(distribution: Distribution, probability: f64) -> Self {
        Self {
            mask_logit: (probability / (1.0 - probability)).ln() as f32,
            ..Self::new(distribution)
        }
    }
}

impl Network for Posterior {
    fn shape(&self) -> &'static Shape {
        self.shape
    }

    fn parameters(&self) -> &[Parameter] {
        &[]
    }

    fn load(&mut self, _: &[f32]) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn nll(&self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>> {
        nll_of(self, batch, support)
    }

    fn logits(&self, tokens: &[u32], _: &[f32], positions: &[u32], pattern: Pattern) -> Result<Vec<f32>> {
        let length = self.shape.length;
        self.calls.set(self.calls.get() + tokens.len() / length);
        let mut logits = Vec::new();
        for &position in positions {
            let (row, l) = (position as usize / length, position as usize % length);
            let row = &tokens[row * length..][..length];
            let posterior = match self.bos {
                Some(bos) => {
                    assert_eq!((pattern, row[0]), (Pattern::Causal, bos));
                    let mask = self.distribution.mask();
                    let mut z = vec![mask; length - 1];
                    z[..l].copy_from_slice(&row[1..=l]);
                    assert!(!z[..l].contains(&mask), "drawn from left to right");
                    self.distribution.posterior(&z, l)
                }
                None => self.distribution.posterior(row, l),
            };
            logits.extend(posterior.iter().map(|p| p.ln() as f32));
            logits.extend([self.mask_logit, BEYOND, BEYOND]);
        }
        Ok(logits)
    }
}

/// A trainable network of one line: `logits(l) = bias + Σ_j table[z_j] / L`, with dropout-free gradients by hand. Its
/// gradient is a left fold over rows, as a backend's is.
pub(crate) struct Bag {
    shape: &'static Shape,
    parameters: Vec<Parameter>,
    values: Vec<f32>,
    gradients: Vec<f32>,
}

impl Bag {
    pub fn new(vocabulary: usize, length: usize) -> Self {
        let parameters = vec![
            Parameter {
                name: "table".to_owned(),
                dims: vec![vocabulary, vocabulary],
                offset: 0,
            },
            Parameter {
                name: "bias".to_owned(),
                dims: vec![vocabulary],
                offset: vocabulary * vocabulary,
            },
        ];
        let count = vocabulary * (vocabulary + 1);
        Self {
            shape: shape(vocabulary, length),
            parameters,
            values: vec![0.0; count],
            gradients: vec![0.0; count],
        }
    }

    fn row_logits(&self, z: &[u32]) -> Vec<f32> {
        let vocabulary = self.shape.vocabulary;
        let mut logits = self.values[vocabulary * vocabulary..].to_vec();
        for &token in z {
            let row = &self.values[token as usize * vocabulary..][..vocabulary];
            for (logit, weight) in logits.iter_mut().zip(row) {
                *logit += weight / z.len() as f32;
            }
        }
        logits
    }
}

impl Network for Bag {
    fn shape(&self) -> &'static Shape {
        self.shape
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn load(&mut self, values: &[f32]) -> Result<()> {
        self.values.copy_from_slice(values);
        Ok(())
    }

    fn read(&self, values: &mut [f32]) -> Result<()> {
        values.copy_from_slice(&self.values);
        Ok(())
    }

    fn nll(&self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>> {
        nll_of(self, batch, support)
    }

    fn logits(&self, tokens: &[u32], _: &[f32], positions: &[u32], _: Pattern) -> Result<Vec<f32>> {
        let length = self.shape.length;
        Ok(positions
            .iter()
            .flat_map(|&position| self.row_logits(&tokens[position as usize / length * length..][..length]))
            .collect())
    }
}

impl HostNetwork for Bag {
    fn accumulate(&mut self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>> {
        let (vocabulary, length) = (self.shape.vocabulary, self.shape.length);
        let nll = self.nll(batch, support)?;
        let bias = vocabulary * vocabulary;
        for (i, &position) in batch.positions.iter().enumerate() {
            let z = &batch.tokens[position as usize / length * length..][..length];
            let logits = self.row_logits(z);
            for v in (0..support.size).filter(|&v| support.contains(v)) {
                let p = (-negative_log_likelihood(&logits, support, v)).exp() as f32;
                let g = batch.weights[i] * (p - f32::from(u8::from(v == batch.targets[i])));
                self.gradients[bias + v as usize] += g;
                for &token in z {
                    self.gradients[token as usize * vocabulary + v as usize] += g / length as f32;
                }
            }
        }
        Ok(nll)
    }

    fn with_weights(&mut self, f: &mut dyn FnMut(&mut [f32])) -> Result<()> {
        f(&mut self.values);
        Ok(())
    }

    fn with_gradient(&mut self, f: &mut dyn FnMut(&[Parameter], &mut [f32], &mut [f32])) -> Result<()> {
        f(&self.parameters, &mut self.values, &mut self.gradients);
        Ok(())
    }
}
