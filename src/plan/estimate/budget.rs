//! Which stages fit in a stretch of time, in the order in which they run.

use super::StageEstimate;

/// What of a run fits in a stretch of time.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeBudget {
    /// The places in the plan of the stages that fit whole, in order.
    pub whole: Vec<usize>,
    /// The training that fits in part.
    pub part: Option<TrainedShare>,
    /// The stage before which nothing more can be said: its time is unknown.
    pub unknown: Option<usize>,
    /// The places of the stages that do not fit, and of those after them.
    pub left: Vec<usize>,
    /// Seconds that the stages which fit take, those of a part included.
    pub seconds: f64,
}

/// The part of a training that fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainedShare {
    /// Its place in the plan.
    pub index: usize,
    /// Steps that fit.
    pub steps: u64,
    /// Steps that are left to do.
    pub of: u64,
    /// The step at which it then stands.
    pub reached: u64,
}

impl TimeBudget {
    /// That of some estimates, in the order of the run, and a number of seconds. A stage that does not fit ends it: one that needs
    /// less time comes after it all the same.
    #[must_use]
    pub fn of(estimates: &[StageEstimate], seconds: f64) -> Self {
        let mut budget = Self {
            whole: Vec::new(),
            part: None,
            unknown: None,
            left: Vec::new(),
            seconds: 0.0,
        };
        let mut rest = estimates.iter();
        for estimate in rest.by_ref() {
            let Ok(time) = &estimate.time else {
                budget.unknown = Some(estimate.index);
                budget.left.push(estimate.index);
                break;
            };
            let free = seconds - budget.seconds;
            if time.seconds <= free {
                budget.seconds += time.seconds;
                budget.whole.push(estimate.index);
                continue;
            }
            if let Some((from, to)) = estimate.steps
                && to > from
            {
                let of = to - from;
                let per_step = time.seconds / of as f64;
                let steps = ((free / per_step).floor() as u64).min(of);
                if steps > 0 {
                    budget.seconds += steps as f64 * per_step;
                    budget.part = Some(TrainedShare {
                        index: estimate.index,
                        steps,
                        of,
                        reached: from + steps,
                    });
                }
            }
            budget.left.push(estimate.index);
            break;
        }
        budget.left.extend(rest.map(|estimate| estimate.index));
        budget
    }
}
