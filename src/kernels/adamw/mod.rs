//! The update of all weights in one pass. The gradient is scaled so that its global norm stays within a limit. AdamW's
//! moments are updated from it, the weight from the moments, and the weight's moving average from the weight. The
//! gradient is then set to zero.
//!
//! ```text
//! g ← scale · g,   m ← β1 m + (1 − β1) g,   v ← β2 v + (1 − β2) g²
//! w ← (1 − lr · decay) w − lr / (1 − β1ⁿ) · m / (√v / √(1 − β2ⁿ) + ε)
//! a ← a + (1 − ema) (w − a)
//! ```
//!
//! Loshchilov and Hutter, arXiv 1711.05101, algorithm 2, in PyTorch's arrangement. The update is element by element. It
//! has no gradient, and its reference is the same computation in f64.
//!
//! On a device all weights, gradients, moments and averages are contiguous. The norm is the root of the sum of squares:
//! groups of up to sixteen in f32, the sums of groups in f64, always in the same order. The host fetches the loss and
//! the norm of a step while the device continues. A step whose loss or norm is not finite changes nothing, nor does any
//! later step, so that the host may learn of it later. A weight costs 44 bytes of traffic: its gradient read twice and
//! written once, four other numbers read and written; and two bytes more for a copy in bf16.

pub mod cpu;
pub mod cuda;
pub mod shared;

/// The constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// β1.
    pub beta1: f64,
    /// β2.
    pub beta2: f64,
    /// ε, added to the root.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// The MDLM authors' configuration: Adam.
impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// The optimizer's memory, in the network's flat order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Average of the gradient.
    pub first: Vec<f32>,
    /// Average of the squared gradient.
    pub second: Vec<f32>,
    /// Moving average of the weights.
    pub ema: Vec<f32>,
}

impl Moments {
    /// Those before the first update of weights: zeros, and the average is the weights.
    #[must_use]
    pub fn before(weights: Vec<f32>) -> Self {
        Self {
            first: vec![0.0; weights.len()],
            second: vec![0.0; weights.len()],
            ema: weights,
        }
    }
}

/// Numbers that training keeps of every weight, each in an arena in the weights' order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arena {
    /// The weights.
    Weights,
    /// Average of the gradient.
    FirstMoment,
    /// Average of the squared gradient.
    SecondMoment,
    /// Moving average of the weights.
    Average,
}

/// What differs from update to update.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// n = 1, 2, …
    pub number: u64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the moving average.
    pub ema_decay: f64,
}

/// The update's factors, rounded to f32 once.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    /// 1 − lr · weight decay.
    keep: f32,
    /// lr / (1 − β1^n).
    step: f32,
    /// 1 / √(1 − β2^n).
    root: f32,
    epsilon: f32,
    one_minus_ema: f32,
}

impl Factors {
    /// Those of an update.
    #[must_use]
    pub fn new(adam: AdamW, update: Update) -> Self {
        // Past 2^31 updates both corrections have long been 1.
        let n = update.number.min(1 << 30) as i32;
        Self {
            beta1: adam.beta1 as f32,
            one_minus_beta1: (1.0 - adam.beta1) as f32,
            beta2: adam.beta2 as f32,
            one_minus_beta2: (1.0 - adam.beta2) as f32,
            keep: (1.0 - update.learning_rate * adam.weight_decay) as f32,
            step: (update.learning_rate / (1.0 - adam.beta1.powi(n))) as f32,
            root: (1.0 / (1.0 - adam.beta2.powi(n)).sqrt()) as f32,
            epsilon: adam.epsilon as f32,
            one_minus_ema: (1.0 - update.ema_decay) as f32,
        }
    }

    /// All of them, in the order in which the kernel names them.
    #[must_use]
    pub fn all(&self) -> [f32; 9] {
        [
            self.beta1,
            self.one_minus_beta1,
            self.beta2,
            self.one_minus_beta2,
            self.keep,
            self.step,
            self.root,
            self.epsilon,
            self.one_minus_ema,
        ]
    }
}
