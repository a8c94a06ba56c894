//! When a run has gone wrong, and why as far as its figures say.

use std::collections::VecDeque;

use super::metrics::RECENT;
use super::{TrainState, Trainer};
use crate::error::{Error, Result};
use crate::model::GradientNorm;

/// A run has diverged when the losses of most of its last [`RECENT`] steps exceed this many times log V, the loss of
/// a model that guesses uniformly. An untrained network starts at 1; single steps may lie so much higher, as 1/t weighs
/// some rows a thousandfold, that their mean says nothing.
const DIVERGED: f64 = 4.0;

/// Whether the losses of most of the last steps exceed `limit`.
fn has_diverged(recent: &VecDeque<f64>, limit: f64) -> bool {
    let above = recent.iter().filter(|&&loss| loss > limit).count();
    recent.len() == RECENT && 2 * above > RECENT
}

impl Trainer<'_> {
    /// Records an update; an error when the run has diverged.
    pub(super) fn note(
        &self,
        state: &mut TrainState,
        number: u64,
        loss: f64,
        norm: &GradientNorm,
    ) -> Result<()> {
        state.log.step(number, self.rate(number), loss, norm.total);
        // Of one token besides the mask there is nothing to guess, and log 1 is 0.
        let uniform = f64::from(self.objective.support().size.saturating_sub(1).max(2)).ln();
        let limit = DIVERGED * uniform;
        if has_diverged(&state.log.recent, limit) {
            let rule = format!("has exceeded {DIVERGED} · log V = {limit:.2} in most of {RECENT} steps");
            return Err(self.diagnosis(state, number, loss, norm, &rule));
        }
        Ok(())
    }

    /// Why a run diverged, by its figures.
    pub(super) fn diagnosis(
        &self,
        state: &TrainState,
        step: u64,
        loss: f64,
        norm: &GradientNorm,
        what: &str,
    ) -> Error {
        let history: Vec<String> = state.log.recent.iter().map(|loss| format!("{loss:.3}")).collect();
        let history = if history.is_empty() {
            "none".to_owned()
        } else {
            history.join(", ")
        };
        let subject = if norm.total.is_finite() || !loss.is_finite() {
            "loss"
        } else {
            "gradient"
        };
        let warm = self.config.warmup_steps;
        let mut ways = vec![format!(
            "lower `learning_rate` ({:e}), for instance to {:.0e}",
            self.config.learning_rate,
            self.config.learning_rate / 3.0
        )];
        if step > warm && warm < 500 {
            ways.push(format!("raise `warmup_steps` ({warm})"));
        }
        if self.config.gradient_clip == 0.0 {
            ways.push("switch `gradient_clip` on".to_owned());
        }
        let largest = norm.largest.as_ref().map_or_else(String::new, |(name, norm)| {
            format!(" (largest in `{name}`: {norm:.4e})")
        });
        Error::input(format!(
            "training diverged at step {step}: the {subject} {what}; loss {loss:.4}, gradient norm {:.4e}{largest}, \
             learning rate {:.3e}; losses before: {history}",
            norm.total,
            self.rate(step),
        ))
        .hint(format!("{}; the last good checkpoint is kept", ways.join(", or ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_a_loss_that_stays_high_not_single_steps() {
        let recent = |high: usize, value: f64| {
            let steps = (0..RECENT).map(|step| if step < high { value } else { 1.0 });
            steps.collect::<VecDeque<_>>()
        };
        assert!(!has_diverged(&recent(1, 1e6), 4.0));
        assert!(!has_diverged(&recent(RECENT / 2, 1e6), 4.0));
        assert!(has_diverged(&recent(RECENT / 2 + 1, 4.1), 4.0));
        let mut short = recent(RECENT, 1e6);
        short.pop_front();
        assert!(!has_diverged(&short, 4.0));
    }
}
