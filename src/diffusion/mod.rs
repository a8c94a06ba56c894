//! The mathematics of diffusion over tokens: noise, parameterizations, reverse steps and objectives, without I/O and
//! without a network.
//!
//! From the paper (Sahoo et al., arXiv 2406.07524) to the code; x_0 is the paper's x, and x_t its z_t:
//!
//! | in the paper | here |
//! |---|---|
//! | α_t, σ(t) = −log α_t, dσ/dt (section 3.1, appendix E) | [`Noise::alpha`], [`Noise::sigma`], [`Noise::sigma_rate`] |
//! | 1 − α_t, the move chance | [`Noise::move_chance`] |
//! | q(x_t \| x_0) = Cat(α_t x_0 + (1 − α_t) π) (section 3.1) | [`ForwardProcess::q_xt`]; π is [`Prior`] |
//! | x_θ(x_t, t): SUBS, zero masking probabilities and carry-over (section 3.2.3) | [`Subs::log_p_x0`] |
//! | p_θ(x_s \| x_t) = q(x_s \| x_t, x_θ) (eq. 7) | [`Posterior::unmask_probability`]; D3PM's is [`Posterior::unmask_probability_beside_mask`] |
//! | the discrete-time bound with its reconstruction term (eq. 5, eq. 6) | the ends in [`Masking::level_of_bound`](objective::Masking::level_of_bound) |
//! | −α′_t / (1 − α_t), the weight of the continuous-time bound (eq. 10) | [`Noise::loss_weight`] |
//! | the bound itself (eq. 10), one draw of it | [`Objective::noise_of_bound`]; `mdlm::evaluate` computes its mean and interval |
//! | the training loss, t = ε′ + (1 − ε′) u | [`Objective::noise`], [`Masking::time`](objective::Masking::time) |
//! | low-discrepancy times (appendix C.3) | [`low_discrepancy_time`] |
//!
//! In a training step, the objective draws t for a row and [`ForwardProcess::q_xt`] replaces tokens by the mask.
//! [`NoisedBatch`] holds the network's input, the positions that it predicts, and the weight of each. The network's
//! readout computes −log p(x_0 | x_t) at these positions.
//!
//! Each objective is one file in `objective/`, a variant of the manifest's `objective`, and an arm of
//! [`objective::build`]; CONTRIBUTING.md lists all files that a new one takes. Training, evaluation, sampling and the
//! benchmark use the trait [`Objective`] and do not know which objective it is.
//!
//! Shape letters: B rows of the global batch, L tokens a row, n positions that are predicted.

mod forward;
pub mod objective;
mod parameterization;
mod posterior;
mod quantity;
mod schedule;
#[cfg(any(test, feature = "testing"))]
pub mod toy;

pub use crate::manifest::Noise;
pub use forward::{
    Conditioning, ForwardProcess, NoiseLevel, NoisedBatch, Prior, RowIndex, Score, low_discrepancy_time,
};
pub use objective::{Draw, Given, Mdlm, Method, Objective, Passes, shift};
pub use parameterization::Subs;
pub use posterior::{Posterior, Scores};
pub use quantity::Quantity;
#[cfg(any(test, feature = "testing"))]
pub use schedule::EVERY_SCHEDULE;
